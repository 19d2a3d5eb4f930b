//! Bulk through the pipes of the real binary: that it goes there, that every byte and every end arrives, and that nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::OFlags;
use socket2::SockRef;

use support::client::{Client, reset};
use support::origin::{Origin, Seen, receive, send_pattern};
use support::proxy::{ALLOW_LOOPBACK, Launch, Proxy};
use support::{Ending, Pattern, Tally, until};

const MIB: usize = 1024 * 1024;
/// What is let through at once.
const PORTION: usize = 10 * MIB;
const BYTES: u64 = 64 * MIB as u64;

/// Pipes that the proxy has open, with a path to each. Two are its log and its access lines.
fn pipes(proxy: &Proxy) -> BTreeMap<PathBuf, PathBuf> {
    let links = std::fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap();
    links
        .map(|link| link.unwrap().path())
        // What is closed meanwhile is no link any more.
        .filter_map(|path| Some((std::fs::read_link(&path).ok()?, path)))
        .filter(|(target, _)| target.to_string_lossy().starts_with("pipe:"))
        .collect()
}

/// Bytes in a pipe, asked through an end of our own.
fn bytes_in(path: &Path) -> u64 {
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    // It may have been closed meanwhile.
    let end = OpenOptions::new().read(true).custom_flags(nonblock).open(path);
    end.map_or(0, |end| rustix::io::ioctl_fionread(&end).unwrap_or(0))
}

/// A proxy, and which pipes and how many descriptors it has while it is idle.
struct Idle {
    proxy: Proxy,
    pipes: BTreeMap<PathBuf, PathBuf>,
    descriptors: usize,
}

impl Idle {
    fn new() -> Idle {
        let proxy = Proxy::open(&[]);
        let (pipes, descriptors) = (pipes(&proxy), proxy.descriptors());
        Idle { proxy, pipes, descriptors }
    }

    /// Lets more through from time to time, so that much is waiting in front of it, until bytes are in a pipe to stay. Each time
    /// so much that a sink that was waited for has proved again that it is not slow.
    fn until_piped(&self, mut more: impl FnMut()) {
        let (mut looks_with, mut looks_without) = (0, 0);
        until("bytes to wait in a pipe", || {
            let mut all = pipes(&self.proxy);
            all.retain(|target, _| !self.pipes.contains_key(target));
            if all.values().any(|path| bytes_in(path) > 0) {
                looks_with += 1;
            } else {
                looks_with = 0;
                looks_without += 1;
                if looks_without % 20 == 1 {
                    more();
                }
            }
            (looks_with == 3).then_some(())
        });
    }

    fn has_no_pipe_again(&self) {
        until("pipes to be closed", || (pipes(&self.proxy).len() == self.pipes.len()).then_some(()));
    }

    fn is_idle_again(&self) {
        self.has_no_pipe_again();
        until("sockets to be closed", || (self.proxy.descriptors() == self.descriptors).then_some(()));
    }
}

/// Reads a portion at a time into the tally.
fn read_more<'a>(client: &'a mut Client, tally: &'a mut Tally) -> impl FnMut() + use<'a> {
    // The less fits in between, the sooner it waits in a pipe.
    SockRef::from(&client.stream).set_recv_buffer_size(64 * 1024).unwrap();
    let mut buf = vec![0; PORTION];
    move || {
        client.stream.read_exact(&mut buf).unwrap();
        tally.add(&buf);
    }
}

fn pattern_hash(seed: u64, bytes: u64) -> Vec<u8> {
    let (mut pattern, mut tally) = (Pattern::new(seed), Tally::new());
    let mut buf = vec![0; MIB];
    while tally.bytes < bytes {
        pattern.fill(&mut buf);
        tally.add(&buf);
    }
    tally.sha256()
}

/// The words that let an origin go on: each waits until the last one was heeded.
fn gate() -> (mpsc::SyncSender<()>, Mutex<mpsc::Receiver<()>>) {
    let (gate, words) = mpsc::sync_channel(0);
    (gate, Mutex::new(words))
}

