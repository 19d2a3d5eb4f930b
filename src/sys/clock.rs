//! The clock on the wall: for what people read. Deadlines have a clock of their own, which nobody sets back.

use std::time::{Duration, SystemTime};

use crate::proto::unix_time::UnixTime;

/// What it says now; the epoch, if it stands before that.
#[must_use]
pub fn unix_time() -> UnixTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
