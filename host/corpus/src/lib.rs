//! Corpora: Arrow IPC segments mapped in place, derived columns, import, manifest.
//!
//! A data folder holds one folder per corpus. In it, the log `manifest.log` names the segments and holds the rows of
//! small appends; each segment is an Arrow IPC file (`seg-000001.arrow`) beside a cache of what is computed from it
//! (`seg-000001.derived`).
//!
//! ```
//! use megaring_core::matrix::Matrix;
//! use megaring_corpus::{Access, Rows, Store};
//!
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("megaring-data");
//! let store = Store::open(&folder, Access::Exclusive)?;
//! store.create("notes", 2)?;
//! let mut appender = store.append("notes")?;
//! let embeddings = Matrix { rows: 3, dim: 2, values: vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8] };
//! appender.push(Rows { embeddings, memory_ids: vec![10, 11, 12], ..Rows::default() })?;
//! appender.commit()?;
//! let version = store.view("notes")?;
//! assert_eq!((version.rows(), version.dim(), version.generation()), (3, 2, 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Promises
//! - A change is one record of the log, with one sync: few rows themselves, or a segment, which is written under a
//!   temporary name, synced, renamed and only then named; and the numbers of rows that are deleted. A crash at any
//!   moment leaves the corpus as before or after the change. What [`Appender::commit`] and [`Store::delete`] have
//!   acknowledged stays.
//! - Small segments, segments of which many rows are deleted, and rows that are in the log, are merged in the
//!   background; rows keep their order, and those behind deleted ones close up. Searches and changes go on meanwhile,
//!   and a crash leaves the corpus as before or after ([`Store::compact`] merges all).
//! - A view is one version, and stays what it is. Rows that are deleted in it, or that a [`Selection`] leaves out, are
//!   hidden: no search of it answers them.
//! - Embeddings of a segment are read where it is mapped. Only small segments and rows of the log are on the heap
//!   ([`OpenOptions::small_bytes`]).
//! - A fault in one corpus (a manifest that cannot be read, a size or checksum that does not match) makes the use of
//!   that corpus [`DataLoss`](megaring_core::Error::DataLoss); the other corpora go on.
//! - Nothing under this crate's `src` panics on what a file holds.
//!
//! # Limits
//! - Opening checks sizes, structure and, for files up to [`OpenOptions::check_bytes`], checksums. [`Store::verify`]
//!   checks all.
//! - Segments are immutable once renamed in. If somebody else truncates a mapped file, the system ends the process
//!   (SIGBUS) when the missing part is read; overwriting one in place changes answers until `verify` finds it.
//! - Rows are merged with neighbours that have the same columns. Appends that take turns with other columns leave a
//!   piece each.
//! - A log that something else has cut short at its end is taken for one that a crash cut short.
//! - A corpus holds at most 2³² - 1 rows.

mod append;
mod arrow_file;
mod change;
mod columns;
mod compact;
mod copy;
mod corpus;
mod derived;
mod description;
mod durable;
mod export;
mod fault;
mod fetch;
mod filter;
mod ids;
pub mod import;
mod load;
mod lock;
mod manifest;
mod mapping;
mod pairs;
mod piece;
mod prefix;
mod rows;
mod segment;
mod segment_writer;
mod select;
mod sent;
mod store;
mod text_ids;
mod verify;
mod version;

pub use append::{Appended, Appender, Mode};
pub use change::Deleted;
pub use compact::Compacted;
pub use description::{Description, SegmentDescription, State};
pub use export::ExportFile;
pub use fetch::{Fetched, fetch, find, find_each, find_texts};
pub use filter::{Comparison, Filter, Value};
pub use manifest::check_name;
pub use pairs::{PairFile, Pairs};
pub use roaring::RoaringTreemap;
pub use rows::{Further, Rows};
pub use select::{IdList, Selected, Selection, Wanted};
pub use store::{Access, Adopted, CreateOptions, OpenOptions, Store};
pub use text_ids::TextIds;
pub use verify::{SegmentReport, VerifyReport};
