//! Plain HTTP between a client and an upstream that stands: the request goes up while the answer may already come down.
//!
//! A ring holds first what may go out ([`Http::cleared_up`], [`Http::cleared_down`]), then what has not been understood yet.
//! More is read only once what may go out is out, so both are bounded by the ring.

use super::http::{Http, Retry};
use super::{Answer, EndReason, Exchange, Outcome, Policy, Session, Side, State, Step};
use crate::proto::body::{Body, End};
use crate::proto::fields::Persistence;
use crate::proto::pool::Origin;
use crate::proto::relay::{Ready, Sink, Source, Supply, source_after};
use crate::proto::reply::{ConnectionHeader, Refusal};
use crate::proto::scan::Scan;
use crate::proto::tick::Tick;

/// How far the upstream's answer has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answering {
    /// Its head is awaited; interim ones may have been.
    Head(Scan),
    Body(Body),
    Complete,
    /// No more will come, and not all has. What has come still goes out.
    Cut(EndReason),
}

impl Http {
    pub(super) fn has_for_upstream(&self) -> bool {
        self.cleared_up > 0 || !self.short_head().is_empty()
    }

    /// An answer is looked for once the request's head is out: what came before would be an answer to nothing.
    fn wants_response(&self, up: Sink) -> bool {
        let asked = self.head_unsent == 0 || up != Sink::Open;
        let open = match self.answering {
            Answering::Head(_) | Answering::Body(_) => true,
            Answering::Complete | Answering::Cut(_) => false,
        };
        asked && open && self.cleared_down == 0
    }

    pub(super) fn wants_request(&self, up: Sink) -> bool {
        !self.request.is_complete() && !self.has_for_upstream() && up == Sink::Open
    }

    /// Whether the client has been sent nothing that belongs to its answer proper.
    pub(super) fn awaits_head(&self) -> bool {
        matches!(self.answering, Answering::Head(_))
    }

    /// Whether its upstream has not been sent a byte of the request.
    fn is_unsent(&self) -> bool {
        self.head_unsent > 0 && self.head_unsent == self.head_bytes
    }

    fn is_delivered(&self) -> bool {
        matches!(self.answering, Answering::Complete) && self.cleared_down == 0
    }
}

impl Session {
    pub(super) fn forward_step(&self) -> Step {
        let Some(http) = &self.http else { return Step::Wait };
        if self.speaks_unasked(http) {
            return Step::Read(Side::Upstream);
        }
        if http.has_for_upstream() && self.up.sink == Sink::Open && self.upstream_ready.writable {
            return Step::Write(Side::Upstream);
        }
        if http.cleared_down > 0 && self.client_ready.writable {
            return Step::Write(Side::Client);
        }
        if http.is_delivered() {
            return self.release_step(http);
        }
        let up = self.reads_request(http) && self.client_ready.readable;
        let down = self.reads_response(http) && self.upstream_ready.readable;
        match (up, down, self.first) {
            (true, false, _) | (true, true, Side::Client) => Step::Read(Side::Client),
            (false, true, _) | (true, true, Side::Upstream) => Step::Read(Side::Upstream),
            (false, false, _) => self.watch_both(),
        }
    }

    /// Something came over the upstream before a byte of the request went out: what it is must be known first. What comes later
    /// cannot be told from an answer.
    fn speaks_unasked(&self, http: &Http) -> bool {
        http.is_unsent()
            && self.upstream_ready.readable
            && self.up.sink == Sink::Open
            && !self.down.is_starved()
    }

    fn reads_request(&self, http: &Http) -> bool {
        http.wants_request(self.up.sink) && !self.up.is_starved()
    }

    fn reads_response(&self, http: &Http) -> bool {
        http.wants_response(self.up.sink) && !self.down.is_starved()
    }

    /// Said once more for [`Session::may_wait`], from what is wanted and not from how steps are chosen.
    pub(super) fn forward_may_wait(&self) -> bool {
        let Some(http) = &self.http else { return false };
        let (client, upstream) = (self.client_ready, self.upstream_ready);
        let writes_up = http.has_for_upstream() && self.up.sink == Sink::Open && upstream.writable;
        let writes_down = http.cleared_down > 0 && client.writable;
        let reads_up = self.reads_request(http) && client.readable;
        let reads_down = self.reads_response(http) && upstream.readable;
        let listens =
            http.is_unsent() && upstream.readable && self.up.sink == Sink::Open && !self.down.is_starved();
        let moves = writes_up || writes_down || reads_up || reads_down || listens;
        !moves && !http.is_delivered() && !client.error && !upstream.error
    }

