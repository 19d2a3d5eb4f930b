//! `--users` through the real binary: who is let in and who is not, what is told of it, and that hashes hold up nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::client::{Answer, Client};
use support::http_origin::{ByHand, answering, url};
use support::origin::Origin;
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::wire::{Wire, ok, request};
use support::{Beside, Ending, TempDir, TempFile, until};

/// `htpasswd -nbs`, `-nbm` and `-nbB`. All passwords are "secret".
const SHA: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
const APR1: &str = "$apr1$7v7mMGOx$2IjpRAVb0297Wdc7w4.MT1";
/// With `-C` and this number. They are optimised in every profile (Cargo.toml).
const BCRYPT_8: &str = "$2y$08$u.8Ab/.re25myHcPXQzrjuoBVdidboVf1IRtqkGX9uMaTlTpIAcce";
const BCRYPT_10: &str = "$2y$10$waz10DYtzRMq7uCtXT9YOu9hjeG3k9Wp4xCvIt6M/KKSQjCaqjM52";
const BCRYPT_12: &str = "$2y$12$oifc9BrE8LC6.5eVjTxdNOratMp033m2XJv5ddXO9l/4h3eOs0yje";
const BCRYPT_13: &str = "$2y$13$b7OJbBqV69/Tg1X1IqKQK.HtS5wkChku.mPfJNZukpbf8a7nVmAVG";
/// What a login of a realistic kind takes.
const BCRYPT: &str = BCRYPT_10;
/// A noticeable part of a second, and about a second.
const SLOW: &str = BCRYPT_12;
const SLOWEST: &str = BCRYPT_13;

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part.iter().chain([&0, &0]).take(3).fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        for at in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
            text.push(if at <= part.len() { digit } else { '=' });
        }
    }
    text
}

fn field(value: &str) -> String {
    format!("Proxy-Authorization: {value}\r\n")
}

