//! The process around the tunnels: options, exit codes, signals, descriptors, sleep, and logs that nobody reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use support::client::Client;
use support::origin::Origin;
use support::proxy::{ALLOW_LOOPBACK, Launch, Lines, Proxy, is_timestamp, listening_on};
use support::{Ending, TempDir, TempFile, until};

/// Runs the binary with exactly these arguments until it ends by itself.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_adit")).args(arguments).env_remove("RUST_LOG").output().unwrap();
    let code = status.code().unwrap_or_else(|| panic!("{arguments:?} ended by {status}"));
    (code, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

// Options.

#[test]
fn help_names_every_option() {
    let options = [
        "--listen",
        "--loops",
        "--client",
        "--allow",
        "--deny",
        "--default",
        "--connect-port",
        "--http-port",
        "--nameserver",
        "--hosts",
        "--max-sessions",
        "--buffer-memory",
        "--head-timeout",
        "--resolve-timeout",
        "--dial-timeout",
        "--response-timeout",
        "--keepalive-timeout",
        "--idle-timeout",
        "--half-open-timeout",
        "--grace",
        "--access-log",
        "--log-format",
        "--via",
        "--forwarded",
        "--help",
        "--version",
    ];
    for flag in ["--help", "-h"] {
        let (code, out, err) = run(&[flag]);
        assert_eq!((code, err.as_str()), (0, ""));
        for option in options {
            assert!(out.contains(option), "{option} is not in {out}");
        }
    }
}

#[test]
fn version_is_the_packages() {
    for flag in ["--version", "-V"] {
        let wanted = format!("adit {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(run(&[flag]), (0, wanted, String::new()));
    }
}

#[test]
fn wrong_calls_name_the_option_and_exit_2() {
    let calls: [(&[&str], &str); 33] = [
        (&["--no-such-option"], "no-such-option"),
        (&["-x"], "'x'|-x"),
        (&["surplus"], "surplus"),
        // Values.
        (&["--listen"], "listen"),
        (&["--listen", "nonsense"], "listen"),
        (&["--listen", "127.0.0.1"], "listen"),
        (&["--listen", "127.0.0.1:65536"], "listen"),
        (&["--loops", "0"], "loops"),
        (&["--loops", "many"], "loops"),
        (&["--client", "10.0.0.0/33"], "client"),
        (&["--client", "a.test"], "client"),
        (&["--allow", "10.0.0.1/8x"], "allow"),
        (&["--deny", "a.test:99999"], "deny"),
        (&["--deny", "a..test"], "deny"),
        (&["--default", "maybe"], "default"),
        (&["--connect-port", "0"], "connect-port"),
        (&["--connect-port", "70000"], "connect-port"),
        (&["--connect-port", "9-1"], "connect-port"),
        (&["--http-port", "80,"], "http-port"),
        (&["--nameserver", "dns.test"], "nameserver"),
        (&["--family", "5"], "family"),
        (&["--bind", "a.test"], "bind"),
        (&["--bind", "[::1]"], "bind"),
        (&["--bind", "127.0.0.1", "--bind", "127.0.0.2"], "bind"),
        (&["--bind", "127.0.0.1:80"], "bind"),
        (&["--max-sessions", "0"], "max-sessions"),
        (&["--buffer-memory", "64X"], "buffer-memory"),
        (&["--head-timeout", "1.5"], "head-timeout"),
        (&["--response-timeout", "0"], "response-timeout"),
        (&["--keepalive-timeout", "-1"], "keepalive-timeout"),
        (&["--forwarded=on"], "forwarded"),
        (&["--via", "two words"], "via"),
        (&["--log-format", "combined"], "log-format"),
    ];
    for (call, names) in calls {
        // A port of the kernel's choosing, so that a call wrongly accepted cannot disturb anybody.
        let safe: &[&str] = if call[0] == "--listen" { &[] } else { &["--listen", "127.0.0.1:0"] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(safe)
            .args(call)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut err = String::new();
        let ended = until_ended(&mut child);
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(ended, Some(2), "{call:?}: {err}");
        assert!(names.split('|').any(|name| err.contains(name)), "{call:?} is not named: {err}");
        assert!(err.trim_end().lines().count() <= 3, "{call:?}: a message, not a book: {err}");
    }
}

/// The exit code, or nothing when it had to be killed because it ran on.
fn until_ended(child: &mut Child) -> Option<i32> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

#[test]
fn address_in_use_exits_1() {
    // Without SO_REUSEPORT the port is shared with nobody (`kernel_facts::reuseport_listeners_share_a_port_only_among_themselves`).
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["--listen", &address]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&address), "{err}");
}

#[test]
fn files_that_cannot_be_opened_exit_1() {
    for option in ["--config", "--hosts", "--access-log"] {
        let (code, _, err) = run(&["--listen", "127.0.0.1:0", option, "/nonexistent/file"]);
        assert_eq!(code, 1, "{option}: {err}");
        assert!(err.contains("/nonexistent/file"), "{option}: {err}");
    }
}

#[test]
fn a_log_that_cannot_be_written_does_not_change_the_exit_code() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_adit")).arg("--nonsense").stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn an_access_log_at_the_limit_for_files_costs_lines_only() {
    let dir = support::TempDir::new();
    let script = "ulimit -f 1; exec \"$0\" -l 127.0.0.1:0 -n 1 --access-log \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_adit"), &dir.option("log")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = support::proxy::Lines::collect(child.stderr.take().unwrap());
    let addr = listening_on(&log.wait("the start line", |line| line.contains("listening on "))).unwrap();
    // A line has more than 100 bytes, the file takes 512 or 1024.
    for _ in 0..32 {
        let mut client = support::client::Client::dial(addr);
        client.send_connect("127.0.0.1:443");
        client.read_refusal();
    }
    log.wait("a word about it", |line| line.contains("lines are being dropped"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn several_listeners() {
    let origin = Origin::echo();
    let proxy = Proxy::open(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let second = proxy.log.wait_nth("the second listener", 2, |line| line.contains("listening on "));
    for addr in [proxy.addr, listening_on(&second).unwrap()] {
        let mut client = Client::dial(addr);
        client.send_connect(&origin.addr.to_string());
        assert_eq!(client.read_head().status, 200, "on {addr}");
        client.echo(b"hello");
    }
}

// The log.

#[test]
fn log_lines_have_time_and_level() {
    let proxy = Proxy::start(&[]);
    let line = proxy.log.wait("the start line", |line| line.contains("listening on "));
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(is_timestamp(time), "{line}");
    assert_eq!(rest, format!("INFO  listening on {}", proxy.addr));
}

#[test]
fn verbose_tells_the_cause_behind_a_refusal() {
    for (options, variable) in [(&["-v"][..], None), (&[][..], Some("debug"))] {
        let mut launch = Launch::new(options);
        launch.rust_log = variable;
        let proxy = launch.start();
        let mut client = proxy.client();
        client.send_connect("127.0.0.1:443");
        assert_eq!(client.read_refusal().head.status, 403);
        let local = client.local.to_string();
        drop(client);
        proxy.log.wait("a debug line about it", |line| line.contains(" DEBUG ") && line.contains(&local));
    }
    let proxy = Proxy::start(&[]);
    let mut client = proxy.client();
    client.send_connect("127.0.0.1:443");
    client.read_refusal();
    drop(client);
    let (_, log, _) = proxy.stop();
    assert!(!log.iter().any(|line| line.contains(" DEBUG ")), "{log:#?}");
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    // The start line is what -q takes away, so the port is reserved by a socket that shares it and does not listen.
    let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    reserved.set_reuse_address(true).unwrap();
    reserved.set_reuse_port(true).unwrap();
    reserved.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = reserved.local_addr().unwrap().as_socket().unwrap();
    let mut child = Launch::new(&["-q", "--listen", &addr.to_string()]).command().spawn().unwrap();
    let stream = until("the quiet proxy to listen", || TcpStream::connect(addr).ok());
    let mut client = Client::from(stream);
    client.send_connect("127.0.0.1:443");
    assert_eq!(client.read_refusal().head.status, 403);
    drop(client);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = until("the quiet proxy to end", || child.try_wait().unwrap());
    let (mut err, mut out) = (String::new(), String::new());
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    assert_eq!(out.lines().count(), 1, "the access line is no log line: {out}");
}

// The access log.

#[test]
fn access_log_into_a_file() {
    let origin = Origin::echo();
    let file = TempFile::with("what was there before\n");
    let proxy = Proxy::open(&["--access-log", &file.path]);
    let mut client = proxy.tunnel(&origin.addr.to_string());
    client.echo(b"hello");
    let local = client.local.to_string();
    drop(client);
    let line = until("the line in the file", || {
        file.read().lines().find(|line| line.contains(&local)).map(String::from)
    });
    assert_eq!(support::proxy::Access::parse(&line).up, 5);
    let (status, _, stdout) = proxy.stop();
    assert!(status.success());
    assert_eq!(stdout, [""; 0]);
    let all = file.read();
    assert!(all.starts_with("what was there before\n") && all.lines().count() == 2, "appended: {all}");
}

#[test]
fn access_log_into_a_fifo_that_is_read_later() {
    let (origin, dir) = (Origin::echo(), TempDir::new());
    let (path, mode) = (dir.at("fifo"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let proxy = Proxy::open(&["--access-log", &dir.option("fifo")]);
    let client = proxy.tunnel(&origin.addr.to_string());
    let local = client.local.to_string();
    drop(client);
    let lines = Lines::collect(std::fs::File::open(path).unwrap());
    lines.wait("the access line", |line| line.contains(&local));
}

#[test]
fn access_log_off() {
    let origin = Origin::echo();
    let proxy = Proxy::open(&["--access-log", "off"]);
    proxy.tunnel(&origin.addr.to_string()).echo(b"hello");
    origin.seen();
    let (status, _, stdout) = proxy.stop();
    assert!(status.success());
    assert_eq!(stdout, [""; 0]);
}

/// Refusals enough for more lines than a page of pipe and the backlog can hold.
const REFUSALS: usize = 2000;

fn many_refusals(proxy: &Proxy) {
    for n in 0..REFUSALS {
        let mut client = proxy.client();
        client.send_connect("blocked.test:443");
        assert_eq!(client.read_head().status, 403, "request {n}");
    }
}

#[test]
fn access_log_that_nobody_reads_blocks_nothing() {
    let origin = Origin::echo();
    let mut proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &["--deny", "blocked.test"]].concat()).start_unread();
    let mut tunnel = proxy.tunnel(&origin.addr.to_string());
    many_refusals(&proxy);
    tunnel.echo(b"still here");
    drop(tunnel);
    proxy.tunnel(&origin.addr.to_string()).echo(b"hello");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0), "a full pipe does not hold up the end either");
}

#[test]
fn access_lines_that_found_no_room_are_counted() {
    let origin = Origin::echo();
    let mut proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &["--deny", "blocked.test"]].concat()).start_unread();
    many_refusals(&proxy);
    proxy.log.wait("that it begins", |line| line.contains(" WARN ") && line.contains("are being dropped"));
    // The reader comes back, and with the next line the log finds out (a line that may be too early and dropped itself).
    let lines = Lines::collect(proxy.take_unread());
    drop(proxy.tunnel(&origin.addr.to_string()));
    let warning =
        proxy.log.wait("the count", |line| line.contains(" WARN ") && line.contains("were dropped"));
    let client = proxy.tunnel(&origin.addr.to_string());
    let last = client.local.to_string();
    drop(client);
    lines.wait("a line again", |line| line.contains(&last));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
    lines.wait_end();
    let all = lines.all();
    for line in &all {
        support::proxy::Access::parse(line);
    }
    let (_, said) = warning.split_once(" WARN ").unwrap();
    let dropped: usize = said.split_whitespace().find_map(|word| word.parse().ok()).expect("a number");
    assert!(dropped > 0, "{warning}");
    assert_eq!(all.len() + dropped, REFUSALS + 2, "every line is either written whole or counted: {warning}");
}

