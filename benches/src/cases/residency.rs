//! What a backend is asked that has memory of its own: corpora that grow there, and that crowd each other out.

use megaring_core::Metric;
use megaring_core::search::{Queries, Search};
use megaring_datasets::Embeddings;

use super::search::{stored_rows_find_each_other, truth};
use super::{Check, Scale, Subject, matrix};
use crate::Failure;

/// Each version of a corpus, the longer ones of several segments, while those before it are still held; then the old
/// ones again.
///
/// # Errors
/// The first difference.
pub fn a_corpus_that_grows_is_searched_as_it_is(subject: &Subject, scale: Scale) -> Result<usize, Failure> {
    let (count, dim) = (scale.of([60, 500, 1_000, 3_000]), 40);
    let rows = Embeddings { rows: count, dim, seed: 8, ..Embeddings::default() }.generate();
    let mut versions = vec![subject.store(&rows.head(count / 5), &[count / 12])?];
    for end in [count / 5 + 1, count / 2, count] {
        let corpus = &versions[versions.len() - 1];
        let values = &rows.values[corpus.rows() * dim..end * dim];
        versions.push(subject.append(corpus.name(), values, None)?);
    }
    let mut check = Check::new(subject, scale);
    for corpus in versions.iter().chain(versions.iter().rev()) {
        let name = format!("version {}", corpus.generation());
        let now = rows.head(corpus.rows());
        stored_rows_find_each_other(&mut check, &name, (corpus, &now), &[(5, &[1, 30])])?;
    }
    Ok(check.compared)
}

/// Corpora of these rows and dimensions in turn, twice, on a backend whose memory does not hold them together: some
/// give way to others, and the largest may have to be streamed.
///
/// # Errors
/// The first difference; memory that held them all.
pub fn corpora_beyond_the_memory_are_searched(
    subject: &Subject,
    shapes: &[(usize, usize)],
    batch: usize,
) -> Result<usize, Failure> {
    let mut crowd = Vec::new();
    for (seed, (rows, dim)) in (20..).zip(shapes.iter().copied()) {
        let rows = Embeddings { rows, dim, seed, ..Embeddings::default() }.generate();
        let numbers: Vec<u32> = (0..batch).map(|at| (at * 31 % rows.rows) as u32).collect();
        let values: Vec<f32> = numbers.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
        let truths = Metric::OF_FLOATS.map(|metric| truth(metric, &values, &rows, 10, None));
        crowd.push((subject.store(&rows, &[rows.rows / 2])?, numbers, values, truths));
    }
    let mut check = Check::<Search>::new(subject, Scale::Usual);
    for round in 0..2 {
        for (corpus, numbers, values, truths) in &crowd {
            for (metric, truth) in Metric::OF_FLOATS.into_iter().zip(truths) {
                // What is streamed finds no rows by their numbers.
                let queries = match round {
                    0 => matrix(corpus.dim(), values).into(),
                    _ => Queries::Rows(numbers.clone()),
                };
                let job = Search { corpus: corpus.clone(), queries, metric, k: 10, threshold: None };
                check.case(format!("{} in round {round}, {metric}", corpus.name()), job, truth)?;
            }
        }
    }
    let given_way = ["evictions", "streamed", "tiles"].into_iter().filter_map(|name| subject.counted(name));
    if given_way.sum::<u64>() == 0 {
        return Err(format!("the memory held all corpora: {:?}", subject.engine.counters()).into());
    }
    Ok(check.compared)
}
