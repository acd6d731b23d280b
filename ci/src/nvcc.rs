//! One pinned nvcc for the CUDA kernels: the one that `MEGARING_NVCC` names, or from the PATH where that is of the
//! release, otherwise from PyPI into `target/tools/nvcc`. A build without it leaves the CUDA backend out and is whole
//! otherwise.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Result;
use crate::command::ask;
use crate::wheels::Wheels;
use crate::workspace::Workspace;

/// The packages; the first is the compiler itself.
const PINS: &str = "kernels/nvcc-packages.txt";

/// Names an nvcc to use whatever else is there; the build script of the kernels heeds it too.
const NAMED: &str = "MEGARING_NVCC";

/// An nvcc that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Nvcc {
    /// The program.
    pub(crate) program: PathBuf,
    /// The release of CUDA it belongs to, such as `13.0`.
    pub(crate) release: String,
}

/// Whether NVIDIA packs an nvcc for this system. Where not, none can be missing.
pub(crate) const IS_MADE_FOR_THIS_SYSTEM: bool =
    cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")));

/// Brings the pinned nvcc, unless it is there already. The error is one sentence that says what to do.
pub(crate) fn setup(workspace: &Workspace) -> Result<Nvcc> {
    let packages = pinned(workspace)?;
    let release = release(&packages)?;
    let answers = |program: &Path| answers(workspace, program, &release);
    if let Some(named) = std::env::var_os(NAMED).map(PathBuf::from) {
        return if answers(&named) {
            Ok(Nvcc { program: named, release })
        } else {
            let named = named.display();
            Err(format!("{NAMED} names {named}, which does not answer as nvcc {release}: name one, or unset {NAMED}."))
        };
    }
    if !IS_MADE_FOR_THIS_SYSTEM {
        return Err("NVIDIA packs nvcc for Linux on x86-64 and aarch64 alone.".into());
    }
    let wheels = Wheels {
        title: format!("nvcc {release}"),
        folder: "nvcc",
        stamp: packages.join("\n"),
        packages,
        // The folder is named for the major release.
        program: Path::new("nvidia").join(format!("cu{}", major(&release))).join("bin/nvcc"),
        answers: &answers,
        otherwise: format!("name an nvcc of CUDA {release} with {NAMED}"),
    };
    let on_path = || Some(PathBuf::from("nvcc")).filter(|program| answers(program));
    let program = match wheels.installed(workspace).or_else(on_path) {
        Some(program) => program,
        None => {
            let program = wheels.bring(workspace)?;
            rebuild_kernels(workspace)?;
            program
        }
    };
    Ok(Nvcc { program, release })
}

/// As [`setup`], for those who can do without: what came of it, in a sentence.
pub(crate) fn try_setup(workspace: &Workspace) -> String {
    match setup(workspace) {
        Ok(Nvcc { program, release }) => {
            let what = "a build that has no kernels yet compiles them with it, which takes some minutes without a word";
            format!("nvcc {release} is ready: {}; {what}", program.display())
        }
        Err(reason) => format!("The CUDA backend will be left out of what is built: {reason}"),
    }
}

/// The packages that the kernels ask for, `name==version` each.
fn pinned(workspace: &Workspace) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(workspace.root().join(PINS)).map_err(|error| format!("{PINS} is not there: {error}."))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into).collect())
}

/// `13.0` where the compiler's package is pinned to `13.0.88`.
fn release(packages: &[String]) -> Result<String> {
    let version = packages.first().and_then(|package| package.split_once("==")).map_or("", |(_, version)| version);
    match version.split('.').collect::<Vec<_>>()[..] {
        [major, minor, _] if major.parse::<u32>().is_ok() => Ok(format!("{major}.{minor}")),
        _ => Err(format!("{PINS} does not begin with the compiler's package and its version.")),
    }
}

fn major(release: &str) -> &str {
    release.split_once('.').map_or(release, |(major, _)| major)
}

fn answers(workspace: &Workspace, program: &Path, release: &str) -> bool {
    let wanted = format!("release {release},");
    ask(workspace.command(program).arg("--version")).is_some_and(|answer| answer.contains(&wanted))
}

/// Lets the build script of the kernels run again, where it has left them out for want of nvcc: it watches the pins,
/// because a program that is not there cannot be watched without running the script at every build.
fn rebuild_kernels(workspace: &Workspace) -> Result<()> {
    File::options()
        .append(true)
        .open(workspace.root().join(PINS))
        .and_then(|pins| pins.set_modified(SystemTime::now()))
        .map_err(|error| format!("{PINS} could not be marked as changed: {error}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_compilers() {
        let packages = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(release(&packages("nvidia-cuda-nvcc==13.0.88\nb==1.2.3")).as_deref(), Ok("13.0"));
        assert_eq!(major("13.0"), "13");
        for wrong in ["", "nvidia-cuda-nvcc", "nvidia-cuda-nvcc==latest", "nvidia-cuda-nvcc==13.0"] {
            assert!(release(&packages(wrong)).expect_err(wrong).contains(PINS), "{wrong}");
        }
    }

    #[test]
    fn the_pins_are_the_lines_that_are_no_comments() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        let packages = pinned(&workspace).expect("the pins are there");
        assert!(packages.len() == 5 && packages.iter().all(|package| package.contains("==")), "{packages:?}");
        assert!(packages[0].starts_with("nvidia-cuda-nvcc=="), "{packages:?}");
        assert!(release(&packages).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_release_answers() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        // `echo --version` answers what it is asked or what it is, and never as nvcc.
        assert!(!answers(&workspace, Path::new("/bin/echo"), "13.0"));
        assert!(!answers(&workspace, Path::new("megaring-no-such-program"), "13.0"));
    }
}