/// Reads a portion for each word, until there are no more.
fn read_at_words(stream: &mut TcpStream, words: &Mutex<mpsc::Receiver<()>>, mut part: impl FnMut(&[u8])) {
    // The less fits in between, the sooner it waits in a pipe.
    SockRef::from(&*stream).set_recv_buffer_size(64 * 1024).unwrap();
    let mut buf = vec![0; PORTION];
    while words.lock().unwrap().recv().is_ok() {
        // Whoever sends words must not wait for ever if there is no more: it will find no bytes in a pipe then.
        if stream.read_exact(&mut buf).is_ok() {
            part(&buf);
        }
    }
}

/// Reads at words, then the rest, and answers.
fn gated(answer: &'static str) -> (Origin, mpsc::SyncSender<()>) {
    let (gate, words) = gate();
    let origin = Origin::start(move |mut stream| {
        let mut tally = Tally::new();
        read_at_words(&mut stream, &words, |part| tally.add(part));
        let Seen { ending, .. } = receive(&mut stream, |part| tally.add(part));
        drop(stream.write_all(answer.as_bytes()));
        Seen { bytes: tally.bytes, sha256: tally.sha256(), ending }
    });
    (origin, gate)
}

/// Sends in a thread of its own, as the other end takes it, and then ends.
fn send_beside<T: Send + 'static>(
    client: &Client,
    send: impl FnOnce(&mut TcpStream) -> T + Send + 'static,
) -> JoinHandle<T> {
    let mut out = client.stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let sent = send(&mut out);
        out.shutdown(Shutdown::Write).unwrap();
        sent
    })
}

#[test]
fn down_through_a_pipe() {
    let idle = Idle::new();
    let source = Origin::source(3, BYTES);
    let mut client = idle.proxy.tunnel(&source.addr.to_string());
    let mut tally = Tally::new();
    idle.until_piped(read_more(&mut client, &mut tally));
    let rest = receive(&mut client.stream, |part| tally.add(part));
    assert_eq!((tally.bytes, rest.ending), (BYTES, Ending::Eof));
    assert_eq!(tally.sha256(), pattern_hash(3, BYTES));
    client.finish();
    let access = idle.proxy.access_of(client.local);
    assert_eq!((access.up, access.down, access.end.as_str()), (0, BYTES, "done"));
    drop(client);
    idle.is_idle_again();
}

#[test]
fn up_through_a_pipe_with_a_half_close_behind_it() {
    let idle = Idle::new();
    let (sink, gate) = gated("got it");
    let mut client = idle.proxy.tunnel(&sink.addr.to_string());
    let sender = send_beside(&client, |out| send_pattern(out, 4, BYTES));
    idle.until_piped(|| gate.send(()).unwrap());
    drop(gate);
    let sent = sender.join().unwrap();
    assert_eq!(client.read_rest(), (b"got it".to_vec(), Ending::Eof));
    assert_eq!(sink.seen(), Seen { bytes: BYTES, sha256: sent, ending: Ending::Eof });
    let access = idle.proxy.access_of(client.local);
    assert_eq!((access.up, access.down, access.end.as_str()), (BYTES, 6, "done"));
    drop(client);
    idle.is_idle_again();
}

#[test]
fn an_idle_tunnel_has_no_pipe() {
    let idle = Idle::new();
    let (sink, gate) = gated("");
    let mut client = idle.proxy.tunnel(&sink.addr.to_string());
    let mut out = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || send_pattern(&mut out, 4, BYTES));
    idle.until_piped(|| gate.send(()).unwrap());
    drop(gate);
    sender.join().unwrap();
    idle.has_no_pipe_again();
    client.send(b"and on");
    client.finish();
    assert_eq!(sink.seen().bytes, BYTES + 6);
}

