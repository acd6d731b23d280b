//! Search: the int8 screen over a corpus, top k fused, then exact scores of the few rows that are left.
//!
//! Many queries are shared out by query: each worker screens all rows for its own and ranks what is left, nothing needs
//! merging, and a tile's codes stay in the cache for all of its queries. Few queries are shared out by rows: each chunk
//! screens a run of groups, by halves of codes where memory is the limit, and the last one to finish merges and ranks.
//! No score matrix exists. A query whose bounds could not tell rows apart is left to the host, which shares the scoring
//! of every row out among all cores. Rows of few elements, or of bits, need no screen ([`super::sweep`]).

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use megaring_core::Metric;
use megaring_core::corpus::{CorpusView, SegmentView};
use megaring_core::lists::{Candidate, Candidates, RankedRow, wants_every_row};
use megaring_core::rescore::{Ask, rank};
use megaring_core::screen::{GROUP_ROWS, QueryScreen, groups, packed_len};
use megaring_core::search::FLAG_QUERY_ROWS;
use megaring_ring::Status;

use super::join::{JoinPart, JoinScratch};
use super::lists::Lists;
use super::{Planned, Work, sweep};
use crate::backend::Context;
use crate::backend::memory::JobSlice;
use crate::backend::plan::{Inputs, cut};
use crate::{
    Isa, KernelSet, NibbleRows, OtherSide, QueryCodes, QueryParams, ScreenQueries, ScreenRows, SimdError, TopRows,
};

/// Queries screened together: they share the loads of a tile's codes.
pub(super) const TILE: usize = 96;
/// Bytes of codes below which a job is not worth sharing out by rows.
const CHUNK_BYTES: usize = 192 << 10;
/// Bytes of codes of a chunk where there is more than one for each worker.
const LARGE_CHUNK_BYTES: usize = 4 << 20;
/// Bytes of codes from which few queries read the codes' halves, which memory is the limit for.
const HALVES_BYTES: usize = 16 << 20;
/// Bytes of codes after which it is seen whether reading halves is worth it.
const TRIAL_BYTES: usize = 1 << 20;
/// Groups without a visible row that are sooner read than gone around.
const GAP: usize = 4;
/// It is while at most one in so many rows needs its low half.
const MOST_REFINED: usize = 4;
/// Candidates of a query that a worker ranks itself: at most one row in so many, and at most so many rows. That is less
/// work than scoring every row, if not always sooner done than by all cores.
const RANKED_SHARE: usize = 4;
const MOST_RANKED: usize = 4096;
/// Queries that the last worker on a job ranks by itself; the host shares more of them out.
const RANKED_BY_ONE: usize = 4;

/// What a search job's slot asks for.
pub(super) struct Asked {
    pub(super) view: Arc<CorpusView>,
    pub(super) metric: Metric,
    pub(super) k: usize,
    /// Scores a hit must pass.
    pub(super) threshold: f64,
    pub(super) queries: Queries,
    pub(super) items: usize,
    pub(super) lists: Lists,
}

/// A job in work that screens.
pub(super) struct Search {
    pub(super) asked: Asked,
    /// Whether workers rank what they find, or leave it to the host.
    ranks: bool,
    sharing: Sharing,
}

/// Where the queries are.
pub(super) enum Queries {
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
    /// The same, of a join of the corpus with itself.
    Join(JoinPart),
    /// Chunk i screens the i-th cut of the groups for all queries.
    Rows { chunks: usize, queries: ScreenQueries, halves: bool, merged: Mutex<TopRows> },
}

/// Checks the slot and decides how to share the work.
pub(super) fn plan(inputs: &Inputs, context: &Context) -> Result<Planned, Status> {
    let asked = Asked::new(inputs, context)?;
    let leaves_all = wants_every_row(asked.k as u64, asked.view.rows() as u64) || asked.k > asked.lists.capacity();
    if sweep::serves(&asked) && !leaves_all {
        return sweep::plan(asked, inputs.workers);
    }
    let mut work = Search { asked, ranks: true, sharing: Sharing::EveryRow };
    let chunks = if leaves_all { 1 } else { work.share(inputs.workers, context.kernels) };
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
}

impl Asked {
    fn new(inputs: &Inputs, context: &Context) -> Result<Self, Status> {
        let view = inputs.corpus(&context.corpora)?;
        let (items, k) = (inputs.items(), inputs.descriptor.k as usize);
        if k == 0 {
            return Err(Status::BadDescriptor);
        }
        let queries = Queries::new(inputs, &view)?;
        let lists = Lists::new(inputs)?;
        let (metric, threshold) = (inputs.metric_of(&view)?, inputs.descriptor.threshold);
        Ok(Self { view, metric, k, threshold, queries, items, lists })
    }

