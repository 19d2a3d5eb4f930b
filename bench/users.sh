#!/usr/bin/env bash
# What a user costs: the same CONNECT through a proxy that asks for nobody, through the same with a field more to read, and through
# one with `--users`, once the credentials are remembered; they take turns. Fails when the last takes over 5 % more CPU time than
# the first.
#
#   bench/users.sh                              five rounds; the best of each counts
#   ROUNDS=1 WINDOW_S=1 bench/users.sh          a quick look; ADIT=path takes another binary
#
# It needs two cores. How CPU time is counted: bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-5}
WINDOW_S=${WINDOW_S:-3}
. bench/lib.sh

ways="open field user"
credentials="Proxy-Authorization: Basic $(printf 'alice:secret' | base64)"

start() { # WAY: a proxy
    local options=(--max-sessions 9600 --access-log off)
    [ "$1" = user ] && options+=(--users "$work/users")
    start_adit "${options[@]}"
}

load() { # WAY OPTIONS
    local field=()
    [ "$1" = open ] || field=(--field "$credentials")
    timeout 120 taskset -c $LOAD_CORE "$BENCH" connect --proxy "$proxy" --origin "$origin" --pid "$proxy_pid" "${field[@]}" "${@:2}"
}

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet --workspace
start_origin
# htpasswd -nbB alice secret
echo 'alice:$2y$10$waz10DYtzRMq7uCtXT9YOu9hjeG3k9Wp4xCvIt6M/KKSQjCaqjM52' >"$work/users"

for n in $(seq "$ROUNDS"); do
    for way in $ways; do
        start "$way"
        load "$way" --conns 1 --count 1 >/dev/null # now they are remembered
        line=$(load "$way" --seconds "$WINDOW_S")
        echo "round $n, $way: $line" >&2
        value cpu_us "$line" >>"$work/$way.cpu"
        value ops_s "$line" >>"$work/$way.ops"
        stop
    done
done

machine
printf '| %-8s | %9s | %9s | %9s |\n|---|---|---|---|\n' "CONNECT" "CPU µs" "of open" "per second"
for way in $ways; do
    cpu=$(least "$way.cpu")
    printf '| %-8s | %9s | %9s | %9s |\n' "$way" "$cpu" "$(awk "BEGIN { printf \"%.3f\", $cpu / $(least open.cpu) }")" "$(most "$way.ops")"
done
awk "BEGIN { exit !($(least user.cpu) <= 1.05 * $(least open.cpu)) }" || { echo "FAILED: a user costs over 5 % more CPU time than nobody"; exit 1; }
