//! Corpora on the heap, and queries of them: generated like the embeddings of a text model, never zeros.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use megaring_core::Metric;
use megaring_core::corpus::{CorpusView, HeapSegment, SegmentData, SegmentView};
use megaring_core::matrix::Matrix;
use megaring_datasets::Embeddings;
use megaring_engine::{Engine, machine};

/// How rows compare.
pub(super) const METRIC: Metric = Metric::Cosine;
/// Stored corpora are numbered from 1 up and those of self-tests from the middle; the last two numbers mean something
/// else to a device.
static HANDLES: AtomicU32 = AtomicU32::new(3 << 30);

/// A corpus that devices may keep, its rows, and queries.
pub(super) struct Corpus {
    rows: Arc<dyn SegmentData>,
    count: usize,
    dim: usize,
    view: Arc<CorpusView>,
    queries: Matrix,
}

impl Corpus {
    /// Makes one with queries for batches of up to `most`; none where memory is too short for it.
    pub(super) fn make(engine: &Engine, count: usize, dim: usize, most: usize) -> Option<Self> {
        // Rows, codes, what is derived of each row, and queries twice.
        let bytes = count * (5 * dim + 64) + 2 * most * dim * size_of::<f32>();
        if machine::memory().is_some_and(|memory| bytes as u64 > memory.available / 2) {
            return None;
        }
        let rows = Embeddings { rows: count, dim, ..Embeddings::default() }.generate();
        let queries = megaring_datasets::queries(&rows, 2 * most + STRIDE, 7);
        let rows: Arc<dyn SegmentData> = Arc::new(HeapSegment::new(rows.values, dim, None));
        let view = view(engine, rows.clone(), count, dim);
        let queries = Matrix { rows: queries.rows, dim, values: queries.values };
        Some(Self { rows, count, dim, view, queries })
    }

    /// The corpus that stays the same.
    pub(super) fn resident(&self) -> Arc<CorpusView> {
        self.view.clone()
    }

    /// The same rows as a corpus that nobody has seen.
    pub(super) fn fresh(&self, engine: &Engine) -> Arc<CorpusView> {
        view(engine, self.rows.clone(), self.count, self.dim)
    }

    /// The queries of a call: others than those of the call before.
    pub(super) fn queries(&self, call: u64, items: usize) -> Matrix {
        let places = (self.queries.rows - items) as u64 + 1;
        let first = (call.wrapping_mul(STRIDE as u64) % places) as usize;
        let values = self.queries.values[first * self.dim..(first + items) * self.dim].to_vec();
        Matrix { rows: items, dim: self.dim, values }
    }
}

/// Queries between the starts of two calls, a prime.
const STRIDE: usize = 1_543;

fn view(engine: &Engine, rows: Arc<dyn SegmentData>, count: usize, dim: usize) -> Arc<CorpusView> {
    let segment = SegmentView::new(rows, count);
    // Made on first use otherwise, which would be within the time of a job.
    let _ = (segment.columns(METRIC), segment.high_columns(METRIC));
    let handle = HANDLES.fetch_add(1, Ordering::Relaxed);
    let view = Arc::new(CorpusView::new(format!("bench-{handle}"), handle, 1, dim, vec![Arc::new(segment)]));
    engine.store().table().register(&view);
    view
}
