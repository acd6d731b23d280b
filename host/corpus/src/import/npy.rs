//! NumPy arrays (`.npy`, versions 1 to 3): two axes, C order, little-endian float32, or float16 and float64 converted
//! to it.

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

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header: real ones are some hundred bytes.
const MAX_HEADER: u32 = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float16,
    Float32,
    Float64,
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::Float16 => 2,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::Float16 => Dtype::Float16.decode(bytes, 1.0),
            Self::Float32 => Dtype::Float32.decode(bytes, 1.0),
            Self::Float64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }
    }

    fn note(self) -> Option<&'static str> {
        match self {
            Self::Float16 => Some("values were float16 and are stored as float32, which loses nothing"),
            Self::Float32 => None,
            Self::Float64 => Some("values were float64 and are rounded to float32"),
        }
    }
}

/// An array being read.
pub(super) struct Npy {
    name: String,
    file: BufReader<File>,
    kind: Kind,
    rows: usize,
    dim: usize,
    row: usize,
    bytes_read: u64,
}

impl Npy {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = open_file(path)?;
        let len = file.metadata().map_err(|error| super::unreadable(path, &error))?.len();
        Self::read(shown(path), file, len).map_err(|fault| fault.into_invalid(&shown(path)))
    }

    fn read(name: String, file: File, len: u64) -> Result<Self, Fault> {
        let mut file = BufReader::new(file);
        let (header, start) = read_header(&mut file)?;
        let kind = read_kind(&header)?;
        match value(&header, "fortran_order") {
            Some(order) if order.starts_with("False") => {}
            Some(order) if order.starts_with("True") => {
                return Err(Fault::file("it is in Fortran order; save numpy.ascontiguousarray(array)"));
            }
            _ => return Err(Fault::file("its header lacks fortran_order")),
        }
        let (rows, dim) = read_shape(&header)?;
        let wanted = (rows as u64).checked_mul(dim as u64).and_then(|n| n.checked_mul(kind.size() as u64));
        if wanted != len.checked_sub(start) {
            let shape = format!("shape ({rows}, {dim})");
            let has = len.saturating_sub(start);
            return Err(Fault::file(format!(
                "{shape} does not fit the {has} bytes behind the header; is it truncated?"
            )));
        }
        Ok(Self { name, file, kind, rows, dim, row: 0, bytes_read: start })
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let count = chunk_rows(self.dim).min(self.rows - self.row);
        if count == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; count * self.dim * self.kind.size()];
        self.file.read_exact(&mut bytes).map_err(|error| Fault::file(format!("cannot be read: {error}")))?;
        self.bytes_read += bytes.len() as u64;
        let values = self.kind.decode(&bytes);
        let chunk = finite_rows(&self.name, values, self.dim, self.row);
        self.row += count;
        Ok(Some(chunk))
    }
}

impl Source for Npy {
    fn dim(&self) -> Option<usize> {
        Some(self.dim)
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(&self.name))
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn notes(&self) -> Vec<String> {
        self.kind.note().map(|note| format!("{}: {note}", self.name)).into_iter().collect()
    }
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
                    let reason = format!("element {element} is {value}; every value must be finite");
                    bad.add(Fault::value(EMBEDDING, start + row, reason).into_violation(file));
                }
            }
        }
        values = kept;
    }
    let embeddings = Matrix { rows: values.len() / dim, dim, values };
    Chunk { rows: Rows { embeddings, ..Rows::default() }, bad }
}

/// The header's text and where the values begin.
fn read_header(file: &mut impl Read) -> Result<(String, u64), Fault> {
    let none = |_| Fault::file("it is no .npy file, or cut short within its header");
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(none)?;
    let [.., major, _minor] = magic;
    if !magic.starts_with(MAGIC) {
        return Err(Fault::file("it is no .npy file: it does not begin with \\x93NUMPY"));
    }
    let (length, prefix) = match major {
        1 => {
            let mut length = [0; 2];
            file.read_exact(&mut length).map_err(none)?;
            (u32::from(u16::from_le_bytes(length)), 10)
        }
        2 | 3 => {
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(none)?;
            (u32::from_le_bytes(length), 12)
        }
        other => return Err(Fault::file(format!("it is of .npy version {other}; 1 to 3 are known"))),
    };
    if length > MAX_HEADER {
        return Err(Fault::file(format!("its header claims {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(none)?;
    let header = String::from_utf8(header).map_err(|_| Fault::file("its header is no text"))?;
    Ok((header, prefix + u64::from(length)))
}

fn read_kind(header: &str) -> Result<Kind, Fault> {
    let descr = value(header, "descr").ok_or_else(|| Fault::file("its header lacks descr"))?;
    let quote = descr.chars().next().filter(|quote| "'\"".contains(*quote));
    let name = quote.and_then(|quote| descr[1..].split(quote).next());
    match name {
        Some("<f4") => Ok(Kind::Float32),
        Some("<f2") => Ok(Kind::Float16),
        Some("<f8") => Ok(Kind::Float64),
        Some(other) => Err(Fault::file(format!("its dtype is {other:?}; '<f4', '<f2' and '<f8' are known"))),
        None => Err(Fault::file("its dtype has fields; '<f4', '<f2' and '<f8' are known")),
    }
}

fn read_shape(header: &str) -> Result<(usize, usize), Fault> {
    let text = value(header, "shape").and_then(|text| text.strip_prefix('(')?.split(')').next());
    let text = text.ok_or_else(|| Fault::file("its header lacks shape"))?;
    let axes: Result<Vec<usize>, _> =
        text.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(str::parse).collect();
    match axes.as_deref() {
        Ok(&[rows, dim]) if (1..=MAX_DIM).contains(&dim) => Ok((rows, dim)),
        Ok(&[_, dim]) => Err(Fault::file(format!("its vectors have {dim} elements; 1 to {MAX_DIM} are possible"))),
        _ => Err(Fault::file(format!("its shape is ({text}); wanted are two axes, (rows, elements)"))),
    }
}

/// What stands behind a key of the header, which is a Python dictionary of one level.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = |quote: char| header.find(&format!("{quote}{key}{quote}"));
    let start = at('\'').or_else(|| at('"'))?;
    let rest = header[start + key.len() + 2..].trim_start().strip_prefix(':')?;
    Some(rest.trim_start())
}
