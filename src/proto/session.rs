//! One client connection as a state machine without sockets. [`Session::step`] answers one question: what is to be done
//! next. [`Session::report`] is told how it went. With the `on_*` methods it is the only thing that changes a session.
//!
//! ```text
//!            first byte          head complete            candidates           stands
//!   Idle ───────────► ReadingHead ──────────► Resolving ───────────► Dialing ─────────► Tunneling
//!    │                    │      (an address needs no resolving)        │                   │
//!    │ left, timed out    └──────── refused ────────┴────── refused ────┤                   │ both directions over,
//!    │                                                                  ▼                   │ reset, timed out, grace
//!    │                                            Lingering ◄────── Replying                │
//!    ▼                                                 │                │                   ▼
//!   Closed ◄───────────────────────────────────────────┴────────────────┴───────────────────┘
//! ```
//!
//! With `--users`, `Authenticating` stands behind each complete head, until it is known whose request it is.
//!
//! Plain HTTP goes from `ReadingHead` to `Reusing`; with an idle connection at once to `Forwarding`, else by way of `Resolving` and
//! `Dialing`. Behind an answer it is `Idle` again, or over; a 101 makes it `Tunneling`.
//!
//! The **state** says what the session is for; the two **halves** carry bytes. [`Step::Wait`] is legal only when every
//! operation the session wants is known not to be ready: that is what keeps edge-triggered readiness from losing a
//! wake-up, and what the simulation in `tests/sim` checks against sockets that know the truth.

mod answer;
mod authenticating;
mod ending;
mod forwarding;
mod http;
mod opening;
mod responses;
mod storage;
#[cfg(test)]
mod tests;
mod tunnel;
mod words;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::deadlines::Kind;
use super::eyeballs::Eyeballs;
use super::onward::GROWTH_MAX_BYTES;
use super::relay::{Half, Ready, Sink, Source, Supply};
use super::reply::{ConnectionHeader, ESTABLISHED, Refusal};
use super::resolver::ResolveError;
use super::ring::RING_BYTES;
use super::rules::{RuleName, Who};
use super::scan::{self, Scan};
use super::target::Target;
use super::tick::{Millis, Tick};
pub use authenticating::LOGIN_TIMEOUT_MS;
use authenticating::Shown;
pub use http::HEAD_KEPT_BYTES;
use http::Http;
use opening::Aside;
pub use opening::resolve_refusal;
pub use responses::INTERIM_MAX;
pub use words::{Asked, EndReason, Follows, Forwarded, Login, Outcome, Policy, Record, Side, Step, Timeouts};

/// Milliseconds that a client which closed its sending side is given while its name is resolved and its connection
/// dialed: it may be a half-closing client that still wants its answer.
pub const CLIENT_LEFT_MS: u64 = 2_000;
/// Milliseconds that an answer of the proxy may take to go out, and again that its client may go on sending behind it.
pub const LINGER_MS: u64 = 2_000;
/// Bytes that are read and thrown away behind a refusal, so that a reset does not erase the answer. More than is under way when a
/// client comes to look at it: Linux lets the buffers of both sides grow to 4 and 32 MiB.
pub const LINGER_BYTES: u64 = 64 * 1024 * 1024;
/// Milliseconds that a connection without a request is kept once the proxy drains: its request may be under way.
pub const DRAIN_IDLE_MS: u64 = 1_000;

/// Bytes of a URL that are kept for the access line. What is cut off is lost.
pub const URL_MAX_BYTES: usize = 512;

/// Of a ring that heads are written anew in, so much is left free: one head may become longer. A head fits into one ring all
/// the same, with room to see that it is too large.
const _: () = assert!(scan::MAX_HEAD_BYTES < RING_BYTES - GROWTH_MAX_BYTES);
const _: () = assert!(ESTABLISHED.len() <= u8::MAX as usize, "the greeting is counted in a byte");
/// Thousands of tunnels that do nothing are what the proxy is for, and each is one of these.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Session>() <= 320);

