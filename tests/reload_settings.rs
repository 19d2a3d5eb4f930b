//! The file of `--config`, and what HUP does about it: everything is read and checked first, then changed in one step, or not
//! at all. What runs goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use support::client::Client;
use support::http_origin::{ByHand, answering, url};
use support::origin::Origin;
use support::proxy::{Proxy, listening_on};
use support::wire::{Wire, ok};
use support::{TempDir, until};

const RELOADED: &str = " reloaded: ";
const NOT_RELOADED: &str = "not reloaded, nothing has changed: ";
const ALLOWED: &str = "allow 127.0.0.0/8\n";

/// A proxy that goes by a file.
struct Scene {
    dir: TempDir,
    proxy: Proxy,
}

impl Scene {
    fn new(conf: &str, options: &[&str]) -> Scene {
        let dir = TempDir::new();
        dir.write("conf", conf);
        let proxy = Proxy::start(&[&["--config", &dir.option("conf")], options].concat());
        Scene { dir, proxy }
    }

    /// Another content of the file, and HUP. Waits until the main thread has said so; the loops have it in their mail then, which
    /// they read before anything that comes later.
    #[track_caller]
    fn reload(&self, conf: &str) -> String {
        self.hang_up(conf, RELOADED)
    }

    #[track_caller]
    fn hang_up(&self, conf: &str, says: &str) -> String {
        let said = self.proxy.log.all().iter().filter(|line| line.contains(says)).count();
        self.dir.write("conf", conf);
        self.proxy.signal(Signal::HUP);
        self.proxy.log.wait_nth(says, said + 1, |line| line.contains(says))
    }
}

/// The status of a CONNECT.
#[track_caller]
fn connect(proxy: SocketAddr, target: SocketAddr) -> u16 {
    let mut client = Client::dial(proxy);
    client.send_connect(&target.to_string());
    client.read_head().status
}

fn adit(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_adit")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_configuration_is_checked_without_running() {
    let dir = TempDir::new();
    dir.write("hosts", "127.0.0.1 a.test\n");
    dir.write("conf", format!("listen 127.0.0.1:0 # here\nhosts {}\n", dir.option("hosts")));
    let conf = dir.option("conf");
    assert_eq!(adit(&["--config", &conf, "--check-config"]), (Some(0), "ok\n".into(), String::new()));
    dir.write("conf", "\ngrace soon\n");
    let (code, out, err) = adit(&["-c", &conf, "--check-config"]);
    assert_eq!((code, &*out), (Some(2), ""));
    assert!(err.contains(&format!("{conf}:2: option --grace: \"soon\" is wrong, expected ")), "{err}");
    // It is the same without the check, and a file that is not there is the system's fault.
    assert_eq!(adit(&["-c", &conf]).0, Some(2));
    let (code, _, err) = adit(&["-c", "/nonexistent/file", "--check-config"]);
    assert!(code == Some(1) && err.contains("/nonexistent/file"), "{err}");
    let (code, _, err) = adit(&["--check-config", "--hosts", "/nonexistent/file"]);
    assert!(code == Some(1) && err.contains("/nonexistent/file"), "{err}");
}

#[test]
fn rules_are_changed_and_tunnels_stay() {
    let origin = Origin::echo();
    let scene = Scene::new(ALLOWED, &[]);
    let mut tunnel = scene.proxy.tunnel(&origin.addr.to_string());
    tunnel.echo(b"before");
    let said = scene.reload(&format!("{ALLOWED}deny 127.0.0.1\nclient 127.0.0.0/9\n"));
    assert!(said.contains("1 listener, 1 client network, 2 rules"), "{said}");
    assert_eq!(connect(scene.proxy.addr, origin.addr), 403);
    tunnel.echo(b"after");
    scene.reload(ALLOWED);
    assert_eq!(connect(scene.proxy.addr, origin.addr), 200);
    scene.reload(&format!("{ALLOWED}client 127.0.0.2\n"));
    let mut client = scene.proxy.client();
    assert_eq!(client.read_refusal().details, "the client's address is not in --client");
    tunnel.echo(b"still");
    tunnel.finish();
    tunnel.read_rest();
    assert_eq!(scene.proxy.access_of(tunnel.local).end, "done");
}

#[test]
fn a_kept_connection_is_judged_anew_and_goes_over_another_upstream() {
    let origin = ByHand::open();
    let scene = Scene::new(ALLOWED, &[]);
    let mut client = scene.proxy.wire();
    client.get(&origin.url("/1"));
    let mut first = origin.accept();
    first.read_request();
    first.send(ok("one"));
    client.read_response("GET");
    scene.reload(&format!("{ALLOWED}via other\n"));
    // What was dialed under the policy of before is closed.
    first.read_end();
    client.get(&origin.url("/2"));
    let mut second = origin.accept();
    assert_eq!(second.read_request().field("via"), Some("1.1 other"));
    // Under way while the rules change: it is finished, and the next one is refused.
    scene.reload(&format!("{ALLOWED}deny 127.0.0.1\nvia adit\n"));
    second.send(ok("two"));
    assert_eq!(client.read_response("GET").text(), "two");
    client.get(&origin.url("/3"));
    let answer = client.read_open_refusal();
    assert_eq!(answer.head.status, 403);
    origin.assert_not_dialed();
}

