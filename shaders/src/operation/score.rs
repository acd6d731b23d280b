//! Score: the definition's scores of all pairs of queries and rows, to the last bit.
//!
//! Two stages: sums (dot products or squared distances, float64, to the scratch), then scores (the cosine's root and
//! quotient, and the rounding to float32, in integers). The sums are the definition's, addition by addition: a thread
//! has one of its eight lanes. They are in float64 where the adapter has one that is exact ([`probe`] finds out), else
//! in integers, several dozen of them for each addition.
//!
//! Of rows of bits, one stage counts and rounds.
//!
//! A dispatch takes some queries and some *entries* (rows asked for) of one part of the corpus: as many as the scratch
//! has room for sums. Named rows are sorted, so that those of a part follow each other, and sent with their columns of
//! the answer.

mod probe;

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use megaring_core::corpus::Column;
use megaring_core::score::FLAG_ALL_ROWS;
use megaring_core::{Element, Metric, exact};
use megaring_ring::Status;
use rayon::prelude::*;

use super::{Delivery, Handler, Operation, Part, same_layout};
use crate::plan::{Context, Inputs, Planned, Source, split};
use crate::script::{MOST_WORK, Script, Sizes};
use crate::self_test::{DIM, Trial};
use crate::stage::{Stage, Traits};

pub(crate) const HANDLER: Handler = Handler { plan, self_test };
/// What it reads.
const COLUMNS: [Column; 2] = [Column::Embeddings, Column::Norms];

/// Most bytes of sums at a time.
const SCRATCH_BYTES: usize = 64 << 20;
const SUM_BYTES: usize = size_of::<f64>();
/// Queries and entries that a workgroup of the first stage takes, as `wgsl/shared/score.wgsl` has them.
const TILE_QUERIES: usize = 4;
/// Queries that a workgroup takes where the sums are in float64.
const TILE_QUERIES_FLOAT64: usize = 8;
const TILE_ENTRIES: usize = 32;
/// Entries that a workgroup takes of rows of bits, of one query.
const BITS_ENTRIES: usize = 64;
/// Entries that a workgroup of the last stage takes, of one query.
const FINISH_ENTRIES: usize = 256;
/// Work of an element in float64 (of which most GPUs have one unit for 32 of float32), in integers, and of a pair's
/// last stage.
const FLOAT64_WORK: u64 = 32;
const INTEGER_WORK: u64 = 64;
const FINISH_WORK: u64 = 512;
/// Workgroups that a dispatch may have, each way.
const MOST_WORKGROUPS: usize = 65_535;

/// Twin of the shaders'.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ScoreParams {
    dim: u32,
    metric: u32,
    first_query: u32,
    queries: u32,
    first_entry: u32,
    entries: u32,
    first_row: u32,
    named: u32,
    rows_at: u32,
    columns_at: u32,
    norms_at: u32,
    width: u32,
}

same_layout!(score_params: ScoreParams {
    dim, metric, first_query, queries, first_entry, entries, first_row, named, rows_at, columns_at, norms_at, width,
});

fn plan<'a>(inputs: &Inputs<'a>, context: &Context<'_>) -> Result<Planned<'a>, Status> {
    let view = inputs.corpus_of_dim(context.corpora)?;
    let metric = inputs.metric_of(&view)?;
    let (queries, rest) = split(inputs.payload, inputs.items(), view.dim())?;
    let named = match inputs.descriptor.flags & FLAG_ALL_ROWS {
        0 => Some(split(rest, inputs.descriptor.k as usize, 1)?.0),
        _ => None,
    };
    let job = ScoreJob { queries, dim: view.dim(), metric, named, rows: view.rows() };
    let score = Score::new(job, inputs.result_len(), context.gpu.binding_bytes, context.gpu.traits)?;
    let columns = if metric.element() == Element::Bit { &COLUMNS[..1] } else { &COLUMNS };
    let source = if score.is_empty() { Source::Nothing } else { Source::corpus(view, columns)? };
    Ok(Planned::new(score, source))
}

fn self_test(trial: &Trial<'_>) -> Result<(), String> {
    const ITEMS: usize = 5;
    probe::test(trial)?;
    let (parts, queries) = (trial.parts(&COLUMNS)?, &trial.queries[..ITEMS * DIM]);
    let rows = trial.segment().data().embeddings();
    let wrong = wrong_metric(trial, DIM, (queries, rows), &parts)?;
    wrong.map_or(Ok(()), |metric| Err(format!("{metric} scores differ from the definition")))
}

