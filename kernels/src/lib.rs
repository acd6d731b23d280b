//! The CUDA backend.

pub mod abi;
pub mod counters;
pub mod device;
pub mod probe;

pub use probe::Unavailable;
