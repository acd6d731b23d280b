//! A backend that fails, refuses or dies costs callers time, not answers: the job is done again from its start on
//! another lane, unless it was forced. Nothing is kept, and nothing is answered twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use megaring::{Setup, WgpuConfig};
use megaring_board::BreakerRule;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{self, Nearest, Points};
use megaring_core::operation::Shape;
use megaring_core::rescore::{Hit, Ranked};
use megaring_core::score::Score;
use megaring_core::search::Search;
use megaring_core::{BackendKind, BackendStatus, Error, Metric, Opcode};
use megaring_corpus::{Access, Rows, Store};
use megaring_datasets::Embeddings;
use megaring_engine::cost::{Coefficients, CostModel};
use megaring_engine::router::{Question, Routing};
use megaring_engine::{Engine, EngineConfig, Outcome, Running, Terms};
use megaring_ring::Status;
use megaring_ring::event_ring::{Read, Start};
use tokio::task::JoinHandle;

use crate::fake::{Handle, MOST_ITEM_BYTES, Mode, fake};

mod bench;
mod calibration;
mod fake;
mod inline;
mod router;

const ROWS: usize = 3_000;
const DIM: usize = 64;
/// Queries that make a job large enough for a GPU, in four slots of a fake's.
const LARGE: usize = 400;
const K: usize = 10;

/// Goes by what is assumed, whatever the fakes take, and forgives a failure at once.
const STEADY: Routing = Routing { adapts: false, breaker: after(Duration::ZERO) };

/// One failure opens a breaker, for this long.
const fn after(first: Duration) -> BreakerRule {
    BreakerRule { failures: 1, window: Duration::from_secs(10), first }
}

/// As if fakes were measured: large jobs are worth waiting for a dozen others there, small ones are not worth their
/// way.
fn costs(kind: BackendKind) -> CostModel {
    let fixed_ns = if kind == BackendKind::Cuda { 5e4 } else { 6e4 };
    CostModel { screen: Coefficients { fixed_ns, ..Coefficients::default() }, ..CostModel::assumed(kind) }
}

struct Rig {
    engine: Arc<Engine>,
    fakes: Vec<Arc<Handle>>,
    _folder: tempfile::TempDir,
}

fn rig(kinds: &[BackendKind]) -> Rig {
    rig_with(kinds, STEADY)
}

fn rig_with(kinds: &[BackendKind], routing: Routing) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
    let rows = Embeddings { rows: ROWS, dim: DIM, ..Embeddings::default() }.generate();
    store.create("c", DIM).expect("a new name");
    let mut appender = store.append("c").expect("the corpus is there");
    let embeddings = Matrix { rows: ROWS, dim: DIM, values: rows.values };
    appender.push(Rows { embeddings, ..Rows::default() }).expect("finite rows");
    appender.commit().expect("room on disk");
    let (fakes, extra): (Vec<Arc<Handle>>, Vec<Running>) = kinds.iter().map(|kind| fake(*kind)).unzip();
    let config = Setup {
        cpu_workers: 2,
        ring_slots: 64,
        cuda: None,
        wgpu: None,
        engine: EngineConfig { routing, ..EngineConfig::new(profile()) },
        ..Setup::new(profile())
    };
    let engine = config.start_with(store, extra).expect("an engine");
    for kind in kinds {
        engine.router().adopt(*kind, costs(*kind), &[]);
    }
    Rig { engine, fakes, _folder: folder }
}

impl Rig {
    fn fake(&self) -> &Handle {
        &self.fakes[0]
    }

    fn search(&self, queries: usize) -> Search {
        let corpus = self.engine.store().view("c").expect("the corpus is there");
        let values: Vec<f32> = (0..queries * DIM).map(|i| ((i * 31 % 1_017) as f32 - 508.0) / 508.0).collect();
        let queries = Matrix { rows: queries, dim: DIM, values };
        Search { corpus, queries: queries.into(), metric: Metric::Dot, k: K, threshold: None }
    }

    /// What the CPU says.
    fn truth(&self, queries: usize) -> Vec<Vec<Hit>> {
        hits(self.engine.run_blocking(self.search(queries), forced(BackendKind::Cpu)).expect("a good job"))
    }

