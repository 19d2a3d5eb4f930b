//! Happy Eyeballs (RFC 8305): which address is dialed next, and when, while others are still being dialed.
//!
//! AAAA is waited for a moment if A comes first; families alternate, IPv6 first; the next attempt starts 250 ms after the
//! last one or at once when one fails; whoever stands first wins and the others are given up. Addresses may still arrive meanwhile.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::failure::Failure;
use super::lookup::Families;
use super::relay::Ready;
use super::reply::Refusal;
use super::rules::RuleName;
use super::tick::Tick;

/// How long IPv4 waits for an IPv6 answer that is still under way (RFC 8305 3).
pub const RESOLUTION_DELAY_MS: u64 = 50;
/// From the start of one attempt to the start of the next (RFC 8305 5).
pub const ATTEMPT_DELAY_MS: u64 = 250;
/// Attempts at once.
pub const PLACES: usize = 4;
/// With all places taken, the oldest attempt makes room once it has had so long: a slow destination beats none, but four
/// that are silent must not hide a fifth that is not.
pub const PATIENCE_MS: u64 = 3_000;
/// Addresses of one family that are kept for being dialed; there is no time for more.
const CANDIDATES_MAX: usize = 12;

/// One attempt that is under way.
#[derive(Debug)]
pub struct Attempt {
    /// Where to.
    pub address: SocketAddr,
    /// The rule that allowed it.
    pub rule: RuleName,
    /// What is believed about its socket.
    pub ready: Ready,
    started: Tick,
}

/// All that is known about reaching one destination.
#[derive(Debug)]
pub struct Eyeballs {
    families: Families,
    began: Tick,
    /// Not dialed yet.
    v6: VecDeque<IpAddr>,
    v4: VecDeque<IpAddr>,
    /// Answers may still arrive.
    more: bool,
    places: [Option<Attempt>; PLACES],
    /// The family of the last attempt.
    last_was_v6: bool,
    /// Nothing is started before; unset while there was no candidate yet.
    start_at: Option<Tick>,
    /// The next `Step::Dial`.
    to_start: Option<u8>,
    failure: Option<Failure>,
    denied: Option<(Refusal, RuleName)>,
    excluded: bool,
}

impl Eyeballs {
    /// Memory that one destination can take.
    pub const BYTES_MAX: usize = size_of::<Eyeballs>() + 2 * CANDIDATES_MAX * size_of::<IpAddr>();

    /// No address known, but some may come.
    #[must_use]
    pub fn new(families: Families, now: Tick) -> Eyeballs {
        Eyeballs {
            families,
            began: now,
            v6: VecDeque::new(),
            v4: VecDeque::new(),
            more: true,
            places: [const { None }; PLACES],
            last_was_v6: false,
            start_at: None,
            to_start: None,
            failure: None,
            denied: None,
            excluded: false,
        }
    }

    /// When the destination began to be dialed.
    #[must_use]
    pub fn began(&self) -> Tick {
        self.began
    }

    /// Addresses have arrived; `last` says that no more will.
    pub fn add(&mut self, addresses: Vec<IpAddr>, last: bool, now: Tick) {
        for address in addresses {
            // IPv4 inside a mapped address is dialed as IPv4.
            let address = address.to_canonical();
            let waiting = if address.is_ipv6() { &mut self.v6 } else { &mut self.v4 };
            if !self.families.want(address) {
                self.excluded = true;
            } else if waiting.len() < CANDIDATES_MAX && !waiting.contains(&address) {
                waiting.reserve_exact(1);
                waiting.push_back(address);
            }
        }
        self.more = !last;
        let started = self.failure.is_some() || self.places.iter().any(Option::is_some);
        if !self.v6.is_empty() || !self.more {
            // Only before the first attempt: later ones keep their distance.
            if !started {
                self.start_at = Some(now);
            }
        } else if !self.v4.is_empty() {
            self.start_at.get_or_insert(now.after(RESOLUTION_DELAY_MS));
        }
    }

