//! SafeTensors: a header in JSON that names tensors with type, shape and place, and their bytes behind it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use serde_json::Value;

use super::array::Shape;
use super::input::Input;
use super::kinds::KINDS;
use super::lost;
use super::selection::Columns;
use crate::fault::Fault;

/// Longest header, which is also the format's own limit.
const MAX_HEADER: u64 = 100_000_000;
/// A key of the header that is no tensor's.
const METADATA: &str = "__metadata__";

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    /// First byte and the one behind the last, counted from the header's end.
    data_offsets: [u64; 2],
}

/// Reads up to the values of the tensor that has the vectors: the one asked for, else `embedding`, else the only one of
/// two axes.
pub(super) fn read(input: &mut Input, columns: &Columns) -> Result<Shape, Fault> {
    let tensors = read_header(input)?;
    let name = columns.matrix(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.len())))?;
    let tensor = &tensors[name];
    let wrong = |reason: String| Fault::column(name, reason);
    let kind = KINDS.into_iter().find(|kind| kind.tensor == tensor.dtype);
    let kind = kind.ok_or_else(|| wrong(format!("its type is {}, which is not known here", tensor.dtype)))?;
    let &[rows, dim] = tensor.shape.as_slice() else {
        return Err(wrong(format!("its shape is {:?}; wanted are two axes, (rows, elements)", tensor.shape)));
    };
    let [start, end] = tensor.data_offsets;
    let bytes = rows.checked_mul(dim).and_then(|values| values.checked_mul(kind.size));
    if end.checked_sub(start) != bytes.map(|bytes| bytes as u64) {
        return Err(wrong(format!("its shape ({rows}, {dim}) does not fit its bytes {start} to {end}")));
    }
    let skipped = io::copy(&mut input.take(start), &mut io::sink()).map_err(|error| lost(&error))?;
    if skipped != start {
        return Err(Fault::file("it is truncated"));
    }
    Ok(Shape { kind, is_swapped: false, rows, dim, start: None })
}

fn read_header(input: &mut Input) -> Result<BTreeMap<String, Tensor>, Fault> {
    let none = |reason: String| Fault::file(format!("it is no SafeTensors file: {reason}"));
    let mut length = [0; 8];
    input.read_exact(&mut length).map_err(|error| lost(&error))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(none(format!("its header claims {length} bytes")));
    }
    let mut header = Vec::new();
    input.take(length).read_to_end(&mut header).map_err(|error| lost(&error))?;
    let mut header: BTreeMap<String, Value> =
        serde_json::from_slice(&header).map_err(|error| none(format!("its header is no JSON object: {error}")))?;
    header.remove(METADATA);
    let tensor = |(name, value): (String, Value)| match Tensor::deserialize(value) {
        Ok(tensor) => Ok((name, tensor)),
        Err(error) => Err(Fault::column(&name, format!("its header is wrong: {error}"))),
    };
    header.into_iter().map(tensor).collect()
}
