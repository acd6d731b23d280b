//! Compiles cuda/kernels.cu into one image for every architecture that megaring serves, or leaves it out and says why.
//!
//! nvcc is looked for in this order: `MEGARING_NVCC`; target/tools/nvcc, where `cargo xtask setup` puts it; an `nvcc`
//! on the PATH. It must be of the release that nvcc-packages.txt pins. It wants a C++ compiler beside it, of which it
//! uses the preprocessor and the standard headers: `MEGARING_CXX`, or else c++, clang++ or g++ from the PATH, whichever
//! it gets along with. (Zig's is none of these: nvcc refuses libc++ on x86-64, and its front end does not know the
//! built-in templates that Zig's libc++ is written with.)
//!
//! Written to OUT_DIR: `kernels.fatbin`, empty where it is left out; `ptxas.txt`, what the assembler says each kernel
//! needs; and `ptx/`, the code before it, with Hopper's behind it. The last two are for `cargo xtask test ptxas` and
//! `machine`. `MEGARING_CUDA_LEFT_OUT` tells
//! the crate why there is no image; it is empty where there is one. What is wrong with the kernels themselves fails the
//! build.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

/// Code for each architecture: Turing, Ampere (data centre, desktop), Ada, Hopper, Blackwell (data centre, desktop).
/// The one for 8.6 also serves 8.7, the one for 10.0 also 10.3, the one for 12.0 also 12.1.
///
/// Newer ones compile the PTX of 10.0, which rests on no feature of that architecture alone. It comes from the same
/// pass as the code for 10.0. That of 12.0 would leave out 11.0; that of 9.0a runs nowhere else.
const ARCHITECTURES: [&str; 7] = [
    "arch=compute_75,code=sm_75",
    "arch=compute_80,code=sm_80",
    "arch=compute_86,code=sm_86",
    "arch=compute_89,code=sm_89",
    "arch=compute_90a,code=sm_90a",
    "arch=compute_100,code=[sm_100,compute_100]",
    "arch=compute_120,code=sm_120",
];

/// What nvcc must manage before anything is held against the kernels.
const PROBE: &str = "#include <cstdint>\n__global__ void probe(std::uint64_t* at) { *at = 1; }\n";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    watch(&source)?;
    empty(&out)?;
    let left_out = match Tools::find(&source, &out)? {
        Ok(tools) => {
            tools.compile(&source, &out)?;
            String::new()
        }
        Err(reason) => {
            write(&out.join("kernels.fatbin"), "")?;
            reason
        }
    };
    println!("cargo::rustc-env=MEGARING_CUDA_LEFT_OUT={left_out}");
    Ok(())
}

