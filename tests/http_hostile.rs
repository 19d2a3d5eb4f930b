//! Origins that lie, stall, talk too much or leave: what they send never becomes another's response, and a response that was cut
//! never looks complete. How a cut shows is also tested straight to the origin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use socket2::SockRef;
use support::client::Answer;
use support::http_origin::ByHand;
use support::proxy::Proxy;
use support::wire::{Framing, Message, Wire, ok, request};
use support::{Beside, Ending, Road, until};

both_roads!(a_response_that_ends_too_early_shows);

fn scene(options: &[&str]) -> (Proxy, ByHand, Wire) {
    let proxy = Proxy::open(options);
    let client = proxy.wire();
    (proxy, ByHand::open(), client)
}

/// Sends a request and takes it at the origin.
#[track_caller]
fn asked(client: &mut Wire, origin: &ByHand, method: &str) -> Wire {
    client.send(request(method, &origin.url("/asked"), ""));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().start, format!("{method} /asked HTTP/1.1"));
    upstream
}

/// A request on this connection is answered by a fresh connection of the origin, which then ends.
#[track_caller]
fn assert_fresh(client: &mut Wire, origin: &ByHand, why: &str) {
    let mut fresh = asked(client, origin, "GET");
    fresh.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfresh");
    assert_eq!(client.read_response("GET").text(), "fresh", "{why}");
}

/// The error type of a refusal behind which the connection may or may not go on; the connection is what it says.
#[track_caller]
fn refused(client: &mut Wire, origin: &ByHand, why: &str) -> (u16, String) {
    let response = client.try_response("GET").unwrap_or_else(|ending| panic!("{why}: no answer, {ending:?}"));
    assert_eq!(response.cut, None, "{why}: {response:?}");
    let raw = [response.raw.as_bytes(), &response.body].concat();
    let said = response.field("connection").unwrap_or_default().to_string();
    let answer = Answer::parse_saying(&said, &raw).unwrap_or_else(|wrong| panic!("{why}: {wrong}"));
    if said == "keep-alive" {
        assert_fresh(client, origin, why);
    } else {
        assert_eq!(client.read_end(), Ending::Eof, "{why}");
    }
    (answer.head.status, answer.error)
}

// More than was asked for.

#[test]
fn bytes_behind_a_response_are_no_response() {
    let (proxy, origin, mut client) = scene(&[]);
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let rows = [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: t\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
    ];
    for (method, response) in rows {
        for surplus in [evil, "evil", "\r\n", "\0", "0\r\n\r\n"] {
            let what = format!("{method} {response:?} with {surplus:?} behind it");
            let mut upstream = asked(&mut client, &origin, method);
            upstream.send(format!("{response}{surplus}"));
            let came = client.read_response(method);
            assert!(
                came.status() != 200 || came.body.is_empty() || came.text() == "good",
                "{what}: {came:?}"
            );
            assert!(came.keeps_alive(), "{what}: {came:?}");
            assert_ne!(upstream.read_end(), Ending::Silence, "{what}");
            assert_fresh(&mut client, &origin, &what);
        }
    }
    assert_eq!(client.waiting(), b"");
    drop(client);
    let lines = proxy.stop().2;
    assert_eq!(lines.len(), rows.len() * 5 * 2, "one line an exchange");
    assert!(!String::from_utf8_lossy(&lines.concat().into_bytes()).contains("evil"));
}

#[test]
fn bytes_that_come_later_are_no_response_either() {
    let (proxy, origin, mut client) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let mut upstream = asked(&mut client, &origin, "GET");
    upstream.send(ok("good"));
    assert_eq!(client.read_response("GET").text(), "good");
    upstream.send(ok("evil"));
    beside.turns();
    assert_ne!(upstream.read_end(), Ending::Silence);
    assert_fresh(&mut client, &origin, "");
}

