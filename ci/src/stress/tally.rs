//! What came of many runs: which tests failed in some of them, and where to read of it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use crate::counts::Counts;
use crate::report::Outcome;

/// What came of a program's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// Of its tests.
    pub(crate) counts: Counts,
    /// The tests that failed.
    pub(crate) failed: Vec<Failure>,
}

/// A test that failed in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its name.
    pub(crate) test: String,
    /// The lines of it that are worth showing again; may be empty.
    pub(crate) said: String,
}

/// Runs put together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By program.
    programs: BTreeMap<String, Program>,
    /// In the order in which they first failed.
    unsteady: Vec<Unsteady>,
}

/// What is known of a program.
#[derive(Debug, Default)]
struct Program {
    runs: u32,
    /// Of the run in which the most tests ran: one that breaks off tells of none.
    counts: Counts,
}

/// A test that failed.
#[derive(Debug)]
struct Unsteady {
    program: String,
    test: String,
    failures: u32,
    /// What it said when it first did.
    said: String,
    /// The output of the first run in which it did.
    log: PathBuf,
}

impl Tally {
    /// Adds a run of `program`, whose output is in `log`; true if that is to be kept.
    pub(crate) fn add(&mut self, program: &str, run: Run, log: &Path) -> bool {
        let known = self.programs.entry(program.to_owned()).or_default();
        known.runs += 1;
        let ran = |counts: Counts| counts.passed + counts.failed;
        if known.runs == 1 || ran(run.counts) > ran(known.counts) {
            known.counts = run.counts;
        }
        let mut is_first = false;
        for Failure { test, said } in run.failed {
            match self.unsteady.iter_mut().find(|known| known.program == program && known.test == test) {
                Some(known) => known.failures += 1,
                None => {
                    let (program, log) = (program.to_owned(), log.to_owned());
                    self.unsteady.push(Unsteady { program, test, failures: 1, said, log });
                    is_first = true;
                }
            }
        }
        is_first
    }

    /// Every test once, failed where it failed in any run.
    pub(crate) fn outcome(&self) -> Outcome {
        let all: Counts = self.programs.values().map(|program| program.counts).sum();
        let failed = self.unsteady.len() as u64;
        let counts = Counts { passed: (all.passed + all.failed).saturating_sub(failed), failed, skipped: all.skipped };
        match failed {
            0 => Outcome::of_tests(true, counts, ""),
            1 => Outcome::Failed(counts, format!("1 test is not steady\n{self}")),
            failed => Outcome::Failed(counts, format!("{failed} tests are not steady\n{self}")),
        }
    }
}

/// A line for each test that is not steady, and what it said.
impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Unsteady { program, test, failures, said, log } in &self.unsteady {
            let runs = self.programs.get(program).map_or(0, |program| program.runs);
            writeln!(f, "{program}: {test} failed in {failures} of {runs} runs; the first is in {}", log.display())?;
            f.write_str(said)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ran: u64, failed: &[&str]) -> Run {
        let failure = |&test: &&str| Failure { test: test.to_owned(), said: format!("    of {test}\n") };
        let failed: Vec<Failure> = failed.iter().map(failure).collect();
        let lost = failed.len() as u64;
        Run { counts: Counts { passed: ran.saturating_sub(lost), failed: lost.min(ran), skipped: 1 }, failed }
    }

    #[test]
    fn a_test_is_steady_if_it_never_failed() {
        let mut tally = Tally::default();
        for round in 1..=3 {
            assert!(!tally.add("a cli", run(10, &[]), Path::new(&format!("cli-{round}"))));
            assert!(!tally.add("b lib", run(5, &[]), Path::new("lib")));
        }
        assert_eq!(tally.outcome(), Outcome::Passed(Counts { passed: 15, failed: 0, skipped: 2 }), "each counts once");
        assert_eq!(tally.to_string(), "");
    }

    #[test]
    fn what_failed_is_counted_and_its_first_output_kept() {
        let mut tally = Tally::default();
        assert!(tally.add("a cli", run(10, &["x", "y"]), Path::new("cli-1")));
        assert!(!tally.add("a cli", run(10, &["y"]), Path::new("cli-2")), "known already");
        assert!(tally.add("b lib", run(0, &["as a whole (signal: 6)"]), Path::new("lib-1")));
        assert!(!tally.add("b lib", run(5, &[]), Path::new("lib-2")));
        let expected = "\
a cli: x failed in 1 of 2 runs; the first is in cli-1
    of x
a cli: y failed in 2 of 2 runs; the first is in cli-1
    of y
b lib: as a whole (signal: 6) failed in 1 of 2 runs; the first is in lib-1
    of as a whole (signal: 6)
";
        assert_eq!(tally.to_string(), expected);
        let counts = Counts { passed: 12, failed: 3, skipped: 2 };
        assert_eq!(tally.outcome(), Outcome::Failed(counts, format!("3 tests are not steady\n{expected}")));
    }
}
