//! Many names in little memory: 8 bytes each, and at most one for the index.
//!
//! A name is kept as a hash of 58 bits, the number of its range of ports and the way it is meant. The hash is SipHash under keys
//! of the process, so nobody can choose names that collide; that a name is taken for one of 200,000 others is a matter of 1 in 10^12
//! for each suffix.

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

/// Ranges of ports that names may have: whoever has the list numbers them from 0.
pub(super) const MAX_RANGES: usize = 1 << RANGE_BITS;
/// A bit for each range of ports, the lowest for number 0.
pub(super) type RangeMask = u16;
const _: () = assert!(MAX_RANGES == RangeMask::BITS as usize, "each has its bit");

/// The lowest bits of an entry hold its kind, those above them the number of its range of ports.
const KIND_BITS: u32 = 2;
const RANGE_BITS: u32 = 4;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;
const TAG_MASK: u64 = (1 << (KIND_BITS + RANGE_BITS)) - 1;
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

    /// `name` is canonical, `range` is below [`MAX_RANGES`].
    pub(super) fn insert(&mut self, name: &str, kind: Kind, range: usize) {
        let mut suffixes = self.suffixes(name);
        while suffixes.next().is_some() {}
        self.depths |= suffixes.depth;
        let tag = ((range as u64) << KIND_BITS) | kind as u64;
        self.entries.push((suffixes.hash() & !TAG_MASK) | (tag & TAG_MASK));
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

    /// What holds for this name with one of these ranges of ports: how it is meant, where in the name it begins, and the number of
    /// the range. The shortest comes first.
    pub(super) fn find(&self, asked: &str, ranges: RangeMask) -> Option<(Kind, usize, usize)> {
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
                let tag = entry & TAG_MASK;
                let range = (tag >> KIND_BITS) as usize;
                let kind = Kind::ALL.get((tag & KIND_MASK) as usize).copied().filter(holds);
                if let (0, 1, Some(kind)) = ((entry ^ hash) & !TAG_MASK, (ranges >> range) & 1, kind) {
                    return Some((kind, start, range));
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
        let (hasher, name) = (self.keys.build_hasher(), name.as_bytes());
        Suffixes { hasher, name, start: name.len(), chunks_end: name.len(), depth: 0 }
    }
}

/// Whoever reads a list keeps it below 4 GiB, so that it is one.
fn position_u32(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// What of a name is hashed at once.
const CHUNK_BYTES: usize = 32;

/// A name's suffixes from the shortest on: one pass over the name hashes them all. A suffix is cut into chunks of one size from its
/// end on; they are hashed in this order, and then what is left in front. So the chunks are hashed once for all suffixes, whatever
/// their labels are, and no two suffixes make the same of that.
struct Suffixes<'a> {
    /// Has seen the whole chunks.
    hasher: DefaultHasher,
    name: &'a [u8],
    /// Where the suffix begins; behind the end before the first.
    start: usize,
    /// What lies behind here is hashed.
    chunks_end: usize,
    /// The bit for the suffix's number of labels; 0 before the first. Names have at most 127.
    depth: u128,
}

impl Suffixes<'_> {
    /// Where the next suffix begins.
    fn next(&mut self) -> Option<usize> {
        // Nothing stands before the first suffix, and a dot before each other one.
        let end = if self.depth == 0 { self.start } else { self.start.checked_sub(1)? };
        let rest = self.name.get(..end)?;
        self.start = rest.iter().rposition(|&byte| byte == b'.').map_or(0, |dot| dot + 1);
        self.depth = (self.depth << 1).max(1);
        Some(self.start)
    }

    fn hash(&mut self) -> u64 {
        while let Some(start) = self.chunks_end.checked_sub(CHUNK_BYTES).filter(|&start| start >= self.start)
        {
            self.hasher.write(&self.name[start..self.chunks_end]);
            self.chunks_end = start;
        }
        let mut hasher = self.hasher.clone();
        hasher.write(&self.name[self.start..self.chunks_end]);
        hasher.finish()
    }
}
