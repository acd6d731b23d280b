//! The engine's promises about its own resources: permits, deadlines, cancellation, draining, forced backends,
//! telemetry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring::Setup;
use megaring_board::Health;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::operation::{Exact, Piece, Shape};
use megaring_core::score::Score;
use megaring_core::search::Search;
use megaring_core::{Answered, BackendKind, BackendStatus, Error, Metric, Opcode, nearest};
use megaring_corpus::{Access, Rows, Store};
use megaring_datasets::Embeddings;
use megaring_engine::health::Monitor;
use megaring_engine::router::Question;
use megaring_engine::{Engine, Terms};
use megaring_ring::event_ring::{Read, Start};

struct Rig {
    engine: Arc<Engine>,
    _folder: tempfile::TempDir,
}

fn rig(change: impl FnOnce(&mut Setup)) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
    let rows = Embeddings { rows: 3_000, dim: 64, ..Embeddings::default() }.generate();
    store.create("c", 64).expect("a new name");
    let mut appender = store.append("c").expect("the corpus is there");
    let embeddings = Matrix { rows: rows.rows, dim: 64, values: rows.values };
    appender.push(Rows { embeddings, ..Rows::default() }).expect("finite rows");
    appender.commit().expect("room on disk");
    let mut config = Setup::new(Profile::parse(DEFAULT).expect("the default profile"));
    (config.cuda, config.wgpu) = (None, None);
    change(&mut config);
    Rig { engine: config.start(store).expect("an engine"), _folder: folder }
}

impl Rig {
    fn search(&self, queries: usize) -> Search {
        let corpus = self.engine.store().view("c").expect("the corpus is there");
        let values: Vec<f32> = (0..queries * 64).map(|i| ((i * 31 % 17) as f32 - 8.0) / 8.0).collect();
        let queries = Matrix { rows: queries, dim: 64, values };
        Search { corpus, queries: queries.into(), metric: Metric::Dot, k: 10, threshold: None }
    }

    /// Everything is given back, once what is under way has completed.
    async fn settles(&self) {
        let begun = Instant::now();
        while self.engine.outstanding() > 0 || self.engine.admission().in_flight() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "something is still held");
            tokio::task::yield_now().await;
        }
        assert_eq!(self.engine.admission().bytes_in_flight(), 0);
    }
}

#[tokio::test]
async fn awaiting_and_blocking_answer_alike() {
    let rig = rig(|_| {});
    for queries in [0, 1, 5, 700] {
        let awaited = rig.engine.run(rig.search(queries), Terms::default()).await.expect("a good job");
        let blocking = rig.engine.run_blocking(rig.search(queries), Terms::default()).expect("a good job");
        assert_eq!(awaited.answer, blocking.answer);
        let hits = awaited.answer;
        assert_eq!(hits.len(), queries);
    }
    assert_eq!(rig.engine.metrics().snapshot().jobs_answered, 8);
    rig.settles().await;
}

#[tokio::test]
async fn a_batch_larger_than_the_arena_is_split_and_never_refused() {
    let rig = rig(|config| {
        config.arena_bytes = 1 << 20;
        config.ring_slots = 4;
    });
    let outcome = rig.engine.run(rig.search(6_000), Terms::default()).await.expect("split, not refused");
    let hits = outcome.answer;
    assert_eq!(hits.len(), 6_000);
    rig.settles().await;
}

#[tokio::test]
async fn an_item_larger_than_the_arena_is_refused_with_the_limit() {
    let rig = rig(|config| config.arena_bytes = 1 << 20);
    let columns = Arc::new(std::array::from_fn(|_| vec![0.5; 100_000]));
    let job =
        Nearest { points: Points::Sent(columns), queries: vec![[0.0; 5]], weights: nearest::DEFAULT_WEIGHTS, k: 1 };
    let error = rig.engine.run(job, Terms::default()).await.expect_err("4 MB do not fit 1 MiB");
    assert!(
        matches!(&error, Error::Invalid(refused) if refused.row == Some(0) && refused.field == "queries"),
        "{error}"
    );
    // That was no failure of the lane: it goes on with other jobs.
    let shape = Shape { items: 1, text_bytes: 9, ..Shape::default() };
    let description = Opcode::Encode.describe(&shape).expect("a good shape");
    let question = Question { opcode: Opcode::Encode, description, corpus: None, wish: None, cold: false };
    let prospects = rig.engine.router().explain(&question).prospects;
    assert!(prospects.iter().all(|prospect| prospect.reserve.is_none()), "{prospects:?}");
    rig.settles().await;
}

#[tokio::test]
async fn a_deadline_that_passed_stops_a_job_at_every_stage() {
    let rig = rig(|_| {});
    let past = Terms { deadline: Some(Instant::now()), ..Terms::default() };
    let error = rig.engine.run(rig.search(1), past.clone()).await.expect_err("too late");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    assert!(matches!(rig.engine.run_blocking(rig.search(1), past), Err(Error::DeadlineExceeded { .. })));
    // 30,000 queries take longer than a millisecond on any machine: the deadline passes while they are worked on.
    let soon = Terms { deadline: Some(Instant::now() + Duration::from_millis(1)), ..Terms::default() };
    let error = rig.engine.run(rig.search(30_000), soon).await.expect_err("too late");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    rig.settles().await;
}

