#!/usr/bin/env bash
# Real programs through the real binary to real servers on this machine. Prints a table; any failure fails the script.
#
#   scripts/clients.sh               ADIT=path takes another binary, KEEP=1 leaves the working directory
#
# Each row must prove two things: what arrived is right (hash, certificate, revision), and the proxy carried it (its
# access line). Installs what is missing from Debian and PyPI; needs no other network. The rows for plain HTTP are in
# clients-http.sh, those for programs that read the access log in clients-log.sh.
set -uo pipefail # no -e: a row that fails is noted, and the others still run
cd "$(dirname "$0")/.." || exit 1

unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
export LC_ALL=C

work=$(mktemp -d)
pids=()
cleanup() {
    [ ${#pids[@]} -gt 0 ] && kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT
fail() { echo "clients.sh: $*" >&2; exit 1; }

# ---- what is needed --------------------------------------------------------------------------------------------------

install_programs() {
    local missing=() program package
    while read -r program package; do
        PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=("$package")
    done <<'LIST'
curl curl
wget wget
git git
openssl openssl
ncat ncat
nc.openbsd netcat-openbsd
socat socat
ssh openssh-client
sshd openssh-server
nginx nginx-light
fcgiwrap fcgiwrap
dnsmasq dnsmasq-base
python3 python3
squid squid
goaccess goaccess
calamaris calamaris
fail2ban-regex fail2ban
htpasswd apache2-utils
jq jq
LIST
    python3 -c 'import requests' 2>/dev/null || python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    PATH=$PATH:/usr/sbin command -v chromium-headless-shell chromium >/dev/null || missing+=(chromium-headless-shell)
    /usr/bin/python3 -c 'import websockets' 2>/dev/null || missing+=(python3-websockets)
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing: ${missing[*]}" >&2
    # RUNLEVEL=1 keeps Debian from starting the daemons.
    $sudo apt-get update -qq >/dev/null || return
    $sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 ||
        { tail -20 "$work/apt.log" >&2; return 1; }
}

install_requests() { # sets python to one that has it
    python=python3
    python3 -c 'import requests' 2>/dev/null && return
    python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q requests >&2 && python=$work/venv/bin/python3
}

# ---- origins ---------------------------------------------------------------------------------------------------------

free_ports() { # COUNT
    python3 - "$1" <<'PY'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PY
}

make_certificates() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=test CA" -keyout "$work/ca.key" -out "$work/ca.pem" &&
        openssl req -newkey rsa:2048 -nodes -subj "/CN=origin.test" -keyout "$work/tls.key" -out "$work/tls.csr" &&
        openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
            -extfile <(echo "subjectAltName=DNS:origin.test,DNS:six.test,IP:127.0.0.1,IP:::1") -out "$work/tls.pem"
}

make_content() {
    mkdir -p "$work/www" "$work/git" "$work/nginx"
    head -c 20971520 /dev/urandom >"$work/www/big"
    head -c 1048576 /dev/urandom >"$work/blob"
    for n in 1 2 3 4; do head -c 500000 /dev/urandom >"$work/www/part$n"; done
    echo "a small page" >"$work/www/small"
    printf 'From: a@client.test\r\nTo: b@origin.test\r\nSubject: through the tunnel\r\n\r\n%s\r\n' \
        "$(head -c 30000 /dev/urandom | base64)" | sed 's/\r*$/\r/' >"$work/mail"
}

make_repository() {
    export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=$work/gitconfig GIT_TERMINAL_PROMPT=0
    git config --file "$work/gitconfig" user.name tester
    git config --file "$work/gitconfig" user.email tester@client.test
    git config --file "$work/gitconfig" init.defaultBranch main
    git init -q "$work/seed" && cp "$work/blob" "$work/seed/blob" && git -C "$work/seed" add blob &&
        git -C "$work/seed" commit -qm first && git clone -q --bare "$work/seed" "$work/git/repo.git" &&
        git -C "$work/git/repo.git" config http.receivepack true
}

start_nginx() {
    local user='' more='' n
    [ "$(id -u)" = 0 ] && user="user root;"
    [ -n "$has_ipv6" ] && more="listen [::1]:$tls ssl http2; listen [::1]:$plain;"
    for n in $(seq 2 "$many"); do more+=" listen 127.0.0.$n:$plain;"; done
    cat >"$work/nginx.conf" <<CONF
$user
daemon off;
pid $work/nginx/pid;
error_log $work/nginx/error.log;
worker_processes 1;
events { }
http {
    access_log off;
    client_body_temp_path $work/nginx/body; proxy_temp_path $work/nginx/proxy; fastcgi_temp_path $work/nginx/fastcgi;
    uwsgi_temp_path $work/nginx/uwsgi; scgi_temp_path $work/nginx/scgi;
    server {
        listen 127.0.0.1:$tls ssl http2;
        listen 127.0.0.1:$plain; $more
        ssl_certificate $work/tls.pem; ssl_certificate_key $work/tls.key;
        root $work/www;
        location = /moved { return 302 http://other.test:$plain/small; }
        location /put/ { alias $work/put/; dav_methods PUT; client_max_body_size 0; }
        location = /where { return 200 "\$server_addr\\n"; }
        location ~ ^/git(/.*)\$ {
            client_max_body_size 0;
            fastcgi_pass unix:$work/fcgi.sock;
            fastcgi_param SCRIPT_FILENAME $(git --exec-path)/git-http-backend;
            fastcgi_param GIT_PROJECT_ROOT $work/git;
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param GIT_PROTOCOL \$http_git_protocol;
            fastcgi_param HTTP_CONTENT_ENCODING \$http_content_encoding;
            fastcgi_param PATH_INFO \$1;
            fastcgi_param QUERY_STRING \$query_string;
            fastcgi_param REQUEST_METHOD \$request_method;
            fastcgi_param CONTENT_TYPE \$content_type;
            fastcgi_param CONTENT_LENGTH \$content_length;
        }
    }
}
CONF
    fcgiwrap -s "unix:$work/fcgi.sock" >"$work/fcgi.log" 2>&1 &
    pids+=($!)
    PATH=$PATH:/usr/sbin nginx -e "$work/nginx/error.log" -p "$work/nginx" -c "$work/nginx.conf" &
    pids+=($!)
}

start_sshd() {
    ssh-keygen -q -t ed25519 -N '' -f "$work/host_key" && ssh-keygen -q -t ed25519 -N '' -f "$work/user_key" || return
    cp "$work/user_key.pub" "$work/authorized_keys"
    echo "[origin.test]:$sshp $(cut -d' ' -f1,2 "$work/host_key.pub")" >"$work/known_hosts"
    cat >"$work/sshd_config" <<CONF
ListenAddress 127.0.0.1:$sshp
HostKey $work/host_key
PidFile $work/sshd.pid
AuthorizedKeysFile $work/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
CONF
    [ "$(id -u)" = 0 ] && mkdir -p /run/sshd # where it locks itself in before the login
    /usr/sbin/sshd -D -e -f "$work/sshd_config" 2>"$work/sshd.log" &
    pids+=($!)
}

start_echo() {
    socat -t30 "TCP-LISTEN:$echo,bind=127.0.0.1,fork,reuseaddr" EXEC:cat 2>"$work/socat.log" &
    pids+=($!)
}

start_smtp() { # a server that speaks first; keeps the mail it gets
    cat >"$work/smtp.py" <<'PY'
import socketserver, sys
class Smtp(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 origin.test ready\r\n")
        for line in self.rfile:
            verb = line.strip().upper()[:4]
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                with open(sys.argv[2], "wb") as mail:
                    for line in self.rfile:
                        if line == b".\r\n":
                            break
                        mail.write(line[1:] if line.startswith(b".") else line)
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 origin.test\r\n")
            if verb == b"QUIT":
                return
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Smtp).serve_forever()
PY
    python3 "$work/smtp.py" "$smtp" "$work/mail.got" 2>"$work/smtp.log" &
    pids+=($!)
}

wait_for_port() {
    for _ in $(seq 200); do (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.05; done
    fail "no server on port $1 ($2)"
}

# What dnsmasq answers by itself, what it has from a file that is read anew on SIGHUP, and what it passes on from a server
# that fails. It may not cache the failure, and no answer may be held for longer than a second.
start_dnsmasq() {
    local n
    echo "127.0.0.1 moving.dns.test" >"$work/moving"
    cat >"$work/dnsmasq.conf" <<CONF
port=$dns
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
log-queries
log-facility=$work/dnsmasq.log
pid-file=
cache-size=1000
local-ttl=1
addn-hosts=$work/moving
local=/dns.test/
host-record=four.dns.test,127.0.0.1
host-record=six.dns.test,::1
cname=one.dns.test,two.dns.test
cname=two.dns.test,three.dns.test
cname=three.dns.test,four.dns.test
server=/broken.test/127.0.0.1#$broken_dns
CONF
    [ "$(id -u)" = 0 ] && echo user=root >>"$work/dnsmasq.conf"
    for n in $(seq "$many"); do echo "host-record=many.dns.test,127.0.0.$n" >>"$work/dnsmasq.conf"; done
    cat >"$work/broken_dns.py" <<'PY'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    query, peer = s.recvfrom(4096)
    s.sendto(query[:2] + bytes([0x81, 0x82]) + query[4:], peer)  # SERVFAIL
PY
    python3 "$work/broken_dns.py" "$broken_dns" 2>"$work/broken_dns.log" &
    pids+=($!)
    PATH=$PATH:/usr/sbin dnsmasq --keep-in-foreground --conf-file="$work/dnsmasq.conf" 2>"$work/dnsmasq.err" &
    dnsmasq_pid=$!
    pids+=("$dnsmasq_pid")
}

# ---- the proxy -------------------------------------------------------------------------------------------------------

start_proxy() { # NAME OPTIONS...: sets proxy (ADDR:PORT), proxy_pid, access
    local log=$work/$1.log
    access=$work/$1.access
    shift
    "$ADIT" --listen 127.0.0.1:0 --allow 127.0.0.0/8 --allow ::1/128 "$@" >"$access" 2>"$log" &
    proxy_pid=$!
    pids+=("$proxy_pid")
    for _ in $(seq 100); do
        proxy=$(grep -soE 'listening on [^ ]+' "$log" | head -1 | cut -d' ' -f3)
        [ -n "$proxy" ] && return
        kill -0 $proxy_pid 2>/dev/null || break
        sleep 0.05
    done
    cat "$log" >&2
    fail "$ADIT does not start"
}

# ---- rows ------------------------------------------------------------------------------------------------------------

passed=0 failed=0 skipped=0
row() { printf '%-14s %-52s %s\n' "$1" "$2" "$3"; }

# judge PROGRAM WHAT COUNT LINE COMMAND...: the command must succeed and leave COUNT new access lines, or with `+` at least
# one. LINE is "METHOD TARGET STATUS END", with the wildcards of the shell.
judge() {
    local program=$1 what=$2 count=$3 line=$4 mark code found=0
    shift 4
    mark=$(wc -l <"$access")
    rm -f "$work/out"
    (set -e; "$@") >"$work/row.log" 2>&1 </dev/null
    code=$?
    for _ in $(seq 100); do # the line is written when the exchange has ended
        found=$(tail -n "+$((mark + 1))" "$access" | lines_like "$line")
        [ "$found" -ge "${count/+/1}" ] && break
        sleep 0.05
    done
    [ "$count" = + ] && [ "$found" -gt 0 ] && count=$found
    if [ $code -eq 0 ] && [ "$found" = "$count" ]; then
        passed=$((passed + 1))
        row "$program" "$what" ok
        return
    fi
    failed=$((failed + 1))
    if [ $code -ne 0 ]; then row "$program" "$what" "FAILED (code $code)"; else row "$program" "$what" "FAILED ($found access lines of $count: $line)"; fi
    { tail -15 "$work/row.log"; tail -n "+$((mark + 1))" "$access"; } | cut -c1-300 | sed 's/^/    | /'
}
lines_like() { # LINE: counts them
    local method target status rest end count=0
    while read -r _ _ _ method target status rest; do
        end=${rest##*end=}
        # shellcheck disable=SC2053 # wildcards are wanted
        [[ "$method $target $status via=${rest#via=}" == "$1"* || "$method $target $status $end" == $1 ]] && count=$((count + 1))
    done
    echo $count
}
# run PROGRAM WHAT TARGET STATUS COMMAND...: a tunnel. STATUS may go on with what follows it in the line.
run() { judge "$1" "$2" + "CONNECT $3 $4" "${@:5}"; }
# http PROGRAM WHAT COUNT "METHOD URL STATUS [END]" COMMAND...: plain HTTP, which ends with "done" unless END says otherwise.
http() {
    local line=$4
    [[ $line == *" "*" "*" "* ]] || line+=" done"
    judge "$1" "$2" "$3" "$line" "${@:5}"
}

not() { ! "$@"; }
same() { # FILE WANTED
    [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ] || { echo "$1 differs from $2 ($(wc -c <"$1") of $(wc -c <"$2") bytes)"; return 1; }
}
t() { timeout 60 "$@"; }
curl_() { t curl -sS -x "http://$proxy" --cacert "$work/ca.pem" "$@"; }

curl_http1() {
    version=$(curl_ --http1.1 -o "$work/out" -w '%{http_version} %{ssl_verify_result}' "https://origin.test:$tls/big")
    [ "$version" = "1.1 0" ] && same "$work/out" "$work/www/big"
}
curl_http2() {
    local url="https://origin.test:$tls" n
    seen=$(curl_ --http2 -Z -w '%{http_version} %{num_connects}\n' "$url/part1" -o "$work/o1" "$url/part2" -o "$work/o2" \
        "$url/part3" -o "$work/o3" "$url/part4" -o "$work/o4")
    [ "$(sort <<<"$seen")" = $'2 0\n2 0\n2 0\n2 1' ] || { echo "version and new connections of each:"; echo "$seen"; return 1; }
    for n in 1 2 3 4; do same "$work/o$n" "$work/www/part$n"; done
}
curl_plain() { curl_ -p -o "$work/out" "http://origin.test:$plain/big" && same "$work/out" "$work/www/big"; }
curl_six() { curl_ -o "$work/out" "https://$1:$tls/big" && same "$work/out" "$work/www/big"; }
curl_smtp() {
    curl_ -p "smtp://origin.test:$smtp/client.test" --mail-from a@client.test --mail-rcpt b@origin.test -T "$work/mail"
    same "$work/mail.got" "$work/mail"
}
curl_refused() { # TARGET STATUS ERROR: what a person sees
    curl_ -v "https://$1/" >"$work/out" 2>&1 && return 1
    cat "$work/out"
    grep -q "^< HTTP/1.1 $2 " "$work/out" && grep -qi "^< Proxy-Status: adit; error=$3" "$work/out"
    grep -q "response $2\|code $2" "$work/out"
}
curl_user() { curl_ -U "$@" -o "$work/out" "https://origin.test:$tls/big" && same "$work/out" "$work/www/big"; }
curl_user_http() { # at first without, as its --proxy-anyauth does: a 407, and the same again with credentials, over one connection
    [ "$(curl_ -U alice:secret --proxy-anyauth -w '%{num_connects}' -o "$work/out" "http://origin.test:$plain/big")" = 1 ] && same "$work/out" "$work/www/big"
}
made_by() { # NAME N: what its tool has written lets it in, with the right password only; from an address that was not wrong before
    local code
    curl_user "$1:correct horse" --interface "127.0.1.$2" || return
    for wrong in 'correct hors' ''; do
        code=$(curl_ --interface "127.0.1.$2" -U "$1:$wrong" -o "$work/out" -w '%{http_connect}' "https://origin.test:$tls/big") || : # set -e
        [ "$code" = 407 ] || { echo "$1:$wrong: $code"; return 1; }
    done
}
des_refused() { # FILE LINE
    local said
    said=$("$ADIT" --check-config --users "$1" 2>&1) && return 1
    [[ $said == *"$1:$2: expected no DES crypt"* ]]
}
wget_user() {
    t wget -q -O "$work/out" -e "https_proxy=http://$proxy" --proxy-user=alice --proxy-password=secret --ca-certificate="$work/ca.pem" "https://origin.test:$tls/big" &&
        same "$work/out" "$work/www/big"
}
ncat_user() { printf 'hello\n' | t ncat --proxy "$proxy" --proxy-type http --proxy-auth alice:secret origin.test "$echo" | grep -qx hello; }
dns_where() { # NAME ADDRESS: the origin says on which of its addresses it was reached
    [ "$(curl_ -p "http://$1:$plain/where")" = "$2" ]
}
dns_refused() { # TARGET STATUS ERROR RCODE
    curl_refused "$1" "$2" "$3" && grep -qi "^< Proxy-Status: .*; rcode=\"\?$4" "$work/out"
}
dns_truncated() { # over UDP nothing but the flag; the question comes again, over TCP, and then there are addresses
    curl_ -p "http://many.dns.test:$plain/where" | grep -q '^127\.0\.0\.' || return 1
    [ "$(grep -c 'query\[A\] many.dns.test ' "$work/dnsmasq.log")" = 2 ] || { grep many "$work/dnsmasq.log" | tail -5; return 1; }
}
dns_moved() { # the name moves to another address; its old one has been used, and its TTL is a second
    local seen
    echo "127.0.0.2 moving.dns.test" >"$work/moving"
    kill -HUP $dnsmasq_pid
    for _ in $(seq 60); do
        seen=$(curl_ -p "http://moving.dns.test:$plain/where")
        [ "$seen" = 127.0.0.2 ] && return
        [ "$seen" = 127.0.0.1 ] || { echo "seen: $seen"; return 1; }
        sleep 0.05
    done
    echo "after three seconds still $seen"
    return 1
}
wget_() {
    t wget -q -O "$work/out" -e use_proxy=yes -e "https_proxy=http://$proxy" --ca-certificate="$work/ca.pem" "https://origin.test:$tls/big"
    same "$work/out" "$work/www/big"
}
python_requests() {
    t "$python" - "$proxy" "$tls" "$work" <<'PY'
import sys, requests
proxy, port, work = sys.argv[1:]
with requests.Session() as session:
    session.proxies, session.verify = {"https": f"http://{proxy}"}, f"{work}/ca.pem"
    for name in ("big", "small", "part1"):
        answer = session.get(f"https://origin.test:{port}/{name}", timeout=30)
        assert answer.status_code == 200 and answer.content == open(f"{work}/www/{name}", "rb").read(), name
PY
}
python_urllib() {
    t python3 - "$proxy" "$tls" "$work" <<'PY'
import ssl, sys, urllib.request as u
proxy, port, work = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{work}/ca.pem")
opener = u.build_opener(u.ProxyHandler({"https": f"http://{proxy}"}), u.HTTPSHandler(context=context))
with opener.open(f"https://origin.test:{port}/big", timeout=30) as answer:
    assert answer.read() == open(f"{work}/www/big", "rb").read()
PY
}
git_() { t git -c "http.proxy=http://$proxy" -c "http.sslCAInfo=$work/ca.pem" "$@"; }
git_clone() {
    git_ clone -q "https://origin.test:$tls/git/repo.git" "$work/clone"
    [ "$(git -C "$work/clone" rev-parse HEAD)" = "$(git -C "$work/seed" rev-parse HEAD)" ] && same "$work/clone/blob" "$work/blob"
}
git_push() {
    head -c 3000000 /dev/urandom >"$work/clone/more"
    git -C "$work/clone" add more && git -C "$work/clone" commit -qm second
    git_ -C "$work/clone" push -q origin main
    [ "$(git -C "$work/clone" rev-parse HEAD)" = "$(git -C "$work/git/repo.git" rev-parse main)" ]
}
openssl_client() {
    printf 'GET /small HTTP/1.0\r\nHost: origin.test\r\n\r\n' |
        t openssl s_client -proxy "$proxy" -connect "origin.test:$tls" -servername origin.test -CAfile "$work/ca.pem" \
            -verify_return_error -ign_eof >"$work/out" 2>"$work/err"
    grep -q "a small page" "$work/out"
    [ "$(sed -n '/BEGIN CERT/,/END CERT/p' "$work/out" | openssl x509 -noout -fingerprint -sha256)" = \
        "$(openssl x509 -in "$work/tls.pem" -noout -fingerprint -sha256)" ]
}
ncat_echo() { t ncat --proxy-type http --proxy "$proxy" origin.test "$echo" <"$work/blob" >"$work/out" && same "$work/out" "$work/blob"; }
socat_echo() {
    t socat -t30 - "PROXY:${proxy%:*}:origin.test:$echo,proxyport=${proxy##*:}" <"$work/blob" >"$work/out"
    same "$work/out" "$work/blob"
}
nc_echo() { t nc.openbsd -N -X connect -x "$proxy" origin.test "$echo" <"$work/blob" >"$work/out" && same "$work/out" "$work/blob"; }
ssh_hash() { # PROXY_COMMAND
    sum=$(t ssh -F none -o "ProxyCommand=$1" -o UserKnownHostsFile="$work/known_hosts" -o StrictHostKeyChecking=yes \
        -o BatchMode=yes -o IdentitiesOnly=yes -i "$work/user_key" -p "$sshp" "$(id -un)@origin.test" sha256sum <"$work/blob")
    [ "$sum" = "$(sha256sum <"$work/blob")" ]
}

stops_on_term() { # PID WHAT: no client, so no access line
    kill -TERM "$1"
    for _ in $(seq 100); do kill -0 "$1" 2>/dev/null || break; sleep 0.1; done
    kill -0 "$1" 2>/dev/null && { failed=$((failed + 1)); row adit "$2" "FAILED (still runs)"; return; }
    wait "$1"
    local code=$?
    if [ $code -eq 0 ]; then passed=$((passed + 1)); row adit "$2" ok
    else failed=$((failed + 1)); row adit "$2" "FAILED (code $code)"; fi
}

. scripts/clients-http.sh
. scripts/clients-log.sh

# ---- the run ---------------------------------------------------------------------------------------------------------

if [ -z "${ADIT:-}" ]; then
    cargo build --release --quiet || fail "the build fails"
    ADIT=${CARGO_TARGET_DIR:-target}/release/adit
fi
install_programs || fail "programs cannot be installed"
install_requests || fail "requests cannot be installed"
# Only now, because pip may need them: each client gets its CA from us.
unset SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE REQUESTS_CA_BUNDLE GIT_SSL_CAINFO GIT_SSL_CAPATH
has_ipv6=$(grep -l '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null)
chromium=$(command -v chromium-headless-shell chromium | head -1)
read -r tls plain sshp echo smtp closed dns broken_dns special websocket squid silent <<<"$(free_ports 12)"
many=100 # addresses that no UDP answer of 1232 bytes holds
{ make_certificates && make_content && make_repository && make_gallery && make_apt_repository; } >"$work/make.log" 2>&1 || { cat "$work/make.log"; fail "no content"; }
start_nginx
start_sshd || fail "sshd does not start"
start_echo
start_smtp
start_special
start_websocket
start_dnsmasq
for port in "$tls nginx" "$plain nginx" "$sshp sshd" "$echo socat" "$smtp smtp" "$special origin" "$websocket websockets" "$dns dnsmasq"; do
    # shellcheck disable=SC2086
    wait_for_port $port
done
printf '127.0.0.1 origin.test other.test denied.test\n::1 six.test\n' >"$work/hosts"
start_proxy adit --hosts "$work/hosts" --deny denied.test

row program what result
row ------- ---- ------
run curl "HTTP/1.1 over TLS, 20 MiB" "origin.test:$tls" 200 curl_http1
run curl "HTTP/2 over TLS, four at once in one tunnel" "origin.test:$tls" 200 curl_http2
run curl "plain HTTP inside a tunnel (-p)" "origin.test:$plain" 200 curl_plain
if [ -n "$has_ipv6" ]; then
    run curl "origin [::1], by address" "[::1]:$tls" 200 curl_six '[::1]'
    run curl "origin [::1], by name" "six.test:$tls" 200 curl_six six.test
else
    skipped=$((skipped + 2))
    row curl "origin [::1]" "skipped (this machine has no IPv6)"
fi
run curl "SMTP: the server speaks first" "origin.test:$smtp" 200 curl_smtp
run wget "HTTPS, 20 MiB" "origin.test:$tls" 200 wget_
run requests "HTTPS session, three requests" "origin.test:$tls" 200 python_requests
run urllib "HTTPS, 20 MiB" "origin.test:$tls" 200 python_urllib
run git "clone over HTTPS" "origin.test:$tls" 200 git_clone
run git "push over HTTPS" "origin.test:$tls" 200 git_push
run "openssl" "s_client -proxy: the origin's own certificate" "origin.test:$tls" 200 openssl_client
run ncat "--proxy-type http: 1 MiB echo, half-close" "origin.test:$echo" 200 ncat_echo
run socat "PROXY: 1 MiB echo, half-close" "origin.test:$echo" 200 socat_echo
run nc "-X connect: 1 MiB echo, half-close" "origin.test:$echo" 200 nc_echo
run ssh "ProxyCommand ncat --proxy" "origin.test:$sshp" 200 ssh_hash "ncat --proxy-type http --proxy $proxy %h %p"
run ssh "ProxyCommand nc -X connect" "origin.test:$sshp" 200 ssh_hash "nc.openbsd -X connect -x $proxy %h %p"
run ssh "ProxyCommand socat PROXY:" "origin.test:$sshp" 200 ssh_hash "socat - PROXY:${proxy%:*}:%h:%p,proxyport=${proxy##*:}"
run curl "closed port: 502 and its cause are shown" "origin.test:$closed" 502 curl_refused "origin.test:$closed" 502 connection_refused
run curl "denied name: 403 and its cause are shown" "denied.test:$tls" 403 curl_refused "denied.test:$tls" 403 http_request_denied
http_rows
stops_on_term "$proxy_pid" "SIGTERM ends it with code 0"

start_proxy asking --hosts /dev/null --nameserver "127.0.0.1:$dns"
run dnsmasq "A" "four.dns.test:$plain" "200 via=127.0.0.1:$plain" dns_where four.dns.test 127.0.0.1
if [ -n "$has_ipv6" ]; then
    run dnsmasq "AAAA" "six.dns.test:$plain" "200 via=[::1]:$plain" dns_where six.dns.test ::1
else
    skipped=$((skipped + 1))
    row dnsmasq "AAAA" "skipped (this machine has no IPv6)"
fi
run dnsmasq "three CNAMEs, then A" "one.dns.test:$plain" "200 via=127.0.0.1:$plain" dns_where one.dns.test 127.0.0.1
run dnsmasq "NXDOMAIN: 502 and the code are shown" "no.dns.test:$tls" "502 via=-" dns_refused "no.dns.test:$tls" 502 dns_error NXDOMAIN
run dnsmasq "SERVFAIL: 502 and the code are shown" "a.broken.test:$tls" "502 via=-" dns_refused "a.broken.test:$tls" 502 dns_error SERVFAIL
run dnsmasq "REFUSED: 502 and the code are shown" "elsewhere.test:$tls" "502 via=-" dns_refused "elsewhere.test:$tls" 502 dns_error REFUSED
run dnsmasq "$many addresses: truncated, then over TCP" "many.dns.test:$plain" "200 via=127.0.0." dns_truncated
run dnsmasq "a name before it moves" "moving.dns.test:$plain" "200 via=127.0.0.1:$plain" dns_where moving.dns.test 127.0.0.1
run dnsmasq "moved, TTL 1 s: the new address is used" "moving.dns.test:$plain" "200 via=127.0.0.2:$plain" dns_moved
stops_on_term "$proxy_pid" "SIGTERM ends the second one as well"
log_rows

# htpasswd -nbB alice secret
printf 'alice:%s\n' '$2y$10$waz10DYtzRMq7uCtXT9YOu9hjeG3k9Wp4xCvIt6M/KKSQjCaqjM52' >"$work/users"
start_proxy users --hosts "$work/hosts" --users "$work/users"
run curl "-U: a tunnel for a user" "origin.test:$tls" 200 curl_user alice:secret
run curl "-U: a wrong password is 407" "origin.test:$tls" 407 not curl_user alice:wrong
run curl "no user is 407, and its cause is shown" "origin.test:$tls" 407 curl_refused "origin.test:$tls" 407 http_request_denied
http curl "-U --proxy-anyauth: 407 and 200 over one connection" 1 "GET http://origin.test:$plain/big 407 http_request_denied" curl_user_http
run wget "--proxy-user" "origin.test:$tls" 200 wget_user
run ncat "--proxy-auth" "origin.test:$echo" 200 ncat_user
stops_on_term "$proxy_pid" "SIGTERM ends the third one as well"

: >"$work/users"
for flag in -B -m -s -2 -5; do htpasswd -b $flag "$work/users" "htpasswd$flag" 'correct horse' 2>"$work/htpasswd.log" || cat "$work/htpasswd.log"; done
for flag in -apr1 -5 -6; do printf 'openssl%s:%s\n' $flag "$(openssl passwd $flag 'correct horse')" >>"$work/users"; done
start_proxy hashes --hosts "$work/hosts" --users "$work/users"
number=0
for name in htpasswd-{B,m,s,2,5} openssl-{apr1,5,6}; do
    number=$((number + 1))
    run "${name%%-*}" "-${name#*-}: lets in with the right password only" "origin.test:$tls" 200 made_by "$name" $number
done
stops_on_term "$proxy_pid" "SIGTERM ends the fourth one as well"
htpasswd -b -d "$work/users" des 'correct horse' 2>/dev/null
reads htpasswd "-d: the file is refused, with its line" des_refused "$work/users" 9

[ $failed -eq 0 ] || { echo "-- the proxies' logs:"; tail -n 20 "$work/adit.log" "$work/asking.log" "$work/users.log" "$work/hashes.log" "$work/dnsmasq.err"; }
[ $skipped -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