#[test]
fn access_line_comes_soon_without_further_traffic() {
    let origin = Origin::echo();
    let proxy = Proxy::open(&[]);
    let client = proxy.tunnel(&origin.addr.to_string());
    let (local, started) = (client.local, Instant::now());
    drop(client);
    proxy.access_of(local);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

// Signals.

/// Waits until the proxy accepts no more.
fn until_closed(addr: SocketAddr) {
    until("the listener to close", || TcpStream::connect(addr).err());
}

#[test]
fn without_sessions_a_signal_ends_it() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut proxy = Proxy::start(&[]);
        let started = Instant::now();
        proxy.signal(signal);
        assert_eq!(proxy.ended().code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(3), "nothing to wait for: {:?}", started.elapsed());
    }
}

#[test]
fn drain_lets_tunnels_run_and_closes_idle_clients() {
    let origin = Origin::echo();
    let mut proxy = Proxy::open(&[]);
    let mut tunnel = proxy.tunnel(&origin.addr.to_string());
    let mut idle = proxy.client();
    // The idle client was accepted before this one.
    drop(proxy.tunnel(&origin.addr.to_string()));
    proxy.signal(Signal::TERM);
    assert_eq!(idle.read_rest(), (vec![], Ending::Eof));
    until_closed(proxy.addr);
    tunnel.echo(b"still here");
    assert!(proxy.runs());
    tunnel.echo([1; 100_000]);
    tunnel.finish();
    assert_eq!(tunnel.read_rest(), (vec![], Ending::Eof));
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(proxy.access_of(tunnel.local).end, "done", "the last lines are written before the end");
}

