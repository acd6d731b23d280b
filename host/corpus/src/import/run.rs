//! A whole import: as it is where that is possible, else rewritten.

use std::path::Path;
use std::sync::mpsc::sync_channel;

use megaring_core::{Error, Violation};

use super::{Format, Import, Progress};
use crate::append::{Appended, Mode};
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
    /// What was converted, left behind or rewritten, in sentences.
    pub notes: Vec<String>,
}

/// Adds all rows of a file to an existing corpus, as one append. An Arrow IPC file of a segment's form is copied as it
/// is.
///
/// # Errors
/// What the file holds, as [`super::open`] says it, and as [`Store::append`]; on any error the corpus is as before.
pub fn run(store: &Store, corpus: &str, import: Import, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    run_as(store, corpus, import, Mode::Append, progress)
}

/// [`run`], or the same in the place of rows that have the ids of the file's.
///
/// # Errors
/// As [`run`].
pub fn run_as(
    store: &Store,
    corpus: &str,
    mut import: Import,
    mode: Mode,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    let format = import.format();
    let mut notes = Vec::new();
    if let Some(path) = import.as_is.take().filter(|_| import.first.is_some()) {
        match adopt(store, corpus, &path, mode, import.skip_invalid)? {
            Adopted::Done(appended) => {
                let bytes = import.progress().bytes_total;
                progress(Progress { bytes_read: bytes, bytes_total: bytes, rows: appended.rows as u64, skipped: 0 });
                notes.push("the file is copied and served as it is, without being rewritten".to_owned());
                return Ok(Report { appended, format, as_is: true, skipped: 0, first_skipped: None, notes });
            }
            Adopted::NeedsRewrite(reason) => notes.push(format!("the file is rewritten: {reason}")),
        }
    }
    let mut appender = store.append_as(corpus, mode)?;
    // The next rows are read while these are written. Where these are refused, nobody waits for the next.
    let (sender, receiver) = sync_channel(1);
    let read = move || {
        while let Some(rows) = import.next() {
            if sender.send((rows, import.progress())).is_err() {
                break;
            }
        }
        import
    };
    let reader = std::thread::Builder::new().name("megaring-import".into()).spawn(read);
    let reader = reader.map_err(|error| Error::Internal(format!("no thread to read with: {error}")))?;
    for (rows, came_to) in receiver {
        appender.push(rows?)?;
        progress(came_to);
    }
    let import = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let appended = appender.commit()?;
    progress(import.progress());
    notes.extend(import.notes());
    let (skipped, first_skipped) = (import.progress().skipped, import.first_skipped().cloned());
    Ok(Report { appended, format, as_is: false, skipped, first_skipped, notes })
}

/// A file with rows that are to be left out must be rewritten.
fn adopt(store: &Store, corpus: &str, path: &Path, mode: Mode, skip_invalid: bool) -> Result<Adopted, Error> {
    match store.adopt_as(corpus, path, mode) {
        Err(Error::Invalid(found)) if skip_invalid => Ok(Adopted::NeedsRewrite(found.to_string())),
        adopted => adopted,
    }
}
