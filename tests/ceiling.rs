//! What happens when storage, descriptors or readers of the log run out, and that it is over when it is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use socket2::SockRef;

use support::client::Client;
use support::origin::Origin;
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::until;

/// 2 MiB less 4 KiB for each of these sessions, and less what one loop takes besides, leaves four rings.
const FOUR_RINGS: [&str; 6] = ["--buffer-memory", "2M", "--max-sessions", "376", "--access-log", "off"];

/// A tunnel whose client reads nothing of an endless download: it holds a ring, once the kernel's buffers are full.
fn hog(proxy: &Proxy, source: &Origin) -> Client {
    let mut hog = proxy.client();
    SockRef::from(&hog.stream).set_recv_buffer_size(4096).unwrap();
    hog.send_connect(&source.addr.to_string());
    assert_eq!(hog.read_head().status, 200);
    hog
}

/// Four tunnels that hold all rings.
fn hogs(proxy: &Proxy, source: &Origin) -> Vec<Client> {
    let hogs: Vec<Client> = (0..4).map(|_| hog(proxy, source)).collect();
    // With no ring left a new request is told so.
    until("all rings to be held", || {
        let mut client = proxy.client();
        client.send_connect("a.test:443");
        (client.read_head().status == 503).then_some(())
    });
    hogs
}

#[test]
fn without_storage_tunnels_wait_and_requests_are_refused() {
    let (source, echo) = (Origin::endless(), Origin::echo());
    let proxy = Proxy::open(&FOUR_RINGS);
    let mut tunnel = proxy.tunnel(&echo.addr.to_string());
    let mut hogs = hogs(&proxy, &source);
    let mut refused = proxy.client();
    refused.send_connect(&echo.addr.to_string());
    let answer = refused.read_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (503, "connection_limit_reached"));
    assert!(answer.details.contains("--buffer-memory") && answer.head.header("retry-after").is_some());
    // Requests that were refused for want of storage do not stand in the way of those who wait for it.
    for _ in 0..50 {
        let mut client = proxy.client();
        client.stream.write_all(b"C").unwrap();
        client.read_refusal();
    }
    tunnel.stream.write_all(b"later").unwrap();
    tunnel.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    tunnel.stream.read_exact(&mut [0; 1]).expect_err("no ring, no byte");
    let freed = Instant::now();
    drop(hogs.pop());
    let mut echoed = [0; 5];
    tunnel.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tunnel.stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"later");
    assert!(
        freed.elapsed() < Duration::from_secs(1),
        "it waited {:?} for a ring that was free",
        freed.elapsed()
    );
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
    let (source, echo) = (Origin::endless(), Origin::echo());
    let proxy = Proxy::open(&FOUR_RINGS);
    let idle: Vec<Client> = (0..20).map(|_| proxy.tunnel(&echo.addr.to_string())).collect();
    let _hogs = hogs(&proxy, &source);
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
    let proxy = Launch::new(&ALLOW_LOOPBACK).descriptors(40).start();
    let mut clients = Vec::new();
    let at_rest = proxy.descriptors();
    while proxy.descriptors() < 40 {
        let before = proxy.descriptors();
        clients.push(proxy.client());
        until("it to be accepted", || (proxy.descriptors() > before).then_some(()));
    }
    drop(clients);
    until("all to be gone", || (proxy.descriptors() <= at_rest).then_some(()));
    let before = proxy.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let ticks = proxy.cpu_ticks() - before;
    assert!(ticks <= 5, "{} ms of CPU in an idle second behind the exhaustion", ticks * 10);
    let started = Instant::now();
    let (status, ..) = proxy.stop();
    assert!(
        status.success() && started.elapsed() < Duration::from_secs(3),
        "draining took {:?}",
        started.elapsed()
    );
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
