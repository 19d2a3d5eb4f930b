//! What servers said about names, for as long as they allowed, in a fixed amount of memory. Layer 1.5.
//!
//! One entry a name, with a place for each family, which has its own time to live. The entries and the index are
//! allocated once, at the first use, in full: pages that are never used cost nothing, and the ceiling holds without
//! asking how tables grow. The name used least recently goes first.

use std::hash::{BuildHasher, RandomState};
use std::mem::size_of;
use std::net::IpAddr;

use super::dns::{MAX_ADDRESSES, MAX_NAME_BYTES};
use super::tick::Tick;

/// Families that a name has answers for.
pub const FAMILIES: usize = 2;

/// An hour, whatever the server says: a question an hour costs nothing, and an answer that was wrong (a captive portal, a
/// renumbered host, a forgery) is gone after an hour instead of days.
pub const TTL_MAX_S: u32 = 3_600;
/// RFC 2308 5 leaves the ceiling to us: who has just made a name wants to see it soon.
pub const NEGATIVE_TTL_MAX_S: u32 = 300;
/// A family whose question failed, or was answered without addresses and without an SOA, while the other one has addresses.
/// So short because it is a guess; long enough that neither a zone whose servers drop AAAA questions nor one of the many
/// forwarders that leave out the SOA slows down every connection (RFC 2308 7 allows 5 minutes for failures).
pub const FAILED_TTL_S: u32 = 10;

/// End of a list. There are far fewer names.
const NONE: u32 = u32::MAX;
/// What the largest possible entry has on the heap.
const LARGEST_BYTES: usize =
    heap_bytes(MAX_NAME_BYTES) + FAMILIES * heap_bytes(MAX_ADDRESSES * size_of::<IpAddr>());

/// What is known about one family of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<'a> {
    /// These addresses.
    Found(&'a [IpAddr]),
    /// None: NXDOMAIN, or NOERROR without addresses.
    Empty {
        /// DNS response code.
        rcode: u8,
    },
    /// No server could say, or none said for how long. It counts only beside addresses of the other family.
    Failed,
}

impl<'a> Fact<'a> {
    /// The addresses, if any.
    #[must_use]
    pub fn addresses(self) -> &'a [IpAddr] {
        match self {
            Fact::Found(addresses) => addresses,
            Fact::Empty { .. } | Fact::Failed => &[],
        }
    }
}

/// Names in lower case without the last dot, and what is known of them.
#[derive(Debug)]
pub struct Cache {
    hasher: RandomState,
    /// The first entry of each chain; as many chains as there may be names. Empty before the first use.
    chains: Vec<u32>,
    entries: Vec<Entry>,
    /// Entries that are not in use, linked by `next`.
    free: u32,
    newest: u32,
    oldest: u32,
    /// A power of two, or 0: no cache.
    names_max: usize,
    /// On the heap, for names and addresses.
    data_bytes: usize,
    data_bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    answers: [Option<Answer>; FAMILIES],
    /// In its chain, or among the free.
    next: u32,
    newer: u32,
    older: u32,
}

#[derive(Debug)]
struct Answer {
    expires: Tick,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Found(Box<[IpAddr]>),
    Empty { rcode: u8 },
    Failed,
}

impl Answer {
    fn new(fact: Fact<'_>, expires: Tick) -> Answer {
        let kind = match fact {
            Fact::Found(addresses) => Kind::Found(addresses.into()),
            Fact::Empty { rcode } => Kind::Empty { rcode },
            Fact::Failed => Kind::Failed,
        };
        Answer { expires, kind }
    }

    fn fact(&self) -> Fact<'_> {
        match &self.kind {
            Kind::Found(addresses) => Fact::Found(addresses),
            Kind::Empty { rcode } => Fact::Empty { rcode: *rcode },
            Kind::Failed => Fact::Failed,
        }
    }
}

impl Cache {
    /// An empty one, that never takes more than `bytes_max`. With less than a few KiB there is none.
    #[must_use]
    pub fn new(bytes_max: usize) -> Cache {
        // Half for the tables leaves as much for a name and its addresses as they take on average.
        let names = bytes_max / 2 / (size_of::<Entry>() + size_of::<u32>());
        let names_max = if names == 0 { 0 } else { 1 << names.ilog2().min(30) };
        let data_bytes_max = bytes_max - table_bytes(names_max);
        let names_max = if data_bytes_max < LARGEST_BYTES { 0 } else { names_max };
        Cache {
            hasher: RandomState::new(),
            chains: Vec::new(),
            entries: Vec::new(),
            free: NONE,
            newest: NONE,
            oldest: NONE,
            names_max,
            data_bytes: 0,
            data_bytes_max,
        }
    }