#[derive(Debug)]
enum State {
    /// Connected, no byte of a request yet.
    Idle,
    ReadingHead(Scan),
    /// Whose request is it?
    Authenticating(Box<Shown>),
    /// Plain HTTP: is there a connection that leads to the target already?
    Reusing,
    Resolving {
        lookup: Lookup,
        since: Tick,
    },
    Dialing(Box<Eyeballs>),
    Tunneling,
    /// Plain HTTP over an upstream that stands.
    Forwarding,
    Replying(Box<Answer>),
    Lingering {
        discarded_bytes: u64,
    },
    Closed,
}

#[derive(Debug, PartialEq, Eq)]
enum Lookup {
    ToAsk,
    Asked,
}

/// An answer of the proxy on its way out.
#[derive(Debug)]
struct Answer {
    bytes: Vec<u8>,
    sent: usize,
    /// What it says about the connection, and what becomes of it.
    connection: ConnectionHeader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    /// No request yet.
    None,
    Open,
    /// Over; its access line is to be written.
    Over,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    state: State,
    client_ready: Ready,
    upstream_ready: Ready,
    up: Half,
    down: Half,
    /// Bytes of [`ESTABLISHED`] that the client has not been sent yet.
    greeting_left: u8,
    /// Which direction goes first if both could read: they take turns.
    first: Side,
    /// The side that reset its connection, the first if both did.
    reset: Option<Side>,
    /// The first side whose connection the kernel gave up for want of an answer.
    vanished: Option<Side>,
    end: Option<EndReason>,
    /// Bytes were under way when it ended.
    cut: bool,
    exchange: Exchange,
    status: Option<u16>,
    refusal: Option<Box<Refusal>>,
    client: SocketAddr,
    /// Whose credentials the request has shown.
    user: Option<Arc<str>>,
    target: Option<Target>,
    rule: Option<RuleName>,
    via: Option<SocketAddr>,
    /// Where the upstream stood among the attempts: its events name it.
    place: u8,
    started: Tick,
    deadline: Tick,
    /// How far it had come when the socket of that side would take no more of what is held for it.
    full_since: [Option<Millis>; 2],
    dns_ms: Option<Millis>,
    dial_ms: Option<Millis>,
    /// The proxy takes no new connections: this one ends behind the exchange that runs.
    draining: bool,
    /// The client was let in, and would not be by the policy that is in force now: no further request of it is served.
    barred: bool,
    /// Nothing for most requests, and for tunnels.
    aside: Option<Box<Aside>>,
    /// Nothing unless the client has asked for plain HTTP: a tunnel does not pay for it.
    http: Option<Box<Http>>,
}

impl Session {
    /// Memory that a session can own, without what is dialed, names and storage that is lent.
    pub const BYTES_MAX: usize = size_of::<Session>() + Http::BYTES_MAX;
    /// What credentials take besides, while nothing is dialed.
    pub const LOGIN_BYTES_MAX: usize = Shown::BYTES_MAX;

    /// A freshly accepted connection.
    #[must_use]
    pub fn new(client: SocketAddr, now: Tick, policy: &Policy) -> Session {
        Session {
            state: State::Idle,
            client_ready: Ready::fresh(),
            upstream_ready: Ready::default(),
            up: Half::default(),
            down: Half::default(),
            greeting_left: 0,
            first: Side::Client,
            reset: None,
            vanished: None,
            end: None,
            cut: false,
            exchange: Exchange::None,
            status: None,
            refusal: None,
            client,
            user: None,
            target: None,
            rule: None,
            via: None,
            place: 0,
            started: now,
            deadline: now.after(policy.timeouts.head_ms),
            full_since: [None; 2],
            dns_ms: None,
            dial_ms: None,
            draining: false,
            barred: false,
            aside: None,
            http: None,
        }
    }

