//! A lane's book: what its backend's jobs are expected to take, which are under way, and how it has been doing.
//!
//! Times are nanoseconds since the router's start, so that a test can be the clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use megaring_core::BackendKind;
use megaring_core::job::Shape;

use super::corrections::{Cell, Corrections};
use crate::cost::{CostModel, Parts};

/// Corpora whose uploads are being saved up for, at most; beyond it, all begin anew.
const SAVERS: usize = 1024;
/// A backend that goes on failing is tried again after this at the latest.
const LONGEST_COOLING: Duration = Duration::from_secs(60);

/// Where a model's numbers are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Measured on this machine.
    Measured,
    /// Nothing was measured.
    Assumed,
}

/// What is believed of a backend.
pub(crate) struct Belief {
    pub(crate) basis: Basis,
    pub(crate) model: CostModel,
    pub(crate) corrections: Corrections,
}

impl Belief {
    pub(crate) fn assumed(kind: BackendKind) -> Self {
        Self { basis: Basis::Assumed, model: CostModel::assumed(kind), corrections: Corrections::seeded(&[]) }
    }
}

/// A job's time with a backend to itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quote {
    /// By the line alone.
    pub(crate) line_ns: f64,
    /// With what was learnt since.
    pub(crate) ns: f64,
}

/// A job that a lane was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) cell: Cell,
    pub(crate) expected_ns: u64,
    pub(crate) began_ns: u64,
    pub(crate) is_trial: bool,
}

/// One lane's book.
pub(crate) struct Book {
    belief: RwLock<Arc<Belief>>,
    /// The sum of what jobs under way are expected to take.
    backlog_ns: AtomicU64,
    /// When the lane was given its first job since it was idle, and when the last one left it.
    busy_since_ns: AtomicU64,
    departed_ns: AtomicU64,
    cooling: Cooling,
    /// For each corpus that is not on the device: what its uploads would have saved so far, in nanoseconds.
    savings: Mutex<HashMap<u32, f64>>,
    /// Whether outcomes are learnt from.
    adapts: bool,
}

/// Leaves a backend alone that fails, longer each time.
#[derive(Default)]
struct Cooling {
    first: Duration,
    /// Failures since the last success.
    failures: AtomicU32,
    until_ns: AtomicU64,
}

impl Book {
    pub(crate) fn new(kind: BackendKind, cooling: Duration, adapts: bool) -> Self {
        Self {
            belief: RwLock::new(Arc::new(Belief::assumed(kind))),
            backlog_ns: AtomicU64::new(0),
            busy_since_ns: AtomicU64::new(0),
            departed_ns: AtomicU64::new(0),
            cooling: Cooling { first: cooling, ..Cooling::default() },
            savings: Mutex::default(),
            adapts,
        }
    }

    /// Replaces what is believed, and forgets what was learnt.
    pub(crate) fn believe(&self, belief: Belief) {
        *self.belief.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(belief);
    }

    pub(crate) fn belief(&self) -> RwLockReadGuard<'_, Arc<Belief>> {
        self.belief.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn quote(&self, shape: &Shape, parts: &Parts, cell: Cell) -> Quote {
        let belief = self.belief();
        let line_ns = belief.model.of(shape.opcode).ns(parts);
        Quote { line_ns, ns: line_ns * belief.corrections.factor(cell) }
    }

    pub(crate) fn upload_ns(&self, bytes: u64) -> f64 {
        self.belief().model.upload.ns(bytes)
    }

    /// What jobs under way will still take, in nanoseconds.
    pub(crate) fn wait_ns(&self, now_ns: u64) -> f64 {
        let backlog = self.backlog_ns.load(Ordering::Relaxed);
        if backlog == 0 {
            return 0.0;
        }
        let since = self.busy_since_ns.load(Ordering::Relaxed).max(self.departed_ns.load(Ordering::Relaxed));
        backlog.saturating_sub(now_ns.saturating_sub(since)) as f64
    }

    /// A job is given to the lane.
    pub(crate) fn arrive(&self, job: &Entry) {
        if self.backlog_ns.fetch_add(job.expected_ns, Ordering::Relaxed) == 0 {
            self.busy_since_ns.store(job.began_ns, Ordering::Relaxed);
        }
    }

    /// It is gone, whichever way.
    pub(crate) fn leave(&self, job: &Entry) {
        self.backlog_ns.fetch_sub(job.expected_ns, Ordering::Relaxed);
    }

    /// A job is answered. What the backend took for it is the time since it began, or since the job before it left.
    pub(crate) fn answered(&self, job: &Entry, now_ns: u64) {
        let departed = self.departed_ns.fetch_max(now_ns, Ordering::Relaxed);
        if self.cooling.failures.load(Ordering::Relaxed) != 0 {
            self.cooling.failures.store(0, Ordering::Relaxed);
            self.cooling.until_ns.store(0, Ordering::Relaxed);
        }
        if self.adapts {
            let took = now_ns.saturating_sub(job.began_ns.max(departed));
            self.belief().corrections.learn(job.cell, took as f64 / job.expected_ns.max(1) as f64, job.is_trial);
        }
    }

    /// A job failed: the lane is left alone for a while.
    pub(crate) fn failed(&self, now_ns: u64) {
        let failures = self.cooling.failures.fetch_add(1, Ordering::Relaxed);
        self.cooling.until_ns.store(now_ns.saturating_add(self.cooling.span_ns(failures)), Ordering::Relaxed);
    }