#[test]
fn a_request_that_waits_for_its_upstream_proves_nothing_for_the_next() {
    let origin = ByHand::open();
    let dns = support::dns_server::DnsServer::start(|_| {
        // The rules change while this name is asked for.
        std::thread::sleep(std::time::Duration::from_millis(300));
        support::dns_server::Answer::of(&["127.0.0.1"])
    });
    let server = format!("nameserver {}\n", dns.addr);
    let scene = Scene::new(&format!("{ALLOWED}{server}"), &[]);
    let mut client = scene.proxy.wire();
    let url = format!("http://slow.test:{}/", origin.addr.port());
    client.get(&url);
    dns.asked();
    scene.reload(&format!("{ALLOWED}{server}deny slow.test\n"));
    // Judged by the new rules, for the address; the name was judged before they came, and is again for the address.
    let answer = client.read_open_refusal();
    assert_eq!((answer.head.status, &*answer.error), (403, "http_request_denied"));
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let origin = Origin::echo();
    let scene = Scene::new(ALLOWED, &[]);
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("{ALLOWED}deny 127.0.0.1\nlisten {}\n", occupied.local_addr().unwrap());
    for (conf, says) in [
        (&*format!("{ALLOWED}deny 127.0.0.1\ngrace x\n"), "conf:3: option --grace"),
        ("deny 127.0.0.1\nbuffer-memory 2M\nmax-sessions 1000\n", "need a --buffer-memory"),
        ("deny 127.0.0.1\nhosts /nonexistent/file\n", "/nonexistent/file"),
        ("deny 127.0.0.1\naccess-log /nonexistent/file\n", "/nonexistent/file"),
        (&in_use, "cannot listen on 127.0.0.1:"),
    ] {
        let said = scene.hang_up(conf, NOT_RELOADED);
        assert!(said.contains(says), "{conf}: {said}");
        assert_eq!(connect(scene.proxy.addr, origin.addr), 200, "{conf}");
    }
    std::fs::remove_file(scene.dir.at("conf")).unwrap();
    scene.proxy.signal(Signal::HUP);
    scene
        .proxy
        .log
        .wait("the missing file", |line| line.contains(NOT_RELOADED) && line.contains("cannot read"));
    assert_eq!(connect(scene.proxy.addr, origin.addr), 200);
    // Somebody has emptied it to write it anew.
    let said = scene.hang_up("", NOT_RELOADED);
    assert!(said.contains("cannot read"), "{said}");
    assert_eq!(connect(scene.proxy.addr, origin.addr), 200);
    scene.reload("# nothing\n");
    assert_eq!(connect(scene.proxy.addr, origin.addr), 403);
}

#[test]
fn listeners_come_and_go() {
    let origin = Origin::echo();
    let scene =
        Scene::new(&format!("{ALLOWED}listen 127.0.0.1:0\n"), &["--listen", "127.0.0.2:0", "-n", "2"]);
    let said = scene.proxy.log.wait_nth("the second address", 2, |line| line.contains("listening on "));
    let from_file = listening_on(&said).unwrap();
    let descriptors = scene.proxy.descriptors();
    let mut tunnel = Client::dial(from_file);
    tunnel.send_connect(&origin.addr.to_string());
    tunnel.read_head();
    scene.reload(&format!("{ALLOWED}listen 127.0.0.3:0\n"));
    let closed = format!("no longer listening on {from_file}");
    scene.proxy.log.wait("the closed address", |line| line.ends_with(&closed));
    let third = scene.proxy.log.wait("the new address", |line| line.contains("listening on 127.0.0.3:"));
    let third = listening_on(&third).unwrap();
    for addr in [scene.proxy.addr, third].repeat(8) {
        assert_eq!(connect(addr, origin.addr), 200, "{addr}");
    }
    until("the closed address to be closed", || {
        std::net::TcpStream::connect(from_file).is_err().then_some(())
    });
    tunnel.echo(b"goes on");
    drop(tunnel);
    until("all to be released", || (scene.proxy.descriptors() == descriptors).then_some(()));
    // Its own listeners are refused as destinations, the new ones too.
    assert_eq!(connect(scene.proxy.addr, third), 502);
    // The same ones again: nothing is opened.
    scene.reload(&format!("{ALLOWED}listen 127.0.0.3:0\n"));
    assert_eq!(connect(third, origin.addr), 200);
}

