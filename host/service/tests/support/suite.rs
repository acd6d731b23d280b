//! What every backend must answer: ids, order and scores of the naive float64 reference, through the whole engine
//! (stored, mapped, admitted, through the ring, rescored). The tests that include this file say which backends, and how
//! much of it.

use std::sync::Arc;

use megaring::Setup;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::encode::{Encode, Features};
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::score::Score;
use megaring_core::search::Search;
use megaring_core::texts::Texts;
use megaring_core::{Answered, BackendKind, Metric, nearest};
use megaring_corpus::{Access, Rows, Store};
use megaring_datasets::{Embeddings, Memories, golden, reference};
use megaring_engine::{Engine, Running, Terms};
use rayon::prelude::*;

pub(crate) use self::cases::every_operation_is_answered;

mod cases;

/// An engine of which one backend is tested.
pub(crate) struct Subject {
    pub(crate) engine: Arc<Engine>,
    pub(crate) backend: BackendKind,
    pub(crate) name: String,
    _folder: tempfile::TempDir,
}

/// Rows and score bits of one query.
pub(crate) type Hits = Vec<(u32, u64)>;

/// The default profile.
pub(crate) fn profile() -> Profile {
    Profile::parse(DEFAULT).expect("the default profile")
}

impl Subject {
    /// An engine over a folder of its own. `name` tells it in failures; `extra` are backends beside the CPU's, which
    /// may look at the store.
    pub(crate) fn start(
        backend: BackendKind,
        name: &str,
        isa: Option<&str>,
        extra: impl FnOnce(&Store) -> Vec<Running>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
        let config = Setup { isa: isa.map(str::to_owned), cuda: None, wgpu: None, ..Setup::new(profile()) };
        let extra = extra(&store);
        let engine = config.start_with(store, extra).expect("an engine");
        Self { engine, backend, name: name.to_owned(), _folder: folder }
    }

    /// Makes a corpus, appended to in parts of these lengths and a last one.
    pub(crate) fn store_rows(&self, name: &str, rows: &megaring_datasets::Matrix, cuts: &[usize]) {
        self.engine.store().create(name, rows.dim).expect("a new name");
        let mut from = 0_usize;
        for len in cuts.iter().copied().chain([usize::MAX]) {
            let to = rows.rows.min(from.saturating_add(len));
            self.append(name, matrix(rows.dim, &rows.values[from * rows.dim..to * rows.dim]), None);
            from = to;
        }
    }

    fn append(&self, name: &str, embeddings: Matrix, coordinates: Option<[Vec<f64>; 5]>) {
        let mut appender = self.engine.store().append(name).expect("the corpus is there");
        appender.push(Rows { embeddings, coordinates, ..Rows::default() }).expect("finite rows");
        appender.commit().expect("room on disk");
    }

    /// A search's answer.
    pub(crate) fn search(&self, corpus: &str, queries: Matrix, metric: Metric, k: usize) -> Vec<Hits> {
        self.search_within(corpus, queries, metric, (k, None))
    }

    /// A search's answer; none beyond the threshold.
    pub(crate) fn search_within(
        &self,
        corpus: &str,
        queries: Matrix,
        metric: Metric,
        (k, threshold): (usize, Option<f64>),
    ) -> Vec<Hits> {
        let corpus = self.engine.store().view(corpus).expect("the corpus is there");
        let job = Search { corpus, queries, metric, k, threshold };
        let ranked = self.run(job);
        ranked.iter().map(|r| r.hits.iter().map(|hit| (hit.row, hit.score.to_bits())).collect()).collect()
    }

    fn run<O: Answered>(&self, job: O) -> O::Answer {
        let terms = Terms { backend: Some(self.backend), ..Terms::default() };
        let outcome = self.engine.run_blocking(job, terms).expect("a good job");
        assert!(outcome.made.exact);
        assert_eq!(outcome.made.backend, self.backend);
        outcome.answer
    }
}

fn matrix(dim: usize, values: &[f32]) -> Matrix {
    Matrix { rows: values.len() / dim, dim, values: values.to_vec() }
}

fn twin(metric: Metric) -> reference::Metric {
    match metric {
        Metric::Cosine => reference::Metric::Cosine,
        Metric::Dot => reference::Metric::Dot,
        Metric::L2 => reference::Metric::L2,
    }
}

/// Every row for every query, in order: the answer for any k is its beginning.
pub(crate) fn truth(metric: Metric, queries: &[f32], rows: &megaring_datasets::Matrix) -> Vec<Hits> {
    reference::search(twin(metric), queries, &rows.values, rows.dim, rows.rows, None)
        .into_iter()
        .map(|hits| hits.into_iter().map(|hit| (hit.row, hit.score.to_bits())).collect())
        .collect()
}

