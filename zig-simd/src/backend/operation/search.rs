//! Search: the int8 screen over a corpus, top k fused, candidates out.
//!
//! Many queries are shared out by query: each worker screens all rows for its own, nothing needs merging, and a block
//! of codes stays in the cache for a whole tile of queries. Few queries are shared out by rows: each chunk screens a
//! run of groups, all chunks share the best threshold found so far, and the last one to finish merges. No score matrix
//! exists.

use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use megaring_core::Metric;
use megaring_core::corpus::{CorpusView, SegmentView};
use megaring_core::lists::wants_every_row;
use megaring_core::screen::{GROUP_ROWS, QueryScreen, groups, packed_len};
use megaring_core::search::FLAG_QUERY_ROWS;
use megaring_ring::Status;

use super::lists::Lists;
use super::{Planned, Work};
use crate::backend::Context;
use crate::backend::collector::Collector;
use crate::backend::memory::JobSlice;
use crate::backend::plan::{Inputs, cut};
use crate::{CandidateBuffers, KernelSet, QueryParams, ScreenQueries, ScreenRows, SimdError};

/// Queries screened together: a tile's accumulators are reused for every block of codes that is in the cache.
const TILE: usize = 64;
/// Groups screened between two looks at the collectors: 512 rows, 192 KiB of codes at 384 dimensions.
const BLOCK_GROUPS: usize = 32;
/// Bytes of codes below which a job is not worth sharing out by rows.
const CHUNK_BYTES: usize = 192 << 10;

/// A search job in work.
struct Search {
    view: Arc<CorpusView>,
    metric: Metric,
    k: usize,
    score_threshold: f64,
    queries: Queries,
    items: usize,
    lists: Lists,
    sharing: Sharing,
}

/// Where the queries are.
enum Queries {
    /// In the payload, one after the other.
    Sent(JobSlice<f32>),
    /// In the corpus: the payload has their rows, which are there.
    Rows(JobSlice<u32>),
}

enum Sharing {
    /// The screen cannot help: every row is a candidate.
    EveryRow,
    /// Chunk i screens the i-th cut of the queries.
    Queries { chunks: usize },
    /// Chunk i screens the i-th cut of the groups for all queries.
    Rows { chunks: usize, tile: Tile, shared: Vec<SharedThreshold>, merged: Mutex<Vec<Collector>> },
}

/// Checks the slot and decides how to share the work.
pub(super) fn plan(inputs: &Inputs, context: &Context) -> Result<Planned, Status> {
    let view = inputs.corpus(&context.corpora)?;
    let (items, k) = (inputs.items(), inputs.descriptor.k as usize);
    if k == 0 {
        return Err(Status::BadDescriptor);
    }
    let queries = Queries::new(inputs, &view)?;
    let lists = Lists::new(inputs)?;
    let metric = inputs.metric()?;
    let score_threshold = inputs.descriptor.threshold;
    let mut work = Search { view, metric, k, score_threshold, queries, items, lists, sharing: Sharing::EveryRow };
    let chunks = work.share(inputs.workers);
    Ok((Box::new(work), chunks as u32))
}

impl Queries {
    fn new(inputs: &Inputs, view: &CorpusView) -> Result<Self, Status> {
        if inputs.descriptor.flags & FLAG_QUERY_ROWS == 0 {
            let values = inputs.items().checked_mul(view.dim()).ok_or(Status::BadDescriptor)?;
            return inputs.input(0, values).map(Self::Sent);
        }
        let rows: JobSlice<u32> = inputs.input(0, inputs.items())?;
        // SAFETY: the job is being planned, so it is not completed, and nobody writes to the payload.
        let are_there = unsafe { rows.shared() }.iter().all(|row| (*row as usize) < view.rows());
        if are_there { Ok(Self::Rows(rows)) } else { Err(Status::BadDescriptor) }
    }

