//! A row-major matrix of float32, the form in which embeddings and queries travel through this crate.

/// `rows` x `dim` float32 values, row-major, without padding. `values.len() == rows * dim`.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows (vectors).
    pub rows: usize,
    /// Values per row.
    pub dim: usize,
    /// Row `r` is `values[r * dim..(r + 1) * dim]`.
    pub values: Vec<f32>,
}

impl Matrix {
    /// A matrix over `values`.
    ///
    /// # Panics
    /// If `values.len()` is not `rows * dim`.
    pub fn new(rows: usize, dim: usize, values: Vec<f32>) -> Matrix {
        assert_eq!(Some(values.len()), rows.checked_mul(dim), "a {rows} x {dim} matrix needs rows * dim values");
        Matrix { rows, dim, values }
    }

    /// The row numbered `row`, from 0.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        assert!(row < self.rows, "row {row} of a matrix of {} rows", self.rows);
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// All rows in order. A matrix of dimension 0 has no rows to show.
    pub fn iter_rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim.max(1))
    }

    /// The first `rows` rows, or all where there are fewer, as a matrix of their own.
    pub fn head(&self, rows: usize) -> Matrix {
        let rows = rows.min(self.rows);
        Matrix { rows, dim: self.dim, values: self.values[..rows * self.dim].to_vec() }
    }

    /// The values as little-endian bytes, row-major: the encoding of the wire and of `.npy` bodies.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// FNV-1a 64 over the bytes of [`to_le_bytes`](Self::to_le_bytes), after rows and dim as u64: one number that
    /// changes with any bit of the matrix.
    pub fn checksum(&self) -> u64 {
        let mut hash = crate::draw::Fnv::new();
        hash.write(&(self.rows as u64).to_le_bytes());
        hash.write(&(self.dim as u64).to_le_bytes());
        for value in &self.values {
            hash.write(&value.to_le_bytes());
        }
        hash.finish()
    }
}