    /// A freshly accepted connection that is answered with a refusal at once, before anything is read.
    #[must_use]
    pub fn refused(
        client: SocketAddr,
        refusal: Refusal,
        rule: Option<RuleName>,
        now: Tick,
        policy: &Policy,
    ) -> Session {
        let mut session = Session::new(client, now, policy);
        session.rule = rule;
        session.refuse(refusal, now, policy);
        session
    }

    /// What is to be done next. Pure.
    #[must_use]
    pub fn step(&self) -> Step {
        if self.exchange == Exchange::Over {
            return Step::Record;
        }
        match &self.state {
            State::Idle | State::ReadingHead(_) if self.client_ready.readable => Step::Read(Side::Client),
            State::Idle | State::ReadingHead(_) => Step::Wait,
            State::Authenticating(shown) => match shown.lookup {
                Lookup::ToAsk => Step::Authenticate,
                Lookup::Asked => self.watch_client(),
            },
            State::Reusing => Step::TakeIdle,
            State::Resolving { lookup, .. } => match lookup {
                Lookup::ToAsk => Step::Resolve,
                Lookup::Asked => self.watch_client(),
            },
            State::Dialing(eyeballs) => match (eyeballs.to_confirm(), eyeballs.to_start()) {
                // Who stands already wins before another attempt is started.
                (Some(place), _) => Step::ConfirmDial(place),
                (None, Some((place, address))) => Step::Dial(place, address),
                (None, None) => self.watch_client(),
            },
            State::Tunneling => self.relay_step(),
            State::Forwarding => self.forward_step(),
            State::Replying(answer) if answer.sent == answer.bytes.len() => Step::ShutdownWrite(Side::Client),
            State::Replying(_) if self.client_ready.writable => Step::Write(Side::Client),
            State::Replying(_) => Step::Wait,
            State::Lingering { .. } if self.client_ready.readable => Step::Discard,
            State::Lingering { .. } => Step::Wait,
            State::Closed => Step::End(self.end.unwrap_or(EndReason::Unused)),
        }
    }

    /// How `step` went. Changes the state, and with it the deadline.
    pub fn report(&mut self, step: Step, outcome: Outcome, now: Tick, policy: &Policy) {
        self.note_vanished(step, outcome);
        self.time_sink(step, outcome, now);
        match step {
            Step::Read(side) if matches!(self.state, State::Tunneling) => self.relay_read(side, outcome),
            Step::Read(side) if matches!(self.state, State::Forwarding) => {
                self.forward_read(side, outcome, now, policy);
            }
            Step::Read(_) => self.head_read(outcome, now, policy),
            Step::Write(_) if matches!(self.state, State::Replying(_)) => self.answer_written(outcome),
            Step::Write(side) if matches!(self.state, State::Forwarding) => self.forward_wrote(side, outcome),
            Step::Write(side) | Step::Drain(side) => self.relay_wrote(side, outcome),
            Step::Pass(side) => self.relay_passed(side, outcome),
            Step::Fill(side) => self.relay_filled(side, outcome),
            Step::ShutdownWrite(_) if matches!(self.state, State::Replying(_)) => self.linger(now),
            Step::ShutdownWrite(side) => self.sink_shut(side, outcome),
            Step::Discard => self.discarded(outcome),
            Step::Authenticate => {
                if let State::Authenticating(shown) = &mut self.state {
                    shown.lookup = Lookup::Asked;
                }
            }
            Step::Resolve => {
                if let State::Resolving { lookup, .. } = &mut self.state {
                    *lookup = Lookup::Asked;
                }
            }
            Step::Dial(place, address) => self.dial_started(place, address, outcome, now, policy),
            Step::ConfirmDial(place) => self.dial_confirmed(place, outcome, now, policy),
            Step::TakeError(side) if matches!(self.state, State::Forwarding) => {
                self.forward_error_taken(side, outcome);
            }
            Step::TakeError(side) => self.error_taken(side, outcome),
            Step::Park | Step::CloseUpstream => self.exchange_over(now),
            Step::Record => {
                self.exchange = Exchange::None;
                if matches!(self.state, State::Idle) {
                    self.next_exchange(now, policy);
                }
            }
            // The answer comes to `on_idle`.
            Step::TakeIdle => {}
            // Nothing was done, so nothing changes.
            Step::Wait | Step::End(_) => {}
        }
        match self.state {
            State::Tunneling => self.relay_moved(outcome, now, policy),
            State::Forwarding => self.forward_moved(outcome, now, policy),
            State::Idle
            | State::ReadingHead(_)
            | State::Authenticating(_)
            | State::Reusing
            | State::Resolving { .. }
            | State::Dialing(_)
            | State::Replying(_)
            | State::Lingering { .. }
            | State::Closed => {}
        }
    }

