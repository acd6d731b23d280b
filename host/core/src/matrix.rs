//! Vectors as jobs carry them.

use std::ops::Range;

/// Largest dimension of an embedding: keeps every integer sum of the int8 screen within 32 bits.
pub const MAX_DIM: usize = 32_768;

/// Row-major float32 vectors, all finite.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix {
    /// Number of vectors.
    pub rows: usize,
    /// Elements of each.
    pub dim: usize,
    /// `rows * dim` values.
    pub values: Vec<f32>,
}

impl Matrix {
    /// One vector.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// The values of some vectors.
    #[must_use]
    pub fn range(&self, rows: &Range<usize>) -> &[f32] {
        &self.values[rows.start * self.dim..rows.end * self.dim]
    }
}
