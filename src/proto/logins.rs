//! What is remembered of logins: verdicts under a keyed tag of the credentials, never the credentials. One for each loop, so
//! that who has shown good credentials once is let in without a hash.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::tick::Tick;
use super::users::Users;

/// Milliseconds that good credentials are remembered after they were last shown.
pub const GOOD_KEPT_MS: u64 = 10 * 60_000;
/// Milliseconds that wrong ones are remembered: a client that repeats them costs no hash.
pub const WRONG_KEPT_MS: u64 = 10_000;
/// Bytes that one remembered verdict takes, with the user's name and what the allocator adds.
pub const LOGIN_BYTES: usize = 128;
/// A tag says where its verdict may stand: in a set of so many.
const WAYS: usize = 8;
/// Of so many verdicts, one may be a wrong one: a flood of those takes no place from good ones.
const WRONG_SHARE: usize = 8;

/// Whose the credentials are; nobody's if they are wrong.
pub type Verdict = Option<Arc<str>>;

/// 128 bits that stand for credentials, whatever users file they are shown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u64, u64);

/// Makes tags. Without its key, which is random and never told, nobody can say what a tag stands for or make two that are equal.
#[derive(Clone, Debug)]
pub struct Tagger(RandomState);

impl Tagger {
    /// With a key that the process has drawn.
    #[must_use]
    pub fn new(key: RandomState) -> Tagger {
        Tagger(key)
    }

    /// The tag of what a client shows. Two halves of one keyed function that never see the same input: a keyed hash of 64 bits
    /// alone would be met by chance.
    #[must_use]
    pub fn tag(&self, token: &[u8]) -> Tag {
        let half = |which: u8| self.0.hash_one((which, token));
        Tag(half(0), half(1))
    }
}

/// Verdicts. The oldest make room.
#[derive(Debug)]
pub struct Logins {
    good: Memory,
    wrong: Memory,
}

impl Logins {
    /// Room for about so many verdicts; nothing is taken before there are any.
    #[must_use]
    pub fn new(most: usize) -> Logins {
        let wrong = most / WRONG_SHARE;
        Logins { good: Memory::new(most - wrong, GOOD_KEPT_MS), wrong: Memory::new(wrong, WRONG_KEPT_MS) }
    }

    /// What is known about these credentials.
    #[must_use]
    pub fn find(&mut self, tag: Tag, now: Tick) -> Option<Verdict> {
        if let Some(entry) = self.good.find(tag, now) {
            entry.due = now.after(GOOD_KEPT_MS);
            return Some(entry.user.clone());
        }
        self.wrong.find(tag, now).map(|_| None)
    }

    /// That is known from now on.
    pub fn remember(&mut self, tag: Tag, verdict: Verdict, now: Tick) {
        let memory = if verdict.is_some() { &mut self.good } else { &mut self.wrong };
        memory.remember(tag, verdict, now);
    }

    /// Another users file is in force, or none. Users that have the same hash in both need not show anything anew; what was
    /// wrong may be right now.
    pub fn follow(&mut self, old: Option<&Users>, new: Option<&Users>) {
        self.wrong.sets = Vec::new();
        let (Some(old), Some(new)) = (old, new) else {
            self.good.sets = Vec::new();
            return;
        };
        for set in &mut self.good.sets {
            set.retain(|entry| entry.user.as_ref().is_some_and(|user| new.keeps(old, user)));
        }
    }
}

/// Verdicts of one kind. Tags are spread by chance, which nobody outside can steer, so a few sets that are searched from end to
/// end do the work of a map with an order of age.
#[derive(Debug)]
struct Memory {
    sets: Vec<Vec<Entry>>,
    sets_most: usize,
    kept_ms: u64,
}

#[derive(Debug)]
struct Entry {
    tag: Tag,
    user: Verdict,
    due: Tick,
}

impl Memory {
    fn new(most: usize, kept_ms: u64) -> Memory {
        Memory { sets: Vec::new(), sets_most: (most / WAYS).max(1), kept_ms }
    }

    fn find(&mut self, tag: Tag, now: Tick) -> Option<&mut Entry> {
        let set = tag.0 as usize % self.sets_most;
        self.sets.get_mut(set)?.iter_mut().find(|entry| entry.tag == tag && entry.due > now)
    }

