//! The steps about the CUDA kernels that need no GPU: what the assembler says of them, and their twin on the CPU under
//! ThreadSanitizer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::command::{Keep, ask, ending, stream, tee};
use crate::counts::Counts;
use crate::cxx::Cxx;
use crate::messages::BuildScript;
use crate::ptxas::{self, Table, Usage};
use crate::python;
use crate::report::Outcome;
use crate::sass::{self, Code};
use crate::workspace::Workspace;

/// The package that holds them.
const PACKAGE: &str = "megaring-cuda";

/// The device code as C++.
const TWIN: &str = "kernels/cuda/twin";

/// A program that runs the device code on CPU threads, as hard on its synchronisation as it can. `--list-bugs` prints
/// one name a line, and `--bug NAME` runs it with that bug in it.
const TORTURE: &str = "kernels/cuda/twin/torture.cpp";

/// Compiles the kernels with cargo's `flags`, prints what each needs on each architecture, and fails where a hot one
/// spills or takes more registers than its budget, or one loads past the coherent caches.
pub(crate) fn ptxas(workspace: &Workspace, flags: &[&str]) -> Result<Outcome> {
    let folder = match build(workspace, flags)? {
        Ok(folder) => folder,
        Err(outcome) => return Ok(outcome),
    };
    let report = read(&folder.join("ptxas.txt"))?;
    let usages = ptxas::parse(&report)?;
    println!("{}", Table(&usages));
    let mut code = Vec::new();
    for file in files(&folder.join("ptx")).iter().filter(|file| file.extension().is_some_and(|kind| kind == "ptx")) {
        code.push((architecture(file), read(file)?));
    }
    Ok(told(&findings(&usages, &code)))
}

/// Disassembles what the kernels compile to for Hopper, and fails where it waits more than it must.
pub(crate) fn machine_code(workspace: &Workspace, flags: &[&str]) -> Result<Outcome> {
    let folder = match build(workspace, flags)? {
        Ok(folder) => folder,
        Err(outcome) => return Ok(outcome),
    };
    let images = files(&folder.join("ptx"));
    let image = images.iter().find(|file| file.extension().is_some_and(|kind| kind == "cubin"));
    let image = image.ok_or("the build has left no machine code.")?;
    Ok(match sass::disassembler(workspace) {
        Ok(nvdisasm) => told(&Code::read(workspace, &nvdisasm, image)?.findings()),
        Err(reason) => Outcome::skipped(reason),
    })
}

/// Runs the litmus tests of the hand-overs between host and device, by an enumeration of what PTX's memory model
/// allows.
pub(crate) fn memory_model(workspace: &Workspace) -> Result<Outcome> {
    let python = match python::interpreter(workspace) {
        Ok(python) => python,
        Err(reason) => return Ok(Outcome::skipped(reason)),
    };
    let ended = tee(workspace.command(&python).arg(workspace.root().join("ci/litmus.py")), Keep::Stdout)?;
    Ok(Outcome::of_tests(ended.status.success(), Counts::of_plain(&ended.output), &ending(ended.status)))
}

/// Compiles the kernels; where their build script has left what it made, or else what came of it.
fn build(workspace: &Workspace, flags: &[&str]) -> Result<std::result::Result<PathBuf, Outcome>> {
    let mut cargo = workspace.cargo();
    cargo.args(["check", "-p", PACKAGE, "--message-format=json-render-diagnostics"]).args(flags);
    let built = tee(&mut cargo, Keep::StdoutUnseen)?;
    if !built.status.success() {
        let failed = format!("the kernels could not be built (cargo's {})", ending(built.status));
        return Ok(Err(Outcome::failed(failed)));
    }
    let script = BuildScript::of(PACKAGE, &built.output).ok_or("cargo did not say where it built the kernels.")?;
    Ok(match script.variable("MEGARING_CUDA_LEFT_OUT") {
        Some(reason) if reason.is_empty() => Ok(script.folder),
        reason => Err(Outcome::skipped(reason.unwrap_or_default())),
    })
}

fn told(findings: &[String]) -> Outcome {
    for finding in findings {
        println!("{finding}");
    }
    match findings.first() {
        None => Outcome::Passed(Counts::PASSED),
        Some(first) => Outcome::failed(first.as_str()),
    }
}

