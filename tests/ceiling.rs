//! What happens when storage, descriptors or readers of the log run out, and that it is over when it is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;

use support::client::Client;
use support::dns_server::{Answer, DnsServer};
use support::http_origin::{ByHand, answering, url};
use support::origin::{Origin, receive};
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::wire::{Wire, ok, request};
use support::{Ending, until};

/// 2 MiB less 4 KiB for each of these sessions, and less what one loop takes besides, leaves four rings. Two are lent as a whole,
/// the others but for the last one in pieces. Nobody's time is over meanwhile.
const FOUR_RINGS: [&str; 8] =
    ["--buffer-memory", "2M", "--max-sessions", "360", "--access-log", "off", "--head-timeout", "600"];

/// A tunnel whose client reads nothing of an endless download: it holds storage, once the kernel's buffers are full.
fn hog(proxy: &Proxy, source: &Origin) -> Client {
    let mut hog = proxy.client();
    SockRef::from(&hog.stream).set_recv_buffer_size(4096).unwrap();
    hog.send_connect(&source.addr.to_string());
    hog.read_head();
    hog
}

/// The same in plain HTTP.
fn http_hog(proxy: &Proxy, source: &Origin) -> Client {
    let mut hog = proxy.client();
    SockRef::from(&hog.stream).set_recv_buffer_size(4096).unwrap();
    hog.send(request("GET", &url(source.addr, "/"), ""));
    assert_eq!(hog.read_head().status, 200);
    hog
}

/// Sends for ever, behind the head of a response if it is asked for one, and has all the time in the world.
fn endless(greeting: &'static str) -> Origin {
    Origin::start(move |stream| {
        let mut wire = Wire::from(stream);
        SockRef::from(&wire.stream).set_send_buffer_size(4096).unwrap();
        wire.stream.set_write_timeout(None).unwrap();
        if !greeting.is_empty() {
            wire.read_request();
        }
        wire.send(greeting);
        while wire.stream.write(&[7; 16_384]).is_ok() {}
        receive(&mut wire.stream, |_| {})
    })
}

/// Until all loops sleep, and are found asleep again and again.
fn at_rest(proxy: &Proxy) {
    let (mut last, mut looks) = (0, 0);
    until("all loops to sleep", || {
        let now = proxy.sleeps();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        (looks == 30).then_some(())
    });
}

#[test]
fn slow_readers_of_endless_downloads_disturb_nobody() {
    let (source, http_source) = (endless(""), endless("HTTP/1.1 200 OK\r\n\r\n"));
    let echo = Origin::echo();
    let answers = answering(|_| ok("ok").into_bytes());
    // As many for this memory as 2,000 for the default.
    let proxy = Proxy::open(&["--buffer-memory", "4M", "--access-log", "off"]);
    let mut tunnel = proxy.tunnel(&echo.addr.to_string());
    tunnel.echo([7; 20_000]);
    let before = proxy.resident_kib();
    let _hogs: Vec<Client> = (0..125)
        .map(|n| if n % 2 == 0 { hog(&proxy, &source) } else { http_hog(&proxy, &http_source) })
        .collect();
    at_rest(&proxy);
    let with = proxy.resident_kib();
    assert!(with <= before + 4 * 1024, "{before} KiB before, {with} KiB with them");
    for _ in 0..10 {
        tunnel.echo([7; 20_000]);
        proxy.tunnel(&echo.addr.to_string()).echo(b"who comes now is served");
        let mut client = proxy.wire();
        client.get(&url(answers.addr, "/"));
        assert_eq!(client.read_response("GET").text(), "ok");
    }
}

#[test]
fn huge_heads_that_do_not_end_stay_within_the_memory() {
    let echo = Origin::echo();
    let proxy = Proxy::open(&FOUR_RINGS);
    proxy.tunnel(&echo.addr.to_string()).echo([7; 20_000]);
    let before = proxy.resident_kib();
    let head = format!("GET http://a.test/ HTTP/1.1\r\nX: {}", "x".repeat(15 * 1024));
    let mut clients: Vec<Client> = (0..300).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(&head);
    }
    at_rest(&proxy);
    let with = proxy.resident_kib();
    assert!(with <= before + 2 * 1024, "{before} KiB before, {with} KiB with them");
    // Who fits waits for the rest, the others have been told.
    let waits = |client: &&Client| {
        client.stream.set_nonblocking(true).unwrap();
        client.stream.peek(&mut [0; 1]).is_err()
    };
    let waiting = clients.iter().filter(waits).count();
    assert!((1..clients.len()).contains(&waiting), "{waiting} wait");
}