    /// One query.
    ///
    /// # Safety
    /// The job is not completed while the answer is used.
    pub(super) unsafe fn query(&self, query: usize) -> &[f32] {
        let dim = self.view.dim();
        match self.queries {
            // SAFETY: by the caller's promise the payload is the job's, and nobody writes to it.
            Queries::Sent(values) => unsafe { &values.shared()[query * dim..(query + 1) * dim] },
            // SAFETY: likewise.
            Queries::Rows(rows) => self.view.embedding(unsafe { rows.shared() }[query]),
        }
    }

    /// Writes a query's answer, found by scoring `scored` rows.
    ///
    /// # Safety
    /// The job is not completed, and nobody else writes this query's list.
    pub(super) unsafe fn put_ranked(&self, query: usize, rows: impl ExactSizeIterator<Item = RankedRow>, scored: u64) {
        // SAFETY: by the caller's promise.
        let Some(mut list) = (unsafe { self.lists.writer(query) }) else { return };
        if !list.put_ranked(rows, u32::try_from(scored).unwrap_or(u32::MAX)) {
            list.every_row();
        }
    }
}

impl Work for Search {
    fn run(&self, chunk: usize, context: &Context, scratch: &mut Scratch) -> Result<(), SimdError> {
        let kernels = context.kernels;
        match &self.sharing {
            Sharing::EveryRow => (0..self.asked.items).for_each(|query| self.put_every_row(query)),
            Sharing::Queries { chunks } => {
                let mine = cut(self.asked.items, *chunks, chunk);
                let all_rows = self.spans(0..self.groups());
                for first in mine.clone().step_by(TILE) {
                    let Scratch { queries, top, .. } = scratch;
                    self.quantise(first..mine.end.min(first + TILE), kernels, queries, top)?;
                    all_rows.iter().try_for_each(|span| self.screen(span, queries.all(), kernels, top, None))?;
                    for query in 0..top.queries() {
                        top.tidy(query);
                        self.write_ranked(first + query, top, query, kernels);
                    }
                }
            }
            Sharing::Join(part) => part.run(self, chunk, kernels, scratch)?,
            Sharing::Rows { chunks, queries, halves, merged } => {
                let top = &mut scratch.top;
                top.reset(self.asked.k, self.most_candidates())?;
                self.lock(merged).params().iter().for_each(|params| top.push(*params));
                let mut trial = halves.then(Trial::default);
                for mut span in self.spans(cut(self.groups(), *chunks, chunk)) {
                    if let Some(so_far) = trial {
                        trial = self.screen_halves(&mut span, so_far, queries.all(), kernels, top)?;
                    }
                    self.screen(&span, queries.all(), kernels, top, None)?;
                }
                (0..top.queries()).for_each(|query| _ = top.tidy(query));
                self.lock(merged).absorb(top);
            }
        }
        Ok(())
    }

    fn merge(&self, context: &Context) {
        if let Sharing::Join(part) = &self.sharing {
            part.merge(self);
        }
        let Sharing::Rows { merged, .. } = &self.sharing else { return };
        let mut top = self.lock(merged);
        for query in 0..top.queries() {
            top.tidy(query);
            // What finds no room in its list is ranked here: the host would have to score every row.
            if self.ranks || top.get(query).len() > self.asked.lists.capacity() {
                self.write_ranked(query, &top, query, context.kernels);
            } else {
                self.write_listed(query, &top);
            }
        }
    }
}

impl Search {
    fn share(&mut self, workers: usize, kernels: &KernelSet) -> usize {
        if self.has_wild_segment() {
            return 1;
        }
        let bytes = packed_len(self.asked.view.rows(), self.asked.view.dim());
        let halves = bytes >= HALVES_BYTES && self.asked.items <= most_by_halves(kernels.isa());
        let by_queries = self.asked.items >= 2 * workers && !halves;
        // A part of a join that was shared out by rows would end it.
        if by_queries || self.asked.view.self_join().is_some() {
            // Eight queries fill a tile's registers, but fewer keep every worker busy. Each chunk reads every code,
            // which costs most where they come from memory.
            let small = if bytes < LARGE_CHUNK_BYTES { (4 * workers).min(self.asked.items.div_ceil(8)) } else { 1 };
            let chunks = self.asked.items.div_ceil(TILE).max(small).max(workers);
            if let Some(part) = JoinPart::of(&self.asked, chunks) {
                let chunks = part.chunks();
                self.sharing = Sharing::Join(part);
                return chunks;
            }
            if by_queries {
                self.sharing = Sharing::Queries { chunks };
                return chunks;
            }
        }
        self.ranks = self.asked.items <= RANKED_BY_ONE;
        let (mut queries, mut top) = (ScreenQueries::default(), TopRows::default());
        if self.quantise(0..self.asked.items, kernels, &mut queries, &mut top).is_err() {
            return 1;
        }
        let chunks = (bytes / CHUNK_BYTES).clamp(1, workers).max((bytes / LARGE_CHUNK_BYTES).min(8 * workers));
        self.sharing = Sharing::Rows { chunks, queries, halves, merged: Mutex::new(top) };
        chunks
    }

