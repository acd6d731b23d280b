//! The ring: slot ABI, memory, submission, completion and event rings, wait strategies.

pub mod memory;
pub mod slot;
pub mod sync;
