//! The backends of this build, started over a store and handed to the engine.

use std::sync::Arc;

use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::Profile;
use megaring_core::{BackendKind, Error};
use megaring_corpus::Store;
use megaring_cuda::{CudaMode, CudaOptions, CudaScreen};
use megaring_engine::{Backends, Engine, EngineConfig, Running, machine};
use megaring_ring::{JobRing, RingConfig, WaitStrategy};
use megaring_simd::KernelSet;
use megaring_simd::backend::{CpuBackend, CpuOptions};
use megaring_wgpu::WgpuOptions;

/// How the backends are set up. [`Setup::new`] suits a machine that megaring shares with other programs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// CPU worker threads; 0 is one for each processor this process may use.
    pub cpu_workers: usize,
    /// How idle workers and blocked callers wait.
    pub wait: WaitStrategy,
    /// Submission slots of each ring, a power of two.
    pub ring_slots: usize,
    /// Bytes of each ring's arena. Touched only as far as it is used.
    pub arena_bytes: usize,
    /// The instruction set to use, by name; `None` is `MEGARING_ISA` or the best there is.
    pub isa: Option<String>,
    /// The CUDA backend, which is started where this machine has what it needs; `None` leaves it out.
    pub cuda: Option<CudaConfig>,
    /// The wgpu backend, which is started where this machine has what it needs and CUDA does not run already; `None`
    /// leaves it out.
    pub wgpu: Option<WgpuConfig>,
    /// The engine before them. What it says of their settings ([`EngineConfig::setup`]) is filled in here.
    pub engine: EngineConfig,
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
    /// A part of the adapter's name, in any case. One that is software is used only where it is named, and so is any
    /// beside CUDA, since it may well be the same GPU; `None` is the best of the others.
    pub adapter: Option<String>,
    /// Most bytes of device memory for corpora; 0 is the backend's own choice.
    pub memory_bytes: usize,
}

/// Bytes of an arena's block.
const BLOCK_BYTES: usize = 64 << 10;

impl Setup {
    /// The defaults, with a profile.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            cpu_workers: 0,
            wait: WaitStrategy::default(),
            ring_slots: 256,
            arena_bytes: 256 << 20,
            isa: None,
            cuda: Some(CudaConfig::default()),
            wgpu: Some(WgpuConfig::default()),
            engine: EngineConfig::new(profile),
        }
    }

    /// Starts the backends of this build, and the engine before them.
    ///
    /// # Errors
    /// An instruction set that is unknown or not there, a ring size that is not a power of two, or a system that
    /// refuses memory or threads.
    pub fn start(self, store: Arc<Store>) -> Result<Arc<Engine>, Error> {
        self.start_with(store, Vec::new())
    }

    /// [`Self::start`] with further backends. One of a GPU's kind takes the place of this build's own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(self, store: Arc<Store>, extra: Vec<Running>) -> Result<Arc<Engine>, Error> {
        let kernels = match &self.isa {
            Some(name) => KernelSet::named(name),
            None => KernelSet::from_env(),
        }
        .map_err(|error| Error::field("isa", error.to_string()))?;
        let automaton = Automaton::new(&self.engine.profile);
        let mut backends = Backends { running: Vec::new(), absent: Vec::new(), kernel: kernels };
        backends.running.push(self.start_cpu(&store, kernels, &automaton)?);
        backends.running.extend(extra);
        self.add(&mut backends, BackendKind::Cuda, |_| self.start_cuda(&automaton));
        self.add(&mut backends, BackendKind::Wgpu, |beside_cuda| self.start_wgpu(&store, &automaton, beside_cuda));
        let setup = self.words();
        Engine::start(EngineConfig { setup, ..self.engine }, store, backends)
    }

    /// What of it changes how long jobs take, beside the instruction set and the number of workers.
    fn words(&self) -> String {
        let cuda = self.cuda.map(|cuda| format!(", cuda {} {}", cuda.mode, cuda.screen)).unwrap_or_default();
        format!("wait {}{cuda}", self.wait)
    }

    fn ring(&self) -> RingConfig {
        let Self { ring_slots: capacity, arena_bytes, wait, .. } = *self;
        RingConfig { capacity, arena_bytes, block_bytes: BLOCK_BYTES, wait }
    }

    /// Starts a GPU's backend whose kind does not run yet, or notes why not. `start` is told whether CUDA runs.
    fn add(&self, backends: &mut Backends, kind: BackendKind, start: impl FnOnce(bool) -> Result<Running, String>) {
        let runs = |kind| backends.running.iter().any(|(backend, _)| backend.kind() == kind);
        if runs(kind) {
            return;
        }
        match start(runs(BackendKind::Cuda)) {
            Ok(running) => backends.running.push(running),
            Err(reason) => backends.absent.push((kind, reason)),
        }
    }

    fn start_cpu(
        &self,
        store: &Arc<Store>,
        kernels: &'static KernelSet,
        automaton: &Automaton,
    ) -> Result<Running, Error> {
        let ring = JobRing::new(self.ring()).map_err(|error| Error::field("ring_slots", error.to_string()))?;
        let workers = match self.cpu_workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let options = CpuOptions { workers, wait: self.wait, device: machine::processor_name() };
        let backend = CpuBackend::start(options, ring.clone(), kernels, store.table().clone(), automaton)
            .map_err(|error| Error::Internal(error.to_string()))?;
        Ok((Box::new(backend), ring))
    }

    fn start_cuda(&self, automaton: &Automaton) -> Result<Running, String> {
        let Some(CudaConfig { mode, device, memory_bytes, screen }) = self.cuda else {
            return Err("it is switched off by the settings (--cuda off)".into());
        };
        let options = CudaOptions { mode, device, memory_bytes, ring: self.ring(), screen };
        let (backend, ring) = megaring_cuda::start(&options, automaton).map_err(|unavailable| unavailable.reason)?;
        Ok((Box::new(backend), ring))
    }

    fn start_wgpu(&self, store: &Arc<Store>, automaton: &Automaton, beside_cuda: bool) -> Result<Running, String> {
        let Some(WgpuConfig { adapter, memory_bytes }) = &self.wgpu else {
            return Err("it is switched off by the settings (--wgpu off)".into());
        };
        if beside_cuda && adapter.is_none() {
            return Err("CUDA has the GPU already (--wgpu-adapter names an adapter to use beside it)".into());
        }
        let options = WgpuOptions {
            adapter: adapter.clone(),
            memory_bytes: *memory_bytes,
            ring: self.ring(),
            ..WgpuOptions::default()
        };
        let (backend, ring) = megaring_wgpu::start(&options, store.table().clone(), automaton)
            .map_err(|unavailable| unavailable.reason)?;
        Ok((Box::new(backend), ring))
    }
}
