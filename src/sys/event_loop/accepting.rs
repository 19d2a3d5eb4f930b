//! Taking connections from the listeners' queues, and telling those that cannot be served why.

use std::net::{IpAddr, SocketAddr};

use mio::Token;
use mio::net::{TcpListener, TcpStream};

use super::shortage::Descriptor;
use super::{Entry, EventLoop, log_exchange};
use crate::config::{REFUSING_MAX, SCRATCH_BYTES};
use crate::proto::held::Next;
use crate::proto::idle_clients::Search;
use crate::proto::reply::Refusal;
use crate::proto::rules::{CLIENT_RULE, RuleName};
use crate::proto::session::{Session, Side, Step};
use crate::proto::tick::Tick;
use crate::sys::accept::{self, Accepted};
use crate::sys::shared::{Admission, Phase, Short};
use crate::sys::sockets::Sockets;
use crate::sys::stream;

/// Connections accepted in one turn from one listener.
const ACCEPT_BURST: usize = 64;
/// While descriptors are exhausted, accepting is tried again after so long, or as soon as a session of this loop ends.
const ACCEPT_PAUSE_MS: u64 = 200;
/// A listener that goes waits so long for handshakes that have begun: a distant client's, or a near one's whose packet must be
/// sent again.
const LEAVING_MS: u64 = 500;
/// All that an idle tunnel takes, but for its deadline and its name. In debug builds mio's sockets are larger.
#[cfg(all(target_pointer_width = "64", not(debug_assertions)))]
const _: () = assert!(size_of::<super::table::Place<Entry>>() <= 344);

/// A listening socket.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) ready: bool,
    /// It closes then, once its queue is served.
    pub(super) closes_at: Option<Tick>,
}

impl Listener {
    pub(super) fn new(socket: TcpListener) -> Listener {
        Listener { socket, ready: false, closes_at: None }
    }

    pub(super) fn leave(&mut self, now: Tick) {
        accept::begin_no_more(&self.socket);
        self.closes_at = Some(now.after(LEAVING_MS));
        // Who is in the queue has been promised a connection.
        self.ready = true;
    }
}

impl EventLoop {
    pub(super) fn accept(&mut self) {
        if self.accept_resumes.is_none_or(|due| due <= self.now) {
            for key in 0..self.listeners.capacity() {
                if self.listeners.get(key).is_some_and(|listener| listener.ready) {
                    self.accept_from(key);
                }
            }
            if self.accept_resumes.is_none() {
                let now = self.now;
                self.listeners
                    .retain(|_, listener| listener.ready || listener.closes_at.is_none_or(|due| due > now));
            }
        }
    }

    pub(super) fn accept_from(&mut self, index: usize) {
        for _ in 0..ACCEPT_BURST {
            if self.held.is_full() {
                return;
            }
            match accept::accept(&self.listeners[index].socket) {
                Accepted::Connection(client, address) => self.admit_or_hold(client, address),
                Accepted::Gone => {}
                Accepted::Empty => {
                    self.listeners[index].ready = false;
                    // Only with all served is the shortage over: at the limit every session that ends lets one in.
                    if self.accept_resumes.take().is_some() {
                        log::warn!("accepting connections again");
                    }
                    return;
                }
                Accepted::Exhausted(error) => {
                    // Who is served comes before who may be served faster.
                    if self.free_descriptors() {
                        continue;
                    }
                    if self.accept_resumes.is_none() {
                        log::warn!("not accepting connections: {error}; those that run go on");
                    }
                    self.accept_resumes = Some(self.now.after(ACCEPT_PAUSE_MS));
                    return;
                }
            }
        }
    }

    fn admit_or_hold(&mut self, client: TcpStream, address: SocketAddr) {
        if !self.policy.rules.client_may(address.ip()) {
            return self.begin(client, address, Some((Refusal::ClientNotAllowed, Some(CLIENT_RULE))));
        }
        match self.admission(address.ip()) {
            Admission::Granted => self.begin(client, address, None),
            Admission::Full => self.held.push((client, address), self.now),
            // One that it has closed may be among the events of this turn.
            Admission::ClientFull => self.late.push((client, address)),
        }
    }

    /// Nobody overtakes those who are held. Of one client no more are held than it may have.
    fn admission(&self, ip: IpAddr) -> Admission {
        if self.held.is_empty() {
            return self.shared.admit(ip);
        }
        let held = self.held.iter().filter(|(_, held)| held.ip() == ip).count();
        if self.shared.client_may_have(ip, held + 1) { Admission::Full } else { Admission::ClientFull }
    }

