//! The CUDA kernels' answers, without a GPU: the device code itself, compiled as C++, behind the backend that drives a
//! GPU otherwise. What `conformance.rs` asks of the CPU is asked of it here, on less data, since a processor that
//! emulates a GPU is slow.
//!
//! Needs a C++20 compiler; where none is found the tests say that they were skipped.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::encode::keyword::Automaton;
use megaring_core::matrix::Matrix;
use megaring_core::search::Search;
use megaring_core::{BackendKind, Metric};
use megaring_cuda::twin::Twin;
use megaring_cuda::{CudaMode, CudaOptions, CudaScreen};
use megaring_datasets::{Embeddings, memories, points, sample};
use megaring_engine::Terms;
use megaring_ring::{RingConfig, WaitStrategy};
use memory::count;
use suite::Subject;

#[path = "support/memory.rs"]
mod memory;
#[path = "support/suite.rs"]
mod suite;

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
            // Past the capture of tests that pass: it is to be counted.
            _ = writeln!(std::io::stdout(), "\nskipped: {reason}");
            return None;
        }
    };
    let ring = RingConfig { capacity: 64, arena_bytes: 32 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() };
    let options = CudaOptions { ring, ..options };
    let automaton = Automaton::new(&suite::profile());
    let (backend, ring) = megaring_cuda::start_on(twin.clone(), &options, &automaton).expect("the twin starts");
    let name = format!("the twin, {}, {}", options.mode, options.screen);
    let running = |_: &_| vec![(Box::new(backend) as _, ring)];
    Some((Subject::start(BackendKind::Cuda, &name, None, running), twin))
}

#[test]
fn every_operation_is_answered() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    suite::every_operation_is_answered(&subject);
}

#[test]
fn the_real_sample_is_searched_exactly_for_every_metric_k_and_batch() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    let rows = sample().expect("the sample is embedded").embeddings.head(600);
    let truths = Metric::ALL.map(|metric| suite::truth(metric, &rows.values, &rows));
    subject.store_rows("real", &rows, &[250]);
    let sizes = [1, 7, 8, 9, 64, 65, 200];
    let cases = [(1, &sizes[..]), (10, &sizes), (100, &sizes), (rows.rows, &[1, 9, 65])];
    suite::rows_find_each_other(&subject, ("real", &rows), &truths, &cases);
}

#[test]
fn every_mode_answers_alike() {
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    let truths = Metric::ALL.map(|metric| suite::truth(metric, &rows.values, &rows));
    let generated = memories(50, 6).expect("the sample is embedded");
    let want = suite::encoded(&generated);
    for mode in CudaMode::ALL {
        let Some(subject) = subject(mode, 0) else { return };
        subject.store_rows("real", &rows, &[100]);
        suite::rows_find_each_other(&subject, ("real", &rows), &truths, &[(10, &[1, 9, 64]), (300, &[3])]);
        suite::memories_are_encoded(&subject, &generated, &want);
    }
}

#[test]
fn generated_corpora_of_odd_shapes_are_searched_exactly() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    suite::odd_shapes_are_searched(&subject, &[(1, 1), (17, 7), (300, 8), (999, 128), (64, 1536), (40, 4096)]);
}

#[test]
fn every_k_is_answered_and_thresholds_are_kept() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    suite::every_k_is_answered(&subject);
    suite::thresholds_are_kept(&subject);
}

#[test]
fn a_screen_by_rows_answers_alike() {
    let options = CudaOptions { screen: CudaScreen::Float32, ..CudaOptions::default() };
    let Some(subject) = subject_with(options) else { return };
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    let truths = Metric::ALL.map(|metric| suite::truth(metric, &rows.values, &rows));
    subject.store_rows("real", &rows, &[100, 3]);
    suite::rows_find_each_other(&subject, ("real", &rows), &truths, &[(1, &[1, 8]), (10, &[1, 9, 40]), (100, &[3])]);
    suite::odd_shapes_are_searched(&subject, &[(17, 7), (300, 8), (64, 1536), (40, 4097)]);
}

/// Rows a hair apart: the codes cannot tell them apart and leave every row to the host, the rows themselves can.
#[test]
fn a_screen_by_rows_tells_near_rows_apart() {
    let mut rows = Embeddings { rows: 1, dim: 64, seed: 5, ..Embeddings::default() }.generate();
    let first = rows.values.clone();
    rows.rows = 900;
    rows.values = (0..900).flat_map(|row| first.iter().map(move |v| v * (1.0 + row as f32 * 3e-4))).collect();
    let truth = suite::truth(Metric::L2, &rows.head(4).values, &rows);
    for (screen, few) in [(CudaScreen::Int8, false), (CudaScreen::Float32, true)] {
        let Some(subject) = subject_with(CudaOptions { screen, ..CudaOptions::default() }) else { return };
        subject.store_rows("near", &rows, &[]);
        let corpus = subject.engine.store().view("near").expect("the corpus is there");
        let queries = Matrix { rows: 4, dim: 64, values: rows.head(4).values };
        let job = Search { corpus, queries, metric: Metric::L2, k: 5, threshold: None };
        let terms = Terms { backend: Some(BackendKind::Cuda), ..Terms::default() };
        let outcome = subject.engine.run_blocking(job, terms).expect("a good job");
        let ranked = outcome.answer;
        for (got, want) in ranked.iter().zip(&truth) {
            let got: Vec<_> = got.hits.iter().map(|hit| (hit.row, hit.score.to_bits())).collect();
            assert_eq!(got[..], want[..5], "{screen}");
        }
        let rescored = outcome.made.rows_rescored;
        assert_eq!(rescored < 4 * 100, few, "{screen}: {rescored} rows were rescored");
    }
}

