//! The full check of a corpus, from disk: nothing that is already open is trusted.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use megaring_core::{Element, Error, RowType};

use crate::corpus::Corpus;
use crate::derived::{self, Stamp};
use crate::fault::Fault;
use crate::load::{cache_path, has_changed, map_segment};
use crate::manifest::{self, Logged, Manifest, Record, SegmentEntry};
use crate::piece::Kept;

/// What a full check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The corpus.
    pub corpus: String,
    /// The version on disk; 0 where the manifest cannot be read.
    pub generation: u32,
    /// Rows of all segments and of the log.
    pub rows: usize,
    /// What is wrong with the manifest, which is the log, if anything.
    pub manifest_fault: Option<String>,
    /// The segments in row order, then the log, where rows are in it.
    pub segments: Vec<SegmentReport>,
}

/// What a full check found of one file with rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Name of the file.
    pub file: String,
    /// Rows the manifest gives it.
    pub rows: usize,
    /// Bytes the manifest gives it.
    pub bytes: u64,
    /// The checksum the manifest gives it (CRC-32, IEEE); 0 for the log, whose records have their own.
    pub checksum: u32,
    /// What is wrong with the file: its content is lost.
    pub fault: Option<String>,
    /// What is wrong with the cache beside it: nothing is lost, it is made anew.
    pub cache_fault: Option<String>,
}

impl VerifyReport {
    /// Whether everything, caches included, is as it was written.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.loss().is_none() && self.segments.iter().all(|segment| segment.cache_fault.is_none())
    }

    /// The first loss as [`Error::DataLoss`]; `None` where all content is there.
    #[must_use]
    pub fn loss(&self) -> Option<Error> {
        let (segment, reason) = self.first_fault()?;
        let (segment, reason) = (segment.to_owned(), reason.to_owned());
        Some(Error::DataLoss { corpus: self.corpus.clone(), segment, reason })
    }

    fn first_fault(&self) -> Option<(&str, &str)> {
        let manifest = self.manifest_fault.as_deref().map(|reason| (manifest::FILE, reason));
        let segment = |report: &'_ SegmentReport| report.fault.is_some();
        let segment = self.segments.iter().find(|report| segment(report));
        manifest.or_else(|| segment.and_then(|report| Some((report.file.as_str(), report.fault.as_deref()?))))
    }
}

pub(crate) fn verify(corpus: &Corpus, name: &str, small: u64, writable: bool) -> Result<VerifyReport, Error> {
    let _unmerged = corpus.merging();
    loop {
        let report = verify_folder(corpus.folder(), name, small)?;
        // Another process may have merged segments meanwhile, and removed them.
        if report.loss().is_none() || writable || !has_changed(corpus.folder(), name, report.generation) {
            return Ok(report);
        }
    }
}

/// An error where the system has no room for reading a file.
fn verify_folder(folder: &Path, name: &str, small: u64) -> Result<VerifyReport, Error> {
    let unread = |file: &str, fault: Fault| match fault.is_limit {
        true => Err(Error::Storage(format!("corpus {name:?}: {file} {fault}"))),
        false => Ok(fault.to_string()),
    };
    let (manifest, manifest_fault) = match Manifest::read(folder, name) {
        Ok(manifest) => (Some(manifest), None),
        Err(fault) => (None, Some(unread(manifest::FILE, fault)?)),
    };
    let row_type = manifest.as_ref().map_or(RowType::from(0), |manifest| manifest.opening.row_type());
    let id_column = manifest.as_ref().and_then(|manifest| manifest.opening.id_column.as_deref());
    let records = manifest.iter().flat_map(|manifest| &manifest.records);
    let entries = records.filter_map(Logged::segment);
    let verified = |entry: &SegmentEntry| {
        let (fault, cache_fault) = match check_segment(folder, entry, (row_type, id_column), small) {
            Ok(cache) => (None, cache.err()),
            Err(fault) => (Some(unread(&entry.file, fault)?), None),
        };
        let (rows, bytes, checksum) = (entry.rows as usize, entry.bytes, entry.crc32);
        Ok(SegmentReport { file: entry.file.clone(), rows, bytes, checksum, fault, cache_fault })
    };
    let mut segments = entries.map(verified).collect::<Result<Vec<SegmentReport>, Error>>()?;
    segments.extend(manifest.as_ref().and_then(|manifest| verify_log(manifest, row_type)));
    Ok(VerifyReport {
        corpus: name.to_owned(),
        generation: manifest.as_ref().and_then(Manifest::generation).unwrap_or_default(),
        rows: segments.iter().map(|segment| segment.rows).sum(),
        manifest_fault,
        segments,
    })
}

