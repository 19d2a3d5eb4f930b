//! The byte rings between two sockets, and the free list their storage is borrowed from.
//!
//! A ring owns storage only while bytes are in it or about to be: an idle tunnel holds none. The free list is the ceiling:
//! it lends a number of pieces fixed at start, and says no after that.

/// Bytes in one ring. A request head must fit into one (see `scan::MAX_HEAD_BYTES`), and one read and one write move at
/// most this much.
pub const RING_BYTES: usize = 32 * 1024;

/// Pieces the free list keeps for reuse when nobody needs them; more go back to the allocator, so that memory returns to
/// its baseline after a busy hour.
const SPARE_MAX: usize = 32;

/// One ring's worth of memory, lent by [`Pool`].
#[derive(Debug)]
pub struct Storage(Box<[u8; RING_BYTES]>);

impl Storage {
    fn allocate() -> Storage {
        // By way of a Vec, so that the allocator hands out zeroed pages untouched: a ring that carries 100 bytes then
        // costs one page of resident memory, not RING_BYTES.
        match vec![0; RING_BYTES].into_boxed_slice().try_into() {
            Ok(bytes) => Storage(bytes),
            Err(_) => Storage(Box::new([0; RING_BYTES])),
        }
    }
}

/// The free list of one loop: lends storage up to a ceiling, never more.
#[derive(Debug)]
pub struct Pool {
    spare: Vec<Storage>,
    lent: usize,
    limit: usize,
}

impl Pool {
    /// A pool that lends at most `bytes` of storage, and at least one piece.
    #[must_use]
    pub fn with_ceiling(bytes: u64) -> Pool {
        let limit = usize::try_from(bytes / RING_BYTES as u64).unwrap_or(usize::MAX).max(1);
        Pool { spare: Vec::new(), lent: 0, limit }
    }

    /// Lends one piece, or `None` at the ceiling. The last piece given back is lent first: it is still in the cache.
    pub fn lend(&mut self) -> Option<Storage> {
        if self.lent == self.limit {
            return None;
        }
        self.lent += 1;
        Some(self.spare.pop().unwrap_or_else(Storage::allocate))
    }

    /// Takes a piece back.
    pub fn give_back(&mut self, storage: Storage) {
        debug_assert!(self.lent > 0, "storage that was never lent came back");
        self.lent = self.lent.saturating_sub(1);
        if self.spare.len() < SPARE_MAX {
            self.spare.push(storage);
        }
    }

    /// Pieces that are out at the moment.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Whether so little is left that those who only might need their storage should do without.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.free() <= self.limit / 2
    }

    /// Pieces that [`Pool::lend`] would still lend.
    #[must_use]
    pub fn free(&self) -> usize {
        self.limit - self.lent
    }
}

/// A first-in-first-out queue of at most [`RING_BYTES`] bytes. Without storage it is empty and takes nothing.
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
        self.len() == RING_BYTES
    }

    /// Whether storage is here to fill.
    #[must_use]
    pub fn has_storage(&self) -> bool {
        self.storage.is_some()
    }

    /// Puts borrowed storage under the ring. Storage that the ring does not need comes straight back.
    #[must_use]
    pub fn attach(&mut self, storage: Storage) -> Option<Storage> {
        if self.storage.is_some() {
            return Some(storage);
        }
        self.storage = Some(storage);
        None
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
        let Some(Storage(bytes)) = &mut self.storage else { return &mut [] };
        let end = start + len;
        if end < RING_BYTES { &mut bytes[end..] } else { &mut bytes[end - RING_BYTES..start] }
    }

    /// `count` bytes were put into [`Ring::fill_slice`].
    pub fn filled(&mut self, count: usize) {
        debug_assert!(count <= RING_BYTES - self.len(), "more filled than fits");
        self.len += count.min(RING_BYTES - self.len()) as u32;
    }

    /// The oldest bytes that can be taken in one piece. Follow with [`Ring::drained`].
    #[must_use]
    pub fn drain_slice(&self) -> &[u8] {
        let Some(Storage(bytes)) = &self.storage else { return &[] };
        let start = self.start as usize;
        &bytes[start..(start + self.len()).min(RING_BYTES)]
    }

    /// The `count` oldest bytes are done with. An empty ring starts over at its beginning, so that the next read finds all
    /// the space in one piece.
    pub fn drained(&mut self, count: usize) {
        debug_assert!(count <= self.len(), "more drained than held");
        let count = count.min(self.len());
        self.len -= count as u32;
        self.start = if self.len == 0 { 0 } else { ((self.start as usize + count) % RING_BYTES) as u32 };
    }

    /// Moves what is held to the beginning of the storage, so that all free space is one piece behind it.
    pub fn compact(&mut self) {
        let (start, len) = (self.start as usize, self.len());
        let Some(Storage(bytes)) = &mut self.storage else { return };
        if start + len > RING_BYTES {
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
        let Some(Storage(bytes)) = &mut self.storage else { return &mut [] };
        &mut bytes[start..start + len]
    }

    /// Puts `bytes` in place of the `count` oldest bytes. What is held then stands in one piece, and is moved only if there
    /// is no room in front of it.
    ///
    /// The caller has made sure that it fits: `count` bytes are held, and with `bytes` in their place no more than
    /// [`RING_BYTES`]. If not, nothing is held behind it: half a head must not go anywhere.
    pub fn replace_front(&mut self, count: usize, bytes: &[u8]) {
        let fits = count <= self.len() && self.len() - count + bytes.len() <= RING_BYTES;
        debug_assert!(fits, "the replacement does not fit");
        if !fits {
            return self.clear();
        }
        self.join();
        let end = self.start as usize + self.len();
        let rest_len = self.len() - count;
        let Some(Storage(storage)) = &mut self.storage else { return };
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
        let Some(Storage(bytes)) = &mut self.storage else { return };
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
        if self.start as usize + self.len() > RING_BYTES {
            self.compact();
        }
    }
}

const _: () = assert!(RING_BYTES <= u32::MAX as usize / 2, "start + length must not overflow");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn ring_agrees_with_a_queue() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let mut pool = Pool::with_ceiling(RING_BYTES as u64);
        let mut ring = Ring::default();
        assert!(ring.attach(pool.lend().unwrap()).is_none());
        let mut model: VecDeque<u8> = VecDeque::new();
        let mut wrapped = 0;
        for turn in 0..20_000u32 {
            let slice = ring.fill_slice();
            let count = if slice.is_empty() { 0 } else { random(slice.len() + 1) };
            for (i, byte) in slice[..count].iter_mut().enumerate() {
                *byte = (turn as usize + i) as u8;
                model.push_back(*byte);
            }
            ring.filled(count);
            assert_eq!((ring.len(), ring.is_full()), (model.len(), model.len() == RING_BYTES));
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
        let mut seed = 0x1234_5678_9abc_def1u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let mut pool = Pool::with_ceiling(RING_BYTES as u64);
        let mut ring = Ring::default();
        assert!(ring.attach(pool.lend().unwrap()).is_none());
        let mut model: VecDeque<u8> = VecDeque::new();
        let sizes = [1, 2, 20, 500, RING_BYTES + 1];
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
                    let room = RING_BYTES - (model.len() - count);
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
                        RING_BYTES - model.len(),
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
    fn second_storage_comes_straight_back() {
        let mut pool = Pool::with_ceiling(4 * RING_BYTES as u64);
        let mut ring = Ring::default();
        assert!(ring.attach(pool.lend().unwrap()).is_none());
        assert!(ring.attach(pool.lend().unwrap()).is_some());
    }
}
