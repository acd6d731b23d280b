//! The header of NumPy arrays (`.npy`, versions 1 to 3): two axes, C order, little-endian numbers.

use std::io::Read;

use super::array::Shape;
use super::input::Input;
use super::kinds::{KINDS, Kind};
use crate::fault::Fault;

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header: real ones are some hundred bytes.
const MAX_HEADER: u32 = 1 << 20;

/// Reads up to the values.
pub(super) fn read(input: &mut Input) -> Result<Shape, Fault> {
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
    Ok(Shape { kind, rows, dim, start: Some(start) })
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
    let known = || KINDS.into_iter().filter(|kind| !kind.npy.is_empty());
    known().find(|kind| kind.npy == name).ok_or_else(|| {
        let known = known().map(|kind| kind.npy).collect::<Vec<_>>().join(", ");
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
        Ok(&[rows, dim]) => Ok((rows, dim)),
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