fn shows(user: &str, password: &str) -> String {
    field(&format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
}

fn connect(target: &str, fields: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n")
}

/// A proxy for these users, each with this hash.
fn proxy_for(users: &[(&str, &str)], options: &[&str]) -> (Proxy, TempFile) {
    let file = TempFile::with(&lines(users));
    let proxy = Proxy::open(&[&["--users", &file.path], options].concat());
    (proxy, file)
}

fn lines(users: &[(&str, &str)]) -> String {
    users.iter().map(|(name, hash)| format!("{name}:{hash}\n")).collect()
}

fn alice() -> (Proxy, TempFile) {
    proxy_for(&[("alice", SHA), ("bob", APR1)], &[])
}

fn origin() -> Origin {
    answering(|_| ok("hello").into())
}

/// What a CONNECT that shows this gets: the refusal if it is one.
#[track_caller]
fn tunnel_with(proxy: &Proxy, target: &str, fields: &str) -> Result<Client, Box<(Answer, Client)>> {
    let mut client = proxy.client();
    client.send(connect(target, fields));
    let head = client.read_head();
    if head.status == 200 {
        return Ok(client);
    }
    let (body, ending) = client.read_rest();
    assert_eq!(ending, Ending::Eof, "a refused CONNECT closes");
    let raw = [head.raw.as_bytes(), &body].concat();
    Err(Box::new((Answer::parse(&raw).unwrap_or_else(|wrong| panic!("{wrong}")), client)))
}

#[track_caller]
fn check_407(answer: &Answer, details: &str) {
    assert_eq!((answer.head.status, &*answer.error), (407, "http_request_denied"));
    assert_eq!(answer.head.header("proxy-authenticate"), Some("Basic realm=\"adit\""));
    assert!(answer.details.contains(details), "{answer:?}");
}

// Who is let in.

#[test]
fn exact_credentials_open_a_tunnel_and_nothing_else_does() {
    let (proxy, _file) = alice();
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let good = base64(b"alice:secret");
    for fields in [
        shows("alice", "secret"),
        shows("bob", "secret"),
        field(&format!("basic {good}")),
        field(&format!("BASIC   {good}")),
    ] {
        let mut client =
            tunnel_with(&proxy, &target, &fields).unwrap_or_else(|refused| panic!("{:?}", refused.0));
        client.echo(b"hello");
        client.finish();
        client.read_rest();
        let access = proxy.access_of(client.local);
        assert_eq!((&*access.status, access.rule.starts_with("allow:")), ("200", true), "{}", access.line);
        assert!(["alice", "bob"].contains(&&*access.user), "{}", access.line);
    }
    let (answer, client) = *tunnel_with(&proxy, &target, "").err().unwrap();
    check_407(&answer, "no credentials were sent");
    let access = proxy.access_of(client.local);
    assert_eq!((&*access.user, &*access.status, &*access.rule), ("-", "407", "users"), "{}", access.line);
    for fields in [
        shows("alice", "Secret"),
        shows("alice", ""),
        shows("alice", "secret "),
        shows("Alice", "secret"),
        shows("mallory", "secret"),
        shows("", "secret"),
        [shows("alice", "secret"), shows("alice", "secret")].concat(),
        [shows("alice", "secret"), shows("bob", "secret")].concat(),
        field(&format!("Bearer {good}")),
        field(&format!("Basic{good}")),
        field(&format!("Basic\t{good}")),
        field(&format!("Basic {good}=")),
        field(&format!("Basic {good} x")),
        field(&format!("Basic {}", good.trim_end_matches('='))).replace(&good, &good[..good.len() - 1]),
        field("Basic !!!!"),
        field("Basic"),
        field(""),
        field(&format!("Basic {}", base64(b"alice"))),
        field(&format!("Digest username=\"alice\", response=\"{good}\"")),
        field(&format!("Basic {}", "A".repeat(5_000))),
    ] {
        let (answer, client) =
            *tunnel_with(&proxy, &target, &fields).err().unwrap_or_else(|| panic!("{fields}"));
        check_407(&answer, "credentials are wrong");
        assert!(!answer.body.contains(&good) && !answer.body.contains("secret"), "{answer:?}");
        let access = proxy.access_of(client.local);
        let told = (&*access.user, &*access.status, &*access.rule, &*access.end);
        assert_eq!(told, ("-", "407", "users:wrong", "http_request_denied"), "{}", access.line);
    }
    assert_eq!(origin.accepted_so_far(), 4);
    let (_, log, lines) = proxy.stop();
    let all = [log, lines].concat().join("\n");
    assert!(!all.contains("secret") && !all.contains(&good[..6]), "credentials are in no log:\n{all}");
}

#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    let (proxy, _file) = alice();
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    for first in ["", &*shows("alice", "wrong")] {
        let mut client = proxy.client();
        client.send([connect(&target, first), connect(&target, &shows("alice", "secret"))].concat());
        check_407(&client.read_refusal(), "credentials");
        proxy.access_of(client.local);
    }
    assert_eq!(origin.accepted_so_far(), 0);
}

#[test]
fn credentials_are_asked_for_behind_the_client_and_before_rules() {
    let file = TempFile::with(&lines(&[("alice", SHA)]));
    let proxy = Proxy::start(&["--users", &file.path, "--client", "127.0.0.1", "--deny", "denied.test"]);
    let mut wire = Wire::dial_from("127.0.0.2", proxy.addr);
    wire.send(connect("denied.test:443", &shows("alice", "secret")));
    let refused = wire.read_last_refusal();
    assert!(refused.details.contains("--client"), "{refused:?}");
    let refused = tunnel_with(&proxy, "denied.test:443", "").err().unwrap().0;
    check_407(&refused, "no credentials");
    let refused = tunnel_with(&proxy, "denied.test:443", &shows("alice", "secret")).err().unwrap().0;
    assert_eq!((refused.head.status, refused.details.contains("--deny")), (403, true), "{refused:?}");
}

