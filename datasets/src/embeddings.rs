//! Vectors that look like the embeddings of a text model, at any number of rows and any dimension.
//!
//! Drawn in the basis of the principal axes and then rotated: a common mean direction, clusters of Zipf-like sizes,
//! variances that decay along the axes, near-duplicates and a few exact duplicates. The constants were fitted to the
//! real sample (2,048 docstrings by all-MiniLM-L6-v2), and `tests/embeddings.rs` keeps them near it: norm of the mean
//! about 0.3, mean similarity of the ten nearest neighbours about 0.5.
//!
//! Rows are made in parallel, each from a random stream of its own, so the result depends on the fields alone. Memory:
//! the matrix and `clusters * dim` float32. Time: 1,000,000 x 384 in about 6 s on two busy cores (release).

use rayon::prelude::*;

use crate::Matrix;
use crate::draw::Draw;

/// A recipe for a matrix; the same fields always give the same bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Rows to make; 0 is legal.
    pub rows: usize,
    /// Values per row; 0 is legal and makes empty rows.
    pub dim: usize,
    /// The seed.
    pub seed: u64,
    /// Number of clusters; 0 for rows that share nothing but the mean. The cluster of rank r, from 0, holds a share of
    /// the rows proportional to 1 / (r + 10).
    pub clusters: usize,
    /// Share of rows that repeat an earlier row with a little noise (cosine mostly above 0.98).
    pub near_duplicates: f64,
    /// Share of rows that repeat an earlier row bit for bit, so that scores tie.
    pub exact_duplicates: f64,
    /// L2-normalise each row (to float32 rounding); otherwise norms vary as raw model output does, around 6.
    pub normalized: bool,
}

impl Default for Embeddings {
    /// 5,562 x 384, 600 clusters, 2 % near-duplicates, 0.2 % exact ones, normalised, seed 1.
    fn default() -> Embeddings {
        Embeddings {
            rows: 5562,
            dim: 384,
            seed: 1,
            clusters: 600,
            near_duplicates: 0.02,
            exact_duplicates: 0.002,
            normalized: true,
        }
    }
}

impl Embeddings {
    /// Makes the matrix.
    ///
    /// # Panics
    /// If `rows * dim` values do not fit in memory.
    pub fn generate(&self) -> Matrix {
        let mut values = vec![0.0; self.rows * self.dim];
        let space = Space::new(self);
        values
            .par_chunks_exact_mut(self.dim.max(1))
            .enumerate()
            .for_each_init(|| vec![0.0; self.dim], |scratch, (row, out)| self.fill_row(&space, row, out, scratch));
        Matrix { rows: self.rows, dim: self.dim, values }
    }

    fn fill_row(&self, space: &Space, row: usize, out: &mut [f32], scratch: &mut [f32]) {
        let mut draw = Draw::new(self.seed, "embeddings", row as u64);
        // A duplicate's origin is an earlier row, so the chain ends at row 0 at the latest.
        let kind = draw.unit();
        let origin = draw.below(row);
        if row > 0 && kind < self.exact_duplicates {
            self.fill_row(space, origin, out, scratch);
        } else if row > 0 && kind < self.exact_duplicates + self.near_duplicates {
            self.fill_row(space, origin, out, scratch);
            let distance = draw.between(0.02, 0.2) as f32;
            perturb(&mut draw, out, scratch, distance);
            self.finish(&mut draw, out);
        } else {
            space.fill_fresh(&mut draw, out, scratch);
            self.finish(&mut draw, out);
        }
    }

    /// Gives the row its norm: 1, or the drawn one.
    fn finish(&self, draw: &mut Draw, row: &mut [f32]) {
        let norm = if self.normalized { 1.0 } else { draw.log_normal(6.0, 0.12) };
        scale_to(row, norm);
    }
}

/// Adds noise of about `distance` times the row's own norm.
pub(crate) fn perturb(draw: &mut Draw, row: &mut [f32], scratch: &mut [f32], distance: f32) {
    draw.fill_normal(scratch);
    let norm: f32 = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let step = distance * norm / (row.len() as f32).sqrt();
    for (value, noise) in row.iter_mut().zip(scratch) {
        *value += step * *noise;
    }
}

/// Scales the row to this norm; a zero row stays zero.
pub(crate) fn scale_to(row: &mut [f32], norm: f64) {
    let current = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
    if current > 0.0 {
        let factor = norm / current;
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
    }
}

/// Norm of the common mean relative to the rest; normalising then leaves a mean of norm 0.3.
const MEAN: f32 = 0.32;

/// Share of a row's variance that its cluster explains, drawn uniformly between these for each row.
const CLUSTER_SHARE: (f64, f64) = (0.25, 0.6);

