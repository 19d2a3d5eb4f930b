#!/usr/bin/env bash
# wrk through the proxy: plain HTTP in absolute form, over 64 connections. Prints requests/s, latencies and what a request costs
# the proxy; fails when a single request fails.
#
#   scripts/wrk.sh                              three shapes of ten seconds
#   WINDOW_S=2 SHAPES=1k CONNS=8 scripts/wrk.sh
#
# ADIT=path takes another binary, ADIT_ARGS="..." adds options to it, LOOPS=2 more loops. Installs wrk (Debian) if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."

SHAPES=${SHAPES:-"1k 64k close"}
WINDOW_S=${WINDOW_S:-10}
CONNS=${CONNS:-64}
. bench/lib.sh

load() { # SHAPE SECONDS: sets said (wrk's line) and charged (the proxy's)
    local path=$1 close=''
    [ "$1" = close ] && path=1k close=close
    # shellcheck disable=SC2086
    timeout 120 taskset -c "$LOAD_CORE" "$BENCH" charge --pid "$proxy_pid" -- \
        wrk -t1 -c"$CONNS" -d"${2}s" --timeout 10s -s bench/absolute.lua "http://$proxy" -- "http://$origin/$path" $close >"$work/wrk.out" ||
        { cat "$work/wrk.out" "$work/adit.log" >&2; fail "wrk fails"; }
    if grep -q FAILED "$work/wrk.out"; then cat "$work/wrk.out" "$work/adit.log" >&2; fail "requests fail: $1"; fi
    said=$(grep '^requests=' "$work/wrk.out") charged=$(grep '^shape=charge' "$work/wrk.out")
}

install_missing wrk:wrk
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet --workspace
start_origin
# shellcheck disable=SC2086
start_adit --access-log off ${ADIT_ARGS:-}
load 1k 1 # what is done once is done now

machine
printf '%-34s %10s %8s %8s %8s %8s %12s %8s\n' "$CONNS connections" "requests/s" "p50 µs" "p90 µs" "p99 µs" "max µs" "CPU/req. µs" "core %"
for shape in $SHAPES; do
    load "$shape" "$WINDOW_S"
    case $shape in
        1k) what="keep-alive, 1 KiB" ;;
        64k) what="keep-alive, 64 KiB" ;;
        close) what="Connection: close, 1 KiB" ;;
        *) what=$shape ;;
    esac
    printf '%-34s %10s %8s %8s %8s %8s %11s %8s\n' "$what" "$(value ops_s "$said")" "$(value p50_us "$said")" "$(value p90_us "$said")" \
        "$(value p99_us "$said")" "$(value max_us "$said")" \
        "$(awk "BEGIN { printf \"%.2f\", $(value total_cpu_us "$charged") / $(value requests "$said") }")" "$(value cpu_percent "$charged")"
done
