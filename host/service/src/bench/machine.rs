//! The machine, and an engine with every backend that the settings allow.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use megaring_core::{BackendKind, BackendStatus, Capabilities, Error};
use megaring_corpus::{Access, Store};
use megaring_engine::{Engine, machine};
use megaring_harness::record::{Device, Machine, Peak};
use megaring_simd::{KernelSet, roofline};
use tempfile::TempDir;

use crate::config::Settings;

/// An engine, as a rule over a folder of its own, which goes with it.
pub(super) struct Rig {
    pub(super) engine: Arc<Engine>,
    _folder: Option<TempDir>,
}

impl Rig {
    /// Starts every backend that the settings allow.
    pub(super) fn start(settings: &Settings) -> Result<Self, Error> {
        let no_folder = |error| Error::Storage(format!("no temporary folder can be made: {error}"));
        let folder = tempfile::tempdir().map_err(no_folder)?;
        let store = Store::open(folder.path(), Access::Exclusive)?;
        Ok(Self { engine: settings.engine(store, &BackendKind::ALL)?, _folder: Some(folder) })
    }

    /// What runs already.
    pub(super) fn over(engine: Arc<Engine>) -> Self {
        Self { engine, _folder: None }
    }

    /// The backends that run.
    pub(super) fn kinds(&self) -> Vec<BackendKind> {
        self.running().into_iter().map(|(kind, _)| kind).collect()
    }

    fn running(&self) -> Vec<(BackendKind, Capabilities)> {
        let running = |(kind, status)| match status {
            BackendStatus::Available(capabilities) => Some((kind, capabilities)),
            BackendStatus::Unavailable { .. } => None,
        };
        self.engine.backends().into_iter().filter_map(running).collect()
    }

    /// Why a backend cannot be used any more, where it cannot.
    pub(super) fn fault(&self, kind: BackendKind) -> Option<String> {
        self.engine.backends().into_iter().find_map(|(found, status)| match status {
            BackendStatus::Unavailable { reason } if found == kind => Some(reason),
            _ => None,
        })
    }

    /// How often a backend had to stream a corpus that did not fit.
    pub(super) fn streamed(&self, kind: BackendKind) -> u64 {
        let of_kind = self.engine.counters().into_iter().filter(|(found, _)| *found == kind);
        // wgpu counts jobs, CUDA pieces of the corpus.
        let streams =
            of_kind.flat_map(|(_, counters)| counters).filter(|(name, _)| matches!(*name, "streamed" | "tiles"));
        streams.map(|(_, count)| count).sum()
    }

    /// What runs, for the record.
    pub(super) fn devices(&self) -> Vec<Device> {
        let device = |(kind, able): (BackendKind, Capabilities)| Device {
            backend: kind.name().into(),
            device: able.device,
            instruction_set: able.instruction_set,
            emulated: able.emulated,
        };
        self.running().into_iter().map(device).collect()
    }

    /// What does not run and why, what stands in for a device, and what that means.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for (kind, status) in self.engine.backends() {
            if let BackendStatus::Unavailable { reason } = status {
                notes.push(format!("{kind} was not measured: {reason}"));
            }
        }
        let running = self.running();
        if let [(only, _)] = &running[..] {
            notes.push(format!("{only} is the only backend that runs here, so there is nothing to compare it with"));
        }
        for (kind, _) in running.iter().filter(|(kind, _)| *kind != BackendKind::Cpu) {
            notes.push(format!("what {kind} could do at most was not measured, so its share of that is not known"));
        }
        let emulated = running.iter().filter(|(_, able)| able.emulated);
        notes.extend(emulated.map(|(kind, able)| {
            format!("{kind} runs on {}, a program on the processor: its times say nothing of a GPU", able.device)
        }));
        notes
    }
}

/// Where and when the run is made. How long it took is told at its end.
pub(super) fn machine() -> Machine {
    let commit = option_env!("MEGARING_COMMIT").filter(|commit| !commit.is_empty());
    let version = env!("CARGO_PKG_VERSION");
    Machine {
        processor: machine::processor_name(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        memory_bytes: machine::memory().map(|memory| memory.total),
        version: commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})")),
        command: command(std::env::args_os().skip(1).map(|part| part.to_string_lossy().into_owned())),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        took_s: 0.0,
    }
}

/// The command line, for a shell.
fn command(args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    args.fold("megaring".to_owned(), |line, arg| {
        let is_plain = !arg.is_empty() && arg.chars().all(plain);
        line + " " + &if is_plain { arg } else { format!("'{}'", arg.replace('\'', "'\\''")) }
    })
}

/// What each backend can do at most. The processor's is measured, on as many threads as its backend has; others' is not
/// yet.
pub(super) fn peaks(rig: &Rig) -> Vec<Peak> {
    let peak = |(kind, able): (BackendKind, Capabilities)| {
        let none = Peak {
            backend: kind.name().into(),
            multiply_adds_per_s: None,
            bytes_per_s: None,
            how: "not measured".into(),
        };
        if kind != BackendKind::Cpu {
            return none;
        }
        let Ok(set) = KernelSet::named(&able.instruction_set) else { return none };
        let peaks = roofline::peaks(set, able.lanes);
        Peak {
            multiply_adds_per_s: Some(peaks.multiply_adds_per_s),
            bytes_per_s: Some(peaks.bytes_per_s),
            how: format!(
                "{} threads: the int8 screen's instructions on registers alone ({}), and one read after another of {}",
                able.lanes,
                set.isa(),
                crate::console::bytes_text(peaks.buffer_bytes as u64)
            ),
            ..none
        }
    };
    rig.running().into_iter().map(peak).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_given_to_a_shell_again() {
        let line = |args: &[&str]| command(args.iter().map(|arg| (*arg).to_owned()));
        assert_eq!(line(&["bench", "all", "--html=a/b.html"]), "megaring bench all --html=a/b.html");
        assert_eq!(
            line(&["--wgpu-adapter", "Some GPU", "", "it's"]),
            r"megaring --wgpu-adapter 'Some GPU' '' 'it'\''s'"
        );
    }
}