/// Rows of the stored corpus `corpus` against themselves, for every metric (of which `truths` are in the order of
/// [`Metric::ALL`]), by these numbers of hits with these batches each.
pub(crate) fn rows_find_each_other(
    subject: &Subject,
    (corpus, rows): (&str, &megaring_datasets::Matrix),
    truths: &[Vec<Hits>; 3],
    cases: &[(usize, &[usize])],
) {
    let name = &subject.name;
    for (metric, truth) in Metric::ALL.into_iter().zip(truths) {
        for (k, sizes) in cases {
            for size in *sizes {
                // Another part of the rows each time, so that all of them serve as queries in small batches too.
                let start = size * 37 % (rows.rows - size + 1);
                let queries = matrix(rows.dim, &rows.values[start * rows.dim..(start + size) * rows.dim]);
                let got = subject.search(corpus, queries, metric, *k);
                assert_eq!(got.len(), *size);
                got.par_iter().zip(&truth[start..]).enumerate().for_each(|(query, (got, want))| {
                    assert_eq!(got[..], want[..*k], "{metric} k {k} batch {size} query {query} on {name}");
                });
            }
        }
    }
}

/// Generated corpora of these rows and dimensions, each in two segments.
pub(crate) fn odd_shapes_are_searched(subject: &Subject, shapes: &[(usize, usize)]) {
    let name = &subject.name;
    for (rows, dim) in shapes.iter().copied() {
        let corpus = Embeddings { rows, dim, seed: 3, ..Embeddings::default() }.generate();
        let queries = megaring_datasets::queries(&corpus, 5, 4);
        let odd = format!("odd-{rows}-{dim}");
        subject.store_rows(&odd, &corpus, &[rows / 3]);
        for metric in Metric::ALL {
            let want = truth(metric, &queries.values, &corpus);
            for k in [1, 3, rows, rows + 10] {
                let got = subject.search(&odd, matrix(dim, &queries.values), metric, k);
                for (got, want) in got.iter().zip(&want) {
                    assert_eq!(got[..], want[..k.min(rows)], "{rows} x {dim} {metric} k {k} on {name}");
                }
            }
        }
    }
}

/// A corpus of 150 rows, by every k there is and one more.
pub(crate) fn every_k_is_answered(subject: &Subject) {
    let rows = Embeddings { rows: 150, dim: 24, seed: 9, ..Embeddings::default() }.generate();
    let queries = megaring_datasets::queries(&rows, 3, 10);
    subject.store_rows("every-k", &rows, &[70]);
    for (at, metric) in Metric::ALL.into_iter().enumerate() {
        let want = truth(metric, &queries.values, &rows);
        for k in (1 + at..=151).step_by(3) {
            let got = subject.search("every-k", matrix(24, &queries.values), metric, k);
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got[..], want[..k.min(150)], "{metric} k {k} on {}", subject.name);
            }
        }
    }
}

/// Thresholds that leave all hits, some, one and none, also ones that are a row's very score.
pub(crate) fn thresholds_are_kept(subject: &Subject) {
    let rows = Embeddings { rows: 700, dim: 48, seed: 11, ..Embeddings::default() }.generate();
    let queries = megaring_datasets::queries(&rows, 4, 12);
    subject.store_rows("thresholds", &rows, &[300]);
    for metric in Metric::ALL {
        let order = truth(metric, &queries.values[..48], &rows);
        let score_at = |rank: usize| f64::from_bits(order[0][rank].1);
        for threshold in [score_at(0), score_at(2), score_at(60), score_at(699), score_at(30).next_up(), 1e30, -1e30] {
            for k in [1, 10, 100] {
                let within = (k, Some(threshold));
                let want =
                    reference::search(twin(metric), &queries.values, &rows.values, 48, k, Some(threshold)).into_iter();
                let want: Vec<Hits> =
                    want.map(|hits| hits.iter().map(|hit| (hit.row, hit.score.to_bits())).collect()).collect();
                let got = subject.search_within("thresholds", matrix(48, &queries.values), metric, within);
                assert_eq!(got, want, "{metric} k {k} within {threshold} on {}", subject.name);
            }
        }
    }
}

