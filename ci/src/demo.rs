//! `cargo xtask demo`: megaring's own demo, built for release, with its data under `target/demo`; and the same as a
//! step of `cargo xtask test --ci`, as the tests have built it.

use std::fs;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use crate::command::{Keep, ending, stream, tee};
use crate::workspace::Workspace;
use crate::{Result, messages, nvcc, zig};

/// Brings the tools, builds, and runs `megaring demo` with `arguments`; the demo's exit status is xtask's.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let status = start(workspace, &["--release", "-p", "megaring"], arguments)?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => Err(format!("the demo ended with {}.", ending(status))),
    }
}

/// As [`run`], with cargo's flags and the status as it is.
pub(crate) fn start(workspace: &Workspace, flags: &[&str], arguments: &[String]) -> Result<ExitStatus> {
    zig::setup(workspace)?;
    eprintln!("{}", nvcc::try_setup(workspace));
    let megaring = build(workspace, flags)?;
    let data = workspace.target().join("demo");
    fs::create_dir_all(&data).map_err(|error| format!("{} could not be made: {error}.", data.display()))?;
    let mut demo = workspace.command(&megaring);
    // A person's own folder stays theirs: the demo would otherwise create and drop corpora in it.
    demo.env("MEGARING_DATA", &data).arg("demo").args(arguments);
    stream(&mut demo)
}

/// Builds the program megaring with cargo's `flags` and answers where cargo put it.
pub(crate) fn build(workspace: &Workspace, flags: &[&str]) -> Result<PathBuf> {
    build_program(workspace, "megaring", flags)
}

/// As [`build`], of any program of the workspace.
pub(crate) fn build_program(workspace: &Workspace, program: &str, flags: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--bin", program, "--message-format=json-render-diagnostics"]).args(flags);
    let built = tee(&mut cargo, Keep::StdoutUnseen)?;
    if !built.status.success() {
        return Err(format!("{program} could not be built (cargo's {}).", ending(built.status)));
    }
    messages::executable(program, &built.output)
        .ok_or_else(|| format!("cargo did not say where it put the program {program}."))
}