    fn has_wild_segment(&self) -> bool {
        self.asked.view.segments().any(|(_, segment)| segment.data().codes().wild)
    }

    fn lock<'a>(&self, merged: &'a Mutex<TopRows>) -> MutexGuard<'a, TopRows> {
        merged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Candidates beyond which every row of a query is scored.
    pub(super) fn most_candidates(&self) -> usize {
        self.asked.lists.capacity().max((self.asked.view.rows() / RANKED_SHARE).min(MOST_RANKED))
    }

    /// Puts the codes of some queries into `codes`, and what the screen must know of them into `top`.
    fn quantise(
        &self,
        queries: Range<usize>,
        kernels: &KernelSet,
        codes: &mut ScreenQueries,
        top: &mut TopRows,
    ) -> Result<(), SimdError> {
        // SAFETY: the job is completed only after all its chunks are.
        let values = queries.map(|query| unsafe { self.asked.query(query) });
        self.quantise_values(values, kernels, codes, top, |_| ())
    }

    /// The same of these values. `norm2` is told each query's squared norm.
    pub(super) fn quantise_values<'v>(
        &self,
        queries: impl Iterator<Item = &'v [f32]>,
        kernels: &KernelSet,
        codes: &mut ScreenQueries,
        top: &mut TopRows,
        mut norm2: impl FnMut(f64),
    ) -> Result<(), SimdError> {
        codes.reset(self.asked.view.dim())?;
        top.reset(self.asked.k, self.most_candidates())?;
        let max_norm = self.asked.view.segments().map(|(_, s)| s.data().codes().max_norm).fold(0.0, f64::max);
        for (number, values) in queries.enumerate() {
            let quantised = codes.push_values(kernels, values)?;
            norm2(quantised.norm2());
            match QueryScreen::of(self.asked.metric, &quantised, max_norm) {
                Some(screen) => {
                    top.push(QueryParams::new(&screen, self.first_threshold(quantised.norm2(), screen)));
                }
                None => {
                    top.push(QueryParams::default());
                    top.overflow(number);
                }
            }
        }
        Ok(())
    }

    /// What the caller's score threshold means for upper bounds of a query of this squared norm; at least -MAX, which
    /// padding rows do not reach.
    fn first_threshold(&self, norm2: f64, screen: QueryScreen) -> f32 {
        let goodness = self.asked.metric.goodness(self.asked.threshold);
        if goodness == f64::NEG_INFINITY {
            return f32::MIN;
        }
        let norm2 = if self.asked.metric == Metric::L2 { norm2 } else { 0.0 };
        ((goodness + norm2 - 2.0 * screen.slack) as f32).next_down().max(f32::MIN)
    }

    /// Groups of all segments.
    pub(super) fn groups(&self) -> usize {
        self.asked.view.segments().map(|(_, segment)| groups(segment.rows())).sum()
    }

    /// Runs of these groups, counted through all segments. Long runs of groups without a visible row are left out.
    pub(super) fn spans(&self, wanted: Range<usize>) -> Vec<Span<'_>> {
        let mut before = 0;
        let mut spans = Vec::new();
        for (first_row, segment) in self.asked.view.segments() {
            let count = groups(segment.rows());
            let begin = wanted.start.clamp(before, before + count) - before;
            let end = wanted.end.clamp(before, before + count) - before;
            match segment.visible() {
                None if begin < end => spans.push(Span { segment, first_row, groups: begin..end }),
                None => {}
                Some(visible) => {
                    let first = spans.len();
                    for groups in visible.runs_of_groups(begin..end) {
                        match spans[first..].last_mut() {
                            Some(last) if groups.start - last.groups.end <= GAP => last.groups.end = groups.end,
                            _ => spans.push(Span { segment, first_row, groups }),
                        }
                    }
                }
            }
            before += count;
        }
        spans
    }

    /// Screens some rows for all of `top`'s queries, and for the rows themselves where they have a side of their own.
    pub(super) fn screen(
        &self,
        span: &Span<'_>,
        queries: QueryCodes<'_>,
        kernels: &KernelSet,
        top: &mut TopRows,
        mut other: Option<&mut OtherSide<'_>>,
    ) -> Result<(), SimdError> {
        let codes = span.segment.data().codes().packed;
        let rows = ScreenRows::new(codes, span.segment.columns(self.asked.metric), self.asked.view.dim())?;
        let mut begin = span.groups.start;
        while begin < span.groups.end {
            let (groups, first_row) = (begin..span.groups.end, span.first_row as u32);
            let reached = match &mut other {
                None => kernels.screen_i8(rows, groups, first_row, queries, top)?,
                Some(other) => kernels.screen_both_sides(rows, groups, first_row, queries, top, other)?,
            };
            if reached < span.groups.end {
                top.make_room();
            }
            begin = reached;
        }
        Ok(())
    }

    /// Screens by the codes' halves, from the front, and takes out of `span` what it has screened: all of it, unless
    /// the high halves rule out too few rows. `None`: it is not worth going on so.
    fn screen_halves(
        &self,
        span: &mut Span<'_>,
        mut trial: Trial,
        queries: QueryCodes<'_>,
        kernels: &KernelSet,
        top: &mut TopRows,
    ) -> Result<Option<Trial>, SimdError> {
        let dim = self.asked.view.dim();
        let (high_columns, columns) =
            (span.segment.high_columns(self.asked.metric), span.segment.columns(self.asked.metric));
        let rows = NibbleRows::new(span.segment.data().nibbles(), high_columns, columns, dim)?;
        let most = (TRIAL_BYTES / packed_len(1, dim).max(1)).max(1);
        let groups = &mut span.groups;
        while groups.start < groups.end {
            let (begin, end) = (groups.start, groups.end.min(groups.start + most - trial.groups));
            while groups.start < end {
                let first_row = span.first_row as u32;
                let (reached, more) = kernels.screen_nibbles(rows, groups.start..end, first_row, queries, top)?;
                trial.refined += more;
                if reached < end {
                    top.make_room();
                }
                groups.start = reached;
            }
            trial.groups += end - begin;
            if trial.groups == most {
                if trial.refined > queries.len() * most * GROUP_ROWS / MOST_REFINED {
                    return Ok(None);
                }
                trial = Trial::default();
            }
        }
        Ok(Some(trial))
    }

    /// Writes the answer to a query of the job, of which `top` has the candidates as its `place`-th.
    pub(super) fn write_ranked(&self, query: usize, top: &TopRows, place: usize, kernels: &KernelSet) {
        if top.is_overflowed(place) {
            return self.put_every_row(query);
        }
        // SAFETY: the job is not completed before this worker is done with it.
        let values = unsafe { self.asked.query(query) };
        let ask = Ask { metric: self.asked.metric, k: self.asked.k, threshold: Some(self.asked.threshold) };
        let ranked = rank(&self.asked.view, values, ask, &Candidates::Listed(&listed(top, place)), kernels);
        let rows = ranked.hits.iter().map(|hit| RankedRow { score: hit.score, row: hit.row, reserved: 0 });
        // SAFETY: each query belongs to one chunk, or to the merge after all of them, and the job is not completed.
        unsafe { self.asked.put_ranked(query, rows, ranked.rescored) };
    }

    fn write_listed(&self, query: usize, top: &TopRows) {
        if top.is_overflowed(query) {
            return self.put_every_row(query);
        }
        // SAFETY: the merge writes each list once, after all chunks, and the job is not completed.
        if let Some(mut list) = unsafe { self.asked.lists.writer(query) } {
            list.put(&listed(top, query));
        }
    }

    fn put_every_row(&self, query: usize) {
        // SAFETY: each query belongs to one chunk, or to the merge after all of them, and the job is not completed.
        if let Some(mut list) = unsafe { self.asked.lists.writer(query) } {
            list.every_row();
        }
    }
}

