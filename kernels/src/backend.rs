//! The backend: a ring in memory that the device addresses too, the kernel that works on it, and the threads around it.
//!
//! Memory is laid out once, before the first launch, and the kernel's parameters never change after that. Whatever
//! needs device memory later goes through [`CudaBackend::interrupt`].

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use megaring_core::corpus::Columns;
use megaring_core::encode::keyword::Automaton;
use megaring_core::operation::{Reads, Served};
use megaring_core::{Backend, BackendKind, Capabilities, Error, Lacking};
use megaring_ring::{JobRing, RingConfig, RingLayout};

use crate::abi::{self, AutomatonView, Corpus, KernelParams, RingView};
use crate::counters::Counters;
use crate::device::{Device, DeviceError, DeviceInfo, DevicePtr};
use crate::driver::{self, Context, Gpu};
use crate::fatbin;
use crate::launch::Kernel;
use crate::liveness::{Monitor, Timings};
use crate::operations::serves;
use crate::poller::Poller;
use crate::probe::{self, Unavailable};
use crate::residency::Residency;

/// How the kernel is brought to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CudaMode {
    /// Launched once; it polls the ring. Lowest latency.
    #[default]
    Persistent,
    /// Launched by a thread for what is in the ring, each time there is something.
    Launch,
    /// As [`CudaMode::Launch`], the launch being replayed from a recorded graph.
    Graph,
}

impl CudaMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Persistent, Self::Launch, Self::Graph];

    /// The name used in configuration and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Launch => "launch",
            Self::Graph => "graph",
        }
    }
}

impl fmt::Display for CudaMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CudaMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || format!("unknown CUDA mode {name:?}: persistent, launch and graph are known");
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(unknown)
    }
}

/// What a search screens with. Answers are the same; speed and memory are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CudaScreen {
    /// The int8 codes: a quarter of the bytes.
    #[default]
    Int8,
    /// The float32 rows: hardly a row too many is left, however close together they lie. A corpus whose rows do not fit
    /// the device is screened by codes.
    Float32,
}

impl CudaScreen {
    /// Every screen.
    pub const ALL: [Self; 2] = [Self::Int8, Self::Float32];

    /// The name used in configuration and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Float32 => "float32",
        }
    }
}

impl fmt::Display for CudaScreen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CudaScreen {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || format!("unknown screen {name:?}: int8 and float32 are known");
        Self::ALL.into_iter().find(|screen| screen.name() == name).ok_or_else(unknown)
    }
}

/// How the backend is set up.
#[derive(Clone, Debug, Default)]
pub struct CudaOptions {
    /// How the kernel is brought to work.
    pub mode: CudaMode,
    /// The device's number, as the driver counts those that it shows.
    pub device: usize,
    /// Most device memory that corpora may take, in bytes; 0: three quarters of what is free.
    pub memory_bytes: usize,
    /// What searches screen with.
    pub screen: CudaScreen,
    /// The ring.
    pub ring: RingConfig,
}

/// Queries in one slot: enough for every multiprocessor, and few enough that the host copies and rescores others
/// meanwhile.
const MAX_QUERIES: usize = 2048;
const LEAST_QUERIES: usize = 64;
/// Scratch memory of one query in a search for few rows: some 7 KiB, and room to spare. In a slot whose queries do not
/// fit, every row is a candidate.
const QUERY_SCRATCH: usize = 16 << 10;
/// A slot's payload and result take at most an eighth of `max_bytes`, and the lists of a search take half as much again
/// in scratch memory as in the result. With this factor they fill three quarters of it.
const SLOT_TO_SCRATCH: usize = 4;
/// Most scratch memory of all jobs under way together, and least of one.
const MOST_SCRATCH: usize = 1 << 30;
const LEAST_AREA: usize = 16 << 20;
/// What a few bytes take that pass the kernel by, many times over.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(2);
/// When a caller may come again who found all memory pinned by others.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A running kernel with its threads.
pub struct CudaBackend {
    capabilities: Capabilities,
    device: Arc<dyn Device>,
    kernel: Arc<Kernel>,
    counters: Arc<Counters>,
    residency: Arc<Residency>,
    allocations: Vec<DevicePtr>,
    /// Of the first job; of no meaning between jobs.
    scratch: DevicePtr,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    monitor: Monitor,
    poller: Poller,
}