    /// One query.
    ///
    /// # Safety
    /// The job is not completed while the answer is used.
    unsafe fn of<'a>(&self, query: usize, view: &'a CorpusView) -> &'a [f32] {
        let dim = view.dim();
        match self {
            // SAFETY: by the caller's promise the payload is the job's, and nobody writes to it.
            Self::Sent(values) => unsafe { &values.shared()[query * dim..(query + 1) * dim] },
            // SAFETY: likewise.
            Self::Rows(rows) => view.embedding(unsafe { rows.shared() }[query]),
        }
    }
}

impl Work for Search {
    fn run(&self, chunk: usize, context: &Context, scratch: &mut Scratch) -> Result<(), SimdError> {
        let kernels = context.kernels;
        match &self.sharing {
            Sharing::EveryRow => (0..self.items).for_each(|query| self.put_every_row(query)),
            Sharing::Queries { chunks } => {
                let mine = cut(self.items, *chunks, chunk);
                for first in mine.clone().step_by(TILE) {
                    self.run_tile(first..mine.end.min(first + TILE), kernels, scratch);
                }
            }
            Sharing::Rows { chunks, tile, shared, merged } => {
                let mut collectors = tile.collectors.clone();
                self.scan(tile, &mut collectors, &self.groups_of(*chunks, chunk), shared, kernels, scratch);
                let mut merged = merged.lock().unwrap_or_else(PoisonError::into_inner);
                for (all, mine) in merged.iter_mut().zip(&collectors) {
                    all.absorb(mine);
                }
            }
        }
        Ok(())
    }

    fn merge(&self) {
        if let Sharing::Rows { tile, merged, .. } = &self.sharing {
            let mut merged = merged.lock().unwrap_or_else(PoisonError::into_inner);
            self.write(0, tile, &mut merged);
        }
    }
}

impl Search {
    fn share(&mut self, workers: usize) -> usize {
        let rows = self.view.rows();
        if wants_every_row(self.k as u64, rows as u64) || self.k > self.lists.capacity() || self.has_wild_segment() {
            return 1;
        }
        if self.items >= 2 * workers {
            let chunks = (self.items.div_ceil(TILE)).max((4 * workers).min(self.items.div_ceil(8)));
            self.sharing = Sharing::Queries { chunks };
            return chunks;
        }
        let Ok(tile) = self.tile(0..self.items) else { return 1 };
        let chunks = (packed_len(rows, self.view.dim()) / CHUNK_BYTES).clamp(1, 8 * workers);
        let shared = tile.collectors.iter().map(|collector| SharedThreshold::new(collector.threshold())).collect();
        let merged = Mutex::new(tile.collectors.clone());
        self.sharing = Sharing::Rows { chunks, tile, shared, merged };
        chunks
    }

    fn has_wild_segment(&self) -> bool {
        self.view.segments().any(|(_, segment)| segment.data().codes().wild)
    }

    fn run_tile(&self, queries: Range<usize>, kernels: &KernelSet, scratch: &mut Scratch) {
        let first = queries.start;
        let Ok(tile) = self.tile(queries.clone()) else {
            return queries.for_each(|query| self.put_every_row(query));
        };
        let mut collectors = tile.collectors.clone();
        self.scan(&tile, &mut collectors, &self.groups_of(1, 0), &[], kernels, scratch);
        self.write(first, &tile, &mut collectors);
    }

    /// Quantises some queries and gives each a collector.
    fn tile(&self, queries: Range<usize>) -> Result<Tile, SimdError> {
        let dim = self.view.dim();
        let max_norm = self.view.segments().map(|(_, s)| s.data().codes().max_norm).fold(0.0, f64::max);
        let mut tile = Tile { queries: ScreenQueries::new(dim)?, screens: Vec::new(), collectors: Vec::new() };
        let mut codes = vec![0; dim];
        for query in queries {
            // SAFETY: the job is completed only after all its chunks are.
            let query = unsafe { self.queries.of(query, &self.view) };
            let screen = QueryScreen::new(self.metric, query, max_norm, &mut codes);
            let mut collector = Collector::new(self.k, self.lists.capacity(), self.first_threshold(query, screen));
            if screen.is_none() {
                codes.fill(0);
                collector.overflow();
            }
            tile.queries.push(&codes)?;
            tile.screens.push(screen);
            tile.collectors.push(collector);
        }
        Ok(tile)
    }

