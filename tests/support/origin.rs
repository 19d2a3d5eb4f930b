//! Origins: servers of one behaviour each, one thread a connection. What a connection saw is reported when it ends.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::client::{Client, drain};
use super::{DEADLINE, Ending, Pattern, Tally};

/// What one connection of an origin saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Bytes received.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Vec<u8>,
    /// How the receiving direction ended.
    pub ending: Ending,
}

/// A server on a port of the kernel's choosing; it stops accepting when dropped.
pub struct Origin {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Mutex<mpsc::Receiver<Seen>>,
    accepted: Mutex<mpsc::Receiver<SocketAddr>>,
    over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Serves every connection with `serve`, on 127.0.0.1.
    pub fn start(serve: impl Fn(TcpStream) -> Seen + Send + Sync + 'static) -> Origin {
        Origin::start_on("127.0.0.1:0", serve)
    }

    /// The same on another address.
    pub fn start_on(addr: &str, serve: impl Fn(TcpStream) -> Seen + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (seen_tx, seen) = mpsc::channel();
        let (accepted_tx, accepted) = mpsc::channel();
        let (serve, stop) = (Arc::new(serve), over.clone());
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let stream = Client::from(stream.unwrap()).stream;
                // Nobody may be left to listen: a test that is over does not care.
                let _ = accepted_tx.send(stream.peer_addr().unwrap_or(addr));
                let (serve, seen_tx) = (serve.clone(), seen_tx.clone());
                std::thread::spawn(move || drop(seen_tx.send(serve(stream))));
            }
        });
        Origin { addr, seen: seen.into(), accepted: accepted.into(), over, acceptor: Some(acceptor) }
    }

    /// Sends back what it gets; half-closes after the client did.
    pub fn echo() -> Origin {
        Origin::echo_on("127.0.0.1:0")
    }

    /// The same on another address. On `0.0.0.0` it is reached by all of 127/8, which the access line tells apart.
    pub fn echo_on(addr: &str) -> Origin {
        Origin::start_on(addr, |mut stream| {
            let mut out = stream.try_clone().unwrap();
            let seen = receive(&mut stream, |part| drop(out.write_all(part)));
            drop(out.shutdown(Shutdown::Write));
            seen
        })
    }

    /// Sends `bytes` of the pattern of `seed`, half-closes, then waits for the client's end.
    pub fn source(seed: u64, bytes: u64) -> Origin {
        Origin::start(move |mut stream| {
            send_pattern(&mut stream, seed, bytes);
            drop(stream.shutdown(Shutdown::Write));
            receive(&mut stream, |_| {})
        })
    }

    /// Reads nothing as long as the connection is there.
    pub fn deaf() -> Origin {
        Origin::start(|mut stream| {
            // A reset is an error that can be asked for without reading.
            while stream.take_error().is_ok_and(|error| error.is_none()) {
                std::thread::sleep(Duration::from_millis(20));
            }
            receive(&mut stream, |_| {})
        })
    }

    /// Sends for ever, as far as it is let.
    pub fn endless() -> Origin {
        Origin::source(1, 1 << 50)
    }

    /// Takes everything and answers nothing: sink and never-answering server alike.
    pub fn sink() -> Origin {
        Origin::start(|mut stream| receive(&mut stream, |_| {}))
    }

    /// Speaks first, as SSH, SMTP and MySQL do, then echoes.
    pub fn greeter(greeting: &'static str) -> Origin {
        Origin::start(move |mut stream| {
            stream.write_all(greeting.as_bytes()).unwrap();
            let mut out = stream.try_clone().unwrap();
            receive(&mut stream, |part| drop(out.write_all(part)))
        })
    }

    /// Reads to the end of file, only then answers with `answer`, then closes.
    pub fn half_closer(answer: &'static str) -> Origin {
        Origin::start(move |mut stream| {
            let seen = receive(&mut stream, |_| {});
            drop(stream.write_all(answer.as_bytes()));
            seen
        })
    }

    /// Sends `last` and half-closes at once, then takes everything until the client's end.
    pub fn early_finisher(last: &'static str) -> Origin {
        Origin::start(move |mut stream| {
            stream.write_all(last.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            receive(&mut stream, |_| {})
        })
    }

    /// Waits for one byte, then leaves with a RST.
    pub fn resetter() -> Origin {
        Origin::start(|stream| {
            let mut client = Client::from(stream);
            let first = client.read_n(1);
            client.reset();
            let mut tally = Tally::new();
            tally.add(&first);
            Seen { bytes: tally.bytes, sha256: tally.sha256(), ending: Ending::Silence }
        })
    }

    /// Closes as soon as it has accepted.
    pub fn closer() -> Origin {
        Origin::start(|stream| {
            drop(stream);
            Seen { bytes: 0, sha256: Tally::new().sha256(), ending: Ending::Silence }
        })
    }

    /// Sends the pattern of `seed` and receives at the same time, `bytes` each way.
    pub fn both_ways(seed: u64, bytes: u64) -> Origin {
        Origin::start(move |mut stream| {
            let mut out = stream.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                send_pattern(&mut out, seed, bytes);
                drop(out.shutdown(Shutdown::Write));
            });
            let seen = receive(&mut stream, |_| {});
            sender.join().unwrap();
            seen
        })
    }

    /// What the next connection to end saw.
    #[track_caller]
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().recv_timeout(DEADLINE).expect("a connection ends")
    }

    /// Waits until a connection is accepted; the address it came from.
    #[track_caller]
    pub fn accepted(&self) -> SocketAddr {
        self.accepted.lock().unwrap().recv_timeout(DEADLINE).expect("a connection is accepted")
    }

    /// Connections accepted since the last question.
    pub fn accepted_so_far(&self) -> usize {
        self.accepted.lock().unwrap().try_iter().count()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // The acceptor sits in accept(): a connection of our own wakes it.
        drop(TcpStream::connect(self.addr));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

/// Sends the first `bytes` of the pattern; the SHA-256 of what was sent. Stops when the peer is gone.
pub fn send_pattern(stream: &mut TcpStream, seed: u64, bytes: u64) -> Vec<u8> {
    let (mut pattern, mut tally) = (Pattern::new(seed), Tally::new());
    let mut buf = vec![0; 64 * 1024];
    while tally.bytes < bytes {
        let n = buf.len().min(usize::try_from(bytes - tally.bytes).unwrap());
        pattern.fill(&mut buf[..n]);
        if stream.write_all(&buf[..n]).is_err() {
            break;
        }
        tally.add(&buf[..n]);
    }
    tally.sha256()
}

/// Receives until the end.
pub fn receive(stream: &mut TcpStream, mut part: impl FnMut(&[u8])) -> Seen {
    let mut tally = Tally::new();
    let ending = drain(stream, |bytes| {
        tally.add(bytes);
        part(bytes);
    });
    Seen { bytes: tally.bytes, sha256: tally.sha256(), ending }
}

/// An address that answers a SYN with nothing: a listener whose accept queue is full drops it
/// (`kernel_facts::connect_pending_has_no_peer`). Lives as long as this value.
pub struct BlackHole {
    /// Where nothing answers.
    pub addr: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl BlackHole {
    /// Fills a queue of length one.
    pub fn open() -> BlackHole {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let local = listener.local_addr().unwrap();
        // A backlog of 0 holds one connection. The second and third stay in SYN_SENT: they only prove that it is full.
        let mut queued = Vec::new();
        for _ in 0..3 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            drop(socket.connect(&local));
            queued.push(socket);
        }
        BlackHole { addr: local.as_socket().unwrap(), _listener: listener, _queued: queued }
    }
}

/// An address that refuses: bound, so that nobody else gets the port, and not listening, so that a SYN is answered with a RST.
pub struct Refusing {
    /// Where nobody listens.
    pub addr: SocketAddr,
    _socket: Socket,
}

impl Refusing {
    /// A port of the kernel's choosing.
    pub fn open() -> Refusing {
        Refusing::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// This very address.
    pub fn at(addr: SocketAddr) -> Refusing {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        socket.bind(&addr.into()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        Refusing { addr, _socket: socket }
    }
}
