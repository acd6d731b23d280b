//! `cargo xtask bench`: the criterion benches of megaring-bench. What they stand beside is in `peers.rs`.

use std::process::ExitCode;

use crate::command::{ending, stream};
use crate::workspace::Workspace;
use crate::{Result, nvcc, zig};

/// Builds and runs all benches, or the bench target `name`.
pub(crate) fn run(workspace: &Workspace, name: Option<&str>) -> Result<ExitCode> {
    zig::setup(workspace)?;
    eprintln!("{}", nvcc::try_setup(workspace));
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "-p", "megaring-bench"]);
    match name {
        Some(name) => cargo.args(["--bench", name]),
        None => cargo.arg("--benches"),
    };
    let status = stream(&mut cargo)?;
    if status.success() { Ok(ExitCode::SUCCESS) } else { Err(format!("the benches ended with {}.", ending(status))) }
}
