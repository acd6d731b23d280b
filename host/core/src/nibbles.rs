//! The int8 codes of a large segment in two halves: four bits of each element are often enough to rule a row out, and
//! half the bytes to read.
//!
//! A stored code byte b = code + 128 is 16·h + l with h and l in 0..=15. Taking every l for 8 gives the row
//!
//! ```text
//! x̂₄ = s·(16·h - 120),   e₄ = x - x̂₄ = (x - x̂) + s·(l - 8),   ‖e₄‖ ≤ ‖x - x̂‖ + s·‖l - 8‖
//! ```
//!
//! which is one more quantisation of x: the bound of [`screen`] holds for it as it stands, with ‖e₄‖ for ‖e‖. Its slack
//! covers the float32 roundings here too: they are relative to ‖q̂‖‖x̂₄‖ ≤ ‖q̂‖(‖x‖ + ‖e₄‖), and a·e1 and b·e2 each
//! hold [`SLACK`](screen::SLACK) of a part of that. A row that this bound does not rule out gets the int8 bound from
//! its low halves, since Σ d·c = Σ d·(16·h - 128) + Σ d·l.

use rayon::prelude::*;

use crate::aligned::AlignedBytes;
use crate::metric::Metric;
use crate::screen::{self, CodesView, GROUP_ROWS, QUAD, groups, quads};

/// The halves of a segment's codes, borrowed; together as many bytes as the codes.
#[derive(Debug, Clone, Copy)]
pub struct NibblesView<'a> {
    /// High halves, `[group][pair of quads][16 rows][4 elements]`, [`high_group`] bytes a group: the low four bits
    /// belong to the pair's first quad. Of an odd number of quads the last pair has no second one, and 0 for it.
    pub high: &'a [u8],
    /// Low halves, `[group][16 rows]` of [`half_row`] bytes: byte j of a row has element j in its low four bits and
    /// element j + [`half_row`] in the others.
    pub low: &'a [u8],
    /// ‖e₄‖ of each row, not rounded down.
    pub residual: &'a [f32],
}

impl NibblesView<'_> {
    /// [`screen::columns`] with ‖e₄‖ for ‖e‖: those of the bound by the high halves alone. `codes` are what was split.
    #[must_use]
    pub fn columns(&self, metric: Metric, codes: CodesView<'_>, norms2: &[f64]) -> Vec<f32> {
        screen::columns(metric, CodesView { residual: self.residual, ..codes }, norms2)
    }
}

/// The halves of a segment's codes, owned.
#[derive(Debug, Clone, Default)]
pub struct Nibbles {
    /// See [`NibblesView::high`].
    pub high: AlignedBytes,
    /// See [`NibblesView::low`].
    pub low: AlignedBytes,
    /// See [`NibblesView::residual`].
    pub residual: Vec<f32>,
}

/// Bytes of the low halves of one row of `dim` elements.
#[must_use]
pub fn half_row(dim: usize) -> usize {
    quads(dim) * QUAD / 2
}

/// Bytes of the high halves of one group of rows of `dim` elements.
#[must_use]
pub fn high_group(dim: usize) -> usize {
    quads(dim).div_ceil(2) * GROUP_ROWS * QUAD
}

impl Nibbles {
    /// Splits the codes of `rows` rows of `dim` elements.
    #[must_use]
    pub fn new(codes: CodesView<'_>, rows: usize, dim: usize) -> Self {
        let (quads, half, high_group) = (quads(dim), half_row(dim), high_group(dim));
        let mut high = AlignedBytes::zeroed(groups(rows) * high_group);
        let mut low = AlignedBytes::zeroed(groups(rows) * GROUP_ROWS * half);
        let mut residual = codes.residual.to_vec();
        if dim > 0 {
            codes
                .packed
                .par_chunks_exact(quads * GROUP_ROWS * QUAD)
                .zip(high.par_chunks_exact_mut(high_group))
                .zip(low.par_chunks_exact_mut(GROUP_ROWS * half))
                .zip(residual.par_chunks_mut(GROUP_ROWS).zip(codes.scale.par_chunks(GROUP_ROWS)))
                .with_min_len(64)
                .for_each_init(
                    || vec![0_u8; quads * QUAD],
                    |row, (((packed, high), low), (residual, scale))| {
                        split_high(packed, high);
                        for (lane, (residual, scale)) in residual.iter_mut().zip(scale).enumerate() {
                            split_low(packed, lane, row, &mut low[lane * half..][..half]);
                            let missing: u32 = row[..dim].iter().map(|low| u32::from(low.abs_diff(8)).pow(2)).sum();
                            let lost = f64::from(*scale) * f64::from(missing).sqrt();
                            *residual = ((f64::from(*residual) + lost) as f32).next_up();
                        }
                    },
                );
        }
        Self { high, low, residual }
    }

    /// Borrows the halves.
    #[must_use]
    pub fn view(&self) -> NibblesView<'_> {
        NibblesView { high: &self.high, low: &self.low, residual: &self.residual }
    }
}

/// The high halves of one group.
fn split_high(packed: &[u8], high: &mut [u8]) {
    const QUAD_BYTES: usize = GROUP_ROWS * QUAD;
    for (pair, out) in packed.chunks(2 * QUAD_BYTES).zip(high.chunks_exact_mut(QUAD_BYTES)) {
        let (first, second) = pair.split_at(QUAD_BYTES);
        for (out, first) in out.iter_mut().zip(first) {
            *out = first >> 4;
        }
        for (out, second) in out.iter_mut().zip(second) {
            *out |= second & 0xF0;
        }
    }
}

/// The low halves of one row of a group. `row` is room for one byte each.
fn split_low(packed: &[u8], lane: usize, row: &mut [u8], low: &mut [u8]) {
    let quads = packed.as_chunks::<{ GROUP_ROWS * QUAD }>().0;
    for (to, quad) in row.as_chunks_mut::<QUAD>().0.iter_mut().zip(quads) {
        *to = std::array::from_fn(|element| quad[lane * QUAD + element] & 15);
    }
    let (first, second) = row.split_at(low.len());
    for ((out, first), second) in low.iter_mut().zip(first).zip(second) {
        *out = first | second << 4;
    }
}