#[test]
fn plain_http_goes_on_behind_a_407_and_credentials_go_nowhere_else() {
    let (proxy, _file) = alice();
    let origin = ByHand::open();
    let target = origin.url("/x");
    let mut client = proxy.wire();
    client.get(&target);
    check_407(&client.read_open_refusal(), "no credentials");
    client.send(request("GET", &target, &shows("alice", "wrong")));
    check_407(&client.read_open_refusal(), "are wrong");
    origin.assert_not_dialed();
    client.send(request("GET", &target, &shows("alice", "secret")));
    let mut upstream = origin.accept();
    let head = upstream.read_request();
    assert_eq!(head.field("proxy-authorization"), None, "{head:?}");
    assert!(!head.raw.contains(&base64(b"alice:secret")), "{head:?}");
    upstream.send(ok("hello"));
    assert_eq!(client.read_response("GET").body, b"hello");
    // Each request shows its own.
    client.get(&target);
    check_407(&client.read_open_refusal(), "no credentials");
    client.send(request("GET", &target, &shows("bob", "secret")));
    upstream.read_request();
    upstream.send(ok("again"));
    assert_eq!(client.read_response("GET").body, b"again");
    let told: Vec<[String; 3]> = (0..5)
        .map(|_| proxy.access_of(client.local))
        .map(|access| [access.user, access.status, access.rule])
        .collect();
    let rule = "allow:127.0.0.0/8";
    assert_eq!(
        told,
        [
            ["-", "407", "users"],
            ["-", "407", "users:wrong"],
            ["alice", "200", rule],
            ["-", "407", "users"],
            ["bob", "200", rule]
        ]
    );
}

#[test]
fn rules_are_for_users_also_where_they_share_a_connection() {
    let (proxy, _file) = proxy_for(&[("alice", SHA), ("bob", SHA)], &["--deny", "* user bob"]);
    let origin = origin();
    let target = url(origin.addr, "/");
    let mut client = proxy.wire();
    for _ in 0..2 {
        client.send(request("GET", &target, &shows("alice", "secret")));
        assert_eq!(client.read_response("GET").status(), 200);
        assert_eq!(proxy.access_of(client.local).user, "alice");
        client.send(request("GET", &target, &shows("bob", "secret")));
        let refused = client.read_open_refusal();
        assert_eq!((refused.head.status, &*refused.error), (403, "http_request_denied"));
        let access = proxy.access_of(client.local);
        assert_eq!((&*access.user, &*access.rule), ("bob", "deny:*_user_bob"), "{}", access.line);
    }
    let echo = Origin::echo();
    is_let_in(&proxy, &echo.addr.to_string(), "alice");
    let refused = tunnel_with(&proxy, &echo.addr.to_string(), &shows("bob", "secret")).err().unwrap().0;
    assert_eq!(refused.head.status, 403);
}

#[test]
fn what_the_proxy_answers_itself_is_for_users_and_echoes_no_credentials() {
    let (proxy, _file) = alice();
    let mut client = proxy.wire();
    client.send("TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n");
    check_407(&client.read_open_refusal(), "no credentials");
    let fields = format!("Max-Forwards: 0\r\n{}", shows("alice", "secret"));
    client.send(request("TRACE", "http://a.test/", &fields));
    let response = client.read_response("TRACE");
    assert_eq!(response.status(), 200);
    let echo = String::from_utf8(response.body).unwrap();
    assert!(echo.contains("TRACE http://a.test/") && !echo.contains("uthorization"), "{echo}");
}

// What is remembered.

/// CPU ticks of 10 ms that the proxy uses meanwhile.
fn ticks_of(proxy: &Proxy, act: impl FnOnce()) -> u64 {
    let before = proxy.cpu_ticks();
    act();
    proxy.cpu_ticks() - before
}

#[track_caller]
fn is_let_in(proxy: &Proxy, target: &str, user: &str) {
    drop(
        tunnel_with(proxy, target, &shows(user, "secret"))
            .unwrap_or_else(|refused| panic!("{:?}", refused.0)),
    );
}

