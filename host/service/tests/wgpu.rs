//! The shaders' answers, on an adapter of this machine: the one that `MEGARING_WGPU_ADAPTER` names, or the first there
//! is, software too. What `conformance.rs` asks of the CPU is asked of it here in each way that it can work, and what
//! becomes of jobs whose device is lost.
//!
//! Where there is no adapter, the tests say that they were skipped.

use std::sync::Arc;

use calls::count;
use megaring_bench::any::{Answer, Job};
use megaring_bench::cases::search::{near_rows_are_found, rows_find_each_other};
use megaring_bench::cases::{Check, Scale, Subject, matrix, residency};
use megaring_bench::encode_job;
use megaring_core::checksum::Checksum;
use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::nearest::{Nearest, Points};
use megaring_core::nop::Nop;
use megaring_core::score::Score;
use megaring_core::search::Search;
use megaring_core::{BackendKind, Metric, nearest};
use megaring_datasets::{Embeddings, memories, points, sample};
use megaring_engine::Terms;
use megaring_ring::{RingConfig, WaitStrategy};
use megaring_wgpu::{WgpuBackend, WgpuOptions};

#[path = "support/calls.rs"]
mod calls;
#[path = "support/checks.rs"]
mod checks;
#[path = "wgpu/loss.rs"]
mod loss;

/// How much is asked of every operation.
const SCALE: Scale = Scale::Emulated;

/// The adapter that tests run on, by its name.
fn adapter() -> Option<String> {
    let wish = std::env::var("MEGARING_WGPU_ADAPTER").ok().filter(|name| !name.is_empty());
    let found = wish.or_else(|| {
        let usable = megaring_wgpu::adapters().into_iter().find(|adapter| adapter.lacks.is_none());
        usable.map(|adapter| adapter.name)
    });
    if found.is_none() {
        checks::skipped("this machine has no adapter (`megaring doctor` says how to get one)");
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
    let automaton = Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"));
    let subject = Subject::start(BackendKind::Wgpu, &name, None, |store| {
        let (backend, ring) =
            megaring_wgpu::start(&options, store.table().clone(), &automaton).expect("the adapter can be used");
        vec![(boxed(backend), ring)]
    });
    Some(subject.expect("an engine"))
}

/// A subject in each of the two ways.
fn subjects() -> impl Iterator<Item = Subject> {
    [best(), plain()].into_iter().map_while(subject)
}

/// One job of each kind on the first rows of the real sample, which the subject is given, and on points and memories.
fn jobs(subject: &Subject, count: usize, batch: usize) -> Vec<Job> {
    let rows = sample().expect("the sample is embedded").embeddings.head(count);
    let corpus = subject.store(&rows, &[count / 3]).expect("room on disk");
    let mut jobs = vec![Job::from(Nop)];
    for metric in Metric::OF_FLOATS {
        let [all, few] = [batch, 40].map(|count| matrix(rows.dim, &rows.head(count).values));
        jobs.push(Search { corpus: corpus.clone(), queries: all.into(), metric, k: 10, threshold: None }.into());
        jobs.push(Score { corpus: corpus.clone(), queries: few, metric, rows: None }.into());
    }
    let cloud = points(8 * count, 3);
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let (points, queries) = (Points::Sent(Arc::new(columns)), points(50, 4));
    jobs.push(Nearest { points, queries, weights: nearest::DEFAULT_WEIGHTS, k: 10 }.into());
    let encode = encode_job(memories(2 * count, 7).expect("the sample is embedded").iter());
    jobs.push(Checksum { contents: encode.texts.clone() }.into());
    jobs.push(encode.into());
    jobs
}

/// What a backend makes of a job. How many rows were left to be scored is its own affair.
fn answer(subject: &Subject, kind: BackendKind, job: &Job) -> Answer {
    let terms = Terms { backend: Some(kind), ..Terms::default() };
    let mut answer = job.clone().run(&subject.engine, terms).expect("a good job").answer;
    if let Answer::Search(all) = &mut answer {
        all.iter_mut().for_each(|ranked| ranked.rescored = 0);
    }
    answer
}

/// Every operation on the whole real sample, bit for bit what the CPU backend says.
#[test]
fn the_cpu_answers_alike() {
    let Some(subject) = subject(best()) else { return };
    for (number, job) in jobs(&subject, 2_048, 2_048).iter().enumerate() {
        // Not printed where it differs: thousands of hits.
        let [one, other] = [BackendKind::Wgpu, BackendKind::Cpu].map(|kind| answer(&subject, kind, job));
        assert!(one == other, "job {number}");
    }
}

/// Slots of all kinds share submissions, and workspaces that others have left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_all_kinds_at_once_are_answered_alike() {
    for options in [best(), plain(), WgpuOptions { memory_bytes: 128 << 10, ..best() }] {
        let Some(subject) = subject(options) else { return };
        let jobs = jobs(&subject, 300, 30);
        let want: Vec<Answer> = jobs.iter().map(|job| answer(&subject, BackendKind::Cpu, job)).collect();
        let subject = Arc::new(subject);
        for round in 0..9 {
            let begin = |at: usize| {
                let (subject, job) = (subject.clone(), jobs[at].clone());
                (at, tokio::task::spawn_blocking(move || answer(&subject, BackendKind::Wgpu, &job)))
            };
            let calls: Vec<_> = (0..2 * jobs.len()).map(|call| begin((call * 7 + round) % jobs.len())).collect();
            for (at, call) in calls {
                let answer = call.await.expect("no panic");
                assert!(answer == want[at], "job {at} on {}", subject.name);
            }
        }
        calls::settles(&subject).await;
    }
}

