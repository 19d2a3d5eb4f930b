//! Rules through the real binary, as options and in list files: no spelling of a destination, no form of an address and no
//! nameserver gets around a deny; lists are read, reloaded and named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use support::client::connect_head;
use support::dns_server::{A, AAAA, Answer, DnsServer};
use support::http_origin::ByHand;
use support::origin::Origin;
use support::proxy::{Access, Proxy};
use support::{TempDir, TempFile, until};

/// Rules as options, and the same as lines of a file.
fn both_ways(action: &str, rules: &[&str]) -> [(Vec<String>, Option<TempFile>); 2] {
    let options = rules.iter().flat_map(|rule| [format!("--{action}"), (*rule).to_owned()]).collect();
    let file = TempFile::with(&rules.iter().map(|rule| format!("{rule}\r\n")).collect::<String>());
    [(options, None), (vec![format!("--{action}-file"), file.path.clone()], Some(file))]
}

/// A proxy with these rules, and everything else allowed.
#[track_caller]
fn proxy_with(rules: &[String], dns: &DnsServer) -> Proxy {
    let nameserver = dns.addr.to_string();
    let mut options: Vec<&str> = rules.iter().map(String::as_str).collect();
    options.extend(["--allow", "*", "--nameserver", &nameserver, "--hosts", "/dev/null"]);
    Proxy::start(&options)
}

/// The status of the answer to this request, which ends the connection, and the client's name in the access line.
#[track_caller]
fn ask(proxy: &Proxy, request: impl AsRef<[u8]>) -> (u16, SocketAddr) {
    let mut client = proxy.client();
    client.send(request);
    let (raw, _) = client.read_rest();
    (std::str::from_utf8(&raw[9..12]).unwrap().parse().unwrap(), client.local)
}

/// The same with the access line. Lines come in batches, so where there are many they are waited for at the end.
#[track_caller]
fn ask_and_see(proxy: &Proxy, request: impl AsRef<[u8]>) -> (u16, Access) {
    let (status, client) = ask(proxy, request);
    (status, proxy.access_of(client))
}

fn get(url: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET ", url.as_ref(), b" HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n"].concat()
}

