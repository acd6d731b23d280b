//! Searches: sizes, dimensions, metrics, k, thresholds, growing corpora, and corpora that the device's memory does not
//! hold together.

use std::sync::Arc;

use megaring_bench::Failure;
use megaring_bench::any::{Answer, Job};
use megaring_core::Metric;
use megaring_core::corpus::CorpusView;
use megaring_core::matrix::Matrix;
use megaring_core::search::Search;
use megaring_datasets::{poison, reference};

use super::{Bench, agreed, bits_of, by_reference, first};
use crate::corpora::{self, generated};
use crate::machine::Rig;

type Hits = Vec<(u32, u64)>;

/// The reference's best `k` for each query; those for a smaller k are their beginnings.
fn truth(
    metric: Metric,
    queries: &[f32],
    rows: &megaring_datasets::Matrix,
    k: usize,
    threshold: Option<f64>,
) -> Vec<Hits> {
    reference::search(by_reference(metric), queries, &rows.values, rows.dim, k, threshold)
        .into_iter()
        .map(|hits| hits.into_iter().map(|hit| (hit.row, hit.score.to_bits())).collect())
        .collect()
}

/// One search against the CPU backend and against the first `k` of each of `truth`. Answers the number of hits
/// compared.
fn check(rig: &Rig, job: Search, truth: &[Hits]) -> Result<usize, Failure> {
    let Search { metric, k, threshold, .. } = job;
    let told = format!("{} x {}, {metric}, k {k}, batch {}", job.corpus.rows(), job.corpus.dim(), job.queries.rows);
    let told = if threshold.is_some() { format!("{told}, threshold {threshold:?}") } else { told };
    let answer = agreed(rig, Job::Search(job)).map_err(|error| format!("{told}: {error}"))?;
    let Answer::Search(ranked) = answer else { return Err(format!("{told}: it is no answer to a search").into()) };
    let got: Vec<Hits> = ranked.iter().map(|ranked| bits_of(&ranked.hits)).collect();
    let want: Vec<&[(u32, u64)]> = truth.iter().map(|hits| &hits[..k.min(hits.len())]).collect();
    let got_slices: Vec<&[(u32, u64)]> = got.iter().map(Vec::as_slice).collect();
    match first("query", &got_slices, &want) {
        Some(difference) => Err(format!("{told}: {difference} of the reference").into()),
        None => Ok(got.iter().map(Vec::len).sum()),
    }
}

fn job(corpus: &Arc<CorpusView>, queries: &[f32], metric: Metric, k: usize) -> Search {
    let dim = corpus.dim();
    let queries = Matrix { rows: queries.len() / dim, dim, values: queries.to_vec() };
    Search { corpus: corpus.clone(), queries, metric, k, threshold: None }
}

/// Batches of a corpus's own rows, of all sizes, for several k.
fn batches(
    bench: &Bench,
    rows: &megaring_datasets::Matrix,
    sizes: &[usize],
    most_hits: usize,
) -> Result<usize, Failure> {
    let corpus = corpora::corpus(bench.store.table(), rows.clone(), &[rows.rows / 2]);
    let mut answers = 0;
    for metric in Metric::ALL {
        let all = truth(metric, &rows.values, rows, rows.rows.min(most_hits / rows.rows), None);
        for k in [1, 10, 100, rows.rows] {
            for size in sizes.iter().copied().filter(|size| *size <= rows.rows) {
                if k > all[0].len() {
                    continue;
                }
                // Another part of the rows each time, so that all serve as queries in small batches too.
                let start = size * 37 % (rows.rows - size + 1);
                let queries = &rows.values[start * rows.dim..(start + size) * rows.dim];
                answers += check(&bench.rig, job(&corpus, queries, metric, k), &all[start..start + size])?;
            }
        }
    }
    Ok(answers)
}

/// Most hits of one reference answer: about half a gigabyte.
const MOST_HITS: usize = 32 << 20;

pub(super) fn sample(bench: &Bench) -> Result<usize, Failure> {
    let rows = megaring_datasets::sample()?.embeddings;
    let rows = rows.head(bench.sized(rows.rows, rows.rows, 40));
    let thorough =
        &[1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 100, 127, 128, 129, 511, 512, 513, 1000, 2047, 2048][..];
    let sizes = bench.sized(thorough, &[1, 2, 3, 8, 17, 64, 513, 2048][..], &[1, 3, 17][..]);
    batches(bench, &rows, sizes, MOST_HITS)
}

pub(super) fn itself(bench: &Bench) -> Result<usize, Failure> {
    let rows = generated(bench.sized(5_562, 5_562, 70), 384, 1);
    let sizes = bench.sized(&[1, 64, 1000, 5_561, 5_562][..], &[1, 5_562][..], &[70][..]);
    batches(bench, &rows, sizes, bench.sized(100 * 5_562, 100 * 5_562, MOST_HITS))
}

pub(super) fn sizes(bench: &Bench) -> Result<usize, Failure> {
    let thorough = &[
        1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513, 1000, 1023, 1025,
        2047, 2049, 4095, 4097, 5_561, 5_562,
    ][..];
    let counts =
        bench.sized(thorough, &[1, 2, 31, 32, 33, 64, 65, 129, 257, 1000, 4097, 5_562][..], &[1, 2, 33, 65][..]);
    let mut answers = 0;
    for count in counts {
        let rows = generated(*count, 96, 5);
        let corpus = corpora::corpus(bench.store.table(), rows.clone(), &[count / 3, count / 3 * 2]);
        let queries = megaring_datasets::queries(&rows, bench.sized(19, 5, 3), 6);
        for metric in Metric::ALL {
            let all = truth(metric, &queries.values, &rows, rows.rows, None);
            for k in [1, 2, 10, 100, rows.rows, rows.rows + 10] {
                answers += check(&bench.rig, job(&corpus, &queries.values, metric, k), &all)?;
            }
        }
    }
    Ok(answers)
}

