//! The load: opens tunnels through the proxy and drives them in one of the shapes, from one thread and one poll.

use crate::args::{Args, Shape};
use crate::flow::{Buffers, Turn};
use crate::origin;
use crate::usage::Usage;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The message of the small shapes.
const MESSAGE_BYTES: usize = 64;
/// Room for the proxy's answer to CONNECT.
const ANSWER_BYTES: usize = 1024;
/// Tunnels that may be on their way at once while many are opened.
const OPENING_AT_ONCE: usize = 64;
/// Nothing at all happened for so long: the run has failed.
const STALL: Duration = Duration::from_secs(20);
/// What the proxy may need to clear up behind the last operation of a counted run, or behind the last idle tunnel.
const SETTLE: Duration = Duration::from_millis(500);
/// A slow reader takes so much at once, ...
const SIP_BYTES: usize = 4;
/// ... and this often. In between the others have their turns, so that all of them are one steady trickle.
const SIP_EVERY: Duration = Duration::from_secs(1);
const SIP_TURNS: u32 = 10;
/// Room for what comes: the least that the kernel gives, which doubles it.
const LITTLE_ROOM_BYTES: usize = 2304;
const SEGMENT_BYTES: u32 = 1460;

/// Runs one shape and prints its line.
pub fn run(args: &Args, shape: Shape) -> io::Result<()> {
    let mut load = Load::new(args, shape)?;
    match shape {
        Shape::Connect => load.operations()?,
        Shape::RoundTrips => {
            load.open_all()?;
            load.operations()?;
        }
        Shape::Down | Shape::Up | Shape::Both => {
            load.open_all()?;
            load.bulk()?;
        }
        Shape::Idle | Shape::Slow => load.hold()?,
    }
    match load.errors {
        0 => Ok(()),
        _ => Err(io::Error::from(ErrorKind::ConnectionAborted)),
    }
}

/// How far a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first bytes have not been taken by the kernel yet.
    Greeting,
    /// CONNECT is out, its answer is not complete.
    Answering,
    /// A message is out, its echo is not complete.
    Echoing,
    /// Nothing is under way.
    Open,
}

struct Tunnel {
    stream: TcpStream,
    phase: Phase,
    /// Bytes of the answer or the echo that are here.
    have: usize,
    answer: Vec<u8>,
    started: Instant,
    /// Waits for its next turn in bulk.
    runnable: bool,
}

struct Load<'a> {
    args: &'a Args,
    shape: Shape,
    poll: Poll,
    tunnels: Vec<Option<Tunnel>>,
    /// The first bytes on a connection to the proxy; empty for a plain relay.
    head: Vec<u8>,
    /// What goes through the tunnel; its first byte tells the origin what to do.
    message: [u8; MESSAGE_BYTES],
    buffers: Buffers,
    errors: u64,
    first_error: Option<io::Error>,
}

/// What was seen between two readings of the kernel's books.
struct Window {
    opened: Instant,
    before: Usage,
    own_before: Usage,
    latencies_us: Vec<u32>,
    bytes: u64,
}

impl Window {
    fn open(args: &Args) -> Window {
        let (before, own_before) = (Usage::of(&args.pids), Usage::of(&[std::process::id()]));
        Window { opened: Instant::now(), before, own_before, latencies_us: Vec::new(), bytes: 0 }
    }
}

