//! Finds tests that do not pass every time: runs programs of tests again and again, beside threads that do nothing but
//! take the processor.
//!
//! - The programs are built once, and then started as cargo starts them, but [`TOGETHER`] at a time; in a round, each
//!   once.
//! - Their output is not shown. That of the run in which a test first failed is kept under `target/stress`, which
//!   begins empty.
//! - A program that does not end in [`PATIENCE`] is ended, and that run has failed.
//! - Documentation's tests stay out: they are no programs. So does what cargo does not start: Zig's tests, loom's
//!   models, Python's clients.

mod tally;

use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tally::{Failure, Run, Tally};

use crate::Result;
use crate::command::{Keep, ending, tee};
use crate::counts::Counts;
use crate::libtest;
use crate::messages::{TestProgram, test_programs};
use crate::report::Outcome;
use crate::workspace::Workspace;

/// Threads that take the processor from the tests.
const LOAD: usize = 4;
/// Programs that run at a time: many wait more than they work.
const TOGETHER: usize = 3;
/// How long a run of a program may take: many times what the longest takes beside the load.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// How often a program is looked at: little beside what the shortest takes.
const GLANCE: Duration = Duration::from_millis(10);

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How often each program runs.
    pub(crate) times: u32,
    /// Names of packages or of their tests, as cargo has them, a package's also without `megaring-`; none for all.
    pub(crate) only: Vec<String>,
}

/// Builds the programs with cargo's `flags` and runs them as planned. A test that failed in any run has failed; one
/// that ran is counted once.
pub(crate) fn run(workspace: &Workspace, flags: &[&str], plan: &Plan) -> Result<Outcome> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]).args(flags);
    let built = tee(&mut cargo, Keep::StdoutUnseen)?;
    if !built.status.success() {
        return Ok(Outcome::failed(format!("the tests could not be built (cargo's {})", ending(built.status))));
    }
    let programs = chosen(test_programs(&built.output), &plan.only)?;
    let folder = workspace.target().join("stress");
    // What an earlier run left behind; that there is none is the usual case.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{} could not be made: {error}.", folder.display()))?;

    let tally = Mutex::new(Tally::default());
    beside_load(|| {
        (1..=plan.times).try_for_each(|round| run_round(workspace, &programs, (round, plan), &folder, &tally))
    })?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(tally.outcome())
}

