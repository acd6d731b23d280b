//! What can go wrong, and what can be wrong with a file.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error as ThisError;

use crate::record::RECORD_DATA_BYTES;

/// Why something could not be done with a ledger.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// Segments cannot be of this size.
    #[error("a segment holds 2^4 to 2^24 records, not 2^{0}")]
    SegmentSize(u32),
    /// Another process, or another `Ledger` of this one, writes here.
    #[error("the ledger {} is in use by {holder}, and has one writer at a time", folder.display())]
    InUse {
        /// The ledger's folder.
        folder: PathBuf,
        /// Who has it, as far as the lock file tells.
        holder: String,
    },
    /// An event has more data than a record holds.
    #[error("event {position} has {len} bytes of data, a record holds {RECORD_DATA_BYTES}")]
    DataTooLong {
        /// Its position among those that were to be appended.
        position: usize,
        /// Bytes of its data.
        len: usize,
    },
    /// The system refused something.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed to make records last. They are there, and can be read, but may be gone after a crash of the
    /// machine; the next sync writes them anew.
    #[error("cannot sync {}: {source}; records from {durable} on are not known to last over a crash", path.display())]
    Sync {
        /// The file or folder.
        path: PathBuf,
        /// How many leading records of the ledger are known to last.
        durable: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{} is damaged{}: {flaw}", path.display(), at(*index))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The record, where one is to blame.
        index: Option<u64>,
        /// What is wrong.
        flaw: Flaw,
    },
    /// What was asked for was in a segment that has been removed.
    #[error("records below {first} have been removed; their segments' roots are all that is left of them")]
    Removed {
        /// The first record that is left.
        first: u64,
    },
    /// There are not that many records.
    #[error("{wanted} is beyond the ledger, which has {size} records")]
    Beyond {
        /// What was asked for: an index or a size.
        wanted: u64,
        /// Records that there are, or in the tree that was asked about.
        size: u64,
    },
}

impl Error {
    /// For [`Result::map_err`]: the system refused to do `what` to `path`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, index: Option<u64>, flaw: Flaw) -> Self {
        Self::Damaged { path: path.to_owned(), index, flaw }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// An append that was not finished. The events that were appended before stay, since a reader may have seen them; the
/// rest can be appended later.
#[derive(Debug, ThisError)]
#[error("{} events were appended, then: {source}", appended.end - appended.start)]
pub struct AppendError {
    /// Indices of the records that were appended, of the first events that were given.
    pub appended: Range<u64>,
    /// Why the rest was not.
    pub source: Error,
}

/// What is wrong with a record or a file.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Flaw {
    /// A record's check is another.
    #[error("the record's check does not agree with its bytes")]
    Check,
    /// A record's sequence is another.
    #[error("the record has sequence {found}, which belongs elsewhere")]
    Sequence {
        /// The sequence that it has.
        found: u64,
    },
    /// A record claims more data than it holds.
    #[error("the record claims {found} bytes of data")]
    DataLength {
        /// What it claims.
        found: u64,
    },
    /// The file ends in a part of a record.
    #[error("the file ends in {bytes} bytes of a record; opening the ledger for writing cuts them off")]
    Torn {
        /// Bytes of that part.
        bytes: u64,
    },
    /// The header's check is another.
    #[error("its header is not as it was written")]
    Header,
    /// The file was written by a later program.
    #[error("it is of version {found}; this program reads version {}", crate::segment::VERSION)]
    Version {
        /// Its version.
        found: u32,
    },
    /// The header belongs to another file.
    #[error("its header is that of another file")]
    Foreign,
    /// The file has not the records that it should.
    #[error("it has {found} records, not {expected}")]
    Records {
        /// What it has.
        found: u64,
        /// What it should have.
        expected: u64,
    },
    /// The file is gone.
    #[error("the file is missing")]
    Missing,
    /// The root over a segment's records is another.
    #[error("the root over its records is not the one that was kept")]
    Root,
    /// An entry of the roots file is not as it was written.
    #[error("the entry of segment {segment} is not as it was written")]
    Entry {
        /// The segment.
        segment: u64,
    },
    /// The roots file has no entry of a segment.
    #[error("there is no entry of segment {segment}")]
    NoEntry {
        /// The segment.
        segment: u64,
    },
}

fn at(index: Option<u64>) -> String {
    index.map(|index| format!(" at record {index}")).unwrap_or_default()
}
