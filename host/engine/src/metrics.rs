//! Counters of an engine, for programs that link it; `megaring serve` logs them when it ends. Relaxed atomics: each
//! number is right, and together they are of about the same moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    jobs_answered: AtomicU64,
    jobs_refused: AtomicU64,
    jobs_batched: AtomicU64,
    failovers: AtomicU64,
    items_answered: AtomicU64,
    busy_ns: AtomicU64,
}

/// A moment's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Jobs answered.
    pub jobs_answered: u64,
    /// Jobs that got no permit.
    pub jobs_refused: u64,
    /// Of those answered, searches that were done in one batch with others'.
    pub jobs_batched: u64,
    /// Times that a job was begun anew on another backend; a batch of several searches is one.
    pub failovers: u64,
    /// Queries and memories answered.
    pub items_answered: u64,
    /// Time from admission to answer, summed over jobs.
    pub busy: Duration,
}

impl Metrics {
    pub(crate) fn answered(&self, items: u64, took: Duration) {
        self.jobs_answered.fetch_add(1, Ordering::Relaxed);
        self.items_answered.fetch_add(items, Ordering::Relaxed);
        self.busy_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.jobs_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn batched(&self) {
        self.jobs_batched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed_over(&self) {
        self.failovers.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads all counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            jobs_answered: self.jobs_answered.load(Ordering::Relaxed),
            jobs_refused: self.jobs_refused.load(Ordering::Relaxed),
            jobs_batched: self.jobs_batched.load(Ordering::Relaxed),
            failovers: self.failovers.load(Ordering::Relaxed),
            items_answered: self.items_answered.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed)),
        }
    }
}
