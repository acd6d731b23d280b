//! The engine: steps 3 to 8 of a request, in order, for callers of the gRPC API and for programs that link the library.
//!
//! [`Engine::run`] awaits, [`Engine::run_blocking`] blocks the calling thread (and is the faster of the two for one small job, since
//! no second thread has to wake it). Both keep up to [`DEPTH`] slots of a job under way, so a backend works while the last slot's
//! answer is made exact. Dropping the future of `run` gives everything back as the slots under way complete.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::arena_format::{CandidateLists, Candidates};
use megaring_core::job::{Job, Terms};
use megaring_core::keyword::Automaton;
use megaring_core::profile::Profile;
use megaring_core::screen::packed_len;
use megaring_core::{BackendKind, BackendStatus, Error};
use megaring_corpus::Store;
use megaring_ring::{JobRing, ReserveError, RingConfig, Ticket, WaitStrategy};
use megaring_simd::KernelSet;
use megaring_simd::backend::{CpuBackend, CpuOptions};

use crate::admission::{Admission, Limits, Permit};
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::outcome::{Answer, Made, Outcome};
use crate::reaper::{await_ticket, wait_ticket};
use crate::rescore::Rescorer;
use crate::router::Router;
use crate::submit::{DEPTH, Piece, pieces, refusal, submit};
use crate::telemetry::Telemetry;

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
    /// The encoder's profile.
    pub profile: Profile,
    /// The instruction set to use, by name; `None` is `MEGARING_ISA` or the best there is.
    pub isa: Option<String>,
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
            profile,
            isa: None,
            events_file: None,
        }
    }
}

/// A running engine.
pub struct Engine {
    store: Arc<Store>,
    profile: Arc<Profile>,
    kernels: &'static KernelSet,
    router: Router,
    admission: Arc<Admission>,
    metrics: Metrics,
    telemetry: Telemetry,
}

/// Bytes of an arena's block.
const BLOCK_BYTES: usize = 64 << 10;
/// How long a job waits before it asks a full ring again for the room its permit promised. Only blocks scattered among other jobs' make it wait.
const ROOM_RETRY: Duration = Duration::from_micros(200);

impl Engine {
    /// Starts the backends of this build over a store.
    ///
    /// # Errors
    /// An instruction set that is unknown or not there, a ring size that is not a power of two, or a system that refuses memory or threads.
    pub fn start(config: EngineConfig, store: Arc<Store>) -> Result<Arc<Self>, Error> {
        let kernels = match &config.isa {
            Some(name) => KernelSet::named(name),
            None => KernelSet::from_env(),
        }
        .map_err(|error| Error::field("isa", error.to_string()))?;
        let telemetry = Telemetry::new(config.events_file.as_deref())?;
        let lane = cpu_lane(&config, &store, kernels)?;
        let not_built = |kind| (kind, format!("this build has no {kind} backend"));
        let router = Router::new(vec![lane], vec![not_built(BackendKind::Cuda), not_built(BackendKind::Wgpu)]);
        let admission = Admission::new(Limits {
            jobs: (config.ring_slots / DEPTH).max(1),
            tenant_jobs: if config.tenant_jobs == 0 { usize::MAX } else { config.tenant_jobs },
            bytes: config.arena_bytes / 4 * 3,
        });
        let profile = Arc::new(config.profile);
        Ok(Arc::new(Self { store, profile, kernels, router, admission, metrics: Metrics::default(), telemetry }))
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
        let running =
            self.router.lanes().iter().map(|lane| (lane.kind(), BackendStatus::Available(lane.capabilities().clone())));
        let absent = self.router.absent().iter();
        let absent = absent.map(|(kind, reason)| (*kind, BackendStatus::Unavailable { reason: reason.clone() }));
        running.chain(absent).collect()
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

    /// Does a job. Await it within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// Refusals of admission and routing, the deadline, or a backend's failure. Nothing half-done is kept.
    pub async fn run(self: &Arc<Self>, job: Job, terms: Terms) -> Result<Outcome, Error> {
        let mut flight = Flight::start(self.clone(), job, terms)?;
        while !flight.is_done() {
            while let Err(full) = flight.submit_ahead() {
                flight.check_room(&full)?;
                tokio::time::sleep(ROOM_RETRY).await;
                flight.check_deadline()?;
            }
            if let Some((piece, ticket)) = flight.under_way.pop_front() {
                let outcome = await_ticket(ticket, flight.terms.deadline).await?;
                flight = flight.finish_elsewhere(piece, outcome).await?;
            }
        }
        Ok(flight.land())
    }

    /// Does a job on the calling thread's time.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_blocking(self: &Arc<Self>, job: Job, terms: Terms) -> Result<Outcome, Error> {
        let mut flight = Flight::start(self.clone(), job, terms)?;
        while !flight.is_done() {
            while let Err(full) = flight.submit_ahead() {
                flight.check_room(&full)?;
                std::thread::park_timeout(ROOM_RETRY);
                flight.check_deadline()?;
            }
            if let Some((piece, ticket)) = flight.under_way.pop_front() {
                let outcome = wait_ticket(ticket)?;
                flight.finish(&piece, &outcome)?;
            }
        }
        Ok(flight.land())
    }