#[test]
fn who_greets_its_clients_is_not_http() {
    let (proxy, origin, _) = scene(&[]);
    let mut client = proxy.wire();
    client.send(request("POST", &origin.url("/"), "Content-Length: 5\r\n"));
    let mut upstream = origin.accept();
    upstream.send("220 mail.test ESMTP\r\n");
    assert_eq!(refused(&mut client, &origin, "SMTP"), (502, "http_protocol_error".into()));
    // Whether it was sent the request or not.
    assert_ne!(upstream.read_rest().1, Ending::Silence);
}

#[test]
fn two_responses_to_a_pipelined_pair_are_believed_once_asked() {
    let (_proxy, origin, mut client) = scene(&[]);
    // The second request is there before the first is answered, yet the origin has not seen it.
    client.send(request("GET", &origin.url("/one"), "") + &request("GET", &origin.url("/two"), ""));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().start, "GET /one HTTP/1.1");
    upstream.send(ok("one") + &ok("evil"));
    assert_eq!(client.read_response("GET").text(), "one");
    let mut fresh = origin.accept();
    assert_eq!(fresh.read_request().start, "GET /two HTTP/1.1");
    fresh.send(ok("two"));
    assert_eq!(client.read_response("GET").text(), "two");
    assert_ne!(upstream.read_end(), Ending::Silence);
}

// Heads that are not believed.

