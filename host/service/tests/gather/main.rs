//! Small searches that come while others like them are under way are done as one batch, and nobody can tell but by the
//! time: answers, errors, limits and what is given back are those of calls that go alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use megaring::Setup;
use megaring_board::BreakerRule;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::matrix::Matrix;
use megaring_core::rescore::{Hit, Ranked};
use megaring_core::search::{Queries, Search};
use megaring_core::{BackendKind, Error, Metric};
use megaring_corpus::{Access, Rows, Store};
use megaring_datasets::Embeddings;
use megaring_engine::cost::{Coefficients, CostModel};
use megaring_engine::router::Routing;
use megaring_engine::{Engine, EngineConfig, Outcome, Terms};
use tokio::task::JoinHandle;

use crate::fake::{Handle, fake};

mod answers;
mod calls;
#[path = "../failover/fake.rs"]
mod fake;
mod kinds;

const ROWS: usize = 3_000;
const DIM: usize = 64;
const K: usize = 10;
/// Longer than any test takes: no batch leaves because of the time.
const LONG: Duration = Duration::from_secs(3_600);

/// Nothing is learnt of the fakes, and a failure is forgiven at once.
const STEADY: Routing = Routing {
    adapts: false,
    breaker: BreakerRule { failures: 1, window: Duration::from_secs(10), first: Duration::ZERO },
};

/// As if a backend took so long for whatever search: one batch of many saves all but one.
fn taking(kind: BackendKind, fixed_ns: f64) -> CostModel {
    CostModel { screen: Coefficients { fixed_ns, ..Coefficients::default() }, ..CostModel::assumed(kind) }
}

/// An engine with a backend that keeps what it is given until the test lets go.
struct Rig {
    engine: Arc<Engine>,
    fake: Arc<Handle>,
    rows: Matrix,
    _folder: tempfile::TempDir,
}

type Call = JoinHandle<Result<Outcome<Vec<Ranked>>, Error>>;

fn rig(gather: Duration) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
    let rows = Embeddings { rows: ROWS, dim: DIM, ..Embeddings::default() }.generate();
    let rows = Matrix { rows: ROWS, dim: DIM, values: rows.values };
    store.create("c", DIM).expect("a new name");
    append(&store, &rows);
    let (fake, running) = fake(BackendKind::Cuda);
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let config = Setup {
        cpu_workers: 2,
        cuda: None,
        wgpu: None,
        engine: EngineConfig { batch_wait: gather, routing: STEADY, ..EngineConfig::new(profile.clone()) },
        ..Setup::new(profile)
    };
    let engine = config.start_with(store, vec![running]).expect("an engine");
    // Where it has the choice, the router prefers the CPU.
    engine.router().adopt(BackendKind::Cuda, taking(BackendKind::Cuda, 5e5), &[]);
    Rig { engine, fake, rows, _folder: folder }
}

fn append(store: &Store, rows: &Matrix) {
    let mut appender = store.append("c").expect("the corpus is there");
    appender.push(Rows { embeddings: rows.clone(), ..Rows::default() }).expect("finite rows");
    appender.commit().expect("room on disk");
}

impl Rig {
    /// Queries that no other number has.
    fn search(&self, number: usize, queries: usize) -> Search {
        let corpus = self.engine.store().view("c").expect("the corpus is there");
        let value = |i: usize| (((i + 1) * (2 * number + 31) % 1_017) as f32 - 508.0) / 508.0;
        let queries = Matrix { rows: queries, dim: DIM, values: (0..queries * DIM).map(value).collect() };
        Search { corpus, queries: queries.into(), metric: Metric::Dot, k: K, threshold: None }
    }

    /// What the CPU says of a job alone.
    fn truth(&self, job: Search) -> Vec<Vec<Hit>> {
        hits(&self.engine.run_blocking(job, wish(BackendKind::Cpu)).expect("a good job"))
    }

    /// A job as a call of its own.
    fn call(&self, job: Search, terms: Terms) -> Call {
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.run_batched(job, terms).await })
    }

    /// One query of the usual kind, on the fake.
    fn one(&self, number: usize) -> Call {
        self.call(self.search(number, 1), wish(BackendKind::Cuda))
    }

    /// Two calls that the fake keeps, so that further ones can expect company.
    async fn busy(&self) -> [Call; 2] {
        self.fake.set(fake::Mode::Keep);
        let calls = [self.one(0), self.one(1)];
        self.keeps(2).await;
        calls
    }

    /// The fake has taken as many slots.
    async fn keeps(&self, slots: usize) {
        eventually("slots are under way", || self.fake.kept() == slots).await;
    }

    /// As many calls are admitted. On one async thread each of them is then under way or waits in a batch.
    async fn admits(&self, calls: usize) {
        eventually("calls are admitted", || self.engine.admission().in_flight() == calls).await;
    }

    /// The fake answers what it has kept, and all that comes.
    fn let_go(&self) {
        self.fake.set(fake::Mode::Answer(usize::MAX));
        self.fake.release();
    }

    fn submitted(&self) -> u64 {
        self.fake.ring.stats().submitted
    }

    /// Everything is given back, once what is under way has completed.
    async fn settles(&self) {
        eventually("all is given back", || {
            let stats = self.fake.ring.stats();
            // Every slot is answered once, and its memory free.
            let settled = (stats.completed, stats.arena_leased) == (stats.submitted, 0);
            let held = self.engine.outstanding() + self.engine.admission().in_flight();
            settled && held == 0 && self.fake.resident.load(Ordering::SeqCst) == 0
        })
        .await;
        assert_eq!(self.engine.admission().bytes_in_flight(), 0);
        assert_eq!(self.fake.ring.stats().faults, 0, "no slot is answered twice");
        assert_eq!(self.fake.unprepared.load(Ordering::Relaxed), 0, "no slot is submitted before its job is prepared");
        // A batch's task holds the engine no longer than its callers do.
        assert_eq!(Arc::strong_count(&self.engine), 1);
    }
}

fn hits(outcome: &Outcome<Vec<Ranked>>) -> Vec<Vec<Hit>> {
    let ranked = &outcome.answer;
    ranked.iter().map(|ranked| ranked.hits.clone()).collect()
}

fn wish(kind: BackendKind) -> Terms {
    Terms { backend: Some(kind), ..Terms::default() }
}

async fn answer(call: Call) -> Outcome<Vec<Ranked>> {
    call.await.expect("no panic").expect("a good job")
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::task::yield_now().await;
    }
}
