//! Vectors off the wire: length, type and dimension first, then one pass that decodes and one that looks for non-finite
//! values.

use megaring_core::error::first_non_finite;
use megaring_core::matrix::{MAX_DIM, Matrix};
use megaring_core::{Dtype, Element, Error, RowType};
use megaring_proto::v1 as pb;

/// The matrix that `vectors` stands for, in a corpus of a type. `field` is its name in the request.
///
/// # Errors
/// [`Error::Invalid`] naming `field` and the part of it, and the row for a value that is not finite.
pub fn vectors(field: &str, vectors: Option<pb::Vectors>, row_type: RowType) -> Result<Matrix, Error> {
    let Some(vectors) = vectors else { return Ok(no_vectors(row_type)) };
    let part = |name: &str| format!("{field}.{name}");
    if vectors.rows == 0 {
        return match vectors.data.len() {
            0 => Ok(no_vectors(row_type)),
            bytes => Err(Error::field(part("data"), format!("{bytes} bytes where 0 rows are 0 bytes"))),
        };
    }
    let dtype = dtype(vectors.dtype).map_err(|text| Error::field(part("dtype"), text))?;
    if dtype.row_type(row_type.dim) != row_type {
        let text = format!("{} elements where the corpus has {}", name(dtype), row_type.element);
        return Err(Error::field(part("dtype"), text));
    }
    let scale = scale(dtype, vectors.int8_scale).map_err(|text| Error::field(part("int8_scale"), text))?;
    check_dim(vectors.dim, row_type.dim).map_err(|text| Error::field(part("dim"), text))?;
    let expected = u128::from(vectors.rows) * dtype.row_bytes(row_type.dim) as u128;
    if vectors.data.len() as u128 != expected {
        let found = vectors.data.len();
        let shape = format!("{} rows of {} {} elements", vectors.rows, vectors.dim, name(dtype));
        return Err(Error::field(part("data"), format!("{found} bytes where {shape} are {expected} bytes")));
    }
    let dim = row_type.width();
    let values = dtype.decode(&vectors.data, row_type.dim, scale);
    if row_type.element == Element::Float32
        && let Some((row, column, value)) = first_non_finite(&values, dim)
    {
        let text = format!("column {column} is {value}; every value must be finite");
        return Err(Error::row(part("data"), row as u64, text));
    }
    Ok(Matrix { rows: vectors.rows as usize, dim, values })
}

/// Bytes of their elements.
#[must_use]
pub fn vector_bytes(vectors: Option<&pb::Vectors>) -> usize {
    vectors.map_or(0, |vectors| vectors.data.len())
}

/// None, which still have a dimension.
fn no_vectors(row_type: RowType) -> Matrix {
    Matrix { rows: 0, dim: row_type.width(), values: Vec::new() }
}

/// The element types, for messages.
const KNOWN: &str = "float32, float16, bfloat16, int8 and bits";

fn dtype(number: i32) -> Result<Dtype, String> {
    match pb::Dtype::try_from(number) {
        Ok(pb::Dtype::Float32) => Ok(Dtype::Float32),
        Ok(pb::Dtype::Float16) => Ok(Dtype::Float16),
        Ok(pb::Dtype::Bfloat16) => Ok(Dtype::Bfloat16),
        Ok(pb::Dtype::Int8) => Ok(Dtype::Int8),
        Ok(pb::Dtype::Bit) => Ok(Dtype::Bit),
        Ok(pb::Dtype::Unspecified) => Err(format!("no element type is given; {KNOWN} are known")),
        Err(_) => Err(format!("{number} is no element type; {KNOWN} are known")),
    }
}

fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Float32 => "float32",
        Dtype::Float16 => "float16",
        Dtype::Bfloat16 => "bfloat16",
        Dtype::Int8 => "int8",
        Dtype::Bit => "bit",
    }
}

fn scale(dtype: Dtype, scale: Option<f32>) -> Result<f32, String> {
    match (dtype, scale) {
        (Dtype::Int8, None) => Err("int8 needs a scale".into()),
        (Dtype::Int8, Some(scale)) if scale.is_finite() && scale > 0.0 => Ok(scale),
        (Dtype::Int8, Some(scale)) => Err(format!("{scale}; finite and above 0 is legal")),
        (_, None) => Ok(1.0),
        (dtype, Some(_)) => Err(format!("a scale belongs to int8, and the elements are {}", name(dtype))),
    }
}

fn check_dim(found: u32, expected: usize) -> Result<(), String> {
    match found as usize {
        0 => Err(format!("0 elements; 1 to {MAX_DIM} are legal")),
        dim if dim > MAX_DIM => Err(format!("{dim} elements; 1 to {MAX_DIM} are legal")),
        dim if dim != expected => Err(format!("{dim} elements where the corpus has {expected}")),
        _ => Ok(()),
    }
}
