//! Names become addresses: the resolver of one event loop and the sockets of its running questions.
//! Layer 5.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::proto::resolver::{Action, Exchange, Resolver, SocketFault};
pub use crate::proto::resolver::{Asked, Part, ResolveError, ResolverConfig as NamesConfig};
use crate::proto::tick::Tick;

/// A longer datagram than we announce is cut, and then broken.
const DATAGRAM_BYTES: usize = 4096;
/// A longer answer over TCP is refused.
const TCP_ANSWER_BYTES: usize = 16 * 1024;
/// Datagrams read from one socket before the others have their turn: a flood from a forged address costs no more.
const DATAGRAMS_PER_TURN: usize = 8;

/// Resolves names for one event loop without ever blocking it.
///
/// A question costs socket, connect, epoll_ctl, two sends, two to three receives and close; an answer from the hosts
/// file or the cache costs no system call.
#[derive(Debug)]
pub struct Names {
    resolver: Resolver,
    first_token: usize,
    /// By exchange number.
    sockets: Vec<Option<Socket>>,
    /// Exchanges with something to read or write, each once.
    ready: VecDeque<Exchange>,
    ids: RandomIds,
    datagram: Box<[u8]>,
    last_asked: Option<SocketAddr>,
}

impl Names {
    /// Tokens `first_token..first_token + TOKENS` belong to it.
    pub const TOKENS: usize = Exchange::COUNT;

    /// Nothing is opened before the first question.
    #[must_use]
    pub fn new(config: NamesConfig, first_token: usize) -> Names {
        Names {
            resolver: Resolver::new(config),
            first_token,
            sockets: Vec::new(),
            ready: VecDeque::new(),
            ids: RandomIds::new(),
            datagram: vec![0; DATAGRAM_BYTES].into_boxed_slice(),
            last_asked: None,
        }
    }

    /// The server that was asked last. Who has one question at a time knows by it who has answered.
    #[must_use]
    pub fn last_asked(&self) -> Option<SocketAddr> {
        self.last_asked
    }

    /// Asks for the addresses of `name`. `who` is the asker's key, which [`Names::pop_answer`] names again; an asker
    /// has one question at a time, a second one takes the place of the first.
    ///
    /// A pending question may have its answer already, or a part of it, when the cache knows one family or no server can be
    /// reached: see [`Names::has_work`].
    pub fn ask(&mut self, name: &str, who: usize, registry: &Registry, now: Tick) -> Asked {
        let ids = &mut self.ids;
        let asked = self.resolver.ask(name, who, now, &mut || ids.next_id());
        self.perform(registry, now);
        asked
    }

    /// The asker left; nothing will be said to it, also when its answer was ready. When it was the last one for the
    /// name and had no part of the answer, the next [`Names::run`] closes the sockets.
    pub fn cancel(&mut self, who: usize) {
        self.resolver.cancel(who);
    }

    /// New settings for every question from now on; those that run go on with theirs. See [`Resolver::reconfigure`].
    pub fn reconfigure(&mut self, config: NamesConfig) {
        self.resolver.reconfigure(config);
    }

    /// Empties the cache. See [`Resolver::flush`].
    pub fn flush(&mut self) {
        self.resolver.flush();
    }

