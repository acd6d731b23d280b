//! The CPU backend: persistent worker threads that consume a ring and share its jobs out among themselves.
//!
//! Workers poll the submission ring themselves, one at a time. Whoever polls adds the job to the active ones
//! (`active.rs`), of which all workers claim chunks. The last to finish merges and completes. A job that cannot be done
//! (bad numbers in the slot, a stale corpus, a passed deadline, a panic in a kernel's caller) gets an error completion;
//! no worker dies of one.
//!
//! With nothing to do, workers wait by the configured strategy and cost nothing once parked. [`CpuBackend::shutdown`]
//! finishes what was taken from the ring, then ends the threads; slots still in the ring stay there for the host to
//! fail.

mod active;
mod memory;
mod operation;
mod plan;
mod worker;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use megaring_core::corpus::CorpusTable;
use megaring_core::encode::keyword::Automaton;
use megaring_core::exact::{ExactKernel, Overlap};
use megaring_core::operation::{Reads, Served};
use megaring_core::{Backend, BackendKind, Capabilities, Error, Helper, Residency};
use megaring_ring::{JobRing, WaitStrategy};

use self::active::ActiveJobs;
use self::worker::Taken;
use crate::{KernelSet, KeywordAutomaton, SimdError};

/// Queries in one slot: a batch keeps all workers busy for a few milliseconds, and its lists stay within an arena.
const MAX_QUERIES: usize = 512;

/// How the backend is set up.
#[derive(Debug, Clone)]
pub struct CpuOptions {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// How idle workers wait.
    pub wait: WaitStrategy,
    /// Name of the processor, for people.
    pub device: String,
}

/// What all workers share.
pub(crate) struct Context {
    workers: usize,
    wait: WaitStrategy,
    kernels: &'static KernelSet,
    corpora: Arc<CorpusTable>,
    automaton: KeywordAutomaton,
    /// Workers that wait for work, parked or not.
    waiting: AtomicUsize,
    stop: AtomicBool,
}

impl Context {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Why the backend could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread to be had.
    #[error("the system refused a thread: {0}")]
    Thread(#[from] io::Error),
    /// Tables that do not hold together.
    #[error("the keyword automaton: {0}")]
    Automaton(#[from] SimdError),
}

/// Running workers.
pub struct CpuBackend {
    capabilities: Capabilities,
    ring: Arc<JobRing>,
    jobs: Arc<ActiveJobs<Taken>>,
    context: Arc<Context>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl CpuBackend {
    /// Starts the workers on a ring.
    ///
    /// # Errors
    /// When the system refuses a thread (those already started are ended), or the automaton's tables do not fit each
    /// other.
    pub fn start(
        options: CpuOptions,
        ring: Arc<JobRing>,
        kernels: &'static KernelSet,
        corpora: Arc<CorpusTable>,
        automaton: &Automaton,
    ) -> Result<Self, StartError> {
        let workers = options.workers.max(1);
        let capabilities = Capabilities {
            device: options.device,
            instruction_set: kernels.isa().name().to_owned(),
            driver: String::new(),
            lanes: workers,
            operations: Served::by(operation::serves),
            max_queries: MAX_QUERIES,
            max_item_bytes: ring.max_job_bytes(),
            max_bytes: ring.max_job_bytes(),
            emulated: false,
        };
        let automaton = KeywordAutomaton::new(
            *automaton.class_of(),
            automaton.shift(),
            automaton.next().to_vec(),
            automaton.first_accepting(),
            automaton.accept(),
        )?
        .with_words(automaton.words());
        let (waiting, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let context = Arc::new(Context { workers, wait: options.wait, kernels, corpora, automaton, waiting, stop });
        let jobs = Arc::new(ActiveJobs::new());
        let backend = Self { capabilities, ring, jobs, context, workers: Mutex::new(Vec::new()) };
        for number in 0..workers {
            let (ring, jobs, context) = (backend.ring.clone(), backend.jobs.clone(), backend.context.clone());
            let spawned = std::thread::Builder::new()
                .name(format!("megaring-cpu-{number}"))
                .spawn(move || worker::run(&ring, &jobs, &context));
            match spawned {
                Ok(worker) => backend.workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker),
                Err(error) => {
                    backend.shutdown();
                    return Err(error.into());
                }
            }
        }
        Ok(backend)
    }
}

impl Backend for CpuBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Cpu
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, _: Option<Reads<'_>>) -> Result<Residency, Error> {
        // Every corpus is at hand.
        Ok(Residency { guard: None, finds_rows: true })
    }

    fn helper(&self) -> Option<&dyn Helper> {
        Some(self)
    }

    fn shutdown(&self) {
        self.context.stop.store(true, Ordering::Release);
        self.ring.jobs_signal().notify_all();
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            // A worker catches panics of the work; one that still died has nothing left to finish.
            let _ = worker.join();
        }
    }
}

impl Helper for CpuBackend {
    fn help(&self, ticket: u64) {
        worker::help(&self.ring, &self.jobs, &self.context, ticket);
    }

    fn can_help(&self, ticket: u64) -> bool {
        self.jobs.find(|taken| taken.is_of(ticket)).is_some()
    }
}

impl Drop for CpuBackend {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Exact scores by the set's kernels: same bits as `megaring_core::exact`, several times as fast.
impl ExactKernel for KernelSet {
    fn dot(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]) {
        if self.exact_dot(query, rows, ids, out).is_err() {
            // The kernel refuses lengths that do not fit; the definition then panics with the index.
            megaring_core::exact::ScalarKernel.dot(query, rows, ids, out);
        }
    }

    fn l2(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]) {
        if self.exact_l2(query, rows, ids, out).is_err() {
            megaring_core::exact::ScalarKernel.l2(query, rows, ids, out);
        }
    }

    fn overlap(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [Overlap]) {
        if KernelSet::overlap(self, query, rows, ids, out).is_err() {
            megaring_core::exact::ScalarKernel.overlap(query, rows, ids, out);
        }
    }
}
