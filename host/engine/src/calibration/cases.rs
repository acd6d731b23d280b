//! Jobs to measure: of every class of operations, over generated data. The data is of the kind that a screen meets
//! (clusters, no zeros), not somebody's.

use std::sync::Arc;

use megaring_core::Metric;
use megaring_core::corpus::{CorpusView, HeapSegment, SegmentData};
use megaring_core::encode::profile::Profile;
use megaring_core::encode::{Encode, Features};
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::score::Score;
use megaring_core::search::Search;

use crate::measure::random::Random;

/// Bytes of a memory's text, on average: as of a paragraph.
const TEXT_BYTES: usize = 360;
/// Rows that lie about one centre.
const CLUSTER: usize = 64;
/// Different memories; further ones repeat them.
const MEMORIES: usize = 4_096;

/// A segment of embeddings in clusters, with coordinates.
pub(super) fn segment(rows: usize, dim: usize) -> Arc<dyn SegmentData> {
    let mut random = Random::new(rows as u64 ^ (dim as u64) << 32);
    let mut signed = || 2.0 * random.unit() - 1.0;
    let mut values = Vec::with_capacity(rows * dim);
    let mut centre = vec![0.0; dim];
    for row in 0..rows {
        if row % CLUSTER == 0 {
            centre.fill_with(&mut signed);
        }
        values.extend(centre.iter().map(|at| (at + 0.6 * signed()) as f32));
    }
    let coordinates = std::array::from_fn(|_| (0..rows).map(|_| signed()).collect());
    Arc::new(HeapSegment::new(values, dim, Some(coordinates)))
}

/// `count` memories, each of `length` paragraphs: the profile's words now and then, among others.
pub(super) fn memories(profile: &Profile, count: usize, length: usize) -> Encode {
    let mut random = Random::new(count as u64 ^ (length as u64) << 32);
    let different: Vec<String> = (0..count.min(MEMORIES)).map(|_| text(profile, length, &mut random)).collect();
    let mut job = Encode::default();
    for memory in 0..count {
        job.texts.push(&different[memory % different.len()]);
        job.gardens.push(String::new());
        job.features.push(Features {
            importance: random.unit(),
            age_days: 100.0 * random.unit(),
            ..Features::default()
        });
    }
    job
}

fn text(profile: &Profile, length: usize, random: &mut Random) -> String {
    const OTHERS: [&str; 8] = ["the", "of", "river", "went", "between", "stones", "and", "quietly"];
    let words = profile.words();
    let mut text = String::with_capacity(length * TEXT_BYTES + 16);
    while text.len() < length * TEXT_BYTES {
        let drawn = random.next() as usize;
        let word = if drawn.is_multiple_of(8) && !words.is_empty() {
            &words[drawn / 8 % words.len()]
        } else {
            OTHERS[drawn / 8 % 8]
        };
        text.push_str(word);
        text.push(' ');
    }
    text
}

/// Queries that are rows of the corpus, spread over it: another run of them for each `set`, so that no answer is in a
/// cache.
fn rows_of(rows: usize, queries: usize, set: usize) -> impl Iterator<Item = usize> {
    (0..queries).map(move |query| (query * 31 + set * 1_009) % rows)
}

fn embeddings(view: &CorpusView, data: &dyn SegmentData, queries: usize, set: usize) -> Matrix {
    let (rows, dim) = (view.rows(), view.dim());
    let values = rows_of(rows, queries, set).flat_map(|row| &data.embeddings()[row * dim..(row + 1) * dim]);
    Matrix { rows: queries, dim, values: values.copied().collect() }
}

pub(super) fn search(view: &Arc<CorpusView>, data: &dyn SegmentData, queries: usize, k: usize, set: usize) -> Search {
    let queries = embeddings(view, data, queries, set);
    Search { corpus: view.clone(), queries: queries.into(), metric: Metric::Cosine, k, threshold: None }
}

pub(super) fn score(view: &Arc<CorpusView>, data: &dyn SegmentData, queries: usize, set: usize) -> Score {
    let queries = embeddings(view, data, queries, set);
    Score { corpus: view.clone(), queries, metric: Metric::Cosine, rows: None }
}

pub(super) fn nearest(view: &Arc<CorpusView>, queries: usize, k: usize, set: usize) -> Nearest {
    let points = Points::Corpus(view.clone());
    let queries = rows_of(view.rows(), queries, set).map(|row| points.point(row as u32)).collect();
    Nearest { points, queries, weights: [1.0; 5], k }
}
