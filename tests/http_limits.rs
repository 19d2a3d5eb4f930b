//! Plain HTTP, end to end on the real binary: what time, memory and the end of the proxy do to it, and the access line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::SockRef;

use support::client::Client;
use support::dns_server::{A, Answer, DnsServer};
use support::http_origin::{ByHand, answering};
use support::origin::{BlackHole, Refusing};
use support::proxy::Proxy;
use support::wire::{Wire, ok, request};
use support::{Beside, Ending, until};

fn scene(options: &[&str]) -> (Proxy, ByHand, Wire) {
    let proxy = Proxy::open(options);
    let client = proxy.wire();
    (proxy, ByHand::open(), client)
}

// Back-pressure.

const HUGE: usize = 256 << 20;
const BLOCK: usize = 1 << 20;

/// Sends `HUGE` bytes, in which every block of `BLOCK` is the same, counting what is taken.
fn send_blocks(mut stream: TcpStream, block: Arc<Vec<u8>>) -> (Arc<AtomicU64>, std::thread::JoinHandle<()>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let sender = std::thread::spawn(move || {
        for part in (0..HUGE / BLOCK).flat_map(|_| block.chunks(64 * 1024)) {
            std::io::Write::write_all(&mut stream, part).expect("is taken in the end");
            count.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
    });
    (sent, sender)
}

/// Reads those blocks, looking at the proxy's memory now and then; its greatest size.
fn read_blocks(wire: &mut Wire, block: &[u8], proxy: &Proxy) -> u64 {
    let mut most = 0;
    let mut buf = vec![0; BLOCK];
    let early = wire.in_hand();
    assert_eq!(early, &block[..early.len()]);
    let mut rest = early.len();
    for round in 0..HUGE / BLOCK {
        std::io::Read::read_exact(&mut wire.stream, &mut buf[rest..]).expect("as many as promised");
        assert!(buf[rest..] == block[rest..], "block {round} is not what was sent");
        rest = 0;
        if round % 16 == 0 {
            most = most.max(proxy.resident_kib());
        }
    }
    most
}

/// Until the sender is stuck.
fn stuck(sent: &AtomicU64) {
    let mut last = (0, Instant::now());
    until("the sender to be held back", || {
        let now = sent.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(50)).then_some(())
    });
    assert!(sent.load(Ordering::Relaxed) < HUGE as u64 / 2, "nobody can have taken that much");
}

fn block() -> Arc<Vec<u8>> {
    let mut block = vec![0; BLOCK];
    support::Pattern::new(3).fill(&mut block);
    Arc::new(block)
}

/// What may come on top of what it has before, in KiB.
const FLAT_KIB: u64 = 2048;