    /// Whether answers may still arrive.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.more
    }

    /// The next address to judge, if it is time for one. Follow with [`Eyeballs::begin`] or [`Eyeballs::note_denied`].
    pub fn next_candidate(&mut self, now: Tick) -> Option<IpAddr> {
        if self.to_start.is_some() || self.due().is_none_or(|due| due > now) {
            return None;
        }
        let (first, second) =
            if self.last_was_v6 { (&mut self.v4, &mut self.v6) } else { (&mut self.v6, &mut self.v4) };
        first.pop_front().or_else(|| second.pop_front())
    }

    /// The candidate is to be dialed: it takes a place and the next [`Eyeballs::to_start`] is it.
    pub fn begin(&mut self, address: SocketAddr, rule: RuleName, now: Tick) {
        let place = self.free_place();
        self.last_was_v6 = address.is_ipv6();
        self.places[place] = Some(Attempt { address, rule, ready: Ready::default(), started: now });
        self.to_start = Some(place as u8);
        self.start_at = Some(now.after(ATTEMPT_DELAY_MS));
    }

    /// The candidate may not be dialed. The first denial is kept, for when nothing is left.
    pub fn note_denied(&mut self, refusal: Refusal, rule: RuleName) {
        self.denied.get_or_insert((refusal, rule));
    }

    /// The attempt that is to be started now.
    #[must_use]
    pub fn to_start(&self) -> Option<(u8, SocketAddr)> {
        let place = self.to_start?;
        self.places[usize::from(place)].as_ref().map(|attempt| (place, attempt.address))
    }

    /// It was started.
    pub fn started(&mut self) {
        self.to_start = None;
    }

    /// The rules have changed: the candidate that they have let pass, and that is not dialed yet, is the next one to judge once
    /// more. Whether there is one. An older attempt that had to make room for it is not had back.
    pub fn judge_anew(&mut self) -> bool {
        let Some(attempt) = self.to_start.take().and_then(|place| self.take(place)) else { return false };
        let address = attempt.address.ip();
        self.last_was_v6 = !address.is_ipv6();
        let waiting = if address.is_ipv6() { &mut self.v6 } else { &mut self.v4 };
        waiting.push_front(address);
        self.start_at = Some(attempt.started);
        true
    }

    /// An attempt that may be decided.
    #[must_use]
    pub fn to_confirm(&self) -> Option<u8> {
        let decided = |place: &Option<Attempt>| place.as_ref().is_some_and(|attempt| attempt.ready.writable);
        let places = (0u8..).zip(&self.places);
        // One that is not started has no socket yet: whatever is said of its place is about the one before.
        places
            .filter(|(place, _)| self.to_start != Some(*place))
            .find(|(_, attempt)| decided(attempt))
            .map(|(place, _)| place)
    }

    /// What events have said of the attempt at a place.
    #[must_use]
    pub fn said_of(&self, place: u8) -> Ready {
        let attempt = self.places.get(usize::from(place)).and_then(Option::as_ref);
        attempt.map_or(Ready::default(), |attempt| attempt.ready)
    }

    /// The attempt at a place, if there is one.
    pub fn attempt(&mut self, place: u8) -> Option<&mut Attempt> {
        self.places.get_mut(usize::from(place))?.as_mut()
    }

    /// The attempt at `place` stands.
    pub fn take(&mut self, place: u8) -> Option<Attempt> {
        self.places.get_mut(usize::from(place))?.take()
    }

    /// The attempt at `place` has failed: the next may start at once.
    pub fn failed(&mut self, place: u8, failure: Failure, now: Tick) {
        if self.to_start == Some(place) {
            self.to_start = None;
        }
        self.take(place);
        self.failure = Some(failure);
        self.start_at = self.start_at.map(|due| due.min(now));
    }

    /// When the next attempt is due, if there is a candidate for one. One that is to be started already comes first: it may have to
    /// wait for a descriptor.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        let has_none = self.v4.is_empty() && self.v6.is_empty();
        if has_none || self.to_start.is_some() { None } else { self.due() }
    }

    /// Why no candidate led anywhere; nothing while something may still come of one.
    #[must_use]
    pub fn verdict(&mut self) -> Option<Verdict> {
        let busy = self.places.iter().any(Option::is_some) || self.more;
        if busy || !self.v4.is_empty() || !self.v6.is_empty() {
            return None;
        }
        Some(match (self.failure, self.denied.take()) {
            (Some(failure), _) => Verdict::Failed(failure),
            (None, Some((refusal, rule))) => Verdict::Denied(refusal, rule),
            (None, None) if self.excluded => Verdict::Excluded,
            (None, None) => Verdict::Nothing,
        })
    }

    /// When the next attempt may start: in its time, and once there is a place for it.
    fn due(&self) -> Option<Tick> {
        let oldest =
            self.places.iter().map(|place| place.as_ref().map(|attempt| attempt.started)).min().flatten();
        let place_at = oldest.map_or(Tick(0), |started| started.after(PATIENCE_MS));
        self.start_at.map(|due| due.max(place_at))
    }

    /// A free place, or that of the oldest attempt, which is given up.
    fn free_place(&mut self) -> usize {
        if let Some(free) = self.places.iter().position(Option::is_none) {
            return free;
        }
        let started = |place: &Option<Attempt>| place.as_ref().map(|attempt| attempt.started);
        let oldest = (0..PLACES).min_by_key(|&index| started(&self.places[index])).unwrap_or(0);
        self.failure = Some(Failure::TimedOut);
        oldest
    }
}