    fn lane(&self, index: usize) -> &Lane {
        &self.router.lanes()[index]
    }
}

fn cpu_lane(config: &EngineConfig, store: &Arc<Store>, kernels: &'static KernelSet) -> Result<Lane, Error> {
    let ring = JobRing::new(RingConfig {
        capacity: config.ring_slots,
        arena_bytes: config.arena_bytes,
        block_bytes: BLOCK_BYTES,
        wait: config.wait,
    })
    .map_err(|error| Error::field("ring_slots", error.to_string()))?;
    let workers = match config.cpu_workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let options = CpuOptions { workers, wait: config.wait, device: crate::machine::processor_name() };
    let automaton = Automaton::new(&config.profile);
    let backend = CpuBackend::start(options, ring.clone(), kernels, store.table().clone(), &automaton)
        .map_err(|error| Error::Internal(error.to_string()))?;
    Lane::new(Box::new(backend), ring).map_err(|error| Error::Internal(format!("the system refused a thread: {error}")))
}

/// One job on its way through the steps.
struct Flight {
    engine: Arc<Engine>,
    job: Arc<Job>,
    terms: Terms,
    lane: usize,
    ahead: VecDeque<Piece>,
    under_way: VecDeque<(Piece, Ticket)>,
    answer: Answer,
    hits: usize,
    made: Made,
    admitted: Instant,
    /// Held until the flight ends, whichever way.
    _permit: Permit,
}

impl Flight {
    /// Steps 3 and 4: a permit and a backend.
    fn start(engine: Arc<Engine>, job: Job, terms: Terms) -> Result<Self, Error> {
        let admitted = Instant::now();
        let refused = |_: &Error| engine.metrics.refused();
        let mut permit = engine.admission.admit(&terms).inspect_err(refused)?;
        let shape = job.shape();
        let route = engine.router.route(&shape, terms.backend)?;
        let capabilities = route.lane.capabilities();
        let ahead: VecDeque<Piece> = pieces(&job, capabilities).into();
        let bytes = ahead.iter().map(Piece::bytes).max().unwrap_or(0) * DEPTH.min(ahead.len());
        permit.hold(bytes).inspect_err(refused)?;
        tracing::debug!(op = shape.opcode.name(), items = shape.items, backend = %route.lane.kind(), why = route.reason);
        let made = Made {
            backend: route.lane.kind(),
            instruction_set: capabilities.instruction_set.clone(),
            exact: true,
            rows_rescored: 0,
            bytes_read: 0,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            rescore: Duration::ZERO,
        };
        let answer = Answer::empty(shape.opcode, shape.rows);
        let lane = engine.router.lanes().iter().position(|lane| std::ptr::eq(lane, route.lane)).unwrap_or(0);
        Ok(Self {
            engine,
            job: Arc::new(job),
            terms,
            lane,
            ahead,
            under_way: VecDeque::with_capacity(DEPTH),
            answer,
            hits: 0,
            made,
            admitted,
            _permit: permit,
        })
    }

    fn is_done(&self) -> bool {
        self.ahead.is_empty() && self.under_way.is_empty()
    }

    /// Step 5, up to [`DEPTH`] pieces ahead. Fails only where nothing is under way that would make room.
    fn submit_ahead(&mut self) -> Result<(), ReserveError> {
        let ring = self.engine.lane(self.lane).ring();
        while self.under_way.len() < DEPTH {
            let Some(piece) = self.ahead.front() else { break };
            match submit(ring, &self.job, piece, &self.terms) {
                Ok(ticket) => self.under_way.extend(self.ahead.pop_front().map(|piece| (piece, ticket))),
                Err(_) if !self.under_way.is_empty() => break,
                Err(full) => return Err(full),
            }
        }
        Ok(())
    }

    /// Whether waiting can help a piece that found no room.
    fn check_room(&self, full: &ReserveError) -> Result<(), Error> {
        match full {
            ReserveError::RingFull | ReserveError::ArenaFull => Ok(()),
            ReserveError::TooLarge { .. } | ReserveError::Closed => {
                Err(refusal(full, self.engine.admission.retry_after()))
            }
        }
    }

