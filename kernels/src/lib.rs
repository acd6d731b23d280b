//! The CUDA backend.

pub mod abi;
pub mod device;
