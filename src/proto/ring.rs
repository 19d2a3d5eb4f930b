//! The byte rings between two sockets, and the free list their storage is borrowed from.
//!
//! A ring owns storage only while bytes are in it or about to be: an idle tunnel holds none. The free list is the ceiling:
//! it lends a number of pieces that the configuration says, and says no after that.

use std::fmt::{self, Debug};

/// Bytes in one ring. A request head must fit into one (see `scan::MAX_HEAD_BYTES`), and one read and one write move at
/// most this much.
pub const RING_BYTES: usize = 32 * 1024;

/// Bytes in a wide ring, which is lent in place of an ordinary one while there is plenty: a response of 64 KiB is then taken
/// with its head by one call and sent on by another, where an ordinary ring takes three of each.
pub const WIDE_RING_BYTES: usize = WIDE_PIECES * RING_BYTES;
/// What a wide ring counts for.
const WIDE_PIECES: usize = 4;
const WIDE_UNITS: usize = WIDE_PIECES * PIECE_UNITS;

/// Bytes in a small ring. Once half of the free list is lent, small messages of tunnels are read into these, and what waits
/// elsewhere is moved into them if it fits ([`Pool::tighten`]): a peer that takes nothing then holds little.
pub const SMALL_RING_BYTES: usize = UNIT_BYTES - 64;
/// What storage is counted in: a small ring with what the allocator adds.
const UNIT_BYTES: usize = 2048;
/// What an ordinary ring counts for.
const PIECE_UNITS: usize = RING_BYTES / UNIT_BYTES;

/// Bytes that one pipe takes at most.
pub const PIPE_BYTES: usize = PIPE_PIECES * RING_BYTES;
/// What a pipe counts for.
const PIPE_UNITS: usize = PIPE_PIECES * PIECE_UNITS;
const PIPE_PIECES: usize = 8;
/// Pipes that are lent at most, however much storage there is.
pub const PIPES_MAX: usize = 16;

/// Pieces the free list keeps for reuse when nobody needs them; more go back to the allocator, so that memory returns to
/// its baseline after a busy hour.
const SPARE_MAX: usize = 16;
/// The same for wide and for small rings.
const SPARE_WIDE_MAX: usize = 4;
const SPARE_SMALL_MAX: usize = 64;

/// One ring's worth of memory, lent by [`Pool`].
#[derive(Debug)]
pub struct Storage(Box<Bytes>);

/// Of one of three lengths. Behind a pointer of its own, for the length would be in every ring: a session has two of them, and
/// nearly all have no storage.
struct Bytes(Box<[u8]>);

impl Debug for Bytes {
    /// Never what peers have sent: there are credentials in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Storage {
    fn allocate(bytes: usize) -> Storage {
        // By way of a Vec, so that the allocator hands out zeroed pages untouched: a ring that carries 100 bytes then
        // costs one page of resident memory, not RING_BYTES.
        Storage(Box::new(Bytes(vec![0; bytes].into_boxed_slice())))
    }

    /// What it counts for.
    fn units(&self) -> usize {
        self.bytes().len().div_ceil(UNIT_BYTES)
    }

    fn bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.0
    }
}

/// What is known of a sink, from the worst to the best: how much storage its direction is lent where there is little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has let bytes wait for long.
    Slow,
    /// It may turn out to be either.
    Fresh,
    /// It has taken much without a pause.
    Proven,
}

/// The free list of one loop: lends storage up to a ceiling, never more.
#[derive(Debug)]
pub struct Pool {
    spare: Vec<Storage>,
    spare_wide: Vec<Storage>,
    spare_small: Vec<Storage>,
    /// In units, as `limit`; so much of it wide.
    lent: usize,
    wide: usize,
    limit: usize,
    /// The pipes are not here; what they hold counts.
    pipes: usize,
}

impl Pool {
    /// A pool that lends at most `bytes` of storage, and at least one piece.
    #[must_use]
    pub fn with_ceiling(bytes: u64) -> Pool {
        let (spare, spare_wide, spare_small) = (Vec::new(), Vec::new(), Vec::new());
        let mut pool = Pool { spare, spare_wide, spare_small, lent: 0, wide: 0, limit: 0, pipes: 0 };
        pool.set_ceiling(bytes);
        pool
    }

