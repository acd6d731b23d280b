//! The best rows of a query among rows of few elements, or of bits, by their exact scores: no screen reads less than
//! the rows themselves there.
//!
//! # Promises
//! The scores are those of [`megaring_core::exact`], to the bit, on every instruction set; the rows those that
//! [`megaring_core::rescore`] finds.
//!
//! # Limits
//! Rows of at most [`NARROW_DIM`] elements, unless they are bits.

use std::ops::Range;

use megaring_core::lists::RankedRow;
use megaring_core::{Element, Metric, exact};

use crate::error::{SimdError, check_length};
use crate::kernels::KernelSet;

/// The most elements that a narrow row has; the same as `max_dim` in src/narrow.zig.
pub const NARROW_DIM: usize = 3;
/// Rows beyond those wanted that are kept before they are thinned out.
const SPARE: usize = 16;

/// Rows of one segment.
#[derive(Debug, Clone, Copy)]
pub struct SweepRows<'a> {
    values: &'a [f32],
    /// Of each row; none of bits.
    norms2: &'a [f64],
    dim: usize,
    rows: usize,
    element: Element,
}

impl<'a> SweepRows<'a> {
    /// `values` is row-major with `dim` columns, `norms2` holds the canonical `dot(x, x)` of each row.
    ///
    /// # Errors
    /// Lengths that are not of the same rows, or a dimension that is 0 or beyond [`NARROW_DIM`].
    pub fn narrow(values: &'a [f32], norms2: &'a [f64], dim: usize) -> Result<Self, SimdError> {
        check_dim(dim)?;
        if dim > NARROW_DIM {
            return Err(SimdError::TooLarge { what: "the dimension", found: dim, limit: NARROW_DIM });
        }
        check_length("the rows", norms2.len() * dim, values.len())?;
        Ok(Self { values, norms2, dim, rows: norms2.len(), element: Element::Float32 })
    }

    /// `values` is row-major with `words` words of bits a row.
    ///
    /// # Errors
    /// No words, or a row that is not whole.
    pub fn bits(values: &'a [f32], words: usize) -> Result<Self, SimdError> {
        check_dim(words)?;
        check_length("the rows", values.len().next_multiple_of(words), values.len())?;
        Ok(Self { values, norms2: &[], dim: words, rows: values.len() / words, element: Element::Bit })
    }
}

fn check_dim(dim: usize) -> Result<(), SimdError> {
    if dim == 0 {
        return Err(SimdError::TooSmall { what: "the dimension", found: 0, limit: 1 });
    }
    Ok(())
}

/// One query and the best rows that it has found so far.
#[derive(Debug, Clone)]
pub struct SweepQuery {
    metric: Metric,
    k: usize,
    values: Vec<f32>,
    norm2: f64,
    /// What the goodness of a later row must exceed.
    threshold: f64,
    /// Rows with their goodness, the first `count` of these places.
    found: Vec<RankedRow>,
    count: usize,
}

impl SweepQuery {
    /// The `k` rows that are wanted have a score that passes `threshold` (see [`Metric::passes`]).
    ///
    /// # Errors
    /// A query without values or, unless they are bits, with more than [`NARROW_DIM`], or a `k` of 0.
    pub fn new(metric: Metric, k: usize, threshold: f64, query: &[f32]) -> Result<Self, SimdError> {
        if k == 0 {
            return Err(SimdError::TooSmall { what: "k", found: 0, limit: 1 });
        }
        let norm2 = match metric.element() {
            Element::Float32 => SweepRows::narrow(query, &[0.0], query.len()).map(|_| exact::norm2(query))?,
            Element::Bit => SweepRows::bits(query, query.len()).map(|_| 0.0)?,
        };
        let places = k.saturating_mul(2).saturating_add(SPARE);
        Ok(Self {
            metric,
            k,
            values: query.to_vec(),
            norm2,
            threshold: metric.goodness(threshold).next_down(),
            found: vec![RankedRow { score: 0.0, row: 0, reserved: 0 }; places],
            count: 0,
        })
    }

    /// Whether no row can be better than the worst of those that are kept.
    fn is_perfect(&self) -> bool {
        match self.metric {
            Metric::Cosine | Metric::Jaccard => self.threshold >= 1.0,
            Metric::Hamming => self.threshold >= 0.0,
            Metric::Dot | Metric::L2 => false,
        }
    }

