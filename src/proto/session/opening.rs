//! From the first byte of a request to an upstream that stands, or to a refusal.

use std::net::SocketAddr;

use super::{CLIENT_LEFT_MS, EndReason};
use super::{Exchange, Lookup, Outcome, Policy, Session, Side, State, Step};
use crate::proto::eyeballs::{self, Eyeballs};
use crate::proto::failure::Failure;
use crate::proto::relay::Ready;
use crate::proto::reply::{ESTABLISHED, Refusal};
use crate::proto::resolver::ResolveError;
use crate::proto::rules::{Early, GUARD_RULE, Service, Verdict, Who};
use crate::proto::scan::{Scan, Scanned};
use crate::proto::target::Host;
use crate::proto::tick::{Millis, Tick};

/// What few requests have, and only until an upstream stands: it is made for those, and gone when a tunnel begins.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// The name as the search list completed it: rules for either speak.
    pub(super) completed: Option<Box<str>>,
    /// When a client that closed its sending side before it had an answer is given up.
    pub(super) client_left_due: Option<Tick>,
}

impl Session {
    pub(super) fn head_read(&mut self, outcome: Outcome, now: Tick, policy: &Policy) {
        let came = matches!(outcome, Outcome::Moved(_) | Outcome::NoStorage);
        if came && matches!(self.state, State::Idle) {
            if self.http.is_some() {
                self.begin_head(now, policy);
            } else {
                // A drain may have left less to a connection without a request; this one has one now.
                self.deadline = self.started.after(policy.timeouts.head_ms);
            }
        }
        match outcome {
            Outcome::Moved(count) => {
                let offered = self.fill_slice(Side::Client).len();
                self.up.read(count, offered, &mut self.client_ready);
                self.exchange = Exchange::Open;
                self.scan_head(now, policy);
            }
            Outcome::Blocked => self.client_ready.readable = false,
            Outcome::NoStorage => {
                self.exchange = Exchange::Open;
                self.refuse(Refusal::BufferMemory, now, policy);
            }
            Outcome::Eof if matches!(self.state, State::Idle) => self.finish(EndReason::Unused),
            Outcome::Eof => {
                self.refuse(Refusal::BadRequest("the connection ended inside the request head"), now, policy)
            }
            Outcome::Failed(_) if matches!(self.state, State::Idle) => self.finish(EndReason::Unused),
            Outcome::Failed(_) => self.finish(EndReason::ClientReset),
            // Not an outcome of reading.
            Outcome::Done => {}
        }
    }

    pub(super) fn scan_head(&mut self, now: Tick, policy: &Policy) {
        let mut scan = match &self.state {
            State::ReadingHead(scan) => *scan,
            State::Idle
            | State::Authenticating(_)
            | State::Reusing
            | State::Resolving { .. }
            | State::Dialing(_)
            | State::Tunneling
            | State::Forwarding
            | State::Replying(_)
            | State::Lingering { .. }
            | State::Closed => Scan::for_request(),
        };
        match scan.scan(self.up.ring.drain_slice()) {
            // The deadline stays: it runs from the accepted connection to the complete head.
            Scanned::Incomplete => self.state = State::ReadingHead(scan),
            Scanned::Bad(broken) => self.refuse(broken.refusal(), now, policy),
            Scanned::Complete(head_bytes) => self.head_complete(head_bytes, now, policy),
        }
    }

    pub(super) fn connect(&mut self, now: Tick, policy: &Policy) {
        let Some(target) = &self.target else { return };
        match policy.rules.judge_name(self.who(), target, Service::Connect) {
            Early::Resolve(rule) => {
                self.rule = rule;
                self.resolve(now, policy);
            }
            Early::Refuse(refusal, rule) => {
                self.rule = Some(rule);
                self.refuse(refusal, now, policy);
            }
        }
    }

    /// A fresh upstream for the target. An address needs no resolving.
    pub(super) fn resolve(&mut self, now: Tick, policy: &Policy) {
        let Some(target) = &self.target else { return };
        if let Host::Ip(address) = target.host {
            self.start_dialing(now, policy);
            return self.on_addresses(vec![address], true, now, policy);
        }
        self.state = State::Resolving { lookup: Lookup::ToAsk, since: now };
        self.enter(now, policy.timeouts.resolve_ms);
    }

    pub(super) fn start_dialing(&mut self, now: Tick, policy: &Policy) {
        if let Some(http) = &mut self.http {
            // Dialing takes so much memory that this must give way; where nothing is dialed, it is kept.
            http.shown = None;
        }
        self.state = State::Dialing(Box::new(Eyeballs::new(policy.families, now)));
        self.enter(now, policy.timeouts.dial_ms);
    }

