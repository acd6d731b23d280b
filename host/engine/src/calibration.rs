//! What this machine's backends were measured to cost: made by `measure.rs` over the sizes of `plan.rs`, kept in one
//! file (`file.rs`), and believed by the router as long as machine and build are those of its fingerprint.

use std::time::{SystemTime, UNIX_EPOCH};

use megaring_core::operation::{Class, Size};
use megaring_core::{BackendKind, BackendStatus, Opcode};
use serde::{Deserialize, Serialize};

use crate::cost::{CostModel, FitError, Sample, Workload, fit, fit_upload};
use crate::engine::Engine;
use crate::router::Router;

mod cases;
mod file;
mod keeper;
mod measure;
mod noise;
mod plan;

pub use self::file::{Found, check_writable, load, save};
pub use self::keeper::{Calibrated, Keeper, Kept, Turn};
pub use self::measure::{Effort, Progress, measure};
pub use self::noise::Noise;

/// Raised when the file's form or the meaning of a coefficient changes.
pub const SCHEMA: u32 = 2;
/// No time in a file is longer: some eleven days.
const LONGEST_NS: f64 = 1e15;
/// Sizes of search that a backend must have been measured with.
const LEAST_SEARCHES: usize = 4;
/// A model that misses half of its own samples by more than this is no help.
const WORST_FIT: f64 = 0.5;

/// What the figures hold for: another processor, device, driver or build may be faster or slower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The processor's name.
    pub processor: String,
    /// Worker threads of the CPU backend.
    pub threads: usize,
    /// Version, commit where known, kind of build, and the program's file.
    pub build: String,
    /// Settings that change what jobs take.
    pub setup: String,
    /// The backends that ran.
    pub backends: Vec<Identity>,
}

/// One backend of a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `cpu`, `cuda` or `wgpu`.
    pub backend: String,
    /// The device.
    pub device: String,
    /// Instruction set or architecture.
    pub instruction_set: String,
    /// The driver with its version.
    pub driver: String,
}

impl Fingerprint {
    /// Of a running engine.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        let (mut backends, mut threads) = (Vec::new(), 0);
        for (kind, status) in engine.backends() {
            let BackendStatus::Available(able) = status else { continue };
            if kind == BackendKind::Cpu {
                threads = able.lanes;
            }
            let backend = kind.name().to_owned();
            let (device, instruction_set, driver) = (able.device, able.instruction_set, able.driver);
            backends.push(Identity { backend, device, instruction_set, driver });
        }
        let (build, setup) = (build_name(), engine.setup().to_owned());
        Self { processor: crate::machine::processor_name(), threads, build, setup, backends }
    }

    /// What differs from another in a few words; nothing where they are equal.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let differs = |what: &str, here: &str, there: &str| Some(format!("{what} is {here}, and was {there}"));
        if self.processor != other.processor {
            return differs("the processor", &self.processor, &other.processor);
        }
        if self.threads != other.threads {
            return differs("the number of threads", &self.threads.to_string(), &other.threads.to_string());
        }
        if self.build != other.build {
            return differs("the build", &self.build, &other.build);
        }
        if self.setup != other.setup {
            return differs("the setup", &self.setup, &other.setup);
        }
        for identity in &self.backends {
            match other.backends.iter().find(|other| other.backend == identity.backend) {
                None => return Some(format!("{} was not measured", identity.backend)),
                Some(other) if other != identity => {
                    return differs(&identity.backend, &identity.text(), &other.text());
                }
                Some(_) => {}
            }
        }
        // A backend that is not started this time is no reason to measure the others anew.
        None
    }
}

impl Identity {
    fn text(&self) -> String {
        [&self.device, &self.instruction_set, &self.driver].map(String::as_str).join(" ").trim().to_owned()
    }
}

/// Names the build: figures of another one, or of one that is not optimised, are not this one's. Where the program's
/// file can be looked at, its size and time tell one build from the next.
#[must_use]
pub fn build_name() -> String {
    let commit = option_env!("MEGARING_COMMIT").unwrap_or("");
    let kind = if cfg!(debug_assertions) { "debug" } else { "release" };
    let file = std::env::current_exe().and_then(std::fs::metadata).ok();
    let written = file.as_ref().and_then(|file| file.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    let file = match (file, written) {
        (Some(file), Some(written)) => format!("{:x}-{:x}", file.len(), written.as_secs()),
        _ => String::new(),
    };
    let words = [env!("CARGO_PKG_VERSION"), commit, kind, &file];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What it holds for.
    pub fingerprint: Fingerprint,
    /// Seconds since 1970 when it was made.
    pub made_unix_s: u64,
    /// Seconds it took.
    pub took_s: f64,
    /// Whether it was a quick one.
    pub quick: bool,
    /// The backends that were measured.
    pub backends: Vec<Costs>,
    /// Backends that failed meanwhile, and how; they go by what is assumed.
    pub failed: Vec<Failed>,
    /// How noisy the machine was.
    pub noise: Noise,
    /// Why the figures are to be doubted; none where the machine was quiet.
    pub doubts: Vec<String>,
}

/// A backend that could not be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// The backend.
    pub backend: String,
    /// What happened.
    pub reason: String,
}

