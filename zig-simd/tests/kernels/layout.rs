//! The packed layout written out once more, element by element, so that tests can choose codes and columns freely.

use megaring_core::aligned::AlignedBytes;
use megaring_core::screen::{CODE_BIAS, COLUMNS, GROUP_ROWS, QUAD, groups, packed_len, quads};

use crate::common::Random;

/// The four numbers that belong to a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) mul: f32,
    pub(crate) add: f32,
    pub(crate) e1: f32,
    pub(crate) e2: f32,
}

impl Column {
    /// Any that a bound may have.
    pub(crate) fn random(random: &mut Random) -> Self {
        Self {
            mul: 0.5 + random.unit().abs(),
            add: random.unit() * 0.1,
            e1: random.unit().abs(),
            e2: random.unit().abs(),
        }
    }
}

/// What a row has that fills up the last group.
pub(crate) const PADDING: Column = Column { mul: 0.0, add: f32::NEG_INFINITY, e1: 0.0, e2: 0.0 };

/// Row-major codes (`rows` x `dim`) as the screen reads them.
pub(crate) fn pack_codes(codes: &[i8], rows: usize, dim: usize) -> AlignedBytes {
    let mut packed = AlignedBytes::filled(packed_len(rows, dim), CODE_BIAS);
    for row in 0..rows {
        for i in 0..dim {
            let group = row / GROUP_ROWS * quads(dim) + i / QUAD;
            packed[(group * GROUP_ROWS + row % GROUP_ROWS) * QUAD + i % QUAD] =
                codes[row * dim + i].cast_unsigned() ^ CODE_BIAS;
        }
    }
    packed
}

/// Columns as the screen reads them, missing rows padded.
pub(crate) fn pack_columns(columns: &[Column]) -> Vec<f32> {
    let mut packed = vec![f32::NAN; groups(columns.len()) * GROUP_ROWS * COLUMNS];
    for row in 0..groups(columns.len()) * GROUP_ROWS {
        let Column { mul, add, e1, e2 } = columns.get(row).copied().unwrap_or(PADDING);
        for (column, value) in [mul, add, e1, e2].into_iter().enumerate() {
            packed[(row / GROUP_ROWS * COLUMNS + column) * GROUP_ROWS + row % GROUP_ROWS] = value;
        }
    }
    packed
}
