//! Clients beyond `--max-sessions` while another loop, which might make a place for them, does not answer: its thread is stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::client::Client;
use support::origin::Origin;
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::until;

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
        let mut tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.id())).unwrap().map(Result::unwrap);
        let is_it = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let id = tasks.find(is_it).expect("it has such a thread").file_name();
        let mut child = Command::new("python3")
            .args(["-c", STOP, id.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "it stands\n");
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
}

impl Scene {
    #[track_caller]
    fn open() -> Scene {
        let options = ["--loops", "2", "--max-sessions", "1", "--grace", "600"];
        let proxy = Launch::new(&[&ALLOW_LOOPBACK, &options[..]].concat()).by(MAY_BE_STOPPED).start();
        let origin = Origin::echo();
        let tunnel = proxy.tunnel(&origin.addr.to_string());
        let stopped = Some(Stopped::thread(&proxy, "loop-1"));
        let before = proxy.descriptors();
        let mut clients = vec![];
        // The kernel gives about every other one to the loop that runs.
        while proxy.descriptors() < before + 3 {
            assert!(clients.len() < 1_000, "nobody is accepted");
            let mut client = proxy.client();
            client.send_connect(&origin.addr.to_string());
            clients.push(client);
        }
        let held = proxy.descriptors() - before;
        Scene { proxy, tunnel, _origin: origin, stopped, clients, held }
    }

    /// Waits until those who are held have their answers: the other loop has none for them.
    #[track_caller]
    fn held_are_told(&mut self) {
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
        self.are_told(told);
    }

    #[track_caller]
    fn are_told(&self, clients: Vec<Client>) {
        for mut client in clients {
            let answer = client.read_refusal();
            assert_eq!((answer.head.status, answer.error.as_str()), (503, "connection_limit_reached"));
            assert_eq!(self.proxy.access_of(client.local).status, "503");
        }
    }
}

#[test]
fn who_is_held_is_told_after_a_second_whatever_other_loops_do() {
    let started = Instant::now();
    let mut scene = Scene::open();
    scene.held_are_told();
    assert!(started.elapsed() >= Duration::from_secs(1), "nobody has said that there is no place");
    // Now the other one has looked too.
    scene.stopped = None;
    let waiting = std::mem::take(&mut scene.clients);
    scene.are_told(waiting);
    scene.tunnel.echo(b"goes on");
}

#[test]
fn who_is_held_when_the_proxy_is_stopped_is_told() {
    let mut scene = Scene::open();
    scene.proxy.signal(Signal::TERM);
    scene.held_are_told();
    let Scene { mut proxy, mut tunnel, _origin, stopped, clients, .. } = scene;
    drop(stopped);
    tunnel.echo(b"goes on");
    // One of those who are left may have its place now, and would be served.
    drop((tunnel, clients));
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn who_is_held_at_a_second_signal_is_told_and_the_process_ends() {
    let mut scene = Scene::open();
    scene.proxy.signal(Signal::TERM);
    scene.proxy.signal(Signal::INT);
    scene.held_are_told();
    let Scene { mut proxy, tunnel, _origin, stopped, .. } = scene;
    drop(stopped);
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(proxy.access_of(tunnel.local).end, "grace");
}
