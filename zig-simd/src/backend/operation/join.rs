//! Searches for a corpus's own rows as parts of a join with itself ([`SelfJoin`]): each pair of rows is multiplied
//! once.
//!
//! Queries are screened against the rows from the first one on that has not met every row, and what that tells of the
//! rows after them is noted; when their turn comes, they begin with it. Thresholds that let everything pass would note
//! every pair, so the first few rows are searched for by themselves, and then all others against them.
//!
//! A part that does not go on where the join is, or does not have all rows up to its last, or has a threshold, is a
//! search like any other.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use megaring_core::corpus::{Noted, SelfJoin, most_noted};
use megaring_core::screen::{GROUP_ROWS, groups};

use super::search::{Asked, Queries, Scratch, Search, Span, TILE};
use crate::backend::plan::cut;
use crate::{Candidate, KernelSet, OtherSide, Pair, SimdError};

/// The first rows are one in so many, unless all others against them are more multiplications than this: the last of
/// them are one job, behind which other callers wait.
const FIRST_SHARE: usize = 96;
const FIRST_MULTIPLY_ADDS: usize = 1 << 36;
/// Rows of a chunk that finds out what they have met of the first ones, at least, and such chunks.
const FIRST_CHUNK_ROWS: usize = 8 * TILE;
const FIRST_CHUNKS: usize = 64;
/// Groups that are screened before what they note is taken out of the kernel's hands.
const NOTED_GROUPS: usize = 256;

/// A job's part of a join.
pub(super) struct JoinPart {
    /// Chunks of queries.
    chunks: usize,
    /// Whether its queries are among the first rows.
    is_first: bool,
    /// Chunks of other rows, where it is the last of these.
    first_chunks: usize,
    /// What queries are screened against: the groups, counted through all segments, from this one on, and its first
    /// row.
    first_group: usize,
    first_row: usize,
    /// How far the join is, and will be after this.
    begin: usize,
    end: usize,
    noted: Mutex<Vec<Noted>>,
    /// Pairs noted by all chunks so far.
    pairs: AtomicUsize,
}

/// What a worker keeps between jobs.
#[derive(Default)]
pub(super) struct JoinScratch {
    norms2: Vec<f64>,
    shifts: Vec<f32>,
    met: Vec<Candidate>,
    pairs: Vec<Pair>,
}

impl JoinPart {
    /// The part that this job is, with so many chunks of queries; `None` where it is none.
    pub(super) fn of(asked: &Asked, chunks: usize) -> Option<Self> {
        let (join, view) = (asked.view.self_join()?, &asked.view);
        let Queries::Rows(rows) = &asked.queries else { return None };
        // SAFETY: the job is being planned, so it is not completed, and nobody writes to the payload.
        let rows = unsafe { rows.shared() };
        if join.metric() != asked.metric {
            return None;
        }
        let (begin, end) = (join.turn().begin(), *rows.last()? as usize + 1);
        let is_rising = rows.is_sorted_by(|row, next| row < next) && rows[0] as usize >= begin;
        let visible: usize = view.visible_runs(begin..end).map(|run| run.len()).sum();
        let is_whole = is_rising && visible == rows.len() && rows.iter().all(|row| view.shows(*row));
        let has_threshold = asked.metric.goodness(asked.threshold) > f64::NEG_INFINITY;
        if join.k() != asked.k || !is_whole || has_threshold {
            return None;
        }
        let most = FIRST_MULTIPLY_ADDS / view.rows().saturating_mul(view.dim()).max(1);
        let first_rows = (view.rows() / FIRST_SHARE).min(most);
        let is_first = begin == 0 || begin < first_rows;
        let from = if is_first { 0 } else { begin };
        let (start, segment) = view.segment_of(from);
        let group = (from - start) / GROUP_ROWS;
        let before = view.segments().take_while(|(first, _)| *first < start);
        let first_group = before.map(|(_, segment)| groups(segment.rows())).sum::<usize>() + group;
        debug_assert!(from < start + segment.rows());
        let is_last = is_first && end >= first_rows;
        let chunks_of_all = (view.rows() - end).div_ceil(FIRST_CHUNK_ROWS).min(FIRST_CHUNKS);
        let first_chunks = if is_last { chunks_of_all } else { 0 };
        let first_row = start + group * GROUP_ROWS;
        Some(Self {
            chunks,
            is_first,
            first_chunks,
            first_group,
            first_row,
            begin,
            end,
            noted: Mutex::default(),
            pairs: AtomicUsize::new(0),
        })
    }

