//! The places of a ring's consumers, and the counters that each shows there.

use super::reader::MAX_CONSUMERS;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What one consumer shows of itself; written by it alone, on lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Progress {
    pub(super) position: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// Which places are taken, a bit each, and what their holders show.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicU32,
    pub(super) progress: [Progress; MAX_CONSUMERS],
}

impl Places {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let progress = |_| Progress { position: zero(), received: zero(), lost: zero() };
        Self { taken: AtomicU32::new(0), progress: std::array::from_fn(progress) }
    }

    /// Takes the lowest free place, if there is one.
    pub(super) fn take(&self) -> Option<usize> {
        let lowest = |taken: u32| (taken != u32::MAX).then(|| taken | (taken + 1));
        // Acquire: what the place's last holder showed comes before what the new one will.
        let before = self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lowest).ok()?;
        Some(before.trailing_ones() as usize)
    }

    /// Frees a place.
    pub(super) fn give_back(&self, place: usize) {
        self.taken.fetch_and(!(1 << place), Ordering::Release);
    }

    /// The places that are taken.
    pub(super) fn taken(&self) -> impl Iterator<Item = usize> + use<> {
        let taken = self.taken.load(Ordering::Acquire);
        (0..MAX_CONSUMERS).filter(move |place| taken & (1 << place) != 0)
    }
}

const _: () = assert!(MAX_CONSUMERS == u32::BITS as usize);
