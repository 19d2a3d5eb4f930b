//! The tunnel: two halves that take turns, and when it is over.

use super::{EndReason, Outcome, Policy, Session, Side, State, Step};
use crate::proto::relay::{Half, Move, PLENTY_BYTES, Ready, Sink, Source, Supply, source_after};
use crate::proto::tick::Tick;

impl Session {
    /// From here on it owns what the relay and the access line need, and nothing else.
    pub(super) fn start_tunneling(&mut self) {
        self.aside = None;
        self.state = State::Tunneling;
        // Nobody waits for storage in a tunnel, and whether there is enough is asked before the next bytes.
        (self.up.supply, self.down.supply) = (Supply::Plenty, Supply::Plenty);
    }

    pub(super) fn relay_step(&self) -> Step {
        if self.greeting_left > 0 && self.client_ready.writable {
            return Step::Write(Side::Client);
        }
        let up = self.up.next(self.client_ready, self.upstream_ready);
        let down = match self.greeting_left {
            0 => self.down.next(self.upstream_ready, self.client_ready),
            _ => Move::Nothing,
        };
        // What was read goes out before anything more is read, in whichever direction; reading then takes turns.
        match (up, down, self.first) {
            (Move::Write, _, _) => Step::Write(Side::Upstream),
            (Move::Drain, _, _) => Step::Drain(Side::Upstream),
            (_, Move::Write, _) => Step::Write(Side::Client),
            (_, Move::Drain, _) => Step::Drain(Side::Client),
            (Move::ShutdownWrite, _, _) => Step::ShutdownWrite(Side::Upstream),
            (_, Move::ShutdownWrite, _) => Step::ShutdownWrite(Side::Client),
            (Move::Nothing, Move::Nothing, _) => self.watch_both(),
            (taken, Move::Nothing, _) | (taken @ (Move::Read | Move::Pass | Move::Fill), _, Side::Client) => {
                Self::take_step(taken, Side::Client)
            }
            (_, taken, _) => Self::take_step(taken, Side::Upstream),
        }
    }

    fn take_step(taken: Move, side: Side) -> Step {
        match taken {
            Move::Read => Step::Read(side),
            Move::Pass => Step::Pass(side),
            Move::Fill => Step::Fill(side),
            // Chosen before.
            Move::Write | Move::Drain | Move::ShutdownWrite | Move::Nothing => Step::Wait,
        }
    }

    /// A reset is met by the next read. A side that is not read from, because it has ended or because what it sent before
    /// cannot be passed on yet, must be asked.
    pub(super) fn watch_both(&self) -> Step {
        if self.client_ready.error {
            Step::TakeError(Side::Client)
        } else if self.upstream_ready.error {
            Step::TakeError(Side::Upstream)
        } else {
            Step::Wait
        }
    }

    /// The error that an event announced, or a false alarm. A client that is gone takes everything with it. An upstream that
    /// is gone takes nothing more; what it has said is still passed on, if the client takes it before the half-open timeout,
    /// and if it had ended before, that end stays in order.
    pub(super) fn error_taken(&mut self, side: Side, outcome: Outcome) {
        let failed = match outcome {
            Outcome::Failed(_) => true,
            Outcome::Moved(_) | Outcome::Blocked | Outcome::Eof | Outcome::Done | Outcome::NoStorage => false,
        };
        match side {
            Side::Client => self.client_ready.error = false,
            Side::Upstream => self.upstream_ready.error = false,
        }
        match (failed, side) {
            (false, _) => {}
            (true, Side::Client) => {
                self.reset.get_or_insert(side);
                self.finish(EndReason::ClientReset);
            }
            (true, Side::Upstream) => {
                if self.down.source == Source::Open {
                    self.reset.get_or_insert(side);
                }
                self.up.write_failed();
            }
        }
    }

    pub(super) fn relay_read(&mut self, side: Side, outcome: Outcome) {
        let (half, ready) = self.half_and_source(side);
        match outcome {
            Outcome::Moved(count) => {
                let offered = half.ring.fill_slice().len();
                half.read(count, offered, ready);
                half.weigh(count, offered);
            }
            Outcome::Blocked => ready.readable = false,
            Outcome::NoStorage => half.supply = Supply::Scarce,
            // Perhaps behind a reset: the kernel tells an error once (kernel fact
            // `a_reset_is_told_once_then_looks_like_end_of_file`). Whoever met it, a write or `TakeError`, has broken the
            // sink towards that side, and `relay_moved` goes by that.
            Outcome::Eof => half.read_ended(Source::Ended, ready),
            Outcome::Failed(failure) => {
                half.read_ended(source_after(failure), ready);
                if half.source == Source::Reset {
                    self.reset.get_or_insert(side);
                }
            }
            // Not an outcome of reading.
            Outcome::Done => {}
        }
        // The other direction goes first next time.
        self.first = side.other();
    }