/// Starts the backend on a GPU of this machine, with a ring of its own. Where that cannot be it says so within moments.
///
/// # Errors
/// What is missing, and what would help.
pub fn start(options: &CudaOptions, automaton: &Automaton) -> Result<(CudaBackend, Arc<JobRing>), Unavailable> {
    let image = fatbin::image();
    let (facts, found) = driver::gather(options.device, image.err().map(str::to_owned));
    probe::check(&facts)?;
    let driver = facts.driver;
    let (Ok(image), Some((api, device)), Some(facts)) = (image, found, &facts.device) else {
        return Err(Unavailable::new("the NVIDIA driver tells too little of its device"));
    };
    let context = Context::new(api, device).map_err(Unavailable::new)?;
    let gpu = Gpu::open(context, facts, image).map_err(Unavailable::new)?;
    // A device that drives a display has a watchdog, which ends kernels that stay.
    let watched = facts.watched && options.mode == CudaMode::Persistent;
    let mode = if watched { CudaMode::Launch } else { options.mode };
    let gpu: Arc<dyn Device> = Arc::new(gpu);
    let start = |mode| start_on(gpu.clone(), &CudaOptions { mode, ..options.clone() }, &Timings::default(), automaton);
    let (mut backend, mut ring) = start(mode)?;
    if watched {
        backend.capabilities.device += " (it drives a display, so the kernel is launched for each batch)";
    } else if mode == CudaMode::Persistent && !backend.uploads_arrive() {
        drop(backend);
        (backend, ring) = start(CudaMode::Launch)?;
        backend.capabilities.device += " (uploads wait for the kernel's end here, so it is launched for each batch)";
    }
    if let Some(version) = driver {
        backend.capabilities.driver = format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
    }
    Ok((backend, ring))
}

/// Starts the backend on a device, with a ring of its own.
///
/// # Errors
/// What could not be had, in plain words.
pub fn start_on(
    device: Arc<dyn Device>,
    options: &CudaOptions,
    timings: &Timings,
    automaton: &Automaton,
) -> Result<(CudaBackend, Arc<JobRing>), Unavailable> {
    let layout = RingLayout::of(&options.ring).map_err(Unavailable::new)?;
    let memory = device.pinned(layout.len).map_err(Unavailable::new)?;
    let base = device.device_address(&memory);
    let ring = JobRing::with_memory(options.ring, memory, 0).map_err(Unavailable::new)?;
    let view = RingView::of(&layout, base, options.ring.block_bytes);
    let counters = Arc::new(Counters::default());
    let mut memory = DeviceMemory { device: &device, allocations: Vec::new(), bytes: 0 };
    let params = memory.lay_out(view, timings, automaton).map_err(Unavailable::new)?;
    let DeviceMemory { allocations, bytes, .. } = memory;
    let kernel = Arc::new(Kernel::new(device.clone(), ring.clone(), params, options.mode, *timings, counters.clone()));
    let budget = match options.memory_bytes {
        0 => device.info().memory_free.saturating_sub(bytes) / 4 * 3,
        given => given,
    };
    let residency = Residency::new(device.clone(), kernel.clone(), counters.clone(), params.corpora, budget);
    let residency = Arc::new(residency.map_err(Unavailable::new)?.screening(options.screen));
    let info = device.info();
    let capabilities = Capabilities {
        device: info.name.clone(),
        instruction_set: info.arch.clone(),
        driver: String::new(),
        lanes: params.workers as usize,
        operations: Served::by(serves),
        max_queries: (params.scratch_bytes as usize / QUERY_SCRATCH).clamp(LEAST_QUERIES, MAX_QUERIES),
        max_bytes: ring.max_job_bytes().min(params.scratch_bytes as usize * SLOT_TO_SCRATCH),
        max_item_bytes: ring.max_job_bytes(),
        // The twin is there to be tested in the place of a GPU.
        emulated: false,
    };
    let threads = Mutex::new(None);
    // From here on, dropping the backend ends what was begun.
    let scratch = params.scratch;
    let backend = CudaBackend { capabilities, device, kernel, counters, residency, allocations, scratch, threads };
    backend.begin(options)?;
    Ok((backend, ring))
}

