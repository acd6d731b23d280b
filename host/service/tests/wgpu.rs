//! The shaders' answers, on an adapter of this machine: the one that `MEGARING_WGPU_ADAPTER` names, or the first there
//! is, software too. What `conformance.rs` asks of the CPU is asked of it here in each way that it can work, and what
//! becomes of jobs whose device is lost.
//!
//! Where there is no adapter, the tests say that they were skipped.

use std::io::Write;
use std::sync::Arc;

use megaring_core::encode::Encoded;
use megaring_core::encode::keyword::Automaton;
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Neighbour, Points};
use megaring_core::nop::Nop;
use megaring_core::rescore::Hit;
use megaring_core::score::Score;
use megaring_core::search::Search;
use megaring_core::{Answered, BackendKind, Metric, nearest};
use megaring_datasets::{Embeddings, memories, points, poison, sample};
use megaring_engine::{Engine, Terms};
use megaring_ring::{RingConfig, WaitStrategy};
use megaring_wgpu::{WgpuBackend, WgpuOptions};
use memory::count;
use suite::Subject;

#[path = "wgpu/loss.rs"]
mod loss;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/suite.rs"]
mod suite;

/// The adapter that tests run on, by its name.
fn adapter() -> Option<String> {
    let wish = std::env::var("MEGARING_WGPU_ADAPTER").ok().filter(|name| !name.is_empty());
    let found = wish.or_else(|| {
        let usable = megaring_wgpu::adapters().into_iter().find(|adapter| adapter.lacks.is_none());
        usable.map(|adapter| adapter.name)
    });
    if found.is_none() {
        // Past the capture of tests that pass: it is to be counted.
        _ = writeln!(
            std::io::stdout(),
            "\nskipped: this machine has no adapter (`megaring doctor` says how to get one)"
        );
    }
    found
}

/// With all that the adapter offers.
fn best() -> WgpuOptions {
    let ring = RingConfig { capacity: 64, arena_bytes: 64 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() };
    WgpuOptions { ring, ..WgpuOptions::default() }
}

/// With what every adapter offers.
fn plain() -> WgpuOptions {
    WgpuOptions { subgroups: false, float64: false, mappable: false, ..best() }
}

/// An engine with the backend beside its CPU, or `None` where there is no adapter.
fn subject(options: WgpuOptions) -> Option<Subject> {
    subject_as(options, |backend| Box::new(backend))
}

/// The same, with the backend put into a box by the test.
fn subject_as(
    options: WgpuOptions,
    boxed: impl FnOnce(WgpuBackend) -> Box<dyn megaring_core::Backend>,
) -> Option<Subject> {
    let options = WgpuOptions { adapter: Some(adapter()?), ..options };
    let WgpuOptions { subgroups, float64, mappable, part_bytes, memory_bytes, .. } = options;
    let name = format!(
        "wgpu, subgroups {subgroups}, float64 {float64}, mappable {mappable}, {part_bytes} a part, {memory_bytes} in all"
    );
    let automaton = Automaton::new(&suite::profile());
    Some(Subject::start(BackendKind::Wgpu, &name, None, |store| {
        let (backend, ring) =
            megaring_wgpu::start(&options, store.table().clone(), &automaton).expect("the adapter can be used");
        vec![(boxed(backend), ring)]
    }))
}

/// A subject in each of the two ways.
fn subjects() -> impl Iterator<Item = Subject> {
    [best(), plain()].into_iter().map_while(subject)
}

#[test]
fn the_real_sample_is_searched_exactly_for_every_metric_k_and_batch() {
    let rows = sample().expect("the sample is embedded").embeddings;
    let mut truths = None;
    for subject in subjects() {
        let truths = truths.get_or_insert_with(|| Metric::ALL.map(|metric| suite::truth(metric, &rows.values, &rows)));
        subject.store_rows("real", &rows, &[1000]);
        let sizes = [1, 2, 3, 5, 8, 15, 16, 17, 65];
        let cases = [(1, &sizes[..]), (10, &sizes), (100, &[1, 9, 64]), (1_000, &[1, 17]), (rows.rows, &[2])];
        suite::rows_find_each_other(&subject, ("real", &rows), truths, &cases);
    }
}

/// A job of some operation, done by a backend. Its answer leaves out how many rows were left to be scored, which is a
/// backend's own affair.
type Job = Arc<dyn Fn(&Arc<Engine>, BackendKind) -> Answer + Send + Sync>;

/// An answer of any operation, for comparison.
#[derive(PartialEq)]
enum Answer {
    Nothing,
    Hits(Vec<Vec<Hit>>),
    Scores(Vec<f32>),
    Encoded(Vec<Encoded>),
    Neighbours(Vec<Vec<Neighbour>>),
}

