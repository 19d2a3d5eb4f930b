//! Plain HTTP, end to end on the real binary, where things meet: many clients, pipelines longer than any buffer, memory that is
//! used up, bytes that come one by one, requests of several kinds on one connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::client::connect_head;
use support::http_origin::{ByHand, answering, url};
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::wire::{Framing, Message, Wire, ok, request};
use support::{Beside, Ending, until};

fn scene(options: &[&str]) -> (Proxy, ByHand, Wire) {
    let proxy = Proxy::open(options);
    let client = proxy.wire();
    (proxy, ByHand::open(), client)
}

/// Tells back what it was sent, framed in a way that the path chooses.
fn mirror(request: &Message) -> Vec<u8> {
    let said = format!("{} {}", request.start, request.text());
    match request.start.as_bytes()["POST /".len()] {
        b'c' => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{said}\r\n0\r\n\r\n",
            said.len()
        )
        .into(),
        b'1' => format!("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n{}", ok(&said)).into(),
        _ => ok(&said).into(),
    }
}

#[test]
fn many_clients_each_get_their_own() {
    let origins = [answering(mirror), answering(mirror), answering(mirror)];
    let options: Vec<&str> = ALLOW_LOOPBACK.iter().copied().chain(["--loops", "2"]).collect();
    let proxy = Launch::new(&options).start();
    let addrs: Vec<_> = origins.iter().map(|origin| origin.addr).collect();
    std::thread::scope(|scope| {
        for thread in 0..16_usize {
            let (proxy, addrs) = (&proxy, &addrs);
            scope.spawn(move || {
                let mut client = proxy.wire();
                for n in 0..60_usize {
                    let kind = ["c", "1", "l"][(thread + n) % 3];
                    let path = format!("/{kind}/{thread}/{n}");
                    let target = url(addrs[(thread * 7 + n) % 3], &path);
                    let body = format!("body of {thread} {n}");
                    let all = match n % 3 {
                        0 => request("POST", &target, &format!("Content-Length: {}\r\n", body.len())) + &body,
                        1 => {
                            request("POST", &target, "Transfer-Encoding: chunked\r\n")
                                + &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
                        }
                        _ => request("POST", &target, "Connection: close\r\nContent-Length: 0\r\n"),
                    };
                    client.send(all);
                    let mut response = client.read_response("POST");
                    if response.status() == 103 {
                        response = client.read_response("POST");
                    }
                    let body = if n % 3 == 2 { "" } else { &body };
                    assert_eq!(response.text(), format!("POST {path} HTTP/1.1 {body}"));
                    if n % 3 == 2 {
                        assert_eq!(client.read_end(), Ending::Eof);
                        client = proxy.wire();
                    }
                }
            });
        }
    });
    let (status, _, access) = proxy.stop();
    assert!(status.success());
    assert_eq!(access.len(), 16 * 60);
    assert!(access.iter().all(|line| line.contains(" 200 ") && line.ends_with("end=done")), "{access:#?}");
}

#[test]
fn a_pipeline_longer_than_any_buffer() {
    const COUNT: usize = 3000;
    let origin = answering(mirror);
    let (_proxy, _, client) = scene(&[]);
    let addr = origin.addr;
    let mut sending = Wire::from(client.stream.try_clone().unwrap());
    let sender = std::thread::spawn(move || {
        let one = |n: usize| match n % 3 {
            0 => request("POST", &url(addr, &format!("/l/{n}")), "Content-Length: 4\r\n") + "body",
            1 => {
                request("POST", &url(addr, &format!("/c/{n}")), "Transfer-Encoding: chunked\r\n")
                    + "4;x\r\nbody\r\n0\r\n\r\n"
            }
            _ => request("POST", &url(addr, &format!("/l/{n}")), ""),
        };
        sending.send((0..COUNT).map(one).collect::<String>());
    });
    let mut client = client;
    for n in 0..COUNT {
        let (kind, body) = (if n % 3 == 1 { "c" } else { "l" }, if n % 3 == 2 { "" } else { "body" });
        assert_eq!(client.read_response("POST").text(), format!("POST /{kind}/{n} HTTP/1.1 {body}"));
    }
    sender.join().unwrap();
}

