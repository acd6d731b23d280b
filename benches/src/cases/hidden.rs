//! Rows that are hidden: what is left is searched as if there were nothing else, under the numbers that the rows have.

use std::sync::Arc;

use megaring_core::Metric;
use megaring_core::corpus::CorpusView;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::search::{Queries, Search};
use megaring_core::visible::Visible;
use megaring_datasets::{Embeddings, Matrix, points, reference};

use super::search::{Hits, truth};
use super::{Check, matrix};
use crate::Failure;

/// Which rows are left of so many, under a name.
pub(super) type Choice = (&'static str, fn(usize, usize) -> bool);

/// Most, some, runs, and so few that less are left than are wanted.
pub(super) const CHOICES: [Choice; 6] = [
    ("all but a few", |row, _| row % 97 != 5),
    ("every third", |row, _| row % 3 == 1),
    ("the first of every sixty", |row, _| row % 60 == 0),
    ("the later half", |row, rows| row >= rows / 2),
    ("three", |row, rows| [1, rows / 2, rows - 1].contains(&row)),
    ("none", |_, _| false),
];

/// A version of which the chosen rows alone are visible, and their numbers.
pub(super) fn select(
    corpus: &CorpusView,
    check: &Check<'_, impl super::Cases>,
    choice: Choice,
) -> (Arc<CorpusView>, Vec<u32>) {
    let rows = corpus.rows();
    let hidden = |row: &usize| !choice.1(*row, rows);
    let visible = corpus.segments().map(|(start, segment)| {
        let hidden = (start..start + segment.rows()).filter(hidden).map(|row| row - start);
        Visible::all(segment.rows()).without(hidden)
    });
    let view = check.subject.engine.store().table().select(corpus, visible);
    (view, (0..rows).filter(|row| !hidden(row)).map(|row| row as u32).collect())
}

/// Searches of what is left, by vectors and by rows, of which some are hidden; wide rows, and rows of a few elements.
pub(super) fn searches(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let (count, few) = check.scale.of([(150, 2), (1_500, 3), (1_500, 9), (20_000, 33)]);
    for dim in [24, 3] {
        let rows = Embeddings { rows: count, dim, seed: 41, ..Embeddings::default() }.generate();
        let corpus = check.subject.store(&rows, &[count / 3, count / 3 + 7])?;
        let numbers: Vec<u32> = (0..few).map(|at| (at * 577 % count) as u32).collect();
        let queries: Vec<f32> = numbers.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
        for choice in CHOICES {
            let (view, left) = select(&corpus, check, choice);
            let gathered = check.subject.engine.store().table().gather(&view);
            let values = left.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
            let subset = Matrix { rows: left.len(), dim, values };
            for metric in Metric::OF_FLOATS {
                let of_subset = truth(metric, &queries, &subset, count, None);
                let renumber = |hits: &Hits| hits.iter().map(|(row, score)| (left[*row as usize], *score)).collect();
                let all: Vec<Hits> = of_subset.iter().map(renumber).collect();
                for k in [1, 10, count / 4, count] {
                    let want: Vec<Hits> = all.iter().map(|hits| hits[..k.min(hits.len())].to_vec()).collect();
                    let sent = || Queries::Sent(matrix(dim, &queries));
                    let ways = [(&view, sent()), (&view, Queries::Rows(numbers.clone())), (&gathered, sent())];
                    for (corpus, queries) in ways {
                        let job = Search { corpus: corpus.clone(), queries, metric, k, threshold: None };
                        check.case(format!("{} of {count} x {dim}, {metric}, k {k}", choice.0), job, &want)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Nearest points of what is left.
pub(super) fn nearest(check: &mut Check<'_, Nearest>) -> Result<(), Failure> {
    let (count, few) = check.scale.of([(200, 2), (3_000, 3), (20_000, 9), (110_000, 9)]);
    let (cloud, queries) = (points(count, 42), points(few, 43));
    let columns = std::array::from_fn(|axis| cloud.iter().map(|point| point[axis]).collect());
    let corpus = check.subject.store_points(columns)?;
    for choice in CHOICES {
        let (view, left) = select(&corpus, check, choice);
        let subset: Vec<[f64; 5]> = left.iter().map(|row| cloud[*row as usize]).collect();
        for (k, weights) in [(1, [1.0; 5]), (20, [0.0, 1.0, 2.0, 0.5, 1e-3]), (3, [0.0; 5])] {
            let found = |query| reference::nearest(&subset, query, &weights, k);
            let part = |query| found(query).iter().map(|n| (left[n.row as usize], n.distance.to_bits())).collect();
            let want: Vec<Vec<(u32, u64)>> = queries.iter().map(part).collect();
            let job = Nearest { points: Points::Corpus(view.clone()), queries: queries.clone(), weights, k };
            check.case(format!("{} of {count} points, k {k}", choice.0), job, &want)?;
        }
    }
    Ok(())
}
