//! Score: the matrix of exact scores of all pairs. Nothing is screened; cells are shared out in runs of one query's
//! rows.

use std::ops::Range;
use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::score::FLAG_ALL_ROWS;
use megaring_core::{Metric, exact, rescore};
use megaring_ring::Status;

use super::{Planned, Scratch, Work};
use crate::backend::Context;
use crate::backend::memory::JobSlice;
use crate::backend::plan::{Inputs, cut};
use crate::{KernelSet, SimdError};

/// Cells that are worth a chunk of their own: about 100 µs at 384 dimensions.
const CHUNK_CELLS: usize = 2048;
/// Rows scored in one call.
const RUN: usize = 256;

/// A score job in work.
struct Score {
    view: Arc<CorpusView>,
    metric: Metric,
    queries: JobSlice<f32>,
    /// Rows wanted; `None` is all of them.
    rows: Option<JobSlice<u32>>,
    width: usize,
    out: JobSlice<f32>,
    chunks: usize,
}

/// Checks the slot: row numbers too, since they index the corpus.
pub(super) fn plan(inputs: &Inputs, context: &Context) -> Result<Planned, Status> {
    let view = inputs.corpus(&context.corpora)?;
    let items = inputs.items();
    let values = items.checked_mul(view.dim()).ok_or(Status::BadDescriptor)?;
    let queries = inputs.input(0, values)?;
    let rows = if inputs.descriptor.flags & FLAG_ALL_ROWS != 0 {
        None
    } else {
        let named: JobSlice<u32> = inputs.input(values * size_of::<f32>(), inputs.descriptor.k as usize)?;
        // SAFETY: the job is not completed yet and nobody writes to its payload.
        let inside = unsafe { named.shared() }.iter().all(|row| (*row as usize) < view.rows());
        Some(named).filter(|_| inside).ok_or(Status::BadDescriptor).map(Some)?
    };
    let width = rows.map_or(view.rows(), |rows| rows.len());
    let cells = items.checked_mul(width).ok_or(Status::BadDescriptor)?;
    let out = inputs.output(0, cells)?;
    let chunks = (cells / CHUNK_CELLS).clamp(1, 8 * inputs.workers);
    let metric = inputs.metric_of(&view)?;
    let work = Score { view, metric, queries, rows, width, out, chunks };
    Ok((Box::new(work), chunks as u32))
}

impl Work for Score {
    /// A run of cells in row-major order.
    fn run(&self, chunk: usize, context: &Context, _: &mut Scratch) -> Result<(), SimdError> {
        let cells = cut(self.out.len(), self.chunks, chunk);
        // SAFETY: chunks' cell ranges are disjoint and the job is not completed before all chunks are done.
        let out = unsafe { self.out.range_mut(cells.clone()) };
        let mut at = cells.start;
        while at < cells.end {
            let (query, row) = (at / self.width, at % self.width);
            let count = (cells.end - at).min(self.width - row).min(RUN);
            self.run_rows(query, row..row + count, context.kernels, &mut out[at - cells.start..][..count]);
            at += count;
        }
        Ok(())
    }
}

impl Score {
    fn run_rows(&self, query: usize, range: Range<usize>, kernels: &KernelSet, out: &mut [f32]) {
        // SAFETY: the job is not completed while chunks run, and nobody writes to its payload.
        let (values, named) = unsafe { (self.queries.shared(), self.rows.map(|rows| rows.shared())) };
        let query = &values[query * self.view.dim()..][..self.view.dim()];
        let mut ids = [0; RUN];
        let ids = &mut ids[..range.len()];
        match named {
            Some(named) => ids.copy_from_slice(&named[range]),
            None => ids.iter_mut().zip(range).for_each(|(id, row)| *id = row as u32),
        }
        let mut scores = [0.0; RUN];
        let scores = &mut scores[..ids.len()];
        rescore::score_rows(&self.view, query, self.metric, ids, kernels, scores);
        for (out, score) in out.iter_mut().zip(scores) {
            *out = exact::reported(*score);
        }
    }
}
