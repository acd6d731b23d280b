//! The wgpu backend: compute shaders, through Vulkan, Metal or DX12, that work on the ring's jobs on any GPU.
//!
//! A shader can neither run for ever nor read memory that the host is writing. So a thread, the dispatcher
//! (`dispatch.rs`), takes slots from the ring and plans an `operation` for each (`plan.rs`): what is uploaded, which
//! `stage`s are dispatched, what comes back. Several slots share a submission, and the next one is queued before the
//! last one's answers are read. Corpora lie in buffers within the adapter's binding limit and a memory budget
//! (`residency.rs`); one that does not fit is streamed.
//!
//! Shaders answer with candidates and proven bounds, with masks, or with exact scores: `operation/` has the proofs.
//! What they assume of an adapter is tested when the backend starts (`self_test.rs`); an adapter that fails is not
//! used.

mod adapter;
mod backend;
mod batch;
mod counters;
mod cut;
mod dispatch;
mod gpu;
mod open;
mod operation;
mod plan;
mod residency;
mod script;
mod self_test;
mod shared;
mod stage;
mod stream;
#[cfg(test)]
mod testing;
mod trial;
mod workspace;

pub use adapter::{AdapterReport, adapters};
pub use backend::{DEFAULT_MEMORY, WgpuBackend, WgpuOptions, start};
pub use gpu::Loss;

/// Why the backend cannot be used, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    /// In plain words.
    pub reason: String,
}

impl Unavailable {
    pub(crate) fn new(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }
}