/// The rows in the log, whose checksums reading it has compared.
fn verify_log(manifest: &Manifest, row_type: RowType) -> Option<SegmentReport> {
    let (mut rows, mut fault) = (0, None);
    for (record, body) in manifest.records.iter().filter_map(Logged::added) {
        let Record::Rows(count) = record else { continue };
        rows += *count as usize;
        let id_column = manifest.opening.id_column.as_deref();
        let checked = Kept::decode(body, row_type).and_then(|kept| {
            kept.check_values(row_type)?;
            id_column.map_or(Ok(()), |column| kept.check_ids(row_type, column))
        });
        fault = fault.or(checked.err().map(|fault| fault.to_string()));
    }
    let file = manifest::FILE.to_owned();
    (rows > 0).then_some(SegmentReport { file, rows, bytes: manifest.len, checksum: 0, fault, cache_fault: None })
}

/// Draws the consequences: a loss makes the corpus faulty, a wrong cache is removed and the corpus loaded again, and so
/// is a corpus whose fault is gone.
pub(crate) fn settle(report: &VerifyReport, corpus: &Corpus, writable: bool) {
    let folder = corpus.folder();
    if let Some((file, reason)) = report.first_fault() {
        corpus.set_faulty(file, reason);
        return;
    }
    let wrong: Vec<_> = report.segments.iter().filter(|segment| segment.cache_fault.is_some()).collect();
    if writable {
        for segment in &wrong {
            let _ = fs::remove_file(cache_path(&folder.join(&segment.file)));
        }
    }
    if !wrong.is_empty() || corpus.version().is_err() {
        corpus.reload();
    }
}

/// `Err`: the segment is lost; `Ok(Err)`: only its cache is wrong.
fn check_segment(
    folder: &Path,
    entry: &SegmentEntry,
    (row_type, id_column): (RowType, Option<&str>),
    small: u64,
) -> Result<Result<(), String>, Fault> {
    let path = folder.join(&entry.file);
    // Read, not mapped: a bad sector then is an error here instead of a signal.
    let (bytes, crc32) = sum_file(&path).map_err(|error| Fault::refused("cannot be read", &error))?;
    if bytes != entry.bytes {
        return Err(Fault::file(format!("it has {bytes} bytes, the manifest says {}", entry.bytes)));
    }
    if crc32 != entry.crc32 {
        return Err(Fault::file(format!("its checksum is {crc32:08x}, the manifest says {:08x}", entry.crc32)));
    }
    let mapped = map_segment(folder, entry, row_type, 0, small)?;
    mapped.check_values(row_type)?;
    id_column.map_or(Ok(()), |column| mapped.check_ids(column))?;
    if row_type.element == Element::Bit {
        // There is no cache.
        return Ok(Ok(()));
    }
    let embeddings: Vec<&[f32]> = mapped.parts.iter().map(|part| &part.embeddings[..]).collect();
    let stamp = Stamp { segment_crc: entry.crc32, dim: row_type.dim };
    match derived::verify(&cache_path(&path), stamp, &embeddings) {
        Err(fault) if fault.is_limit => Err(fault),
        verified => Ok(verified.map_err(|fault| fault.to_string())),
    }
}

fn sum_file(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = fs::File::open(path)?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, crc.finalize())),
            read => {
                crc.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
