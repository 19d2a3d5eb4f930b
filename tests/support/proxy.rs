//! The real binary as a child process: its log and its access lines are collected as they come, and it dies with its owner.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::dns_server::DnsServer;
use super::wire::Wire;
use super::{DEADLINE, until};

/// What the guard must be told in tests, where every origin is on loopback.
pub const ALLOW_LOOPBACK: [&str; 4] = ["--allow", "127.0.0.0/8", "--allow", "::1/128"];

/// A running proxy.
pub struct Proxy {
    /// Where it listens (its first listener).
    pub addr: SocketAddr,
    /// What it logs.
    pub log: Lines,
    /// What it writes to stdout: the access lines.
    pub access: Lines,
    child: Child,
    /// Kept open and never read.
    unread: Option<ChildStdout>,
    unread_log: Option<ChildStderr>,
}

/// How to start one; `Proxy::start` and `Proxy::open` cover the usual.
pub struct Launch {
    options: Vec<String>,
    descriptors: Option<u32>,
    script: Option<&'static str>,
    /// The variable `RUST_LOG`; not set otherwise, whatever the tests run under.
    pub rust_log: Option<&'static str>,
}

impl Launch {
    /// With these options. Unless they say otherwise: one loop, and 127.0.0.1 with a port of the kernel's choosing.
    pub fn new(options: &[&str]) -> Launch {
        let mut all: Vec<String> = options.iter().map(ToString::to_string).collect();
        if !options.iter().any(|o| ["-n", "--loops"].contains(o)) {
            all.extend(["--loops", "1"].map(String::from));
        }
        if !options.iter().any(|o| ["-l", "--listen"].contains(o)) {
            all.extend(["--listen", "127.0.0.1:0"].map(String::from));
        }
        Launch { options: all, descriptors: None, script: None, rust_log: None }
    }

    /// With at most so many descriptors.
    #[must_use]
    pub fn descriptors(mut self, limit: u32) -> Launch {
        self.descriptors = Some(limit);
        self
    }

    /// By a Python script that does something to the process and then gives way to the binary: `sys.argv` has its command.
    #[must_use]
    pub fn by(mut self, script: &'static str) -> Launch {
        self.script = Some(script);
        self
    }

    /// The command, with pipes for its output.
    pub fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_adit");
        let mut command = match (self.descriptors, self.script) {
            (None, None) => Command::new(binary),
            (None, Some(script)) => {
                let mut python = Command::new("python3");
                python.args(["-c", script, binary]);
                python
            }
            (Some(limit), _) => {
                // The shell gives way to the binary, so that the child's id is the proxy's.
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), binary]);
                shell
            }
        };
        command.args(&self.options).env_remove("RUST_LOG");
        if let Some(level) = self.rust_log {
            command.env("RUST_LOG", level);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Proxy {
        let mut child = self.command().spawn().expect("the binary starts");
        let access = Lines::collect(child.stdout.take().unwrap());
        Launch::listens(child, access, None)
    }

    /// The same with a stdout that nobody reads: a pipe of one page.
    #[track_caller]
    pub fn start_unread(self) -> Proxy {
        let mut child = self.command().spawn().expect("the binary starts");
        let unread = child.stdout.take().unwrap();
        rustix::pipe::fcntl_setpipe_size(&unread, 4096).unwrap();
        Launch::listens(child, Lines::collect(std::io::empty()), Some(unread))
    }

    /// The same with a log that nobody reads behind the start line: a pipe of one page.
    #[track_caller]
    pub fn start_unread_log(self) -> Proxy {
        let mut child = self.command().spawn().expect("the binary starts");
        let access = Lines::collect(child.stdout.take().unwrap());
        let mut unread = child.stderr.take().unwrap();
        rustix::pipe::fcntl_setpipe_size(&unread, 4096).unwrap();
        let mut line = String::new();
        let addr = loop {
            let mut byte = [0; 1];
            unread.read_exact(&mut byte).expect("a start line");
            match (byte[0], listening_on(&line)) {
                (b'\n', Some(addr)) => break addr,
                (b'\n', None) => line.clear(),
                (byte, _) => line.push(char::from(byte)),
            }
        };
        let log = Lines::collect(std::io::empty());
        Proxy { addr, log, access, child, unread: None, unread_log: Some(unread) }
    }

    #[track_caller]
    fn listens(mut child: Child, access: Lines, unread: Option<ChildStdout>) -> Proxy {
        let log = Lines::collect(child.stderr.take().unwrap());
        let line = log.wait("the start line", |line| line.contains("listening on "));
        let addr = listening_on(&line).unwrap_or_else(|| panic!("no address in {line:?}"));
        Proxy { addr, log, access, child, unread, unread_log: None }
    }
}

