//! How payloads and results lie in an arena: the part of the slot protocol that is not in the slot. Native little-endian, every
//! part starting at a multiple of 8 bytes; regions themselves are aligned to 64.
//!
//! | opcode | payload | result |
//! |---|---|---|
//! | search | `items` queries of `dim` float32 | [`CandidateLists`] |
//! | score | `items` queries of `dim` float32, then, unless [`FLAG_ALL_ROWS`], `k` row numbers u32 | `items` x rows float32, row-major |
//! | masks | `items + 1` offsets u64, then the bytes | `items` masks of two u64, low half first |
//! | nearest | `items` queries of 5 float64, 5 weights float64, then, if [`FLAG_POINTS`], 5 columns of `dim` float64 | [`CandidateLists`] |

use bytemuck::{Pod, Zeroable};

/// Score: every row of the corpus is meant; no row numbers follow.
pub const FLAG_ALL_ROWS: u16 = 1;
/// Nearest: the points travel in the payload (their number in `dim`), no corpus is meant.
pub const FLAG_POINTS: u16 = 2;

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
    /// Candidates listed.
    pub count: u32,
    /// [`EVERY_ROW`] or 0.
    pub flags: u32,
}

/// The bound could not tell rows apart, or the list would not fit: every row is a candidate, none is listed.
pub const EVERY_ROW: u32 = 1;

/// What one query's screen found.
#[derive(Debug, PartialEq)]
pub enum Candidates<'a> {
    /// These rows hold the answer.
    Listed(&'a [Candidate]),
    /// Every row must be scored.
    EveryRow,
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
pub fn lists_len(items: usize, capacity: usize) -> usize {
    items * (size_of::<ListHeader>() + capacity * size_of::<Candidate>())
}

/// Candidates that fit for each of `items` queries in a result of `len` bytes.
#[must_use]
pub fn lists_capacity(items: usize, len: usize) -> usize {
    (len / items.max(1)).saturating_sub(size_of::<ListHeader>()) / size_of::<Candidate>()
}

impl<'a> CandidateLists<'a> {
    /// Reads a result region. `None` if it is too short, misaligned or a count exceeds the capacity.
    #[must_use]
    pub fn read(result: &'a [u8], items: usize) -> Option<Self> {
        let capacity = lists_capacity(items, result.len());
        let (headers, rest) = result.split_at_checked(items * size_of::<ListHeader>())?;
        let headers: &[ListHeader] = bytemuck::try_cast_slice(headers).ok()?;
        let cells = rest.get(..items * capacity * size_of::<Candidate>())?;
        let cells: &[Candidate] = bytemuck::try_cast_slice(cells).ok()?;
        headers.iter().all(|h| h.count as usize <= capacity).then_some(Self { headers, cells, capacity })
    }

    /// One query's candidates, in no particular order.
    #[must_use]
    pub fn of(&self, query: usize) -> Candidates<'a> {
        let header = self.headers[query];
        if header.flags & EVERY_ROW != 0 {
            return Candidates::EveryRow;
        }
        let start = query * self.capacity;
        Candidates::Listed(&self.cells[start..start + header.count as usize])
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

    /// Says that every row must be scored.
    pub fn every_row(&mut self) {
        *self.header = ListHeader { count: 0, flags: EVERY_ROW };
    }
}
