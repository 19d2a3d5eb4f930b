#!/usr/bin/env bash
# What more loops cost: the same load on one loop and on two, taking turns on one core; and on two loops on two cores, in turns with
# two processes of one loop each, which share nothing but the port. Fails when two loops take over 5 % more CPU time for an operation.
# Then how connections spread: which share of them the fullest of two and of four loops has.
#
#   bench/loops.sh                              five rounds; the best of each counts (a minute and a half)
#   ROUNDS=1 WINDOW_S=1 SPREADS=1 bench/loops.sh    a quick look; ADIT=path takes another binary
#
# It needs two cores. How CPU time is counted: bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-5}
WINDOW_S=${WINDOW_S:-1}
SPREADS=${SPREADS:-3}           # times that connections are spread
SHAPES=${SHAPES:-"connect roundtrips"}
CONNECTS=${CONNECTS:-5000}      # on both cores: CONNECTs of either load; six times as many round trips
. bench/lib.sh

load() { # SHAPE OPTIONS
    timeout 60 taskset -c $LOAD_CORE "$BENCH" "$1" --proxy "$proxy" --origin "$origin" --pid "$proxy_pid" "${@:2}"
}

pin() { # CORE PID LOOP: the thread of this loop
    local task
    for task in "/proc/$2/task"/*; do
        [ "$(cat "$task/comm")" != "loop-$3" ] || taskset -pc "$1" "${task##*/}" >/dev/null
    done
}

# Each core has one loop and one load. Be they of one process or of two that listen on the same port: a connection of either load may
# be on either loop, so as many bytes go from core to core.
both_cores() { # LOOPS: of one process with two, or of two with one
    local pids shape count
    LOOPS=$1 start_adit --max-sessions 9600 --access-log off
    pids=$proxy_pid
    pin "$PROXY_CORE" "$proxy_pid" 0
    if [ "$1" = 1 ]; then
        helper_pids+=("$proxy_pid")
        LISTEN=$proxy LOOPS=1 start_adit --max-sessions 9600 --access-log off
        pids+=,$proxy_pid
    fi
    pin "$LOAD_CORE" "$proxy_pid" $(($1 - 1))
    for shape in $SHAPES; do
        case $shape in connect) count=$CONNECTS ;; *) count=$((6 * CONNECTS)) ;; esac
        line=$("$BENCH" charge --pid "$pids" -- bash -c '
            one() { timeout 60 taskset -c "$1" "${@:2}" >/dev/null; }
            one "$1" "${@:3}" & one "$2" "${@:3}" && wait $!' \
            - "$PROXY_CORE" "$LOAD_CORE" "$BENCH" "$shape" --proxy "$proxy" --origin "$origin" --count "$count")
        echo "round $n, both cores, $1 loops a process: $line" >&2
        awk "BEGIN { printf \"%.3f\\n\", $(value total_cpu_us "$line") / (2 * $count) }" >>"$work/$shape.cores.$1"
    done
    stop
    if [ "$1" = 1 ]; then kill "${pids%,*}"; wait "${pids%,*}" 2>/dev/null || true; fi
}

watched() { # how many sockets each loop watches, a line each
    grep -c '^tfd:' "/proc/$proxy_pid/fdinfo"/* 2>/dev/null | sed 's/.*://' | grep -vx 0 || true
}

spread() { # LOOPS CONNECTIONS: notes which share of the connections the fullest loop has, in percent
    local before now held=0
    LOOPS=$1 start_adit --max-sessions 9600 --access-log off
    before=$(watched)
    load idle --conns "$2" --seconds 1 >/dev/null &
    for _ in $(seq 100); do
        now=$(watched)
        # A tunnel is two sockets.
        held=$(paste <(echo "$before") <(echo "$now") | awk '{ n += ($2 - $1) / 2 } END { print n }')
        [ "$held" = "$2" ] && break
        sleep 0.05
    done
    [ "$held" = "$2" ] || fail "$held of $2 tunnels are open"
    paste <(echo "$before") <(echo "$now") | awk -v all="$2" '
        { n = ($2 - $1) / 2; if (n > most) most = n } END { printf "%.1f\n", 100 * most / all }' >>"$work/share.$1.$2"
    wait $!
    stop
}

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet --workspace
start_origin

for n in $(seq "$ROUNDS"); do
    for loops in 1 2; do
        LOOPS=$loops start_adit --max-sessions 9600 --access-log off
        for shape in $SHAPES; do
            line=$(load "$shape" --seconds "$WINDOW_S" --warm 0.3)
            echo "round $n, $loops loops: $line" >&2
            value cpu_us "$line" >>"$work/$shape.$loops"
        done
        stop
    done
    both_cores 1
    both_cores 2
done
for loops in 2 4; do
    for connections in 64 200 2000; do
        for _ in $(seq "$SPREADS"); do spread $loops $connections; done
    done
done

failed=0
row() { # LABEL ONE TWO: of files that hold what the rounds took
    local one two ratio
    one=$(least "$2") two=$(least "$3")
    ratio=$(awk "BEGIN { printf \"%.3f\", $two / $one }")
    echo "| $1 | $one | $two | $ratio |"
    awk "BEGIN { exit !($ratio <= 1.05) }" || failed=1
}
echo "$(machine), best of $ROUNDS rounds"
printf '\n| CPU in µs | one loop | two loops | ratio |\n|---|---|---|---|\n'
for shape in $SHAPES; do row "$shape, one core" "$shape.1" "$shape.2"; done
for shape in $SHAPES; do row "$shape, two cores (one loop: in each of two processes)" "$shape.cores.1" "$shape.cores.2"; done
printf '\n| loops | connections | %% of them on the fullest loop |\n|---|---|---|\n'
for loops in 2 4; do
    for connections in 64 200 2000; do
        shares=$(sort -g "$work/share.$loops.$connections" | sed 's/\.0$//' | paste -sd ' ')
        echo "| $loops | $connections | $shares |"
    done
done
[ $failed = 0 ] || echo "FAILED: two loops take over 5 % more CPU time than one" >&2
exit $failed
