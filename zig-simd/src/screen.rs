//! The fused int8 screen: packed codes of many rows against several queries; only rows that may still matter are kept.
//!
//! Rows lie in groups of [`GROUP_ROWS`], dimensions in quads of 4: codes\[group\]\[quad\]\[16 rows\]\[4 dims\], each u8
//! = code + 128. Four float32 columns belong to each group, \[group\]\[4\]\[16\]: mul, add, e1, e2. For query q and row
//! r, every operation rounded by itself:
//!
//! ```text
//! sum   = Σ code[r]·code[q]                                  exact
//! g     = (f32(sum) · scale[q]) · mul[r] + add[r]
//! error = a[q] · e1[r] + b[q] · e2[r]
//! kept where g + error >= threshold[q], as Candidate { row, lower: g − error, upper: g + error }
//! ```
//!
//! For up to [`ONLINE_K`](crate::ONLINE_K) best rows every row that is kept may raise the threshold of those after it
//! ([`TopRows`]).
//!
//! # Promises
//! The candidates are the same bits on every instruction set, and rise by row within a query. The error coefficients
//! are the caller's: they must cover the quantisation and the float32 roundings above.
//!
//! # Limits
//! When a query has fewer than 16 free places, the screen stops before the group that might not fit, and says where:
//! make room, then call again. Up to [`MAX_DIM`] dimensions: 32,768 · 255 · 127 < 2³¹.

use std::ops::Range;

use megaring_core::matrix::MAX_DIM;
use megaring_core::screen::{COLUMNS, GROUP_ROWS, QUAD, Quantised, QueryScreen, quads};

use crate::error::{SimdError, check_length};
use crate::kernels::KernelSet;
use crate::top_rows::TopRows;

/// Packed rows: codes and columns of the same groups.
#[derive(Debug, Clone, Copy)]
pub struct ScreenRows<'a> {
    pub(crate) codes: &'a [u8],
    pub(crate) columns: &'a [f32],
    pub(crate) groups: usize,
    pub(crate) quads: usize,
}

impl<'a> ScreenRows<'a> {
    /// `codes` is \[group\]\[quad\]\[16\]\[4\], `columns` \[group\]\[4\]\[16\]; rows that only fill up the last group
    /// have an `add` of -inf.
    ///
    /// # Errors
    /// Lengths that are not of the same whole number of groups, or too many dimensions.
    pub fn new(codes: &'a [u8], columns: &'a [f32], dim: usize) -> Result<Self, SimdError> {
        let quads = checked_quads(dim)?;
        let groups = columns.len().div_ceil(GROUP_ROWS * COLUMNS);
        check_length("the columns", groups * GROUP_ROWS * COLUMNS, columns.len())?;
        check_length("the packed codes", groups * quads * GROUP_ROWS * QUAD, codes.len())?;
        Ok(ScreenRows { codes, columns, groups, quads })
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }
}

pub(crate) fn checked_quads(dim: usize) -> Result<usize, SimdError> {
    if dim > MAX_DIM {
        return Err(SimdError::TooLarge { what: "the dimension", found: dim, limit: MAX_DIM });
    }
    Ok(quads(dim))
}

/// The codes of several queries, padded and checked; reused from batch to batch without allocating again.
#[derive(Debug, Clone, Default)]
pub struct ScreenQueries {
    dim: usize,
    codes: Vec<i8>,
    biases: Vec<i32>,
}

impl ScreenQueries {
    /// No queries yet, of `dim` dimensions.
    ///
    /// # Errors
    /// [`SimdError::TooLarge`] beyond [`MAX_DIM`].
    pub fn new(dim: usize) -> Result<Self, SimdError> {
        let mut queries = Self::default();
        queries.reset(dim)?;
        Ok(queries)
    }

    /// Forgets the queries for others of `dim` dimensions, keeps the memory.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing is changed then.
    pub fn reset(&mut self, dim: usize) -> Result<(), SimdError> {
        checked_quads(dim)?;
        self.dim = dim;
        self.codes.clear();
        self.biases.clear();
        Ok(())
    }

