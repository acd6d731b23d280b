//! What is measured: one row each, with data that differ from call to call.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use megaring_bench::any::Job;
use megaring_bench::{Bench, Failure, encode_job, queries};
use megaring_board::Board;
use megaring_core::corpus::CorpusTable;
use megaring_core::encode::keyword::Automaton;
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::nop::Nop;
use megaring_core::operation::{Served, Serves};
use megaring_core::search::Search;
use megaring_core::{Backend, BackendKind, Capabilities, Metric, Opcode};
use megaring_datasets::memories;
use megaring_engine::Terms;
use megaring_engine::lane::Lane;
use megaring_engine::measure::sampler::{Call, Subject};
use megaring_engine::router::{Router, Routing};
use megaring_ring::event_ring::{Event, EventProducer, EventRing, EventRingConfig};
use megaring_ring::{Descriptor, JobRing, RingConfig, WaitStrategy};
use megaring_simd::KernelSet;
use megaring_simd::backend::{CpuBackend, CpuOptions};

use crate::entrance::Entrance;
use crate::limits::{self, Limit};
use crate::wire::{Spending, Wire};

/// A row of the table.
pub(crate) struct Row<'a> {
    pub(crate) name: &'static str,
    pub(crate) limit: Option<Limit>,
    pub(crate) subject: Subject<'a, Failure>,
}

/// Everything that the rows run on; most of it sleeps while another row has its turn.
pub(crate) struct Stage {
    bench: Bench,
    corpus: Matrix,
    kernels: &'static KernelSet,
    producer: EventProducer,
    events: Vec<Event>,
    ring: Arc<JobRing>,
    /// Ends with the stage, and with it its threads.
    _workers: CpuBackend,
    router: Router,
    jobs: Vec<Job>,
    entrance: Entrance,
    spending: Spending,
    wire: Wire,
}

/// The corpus searched.
const ROWS: usize = 100;
const DIM: usize = 384;
/// Different events and jobs, taken in turn: a power of two.
const VARIETY: usize = 64;

impl Stage {
    /// Stores the corpus and starts all threads.
    pub(crate) fn set() -> Result<Self, Failure> {
        let bench = Bench::new()?;
        let corpus = bench.corpus("gates", ROWS, DIM)?;
        let kernels = KernelSet::from_env()?;
        let producer = EventRing::new(EventRingConfig::default())?.producer()?;
        let ring = ring()?;
        let workers = CpuOptions {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            wait: WaitStrategy::default(),
            device: String::new(),
        };
        let automaton = Automaton::new(bench.engine.profile());
        let workers = CpuBackend::start(workers, ring.clone(), kernels, Arc::new(CorpusTable::default()), &automaton)?;
        let (events, jobs) = (events()?, jobs(&bench, &corpus)?);
        let (router, entrance) = (router()?, Entrance::set()?);
        let (spending, wire) = (Spending::set(), Wire::set()?);
        Ok(Self {
            bench,
            corpus,
            kernels,
            producer,
            events,
            ring,
            _workers: workers,
            router,
            jobs,
            entrance,
            spending,
            wire,
        })
    }