    /// The answer is delivered. A connection on which nothing else has come is good for another request.
    fn release_step(&self, http: &Http) -> Step {
        let is_clean = http.upstream_connection == Persistence::Keep
            && http.request.is_complete()
            && !http.has_for_upstream()
            && self.up.sink == Sink::Open
            && self.reset.is_none()
            && !self.draining
            && !http.outdated
            && !self.upstream_ready.read_closed
            && !self.upstream_ready.error;
        match (is_clean, self.upstream_ready.readable) {
            (true, true) => Step::Read(Side::Upstream),
            (true, false) => Step::Park,
            (false, _) => Step::CloseUpstream,
        }
    }

    pub(super) fn forward_read(&mut self, side: Side, outcome: Outcome, now: Tick, policy: &Policy) {
        match side {
            Side::Client => self.request_read(outcome, now, policy),
            Side::Upstream => self.response_read(outcome, now, policy),
        }
        // The other direction goes first next time.
        self.first = side.other();
    }

    fn request_read(&mut self, outcome: Outcome, now: Tick, policy: &Policy) {
        match outcome {
            Outcome::Moved(count) => {
                let offered = self.fill_slice(Side::Client).len();
                self.up.read(count, offered, &mut self.client_ready);
                // Who is still heard has not left.
                if let Some(aside) = &mut self.aside {
                    aside.client_left_due = None;
                }
                if let Some(http) = &mut self.http {
                    http.waits_for_continue = false;
                }
                if let Err(details) = self.pass_request() {
                    self.refuse_or_end(Refusal::BadRequest(details), now, policy);
                }
            }
            Outcome::Blocked => self.client_ready.readable = false,
            Outcome::NoStorage => self.up.supply = Supply::Starved,
            // The answer has begun without the rest of the request, and goes on without it.
            // Its end is met once more behind the answer.
            Outcome::Eof if !self.awaits_response() => self.up.sink = Sink::Broken,
            Outcome::Eof => {
                self.refuse_or_end(
                    Refusal::BadRequest("the connection ended inside the request body"),
                    now,
                    policy,
                );
            }
            Outcome::Failed(_) => self.finish(EndReason::ClientReset),
            // Not an outcome of reading.
            Outcome::Done => {}
        }
    }

    fn response_read(&mut self, outcome: Outcome, now: Tick, policy: &Policy) {
        let Some(http) = &mut self.http else { return };
        if http.is_delivered() {
            return self.surplus_read(outcome);
        }
        match outcome {
            Outcome::Moved(_) if http.is_unsent() && self.up.sink == Sink::Open => match http.retry {
                Retry::Once | Retry::Unsent => self.retry(now, policy),
                Retry::Never | Retry::IfReused => {
                    let details = "the destination sent something before it was asked";
                    self.refuse(Refusal::BadResponse(details), now, policy);
                }
            },
            Outcome::Moved(count) => {
                // It is alive: nothing is sent twice from here on.
                http.retry = Retry::Never;
                self.up.ring.drained(std::mem::take(&mut http.held));
                let offered = self.fill_slice(Side::Upstream).len();
                self.down.read(count, offered, &mut self.upstream_ready);
            }
            Outcome::Blocked => self.upstream_ready.readable = false,
            Outcome::NoStorage => self.down.supply = Supply::Starved,
            Outcome::Eof => self.upstream_ended(now, policy),
            Outcome::Failed(failure) => {
                if source_after(failure) == Source::Reset {
                    self.reset.get_or_insert(Side::Upstream);
                }
                self.upstream_ended(now, policy);
            }
            // Not an outcome of reading.
            Outcome::Done => {}
        }
    }

    /// What comes behind a whole answer is never another one.
    fn surplus_read(&mut self, outcome: Outcome) {
        self.upstream_ready.readable = false;
        match outcome {
            Outcome::Blocked => {}
            Outcome::Moved(_) | Outcome::Eof | Outcome::Failed(_) | Outcome::NoStorage | Outcome::Done => {
                if let Some(http) = &mut self.http {
                    http.upstream_connection = Persistence::Close;
                }
            }
        }
    }