impl CudaBackend {
    fn begin(&self, options: &CudaOptions) -> Result<(), Unavailable> {
        let refused = |error: std::io::Error| Unavailable::new(format_args!("the system refused a thread: {error}"));
        // The host's heartbeat is there before the kernel looks for it.
        let monitor = Monitor::start(self.kernel.clone()).map_err(refused)?;
        let begun = self.kernel.begin().map_err(Unavailable::new);
        let poller =
            begun.and_then(|()| Poller::start(self.kernel.clone(), options.mode, options.ring.wait).map_err(refused));
        match poller {
            Ok(poller) => {
                *self.threads.lock().unwrap_or_else(PoisonError::into_inner) = Some(Threads { monitor, poller });
                Ok(())
            }
            Err(reason) => {
                self.end_kernel();
                monitor.stop();
                Err(reason)
            }
        }
    }

    /// Whether an upload is through while the kernel runs. Where all streams are one queue of the device, as
    /// `CUDA_DEVICE_MAX_CONNECTIONS=1` makes them, none is until the kernel ends. No job was submitted yet.
    fn uploads_arrive(&self) -> bool {
        let (told, through) = mpsc::channel();
        let (device, scratch) = (self.device.clone(), self.scratch);
        let upload = std::thread::Builder::new().name("megaring-cuda-try".into());
        // Where it waits, it ends with the kernel. Nobody reads scratch memory without a job.
        let begun = upload.spawn(move || told.send(device.upload(scratch, &[0; 256]).is_ok()));
        begun.is_ok() && through.recv_timeout(UPLOAD_PATIENCE).unwrap_or(false)
    }

    /// Runs `work` while no kernel runs, so that it may allocate and free memory of the device, then puts the kernel
    /// back to work. Jobs submitted meanwhile wait in the ring. Blocks until the jobs that the kernel has taken are
    /// done, so none of them may need the caller.
    ///
    /// # Errors
    /// When the backend is out of service, or falls out of it meanwhile; `work` did not run then.
    pub fn interrupt<T>(&self, work: impl FnOnce() -> T) -> Result<T, DeviceError> {
        self.kernel.interrupt(work)
    }

    /// Ends the kernel. One that cannot be ended may go on writing to its memory, which is therefore never given back.
    fn end_kernel(&self) {
        if !self.kernel.shut_down() {
            tracing::error!("the kernel could not be ended; its memory is left to it");
            std::mem::forget((self.device.clone(), self.kernel.clone(), self.residency.clone()));
        }
    }
}

impl Backend for CudaBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Cuda
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, reads: Option<Reads<'_>>) -> Result<megaring_core::Residency, Error> {
        let kind = self.kind();
        self.kernel.health().map_err(|reason| Error::BackendUnavailable { kind, reason })?;
        let Some(reads) = reads else { return Ok(megaring_core::Residency::default()) };
        let guard = self.residency.prepare(reads).map_err(|refusal| refusal.into_error(RETRY_AFTER))?;
        let finds_rows = guard.finds_rows();
        Ok(megaring_core::Residency { guard: Some(Box::new(guard)), finds_rows })
    }

    fn lacking(&self, reads: Reads<'_>) -> Lacking {
        self.residency.lacking(reads)
    }

    fn upload_bytes(&self, columns: Columns, rows: u64, dim: u64) -> u64 {
        self.residency.upload_bytes(columns, rows as usize, dim as usize)
    }

    fn health(&self) -> Result<(), String> {
        self.kernel.health()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.list()
    }

    fn shutdown(&self) {
        // Held until all is over: a second caller waits for the first.
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Threads { monitor, poller }) = threads.take() {
            self.end_kernel();
            self.residency.close();
            poller.stop();
            monitor.stop();
        }
    }
}

