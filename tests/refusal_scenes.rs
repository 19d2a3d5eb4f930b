//! Refusals that need a scene of their own: limits, timeouts, destinations that fail, and what may never happen beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::Ending;
use support::client::{Answer as Refusal, Client, connect_head};
use support::dns_server::{Answer, DnsServer};
use support::origin::{BlackHole, Origin, Refusing};
use support::proxy::{Launch, Proxy};

#[test]
fn access_line_of_a_refusal() {
    let proxy = Proxy::start(&["--deny", ".blocked.test"]);
    let mut client = proxy.client();
    client.send_connect("WWW.Blocked.Test.:443");
    let (raw, _) = client.read_rest();
    let local = client.local;
    drop(client);
    let access = proxy.access_of(local);
    let (time, _) = access.line.split_once(' ').unwrap();
    let wanted = format!(
        "{time} {local} - CONNECT www.blocked.test:443 403 via=- rule=deny:.blocked.test up=0 down={} dns=- dial=- \
         total={} end=http_request_denied",
        raw.len(),
        access.total
    );
    assert_eq!(access.line, wanted);
}

#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    let origin = Origin::echo();
    let proxy = Proxy::open(&["--deny", "blocked.test"]);
    let mut client = proxy.client();
    client.send(connect_head("blocked.test:443") + &connect_head(&origin.addr.to_string()));
    assert_eq!(client.read_refusal().head.status, 403, "one answer, then the end");
    drop(client);
    // A later request has been served: the pipelined one would have been before.
    proxy.tunnel(&origin.addr.to_string()).echo(b"x");
    assert_eq!(origin.accepted_so_far(), 1);
}

#[test]
fn a_refusal_never_reflects_the_request() {
    let proxy = Proxy::start(&[]);
    for request in [
        "CONNECT <script>:443 HTTP/1.1\r\nHost: <script>\r\n\r\n",
        "CONNECT a.test:80 HTTP/1.1\r\nHost: <script>\r\nX: <script>\r\n\r\n",
        "GET /<script> HTTP/1.1\r\nHost: <script>\r\n\r\n",
        "CONNECT user:<script>@a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: <script>\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.send(request);
        let answer = client.read_refusal();
        assert!(!format!("{answer:?}").contains("script"), "{answer:?}");
    }
    let (_, log, access) = proxy.stop();
    assert!(!format!("{log:?}{access:?}").contains("script"), "{log:?} {access:?}");
}

#[test]
fn via_names_the_proxy_in_proxy_status() {
    let proxy = Proxy::start(&["--via", "edge-7"]);
    let mut client = proxy.client();
    client.send_connect("a.test:80");
    let head = client.read_head();
    let status = head.header("proxy-status").unwrap();
    assert!(status.starts_with("edge-7; error=http_request_denied; "), "{status}");
}

#[test]
fn head_not_complete_in_time() {
    let proxy = Proxy::start(&["--head-timeout", "1"]);
    let started = Instant::now();
    let mut client = proxy.client();
    client.send("CONNECT a.test:443 HTTP/1.1\r\nHost: a");
    // Every byte more is no reason to wait longer: the time is for the whole head.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        client.send("a");
    }
    let answer = client.read_refusal();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((answer.head.status, answer.error.as_str()), (408, "http_request_error"));
    assert!(answer.details.contains("--head-timeout"), "{}", answer.details);
    let local = client.local;
    drop(client);
    let access = proxy.access_of(local);
    assert_eq!((access.status.as_str(), access.end.as_str()), ("408", "http_request_error"));
}

#[test]
fn a_client_that_never_says_anything_is_closed() {
    let proxy = Proxy::start(&["--head-timeout", "1"]);
    let started = Instant::now();
    let mut client = proxy.client();
    let (_, ending) = client.read_rest();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(ending, Ending::Eof);
}

#[test]
fn no_nameserver_answers() {
    let dns = DnsServer::start(|_| Answer::Silent);
    let server = dns.addr.to_string();
    let proxy = Proxy::start(&["--nameserver", &server, "--resolve-timeout", "1"]);
    let started = Instant::now();
    let (answer, access) = refused(&proxy, "silent.test:443");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((answer.head.status, answer.error.as_str()), (504, "dns_timeout"));
    assert!(
        answer.details.contains("--resolve-timeout") && answer.details.contains(&server),
        "{}",
        answer.details
    );
    assert_eq!((access.status.as_str(), access.end.as_str()), ("504", "dns_timeout"));
    assert!(access.dns.unwrap() >= 1000, "{}", access.line);
}

#[test]
fn connection_refused() {
    let nobody = Refusing::open();
    let proxy = Proxy::open(&[]);
    let (answer, access) = refused(&proxy, &nobody.addr.to_string());
    assert_eq!((answer.head.status, answer.error.as_str()), (502, "connection_refused"));
    assert_eq!((access.end.as_str(), access.rule.as_str()), ("connection_refused", "allow:127.0.0.0/8"));
    assert_eq!(access.via, nobody.addr.to_string());
    assert!(access.dial.is_some(), "{}", access.line);
}

#[test]
fn every_address_refuses() {
    let nobody = Refusing::open();
    let _nor_here = Refusing::at(SocketAddr::from(([127, 0, 0, 2], nobody.addr.port())));
    let dns = DnsServer::knowing("two.test", &["127.0.0.1", "127.0.0.2"]);
    let proxy = Proxy::asking(&dns, &[]);
    let (answer, access) = refused(&proxy, &format!("two.test:{}", nobody.addr.port()));
    assert_eq!((answer.head.status, answer.error.as_str()), (502, "connection_refused"));
    assert_eq!(access.end, "connection_refused");
}

