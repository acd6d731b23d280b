//! The engine: steps 3 to 8 of a request, in order, for callers of the gRPC API and for programs that link the library.
//!
//! [`Engine::run`] awaits, [`Engine::run_blocking`] blocks the calling thread (and is the faster of the two for one small job, since
//! no second thread has to wake it). Both keep up to [`DEPTH`] slots of a job under way, so a backend works while the last slot's
//! answer is made exact. Dropping the future of `run` gives everything back as the slots under way complete. A backend that fails a job
//! costs the caller time, not the answer: see `flight.rs`.

use std::sync::Arc;
use std::time::Duration;

use megaring_core::job::{Job, Terms};
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::Profile;
use megaring_core::{Backend, BackendKind, BackendStatus, Error};
use megaring_corpus::Store;
use megaring_cuda::{CudaMode, CudaOptions, CudaScreen};
use megaring_ring::{JobRing, RingConfig, WaitStrategy};
use megaring_simd::KernelSet;
use megaring_simd::backend::{CpuBackend, CpuOptions};
use megaring_wgpu::WgpuOptions;

use self::batch::{Place, Seat};
use self::flight::Flight;
use crate::admission::{Admission, Limits};
use crate::gather::Gatherer;
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::router::{Router, Routing};
use crate::submit::DEPTH;
use crate::telemetry::Telemetry;

mod batch;
mod flight;

/// How an engine is set up. [`EngineConfig::new`] suits a machine that megaring shares with other programs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// CPU worker threads; 0 is one for each processor this process may use.
    pub cpu_workers: usize,
    /// How idle workers and blocked callers wait.
    pub wait: WaitStrategy,
    /// Submission slots of each ring, a power of two.
    pub ring_slots: usize,
    /// Bytes of each ring's arena. Touched only as far as it is used.
    pub arena_bytes: usize,
    /// Jobs of one tenant that may be in flight; 0 is no limit of its own.
    pub tenant_jobs: usize,
    /// Most that a small search waits for others like it, where the model says that one batch of them is sooner done; zero is never. Of
    /// [`Engine::run`] alone.
    pub gather: Duration,
    /// The encoder's profile.
    pub profile: Profile,
    /// The instruction set to use, by name; `None` is `MEGARING_ISA` or the best there is.
    pub isa: Option<String>,
    /// The CUDA backend, which is started where this machine has what it needs; `None` leaves it out.
    pub cuda: Option<CudaConfig>,
    /// The wgpu backend, which is started where this machine has what it needs and CUDA does not run already; `None` leaves it out.
    pub wgpu: Option<WgpuConfig>,
    /// How the router goes about choosing a backend.
    pub routing: Routing,
    /// A file for the event ring, so that other processes can follow; `None` keeps it in memory.
    pub events_file: Option<std::path::PathBuf>,
}

impl EngineConfig {
    /// The defaults, with a profile.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            cpu_workers: 0,
            wait: WaitStrategy::default(),
            ring_slots: 256,
            arena_bytes: 256 << 20,
            tenant_jobs: 0,
            gather: Duration::from_micros(200),
            profile,
            isa: None,
            cuda: Some(CudaConfig::default()),
            wgpu: Some(WgpuConfig::default()),
            routing: Routing::default(),
            events_file: None,
        }
    }

    /// What of it changes how long jobs take, beside the instruction set and the number of workers.
    fn setup(&self) -> String {
        let cuda = self.cuda.map(|cuda| format!(", cuda {} {}", cuda.mode, cuda.screen)).unwrap_or_default();
        format!("wait {}{cuda}", self.wait)
    }

    fn ring(&self) -> RingConfig {
        let Self { ring_slots: capacity, arena_bytes, wait, .. } = *self;
        RingConfig { capacity, arena_bytes, block_bytes: BLOCK_BYTES, wait }
    }
}

/// How the CUDA backend is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CudaConfig {
    /// How the kernel is brought to work.
    pub mode: CudaMode,
    /// The device's number.
    pub device: usize,
    /// Most bytes of device memory for corpora; 0 is three quarters of what is free.
    pub memory_bytes: usize,
    /// What searches screen with.
    pub screen: CudaScreen,
}

/// How the wgpu backend is set up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WgpuConfig {
    /// A part of the adapter's name, in any case. One that is software is used only where it is named, and so is any beside CUDA, since
    /// it may well be the same GPU; `None` is the best of the others.
    pub adapter: Option<String>,
    /// Most bytes of device memory for corpora; 0 is the backend's own choice.
    pub memory_bytes: usize,
}