pub(super) fn dimensions(bench: &Bench) -> Result<usize, Failure> {
    let thorough = &[
        1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 129, 255, 257, 383, 384, 385, 768, 1023, 1536,
        4096, 8191,
    ][..];
    let dims = bench.sized(thorough, &[1, 3, 7, 31, 33, 129, 385, 1536, 4096][..], &[1, 7, 33][..]);
    let mut answers = 0;
    for dim in dims {
        let rows = generated(bench.sized(999, 300, 40), *dim, 3);
        let corpus = corpora::corpus(bench.store.table(), rows.clone(), &[]);
        let queries = megaring_datasets::queries(&rows, bench.sized(17, 5, 3), 4);
        for metric in Metric::ALL {
            let all = truth(metric, &queries.values, &rows, rows.rows, None);
            for k in [1, 10, rows.rows] {
                answers += check(&bench.rig, job(&corpus, &queries.values, metric, k), &all)?;
            }
        }
    }
    Ok(answers)
}

pub(super) fn poisoned(bench: &Bench) -> Result<usize, Failure> {
    let (count, dim) = bench.sized((500, 64), (500, 64), (40, 12));
    let plain = generated(count, dim, 8);
    let hard = [
        poison::zero_row(&plain, count / 2),
        poison::huge(count, dim),
        poison::tiny(count, dim),
        poison::constant(count, dim, 0.25),
        poison::constant(count, dim, 0.0),
        poison::duplicated(&plain.head(count / 4), 4),
        poison::cancelling(count, dim),
    ];
    let mut answers = 0;
    for rows in hard {
        let corpus = corpora::corpus(bench.store.table(), rows.clone(), &[rows.rows / 3]);
        let queries = [&rows.values[..3 * dim], &plain.values[..4 * dim], &vec![0.0; dim]].concat();
        for metric in Metric::ALL {
            let all = truth(metric, &queries, &rows, rows.rows, None);
            for k in [1, 10, 100] {
                answers += check(&bench.rig, job(&corpus, &queries, metric, k), &all)?;
            }
        }
    }
    Ok(answers)
}

pub(super) fn thresholds(bench: &Bench) -> Result<usize, Failure> {
    let rows = generated(bench.sized(5_562, 1_000, 50), 128, 9);
    let corpus = corpora::corpus(bench.store.table(), rows.clone(), &[]);
    let queries = megaring_datasets::queries(&rows, bench.sized(33, 9, 3), 10);
    let mut answers = 0;
    for metric in Metric::ALL {
        // The score of the first query's seventh hit: a threshold that equals a score.
        let seventh = truth(metric, &queries.values[..128], &rows, 7, None)[0][6].1;
        for threshold in [f64::from_bits(seventh), 0.4, 2.0, -2.0] {
            let all = truth(metric, &queries.values, &rows, 100, Some(threshold));
            for k in [1, 10, 100] {
                let job = Search { threshold: Some(threshold), ..job(&corpus, &queries.values, metric, k) };
                answers += check(&bench.rig, job, &all)?;
            }
        }
    }
    Ok(answers)
}

/// Each version of a corpus while the one before is still held, then the old ones again.
pub(super) fn appended(bench: &Bench) -> Result<usize, Failure> {
    let rows = generated(bench.sized(3_000, 1_000, 60), 48, 11);
    let queries = megaring_datasets::queries(&rows, 7, 12);
    let table = bench.store.table();
    let segments = corpora::segments(rows.clone(), &[rows.rows / 6, rows.rows / 5, rows.rows / 2], None);
    let handle = corpora::corpus(table, rows.head(1), &[]).handle();
    let versions: Vec<Arc<CorpusView>> = (1..=segments.len())
        .map(|count| corpora::version(table, handle, count as u32 + 1, rows.dim, segments[..count].to_vec()))
        .collect();
    let mut answers = 0;
    for corpus in versions.iter().chain(versions.iter().rev()) {
        for metric in Metric::ALL {
            let all = truth(metric, &queries.values, &rows.head(corpus.rows()), 10, None);
            answers += check(&bench.rig, job(corpus, &queries.values, metric, 10), &all)?;
        }
    }
    Ok(answers)
}

/// Device memory for corpora in [`crowded`]: one of the four small ones at a time, and not the large one.
pub(super) const LITTLE_MEMORY: usize = 24 << 20;
/// Likewise for the twin.
pub(super) const LITTLE_MEMORY_REHEARSED: usize = 1 << 20;

/// On a device that may keep little: corpora in turn, which put each other out, and one that is larger than all it may
/// keep.
pub(super) fn crowded(bench: &Bench) -> Result<usize, Failure> {
    let dim = 384;
    let (small, large) = bench.sized((40_000, 200_000), (40_000, 200_000), (1_500, 6_000));
    let sizes = [small, small, small, small, large];
    let rows = sizes.iter().zip(20..).map(|(rows, seed)| generated(*rows, dim, seed));
    let crowd: Vec<_> =
        rows.map(|rows| (corpora::corpus(bench.store.table(), rows.clone(), &[rows.rows / 2]), rows)).collect();
    let mut answers = 0;
    for round in 0..2 {
        for (corpus, rows) in &crowd {
            let queries = megaring_datasets::queries(rows, bench.sized(9, 5, 2), 31 + round);
            let all = truth(Metric::Cosine, &queries.values, rows, 10, None);
            answers += check(&bench.rig, job(corpus, &queries.values, Metric::Cosine, 10), &all)?;
        }
    }
    Ok(answers)
}
