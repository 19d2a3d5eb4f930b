//! What changes while the proxy runs: the hosts file, and what HUP and USR1 do. Tunnels go on through all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::dns_server::DnsServer;
use support::origin::Origin;
use support::proxy::{Access, Proxy};
use support::{TempDir, until};

/// Changes are followed within a second; as much again is for a machine that is busy with other tests.
const FOLLOWED: Duration = Duration::from_secs(2);
/// So many connections reach both of two loops: the kernel spreads them by their ports.
const MANY: usize = 32;

const ANEW: &str = "names are resolved anew";
const FORGOTTEN: &str = "names are forgotten";
const UNUSABLE: &str = "cannot be used (";

/// A proxy that knows `origin.test` from a hosts file, and an origin behind every address that the file may say.
struct Scene {
    dir: TempDir,
    origin: Origin,
    proxy: Proxy,
}

impl Scene {
    /// `prepare` makes `hosts`, which says 127.0.0.1.
    fn new(prepare: impl FnOnce(&TempDir), options: &[&str]) -> Scene {
        let dir = TempDir::new();
        prepare(&dir);
        let proxy = Proxy::open(&[&["--hosts", &dir.option("hosts")], options].concat());
        let scene = Scene { dir, origin: Origin::echo_on("0.0.0.0:0"), proxy };
        assert_eq!(scene.hosts_reached(1), [1]);
        scene
    }

    fn plain(options: &[&str]) -> Scene {
        Scene::new(|dir| dir.write("hosts", hosts(1)), options)
    }

    fn target(&self) -> String {
        format!("origin.test:{}", self.origin.addr.port())
    }

    /// The last numbers of the addresses that so many connections have reached, each once, in order.
    #[track_caller]
    fn hosts_reached(&self, connections: usize) -> Vec<u8> {
        let clients: Vec<SocketAddr> = (0..connections).map(|_| pass(&self.proxy, &self.target())).collect();
        let mut reached: Vec<u8> =
            clients.iter().map(|&client| host(&self.proxy.access_of(client))).collect();
        reached.sort_unstable();
        reached.dedup();
        reached
    }

    /// Changes something and waits until every loop follows it to 127.0.0.`host`.
    #[track_caller]
    fn follows(&self, change: impl FnOnce(&TempDir), host: u8) {
        let said = self.said(ANEW);
        let started = Instant::now();
        change(&self.dir);
        self.proxy.log.wait_nth(ANEW, said + 1, |line| line.contains(ANEW));
        assert!(started.elapsed() < FOLLOWED, "{:?}", started.elapsed());
        // The main thread has said so; the loops have it in their mail.
        until("the loops to follow", || (self.hosts_reached(MANY) == [host]).then_some(()));
        assert!(started.elapsed() < 2 * FOLLOWED, "{:?}", started.elapsed());
    }

    /// Sends HUP and waits until that is done: whatever has changed before has been looked at.
    #[track_caller]
    fn hang_up(&self) {
        let said = self.said(FORGOTTEN);
        self.proxy.signal(Signal::HUP);
        self.proxy.log.wait_nth(FORGOTTEN, said + 1, |line| line.contains(FORGOTTEN));
    }

    /// How many lines of the log say this.
    fn said(&self, what: &str) -> usize {
        self.proxy.log.all().iter().filter(|line| line.contains(what)).count()
    }
}

fn hosts(host: u8) -> String {
    format!("127.0.0.{host} origin.test\n")
}

/// The last number of the address that was dialed.
#[track_caller]
fn host(access: &Access) -> u8 {
    match access.via.parse().unwrap() {
        SocketAddr::V4(via) => via.ip().octets()[3],
        SocketAddr::V6(via) => panic!("{via}"),
    }
}

/// One tunnel from its beginning to its end.
#[track_caller]
fn pass(proxy: &Proxy, target: &str) -> SocketAddr {
    let mut client = proxy.tunnel(target);
    client.echo(b"hello");
    client.finish();
    client.read_rest();
    client.local
}

