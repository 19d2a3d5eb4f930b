//! Clients between two requests: who has been idle for the longest gives way first. Nothing is kept in order for that while
//! there is enough for all; a search goes through all sessions, and there is a pause behind it.

use super::tick::Tick;

/// Sessions that are looked at for each millisecond of the pause.
const SESSIONS_PER_MS: usize = 500;

/// What came of looking for an idle client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The session with this key.
    Found(usize),
    /// There is none.
    Nobody,
    /// There was none; the next search is not due yet.
    TooEarly,
}

/// As the last search has found them.
#[derive(Debug, Default)]
pub struct IdleClients {
    /// Until when they are kept, and their keys; the longest idle last.
    found: Vec<(Tick, usize)>,
    next_search: Tick,
}

impl IdleClients {
    /// The client that has been idle for the longest. All keys are smaller than `keys`; `idle_until` says until when the client
    /// of one is kept, if it is idle.
    pub fn longest(&mut self, keys: usize, idle_until: impl Fn(usize) -> Option<Tick>, now: Tick) -> Search {
        // It may have asked since, or be gone.
        while self.found.pop_if(|&mut (until, key)| idle_until(key) != Some(until)).is_some() {}
        if self.found.is_empty() {
            if now < self.next_search {
                return Search::TooEarly;
            }
            self.found.extend((0..keys).filter_map(|key| Some((idle_until(key)?, key))));
            self.found.sort_unstable_by(|one, other| other.cmp(one));
            self.next_search = now.after((keys / SESSIONS_PER_MS) as u64);
        }
        self.found.last().map_or(Search::Nobody, |&(_, key)| Search::Found(key))
    }

    /// Before that, looking again is too early.
    #[must_use]
    pub fn due(&self) -> Tick {
        if self.found.is_empty() { self.next_search } else { Tick(0) }
    }

    /// Gives back the memory of a search, in such a way that it goes back to the system.
    pub fn shrink(&mut self) {
        self.found.clear();
        self.found.shrink_to(1);
        self.found.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_is_found_first() {
        let mut until = [None, Some(Tick(30)), Some(Tick(10)), None, Some(Tick(20))];
        let mut idle = IdleClients::default();
        let mut found = Vec::new();
        while let Search::Found(key) = idle.longest(until.len(), |key| until[key], Tick(0)) {
            found.push(key);
            until[key] = None;
        }
        assert_eq!(found, [2, 4, 1]);
    }

    #[test]
    fn who_has_asked_meanwhile_is_passed_over() {
        let mut until = [Some(Tick(10)), Some(Tick(20)), Some(Tick(30))];
        let mut idle = IdleClients::default();
        assert_eq!(idle.longest(3, |key| until[key], Tick(0)), Search::Found(0));
        assert_eq!(idle.longest(3, |key| until[key], Tick(0)), Search::Found(0), "it need not give way");
        until[0] = Some(Tick(40));
        until[1] = None;
        assert_eq!(idle.longest(3, |key| until[key], Tick(0)), Search::Found(2));
        until[2] = None;
        assert_eq!(idle.longest(3, |key| until[key], Tick(0)), Search::Found(0), "idle anew");
    }

    #[test]
    fn there_is_a_pause_behind_a_search() {
        let mut idle = IdleClients::default();
        let keys = 10 * SESSIONS_PER_MS;
        let nobody = |_| None;
        assert_eq!(idle.longest(keys, nobody, Tick(5)), Search::Nobody);
        assert_eq!(idle.due(), Tick(15));
        let one = |key| (key == 7).then_some(Tick(99));
        assert_eq!(idle.longest(keys, one, Tick(14)), Search::TooEarly);
        assert_eq!(idle.longest(keys, one, Tick(15)), Search::Found(7));
        assert_eq!(idle.due(), Tick(0), "whoever is left is there at once");
        assert_eq!(idle.longest(keys, nobody, Tick(16)), Search::TooEarly);
        assert_eq!(idle.due(), Tick(25));
    }
}
