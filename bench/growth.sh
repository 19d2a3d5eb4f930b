#!/usr/bin/env bash
# Whether an operation stays as cheap as it is when much else is there: a CONNECT, a round trip and a request, each with 0, 1,000 and
# 9,000 idle tunnels beside it, and with 10, 1,000 and 200,000 names to be denied. Prints a table (Markdown); fails when any of them
# takes over 10 % more CPU time than with 0 or 10.
#
#   bench/growth.sh                             five rounds in turns; the best of each counts (less than three minutes)
#   ROUNDS=1 WINDOW_S=1 bench/growth.sh         a quick look; ADIT=path takes another binary
#
# It needs two cores and wrk (Debian), which it installs. How it is measured: bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

SHAPES=${SHAPES:-"connect roundtrips 1k"}
IDLE=${IDLE:-"0 1000 9000"}
RULES=${RULES:-"10 1000 200000"}
ROUNDS=${ROUNDS:-5}
WINDOW_S=${WINDOW_S:-1}
PEERS=adit
LIMIT=1.10
. bench/lib.sh
. bench/peers.sh

# Held by a process of its own, towards another address than the measured operations, so that these find a free port as soon as
# without them.
hold() { # TUNNELS: sets holder
    timeout 600 taskset -c "$LOAD_CORE" "$BENCH" idle --proxy "$tunnel_to" --origin "127.0.0.2:$port" --conns "$1" --seconds 1000 >"$work/hold.log" 2>&1 &
    holder=$!
    helper_pids+=("$holder")
    for _ in $(seq 600); do
        grep -q '^holding' "$work/hold.log" && return
        kill -0 "$holder" 2>/dev/null || break
        sleep 0.05
    done
    cat "$work/hold.log" >&2
    fail "$1 tunnels cannot be held"
}

measure() { # KIND NUMBER: all shapes, at a fresh proxy
    local options=(--hosts "$work/hosts") shape
    [ "$1" = idle ] || options+=(--deny-file "$work/names-$2")
    ADIT_ARGS="${options[*]}" start adit
    connect=(--origin "in.hosts.test:$port") base=http://in.hosts.test:$port holder=''
    if [ "$1" = idle ] && [ "$2" != 0 ]; then hold "$2"; fi
    for shape in $SHAPES; do
        load_command "$shape" "$WINDOW_S" --warm 0.3
        run "$shape" "${command[@]}"
        echo "$2 $1: $line" >&2
        value cpu_us "$line" >>"$work/$1-$2-$shape"
    done
    if [ -n "$holder" ]; then
        kill "$holder"
        wait "$holder" 2>/dev/null || true
    fi
    stop
}

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
ulimit -n "$(ulimit -Hn)"
install_peers
cargo build --release --quiet --workspace
start_origin --listen 0.0.0.0:0
port=${origin##*:}
peer=adit
echo "127.0.0.1 in.hosts.test" >"$work/hosts"
for number in $RULES; do seq "$number" | sed 's/.*/ads.banner-&.example/' >"$work/names-$number"; done

for _ in $(seq "$ROUNDS"); do
    for number in $IDLE; do measure idle "$number"; done
    for number in $RULES; do measure rules "$number"; done
done

row() { # KIND SHAPE LABEL NUMBERS: the best of the rounds, and times the first
    local number base cpu ratio line="| $3 |"
    for number in $4; do
        cpu=$(least "$1-$number-$2")
        base=${base:-$cpu}
        ratio=$(awk "BEGIN { printf \"%.3f\", $cpu / $base }")
        line+=" $cpu ($ratio) |"
        awk "BEGIN { exit !($ratio <= $LIMIT) }" || echo "$3, $number: $ratio times" >>"$work/missed"
    done
    echo "$line"
}
part() { # KIND HEADING NUMBERS
    local shape label
    printf '\n| %s |' "$2"
    printf ' %d |' $3
    printf '\n|---|'
    printf -- '---|%.0s' $3
    echo
    for shape in $SHAPES; do
        case $shape in
            connect) label="CONNECT, 64-byte echo, close" ;;
            roundtrips) label="64-byte round trip" ;;
            *) label="request, $shape" ;;
        esac
        row "$1" "$shape" "$label" "$3"
    done
}
echo "$(machine), best of $ROUNDS rounds of $WINDOW_S s"
part idle "CPU in µs (times the first) with so many idle tunnels" "$IDLE"
part rules "CPU in µs (times the first) with so many names denied" "$RULES"
[ ! -e "$work/missed" ] || { cat "$work/missed" >&2; fail "growth beyond $LIMIT"; }