    /// An event said so. Sets bits and nothing else, but for the deadline of a client that leaves.
    pub fn on_client_ready(&mut self, news: Ready, now: Tick) {
        self.client_ready.add(news);
        self.arm_client_left(now);
    }

    /// An event said so about the attempt at `place`, or about the upstream that was won there.
    pub fn on_upstream_ready(&mut self, place: u8, news: Ready) {
        if let State::Dialing(eyeballs) = &mut self.state {
            if let Some(attempt) = eyeballs.attempt(place) {
                attempt.ready.add(news);
            }
        } else if self.place == place {
            self.upstream_ready.add(news);
        }
    }

    /// The addresses that follow are of this name: the search list has completed the one that was asked for.
    pub fn on_completed(&mut self, name: &str) {
        if self.wants_lookup() {
            self.aside.get_or_insert_default().completed = Some(name.to_ascii_lowercase().into());
        }
    }

    /// Addresses of the name asked for by [`Step::Resolve`]; `last` says that no more will come.
    pub fn on_addresses(&mut self, addresses: Vec<IpAddr>, last: bool, now: Tick, policy: &Policy) {
        if let State::Resolving { since, .. } = self.state {
            self.dns_ms = Some(Millis::between(since, now));
            self.start_dialing(now, policy);
        }
        if let State::Dialing(eyeballs) = &mut self.state
            && eyeballs.wants_more()
        {
            eyeballs.add(addresses, last, now);
            self.dial_next(now, policy);
        }
    }

    /// The name asked for by [`Step::Resolve`] has no address.
    pub fn on_unresolved(&mut self, error: &ResolveError, now: Tick, policy: &Policy) {
        if let State::Resolving { since, .. } = self.state {
            self.dns_ms = Some(Millis::between(since, now));
            self.refuse(opening::resolve_refusal(error), now, policy);
        }
    }

    /// The name was not asked about for want of a descriptor, and there is one now.
    pub fn ask_again(&mut self) {
        if let State::Resolving { lookup, .. } = &mut self.state {
            *lookup = Lookup::ToAsk;
        }
    }

    /// Until when it is kept, if it is idle behind an exchange with no sign of another request: it may be given up for another
    /// client, the one that would be kept for the shortest time first.
    #[must_use]
    pub fn idle_until(&self) -> Option<Tick> {
        let is_idle = matches!(self.state, State::Idle)
            && self.exchange == Exchange::None
            && self.http.is_some()
            && !self.client_ready.readable;
        is_idle.then_some(self.deadline)
    }

    /// Another client is to have its place.
    pub fn give_up(&mut self) {
        self.finish(EndReason::Unused);
    }

    /// Another policy is in force. What runs goes on; what the last one has allowed is judged again with the next request, and
    /// an address that is not dialed yet before it is. Credentials that wait for an answer are asked about anew: the answer
    /// would be that of another users file.
    pub fn on_policy(&mut self, now: Tick, policy: &Policy) {
        self.barred = !policy.rules.client_may(self.client.ip());
        if let State::Authenticating(shown) = &mut self.state {
            shown.lookup = Lookup::ToAsk;
        }
        match (&mut self.http, &self.state) {
            // Between two requests there is nothing but what the last one has proven.
            (Some(http), State::Idle | State::ReadingHead(_)) => http.forget_proof(),
            (Some(http), _) => http.outdate(),
            (None, _) => {}
        }
        if let State::Dialing(eyeballs) = &mut self.state
            && eyeballs.judge_anew()
        {
            // It is queued, for what was to be dialed: nothing else would wake it before its deadline.
            self.dial_next(now, policy);
        }
    }

