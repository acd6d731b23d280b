//! One answer, whatever did the work: the real sample and generated corpora through the whole engine (stored, mapped, admitted, through the
//! ring, rescored), equal to the naive float64 reference in ids, order and scores. Run once per instruction set by `cargo xtask test`,
//! with `MEGARING_ISA` set; each test here also goes through all of them by itself.

use std::path::Path;
use std::sync::Arc;

use megaring::engine::{Engine, EngineConfig};
use megaring::outcome::Answer;
use megaring_core::encode::Features;
use megaring_core::job::{EncodeJob, Job, Matrix, NearestJob, Points, ScoreJob, SearchJob, Terms, Texts};
use megaring_core::profile::{DEFAULT, Profile};
use megaring_core::{BackendKind, Metric, nearest};
use megaring_corpus::{Access, Rows, Store};
use megaring_datasets::{Embeddings, golden, memories, points, reference, sample};
use megaring_simd::KernelSet;
use rayon::prelude::*;

fn engine(root: &Path, isa: &KernelSet) -> Arc<Engine> {
    let store = Store::open(root, Access::Exclusive).expect("a fresh folder");
    let mut config = EngineConfig::new(Profile::parse(DEFAULT).expect("the default profile"));
    config.isa = Some(isa.isa().name().to_owned());
    Engine::start(config, store).expect("an engine")
}

/// The instruction sets to test: the forced one, or all that this machine has.
fn instruction_sets() -> Vec<&'static KernelSet> {
    match std::env::var_os("MEGARING_ISA") {
        Some(_) => vec![KernelSet::from_env().expect("MEGARING_ISA names an available instruction set")],
        None => KernelSet::available(),
    }
}

