//! What a run of steps says at its end: a table, and the closing line that tools and people look for.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::counts::Counts;

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything in it held. The counts are those of its tests, or [`Counts::PASSED`] for a step that is one check.
    Passed(Counts),
    /// Something did not hold, and why: a line for the table, and further ones for below it.
    Failed(Counts, String),
    /// It could not run here, and why.
    Skipped(String),
}

impl Outcome {
    /// A failed check that is no test runner's.
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(Counts::FAILED, reason.into())
    }

    /// A check that cannot run here.
    pub(crate) fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped(reason.into())
    }

    /// Tests that ran to the end: passed where `success`, which is the runner's exit status, says so. A runner that
    /// ran nothing has proven nothing, and one that failed without a failing test (it did not compile) counts as one.
    pub(crate) fn of_tests(success: bool, counts: Counts, ending: &str) -> Self {
        match (success, counts) {
            (true, counts) if counts.any_ran() => Self::Passed(counts),
            (true, counts) => Self::Failed(counts + Counts::FAILED, "no test ran".into()),
            (false, counts) if counts.failed > 0 => Self::Failed(counts, format!("{} tests failed", counts.failed)),
            (false, counts) => Self::Failed(counts + Counts::FAILED, ending.into()),
        }
    }

    /// Several runs as one: failed, with the first reason, where one failed. Nothing where there were none.
    pub(crate) fn together(outcomes: Vec<Self>) -> Option<Self> {
        let counts = outcomes.iter().map(Self::counts).sum();
        let none_ran = outcomes.iter().all(|outcome| matches!(outcome, Self::Skipped(_)));
        let first = |wanted: fn(&Self) -> bool| outcomes.iter().find(|outcome| wanted(outcome)).cloned();
        match first(|outcome| matches!(outcome, Self::Failed(..))) {
            Some(Self::Failed(_, reason)) => Some(Self::Failed(counts, reason)),
            _ if none_ran => first(|_| true),
            _ => Some(Self::Passed(counts)),
        }
    }

    fn counts(&self) -> Counts {
        match self {
            Self::Passed(counts) | Self::Failed(counts, _) => *counts,
            Self::Skipped(_) => Counts::SKIPPED,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "passed",
            Self::Failed(..) => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }

    fn note(&self) -> String {
        match self {
            Self::Passed(counts) if *counts == Counts::PASSED => String::new(),
            Self::Passed(Counts { passed, skipped: 0, .. }) => format!("{passed} tests"),
            Self::Passed(Counts { passed, skipped, .. }) => format!("{passed} tests, {skipped} skipped"),
            Self::Failed(_, reason) | Self::Skipped(reason) => reason.lines().next().unwrap_or_default().to_owned(),
        }
    }
}

/// One finished step.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The step's name.
    pub(crate) name: &'static str,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// How long it took.
    pub(crate) took: Duration,
}

/// All finished steps, in the order they ran. Displayed as a table, then the details of what failed, then what tests
/// that could not run lack, if that is known, and, alone on its line, `N passed, N failed, N skipped`. So whoever sees
/// no more than the end of a long output sees what failed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    missing: Option<String>,
}

impl Report {
    /// Adds a finished step.
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Tests that found out, in steps that ran, that they cannot run here.
    pub(crate) fn tests_skipped(&self) -> u64 {
        let ran = self.rows.iter().map(|row| &row.outcome).filter(|outcome| !matches!(outcome, Outcome::Skipped(_)));
        ran.map(|outcome| outcome.counts().skipped).sum()
    }

    /// Says in a sentence what would let more tests run.
    pub(crate) fn tell_missing(&mut self, sentence: String) {
        self.missing = Some(sentence);
    }

    /// Whether no step failed.
    pub(crate) fn is_clean(&self) -> bool {
        !self.rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(..)))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("step".len());
        writeln!(f, "{:width$}  result   seconds  note", "step")?;
        for Row { name, outcome, took } in &self.rows {
            let line = format!("{name:width$}  {:7}  {:>7.1}  {}", outcome.word(), took.as_secs_f64(), outcome.note());
            writeln!(f, "{}", line.trim_end())?;
        }
        for Row { name, outcome, .. } in &self.rows {
            if let Outcome::Failed(_, reason) = outcome
                && let Some((_, details)) = reason.split_once('\n')
            {
                writeln!(f, "\n{name}:\n{}", details.trim_end())?;
            }
        }
        if let Some(sentence) = &self.missing {
            write!(f, "\n{sentence}")?;
        }
        let Counts { passed, failed, skipped } = self.rows.iter().map(|row| row.outcome.counts()).sum();
        write!(f, "\n{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn a_runner_is_judged_by_its_status_and_its_counts() {
        assert_eq!(Outcome::of_tests(true, counts(3, 0, 1), "-"), Outcome::Passed(counts(3, 0, 1)));
        let nothing = Outcome::of_tests(true, counts(0, 0, 2), "-");
        assert_eq!(nothing, Outcome::Failed(counts(0, 1, 2), "no test ran".into()));
        let some = Outcome::of_tests(false, counts(3, 2, 0), "exit status 101");
        assert_eq!(some, Outcome::Failed(counts(3, 2, 0), "2 tests failed".into()));
        let uncompiled = Outcome::of_tests(false, counts(0, 0, 0), "exit status 101");
        assert_eq!(uncompiled, Outcome::Failed(counts(0, 1, 0), "exit status 101".into()));
    }

    #[test]
    fn runs_are_put_together() {
        let passed = |n| Outcome::Passed(counts(n, 0, 1));
        assert_eq!(Outcome::together(vec![]), None);
        assert_eq!(Outcome::together(vec![passed(2), passed(3)]), Some(Outcome::Passed(counts(5, 0, 2))));
        let failed = Outcome::Failed(counts(1, 2, 0), "why".into());
        let all = Outcome::together(vec![passed(2), failed, Outcome::skipped("no")]);
        assert_eq!(all, Some(Outcome::Failed(counts(3, 2, 2), "why".into())));
        assert_eq!(Outcome::together(vec![Outcome::skipped("no")]), Some(Outcome::skipped("no")));
    }

    #[test]
    fn the_table_ends_with_the_totals_alone_on_their_line() {
        let mut report = Report::default();
        let second = Duration::from_secs(1);
        report.push(Row { name: "tidy", outcome: Outcome::Passed(Counts::PASSED), took: second });
        report.push(Row { name: "cargo test", outcome: Outcome::Passed(counts(41, 0, 2)), took: 90 * second });
        assert!(report.is_clean());
        report.push(Row { name: "zig", outcome: Outcome::skipped("no Zig"), took: second });
        assert!(report.is_clean());
        report.push(Row { name: "loom", outcome: Outcome::failed("exit status 1\na model\n  said\n"), took: second });
        assert!(!report.is_clean());
        let expected = "\
step        result   seconds  note
tidy        passed       1.0
cargo test  passed      90.0  41 tests, 2 skipped
zig         skipped      1.0  no Zig
loom        FAILED       1.0  exit status 1

loom:
a model
  said

42 passed, 1 failed, 3 skipped";
        assert_eq!(report.to_string(), expected);
        assert_eq!(report.tests_skipped(), 2, "a step is no test");
        report.tell_missing("A GPU is missing.".into());
        let (table, totals) = expected.rsplit_once('\n').expect("two lines");
        assert_eq!(report.to_string(), format!("{table}\nA GPU is missing.\n{totals}"));
    }
}
