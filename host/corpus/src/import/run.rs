//! A whole import: as it is where that is possible, else rewritten.

use std::path::Path;

use megaring_core::{Error, Violation};

use super::{Format, ImportOptions, Progress, open};
use crate::append::Appended;
use crate::store::{Adopted, Store};

/// What an import did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The append.
    pub appended: Appended,
    /// The file's format.
    pub format: Format,
    /// Whether the file became a segment as it is.
    pub as_is: bool,
    /// Rows left out.
    pub skipped: u64,
    /// The first of them, and why.
    pub first_skipped: Option<Violation>,
    /// What was converted or left behind, in sentences.
    pub notes: Vec<String>,
}

/// Imports a file into an existing corpus, as one append. An Arrow IPC file of a segment's form is copied as it is.
///
/// # Errors
/// As [`open`] and [`Store::append`]; on any error the corpus is as before.
pub fn run(
    store: &Store,
    corpus: &str,
    path: &Path,
    format: Option<Format>,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    let format = match format {
        Some(format) => format,
        None => Format::detect(path)?,
    };
    if format == Format::ArrowFile
        && let Some(report) = adopt(store, corpus, path, options, progress)?
    {
        return Ok(report);
    }
    let mut appender = store.append(corpus)?;
    let options = ImportOptions { dim: Some(appender.dim()), ..options.clone() };
    let mut import = open(path, Some(format), &options)?;
    while let Some(rows) = import.next() {
        appender.push(rows?)?;
        progress(import.progress());
    }
    let appended = appender.commit()?;
    progress(import.progress());
    let (skipped, first_skipped) = (import.progress().skipped, import.first_skipped().cloned());
    Ok(Report { appended, format, as_is: false, skipped, first_skipped, notes: import.notes() })
}

/// `None`: the file must be rewritten, or has bad rows that are to be left out.
fn adopt(
    store: &Store,
    corpus: &str,
    path: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Report>, Error> {
    let appended = match store.adopt(corpus, path) {
        Ok(Adopted::Done(appended)) => appended,
        Ok(Adopted::NeedsRewrite(_)) => return Ok(None),
        Err(Error::Invalid(_)) if options.skip_invalid => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    progress(Progress { bytes_read: bytes, bytes_total: bytes, rows: appended.rows as u64, skipped: 0 });
    let report =
        Report { appended, format: Format::ArrowFile, as_is: true, skipped: 0, first_skipped: None, notes: Vec::new() };
    Ok(Some(report))
}