    /// All chunks.
    pub(super) fn chunks(&self) -> usize {
        self.chunks + self.first_chunks
    }

    /// Does a chunk.
    pub(super) fn run(
        &self,
        search: &Search,
        chunk: usize,
        kernels: &KernelSet,
        scratch: &mut Scratch,
    ) -> Result<(), SimdError> {
        let Some(join) = search.asked.view.self_join() else { return Ok(()) };
        let mut noted = Noted::new(search.asked.view.rows());
        match chunk.checked_sub(self.chunks) {
            None => {
                let mine = cut(search.asked.items, self.chunks, chunk);
                let spans = search.spans(self.first_group..search.groups());
                for first in mine.clone().step_by(TILE) {
                    let tile = first..mine.end.min(first + TILE);
                    self.search(search, tile, &spans, kernels, scratch, &mut noted)?;
                }
            }
            Some(chunk) => {
                let rows = search.asked.view.rows();
                let mine = cut(rows - self.end, self.first_chunks, chunk);
                self.meet(search, join, mine.start + self.end..mine.end + self.end, kernels, scratch, &mut noted)?;
            }
        }
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
        Ok(())
    }

    /// Takes the join on, after the last chunk.
    pub(super) fn merge(&self, search: &Search) {
        if let Some(join) = search.asked.view.self_join() {
            let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
            join.advance(self.begin, self.end, &noted);
        }
    }

