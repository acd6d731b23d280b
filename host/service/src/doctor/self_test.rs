//! The ring and the kernels at work: a job that does nothing, and a small search compared with the definition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::matrix::Matrix;
use megaring_core::nop::Nop;
use megaring_core::rescore::{Hit, compare};
use megaring_core::search::Search;
use megaring_core::{BackendKind, BackendStatus, Error, Metric, exact};
use megaring_engine::{Engine, Terms};

use super::{Finding, fault};
use crate::config::Settings;
use crate::console::duration_text;

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
/// Names the corpus in slots. Stored corpora are numbered from 1 up; the last two numbers mean something else to a
/// device.
const HANDLE: u32 = 1 << 31;

pub(super) fn engine(settings: &Settings) -> Result<Arc<Engine>, Error> {
    settings.private_engine(&BackendKind::ALL)
}

/// Of every backend that runs.
pub(super) fn findings(engine: &Arc<Engine>) -> Vec<Finding> {
    let segment = SegmentView::new(Arc::new(HeapSegment::new(numbers(ROWS * DIM, 1), DIM, None)), ROWS);
    let corpus = Arc::new(CorpusView::new("self-test".into(), HANDLE, 1, DIM, vec![Arc::new(segment)]));
    engine.store().table().register(&corpus);
    let running = engine.backends().into_iter().filter(|(_, status)| matches!(status, BackendStatus::Available(_)));
    running.flat_map(|(kind, _)| findings_of(engine, kind, &corpus)).collect()
}

fn findings_of(engine: &Arc<Engine>, kind: BackendKind, corpus: &Arc<CorpusView>) -> [Finding; 2] {
    let (place, help) = match kind {
        BackendKind::Cpu => (String::new(), "this should not happen on any machine; please report it with this output"),
        BackendKind::Cuda => (
            format!(" on {kind}"),
            "this should not happen on any GPU; please report it with this output, and do without it by --cuda off",
        ),
        BackendKind::Wgpu => (
            format!(" on {kind}"),
            "this should not happen on any adapter; please report it with this output, and do without it by --wgpu off",
        ),
    };
    let check = format!("ring{place}");
    let ring = match nop(engine, kind) {
        Ok(median) => Finding::ok(check, format!("{NOPS} empty jobs, {} each in the median", duration_text(median))),
        Err(error) => fault(&check, &error, help),
    };
    let check = format!("search{place}");
    let search =
        match Metric::OF_FLOATS.into_iter().find_map(|metric| difference(engine, kind, corpus, metric).transpose()) {
            None => Finding::ok(
                check,
                format!("{QUERIES} queries on {ROWS} rows by cosine, dot and l2: equal to the definition"),
            ),
            Some(Ok(difference)) => Finding::problem(check, difference, help),
            Some(Err(error)) => fault(&check, &error, help),
        };
    [ring, search]
}

fn nop(engine: &Arc<Engine>, kind: BackendKind) -> Result<Duration, Error> {
    let mut times = Vec::with_capacity(NOPS);
    for _ in 0..NOPS {
        let begun = Instant::now();
        engine.run_blocking(Nop, forced(kind))?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[NOPS / 2])
}

fn forced(kind: BackendKind) -> Terms {
    Terms { backend: Some(kind), ..Terms::default() }
}

/// What differs from the definition, if anything.
fn difference(
    engine: &Arc<Engine>,
    kind: BackendKind,
    corpus: &Arc<CorpusView>,
    metric: Metric,
) -> Result<Option<String>, Error> {
    let queries = Matrix { rows: QUERIES, dim: DIM, values: numbers(QUERIES * DIM, 2) };
    let job = Search { corpus: corpus.clone(), queries: queries.clone().into(), metric, k: K, threshold: None };
    let outcome = engine.run_blocking(job, forced(kind))?;
    let ranked = outcome.answer;
    let (_, segment) = corpus.segment_of(0);
    let rows = segment.data().embeddings();
    let equal = ranked.len() == QUERIES
        && ranked
            .iter()
            .enumerate()
            .all(|(query, ranked)| ranked.hits == by_definition(metric, queries.row(query), rows));
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