#[test]
fn a_slow_reader_of_a_huge_body_costs_no_memory() {
    let (proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    let (before, block) = (proxy.resident_kib(), block());
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n"));
    let (sent, sender) = send_blocks(upstream.stream.try_clone().unwrap(), block.clone());
    assert_eq!(client.read_head().status(), 200);
    stuck(&sent);
    let held = proxy.resident_kib();
    let most = read_blocks(&mut client, &block, &proxy).max(held);
    sender.join().unwrap();
    println!("resident: {before} KiB before, {held} KiB with the reader stopped, {most} KiB at most");
    assert!(most <= before + FLAT_KIB, "{before} KiB before, {most} KiB at most");
}

#[test]
fn a_slow_taker_of_a_huge_upload_costs_no_memory() {
    let (proxy, origin, mut client) = scene(&[]);
    client.send(request("PUT", &origin.url("/"), &format!("Content-Length: {HUGE}\r\n")));
    let mut upstream = origin.accept();
    upstream.read_head();
    let (before, block) = (proxy.resident_kib(), block());
    let (sent, sender) = send_blocks(client.stream.try_clone().unwrap(), block.clone());
    stuck(&sent);
    let held = proxy.resident_kib();
    let most = read_blocks(&mut upstream, &block, &proxy).max(held);
    sender.join().unwrap();
    upstream.send(ok("done"));
    assert_eq!(client.read_response("PUT").text(), "done");
    println!("resident: {before} KiB before, {held} KiB with the origin stopped, {most} KiB at most");
    assert!(most <= before + FLAT_KIB, "{before} KiB before, {most} KiB at most");
}

#[test]
fn who_reads_slowly_holds_nobody_up() {
    let (proxy, origin, mut slow) = scene(&[]);
    slow.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n"));
    let stream = upstream.stream.try_clone().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    std::thread::spawn(move || {
        let mut stream = stream;
        while std::io::Write::write_all(&mut stream, &[7; 65_536]).is_ok() {
            count.fetch_add(65_536, Ordering::Relaxed);
        }
    });
    stuck(&sent);
    let quick = answering(|request| ok(&request.start).into());
    let mut other = proxy.wire();
    for n in 0..100 {
        other.get(&format!("http://{}/{n}", quick.addr));
        assert_eq!(other.read_response("GET").text(), format!("GET /{n} HTTP/1.1"));
    }
    slow.reset();
}

// The access line.

#[test]
fn access_line_of_an_exchange() {
    let (proxy, origin, mut client) = scene(&[]);
    client.send(request("POST", &origin.url("/a/b?secret=1"), "Content-Length: 5\r\n") + "hello");
    let mut upstream = origin.accept();
    let arrived = upstream.read_request();
    upstream.send(ok("eight by"));
    let response = client.read_response("POST");
    // The client's connection is still there.
    let access = proxy.access_of(client.local);
    let (time, _) = access.line.split_once(' ').unwrap();
    let (dial, total) = (access.dial.unwrap(), access.total);
    let wanted = format!(
        "{time} {} - POST http://{1}/a/b 200 via={1} rule=allow:127.0.0.0/8 up={2} down={3} dns=- dial={dial} total={total} end=done",
        client.local, origin.addr, access.up, access.down,
    );
    assert_eq!(access.line, wanted, "never a query");
    // As they went over the wire, heads and all.
    let (up, down) = (arrived.raw.len() as u64 + 5, response.raw.len() as u64 + 8);
    assert_eq!((access.up, access.down), (up, down), "{}", access.line);
    assert!(dial <= total && total < 20_000, "{}", access.line);
}

#[test]
fn each_exchange_of_a_connection_has_its_line() {
    let origin = answering(|request| ok(&request.start).into());
    let refusing = Refusing::open();
    let proxy = Proxy::open(&["--deny", "denied.test"]);
    let mut client = proxy.wire();
    let good = format!("http://{}/good?q", origin.addr);
    let refused = format!("http://{}/refused", refusing.addr);
    let mut all = String::new();
    for url in [&good, "http://denied.test/d#", &refused, &good, "http://nothing/n"] {
        all += &request("GET", url.trim_end_matches('#'), "");
    }
    client.send(&all[..all.find("GET http://nothing").unwrap()]);
    for status in [200, 403, 502, 200] {
        assert_eq!(client.read_response("GET").status(), status);
    }
    let good = good.trim_end_matches("?q");
    for (target, status, end) in [
        (good, "200", "done"),
        ("http://denied.test/d", "403", "http_request_denied"),
        (refused.as_str(), "502", "connection_refused"),
        (good, "200", "done"),
    ] {
        let access = proxy.access_of(client.local);
        let seen =
            (access.method.as_str(), access.target.as_str(), access.status.as_str(), access.end.as_str());
        assert_eq!(seen, ("GET", target, status, end), "{}", access.line);
    }
    assert_eq!(client.waiting(), b"");
    drop(client);
    assert_eq!(proxy.stop().2.len(), 4, "one line an exchange, none for the end of the connection");
}

#[test]
fn access_line_of_a_refusal_counts_the_answer() {
    let proxy = Proxy::open(&["--deny", "denied.test"]);
    let mut client = proxy.wire();
    client.get("http://denied.test/x?y=z");
    let answer = client.read_open_refusal();
    let access = proxy.access_of(client.local);
    assert_eq!((access.up, access.down), (0, (answer.head.raw.len() + answer.body.len()) as u64));
    assert_eq!((access.target.as_str(), access.rule.as_str()), ("http://denied.test/x", "deny:denied.test"));
    assert!(!(answer.head.raw + &answer.body).contains("y=z"), "only host and port are told back");
}

#[test]
fn nothing_secret_is_logged() {
    let (proxy, origin, mut client) = scene(&["-vvv"]);
    let fields =
        "Proxy-Authorization: Basic c2VjcmV0\r\nAuthorization: Basic c2VjcmV0\r\nCookie: c2VjcmV0\r\n";
    client.send(request("GET", &origin.url("/p?token=c2VjcmV0"), fields));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("c2VjcmV0"));
    client.read_response("GET");
    drop(client);
    let (_, log, access) = proxy.stop();
    assert!(!format!("{log:?}{access:?}").contains("c2VjcmV0"), "{log:#?}{access:#?}");
}