    /// Who is held gets the places that there are; who cannot have one is told so.
    pub(super) fn serve_held(&mut self) {
        for (client, address) in std::mem::take(&mut self.late) {
            match self.admission(address.ip()) {
                Admission::Granted => self.begin(client, address, None),
                Admission::Full => self.held.push((client, address), self.now),
                Admission::ClientFull => {
                    self.begin(client, address, Some((Refusal::ClientSessionLimit, None)));
                }
            }
        }
        while let Some(&(_, address)) = self.held.first(self.now) {
            // Settings may have changed since it came.
            let may = self.policy.rules.client_may(address.ip());
            let refusal = match may.then(|| self.shared.admit(address.ip())) {
                None => Some((Refusal::ClientNotAllowed, Some(CLIENT_RULE))),
                Some(Admission::Granted) => None,
                Some(Admission::ClientFull) => Some((Refusal::ClientSessionLimit, None)),
                Some(Admission::Full) => match self.held.next(self.idle_clients.due(), self.now) {
                    Next::Search => {
                        if self.give_up_idle_client() == Search::Nobody {
                            self.held.found_nobody();
                        }
                        continue;
                    }
                    Next::Ask(wanted) => {
                        let plea = self.shared.ask_others(&self.mailbox, Short::Sessions, wanted);
                        self.held.asked(plea, self.now);
                        continue;
                    }
                    Next::Refuse => Some((Refusal::SessionLimit, None)),
                    Next::Wait => return,
                },
            };
            let first = if refusal.is_none() { self.held.pop() } else { self.held.turn_away() };
            if let Some((client, address)) = first {
                self.begin(client, address, refusal);
            }
        }
    }

    /// There is no time left to look for places.
    pub(super) fn refuse_held(&mut self) {
        while let Some((client, address)) = self.held.turn_away() {
            self.begin(client, address, Some((Refusal::SessionLimit, None)));
        }
    }

    /// A session for a client, if only to tell it why it is refused.
    fn begin(
        &mut self,
        mut client: TcpStream,
        address: SocketAddr,
        refusal: Option<(Refusal, Option<RuleName>)>,
    ) {
        let policy = &self.policy;
        let counted = refusal.is_none();
        let mut session = match refusal {
            None => Session::new(address, self.now, policy),
            Some((refusal, rule)) if self.refusing == REFUSING_MAX => {
                let session = Session::refused(address, refusal, rule, self.now, policy);
                return self.refuse_in_passing(session, Sockets::new(client));
            }
            Some((refusal, rule)) => Session::refused(address, refusal, rule, self.now, policy),
        };
        let key = self.sessions.next_key();
        let interests = stream::interests();
        if let Err(error) = self.poll.registry().register(&mut client, Token(key), interests) {
            log::warn!("{address}: cannot watch the connection: {error}");
            if counted {
                self.shared.leave(address.ip());
            }
            return;
        }
        self.refusing += usize::from(!counted);
        if self.phase != Phase::Running {
            session.on_drain(self.now);
        }
        let sockets = Sockets::new(client);
        self.sessions.insert(Entry {
            session,
            sockets,
            queued: false,
            counted,
            looking_up: false,
            logging_in: false,
            starved: false,
            descriptor: Descriptor::Here,
        });
        self.queue(key);
    }

    /// With all places for lingering taken, the answer goes out all the same and the connection is closed behind it. What
    /// has come by now is read first: closing with something unread would be a reset, which may erase the answer.
    fn refuse_in_passing(&mut self, mut session: Session, mut sockets: Sockets) {
        sockets.read(Side::Client, room(&mut self.scratch));
        loop {
            let step = session.step();
            let outcome = match step {
                Step::Write(side) => sockets.write(side, session.drain_slice(side), session.follows(side)),
                Step::ShutdownWrite(side) => sockets.shutdown_write(side),
                Step::Record => log_exchange(&mut self.access_log, &session, self.now),
                // It would linger now, or its client does not take even this.
                Step::Discard
                | Step::Wait
                | Step::End(_)
                | Step::Read(_)
                | Step::Pass(_)
                | Step::Fill(_)
                | Step::Drain(_)
                | Step::Authenticate
                | Step::Resolve
                | Step::Dial(..)
                | Step::ConfirmDial(_)
                | Step::TakeIdle
                | Step::Park
                | Step::CloseUpstream
                | Step::TakeError(_) => return,
            };
            session.report(step, outcome, self.now, &self.policy);
        }
    }
}

/// Where bytes go that are only looked at, or thrown away: the same for all sessions. Many proxies never need it, and then have it not.
pub(super) fn room(scratch: &mut Vec<u8>) -> &mut [u8] {
    scratch.resize(SCRATCH_BYTES, 0);
    scratch
}
