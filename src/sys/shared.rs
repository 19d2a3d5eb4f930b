//! The little that loops share with each other and with the main thread: the count of sessions, what the process is about,
//! and a mailbox for each loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use mio::Waker;
use mio::net::TcpListener;

use super::access_log::AccessLog;
use super::names::NamesConfig;
use crate::config::Sources;
use crate::proto::logins::{Tag, Verdict};
use crate::proto::plea::Plea;
use crate::proto::session::Policy;
use crate::proto::users::Users;

/// What all loops share. Touched when a connection comes or goes, and when a signal came.
#[derive(Debug)]
pub struct Shared {
    /// Sessions over all loops, at most.
    pub sessions_max: usize,
    sessions: AtomicUsize,
    clients: Option<Clients>,
    phase: AtomicU8,
    /// Of all loops.
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
}

/// Sessions of each client, while there is a limit for them.
#[derive(Debug)]
struct Clients {
    most: usize,
    /// By address, in their order: the hosts of a whole network may be one /64. Even thousands are moved in microseconds, and a
    /// map would be ten times the code.
    counts: Mutex<Vec<(u128, usize)>>,
}

/// Whether a connection may become a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is counted.
    Granted,
    /// There are as many as may be.
    Full,
    /// This client has as many as it may have.
    ClientFull,
}

/// What the process is about. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serving.
    Running,
    /// Taking no new connections; what runs goes on until the grace is over.
    Draining,
    /// Ending now.
    Quitting,
}

impl Shared {
    /// Of a proxy that has no session yet.
    #[must_use]
    pub fn new(sessions_max: usize, sessions_per_client_max: Option<usize>) -> Shared {
        Shared {
            sessions_max,
            sessions: AtomicUsize::new(0),
            clients: sessions_per_client_max.map(|most| Clients { most, counts: Mutex::default() }),
            phase: AtomicU8::new(Phase::Running as u8),
            mailboxes: Mutex::default(),
        }
    }

    /// One more loop, which others can tell something.
    pub fn enlist(&self, mailbox: Arc<Mailbox>) {
        self.lock_mailboxes().push(mailbox);
    }

    /// One loop less: it is asked nothing more.
    pub fn dismiss(&self, mailbox: &Arc<Mailbox>) {
        self.lock_mailboxes().retain(|other| !Arc::ptr_eq(other, mailbox));
    }

    /// Asks all loops but the `asker` to give way, if there are others.
    pub fn ask_others(&self, asker: &Arc<Mailbox>, short: Short, wanted: usize) -> Option<Arc<Plea>> {
        let mailboxes = self.lock_mailboxes();
        let others = || mailboxes.iter().filter(|mailbox| !Arc::ptr_eq(mailbox, asker));
        others().next()?;
        let plea = Arc::new(Plea::new(wanted, others().count()));
        for mailbox in others() {
            let (plea, asker) = (Arc::clone(&plea), Arc::clone(asker));
            if let Err(error) = mailbox.send(Message::GiveWay(GiveWay { short, plea, asker })) {
                log::warn!("cannot wake an event loop: {error}");
            }
        }
        Some(plea)
    }

    fn lock_mailboxes(&self) -> MutexGuard<'_, Vec<Arc<Mailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first call asks all loops to drain, the second to quit. Wake them afterwards.
    pub fn terminate(&self) {
        let next = match self.phase() {
            Phase::Running => Phase::Draining,
            Phase::Draining | Phase::Quitting => Phase::Quitting,
        };
        self.phase.store(next as u8, Ordering::Release);
    }

