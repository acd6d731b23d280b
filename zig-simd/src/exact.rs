//! The canonical float64 scores of gathered rows, the same bits on every instruction set.
//!
//! The sum runs in 8 strided lanes (lane j takes i with i mod 8 = j, in rising order), combined as
//! ((l0+l4)+(l2+l6))+((l1+l5)+(l3+l7)); missing elements count as +0.

use megaring_core::exact::Overlap;

use crate::error::{SimdError, check_length};
use crate::kernels::KernelSet;

impl KernelSet {
    /// out\[c\] = the dot product of `query` and row `ids[c]` of `rows` (row-major, as wide as the query).
    ///
    /// # Errors
    /// Lengths that do not fit, or a row number beyond the rows. With no dimensions every row number is legal and every
    /// score 0.
    pub fn exact_dot(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]) -> Result<(), SimdError> {
        gather(self.table.exact_dot, query, rows, ids, out)
    }

    /// out\[c\] = the squared Euclidean distance of `query` and row `ids[c]` of `rows` (row-major, as wide as the
    /// query).
    ///
    /// # Errors
    /// As [`KernelSet::exact_dot`].
    pub fn exact_l2(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]) -> Result<(), SimdError> {
        gather(self.table.exact_l2, query, rows, ids, out)
    }

    /// out\[c\] = what `query` and row `ids[c]` of `rows` (row-major, as wide as the query), words of bits, have in
    /// common.
    ///
    /// # Errors
    /// As [`KernelSet::exact_dot`].
    pub fn overlap(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [Overlap]) -> Result<(), SimdError> {
        gather(self.table.overlap, query, rows, ids, out)
    }
}

/// Scores gathered rows into as many places.
type Gather<T> = unsafe extern "C" fn(*const f32, *const f32, usize, *const u32, usize, *mut T);

/// `kernel` comes from a `KernelSet`.
fn gather<T>(kernel: Gather<T>, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [T]) -> Result<(), SimdError> {
    let dim = query.len();
    check_length("the scores", ids.len(), out.len())?;
    if dim > 0 {
        if !rows.len().is_multiple_of(dim) {
            let expected = rows.len().next_multiple_of(dim);
            return Err(SimdError::Length { what: "the rows", expected, found: rows.len() });
        }
        let count = rows.len() / dim;
        if let Some(&id) = ids.iter().find(|id| **id as usize >= count) {
            return Err(SimdError::Index { what: "row", index: id as usize, count });
        }
    }
    // SAFETY: every id is below the number of whole rows (with dim 0 no element is read), `query` holds `dim` values,
    // `out` has a place for each id and is borrowed exclusively. The CPU has the instructions: a `KernelSet` exists.
    unsafe { kernel(query.as_ptr(), rows.as_ptr(), dim, ids.as_ptr(), ids.len(), out.as_mut_ptr()) };
    Ok(())
}
