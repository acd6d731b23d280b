//! A C++ compiler for the device code's twin on the CPU: `MEGARING_CXX`, or else c++, clang++ or g++ from the PATH, or
//! else the one in Zig.

use std::path::PathBuf;
use std::process::Command;

use crate::command::ask;
use crate::workspace::Workspace;
use crate::{Result, zig};

/// Names a compiler to use whatever else is there; the kernels' build script and tests heed it too.
const NAMED: &str = "MEGARING_CXX";

/// A compiler that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cxx {
    program: PathBuf,
    /// What makes a C++ compiler of it, where it is more than that.
    subcommand: Option<&'static str>,
}

impl Cxx {
    /// Finds one; the error says how to get one.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        if let Some(named) = std::env::var_os(NAMED) {
            let named = Self { program: named.into(), subcommand: None };
            let reason = format!("{NAMED} names {}, which does not answer as a compiler", named.program.display());
            return Some(named).filter(|cxx| cxx.answers(workspace)).ok_or(reason);
        }
        let on_path = ["c++", "clang++", "g++"].map(|program| Self { program: program.into(), subcommand: None });
        if let Some(cxx) = on_path.into_iter().find(|cxx| cxx.answers(workspace)) {
            return Ok(cxx);
        }
        Self::of_zig(workspace).map_err(|reason| {
            format!("there is no C++ compiler on the PATH (on Debian: `apt-get install g++`). {reason}")
        })
    }

    /// The one in Zig, which is clang.
    pub(crate) fn of_zig(workspace: &Workspace) -> Result<Self> {
        Ok(Self { program: zig::setup(workspace)?.program, subcommand: Some("c++") })
    }

    /// The compiler, to be started in the root.
    pub(crate) fn command(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.command(&self.program);
        if let Some(subcommand) = self.subcommand {
            let cache = workspace.target().join("zig");
            command.env("ZIG_LOCAL_CACHE_DIR", cache.join("local")).env("ZIG_GLOBAL_CACHE_DIR", cache.join("global"));
            command.arg(subcommand);
        }
        command
    }

    fn answers(&self, workspace: &Workspace) -> bool {
        ask(self.command(workspace).arg("--version")).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_does_not_answer() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        let cxx = |program: &str| Cxx { program: program.into(), subcommand: None };
        assert!(!cxx("megaring-no-such-program").answers(&workspace));
        assert!(cxx("rustc").answers(&workspace), "a compiler that is there does");
    }

    #[test]
    fn zigs_compiler_is_a_subcommand() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        let command = Cxx { program: "zig".into(), subcommand: Some("c++") }.command(&workspace);
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["c++"]);
    }
}