    /// What is known of `name` at `now`, family by family.
    pub fn get(&mut self, name: &str, now: Tick) -> [Option<Fact<'_>>; FAMILIES] {
        let Some(at) = self.find(name) else { return [None; FAMILIES] };
        self.touch(at);
        let Some(entry) = self.entries.get(at as usize) else { return [None; FAMILIES] };
        let fresh = |answer: &'_ Answer| now < answer.expires;
        entry
            .answers
            .each_ref()
            .map(|answer| answer.as_ref().filter(|answer| fresh(answer)).map(Answer::fact))
    }

    /// Keeps what is known about a family of `name` for `ttl_s`, or for as long as a fact of its kind is kept at most. With
    /// 0 it is not kept.
    pub fn put(&mut self, name: &str, family: usize, fact: Fact<'_>, ttl_s: u32, now: Tick) {
        let ttl_s = ttl_s.min(match fact {
            Fact::Found(_) => TTL_MAX_S,
            Fact::Empty { .. } => NEGATIVE_TTL_MAX_S,
            Fact::Failed => FAILED_TTL_S,
        });
        let addresses = fact.addresses();
        let fits = name.len() <= MAX_NAME_BYTES && addresses.len() <= MAX_ADDRESSES;
        if ttl_s == 0 || !fits || self.names_max == 0 {
            return;
        }
        let at = match self.find(name) {
            Some(at) => at,
            None => self.insert(name),
        };
        // It is the newest now, so that room is made at the cost of others; there are others, as even the largest entry
        // fits alone.
        self.touch(at);
        self.forget(at, family);
        let bytes = address_bytes(addresses);
        self.make_room(bytes);
        if let Some(answer) = self.answer_mut(at, family) {
            *answer = Some(Answer::new(fact, now.after(u64::from(ttl_s) * 1_000)));
            self.data_bytes += bytes;
        }
    }

    /// Forgets everything, and gives the memory back.
    pub fn flush(&mut self) {
        self.chains = Vec::new();
        self.entries = Vec::new();
        (self.free, self.newest, self.oldest) = (NONE, NONE, NONE);
        self.data_bytes = 0;
    }

    /// What it takes, never more than the ceiling.
    #[must_use]
    pub fn bytes(&self) -> usize {
        if self.chains.is_empty() { 0 } else { table_bytes(self.names_max) + self.data_bytes }
    }