    /// A job as a call of its own.
    fn call(&self, queries: usize, terms: Terms) -> JoinHandle<Result<Outcome<Vec<Ranked>>, Error>> {
        let (engine, job) = (self.engine.clone(), self.search(queries));
        tokio::spawn(async move { engine.run(job, terms).await })
    }

    fn failovers(&self) -> u64 {
        self.engine.metrics().snapshot().failovers
    }

    /// Everything is given back, once what is under way has completed.
    async fn settles(&self) {
        eventually("all is given back", || {
            let settled = |fake: &Arc<Handle>| {
                let stats = fake.ring.stats();
                // Every slot is answered once, and its memory free.
                (stats.completed, stats.arena_leased) == (stats.submitted, 0)
                    && fake.resident.load(Ordering::SeqCst) == 0
            };
            self.engine.outstanding() + self.engine.admission().in_flight() == 0 && self.fakes.iter().all(settled)
        })
        .await;
        assert_eq!(self.engine.admission().bytes_in_flight(), 0);
        for fake in &self.fakes {
            assert_eq!(fake.ring.stats().faults, 0, "no slot is answered twice");
            assert_eq!(fake.unprepared.load(Ordering::Relaxed), 0, "no slot is submitted before its job is prepared");
        }
    }
}

fn hits(outcome: Outcome<Vec<Ranked>>) -> Vec<Vec<Hit>> {
    let ranked = outcome.answer;
    ranked.into_iter().map(|ranked| ranked.hits).collect()
}

/// The answer is the CPU's, and `kind` gave it.
#[track_caller]
fn check(outcome: Outcome<Vec<Ranked>>, kind: BackendKind, truth: &[Vec<Hit>]) {
    assert_eq!((outcome.made.backend, outcome.made.exact), (kind, true));
    assert_eq!(outcome.made.instruction_set == "fake", kind != BackendKind::Cpu);
    // Not printed where it differs: thousands of hits.
    assert!(hits(outcome) == truth, "the answer differs");
}

/// What would do a search whose corpus every device has.
fn question(job: &Search) -> Question {
    let shape = Shape {
        items: job.queries.len() as u64,
        k: job.k as u64,
        corpus: Some(job.corpus.clone()),
        ..Shape::default()
    };
    let description = Opcode::Search.describe(&shape).expect("a good shape");
    Question { opcode: Opcode::Search, description, corpus: None, wish: None, cold: false }
}

fn profile() -> Profile {
    Profile::parse(DEFAULT).expect("the default profile")
}

fn wishing(backend: Option<BackendKind>) -> Terms {
    Terms { backend, ..Terms::default() }
}