/// What is wrong with kernels that need `usages`, where `code` is the PTX of each architecture.
fn findings(usages: &[Usage], code: &[(String, String)]) -> Vec<String> {
    let spill = |usage: &Usage| {
        let Usage { function, architecture, spill_stores, spill_loads, .. } = usage;
        format!("{function} spills for {architecture}: {spill_stores} bytes stored, {spill_loads} loaded")
    };
    let mut findings: Vec<String> = usages.iter().filter(|usage| usage.is_hot_and_spills()).map(spill).collect();
    findings.extend(usages.iter().filter_map(Usage::beyond_budget));
    for (architecture, ptx) in code {
        if let Some(load) = ptxas::non_coherent_load(ptx) {
            findings
                .push(format!("a load for {architecture} is not coherent, but the kernel outlives its data: `{load}`"));
        }
        if !usages.iter().any(|usage| usage.is_hot_kernel() && usage.architecture == *architecture) {
            findings.push(format!("ptxas has assembled no kernel of the ring for {architecture}"));
        }
    }
    if code.is_empty() {
        findings.push("there is no PTX to look at".into());
    }
    findings
}

/// `sm_90a` for the file `kernels.compute_90a.ptx`.
fn architecture(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stem.rsplit_once(".compute_").map_or(stem.clone(), |(_, number)| format!("sm_{number}"))
}

/// Has the clang in Zig compile the twin. Being pinned, it finds the same things everywhere, so its warnings can be
/// errors; and what a person's own compiler lets pass does not wait for somebody with another one.
pub(crate) fn twin_by_clang(workspace: &Workspace) -> Result<Outcome> {
    if cfg!(windows) {
        return Ok(Outcome::skipped("the twin is not made for Windows"));
    }
    let cxx = Cxx::of_zig(workspace)?;
    let object = build_folder(workspace)?.join("clang.o");
    let mut outcomes = Vec::new();
    for program in files(&workspace.root().join(TWIN)) {
        if program.extension().is_some_and(|extension| extension == "cpp") {
            let mut zig = cxx.command(workspace);
            zig.args(["-std=c++20", "-c", "-O0", "-Wall", "-Wextra", "-Werror", "-Ikernels/cuda"]);
            if program.ends_with(TORTURE) {
                zig.arg("-fsanitize=thread");
            }
            let status = stream(zig.arg(&program).arg("-o").arg(&object))?;
            let passed = Outcome::Passed(Counts::PASSED);
            outcomes.push(if status.success() { passed } else { Outcome::failed("clang has findings") });
        }
    }
    Ok(Outcome::together(outcomes).unwrap_or_else(|| Outcome::skipped(format!("there is no {TWIN}/*.cpp"))))
}

fn build_folder(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target().join("twin");
    fs::create_dir_all(&folder).map_err(|error| format!("{} could not be made: {error}.", folder.display()))?;
    Ok(folder)
}