    /// Notes that a socket may be ready; [`Names::run`] acts on it. A stale event, for a socket that is gone or whose
    /// number is taken again, costs a system call at most.
    pub fn on_event(&mut self, token: usize, event: &Event) {
        let Some(index) = token.checked_sub(self.first_token) else { return };
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return };
        socket.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        socket.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        if !std::mem::replace(&mut socket.queued, true) {
            self.ready.push_back(Exchange::from_index(index));
        }
    }

    /// Does the work that is due: reads answers, asks again, expires, closes.
    pub fn run(&mut self, registry: &Registry, now: Tick) {
        self.perform(registry, now);
        for _ in 0..self.ready.len() {
            let Some(exchange) = self.ready.pop_front() else { break };
            self.serve(exchange, registry, now);
        }
        let ids = &mut self.ids;
        self.resolver.expire(now, &mut || ids.next_id());
        self.perform(registry, now);
    }

    /// When [`Names::run`] is due even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.resolver.next_deadline()
    }

    /// The next answer, or part of one, and who asked for it. Call until `None` after [`Names::run`].
    pub fn pop_answer(&mut self) -> Option<(usize, Result<Part, ResolveError>)> {
        self.resolver.pop_answer()
    }

    /// Whether [`Names::run`] and [`Names::pop_answer`] must be called before the loop sleeps.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.resolver.has_work()
    }

    /// Does what the resolver wants, until it wants nothing more.
    fn perform(&mut self, registry: &Registry, now: Tick) {
        while let Some(action) = self.resolver.pop_action() {
            let (exchange, done) = match action {
                Action::OpenUdp { exchange, server, messages } => {
                    self.last_asked = Some(server);
                    (exchange, self.open_udp(exchange, server, &messages, registry))
                }
                Action::SendUdp { exchange, message } => (exchange, self.send_udp(exchange, &message)),
                Action::OpenTcp { exchange, server, message } => {
                    (exchange, self.open_tcp(exchange, server, &message, registry))
                }
                Action::Close { exchange } => {
                    // Dropping closes the descriptor, which takes it out of epoll as well.
                    if let Some(socket) = self.sockets.get_mut(exchange.index()) {
                        *socket = None;
                    }
                    continue;
                }
            };
            if let Err(error) = done {
                self.fail(exchange, &error, now);
            }
        }
    }

    fn fail(&mut self, exchange: Exchange, error: &io::Error, now: Tick) {
        let ids = &mut self.ids;
        self.resolver.on_failure(exchange, fault_of(error), now, &mut || ids.next_id());
    }

    fn open_udp(
        &mut self,
        exchange: Exchange,
        server: SocketAddr,
        messages: &[Vec<u8>],
        registry: &Registry,
    ) -> io::Result<()> {
        // Not bound by hand: connect takes a random free port, which a forger has to guess (RFC 5452 9.2).
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(server),
            socket2::Type::DGRAM.nonblocking(),
            Some(socket2::Protocol::UDP),
        )?;
        socket.connect(&server.into())?;
        let mut socket = UdpSocket::from_std(socket.into());
        registry.register(&mut socket, self.token(exchange), Interest::READABLE)?;
        self.keep(exchange, Kind::Udp(socket));
        messages.iter().try_for_each(|message| self.send_udp(exchange, message))
    }

    fn send_udp(&mut self, exchange: Exchange, message: &[u8]) -> io::Result<()> {
        let Some(Some(Socket { kind: Kind::Udp(socket), .. })) = self.sockets.get(exchange.index()) else {
            return Ok(());
        };
        match socket.send(message) {
            // As good as lost on the way: the next try follows.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            result => result.map(|_| ()),
        }
    }

    fn open_tcp(
        &mut self,
        exchange: Exchange,
        server: SocketAddr,
        message: &[u8],
        registry: &Registry,
    ) -> io::Result<()> {
        let mut stream = TcpStream::connect(server)?;
        registry.register(&mut stream, self.token(exchange), Interest::READABLE | Interest::WRITABLE)?;
        let mut output = Vec::with_capacity(message.len() + 2);
        output.extend((message.len() as u16).to_be_bytes());
        output.extend(message);
        self.keep(
            exchange,
            Kind::Tcp(Box::new(TcpQuestion { stream, output, sent: None, input: Vec::new() })),
        );
        Ok(())
    }

    fn token(&self, exchange: Exchange) -> Token {
        Token(self.first_token + exchange.index())
    }

    /// The bits start clear: the socket is registered before it has anything to say, so its first edge is still to
    /// come.
    fn keep(&mut self, exchange: Exchange, kind: Kind) {
        let index = exchange.index();
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        if let Some(place) = self.sockets.get_mut(index) {
            *place = Some(Socket { kind, readable: false, writable: false, queued: false });
        }
    }

    fn serve(&mut self, exchange: Exchange, registry: &Registry, now: Tick) {
        let Some(Some(socket)) = self.sockets.get_mut(exchange.index()) else { return };
        socket.queued = false;
        match &mut socket.kind {
            Kind::Udp(_) => self.serve_udp(exchange, registry, now),
            Kind::Tcp(question) => {
                let moved = question.advance(&mut socket.readable, &mut socket.writable);
                let ids = &mut self.ids;
                match moved {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        self.resolver.on_message(exchange, &message, now, &mut || ids.next_id())
                    }
                    Err(error) => self.fail(exchange, &error, now),
                }
                self.perform(registry, now);
            }
        }
    }

    fn serve_udp(&mut self, exchange: Exchange, registry: &Registry, now: Tick) {
        for _ in 0..DATAGRAMS_PER_TURN {
            // Looked up each time: what came in may have closed it, or put the next try's socket in its place.
            let Some(Some(socket)) = self.sockets.get_mut(exchange.index()) else { return };
            let Kind::Udp(udp) = &socket.kind else { return };
            if !socket.readable {
                return;
            }
            match udp.recv(&mut self.datagram) {
                Ok(bytes) => {
                    let message = self.datagram.get(..bytes).unwrap_or_default();
                    let ids = &mut self.ids;
                    self.resolver.on_message(exchange, message, now, &mut || ids.next_id());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.readable = false;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Refused: the ICMP message came back. The edge may hold more, but this socket is of no more use.
                Err(error) => self.fail(exchange, &error, now),
            }
            self.perform(registry, now);
        }
        if let Some(Some(socket)) = self.sockets.get_mut(exchange.index())
            && socket.readable
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.ready.push_back(exchange);
        }
    }
}

