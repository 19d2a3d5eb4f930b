//! Destinations by name and by address: hosts file, a scripted DNS server with its faults, IPv6.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::dns_server::{A, AAAA, Answer, DnsServer};
use support::namespace::{own, write_etc};
use support::origin::{Origin, Refusing, receive};
use support::proxy::Proxy;
use support::{Ending, TempFile, until};

#[test]
fn name_from_the_hosts_file() {
    let origin = Origin::echo();
    let hosts = TempFile::with("# a comment\n127.0.0.1 other.test origin.test # and another\n");
    let proxy = Proxy::open(&["--hosts", &hosts.path]);
    // Names compare without case and without the last dot.
    for name in ["origin.test", "ORIGIN.Test", "origin.test."] {
        let mut client = proxy.tunnel(&format!("{name}:{}", origin.addr.port()));
        client.echo(b"hello");
        drop(client);
    }
}

#[test]
fn localhost_needs_no_dns() {
    let origin = Origin::echo();
    let dns = DnsServer::start(|_| Answer::NxDomain);
    let nothing = TempFile::with("");
    let proxy = Proxy::open(&["--nameserver", &dns.addr.to_string(), "--hosts", &nothing.path]);
    for name in ["localhost", "LocalHost", "deep.under.localhost"] {
        proxy.tunnel(&format!("{name}:{}", origin.addr.port())).echo(b"hello");
    }
    assert_eq!(dns.asked_so_far(), []);
}

#[test]
fn name_from_dns() {
    let origin = Origin::echo();
    let dns = DnsServer::knowing("origin.test", &["127.0.0.1"]);
    let proxy = Proxy::asking(&dns, &[]);
    let mut client = proxy.tunnel(&format!("origin.test:{}", origin.addr.port()));
    client.echo(b"hello");
    client.finish();
    assert_eq!(client.read_rest(), (vec![], Ending::Eof));
    let access = proxy.access_of(client.local);
    assert_eq!(access.target, format!("origin.test:{}", origin.addr.port()));
    assert_eq!(access.via, origin.addr.to_string());
    assert!(access.dns.is_some() && access.dial.is_some(), "{}", access.line);
    let asked = dns.asked_so_far();
    assert!(asked.iter().all(|question| question.name == "origin.test" && !question.tcp), "{asked:?}");
    let mut types: Vec<u16> = asked.iter().map(|question| question.qtype).collect();
    types.sort_unstable();
    assert_eq!(types, [A, AAAA], "each type is asked once");
}

#[test]
fn name_with_only_an_ipv6_address() {
    let origin = Origin::start_on("[::1]:0", |mut stream| receive(&mut stream, |_| {}));
    let dns = DnsServer::knowing("six.test", &["::1"]);
    let proxy = Proxy::asking(&dns, &[]);
    let client = proxy.tunnel(&format!("six.test:{}", origin.addr.port()));
    origin.accepted();
    client.reset();
    assert_eq!(origin.seen().ending, Ending::Reset);
}

#[test]
fn ipv6_address_in_brackets() {
    let origin = Origin::start_on("[::1]:0", |mut stream| receive(&mut stream, |_| {}));
    let proxy = Proxy::open(&[]);
    let mut client = proxy.tunnel(&format!("[0:0:0:0:0:0:0:1]:{}", origin.addr.port()));
    client.finish();
    assert_eq!(client.read_rest(), (vec![], Ending::Eof));
    let access = proxy.access_of(client.local);
    assert_eq!(access.target, origin.addr.to_string(), "the canonical spelling");
    assert_eq!((access.via, access.rule.as_str()), (origin.addr.to_string(), "allow:::1/128"));
}

#[test]
fn truncated_answer_is_asked_again_over_tcp() {
    let origin = Origin::echo();
    let dns = DnsServer::start(
        |question| if question.tcp { Answer::of(&["127.0.0.1"]) } else { Answer::Truncated },
    );
    let proxy = Proxy::asking(&dns, &[]);
    proxy.tunnel(&format!("long.test:{}", origin.addr.port())).echo(b"hello");
    let asked = dns.asked_so_far();
    assert!(asked.iter().any(|question| question.tcp && question.name == "long.test"), "{asked:?}");
}

#[test]
fn forged_answers_are_ignored() {
    let origin = Origin::echo();
    // The forged ones come first and name a place where nobody listens.
    let dns = DnsServer::start(|_| {
        Answer::Several(vec![
            Answer::wrong_id(&["127.0.0.9"]),
            Answer::WrongQuestion(vec!["127.0.0.9".parse().unwrap()]),
            Answer::of(&["127.0.0.1"]),
        ])
    });
    let proxy = Proxy::asking(&dns, &[]);
    let mut client = proxy.tunnel(&format!("origin.test:{}", origin.addr.port()));
    client.echo(b"hello");
    client.finish();
    client.read_rest();
    assert_eq!(proxy.access_of(client.local).via, origin.addr.to_string());
}

