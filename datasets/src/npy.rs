//! A tiny reader and writer of `.npy`: versions 1 to 3, `<f4`, C order, two dimensions. Anything else is an error,
//! never a guess. The format: numpy's `numpy/lib/format.py` (magic, version, header length, a Python dict, then the
//! values).

use crate::{DataError, Matrix};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Reads a whole `.npy` file.
///
/// # Errors
/// [`DataError::Npy`] for a foreign magic or version, a header that cannot be read, any dtype but `<f4`, Fortran order,
/// any number of dimensions but two, and a body that is shorter or longer than the shape says.
pub fn read(bytes: &[u8]) -> Result<Matrix, DataError> {
    let (header, body) = split_header(bytes)?;
    let descr = field(header, "descr")?;
    if !matches!(descr.trim_matches(['\'', '"']), "<f4") {
        return Err(npy(format!("dtype {descr} where '<f4' was expected")));
    }
    if field(header, "fortran_order")? != "False" {
        return Err(npy("Fortran order; C order was expected"));
    }
    let (rows, dim) = shape(header)?;
    let length = rows.checked_mul(dim).and_then(|count| count.checked_mul(4));
    if length != Some(body.len()) {
        return Err(npy(format!("{} bytes of values for the shape ({rows}, {dim})", body.len())));
    }
    let values = body.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect();
    Ok(Matrix { rows, dim, values })
}

/// Writes `matrix` as version 1.0, the header padded so that the values start at a multiple of 64 bytes, as numpy does.
pub fn write(matrix: &Matrix) -> Vec<u8> {
    let mut file = header("<f4", false, &format!("({}, {})", matrix.rows, matrix.dim));
    file.extend(matrix.to_le_bytes());
    file
}

/// Magic, version 1.0 and a padded header with these three entries, as written: the poisonous files need wrong ones.
pub(crate) fn header(descr: &str, fortran_order: bool, shape: &str) -> Vec<u8> {
    let order = if fortran_order { "True" } else { "False" };
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while !(MAGIC.len() + 4 + dict.len() + 1).is_multiple_of(64) {
        dict.push(' ');
    }
    dict.push('\n');
    let mut file = MAGIC.to_vec();
    file.extend([1, 0]);
    file.extend((dict.len() as u16).to_le_bytes());
    file.extend(dict.as_bytes());
    file
}

fn split_header(bytes: &[u8]) -> Result<(&str, &[u8]), DataError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| npy("the file does not start with the magic of .npy"))?;
    let short = || npy("the file ends within its header");
    let (&[major, _minor], rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (length, rest) = match major {
        1 => rest.split_first_chunk().map(|(&length, rest)| (usize::from(u16::from_le_bytes(length)), rest)),
        2 | 3 => rest.split_first_chunk().map(|(&length, rest)| (u32::from_le_bytes(length) as usize, rest)),
        _ => return Err(npy(format!("version {major}; 1 to 3 can be read"))),
    }
    .ok_or_else(short)?;
    let (header, body) = rest.split_at_checked(length).ok_or_else(short)?;
    let header = std::str::from_utf8(header).map_err(|_| npy("the header is not text"))?;
    Ok((header, body))
}

/// The value after `'name':` (in either kind of quotes), up to the next comma outside parentheses.
fn field<'a>(header: &'a str, name: &str) -> Result<&'a str, DataError> {
    let missing = || npy(format!("the header has no {name}"));
    let key = |quote: char| header.split_once(&format!("{quote}{name}{quote}")).map(|(_, after)| after);
    let after = key('\'').or_else(|| key('"')).ok_or_else(missing)?;
    let value = after.trim_start().strip_prefix(':').ok_or_else(missing)?.trim_start();
    let end = match value.find(')') {
        Some(close) if value.starts_with('(') => close + 1,
        _ => value.find([',', '}']).ok_or_else(missing)?,
    };
    Ok(value[..end].trim_end())
}

fn shape(header: &str) -> Result<(usize, usize), DataError> {
    let text = field(header, "shape")?;
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let sizes: Option<Vec<usize>> = inner.and_then(|inner| {
        inner.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect()
    });
    match sizes.as_deref() {
        Some(&[rows, dim]) => Ok((rows, dim)),
        _ => Err(npy(format!("the shape {text} is not (rows, dim)"))),
    }
}

fn npy(message: impl Into<String>) -> DataError {
    DataError::Npy(message.into())
}
