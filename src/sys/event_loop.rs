//! One loop: one poll, its own listeners, its own sessions, nothing shared on the hot path.
//!
//! A turn:
//! 1. Poll, sleeping until the nearest deadline; not at all if a session can run.
//! 2. For each event set readiness bits and queue the session. Nothing is read, written or freed here.
//! 3. Feed the resolver and wake the sessions whose names have answers. Accept; who finds no place is held.
//! 4. Run each queued session: a step, its system call, a report, until it waits, ends or has had its share.
//! 5. Expire deadlines, and free ended sessions **last**: no key is used again while a stale event for it may be in hand.
//! 6. Serve those who are held, with the places that there are now, and write the access log out.

mod accepting;
mod authenticating;
mod directing;
mod settling;
mod shortage;
mod table;
mod tidying;
mod upstreams;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::access_log::AccessLog;
use super::logins::LoginDesk;
use super::names::{Asked, Names, NamesConfig, Part, ResolveError};
use super::pipes::Pipes;
use super::shared::{GiveWay, Mailbox, Phase, Shared};
use super::sockets::Sockets;
use super::{dial, stream};
use crate::config::{MAX_LOOPS, MAX_SESSIONS, REFUSING_MAX, Sources};
use crate::proto::deadlines::Deadlines;
use crate::proto::failure::Failure;
use crate::proto::held::Held;
use crate::proto::idle_clients::IdleClients;
use crate::proto::plea::Question;
use crate::proto::pool::{Limits, Origin};
use crate::proto::ring::Pool;
use crate::proto::session::{Outcome, Policy, Session, Side, Step};
use crate::proto::target::Host;
use crate::proto::tick::Tick;
use accepting::Listener;
use authenticating::Door;
use shortage::Descriptor;
use table::Table;
use upstreams::Upstreams;

/// Events fetched with one poll.
const EVENTS: usize = 256;
/// Bytes that one session may move before the others have their turn.
const SHARE_BYTES: usize = 128 * 1024;
/// Steps that one session may take before the others have their turn, however small.
const SHARE_STEPS: usize = 64;

/// Tokens: a session's key for its client, then the resolver's, the listeners', the waker's. An upstream's is made of its
/// descriptor: it goes from session to session without being registered anew.
const NAMES_TOKEN: usize = 1 << 24;
const LISTENER_TOKEN: usize = 1 << 28;
const WAKER_TOKEN: usize = 1 << 29;
const UPSTREAM_TOKEN: usize = 1 << 30;
const _: () = assert!(SESSION_KEYS < NAMES_TOKEN && SESSION_KEYS <= Deadlines::KEYS);
const _: () = assert!(NAMES_TOKEN + Names::TOKENS < LISTENER_TOKEN);
/// Keys of sessions are smaller than this.
const SESSION_KEYS: usize = MAX_SESSIONS + MAX_LOOPS * REFUSING_MAX;

/// What one loop is made with.
#[derive(Debug)]
pub struct LoopConfig {
    /// Its own listeners.
    pub listeners: Vec<TcpListener>,
    /// What sessions are judged by.
    pub policy: Arc<Policy>,
    /// How names are resolved.
    pub names: NamesConfig,
    /// Where credentials are verified, for all loops.
    pub logins: Arc<LoginDesk>,
    /// Verdicts on credentials that are remembered.
    pub logins_max: usize,
    /// Its end of the access log.
    pub access_log: AccessLog,
    /// Source addresses of outgoing connections.
    pub sources: Sources,
    /// Its share of `--buffer-memory`.
    pub buffer_bytes: u64,
    /// Upstream connections that are kept for another request.
    pub idle: Limits,
}

struct Entry {
    session: Session,
    sockets: Sockets,
    /// In the run queue.
    queued: bool,
    /// Counted in [`Shared`], or else one of the refusing.
    counted: bool,
    looking_up: bool,
    /// In [`Door`].
    logging_in: bool,
    /// In [`EventLoop::starved`].
    starved: bool,
    /// For what is to be dialed.
    descriptor: Descriptor,
}

