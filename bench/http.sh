#!/usr/bin/env bash
# Measures plain HTTP beside peers, round-robin on pinned cores, and prints a table of medians.
#
#   bench/http.sh                               all peers, three rounds (about five minutes)
#   ROUNDS=1 WINDOW_S=1 bench/http.sh           a quick look
#   PEERS="adit nginx" SHAPES=1k TRACE=0 bench/http.sh
#
# ADIT=path takes another binary, ADIT_ARGS="..." adds options to it, LOOPS=2 more loops, ORIGIN=nginx another origin. It needs
# two cores and Debian packages (wrk, nginx, haproxy, squid, tinyproxy, strace), which it installs. What is measured and how:
# bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

PEERS=${PEERS:-"adit adit-log nginx haproxy squid tinyproxy"}
ROUNDS=${ROUNDS:-3}
WINDOW_S=${WINDOW_S:-3}
SHAPES=${SHAPES-"1k 64k close"}
TRACE=${TRACE:-1}
ORIGIN=${ORIGIN:-own}
CONNS=64
PORT=${PORT:-21200}             # the peers listen on the four ports above it
. bench/lib.sh

nginx_origin() { # sets origin; its files come from the page cache
    mkdir -p "$work/www"
    head -c 1024 /dev/urandom >"$work/www/1k"
    head -c 65536 /dev/urandom >"$work/www/64k"
    chmod 755 "$work" "$work/www"
    cat >"$work/origin.cfg" <<CFG
daemon off;
master_process off;
pid $work/origin.pid;
error_log $work/origin.err;
events { worker_connections 20000; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on; # the head and the beginning of the file leave together
  open_file_cache max=10;
  keepalive_requests 1000000000;
  client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
  server { listen 127.0.0.1:$PORT backlog=4096; root $work/www; }
}
CFG
    taskset -c $LOAD_CORE nginx -e "$work/origin.err" -c "$work/origin.cfg" &
    helper_pids+=($!)
    wait_for_port "$PORT"
    origin=127.0.0.1:$PORT
}

install_peers() {
    local wanted=(wrk:wrk) peer
    for peer in $PEERS; do
        case $peer in
            adit | adit-log) ;;
            nginx) wanted+=(nginx:nginx-light) ;;
            *) wanted+=("$peer:$peer") ;;
        esac
    done
    [ "$TRACE" = 0 ] || wanted+=(strace:strace)
    install_missing "${wanted[@]}"
}

# Each as fast as its manual lets it be: no logs, connections to the origin kept alive, room for 64 KiB in memory.
write_configs() {
    cat >"$work/haproxy.cfg" <<CFG
global
  nbthread 1
  maxconn 9600
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  http-reuse always
${HAPROXY_EXTRA:-}
frontend relay
  bind 127.0.0.1:$((PORT + 1)) backlog 4096
  default_backend origin
backend origin
  server origin $origin
CFG
    cat >"$work/nginx.cfg" <<CFG
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.err;
events { worker_connections 20000; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
  upstream origin { server $origin; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$((PORT + 2)) backlog=4096;
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      ${NGINX_EXTRA:-proxy_buffer_size 16k; proxy_buffers 5 16k; proxy_max_temp_file_size 0;}
    }
  }
}
CFG
    cat >"$work/tinyproxy.cfg" <<CFG
Port $((PORT + 3))
Listen 127.0.0.1
MaxClients 20000
Timeout 3600
LogLevel Critical
CFG
    mkdir -p "$work/squid"
    cat >"$work/squid.cfg" <<CFG
http_port 127.0.0.1:$((PORT + 4))
http_access allow all
cache deny all
access_log none
cache_store_log none
cache_log $work/squid/cache.log
coredump_dir $work/squid
pid_filename none
netdb_filename none
pinger_enable off
hosts_file none
visible_hostname squid.test
max_filedescriptors 20000
shutdown_lifetime 0 seconds
CFG
    if [ "$(id -u)" = 0 ]; then # squid leaves root by itself
        chmod 711 "$work"
        chown proxy "$work/squid" 2>/dev/null || true
    fi
}