    /// The deadline has passed. Early calls do nothing.
    pub fn on_deadline(&mut self, now: Tick, policy: &Policy) {
        let Some((kind, due)) = self.deadline() else { return };
        if now < due {
            return;
        }
        match (kind, &self.state) {
            (Kind::Head, State::Idle) => self.finish(EndReason::Unused),
            (Kind::Head, _) => self.refuse(Refusal::HeadTimeout, now, policy),
            (Kind::Login, _) => self.refuse(Refusal::LoginsBusy, now, policy),
            (Kind::Resolve, state) => {
                if let State::Resolving { since, .. } = state {
                    self.dns_ms = Some(Millis::between(*since, now));
                }
                self.refuse(Refusal::DnsTimeout { servers: Box::default() }, now, policy);
            }
            (Kind::Attempt, _) => self.dial_next(now, policy),
            (Kind::Dial, state) => {
                if let State::Dialing(eyeballs) = state {
                    self.dial_ms = Some(Millis::between(eyeballs.began(), now));
                }
                self.refuse(Refusal::DialTimeout, now, policy);
            }
            (Kind::ClientLeft, _) => self.finish(EndReason::ClientLeft),
            (Kind::KeepAlive, _) => self.finish(EndReason::Unused),
            (Kind::Response, _) => self.response_overdue(now, policy),
            (Kind::Idle, _) => self.finish(EndReason::IdleTimeout),
            (Kind::HalfOpen, _) => self.finish(EndReason::HalfOpenTimeout),
            // Refused, and that stays the reason.
            (Kind::Linger, _) => self.finish(EndReason::ClientLeft),
        }
    }

