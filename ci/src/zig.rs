//! One pinned Zig: the one that `MEGARING_ZIG` names, or from the PATH where that has exactly the version, otherwise
//! from PyPI into `target/tools/zig`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::command::ask;
use crate::wheels::Wheels;
use crate::workspace::Workspace;

/// The file whose first line is the pinned version, as PyPI counts it.
const PIN: &str = "zig-simd/zig-version.txt";

/// Names a Zig to use whatever else is there; zig-simd's build script heeds it too.
const NAMED: &str = "MEGARING_ZIG";

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
    if let Some(named) = std::env::var_os(NAMED) {
        return named_by_person(workspace, &PathBuf::from(named), &version);
    }
    let answers = |program: &Path| answers(workspace, program, &version);
    let wheels = Wheels {
        title: format!("Zig {version}"),
        folder: "zig",
        packages: vec![format!("ziglang=={version}")],
        stamp: version.clone(),
        program: Path::new("ziglang").join(format!("zig{}", std::env::consts::EXE_SUFFIX)),
        answers: &answers,
        otherwise: format!("put Zig {version} on the PATH"),
    };
    let on_path = || Some(PathBuf::from("zig")).filter(|program| answers(program));
    let program = wheels.installed(workspace).or_else(on_path).map_or_else(|| wheels.bring(workspace), Ok)?;
    Ok(Zig { program, version })
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

fn named_by_person(workspace: &Workspace, program: &Path, version: &str) -> Result<Zig> {
    if answers(workspace, program, version) {
        return Ok(Zig { program: program.to_path_buf(), version: version.to_owned() });
    }
    let program = program.display();
    Err(format!(
        "{NAMED} names {program}, which does not answer as Zig {version}: name that version's, or unset {NAMED}."
    ))
}

fn answers(workspace: &Workspace, program: &Path, version: &str) -> bool {
    ask(workspace.command(program).arg("version")).is_some_and(|answer| answer == compilers(version))
}

/// The compiler's own version: PyPI adds `.post1` where a wheel was packed again.
fn compilers(version: &str) -> &str {
    version.split_once(".post").map_or(version, |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python;

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
    fn a_named_zig_must_be_of_the_version() {
        let (workspace, echo) = (empty_workspace("named"), Path::new("/bin/echo"));
        // `echo version` answers "version".
        assert!(named_by_person(&workspace, echo, "version.post1").is_ok());
        let reason = named_by_person(&workspace, echo, "other").expect_err("the program of another version");
        assert!(reason.contains("does not answer as Zig other"), "{reason}");
        python::remove(workspace.root()).expect("the scratch folder can be removed");
    }
}
