//! Searches: the real sample, sizes and dimensions, every k, thresholds, rows that break careless code, rows of the
//! corpus as queries, no rows.

use std::sync::Arc;

use megaring_core::Metric;
use megaring_core::corpus::CorpusView;
use megaring_core::rescore::Ranked;
use megaring_core::search::{Queries, Search};
use megaring_datasets::{Embeddings, Matrix, poison, reference, sample};

use super::{Cases, Check, Scale, Workload, bits, hidden, matrix, prefix};
use crate::{Bench, Failure, queries};

/// Rows and the bits of their scores, best first.
pub type Hits = Vec<(u32, u64)>;

/// Batches of these sizes, with so many hits wanted of each query.
type Batches<'a> = &'a [(usize, &'a [usize])];

/// Rows of the corpus that it is measured on.
const ROWS: usize = 5_562;

impl Cases for Search {
    type Part = Hits;

    fn cases(check: &mut Check<'_, Self>) -> Result<(), Failure> {
        the_sample(check)?;
        odd_shapes(check)?;
        every_k(check)?;
        hard_rows(check)?;
        rows_of_all_lengths(check)?;
        thresholds(check)?;
        hidden::searches(check)?;
        bits::searches(check)?;
        prefix::searches(check)?;
        no_rows(check)
    }

    fn parts(answer: &Vec<Ranked>) -> Vec<Hits> {
        answer.iter().map(|ranked| ranked.hits.iter().map(|hit| (hit.row, hit.score.to_bits())).collect()).collect()
    }

    fn workloads(bench: &Bench) -> Result<Vec<Workload<Self>>, Failure> {
        let rows = bench.corpus("searched", ROWS, 384)?;
        let corpus = bench.engine.store().view("searched")?;
        let workload = |count: usize| {
            let (rows, corpus) = (rows.clone(), corpus.clone());
            let job = move |turn: usize| {
                let queries = queries(&rows, turn * 37 % (ROWS - count), count);
                Self { corpus: corpus.clone(), queries: queries.into(), metric: Metric::Cosine, k: 10, threshold: None }
            };
            Workload { name: format!("{count} on 5562x384"), elements: count as u64, job: Box::new(job) }
        };
        Ok([1, 8, 64].map(workload).into())
    }
}

/// The reference's name of a metric.
pub(super) fn by_reference(metric: Metric) -> reference::Metric {
    match metric {
        Metric::Cosine => reference::Metric::Cosine,
        Metric::Dot => reference::Metric::Dot,
        Metric::L2 => reference::Metric::L2,
        Metric::Hamming => reference::Metric::Hamming,
        Metric::Jaccard => reference::Metric::Jaccard,
    }
}

/// The reference's best `k` rows for each query; those for a smaller k are their beginnings.
#[must_use]
pub fn truth(metric: Metric, queries: &[f32], rows: &Matrix, k: usize, threshold: Option<f64>) -> Vec<Hits> {
    reference::search(by_reference(metric), queries, &rows.values, rows.dim, k, threshold)
        .into_iter()
        .map(|hits| hits.into_iter().map(|hit| (hit.row, hit.score.to_bits())).collect())
        .collect()
}

/// A search whose first hits the truth has.
pub(super) fn searched(check: &mut Check<'_, Search>, name: &str, job: Search, truth: &[Hits]) -> Result<(), Failure> {
    let Search { metric, k, ref queries, .. } = job;
    let want: Vec<Hits> = truth.iter().map(|hits| hits[..k.min(hits.len())].to_vec()).collect();
    check.case(format!("{name}, {metric}, k {k}, batch {}", queries.len()), job, &want)
}

fn job(corpus: &Arc<CorpusView>, queries: &[f32], metric: Metric, k: usize) -> Search {
    Search { corpus: corpus.clone(), queries: matrix(corpus.dim(), queries).into(), metric, k, threshold: None }
}

/// A corpus's own rows in batches, for every metric.
///
/// # Errors
/// The first difference.
pub fn rows_find_each_other(
    check: &mut Check<'_, Search>,
    name: &str,
    rows: &Matrix,
    batches: Batches<'_>,
) -> Result<(), Failure> {
    let corpus = check.subject.store(rows, &[rows.rows / 2 - rows.rows / 50])?;
    stored_rows_find_each_other(check, name, (&corpus, rows), batches)
}

/// The same of a corpus that is stored.
///
/// # Errors
/// The first difference.
pub fn stored_rows_find_each_other(
    check: &mut Check<'_, Search>,
    name: &str,
    (corpus, rows): (&Arc<CorpusView>, &Matrix),
    batches: Batches<'_>,
) -> Result<(), Failure> {
    let most = batches.iter().map(|(k, _)| *k).max().unwrap_or(1);
    for metric in Metric::OF_FLOATS {
        let truth = truth(metric, &rows.values, rows, most, None);
        for (k, sizes) in batches {
            for size in sizes.iter().copied().filter(|size| *size <= rows.rows) {
                // Another part of the rows each time, so that all of them serve as queries in small batches too.
                let start = size * 37 % (rows.rows - size + 1);
                let queries = &rows.values[start * rows.dim..(start + size) * rows.dim];
                searched(check, name, job(corpus, queries, metric, *k), &truth[start..start + size])?;
            }
        }
    }
    Ok(())
}

/// A corpus of rows by queries near them, for every metric and each k.
///
/// # Errors
/// The first difference.
pub fn near_rows_are_found(
    check: &mut Check<'_, Search>,
    name: &str,
    (rows, queries): (&Matrix, &[f32]),
    ks: &[usize],
) -> Result<(), Failure> {
    let corpus = check.subject.store(rows, &[rows.rows / 3, rows.rows / 3 + 3])?;
    let most = ks.iter().copied().max().unwrap_or(1);
    for metric in Metric::OF_FLOATS {
        let truth = truth(metric, queries, rows, most, None);
        for k in ks {
            searched(check, name, job(&corpus, queries, metric, *k), &truth)?;
        }
    }
    Ok(())
}

/// Rows of a corpus as queries, by number, in any order and more than once: with and without a threshold.
///
/// # Errors
/// The first difference.
pub fn rows_by_number(check: &mut Check<'_, Search>, name: &str, rows: &Matrix, count: usize) -> Result<(), Failure> {
    let corpus = check.subject.store(rows, &[rows.rows / 5, rows.rows / 2])?;
    // The one in the middle may be special.
    let places = (0..count).map(|at| at * 7_919 % rows.rows).chain([rows.rows / 2]);
    let numbers: Vec<u32> = places.map(|row| row as u32).collect();
    let queries: Vec<f32> = numbers.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
    for metric in Metric::OF_FLOATS {
        let unlimited = truth(metric, &queries, rows, 20, None);
        let middle = unlimited[0].last().map(|(_, bits)| f64::from_bits(*bits));
        for threshold in [None, middle] {
            let truth = truth(metric, &queries, rows, 20, threshold);
            for k in [1, 20] {
                let queries = Queries::Rows(numbers.clone());
                let job = Search { corpus: corpus.clone(), queries, metric, k, threshold };
                searched(check, &format!("{name}, rows by number, threshold {threshold:?}"), job, &truth)?;
            }
        }
    }
    Ok(())
}

/// Rows of very different lengths as queries, by number, with each one's own scores as thresholds: what is lost by the
/// rounding of a length shows there.
fn rows_of_all_lengths(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let (count, dim) = check.scale.of([(20, 8), (130, 24), (130, 24), (500, 384)]);
    let mut rows = Embeddings { rows: count, dim, seed: 33, ..Embeddings::default() }.generate();
    for (row, values) in rows.values.chunks_exact_mut(dim).enumerate() {
        // Few are so long that others come behind them.
        let length = if row % 40 == 0 { 25 } else { [0, 1, -10, -3, -25][row % 5] };
        values.iter_mut().for_each(|value| *value *= 2.0_f32.powi(length));
    }
    let corpus = check.subject.store(&rows, &[count / 3])?;
    for metric in Metric::OF_FLOATS {
        for number in (0..count).step_by(check.scale.of([3, 5, 5, 11])) {
            let order = truth(metric, rows.row(number), &rows, count, None);
            for rank in [0, 1, 4, 7] {
                let threshold = Some(f64::from_bits(order[0][rank].1));
                let truth = truth(metric, rows.row(number), &rows, 8, threshold);
                let queries = Queries::Rows(vec![number as u32]);
                let job = Search { corpus: corpus.clone(), queries, metric, k: 8, threshold };
                searched(check, &format!("rows of all lengths, row {number}, threshold of rank {rank}"), job, &truth)?;
            }
        }
    }
    Ok(())
}

fn the_sample(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let rows = sample()?.embeddings;
    let rows = rows.head(check.scale.of([300, 600, rows.rows, rows.rows]));
    let all = rows.rows;
    const FEW: &[usize] = &[1, 9, 64];
    const SOME: &[usize] = &[1, 2, 3, 7, 8, 9, 15, 16, 17, 64, 65, 200];
    const MANY: &[usize] =
        &[1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 100, 127, 128, 129, 511, 512, 513, 1000, 2047, 2048];
    let batches: [&[usize]; 4] = check.scale.of([
        [FEW, FEW, &[], &[3]],
        [SOME, SOME, &[1, 9, 64], &[1, 9, 65]],
        [MANY, MANY, MANY, &[1, 9, 600, 2048]],
        [MANY, MANY, MANY, MANY],
    ]);
    let batches: Vec<_> = [1, 10, 100, all].into_iter().zip(batches).collect();
    rows_find_each_other(check, "the real sample", &rows, &batches)?;
    rows_by_number(check, "the real sample", &rows, check.scale.of([3, 70, 500, 2_048]))?;
    if check.scale == Scale::Thorough {
        let rows = Embeddings { rows: ROWS, dim: 384, seed: 1, ..Embeddings::default() }.generate();
        let sizes = &[1, 64, 1_000, ROWS - 1, ROWS][..];
        rows_find_each_other(check, "5,562 rows", &rows, &[(1, sizes), (10, sizes), (100, sizes)])?;
    }
    Ok(())
}

fn odd_shapes(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let emulated = [(1, 1), (15, 3), (17, 7), (300, 8), (999, 128), (64, 1_536), (40, 4_096)];
    let usual = [
        (700, 384),
        (130, 768),
        (5_000, 4),
        (31, 96),
        (33, 96),
        (65, 96),
        (257, 96),
        (4_097, 96),
        (300, 33),
        (300, 129),
    ];
    // On both sides of every power of two.
    let around = |bits: usize| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1];
    let counts = (1..13).flat_map(around).map(|rows| (rows, 96));
    let dims = (1..13).flat_map(around).chain([8_191, 8_192]).map(|dim| (999, dim));
    let shapes: Vec<(usize, usize)> = match check.scale {
        Scale::Brief => vec![(1, 3), (200, 12)],
        Scale::Emulated => emulated.into(),
        Scale::Usual => emulated.into_iter().chain(usual).collect(),
        Scale::Thorough => emulated.into_iter().chain(usual).chain(counts).chain(dims).collect(),
    };
    for (rows, dim) in shapes {
        let corpus = Embeddings { rows, dim, seed: 3, ..Embeddings::default() }.generate();
        let queries = megaring_datasets::queries(&corpus, check.scale.of([3, 5, 5, 17]), 4);
        let name = format!("{rows} x {dim}");
        near_rows_are_found(check, &name, (&corpus, &queries.values), &[1, 3, 10, rows, rows + 10])?;
    }
    Ok(())
}

/// A corpus of 150 rows, by every k there is and one more.
fn every_k(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let rows = Embeddings { rows: 150, dim: 24, seed: 9, ..Embeddings::default() }.generate();
    let queries = megaring_datasets::queries(&rows, 3, 10);
    let ks: Vec<usize> = (1..=151).step_by(check.scale.of([50, 3, 1, 1])).collect();
    near_rows_are_found(check, "every k", (&rows, &queries.values), &ks)
}

/// Rows that break careless code: equal ones, zeros, the largest and the smallest numbers, sums that cancel.
fn hard_rows(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let (count, dim) = check.scale.of([(40, 12), (150, 32), (150, 32), (500, 64)]);
    let plain = Embeddings { rows: count, dim, seed: 21, ..Embeddings::default() }.generate();
    let corpora = [
        ("a row of zeros", poison::zero_row(&plain, count / 2)),
        ("huge rows", poison::huge(count, dim)),
        ("tiny rows", poison::tiny(count, dim)),
        ("equal rows", poison::constant(count, dim, 0.25)),
        ("zeros alone", poison::constant(count, dim, 0.0)),
        ("rows that come twice", poison::duplicated(&plain.head(count / 4), 4)),
        ("sums that cancel", poison::cancelling(count, dim)),
    ];
    for (name, rows) in corpora {
        let queries = [&rows.values[..3 * dim], &plain.values[..4 * dim], &vec![0.0; dim]].concat();
        near_rows_are_found(check, name, (&rows, &queries), &[1, 7, 100])?;
        rows_by_number(check, name, &rows, check.scale.of([1, 9, 9, 65]))?;
    }
    Ok(())
}

/// Thresholds that leave all hits, some, one and none, also ones that are a row's very score.
fn thresholds(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let (rows, dim) = (check.scale.of([50, 700, 700, 5_562]), 48);
    let rows = Embeddings { rows, dim, seed: 11, ..Embeddings::default() }.generate();
    let asked = megaring_datasets::queries(&rows, check.scale.of([2, 4, 4, 33]), 12);
    let corpus = check.subject.store(&rows, &[rows.rows / 2])?;
    for metric in Metric::OF_FLOATS {
        let order = truth(metric, &asked.values[..dim], &rows, rows.rows, None);
        let score_at = |rank: usize| f64::from_bits(order[0][rank].1);
        let (last, middle) = (rows.rows - 1, rows.rows / 10);
        let scores = [score_at(0), score_at(2), score_at(middle), score_at(last), score_at(middle / 2).next_up()];
        for threshold in scores.into_iter().chain([1e30, -1e30]) {
            let truth = truth(metric, &asked.values, &rows, 100, Some(threshold));
            for k in [1, 10, 100] {
                let job = Search { threshold: Some(threshold), ..job(&corpus, &asked.values, metric, k) };
                searched(check, &format!("threshold {threshold}"), job, &truth)?;
            }
        }
    }
    Ok(())
}

fn no_rows(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let rows = Matrix { rows: 0, dim: 8, values: Vec::new() };
    let corpus = check.subject.store(&rows, &[])?;
    for metric in Metric::OF_FLOATS {
        searched(check, "no rows", job(&corpus, &[1.0; 16], metric, 10), &[Vec::new(), Vec::new()])?;
    }
    Ok(())
}