/// See the module's documentation.
pub struct EventLoop {
    poll: Poll,
    started: Instant,
    now: Tick,
    shared: Arc<Shared>,
    policy: Arc<Policy>,
    mailbox: Arc<Mailbox>,
    listeners: Slab<Listener>,
    /// Descriptors are exhausted: accepting is tried again then.
    accept_resumes: Option<Tick>,
    /// Clients beyond the limit of sessions, while a place for them is looked for.
    held: Held<(TcpStream, SocketAddr)>,
    /// Clients beyond their own limit, until the end of the turn.
    late: Vec<(TcpStream, SocketAddr)>,
    idle_clients: IdleClients,
    /// Of other loops, that are not answered yet.
    pleas: Vec<GiveWay>,
    /// What the other loops have been asked for want of descriptors.
    descriptors: Question,
    /// Sessions with something to dial, until that is answered.
    put_off: Vec<usize>,
    sessions: Table<Entry>,
    refusing: usize,
    run_queue: VecDeque<usize>,
    ended: Vec<usize>,
    /// What is too large for those who are left is given back then.
    tidy_at: Option<Tick>,
    /// Sessions that found the free list empty, in that order.
    starved: VecDeque<usize>,
    deadlines: Deadlines,
    pool: Pool,
    /// Since when storage has been told to be short.
    short_since: Option<Tick>,
    pipes: Pipes,
    names: Names,
    door: Door,
    upstreams: Upstreams,
    sources: Sources,
    access_log: AccessLog,
    /// Bytes that are looked at or thrown away.
    scratch: Vec<u8>,
    /// By the main thread.
    called: bool,
    phase: Phase,
    grace_over: Option<Tick>,
}