    /// What the caller's score threshold means for upper bounds; at least -MAX, which padding rows do not reach.
    fn first_threshold(&self, query: &[f32], screen: Option<QueryScreen>) -> f32 {
        let goodness = self.metric.goodness(self.score_threshold);
        if goodness == f64::NEG_INFINITY {
            return f32::MIN;
        }
        let norm2 = if self.metric == Metric::L2 { megaring_core::exact::dot(query, query) } else { 0.0 };
        let slack = screen.map_or(0.0, |screen| 2.0 * screen.slack);
        ((goodness + norm2 - slack) as f32).next_down().max(f32::MIN)
    }

    /// Runs of groups, one or more segments, that make up a cut of the corpus.
    fn groups_of(&self, chunks: usize, chunk: usize) -> Vec<Span<'_>> {
        let total: usize = self.view.segments().map(|(_, segment)| groups(segment.rows())).sum();
        let wanted = cut(total, chunks, chunk);
        let mut before = 0;
        let mut spans = Vec::new();
        for (first_row, segment) in self.view.segments() {
            let count = groups(segment.rows());
            let begin = wanted.start.clamp(before, before + count) - before;
            let end = wanted.end.clamp(before, before + count) - before;
            if begin < end {
                spans.push(Span { segment, first_row, groups: begin..end });
            }
            before += count;
        }
        spans
    }

    fn scan(
        &self,
        tile: &Tile,
        collectors: &mut [Collector],
        spans: &[Span<'_>],
        shared: &[SharedThreshold],
        kernels: &KernelSet,
        scratch: &mut Scratch,
    ) {
        // A short first block sets the thresholds before most rows are met.
        let mut block = (2 * self.k).div_ceil(GROUP_ROWS).clamp(8, BLOCK_GROUPS);
        for span in spans {
            let mut begin = span.groups.start;
            while begin < span.groups.end {
                let end = span.groups.end.min(begin + block);
                block = BLOCK_GROUPS;
                for (collector, shared) in collectors.iter_mut().zip(shared) {
                    collector.raise(shared.load());
                }
                if self.screen_block(tile, collectors, span, begin..end, kernels, scratch).is_err() {
                    // Lengths that do not fit are a fault of ours; scoring every row keeps the answer right.
                    return collectors.iter_mut().for_each(Collector::overflow);
                }
                for (query, collector) in collectors.iter_mut().enumerate().filter(|(_, c)| c.is_untidy()) {
                    collector.tidy(|kth| tile.relax(query, kth));
                    if let Some(shared) = shared.get(query) {
                        shared.raise(collector.threshold());
                    }
                }
                begin = end;
            }
        }
    }

    fn screen_block(
        &self,
        tile: &Tile,
        collectors: &mut [Collector],
        span: &Span<'_>,
        groups: Range<usize>,
        kernels: &KernelSet,
        scratch: &mut Scratch,
    ) -> Result<(), SimdError> {
        let (buffers, params) = scratch.ready(collectors.len())?;
        params.extend(tile.screens.iter().zip(&*collectors).map(|(screen, collector)| params_of(screen, collector)));
        let codes = span.segment.data().codes().packed;
        let rows = ScreenRows::new(codes, span.segment.columns(self.metric), self.view.dim())?;
        let mut begin = groups.start;
        while begin < groups.end {
            let rest = begin..groups.end;
            begin = kernels.screen_i8(rows, rest, span.first_row as u32, tile.queries.all(), params, buffers)?;
            for (query, collector) in collectors.iter_mut().enumerate() {
                collector.extend(buffers.get(query).iter().copied());
            }
            buffers.clear();
        }
        Ok(())
    }

    fn write(&self, first: usize, tile: &Tile, collectors: &mut [Collector]) {
        for (query, collector) in collectors.iter_mut().enumerate() {
            // SAFETY: each query belongs to one chunk, or to the merge after all of them, and the job is not completed.
            if let Some(list) = unsafe { self.lists.writer(first + query) } {
                collector.write(|kth| tile.relax(query, kth), list);
            }
        }
    }

    fn put_every_row(&self, query: usize) {
        // SAFETY: the only chunk of this job writes each list once, before the job is completed.
        if let Some(mut list) = unsafe { self.lists.writer(query) } {
            list.every_row();
        }
    }
}

