//! Breakers: leave alone what fails, for longer each time.
//!
//! - What counts is a fault, not the jobs that it hit: those that had begun before the last failure that counted say
//!   nothing new.
//! - After some faults within a window it opens. After its time one job tries (it is half open); the others wait for how
//!   that one fares. One that began after the failure and is answered closes it.
//!
//! Any number of threads may report at once. Two that do at the very same moment may count as one; nothing rests on it.

use std::time::Duration;

use megaring_ring::sync::{AtomicU64, Ordering};

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRule {
    /// Faults that open it, at least 1.
    pub failures: u64,
    /// Faults that are further apart do not add up.
    pub window: Duration,
    /// How long it stays open the first time; twice as long each further time, [`LONGEST`] at most.
    pub first: Duration,
}

/// What goes on failing is tried again after this at the latest.
const LONGEST: Duration = Duration::from_secs(60);

impl Default for BreakerRule {
    /// Three faults, of which none is more than ten seconds after the one before; a second.
    fn default() -> Self {
        Self { failures: 3, window: Duration::from_secs(10), first: Duration::from_secs(1) }
    }
}

/// What a breaker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// There is nothing that it stands for.
    Absent,
    /// All is well.
    Closed,
    /// Nothing passes.
    Open,
    /// One job tries, or may.
    HalfOpen,
}

impl BreakerState {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half open",
        }
    }
}

/// What the word of the state holds. `gate.zig` asks for [`ABSENT`].
const ABSENT: u64 = 0;
const CLOSED: u64 = 1;
const OPEN: u64 = 2;
const TRIAL: u64 = 3;

/// One breaker of a board. Times are nanoseconds on the writer's clock.
#[derive(Debug, Clone, Copy)]
pub struct Breaker<'a> {
    pub(crate) state: &'a AtomicU64,
    /// Faults since the last success.
    pub(crate) failures: &'a AtomicU64,
    /// When the last one showed.
    pub(crate) opened_ns: &'a AtomicU64,
    /// From when on it may be tried; 0 while it is closed.
    pub(crate) retry_ns: &'a AtomicU64,
}

