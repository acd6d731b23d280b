//! Search among rows of few elements, or of bits: every row is scored, and the best are kept as they come.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use megaring_core::Element;
use megaring_ring::Status;

use super::search::Asked;
use super::{Planned, Scratch, Work};
use crate::backend::Context;
use crate::backend::plan::cut;
use crate::{KernelSet, NARROW_DIM, SimdError, SweepQuery, SweepRows};

/// Rows that one query after the other reads, and their bytes: they stay in the first-level cache.
const BLOCK: usize = 1024;
const BLOCK_BYTES: usize = 16 << 10;
/// Queries that go through the rows together.
const TILE: usize = 64;
/// Rows times queries that are worth a chunk of their own, of a few values a row; some 10 µs.
const CHUNK: usize = 32 << 10;
/// Bytes of rows that no cache keeps.
const LARGE_BYTES: usize = 16 << 20;
/// Hits of all queries together that are put together from those of each chunk within a millisecond.
const MOST_MERGED: usize = 64 << 10;
/// Values of a row that take no longer than a few do.
const FEW_VALUES: usize = 4;

/// A job in work. Chunk c is part `c % parts` of the rows for cut `c / parts` of the queries.
struct Sweep {
    asked: Asked,
    cuts: usize,
    parts: usize,
    /// What was found for each query, where rows are shared out.
    merged: Mutex<Vec<SweepQuery>>,
}

/// Whether rows are so narrow that all are scored.
pub(super) fn serves(asked: &Asked) -> bool {
    let dim = asked.view.dim();
    dim > 0 && (dim <= NARROW_DIM || asked.metric.element() == Element::Bit)
}

/// Decides how to share the work: by queries where there are enough of them, else by rows, and so also where rows come
/// from memory, which then are read once for all queries.
pub(super) fn plan(asked: Asked, workers: usize) -> Result<Planned, Status> {
    let work = asked.items.saturating_mul(asked.view.rows()).saturating_mul(asked.view.dim().div_ceil(FEW_VALUES));
    let chunks = (work / CHUNK).clamp(1, 4 * workers);
    let is_large = asked.view.rows() * asked.view.dim() * size_of::<f32>() >= LARGE_BYTES;
    let is_merged_soon = asked.items.saturating_mul(asked.k) <= MOST_MERGED;
    let by_queries = asked.items >= chunks && !(is_large && is_merged_soon);
    let (cuts, parts) = if by_queries { (chunks, 1) } else { (1, chunks) };
    let merged = if parts == 1 { Ok(Vec::new()) } else { asked.sweep(0..asked.items) };
    let merged = Mutex::new(merged.map_err(|_| Status::BadDescriptor)?);
    Ok((Box::new(Sweep { asked, cuts, parts, merged }), chunks as u32))
}

impl Work for Sweep {
    fn run(&self, chunk: usize, context: &Context, _: &mut Scratch) -> Result<(), SimdError> {
        let queries = cut(self.asked.items, self.cuts, chunk / self.parts);
        let rows = cut(self.asked.view.rows(), self.parts, chunk % self.parts);
        for first in queries.clone().step_by(TILE) {
            let mut found = self.asked.sweep(first..queries.end.min(first + TILE))?;
            self.sweep(&rows, context.kernels, &mut found)?;
            if self.parts == 1 {
                (first..).zip(&mut found).for_each(|(query, found)| self.write(query, found));
            } else {
                let mut merged = self.merged.lock().unwrap_or_else(PoisonError::into_inner);
                merged[first..].iter_mut().zip(&found).for_each(|(merged, found)| merged.absorb(found));
            }
        }
        Ok(())
    }

    fn merge(&self, _: &Context) {
        let mut merged = self.merged.lock().unwrap_or_else(PoisonError::into_inner);
        merged.iter_mut().enumerate().for_each(|(query, found)| self.write(query, found));
    }
}

impl Asked {
    /// Some queries, which have seen no row yet.
    fn sweep(&self, queries: Range<usize>) -> Result<Vec<SweepQuery>, SimdError> {
        // SAFETY: the job is being planned or in work, so it is not completed.
        let one = |query| SweepQuery::new(self.metric, self.k, self.threshold, unsafe { self.query(query) });
        queries.map(one).collect()
    }
}

impl Sweep {
    /// Looks through some rows for all of `queries`.
    fn sweep(&self, rows: &Range<usize>, kernels: &KernelSet, queries: &mut [SweepQuery]) -> Result<(), SimdError> {
        let view = &self.asked.view;
        for run in view.visible_runs(rows.clone()) {
            let (first_row, segment) = view.segment_of(run.start);
            let data = segment.data();
            let rows = match self.asked.metric.element() {
                Element::Float32 => SweepRows::narrow(data.embeddings(), data.norms2(), view.dim())?,
                Element::Bit => SweepRows::bits(data.embeddings(), view.dim())?,
            };
            let most = (BLOCK_BYTES / (view.dim() * size_of::<f32>())).clamp(1, BLOCK);
            let (begin, end) = (run.start - first_row, run.end - first_row);
            for block in (begin..end).step_by(most) {
                for query in &mut *queries {
                    kernels.sweep(rows, block..end.min(block + most), first_row as u32, query)?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, query: usize, found: &mut SweepQuery) {
        // SAFETY: each query belongs to one chunk, or to the merge after all of them, and the job is not completed.
        unsafe { self.asked.put_ranked(query, found.ranked(), self.asked.view.visible_rows() as u64) };
    }
}
