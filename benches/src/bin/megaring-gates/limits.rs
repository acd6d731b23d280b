//! What an operation may take: its budget, which a change should keep, and its gate, beyond which something is broken.

use std::process::ExitCode;

use serde::Serialize;

/// Nanoseconds that an operation may take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Limit {
    /// A median that is not below this is remarked upon.
    pub(crate) budget_ns: f64,
    /// A median above this fails the run.
    pub(crate) gate_ns: f64,
}

/// From Rust to Zig and back, with nothing to do there.
pub(crate) const CALL: Limit = Limit { budget_ns: 300.0, gate_ns: 500.0 };
/// A search over 100 vectors of 384 dimensions, in process, through the ring.
pub(crate) const SEARCH: Limit = Limit { budget_ns: 10_000.0, gate_ns: 1_000_000.0 };
/// Publishing one event.
pub(crate) const PUBLISH: Limit = Limit { budget_ns: 500.0, gate_ns: 1_000.0 };
/// From the submission of an empty job to its answer, on the CPU backend.
pub(crate) const EMPTY_JOB: Limit = Limit { budget_ns: 2_000.0, gate_ns: 20_000.0 };
/// Deciding which backend does a job.
pub(crate) const ROUTE: Limit = Limit { budget_ns: 200.0, gate_ns: 2_000.0 };
/// Whether a call may enter, all six questions asked.
pub(crate) const GATE: Limit = Limit { budget_ns: 60.0, gate_ns: 1_000.0 };
/// The same, refused by an early one.
pub(crate) const DENIAL: Limit = Limit { budget_ns: 40.0, gate_ns: 1_000.0 };
/// The health of the board, whole.
pub(crate) const HEALTH: Limit = Limit { budget_ns: 30.0, gate_ns: 100.0 };
/// The same by who maps the board's file.
pub(crate) const VIEW: Limit = Limit { budget_ns: 30.0, gate_ns: 500.0 };
/// Setting an amount aside and charging it.
pub(crate) const BUDGET: Limit = Limit { budget_ns: 200.0, gate_ns: 5_000.0 };

/// How a median stands to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Nobody limits it: it is shown beside another one.
    Unlimited,
    /// Below the budget.
    WithinBudget,
    /// Not below the budget, but not above the gate.
    OverBudget,
    /// Above the gate, or not a time at all.
    OverGate,
}

impl Verdict {
    /// For the table.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Unlimited => "",
            Self::WithinBudget => "within budget",
            Self::OverBudget => "over budget",
            Self::OverGate => "OVER THE GATE",
        }
    }
}

/// Judges a median; one that could not be measured is over the gate.
pub(crate) fn judge(limit: Option<Limit>, median_ns: Option<f64>) -> Verdict {
    match (limit, median_ns) {
        (None, _) => Verdict::Unlimited,
        (Some(limit), Some(median)) if median < limit.budget_ns => Verdict::WithinBudget,
        (Some(limit), Some(median)) if median <= limit.gate_ns => Verdict::OverBudget,
        (Some(_), _) => Verdict::OverGate,
    }
}

/// Fails where anything is over its gate; to be over a budget is no failure.
pub(crate) fn exit(verdicts: impl IntoIterator<Item = Verdict>) -> ExitCode {
    let broken = verdicts.into_iter().any(|verdict| verdict == Verdict::OverGate);
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{OverBudget, OverGate, Unlimited, WithinBudget};

    #[test]
    fn a_median_is_judged_by_budget_and_gate() {
        for (limit, median, expected) in [
            (CALL, 1.5, WithinBudget),
            (CALL, 299.9, WithinBudget),
            (CALL, 300.0, OverBudget),
            (CALL, 500.0, OverBudget),
            (CALL, 500.1, OverGate),
            (SEARCH, 9_999.0, WithinBudget),
            (SEARCH, 10_001.0, OverBudget),
            (SEARCH, 1_000_001.0, OverGate),
            (PUBLISH, 501.0, OverBudget),
            (PUBLISH, 1_001.0, OverGate),
            (EMPTY_JOB, 3_400.0, OverBudget),
            (EMPTY_JOB, 20_001.0, OverGate),
            (ROUTE, 199.0, WithinBudget),
            (ROUTE, 2_001.0, OverGate),
            (ROUTE, f64::NAN, OverGate),
            (ROUTE, f64::INFINITY, OverGate),
        ] {
            assert_eq!(judge(Some(limit), Some(median)), expected, "{median} ns of {limit:?}");
        }
        assert_eq!(judge(Some(CALL), None), OverGate);
        assert_eq!(judge(None, Some(1e9)), Unlimited);
        assert_eq!(judge(None, None), Unlimited);
    }

    #[test]
    fn every_gate_is_beyond_its_budget() {
        for limit in [CALL, SEARCH, PUBLISH, EMPTY_JOB, ROUTE] {
            assert!(0.0 < limit.budget_ns && limit.budget_ns < limit.gate_ns, "{limit:?}");
        }
    }

    #[test]
    fn one_row_over_its_gate_fails_the_run_and_remarks_do_not() {
        assert_eq!(exit([WithinBudget, OverBudget, Unlimited, OverBudget]), ExitCode::SUCCESS);
        assert_eq!(exit([]), ExitCode::SUCCESS);
        for place in 0..3 {
            let mut verdicts = [WithinBudget, OverBudget, Unlimited];
            verdicts[place] = OverGate;
            assert_eq!(exit(verdicts), ExitCode::FAILURE, "{verdicts:?}");
        }
    }
}
