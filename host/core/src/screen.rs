//! The int8 screen: codes a quarter the size of the rows, and a proven bound on what they lose.
//!
//! A row x is stored as x̂ = s·c with c in -127..=127 and s = max|x|/127; what that loses is e = x - x̂, and ‖e‖ is
//! computed, not estimated. A query q likewise is q̂ = t·d with f = q - q̂. Then
//!
//! ```text
//! q·x = q̂·x̂ + q̂·e + f·x,   so   |q·x - q̂·x̂| ≤ ‖q̂‖‖e‖ + ‖f‖‖x‖        (Cauchy-Schwarz)
//! ```
//!
//! and q̂·x̂ = t·s·Σ d·c is an exact integer sum but for three float32 roundings. The kernel works with a *goodness* g
//! of which larger is better, `g = (Σ d·c)·t·mul + add`, and the bound `a·e1 + b·e2`:
//!
//! | metric | t | mul | add | e1 | e2 | a | b |
//! |---|---|---|---|---|---|---|---|
//! | dot | t | s | 0 | ‖e‖ | ‖x‖ | ‖q̂‖ | ‖f‖ |
//! | cosine | t/‖q‖ | s/‖x‖ | 0 | ‖e‖/‖x‖ | 1 | ‖q̂‖/‖q‖ | ‖f‖/‖q‖ |
//! | l2, g = ‖q‖² - d² | t | 2s | -‖x‖² | 2‖e‖ | 2‖x‖ | ‖q̂‖ | ‖f‖ |
//!
//! A row may be a query too, of which a backend then has the codes already: its s, ‖e‖ and ‖x‖² are that query's t, ‖f‖
//! and ‖q‖². The CUDA kernel takes them from these columns (`row_params` in `query.cuh`), and relies on it that mul and
//! add are rounded to the nearest float32 and e1 is not rounded down.
//!
//! Roundings: g takes at most five float32 roundings, each of relative size u = 2⁻²⁴ on terms no larger than ‖q̂‖·2‖x‖
//! or ‖x‖²; [`SLACK`] = 2⁻¹⁸ on a, and on b through ‖q̂‖ (and, for l2, through the segment's largest norm), is over ten
//! times their sum. It also covers the float64 roundings of the exact score, except that of l2 for rows much shorter
//! than the query, which [`QueryScreen::slack`] adds.
//!
//! All this holds without overflow or underflow while norms lie within 2^±40 (or are 0). Rows outside that make their
//! segment *wild*, queries outside it are not screened, and both are answered by exact scores of every row.

use rayon::prelude::*;

use crate::aligned::AlignedBytes;
use crate::exact;
use crate::metric::Metric;
use crate::visible::Visible;

/// Rows that lie interleaved in one group.
pub const GROUP_ROWS: usize = 16;
/// Neighbouring elements of a row that stay together within a group.
pub const QUAD: usize = 4;
/// Columns of the screen: mul, add, e1, e2, 16 values each per group.
pub const COLUMNS: usize = 4;
/// Relative slack for float32 roundings (see the module's text).
pub const SLACK: f64 = 1.0 / (1 << 18) as f64;
/// Bias of a stored code: the byte is code + 128, so the first operand of a dot-product instruction can be unsigned. An
/// accumulator therefore starts at -128 · Σ d.
pub const CODE_BIAS: u8 = 128;

const TAME_NORM2: std::ops::RangeInclusive<f64> = tame_range();

const fn tame_range() -> std::ops::RangeInclusive<f64> {
    let two_80 = (1_u128 << 80) as f64;
    1.0 / two_80..=two_80
}

/// Whether a squared norm is within what float32 screens can bound.
#[must_use]
pub fn is_tame(norm2: f64) -> bool {
    norm2 == 0.0 || TAME_NORM2.contains(&norm2)
}

/// Groups that hold `rows` rows.
#[must_use]
pub fn groups(rows: usize) -> usize {
    rows.div_ceil(GROUP_ROWS)
}

/// Quads that hold `dim` elements.
#[must_use]
pub fn quads(dim: usize) -> usize {
    dim.div_ceil(QUAD)
}

/// Bytes of the packed codes: `[group][quad][16 rows][4 elements]`.
#[must_use]
pub fn packed_len(rows: usize, dim: usize) -> usize {
    groups(rows) * quads(dim) * GROUP_ROWS * QUAD
}

/// Codes of a segment, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct CodesView<'a> {
    /// [`packed_len`] bytes; missing rows and elements are [`CODE_BIAS`].
    pub packed: &'a [u8],
    /// s of each row.
    pub scale: &'a [f32],
    /// ‖e‖ of each row, rounded up.
    pub residual: &'a [f32],
    /// Whether some row's norm forbids screening the segment.
    pub wild: bool,
    /// The largest ‖x‖ of the segment.
    pub max_norm: f64,
}

/// Codes of a segment, owned.
#[derive(Debug, Clone, Default)]
pub struct RowCodes {
    /// See [`CodesView::packed`].
    pub packed: AlignedBytes,
    /// See [`CodesView::scale`].
    pub scale: Vec<f32>,
    /// See [`CodesView::residual`].
    pub residual: Vec<f32>,
    /// See [`CodesView::wild`].
    pub wild: bool,
    /// See [`CodesView::max_norm`].
    pub max_norm: f64,
}