#[test]
fn a_corpus_that_grows_is_searched_as_it_is() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    memory::a_corpus_that_grows_is_searched_as_it_is(&subject);
}

/// Budgets below what the corpora need: some give way to others, and the largest is streamed.
#[test]
fn corpora_beyond_the_memory_are_searched_exactly() {
    // A launch for each batch goes on in the middle of a stream.
    let cases = [(CudaMode::Persistent, 64 << 10), (CudaMode::Persistent, 300 << 10), (CudaMode::Launch, 64 << 10)];
    for (mode, memory_bytes) in cases {
        let Some(subject) = subject(mode, memory_bytes) else { return };
        memory::corpora_beyond_the_memory_are_searched(&subject);
        let given_way = count(&subject, "evictions") + count(&subject, "tiles");
        assert!(given_way > 0, "all fitted {memory_bytes} bytes: {:?}", subject.engine.counters());
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
    let truth = suite::truth(Metric::Cosine, &values, &rows);
    subject.store_rows("streamed", &rows, &[]);
    let begin = || {
        let queries = Matrix { rows: 3, dim: 64, values: values.clone() };
        let corpus = subject.engine.store().view("streamed").expect("the corpus is there");
        let job = Search { corpus, queries, metric: Metric::Cosine, k: 3, threshold: None };
        let terms = Terms { backend: Some(BackendKind::Cuda), ..Terms::default() };
        let engine = subject.engine.clone();
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
            let ranked = outcome.answer;
            for (ranked, want) in ranked.iter().zip(&truth) {
                let got = ranked.hits.iter().map(|hit| (hit.row, hit.score.to_bits()));
                assert!(got.eq(want[..3].iter().copied()), "round {round}");
            }
        }
        done_with += 3 * tiles;
        await_tiles(done_with + 2);
        assert_eq!(count(&subject, "tiles"), done_with + 2, "twelve tiles a job");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_the_others_answers_alone() {
    let Some(subject) = subject(CudaMode::Persistent, 80 << 10) else { return };
    memory::callers_that_go_away_leave_the_others_answers_alone(&subject).await;
    assert!(count(&subject, "evictions") + count(&subject, "tiles") > 0, "{:?}", subject.engine.counters());
}

/// A budget in which not even a tile of a corpus has room.
#[test]
fn what_the_memory_cannot_hold_is_done_by_the_cpu() {
    let Some(subject) = subject(CudaMode::Persistent, 1) else { return };
    let rows = Embeddings { rows: 3_000, dim: 64, seed: 5, ..Embeddings::default() }.generate();
    let queries = rows.head(400);
    subject.store_rows("c", &rows, &[]);
    let job = || {
        let queries = Matrix { rows: 400, dim: 64, values: queries.values.clone() };
        let corpus = subject.engine.store().view("c").expect("the corpus is there");
        Search { corpus, queries, metric: Metric::Dot, k: 10, threshold: None }
    };
    let outcome = subject.engine.run_blocking(job(), Terms::default()).expect("the CPU does it");
    assert_eq!((outcome.made.backend, subject.engine.metrics().snapshot().failovers), (BackendKind::Cpu, 1));
    let ranked = outcome.answer;
    for (ranked, want) in ranked.iter().zip(suite::truth(Metric::Dot, &queries.values, &rows)) {
        assert!(ranked.hits.iter().map(|hit| (hit.row, hit.score.to_bits())).eq(want[..10].iter().copied()));
    }
    let terms = Terms { backend: Some(BackendKind::Cuda), ..Terms::default() };
    let error = subject.engine.run_blocking(job(), terms).expect_err("forced").to_string();
    assert!(error.contains("device memory") && error.contains("\"c\""), "{error}");
}

#[test]
fn score_matrices_are_the_definitions_bits() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    suite::score_matrices_are_the_definition(&subject, &rows, 20);
}

#[test]
fn memories_are_encoded_as_the_golden_file_and_the_reference_say() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    let generated = memories(2_000, 6).expect("the sample is embedded");
    suite::memories_are_encoded(&subject, &generated, &suite::encoded(&generated));
}

#[test]
fn nearest_points_are_those_of_the_reference_sent_or_stored() {
    let Some(subject) = subject(CudaMode::Persistent, 0) else { return };
    suite::nearest_points_are_found(&subject, &points(3_000, 12), &points(9, 13), 2_000);
}
