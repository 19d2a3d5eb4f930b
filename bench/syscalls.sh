#!/usr/bin/env bash
# Counts the system calls of the proxy and its peers: for a CONNECT, a 64-byte round trip, a request that keeps its connection, one
# that does not, and a MiB. Prints a table; fails when the proxy makes more than its limits allow.
#
#   bench/syscalls.sh                             all peers, three rounds (five minutes)
#   PEERS=adit ROUNDS=1 bench/syscalls.sh         a quick look
#   COUNTER=strace bench/syscalls.sh              where perf may not count: the proxy is slowed down
#
# What is counted and how: bench/README.md. Options as for bench/compare.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

SHAPES=${SHAPES:-"connect roundtrips 1k close down up"}
ROUNDS=${ROUNDS:-3}
. bench/lib.sh
. bench/peers.sh

count() { # SHAPE: sets calls and operations (for bulk: MiB) of one run
    case $1 in
        connect) load_command "$1" 60 --count 10000 ;;
        roundtrips) load_command "$1" 60 --count 50000 ;;
        down | up) load_command "$1" 60 --count 1024 ;;
        *) load_command "$1" 2 ;; # wrk takes no number
    esac
    if [ "$counter" = perf ]; then
        run "$1" perf stat -x, -e raw_syscalls:sys_enter -o "$work/perf" -p "$proxy_pid" -- "${command[@]}" || return
        calls=$(awk -F, '/sys_enter/ { print $1 }' "$work/perf")
    else
        trace_start
        run "$1" "${command[@]}" || { trace_stop; return 1; }
        trace_stop
    fi
    operations=$(value ops "$line")
}

install_peers strace:strace
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet --workspace
counter=${COUNTER:-strace}
if [ -z "${COUNTER-}" ] && perf stat -e raw_syscalls:sys_enter true >/dev/null 2>&1; then counter=perf; fi
start_origin
write_configs
for _ in $(seq "$ROUNDS"); do
    for peer in $PEERS; do
        for shape in $SHAPES; do
            if start "$peer" && count "$shape"; then
                echo "$peer ${shape}_syscalls $(awk "BEGIN { printf \"%.3f\", $calls / $operations }")" | tee -a "$data" >&2
            else
                [ "$peer" != adit ] || fail "adit failed at $shape"
                echo "$peer failed at $shape" >&2
            fi
            stop
        done
    done
done
python3 bench/report.py "$data" "$PEERS" "$(machine), counted by $counter, $ROUNDS rounds" --check