fn job<O: Answered + Clone>(job: O, answer: fn(O::Answer) -> Answer) -> Job {
    Arc::new(move |engine, kind| answer(engine.run_blocking(job.clone(), forced(kind)).expect("a good job").answer))
}

/// One job of each kind on the first rows of the real sample, which the subject is given, and on points and memories.
fn jobs(subject: &Subject, count: usize, batch: usize) -> Vec<Job> {
    let rows = sample().expect("the sample is embedded").embeddings.head(count);
    subject.store_rows("real", &rows, &[count / 3]);
    let corpus = subject.engine.store().view("real").expect("the corpus is there");
    let queries = |rows: megaring_datasets::Matrix| Matrix { rows: rows.rows, dim: rows.dim, values: rows.values };
    let mut jobs = vec![job(Nop, |()| Answer::Nothing)];
    for metric in Metric::ALL {
        let (all, few) = (queries(rows.head(batch)), queries(rows.head(40)));
        let search = Search { corpus: corpus.clone(), queries: all, metric, k: 10, threshold: None };
        jobs.push(job(search, |all| Answer::Hits(all.into_iter().map(|ranked| ranked.hits).collect())));
        jobs.push(job(Score { corpus: corpus.clone(), queries: few, metric, rows: None }, Answer::Scores));
    }
    let cloud = points(8 * count, 3);
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let (points, queries) = (Points::Sent(Arc::new(columns)), points(50, 4));
    let nearest = Nearest { points, queries, weights: nearest::DEFAULT_WEIGHTS, k: 10 };
    jobs.push(job(nearest, Answer::Neighbours));
    let memories = memories(2 * count, 7).expect("the sample is embedded");
    jobs.push(job(suite::encode_job(memories.iter()), Answer::Encoded));
    jobs
}

fn forced(kind: BackendKind) -> Terms {
    Terms { backend: Some(kind), ..Terms::default() }
}

#[test]
fn every_operation_is_answered() {
    subjects().for_each(|subject| suite::every_operation_is_answered(&subject));
}

/// Every operation on the whole real sample, bit for bit what the CPU backend says.
#[test]
fn the_cpu_answers_alike() {
    let Some(subject) = subject(best()) else { return };
    for (number, job) in jobs(&subject, 2_048, 2_048).into_iter().enumerate() {
        let answer = |kind| job(&subject.engine, kind);
        // Not printed where it differs: thousands of hits.
        assert!(answer(BackendKind::Wgpu) == answer(BackendKind::Cpu), "job {number}");
    }
}

/// Slots of all kinds share submissions, and workspaces that others have left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_all_kinds_at_once_are_answered_alike() {
    for options in [best(), plain(), WgpuOptions { memory_bytes: 128 << 10, ..best() }] {
        let Some(subject) = subject(options) else { return };
        let jobs = jobs(&subject, 300, 30);
        let want: Vec<Answer> = jobs.iter().map(|job| job(&subject.engine, BackendKind::Cpu)).collect();
        for round in 0..9 {
            let begin = |at: usize| {
                let (engine, job) = (subject.engine.clone(), jobs[at].clone());
                (at, tokio::task::spawn_blocking(move || job(&engine, BackendKind::Wgpu)))
            };
            let calls: Vec<_> = (0..2 * jobs.len()).map(|call| begin((call * 7 + round) % jobs.len())).collect();
            for (at, call) in calls {
                let answer = call.await.expect("no panic");
                assert!(answer == want[at], "job {at} on {}", subject.name);
            }
        }
        memory::settles(&subject).await;
    }
}

#[test]
fn generated_corpora_of_odd_shapes_are_searched_exactly() {
    let shapes =
        [(1, 1), (15, 3), (17, 7), (300, 8), (999, 128), (700, 384), (130, 768), (64, 1_536), (40, 4_096), (5_000, 4)];
    subjects().for_each(|subject| suite::odd_shapes_are_searched(&subject, &shapes));
}

#[test]
fn twenty_thousand_rows_are_searched_exactly() {
    subjects().for_each(|subject| suite::odd_shapes_are_searched(&subject, &[(20_000, 64)]));
}

#[test]
fn a_corpus_without_rows_has_no_hits() {
    for subject in subjects() {
        subject.engine.store().create("empty", 8).expect("a new name");
        let queries = Matrix { rows: 2, dim: 8, values: vec![1.0; 16] };
        for metric in Metric::ALL {
            assert_eq!(subject.search("empty", queries.clone(), metric, 10), [Vec::new(), Vec::new()], "{metric}");
        }
    }
}

#[test]
fn every_k_is_answered_and_thresholds_are_kept() {
    for subject in subjects() {
        suite::every_k_is_answered(&subject);
        suite::thresholds_are_kept(&subject);
    }
}

