//! Import: files of other programs as rows.
//!
//! An [`Import`] streams: it holds one chunk of rows (about 8 MiB of vectors; for Arrow and Parquet also the batch it
//! comes from). A row that cannot be taken (a wrong length, a null, a value that is not finite) ends it with an error
//! that names file, column and row, or is left out and counted where [`ImportOptions::skip_invalid`] says so. A file
//! that is broken as a whole (truncated, of the wrong form or type) ends it in either case. The dimension is that of
//! the first good row, unless the file itself says it or [`ImportOptions::dim`] does.
//!
//! | format | rows | vectors | beside them |
//! |---|---|---|---|
//! | Arrow IPC file or stream, Parquet | record batches | `embedding`, lists of floats or integers, or bytes of bits | the columns of a segment; any other is kept |
//! | `.npy` 1 to 3 | first axis, C order | floats or integers | nothing |
//! | `.npz` | first axis, C order | member `embedding`, or the only one of two axes | members of one axis, as columns |
//! | `.fvecs`, `.bvecs`, `.ivecs` | a vector behind its dimension | float32, uint8 or int32 | nothing |
//! | `.fbin`, `.u8bin`, `.i8bin` | a matrix behind its lengths | float32, uint8 or int8 | nothing |
//! | SafeTensors | first axis | tensor `embedding`, or the only one of two axes | nothing |
//! | JSON lines | an object a line | `embedding`, an array of numbers | fields named like a segment's columns |
//! | CSV | a record | `embedding`, a text such as `[0.1, 0.2]` | columns named like a segment's |
//!
//! HDF5 is refused, with the line of Python that makes a `.npy` file of it.
//!
//! Rows without `memory_id` get row numbers of the corpus. [`Columns`] says which columns are read, and under which
//! names. A file is opened once, so it may be a pipe, or standard input (`-`); what gzip has compressed is read as what
//! it holds. An Arrow IPC file, Parquet or `.npz`, which are read in any order, is then kept in a temporary file
//! meanwhile.

mod array;
mod arrow;
mod batch;
mod csv;
mod format;
mod input;
mod json_lines;
mod kinds;
mod line;
mod npy;
mod npz;
mod numbers;
mod parquet;
mod run;
mod safetensors;
mod selection;
mod vectors;

use std::path::{Path, PathBuf};

use megaring_core::matrix::Matrix;
use megaring_core::metric::word_of;
use megaring_core::{Element, Error, RowType, Violation};

use crate::columns::EMBEDDING;
use crate::fault::Fault;
use crate::rows::Rows;
use array::Array;
pub(crate) use arrow::sent_batch;
pub(crate) use batch::rows_of;
pub use format::Format;
pub use input::{Input, unreadable};
pub use json_lines::json_array;
pub use run::{Report, run, run_as};
pub use selection::Columns;

/// Bytes of vectors that make a chunk.
const CHUNK_BYTES: usize = 8 << 20;

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Leave bad rows out and count them, instead of stopping at the first.
    pub skip_invalid: bool,
    /// The dimension wanted. `None`: that of the file, or of its first good row.
    pub dim: Option<usize>,
    /// What the rows become: of bits, the file has the bytes, as integers from 0 to 255.
    pub element: Element,
    /// The columns that are read.
    pub columns: Columns,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of the file that have been dealt with (estimated from rows for Parquet).
    pub bytes_read: u64,
    /// Bytes of the file; 0 where that is not known.
    pub bytes_total: u64,
    /// Good rows so far.
    pub rows: u64,
    /// Rows left out so far.
    pub skipped: u64,
}

/// A file being read. Yields chunks of good rows; after an error, nothing.
pub struct Import {
    name: String,
    format: Format,
    source: Box<dyn Source>,
    skip_invalid: bool,
    /// Where the file can be had as it is, if all of it is wanted.
    as_is: Option<PathBuf>,
    /// Read when opening, to know the dimension.
    first: Option<Rows>,
    /// Of what the file has: of bits, of bytes.
    dim: usize,
    element: Element,
    progress: Progress,
    first_skipped: Option<Violation>,
    ended: bool,
}