#[test]
fn equal_questions_are_asked_once_and_answers_are_remembered_by_all_loops() {
    let (proxy, _file) = proxy_for(&[("alice", SLOW), ("bob", SLOW)], &["--loops", "2"]);
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let one = ticks_of(&proxy, || is_let_in(&proxy, &target, "alice"));
    assert!(one >= 10, "a hash that takes {one} ticks proves nothing");
    let together = ticks_of(&proxy, || {
        let mut clients: Vec<Client> = (0..32).map(|_| proxy.client()).collect();
        for client in &mut clients {
            client.send(connect(&target, &shows("bob", "secret")));
        }
        for client in &mut clients {
            assert_eq!(client.read_head().status, 200);
        }
    });
    assert!(together < 2 * one, "{together} ticks for 32 equal logins, {one} for one");
    let again = ticks_of(&proxy, || (0..32).for_each(|_| is_let_in(&proxy, &target, "alice")));
    assert!(again < one, "{again} ticks for 32 remembered logins, {one} for one");
    let good = base64(b"alice:secret");
    let spelt = ticks_of(&proxy, || {
        for scheme in ["basic", "BASIC", "Basic ", "bAsIc   "] {
            assert!(tunnel_with(&proxy, &target, &field(&format!("{scheme} {good}"))).is_ok());
        }
    });
    assert!(spelt < one, "{spelt} ticks for 4 spellings of what is remembered, {one} for one login");
    // What is wrong is remembered, too.
    let wrong =
        || check_407(&tunnel_with(&proxy, &target, &shows("alice", "wrong")).err().unwrap().0, "wrong");
    let first = ticks_of(&proxy, wrong);
    let again = ticks_of(&proxy, || (0..16).for_each(|_| wrong()));
    assert!(again < first, "{again} ticks for 16 equal wrong logins, {first} for one");
}

#[test]
fn a_reload_lets_new_users_in_and_keeps_removed_ones_out() {
    let dir = TempDir::new();
    dir.write("users", lines(&[("alice", SHA), ("bob", SHA)]));
    let proxy = Proxy::open(&["--users", &dir.option("users"), "--loops", "2"]);
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let mut standing = Vec::new();
    for _ in 0..16 {
        for user in ["alice", "bob"] {
            standing.push(tunnel_with(&proxy, &target, &shows(user, "secret")).ok().unwrap());
        }
    }
    check_407(&tunnel_with(&proxy, &target, &shows("carol", "secret")).err().unwrap().0, "wrong");
    dir.replace("users", lines(&[("alice", SHA), ("carol", SHA)]));
    proxy.signal(Signal::HUP);
    proxy.log.wait("the reload", |line| line.contains("reloaded"));
    // The main thread has said so; the loops have it in their mail.
    let is_out = |user: &str| tunnel_with(&proxy, &target, &shows(user, "secret")).is_err();
    until("both loops to follow", || (0..16).all(|_| is_out("bob") && !is_out("carol")).then_some(()));
    is_let_in(&proxy, &target, "alice");
    for client in &mut standing {
        client.echo(b"tunnels go on");
    }
}

#[test]
fn a_reload_costs_users_that_stay_nothing() {
    const USERS: usize = 30;
    let names: Vec<String> = (0..USERS).map(|at| format!("user{at}")).collect();
    let stay: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), BCRYPT)).collect();
    let dir = TempDir::new();
    dir.write("users", lines(&[&stay[..], &[("changes", SHA)]].concat()));
    let proxy = Proxy::open(&["--users", &dir.option("users"), "--loops", "2"]);
    let origin = origin();
    let target = url(origin.addr, "/");
    let get = |wire: &mut Wire, user: &str| wire.send(request("GET", &target, &shows(user, "secret")));
    let mut wires: Vec<Wire> = names.iter().map(|_| proxy.wire()).collect();
    let mut all = || {
        let mut good = 0;
        for (wire, name) in wires.iter_mut().zip(&names) {
            get(wire, name);
        }
        for wire in &mut wires {
            good += usize::from(wire.read_response("GET").status() == 200);
        }
        good
    };
    assert_eq!(all(), USERS);
    let is_in = |user: &str| {
        let mut wire = proxy.wire();
        get(&mut wire, user);
        wire.read_head().status() == 200
    };
    let first = ticks_of(&proxy, || assert!(!is_in("nobody")));
    let mut answered = 0;
    let reloads = ticks_of(&proxy, || {
        for (round, new) in ["anna", "berta", "clara"].into_iter().enumerate() {
            dir.replace("users", lines(&[&[(new, SHA), ("changes", APR1)], &stay[..]].concat()));
            proxy.signal(Signal::HUP);
            // Before, while and after the loops follow.
            answered += all();
            until("both loops to follow", || (0..8).all(|_| is_in(new)).then_some(()));
            answered += all();
            assert_eq!(answered, 2 * (round + 1) * USERS);
        }
    });
    assert!(is_in("changes"), "its new hash is of the same password");
    assert!(reloads < USERS as u64 * first.max(1), "{reloads} ticks for three reloads, {first} for one hash");
}