impl EventLoop {
    /// A loop ready to [`EventLoop::run`], and where to leave messages for it.
    ///
    /// # Errors
    /// When the system has no descriptors for it.
    pub fn new(config: LoopConfig, shared: Arc<Shared>) -> io::Result<(EventLoop, Arc<Mailbox>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Token(WAKER_TOKEN))?;
        let mailbox = Arc::new(Mailbox::new(waker));
        shared.enlist(Arc::clone(&mailbox));
        let keep_ms = config.policy.timeouts.keepalive_ms;
        let mut event_loop = EventLoop {
            poll,
            started: Instant::now(),
            now: Tick(0),
            shared,
            policy: config.policy,
            mailbox: Arc::clone(&mailbox),
            listeners: Slab::new(),
            accept_resumes: None,
            held: Held::default(),
            late: Vec::new(),
            idle_clients: IdleClients::default(),
            pleas: Vec::new(),
            descriptors: Question::default(),
            put_off: Vec::new(),
            sessions: Table::default(),
            refusing: 0,
            run_queue: VecDeque::new(),
            ended: Vec::new(),
            tidy_at: None,
            starved: VecDeque::new(),
            deadlines: Deadlines::default(),
            pool: Pool::with_ceiling(config.buffer_bytes),
            short_since: None,
            pipes: Pipes::default(),
            names: Names::new(config.names, NAMES_TOKEN),
            door: Door::new(config.logins, Arc::clone(&mailbox), config.logins_max),
            upstreams: Upstreams::new(config.idle, keep_ms),
            sources: config.sources,
            access_log: config.access_log,
            scratch: Vec::new(),
            called: false,
            phase: Phase::Running,
            grace_over: None,
        };
        for socket in config.listeners {
            event_loop.listen(socket)?;
        }
        Ok((event_loop, mailbox))
    }

    /// The listener's key.
    fn listen(&mut self, mut socket: TcpListener) -> io::Result<usize> {
        let slot = self.listeners.vacant_entry();
        let key = slot.key();
        let token = Token(LISTENER_TOKEN + key);
        self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
        slot.insert(Listener::new(socket));
        Ok(key)
    }

    /// Runs until it has drained.
    ///
    /// # Errors
    /// When polling fails, which leaves nothing to be done.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, self.sleep_length()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.now = self.clock();
            let mut told = 0;
            for event in &events {
                told += 1;
                self.note(event);
            }
            self.upstreams.polled(told, EVENTS);
            if std::mem::take(&mut self.called) {
                self.read_mail();
                self.follow_phase();
            }
            self.upstreams.close_over(self.now);
            self.pipes.close_over(self.now);
            self.resolve();
            self.take_descriptors();
            self.accept();
            for _ in 0..self.run_queue.len() {
                self.run_next();
            }
            self.expire();
            self.free_ended();
            // Behind all that has ended by itself: who leaves in this turn makes a place without anybody giving way.
            self.answer_pleas();
            self.serve_held();
            self.feed_starved();
            self.tell_of_storage();
            self.tidy();
            if self.is_drained() {
                self.quit();
                return Ok(());
            }
            self.access_log.write_due(self.now);
        }
    }

    fn clock(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// How long the next poll may sleep: not at all if there is work, without end if nothing is due.
    fn sleep_length(&self) -> Option<Duration> {
        let may_accept = self.accept_resumes.is_none() && !self.held.is_full();
        let can_accept = may_accept && self.listeners.iter().any(|(_, listener)| listener.ready);
        // Behind those that have been served, somebody may have left.
        let can_serve = !self.held.is_empty() && self.shared.has_place();
        if can_accept || can_serve || !self.run_queue.is_empty() || self.names.has_work() {
            return Some(Duration::ZERO);
        }
        let due = [
            self.deadlines.next(),
            self.upstreams.next_deadline(),
            self.pipes.next_deadline(),
            self.names.next_deadline(),
            self.access_log.next_deadline(),
            // While nobody is accepted no listener closes, and with no room for another client that is not tried again.
            self.accept_resumes.filter(|_| !self.held.is_full()),
            self.listeners.iter().filter_map(|(_, it)| it.closes_at.filter(|_| may_accept)).min(),
            self.held.due(self.idle_clients.due()),
            self.plea_due(),
            self.descriptors.due(),
            self.grace_over,
            self.tidy_at,
        ];
        due.into_iter().flatten().min().map(|due| Duration::from_millis(due.since(self.clock())))
    }

    fn note(&mut self, event: &mio::event::Event) {
        let token = event.token().0;
        match token {
            UPSTREAM_TOKEN.. => {
                let ready = stream::ready(event);
                if let Some((key, place)) = self.upstreams.note(token - UPSTREAM_TOKEN, ready)
                    && let Some(entry) = self.sessions.get_mut(key)
                {
                    entry.session.on_upstream_ready(place, ready);
                    self.queue(key);
                }
            }
            WAKER_TOKEN => self.called = true,
            LISTENER_TOKEN.. => {
                if let Some(listener) = self.listeners.get_mut(token - LISTENER_TOKEN) {
                    listener.ready = true;
                }
            }
            NAMES_TOKEN.. => self.names.on_event(token, event),
            key => {
                if let Some(entry) = self.sessions.get_mut(key) {
                    entry.session.on_client_ready(stream::ready(event), self.now);
                    self.queue(key);
                }
            }
        }
    }

    fn queue(&mut self, key: usize) {
        if let Some(entry) = self.sessions.get_mut(key)
            && !entry.queued
        {
            entry.queued = true;
            self.run_queue.push_back(key);
        }
    }

    fn resolve(&mut self) {
        self.names.run(self.poll.registry(), self.now);
        while let Some((key, answer)) = self.names.pop_answer() {
            let is_short = matches!(answer, Err(ResolveError::NoSocket(_)));
            let ask_again = is_short && self.free_descriptors();
            if let Some(entry) = self.sessions.get_mut(key) {
                let policy = &self.policy;
                match answer {
                    Ok(Part { addresses, last, found_as }) => {
                        entry.looking_up = !last;
                        if let Some(name) = found_as {
                            entry.session.on_completed(&name);
                        }
                        entry.session.on_addresses(addresses, last, self.now, policy);
                    }
                    Err(_) if ask_again => {
                        entry.looking_up = false;
                        entry.session.ask_again();
                    }
                    Err(error) => {
                        entry.looking_up = false;
                        entry.session.on_unresolved(&error, self.now, policy);
                    }
                }
                self.queue(key);
            }
        }
    }

    fn run_next(&mut self) {
        let Some(key) = self.run_queue.pop_front() else { return };
        let Some(entry) = self.sessions.get_mut(key) else { return };
        entry.queued = false;
        let mut moved_bytes = 0;
        for _ in 0..SHARE_STEPS {
            let Some(step) = self.sessions.get(key).map(|entry| entry.session.step()) else { return };
            match step {
                Step::Wait => {
                    debug_assert!(
                        self.sessions.get(key).is_some_and(|entry| entry.session.may_wait()),
                        "{:?}",
                        self.sessions.get(key).map(|entry| &entry.session)
                    );
                    return self.settle(key);
                }
                Step::End(reason) => {
                    log::trace!("session {key}: {reason:?}");
                    return self.end(key);
                }
                Step::Dial(..) if self.awaits_descriptor(key) => {
                    return self.settle(key);
                }
                Step::Read(_)
                | Step::Write(_)
                | Step::Pass(_)
                | Step::Fill(_)
                | Step::Drain(_)
                | Step::ShutdownWrite(_)
                | Step::Discard
                | Step::Authenticate
                | Step::Resolve
                | Step::Dial(..)
                | Step::ConfirmDial(_)
                | Step::TakeIdle
                | Step::Park
                | Step::CloseUpstream
                | Step::TakeError(_)
                | Step::Record => {}
            }
            let Some(outcome) = self.perform(key, step) else { continue };
            self.report(key, step, outcome);
            if step == Step::Record {
                // The next exchange may begin in this very run: it finds nothing of this one's.
                self.settle(key);
            }
            if let Outcome::Moved(count) = outcome {
                moved_bytes += count;
                if moved_bytes >= SHARE_BYTES {
                    break;
                }
            }
        }
        self.settle(key);
        self.queue(key);
    }

    fn report(&mut self, key: usize, step: Step, outcome: Outcome) {
        log::trace!("session {key}: {step:?} {outcome:?}");
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.session.report(step, outcome, self.now, &self.policy);
            if entry.session.is_starved() && !entry.starved {
                entry.starved = true;
                self.starved.push_back(key);
            }
        }
    }

    /// Does what a session asks for: one system call, but for `Step::Pass`, of which nothing must come between the parts. `None` if the session has been told the outcome already.
    fn perform(&mut self, key: usize, step: Step) -> Option<Outcome> {
        let Entry { session, sockets, .. } = self.sessions.get_mut(key)?;
        Some(match step {
            Step::Read(side) => {
                if !session.borrow_storage(side, &mut self.pool) {
                    if session.is_tunnel() {
                        return Some(Outcome::NoStorage);
                    }
                    // An end or a reset needs no storage: who is gone must be able to go.
                    return Some(sockets.peek(side));
                }
                sockets.read(side, session.fill_slice(side))
            }
            Step::Write(side) => sockets.write(side, session.drain_slice(side), session.follows(side)),
            Step::Pass(side) => {
                let (met, outcome) = sockets.pass(side, accepting::room(&mut self.scratch));
                if met != step {
                    log::trace!("session {key}: {step:?} {met:?} {outcome:?}");
                    session.report(met, outcome, self.now, &self.policy);
                    return None;
                }
                outcome
            }
            Step::Fill(side) => {
                let (pipes, pool, now) = (&mut self.pipes, &mut self.pool, self.now);
                let standing = session.standing(side);
                sockets.fill(side, |socket| pipes.fill(key, side, socket, standing, pool, now))
            }
            Step::Drain(side) => sockets.drain(side, |socket| self.pipes.drain(key, side.other(), socket)),
            Step::ShutdownWrite(side) => sockets.shutdown_write(side),
            Step::Discard => sockets.read(Side::Client, accepting::room(&mut self.scratch)),
            Step::Authenticate => return self.authenticate(key),
            Step::Resolve => return self.look_up(key),
            Step::Dial(place, address) => return self.dial(key, place, address),
            Step::ConfirmDial(place) => sockets.confirm(place, session.said_of(place)),
            Step::TakeIdle => return self.take_idle(key),
            Step::Park => {
                if let (Some(origin), Some(socket)) = (session.take_origin(), sockets.take_upstream()) {
                    self.upstreams.park(origin, socket, self.now);
                }
                Outcome::Done
            }
            Step::CloseUpstream => {
                sockets.drop_upstream();
                Outcome::Done
            }
            Step::TakeError(side) => sockets.take_error(side),
            Step::Record => log_exchange(&mut self.access_log, session, self.now),
            Step::Wait | Step::End(_) => Outcome::Done,
        })
    }

    fn dial(&mut self, key: usize, place: u8, address: SocketAddr) -> Option<Outcome> {
        let mut outcome = Outcome::Failed(Failure::NoDescriptors);
        // Who is served comes before who may be served faster: at first all idle upstreams, then one idle client.
        for _ in 0..3 {
            let sockets = &mut self.sessions.get_mut(key)?.sockets;
            let (rules, registry) = (&self.policy.rules, self.poll.registry());
            let token = |descriptor| self.upstreams.own(descriptor, key, place);
            let start = || dial::start(address, token, registry, Some(rules), &self.sources);
            outcome = sockets.dial(place, start);
            if outcome != Outcome::Failed(Failure::NoDescriptors) || !self.free_descriptors() {
                break;
            }
        }
        let is_short = outcome == Outcome::Failed(Failure::NoDescriptors);
        if is_short && self.put_off(key) { None } else { Some(outcome) }
    }

    fn take_idle(&mut self, key: usize) -> Option<Outcome> {
        let Entry { session, sockets, .. } = self.sessions.get_mut(key)?;
        if session.awaits_body() {
            sockets.acknowledge_client();
        }
        let policy = &self.policy;
        let may = |origin: &Origin| session.may_reuse(origin, policy);
        let idle = session.target().and_then(|target| self.upstreams.take(target, may, key));
        let origin = idle.map(|(origin, socket)| {
            sockets.set_upstream(socket);
            origin
        });
        session.on_idle(origin, self.now, policy);
        None
    }

    fn look_up(&mut self, key: usize) -> Option<Outcome> {
        let entry = self.sessions.get_mut(key)?;
        let target = entry.session.target();
        let absolute;
        let name = match target.map(|target| (&target.host, target.is_absolute)) {
            Some((Host::Name(name), false)) => &**name,
            Some((Host::Name(name), true)) => {
                absolute = format!("{name}.");
                &absolute
            }
            Some((Host::Ip(_), _)) | None => return Some(Outcome::Done),
        };
        match self.names.ask(name, key, self.poll.registry(), self.now) {
            Asked::Known(answer) => {
                let policy = &self.policy;
                match answer {
                    Ok(addresses) => entry.session.on_addresses(addresses, true, self.now, policy),
                    Err(error) => entry.session.on_unresolved(&error, self.now, policy),
                }
                None
            }
            Asked::Pending => {
                entry.looking_up = true;
                Some(Outcome::Done)
            }
        }
    }
}

/// One line for an exchange that is over, and the cause behind a refusal for who wants to know more.
fn log_exchange(access_log: &mut AccessLog, session: &Session, now: Tick) -> Outcome {
    let record = session.record(now);
    if let Some(refusal) = record.refusal {
        let (client, asked) = (record.client, &record.request);
        log::debug!("{client} {asked}: {} {}", refusal.status(), refusal.details());
    }
    if let Some(details) = record.cut_because {
        log::debug!("{} {}: cut off: {details}", record.client, record.request);
    }
    access_log.add(&record, now);
    Outcome::Done
}
