#!/usr/bin/env bash
# What a name costs: the same CONNECT by address, by a name of the hosts file, and by a name in the cache, taking turns at one
# proxy. Fails when the cached name takes over 5 % more CPU time than the address, or other system calls.
#
#   bench/names.sh                              three rounds; the best of each counts
#   ROUNDS=1 WINDOW_S=1 bench/names.sh          a quick look; ADIT=path takes another binary
#
# It needs two cores. How CPU time and system calls are counted: bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-3}
WINDOW_S=${WINDOW_S:-3}
. bench/lib.sh

ways="address hosts cached"
asked() { # WAY: what CONNECT asks for
    case $1 in
        address) echo "$origin" ;;
        hosts) echo "in.hosts.test:$port" ;;
        cached) echo "in.cache.test:$port" ;;
    esac
}

load() { # WAY OPTIONS
    timeout 120 taskset -c $LOAD_CORE "$BENCH" connect --proxy "$proxy" --origin "$(asked "$1")" --pid "$proxy_pid" "${@:2}"
}

calls() { # WAY COUNT FILE: the proxy's system calls in such a run, by name
    trace_start
    load "$1" --conns 1 --count "$2" >/dev/null
    trace_stop
    cp "$work/strace" "$3"
}

calls_per_connect() { # WAY: one connection at a time, so that little depends on what happens to be ready together
    calls "$1" 200 "$work/few"
    calls "$1" 1200 "$work/many"
    awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { if (FNR == NR) few[$NF] = $4; else { n = ($4 - few[$NF]) / 1000; if (n >= 0.05) printf "%s=%.1f ", $NF, n } }' \
        "$work/few" "$work/many" | tr ' ' '\n' | LC_ALL=C sort | xargs
}

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
install_missing strace:strace python3:python3
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet --workspace

start_origin
port=${origin##*:}
dns_port=$(python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
taskset -c $LOAD_CORE python3 scripts/names-netns.py dns "$dns_port" in.cache.test 127.0.0.1 >"$work/dns.log" &
helper_pids+=($!)
for _ in $(seq 100); do grep -q ready "$work/dns.log" && break; sleep 0.05; done
echo "127.0.0.1 in.hosts.test" >"$work/hosts"
start_adit --max-sessions 9600 --access-log off --hosts "$work/hosts" --nameserver "127.0.0.1:$dns_port"
load cached --conns 1 --count 1 >/dev/null # now it is in the cache

for n in $(seq "$ROUNDS"); do
    for way in $ways; do
        line=$(load "$way" --seconds "$WINDOW_S")
        echo "round $n, $way: $line" >&2
        value cpu_us "$line" >>"$work/$way.cpu"
        value ops_s "$line" >>"$work/$way.ops"
    done
done

base=$(least address.cpu)
printf '| %-8s | %9s | %9s | %9s |\n|---|---|---|---|\n' "CONNECT" "CPU µs" "of address" "per second"
for way in $ways; do
    cpu=$(least "$way.cpu")
    printf '| %-8s | %9s | %9s | %9s |\n' "$way" "$cpu" "$(awk "BEGIN { printf \"%.3f\", $cpu / $base }")" "$(most "$way.ops")"
done
for way in $ways; do
    calls_per_connect "$way" >"$work/$way.calls"
    echo "system calls, $way: $(cat "$work/$way.calls")"
done

# How often the loop sleeps also depends on what happens to be ready together; one more turn for each name would be 1.
same_calls() { # FILE FILE
    paste -d ' ' <(tr ' ' '\n' <"$1") <(tr ' ' '\n' <"$2") | awk -F '[= ]' '
        $1 != $3 { exit 1 }
        { apart = $2 - $4; if (apart < 0) apart = -apart; if (apart > ($1 ~ /^epoll_p?wait/ ? 0.5 : 0.05)) exit 1 }'
}

failed=0
awk "BEGIN { exit !($(least cached.cpu) <= 1.05 * $base) }" || { echo "FAILED: a cached name costs over 5 % more CPU time than an address"; failed=1; }
for way in hosts cached; do
    same_calls "$work/address.calls" "$work/$way.calls" || { echo "FAILED: system calls differ: $way"; failed=1; }
done
exit $failed