#[test]
fn grace_ends_the_last_tunnels() {
    let origin = Origin::echo();
    let mut proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &["--grace", "1", "-n", "2"]].concat()).start();
    let mut tunnels: Vec<Client> = (0..8).map(|_| proxy.tunnel(&origin.addr.to_string())).collect();
    let started = Instant::now();
    proxy.signal(Signal::TERM);
    for tunnel in &mut tunnels {
        tunnel.read_rest();
    }
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(proxy.ended().code(), Some(0));
    for tunnel in &tunnels {
        assert_eq!(proxy.access_of(tunnel.local).end, "grace");
    }
}

#[test]
fn second_signal_ends_at_once() {
    let origin = Origin::echo();
    let mut proxy = Proxy::open(&["--grace", "600"]);
    let tunnel = proxy.tunnel(&origin.addr.to_string());
    proxy.signal(Signal::TERM);
    until_closed(proxy.addr);
    assert!(proxy.runs());
    let started = Instant::now();
    proxy.signal(Signal::INT);
    let status = proxy.ended();
    assert!(status.code().is_some(), "it ends by itself, not by the signal: {status}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(proxy.access_of(tunnel.local).end, "grace");
}

/// Gives way to the binary, for which the kernel then fails every epoll_wait(2) that is to end by itself (seccomp(2)): a loop
/// sleeps without end until it is given something to do.
const NO_TIMED_SLEEP: &str = r#"
import ctypes, os, platform, struct, sys
call = {"x86_64": 232, "aarch64": 22}[platform.machine()]
TIMEOUT, EIO = 16 + 3 * 8, 5
filter = b"".join(struct.pack("=HBBI", *each) for each in [
    (0x20, 0, 0, 0), (0x15, 0, 3, call),
    (0x20, 0, 0, TIMEOUT), (0x15, 1, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0x00050000 | EIO), (0x06, 0, 0, 0x7FFF0000)])
held = ctypes.create_string_buffer(filter)
program = ctypes.create_string_buffer(struct.pack("@HP", len(filter) // 8, ctypes.addressof(held)))
libc = ctypes.CDLL(None, use_errno=True)
# PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP with a filter.
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_loop_that_dies_is_an_error_also_while_draining() {
    for (draining, message) in
        [(false, "an event loop ended by itself"), (true, "an event loop ended before it had drained")]
    {
        let mut child = Command::new("python3")
            .args(["-c", NO_TIMED_SLEEP, env!("CARGO_BIN_EXE_adit"), "-l", "127.0.0.1:0", "-n", "1"])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        let addr = listening_on(&log.wait("the start line", |line| line.contains("listening on "))).unwrap();
        log.wait("all to be started", |line| line.contains("at most"));
        // Either has a deadline: of the client's head, or of the listener that goes.
        let _client = if draining {
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
            None
        } else {
            Some(TcpStream::connect(addr).unwrap())
        };
        assert_eq!(until_ended(&mut child), Some(1), "{:#?}", log.all());
        log.wait("the cause", |line| line.contains("an event loop failed: "));
        log.wait("the message", |line| line.contains(message));
    }
}

#[test]
fn a_reader_that_left_is_no_reason_to_die() {
    // SIGPIPE: a write to a peer that is gone, and to a log that is gone.
    let origin = Origin::echo();
    let mut proxy = Launch::new(&ALLOW_LOOPBACK).start_unread();
    drop(proxy.take_unread());
    for _ in 0..20 {
        let mut client = proxy.tunnel(&origin.addr.to_string());
        client.send([0; 1000]);
        client.reset();
    }
    proxy.tunnel(&origin.addr.to_string()).echo(b"hello");
    // Longer than the log may take to write: the point is that it has tried.
    std::thread::sleep(Duration::from_millis(300));
    proxy.tunnel(&origin.addr.to_string()).echo(b"hello");
    assert!(proxy.runs());
}

// Descriptors, CPU and sleep.

#[test]
fn out_of_descriptors_pauses_accepting_and_nothing_else() {
    let origin = Origin::echo();
    let options = [&ALLOW_LOOPBACK[..], &["--head-timeout", "600"]].concat();
    let proxy = Launch::new(&options).descriptors(40).start();
    let mut tunnel = proxy.tunnel(&origin.addr.to_string());
    let with_one_tunnel = proxy.descriptors();
    let idle: Vec<Client> = (0..60).map(|_| proxy.client()).collect();
    proxy.log.wait("a warning", |line| line.contains(" WARN "));
    // This one waits in the kernel's queue.
    let mut late = proxy.client();

    let (before, started) = (proxy.cpu_ticks(), Instant::now());
    // The clock is the point: a loop that spins on a listener it cannot serve would burn this second.
    while started.elapsed() < Duration::from_secs(1) {
        tunnel.echo(b"running tunnels go on");
        std::thread::sleep(Duration::from_millis(100));
    }
    let ticks = proxy.cpu_ticks() - before;
    assert!(ticks <= 5, "{} ms of CPU in a second of exhaustion", ticks * 10);
    let warnings = proxy.log.all().iter().filter(|line| line.contains(" WARN ")).count();
    assert_eq!(warnings, 1, "entering is logged once: {:#?}", proxy.log.all());

    drop(idle);
    until("the idle clients to be let go", || (proxy.descriptors() <= with_one_tunnel + 1).then_some(()));
    late.send_connect(&origin.addr.to_string());
    assert_eq!(late.read_head().status, 200);
    late.echo(b"served at last");
    tunnel.echo(b"and the first as well");
    proxy.log.wait_nth("the end of the condition", 2, |line| line.contains(" WARN "));
}

#[test]
fn no_descriptor_for_the_upstream_is_a_refusal() {
    let origin = Origin::echo();
    let options = [&ALLOW_LOOPBACK[..], &["--head-timeout", "600"]].concat();
    // Each tunnel takes two descriptors. With an even number free the last client is not accepted, with an odd number it
    // is and its upstream is not to be had: that is the one to be told.
    let told = [40, 41].map(|limit| refused_at_descriptor_limit(&origin, &options, limit));
    assert_eq!(told.iter().flatten().collect::<Vec<_>>(), ["HTTP/1.1 503"], "{told:?}");
}

/// Opens tunnels until no more are had: how the answer to the last begins, if it got one.
fn refused_at_descriptor_limit(origin: &Origin, options: &[&str], limit: u32) -> Option<String> {
    let proxy = Launch::new(options).descriptors(limit).start();
    let mut clients: Vec<Client> = Vec::new();
    let refused = loop {
        let mut client = proxy.client();
        client.send_connect(&origin.addr.to_string());
        client.stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut first = [0; 12];
        match client.stream.read_exact(&mut first) {
            Ok(()) if first.ends_with(b"200") => clients.push(client),
            Ok(()) => break Some(String::from_utf8_lossy(&first).into_owned()),
            // Not even accepted: also fine.
            Err(_) => break None,
        }
        assert!(clients.len() < 40, "a limit of 40 descriptors holds no 40 tunnels");
    };
    assert!(clients.len() > 5, "{}", clients.len());
    drop(clients);
    until("a place to be free again", || {
        let mut client = proxy.client();
        client.send_connect(&origin.addr.to_string());
        (client.read_head().status == 200).then_some(())
    });
    refused
}

#[test]
fn idle_process_sleeps() {
    let origin = Origin::echo();
    let proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &["-n", "2"]].concat()).start();
    let mut tunnels: Vec<Client> = (0..10).map(|_| proxy.tunnel(&origin.addr.to_string())).collect();
    for tunnel in &mut tunnels {
        tunnel.echo(b"hello");
    }
    // An access line is pending at first: until it is out and every loop is back in its sleep.
    drop(tunnels.pop());
    let mut last = 0;
    until("all loops to sleep", || {
        std::thread::sleep(Duration::from_millis(150));
        let now = proxy.sleeps();
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    // The clock is the point: nothing is due, so nothing happens.
    let cpu = proxy.cpu_ticks();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(proxy.sleeps() - last, 0, "wake-ups in two seconds with ten idle tunnels");
    assert_eq!(proxy.cpu_ticks() - cpu, 0);
    for tunnel in &mut tunnels {
        tunnel.echo(b"awake");
    }
}

#[test]
fn nothing_is_left_after_the_sessions() {
    let origin = Origin::echo();
    let proxy = Proxy::open(&[]);
    proxy.tunnel(&origin.addr.to_string()).echo(b"warm");
    let locals: Vec<SocketAddr> = (0..50)
        .map(|n| {
            let mut client = proxy.tunnel(&origin.addr.to_string());
            client.echo(b"hello");
            let local = client.local;
            if n % 2 == 0 {
                client.reset()
            } else {
                drop(client)
            }
            local
        })
        .collect();
    for local in locals {
        proxy.access_of(local);
    }
    let bare = Proxy::open(&[]).descriptors();
    until("all sockets to be closed", || (proxy.descriptors() <= bare).then_some(()));
}