    /// Lends at most so much from now on; what is lent beyond that comes back in its time.
    pub fn set_ceiling(&mut self, bytes: u64) {
        let pieces = usize::try_from(bytes / RING_BYTES as u64).unwrap_or(usize::MAX / PIECE_UNITS);
        self.limit = pieces.max(1) * PIECE_UNITS;
    }

    /// Lends one piece, or `None` at the ceiling. The last piece given back is lent first: it is still in the cache.
    pub fn lend(&mut self) -> Option<Storage> {
        if self.free() == 0 {
            return None;
        }
        self.lent += PIECE_UNITS;
        Some(self.spare.pop().unwrap_or_else(|| self.allocate(RING_BYTES)))
    }

    /// Lends storage for a wide ring while hardly any is out. Once an eighth is, it is one piece: of the rest, as many slow
    /// readers as before can hold an ordinary ring each.
    pub fn lend_wide(&mut self) -> Option<Storage> {
        if self.lent + WIDE_UNITS > self.limit / 8 { self.lend() } else { self.wide() }
    }

    /// The same for an answer, which is over soon and has no pipe: as long as wide rings are no more than a quarter, and there is no
    /// need to spare.
    pub fn lend_for_answer(&mut self) -> Option<Storage> {
        if self.wide + WIDE_UNITS > self.limit / 4 || !self.spares(Standing::Fresh) {
            self.lend()
        } else {
            self.wide()
        }
    }

    fn wide(&mut self) -> Option<Storage> {
        if self.free() < WIDE_PIECES {
            return self.lend();
        }
        self.lent += WIDE_UNITS;
        self.wide += WIDE_UNITS;
        Some(self.spare_wide.pop().unwrap_or_else(|| self.allocate(WIDE_RING_BYTES)))
    }

    /// Lends storage for a small ring, unless less than a piece is left: who starves can be helped exactly if [`Pool::free`] says so,
    /// whatever it needs.
    pub fn lend_small(&mut self) -> Option<Storage> {
        if self.free() == 0 { None } else { Some(self.small()) }
    }

    fn small(&mut self) -> Storage {
        self.lent += 1;
        self.spare_small.pop().unwrap_or_else(|| self.allocate(SMALL_RING_BYTES))
    }

    /// What is lent as from now on. Spare storage of other sizes goes where there would be more of all together than may be lent.
    fn allocate(&mut self, bytes: usize) -> Storage {
        self.drop_spare();
        Storage::allocate(bytes)
    }

    fn drop_spare(&mut self) {
        let lists = [&mut self.spare_wide, &mut self.spare, &mut self.spare_small];
        let taken = self.lent + self.pipes * PIPE_UNITS;
        let mut spare: usize = lists.iter().map(|list| list.iter().map(Storage::units).sum::<usize>()).sum();
        for list in lists {
            while taken + spare > self.limit
                && let Some(storage) = list.pop()
            {
                spare -= storage.units();
            }
        }
    }

    /// Gives all that is spare to the allocator.
    pub fn free_spare(&mut self) {
        (self.spare_wide, self.spare, self.spare_small) = (Vec::new(), Vec::new(), Vec::new());
    }

    /// Moves what `ring` holds into small storage, if it fits in with `spare_bytes` to spare, and takes back what it had.
    pub fn tighten(&mut self, ring: &mut Ring, spare_bytes: usize) {
        let fits = ring.len() + spare_bytes <= SMALL_RING_BYTES;
        if fits && !ring.is_empty() && ring.capacity() > SMALL_RING_BYTES {
            // More comes back than is lent: no question of the ceiling.
            let small = self.small();
            if let Some(storage) = ring.move_to(small) {
                self.give_back(storage);
            }
        }
    }

    /// Takes storage back.
    pub fn give_back(&mut self, storage: Storage) {
        let units = storage.units();
        debug_assert!(self.lent >= units, "storage that was never lent came back");
        self.lent = self.lent.saturating_sub(units);
        let (spare, most) = match units {
            ..PIECE_UNITS => (&mut self.spare_small, SPARE_SMALL_MAX),
            PIECE_UNITS => (&mut self.spare, SPARE_MAX),
            _ => {
                self.wide = self.wide.saturating_sub(units);
                (&mut self.spare_wide, SPARE_WIDE_MAX)
            }
        };
        if spare.len() < most {
            spare.push(storage);
        }
    }

