//! The score of two vectors: eight strided float64 lanes, combined in one fixed order.

use rayon::prelude::*;

/// How two vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine of the angle, in [-1, 1]; larger is better.
    Cosine,
    /// Inner product; larger is better.
    Dot,
    /// Squared Euclidean distance; smaller is better.
    L2,
    /// Bits in which two rows differ; smaller is better.
    Hamming,
    /// Bits that both rows have over bits that either has, 1 where neither has any; larger is better.
    Jaccard,
}

impl Metric {
    /// All metrics of numbers, for tests that go through them.
    pub const OF_FLOATS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

    /// Whether a smaller score is better.
    pub fn is_distance(self) -> bool {
        matches!(self, Metric::L2 | Metric::Hamming)
    }

    /// The float64 score of `a` and `b` under this metric. Of bits, a value has 32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn score(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Metric::Cosine => cosine(a, b),
            Metric::Dot => dot(a, b),
            Metric::L2 => l2(a, b),
            Metric::Hamming => count_bits(a, b, |x, y| x != y),
            Metric::Jaccard => match count_bits(a, b, |x, y| x || y) {
                0.0 => 1.0,
                either => count_bits(a, b, |x, y| x && y) / either,
            },
        }
    }
}

/// Inner product: lane `j` sums the products at `i mod 8 = j` in rising order, from +0; the lanes are then added as
/// `((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7))`. Each product of two float32 values is exact in float64.
///
/// # Panics
/// If the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum_in_lanes(a, b, |x, y| x * y)
}

/// Squared Euclidean distance, the lanes of [`dot`] over `(a[i] - b[i])²`: the difference is rounded to float64, its
/// square is rounded again, then added.
///
/// # Panics
/// If the lengths differ.
pub fn l2(a: &[f32], b: &[f32]) -> f64 {
    sum_in_lanes(a, b, |x, y| {
        let difference = x - y;
        difference * difference
    })
}

/// Cosine: `dot(a,b) / sqrt(dot(a,a) · dot(b,b))`, clamped to [-1, 1], and 0 where a norm is 0.
///
/// # Panics
/// If the lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    cosine_of(dot(a, b), dot(a, a), dot(b, b))
}

/// Scores of all pairs, rounded to float32: entry `q * rows + r` for query `q` and row `r`.
///
/// # Panics
/// If `dim` is 0 or a length is not a multiple of it.
pub fn score(metric: Metric, queries: &[f32], rows: &[f32], dim: usize) -> Vec<f32> {
    let rows = Rows::new(metric, rows, dim);
    queries
        .par_chunks_exact(checked_dim(queries, dim))
        .flat_map_iter(|query| rows.scores(query))
        .map(|s| s as f32)
        .collect()
}

/// Rows with their squared norms, so that a search takes each once. The scores are those of [`Metric::score`].
pub(super) struct Rows<'a> {
    metric: Metric,
    dim: usize,
    values: &'a [f32],
    /// One squared norm per row under cosine, otherwise empty.
    norms2: Vec<f64>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(metric: Metric, values: &'a [f32], dim: usize) -> Rows<'a> {
        let rows = values.par_chunks_exact(checked_dim(values, dim));
        let norms2 = if metric == Metric::Cosine { rows.map(|row| dot(row, row)).collect() } else { Vec::new() };
        Rows { metric, dim, values, norms2 }
    }

    /// The score of `query` and each row, in row order.
    pub(super) fn scores(&self, query: &[f32]) -> Vec<f64> {
        let rows = self.values.chunks_exact(self.dim);
        match self.metric {
            Metric::Cosine => {
                let query_norm2 = dot(query, query);
                let scored = rows.zip(&self.norms2);
                scored.map(|(row, &row_norm2)| cosine_of(dot(query, row), query_norm2, row_norm2)).collect()
            }
            _ => rows.map(|row| self.metric.score(query, row)).collect(),
        }
    }
}

/// `dim`, checked against the length of a row-major matrix.
pub(super) fn checked_dim(values: &[f32], dim: usize) -> usize {
    assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values are not rows of {dim}", values.len());
    dim
}

/// How many bits of two rows, in the same place, are such a pair.
fn count_bits(a: &[f32], b: &[f32], counts: impl Fn(bool, bool) -> bool) -> f64 {
    assert_eq!(a.len(), b.len(), "rows of different lengths");
    let bit = |value: f32, at: u32| value.to_bits() >> at & 1 == 1;
    let places = a.iter().zip(b).flat_map(|(&x, &y)| (0..32).map(move |at| (bit(x, at), bit(y, at))));
    places.filter(|(x, y)| counts(*x, *y)).count() as f64
}

fn cosine_of(dot: f64, norm2_a: f64, norm2_b: f64) -> f64 {
    if norm2_a == 0.0 || norm2_b == 0.0 { 0.0 } else { (dot / (norm2_a * norm2_b).sqrt()).clamp(-1.0, 1.0) }
}

fn sum_in_lanes(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of different lengths");
    let mut l = [0.0f64; 8];
    // Whole groups of eight and the rest are separate only so that the compiler can keep the lanes in registers.
    let (a_groups, a_rest) = a.as_chunks::<8>();
    let (b_groups, b_rest) = b.as_chunks::<8>();
    for (x, y) in a_groups.iter().zip(b_groups) {
        for lane in 0..8 {
            l[lane] += term(f64::from(x[lane]), f64::from(y[lane]));
        }
    }
    for (lane, (&x, &y)) in a_rest.iter().zip(b_rest).enumerate() {
        l[lane] += term(f64::from(x), f64::from(y));
    }
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}
