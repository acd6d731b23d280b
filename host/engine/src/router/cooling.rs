//! Leaves a backend alone that fails, longer each time.
//!
//! - What counts is a fault, not the jobs that it hit: those that had begun before the last failure that counted say
//!   nothing new.
//! - After the time, one job tries; the others wait for how it fares. One that began after the failure and is answered
//!   ends it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A backend that goes on failing is tried again after this at the latest.
const LONGEST: Duration = Duration::from_secs(60);

/// See the module's text. Times are nanoseconds since the router's start.
#[derive(Default)]
pub(crate) struct Cooling {
    first: Duration,
    /// Faults since the last success.
    faults: AtomicU32,
    /// When the last one showed.
    showed_ns: AtomicU64,
    until_ns: AtomicU64,
}

impl Cooling {
    /// One that begins with `first`.
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, ..Self::default() }
    }

    /// A job that began then has failed now.
    pub(crate) fn failed(&self, began_ns: u64, now_ns: u64) {
        if self.faults.load(Ordering::Relaxed) > 0 && began_ns < self.showed_ns.load(Ordering::Relaxed) {
            return;
        }
        self.showed_ns.store(now_ns, Ordering::Relaxed);
        let faults = self.faults.fetch_add(1, Ordering::Relaxed);
        self.until_ns.store(now_ns.saturating_add(self.span_ns(faults)), Ordering::Relaxed);
    }

    /// A job that began then is answered.
    pub(crate) fn answered(&self, began_ns: u64) {
        if self.faults.load(Ordering::Relaxed) > 0 && began_ns >= self.showed_ns.load(Ordering::Relaxed) {
            self.faults.store(0, Ordering::Relaxed);
            self.until_ns.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it is left alone now.
    pub(crate) fn is_on(&self, now_ns: u64) -> bool {
        self.until_ns.load(Ordering::Relaxed) > now_ns
    }

    /// Whether a job may go there: after a fault and its time, one may.
    pub(crate) fn may_try(&self, now_ns: u64) -> bool {
        let faults = self.faults.load(Ordering::Relaxed);
        if faults == 0 {
            return true;
        }
        let until = self.until_ns.load(Ordering::Relaxed);
        let next = now_ns.saturating_add(self.span_ns(faults - 1));
        until <= now_ns && self.until_ns.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn span_ns(&self, faults: u32) -> u64 {
        let span = self.first.saturating_mul(1 << faults.min(20)).min(LONGEST.max(self.first));
        u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn faults_cool_for_longer_each_time_and_one_job_tries() {
        let cooling = Cooling::new(Duration::from_secs(1));
        assert!(cooling.may_try(0) && cooling.may_try(0) && !cooling.is_on(0));
        cooling.failed(0, 0);
        assert!(cooling.is_on(SECOND - 1) && !cooling.may_try(SECOND - 1));
        assert!(!cooling.is_on(SECOND) && cooling.may_try(SECOND), "one tries");
        assert!(cooling.is_on(SECOND + 1) && !cooling.may_try(SECOND + 1), "and no other");
        cooling.failed(SECOND, SECOND);
        assert!(cooling.is_on(3 * SECOND - 1) && !cooling.is_on(3 * SECOND), "two seconds now");
        for time in 2..40 {
            cooling.failed(time * SECOND, time * SECOND);
        }
        assert!(cooling.is_on(98 * SECOND) && !cooling.is_on(99 * SECOND), "a minute at most");
        cooling.answered(40 * SECOND);
        assert!(!cooling.is_on(0) && cooling.may_try(0) && cooling.may_try(0));
    }

    #[test]
    fn one_fault_counts_once_whatever_it_hit() {
        let cooling = Cooling::new(Duration::from_secs(1));
        for began in 0..8 {
            cooling.failed(began, 100 + began);
        }
        assert!(cooling.is_on(SECOND) && !cooling.is_on(SECOND + 100), "a second, not a minute");
    }

    #[test]
    fn an_answer_from_before_the_fault_does_not_end_it() {
        let cooling = Cooling::new(Duration::from_secs(1));
        cooling.failed(0, 100);
        cooling.answered(99);
        assert!(cooling.is_on(200));
        cooling.answered(100);
        assert!(!cooling.is_on(200));
    }
}
