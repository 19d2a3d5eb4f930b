//! Clients that are ambiguous, try to smuggle, dribble, or leave: a request that could be read in two ways is refused, nothing
//! behind it is believed, and what nobody waits for is released.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::client::Answer;
use support::http_origin::ByHand;
use support::proxy::Proxy;
use support::wire::{Framing, Wire, ok, request};
use support::{Beside, Ending};

fn scene(options: &[&str]) -> (Proxy, ByHand, Wire) {
    let proxy = Proxy::open(options);
    let client = proxy.wire();
    (proxy, ByHand::open(), client)
}

/// What must never arrive.
fn smuggled(origin: &ByHand) -> String {
    request("GET", &origin.url("/smuggled"), "")
}

/// Ambiguous heads: `URL` and `HOST` stand for the origin's. Each is complete, and what stands behind it is not its own.
fn ambiguous_heads() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![];
    for line in [
        "GET  URL HTTP/1.1",
        "GET URL  HTTP/1.1",
        " GET URL HTTP/1.1",
        "GET\tURL HTTP/1.1",
        "GET URL\tHTTP/1.1",
        "GET URL HTTP/1.1 ",
        "GET URL HTTP/1.1 x",
        "GET URL x HTTP/1.1",
        "GET URL",
        "GET",
        "URL",
        "GET URL HTTP/",
        "GET URL HTTP/1.",
        "GET URL http/1.1",
        "GET URL HTTP/1.1\r",
        "GET URL\0 HTTP/1.1",
        "GET URL\x01 HTTP/1.1",
        "GET URL\x7f HTTP/1.1",
        "GET URLa b HTTP/1.1",
        "GET URL\rX: y HTTP/1.1",
        "G\0T URL HTTP/1.1",
        "G(T URL HTTP/1.1",
        "GET: URL HTTP/1.1",
        "GET / HTTP/1.1",
        "GET /?http://HOST/ HTTP/1.1",
        "GET * HTTP/1.1",
        "GET HOST HTTP/1.1",
        "GET //HOST/ HTTP/1.1",
        "GET http:/HOST/ HTTP/1.1",
        "GET http:HOST/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET https://HOST/ HTTP/1.1",
        "GET ftp://HOST/ HTTP/1.1",
        "GET xhttp://HOST/ HTTP/1.1",
        "GET http://a b/ HTTP/1.1",
        "GET URL#fragment HTTP/1.1",
    ] {
        all.push(format!("{line}\r\nHost: HOST\r\n\r\n").into_bytes());
    }
    for fields in [
        // Host: one, and in HTTP/1.1 not none.
        "",
        "X: y\r\n",
        "Host: HOST\r\nHost: HOST\r\n",
        "Host: HOST\r\nHost: a.test\r\n",
        "Host: HOST\r\nhost: HOST\r\n",
        // Lines.
        "Host: HOST\nX: y\r\n",
        "Host: HOST\r\nX: y\n",
        "Host: HOST\r\nX: a\rb\r\n",
        "Host: HOST\r\nX: a\r\r\n",
        "Host: HOST\r\nX: a\r\n b\r\n",
        "Host: HOST\r\nX: a\r\n\tb\r\n",
        "Host: HOST\r\nX:\r\n y\r\n",
        " Host: HOST\r\n",
        "\tX: y\r\nHost: HOST\r\n",
        " X: y\r\nHost: HOST\r\n",
        "Host : HOST\r\n",
        "Host: HOST\r\nX : y\r\n",
        "Host: HOST\r\nX\t: y\r\n",
        "Host: HOST\r\nX y\r\n",
        "Host: HOST\r\nno colon\r\n",
        "Host: HOST\r\n: y\r\n",
        "Host: HOST\r\nX y: z\r\n",
        "Host: HOST\r\nX\0: y\r\n",
        "Host: HOST\r\nX: \0\r\n",
        "Host: HOST\r\nX: a\x01b\r\n",
        "Host: HOST\r\nX: a\x08b\r\n",
        "Host: HOST\r\nX: a\x0bb\r\n",
        "Host: HOST\r\nX: a\x7fb\r\n",
        "Host: HOST\r\nX[]: y\r\n",
        // Lengths.
        "Host: HOST\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "Host: HOST\r\nContent-Length: 0\r\nContent-Length: 44\r\n",
        "Host: HOST\r\nContent-Length: 44\r\nContent-Length: 0\r\n",
        "Host: HOST\r\nContent-Length: 0, 44\r\n",
        "Host: HOST\r\nContent-Length: 0,0\r\n",
        "Host: HOST\r\nContent-Length: 0, 0\r\n",
        "Host: HOST\r\nContent-Length: ,0\r\n",
        "Host: HOST\r\nContent-Length:\r\n",
        "Host: HOST\r\nContent-Length: \r\nContent-Length: 0\r\n",
        "Host: HOST\r\nContent-Length: +0\r\n",
        "Host: HOST\r\nContent-Length: -1\r\n",
        "Host: HOST\r\nContent-Length: -0\r\n",
        "Host: HOST\r\nContent-Length: 0x0\r\n",
        "Host: HOST\r\nContent-Length: 0x2c\r\n",
        "Host: HOST\r\nContent-Length: 4 4\r\n",
        "Host: HOST\r\nContent-Length: 0;\r\n",
        "Host: HOST\r\nContent-Length: 0.0\r\n",
        "Host: HOST\r\nContent-Length: 1e1\r\n",
        "Host: HOST\r\nContent-Length: 0_0\r\n",
        "Host: HOST\r\nContent-Length: \"0\"\r\n",
        "Host: HOST\r\nContent-Length: zero\r\n",
        "Host: HOST\r\nContent-Length: 18446744073709551616\r\n",
        "Host: HOST\r\nContent-Length: 18446744073709551660\r\n",
        "Host: HOST\r\nContent-Length: 99999999999999999999999999999999999999\r\n",
        "Host: HOST\r\nContent-Length : 0\r\n",
        "Host: HOST\r\nContent-Length: 0\x0b\r\n",
        // Both.
        "Host: HOST\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 44\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Host: HOST\r\nContent-Length: 4\r\nTransfer-Encoding:\tchunked\r\n",
        "Host: HOST\r\nContent-Length: 4\r\ntransfer-encoding: CHUNKED\r\n",
        "Host: HOST\r\nContent-Length: 4\r\nConnection: Content-Length\r\nTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nContent-Length: 4\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: identity\r\n",
        "Host: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: xchunked\r\n",
        "Host: HOST\r\nContent-Length: 4\r\nTransfer-Encoding:\r\n",
        // Transfer-Encoding in another dress (TE.TE).
        "Host: HOST\r\nTransfer-Encoding: xchunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunkedx\r\n",
        "Host: HOST\r\nTransfer-Encoding : chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding\t: chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding\r\n: chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding:\r\n chunked\r\n",
        "Host: HOST\r\n Transfer-Encoding: chunked\r\n",
        "Host: HOST\r\nX: y\nTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nX: y\rTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nX: \"y\r\nTransfer-Encoding: chunked\"\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Host: HOST\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Host: HOST\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked, chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: gzip, chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked, gzip\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked, identity\r\n",
        "Host: HOST\r\nTransfer-Encoding: identity, chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: identity\r\n",
        "Host: HOST\r\nTransfer-Encoding: gzip\r\n",
        "Host: HOST\r\nTransfer-Encoding:\r\n",
        "Host: HOST\r\nTransfer-Encoding: ,chunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked,\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked;x=y\r\n",
        "Host: HOST\r\nTransfer-Encoding: \"chunked\"\r\n",
        "Host: HOST\r\nTransfer-Encoding: 'chunked'\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked x\r\n",
        "Host: HOST\r\nTransfer-Encoding: chun ked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunk\r\n",
        "Host: HOST\r\nTransfer-Encoding: \x0bchunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\x0b\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\x0c\r\n",
        "Host: HOST\r\nTransfer-Encoding: chunked\0\r\n",
        "Host: HOST\r\nTransfer-Encoding: \u{212a}hunked\r\n",
        "Host: HOST\r\nTransfer-Encoding: chun\u{212a}ed\r\n",
        "Host: HOST\r\nTransfer-Encoding\0: chunked\r\n",
    ] {
        all.push(format!("POST URL HTTP/1.1\r\n{fields}\r\n").into_bytes());
    }
    for head in [
        "POST URL HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST URL HTTP/1.0\r\nHost: HOST\r\nHost: HOST\r\n\r\n",
        "POST URL HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        "GET URL HTTP/1.1\nHost: HOST\n\n",
        "GET URL HTTP/1.1\r\nHost: HOST\n\n",
        "GET URL HTTP/1.1\r\nHost: HOST\r\n\n",
        "GET URL HTTP/1.1\nHost: HOST\r\n\r\n",
        "GET URL HTTP/1.1\r\rHost: HOST\r\r",
        "GET URL HTTP/2.0\r\nHost: HOST\r\n\r\n",
        "GET URL HTTP/0.9\r\nHost: HOST\r\n\r\n",
        "GET URL HTTP/1.2\r\nHost: HOST\r\n\r\n",
        "GET URL HTTP/1.10\r\nHost: HOST\r\n\r\n",
        "GET URL HTTP/11\r\nHost: HOST\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n",
    ] {
        all.push(head.as_bytes().to_vec());
    }
    all.push(b"GET URL\xff HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec());
    all.push(b"POST URL HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\xa0\r\n\r\n".to_vec());
    all.push(b"POST URL HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding:\xa0chunked\r\n\r\n".to_vec());
    all.push(b"POST URL HTTP/1.1\r\nHost: HOST\r\nContent-Length: \xb2\r\n\r\n".to_vec());
    all
}

