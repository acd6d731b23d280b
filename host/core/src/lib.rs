//! The vocabulary every other crate speaks: operations, corpora in memory, the backend trait, errors, and the code that
//! makes answers exact. No I/O, no threads of its own (finishing borrows rayon's), no unsafe code.
//!
//! [`operations!`] is the list of operations; each one's definition is in the file of its name, and [`operation`] says
//! what all of them have. The numeric contract lives here too: [`exact`] defines the score of a query and a row;
//! [`screen`] says how far an approximate score may stray from it; [`rescore`] turns candidates into the one answer
//! that is the same on every backend. [`encode`] does the same for the 5-D encoder: a backend only finds keyword masks,
//! and the coordinates come from one place.

/// Hands the list of operations to a macro: its number in a slot, its module in this crate, and its type. The module's
/// name is the stem that the operation has in every other part too (`encode.cuh`, `encode.wgsl`, `rpc Encode`,
/// `megaring encode`), but for kernels that several operations share.
///
/// ```
/// macro_rules! names {
///     ($($number:literal $module:ident::$operation:ident,)*) => { [$(stringify!($module)),*] };
/// }
/// assert_eq!(megaring_core::operations!(names)[1], "search");
/// ```
#[macro_export]
macro_rules! operations {
    ($then:ident) => {
        $then! {
            1 nop::Nop,
            2 search::Search,
            3 score::Score,
            4 encode::Encode,
            5 nearest::Nearest,
            6 checksum::Checksum,
        }
    };
}

// One for each operation.
pub mod checksum;
pub mod encode;
pub mod nearest;
pub mod nop;
pub mod score;
pub mod search;

// What they share.
pub mod aligned;
pub mod backend;
pub mod corpus;
mod describe;
pub mod error;
pub mod exact;
pub mod gate;
pub mod lists;
pub mod matrix;
pub mod metric;
pub mod nibbles;
pub mod operation;
pub mod rescore;
pub mod screen;
pub mod texts;
pub mod visible;

pub use backend::{Backend, BackendKind, BackendStatus, Capabilities, Helper, Lacking, Residency};
pub use error::{Error, Violation};
pub use metric::{Dtype, Element, Metric, RowType};
pub use operation::{Answered, Opcode, Operation};