// The hosts file.

#[test]
fn hosts_file_written_in_place_is_followed() {
    let scene = Scene::plain(&[]);
    for host in [2, 3, 1] {
        scene.follows(|dir| dir.write("hosts", hosts(host)), host);
    }
}

#[test]
fn hosts_file_replaced_by_rename_is_followed() {
    let scene = Scene::plain(&[]);
    for host in [2, 3] {
        scene.follows(|dir| dir.replace("hosts", hosts(host)), host);
    }
    // The new file itself is watched, and so is one that comes after none.
    scene.follows(|dir| dir.write("hosts", hosts(4)), 4);
    std::fs::remove_file(scene.dir.at("hosts")).unwrap();
    scene.proxy.log.wait("a word about it", |line| line.contains(UNUSABLE));
    scene.follows(|dir| dir.write("hosts", hosts(5)), 5);
}

#[test]
fn hosts_file_behind_a_moved_symlink_is_followed() {
    let versions = |dir: &TempDir| {
        for (version, host) in [("one", 1), ("two", 2)] {
            std::fs::create_dir(dir.at(version)).unwrap();
            dir.write(&format!("{version}/hosts"), hosts(host));
        }
        dir.link("current", "one");
        dir.link("hosts", "current/hosts");
    };
    let scene = Scene::new(versions, &[]);
    // A directory on the way is another one.
    scene.follows(|dir| dir.link("current", "two"), 2);
    scene.follows(|dir| dir.write("two/hosts", hosts(3)), 3);
    scene.follows(|dir| dir.link("current", "one"), 1);
    // What the last symlink says.
    scene.follows(|dir| dir.link("hosts", "two/hosts"), 3);
    scene.follows(|dir| dir.replace("two/hosts", hosts(4)), 4);
}

#[test]
fn both_loops_follow() {
    let scene = Scene::plain(&["-n", "2"]);
    for host in [2, 3] {
        scene.follows(|dir| dir.replace("hosts", hosts(host)), host);
    }
}

#[test]
fn hosts_file_that_cannot_be_used_changes_nothing() {
    type Break = fn(&TempDir);
    let ways: [(&str, Break); 4] = [
        ("garbage", |dir| dir.write("hosts", b"\x00\xff\xfe\n\x80")),
        ("no address in it", |dir| dir.replace("hosts", "localhost 127.0.0.1\n")),
        ("vanished", |dir| std::fs::remove_file(dir.at("hosts")).unwrap()),
        ("unreadable", |dir| {
            // Root may read everything, but no directory as a file.
            std::fs::remove_file(dir.at("hosts")).unwrap();
            std::fs::create_dir(dir.at("hosts")).unwrap();
        }),
    ];
    let scene = Scene::plain(&[]);
    let mut host = 1;
    for (n, (what, break_it)) in ways.into_iter().enumerate() {
        break_it(&scene.dir);
        let said = |line: &str| line.contains(" WARN ") && line.contains(UNUSABLE);
        let line = scene.proxy.log.wait_nth(what, n + 1, said);
        assert!(line.contains(&scene.dir.option("hosts")), "{line}");
        assert_eq!(scene.hosts_reached(1), [host], "{what}");
        // Looked at again, and found no better.
        scene.hang_up();
        scene.hang_up();
        assert_eq!(scene.said(UNUSABLE), n + 1, "{what}: said once: {:#?}", scene.proxy.log.all());
        assert_eq!(scene.hosts_reached(1), [host], "{what}");
        // A directory is not replaced by a file; nothing is there for a moment.
        drop(std::fs::remove_dir(scene.dir.at("hosts")));
        host += 1;
        scene.follows(|dir| dir.replace("hosts", hosts(host)), host);
        assert_eq!(scene.said("can be used again"), n + 1, "{what}");
    }
    assert_eq!(scene.said(UNUSABLE), 4);
}

// HUP.

