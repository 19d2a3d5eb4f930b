//! Clients that leave before they have an answer, and tunnels in which nothing moves. Here the clock is the point.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::client::{Client, connect_head};
use support::dns_server::{A, Answer, DnsServer};
use support::origin::{BlackHole, Origin, receive};
use support::proxy::Proxy;
use support::{Ending, until};

#[test]
fn fin_while_resolving_gets_two_seconds() {
    let dns = DnsServer::start(|_| Answer::Silent);
    let proxy = Proxy::asking(&dns, &["--resolve-timeout", "30"]);
    let mut client = proxy.client();
    client.send_connect("stuck.test:443");
    dns.asked();
    leaves_by_fin(&proxy, client);
    works_still(&proxy);
}

#[test]
fn reset_while_resolving_releases_at_once() {
    let dns = DnsServer::start(|_| Answer::Silent);
    let proxy = Proxy::asking(&dns, &["--resolve-timeout", "30"]);
    let mut client = proxy.client();
    client.send_connect("stuck.test:443");
    dns.asked();
    leaves_by_reset(&proxy, client);
    works_still(&proxy);
}

#[test]
fn fin_while_dialing_gets_two_seconds() {
    let hole = BlackHole::open();
    let proxy = Proxy::open(&["--dial-timeout", "30"]);
    let mut client = proxy.client();
    client.send_connect(&hole.addr.to_string());
    dials(&proxy, &hole);
    leaves_by_fin(&proxy, client);
    works_still(&proxy);
}

#[test]
fn reset_while_dialing_releases_at_once() {
    let hole = BlackHole::open();
    let proxy = Proxy::open(&["--dial-timeout", "30"]);
    let mut client = proxy.client();
    client.send_connect(&hole.addr.to_string());
    dials(&proxy, &hole);
    leaves_by_reset(&proxy, client);
    // The attempt is gone as well.
    until("the SYN to be given up", || syn_sent(&proxy, &hole).is_empty().then_some(()));
    works_still(&proxy);
}

#[test]
fn fin_while_resolving_and_the_answer_comes_in_time() {
    let origin = Origin::half_closer("pong");
    let (closed, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let dns = DnsServer::start(move |question| {
        if question.qtype == A {
            // Opens when the other end is dropped, and stays open.
            let _ = gate.lock().unwrap().recv();
            return Answer::of(&["127.0.0.1"]);
        }
        Answer::of(&[])
    });
    // Dropped before the server, also when the test fails.
    let gate = closed;
    let proxy = Proxy::asking(&dns, &[]);
    let mut client = proxy.client();
    client.send(connect_head(&format!("late.test:{}", origin.addr.port())) + "ping");
    client.finish();
    // The FIN is in the proxy's hands once a later client has been served.
    works_still(&proxy);
    drop(gate);
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_rest(), (b"pong".to_vec(), Ending::Eof));
}

fn leaves_by_fin(proxy: &Proxy, client: Client) {
    let started = Instant::now();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let access = proxy.access_of(client.local);
    let took = started.elapsed();
    assert_eq!(access.end, "client_left", "{}", access.line);
    // The point is the clock here: 2 s of grace, and not the 30 s of the timeouts, which are longer than we wait.
    assert!(took > Duration::from_millis(1900), "{took:?}");
}

fn leaves_by_reset(proxy: &Proxy, client: Client) {
    let local = client.local;
    client.reset();
    let access = proxy.access_of(local);
    // With a grace it would be another word.
    assert_eq!(access.end, "client_reset", "{}", access.line);
}

fn works_still(proxy: &Proxy) {
    let origin = Origin::echo();
    proxy.tunnel(&origin.addr.to_string()).echo(b"still here");
}

/// Waits until the proxy's SYN to the hole is out.
fn dials(proxy: &Proxy, hole: &BlackHole) {
    until("a SYN to the black hole", || syn_sent(proxy, hole).first().cloned());
}

/// The proxy's connections to the hole that wait for an answer, from `/proc/PID/net/tcp`. Those of the hole itself, which fill its queue,
/// are not counted: they belong to another process, so their inodes are not among the proxy's descriptors.
fn syn_sent(proxy: &Proxy, hole: &BlackHole) -> Vec<String> {
    let to = format!("0100007F:{:04X}", hole.addr.port());
    let mine: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", proxy.id()))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    proxy
        .proc_file("net/tcp")
        .lines()
        .map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
        // Remote address, state (02 is SYN_SENT), inode.
        .filter(|words| {
            words[2] == to && words[3] == "02" && mine.contains(&format!("socket:[{}]", words[9]))
        })
        .map(|words| words[9].clone())
        .collect()
}

// Timeouts of a tunnel. The clock is the point: one second each, where it is to be over.

/// Whether the kernel's keep-alive timer runs for the socket with these ports (proc_pid_net(5), `tcp`: timer 2).
fn is_watched_over(proxy: &Proxy, local_port: u16, remote_port: u16) -> bool {
    proxy.proc_file("net/tcp").lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1].ends_with(&format!(":{local_port:04X}"))
            && words[2].ends_with(&format!(":{remote_port:04X}"))
            && words[5].starts_with("02:")
    })
}

#[test]
fn a_tunnel_that_lasts_has_both_its_ends_asked_whether_they_are_there() {
    let echo = Origin::echo();
    let proxy = Proxy::open(&["--head-timeout", "1"]);
    let mut tunnel = proxy.tunnel(&echo.addr.to_string());
    tunnel.echo(b"hello");
    let ours = echo.accepted().port();
    until("the client to be watched over", || {
        is_watched_over(&proxy, proxy.addr.port(), tunnel.local.port()).then_some(())
    });
    until("the upstream to be watched over", || {
        is_watched_over(&proxy, ours, echo.addr.port()).then_some(())
    });
    tunnel.echo(b"still here");
}

#[test]
fn idle_tunnel_ends() {
    let (proxy, origin) = (Proxy::open(&["--idle-timeout", "1"]), Origin::echo());
    let started = Instant::now();
    let mut client = proxy.tunnel(&origin.addr.to_string());
    client.echo(b"x");
    client.read_rest();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_ne!(origin.seen().ending, Ending::Silence, "the origin's side ends as well");
    assert_eq!(proxy.access_of(client.local).end, "idle_timeout");
}

#[test]
fn idle_timeout_counts_both_directions_together() {
    // More than a machine may stand still for.
    let proxy = Proxy::open(&["--idle-timeout", "6"]);
    // 150 bytes in 7.5 s, all of them down: the silence upwards is no idleness.
    let origin = Origin::start(|mut stream| {
        for _ in 0..150 {
            std::thread::sleep(Duration::from_millis(50));
            drop(std::io::Write::write_all(&mut stream, b"."));
        }
        receive(&mut stream, |_| {})
    });
    let mut client = proxy.tunnel(&origin.addr.to_string());
    assert_eq!(client.read_n(150), [b'.'; 150]);
}

#[test]
fn half_open_tunnel_ends() {
    let (proxy, origin) = (Proxy::open(&["--half-open-timeout", "1"]), Origin::early_finisher("bye"));
    let started = Instant::now();
    let mut client = proxy.tunnel(&origin.addr.to_string());
    assert_eq!(client.read_rest(), (b"bye".to_vec(), Ending::Eof));
    assert_ne!(origin.seen().ending, Ending::Silence);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(proxy.access_of(client.local).end, "half_open_timeout");
}
