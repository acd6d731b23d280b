//! Corpora on the heap, which the engine knows as if they were stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use megaring_bench::any::Job;
use megaring_core::Metric;
use megaring_core::corpus::{CorpusTable, CorpusView, HeapSegment, SegmentView};
use megaring_core::matrix::Matrix;
use megaring_core::search::Search;
use megaring_datasets::Embeddings;

/// Stored corpora are numbered from 1 up, the doctor's stands in the middle, and the last two numbers mean something
/// else to a device.
static NEXT_HANDLE: AtomicU32 = AtomicU32::new(1 << 30);

/// Makes a corpus of rows, in segments that end at the cuts, and lets it be found.
pub(crate) fn corpus(table: &CorpusTable, rows: megaring_datasets::Matrix, cuts: &[usize]) -> Arc<CorpusView> {
    let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
    let dim = rows.dim;
    let view = Arc::new(CorpusView::new(format!("check-{handle}"), handle, 1, dim, segments(rows, cuts)));
    table.register(&view);
    view
}

/// Segments that end at the cuts and at the end; empty ones are left out.
fn segments(rows: megaring_datasets::Matrix, cuts: &[usize]) -> Vec<Arc<SegmentView>> {
    let dim = rows.dim;
    let segment = |values: Vec<f32>| {
        let rows = values.len() / dim;
        Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, dim, None)), rows))
    };
    if cuts.is_empty() {
        return vec![segment(rows.values)];
    }
    let ends = cuts.iter().copied().chain([rows.rows]);
    let mut from = 0;
    let mut segments = Vec::new();
    for to in ends.map(|end| end.min(rows.rows)) {
        if to > from {
            segments.push(segment(rows.values[from * dim..to * dim].to_vec()));
            from = to;
        }
    }
    segments
}

/// Rows like those of a text model.
pub(crate) fn generated(rows: usize, dim: usize, seed: u64) -> megaring_datasets::Matrix {
    Embeddings { rows, dim, seed, ..Embeddings::default() }.generate()
}

/// A run of the corpus's own rows as queries. They lie in one segment.
pub(crate) fn own_queries(corpus: &CorpusView, start: usize, count: usize) -> Matrix {
    let (first, segment) = corpus.segment_of(start);
    let dim = corpus.dim();
    let values = &segment.data().embeddings()[(start - first) * dim..(start - first + count) * dim];
    Matrix { rows: count, dim, values: values.to_vec() }
}

/// A search without a threshold.
pub(crate) fn search(corpus: &Arc<CorpusView>, queries: Matrix, metric: Metric, k: usize) -> Job {
    Job::Search(Search { corpus: corpus.clone(), queries: queries.into(), metric, k, threshold: None })
}
