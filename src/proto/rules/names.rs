//! Many names in little memory: 8 bytes each, and at most one for the index.
//!
//! A name is kept as a hash of 62 bits and the way it is meant. The hash is SipHash under keys of the process, so nobody can
//! choose names that collide; that a name is taken for one of 200,000 others is a matter of 1 in 10^13 for each suffix.

use super::sort::sort;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

/// How a name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Just this name.
    Exact,
    /// This name and all under it.
    Domain,
    /// All under this name.
    Under,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Exact, Kind::Domain, Kind::Under];
}

/// The bits of an entry that hold its kind.
const KIND_BITS: u64 = 3;
/// The index has a place for so many entries: twice as many at worst.
const ENTRIES_PER_PLACE: usize = 4;

/// A set of names. [`Names::seal`] stands between the last insertion and the first question.
#[derive(Default)]
pub(super) struct Names {
    keys: RandomState,
    /// Sorted.
    entries: Vec<u64>,
    /// By the first bits of an entry: where those with the same bits begin. One more place stands at the end.
    index: Vec<u32>,
    /// By how much an entry is shifted to make a place in the index.
    shift: u32,
    /// A bit for each number of labels that a name has, the lowest for one: no other suffix is worth looking for. It bounds what
    /// a client can make us do with a name of 127 labels.
    depths: u128,
}

impl Names {
    pub(super) fn reserve(&mut self, names: usize) {
        self.entries.reserve_exact(names);
    }

    /// `name` is canonical.
    pub(super) fn insert(&mut self, name: &str, kind: Kind) {
        let mut suffixes = self.suffixes(name);
        while suffixes.next().is_some() {}
        self.depths |= suffixes.depth;
        self.entries.push((suffixes.hash() & !KIND_BITS) | kind as u64);
    }

    pub(super) fn seal(&mut self) {
        sort(&mut self.entries);
        self.entries.dedup();
        self.entries.shrink_to_fit();
        let place_bits = (self.entries.len() / ENTRIES_PER_PLACE).max(2).ilog2();
        self.shift = u64::BITS - place_bits;
        let places = 1 << place_bits;
        self.index = Vec::with_capacity(places + 1);
        for (position, entry) in self.entries.iter().enumerate() {
            let place = (entry >> self.shift) as usize;
            while self.index.len() <= place {
                self.index.push(position_u32(position));
            }
        }
        self.index.resize(places + 1, position_u32(self.entries.len()));
    }

    /// What holds for this name: how it is meant, and where in the name it begins. The shortest comes first.
    pub(super) fn find(&self, asked: &str) -> Option<(Kind, usize)> {
        let mut suffixes = self.suffixes(asked);
        while let Some(start) = suffixes.next() {
            if suffixes.depth > self.depths {
                break;
            }
            if suffixes.depth & self.depths == 0 {
                continue;
            }
            let hash = suffixes.hash();
            let holds = |kind: &Kind| match kind {
                Kind::Exact => start == 0,
                Kind::Domain => true,
                Kind::Under => start > 0,
            };
            for entry in self.near(hash) {
                let apart = (entry ^ hash) & !KIND_BITS;
                let kind = Kind::ALL.get((entry & KIND_BITS) as usize).copied().filter(holds);
                if let (0, Some(kind)) = (apart, kind) {
                    return Some((kind, start));
                }
            }
        }
        None
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<u64>() + self.index.capacity() * size_of::<u32>()
    }

    /// The entries whose first bits are those of the hash.
    fn near(&self, hash: u64) -> &[u64] {
        let place = (hash >> self.shift) as usize;
        match self.index.get(place..place + 2) {
            Some(&[start, end]) => self.entries.get(start as usize..end as usize).unwrap_or_default(),
            Some(_) | None => &[],
        }
    }

    fn suffixes<'a>(&self, name: &'a str) -> Suffixes<'a> {
        let hasher = self.keys.build_hasher();
        Suffixes { hasher, name: name.as_bytes(), end: Some(name.len()), depth: 0 }
    }
}

/// Whoever reads a list keeps it below 4 GiB, so that it is one.
fn position_u32(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// A name's suffixes from the shortest on: one pass over the name hashes them all. What is hashed are the labels from the last to
/// the first, each with a dot behind it: no two names make the same of that.
struct Suffixes<'a> {
    hasher: DefaultHasher,
    name: &'a [u8],
    /// Where the labels end that are still to come.
    end: Option<usize>,
    /// The bit for the suffix's number of labels; 0 before the first. Names have at most 127.
    depth: u128,
}

impl Suffixes<'_> {
    /// Where the next suffix begins.
    fn next(&mut self) -> Option<usize> {
        let rest = self.name.get(..self.end?)?;
        let start = rest.iter().rposition(|&byte| byte == b'.').map_or(0, |dot| dot + 1);
        self.hasher.write(rest.get(start..)?);
        self.hasher.write(b".");
        self.end = start.checked_sub(1);
        self.depth = (self.depth << 1).max(1);
        Some(start)
    }

    fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}
