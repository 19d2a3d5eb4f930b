//! Which upstream connections are used again, and for whom. One loop everywhere: each loop has its own pool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::http_origin::ByHand;
use support::proxy::{Launch, Proxy};
use support::wire::{Wire, ok, request};
use support::{Beside, Ending, TempFile, until};

/// A proxy that reaches loopback, and an origin played by hand.
fn scene(options: &[&str]) -> (Proxy, ByHand) {
    (Proxy::open(options), ByHand::open())
}

/// One GET answered over this upstream connection.
#[track_caller]
fn exchange(client: &mut Wire, origin: &ByHand, upstream: &mut Wire) {
    client.get(&origin.url("/again"));
    assert_eq!(upstream.read_request().start, "GET /again HTTP/1.1");
    upstream.send(ok("again"));
    assert_eq!(client.read_response("GET").text(), "again");
    origin.assert_not_dialed();
}

/// One GET for which a connection is dialed; it is idle afterwards.
#[track_caller]
fn first_exchange(client: &mut Wire, origin: &ByHand) -> Wire {
    client.get(&origin.url("/first"));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().start, "GET /first HTTP/1.1");
    upstream.send(ok("first"));
    assert_eq!(client.read_response("GET").text(), "first");
    upstream
}

#[test]
fn one_client_uses_one_connection_for_many_requests() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    let mut upstream = first_exchange(&mut client, &origin);
    for _ in 0..10 {
        exchange(&mut client, &origin, &mut upstream);
    }
    assert!(proxy.access_of(client.local).dial.is_some());
    assert_eq!(proxy.access_of(client.local).dial, None, "nothing was dialed for the second");
}

#[test]
fn two_clients_in_turn_use_one_connection() {
    let (proxy, origin) = scene(&[]);
    let mut one = proxy.wire();
    let mut upstream = first_exchange(&mut one, &origin);
    // Whether the first is still there or not.
    exchange(&mut proxy.wire(), &origin, &mut upstream);
    drop(one);
    exchange(&mut proxy.wire(), &origin, &mut upstream);
    let access: Vec<_> = proxy.stop().2;
    assert!(access.iter().all(|line| line.contains(&format!("via={}", origin.addr))), "{access:#?}");
}

#[test]
fn two_clients_at_once_use_two() {
    let (proxy, origin) = scene(&[]);
    let (mut one, mut two) = (proxy.wire(), proxy.wire());
    one.get(&origin.url("/one"));
    let mut first = origin.accept();
    assert_eq!(first.read_request().start, "GET /one HTTP/1.1");
    two.get(&origin.url("/two"));
    let mut second = origin.accept();
    assert_eq!(second.read_request().start, "GET /two HTTP/1.1");
    second.send(ok("second"));
    first.send(ok("first"));
    assert_eq!(
        (two.read_response("GET").text(), one.read_response("GET").text()),
        ("second".into(), "first".into())
    );
}

#[test]
fn requests_with_bodies_use_it_too() {
    let (proxy, origin) = scene(&[]);
    let mut upstream = first_exchange(&mut proxy.wire(), &origin);
    for (fields, body) in
        [("Content-Length: 5\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let mut client = proxy.wire();
        client.send(request("POST", &origin.url("/post"), fields) + body);
        assert_eq!(upstream.read_request().text(), "hello");
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: t\r\n\r\n");
        assert_eq!(client.read_response("POST").text(), "ok");
    }
    exchange(&mut proxy.wire(), &origin, &mut upstream);
}

#[test]
fn another_name_or_port_is_another_origin() {
    let hosts = TempFile::with("127.0.0.1 a.test b.test\n");
    let (proxy, origin) = scene(&["--hosts", &hosts.path]);
    let port = origin.addr.port();
    let mut client = proxy.wire();
    let mut upstreams = vec![];
    for host in ["a.test", "b.test", "127.0.0.1"] {
        client.get(&format!("http://{host}:{port}/"));
        let mut upstream = origin.accept();
        assert_eq!(upstream.read_request().field("host"), Some(format!("{host}:{port}").as_str()));
        upstream.send(ok(host));
        assert_eq!(client.read_response("GET").text(), host);
        upstreams.push(upstream);
    }
    // The same name in another spelling is the same.
    client.get(&format!("http://A.TEST:{port}/"));
    upstreams[0].read_request();
    upstreams[0].send(ok("a"));
    assert_eq!(client.read_response("GET").text(), "a");
    origin.assert_not_dialed();
}

// What is not used again.

#[test]
fn a_response_after_which_the_connection_is_not_ours_to_use() {
    let (proxy, origin) = scene(&[]);
    for response in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nconnection: X, CLOSE\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nok",
        "HTTP/1.1 204 No\r\nConnection: close\r\n\r\n",
    ] {
        let mut client = proxy.wire();
        client.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        upstream.send(response);
        if !response.contains("ontent-Length") && !response.contains("chunked") && !response.contains("204") {
            upstream.finish();
        }
        let came = client.read_response("GET");
        assert!(came.status() == 204 || came.text() == "ok", "{response:?}: {came:?}");
        assert_eq!(upstream.read_end(), Ending::Eof, "closed without waiting for the origin: {response:?}");
        // The next dials; its own connection is gone before the one behind.
        let mut next = first_exchange(&mut proxy.wire(), &origin);
        next.finish();
        assert_eq!(next.read_end(), Ending::Eof);
    }
}

