//! Which cases there is time for.
//!
//! The time that is left is shared evenly among the cases that are left; what a case does not need goes to those after
//! it. A case is left out before it begins where one job of it is expected to take so long that even the fewest samples
//! would take several shares. What is expected comes from smaller cases: work grows at most in proportion to rows,
//! dimensions and items, so the least of these bounds is used. The first of its kind is always tried.

use std::collections::HashMap;
use std::time::Duration;

use megaring_core::BackendKind;
use megaring_harness::record::{Residence, Sizes};

/// Shares that a case may take when it is slow.
const SHARES: u32 = 4;

/// What a time is known of: what is done, by whom, and where the corpus lies.
pub(super) type Kind = (&'static str, BackendKind, Residence);

/// See the module's text. Times are those since the run's start.
pub(super) struct Budget {
    limit: Duration,
    cases: usize,
    cases_left: usize,
    known: HashMap<Kind, Vec<(Sizes, f64)>>,
}

impl Budget {
    /// So much time for so many cases.
    pub(super) fn new(limit: Duration, cases: usize) -> Self {
        Self { limit, cases, cases_left: cases, known: HashMap::new() }
    }

    /// What each case that is left can have; none where the time is used up.
    pub(super) fn share(&self, now: Duration) -> Option<Duration> {
        let left = self.limit.checked_sub(now).filter(|left| !left.is_zero())?;
        Some(left / u32::try_from(self.cases_left.max(1)).unwrap_or(u32::MAX))
    }

    /// The time of all.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// A case was measured, or left out.
    pub(super) fn done(&mut self) {
        self.cases_left = self.cases_left.saturating_sub(1);
    }

    /// How much is done, when `share` of the present case is.
    pub(super) fn progress(&self, share: f64) -> f64 {
        (self.cases as f64 - self.cases_left as f64 + share) / self.cases.max(1) as f64
    }

    /// One job of these sizes took so long.
    pub(super) fn learn(&mut self, kind: Kind, sizes: Sizes, nanos: f64) {
        self.known.entry(kind).or_default().push((sizes, nanos));
    }

    /// How long one job takes at most, as far as is known.
    pub(super) fn expected(&self, kind: Kind, sizes: Sizes) -> Option<Duration> {
        let bounds = self.known.get(&kind)?.iter().filter_map(|(known, nanos)| Some(nanos * growth(known, &sizes)?));
        let least = bounds.fold(f64::INFINITY, f64::min);
        least.is_finite().then(|| Duration::from_secs_f64(least / 1e9))
    }

    /// How long it is expected to take, where that is too long for `calls` calls of it.
    pub(super) fn too_slow(&self, kind: Kind, sizes: Sizes, calls: u32, now: Duration) -> Option<Duration> {
        let allowed = self.share(now).unwrap_or_default().saturating_mul(SHARES) / calls.max(1);
        self.expected(kind, sizes).filter(|expected| *expected > allowed)
    }
}

/// By how much work grows from one size to another; none where one of the sizes shrinks.
fn growth(from: &Sizes, to: &Sizes) -> Option<f64> {
    let pairs = [(from.rows, to.rows), (from.dim, to.dim), (from.items, to.items)];
    let grows = from.k <= to.k && pairs.iter().all(|(from, to)| from <= to);
    grows.then(|| pairs.iter().map(|(from, to)| *to.max(&1) as f64 / *from.max(&1) as f64).product())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Kind = ("search", BackendKind::Cpu, Residence::Resident);
    const SECOND: Duration = Duration::from_secs(1);

    fn sizes(rows: u64, k: u64, items: u64) -> Sizes {
        Sizes { rows, dim: 384, k, items }
    }

    #[test]
    fn what_one_leaves_goes_to_the_others() {
        let mut budget = Budget::new(10 * SECOND, 10);
        assert_eq!(budget.share(Duration::ZERO), Some(SECOND));
        budget.done();
        assert_eq!(budget.share(SECOND), Some(SECOND));
        assert_eq!(budget.share(SECOND / 10), Some(Duration::from_millis(1_100)));
        assert_eq!((budget.share(10 * SECOND), budget.share(11 * SECOND)), (None, None));
        assert_eq!((budget.progress(0.0), budget.progress(0.5)), (0.1, 0.15));
        (0..20).for_each(|_| budget.done());
        assert_eq!(budget.share(Duration::ZERO), Some(10 * SECOND), "more than were counted");
    }

    #[test]
    fn a_time_is_expected_to_grow_with_the_work() {
        let mut budget = Budget::new(SECOND, 1);
        assert_eq!(budget.expected(CPU, sizes(1_000, 10, 1)), None);
        budget.learn(CPU, sizes(1_000, 10, 1), 1e6);
        budget.learn(CPU, sizes(1_000, 10, 8), 2e6);
        let expected = |sizes| budget.expected(CPU, sizes).map(|time| time.as_micros());
        assert_eq!(expected(sizes(1_000, 10, 1)), Some(1_000));
        assert_eq!(expected(sizes(1_000, 10, 4)), Some(4_000));
        assert_eq!(expected(sizes(1_000, 10, 16)), Some(4_000), "from the nearer one");
        assert_eq!(expected(sizes(3_000, 100, 16)), Some(12_000));
        assert_eq!(expected(sizes(500, 10, 16)), None, "fewer rows");
        assert_eq!(expected(sizes(1_000, 1, 16)), None, "fewer answers");
        for other in [("encode", CPU.1, CPU.2), (CPU.0, BackendKind::Wgpu, CPU.2), (CPU.0, CPU.1, Residence::Cold)] {
            assert_eq!(budget.expected(other, sizes(1_000, 10, 16)), None, "{other:?}");
        }
        let nothing = Sizes { rows: 0, dim: 0, k: 0, items: 2 };
        budget.learn(CPU, nothing, 1e6);
        assert_eq!(budget.expected(CPU, Sizes { items: 4, ..nothing }), Some(Duration::from_millis(2)));
    }

    #[test]
    fn what_would_take_several_shares_is_too_slow() {
        let mut budget = Budget::new(10 * SECOND, 10);
        budget.learn(CPU, sizes(1_000, 10, 1), 0.5e9);
        let slow = |items, now| budget.too_slow(CPU, sizes(1_000, 10, items), 8, now);
        // Four shares of a second for eight calls: 0.5 s each.
        assert_eq!((slow(1, Duration::ZERO), slow(2, Duration::ZERO)), (None, Some(SECOND)));
        assert_eq!(slow(1, 5 * SECOND), Some(SECOND / 2), "half the time is gone");
        assert_eq!(budget.too_slow(CPU, sizes(10, 10, 1), 8, Duration::ZERO), None, "nobody knows");
    }
}