/// Opens a file (`-` is standard input) and reads its first rows.
///
/// # Errors
/// [`Error::Invalid`] naming the file (and column and row) when it cannot be opened, is broken or not of the format or
/// dimension, its first rows are bad, or nothing in it tells the dimension and [`ImportOptions::dim`] does not either.
/// [`Error::Storage`] where there is no room for a temporary file.
pub fn open(path: &Path, format: Option<Format>, options: &ImportOptions) -> Result<Import, Error> {
    let input = Input::open_as(path, format)?;
    let format = match format {
        Some(format) => format,
        None => Format::of(&input)?,
    };
    let name = input.name().to_owned();
    check_start(&input, format)?;
    let as_is = input.stored_at().filter(|_| format == Format::ArrowFile && options.columns.are_all());
    let as_is = as_is.map(Path::to_owned);
    if options.columns.renamed().next().is_some() && !format.has_names() {
        return Err(Fault::file(format!("{format} has no columns that could be named")).into_invalid(&name));
    }
    if let Some(column) = options.columns.id_column().filter(|_| !format.has_names()) {
        let reason = format!("{format} has no columns, and the rows' ids are to be in column {column}");
        return Err(Fault::file(reason).into_invalid(&name));
    }
    let mut in_file = options.clone();
    if options.element == Element::Bit {
        in_file.dim = options.dim.map(|bits| bits.div_ceil(8));
    }
    let options = &in_file;
    let source = source(format, input, options)?;
    let skip_invalid = options.skip_invalid;
    let progress = Progress { bytes_total: source.bytes().1, ..Progress::default() };
    let mut import = Import {
        name,
        format,
        source,
        skip_invalid,
        as_is,
        first: None,
        dim: 0,
        element: options.element,
        progress,
        first_skipped: None,
        ended: false,
    };
    import.first = import.advance()?;
    let found = import.first.as_ref().map(|_| import.dim).or(import.source.dim());
    match (found, options.dim) {
        (Some(dim), Some(wanted)) if dim != wanted => {
            let of = if import.element == Element::Bit { " bytes of bits" } else { "" };
            let reason = format!("the dimension is {dim}{of}, wanted is {wanted}");
            return Err(Fault::column(EMBEDDING, reason).into_invalid(&import.name));
        }
        (Some(dim), _) | (None, Some(dim)) => import.dim = dim,
        (None, None) => return Err(Fault::file(import.without_rows()).into_invalid(&import.name)),
    }
    Ok(import)
}

/// Refuses a file that has no header where it must have one, and a text in another encoding.
fn check_start(input: &Input, format: Format) -> Result<(), Error> {
    use Format::{Bvecs, Csv, Fvecs, Ivecs, JsonLines};
    let start = input.start();
    let reason = match format {
        Csv | JsonLines if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") => {
            "it is a text in UTF-16; `iconv -f UTF-16 -t UTF-8 FILE` makes it one in UTF-8"
        }
        Fvecs | Bvecs | Ivecs | JsonLines => return Ok(()),
        _ if start.is_empty() => "it is empty",
        _ => return Ok(()),
    };
    Err(Fault::file(reason).into_invalid(input.name()))
}

fn source(format: Format, input: Input, options: &ImportOptions) -> Result<Box<dyn Source>, Error> {
    let vectors = |input, kind| Box::new(vectors::Vectors::open(input, kind, options.dim));
    let counted = |input, kind| Array::open(input, |input| array::read_counts(input, kind)).map(Box::new);
    Ok(match format {
        Format::ArrowFile => Box::new(arrow::ArrowFile::open(input, options)?),
        Format::ArrowStream => Box::new(arrow::ArrowStream::open(input, options)?),
        Format::Parquet => Box::new(parquet::Parquet::open(input, options)?),
        Format::Npy => Box::new(Array::open(input, npy::read)?),
        Format::Npz => Box::new(npz::Npz::open(input, options)?),
        Format::Fvecs => vectors(input, &kinds::FLOAT32),
        Format::Bvecs => vectors(input, &kinds::UINT8),
        Format::Ivecs => vectors(input, &kinds::INT32),
        Format::Fbin => counted(input, &kinds::FLOAT32)?,
        Format::U8bin => counted(input, &kinds::UINT8)?,
        Format::I8bin => counted(input, &kinds::INT8)?,
        Format::SafeTensors => Box::new(Array::open(input, |input| safetensors::read(input, &options.columns))?),
        Format::JsonLines => Box::new(json_lines::JsonLines::open(input, options)),
        Format::Csv => Box::new(csv::Csv::open(input, options)?),
    })
}

impl Import {
    /// What the rows are.
    #[must_use]
    pub fn row_type(&self) -> RowType {
        match self.element {
            Element::Float32 => self.dim.into(),
            Element::Bit => RowType::bits(8 * self.dim),
        }
    }

