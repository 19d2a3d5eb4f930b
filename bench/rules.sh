#!/usr/bin/env bash
# What a list of 200,000 names costs: bytes and nanoseconds of the list itself, and then the same CONNECT by name at a proxy without
# rules and at one with such a list, taking turns. Fails when a name takes over 10 bytes, an answer about a name or an address over
# a microsecond (about a name of 127 labels, in a list that has such a name, over 1.5), or a CONNECT over 10 % more CPU time.
#
#   bench/rules.sh                              five rounds; the best of each counts
#   ROUNDS=1 WINDOW_S=1 bench/rules.sh          a quick look; ADIT=path takes another binary
#
# It needs two cores. How CPU time is counted: bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-5}
WINDOW_S=${WINDOW_S:-3}
NAMES=${NAMES:-200000}
. bench/lib.sh

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet --workspace

taskset -c $PROXY_CORE "$BENCH" rules --count "$NAMES" --write "$work/list" | tr ' ' '\n' | tee "$work/figures"
# The deepest name that a client can ask for may cost more than others, but not much.
awk -F= '
    /^bytes_per_/ { limit = 10 }
    /_ns=/ { limit = 1000 }
    /^name_of_127_labels_miss_in_a_deep_list_ns=/ { limit = 1500 }
    limit && !($2 <= limit) { print "too much: " $0; bad = 1 }
    { seen += limit > 0; limit = 0 }
    END { exit bad || seen != 11 }' "$work/figures" || fail "the list takes too much"

start_origin
echo "127.0.0.1 in.hosts.test" >"$work/hosts"
for n in $(seq "$ROUNDS"); do
    for way in without with; do
        options=()
        [ $way = without ] || options=(--deny-file "$work/list")
        start_adit --max-sessions 9600 --access-log off --hosts "$work/hosts" "${options[@]}"
        line=$(timeout 120 taskset -c $LOAD_CORE "$BENCH" connect --proxy "$proxy" --origin "in.hosts.test:${origin##*:}" \
            --pid "$proxy_pid" --seconds "$WINDOW_S")
        rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$proxy_pid/status")
        stop
        echo "round $n, $way: rss_kib=$rss $line" >&2
        value cpu_us "$line" >>"$work/$way.cpu"
        echo "$rss" >>"$work/$way.rss"
    done
done

# The best round counts: what else runs on the machine only ever adds.
least() { sort -g "$work/$1" | head -1; }
base=$(least without.cpu)
machine
printf '| %-7s | %9s | %9s | %9s |\n|---|---|---|---|\n' "CONNECT" "CPU µs" "of none" "RSS KiB"
for way in without with; do
    cpu=$(least $way.cpu)
    printf '| %-7s | %9s | %9s | %9s |\n' $way "$cpu" "$(awk "BEGIN { printf \"%.3f\", $cpu / $base }")" "$(least $way.rss)"
done
awk "BEGIN { exit !($(least with.cpu) <= 1.10 * $base) }" || fail "a CONNECT costs over 10 % more with the list"
