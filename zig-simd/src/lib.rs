//! The SIMD kernels, written in Zig, behind safe Rust wrappers.
//!
//! # Promises
//! - A [`KernelSet`] exists only for an instruction set that this CPU has; whoever holds one may call every kernel of
//!   it.
//! - Wrappers check every length and row number and return a [`SimdError`]; none panics, allocates (but for the buffers
//!   it is asked to make) or blocks.
//! - Exact kernels ([`KernelSet::exact_dot`], [`KernelSet::sweep`], [`KernelSet::distances5`] and their kin), the
//!   screen's candidates and the masks of texts are the same bits on every instruction set.
//!
//! # Limits
//! x86-64 and aarch64. Up to 32,768 dimensions in the int8 screen, 65,536 states in a keyword automaton.

pub mod backend;
mod encode;
mod error;
mod exact;
mod filter;
pub mod gate;
mod isa;
mod kernels;
mod nearest;
mod nibbles;
pub mod roofline;
mod screen;
mod sweep;
mod table;
mod top_rows;

pub use encode::{KeywordAutomaton, Mask};
pub use error::{IsaError, SimdError};
pub use isa::{CpuFeatures, Isa};
pub use kernels::KernelSet;
pub use nearest::PointColumns;
pub use nibbles::NibbleRows;
pub use screen::{Candidate, OtherSide, Pair, QueryCodes, QueryParams, ScreenQueries, ScreenRows};
pub use sweep::{NARROW_DIM, SweepQuery, SweepRows};
pub use top_rows::{ONLINE_K, TopRows};