fn store_rows(engine: &Engine, name: &str, rows: &megaring_datasets::Matrix, cuts: &[usize]) {
    engine.store().create(name, rows.dim).expect("a new name");
    let mut from = 0_usize;
    for len in cuts.iter().copied().chain([usize::MAX]) {
        let to = rows.rows.min(from.saturating_add(len));
        let embeddings = matrix(rows.dim, &rows.values[from * rows.dim..to * rows.dim]);
        let mut appender = engine.store().append(name).expect("the corpus is there");
        appender.push(Rows { embeddings, ..Rows::default() }).expect("finite rows");
        appender.commit().expect("room on disk");
        from = to;
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

type Hits = Vec<(u32, u64)>;

/// Every row for every query, in order: the answer for any k is its beginning.
fn truth(metric: Metric, queries: &[f32], rows: &megaring_datasets::Matrix) -> Vec<Hits> {
    reference::search(twin(metric), queries, &rows.values, rows.dim, rows.rows, None)
        .into_iter()
        .map(|hits| hits.into_iter().map(|hit| (hit.row, hit.score.to_bits())).collect())
        .collect()
}

fn search(engine: &Arc<Engine>, corpus: &str, queries: Matrix, metric: Metric, k: usize) -> Vec<Hits> {
    let corpus = engine.store().view(corpus).expect("the corpus is there");
    let job = Job::Search(SearchJob { corpus, queries, metric, k, threshold: None });
    let outcome = engine.run_blocking(job, Terms::default()).expect("a good job");
    assert!(outcome.made.exact);
    assert_eq!(outcome.made.backend, BackendKind::Cpu);
    let Answer::Hits(ranked) = outcome.answer else { panic!("a search answers hits") };
    ranked.iter().map(|r| r.hits.iter().map(|hit| (hit.row, hit.score.to_bits())).collect()).collect()
}

#[test]
fn the_real_sample_is_searched_exactly_for_every_metric_k_and_batch() {
    let rows = sample().expect("the sample is embedded").embeddings;
    let truths = Metric::ALL.map(|metric| truth(metric, &rows.values, &rows));
    for isa in instruction_sets() {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = engine(folder.path(), isa);
        store_rows(&engine, "real", &rows, &[1000]);
        for (metric, truth) in Metric::ALL.into_iter().zip(&truths) {
            for k in [1, 10, 100, rows.rows] {
                let sizes: &[usize] = if k == rows.rows {
                    &[1, 9, 600, 2048]
                } else {
                    &[1, 2, 3, 4, 5, 8, 15, 16, 17, 64, 65, 100, 511, 512, 513, 1000, 2047, 2048]
                };
                for size in sizes {
                    // Another part of the sample each time, so that all rows serve as queries in small batches too.
                    let start = size * 37 % (rows.rows - size + 1);
                    let queries = matrix(rows.dim, &rows.values[start * rows.dim..(start + size) * rows.dim]);
                    let got = search(&engine, "real", queries, metric, k);
                    assert_eq!(got.len(), *size);
                    got.par_iter().zip(&truth[start..]).enumerate().for_each(|(query, (got, want))| {
                        assert_eq!(
                            got[..],
                            want[..k],
                            "{metric} k {k} batch {size} query {query} on {}",
                            isa.isa().name()
                        );
                    });
                }
            }
        }
    }
}

#[test]
fn generated_corpora_of_odd_shapes_are_searched_exactly() {
    for (rows, dim) in [(1, 1), (17, 7), (300, 8), (999, 128), (64, 1536), (40, 4096)] {
        let corpus = Embeddings { rows, dim, seed: 3, ..Embeddings::default() }.generate();
        let queries = megaring_datasets::queries(&corpus, 5, 4);
        for isa in instruction_sets() {
            let folder = tempfile::tempdir().expect("a folder");
            let engine = engine(folder.path(), isa);
            store_rows(&engine, "odd", &corpus, &[rows / 3]);
            for metric in Metric::ALL {
                let want = truth(metric, &queries.values, &corpus);
                for k in [1, 3, rows, rows + 10] {
                    let got = search(&engine, "odd", matrix(dim, &queries.values), metric, k);
                    for (got, want) in got.iter().zip(&want) {
                        assert_eq!(got[..], want[..k.min(rows)], "{rows} x {dim} {metric} k {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn score_matrices_are_the_definitions_bits() {
    let rows = sample().expect("the sample is embedded").embeddings.head(300);
    let queries = rows.head(70);
    for isa in instruction_sets() {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = engine(folder.path(), isa);
        store_rows(&engine, "real", &rows, &[111]);
        for metric in Metric::ALL {
            let want = reference::score(twin(metric), &queries.values, &rows.values, rows.dim);
            let named = vec![299, 0, 5, 5, 110, 111];
            for rows_asked in [None, Some(named.clone()), Some(Vec::new())] {
                let job = Job::Score(ScoreJob {
                    corpus: engine.store().view("real").expect("the corpus is there"),
                    queries: matrix(rows.dim, &queries.values),
                    metric,
                    rows: rows_asked.clone(),
                });
                let answer = engine.run_blocking(job, Terms::default()).expect("a good job").answer;
                let ids = rows_asked.unwrap_or_else(|| (0..300).collect());
                let values = (0..70)
                    .flat_map(|query| ids.iter().map(move |row| (query, *row)))
                    .map(|(q, r)| want[q * 300 + r as usize]);
                assert_eq!(answer, Answer::Scores { rows: ids.len(), values: values.collect() }, "{metric}");
            }
        }
    }
}

fn encode_job<'a>(all: impl Iterator<Item = reference::Memory<'a>>) -> EncodeJob {
    let mut job = EncodeJob { texts: Texts::default(), features: Vec::new(), gardens: Vec::new() };
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

#[test]
fn memories_are_encoded_as_the_golden_file_and_the_reference_say() {
    let golden = golden().expect("the golden file is embedded");
    let generated = memories(20_000, 6).expect("the sample is embedded");
    let profile = reference::Profile::whitemagic().expect("the lexicon is embedded");
    let want: Vec<reference::Encoded> = generated.iter().map(|memory| reference::encode(&memory, &profile)).collect();
    for isa in instruction_sets() {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = engine(folder.path(), isa);
        let run = |job: EncodeJob| match engine
            .run_blocking(Job::Encode(job), Terms::default())
            .expect("a good job")
            .answer
        {
            Answer::Encoded(encoded) => encoded,
            other => panic!("encoding answers points, not {other:?}"),
        };
        for (encoded, case) in run(encode_job(golden.iter().map(|case| case.memory()))).iter().zip(&golden) {
            assert_eq!((encoded.mask, encoded.zone as u8), (case.mask, case.zone), "{}", case.id);
            assert!(
                encoded.coordinates.iter().zip(case.coordinates).all(|(a, b)| (a - b).abs() <= 1e-12),
                "{}",
                case.id
            );
        }
        let encoded = run(encode_job(generated.iter()));
        assert_eq!(encoded.len(), want.len());
        for (memory, (encoded, want)) in encoded.iter().zip(&want).enumerate() {
            assert_eq!((encoded.mask, encoded.zone as u8), (want.mask, want.zone), "memory {memory}");
            let near = encoded.coordinates.iter().zip(want.coordinates).all(|(a, b)| (a - b).abs() <= 1e-12);
            assert!(near, "memory {memory}: {:?} is not {:?}", encoded.coordinates, want.coordinates);
        }
    }
}

#[test]
fn nearest_points_are_those_of_the_reference_sent_or_stored() {
    let cloud = points(30_000, 12);
    let queries = points(40, 13);
    let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    for isa in instruction_sets() {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = engine(folder.path(), isa);
        engine.store().create("points", 1).expect("a new name");
        let mut appender = engine.store().append("points").expect("the corpus is there");
        let embeddings = Matrix { rows: cloud.len(), dim: 1, values: vec![1.0; cloud.len()] };
        let rows = Rows { embeddings, coordinates: Some(columns.clone()), ..Rows::default() };
        appender.push(rows).expect("finite rows");
        appender.commit().expect("room on disk");
        let stored = Points::Corpus(engine.store().view("points").expect("the corpus is there"));
        for points in [Points::Sent(Arc::new(columns.clone())), stored] {
            for (k, weights) in [(1, nearest::DEFAULT_WEIGHTS), (25, [0.0, 1.0, 2.0, 0.5, 1e-3]), (20_000, [1.0; 5])] {
                let queries = queries[..if k > 100 { 2 } else { 40 }].to_vec();
                let want: Vec<Vec<(u32, u64)>> = queries
                    .iter()
                    .map(|query| reference::nearest(&cloud, query, &weights, k))
                    .map(|found| found.iter().map(|n| (n.row, n.distance.to_bits())).collect())
                    .collect();
                let job = Job::Nearest(NearestJob { points: points.clone(), queries, weights, k });
                let Answer::Neighbours(found) = engine.run_blocking(job, Terms::default()).expect("a good job").answer
                else {
                    panic!("nearest answers neighbours")
                };
                let got: Vec<Vec<(u32, u64)>> =
                    found.iter().map(|f| f.iter().map(|n| (n.row, n.distance.to_bits())).collect()).collect();
                assert_eq!(got, want, "k {k}");
            }
        }
    }
}
