//! Import: files of other programs as rows.
//!
//! An [`Import`] streams: it holds one chunk of rows (about 8 MiB of vectors; for Arrow and Parquet also the batch it
//! comes from). A row that cannot be taken (a wrong length, a null, a value that is not finite) ends it with an error
//! that names file, column and row, or is left out and counted where [`ImportOptions::skip_invalid`] says so. A file
//! that is broken as a whole (truncated, of the wrong form or type) ends it in either case.
//!
//! | format | rows | vectors | beside them |
//! |---|---|---|---|
//! | Arrow IPC file or stream, Parquet | record batches | `embedding`, lists of float16, float32 or float64 | the columns of a segment; any other is kept |
//! | `.npy` 1 to 3 | first axis, C order | `<f4`; `<f2` and `<f8` are converted | nothing |
//! | `.fvecs` | int32 dimension, then float32 values | little-endian | nothing |
//! | JSON lines | an object a line | `embedding`, an array of numbers | fields named like a segment's columns |
//!
//! Rows without `memory_id` get row numbers of the corpus.

mod arrow;
mod batch;
mod fvecs;
mod json_lines;
mod npy;
mod numbers;
mod parquet;
mod run;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use megaring_core::{Error, Violation};

use crate::arrow_file;
use crate::columns::EMBEDDING;
use crate::fault::Fault;
use crate::rows::Rows;
pub(crate) use batch::rows_of;
pub use run::{Report, run};

/// Bytes of vectors that make a chunk.
const CHUNK_BYTES: usize = 8 << 20;

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Arrow IPC file (`.arrow`, `.feather`, `.ipc`).
    ArrowFile,
    /// Arrow IPC stream (`.arrows`).
    ArrowStream,
    /// Parquet.
    Parquet,
    /// NumPy array.
    Npy,
    /// Vectors each behind its dimension.
    Fvecs,
    /// One JSON object a line (`.jsonl`, `.ndjson`).
    JsonLines,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] =
        [Self::ArrowFile, Self::ArrowStream, Self::Parquet, Self::Npy, Self::Fvecs, Self::JsonLines];

    /// The name used on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ArrowFile => "arrow",
            Self::ArrowStream => "arrow-stream",
            Self::Parquet => "parquet",
            Self::Npy => "npy",
            Self::Fvecs => "fvecs",
            Self::JsonLines => "jsonl",
        }
    }

    /// Tells the format of a file by its first bytes, else by the end of its name.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field `path` or `format`.
    pub fn detect(path: &Path) -> Result<Self, Error> {
        let mut start = Vec::with_capacity(8);
        open_file(path)?.take(8).read_to_end(&mut start).map_err(|error| unreadable(path, &error))?;
        let by_magic = [
            (&arrow_file::MAGIC[..], Self::ArrowFile),
            (b"PAR1", Self::Parquet),
            (npy::MAGIC, Self::Npy),
            (&[0xff; 4], Self::ArrowStream),
        ];
        let by_magic = by_magic.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, format)| format);
        by_magic.map_or_else(|| Self::of_name(path), Ok)
    }

    /// The format that the end of a file's name stands for.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field `format`.
    pub fn of_name(path: &Path) -> Result<Self, Error> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("arrow" | "feather" | "ipc") => Ok(Self::ArrowFile),
            Some("arrows") => Ok(Self::ArrowStream),
            Some("parquet" | "pq") => Ok(Self::Parquet),
            Some("npy") => Ok(Self::Npy),
            Some("fvecs") => Ok(Self::Fvecs),
            Some("jsonl" | "ndjson" | "json") => Ok(Self::JsonLines),
            _ => {
                let names = Self::ALL.map(Self::name).join(", ");
                Err(Error::field("format", format!("{} does not tell its format; name one of {names}", path.display())))
            }
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| format!("unknown format {name:?}: {} are known", Self::ALL.map(Self::name).join(", ")))
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Leave bad rows out and count them, instead of stopping at the first.
    pub skip_invalid: bool,
    /// The dimension wanted. `None`: that of the first row.
    pub dim: Option<usize>,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of the file that have been dealt with (estimated from rows for Parquet).
    pub bytes_read: u64,
    /// Bytes of the file.
    pub bytes_total: u64,
    /// Good rows so far.
    pub rows: u64,
    /// Rows left out so far.
    pub skipped: u64,
}

