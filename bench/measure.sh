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
. bench/lib.sh

install_peers() {
    local wanted=() peer
    for peer in $PEERS; do
        case $peer in
            adit) ;;
            nginx) wanted+=(nginx:nginx-light /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream) ;;
            *) wanted+=("$peer:$peer") ;;
        esac
    done
    [ "$TRACE" = 0 ] || wanted+=(strace:strace)
    install_missing "${wanted[@]}"
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

start() { # PEER: sets proxy_pid and load_args
    local log=$work/$1.log port=''
    : >"$log"
    case $1 in
        adit)
            # shellcheck disable=SC2086
            start_adit ${ADIT_ARGS:---max-sessions 9600}
            load_args="--proxy $proxy --origin $origin" ;;
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
    [ -z "$port" ] || wait_for_port "$port"
    kill -0 "$proxy_pid" || { cat "$log" >&2; fail "$1 does not start"; }
    load_args="$load_args --pid $proxy_pid"
}

load() { # SHAPE OPTIONS: prints the line of one run
    # shellcheck disable=SC2086
    timeout 120 taskset -c $LOAD_CORE "$BENCH" "$1" $load_args "${@:2}"
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

by_strace() { # SHAPE COUNT: sets calls to how many system calls the proxy makes in such a run
    trace_start
    load "$1" --count "$2" >/dev/null || { trace_stop; return 1; }
    trace_stop
}

by_perf() { # SHAPE COUNT: the same, counted by a tracepoint, which hardly slows the proxy down
    # shellcheck disable=SC2086
    timeout 120 perf stat -x, -e raw_syscalls:sys_enter -o "$work/perf" -p "$proxy_pid" -- \
        taskset -c $LOAD_CORE "$BENCH" "$1" $load_args --count "$2" >/dev/null || return
    calls=$(awk -F, '/sys_enter/ {print $1}' "$work/perf")
}

# Two runs of different length: what the difference costs is the price of the operations alone. Under strace the proxy
# is slow, so more is ready at each turn and fewer calls come back empty; perf counts at full load where it may.
count_calls() { # PEER
    local shape few many less counter counters=by_strace
    perf stat -e raw_syscalls:sys_enter true >/dev/null 2>&1 && counters="by_strace by_perf"
    for counter in $counters; do
        for shape in connect roundtrips; do
            if [ $shape = connect ]; then few=500 many=2500; else few=2000 many=12000; fi
            start "$1"
            if "$counter" $shape $few; then
                less=$calls
                "$counter" $shape $many &&
                    echo "$1 ${shape}_syscalls_$counter $(awk "BEGIN {printf \"%.2f\", ($calls - $less) / ($many - $few)}")" >>"$data"
            fi
            stop
        done
    done
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
echo "$(machine), $ROUNDS rounds of $WINDOW_S s"
table "$PEERS"