    /// Judges the next candidate if it is time for one, and starts with it if it is allowed: every attempt is judged on
    /// the very address that is dialed, however late it came. Refuses when nothing is left to try or to come.
    pub(super) fn dial_next(&mut self, now: Tick, policy: &Policy) {
        let service = if self.http.is_some() { Service::Http } else { Service::Connect };
        let (State::Dialing(eyeballs), Some(target)) = (&mut self.state, &self.target) else { return };
        while let Some(address) = eyeballs.next_candidate(now) {
            let who = Who { address: self.client.ip(), user: self.user.as_deref() };
            let completed = self.aside.as_ref().and_then(|aside| aside.completed.as_deref());
            match policy.rules.judge_address(who, target, completed, address, service) {
                Verdict::Allow(rule) => eyeballs.begin(SocketAddr::new(address, target.port), rule, now),
                Verdict::Deny(refusal, rule) => eyeballs.note_denied(refusal, rule),
            }
        }
        let Some(verdict) = eyeballs.verdict() else { return };
        let refusal = match verdict {
            eyeballs::Verdict::Failed(failure) => {
                if failure == Failure::OwnListener {
                    self.rule = Some(GUARD_RULE);
                }
                failure.refusal()
            }
            eyeballs::Verdict::Denied(refusal, rule) => {
                self.rule = Some(rule);
                refusal
            }
            eyeballs::Verdict::Excluded => Refusal::FamilyExcluded,
            eyeballs::Verdict::Nothing => Refusal::NameNotFound { rcode: 0 },
        };
        if self.via.is_some() {
            self.dial_ms = Some(Millis::between(eyeballs.began(), now));
        }
        self.refuse(refusal, now, policy);
    }

    pub(super) fn dial_started(
        &mut self,
        place: u8,
        address: SocketAddr,
        outcome: Outcome,
        now: Tick,
        policy: &Policy,
    ) {
        let State::Dialing(eyeballs) = &mut self.state else { return };
        eyeballs.started();
        self.via = Some(address);
        self.rule = eyeballs.attempt(place).map(|attempt| attempt.rule.clone());
        match outcome {
            Outcome::Failed(failure) => self.dial_failed(place, failure, now, policy),
            // Under way.
            Outcome::Moved(_) | Outcome::Blocked | Outcome::Eof | Outcome::Done | Outcome::NoStorage => {}
        }
    }

    pub(super) fn dial_confirmed(&mut self, place: u8, outcome: Outcome, now: Tick, policy: &Policy) {
        let State::Dialing(eyeballs) = &mut self.state else { return };
        match outcome {
            Outcome::Blocked => {
                if let Some(attempt) = eyeballs.attempt(place) {
                    attempt.ready = Ready::default();
                }
            }
            Outcome::Failed(failure) => self.dial_failed(place, failure, now, policy),
            Outcome::Moved(_) | Outcome::Eof | Outcome::Done | Outcome::NoStorage => {
                let Some(won) = eyeballs.take(place) else { return };
                self.place = place;
                self.via = Some(won.address);
                self.rule = Some(won.rule);
                self.upstream_ready = won.ready;
                self.dial_ms = Some(Millis::between(eyeballs.began(), now));
                if self.http.is_some() {
                    return self.start_forwarding(now, policy);
                }
                self.status = Some(200);
                self.greeting_left = ESTABLISHED.len() as u8;
                self.start_tunneling();
                self.enter(now, policy.timeouts.idle_ms);
            }
        }
    }

    /// What events have said of the attempt at `place`.
    #[must_use]
    pub fn said_of(&self, place: u8) -> Ready {
        let State::Dialing(eyeballs) = &self.state else { return Ready::default() };
        eyeballs.said_of(place)
    }

    fn dial_failed(&mut self, place: u8, failure: Failure, now: Tick, policy: &Policy) {
        if let State::Dialing(eyeballs) = &mut self.state {
            eyeballs.failed(place, failure, now);
            self.dial_next(now, policy);
        }
    }

    /// While nothing is read from the client, only an error on its socket needs a system call. A mere FIN is known from
    /// the event that announced it and has set the deadline (`arm_client_left`).
    pub(super) fn watch_client(&self) -> Step {
        if self.client_ready.error { Step::TakeError(Side::Client) } else { Step::Wait }
    }

    /// The grace is counted once, from when the client's end was first known, however the state changes meanwhile.
    pub(super) fn arm_client_left(&mut self, now: Tick) {
        if self.client_ready.read_closed && self.wants_answer() {
            let aside = self.aside.get_or_insert_default();
            let due = *aside.client_left_due.get_or_insert(now.after(CLIENT_LEFT_MS));
            self.deadline = self.deadline.min(due);
        }
    }

    pub(super) fn client_left_due(&self) -> Option<Tick> {
        self.aside.as_ref()?.client_left_due
    }

    pub(super) fn wants_answer(&self) -> bool {
        match self.state {
            State::Authenticating(_) | State::Reusing | State::Resolving { .. } | State::Dialing(_) => true,
            State::Forwarding => {
                self.http.as_ref().is_some_and(|http| http.awaits_head() && http.request.is_complete())
            }
            State::Idle
            | State::ReadingHead(_)
            | State::Tunneling
            | State::Replying(_)
            | State::Lingering { .. }
            | State::Closed => false,
        }
    }
}

/// What the client is told when its name could not be resolved.
#[must_use]
pub fn resolve_refusal(error: &ResolveError) -> Refusal {
    match error {
        ResolveError::NotFound { rcode } => Refusal::NameNotFound { rcode: *rcode },
        ResolveError::Failed { rcode } => Refusal::ResolverFailed { rcode: Some(*rcode) },
        ResolveError::Timeout { servers } => {
            let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
            Refusal::DnsTimeout { servers: servers.join(", ").into() }
        }
        ResolveError::NoServers => Refusal::NoNameserver,
        ResolveError::Busy => Refusal::ResolverBusy,
        ResolveError::Broken | ResolveError::Io(_) => Refusal::ResolverFailed { rcode: None },
        ResolveError::NoSocket(_) => Refusal::Descriptors,
    }
}