/// What an ambiguous message is answered with.
fn is_refusal(status: u16) -> bool {
    matches!(status, 400 | 501 | 505)
}

#[test]
fn an_ambiguous_head_is_refused_and_nothing_behind_it_is_believed() {
    let (proxy, origin, _) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let (mut wrong, mut clients) = (vec![], vec![]);
    for head in ambiguous_heads() {
        let shown = String::from_utf8_lossy(&head).into_owned();
        let head = replace(
            &replace(&head, b"URL", origin.url("/").as_bytes()),
            b"HOST",
            origin.addr.to_string().as_bytes(),
        );
        let mut client = proxy.wire();
        // As a body of either framing it would be one, and then another request.
        client.send([&head[..], b"0\r\n\r\n", smuggled(&origin).as_bytes()].concat());
        let (raw, ending) = client.read_rest();
        match Answer::parse(&raw) {
            Err(what) => wrong.push(format!("{shown:?}: {what}")),
            Ok(answer) => {
                if !is_refusal(answer.head.status) || answer.error != "http_request_error" {
                    wrong.push(format!("{shown:?}: {:?}", answer.head.raw));
                }
                if answer.body.contains("smuggled") || answer.head.raw.contains("smuggled") {
                    wrong.push(format!("{shown:?} is told back"));
                }
            }
        }
        if ending != Ending::Eof {
            wrong.push(format!("{shown:?}: {ending:?}"));
        }
        clients.push((client.local, shown));
    }
    beside.turns();
    origin.assert_not_dialed();
    for (client, shown) in &clients {
        let access = proxy.access_of(*client);
        if !access.status.parse().is_ok_and(is_refusal) || access.end != "http_request_error" {
            wrong.push(format!("{shown:?}: {}", access.line));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), clients.len(), wrong.join("\n"));
    drop(beside);
    assert_eq!(proxy.stop().2.len(), clients.len() + 1, "one line a request, and that of the tunnel");
}