#[test]
fn a_response_dribbled_byte_by_byte() {
    let (proxy, origin, _) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let chunked = "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n1\r\n!\r\n0\r\nT: t\r\n\r\n";
    let hinted =
        "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!";
    let old = "HTTP/1.0 200 OK\r\nA: b\r\n\r\nhello!";
    for all in [chunked, hinted, old] {
        let mut client = proxy.wire();
        client.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        for byte in all.bytes() {
            upstream.send([byte]);
            beside.turns();
        }
        if all == old {
            upstream.finish();
        }
        let mut response = client.read_response("GET");
        if response.status() == 103 {
            response = client.read_response("GET");
        }
        assert_eq!((response.status(), response.text().as_str()), (200, "hello!"), "{all:?}");
        drop(upstream);
    }
}

#[test]
fn a_response_split_at_every_position() {
    let (proxy, origin, mut client) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let all = "HTTP/1.1 103 E\r\nL: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: t\r\n\r\n";
    let mut upstream: Option<Wire> = None;
    for at in 1..all.len() {
        client.get(&origin.url("/"));
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        upstream.read_request();
        upstream.send(&all[..at]);
        beside.turns();
        upstream.send(&all[at..]);
        assert_eq!(client.read_head().status(), 103, "split behind byte {at}");
        let response = client.read_response("GET");
        assert_eq!(
            (response.text().as_str(), response.trailers.len()),
            ("hello", 1),
            "split behind byte {at}"
        );
    }
}

#[test]
fn a_response_with_the_end_in_one_segment() {
    let (proxy, origin, mut client) = scene(&[]);
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        for _ in 0..10 {
            client.get(&origin.url("/"));
            let mut upstream = origin.accept();
            upstream.read_request();
            // Corked, the bytes wait for the FIN and leave with it.
            socket2::SockRef::from(&upstream.stream).set_tcp_nodelay(false).unwrap();
            socket2::SockRef::from(&upstream.stream).set_tcp_cork(true).unwrap();
            upstream.send(response);
            drop(upstream);
            let came = client.read_response("GET");
            assert_eq!(came.text(), "hello", "{response:?}");
            if !came.keeps_alive() {
                client = proxy.wire();
            }
        }
    }
}

#[test]
fn large_heads_pass_both_ways() {
    let (_proxy, origin, mut client) = scene(&[]);
    let long = format!("X-Long: {}\r\n", "y".repeat(15_000));
    client.send(request("GET", &origin.url("/"), &long));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().field("x-long").map(str::len), Some(15_000));
    upstream.send(format!("HTTP/1.1 200 OK\r\n{long}Content-Length: 5\r\n\r\nhello"));
    let response = client.read_response("GET");
    assert_eq!((response.field("x-long").map(str::len), response.text().as_str()), (Some(15_000), "hello"));
    // Fields that become longer: every one is written anew.
    let short: String = (0..80).map(|n| format!("a{n}:{n}\r\n")).collect();
    client.send(request("GET", &origin.url("/"), &short));
    assert_eq!(upstream.read_request().field("a79"), Some("79"));
    upstream.send(format!("HTTP/1.1 200 OK\r\n{short}Content-Length: 5\r\n\r\nhello"));
    assert_eq!(client.read_response("GET").field("a79"), Some("79"));
}

