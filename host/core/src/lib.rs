//! The vocabulary every other crate speaks: operations, corpora in memory, the backend trait, errors, and the code that
//! makes answers exact. No I/O, no threads of its own (finishing borrows rayon's), no unsafe code.
//!
//! [`operation`] has the list of operations; each one's definition is in the file of its name. The numeric contract
//! lives here too: [`exact`] defines the score of a query and a row; [`screen`] says how far an approximate score may
//! stray from it; [`rescore`] turns candidates into the one answer that is the same on every backend. [`encode`] does
//! the same for the 5-D encoder: a backend only finds keyword masks, the coordinates come from one place.

pub mod aligned;
pub mod backend;
pub mod corpus;
mod describe;
pub mod encode;
pub mod error;
pub mod exact;
pub mod lists;
pub mod matrix;
pub mod metric;
pub mod nearest;
pub mod nop;
pub mod operation;
pub mod rescore;
pub mod score;
pub mod screen;
pub mod search;
pub mod texts;

pub use backend::{Backend, BackendKind, BackendStatus, Capabilities, Lacking, Residency};
pub use error::{Error, Violation};
pub use metric::{Dtype, Metric};
pub use operation::{Answered, Opcode, Operation};
