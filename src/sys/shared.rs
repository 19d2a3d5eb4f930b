//! The little that loops share with each other and with the main thread: the count of sessions, what the process is about,
//! and a mailbox for each loop.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;
use mio::net::TcpListener;

use super::access_log::AccessLog;
use super::names::NamesConfig;
use crate::config::Sources;
use crate::proto::session::Policy;

/// What all loops share. Touched when a connection comes or goes, and when a signal came.
#[derive(Debug)]
pub struct Shared {
    /// Sessions over all loops, at most.
    pub sessions_max: usize,
    sessions: AtomicUsize,
    phase: AtomicU8,
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
    pub fn new(sessions_max: usize) -> Shared {
        Shared { sessions_max, sessions: AtomicUsize::new(0), phase: AtomicU8::new(Phase::Running as u8) }
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

    /// Whether a session more is within the limit; it is counted if so.
    #[must_use]
    pub fn admit(&self) -> bool {
        let admitted = self.sessions.fetch_add(1, Ordering::Relaxed) < self.sessions_max;
        if !admitted {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
        }
        admitted
    }

    /// A session that was admitted is over.
    pub fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one loop goes by from now on.
#[derive(Debug)]
pub struct LoopSettings {
    /// What sessions are judged by.
    pub policy: Arc<Policy>,
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

/// What the main thread tells one loop.
#[derive(Debug)]
pub enum Message {
    /// An address that is there by now: listen on it.
    Listen(TcpListener),
    /// Open the access log's file anew.
    ReopenLog,
    /// How names are resolved from now on; what is remembered of them is forgotten.
    Names(Box<NamesConfig>),
    /// Everything that can change while the proxy runs. Tunnels and requests under way go on.
    Settings(Box<LoopSettings>),
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