/// Computed with the old file, asked for under the new one.
#[test]
fn an_answer_that_is_overtaken_by_a_reload_lets_nobody_in() {
    let dir = TempDir::new();
    dir.write("users", lines(&[("alice", SLOWEST), ("bob", SHA)]));
    let proxy = Proxy::open(&["--users", &dir.option("users")]);
    let mut beside = beside_as(&proxy, "bob");
    let ticks = proxy.cpu_ticks();
    let mut client = proxy.client();
    client.send(connect("127.0.0.1:443", &shows("alice", "secret")));
    beside.turns();
    until("its hash to be begun", || (proxy.cpu_ticks() > ticks + 1).then_some(()));
    dir.replace("users", lines(&[("bob", SHA)]));
    proxy.signal(Signal::HUP);
    check_407(&client.read_refusal(), "wrong");
}

// What hashes cost the others.

#[test]
fn a_client_that_leaves_while_its_hash_is_computed_is_released_at_once() {
    let (proxy, _file) = proxy_for(&[("alice", SLOWEST), ("bob", SHA)], &[]);
    let mut beside = beside_as(&proxy, "bob");
    let (descriptors, ticks) = (proxy.descriptors(), proxy.cpu_ticks());
    let mut client = proxy.client();
    client.send(connect("127.0.0.1:443", &shows("alice", "secret")));
    beside.turns();
    until("its hash to be begun", || (proxy.cpu_ticks() > ticks + 1).then_some(()));
    let local = client.local;
    let started = Instant::now();
    client.reset();
    until("its socket to be closed", || (proxy.descriptors() == descriptors).then_some(()));
    let released = started.elapsed();
    let access = proxy.access_of(local);
    assert_eq!((&*access.end, &*access.user, &*access.status), ("client_reset", "-", "-"), "{}", access.line);
    // The hash goes on, and its answer finds nobody. Who asks behind it waits for it.
    let mut client = proxy.client();
    client.send(connect("127.0.0.1:443", &shows("bob", "wrong")));
    check_407(&client.read_refusal(), "wrong");
    assert!(released < started.elapsed() / 2, "released after {released:?} of {:?}", started.elapsed());
}

/// A tunnel of this user.
fn beside_as(proxy: &Proxy, user: &str) -> Beside {
    Beside::with(proxy, &shows(user, "secret"))
}

#[test]
fn fifty_fresh_logins_leave_a_tunnel_alone() {
    const CLIENTS: usize = 50;
    let names: Vec<String> = (0..CLIENTS).map(|at| format!("user{at}")).collect();
    let mut users: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), BCRYPT)).collect();
    users.extend([("one", BCRYPT), ("beside", SHA)]);
    let (proxy, _file) = proxy_for(&users, &[]);
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let mut tunnel = tunnel_with(&proxy, &target, &shows("beside", "secret")).ok().unwrap();
    let mut round_trip = || {
        let started = Instant::now();
        tunnel.echo(b"ping");
        started.elapsed()
    };
    let mut before: Vec<Duration> = (0..500).map(|_| round_trip()).collect();
    let started = Instant::now();
    is_let_in(&proxy, &target, "one");
    let one_login = started.elapsed();
    let (over, addr) = (Arc::new(AtomicBool::new(false)), proxy.addr);
    let logins = {
        let (over, target) = (Arc::clone(&over), target.clone());
        std::thread::spawn(move || {
            // All at once: each waits for its answer behind those of the others.
            let address = |at: usize| format!("127.0.0.{}", 2 + at % 10);
            let started = Instant::now();
            let mut open: Vec<(usize, Wire)> = Vec::new();
            let ask = |at: usize| {
                let mut wire = Wire::dial_from(&address(at), addr);
                wire.send(connect(&target, &shows(&format!("user{at}"), "secret")));
                wire
            };
            open.extend((0..CLIENTS).map(|at| (at, ask(at))));
            let mut again = 0;
            while let Some((at, mut wire)) = open.pop() {
                match wire.read_head().status() {
                    200 => {}
                    // A machine that has more to do takes longer than is waited for.
                    503 => {
                        again += 1;
                        open.insert(0, (at, ask(at)));
                    }
                    other => panic!("{other}"),
                }
            }
            over.store(true, Ordering::Release);
            (started.elapsed(), again)
        })
    };
    let mut during = Vec::new();
    while !over.load(Ordering::Acquire) && !logins.is_finished() {
        during.push(round_trip());
    }
    let (took, again) = logins.join().expect("all are let in");
    before.sort_unstable();
    during.sort_unstable();
    println!(
        "one login {one_login:?}; {CLIENTS} fresh ones {took:?} ({again} asked again); round trip before: median {:?}, longest {:?}; \
         meanwhile, of {}: median {:?}, 99 % {:?}, longest {:?}",
        before[before.len() / 2],
        before.last().unwrap(),
        during.len(),
        during[during.len() / 2],
        during[during.len() * 99 / 100],
        during.last().unwrap()
    );
    assert!(during[during.len() / 2] < one_login / 4, "the loop waits for hashes");
    assert!(during.len() > 20 * CLIENTS, "a round trip for each hash: {}", during.len());
}