#[test]
fn hangup_forgets_names_in_every_loop() {
    for loops in [1, 2] {
        let origin = Origin::echo();
        let dns = DnsServer::knowing("origin.test", &["127.0.0.1"]);
        let mut proxy = Proxy::asking(&dns, &["-n", &loops.to_string(), "--family", "4"]);
        let target = format!("origin.test:{}", origin.addr.port());
        let many = || {
            for _ in 0..MANY {
                pass(&proxy, &target);
            }
        };
        many();
        assert_eq!(dns.asked_so_far().len(), loops, "each loop asks once");
        for round in 1..=3 {
            many();
            assert_eq!(dns.asked_so_far(), [], "a remembered name is not asked for");
            proxy.signal(Signal::HUP);
            proxy.log.wait_nth(FORGOTTEN, round, |line| line.contains(FORGOTTEN));
            let mut asked = 0;
            until("every loop to ask anew", || {
                many();
                asked += dns.asked_so_far().len();
                (asked >= loops).then_some(())
            });
            assert_eq!(asked, loops, "once each");
        }
        assert!(proxy.runs());
    }
}

#[test]
fn hangup_reads_the_files_again() {
    let scene = Scene::plain(&[]);
    // The change and the signal come together: it is taken once, whichever was first.
    scene.follows(
        |dir| {
            dir.write("hosts", hosts(2));
            scene.proxy.signal(Signal::HUP);
        },
        2,
    );
    scene.hang_up();
    assert_eq!(scene.said(ANEW), 1);
}

// USR1.

/// The clients in the lines of an access log, in order.
fn clients_in(text: &str) -> Vec<SocketAddr> {
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text:?}");
    text.lines().map(|line| Access::parse(line).client.parse().unwrap()).collect()
}

#[test]
fn usr1_reopens_the_access_log() {
    let origin = Origin::echo();
    let dir = TempDir::new();
    let proxy = Proxy::open(&["--access-log", &dir.option("access")]);
    let read = |name: &str| std::fs::read_to_string(dir.at(name)).unwrap_or_default();
    let logged = |name: &str, client: SocketAddr| {
        until("its line", || clients_in(&read(name)).contains(&client).then_some(()));
    };
    let target = origin.addr.to_string();
    let mut old = Vec::new();
    for round in 0..3 {
        let kept = format!("access.{round}");
        let first = pass(&proxy, &target);
        logged("access", first);
        std::fs::rename(dir.at("access"), dir.at(&kept)).unwrap();
        // Until the signal comes, the file is the old one, whatever it is called.
        let second = pass(&proxy, &target);
        logged(&kept, second);
        assert!(!dir.at("access").exists());
        proxy.signal(Signal::USR1);
        until("the new file", || dir.at("access").exists().then_some(()));
        old.push((kept, vec![first, second]));
    }
    let last = pass(&proxy, &target);
    logged("access", last);
    let (status, log, stdout) = proxy.stop();
    assert_eq!((status.code(), stdout.len()), (Some(0), 0), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains(" WARN ")), "{log:#?}");
    assert_eq!(clients_in(&read("access")), [last]);
    for (kept, clients) in old {
        assert_eq!(clients_in(&read(&kept)), clients, "{kept}");
    }
}

