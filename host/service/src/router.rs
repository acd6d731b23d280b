//! Step 4, the router: which backend does a job, and why.
//!
//! A caller's wish comes first: a backend that was asked for by name is used or refused, never replaced. Otherwise the first running
//! backend that serves the operation is taken.

use megaring_core::job::Shape;
use megaring_core::{BackendKind, Error};

use crate::lane::Lane;

/// A choice, with its reason in plain words.
pub struct Route<'a> {
    /// Where the job goes.
    pub lane: &'a Lane,
    /// Why there.
    pub reason: &'static str,
}

/// Backends that run, and those that do not.
pub struct Router {
    lanes: Vec<Lane>,
    absent: Vec<(BackendKind, String)>,
}

impl Router {
    /// A router over running lanes; `absent` says of the other kinds why they are not there.
    #[must_use]
    pub fn new(lanes: Vec<Lane>, absent: Vec<(BackendKind, String)>) -> Self {
        Self { lanes, absent }
    }

    /// Picks the lane for a job of this shape.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] with the probe's reason, when the wish cannot be met or nothing serves the operation.
    pub fn route(&self, shape: &Shape, wish: Option<BackendKind>) -> Result<Route<'_>, Error> {
        let serves = |lane: &&Lane| lane.capabilities().operations.contains(&shape.opcode);
        match wish {
            Some(kind) => {
                let lane = self.lanes.iter().filter(serves).find(|lane| lane.kind() == kind);
                let lane = lane.ok_or_else(|| Error::BackendUnavailable { kind, reason: self.absence(kind, shape) })?;
                Ok(Route { lane, reason: "the caller asked for it" })
            }
            None => {
                let lane = self.lanes.iter().find(serves);
                let kind = BackendKind::Cpu;
                let lane = lane.ok_or_else(|| Error::BackendUnavailable { kind, reason: self.absence(kind, shape) })?;
                Ok(Route { lane, reason: "it is the first that runs and serves the operation" })
            }
        }
    }

    /// Lanes that run.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Kinds that do not run, with the reason.
    #[must_use]
    pub fn absent(&self) -> &[(BackendKind, String)] {
        &self.absent
    }

    fn absence(&self, kind: BackendKind, shape: &Shape) -> String {
        let known = self.absent.iter().find(|(absent, _)| *absent == kind).map(|(_, reason)| reason.clone());
        known.unwrap_or_else(|| format!("it does not serve {}", shape.opcode.name()))
    }
}
