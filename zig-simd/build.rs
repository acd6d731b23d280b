//! Compiles the Zig kernels, once per instruction set of the target, and links the static libraries.
//!
//! The compiler is looked for in this order: `MEGARING_ZIG`; target/tools/zig, where `cargo xtask setup` puts it; a
//! `zig` on the PATH. It must be the version in zig-version.txt. Zig's caches stay under OUT_DIR.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

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
    for path in ["build.zig", "src", "zig-version.txt"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["MEGARING_ZIG", "CARGO_TARGET_DIR", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }

    let target = variable("TARGET")?;
    let (zig_target, copies) =
        zig_target(&target).ok_or_else(|| format!("megaring has no SIMD kernels for {target}"))?;
    let pin =
        std::fs::read_to_string(source.join("zig-version.txt")).map_err(|error| format!("zig-version.txt: {error}"))?;
    let zig = find_zig(&source, pin.trim())?;
    compile(&zig, &source, &out, &zig_target)?;

    let libraries = out.join("lib");
    println!("cargo::rustc-link-search=native={}", libraries.display());
    println!("cargo::rustc-env=MEGARING_SIMD_LIBRARIES={}", libraries.display());
    for copy in copies {
        println!("cargo::rustc-link-lib=static=megaring_simd_{copy}");
    }
    Ok(())
}

/// The Zig name of a Rust target, and the copies that build.zig makes for its architecture.
fn zig_target(target: &str) -> Option<(String, &'static [&'static str])> {
    let (arch, copies): (_, &[_]) = match target.split('-').next()? {
        "x86_64" => ("x86_64", &["baseline", "avx2", "avx512", "avx512popcnt"]),
        "aarch64" => ("aarch64", &["neon"]),
        _ => return None,
    };
    let system = match target.split_once('-')?.1 {
        "unknown-linux-gnu" => "linux-gnu",
        "unknown-linux-musl" => "linux-musl",
        "apple-darwin" => "macos",
        "pc-windows-msvc" => "windows-msvc",
        "pc-windows-gnu" => "windows-gnu",
        _ => return None,
    };
    Some((format!("{arch}-{system}"), copies))
}

fn find_zig(source: &Path, pin: &str) -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("MEGARING_ZIG") {
        let named = PathBuf::from(named);
        return match zig_version(&named) {
            Some(version) if version == pin => Ok(named),
            Some(version) => Err(format!("MEGARING_ZIG names Zig {version}, but megaring is built with Zig {pin}")),
            None => Err(format!("MEGARING_ZIG names {}, which does not run as Zig", named.display())),
        };
    }
    let installed = Path::new("tools/zig/ziglang").join(if cfg!(windows) { "zig.exe" } else { "zig" });
    let target_directories = [env::var_os("CARGO_TARGET_DIR").map(PathBuf::from), Some(source.join("../target"))];
    let candidates = target_directories.into_iter().flatten().map(|directory| directory.join(&installed));
    candidates
        .chain([PathBuf::from("zig")])
        .find(|candidate| zig_version(candidate).as_deref() == Some(pin))
        .ok_or_else(|| format!("megaring needs Zig {pin} to compile its SIMD kernels: run `cargo xtask setup`"))
}

fn zig_version(zig: &Path) -> Option<String> {
    let output = Command::new(zig).arg("version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn compile(zig: &Path, source: &Path, out: &Path, target: &str) -> Result<(), String> {
    let status = Command::new(zig)
        .current_dir(source)
        .args(["build", "--summary", "none"])
        .arg(format!("-Dtarget={target}"))
        .arg("--prefix")
        .arg(out)
        .arg("--cache-dir")
        .arg(out.join("zig-cache"))
        .arg("--global-cache-dir")
        .arg(out.join("zig-global-cache"))
        .status()
        .map_err(|error| format!("{} does not start: {error}", zig.display()))?;
    if status.success() { Ok(()) } else { Err(format!("`zig build -Dtarget={target}` failed with {status}")) }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
