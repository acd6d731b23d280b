//! Who asks, and on what terms.

use std::time::Instant;

use megaring_core::BackendKind;
use megaring_core::gate::Role;

use crate::charge::Charge;

/// A caller's terms.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The tenant's name; empty where callers are not told apart.
    pub tenant: String,
    /// When the answer stops being of use.
    pub deadline: Option<Instant>,
    /// The backend the caller insists on.
    pub backend: Option<BackendKind>,
    /// Answers the caller can take in all, such as hits; a job that finds more fails as soon as it does. `None` is no
    /// limit.
    pub max_answers: Option<usize>,
    /// The call that asks, by its id, and its caller's role, as the gate let them in; for the record alone.
    pub passed: Option<(u16, Role)>,
    /// What the job is charged to, where that is limited.
    pub charge: Option<Charge>,
}