    fn insert(&mut self, name: &str) -> u32 {
        if self.chains.is_empty() {
            self.chains = vec![NONE; self.names_max];
            self.entries.reserve_exact(self.names_max);
        }
        self.make_room(heap_bytes(name.len()));
        if self.free == NONE && self.entries.len() == self.names_max {
            self.remove(self.oldest);
        }
        let chain = self.chain(name);
        let next = self.chains.get(chain).copied().unwrap_or(NONE);
        let entry = Entry { name: name.into(), answers: [None, None], next, newer: NONE, older: NONE };
        let at = match self.entries.get_mut(self.free as usize) {
            Some(place) => {
                let at = std::mem::replace(&mut self.free, place.next);
                *place = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        if let Some(first) = self.chains.get_mut(chain) {
            *first = at;
        }
        self.data_bytes += heap_bytes(name.len());
        self.link(at);
        at
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        for family in 0..FAMILIES {
            self.forget(at, family);
        }
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        let name = std::mem::take(&mut entry.name);
        let next = std::mem::replace(&mut entry.next, self.free);
        self.free = at;
        self.data_bytes -= heap_bytes(name.len());
        let chain = self.chain(&name);
        let Some(first) = self.chains.get_mut(chain) else { return };
        if *first == at {
            *first = next;
            return;
        }
        let mut before = *first;
        while let Some(entry) = self.entries.get_mut(before as usize) {
            if entry.next == at {
                entry.next = next;
                return;
            }
            before = entry.next;
        }
    }

    fn make_room(&mut self, bytes: usize) {
        while self.data_bytes + bytes > self.data_bytes_max && self.oldest != NONE {
            self.remove(self.oldest);
        }
    }

    fn forget(&mut self, at: u32, family: usize) {
        if let Some(answer) = self.answer_mut(at, family).and_then(Option::take) {
            self.data_bytes -= address_bytes(answer.fact().addresses());
        }
    }

    fn answer_mut(&mut self, at: u32, family: usize) -> Option<&mut Option<Answer>> {
        self.entries.get_mut(at as usize)?.answers.get_mut(family)
    }

    fn find(&self, name: &str) -> Option<u32> {
        let mut at = *self.chains.get(self.chain(name))?;
        while let Some(entry) = self.entries.get(at as usize) {
            if *entry.name == *name {
                return Some(at);
            }
            at = entry.next;
        }
        None
    }

    /// With a random key of ours: nobody outside can fill one chain.
    fn chain(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize & self.names_max.wrapping_sub(1)
    }

    fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    /// Makes it the newest.
    fn link(&mut self, at: u32) {
        let older = std::mem::replace(&mut self.newest, at);
        if let Some(entry) = self.entries.get_mut(at as usize) {
            (entry.newer, entry.older) = (NONE, older);
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(entry) = self.entries.get(at as usize) else { return };
        let (newer, older) = (entry.newer, entry.older);
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

const fn table_bytes(names_max: usize) -> usize {
    names_max * (size_of::<Entry>() + size_of::<u32>())
}

fn address_bytes(addresses: &[IpAddr]) -> usize {
    heap_bytes(size_of_val(addresses))
}

/// What an allocation of so many bytes really takes: a word in front, rounded up to the next 16, and never less than 32
/// (glibc; musl is within that).
const fn heap_bytes(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let rounded = (bytes + size_of::<usize>()).next_multiple_of(16);
    if rounded < 32 { 32 } else { rounded }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const V6: usize = 0;
    const V4: usize = 1;

    fn addresses(family: usize, count: usize, seed: u64) -> Vec<IpAddr> {
        let address = |n: usize| match family {
            V6 => IpAddr::V6(Ipv6Addr::from(u128::from(seed) << 8 | n as u128)),
            _ => IpAddr::V4(Ipv4Addr::from((seed as u32) << 8 | n as u32)),
        };
        (0..count).map(address).collect()
    }

    /// The same rules with the simplest means: a list of names, the least recently used first, and a sum.
    #[derive(Default)]
    struct Model {
        names: Vec<(String, Answers)>,
        names_max: usize,
        data_bytes_max: usize,
    }

    type Answers = [Option<(Tick, Known)>; FAMILIES];

    #[derive(Clone, Debug, PartialEq)]
    enum Known {
        Found(Vec<IpAddr>),
        Empty(u8),
        Failed,
    }

    impl Model {
        fn data_bytes(&self) -> usize {
            let of_answer = |answer: &Option<(Tick, Known)>| match answer {
                Some((_, Known::Found(addresses))) => heap_bytes(17 * addresses.len()),
                Some((_, Known::Empty(_) | Known::Failed)) | None => 0,
            };
            let of_name = |(name, answers): &(String, Answers)| {
                heap_bytes(name.len()) + answers.iter().map(of_answer).sum::<usize>()
            };
            self.names.iter().map(of_name).sum()
        }

        fn put(&mut self, name: &str, family: usize, known: Known, ttl_s: u32, now: Tick) {
            if ttl_s == 0 {
                return;
            }
            let mut entry = match self.names.iter().position(|(other, _)| other == name) {
                Some(at) => self.names.remove(at),
                None => (name.to_string(), [None, None]),
            };
            entry.1[family] = Some((now.after(u64::from(ttl_s) * 1_000), known));
            self.names.push(entry);
            while self.data_bytes() > self.data_bytes_max || self.names.len() > self.names_max {
                self.names.remove(0);
            }
        }

        fn get(&mut self, name: &str, now: Tick) -> [Option<Known>; FAMILIES] {
            let Some(at) = self.names.iter().position(|(other, _)| other == name) else {
                return [None, None];
            };
            let entry = self.names.remove(at);
            self.names.push(entry.clone());
            entry.1.map(|answer| answer.filter(|(expires, _)| now < *expires).map(|(_, known)| known))
        }
    }

    fn owned(fact: Fact<'_>) -> Known {
        match fact {
            Fact::Found(addresses) => Known::Found(addresses.to_vec()),
            Fact::Empty { rcode } => Known::Empty(rcode),
            Fact::Failed => Known::Failed,
        }
    }

    #[test]
    fn agrees_with_the_model_and_never_takes_more_than_its_ceiling() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        // From few names (only time counts) to many more than there is room for; small and large entries.
        for (bytes_max, names, count) in [(8_192, 5, 4), (8_192, 100, 4), (8_192, 100, 33), (20_000, 300, 1)]
        {
            let mut cache = Cache::new(bytes_max);
            assert!(cache.names_max > 0);
            let (names_max, data_bytes_max) = (cache.names_max, cache.data_bytes_max);
            let mut model = Model { names_max, data_bytes_max, ..Model::default() };
            let (mut now, mut hits) = (Tick(0), 0);
            for _ in 0..20_000 {
                now = now.after(random(300));
                let n = random(names);
                let name = format!("{n}.{}", "x".repeat((n * 7 % 120) as usize));
                if random(2) == 0 {
                    let found = cache.get(&name, now).map(|fact| fact.map(owned));
                    hits += usize::from(found.iter().any(Option::is_some));
                    assert_eq!(found, model.get(&name, now));
                } else {
                    let family = random(2) as usize;
                    let known = match random(6) {
                        0 => Known::Empty(3),
                        1 => Known::Failed,
                        seed => Known::Found(addresses(family, random(count) as usize, seed)),
                    };
                    let fact = match &known {
                        Known::Found(addresses) => Fact::Found(addresses),
                        Known::Empty(rcode) => Fact::Empty { rcode: *rcode },
                        Known::Failed => Fact::Failed,
                    };
                    let ttl_s = random(10) as u32;
                    cache.put(&name, family, fact, ttl_s, now);
                    model.put(&name, family, known, ttl_s, now);
                }
                assert!(cache.bytes() <= bytes_max, "{} of {bytes_max}", cache.bytes());
                assert_eq!(cache.data_bytes, model.data_bytes());
                if random(5_000) == 0 {
                    cache.flush();
                    model.names.clear();
                }
            }
            assert!(hits > 200, "{hits}");
            assert!(cache.entries.capacity() <= names_max && cache.chains.capacity() <= names_max);
        }
    }

    #[test]
    fn least_recently_used_goes_first() {
        let mut cache = Cache::new(64 * 1024);
        let all = cache.names_max;
        for n in 0..all {
            cache.put(&format!("n{n}"), V4, Fact::Found(&addresses(V4, 1, n as u64)), 60, Tick(0));
        }
        assert!(cache.get("n0", Tick(0))[V4].is_some());
        cache.put("new", V4, Fact::Empty { rcode: 0 }, 60, Tick(0));
        assert_eq!(cache.get("n1", Tick(0)), [None, None], "the oldest one that was not asked for");
        assert!(cache.get("n0", Tick(0))[V4].is_some());
        assert_eq!(cache.get("new", Tick(0)), [None, Some(Fact::Empty { rcode: 0 })]);
    }

    #[test]
    fn largest_answers_push_out_the_small_ones() {
        let mut cache = Cache::new(32 * 1024);
        let (v6, v4) = (addresses(V6, MAX_ADDRESSES, 1), addresses(V4, MAX_ADDRESSES, 2));
        for n in 0..1_000 {
            let name = format!("{n:0>253}");
            cache.put(&name, V6, Fact::Found(&v6), 60, Tick(0));
            cache.put(&name, V4, Fact::Found(&v4), 60, Tick(0));
            assert!(cache.bytes() <= 32 * 1024);
            assert_eq!(cache.get(&name, Tick(0)), [Some(Fact::Found(&v6)), Some(Fact::Found(&v4))]);
        }
        // More than any answer may hold is not kept.
        let more = addresses(V4, MAX_ADDRESSES + 1, 3);
        cache.put("more", V4, Fact::Found(&more), 60, Tick(0));
        cache.put(&"n".repeat(256), V4, Fact::Found(&v4), 60, Tick(0));
        assert_eq!(cache.get("more", Tick(0)), [None, None]);
    }

    #[test]
    fn each_kind_has_its_longest_time() {
        let mut cache = Cache::new(8_192);
        let one = addresses(V4, 1, 1);
        let facts = [
            (Fact::Found(&one), TTL_MAX_S),
            (Fact::Empty { rcode: 3 }, NEGATIVE_TTL_MAX_S),
            (Fact::Failed, FAILED_TTL_S),
        ];
        for (fact, max_s) in facts {
            cache.put("a", V4, fact, u32::MAX, Tick(7));
            let end = Tick(7).after(u64::from(max_s) * 1_000);
            assert_eq!(cache.get("a", Tick(end.0 - 1))[V4], Some(fact));
            assert_eq!(cache.get("a", end)[V4], None);
        }
    }

    #[test]
    fn small_ceilings_mean_no_cache() {
        for bytes_max in 0..4_096 {
            let mut cache = Cache::new(bytes_max);
            cache.put("a", V4, Fact::Empty { rcode: 3 }, 60, Tick(0));
            assert!(cache.bytes() <= bytes_max);
            assert_eq!(cache.get("a", Tick(0))[V4].is_some(), cache.bytes() > 0);
        }
        assert_eq!(Cache::new(1_000).names_max, 0);
        assert!(Cache::new(4_096).names_max > 0);
    }

    #[test]
    fn usual_size_holds_a_thousand_names() {
        let mut cache = Cache::new(256 * 1024);
        assert_eq!(cache.bytes(), 0, "nothing before the first name");
        for n in 0..1_000 {
            let name = format!("host{n}.some-domain.example");
            for family in [V6, V4] {
                cache.put(&name, family, Fact::Found(&addresses(family, 2, n)), 60, Tick(0));
            }
        }
        let kept =
            (0..1_000).filter(|n| cache.get(&format!("host{n}.some-domain.example"), Tick(0))[V4].is_some());
        assert_eq!(kept.count(), 1_000);
    }
}
