//! How an exchange ends and a session closes, and what is told of it.

use super::{Asked, DRAIN_IDLE_MS, EndReason, Exchange, Outcome, Policy, Record, Session, Side, State, Step};
use crate::proto::failure::Failure;
use crate::proto::relay::{Half, Sink, Supply};
use crate::proto::reply::Refusal;
use crate::proto::tick::{Millis, Tick};

impl Session {
    /// The proxy takes no new connections. Requests under way and tunnels go on.
    pub fn on_drain(&mut self, now: Tick) {
        self.draining = true;
        if matches!(self.state, State::Idle) {
            self.deadline = self.deadline.min(now.after(DRAIN_IDLE_MS));
        }
    }

    /// The grace is over: who has no answer yet is told why, and everything ends.
    pub fn on_grace_over(&mut self, now: Tick, policy: &Policy) {
        self.draining = true;
        match self.state {
            State::Idle => self.finish(EndReason::Unused),
            State::ReadingHead(_)
            | State::Authenticating(_)
            | State::Reusing
            | State::Resolving { .. }
            | State::Dialing(_) => {
                self.refuse(Refusal::ShuttingDown, now, policy);
            }
            State::Forwarding if self.may_refuse() => self.refuse(Refusal::ShuttingDown, now, policy),
            State::Forwarding => self.finish(EndReason::Grace),
            State::Tunneling => self.finish(EndReason::Grace),
            // Its answer is out or going out.
            State::Replying(_) | State::Lingering { .. } | State::Closed => {}
        }
    }

    /// The process ends now. What is still open is closed and logged.
    pub fn on_quit(&mut self) {
        self.finish(EndReason::Grace);
    }

    /// Whether closing `side` is to be a reset: what the other side did, or a stream that was cut off.
    #[must_use]
    pub fn closes_with_reset(&self, side: Side) -> bool {
        match self.end {
            Some(EndReason::ClientReset | EndReason::ClientVanished) => side == Side::Upstream,
            // In plain HTTP, what tells the client that its answer was cut off.
            Some(EndReason::UpstreamReset | EndReason::UpstreamVanished)
                if self.http.is_some() && self.status != Some(101) =>
            {
                side == Side::Client && self.cut
            }
            Some(EndReason::UpstreamReset | EndReason::UpstreamVanished) => {
                side == Side::Client && self.reset == Some(Side::Upstream)
            }
            // A FIN here would make a cut stream look complete.
            Some(EndReason::Grace | EndReason::IdleTimeout | EndReason::HalfOpenTimeout) => self.cut,
            Some(EndReason::Incomplete | EndReason::BadResponse(_) | EndReason::Refused(_)) => {
                side == Side::Client && self.cut
            }
            Some(EndReason::Done | EndReason::Unused | EndReason::ClientLeft) | None => false,
        }
    }

    /// The access line's facts about the exchange that has just ended.
    #[must_use]
    pub fn record(&self, now: Tick) -> Record<'_> {
        Record {
            client: self.client,
            user: self.user.as_deref(),
            request: match (self.http.as_ref().map(|http| http.asked()), &self.target) {
                (Some(Some((method, url))), _) => Asked::Http { method, url },
                (None, Some(target)) => Asked::Connect(target),
                (Some(None), _) | (None, None) => Asked::Nothing,
            },
            status: self.status,
            via: self.via,
            rule: self.rule.as_deref(),
            up_bytes: self.up.moved,
            down_bytes: self.down.moved,
            dns_ms: self.dns_ms.map(Millis::get),
            dial_ms: self.dial_ms.map(Millis::get),
            total_ms: now.since(self.started),
            end: self.end.map_or("-", EndReason::word),
            refusal: self.refusal.as_deref(),
            cut_because: match self.end {
                Some(EndReason::BadResponse(details)) => Some(details),
                Some(_) | None => None,
            },
        }
    }

    /// The reason, now that it is known whose connection the kernel gave up.
    pub(super) fn found_out(&self, reason: EndReason) -> EndReason {
        match (reason, self.vanished) {
            (EndReason::ClientReset, Some(Side::Client)) => EndReason::ClientVanished,
            (EndReason::UpstreamReset, Some(Side::Upstream)) => EndReason::UpstreamVanished,
            (reason, _) => reason,
        }
    }

    /// What the kernel says when it has given up: `TimedOut`, or what a router said last.
    pub(super) fn note_vanished(&mut self, step: Step, outcome: Outcome) {
        if let Step::Read(side)
        | Step::Pass(side)
        | Step::Write(side)
        | Step::Fill(side)
        | Step::Drain(side)
        | Step::TakeError(side) = step
            && matches!(outcome, Outcome::Failed(Failure::TimedOut | Failure::Unreachable))
        {
            self.vanished.get_or_insert(side);
        }
    }

    /// The only way to `Closed`. The first cause wins.
    pub(super) fn finish(&mut self, reason: EndReason) {
        let reason = self.found_out(reason);
        self.end.get_or_insert(reason);
        let is_cut = |half: &Half| {
            // What waits to be passed on is not held.
            !half.is_empty() || half.sink == Sink::Broken || half.supply != Supply::Plenty
        };
        let is_tunnel = matches!(self.state, State::Tunneling);
        self.cut = match &self.http {
            Some(http) if !is_tunnel => http.end_is_close && !http.awaits_head(),
            Some(_) | None => is_tunnel && (is_cut(&self.up) || is_cut(&self.down) || self.greeting_left > 0),
        };
        if self.exchange == Exchange::Open {
            self.exchange = Exchange::Over;
        }
        self.state = State::Closed;
    }
}
