//! What must come out, by the naive reference, and the comparison.

use std::ops::Range;
use std::time::{Duration, Instant};

use megaring_core::Metric;
use megaring_datasets::reference::{self, Encoded, Hit, Profile};
use megaring_datasets::{Matrix, Memories};
use megaring_proto::v1 as pb;
use rayon::prelude::*;

use super::data::Corpus;
use crate::console::Failure;

/// How far a coordinate may be off: the reference uses the platform's exponential.
const COORDINATE_ERROR: f64 = 1e-12;

/// The reference's answers and the time it took for them.
pub(super) struct Expected<T> {
    pub(super) answers: Vec<T>,
    pub(super) took: Duration,
}

pub(super) fn search(corpus: &Corpus, queries: &Matrix, metric: Metric, k: usize) -> Expected<Vec<Hit>> {
    let begun = Instant::now();
    let metric = match metric {
        Metric::Cosine => reference::Metric::Cosine,
        Metric::Dot => reference::Metric::Dot,
        Metric::L2 => reference::Metric::L2,
        Metric::Hamming => reference::Metric::Hamming,
        Metric::Jaccard => reference::Metric::Jaccard,
    };
    let answers = reference::search(metric, &queries.values, &corpus.rows.values, corpus.rows.dim, k, None);
    Expected { answers, took: begun.elapsed() }
}

pub(super) fn encode(memories: &Memories) -> Result<Expected<Encoded>, Failure> {
    let begun = Instant::now();
    let profile = Profile::whitemagic().map_err(Failure::work)?;
    let encode = |index| reference::encode(&memories.get(index), &profile);
    let answers = (0..memories.len()).into_par_iter().map(encode).collect();
    Ok(Expected { answers, took: begun.elapsed() })
}

/// The first difference of a reply from the reference, in words.
pub(super) fn search_difference(
    reply: &pb::SearchResponse,
    expected: &[Vec<Hit>],
    corpus: &Corpus,
    titles: bool,
) -> Option<String> {
    if !reply.made.as_ref().is_some_and(|made| made.exact) {
        return Some("the reply does not say that it is exact".into());
    }
    if reply.results.len() != expected.len() {
        return Some(format!("{} answers to {} queries", reply.results.len(), expected.len()));
    }
    let hits = reply.results.iter().zip(expected).enumerate();
    let mut differences = hits.filter_map(|(query, (got, expected))| {
        let reason = hits_difference(got, expected, corpus, titles)?;
        Some(format!("query {query}: {reason}"))
    });
    differences.next()
}

fn hits_difference(got: &pb::Hits, expected: &[Hit], corpus: &Corpus, titles: bool) -> Option<String> {
    let rows: Vec<u32> = expected.iter().map(|hit| hit.row).collect();
    if got.rows != rows {
        return Some(format!("rows {:?} where the reference has {rows:?}", got.rows));
    }
    let bits = |scores: &mut dyn Iterator<Item = f32>| scores.map(f32::to_bits).collect::<Vec<_>>();
    if bits(&mut got.scores.iter().copied()) != bits(&mut expected.iter().map(|hit| hit.reported())) {
        let expected: Vec<f32> = expected.iter().map(|hit| hit.reported()).collect();
        return Some(format!("scores {:?} where the reference has {expected:?}", got.scores));
    }
    let ids = rows.iter().map(|row| corpus.ids[*row as usize]);
    if !got.memory_ids.iter().copied().eq(ids) {
        return Some(format!("the ids {:?} are not those of the rows {rows:?}", got.memory_ids));
    }
    let expected: Vec<&String> =
        if titles { rows.iter().map(|row| &corpus.titles[*row as usize]).collect() } else { Vec::new() };
    if got.titles.iter().ne(expected) {
        return Some(format!("the titles {:?} are not those of the rows {rows:?}", got.titles));
    }
    None
}

/// The first difference of a reply for these memories from the reference, in words.
pub(super) fn encode_difference(
    reply: &pb::EncodeResponse,
    expected: &[Encoded],
    memories: &Range<usize>,
) -> Option<String> {
    let (coordinates, rest) = reply.coordinates.as_chunks::<5>();
    let (masks, mask_rest) = reply.masks.as_chunks::<16>();
    let count = memories.len();
    let lengths = [coordinates.len(), masks.len(), reply.zones.len(), expected.len()];
    if !rest.is_empty() || !mask_rest.is_empty() || lengths.iter().any(|length| *length != count) {
        return Some(format!("{lengths:?} coordinates, masks, zones and references for {count} memories"));
    }
    (0..count).find_map(|index| {
        let (mask, zone) = (u128::from_le_bytes(masks[index]), reply.zones[index]);
        let wanted = &expected[index];
        let near = |(got, wanted): (&f64, &f64)| (got - wanted).abs() <= COORDINATE_ERROR;
        let equal = mask == wanted.mask
            && zone == u32::from(wanted.zone)
            && coordinates[index].iter().zip(&wanted.coordinates).all(near);
        let got = (mask, coordinates[index], zone);
        (!equal).then(|| format!("memory {}: {got:?} where the reference has {wanted:?}", memories.start + index))
    })
}