    pub(super) fn forward_wrote(&mut self, side: Side, outcome: Outcome) {
        let Some(http) = &mut self.http else { return };
        match (side, outcome) {
            (Side::Upstream, Outcome::Moved(count)) => {
                self.up.count(count);
                let short = !http.short_head().is_empty();
                http.head_unsent = http.head_unsent.saturating_sub(count);
                if http.retry == Retry::Unsent {
                    http.retry = Retry::Never;
                }
                if !short {
                    http.cleared_up -= count;
                    match http.retry {
                        Retry::Once => http.held += count,
                        Retry::Never | Retry::IfReused | Retry::Unsent => self.up.ring.drained(count),
                    }
                }
            }
            (Side::Client, Outcome::Moved(count)) => {
                self.down.wrote(count);
                http.cleared_down -= count;
            }
            (Side::Upstream, Outcome::Blocked) => self.upstream_ready.writable = false,
            (Side::Client, Outcome::Blocked) => self.client_ready.writable = false,
            (Side::Upstream, Outcome::Failed(failure)) => {
                // It may have answered before it stopped listening: that is still to be read, and then its end.
                self.up.sink = Sink::Broken;
                self.upstream_ready.readable = true;
                if source_after(failure) == Source::Reset {
                    self.reset.get_or_insert(Side::Upstream);
                }
            }
            (Side::Client, Outcome::Failed(_)) => self.finish(EndReason::ClientReset),
            // Not outcomes of writing.
            (_, Outcome::Eof | Outcome::Done | Outcome::NoStorage) => {}
        }
    }

    /// The error that an event announced, or a false alarm.
    pub(super) fn forward_error_taken(&mut self, side: Side, outcome: Outcome) {
        match side {
            Side::Client => {
                self.client_ready.error = false;
                if let Outcome::Failed(_) = outcome {
                    self.finish(EndReason::ClientReset);
                }
            }
            Side::Upstream => {
                self.upstream_ready.error = false;
                if let Outcome::Failed(failure) = outcome {
                    self.up.sink = Sink::Broken;
                    self.upstream_ready.readable = true;
                    // Behind its end it is the reset of a peer that had said all.
                    if source_after(failure) == Source::Reset {
                        self.reset.get_or_insert(side);
                    }
                }
            }
        }
    }

    /// Behind every step: what has come is understood as far as it can be, and the next deadline is set.
    pub(super) fn forward_moved(&mut self, outcome: Outcome, now: Tick, policy: &Policy) {
        self.look_at_response(now, policy);
        if matches!(self.state, State::Tunneling) {
            return self.relay_moved(outcome, now, policy);
        }
        let (State::Forwarding, Some(http)) = (&self.state, &self.http) else { return };
        if let Answering::Cut(reason) = http.answering
            && http.cleared_down == 0
        {
            return self.cut_off(reason, now);
        }
        let timeouts = &policy.timeouts;
        let wait_ms = match (http.awaits_head(), self.up.sink) {
            (true, _) => timeouts.response_ms,
            (false, Sink::Open) => timeouts.idle_ms,
            // Its answer goes on without the rest of its request; perhaps the destination waits for that.
            (false, Sink::Shut | Sink::Broken) => timeouts.half_open_ms.min(timeouts.idle_ms),
        };
        // Who sends a head or a trailer byte by byte has no more time for it than who sends it at once: it holds storage.
        let is_part = self.down.ring.len() > http.cleared_down
            || !http.request.is_complete() && self.up.ring.len() > http.held + http.cleared_up;
        match outcome {
            Outcome::Moved(_) | Outcome::Eof | Outcome::Failed(_) if !is_part => {
                self.deadline = now.after(wait_ms);
                self.arm_client_left(now);
            }
            Outcome::Moved(_)
            | Outcome::Eof
            | Outcome::Failed(_)
            | Outcome::Blocked
            | Outcome::Done
            | Outcome::NoStorage => {}
        }
    }

    fn upstream_ended(&mut self, now: Tick, policy: &Policy) {
        self.upstream_ready.readable = false;
        let Some(http) = &mut self.http else { return };
        http.upstream_connection = Persistence::Close;
        let cut = match self.reset {
            Some(_) => EndReason::UpstreamReset,
            None => EndReason::Incomplete,
        };
        match &mut http.answering {
            Answering::Head(_) if matches!(http.retry, Retry::Once | Retry::Unsent) => {
                self.retry(now, policy)
            }
            Answering::Head(_) => self.refuse(Refusal::ResponseIncomplete, now, policy),
            Answering::Body(body) => {
                http.answering = match (body.end(), self.reset) {
                    (End::Complete, None) => Answering::Complete,
                    (End::Complete, Some(_)) | (End::Cut, _) => Answering::Cut(cut),
                }
            }
            Answering::Complete | Answering::Cut(_) => {}
        }
    }

