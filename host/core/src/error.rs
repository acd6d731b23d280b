//! What can go wrong, once for all crates. The service turns each variant into one gRPC status (see
//! `megaring_server::error`), the command line into one sentence and an exit status.

use std::time::Duration;

use thiserror::Error;

use crate::backend::BackendKind;
use crate::gate::Denial;

/// One thing wrong with an input: which field, which row of it, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field as the caller knows it, such as `queries.data` or `memories[3].importance`.
    pub field: String,
    /// Zero-based row within the field, where rows make sense.
    pub row: Option<u64>,
    /// What is wrong, and what would be right.
    pub description: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.row {
            Some(row) => write!(f, "{} (row {row}): {}", self.field, self.description),
            None => write!(f, "{}: {}", self.field, self.description),
        }
    }
}

/// Every failure a caller can see.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The request itself is wrong; sending it again will not help.
    #[error("{0}")]
    Invalid(Violation),
    /// No corpus of that name.
    #[error("no corpus named {name:?}")]
    CorpusNotFound {
        /// The name asked for.
        name: String,
    },
    /// A corpus of that name exists.
    #[error("a corpus named {name:?} exists already")]
    CorpusExists {
        /// The name asked for.
        name: String,
    },
    /// The service is full: a later try may succeed.
    #[error("{what} is full; try again in {} ms", retry_after.as_millis())]
    Exhausted {
        /// What is full: the ring, the arena, the permits.
        what: &'static str,
        /// When a new try is worthwhile.
        retry_after: Duration,
    },
    /// The gate refused the call before it cost anything.
    #[error("{0}")]
    Denied(Denial),
    /// The caller's deadline passed; nothing half-done is kept.
    #[error("the deadline passed while the job was {stage}")]
    DeadlineExceeded {
        /// Where the job was.
        stage: &'static str,
    },
    /// The caller went away.
    #[error("the call was cancelled")]
    Cancelled,
    /// The service drains and takes no new work.
    #[error("the service is draining and takes no new work")]
    Draining,
    /// Only one of these can be done at a time.
    #[error("{what} is under way already; wait until it is done")]
    UnderWay {
        /// What is done.
        what: &'static str,
    },
    /// A forced backend is not there, or the state does not allow the call.
    #[error("backend {kind} is not available: {reason}")]
    BackendUnavailable {
        /// The backend asked for.
        kind: BackendKind,
        /// The probe's reason.
        reason: String,
    },
    /// The corpus lacks what the call needs.
    #[error("corpus {name:?} {reason}")]
    Precondition {
        /// The corpus.
        name: String,
        /// What it lacks.
        reason: String,
    },
    /// What is named is not there, in words.
    #[error("{0}")]
    Unknown(String),
    /// Things are such that the call cannot be done, in words.
    #[error("{0}")]
    WrongState(String),
    /// The ledger is not what was written, in words.
    #[error("{0}")]
    LedgerDamaged(String),
    /// Stored bytes are not what was written.
    #[error("corpus {corpus:?}, segment {segment:?}: {reason}")]
    DataLoss {
        /// The corpus.
        corpus: String,
        /// The file.
        segment: String,
        /// What does not match.
        reason: String,
    },
    /// The storage refused, for instance because the disk is full. Nothing of the write is kept.
    #[error("storage: {0}")]
    Storage(String),
    /// A fault of ours.
    #[error("internal fault: {0}")]
    Internal(String),
}

impl Error {
    /// An [`Error::Invalid`] about a whole field.
    #[must_use]
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(Violation { field: field.into(), row: None, description: description.into() })
    }

    /// An [`Error::Invalid`] about one row of a field.
    #[must_use]
    pub fn row(field: impl Into<String>, row: u64, description: impl Into<String>) -> Self {
        Self::Invalid(Violation { field: field.into(), row: Some(row), description: description.into() })
    }
}

/// The first row (`width` values each) that holds a non-finite value, with the column and the value.
#[must_use]
pub fn first_non_finite(values: &[f32], width: usize) -> Option<(usize, usize, f32)> {
    // The exponent bits tell; one pass that the compiler turns into SIMD, and a search only on failure.
    let bad = |v: &f32| v.to_bits() & 0x7f80_0000 == 0x7f80_0000;
    let any = values.chunks(1024).position(|chunk| chunk.iter().fold(false, |found, v| found | bad(v)))?;
    let at = values[any * 1024..].iter().position(bad)? + any * 1024;
    Some((at / width.max(1), at % width.max(1), values[at]))
}
