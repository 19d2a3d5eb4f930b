# Sourced by clients.sh: the rows for plain HTTP. A web server (nginx) at $plain, what it does not do (clients-origin.py) at
# $special, a WebSocket echo at $websocket.
# shellcheck shell=bash disable=SC2154 # what clients.sh has set is read here

make_gallery() { # a page, 20 images, and a script that counts those that have arrived whole
    mkdir -p "$work/www/gallery" "$work/put"
    python3 - "$work/www/gallery" <<'PY'
import os, struct, sys, zlib
def part(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
rows = lambda: b"".join(b"\0" + os.urandom(64 * 3) for _ in range(64))
for n in range(20):
    with open(f"{sys.argv[1]}/{n}.png", "wb") as image:
        image.write(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
                    + part(b"IDAT", zlib.compress(rows())) + part(b"IEND", b""))
with open(f"{sys.argv[1]}/index.html", "w") as page:
    page.write('<!doctype html><title>gallery</title><p id="result">not loaded</p>\n')
    page.writelines(f'<img src="{n}.png">\n' for n in range(20))
    page.write("""<script>addEventListener("load", () => {
    const whole = [...document.images].filter(image => image.complete && image.naturalWidth == 64).length
    document.getElementById("result").textContent = whole + " images are here"
})</script>\n""")
PY
}

# Twelve packages and one that wants them all. Written by hand: what makes such lists is a package of its own.
make_apt_repository() {
    local root=$work/www/apt package n architecture all=''
    architecture=$(dpkg --print-architecture)
    mkdir -p "$root" "$work/deb/DEBIAN" "$work/deb/usr/share/adit-test"
    for n in $(seq 12) all; do
        package=adit-test-$n
        if [ "$n" = all ]; then rm "$work/deb/usr/share/adit-test/content"; else head -c 300000 /dev/urandom >"$work/deb/usr/share/adit-test/content"; fi
        {
            printf 'Package: %s\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@client.test>\nDescription: for a test\n' "$package"
            if [ "$n" = all ]; then echo "Depends: ${all#, }"; fi
        } >"$work/deb/DEBIAN/control"
        dpkg-deb --root-owner-group -Znone -b "$work/deb" "$root/$package.deb" || return
        {
            dpkg-deb -f "$root/$package.deb"
            printf 'Filename: ./%s.deb\nSize: %s\nSHA256: %s\n\n' "$package" "$(stat -c %s "$root/$package.deb")" "$(sha256sum <"$root/$package.deb" | cut -d' ' -f1)"
        } >>"$root/Packages"
        all+=", $package"
    done
    printf 'Suite: test\nArchitectures: %s all\nDate: %s\nSHA256:\n %s %s Packages\n' "$architecture" "$(date -Ru | sed 's/+0000/UTC/')" \
        "$(sha256sum <"$root/Packages" | cut -d' ' -f1)" "$(stat -c %s "$root/Packages")" >"$root/Release"
}

make_apt_root() { # a system of its own: nothing of this machine's lists is read or written
    mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/etc" "$work/apt/log"
    : >"$work/apt/status"
    echo "deb [trusted=yes] http://origin.test:$plain/apt ./" >"$work/apt/etc/sources.list"
    cat >"$work/apt.conf" <<CONF
Dir::State "$work/apt/state"; Dir::State::status "$work/apt/status"; Dir::Cache "$work/apt/cache"; Dir::Log "$work/apt/log";
Dir::Etc "$work/apt/etc"; Dir::Etc::main "/dev/null"; Dir::Etc::parts "/dev/null"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::trusted "/dev/null"; Dir::Etc::trustedparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none"; Acquire::Retries "0"; Acquire::http::Proxy "http://$proxy";
CONF
}

start_special() {
    python3 scripts/clients-origin.py "$special" "$work/www/part1" 2>"$work/special.log" &
    pids+=($!)
}

start_websocket() { # with Debian's own Python, for which the library is
    cat >"$work/websocket_origin.py" <<'PY'
import asyncio, sys, websockets
async def echo(socket, *_):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None):
        await asyncio.Future()
asyncio.run(main())
PY
    /usr/bin/python3 "$work/websocket_origin.py" "$websocket" 2>"$work/websocket.log" &
    pids+=($!)
}