#[test]
fn a_lost_question_is_asked_again() {
    let origin = Origin::echo();
    let heard = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let dns = DnsServer::start(move |question| {
        // The first question of each type is lost.
        if heard.lock().unwrap().insert(question.qtype) { Answer::Silent } else { Answer::of(&["127.0.0.1"]) }
    });
    let proxy = Proxy::asking(&dns, &[]);
    proxy.tunnel(&format!("origin.test:{}", origin.addr.port())).echo(b"hello");
}

#[test]
fn next_address_when_the_first_refuses() {
    let origin = Origin::echo();
    let _refusing = Refusing::at(std::net::SocketAddr::from(([127, 0, 0, 2], origin.addr.port())));
    let dns = DnsServer::knowing("two.test", &["127.0.0.2", "127.0.0.1"]);
    let proxy = Proxy::asking(&dns, &[]);
    let mut client = proxy.tunnel(&format!("two.test:{}", origin.addr.port()));
    client.echo(b"hello");
    client.finish();
    client.read_rest();
    assert_eq!(proxy.access_of(client.local).via, origin.addr.to_string());
}

#[test]
fn a_silent_nameserver_holds_nobody_up() {
    let origin = Origin::echo();
    let dns = DnsServer::start(|_| Answer::Silent);
    let proxy = Proxy::asking(&dns, &[]);
    let mut stuck = proxy.client();
    stuck.send_connect("stuck.test:443");
    assert_eq!(dns.asked().name, "stuck.test");
    for _ in 0..20 {
        proxy.tunnel(&origin.addr.to_string()).echo(b"hello");
    }
}

#[test]
fn a_name_is_asked_for_once() {
    let origin = Origin::echo();
    let dns = DnsServer::knowing("origin.test", &["127.0.0.1", "::1"]);
    let proxy = Proxy::asking(&dns, &[]);
    for name in ["origin.test", "origin.test", "Origin.TEST.", "origin.test"] {
        proxy.tunnel(&format!("{name}:{}", origin.addr.port())).echo(b"hello");
    }
    let mut types: Vec<u16> = dns.asked_so_far().iter().map(|question| question.qtype).collect();
    types.sort_unstable();
    assert_eq!(types, [A, AAAA]);
}

#[test]
fn clients_of_one_name_share_its_questions() {
    let origin = Origin::echo();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let dns = DnsServer::start(move |_| {
        // Opens when the other end is dropped, and stays open.
        let _ = gate.lock().unwrap().recv();
        Answer::of(&["127.0.0.1"])
    });
    // Dropped before the server, also when the test fails.
    let gate = open;
    let proxy = Proxy::asking(&dns, &[]);
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send_connect(&format!("origin.test:{}", origin.addr.port()));
    }
    drop(gate);
    for client in &mut clients {
        assert_eq!(client.read_head().status, 200);
    }
    assert_eq!(dns.asked_so_far().len(), 2);
}

#[test]
fn a_name_that_does_not_exist_is_remembered() {
    let dns = DnsServer::start(|question| match question.name.as_str() {
        "known.test" => Answer::NxDomainFor(60),
        _ => Answer::NxDomain,
    });
    let proxy = Proxy::asking(&dns, &[]);
    for (name, questions) in [("known.test", 2), ("unknown.test", 4)] {
        for _ in 0..2 {
            let mut client = proxy.client();
            client.send_connect(&format!("{name}:443"));
            let answer = client.read_refusal();
            assert_eq!((answer.head.status, answer.rcode.as_deref()), (502, Some("NXDOMAIN")));
        }
        assert_eq!(dns.asked_so_far().len(), questions, "{name}");
    }
}

#[test]
fn a_name_that_moves_is_followed_when_its_time_is_over() {
    let first = Origin::echo();
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let place = moved.clone();
    let dns = DnsServer::start(move |_| {
        let host = if place.load(std::sync::atomic::Ordering::Acquire) { 2 } else { 1 };
        Answer::AddressesFor(vec![std::net::IpAddr::from([127, 0, 0, host])], 1)
    });
    // The same port on another address of this machine.
    let there = std::net::SocketAddr::from(([127, 0, 0, 2], first.addr.port()));
    let _second = Origin::start_on(&there.to_string(), |mut stream| receive(&mut stream, |_| {}));
    let proxy = Proxy::asking(&dns, &[]);
    let target = format!("moving.test:{}", first.addr.port());
    proxy.tunnel(&target).echo(b"hello");
    moved.store(true, std::sync::atomic::Ordering::Release);
    until("the name to be asked for again", || {
        let mut client = proxy.tunnel(&target);
        client.finish();
        client.read_rest();
        (proxy.access_of(client.local).via == there.to_string()).then_some(())
    });
}