#[test]
fn the_client_resets_while_bytes_wait_in_a_pipe() {
    let idle = Idle::new();
    let source = Origin::endless();
    let mut client = idle.proxy.tunnel(&source.addr.to_string());
    idle.until_piped(read_more(&mut client, &mut Tally::new()));
    let local = client.local;
    client.reset();
    assert_eq!(idle.proxy.access_of(local).end, "client_reset");
    idle.is_idle_again();
}

#[test]
fn the_origin_resets_while_bytes_for_it_wait_in_a_pipe() {
    let idle = Idle::new();
    let (gate, words) = gate();
    let sink = Origin::start(move |mut stream| {
        read_at_words(&mut stream, &words, |_| {});
        reset(stream);
        Seen { bytes: 0, sha256: Vec::new(), ending: Ending::Silence }
    });
    let mut client = idle.proxy.tunnel(&sink.addr.to_string());
    let mut out = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let buf = vec![7; MIB];
        loop {
            if let Err(error) = out.write_all(&buf) {
                return error.kind();
            }
        }
    });
    idle.until_piped(|| gate.send(()).unwrap());
    drop(gate);
    // A reset is told once, to whoever asks first.
    let (read, written) = (client.read_rest().1, sender.join().unwrap());
    assert!(read == Ending::Reset || written == ErrorKind::ConnectionReset, "{read:?} {written:?}");
    let access = idle.proxy.access_of(client.local);
    assert_eq!((access.end.as_str(), access.down), ("upstream_reset", 0));
    drop(client);
    idle.is_idle_again();
}

#[test]
fn the_origin_resets_behind_bytes_that_wait_in_a_pipe() {
    let idle = Idle::new();
    let (gate, words) = gate();
    let source = Origin::start(move |mut stream| {
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let (mut pattern, mut buf) = (Pattern::new(5), vec![0; MIB]);
        'sending: loop {
            pattern.fill(&mut buf);
            let mut sent = 0;
            while sent < buf.len() {
                match stream.write(&buf[sent..]) {
                    Ok(count) => sent += count,
                    Err(_) if words.lock().unwrap().try_recv() == Err(mpsc::TryRecvError::Disconnected) => {
                        break 'sending;
                    }
                    Err(_) => {}
                }
            }
        }
        reset(stream);
        Seen { bytes: 0, sha256: Vec::new(), ending: Ending::Silence }
    });
    let mut client = idle.proxy.tunnel(&source.addr.to_string());
    let (mut pattern, mut wanted) = (Pattern::new(5), vec![0; MIB]);
    let mut got = vec![0; MIB];
    let mut all = 0;
    idle.until_piped(|| {
        for _ in 0..PORTION / MIB {
            client.stream.read_exact(&mut got).unwrap();
            pattern.fill(&mut wanted);
            assert!(got == wanted);
            all += MIB as u64;
        }
    });
    drop(gate);
    assert_eq!(source.seen().bytes, 0, "it has reset");
    let mut rest = Vec::new();
    let seen = receive(&mut client.stream, |part| rest.extend_from_slice(part));
    assert_eq!(seen.ending, Ending::Reset);
    let mut wanted = vec![0; rest.len()];
    for part in wanted.chunks_mut(MIB) {
        pattern.fill(part);
    }
    assert!(rest == wanted, "what was under way arrives as it was sent");
    let access = idle.proxy.access_of(client.local);
    assert_eq!((access.end.as_str(), access.up), ("upstream_reset", 0));
    assert!(access.down >= all + rest.len() as u64);
    drop(client);
    idle.is_idle_again();
}

#[test]
fn urgent_data_behind_bulk() {
    let idle = Idle::new();
    let (sink, gate) = gated("");
    let client = idle.proxy.tunnel(&sink.addr.to_string());
    let is_piped = Arc::new(AtomicBool::new(false));
    let may_mark = is_piped.clone();
    let sender = send_beside(&client, move |out| {
        let (mut pattern, mut tally) = (Pattern::new(6), Tally::new());
        let mut buf = vec![0; MIB];
        let mut marks = 0;
        while marks < 16 {
            pattern.fill(&mut buf);
            out.write_all(&buf).unwrap();
            tally.add(&buf);
            // From the first mark on it is rings.
            if may_mark.load(Ordering::Acquire) {
                SockRef::from(&*out).send_out_of_band(b"!").unwrap();
                tally.add(b"!");
                marks += 1;
            }
        }
        tally
    });
    idle.until_piped(|| gate.send(()).unwrap());
    is_piped.store(true, Ordering::Release);
    drop(gate);
    let sent = sender.join().unwrap();
    assert_eq!(sink.seen(), Seen { bytes: sent.bytes, sha256: sent.sha256(), ending: Ending::Eof });
}

