//! `cargo xtask test`: every check and test of the workspace, as a list of steps.
//!
//! Where something is missing (a tool, an instruction set), the step is skipped with its reason. With `--ci`, or
//! `CI=true`, a required step that cannot run has failed. The last line is `N passed, N failed, N skipped`, in tests
//! where a step runs tests and in steps where it is one check; a step that cannot run counts as one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::command::{Keep, ask, ending, stream, tee};
use crate::counts::Counts;
use crate::report::Outcome;
use crate::serving::Serving;
use crate::steps::{Rigour, Step, run_all};
use crate::stress::Plan;
use crate::workspace::Workspace;
use crate::{Result, demo, kernels, libtest, nvcc, python, stress, tidy, vulkan, zig};

/// What the steps share.
struct Context {
    workspace: Workspace,
    rigour: Rigour,
    /// What the step of that name runs.
    stress: Option<Plan>,
}

/// The names of all steps.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.name)
}

/// Runs all steps, or those with a word of `only` in their names; exit status 1 where one failed.
pub(crate) fn run(workspace: &Workspace, quick: bool, ci: bool, only: &[String]) -> Result<ExitCode> {
    let ci = ci || std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    let rigour = match (quick, ci) {
        (true, _) => Rigour::Quick,
        (false, true) => Rigour::Strict,
        (false, false) => Rigour::Usual,
    };
    let stress = (rigour == Rigour::Strict)
        .then(|| Plan { times: STRESS_TIMES, only: STRESSED.iter().map(|&name| name.to_owned()).collect() });
    let context = Context { workspace: workspace.clone(), rigour, stress };
    Ok(run_steps(&context, |step| only.is_empty() || only.iter().any(|word| step.contains(word.as_str()))))
}

/// Runs programs of tests as planned, and nothing else; exit status 1 where a test did not pass each time.
pub(crate) fn stress(workspace: &Workspace, plan: &Plan) -> Result<ExitCode> {
    let context = Context { workspace: workspace.clone(), rigour: Rigour::Usual, stress: Some(plan.clone()) };
    Ok(run_steps(&context, |step| matches!(step, "setup" | "stress")))
}

