//! The ring: slot ABI, memory, submission, completion and event rings, wait strategies.

pub mod event_ring;
pub mod memory;
pub mod slot;
pub mod sync;
