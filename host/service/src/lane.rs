//! A lane: one backend, its ring, and the thread that reaps it.

use std::sync::Arc;

use megaring_core::{Backend, BackendKind, Capabilities};
use megaring_ring::{JobRing, Status};

use crate::reaper::Reaper;

/// A running backend with its ring.
pub struct Lane {
    backend: Box<dyn Backend>,
    ring: Arc<JobRing>,
    reaper: Reaper,
}

impl Lane {
    /// Puts a backend that already consumes `ring` into service.
    ///
    /// # Errors
    /// When the system refuses the reaper's thread.
    pub fn new(backend: Box<dyn Backend>, ring: Arc<JobRing>) -> std::io::Result<Self> {
        let reaper = Reaper::start(backend.kind(), ring.clone())?;
        Ok(Self { backend, ring, reaper })
    }

    /// Which kind of hardware this is.
    #[must_use]
    pub fn kind(&self) -> BackendKind {
        self.backend.kind()
    }

    /// What the backend can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        self.backend.capabilities()
    }

    /// The ring its jobs go through.
    #[must_use]
    pub fn ring(&self) -> &Arc<JobRing> {
        &self.ring
    }
}

impl Drop for Lane {
    /// Ends the backend first, so nobody touches a payload any more, then completes what is left.
    fn drop(&mut self) {
        self.ring.close();
        self.backend.shutdown();
        self.ring.reap();
        self.ring.fail_outstanding(Status::ShuttingDown);
        self.reaper.stop();
    }
}