    /// The file's format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// What was converted or left behind, in sentences.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.source.notes();
        if self.element == Element::Bit {
            // That bytes were read as numbers first is of no interest.
            notes.retain(|note| !note.contains(" float32"));
        }
        notes
    }

    /// The first row left out, and why.
    #[must_use]
    pub fn first_skipped(&self) -> Option<&Violation> {
        self.first_skipped.as_ref()
    }

    /// Why nothing tells the dimension, after all was read.
    fn without_rows(&self) -> String {
        match (&self.first_skipped, self.progress.skipped) {
            (Some(only), 1) => format!("its only row is bad: {only}"),
            (Some(first), count) => format!("all {count} rows are bad; the first: {first}"),
            (None, _) => "it has no rows, so nothing tells the dimension".to_owned(),
        }
    }

    /// The next chunk that has good rows.
    fn advance(&mut self) -> Result<Option<Rows>, Error> {
        while let Some(Chunk { rows, bad }) = self.source.next().map_err(|fault| fault.into_invalid(&self.name))? {
            let (read, total) = self.source.bytes();
            self.progress.bytes_read = if total == 0 { read } else { read.min(total) };
            self.dim = rows.embeddings.dim;
            let (rows, bad) = match self.element {
                Element::Float32 => (rows, bad),
                Element::Bit => self.packed(rows, bad)?,
            };
            if let Some(first) = bad.first {
                if !self.skip_invalid {
                    return Err(Error::Invalid(first));
                }
                self.progress.skipped += bad.count;
                self.first_skipped.get_or_insert(first);
            }
            if !rows.is_empty() {
                self.progress.rows += rows.len() as u64;
                return Ok(Some(rows));
            }
        }
        self.progress.bytes_read = self.progress.bytes_total.max(self.progress.bytes_read);
        Ok(None)
    }

    /// Rows whose bytes of bits were read as numbers, but for those whose numbers are none.
    fn packed(&self, rows: Rows, mut bad: Bad) -> Result<(Rows, Bad), Error> {
        let before = (self.progress.rows + self.progress.skipped) as usize;
        let Matrix { dim, values, .. } = &rows.embeddings;
        let (dim, mut words) = (*dim, Vec::with_capacity(values.len().div_ceil(size_of::<f32>())));
        let mut keep = Vec::with_capacity(rows.len());
        for (row, numbers) in values.chunks_exact(dim.max(1)).enumerate() {
            let byte = |number: &f32| (f32::from(*number as u8) == *number).then_some(*number as u8).ok_or(*number);
            let bytes = numbers.iter().map(byte).collect::<Result<Vec<u8>, f32>>();
            keep.push(bytes.is_ok());
            match bytes {
                Ok(bytes) => words.extend(bytes.chunks(size_of::<f32>()).map(word_of)),
                Err(number) => {
                    let reason = format!("{number} is no byte of bits; 0 to 255 are possible");
                    bad.add(Fault::value(EMBEDDING, before + row, reason).into_violation(&self.name));
                }
            }
        }
        let internal = |error: arrow_schema::ArrowError| Error::Internal(error.to_string());
        let mut rows = if keep.contains(&false) { rows.keep(&keep).map_err(internal)? } else { rows };
        let width = RowType::bits(8 * dim).width();
        rows.embeddings = Matrix { rows: rows.len(), dim: width, values: words };
        rows.element = Element::Bit;
        Ok((rows, bad))
    }
}

impl Iterator for Import {
    type Item = Result<Rows, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(rows) = self.first.take() {
            return Some(Ok(rows));
        }
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// A format's reader.
trait Source: Send {
    /// The dimension, where it is known before any row.
    fn dim(&self) -> Option<usize>;
    /// Rows in file order. An error means the file as a whole is broken.
    fn next(&mut self) -> Result<Option<Chunk>, Fault>;
    /// Bytes dealt with so far, and all there are; 0 where that is not known.
    fn bytes(&self) -> (u64, u64);
    fn notes(&self) -> Vec<String>;
}

/// Good rows, and what is wrong with those left out.
#[derive(Default)]
struct Chunk {
    rows: Rows,
    bad: Bad,
}

/// Rows left out.
#[derive(Default)]
struct Bad {
    count: u64,
    first: Option<Violation>,
}

impl Bad {
    fn add(&mut self, violation: Violation) {
        self.count += 1;
        self.first.get_or_insert(violation);
    }
}

/// Vectors of `dim` elements that make a chunk.
fn chunk_rows(dim: usize) -> usize {
    (CHUNK_BYTES / (4 * dim.max(1))).max(1)
}

/// What is wrong where reading ends with an error.
fn lost(error: &std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::file("it is truncated"),
        _ => Fault::file(format!("it cannot be read: {error}")),
    }
}
