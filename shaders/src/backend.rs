//! The backend: a ring, the dispatcher that consumes it, and what brings corpora to the device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use megaring_core::corpus::{Columns, CorpusTable};
use megaring_core::encode::keyword::Automaton;
use megaring_core::operation::{Reads, Served};
use megaring_core::{Backend, BackendKind, Capabilities, Error, Lacking, Residency};
use megaring_ring::{JobRing, RingConfig};

use crate::Unavailable;
use crate::cut::Pair;
use crate::dispatch::{Device, Dispatcher, SLOTS};
use crate::gpu::Loss;
use crate::open::open;
use crate::operation::serves;
use crate::plan::Resources;
use crate::residency::Absent;
use crate::shared::Shared;

/// How the backend is set up.
#[derive(Debug, Clone)]
pub struct WgpuOptions {
    /// A part of the adapter's name; `None` is any adapter that is not software. The best one that passes the self-test
    /// is taken.
    pub adapter: Option<String>,
    /// Most bytes of device memory that corpora may take; 0 is [`DEFAULT_MEMORY`].
    pub memory_bytes: usize,
    /// Most bytes of a buffer that holds a part of a corpus; 0 is what the adapter binds.
    pub part_bytes: usize,
    /// Use subgroup operations where the adapter has them.
    pub subgroups: bool,
    /// Use float64 where the adapter has it.
    pub float64: bool,
    /// Map the buffers that shaders use where the device's memory is the host's.
    pub mappable: bool,
    /// How long the device may take over a submission before it is given up.
    pub patience: Duration,
    /// The ring.
    pub ring: RingConfig,
}

impl Default for WgpuOptions {
    fn default() -> Self {
        Self {
            adapter: None,
            memory_bytes: 0,
            part_bytes: 0,
            subgroups: true,
            float64: true,
            mappable: true,
            patience: PATIENCE,
            ring: RingConfig::default(),
        }
    }
}

/// Bytes of device memory that corpora may take unless told otherwise. WebGPU does not tell how much there is.
pub const DEFAULT_MEMORY: usize = 2 << 30;
/// Far longer than any submission takes, even on a program on the CPU, since work is cut up
/// ([`crate::script::MOST_WORK`]).
const PATIENCE: Duration = Duration::from_secs(60);
/// Queries in one slot.
const MAX_QUERIES: usize = 8192;
/// A slot's result takes an eighth of `max_bytes` at most, and must fit a binding.
const SLOT_TO_BINDING: usize = 8;
/// When a caller may come again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A running dispatcher.
pub struct WgpuBackend {
    capabilities: Capabilities,
    shared: Arc<Shared>,
    ring: Arc<JobRing>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Starts the backend on an adapter of this machine, with a ring of its own. `corpora` tells which corpora slots mean.
///
/// # Errors
/// What is missing, and what would help.
pub fn start(
    options: &WgpuOptions,
    corpora: Arc<CorpusTable>,
    automaton: &Automaton,
) -> Result<(WgpuBackend, Arc<JobRing>), Unavailable> {
    let gpu = Arc::new(open(options, automaton)?);
    let resources = Resources::new(&gpu, automaton).map_err(Unavailable::new)?;
    let ring = JobRing::new(options.ring).map_err(Unavailable::new)?;
    let capabilities = Capabilities {
        device: format!("{} through {}", gpu.name, gpu.api),
        instruction_set: gpu.instruction_set(),
        driver: gpu.driver.clone(),
        lanes: SLOTS,
        emulated: gpu.software,
        operations: Served::by(serves),
        max_queries: MAX_QUERIES,
        // The payload and the result lie in a buffer each; what an operation needs beside is little beside one item.
        max_item_bytes: gpu.binding_bytes,
        max_bytes: ring.max_job_bytes().min(gpu.binding_bytes.saturating_mul(SLOT_TO_BINDING)),
    };
    // Should it be lost, this very adapter is opened anew, since what was said of it goes on to hold.
    let same_again = WgpuOptions { adapter: Some(gpu.name.clone()), ..options.clone() };
    let budget = if options.memory_bytes == 0 { DEFAULT_MEMORY } else { options.memory_bytes };
    let shared = Arc::new(Shared::new(gpu.clone(), same_again, corpora, automaton.clone(), budget));
    let stop = Arc::new(AtomicBool::new(false));
    let dispatcher = Dispatcher {
        ring: ring.clone(),
        shared: shared.clone(),
        wait: options.ring.wait,
        stop: stop.clone(),
        device: Device::new(gpu, resources).map_err(Unavailable::new)?,
    };
    let thread = std::thread::Builder::new()
        .name("megaring-wgpu".into())
        .spawn(move || dispatcher.run())
        .map_err(|error| Unavailable::new(format_args!("the system refused a thread: {error}")))?;
    let backend = WgpuBackend { capabilities, shared, ring: ring.clone(), stop, thread: Mutex::new(Some(thread)) };
    Ok((backend, ring))
}

impl WgpuBackend {
    /// Makes the device fail under the backend's feet, to see what follows.
    pub fn lose_device(&self, how: Loss) {
        self.shared.gpu().lose(how);
    }

