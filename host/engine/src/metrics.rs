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
    jobs_failed: AtomicU64,
    items_answered: AtomicU64,
    busy_ns: AtomicU64,
    durations: Durations,
}

/// A moment's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Jobs answered.
    pub jobs_answered: u64,
    /// Jobs that got no permit.
    pub jobs_refused: u64,
    /// Jobs that were let in and not answered, by no fault of their callers.
    pub jobs_failed: u64,
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
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(took_ns, Ordering::Relaxed);
        self.durations.add(took_ns);
    }

    pub(crate) fn failed(&self) {
        self.jobs_failed.fetch_add(1, Ordering::Relaxed);
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

    /// How long jobs took.
    pub(crate) fn durations(&self) -> Counts {
        Counts(self.durations.0.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }

    /// Reads all counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            jobs_answered: self.jobs_answered.load(Ordering::Relaxed),
            jobs_refused: self.jobs_refused.load(Ordering::Relaxed),
            jobs_failed: self.jobs_failed.load(Ordering::Relaxed),
            jobs_batched: self.jobs_batched.load(Ordering::Relaxed),
            failovers: self.failovers.load(Ordering::Relaxed),
            items_answered: self.items_answered.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed)),
        }
    }
}

/// Numbers of a bucket that its first bits decide: four buckets for each power of two.
const SPLIT: u32 = 2;
const BUCKETS: usize = 64 << SPLIT;

/// How many jobs took how long, in buckets of which each ends a quarter of a power of two above the last.
#[derive(Debug)]
struct Durations([AtomicU64; BUCKETS]);

impl Default for Durations {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Durations {
    fn add(&self, ns: u64) {
        self.0[bucket(ns)].fetch_add(1, Ordering::Relaxed);
    }
}

/// A moment's numbers of jobs by how long they took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts(Box<[u64]>);

impl Counts {
    /// What the given share of those since `before` took at most, to a quarter of it; `None` where there were none.
    pub(crate) fn quantile_since(&self, before: &Self, share: f64) -> Option<Duration> {
        let since: Vec<u64> = self.0.iter().zip(&before.0).map(|(now, then)| now.saturating_sub(*then)).collect();
        let all: u64 = since.iter().sum();
        let rank = (all as f64 * share).ceil().max(1.0) as u64;
        let mut reached = 0;
        let found = since.iter().position(|count| {
            reached += count;
            reached >= rank
        })?;
        Some(Duration::from_nanos(end(found)))
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(1 << SPLIT);
    let power = ns.ilog2();
    ((power << SPLIT) as u64 + (ns >> (power - SPLIT)) - (1 << SPLIT)) as usize
}

/// The largest number of a bucket.
fn end(bucket: usize) -> u64 {
    let (power, part) = (bucket as u32 >> SPLIT, (bucket & ((1 << SPLIT) - 1)) as u64);
    if power < SPLIT {
        return 1 << SPLIT;
    }
    let unit = 1_u64 << (power - SPLIT);
    (1_u64 << power) - 1 + unit * (part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_a_quarter_above_its_beginning_at_most() {
        for ns in (0..63).flat_map(|power| [1_u64 << power, (1 << power) + (1 << power) / 3, (2 << power) - 1]) {
            let end = end(bucket(ns));
            assert!(end >= ns && end as f64 <= ns.max(4) as f64 * 1.25, "{ns} {end}");
        }
        assert!(bucket(u64::MAX) < BUCKETS && end(bucket(u64::MAX)) == u64::MAX);
    }

    #[test]
    fn a_quantile_is_of_what_came_since() {
        let metrics = Metrics::default();
        (0..1000).for_each(|_| metrics.answered(1, Duration::from_secs(5)));
        let before = metrics.durations();
        assert_eq!(metrics.durations().quantile_since(&before, 0.99), None);
        (0..99).for_each(|_| metrics.answered(1, Duration::from_micros(100)));
        metrics.answered(1, Duration::from_secs(1));
        let quantile = |share| metrics.durations().quantile_since(&before, share).unwrap_or_default().as_secs_f64();
        assert!((100e-6..=125e-6).contains(&quantile(0.99)), "{}", quantile(0.99));
        assert!((1.0..=1.25).contains(&quantile(1.0)), "{}", quantile(1.0));
    }
}
