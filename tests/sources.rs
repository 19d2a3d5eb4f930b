//! Where names come from when no option says so: `/etc/resolv.conf` and `/etc/hosts`, in a namespace where these are the test's own
//! and a nameserver can have port 53.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::dns_server::{Answer, DnsServer, Question};
use support::namespace::{etc, own, write_etc};
use support::origin::Origin;
use support::proxy::{Access, Proxy};
use support::until;

/// Changes are followed within a second; as much again is for a machine that is busy with other tests.
const FOLLOWED: Duration = Duration::from_secs(2);

/// 127.0.0.1 for `www.corp.test` and `other.open.test`, and nothing else is there.
fn two_domains(question: &Question) -> Answer {
    match question.name.as_str() {
        "www.corp.test" | "other.open.test" => Answer::of(&["127.0.0.1"]),
        _ => Answer::NxDomainFor(60),
    }
}

/// A nameserver on this address, port 53.
fn nameserver(address: &str, script: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> DnsServer {
    DnsServer::start_on(&format!("{address}:53"), script)
}

/// One tunnel from its beginning to its end.
#[track_caller]
fn pass(proxy: &Proxy, target: &str) -> Access {
    let mut client = proxy.tunnel(target);
    client.echo(b"hello");
    client.finish();
    client.read_rest();
    proxy.access_of(client.local)
}

/// A refusal: status, error type, details; and its access line.
#[track_caller]
fn refused(proxy: &Proxy, target: &str) -> (u16, String, String, Access) {
    let mut client = proxy.client();
    client.send_connect(target);
    let answer = client.read_refusal();
    assert!(answer.body.contains(target), "{}", answer.body);
    (answer.head.status, answer.error, answer.details, proxy.access_of(client.local))
}

fn names(asked: &[Question]) -> Vec<&str> {
    let mut names: Vec<&str> = asked.iter().map(|question| question.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

// resolv.conf.

#[test]
fn nameservers_are_those_of_resolv_conf() {
    own("nameservers_are_those_of_resolv_conf", || {
        write_etc("resolv.conf", "# by hand\nnameserver 127.0.0.99\n");
        let dns = nameserver("127.0.0.99", |_| Answer::of(&["127.0.0.1"]));
        let origin = Origin::echo();
        let proxy = Proxy::open(&[]);
        pass(&proxy, &format!("origin.test:{}", origin.addr.port()));
        assert_eq!(names(&dns.asked_so_far()), ["origin.test"]);
        assert!(!proxy.log.all().iter().any(|line| line.contains(" WARN ")), "{:?}", proxy.log.all());
    });
}

#[test]
fn servers_that_were_asked_are_named() {
    own("servers_that_were_asked_are_named", || {
        write_etc(
            "resolv.conf",
            "nameserver 127.0.0.98\nnameserver 127.0.0.99\noptions timeout:1 attempts:1\n",
        );
        let silent = ["127.0.0.98", "127.0.0.99"].map(|address| nameserver(address, |_| Answer::Silent));
        let proxy = Proxy::open(&["--resolve-timeout", "10"]);
        let started = Instant::now();
        let (status, error, details, access) = refused(&proxy, "origin.test:443");
        assert_eq!((status, error.as_str(), access.end.as_str()), (504, "dns_timeout", "dns_timeout"));
        assert!(details.contains("127.0.0.98:53") && details.contains("127.0.0.99:53"), "{details}");
        // A second each, as the options say.
        let took = started.elapsed();
        assert!(took > Duration::from_millis(1_900) && took < Duration::from_secs(6), "{took:?}");
        for server in silent {
            assert_eq!(server.asked_so_far().len(), 2);
        }
    });
}

#[test]
fn resolv_conf_is_followed() {
    own("resolv_conf_is_followed", || {
        let servers: Vec<DnsServer> = (1..=3)
            .map(|n| {
                let address = [format!("127.0.0.{n}")];
                nameserver(&format!("127.0.0.9{n}"), move |_| Answer::of(&[&address[0]]))
            })
            .collect();
        let text = |n| format!("nameserver 127.0.0.9{n}\n");
        write_etc("resolv.conf", text(1));
        let origin = Origin::echo_on("0.0.0.0:0");
        let proxy = Proxy::open(&["-n", "2"]);
        let target = format!("origin.test:{}", origin.addr.port());
        // Enough for both loops, all at once: the lines come together.
        let all_reach = |address: &str| {
            let mut clients: Vec<_> = (0..32).map(|_| proxy.tunnel(&target)).collect();
            let locals: Vec<_> = clients.drain(..).map(|client| client.local).collect();
            let via = format!("{address}:{}", origin.addr.port());
            locals.iter().filter(|&&local| proxy.access_of(local).via != via).count() == 0
        };
        assert!(all_reach("127.0.0.1"));
        let link = || {
            // As resolvconf and systemd-resolved have it.
            write_etc("run.conf", text(3));
            std::os::unix::fs::symlink("run.conf", etc("link")).unwrap();
            std::fs::rename(etc("link"), etc("resolv.conf")).unwrap();
        };
        let changes: [(&str, &dyn Fn()); 4] = [
            ("127.0.0.2", &|| write_etc("resolv.conf", text(2))),
            ("127.0.0.3", &link),
            ("127.0.0.1", &|| write_etc("run.conf", text(1))),
            ("127.0.0.2", &|| {
                write_etc("new.conf", text(2));
                std::fs::rename(etc("new.conf"), etc("run.conf")).unwrap();
            }),
        ];
        for (n, (address, change)) in changes.iter().enumerate() {
            let started = Instant::now();
            change();
            let line =
                proxy.log.wait_nth("a word about it", n + 1, |line| line.contains("names are resolved anew"));
            assert!(started.elapsed() < FOLLOWED, "{:?}", started.elapsed());
            assert!(line.contains(&format!("127.0.0.9{}:53", &address[8..])), "{line}");
            until("both loops to follow", || all_reach(address).then_some(()));
        }
        // A network that is gone for a moment; then the old one again.
        std::fs::remove_file(etc("run.conf")).unwrap();
        let line = proxy.log.wait("a word about it", |line| line.contains("cannot be used ("));
        assert!(line.contains("/etc/resolv.conf"), "{line}");
        assert!(all_reach("127.0.0.2"));
        drop(servers);
    });
}

#[test]
fn search_completes_single_words() {
    own("search_completes_single_words", || {
        write_etc("resolv.conf", "nameserver 127.0.0.99\nsearch corp.test open.test\n");
        let dns = nameserver("127.0.0.99", two_domains);
        let origin = Origin::echo();
        let port = origin.addr.port();
        let proxy = Proxy::open(&[]);
        pass(&proxy, &format!("www:{port}"));
        assert_eq!(names(&dns.asked_so_far()), ["www.corp.test"]);
        pass(&proxy, &format!("other:{port}"));
        assert_eq!(names(&dns.asked_so_far()), ["other.corp.test", "other.open.test"]);
        // A name with a dot is absolute.
        assert_eq!(refused(&proxy, &format!("www.deep:{port}")).0, 502);
        assert_eq!(names(&dns.asked_so_far()), ["www.deep"]);
    });
}

#[test]
fn a_deny_is_not_got_round_by_a_single_word() {
    own("a_deny_is_not_got_round_by_a_single_word", || {
        write_etc("resolv.conf", "nameserver 127.0.0.99\nsearch corp.test open.test\n");
        let dns = nameserver("127.0.0.99", two_domains);
        let origin = Origin::echo();
        let port = origin.addr.port();
        let proxy = Proxy::open(&["--deny", ".corp.test"]);
        // The second time it is remembered.
        for target in ["www:443".to_string(), format!("www:{port}"), "WWW:443".to_string()] {
            let (status, error, details, access) = refused(&proxy, &target.to_lowercase());
            assert_eq!((status, error.as_str()), (403, "http_request_denied"), "{target}");
            assert!(details.contains("--deny .corp.test"), "{details}");
            assert_eq!((access.rule.as_str(), access.status.as_str()), ("deny:.corp.test", "403"));
            assert_eq!((access.via.as_str(), access.end.as_str()), ("-", "http_request_denied"));
        }
        assert_eq!(names(&dns.asked_so_far()), ["www.corp.test"]);
        // Where the whole name says it, nobody is asked.
        let (status, _, _, access) = refused(&proxy, "www.corp.test:443");
        assert_eq!((status, access.rule.as_str()), (403, "deny:.corp.test"));
        assert_eq!(dns.asked_so_far(), []);
        // And it denies nothing else.
        assert_eq!(pass(&proxy, &format!("other:{port}")).rule, "allow:127.0.0.0/8");
    });
}

#[test]
fn an_allow_holds_for_a_single_word() {
    own("an_allow_holds_for_a_single_word", || {
        write_etc("resolv.conf", "nameserver 127.0.0.99\nsearch corp.test open.test\n");
        let _dns = nameserver("127.0.0.99", two_domains);
        let origin = Origin::echo();
        let port = origin.addr.port();
        for default in ["allow", "deny"] {
            let proxy = Proxy::start(&["--allow", ".corp.test", "--default", default]);
            for _ in 0..2 {
                let access = pass(&proxy, &format!("www:{port}"));
                assert_eq!(access.rule, "allow:.corp.test");
                assert_eq!((access.target, access.via), (format!("www:{port}"), origin.addr.to_string()));
            }
            // It opens nothing else: neither the port, nor the loopback address.
            for (target, rule) in [(format!("other:{port}"), "connect-port"), ("other:443".into(), "guard")] {
                let (status, _, _, access) = refused(&proxy, &target);
                assert_eq!((status, access.rule.as_str()), (403, rule), "{target}");
            }
        }
    });
}

// No nameserver.

#[test]
fn no_nameserver_is_a_refusal_at_once() {
    own("no_nameserver_is_a_refusal_at_once", || {
        for text in [None, Some(""), Some("# nothing\nsearch corp.test\n"), Some("nameserver what\n")] {
            match text {
                None => drop(std::fs::remove_file(etc("resolv.conf"))),
                Some(text) => write_etc("resolv.conf", text),
            }
            let origin = Origin::echo();
            let proxy = Proxy::open(&["--resolve-timeout", "15"]);
            proxy.log.wait("a warning", |line| {
                line.contains(" WARN ") && line.contains("no nameserver in /etc/resolv.conf")
            });
            for target in ["origin.test:443", "www:443"] {
                let mut client = proxy.client();
                client.send_connect(target);
                let answer = client.read_refusal();
                assert_eq!(answer.head.raw.lines().next(), Some("HTTP/1.1 502 No nameserver configured"));
                assert_eq!(answer.error, "dns_error");
                assert!(answer.details.contains("/etc/resolv.conf"), "{answer:?}");
                assert!(answer.details.contains("--nameserver"), "{answer:?}");
                let access = proxy.access_of(client.local);
                assert!(access.total < 1_000 && access.end == "dns_error", "{}", access.line);
            }
            // What needs none is served.
            pass(&proxy, &format!("localhost:{}", origin.addr.port()));
        }
    });
}

#[test]
fn a_nameserver_may_come_later() {
    own("a_nameserver_may_come_later", || {
        let dns = nameserver("127.0.0.99", |_| Answer::of(&["127.0.0.1"]));
        let origin = Origin::echo();
        let proxy = Proxy::open(&[]);
        let target = format!("origin.test:{}", origin.addr.port());
        assert_eq!(refused(&proxy, &target).0, 502);
        assert_eq!(dns.asked_so_far(), []);
        let started = Instant::now();
        write_etc("resolv.conf", "nameserver 127.0.0.99\n");
        until("the nameserver to be known", || {
            let mut client = proxy.client();
            client.send_connect(&target);
            (client.read_head().status == 200).then_some(())
        });
        assert!(started.elapsed() < FOLLOWED, "{:?}", started.elapsed());
    });
}

#[test]
fn a_nameserver_of_the_options_goes_before_the_file() {
    own("a_nameserver_of_the_options_goes_before_the_file", || {
        write_etc("resolv.conf", "nameserver 127.0.0.98\nsearch corp.test\n");
        let other = nameserver("127.0.0.98", |_| Answer::NxDomain);
        let dns = nameserver("127.0.0.99", two_domains);
        let origin = Origin::echo();
        // Without a port it is 53.
        let proxy = Proxy::open(&["--nameserver", "127.0.0.99"]);
        pass(&proxy, &format!("www:{}", origin.addr.port()));
        assert_eq!(names(&dns.asked_so_far()), ["www.corp.test"], "the file's search list holds");
        assert_eq!(other.asked_so_far(), []);
    });
}

// The hosts file.

#[test]
fn static_names_are_those_of_etc_hosts() {
    own("static_names_are_those_of_etc_hosts", || {
        write_etc("resolv.conf", "nameserver 127.0.0.99\n");
        write_etc("hosts", "127.0.0.1 nas nas.home.test\n");
        let dns = nameserver("127.0.0.99", |_| Answer::NxDomain);
        let origin = Origin::echo_on("0.0.0.0:0");
        let port = origin.addr.port();
        let proxy = Proxy::open(&[]);
        for name in ["nas", "NAS.home.test"] {
            assert_eq!(pass(&proxy, &format!("{name}:{port}")).via, format!("127.0.0.1:{port}"));
        }
        write_etc("hosts", "127.0.0.2 nas\n");
        proxy.log.wait("a word about it", |line| line.contains("names are resolved anew"));
        until("the new address", || {
            (pass(&proxy, &format!("nas:{port}")).via == format!("127.0.0.2:{port}")).then_some(())
        });
        assert_eq!(dns.asked_so_far(), []);
        assert_eq!(refused(&proxy, &format!("nas.home.test:{port}")).0, 502, "it stands there no more");
        // Another file takes its place.
        write_etc("others", "127.0.0.3 nas.home.test\n");
        let proxy = Proxy::open(&["--hosts", "/etc/others"]);
        assert_eq!(pass(&proxy, &format!("nas.home.test:{port}")).via, format!("127.0.0.3:{port}"));
        assert_eq!(refused(&proxy, &format!("nas:{port}")).0, 502);
    });
}

#[test]
fn bad_lines_are_left_out_and_named() {
    own("bad_lines_are_left_out_and_named", || {
        write_etc("resolv.conf", "nameserver what\nnameserver 127.0.0.99\n\noptions ndots:many\n");
        write_etc("hosts", b"# fine\n127.0.0.1 nas\n127.0.0.256 other\n127.0.0.1\n\xff\xfe\n");
        let dns = nameserver("127.0.0.99", |_| Answer::of(&["127.0.0.1"]));
        let origin = Origin::echo();
        let proxy = Proxy::open(&[]);
        let bad_lines = || {
            let log = proxy.log.all();
            let warnings = log.iter().filter_map(|line| line.split_once(" WARN  "));
            let bad = warnings.filter_map(|(_, text)| text.strip_suffix(": not understood, left out"));
            bad.map(String::from).collect::<Vec<_>>()
        };
        let at_start =
            ["/etc/resolv.conf:1", "/etc/resolv.conf:4", "/etc/hosts:3", "/etc/hosts:4", "/etc/hosts:5"];
        assert_eq!(bad_lines(), at_start, "{:#?}", proxy.log.all());
        // The others count.
        for name in ["nas", "origin.test"] {
            pass(&proxy, &format!("{name}:{}", origin.addr.port()));
        }
        assert_eq!(names(&dns.asked_so_far()), ["origin.test"]);
        // A change is read as strictly, and what has not changed is not named again.
        write_etc("hosts", "127.0.0.1 nas other\n\n\nnas 127.0.0.1\n");
        proxy.log.wait("a word about it", |line| line.contains("names are resolved anew"));
        assert_eq!(bad_lines()[5..], ["/etc/hosts:4"], "{:#?}", proxy.log.all());
    });
}

// What was found wrong once.

#[test]
fn a_name_with_a_dot_at_its_end_is_absolute() {
    own("a_name_with_a_dot_at_its_end_is_absolute", || {
        write_etc("resolv.conf", "nameserver 127.0.0.99\nsearch corp.test\n");
        let dns = nameserver("127.0.0.99", two_domains);
        let origin = Origin::echo();
        let proxy = Proxy::open(&[]);
        let mut client = proxy.client();
        client.send_connect(&format!("www.:{}", origin.addr.port()));
        let status = client.read_head().status;
        assert_eq!((status, names(&dns.asked_so_far())), (502, vec!["www"]));
    });
}

#[test]
fn hangup_forgets_names_also_when_a_file_has_changed() {
    own("hangup_forgets_names_also_when_a_file_has_changed", || {
        write_etc("resolv.conf", "nameserver 127.0.0.99\n");
        let dns = nameserver("127.0.0.99", |_| Answer::of(&["127.0.0.1"]));
        let origin = Origin::echo();
        let proxy = Proxy::open(&["--family", "4"]);
        let target = format!("origin.test:{}", origin.addr.port());
        pass(&proxy, &target);
        assert_eq!(dns.asked_so_far().len(), 1);
        // Same servers, same answers: by itself no reason to forget. But HUP is.
        write_etc("resolv.conf", "nameserver 127.0.0.99\noptions timeout:2\n");
        proxy.signal(rustix::process::Signal::HUP);
        proxy.log.wait("a word about it", |line| line.contains("names are resolved anew"));
        until("the name to be asked for again", || {
            pass(&proxy, &target);
            (!dns.asked_so_far().is_empty()).then_some(())
        });
    });
}