#[test]
fn access_line_tells_who_left() {
    let (proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    let local = client.local;
    client.reset();
    assert_eq!(proxy.access_of(local).end, "client_reset");
    assert_ne!(upstream.read_end(), Ending::Silence, "what nobody waits for is released");
    let mut client = proxy.wire();
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
    upstream.reset();
    assert!(client.try_response("GET").unwrap().cut.is_some());
    let access = proxy.access_of(client.local);
    assert_eq!((access.status.as_str(), access.end.as_str()), ("200", "upstream_reset"), "{}", access.line);
}

// Timeouts.

#[test]
fn an_idle_client_is_closed_after_keepalive_timeout() {
    let (proxy, origin, mut client) = scene(&["--keepalive-timeout", "1"]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    let begun = Instant::now();
    upstream.send(ok("ok"));
    client.read_response("GET");
    assert_eq!(client.read_end(), Ending::Eof, "without an answer: nobody asked");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    proxy.access_of(client.local);
    assert_eq!(proxy.stop().2.len(), 1, "and without a line");
}

#[test]
fn each_request_starts_the_keepalive_timeout_anew() {
    let origin = answering(|_| ok("ok").into());
    // More than a machine may stand still for.
    let proxy = Proxy::open(&["--keepalive-timeout", "6"]);
    let mut client = proxy.wire();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(7_500) {
        client.get(&format!("http://{}/", origin.addr));
        assert_eq!(client.read_response("GET").text(), "ok");
        // The pause is what is tested.
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_second_head_has_its_own_head_timeout() {
    let (_proxy, origin, mut client) = scene(&["--head-timeout", "1"]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("ok"));
    client.read_response("GET");
    client.send("GET http://a");
    // Of --keepalive-timeout we would not see the end.
    let answer = client.read_last_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (408, "http_request_error"));
}

#[test]
fn no_response_in_time_is_504() {
    let (proxy, origin, mut client) = scene(&["--response-timeout", "1"]);
    let begun = Instant::now();
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    let response = client.read_response("GET");
    assert_eq!(response.status(), 504);
    assert!(response.field("proxy-status").unwrap().contains("error=http_response_timeout"), "{response:?}");
    assert!(response.text().contains("--response-timeout"), "{response:?}");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    assert_eq!(proxy.access_of(client.local).end, "http_response_timeout");
    assert_ne!(upstream.read_end(), Ending::Silence, "whoever is late is not heard any more");
}

// Drain.

/// Sends SIGTERM and waits until the loop knows: then it has closed its listener.
fn drains(proxy: &Proxy) {
    proxy.signal(Signal::TERM);
    until("the listener to be closed", || TcpStream::connect(proxy.addr).err());
}

#[test]
fn drain_ends_idle_connections() {
    let (mut proxy, origin, mut client) = scene(&[]);
    let (mut idle, mut upstreams) = (vec![], vec![]);
    for _ in 0..5 {
        client.get(&origin.url("/"));
        // Five at a time: the pool is full of them.
        upstreams.push(origin.accept());
        idle.push(std::mem::replace(&mut client, proxy.wire()));
    }
    for (client, upstream) in idle.iter_mut().zip(&mut upstreams) {
        upstream.read_request();
        upstream.send(ok("ok"));
        client.read_response("GET");
    }
    proxy.signal(Signal::TERM);
    // Of --keepalive-timeout and --grace we would not see the end.
    for connection in idle.iter_mut().chain(&mut upstreams) {
        assert_eq!(connection.read_end(), Ending::Eof);
    }
    // It has not sent a byte: who is connecting while the proxy is stopped may be about to ask, and is given a moment.
    drop(client);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn drain_lets_an_exchange_finish_and_says_that_it_is_the_last() {
    let (mut proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    drains(&proxy);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
    let mut response = client.read_head();
    assert_eq!(response.field("connection"), Some("close"), "{response:?}");
    upstream.send("other");
    response.framing = support::wire::Framing::Length;
    client.read_body(&mut response);
    assert_eq!((response.text().as_str(), response.cut), ("firstother", None));
    assert_eq!(client.read_end(), Ending::Eof);
    // Until it closes, or two seconds have passed, what it may still send is read: unread, it would reset the answer.
    drop(client);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn drain_in_the_middle_of_a_body_cuts_nothing() {
    let (mut proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let mut response = client.read_head();
    client.read_n(10);
    drains(&proxy);
    upstream.send("6\r\nsecond\r\n0\r\n\r\n");
    response.framing = support::wire::Framing::Chunked;
    client.read_body(&mut response);
    assert_eq!((response.text().as_str(), response.cut), ("second", None));
    assert_eq!(client.read_end(), Ending::Eof, "its head promised more, but there is no more");
    assert_eq!(proxy.ended().code(), Some(0));
}

/// Bodies whose end would be the end of the connection: with nothing else that tells it, and for a client that knows no chunks.
const UNTIL_CLOSE: [(&str, &str); 2] =
    [("1.1", "\r\npart"), ("1.0", "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")];

#[test]
fn an_end_of_our_own_leaves_a_body_visibly_cut() {
    for (grace, signals) in [("1", &[Signal::TERM][..]), ("600", &[Signal::TERM, Signal::INT])] {
        let (mut proxy, origin, _) = scene(&["--grace", grace]);
        let scenes = UNTIL_CLOSE.map(|(version, body)| {
            let mut client = proxy.wire();
            client.send(request("GET", &origin.url("/"), "").replace("HTTP/1.1", &format!("HTTP/{version}")));
            let mut upstream = origin.accept();
            upstream.read_request();
            upstream.send(format!("HTTP/1.1 200 OK\r\n{body}"));
            let mut response = client.read_head();
            assert_eq!(client.read_n(4), b"part", "{version}");
            response.framing = support::wire::Framing::UntilClose;
            (client, upstream, response)
        });
        for &signal in signals {
            proxy.signal(signal);
        }
        for (mut client, _upstream, mut response) in scenes {
            client.read_body(&mut response);
            assert_eq!(response.cut, Some(Ending::Reset), "{signals:?}: {response:?}");
            let access = proxy.access_of(client.local);
            assert_eq!((access.status.as_str(), access.end.as_str()), ("200", "grace"), "{}", access.line);
        }
        assert_eq!(proxy.ended().code(), Some(0));
    }
}

#[test]
fn who_takes_too_little_of_a_body_sees_that_it_was_not_all() {
    const LENGTH: usize = 16 << 20;
    let ends: [(&[&str], &[Signal], &str); 3] = [
        (&["--idle-timeout", "1"], &[], "idle_timeout"),
        (&["--grace", "1"], &[Signal::TERM], "grace"),
        (&["--grace", "600"], &[Signal::TERM, Signal::INT], "grace"),
    ];
    for (options, signals, end) in ends {
        let (proxy, origin, mut client) = scene(options);
        client.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        // All of it, and its end in order, as far as the kernel takes it; more than that takes without a reader.
        let sender = std::thread::spawn(move || {
            upstream.offer("HTTP/1.1 200 OK\r\n\r\n") && upstream.offer(vec![7; LENGTH])
        });
        assert_eq!(client.read_head().status(), 200);
        for &signal in signals {
            proxy.signal(signal);
        }
        assert_eq!(proxy.access_of(client.local).end, end);
        let (body, ending) = client.read_rest();
        assert_eq!(ending, Ending::Reset, "{end}: {} bytes", body.len());
        assert!(!sender.join().unwrap(), "all of it has been taken, and nothing was cut");
    }
}

// A tunnel is still a tunnel.

#[test]
fn connect_behind_plain_http_on_one_connection() {
    let (proxy, origin, mut client) = scene(&[]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("ok"));
    client.read_response("GET");
    client.send(support::client::connect_head(&origin.addr.to_string()) + "early");
    assert_eq!(client.read_head().status(), 200);
    let mut tunnel = origin.accept();
    assert_eq!(tunnel.read_n(5), b"early");
    tunnel.send("late");
    assert_eq!(client.read_n(4), b"late");
    client.finish();
    assert_eq!(tunnel.read_end(), Ending::Eof);
    tunnel.finish();
    assert_eq!(client.read_end(), Ending::Eof);
    let lines = [proxy.access_of(client.local), proxy.access_of(client.local)];
    assert_eq!((lines[0].method.as_str(), lines[1].method.as_str()), ("GET", "CONNECT"));
    assert_eq!((lines[1].up, lines[1].down), (5, 4));
    let mut again = Client::dial(proxy.addr);
    again.send_connect("127.0.0.1:1");
    assert_eq!(again.read_refusal().head.status, 502);
}

// The end.

#[test]
fn a_request_behind_an_answer_until_close_does_not_cost_a_byte_of_it() {
    let (_proxy, origin, _) = scene(&[]);
    let proxy = Proxy::open(&[]);
    let mut client = proxy.wire();
    // Too little for the answer: most of it waits in the kernel when the proxy is done with it.
    SockRef::from(&client.stream).set_recv_buffer_size(4096).unwrap();
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    let body = vec![b'x'; 150_000];
    upstream.send([b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat());
    drop(upstream);
    // The proxy has read all of it, and gives it to its kernel.
    Beside::of(&proxy).turns();
    client.get(&origin.url("/next"));
    Beside::of(&proxy).turns();
    let response = client.read_response("GET");
    assert_eq!((response.body.len(), response.cut), (body.len(), None));
}

// Names.

#[test]
fn what_is_left_of_a_lookup_is_not_the_next_requests_answer() {
    let hole = BlackHole::open();
    let (release, released) = mpsc::channel::<()>();
    let (released, a_answered) = (Mutex::new(released), AtomicBool::new(false));
    let dns = DnsServer::start(move |question| match (question.name.as_str(), question.qtype) {
        ("a.test", A) => {
            a_answered.store(true, Ordering::Relaxed);
            Answer::of(&["127.0.0.1"])
        }
        // Held back until the client has been told that the other address is silent.
        ("a.test", _) if a_answered.load(Ordering::Relaxed) => {
            released.lock().unwrap().recv().unwrap();
            Answer::of(&["::1"])
        }
        ("a.test", _) => Answer::Silent,
        _ => Answer::NxDomain,
    });
    let proxy = Proxy::asking(&dns, &["--dial-timeout", "2", "--resolve-timeout", "30"]);
    let mut client = proxy.wire();
    let url = |name: &str| format!("http://{name}:{}/", hole.addr.port());
    client.send(request("GET", &url("a.test"), "") + &request("GET", &url("b.test"), ""));
    let first = client.read_open_refusal();
    assert_eq!((first.head.status, first.error.as_str()), (504, "connection_timeout"));
    release.send(()).unwrap();
    let second = client.read_open_refusal();
    assert_eq!((second.head.status, second.error.as_str()), (502, "dns_error"), "{}", second.details);
}