/// Has the device score every query with every row of `parts`; the first metric whose scores are not the definition's.
fn wrong_metric(
    trial: &Trial<'_>,
    dim: usize,
    (queries, rows): (&[f32], &[f32]),
    parts: &[Part],
) -> Result<Option<Metric>, String> {
    for metric in Metric::ALL {
        let job = ScoreJob { queries, dim, metric, named: None, rows: rows.len() / dim };
        let len = queries.len() / dim * job.rows * size_of::<f32>();
        let refused = |status| format!("the job was refused: {status:?}");
        let mut job = Score::new(job, len, trial.gpu.binding_bytes, trial.gpu.traits).map_err(refused)?;
        let found = trial.run(&mut job, parts, len)?;
        let pairs = queries.chunks_exact(dim).flat_map(|query| rows.chunks_exact(dim).map(move |row| (query, row)));
        let want = pairs.flat_map(|(query, row)| exact::reported(exact::score(metric, query, row)).to_le_bytes());
        if !found.iter().copied().eq(want) {
            return Ok(Some(metric));
        }
    }
    Ok(None)
}

/// What a slot asks for.
#[derive(Debug, Clone, Copy)]
struct ScoreJob<'a> {
    /// One after the other.
    queries: &'a [f32],
    dim: usize,
    metric: Metric,
    /// Rows to score, in the answer's order, repeats allowed; `None` is every row.
    named: Option<&'a [u32]>,
    /// Rows of the corpus.
    rows: usize,
}

/// A row asked for, and the answer's column for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NamedRow {
    row: u32,
    column: u32,
}

/// A job.
struct Score<'a> {
    job: ScoreJob<'a>,
    items: usize,
    width: usize,
    /// The named rows, sorted; empty where every row is meant.
    named: Vec<NamedRow>,
    /// Most pairs of a dispatch.
    pairs: usize,
    /// Work of one pair, in multiply-adds.
    pair_work: u64,
    sums: Stage,
    /// Queries that a workgroup of it takes.
    together: usize,
}

impl<'a> Score<'a> {
    /// `result` is the length of the slot's result, `binding` the most bytes that a binding may have.
    ///
    /// # Errors
    /// Queries that are not whole, rows that the corpus does not have, an answer that does not fit.
    fn new(job: ScoreJob<'a>, result: usize, binding: usize, traits: Traits) -> Result<Self, Status> {
        let whole = job.dim > 0 && job.queries.len().is_multiple_of(job.dim);
        let inside = |row: &u32| (*row as usize) < job.rows;
        let counts = u32::try_from(job.queries.len()).is_ok() && u32::try_from(job.rows).is_ok();
        if !whole || !counts || !job.named.is_none_or(|rows| rows.iter().all(inside)) {
            return Err(Status::BadDescriptor);
        }
        let (items, width) = (job.queries.len() / job.dim, job.named.map_or(job.rows, <[u32]>::len));
        let cells = items.checked_mul(width).ok_or(Status::BadDescriptor)?;
        if cells > result / size_of::<f32>() {
            return Err(Status::ResultTooSmall);
        }
        let numbered = job.named.unwrap_or_default().iter().zip(0..);
        let mut named: Vec<NamedRow> = numbered.map(|(row, column)| NamedRow { row: *row, column }).collect();
        named.sort_unstable();
        let element = if traits.float64 { FLOAT64_WORK } else { INTEGER_WORK };
        let pair_work = element * job.dim as u64 + FINISH_WORK;
        let bearable = usize::try_from(MOST_WORK / pair_work).unwrap_or(usize::MAX);
        let pairs = cells.min(SCRATCH_BYTES.min(binding) / SUM_BYTES).min(bearable).max(1);
        let sums = match (traits.float64, job.metric == Metric::L2) {
            _ if job.metric.element() == Element::Bit => Stage::ScoreBits,
            (true, false) => Stage::ScoreProductsFloat64,
            (true, true) => Stage::ScoreSquaresFloat64,
            (false, false) => Stage::ScoreProductsInteger,
            (false, true) => Stage::ScoreSquaresInteger,
        };
        let together = if traits.float64 { TILE_QUERIES_FLOAT64 } else { TILE_QUERIES };
        Ok(Self { job, items, width, named, pairs, pair_work, sums, together })
    }

    /// Whether no pair is asked for: then the job needs nothing of the corpus, nor of the device.
    fn is_empty(&self) -> bool {
        self.items == 0 || self.width == 0
    }

    /// Words of the input before the queries' squared norms, before the named rows, and before their columns.
    fn places(&self) -> [usize; 3] {
        let norms = if self.job.metric == Metric::Cosine { 2 * self.items } else { 0 };
        let rows = self.job.queries.len() + norms;
        [self.job.queries.len(), rows, rows + self.named.len()]
    }