/// The address of a start line.
pub fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Proxy {
    /// With these options and no others.
    #[track_caller]
    pub fn start(options: &[&str]) -> Proxy {
        Launch::new(options).start()
    }

    /// With these options, and loopback may be reached.
    #[track_caller]
    pub fn open(options: &[&str]) -> Proxy {
        Proxy::start(&[&ALLOW_LOOPBACK, options].concat())
    }

    /// With these options, this nameserver, and loopback may be reached.
    #[track_caller]
    pub fn asking(dns: &DnsServer, options: &[&str]) -> Proxy {
        Proxy::open(&[&["--nameserver", &dns.addr.to_string()], options].concat())
    }

    /// A client connected to it.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::dial(self.addr)
    }

    /// A client connected to it that speaks plain HTTP.
    #[track_caller]
    pub fn wire(&self) -> Wire {
        Wire::dial(self.addr)
    }

    /// A client with a standing tunnel to `target`.
    #[track_caller]
    pub fn tunnel(&self, target: &str) -> Client {
        self.tunnel_with(target, "")
    }

    /// The same with these fields in its request, each with its CRLF.
    #[track_caller]
    pub fn tunnel_with(&self, target: &str, fields: &str) -> Client {
        let mut client = self.client();
        client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n"));
        let head = client.read_head();
        assert_eq!(head.status, 200, "CONNECT {target}: {:?}\nlog: {:#?}", head.raw, self.log.all());
        client
    }

    /// The access line of this client; waits for it. Each line is handed out once: the kernel gives a client's port to another
    /// client as soon as it is free.
    #[track_caller]
    pub fn access_of(&self, client: SocketAddr) -> Access {
        let name = client.to_string();
        let line = self
            .access
            .take(&format!("an access line of {name}"), |line| line.split(' ').nth(1) == Some(name.as_str()));
        Access::parse(&line)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the proxy is there to be signalled");
    }

    /// Stops all its threads, until it is signalled to continue, and waits until they stand.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let stands = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|behind_name| behind_name.starts_with(" T"))
        };
        let tasks = format!("/proc/{}/task", self.child.id());
        let all_stand = || std::fs::read_dir(&tasks).unwrap().flatten().all(stands).then_some(());
        until("all threads to stand", all_stand);
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let status = until("the proxy to end", || self.child.try_wait().unwrap());
        self.log.wait_end();
        self.access.wait_end();
        status
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM, then waits for a clean end.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        self.signal(Signal::TERM);
        let status = self.ended();
        (status, self.log.all(), self.access.all())
    }

    /// A file of its directory under `/proc`.
    pub fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("a process has its files")
    }

    /// Descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Those that count against a limit of so many: what it has inherited, from whoever runs the tests, may lie beyond.
    pub fn descriptors_within(&self, limit: u32) -> usize {
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let number = |link: &std::fs::DirEntry| link.file_name().to_string_lossy().parse::<u32>().unwrap();
        links.filter(|link| number(link.as_ref().unwrap()) < limit).count()
    }

    /// Times that its threads went to sleep by themselves, all together (`proc(5)`, `status`): every wake-up is followed by one.
    pub fn sleeps(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .map(|status| {
                let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).unwrap();
                line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
            })
            .sum()
    }

    /// Resident memory in KiB (`proc(5)`, `status`).
    pub fn resident_kib(&self) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Takes the pipe that nobody read.
    pub fn take_unread(&mut self) -> ChildStdout {
        self.unread.take().expect("started by start_unread")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time so far, in ticks of 10 ms (`proc(5)`, fields 14 and 15 of `stat`).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.proc_file("stat");
        // The name in brackets may hold spaces: count from behind it, where field 3 comes first.
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The lines of a pipe, collected by a thread as they come.
#[derive(Clone)]
pub struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    /// Indexes of lines that were handed out by `take`.
    taken: BTreeSet<usize>,
    ended: bool,
}

