//! The manifest: which segments a corpus consists of. Replaced as a whole, and itself under a checksum.

use std::fs;
use std::path::Path;

use megaring_core::Error;
use serde::{Deserialize, Serialize};

use crate::durable::{self, TemporaryFile};

/// Name of the manifest in a corpus's folder.
pub(crate) const FILE: &str = "manifest.json";
/// Longest name of a corpus, in bytes.
const MAX_NAME: usize = 64;
/// Version of the manifest's form.
const FORMAT: u32 = 1;

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentEntry {
    pub(crate) file: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub(crate) crc32: u32,
    /// Names of all columns in the file.
    pub(crate) columns: Vec<String>,
}

/// One version of a corpus as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) name: String,
    pub(crate) dim: u64,
    pub(crate) generation: u32,
    pub(crate) created_unix_ns: u64,
    pub(crate) segments: Vec<SegmentEntry>,
    /// CRC-32 of this manifest's compact JSON with this field 0.
    crc32: u32,
}

impl Manifest {
    /// An empty corpus.
    pub(crate) fn new(name: &str, dim: usize, created_unix_ns: u64) -> Self {
        let (name, dim) = (name.to_owned(), dim as u64);
        Self { format: FORMAT, name, dim, generation: 1, created_unix_ns, segments: Vec::new(), crc32: 0 }
    }

    /// The next version, with one segment more. `None` when generations have run out (2³² appends).
    pub(crate) fn with_segment(&self, segment: SegmentEntry) -> Option<Self> {
        let mut next = self.clone();
        next.generation = self.generation.checked_add(1)?;
        next.segments.push(segment);
        Some(next)
    }

    pub(crate) fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| segment.rows).sum()
    }

    /// A file name that no segment of this version has.
    pub(crate) fn next_file(&self) -> String {
        let last = self.segments.iter().filter_map(|segment| segment_number(&segment.file)).max().unwrap_or(0);
        format!("seg-{:06}.arrow", last + 1)
    }

    /// Columns that every segment has, in the order of the first.
    pub(crate) fn columns(&self) -> Vec<String> {
        let Some((first, others)) = self.segments.split_first() else { return Vec::new() };
        let everywhere = |column: &&String| others.iter().all(|segment| segment.columns.contains(column));
        first.columns.iter().filter(everywhere).cloned().collect()
    }

    /// Reads and checks the manifest in a folder named `name`.
    pub(crate) fn read(folder: &Path, name: &str) -> Result<Self, String> {
        let text = match fs::read(folder.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err("the file is missing".into()),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| format!("cannot be read: {error}"))?;
        if manifest.format != FORMAT {
            return Err(format!("is of format {}; this version reads format {FORMAT}", manifest.format));
        }
        if manifest.sum()? != manifest.crc32 {
            return Err("its checksum does not match".into());
        }
        if manifest.name != name {
            return Err(format!("belongs to corpus {:?}, not to the folder it is in", manifest.name));
        }
        match manifest.segments.iter().find(|segment| segment_number(&segment.file).is_none()) {
            Some(segment) => Err(format!("names {:?}, which is no segment's name", segment.file)),
            None => Ok(manifest),
        }
    }

    /// Writes the manifest beside the one it is to replace.
    pub(crate) fn write_beside(&self, folder: &Path) -> Result<TemporaryFile, Error> {
        let path = folder.join(FILE);
        let mut sealed = self.clone();
        sealed.crc32 = self.sum().map_err(Error::Internal)?;
        let mut text = serde_json::to_vec_pretty(&sealed).map_err(|error| Error::Internal(error.to_string()))?;
        text.push(b'\n');
        durable::write_beside(folder, &text).map_err(durable::storage("cannot write", &path))
    }

    fn sum(&self) -> Result<u32, String> {
        let open = Self { crc32: 0, ..self.clone() };
        serde_json::to_vec(&open).map(|text| crc32fast::hash(&text)).map_err(|error| error.to_string())
    }
}

/// The number in a segment's file name; `None` for any other name.
pub(crate) fn segment_number(file: &str) -> Option<u64> {
    let digits = file.strip_prefix("seg-")?.strip_suffix(".arrow")?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Checks a corpus's name: 1 to 64 bytes of `a-z 0-9 . _ -`, the first a letter or digit.
///
/// # Errors
/// [`Error::Invalid`] naming the field `name`.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let starts = name.bytes().next().is_some_and(is_word);
    let goes_on = name.bytes().all(|b| is_word(b) || b"._-".contains(&b));
    if starts && goes_on && name.len() <= MAX_NAME {
        return Ok(());
    }
    let rule = "1 to 64 of the characters a-z, 0-9, '.', '_' and '-', the first a letter or digit";
    Err(Error::field("name", format!("{name:?} is no corpus name: {rule}")))
}