#[test]
fn heads_that_are_not_http_are_502() {
    let (proxy, origin, _) = scene(&[]);
    let (mut wrong, mut clients) = (vec![], vec![]);
    for head in bad_heads() {
        let shown = String::from_utf8_lossy(&head).into_owned();
        let mut client = proxy.wire();
        let mut upstream = asked(&mut client, &origin, "GET");
        upstream.send(&head);
        // More of the same, which would be a body or the next response.
        upstream.offer("\r\nhello\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        // It may be closed already.
        drop(upstream.stream.shutdown(std::net::Shutdown::Write));
        let got = client.try_response("GET");
        let Ok(response) = got else {
            wrong.push(format!("{shown:?}: {got:?}"));
            continue;
        };
        let status = response.field("proxy-status").unwrap_or_default();
        if response.status() != 502
            || !status.contains("error=http_protocol_error")
            || response.text().contains("evil")
        {
            wrong.push(format!("{shown:?}: {:?} {:?}", response.raw, response.text()));
        }
        if upstream.read_rest().1 == Ending::Silence {
            wrong.push(format!("{shown:?}: the connection to the origin is kept"));
        }
        if response.keeps_alive() {
            assert_fresh(&mut client, &origin, &shown);
        }
        clients.push((client.local, shown));
    }
    // Access lines are written in batches.
    for (client, shown) in clients {
        let access = proxy.access_of(client);
        if (access.status.as_str(), access.end.as_str()) != ("502", "http_protocol_error") {
            wrong.push(format!("{shown:?}: {}", access.line));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Heads, each complete.
fn bad_heads() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![];
    for line in [
        "",
        "SSH-2.0-OpenSSH_9.9",
        "ICY 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/11 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\x01K",
        "HTTP/1.1 200 O\rK",
        "GET / HTTP/1.1",
        "hello, world",
        "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03",
    ] {
        all.push(format!("{line}\r\nContent-Length: 5\r\n\r\n").into_bytes());
    }
    for fields in [
        "Content-Length: 5\nX: y",
        "Content-Length: 5\r\nX: a\rb",
        "Content-Length: 5\r\nX: a\r",
        "Content-Length: 5\r\nX: a\r\n b",
        "Content-Length: 5\r\nX: a\r\n\tb",
        "X: a\r\n Content-Length: 5",
        " Content-Length: 5",
        "\tX: y\r\nContent-Length: 5",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content-Length 5",
        ": 5\r\nContent-Length: 5",
        "X y: z\r\nContent-Length: 5",
        "X(y): z\r\nContent-Length: 5",
        "X\0: y\r\nContent-Length: 5",
        "X: a\0b\r\nContent-Length: 5",
        "X: a\x01b\r\nContent-Length: 5",
        "X: a\x7fb\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length:",
        "Content-Length:",
        "Content-Length: five",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5;",
        "Content-Length: 5.0",
        "Content-Length: \"5\"",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999999999999999999999999999999",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: identity\r\nContent-Length: 5",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
    ] {
        all.push(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").into_bytes());
    }
    all.push(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    all.push(b"HTTP/1.1 200 OK\nContent-Length: 5\n\n".to_vec());
    all.push(b"HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n".to_vec());
    all.push(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n".to_vec());
    // A body that is ended by nothing that may have one.
    all.push(b"HTTP/1.1 204 No\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    all
}

#[test]
fn a_101_that_nobody_asked_for_is_502() {
    let (proxy, origin, _) = scene(&[]);
    for head in ["Connection: Upgrade\r\nUpgrade: websocket\r\n", ""] {
        let mut client = proxy.wire();
        let mut upstream = asked(&mut client, &origin, "GET");
        upstream.send(format!("HTTP/1.1 101 Switching Protocols\r\n{head}\r\nevil"));
        assert_eq!(refused(&mut client, &origin, head), (502, "http_protocol_error".into()));
        assert_ne!(upstream.read_end(), Ending::Silence);
    }
}

#[test]
fn endless_heads_end_in_502() {
    let (proxy, origin, _) = scene(&[]);
    for (first, more) in [
        ("HTTP/1.1 200 OK\r\n", "X-Y: z\r\n".repeat(1000)),
        ("HTTP/1.1 200 OK\r\n", format!("X-{}: z\r\n", "y".repeat(8000))),
        ("HTTP/1.1 200 OK\r\nX: ", "x".repeat(8000)),
        ("HTTP/1.1 200 ", "O".repeat(8000)),
        ("", "H".repeat(8000)),
        ("HTTP/1.1 103 Early Hints\r\n", "Link: </a>\r\n".repeat(1000)),
    ] {
        let mut client = proxy.wire();
        let mut upstream = asked(&mut client, &origin, "GET");
        let before = proxy.resident_kib();
        upstream.send(first);
        // As far as it is let: it must not be let for ever.
        let mut sent = 0;
        while upstream.offer(&more) {
            sent += more.len();
            assert!(sent < 64 << 20, "nobody stops it");
        }
        assert!(proxy.resident_kib() <= before + 1024, "{} KiB after {before}", proxy.resident_kib());
        let (status, error) = refused(&mut client, &origin, first);
        assert!(status == 502 && error.starts_with("http_"), "{first:?}: {status} {error}");
    }
}

#[test]
fn a_flood_of_informational_responses_ends() {
    let (proxy, origin, mut client) = scene(&[]);
    let mut upstream = asked(&mut client, &origin, "GET");
    let before = proxy.resident_kib();
    let flood = std::thread::spawn(move || {
        let more = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100);
        let mut sent = 0;
        while sent < 64 << 20 && upstream.offer(&more) {
            sent += more.len();
        }
        sent
    });
    let mut count = 0;
    let last = loop {
        match client.try_head() {
            Ok(head) if head.status() == 103 => count += 1,
            Ok(head) => break Ok(head),
            Err(ending) => break Err(ending),
        }
    };
    let sent = flood.join().unwrap();
    assert!(sent < 64 << 20, "{count} were passed on and nobody stopped it");
    let head = last.expect("it ends in an answer");
    assert_eq!(head.status(), 502, "after {count}: {head:?}");
    assert!(proxy.resident_kib() <= before + 1024, "{} KiB after {before}", proxy.resident_kib());
}

// Bodies that are not believed.

#[test]
fn chunks_that_are_not_plain_leave_the_response_cut() {
    let (proxy, origin, _) = scene(&[]);
    let mut wrong = vec![];
    for bad in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        ";ext\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello, world\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000000000000000000000000000000000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: a\0b\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\r\n",
    ] {
        for early in ["", "4\r\ngood\r\n"] {
            let mut client = proxy.wire();
            let mut upstream = asked(&mut client, &origin, "GET");
            upstream.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{early}"));
            if !early.is_empty() {
                // Now the status is out.
                assert_eq!(client.read_head().status(), 200);
                assert_eq!(client.read_n(9), early.as_bytes());
            }
            upstream.offer(format!("{bad}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"));
            let seen = if early.is_empty() {
                client.try_response("GET")
            } else {
                let mut rest = Message { framing: Framing::Chunked, ..blank() };
                client.read_body(&mut rest);
                Ok(rest)
            };
            let fine = match &seen {
                Ok(message) if message.start.contains(" 502 ") => message.cut.is_none(),
                Ok(message) => message.cut.is_some() && !message.text().contains("evil"),
                Err(_) => false,
            };
            if !fine {
                wrong.push(format!("{bad:?} behind {early:?}: {seen:?}"));
            }
            if upstream.read_rest().1 == Ending::Silence {
                wrong.push(format!("{bad:?} behind {early:?}: the connection to the origin is kept"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn blank() -> Message {
    Message {
        start: String::new(),
        fields: vec![],
        raw: String::new(),
        framing: Framing::None,
        body: vec![],
        trailers: vec![],
        cut: None,
    }
}

#[test]
fn endless_trailers_and_extensions_end() {
    let (proxy, origin, _) = scene(&[]);
    for more in ["0\r\n".to_string() + &"X: y\r\n".repeat(100_000), "5;".to_string() + &"x".repeat(1 << 20)] {
        let mut client = proxy.wire();
        let mut upstream = asked(&mut client, &origin, "GET");
        let before = proxy.resident_kib();
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        upstream.offer(&more);
        let response = client.try_response("GET").unwrap();
        assert!(response.cut.is_some() || response.status() == 502, "{:?}", response.raw);
        assert!(proxy.resident_kib() <= before + 1024, "{} KiB after {before}", proxy.resident_kib());
    }
}

// Origins that leave.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    InOrder,
    WithReset,
}

/// Every point of a response at which it is not complete: what was sent by then.
const POINTS: [(&str, &str); 17] = [
    ("nothing", ""),
    ("in the version", "HT"),
    ("in the status line", "HTTP/1.1 200 O"),
    ("behind the status line", "HTTP/1.1 200 OK\r\n"),
    ("in a field", "HTTP/1.1 200 OK\r\nContent-Le"),
    ("before the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
    ("in the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r"),
    ("behind an informational response", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ("behind the head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("in a body with a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
    ("behind a chunked head", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("in a chunk's size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5"),
    ("in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell"),
    ("behind a chunk's data", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"),
    ("behind a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ("behind the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
    ("in the trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n"),
];

fn a_response_that_ends_too_early_shows(road: &Road) {
    let mut cut = vec![];
    for (place, sent) in POINTS {
        for how in [Leaves::InOrder, Leaves::WithReset] {
            let what = format!("{place}, {how:?}");
            let origin = ByHand::open();
            let mut client = road.http(origin.addr);
            client.get(&road.target(origin.addr, "/"));
            let mut upstream = origin.accept();
            upstream.read_request();
            upstream.send(sent);
            match how {
                Leaves::InOrder => drop(upstream),
                Leaves::WithReset => {
                    // A reset throws away what the proxy has not read: so that it has, in the places where it can be seen.
                    if sent.starts_with("HTTP/1.1 200 OK") && sent.contains("\r\n\r\n") {
                        until("the head to arrive", || (!client_has(&mut client).is_empty()).then_some(()));
                    }
                    upstream.reset();
                }
            }
            let mut seen = client.try_response("GET");
            if matches!(&seen, Ok(hint) if hint.status() == 103) {
                seen = client.try_response("GET");
            }
            match (road, seen) {
                (Road::Direct, Err(_)) => {}
                (Road::Direct, Ok(response)) => assert!(response.cut.is_some(), "{what}: {response:?}"),
                (Road::Through(_), Ok(response)) if response.status() == 502 => {
                    let status = response.field("proxy-status").unwrap();
                    assert!(status.contains("error=http_response_incomplete"), "{what}: {status}");
                    assert_eq!(response.cut, None, "{what}: {response:?}");
                }
                (Road::Through(_), Ok(response)) => {
                    assert!(response.cut.is_some(), "{what}: {response:?}");
                    cut.push((client.local, what));
                }
                (Road::Through(_), Err(ending)) => panic!("{what}: {ending:?} without an answer"),
            }
            origin.assert_not_dialed();
        }
    }
    for (client, what) in cut {
        let Road::Through(proxy) = road else { continue };
        let access = proxy.access_of(client);
        assert_ne!(access.end, "done", "{what}: {}", access.line);
    }
}

/// What is there for the client, without taking it.
fn client_has(client: &mut Wire) -> Vec<u8> {
    client.waiting().to_vec()
}

#[test]
fn a_reset_in_a_body_until_close_reaches_the_client_as_one() {
    let (proxy, origin, _) = scene(&[]);
    for (head, body) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "some"),
        ("HTTP/1.0 200 OK\r\n\r\n", "some"),
        ("HTTP/1.1 200 OK\r\n\r\n", ""),
    ] {
        let mut client = proxy.wire();
        let mut upstream = asked(&mut client, &origin, "GET");
        upstream.send(format!("{head}{body}"));
        let mut response = client.read_head();
        client.read_n(body.len());
        upstream.reset();
        let chunked = response.field("transfer-encoding").is_some();
        response.framing = if chunked { Framing::Chunked } else { Framing::UntilClose };
        client.read_body(&mut response);
        assert!(response.cut.is_some(), "{head:?}: {response:?}");
        assert!(chunked || response.cut == Some(Ending::Reset), "a FIN would look complete: {response:?}");
        assert_eq!(proxy.access_of(client.local).end, "upstream_reset");
    }
}

#[test]
fn what_came_of_a_cut_body_arrives_whatever_the_client_sends_meanwhile() {
    let (proxy, origin, mut client) = scene(&[]);
    // Most of it waits in the proxy's socket.
    SockRef::from(&client.stream).set_recv_buffer_size(4096).unwrap();
    client.send(request("POST", &origin.url("/"), "Content-Length: 20\r\n") + "0123456789");
    let mut upstream = origin.accept();
    upstream.read_head();
    upstream.read_n(10);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
    upstream.send([7; 200_000]);
    drop(upstream);
    assert_eq!(client.read_head().status(), 200);
    assert_eq!(proxy.access_of(client.stream.local_addr().unwrap()).end, "http_response_incomplete");
    client.send("abcdefghij");
    let (body, ending) = client.read_rest();
    assert_eq!((body.len(), ending), (200_000, Ending::Eof));
}

#[test]
fn a_cut_chunked_body_reaches_an_http_1_0_client_as_a_reset() {
    let (proxy, origin, _) = scene(&[]);
    for how in [Leaves::InOrder, Leaves::WithReset] {
        let mut client = proxy.wire();
        client.send(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/")));
        let mut upstream = origin.accept();
        upstream.read_request();
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let mut response = client.read_head();
        assert_eq!(client.read_n(5), b"hello");
        match how {
            Leaves::InOrder => drop(upstream),
            Leaves::WithReset => upstream.reset(),
        }
        response.framing = Framing::UntilClose;
        client.read_body(&mut response);
        assert_eq!(
            response.cut,
            Some(Ending::Reset),
            "{how:?}: unchunked, its end is the end of the connection"
        );
    }
}

#[test]
fn an_origin_that_closes_right_after_accept() {
    let (proxy, origin, mut client) = scene(&[]);
    let mut ends = vec![];
    for n in 0..20 {
        client.get(&origin.url("/"));
        let upstream = origin.accept();
        if n % 2 == 0 {
            drop(upstream)
        } else {
            upstream.reset()
        }
        let answer = client.read_open_refusal();
        // A reset may be there before the proxy has found that the connection stands.
        let may_be = if n % 2 == 0 { "http_response_incomplete" } else { "connection_terminated" };
        assert_eq!(answer.head.status, 502);
        assert!([may_be, "http_response_incomplete"].contains(&answer.error.as_str()), "{}", answer.error);
        ends.push(answer.error);
        origin.assert_not_dialed();
    }
    for end in ends {
        let access = proxy.access_of(client.local);
        assert_eq!((access.status, access.end), ("502".into(), end));
    }
}

// Origins that stall.

#[test]
fn a_head_that_never_ends_is_504() {
    let (_proxy, origin, mut client) = scene(&["--response-timeout", "1"]);
    let mut upstream = asked(&mut client, &origin, "GET");
    upstream.send("HTTP/1.1 200 OK\r\nContent-");
    assert_eq!(refused(&mut client, &origin, "").0, 504);
    assert_ne!(upstream.read_end(), Ending::Silence);
}

#[test]
fn a_body_that_stalls_is_cut_after_idle_timeout() {
    let (proxy, origin, _) = scene(&["--idle-timeout", "1"]);
    let mut scenes = vec![];
    for (version, head) in [
        ("1.1", "Content-Length: 10\r\n\r\nhello"),
        ("1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("1.0", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("1.1", "X: until close\r\n\r\nhello"),
    ] {
        let mut client = proxy.wire();
        client.send(request("GET", &origin.url("/"), "").replace("HTTP/1.1", &format!("HTTP/{version}")));
        let mut upstream = origin.accept();
        upstream.read_request();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{head}"));
        scenes.push((head, client, upstream));
    }
    let begun = Instant::now();
    for (head, client, upstream) in &mut scenes {
        let response = client.try_response("GET").unwrap();
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"), "{head:?}");
        match response.framing {
            Framing::Length | Framing::Chunked => assert!(response.cut.is_some(), "{head:?}: {response:?}"),
            Framing::UntilClose => assert_eq!(response.cut, Some(Ending::Reset), "{head:?}: {response:?}"),
            Framing::None => panic!("{response:?}"),
        }
        assert_ne!(upstream.read_end(), Ending::Silence, "{head:?}");
        assert_eq!(proxy.access_of(client.local).end, "idle_timeout", "{head:?}");
    }
    assert!(begun.elapsed() > Duration::from_millis(900) && begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn an_origin_that_never_reads_can_still_answer() {
    let (proxy, origin, mut client) = scene(&[]);
    client.send(request("POST", &origin.url("/"), "Content-Length: 100000000\r\n"));
    let mut upstream = origin.accept();
    upstream.read_head();
    let before = proxy.resident_kib();
    let mut stream = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let mut sent = 0;
        while sent < 100_000_000 && std::io::Write::write_all(&mut stream, &[b'x'; 10_000]).is_ok() {
            sent += 10_000;
        }
        sent
    });
    // Long before it has all been taken.
    upstream.send("HTTP/1.1 413 Too much\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    let response = client.read_response("POST");
    assert_eq!((response.status(), response.text().as_str()), (413, "no"));
    assert!(!response.keeps_alive(), "{response:?}");
    assert!(proxy.resident_kib() <= before + 2048, "{} KiB after {before}", proxy.resident_kib());
    drop(upstream);
    assert!(sender.join().unwrap() < 100_000_000, "nobody takes all that for nothing");
}

#[test]
fn an_origin_that_neither_reads_nor_answers_is_given_up() {
    let (proxy, origin, mut client) = scene(&["--response-timeout", "1", "--idle-timeout", "1"]);
    client.send(request("POST", &origin.url("/"), "Content-Length: 100000000\r\n"));
    let mut upstream = origin.accept();
    upstream.read_head();
    let mut stream = client.stream.try_clone().unwrap();
    let sender =
        std::thread::spawn(move || while std::io::Write::write_all(&mut stream, &[b'x'; 10_000]).is_ok() {});
    let response = client.read_response("POST");
    assert_eq!(response.status(), 504, "{response:?}");
    assert_eq!(proxy.access_of(client.local).end, "http_response_timeout");
    drop(upstream);
    sender.join().unwrap();
}