#[test]
fn no_line_is_lost_while_the_log_is_rotated() {
    const ROTATIONS: usize = 10;
    let origin = Origin::echo();
    let dir = TempDir::new();
    let proxy = Proxy::open(&["-n", "2", "--access-log", &dir.option("access")]);
    let (over, target) = (AtomicBool::new(false), origin.addr.to_string());
    let mut passed: Vec<SocketAddr> = std::thread::scope(|scope| {
        let passing = scope.spawn(|| {
            let mut passed = Vec::new();
            while !over.load(Ordering::Acquire) {
                passed.push(pass(&proxy, &target));
            }
            passed
        });
        for rotation in 0..ROTATIONS {
            std::fs::rename(dir.at("access"), dir.at(&format!("access.{rotation}"))).unwrap();
            proxy.signal(Signal::USR1);
            until("the new file", || dir.at("access").exists().then_some(()));
            until("lines in it", || (std::fs::metadata(dir.at("access")).unwrap().len() > 0).then_some(()));
        }
        over.store(true, Ordering::Release);
        passing.join().unwrap()
    });
    let (status, log, _) = proxy.stop();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let kept = (0..ROTATIONS).map(|rotation| format!("access.{rotation}"));
    let mut logged: Vec<SocketAddr> = kept
        .chain(["access".to_string()])
        .flat_map(|name| clients_in(&std::fs::read_to_string(dir.at(&name)).unwrap()))
        .collect();
    // The kernel may give a port twice: then its lines are two as well.
    passed.sort_unstable();
    logged.sort_unstable();
    assert!(passed.len() >= ROTATIONS);
    assert_eq!(logged, passed);
}

#[test]
fn both_loops_reopen_the_log() {
    let origin = Origin::echo();
    let dir = TempDir::new();
    let proxy = Proxy::open(&["-n", "2", "--access-log", &dir.option("access")]);
    let pass_many = || (0..MANY).map(|_| pass(&proxy, &origin.addr.to_string())).collect::<Vec<_>>();
    pass_many();
    std::fs::rename(dir.at("access"), dir.at("access.old")).unwrap();
    proxy.signal(Signal::USR1);
    until("every line to go to the new file", || {
        let read = |name: &str| clients_in(&std::fs::read_to_string(dir.at(name)).unwrap_or_default());
        let clients = pass_many();
        until("all lines", || {
            let logged = [read("access"), read("access.old")].concat();
            clients.iter().all(|client| logged.contains(client)).then_some(())
        });
        let new = read("access");
        clients.iter().all(|client| new.contains(client)).then_some(())
    });
}

#[test]
fn a_log_that_cannot_be_reopened_goes_on_in_the_old_file() {
    let origin = Origin::echo();
    let dir = TempDir::new();
    std::fs::create_dir(dir.at("there")).unwrap();
    let mut proxy = Proxy::open(&["--access-log", &dir.option("there/access")]);
    std::fs::rename(dir.at("there"), dir.at("gone")).unwrap();
    proxy.signal(Signal::USR1);
    let line = proxy.log.wait("a warning", |line| line.contains(" WARN "));
    assert!(line.contains(&dir.option("there/access")) && line.contains("not reopened"), "{line}");
    let client = pass(&proxy, &origin.addr.to_string());
    until("its line", || {
        let text = std::fs::read_to_string(dir.at("gone/access")).unwrap();
        clients_in(&text).contains(&client).then_some(())
    });
    assert!(proxy.runs());
}

#[test]
fn usr1_is_harmless_to_stdout() {
    let origin = Origin::echo();
    let mut proxy = Proxy::open(&["-n", "2"]);
    let descriptors = proxy.descriptors();
    let target = origin.addr.to_string();
    for _ in 0..5 {
        proxy.signal(Signal::USR1);
        for client in [pass(&proxy, &target), pass(&proxy, &target)] {
            assert_eq!(proxy.access_of(client).end, "done");
        }
    }
    assert!(proxy.runs());
    until("no descriptor to be left over", || (proxy.descriptors() <= descriptors).then_some(()));
    let (status, log, stdout) = proxy.stop();
    assert_eq!((status.code(), stdout.len()), (Some(0), 10));
    assert!(!log.iter().any(|line| line.contains(" WARN ")), "{log:#?}");
}

// All of it.

