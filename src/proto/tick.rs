//! Time as the pure half of the program knows it: milliseconds on the loop's own monotonic clock, passed in by whoever
//! calls, never read here.

use std::num::NonZeroU32;

/// A moment, in milliseconds since the event loop started. 64 bits: a proxy runs for years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The moment `ms` milliseconds after this one.
    #[must_use]
    pub fn after(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds in four bytes that have room for none: every session keeps some. Up to 49 days, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(NonZeroU32);

impl Millis {
    /// From `earlier` to `later`.
    #[must_use]
    pub fn between(earlier: Tick, later: Tick) -> Millis {
        let ms = u32::try_from(later.since(earlier)).unwrap_or(u32::MAX);
        Millis(NonZeroU32::MIN.saturating_add(ms))
    }

    /// How many.
    #[must_use]
    pub fn get(self) -> u64 {
        u64::from(self.0.get()) - 1
    }
}