#[test]
fn a_port_that_the_kernel_picked_may_be_asked_for_by_its_number() {
    let origin = Origin::echo();
    let scene = Scene::new(ALLOWED, &["--listen", "127.0.0.2:0"]);
    let picked = scene.proxy.addr;
    scene.reload(&format!("{ALLOWED}listen 127.0.0.3:0\n"));
    let third = scene.proxy.log.wait("the new address", |line| line.contains("listening on 127.0.0.3:"));
    let third = listening_on(&third).unwrap();
    scene.reload(&format!("{ALLOWED}listen {third}\n"));
    assert_eq!(connect(third, origin.addr), 200);
    assert_eq!(connect(picked, origin.addr), 200);
    let log = scene.proxy.log.all();
    assert!(!log.iter().any(|line| line.contains("no longer")), "{log:?}");
    // Away and here again, while the old one may not be closed yet: it is our own.
    for _ in 0..3 {
        scene.reload(ALLOWED);
        scene.reload(&format!("{ALLOWED}listen {third}\n"));
    }
    assert_eq!(connect(third, origin.addr), 200);
    let log = scene.proxy.log.all();
    assert!(!log.iter().any(|line| line.contains("in use by another")), "{log:?}");
}

#[test]
fn a_client_that_is_not_let_in_any_more_gets_no_further_answer() {
    let origin = ByHand::open();
    let scene = Scene::new(ALLOWED, &[]);
    let mut client = scene.proxy.wire();
    client.get(&origin.url("/1"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("one"));
    client.read_response("GET");
    scene.reload(&format!("{ALLOWED}client 10.0.0.0/8\n"));
    client.get(&origin.url("/2"));
    assert_eq!(client.read_last_refusal().details, "the client's address is not in --client");
    let lines = [scene.proxy.access_of(client.local), scene.proxy.access_of(client.local)];
    assert_eq!((&*lines[0].rule, &*lines[1].rule), ("allow:127.0.0.0/8", "client"));
    origin.assert_not_dialed();
}

#[test]
fn an_upstream_that_is_in_use_meanwhile_is_not_used_again() {
    let origin = ByHand::open();
    let scene = Scene::new(ALLOWED, &[]);
    let mut client = scene.proxy.wire();
    client.get(&origin.url("/1"));
    let mut first = origin.accept();
    first.read_request();
    assert_eq!(first.stream.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
    scene.reload(&format!("{ALLOWED}bind 127.0.0.9\n"));
    first.send(ok("one"));
    client.read_response("GET");
    first.read_end();
    client.get(&origin.url("/2"));
    let mut second = origin.accept();
    second.read_request();
    assert_eq!(second.stream.peer_addr().unwrap().ip().to_string(), "127.0.0.9");
}

#[test]
fn nothing_that_has_to_be_waited_for_is_read_while_the_proxy_runs() {
    let origin = Origin::echo();
    let scene = Scene::new(ALLOWED, &[]);
    std::fs::remove_file(scene.dir.at("conf")).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, scene.dir.at("conf"), mode).unwrap();
    scene.proxy.signal(Signal::HUP);
    scene.proxy.log.wait("a pipe", |line| line.contains(NOT_RELOADED));
    assert_eq!(connect(scene.proxy.addr, origin.addr), 200);
    assert_eq!(scene.proxy.stop().0.code(), Some(0));
}

#[test]
fn who_waits_in_the_queue_of_a_listener_that_goes_is_served() {
    let origin = Origin::echo();
    let scene = Scene::new(&format!("{ALLOWED}listen 127.0.0.1:0\n"), &["--listen", "127.0.0.2:0"]);
    let said = scene.proxy.log.wait_nth("the second address", 2, |line| line.contains("listening on "));
    let goes = listening_on(&said).unwrap();
    scene.proxy.freeze();
    let mut waiting: Vec<Client> = (0..100).map(|_| Client::dial(goes)).collect();
    scene.dir.write("conf", ALLOWED);
    scene.proxy.signal(Signal::HUP);
    scene.proxy.signal(Signal::CONT);
    scene.proxy.log.wait("the reload", |line| line.contains(RELOADED));
    for client in &mut waiting {
        client.send_connect(&origin.addr.to_string());
        assert_eq!(client.read_head().status, 200);
    }
}

#[test]
fn what_needs_a_restart_says_so() {
    let scene = Scene::new("loops 1\n", &[]);
    scene.reload("max-sessions 100\nbuffer-memory 32M\nverbose\n");
    let log = scene.proxy.log.all();
    for option in ["max-sessions", "buffer-memory", "verbose and --quiet"] {
        let says = format!("--{option} needs a restart: it stays as it was");
        assert!(log.iter().any(|line| line.contains(&says)), "{option}: {log:?}");
    }
    // The command line wins over the file, so nothing has changed here.
    assert!(!log.iter().any(|line| line.contains("--loops")), "{log:?}");
}

#[test]
fn the_access_log_moves() {
    let origin = Origin::echo();
    let scene = Scene::new(ALLOWED, &[]);
    scene.reload(&format!("{ALLOWED}access-log {}\n", scene.dir.option("log")));
    connect(scene.proxy.addr, origin.addr);
    let written = || std::fs::read_to_string(scene.dir.at("log")).unwrap_or_default();
    until("a line in the file", || written().contains(" CONNECT ").then_some(()));
    scene.reload(ALLOWED);
    connect(scene.proxy.addr, origin.addr);
    scene.proxy.access.wait("a line on stdout", |line| line.contains(" CONNECT "));
    assert_eq!(written().lines().count(), 1);
}

#[test]
fn the_access_log_takes_another_format() {
    let origin = Origin::echo();
    let scene = Scene::new(ALLOWED, &[]);
    connect(scene.proxy.addr, origin.addr);
    scene.proxy.access.wait("a line of ours", |line| line.ends_with(" end=done"));
    scene.reload(&format!("{ALLOWED}log-format squid\n"));
    connect(scene.proxy.addr, origin.addr);
    scene.proxy.access.wait("a line of Squid's", |line| line.contains(" TCP_TUNNEL/200 "));
    assert_eq!(scene.proxy.access.all().len(), 2);
}

#[test]
fn timeouts_and_families_change() {
    let scene = Scene::new("allow 127.0.0.0/8\n", &[]);
    let origin = ByHand::open();
    scene.reload("allow 127.0.0.0/8\nresponse-timeout 1\n");
    let mut client = scene.proxy.wire();
    client.get(&origin.url("/"));
    assert_eq!(client.read_open_refusal().head.status, 504);
    // An upstream that becomes idle now is kept for a second.
    scene.reload("allow 127.0.0.0/8\nkeepalive-timeout 1\n");
    let mut client = scene.proxy.wire();
    client.get(&origin.url("/kept"));
    drop(origin.accept());
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("one"));
    client.read_response("GET");
    upstream.read_end();
    let mut client = scene.proxy.wire();
    scene.reload("allow 127.0.0.0/8\nfamily 6\n");
    client.get(&origin.url("/"));
    assert_eq!(client.read_open_refusal().head.reason, "No address of an allowed family");
}

