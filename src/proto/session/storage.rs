//! The storage of a session's rings: borrowed while bytes wait or are about to, and little of it where there is little.

use super::{Outcome, Session, Side, State, Step};
use crate::proto::onward::GROWTH_MAX_BYTES;
use crate::proto::relay::{Half, SLOW_MS, Supply};
use crate::proto::ring::{Pool, RING_BYTES, SMALL_RING_BYTES, Standing};
use crate::proto::tick::{Millis, Tick};

/// While storage is scarce, so much of a body is read at a time: what of it has to wait fits into a small ring.
const SIP_BYTES: usize = SMALL_RING_BYTES - GROWTH_MAX_BYTES;

impl Session {
    /// Where the next bytes read from `side` belong. Empty if storage must be lent first ([`Session::borrow_storage`]).
    pub fn fill_slice(&mut self, side: Side) -> &mut [u8] {
        let reads_head = matches!(self.state, State::Idle | State::ReadingHead(_));
        if matches!(self.state, State::Tunneling) {
            return self.half_from(side).ring.fill_slice();
        }
        // Heads are read in one piece, and written anew in their place: not in a ring that holds no head.
        let Half { ring, supply, .. } = self.half_from(side);
        if ring.capacity() < RING_BYTES {
            return &mut [];
        }
        let room = ring.capacity().saturating_sub(GROWTH_MAX_BYTES + ring.len());
        let most = if *supply == Supply::Scarce && !reads_head { SIP_BYTES } else { usize::MAX };
        ring.compact();
        let space = ring.fill_slice();
        let end = space.len().min(room).min(most);
        &mut space[..end]
    }

    /// What is known of the sink of what comes from `side`.
    #[must_use]
    pub fn standing(&self, side: Side) -> Standing {
        match side {
            Side::Client => self.up.standing(),
            Side::Upstream => self.down.standing(),
        }
    }

    /// Borrows storage for reading from `side`, if there is none to read into. `false`: there is none to be had. A tunnel then does
    /// without ([`Step::Pass`]), also where there is some, but little: what its sink does not take stays where it is.
    pub fn borrow_storage(&mut self, side: Side, pool: &mut Pool) -> bool {
        let is_tunnel = self.is_tunnel();
        let half = self.half_from(side);
        // The kernel swallows megabytes for a reader that never reads: of tunnels, any may turn out to be one.
        let has_enough = pool.spares(if is_tunnel { Standing::Slow } else { half.standing() });
        let is_small = half.is_small();
        let holds_little = half.ring.capacity() < RING_BYTES;
        let fits = if has_enough { !holds_little } else { holds_little && is_small };
        // What held little does for little only, and what held much is wanted by others.
        if is_tunnel
            && !fits
            && let Some(other) = half.ring.detach_if_empty()
        {
            pool.give_back(other);
        }
        if !self.fill_slice(side).is_empty() {
            return true;
        }
        let lent = match side {
            Side::Client | Side::Upstream if is_tunnel && !has_enough => {
                // Three system calls in place of two.
                if is_small && pool.spares(Standing::Fresh) { pool.lend_small() } else { None }
            }
            // Requests are small, and what they are read into is what most of them wait in.
            Side::Client => pool.lend(),
            Side::Upstream if !has_enough => pool.lend(),
            Side::Upstream if is_tunnel => pool.lend_wide(),
            Side::Upstream => pool.lend_for_answer(),
        };
        let Some(storage) = lent else { return false };
        let half = self.half_from(side);
        half.supply = if has_enough || is_tunnel { Supply::Plenty } else { Supply::Scarce };
        if let Some(unneeded) = half.ring.attach(storage) {
            pool.give_back(unneeded);
        }
        true
    }

    /// How long bytes had to wait for a sink is what says whether it is slow. One with room at once has said nothing.
    pub(super) fn time_sink(&mut self, step: Step, outcome: Outcome, now: Tick) {
        let side = if let Step::Write(side) | Step::Drain(side) = step {
            side
        } else if let (Step::Pass(side), Outcome::Moved(_)) = (step, outcome) {
            side.other()
        } else {
            return;
        };
        let elapsed = Millis::between(self.started, now);
        let full_since = &mut self.full_since[side as usize];
        match outcome {
            Outcome::Blocked => _ = full_since.get_or_insert(elapsed),
            Outcome::Moved(_) => {
                if let Some(since) = full_since.take()
                    && elapsed.get().saturating_sub(since.get()) >= SLOW_MS
                {
                    self.half_from(side.other()).mark_slow();
                }
            }
            Outcome::Eof | Outcome::Failed(_) | Outcome::Done | Outcome::NoStorage => {}
        }
    }

    /// Storage is scarce: what little waits is held in little.
    pub fn tighten(&mut self, pool: &mut Pool) {
        for half in [&mut self.up, &mut self.down] {
            pool.tighten(&mut half.ring, GROWTH_MAX_BYTES);
        }
    }

    /// Gives back storage that holds nothing. To be called whenever the session stops running.
    pub fn return_storage(&mut self, pool: &mut Pool) {
        for half in [&mut self.up, &mut self.down] {
            if matches!(self.state, State::Closed) {
                half.clear();
            }
            if let Some(storage) = half.ring.detach_if_empty() {
                pool.give_back(storage);
            }
        }
    }

    /// Whether it is a tunnel, which can do without storage.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunneling)
    }

    /// Whether it holds storage that was lent. For assertions.
    #[must_use]
    pub fn holds_storage(&self) -> bool {
        self.up.ring.has_storage() || self.down.ring.has_storage()
    }

    /// The free list can lend again.
    pub fn on_storage(&mut self) {
        for half in [&mut self.up, &mut self.down] {
            if half.is_starved() {
                half.supply = Supply::Scarce;
            }
        }
    }

    /// Whether bytes wait for storage to be read into.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.up.is_starved() || self.down.is_starved()
    }
}