    /// The upstream was given back or closed: the exchange is over.
    pub(super) fn exchange_over(&mut self, now: Tick) {
        let Some(http) = &mut self.http else { return };
        self.end.get_or_insert(EndReason::Done);
        self.up.ring.drained(http.take_cleared());
        self.down.ring.clear();
        self.upstream_ready = Ready::default();
        match http.client_connection {
            ConnectionHeader::KeepAlive => {
                self.exchange = Exchange::Over;
                self.state = State::Idle;
            }
            ConnectionHeader::Close => self.close_behind_answer(EndReason::Done, now),
        }
    }

    /// The answer is cut off here. Its framing says so, if it has one; else the connection must end with a reset, even if that
    /// erases what the client has not been sent yet.
    fn cut_off(&mut self, reason: EndReason, now: Tick) {
        if self.http.as_ref().is_some_and(|http| http.end_is_close && !http.awaits_head()) {
            return self.finish(reason);
        }
        self.end.get_or_insert(self.found_out(reason));
        self.close_behind_answer(reason, now);
    }

    /// Closing with something unread, or to be unread, would be a reset, which may erase the answer. Who asked for the end sends
    /// nothing more.
    fn close_behind_answer(&mut self, reason: EndReason, now: Tick) {
        let may_send = self.client_ready.readable
            || self
                .http
                .as_ref()
                .is_some_and(|http| !http.request.is_complete() || http.client_wish == Persistence::Keep);
        if may_send {
            self.reply(Answer { bytes: Vec::new(), sent: 0, connection: ConnectionHeader::Close }, now);
        } else {
            self.finish(reason);
        }
    }

    /// Whether the answer is the last one, and what goes out now is the rest of it.
    pub(super) fn ends_behind_answer(&self) -> bool {
        self.http.as_ref().is_some_and(|http| {
            matches!(http.answering, Answering::Complete) && http.client_connection == ConnectionHeader::Close
        })
    }

    /// Nobody has taken or sent a byte for `--response-timeout`, and the answer has not begun.
    pub(super) fn response_overdue(&mut self, now: Tick, policy: &Policy) {
        let Some(http) = &self.http else { return };
        let client_owes = http.wants_request(self.up.sink) && !http.waits_for_continue;
        let refusal = if client_owes { Refusal::BodyTimeout } else { Refusal::ResponseTimeout };
        self.refuse_or_end(refusal, now, policy);
    }

    fn refuse_or_end(&mut self, refusal: Refusal, now: Tick, policy: &Policy) {
        if self.may_refuse() {
            self.refuse(refusal, now, policy);
        } else {
            self.cut_off(EndReason::Refused(refusal.error_type()), now);
        }
    }

    /// A refusal can be told only while no answer has begun, and not into the middle of an interim one.
    pub(super) fn may_refuse(&self) -> bool {
        self.http.as_ref().is_none_or(|http| http.awaits_head() && http.cleared_down == 0)
    }

    /// Whether the answer proper has not begun.
    pub(super) fn awaits_response(&self) -> bool {
        self.http.as_ref().is_some_and(|http| http.awaits_head())
    }

    /// What is to be written next, in one piece.
    pub(super) fn forward_slice(&self, side: Side) -> &[u8] {
        let Some(http) = &self.http else { return &[] };
        match side {
            Side::Client => &self.down.ring.contents()[..http.cleared_down],
            Side::Upstream if http.short_head().is_empty() => {
                &self.up.ring.contents()[http.held..http.held + http.cleared_up]
            }
            Side::Upstream => http.short_head(),
        }
    }

    /// Storage is scarce: what is only kept in case, while an answer is awaited, is given up. The request is not sent once more
    /// if its upstream dies, and what the client has sent behind it is for another connection.
    pub fn spare_storage(&mut self) {
        if let (State::Forwarding, Some(http)) = (&self.state, &mut self.http)
            && http.awaits_head()
            && http.request.is_complete()
            && !http.has_for_upstream()
            && http.protocols.is_none()
        {
            http.retry = Retry::Never;
            self.up.ring.drained(std::mem::take(&mut http.held));
            if !self.up.ring.is_empty() {
                self.up.ring.clear();
                http.client_connection = ConnectionHeader::Close;
            }
        }
    }

    /// Whether the request has a body of which nothing came with its head.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        self.http
            .as_ref()
            .is_some_and(|http| !http.request.is_complete() && http.cleared_up == http.head_bytes)
    }

    /// Where the upstream leads, for whoever keeps it idle ([`Step::Park`]).
    pub fn take_origin(&mut self) -> Option<Box<Origin>> {
        self.http.as_mut().and_then(|http| http.origin.take())
    }
}