fn run_steps(context: &Context, is_wanted: impl Fn(&str) -> bool) -> ExitCode {
    let steps = STEPS.iter().filter(|step| is_wanted(step.name));
    let mut report = run_all(steps, context, context.rigour);
    if report.tests_skipped() > 0
        && let Some(sentence) = vulkan::missing(&context.workspace)
    {
        report.tell_missing(sentence);
    }
    println!("\n{report}");
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How often a strict run runs the tests that have threads and children in them.
const STRESS_TIMES: u32 = 1;
/// Those tests. Left out is what takes a minute and more each time, being hard on its threads by itself: the engine on
/// the CUDA kernels' twin and on an adapter, and the backends of both; and what is no program of cargo's: loom's
/// models, and the twin under ThreadSanitizer.
const STRESSED: [&str; 14] = [
    "failover",
    "gather",
    "grpc",
    "cli",
    "engine",
    "recorder",
    "megaring-simd backend",
    "device_consumer",
    "device_host",
    "event_mapped",
    "event_ring",
    "event_torture",
    "job_ring_properties",
    "simulated_consumer",
];

/// All of the workspace is named, with its tests, so that cargo takes up what `cargo test` built, with the same
/// features.
const AS_TESTED: [&str; 2] = ["--workspace", "--tests"];

/// Cheap steps first: they find the most for the time they take.
const STEPS: [Step<Context>; 20] = [
    Step { name: "setup", required: true, long: false, run: setup },
    Step { name: "tidy", required: true, long: false, run: tidy },
    Step { name: "rustfmt", required: true, long: false, run: rustfmt },
    Step { name: "zig fmt", required: true, long: false, run: zig_fmt },
    Step { name: "cargo deny", required: false, long: false, run: cargo_deny },
    Step { name: "clippy", required: true, long: false, run: clippy },
    Step { name: "rustdoc", required: true, long: true, run: rustdoc },
    Step { name: "cargo test", required: true, long: false, run: cargo_test },
    Step { name: "stress", required: true, long: true, run: run_stress },
    Step { name: "ptxas", required: true, long: false, run: ptxas },
    Step { name: "machine code", required: true, long: false, run: machine_code },
    Step {
        name: "memory model",
        required: true,
        long: false,
        run: |context| kernels::memory_model(&context.workspace),
    },
    Step {
        name: "cuda twin, clang",
        required: true,
        long: false,
        run: |context| kernels::twin_by_clang(&context.workspace),
    },
    Step {
        name: "cuda twin, ThreadSanitizer",
        required: true,
        long: true,
        run: |context| kernels::torture(&context.workspace),
    },
    Step { name: "loom", required: true, long: true, run: loom },
    Step { name: "zig test", required: true, long: true, run: zig_test },
    Step { name: "zig test, aarch64", required: true, long: true, run: zig_test_aarch64 },
    Step { name: "python client", required: true, long: true, run: python_client },
    Step { name: "imports", required: true, long: true, run: imports },
    Step { name: "demo", required: true, long: true, run: run_demo },
];

/// Zig is needed to build at all. Without nvcc the CUDA backend is left out, and without Vulkan the tests of the wgpu
/// backend, which is no failure but where a strict run could have them.
fn setup(context: &Context) -> Result<Outcome> {
    let workspace = &context.workspace;
    let zig = zig::setup(workspace)?;
    eprintln!("Zig {}: {}", zig.version, zig.program.display());
    if context.rigour == Rigour::Strict && nvcc::IS_MADE_FOR_THIS_SYSTEM {
        nvcc::setup(workspace)?;
    }
    eprintln!("{}", nvcc::try_setup(workspace));
    if context.rigour == Rigour::Strict {
        vulkan::find(workspace)?;
    }
    eprintln!("{}", vulkan::try_find(workspace));
    Ok(Outcome::Passed(Counts::PASSED))
}

fn tidy(context: &Context) -> Result<Outcome> {
    let findings = tidy::check(&context.workspace);
    for finding in &findings {
        println!("{finding}");
    }
    Ok(match findings.len() {
        0 => Outcome::Passed(Counts::PASSED),
        found => Outcome::failed(format!("{found} findings")),
    })
}

fn rustfmt(context: &Context) -> Result<Outcome> {
    if let Some(skipped) = without_component(context, "fmt", "rustfmt") {
        return Ok(skipped);
    }
    check(context.workspace.cargo().args(["fmt", "--all", "--check"]), "run `cargo fmt --all`")
}

fn zig_fmt(context: &Context) -> Result<Outcome> {
    let zig = zig::setup(&context.workspace)?;
    check(context.workspace.command(&zig.program).args(["fmt", "--check", "zig-simd"]), "run `zig fmt zig-simd`")
}

fn cargo_deny(context: &Context) -> Result<Outcome> {
    if ask(context.workspace.cargo().args(["deny", "--version"])).is_none() {
        return Ok(Outcome::skipped("cargo-deny is not installed (`cargo install cargo-deny`)"));
    }
    check(context.workspace.cargo().args(["deny", "check", "--config", "ci/deny.toml"]), "a dependency is not allowed")
}

fn clippy(context: &Context) -> Result<Outcome> {
    if let Some(skipped) = without_component(context, "clippy", "clippy") {
        return Ok(skipped);
    }
    let mut cargo = context.cargo("clippy");
    check(cargo.args(["--workspace", "--all-targets", "--", "-D", "warnings"]), "clippy has findings")
}

fn rustdoc(context: &Context) -> Result<Outcome> {
    let mut cargo = context.cargo("doc");
    check(cargo.env("RUSTDOCFLAGS", "-D warnings").args(["--workspace", "--no-deps"]), "rustdoc has findings")
}

fn cargo_test(context: &Context) -> Result<Outcome> {
    let outcome = tests(context.cargo("test").args(["--workspace", "--no-fail-fast"]))?;
    Ok(if context.rigour == Rigour::Strict { without_skips(outcome) } else { outcome })
}

/// Where nothing may be missing, a test that found out that it cannot run has failed.
fn without_skips(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Passed(counts) if counts.skipped > 0 => {
            let reason = format!("{} tests cannot run here; they say why in lines `skipped: …`", counts.skipped);
            Outcome::Failed(Counts { failed: counts.skipped, skipped: 0, ..counts }, reason)
        }
        outcome => outcome,
    }
}

/// It takes long, and what it finds is seldom: not for everybody's every run.
fn run_stress(context: &Context) -> Result<Outcome> {
    match &context.stress {
        Some(plan) => stress::run(&context.workspace, &context.locked(&[]), plan),
        None => Ok(Outcome::skipped("`cargo xtask test --stress N` runs it, and so does --ci")),
    }
}