    /// Whether [`Step::Wait`] is legal: no operation that the session wants is known to be ready. Said once more from the
    /// property itself and not from how steps are chosen, for assertions.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        let idle = |half: &Half, from: Ready, to: Ready| {
            let takes = half.sink == Sink::Open;
            let must_write = takes && !half.is_empty() && to.writable;
            let must_shut = takes && half.is_empty() && half.source == Source::Ended;
            let reads = takes && half.is_empty() && half.source == Source::Open;
            let must_read = match half.supply {
                Supply::Plenty => reads,
                Supply::Scarce => reads && to.writable,
                Supply::Starved => false,
            };
            !(must_write || must_shut || must_read && from.readable)
        };
        let (client, upstream) = (self.client_ready, self.upstream_ready);
        self.exchange != Exchange::Over
            && match &self.state {
                State::Idle | State::ReadingHead(_) | State::Lingering { .. } => !client.readable,
                State::Authenticating(shown) => shown.lookup == Lookup::Asked && !client.error,
                State::Resolving { lookup, .. } => *lookup == Lookup::Asked && !client.error,
                State::Dialing(eyeballs) => {
                    eyeballs.to_start().is_none() && eyeballs.to_confirm().is_none() && !client.error
                }
                State::Tunneling if self.greeting_left > 0 => {
                    !client.writable && idle(&self.up, client, upstream)
                }
                State::Tunneling => idle(&self.up, client, upstream) && idle(&self.down, upstream, client),
                State::Forwarding => self.forward_may_wait(),
                State::Replying(_) => !client.writable,
                State::Reusing | State::Closed => false,
            }
    }

    /// The current deadline and its kind; none once closed.
    #[must_use]
    pub fn deadline(&self) -> Option<(Kind, Tick)> {
        let kind = match &self.state {
            State::Idle if self.http.is_some() => Kind::KeepAlive,
            State::Idle | State::ReadingHead(_) => Kind::Head,
            // Its answer may be due before its grace is over: then it gets one.
            State::Authenticating(_)
            | State::Reusing
            | State::Resolving { .. }
            | State::Dialing(_)
            | State::Forwarding
                if self.client_left_due() == Some(self.deadline) =>
            {
                Kind::ClientLeft
            }
            State::Authenticating(_) => Kind::Login,
            State::Resolving { .. } => Kind::Resolve,
            State::Reusing | State::Dialing(_) => Kind::Dial,
            State::Forwarding if self.awaits_response() => Kind::Response,
            State::Forwarding if self.up.sink != Sink::Open => Kind::HalfOpen,
            State::Forwarding => Kind::Idle,
            State::Tunneling if self.is_half_open() => Kind::HalfOpen,
            State::Tunneling => Kind::Idle,
            State::Replying(_) | State::Lingering { .. } => Kind::Linger,
            State::Closed => return None,
        };
        if let State::Dialing(eyeballs) = &self.state
            && let Some(due) = eyeballs.next_due()
            && due < self.deadline
        {
            return Some((Kind::Attempt, due));
        }
        Some((kind, self.deadline))
    }

    /// Who asks.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The name or address asked for.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// Whether the answer to a lookup is still wanted.
    #[must_use]
    pub fn wants_lookup(&self) -> bool {
        match &self.state {
            State::Resolving { .. } => true,
            State::Dialing(eyeballs) => eyeballs.wants_more(),
            State::Idle
            | State::ReadingHead(_)
            | State::Authenticating(_)
            | State::Reusing
            | State::Tunneling
            | State::Forwarding
            | State::Replying(_)
            | State::Lingering { .. }
            | State::Closed => false,
        }
    }

    /// Whether the upstream socket must be kept. Once closed, it goes with the session: [`Session::closes_with_reset`]
    /// says how.
    #[must_use]
    pub fn wants_upstream(&self) -> bool {
        matches!(self.state, State::Dialing(_) | State::Tunneling | State::Forwarding | State::Closed)
    }

    /// The next bytes to be written to `side`.
    #[must_use]
    pub fn drain_slice(&self, side: Side) -> &[u8] {
        match (&self.state, side) {
            (State::Replying(answer), _) => &answer.bytes[answer.sent..],
            (_, Side::Client) if self.greeting_left > 0 => {
                &ESTABLISHED[ESTABLISHED.len() - usize::from(self.greeting_left)..]
            }
            (State::Forwarding, _) => self.forward_slice(side),
            (_, Side::Client) => self.down.ring.drain_slice(),
            (_, Side::Upstream) => self.up.ring.drain_slice(),
        }
    }

    /// What follows behind [`Session::drain_slice`].
    #[must_use]
    pub fn follows(&self, side: Side) -> Follows {
        match (&self.state, side) {
            (State::Replying(answer), _) if answer.connection == ConnectionHeader::Close => Follows::End,
            (State::Forwarding, Side::Client) if self.ends_behind_answer() => Follows::End,
            (
                State::Idle
                | State::ReadingHead(_)
                | State::Authenticating(_)
                | State::Reusing
                | State::Resolving { .. }
                | State::Dialing(_)
                | State::Tunneling
                | State::Forwarding
                | State::Replying(_)
                | State::Lingering { .. }
                | State::Closed,
                _,
            ) => Follows::Anything,
        }
    }

    /// Whom the rules are asked about.
    fn who(&self) -> Who<'_> {
        Who { address: self.client.ip(), user: self.user.as_deref() }
    }

    fn enter(&mut self, now: Tick, timeout_ms: u64) {
        self.deadline = now.after(timeout_ms);
        self.arm_client_left(now);
    }

    /// The direction that is read from `side`.
    fn half_from(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.up,
            Side::Upstream => &mut self.down,
        }
    }
}
