//! `.fvecs`: each vector is its dimension (int32) and its values (float32), little-endian.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use megaring_core::error::first_non_finite;
use megaring_core::matrix::{MAX_DIM, Matrix};
use megaring_core::{Dtype, Error};

use super::{Bad, Chunk, Source, chunk_rows, open_file, shown};
use crate::columns::EMBEDDING;
use crate::fault::Fault;
use crate::rows::Rows;

/// Vectors being read.
pub(super) struct Fvecs {
    name: String,
    file: BufReader<File>,
    /// The dimension wanted; that of the first row where none is.
    dim: Option<usize>,
    row: usize,
    place: u64,
    len: u64,
}

impl Fvecs {
    pub(super) fn open(path: &Path, dim: Option<usize>) -> Result<Self, Error> {
        let file = open_file(path)?;
        let len = file.metadata().map_err(|error| super::unreadable(path, &error))?.len();
        Ok(Self { name: shown(path), file: BufReader::new(file), dim, row: 0, place: 0, len })
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        if self.place == self.len {
            return Ok(None);
        }
        let (mut values, mut bad, mut rows) = (Vec::new(), Bad::default(), 0);
        while self.place < self.len && rows + (bad.count as usize) < chunk_rows(self.dim.unwrap_or(MAX_DIM)) {
            let vector = self.vector()?;
            let dim = *self.dim.get_or_insert(vector.len());
            match check(&vector, dim) {
                Ok(()) => {
                    values.extend_from_slice(&vector);
                    rows += 1;
                }
                Err(reason) => bad.add(Fault::value(EMBEDDING, self.row, reason).into_violation(&self.name)),
            }
            self.row += 1;
        }
        let embeddings = Matrix { rows, dim: self.dim.unwrap_or(0), values };
        Ok(Some(Chunk { rows: Rows { embeddings, ..Rows::default() }, bad }))
    }

    /// The next vector, whatever its dimension.
    fn vector(&mut self) -> Result<Vec<f32>, Fault> {
        let row = self.row;
        let truncated = move |_| Fault::value(EMBEDDING, row, "the file ends within this vector");
        let mut length = [0; 4];
        self.file.read_exact(&mut length).map_err(truncated)?;
        let length = i32::from_le_bytes(length);
        let dim = usize::try_from(length).ok().filter(|dim| (1..=MAX_DIM).contains(dim));
        let Some(dim) = dim else {
            let reason = format!("the dimension is {length}; 1 to {MAX_DIM} are possible. Is it an .fvecs file?");
            return Err(Fault::value(EMBEDDING, row, reason));
        };
        let mut bytes = vec![0; dim * 4];
        self.file.read_exact(&mut bytes).map_err(truncated)?;
        self.place += 4 + bytes.len() as u64;
        Ok(Dtype::Float32.decode(&bytes, 1.0))
    }
}

impl Source for Fvecs {
    fn dim(&self) -> Option<usize> {
        self.dim
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(&self.name))
    }

    fn bytes_read(&self) -> u64 {
        self.place
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

fn check(vector: &[f32], dim: usize) -> Result<(), String> {
    if vector.len() != dim {
        return Err(format!("the vector has {} values, wanted are {dim}", vector.len()));
    }
    match first_non_finite(vector, dim) {
        Some((_, element, value)) => Err(format!("element {element} is {value}; every value must be finite")),
        None => Ok(()),
    }
}