/// Queries that are screened together.
struct Tile {
    queries: ScreenQueries,
    /// `None` where a query cannot be screened; its collector has overflowed.
    screens: Vec<Option<QueryScreen>>,
    collectors: Vec<Collector>,
}

impl Tile {
    fn relax(&self, query: usize, kth_lower: f32) -> f32 {
        self.screens[query].map_or(kth_lower, |screen| screen.threshold(kth_lower))
    }
}

struct Span<'a> {
    segment: &'a SegmentView,
    first_row: usize,
    groups: Range<usize>,
}

fn params_of(screen: &Option<QueryScreen>, collector: &Collector) -> QueryParams {
    let threshold = collector.threshold();
    match screen {
        Some(screen) => QueryParams { scale: screen.scale, a: screen.a, b: screen.b, threshold },
        None => QueryParams { scale: 0.0, a: 0.0, b: 0.0, threshold },
    }
}

/// What a worker keeps between jobs: buffers for one block of rows, by number of queries.
#[derive(Default)]
pub(crate) struct Scratch {
    buffers: Option<CandidateBuffers>,
    params: Vec<QueryParams>,
}

impl Scratch {
    /// Empty buffers for this many queries, in which a whole block fits, and an empty list of parameters.
    fn ready(&mut self, queries: usize) -> Result<(&mut CandidateBuffers, &mut Vec<QueryParams>), SimdError> {
        self.params.clear();
        let buffers = match self.buffers.take().filter(|buffers| buffers.queries() == queries) {
            Some(buffers) => buffers,
            None => CandidateBuffers::new(queries, BLOCK_GROUPS * GROUP_ROWS)?,
        };
        let buffers = self.buffers.insert(buffers);
        buffers.clear();
        Ok((buffers, &mut self.params))
    }
}

/// The best threshold any chunk has found for a query: a float32 as an integer of the same order.
struct SharedThreshold(AtomicI32);

impl SharedThreshold {
    fn new(threshold: f32) -> Self {
        Self(AtomicI32::new(ordered(threshold)))
    }

    fn load(&self) -> f32 {
        // Relaxed: a threshold stands for itself; an old one is only less sharp.
        let bits = self.0.load(Ordering::Relaxed);
        f32::from_bits((bits ^ ((bits >> 31) & i32::MAX)).cast_unsigned())
    }

    fn raise(&self, threshold: f32) {
        self.0.fetch_max(ordered(threshold), Ordering::Relaxed);
    }
}

fn ordered(value: f32) -> i32 {
    let bits = value.to_bits().cast_signed();
    bits ^ ((bits >> 31) & i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_threshold_only_rises() {
        let shared = SharedThreshold::new(f32::MIN);
        assert_eq!(shared.load(), f32::MIN);
        for (raise, want) in
            [(-3.5, -3.5), (-7.0, -3.5), (0.25, 0.25), (-0.0, 0.25), (9.0, 9.0), (f32::INFINITY, f32::INFINITY)]
        {
            shared.raise(raise);
            assert_eq!(shared.load(), want);
        }
    }
}
