//! Whose each upstream socket is, and those that are nobody's: idle, until another request for the same origin comes.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use mio::Token;
use mio::net::TcpStream;

use super::super::stream;
use super::table::give_back;
use super::{SESSION_KEYS, UPSTREAM_TOKEN};
use crate::proto::eyeballs::PLACES;
use crate::proto::pool::{Limits, Origin, Pool};
use crate::proto::relay::Ready;
use crate::proto::session::Outcome;
use crate::proto::target::Target;
use crate::proto::tick::Tick;

/// Of a session's key and the place of an attempt, one number is made.
const PLACE_BITS: u32 = 3;
const _: () = assert!(PLACES <= 1 << PLACE_BITS);
const _: () = assert!(SESSION_KEYS << PLACE_BITS < NOBODY as usize);
const NOBODY: u32 = u32::MAX;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Upstreams {
    /// By descriptor: a session and a place of it. A descriptor is one socket's for as long as that is open, and what is
    /// said about it is heard before anything is closed: an entry that nobody cleared is never asked for.
    owners: Vec<u32>,
    idle: Pool<Idle>,
    /// Idle ones that are to be closed: their origins have ended them, or have sent what nobody asked for.
    over: Vec<RawFd>,
    /// Counts the polls.
    polls: u64,
    /// The last poll has told all that there was to tell.
    all_told: bool,
}

#[derive(Debug)]
struct Idle {
    socket: TcpStream,
    /// [`Upstreams::polls`] when it became idle.
    since: u64,
}

impl Upstreams {
    pub(super) fn new(limits: Limits, keep_ms: u64) -> Upstreams {
        Upstreams {
            owners: Vec::new(),
            idle: Pool::new(limits, keep_ms),
            over: Vec::new(),
            polls: 0,
            all_told: false,
        }
    }

    /// Another policy is in force: none that was dialed under the last one is used again.
    pub(super) fn start_over(&mut self, keep_ms: u64) {
        self.close_idle();
        self.idle.keep_for(keep_ms);
    }

    /// The socket belongs to that session. Returns the token that it is to be registered with, once and for good.
    pub(super) fn own(&mut self, descriptor: RawFd, key: usize, place: u8) -> Token {
        let index = usize::try_from(descriptor).unwrap_or_default();
        if index >= self.owners.len() {
            self.owners.resize(index + 1, NOBODY);
        }
        // Smaller than `NOBODY`: asserted above.
        self.owners[index] = ((key << PLACE_BITS) + usize::from(place)) as u32;
        Token(UPSTREAM_TOKEN + index)
    }

    /// No session is left: there is nobody to own one.
    pub(super) fn forget_owners(&mut self) {
        self.owners.clear();
        give_back(&mut self.owners);
    }

    /// A poll has said so much, of at most `most`. It has told all only if there was room for more.
    pub(super) fn polled(&mut self, told: usize, most: usize) {
        self.polls += 1;
        self.all_told = told < most;
    }

    /// An event about that socket: whom it concerns.
    pub(super) fn note(&mut self, index: usize, ready: Ready) -> Option<(usize, u8)> {
        match self.owners.get(index) {
            Some(&NOBODY) | None => {
                // Readable: its end, or bytes that answer nothing.
                if ready.readable
                    && let Ok(descriptor) = RawFd::try_from(index)
                {
                    self.over.push(descriptor);
                }
                None
            }
            Some(&owner) => {
                let place = owner & ((1 << PLACE_BITS) - 1);
                Some(((owner >> PLACE_BITS) as usize, place as u8))
            }
        }
    }

    /// Closes idle connections that are over or have been idle long enough.
    pub(super) fn close_over(&mut self, now: Tick) {
        while let Some(descriptor) = self.over.pop() {
            self.idle.remove(|idle| idle.socket.as_raw_fd() == descriptor);
        }
        while self.idle.pop_due(now).is_some() {}
    }

    /// Keeps a connection for another request.
    pub(super) fn park(&mut self, origin: Box<Origin>, socket: TcpStream, now: Tick) {
        if let Some(owner) =
            usize::try_from(socket.as_raw_fd()).ok().and_then(|index| self.owners.get_mut(index))
        {
            *owner = NOBODY;
        }
        // One that has to make room is closed.
        drop(self.idle.put(origin, Idle { socket, since: self.polls }, now));
    }

    /// An idle connection to that target, for that session from now on. What has come over it meanwhile answers nothing, so
    /// one over which anything has come is not used. For most of them the last poll has said so without a system call of
    /// their own; who became idle behind it is asked.
    pub(super) fn take(
        &mut self,
        target: &Target,
        may: impl Fn(&Origin) -> bool,
        key: usize,
    ) -> Option<(Box<Origin>, TcpStream)> {
        // Many connections lead to one address.
        let mut judged: Option<(SocketAddr, bool)> = None;
        let mut may = |origin: &Origin| match judged {
            Some((address, verdict)) if address == origin.address && origin.completed.is_none() => verdict,
            Some(_) | None => {
                let verdict = may(origin);
                // A verdict on a name that the search list made holds for that name only.
                if origin.completed.is_none() {
                    judged = Some((origin.address, verdict));
                }
                verdict
            }
        };
        let (polls, all_told) = (self.polls, self.all_told);
        let known = self.idle.take(target, |origin, idle| all_told && idle.since < polls && may(origin));
        let (origin, idle) = match known {
            Some(taken) => taken,
            None => loop {
                let (origin, idle) = self.idle.take(target, |origin, _| may(origin))?;
                if stream::peek(&idle.socket) == Outcome::Blocked {
                    break (origin, idle);
                }
            },
        };
        self.own(idle.socket.as_raw_fd(), key, 0);
        Some((origin, idle.socket))
    }

    /// Closes all that are idle. Returns how many they were.
    pub(super) fn close_idle(&mut self) -> usize {
        std::iter::from_fn(|| self.idle.pop_oldest()).count()
    }

    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.idle.next_deadline()
    }
}
