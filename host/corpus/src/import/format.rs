//! The formats, their names, and how each is told.

use std::path::Path;
use std::str::FromStr;

use megaring_core::Error;
use megaring_core::matrix::MAX_DIM;

use super::input::Input;
use super::{kinds, npy, npz};
use crate::arrow_file;

/// What an HDF5 file begins with.
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
/// What stands before each message of an Arrow IPC stream; as a vector's dimension, -1.
const CONTINUES: &[u8] = &[0xff; 4];

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
    /// Archive of NumPy arrays.
    Npz,
    /// Vectors of float32, each behind its dimension.
    Fvecs,
    /// Vectors of uint8, each behind its dimension.
    Bvecs,
    /// Vectors of int32, each behind its dimension.
    Ivecs,
    /// A matrix of float32 behind its two lengths.
    Fbin,
    /// A matrix of uint8 behind its two lengths.
    U8bin,
    /// A matrix of int8 behind its two lengths.
    I8bin,
    /// SafeTensors.
    SafeTensors,
    /// One JSON object a line (`.jsonl`, `.ndjson`).
    JsonLines,
    /// CSV with a line of names.
    Csv,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 14] = [
        Self::ArrowFile,
        Self::ArrowStream,
        Self::Parquet,
        Self::Npy,
        Self::Npz,
        Self::Fvecs,
        Self::Bvecs,
        Self::Ivecs,
        Self::Fbin,
        Self::U8bin,
        Self::I8bin,
        Self::SafeTensors,
        Self::JsonLines,
        Self::Csv,
    ];

    /// The name used on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ArrowFile => "arrow",
            Self::ArrowStream => "arrow-stream",
            Self::Parquet => "parquet",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Fvecs => "fvecs",
            Self::Bvecs => "bvecs",
            Self::Ivecs => "ivecs",
            Self::Fbin => "fbin",
            Self::U8bin => "u8bin",
            Self::I8bin => "i8bin",
            Self::SafeTensors => "safetensors",
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
        }
    }

    /// Whether its columns, arrays or tensors have names.
    pub(super) fn has_names(self) -> bool {
        use Format::{ArrowFile, ArrowStream, Csv, JsonLines, Npz, Parquet, SafeTensors};
        matches!(self, ArrowFile | ArrowStream | Parquet | Npz | SafeTensors | JsonLines | Csv)
    }

    /// Whether a file that is said to be of it begins with a matrix's two lengths. Those may look like anything; where
    /// it is known how many `bytes` there are, they tell them exactly.
    pub(super) fn has_lengths(self, start: &[u8], bytes: Option<u64>) -> bool {
        let kind = match self {
            Self::Fbin => &kinds::FLOAT32,
            Self::U8bin => &kinds::UINT8,
            Self::I8bin => &kinds::INT8,
            _ => return false,
        };
        let Some((lengths, _)) = start.as_chunks::<4>().0.split_first_chunk::<2>() else { return false };
        let [rows, dim] = lengths.map(|bytes| u64::from(u32::from_le_bytes(bytes)));
        let is_whole = |bytes| 8 + rows * dim * kind.size as u64 == bytes;
        (1..=MAX_DIM as u64).contains(&dim) && bytes.is_none_or(is_whole)
    }

    /// Tells a format by its magic, else by the end of the file's name, else by what JSON begins with. What stands at
    /// the beginning of a matrix or of vectors is a number, and no magic where the name says so.
    pub(super) fn of(input: &Input) -> Result<Self, Error> {
        let by_name = input.extension().and_then(|extension| Self::of_extension(&extension));
        if let Some(format) = by_name.filter(|format| format.has_lengths(input.start(), input.plain_bytes())) {
            return Ok(format);
        }
        if input.start().starts_with(HDF5) {
            return Err(Error::field("format", hdf5(input.name())));
        }
        let by_magic = [
            (&arrow_file::MAGIC[..], Self::ArrowFile),
            (b"PAR1", Self::Parquet),
            (npy::MAGIC, Self::Npy),
            (npz::MAGIC, Self::Npz),
            (CONTINUES, Self::ArrowStream),
        ];
        let is_vectors = matches!(by_name, Some(Self::Fvecs | Self::Bvecs | Self::Ivecs));
        let is_magic = |magic: &[u8]| input.start().starts_with(magic) && !(is_vectors && magic == CONTINUES);
        let by_magic = by_magic.into_iter().find(|(magic, _)| is_magic(magic));
        let by_text = || begins_as_json(input.start()).then_some(Self::JsonLines);
        by_magic.map(|(_, format)| format).or(by_name).or_else(by_text).ok_or_else(|| untold(input.name()))
    }

    /// The format that the end of a file's name stands for.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field `format`.
    pub fn of_name(path: &Path) -> Result<Self, Error> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = extension.and_then(|extension| Self::of_extension(&extension.to_ascii_lowercase()));
        format.ok_or_else(|| untold(&path.display().to_string()))
    }

    pub(super) fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "feather" | "ipc" => Some(Self::ArrowFile),
            "arrows" => Some(Self::ArrowStream),
            "pq" => Some(Self::Parquet),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            other => Self::ALL.into_iter().find(|format| format.name() == other),
        }
    }
}

/// What to do with a file of HDF5.
fn hdf5(name: &str) -> String {
    let script = format!("import h5py, numpy; numpy.save('train.npy', h5py.File('{name}')['train'][:])");
    format!(
        "{name} is an HDF5 file, which cannot be read; `python3 -c \"{script}\"` makes a .npy file of its dataset train"
    )
}

fn untold(name: &str) -> Error {
    let names = Format::ALL.map(Format::name).join(", ");
    Error::field("format", format!("{name} does not tell its format; name one of {names}"))
}

/// Vectors behind their dimension may begin with the same byte, but have a zero among the next.
fn begins_as_json(start: &[u8]) -> bool {
    let text = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start).trim_ascii_start();
    (text.starts_with(b"{") || text.starts_with(b"[")) && !start.contains(&0)
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