    /// Whether a pipe may take [`PIPE_BYTES`]. All pipes together take a quarter at most. Half of them are for those alone who
    /// have proved to empty them: what is in a pipe when its sink stops stays there.
    pub fn lend_pipe(&mut self, standing: Standing) -> bool {
        let may = self.pipes < self.pipes_for(standing) && self.taken() + PIPE_UNITS <= self.limit / 8 * 7;
        self.pipes += usize::from(may);
        self.drop_spare();
        may
    }

    fn pipes_for(&self, standing: Standing) -> usize {
        let most = PIPES_MAX.min(self.limit / 4 / PIPE_UNITS);
        match standing {
            Standing::Slow | Standing::Fresh => most.div_ceil(2),
            Standing::Proven => most,
        }
    }

    /// Whether who stands so may fill the pipe once more that it has: who was proven may have become slow.
    #[must_use]
    pub fn leaves_pipe(&self, standing: Standing) -> bool {
        self.pipes <= self.pipes_for(standing)
    }

    /// A pipe is empty, or closed.
    pub fn give_back_pipe(&mut self) {
        debug_assert!(self.pipes > 0, "a pipe that was never lent came back");
        self.pipes = self.pipes.saturating_sub(1);
    }

    /// Units of rings and pipes together.
    fn taken(&self) -> usize {
        self.lent + self.pipes * PIPE_UNITS
    }

    /// Pieces that are out at the moment, also those of which only a part is.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.taken().div_ceil(PIECE_UNITS)
    }

    /// Whether so little is left that those who only might need their storage should do without, and others with little.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        !self.spares(Standing::Slow)
    }

    /// Whether so much is left that who stands so may read as much at a time as ever. Who is slow has to leave half to the
    /// others, and who is new a quarter to those who have shown that they give it back soon.
    #[must_use]
    pub fn spares(&self, standing: Standing) -> bool {
        let most = match standing {
            Standing::Slow => self.limit / 2,
            Standing::Fresh => self.limit / 4 * 3,
            Standing::Proven => self.limit / 8 * 7,
        };
        self.taken() < most
    }

    /// Pieces that [`Pool::lend`] would still lend.
    #[must_use]
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.taken()) / PIECE_UNITS
    }
}

/// A first-in-first-out queue of at most as many bytes as its storage has. Without storage it is empty and takes nothing.
#[derive(Debug, Default)]
pub struct Ring {
    storage: Option<Storage>,
    start: u32,
    len: u32,
}