#[test]
fn slow_heads_leave_storage_to_others() {
    let echo = Origin::echo();
    let proxy = Proxy::open(&FOUR_RINGS);
    let mut slow: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut slow {
        client.send("GET http://a.test/ HTTP/1.1\r\nHost:");
    }
    at_rest(&proxy);
    proxy.tunnel(&echo.addr.to_string()).echo(b"who comes now is served");
    // What was moved aside is not forgotten.
    for client in &mut slow {
        client.send(" a.test\r\n\r\n");
        assert_eq!(client.read_head().status, 502, "there is no such name");
    }
}

/// A client that is idle behind an answer.
fn idle(proxy: &Proxy, origin: &Origin) -> Wire {
    let mut client = proxy.wire();
    client.get(&url(origin.addr, "/"));
    assert_eq!(client.read_response("GET").text(), "ok");
    client
}

#[test]
fn the_longest_idle_client_makes_room_for_a_new_one() {
    let (echo, origin) = (Origin::echo(), answering(|_| ok("ok").into_bytes()));
    let proxy = Proxy::open(&["--max-sessions", "3"]);
    let mut tunnel = proxy.tunnel(&echo.addr.to_string());
    let (mut one, mut two) = (idle(&proxy, &origin), idle(&proxy, &origin));
    // The clock is the point: the loop's counts milliseconds.
    std::thread::sleep(Duration::from_millis(3));
    one.get(&url(origin.addr, "/"));
    assert_eq!(one.read_response("GET").text(), "ok");
    std::thread::sleep(Duration::from_millis(3));
    let mut three = idle(&proxy, &origin);
    assert_eq!(two.read_end(), Ending::Eof);
    std::thread::sleep(Duration::from_millis(3));
    one.get(&url(origin.addr, "/"));
    assert_eq!(one.read_response("GET").text(), "ok");
    let mut other = proxy.tunnel(&echo.addr.to_string());
    assert_eq!(three.read_end(), Ending::Eof);
    let last = proxy.tunnel(&echo.addr.to_string());
    assert_eq!(one.read_end(), Ending::Eof);
    assert_eq!(proxy.client().read_refusal().head.status, 503, "nobody is idle");
    drop(last);
    tunnel.echo(b"goes on");
    other.echo(b"as well");
}

#[test]
fn an_idle_client_of_another_loop_makes_room_too() {
    let (echo, origin) = (Origin::echo(), answering(|_| ok("ok").into_bytes()));
    let proxy = Proxy::open(&["--max-sessions", "8", "--loops", "2"]);
    let _idle: Vec<Wire> = (0..8).map(|_| idle(&proxy, &origin)).collect();
    // However the kernel spreads them.
    let mut tunnels: Vec<Client> = (0..8).map(|_| proxy.tunnel(&echo.addr.to_string())).collect();
    for tunnel in &mut tunnels {
        tunnel.echo(b"served");
    }
}

#[test]
fn other_loops_are_asked_for_every_client_beyond_the_limit() {
    let (echo, origin) = (Origin::echo(), ByHand::open());
    // Whoever is on which loop: in one round of four the last client comes to the loop of the one before, the idle one is on
    // the other.
    for _ in 0..24 {
        let proxy = Proxy::open(&["--max-sessions", "2", "--loops", "2"]);
        let _tunnel = proxy.tunnel(&echo.addr.to_string());
        let mut busy = proxy.wire();
        busy.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        assert_eq!(proxy.client().read_refusal().head.status, 503, "nobody is idle");
        upstream.send(ok("ok"));
        assert_eq!(busy.read_response("GET").text(), "ok");
        proxy.tunnel(&echo.addr.to_string()).echo(b"served");
        assert_eq!(busy.read_end(), Ending::Eof, "which has given way");
    }
}

