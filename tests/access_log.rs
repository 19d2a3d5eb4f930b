//! The access log, end to end: its formats, syslog, and places that take nothing any more and then do again. (Standard output that
//! nobody reads is in `process.rs`, `/dev/full` in `ceiling.rs`, rotation under load in `reload.rs`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use support::http_origin::{answering, url};
use support::namespace::{etc, own};
use support::origin::Origin;
use support::proxy::{ALLOW_LOOPBACK, Access, Launch, Lines, Proxy};
use support::wire::ok;
use support::{DEADLINE, TempDir, until};

/// Refusals enough for more lines than a socket's queue and the backlog can hold.
const MANY: usize = 2000;
const BEGINS: &str = ": lines are being dropped: ";
const OVER: &str = ": written again, ";

/// A proxy whose only refusal is for `blocked.test`.
fn proxy_with(options: &[&str]) -> Proxy {
    Proxy::open(&[&["--deny", "blocked.test"], options].concat())
}

/// One exchange, which leaves one line.
#[track_caller]
fn refuse(proxy: &Proxy) -> SocketAddr {
    let mut client = proxy.client();
    client.send_connect("blocked.test:443");
    assert_eq!(client.read_head().status, 403);
    client.local
}

fn refuse_many(proxy: &Proxy, exchanges: usize) {
    for _ in 0..exchanges {
        refuse(proxy);
    }
}