#[test]
fn a_dead_nameserver_is_not_asked_again_at_once() {
    let origin = Origin::echo();
    let dead = DnsServer::start(|_| Answer::Silent);
    let good = DnsServer::start(|_| Answer::of(&["127.0.0.1"]));
    let (first, second) = (dead.addr.to_string(), good.addr.to_string());
    let proxy = Proxy::open(&["--nameserver", &first, "--nameserver", &second]);
    for n in 0..10 {
        proxy.tunnel(&format!("n{n}.test:{}", origin.addr.port())).echo(b"hello");
    }
    assert_eq!(dead.asked_so_far().len(), 2, "one name was held up");
    assert_eq!(good.asked_so_far().len(), 20);
}

#[test]
fn a_remembered_name_needs_no_nameserver() {
    let origin = Origin::echo();
    let dns = DnsServer::start(|question| match question.name.as_str() {
        "origin.test" => Answer::of(&["127.0.0.1", "::1"]),
        _ => Answer::Silent,
    });
    let proxy = Proxy::asking(&dns, &[]);
    let target = format!("origin.test:{}", origin.addr.port());
    proxy.tunnel(&target).echo(b"hello");
    let mut stuck: Vec<_> = (0..50).map(|_| proxy.client()).collect();
    for (n, client) in stuck.iter_mut().enumerate() {
        client.send_connect(&format!("stuck{n}.test:443"));
    }
    until("all to be asked for", || dns.asked().name.starts_with("stuck49").then_some(()));
    for _ in 0..20 {
        let mut client = proxy.tunnel(&target);
        client.echo(b"hello");
        client.finish();
        client.read_rest();
        assert_eq!(proxy.access_of(client.local).dns, Some(0));
    }
    assert!(dns.asked_so_far().iter().all(|question| question.name != "origin.test"));
}

#[test]
fn too_many_names_at_once_are_refused_and_others_served() {
    own("too_many_names_at_once_are_refused_and_others_served", || {
        /// What one loop resolves at once, as the refusal says.
        const NAMES: usize = 1024;
        // Nobody gives up before the test is over.
        write_etc("resolv.conf", "options timeout:30 attempts:5\n");
        write_etc("hosts", "127.0.0.1 static.test\n");
        let limit = getrlimit(Resource::Nofile);
        let enough = limit.maximum.is_none_or(|most| most >= 8192);
        assert!(enough, "nothing was tested: {limit:?} descriptors");
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let dns = DnsServer::start(|question| match question.name.as_str() {
            "known.test" | "late.test" => Answer::of(&["127.0.0.1"]),
            _ => Answer::Silent,
        });
        let origin = Origin::echo();
        let proxy =
            Proxy::asking(&dns, &["--max-sessions", "3000", "--resolve-timeout", "600", "--family", "4"]);
        let port = origin.addr.port();
        proxy.tunnel(&format!("known.test:{port}")).echo(b"hello");
        assert_eq!(dns.asked().name, "known.test");
        let mut stuck = Vec::new();
        let mut started = Vec::new();
        // In small parts: a socket of the nameserver holds only so many questions.
        for part in 0..NAMES / 64 {
            for n in 0..64 {
                let mut client = proxy.client();
                client.send_connect(&format!("stuck{part}-{n}.test:443"));
                stuck.push(client);
            }
            for _ in 0..64 {
                started.push(dns.asked().name);
            }
        }
        started.sort_unstable();
        started.dedup();
        assert_eq!(started.len(), NAMES, "each is asked for once, and all of them");
        for n in 0..6 {
            let mut client = proxy.client();
            client.send_connect(&format!("more{n}.test:443"));
            let answer = client.read_refusal();
            assert_eq!((answer.head.status, answer.error.as_str()), (503, "connection_limit_reached"));
            assert_eq!(answer.head.reason, "Too many names being resolved");
            assert!(answer.details.contains(&NAMES.to_string()), "{answer:?}");
            let retry = answer.head.header("retry-after").map(|seconds| seconds.parse::<u32>());
            assert!(matches!(retry, Some(Ok(1..))), "{answer:?}");
            let access = proxy.access_of(client.local);
            assert_eq!((access.status.as_str(), access.end.as_str()), ("503", "connection_limit_reached"));
        }
        // Whoever needs no nameserver is served.
        for host in ["known.test", "static.test", "localhost", "127.0.0.1"] {
            let mut client = proxy.tunnel(&format!("{host}:{port}"));
            client.echo(b"hello");
            client.finish();
            client.read_rest();
            let access = proxy.access_of(client.local);
            assert!(access.dns.is_none_or(|ms| ms < 100), "{}", access.line);
        }
        assert_eq!(dns.asked_so_far(), []);
        // One who leaves makes room for one.
        stuck.pop().unwrap().reset();
        until("a place to be free", || {
            let mut client = proxy.client();
            client.send_connect(&format!("late.test:{port}"));
            (client.read_head().status == 200).then_some(())
        });
        assert_eq!(dns.asked_so_far().len(), 1);
    });
}
