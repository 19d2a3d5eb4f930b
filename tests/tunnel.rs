//! CONNECT tunnels, end to end on the real binary. Scenarios that make sense without a proxy also run straight to the origin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::client::{Client, connect_head};
use support::origin::{Origin, receive, send_pattern};
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::{Ending, Road};

both_roads!(
    echoes,
    server_speaks_first,
    client_half_closes_and_gets_its_answer,
    origin_half_closes_and_goes_on_reading,
    origin_that_closes_at_once,
    reset_by_the_client_reaches_the_origin,
    reset_by_the_origin_reaches_the_client,
    bulk_both_ways_at_once,
    a_slow_reader_gets_everything,
    last_bytes_and_fin_in_one_segment,
    two_hundred_at_once,
);

fn echoes(road: &Road) {
    let origin = Origin::echo();
    let mut client = road.open(origin.addr);
    client.echo(b"hello");
    client.echo([0, 255, 13, 10, 13, 10, 0]);
    client.finish();
    assert_eq!(client.read_rest(), (vec![], Ending::Eof));
    assert_eq!(origin.seen().bytes, 12);
}

fn server_speaks_first(road: &Road) {
    let origin = Origin::greeter("220 mail.test ready\r\n");
    let mut client = road.open(origin.addr);
    assert_eq!(client.read_n(21), b"220 mail.test ready\r\n");
    client.echo(b"EHLO client.test\r\n");
}

fn client_half_closes_and_gets_its_answer(road: &Road) {
    let origin = Origin::half_closer("the answer");
    let mut client = road.open(origin.addr);
    client.send(b"the question");
    client.finish();
    assert_eq!(client.read_rest(), (b"the answer".to_vec(), Ending::Eof));
    let seen = origin.seen();
    assert_eq!((seen.bytes, seen.ending), (12, Ending::Eof));
}

fn origin_half_closes_and_goes_on_reading(road: &Road) {
    let origin = Origin::early_finisher("all I have to say");
    let mut client = road.open(origin.addr);
    assert_eq!(client.read_rest(), (b"all I have to say".to_vec(), Ending::Eof));
    let sent = send_pattern(&mut client.stream, 5, 300_000);
    client.finish();
    let seen = origin.seen();
    assert_eq!((seen.bytes, seen.ending), (300_000, Ending::Eof));
    assert_eq!(seen.sha256, sent);
}

fn origin_that_closes_at_once(road: &Road) {
    let origin = Origin::closer();
    let mut client = road.open(origin.addr);
    assert_eq!(client.read_rest(), (vec![], Ending::Eof));
}

fn reset_by_the_client_reaches_the_origin(road: &Road) {
    let origin = Origin::echo();
    let mut client = road.open(origin.addr);
    client.echo(b"x");
    client.reset();
    let seen = origin.seen();
    assert_eq!((seen.bytes, seen.ending), (1, Ending::Reset));
}

fn reset_by_the_origin_reaches_the_client(road: &Road) {
    let origin = Origin::resetter();
    let mut client = road.open(origin.addr);
    client.send(b"x");
    assert_eq!(client.read_rest(), (vec![], Ending::Reset));
}

fn bulk_both_ways_at_once(road: &Road) {
    const BYTES: u64 = 64 * 1024 * 1024;
    let origin = Origin::both_ways(1, BYTES);
    let mut client = road.open(origin.addr);
    let mut out = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let sha256 = send_pattern(&mut out, 2, BYTES);
        out.shutdown(std::net::Shutdown::Write).unwrap();
        sha256
    });
    let down = receive(&mut client.stream, |_| {});
    let sent_up = sender.join().unwrap();
    let up = origin.seen();
    assert_eq!((down.bytes, down.ending), (BYTES, Ending::Eof));
    assert_eq!((up.bytes, up.ending), (BYTES, Ending::Eof));
    assert_eq!(up.sha256, sent_up, "up arrives as it was sent");
    assert_eq!(down.sha256, pattern_hash(1, BYTES), "down arrives as it was sent");
}

fn a_slow_reader_gets_everything(road: &Road) {
    const BYTES: u64 = 16 * 1024 * 1024;
    let (source, echo) = (Origin::source(3, BYTES), Origin::echo());
    let mut slow = road.open(source.addr);
    // It holds nobody up: the others go on while its bytes wait.
    let mut other = road.open(echo.addr);
    for _ in 0..100 {
        other.echo([7; 1000]);
    }
    let all = receive(&mut slow.stream, |_| {});
    assert_eq!((all.bytes, all.ending), (BYTES, Ending::Eof));
    assert_eq!(all.sha256, pattern_hash(3, BYTES));
}