    fn remember(&mut self, tag: Tag, user: Verdict, now: Tick) {
        let set = tag.0 as usize % self.sets_most;
        self.sets.resize_with(self.sets_most, Vec::new);
        let set = &mut self.sets[set];
        set.retain(|entry| entry.tag != tag && entry.due > now);
        if set.len() == WAYS {
            let oldest = (0..WAYS).min_by_key(|&at| set[at].due).unwrap_or_default();
            set.swap_remove(oldest);
        }
        set.push(Entry { tag, user, due: now.after(self.kept_ms) });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn alice() -> Verdict {
        Some("alice".into())
    }

    #[test]
    fn a_tag_stands_for_every_byte() {
        let tagger = Tagger::new(RandomState::new());
        let tag = tagger.tag(b"Basic YQ==");
        assert_eq!(tagger.clone().tag(b"Basic YQ=="), tag);
        for value in [&b"Basic YQ="[..], b"Basic YQ===", b"basic YQ==", b"", b"Basic YR=="] {
            assert_ne!(tagger.tag(value), tag);
        }
        assert_ne!(Tagger::new(RandomState::new()).tag(b"Basic YQ=="), tag);
        assert_ne!(tag.0, tag.1);
    }

    #[test]
    fn good_ones_are_remembered_as_long_as_they_are_shown() {
        let mut logins = Logins::new(1024);
        let tag = Tag(1, 2);
        assert_eq!(logins.find(tag, Tick(0)), None);
        logins.remember(tag, alice(), Tick(0));
        let mut now = Tick(0);
        for _ in 0..5 {
            now = now.after(GOOD_KEPT_MS - 1);
            assert_eq!(logins.find(tag, now), Some(alice()));
            assert_eq!(logins.find(Tag(1, 3), now), None);
            assert_eq!(logins.find(Tag(2, 2), now), None);
        }
        assert_eq!(logins.find(tag, now.after(GOOD_KEPT_MS)), None);
    }

    #[test]
    fn wrong_ones_are_remembered_for_a_while_however_often_they_are_shown() {
        let mut logins = Logins::new(1024);
        logins.remember(Tag(1, 2), None, Tick(5));
        for now in [5, 5_000, 5 + WRONG_KEPT_MS - 1] {
            assert_eq!(logins.find(Tag(1, 2), Tick(now)), Some(None));
        }
        assert_eq!(logins.find(Tag(1, 2), Tick(5 + WRONG_KEPT_MS)), None);
    }

    #[test]
    fn the_memory_is_bounded_and_wrong_ones_take_nothing_from_good_ones() {
        let mut logins = Logins::new(1024);
        for number in 0..50 {
            logins.remember(Tag(number, 0), alice(), Tick(number));
        }
        for number in 0..100_000 {
            logins.remember(Tag(number, 1), None, Tick(100));
        }
        let count = |memory: &Memory| memory.sets.iter().map(Vec::len).sum::<usize>();
        assert!(count(&logins.wrong) <= 128, "{}", count(&logins.wrong));
        assert!((0..50).all(|number| logins.find(Tag(number, 0), Tick(100)).is_some()));
        for number in 0..100_000 {
            logins.remember(Tag(number, 0), alice(), Tick(number));
        }
        assert!(count(&logins.good) <= 896, "{}", count(&logins.good));
        assert!(size_of::<Entry>() + "a name of some length, and its counts".len() <= LOGIN_BYTES);
    }

    #[test]
    fn what_was_not_shown_for_the_longest_time_makes_room() {
        let mut logins = Logins::new(WAYS);
        logins.good = Memory::new(WAYS, GOOD_KEPT_MS);
        for number in 0..WAYS as u64 {
            logins.remember(Tag(number, 0), alice(), Tick(number));
        }
        assert_eq!(logins.find(Tag(0, 0), Tick(50)), Some(alice()));
        logins.remember(Tag(99, 0), alice(), Tick(60));
        assert_eq!(logins.find(Tag(1, 0), Tick(61)), None);
        assert!([0, 2, 7, 99].iter().all(|&number| logins.find(Tag(number, 0), Tick(61)).is_some()));
    }

    #[test]
    fn a_verdict_replaces_another() {
        let mut logins = Logins::new(64);
        logins.remember(Tag(1, 1), alice(), Tick(0));
        logins.remember(Tag(1, 1), Some("bob".into()), Tick(1));
        assert_eq!(logins.find(Tag(1, 1), Tick(2)), Some(Some("bob".into())));
    }

    #[test]
    fn another_users_file_leaves_who_is_the_same_in_both() {
        const OF_A: &str = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=";
        const OF_B: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
        let file = |users: &[(&str, &str)]| {
            let text: String = users.iter().map(|(name, hash)| format!("{name}:{hash}\n")).collect();
            Users::parse(text.as_bytes()).unwrap()
        };
        let old = file(&[("stays", OF_A), ("goes", OF_A), ("changes", OF_A), ("moves", OF_B)]);
        let new = file(&[("comes", OF_A), ("moves", OF_B), ("changes", OF_B), ("stays", OF_A)]);
        let names = ["stays", "goes", "changes", "moves", "comes"];
        let remembering = || {
            let mut logins = Logins::new(1024);
            for (tag, name) in (0..).zip(names) {
                logins.remember(Tag(tag, 0), Some(name.into()), Tick(1));
            }
            logins.remember(Tag(9, 9), None, Tick(1));
            logins
        };
        let mut logins = remembering();
        logins.follow(Some(&old), Some(&new));
        let known = (0..).zip(names).filter(|&(tag, _)| logins.find(Tag(tag, 0), Tick(2)).is_some());
        assert_eq!(known.map(|(_, name)| name).collect::<Vec<_>>(), ["stays", "moves"]);
        assert_eq!(logins.find(Tag(9, 9), Tick(2)), None);
        for (old, new) in [(None, Some(&new)), (Some(&old), None)] {
            let mut logins = remembering();
            logins.follow(old, new);
            assert!((0..5).all(|tag| logins.find(Tag(tag, 0), Tick(2)).is_none()));
        }
    }
}