/// A backend that consumes a ring, and the ring.
pub type Running = (Box<dyn Backend>, Arc<JobRing>);

/// A running engine.
pub struct Engine {
    store: Arc<Store>,
    profile: Arc<Profile>,
    kernels: &'static KernelSet,
    router: Router,
    admission: Arc<Admission>,
    gatherer: Option<Gatherer<Seat>>,
    setup: String,
    metrics: Metrics,
    telemetry: Telemetry,
}

/// Bytes of an arena's block.
const BLOCK_BYTES: usize = 64 << 10;

impl Engine {
    /// Starts the backends of this build over a store.
    ///
    /// # Errors
    /// An instruction set that is unknown or not there, a ring size that is not a power of two, or a system that refuses memory or threads.
    pub fn start(config: EngineConfig, store: Arc<Store>) -> Result<Arc<Self>, Error> {
        Self::start_with(config, store, Vec::new())
    }

    /// [`Self::start`] with further backends. One of a GPU's kind takes the place of this build's own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(config: EngineConfig, store: Arc<Store>, extra: Vec<Running>) -> Result<Arc<Self>, Error> {
        let kernels = match &config.isa {
            Some(name) => KernelSet::named(name),
            None => KernelSet::from_env(),
        }
        .map_err(|error| Error::field("isa", error.to_string()))?;
        let telemetry = Telemetry::new(config.events_file.as_deref())?;
        let automaton = Automaton::new(&config.profile);
        let mut lanes = vec![cpu_lane(&config, &store, kernels, &automaton)?];
        for (backend, ring) in extra {
            lanes.push(lane(backend, ring)?);
        }
        let absent = add_gpus(&config, &store, &automaton, &mut lanes)?;
        let admission = Admission::new(limits(&config, &lanes));
        let router = Router::new(lanes, absent, config.routing);
        let gatherer = (!config.gather.is_zero()).then(|| Gatherer::new(config.gather));
        let setup = config.setup();
        let profile = Arc::new(config.profile);
        let metrics = Metrics::default();
        Ok(Arc::new(Self { store, profile, kernels, router, admission, gatherer, setup, metrics, telemetry }))
    }

    /// The corpora.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The encoder's profile.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What chooses a backend.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Settings that change how long jobs take.
    #[must_use]
    pub fn setup(&self) -> &str {
        &self.setup
    }

    /// The gate: what is in flight.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Counters since the start.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The event ring that jobs are reported to.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Every kind of backend with its state.
    #[must_use]
    pub fn backends(&self) -> Vec<(BackendKind, BackendStatus)> {
        let running = self.router.lanes().iter().map(|lane| {
            let status = match lane.fault() {
                None => BackendStatus::Available(lane.capabilities().clone()),
                Some(reason) => BackendStatus::Unavailable { reason: format!("out of service: {reason}") },
            };
            (lane.kind(), status)
        });
        let absent = self.router.absent().iter();
        let absent = absent.map(|(kind, reason)| (*kind, BackendStatus::Unavailable { reason: reason.clone() }));
        running.chain(absent).collect()
    }

    /// What each backend has counted since its start, where it counts anything.
    #[must_use]
    pub fn counters(&self) -> Vec<(BackendKind, Vec<(&'static str, u64)>)> {
        let counters = self.router.lanes().iter().map(|lane| (lane.kind(), lane.backend().counters()));
        counters.filter(|(_, counters)| !counters.is_empty()).collect()
    }

    /// Slots of all rings that wait for their completion, whether or not somebody still wants the answer.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.router.lanes().iter().map(|lane| lane.ring().outstanding()).sum()
    }

    /// Refuses new jobs and waits until those in flight are answered.
    pub async fn drain(&self) {
        self.admission.close();
        self.admission.emptied().await;
    }

    /// Does a job. Await it within a tokio runtime with time enabled. Small searches that come while others like them are under way may be done
    /// as one batch with others' (see `gather.rs`); each is answered as if it were alone.
    ///
    /// # Errors
    /// Refusals of admission and routing, the deadline, or a backend's failure. Nothing half-done is kept.
    pub async fn run(self: &Arc<Self>, job: Job, terms: Terms) -> Result<Outcome, Error> {
        let mut flight = Flight::start(self.clone(), job, terms)?;
        match flight.board() {
            Place::Own(under_way) => Ok(flight.fly(under_way).await?.land()),
            Place::Shared(share) => flight.ride(share).await,
        }
    }

    /// Does a job on the calling thread's time.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_blocking(self: &Arc<Self>, job: Job, terms: Terms) -> Result<Outcome, Error> {
        let mut flight = Flight::start(self.clone(), job, terms)?;
        while !flight.is_done() {
            match flight.wait_answer() {
                Ok(Some((piece, outcome))) => flight.finish(&piece, &outcome)?,
                Ok(None) => {}
                Err(setback) => flight.divert(setback)?,
            }
        }
        Ok(flight.land())
    }

    fn lane(&self, index: usize) -> &Lane {
        &self.router.lanes()[index]
    }
}

