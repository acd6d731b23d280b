//! Step 4, the router: which backend does a job, and why.
//!
//! A caller's wish comes first: a backend that was asked for by name is used or refused, never replaced. Otherwise [`choose`] decides among
//! the lanes that work and serve the operation. One on an emulated device is not among them: it would be slower than the CPU backend.

use std::borrow::Cow;
use std::fmt::Write as _;

use megaring_core::job::Shape;
use megaring_core::{BackendKind, Error, Opcode};

use crate::lane::Lane;

/// A choice, with its reason in plain words.
pub struct Route<'a> {
    /// Where the job goes.
    pub lane: &'a Lane,
    /// Its place in [`Router::lanes`].
    pub index: usize,
    /// Why there.
    pub reason: Cow<'static, str>,
}

/// Backends that run, and those that do not.
pub struct Router {
    lanes: Vec<Lane>,
    absent: Vec<(BackendKind, String)>,
}

/// Multiply-adds from which on a job is worth a GPU's round trip: some milliseconds of a CPU.
const GPU_WORK: u128 = 1 << 26;
/// Bytes of text from which on encoding is.
const GPU_TEXT: usize = 4 << 20;

/// Which of the kinds that `has` tells to be there does a job of this shape, and why. A fixed rule of thumb: one that is measured on
/// the machine replaces it.
#[must_use]
pub fn choose(shape: &Shape, has: impl Fn(BackendKind) -> bool) -> Option<(BackendKind, &'static str)> {
    let gpu = [BackendKind::Cuda, BackendKind::Wgpu].into_iter().find(|kind| has(*kind));
    if let Some(gpu) = gpu.filter(|_| is_large(shape)) {
        return Some((gpu, "the job is large enough for a GPU"));
    }
    if has(BackendKind::Cpu) {
        return Some((BackendKind::Cpu, "nothing that serves the operation answers such a job sooner"));
    }
    let kind = BackendKind::ALL.into_iter().find(|kind| has(*kind))?;
    Some((kind, "nothing else that serves the operation is there"))
}

fn is_large(shape: &Shape) -> bool {
    match shape.opcode {
        Opcode::Masks => shape.rows >= GPU_TEXT,
        // Every row is a candidate then, and scored by the CPU.
        Opcode::Search if shape.k.saturating_mul(2) >= shape.rows => false,
        Opcode::Nop | Opcode::Search | Opcode::Score | Opcode::Nearest => {
            shape.items as u128 * shape.rows as u128 * shape.dim as u128 >= GPU_WORK
        }
    }
}

impl Router {
    /// A router over running lanes; `absent` says of the other kinds why they are not there.
    #[must_use]
    pub fn new(lanes: Vec<Lane>, absent: Vec<(BackendKind, String)>) -> Self {
        Self { lanes, absent }
    }

    /// Picks the lane for a job of this shape. Lanes that have failed get no jobs, and those in `tried` not this one.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] with the reason, when the wish cannot be met or nothing serves the operation.
    pub fn route(&self, shape: &Shape, wish: Option<BackendKind>, tried: &[usize]) -> Result<Route<'_>, Error> {
        let unavailable = |kind| Error::BackendUnavailable { kind, reason: self.absence(kind, shape) };
        let able = |index: &usize| {
            let lane = &self.lanes[*index];
            let able = lane.capabilities();
            let serves = able.operations.contains(&shape.opcode) && (wish.is_some() || !able.emulated);
            serves && !tried.contains(index) && lane.fault().is_none()
        };
        let of_kind = |kind| (0..self.lanes.len()).filter(|index| self.lanes[*index].kind() == kind).find(able);
        let (index, reason) = match wish {
            Some(kind) => (of_kind(kind).ok_or_else(|| unavailable(kind))?, Cow::Borrowed("the caller asked for it")),
            None => {
                let (kind, reason) =
                    choose(shape, |kind| of_kind(kind).is_some()).ok_or_else(|| unavailable(BackendKind::Cpu))?;
                // Asked again: the lane may have failed since.
                (of_kind(kind).ok_or_else(|| unavailable(kind))?, self.explained(reason))
            }
        };
        Ok(Route { lane: &self.lanes[index], index, reason })
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

    /// A reason, and which lanes are out of service, if any: that is why a job may be where it would not be otherwise.
    fn explained(&self, reason: &'static str) -> Cow<'static, str> {
        let mut explained = Cow::Borrowed(reason);
        for lane in &self.lanes {
            if let Some(fault) = lane.fault() {
                // Writing to a string does not fail.
                let _ = write!(explained.to_mut(), "; {} is out of service: {fault}", lane.kind());
            }
        }
        explained
    }

    fn absence(&self, kind: BackendKind, shape: &Shape) -> String {
        let known = self.absent.iter().find(|(absent, _)| *absent == kind).map(|(_, reason)| reason.clone());
        let failed = || self.lanes.iter().filter(|lane| lane.kind() == kind).find_map(Lane::fault);
        known.or_else(failed).unwrap_or_else(|| format!("it does not serve {}", shape.opcode.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_jobs_go_to_a_gpu_and_the_rest_to_the_cpu() {
        use BackendKind::{Cpu, Cuda, Wgpu};
        let shape = |opcode, items, rows, dim| Shape { opcode, items, rows, dim, k: 10 };
        let search = |items| shape(Opcode::Search, items, 1 << 10, 1 << 8);
        let (all, none): (&[_], &[_]) = (&[Cpu, Cuda, Wgpu], &[]);
        for (shape, there, expected) in [
            (search(1 << 8), all, Some(Cuda)),
            (search((1 << 8) - 1), all, Some(Cpu)),
            (search(1 << 8), &[Cpu, Wgpu], Some(Wgpu)),
            (search((1 << 8) - 1), &[Cpu, Wgpu], Some(Cpu)),
            (search(1 << 8), &[Cpu], Some(Cpu)),
            (search(1), &[Cuda, Wgpu], Some(Cuda)),
            (search(1 << 20), &[Wgpu], Some(Wgpu)),
            (search(1), none, None),
            (shape(Opcode::Score, 1 << 8, 1 << 10, 1 << 8), all, Some(Cuda)),
            (shape(Opcode::Score, 1, 1 << 10, 1 << 8), all, Some(Cpu)),
            (shape(Opcode::Nearest, 1 << 12, 3_276, 5), all, Some(Cpu)),
            (shape(Opcode::Nearest, 1 << 12, 3_277, 5), all, Some(Cuda)),
            (shape(Opcode::Masks, 1, GPU_TEXT, 1), all, Some(Cuda)),
            (shape(Opcode::Masks, 1 << 20, GPU_TEXT - 1, 1), all, Some(Cpu)),
            (shape(Opcode::Nop, 0, 0, 0), all, Some(Cpu)),
            (shape(Opcode::Search, usize::MAX, u32::MAX as usize, 1 << 15), all, Some(Cuda)),
        ] {
            let chosen = choose(&shape, |kind| there.contains(&kind));
            assert_eq!(chosen.map(|(kind, _)| kind), expected, "{shape:?} with {there:?}");
            assert!(chosen.is_none_or(|(_, reason)| !reason.is_empty()));
        }
    }
}