    /// Whether it is left alone now.
    pub(crate) fn is_cooling(&self, now_ns: u64) -> bool {
        self.cooling.until_ns.load(Ordering::Relaxed) > now_ns
    }

    /// Whether a job may go there that has failed and was left alone for its time: one does, and the others wait for how it fares.
    pub(crate) fn may_try(&self, now_ns: u64) -> bool {
        let failures = self.cooling.failures.load(Ordering::Relaxed);
        if failures == 0 {
            return true;
        }
        let until = self.cooling.until_ns.load(Ordering::Relaxed);
        let next = now_ns.saturating_add(self.cooling.span_ns(failures - 1));
        until <= now_ns
            && self.cooling.until_ns.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether an upload of a corpus pays by now: this job would have been answered sooner by `saved_ns` with it, and earlier ones too. Like
    /// buying skis once the rent paid is their price: never more than twice what knowing the future would have cost.
    pub(crate) fn save_up(&self, corpus: u32, saved_ns: f64, upload_ns: f64) -> bool {
        let mut savings = self.savings.lock().unwrap_or_else(PoisonError::into_inner);
        if savings.len() >= SAVERS && !savings.contains_key(&corpus) {
            savings.clear();
        }
        let saved = savings.entry(corpus).or_default();
        *saved += saved_ns;
        let pays = *saved >= upload_ns;
        if pays {
            savings.remove(&corpus);
        }
        pays
    }
}

impl Cooling {
    fn span_ns(&self, failures: u32) -> u64 {
        let span = self.first.saturating_mul(1 << failures.min(20)).min(LONGEST_COOLING.max(self.first));
        u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use megaring_core::Opcode;

    const SECOND: u64 = 1_000_000_000;

    fn book() -> Book {
        Book::new(BackendKind::Cuda, Duration::from_secs(1), true)
    }

    fn cell() -> Cell {
        Cell::of(&Shape { opcode: Opcode::Search, items: 1, rows: 1, dim: 1, k: 1 })
    }

    fn entry(expected_ns: u64, began_ns: u64) -> Entry {
        Entry { cell: cell(), expected_ns, began_ns, is_trial: false }
    }

    #[test]
    fn what_is_under_way_has_to_be_waited_for() {
        let book = book();
        assert_eq!(book.wait_ns(5), 0.0);
        let (first, second) = (entry(100, 10), entry(50, 20));
        book.arrive(&first);
        book.arrive(&second);
        assert_eq!(book.wait_ns(20), 140.0, "the first has been at work since 10");
        assert_eq!(book.wait_ns(1_000), 0.0, "it should be over by now");
        book.answered(&first, 60);
        book.leave(&first);
        assert_eq!(book.wait_ns(70), 40.0, "the second has been at work since 60");
        book.leave(&second);
        assert_eq!(book.wait_ns(70), 0.0);
    }

    #[test]
    fn a_job_behind_another_is_judged_by_its_own_time() {
        let book = book();
        let factor = |book: &Book| book.belief().corrections.factor(cell());
        book.answered(&entry(100, 0), 100);
        book.answered(&entry(100, 0), 200);
        assert!((factor(&book) - 1.0).abs() < 1e-6, "each took what was expected");
        book.answered(&entry(100, 0), 500);
        assert!(factor(&book) > 1.05);
    }

    #[test]
    fn failures_cool_for_longer_each_time_and_one_job_tries() {
        let book = book();
        assert!(book.may_try(0) && book.may_try(0) && !book.is_cooling(0));
        book.failed(0);
        assert!(book.is_cooling(SECOND - 1) && !book.may_try(SECOND - 1));
        assert!(!book.is_cooling(SECOND) && book.may_try(SECOND), "one tries");
        assert!(book.is_cooling(SECOND + 1) && !book.may_try(SECOND + 1), "and no other");
        book.failed(SECOND);
        assert!(book.is_cooling(3 * SECOND - 1) && !book.is_cooling(3 * SECOND), "two seconds now");
        for _ in 0..40 {
            book.failed(0);
        }
        assert!(!book.is_cooling(60 * SECOND), "a minute at most");
        book.answered(&entry(1, 0), 1);
        assert!(!book.is_cooling(0) && book.may_try(0) && book.may_try(0));
    }

    #[test]
    fn an_upload_pays_once_enough_would_have_been_saved() {
        let book = book();
        assert!(!book.save_up(1, 40.0, 100.0) && !book.save_up(1, 40.0, 100.0));
        assert!(!book.save_up(2, 40.0, 100.0), "each corpus for itself");
        assert!(book.save_up(1, 40.0, 100.0));
        assert!(!book.save_up(1, 40.0, 100.0), "evicted since: it begins anew");
        (3..2 * SAVERS as u32).for_each(|corpus| assert!(!book.save_up(corpus, 0.0, 1.0)));
        assert!(book.savings.lock().is_ok_and(|savings| savings.len() <= SAVERS));
    }

    #[test]
    fn one_that_does_not_adapt_learns_nothing() {
        let book = Book::new(BackendKind::Cpu, Duration::ZERO, false);
        book.answered(&entry(1, 0), 1_000);
        assert_eq!(book.belief().corrections.factor(cell()), 1.0);
    }
}
