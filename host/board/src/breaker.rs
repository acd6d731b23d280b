//! Breakers: leave alone what fails, for longer each time.
//!
//! - What counts is a fault, not the jobs that it hit: those that had begun before the last failure that counted say
//!   nothing new.
//! - After some faults within a window it opens. After its time one job tries (it is half open); the others wait for
//!   how that one fares. One that began after the failure and is answered closes it.
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
    /// How long it stays open the first time; twice as long each further time, a minute at most.
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
