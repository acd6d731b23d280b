//! Nearest points in 5-D: squared distances in float64, block by block, top k fused. The distances are the definition's
//! own bits, so the candidates are the k nearest and their ties.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use megaring_core::corpus::{CorpusTable, CorpusView};
use megaring_core::lists::Candidate;
use megaring_core::nearest::{self, AXES, FLAG_POINTS};
use megaring_ring::Status;

use super::lists::Lists;
use super::{Planned, Scratch, Work};
use crate::backend::Context;
use crate::backend::memory::JobSlice;
use crate::backend::plan::{Inputs, cut};
use crate::{PointColumns, SimdError};

/// Points per call: their distances stay in the first-level cache.
const BLOCK: usize = 1024;
/// Points that are worth a chunk of their own.
const CHUNK_POINTS: usize = 16 * BLOCK;

/// A nearest job in work. Chunk c is part `c % parts` of the points for query `c / parts`.
struct Nearest {
    points: Columns,
    queries: JobSlice<[f64; AXES]>,
    weights: [f64; AXES],
    k: usize,
    parts: usize,
    lists: Lists,
    merged: Vec<Mutex<Closest>>,
}

enum Columns {
    Sent([JobSlice<f64>; AXES]),
    Corpus(Arc<CorpusView>),
}

/// Checks the slot and decides how to share the work.
pub(super) fn plan(inputs: &Inputs, context: &Context) -> Result<Planned, Status> {
    let (items, k) = (inputs.items(), inputs.descriptor.k as usize);
    let queries: JobSlice<[f64; AXES]> = inputs.input(0, items)?;
    let after_queries = items * size_of::<[f64; AXES]>();
    let weights: JobSlice<[f64; AXES]> = inputs.input(after_queries, 1)?;
    // SAFETY: the job is not completed yet and nobody writes to its payload.
    let weights = *unsafe { weights.shared() }.first().ok_or(Status::BadDescriptor)?;
    let points = Columns::plan(inputs, &context.corpora, after_queries + size_of::<[f64; AXES]>())?;
    if k == 0 {
        return Err(Status::BadDescriptor);
    }
    let lists = Lists::new(inputs)?;
    let parts = (points.len() / CHUNK_POINTS).clamp(1, 4 * inputs.workers);
    let chunks = u32::try_from(items.max(1) * parts).map_err(|_| Status::BadDescriptor)?;
    let merged = (0..items).map(|_| Mutex::new(Closest::new(k))).collect();
    Ok((Box::new(Nearest { points, queries, weights, k, parts, lists, merged }), chunks))
}

impl Work for Nearest {
    fn run(&self, chunk: usize, context: &Context, _: &mut Scratch) -> Result<(), SimdError> {
        let (query, part) = (chunk / self.parts, chunk % self.parts);
        // SAFETY: the job is not completed while chunks run, and nobody writes to its payload.
        let Some(point) = unsafe { self.queries.shared() }.get(query) else { return Ok(()) };
        let mut found = Closest::new(self.k);
        self.points.for_each_run(cut(self.points.len(), self.parts, part), |first, columns| {
            let mut squared = [0.0; BLOCK];
            let squared = &mut squared[..columns[0].len()];
            let columns = PointColumns::new(columns);
            if columns.and_then(|c| context.kernels.distances5(c, point, &self.weights, squared)).is_err() {
                return found.gives_up = true; // a fault of ours; ranking every row keeps the answer right
            }
            found.extend(first, squared);
        });
        let mut merged = self.merged[query].lock().unwrap_or_else(PoisonError::into_inner);
        merged.absorb(&found);
        Ok(())
    }

    fn merge(&self, _: &Context) {
        for (query, merged) in self.merged.iter().enumerate() {
            let mut merged = merged.lock().unwrap_or_else(PoisonError::into_inner);
            merged.tidy();
            let cells: Vec<Candidate> =
                merged.kept.iter().map(|(_, row)| Candidate { row: *row, upper: 0.0 }).collect();
            // SAFETY: the merge runs once, on one thread, before the job is completed.
            let Some(mut list) = (unsafe { self.lists.writer(query) }) else { continue };
            if merged.gives_up { list.every_row() } else { list.put(&cells) }
        }
    }
}

impl Columns {
    fn plan(inputs: &Inputs, corpora: &CorpusTable, offset: usize) -> Result<Self, Status> {
        let descriptor = inputs.descriptor;
        if descriptor.flags & FLAG_POINTS == 0 {
            let view = corpora.resolve(descriptor.corpus, descriptor.corpus_generation).ok_or(Status::StaleCorpus)?;
            return view.has_coordinates().then_some(Self::Corpus(view)).ok_or(Status::BadDescriptor);
        }
        let count = descriptor.dim as usize;
        let mut columns = Vec::with_capacity(AXES);
        for axis in 0..AXES {
            columns.push(inputs.input(offset + axis * count * size_of::<f64>(), count)?);
        }
        columns.try_into().map(Self::Sent).map_err(|_| Status::BadDescriptor)
    }

    fn len(&self) -> usize {
        match self {
            Self::Sent(columns) => columns[0].len(),
            Self::Corpus(view) => view.rows(),
        }
    }

    /// Calls `each` with runs of at most [`BLOCK`] points and the number of their first.
    fn for_each_run(&self, range: Range<usize>, mut each: impl FnMut(usize, [&[f64]; AXES])) {
        match self {
            // SAFETY: the job is not completed while chunks run, and nobody writes to its payload.
            Self::Sent(columns) => blocks(0, columns.map(|column| unsafe { column.shared() }), range, &mut each),
            Self::Corpus(view) => {
                for run in view.visible_runs(range) {
                    let (first, segment) = view.segment_of(run.start);
                    if let Some(columns) = segment.data().coordinates() {
                        blocks(first, columns, run.start - first..run.end - first, &mut each);
                    }
                }
            }
        }
    }
}

fn blocks(first: usize, columns: [&[f64]; AXES], range: Range<usize>, each: &mut impl FnMut(usize, [&[f64]; AXES])) {
    let mut begin = range.start;
    while begin < range.end {
        let end = range.end.min(begin + BLOCK);
        each(first + begin, columns.map(|column| &column[begin..end]));
        begin = end;
    }
}

/// The k nearest so far, and whatever ties with the last of them.
struct Closest {
    k: usize,
    limit: f64,
    kept: Vec<(f64, u32)>,
    gives_up: bool,
}

impl Closest {
    fn new(k: usize) -> Self {
        Self { k, limit: f64::INFINITY, kept: Vec::new(), gives_up: false }
    }

    fn extend(&mut self, first: usize, squared: &[f64]) {
        let limit = self.limit;
        let close = squared.iter().enumerate().filter(|(_, d)| **d <= limit);
        self.kept.extend(close.map(|(i, d)| (*d, (first + i) as u32)));
        if self.kept.len() >= 2 * self.k + BLOCK {
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        if self.kept.len() > self.k {
            let (_, kth, _) = self.kept.select_nth_unstable_by(self.k - 1, |x, y| x.0.total_cmp(&y.0));
            self.limit = self.limit.min(nearest::widen(kth.0));
        }
        let limit = self.limit;
        self.kept.retain(|(squared, _)| *squared <= limit);
    }

    fn absorb(&mut self, other: &Self) {
        self.gives_up |= other.gives_up;
        self.limit = self.limit.min(other.limit);
        self.kept.extend_from_slice(&other.kept);
    }
}