impl Ring {
    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no byte is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further byte fits in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.storage.is_some() && self.len() == self.capacity()
    }

    /// Bytes that fit into its storage.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.storage.as_ref().map_or(0, |storage| storage.bytes().len())
    }

    /// Whether storage is here to fill.
    #[must_use]
    pub fn has_storage(&self) -> bool {
        self.storage.is_some()
    }

    /// Puts borrowed storage under the ring. What the ring does not need comes straight back: the smaller one, if it has some.
    #[must_use]
    pub fn attach(&mut self, storage: Storage) -> Option<Storage> {
        if storage.bytes().len() <= self.capacity() { Some(storage) } else { self.move_to(storage) }
    }

    /// What is held, and fits, goes into that storage.
    fn move_to(&mut self, mut storage: Storage) -> Option<Storage> {
        let held = self.contents_mut();
        storage.bytes_mut()[..held.len()].copy_from_slice(held);
        self.start = 0;
        self.storage.replace(storage)
    }

    /// Gives the storage up if the ring is empty.
    pub fn detach_if_empty(&mut self) -> Option<Storage> {
        if self.is_empty() { self.storage.take() } else { None }
    }

    /// Forgets all bytes held.
    pub fn clear(&mut self) {
        (self.start, self.len) = (0, 0);
    }

    /// The free space that can be filled in one piece; empty without storage or when full. Follow with [`Ring::filled`].
    pub fn fill_slice(&mut self) -> &mut [u8] {
        let (start, len) = (self.start as usize, self.len());
        let Some(bytes) = self.storage.as_mut().map(Storage::bytes_mut) else { return &mut [] };
        let end = start + len;
        let capacity = bytes.len();
        if end < capacity { &mut bytes[end..] } else { &mut bytes[end - capacity..start] }
    }

    /// `count` bytes were put into [`Ring::fill_slice`].
    pub fn filled(&mut self, count: usize) {
        let room = self.capacity() - self.len();
        debug_assert!(count <= room, "more filled than fits");
        self.len += count.min(room) as u32;
    }

    /// The oldest bytes that can be taken in one piece. Follow with [`Ring::drained`].
    #[must_use]
    pub fn drain_slice(&self) -> &[u8] {
        let Some(bytes) = self.storage.as_ref().map(Storage::bytes) else { return &[] };
        let start = self.start as usize;
        &bytes[start..(start + self.len()).min(bytes.len())]
    }

    /// The `count` oldest bytes are done with. An empty ring starts over at its beginning, so that the next read finds all
    /// the space in one piece.
    pub fn drained(&mut self, count: usize) {
        debug_assert!(count <= self.len(), "more drained than held");
        let count = count.min(self.len());
        self.len -= count as u32;
        let start = self.start as usize + count;
        let wrap = if start >= self.capacity() { self.capacity() } else { 0 };
        self.start = if self.len == 0 { 0 } else { (start - wrap) as u32 };
    }

    /// Moves what is held to the beginning of the storage, so that all free space is one piece behind it.
    pub fn compact(&mut self) {
        let (start, len) = (self.start as usize, self.len());
        let Some(bytes) = self.storage.as_mut().map(Storage::bytes_mut) else { return };
        if start + len > bytes.len() {
            bytes.rotate_left(start);
        } else if start > 0 {
            bytes.copy_within(start..start + len, 0);
        }
        self.start = 0;
    }

    /// All bytes held, if they stand in one piece: always where the ring is only filled behind [`Ring::compact`]ed content,
    /// and behind [`Ring::contents_mut`]. Otherwise only the first piece.
    #[must_use]
    pub fn contents(&self) -> &[u8] {
        let piece = self.drain_slice();
        debug_assert!(piece.len() == self.len(), "the content is in two pieces");
        piece
    }

    /// All bytes held, put into one piece if they are in two.
    pub fn contents_mut(&mut self) -> &mut [u8] {
        self.join();
        let (start, len) = (self.start as usize, self.len());
        let Some(bytes) = self.storage.as_mut().map(Storage::bytes_mut) else { return &mut [] };
        &mut bytes[start..start + len]
    }

    /// Puts `bytes` in place of the `count` oldest bytes. What is held then stands in one piece, and is moved only if there
    /// is no room in front of it.
    ///
    /// The caller has made sure that it fits: `count` bytes are held, and with `bytes` in their place no more than
    /// [`Ring::capacity`]. If not, nothing is held behind it: half a head must not go anywhere.
    pub fn replace_front(&mut self, count: usize, bytes: &[u8]) {
        let fits = count <= self.len() && self.len() - count + bytes.len() <= self.capacity();
        debug_assert!(fits, "the replacement does not fit");
        if !fits {
            return self.clear();
        }
        self.join();
        let end = self.start as usize + self.len();
        let rest_len = self.len() - count;
        let Some(storage) = self.storage.as_mut().map(Storage::bytes_mut) else { return };
        let (mut rest, mut start) = (end - rest_len, 0);
        if rest >= bytes.len() {
            start = rest - bytes.len();
        } else {
            storage.copy_within(rest..end, bytes.len());
            rest = bytes.len();
        }
        storage[start..rest].copy_from_slice(bytes);
        self.len = (bytes.len() + rest_len) as u32;
        self.start = if self.len == 0 { 0 } else { start as u32 };
    }

    /// Takes `count` bytes out of the middle, behind the `at` oldest ones. The shorter side is moved; what is held then
    /// stands in one piece. What reaches beyond the bytes held is not there to be taken.
    pub fn remove(&mut self, at: usize, count: usize) {
        debug_assert!(at + count <= self.len(), "more removed than held");
        self.join();
        let (start, len) = (self.start as usize, self.len());
        let at = at.min(len);
        let count = count.min(len - at);
        let Some(bytes) = self.storage.as_mut().map(Storage::bytes_mut) else { return };
        if at < len - at - count {
            bytes.copy_within(start..start + at, start + count);
            self.start += count as u32;
        } else {
            bytes.copy_within(start + at + count..start + len, start + at);
        }
        self.len -= count as u32;
        if self.len == 0 {
            self.start = 0;
        }
    }

    /// Puts what is held into one piece.
    fn join(&mut self) {
        if self.start as usize + self.len() > self.capacity() {
            self.compact();
        }
    }
}

