//! A lane: one backend, its ring, and the thread that reaps it.

use std::sync::Arc;

use megaring_core::{Backend, BackendKind, Capabilities, Error};
use megaring_ring::{JobRing, Status};

use crate::reaper::Reaper;

/// A running backend with its ring.
pub struct Lane {
    backend: Box<dyn Backend>,
    ring: Arc<JobRing>,
    reaper: Reaper,
}

/// Why a job got no answer on a lane.
#[derive(Debug)]
pub enum Setback {
    /// This backend did not do it; another one may. The error is the caller's where none does.
    Backend(Error),
    /// Asking another backend would not help.
    Final(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
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

    /// The backend itself.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The ring its jobs go through.
    #[must_use]
    pub fn ring(&self) -> &Arc<JobRing> {
        &self.ring
    }

    /// Whether it takes jobs: [`Self::fault`] without the words.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.backend.health().is_ok() && !self.ring.is_closed()
    }

    /// Why it takes no jobs, where it takes none: the backend says that it has failed, or its ring is closed.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        match self.backend.health() {
            Err(reason) => Some(reason),
            Ok(()) if self.ring.is_closed() => Some("its ring is closed".into()),
            Ok(()) => None,
        }
    }
}

impl Drop for Lane {
    /// Ends the backend first, so nobody touches a payload any more, then completes what is left. Runs that a failed
    /// device left in quarantine go with the ring.
    fn drop(&mut self) {
        self.ring.close();
        self.backend.shutdown();
        self.ring.reap();
        self.ring.fail_outstanding(Status::ShuttingDown);
        self.reaper.stop();
        let counters = self.backend.counters();
        if !counters.is_empty() {
            tracing::debug!(backend = %self.kind(), ?counters, "backend ended");
        }
    }
}
