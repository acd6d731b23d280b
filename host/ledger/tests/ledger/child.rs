//! Runs a test of this binary in a process of its own, where an environment variable tells it to act.

use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "MEGARING_LEDGER_TEST_CHILD";

/// The folder a child is to work in; `None` in an ordinary test run.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// A command that runs the test `name` as a child working in `folder`.
pub(crate) fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads", "1"]).env(VARIABLE, folder);
    command
}
