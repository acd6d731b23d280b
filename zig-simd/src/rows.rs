//! The float32 row kernels: one query against every row of a row-major matrix.
//!
//! # Promises
//! Sums are accumulated in float32 in some order, with or without fused multiply-add; so the error against the exact value is at
//! most gamma(dim) = dim·u / (1 − dim·u), u = 2⁻²⁴, times the sum of the terms' magnitudes (Higham, Accuracy and Stability of Numerical
//! Algorithms, §3.1 and §4.2), where `dim` counts as dim for dot and norm2 and as dim + 2 for l2 (its difference is rounded, and
//! counts twice), and int8 rows add 2 for their scale (l2: 4). Underflow is not part of the bound.
//!
//! # Limits
//! No rows and no dimensions are legal: nothing is written, or zeros. Non-finite values give non-finite results.

use crate::error::{SimdError, check_length};
use crate::kernels::KernelSet;
use crate::table::RowKernels;

/// Row-major rows, `rows * dim` elements, in one of the stored forms.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// float32 values.
    F32(&'a [f32]),
    /// IEEE 754 binary16 values, as their bits.
    F16(&'a [u16]),
    /// bfloat16 values, as their bits.
    Bf16(&'a [u16]),
    /// int8 codes with one scale per row: value = scale * code.
    I8 {
        /// The codes.
        codes: &'a [i8],
        /// One scale per row.
        scales: &'a [f32],
    },
}

impl Rows<'_> {
    /// Elements, over all rows.
    pub fn elements(&self) -> usize {
        match self {
            Rows::F32(values) => values.len(),
            Rows::F16(bits) | Rows::Bf16(bits) => bits.len(),
            Rows::I8 { codes, .. } => codes.len(),
        }
    }

    fn check(&self, count: usize, dim: usize) -> Result<(), SimdError> {
        let expected = count.checked_mul(dim).ok_or(SimdError::TooLarge {
            what: "the number of rows",
            found: count,
            limit: usize::MAX / dim.max(1),
        })?;
        check_length("the rows", expected, self.elements())?;
        match self {
            Rows::I8 { scales, .. } => check_length("the scales", count, scales.len()),
            _ => Ok(()),
        }
    }
}

impl KernelSet {
    /// out\[r\] = Σ query\[i\] · rows\[r\]\[i\]. The query's length is the dimension, `out`'s the number of rows.
    ///
    /// # Errors
    /// [`SimdError::Length`] where the rows, or the scales, are not of that shape.
    pub fn dot(&self, query: &[f32], rows: Rows<'_>, out: &mut [f32]) -> Result<(), SimdError> {
        rows.check(out.len(), query.len())?;
        // SAFETY: the lengths were checked against the dimension and the row count just above.
        unsafe { run(&self.table.dot, query.as_ptr(), rows, query.len(), out) };
        Ok(())
    }

    /// out\[r\] = Σ (query\[i\] − rows\[r\]\[i\])². The query's length is the dimension, `out`'s the number of rows.
    ///
    /// # Errors
    /// [`SimdError::Length`] where the rows, or the scales, are not of that shape.
    pub fn l2(&self, query: &[f32], rows: Rows<'_>, out: &mut [f32]) -> Result<(), SimdError> {
        rows.check(out.len(), query.len())?;
        // SAFETY: the lengths were checked against the dimension and the row count just above.
        unsafe { run(&self.table.l2, query.as_ptr(), rows, query.len(), out) };
        Ok(())
    }

    /// out\[r\] = Σ rows\[r\]\[i\]², over `dim` dimensions. `out`'s length is the number of rows.
    ///
    /// # Errors
    /// [`SimdError::Length`] where the rows, or the scales, are not of that shape.
    pub fn norm2(&self, rows: Rows<'_>, dim: usize, out: &mut [f32]) -> Result<(), SimdError> {
        rows.check(out.len(), dim)?;
        let no_query = std::ptr::NonNull::dangling().as_ptr();
        // SAFETY: the lengths were checked just above; norm2 does not read the query.
        unsafe { run(&self.table.norm2, no_query, rows, dim, out) };
        Ok(())
    }
}

/// # Safety
/// `rows` (and its scales) must be `out.len()` rows of `dim` elements, and `query` must point to `dim` values if the operation
/// reads one. `kernels` must come from a `KernelSet`.
unsafe fn run(kernels: &RowKernels, query: *const f32, rows: Rows<'_>, dim: usize, out: &mut [f32]) {
    let no_scales = std::ptr::NonNull::dangling().as_ptr();
    let (count, out) = (out.len(), out.as_mut_ptr());
    match rows {
        // SAFETY: by this function's contract the kernel's reads and writes stay within the slices, `out` is borrowed exclusively, and
        // the CPU has the instructions because a `KernelSet` exists. Scales are read for int8 rows only.
        Rows::F32(values) => unsafe { (kernels.float32)(query, values.as_ptr(), no_scales, count, dim, out) },
        // SAFETY: as above.
        Rows::F16(bits) => unsafe { (kernels.float16)(query, bits.as_ptr(), no_scales, count, dim, out) },
        // SAFETY: as above.
        Rows::Bf16(bits) => unsafe { (kernels.bfloat16)(query, bits.as_ptr(), no_scales, count, dim, out) },
        // SAFETY: as above; there is a scale for every row.
        Rows::I8 { codes, scales } => unsafe {
            (kernels.int8)(query, codes.as_ptr(), scales.as_ptr(), count, dim, out)
        },
    }
}
