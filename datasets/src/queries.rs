//! Queries for a given matrix.

use crate::Matrix;
use crate::draw::Draw;
use crate::embeddings::{perturb, scale_to};

/// `n` queries for `matrix`, of its dimension, the same for the same matrix and seed.
///
/// Of ten queries about six are rows with noise of 10 to 100 % of the row's norm, two are rows verbatim, two are
/// directions drawn uniformly (norm 1). A matrix without rows gets only the last kind.
pub fn queries(matrix: &Matrix, n: usize, seed: u64) -> Matrix {
    let mut values = vec![0.0; n * matrix.dim];
    let mut scratch = vec![0.0; matrix.dim];
    for (index, query) in values.chunks_exact_mut(matrix.dim.max(1)).enumerate() {
        let mut draw = Draw::new(seed, "queries", index as u64);
        let kind = if matrix.rows == 0 { 1.0 } else { draw.unit() };
        if kind < 0.8 {
            query.copy_from_slice(matrix.row(draw.below(matrix.rows)));
        } else {
            draw.fill_normal(query);
            scale_to(query, 1.0);
        }
        if kind < 0.6 {
            let distance = draw.between(0.1, 1.0) as f32;
            perturb(&mut draw, query, &mut scratch, distance);
        }
    }
    Matrix { rows: n, dim: matrix.dim, values }
}