/// Runs each program once.
fn run_round(
    workspace: &Workspace,
    programs: &[TestProgram],
    (round, plan): (u32, &Plan),
    folder: &Path,
    tally: &Mutex<Tally>,
) -> Result<()> {
    let waiting = Mutex::new(programs.iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run_some = || -> Result<()> {
        while let Some(program) = next() {
            let label = label(program);
            let log = folder.join(format!("{}-{round}.txt", label.replace(' ', "-")));
            let begun = Instant::now();
            // What keeps one from being run would keep all.
            let run = run_once(workspace, program, &log).inspect_err(|_| while next().is_some() {})?;
            let word = if run.failed.is_empty() { "ok" } else { "FAILED" };
            let seconds = begun.elapsed().as_secs_f64();
            eprintln!("round {round} of {}: {label}, {seconds:.1} s, {word}", plan.times);
            if !tally.lock().unwrap_or_else(PoisonError::into_inner).add(&label, run, &log) {
                fs::remove_file(&log).map_err(|error| format!("{}: {error}.", log.display()))?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(run_some)).collect();
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Those of `programs` that `only` names, by package, by target, or by both.
fn chosen(programs: Vec<TestProgram>, only: &[String]) -> Result<Vec<TestProgram>> {
    let is_meant = |program: &TestProgram, name: &str| {
        let TestProgram { package, target, is_library, .. } = program;
        package == name
            || package.strip_prefix("megaring-") == Some(name)
            || !is_library && target == name
            || label(program) == name
    };
    if let Some(unknown) = only.iter().find(|name| !programs.iter().any(|program| is_meant(program, name))) {
        return Err(format!("no package and no program of tests is named `{unknown}`."));
    }
    let wanted = |program: &TestProgram| only.is_empty() || only.iter().any(|name| is_meant(program, name));
    let mut wanted: Vec<_> = programs.into_iter().filter(wanted).collect();
    // Cargo tells of them in the order in which it got ready.
    wanted.sort_by_key(label);
    Ok(wanted)
}

/// What a program is called: its package, and what of it.
fn label(program: &TestProgram) -> String {
    let TestProgram { package, target, is_library, .. } = program;
    format!("{package} {}", if *is_library { "lib" } else { target })
}

/// Runs a program with its output going to `log`.
fn run_once(workspace: &Workspace, program: &TestProgram, log: &Path) -> Result<Run> {
    let unwritable = |error: std::io::Error| format!("{} could not be written: {error}.", log.display());
    let output = File::create(log).map_err(unwritable)?;
    let errors = output.try_clone().map_err(unwritable)?;
    let mut command = workspace.command(&program.program);
    command.current_dir(&program.folder).stdin(Stdio::null()).stdout(output).stderr(errors);
    let status = wait(&mut command, PATIENCE)?;
    let output = fs::read(log).map_err(|error| format!("{} could not be read: {error}.", log.display()))?;
    let output = String::from_utf8_lossy(&output);
    let as_a_whole = |how: &str| {
        let test = format!("as a whole ({how})");
        vec![Failure { test, said: libtest::last_words(&output) }]
    };
    let failed = match status {
        Some(status) if status.success() => Vec::new(),
        Some(status) => match libtest::failed(&output) {
            failed if failed.is_empty() => as_a_whole(&ending(status)),
            failed => {
                let with_words = |test: String| Failure { said: libtest::said(&output, &test), test };
                failed.into_iter().map(with_words).collect()
            }
        },
        None => as_a_whole(&format!("it did not end in {} minutes", PATIENCE.as_secs() / 60)),
    };
    Ok(Run { counts: Counts::of_cargo(&output), failed })
}

/// Waits for a program's end; nothing where it had to be ended.
fn wait(command: &mut Command, patience: Duration) -> Result<Option<ExitStatus>> {
    let told = |error: std::io::Error| format!("a program of tests could not be run: {error}.");
    let mut child = command.spawn().map_err(told)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(told)? {
            return Ok(Some(status));
        }
        if begun.elapsed() > patience {
            child.kill().and_then(|()| child.wait()).map_err(told)?;
            return Ok(None);
        }
        thread::sleep(GLANCE);
    }
}

/// Does `work` while [`LOAD`] threads keep processors busy.
fn beside_load<T>(work: impl FnOnce() -> T) -> T {
    /// Ends the load, also where the work panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&over);
        for seed in 0..LOAD as u64 {
            let over = &over;
            scope.spawn(move || {
                let mut number = seed;
                while !over.load(Ordering::Relaxed) {
                    // Arithmetic, since a processor that is told that a thread only spins may be lent to others.
                    (0..10_000).for_each(|step| number = black_box(number.rotate_left(7) ^ step));
                }
            });
        }
        work()
    })
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn program(package: &str, target: &str, is_library: bool) -> TestProgram {
        let (package, target) = (package.to_owned(), target.to_owned());
        TestProgram { package, target, is_library, folder: ".".into(), program: "rustc".into() }
    }

    #[test]
    fn programs_are_chosen_by_package_or_by_test() {
        let all = [
            program("megaring", "megaring", true),
            program("megaring", "cli", false),
            program("megaring-ring", "megaring_ring", true),
            program("megaring-ring", "abi", false),
            program("megaring-simd", "backend", false),
            program("megaring-wgpu", "backend", false),
        ];
        let labels = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(all.to_vec(), &only).map(|programs| programs.iter().map(label).collect::<Vec<_>>())
        };
        assert_eq!(labels(&[]).map(|all| all.len()), Ok(6));
        let expected = ["megaring cli", "megaring-ring abi", "megaring-ring lib"].map(str::to_owned);
        assert_eq!(labels(&["ring", "cli"]), Ok(expected.to_vec()));
        let expected = ["megaring-simd backend", "megaring-wgpu backend"].map(str::to_owned);
        assert_eq!(labels(&["backend"]), Ok(expected.to_vec()));
        assert_eq!(labels(&["megaring-simd backend"]), Ok(expected[..1].to_vec()));
        assert_eq!(labels(&["megaring"]).map(|all| all.len()), Ok(2), "a package by its whole name");
        assert!(labels(&["cli", "megaring_ring"]).is_err_and(|reason| reason.contains("`megaring_ring`")));
    }

    #[test]
    fn the_load_lasts_as_long_as_the_work() {
        assert_eq!(beside_load(|| 7), 7);
        assert!(std::panic::catch_unwind(|| beside_load(|| panic!("as it should"))).is_err());
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let mut rustc = Command::new("rustc");
        let quick = rustc.arg("--version").stdout(Stdio::null());
        assert!(wait(quick, PATIENCE).expect("rustc is there").is_some_and(|status| status.success()));
        // It reads a program from a pipe that nobody writes to.
        let mut rustc = Command::new("rustc");
        let waiting = rustc.arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(wait(waiting, Duration::ZERO), Ok(None));
        assert!(wait(&mut Command::new("megaring-no-such-program"), PATIENCE).is_err());
    }
}