    /// What the process is about.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            2.. => Phase::Quitting,
        }
    }

    /// Whether there is a place for a session more.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.sessions.load(Ordering::Relaxed) < self.sessions_max
    }

    /// Whether the client may have so many sessions more, as far as its own limit goes.
    #[must_use]
    pub fn client_may_have(&self, client: IpAddr, more: usize) -> bool {
        self.clients.as_ref().is_none_or(|clients| clients.count(client) + more <= clients.most)
    }

    /// Whether a session more is within the limits; it is counted if so.
    #[must_use]
    pub fn admit(&self, client: IpAddr) -> Admission {
        // Never counted beyond the limit, not even for a moment: another loop would find a free place taken.
        let one_more = |sessions| (sessions < self.sessions_max).then_some(sessions + 1);
        let take_place =
            || self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        match &self.clients {
            Some(clients) => clients.admit(client, take_place),
            None if take_place() => Admission::Granted,
            None => Admission::Full,
        }
    }

    /// A session that was admitted is over.
    pub fn leave(&self, client: IpAddr) {
        // In this order: who finds no place is held for a while, who is over its own limit is refused.
        if let Some(clients) = &self.clients {
            clients.leave(client);
        }
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clients {
    fn count(&self, client: IpAddr) -> usize {
        let counts = self.lock();
        counts.binary_search_by_key(&bits(client), |count| count.0).map_or(0, |at| counts[at].1)
    }

    fn admit(&self, client: IpAddr, take_place: impl FnOnce() -> bool) -> Admission {
        let mut counts = self.lock();
        let found = counts.binary_search_by_key(&bits(client), |count| count.0);
        if found.is_ok_and(|at| counts[at].1 == self.most) {
            return Admission::ClientFull;
        }
        // Under the lock, so that nobody finds a session counted that is not granted.
        if !take_place() {
            return Admission::Full;
        }
        match found {
            Ok(at) => counts[at].1 += 1,
            Err(at) => counts.insert(at, (bits(client), 1)),
        }
        Admission::Granted
    }

    fn leave(&self, client: IpAddr) {
        let mut counts = self.lock();
        if let Ok(at) = counts.binary_search_by_key(&bits(client), |count| count.0) {
            counts[at].1 -= 1;
            if counts[at].1 == 0 {
                counts.remove(at);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u128, usize)>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// IPv4 as it stands in IPv6.
fn bits(client: IpAddr) -> u128 {
    match client {
        IpAddr::V4(client) => client.to_ipv6_mapped().to_bits(),
        IpAddr::V6(client) => client.to_bits(),
    }
}

/// What one loop goes by from now on.
#[derive(Debug)]
pub struct LoopSettings {
    /// What sessions are judged by.
    pub policy: Arc<Policy>,
    /// Its share of `--buffer-memory`, of which a users file takes a part.
    pub buffer_bytes: u64,
    /// Source addresses of outgoing connections.
    pub sources: Sources,
    /// How names are resolved, if that is new. What is remembered of them is forgotten all the same.
    pub names: Option<NamesConfig>,
    /// Its end of the access log, if that is another one.
    pub access_log: Option<AccessLog>,
    /// Listen on these too.
    pub open: Vec<TcpListener>,
    /// Listen on these no more, once their queues are served.
    pub close: Vec<SocketAddr>,
}

/// Starts a thread. In one place and by a pointer: the code to start one is not small.
///
/// # Errors
/// When the system has none.
pub fn spawn(name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(body)
}

/// What a loop runs out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// Places under `--max-sessions`.
    Sessions,
    /// Descriptors, of the process or of the system.
    Descriptors,
}

/// What one loop asks of another: those who may be served faster are to give way to who is to be served there.
#[derive(Debug)]
pub struct GiveWay {
    /// What it is short of.
    pub short: Short,
    /// How much of it.
    pub plea: Arc<Plea>,
    asker: Arc<Mailbox>,
}

impl GiveWay {
    /// The loop has given what it could.
    pub fn answer(&self) {
        self.plea.answer();
        self.wake_asker();
    }

    /// Something was given.
    pub fn wake_asker(&self) {
        if let Err(error) = self.asker.wake() {
            log::warn!("cannot wake an event loop: {error}");
        }
    }
}

/// What the main thread, or another loop, tells one loop.
#[derive(Debug)]
pub enum Message {
    /// An address that is there by now: listen on it.
    Listen(TcpListener),
    /// Open the access log's file anew.
    ReopenLog,
    /// How names are resolved from now on; what is remembered of them is forgotten.
    Names(Box<NamesConfig>),
    /// What became of credentials that this loop has asked about.
    Login {
        /// Of the credentials.
        tag: Tag,
        /// What they were verified with.
        users: Arc<Users>,
        /// What came of it.
        judged: Judged,
    },
    /// Another loop has run out of something.
    GiveWay(GiveWay),
    /// Everything that can change while the proxy runs. Tunnels and requests under way go on.
    Settings(Box<LoopSettings>),
}

/// What becomes of credentials.
#[derive(Clone, Debug)]
pub enum Judged {
    /// Whose they are.
    Verdict(Verdict),
    /// Others had more right to the place.
    PushedOut,
}

/// Where the main thread leaves messages for one loop, and what wakes it.
#[derive(Debug)]
pub struct Mailbox {
    messages: Mutex<Vec<Message>>,
    waker: Waker,
}

impl Mailbox {
    /// An empty one for the loop that `waker` wakes.
    #[must_use]
    pub fn new(waker: Waker) -> Mailbox {
        Mailbox { messages: Mutex::new(Vec::new()), waker }
    }

    /// Leaves a message and wakes the loop.
    ///
    /// # Errors
    /// When the loop cannot be woken.
    pub fn send(&self, message: Message) -> io::Result<()> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.wake()
    }

    /// Wakes the loop, so that it looks at [`Shared::phase`].
    ///
    /// # Errors
    /// When the system fails to.
    pub fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }

    /// Takes the messages out, in the order they were left.
    #[must_use]
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