impl RowCodes {
    /// Borrows the codes.
    #[must_use]
    pub fn view(&self) -> CodesView<'_> {
        CodesView {
            packed: &self.packed,
            scale: &self.scale,
            residual: &self.residual,
            wild: self.wild,
            max_norm: self.max_norm,
        }
    }
}

/// Canonical squared norm of each row; empty where `dim` is 0.
#[must_use]
pub fn norms2(rows: &[f32], dim: usize) -> Vec<f64> {
    if dim == 0 {
        return Vec::new();
    }
    rows.par_chunks_exact(dim).with_min_len(256).map(|row| exact::dot(row, row)).collect()
}

/// What the norms alone say of a segment: whether it is wild, and its largest norm.
#[must_use]
pub fn summary(norms2: &[f64]) -> (bool, f64) {
    let wild = norms2.iter().any(|n| !is_tame(*n));
    (wild, norms2.iter().copied().fold(0.0, f64::max).sqrt())
}

/// Codes of row-major values of width `dim`, with the rows' canonical squared norms.
#[must_use]
pub fn pack(rows: &[f32], dim: usize, norms2: &[f64]) -> RowCodes {
    let n = norms2.len();
    let quads = quads(dim);
    let mut packed = AlignedBytes::filled(packed_len(n, dim), CODE_BIAS);
    let mut scale = vec![0.0; n];
    let mut residual = vec![0.0; n];
    if dim > 0 {
        packed
            .par_chunks_exact_mut(quads * GROUP_ROWS * QUAD)
            .zip(rows.par_chunks(dim * GROUP_ROWS))
            .zip(scale.par_chunks_mut(GROUP_ROWS).zip(residual.par_chunks_mut(GROUP_ROWS)))
            .zip(norms2.par_chunks(GROUP_ROWS))
            .with_min_len(16)
            .for_each_init(
                || vec![0_i8; quads * QUAD],
                |codes, (((group, rows), (scale, residual)), norms2)| {
                    for (lane, row) in rows.chunks_exact(dim).enumerate() {
                        let quantised = quantise(row, norms2[lane], codes);
                        scale[lane] = quantised.scale;
                        residual[lane] = round_up(quantised.residual);
                        for (quad, four) in codes.as_chunks::<QUAD>().0.iter().enumerate() {
                            let at = (quad * GROUP_ROWS + lane) * QUAD;
                            group[at..at + QUAD].copy_from_slice(&four.map(|c| c.cast_unsigned() ^ CODE_BIAS));
                        }
                    }
                },
            );
    }
    let (wild, max_norm) = summary(norms2);
    RowCodes { packed, scale, residual, wild, max_norm }
}

/// The screen's columns for a metric: `[group][mul x16, add x16, e1 x16, e2 x16]`, rounded so that the bound holds.
/// Missing rows get `add` = -inf, which no threshold lets pass.
#[must_use]
pub fn columns(metric: Metric, codes: CodesView<'_>, norms2: &[f64]) -> Vec<f32> {
    let mut columns = vec![0.0_f32; groups(norms2.len()) * COLUMNS * GROUP_ROWS];
    for (group, block) in columns.as_chunks_mut::<{ COLUMNS * GROUP_ROWS }>().0.iter_mut().enumerate() {
        for lane in 0..GROUP_ROWS {
            let row = group * GROUP_ROWS + lane;
            let cells = match norms2.get(row) {
                Some(norm2) => row_columns(metric, f64::from(codes.scale[row]), f64::from(codes.residual[row]), *norm2),
                None => PADDING,
            };
            put(block, lane, cells);
        }
    }
    columns
}

/// The same of rows of bits: nothing but which of them are there.
#[must_use]
pub fn columns_of_bits(rows: usize) -> Vec<f32> {
    let mut columns = vec![0.0_f32; groups(rows) * COLUMNS * GROUP_ROWS];
    if let Some(block) = columns.as_chunks_mut::<{ COLUMNS * GROUP_ROWS }>().0.last_mut() {
        (0..GROUP_ROWS).skip((rows - 1) % GROUP_ROWS + 1).for_each(|lane| put(block, lane, PADDING));
    }
    columns
}

/// Columns of a row that is none: no threshold lets it pass.
const PADDING: [f32; COLUMNS] = [0.0, f32::NEG_INFINITY, 0.0, 0.0];

fn put(block: &mut [f32; COLUMNS * GROUP_ROWS], lane: usize, cells: [f32; COLUMNS]) {
    for (column, cell) in cells.into_iter().enumerate() {
        block[column * GROUP_ROWS + lane] = cell;
    }
}

/// Makes padding of the hidden rows in columns of whole groups.
pub fn hide(columns: &mut [f32], visible: &Visible) {
    for (group, block) in columns.as_chunks_mut::<{ COLUMNS * GROUP_ROWS }>().0.iter_mut().enumerate() {
        let mut hidden = !visible.group(group);
        while hidden != 0 {
            put(block, hidden.trailing_zeros() as usize, PADDING);
            hidden &= hidden - 1;
        }
    }
}