/// Why no candidate led anywhere.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The last attempt to fail met this.
    Failed(Failure),
    /// All were denied; this is why the first was.
    Denied(Refusal, RuleName),
    /// All were of a family that may not be dialed.
    Excluded,
    /// There was none.
    Nothing,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const V6: [&str; 3] = ["2606:2800::1", "2606:2800::2", "2606:2800::3"];
    const V4: [&str; 3] = ["203.0.114.1", "203.0.114.2", "203.0.114.3"];

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    struct Race {
        eyeballs: Eyeballs,
        now: Tick,
    }

    impl Race {
        fn new(families: Families) -> Race {
            Race { eyeballs: Eyeballs::new(families, Tick(1000)), now: Tick(1000) }
        }

        fn add(&mut self, addresses: &[&str], last: bool) {
            self.eyeballs.add(ips(addresses), last, self.now);
        }

        /// The attempts that start now, with their places.
        fn starts(&mut self) -> Vec<String> {
            let mut started = Vec::new();
            while let Some(address) = self.eyeballs.next_candidate(self.now) {
                self.eyeballs.begin(SocketAddr::new(address, 443), "default".into(), self.now);
                let (place, address) = self.eyeballs.to_start().unwrap();
                self.eyeballs.started();
                started.push(format!("{place}: {}", address.ip()));
            }
            started
        }

        /// Sleeps until the next attempt is due and says how long that was.
        fn sleeps_ms(&mut self) -> u64 {
            let due = self.eyeballs.next_due().unwrap();
            let ms = due.since(self.now);
            self.now = due;
            ms
        }
    }

    #[test]
    fn families_alternate_250_ms_apart_ipv6_first() {
        let mut race = Race::new(Families::Any);
        race.add(&[V6[0], V6[1], V4[0], V4[1]], true);
        assert_eq!(race.starts(), ["0: 2606:2800::1"]);
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["1: 203.0.114.1".to_owned()]));
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["2: 2606:2800::2".to_owned()]));
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["3: 203.0.114.2".to_owned()]));
        assert_eq!(race.eyeballs.next_due(), None);
    }

    #[test]
    fn a_failure_starts_the_next_at_once() {
        let mut race = Race::new(Families::Any);
        race.add(&[V6[0], V4[0]], true);
        assert_eq!(race.starts(), ["0: 2606:2800::1"]);
        race.now = race.now.after(3);
        race.eyeballs.failed(0, Failure::Unreachable, race.now);
        assert_eq!(race.starts(), ["0: 203.0.114.1"]);
        race.eyeballs.failed(0, Failure::Refused, race.now);
        assert_eq!(race.eyeballs.verdict(), Some(Verdict::Failed(Failure::Refused)));
    }

    #[test]
    fn what_is_judged_anew_is_the_next_in_turn_at_once() {
        let mut race = Race::new(Families::Any);
        race.add(&[V6[0], V6[1], V4[0]], true);
        let first = race.eyeballs.next_candidate(race.now).unwrap();
        race.eyeballs.begin(SocketAddr::new(first, 443), "default".into(), race.now);
        assert!(race.eyeballs.judge_anew());
        assert_eq!((race.eyeballs.to_start(), race.eyeballs.next_due()), (None, Some(race.now)));
        assert_eq!(race.starts(), ["0: 2606:2800::1"]);
        // What is dialed already goes on.
        assert!(!race.eyeballs.judge_anew());
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["1: 203.0.114.1".to_owned()]));
    }

    #[test]
    fn ipv4_waits_a_moment_for_ipv6() {
        let mut race = Race::new(Families::Any);
        race.add(&[V4[0]], false);
        assert!(race.starts().is_empty());
        assert_eq!((race.sleeps_ms(), race.starts()), (50, vec!["0: 203.0.114.1".to_owned()]));
        // IPv6 that comes later is the next in turn.
        race.now = race.now.after(10);
        race.add(&[V6[0]], true);
        assert_eq!((race.sleeps_ms(), race.starts()), (240, vec!["1: 2606:2800::1".to_owned()]));
    }

    #[test]
    fn ipv6_within_the_moment_goes_first() {
        let mut race = Race::new(Families::Any);
        race.add(&[V4[0]], false);
        race.now = race.now.after(20);
        race.add(&[V6[0]], true);
        assert_eq!(race.starts(), ["0: 2606:2800::1"]);
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["1: 203.0.114.1".to_owned()]));
    }

    #[test]
    fn ipv6_waits_for_nothing_and_neither_does_ipv4_when_there_is_no_ipv6() {
        let mut race = Race::new(Families::Any);
        race.add(&[V6[0]], false);
        assert_eq!(race.starts(), ["0: 2606:2800::1"]);
        let mut race = Race::new(Families::Any);
        race.add(&[V4[0]], false);
        race.now = race.now.after(20);
        race.add(&[], true);
        assert_eq!(race.starts(), ["0: 203.0.114.1"]);
    }

    #[test]
    fn no_verdict_while_something_may_come() {
        let mut race = Race::new(Families::Any);
        assert_eq!(race.eyeballs.verdict(), None);
        race.add(&[V6[0]], false);
        race.starts();
        race.eyeballs.failed(0, Failure::Refused, race.now);
        assert_eq!(race.eyeballs.verdict(), None, "an answer is still under way");
        race.add(&[V4[0]], true);
        assert_eq!(race.eyeballs.verdict(), None, "a candidate is left");
        assert_eq!(race.starts(), ["0: 203.0.114.1"]);
        assert_eq!(race.eyeballs.verdict(), None, "an attempt is under way");
        race.eyeballs.failed(0, Failure::TimedOut, race.now);
        assert_eq!(race.eyeballs.verdict(), Some(Verdict::Failed(Failure::TimedOut)));
    }

    #[test]
    fn denied_candidates_are_skipped_without_a_delay() {
        let mut race = Race::new(Families::Any);
        race.add(&[V6[0], V4[0]], true);
        let denied = race.eyeballs.next_candidate(race.now);
        assert_eq!(denied, Some(ips(&V6)[0]));
        race.eyeballs.note_denied(Refusal::DeniedByDefault, "guard".into());
        assert_eq!(race.starts(), ["0: 203.0.114.1"]);
    }

    #[test]
    fn all_denied_is_a_denial_and_none_is_nothing() {
        let mut race = Race::new(Families::Any);
        race.add(&[V6[0]], true);
        race.eyeballs.next_candidate(race.now).unwrap();
        race.eyeballs.note_denied(Refusal::DeniedByDefault, "guard".into());
        assert_eq!(race.eyeballs.verdict(), Some(Verdict::Denied(Refusal::DeniedByDefault, "guard".into())));
        let mut race = Race::new(Families::Any);
        race.add(&[], true);
        assert_eq!(race.eyeballs.verdict(), Some(Verdict::Nothing));
    }

    #[test]
    fn families_that_may_not_be_dialed_are_left_out() {
        let mut race = Race::new(Families::Only4);
        race.add(&[V6[0], V4[0], V6[1], V4[1]], true);
        assert_eq!(race.starts(), ["0: 203.0.114.1"]);
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["1: 203.0.114.2".to_owned()]));
        let mut race = Race::new(Families::Only6);
        race.add(&[V4[0], "::ffff:203.0.114.1"], true);
        assert!(race.starts().is_empty());
        assert_eq!(race.eyeballs.verdict(), Some(Verdict::Excluded));
    }

    #[test]
    fn the_oldest_attempt_makes_room_once_it_had_its_time() {
        let mut race = Race::new(Families::Any);
        race.add(
            &["203.0.114.1", "203.0.114.2", "203.0.114.3", "203.0.114.4", "203.0.114.5", "203.0.114.6"],
            true,
        );
        let mut places = race.starts();
        for _ in 1..PLACES {
            race.sleeps_ms();
            places.extend(race.starts());
        }
        assert_eq!((race.sleeps_ms(), race.starts()), (PATIENCE_MS - 750, vec!["0: 203.0.114.5".to_owned()]));
        // The second one has had its time 250 ms later.
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["1: 203.0.114.6".to_owned()]));
        assert_eq!(race.eyeballs.attempt(0).unwrap().address.to_string(), "203.0.114.5:443");
    }

    #[test]
    fn a_place_that_comes_free_is_used_at_once() {
        let mut race = Race::new(Families::Any);
        race.add(&["203.0.114.1", "203.0.114.2", "203.0.114.3", "203.0.114.4", "203.0.114.5"], true);
        race.starts();
        for _ in 1..PLACES {
            race.sleeps_ms();
            race.starts();
        }
        race.now = race.now.after(10);
        race.eyeballs.failed(2, Failure::Refused, race.now);
        assert_eq!(race.starts(), ["2: 203.0.114.5"]);
    }

    #[test]
    fn each_address_is_dialed_once_and_as_what_it_is() {
        let mut race = Race::new(Families::Any);
        race.add(&["::ffff:203.0.114.1", V4[0], V4[0], V4[1]], true);
        assert_eq!(race.starts(), ["0: 203.0.114.1"]);
        assert_eq!((race.sleeps_ms(), race.starts()), (250, vec!["1: 203.0.114.2".to_owned()]));
        assert_eq!(race.eyeballs.next_due(), None);
    }

    #[test]
    fn what_servers_can_make_us_keep_is_bounded() {
        let mut race = Race::new(Families::Any);
        let many: Vec<String> =
            (1..=64).flat_map(|i| [format!("203.0.114.{i}"), format!("2606:2800::{i:x}")]).collect();
        race.add(&many.iter().map(String::as_str).collect::<Vec<_>>(), true);
        assert_eq!((race.eyeballs.v4.len(), race.eyeballs.v6.len()), (CANDIDATES_MAX, CANDIDATES_MAX));
        assert!(race.eyeballs.v4.capacity() <= CANDIDATES_MAX, "{}", race.eyeballs.v4.capacity());
    }
}
