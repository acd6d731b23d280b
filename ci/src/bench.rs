//! `cargo xtask bench`: the criterion benches of megaring-bench, and its gates. What they stand beside is in
//! `peers.rs`.

use std::path::{Path, PathBuf};
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

/// Builds and runs the gates, which write their figures to `json`, too. Their exit status is xtask's: 1 where one is
/// broken.
pub(crate) fn gates(workspace: &Workspace, json: Option<&Path>) -> Result<ExitCode> {
    // Cargo starts the program in the root, but the file is named from where the person is.
    let json = json.map(absolute).transpose()?;
    zig::setup(workspace)?;
    eprintln!("{}", nvcc::try_setup(workspace));
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--release", "-p", "megaring-bench", "--bin", "megaring-gates"]);
    if let Some(json) = json {
        cargo.args(["--", "--json"]).arg(json);
    }
    let status = stream(&mut cargo)?;
    if status.success() { Ok(ExitCode::SUCCESS) } else { Err(format!("the gates ended with {}.", ending(status))) }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| format!("{} cannot be written: {error}.", path.display()))
}