    /// Forgets all but the k best rows; later ones must be better than the last of them.
    fn tidy(&mut self) {
        if self.count < self.k {
            return;
        }
        let found = &mut self.found[..self.count];
        let (_, worst, _) = found.select_nth_unstable_by(self.k - 1, best_first);
        self.threshold = self.threshold.max(worst.score);
        self.count = self.k;
    }

    /// Adds what the same query found among other rows.
    pub fn absorb(&mut self, other: &Self) {
        for row in &other.found[..other.count] {
            if self.count == self.found.len() {
                self.tidy();
            }
            self.found[self.count] = *row;
            self.count += 1;
        }
    }

    /// The rows found, best first, with their scores.
    pub fn ranked(&mut self) -> impl ExactSizeIterator<Item = RankedRow> {
        self.tidy();
        let found = &mut self.found[..self.count];
        found.sort_unstable_by(best_first);
        found.iter().map(|row| RankedRow { score: self.metric.goodness(row.score), ..*row })
    }
}

/// The order of answers: by goodness, then by row.
fn best_first(x: &RankedRow, y: &RankedRow) -> std::cmp::Ordering {
    y.score.total_cmp(&x.score).then(x.row.cmp(&y.row))
}

/// What the kernel reads; the same as `Job` in src/sweep.zig.
#[repr(C)]
pub(crate) struct SweepJob {
    rows: *const f32,
    norms2: *const f64,
    begin: usize,
    end: usize,
    query: *const f32,
    norm2: f64,
    threshold: f64,
    found: *mut RankedRow,
    count: *mut usize,
    capacity: usize,
    dim: u32,
    row_base: u32,
}

const _: () = assert!(size_of::<SweepJob>() == size_of::<[usize; 8]>() + 24 && size_of::<RankedRow>() == 16);

impl KernelSet {
    /// Looks for the best rows of `query` among `range` of `rows`, which are later than those it has seen. Row numbers
    /// are `row_base` plus the row's place in `rows`.
    ///
    /// # Errors
    /// Rows as wide as the query is not, a range beyond them, or row numbers beyond an u32.
    pub fn sweep(
        &self,
        rows: SweepRows<'_>,
        range: Range<usize>,
        row_base: u32,
        query: &mut SweepQuery,
    ) -> Result<(), SimdError> {
        check_length("the query", rows.dim, query.values.len())?;
        if rows.element != query.metric.element() {
            return Err(SimdError::Mismatch { what: "the metric is not one of the rows' elements" });
        }
        let count = rows.rows;
        if range.end > count || range.start > range.end {
            return Err(SimdError::Index { what: "row", index: range.start.max(range.end), count });
        }
        let last_row = (row_base as usize).saturating_add(range.end);
        if last_row > u32::MAX as usize {
            return Err(SimdError::TooLarge { what: "the row number", found: last_row, limit: u32::MAX as usize });
        }
        let kernel = match query.metric {
            Metric::Cosine => self.table.sweep_cosine,
            Metric::Dot => self.table.sweep_dot,
            Metric::L2 => self.table.sweep_l2,
            Metric::Hamming => self.table.sweep_hamming,
            Metric::Jaccard => self.table.sweep_jaccard,
        };
        let mut begin = range.start;
        while begin < range.end && !query.is_perfect() {
            let job = SweepJob {
                rows: rows.values.as_ptr(),
                norms2: rows.norms2.as_ptr(),
                begin,
                end: range.end,
                query: query.values.as_ptr(),
                norm2: query.norm2,
                threshold: query.threshold,
                found: query.found.as_mut_ptr(),
                count: &raw mut query.count,
                capacity: query.found.len(),
                dim: rows.dim as u32,
                row_base,
            };
            // SAFETY: the range is within the rows, of which `values` and, unless they are bits, `norms2` hold as many,
            // each as wide as the query is and, unless they are bits, of 1 to 3 elements (`SweepRows`); `found` has
            // `capacity` places, of which `count` are taken, and the kernel appends only where there is room. Both are
            // borrowed exclusively, everything outlives the call, and the CPU has the instructions because a
            // `KernelSet` exists.
            begin = unsafe { kernel(&job) };
            if begin < range.end {
                query.tidy();
            }
        }
        Ok(())
    }
}