impl Lines {
    /// Reads `pipe` to its end.
    pub fn collect(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let shared = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                let (collected, changed) = &*shared.0;
                collected.lock().unwrap().lines.push(String::from_utf8_lossy(&line).into_owned());
                changed.notify_all();
            }
            let (collected, changed) = &*shared.0;
            collected.lock().unwrap().ended = true;
            changed.notify_all();
        });
        lines
    }

    /// The first line that fits, of those that came and those to come.
    #[track_caller]
    pub fn wait(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        self.wait_nth(what, 1, fits)
    }

    /// The `nth` line (from 1) that fits.
    #[track_caller]
    pub fn wait_nth(&self, what: &str, nth: usize, fits: impl Fn(&str) -> bool) -> String {
        self.wait_for(what, |now| now.lines.iter().filter(|line| fits(line)).nth(nth - 1).cloned())
    }

    /// The first line that fits and was not taken before.
    #[track_caller]
    pub fn take(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        self.wait_for(what, |now| {
            let (index, line) = now
                .lines
                .iter()
                .enumerate()
                .find(|(index, line)| !now.taken.contains(index) && fits(line))?;
            now.taken.insert(index);
            Some(line.clone())
        })
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut find: impl FnMut(&mut Collected) -> Option<String>) -> String {
        let (collected, changed) = &*self.0;
        let last = Instant::now() + DEADLINE;
        let mut now = collected.lock().unwrap();
        loop {
            if let Some(line) = find(&mut now) {
                return line;
            }
            let left = last.saturating_duration_since(Instant::now());
            if now.ended || left.is_zero() {
                let (lines, why) =
                    (now.lines.clone(), if now.ended { "it ended without" } else { "timed out waiting for" });
                // The collecting thread must not find the lock poisoned.
                drop(now);
                panic!(
                    "{why} {what}, {} lines, the last: {:#?}",
                    lines.len(),
                    &lines[lines.len().saturating_sub(20)..]
                );
            }
            now = changed.wait_timeout(now, left).unwrap().0;
        }
    }

    /// Waits for the end of the pipe.
    #[track_caller]
    pub fn wait_end(&self) {
        let (collected, changed) = &*self.0;
        let now = collected.lock().unwrap();
        let (now, _) = changed.wait_timeout_while(now, DEADLINE, |now| !now.ended).unwrap();
        assert!(now.ended, "the pipe stays open");
    }

    /// What came so far.
    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }
}

/// An access line in the `adit` format, taken apart.
#[derive(Clone, Debug)]
pub struct Access {
    /// As it came.
    pub line: String,
    /// `address:port` of the client.
    pub client: String,
    /// User name, `-` for none.
    pub user: String,
    /// Request method.
    pub method: String,
    /// Its target.
    pub target: String,
    /// Status sent to the client.
    pub status: String,
    /// Address dialed.
    pub via: String,
    /// The rule that decided.
    pub rule: String,
    /// Bytes client to upstream.
    pub up: u64,
    /// Bytes upstream to client.
    pub down: u64,
    /// Milliseconds of name resolution.
    pub dns: Option<u64>,
    /// Milliseconds of dialing.
    pub dial: Option<u64>,
    /// Milliseconds altogether.
    pub total: u64,
    /// Why it ended.
    pub end: String,
}

impl Access {
    /// Takes a line apart; panics unless every field is in its place, once, with single spaces.
    #[track_caller]
    pub fn parse(line: &str) -> Access {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.len(), 14, "six words and eight fields: {line:?}");
        assert!(is_timestamp(words[0]), "a time in UTC with milliseconds: {line:?}");
        let field = |at: usize, name: &str| -> String {
            let (key, value) =
                words[at].split_once('=').unwrap_or_else(|| panic!("{name}= expected: {line:?}"));
            assert!(key == name && !value.is_empty(), "{name}= expected as word {at}: {line:?}");
            value.to_string()
        };
        let number = |text: &str| -> u64 {
            assert!(text.bytes().all(|b| b.is_ascii_digit()), "plain digits: {line:?}");
            text.parse().unwrap()
        };
        let maybe = |text: String| if text == "-" { None } else { Some(number(&text)) };
        Access {
            client: words[1].into(),
            user: words[2].into(),
            method: words[3].into(),
            target: words[4].into(),
            status: words[5].into(),
            via: field(6, "via"),
            rule: field(7, "rule"),
            up: number(&field(8, "up")),
            down: number(&field(9, "down")),
            dns: maybe(field(10, "dns")),
            dial: maybe(field(11, "dial")),
            total: number(&field(12, "total")),
            end: field(13, "end"),
            line: line.to_string(),
        }
    }
}

/// `2026-11-20T15:04:05.123Z`.
pub fn is_timestamp(word: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:dd.dddZ";
    word.len() == form.len()
        && word.bytes().zip(form.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            exact => byte == exact,
        })
}
