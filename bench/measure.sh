#!/usr/bin/env bash
# Measures the proxy beside its peers, round-robin on pinned cores, and prints a table of medians.
#
#   bench/measure.sh                          all peers, three rounds (about eight minutes)
#   ROUNDS=1 WINDOW_S=1 bench/measure.sh      a quick look
#   PEERS="adit haproxy" SHAPES=connect IDLE= TRACE=0 bench/measure.sh
#
# ADIT=path takes another binary, ADIT_ARGS="..." adds options to it, LOOPS=2 more loops.
# It needs two cores and Debian packages (haproxy, nginx, libnginx-mod-stream, tinyproxy, strace), which it installs.
set -euo pipefail
cd "$(dirname "$0")/.."

PEERS=${PEERS:-"adit haproxy nginx tinyproxy"}
ROUNDS=${ROUNDS:-3}
WINDOW_S=${WINDOW_S:-3}
SHAPES=${SHAPES-"connect roundtrips down up both"}
IDLE=${IDLE-"2000 9000"}
TRACE=${TRACE:-1}
PORT=${PORT:-21100}             # haproxy, nginx and tinyproxy listen on the three ports above it
PROXY_CORE=0 LOAD_CORE=1
TARGET=${CARGO_TARGET_DIR:-target}
ADIT=${ADIT:-$TARGET/release/adit}
BENCH=$TARGET/release/adit-bench

work=$(mktemp -d)
data=$work/data
proxy_pid='' origin_pid='' trace_pid=''
cleanup() {
    for pid in $trace_pid $proxy_pid $origin_pid; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "measure.sh: $*" >&2; exit 1; }

install_peers() {
    local missing=()
    for peer in $PEERS; do
        case $peer in
            adit) ;;
            nginx) [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing+=(nginx-light libnginx-mod-stream) ;;
            *) command -v "$peer" >/dev/null || missing+=("$peer") ;;
        esac
    done
    [ "$TRACE" = 0 ] || command -v strace >/dev/null || missing+=(strace)
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    # RUNLEVEL=1 keeps Debian from starting the daemons.
    $sudo apt-get update -qq >/dev/null
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" >/dev/null
}

write_configs() {
    cat >"$work/haproxy.cfg" <<CFG
global
  nbthread 1
  maxconn 9600
  maxpipes 64
defaults
  mode tcp
  option splice-auto
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen relay
  bind 127.0.0.1:$((PORT + 1)) backlog 4096
  maxconn 9600
  server origin $origin
CFG
    cat >"$work/nginx.cfg" <<CFG
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.err;
events { worker_connections 20000; }
stream { server { listen 127.0.0.1:$((PORT + 2)) backlog=4096; proxy_pass $origin; } }
CFG
    cat >"$work/tinyproxy.cfg" <<CFG
Port $((PORT + 3))
Listen 127.0.0.1
MaxClients 20000
Timeout 3600
LogLevel Critical
CFG
}

listening() { # FILE: waits for "listening on ADDR" there, prints ADDR
    for _ in $(seq 100); do
        grep -oE 'listening on [^ ]+' "$1" 2>/dev/null | head -1 | cut -d' ' -f3 | grep . && return
        sleep 0.05
    done
    cat "$1" >&2
    fail "nothing listens"
}

start_origin() {
    taskset -c $LOAD_CORE "$BENCH" origin 2>"$work/origin.log" &
    origin_pid=$!
    origin=$(listening "$work/origin.log")
}

start() { # PEER: sets proxy_pid and load_args
    local log=$work/$1.log port=''
    : >"$log"
    case $1 in
        adit)
            # shellcheck disable=SC2086
            taskset -c $PROXY_CORE "$ADIT" --listen 127.0.0.1:0 -n "${LOOPS:-1}" --allow 127.0.0.0/8 \
                ${ADIT_ARGS:---max-sessions 9600} >/dev/null 2>"$log" &
            proxy_pid=$!
            load_args="--proxy $(listening "$log") --origin $origin" ;;
        haproxy)
            taskset -c $PROXY_CORE haproxy -q -db -f "$work/haproxy.cfg" >"$log" 2>&1 &
            proxy_pid=$! port=$((PORT + 1)) load_args="--proxy 127.0.0.1:$port" ;;
        nginx)
            taskset -c $PROXY_CORE nginx -e "$work/nginx.err" -c "$work/nginx.cfg" >"$log" 2>&1 &
            proxy_pid=$! port=$((PORT + 2)) load_args="--proxy 127.0.0.1:$port" ;;
        tinyproxy)
            taskset -c $PROXY_CORE tinyproxy -d -c "$work/tinyproxy.cfg" >"$log" 2>&1 &
            proxy_pid=$! port=$((PORT + 3)) load_args="--proxy 127.0.0.1:$port --origin $origin" ;;
        *) fail "no peer $1" ;;
    esac
    if [ -n "$port" ]; then
        for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.05; done
    fi
    kill -0 "$proxy_pid" || { cat "$log" >&2; fail "$1 does not start"; }
    load_args="$load_args --pid $proxy_pid"
}

stop() {
    kill "$proxy_pid" 2>/dev/null || true
    for _ in $(seq 20); do kill -0 "$proxy_pid" 2>/dev/null || break; sleep 0.05; done
    kill -9 "$proxy_pid" 2>/dev/null || true
    wait "$proxy_pid" 2>/dev/null || true
    proxy_pid=''
}

load() { # SHAPE OPTIONS: prints the line of one run
    # shellcheck disable=SC2086
    timeout 120 taskset -c $LOAD_CORE "$BENCH" "$1" $load_args "${@:2}"
}