#[test]
fn a_large_request_is_asked_once_more_as_it_was() {
    let (_proxy, origin, mut client) = scene(&[]);
    let long = format!("X-Long: {}\r\n", "y".repeat(12_000));
    client.get(&origin.url("/first"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok(""));
    client.read_response("GET");
    // With another behind it, which is not lost either.
    client.send(request("GET", &origin.url("/long"), &long) + &request("GET", &origin.url("/behind"), ""));
    let first = upstream.read_request();
    upstream.reset();
    let mut fresh = origin.accept();
    assert_eq!(fresh.read_request().raw, first.raw);
    fresh.send(ok("long"));
    assert_eq!(client.read_response("GET").text(), "long");
    assert_eq!(fresh.read_request().start, "GET /behind HTTP/1.1");
    fresh.send(ok("behind"));
    assert_eq!(client.read_response("GET").text(), "behind");
    origin.assert_not_dialed();
}

#[test]
fn a_request_that_comes_too_late_does_not_erase_the_last_answer() {
    const BODY: usize = 1 << 20;
    let (_proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    // Its end is the end of the connection, which the client did not ask for.
    upstream.send("HTTP/1.1 200 OK\r\n\r\n");
    let mut response = client.read_head();
    assert!(!response.keeps_alive());
    client.get(&origin.url("/late"));
    let sender = std::thread::spawn(move || {
        upstream.send(vec![7; BODY]);
        upstream.finish();
        upstream.read_end()
    });
    response.framing = Framing::UntilClose;
    client.read_body(&mut response);
    assert_eq!((response.body.len(), response.cut), (BODY, None));
    assert_eq!(sender.join().unwrap(), Ending::Eof);
    // And later still.
    assert!(client.offer(request("GET", &origin.url("/later"), "")));
    origin.assert_not_dialed();
}

// Several kinds on one connection.

#[test]
fn connect_pipelined_behind_a_get() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(request("GET", &origin.url("/"), "") + &connect_head(&origin.addr.to_string()) + "early");
    let mut upstream = origin.accept();
    upstream.read_request();
    origin.assert_not_dialed();
    upstream.send(ok("first things first"));
    assert_eq!(client.read_response("GET").text(), "first things first");
    assert_eq!(client.read_head().status(), 200);
    let mut tunnel = origin.accept();
    assert_eq!(tunnel.read_n(5), b"early");
    assert_eq!(upstream.waiting(), b"");
}

#[test]
fn a_refused_connect_behind_a_get_is_the_end() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(
        request("GET", &origin.url("/"), "")
            + &connect_head("192.0.2.1:25")
            + &request("GET", &origin.url("/behind"), ""),
    );
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("ok"));
    assert_eq!(client.read_response("GET").text(), "ok");
    assert_eq!(client.read_last_refusal().head.status, 403);
    assert_eq!(upstream.waiting(), b"");
    origin.assert_not_dialed();
}

#[test]
fn a_request_behind_an_upgrade_that_is_declined() {
    let (proxy, origin, mut client) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    client.send(request("GET", &origin.url("/up"), upgrade) + &request("GET", &origin.url("/behind"), ""));
    let mut upstream = origin.accept();
    upstream.read_head();
    beside.turns();
    assert_eq!(upstream.waiting(), b"");
    upstream.send(ok("no"));
    let response = client.read_response("GET");
    assert_eq!(response.text(), "no");
    if response.keeps_alive() {
        assert_eq!(upstream.read_request().start, "GET /behind HTTP/1.1");
        upstream.send(ok("behind"));
        assert_eq!(client.read_response("GET").text(), "behind");
    } else {
        assert_eq!(client.read_end(), Ending::Eof);
    }
}

#[test]
fn trailers_that_are_none_stay_behind() {
    let (_proxy, origin, mut client) = scene(&[]);
    let chunks = "0\r\nX-Ok: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nConnection: close\r\n\
                  Proxy-Authorization: secret\r\n\r\n";
    client.send(request("POST", &origin.url("/"), "Transfer-Encoding: chunked\r\n") + chunks);
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().trailers, [("X-Ok".into(), "1".into())]);
    upstream.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
    let trailers = client.read_response("POST").trailers;
    let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"X-Ok"), "{names:?}");
    for never in ["Content-Length", "Transfer-Encoding", "Connection"] {
        assert!(!names.contains(&never), "{names:?}");
    }
}