/// What all rows share. `spectrum`, `mean` and `centres` are in the basis of the principal axes.
struct Space {
    dim: usize,
    /// Standard deviation along each axis; the squares add up to 1.
    spectrum: Vec<f32>,
    /// The common mean, of norm [`MEAN`].
    mean: Vec<f32>,
    /// One centre per cluster, each with the variances of `spectrum`.
    centres: Vec<f32>,
    /// Cumulated cluster shares, ending at 1.
    shares: Vec<f64>,
    /// Cosine and sine of the rotation of each pair in each round.
    turns: Vec<Vec<(f32, f32)>>,
}

impl Space {
    fn new(recipe: &Embeddings) -> Space {
        let dim = recipe.dim;
        let spectrum = spectrum(dim);
        let mut mean = vec![0.0; dim];
        Draw::new(recipe.seed, "embeddings mean", 0).fill_normal(&mut mean);
        scale_to(&mut mean, f64::from(MEAN));
        let mut centres = vec![0.0; recipe.clusters * dim];
        centres.par_chunks_exact_mut(dim.max(1)).enumerate().for_each(|(cluster, centre)| {
            Draw::new(recipe.seed, "embeddings centres", cluster as u64).fill_normal(centre);
            centre.iter_mut().zip(&spectrum).for_each(|(value, deviation)| *value *= deviation);
        });
        Space { dim, spectrum, mean, centres, shares: shares(recipe.clusters), turns: turns(recipe.seed, dim) }
    }

    fn fill_fresh(&self, draw: &mut Draw, out: &mut [f32], scratch: &mut [f32]) {
        let share = draw.between(CLUSTER_SHARE.0, CLUSTER_SHARE.1);
        let point = draw.unit();
        let cluster = self.shares.partition_point(|&bound| bound <= point);
        let centre = self.centres.chunks_exact(self.dim.max(1)).nth(cluster);
        let (pull, spread) =
            if centre.is_some() { (share.sqrt() as f32, (1.0 - share).sqrt() as f32) } else { (0.0, 1.0) };
        draw.fill_normal(out);
        for ((value, mean), deviation) in out.iter_mut().zip(&self.mean).zip(&self.spectrum) {
            *value = *mean + spread * deviation * *value;
        }
        if let Some(centre) = centre {
            out.iter_mut().zip(centre).for_each(|(value, centre)| *value += pull * centre);
        }
        self.rotate(out, scratch);
    }

    /// Turns the principal axes away from the coordinate axes, so that no coordinate stands out, as in real embeddings.
    ///
    /// Each round turns the pairs (i, i + dim/2) by drawn angles and interleaves them; after log2(dim) rounds every
    /// coordinate depends on every axis. An odd last value moves to the front, so that it takes part in the next round.
    fn rotate(&self, row: &mut [f32], scratch: &mut [f32]) {
        let (half, odd) = (self.dim / 2, self.dim % 2);
        for round in &self.turns {
            if odd == 1 {
                scratch[0] = row[self.dim - 1];
            }
            let (low, high) = row[..2 * half].split_at(half);
            let pairs = scratch[odd..].as_chunks_mut::<2>().0;
            for (((pair, a), b), (cos, sin)) in pairs.iter_mut().zip(low).zip(high).zip(round) {
                *pair = [cos * a + sin * b, cos * b - sin * a];
            }
            row.copy_from_slice(scratch);
        }
    }
}

/// Standard deviations that fall as `(1 - i/dim) / (i + 6)` in variance, normalised to a total variance of 1: within
/// the sample's sorted spectrum by a factor of two from the first to the 300th axis.
fn spectrum(dim: usize) -> Vec<f32> {
    let variances: Vec<f64> = (0..dim).map(|axis| (1.0 - axis as f64 / dim as f64) / (axis as f64 + 6.0)).collect();
    let total: f64 = variances.iter().sum();
    variances.into_iter().map(|variance| (variance / total).sqrt() as f32).collect()
}

fn shares(clusters: usize) -> Vec<f64> {
    let weights = (0..clusters).map(|rank| 1.0 / (rank as f64 + 10.0));
    let total: f64 = weights.clone().sum();
    let mut bounds: Vec<f64> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        })
        .collect();
    if let Some(last) = bounds.last_mut() {
        *last = 1.0;
    }
    bounds
}

/// Angles near 45 degrees, to either side: each turn then shares variance about evenly between its two coordinates.
fn turns(seed: u64, dim: usize) -> Vec<Vec<(f32, f32)>> {
    let mut draw = Draw::new(seed, "embeddings turns", 0);
    let mut angle = || {
        let (cos, sin) = (draw.between(0.7, 1.0), draw.between(0.7, 1.0));
        let sin = if draw.chance(0.5) { sin } else { -sin };
        let length = (cos * cos + sin * sin).sqrt();
        ((cos / length) as f32, (sin / length) as f32)
    };
    (0..dim.next_power_of_two().ilog2()).map(|_| (0..dim / 2).map(|_| angle()).collect()).collect()
}
