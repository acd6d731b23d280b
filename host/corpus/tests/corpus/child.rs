//! Runs a test of this binary in a process of its own, where an environment variable tells it to act.

use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "MEGARING_CORPUS_TEST_CHILD";

/// The folder a child is to work in; `None` in an ordinary test run.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// A command that runs the test `name` as a child working in `folder`, through the shell words `before`.
pub(crate) fn command(before: &str, name: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{before} exec \"$0\" --exact {name} --nocapture --test-threads 1");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(VARIABLE, folder);
    command
}