#[tokio::test]
async fn a_cancelled_call_gives_everything_back() {
    let rig = rig(|_| {});
    for _ in 0..20 {
        let (engine, job) = (rig.engine.clone(), rig.search(5_000));
        let call = tokio::spawn(async move { engine.run(job, Terms::default()).await });
        tokio::task::yield_now().await;
        call.abort();
        let _ = call.await;
    }
    rig.settles().await;
    assert!(rig.engine.run(rig.search(1), Terms::default()).await.is_ok());
}

#[tokio::test]
async fn a_full_service_says_when_to_try_again() {
    // Four slots at three a job make one place.
    let rig = rig(|config| (config.ring_slots, config.engine.queue) = (4, Duration::ZERO));
    let engine = rig.engine.clone();
    let long = rig.search(20_000);
    let call = tokio::spawn(async move { engine.run(long, Terms::default()).await });
    while rig.engine.admission().in_flight() == 0 && !call.is_finished() {
        tokio::task::yield_now().await;
    }
    match rig.engine.run(rig.search(1), Terms::default()).await {
        Err(Error::Exhausted { retry_after, .. }) => assert!(retry_after >= Duration::from_millis(1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.engine.metrics().snapshot().jobs_refused, 1);
    assert!(call.await.expect("no panic").is_ok());
    assert!(rig.engine.run(rig.search(1), Terms::default()).await.is_ok(), "the place is free again");
}

#[tokio::test]
async fn whoever_finds_no_place_waits_for_one() {
    let rig = rig(|config| (config.ring_slots, config.engine.queue) = (4, Duration::from_secs(3_600)));
    let calls = [5_000, 1, 20, 1, 1].map(|queries| {
        let (engine, job) = (rig.engine.clone(), rig.search(queries));
        tokio::spawn(async move { engine.run(job, Terms::default()).await })
    });
    for call in calls {
        call.await.expect("no panic").expect("room for one, and for four in line");
    }
    assert_eq!(rig.engine.metrics().snapshot().jobs_refused, 0);
    rig.settles().await;
}

#[tokio::test]
async fn draining_refuses_new_jobs_and_waits_for_the_rest() {
    let rig = rig(|_| {});
    let (engine, job) = (rig.engine.clone(), rig.search(4_000));
    let call = tokio::spawn(async move { engine.run(job, Terms::default()).await });
    while rig.engine.admission().in_flight() == 0 && !call.is_finished() {
        tokio::task::yield_now().await;
    }
    rig.engine.drain().await;
    assert_eq!(rig.engine.admission().in_flight(), 0);
    assert!(matches!(rig.engine.run(rig.search(1), Terms::default()).await, Err(Error::Draining)));
    assert!(call.await.expect("no panic").is_ok(), "what was in flight is answered");
}

#[tokio::test]
async fn a_search_that_finds_more_than_the_caller_can_take_stops() {
    let rig = rig(|_| {});
    let with = |max_answers| {
        let mut job = rig.search(40);
        job.k = 3_000;
        job.threshold = Some(-1e30);
        rig.engine.run(job, Terms { max_answers, ..Terms::default() })
    };
    match with(Some(40 * 3_000 - 1)).await {
        Err(Error::Invalid(violation)) => assert!(violation.description.contains("119999 hits"), "{violation}"),
        other => panic!("{:?}", other.map(|outcome| outcome.made)),
    }
    assert!(with(Some(40 * 3_000)).await.is_ok(), "exactly what fits");
    rig.settles().await;
}

#[tokio::test]
async fn queries_that_no_screen_can_bound_are_answered_exactly() {
    // A zero query ties with every row, so every row is scored.
    let rig = rig(|_| {});
    let queries = Matrix { rows: 1, dim: 64, values: vec![0.0; 64] }.into();
    let job = Search { queries, metric: Metric::Cosine, ..rig.search(1) };
    let outcome = rig.engine.run(job, Terms::default()).await.expect("a good job");
    let hits = outcome.answer;
    assert_eq!(hits[0].hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!(outcome.made.rows_rescored, 3_000);
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_refused_with_its_reason() {
    let rig = rig(|_| {});
    for (kind, expected) in [(BackendKind::Cuda, "--cuda off"), (BackendKind::Wgpu, "--wgpu off")] {
        let terms = Terms { backend: Some(kind), ..Terms::default() };
        match rig.engine.run(rig.search(1), terms).await {
            Err(Error::BackendUnavailable { kind: named, reason }) => {
                assert_eq!(named, kind);
                assert!(reason.contains(expected), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    let terms = Terms { backend: Some(BackendKind::Cpu), ..Terms::default() };
    assert!(rig.engine.run(rig.search(1), terms).await.is_ok());
    let backends = rig.engine.backends();
    assert!(matches!(&backends[0], (BackendKind::Cpu, BackendStatus::Available(c)) if c.lanes > 0));
    assert_eq!(backends.len(), 3);
}

#[tokio::test]
async fn every_answered_job_leaves_an_event() {
    let rig = rig(|_| {});
    let mut events = rig.engine.telemetry().ring().consumer(Start::Oldest).expect("a place");
    rig.engine.run(rig.search(3), Terms { tenant: "who".into(), ..Terms::default() }).await.expect("a good job");
    let Read::Event(event) = events.try_read() else { panic!("an event is there") };
    assert_eq!(event.kind(), megaring_ledger::Kind::ANSWERED.0);
    assert_eq!(event.source(), megaring_ring::fnv1a64(b"who"));
    assert_eq!(&event.data()[..2], (megaring_core::Opcode::Search as u16).to_le_bytes());
    assert_eq!(&event.data()[8..16], 3_u64.to_le_bytes());
    // The codes of all rows, once.
    assert_eq!(&event.data()[16..24], (3_000_u64 * 64).to_le_bytes());
    assert_eq!(events.try_read(), Read::Empty);
}

#[tokio::test]
async fn the_board_tells_how_the_engine_has_been() {
    let rig = rig(|config| (config.engine.tenant_jobs, config.engine.queue) = (1, Duration::ZERO));
    let board = rig.engine.board().clone();
    // What a monitor tells first is of all that came since it began, however long that took.
    let monitor = || Monitor::new(&rig.engine).expect("the only one");
    let tell = |mut monitor: Monitor| {
        monitor.tell(&rig.engine);
        board.health().expect("nobody writes it now")
    };
    let quiet = tell(monitor());
    assert_eq!(quiet, Health { memory_pressure: quiet.memory_pressure, ..Health::default() });
    let busy = monitor();
    assert!(matches!(Monitor::new(&rig.engine), Err(Error::UnderWay { .. })), "one tells at a time");
    let held = rig.engine.admission().try_admit(&Terms::default(), 1).expect("the only place");
    let refused =
        async || matches!(rig.engine.run(rig.search(1), Terms::default()).await, Err(Error::Exhausted { .. }));
    assert!(refused().await);
    let busy = tell(busy);
    assert!(busy.error_rate == 1.0 && busy.jobs_per_second == 0.0 && busy.p99_seconds == 0.0, "{busy:?}");
    assert!(busy.utilisation > 0.0 && busy.utilisation <= 1.0, "one is under way: {busy:?}");
    let mixed = monitor();
    assert!(refused().await);
    drop(held);
    for _ in 0..3 {
        rig.engine.run(rig.search(1), Terms::default()).await.expect("a good job");
    }
    let mixed = tell(mixed);
    assert!(mixed.error_rate == 0.25 && mixed.jobs_per_second > 0.0 && mixed.p99_seconds > 0.0, "{mixed:?}");
}

#[test]
fn an_unknown_instruction_set_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
    let mut config = Setup::new(Profile::parse(DEFAULT).expect("the default profile"));
    config.isa = Some("sse9".into());
    let error = config.start(store).err().expect("there is no sse9").to_string();
    assert!(error.contains("sse9"), "{error}");
}

/// A region may be longer than the answer, never shorter.
#[test]
fn scores_that_are_too_few_are_refused() {
    let rig = rig(|_| {});
    let Search { corpus, metric, .. } = rig.search(2);
    let queries = Matrix { rows: 2, dim: 64, values: vec![1.0; 128] };
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let by = Exact { kernel: &megaring_core::exact::ScalarKernel, profile: &profile };
    let job = Score { corpus, queries, metric, rows: Some(vec![7, 8, 9]) };
    let piece = Piece { items: 0..2, payload: 0, result: 24 };
    let mut scores = Vec::new();
    assert_eq!(job.finish(&piece, &[0; 28], &by, &mut scores).expect("room and more").answers, 6);
    assert_eq!(scores, [0.0; 6]);
    let refused = job.finish(&piece, &[0; 23], &by, &mut scores).expect_err("six scores are 24 bytes");
    assert!(refused.to_string().contains("agreed form"), "{refused}");
}

/// What a device writes is not to be trusted with an index.
#[test]
fn a_list_that_names_a_row_there_is_not_is_refused() {
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let by = Exact { kernel: &megaring_core::exact::ScalarKernel, profile: &profile };
    let piece = Piece { items: 0..1, payload: 0, result: 16 };
    let points = Points::Sent(Arc::new([0; 5].map(|_| vec![0.5; 3])));
    let job = Nearest { points, queries: vec![[0.0; 5]], weights: [1.0; 5], k: 1 };
    let listed = |row: u32| bytemuck::cast_slice::<u32, u8>(&[1, 0, row, 0]).to_vec();
    let mut answer = Vec::new();
    assert!(job.finish(&piece, &listed(2), &by, &mut answer).is_ok());
    let refused = job.finish(&piece, &listed(3), &by, &mut answer).expect_err("there are three rows");
    assert!(refused.to_string().contains("agreed form"), "{refused}");
}