#[test]
fn bulk_has_a_pipe_beside_slow_readers() {
    // Seven pipes, of which four are for anybody.
    let proxy = Proxy::open(&["--buffer-memory", "9M", "--max-sessions", "200"]);
    let (before, descriptors) = (pipes(&proxy).len(), proxy.descriptors());
    let endless = Origin::endless();
    let slow: Vec<Client> = (0..20).map(|_| proxy.tunnel(&endless.addr.to_string())).collect();
    let held = until("slow readers to have all pipes that they may have", || {
        let all = pipes(&proxy);
        let full = all.values().filter(|path| bytes_in(path) > 0).count();
        // Spare ones are closed after a while.
        (full == 4 && all.len() == before + 4).then_some(all)
    });
    let idle = Idle { pipes: held, descriptors, proxy };
    // However often it stops before it has proved to be none of them.
    let mut client = idle.proxy.tunnel(&endless.addr.to_string());
    idle.until_piped(read_more(&mut client, &mut Tally::new()));
    drop((client, slow));
    until("sockets to be closed", || (idle.proxy.descriptors() == idle.descriptors).then_some(()));
}

#[test]
fn without_descriptors_for_pipes_it_goes_through_rings() {
    // It waits for a word, until there is one descriptor left.
    let source = Origin::start(|mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        send_pattern(&mut stream, 3, BYTES);
        stream.shutdown(Shutdown::Write).unwrap();
        receive(&mut stream, |_| {})
    });
    // The idle ones are to stay, however long it takes.
    let options = [&ALLOW_LOOPBACK[..], &["--head-timeout", "600"]].concat();
    let mut launch = Launch::new(&options).descriptors(40);
    launch.rust_log = Some("debug");
    let proxy = launch.start();
    let before = pipes(&proxy);
    let mut client = proxy.tunnel(&source.addr.to_string());
    let mut others = Vec::new();
    // A pipe takes two. Without this one, accepting would be tried again and again and fail, and as long as that is so no
    // pipe is tried.
    while proxy.descriptors_within(40) < 39 {
        let before = proxy.descriptors();
        others.push(proxy.client());
        until("it to be accepted", || (proxy.descriptors() > before).then_some(()));
    }
    client.send(b"x");
    let all = receive(&mut client.stream, |_| {});
    assert_eq!((all.bytes, all.ending), (BYTES, Ending::Eof));
    assert_eq!(all.sha256, pattern_hash(3, BYTES));
    proxy.log.wait("that there is no pipe", |line| line.contains("no pipe for bulk"));
    assert_eq!(pipes(&proxy).len(), before.len());
}

#[test]
fn without_memory_for_pipes_it_goes_through_rings() {
    let source = Origin::source(3, BYTES);
    let proxy = Proxy::open(&["--buffer-memory", "2M", "--max-sessions", "200"]);
    let before = pipes(&proxy);
    let mut client = proxy.tunnel(&source.addr.to_string());
    let mut buf = vec![0; MIB];
    let mut tally = Tally::new();
    for _ in 0..32 {
        client.stream.read_exact(&mut buf).unwrap();
        tally.add(&buf);
        assert_eq!(pipes(&proxy).len(), before.len());
    }
    let rest = receive(&mut client.stream, |part| tally.add(part));
    assert_eq!((tally.bytes, rest.ending), (BYTES, Ending::Eof));
    assert_eq!(tally.sha256(), pattern_hash(3, BYTES));
}