#[test]
fn an_answered_request_whose_body_is_not_through() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    client.send(request("POST", &origin.url("/"), "Content-Length: 100\r\n") + "ten bytes.");
    let mut upstream = origin.accept();
    upstream.read_head();
    upstream.read_n(10);
    upstream.send(ok("enough"));
    assert_eq!(client.read_response("POST").text(), "enough");
    // Whatever becomes of the client: the origin waits for the rest of a body there.
    drop(client);
    let mut fresh = first_exchange(&mut proxy.wire(), &origin);
    let (behind, ending) = upstream.read_rest();
    assert!(behind.is_empty() && ending != Ending::Silence, "{behind:?} {ending:?}");
    exchange(&mut proxy.wire(), &origin, &mut fresh);
}

#[test]
fn a_connection_whose_client_left_in_the_response() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome");
    client.read_head();
    client.reset();
    assert_ne!(upstream.read_end(), Ending::Silence);
    first_exchange(&mut proxy.wire(), &origin);
}

// Idle connections.

#[test]
fn the_origin_closes_an_idle_connection() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    let mut upstream = first_exchange(&mut client, &origin);
    let descriptors = proxy.descriptors();
    upstream.finish();
    assert_eq!(upstream.read_end(), Ending::Eof, "closed at once");
    until("the descriptor to be free", || (proxy.descriptors() == descriptors - 1).then_some(()));
    first_exchange(&mut client, &origin).reset();
    until("the descriptor to be free", || (proxy.descriptors() == descriptors - 1).then_some(()));
    first_exchange(&mut client, &origin);
}

#[test]
fn a_byte_on_an_idle_connection_closes_it() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    for surplus in [
        "x",
        "\r\n",
        "HTTP/1.1 408 Too late\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let mut upstream = first_exchange(&mut client, &origin);
        upstream.send(surplus);
        assert_ne!(upstream.read_end(), Ending::Silence, "{surplus:?}");
        assert_eq!(client.waiting(), b"", "{surplus:?}");
    }
    first_exchange(&mut client, &origin);
}

#[test]
fn idle_connections_are_closed_after_keepalive_timeout() {
    let (proxy, origin) = scene(&["--keepalive-timeout", "1"]);
    let mut upstream = first_exchange(&mut proxy.wire(), &origin);
    let begun = Instant::now();
    assert_eq!(upstream.read_end(), Ending::Eof);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn idle_connections_are_not_kept_beyond_a_limit() {
    let (proxy, origin) = scene(&["--buffer-memory", "2M", "--max-sessions", "110"]);
    let mut clients: Vec<Wire> = (0..100).map(|_| proxy.wire()).collect();
    let mut upstreams = vec![];
    for client in &mut clients {
        client.get(&origin.url("/"));
        upstreams.push(origin.accept());
    }
    let all = proxy.descriptors();
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        // In no order that can be known, so each answers whom it was asked by.
        upstream.read_request();
        upstream.send(ok("ok"));
        client.read_response("GET");
    }
    // With that little memory it is 42 in all and half of them to one origin.
    until("the others to be closed", || (proxy.descriptors() == all - 100 + 21).then_some(()));
    for client in &mut clients[..2] {
        client.get(&origin.url("/last"));
        let last = upstreams.last_mut().unwrap();
        assert_eq!(last.read_request().start, "GET /last HTTP/1.1", "the one used last is the freshest");
        last.send(ok("ok"));
        client.read_response("GET");
    }
}

