#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::proto::fields::{MAX_HEADERS, Storage};
use crate::proto::head::{self, Parsed};
use crate::proto::response::{self, AnswerTo};
use crate::proto::scan::{MAX_HEAD_BYTES, Scan, Scanned};

const VIA: Option<&str> = Some("adit");

/// What a request in absolute form becomes, and how much longer it is then.
fn forwarded(sent: &[u8], via: Option<&str>, forwarded_for: Option<&str>) -> Vec<u8> {
    let shown = String::from_utf8_lossy(sent);
    assert_eq!(Scan::for_request().scan(sent), Scanned::Complete(sent.len()), "{shown:?}");
    let mut storage = Storage::new();
    let Ok(Parsed::Http(request)) = head::parse(sent, &mut storage) else { panic!("{shown:?}") };
    let target = Target::from_authority_or_port(request.authority, HTTP_PORT).unwrap();
    let forwarded_for = forwarded_for.map(|address| address.parse().unwrap());
    let mut out = b"before".to_vec();
    super::request(&request, &RequestEdit { target: &target, via, forwarded_for }, &mut out);
    let grown = out.len() - b"before".len();
    assert!(grown <= sent.len() + GROWTH_MAX_BYTES, "{} -> {grown}", sent.len());
    out.split_off(b"before".len())
}

/// A request with these lines behind `Host`, and the lines behind `Host` that it is sent on with.
fn request_lines(method: &str, lines: &[u8]) -> String {
    let sent = [method.as_bytes(), b" http://a.test/ HTTP/1.1\r\nHost: a.test\r\n", lines, b"\r\n"].concat();
    let out: String = forwarded(&sent, None, None).iter().map(|&byte| char::from(byte)).collect();
    let start = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n");
    out.strip_prefix(&start).expect(&out).strip_suffix("\r\n").unwrap().to_owned()
}

/// The edit that changes least.
fn plain(head: &ResponseHead) -> ResponseEdit<'static> {
    ResponseEdit {
        framing: head.framing,
        connection: ConnectionHeader::KeepAlive,
        upgrade: Upgrade::None,
        via: None,
        client_version: Version::Http11,
    }
}

fn passed(sent: &[u8], to: AnswerTo, edit: impl FnOnce(&ResponseHead) -> ResponseEdit<'static>) -> Vec<u8> {
    let shown = String::from_utf8_lossy(sent);
    assert_eq!(Scan::for_response().scan(sent), Scanned::Complete(sent.len()), "{shown:?}");
    let mut storage = Storage::new();
    let head = response::parse(sent, &mut storage, to).expect(&shown);
    let mut out = b"before".to_vec();
    super::response(&head, &edit(&head), &mut out);
    let grown = out.len() - b"before".len();
    assert!(grown <= sent.len() + GROWTH_MAX_BYTES, "{} -> {grown}", sent.len());
    out.split_off(b"before".len())
}

