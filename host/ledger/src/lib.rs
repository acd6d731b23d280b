//! The ledger: what the event ring forgets, the ledger keeps.
//!
//! A folder of append-only files of 128-byte [`Record`]s, one for each event, under a Merkle tree (RFC 6962) by which
//! anyone who noted a root can tell later that what came before is still there, and unchanged.
//!
//! Promises:
//! - A record that was appended is never changed and never taken back but by [`Ledger::retain`], which removes whole
//!   segments from the oldest on. Roots and proofs of what is left go on.
//! - What was [synced](Ledger::sync) lasts over a crash of the machine, what was appended over the end of the process.
//!   After either, opening goes on behind the last whole record.
//! - Damage is found: a changed bit of a record, a header or a root is named by [`verify`], and no proof is made from
//!   it.
//! - One writer, any number of readers in any process ([`LedgerView`]), which never hold each other up.
//!
//! Limits:
//! - The tree proves to those who keep roots elsewhere. Whoever can write to the folder can write another ledger.
//! - Damage of the very last record cannot be told from what a crash leaves.
//! - Times are as their sources said: a query for a time reads all records.
//!
//! ```
//! use megaring_ledger::{Entry, Kind, Ledger, Options, verify_inclusion};
//!
//! # let folder = tempfile::tempdir()?;
//! let mut ledger = Ledger::open(folder.path(), Options::default())?;
//! let entry = Entry { opcode: 1, items: 64, ..Entry::default() };
//! ledger.append(&[entry.event(Kind::ANSWERED, 0xfeed, 1_700_000_000_000_000_000, 1.0)?])?;
//! ledger.sync()?;
//!
//! let record = ledger.read(0..1)?.next().ok_or("a record")??;
//! assert_eq!(record.entry(), entry);
//! let proof = ledger.inclusion(0, ledger.size())?;
//! assert!(verify_inclusion(&record.leaf_hash(), 0, ledger.size(), &proof, &ledger.root()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Files
//!
//! | file | |
//! |---|---|
//! | `0000000000000000.seg`, … | segments: a header of 128 bytes, then records; all but the last are full and durable |
//! | `roots` | a header of 128 bytes, then for each full segment its number, the root over it and a CRC-32C: 48 bytes |
//! | `.lock` | held by the writer, with its process id |
//!
//! A header is a magic number, the version of the form, the records of a full segment (binary logarithm), the
//! segment's number and a CRC-32C. Everything is little-endian.

mod disk;
mod error;
mod ledger;
mod lock;
mod merkle;
mod query;
mod record;
mod roots;
mod segment;
mod tree;
mod verify;
mod view;
mod writer;

pub use disk::{Disk, System};
pub use error::{AppendError, Error, Flaw};
pub use ledger::{Ledger, Options};
pub use merkle::{EMPTY_ROOT, Hash, leaf_hash, node_hash, verify_consistency, verify_inclusion};
pub use query::{Query, Records};
pub use record::{Entry, Kind, RECORD_BYTES, RECORD_DATA_BYTES, Record, Reservation};
pub use verify::{Fault, Report, verify};
pub use view::LedgerView;