#[test]
fn no_spelling_of_a_denied_name_gets_through() {
    let origin = ByHand::open();
    let port = origin.addr.port();
    let dns = DnsServer::start(|_| Answer::of(&["127.0.0.1"]));
    let denied = [".denied.test", "xn--bcher-kva.test", "*.wild.denied2.test"];
    for (rules, _file) in both_ways("deny", &denied) {
        let proxy = proxy_with(&rules, &dns);
        let mut clients = Vec::new();
        for host in [
            "denied.test",
            "denied.test.",
            "DENIED.Test",
            "Www.Denied.TEST.",
            "a.b.c.denied.test",
            "a.wild.denied2.test",
            "B.A.Wild.denied2.test.",
            // The one form that DNS knows of bücher.test, in any case.
            "xn--bcher-kva.test",
            "XN--BCHER-KVA.TEST.",
            "Xn--Bcher-Kva.test",
        ] {
            for request in
                [connect_head(&format!("{host}:{port}")).into_bytes(), get(format!("http://{host}:{port}/"))]
            {
                let (status, client) = ask(&proxy, request);
                assert_eq!(status, 403, "{host}");
                clients.push(client);
            }
        }
        for client in clients {
            let access = proxy.access_of(client);
            assert!(
                access.rule.starts_with("deny") && access.end == "http_request_denied",
                "{}",
                access.line
            );
        }
        for host in [
            "denied.test..",
            ".denied.test",
            "denied..test",
            "[denied.test]",
            "denied%2etest",
            "%64enied.test",
            "denied.test%00",
            "denied.test%2e",
            "x@denied.test",
            "denied.test\\",
            // The other form, raw and escaped, with an ideographic full stop, and in full width.
            "b\u{fc}cher.test",
            "B\u{dc}CHER.test",
            "b%C3%BCcher.test",
            "denied\u{3002}test",
            "\u{ff44}enied.test",
            "denied.test\u{200b}",
        ] {
            let (status, _) = ask(&proxy, connect_head(&format!("{host}:{port}")));
            assert_eq!(status, 400, "{host}");
            let (status, _) = ask(&proxy, get(format!("http://{host}:{port}/")));
            assert_eq!(status, 400, "{host}");
        }
        // Latin-1 is no better.
        assert_eq!(ask(&proxy, get(b"http://b\xfccher.test/")).0, 400);
        // A Host of its own changes nothing: the target counts.
        let request = format!(
            "GET http://denied.test:{port}/ HTTP/1.1\r\nHost: good.test:{port}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(ask(&proxy, request).0, 403);
        // Nobody was even asked for them.
        let asked = dns.asked_so_far();
        assert!(asked.iter().all(|question| question.name == "notdenied.test"), "{asked:?}");
        origin.assert_not_dialed();
        // All that was between them and the origin is the rule.
        drop(proxy.tunnel(&format!("notdenied.test:{port}")));
        drop(origin.accept());
    }
    // In a rule, too, there is only one way to write it.
    let other =
        Command::new(env!("CARGO_BIN_EXE_adit")).args(["--deny", "b\u{fc}cher.test"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("expected the xn-- form"), "{other:?}");
}

#[test]
fn no_form_of_a_denied_address_gets_through() {
    let origin = ByHand::open_on("127.0.0.2:0");
    let port = origin.addr.port();
    let dns = DnsServer::start(|question| match (&*question.name, question.qtype) {
        ("mapped.test", AAAA) => Answer::of(&["::ffff:127.0.0.2"]),
        ("compatible.test", AAAA) => Answer::of(&["::127.0.0.2"]),
        ("nat64.test", AAAA) => Answer::of(&["64:ff9b::127.0.0.2"]),
        ("sixtofour.test", AAAA) => Answer::of(&["2002:7f00:2::1"]),
        ("teredo.test", AAAA) => Answer::of(&["2001:0:808:808:0:0:80ff:fffd"]),
        ("teredo-server.test", AAAA) => Answer::of(&["2001:0:7f00:2:0:0:f7f7:f7f7"]),
        ("plain.test", A) => Answer::of(&["127.0.0.2"]),
        _ => Answer::of(&[]),
    });
    for (rules, _file) in both_ways("deny", &["127.0.0.2", "198.51.100.0/24"]) {
        let proxy = proxy_with(&rules, &dns);
        let mut clients = Vec::new();
        for host in [
            "127.0.0.2",
            "[::ffff:127.0.0.2]",
            "[::FFFF:7f00:2]",
            "[0:0:0:0:0:ffff:127.0.0.2]",
            "[::127.0.0.2]",
            "[64:ff9b::127.0.0.2]",
            "[64:ff9b::7f00:2]",
            "[2002:7f00:2::1]",
            "[2001:0:808:808:0:0:80ff:fffd]",
            "[2001:0:7f00:2:0:0:f7f7:f7f7]",
            "mapped.test",
            "compatible.test",
            "nat64.test",
            "sixtofour.test",
            "teredo.test",
            "teredo-server.test",
            "plain.test",
        ] {
            for request in
                [connect_head(&format!("{host}:{port}")).into_bytes(), get(format!("http://{host}:{port}/"))]
            {
                let (status, client) = ask(&proxy, request);
                assert_eq!(status, 403, "{host}");
                clients.push(client);
            }
        }
        for client in clients {
            let access = proxy.access_of(client);
            assert_eq!(access.end, "destination_ip_prohibited", "{}", access.line);
            assert!(
                access.rule.starts_with("deny") && access.rule.ends_with(":127.0.0.2"),
                "{}",
                access.line
            );
        }
        for host in [
            "2130706434",
            "0x7f000002",
            "0x7f.0.0.2",
            "0177.0.0.2",
            "017700000002",
            "127.2",
            "127.0.2",
            "127.0.0.2.",
            "127.0.0.02",
            "[127.0.0.2]",
            "[::ffff:127.0.0.2%25lo]",
            "127%2e0.0.2",
            "127.0.0.2%00",
        ] {
            assert_eq!(ask(&proxy, connect_head(&format!("{host}:{port}"))).0, 400, "{host}");
            assert_eq!(ask(&proxy, get(format!("http://{host}:{port}/"))).0, 400, "{host}");
        }
        origin.assert_not_dialed();
    }
}

#[test]
fn a_name_that_changes_its_address_is_judged_by_the_one_that_is_dialed() {
    // The same port on both: whoever is dialed by mistake is there.
    let good = Origin::echo();
    let port = good.addr.port();
    let denied = ByHand::open_on(&format!("127.0.0.2:{port}"));
    let guarded = ByHand::open_on(&format!("127.0.0.3:{port}"));
    let answers = AtomicUsize::new(0);
    let dns = DnsServer::start(move |question| match (&*question.name, question.qtype) {
        // Never the same twice, and not to be remembered.
        ("rebinding.test", A) => {
            let one = ["127.0.0.1", "127.0.0.2", "127.0.0.3"][answers.fetch_add(1, Ordering::Relaxed) % 3];
            Answer::AddressesFor(vec![one.parse().unwrap()], 0)
        }
        ("all.test", A) => Answer::of(&["127.0.0.2", "127.0.0.3", "127.0.0.1"]),
        _ => Answer::of(&[]),
    });
    let server = dns.addr.to_string();
    for (rules, _file) in both_ways("deny", &["127.0.0.2"]) {
        let mut options: Vec<&str> = rules.iter().map(String::as_str).collect();
        let ports = format!("443,{port}");
        options.extend(["--allow", "127.0.0.1", "--connect-port", &ports, "--nameserver", &server]);
        let proxy = Proxy::start(&options);
        let mut clients = Vec::new();
        for _ in 0..30 {
            let mut client = proxy.client();
            client.send_connect(&format!("rebinding.test:{port}"));
            let status = client.read_head().status;
            if status == 200 {
                client.echo(b"hello");
                client.finish();
            }
            client.read_rest();
            clients.push(client.local);
        }
        let (mut through, mut kept) = (0, 0);
        for client in clients {
            let access = proxy.access_of(client);
            match access.rule.as_str() {
                "allow:127.0.0.1" => {
                    assert_eq!((access.status.as_str(), access.via), ("200", good.addr.to_string()));
                    through += 1;
                }
                rule => {
                    assert_eq!((access.status.as_str(), access.via.as_str()), ("403", "-"));
                    assert!(rule == "guard" || rule.starts_with("deny"), "{}", access.line);
                    kept += 1;
                }
            }
        }
        assert!(through >= 9 && kept >= 18, "{through} {kept}");
        let mut client = proxy.tunnel(&format!("all.test:{port}"));
        client.echo(b"hello");
        client.finish();
        client.read_rest();
        assert_eq!(proxy.access_of(client.local).via, good.addr.to_string());
        denied.assert_not_dialed();
        guarded.assert_not_dialed();
    }
}

#[test]
fn a_list_opens_just_what_it_names() {
    let origin = Origin::echo();
    let port = origin.addr.port();
    let dns = DnsServer::start(|_| Answer::of(&["127.0.0.1"]));
    let server = dns.addr.to_string();
    let list = TempFile::with("0.0.0.0 exact.test\n.domain.test\n*.under.test\n127.7.0.0/16 # a network\n");
    let proxy = Proxy::start(&["--allow-file", &list.path, "--nameserver", &server, "--default", "deny"]);
    let named = |what: &str| format!("allow-file:{}:{what}", list.path);
    for (host, rule) in [
        ("exact.test", named("exact.test")),
        ("domain.test", named(".domain.test")),
        ("a.b.domain.test", named(".domain.test")),
        ("a.under.test", named("*.under.test")),
    ] {
        let mut client = proxy.tunnel(&format!("{host}:{port}"));
        client.echo(b"hello");
        client.finish();
        client.read_rest();
        assert_eq!(proxy.access_of(client.local).rule, rule, "{host}");
    }
    for (host, rule) in [
        ("a.exact.test", "connect-port"),
        ("under.test", "connect-port"),
        ("xdomain.test", "connect-port"),
        ("127.0.0.1", "connect-port"),
        ("127.8.0.1", "connect-port"),
    ] {
        let (status, access) = ask_and_see(&proxy, connect_head(&format!("{host}:{port}")));
        assert_eq!((status, access.rule.as_str()), (403, rule), "{host}");
        let (status, access) = ask_and_see(&proxy, connect_head(&format!("{host}:443")));
        let rule = if host.starts_with("127") { "guard" } else { "default" };
        // With a network in the list the addresses decide.
        assert!(status == 403 && (access.rule == rule || access.rule == "guard"), "{host}: {}", access.rule);
    }
}

#[test]
fn lists_say_what_is_wrong_with_them_and_which_one_decides() {
    let place = TempDir::new();
    let text: String = (0..100).map(|n| format!("bad line {n}\n")).collect();
    place.write(
        "my list.txt",
        format!("\u{feff}# ads\r\nads.test\r\nb\u{fc}cher.test\r\na.*.test\r\n{text}last.test"),
    );
    place.write("second.txt", "ads.test\n.second.test user bob\n10.0.0.0/8\n");
    let (first, second) = (place.option("my list.txt"), place.option("second.txt"));
    let proxy = Proxy::start(&["--deny-file", &first, "--deny-file", &second]);
    for (line, expected) in [(3, "xn--"), (4, "*.example.com"), (5, "'from NET'")] {
        let log = proxy.log.wait("a bad line", |log| log.contains(&format!("my list.txt:{line}: ")));
        assert!(log.contains(" WARN ") && log.contains(expected), "{log}");
    }
    proxy.log.wait("how many there are", |log| log.contains("my list.txt: 102 lines are left out"));
    assert_eq!(proxy.log.all().iter().filter(|log| log.contains("my list.txt:")).count(), 8 + 2);
    proxy.log.wait("the second", |log| log.contains("second.txt: 3 destinations"));
    // Nobody shows who he is, so a rule for a user is a slip.
    proxy.log.wait("a warning", |log| log.contains("WARN") && log.contains("--users"));

    let mut client = proxy.client();
    client.send_connect("ads.test:443");
    let answer = client.read_refusal();
    assert_eq!(answer.details, "--deny-file my_list.txt (ads.test) names this destination");
    assert!(!answer.body.contains('/'), "no way to a file is for clients: {}", answer.body);
    let local = client.local;
    drop(client);
    assert_eq!(proxy.access_of(local).rule, format!("deny-file:{}:ads.test", first.replace(' ', "_")));
    let (status, access) = ask_and_see(&proxy, connect_head("10.1.2.3:443"));
    assert_eq!((status, access.rule), (403, format!("deny-file:{second}:10.0.0.0/8")));
    assert_eq!(ask(&proxy, connect_head("last.test:443")).0, 403);

    // Without a file nothing starts.
    let nowhere = place.option("nowhere.txt");
    let output = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["-l", "127.0.0.1:0", "--allow-file", &nowhere])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&nowhere), "{output:?}");
}