keep() { # PEER PREFIX KEYS LINE: notes the values of these keys
    local key
    for key in $3; do
        echo "$1 $2$key $(tr ' ' '\n' <<<"$4" | sed -n "s/^$key=//p")" >>"$data"
    done
}

round() { # PEER
    local shape line tunnels
    start "$1"
    sleep 0.3
    echo "$1 start_rss_kib $(awk '/^Rss:/ {print $2}' "/proc/$proxy_pid/smaps_rollup")" >>"$data"
    for shape in $SHAPES; do
        line=$(load "$shape" --seconds "$WINDOW_S") || { echo "$1 failed at $shape" >&2; continue; }
        echo "$1: $line" >&2
        case $shape in
            connect | roundtrips) keep "$1" "${shape}_" "cpu_us ops_s p50_us p99_us" "$line" ;;
            *) keep "$1" "${shape}_" "cpu_s_per_gb gb_s" "$line" ;;
        esac
    done
    stop
    for tunnels in $IDLE; do # a fresh process each: memory that was freed before would be counted as free of charge
        start "$1"
        if line=$(load idle --conns "$tunnels" --seconds 1); then
            echo "$1: $line" >&2
            keep "$1" "idle_${tunnels}_" "bytes_per_tunnel hold_cpu_percent hold_wakeups" "$line"
        else
            echo "$1 failed at idle $tunnels" >&2
        fi
        stop
    done
}

by_strace() { # SHAPE COUNT: prints how many system calls the proxy makes in such a run
    strace -f -c -o "$work/strace" -p "$proxy_pid" >/dev/null 2>&1 &
    trace_pid=$!
    for _ in $(seq 100); do grep -q '^TracerPid:.*[1-9]' "/proc/$proxy_pid/status" && break; sleep 0.05; done
    sleep 0.2
    load "$1" --count "$2" >/dev/null
    kill -INT "$trace_pid"
    wait "$trace_pid" || true
    trace_pid=''
    awk '$NF == "total" {print $4}' "$work/strace"
}

by_perf() { # SHAPE COUNT: the same, counted by a tracepoint, which hardly slows the proxy down
    # shellcheck disable=SC2086
    timeout 120 perf stat -x, -e raw_syscalls:sys_enter -o "$work/perf" -p "$proxy_pid" -- \
        taskset -c $LOAD_CORE "$BENCH" "$1" $load_args --count "$2" >/dev/null
    awk -F, '/sys_enter/ {print $1}' "$work/perf"
}

# Two runs of different length: what the difference costs is the price of the operations alone. Under strace the proxy
# is slow, so more is ready at each turn and fewer calls come back empty; perf counts at full load where it may.
count_calls() { # PEER
    local shape few many less more counter counters=by_strace
    perf stat -e raw_syscalls:sys_enter true >/dev/null 2>&1 && counters="by_strace by_perf"
    for counter in $counters; do
        for shape in connect roundtrips; do
            if [ $shape = connect ]; then few=500 many=2500; else few=2000 many=12000; fi
            start "$1"
            less=$("$counter" $shape $few) && more=$("$counter" $shape $many) &&
                echo "$1 ${shape}_syscalls_$counter $(awk "BEGIN {printf \"%.2f\", ($more - $less) / ($many - $few)}")" >>"$data"
            stop
        done
    done
}

table() {
    awk -v peers="$PEERS" '
        { key = $2 SUBSEP $1; values[key] = values[key] " " $3; if (!seen[$2]++) order[++metrics] = $2 }
        function median(list,   v, n, i, j, t) {
            n = split(list, v, " ")
            if (n == 0) return ""
            for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j-1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j-1]; v[j-1] = t }
            return n % 2 ? v[(n+1)/2] : (v[n/2] + v[n/2+1]) / 2
        }
        END {
            count = split(peers, peer, " ")
            printf "| %-30s |", "median of the rounds"
            for (p = 1; p <= count; p++) printf " %10s |", peer[p]
            print " adit / best peer |"
            printf "|---|"; for (p = 1; p <= count; p++) printf "---|"; print "---|"
            for (m = 1; m <= metrics; m++) {
                best = ""; own = ""; more_is_better = order[m] ~ /(ops_s|gb_s)$/
                printf "| %-30s |", order[m]
                for (p = 1; p <= count; p++) {
                    value = median(values[order[m] SUBSEP peer[p]])
                    printf " %10s |", value
                    if (value == "") continue
                    if (peer[p] == "adit") own = value
                    else if (best == "" || (more_is_better ? value + 0 > best + 0 : value + 0 < best + 0)) best = value
                }
                printf " %16s |\n", (own != "" && best + 0 > 0) ? sprintf("%.2f", own / best) : "-"
            }
        }' "$data"
}

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
ulimit -n "$(ulimit -Hn)"
install_peers
cargo build --release --quiet --workspace
start_origin
write_configs
for n in $(seq "$ROUNDS"); do
    for peer in $PEERS; do
        echo "-- round $n: $peer" >&2
        round "$peer"
    done
done
if [ "$TRACE" != 0 ]; then
    for peer in $PEERS; do count_calls "$peer"; done
fi
for peer in $PEERS; do
    if [ "$peer" = adit ]; then binary=$ADIT; else binary=$(command -v "$peer"); fi
    echo "$peer binary_kib $(($(stat -Lc %s "$binary") / 1024))" >>"$data"
done
echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo none), Linux $(uname -r), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)," \
    "$ROUNDS rounds of $WINDOW_S s"
table