fn row_columns(metric: Metric, scale: f64, residual: f64, norm2: f64) -> [f32; COLUMNS] {
    let norm = norm2.sqrt();
    match metric {
        Metric::Dot => [scale as f32, 0.0, round_up(residual), round_up(norm)],
        Metric::Cosine if norm == 0.0 => [0.0; COLUMNS],
        Metric::Cosine => [(scale / norm) as f32, 0.0, round_up(residual / norm), 1.0],
        Metric::L2 => [(2.0 * scale) as f32, -norm2 as f32, round_up(2.0 * residual), round_up(2.0 * norm)],
        // No codes are made of bits.
        Metric::Hamming | Metric::Jaccard => PADDING,
    }
}

/// A query made ready for the screen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryScreen {
    /// t (over ‖q‖ for cosine): factor of the integer sum.
    pub scale: f32,
    /// Coefficient of column e1.
    pub a: f32,
    /// Coefficient of column e2.
    pub b: f32,
    /// Absolute part of the bound, in units of g: what a·e1 + b·e2 does not cover.
    pub slack: f64,
}

impl QueryScreen {
    /// Quantises a query into `codes`, one for each element. `max_norm` is the largest row norm that will be met.
    /// `None` means the query cannot be screened: its norm is 0 or out of range.
    #[must_use]
    pub fn new(metric: Metric, query: &[f32], max_norm: f64, codes: &mut [i8]) -> Option<Self> {
        Self::of(metric, &quantise(query, exact::dot(query, query), codes), max_norm)
    }

    /// [`Self::new`] of a query that has its codes.
    #[must_use]
    pub fn of(metric: Metric, quantised: &Quantised, max_norm: f64) -> Option<Self> {
        let (norm2, coded) = (quantised.norm2, quantised.coded_norm);
        if norm2 == 0.0 || !is_tame(norm2) {
            return None;
        }
        let unit = if metric == Metric::Cosine { norm2.sqrt() } else { 1.0 };
        let short = if metric == Metric::L2 { SLACK * max_norm } else { 0.0 };
        Some(Self {
            scale: (f64::from(quantised.scale) / unit) as f32,
            a: round_up(coded * (1.0 + SLACK) / unit),
            b: round_up((quantised.residual + SLACK * coded) / unit + short),
            slack: if metric == Metric::L2 { Self::l2_slack(norm2) } else { 0.0 },
        })
    }

    /// Absolute part of l2's bound for a query of this squared norm.
    #[must_use]
    pub fn l2_slack(norm2: f64) -> f64 {
        norm2 * L2_SLACK
    }
}

/// (n + 3)·2⁻⁵³ for n up to 32,768 elements, doubled: relative rounding of a canonical squared distance.
const L2_SLACK: f64 = 1.0 / (1_u64 << 36) as f64;

/// What a vector's codes lose of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantised {
    norm2: f64,
    scale: f32,
    /// ‖x - s·c‖, not rounded down.
    residual: f64,
    /// ‖s·c‖, not rounded down.
    coded_norm: f64,
}

impl Quantised {
    /// Of a vector's canonical squared norm, its scale s and the sums of (x - s·c)² and of (s·c)², which float64
    /// additions in any order may make.
    #[must_use]
    pub fn new(norm2: f64, scale: f32, lost: f64, kept: f64) -> Self {
        let up = 1.0 + 1e-9;
        Self { norm2, scale, residual: lost.sqrt() * up, coded_norm: kept.sqrt() * up }
    }

    /// The vector's canonical squared norm.
    #[must_use]
    pub fn norm2(&self) -> f64 {
        self.norm2
    }
}

/// Codes of one vector. Wild or zero vectors get all zeros and scale 0.
fn quantise(values: &[f32], norm2: f64, codes: &mut [i8]) -> Quantised {
    codes.fill(0);
    if norm2 == 0.0 || !is_tame(norm2) {
        return Quantised::new(norm2, 0.0, norm2, 0.0);
    }
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let scale = largest / 127.0;
    let inverse = 127.0 / largest;
    let (mut lost, mut kept) = (0.0_f64, 0.0_f64);
    for (value, code) in values.iter().zip(codes) {
        let rounded = round_to_int(value * inverse);
        *code = rounded as i8;
        let coded = f64::from(scale) * f64::from(rounded);
        let rest = f64::from(*value) - coded;
        lost += rest * rest;
        kept += coded * coded;
    }
    Quantised::new(norm2, scale, lost, kept)
}

/// Nearest integer of a value within ±127.5, through the mantissa: vectorises on every instruction set.
fn round_to_int(value: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: the unit in the last place is 1
    ((value + MAGIC).to_bits().cast_signed() - MAGIC.to_bits().cast_signed()).clamp(-127, 127)
}

/// The smallest float32 not below `value` (one more than needed where it is exact).
fn round_up(value: f64) -> f32 {
    (value as f32).next_up()
}
