//! `.fvecs`, `.bvecs` and `.ivecs`: each vector is its dimension (int32) and its values (float32, uint8 or int32),
//! little-endian.

use std::io::{BufRead, ErrorKind, Read};

use megaring_core::error::first_non_finite;
use megaring_core::matrix::{MAX_DIM, Matrix};

use super::input::Input;
use super::kinds::Kind;
use super::{Bad, Chunk, Source, chunk_rows, lost};
use crate::columns::EMBEDDING;
use crate::fault::{Fault, not_finite};
use crate::rows::Rows;

/// Vectors being read.
pub(super) struct Vectors {
    input: Input,
    kind: &'static Kind,
    /// The dimension wanted; that of the first good row where none is.
    dim: Option<usize>,
    row: usize,
}

impl Vectors {
    pub(super) fn open(input: Input, kind: &'static Kind, dim: Option<usize>) -> Self {
        Self { input, kind, dim, row: 0 }
    }

    /// The next vector, whatever its dimension.
    fn vector(&mut self) -> Result<Option<Vec<f32>>, Fault> {
        let row = self.row;
        let truncated = move |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => Fault::value(EMBEDDING, row, "the file ends within this vector"),
            _ => lost(&error),
        };
        if self.input.fill_buf().map_err(|error| lost(&error))?.is_empty() {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(truncated)?;
        let length = i32::from_le_bytes(length);
        let dim = usize::try_from(length).ok().filter(|dim| (1..=MAX_DIM).contains(dim));
        let Some(dim) = dim else {
            let reason = format!("the dimension is {length}; 1 to {MAX_DIM} are possible. Is it such a file?");
            return Err(Fault::value(EMBEDDING, row, reason));
        };
        let mut bytes = vec![0; dim * self.kind.size];
        self.input.read_exact(&mut bytes).map_err(truncated)?;
        Ok(Some((self.kind.decode)(&bytes)))
    }
}

impl Source for Vectors {
    fn dim(&self) -> Option<usize> {
        self.dim
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let (mut values, mut bad, mut rows) = (Vec::new(), Bad::default(), 0);
        while rows + (bad.count as usize) < chunk_rows(self.dim.unwrap_or(MAX_DIM)) {
            let Some(vector) = self.vector()? else { break };
            match check(&vector, self.dim) {
                Ok(()) => {
                    self.dim = Some(vector.len());
                    values.extend_from_slice(&vector);
                    rows += 1;
                }
                Err(reason) => bad.add(Fault::value(EMBEDDING, self.row, reason).into_violation(self.input.name())),
            }
            self.row += 1;
        }
        if rows == 0 && bad.count == 0 {
            return Ok(None);
        }
        let embeddings = Matrix { rows, dim: self.dim.unwrap_or(0), values };
        Ok(Some(Chunk { rows: Rows { embeddings, ..Rows::default() }, bad }))
    }

    fn bytes(&self) -> (u64, u64) {
        self.input.place()
    }

    fn notes(&self) -> Vec<String> {
        self.kind.note(self.input.name()).into_iter().collect()
    }
}

fn check(vector: &[f32], dim: Option<usize>) -> Result<(), String> {
    if let Some(dim) = dim.filter(|dim| vector.len() != *dim) {
        return Err(format!("the vector has {} values, wanted are {dim}", vector.len()));
    }
    match first_non_finite(vector, vector.len()) {
        Some((_, element, value)) => Err(not_finite(element, value)),
        None => Ok(()),
    }
}
