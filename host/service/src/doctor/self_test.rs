//! The ring and the kernels at work: a job that does nothing, and a small search compared with the definition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::job::{Job, Matrix, SearchJob, Terms};
use megaring_core::rescore::{Hit, compare};
use megaring_core::{Error, Metric, exact};

use super::{Finding, fault};
use crate::cli::{duration_text, private_engine};
use crate::config::Settings;
use crate::engine::Engine;
use crate::outcome::Answer;

/// Nops sent; the median counts.
const NOPS: usize = 501;
/// Rows of the test corpus: more than a group of the screen's codes, and not a multiple of one.
const ROWS: usize = 203;
/// Elements: two vectors of the widest kernel and a tail.
const DIM: usize = 37;
/// Queries sent.
const QUERIES: usize = 5;
/// Hits wanted.
const K: usize = 10;
/// Names the corpus in slots. Stored corpora are numbered from below.
const HANDLE: u32 = u32::MAX;

pub(super) fn engine(settings: &Settings) -> Result<Arc<Engine>, Error> {
    private_engine(settings)
}

pub(super) fn findings(engine: &Arc<Engine>) -> Vec<Finding> {
    let help = "this should not happen on any machine; please report it with this output";
    let ring = match nop(engine) {
        Ok(median) => Finding::ok("ring", format!("{NOPS} empty jobs, {} each in the median", duration_text(median))),
        Err(error) => fault("ring", &error, help),
    };
    let search = match Metric::ALL.into_iter().find_map(|metric| difference(engine, metric).transpose()) {
        None => Finding::ok(
            "search",
            format!("{QUERIES} queries on {ROWS} rows by cosine, dot and l2: equal to the definition"),
        ),
        Some(Ok(difference)) => Finding::problem("search", difference, help),
        Some(Err(error)) => fault("search", &error, help),
    };
    vec![ring, search]
}

fn nop(engine: &Arc<Engine>) -> Result<Duration, Error> {
    let mut times = Vec::with_capacity(NOPS);
    for _ in 0..NOPS {
        let begun = Instant::now();
        engine.run_blocking(Job::Nop, Terms::default())?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[NOPS / 2])
}

/// What differs from the definition, if anything.
fn difference(engine: &Arc<Engine>, metric: Metric) -> Result<Option<String>, Error> {
    let rows = numbers(ROWS * DIM, 1);
    let segment = SegmentView::new(Arc::new(HeapSegment::new(rows.clone(), DIM, None)), ROWS);
    let corpus = Arc::new(CorpusView::new("self-test".into(), HANDLE, 1, DIM, vec![Arc::new(segment)]));
    engine.store().table().register(&corpus);
    let queries = Matrix { rows: QUERIES, dim: DIM, values: numbers(QUERIES * DIM, 2) };
    let job = SearchJob { corpus, queries: queries.clone(), metric, k: K, threshold: None };
    let outcome = engine.run_blocking(Job::Search(job), Terms::default())?;
    let Answer::Hits(ranked) = outcome.answer else {
        return Err(Error::Internal("a search was answered with something else".into()));
    };
    let equal = ranked.len() == QUERIES
        && ranked
            .iter()
            .enumerate()
            .all(|(query, ranked)| ranked.hits == by_definition(metric, queries.row(query), &rows));
    Ok((!equal).then(|| format!("{metric}: the answer differs from the definition")))
}

fn by_definition(metric: Metric, query: &[f32], rows: &[f32]) -> Vec<Hit> {
    let score = |(row, values)| Hit { row, score: exact::score(metric, query, values) };
    let mut hits: Vec<Hit> = (0..).zip(rows.chunks_exact(DIM)).map(score).collect();
    hits.sort_unstable_by(|x, y| compare(metric, x, y));
    hits.truncate(K);
    hits
}

/// Numbers within [-1, 1) by a linear congruential generator (Knuth's MMIX constants), the same everywhere.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