#[test]
fn what_is_slow_in_a_list_is_told() {
    let place = TempDir::new();
    place.write("fits.txt", (0..2000).map(|n| format!("n{n}.test:{}\n", 1 + n % 15)).collect::<String>());
    place.write("ranges.txt", (1..=20).map(|n| format!("10.0.0.0/8:{n}\n")).collect::<String>());
    place.write("users.txt", (0..1001).map(|n| format!("n{n}.test user alice\n")).collect::<String>());
    let lists = ["fits.txt", "ranges.txt", "users.txt"].map(|name| place.option(name));
    let options: Vec<&str> = lists.iter().flat_map(|list| ["--deny-file", list]).collect();
    let proxy = Proxy::start(&options);
    let warned: Vec<String> =
        proxy.log.all().into_iter().filter(|log| log.contains(" WARN ") && log.contains(".txt:")).collect();
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(warned[0].contains("ranges.txt: 5 lines are asked one by one"), "{warned:?}");
    assert!(warned[1].contains("users.txt: 1001 lines are asked one by one"), "{warned:?}");
    // What is beyond what is found quickly holds as well.
    for (port, listed) in [(1, "ranges.txt"), (20, "ranges.txt")] {
        let (status, access) = ask_and_see(&proxy, connect_head(&format!("10.1.2.3:{port}")));
        assert_eq!(status, 403);
        assert!(access.rule.ends_with(&format!("{listed}:10.0.0.0/8:{port}")), "{}", access.rule);
    }
    let (_, access) = ask_and_see(&proxy, connect_head("n14.test:15"));
    assert!(access.rule.ends_with("fits.txt:n14.test:15"), "{}", access.rule);
}

