//! When each session must be looked at again: one sorted queue per kind of timeout.
//!
//! Activity does not touch the queue: when an entry comes up although its session was active meanwhile, it is put back
//! with its real deadline. That deadline may belong anywhere in the queue, and thousands of tunnels that were opened together
//! come up together, so the queues are trees. A linked list with the search from its end took 0.25 s for 16,000 of them and
//! 26 s for 100,000.

use std::collections::BTreeSet;

use super::tick::Tick;

/// The kinds of timeout. One queue each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request head must be complete (`--head-timeout`).
    Head,
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
}

const KINDS: usize = Kind::Linger as usize + 1;

/// All deadlines of one loop, at most one per session key.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// By session key.
    set: Vec<Option<(Kind, Tick)>>,
    queues: [BTreeSet<(Tick, u32)>; KINDS],
}

impl Deadlines {
    /// Sets the deadline of session `key`, in place of the one it had.
    pub fn set(&mut self, key: usize, kind: Kind, due: Tick) {
        self.remove(key);
        if key >= self.set.len() {
            self.set.resize(key + 1, None);
        }
        self.set[key] = Some((kind, due));
        self.queues[kind as usize].insert((due, short(key)));
    }

    /// Session `key` has no deadline any more.
    pub fn remove(&mut self, key: usize) {
        if let Some((kind, due)) = self.set.get_mut(key).and_then(Option::take) {
            self.queues[kind as usize].remove(&(due, short(key)));
        }
    }

    /// What is set for session `key`.
    #[must_use]
    pub fn get(&self, key: usize) -> Option<(Kind, Tick)> {
        self.set.get(key).copied().flatten()
    }

    /// The nearest deadline of all.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        self.queues.iter().filter_map(BTreeSet::first).map(|&(due, _)| due).min()
    }

    /// Takes out one session whose deadline is `now` or earlier.
    pub fn pop_due(&mut self, now: Tick) -> Option<usize> {
        let due =
            |queue: &BTreeSet<(Tick, u32)>| queue.first().filter(|(due, _)| *due <= now).map(|&(_, key)| key);
        let key = self.queues.iter().find_map(due)? as usize;
        self.remove(key);
        Some(key)
    }
}

/// Session keys are far smaller than 2^32: `--max-sessions` is bounded.
fn short(key: usize) -> u32 {
    key as u32
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
        let kinds = [Kind::Head, Kind::Dial, Kind::Idle, Kind::Linger];
        let mut deadlines = Deadlines::default();
        let mut model: BTreeMap<usize, Tick> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..50_000 {
            now += random(3);
            let key = random(64) as usize;
            match random(4) {
                0 | 1 => {
                    let (kind, due) = (kinds[random(4) as usize], Tick(now + random(200)));
                    deadlines.set(key, kind, due);
                    model.insert(key, due);
                    assert_eq!(deadlines.get(key), Some((kind, due)));
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
    fn same_kind_comes_up_in_order() {
        let mut deadlines = Deadlines::default();
        for (key, due) in [(3, 30), (1, 10), (2, 20), (0, 10)] {
            deadlines.set(key, Kind::Idle, Tick(due));
        }
        let order: Vec<usize> = std::iter::from_fn(|| deadlines.pop_due(Tick(99))).collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn unknown_keys_are_harmless() {
        let mut deadlines = Deadlines::default();
        deadlines.remove(5);
        assert_eq!((deadlines.get(5), deadlines.pop_due(Tick(1))), (None, None));
    }
}
