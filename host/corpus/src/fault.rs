//! Why a file cannot be used, before it is known whether that is a lost segment, a bad import or a reason to rewrite.

use std::io;

use arrow_schema::ArrowError;
use megaring_core::{Error, Violation};

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The column, where one is to blame.
    pub(crate) column: Option<String>,
    /// Row within the file, where one is to blame.
    pub(crate) row: Option<u64>,
    pub(crate) reason: String,
    /// Whether the values are fine and only their form keeps the file from being read in place.
    pub(crate) rewritable: bool,
    /// Whether the system has no room for reading it, which says nothing of the file: it may be read later.
    pub(crate) is_limit: bool,
}

impl Fault {
    /// The file as a whole is wrong.
    pub(crate) fn file(reason: impl Into<String>) -> Self {
        Self { column: None, row: None, reason: reason.into(), rewritable: false, is_limit: false }
    }

    /// A column is wrong.
    pub(crate) fn column(column: &str, reason: impl Into<String>) -> Self {
        Self { column: Some(column.to_owned()), ..Self::file(reason) }
    }

    /// A value is wrong.
    pub(crate) fn value(column: &str, row: usize, reason: impl Into<String>) -> Self {
        Self { row: Some(row as u64), ..Self::column(column, reason) }
    }

    /// The system refuses to read it: `what` says so.
    pub(crate) fn refused(what: &str, error: &io::Error) -> Self {
        Self { is_limit: limit(error).is_some(), ..Self::file(format!("{what}: {}", told(error))) }
    }

    /// The same, for a file that is only of another form.
    pub(crate) fn form(self) -> Self {
        Self { rewritable: true, ..self }
    }

    /// The same, in a batch whose first row has the number `start` in the file.
    pub(crate) fn shifted(self, start: usize) -> Self {
        Self { row: self.row.map(|row| row + start as u64), ..self }
    }

    /// As an error about a file somebody handed in.
    pub(crate) fn into_invalid(self, file: &str) -> Error {
        if self.is_limit {
            return Error::Storage(format!("{file} {self}"));
        }
        Error::Invalid(self.into_violation(file))
    }

    /// As what is wrong with a file somebody handed in.
    pub(crate) fn into_violation(self, file: &str) -> Violation {
        let field = match self.column {
            Some(column) => format!("{file}: {column}"),
            None => file.to_owned(),
        };
        Violation { field, row: self.row, description: self.reason }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.column, self.row) {
            (Some(column), Some(row)) => write!(f, "column {column}, row {row}: {}", self.reason),
            (Some(column), None) => write!(f, "column {column}: {}", self.reason),
            (None, _) => f.write_str(&self.reason),
        }
    }
}

/// What is full, where the system refuses for want of room for one more, and what helps.
fn limit(error: &io::Error) -> Option<&'static str> {
    // Of every Unix here.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::OutOfMemory => Some(
            "this process has as many mappings, or as much address space, as it may; raise `vm.max_map_count` or \
             `ulimit -v`, or merge segments with `corpus compact`",
        ),
        Some(EMFILE) if cfg!(unix) => Some("this process has as many open files as it may; raise `ulimit -n`"),
        Some(ENFILE) if cfg!(unix) => Some("the system has as many open files as it may; raise `fs.file-max`"),
        _ => None,
    }
}

/// A refusal of the system, with what helps where something is full.
pub(crate) fn told(error: &io::Error) -> String {
    limit(error).map_or_else(|| error.to_string(), str::to_owned)
}

/// Why an element of a vector cannot be.
pub(crate) fn not_finite(element: usize, value: impl std::fmt::Display) -> String {
    format!("element {element} is {value}; every value must be finite")
}

/// Runs a decoder that may panic on corrupt input (the Arrow and Parquet readers assert some of what they read).
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the file is corrupt: its decoder gave up".to_owned()),
    }
}
