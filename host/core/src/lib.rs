//! The vocabulary every other crate speaks: operations, jobs, corpora in memory, the backend trait, errors, and the code that
//! makes answers exact. No I/O, no threads of its own (rescoring borrows rayon's), no unsafe code.
//!
//! The numeric contract lives here. [`exact`] defines the score of a query and a row; [`screen`] says how far an approximate
//! score may stray from it; [`rescore`] turns candidates into the one answer that is the same on every backend. [`encode`] does
//! the same for the 5-D encoder: a backend only finds keyword masks ([`keyword`]), the coordinates come from one place.

pub mod aligned;
pub mod arena_format;
pub mod backend;
pub mod corpus;
pub mod encode;
pub mod error;
pub mod exact;
pub mod job;
pub mod keyword;
pub mod nearest;
pub mod op;
pub mod profile;
pub mod rescore;
pub mod screen;

pub use backend::{Backend, BackendKind, BackendStatus, Capabilities, Lacking, Residency};
pub use error::{Error, Violation};
pub use op::{Dtype, Metric, Opcode};