#[test]
fn no_more_idle_clients_are_given_up_than_are_needed() {
    const ALL: usize = 12;
    let (echo, origin) = (Origin::echo(), answering(|_| ok("ok").into_bytes()));
    for _ in 0..4 {
        let proxy = Proxy::open(&["--max-sessions", "12", "--loops", "2"]);
        let idle: Vec<Wire> = (0..ALL).map(|_| idle(&proxy, &origin)).collect();
        let mut tunnels = Vec::new();
        while tunnels.len() < ALL {
            tunnels.push(proxy.tunnel(&echo.addr.to_string()));
            let is_open = |client: &&Wire| {
                client.stream.set_nonblocking(true).unwrap();
                client.stream.peek(&mut [0; 1]).is_err()
            };
            assert_eq!(idle.iter().filter(is_open).count(), ALL - tunnels.len());
        }
    }
}

#[test]
fn all_of_a_crowd_beyond_the_limit_find_a_place() {
    let (echo, origin) = (Origin::echo(), answering(|_| ok("ok").into_bytes()));
    let proxy = Proxy::open(&["--max-sessions", "200", "--loops", "3"]);
    let _idle: Vec<Wire> = (0..200).map(|_| idle(&proxy, &origin)).collect();
    let mut crowd: Vec<Client> = (0..200).map(|_| proxy.client()).collect();
    for client in &mut crowd {
        client.send_connect(&echo.addr.to_string());
    }
    for client in &mut crowd {
        assert_eq!(client.read_head().status, 200);
    }
}

#[test]
fn idle_clients_make_room_when_descriptors_run_out() {
    let (echo, origin) = (Origin::echo(), answering(|_| ok("ok").into_bytes()));
    let proxy = Launch::new(&ALLOW_LOOPBACK).descriptors(40).start();
    let mut tunnel = proxy.tunnel(&echo.addr.to_string());
    let _idle: Vec<Wire> = (0..100).map(|_| idle(&proxy, &origin)).collect();
    tunnel.echo(b"goes on");
    assert!(proxy.log.all().iter().all(|line| !line.contains(" WARN ")), "{:#?}", proxy.log.all());
}

#[test]
fn idle_connections_of_another_loop_make_room_too() {
    let origin = answering(|_| ok("ok").into_bytes());
    let proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &["--loops", "2"]].concat()).descriptors(50).start();
    let mut held: Vec<Wire> = (0..100).map(|_| idle(&proxy, &origin)).collect();
    // All that are left are of the loop that was asked last; the other one is served all the same.
    for _ in 0..20 {
        held.push(idle(&proxy, &origin));
    }
}

#[test]
fn an_idle_client_of_another_loop_makes_room_for_a_dial() {
    const CLOSING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let (echo, origin) = (Origin::echo(), answering(|_| CLOSING.into()));
    // In every other round the idle one is on the other loop.
    for _ in 0..12 {
        let options = [&ALLOW_LOOPBACK[..], &["--loops", "2", "--head-timeout", "600"]].concat();
        let proxy = Launch::new(&options).descriptors(40).start();
        at_rest(&proxy);
        let accepted = || {
            let before = proxy.descriptors_within(40);
            let client = proxy.client();
            until("it to be accepted", || (proxy.descriptors_within(40) > before).then_some(()));
            client
        };
        let (mut last, mut dials) = (accepted(), accepted());
        let before = proxy.descriptors_within(40);
        let idle = idle(&proxy, &origin);
        until("its upstream to be closed", || (proxy.descriptors_within(40) == before + 1).then_some(()));
        let mut silent = Vec::new();
        while proxy.descriptors_within(40) < 39 {
            silent.push(accepted());
        }
        at_rest(&proxy);
        // Accepting would make room itself if it found no descriptor left.
        last.send_connect(&echo.addr.to_string());
        assert_eq!((last.read_head().status, proxy.descriptors_within(40)), (200, 40));
        idle.stream.set_nonblocking(true).unwrap();
        idle.stream.peek(&mut [0; 1]).expect_err("it has not given way yet");
        dials.send_connect(&echo.addr.to_string());
        assert_eq!(dials.read_head().status, 200);
        dials.echo(b"served");
    }
}

#[test]
fn idle_clients_make_room_for_a_lookup() {
    let (echo, origin) = (Origin::echo(), answering(|_| ok("ok").into_bytes()));
    let dns = DnsServer::start(|_| Answer::of(&["127.0.0.1"]));
    let server = dns.addr.to_string();
    let options = [&ALLOW_LOOPBACK[..], &["--nameserver", &server]].concat();
    // With whatever is left for the last one.
    for limit in 40..44 {
        let proxy = Launch::new(&options).descriptors(limit).start();
        let _idle: Vec<Wire> = (0..30).map(|_| idle(&proxy, &origin)).collect();
        for n in 0..5 {
            proxy.tunnel(&format!("name{n}.test:{}", echo.addr.port())).echo(b"found");
        }
    }
}

