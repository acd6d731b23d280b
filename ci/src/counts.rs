//! How many tests ran, read from what the test runners print.
//!
//! The numbers serve the closing line alone; whether a step failed is its exit status's to say.

use std::iter::Sum;
use std::ops::Add;

/// Tests by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Ran and passed.
    pub(crate) passed: u64,
    /// Ran and failed.
    pub(crate) failed: u64,
    /// Did not run.
    pub(crate) skipped: u64,
}

impl Counts {
    /// One passed.
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One failed.
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    /// One that did not run.
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// Whether any test ran.
    pub(crate) fn any_ran(self) -> bool {
        self.passed + self.failed > 0
    }

    /// The sum of libtest's lines: `test result: ok. 3 passed; 0 failed; 1 ignored; …`. libtest counts a test that
    /// found out while it ran that it cannot run here as passed; such a test says `skipped: REASON` on a line of its
    /// own, past libtest's capture.
    pub(crate) fn of_cargo(output: &str) -> Self {
        let of_line = |line: &str| {
            let line = line.strip_prefix("test result: ")?;
            let [passed, failed, skipped] = [" passed", " failed", " ignored"].map(|word| before(line, word));
            Some(Self { passed, failed, skipped })
        };
        let said: Self = output.lines().filter_map(|line| of_line(line.trim_start())).sum();
        let skipped = output.lines().filter(|line| line.starts_with("skipped: ")).count() as u64;
        Self { passed: said.passed.saturating_sub(skipped), skipped: said.skipped + skipped, ..said }
    }

    /// The sum of Zig's lines: `Build Summary: 3/3 steps succeeded; 12/14 tests passed (1 skipped, 1 failed)` from
    /// tests that the build runner itself ran, `12 passed; 1 skipped; 1 failed.` or `All 14 tests passed.` from tests
    /// under qemu.
    pub(crate) fn of_zig(output: &str) -> Self {
        let of_line = |line: &str| {
            if let Some((head, tail)) =
                line.strip_prefix("Build Summary: ").and_then(|line| line.split_once(" tests passed"))
            {
                let passed = head.rsplit_once('/').map_or(0, |(passed, _)| number_at_end(passed));
                Some(Self { passed, failed: before(tail, " failed"), skipped: before(tail, " skipped") })
            } else if let Some(rest) = line.strip_prefix("All ").filter(|rest| rest.ends_with(" tests passed.")) {
                Some(Self { passed: number_at_start(rest), ..Self::default() })
            } else if line.ends_with(" failed.") && line.contains(" passed; ") {
                let [passed, failed, skipped] = [" passed", " failed", " skipped"].map(|word| before(line, word));
                Some(Self { passed, failed, skipped })
            } else {
                None
            }
        };
        output.lines().filter_map(|line| of_line(line.trim())).sum()
    }

    /// A line of our own kind: `7 passed, 0 failed`.
    pub(crate) fn of_plain(output: &str) -> Self {
        let line = output.lines().rfind(|line| line.contains(" passed, ")).unwrap_or_default();
        Self { passed: before(line, " passed"), failed: before(line, " failed"), skipped: before(line, " skipped") }
    }

    /// Python's unittest: `Ran 7 tests in 0.4s`, then `OK (skipped=1)` or `FAILED (failures=1, errors=2)`.
    pub(crate) fn of_unittest(output: &str) -> Self {
        let ran: u64 = output.lines().filter_map(|line| line.strip_prefix("Ran ")).map(number_at_start).sum();
        let of = |name: &str| -> u64 { output.split(name).skip(1).map(number_at_start).sum() };
        let failed = of("failures=") + of("errors=");
        let skipped = of("skipped=");
        Self { passed: ran.saturating_sub(failed + skipped), failed, skipped }
    }
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}

/// The number that ends where `word` begins, 0 where there is none.
fn before(line: &str, word: &str) -> u64 {
    line.split_once(word).map_or(0, |(head, _)| number_at_end(head))
}

fn number_at_end(text: &str) -> u64 {
    let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
    text[text.len() - digits..].parse().unwrap_or(0)
}

fn number_at_start(text: &str) -> u64 {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn cargos_lines_are_summed() {
        let output = "\
running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 10 passed; 3 failed; 4 ignored; 0 measured; 5 filtered out; finished in 1.20s
a test that prints: 7 passed; 7 failed";
        assert_eq!(Counts::of_cargo(output), counts(12, 3, 4));
        assert_eq!(Counts::of_cargo(""), Counts::default());
        let said = "test a ... \nskipped: no GPU\nok\ntest result: ok. 2 passed; 0 failed; 1 ignored\n";
        assert_eq!(Counts::of_cargo(said), counts(1, 0, 2));
        assert_eq!(Counts::of_cargo("it was skipped: x\ntest result: ok. 2 passed"), counts(2, 0, 0));
        assert!(!Counts::of_cargo("test result: ok. 0 passed; 0 failed; 1 ignored").any_ran());
    }

    #[test]
    fn zigs_summaries_are_summed() {
        assert_eq!(Counts::of_zig("Build Summary: 3/3 steps succeeded; 12/12 tests passed\n"), counts(12, 0, 0));
        let version_0_15 = "Build Summary: 1/3 steps succeeded; 1 failed; 7/9 tests passed; 1 skipped; 1 failed\n";
        assert_eq!(Counts::of_zig(version_0_15), counts(7, 1, 1));
        let mixed = "Build Summary: 1/3 steps succeeded (1 failed); 10/14 tests passed (3 skipped, 1 failed)\n";
        assert_eq!(Counts::of_zig(mixed), counts(10, 1, 3));
        assert_eq!(Counts::of_zig("Build Summary: 3/3 steps succeeded\n+- run test cached\n"), Counts::default());
        let qemu = "1/4 a.test.b...OK\n2 passed; 1 skipped; 1 failed.\nBuild Summary: 1/3 steps succeeded (1 failed)\n";
        assert_eq!(Counts::of_zig(qemu), counts(2, 1, 1));
        assert_eq!(Counts::of_zig("2/2 a.test.b...OK\nAll 2 tests passed.\n"), counts(2, 0, 0));
    }

    #[test]
    fn the_last_plain_line_is_read() {
        assert_eq!(Counts::of_plain("1 passed, 1 failed\na: b\n7 passed, 2 failed\n"), counts(7, 2, 0));
        assert_eq!(Counts::of_plain("nothing"), Counts::default());
    }

    #[test]
    fn unittests_lines_are_read() {
        assert_eq!(Counts::of_unittest("Ran 7 tests in 0.412s\n\nOK (skipped=1)\n"), counts(6, 0, 1));
        assert_eq!(Counts::of_unittest("Ran 7 tests in 0.4s\n\nFAILED (failures=1, errors=2)\n"), counts(4, 3, 0));
        assert_eq!(Counts::of_unittest("nothing"), Counts::default());
    }
}
