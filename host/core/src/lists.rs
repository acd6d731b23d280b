//! Candidate lists: what a screen leaves of a corpus, one list for each query. The result region of every operation
//! that ranks rows.
//!
//! Native little-endian: a [`ListHeader`] for each query, then equally long runs of [`Candidate`] cells. A backend that
//! scored a query's candidates exactly writes [`RANKED`]: one cell whose row is the number of rows scored, then the
//! answer itself as [`RankedRow`]s of two cells each, best first.

use bytemuck::{Pod, Zeroable};

use crate::error::Error;
use crate::operation::misshapen;

/// Room for candidates beyond those wanted: what a screen typically leaves open, and ties.
const SPARE: usize = 256;
/// Rows that are all scored within some 100 µs.
const FEW_ROWS: usize = 1024;

/// A row that may belong to the answer, with the best goodness its bound allows (search; unused for nearest).
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Candidate {
    /// Row number in the corpus (or among the points).
    pub row: u32,
    /// Upper bound of the goodness g of [`crate::screen`].
    pub upper: f32,
}

/// What stands before the lists: one per query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ListHeader {
    /// Candidates listed, or rows ranked.
    pub count: u32,
    /// [`EVERY_ROW`], [`RANKED`] or 0.
    pub flags: u32,
}

/// A row of the answer, as the backend that scored it has it.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct RankedRow {
    /// The canonical score.
    pub score: f64,
    /// Row number in the corpus.
    pub row: u32,
    /// 0.
    pub reserved: u32,
}

/// The bound could not tell rows apart, or the list would not fit: every row is a candidate, none is listed.
pub const EVERY_ROW: u32 = 1;

/// The backend scored the candidates: the rows listed are the answer.
pub const RANKED: u32 = 2;

/// Cells that one [`RankedRow`] takes.
const RANKED_CELLS: usize = size_of::<RankedRow>() / size_of::<Candidate>();

/// What one query's screen found.
#[derive(Debug, PartialEq)]
pub enum Candidates<'a> {
    /// These rows hold the answer.
    Listed(&'a [Candidate]),
    /// Every row must be scored.
    EveryRow,
    /// These rows are the answer, best first.
    Ranked {
        /// The rows.
        rows: &'a [RankedRow],
        /// Rows scored to find them.
        scored: u32,
    },
}

/// Read side of a search or nearest result: headers for all queries, then equally long lists.
#[derive(Debug, Clone, Copy)]
pub struct CandidateLists<'a> {
    headers: &'a [ListHeader],
    cells: &'a [Candidate],
    capacity: usize,
}

/// Bytes of a result for `items` queries with room for `capacity` candidates each.
#[must_use]
pub const fn len(items: usize, capacity: usize) -> usize {
    items * (size_of::<ListHeader>() + capacity * size_of::<Candidate>())
}

/// Candidates that fit for each of `items` queries in a result of `len` bytes.
#[must_use]
pub fn capacity(items: usize, len: usize) -> usize {
    (len / items.max(1)).saturating_sub(size_of::<ListHeader>()) / size_of::<Candidate>()
}

/// Whether so many answers are wanted that no list is written at all: every row is a candidate then. The device code
/// has one twin of this rule (`wants_every_row` in `kernels/cuda/plan.cuh`).
#[must_use]
pub const fn wants_every_row(k: u64, rows: u64) -> bool {
    k.saturating_mul(2) >= rows
}

/// Candidates that a query's list should have room for: `factor` for each answer wanted, and some to spare.
#[must_use]
pub fn capacity_for(k: usize, rows: usize, factor: usize) -> usize {
    if wants_every_row(k as u64, rows as u64) { 0 } else { rows.min(k * factor + SPARE) }
}

/// Whether no query of a result needs more rows scored than a short list has, as far as the headers say.
#[must_use]
pub fn is_short(result: &[u8], items: usize, rows: usize) -> bool {
    rows <= FEW_ROWS
        || headers(result, items).is_some_and(|headers| headers.iter().all(|header| header.flags & EVERY_ROW == 0))
}

/// Whether no row is left to be scored, as far as the headers say.
#[must_use]
pub fn is_ranked(result: &[u8], items: usize) -> bool {
    headers(result, items).is_some_and(|headers| headers.iter().all(|header| header.flags & RANKED != 0))
}

