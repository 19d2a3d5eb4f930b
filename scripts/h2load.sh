#!/usr/bin/env bash
# h2load through the proxy: HTTP/2 over TLS to nginx, in CONNECT tunnels. h2load cannot speak to a proxy, so a small forwarder
# (bench/) opens the tunnels for it. Prints requests/s, latencies and what a request costs the proxy; fails when a single one fails.
#
#   scripts/h2load.sh                           100,000 requests of 1 KiB, 20,000 of 64 KiB, 100,000 one at a time
#   REQUESTS=5000 scripts/h2load.sh             a quick look (64 KiB: a fifth of it)
#
# ADIT=path takes another binary, ADIT_ARGS="..." adds options to it, LOOPS=2 more loops. Installs what it needs (Debian).
set -euo pipefail
cd "$(dirname "$0")/.."

REQUESTS=${REQUESTS:-100000}
CONNS=${CONNS:-16}
STREAMS=${STREAMS:-8}
. bench/lib.sh

start_nginx() {
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=origin.test" -keyout "$work/tls.key" \
        -out "$work/tls.pem" 2>"$work/openssl.log" || { cat "$work/openssl.log" >&2; fail "no certificate"; }
    mkdir -p "$work/www"
    chmod 755 "$work" "$work/www"
    head -c 1024 /dev/urandom >"$work/www/1k"
    head -c 65536 /dev/urandom >"$work/www/64k"
    cat >"$work/nginx.conf" <<CONF
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.err;
events { worker_connections 4096; }
http {
    access_log off;
    open_file_cache max=10;
    keepalive_requests 1000000000;
    client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    server {
        listen 127.0.0.1:$port ssl http2;
        ssl_certificate $work/tls.pem; ssl_certificate_key $work/tls.key;
        root $work/www;
    }
}
CONF
    taskset -c "$LOAD_CORE" nginx -e "$work/nginx.err" -c "$work/nginx.conf" 2>"$work/nginx.out" &
    helper_pids+=($!)
    wait_for_port "$port"
    origin=127.0.0.1:$port
}

start_forwarder() {
    taskset -c "$LOAD_CORE" "$BENCH" forward --proxy "$proxy" --origin "$origin" 2>"$work/forward.log" &
    helper_pids+=($!)
    forwarder=$(listening "$work/forward.log")
}

load() { # WHAT PATH COUNT OPTIONS...: prints a line of the table
    local what=$1 path=$2 count=$3 charged rate latencies
    shift 3
    rm -f "$work/times"
    timeout 120 taskset -c "$LOAD_CORE" "$BENCH" charge --pid "$proxy_pid" -- \
        h2load -n "$count" --log-file="$work/times" "$@" "https://$forwarder/$path" >"$work/h2load.out" 2>&1 ||
        { tail -20 "$work/h2load.out" "$work/forward.log" >&2; fail "h2load fails: $what"; }
    if ! grep -q "$count succeeded, 0 failed, 0 errored, 0 timeout" "$work/h2load.out"; then
        tail -20 "$work/h2load.out" "$work/forward.log" >&2
        fail "requests fail: $what"
    fi
    rate=$(sed -n 's/^finished in .*, \([0-9.]*\) req\/s.*/\1/p' "$work/h2load.out")
    charged=$(grep '^shape=charge' "$work/h2load.out")
    # Its log has a line for each request: start, status, duration in microseconds.
    latencies=$(cut -f3 "$work/times" | sort -n | awk '
        { d[NR] = $1 }
        function percentile(p) { return d[int((NR - 1) * p / 100) + 1] }
        END { printf "%8d %8d %8d %8d", percentile(50), percentile(90), percentile(99), d[NR] }')
    printf '%-34s %10.0f %s %11s %8s\n' "$what" "$rate" "$latencies" \
        "$(awk "BEGIN { printf \"%.2f\", $(value total_cpu_us "$charged") / $count }")" "$(value cpu_percent "$charged")"
}

install_missing h2load:nghttp2-client nginx:nginx-light openssl:openssl python3:python3
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet --workspace
start_nginx
# shellcheck disable=SC2086
start_adit --access-log off ${ADIT_ARGS:-}
start_forwarder

machine
printf '%-34s %10s %8s %8s %8s %8s %12s %8s\n' "HTTP/2 over TLS in CONNECT" "requests/s" "p50 µs" "p90 µs" "p99 µs" "max µs" "CPU/req. µs" "core %"
load "1 KiB, $CONNS tunnels, $STREAMS streams" 1k "$REQUESTS" -c "$CONNS" -m "$STREAMS"
load "64 KiB, $CONNS tunnels, $STREAMS streams" 64k $((REQUESTS / 5)) -c "$CONNS" -m "$STREAMS"
load "1 KiB, 64 tunnels, one stream" 1k "$REQUESTS" -c 64 -m 1
