//! The end-to-end harness: the real binary, origins, a scripted DNS server and a raw client. Everything is a thread on a
//! port of the kernel's choosing, waits for events under one deadline, and ends when it is dropped.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod client;
pub mod dns_server;
pub mod http_origin;
pub mod namespace;
pub mod origin;
pub mod proxy;
pub mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::Client;
use origin::Origin;
use proxy::Proxy;
use wire::Wire;

/// How long anything that must happen may take before the test fails. Generous: it is reached only by failures.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for a fact that announces itself by no event (such as a number under `/proc`), looking again every few milliseconds.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The way from a client to an origin: scenarios that make sense without the proxy take both, so that the harness is proved too.
pub enum Road {
    /// Straight to the origin.
    Direct,
    /// By CONNECT through this proxy.
    Through(Proxy),
}

impl Road {
    /// Through a fresh proxy that may reach loopback.
    pub fn through(options: &[&str]) -> Road {
        Road::Through(Proxy::open(options))
    }

    /// A connection on which the next bytes are the origin's.
    #[track_caller]
    pub fn open(&self, origin: SocketAddr) -> Client {
        match self {
            Road::Direct => Client::dial(origin),
            Road::Through(proxy) => proxy.tunnel(&origin.to_string()),
        }
    }

    /// A connection for plain HTTP with whoever is first on this road.
    #[track_caller]
    pub fn http(&self, origin: SocketAddr) -> Wire {
        match self {
            Road::Direct => Wire::dial(origin),
            Road::Through(proxy) => Wire::dial(proxy.addr),
        }
    }

    /// What stands in a request line for a path of this origin: origin form, or absolute form for the proxy.
    pub fn target(&self, origin: SocketAddr, path: &str) -> String {
        match self {
            Road::Direct => path.to_string(),
            Road::Through(_) => http_origin::url(origin, path),
        }
    }
}

/// A tunnel beside what a test looks at: it tells when the proxy's only loop has done what it had to do.
pub struct Beside {
    client: Client,
    _origin: Origin,
}

impl Beside {
    /// Through this proxy, which must have one loop.
    #[track_caller]
    pub fn of(proxy: &Proxy) -> Beside {
        Beside::with(proxy, "")
    }

    /// The same with these fields in its request, each with its CRLF.
    #[track_caller]
    pub fn with(proxy: &Proxy, fields: &str) -> Beside {
        let origin = Origin::echo();
        Beside { client: proxy.tunnel_with(&origin.addr.to_string(), fields), _origin: origin }
    }

    /// When this returns, the loop has turned several times: everything that was sent to it before is served, also what
    /// takes a connection to another peer. So what did not arrive by now was not sent.
    #[track_caller]
    pub fn turns(&mut self) {
        for _ in 0..5 {
            // Each takes two turns.
            self.client.echo(b".");
        }
    }
}

/// Two tests from one scenario `fn(&Road)`: `<name>::direct` and `<name>::through_proxy`.
#[macro_export]
macro_rules! both_roads {
    ($($name:ident),+ $(,)?) => {
        mod both_roads {
            $(mod $name {
                #[test]
                fn direct() {
                    super::super::$name(&$crate::support::Road::Direct);
                }
                #[test]
                fn through_proxy() {
                    super::super::$name(&$crate::support::Road::through(&[]));
                }
            })+
        }
    };
}

/// A stream of bytes that never repeats within a test: same seed, same bytes, so that lost, doubled or swapped parts change the hash.
pub struct Pattern(u64);

impl Pattern {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Pattern {
        Pattern(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next `buf.len()` bytes (drawn eight at a time).
    pub fn fill(&mut self, buf: &mut [u8]) {
        for part in buf.chunks_mut(8) {
            // xorshift64: good enough to be unlike any other position.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            part.copy_from_slice(&self.0.to_le_bytes()[..part.len()]);
        }
    }
}

/// SHA-256 of what passed and how much it was.
#[derive(Clone)]
pub struct Tally {
    hash: ring::digest::Context,
    /// Bytes so far.
    pub bytes: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally { hash: ring::digest::Context::new(&ring::digest::SHA256), bytes: 0 }
    }

    /// These bytes passed.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The digest so far.
    pub fn sha256(&self) -> Vec<u8> {
        self.hash.clone().finish().as_ref().to_vec()
    }
}

/// A file that is gone when the test is over.
pub struct TempFile {
    /// Where it is, as an option takes it.
    pub path: String,
}

impl TempFile {
    /// With this content, under a name that no other test has.
    pub fn with(content: &str) -> TempFile {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = format!("{}/adit-{unique}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&path, content).unwrap();
        TempFile { path }
    }

    /// What it holds now.
    pub fn read(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // A test that removed it itself is fine.
        drop(std::fs::remove_file(&self.path));
    }
}

/// A directory that is gone when the test is over, with all that is in it.
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// An empty one, under a name that no other test has.
    pub fn new() -> TempDir {
        let place = TempFile::with("");
        let path = PathBuf::from(format!("{}.d", place.path));
        std::fs::create_dir(&path).unwrap();
        TempDir { path }
    }

    /// A path in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A path in it, as an option takes it.
    pub fn option(&self, name: &str) -> String {
        self.at(name).into_os_string().into_string().unwrap()
    }

    /// Writes a file in place.
    #[track_caller]
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.at(name), text).unwrap();
    }

    /// As programs replace a file: written beside it, then renamed over it.
    #[track_caller]
    pub fn replace(&self, name: &str, text: impl AsRef<[u8]>) {
        self.write("beside", text);
        std::fs::rename(self.at("beside"), self.at(name)).unwrap();
    }

    /// Makes or moves a symlink, in one step.
    #[track_caller]
    pub fn link(&self, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.at("beside")).unwrap();
        std::fs::rename(self.at("beside"), self.at(name)).unwrap();
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// How a connection ended, as the socket told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// End of file: a FIN.
    Eof,
    /// `ECONNRESET`: a RST.
    Reset,
    /// The test was over before the connection was, or nothing came within the deadline.
    Silence,
}