#[test]
fn a_flood_of_wrong_passwords_slows_only_its_own_address() {
    const FLOOD: usize = 20;
    let (proxy, _file) = proxy_for(&[("alice", BCRYPT), ("bob", BCRYPT)], &[]);
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    is_let_in(&proxy, &target, "bob");
    let refused = Arc::new(AtomicUsize::new(0));
    let busy = Arc::new(AtomicUsize::new(0));
    let guess = |password: &str| {
        let mut wire = Wire::dial_from("127.0.0.2", proxy.addr);
        wire.send(connect(&target, &shows("alice", password)));
        wire
    };
    check_407(&guess("the first").read_last_refusal(), "wrong");
    let mut flood = Vec::new();
    for at in 0..FLOOD {
        let mut wire = guess(&format!("guess {at}"));
        let (refused, busy) = (Arc::clone(&refused), Arc::clone(&busy));
        flood.push(std::thread::spawn(move || {
            let (raw, _) = wire.read_rest();
            match raw.get(..12) {
                Some(b"HTTP/1.1 407") => drop(refused.fetch_add(1, Ordering::AcqRel)),
                Some(b"HTTP/1.1 429") => drop(busy.fetch_add(1, Ordering::AcqRel)),
                // Waited too long for its turn, or until the test was over.
                Some(b"HTTP/1.1 503") | None => {}
                Some(other) => panic!("{}", other.escape_ascii()),
            }
        }));
    }
    until("the address to have all its places taken", || (busy.load(Ordering::Acquire) > 0).then_some(()));
    let before = refused.load(Ordering::Acquire);
    is_let_in(&proxy, &target, "alice");
    let meanwhile = refused.load(Ordering::Acquire) - before;
    assert!(meanwhile <= 2, "{meanwhile} guesses came before an honest login");
    // Remembered users of that very address are not slowed either.
    let mut wire = Wire::dial_from("127.0.0.2", proxy.addr);
    wire.send(connect(&target, &shows("bob", "secret")));
    assert_eq!(wire.read_head().status(), 200);
    assert!(refused.load(Ordering::Acquire) < FLOOD / 2, "the flood was not slowed");
    drop(proxy);
    for thread in flood {
        thread.join().unwrap();
    }
}

