//! Squared weighted distances between 5-D points, in float64, the same bits on every instruction set.

use crate::error::{SimdError, check_length};
use crate::kernels::KernelSet;

/// Points as five columns of equal length: x, y, z, w, v.
#[derive(Debug, Clone, Copy)]
pub struct PointColumns<'a> {
    columns: [&'a [f64]; 5],
}

impl<'a> PointColumns<'a> {
    /// # Errors
    /// [`SimdError::Length`] where a column is not as long as the first.
    pub fn new(columns: [&'a [f64]; 5]) -> Result<Self, SimdError> {
        for column in &columns[1..] {
            check_length("a column of points", columns[0].len(), column.len())?;
        }
        Ok(PointColumns { columns })
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.columns[0].len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl KernelSet {
    /// out\[p\] = ((((d0² + d1²) + d2²) + d3²) + d4²) with d_a = weights\[a\] · (point p's a − query\[a\]), each
    /// operation rounded by itself.
    ///
    /// # Errors
    /// [`SimdError::Length`] where `out` is not as long as the columns.
    pub fn distances5(
        &self,
        points: PointColumns<'_>,
        query: &[f64; 5],
        weights: &[f64; 5],
        out: &mut [f64],
    ) -> Result<(), SimdError> {
        check_length("the distances", points.len(), out.len())?;
        let columns = points.columns.map(<[f64]>::as_ptr);
        // SAFETY: the five columns and `out` have the same length, `out` is borrowed exclusively, and the CPU has the
        // instructions because a `KernelSet` exists.
        unsafe { (self.table.distances5)(&columns, query, weights, out.len(), out.as_mut_ptr()) };
        Ok(())
    }
}