    /// The entries whose rows a part has.
    fn entries_of(&self, part: &Part) -> Range<usize> {
        let Range { start, end } = part.rows;
        if self.job.named.is_none() {
            return start..end;
        }
        let before = |row: usize| self.named.partition_point(|entry| (entry.row as usize) < row);
        before(start)..before(end)
    }

    /// Scores all queries with some entries of a part.
    fn dispatch(&self, script: &mut Script, part: &Part, entries: Range<usize>) {
        let most = (self.pairs / entries.len()).clamp(1, MOST_WORKGROUPS);
        let most = if most > self.together { most / self.together * self.together } else { most };
        let [norms_at, rows_at, columns_at] = self.places().map(|place| place as u32);
        for first_query in (0..self.items).step_by(most) {
            let queries = most.min(self.items - first_query);
            let params = ScoreParams {
                dim: self.job.dim as u32,
                metric: self.job.metric as u32,
                first_query: first_query as u32,
                queries: queries as u32,
                first_entry: entries.start as u32,
                entries: entries.len() as u32,
                first_row: part.rows.start as u32,
                named: u32::from(self.job.named.is_some()),
                rows_at,
                columns_at,
                norms_at,
                width: self.width as u32,
            };
            if self.sums == Stage::ScoreBits {
                let runs = [entries.len().div_ceil(BITS_ENTRIES), queries, 1];
                let work = (queries * entries.len()) as u64 * self.pair_work;
                script.dispatch(self.sums, Some(&part.binding), &params, runs.map(|count| count as u32), work);
                continue;
            }
            let tiles = [queries.div_ceil(self.together), entries.len().div_ceil(TILE_ENTRIES), 1];
            let work = (queries * entries.len()) as u64 * self.pair_work;
            script.dispatch(self.sums, Some(&part.binding), &params, tiles.map(|count| count as u32), work);
            let runs = [entries.len().div_ceil(FINISH_ENTRIES), queries, 1];
            let work = (queries * entries.len()) as u64 * FINISH_WORK;
            script.dispatch(Stage::ScoreFinish, Some(&part.binding), &params, runs.map(|count| count as u32), work);
        }
    }
}

impl Operation for Score<'_> {
    fn sizes(&self) -> Sizes {
        let [.., columns_at] = self.places();
        Sizes {
            input: (columns_at + self.named.len()) * size_of::<u32>(),
            scratch: self.pairs * SUM_BYTES,
            output: self.items * self.width * size_of::<f32>(),
        }
    }

    fn fill(&self, input: &mut [u8]) {
        let [norms_at, rows_at, columns_at] = self.places().map(|place| place * size_of::<u32>());
        let (input, columns) = input.split_at_mut(columns_at);
        let (input, rows) = input.split_at_mut(rows_at);
        let (queries, norms) = input.split_at_mut(norms_at);
        queries.copy_from_slice(bytemuck::cast_slice(self.job.queries));
        let norms = norms.par_chunks_exact_mut(size_of::<f64>());
        norms.zip(self.job.queries.par_chunks_exact(self.job.dim)).for_each(|(norm, query)| {
            norm.copy_from_slice(&exact::norm2(query).to_le_bytes());
        });
        let words = rows.chunks_exact_mut(size_of::<u32>()).zip(columns.chunks_exact_mut(size_of::<u32>()));
        for ((row, column), entry) in words.zip(&self.named) {
            row.copy_from_slice(&entry.row.to_le_bytes());
            column.copy_from_slice(&entry.column.to_le_bytes());
        }
    }

    fn round(&mut self, parts: &[Part], _first: bool) -> Script {
        let mut script = Script::default();
        // With all queries at once where they leave room for a tile of entries: rows are then read once from memory.
        let most =
            (self.pairs / self.items.max(1)).max(TILE_ENTRIES).min(self.pairs).min(MOST_WORKGROUPS * TILE_ENTRIES);
        for part in parts {
            let entries = self.entries_of(part);
            for start in entries.clone().step_by(most) {
                self.dispatch(&mut script, part, start..entries.end.min(start + most));
            }
        }
        script
    }

    fn delivery(&self) -> Delivery {
        let bytes = self.sizes().output;
        Box::new(move |output, result| {
            if let (Some(result), Some(output)) = (result.get_mut(..bytes), output.get(..bytes)) {
                result.copy_from_slice(output);
            }
        })
    }
}

#[cfg(test)]
mod tests;
