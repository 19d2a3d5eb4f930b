//! When each session, or lookup of a name, must be looked at again, sorted.
//!
//! An entry says no more than that, and need not be the session's deadline: activity moves deadlines away all the time and
//! does not touch the queue. When an entry comes up, the session is asked for its real deadline, and if that is later the entry is
//! put back with it. So an entry stays where it is as long as it is not later than the deadline, whatever either is for:
//! a connection that comes and goes within seconds is queued once.
//!
//! An entry that is put back may belong anywhere in the queue, and thousands of tunnels that were opened together come up
//! together, so the queue is a tree. A linked list with the search from its end took 0.25 s for 16,000 of them and
//! 26 s for 100,000.

use std::collections::BTreeSet;

use super::tick::Tick;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request head must be complete (`--head-timeout`).
    Head,
    /// Credentials must be verified.
    Login,
    /// The name must be resolved (`--resolve-timeout`).
    Resolve,
    /// The upstream connection must stand (`--dial-timeout`).
    Dial,
    /// The next address is to be tried beside those that are being dialed.
    Attempt,
    /// A client that closed its sending side before it had an answer is given up.
    ClientLeft,
    /// Nothing moved in a tunnel (`--idle-timeout`).
    Idle,
    /// One direction has ended and nothing moved in the other (`--half-open-timeout`).
    HalfOpen,
    /// An answer of the proxy must be taken, and what the client still sends be over.
    Linger,
    /// No response head within `--response-timeout`.
    Response,
    /// No next request within `--keepalive-timeout`.
    KeepAlive,
}

/// All entries of one loop, at most one per session key.
///
/// An entry is one number, when and behind that whose, which is what an idle tunnel pays for twice.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// By session key: its entry in the queue, or [`NONE`].
    set: Vec<u64>,
    queue: BTreeSet<u64>,
}

const KEY_BITS: u32 = 24;
/// More than any entry: no key has all bits set.
const NONE: u64 = u64::MAX;

impl Deadlines {
    /// Keys must be smaller.
    pub const KEYS: usize = (1 << KEY_BITS) - 1;

    /// Session `key` is to be looked at when `due`, and not when it was to be before.
    pub fn set(&mut self, key: usize, due: Tick) {
        debug_assert!(key < Deadlines::KEYS, "{key} would be taken for another");
        self.remove(key);
        if key >= self.set.len() {
            self.set.resize(key + 1, NONE);
        }
        // Who would wait for more than 34 years is looked at earlier, like anybody whose deadline has moved.
        let entry = (due.0.min(NONE >> KEY_BITS) << KEY_BITS) | key as u64;
        self.set[key] = entry;
        self.queue.insert(entry);
    }

    /// Session `key` need not be looked at any more.
    pub fn remove(&mut self, key: usize) {
        if let Some(entry) = self.set.get_mut(key)
            && *entry != NONE
        {
            self.queue.remove(entry);
            *entry = NONE;
        }
    }

    /// No session has a key as large as `keys`: gives back what was for such.
    pub fn shrink(&mut self, keys: usize) {
        debug_assert!(self.set.iter().skip(keys).all(|&entry| entry == NONE), "forgotten while it is set");
        self.set.truncate(keys);
        // In two steps: glibc remembers the size of a large block that is freed, and not of one that becomes small.
        self.set.shrink_to(1);
        self.set.shrink_to_fit();
    }

    /// When session `key` is to be looked at.
    #[must_use]
    pub fn get(&self, key: usize) -> Option<Tick> {
        self.set.get(key).filter(|&&entry| entry != NONE).map(|&entry| when(entry))
    }

    /// How many are set.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.queue.len()
    }

    /// The nearest entry of all.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        self.queue.first().map(|&entry| when(entry))
    }

    /// Takes out one session that is to be looked at `now` or earlier.
    pub fn pop_due(&mut self, now: Tick) -> Option<usize> {
        if self.next()? > now {
            return None;
        }
        let key = self.queue.pop_first()? as usize & Deadlines::KEYS;
        self.set[key] = NONE;
        Some(key)
    }
}

fn when(entry: u64) -> Tick {
    Tick(entry >> KEY_BITS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_sorted_map() {
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut deadlines = Deadlines::default();
        let mut model: BTreeMap<usize, Tick> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..50_000 {
            now += random(3);
            let key = random(64) as usize;
            match random(4) {
                0 | 1 => {
                    let due = Tick(now + random(200));
                    deadlines.set(key, due);
                    model.insert(key, due);
                    assert_eq!(deadlines.get(key), Some(due));
                }
                2 => {
                    deadlines.remove(key);
                    model.remove(&key);
                }
                _ => {
                    while let Some(due) = deadlines.pop_due(Tick(now)) {
                        assert!(model.remove(&due).unwrap() <= Tick(now), "came up early");
                    }
                    assert!(model.values().all(|&due| due > Tick(now)), "did not come up");
                }
            }
            assert_eq!(deadlines.next(), model.values().min().copied());
        }
    }

    #[test]
    fn entries_come_up_in_order() {
        let mut deadlines = Deadlines::default();
        for (key, due) in [(3, 30), (1, 10), (2, 20), (0, 10)] {
            deadlines.set(key, Tick(due));
        }
        let order: Vec<usize> = std::iter::from_fn(|| deadlines.pop_due(Tick(99))).collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn the_last_key_and_the_last_moment_have_room() {
        let mut deadlines = Deadlines::default();
        deadlines.set(Deadlines::KEYS - 1, Tick(7));
        deadlines.set(1, Tick(u64::MAX));
        assert_eq!((deadlines.get(0), deadlines.get(Deadlines::KEYS - 1)), (None, Some(Tick(7))));
        assert!(deadlines.get(1).unwrap() > Tick(1_000 * 60 * 60 * 24 * 365 * 34));
        let order: Vec<usize> = std::iter::from_fn(|| deadlines.pop_due(Tick(u64::MAX))).collect();
        assert_eq!(order, [Deadlines::KEYS - 1, 1]);
    }

    #[test]
    fn unknown_keys_are_harmless() {
        let mut deadlines = Deadlines::default();
        deadlines.remove(5);
        assert_eq!((deadlines.get(5), deadlines.pop_due(Tick(1))), (None, None));
    }
}
