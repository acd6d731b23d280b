//! The engine: lanes, and what stands before them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use megaring_board::Board;
use megaring_budget::{Budgets, Moment};
use megaring_core::encode::profile::Profile;
use megaring_core::exact::ExactKernel;
use megaring_core::operation::Limits;
use megaring_core::search::Search;
use megaring_core::{Answered, Backend, BackendKind, BackendStatus, Error};
use megaring_corpus::Store;
use megaring_ring::JobRing;

use crate::admission::{self, Admission};
use crate::batching::{Batcher, Member};
use crate::execution::{Admitted, Execution, InlineJobs};
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::recorder::{LedgerConfig, Recorder};
use crate::router::{Router, Routing};
use crate::submit::{DEPTH, limits};
use crate::telemetry::Telemetry;
use crate::terms::Terms;

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Jobs of one tenant that may be in flight; 0 is no limit of its own.
    pub tenant_jobs: usize,
    /// How long a job may wait for room where too much is in flight; zero refuses it at once. Of the asynchronous calls
    /// alone.
    pub queue: Duration,
    /// How long a small search may wait to be batched with others; zero disables batching. Of [`Engine::run_batched`]
    /// alone.
    pub batch_wait: Duration,
    /// The encoder's profile.
    pub profile: Profile,
    /// How the router goes about choosing a backend.
    pub routing: Routing,
    /// Settings of the backends that change how long jobs take, in words: a calibration holds for them alone.
    pub setup: String,
    /// A file for the event ring, so that other processes can follow; `None` keeps it in memory.
    pub events_file: Option<std::path::PathBuf>,
    /// A file for the state board, so that other processes can look at it; `None` keeps it in memory.
    pub board_file: Option<std::path::PathBuf>,
    /// Where what becomes of calls is kept; `None` keeps nothing of it.
    pub ledger: Option<LedgerConfig>,
}

impl EngineConfig {
    /// The defaults, with a profile.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            tenant_jobs: 0,
            queue: Duration::from_secs(1),
            batch_wait: Duration::from_micros(200),
            profile,
            routing: Routing::default(),
            setup: String::new(),
            events_file: None,
            board_file: None,
            ledger: None,
        }
    }
}

/// A backend that consumes a ring, and the ring.
pub type Running = (Box<dyn Backend>, Arc<JobRing>);

/// The backends of an engine.
pub struct Backends {
    /// Those that run. The first is preferred among equals.
    pub running: Vec<Running>,
    /// Kinds that do not run, with the reason.
    pub absent: Vec<(BackendKind, String)>,
    /// Exact scores, by the best kernels of this machine.
    pub kernel: &'static dyn ExactKernel,
}

/// A running engine.
pub struct Engine {
    store: Arc<Store>,
    profile: Profile,
    kernel: &'static dyn ExactKernel,
    router: Router,
    admission: Arc<Admission>,
    filters: Arc<Admission>,
    batcher: Option<Batcher<Member>>,
    setup: String,
    board: Arc<Board>,
    metrics: Metrics,
    telemetry: Telemetry,
    recorder: Option<Recorder>,
    budgets: Arc<Budgets>,
    pub(crate) inline_jobs: InlineJobs,
    /// Bytes that joins may come to keep.
    pub(crate) joins: Arc<AtomicUsize>,
    /// The smallest of all lanes: what a job needs of the arena is counted by them until its lane is known.
    pub(crate) limits: Limits,
}