/// More guesses than there are places, from addresses that were not wrong before.
#[test]
fn a_flood_from_many_addresses_locks_nobody_out() {
    const ADDRESSES: usize = 18;
    const EACH: usize = 18;
    const HONEST: usize = 20;
    let names: Vec<String> = (0..HONEST).map(|at| format!("user{at}")).collect();
    let users: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), APR1)).collect();
    let (proxy, _file) = proxy_for(&users, &[]);
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let ask = |address: String, fields: &str| {
        let mut wire = Wire::dial_from(&address, proxy.addr);
        wire.send(connect(&target, fields));
        wire
    };
    let flood: Vec<Wire> = (0..ADDRESSES * EACH)
        .map(|at| ask(format!("127.0.1.{}", at % ADDRESSES), &shows("user0", &format!("guess {at}"))))
        .collect();
    let is_busy = |line: &str| line.contains(" 503 ") || line.contains(" 429 ");
    proxy.access.wait("the places to be taken", is_busy);
    let mut honest: Vec<Wire> =
        (0..HONEST).map(|at| ask(format!("127.0.2.{at}"), &shows(&names[at], "secret"))).collect();
    let good = honest.iter_mut().filter_map(|wire| (wire.read_head().status() == 200).then_some(()));
    assert_eq!(good.count(), HONEST);
    drop(flood);
}

#[test]
fn many_users_behind_one_address_are_all_let_in() {
    const USERS: usize = 40;
    let names: Vec<String> = (0..USERS).map(|at| format!("user{at}")).collect();
    let users: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), BCRYPT_8)).collect();
    let (proxy, _file) = proxy_for(&users, &[]);
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let mut clients: Vec<Client> = names.iter().map(|_| proxy.client()).collect();
    for (client, name) in clients.iter_mut().zip(&names) {
        client.send(connect(&target, &shows(name, "secret")));
    }
    let good = clients.iter_mut().filter_map(|client| (client.read_head().status == 200).then_some(()));
    assert_eq!(good.count(), USERS);
}

/// Of the slowest kinds: over 2 s of any machine. It is nobody's hash.
#[test]
fn a_slow_hash_is_warned_of_once() {
    const COST: &str = "$16$";
    let (proxy, _file) = proxy_for(&[("alice", &SLOW.replace(&SLOW[3..7], COST))], &[]);
    let is_warning = |line: &str| line.contains("--users: one login took ");
    let mut clients = Vec::new();
    // The second one begins when the first is told of, if it was.
    for password in ["one", "two"] {
        let mut client = proxy.client();
        client.send(connect("127.0.0.1:443", &shows("alice", password)));
        clients.push(client);
    }
    let line = proxy.log.wait("the warning", is_warning);
    assert!(line.contains("WARN") && line.contains("bcrypt costs of 10 to 12"), "{line}");
    for mut client in clients {
        // Or 503, where a machine takes longer.
        assert!([407, 503].contains(&client.read_head().status));
    }
    assert_eq!(proxy.log.all().iter().filter(|line| is_warning(line)).count(), 1);
}

// One client's share of the sessions.

#[test]
fn one_client_has_so_many_sessions_and_others_have_theirs() {
    let proxy =
        Launch::new(&[&ALLOW_LOOPBACK[..], &["--max-sessions-per-client", "2", "--loops", "2"]].concat())
            .start();
    let origin = Origin::echo();
    let target = origin.addr.to_string();
    let standing = [proxy.tunnel(&target), proxy.tunnel(&target)];
    // At once, whatever it may want, and by all loops.
    for _ in 0..8 {
        let client = proxy.client();
        let local = client.local;
        let mut client = client;
        let refused = client.read_refusal();
        assert_eq!((refused.head.status, &*refused.error), (429, "connection_limit_reached"));
        assert!(refused.details.contains("--max-sessions-per-client"), "{refused:?}");
        assert!(refused.head.header("retry-after").is_some());
        assert_eq!(proxy.access_of(local).status, "429");
    }
    let mut other = Wire::dial_from("127.0.0.2", proxy.addr);
    other.send(connect(&target, ""));
    assert_eq!(other.read_head().status(), 200);
    drop(standing);
    until("places to come back", || {
        let mut client = proxy.client();
        client.send(connect(&target, ""));
        (client.read_head().status == 200).then_some(())
    });
}

#[test]
fn without_users_nothing_is_asked() {
    let (proxy, origin) = (Proxy::open(&[]), origin());
    let mut client = proxy.wire();
    client.send(request("GET", &url(origin.addr, "/"), &shows("alice", "secret")));
    assert_eq!(client.read_response("GET").status(), 200);
    assert_eq!(proxy.access_of(client.local).user, "-");
}