/// `cargo test` has run the twin of the CUDA kernels as it is; this is about what they compile to.
fn ptxas(context: &Context) -> Result<Outcome> {
    kernels::ptxas(&context.workspace, &context.locked(&[]))
}

/// What they compile to in the end.
fn machine_code(context: &Context) -> Result<Outcome> {
    kernels::machine_code(&context.workspace, &context.locked(&[]))
}

/// The models of the lock-free code, in a target folder of their own: `--cfg loom` changes every crate that knows it.
fn loom(context: &Context) -> Result<Outcome> {
    const CRATES: [(&str, &str); 4] = [
        ("megaring-ring", "host/ring/tests"),
        ("megaring-board", "host/board/tests"),
        ("megaring-budget", "host/budget/tests"),
        ("megaring-simd", "zig-simd/tests"),
    ];
    let flags = std::env::var("RUSTFLAGS").map_or_else(|_| "--cfg loom".into(), |flags| format!("{flags} --cfg loom"));
    let mut outcomes = Vec::new();
    for (package, folder) in CRATES {
        let models = named(&context.workspace.root().join(folder), "loom_", "rs");
        if models.is_empty() {
            continue;
        }
        let mut cargo = context.cargo("test");
        cargo.env("RUSTFLAGS", &flags).args(["-p", package, "--release", "--no-fail-fast", "--target-dir"]);
        cargo.arg(context.workspace.target().join("loom"));
        for model in &models {
            cargo.arg("--test").arg(model.file_stem().unwrap_or_default());
        }
        outcomes.push(tests(&mut cargo)?);
    }
    Ok(Outcome::together(outcomes).unwrap_or_else(|| Outcome::skipped("there is no tests/loom_*.rs")))
}

fn zig_test(context: &Context) -> Result<Outcome> {
    zig_build(context, "test")
}

fn zig_test_aarch64(context: &Context) -> Result<Outcome> {
    if ask(context.workspace.command("qemu-aarch64").arg("--version")).is_none() {
        return Ok(Outcome::skipped("qemu-aarch64 is not on the PATH (on Debian: `apt-get install qemu-user`)"));
    }
    zig_build(context, "test-aarch64")
}

/// Clients that know the API from reflection alone.
fn python_client(context: &Context) -> Result<Outcome> {
    /// The gRPC client, and what it brings along.
    const PACKAGES: [&str; 4] =
        ["grpcio==1.85.1", "grpcio-reflection==1.85.1", "protobuf==7.36.2", "typing-extensions==4.16.0"];
    let workspace = &context.workspace;
    let clients = named(&workspace.root().join("host/service/tests/python"), "", "py");
    if clients.is_empty() {
        return Ok(Outcome::skipped("there is no host/service/tests/python/*.py"));
    }
    let python = match python::environment(workspace, &workspace.tools().join("py"), &PACKAGES) {
        Ok(python) => python,
        Err(reason) => return Ok(Outcome::skipped(reason)),
    };
    let megaring = demo::build(workspace, &context.locked(&AS_TESTED))?;
    let mut outcomes = Vec::new();
    for client in clients {
        let server = Serving::start(workspace, &megaring)?;
        let mut command = workspace.command(&python);
        command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        let ended = tee(command.arg(client).arg(server.address()), Keep::Both)?;
        let (counts, success) = (Counts::of_unittest(&ended.output), ended.status.success());
        // A plain script is one check.
        let counts = if success && counts == Counts::default() { Counts::PASSED } else { counts };
        outcomes.push(Outcome::of_tests(success, counts, &ending(ended.status)));
    }
    Ok(Outcome::together(outcomes).unwrap_or_else(|| Outcome::failed("no client ran")))
}

