//! Tools that PyPI carries, each in a folder of its own under `target/tools`.
//!
//! The folder is filled beside its place, tried, stamped and then renamed, under a lock. So it is whole or not there,
//! whenever a run is stopped, and two runs at once bring it once. A folder with another stamp is replaced.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{ending, stream};
use crate::workspace::Workspace;
use crate::{Result, python};

/// Written into the folder last; its text is [`Wheels::stamp`].
const STAMP: &str = "megaring-stamp";

/// What to bring, and how to know it again.
pub(crate) struct Wheels<'a> {
    /// Name and version, for sentences.
    pub(crate) title: String,
    /// The name of the folder in `target/tools`.
    pub(crate) folder: &'static str,
    /// What pip installs, `name==version` each; what these ask for themselves is not brought.
    pub(crate) packages: Vec<String>,
    /// Tells this version's folder from another's.
    pub(crate) stamp: String,
    /// The program, from the folder.
    pub(crate) program: PathBuf,
    /// Whether this program is the tool in its version.
    pub(crate) answers: &'a dyn Fn(&Path) -> bool,
    /// What a person can do where it cannot be brought, from "install Python 3 with pip, or" on.
    pub(crate) otherwise: String,
}

impl Wheels<'_> {
    /// The program, where it was brought before.
    pub(crate) fn installed(&self, workspace: &Workspace) -> Option<PathBuf> {
        let place = self.place(workspace);
        let stamp = fs::read_to_string(place.join(STAMP)).ok()?;
        let program = place.join(&self.program);
        (stamp == self.stamp && (self.answers)(&program)).then_some(program)
    }

    /// Brings it, unless it is there already. The error is one sentence that says what to do.
    pub(crate) fn bring(&self, workspace: &Workspace) -> Result<PathBuf> {
        if let Some(program) = self.installed(workspace) {
            return Ok(program);
        }
        let _lock = workspace.lock_tools()?;
        // Another run may have brought it while this one waited for the lock.
        if let Some(program) = self.installed(workspace) {
            return Ok(program);
        }
        self.install(workspace)?;
        self.installed(workspace).ok_or_else(|| {
            let place = self.place(workspace);
            format!("{} was installed in {}, but does not start there.", self.title, place.display())
        })
    }

    fn place(&self, workspace: &Workspace) -> PathBuf {
        workspace.tools().join(self.folder)
    }

    fn install(&self, workspace: &Workspace) -> Result<()> {
        let (place, title) = (self.place(workspace), &self.title);
        // Under the lock nobody else uses these two; what lies there was left by a run that was stopped.
        let (partial, scratch) = (place.with_extension("partial"), place.with_extension("pip"));
        python::remove(&partial)?;
        let advice = format!("install Python 3 with pip, or {}", self.otherwise);
        let python = python::with_pip(workspace, &scratch)
            .map_err(|reason| format!("{title} cannot be brought because {reason}: {advice}."))?;
        let mut pip = python::pip_install(workspace, &python);
        pip.args(["--no-deps", "--target"]).arg(&partial).args(&self.packages);
        let status = stream(&mut pip)?;
        if !status.success() {
            let ending = ending(status);
            return Err(format!("pip could not install {title} ({ending}, its reason stands above): {advice}."));
        }
        let program = partial.join(&self.program);
        if !(self.answers)(&program) {
            return Err(format!("pip installed {title}, but what it installed does not run here: {advice}."));
        }
        let moved = fs::write(partial.join(STAMP), &self.stamp);
        python::remove(&place)?;
        moved
            .and_then(|()| fs::rename(&partial, &place))
            .map_err(|error| format!("{} could not be put in place: {error}.", place.display()))?;
        python::remove(&scratch)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::command::ask;

    fn wheels<'a>(stamp: &str, answers: &'a dyn Fn(&Path) -> bool) -> Wheels<'a> {
        Wheels {
            title: "A tool".into(),
            folder: "tool",
            packages: vec![],
            stamp: stamp.into(),
            program: PathBuf::from("bin/tool"),
            answers,
            otherwise: "go without".into(),
        }
    }

    #[test]
    fn a_folder_counts_as_installed_only_when_whole() {
        let root = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        python::remove(&root).expect("the scratch folder can be emptied");
        let workspace = Workspace::at(root.clone());
        let place = workspace.tools().join("tool");
        fs::create_dir_all(place.join("bin")).expect("the folder can be made");
        // `echo version` answers "version". A script would do too, but one written by a test with threads can be busy.
        let program = place.join("bin/tool");
        std::os::unix::fs::symlink("/bin/echo", &program).expect("the program can be linked");
        let asked = |answer: &'static str| {
            let workspace = workspace.clone();
            move |program: &Path| ask(workspace.command(program).arg("version")).as_deref() == Some(answer)
        };
        let (right, other) = (asked("version"), asked("other"));

        assert!(wheels("1", &right).installed(&workspace).is_none(), "a half-finished install has no stamp");
        fs::write(place.join(STAMP), "1").expect("the stamp can be written");
        assert!(wheels("2", &right).installed(&workspace).is_none(), "the stamp of another version");
        assert_eq!(wheels("1", &right).installed(&workspace), Some(program.clone()), "it is whole");
        assert_eq!(wheels("1", &right).bring(&workspace), Ok(program.clone()), "and is not brought again");
        assert!(wheels("1", &other).installed(&workspace).is_none(), "the program of another version");
        fs::remove_file(program).expect("the program can be removed");
        assert!(wheels("1", &right).installed(&workspace).is_none(), "the program is gone");
        python::remove(&root).expect("the scratch folder can be removed");
    }
}
