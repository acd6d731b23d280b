//! The header of NumPy arrays (`.npy`, versions 1 to 3): type, shape, and the order of the values.

use std::io::Read;

use super::array::Shape;
use super::input::Input;
use super::kinds::{KINDS, Kind};
use crate::fault::Fault;

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header: real ones are some hundred bytes.
const MAX_HEADER: u32 = 1 << 20;

/// What stands before the values of an array.
pub(super) struct Header {
    text: String,
    /// Bytes before the first value.
    start: u64,
}

/// Reads up to the values of a matrix.
pub(super) fn read(input: &mut Input) -> Result<Shape, Fault> {
    let header = Header::read(input)?;
    let name = header.dtype()?;
    let Some((kind, is_swapped)) = Kind::of_npy(name) else {
        let known = KINDS.iter().map(|kind| kind.npy).filter(|npy| !npy.is_empty()).collect::<Vec<_>>().join(", ");
        return Err(Fault::file(format!("its dtype is {name:?}; {known} are known, of either byte order")));
    };
    let (rows, dim) = header.matrix()?;
    Ok(Shape { kind, is_swapped, rows, dim, start: Some(header.start) })
}

impl Header {
    pub(super) fn read(file: &mut impl Read) -> Result<Self, Fault> {
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
        let text = String::from_utf8(header).map_err(|_| Fault::file("its header is no text"))?;
        Ok(Self { text, start: prefix + u64::from(length) })
    }

    /// What NumPy calls the type of the values.
    pub(super) fn dtype(&self) -> Result<&str, Fault> {
        let descr = value(&self.text, "descr").ok_or_else(|| Fault::file("its header lacks descr"))?;
        let quote = descr.chars().next().filter(|quote| "'\"".contains(*quote));
        let name = quote.and_then(|quote| descr[1..].split(quote).next());
        name.ok_or_else(|| Fault::file("its dtype has fields; wanted are plain numbers, such as float32"))
    }

    /// The length of each axis.
    pub(super) fn shape(&self) -> Result<Vec<usize>, Fault> {
        // Python 2 wrote its long integers with an L behind them.
        let axis = |axis: &str| axis.strip_suffix('L').unwrap_or(axis).parse();
        let text = self.shape_text()?;
        let axes: Result<_, _> = text.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(axis).collect();
        axes.map_err(|_| Fault::file(format!("its shape is ({text}), which are no lengths of axes")))
    }

    /// Rows and elements of a matrix whose rows follow one another.
    pub(super) fn matrix(&self) -> Result<(usize, usize), Fault> {
        let &[rows, dim] = self.shape()?.as_slice() else {
            let text = self.shape_text()?;
            return Err(Fault::file(format!("its shape is ({text}); wanted are two axes, (rows, elements)")));
        };
        match value(&self.text, "fortran_order") {
            Some(order) if order.starts_with("False") => Ok((rows, dim)),
            Some(order) if order.starts_with("True") => {
                Err(Fault::file("it is in Fortran order; save numpy.ascontiguousarray(array)"))
            }
            _ => Err(Fault::file("its header lacks fortran_order")),
        }
    }

    fn shape_text(&self) -> Result<&str, Fault> {
        let text = value(&self.text, "shape").and_then(|text| text.strip_prefix('(')?.split(')').next());
        text.ok_or_else(|| Fault::file("its header lacks shape"))
    }
}

/// What stands behind a key of the header, which is a Python dictionary of one level.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = |quote: char| header.find(&format!("{quote}{key}{quote}"));
    let start = at('\'').or_else(|| at('"'))?;
    let rest = header[start + key.len() + 2..].trim_start().strip_prefix(':')?;
    Some(rest.trim_start())
}