fn forced(kind: BackendKind) -> Terms {
    wishing(Some(kind))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn large_jobs_go_to_the_gpu_and_small_ones_stay() {
    let rig = rig(&[BackendKind::Cuda]);
    for (queries, kind) in [(1, BackendKind::Cpu), (LARGE, BackendKind::Cuda), (0, BackendKind::Cpu)] {
        let truth = rig.truth(queries);
        let awaited = rig.engine.run(rig.search(queries), Terms::default()).await.expect("a good job");
        let blocking = rig.engine.run_blocking(rig.search(queries), Terms::default()).expect("a good job");
        for outcome in [awaited, blocking] {
            check(outcome, kind, &truth);
        }
    }
    let small = rig.engine.run(rig.search(1), forced(BackendKind::Cuda)).await.expect("a good job");
    assert_eq!(small.made.backend, BackendKind::Cuda);
    assert_eq!(rig.failovers(), 0);
    assert_eq!(rig.engine.counters(), [(BackendKind::Cuda, vec![("answered", 9)])]);
    rig.settles().await;
}

/// Most likely it is the same GPU.
#[test]
fn wgpu_is_left_out_beside_cuda_unless_its_adapter_is_named() {
    let absence = |adapter: Option<&str>, kinds: &[BackendKind]| {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
        let wgpu = WgpuConfig { adapter: adapter.map(str::to_owned), ..WgpuConfig::default() };
        let profile = Profile::parse(DEFAULT).expect("the default profile");
        let config = Setup { cuda: None, wgpu: Some(wgpu), ..Setup::new(profile) };
        let extra = kinds.iter().map(|kind| fake(*kind).1).collect();
        let states = config.start_with(store, extra).expect("an engine").backends();
        assert_eq!(states.len(), 3);
        states.into_iter().find_map(|(kind, state)| match state {
            BackendStatus::Unavailable { reason } if kind == BackendKind::Wgpu => Some(reason),
            _ => None,
        })
    };
    let reason = absence(None, &[BackendKind::Cuda]).expect("it is not started");
    assert!(reason.contains("CUDA has the GPU already") && reason.contains("--wgpu-adapter"), "{reason}");
    // Looked for, and not found.
    let reason = absence(Some("no adapter has such a name"), &[BackendKind::Cuda]).expect("there is none");
    assert!(!reason.contains("CUDA has the GPU"), "{reason}");
    // One that is brought takes the place of this build's own.
    assert_eq!(absence(None, &[BackendKind::Cuda, BackendKind::Wgpu]), None);
}

#[tokio::test]
async fn a_job_goes_from_gpu_to_gpu_and_then_to_the_cpu() {
    let rig = rig(&[BackendKind::Wgpu, BackendKind::Cuda]);
    let truth = rig.truth(LARGE);
    let (wgpu, cuda) = (&rig.fakes[0], &rig.fakes[1]);
    for (failing, kind) in [(&[][..], BackendKind::Cuda), (&[cuda], BackendKind::Wgpu), (&[wgpu], BackendKind::Cpu)] {
        failing.iter().for_each(|fake| fake.set(Mode::Answer(0)));
        let outcome = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("one of them does it");
        check(outcome, kind, &truth);
    }
    assert_eq!(rig.failovers(), 1 + 2);
    rig.settles().await;
}

#[tokio::test]
async fn what_a_backend_does_not_serve_goes_elsewhere() {
    let rig = rig(&[BackendKind::Cuda]);
    let search = rig.search(LARGE);
    let job = || {
        let queries = Matrix { rows: LARGE, dim: DIM, values: vec![0.5; LARGE * DIM] };
        Score { corpus: search.corpus.clone(), queries, metric: Metric::Dot, rows: None }
    };
    let outcome = rig.engine.run(job(), Terms::default()).await.expect("the CPU serves it");
    assert_eq!(outcome.made.backend, BackendKind::Cpu);
    match rig.engine.run(job(), forced(BackendKind::Cuda)).await {
        Err(Error::BackendUnavailable { reason, .. }) => assert!(reason.contains("score"), "{reason}"),
        other => panic!("{other:?}"),
    }
    rig.settles().await;
}

#[tokio::test]
async fn a_job_that_fails_midway_is_done_again_from_its_start() {
    let rig = rig(&[BackendKind::Cuda]);
    let truth = rig.truth(LARGE);
    // Exactly what the answer holds: hits of the first try must not count.
    let terms = || Terms { max_answers: Some(LARGE * K), ..Terms::default() };
    for (tries, well) in [(1, 0), (2, 1), (3, 3)] {
        rig.fake().set(Mode::Answer(well));
        let awaited = rig.engine.run(rig.search(LARGE), terms()).await.expect("the CPU does it");
        rig.fake().set(Mode::Answer(well));
        let blocking = rig.engine.run_blocking(rig.search(LARGE), terms()).expect("the CPU does it");
        for outcome in [awaited, blocking] {
            check(outcome, BackendKind::Cpu, &truth);
        }
        assert_eq!(rig.failovers(), 2 * tries);
    }
    rig.settles().await;
}

#[tokio::test]
async fn each_lane_gets_one_try() {
    let rig = rig(&[BackendKind::Cuda, BackendKind::Cuda]);
    let truth = rig.truth(LARGE);
    rig.fakes[0].set(Mode::Answer(2));
    let outcome = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("the second does it");
    check(outcome, BackendKind::Cuda, &truth);
    assert_eq!(rig.failovers(), 1);
    rig.fakes[0].set(Mode::Answer(2));
    rig.fakes[1].set(Mode::Answer(2));
    let outcome = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("the CPU does it");
    check(outcome, BackendKind::Cpu, &truth);
    assert_eq!(rig.failovers(), 3);
    rig.settles().await;
}

#[tokio::test]
async fn an_operation_that_a_backend_turns_out_not_to_know_is_done_elsewhere() {
    let rig = rig(&[BackendKind::Cuda]);
    let truth = rig.truth(LARGE);
    rig.fake().set(Mode::Answer(0));
    rig.fake().fails_with.store(Status::UnknownOpcode.code(), Ordering::Relaxed);
    check(
        rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("the CPU does it"),
        BackendKind::Cpu,
        &truth,
    );
    assert_eq!(rig.failovers(), 1);
    let refused = rig.engine.run(rig.search(LARGE), forced(BackendKind::Cuda)).await.expect_err("nobody else may");
    assert!(matches!(&refused, Error::Internal(text) if text.contains("UnknownOpcode")), "{refused}");
    rig.settles().await;
}

#[tokio::test]
async fn a_backend_that_fails_is_left_alone_and_tried_again() {
    let rig = rig_with(&[BackendKind::Cuda], Routing { breaker: after(Duration::from_secs(3600)), ..STEADY });
    let run = async || {
        let outcome = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("one of them does it");
        outcome.made.backend
    };
    assert_eq!(run().await, BackendKind::Cuda);
    rig.fake().set(Mode::Answer(0));
    for _ in 0..3 {
        assert_eq!(run().await, BackendKind::Cpu);
    }
    assert_eq!(rig.failovers(), 1, "the others did not go there at all");
    let told = rig.engine.router().explain(&question(&rig.search(LARGE)));
    let cuda = told.prospects.iter().find(|one| one.kind == BackendKind::Cuda).expect("told");
    assert!(cuda.reserve.as_ref().is_some_and(|reason| reason.contains("left alone")), "{cuda:?}");
    // Who insists on it is not kept from it, and its answer ends the wait.
    rig.fake().set(Mode::Answer(usize::MAX));
    rig.engine.run(rig.search(1), forced(BackendKind::Cuda)).await.expect("it is well again");
    assert_eq!(run().await, BackendKind::Cuda);
    rig.settles().await;
}

#[tokio::test]
async fn a_forced_backend_that_fails_is_an_error() {
    let rig = rig(&[BackendKind::Cuda]);
    rig.fake().set(Mode::Answer(1));
    for queries in [1, LARGE] {
        rig.fake().set(Mode::Answer(queries / LARGE));
        let error = rig.engine.run(rig.search(queries), forced(BackendKind::Cuda)).await.expect_err("it fails");
        assert!(matches!(&error, Error::Internal(what) if what.contains("backend cuda failed")), "{error}");
    }
    rig.settles().await;
    rig.fake().set(Mode::Keep);
    let call = rig.call(LARGE, forced(BackendKind::Cuda));
    eventually("slots are under way", || rig.fake().kept() == 3).await;
    rig.fake().die("the device fell off the bus");
    match call.await.expect("no panic") {
        Err(Error::BackendUnavailable { kind: BackendKind::Cuda, reason }) => assert!(reason.contains("off the bus")),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.failovers(), 0);
}

/// It would fit the ring: the backend has said that it cannot do it.
#[tokio::test]
async fn an_item_larger_than_a_backend_takes_is_refused_before_it_is_asked() {
    let rig = rig(&[BackendKind::Cuda]);
    let columns = std::array::from_fn(|_| vec![0.5; MOST_ITEM_BYTES / 40]);
    let points = Points::Sent(Arc::new(columns));
    let job = Nearest { points, queries: vec![[0.0; 5]], weights: nearest::DEFAULT_WEIGHTS, k: 1 };
    let error = rig.engine.run(job, forced(BackendKind::Cuda)).await.expect_err("more than it takes");
    assert!(matches!(&error, Error::Invalid(refused) if refused.row == Some(0)), "{error}");
    rig.engine.run(rig.search(1), forced(BackendKind::Cuda)).await.expect("it goes on with others");
    rig.settles().await;
}

#[tokio::test]
async fn an_unwell_backend_gets_no_jobs() {
    let rig = rig(&[BackendKind::Cuda]);
    rig.fake().fall_ill("its heart stopped");
    let outcome = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("the CPU does it");
    assert_eq!(outcome.made.backend, BackendKind::Cpu);
    match rig.engine.run(rig.search(1), forced(BackendKind::Cuda)).await {
        Err(Error::BackendUnavailable { kind: BackendKind::Cuda, reason }) => assert_eq!(reason, "its heart stopped"),
        other => panic!("{other:?}"),
    }
    assert_eq!((rig.failovers(), rig.fake().ring.stats().submitted), (0, 0));
    let states = rig.engine.backends();
    let cuda = states.iter().find(|(kind, _)| *kind == BackendKind::Cuda).expect("told");
    assert!(
        matches!(&cuda.1, BackendStatus::Unavailable { reason } if reason.contains("its heart stopped")),
        "{cuda:?}"
    );
    assert_eq!(states.len(), 3);
    rig.settles().await;
}

#[tokio::test]
async fn a_closed_ring_is_no_refusal() {
    let rig = rig(&[BackendKind::Cuda]);
    let truth = rig.truth(LARGE);
    // Closed between the choice and the submission.
    rig.fake().set_open(false);
    let call = rig.call(LARGE, Terms::default());
    let insisting = rig.call(LARGE, forced(BackendKind::Cuda));
    eventually("both are prepared", || rig.fake().preparing.load(Ordering::SeqCst) == 2).await;
    rig.fake().ring.close();
    rig.fake().set_open(true);
    let outcome = call.await.expect("no panic").expect("the CPU does it");
    check(outcome, BackendKind::Cpu, &truth);
    let error = insisting.await.expect("no panic").expect_err("forced");
    assert!(matches!(error, Error::BackendUnavailable { kind: BackendKind::Cuda, .. }), "{error}");
    assert_eq!(rig.failovers(), 1);
    // And before the choice.
    let outcome = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("the CPU does it");
    check(outcome, BackendKind::Cpu, &truth);
    assert_eq!(rig.failovers(), 1);
    rig.settles().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_prepared_is_done_elsewhere() {
    let rig = rig(&[BackendKind::Cuda]);
    let truth = rig.truth(LARGE);
    let reason = "the corpus does not fit the device".to_owned();
    rig.fake().refuse(Some(Error::BackendUnavailable { kind: BackendKind::Cuda, reason }));
    let awaited = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("the CPU does it");
    let blocking = rig.engine.run_blocking(rig.search(LARGE), Terms::default()).expect("the CPU does it");
    for outcome in [awaited, blocking] {
        check(outcome, BackendKind::Cpu, &truth);
    }
    let error = rig.engine.run(rig.search(LARGE), forced(BackendKind::Cuda)).await.expect_err("forced");
    assert!(error.to_string().contains("does not fit the device"), "{error}");
    assert_eq!(rig.failovers(), 2);
    let full = Error::Exhausted { what: "the device's memory", retry_after: Duration::from_millis(1) };
    rig.fake().refuse(Some(full));
    let outcome = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect("the CPU does it");
    check(outcome, BackendKind::Cpu, &truth);
    let error = rig.engine.run(rig.search(LARGE), forced(BackendKind::Cuda)).await.expect_err("forced");
    assert!(matches!(error, Error::Exhausted { .. }), "{error}");
    // Any other error is about the job.
    rig.fake().refuse(Some(Error::field("queries", "not these")));
    let error = rig.engine.run(rig.search(LARGE), Terms::default()).await.expect_err("the job's own fault");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert_eq!((rig.failovers(), rig.fake().ring.stats().submitted), (3, 0));
    rig.settles().await;
}

/// On one async thread: a `prepare` that blocked it would never let the test go on.
#[tokio::test]
async fn preparing_holds_up_nobody_else() {
    let rig = rig(&[BackendKind::Cuda]);
    rig.fake().set_open(false);
    let call = rig.call(LARGE, Terms::default());
    eventually("it prepares", || rig.fake().preparing.load(Ordering::SeqCst) == 1).await;
    let small = rig.engine.run(rig.search(1), Terms::default()).await.expect("a small job meanwhile");
    assert_eq!(small.made.backend, BackendKind::Cpu);
    // Nor is a caller held up whose time is over, or one that goes away.
    let mut patience = Duration::from_millis(5);
    loop {
        let job = rig.search(LARGE);
        let soon = Terms { deadline: Some(Instant::now() + patience), ..Terms::default() };
        match rig.engine.run(job, soon).await.expect_err("too late") {
            Error::DeadlineExceeded { stage: "being prepared" } => break,
            // On a busy machine it was over before.
            Error::DeadlineExceeded { .. } => patience *= 2,
            error => panic!("{error}"),
        }
    }
    let gone = rig.call(LARGE, Terms::default());
    eventually("three prepare", || rig.fake().preparing.load(Ordering::SeqCst) == 3).await;
    gone.abort();
    assert!(gone.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(rig.engine.admission().in_flight(), 1, "two have given their places back");
    rig.fake().set_open(true);
    let outcome = call.await.expect("no panic").expect("a good job");
    assert_eq!(outcome.made.backend, BackendKind::Cuda);
    rig.settles().await;
    assert_eq!(rig.fake().ring.stats().submitted, 4, "nobody else's slots");
}

#[tokio::test]
async fn a_dropped_call_gives_everything_back() {
    let rig = rig(&[BackendKind::Cuda]);
    rig.fake().set(Mode::Keep);
    let calls: Vec<_> = (0..5).map(|_| rig.call(LARGE, Terms::default())).collect();
    eventually("three slots of each are under way", || rig.fake().kept() == 15).await;
    assert_eq!(rig.fake().resident.load(Ordering::SeqCst), 5);
    calls.iter().for_each(JoinHandle::abort);
    for call in calls {
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!((rig.engine.admission().in_flight(), rig.fake().resident.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(rig.engine.outstanding(), 15, "their memory is the backend's until it answers");
    rig.fake().set(Mode::Answer(usize::MAX));
    rig.fake().release();
    rig.settles().await;
    assert!(rig.engine.run(rig.search(LARGE), Terms::default()).await.is_ok());
    rig.settles().await;
}

#[tokio::test]
async fn the_callers_time_limit_goes_on() {
    let rig = rig(&[BackendKind::Cuda]);
    rig.fake().set(Mode::FailLate);
    let soon = Terms { deadline: Some(Instant::now() + Duration::from_millis(20)), ..Terms::default() };
    // Blocking, since a caller that awaits is gone before the backend fails.
    let error = rig.engine.run_blocking(rig.search(LARGE), soon).expect_err("too late for another try");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    assert_eq!(rig.failovers(), 0);
    rig.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_dies_under_load_loses_no_job() {
    let rig = rig(&[BackendKind::Cuda]);
    let truth = rig.truth(LARGE);
    let mut events = rig.engine.telemetry().ring().consumer(Start::Latest).expect("a place");
    rig.fake().set(Mode::Keep);
    let calls: Vec<_> = (0..12).map(|_| rig.call(LARGE, Terms::default())).collect();
    eventually("slots of all are under way", || rig.fake().kept() == 36).await;
    rig.fake().die("no heartbeat");
    for call in calls {
        let outcome = call.await.expect("no panic").expect("the CPU does it");
        check(outcome, BackendKind::Cpu, &truth);
    }
    assert_eq!(rig.failovers(), 12);
    for _ in 0..12 {
        assert!(matches!(events.try_read(), Read::Event(_)));
    }
    assert_eq!(events.try_read(), Read::Empty, "each job is answered once");
    eventually("all places are free", || rig.engine.admission().in_flight() == 0).await;
    assert_eq!(rig.engine.admission().bytes_in_flight(), 0);
    assert_eq!((rig.engine.outstanding(), rig.fake().resident.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(rig.fake().ring.stats().quarantined, 36, "the dead device may still write there");
}
