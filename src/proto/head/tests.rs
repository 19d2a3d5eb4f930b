#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::proto::fields::{MAX_HEADERS, cases};
use crate::proto::scan::{MAX_HEAD_BYTES, Scan, Scanned};

fn read<'a, 'h: 'a>(bytes: &'h [u8], storage: &'a mut Storage<'h>) -> Result<Parsed<'a>, Refusal> {
    match Scan::for_request().scan(bytes) {
        Scanned::Complete(length) => parse(&bytes[..length], storage),
        Scanned::Bad(broken) => Err(broken.refusal()),
        Scanned::Incomplete => panic!("incomplete: {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn status(bytes: &[u8]) -> u16 {
    let judged = match read(bytes, &mut Storage::new()) {
        Ok(Parsed::Http(request)) if request.path != "*" => {
            // As the session does.
            let target = Target::from_authority_or_port(request.authority, HTTP_PORT);
            target.map(drop).map_err(|bad| Refusal::BadTarget(bad.details()))
        }
        other => other.map(drop),
    };
    judged.map_or_else(|refusal| refusal.status(), |()| 200)
}

fn connect_with(fields: &str) -> Vec<u8> {
    format!("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n{fields}\r\n").into_bytes()
}

fn get_with(fields: &str) -> Vec<u8> {
    format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

/// Heads as real clients send them.
const GOOD: &[(&str, &str, &str)] = &[
    // curl
    (
        "CONNECT Example.org:443 HTTP/1.1\r\nHost: Example.org:443\r\nUser-Agent: curl/8.5.0\r\n\
         Proxy-Connection: Keep-Alive\r\n\r\n",
        "CONNECT",
        "example.org:443",
    ),
    // ncat and socat
    ("CONNECT 192.0.2.1:22 HTTP/1.0\r\n\r\n", "CONNECT", "192.0.2.1:22"),
    ("\r\n\r\nCONNECT [2001:db8::1]:443 HTTP/1.1\r\nhost:\r\n\r\n", "CONNECT", "[2001:db8::1]:443"),
    (
        "CONNECT a.test:443 HTTP/1.1\r\nHost: b.test\r\nContent-Length: 0\r\nX-Empty:\r\nX: \ta\tb\u{e9} \r\n\r\n",
        "CONNECT",
        "a.test:443",
    ),
    ("GET http://a.test/x?secret=1 HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "http://a.test/x"),
    ("GET HTTP://A.test:8080 HTTP/1.0\r\n\r\n", "GET", "http://a.test:8080"),
    ("GET http://a.test?q HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "http://a.test"),
    ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "OPTIONS", "*"),
    (
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\n",
        "POST",
        "http://a.test/",
    ),
    (
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "POST",
        "http://a.test/",
    ),
];

/// Method and target as the access line tells them.
fn told(parsed: &Parsed) -> (String, String) {
    match parsed {
        Parsed::Connect(connect) => ("CONNECT".into(), connect.target.to_string()),
        Parsed::Http(request) if request.path == "*" => (request.method.into(), "*".into()),
        Parsed::Http(request) => {
            let mut url = Vec::new();
            let target = Target::from_authority_or_port(request.authority, HTTP_PORT);
            if let Ok(target) = target {
                request.loggable_url(&target, 1000, &mut url);
            }
            (request.method.into(), String::from_utf8(url).unwrap())
        }
    }
}

#[test]
fn good_heads_are_read() {
    for (sent, method, target_text) in GOOD {
        let mut storage = Storage::new();
        let parsed = read(sent.as_bytes(), &mut storage).expect(sent);
        assert_eq!(told(&parsed), (method.to_string(), target_text.to_string()));
        let version = match &parsed {
            Parsed::Connect(connect) => connect.version,
            Parsed::Http(request) => request.version,
        };
        assert_eq!(matches!(parsed, Parsed::Connect(_)), *method == "CONNECT");
        assert_eq!(version == Version::Http10, sent.contains("HTTP/1.0"));
    }
}

#[test]
fn each_prefix_of_a_good_head_is_incomplete() {
    for (sent, _, _) in GOOD {
        let bytes = sent.as_bytes();
        let mut dribbled = Scan::default();
        for end in 0..bytes.len() {
            assert_eq!(Scan::default().scan(&bytes[..end]), Scanned::Incomplete, "{end} of {sent:?}");
            assert_eq!(dribbled.scan(&bytes[..end]), Scanned::Incomplete, "{end} of {sent:?}");
        }
        assert_eq!(dribbled.scan(bytes), Scanned::Complete(bytes.len()));
        let mut more = bytes.to_vec();
        more.extend_from_slice(b"\0\x16 early data\r\n\r\n");
        assert_eq!(Scan::default().scan(&more), Scanned::Complete(bytes.len()), "early data is not judged");
    }
}

#[test]
fn limits_are_exact() {
    let head = |field_bytes: usize| connect_with(&format!("A: {}\r\n", "b".repeat(field_bytes)));
    let fits = MAX_HEAD_BYTES - head(0).len();
    assert_eq!(head(fits).len(), MAX_HEAD_BYTES);
    assert_eq!(status(&head(fits)), 200);
    assert_eq!(status(&head(fits + 1)), 431);
    assert_eq!(status(&vec![b'A'; MAX_HEAD_BYTES]), 414);
    assert_eq!(Scan::default().scan(&vec![b'A'; MAX_HEAD_BYTES - 1]), Scanned::Incomplete);
    assert_eq!(status(&vec![b'A'; 10 * MAX_HEAD_BYTES]), 414);
    assert_eq!(status(&connect_with(&"A: b\r\n".repeat(MAX_HEADERS - 1))), 200);
    assert_eq!(status(&connect_with(&"A: b\r\n".repeat(MAX_HEADERS))), 431);
}

#[test]
fn request_lines() {
    let host = "Host: a.test\r\n\r\n";
    let cases = [
        ("CONNECT a.test:443 HTTP/1.1", 200),
        ("CONNECT a.test:443  HTTP/1.1", 400),
        ("CONNECT  a.test:443 HTTP/1.1", 400),
        ("CONNECT a.test:443 HTTP/1.1 ", 400),
        ("CONNECT a.test:443", 400),
        ("CONNECT a.test:443 ", 400),
        ("CONNECT", 400),
        ("CONNECT a.test HTTP/1.1", 400),
        ("CONNECT 2130706433:80 HTTP/1.1", 400),
        ("CONNECT http://a.test:443 HTTP/1.1", 400),
        ("connect a.test:443 HTTP/1.1", 400),
        ("CONNECT a.test:443 http/1.1", 400),
        ("CONNECT a.test:443 HTTP/1", 400),
        ("CONNECT a.test:443 HTTP/1.11", 400),
        ("CONNECT a.test:443 HTTP/2.0", 505),
        ("CONNECT a.test:443 HTTP/1.2", 505),
        ("CONNECT a.test:443 HTTP/0.9", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET http://a.test/ HTTP/1.1", 200),
        ("M-SEARCH http://a.test/ HTTP/1.1", 200),
        ("G@T http://a.test/ HTTP/1.1", 400),
        ("GET / HTTP/1.1", 400),
        ("GET /", 400),
        ("GET * HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 200),
        ("GET a.test:80 HTTP/1.1", 400),
        ("GET a.test HTTP/1.1", 400),
        ("GET https://a.test/ HTTP/1.1", 400),
        ("GET ftp://a.test/ HTTP/1.1", 400),
        ("GET ://a.test/ HTTP/1.1", 400),
        ("GET http:///x HTTP/1.1", 400),
        ("GET http://u:p@a.test/ HTTP/1.1", 400),
        ("GET http://a.test:0/ HTTP/1.1", 400),
        ("GET http://a.test/#x HTTP/1.1", 400),
        ("GET http://a.test/x@y HTTP/1.1", 200),
        ("GET http://0x7f.1/ HTTP/1.1", 400),
    ];
    for (line, expected) in cases {
        assert_eq!(status(format!("{line}\r\n{host}").as_bytes()), expected, "{line}");
    }
    let long = format!("{} http://a.test/ HTTP/1.1\r\n{host}", "A".repeat(33));
    assert_eq!(status(long.as_bytes()), 400);
    let details = |line: &str| {
        let head = format!("{line}\r\n{host}");
        read(head.as_bytes(), &mut Storage::new()).unwrap_err().details()
    };
    assert!(details("GET / HTTP/1.1").contains("this is a proxy"));
    assert!(details("connect a.test:443 HTTP/1.1").contains("case-sensitive"));
    assert!(details("GET https://a.test/ HTTP/1.1").contains("CONNECT"));
}

#[test]
fn fields_of_a_connect() {
    let cases = [
        ("", 200),
        ("Content-Length: 0\r\n", 200),
        ("Content-Length: 1\r\n", 400),
        ("Content-Length: 0\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: +0\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 0, 0\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Host: a.test:443\r\n", 400),
        ("A : b\r\n", 400),
        ("A\t: b\r\n", 400),
        ("A\r\n", 400),
        ("A B: c\r\n", 400),
        ("A(: c\r\n", 400),
    ];
    for (fields, expected) in cases {
        assert_eq!(status(&connect_with(fields)), expected, "{fields:?}");
    }
    assert_eq!(status(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n"), 400, "no Host in HTTP/1.1");
    assert_eq!(status(b"CONNECT a.test:443 HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    for host in ["a b", "a/b", "u@a", "a\u{e9}", "a, b"] {
        let head = format!("CONNECT a.test:443 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(status(head.as_bytes()), 400, "{host}");
    }
}

#[test]
fn what_is_ambiguous_is_refused() {
    for (lines, expected, _) in cases::LINES {
        let head = [b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n", *lines, b"\r\n"].concat();
        assert_eq!(status(&head), *expected, "{:?}", String::from_utf8_lossy(lines));
    }
    let whole: &[(&str, u16)] = &[
        ("GET http://a.test/ HTTP/1.1\r\n\r\n", 400),
        ("GET http://a.test/ HTTP/1.0\r\n\r\n", 200),
        ("GET http://a.test/ HTTP/1.0\r\nHost: a.test\r\nHost: a.test\r\n\r\n", 400),
        ("POST http://a.test/ HTTP/1.0\r\nContent-Length: 5\r\n\r\n", 200),
        ("POST http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST http://a.test/ HTTP/1.0\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        ("TRACE http://a.test/ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("TRACE http://a.test/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200),
        ("TRACE http://a.test/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400),
        ("TRACE http://a.test/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ];
    for (head, expected) in whole {
        assert_eq!(status(head.as_bytes()), *expected, "{head:?}");
    }
}

/// Reads a request that must be good.
fn http(head: &str, judge: impl FnOnce(&HttpRequest)) {
    match read(head.as_bytes(), &mut Storage::new()) {
        Ok(Parsed::Http(request)) => judge(&request),
        other => panic!("{head:?}: {other:?}"),
    }
}

#[test]
fn a_request_is_cut_in_its_parts() {
    let cases = [
        ("http://a.test/x/y?z=1&q", "a.test", "/x/y?z=1&q"),
        ("HTTP://A.test:8080", "A.test:8080", ""),
        ("http://a.test?q/r", "a.test", "?q/r"),
        ("http://[2001:db8::1]:81//x//", "[2001:db8::1]:81", "//x//"),
        ("http://a.test/x@y:z", "a.test", "/x@y:z"),
        ("http://user@a.test/", "user@a.test", "/"),
        ("http://a.test/http://b.test/", "a.test", "/http://b.test/"),
        ("http://a.test/%00%0d%0a\"<>\\^`{|}", "a.test", "/%00%0d%0a\"<>\\^`{|}"),
    ];
    for (target, authority, path) in cases {
        http(&format!("GET {target} HTTP/1.1\r\nHost: b.test\r\n\r\n"), |request| {
            assert_eq!(
                (request.method, request.authority, request.path),
                ("GET", authority.as_bytes(), path)
            );
        });
    }
    http("OPTIONS * HTTP/1.1\r\nHost: b.test\r\n\r\n", |request| {
        assert_eq!((request.method, request.authority, request.path), ("OPTIONS", &b""[..], "*"));
    });
    http("GET http://a.test HTTP/1.0\r\nA:b\r\nHost: c\r\na: \t c \t\r\nX:\r\n\r\n", |request| {
        let fields: Vec<_> = request.fields.iter().collect();
        assert_eq!(fields, [("A", &b"b"[..]), ("Host", b"c"), ("a", b"c"), ("X", b"")]);
        assert_eq!(request.fields.values("A").collect::<Vec<_>>(), [b"b", b"c"]);
        assert_eq!(request.fields.values("host").collect::<Vec<_>>(), [b"c"]);
    });
}

#[test]
fn framing_is_what_the_fields_say() {
    let cases = [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("Content-Length: 007\r\n", Framing::Length(7)),
        ("Content-Length: 9223372036854775807\r\n", Framing::Length(i64::MAX as u64)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
        ("Connection: content-length\r\nContent-Length: 5\r\n", Framing::Length(5)),
        ("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", Framing::Chunked),
    ];
    for (fields, framing) in cases {
        for method in ["GET", "HEAD", "POST", "X"] {
            let head = format!("{method} http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
            http(&head, |request| assert_eq!(request.framing, framing, "{head:?}"));
        }
    }
}

#[test]
fn a_client_keeps_its_connection_or_does_not() {
    let cases = [
        ("1.1", "", Persistence::Keep),
        ("1.1", "Connection: keep-alive\r\n", Persistence::Keep),
        ("1.1", "Connection: close\r\n", Persistence::Close),
        ("1.1", "Connection: CLOSE\r\n", Persistence::Close),
        ("1.1", "Connection: keep-alive, close\r\n", Persistence::Close),
        ("1.1", "Connection: keep-alive\r\nconnection: ,, close ,\r\n", Persistence::Close),
        ("1.1", "Connection: closed\r\n", Persistence::Keep),
        ("1.1", "Connection: \"close\"\r\n", Persistence::Keep),
        ("1.1", "Proxy-Connection: close\r\n", Persistence::Keep),
        ("1.0", "", Persistence::Close),
        ("1.0", "Connection: keep-alive\r\n", Persistence::Close),
        ("1.0", "Proxy-Connection: keep-alive\r\n", Persistence::Close),
    ];
    for (version, fields, persistence) in cases {
        let head = format!("GET http://a.test/ HTTP/{version}\r\nHost: a.test\r\n{fields}\r\n");
        http(&head, |request| assert_eq!(request.persistence, persistence, "{head:?}"));
    }
}

#[test]
fn upgrades_are_passed_on_or_not() {
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let cases = [
        ("1.1", websocket, Upgrade::Asked),
        ("1.1", "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n", Upgrade::Asked),
        ("1.1", "Connection: x\r\nConnection: upgrade\r\nUpgrade: a/1, b\r\nUpgrade: c\r\n", Upgrade::Asked),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", Upgrade::Asked),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", Upgrade::None),
        ("1.0", websocket, Upgrade::None),
        ("1.1", "Upgrade: websocket\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade:\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: , ,\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c/1\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: web socket\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket/\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: /13\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket/13/2\r\n", Upgrade::None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: \"websocket\"\r\n", Upgrade::None),
    ];
    for (version, fields, upgrade) in cases {
        let head = format!("GET http://a.test/ HTTP/{version}\r\nHost: a.test\r\n{fields}\r\n");
        http(&head, |request| assert_eq!(request.upgrade, upgrade, "{head:?}"));
    }
}

#[test]
fn expectations() {
    let cases = [
        ("1.1", "", Expect::Nothing),
        ("1.1", "Expect: 100-continue\r\n", Expect::Continue),
        ("1.1", "expect: 100-Continue\r\n", Expect::Continue),
        ("1.1", "Expect: x\r\nExpect: y, 100-continue\r\n", Expect::Continue),
        ("1.1", "Expect: 200-ok\r\n", Expect::Nothing),
        ("1.1", "Expect: 100-continue;q=1\r\n", Expect::Nothing),
        ("1.1", "Expect: 100-continue\r\nConnection: expect\r\n", Expect::Nothing),
        ("1.0", "Expect: 100-continue\r\n", Expect::Nothing),
    ];
    for (version, fields, expect) in cases {
        let head =
            format!("PUT http://a.test/ HTTP/{version}\r\nHost: a.test\r\nContent-Length: 1\r\n{fields}\r\n");
        http(&head, |request| assert_eq!(request.expect, expect, "{head:?}"));
    }
}

#[test]
fn forwards_are_counted_for_trace_and_options_only() {
    let head = |method: &str, fields: &str| {
        format!("{method} http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
    };
    let good = [
        ("", None),
        ("Max-Forwards: 0\r\n", Some(0)),
        ("max-forwards: 0010 \r\n", Some(10)),
        ("Max-Forwards: 4294967295\r\n", Some(u32::MAX)),
        ("Max-Forwards: 4294967296\r\n", Some(u32::MAX)),
        ("Max-Forwards: 99999999999999999999999999\r\n", Some(u32::MAX)),
        ("Connection: max-forwards\r\nMax-Forwards: 3\r\n", Some(3)),
    ];
    for (fields, expected) in good {
        for method in ["TRACE", "OPTIONS"] {
            http(&head(method, fields), |request| assert_eq!(request.max_forwards, expected, "{fields:?}"));
        }
        http(&head("GET", fields), |request| assert_eq!(request.max_forwards, None));
    }
    for value in ["", "-1", "+1", "1.0", "0x1", "1, 1", "1 1", "one", "1\r\nMax-Forwards: 1"] {
        let fields = format!("Max-Forwards: {value}\r\n");
        assert_eq!(status(head("TRACE", &fields).as_bytes()), 400, "{value:?}");
        assert_eq!(status(head("OPTIONS", &fields).as_bytes()), 400, "{value:?}");
        assert_eq!(status(head("GET", &fields).as_bytes()), 200, "{value:?}");
    }
}

#[test]
fn a_connection_field_has_so_many_options_and_no_more() {
    let options = |count: usize| get_with(&format!("Connection: {}\r\n", "a,".repeat(count)));
    assert_eq!(status(&options(100)), 200);
    assert_eq!(status(&options(101)), 400);
    assert_eq!(status(&get_with(&"Connection: close,close\r\n".repeat(50))), 200);
    assert_eq!(status(&get_with(&"Connection: close,close\r\n".repeat(51))), 400);
    assert_eq!(
        status(&get_with(&format!("Connection: {}\r\n", ", ,".repeat(1000)))),
        200,
        "empty ones are none"
    );
}

#[test]
fn methods() {
    for (method, is_idempotent) in [
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("TRACE", true),
        ("PUT", true),
        ("DELETE", true),
        ("POST", false),
        ("PATCH", false),
        ("get", false),
        ("GETX", false),
        ("PROPFIND", false),
    ] {
        http(&format!("{method} http://a.test/ HTTP/1.1\r\nHost: a\r\n\r\n"), |request| {
            assert_eq!(request.is_idempotent(), is_idempotent, "{method}");
            assert_eq!(request.is_head(), method == "HEAD", "{method}");
        });
    }
}

#[test]
fn a_loop_is_known_by_our_name() {
    let cases = [
        ("", false),
        ("Via: 1.1 adit\r\n", true),
        ("via: 1.0 ADIT\r\n", true),
        ("Via: HTTP/1.1 adit (with a comment)\r\n", true),
        ("Via: 1.1 a, 1.1 adit, 1.0 c\r\n", true),
        ("Via: 1.1 a\r\nVia: ,,1.1\tadit\r\n", true),
        ("Via: 1.1 a (unbalanced\r\nVia: 1.1 adit\r\n", true),
        ("Via: 1.1 a (unbalanced, 1.1 adit\r\n", true),
        // What a Connection field names was there nevertheless.
        ("Connection: via\r\nVia: 1.1 adit\r\n", true),
        ("Via: 1.1 adit.example\r\n", false),
        ("Via: 1.1 aditx, 1.1 xadit\r\n", false),
        ("Via: 1.1 adit:8080\r\n", false),
        ("Via: adit\r\n", false),
        ("Via: 1.1 b (adit)\r\n", false),
        ("X-Via: 1.1 adit\r\n", false),
    ];
    for (fields, expected) in cases {
        http(&format!("GET http://a.test/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), |request| {
            assert_eq!(request.went_through("adit"), expected, "{fields:?}");
        });
    }
}

#[test]
fn what_is_logged_of_a_url() {
    let cases = [
        ("http://A.Test./x?secret", 100, "http://a.test/x"),
        ("http://a.test:80?secret", 100, "http://a.test"),
        ("http://a.test:8080/a/b", 100, "http://a.test:8080/a/b"),
        ("http://[2001:DB8::1]/", 100, "http://[2001:db8::1]/"),
        ("http://a.test/abcdef", 15, "http://a.test/a"),
        ("http://a.test/abcdef", 3, "htt"),
        ("http://a.test/abcdef", 0, ""),
    ];
    for (sent, max_bytes, expected) in cases {
        http(&format!("GET {sent} HTTP/1.1\r\nHost: a\r\n\r\n"), |request| {
            let target = Target::from_authority_or_port(request.authority, HTTP_PORT).unwrap();
            let mut out = b"GET ".to_vec();
            request.loggable_url(&target, max_bytes, &mut out);
            assert_eq!(out, format!("GET {expected}").into_bytes());
        });
    }
    http("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", |request| {
        let target = Target::from_authority(b"a.test:80").unwrap();
        let mut out = Vec::new();
        request.loggable_url(&target, 100, &mut out);
        assert_eq!(out, b"*");
    });
}

#[test]
fn credentials_of_a_tunnel_can_be_read() {
    let head = connect_with("Proxy-Authorization: Basic YTpi\r\n");
    let mut storage = Storage::new();
    let Ok(Parsed::Connect(connect)) = read(&head, &mut storage) else { panic!("no CONNECT") };
    let values: Vec<_> = connect.fields.values("proxy-authorization").collect();
    assert_eq!(values, [b"Basic YTpi"]);
}

#[test]
fn no_flipped_byte_panics_or_reaches_the_log() {
    for (sent, _, _) in GOOD {
        for at in 0..sent.len() {
            for byte in 0..=255 {
                let mut bytes = sent.as_bytes().to_vec();
                bytes[at] = byte;
                if let Scanned::Complete(length) = Scan::default().scan(&bytes) {
                    let mut storage = Storage::new();
                    if let Ok(parsed) = parse(&bytes[..length], &mut storage) {
                        let (method, target_text) = told(&parsed);
                        assert!(target_text.bytes().all(|byte| byte.is_ascii_graphic()));
                        assert!(method.bytes().all(is_token_byte));
                    }
                }
                let _ = parse(&bytes, &mut Storage::new());
            }
        }
    }
}