/// The most queries that are sooner done by halves: they share what is read of codes, but not the work on it.
fn most_by_halves(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 8,
        Isa::Avx2 | Isa::Neon => 3,
        Isa::Baseline => 0,
    }
}

/// What the host calls a query's candidates.
fn listed(top: &TopRows, query: usize) -> Vec<Candidate> {
    top.get(query).iter().map(|bounded| Candidate { row: bounded.row, upper: bounded.upper }).collect()
}

/// What reading halves has come to since it was last seen whether that is worth it.
#[derive(Clone, Copy, Default)]
struct Trial {
    /// Groups read.
    groups: usize,
    /// Rows whose low halves were needed, counted for each query.
    refined: usize,
}

pub(super) struct Span<'a> {
    pub(super) segment: &'a SegmentView,
    pub(super) first_row: usize,
    pub(super) groups: Range<usize>,
}

impl<'a> Span<'a> {
    /// The same groups, at most so many at a time.
    pub(super) fn cut(&self, most: usize) -> impl Iterator<Item = Self> {
        let Range { start, end } = self.groups;
        let (segment, first_row) = (self.segment, self.first_row);
        (start..end).step_by(most).map(move |at| Span { segment, first_row, groups: at..end.min(at + most) })
    }
}

/// What a worker keeps between jobs.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(super) queries: ScreenQueries,
    pub(super) top: TopRows,
    pub(super) join: JoinScratch,
}
