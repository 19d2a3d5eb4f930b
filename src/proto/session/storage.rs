//! The storage of a session's rings: borrowed while bytes wait or are about to, and little of it where there is little.

use super::{Session, Side, State};
use crate::proto::onward::GROWTH_MAX_BYTES;
use crate::proto::relay::{Half, Supply};
use crate::proto::ring::{Pool, RING_BYTES, SMALL_RING_BYTES};

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

    /// Borrows storage for reading from `side`, if there is none to read into. `false`: there is none to be had.
    pub fn borrow_storage(&mut self, side: Side, pool: &mut Pool) -> bool {
        if !self.fill_slice(side).is_empty() {
            return true;
        }
        let is_scarce = pool.is_scarce();
        let lent = match side {
            Side::Client | Side::Upstream if is_scarce && matches!(self.state, State::Tunneling) => {
                pool.lend_small()
            }
            // Requests are small, and what they are read into is what most of them wait in.
            Side::Client => pool.lend(),
            Side::Upstream => pool.lend_wide(),
        };
        let Some(storage) = lent else { return false };
        let half = self.half_from(side);
        half.supply = if is_scarce { Supply::Scarce } else { Supply::Plenty };
        if let Some(unneeded) = half.ring.attach(storage) {
            pool.give_back(unneeded);
        }
        true
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