impl Engine {
    /// Puts backends into service over a store.
    ///
    /// # Errors
    /// No backend at all, a ledger that cannot be opened, or a system that refuses threads or the files of events and
    /// board.
    pub fn start(config: EngineConfig, store: Arc<Store>, backends: Backends) -> Result<Arc<Self>, Error> {
        let EngineConfig { tenant_jobs, queue, batch_wait, profile, routing, setup, events_file, board_file, ledger } =
            config;
        let Backends { running, absent, kernel } = backends;
        let telemetry = Telemetry::new(events_file.as_deref())?;
        let board = board_file.map_or_else(Board::in_memory, |file| Board::create(&file));
        let board = board.map_err(|error| Error::Storage(error.to_string()))?;
        let budgets = Arc::new(Budgets::new(Moment::now()));
        let record =
            |config: LedgerConfig| Recorder::start(telemetry.ring(), config.open()?, config.segments, &budgets);
        let recorder = ledger.map(record).transpose()?;
        let refused = |error| Error::Internal(format!("the system refused a thread: {error}"));
        let lanes = running.into_iter().map(|(backend, ring)| Lane::new(backend, ring).map_err(refused));
        let lanes: Vec<Lane> = lanes.collect::<Result<_, _>>()?;
        let none = || Error::Internal("an engine needs a backend".into());
        let limits = lanes.iter().map(|lane| limits(lane.capabilities())).reduce(smaller).ok_or_else(none)?;
        let job_limits = admission_limits(tenant_jobs, queue, &lanes);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let filters = Admission::new(admission::Limits { jobs: threads, bytes: usize::MAX, ..job_limits });
        let admission = Admission::new(job_limits);
        let router = Router::new(lanes, absent, routing, board.clone());
        let batcher = (!batch_wait.is_zero()).then(|| Batcher::new(batch_wait));
        Ok(Arc::new(Self {
            store,
            profile,
            kernel,
            router,
            admission,
            filters,
            batcher,
            setup,
            board,
            metrics: Metrics::default(),
            telemetry,
            recorder,
            budgets,
            inline_jobs: InlineJobs::default(),
            joins: Arc::default(),
            limits,
        }))
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

    /// Exact scores, by the best kernels of this machine.
    #[must_use]
    pub fn kernel(&self) -> &'static dyn ExactKernel {
        self.kernel
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
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The gate of filters that are worked out, which comes before a job's own: as many at once as there are
    /// processors.
    #[must_use]
    pub fn filters(&self) -> &Arc<Admission> {
        &self.filters
    }

    /// The state board: breakers, and what a [`Monitor`](crate::health::Monitor) tells of the engine.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
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

    /// Keeps what becomes of calls, where that is wanted.
    #[must_use]
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// What tenants have spent, as far back as the ledger tells of it.
    #[must_use]
    pub fn budgets(&self) -> &Arc<Budgets> {
        &self.budgets
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
        self.filters.close();
        self.admission.close();
        self.filters.emptied().await;
        self.admission.emptied().await;
    }

    /// Does a job. Await it within a tokio runtime with time enabled. Up to [`DEPTH`] slots of it are in flight, so a
    /// backend works while the last slot's answer is made exact. A job that the processor does within some 100 µs may
    /// be done by the thread that polls the future, as long as the runtime has another one free. Dropping the future
    /// gives everything back as the slots in flight complete. A backend that fails the job costs its caller time, not
    /// the answer.
    ///
    /// # Errors
    /// Refusals of admission and routing, the deadline, or a backend's failure. Nothing half-done is kept.
    pub async fn run<O: Answered>(self: &Arc<Self>, job: O, terms: Terms) -> Result<Outcome<O::Answer>, Error> {
        let admitted = Admitted::new(self.clone(), job, terms).await?;
        self.counted(async { admitted.route()?.run(|| {}).await }.await)
    }

    /// [`Self::run`] for searches of many callers: small ones that come while others like them are in flight may be
    /// done as one batch with them. Each is answered as if it were alone.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_batched(
        self: &Arc<Self>,
        search: Search,
        terms: Terms,
    ) -> Result<Outcome<<Search as Answered>::Answer>, Error> {
        let admitted = Admitted::new(self.clone(), search, terms).await?;
        let outcome = async {
            match &self.batcher {
                Some(batcher) => batcher.run(admitted).await,
                None => admitted.route()?.run(|| {}).await,
            }
        };
        self.counted(outcome.await)
    }

    /// [`Self::run`] on the calling thread: the faster of the two for one small job, since no second thread has to wake
    /// it. It does not wait in line.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_blocking<O: Answered>(self: &Arc<Self>, job: O, terms: Terms) -> Result<Outcome<O::Answer>, Error> {
        let admitted = Admitted::try_new(self.clone(), job, terms)?;
        self.counted(admitted.route().and_then(Execution::run_blocking))
    }

    /// Counts a job that was let in and is not answered, where that is not its caller's doing.
    fn counted<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.inspect_err(|error| match error {
            Error::Invalid(_) | Error::Cancelled => {}
            _ => self.metrics.failed(),
        })
    }

    pub(crate) fn lane(&self, index: usize) -> &Lane {
        &self.router.lanes()[index]
    }
}

/// What may be in flight: as much as the smallest ring takes, since any job may end up on any lane. As many may wait as
/// that ring has slots, and hold as many bytes as its arena has: some three times as many as are in flight.
fn admission_limits(tenant_jobs: usize, wait: Duration, lanes: &[Lane]) -> admission::Limits {
    let slots = lanes.iter().map(|lane| lane.ring().capacity()).min().unwrap_or_default();
    let bytes = lanes.iter().map(|lane| lane.ring().arena().len()).min().unwrap_or_default();
    admission::Limits {
        jobs: (slots / DEPTH).max(1),
        tenant_jobs: if tenant_jobs == 0 { usize::MAX } else { tenant_jobs },
        bytes: bytes / 4 * 3,
        wait,
        waiting_jobs: slots,
        waiting_bytes: bytes,
    }
}

fn smaller(one: Limits, other: Limits) -> Limits {
    Limits { max_items: one.max_items.min(other.max_items), max_bytes: one.max_bytes.min(other.max_bytes) }
}