#[test]
fn a_rule_for_a_user_that_does_not_exist_is_told() {
    const ALICE: &str = "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
    let place = TempDir::new();
    place.write("users", ALICE);
    place.write("list.txt", "a.test user alice\n.b.test user Alice\n10.0.0.0/8 user bob from 192.0.2.1\n");
    let (users, list) = (place.option("users"), place.option("list.txt"));
    let options =
        ["--users", &users, "--deny-file", &list, "--allow", "* user alice", "--deny", "* user mallory"];
    let proxy = Proxy::start(&options);
    let warnings = |proxy: &Proxy| -> Vec<String> {
        let logs = proxy.log.all();
        logs.into_iter().filter(|log| log.contains(" WARN ") && log.contains("says nothing")).collect()
    };
    let told = warnings(&proxy);
    assert_eq!(told.len(), 3, "{told:?}");
    for (log, words) in told.iter().zip([
        ["--users has no mallory:", "* user mallory"],
        ["--users has no Alice:", "list.txt: .b.test user Alice"],
        ["--users has no bob:", "list.txt: 10.0.0.0/8 user bob from 192.0.2.1"],
    ]) {
        assert!(words.iter().all(|word| log.contains(word)), "{log}");
    }
    // Many are counted.
    place.write("list.txt", (0..100).map(|n| format!("a.test user u{n}\n")).collect::<String>());
    let proxy = Proxy::start(&options);
    assert_eq!(warnings(&proxy).len(), 8);
    proxy.log.wait("how many there are", |log| log.contains(" WARN ") && log.contains("101 rules"));
    // Where nobody can log in, that is said once.
    place.write("users", "# nobody yet\n");
    let proxy = Proxy::start(&options);
    proxy.log.wait("that it is empty", |log| log.contains(" WARN ") && log.contains("no users"));
    assert_eq!(warnings(&proxy), [""; 0]);
}

