//! Rows cut to their first elements: searched and scored as if there were no others.

use megaring_core::score::Score;
use megaring_core::search::{Queries, Search};
use megaring_core::visible::Visible;
use megaring_core::{Metric, RowType};
use megaring_datasets::{Embeddings, Matrix, reference};

use super::bits;
use super::search::{Hits, by_reference, searched, truth};
use super::{Check, matrix};
use crate::Failure;

/// The first elements of rows.
fn cut(rows: &Matrix, dim: usize) -> Matrix {
    let values = rows.values.chunks_exact(rows.dim).flat_map(|row| &row[..dim]).copied().collect();
    Matrix { rows: rows.rows, dim, values }
}

/// Queries that are sent and that are rows, of all rows and of a third of them.
pub(super) fn searches(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let count = check.scale.of([90, 700, 700, 20_000]);
    let rows = Embeddings { rows: count, dim: 40, seed: 51, ..Embeddings::default() }.generate();
    let corpus = check.subject.store(&rows, &[count / 3, count / 3 + 7])?;
    let numbers: Vec<u32> = (0..5).map(|at| (at * 577 % count) as u32).collect();
    for dim in [1, 3, 17, 39, 40] {
        let few = cut(&rows, dim);
        let queries: Vec<f32> = numbers.iter().flat_map(|row| few.row(*row as usize)).copied().collect();
        let store = check.subject.engine.store();
        let prefix = store.prefix(&corpus, dim)?;
        let third = store.table().select(
            &corpus,
            corpus.segments().map(|(start, segment)| {
                Visible::all(segment.rows()).without((0..segment.rows()).filter(|row| (start + row) % 3 != 1))
            }),
        );
        let third = store.prefix(&third, dim)?;
        for metric in Metric::OF_FLOATS {
            let all = truth(metric, &queries, &few, count, None);
            let some: Vec<Hits> =
                all.iter().map(|hits| hits.iter().filter(|hit| hit.0 % 3 == 1).copied().collect()).collect();
            for k in [1, 10, count] {
                for (view, want) in [(&prefix, &all), (&third, &some)] {
                    for queries in [matrix(dim, &queries).into(), Queries::Rows(numbers.clone())] {
                        let job = Search { corpus: view.clone(), queries, metric, k, threshold: None };
                        searched(check, &format!("{dim} of 40 elements"), job, want)?;
                    }
                }
            }
        }
    }
    of_bits(check)
}

fn of_bits(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let rows = bits::rows(150, 96, 53);
    let corpus = check.subject.store_bits(96, &rows, &[50])?;
    for dim in [8, 40, 64] {
        let width = RowType::bits(dim).width();
        let mut few = cut(&rows, width);
        let there = u32::MAX >> (32 * width - dim);
        let last = few.values.chunks_exact_mut(width).filter_map(<[f32]>::last_mut);
        last.for_each(|word| *word = f32::from_bits(word.to_bits() & there));
        let prefix = check.subject.engine.store().prefix(&corpus, dim)?;
        let queries = few.head(4).values;
        for metric in Metric::OF_BITS {
            let all = truth(metric, &queries, &few, 150, None);
            let queries = matrix(width, &queries).into();
            let job = Search { corpus: prefix.clone(), queries, metric, k: 20, threshold: None };
            searched(check, &format!("{dim} of 96 bits"), job, &all)?;
        }
    }
    Ok(())
}

/// The scores of all rows.
pub(super) fn scores(check: &mut Check<'_, Score>) -> Result<(), Failure> {
    let rows = Embeddings { rows: 60, dim: 24, seed: 52, ..Embeddings::default() }.generate();
    let corpus = check.subject.store(&rows, &[20])?;
    for dim in [1, 9, 23] {
        let few = cut(&rows, dim);
        let prefix = check.subject.engine.store().prefix(&corpus, dim)?;
        let queries = few.head(3).values;
        for metric in Metric::OF_FLOATS {
            let want = reference::score(by_reference(metric), &queries, &few.values, dim);
            let want: Vec<u32> = want.iter().map(|score| score.to_bits()).collect();
            let job = Score { corpus: prefix.clone(), queries: matrix(dim, &queries), metric, rows: None };
            check.case(format!("{dim} of 24 elements, {metric}"), job, &want)?;
        }
    }
    Ok(())
}