/// A file being read. Yields chunks of good rows; after an error, nothing.
pub struct Import {
    format: Format,
    source: Box<dyn Source>,
    skip_invalid: bool,
    /// Read when opening, to know the dimension.
    first: Option<Rows>,
    dim: usize,
    progress: Progress,
    first_skipped: Option<Violation>,
    ended: bool,
}

/// Opens a file and reads its first rows.
///
/// # Errors
/// [`Error::Invalid`] naming the file (and column and row) when it cannot be opened, is broken or not of the format or
/// dimension, or its first rows are bad.
pub fn open(path: &Path, format: Option<Format>, options: &ImportOptions) -> Result<Import, Error> {
    let format = match format {
        Some(format) => format,
        None => Format::detect(path)?,
    };
    let bytes_total = open_file(path)?.metadata().map_err(|error| unreadable(path, &error))?.len();
    let source: Box<dyn Source> = match format {
        Format::ArrowFile => Box::new(arrow::ArrowFile::open(path, options.dim)?),
        Format::ArrowStream => Box::new(arrow::ArrowStream::open(path, options.dim)?),
        Format::Parquet => Box::new(parquet::Parquet::open(path, options.dim)?),
        Format::Npy => Box::new(npy::Npy::open(path)?),
        Format::Fvecs => Box::new(fvecs::Fvecs::open(path, options.dim)?),
        Format::JsonLines => Box::new(json_lines::JsonLines::open(path, options.dim)?),
    };
    let skip_invalid = options.skip_invalid;
    let progress = Progress { bytes_total, ..Progress::default() };
    let mut import =
        Import { format, source, skip_invalid, first: None, dim: 0, progress, first_skipped: None, ended: false };
    import.first = import.advance()?;
    let found = import.first.as_ref().map(|rows| rows.embeddings.dim).or(import.source.dim());
    import.dim = found.or(options.dim).unwrap_or(0);
    match options.dim {
        Some(wanted) if import.dim != wanted => {
            let reason = format!("the dimension is {}, wanted is {wanted}", import.dim);
            Err(Fault::column(EMBEDDING, reason).into_invalid(&shown(path)))
        }
        _ => Ok(import),
    }
}

impl Import {
    /// Elements of each vector; 0 where the file has no rows and does not say.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
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
        self.source.notes()
    }

    /// The first row left out, and why.
    #[must_use]
    pub fn first_skipped(&self) -> Option<&Violation> {
        self.first_skipped.as_ref()
    }

    /// The next chunk that has good rows.
    fn advance(&mut self) -> Result<Option<Rows>, Error> {
        while let Some(Chunk { rows, bad }) = self.source.next_chunk()? {
            self.progress.bytes_read = self.source.bytes_read().min(self.progress.bytes_total);
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
        self.progress.bytes_read = self.progress.bytes_total;
        Ok(None)
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
trait Source {
    /// The dimension, where it is known before any row.
    fn dim(&self) -> Option<usize>;
    /// Rows in file order. An error means the file as a whole is broken.
    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error>;
    fn bytes_read(&self) -> u64;
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

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn open_file(path: &Path) -> Result<File, Error> {
    let file =
        File::open(path).map_err(|error| Error::field("path", format!("cannot open {}: {error}", path.display())))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(Error::field("path", format!("{} is a folder", path.display()))),
        Ok(_) => Ok(file),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::field("path", format!("cannot read {}: {error}", path.display()))
}
