//! A file that is one matrix: a header, and then the values row by row. What differs is the header.

use std::io::{BufRead, Read};

use megaring_core::Error;
use megaring_core::error::first_non_finite;
use megaring_core::matrix::{MAX_DIM, Matrix};

use super::input::Input;
use super::kinds::Kind;
use super::{Bad, Chunk, Source, chunk_rows, lost};
use crate::columns::EMBEDDING;
use crate::fault::{Fault, not_finite};
use crate::rows::Rows;

/// What a header says.
pub(super) struct Shape {
    pub(super) kind: &'static Kind,
    /// Whether each value's bytes come in big-endian order.
    pub(super) is_swapped: bool,
    pub(super) rows: usize,
    pub(super) dim: usize,
    /// Bytes before the first value, where the file ends with the last value; else something may follow it.
    pub(super) start: Option<u64>,
}

/// A matrix being read.
pub(super) struct Array {
    input: Input,
    shape: Shape,
    row: usize,
}

impl Array {
    /// `header` reads up to the first value.
    pub(super) fn open(
        mut input: Input,
        header: impl FnOnce(&mut Input) -> Result<Shape, Fault>,
    ) -> Result<Self, Error> {
        match header(&mut input).and_then(|shape| shape.checked(&input)) {
            Ok(shape) => Ok(Self { input, shape, row: 0 }),
            Err(fault) => Err(fault.into_invalid(input.name())),
        }
    }
}

impl Shape {
    fn checked(self, input: &Input) -> Result<Self, Fault> {
        let Self { kind, rows, dim, start, .. } = self;
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(Fault::file(format!("its vectors have {dim} elements; 1 to {MAX_DIM} are possible")));
        }
        let wanted = (rows as u64).checked_mul(dim as u64).and_then(|n| n.checked_mul(kind.size as u64));
        let has = start.and_then(|start| Some(input.plain_bytes()?.saturating_sub(start)));
        match has {
            Some(has) if wanted != Some(has) => Err(Fault::file(format!(
                "shape ({rows}, {dim}) does not fit the {has} bytes behind the header; is it truncated?"
            ))),
            _ => Ok(self),
        }
    }
}

impl Source for Array {
    fn dim(&self) -> Option<usize> {
        Some(self.shape.dim)
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let Shape { kind, is_swapped, rows, dim, start } = self.shape;
        let count = chunk_rows(dim).min(rows - self.row);
        if count == 0 {
            return match self.input.fill_buf() {
                Ok(more) if more.is_empty() || start.is_none() => Ok(None),
                Ok(_) => Err(Fault::file(format!("it does not end with its {rows} rows of {dim}"))),
                Err(error) => Err(lost(&error)),
            };
        }
        let mut bytes = vec![0; count * dim * kind.size];
        self.input.read_exact(&mut bytes).map_err(|error| lost(&error))?;
        if is_swapped {
            bytes.chunks_exact_mut(kind.size).for_each(<[u8]>::reverse);
        }
        let chunk = finite_rows(self.input.name(), (kind.decode)(&bytes), dim, self.row);
        self.row += count;
        Ok(Some(chunk))
    }

    fn bytes(&self) -> (u64, u64) {
        self.input.place()
    }

    fn notes(&self) -> Vec<String> {
        self.shape.kind.note(self.input.name()).into_iter().collect()
    }
}

/// The header of `.fbin`, `.u8bin` and `.i8bin`: rows and dimension, of 32 bits each.
pub(super) fn read_counts(input: &mut Input, kind: &'static Kind) -> Result<Shape, Fault> {
    let mut header = [[0; 4]; 2];
    input.read_exact(header.as_flattened_mut()).map_err(|error| lost(&error))?;
    let [rows, dim] = header.map(|bytes| u32::from_le_bytes(bytes) as usize);
    Ok(Shape { kind, is_swapped: false, rows, dim, start: Some(8) })
}

/// Row-major values of width `dim`, less the rows that hold a non-finite one. The first has the number `start` in its
/// file.
fn finite_rows(file: &str, mut values: Vec<f32>, dim: usize, start: usize) -> Chunk {
    let mut bad = Bad::default();
    if first_non_finite(&values, dim).is_some() {
        let mut kept = Vec::with_capacity(values.len());
        for (row, vector) in values.chunks_exact(dim).enumerate() {
            match first_non_finite(vector, dim) {
                None => kept.extend_from_slice(vector),
                Some((_, element, value)) => {
                    let reason = not_finite(element, value);
                    bad.add(Fault::value(EMBEDDING, start + row, reason).into_violation(file));
                }
            }
        }
        values = kept;
    }
    let embeddings = Matrix { rows: values.len() / dim, dim, values };
    Chunk { rows: Rows { embeddings, ..Rows::default() }, bad }
}