#[test]
fn idle_connections_make_room_for_who_is_to_be_dialed() {
    let options = ["--allow", "127.0.0.0/8", "-n", "1"];
    let proxy = Launch::new(&options).descriptors(40).start();
    let mut client = proxy.wire();
    // Each leaves a connection behind, and there are not as many descriptors.
    let mut upstreams = Vec::new();
    for _ in 0..50 {
        upstreams.push(first_exchange(&mut client, &ByHand::open()));
    }
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let (mut proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    let mut upstream = first_exchange(&mut client, &origin);
    drop(client);
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(upstream.read_end(), Ending::Eof);
    assert_eq!(proxy.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

// A reused connection that dies.

#[test]
fn what_is_safe_is_asked_once_more_on_a_fresh_connection() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
        for how in [Leaves::InOrder, Leaves::WithReset] {
            let mut upstream = first_exchange(&mut client, &origin);
            client.send(request(method, &origin.url("/twice"), "X-Kept: yes\r\n"));
            let first = upstream.read_request();
            how.leave(upstream);
            let mut fresh = origin.accept();
            assert_eq!(fresh.read_request().raw, first.raw, "{method} {how:?}");
            fresh.send("HTTP/1.1 200 Fresh\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let response = client.read_response(method);
            assert_eq!(response.start, "HTTP/1.1 200 Fresh");
            assert!(response.keeps_alive(), "{response:?}");
        }
    }
}

#[test]
fn what_is_not_safe_is_asked_once() {
    let (proxy, origin) = scene(&[]);
    for (method, fields, body) in [
        ("POST", "Content-Length: 5\r\n", "hello"),
        ("POST", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ("POST", "Content-Length: 0\r\n", ""),
        ("POST", "", ""),
        ("PATCH", "", ""),
        ("UNHEARD", "", ""),
        // Idempotent, but its body is gone.
        ("PUT", "Content-Length: 5\r\n", "hello"),
    ] {
        for how in [Leaves::InOrder, Leaves::WithReset] {
            let mut client = proxy.wire();
            let mut upstream = first_exchange(&mut client, &origin);
            client.send(request(method, &origin.url("/once"), fields) + body);
            upstream.read_request();
            how.leave(upstream);
            let response = client.read_response(method);
            assert_eq!(response.status(), 502, "{method} {fields:?}: {response:?}");
            assert!(
                response.field("proxy-status").unwrap().contains("error=http_response_incomplete"),
                "{response:?}"
            );
            Beside::of(&proxy).turns();
            origin.assert_not_dialed();
        }
    }
}

#[test]
fn nothing_is_asked_a_third_time() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    let mut upstream = first_exchange(&mut client, &origin);
    client.get(&origin.url("/thrice"));
    upstream.read_request();
    upstream.reset();
    let mut fresh = origin.accept();
    fresh.read_request();
    fresh.reset();
    assert_eq!(client.read_open_refusal().error, "http_response_incomplete");
    origin.assert_not_dialed();
}

#[test]
fn a_fresh_connection_that_dies_is_not_tried_again() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    for how in [Leaves::InOrder, Leaves::WithReset] {
        client.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        how.leave(upstream);
        let answer = client.read_open_refusal();
        assert_eq!((answer.head.status, answer.error.as_str()), (502, "http_response_incomplete"), "{how:?}");
        Beside::of(&proxy).turns();
        origin.assert_not_dialed();
    }
}

#[test]
fn a_reused_connection_that_dies_in_its_answer_is_not_tried_again() {
    let (proxy, origin) = scene(&[]);
    let mut client = proxy.wire();
    for (part, how) in [
        ("H", Leaves::InOrder),
        ("HTTP/1.1 200 OK\r\nContent-", Leaves::WithReset),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", Leaves::InOrder),
    ] {
        let mut upstream = first_exchange(&mut client, &origin);
        client.get(&origin.url("/"));
        upstream.read_request();
        upstream.send(part);
        if part.ends_with("\r\n\r\n") {
            assert_eq!(client.read_head().status(), 103);
        } else {
            Beside::of(&proxy).turns();
        }
        how.leave(upstream);
        let answer = client.read_open_refusal();
        assert_eq!(
            (answer.head.status, answer.error.as_str()),
            (502, "http_response_incomplete"),
            "{part:?}"
        );
        Beside::of(&proxy).turns();
        origin.assert_not_dialed();
    }
}

#[test]
fn a_connection_that_the_origin_closes_just_now() {
    let (proxy, origin) = scene(&[]);
    for _ in 0..10 {
        let mut client = proxy.wire();
        let upstream = first_exchange(&mut client, &origin);
        // Both are there when the loop next looks: the end of the idle connection and the request that would use it.
        proxy.freeze();
        client.get(&origin.url("/"));
        drop(upstream);
        proxy.signal(Signal::CONT);
        let mut fresh = origin.accept();
        fresh.read_request();
        fresh.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.read_response("GET").text(), "ok");
    }
}

#[test]
fn a_surplus_byte_that_comes_with_the_next_request_is_no_response() {
    let (proxy, origin) = scene(&[]);
    for _ in 0..10 {
        let mut client = proxy.wire();
        let mut upstream = first_exchange(&mut client, &origin);
        proxy.freeze();
        client.get(&origin.url("/"));
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        proxy.signal(Signal::CONT);
        let mut fresh = origin.accept();
        fresh.read_request();
        fresh.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.read_response("GET").text(), "ok");
    }
}