impl<'a> Load<'a> {
    fn new(args: &'a Args, shape: Shape) -> io::Result<Load<'a>> {
        let field = args.field.as_ref().map_or(String::new(), |field| format!("{field}\r\n"));
        let head = args
            .origin
            .as_ref()
            .map(|to| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{field}\r\n").into_bytes());
        let role = match shape {
            Shape::Down => origin::DOWN,
            Shape::Slow => origin::SLOW,
            Shape::Up => origin::UP,
            Shape::Both => origin::BOTH,
            Shape::Connect | Shape::RoundTrips | Shape::Idle => origin::ECHO,
        };
        Ok(Load {
            args,
            shape,
            poll: Poll::new()?,
            tunnels: (0..args.conns).map(|_| None).collect(),
            head: head.unwrap_or_default(),
            message: [role; MESSAGE_BYTES],
            buffers: Buffers::new(),
            errors: 0,
            first_error: None,
        })
    }

    fn dial(&mut self, key: usize) -> io::Result<()> {
        let started = Instant::now();
        let mut stream = match self.shape {
            Shape::Slow => connect_with_little_room(self.args.proxy)?,
            _ => TcpStream::connect(self.args.proxy)?,
        };
        self.poll.registry().register(&mut stream, Token(key), Interest::READABLE | Interest::WRITABLE)?;
        let (phase, answer) = (Phase::Greeting, Vec::new());
        let mut tunnel = Tunnel { stream, phase, have: 0, answer, started, runnable: false };
        // On loopback the connection mostly stands already; if not, an event follows.
        let result = self.greet(&mut tunnel);
        self.tunnels[key] = Some(tunnel);
        result
    }

    fn greet(&self, tunnel: &mut Tunnel) -> io::Result<()> {
        let (bytes, next) = match self.head.is_empty() {
            true => (&self.message[..], self.after_message()),
            false => (&self.head[..], Phase::Answering),
        };
        match tunnel.stream.write(bytes) {
            Ok(count) if count == bytes.len() => tunnel.phase = next,
            Ok(_) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn after_message(&self) -> Phase {
        if self.message[0] == origin::ECHO { Phase::Echoing } else { Phase::Open }
    }

    /// Goes on with a tunnel as far as its bytes allow. True when a message has come back whole.
    fn advance(&mut self, key: usize) -> io::Result<bool> {
        let Some(mut tunnel) = self.tunnels[key].take() else { return Ok(false) };
        let result = self.advance_tunnel(&mut tunnel);
        self.tunnels[key] = Some(tunnel);
        result
    }

    fn advance_tunnel(&self, tunnel: &mut Tunnel) -> io::Result<bool> {
        if tunnel.phase == Phase::Greeting {
            self.greet(tunnel)?;
        }
        let mut buffer = [0; ANSWER_BYTES];
        while tunnel.phase == Phase::Answering || tunnel.phase == Phase::Echoing {
            let count = match tunnel.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            if tunnel.phase == Phase::Answering {
                if !tunnel.answered(&buffer[..count])? {
                    continue;
                }
                // Nobody but us speaks first, so this write cannot be short.
                tunnel.send(&self.message)?;
                tunnel.phase = self.after_message();
                return Ok(false);
            }
            tunnel.have += count;
            if tunnel.have > MESSAGE_BYTES || buffer[..count].iter().any(|&byte| byte != origin::ECHO) {
                return Err(ErrorKind::InvalidData.into());
            }
            if tunnel.have == MESSAGE_BYTES {
                tunnel.have = 0;
                tunnel.phase = Phase::Open;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens all tunnels and waits until each has carried a message.
    fn open_all(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let (mut next, mut done) = (0, 0);
        let mut last = Instant::now();
        while done < self.tunnels.len() {
            while next < self.tunnels.len() && next - done < OPENING_AT_ONCE {
                self.dial(next)?;
                next += 1;
                done += usize::from(self.is_open(next - 1));
            }
            self.wait(&mut events, Duration::from_millis(100))?;
            for event in &events {
                let key = event.token().0;
                let was_open = self.is_open(key);
                self.advance(key)?;
                if self.is_open(key) && !was_open {
                    done += 1;
                    last = Instant::now();
                }
            }
            if last.elapsed() > STALL {
                eprintln!("{done} of {} tunnels are open", self.tunnels.len());
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn is_open(&self, key: usize) -> bool {
        self.tunnels[key].as_ref().is_some_and(|tunnel| tunnel.phase == Phase::Open)
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// Connects, or round trips on the open tunnels, until the window or the count is full.
    fn operations(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let counted = self.args.count.unwrap_or(u64::MAX);
        let (mut started, mut finished) = (0, 0);
        let mut window = self.args.count.map(|_| Window::open(self.args));
        for key in 0..self.tunnels.len() {
            if started < counted {
                started += 1;
                self.start(key);
            }
        }
        let begin = Instant::now();
        let mut last = begin;
        while finished < counted {
            self.wait(&mut events, Duration::from_millis(100))?;
            for event in &events {
                let key = event.token().0;
                let since = self.tunnels[key].as_ref().map_or(begin, |tunnel| tunnel.started);
                match self.advance(key) {
                    Ok(false) => continue,
                    Ok(true) => {
                        if let Some(window) = &mut window {
                            window.latencies_us.push(since.elapsed().as_micros().min(u32::MAX.into()) as u32);
                        }
                    }
                    Err(error) => self.fail(key, error),
                }
                finished += 1;
                last = Instant::now();
                if started < counted {
                    started += 1;
                    self.start(key);
                } else if self.shape == Shape::Connect {
                    self.tunnels[key] = None;
                }
            }
            if last.elapsed() > STALL {
                eprintln!("stalled after {finished} operations");
                return Err(ErrorKind::TimedOut.into());
            }
            if window.is_none() && begin.elapsed() > self.args.warm {
                window = Some(Window::open(self.args));
            }
            if self.args.count.is_none()
                && window.as_ref().is_some_and(|w| w.opened.elapsed() > self.args.window)
            {
                break;
            }
        }
        match window {
            Some(window) if window.latencies_us.is_empty() => {
                eprintln!("no operation was finished");
                Err(ErrorKind::TimedOut.into())
            }
            Some(window) => {
                self.report(window);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Begins one operation in this slot.
    fn start(&mut self, key: usize) {
        let result = match self.shape {
            Shape::RoundTrips if self.tunnels[key].is_some() => self.ping(key),
            _ => self.dial(key),
        };
        if let Err(error) = result {
            self.fail(key, error);
        }
    }

    fn ping(&mut self, key: usize) -> io::Result<()> {
        let Some(tunnel) = &mut self.tunnels[key] else { return Ok(()) };
        tunnel.started = Instant::now();
        tunnel.phase = Phase::Echoing;
        tunnel.send(&self.message)
    }

    fn fail(&mut self, key: usize, error: io::Error) {
        self.tunnels[key] = None;
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    /// Keeps all tunnels as busy as they can be until the window closes or the count is full.
    fn bulk(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        let begin = Instant::now();
        let mut last = begin;
        let mut window = self.args.count.map(|_| Window::open(self.args));
        self.tunnels.iter_mut().flatten().for_each(|tunnel| tunnel.runnable = true);
        loop {
            let busy = self.tunnels.iter().flatten().any(|tunnel| tunnel.runnable);
            self.wait(&mut events, if busy { Duration::ZERO } else { Duration::from_millis(100) })?;
            for event in &events {
                if let Some(tunnel) = &mut self.tunnels[event.token().0] {
                    tunnel.runnable = true;
                }
            }
            let mut moved = 0;
            for tunnel in self.tunnels.iter_mut().flatten().filter(|tunnel| tunnel.runnable) {
                let (bytes, turn) = tunnel.turn(self.shape, &mut self.buffers)?;
                if turn == Turn::Eof {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                tunnel.runnable = turn == Turn::More;
                moved += bytes as u64;
            }
            if moved > 0 {
                last = Instant::now();
            } else if last.elapsed() > STALL {
                eprintln!("nothing moves");
                return Err(ErrorKind::TimedOut.into());
            }
            match &mut window {
                None if begin.elapsed() > self.args.warm => window = Some(Window::open(self.args)),
                None => {}
                Some(window) => window.bytes += moved,
            }
            let is_over = |window: &mut Window| match self.args.count {
                Some(mebibytes) => window.bytes >> 20 >= mebibytes,
                None => window.opened.elapsed() > self.args.window,
            };
            if let Some(window) = window.take_if(is_over) {
                self.report(window);
                return Ok(());
            }
        }
    }

    /// Opens the tunnels, looks at memory, then at what it costs to hold them for the length of the window.
    fn hold(&mut self) -> io::Result<()> {
        let before = Usage::of(&self.args.pids);
        self.open_all()?;
        std::thread::sleep(SETTLE);
        eprintln!("holding {} tunnels", self.tunnels.len());
        let after = Usage::of(&self.args.pids);
        match self.shape {
            Shape::Slow => self.sip()?,
            _ => std::thread::sleep(self.args.window),
        }
        let held = Usage::of(&self.args.pids);
        let tunnels = self.tunnels.len() as f64;
        println!(
            "shape={} tunnels={tunnels} errors={} bytes_per_tunnel={:.0} rss_before_kib={} rss_after_kib={} \
             hold_cpu_percent={:.4} hold_wakeups={}",
            self.shape.name(),
            self.errors,
            (after.rss_bytes as f64 - before.rss_bytes as f64) / tunnels,
            before.rss_bytes >> 10,
            held.rss_bytes >> 10,
            held.cpu_ns_since(&after) as f64 / self.args.window.as_nanos() as f64 * 100.0,
            held.wakeups_since(&after),
        );
        Ok(())
    }

    /// Reads next to nothing of what never ends, until the window closes.
    fn sip(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        let share = self.tunnels.len().div_ceil(SIP_TURNS as usize);
        let mut buffer = [0; SIP_BYTES];
        loop {
            for tunnels in self.tunnels.chunks_mut(share) {
                std::thread::sleep(SIP_EVERY / SIP_TURNS);
                if begin.elapsed() > self.args.window {
                    return Ok(());
                }
                for tunnel in tunnels.iter_mut().flatten() {
                    match tunnel.stream.read(&mut buffer) {
                        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    fn report(&mut self, mut window: Window) {
        let wall_s = window.opened.elapsed().as_secs_f64();
        let own_ns = Usage::of(&[std::process::id()]).cpu_ns_since(&window.own_before);
        if self.args.count.is_some() {
            std::thread::sleep(SETTLE);
        }
        let cpu_ns = Usage::of(&self.args.pids).cpu_ns_since(&window.before) as f64;
        let common = format!(
            "shape={} conns={} errors={} seconds={wall_s:.3} cpu_percent={:.0} load_cpu_percent={:.0}",
            self.shape.name(),
            self.args.conns,
            self.errors,
            cpu_ns / wall_s / 1e7,
            own_ns as f64 / wall_s / 1e7,
        );
        if window.latencies_us.is_empty() {
            let gigabytes = window.bytes as f64 / 1e9;
            println!(
                "{common} ops={} gb_s={:.3} cpu_s_per_gb={:.4}",
                window.bytes >> 20,
                gigabytes / wall_s,
                cpu_ns / 1e9 / gigabytes
            );
        } else {
            let operations = window.latencies_us.len() as f64;
            window.latencies_us.sort_unstable();
            println!(
                "{common} ops={operations} ops_s={:.0} p50_us={} p90_us={} p99_us={} cpu_us={:.3}",
                operations / wall_s,
                percentile(&window.latencies_us, 50),
                percentile(&window.latencies_us, 90),
                percentile(&window.latencies_us, 99),
                cpu_ns / 1e3 / operations,
            );
        }
        if let Some(error) = &self.first_error {
            eprintln!("{} operations failed, the first with: {error}", self.errors);
        }
    }
}

impl Tunnel {
    /// Takes a part of the answer to CONNECT; true when its head is complete and says 200.
    fn answered(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.answer.extend_from_slice(bytes);
        let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.answer.len() > ANSWER_BYTES {
                Err(ErrorKind::InvalidData.into())
            } else {
                Ok(false)
            };
        };
        if !self.answer.starts_with(b"HTTP/1.") || self.answer.get(8..13) != Some(b" 200 ") {
            eprintln!("the proxy says: {}", String::from_utf8_lossy(&self.answer[..end]));
            return Err(ErrorKind::ConnectionRefused.into());
        }
        self.answer = Vec::new();
        Ok(true)
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self.stream.write(message)? {
            count if count == message.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// One turn of bulk. "Both" counts the bytes of both directions.
    fn turn(&mut self, shape: Shape, buffers: &mut Buffers) -> io::Result<(usize, Turn)> {
        match shape {
            Shape::Up => buffers.pour(&mut self.stream),
            Shape::Both => {
                let (read, first) = buffers.discard(&self.stream)?;
                if first == Turn::Eof {
                    return Ok((read, first));
                }
                let (written, second) = buffers.pour(&mut self.stream)?;
                let more = first == Turn::More || second == Turn::More;
                Ok((read + written, if more { Turn::More } else { Turn::Blocked }))
            }
            Shape::Down | Shape::Connect | Shape::RoundTrips | Shape::Idle | Shape::Slow => {
                buffers.discard(&self.stream)
            }
        }
    }
}

/// Dials with so little room for what comes that the sender soon has to wait. Both options must be set before the handshake, which
/// tells them to the peer. Segments are those of Ethernet: with the 64 KiB of loopback the kernel would keep over a MiB for
/// each reader at the proxy, and soon all that it has for TCP.
fn connect_with_little_room(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(LITTLE_ROOM_BYTES)?;
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Of sorted values.
fn percentile(sorted: &[u32], percent: usize) -> u32 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}
