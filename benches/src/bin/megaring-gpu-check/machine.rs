//! The GPU, or what stands in for it, and the ways to have a backend at work on it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use megaring::Setup;
use megaring_bench::Failure;
use megaring_bench::any::Job;
use megaring_bench::cases::Subject;
use megaring_core::corpus::CorpusTable;
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::{Backend, BackendKind, Residency};
use megaring_corpus::{Access, Store};
use megaring_cuda::{CudaMode, CudaOptions};
use megaring_engine::Running;
use megaring_ring::{RingConfig, WaitStrategy};
use megaring_wgpu::WgpuOptions;

/// Where the kernel runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// On the kernel's twin, or on an adapter that may be software.
    pub(crate) rehearsal: bool,
    /// The GPU's number.
    pub(crate) device: usize,
}

/// How a GPU is brought to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By CUDA, in one of its modes.
    Cuda(CudaMode),
    /// By wgpu, through whatever the machine has of Vulkan.
    Wgpu,
}

impl Way {
    /// Its name on the command line and in what is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cuda(mode) => mode.name(),
            Self::Wgpu => "wgpu",
        }
    }

    /// The kind of backend.
    pub(crate) fn kind(self) -> BackendKind {
        match self {
            Self::Cuda(_) => BackendKind::Cuda,
            Self::Wgpu => BackendKind::Wgpu,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = |_: String| format!("unknown mode {name:?}: persistent, launch, graph and wgpu are known");
        if name == "wgpu" { Ok(Self::Wgpu) } else { name.parse().map(Self::Cuda).map_err(unknown) }
    }
}

/// How the backend is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) way: Way,
    pub(crate) ring: RingConfig,
    /// Most device memory for corpora; 0 is the backend's own choice.
    pub(crate) memory_bytes: usize,
}

impl Wanted {
    /// The service's own ring.
    pub(crate) fn usual(way: Way) -> Self {
        let ring = RingConfig { capacity: 256, ..RingConfig::default() };
        Self { way, ring, memory_bytes: 0 }
    }

    /// For one thread that waits for nothing else: spins, so that no wake-up is in the time measured.
    pub(crate) fn spinning(way: Way) -> Self {
        let usual = Self::usual(way);
        Self { ring: RingConfig { wait: WaitStrategy::BusySpin, ..usual.ring }, ..usual }
    }
}

impl Machine {
    /// A count for the GPU, or a small one for the twin.
    pub(crate) fn sized<T>(self, real: T, rehearsed: T) -> T {
        if self.rehearsal { rehearsed } else { real }
    }

    /// The backend with its ring; `corpora` are those that its slots may name.
    pub(crate) fn start(self, wanted: &Wanted, corpora: &Arc<CorpusTable>) -> Result<Running, Failure> {
        let Wanted { way, ring, memory_bytes } = *wanted;
        let automaton = Automaton::new(&profile()?);
        match way {
            Way::Cuda(mode) => {
                let options = CudaOptions { mode, device: self.device, memory_bytes, ring, screen: Default::default() };
                if self.rehearsal {
                    return on_twin(&options, &automaton);
                }
                let (backend, ring) = megaring_cuda::start(&options, &automaton)?;
                Ok((Box::new(backend), ring))
            }
            Way::Wgpu => {
                // Every adapter's name holds the empty one, software's too.
                let adapter = self.rehearsal.then(String::new);
                let options = WgpuOptions { adapter, memory_bytes, ring, ..WgpuOptions::default() };
                let (backend, ring) = megaring_wgpu::start(&options, corpora.clone(), &automaton)?;
                Ok((Box::new(backend), ring))
            }
        }
    }

    /// An engine with the backend beside the CPU's.
    pub(crate) fn subject(self, wanted: &Wanted, store: &Arc<Store>) -> Result<Subject, Failure> {
        let running = self.start(wanted, store.table())?;
        let config = Setup { ring_slots: 256, cuda: None, wgpu: None, ..Setup::new(profile()?) };
        let engine = config.start_with(store.clone(), vec![running])?;
        Ok(Subject::new(engine, wanted.way.kind(), wanted.way.name()))
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

/// Holds a job's corpus where the backend finds it.
pub(crate) fn prepared(backend: &dyn Backend, job: &Job) -> Result<Residency, Failure> {
    Ok(backend.prepare(job.operation().reads())?)
}

/// The twin takes its time, and shares processors with everything else.
#[cfg(feature = "rehearsal")]
fn on_twin(options: &CudaOptions, automaton: &Automaton) -> Result<Running, Failure> {
    let (twin, timings) = (megaring_cuda::twin::Twin::load()?, megaring_cuda::Timings::patient());
    let (backend, ring) = megaring_cuda::start_on(twin, options, &timings, automaton)?;
    Ok((Box::new(backend), ring))
}

#[cfg(not(feature = "rehearsal"))]
fn on_twin(_: &CudaOptions, _: &Automaton) -> Result<Running, Failure> {
    Err("this build cannot rehearse: it was made without `--features rehearsal`".into())
}