    /// Appends one query's codes, -127..=127, as many as there are dimensions.
    ///
    /// # Errors
    /// Another length, or a code of -128; nothing is appended then.
    pub fn push(&mut self, codes: &[i8]) -> Result<(), SimdError> {
        check_length("the query's codes", self.dim, codes.len())?;
        if let Some(position) = codes.iter().position(|code| *code == i8::MIN) {
            return Err(SimdError::QueryCode { position });
        }
        self.codes.extend_from_slice(codes);
        self.codes.resize((self.biases.len() + 1) * quads(self.dim) * QUAD, 0);
        self.biases.push(-128 * codes.iter().map(|code| i32::from(*code)).sum::<i32>());
        Ok(())
    }

    /// Appends one query by its values, and says what its codes lose.
    ///
    /// # Errors
    /// Another length; nothing is appended then.
    pub fn push_values(&mut self, kernels: &KernelSet, values: &[f32]) -> Result<Quantised, SimdError> {
        check_length("the query", self.dim, values.len())?;
        let begin = self.codes.len();
        self.codes.resize(begin + quads(self.dim) * QUAD, 0);
        let mut raw = RawQuantised::default();
        // SAFETY: `values` holds `dim` values, `codes` has room for as many, both outlive the call, and the CPU has the
        // instructions because a `KernelSet` exists.
        unsafe { (kernels.table.quantise)(values.as_ptr(), self.dim, self.codes[begin..].as_mut_ptr(), &mut raw) };
        self.biases.push(-128 * raw.sum);
        Ok(Quantised::new(raw.norm2, raw.scale, raw.lost, raw.kept))
    }

    /// The number of queries.
    pub fn len(&self) -> usize {
        self.biases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.biases.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> QueryCodes<'_> {
        QueryCodes { codes: &self.codes, biases: &self.biases, quads: quads(self.dim) }
    }

    /// Some of them.
    ///
    /// # Errors
    /// [`SimdError::Index`] where the range ends beyond the queries or falls.
    pub fn range(&self, range: Range<usize>) -> Result<QueryCodes<'_>, SimdError> {
        let quads = quads(self.dim);
        let beyond = SimdError::Index { what: "query", index: range.end, count: self.len() };
        let biases = self.biases.get(range.clone()).ok_or(beyond)?;
        Ok(QueryCodes { codes: &self.codes[range.start * quads * QUAD..range.end * quads * QUAD], biases, quads })
    }
}

/// Checked codes of several queries, borrowed from [`ScreenQueries`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryCodes<'a> {
    codes: &'a [i8],
    biases: &'a [i32],
    quads: usize,
}

impl QueryCodes<'_> {
    /// The number of queries.
    pub fn len(&self) -> usize {
        self.biases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.biases.is_empty()
    }
}

/// The numbers of one query.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct QueryParams {
    /// Value of one step of the query's codes.
    pub scale: f32,
    /// Factor of each row's e1 in the error; not negative.
    pub a: f32,
    /// Factor of each row's e2 in the error; not negative.
    pub b: f32,
    /// A row is kept from this upper bound on. At least `-f32::MAX`, or padding rows pass.
    pub threshold: f32,
    /// How far below the k-th best lower bound an upper bound must lie to be of no interest; not negative.
    pub slack: f32,
}

impl QueryParams {
    /// For a query that was quantised, with the least upper bound of interest.
    pub fn new(screen: &QueryScreen, threshold: f32) -> Self {
        let slack = if screen.slack == 0.0 { 0.0 } else { (2.0 * screen.slack) as f32 };
        let slack = if slack > 0.0 { slack.next_up() } else { slack };
        QueryParams { scale: screen.scale, a: screen.a, b: screen.b, threshold, slack }
    }