/// The number in a message, behind what stands before it.
#[track_caller]
fn number_behind(message: &str, before: &str) -> usize {
    let (_, rest) = message.split_once(before).unwrap_or_else(|| panic!("{before:?} in {message:?}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// What an independent reader makes of JSON lines: for each, these keys, with Python's spelling of values.
#[track_caller]
fn values(lines: &str, keys: &[&str]) -> Vec<String> {
    const PROGRAM: &str = "
import json, sys
for line in sys.stdin:
    record = json.loads(line)
    print(*[repr(record[key]) for key in sys.argv[1:]] or list(record))
";
    let mut python = Command::new("python3")
        .args(["-c", PROGRAM])
        .args(keys)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{lines}");
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

// Formats.

/// A tunnel, a request, a refusal, and what is no request; the clients' ports.
fn four_exchanges(proxy: &Proxy, origin: &Origin, web: &Origin) -> [u16; 4] {
    let mut tunnel = proxy.tunnel(&origin.addr.to_string());
    tunnel.echo(b"hello");
    tunnel.finish();
    tunnel.read_rest();
    let mut http = proxy.wire();
    http.get(&format!("{}?a=secret", url(web.addr, "/page")));
    assert_eq!(http.read_response("GET").status(), 200);
    let refused = refuse(proxy);
    let mut nonsense = proxy.client();
    nonsense.send("nonsense\r\n\r\n");
    assert_eq!(nonsense.read_head().status, 400);
    [tunnel.local.port(), http.local.port(), refused.port(), nonsense.local.port()]
}

fn web() -> Origin {
    answering(|_| ok("a page").into_bytes())
}

#[test]
fn json() {
    let (origin, web) = (Origin::echo(), web());
    let proxy = proxy_with(&["--log-format", "json"]);
    let ports = four_exchanges(&proxy, &origin, &web);
    let (_, _, lines) = proxy.stop();
    let text = lines.join("\n") + "\n";
    assert!(!text.contains("secret"), "never a query");
    const KEYS: &str =
        "time client client_port user method target status via via_port rule up down dns dial total end";
    assert_eq!(values(&text, &[]), [KEYS; 4]);
    let of = |port: u16, keys: &[&str]| {
        let at = values(&text, &["client_port"]).iter().position(|seen| *seen == port.to_string());
        values(&text, keys)[at.expect("its line")].clone()
    };
    let facts = ["client", "user", "method", "target", "status", "via", "via_port", "rule", "up", "end"];
    let (to, to_web) = (origin.addr, web.addr);
    assert_eq!(
        of(ports[0], &facts),
        format!(
            "'127.0.0.1' None 'CONNECT' '{to}' 200 '127.0.0.1' {} 'allow:127.0.0.0/8' 5 'done'",
            to.port()
        )
    );
    assert_eq!(of(ports[0], &["down", "dns"]), "5 None");
    let seen = of(ports[1], &["method", "target", "status", "via_port", "end"]);
    assert_eq!(seen, format!("'GET' 'http://{to_web}/page' 200 {} 'done'", to_web.port()));
    assert_eq!(
        of(ports[2], &facts),
        "'127.0.0.1' None 'CONNECT' 'blocked.test:443' 403 None None 'deny:blocked.test' 0 'http_request_denied'"
    );
    assert_eq!(of(ports[3], &facts), "'127.0.0.1' None None None 400 None None None 0 'http_request_error'");
}

#[test]
fn squid() {
    let (origin, web) = (Origin::echo(), web());
    let proxy = proxy_with(&["--log-format", "squid"]);
    four_exchanges(&proxy, &origin, &web);
    let (_, _, lines) = proxy.stop();
    // Without time, duration and size, which differ from run to run. `scripts/clients-log.sh` compares with Squid's own.
    let mut seen: Vec<String> = lines
        .iter()
        .map(|line| {
            let (time, rest) = line.split_once(' ').unwrap();
            let (seconds, ms) = time.split_once('.').unwrap();
            assert!(seconds.parse::<u64>().unwrap() > 1_600_000_000 && ms.len() == 3, "{line}");
            assert!(rest.starts_with("     ") || rest.len() > 6 && rest.as_bytes()[6] == b' ', "{line}");
            let words: Vec<&str> = rest.split_whitespace().collect();
            assert_eq!(words.len(), 9, "{line}");
            [&words[1..3], &words[4..]].concat().join(" ")
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "127.0.0.1 NONE_NONE/400 - error:invalid-request - HIER_NONE/- -".to_string(),
            "127.0.0.1 TCP_DENIED/403 CONNECT blocked.test:443 - HIER_NONE/- -".to_string(),
            format!("127.0.0.1 TCP_MISS/200 GET http://{}/page - HIER_DIRECT/127.0.0.1 -", web.addr),
            format!("127.0.0.1 TCP_TUNNEL/200 CONNECT {} - HIER_DIRECT/127.0.0.1 -", origin.addr),
        ]
    );
}

#[test]
fn usr1_rotates_in_every_format() {
    for format in ["adit", "squid", "json"] {
        let dir = TempDir::new();
        let proxy = proxy_with(&["--access-log", &dir.option("access"), "--log-format", format]);
        let read = |name: &str| std::fs::read_to_string(dir.at(name)).unwrap_or_default();
        for name in ["access.0", "access.1"] {
            refuse(&proxy);
            std::fs::rename(dir.at("access"), dir.at(name)).unwrap();
            proxy.signal(Signal::USR1);
            until("the new file", || dir.at("access").exists().then_some(()));
        }
        refuse(&proxy);
        assert!(proxy.stop().0.success());
        for name in ["access.0", "access.1", "access"] {
            let text = read(name);
            assert!(text.ends_with('\n') && text.lines().count() == 1, "{format}, {name}: {text:?}");
            match format {
                "squid" => assert!(text.contains(" TCP_DENIED/403 "), "{text}"),
                "json" => assert_eq!(values(&text, &["status"]), ["403"]),
                _ => assert_eq!(Access::parse(text.trim_end()).status, "403"),
            }
        }
    }
}

#[test]
fn a_client_on_a_dual_stack_listener_is_written_as_ipv4() {
    let proxy = proxy_with(&["-l", "[::]:0"]);
    let mut client = support::client::Client::dial(([127, 0, 0, 1], proxy.addr.port()).into());
    client.send_connect("blocked.test:443");
    assert_eq!(client.read_head().status, 403);
    proxy.access_of(client.local);
}

// Places that take nothing.

#[test]
fn a_pipe_that_nobody_reads_in_another_format() {
    let options = ["--deny", "blocked.test", "--log-format", "json"];
    let mut proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &options].concat()).start_unread();
    refuse_many(&proxy, MANY);
    proxy.log.wait("that it begins", |line| line.contains(&format!("access log standard output{BEGINS}")));
    let lines = Lines::collect(proxy.take_unread());
    let mut later = 0;
    let message = until("that it is over", || {
        refuse(&proxy);
        later += 1;
        proxy.log.all().into_iter().find(|line| line.contains(OVER))
    });
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
    lines.wait_end();
    let seen = values(&(lines.all().join("\n") + "\n"), &["status"]);
    let lost: usize = dropped(&proxy.log.all());
    assert!(number_behind(&message, OVER) > 0 && seen.iter().all(|status| status == "403"));
    assert_eq!(seen.len() + lost, MANY + later, "written whole or counted");
}

#[test]
fn lines_that_several_loops_drop_are_told_of_once() {
    let proxy = proxy_with(&["--access-log", "/dev/full", "--loops", "3"]);
    refuse_many(&proxy, 60);
    let (status, log, _) = proxy.stop();
    assert!(status.success());
    let warnings: Vec<&String> = log.iter().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 2, "{log:#?}");
    assert!(warnings[0].contains(&format!("/dev/full{BEGINS}No space left")), "{log:#?}");
    assert!(warnings[1].contains("access log /dev/full: 60 lines were dropped"), "{log:#?}");
}

/// Lines that the log says were dropped, altogether.
fn dropped(log: &[String]) -> usize {
    let over = log.iter().filter(|line| line.contains(OVER)).map(|line| number_behind(line, OVER));
    let at_end = log.iter().filter(|line| line.contains(" lines were dropped") && !line.contains(OVER));
    over.sum::<usize>() + at_end.map(|line| number_behind(line, "standard output: ")).sum::<usize>()
}

#[test]
fn a_disk_that_fills_up_and_is_emptied() {
    own("a_disk_that_fills_up_and_is_emptied", || {
        let script = "mkdir /etc/small && mount -t tmpfs -o size=16k tmpfs /etc/small";
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
        let (path, filler) = (etc("small/access"), etc("small/filler"));
        // A page is left, whose end falls into a line.
        std::fs::write(&filler, vec![0; 12 << 10]).unwrap();
        let proxy = proxy_with(&["--access-log", path.to_str().unwrap()]);
        let mut exchanges = 0;
        let begins = until("that it begins", || {
            refuse(&proxy);
            exchanges += 1;
            proxy.log.all().into_iter().find(|line| line.contains(BEGINS))
        });
        assert!(
            begins.contains(&format!(" WARN  access log {}{BEGINS}No space left", path.display())),
            "{begins}"
        );
        refuse_many(&proxy, 100);
        assert!(!proxy.log.all().iter().any(|line| line.contains(OVER)));
        std::fs::remove_file(&filler).unwrap();
        let over = until("that it is over", || {
            refuse(&proxy);
            exchanges += 1;
            proxy.log.all().into_iter().find(|line| line.contains(OVER))
        });
        let last = refuse(&proxy);
        let (status, log, _) = proxy.stop();
        assert!(status.success());
        assert_eq!(log.iter().filter(|line| line.contains(" WARN  access log ")).count(), 2, "{log:#?}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n') && text.lines().last().unwrap().contains(&last.to_string()));
        let (whole, torn): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.ends_with(" end=http_request_denied"));
        whole.iter().for_each(|line| drop(Access::parse(line)));
        // None if a line happened to end with the page.
        assert!(torn.len() <= 1, "{torn:?}");
        assert_eq!(
            whole.len() + number_behind(&over, OVER),
            exchanges + 101,
            "written whole or counted: {over}"
        );
    });
}

// Syslog.

/// A `/dev` with nothing in it but what a program needs.
fn own_dev() {
    let script = "mkdir /etc/dev && mount --rbind /dev /etc/dev && mount -t tmpfs tmpfs /dev &&
        for name in null urandom; do : >/dev/$name && mount --bind /etc/dev/$name /dev/$name || exit; done";
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
    assert!(!std::path::Path::new(DEV_LOG).exists(), "this is the machine's own /dev");
}

const DEV_LOG: &str = "/dev/log";

fn daemon() -> UnixDatagram {
    let daemon = UnixDatagram::bind(DEV_LOG).unwrap();
    daemon.set_read_timeout(Some(DEADLINE)).unwrap();
    daemon
}

/// What one datagram says behind the frame of RFC 3164.
#[track_caller]
fn said(daemon: &UnixDatagram, proxy: &Proxy) -> String {
    let mut buffer = [0; 4096];
    let count = daemon.recv(&mut buffer).expect("a datagram");
    let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
    let (stamp, rest) = text.strip_prefix("<30>").expect("daemon.info").split_at(16);
    assert!(
        stamp.is_ascii() && stamp.ends_with(' ') && stamp.split_whitespace().count() == 3,
        "Mmm dd hh:mm:ss: {text}"
    );
    rest.strip_prefix(&format!("adit[{}]: ", proxy.id())).expect("the program's name and number").to_string()
}

#[test]
fn syslog_that_comes_goes_and_comes_back() {
    own("syslog_that_comes_goes_and_comes_back", || {
        own_dev();
        let proxy = proxy_with(&["--access-log", "syslog"]);
        let condition = |what: &str, nth: usize| {
            let text = format!("access log syslog{what}");
            proxy.log.wait_nth(what, nth, |line| line.contains(" WARN ") && line.contains(&text))
        };
        // Before there is one.
        refuse(&proxy);
        assert!(condition(BEGINS, 1).contains("No such file"));
        let first = daemon();
        let client = refuse(&proxy);
        let access = Access::parse(&said(&first, &proxy));
        assert_eq!((access.client, access.status.as_str()), (client.to_string(), "403"));
        assert_eq!(number_behind(&condition(OVER, 1), OVER), 1);
        // It ends, and leaves its socket behind.
        drop(first);
        refuse(&proxy);
        assert!(condition(BEGINS, 2).contains("refused"));
        std::fs::remove_file(DEV_LOG).unwrap();
        refuse(&proxy);
        let second = daemon();
        let client = refuse(&proxy);
        // The line before may be the new one's as well: it comes when the batch is due.
        let seen = until("the line", || {
            let access = Access::parse(&said(&second, &proxy));
            (access.client == client.to_string()).then_some(access)
        });
        assert_eq!(seen.end, "http_request_denied");
        condition(OVER, 2);
        // USR1 means nothing to it.
        proxy.signal(Signal::USR1);
        let client = refuse(&proxy);
        assert_eq!(Access::parse(&said(&second, &proxy)).client, client.to_string());
        assert!(proxy.stop().0.success());
    });
}

#[test]
fn syslog_that_nobody_reads_blocks_nothing() {
    own("syslog_that_nobody_reads_blocks_nothing", || {
        own_dev();
        let daemon = daemon();
        let origin = Origin::echo();
        let proxy = proxy_with(&["--access-log", "syslog", "--log-format", "squid"]);
        let mut tunnel = proxy.tunnel(&origin.addr.to_string());
        let mut exchanges = MANY;
        refuse_many(&proxy, MANY);
        tunnel.echo(b"goes on");
        let begins = proxy.log.wait("that it begins", |line| line.contains(BEGINS));
        assert!(begins.contains("too slow"), "{begins}");
        // It reads again, at once and without another request: what was kept comes, then that it is over.
        let mut seen = Vec::new();
        daemon.set_nonblocking(true).unwrap();
        let over = until("that it is over", || {
            let mut buffer = [0; 4096];
            while let Ok(count) = daemon.recv(&mut buffer) {
                seen.push(String::from_utf8(buffer[..count].to_vec()).unwrap());
            }
            proxy.log.all().into_iter().find(|line| line.contains(OVER))
        });
        daemon.set_nonblocking(false).unwrap();
        drop(tunnel);
        exchanges += 1;
        while seen.last().is_none_or(|line| !line.contains(" TCP_TUNNEL/200 ")) {
            seen.push(said(&daemon, &proxy));
        }
        assert_eq!(seen.len() + number_behind(&over, OVER), exchanges, "sent or counted: {over}");
        assert!(seen.iter().all(|line| line.ends_with(" -")), "one line in each datagram");
        let (status, log, _) = proxy.stop();
        assert!(status.success());
        assert_eq!(log.iter().filter(|line| line.contains(" WARN  access log ")).count(), 2, "{log:#?}");
    });
}