impl Drop for CudaBackend {
    fn drop(&mut self) {
        self.shutdown();
        self.residency.close();
        if self.kernel.is_over() {
            for at in self.allocations.drain(..).chain(self.residency.chunks()) {
                // SAFETY: the address is of `alloc`, is freed here alone, and no kernel that could use it runs or will.
                // Nothing is uploaded either: residency refuses all jobs since it was closed.
                unsafe { self.device.free(at) };
            }
        }
    }
}

/// What the kernel needs in device memory beside corpora, as it is allocated.
struct DeviceMemory<'a> {
    device: &'a Arc<dyn Device>,
    allocations: Vec<DevicePtr>,
    bytes: usize,
}

impl DeviceMemory<'_> {
    fn lay_out(
        &mut self,
        ring: RingView,
        timings: &Timings,
        automaton: &Automaton,
    ) -> Result<KernelParams, DeviceError> {
        let info = self.device.info().clone();
        let automaton = self.automaton(automaton)?;
        let area = scratch_area(&info);
        Ok(KernelParams {
            ring,
            corpora: self.alloc(size_of::<Corpus>() * (abi::CORPORA_MASK as usize + 1))?,
            corpora_mask: abi::CORPORA_MASK,
            automaton,
            jobs: self.alloc(abi::JOB_RECORD_BYTES * abi::JOB_SLOTS as usize)?,
            state: self.alloc(abi::STATE_BYTES)?,
            scratch: self.alloc(area * abi::JOB_SLOTS as usize)?,
            scratch_bytes: area as u64,
            job_slots: abi::JOB_SLOTS,
            workers: info.blocks - 1,
            shared_bytes: info.shared_bytes,
            reserved: 0,
            budget_ns: timings.budget.as_nanos() as u64,
            host_timeout_ns: timings.host_silence.as_nanos() as u64,
        })
    }

    fn automaton(&mut self, automaton: &Automaton) -> Result<AutomatonView, DeviceError> {
        let accept: Vec<u64> = automaton.accept().iter().flat_map(|mask| [*mask as u64, (mask >> 64) as u64]).collect();
        Ok(AutomatonView {
            next: self.filled(bytemuck::cast_slice(automaton.next()))?,
            class_of: self.filled(automaton.class_of())?,
            accept: self.filled(bytemuck::cast_slice(&accept))?,
            states: automaton.states() as u32,
            shift: automaton.shift(),
            first_accepting: u32::from(automaton.first_accepting()),
            warm_up: automaton.warm_up() as u32,
        })
    }

    fn filled(&mut self, bytes: &[u8]) -> Result<DevicePtr, DeviceError> {
        let at = self.alloc(bytes.len().max(1))?;
        self.device.upload(at, bytes)?;
        Ok(at)
    }

    fn alloc(&mut self, bytes: usize) -> Result<DevicePtr, DeviceError> {
        let at = self.device.alloc(bytes)?;
        self.bytes += bytes;
        self.allocations.push(at);
        Ok(at)
    }
}

/// Bytes of scratch memory for one job.
fn scratch_area(info: &DeviceInfo) -> usize {
    let slots = abi::JOB_SLOTS as usize;
    let all = (info.memory_total / 16).min(MOST_SCRATCH);
    let least = LEAST_AREA.min(info.memory_free / 4 / slots);
    (all / slots).max(least) / 256 * 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_grows_with_the_device_within_bounds() {
        let area = |total: usize, free: usize| {
            scratch_area(&DeviceInfo {
                name: String::new(),
                arch: String::new(),
                multiprocessors: 1,
                blocks: 2,
                memory_total: total,
                memory_free: free,
                shared_bytes: 0,
            })
        };
        assert_eq!(area(141 << 30, 140 << 30), 128 << 20, "a gibibyte in all");
        assert_eq!(area(8 << 30, 7 << 30), 64 << 20, "a sixteenth");
        assert_eq!(area(1 << 30, 1 << 30), 16 << 20, "at least this each");
        assert_eq!(area(1 << 30, 256 << 20), 8 << 20, "or a quarter of what is free");
    }

    #[test]
    fn modes_have_names() {
        for mode in CudaMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("fast".parse::<CudaMode>().is_err_and(|error| error.contains("graph")));
    }
}
