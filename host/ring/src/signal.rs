//! Waiting for news: how long to spin before giving up the processor, and an event count to park on.
//!
//! Promises: a notification costs no system call while nobody is parked (one fence and one load); no wake-up is lost,
//! whatever the order in which the condition becomes true, the notifier looks and the waiter parks. Limits: the
//! condition must be made true *before* the notification, and a notification without a change of the condition may wake
//! waiters for nothing; they check and park again.

use std::{
    fmt,
    marker::PhantomData,
    str::FromStr,
    time::{Duration, Instant},
};

use crate::{
    protocol::{Protocol, Sound},
    sync::{AtomicU32, Condvar, Mutex, Ordering, fence, lock, spin_loop, yield_now},
};

/// How a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStrategy {
    /// Spins without end: lowest latency, one processor spent.
    BusySpin,
    /// Checks, and yields the processor between checks.
    Yield,
    /// Spins for a moment, then yields until the duration is over, then parks.
    HybridSpin(Duration),
    /// Parks at once.
    Park,
}

/// An event count.
#[derive(Debug)]
pub struct Signal<P: Protocol = Sound> {
    /// Waiters that are parked or about to be.
    parked: AtomicU32,
    /// Notifications that found someone parked.
    epoch: Mutex<u64>,
    news: Condvar,
    marker: PhantomData<P>,
}

/// A wait strategy that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a wait strategy: use busy-spin, yield, hybrid-spin:50us (or ns, ms, s), or park")]
pub struct ParseWaitStrategyError {
    given: String,
}

/// How long `HybridSpin` keeps the processor to itself. About the time from a worker's last store to its visibility
/// elsewhere plus a small job; past that, on a machine with few cores, the spinner may be sitting on the core that the
/// worker needs.
const SPIN_FIRST: Duration = Duration::from_micros(2);

/// Pause instructions between two checks while spinning.
const PAUSES: u32 = 8;

impl<P: Protocol> Signal<P> {
    /// A signal with nobody waiting.
    pub fn new() -> Self {
        Self { parked: AtomicU32::new(0), epoch: Mutex::new(0), news: Condvar::new(), marker: PhantomData }
    }

    /// Wakes every waiter, so that it checks its condition.
    pub fn notify_all(&self) {
        Self::order();
        self.wake_all();
    }

    /// Wakes one waiter at least, if there is any: enough where any waiter can deal with the news.
    pub fn notify_one(&self) {
        Self::order();
        self.wake_one();
    }

    /// Waiters that are parked or about to be. One that is not counted sees what was published before the call when it
    /// checks its condition a last time.
    pub fn parked(&self) -> usize {
        Self::order();
        self.parked.load(Ordering::Relaxed) as usize
    }

    /// Waits until `ready` says so (true) or the deadline has passed (false, after a last look). `ready` is called
    /// without any lock held, and may notify this very signal.
    pub fn wait_until(
        &self,
        strategy: WaitStrategy,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) -> bool {
        if ready() {
            return true;
        }
        match self.spin(strategy, deadline, &mut ready) {
            Some(seen) => seen,
            None => self.park(deadline, &mut ready),
        }
    }

