//! One pinned Zig: the one that `MEGARING_ZIG` names, or from the PATH where that has exactly the version, otherwise from PyPI
//! into `target/tools/zig`.
//!
//! The folder is filled beside its place, tried, stamped and then renamed, under a lock. So it is whole or not there, whenever
//! a run is stopped, and two runs at once bring it once. A folder with another stamp is replaced.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{ask, ending, stream};
use crate::workspace::Workspace;
use crate::{Result, python};

/// The file whose first line is the pinned version, as PyPI counts it.
const PIN: &str = "zig-simd/zig-version.txt";

/// Names a Zig to use whatever else is there; zig-simd's build script heeds it too.
const NAMED: &str = "MEGARING_ZIG";

/// Written into the folder last; its text is the pinned version.
const STAMP: &str = "megaring-stamp";

/// A Zig that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Zig {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its version, as PyPI counts it.
    pub(crate) version: String,
}

/// Brings the pinned Zig, unless it is there already. The error is one sentence that says what to do.
pub(crate) fn setup(workspace: &Workspace) -> Result<Zig> {
    let version = pinned(workspace)?;
    let place = workspace.tools().join("zig");
    if let Some(named) = std::env::var_os(NAMED) {
        return named_by_person(workspace, &PathBuf::from(named), &version);
    }
    if let Some(zig) = installed(workspace, &place, &version).or_else(|| on_path(workspace, &version)) {
        return Ok(zig);
    }
    let _lock = workspace.lock_tools()?;
    // Another run may have brought it while this one waited for the lock.
    if let Some(zig) = installed(workspace, &place, &version) {
        return Ok(zig);
    }
    install(workspace, &place, &version)?;
    installed(workspace, &place, &version)
        .ok_or_else(|| format!("Zig {version} was installed in {}, but does not start there.", place.display()))
}

/// The version that zig-simd asks for.
fn pinned(workspace: &Workspace) -> Result<String> {
    let text =
        fs::read_to_string(workspace.root().join(PIN)).map_err(|error| format!("{PIN} is not there: {error}."))?;
    match text.lines().next().map(str::trim) {
        Some(version) if version.starts_with(|first: char| first.is_ascii_digit()) => Ok(version.to_owned()),
        _ => Err(format!("{PIN} does not begin with a version.")),
    }
}

fn installed(workspace: &Workspace, place: &Path, version: &str) -> Option<Zig> {
    let stamp = fs::read_to_string(place.join(STAMP)).ok()?;
    let program = program_in(place);
    (stamp == version && answers(workspace, &program, version)).then(|| Zig { program, version: version.to_owned() })
}

fn named_by_person(workspace: &Workspace, program: &Path, version: &str) -> Result<Zig> {
    if answers(workspace, program, version) {
        return Ok(Zig { program: program.to_path_buf(), version: version.to_owned() });
    }
    let program = program.display();
    Err(format!(
        "{NAMED} names {program}, which does not answer as Zig {version}: name that version's, or unset {NAMED}."
    ))
}

fn on_path(workspace: &Workspace, version: &str) -> Option<Zig> {
    let program = PathBuf::from("zig");
    answers(workspace, &program, version).then(|| Zig { program, version: version.to_owned() })
}

fn program_in(place: &Path) -> PathBuf {
    place.join("ziglang").join(format!("zig{}", std::env::consts::EXE_SUFFIX))
}

fn answers(workspace: &Workspace, program: &Path, version: &str) -> bool {
    ask(workspace.command(program).arg("version")).is_some_and(|answer| answer == compilers(version))
}

/// The compiler's own version: PyPI adds `.post1` where a wheel was packed again.
fn compilers(version: &str) -> &str {
    version.split_once(".post").map_or(version, |(version, _)| version)
}