#[test]
fn a_target_that_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_believed() {
    let (proxy, origin, _) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let mut wrong = vec![];
    for target in [
        "http://:80/",
        "http://user@HOST/",
        "http://user:word@HOST/",
        "http://@HOST/",
        "http://HOST@127.0.0.1/",
        "http://HOST\\@a.test/",
        "http://HOST%00/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:+80/",
        "http://127.0.0.1:80a/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://[::1/",
        "http://[::1]x/",
        "http://[::1%25lo]/",
        "http://::1/",
        "http://[127.0.0.1]/",
        "http://%31%32%37.0.0.1/",
    ] {
        let mut client = proxy.wire();
        let url = target.replace("HOST", &origin.addr.to_string());
        client.send(format!("GET {url} HTTP/1.1\r\nHost: {}\r\n\r\n{}", origin.addr, smuggled(&origin)));
        beside.turns();
        // Nothing more comes from here: whoever waits for another request ends, too.
        client.finish();
        if origin.was_dialed() {
            wrong.push(format!("{target:?}: what stood behind it is processed"));
            origin.accept();
        }
        let (raw, ending) = client.read_rest();
        match Answer::parse(&raw) {
            Ok(answer) if answer.head.status == 400 && ending == Ending::Eof => {}
            other => wrong.push(format!("{target:?}: {ending:?} {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut all = vec![];
    let mut rest = text;
    while let Some(at) = rest.windows(what.len()).position(|part| part == what) {
        all.extend_from_slice(&rest[..at]);
        all.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    all.extend_from_slice(rest);
    all
}

/// Chunked bodies that could be read in two ways; `SMUGGLED` is a request. A reader of one kind sees it inside the body, another
/// behind it.
const AMBIGUOUS_CHUNKS: [&str; 39] = [
    // Sizes.
    "0x0\r\n\r\nSMUGGLED",
    "-1\r\n\r\nSMUGGLED",
    "+0\r\n\r\nSMUGGLED",
    " 0\r\n\r\nSMUGGLED",
    "0 \r\n\r\nSMUGGLED",
    "0\t\r\n\r\nSMUGGLED",
    "\r\n\r\nSMUGGLED",
    ";\r\n\r\nSMUGGLED",
    "g\r\n\r\nSMUGGLED",
    "0_\r\n\r\nSMUGGLED",
    "0\0\r\n\r\nSMUGGLED",
    "10000000000000000\r\n\r\nSMUGGLED",
    "100000000000000005\r\nhello\r\n0\r\n\r\nSMUGGLED",
    "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF\r\n\r\nSMUGGLED",
    "-ffffffffffffffff\r\nSMUGGLED",
    "00000000000000000000000000000000000000000000000000000000000000\r\n\r\nSMUGGLED",
    // Line ends of the size, of the data and of the end.
    "0\n\nSMUGGLED",
    "0\n\r\nSMUGGLED",
    "0\r\n\nSMUGGLED",
    "0\r\r\nSMUGGLED",
    "0\r\n\rSMUGGLED",
    "0\rX\r\n\r\nSMUGGLED",
    "5\nhello\r\n0\r\n\r\nSMUGGLED",
    "5\r\nhello\n0\r\n\r\nSMUGGLED",
    "5\r\nhello\r0\r\n\r\nSMUGGLED",
    "5\r\nhello0\r\n\r\nSMUGGLED",
    "5\r\nhello, world\r\n0\r\n\r\nSMUGGLED",
    "4\r\nhello\r\n0\r\n\r\nSMUGGLED",
    // Extensions: TERM.EXT, EXT.TERM and spilled ones.
    "2;\nxx\r\n4c\r\n0\r\n\r\nSMUGGLED",
    "2;a\nxx\r\n0\r\n\r\nSMUGGLED",
    "2;\rxx\r\n0\r\n\r\nSMUGGLED",
    "2;a\rb\r\nxx\r\n0\r\n\r\nSMUGGLED",
    "0;\n\nSMUGGLED",
    "0;a\0\r\n\r\nSMUGGLED",
    "2;a=\"\n\"\r\nxx\r\n0\r\n\r\nSMUGGLED",
    // Trailers.
    "0\r\nX : y\r\n\r\nSMUGGLED",
    "0\r\n X: y\r\n\r\nSMUGGLED",
    "0\r\nX: y\nZ: z\r\n\r\nSMUGGLED",
    "0\r\nGET / HTTP/1.1\r\n\r\nSMUGGLED",
];

#[test]
fn an_ambiguous_body_is_refused_and_nothing_behind_it_is_believed() {
    let (proxy, origin, _) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let mut wrong = vec![];
    for bad in AMBIGUOUS_CHUNKS {
        for early in ["", "3\r\nabc\r\n"] {
            let mut client = proxy.wire();
            let head = request("POST", &origin.url("/post"), "Transfer-Encoding: chunked\r\n") + early;
            let mut upstream = None;
            if early.is_empty() {
                // All in one: the origin may never hear of it.
                client.send(head + &bad.replace("SMUGGLED", &smuggled(&origin)));
            } else {
                client.send(head);
                let mut wire = origin.accept();
                let mut arrived = wire.read_head();
                assert_eq!(wire.read_n(8), early.as_bytes());
                arrived.framing = Framing::Chunked;
                client.send(bad.replace("SMUGGLED", &smuggled(&origin)));
                upstream = Some((wire, arrived));
            }
            let (raw, ending) = client.read_rest();
            match Answer::parse(&raw) {
                Ok(answer) if answer.head.status == 400 && ending == Ending::Eof => {}
                other => wrong.push(format!("{bad:?} behind {early:?}: {ending:?} {other:?}")),
            }
            beside.turns();
            if upstream.is_none() && origin.was_dialed() {
                let mut wire = origin.accept();
                // It may have left before it said a word.
                upstream = wire.try_head().ok().map(|mut arrived| {
                    arrived.framing = Framing::Chunked;
                    (wire, arrived)
                });
            }
            if let Some((mut wire, mut arrived)) = upstream {
                wire.read_body(&mut arrived);
                let all = String::from_utf8_lossy(wire.received()).into_owned();
                if arrived.cut.is_none_or(|ending| ending == Ending::Silence) {
                    wrong.push(format!(
                        "{bad:?} behind {early:?} looks complete to the origin, or stays: {all:?}"
                    ));
                }
                if all.contains("/smuggled") {
                    wrong.push(format!("{bad:?} behind {early:?} reaches the origin: {all:?}"));
                }
            }
            origin.assert_not_dialed();
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_looks_like_a_request_in_a_body_is_a_body() {
    let (_proxy, origin, mut client) = scene(&[]);
    let inside = smuggled(&origin);
    let chunk = format!("{:x};ext\r\n{inside}\r\n0\r\n\r\n", inside.len());
    let rows = [
        (format!("Content-Length: {}\r\n", inside.len()), inside.clone(), inside.clone()),
        (format!("Content-Length: {}\r\n", chunk.len()), chunk.clone(), chunk.clone()),
        (String::from("Transfer-Encoding: chunked\r\n"), chunk, inside.clone()),
        // White space around a value is none of the value (RFC 9110 5.5).
        (String::from("Transfer-Encoding:\t chunked \t\r\n"), String::from("0\r\n\r\n"), String::new()),
        (String::from("Content-Length:\t0 \r\n"), String::new(), String::new()),
        // A name that is only alike.
        (
            String::from("Content_Length: 44\r\nTransfer_Encoding: chunked\r\nX-Content-Length: 44\r\n"),
            String::new(),
            String::new(),
        ),
    ];
    let all: String =
        rows.iter().map(|(fields, body, _)| request("POST", &origin.url("/post"), fields) + body).collect();
    // In one write: where the next one begins is not to be seen from the segments.
    client.send(all + &request("GET", &origin.url("/last"), ""));
    let mut upstream = origin.accept();
    for (fields, _, wanted) in &rows {
        let arrived = upstream.read_request();
        assert_eq!((arrived.start.as_str(), &arrived.text()), ("POST /post HTTP/1.1", wanted), "{fields:?}");
        upstream.send(ok(fields.trim()));
        assert_eq!(client.read_response("POST").text(), fields.trim());
    }
    assert_eq!(upstream.read_request().start, "GET /last HTTP/1.1");
    upstream.send(ok("last"));
    assert_eq!(client.read_response("GET").text(), "last");
    origin.assert_not_dialed();
}

#[test]
fn nothing_behind_a_refused_request_is_believed_in_a_pipeline() {
    let (_proxy, origin, mut client) = scene(&[]);
    let bad = request("POST", &origin.url("/bad"), "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n");
    client.send(request("GET", &origin.url("/good"), "") + &bad + "0\r\n\r\n" + &smuggled(&origin));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().start, "GET /good HTTP/1.1");
    upstream.send(ok("good"));
    assert_eq!(client.read_response("GET").text(), "good", "who was right is answered");
    assert_eq!(client.read_last_refusal().head.status, 400);
    assert_eq!(upstream.waiting(), b"");
    origin.assert_not_dialed();
}

#[test]
fn heads_beyond_the_limits_are_refused() {
    let (proxy, origin, _) = scene(&[]);
    let url = origin.url("/");
    let host = origin.addr;
    for (head, status) in [
        (format!("GET {url}{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "x".repeat(17_000)), 414),
        (format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "x".repeat(17_000)), 431),
        (format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "X: y\r\n".repeat(100)), 431),
        (format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "X: y\r\n".repeat(5_000)), 431),
    ] {
        let mut client = proxy.wire();
        client.offer(head + &smuggled(&origin));
        assert_eq!(client.read_last_refusal().head.status, status);
    }
    origin.assert_not_dialed();
    // And just within them.
    let mut client = proxy.wire();
    client.send(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "X: y\r\n".repeat(99)));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().all("x").len(), 99);
    upstream.send(ok(""));
    client.read_response("GET");
    client.send(format!("GET {url}{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "x".repeat(16_000)));
    assert_eq!(upstream.read_request().start.len(), "GET / HTTP/1.1".len() + 16_000);
    upstream.send(ok("long"));
    assert_eq!(client.read_response("GET").text(), "long");
}

// Slow clients.

#[test]
fn a_request_dribbled_byte_by_byte() {
    let (proxy, origin, mut client) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let all = request("POST", &origin.url("/slow"), "A: b\r\nTransfer-Encoding: chunked\r\n")
        + "5;ext=\"x\"\r\nhello\r\n1\r\n!\r\n0\r\nT: t\r\n\r\n"
        + &request("PUT", &origin.url("/next"), "Content-Length: 3\r\n")
        + "abc";
    let bytes = all.into_bytes();
    let sender = std::thread::spawn(move || {
        for byte in bytes {
            client.send([byte]);
            beside.turns();
        }
        client
    });
    let mut upstream = origin.accept();
    let arrived = upstream.read_request();
    assert_eq!((arrived.start.as_str(), arrived.text().as_str()), ("POST /slow HTTP/1.1", "hello!"));
    assert_eq!(arrived.trailers, [("T".into(), "t".into())]);
    upstream.send(ok("first"));
    let arrived = upstream.read_request();
    assert_eq!((arrived.start.as_str(), arrived.text().as_str()), ("PUT /next HTTP/1.1", "abc"));
    upstream.send(ok("second"));
    let mut client = sender.join().unwrap();
    assert_eq!(client.read_response("POST").text(), "first");
    assert_eq!(client.read_response("PUT").text(), "second");
}

#[test]
fn a_pipeline_split_at_every_position() {
    let (proxy, origin, _) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let all = request("POST", &origin.url("/1"), "Transfer-Encoding: chunked\r\n")
        + "2;x\r\nab\r\n0\r\n\r\n"
        + &request("POST", &origin.url("/2"), "Content-Length: 2\r\n")
        + "cd";
    let mut upstream: Option<Wire> = None;
    for at in 1..all.len() {
        let mut client = proxy.wire();
        client.send(&all[..at]);
        beside.turns();
        client.send(&all[at..]);
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        for (path, body) in [("/1", "ab"), ("/2", "cd")] {
            let arrived = upstream.read_request();
            assert_eq!(
                (arrived.text(), arrived.start),
                (body.into(), format!("POST {path} HTTP/1.1")),
                "{at}"
            );
            upstream.send(ok(path));
            assert_eq!(client.read_response("POST").text(), path, "split behind byte {at}");
        }
        origin.assert_not_dialed();
    }
}

#[test]
fn a_body_that_never_comes_is_given_up() {
    let (proxy, origin, mut client) = scene(&["--response-timeout", "1", "--idle-timeout", "1"]);
    client.send(request("POST", &origin.url("/"), "Content-Length: 10\r\n") + "half");
    let mut upstream = origin.accept();
    let mut arrived = upstream.read_head();
    let begun = Instant::now();
    let (raw, ending) = client.read_rest();
    assert_ne!(ending, Ending::Silence);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?} {:?}",
        begun.elapsed(),
        String::from_utf8_lossy(&raw)
    );
    arrived.framing = Framing::Length;
    upstream.read_body(&mut arrived);
    assert!(arrived.cut.is_some_and(|ending| ending != Ending::Silence), "{arrived:?}");
    assert_ne!(proxy.access_of(client.local).end, "done");
}

// Clients that leave.

#[test]
fn a_client_that_resets_while_it_waits_releases_everything() {
    let (proxy, origin, client) = scene(&[]);
    drop(client);
    // Everything that it opens at its start is open once it serves.
    let mut beside = Beside::of(&proxy);
    beside.turns();
    let before = proxy.descriptors();
    for (fields, body) in
        [("", ""), ("Content-Length: 2\r\n", "ab"), ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")]
    {
        let mut client = proxy.wire();
        client.send(request("POST", &origin.url("/"), fields) + body);
        let mut upstream = origin.accept();
        upstream.read_request();
        let local = client.local;
        client.reset();
        assert_ne!(upstream.read_end(), Ending::Silence, "{fields:?}");
        let access = proxy.access_of(local);
        assert_eq!((access.status.as_str(), access.end.as_str()), ("-", "client_reset"), "{}", access.line);
    }
    support::until("the descriptors to be free", || (proxy.descriptors() == before).then_some(()));
}

#[test]
fn a_client_that_resets_in_its_body_leaves_it_cut() {
    let (proxy, origin, _) = scene(&[]);
    for (fields, body, framing) in [
        ("Content-Length: 10\r\n", "half", Framing::Length),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n", Framing::Chunked),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n0\r\n", Framing::Chunked),
    ] {
        let mut client = proxy.wire();
        client.send(request("POST", &origin.url("/"), fields) + body);
        let mut upstream = origin.accept();
        let mut arrived = upstream.read_head();
        let local = client.local;
        client.reset();
        arrived.framing = framing;
        upstream.read_body(&mut arrived);
        assert!(arrived.cut.is_some_and(|ending| ending != Ending::Silence), "{arrived:?}");
        assert_eq!(proxy.access_of(local).end, "client_reset");
    }
}

#[test]
fn a_client_that_closes_in_its_body_leaves_it_cut() {
    let (proxy, origin, _) = scene(&[]);
    for (fields, body, framing) in [
        ("Content-Length: 10\r\n", "half", Framing::Length),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n", Framing::Chunked),
        ("Transfer-Encoding: chunked\r\n", "4\r\nha", Framing::Chunked),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n0\r\n", Framing::Chunked),
        ("Transfer-Encoding: chunked\r\n", "", Framing::Chunked),
    ] {
        let mut client = proxy.wire();
        client.send(request("POST", &origin.url("/"), fields) + body);
        let mut upstream = origin.accept();
        let mut arrived = upstream.read_head();
        client.finish();
        arrived.framing = framing;
        upstream.read_body(&mut arrived);
        assert!(arrived.cut.is_some_and(|ending| ending != Ending::Silence), "{arrived:?}");
        let (raw, ending) = client.read_rest();
        assert_ne!(ending, Ending::Silence);
        assert!(raw.is_empty() || raw.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&raw));
        assert_ne!(proxy.access_of(client.local).end, "done");
    }
}

#[test]
fn a_client_that_is_answered_early_and_ends_its_body_there_gets_the_whole_answer() {
    let (proxy, origin, _) = scene(&[]);
    for (head, ends) in [("Content-Length: 10\r\n", false), ("X: until close\r\n", true)] {
        let mut client = proxy.wire();
        client.send(request("POST", &origin.url("/"), "Content-Length: 10\r\n") + "half");
        let mut upstream = origin.accept();
        upstream.read_head();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{head}\r\nhello"));
        let mut response = client.read_head();
        assert_eq!(client.read_n(5), b"hello");
        client.finish();
        Beside::of(&proxy).turns();
        upstream.send("world");
        if ends {
            upstream.finish();
        }
        response.framing = Framing::UntilClose;
        client.read_body(&mut response);
        assert_eq!((response.text().as_str(), response.cut), ("world", None), "{head:?}");
    }
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let (proxy, origin, _) = scene(&[]);
    for (fields, body) in [
        ("", ""),
        ("Content-Length: 4\r\n", "body"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"),
    ] {
        let mut client = proxy.wire();
        client.send(request("POST", &origin.url("/"), fields) + body);
        client.finish();
        let mut upstream = origin.accept();
        upstream.read_request();
        // The end of what the client has to say is no end of the connection to the origin.
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nans");
        let mut response = client.read_head();
        upstream.send("wer");
        response.framing = Framing::Length;
        client.read_body(&mut response);
        assert_eq!((response.text().as_str(), response.cut), ("answer", None));
        assert_eq!(client.read_end(), Ending::Eof);
        assert_eq!(proxy.access_of(client.local).end, "done");
    }
}

#[test]
fn pipelined_requests_and_a_fin_in_one_are_all_answered() {
    let (proxy, origin, _) = scene(&[]);
    let mut client = proxy.wire();
    client.send((0..5).map(|n| request("GET", &origin.url(&format!("/{n}")), "")).collect::<String>());
    client.finish();
    let mut upstream = origin.accept();
    for n in 0..5 {
        assert_eq!(upstream.read_request().start, format!("GET /{n} HTTP/1.1"));
        upstream.send(ok(&n.to_string()));
        assert_eq!(client.read_response("GET").text(), n.to_string());
    }
    assert_eq!(client.read_end(), Ending::Eof);
    drop(client);
    assert_eq!(proxy.stop().2.len(), 5);
}

#[test]
fn a_client_that_half_closed_is_not_waited_for_long() {
    let (proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    client.finish();
    let mut upstream = origin.accept();
    upstream.read_request();
    let begun = Instant::now();
    assert_ne!(upstream.read_end(), Ending::Silence);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_500) && took < Duration::from_secs(5), "{took:?}");
    assert_ne!(client.read_rest().1, Ending::Silence);
    assert_ne!(proxy.access_of(client.local).end, "done");
}

#[test]
fn a_client_that_closes_between_requests_leaves_no_line() {
    let (proxy, origin, _) = scene(&[]);
    for how in 0..3 {
        let mut client = proxy.wire();
        client.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.read_response("GET").text(), "ok");
        match how {
            0 => drop(client),
            1 => client.reset(),
            _ => {
                client.finish();
                assert_eq!(client.read_end(), Ending::Eof, "closed at once");
            }
        }
    }
    let access = proxy.stop().2;
    assert_eq!(access.len(), 3, "{access:#?}");
    assert!(access.iter().all(|line| line.ends_with("end=done")), "{access:#?}");
}

#[test]
fn a_client_that_reads_nothing_and_leaves_costs_nothing() {
    let (proxy, origin, _) = scene(&[]);
    for _ in 0..20 {
        let mut client = proxy.wire();
        client.send((0..10).map(|n| request("GET", &origin.url(&format!("/{n}")), "")).collect::<String>());
        let mut upstream = origin.accept();
        upstream.read_request();
        // More than can be under way, so that it is never the next one's turn.
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
        drop(client);
        // Whatever it was sent.
        while upstream.offer([0; 10_000]) {}
    }
    let mut client = proxy.wire();
    client.get(&origin.url("/after"));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().start, "GET /after HTTP/1.1");
    upstream.send(ok("still there"));
    assert_eq!(client.read_response("GET").text(), "still there");
}