/// Rows that break careless code: equal ones, zeros, the largest and the smallest numbers, sums that cancel.
#[test]
fn poisoned_rows_are_searched_exactly() {
    let usual = Embeddings { rows: 200, dim: 32, seed: 21, ..Embeddings::default() }.generate();
    let corpora = [
        ("duplicated", poison::duplicated(&usual.head(60), 4)),
        ("constant", poison::constant(150, 32, 1.0)),
        ("zero", poison::zero_row(&usual, 77)),
        ("huge", poison::huge(90, 32)),
        ("tiny", poison::tiny(90, 32)),
        ("cancelling", poison::cancelling(130, 32)),
    ];
    for subject in subjects() {
        for (name, rows) in &corpora {
            let truths = Metric::ALL.map(|metric| suite::truth(metric, &rows.values, rows));
            subject.store_rows(name, rows, &[50]);
            suite::rows_find_each_other(&subject, (name, rows), &truths, &[(1, &[1]), (7, &[1, 20])]);
        }
    }
}

/// Bindings far below what the corpora need: each lies in several parts.
#[test]
fn corpora_in_many_parts_are_searched_exactly() {
    for options in [best(), plain()] {
        let Some(subject) = subject(WgpuOptions { part_bytes: 1 << 20, ..options }) else { return };
        let rows = Embeddings { rows: 6_000, dim: 384, seed: 17, ..Embeddings::default() }.generate();
        let asked = rows.head(20);
        subject.store_rows("parts", &rows, &[2_500]);
        for metric in Metric::ALL {
            let truth = suite::truth(metric, &asked.values, &rows);
            for (k, batch) in [(1, 1), (10, 20), (300, 3)] {
                let queries = Matrix { rows: batch, dim: 384, values: rows.head(batch).values };
                let got = subject.search("parts", queries, metric, k);
                assert!(got.iter().zip(&truth).all(|(got, want)| got[..] == want[..k]), "{metric} {k} {batch}");
            }
        }
        suite::score_matrices_are_the_definition(&subject, &rows.head(300), 9);
        suite::nearest_points_are_found(&subject, &points(60_000, 12), &points(3, 13), 200);
    }
}

#[test]
fn a_corpus_that_grows_is_searched_as_it_is() {
    subjects().for_each(|subject| memory::a_corpus_that_grows_is_searched_as_it_is(&subject));
}

/// Budgets below what the corpora need: some give way to others, and the largest is streamed.
#[test]
fn corpora_beyond_the_memory_are_searched_exactly() {
    for (options, memory_bytes) in [(best(), 64 << 10), (best(), 300 << 10), (plain(), 64 << 10)] {
        let Some(subject) = subject(WgpuOptions { memory_bytes, ..options }) else { return };
        memory::corpora_beyond_the_memory_are_searched(&subject);
        let given_way = count(&subject, "evictions") + count(&subject, "streamed");
        assert!(given_way > 0, "all fitted {memory_bytes} bytes: {:?}", subject.engine.counters());
    }
}

/// Scores and stored points, too, are worked out in a stream where they do not fit.
#[test]
fn scores_and_points_beyond_the_memory_are_exact() {
    let Some(subject) = subject(WgpuOptions { memory_bytes: 64 << 10, ..best() }) else { return };
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    suite::score_matrices_are_the_definition(&subject, &rows, 9);
    suite::nearest_points_are_found(&subject, &points(10_000, 12), &points(5, 13), 2_000);
    assert!(count(&subject, "streamed") > 0, "{:?}", subject.engine.counters());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_the_others_answers_alone() {
    let Some(subject) = subject(WgpuOptions { memory_bytes: 80 << 10, ..best() }) else { return };
    memory::callers_that_go_away_leave_the_others_answers_alone(&subject).await;
    let given_way = count(&subject, "evictions") + count(&subject, "streamed");
    assert!(given_way > 0, "{:?}", subject.engine.counters());
}

#[test]
fn score_matrices_are_the_definitions_bits() {
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    subjects().for_each(|subject| suite::score_matrices_are_the_definition(&subject, &rows, 70));
}

#[test]
fn memories_are_encoded_as_the_golden_file_and_the_reference_say() {
    let generated = memories(10_000, 6).expect("the sample is embedded");
    let want = suite::encoded(&generated);
    subjects().for_each(|subject| suite::memories_are_encoded(&subject, &generated, &want));
}

#[test]
fn nearest_points_are_those_of_the_reference_sent_or_stored() {
    let (cloud, queries) = (points(30_000, 12), points(20, 13));
    subjects().for_each(|subject| suite::nearest_points_are_found(&subject, &cloud, &queries, 20_000));
}
