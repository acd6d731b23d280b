//! The CUDA backend.

pub mod abi;
pub mod counters;
pub mod device;
pub mod pool;
pub mod probe;
pub mod residency;
pub mod stream;

pub use probe::Unavailable;
