//! A Python 3 and its pip: found, or made into a virtual environment, never changed where a person or the system owns
//! it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::command::{ask, ending, stream};
use crate::workspace::Workspace;

/// Names of the interpreter: `python3` is missing on Windows, `py` elsewhere, and the last is Debian's own, behind
/// another that a version manager put first.
const NAMES: [&str; 4] = ["python3", "python", "py", "/usr/bin/python3"];

/// Why nothing could be done, for sentences.
const MISSING: &str = "there is no Python 3.8 or later on the PATH";

/// The interpreters that are there and recent enough for today's pip, best first.
fn interpreters(workspace: &Workspace) -> Vec<PathBuf> {
    let check = "import sys; print(sys.version_info >= (3, 8))";
    NAMES
        .iter()
        .filter(|name| ask(workspace.command(name).args(["-c", check])).is_some_and(|answer| answer == "True"))
        .map(PathBuf::from)
        .collect()
}

/// An interpreter, for scripts that need no package.
pub(crate) fn interpreter(workspace: &Workspace) -> Result<PathBuf> {
    interpreters(workspace).into_iter().next().ok_or_else(|| format!("{MISSING}."))
}

/// An interpreter that has pip: one of [`interpreters`], or else a virtual environment's (which brings its own pip) in
/// `scratch`. The error says what is missing and how to get it.
pub(crate) fn with_pip(workspace: &Workspace, scratch: &Path) -> Result<PathBuf> {
    let found = interpreters(workspace);
    if found.is_empty() {
        return Err(MISSING.into());
    }
    let has_pip = |python: &&PathBuf| ask(workspace.command(python).args(["-m", "pip", "--version"])).is_some();
    if let Some(python) = found.iter().find(has_pip) {
        return Ok(python.clone());
    }
    found.iter().find_map(|python| venv(workspace, python, scratch).ok()).ok_or_else(|| {
        "Python 3 has neither pip nor venv (on Debian: `apt-get install python3-pip python3-venv`)".into()
    })
}

/// Makes a virtual environment in `folder`, anew where it stands already, and answers its interpreter.
fn venv(workspace: &Workspace, python: &Path, folder: &Path) -> Result<PathBuf> {
    remove(folder)?;
    let status = stream(workspace.command(python).args(["-m", "venv"]).arg(folder))?;
    if status.success() {
        Ok(interpreter_in(folder))
    } else {
        Err(format!("`python -m venv` ended with {} (on Debian: `apt-get install python3-venv`)", ending(status)))
    }
}

/// The interpreter of a virtual environment in `folder` that has exactly `packages` (`name==version`), made where it is
/// not there yet, or not whole, or has others.
pub(crate) fn environment(workspace: &Workspace, folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let _lock = workspace.lock_tools()?;
    let (stamp, wanted) = (folder.join("megaring-stamp"), packages.join("\n"));
    let python = interpreter_in(folder);
    let starts = || ask(workspace.command(&python).arg("--version")).is_some();
    if fs::read_to_string(&stamp).is_ok_and(|packages| packages == wanted) && starts() {
        return Ok(python);
    }
    let found = interpreters(workspace);
    let base = found.first().ok_or(MISSING)?;
    venv(workspace, base, folder)?;
    if !packages.is_empty() {
        let status = stream(pip_install(workspace, &python).arg("--quiet").args(packages))?;
        if !status.success() {
            return Err(format!("pip could not install {} ({})", packages.join(", "), ending(status)));
        }
    }
    fs::write(&stamp, wanted).map_err(|error| format!("{} could not be written: {error}", stamp.display()))?;
    Ok(python)
}

/// `python -m pip install`, deaf to a person's own pip settings that forbid `--target` or ask questions.
pub(crate) fn pip_install(workspace: &Workspace, python: &Path) -> Command {
    let mut command = workspace.command(python);
    command
        .envs([("PIP_USER", "0"), ("PIP_REQUIRE_VIRTUALENV", "0"), ("PIP_ROOT_USER_ACTION", "ignore")])
        .args(["-m", "pip", "install"]);
    command.args(["--no-input", "--disable-pip-version-check", "--only-binary=:all:"]);
    command
}

fn interpreter_in(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

/// Removes a folder that may not be there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{} could not be removed: {error}.", folder.display()))
        }
        _ => Ok(()),
    }
}