#[test]
fn larger_corpora_are_searched_exactly() {
    for subject in subjects() {
        for (rows, dim) in [(700, 384), (130, 768), (5_000, 4), (20_000, 64)] {
            let rows = Embeddings { rows, dim, seed: 3, ..Embeddings::default() }.generate();
            let queries = megaring_datasets::queries(&rows, 5, 4);
            let (mut check, ks) = (Check::new(&subject, Scale::Emulated), [1, 3, rows.rows, rows.rows + 10]);
            let name = format!("{} x {dim}", rows.rows);
            near_rows_are_found(&mut check, &name, (&rows, &queries.values), &ks).expect("all are equal");
        }
        let rows = sample().expect("the sample is embedded").embeddings;
        let batches: [(usize, &[usize]); 3] = [(10, &[65]), (1_000, &[1, 17]), (rows.rows, &[2])];
        rows_find_each_other(&mut Check::new(&subject, Scale::Emulated), "the real sample", &rows, &batches)
            .expect("all are equal");
    }
}

/// Bindings far below what the corpora need: each lies in several parts.
#[test]
fn corpora_in_many_parts_are_searched_exactly() {
    for options in [best(), plain()] {
        let Some(subject) = subject(WgpuOptions { part_bytes: 1 << 20, ..options }) else { return };
        let rows = Embeddings { rows: 6_000, dim: 384, seed: 17, ..Embeddings::default() }.generate();
        let (mut check, queries) = (Check::new(&subject, Scale::Emulated), rows.head(20).values);
        near_rows_are_found(&mut check, "many parts", (&rows, &queries), &[1, 10, 300]).expect("all are equal");
        checks::check::<Score>(&subject, Scale::Usual);
        checks::check::<Nearest>(&subject, Scale::Thorough);
    }
}

#[test]
fn a_corpus_that_grows_is_searched_as_it_is() {
    for subject in subjects() {
        residency::a_corpus_that_grows_is_searched_as_it_is(&subject, Scale::Emulated).expect("all are equal");
    }
}

/// Rows and dimensions of corpora that do not fit together.
const CROWD: [(usize, usize); 4] = [(400, 128), (900, 128), (400, 128), (1_500, 96)];

/// Budgets below what the corpora need: some give way to others, and the largest is streamed.
#[test]
fn corpora_beyond_the_memory_are_searched_exactly() {
    for (options, memory_bytes) in [(best(), 64 << 10), (best(), 300 << 10), (plain(), 64 << 10)] {
        let Some(subject) = subject(WgpuOptions { memory_bytes, ..options }) else { return };
        residency::corpora_beyond_the_memory_are_searched(&subject, &CROWD, 20).expect("all are equal");
    }
}

/// Scores and stored points, too, are worked out in a stream where they do not fit.
#[test]
fn scores_and_points_beyond_the_memory_are_exact() {
    let Some(subject) = subject(WgpuOptions { memory_bytes: 64 << 10, ..best() }) else { return };
    checks::check::<Score>(&subject, Scale::Emulated);
    let streamed = count(&subject, "streamed");
    checks::check::<Nearest>(&subject, Scale::Usual);
    assert!(streamed > 0 && count(&subject, "streamed") > streamed, "{:?}", subject.engine.counters());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_the_others_answers_alone() {
    let Some(subject) = subject(WgpuOptions { memory_bytes: 80 << 10, ..best() }) else { return };
    calls::callers_that_go_away_leave_the_others_answers_alone(&subject).await;
    let given_way = count(&subject, "evictions") + count(&subject, "streamed");
    assert!(given_way > 0, "{:?}", subject.engine.counters());
}
