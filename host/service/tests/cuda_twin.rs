//! The CUDA kernels' answers, without a GPU: the device code itself, compiled as C++, behind the backend that drives a
//! GPU otherwise. What `conformance.rs` asks of the CPU is asked of it here, on less data, since a processor that
//! emulates a GPU is slow.
//!
//! Needs a C++20 compiler; where none is found the tests say that they were skipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::count;
use megaring_bench::cases::search::{near_rows_are_found, rows_by_number, rows_find_each_other, truth};
use megaring_bench::cases::{self, Cases, Check, Scale, Subject, matrix, residency};
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::search::Search;
use megaring_core::{BackendKind, Metric};
use megaring_cuda::twin::Twin;
use megaring_cuda::{CudaMode, CudaOptions, CudaScreen, Timings};
use megaring_datasets::{Embeddings, sample};
use megaring_engine::Terms;
use megaring_ring::{RingConfig, WaitStrategy};

#[path = "support/calls.rs"]
mod calls;
#[path = "support/checks.rs"]
mod checks;

/// How much is asked of every operation.
const SCALE: Scale = Scale::Emulated;

/// The persistent kernel, with memory enough.
fn subjects() -> impl Iterator<Item = Subject> {
    subject(CudaMode::Persistent, 0).into_iter()
}

/// An engine with the twin beside its CPU, or `None` where there is none, having said so.
fn subject(mode: CudaMode, memory_bytes: usize) -> Option<Subject> {
    subject_with(CudaOptions { mode, memory_bytes, ..CudaOptions::default() })
}

/// The same with all options but the ring.
fn subject_with(options: CudaOptions) -> Option<Subject> {
    subject_on(Twin::load(), options).map(|(subject, _)| subject)
}

fn subject_on(twin: Result<Arc<Twin>, String>, options: CudaOptions) -> Option<(Subject, Arc<Twin>)> {
    let twin = match twin {
        Ok(twin) => twin,
        Err(reason) => {
            checks::skipped(&reason);
            return None;
        }
    };
    let ring = RingConfig { capacity: 64, arena_bytes: 32 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() };
    let options = CudaOptions { ring, ..options };
    let automaton = Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"));
    let started = megaring_cuda::start_on(twin.clone(), &options, &Timings::patient(), &automaton);
    let (backend, ring) = started.expect("the twin starts");
    let name = format!("the twin, {}, {}", options.mode, options.screen);
    let running = |_: &_| vec![(Box::new(backend) as _, ring)];
    Some((Subject::start(BackendKind::Cuda, &name, None, running).expect("an engine"), twin))
}

#[test]
fn every_mode_answers_alike() {
    for mode in CudaMode::ALL {
        let Some(subject) = subject(mode, 0) else { return };
        cases::every_operation(&subject, Scale::Brief, |skipped| checks::skipped(&skipped)).expect("all are equal");
    }
}

#[test]
fn a_screen_by_rows_answers_alike() {
    let options = CudaOptions { screen: CudaScreen::Float32, ..CudaOptions::default() };
    let Some(subject) = subject_with(options) else { return };
    let mut check = Check::new(&subject, Scale::Emulated);
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    let batches: [(usize, &[usize]); 3] = [(1, &[1, 8]), (10, &[1, 9, 40]), (100, &[3])];
    rows_find_each_other(&mut check, "the real sample", &rows, &batches).expect("all are equal");
    for (rows, dim) in [(17, 7), (300, 8), (64, 1536), (40, 4097)] {
        let rows = Embeddings { rows, dim, seed: 3, ..Embeddings::default() }.generate();
        let queries = megaring_datasets::queries(&rows, 5, 4);
        let ks = [1, 3, rows.rows];
        near_rows_are_found(&mut check, "an odd shape", (&rows, &queries.values), &ks).expect("all are equal");
        rows_by_number(&mut check, "an odd shape", &rows, 9).expect("all are equal");
    }
}

/// Rows a hair apart: the codes cannot tell them apart and leave every row to the host, the rows themselves can.
#[test]
fn a_screen_by_rows_tells_near_rows_apart() {
    let mut rows = Embeddings { rows: 1, dim: 64, seed: 5, ..Embeddings::default() }.generate();
    let first = rows.values.clone();
    rows.rows = 900;
    rows.values = (0..900).flat_map(|row| first.iter().map(move |v| v * (1.0 + row as f32 * 3e-4))).collect();
    let truth = truth(Metric::L2, &rows.head(4).values, &rows, 5, None);
    for (screen, few) in [(CudaScreen::Int8, false), (CudaScreen::Float32, true)] {
        let Some(subject) = subject_with(CudaOptions { screen, ..CudaOptions::default() }) else { return };
        let corpus = subject.store(&rows, &[]).expect("room on disk");
        let queries = matrix(64, &rows.head(4).values);
        let job = Search { corpus, queries: queries.into(), metric: Metric::L2, k: 5, threshold: None };
        let outcome = subject.run(job).expect("a good job");
        assert_eq!(Search::parts(&outcome.answer), truth, "{screen}");
        let rescored = outcome.made.rows_rescored;
        assert_eq!(rescored < 4 * 100, few, "{screen}: {rescored} rows were rescored");
    }
}

