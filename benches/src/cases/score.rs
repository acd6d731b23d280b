//! Matrices of all rows, of named ones, and of none.

use megaring_core::Metric;
use megaring_core::score::Score;
use megaring_datasets::{Embeddings, reference, sample};

use super::search::by_reference;
use super::{Cases, Check, Workload, bits, matrix, prefix};
use crate::{Bench, Failure, queries};

/// Rows of the corpus that it is measured on.
const ROWS: usize = 5_562;

impl Cases for Score {
    type Part = u32;

    fn cases(check: &mut Check<'_, Self>) -> Result<(), Failure> {
        let rows = sample()?.embeddings.head(check.scale.of([40, 300, 300, 300]));
        scored(check, &rows, check.scale.of([2, 20, 70, 70]))?;
        let shapes: &[(usize, usize, usize)] = check.scale.of([
            &[(1, 1, 1)][..],
            &[(129, 9, 7), (1, 1, 1)],
            &[(129, 33, 7), (5_562, 2, 384), (1, 1, 1)],
            &[(129, 33, 7), (5_562, 9, 384), (1_000, 1, 1), (1, 1, 1)],
        ]);
        for (rows, asked, dim) in shapes.iter().copied() {
            scored(check, &Embeddings { rows, dim, seed: 14, ..Embeddings::default() }.generate(), asked)?;
        }
        bits::scores(check)?;
        prefix::scores(check)
    }

    fn parts(answer: &Vec<f32>) -> Vec<u32> {
        answer.iter().map(|score| score.to_bits()).collect()
    }

    fn workloads(bench: &Bench) -> Result<Vec<Workload<Self>>, Failure> {
        let rows = bench.corpus("scored", ROWS, 384)?;
        let corpus = bench.engine.store().view("scored")?;
        let sizes =
            [("100 rows", 1, Some(100)), ("all of 5562x384", 1, None), ("all of 5562x384, 64 queries", 64, None)];
        let workload = |(name, count, named): (&str, usize, Option<usize>)| {
            let (rows, corpus) = (rows.clone(), corpus.clone());
            let job = move |turn: usize| {
                let queries = queries(&rows, turn * 37 % (ROWS - count), count);
                let named = named.map(|named| (0..named).map(|row| ((row * 53 + turn * 7) % ROWS) as u32).collect());
                Self { corpus: corpus.clone(), queries, metric: Metric::Cosine, rows: named }
            };
            let elements = (count * named.unwrap_or(ROWS)) as u64;
            Workload { name: name.into(), elements, job: Box::new(job) }
        };
        Ok(sizes.map(workload).into())
    }
}

/// The first `asked` rows against all of them, and against some that are named.
fn scored(check: &mut Check<'_, Score>, rows: &megaring_datasets::Matrix, asked: usize) -> Result<(), Failure> {
    let corpus = check.subject.store(rows, &[rows.rows / 3])?;
    let queries = rows.head(asked.min(rows.rows)).values;
    for metric in Metric::OF_FLOATS {
        let all = reference::score(by_reference(metric), &queries, &rows.values, rows.dim);
        let last = rows.rows as u32 - 1;
        for named in [None, Some(vec![last, 0, last / 2, last / 2, last / 3, (last + 1) / 3]), Some(Vec::new())] {
            let ids = named.clone().unwrap_or_else(|| (0..=last).collect());
            let row = |query: usize| ids.iter().map(move |row| query * rows.rows + *row as usize);
            let want: Vec<u32> = (0..asked.min(rows.rows)).flat_map(row).map(|at| all[at].to_bits()).collect();
            let name = format!("{} x {}, {metric}, {} rows", rows.rows, rows.dim, ids.len());
            let queries = matrix(rows.dim, &queries);
            check.case(name, Score { corpus: corpus.clone(), queries, metric, rows: named }, &want)?;
        }
    }
    Ok(())
}
