//! Searches for a corpus's own rows as parts of a join with itself ([`SelfJoin`]): each pair of rows is multiplied
//! once.
//!
//! Queries are screened against the rows from the first one on that has not met every row, and what that tells of the
//! rows after them is noted; when their turn comes, they begin with it. The first part finds out by itself what all
//! other rows have met of its own: thresholds that let everything pass would note every pair.
//!
//! A part that does not go on where the join is, or does not have all rows up to its last, is a search like any other.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use megaring_core::corpus::{Noted, SelfJoin};
use megaring_core::screen::{GROUP_ROWS, QueryScreen, groups};

use super::search::{Asked, Queries, Scratch, Search, Span, TILE};
use crate::backend::plan::cut;
use crate::{Candidate, KernelSet, OtherSide, Pair, QueryParams, SimdError};

/// Rows of a chunk that finds out what they have met of the first part's.
const FIRST_ROWS: usize = 8 * TILE;

/// A job's part of a join.
pub(super) struct JoinPart {
    /// Chunks of queries.
    chunks: usize,
    /// Whether nothing is noted of any row so far.
    is_first: bool,
    /// Chunks of other rows, of the first part.
    first_chunks: usize,
    /// What queries are screened against: the groups, counted through all segments, from this one on, and its first
    /// row.
    first_group: usize,
    first_row: usize,
    /// The row after the last query.
    end: usize,
    noted: Mutex<Noted>,
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
        if join.k() != asked.k || !is_whole {
            return None;
        }
        let (start, segment) = view.segment_of(begin);
        let group = (begin - start) / GROUP_ROWS;
        let before = view.segments().take_while(|(first, _)| *first < start);
        let first_group = before.map(|(_, segment)| groups(segment.rows())).sum::<usize>() + group;
        debug_assert!(begin < start + segment.rows());
        let is_first = begin == 0;
        let first_chunks = if is_first { (view.rows() - end).div_ceil(FIRST_ROWS) } else { 0 };
        let first_row = start + group * GROUP_ROWS;
        Some(Self {
            chunks,
            is_first,
            first_chunks,
            first_group,
            first_row,
            end,
            noted: Mutex::new(Noted::new(view.rows())),
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
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).append(noted);
        Ok(())
    }

    /// Takes the join on, after the last chunk.
    pub(super) fn merge(&self, search: &Search) {
        if let Some(join) = search.asked.view.self_join() {
            let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
            join.advance(self.end, noted);
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
        let notes = !self.is_first;
        shifts.clear();
        for (number, (row, norm2)) in rows.iter().zip(norms2.iter()).enumerate() {
            let is_loose = top.is_overflowed(number);
            // The first part's are met by the others as rows.
            if is_loose && notes {
                noted.loose(*row);
            }
            shifts.push(if is_loose || !notes { f32::NEG_INFINITY } else { join.shift(*norm2) });
        }
        if notes {
            let params = top.params().to_vec();
            top.reset(search.asked.k, search.most_candidates())?;
            for (number, (row, params)) in rows.iter().zip(params).enumerate() {
                met.clear();
                let known = turn.met_by(*row as usize);
                let before = known.unwrap_or_default().iter().filter(|met| (met.row as usize) < self.first_row);
                met.extend(before.map(|met| {
                    let (lower, upper) = join.bounds(met, norms2[number]);
                    Candidate { row: met.row, lower, upper }
                }));
                let loose = turn.loose().iter().filter(|row| (**row as usize) < self.first_row);
                met.extend(loose.map(|row| Candidate { row: *row, lower: f32::NEG_INFINITY, upper: f32::INFINITY }));
                met.sort_unstable_by_key(|met| met.row);
                let is_lost = known.is_none() || params.threshold == f32::INFINITY;
                top.push_met(params, met);
                if is_lost {
                    top.overflow(number);
                }
            }
        }
        pairs.clear();
        let mut other = OtherSide { least: turn.least(), shifts, pairs };
        for span in spans {
            search.screen(span, queries.all(), kernels, top, notes.then_some(&mut other))?;
        }
        let later = pairs.iter().filter(|pair| pair.row as usize >= self.end);
        for pair in later {
            let query = pair.query as usize;
            noted.pair(pair.row, join.met(rows[query], pair.lower, pair.upper, norms2[query]));
        }
        drop(turn);
        for query in 0..top.queries() {
            top.tidy(query);
            search.write_ranked(tile.start + query, top, query, kernels);
        }
        Ok(())
    }

    /// Finds out what some rows have met of the first part's.
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
            for (number, row) in rows.iter().enumerate() {
                top.tidy(number);
                let met = (!top.is_overflowed(number)).then(|| {
                    let met = top.get(number).iter().filter(|met| (met.row as usize) < self.end);
                    met.map(|met| join.met(met.row, met.lower, met.upper, norms2[number])).collect()
                });
                noted.first(*row, met);
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
        let view = &search.asked.view;
        queries.reset(view.dim())?;
        top.reset(search.asked.k, search.most_candidates())?;
        norms2.clear();
        let max_norm = view.segments().map(|(_, segment)| segment.data().codes().max_norm).fold(0.0, f64::max);
        for (number, row) in rows.enumerate() {
            let quantised = queries.push_values(kernels, view.embedding(row))?;
            norms2.push(quantised.norm2());
            match QueryScreen::of(search.asked.metric, &quantised, max_norm) {
                Some(screen) => {
                    let threshold = search.first_threshold(quantised.norm2(), screen);
                    top.push(QueryParams::new(&screen, threshold));
                }
                None => {
                    top.push(QueryParams::default());
                    top.overflow(number);
                }
            }
        }
        Ok(())
    }
}
