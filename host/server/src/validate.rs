//! Step 2, validation: what the [calls](crate::call) share when a wire message becomes a job, or an error that names
//! the field as the wire has it and the row.
//!
//! Nothing behind validation looks at wire messages, and nothing before it trusts one. Every length is compared before
//! a byte is read, with arithmetic that cannot overflow; every value is checked to be finite. An empty batch is legal
//! and keeps the type and dimension of an empty `Vectors` unread.

use megaring_core::corpus::CorpusView;
use megaring_core::nearest::{AXES, MAX_COORDINATE, is_coordinate};
use megaring_core::{BackendKind, Element, Error, Metric, RowType};
use megaring_proto::v1 as pb;

mod explain;
mod filter;
mod rows;
mod terms;
mod vectors;

pub use explain::explain;
pub(crate) use explain::{any_operation, operation_name};
pub(crate) use filter::id_lists;
pub use filter::selection;
pub use rows::rows;
pub use terms::{MAX_TENANT_BYTES, TENANT, printable, timeout};
pub use vectors::{vector_bytes, vectors};

/// The axes of a point, in order.
const AXIS_NAMES: [&str; AXES] = ["x", "y", "z", "w", "v"];

/// The backend a request forces, if any.
///
/// # Errors
/// [`Error::Invalid`] for a number that is no backend.
pub fn backend(number: i32) -> Result<Option<BackendKind>, Error> {
    match pb::Backend::try_from(number) {
        Ok(pb::Backend::Unspecified) => Ok(None),
        Ok(pb::Backend::Cpu) => Ok(Some(BackendKind::Cpu)),
        Ok(pb::Backend::Cuda) => Ok(Some(BackendKind::Cuda)),
        Ok(pb::Backend::Wgpu) => Ok(Some(BackendKind::Wgpu)),
        Err(_) => Err(Error::field("backend", format!("{number} is no backend"))),
    }
}

/// How the rows of a corpus compare.
///
/// # Errors
/// [`Error::Invalid`] for a number that is no metric, and for one that does not compare such rows.
pub fn metric(number: i32, corpus: &CorpusView) -> Result<Metric, Error> {
    let asked = match pb::Metric::try_from(number) {
        Ok(pb::Metric::Unspecified) => None,
        Ok(pb::Metric::Cosine) => Some(Metric::Cosine),
        Ok(pb::Metric::Dot) => Some(Metric::Dot),
        Ok(pb::Metric::L2) => Some(Metric::L2),
        Ok(pb::Metric::Hamming) => Some(Metric::Hamming),
        Ok(pb::Metric::Jaccard) => Some(Metric::Jaccard),
        Err(_) => return Err(Error::field("metric", format!("{number} is no metric"))),
    };
    corpus.row_type().metric(asked)
}

/// What the rows of a new corpus are.
///
/// # Errors
/// [`Error::Invalid`] for a type that no corpus has.
pub fn row_type(dtype: i32, dim: u32) -> Result<RowType, Error> {
    let element = match pb::Dtype::try_from(dtype) {
        Ok(pb::Dtype::Unspecified | pb::Dtype::Float32) => Element::Float32,
        Ok(pb::Dtype::Bit) => Element::Bit,
        Ok(other) => {
            let name = other.as_str_name();
            return Err(Error::field("dtype", format!("{name}; rows are kept as DTYPE_FLOAT32 or DTYPE_BIT")));
        }
        Err(_) => return Err(Error::field("dtype", format!("{dtype} is no element type"))),
    };
    Ok(RowType { element, dim: dim as usize })
}

/// Answers wanted of each query.
///
/// # Errors
/// [`Error::Invalid`] for none.
pub fn at_least_one_answer(k: u32) -> Result<usize, Error> {
    match k {
        0 => Err(Error::field("k", "0 answers are asked for; ask for at least 1")),
        k => Ok(k as usize),
    }
}

/// Bytes of row numbers.
pub(crate) fn row_bytes(rows: Option<&pb::RowNumbers>) -> usize {
    rows.map_or(0, |rows| rows.numbers.len() * size_of::<u32>())
}

/// Row numbers that `corpus` has. `field` is what they are called in the request.
pub(crate) fn row_numbers(field: &str, rows: pb::RowNumbers, corpus: &CorpusView) -> Result<Vec<u32>, Error> {
    match rows.numbers.iter().position(|row| !corpus.shows(*row)) {
        Some(at) => {
            let is_there = (rows.numbers[at] as usize) < corpus.rows();
            let none = || format!("no such row; the corpus has {}", corpus.rows());
            let text = if is_there { "the row is deleted".to_owned() } else { none() };
            Err(Error::row(format!("{field}.numbers"), at as u64, text))
        }
        None => Ok(rows.numbers),
    }
}

/// Points out of flat numbers, five each.
pub(crate) fn points(field: &str, flat: &[f64]) -> Result<Vec<[f64; AXES]>, Error> {
    let (points, rest) = flat.as_chunks::<AXES>();
    if !rest.is_empty() {
        return Err(Error::field(field, format!("{} numbers; a point has five", flat.len())));
    }
    if let Some(at) = flat.iter().position(|value| !is_coordinate(*value)) {
        let (axis, value) = (AXIS_NAMES[at % AXES], flat[at]);
        let text = format!("{axis} is {value:e}; every number must be finite, and within ±{MAX_COORDINATE:e}");
        return Err(Error::row(field, (at / AXES) as u64, text));
    }
    Ok(points.to_vec())
}

/// The refusal of a number that is not finite.
pub(crate) fn not_finite_field(field: &str, value: f64) -> Error {
    Error::field(field, format!("{value}; the number must be finite"))
}