fn last_bytes_and_fin_in_one_segment(road: &Road) {
    // A short read that is taken for "drained" loses the end of file (`kernel_facts::fin_with_data_shares_one_edge`).
    let origin = Origin::half_closer("bye");
    for _ in 0..50 {
        let mut client = road.open(origin.addr);
        // Corked, the bytes wait for the FIN and leave with it.
        socket2::SockRef::from(&client.stream).set_tcp_nodelay(false).unwrap();
        socket2::SockRef::from(&client.stream).set_tcp_cork(true).unwrap();
        client.send(b"last words");
        client.finish();
        assert_eq!(client.read_rest(), (b"bye".to_vec(), Ending::Eof));
        assert_eq!(origin.seen().bytes, 10);
    }
}

fn two_hundred_at_once(road: &Road) {
    let origin = Origin::echo();
    let mut clients: Vec<Client> = (0..200).map(|_| road.open(origin.addr)).collect();
    for round in 0..3_u8 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send([round, u8::try_from(n).unwrap(), 42]);
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read_n(3), [round, u8::try_from(n).unwrap(), 42], "each gets its own bytes");
        }
    }
}

fn pattern_hash(seed: u64, bytes: u64) -> Vec<u8> {
    let (mut pattern, mut tally) = (support::Pattern::new(seed), support::Tally::new());
    let mut buf = vec![0; 64 * 1024];
    while tally.bytes < bytes {
        pattern.fill(&mut buf);
        tally.add(&buf);
    }
    tally.sha256()
}

/// When this returns, the proxy's (only) loop has served everything that was sent to it before: a round trip through a tunnel
/// that stands takes it two turns.
fn a_turn(of: &mut Client) {
    of.echo(b".");
}

// The head.

#[test]
fn success_is_exactly_these_bytes() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::greeter("first"));
    let mut client = proxy.client();
    client.send_connect(&origin.addr.to_string());
    let head = client.read_head();
    let wanted = format!(
        "HTTP/1.1 200 Connection established\r\nProxy-Agent: adit/{}\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(head.raw, wanted);
    assert_eq!(client.read_n(5), b"first", "nothing stands between the head and the tunnel");
}

#[test]
fn http_1_0_client_is_served_alike() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    let mut client = proxy.client();
    client.send(format!("CONNECT {} HTTP/1.0\r\n\r\n", origin.addr));
    assert_eq!(client.read_head().status, 200);
    client.echo(b"hello");
}

#[test]
fn content_length_zero_means_nothing() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    let mut client = proxy.client();
    client.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nContent-Length: 0\r\n\r\nhello", origin.addr));
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_n(5), b"hello");
}

#[test]
fn fields_of_real_clients_are_fine() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    let mut client = proxy.client();
    client.send(format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nUser-Agent: curl/8.5.0\r\nProxy-Connection: Keep-Alive\r\nX-Empty:\r\n\
         Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n",
        origin.addr
    ));
    assert_eq!(client.read_head().status, 200);
    client.echo(b"hello");
    drop(client);
    let (_, log, access) = proxy.stop();
    let all = format!("{log:?}{access:?}");
    assert!(
        !all.contains("YWxpY2U6c2VjcmV0") && !all.contains("alice"),
        "credentials are never logged: {all}"
    );
}

#[test]
fn early_data_behind_the_head_in_one_segment() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    let mut client = proxy.client();
    client.send(connect_head(&origin.addr.to_string()) + "early bird");
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_n(10), b"early bird");
    client.echo(b"and on");
    client.finish();
    assert_eq!(client.read_rest(), (vec![], Ending::Eof));
    let access = proxy.access_of(client.local);
    assert_eq!((access.up, access.down), (16, 16));
}

#[test]
fn early_data_larger_than_any_buffer() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::half_closer("got it"));
    let mut client = proxy.client();
    client.send_connect(&origin.addr.to_string());
    // Nobody waits for the 200 here.
    let sent = send_pattern(&mut client.stream, 9, 1_000_000);
    client.finish();
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_rest(), (b"got it".to_vec(), Ending::Eof));
    let seen = origin.seen();
    assert_eq!((seen.bytes, seen.sha256), (1_000_000, sent));
}