/// A 200 with these lines, and the lines that it is passed on with.
fn response_lines(lines: &[u8]) -> String {
    let sent = [b"HTTP/1.1 200 OK\r\n", lines, b"\r\n"].concat();
    let out: String = passed(&sent, AnswerTo::Other, plain).iter().map(|&byte| char::from(byte)).collect();
    out.strip_prefix("HTTP/1.1 200 OK\r\n").expect(&out).strip_suffix("\r\n").unwrap().to_owned()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn whole_requests() {
    let sent = b"GET http://Example.org/x?y HTTP/1.1\r\nHost: other.test\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
        Proxy-Connection: Keep-Alive\r\nProxy-Authorization: Basic YTpi\r\nVia: 1.1 first\r\n\r\n";
    assert_eq!(
        text(forwarded(sent, VIA, Some("192.0.2.1"))),
        "GET /x?y HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nVia: 1.1 first\r\n\
         Via: 1.1 adit\r\nForwarded: for=192.0.2.1\r\n\r\n"
    );
    let sent = b"\r\nPOST http://[2001:DB8::1]:8080 HTTP/1.0\r\nConnection: keep-alive, X-A\r\nx-a: 1\r\nContent-Length:04\r\n\r\n";
    assert_eq!(
        text(forwarded(sent, VIA, Some("::ffff:192.0.2.1"))),
        "POST / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\nContent-Length: 4\r\nVia: 1.0 adit\r\n\
         Forwarded: for=192.0.2.1\r\n\r\n"
    );
    let sent = b"GET http://10.0.20.255:80/ HTTP/1.1\r\nHost:\r\nForwarded: for=x\r\n\r\n";
    assert_eq!(
        text(forwarded(sent, None, Some("2001:db8::1"))),
        "GET / HTTP/1.1\r\nHost: 10.0.20.255\r\nForwarded: for=x\r\nForwarded: for=\"[2001:db8::1]\"\r\n\r\n"
    );
}

#[test]
fn request_targets_in_origin_form() {
    let cases = [
        ("GET", "http://a.test", "/", "a.test"),
        ("GET", "http://a.test/", "/", "a.test"),
        ("GET", "http://a.test?q", "/?q", "a.test"),
        ("GET", "http://a.test?", "/?", "a.test"),
        ("GET", "http://a.test//b.test/../%2e", "//b.test/../%2e", "a.test"),
        ("OPTIONS", "http://a.test", "*", "a.test"),
        ("OPTIONS", "http://a.test/", "/", "a.test"),
        ("OPTIONS", "http://a.test?q", "/?q", "a.test"),
        ("OPTIONS", "http://a.test:8001", "*", "a.test:8001"),
        ("options", "http://a.test", "/", "a.test"),
        ("HEAD", "http://A.Test.:80/x", "/x", "a.test"),
        ("HEAD", "http://localhost.:81/x", "/x", "localhost:81"),
        ("HEAD", "http://127.0.0.1:65535/x", "/x", "127.0.0.1:65535"),
        ("HEAD", "http://[::ffff:1.2.3.4]/x", "/x", "[::ffff:1.2.3.4]"),
    ];
    for (method, url, path, host) in cases {
        let sent = format!("{method} {url} HTTP/1.1\r\nHost: b.test\r\n\r\n");
        let expected = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(text(forwarded(sent.as_bytes(), None, None)), expected);
    }
}

/// In both directions alike: lines in, lines out.
const REMOVED: &[(&[u8], &str)] = &[
    (b"", ""),
    (b"A: b\r\n", "A: b\r\n"),
    // Order, spelling and duplicates stay; white space around values does not.
    (b"b:2\r\nA: 1\r\nB:  3 \t\r\na:\r\nA: 1\r\n", "b: 2\r\nA: 1\r\nB: 3\r\na: \r\nA: 1\r\n"),
    (b"A: \xe9\t'\"x\r\n", "A: \u{e9}\t'\"x\r\n"),
    (b"Connection: close\r\nA: b\r\n", "A: b\r\n"),
    (b"Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: trailers\r\nA: b\r\n", "A: b\r\n"),
    (b"kEEP-aLIVE: x\r\nPROXY-CONNECTION: x\r\nte:\r\nCONNECTION:\r\n", ""),
    (b"Upgrade: websocket\r\nA: b\r\n", "A: b\r\n"),
    (b"Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: x\r\n", ""),
    // What Connection names.
    (b"Connection: x-a\r\nX-A: 1\r\nX-B: 2\r\n", "X-B: 2\r\n"),
    (b"X-A: 1\r\nX-B: 2\r\nx-a: 3\r\nConnection: X-a\r\n", "X-B: 2\r\n"),
    (b"Connection: ,x-a , ,\tX-C,\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n", "X-B: 2\r\n"),
    (b"Connection: x-a\r\nX-A: 1\r\nConnection: close\r\nX-B: 2\r\nCONNECTION: x-b\r\n", ""),
    (b"Connection: close, x-a, keep-alive\r\nX-A: 1\r\nClose: 2\r\n", ""),
    (b"Connection: x\r\nX-A: 1\r\nA: b\r\n", "X-A: 1\r\nA: b\r\n"),
    (b"Connection: \"x-a\", x-a;q=1, x-a x-b\r\nX-A: 1\r\nX-B: 2\r\n", "X-A: 1\r\nX-B: 2\r\n"),
    (b"Connection: connection, te\r\nTE: x\r\nA: b\r\n", "A: b\r\n"),
    (
        b"Connection: via, forwarded, trailer\r\nVia: 1.1 x\r\nForwarded: for=x\r\nTrailer: x\r\nA: b\r\n",
        "A: b\r\n",
    ),
    // These are ours whoever names them.
    (b"Connection: Content-Length\r\nContent-Length: 5\r\n", "Content-Length: 5\r\n"),
    (b"Connection: Transfer-Encoding\r\ntransfer-encoding: CHUNKED\r\n", "Transfer-Encoding: chunked\r\n"),
    (b"A: 1\r\nContent-Length: 005\r\nB: 2\r\n", "A: 1\r\nB: 2\r\nContent-Length: 5\r\n"),
    (b"Content-Length: 5\r\nA: 1\r\nContent-Length: 5\r\n", "A: 1\r\nContent-Length: 5\r\n"),
    (b"Content-Length: 9223372036854775807\r\n", "Content-Length: 9223372036854775807\r\n"),
    (b"Content-Length: 0\r\n", "Content-Length: 0\r\n"),
    // Not hop by hop.
    (b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n", "Trailer: X-T\r\nTransfer-Encoding: chunked\r\n"),
    (b"Proxy-Authenticate: Basic\r\nProxy-Status: x\r\n", "Proxy-Authenticate: Basic\r\nProxy-Status: x\r\n"),
    (
        b"Hosts: a\r\nTEX: b\r\nContent-Lengths: 7\r\nT: c\r\n",
        "Hosts: a\r\nTEX: b\r\nContent-Lengths: 7\r\nT: c\r\n",
    ),
];

#[test]
fn what_is_for_one_connection_ends_here() {
    for (lines, expected) in REMOVED {
        let shown = String::from_utf8_lossy(lines);
        assert_eq!(request_lines("POST", lines), *expected, "{shown:?}");
        assert_eq!(response_lines(lines), *expected, "{shown:?}");
    }
}

#[test]
fn what_is_for_us_in_a_request_ends_here() {
    let cases: &[(&[u8], &str)] = &[
        (b"Proxy-Authorization: Basic YTpi\r\nA: b\r\nproxy-authorization: x\r\n", "A: b\r\n"),
        (b"Authorization: Basic YTpi\r\n", "Authorization: Basic YTpi\r\n"),
        (b"Connection: host, proxy-authorization\r\nProxy-Authorization: x\r\n", ""),
        (b"Expect: 100-continue\r\n", "Expect: 100-continue\r\n"),
        (b"Connection: Expect\r\nExpect: 100-continue\r\n", ""),
        (b"Max-Forwards: 3\r\n", "Max-Forwards: 3\r\n"),
        (b"Connection: Max-Forwards\r\nMax-Forwards: 3\r\n", ""),
    ];
    for (lines, expected) in cases {
        assert_eq!(request_lines("PUT", lines), *expected, "{:?}", String::from_utf8_lossy(lines));
    }
    for method in ["TRACE", "OPTIONS"] {
        assert_eq!(request_lines(method, b"Max-Forwards: 3\r\nA: b\r\n"), "A: b\r\nMax-Forwards: 2\r\n");
        assert_eq!(request_lines(method, b"max-forwards: 00010\r\n"), "Max-Forwards: 9\r\n");
        assert_eq!(
            request_lines(method, b"Connection: max-forwards\r\nMax-Forwards: 1\r\n"),
            "Max-Forwards: 0\r\n"
        );
        assert_eq!(request_lines(method, b"Max-Forwards: 0\r\n"), "Max-Forwards: 0\r\n");
        assert_eq!(request_lines(method, b"A: b\r\n"), "A: b\r\n");
    }
    let sent =
        b"PUT http://a.test/ HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\nExpected: x\r\n\r\n";
    assert_eq!(
        text(forwarded(sent, None, None)),
        "PUT / HTTP/1.1\r\nHost: a.test\r\nExpected: x\r\nContent-Length: 1\r\n\r\n"
    );
}

#[test]
fn for_a_response_these_are_fields_like_others() {
    let lines = "Host: x\r\nExpect: 100-continue\r\nMax-Forwards: 3\r\nProxy-Authorization: x\r\n";
    assert_eq!(response_lines(lines.as_bytes()), lines);
}

#[test]
fn an_upgrade_goes_on_with_its_fields() {
    assert_eq!(
        request_lines(
            "GET",
            b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade, X-A\r\nX-A: 1\r\nSec-WebSocket-Key: x\r\nupgrade: b/2\r\n"
        ),
        "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nupgrade: b/2\r\nConnection: upgrade\r\n"
    );
    let sent =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nA: b\r\n\r\n";
    let with = |upgrade: Upgrade| {
        text(passed(sent, AnswerTo::Other, |head| {
            assert_eq!(head.upgrade, Upgrade::Asked);
            ResponseEdit { upgrade, ..plain(head) }
        }))
    };
    let start = "HTTP/1.1 101 Switching Protocols\r\n";
    assert_eq!(
        with(Upgrade::Asked),
        format!("{start}Upgrade: websocket\r\nA: b\r\nConnection: upgrade\r\n\r\n")
    );
    assert_eq!(with(Upgrade::None), format!("{start}A: b\r\n\r\n"));
}

#[test]
fn whole_responses() {
    let nginx = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 615\r\n\
        Connection: keep-alive\r\nVia: 1.1 a\r\nETag: \"x\"\r\n\r\n";
    assert_eq!(
        text(passed(nginx, AnswerTo::Other, |head| ResponseEdit { via: VIA, ..plain(head) })),
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nVia: 1.1 a\r\nETag: \"x\"\r\n\
         Content-Length: 615\r\nVia: 1.1 adit\r\n\r\n"
    );
    let old = b"HTTP/1.0 404\r\nServer: x\r\n\r\n";
    let close =
        |head: &ResponseHead| ResponseEdit { via: VIA, connection: ConnectionHeader::Close, ..plain(head) };
    assert_eq!(
        text(passed(old, AnswerTo::Other, close)),
        "HTTP/1.1 404 \r\nServer: x\r\nConnection: close\r\nVia: 1.0 adit\r\n\r\n"
    );
    let chunked = |head: &ResponseHead| ResponseEdit { framing: Framing::Chunked, ..plain(head) };
    assert_eq!(
        text(passed(old, AnswerTo::Other, chunked)),
        "HTTP/1.1 404 \r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let reason = b"HTTP/1.1 299 caf\xe9\tok \r\n\r\n";
    assert_eq!(passed(reason, AnswerTo::Other, plain), reason);
}

#[test]
fn framing_towards_the_client() {
    let old = Version::Http10;
    let new = Version::Http11;
    let cases = [
        ("200", "Content-Length: 5\r\n", AnswerTo::Other, None, new, "Content-Length: 5\r\n"),
        ("200", "Content-Length: 5\r\n", AnswerTo::Other, None, old, "Content-Length: 5\r\n"),
        (
            "200",
            "Transfer-Encoding: chunked\r\n",
            AnswerTo::Other,
            None,
            new,
            "Transfer-Encoding: chunked\r\n",
        ),
        ("200", "Transfer-Encoding: chunked\r\n", AnswerTo::Other, None, old, ""),
        ("200", "Trailer: X\r\n", AnswerTo::Other, None, new, "Trailer: X\r\n"),
        ("200", "trailer: X\r\nA: b\r\n", AnswerTo::Other, None, old, "A: b\r\n"),
        ("200", "", AnswerTo::Other, None, new, ""),
        ("200", "", AnswerTo::Other, Some(Framing::Chunked), new, "Transfer-Encoding: chunked\r\n"),
        ("200", "", AnswerTo::Other, Some(Framing::Chunked), old, ""),
        ("200", "", AnswerTo::Other, Some(Framing::Length(0)), old, "Content-Length: 0\r\n"),
        ("200", "Content-Length: 5\r\n", AnswerTo::Head, None, new, "Content-Length: 5\r\n"),
        ("200", "Transfer-Encoding: chunked\r\n", AnswerTo::Head, None, new, ""),
        ("200", "", AnswerTo::Head, None, new, ""),
        ("304", "Content-Length: 5\r\n", AnswerTo::Other, None, new, "Content-Length: 5\r\n"),
        ("304", "", AnswerTo::Other, None, new, ""),
        ("204", "Content-Length: 5\r\n", AnswerTo::Other, None, new, ""),
        ("204", "Transfer-Encoding: chunked\r\n", AnswerTo::Other, None, new, ""),
        ("100", "Content-Length: 5\r\n", AnswerTo::Other, None, new, ""),
        ("103", "Link: x\r\nTransfer-Encoding: chunked\r\n", AnswerTo::Other, None, new, "Link: x\r\n"),
    ];
    for (status, lines, to, framing, client_version, expected) in cases {
        let sent = format!("HTTP/1.1 {status} x\r\n{lines}\r\n");
        let edit = |head: &ResponseHead| ResponseEdit {
            framing: framing.unwrap_or(head.framing),
            client_version,
            ..plain(head)
        };
        let expected = format!("HTTP/1.1 {status} x\r\n{expected}\r\n");
        assert_eq!(text(passed(sent.as_bytes(), to, edit)), expected, "{sent:?} {to:?} {client_version:?}");
    }
    let last = |status: &str| {
        let sent = format!("HTTP/1.1 {status} x\r\nConnection: keep-alive\r\n\r\n");
        let edit = |head: &ResponseHead| ResponseEdit { connection: ConnectionHeader::Close, ..plain(head) };
        text(passed(sent.as_bytes(), AnswerTo::Other, edit))
    };
    assert_eq!(last("204"), "HTTP/1.1 204 x\r\nConnection: close\r\n\r\n");
    assert_eq!(last("103"), "HTTP/1.1 103 x\r\n\r\n", "the last response is still to come");
}

/// A request in origin form as our own reader takes it.
fn absolute(origin_form: &[u8]) -> Vec<u8> {
    let text: String = origin_form.iter().map(|&byte| char::from(byte)).collect();
    let (line, rest) = text.split_once("\r\n").unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let host = rest.strip_prefix("Host: ").unwrap().split("\r\n").next().unwrap();
    let path = words[1].strip_prefix('*').unwrap_or(words[1]);
    format!("{} http://{host}{path} {}\r\n{rest}", words[0], words[2])
        .chars()
        .map(|character| u8::try_from(character).unwrap())
        .collect()
}

#[test]
fn what_is_written_is_read_alike() {
    let lines = REMOVED.iter().map(|(lines, _)| *lines);
    let upgrade: &[u8] =
        b"Connection: a, upgrade\r\nUpgrade: x\r\nSec-WebSocket-Key: y\r\nContent-Length: 0\r\n";
    for lines in lines.chain([upgrade, b"Expect: 100-continue\r\nContent-Length: 3\r\n", b"Via: 1.1 x\r\n"]) {
        for url in ["http://a.test", "http://b.test:8080/x?y", "http://[::1]?q", "http://192.0.2.1/*"] {
            for method in ["GET", "OPTIONS", "POST"] {
                let sent =
                    [method.as_bytes(), b" ", url.as_bytes(), b" HTTP/1.1\r\nHost: x\r\n", lines, b"\r\n"];
                let sent = sent.concat();
                let once = forwarded(&sent, None, None);
                assert_eq!(forwarded(&absolute(&once), None, None), once);
                let (mut first, mut second) = (Storage::new(), Storage::new());
                let again = absolute(&once);
                let (Ok(Parsed::Http(read)), Ok(Parsed::Http(reread))) =
                    (head::parse(&sent, &mut first), head::parse(&again, &mut second))
                else {
                    panic!("{:?}", String::from_utf8_lossy(&once))
                };
                assert_eq!((read.method, read.framing), (reread.method, reread.framing));
                assert_eq!((read.upgrade, read.expect), (reread.upgrade, reread.expect));
                let fields = |request: &HttpRequest| -> Vec<(String, Vec<u8>)> {
                    let fields = request.fields.sent_on(request.upgrade);
                    fields.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
                };
                assert_eq!(fields(&read), fields(&reread));
            }
        }
        for line in ["HTTP/1.1 200 OK", "HTTP/1.0 404", "HTTP/1.1 304 x", "HTTP/1.1 204 x", "HTTP/1.1 100 x"]
        {
            let sent = [line.as_bytes(), b"\r\n", lines, b"\r\n"].concat();
            if response::parse(&sent, &mut Storage::new(), AnswerTo::Other).is_err() {
                assert!(line.contains("1.0"), "no transfer codings there");
                continue;
            }
            let once = passed(&sent, AnswerTo::Other, plain);
            assert_eq!(passed(&once, AnswerTo::Other, plain), once);
            let (mut first, mut second) = (Storage::new(), Storage::new());
            let read = response::parse(&sent, &mut first, AnswerTo::Other).unwrap();
            let reread = response::parse(&once, &mut second, AnswerTo::Other).unwrap();
            assert_eq!(
                (read.status, read.reason, read.framing),
                (reread.status, reread.reason, reread.framing)
            );
        }
    }
}

#[test]
fn a_head_grows_by_no_more_than_it_may() {
    let via = "v".repeat(MAX_VIA_BYTES);
    let via: &'static str = Box::leak(via.into_boxed_str());
    let fields = |count: usize| "A:b\r\n".repeat(count);
    let long_name = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    let requests = [
        format!("GET http://[::ffff:ffff:ffff] HTTP/1.0\r\n{}\r\n", fields(MAX_HEADERS)),
        format!("GET http://{long_name} HTTP/1.0\r\n{}\r\n", fields(MAX_HEADERS)),
        format!(
            "GET http://{long_name}:65535?q HTTP/1.0\r\n{}Content-Length:1\r\n\r\n",
            fields(MAX_HEADERS - 1)
        ),
        format!("OPTIONS http://a HTTP/1.0\r\n{}Max-Forwards:1\r\n\r\n", fields(MAX_HEADERS - 1)),
        format!(
            "GET http://a HTTP/1.1\r\nHost:\r\n{}Connection:upgrade\r\nUpgrade:x\r\nContent-Length:0\r\n\r\n",
            fields(MAX_HEADERS - 4)
        ),
        format!(
            "POST http://a HTTP/1.1\r\nHost:\r\n{}Transfer-Encoding:chunked\r\n\r\n",
            fields(MAX_HEADERS - 2)
        ),
    ];
    let longest_address = "1000:1000:1000:1000:1000:1000:1000:1000";
    let mut most = 0;
    for sent in requests {
        let out = forwarded(sent.as_bytes(), Some(via), Some(longest_address));
        most = most.max(out.len() - sent.len());
    }
    assert_eq!(most, 243, "the longest host, a path, a space in each field, Via and Forwarded");
    let edits: [fn(&ResponseHead) -> ResponseEdit<'static>; 4] = [
        |head| ResponseEdit { framing: Framing::Chunked, ..plain(head) },
        |head| ResponseEdit { framing: Framing::Length(u64::MAX), ..plain(head) },
        |head| ResponseEdit { framing: Framing::UntilClose, ..plain(head) },
        |head| ResponseEdit { upgrade: Upgrade::Asked, framing: Framing::Length(u64::MAX), ..plain(head) },
    ];
    let mut most = 0;
    for edit in edits {
        for connection in [ConnectionHeader::Close, ConnectionHeader::KeepAlive] {
            let sent = format!("HTTP/1.0 200\r\n{}\r\n", fields(MAX_HEADERS));
            let out = passed(sent.as_bytes(), AnswerTo::Other, |head| ResponseEdit {
                via: Some(via),
                connection,
                ..edit(head)
            });
            most = most.max(out.len() - sent.len());
        }
    }
    assert_eq!(most, 235, "a space for the reason and in each field, framing, Connection and Via");
    const { assert!(GROWTH_MAX_BYTES >= 243 && GROWTH_MAX_BYTES <= 1024) };
    // A head of the full size is no exception.
    let full = format!("HTTP/1.1 200\r\n{}\r\n", fields(MAX_HEADERS - 1));
    let full = full.replacen("A:b", &format!("A:{}", "b".repeat(MAX_HEAD_BYTES - full.len() + 1)), 1);
    assert_eq!(full.len(), MAX_HEAD_BYTES);
    passed(full.as_bytes(), AnswerTo::Other, |head| ResponseEdit { via: Some(via), ..plain(head) });
}

#[test]
fn nothing_is_allocated_when_there_is_room() {
    let mut out = Vec::with_capacity(MAX_HEAD_BYTES + GROWTH_MAX_BYTES);
    let room = out.as_ptr();
    let mut storage = Storage::new();
    let sent = b"GET http://[::1]:81/ HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    let Ok(Parsed::Http(request)) = head::parse(sent, &mut storage) else { panic!("not read") };
    let target = Target::from_authority(request.authority).unwrap();
    for _ in 0..3 {
        out.clear();
        super::request(&request, &RequestEdit { target: &target, via: VIA, forwarded_for: None }, &mut out);
    }
    assert_eq!(out.as_ptr(), room);
}