/// Runs the torture, and then once more with each of its bugs, which it must not survive.
pub(crate) fn torture(workspace: &Workspace) -> Result<Outcome> {
    if !workspace.root().join(TORTURE).is_file() {
        return Ok(Outcome::skipped(format!("there is no {TORTURE}")));
    }
    if cfg!(windows) {
        return Ok(Outcome::skipped("ThreadSanitizer does not know Windows"));
    }
    let cxx = match Cxx::find(workspace) {
        Ok(cxx) => cxx,
        Err(reason) => return Ok(Outcome::skipped(reason)),
    };
    let program = build_folder(workspace)?.join("torture");
    let mut compile = cxx.command(workspace);
    compile.args(["-std=c++20", "-O1", "-g", "-pthread", "-fsanitize=thread", "-ffp-contract=off"]);
    // A vector that is not aligned ends a kernel on a GPU, and is nothing to a CPU: it ends the torture.
    compile.args(["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]);
    compile.args(["-fno-strict-aliasing", "-Ikernels/cuda"]);
    let status = stream(compile.arg(TORTURE).arg("-o").arg(&program))?;
    if !status.success() {
        return Ok(Outcome::failed(format!("{TORTURE} could not be compiled ({})", ending(status))));
    }
    let status = stream(&mut sanitized(workspace, &program))?;
    if !status.success() {
        return Ok(Outcome::failed(format!("the torture found something ({})", ending(status))));
    }
    let bugs = ask(workspace.command(&program).arg("--list-bugs")).ok_or("the torture does not list its bugs.")?;
    let bugs: Vec<&str> = bugs.lines().map(str::trim).filter(|bug| !bug.is_empty()).collect();
    if bugs.is_empty() {
        return Ok(Outcome::failed("the torture knows no bug to be tried with"));
    }
    let mut outcomes = vec![Outcome::Passed(Counts::PASSED)];
    for bug in bugs {
        let ended = tee(sanitized(workspace, &program).args(["--bug", bug]), Keep::BothUnseen)?;
        outcomes.push(if ended.status.success() {
            Outcome::failed(format!("the torture survives the bug `{bug}`"))
        } else {
            println!("caught ({}): {}", ending(ended.status), finding(&ended.output));
            Outcome::Passed(Counts::PASSED)
        });
    }
    Ok(Outcome::together(outcomes).unwrap_or_else(|| Outcome::failed("nothing ran")))
}

/// The program under the sanitizer's rules: the first finding ends it. Where the system lets it, with its memory where
/// older sanitizers expect it.
fn sanitized(workspace: &Workspace, program: &Path) -> Command {
    let mut command = if ask(workspace.command("setarch").args(["-R", "true"])).is_some() {
        let mut command = workspace.command("setarch");
        command.arg("-R").arg(program);
        command
    } else {
        workspace.command(program)
    };
    command.env("TSAN_OPTIONS", "halt_on_error=1");
    command
}

/// The line that says what was found: the sanitizer's, or else the program's last.
fn finding(output: &str) -> &str {
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().find(|line| line.starts_with("SUMMARY: ")).or_else(|| lines().next_back()).unwrap_or("it says nothing")
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| format!("{} could not be read: {error}.", file.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(architectures: &[&str], spills: u64) -> Vec<Usage> {
        let report = |architecture: &&str| {
            format!(
                "ptxas info    : Compiling entry function 'megaring_a' for '{architecture}'\n\
                 ptxas info    : Function properties for megaring_a\n\
                 {spills} bytes stack frame, {spills} bytes spill stores, {spills} bytes spill loads\n\
                 ptxas info    : Used 8 registers, used 0 barriers\n"
            )
        };
        ptxas::parse(&architectures.iter().map(report).collect::<String>()).expect("the report is read")
    }

    fn code(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|&(architecture, ptx)| (architecture.to_owned(), ptx.to_owned())).collect()
    }

    #[test]
    fn sound_kernels_have_no_findings() {
        let fine = "ld.global.f32 %f1, [%rd6];";
        assert_eq!(findings(&usages(&["sm_75", "sm_90a"], 0), &code(&[("sm_75", fine), ("sm_90a", fine)])), [""; 0]);
    }

    #[test]
    fn spills_and_loads_and_gaps_are_found() {
        let (one, fine) = (usages(&["sm_75"], 0), code(&[("sm_75", "")]));
        let found = findings(&usages(&["sm_75"], 8), &fine);
        assert!(found.len() == 1 && found[0].starts_with("megaring_a spills for sm_75: 8 bytes"), "{found:?}");
        let found = findings(&one, &code(&[("sm_75", "ld.global.nc.f32 %f1, [%rd6];")]));
        assert!(found.len() == 1 && found[0].contains("not coherent"), "{found:?}");
        let found = findings(&one, &code(&[("sm_75", ""), ("sm_100", "")]));
        assert!(found.len() == 1 && found[0].ends_with("for sm_100"), "{found:?}");
        assert_eq!(findings(&one, &[]), ["there is no PTX to look at"]);
    }

    #[test]
    fn registers_beyond_the_budget_are_found() {
        let found = findings(&usages(&["sm_75", "sm_130"], 0), &code(&[("sm_75", ""), ("sm_130", "")]));
        assert_eq!(found, ["megaring_a takes 8 registers for sm_130, which has no budget"]);
    }

    #[test]
    fn what_was_found_is_one_line() {
        assert_eq!(
            finding("a\nSUMMARY: ThreadSanitizer: data race a.cpp:1\n====\n"),
            "SUMMARY: ThreadSanitizer: data race a.cpp:1"
        );
        assert_eq!(finding("a\njob 7 was answered twice\n\n"), "job 7 was answered twice");
        assert_eq!(finding("\n"), "it says nothing");
    }

    #[test]
    fn the_architecture_is_in_the_name() {
        assert_eq!(architecture(Path::new("out/ptx/kernels.compute_90a.ptx")), "sm_90a");
    }
}
