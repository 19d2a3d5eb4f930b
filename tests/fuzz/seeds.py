#!/usr/bin/env python3
"""Writes the seed corpus: `tests/fuzz/seeds.py` fills tests/fuzz/seeds anew. What it writes is committed.

A seed that is accepted is worth most: the fuzzer finds the bad neighbours by itself.
"""
import ipaddress
import shutil
import struct
from pathlib import Path

SEEDS = Path(__file__).resolve().parent / "seeds"
A, NS, CNAME, SOA, TXT, AAAA, OPT = 1, 2, 5, 6, 16, 28, 41
POINTER_TO_QUESTION = b"\xc0\x0c"


def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def record(owner, rtype, data, ttl_s=300):
    return owner + struct.pack("!HHIH", rtype, 1, ttl_s, len(data)) + data


def address(text):
    return ipaddress.ip_address(text).packed


def message(asked, qtype, answers=(), authority=(), additional=(), flags=0x8180):
    head = struct.pack("!6H", 0x1234, flags, 1, len(answers), len(authority), len(additional))
    return head + name(asked) + struct.pack("!HH", qtype, 1) + b"".join([*answers, *authority, *additional])


def dns_answer():
    www, end = "www.example.com", 33  # the answer section of a message about www starts here
    edns = record(b"\0", OPT, b"", 0)
    a = record(POINTER_TO_QUESTION, A, address("192.0.2.1"))
    soa = record(b"\xc0\x10", SOA, name("ns.example.com") + name("root.example.com") + struct.pack("!5I", 1, 2, 3, 4, 60))
    chain = [
        record(b"\x03web\xc0\x10", CNAME, name("edge.cdn.test"), 60),
        record(POINTER_TO_QUESTION, CNAME, struct.pack("!H", 0xC000 | end)),
        record(b"\xc0\x31", A, address("192.0.2.1")),
        record(b"\x05other\xc0\x18", A, address("192.0.2.99")),
        record(b"\xc0\x31", A, address("192.0.2.2"), 5),
    ]
    aliases = [record(name(f"n{n}.test"), CNAME, name(f"n{n + 1}.test")) for n in range(15)]
    stairs = POINTER_TO_QUESTION + b"".join(struct.pack("!H", 0xC000 | 45 + 2 * n) for n in range(60))
    return {
        "a": message(www, A, [a], additional=[edns]),
        "aaaa": message("six.test", AAAA, [record(POINTER_TO_QUESTION, AAAA, address("2001:db8::7"))]),
        "a-many": message("m.test", A, [record(POINTER_TO_QUESTION, A, bytes([192, 0, 2, n])) for n in range(40)]),
        "alias-chain": message(www, A, chain),
        "alias-ring": message(www, A, [record(POINTER_TO_QUESTION, CNAME, name("b.test")), record(name("b.test"), CNAME, name(www))]),
        "alias-16": message("n.test", A, [record(POINTER_TO_QUESTION, CNAME, name("n0.test")), *aliases, record(name("n15.test"), A, address("192.0.2.1"))]),
        "pointer-stairs": message(www, A, [record(POINTER_TO_QUESTION, TXT, stairs), record(struct.pack("!H", 0xC000 | 45 + 120), A, address("192.0.2.1"))]),
        "nxdomain": message("no.example.com", A, authority=[soa], flags=0x8183),
        "no-address": message(www, AAAA, authority=[soa]),
        "nxdomain-behind-alias": message(www, A, [record(POINTER_TO_QUESTION, CNAME, name("gone.test"))], [soa], flags=0x8183),
        "servfail": message(www, A, flags=0x8182),
        "truncated": message(www, A, [a], flags=0x8380),
        "header-alone": struct.pack("!6H", 0x1234, 0x8001, 0, 0, 0, 0),
        "referral": message(www, A, authority=[record(b"\xc0\x10", NS, name("ns.example.com"))], additional=[record(name("ns.example.com"), A, address("192.0.2.53"))]),
        "long-labels": message(".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]), A, [a]),
    }


def resolv_conf():
    return {
        "plain": "nameserver 192.0.2.1\nnameserver 2001:db8::1\n",
        "everything": "# made by hand\n; old style\nnameserver 192.0.2.1\r\n  nameserver\t2001:db8::1 # second\n"
        "nameserver fe80::1%eth0\nnameserver fe80::2%3\ndomain old.test\nsearch Lan. corp.example.com ; two\n"
        "options ndots:2 timeout:1 attempts:3 rotate edns0 trust-ad\nsortlist 10.0.0.0\n",
        "systemd": "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
        "caps": "options ndots:99 timeout:0 attempts:0\noptions timeout:86400 attempts:4294967297\n",
        "bad": "nameserver\nnameserver localhost\nnameserver fe80::1%wlan9\noptions timeout:soon ndots: rotate\n",
        "many": "".join(f"nameserver 192.0.2.{n}\n" for n in range(10)) + "search a b c d e f g h\n",
    }


def hosts():
    return {
        "debian": "127.0.0.1\tlocalhost\n127.0.1.1\tbox.lan box\n\n# IPv6\n::1     localhost ip6-localhost\nff02::1 ip6-allnodes\n",
        "case-and-dots": "10.0.0.9 Nas.Home. nas # twice\r\nfd00::9 nas\n10.0.0.9 nas\n",
        "blocklist": "0.0.0.0 ads.example\n0.0.0.0 tracker.example t.example\n:: ads.example\n",
        "bad": "nonsense\n10.0.0.2\n10.0.0.300 b\nfe80::1%eth0 c\n10.0.0.1 .\n10.0.0.1 a..\n",
    }


def rule_list():
    return {
        "names": "a.test\n.b.test\n*.c.test # comment\nD.Test.\r\n\n# only a comment\nxn--bcher-kva.test\n",
        "nets": "10.0.0.0/8\n10.1.0.0/16\n192.0.2.7\n2001:db8::/32\n[2606::1]\n64:ff9b::/96\n::ffff:10.0.0.0/104\n",
        "rules": "a.test:443\n*:25\n.b.test from 10.0.0.0/8\n* user alice\n* user bob#1 # two\n[2001:db8::]/32:1-9 user bob from 192.0.2.1\n",
        "hosts": "127.0.0.1 localhost localhost.localdomain local\n255.255.255.255 broadcasthost\nfe80::1%lo0 localhost\n"
        "ff02::1 ip6-allnodes\n0.0.0.0 0.0.0.0\n0.0.0.0 203.0.113.7 ip6-ads.test ip6-loopback\n0.0.0.0 ads.test t.ads.test\n:: six.test\n::1 six.test\n",
        "ports": "a.test:443\n.a.test:80\n*.b.test:1-1023\n10.0.0.0/8:443\n[2001:db8::]/32:443\n"
        + "".join(f"c{n}.test:{n}\n" for n in range(1, 20)),
        "bom": b"\xef\xbb\xbfa.test\r\nb.test",
        "bad": "two words\n||ads.test^\na.*.test\n10.0.0.1/8\n192.0.2.1 ads.test\n0.0.0.0 a..b good.test\nb\xfccher.test\na.test user x y\n",
    }


def request_head():
    connect = "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n"
    get = "GET http://a.test/p?q HTTP/1.1\r\nHost: a.test\r\n"
    return {
        "curl": "CONNECT Example.org:443 HTTP/1.1\r\nHost: Example.org:443\r\nUser-Agent: curl/8.5.0\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "ncat": "CONNECT 192.0.2.1:22 HTTP/1.0\r\n\r\n",
        "six": "\r\n\r\nCONNECT [2001:db8::1]:443 HTTP/1.1\r\nhost:\r\n\r\n\x16\x03\x01",
        "connect-length": connect + "Content-Length: 0\r\nX-Empty:\r\nX: \ta\tb \r\n\r\n",
        "connect-authorized": connect + "Proxy-Authorization: Basic YTpi\r\n\r\n",
        "connect-coding": connect + "Transfer-Encoding: chunked\r\n\r\n",
        "get": get + "Accept: */*\r\nVia: 1.1 b\r\n\r\n",
        "get-port": "GET http://[2001:db8::1]:8080/#x HTTP/1.0\r\nConnection: close\r\n\r\n",
        "post": get.replace("GET", "POST") + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
        "chunked": get.replace("GET", "PUT") + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "both-framings": get + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "options": "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "origin-form": "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "options-empty-path": "OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 10\r\n\r\n",
        "trace": "TRACE http://a.test/x HTTP/1.0\r\nConnection: max-forwards\r\nMax-Forwards: 0\r\n\r\n",
        "websocket": get + "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        "h2c": get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        "hop-by-hop": get.replace("GET", "PUT") + "Connection: x-a, close, content-length\r\nX-A: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        "Proxy-Connection: x\r\nProxy-Authorization: Basic YTpi\r\nTrailer: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "loop": get + "Via: 1.0 a, 1.1 adit (c)\r\nForwarded: for=x\r\n\r\n",
        "folded": connect + "X: a\r\n b\r\n\r\n",
        "http2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "fields-100": connect + "".join(f"x{n}:\r\n" for n in range(99)) + "\r\n",
        "fields-101": connect + "".join(f"x{n}:\r\n" for n in range(100)) + "\r\n",
    }


def chunked_body():
    end = "0\r\n\r\n"
    return {
        "empty": end,
        "two": "5\r\nhello\r\n0001\r\n!\r\n" + end + "HTTP/1.1 200 OK\r\n",
        "framing-inside": "C\r\n\r\n0\r\n\r\nGET \r\n" + end,
        "extensions": "3;a=b;c=\"d\"\r\nabc\r\n1;\r\nd\r\n0;last\r\n\r\n",
        "trailers": "1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\ny:\t\xe9 \r\nSet-Cookie: z\r\n\r\n",
        "sixteen-digits": "0000000000000003\r\nabc\r\n000\r\n\r\n",
        "largest": "7fffffffffffffff\r\nabc",
        "negative": "ffffffffffffffff\r\nabc",
        "many": "1;x\r\na\r\n" * 60 + end,
        "extension-long": "1;" + "x" * 1022 + "\r\na\r\n" + end,
        "trailers-100": "0\r\n" + "x:\r\n" * 100 + "\r\n",
        "trailers-101": "0\r\n" + "x:\r\n" * 101 + "\r\n",
        "trailers-long": "0\r\nx:" + "y" * 8184 + "\r\n\r\n",
        "bare-lf": "1\na\n0\n\n",
        "folded": "0\r\nx: y\r\n z\r\n\r\n",
    }


def response_head():
    ok = "HTTP/1.1 200 OK\r\n"
    heads = {
        "nginx": ok + "Server: nginx/1.24.0\r\nDate: Fri, 20 Nov 2026 15:04:05 GMT\r\nContent-Type: text/html\r\nContent-Length: 615\r\n"
        'Connection: keep-alive\r\nETag: "6553d-267"\r\n\r\n<html>',
        "python": "HTTP/1.0 404 File not found\r\nServer: SimpleHTTP/0.6 Python/3.12\r\nConnection: close\r\n\r\n",
        "chunked": ok + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nVia: 1.1 a\r\n\r\n0\r\n\r\n",
        "until-close": ok + "\r\n",
        "no-reason": "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "obs-text": "HTTP/1.1 299 caf\xe9\tx \r\nX:\t\xe9 \r\nX-Empty:\r\n\r\n",
        "continue": "HTTP/1.1 100 Continue\r\n\r\n" + ok + "\r\n",
        "no-content": "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "not-modified": "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close, etag\r\nETag: x\r\n\r\n",
        "switching": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
        "hop-by-hop": ok + "Connection: x-a, content-length\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nTE: x\r\nProxy-Connection: x\r\n"
        "Content-Length: 5\r\nContent-Length: 5\r\nUpgrade: h2,h2c\r\n\r\n",
        "both-framings": ok + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "coding-1.0": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "gzip": ok + "Transfer-Encoding: gzip, chunked\r\n\r\n",
        "folded": ok + "X: a\r\n b\r\n\r\n",
        "ssh": "SSH-2.0-OpenSSH_9.6\r\n",
        "http2": "HTTP/2.0 200\r\n\r\n",
        "fields-100": ok + "".join(f"x{n}:\r\n" for n in range(100)) + "\r\n",
        "fields-101": ok + "".join(f"x{n}:\r\n" for n in range(101)) + "\r\n",
    }
    # What was asked and by whom: one bit each for HEAD, HTTP/1.0, an end by closing, the last response, an upgrade.
    return {name: chr(n % 32) + head for n, (name, head) in enumerate(heads.items())}


def target_authority():
    name_253 = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    good = ["example.org:443", "EXAMPLE.Org.:443", "_dmarc.a-b.x--y:65535", "1.2.3.4.example:80", "0xz:80", "192.0.2.7:443",
            "[2001:DB8::0:7]:8443", "[::ffff:1.2.3.4]:443", f"{name_253}:443", "localhost"]
    bad = ["user@example.org:443", "http://example.org:443", "::1:443", "[fe80::1%25eth0]:443", "ex%61mple.org:443", "2130706433:80",
           "0177.1:80", "0x7f.1:80", "1.2.3.4.:80", "a..b:80", "example.org:0443"]
    return {f"{kind}-{n}": text for kind, texts in (("good", good), ("bad", bad)) for n, text in enumerate(texts)}


def tls_answer():
    fixtures = SEEDS.parent.parent / "fixtures" / "tls"
    return {file.name: file.read_bytes() for file in sorted(fixtures.iterdir())} | {
        "alert-fatal": b"\x15\x03\x03\0\x02\x02\x28",
        "alert-warning": b"\x15\x03\x03\0\x02\x01\x70\x16\x03\x03\0\x04\x0e\0\0\0",
        "http": "HTTP/1.1 400 Bad Request\r\n\r\n",
        "ssh": "SSH-2.0-OpenSSH_9.6\r\n",
    }


def htpasswd():
    kinds = [
        "bcrypt:$2y$05$6MjFZchV5QXiLrCPjbNCruiAqx.9kzhhmaP7cMr1NUrSxexwm4d7i",
        "apr1:$apr1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx20",
        "sha:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=",
        "sha256:$5$wRRe1L/5xkEu3Ptx$hTsQKFT8LMjxqVtWPUIWww/9sWl/xbOJ6O8KeRPmQo3",
        "sha512:$6$1qu3O7AfiU42fgnh$.l.k16S70Cf7ixu8xJZgKXEFQFuBz45OvdERQQ1VtSG2cZFYYewWF6iGaaEekDdktImMa6iuD5P1PgErtF0AR0",
        "sha256-1000:$5$rounds=1000$jhL7qhizaIBakNY9$ja.yvsJVDgLoKzefuPHUQ00N/Jm12lmdxKejPhQLZu7",
        "sha512-10000:$6$rounds=10000$xShQPFGgoIbEmYHY$IrqHkeW6agTK9867M22iyhvE7GMuqVaVJRxiiue9XEuhExMF8BMgJfwLY5jlubzdVk9pHUV0ufXIP07vWu7D41",
    ]
    return {
        "all": "\n".join(kinds) + "\n",
        **{kind.split(":")[0]: kind for kind in kinds},
        "md5": "u:$1$adit1234$PM7m.2hN7S/4JGPxLvwi01",
        "comments": "# made by hand\r\n\r\n \t" + kinds[2] + ":Carol: the third \r\nd e:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=",
        "twice": kinds[2] + "\n" + kinds[2],
        "des": "des:XMQmVV1Ak214U\n",
        "plain": "plain:secret\n",
        "unknown": "b:{SSHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=",
        "cost": kinds[0].replace("$05$", "$18$"),
        "rounds": kinds[3].replace("$5$", "$5$rounds=1000001$"),
    }


def credentials():
    return {
        "rfc-7617": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "utf-8": "Basic dGVzdDoxMjPCow==",
        "case-and-spaces": "bASIC   YTpiOmM=",
        "empty": "Basic Og==",
        "unpadded": "Basic YTo",
        "bits-behind": "Basic YTp=",
        "nul": "Basic YQA6Yg==",
        "bearer": "Bearer YTpi",
    }


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    for target in (dns_answer, resolv_conf, hosts, rule_list, request_head, response_head, chunked_body, target_authority, tls_answer,
                   htpasswd, credentials):
        folder = SEEDS / target.__name__
        folder.mkdir(parents=True)
        for seed, content in target().items():
            folder.joinpath(seed).write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))


if __name__ == "__main__":
    main()