    /// Answers some queries.
    fn search(
        &self,
        search: &Search,
        tile: Range<usize>,
        spans: &[Span<'_>],
        kernels: &KernelSet,
        scratch: &mut Scratch,
        noted: &mut Noted,
    ) -> Result<(), SimdError> {
        let (Some(join), Queries::Rows(rows)) = (search.asked.view.self_join(), &search.asked.queries) else {
            return Ok(());
        };
        // SAFETY: the job is completed only after all its chunks are, and nobody writes to the payload.
        let rows = &unsafe { rows.shared() }[tile.clone()];
        let turn = join.turn();
        self.quantise(search, rows.iter().copied(), kernels, scratch)?;
        let Scratch { queries, top, join: JoinScratch { norms2, shifts, met, pairs } } = scratch;
        // A query's pairs matter to nobody where none is noted.
        let mut is_noting = !self.is_first;
        shifts.clear();
        for (number, (row, norm2)) in rows.iter().zip(norms2.iter()).enumerate() {
            let is_loose = top.is_overflowed(number);
            // The first rows are met by the others as rows.
            if is_loose && is_noting {
                noted.loose(*row);
            }
            shifts.push(if is_loose { f32::NEG_INFINITY } else { join.shift(*norm2) });
        }
        if is_noting {
            let params = top.params().to_vec();
            top.reset(search.asked.k, search.most_candidates())?;
            for (number, (row, params)) in rows.iter().zip(params).enumerate() {
                met.clear();
                let known = turn.met_by(*row as usize);
                let is_lost = known.is_none();
                let before = known.into_iter().flatten().filter(|met| (met.row as usize) < self.first_row);
                met.extend(before.map(|met| {
                    let (lower, upper) = join.bounds(met, norms2[number]);
                    Candidate { row: met.row, lower, upper }
                }));
                let loose = turn.loose().iter().filter(|row| (**row as usize) < self.first_row);
                met.extend(loose.map(|row| Candidate { row: *row, lower: f32::NEG_INFINITY, upper: f32::INFINITY }));
                met.sort_unstable_by_key(|met| met.row);
                top.push_met(params, met);
                if is_lost {
                    top.overflow(number);
                }
            }
        }
        for span in spans.iter().flat_map(|span| span.cut(NOTED_GROUPS)) {
            pairs.clear();
            let mut other = OtherSide { least: turn.least(), shifts, pairs };
            search.screen(&span, queries.all(), kernels, top, is_noting.then_some(&mut other))?;
            is_noting = is_noting && self.has_room(search, pairs.len(), noted);
            if is_noting {
                for pair in pairs.iter().filter(|pair| pair.row as usize >= self.end) {
                    let query = pair.query as usize;
                    noted.pair(pair.row, join.met(rows[query], pair.lower, pair.upper, norms2[query]));
                }
            }
        }
        drop(turn);
        for query in 0..top.queries() {
            top.tidy(query);
            search.write_ranked(tile.start + query, top, query, kernels);
        }
        Ok(())
    }

    /// Whether so many more pairs may be noted. Otherwise the join ends with this part.
    fn has_room(&self, search: &Search, pairs: usize, noted: &mut Noted) -> bool {
        let before = self.pairs.fetch_add(pairs, Ordering::Relaxed);
        let has_room = before.saturating_add(pairs) <= most_noted(search.asked.k, search.asked.view.rows());
        if !has_room {
            noted.end();
        }
        has_room
    }

    /// Finds out what some rows have met of the first ones.
    fn meet(
        &self,
        search: &Search,
        join: &SelfJoin,
        rows: Range<usize>,
        kernels: &KernelSet,
        scratch: &mut Scratch,
        noted: &mut Noted,
    ) -> Result<(), SimdError> {
        let view = &search.asked.view;
        let rows: Vec<u32> = view.visible_runs(rows).flatten().map(|row| row as u32).collect();
        let (start, _) = view.segment_of(self.end - 1);
        let before = view.segments().take_while(|(first, _)| *first < start);
        let whole: usize = before.map(|(_, segment)| groups(segment.rows())).sum();
        let spans = search.spans(0..whole + groups(self.end - start));
        for rows in rows.chunks(TILE) {
            self.quantise(search, rows.iter().copied(), kernels, scratch)?;
            let Scratch { queries, top, join: JoinScratch { norms2, .. } } = &mut *scratch;
            spans.iter().try_for_each(|span| search.screen(span, queries.all(), kernels, top, None))?;
            (0..rows.len()).for_each(|number| _ = top.tidy(number));
            let met = (0..rows.len()).filter(|number| !top.is_overflowed(*number)).map(|number| top.get(number).len());
            if !self.has_room(search, met.sum(), noted) {
                return Ok(());
            }
            for (number, row) in rows.iter().enumerate() {
                if top.is_overflowed(number) {
                    noted.lost(*row);
                    continue;
                }
                for met in top.get(number).iter().filter(|met| (met.row as usize) < self.end) {
                    noted.pair(*row, join.met(met.row, met.lower, met.upper, norms2[number]));
                }
            }
        }
        Ok(())
    }

    /// Makes queries of rows: their codes, what a screen must know of them, and their squared norms. One that cannot be
    /// screened overflows.
    fn quantise(
        &self,
        search: &Search,
        rows: impl Iterator<Item = u32>,
        kernels: &KernelSet,
        scratch: &mut Scratch,
    ) -> Result<(), SimdError> {
        let Scratch { queries, top, join: JoinScratch { norms2, .. } } = scratch;
        norms2.clear();
        let values = rows.map(|row| search.asked.view.embedding(row));
        search.quantise_values(values, kernels, queries, top, |norm2| norms2.push(norm2))
    }
}
