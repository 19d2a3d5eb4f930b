//! What must be over when it is over: races, lookups of who has left, and the queue of connections when the proxy is stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use support::client::Client;
use support::dns_server::{Answer, DnsServer};
use support::http_origin::ByHand;
use support::origin::{BlackHole, Origin, receive};
use support::proxy::Proxy;
use support::wire::ok;
use support::{Ending, TempFile};

#[test]
fn a_race_leaves_the_winner_and_nobody_else() {
    let hole = BlackHole::open();
    let port = hole.addr.port();
    let origin = Origin::echo_on(&format!("127.0.0.2:{port}"));
    let hosts = TempFile::with("127.0.0.1 race.test\n127.0.0.2 race.test\n");
    // Longer than we wait: the second address is tried before the first has failed.
    let proxy = Proxy::open(&["--hosts", &hosts.path, "--dial-timeout", "60"]);
    let before = proxy.descriptors();
    let mut tunnel = proxy.tunnel(&format!("race.test:{port}"));
    tunnel.echo(b"won");
    assert_eq!(proxy.descriptors(), before + 2, "a client and an upstream");
    tunnel.finish();
    tunnel.read_rest();
    let access = proxy.access_of(tunnel.local);
    assert_eq!(access.via, origin.addr.to_string());
    assert!(access.dial.is_some_and(|ms| ms >= 250), "{}", access.line);
}

#[test]
fn an_answer_for_who_has_left_reaches_nobody() {
    let origin = Origin::echo();
    let dns = DnsServer::start(|question| match question.name.as_str() {
        "late.test" => {
            std::thread::sleep(Duration::from_millis(400));
            Answer::of(&["127.0.0.1"])
        }
        _ => Answer::Silent,
    });
    let proxy = Proxy::asking(&dns, &["--resolve-timeout", "60"]);
    let port = origin.addr.port();
    let mut leaves = proxy.client();
    leaves.send_connect(&format!("late.test:{port}"));
    dns.asked();
    let left = leaves.local;
    leaves.reset();
    assert_eq!(proxy.access_of(left).end, "client_reset");
    // The next session stands in the place of the one that left.
    let mut stays = proxy.client();
    stays.send_connect(&format!("silent.test:{port}"));
    stays.stream.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
    stays.stream.read_exact(&mut [0; 1]).expect_err("it was given the answer of another");
}

#[test]
fn whoever_is_in_the_queue_when_the_proxy_is_stopped_is_served() {
    let origin = Origin::echo();
    let mut proxy = Proxy::open(&[]);
    proxy.freeze();
    // More than are accepted in one turn.
    let mut clients: Vec<Client> = (0..150).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send_connect(&origin.addr.to_string());
    }
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::CONT);
    for client in &mut clients {
        assert_eq!(client.read_head().status, 200);
        client.echo(b"served");
        client.finish();
    }
    drop(clients);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_new_process_takes_over_without_a_failed_connection() {
    let origin = Origin::echo();
    let mut proxy = Proxy::open(&["--loops", "2"]);
    let (addr, target) = (proxy.addr, origin.addr.to_string());
    let is_over = Arc::new(AtomicBool::new(false));
    let storm: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, target) = (Arc::clone(&is_over), target.clone());
            std::thread::spawn(move || {
                let mut served = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = Client::dial(addr);
                    client.send_connect(&target);
                    let head = client.read_head();
                    assert_eq!(head.status, 200, "{}", head.raw);
                    client.echo(b"served");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for _ in 0..20 {
        let next = Proxy::open(&["--loops", "2", "--listen", &addr.to_string()]);
        let mut old = std::mem::replace(&mut proxy, next);
        old.signal(Signal::TERM);
        assert_eq!(old.ended().code(), Some(0));
    }
    is_over.store(true, Ordering::Relaxed);
    for client in storm {
        assert!(client.join().expect("no connection fails") > 0);
    }
}

#[test]
fn who_comes_while_a_listener_goes_is_for_the_next_process() {
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let mut old = Proxy::open(&[]);
    let web = ByHand::open();
    let mut client = old.wire();
    client.get(&web.url("/"));
    let mut kept = web.accept();
    kept.read_request();
    kept.send(ok("ok"));
    assert_eq!(client.read_response("GET").text(), "ok");
    let next = Proxy::open(&["--listen", &old.addr.to_string()]);
    old.signal(Signal::TERM);
    // When what it kept for other requests is closed, its listener begins no more connections. For half a second it still stands,
    // and the kernel gives it about half of them: their first packets are dropped and sent again.
    assert_eq!(kept.read_end(), Ending::Eof);
    let tunnels: Vec<Client> = (0..16).map(|_| next.tunnel(&target)).collect();
    for mut tunnel in tunnels {
        tunnel.finish();
        tunnel.read_rest();
        assert_eq!(next.access_of(tunnel.local).end, "done");
    }
    assert_eq!(old.ended().code(), Some(0));
}

#[test]
fn whoever_has_no_answer_when_the_grace_is_over_is_told_why() {
    let dns = DnsServer::start(|_| Answer::Silent);
    let mut proxy = Proxy::asking(&dns, &["--grace", "1", "--resolve-timeout", "60"]);
    let mut client = proxy.client();
    client.send_connect("silent.test:443");
    dns.asked();
    proxy.signal(Signal::TERM);
    let answer = client.read_refusal();
    assert_eq!((answer.head.status, answer.error.as_str()), (503, "proxy_internal_response"));
    let access = proxy.access_of(client.local);
    assert_eq!((access.end.as_str(), access.status.as_str()), ("proxy_internal_response", "503"));
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_silent_client_in_the_queue_does_not_hold_up_the_drain() {
    // Longer than we wait, as is --grace.
    let mut proxy = Proxy::open(&["--head-timeout", "60"]);
    proxy.freeze();
    let _silent = proxy.client();
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::CONT);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_reset_behind_an_end_is_passed_on() {
    // The upstream keeps its end of the tunnel open after the client's.
    let (ended_tx, ended) = std::sync::mpsc::channel();
    let ended_tx = std::sync::Mutex::new(ended_tx);
    let origin = Origin::start(move |mut stream| {
        let seen = receive(&mut stream, |_| {});
        ended_tx.lock().unwrap().send(()).unwrap();
        // Until the proxy has something to say about it.
        while stream.take_error().is_ok_and(|error| error.is_none()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        seen
    });
    let proxy = Proxy::open(&[]);
    let mut client = proxy.tunnel(&origin.addr.to_string());
    client.finish();
    ended.recv_timeout(Duration::from_secs(10)).expect("the end is passed on");
    let local = client.local;
    client.reset();
    assert_eq!(proxy.access_of(local).end, "client_reset");
    // It reached the upstream too, which would wait for it for ever.
    origin.seen();
}