/// The number of a network interface, for `nameserver fe80::1%eth0`.
#[must_use]
pub fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// Whether the server or this machine is to blame.
fn fault_of(error: &io::Error) -> SocketFault {
    const LOCAL: [Errno; 6] =
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC, Errno::AGAIN];
    match Errno::from_io_error(error) {
        Some(errno) if LOCAL.contains(&errno) => SocketFault::Local(error.kind()),
        Some(_) | None => SocketFault::Server(error.kind()),
    }
}

#[derive(Debug)]
struct Socket {
    kind: Kind,
    readable: bool,
    writable: bool,
    /// It stands in `ready`.
    queued: bool,
}

#[derive(Debug)]
enum Kind {
    Udp(UdpSocket),
    Tcp(Box<TcpQuestion>),
}

/// One question over TCP: connect, send, read one answer (RFC 1035 4.2.2).
#[derive(Debug)]
struct TcpQuestion {
    stream: TcpStream,
    output: Vec<u8>,
    /// Bytes of the output that are out; `None` until connected.
    sent: Option<usize>,
    /// With the two bytes of length in front.
    input: Vec<u8>,
}

impl TcpQuestion {
    /// Goes on as far as the socket lets it; the answer when it is whole.
    fn advance(&mut self, readable: &mut bool, writable: &mut bool) -> io::Result<Option<Vec<u8>>> {
        while *writable && !self.is_sent() {
            match self.send() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => *writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while *readable {
            match self.receive() {
                Ok(true) => return Ok(Some(self.input.split_off(2))),
                Ok(false) => {}
                // Before the connection stands, a read says "not connected" on some kernels, or would block.
                Err(error) if error.kind() == ErrorKind::WouldBlock => *readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn is_sent(&self) -> bool {
        self.sent.is_some_and(|sent| sent >= self.output.len())
    }

    /// Connected means: writable, no pending error, and a peer.
    fn send(&mut self) -> io::Result<()> {
        let sent = match self.sent {
            Some(sent) => sent,
            None => {
                if let Some(error) = self.stream.take_error()? {
                    return Err(error);
                }
                match self.stream.peer_addr() {
                    Ok(_) => 0,
                    Err(error) if error.kind() == ErrorKind::NotConnected => {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.sent = Some(sent);
        let written = self.stream.write(self.output.get(sent..).unwrap_or_default())?;
        self.sent = Some(sent + written);
        Ok(())
    }

    /// True when the answer is whole.
    fn receive(&mut self) -> io::Result<bool> {
        let whole = match self.input.first_chunk::<2>() {
            Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
            None => 2,
        };
        if whole > 2 + TCP_ANSWER_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut chunk = [0; 2048];
        let missing = (whole - self.input.len()).min(chunk.len());
        let read = self.stream.read(chunk.get_mut(..missing).unwrap_or_default())?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.input.extend(chunk.get(..read).unwrap_or_default());
        let length = self.input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)));
        Ok(length.is_some_and(|length| self.input.len() >= 2 + length))
    }
}

/// Random query ids, a block at a time: one system call for many questions.
#[derive(Debug)]
struct RandomIds {
    block: [u8; 128],
    used: usize,
}

impl RandomIds {
    fn new() -> RandomIds {
        let block = [0; 128];
        RandomIds { used: block.len(), block }
    }

    fn next_id(&mut self) -> u16 {
        if self.used >= self.block.len() {
            self.fill();
        }
        let id = self.block.get(self.used..).and_then(|rest| rest.first_chunk::<2>());
        self.used += 2;
        id.map_or(0, |id| u16::from_be_bytes(*id))
    }

    fn fill(&mut self) {
        // Without NONBLOCK a router that has just started would stand still until the kernel has gathered entropy.
        let filled = getrandom(&mut self.block[..], GetRandomFlags::NONBLOCK);
        if filled != Ok(self.block.len()) {
            // The keys that std's hash maps use: no less hard to guess from outside.
            for chunk in self.block.chunks_mut(8) {
                let random = RandomState::new().hash_one(chunk.len()).to_be_bytes();
                chunk.copy_from_slice(random.get(..chunk.len()).unwrap_or_default());
            }
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::proto::dns::Qtype;
    use crate::proto::dns::script::{Rr, question, reply, truncated};
    use crate::proto::hosts::Hosts;
    use crate::proto::lookup::Families;
    use std::collections::HashMap;
    use std::net::{IpAddr, TcpListener, UdpSocket as StdUdpSocket};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    type Answer = fn(&[u8]) -> Vec<u8>;

    const FIRST_TOKEN: usize = 10;

    #[derive(Clone, Copy, PartialEq)]
    enum Over {
        Udp,
        Tcp,
    }

    /// A DNS server on 127.0.0.1, UDP and TCP, that answers as its script says; nothing is silence. Over TCP the
    /// script's bytes are sent as they are, one at a time, and then the connection is closed.
    struct Server {
        address: SocketAddr,
        questions: Arc<AtomicUsize>,
        stop: Arc<AtomicBool>,
        threads: Vec<JoinHandle<()>>,
    }

    impl Server {
        fn start(script: impl FnMut(&[u8], Over) -> Vec<u8> + Send + 'static) -> Server {
            let (udp, tcp) = (0..20).find_map(|_| Server::bind()).unwrap();
            let address = udp.local_addr().unwrap();
            let script = Arc::new(Mutex::new(script));
            let questions = Arc::new(AtomicUsize::new(0));
            let stop = Arc::new(AtomicBool::new(false));
            let (udp_script, udp_stop, udp_questions) = (script.clone(), stop.clone(), questions.clone());
            let udp_thread = std::thread::spawn(move || {
                let mut query = [0; 512];
                loop {
                    let (bytes, peer) = udp.recv_from(&mut query).unwrap();
                    if udp_stop.load(Ordering::SeqCst) {
                        return;
                    }
                    udp_questions.fetch_add(1, Ordering::SeqCst);
                    let answer = (udp_script.lock().unwrap())(&query[..bytes], Over::Udp);
                    if !answer.is_empty() {
                        udp.send_to(&answer, peer).unwrap();
                    }
                }
            });
            let tcp_stop = stop.clone();
            let tcp_thread = std::thread::spawn(move || {
                loop {
                    let (mut stream, _) = tcp.accept().unwrap();
                    if tcp_stop.load(Ordering::SeqCst) {
                        return;
                    }
                    stream.set_nodelay(true).unwrap();
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).unwrap();
                    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut query).unwrap();
                    let answer = (script.lock().unwrap())(&query, Over::Tcp);
                    // The client may have had enough before the end.
                    let _ = answer.iter().try_for_each(|byte| stream.write_all(&[*byte]));
                }
            });
            Server { address, questions, stop, threads: vec![udp_thread, tcp_thread] }
        }

        /// The same port twice, if the kernel's choice for one is free for the other.
        fn bind() -> Option<(StdUdpSocket, TcpListener)> {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            Some((StdUdpSocket::bind(tcp.local_addr().unwrap()).ok()?, tcp))
        }

        /// A and AAAA of every name.
        fn good(query: &[u8]) -> Vec<u8> {
            let (name, qtype) = question(query);
            let address = if qtype == Qtype::A { "192.0.2.1" } else { "2001:db8::1" };
            reply(query, 0, &[Rr::Address(&name, address)])
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::SeqCst);
            StdUdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"stop", self.address).unwrap();
            drop(std::net::TcpStream::connect(self.address));
            for thread in self.threads.drain(..) {
                let ended = thread.join();
                assert!(ended.is_ok() || std::thread::panicking());
            }
        }
    }

    fn with_length(message: &[u8]) -> Vec<u8> {
        [&(message.len() as u16).to_be_bytes(), message].concat()
    }

    /// An event loop with nothing but names in it.
    struct Loop {
        poll: mio::Poll,
        names: Names,
        config: NamesConfig,
        start: Instant,
        /// Parts of answers that are not whole yet.
        parts: HashMap<usize, Vec<IpAddr>>,
    }

    impl Loop {
        /// Waits long for a server: this machine may be busy.
        fn new(nameservers: &[SocketAddr]) -> Loop {
            Loop::with_timeout(nameservers, 10_000)
        }

        /// For servers that do not answer.
        fn hasty(nameservers: &[SocketAddr]) -> Loop {
            Loop::with_timeout(nameservers, 500)
        }

        fn with_timeout(nameservers: &[SocketAddr], timeout_ms: u64) -> Loop {
            let config = NamesConfig {
                nameservers: nameservers.to_vec(),
                search: Vec::new(),
                ndots: 1,
                timeout_ms,
                attempts: 2,
                rotate: false,
                resolve_timeout_ms: 60_000,
                families: Families::Any,
                cache_bytes: 64 * 1024,
                hosts: Arc::new(Hosts::parse(b"10.0.0.9 nas\n").0),
            };
            let names = Names::new(config.clone(), FIRST_TOKEN);
            Loop {
                poll: mio::Poll::new().unwrap(),
                names,
                config,
                start: Instant::now(),
                parts: HashMap::new(),
            }
        }

        fn now(&self) -> Tick {
            Tick(self.start.elapsed().as_millis() as u64)
        }

        fn ask(&mut self, name: &str, who: usize) -> Asked {
            self.names.ask(name, who, self.poll.registry(), self.now())
        }

        fn ask_pending(&mut self, name: &str, who: usize) {
            assert_eq!(self.ask(name, who), Asked::Pending);
        }

        fn turn(&mut self) {
            let deadline = self.names.next_deadline().expect("nothing to wait for");
            let sleep = if self.names.has_work() { 0 } else { deadline.since(self.now()) };
            let mut events = mio::Events::with_capacity(16);
            self.poll.poll(&mut events, Some(Duration::from_millis(sleep))).unwrap();
            for event in &events {
                self.names.on_event(event.token().0, event);
            }
            self.names.run(self.poll.registry(), self.now());
            assert!(self.start.elapsed() < Duration::from_secs(20));
        }

        /// The next answer that is whole.
        fn result(&mut self) -> (usize, Result<Vec<IpAddr>, ResolveError>) {
            loop {
                match self.names.pop_answer() {
                    Some((who, Ok(part))) => {
                        self.parts.entry(who).or_default().extend(part.addresses);
                        if part.last {
                            return (who, Ok(self.parts.remove(&who).unwrap()));
                        }
                    }
                    Some((who, Err(error))) => return (who, Err(error)),
                    None => self.turn(),
                }
            }
        }

        fn nothing_is_left(mut self) {
            self.names.run(self.poll.registry(), self.now());
            assert!(self.names.sockets.iter().all(Option::is_none));
            assert!(!self.names.has_work());
            assert_eq!(self.names.next_deadline(), None);
            assert_eq!(self.names.pop_answer(), None);
        }
    }

    fn good() -> Result<Vec<IpAddr>, ResolveError> {
        Ok(vec!["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()])
    }

    #[test]
    fn answers_over_udp() {
        let server = Server::start(|query, _| Server::good(query));
        let mut turns = Loop::new(&[server.address]);
        turns.ask_pending("a.test", 1);
        turns.ask_pending("A.test", 2);
        turns.ask_pending("b.test", 3);
        let mut answers = vec![turns.result(), turns.result(), turns.result()];
        answers.sort_by_key(|(who, _)| *who);
        assert_eq!(answers, [(1, good()), (2, good()), (3, good())]);
        assert_eq!(server.questions.load(Ordering::SeqCst), 4);
        turns.nothing_is_left();
    }

    #[test]
    fn known_names_open_nothing() {
        let mut turns = Loop::new(&[]);
        assert_eq!(turns.ask("nas", 1), Asked::Known(Ok(vec!["10.0.0.9".parse().unwrap()])));
        assert_eq!(turns.ask("a.test", 1), Asked::Known(Err(ResolveError::NoServers)));
        assert!(turns.names.sockets.is_empty());
        turns.nothing_is_left();
    }

    #[test]
    fn truncated_answers_come_over_tcp() {
        let server = Server::start(|query, over| match over {
            Over::Udp => truncated(reply(query, 0, &[])),
            Over::Tcp => with_length(&Server::good(query)),
        });
        let mut turns = Loop::new(&[server.address]);
        turns.ask_pending("a.test", 1);
        assert_eq!(turns.result(), (1, good()));
        turns.nothing_is_left();
    }

    #[test]
    fn bad_tcp_answers_are_refused() {
        let answers: [(Answer, _); 4] = [
            (|_| (16_385_u16).to_be_bytes().to_vec(), ResolveError::Io(ErrorKind::InvalidData)),
            (|_| vec![0], ResolveError::Io(ErrorKind::UnexpectedEof)),
            (|query| with_length(query)[..20].to_vec(), ResolveError::Io(ErrorKind::UnexpectedEof)),
            (|_| vec![0, 0], ResolveError::Broken),
        ];
        for (answer, error) in answers {
            let server = Server::start(move |query, over| match over {
                Over::Udp => truncated(reply(query, 0, &[])),
                Over::Tcp => answer(query),
            });
            let mut turns = Loop::new(&[server.address]);
            turns.ask_pending("a.test", 1);
            assert_eq!(turns.result(), (1, Err(error)));
            turns.nothing_is_left();
        }
    }

    #[test]
    fn refused_port_costs_no_time() {
        let server = Server::start(|query, _| Server::good(query));
        let closed = StdUdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut turns = Loop::new(&[closed, server.address]);
        turns.ask_pending("a.test", 1);
        assert_eq!(turns.result(), (1, good()));
        assert!(turns.now() < Tick(5_000));
        turns.nothing_is_left();
    }

    #[test]
    fn silence_is_waited_out_on_the_next_server() {
        let silent = Server::start(|_, _| Vec::new());
        let server = Server::start(|query, _| Server::good(query));
        let mut turns = Loop::hasty(&[silent.address, server.address]);
        turns.ask_pending("a.test", 1);
        assert_eq!(turns.result(), (1, good()));
        assert!(turns.now() >= Tick(500));
        // The one that works is asked first now.
        turns.ask_pending("b.test", 1);
        assert_eq!(turns.result(), (1, good()));
        assert_eq!(silent.questions.load(Ordering::SeqCst), 2);
        turns.nothing_is_left();

        let mut turns = Loop::hasty(&[silent.address]);
        turns.ask_pending("a.test", 1);
        let servers: Arc<[SocketAddr]> = Arc::new([silent.address]);
        assert_eq!(turns.result(), (1, Err(ResolveError::Timeout { servers })));
        assert_eq!(silent.questions.load(Ordering::SeqCst), 6);
        turns.nothing_is_left();
    }

    #[test]
    fn noise_before_the_answer_changes_nothing() {
        // The first datagrams are wrong in a way of their own; the right one comes with the second try.
        let mut count = 0;
        let server = Server::start(move |query, _| {
            count += 1;
            let mut answer = Server::good(query);
            match count {
                1 => answer[0] ^= 0x55,
                2 => answer = vec![1, 2, 3],
                _ => {}
            }
            answer
        });
        let mut turns = Loop::hasty(&[server.address]);
        turns.ask_pending("a.test", 1);
        assert_eq!(turns.result(), (1, good()));
        turns.nothing_is_left();
    }

    #[test]
    fn right_answer_from_a_wrong_place_is_not_heard() {
        // The server waits until a forger, who knows everything but cannot speak from its address, has had his turn.
        let (asked, questions) = std::sync::mpsc::channel();
        let (go, gate) = std::sync::mpsc::channel();
        let server = Server::start(move |query, _| {
            asked.send(query.to_vec()).unwrap();
            gate.recv().unwrap();
            Server::good(query)
        });
        let mut turns = Loop::new(&[server.address]);
        turns.ask_pending("a.test", 1);
        let Some(Some(Socket { kind: Kind::Udp(udp), .. })) = turns.names.sockets.first() else { panic!() };
        let asker = udp.local_addr().unwrap();
        let forger = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..2 {
            let query = questions.recv().unwrap();
            let (name, qtype) = question(&query);
            let address = if qtype == Qtype::A { "192.0.2.66" } else { "2001:db8::66" };
            forger.send_to(&reply(&query, 0, &[Rr::Address(&name, address)]), asker).unwrap();
            go.send(()).unwrap();
        }
        assert_eq!(turns.result(), (1, good()));
        turns.nothing_is_left();
    }

    #[test]
    fn known_names_are_not_asked_again_until_they_are_forgotten() {
        let server = Server::start(|query, _| Server::good(query));
        let mut turns = Loop::new(&[server.address]);
        turns.ask_pending("a.test", 1);
        assert_eq!(turns.result(), (1, good()));
        assert_eq!(turns.ask("A.test.", 1), Asked::Known(good()));
        assert_eq!(server.questions.load(Ordering::SeqCst), 2);
        turns.names.flush();
        turns.ask_pending("a.test", 1);
        assert_eq!(turns.result(), (1, good()));
        assert_eq!(server.questions.load(Ordering::SeqCst), 4);
        turns.nothing_is_left();
    }

    #[test]
    fn one_family_is_told_while_the_other_is_asked() {
        let server = Server::start(|query, _| match question(query).1 {
            Qtype::A => Server::good(query),
            Qtype::Aaaa => Vec::new(),
        });
        let mut turns = Loop::new(&[server.address]);
        turns.ask_pending("a.test", 1);
        let part = loop {
            match turns.names.pop_answer() {
                Some((1, part)) => break part,
                Some(_) | None => turns.turn(),
            }
        };
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        assert_eq!(part, Ok(Part { addresses, last: false, found_as: None }));
        turns.names.cancel(1);
        // The question that runs is finished for the cache.
        assert_eq!(turns.names.sockets.iter().flatten().count(), 1);
    }

    #[test]
    fn new_servers_are_asked_from_then_on() {
        let (old, new) =
            (Server::start(|query, _| Server::good(query)), Server::start(|query, _| Server::good(query)));
        let mut turns = Loop::new(&[old.address]);
        turns.ask_pending("a.test", 1);
        turns.names.reconfigure(NamesConfig { nameservers: vec![new.address], ..turns.config.clone() });
        turns.ask_pending("b.test", 2);
        turns.ask_pending("a.test", 3);
        let mut answers = vec![turns.result(), turns.result(), turns.result()];
        answers.sort_by_key(|(who, _)| *who);
        assert_eq!(answers, [(1, good()), (2, good()), (3, good())]);
        let questions = |server: &Server| server.questions.load(Ordering::SeqCst);
        assert_eq!((questions(&old), questions(&new)), (2, 4));
        turns.nothing_is_left();
    }

    #[test]
    fn flood_from_the_server_does_not_hold_the_loop() {
        let server = Server::start(|_, _| Vec::new());
        let mut turns = Loop::new(&[server.address]);
        turns.ask_pending("a.test", 1);
        // Fill the socket's queue from the server's own address, as a forger would.
        let Some(Some(Socket { kind: Kind::Udp(udp), .. })) = turns.names.sockets.first() else { panic!() };
        let asker = udp.local_addr().unwrap();
        let forger =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))
                .unwrap();
        drop(server);
        forger.set_reuse_address(true).unwrap();
        let Some(Some(Socket { kind: Kind::Udp(udp), .. })) = turns.names.sockets.first() else { panic!() };
        forger.bind(&udp.peer_addr().unwrap().into()).unwrap();
        for _ in 0..3 * DATAGRAMS_PER_TURN {
            forger.send_to(b"noise", &asker.into()).unwrap();
        }
        turns.turn();
        assert!(turns.names.has_work(), "it goes on without a new edge");
        turns.names.cancel(1);
        turns.nothing_is_left();
    }

    #[test]
    fn leaving_closes_the_sockets() {
        let server = Server::start(|_, _| Vec::new());
        let mut turns = Loop::new(&[server.address]);
        turns.ask_pending("a.test", 1);
        turns.ask_pending("a.test", 2);
        turns.names.cancel(1);
        assert!(!turns.names.has_work());
        turns.names.cancel(2);
        assert!(turns.names.has_work());
        turns.nothing_is_left();
    }

    #[test]
    fn whose_fault_an_error_is() {
        let fault = |errno: Errno| fault_of(&io::Error::from(errno));
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(matches!(fault(errno), SocketFault::Local(_)), "{errno:?}");
        }
        for errno in [Errno::CONNREFUSED, Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::PERM] {
            assert!(matches!(fault(errno), SocketFault::Server(_)), "{errno:?}");
        }
        assert!(matches!(fault_of(&ErrorKind::UnexpectedEof.into()), SocketFault::Server(_)));
    }

    #[test]
    fn ids_differ() {
        let mut ids = RandomIds::new();
        let distinct: std::collections::HashSet<u16> = (0..1_000).map(|_| ids.next_id()).collect();
        assert!(distinct.len() > 900);
    }

    #[test]
    fn interfaces_have_numbers() {
        assert!(interface_index("lo").is_some());
        for bad in ["", "nosuch0", "../lo", ".", ".."] {
            assert_eq!(interface_index(bad), None, "{bad:?}");
        }
    }
}
