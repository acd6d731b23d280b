//! Where things lie. What xtask brings or makes for itself is under `<root>/target`, also where `CARGO_TARGET_DIR`
//! sends cargo's own artifacts elsewhere: build scripts look for the tools in that one place.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// The checkout this xtask belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the root from the manifest that cargo runs; the path compiled in serves an xtask started by hand.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().map(Path::to_path_buf).unwrap_or_default();
        if root.join("Cargo.lock").is_file() {
            Ok(Self { root })
        } else {
            Err(format!("{} is not megaring's root; run `cargo xtask` inside the checkout", root.display()))
        }
    }

    /// A workspace at `root`, for tests.
    #[cfg(test)]
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder that holds the workspace's Cargo.toml.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `target` in the root, whatever `CARGO_TARGET_DIR` says.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Tools brought by `setup`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// Makes the tools' folder and keeps every other xtask out of it until the answer is dropped; the system lets go of
    /// it where a run is killed.
    pub(crate) fn lock_tools(&self) -> Result<File> {
        let tools = self.tools();
        let locked = fs::create_dir_all(&tools)
            .and_then(|()| File::create(tools.join("lock")))
            .and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| format!("{} could not be made and locked: {error}.", tools.display()))
    }

    /// `program`, to be started in the root.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_about_xtask) {
                command.env_remove(name);
            }
        }
        command
    }

    /// The cargo that runs xtask, to be started in the root.
    pub(crate) fn cargo(&self) -> Command {
        self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }
}

/// Whether cargo set this variable to describe the xtask package. Handed on, it would make build scripts that watch it
/// run again each time a person changes between `cargo build` and `cargo xtask`.
fn is_about_xtask(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || matches!(name, "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH" | "CARGO_BIN_NAME" | "CARGO_CRATE_NAME")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtasks_own_variables_are_not_handed_on() {
        assert!(is_about_xtask("CARGO_PKG_NAME"));
        assert!(is_about_xtask("CARGO_MANIFEST_DIR"));
        for kept in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!is_about_xtask(kept), "{kept}");
        }
    }

    #[test]
    fn the_root_is_the_checkout() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        assert!(workspace.root().join("ci/src/workspace.rs").is_file());
        assert_eq!(workspace.tools(), workspace.root().join("target/tools"));
    }
}