impl Breaker<'_> {
    /// There is something that it stands for.
    pub fn install(&self) {
        // Another that stands for the same may have begun to fail.
        let _ = self.state.compare_exchange(ABSENT, CLOSED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A job that began then has failed now.
    pub fn failed(&self, rule: &BreakerRule, began_ns: u64, now_ns: u64) {
        let (mut faults, showed_ns) = (self.failures(), self.opened_ns.load(Ordering::Relaxed));
        if faults > 0 && began_ns < showed_ns {
            return;
        }
        let is_closed = self.retry_ns.load(Ordering::Relaxed) == 0;
        if is_closed && now_ns.saturating_sub(showed_ns) > nanos(rule.window) {
            faults = 0;
        }
        faults += 1;
        self.opened_ns.store(now_ns, Ordering::Relaxed);
        self.failures.store(faults, Ordering::Relaxed);
        if let Some(times) = faults.checked_sub(rule.failures.max(1)) {
            self.retry_ns.store(now_ns.saturating_add(span_ns(rule, times)).max(1), Ordering::Relaxed);
            self.state.store(OPEN, Ordering::Relaxed);
        }
    }

    /// A job that began then is answered.
    pub fn answered(&self, began_ns: u64) {
        if self.failures() > 0 && began_ns >= self.opened_ns.load(Ordering::Relaxed) {
            self.failures.store(0, Ordering::Relaxed);
            self.retry_ns.store(0, Ordering::Relaxed);
            self.state.store(CLOSED, Ordering::Relaxed);
        }
    }

    /// Whether what it stands for is left alone now.
    #[must_use]
    pub fn is_open(&self, now_ns: u64) -> bool {
        self.retry_ns.load(Ordering::Relaxed) > now_ns
    }

    /// Whether a job may go there: always while it is closed, and one alone that tries after its time. Should that one
    /// never tell how it fared, the next may try after as long again.
    #[must_use]
    pub fn may_try(&self, rule: &BreakerRule, now_ns: u64) -> bool {
        let retry_ns = self.retry_ns.load(Ordering::Relaxed);
        if retry_ns == 0 {
            return true;
        }
        let times = self.failures().saturating_sub(rule.failures.max(1));
        let next = now_ns.saturating_add(span_ns(rule, times)).max(1);
        let tries = retry_ns <= now_ns
            && self.retry_ns.compare_exchange(retry_ns, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if tries {
            self.state.store(TRIAL, Ordering::Relaxed);
        }
        tries
    }

    /// What it is doing, at that time.
    #[must_use]
    pub fn state(&self, now_ns: u64) -> BreakerState {
        match self.state.load(Ordering::Relaxed) {
            ABSENT => BreakerState::Absent,
            TRIAL => BreakerState::HalfOpen,
            OPEN if self.is_open(now_ns) => BreakerState::Open,
            OPEN => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// Faults since the last success.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How long it stays open.
    #[must_use]
    pub fn opens_for(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.retry_ns.load(Ordering::Relaxed).saturating_sub(now_ns))
    }
}

/// How long it stays open after it opened this often before.
fn span_ns(rule: &BreakerRule, times: u64) -> u64 {
    let doubled = rule.first.saturating_mul(1 << times.min(20));
    nanos(doubled.min(LONGEST.max(rule.first)))
}

fn nanos(duration: Duration) -> u64 {
    crate::page::nanos(duration)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::{BreakerRule, BreakerState};
    use crate::Board;

    const SECOND: u64 = 1_000_000_000;

    fn after(failures: u64) -> BreakerRule {
        BreakerRule { failures, window: Duration::from_secs(10), first: Duration::from_secs(1) }
    }

    #[test]
    fn faults_open_it_for_longer_each_time_and_one_job_tries() {
        let (board, rule) = (Board::in_memory().unwrap(), after(1));
        let breaker = board.breaker(5);
        assert_eq!(breaker.state(0), BreakerState::Absent);
        breaker.install();
        assert_eq!(breaker.state(0), BreakerState::Closed);
        assert!(breaker.may_try(&rule, 0) && breaker.may_try(&rule, 0) && !breaker.is_open(0));
        breaker.failed(&rule, 0, 0);
        assert_eq!(breaker.state(SECOND - 1), BreakerState::Open);
        assert!(breaker.is_open(SECOND - 1) && !breaker.may_try(&rule, SECOND - 1));
        assert_eq!(
            (breaker.state(SECOND), breaker.opens_for(SECOND / 4)),
            (BreakerState::HalfOpen, Duration::from_millis(750))
        );
        assert!(!breaker.is_open(SECOND) && breaker.may_try(&rule, SECOND), "one tries");
        assert_eq!(breaker.state(SECOND + 1), BreakerState::HalfOpen);
        assert!(breaker.is_open(SECOND + 1) && !breaker.may_try(&rule, SECOND + 1), "and no other");
        breaker.failed(&rule, SECOND, SECOND);
        assert!(breaker.is_open(3 * SECOND - 1) && !breaker.is_open(3 * SECOND), "two seconds now");
        for time in 2..40 {
            breaker.failed(&rule, time * SECOND, time * SECOND);
        }
        assert!(breaker.is_open(98 * SECOND) && !breaker.is_open(99 * SECOND), "a minute at most");
        breaker.answered(40 * SECOND);
        assert!(!breaker.is_open(0) && breaker.may_try(&rule, 0) && breaker.may_try(&rule, 0));
        assert_eq!(breaker.state(0), BreakerState::Closed);
    }

    #[test]
    fn it_takes_as_many_faults_as_the_rule_says_and_none_too_far_apart() {
        let (board, rule) = (Board::in_memory().unwrap(), after(3));
        let breaker = board.breaker(0);
        breaker.install();
        for time in [1, 2, 13, 14] {
            breaker.failed(&rule, time * SECOND, time * SECOND);
            assert!(!breaker.is_open(time * SECOND), "{time}");
        }
        breaker.failed(&rule, 24 * SECOND, 24 * SECOND);
        assert!(breaker.is_open(25 * SECOND - 1) && !breaker.is_open(25 * SECOND));
        breaker.failed(&rule, 60 * SECOND, 60 * SECOND);
        assert!(breaker.is_open(62 * SECOND - 1), "while it is open, nothing is too far apart");
        breaker.answered(60 * SECOND);
        breaker.failed(&rule, 61 * SECOND, 61 * SECOND);
        assert!(!breaker.is_open(61 * SECOND), "a success forgets the faults before it");
    }

    #[test]
    fn one_fault_counts_once_whatever_it_hit() {
        let (board, rule) = (Board::in_memory().unwrap(), after(2));
        let breaker = board.breaker(63);
        for began in 0..8 {
            breaker.failed(&rule, began, 100 + began);
        }
        assert_eq!((breaker.failures(), breaker.is_open(100)), (1, false));
    }

    #[test]
    fn an_answer_from_before_the_fault_does_not_end_it() {
        let (board, rule) = (Board::in_memory().unwrap(), after(1));
        let breaker = board.breaker(1);
        breaker.failed(&rule, 0, 100);
        breaker.answered(99);
        assert!(breaker.is_open(200));
        breaker.answered(100);
        assert!(!breaker.is_open(200));
    }
}
