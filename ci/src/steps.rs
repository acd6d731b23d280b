//! Running named steps one after another: each is timed, and a failure does not stop the ones behind it.

use std::time::Instant;

use crate::Result;
use crate::report::{Outcome, Report, Row};

/// One step over a context `C`.
pub(crate) struct Step<C> {
    /// Shown in the table.
    pub(crate) name: &'static str,
    /// Whether it must be able to run on the project's own machines.
    pub(crate) required: bool,
    /// Whether it is left out where only a quick look is wanted.
    pub(crate) long: bool,
    /// An error is the step's failure.
    pub(crate) run: fn(&C) -> Result<Outcome>,
}

/// How much is asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rigour {
    /// Long steps are left out.
    Quick,
    /// Whatever can run here does.
    Usual,
    /// A required step that cannot run has failed.
    Strict,
}

/// Runs `steps` in order, with the rigour asked for.
pub(crate) fn run_all<'a, C: 'a>(steps: impl IntoIterator<Item = &'a Step<C>>, context: &C, rigour: Rigour) -> Report {
    let mut report = Report::default();
    for step in steps {
        let start = Instant::now();
        let outcome = if step.long && rigour == Rigour::Quick {
            Outcome::skipped("left out by --quick")
        } else {
            eprintln!("\n=== {}", step.name);
            (step.run)(context).unwrap_or_else(Outcome::failed)
        };
        let outcome = match outcome {
            Outcome::Skipped(reason) if step.required && rigour == Rigour::Strict => {
                Outcome::failed(format!("required here, but it cannot run: {reason}"))
            }
            outcome => outcome,
        };
        if let Outcome::Failed(_, reason) = &outcome {
            eprintln!("xtask: {} failed: {reason}", step.name);
        }
        report.push(Row { name: step.name, outcome, took: start.elapsed() });
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Counts;
    use std::cell::RefCell;

    type Log = RefCell<Vec<&'static str>>;

    const fn step(name: &'static str, required: bool, long: bool, run: fn(&Log) -> Result<Outcome>) -> Step<Log> {
        Step { name, required, long, run }
    }

    const STEPS: [Step<Log>; 4] = [
        step("breaks", true, true, |log| logged(log, "breaks", Err("it broke".into()))),
        step("holds", true, false, |log| logged(log, "holds", Ok(Outcome::Passed(Counts::PASSED)))),
        step("needed", true, false, |log| logged(log, "needed", Ok(Outcome::skipped("no tool")))),
        step("extra", false, false, |log| logged(log, "extra", Ok(Outcome::skipped("no tool")))),
    ];

    fn logged(log: &Log, name: &'static str, outcome: Result<Outcome>) -> Result<Outcome> {
        log.borrow_mut().push(name);
        outcome
    }

    #[test]
    fn a_failure_does_not_stop_the_rest() {
        let log = Log::default();
        let report = run_all(&STEPS, &log, Rigour::Usual);
        assert_eq!(log.into_inner(), ["breaks", "holds", "needed", "extra"]);
        assert!(!report.is_clean());
        assert!(report.to_string().ends_with("\n1 passed, 1 failed, 2 skipped"), "{report}");
    }

    #[test]
    fn where_strict_a_required_step_may_not_skip() {
        assert!(run_all(&STEPS[1..], &Log::default(), Rigour::Usual).is_clean());
        let report = run_all(&STEPS[1..], &Log::default(), Rigour::Strict);
        assert!(!report.is_clean());
        assert!(report.to_string().contains("required here, but it cannot run: no tool"), "{report}");
        assert!(report.to_string().ends_with("\n1 passed, 1 failed, 1 skipped"), "{report}");
        assert!(run_all(&STEPS[3..], &Log::default(), Rigour::Strict).is_clean());
    }

    #[test]
    fn a_quick_run_leaves_the_long_steps_out() {
        let log = Log::default();
        let report = run_all(&STEPS, &log, Rigour::Quick);
        assert_eq!(log.into_inner(), ["holds", "needed", "extra"]);
        assert!(report.is_clean());
        assert!(report.to_string().contains("left out by --quick"), "{report}");
    }
}