start() { # PEER: sets proxy_pid, wrk_url and, what the requests ask for, wrk_base
    local log=$work/$1.log port=''
    wrk_base=http://$origin ends_silently=''
    # shellcheck disable=SC2086
    case $1 in
        adit) start_adit --access-log off ${ADIT_ARGS:-} ;;
        adit-log) start_adit --access-log "$work/access.log" ${ADIT_ARGS:-} ;;
        haproxy)
            taskset -c $PROXY_CORE haproxy -q -db -f "$work/haproxy.cfg" >"$log" 2>&1 &
            proxy_pid=$! port=$((PORT + 1)) wrk_base='' ;;
        nginx)
            taskset -c $PROXY_CORE nginx -e "$work/nginx.err" -c "$work/nginx.cfg" >"$log" 2>&1 &
            proxy_pid=$! port=$((PORT + 2)) wrk_base='' ;;
        tinyproxy)
            taskset -c $PROXY_CORE tinyproxy -d -c "$work/tinyproxy.cfg" >"$log" 2>&1 &
            proxy_pid=$! port=$((PORT + 3)) ends_silently=1 ;;
        squid)
            taskset -c $PROXY_CORE squid -N -f "$work/squid.cfg" >"$log" 2>&1 &
            proxy_pid=$! port=$((PORT + 4)) ;;
        *) fail "no peer $1" ;;
    esac
    if [ -n "$port" ]; then
        proxy=127.0.0.1:$port
        wait_for_port "$port"
    fi
    kill -0 "$proxy_pid" || { cat "$log" >&2; fail "$1 does not start"; }
}

load() { # SHAPE SECONDS: prints the line of one run
    local path=$1 close='' said charged requests
    [ "$1" = close ] && path=1k close=close
    # shellcheck disable=SC2086
    timeout 120 taskset -c $LOAD_CORE "$BENCH" charge --pid "$proxy_pid" -- \
        wrk -t1 -c$CONNS -d"${2}s" --timeout 10s -s bench/absolute.lua "http://$proxy" -- "$wrk_base/$path" $close >"$work/wrk.out" || return
    # tinyproxy ends every connection without a word in the response: what wrk then calls a read error is no failed request.
    sed -E "${ends_silently:+/connect=0 read=[0-9]+ write=0 status=0 timeout=0/d}" "$work/wrk.out" | grep FAILED >&2 && return 1
    said=$(grep '^requests=' "$work/wrk.out")
    charged=$(grep '^shape=charge' "$work/wrk.out")
    requests=$(value requests "$said")
    echo "shape=$1 conns=$CONNS $said $(awk -v cpu="$(value total_cpu_us "$charged")" -v n="$requests" -v wakeups="$(value wakeups "$charged")" \
        'BEGIN { printf "cpu_us=%.2f wakeups=%.3f", cpu / n, wakeups / n }') cpu_percent=$(value cpu_percent "$charged")"
}

round() { # PEER
    local shape line
    start "$1"
    load 1k 1 >/dev/null || true # what is done once is done now
    for shape in $SHAPES; do
        line=$(load "$shape" "$WINDOW_S") || { echo "$1 failed at $shape" >&2; continue; }
        echo "$1: $line" >&2
        keep "$1" "${shape}_" "cpu_us ops_s p50_us p99_us" "$line"
    done
    stop
    rm -f "$work/access.log"
}

# Two runs of different length: what the difference costs is the price of the requests alone. Under strace the proxy is slow, so
# more is ready at each turn and fewer calls come back empty; perf counts at full load where it may.
by_strace() { # SECONDS: sets calls and requests
    local line
    trace_start
    line=$(load 1k "$1") || { trace_stop; return 1; }
    trace_stop
    requests=$(value requests "$line")
}
by_perf() { # SECONDS: the same
    local line
    perf stat -x, -e raw_syscalls:sys_enter -o "$work/perf" -p "$proxy_pid" >/dev/null 2>&1 &
    trace_pid=$!
    sleep 0.3 # perf has no way to say that it counts; what it misses is the same in both runs
    line=$(load 1k "$1") || line=''
    kill -INT "$trace_pid"
    wait "$trace_pid" || true
    trace_pid=''
    calls=$(awk -F, '/sys_enter/ {print $1}' "$work/perf") requests=$(value requests "$line")
    [ -n "$line" ]
}
count_calls() { # PEER
    local counter counters=by_strace few_calls few_requests
    perf stat -e raw_syscalls:sys_enter true >/dev/null 2>&1 && counters="by_strace by_perf"
    for counter in $counters; do
        start "$1"
        if "$counter" 1; then
            few_calls=$calls few_requests=$requests
            "$counter" 3 && echo "$1 1k_syscalls_$counter $(awk "BEGIN { printf \"%.2f\", ($calls - $few_calls) / ($requests - $few_requests) }")" >>"$data"
        fi
        stop
    done
    rm -f "$work/access.log"
}

[ "$(nproc)" -ge 2 ] || fail "two cores are needed"
ulimit -n "$(ulimit -Hn)"
install_peers
cargo build --release --quiet --workspace
if [ "$ORIGIN" = nginx ]; then nginx_origin; else start_origin; fi
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
echo "$(machine), $ROUNDS rounds of $WINDOW_S s"
table "$PEERS"