#[test]
fn a_surplus_byte_among_more_events_than_are_told_at_once_is_no_response() {
    let (proxy, origin) = scene(&[]);
    let mut victim = proxy.wire();
    let mut crowd: Vec<Wire> = (0..300).map(|_| proxy.wire()).collect();
    let mut upstream = first_exchange(&mut victim, &origin);
    proxy.freeze();
    // In this order they are told; the last ones only with the next poll.
    victim.get(&origin.url("/"));
    for one in &mut crowd {
        one.send("G");
    }
    upstream.send(ok("evil"));
    proxy.signal(Signal::CONT);
    let mut fresh = origin.accept();
    fresh.read_request();
    fresh.send(ok("fresh"));
    assert_eq!(victim.read_response("GET").text(), "fresh");
}

// Whose they are.

#[test]
fn a_client_that_may_not_dial_an_address_may_not_use_a_connection_to_it() {
    let hosts = TempFile::with("127.0.0.1 a.test\n");
    let (proxy, origin) = scene(&["--hosts", &hosts.path, "--deny", "127.0.0.1 from 127.0.0.2"]);
    let url = format!("http://a.test:{}/", origin.addr.port());
    let mut may = proxy.wire();
    may.get(&url);
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("ok"));
    may.read_response("GET");
    // The name is not denied: the address behind it is.
    let mut may_not = Wire::dial_from("127.0.0.2", proxy.addr);
    may_not.get(&url);
    let answer = may_not.read_open_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (403, "destination_ip_prohibited"));
    assert!(proxy.access_of(may_not.local).rule.starts_with("deny:127.0.0.1"));
    assert_eq!(upstream.waiting(), b"");
    // It is still there for whom it was dialed.
    may.get(&url);
    upstream.read_request();
    upstream.send(ok("again"));
    assert_eq!(may.read_response("GET").text(), "again");
    origin.assert_not_dialed();
}

#[test]
fn a_client_that_may_not_ask_for_a_name_may_not_use_a_connection_to_it() {
    let hosts = TempFile::with("127.0.0.1 a.test\n");
    let (proxy, origin) = scene(&["--hosts", &hosts.path, "--deny", ".test from 127.0.0.2"]);
    let url = format!("http://a.test:{}/", origin.addr.port());
    let mut may = proxy.wire();
    may.get(&url);
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("ok"));
    may.read_response("GET");
    let mut may_not = Wire::dial_from("127.0.0.2", proxy.addr);
    may_not.get(&url);
    let answer = may_not.read_open_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (403, "http_request_denied"));
    assert_eq!(upstream.waiting(), b"");
}

#[test]
fn a_client_without_the_allow_of_another_meets_the_guard() {
    let origin = ByHand::open();
    let proxy = Proxy::start(&["--allow", "127.0.0.0/8 from 127.0.0.1"]);
    let mut may = proxy.wire();
    let mut upstream = first_exchange(&mut may, &origin);
    let mut may_not = Wire::dial_from("127.0.0.2", proxy.addr);
    may_not.get(&origin.url("/"));
    let answer = may_not.read_open_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (403, "destination_ip_prohibited"));
    assert_eq!(proxy.access_of(may_not.local).rule, "guard");
    exchange(&mut may, &origin, &mut upstream);
}

#[test]
fn clients_under_the_same_rules_share() {
    let (proxy, origin) = scene(&[]);
    let mut upstream = first_exchange(&mut proxy.wire(), &origin);
    let mut other = Wire::dial_from("127.0.0.2", proxy.addr);
    exchange(&mut other, &origin, &mut upstream);
    assert_eq!(proxy.access_of(other.local).rule, "allow:127.0.0.0/8");
}

#[test]
fn the_rule_in_the_access_line_is_that_of_the_client_who_asks() {
    let hosts = TempFile::with("127.0.0.1 a.test\n");
    let options = ["--allow", "127.0.0.1 from 127.0.0.1", "--allow", "127.0.0.0/8", "--hosts", &hosts.path];
    let (proxy, origin) = (Proxy::start(&options), ByHand::open());
    let mut upstream = None;
    for (source, rule) in [
        ("127.0.0.1", "allow:127.0.0.1_from_127.0.0.1"),
        ("127.0.0.2", "allow:127.0.0.0/8"),
        ("127.0.0.1", "allow:127.0.0.1_from_127.0.0.1"),
    ] {
        let mut client = Wire::dial_from(source, proxy.addr);
        client.get(&format!("http://a.test:{}/", origin.addr.port()));
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        upstream.read_request();
        upstream.send(ok(""));
        client.read_response("GET");
        assert_eq!(proxy.access_of(client.local).rule, rule, "{source}");
    }
    origin.assert_not_dialed();
}

/// How an origin leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    InOrder,
    WithReset,
}

impl Leaves {
    fn leave(self, wire: Wire) {
        match self {
            Leaves::InOrder => drop(wire),
            Leaves::WithReset => wire.reset(),
        }
    }
}