    /// The rows, as the table shows them.
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let limited = |name, limit, subject| Row { name, limit: Some(limit), subject };
        let mut rows = vec![
            limited("call from Rust to Zig and back, empty", limits::CALL, self.call()),
            limited("search of 100 x 384, in process, through the ring", limits::SEARCH, self.search()),
            limited("event publish", limits::PUBLISH, self.publish()),
            limited("empty job, submission to completion", limits::EMPTY_JOB, self.empty_job()),
            Row { name: "  the same through the engine", limit: None, subject: self.empty_call() },
            limited("route decision among three backends", limits::ROUTE, self.route()),
        ];
        rows.extend(self.entrance.rows());
        rows.push(self.spending.row());
        rows.extend(self.wire.rows());
        rows
    }

    fn call(&self) -> Subject<'_, Failure> {
        Subject::repeated(|Call { repeats, .. }| {
            let begun = Instant::now();
            for _ in 0..repeats {
                black_box(self.kernels).nop();
            }
            Ok(begun.elapsed())
        })
    }

    /// Top 10 of one query, which is a row of the corpus: that row has to be the first hit.
    fn search(&self) -> Subject<'_, Failure> {
        Subject::new(|Call { number, .. }| {
            let row = number as usize * 37 % ROWS;
            let job = search_job(&self.bench, queries(&self.corpus, row, 1))?;
            let begun = Instant::now();
            let outcome = self.bench.engine.run_blocking(job, Terms::default())?;
            let took = begun.elapsed();
            match outcome.answer.first().and_then(|ranked| ranked.hits.first()) {
                Some(hit) if hit.row as usize == row => Ok(took),
                found => Err(format!("the search for row {row} found {found:?}").into()),
            }
        })
    }

    fn publish(&self) -> Subject<'_, Failure> {
        Subject::repeated(|Call { repeats, .. }| {
            let begun = Instant::now();
            for index in 0..repeats as usize {
                self.producer.publish(black_box(&self.events[index % VARIETY]));
            }
            Ok(begun.elapsed())
        })
    }

    /// The ring and the workers alone, waited for by the thread that submits.
    fn empty_job(&self) -> Subject<'_, Failure> {
        let empty = Descriptor { opcode: Opcode::Nop as u16, ..Descriptor::default() };
        Subject::new(move |_| {
            let reservation = self.ring.try_reserve(0, 0)?;
            let begun = Instant::now();
            let outcome = self.ring.submit(reservation, empty).wait();
            let took = begun.elapsed();
            if outcome.status().is_ok() { Ok(took) } else { Err(format!("it ended with {}", outcome.status()).into()) }
        })
    }

    fn empty_call(&self) -> Subject<'_, Failure> {
        Subject::new(|_| {
            let begun = Instant::now();
            self.bench.engine.run_blocking(Nop, Terms::default())?;
            Ok(begun.elapsed())
        })
    }

    fn route(&self) -> Subject<'_, Failure> {
        Subject::repeated(|Call { repeats, .. }| {
            let begun = Instant::now();
            for index in 0..repeats as usize {
                let job = black_box(self.jobs[index % VARIETY].operation());
                black_box(self.router.route(job, &job.size(), &Terms::default(), &[])?);
            }
            Ok(begun.elapsed())
        })
    }
}

fn ring() -> Result<Arc<JobRing>, Failure> {
    let config =
        RingConfig { capacity: 256, arena_bytes: 1 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() };
    Ok(JobRing::new(config)?)
}

fn search_job(bench: &Bench, queries: Matrix) -> Result<Search, Failure> {
    let corpus = bench.engine.store().view("gates")?;
    Ok(Search { corpus, queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None })
}

fn events() -> Result<Vec<Event>, Failure> {
    let event = |number: u64| {
        let data: [u8; 80] = std::array::from_fn(|byte| (number as usize * 31 + byte * 7 + 1) as u8);
        Ok(Event::new(1 + number % 3, 0x9e37_79b9 ^ number, 1_700_000_000 + number, 0.5, &data)?)
    };
    (0..VARIETY as u64).map(event).collect()
}

/// Searches of many sizes, points and texts.
fn jobs(bench: &Bench, corpus: &Matrix) -> Result<Vec<Job>, Failure> {
    let texts = encode_job(memories(10, 1)?.iter());
    let columns = Arc::new(std::array::from_fn(|axis| (0..500).map(|point| (point * (axis + 1)) as f64).collect()));
    let job = |number: usize| {
        Ok(match number % 4 {
            0 => Job::Encode(texts.clone()),
            1 => Job::Nearest(Nearest {
                points: Points::Sent(Arc::clone(&columns)),
                queries: vec![[1.0, 2.0, 3.0, 4.0, 5.0]; number],
                weights: [1.0, 1.0, 0.8, 1.5, 2.0],
                k: 1 + number,
            }),
            _ => Job::Search(search_job(bench, queries(corpus, 0, 1 + number))?),
        })
    };
    (0..VARIETY).map(job).collect()
}

/// A router of one backend of each kind.
fn router() -> Result<Router, Failure> {
    let lane = |kind| Ok(Lane::new(Box::new(Idle::new(kind)), ring()?)?);
    let lanes = BackendKind::ALL.map(lane).into_iter().collect::<Result<_, Failure>>()?;
    Ok(Router::new(lanes, Vec::new(), Routing::default(), Board::in_memory()?))
}

/// A backend to be chosen, which never gets a job.
struct Idle {
    kind: BackendKind,
    capabilities: Capabilities,
}

impl Idle {
    fn new(kind: BackendKind) -> Self {
        let capabilities = Capabilities {
            device: "none".into(),
            instruction_set: "none".into(),
            driver: String::new(),
            lanes: 1,
            operations: Served::by(|_| Serves::By(())),
            max_queries: 512,
            max_item_bytes: usize::MAX,
            max_bytes: 1 << 20,
            emulated: false,
        };
        Self { kind, capabilities }
    }
}

impl Backend for Idle {
    fn kind(&self) -> BackendKind {
        self.kind
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn shutdown(&self) {}
}