    /// What was passed on was never held. Whether there is storage again is asked before the next bytes.
    pub(super) fn relay_passed(&mut self, side: Side, outcome: Outcome) {
        let (half, _) = self.half_and_source(side);
        half.supply = Supply::Plenty;
        match outcome {
            Outcome::Moved(count) => {
                half.count(count);
                half.weigh(count, PLENTY_BYTES);
                self.first = side.other();
            }
            Outcome::Blocked | Outcome::Eof | Outcome::Failed(_) | Outcome::Done | Outcome::NoStorage => {
                self.relay_read(side, outcome);
            }
        }
    }

    /// A pipe is only a shorter way for bytes. What looks like the end may be urgent data (kernel fact
    /// `a_fill_at_urgent_data_looks_like_the_end_once_a_fin_is_behind_it`): that is for a read to say.
    pub(super) fn relay_filled(&mut self, side: Side, outcome: Outcome) {
        let (half, _) = self.half_and_source(side);
        match outcome {
            Outcome::Moved(count) => {
                half.filled(count);
                self.first = side.other();
            }
            Outcome::Eof | Outcome::NoStorage => half.avoid_pipe(),
            Outcome::Blocked | Outcome::Failed(_) | Outcome::Done => self.relay_read(side, outcome),
        }
    }

    pub(super) fn relay_wrote(&mut self, side: Side, outcome: Outcome) {
        let greeting = side == Side::Client && self.greeting_left > 0;
        let (half, ready) = self.half_and_sink(side);
        match outcome {
            Outcome::Moved(count) if greeting => self.greeting_left -= (count as u8).min(self.greeting_left),
            Outcome::Moved(count) => half.wrote(count),
            Outcome::Blocked => ready.writable = false,
            Outcome::Failed(failure) => {
                half.write_failed();
                // What the peer said before is still to be read, and then its end.
                ready.readable = true;
                if source_after(failure) == Source::Reset {
                    self.reset.get_or_insert(side);
                }
                if side == Side::Client {
                    self.greeting_left = 0;
                }
            }
            // Not an outcome of writing.
            Outcome::Eof | Outcome::Done | Outcome::NoStorage => {}
        }
    }

    pub(super) fn sink_shut(&mut self, side: Side, outcome: Outcome) {
        let (half, _) = self.half_and_sink(side);
        half.sink = match outcome {
            Outcome::Failed(_) => Sink::Broken,
            Outcome::Moved(_) | Outcome::Blocked | Outcome::Eof | Outcome::Done | Outcome::NoStorage => {
                Sink::Shut
            }
        };
    }

    /// Behind every step of the tunnel: is it over, and when is it looked at again if nothing moves.
    pub(super) fn relay_moved(&mut self, outcome: Outcome, now: Tick, policy: &Policy) {
        match outcome {
            Outcome::Moved(_) | Outcome::Eof | Outcome::Done | Outcome::Failed(_) => {
                let timeouts = &policy.timeouts;
                let half_open_ms = timeouts.half_open_ms.min(timeouts.idle_ms);
                self.deadline = now.after(if self.is_half_open() { half_open_ms } else { timeouts.idle_ms });
            }
            Outcome::Blocked | Outcome::NoStorage => {}
        }
        if self.greeting_left > 0 && self.reset.is_none() {
            return;
        }
        if self.up.source == Source::Reset && self.up.is_empty() {
            self.finish(EndReason::ClientReset);
        } else if self.down.source == Source::Reset && self.down.is_empty() {
            self.finish(EndReason::UpstreamReset);
        } else if self.up.is_over() && self.down.is_over() {
            self.finish(match (self.up.sink, self.down.sink) {
                (_, Sink::Broken) => EndReason::ClientReset,
                (Sink::Broken, Sink::Open | Sink::Shut) => EndReason::UpstreamReset,
                (Sink::Open | Sink::Shut, Sink::Open | Sink::Shut) => EndReason::Done,
            });
        }
    }

    pub(super) fn is_half_open(&self) -> bool {
        let is_whole = |half: &Half| half.source == Source::Open && half.sink == Sink::Open;
        !(is_whole(&self.up) && is_whole(&self.down)) || self.reset.is_some()
    }

    /// Whether bytes that came from `side` are in a pipe. Once there are none, the session needs none; to be asked behind
    /// [`Session::return_storage`].
    #[must_use]
    pub fn holds_pipe(&self, side: Side) -> bool {
        match side {
            Side::Client => self.up.piped > 0,
            Side::Upstream => self.down.piped > 0,
        }
    }

    fn half_and_source(&mut self, side: Side) -> (&mut Half, &mut Ready) {
        match side {
            Side::Client => (&mut self.up, &mut self.client_ready),
            Side::Upstream => (&mut self.down, &mut self.upstream_ready),
        }
    }

    fn half_and_sink(&mut self, side: Side) -> (&mut Half, &mut Ready) {
        match side {
            Side::Client => (&mut self.down, &mut self.client_ready),
            Side::Upstream => (&mut self.up, &mut self.upstream_ready),
        }
    }
}