    /// The fence that [`Signal::wake_all`] and [`Signal::wake_one`] need between the publication and their look.
    pub(crate) fn order() {
        if P::NOTIFY_FENCE {
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn wake_all(&self) {
        if self.bump() {
            self.news.notify_all();
        }
    }

    pub(crate) fn wake_one(&self) {
        if self.bump() {
            self.news.notify_one();
        }
    }

    /// Whether there is anyone to wake. The new epoch reaches also the waiter that has looked but not yet gone to
    /// sleep.
    fn bump(&self) -> bool {
        if self.parked.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut epoch = lock(&self.epoch);
        *epoch = epoch.wrapping_add(1);
        true
    }

    /// `None` when it is time to park. Under loom the two hybrid strategies park at once: the model has no clock.
    fn spin(&self, strategy: WaitStrategy, deadline: Option<Instant>, ready: &mut dyn FnMut() -> bool) -> Option<bool> {
        let limit = match strategy {
            WaitStrategy::Park => return None,
            WaitStrategy::HybridSpin(_) if cfg!(loom) => return None,
            WaitStrategy::HybridSpin(limit) => Some(limit),
            WaitStrategy::BusySpin | WaitStrategy::Yield => None,
        };
        let begin = Instant::now();
        let mut spent = Duration::ZERO;
        loop {
            if cfg!(loom) || strategy == WaitStrategy::Yield || (limit.is_some() && spent >= SPIN_FIRST) {
                yield_now();
            } else {
                (0..PAUSES).for_each(|_| spin_loop());
            }
            if ready() {
                return Some(true);
            }
            if limit.is_some() || deadline.is_some() {
                let now = Instant::now();
                spent = now - begin;
                if deadline.is_some_and(|deadline| now >= deadline) {
                    return Some(ready());
                }
                if limit.is_some_and(|limit| spent >= limit) {
                    return None;
                }
            }
        }
    }

    fn park(&self, deadline: Option<Instant>, ready: &mut dyn FnMut() -> bool) -> bool {
        loop {
            let before = *lock(&self.epoch);
            let early = !P::ANNOUNCE_BEFORE_CHECK && ready();
            self.parked.fetch_add(1, Ordering::Relaxed);
            // Pairs with the notifier's fence: either it sees that we are parked, or the check below sees what it
            // published.
            fence(Ordering::SeqCst);
            let seen = early || (P::ANNOUNCE_BEFORE_CHECK && ready());
            let in_time = seen || self.sleep(before, deadline);
            self.parked.fetch_sub(1, Ordering::Relaxed);
            if seen {
                return true;
            }
            if !in_time {
                return ready();
            }
        }
    }

    /// Sleeps until the epoch is another one than `before`; false if the deadline came first.
    fn sleep(&self, before: u64, deadline: Option<Instant>) -> bool {
        let mut epoch = lock(&self.epoch);
        while *epoch == before {
            let Some(deadline) = deadline else {
                epoch = self.news.wait(epoch).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            epoch = self.news.wait_timeout(epoch, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

impl<P: Protocol> Default for Signal<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for WaitStrategy {
    fn default() -> Self {
        Self::HybridSpin(Duration::from_micros(50))
    }
}

impl fmt::Display for WaitStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BusySpin => f.write_str("busy-spin"),
            Self::Yield => f.write_str("yield"),
            Self::Park => f.write_str("park"),
            Self::HybridSpin(limit) => {
                let nanos = limit.as_nanos();
                match nanos {
                    _ if nanos.is_multiple_of(1_000_000_000) => write!(f, "hybrid-spin:{}s", limit.as_secs()),
                    _ if nanos.is_multiple_of(1_000_000) => write!(f, "hybrid-spin:{}ms", limit.as_millis()),
                    _ if nanos.is_multiple_of(1_000) => write!(f, "hybrid-spin:{}us", limit.as_micros()),
                    _ => write!(f, "hybrid-spin:{nanos}ns"),
                }
            }
        }
    }
}

impl FromStr for WaitStrategy {
    type Err = ParseWaitStrategyError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given {
            "busy-spin" => Ok(Self::BusySpin),
            "yield" => Ok(Self::Yield),
            "park" => Ok(Self::Park),
            "hybrid-spin" => Ok(Self::default()),
            _ => given
                .strip_prefix("hybrid-spin:")
                .and_then(parse_duration)
                .map(Self::HybridSpin)
                .ok_or_else(|| ParseWaitStrategyError { given: given.to_owned() }),
        }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let nanos_each: u64 = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    Some(Duration::from_nanos(number.parse::<u64>().ok()?.checked_mul(nanos_each)?))
}
