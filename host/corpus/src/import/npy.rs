//! NumPy arrays (`.npy`, versions 1 to 3): two axes, C order, little-endian float32, or other numbers converted to it.

use std::io::{BufRead, Read};

use megaring_core::error::first_non_finite;
use megaring_core::matrix::{MAX_DIM, Matrix};
use megaring_core::{Dtype, Error};

use super::input::Input;
use super::{Bad, Chunk, Source, chunk_rows, lost};
use crate::columns::EMBEDDING;
use crate::fault::Fault;
use crate::rows::Rows;

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header: real ones are some hundred bytes.
const MAX_HEADER: u32 = 1 << 20;

/// How a value is stored.
struct Kind {
    /// As the header has it, and in words.
    descr: &'static str,
    name: &'static str,
    size: usize,
    decode: fn(&[u8]) -> Vec<f32>,
    /// Whether float32 has all its values.
    fits: bool,
}

const KINDS: [Kind; 11] = [
    Kind { descr: "<f4", name: "float32", size: 4, decode: |b| Dtype::Float32.decode(b, 1.0), fits: true },
    Kind { descr: "<f2", name: "float16", size: 2, decode: |b| Dtype::Float16.decode(b, 1.0), fits: true },
    Kind { descr: "<f8", name: "float64", size: 8, decode: |b| each(b, |v| f64::from_le_bytes(v) as f32), fits: false },
    Kind { descr: "|i1", name: "int8", size: 1, decode: |b| each(b, |v| i8::from_le_bytes(v).into()), fits: true },
    Kind { descr: "|u1", name: "uint8", size: 1, decode: |b| each(b, |v| u8::from_le_bytes(v).into()), fits: true },
    Kind { descr: "<i2", name: "int16", size: 2, decode: |b| each(b, |v| i16::from_le_bytes(v).into()), fits: true },
    Kind { descr: "<u2", name: "uint16", size: 2, decode: |b| each(b, |v| u16::from_le_bytes(v).into()), fits: true },
    Kind { descr: "<i4", name: "int32", size: 4, decode: |b| each(b, |v| i32::from_le_bytes(v) as f32), fits: false },
    Kind { descr: "<u4", name: "uint32", size: 4, decode: |b| each(b, |v| u32::from_le_bytes(v) as f32), fits: false },
    Kind { descr: "<i8", name: "int64", size: 8, decode: |b| each(b, |v| i64::from_le_bytes(v) as f32), fits: false },
    Kind { descr: "<u8", name: "uint64", size: 8, decode: |b| each(b, |v| u64::from_le_bytes(v) as f32), fits: false },
];

fn each<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

impl Kind {
    fn note(&self) -> Option<String> {
        match (self.descr, self.fits) {
            ("<f4", _) => None,
            (_, true) => Some(format!("values were {} and are stored as float32, which loses nothing", self.name)),
            (_, false) => Some(format!("values were {} and are rounded to float32", self.name)),
        }
    }
}

/// An array being read.
pub(super) struct Npy {
    input: Input,
    kind: &'static Kind,
    rows: usize,
    dim: usize,
    row: usize,
}

impl Npy {
    pub(super) fn open(mut input: Input) -> Result<Self, Error> {
        match read_array(&mut input) {
            Ok((kind, rows, dim)) => Ok(Self { input, kind, rows, dim, row: 0 }),
            Err(fault) => Err(fault.into_invalid(input.name())),
        }
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let count = chunk_rows(self.dim).min(self.rows - self.row);
        if count == 0 {
            return match self.input.fill_buf() {
                Ok([]) => Ok(None),
                Ok(_) => Err(Fault::file(format!("it does not end with its {} rows of {}", self.rows, self.dim))),
                Err(error) => Err(lost(&error)),
            };
        }
        let mut bytes = vec![0; count * self.dim * self.kind.size];
        self.input.read_exact(&mut bytes).map_err(|error| lost(&error))?;
        let values = (self.kind.decode)(&bytes);
        let chunk = finite_rows(self.input.name(), values, self.dim, self.row);
        self.row += count;
        Ok(Some(chunk))
    }
}

/// Reads up to the values: their kind, the rows and the dimension.
fn read_array(input: &mut Input) -> Result<(&'static Kind, usize, usize), Fault> {
    let (header, start) = read_header(input)?;
    let kind = read_kind(&header)?;
    match value(&header, "fortran_order") {
        Some(order) if order.starts_with("False") => {}
        Some(order) if order.starts_with("True") => {
            return Err(Fault::file("it is in Fortran order; save numpy.ascontiguousarray(array)"));
        }
        _ => return Err(Fault::file("its header lacks fortran_order")),
    }
    let (rows, dim) = read_shape(&header)?;
    let wanted = (rows as u64).checked_mul(dim as u64).and_then(|n| n.checked_mul(kind.size as u64));
    let has = input.plain_bytes().map(|bytes| bytes.saturating_sub(start));
    match has {
        Some(has) if wanted != Some(has) => Err(Fault::file(format!(
            "shape ({rows}, {dim}) does not fit the {has} bytes behind the header; is it truncated?"
        ))),
        _ => Ok((kind, rows, dim)),
    }
}

impl Source for Npy {
    fn dim(&self) -> Option<usize> {
        Some(self.dim)
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(self.input.name()))
    }

    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    fn bytes_total(&self) -> u64 {
        self.input.bytes_total()
    }

    fn notes(&self) -> Vec<String> {
        self.kind.note().map(|note| format!("{}: {note}", self.input.name())).into_iter().collect()
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

fn read_kind(header: &str) -> Result<&'static Kind, Fault> {
    let descr = value(header, "descr").ok_or_else(|| Fault::file("its header lacks descr"))?;
    let quote = descr.chars().next().filter(|quote| "'\"".contains(*quote));
    let Some(name) = quote.and_then(|quote| descr[1..].split(quote).next()) else {
        return Err(Fault::file("its dtype has fields; wanted are plain numbers, such as float32"));
    };
    KINDS.iter().find(|kind| kind.descr == name).ok_or_else(|| {
        let known = KINDS.each_ref().map(|kind| kind.descr).join(", ");
        Fault::file(format!("its dtype is {name:?}; {known} are known"))
    })
}

fn read_shape(header: &str) -> Result<(usize, usize), Fault> {
    let text = value(header, "shape").and_then(|text| text.strip_prefix('(')?.split(')').next());
    let text = text.ok_or_else(|| Fault::file("its header lacks shape"))?;
    // Python 2 wrote its long integers with an L behind them.
    let axis = |axis: &str| axis.strip_suffix('L').unwrap_or(axis).parse();
    let axes: Result<Vec<usize>, _> =
        text.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(axis).collect();
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