#[test]
fn signals_and_changes_do_not_disturb_a_drain() {
    let scene = Scene::plain(&["-n", "2"]);
    let mut tunnel = scene.proxy.tunnel(&scene.target());
    tunnel.echo(b"before");
    scene.proxy.signal(Signal::TERM);
    scene.proxy.log.wait("the drain", |line| line.contains("draining"));
    // The loop without the tunnel ends; the two that are left are the main thread and the loop with it.
    let threads = || std::fs::read_dir(format!("/proc/{}/task", scene.proxy.id())).unwrap().count();
    until("the other loop to end", || (threads() == 2).then_some(()));
    scene.proxy.signal(Signal::HUP);
    scene.proxy.log.wait("no reload", |line| line.contains("draining: settings are not read again"));
    scene.proxy.signal(Signal::USR1);
    scene.dir.replace("hosts", hosts(2));
    scene.proxy.log.wait(ANEW, |line| line.contains(ANEW));
    tunnel.echo(b"still there");
    tunnel.finish();
    tunnel.read_rest();
    let Scene { mut proxy, .. } = scene;
    assert_eq!(proxy.ended().code(), Some(0), "{:#?}", proxy.log.all());
    assert_eq!(proxy.access_of(tunnel.local).end, "done");
}

#[test]
fn many_signals_at_once_are_taken() {
    let dir = TempDir::new();
    dir.write("hosts", hosts(1));
    let origin = Origin::echo_on("0.0.0.0:0");
    let options = ["-n", "2", "--hosts", &dir.option("hosts"), "--access-log", &dir.option("access")];
    let mut proxy = Proxy::open(&options);
    let descriptors = proxy.descriptors();
    let target = format!("origin.test:{}", origin.addr.port());
    let mut tunnel = proxy.tunnel(&target);
    for _ in 0..50 {
        proxy.signal(Signal::HUP);
        proxy.signal(Signal::USR1);
    }
    // The last one is not swallowed by those before it. In one step: each HUP reads whatever is there.
    dir.replace("hosts", hosts(2));
    std::fs::rename(dir.at("access"), dir.at("access.old")).unwrap();
    proxy.signal(Signal::HUP);
    proxy.signal(Signal::USR1);
    until("the new log", || dir.at("access").exists().then_some(()));
    proxy.log.wait(ANEW, |line| line.contains(ANEW));
    tunnel.echo(b"still there");
    drop(tunnel);
    until("the new address in the new log", || {
        let client = pass(&proxy, &target).to_string();
        let line = until("its line", || {
            // A loop that has not read its mail yet still writes to the old one.
            let logs = ["access", "access.old"].map(|name| std::fs::read_to_string(dir.at(name)).unwrap());
            let of_client = |line: &&str| line.split(' ').nth(1) == Some(&client);
            logs.iter().flat_map(|log| log.lines()).find(of_client).map(String::from)
        });
        (host(&Access::parse(&line)) == 2).then_some(())
    });
    until("no descriptor to be left over", || (proxy.descriptors() <= descriptors).then_some(()));
    assert!(proxy.runs());
    assert_eq!(proxy.stop().0.code(), Some(0));
}

#[test]
fn a_running_tunnel_survives_it_all() {
    let scene = Scene::plain(&["-n", "2"]);
    let mut tunnels: Vec<_> = (0..8).map(|_| scene.proxy.tunnel(&scene.target())).collect();
    let mut alive = |when: &str| {
        for tunnel in &mut tunnels {
            tunnel.echo(when);
        }
    };
    scene.follows(|dir| dir.replace("hosts", hosts(2)), 2);
    alive("after other names");
    std::fs::remove_file(scene.dir.at("hosts")).unwrap();
    scene.proxy.log.wait("a word about it", |line| line.contains(UNUSABLE));
    alive("after a broken file");
    scene.hang_up();
    alive("after HUP");
    scene.proxy.signal(Signal::USR1);
    // Both loops have read their mail when a later word has come through.
    scene.follows(|dir| dir.write("hosts", hosts(3)), 3);
    alive("after USR1");
    for mut tunnel in tunnels {
        tunnel.finish();
        tunnel.read_rest();
        let access = scene.proxy.access_of(tunnel.local);
        assert_eq!((host(&access), access.end.as_str()), (1, "done"), "{}", access.line);
    }
}