#[test]
fn a_changed_list_is_in_force_after_a_reload() {
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let place = TempDir::new();
    place.write("list.txt", "elsewhere.test\n");
    let list = place.option("list.txt");
    let proxy = Proxy::open(&["--deny-file", &list]);
    let mut standing = proxy.tunnel(&target);
    place.replace("list.txt", "127.0.0.0/8\n");
    proxy.signal(Signal::HUP);
    let mut denied = || {
        let mut client = proxy.client();
        client.send_connect(&target);
        (client.read_head().status == 403).then_some(())
    };
    until("the list to be in force", &mut denied);
    standing.echo(b"running tunnels stay");
    // One that is gone changes nothing.
    std::fs::remove_file(place.at("list.txt")).unwrap();
    proxy.signal(Signal::HUP);
    proxy.log.wait("why not", |log| log.contains("ERROR") && log.contains(&list));
    assert!(denied().is_some());
    standing.echo(b"still");
}

#[test]
fn two_hundred_thousand_names_take_two_megabytes_once() {
    let text = |count: usize| {
        (0..count).map(|n| format!("0.0.0.0 ads{n}.net{}.test\n", n % 991)).collect::<String>()
    };
    let (many, few) = (TempFile::with(&text(200_000)), TempFile::with(&text(1)));
    let resident_kib = |list: &TempFile, last: &str| {
        let proxy = Proxy::start(&["--deny-file", &list.path, "--loops", "4"]);
        for name in ["ads0.net0.test", last] {
            assert_eq!(ask(&proxy, connect_head(&format!("{name}:443"))).0, 403, "{name}");
        }
        proxy.resident_kib()
    };
    let with = resident_kib(&many, "ads199999.net808.test");
    let without = resident_kib(&few, "ads0.net0.test");
    // The names once for all four loops; the text that they were read from is gone.
    assert!(with < without + 2_200, "{with} KiB with, {without} KiB without");
}
