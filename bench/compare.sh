#!/usr/bin/env bash
# The comparison: the proxy beside its peers, in all shapes, in turns on pinned cores. Prints one table of medians (Markdown) with
# the targets, and draws a plot.
#
#   bench/compare.sh                              all peers and shapes, three rounds (about twelve minutes); draws bench/compare.svg
#   ROUNDS=1 WINDOW_S=1 bench/compare.sh          a quick look
#   PEERS="adit haproxy" SHAPES="connect idle-2000" bench/compare.sh
#
# Anything but a complete run draws only with SVG=file. ADIT=path takes another binary, ADIT_ARGS="..." adds options to it, LOOPS=2
# more loops; the peer `adit-log` is the same with its access lines going to a file. It needs two cores and Debian packages, which it
# installs. All values are left in target/compare.data, from which bench/report.py makes table and plot. What is measured and how: bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -n "${PEERS-}${SHAPES-}${ROUNDS-}${WINDOW_S-}" ] || SVG=${SVG-bench/compare.svg}
SHAPES=${SHAPES:-"connect roundtrips down up both idle-2000 idle-9000 slow 1k 64k close"}
ROUNDS=${ROUNDS:-3}
WINDOW_S=${WINDOW_S:-1.5}
SLOW_READERS=2000
# One round is enough for those that take long with many tunnels and are far behind anyway.
ONCE="squid tinyproxy privoxy"
. bench/lib.sh
. bench/peers.sh

operation="cpu_us ops_s p50_us p90_us p99_us"
bulk="cpu_s_per_gb gb_s"

load() { # SHAPE KEYS PREFIX OPTIONS...: one run, whose values are noted
    load_command "$1" "$WINDOW_S" --warm 0.3 "${@:4}"
    run "$1" "${command[@]}" || return
    echo "$peer: $line" >&2
    keep "$peer" "$3" "$2" "$line"
}

# Memory is the peak that the kernel saw, less what it was before; then the same as without slow readers. What was noted counts only
# if all of these are still there in the end: a peer may have thrown them out.
slow() {
    local rss_kib holder shape code=0 all=$data data=$work/slow.data
    : >"$data"
    rss_kib=$(awk '/^Rss:/ { print $2 }' "/proc/$proxy_pid/smaps_rollup")
    load_command slow 200 --conns $SLOW_READERS
    "${command[@]}" >"$work/slow.log" 2>&1 &
    holder=$!
    helper_pids+=("$holder")
    for _ in $(seq 600); do
        grep -q '^holding' "$work/slow.log" && break
        kill -0 "$holder" 2>/dev/null || { tail -3 "$work/slow.log" >&2; return 1; }
        sleep 0.05
    done
    for shape in connect roundtrips 64k; do load $shape "$operation" "slow-${shape}_" || code=1; done
    load down "$bulk" slow-down_ || code=1
    echo "$peer slow_peak_mib $(awk -v before="$rss_kib" '/^VmHWM:/ { printf "%.1f", ($2 - before) / 1024 }' "/proc/$proxy_pid/status")" >>"$data"
    if kill "$holder"; then cat "$data" >>"$all"; else tail -3 "$work/slow.log" >&2; code=1; fi
    wait "$holder" 2>/dev/null || true
    return $code
}

measure() { # SHAPE
    case $1 in
        connect | roundtrips) load "$1" "$operation" "$1_" ;;
        down | up | both) load "$1" "$bulk" "$1_" ;;
        idle-*) load idle "bytes_per_tunnel hold_cpu_percent hold_wakeups rss_before_kib" "$1_" --conns "${1#idle-}" ;;
        slow) slow ;;
        *)
            load_command 1k 1
            run 1k "${command[@]}" || true # what is done once is done now
            load "$1" "$operation" "$1_" ;;
    esac
}

is_due() { # PEER SHAPE: in the second round and later
    case $2 in slow | idle-*) [[ " $ONCE " != *" $1 "* ]] || return ;; esac
    [[ " $failed " != *" $1:$2 "* ]] # a failure may take half a minute
}

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
ulimit -n "$(ulimit -Hn)"
install_peers
cargo build --release --quiet --workspace
start_origin
write_configs
failed=''
for n in $(seq "$ROUNDS"); do
    for shape in $SHAPES; do
        echo "-- round $n: $shape" >&2
        for peer in $PEERS; do # a fresh process each time: memory that was freed before would be counted as free of charge
            [ "$n" = 1 ] || is_due "$peer" "$shape" || continue
            start "$peer" && measure "$shape" || { echo "$peer failed at $shape" >&2; failed+=" $peer:$shape"; }
            stop
        done
    done
done
for peer in $PEERS; do
    case $peer in adit*) binary=$ADIT ;; *) binary=$(command -v "$peer") ;; esac
    echo "$peer binary_kib $(($(stat -Lc %s "$binary") / 1024))" >>"$data"
done
cp "$data" "$TARGET/compare.data"
python3 bench/report.py "$data" "$PEERS" "$(machine), $ROUNDS rounds of $WINDOW_S s" ${SVG:+--svg "$SVG"}