# In a row the shell stops at the first command that fails, but not inside of `a && b` unless that is the last line.
# ---- rows ------------------------------------------------------------------------------------------------------------

origin_() { echo "http://origin.test:$special/$1"; }

http_keep_alive() {
    local seen
    seen=$(curl_ -w '%{num_connects}\n' "http://origin.test:$plain/part1" -o "$work/o1" "http://origin.test:$plain/part2" -o "$work/o2")
    [ "$seen" = $'1\n0' ] || { echo "new connections of each:"; echo "$seen"; return 1; }
    same "$work/o1" "$work/www/part1" && same "$work/o2" "$work/www/part2"
}
http_origins() { # one connection to the proxy, three to origins
    local seen
    seen=$(curl_ -w '%{num_connects}\n' "http://origin.test:$plain/part1" -o "$work/o1" "http://other.test:$plain/part2" -o "$work/o2" \
        "$(origin_ trailers)" -o "$work/o3")
    [ "$seen" = $'1\n0\n0' ] || { echo "new connections of each:"; echo "$seen"; return 1; }
    same "$work/o1" "$work/www/part1" && same "$work/o2" "$work/www/part2" && same "$work/o3" "$work/www/part1"
}
http_big() { curl_ -o "$work/out" "http://origin.test:$plain/big" && same "$work/out" "$work/www/big"; }
http_six() { curl_ -o "$work/out" "http://[::1]:$plain/part1" && same "$work/out" "$work/www/part1"; }
http_put() { # to the web server, and back
    [ "$(curl_ -T "$work/blob" -w '%{http_code}' "http://origin.test:$plain/put/$1" "${@:2}")" = 201 ] && same "$work/put/$1" "$work/blob"
}
http_echoed() { # EXPRESSION CURL_OPTIONS...: what the origin says that it got makes the expression true
    local expression=$1
    shift
    curl_ -v "$@" "$(origin_ echo)" -o "$work/out" 2>"$work/verbose" || { cat "$work/verbose"; return 1; }
    python3 - "$expression" "$work/out" "$work/blob" <<'PY'
import hashlib, json, sys
seen = json.load(open(sys.argv[2]))
class fields(dict):
    __missing__ = lambda self, name: None
fields, blob = fields(seen["fields"]), hashlib.sha256(open(sys.argv[3], "rb").read()).hexdigest()
if not eval(f"({sys.argv[1]})"):
    sys.exit(f"not so: {sys.argv[1]}\n{json.dumps(seen, indent=1)}")
PY
}
http_expect() { # whoever waits for the 100 waits for a minute if none comes
    http_echoed 'seen["framing"] == "length" and seen["sha256"] == blob' --expect100-timeout 70 -H 'Expect: 100-continue' --data-binary "@$work/blob"
    grep -q '^< HTTP/1.1 100' "$work/verbose" || { cat "$work/verbose"; return 1; }
}
http_expect_refused() { # no 100, so the body never leaves
    local seen
    seen=$(curl_ --expect100-timeout 70 -H 'Expect: 100-continue' --data-binary "@$work/blob" -o "$work/out" -w '%{http_code} %{size_upload}' "$(origin_ refused)")
    [ "$seen" = "413 0" ] || { echo "status and bytes of the body: $seen"; return 1; }
}
http_early() { # the answer comes while the body is on its way, and says that it is the last
    local seen
    seen=$(curl_ -H 'Expect:' -T "$work/www/big" -o "$work/out" -w '%{http_code}' "$(origin_ refused)")
    [ "$seen" = 413 ] || { echo "status: $seen"; return 1; }
}
http_head() {
    curl_ -I "http://origin.test:$plain/big" >"$work/out"
    grep -qi '^content-length: 20971520' "$work/out" && grep -qi '^via: 1.1 adit' "$work/out"
}
http_head_get() { # no byte of a body that is only promised is waited for
    local seen
    seen=$(curl_ -I -w '%{num_connects}\n' "http://origin.test:$plain/big" -o "$work/o1" --next -sS -x "http://$proxy" -w '%{num_connects}\n' "http://origin.test:$plain/small" -o "$work/o2")
    [ "$seen" = $'1\n0' ] && same "$work/o2" "$work/www/small"
}
http_etag() { # 304 has no body, and the next answer is not taken for it
    local seen etag
    etag=$(curl_ -I "http://origin.test:$plain/big" | sed -n 's/^[Ee][Tt]ag: \(.*\)\r/\1/p')
    [ -n "$etag" ] || return 1
    seen=$(curl_ -H "If-None-Match: $etag" -w '%{http_code} %{num_connects}\n' "http://origin.test:$plain/big" -o "$work/o1" "http://origin.test:$plain/big" -o "$work/o2")
    [ "$seen" = $'304 1\n304 0' ] || { echo "$seen"; return 1; }
}
http_range() {
    [ "$(curl_ -r 1000000-1999999 -o "$work/out" -w '%{http_code}' "http://origin.test:$plain/big")" = 206 ] || return 1
    dd status=none if="$work/www/big" of="$work/wanted" bs=1000000 skip=1 count=1
    same "$work/out" "$work/wanted"
}
http_trailers() {
    curl_ -D "$work/fields" -o "$work/out" "$(origin_ trailers)"
    same "$work/out" "$work/www/part1"
    grep -qi "^x-hash: $(sha256sum <"$work/www/part1" | cut -d' ' -f1)" "$work/fields" || { cat "$work/fields"; return 1; }
}
http_old_origin() { curl_ -o "$work/out" "$(origin_ until-close)" && same "$work/out" "$work/www/part1"; }
http_old_client() { # who knows no chunks gets none
    curl_ -0 -D "$work/fields" -o "$work/out" "$(origin_ trailers)"
    same "$work/out" "$work/www/part1"
    ! grep -qi '^transfer-encoding' "$work/fields"
}
http_cut() { # PATH: curl must notice
    local code=0
    curl_ -o "$work/out" "$(origin_ "$1")" || code=$?
    [ $code = 18 ] || [ $code = 56 ] || { echo "curl thinks that all is well ($code)"; return 1; }
}
http_hints() {
    curl_ -D "$work/fields" -o "$work/out" "$(origin_ hints)"
    grep -q '^behind the hints' "$work/out"
    grep -q '^HTTP/1.1 103' "$work/fields" && grep -qi '^link: ' "$work/fields"
}
http_moved() { curl_ -L -o "$work/out" "http://origin.test:$plain/moved" && same "$work/out" "$work/www/small"; }
http_refused() { # URL STATUS ERROR
    [ "$(curl_ -D "$work/fields" -o "$work/out" -w '%{http_code}' "$1")" = "$2" ] || { cat "$work/fields"; return 1; }
    grep -qi "^Proxy-Status: adit; error=$3" "$work/fields" && grep -q "^$2 " "$work/out"
}
http_pipelined() { # both at once, to two origins; the answers come in order
    printf 'GET http://origin.test:%s/echo HTTP/1.1\r\nHost: origin.test\r\n\r\nGET http://other.test:%s/small HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n' \
        "$special" "$plain" | t nc.openbsd "${proxy%:*}" "${proxy##*:}" >"$work/out"
    [ "$(grep -a -o -e '^HTTP/1.1 200' -e '"method": "GET"' -e 'a small page' "$work/out" | tr '\n' ' ')" = 'HTTP/1.1 200 "method": "GET" HTTP/1.1 200 a small page ' ] ||
        { cat "$work/out"; return 1; }
}
wget_proxied() { t wget -e use_proxy=yes -e "http_proxy=http://$proxy" "$@"; }
wget_http() { wget_proxied -q -O "$work/out" "http://origin.test:$plain/big" && same "$work/out" "$work/www/big"; }
wget_continue() {
    head -c 5000000 "$work/www/big" >"$work/out"
    wget_proxied -q -c -O "$work/out" "http://origin.test:$plain/big" && same "$work/out" "$work/www/big"
}
wget_site() {
    wget_proxied -nv -r -nH --no-parent -P "$work/site" "http://origin.test:$plain/gallery/"
    diff -r "$work/site/gallery" "$work/www/gallery"
}
wget_trailers() { wget_proxied -q -O "$work/out" "$(origin_ trailers)" && same "$work/out" "$work/www/part1"; }
apt_() { APT_CONFIG=$work/apt.conf t apt-get -qq "$@"; }
apt_update() { apt_ update && APT_CONFIG=$work/apt.conf apt-cache show adit-test-7 | grep '^Filename: '; }
apt_download() { (cd "$work/apt" && apt_ download adit-test-1 adit-test-2) && same "$work/apt/adit-test-2_1.0_all.deb" "$work/www/apt/adit-test-2.deb"; }
apt_install() {
    local n
    apt_ install -y --download-only adit-test-all
    for n in $(seq 12) all; do same "$work/apt/cache/archives/adit-test-${n}_1.0_all.deb" "$work/www/apt/adit-test-$n.deb"; done
}
apt_tls() {
    rm -rf "$work/apt/state/lists" "$work/apt/cache/archives"
    mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
    echo "deb [trusted=yes] https://origin.test:$tls/apt ./" >"$work/apt/etc/sources.list"
    echo "Acquire::https::Proxy \"http://$proxy\"; Acquire::https::CaInfo \"$work/ca.pem\";" >>"$work/apt.conf"
    apt_update && apt_install
}
requests_http() {
    t "$python" - "$proxy" "$plain" "$special" "$work" <<'PY'
import hashlib, sys, requests
proxy, plain, special, work = sys.argv[1:]
blob = open(f"{work}/blob", "rb").read()
with requests.Session() as session:
    session.trust_env, session.proxies, echo = False, {"http": f"http://{proxy}"}, f"http://origin.test:{special}/echo"
    for name in ("big", "small", "part1"):
        answer = session.get(f"http://origin.test:{plain}/{name}", timeout=30)
        assert answer.status_code == 200 and answer.content == open(f"{work}/www/{name}", "rb").read(), name
    seen = session.post(echo, json={"a": [1, 2]}, timeout=30).json()
    assert seen["sha256"] == hashlib.sha256(b'{"a": [1, 2]}').hexdigest() and ["content-type", "application/json"] in seen["fields"], seen
    seen = session.put(echo, data=(blob[at : at + 7000] for at in range(0, len(blob), 7000)), timeout=30).json()
    assert seen["framing"] == "chunked" and seen["sha256"] == hashlib.sha256(blob).hexdigest(), seen
    seen = session.delete(echo, auth=("user", "secret"), timeout=30).json()
    assert seen["method"] == "DELETE" and ["authorization", "Basic dXNlcjpzZWNyZXQ="] in seen["fields"], seen
    managers = session.get_adapter("http://").proxy_manager.values()
    opened = sum(pool.num_connections for manager in managers for pool in manager.pools._container.values())
    assert opened == 1, f"{opened} connections to the proxy"
PY
}
requests_stream() { # the second part is made only when the first is here
    t "$python" - "$proxy" "$special" <<'PY'
import sys, requests
proxy, special = sys.argv[1:]
proxies = {"http": f"http://{proxy}"}
with requests.get(f"http://origin.test:{special}/stream", proxies=proxies, stream=True, timeout=20) as answer:
    parts = answer.iter_content(None)
    assert next(parts) == b"first"
    assert requests.get(f"http://origin.test:{special}/go", proxies=proxies, timeout=20).text == "going\n"
    assert b"".join(parts) == b"second"
PY
}
urllib_http() {
    t python3 - "$proxy" "$plain" "$work" <<'PY'
import sys, urllib.request as u
proxy, port, work = sys.argv[1:]
with u.build_opener(u.ProxyHandler({"http": f"http://{proxy}"})).open(f"http://origin.test:{port}/big", timeout=30) as answer:
    assert answer.read() == open(f"{work}/www/big", "rb").read()
PY
}
git_http_clone() {
    rm -rf "$work/clone"
    git_ clone -q "http://origin.test:$plain/git/repo.git" "$work/clone"
    [ "$(git -C "$work/clone" rev-parse HEAD)" = "$(git -C "$work/git/repo.git" rev-parse main)" ] && same "$work/clone/blob" "$work/blob"
}
git_http_push() { # more than git collects before it sends: in chunks
    head -c 3000000 /dev/urandom >"$work/clone/$1"
    git -C "$work/clone" add "$1" && git -C "$work/clone" commit -qm "$1"
    git_ -C "$work/clone" push -q origin main
    [ "$(git -C "$work/clone" rev-parse HEAD)" = "$(git -C "$work/git/repo.git" rev-parse main)" ]
}
websocket_echo() { # the handshake in absolute form; the library itself would use CONNECT
    t /usr/bin/python3 - "$proxy" "$websocket" <<'PY'
import os, socket, sys
from websockets.frames import Opcode
from websockets.uri import parse_uri
try:
    from websockets.client import ClientProtocol
except ImportError:
    from websockets.client import ClientConnection as ClientProtocol
proxy, port = sys.argv[1:]
host, proxy_port = proxy.rsplit(":", 1)
wire = socket.create_connection((host, int(proxy_port)), 20)
client = ClientProtocol(parse_uri(f"ws://origin.test:{port}/echo"), max_size=None)
request = client.connect()
request.path = f"http://origin.test:{port}/echo"
client.send_request(request)
def flush():
    for data in client.data_to_send():
        if data:
            wire.sendall(data)
        else:
            wire.shutdown(socket.SHUT_WR)
def events():
    while True:
        yield from client.events_received()
        flush()
        data = wire.recv(65536)
        if not data:
            client.receive_eof()
            yield from client.events_received()
            return
        client.receive_data(data)
flush()
incoming = events()
response = next(incoming)
assert response.status_code == 101, response
for size in (0, 1, 125, 126, 65535, 65536, 1000000):
    message, got = os.urandom(size), b""
    client.send_binary(message)
    flush()
    for frame in incoming:
        assert frame.opcode in (Opcode.BINARY, Opcode.CONT), frame
        got += frame.data
        if frame.fin:
            break
    assert got == message, (size, len(got))
client.send_close(1000)
flush()
rest = list(incoming)
assert [frame.opcode for frame in rest] == [Opcode.CLOSE], rest
PY
}
chromium_page() { # URL
    rm -rf "$work/chromium"
    t "$chromium" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --no-first-run \
        --user-data-dir="$work/chromium" --proxy-server="http://$proxy" --proxy-bypass-list='<-loopback>' --ignore-certificate-errors \
        --dump-dom "$1" >"$work/out" 2>"$work/chromium.log" || { tail -5 "$work/chromium.log"; return 1; }
    grep -q '>20 images are here<' "$work/out" || { cat "$work/out"; tail -5 "$work/chromium.log"; return 1; }
}

http_rows() {
    local web=http://origin.test:$plain
    http curl "GET twice, one connection to the proxy" 1 "GET $web/part2 200" http_keep_alive
    http curl "GET from three origins, one connection to the proxy" 1 "GET http://other.test:$plain/part2 200" http_origins
    http curl "GET, 20 MiB" 1 "GET $web/big 200" http_big
    if [ -n "$has_ipv6" ]; then
        http curl "GET from [::1]" 1 "GET http://\[::1\]:$plain/part1 200" http_six
    else
        skipped=$((skipped + 1))
        row curl "GET from [::1]" "skipped (this machine has no IPv6)"
    fi
    http curl "what an origin sees of a request" 1 "GET $(origin_ echo) 200" http_echoed \
        'fields["via"] == "1.1 adit" and fields["host"] == f"origin.test:'"$special"'" and fields["authorization"] and fields["x-own"] == "a  b"
            and seen["target"] == "/echo" and not fields["proxy-connection"] and not fields["x-hop"] and not fields["connection"]' \
        -u user:secret -H 'X-Own: a  b' -H 'X-Hop: 1' -H 'Connection: x-hop'
    http curl "PUT, 1 MiB" 1 "PUT $web/put/one 201" http_put one
    http curl "PUT, 1 MiB in chunks" 1 "PUT $web/put/two 201" http_put two -H 'Transfer-Encoding: chunked'
    http curl "POST in chunks: they arrive as chunks" 1 "POST $(origin_ echo) 200" http_echoed 'seen["framing"] == "chunked" and seen["sha256"] == blob' \
        -H 'Transfer-Encoding: chunked' --data-binary "@$work/blob"
    http curl "POST, Expect: 100-continue: the origin's 100 comes" 1 "POST $(origin_ echo) 200" http_expect
    http curl "POST, Expect: 100-continue: the origin does not want it" 1 "POST $(origin_ refused) 413" http_expect_refused
    http curl "PUT, answered before the body has gone" 1 "PUT $(origin_ refused) 413 *" http_early
    http curl "HEAD" 1 "HEAD $web/big 200" http_head
    http curl "HEAD and GET, one connection" 1 "GET $web/small 200" http_head_get
    http curl "If-None-Match: 304 twice, one connection" 2 "GET $web/big 304" http_etag
    http curl "a range" 1 "GET $web/big 206" http_range
    http curl "chunks and a trailer" 1 "GET $(origin_ trailers) 200" http_trailers
    http curl "an HTTP/1.0 origin: until it closes" 1 "GET $(origin_ until-close) 200" http_old_origin
    http curl "an HTTP/1.0 client gets no chunks" 1 "GET $(origin_ trailers) 200" http_old_client
    http curl "103 before 200" 1 "GET $(origin_ hints) 200" http_hints
    http curl "a body cut short looks cut short" 1 "GET $(origin_ cut) 200 *" http_cut cut
    http curl "chunks cut short look cut short" 1 "GET $(origin_ cut-chunked) 200 *" http_cut cut-chunked
    http curl "302 to another origin is followed" 1 "GET http://other.test:$plain/small 200" http_moved
    http curl "closed port: 502 and its cause are shown" 1 "GET http://origin.test:$closed/ 502 connection_refused" \
        http_refused "http://origin.test:$closed/" 502 connection_refused
    http curl "denied name: 403 and its cause are shown" 1 "GET http://denied.test/ 403 http_request_denied" \
        http_refused http://denied.test/ 403 http_request_denied
    http nc "two requests at once, two origins" 1 "GET http://other.test:$plain/small 200" http_pipelined
    http wget "20 MiB" 1 "GET $web/big 200" wget_http
    http wget "-c: the rest of a file" 1 "GET $web/big 206" wget_continue
    http wget "-r: a page and 20 images" 20 "GET $web/gallery/*.png 200" wget_site
    http wget "chunks and a trailer" 1 "GET $(origin_ trailers) 200" wget_trailers
    make_apt_root
    http apt "update" 1 "GET $web/apt/./Packages 200" apt_update
    http apt "update: nothing new" 1 "GET $web/apt/./Release 304" apt_update
    http apt "download" 2 "GET $web/apt/./adit-test-*.deb 200" apt_download
    http apt "install --download-only, 13 packages" 13 "GET $web/apt/./adit-test-*.deb 200" apt_install
    run apt "update and install over HTTPS" "origin.test:$tls" 200 apt_tls
    http requests "a session: GET, POST, PUT in chunks, DELETE" 1 "DELETE $(origin_ echo) 200" requests_http
    http requests "a stream: its first part before the second is made" 1 "GET $(origin_ stream) 200" requests_stream
    http urllib "20 MiB" 1 "GET $web/big 200" urllib_http
    http git "clone over HTTP" + "POST $web/git/repo.git/git-upload-pack 200" git_http_clone
    http git "push over HTTP, in chunks" + "POST $web/git/repo.git/git-receive-pack 200" git_http_push again
    http websockets "Upgrade: seven echoes, close" 1 "GET http://origin.test:$websocket/echo 101" websocket_echo
    http chromium "a page and 20 images" 20 "GET $web/gallery/*.png 200" chromium_page "$web/gallery/"
    run chromium "a page and 20 images over HTTPS" "origin.test:$tls" 200 chromium_page "https://origin.test:$tls/gallery/"
}