    fn bring(&self, reads: Reads<'_>) -> Result<Residency, Error> {
        let kind = self.kind();
        let gpu = self.shared.gpu();
        let Some(pair) = Pair::of(reads.columns) else {
            let reason = "a part of a corpus has two columns here at most".into();
            return Err(Error::BackendUnavailable { kind, reason });
        };
        match self.shared.residency.bring(&gpu, reads.corpus, pair) {
            // Queries are made ready on the host, which has the rows too.
            Ok(held) => Ok(Residency { guard: Some(Box::new(held)), finds_rows: false }),
            // It is streamed.
            Err(Absent::NoRoom) => Ok(Residency::default()),
            // A device that is opened anew may do the job, which the dispatcher sees to once it looks.
            Err(Absent::Failed(_)) if gpu.health().is_err() && self.health().is_ok() => {
                self.ring.jobs_signal().notify_all();
                Err(Error::Exhausted { what: "the device, which is opened anew", retry_after: RETRY_AFTER })
            }
            Err(Absent::Failed(reason)) => Err(Error::BackendUnavailable { kind, reason }),
        }
    }
}

impl Backend for WgpuBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Wgpu
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, reads: Option<Reads<'_>>) -> Result<Residency, Error> {
        let kind = self.kind();
        self.health().map_err(|reason| Error::BackendUnavailable { kind, reason })?;
        match reads {
            Some(reads) if !reads.columns.is_empty() => self.bring(reads),
            _ => Ok(Residency::default()),
        }
    }

    fn lacking(&self, reads: Reads<'_>) -> Lacking {
        match Pair::of(reads.columns) {
            Some(pair) if !reads.columns.is_empty() => {
                self.shared.residency.lacking(&self.shared.gpu(), reads.corpus, pair)
            }
            _ => Lacking::default(),
        }
    }

    fn upload_bytes(&self, columns: Columns, rows: u64, dim: u64) -> u64 {
        let bytes = |pair: Pair| pair.bytes(rows as usize, dim as usize).iter().sum::<usize>() as u64;
        Pair::of(columns).map_or(0, bytes)
    }

    fn health(&self) -> Result<(), String> {
        self.shared.health()?;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        // It ends when it is told to, and not before.
        let ended = thread.as_ref().is_none_or(JoinHandle::is_finished);
        if ended { Err("it was shut down".into()) } else { Ok(()) }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.list()
    }

    fn shutdown(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring.jobs_signal().notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It catches panics, its own too.
            let _ = thread.join();
        }
    }
}

impl Drop for WgpuBackend {
    fn drop(&mut self) {
        self.shutdown();
    }
}