/// Scores of all pairs of the first `queries` rows and all 300, and of some named rows.
pub(crate) fn score_matrices_are_the_definition(subject: &Subject, rows: &megaring_datasets::Matrix, queries: usize) {
    let asked = rows.head(queries);
    subject.store_rows("scored", rows, &[111]);
    for metric in Metric::ALL {
        let want = reference::score(twin(metric), &asked.values, &rows.values, rows.dim);
        let named = vec![299, 0, 5, 5, 110, 111];
        for rows_asked in [None, Some(named), Some(Vec::new())] {
            let job = Score {
                corpus: subject.engine.store().view("scored").expect("the corpus is there"),
                queries: matrix(rows.dim, &asked.values),
                metric,
                rows: rows_asked.clone(),
            };
            let width = job.width();
            let answer = subject.run(job);
            let ids = rows_asked.unwrap_or_else(|| (0..300).collect());
            assert_eq!(width, ids.len());
            let pairs = (0..queries).flat_map(|query| ids.iter().map(move |row| (query, *row)));
            let values: Vec<f32> = pairs.map(|(query, row)| want[query * 300 + row as usize]).collect();
            assert_eq!(answer, values, "{metric} on {}", subject.name);
        }
    }
}

/// Generated memories and what the reference makes of them.
pub(crate) fn encoded(memories: &Memories) -> Vec<reference::Encoded> {
    let profile = reference::Profile::whitemagic().expect("the lexicon is embedded");
    memories.iter().map(|memory| reference::encode(&memory, &profile)).collect()
}

/// The golden file, and generated memories.
pub(crate) fn memories_are_encoded(subject: &Subject, generated: &Memories, want: &[reference::Encoded]) {
    let golden = golden().expect("the golden file is embedded");
    let run = |job: Encode| subject.run(job);
    for (encoded, case) in run(encode_job(golden.iter().map(|case| case.memory()))).iter().zip(&golden) {
        assert_eq!((encoded.mask, encoded.zone as u8), (case.mask, case.zone), "{}", case.id);
        assert!(encoded.coordinates.iter().zip(case.coordinates).all(|(a, b)| (a - b).abs() <= 1e-12), "{}", case.id);
    }
    let encoded = run(encode_job(generated.iter()));
    assert_eq!(encoded.len(), want.len());
    for (memory, (encoded, want)) in encoded.iter().zip(want).enumerate() {
        assert_eq!((encoded.mask, encoded.zone as u8), (want.mask, want.zone), "memory {memory} on {}", subject.name);
        let near = encoded.coordinates.iter().zip(want.coordinates).all(|(a, b)| (a - b).abs() <= 1e-12);
        assert!(near, "memory {memory}: {:?} is not {:?}", encoded.coordinates, want.coordinates);
    }
}

pub(crate) fn encode_job<'a>(all: impl Iterator<Item = reference::Memory<'a>>) -> Encode {
    let mut job = Encode { texts: Texts::default(), features: Vec::new(), gardens: Vec::new() };
    for memory in all {
        job.texts.push(memory.content);
        job.gardens.push(memory.garden.to_owned());
        job.features.push(Features {
            importance: memory.importance,
            access_count: memory.access_count,
            age_days: memory.age_days,
            galactic_distance: memory.galactic_distance,
        });
    }
    job
}

/// The nearest points of a cloud, sent along and stored; `many` is a k beyond what a list holds.
pub(crate) fn nearest_points_are_found(subject: &Subject, cloud: &[[f64; 5]], queries: &[[f64; 5]], many: usize) {
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    subject.engine.store().create("points", 1).expect("a new name");
    subject.append("points", matrix(1, &vec![1.0; cloud.len()]), Some(columns.clone()));
    let stored = Points::Corpus(subject.engine.store().view("points").expect("the corpus is there"));
    for points in [Points::Sent(Arc::new(columns)), stored] {
        for (k, weights) in [(1, nearest::DEFAULT_WEIGHTS), (25, [0.0, 1.0, 2.0, 0.5, 1e-3]), (many, [1.0; 5])] {
            let queries = queries[..if k > 100 { 2 } else { queries.len() }].to_vec();
            let want: Vec<Hits> = queries
                .iter()
                .map(|query| reference::nearest(cloud, query, &weights, k))
                .map(|found| found.iter().map(|n| (n.row, n.distance.to_bits())).collect())
                .collect();
            let job = Nearest { points: points.clone(), queries, weights, k };
            let found = subject.run(job);
            let got: Vec<Hits> =
                found.iter().map(|f| f.iter().map(|n| (n.row, n.distance.to_bits())).collect()).collect();
            assert_eq!(got, want, "k {k} on {}", subject.name);
        }
    }
}