/// Files of the programs that most vectors come from, each imported and compared with what was written.
fn imports(context: &Context) -> Result<Outcome> {
    /// Those programs, and what they bring along.
    const PACKAGES: [&str; 8] = [
        "numpy==2.4.6",
        "pyarrow==26.0.1",
        "pandas==3.1.1",
        "python-dateutil==4.0.0",
        "tzdata==2026.6",
        "polars==2.1.0",
        "polars-runtime-32==2.1.0",
        "duckdb==2.0.0",
    ];
    let workspace = &context.workspace;
    let python = match python::environment(workspace, &workspace.tools().join("imports"), &PACKAGES) {
        Ok(python) => python,
        Err(reason) => return Ok(Outcome::skipped(reason)),
    };
    let megaring = demo::build(workspace, &context.locked(&AS_TESTED))?;
    let mut command = workspace.command(&python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg("host/service/tests/imports").arg(megaring);
    let ended = tee(&mut command, Keep::Both)?;
    Ok(Outcome::of_tests(ended.status.success(), Counts::of_unittest(&ended.output), &ending(ended.status)))
}

/// The program as the tests have it: a build for release takes many minutes more, and shows the same answers.
fn run_demo(context: &Context) -> Result<Outcome> {
    if context.rigour != Rigour::Strict {
        return Ok(Outcome::skipped("`cargo xtask demo` runs it, and so does --ci"));
    }
    let status = demo::start(&context.workspace, &context.locked(&AS_TESTED), &[])?;
    Ok(if status.success() { Outcome::Passed(Counts::PASSED) } else { Outcome::failed(ending(status)) })
}

impl Context {
    /// `cargo <subcommand>`; a strict run takes Cargo.lock as it stands.
    fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = self.workspace.cargo();
        cargo.args(self.locked(&[subcommand]));
        cargo
    }

    fn locked<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let locked = (self.rigour == Rigour::Strict).then_some("--locked");
        arguments.iter().copied().chain(locked).collect()
    }
}

/// One check that is its exit status.
fn check(command: &mut Command, failure: &str) -> Result<Outcome> {
    let status = stream(command)?;
    Ok(if status.success() { Outcome::Passed(Counts::PASSED) } else { Outcome::failed(failure) })
}

/// A run of cargo's tests; where some failed, the reason says which, and what they said.
fn tests(cargo: &mut Command) -> Result<Outcome> {
    let ended = tee(cargo, Keep::Stdout)?;
    let outcome = Outcome::of_tests(ended.status.success(), Counts::of_cargo(&ended.output), &ending(ended.status));
    let words = |test: String| format!("\n{test}\n{}", libtest::said(&ended.output, &test).trim_end());
    Ok(match outcome {
        Outcome::Failed(counts, reason) => {
            let failed: String = libtest::failed(&ended.output).into_iter().map(words).collect();
            Outcome::Failed(counts, format!("{reason}{failed}"))
        }
        outcome => outcome,
    })
}

fn zig_build(context: &Context, step: &str) -> Result<Outcome> {
    let (workspace, zig) = (&context.workspace, zig::setup(&context.workspace)?);
    let cache = workspace.target().join("zig");
    let mut command = workspace.command(&zig.program);
    command.current_dir(workspace.root().join("zig-simd")).args(["build", step, "--summary", "all"]);
    command.env("ZIG_LOCAL_CACHE_DIR", cache.join("local")).env("ZIG_GLOBAL_CACHE_DIR", cache.join("global"));
    let ended = tee(&mut command, Keep::Both)?;
    Ok(Outcome::of_tests(ended.status.success(), Counts::of_zig(&ended.output), &ending(ended.status)))
}

fn without_component(context: &Context, subcommand: &str, component: &str) -> Option<Outcome> {
    let answer = ask(context.workspace.cargo().args([subcommand, "--version"]));
    let advice = format!("{component} is not installed (`rustup component add {component}`)");
    answer.is_none().then(|| Outcome::skipped(advice))
}

/// The files in `folder` named `<prefix>*.<extension>`, in order of their names; none where there is no folder.
fn named(folder: &Path, prefix: &str, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn files_are_found_by_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let names = |prefix, extension| {
            let files = named(&folder, prefix, extension);
            files.iter().map(|file| file.file_name().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("c", "rs"), ["cli.rs", "command.rs", "counts.rs", "cxx.rs"]);
        assert_eq!(names("c", "zig"), [""; 0]);
        assert!(named(&folder.join("no such folder"), "", "rs").is_empty());
    }

    #[test]
    fn a_test_that_cannot_run_has_failed_where_nothing_may_be_missing() {
        let all_ran = Outcome::Passed(Counts { passed: 3, ..Counts::default() });
        assert_eq!(without_skips(all_ran.clone()), all_ran);
        match without_skips(Outcome::Passed(Counts { passed: 3, failed: 0, skipped: 2 })) {
            Outcome::Failed(counts, reason) => {
                assert!(
                    counts == Counts { passed: 3, failed: 2, skipped: 0 } && reason.starts_with("2 tests"),
                    "{reason}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
