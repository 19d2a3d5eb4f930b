# Sourced behind lib.sh by the scripts that measure beside other proxies: how each peer is installed, configured and started, and
# what puts which load on it.
# shellcheck shell=bash disable=SC2154 # lib.sh and the scripts set what is read here

PEERS=${PEERS:-"adit haproxy nginx squid tinyproxy privoxy"}
PORT=${PORT:-21100}             # the peers listen on the nine ports above it
CONNS=64

install_peers() { # FURTHER PROGRAM:PACKAGE...
    local wanted=(wrk:wrk python3:python3 "$@") peer
    for peer in $PEERS; do
        case $peer in
            adit*) ;;
            nginx) wanted+=(nginx:nginx-light /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream) ;;
            *) wanted+=("$peer:$peer") ;;
        esac
    done
    install_missing "${wanted[@]}"
}

# Each as fast as its manual lets it be: one thread, no logs, no cache, connections to the origin kept alive, room for a response
# of 64 KiB in memory. What makes bulk cheaper would make small messages dearer, or an idle tunnel larger: HAProxy and nginx have a relay
# of its own for it.
write_configs() {
    cat >"$work/haproxy.cfg" <<CFG
global
  nbthread 1
  maxconn 9600
  maxpipes 64
  tune.pipesize 262144
defaults
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen relay
  mode tcp
  bind 127.0.0.1:$((PORT + 1)) backlog 4096
  maxconn 9600
  server origin $origin
listen bulk
  mode tcp
  option splice-request
  option splice-response
  bind 127.0.0.1:$((PORT + 8)) backlog 4096
  server origin $origin
listen http
  mode http
  http-reuse always
  bind 127.0.0.1:$((PORT + 2)) backlog 4096
  server origin $origin
CFG
    cat >"$work/nginx.cfg" <<CFG
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.err;
events { worker_connections 20000; }
stream {
  server { listen 127.0.0.1:$((PORT + 3)) backlog=4096; proxy_pass $origin; }
  server { listen 127.0.0.1:$((PORT + 9)) backlog=4096; proxy_pass $origin; proxy_buffer_size 128k; }
}
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
  upstream origin { server $origin; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$((PORT + 4)) backlog=4096;
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffer_size 128k; proxy_buffers 4 128k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0;
    }
  }
}
CFG
    cat >"$work/squid.cfg" <<CFG
http_port 127.0.0.1:$((PORT + 5))
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
    mkdir -p "$work/squid"
    if [ "$(id -u)" = 0 ]; then # squid leaves root by itself
        chmod 711 "$work"
        chown proxy "$work/squid" 2>/dev/null || true
    fi
    cat >"$work/tinyproxy.cfg" <<CFG
Port $((PORT + 6))
Listen 127.0.0.1
MaxClients 20000
Timeout 3600
LogLevel Critical
CFG
    cat >"$work/privoxy.cfg" <<CFG
listen-address 127.0.0.1:$((PORT + 7))
max-client-connections 20000
listen-backlog 4096
keep-alive-timeout 300
tolerate-pipelining 1
connection-sharing 1
socket-timeout 3600
debug 0
CFG
}

start() { # PEER: fails when it does not start. Sets proxy_pid; tunnel_to, bulk_to and http_to, where it listens; connect, what CONNECT asks for; and base, what URLs begin with
    local log=$work/$1.log ports=() words=()
    connect=(--origin "$origin") base=http://$origin
    # shellcheck disable=SC2206
    case $1 in
        adit) words=(--access-log off ${ADIT_ARGS:-}) ;;
        adit-log) words=(--access-log "$work/access.log" ${ADIT_ARGS:-}) ;;
        haproxy) words=(haproxy -q -db -f "$work/haproxy.cfg") ports=($((PORT + 1)) $((PORT + 8)) $((PORT + 2))) ;;
        nginx) words=(nginx -e "$work/nginx.err" -c "$work/nginx.cfg") ports=($((PORT + 3)) $((PORT + 9)) $((PORT + 4))) ;;
        squid) words=(squid -N -f "$work/squid.cfg") ports=($((PORT + 5))) ;;
        tinyproxy) words=(tinyproxy -d -c "$work/tinyproxy.cfg") ports=($((PORT + 6))) ;;
        privoxy) words=(privoxy --no-daemon "$work/privoxy.cfg") ports=($((PORT + 7))) ;;
        *) fail "no peer $1" ;;
    esac
    case $1 in
        adit*) start_adit "${words[@]}" && tunnel_to=$proxy bulk_to=$proxy http_to=$proxy && return ;;
        haproxy | nginx) connect=() base='' ;; # relays and reverse proxies know where to go
    esac
    taskset -c $PROXY_CORE "${words[@]}" >"$log" 2>&1 &
    proxy_pid=$!
    wait_for_port "${ports[0]}" && kill -0 "$proxy_pid" || { cat "$log" >&2; return 1; }
    tunnel_to=127.0.0.1:${ports[0]} bulk_to=127.0.0.1:${ports[1]-${ports[0]}} http_to=127.0.0.1:${ports[-1]}
}

load_command() { # SHAPE SECONDS OPTIONS...: sets command, which puts the load on the peer and charges it, and gives up in time
    local whole_s patience_s=20
    [ "$1" != idle ] || patience_s=45 # thousands of tunnels are a lot of threads to some
    whole_s=$(awk "BEGIN { print int($2 + 0.999) }") # wrk knows no others
    command=(timeout -k 1 $((whole_s + patience_s)) taskset -c "$LOAD_CORE" "$BENCH")
    case $1 in
        1k | 64k) command+=(charge --pid "$proxy_pid" -- "${wrk[@]}" -c$CONNS -d"${whole_s}s" "http://$http_to" -- "$base/$1") ;;
        close) command+=(charge --pid "$proxy_pid" -- "${wrk[@]}" -c$CONNS -d"${whole_s}s" "http://$http_to" -- "$base/1k" close) ;;
        down | up | both) command+=("$1" --proxy "$bulk_to" "${connect[@]}" --pid "$proxy_pid" --seconds "$2" "${@:3}") ;;
        *) command+=("$1" --proxy "$tunnel_to" "${connect[@]}" --pid "$proxy_pid" --seconds "$2" "${@:3}") ;;
    esac
}
wrk=(wrk -t1 --timeout 5s -s bench/absolute.lua)

run() { # SHAPE COMMAND...: sets line, the key=value pairs of one run; fails when operations do
    local requests
    "${@:2}" >"$work/out" || return
    line=$(xargs <"$work/out")
    case $1 in 1k | 64k | close) ;; *) return ;; esac
    # tinyproxy ends every connection without a word in the response: what wrk then calls a read error is no failed request.
    if [[ $line == *FAILED* && ! ($peer == tinyproxy && $line == *'FAILED connect=0 read='*' write=0 status=0 timeout=0'*) ]]; then
        echo "$line" >&2
        return 1
    fi
    line=$(grep -E '^(requests|shape)=' "$work/out" | xargs)
    requests=$(value requests "$line")
    line="${line/shape=charge/shape=$1} ops=$requests cpu_us=$(awk "BEGIN { printf \"%.2f\", $(value total_cpu_us "$line") / $requests }")"
}
