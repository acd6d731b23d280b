//! The definition of a score: float64, 8 strided lanes, one order of additions. Whatever device did the work, the
//! answer is the one this module gives.
//!
//! Lane j of 8 takes the elements i with i mod 8 = j in rising order; the lanes combine as `((l0+l4)+(l2+l6)) +
//! ((l1+l5)+(l3+l7))`. A product of two float32 values is exact in float64, so a fused multiply-add gives the same sum
//! as a separate one. A squared difference is not exact, so l2 must not be contracted; Rust never contracts.
//!
//! Vectorised twins of [`dot`] and [`l2`] live in zig-simd and must return the same bits; [`ExactKernel`] is how
//! rescoring reaches them without this crate knowing.
//!
//! Rows of bits ([`Overlap`]) are counted, which is exact in any order.

use bytemuck::{Pod, Zeroable};

use crate::metric::Metric;

/// Sum of products in the canonical order. Slices of different length count as cut to the shorter.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    lanes(a, b, |x, y| x * y)
}

/// Squared Euclidean distance in the canonical order.
#[must_use]
pub fn l2(a: &[f32], b: &[f32]) -> f64 {
    lanes(a, b, |x, y| (x - y) * (x - y))
}

/// Cosine from a dot product and two squared norms, `dot / sqrt(norm2_a * norm2_b)`: 0 where one is 0, else within
/// [-1, 1].
///
/// Exactly 1 for equal vectors, whose dot product is the squared norm: the root of a square that was rounded once is
/// the number squared. Squared norms are 0 or from 2^-298 to 2^271 (32,768 elements of float32), so that their product
/// keeps all its digits.
#[must_use]
pub fn cosine(dot: f64, norm2_a: f64, norm2_b: f64) -> f64 {
    if norm2_a == 0.0 || norm2_b == 0.0 { 0.0 } else { (dot / (norm2_a * norm2_b).sqrt()).clamp(-1.0, 1.0) }
}

/// What two rows of bits have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Overlap {
    /// Bits that both have.
    pub both: u32,
    /// Bits that either has.
    pub either: u32,
}

impl Overlap {
    /// Of two rows, as words of 32 bits. Slices of different length count as cut to the shorter.
    #[must_use]
    pub fn of(a: &[f32], b: &[f32]) -> Self {
        a.iter().zip(b).map(|(a, b)| (a.to_bits(), b.to_bits())).fold(Self::default(), |sum, (a, b)| Self {
            both: sum.both + (a & b).count_ones(),
            either: sum.either + (a | b).count_ones(),
        })
    }

    /// In how many bits the rows differ.
    #[must_use]
    pub fn hamming(self) -> f64 {
        f64::from(self.either - self.both)
    }

    /// The share of bits that either has which both have: 1 where neither has any, so that equal rows score 1.
    ///
    /// Two shares that differ do so by at least 2^-30, those of 32,768 bits, so that rounding keeps their order.
    #[must_use]
    pub fn jaccard(self) -> f64 {
        if self.either == 0 { 1.0 } else { f64::from(self.both) / f64::from(self.either) }
    }

    /// The score under a metric of bits; under any other, the Hamming distance.
    #[must_use]
    pub fn score(self, metric: Metric) -> f64 {
        if metric == Metric::Jaccard { self.jaccard() } else { self.hamming() }
    }
}

/// The score as replies carry it: rounded to float32. One beyond float32's range becomes the largest number of its
/// sign, so that no finite input answers an infinity; the float64 score still orders.
#[must_use]
pub fn reported(score: f64) -> f32 {
    (score as f32).clamp(f32::MIN, f32::MAX)
}

/// The squared norm of the cosine's definition: `dot(a, a)`.
#[must_use]
pub fn norm2(a: &[f32]) -> f64 {
    dot(a, a)
}

/// The score by definition. Slow and plain; what everything else must equal.
#[must_use]
pub fn score(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    match metric {
        Metric::Dot => dot(a, b),
        Metric::Cosine => cosine(dot(a, b), norm2(a), norm2(b)),
        Metric::L2 => l2(a, b),
        Metric::Hamming | Metric::Jaccard => Overlap::of(a, b).score(metric),
    }
}

fn lanes(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let n = a.len().min(b.len());
    let (a8, a_tail) = a[..n].as_chunks::<8>();
    let (b8, b_tail) = b[..n].as_chunks::<8>();
    let mut l = [0.0_f64; 8];
    for (x, y) in a8.iter().zip(b8) {
        for j in 0..8 {
            l[j] += term(f64::from(x[j]), f64::from(y[j]));
        }
    }
    for (lane, (x, y)) in l.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane += term(f64::from(*x), f64::from(*y));
    }
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// Scores one query against gathered rows, bit for bit as [`dot`] and [`l2`] do.
///
/// `rows` is row-major float32 of width `query.len()`; `out[i]` belongs to row `ids[i]`. Ids are within `rows`, and
/// `ids` and `out` are of one length.
pub trait ExactKernel: Send + Sync {
    /// Canonical dot products.
    fn dot(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]);
    /// Canonical squared distances.
    fn l2(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]);
    /// What rows of bits, as words, have in common.
    fn overlap(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [Overlap]);
}

/// The definition itself as a kernel: for tests, and where no SIMD copy exists.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScalarKernel;

impl ExactKernel for ScalarKernel {
    fn dot(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]) {
        gather(query, rows, ids, out, dot);
    }

    fn l2(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f64]) {
        gather(query, rows, ids, out, l2);
    }

    fn overlap(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [Overlap]) {
        gather(query, rows, ids, out, Overlap::of);
    }
}

fn gather<T>(query: &[f32], rows: &[f32], ids: &[u32], out: &mut [T], score: fn(&[f32], &[f32]) -> T) {
    let dim = query.len();
    for (id, out) in ids.iter().zip(out) {
        let start = *id as usize * dim;
        *out = score(query, &rows[start..start + dim]);
    }
}
