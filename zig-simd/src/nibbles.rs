//! The screen over codes in two halves: half the bytes to read where most rows can be ruled out.
//!
//! See [`megaring_core::nibbles`] for the layout and the bound, and src/nibbles.zig for the formula.
//!
//! # Promises
//! Those of [`screen_i8`](KernelSet::screen_i8): the same candidates on every instruction set, rising by row. They need
//! not be those of `screen_i8`, but the k best are among both.

use std::ops::Range;

use megaring_core::nibbles::{NibblesView, half_row, high_group};
use megaring_core::screen::{COLUMNS, GROUP_ROWS};

use crate::error::{SimdError, check_length};
use crate::kernels::KernelSet;
use crate::screen::{QueryCodes, ScreenJob, ScreenRows, checked_quads};
use crate::top_rows::TopRows;

/// Rows in halves: high ones with the columns of their bound, low ones with the columns of the int8 bound.
#[derive(Debug, Clone, Copy)]
pub struct NibbleRows<'a> {
    high: ScreenRows<'a>,
    low: &'a [u8],
    columns: &'a [f32],
}

impl<'a> NibbleRows<'a> {
    /// The halves of rows of `dim` elements, the columns of the bound by the high halves, and those of the codes, both
    /// as [`ScreenRows::new`] has them.
    ///
    /// # Errors
    /// Lengths that do not belong to the same rows, or too many dimensions.
    pub fn new(
        nibbles: NibblesView<'a>,
        high_columns: &'a [f32],
        columns: &'a [f32],
        dim: usize,
    ) -> Result<Self, SimdError> {
        let quads = checked_quads(dim)?;
        let groups = columns.len().div_ceil(GROUP_ROWS * COLUMNS);
        check_length("the columns", groups * GROUP_ROWS * COLUMNS, columns.len())?;
        check_length("the columns of the high halves", columns.len(), high_columns.len())?;
        check_length("the high halves", groups * high_group(dim), nibbles.high.len())?;
        check_length("the low halves", groups * GROUP_ROWS * half_row(dim), nibbles.low.len())?;
        let high = ScreenRows { codes: nibbles.high, columns: high_columns, groups, quads };
        Ok(Self { high, low: nibbles.low, columns })
    }
}

/// What the kernel reads; the same as `Job` in src/nibbles.zig.
#[repr(C)]
pub(crate) struct NibbleJob {
    job: ScreenJob,
    low: *const u8,
    fine_columns: *const f32,
    refined: usize,
}

const _: () = assert!(size_of::<NibbleJob>() == size_of::<ScreenJob>() + 3 * size_of::<usize>());

impl KernelSet {
    /// As [`Self::screen_i8`]; returns also how many rows needed their low halves, counted once for each query.
    ///
    /// # Errors
    /// As [`Self::screen_i8`].
    pub fn screen_nibbles(
        &self,
        rows: NibbleRows<'_>,
        groups: Range<usize>,
        row_base: u32,
        queries: QueryCodes<'_>,
        top: &mut TopRows,
    ) -> Result<(usize, usize), SimdError> {
        let mut job = NibbleJob {
            job: ScreenJob::new(rows.high, groups, row_base, queries, top)?,
            low: rows.low.as_ptr(),
            fine_columns: rows.columns.as_ptr(),
            refined: 0,
        };
        // SAFETY: both halves and both columns hold `groups` groups of `quads` quads (`NibbleRows::new`), prefetches
        // cannot fault, and of the rest the same holds as in `screen_i8`.
        let reached = unsafe { (self.table.screen_nibbles)(&mut job) };
        Ok((reached, job.refined))
    }
}