fn cpu_lane(
    config: &EngineConfig,
    store: &Arc<Store>,
    kernels: &'static KernelSet,
    automaton: &Automaton,
) -> Result<Lane, Error> {
    let ring = JobRing::new(config.ring()).map_err(|error| Error::field("ring_slots", error.to_string()))?;
    let workers = match config.cpu_workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let options = CpuOptions { workers, wait: config.wait, device: crate::machine::processor_name() };
    let backend = CpuBackend::start(options, ring.clone(), kernels, store.table().clone(), automaton)
        .map_err(|error| Error::Internal(error.to_string()))?;
    lane(Box::new(backend), ring)
}

/// Starts the GPUs' backends whose kinds have no lane yet; answers which did not start, and why.
fn add_gpus(
    config: &EngineConfig,
    store: &Arc<Store>,
    automaton: &Automaton,
    lanes: &mut Vec<Lane>,
) -> Result<Vec<(BackendKind, String)>, Error> {
    let runs = |kind, lanes: &[Lane]| lanes.iter().any(|lane| lane.kind() == kind);
    let mut absent = Vec::new();
    let mut add = |kind, started: Result<Running, String>, lanes: &mut Vec<Lane>| match started {
        Ok((backend, ring)) => lane(backend, ring).map(|lane| lanes.push(lane)),
        Err(reason) => {
            absent.push((kind, reason));
            Ok(())
        }
    };
    if !runs(BackendKind::Cuda, lanes) {
        add(BackendKind::Cuda, start_cuda(config, automaton), lanes)?;
    }
    if !runs(BackendKind::Wgpu, lanes) {
        let beside_cuda = runs(BackendKind::Cuda, lanes);
        add(BackendKind::Wgpu, start_wgpu(config, store, automaton, beside_cuda), lanes)?;
    }
    Ok(absent)
}

/// The CUDA backend with its ring, or why there is none.
fn start_cuda(config: &EngineConfig, automaton: &Automaton) -> Result<Running, String> {
    let Some(CudaConfig { mode, device, memory_bytes, screen }) = config.cuda else {
        return Err("it is switched off by the settings (--cuda off)".into());
    };
    let options = CudaOptions { mode, device, memory_bytes, ring: config.ring(), screen };
    let (backend, ring) = megaring_cuda::start(&options, automaton).map_err(|unavailable| unavailable.reason)?;
    Ok((Box::new(backend), ring))
}

/// The wgpu backend with its ring, or why there is none.
fn start_wgpu(
    config: &EngineConfig,
    store: &Arc<Store>,
    automaton: &Automaton,
    beside_cuda: bool,
) -> Result<Running, String> {
    let Some(WgpuConfig { adapter, memory_bytes }) = &config.wgpu else {
        return Err("it is switched off by the settings (--wgpu off)".into());
    };
    if beside_cuda && adapter.is_none() {
        return Err("CUDA has the GPU already (--wgpu-adapter names an adapter to use beside it)".into());
    }
    let options = WgpuOptions {
        adapter: adapter.clone(),
        memory_bytes: *memory_bytes,
        ring: config.ring(),
        ..WgpuOptions::default()
    };
    let (backend, ring) =
        megaring_wgpu::start(&options, store.table().clone(), automaton).map_err(|unavailable| unavailable.reason)?;
    Ok((Box::new(backend), ring))
}

fn lane(backend: Box<dyn Backend>, ring: Arc<JobRing>) -> Result<Lane, Error> {
    Lane::new(backend, ring).map_err(|error| Error::Internal(format!("the system refused a thread: {error}")))
}

/// What may be in flight: as much as the smallest ring takes, since any job may end up on any lane.
fn limits(config: &EngineConfig, lanes: &[Lane]) -> Limits {
    let slots = lanes.iter().map(|lane| lane.ring().capacity()).min().unwrap_or(config.ring_slots);
    let bytes = lanes.iter().map(|lane| lane.ring().arena().len()).min().unwrap_or(config.arena_bytes);
    Limits {
        jobs: (slots / DEPTH).max(1),
        tenant_jobs: if config.tenant_jobs == 0 { usize::MAX } else { config.tenant_jobs },
        bytes: bytes / 4 * 3,
    }
}