    /// The threshold that a k-th best lower bound allows; the same as in src/screen.zig.
    pub(crate) fn relaxed(&self, kth_lower: f32) -> f32 {
        if self.slack == 0.0 {
            return kth_lower;
        }
        ((f64::from(kth_lower) - f64::from(self.slack)) as f32).next_down()
    }
}

/// A row that may matter to a query.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Candidate {
    /// Row number.
    pub row: u32,
    /// Least possible score.
    pub lower: f32,
    /// Greatest possible score.
    pub upper: f32,
}

/// A pair that may matter to its row.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Pair {
    /// The query's place among those screened.
    pub query: u32,
    /// Row number.
    pub row: u32,
    /// Least possible score.
    pub lower: f32,
    /// Greatest possible score.
    pub upper: f32,
}

/// The other side of pairs whose queries are rows, too.
#[derive(Debug)]
pub struct OtherSide<'a> {
    /// For every row number, the least `g + error + shift` of a pair that matters to the row.
    pub least: &'a [f32],
    /// What each query's `g + error` is shifted by, to compare it with that; -inf for a query whose pairs matter to
    /// none.
    pub shifts: &'a [f32],
    /// Pairs that may matter to their row are added here.
    pub pairs: &'a mut Vec<Pair>,
}

/// Room for pairs at the least when a screen is called; a step of it notes at most 48 rows for each query.
const PAIR_ROOM: usize = 1 << 14;

/// What the kernel reads and writes of pairs; the same as `Back` in src/screen.zig.
#[repr(C)]
struct Back {
    least: *const f32,
    shifts: *const f32,
    pairs: *mut Pair,
    count: usize,
    capacity: usize,
}

/// What the quantising kernel writes; the same as `Quantised` in src/quantise.zig.
#[derive(Default)]
#[repr(C)]
pub(crate) struct RawQuantised {
    norm2: f64,
    lost: f64,
    kept: f64,
    scale: f32,
    sum: i32,
}

const _: () = assert!(size_of::<RawQuantised>() == 32);

/// What the kernel reads; the same as `Job` in src/screen.zig.
#[repr(C)]
pub(crate) struct ScreenJob {
    codes: *const u8,
    columns: *const f32,
    group_begin: usize,
    group_end: usize,
    quads: usize,
    queries: *const i8,
    biases: *const i32,
    params: *mut QueryParams,
    query_count: usize,
    best: *mut f32,
    best_registers: usize,
    k: usize,
    candidates: *mut Candidate,
    counts: *mut u32,
    stride: usize,
    capacity: usize,
    row_base: u32,
    reserved: u32,
    back: *mut Back,
}

const _: () = assert!(size_of::<ScreenJob>() == 17 * size_of::<usize>() + 8);
const _: () = assert!(size_of::<Pair>() == 16 && size_of::<Back>() == 5 * size_of::<usize>());
const _: () = assert!(size_of::<QueryParams>() == 20 && size_of::<Candidate>() == 12);

impl ScreenJob {
    /// Checks everything that the kernels rely on, but for what codes and columns hold: that, `rows` knows.
    pub(crate) fn new(
        rows: ScreenRows<'_>,
        groups: Range<usize>,
        row_base: u32,
        queries: QueryCodes<'_>,
        top: &mut TopRows,
    ) -> Result<Self, SimdError> {
        check_length("a query", rows.quads * QUAD, queries.quads * QUAD)?;
        check_length("the queries' candidates", queries.len(), top.queries())?;
        if groups.end > rows.groups || groups.start > groups.end {
            return Err(SimdError::Index { what: "group", index: groups.start.max(groups.end), count: rows.groups });
        }
        let last_row = (row_base as usize).saturating_add(groups.end.saturating_mul(GROUP_ROWS));
        if last_row > u32::MAX as usize {
            return Err(SimdError::TooLarge { what: "the row number", found: last_row, limit: u32::MAX as usize });
        }
        Ok(Self {
            codes: rows.codes.as_ptr(),
            columns: rows.columns.as_ptr(),
            group_begin: groups.start,
            group_end: groups.end,
            quads: rows.quads,
            queries: queries.codes.as_ptr(),
            biases: queries.biases.as_ptr(),
            params: top.params.as_mut_ptr(),
            query_count: queries.len(),
            best: top.best.as_mut_ptr(),
            best_registers: top.registers(),
            k: top.k(),
            candidates: top.places.as_mut_ptr(),
            counts: top.counts.as_mut_ptr(),
            stride: top.capacity,
            capacity: top.stop,
            row_base,
            reserved: 0,
            back: std::ptr::null_mut(),
        })
    }
}