/// What one backend costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// The backend.
    pub backend: String,
    /// The lines through the samples.
    pub model: CostModel,
    /// What was measured.
    pub samples: Vec<Measurement>,
    /// Uploads: bytes and nanoseconds.
    pub uploads: Vec<[f64; 2]>,
    /// By how much the model misses half of a class's samples at most, relative to their times.
    pub typical_errors: Vec<(String, f64)>,
}

/// One measured size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// Number of the operation ([`Opcode`]).
    pub opcode: u16,
    /// Queries or memories.
    pub items: u64,
    /// Bytes that are read.
    pub bytes: u64,
    /// Multiply-adds of all pairs.
    pub multiply_adds: u64,
    /// Elements that are scored in full precision.
    pub candidates: u64,
    /// Median of its times.
    pub ns: f64,
    /// Half the width of the median's confidence interval, relative to it.
    pub uncertainty: f64,
}

impl Measurement {
    /// A job's median time in nanoseconds with its uncertainty.
    #[must_use]
    pub fn new(load: &Workload, (ns, uncertainty): (f64, f64)) -> Self {
        let Size { items, bytes, multiply_adds, candidates } = load.size;
        Self { opcode: load.opcode as u16, items, bytes, multiply_adds, candidates, ns, uncertainty }
    }

    /// What was measured; none where the operation is unknown.
    #[must_use]
    pub fn workload(&self) -> Option<Workload> {
        let Self { items, bytes, multiply_adds, candidates, .. } = *self;
        let size = Size { items, bytes, multiply_adds, candidates };
        Opcode::from_u16(self.opcode).map(|opcode| Workload { opcode, size })
    }

    fn sample(&self) -> Option<(Workload, Sample)> {
        self.workload().map(|load| (load, Sample::new(load.size, self.ns, self.uncertainty)))
    }
}

impl Costs {
    /// Fits the lines. A class without samples goes by what is assumed.
    ///
    /// # Errors
    /// A sample that is no time.
    pub fn fitted(kind: BackendKind, samples: Vec<Measurement>, uploads: Vec<[f64; 2]>) -> Result<Self, FitError> {
        let mut model = CostModel::assumed(kind);
        let mut typical_errors = Vec::new();
        for class in Class::ALL {
            let of_it: Vec<Sample> = samples
                .iter()
                .filter_map(Measurement::sample)
                .filter_map(|(load, sample)| (load.opcode.class() == class).then_some(sample))
                .collect();
            if of_it.is_empty() {
                continue;
            }
            let found = fit(&of_it)?;
            model.set(class, found.coefficients);
            typical_errors.push((class.name().to_owned(), found.typical_error));
        }
        if !uploads.is_empty() {
            model.upload = fit_upload(&uploads.iter().map(|[bytes, ns]| (*bytes, *ns)).collect::<Vec<_>>())?;
        }
        Ok(Self { backend: kind.name().into(), model, samples, uploads, typical_errors })
    }
}

impl Calibration {
    /// Makes the router go by it.
    pub fn apply(&self, router: &Router) {
        for costs in &self.backends {
            let Ok(kind) = costs.backend.parse::<BackendKind>() else { continue };
            let samples: Vec<(Workload, Sample)> = costs.samples.iter().filter_map(Measurement::sample).collect();
            router.adopt(kind, costs.model, &samples);
        }
    }

    /// Why it should not be kept, where it should not: the machine was too noisy, or the lines do not go through what
    /// was measured.
    #[must_use]
    pub fn unfit(&self) -> Option<String> {
        if self.backends.is_empty() {
            return Some("no backend could be measured".into());
        }
        self.noise.is_too_much().or_else(|| self.gap()).or_else(|| self.misfit())
    }

    /// Searches are what a router is there for: without them the rest is no calibration.
    fn gap(&self) -> Option<String> {
        let searches = |costs: &&Costs| costs.samples.iter().filter(|one| one.opcode == Opcode::Search as u16).count();
        let lacking = self.backends.iter().find(|costs| searches(costs) < LEAST_SEARCHES)?;
        let found = searches(&lacking);
        Some(format!(
            "{found} sizes of search were measured on {}, too few: others kept the machine busy",
            lacking.backend
        ))
    }

    fn misfit(&self) -> Option<String> {
        self.backends.iter().find_map(|costs| {
            let (class, error) = costs.typical_errors.iter().find(|(_, error)| *error > WORST_FIT)?;
            let percent = error * 100.0;
            Some(format!(
                "the times of class {class} on {} differ by {percent:.0} % from any line through them: the machine was too noisy",
                costs.backend
            ))
        })
    }

    /// Whether every number in it can be part of a time.
    fn is_sane(&self) -> bool {
        let sane = |costs: &Costs| {
            let samples =
                costs.samples.iter().all(|one| one.workload().is_some() && one.ns > 0.0 && one.ns < LONGEST_NS);
            costs.model.is_sane() && samples && costs.backend.parse::<BackendKind>().is_ok()
        };
        self.backends.iter().all(sane)
    }
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