/// Downloads that hold all storage, from an origin with a lot at once. Tunnels would not; and those who come when nothing is left are
/// told so, or wait.
fn hogs(proxy: &Proxy) -> (Origin, Vec<Client>) {
    let source = Origin::start(move |stream| {
        let mut wire = Wire::from(stream);
        wire.stream.set_write_timeout(None).unwrap();
        wire.read_request();
        wire.send("HTTP/1.1 200 OK\r\n\r\n");
        while wire.stream.write(&[7; 65_536]).is_ok() {}
        receive(&mut wire.stream, |_| {})
    });
    let hogs = (0..20).map(|_| {
        let mut hog = proxy.client();
        SockRef::from(&hog.stream).set_recv_buffer_size(4096).unwrap();
        hog.send(request("GET", &url(source.addr, "/"), ""));
        // One after the other, for their heads need storage as well.
        hog.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        drop(hog.stream.peek(&mut [0; 1]));
        hog
    });
    let hogs = hogs.collect();
    at_rest(proxy);
    let mut refused = proxy.client();
    refused.send_connect("a.test:443");
    assert_eq!(refused.read_head().status, 503, "all is held");
    (source, hogs)
}

#[test]
fn without_storage_tunnels_go_on_and_requests_are_refused() {
    let echo = Origin::echo();
    let proxy = Proxy::open(&FOUR_RINGS);
    let mut tunnel = proxy.tunnel(&echo.addr.to_string());
    let (_source, hogs) = hogs(&proxy);
    let mut refused = proxy.client();
    refused.send_connect(&echo.addr.to_string());
    let answer = refused.read_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (503, "connection_limit_reached"));
    assert!(answer.details.contains("--buffer-memory") && answer.head.header("retry-after").is_some());
    for size in [1, 100, 20_000, 100_000] {
        tunnel.echo(vec![7; size]);
    }
    proxy.log.wait("that it is short", |line| line.contains("--buffer-memory is used up"));
    drop(hogs);
    until("it to be told that it is over", || {
        tunnel.echo(b"and on");
        proxy.log.all().iter().any(|line| line.contains("--buffer-memory suffices again")).then_some(())
    });
}

#[test]
fn slow_tunnels_leave_half_of_the_storage() {
    let (source, echo) = (Origin::endless(), Origin::echo());
    let answers = answering(|_| ok("ok").into_bytes());
    let proxy = Proxy::open(&FOUR_RINGS);
    let _hogs: Vec<Client> = (0..60).map(|_| hog(&proxy, &source)).collect();
    at_rest(&proxy);
    for _ in 0..20 {
        proxy.tunnel(&echo.addr.to_string()).echo([7; 20_000]);
        let mut client = proxy.wire();
        client.get(&url(answers.addr, "/"));
        assert_eq!(client.read_response("GET").text(), "ok");
    }
}

#[test]
fn everybody_beyond_the_limit_of_sessions_is_told_why() {
    let echo = Origin::echo();
    let proxy = Proxy::open(&["--max-sessions", "1"]);
    let _tunnel = proxy.tunnel(&echo.addr.to_string());
    // More than there are places for lingering; nobody goes away meanwhile.
    let mut refused: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut refused {
        let answer = client.read_refusal();
        assert_eq!((answer.head.status, answer.error.as_str()), (503, "connection_limit_reached"));
        assert!(answer.details.contains("--max-sessions"));
    }
    for client in &refused {
        assert_eq!(proxy.access_of(client.local).status, "503");
    }
}

#[test]
fn without_storage_sessions_still_end() {
    let echo = Origin::echo();
    let proxy = Proxy::open(&FOUR_RINGS);
    let idle: Vec<Client> = (0..20).map(|_| proxy.tunnel(&echo.addr.to_string())).collect();
    let _hogs = hogs(&proxy);
    let before = proxy.descriptors();
    for client in idle {
        client.reset();
    }
    until("their descriptors to be free", || (proxy.descriptors() + 40 <= before).then_some(()));
}

