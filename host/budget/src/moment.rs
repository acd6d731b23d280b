//! Time, by two clocks: the one that tells days, which may jump, and the one that tells how long something lasts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::account::MAX_LASTS;

const DAY_NS: u64 = 86_400 * 1_000_000_000;

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Unix time in nanoseconds.
    pub unix_ns: u64,
    /// The clock that never jumps.
    pub at: Instant,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX), at: Instant::now() }
    }

    /// Records of the ledger before this Unix time in nanoseconds say nothing of today, nor of approvals that are open.
    #[must_use]
    pub fn counts_since_ns(&self) -> u64 {
        (day(self.unix_ns) * DAY_NS).saturating_sub(MAX_LASTS.as_nanos() as u64)
    }

    /// How long it is until the day after `day`.
    pub(crate) fn until_after(&self, day: u64) -> Duration {
        Duration::from_nanos(day.saturating_add(1).saturating_mul(DAY_NS).saturating_sub(self.unix_ns))
    }
}

/// The day of a Unix time in nanoseconds, counted from 1970-01-01.
pub(crate) fn day(unix_ns: u64) -> u64 {
    unix_ns / DAY_NS
}