#[test]
fn a_corpus_that_grows_is_searched_as_it_is() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    residency::a_corpus_that_grows_is_searched_as_it_is(&subject, Scale::Emulated).expect("all are equal");
}

/// Rows and dimensions of corpora that do not fit together.
const CROWD: [(usize, usize); 4] = [(400, 128), (900, 128), (400, 128), (1_500, 96)];

/// Budgets below what the corpora need: some give way to others, and the largest is streamed.
#[test]
fn corpora_beyond_the_memory_are_searched_exactly() {
    // A launch for each batch goes on in the middle of a stream.
    let cases = [(CudaMode::Persistent, 64 << 10), (CudaMode::Persistent, 300 << 10), (CudaMode::Launch, 64 << 10)];
    for (mode, memory_bytes) in cases {
        let Some(subject) = subject(mode, memory_bytes) else { return };
        residency::corpora_beyond_the_memory_are_searched(&subject, &CROWD, 20).expect("all are equal");
    }
}

/// More blocks than a job has work for go on to the next job of the same stream. If one still reads a tile of this job,
/// however slowly, the host must not take that tile's buffer for free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_block_keeps_its_tile_from_the_next_job_of_the_stream() {
    let options = CudaOptions { memory_bytes: 64 << 10, ..CudaOptions::default() };
    let Some((subject, twin)) = subject_on(Twin::with(9, 2 << 30), options) else { return };
    let rows = Embeddings { rows: 2_000, dim: 64, seed: 9, ..Embeddings::default() }.generate();
    // In the last of the twelve tiles.
    let asked = [1_905, 1_950, 1_990];
    let values: Vec<f32> = asked.iter().flat_map(|row| rows.values[row * 64..(row + 1) * 64].to_vec()).collect();
    let truth = truth(Metric::Cosine, &values, &rows, 3, None);
    let corpus = subject.store(&rows, &[]).expect("room on disk");
    let begin = || {
        let queries = matrix(64, &values);
        let job =
            Search { corpus: corpus.clone(), queries: queries.into(), metric: Metric::Cosine, k: 3, threshold: None };
        let (engine, terms) = (subject.engine.clone(), subject.terms());
        tokio::spawn(async move { engine.run(job, terms).await })
    };
    // The host copies two tiles ahead of those that are done with.
    let await_tiles = |tiles: u64| {
        let begun = Instant::now();
        while count(&subject, "tiles") < tiles {
            assert!(begun.elapsed() < Duration::from_secs(60), "the stream stands still");
            std::thread::yield_now();
        }
    };
    let (tiles, mut done_with) = (12, 0);
    for round in 0..4 {
        let calls: Vec<_> = (0..3).map(|_| begin()).collect();
        // The first job is in its last tile.
        await_tiles(done_with + tiles - 1 + 2);
        twin.stall(Some(1 + round % 9));
        // How long decides only how much is seen.
        (0..20_000).for_each(|_| std::thread::yield_now());
        twin.stall(None);
        for call in calls {
            let outcome = call.await.expect("no panic").expect("a good job");
            assert_eq!(Search::parts(&outcome.answer), truth, "round {round}");
        }
        done_with += 3 * tiles;
        await_tiles(done_with + 2);
        assert_eq!(count(&subject, "tiles"), done_with + 2, "twelve tiles a job");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_the_others_answers_alone() {
    let Some(subject) = subject(CudaMode::Persistent, 80 << 10) else { return };
    calls::callers_that_go_away_leave_the_others_answers_alone(&subject).await;
    assert!(count(&subject, "evictions") + count(&subject, "tiles") > 0, "{:?}", subject.engine.counters());
}

/// A budget in which not even a tile of a corpus has room.
#[test]
fn what_the_memory_cannot_hold_is_done_by_the_cpu() {
    let Some(subject) = subject(CudaMode::Persistent, 1) else { return };
    let rows = Embeddings { rows: 3_000, dim: 64, seed: 5, ..Embeddings::default() }.generate();
    let queries = rows.head(400);
    let corpus = subject.store(&rows, &[]).expect("room on disk");
    let job = || {
        let queries = matrix(64, &queries.values);
        Search { corpus: corpus.clone(), queries: queries.into(), metric: Metric::Dot, k: 10, threshold: None }
    };
    let outcome = subject.engine.run_blocking(job(), Terms::default()).expect("the CPU does it");
    assert_eq!((outcome.made.backend, subject.engine.metrics().snapshot().failovers), (BackendKind::Cpu, 1));
    let want = truth(Metric::Dot, &queries.values, &rows, 10, None);
    assert_eq!(Search::parts(&outcome.answer), want);
    let error = subject.engine.run_blocking(job(), subject.terms()).expect_err("forced").to_string();
    assert!(error.contains("device memory") && error.contains(&format!("{:?}", corpus.name())), "{error}");
}
