//! `megaring doctor`: what this machine has, what is missing, and how to get it.
//!
//! Changes nothing that stays: the test of the data folder's writability removes its file, the self test runs on memory
//! of its own. The exit status is 1 where something must be mended before megaring can do its work.

use std::sync::Arc;

use megaring_core::{BackendKind, BackendStatus, Capabilities, Error};
use megaring_engine::{Engine, machine};
use megaring_simd::{CpuFeatures, Isa, KernelSet};
use serde::Serialize;

use crate::CudaConfig;
use crate::config::Settings;
use crate::console::{Failure, Output, bytes_text};

mod adapters;
mod calibration;
mod data;
mod self_test;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Good to know; megaring works without it.
    Note,
    /// Must be mended.
    Problem,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    state: State,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Finding {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, found: found.into(), help: None }
    }

    fn note(check: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Note, found: found.into(), help: Some(help.into()) }
    }

    fn problem(check: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Problem, found: found.into(), help: Some(help.into()) }
    }
}

/// Looks, and tells.
///
/// # Errors
/// [`Failure::Told`] where something must be mended; a closed output.
pub fn run(settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let mut findings = machine_findings();
    findings.extend(instruction_sets());
    findings.push(in_use(settings));
    findings.extend(data::findings(settings));
    findings.push(profile(settings));
    findings.extend(adapters::findings(settings));
    match self_test::engine(settings) {
        Ok(engine) => {
            findings.extend(backends(&engine, settings));
            findings.extend(self_test::findings(&engine));
            findings.push(calibration::finding(&engine, settings));
        }
        Err(error) => {
            let help = "the settings and what the system allows (threads, memory) decide whether it starts";
            findings.push(Finding::problem("engine", format!("it does not start: {error}"), help));
        }
    }
    findings.iter().try_for_each(|finding| output.answer(finding, || text(finding)))?;
    let problems = findings.iter().filter(|finding| finding.state == State::Problem).count();
    let record = serde_json::json!({ "healthy": problems == 0, "problems": problems });
    output.answer(&record, || match problems {
        0 => "\nmegaring can do all its work here".to_owned(),
        1 => "\n1 problem; see above".to_owned(),
        _ => format!("\n{problems} problems; see above"),
    })?;
    output.flush()?;
    if problems == 0 { Ok(()) } else { Err(Failure::Told) }
}

fn text(finding: &Finding) -> String {
    let mark = match finding.state {
        State::Ok => "ok     ",
        State::Note => "note   ",
        State::Problem => "PROBLEM",
    };
    let help = finding.help.as_ref().map(|help| format!("\n           {help}")).unwrap_or_default();
    format!("{mark}  {}: {}{help}", finding.check, finding.found)
}

fn machine_findings() -> Vec<Finding> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let version = format!("{} on {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let processor = format!("{}, {cores} processors for this process", machine::processor_name());
    let memory = match machine::memory() {
        Some(memory) => {
            Finding::ok("memory", format!("{} of {} available", bytes_text(memory.available), bytes_text(memory.total)))
        }
        None => Finding::note("memory", "this system does not say", "nothing depends on it"),
    };
    vec![Finding::ok("version", version), Finding::ok("processor", processor), memory]
}

fn instruction_sets() -> Vec<Finding> {
    let features = CpuFeatures::of_this_cpu();
    let finding = |isa: Isa| {
        let check = format!("instruction set {isa}");
        match KernelSet::for_isa(isa) {
            Ok(_) => Finding::ok(check, "available"),
            Err(_) if isa.is_supported(features) => {
                Finding::note(check, "not in this build", "a build for this architecture has it")
            }
            Err(_) => {
                let missing = isa.required().without(features).names().join(", ");
                Finding::note(
                    check,
                    format!("the processor lacks {missing}"),
                    "another set is used; answers are the same",
                )
            }
        }
    };
    Isa::ALL.into_iter().filter(|isa| (*isa == Isa::Neon) == cfg!(target_arch = "aarch64")).map(finding).collect()
}

fn in_use(settings: &Settings) -> Finding {
    let chosen = match &settings.isa {
        Some(name) => KernelSet::named(name).map(|set| (set, "as the settings ask for")),
        None => KernelSet::for_isa(Isa::detect()).map(|set| (set, "the best of this machine")),
    };
    match chosen {
        Ok((set, why)) => Finding::ok("instruction set in use", format!("{}, {why}", set.isa())),
        Err(error) => {
            Finding::problem("instruction set in use", error.to_string(), "choose another with --isa, or none")
        }
    }
}

fn profile(settings: &Settings) -> Finding {
    match settings.read_profile() {
        Ok(profile) => Finding::ok("encoder profile", format!("{}, {} words", profile.name(), profile.words().len())),
        Err(error) => {
            Finding::problem("encoder profile", error.to_string(), "correct the file, or leave --profile out")
        }
    }
}

fn backends(engine: &Arc<Engine>, settings: &Settings) -> Vec<Finding> {
    let finding = |(kind, status)| {
        let check = format!("backend {kind}");
        match status {
            BackendStatus::Available(capabilities) => Finding::ok(check, running(kind, &capabilities, settings)),
            BackendStatus::Unavailable { reason } => Finding::note(check, reason, "work goes to those that run"),
        }
    };
    engine.backends().into_iter().map(finding).collect()
}

fn running(kind: BackendKind, capabilities: &Capabilities, settings: &Settings) -> String {
    let Capabilities { device, instruction_set, lanes, .. } = capabilities;
    match kind {
        BackendKind::Cuda => {
            let CudaConfig { mode, device: number, memory_bytes, screen } = settings.cuda_config();
            let memory = match memory_bytes {
                0 => "three quarters of what is free of its memory".to_owned(),
                bytes => format!("{} of its memory", bytes_text(bytes as u64)),
            };
            format!(
                "running on device {number}, {device}, {instruction_set}, {lanes} blocks, {mode} mode, {screen} screen, corpora take up to {memory}"
            )
        }
        BackendKind::Wgpu => {
            let memory = bytes_text(settings.wgpu_memory as u64);
            format!("running on {device}, {instruction_set}, corpora take up to {memory} of its memory")
        }
        BackendKind::Cpu => format!("running on {device}, {instruction_set}, {lanes} threads"),
    }
}

/// A problem about which the error says all.
fn fault(check: &str, error: &Error, help: &str) -> Finding {
    Finding::problem(check, error.to_string(), help)
}