const _: () = assert!(WIDE_RING_BYTES <= u32::MAX as usize / 2, "start + length must not overflow");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A ring of either size: a pool that can spare wide ones, and one that cannot.
    fn either_ring(case: impl Fn(Ring, usize)) {
        for (pieces, bytes) in [(1, RING_BYTES), (8 * WIDE_PIECES, WIDE_RING_BYTES)] {
            let mut pool = Pool::with_ceiling((pieces * RING_BYTES) as u64);
            let mut ring = Ring::default();
            assert!(ring.attach(pool.lend_wide().unwrap()).is_none());
            assert_eq!(ring.capacity(), bytes);
            case(ring, bytes);
        }
    }

    #[test]
    fn a_ceiling_can_be_lowered_while_storage_is_lent() {
        let mut pool = Pool::with_ceiling(4 * RING_BYTES as u64);
        let lent: Vec<Storage> = (0..4).map(|_| pool.lend().unwrap()).collect();
        pool.set_ceiling(2 * RING_BYTES as u64);
        assert_eq!((pool.lent(), pool.free()), (4, 0));
        for (nth, storage) in lent.into_iter().enumerate() {
            assert!(nth == 3 || pool.lend().is_none(), "{nth} are back");
            pool.give_back(storage);
        }
        assert_eq!((pool.lent(), pool.free()), (0, 2));
        pool.set_ceiling(5 * RING_BYTES as u64);
        assert_eq!(pool.free(), 5);
    }

    #[test]
    fn ring_agrees_with_a_queue() {
        either_ring(agrees_with_a_queue);
    }

    fn agrees_with_a_queue(mut ring: Ring, capacity: usize) {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let mut model: VecDeque<u8> = VecDeque::new();
        let mut wrapped = 0;
        for turn in 0..(20_000 * RING_BYTES / capacity) as u32 {
            let slice = ring.fill_slice();
            let count = if slice.is_empty() { 0 } else { random(slice.len() + 1) };
            for (i, byte) in slice[..count].iter_mut().enumerate() {
                *byte = (turn as usize + i) as u8;
                model.push_back(*byte);
            }
            ring.filled(count);
            assert_eq!((ring.len(), ring.is_full()), (model.len(), model.len() == capacity));
            let slice = ring.drain_slice();
            wrapped += usize::from(slice.len() < ring.len());
            let count = random(slice.len() + 1);
            assert!(slice[..count].iter().eq(model.iter().take(count)), "bytes came out changed");
            model.drain(..count);
            ring.drained(count);
            assert_eq!(ring.is_empty(), model.is_empty());
        }
        assert!(wrapped > 100, "the test never wrapped the ring: {wrapped}");
    }

    #[test]
    fn edits_agree_with_a_queue() {
        either_ring(edits_agree);
    }

    fn edits_agree(mut ring: Ring, capacity: usize) {
        let mut seed = 0x1234_5678_9abc_def1u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let mut model: VecDeque<u8> = VecDeque::new();
        let sizes = [1, 2, 20, 500, capacity + 1];
        let (mut wrapped, mut in_front, mut shifted) = (0, 0, 0);
        for turn in 0..20_000usize {
            let size = sizes[random(sizes.len())];
            let is_wrapped = ring.drain_slice().len() < ring.len();
            wrapped += usize::from(is_wrapped);
            match random(32) {
                0..14 => {
                    let slice = ring.fill_slice();
                    let count = random(size.min(slice.len() + 1));
                    for (i, byte) in slice[..count].iter_mut().enumerate() {
                        *byte = (turn + i) as u8;
                        model.push_back(*byte);
                    }
                    ring.filled(count);
                }
                14..28 => {
                    let count = random(ring.drain_slice().len() + 1);
                    ring.drained(count);
                    model.drain(..count);
                }
                28 | 29 => {
                    let count = random(size.min(model.len() + 1));
                    let room = capacity - (model.len() - count);
                    let bytes: Vec<u8> =
                        (0..random(size.min(room + 1))).map(|i| (turn * 3 + i) as u8).collect();
                    let kept: Vec<u8> = model.iter().skip(count).copied().collect();
                    let start = ring.start as usize;
                    if !is_wrapped && start + count >= bytes.len() {
                        in_front += 1;
                    } else {
                        shifted += 1;
                    }
                    ring.replace_front(count, &bytes);
                    model = bytes.into_iter().chain(kept).collect();
                    assert_eq!(ring.contents().len(), model.len(), "in one piece");
                }
                30 => {
                    let at = random(model.len() + 1);
                    let count = random(size.min(model.len() - at + 1));
                    ring.remove(at, count);
                    model.drain(at..at + count);
                    assert_eq!(ring.contents().len(), model.len(), "in one piece");
                }
                _ => {
                    ring.compact();
                    assert_eq!(
                        ring.fill_slice().len(),
                        capacity - model.len(),
                        "all free space in one piece"
                    );
                }
            }
            assert_eq!((ring.len(), ring.is_empty()), (model.len(), model.is_empty()));
            if turn % 32 == 0 {
                let all = ring.contents_mut();
                assert!(all.iter().eq(model.iter()), "bytes changed");
            }
        }
        assert!(wrapped > 100 && in_front > 100 && shifted > 100, "{wrapped} {in_front} {shifted}");
    }

    #[test]
    fn a_replacement_takes_the_room_in_front() {
        let mut pool = Pool::with_ceiling(1);
        let mut ring = Ring::default();
        assert!(ring.attach(pool.lend().unwrap()).is_none());
        let put = |ring: &mut Ring, bytes: &[u8]| {
            ring.fill_slice()[..bytes.len()].copy_from_slice(bytes);
            ring.filled(bytes.len());
        };
        put(&mut ring, b"head|body");
        ring.replace_front(5, b"new|");
        assert_eq!((ring.contents(), ring.start), (&b"new|body"[..], 1), "nothing behind it is moved");
        ring.replace_front(4, b"longer|");
        assert_eq!((ring.contents(), ring.start), (&b"longer|body"[..], 0));
        ring.remove(9, 2);
        assert_eq!((ring.contents(), ring.start), (&b"longer|bo"[..], 0));
        ring.remove(1, 3);
        assert_eq!((ring.contents(), ring.start), (&b"ler|bo"[..], 3), "the shorter side is moved");
        ring.replace_front(6, b"");
        assert_eq!((ring.contents(), ring.start), (&b""[..], 0));
    }

    #[test]
    fn ring_without_storage_takes_and_gives_nothing() {
        let mut ring = Ring::default();
        assert!(ring.fill_slice().is_empty() && ring.drain_slice().is_empty() && !ring.is_full());
        ring.compact();
        ring.remove(0, 0);
        ring.replace_front(0, b"");
        assert!(ring.contents().is_empty() && ring.contents_mut().is_empty());
    }

    #[test]
    fn storage_is_kept_while_bytes_are_in_it() {
        let mut pool = Pool::with_ceiling(RING_BYTES as u64);
        let mut ring = Ring::default();
        assert!(ring.attach(pool.lend().unwrap()).is_none());
        ring.fill_slice()[0] = 7;
        ring.filled(1);
        assert!(ring.detach_if_empty().is_none());
        assert_eq!(ring.drain_slice(), [7]);
        ring.drained(1);
        pool.give_back(ring.detach_if_empty().unwrap());
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn pool_stops_at_its_ceiling_and_recovers() {
        let mut pool = Pool::with_ceiling(3 * RING_BYTES as u64 + 5);
        let lent: Vec<Storage> = std::iter::from_fn(|| pool.lend()).collect();
        assert_eq!((lent.len(), pool.free()), (3, 0));
        for storage in lent {
            pool.give_back(storage);
        }
        assert_eq!((pool.free(), pool.lent()), (3, 0));
    }

    #[test]
    fn wide_storage_is_lent_of_an_eighth_only() {
        let mut pool = Pool::with_ceiling((2 * 8 * WIDE_PIECES * RING_BYTES) as u64);
        let lent: Vec<Storage> = std::iter::from_fn(|| pool.lend_wide()).collect();
        let pieces: Vec<usize> = lent.iter().map(|storage| storage.units() / PIECE_UNITS).collect();
        assert_eq!(pieces[..2], [WIDE_PIECES; 2]);
        assert!(pieces[2..].iter().all(|&pieces| pieces == 1));
        assert_eq!((pieces.iter().sum(), pool.free()), (2 * 8 * WIDE_PIECES, 0));
        for storage in lent {
            pool.give_back(storage);
        }
        assert_eq!((pool.free(), pool.lent()), (2 * 8 * WIDE_PIECES, 0));
        assert_eq!((pool.spare.len(), pool.spare_wide.len()), (SPARE_MAX, 2));
    }

    #[test]
    fn pipes_are_a_quarter_at_most_and_leave_less_for_rings() {
        let mut pool = Pool::with_ceiling((4 * 2 * PIPE_BYTES) as u64);
        assert!(
            pool.lend_pipe(Standing::Fresh)
                && pool.lend_pipe(Standing::Proven)
                && !pool.lend_pipe(Standing::Proven)
        );
        assert_eq!(pool.lent(), 2 * PIPE_PIECES);
        let lent: Vec<Storage> = std::iter::from_fn(|| pool.lend()).collect();
        assert_eq!((lent.len(), pool.free()), (3 * 2 * PIPE_PIECES, 0));
        pool.give_back_pipe();
        assert_eq!(pool.free(), PIPE_PIECES);
        let mut lent = lent.into_iter();
        lent.by_ref().take(PIPE_PIECES - 1).for_each(|storage| pool.give_back(storage));
        assert!(!pool.lend_pipe(Standing::Proven), "an eighth is left to others");
        lent.next().map(|storage| pool.give_back(storage)).unwrap();
        assert!(pool.lend_pipe(Standing::Proven));
        let mut pool = Pool::with_ceiling(1 << 40);
        assert_eq!(std::iter::from_fn(|| pool.lend_pipe(Standing::Proven).then_some(())).count(), PIPES_MAX);
        let mut pool = Pool::with_ceiling((4 * PIPE_BYTES - RING_BYTES) as u64);
        assert!(!pool.lend_pipe(Standing::Proven), "it would be more than a quarter");
    }

    #[test]
    fn half_of_the_pipes_are_for_those_who_empty_them() {
        let mut pool = Pool::with_ceiling(1 << 40);
        let mut lent = |standing| std::iter::from_fn(|| pool.lend_pipe(standing).then_some(())).count();
        assert_eq!(lent(Standing::Fresh), PIPES_MAX / 2);
        assert_eq!((lent(Standing::Slow), lent(Standing::Proven)), (0, PIPES_MAX / 2));
        assert!(pool.leaves_pipe(Standing::Proven) && !pool.leaves_pipe(Standing::Slow));
        for _ in 0..PIPES_MAX / 2 {
            pool.give_back_pipe();
        }
        assert!(pool.leaves_pipe(Standing::Slow));
        // The only one is for anybody.
        assert!(Pool::with_ceiling(4 * PIPE_BYTES as u64).lend_pipe(Standing::Fresh));
    }

    #[test]
    fn who_is_slow_leaves_half_and_who_is_new_a_quarter() {
        let mut pool = Pool::with_ceiling(16 * RING_BYTES as u64);
        let mut spares = Vec::new();
        while let Some(storage) = pool.lend() {
            let spared = [Standing::Slow, Standing::Fresh, Standing::Proven].map(|of| pool.spares(of));
            spares.push(spared.iter().filter(|&&spared| spared).count());
            assert_eq!(pool.is_scarce(), !spared[0]);
            drop(storage);
        }
        assert_eq!(spares, [3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn answers_have_wide_storage_until_it_is_a_quarter() {
        let mut pool = Pool::with_ceiling((8 * WIDE_PIECES * RING_BYTES) as u64);
        // Too much for the wide ring of a tunnel.
        let others: Vec<Storage> = (0..WIDE_PIECES).map(|_| pool.lend().unwrap()).collect();
        assert_eq!(pool.lend_wide().unwrap().units(), PIECE_UNITS);
        let wide: Vec<Storage> = (0..3).map(|_| pool.lend_for_answer().unwrap()).collect();
        let units: Vec<usize> = wide.iter().map(Storage::units).collect();
        assert_eq!(units, [WIDE_UNITS, WIDE_UNITS, PIECE_UNITS]);
        wide.into_iter().for_each(|storage| pool.give_back(storage));
        assert_eq!((pool.wide, pool.lend_for_answer().unwrap().units()), (0, WIDE_UNITS));
        drop(others);
        let mut pool = Pool::with_ceiling((8 * WIDE_PIECES * RING_BYTES) as u64);
        let _lent: Vec<Storage> = (0..6 * WIDE_PIECES).map(|_| pool.lend().unwrap()).collect();
        assert_eq!(pool.lend_for_answer().unwrap().units(), PIECE_UNITS, "a quarter is left");
    }

    #[test]
    fn small_storage_is_lent_until_the_last_piece() {
        let mut pool = Pool::with_ceiling(4 * RING_BYTES as u64);
        assert!(!pool.is_scarce());
        let piece = pool.lend().unwrap();
        let small: Vec<Storage> = std::iter::from_fn(|| pool.lend_small()).collect();
        assert_eq!((small.len(), pool.free(), pool.lent()), (2 * PIECE_UNITS + 1, 0, 4));
        assert!(pool.is_scarce() && pool.lend().is_none());
        pool.give_back(piece);
        assert_eq!(pool.free(), 1);
        for storage in small {
            pool.give_back(storage);
        }
        assert_eq!((pool.free(), pool.lent(), pool.is_scarce()), (4, 0, false));
    }

    #[test]
    fn spare_storage_of_all_sizes_is_part_of_the_ceiling() {
        let mut pool = Pool::with_ceiling(64 * RING_BYTES as u64);
        let mut most = |lend: &mut dyn FnMut(&mut Pool) -> Option<Storage>| {
            let lent: Vec<Storage> = std::iter::from_fn(|| lend(&mut pool)).collect();
            let lists = [&pool.spare, &pool.spare_wide, &pool.spare_small];
            let spare: usize = lists.iter().map(|list| list.iter().map(Storage::units).sum::<usize>()).sum();
            assert!(pool.taken() + spare <= pool.limit, "{} lent, {spare} spare", pool.taken());
            lent.into_iter().for_each(|storage| pool.give_back(storage));
        };
        most(&mut Pool::lend_wide);
        most(&mut Pool::lend);
        most(&mut Pool::lend_small);
        most(&mut Pool::lend);
    }

    #[test]
    fn what_is_held_moves_into_small_storage_and_out_again() {
        let mut pool = Pool::with_ceiling(RING_BYTES as u64);
        let mut ring = Ring::default();
        pool.tighten(&mut ring, 0);
        assert!(ring.attach(pool.lend().unwrap()).is_none());
        pool.tighten(&mut ring, 0);
        assert_eq!(ring.capacity(), RING_BYTES, "an empty one has nothing to move");
        // In two pieces: the last byte of the storage and some at its front.
        ring.filled(RING_BYTES);
        ring.drained(RING_BYTES - 1);
        ring.fill_slice()[..SMALL_RING_BYTES].fill(7);
        ring.filled(SMALL_RING_BYTES);
        pool.tighten(&mut ring, 0);
        assert_eq!(ring.capacity(), RING_BYTES, "one byte too many");
        ring.drained(1);
        pool.tighten(&mut ring, 1);
        assert_eq!(ring.capacity(), RING_BYTES, "nothing to spare");
        ring.drained(1);
        ring.fill_slice()[0] = 8;
        ring.filled(1);
        pool.tighten(&mut ring, 0);
        assert_eq!((ring.capacity(), pool.lent(), pool.spare.len()), (SMALL_RING_BYTES, 1, 1));
        let mut held = [7; SMALL_RING_BYTES];
        held[SMALL_RING_BYTES - 1] = 8;
        assert_eq!(ring.contents(), held);
        pool.give_back(ring.attach(Storage::allocate(RING_BYTES)).unwrap());
        assert_eq!((ring.capacity(), ring.contents(), pool.lent()), (RING_BYTES, &held[..], 0));
    }

    #[test]
    fn second_storage_comes_straight_back() {
        let mut pool = Pool::with_ceiling(4 * RING_BYTES as u64);
        let mut ring = Ring::default();
        assert!(ring.attach(pool.lend().unwrap()).is_none());
        assert!(ring.attach(pool.lend().unwrap()).is_some());
    }
}
