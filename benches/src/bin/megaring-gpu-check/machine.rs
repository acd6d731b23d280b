//! The GPU, or the kernel's twin that stands in for it, and the ways to have the backend at work on it.

use std::sync::Arc;

use megaring::engine::{Engine, EngineConfig};
use megaring::outcome::{Answer, Outcome};
use megaring_bench::Failure;
use megaring_core::job::{Job, Terms};
use megaring_core::keyword::Automaton;
use megaring_core::profile::{DEFAULT, Profile};
use megaring_core::{BackendKind, Residency};
use megaring_corpus::{Access, Store};
use megaring_cuda::{CudaBackend, CudaMode, CudaOptions};
use megaring_ring::{JobRing, RingConfig, WaitStrategy};

/// Where the kernel runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// On the twin.
    pub(crate) rehearsal: bool,
    /// The GPU's number.
    pub(crate) device: usize,
}

/// How the backend is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) mode: CudaMode,
    pub(crate) ring: RingConfig,
    /// Most device memory for corpora; 0 is the backend's own choice.
    pub(crate) memory_bytes: usize,
}

impl Wanted {
    /// The service's own ring, in some mode.
    pub(crate) fn usual(mode: CudaMode) -> Self {
        let ring = RingConfig { capacity: 256, ..RingConfig::default() };
        Self { mode, ring, memory_bytes: 0 }
    }

    /// For one thread that waits for nothing else: spins, so that no wake-up is in the time measured.
    pub(crate) fn spinning(mode: CudaMode) -> Self {
        let usual = Self::usual(mode);
        Self { ring: RingConfig { wait: WaitStrategy::BusySpin, ..usual.ring }, ..usual }
    }
}

impl Machine {
    /// A count for the GPU, or a small one for the twin.
    pub(crate) fn sized<T>(self, real: T, rehearsed: T) -> T {
        if self.rehearsal { rehearsed } else { real }
    }

    /// The backend with its ring.
    pub(crate) fn start(self, wanted: &Wanted) -> Result<(CudaBackend, Arc<JobRing>), Failure> {
        let Wanted { mode, ring, memory_bytes } = *wanted;
        let options = CudaOptions { mode, device: self.device, memory_bytes, ring, screen: Default::default() };
        let automaton = Automaton::new(&profile()?);
        if self.rehearsal { on_twin(&options, &automaton) } else { Ok(megaring_cuda::start(&options, &automaton)?) }
    }

    /// An engine with the backend beside the CPU's, over a store of its own without corpora.
    pub(crate) fn engine(self, wanted: &Wanted, store: &Arc<Store>) -> Result<Arc<Engine>, Failure> {
        let (backend, ring) = self.start(wanted)?;
        let config = EngineConfig { ring_slots: 256, cuda: None, ..EngineConfig::new(profile()?) };
        Ok(Engine::start_with(config, store.clone(), vec![(Box::new(backend), ring)])?)
    }
}

/// The profile that everybody uses.
pub(crate) fn profile() -> Result<Profile, Failure> {
    Ok(Profile::parse(DEFAULT)?)
}

/// A folder for a store, gone with it, and the store.
pub(crate) fn store() -> Result<(tempfile::TempDir, Arc<Store>), Failure> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), Access::Exclusive)?;
    Ok((folder, store))
}

/// Does a job on one backend and no other.
pub(crate) fn run_on(engine: &Arc<Engine>, kind: BackendKind, job: Job) -> Result<Outcome, Failure> {
    let outcome = engine.run_blocking(job, Terms { backend: Some(kind), ..Terms::default() })?;
    if outcome.made.backend != kind || !outcome.made.exact {
        return Err(format!("{} did it, exact: {}", outcome.made.backend, outcome.made.exact).into());
    }
    Ok(outcome)
}

/// [`run_on`], the answer alone.
pub(crate) fn answer_of(engine: &Arc<Engine>, kind: BackendKind, job: Job) -> Result<Answer, Failure> {
    run_on(engine, kind, job).map(|outcome| outcome.answer)
}

/// Holds a job's corpus where the backend finds it.
pub(crate) fn prepared(backend: &CudaBackend, job: &Job) -> Result<Residency, Failure> {
    use megaring_core::Backend as _;
    Ok(backend.prepare(job)?)
}

/// The twin takes its time, and shares processors with everything else.
#[cfg(feature = "rehearsal")]
fn on_twin(options: &CudaOptions, automaton: &Automaton) -> Result<(CudaBackend, Arc<JobRing>), Failure> {
    let long = std::time::Duration::from_secs(300);
    let timings = megaring_cuda::Timings {
        silence: long,
        host_silence: long,
        start: long,
        stop: long,
        budget: long,
        ..megaring_cuda::Timings::default()
    };
    Ok(megaring_cuda::start_with(megaring_cuda::twin::Twin::load()?, options, &timings, automaton)?)
}

#[cfg(not(feature = "rehearsal"))]
fn on_twin(_: &CudaOptions, _: &Automaton) -> Result<(CudaBackend, Arc<JobRing>), Failure> {
    Err("this build cannot rehearse: it was made without `--features rehearsal`".into())
}
