#!/usr/bin/env bash
# What more loops cost: the same load on one loop and on two, taking turns on one core. Fails when two take over 5 % more CPU time
# for an operation. Then how connections spread: which share of them the fullest of two and of four loops has.
#
#   bench/loops.sh                              nine rounds; the best of each counts
#   ROUNDS=1 WINDOW_S=1 SPREADS=1 bench/loops.sh    a quick look; ADIT=path takes another binary
#
# It needs two cores. How CPU time is counted: bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-9}
WINDOW_S=${WINDOW_S:-1}
SPREADS=${SPREADS:-5}           # times that connections are spread
SHAPES=${SHAPES:-"connect roundtrips"}
. bench/lib.sh

load() { # SHAPE OPTIONS
    timeout 120 taskset -c $LOAD_CORE "$BENCH" "$1" --proxy "$proxy" --origin "$origin" --pid "$proxy_pid" "${@:2}"
}

# The best round counts: what else runs on the machine only ever adds.
least() { sort -g "$work/$1" | head -1; }

watched() { # how many sockets each loop watches, a line each
    grep -c '^tfd:' "/proc/$proxy_pid/fdinfo"/* 2>/dev/null | sed 's/.*://' | grep -vx 0 || true
}

spread() { # LOOPS CONNECTIONS: notes which share of the connections the fullest loop has, in percent
    local before now held=0
    LOOPS=$1 start_adit --max-sessions 9600 --access-log off
    before=$(watched)
    load idle --conns "$2" --seconds 3 >/dev/null &
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
            line=$(load "$shape" --seconds "$WINDOW_S")
            echo "round $n, $loops loops: $line" >&2
            value cpu_us "$line" >>"$work/$shape.$loops"
        done
        stop
    done
done
for loops in 2 4; do
    for connections in 64 200 2000; do
        for _ in $(seq "$SPREADS"); do spread $loops $connections; done
    done
done

machine
printf '| %-10s | %9s | %9s | %9s |\n|---|---|---|---|\n' "CPU µs" "one loop" "two loops" "ratio"
failed=0
for shape in $SHAPES; do
    one=$(least "$shape.1") two=$(least "$shape.2")
    ratio=$(awk "BEGIN { printf \"%.3f\", $two / $one }")
    printf '| %-10s | %9s | %9s | %9s |\n' "$shape" "$one" "$two" "$ratio"
    awk "BEGIN { exit !($ratio <= 1.05) }" || failed=1
done
echo
printf '| %-5s | %11s | %28s |\n|---|---|---|\n' "loops" "connections" "% of them on the fullest loop"
for loops in 2 4; do
    for connections in 64 200 2000; do
        shares=$(sort -g "$work/share.$loops.$connections" | sed 's/\.0$//' | paste -sd ' ')
        printf '| %-5s | %11s | %28s |\n' "$loops" "$connections" "$shares"
    done
done
[ $failed = 0 ] || echo "FAILED: two loops take over 5 % more CPU time than one"
exit $failed