fn install(workspace: &Workspace, place: &Path, version: &str) -> Result<()> {
    // Under the lock nobody else uses these two; what lies there was left by a run that was stopped.
    let (partial, scratch) = (place.with_extension("partial"), place.with_extension("pip"));
    python::remove(&partial)?;
    let advice = format!("install Python 3 with pip, or put Zig {version} on the PATH");
    let python = python::with_pip(workspace, &scratch)
        .map_err(|reason| format!("Zig {version} cannot be brought because {reason}: {advice}."))?;
    let mut pip = python::pip_install(workspace, &python);
    pip.args(["--no-deps", "--target"]).arg(&partial).arg(format!("ziglang=={version}"));
    let status = stream(&mut pip)?;
    if !status.success() {
        let ending = ending(status);
        return Err(format!("pip could not install Zig {version} ({ending}, its reason stands above): {advice}."));
    }
    if !answers(workspace, &program_in(&partial), version) {
        return Err(format!("pip installed a Zig that does not answer as {version} on this machine: {advice}."));
    }
    let moved = fs::write(partial.join(STAMP), version);
    python::remove(place)?;
    moved
        .and_then(|()| fs::rename(&partial, place))
        .map_err(|error| format!("{} could not be put in place: {error}.", place.display()))?;
    python::remove(&scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of its own under this package's scratch folder, without anything in it.
    fn empty_workspace(name: &str) -> Workspace {
        let root = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        python::remove(&root).expect("the scratch folder can be emptied");
        fs::create_dir_all(root.join("zig-simd")).expect("the scratch folder can be made");
        Workspace::at(root)
    }

    #[test]
    fn a_repacked_wheel_has_the_compilers_version() {
        assert_eq!(compilers("0.13.0.post1"), "0.13.0");
        assert_eq!(compilers("0.15.2"), "0.15.2");
    }

    #[test]
    fn the_pin_is_the_first_line() {
        let workspace = empty_workspace("pin");
        let file = workspace.root().join(PIN);
        assert!(pinned(&workspace).expect_err("there is no file").starts_with(PIN));
        fs::write(&file, "latest\n").expect("the pin can be written");
        assert!(pinned(&workspace).expect_err("no version").contains("does not begin with a version"));
        fs::write(&file, "1.2.3.post4\n# why\n").expect("the pin can be written");
        assert_eq!(pinned(&workspace).expect("a version"), "1.2.3.post4");
        python::remove(workspace.root()).expect("the scratch folder can be removed");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_counts_as_installed_only_when_whole() {
        let workspace = empty_workspace("stamp");
        let place = workspace.tools().join("zig");
        let program = program_in(&place);
        fs::create_dir_all(place.join("ziglang")).expect("the folder can be made");
        // `echo version` answers "version". A script would do too, but one written by a test with threads can be busy.
        std::os::unix::fs::symlink("/bin/echo", &program).expect("the program can be linked");

        assert!(installed(&workspace, &place, "version").is_none(), "a half-finished install has no stamp");
        fs::write(place.join(STAMP), "version.post1").expect("the stamp can be written");
        assert!(installed(&workspace, &place, "version").is_none(), "the stamp of another version");
        let zig = installed(&workspace, &place, "version.post1").expect("it is whole");
        assert_eq!((zig.program, zig.version.as_str()), (program.clone(), "version.post1"));
        fs::write(place.join(STAMP), "other").expect("the stamp can be written");
        assert!(installed(&workspace, &place, "other").is_none(), "the program of another version");
        assert!(named_by_person(&workspace, &program, "version.post1").is_ok());
        let reason = named_by_person(&workspace, &program, "other").expect_err("the program of another version");
        assert!(reason.contains("does not answer as Zig other"), "{reason}");
        fs::remove_file(program).expect("the program can be removed");
        fs::write(place.join(STAMP), "version").expect("the stamp can be written");
        assert!(installed(&workspace, &place, "version").is_none(), "the program is gone");
        python::remove(workspace.root()).expect("the scratch folder can be removed");
    }
}