#[test]
fn a_reset_is_passed_on_while_the_other_side_takes_nothing() {
    let deaf = Origin::deaf();
    let proxy = Proxy::open(&[]);
    let before = proxy.descriptors();
    let mut client = proxy.tunnel(&deaf.addr.to_string());
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.stream.write(&[7; 65536]).is_ok() {}
    let local = client.local;
    client.reset();
    until("both descriptors to be free", || (proxy.descriptors() <= before).then_some(()));
    assert_eq!(proxy.access_of(local).end, "client_reset");
}

#[test]
fn urgent_data_is_passed_on_with_the_rest() {
    let echo = Origin::echo();
    let proxy = Proxy::open(&[]);
    let mut client = proxy.tunnel(&echo.addr.to_string());
    for _ in 0..5 {
        client.stream.write_all(b"abc").unwrap();
        SockRef::from(&client.stream).send_out_of_band(b"!").unwrap();
        client.stream.write_all(b"def").unwrap();
        let mut echoed = [0; 7];
        client.stream.read_exact(&mut echoed).expect("nothing is left behind the mark");
        assert_eq!(&echoed, b"abc!def");
    }
}

#[test]
fn descriptors_exhausted_by_the_last_client_in_the_queue() {
    // The first call that fails meets an empty queue: nobody waits, and nothing may go round and round because of it.
    let options = [&ALLOW_LOOPBACK[..], &["--head-timeout", "600"]].concat();
    let proxy = Launch::new(&options).descriptors(40).start();
    let mut clients = Vec::new();
    let at_rest = proxy.descriptors();
    while proxy.descriptors_within(40) < 40 {
        let before = proxy.descriptors();
        clients.push(proxy.client());
        until("it to be accepted", || (proxy.descriptors() > before).then_some(()));
    }
    proxy.log.wait("the exhaustion", |line| line.contains("not accepting connections"));
    drop(clients);
    until("all to be gone", || (proxy.descriptors() <= at_rest).then_some(()));
    let before = proxy.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let ticks = proxy.cpu_ticks() - before;
    assert!(ticks <= 5, "{} ms of CPU in an idle second behind the exhaustion", ticks * 10);
    // Long before --grace is over.
    let (status, ..) = proxy.stop();
    assert!(status.success(), "{status}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let echo = Origin::echo();
    let proxy =
        Launch::new(&[&ALLOW_LOOPBACK[..], &["-v", "--deny", "blocked.test"]].concat()).start_unread_log();
    let mut tunnel = proxy.tunnel(&echo.addr.to_string());
    // Each refusal is a line of the log with -v, far more than the pipe takes.
    for _ in 0..200 {
        let mut client = proxy.client();
        client.send_connect("blocked.test:443");
        assert_eq!(client.read_refusal().head.status, 403);
    }
    tunnel.echo(b"goes on");
}

#[test]
fn a_full_disk_is_said_once() {
    let proxy = Proxy::start(&["--access-log", "/dev/full", "--deny", "blocked.test"]);
    for _ in 0..5 {
        let mut client = proxy.client();
        client.send_connect("blocked.test:443");
        client.read_refusal();
        drop(client);
        // Longer than lines are collected.
        std::thread::sleep(Duration::from_millis(150));
    }
    let (_, log, _) = proxy.stop();
    let warnings: Vec<&String> = log.iter().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 2, "when it begins and, with the number of lines, at the end: {warnings:#?}");
    assert!(warnings[1].contains("5 lines"), "{warnings:#?}");
}

#[test]
fn memory_returns_when_a_crowd_has_left() {
    const TUNNELS: usize = 400;
    /// What the table of sessions takes for them, at least.
    const KIB: u64 = TUNNELS as u64 * 320 / 1024;
    // Clients and origin are threads of this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let origin = Origin::echo();
    let proxy = Proxy::open(&["--access-log", "off"]);
    let open = || {
        let mut tunnels: Vec<Client> = (0..TUNNELS).map(|_| proxy.tunnel(&origin.addr.to_string())).collect();
        tunnels.iter_mut().for_each(|tunnel| tunnel.echo(b"hello"));
        tunnels
    };
    for _ in 0..2 {
        let tunnels = open();
        let with_all = proxy.resident_kib();
        drop(tunnels);
        until("memory to return", || (proxy.resident_kib() + KIB <= with_all).then_some(()));
    }
}
