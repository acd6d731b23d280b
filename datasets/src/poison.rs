//! Inputs that must be refused, and legal ones that break careless code.
//!
//! Each helper names what is wrong with its result. Matrices that are legal but hard (zero rows, huge, tiny, constant,
//! repeated rows) are here too: they must be answered, exactly.

use crate::Matrix;
use crate::npy;

/// The float32 values that are no numbers: quiet NaN, negative NaN, both infinities.
pub const NON_FINITE: [f32; 4] = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// A copy of `matrix` with `value` at `(row, column)`.
///
/// # Panics
/// If there is no such place.
pub fn with_value(matrix: &Matrix, row: usize, column: usize, value: f32) -> Matrix {
    assert!(row < matrix.rows && column < matrix.dim, "no place ({row}, {column})");
    let mut poisoned = matrix.clone();
    poisoned.values[row * matrix.dim + column] = value;
    poisoned
}

/// A copy of `matrix` with a NaN in the middle of row `row`.
///
/// # Panics
/// If there is no such row, or the rows are empty.
pub fn nan_in_row(matrix: &Matrix, row: usize) -> Matrix {
    with_value(matrix, row, matrix.dim / 2, f32::NAN)
}

/// A copy of `matrix` with +inf as the last value of row `row`.
///
/// # Panics
/// If there is no such row, or the rows are empty.
pub fn infinity_in_row(matrix: &Matrix, row: usize) -> Matrix {
    with_value(matrix, row, matrix.dim.saturating_sub(1), f32::INFINITY)
}

/// A copy of `matrix` with row `row` all zero (legal: cosine is 0).
///
/// # Panics
/// If there is no such row.
pub fn zero_row(matrix: &Matrix, row: usize) -> Matrix {
    assert!(row < matrix.rows, "no row {row}");
    let mut zeroed = matrix.clone();
    zeroed.values[row * matrix.dim..][..matrix.dim].fill(0.0);
    zeroed
}

/// Legal values around ±1e38: float32 sums and products of them overflow, float64 ones do not.
pub fn huge(rows: usize, dim: usize) -> Matrix {
    alternating(rows, dim, 1e38)
}

/// Legal subnormal values around ±1e-40: their float32 products are 0, and flushing them to zero changes the cosine.
pub fn tiny(rows: usize, dim: usize) -> Matrix {
    alternating(rows, dim, 1e-40)
}

/// Every value of every row is `value` (legal: all rows tie).
pub fn constant(rows: usize, dim: usize, value: f32) -> Matrix {
    Matrix { rows, dim, values: vec![value; rows * dim] }
}

/// `matrix` followed by itself `times - 1` times (legal: each score ties `times` times). 0 times is empty.
pub fn duplicated(matrix: &Matrix, times: usize) -> Matrix {
    Matrix { rows: matrix.rows * times, dim: matrix.dim, values: matrix.values.repeat(times) }
}

/// Rows whose products cancel: 1e8, 1, -1e8, 1, … A float32 sum loses the ones; `dot` with a row of ones is half `dim`
/// (of a multiple of four).
pub fn cancelling(rows: usize, dim: usize) -> Matrix {
    let values = (0..rows * dim).map(|index| [1e8, 1.0, -1e8, 1.0][(index % dim.max(1)) % 4]).collect();
    Matrix { rows, dim, values }
}

/// `.npy` files that must be refused, each with the name of its fault. Apart from the fault they hold a 4 x 8 matrix.
pub fn npy_files() -> Vec<(&'static str, Vec<u8>)> {
    let good = npy::write(&constant(4, 8, 0.5));
    let with = |header: Vec<u8>, body: usize| [header, vec![0; body]].concat();
    let with_byte = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] = byte;
        file
    };
    vec![
        ("fortran order", with(npy::header("<f4", true, "(4, 8)"), 128)),
        ("big endian", with(npy::header(">f4", false, "(4, 8)"), 128)),
        ("float64", with(npy::header("<f8", false, "(4, 8)"), 256)),
        ("int32", with(npy::header("<i4", false, "(4, 8)"), 128)),
        ("python objects", with(npy::header("|O", false, "(4, 8)"), 128)),
        ("no dimension", with(npy::header("<f4", false, "()"), 4)),
        ("one dimension", with(npy::header("<f4", false, "(32,)"), 128)),
        ("three dimensions", with(npy::header("<f4", false, "(4, 4, 2)"), 128)),
        ("negative shape", with(npy::header("<f4", false, "(-4, 8)"), 128)),
        ("shape that overflows", with(npy::header("<f4", false, "(4611686018427387904, 4611686018427387904)"), 128)),
        ("one byte short", good[..good.len() - 1].to_vec()),
        ("one row short", good[..good.len() - 32].to_vec()),
        ("one byte over", [good.as_slice(), &[0]].concat()),
        ("header cut", good[..40].to_vec()),
        ("magic alone", good[..6].to_vec()),
        ("empty file", Vec::new()),
        ("wrong magic", with_byte(0, 0x92)),
        ("unknown version", with_byte(6, 9)),
        ("header length past the end", with_byte(9, 0xff)),
    ]
}

/// JSON lines of memories that must be refused, each with the name of its fault. The fault is on line 2 of 3.
pub fn json_lines() -> Vec<(&'static str, Vec<u8>)> {
    let faults: [(&str, &[u8]); 8] = [
        ("invalid utf-8", b"{\"memory_id\": 2, \"title\": \"t\", \"content\": \"broken \xff\xfe byte\"}"),
        ("cut utf-8", b"{\"memory_id\": 2, \"title\": \"t\", \"content\": \"cut \xe2\x82\"}"),
        ("lone surrogate", br#"{"memory_id": 2, "title": "t", "content": "\ud800"}"#),
        ("cut line", br#"{"memory_id": 2, "title": "t", "content": "#),
        ("no object", b"[1, 2, 3]"),
        ("negative id", br#"{"memory_id": -2, "title": "t", "content": "c"}"#),
        ("content is a number", br#"{"memory_id": 2, "title": "t", "content": 7}"#),
        ("NaN literal", br#"{"memory_id": 2, "title": "t", "content": "c", "importance": NaN}"#),
    ];
    let first: &[u8] = br#"{"memory_id": 1, "title": "t", "content": "good"}"#;
    let last: &[u8] = br#"{"memory_id": 3, "title": "t", "content": "good"}"#;
    faults.into_iter().map(|(name, fault)| (name, [first, fault, last, b""].join(&b'\n'))).collect()
}

fn alternating(rows: usize, dim: usize, magnitude: f32) -> Matrix {
    let value = |index: usize| {
        let sign = if index.is_multiple_of(3) { -1.0 } else { 1.0 };
        sign * magnitude * (1.0 + (index % 7) as f32 / 4.0)
    };
    Matrix { rows, dim, values: (0..rows * dim).map(value).collect() }
}