#[test]
fn an_empty_line_before_a_request_is_none() {
    // RFC 9112 2.2: some clients send one behind a body.
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(
        String::from("\r\n")
            + &request("POST", &origin.url("/1"), "Content-Length: 2\r\n")
            + "ab\r\n"
            + &request("GET", &origin.url("/2"), ""),
    );
    let mut upstream = origin.accept();
    for (start, body) in [("POST /1 HTTP/1.1", "ab"), ("GET /2 HTTP/1.1", "")] {
        let arrived = upstream.read_request();
        assert_eq!((arrived.start.as_str(), arrived.text().as_str()), (start, body));
        upstream.send(ok(start));
        assert_eq!(client.read_response("POST").text(), start);
    }
}

// Time.

#[test]
fn a_download_goes_on_for_who_has_half_closed() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    client.finish();
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    let mut response = client.read_head();
    assert_eq!(client.read_n(5), b"01234");
    // Longer than one is waited for who has not got a byte: that this is another case is what is tested.
    std::thread::sleep(Duration::from_millis(2_300));
    assert!(upstream.offer("56789"), "given up in the middle of a body");
    response.framing = Framing::UntilClose;
    client.read_body(&mut response);
    assert_eq!((response.text().as_str(), response.cut), ("56789", None));
}

#[test]
fn a_body_that_moves_slowly_is_in_time() {
    let (_proxy, origin, mut client) = scene(&["--response-timeout", "1", "--idle-timeout", "1"]);
    client.send(request("PUT", &origin.url("/"), "Content-Length: 5\r\n"));
    let mut upstream = origin.accept();
    upstream.read_head();
    let begun = Instant::now();
    for byte in b"hello" {
        std::thread::sleep(Duration::from_millis(300));
        client.send([*byte]);
        assert_eq!(upstream.read_n(1), [*byte]);
    }
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_head().status(), 200);
    for byte in b"hello" {
        std::thread::sleep(Duration::from_millis(300));
        upstream.send([*byte]);
        assert_eq!(client.read_n(1), [*byte]);
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "each way took longer than any timeout");
}

// Memory that is used up.

#[test]
fn who_meets_the_ceiling_of_memory_is_told_and_it_is_over_when_it_is_over() {
    let (proxy, origin, _) = scene(&["--buffer-memory", "2M", "--max-sessions", "200"]);
    let quick = answering(mirror);
    let mut slow = vec![];
    for _ in 0..60 {
        let mut client = proxy.wire();
        client.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        upstream.stream.set_nonblocking(true).unwrap();
        slow.push((client, upstream));
    }
    // Until nothing moves any more: the kernel holds what it can for both sides, the proxy what it may.
    let mut last = Instant::now();
    until("all of them to be stuck", || {
        for (_, upstream) in &mut slow {
            while std::io::Write::write(&mut upstream.stream, &[7; 65_536]).is_ok() {
                last = Instant::now();
            }
        }
        (last.elapsed() > Duration::from_millis(100)).then_some(())
    });
    let resident = proxy.resident_kib();
    for n in 0..20 {
        let mut client = proxy.wire();
        client.send(request("POST", &url(quick.addr, &format!("/l/{n}")), "Content-Length: 4\r\n") + "body");
        let response = client.read_response("POST");
        // Whoever meets the ceiling is told so, and when to come again.
        assert!(
            response.text() == format!("POST /l/{n} HTTP/1.1 body")
                || response.status() == 503 && response.field("retry-after").is_some(),
            "{response:?}"
        );
    }
    assert!(resident < 8 * 1024, "{resident} KiB");
    drop(slow);
    until("the memory to be free again", || {
        let mut client = proxy.wire();
        client.send(request("POST", &url(quick.addr, "/l/"), "Content-Length: 4\r\n") + "body");
        (client.read_response("POST").status() == 200).then_some(())
    });
    let mut client = proxy.wire();
    for n in 0..20 {
        client.send(request("POST", &url(quick.addr, &format!("/c/{n}")), "Content-Length: 4\r\n") + "body");
        assert_eq!(client.read_response("POST").text(), format!("POST /c/{n} HTTP/1.1 body"));
    }
}