fn headers(result: &[u8], items: usize) -> Option<&[ListHeader]> {
    bytemuck::try_cast_slice(result.get(..items * size_of::<ListHeader>())?).ok()
}

impl<'a> CandidateLists<'a> {
    /// Reads a result region over a corpus of `rows` rows.
    ///
    /// # Errors
    /// [`Error::Internal`] where it is too short or misaligned, a count exceeds the capacity, or a row is not there: a
    /// device's memory is not to be trusted with an index.
    pub fn read(result: &'a [u8], items: usize, rows: usize) -> Result<Self, Error> {
        let lists = Self::split(result, items).ok_or_else(misshapen)?;
        let is_there = |query: usize| match lists.list(query)? {
            Candidates::Listed(listed) => listed.iter().all(|candidate| (candidate.row as usize) < rows).then_some(()),
            Candidates::Ranked { rows: ranked, .. } => ranked.iter().all(|r| (r.row as usize) < rows).then_some(()),
            Candidates::EveryRow => Some(()),
        };
        (0..items).try_for_each(is_there).ok_or_else(misshapen)?;
        Ok(lists)
    }

    fn split(result: &'a [u8], items: usize) -> Option<Self> {
        let capacity = capacity(items, result.len());
        let (headers, rest) = result.split_at_checked(items * size_of::<ListHeader>())?;
        let headers: &[ListHeader] = bytemuck::try_cast_slice(headers).ok()?;
        let cells = rest.get(..items * capacity * size_of::<Candidate>())?;
        let cells: &[Candidate] = bytemuck::try_cast_slice(cells).ok()?;
        Some(Self { headers, cells, capacity })
    }

    /// One query's candidates: in no particular order, unless they are ranked.
    #[must_use]
    pub fn of(&self, query: usize) -> Candidates<'a> {
        // Every list was there when the result was read.
        self.list(query).unwrap_or(Candidates::EveryRow)
    }

    fn list(&self, query: usize) -> Option<Candidates<'a>> {
        let header = self.headers.get(query)?;
        let cells = self.cells.get(query * self.capacity..(query + 1) * self.capacity)?;
        let count = header.count as usize;
        if header.flags & EVERY_ROW != 0 {
            return Some(Candidates::EveryRow);
        }
        if header.flags & RANKED == 0 {
            return cells.get(..count).map(Candidates::Listed);
        }
        let (scored, rest) = cells.split_first()?;
        let rows = bytemuck::try_cast_slice(rest.get(..count.checked_mul(RANKED_CELLS)?)?).ok()?;
        Some(Candidates::Ranked { rows, scored: scored.row })
    }
}

/// Write side of one query's list.
pub struct ListWriter<'a> {
    /// The query's header.
    pub header: &'a mut ListHeader,
    /// Room for its candidates.
    pub cells: &'a mut [Candidate],
}

impl ListWriter<'_> {
    /// Stores a list, or [`EVERY_ROW`] where it does not fit.
    pub fn put(&mut self, candidates: &[Candidate]) {
        match self.cells.get_mut(..candidates.len()) {
            Some(cells) => {
                cells.copy_from_slice(candidates);
                *self.header = ListHeader { count: candidates.len() as u32, flags: 0 };
            }
            None => self.every_row(),
        }
    }

    /// Stores the answer, found by scoring `scored` rows; `false` where it does not fit, and nothing is stored then.
    #[must_use]
    pub fn put_ranked(&mut self, rows: impl ExactSizeIterator<Item = RankedRow>, scored: u32) -> bool {
        let count = rows.len();
        let Some((first, rest)) = self.cells.split_first_mut() else { return false };
        let rest = count.checked_mul(RANKED_CELLS).and_then(|cells| rest.get_mut(..cells));
        let Some(places) = rest.and_then(|rest| bytemuck::try_cast_slice_mut(rest).ok()) else { return false };
        *first = Candidate { row: scored, upper: 0.0 };
        places.iter_mut().zip(rows).for_each(|(place, row): (&mut RankedRow, _)| *place = row);
        *self.header = ListHeader { count: count as u32, flags: RANKED };
        true
    }

    /// Says that every row must be scored.
    pub fn every_row(&mut self) {
        *self.header = ListHeader { count: 0, flags: EVERY_ROW };
    }
}
