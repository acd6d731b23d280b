//! `ci/gpu-check` without a GPU: its own tests, and with the feature `rehearsal` all of it on the kernel's twin.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the script, where there is a Python to run it.
fn gpu_check(arguments: &[&str]) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/gpu-check");
    let usable = |python: &&str| {
        let check = "import sys; sys.exit(sys.platform != 'linux' or sys.version_info < (3, 9))";
        Command::new(python).args(["-c", check]).output().is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(|python| usable(python)) else {
        // Past the capture of tests that pass: it is to be counted.
        _ = writeln!(std::io::stdout(), "\nskipped: ci/gpu-check needs Linux and Python 3.9 or newer");
        return None;
    };
    Some(Command::new(python).arg(script).args(arguments).output().expect("Python starts"))
}

fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned()).concat()
}

#[test]
fn the_script_passes_its_own_tests() {
    let Some(output) = gpu_check(&["--self-test"]) else { return };
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn the_program_says_what_it_is_and_what_it_cannot_do() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_megaring-gpu-check")).args(arguments).output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        // A wrong line is told of in words.
        let last = told.lines().last().unwrap_or("null");
        (output.status.success(), serde_json::from_str::<serde_json::Value>(last).expect("the last line is an object"))
    };
    let (ok, version) = run(&["version"]);
    assert!(ok && version["ok"] == true && version["rehearsal"] == false, "{version}");
    let (ok, shown) = run(&["adapters"]);
    assert!(ok && shown["adapters"].is_array(), "{shown}");
    let (ok, refusal) = run(&["small", "--mode", "fast"]);
    assert!(!ok && refusal.is_null(), "{refusal}");
    // No machine has so many.
    let (ok, refusal) = run(&["small", "--device", "4096"]);
    assert!(
        !ok && refusal["ok"] == false && refusal["error"].as_str().is_some_and(|error| !error.is_empty()),
        "{refusal}"
    );
}

#[cfg(feature = "rehearsal")]
#[test]
fn everything_can_be_rehearsed() {
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Path::new(env!("CARGO_BIN_EXE_megaring-gpu-check")).parent().expect("it lies in a folder");
    let out = folder.path().display().to_string();
    let programs = programs.display().to_string();
    let Some(output) = gpu_check(&["--bin", &programs, "--out", &out, "--rehearse", "--quick"]) else { return };
    assert!(output.status.success(), "{}", told(&output));
    let results = std::fs::read(folder.path().join("results.json")).expect("results are written");
    let results: serde_json::Value = serde_json::from_slice(&results).expect("results are JSON");
    assert_eq!(results["rehearsal"], true);
    assert!(results["figures"]["series"]["ring/persistent/nop"]["seen"]["p50_ns"].is_number(), "{results}");
    let (wgpu, by_wgpu) =
        (&results["figures"]["wgpu"], &results["figures"]["series"]["ring/wgpu/query-1"]["exact"]["p50_ns"]);
    match wgpu.as_str() {
        Some(reason) => assert!(reason.starts_with("not available: ") && by_wgpu.is_null(), "{results}"),
        None => assert!(wgpu["name"].is_string() && by_wgpu.is_number(), "{results}"),
    }
    assert!(!folder.path().join("record.md").exists(), "a rehearsal records nothing");
}