impl KernelSet {
    /// Screens `groups` of `rows` against every query and appends to its candidates the rows that pass. Row numbers are
    /// `row_base` plus the row's place in `rows`. Returns the group reached: the end of `groups`, or the first group
    /// for which some query needs [more room](TopRows::make_room); all queries have seen exactly the groups before it.
    ///
    /// # Errors
    /// Different dimensions of rows and queries, another number of queries in `top`, groups beyond the rows, or row
    /// numbers beyond an u32.
    pub fn screen_i8(
        &self,
        rows: ScreenRows<'_>,
        groups: Range<usize>,
        row_base: u32,
        queries: QueryCodes<'_>,
        top: &mut TopRows,
    ) -> Result<usize, SimdError> {
        let job = ScreenJob::new(rows, groups, row_base, queries, top)?;
        // SAFETY: codes and columns hold `rows.groups` groups of `quads` quads (`ScreenRows::new`), codes and biases
        // hold every query at the same number of quads (`ScreenQueries`). `TopRows` holds for each query parameters, a
        // count, `registers` of best bounds (k fits in them where there are any) and `stride` places, of which at least
        // `capacity` are there and at most that many taken; the kernel appends only where a whole group fits. All of it
        // is borrowed exclusively, all slices outlive the call, and the CPU has the instructions because a `KernelSet`
        // exists.
        Ok(unsafe { (self.table.screen_i8)(&job) })
    }

    /// [`Self::screen_i8`] of queries that are rows themselves: also notes those pairs that may matter to their
    /// row. It may stop where there is no more room for them, too: call again.
    ///
    /// # Errors
    /// As [`Self::screen_i8`], and where there is not a shift for each query, or no least score for a row.
    pub fn screen_both_sides(
        &self,
        rows: ScreenRows<'_>,
        groups: Range<usize>,
        row_base: u32,
        queries: QueryCodes<'_>,
        top: &mut TopRows,
        other: &mut OtherSide<'_>,
    ) -> Result<usize, SimdError> {
        let mut job = ScreenJob::new(rows, groups.clone(), row_base, queries, top)?;
        check_length("the queries' shifts", queries.len(), other.shifts.len())?;
        let last_row = row_base as usize + groups.end * GROUP_ROWS;
        if last_row > other.least.len() {
            return Err(SimdError::Index { what: "row", index: last_row, count: other.least.len() });
        }
        let pairs = &mut *other.pairs;
        pairs.reserve(PAIR_ROOM.max(queries.len() * 3 * GROUP_ROWS));
        let room = pairs.spare_capacity_mut();
        let mut back = Back {
            least: other.least.as_ptr(),
            shifts: other.shifts.as_ptr(),
            pairs: room.as_mut_ptr().cast(),
            count: 0,
            capacity: room.len(),
        };
        job.back = &raw mut back;
        // SAFETY: as in `screen_i8`; `least` has a number for every row of the groups, `shifts` one for every
        // query, and of `pairs` the kernel writes at most the `capacity` places behind those that are there, `count` of
        // them whole.
        let reached = unsafe { (self.table.screen_i8)(&job) };
        let noted = back.count;
        // SAFETY: the kernel has written so many.
        unsafe { pairs.set_len(pairs.len() + noted) };
        Ok(reached)
    }
}