    fn check_deadline(&self) -> Result<(), Error> {
        let passed = self.terms.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if passed { Err(Error::DeadlineExceeded { stage: "waiting for room" }) } else { Ok(()) }
    }

    /// Step 8 for one piece.
    fn finish(&mut self, piece: &Piece, outcome: &megaring_ring::Outcome) -> Result<(), Error> {
        let begun = Instant::now();
        let rescorer = Rescorer { kernel: self.engine.kernels, profile: &self.engine.profile };
        let (answer, rescored) = rescorer.finish(&self.job, &piece.items, outcome.result())?;
        self.check_hits(&answer)?;
        if matches!(self.answer, Answer::Nothing) {
            self.answer = answer
        } else {
            self.answer.extend(answer)
        }
        self.made.rows_rescored += rescored;
        self.made.bytes_read += bytes_read(&self.job, piece, rescored);
        self.made.compute += Duration::from_nanos(outcome.completion.device_ns);
        self.made.rescore += begun.elapsed();
        Ok(())
    }

    /// Counts hits against what the caller can take.
    fn check_hits(&mut self, found: &Answer) -> Result<(), Error> {
        let Answer::Hits(ranked) = found else { return Ok(()) };
        self.hits += ranked.iter().map(|ranked| ranked.hits.len()).sum::<usize>();
        match self.terms.max_hits {
            Some(most) if self.hits > most => {
                let text =
                    format!("the reply would hold more than the {most} hits that fit a message; send fewer at a time");
                Err(Error::field("queries", text))
            }
            _ => Ok(()),
        }
    }

    /// Step 8 off the async threads where it takes long.
    async fn finish_elsewhere(mut self, piece: Piece, outcome: megaring_ring::Outcome) -> Result<Self, Error> {
        if is_light(&self.job, piece.items.len(), outcome.result()) {
            self.finish(&piece, &outcome)?;
            return Ok(self);
        }
        let (done, finished) = tokio::sync::oneshot::channel();
        rayon::spawn(move || {
            // Rayon ends the process where a spawned task panics; the flight is lost here, and with it only this job.
            let finish = AssertUnwindSafe(|| self.finish(&piece, &outcome).map(|()| self));
            let result = catch_unwind(finish).unwrap_or_else(|_| Err(Error::Internal("rescoring panicked".into())));
            // A receiver that is gone belongs to a cancelled call; dropping the flight gives everything back.
            let _ = done.send(result);
        });
        finished.await.map_err(|_| Error::Internal("rescoring was given up".into()))?
    }

    fn land(mut self) -> Outcome {
        let took = self.admitted.elapsed();
        self.made.queue = took.saturating_sub(self.made.compute).saturating_sub(self.made.rescore);
        self.engine.metrics.answered(&self.job.shape(), took);
        self.engine.telemetry.answered(&self.job.shape(), &self.terms.tenant, took);
        Outcome { answer: self.answer, made: self.made }
    }
}

/// Whether finishing a piece takes so little that it may hold up an async thread: some 100 µs.
fn is_light(job: &Job, items: usize, result: &[u8]) -> bool {
    let scores_all = || {
        CandidateLists::read(result, items).is_none_or(|lists| (0..items).any(|i| lists.of(i) == Candidates::EveryRow))
    };
    match job {
        Job::Nop => true,
        Job::Search(job) => items.saturating_mul(job.k) <= 256 && (job.corpus.rows() <= 1024 || !scores_all()),
        Job::Score(_) => result.len() <= 256 << 10,
        Job::Encode(_) => items <= 256,
        Job::Nearest(job) => items.saturating_mul(job.k) <= 1024 && (job.points.len() <= 1024 || !scores_all()),
    }
}

/// Bytes of rows, codes, coordinates or texts that a piece reads by its plan.
fn bytes_read(job: &Job, piece: &Piece, rescored: u64) -> u64 {
    let exact = |dim: usize| rescored * (dim * size_of::<f32>()) as u64;
    match job {
        Job::Nop => 0,
        Job::Search(job) => exact(job.corpus.dim()) + packed_len(job.corpus.rows(), job.corpus.dim()) as u64,
        Job::Score(job) => exact(job.corpus.dim()),
        Job::Encode(_) => (piece.payload - (piece.items.len() + 1) * size_of::<u64>()) as u64,
        Job::Nearest(job) => (job.points.len() * piece.items.len() * size_of::<[f64; 5]>()) as u64,
    }
}