#[test]
fn everything_and_a_fin_at_once() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::half_closer("pong"));
    let mut client = proxy.client();
    client.send(connect_head(&origin.addr.to_string()) + "ping");
    client.finish();
    assert_eq!(client.read_head().status, 200, "a half-closing client still wants its answer");
    assert_eq!(client.read_rest(), (b"pong".to_vec(), Ending::Eof));
    assert_eq!(proxy.access_of(client.local).end, "done");
}

#[test]
fn head_dribbled_a_byte_at_a_time() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    let mut beside = proxy.tunnel(&origin.addr.to_string());
    let mut client = proxy.client();
    for byte in connect_head(&origin.addr.to_string()).bytes() {
        a_turn(&mut beside);
        client.send([byte]);
    }
    assert_eq!(client.read_head().status, 200);
    client.echo(b"hello");
}

#[test]
fn head_split_at_every_position() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    let mut beside = proxy.tunnel(&origin.addr.to_string());
    let whole = format!("CONNECT {} HTTP/1.0\r\n\r\nearly", origin.addr);
    let mut clients: Vec<(usize, Client)> = (1..whole.len()).map(|at| (at, proxy.client())).collect();
    for (at, client) in &mut clients {
        client.send(&whole[..*at]);
    }
    a_turn(&mut beside);
    for (at, client) in &mut clients {
        client.send(&whole[*at..]);
    }
    for (at, client) in &mut clients {
        assert_eq!(client.read_head().status, 200, "split behind byte {at}");
        assert_eq!(client.read_n(5), b"early", "split behind byte {at}");
    }
}

// Several loops.

#[test]
fn several_loops_share_one_port() {
    let origin = Origin::echo();
    let proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &["-n", "2"]].concat()).start();
    let mut clients: Vec<Client> = (0..40).map(|_| proxy.tunnel(&origin.addr.to_string())).collect();
    for client in &mut clients {
        client.echo(b"hello");
    }
    let locals: Vec<_> = clients.iter().map(|client| client.local).collect();
    drop(clients);
    for local in locals {
        assert_eq!(proxy.access_of(local).status, "200", "every loop writes its access lines");
    }
    assert!(proxy.stop().0.success());
}

// The access line.

#[test]
fn access_line_of_a_tunnel() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    let mut client = proxy.tunnel(&origin.addr.to_string());
    client.echo(b"twelve bytes");
    assert_eq!(proxy.access.all(), [""; 0], "the line comes when the tunnel ends");
    client.finish();
    assert_eq!(client.read_rest(), (vec![], Ending::Eof));
    let access = proxy.access_of(client.local);
    let (time, _) = access.line.split_once(' ').unwrap();
    let (dial, total) = (access.dial.unwrap(), access.total);
    let wanted = format!(
        "{time} {} - CONNECT {1} 200 via={1} rule=allow:127.0.0.0/8 up=12 down=12 dns=- dial={dial} total={total} end=done",
        client.local, origin.addr
    );
    assert_eq!(access.line, wanted);
    assert!(dial <= total && total < 20_000, "{}", access.line);
    assert_eq!(proxy.stop().2.len(), 1, "one line an exchange");
}

#[test]
fn access_line_tells_who_reset() {
    let proxy = Proxy::open(&[]);
    let origin = Origin::echo();
    let mut client = proxy.tunnel(&origin.addr.to_string());
    client.echo(b"x");
    let local = client.local;
    client.reset();
    assert_eq!(proxy.access_of(local).end, "client_reset");
    let origin = Origin::resetter();
    let mut client = proxy.tunnel(&origin.addr.to_string());
    client.send(b"x");
    assert_eq!(client.read_rest().1, Ending::Reset);
    let access = proxy.access_of(client.local);
    assert_eq!((access.end.as_str(), access.up), ("upstream_reset", 1));
}

#[test]
fn a_client_without_a_request_leaves_no_line() {
    let (proxy, origin) = (Proxy::open(&[]), Origin::echo());
    drop(proxy.client());
    drop(proxy.tunnel(&origin.addr.to_string()));
    let (_, _, access) = proxy.stop();
    assert_eq!(access.len(), 1, "{access:?}");
}