#[test]
fn reloads_under_load_lose_no_tunnel_and_no_request() {
    let (echo, http) = (Origin::echo(), answering(|_| ok("fine").into_bytes()));
    let scene = Scene::new(ALLOWED, &["-n", "2"]);
    let (over, requests, tunnels) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut standing: Vec<Client> = (0..8).map(|_| scene.proxy.tunnel(&echo.addr.to_string())).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Wire::dial(scene.proxy.addr);
                while !over.load(Ordering::Acquire) {
                    client.get(&url(http.addr, "/"));
                    assert_eq!(client.read_response("GET").text(), "fine");
                    requests.fetch_add(1, Ordering::AcqRel);
                }
            });
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let mut tunnel = Client::dial(scene.proxy.addr);
                    tunnel.send_connect(&echo.addr.to_string());
                    assert_eq!(tunnel.read_head().status, 200);
                    tunnel.echo(b"through");
                    tunnels.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        // However slow the machine is: between any two reloads something has passed.
        let mut passed = (0, 0);
        for round in 0..20 {
            scene.reload(&format!("{ALLOWED}listen 127.0.0.{}:0\ngrace {}\n", 2 + round % 2, round + 1));
            passed = until("traffic", || {
                let now = (requests.load(Ordering::Acquire), tunnels.load(Ordering::Acquire));
                (now.0 > passed.0 && now.1 > passed.1).then_some(now)
            });
        }
        over.store(true, Ordering::Release);
    });
    for tunnel in &mut standing {
        tunnel.echo(b"still there");
    }
    println!("{requests:?} requests and {tunnels:?} tunnels beside 20 reloads");
}

#[test]
fn users_are_added_with_the_least_memory() {
    let conf = format!("{ALLOWED}buffer-memory 2M\n");
    let (scene, origin) = (Scene::new(&conf, &[]), Origin::echo());
    assert_eq!(connect(scene.proxy.addr, origin.addr), 200);
    // `htpasswd -nbs alice secret`
    scene.dir.write("users", "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
    scene.reload(&format!("{conf}users {}\n", scene.dir.option("users")));
    until("all loops to follow", || {
        (0..8).all(|_| connect(scene.proxy.addr, origin.addr) == 407).then_some(())
    });
    let log = scene.proxy.log.all();
    assert!(!log.iter().any(|line| line.contains("needs a restart")), "{log:?}");
}
