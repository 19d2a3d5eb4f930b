//! The byte rings between two sockets, and the free list their storage is borrowed from.
//!
//! A ring owns storage only while bytes are in it or about to be: an idle tunnel holds none. The free list is the ceiling:
//! it lends a number of pieces fixed at start, and says no after that.

/// Bytes in one ring. A request head must fit into one (see `head::MAX_HEAD_BYTES`), and one read and one write move at
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
    fn ring_without_storage_takes_and_gives_nothing() {
        let mut ring = Ring::default();
        assert!(ring.fill_slice().is_empty() && ring.drain_slice().is_empty() && !ring.is_full());
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
