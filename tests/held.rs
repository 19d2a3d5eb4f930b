//! Clients beyond `--max-sessions`: when they have their answer, which one, and while another loop, which might make a place for them,
//! does not say whether it can: its thread is stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::client::Client;
use support::http_origin::{answering, url};
use support::origin::Origin;
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::wire::{Wire, ok};
use support::{TempFile, until};

/// Gives way to the binary, which anybody may then stop (prctl(2), `PR_SET_PTRACER`): where Yama is there only a parent may.
const MAY_BE_STOPPED: &str = "
import ctypes, os, sys
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1).value, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
";

/// Stops one thread (ptrace(2), `PTRACE_SEIZE` and `PTRACE_INTERRUPT`) until it is to end; the kernel then lets it go.
const STOP: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
thread = int(sys.argv[1])
for request in 0x4206, 0x4207:
    assert libc.ptrace(request, thread, None, None) == 0, os.strerror(ctypes.get_errno())
os.waitpid(thread, 0x40000000)
print('it stands', flush=True)
sys.stdin.read()
";

/// A loop that does nothing until this is dropped.
struct Stopped(Child);

impl Stopped {
    /// By the name of its thread.
    #[track_caller]
    fn thread(proxy: &Proxy, name: &str) -> Stopped {
        let is_it = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        // A thread gives itself its name, perhaps when another one has long served somebody.
        let id = until("such a thread", || {
            let mut tasks =
                std::fs::read_dir(format!("/proc/{}/task", proxy.id())).unwrap().map(Result::unwrap);
            tasks.find(is_it).map(|task| task.file_name())
        });
        let mut child = Command::new("python3")
            .args(["-c", STOP, id.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "it stands\n", "may a thread of another process be stopped here (ptrace)?");
        Stopped(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

/// A proxy of two loops with one place, which is taken, and clients that ask for more.
struct Scene {
    /// None once it runs again. Dropped first: a process does not end while one of its threads is kept.
    stopped: Option<Stopped>,
    proxy: Proxy,
    tunnel: Client,
    _origin: Origin,
    clients: Vec<Client>,
    /// So many of them, at least, the loop that runs has accepted. The rest is in the queue of the one that is stopped.
    held: usize,
    /// None of them came before.
    since: Instant,
}

impl Scene {
    #[track_caller]
    fn open(options: &[&str]) -> Scene {
        let limits = ["--loops", "2", "--max-sessions", "1", "--grace", "600"];
        let proxy = Launch::new(&[&ALLOW_LOOPBACK[..], &limits, options].concat()).by(MAY_BE_STOPPED).start();
        let origin = Origin::echo();
        let tunnel = proxy.tunnel(&origin.addr.to_string());
        let stopped = Some(Stopped::thread(&proxy, "loop-1"));
        let before = proxy.descriptors();
        let since = Instant::now();
        let mut clients = vec![];
        // The kernel gives about every other one to the loop that runs.
        for _ in 0..64 {
            let mut client = proxy.client();
            client.send_connect(&origin.addr.to_string());
            clients.push(client);
        }
        let held = until("some to be accepted", || {
            proxy.descriptors().checked_sub(before).filter(|accepted| *accepted > 0)
        });
        Scene { proxy, tunnel, _origin: origin, stopped, clients, held, since }
    }

    /// Waits until those who are held have their answers: the other loop has none for them.
    #[track_caller]
    fn held_are_told(&mut self, status: u16, error: &str) {
        let has_answer = |client: &Client| {
            client.stream.set_nonblocking(true).unwrap();
            let has = client.stream.peek(&mut [0; 1]).is_ok_and(|count| count == 1);
            client.stream.set_nonblocking(false).unwrap();
            has
        };
        let told = || self.clients.iter().filter(|client| has_answer(client)).count();
        until("all who are held to be told", || (told() >= self.held).then_some(()));
        let (told, waiting) = self.clients.drain(..).partition(|client| has_answer(client));
        self.clients = waiting;
        self.are_told(told, status, error);
    }

    #[track_caller]
    fn are_told(&self, clients: Vec<Client>, status: u16, error: &str) {
        for mut client in clients {
            let answer = client.read_refusal();
            assert_eq!((answer.head.status, answer.error.as_str()), (status, error));
            assert_eq!(self.proxy.access_of(client.local).status, status.to_string());
        }
    }
}

const LIMIT: &str = "connection_limit_reached";

#[test]
fn who_is_held_is_told_after_a_second_whatever_other_loops_do() {
    let mut scene = Scene::open(&[]);
    scene.held_are_told(503, LIMIT);
    assert!(scene.since.elapsed() >= Duration::from_secs(1), "nobody has said that there is no place");
    // Now the other one has looked too.
    scene.stopped = None;
    let waiting = std::mem::take(&mut scene.clients);
    scene.are_told(waiting, 503, LIMIT);
    scene.tunnel.echo(b"goes on");
}

#[test]
fn who_is_held_when_the_proxy_is_stopped_is_told() {
    let mut scene = Scene::open(&[]);
    scene.proxy.signal(Signal::TERM);
    scene.held_are_told(503, LIMIT);
    let Scene { mut proxy, mut tunnel, _origin, stopped, clients, .. } = scene;
    drop(stopped);
    tunnel.echo(b"goes on");
    // One of those who are left may have its place now, and would be served.
    drop((tunnel, clients));
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn who_is_held_at_a_second_signal_is_told_and_the_process_ends() {
    let mut scene = Scene::open(&[]);
    scene.proxy.signal(Signal::TERM);
    scene.proxy.signal(Signal::INT);
    scene.held_are_told(503, LIMIT);
    let Scene { mut proxy, tunnel, _origin, stopped, .. } = scene;
    drop(stopped);
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(proxy.access_of(tunnel.local).end, "grace");
}

#[test]
fn who_is_held_is_judged_by_new_settings() {
    let file = TempFile::with("client 127.0.0.0/8\n");
    let mut scene = Scene::open(&["--config", &file.path]);
    std::fs::write(&file.path, "client 10.0.0.0/8\n").unwrap();
    scene.proxy.signal(Signal::HUP);
    // Not when their time is over: that would be 503.
    scene.held_are_told(403, "http_request_denied");
}

/// A proxy that has room for one, who is idle behind its first answer.
fn full(options: &[&str]) -> (Proxy, Origin, Wire) {
    let origin = answering(|_| ok("ok").into_bytes());
    let proxy = Proxy::open(options);
    let mut client = proxy.wire();
    client.get(&url(origin.addr, "/"));
    assert_eq!(client.read_response("GET").status(), 200);
    (proxy, origin, client)
}

#[test]
fn who_has_left_makes_a_place_for_who_comes_in_the_same_turn() {
    for limit in ["--max-sessions", "--max-sessions-per-client"] {
        let (proxy, origin, client) = full(&["--loops", "1", limit, "1"]);
        proxy.freeze();
        drop(client);
        let mut next = proxy.wire();
        next.get(&url(origin.addr, "/"));
        proxy.signal(Signal::CONT);
        assert_eq!(next.read_response("GET").status(), 200, "{limit}");
    }
}

#[test]
fn who_is_held_does_not_wait_for_its_time_to_be_over() {
    const CLIENTS: u32 = 60;
    let origin = Origin::echo();
    // Nothing else wakes a loop: no lines to write, and clients stay where they are.
    let proxy = Proxy::open(&["--loops", "2", "--max-sessions", "1", "--access-log", "off"]);
    let _tunnel = proxy.tunnel(&origin.addr.to_string());
    let begin = Instant::now();
    let mut clients = vec![];
    for _ in 0..CLIENTS {
        let mut client = proxy.client();
        client.send_connect(&origin.addr.to_string());
        assert_eq!(client.read_refusal().head.status, 503);
        clients.push(client);
    }
    // The other loop's answer wakes the one that has asked; without, it was a second for one in four.
    assert!(begin.elapsed() < Duration::from_secs(1) * CLIENTS / 8, "{:?}", begin.elapsed());
}