#[test]
fn dial_times_out() {
    let hole = BlackHole::open();
    let proxy = Proxy::open(&["--dial-timeout", "1"]);
    let started = Instant::now();
    let (answer, access) = refused(&proxy, &hole.addr.to_string());
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((answer.head.status, answer.error.as_str()), (504, "connection_timeout"));
    assert!(answer.details.contains("--dial-timeout"), "{}", answer.details);
    assert_eq!(access.end, "connection_timeout");
    assert!(access.dial.unwrap() >= 1000, "{}", access.line);
}

#[test]
fn unroutable() {
    // TCP to the broadcast address has no route (`kernel_facts::unreachable_is_told_by_connect_itself`).
    let proxy = Proxy::start(&["--allow", "255.255.255.255"]);
    let (answer, access) = refused(&proxy, "255.255.255.255:443");
    assert_eq!((answer.head.status, answer.error.as_str()), (502, "destination_ip_unroutable"));
    assert_eq!(
        (access.end.as_str(), access.rule.as_str()),
        ("destination_ip_unroutable", "allow:255.255.255.255")
    );
}

#[test]
fn own_listener_is_a_loop() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let proxy = Proxy::open(&["--listen", listen]);
        let port = proxy.addr.port();
        let mut client = Client::dial(SocketAddr::from(([127, 0, 0, 1], port)));
        client.send_connect(&format!("127.0.0.1:{port}"));
        let answer = client.read_refusal();
        assert_eq!((answer.head.status, answer.error.as_str()), (502, "proxy_loop_detected"), "{listen}");
        let local = client.local;
        drop(client);
        assert_eq!(proxy.access_of(local).end, "proxy_loop_detected", "{listen}");
    }
}

#[test]
fn a_name_with_guarded_and_allowed_addresses_uses_the_allowed() {
    let origin = Origin::echo();
    let dns = DnsServer::knowing("mixed.test", &["10.0.0.1", "169.254.169.254", "127.0.0.1", "fc00::1"]);
    let proxy = Proxy::start(&["--nameserver", &dns.addr.to_string(), "--allow", "127.0.0.0/8"]);
    let started = Instant::now();
    let mut client = proxy.tunnel(&format!("mixed.test:{}", origin.addr.port()));
    client.echo(b"hello");
    client.finish();
    client.read_rest();
    let access = proxy.access_of(client.local);
    assert_eq!((access.via, access.rule.as_str()), (origin.addr.to_string(), "allow:127.0.0.0/8"));
    assert!(started.elapsed() < Duration::from_secs(5), "the guarded ones are not even tried");
}

#[test]
fn a_port_that_no_rule_opens_is_refused_for_an_address_behind_an_allowed_name() {
    // The allow is for the name: it lifts ports and guard for that name, not for others with the same address.
    let origin = Origin::echo();
    let dns = DnsServer::start(|_| Answer::of(&["127.0.0.1"]));
    let server = dns.addr.to_string();
    let proxy = Proxy::start(&["--nameserver", &server, "--allow", "good.test"]);
    let port = origin.addr.port();
    let mut client = proxy.tunnel(&format!("good.test:{port}"));
    client.echo(b"hello");
    client.finish();
    client.read_rest();
    assert_eq!(proxy.access_of(client.local).rule, "allow:good.test");
    let (answer, access) = refused(&proxy, &format!("other.test:{port}"));
    assert_eq!((answer.head.status, access.rule.as_str()), (403, "connect-port"));
    let (answer, access) = refused(&proxy, "other.test:443");
    assert_eq!((answer.head.status, access.rule.as_str()), (403, "guard"));
}

#[test]
fn session_limit() {
    let origin = Origin::echo();
    let proxy = Proxy::open(&["--max-sessions", "2"]);
    let target = origin.addr.to_string();
    let mut first = proxy.tunnel(&target);
    let second = proxy.tunnel(&target);
    let mut third = proxy.client();
    third.send_connect(&target);
    let answer = third.read_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (503, "connection_limit_reached"));
    assert!(answer.details.contains("--max-sessions"), "{}", answer.details);
    let seconds: u64 = answer.head.header("retry-after").expect("says when to come again").parse().unwrap();
    assert!((1..=3600).contains(&seconds), "{seconds}");
    let local = third.local;
    drop(third);
    let access = proxy.access_of(local);
    assert_eq!((access.status.as_str(), access.end.as_str()), ("503", "connection_limit_reached"));
    // Those inside are undisturbed, and a place that becomes free is given away.
    first.echo(b"still here");
    let left = second.local;
    drop(second);
    proxy.access_of(left);
    proxy.tunnel(&target).echo(b"in");
}

#[test]
fn session_limit_is_over_all_loops() {
    let origin = Origin::echo();
    let proxy = Launch::new(&["-n", "2", "--max-sessions", "4", "--allow", "127.0.0.0/8"]).start();
    let target = origin.addr.to_string();
    let mut inside = Vec::new();
    let mut refused = 0;
    for _ in 0..12 {
        let mut client = proxy.client();
        client.send_connect(&target);
        match client.read_head().status {
            200 => inside.push(client),
            503 => refused += 1,
            other => panic!("status {other}"),
        }
    }
    assert_eq!((inside.len(), refused), (4, 8));
}

/// A CONNECT that is refused: its answer and its access line.
#[track_caller]
fn refused(proxy: &Proxy, target: &str) -> (Refusal, support::proxy::Access) {
    let mut client = proxy.client();
    client.send_connect(target);
    let answer = client.read_refusal();
    let local = client.local;
    drop(client);
    (answer, proxy.access_of(local))
}