/// The device's sources without their twin on the CPU. New ones come in through a file that was there. `cargo xtask
/// setup` marks the pins as changed when it has brought nvcc.
fn watch(source: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed=nvcc-packages.txt");
    for name in ["MEGARING_NVCC", "MEGARING_CXX", "CARGO_TARGET_DIR"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let folder = fs::read_dir(source.join("cuda")).map_err(|error| format!("cuda/: {error}"))?;
    for entry in folder.flatten().filter(|entry| entry.path().is_file()) {
        println!("cargo::rerun-if-changed=cuda/{}", entry.file_name().to_string_lossy());
    }
    Ok(())
}

/// Removes what an earlier run left.
fn empty(out: &Path) -> Result<(), String> {
    fs::remove_dir_all(out)
        .and_then(|()| fs::create_dir_all(out.join("ptx")))
        .map_err(|error| format!("{}: {error}", out.display()))
}

/// Programs that were tried.
struct Tools {
    nvcc: PathBuf,
    host_compiler: PathBuf,
}

impl Tools {
    /// The inner error is a sentence's end that says why the kernels are left out, and what to do.
    fn find(source: &Path, out: &Path) -> Result<Result<Self, String>, String> {
        let (system, machine) = (variable("CARGO_CFG_TARGET_OS")?, variable("CARGO_CFG_TARGET_ARCH")?);
        if system != "linux" || !matches!(machine.as_str(), "x86_64" | "aarch64") {
            return Ok(Err("the CUDA backend is made for Linux on x86-64 and aarch64".into()));
        }
        let release = release(source)?;
        let nvcc = match find_nvcc(source, &release) {
            Ok(nvcc) => nvcc,
            Err(reason) => return Ok(Err(reason)),
        };
        write(&out.join("probe.cu"), PROBE)?;
        let named = env::var_os("MEGARING_CXX").map(PathBuf::from);
        let usual = ["c++", "clang++", "g++"].map(PathBuf::from);
        let candidates = named.into_iter().chain(usual);
        let found = candidates.map(|host_compiler| Self { nvcc: nvcc.clone(), host_compiler }).find(|tools| {
            let mut probe = tools.nvcc(out);
            succeeds(probe.args(["--ptx", "-arch=compute_90", "probe.cu", "-o", "probe.ptx"]))
        });
        if found.is_none() {
            println!("cargo::rerun-if-env-changed=PATH");
        }
        Ok(found.ok_or_else(|| {
            "there was no C++ compiler that nvcc gets along with: install g++ (on Debian: `apt-get install g++`), run \
             `cargo clean -p megaring-cuda` and build again"
                .into()
        }))
    }

    fn compile(&self, source: &Path, out: &Path) -> Result<(), String> {
        let mut nvcc = self.nvcc(source);
        nvcc.args(["--fatbin", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v"]);
        // Kept for the PTX and the machine code.
        nvcc.arg("--keep").arg("--keep-dir").arg(out.join("ptx"));
        nvcc.arg("--threads").arg(variable("NUM_JOBS")?);
        for architecture in ARCHITECTURES {
            nvcc.args(["-gencode", architecture]);
        }
        nvcc.arg("cuda/kernels.cu").arg("-o").arg(out.join("kernels.fatbin"));
        let Output { status, stdout, stderr } =
            nvcc.output().map_err(|error| format!("{} does not start: {error}", self.nvcc.display()))?;
        let (before, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if !status.success() {
            return Err(format!("{before}{said}\nnvcc could not compile the kernels ({status})"));
        }
        write(&out.join("ptxas.txt"), &said)?;
        for entry in fs::read_dir(out.join("ptx")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".ptx") && !name.ends_with("90a.cubin") {
                fs::remove_file(entry.path()).map_err(|error| format!("{}: {error}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    /// nvcc in `folder`, with what concerns all of its uses.
    fn nvcc(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.nvcc);
        command.current_dir(folder).arg("-std=c++20").arg("-ccbin").arg(&self.host_compiler);
        command
    }
}

fn find_nvcc(source: &Path, release: &str) -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("MEGARING_NVCC") {
        let named = PathBuf::from(named);
        let wrong = format!("MEGARING_NVCC named {}, which did not answer as nvcc {release}", named.display());
        return Some(named).filter(|nvcc| is_of(release, nvcc)).ok_or(wrong);
    }
    let major = release.split('.').next().unwrap_or_default();
    let installed = Path::new("tools/nvcc/nvidia").join(format!("cu{major}")).join("bin/nvcc");
    let target_directories = [env::var_os("CARGO_TARGET_DIR").map(PathBuf::from), Some(source.join("../target"))];
    let candidates = target_directories.into_iter().flatten().map(|directory| directory.join(&installed));
    if let Some(nvcc) = candidates.into_iter().find(|nvcc| is_of(release, nvcc)) {
        println!("cargo::rerun-if-changed={}", nvcc.display());
        return Ok(nvcc);
    }
    println!("cargo::rerun-if-env-changed=PATH");
    Some(PathBuf::from("nvcc"))
        .filter(|nvcc| is_of(release, nvcc))
        .ok_or_else(|| format!("nvcc {release} was not there: run `cargo xtask setup` and build again"))
}

fn is_of(release: &str, nvcc: &Path) -> bool {
    let answer = Command::new(nvcc).arg("--version").output();
    let wanted = format!("release {release},");
    answer.is_ok_and(|answer| answer.status.success() && String::from_utf8_lossy(&answer.stdout).contains(&wanted))
}

/// `13.0` where the first package, which is the compiler's, is pinned to `13.0.88`.
fn release(source: &Path) -> Result<String, String> {
    const PINS: &str = "nvcc-packages.txt";
    let pins = fs::read_to_string(source.join(PINS)).map_err(|error| format!("{PINS}: {error}"))?;
    let first = pins.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    let version = first.split_once("==").map_or("", |(_, version)| version);
    let (release, _) = version.rsplit_once('.').ok_or_else(|| format!("{PINS} does not begin with nvcc's version"))?;
    Ok(release.to_owned())
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
