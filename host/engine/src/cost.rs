//! What a job costs: a model of each backend, linear in what a job consists of, fitted to measurements.
//!
//! The time of a job that has a backend to itself is
//!
//! ```text
//! fixed + items * per_item + bytes * per_byte + multiply_adds * per_multiply_add + candidates * per_candidate
//! ```
//!
//! with coefficients for each class of operations ([`Class`]), and what is not on the device yet is uploaded before it
//! for `fixed + bytes * per_byte`. That is rough: caches and occupancy bend the line, and operations of one class
//! differ. What the line misses is learnt on top of it (`router/corrections.rs`).

use std::time::Duration;

use megaring_core::operation::{Class, Size};
use megaring_core::{BackendKind, Opcode, Operation};
use serde::{Deserialize, Serialize};

pub use self::fit::{Fit, FitError, Sample, fit, fit_upload};

mod fit;

/// What is done, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Workload {
    /// What is done.
    pub opcode: Opcode,
    /// How much of it.
    pub size: Size,
}

impl Workload {
    /// Of a job.
    #[must_use]
    pub fn of(job: &dyn Operation) -> Self {
        Self { opcode: job.opcode(), size: job.size() }
    }
}

/// The largest coefficient that is believed, in nanoseconds: with it a sum of terms stays a number.
const LARGEST: f64 = 1e15;
/// Number of coefficients: a fixed one, and one for each part.
pub const COEFFICIENTS: usize = 5;

/// What the coefficients are multiplied with, in their order.
#[must_use]
pub fn terms(size: &Size) -> [f64; COEFFICIENTS] {
    let Size { items, bytes, multiply_adds, candidates } = *size;
    [1.0, items as f64, bytes as f64, multiply_adds as f64, candidates as f64]
}

/// Nanoseconds of one class of operations on one backend. None is negative.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coefficients {
    /// Of every job.
    pub fixed_ns: f64,
    /// Of each query or memory.
    pub per_item_ns: f64,
    /// Of each byte read.
    pub per_byte_ns: f64,
    /// Of each multiply-add.
    pub per_multiply_add_ns: f64,
    /// Of each element of a candidate.
    pub per_candidate_ns: f64,
}

impl Coefficients {
    /// In the order of [`terms`].
    #[must_use]
    pub fn from_array(values: [f64; COEFFICIENTS]) -> Self {
        let [fixed_ns, per_item_ns, per_byte_ns, per_multiply_add_ns, per_candidate_ns] = values;
        Self { fixed_ns, per_item_ns, per_byte_ns, per_multiply_add_ns, per_candidate_ns }
    }

    /// In the order of [`terms`].
    #[must_use]
    pub fn to_array(self) -> [f64; COEFFICIENTS] {
        [self.fixed_ns, self.per_item_ns, self.per_byte_ns, self.per_multiply_add_ns, self.per_candidate_ns]
    }

    /// Nanoseconds of a job; at least one, so that its logarithm is a number.
    #[must_use]
    pub fn ns(&self, size: &Size) -> f64 {
        let terms = terms(size).into_iter().zip(self.to_array());
        terms.map(|(term, coefficient)| term * coefficient).sum::<f64>().max(1.0)
    }

    /// Whether they are numbers that a time can be made of.
    #[must_use]
    pub fn are_sane(&self) -> bool {
        let values = self.to_array();
        values.iter().all(|value| (0.0..=LARGEST).contains(value)) && values.iter().any(|value| *value > 0.0)
    }
}

/// Nanoseconds of bringing bytes to a device.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// Of each corpus.
    pub fixed_ns: f64,
    /// Of each byte.
    pub per_byte_ns: f64,
}

impl Upload {
    /// Nanoseconds for so many bytes; nothing for none.
    #[must_use]
    pub fn ns(&self, bytes: u64) -> f64 {
        if bytes == 0 { 0.0 } else { self.fixed_ns + bytes as f64 * self.per_byte_ns }
    }

    /// Whether they are numbers that a time can be made of.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        [self.fixed_ns, self.per_byte_ns].iter().all(|value| (0.0..=LARGEST).contains(value))
    }
}

/// One backend's costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    /// Nothing but the path.
    pub path: Coefficients,
    /// Integer products of codes.
    pub screen: Coefficients,
    /// Products in float64.
    pub exact: Coefficients,
    /// Passes over text.
    pub text: Coefficients,
    /// Distances in 5-D.
    pub points: Coefficients,
    /// Bringing a corpus.
    pub upload: Upload,
}

impl CostModel {
    /// What to go by where nothing was measured: the order of magnitude of a laptop's processor, and of a GPU behind a
    /// bus. With it, a GPU gets jobs from some ten million multiply-adds on.
    #[must_use]
    pub fn assumed(kind: BackendKind) -> Self {
        let of = |values| Coefficients::from_array(values);
        match kind {
            BackendKind::Cpu => Self {
                path: of([4e3, 0.0, 0.0, 0.0, 0.0]),
                screen: of([1e4, 2e3, 0.01, 0.008, 0.5]),
                exact: of([1e4, 1e3, 0.05, 0.05, 1.0]),
                text: of([1e4, 50.0, 0.5, 0.0, 0.0]),
                points: of([1e4, 2e3, 0.05, 0.1, 10.0]),
                upload: Upload::default(),
            },
            BackendKind::Cuda | BackendKind::Wgpu => {
                // A kernel that polls answers sooner than a submission through a graphics driver.
                let fixed = if kind == BackendKind::Cuda { 2e4 } else { 1.5e5 };
                Self {
                    path: of([fixed, 0.0, 0.0, 0.0, 0.0]),
                    screen: of([fixed, 1e3, 0.002, 0.0002, 0.5]),
                    exact: of([fixed, 1e3, 0.002, 0.01, 0.5]),
                    text: of([fixed, 20.0, 0.1, 0.0, 0.0]),
                    points: of([fixed, 1e3, 0.002, 0.005, 10.0]),
                    upload: Upload { fixed_ns: 1e5, per_byte_ns: 0.15 },
                }
            }
        }
    }

    /// A class's coefficients.
    #[must_use]
    pub fn of(&self, class: Class) -> &Coefficients {
        match class {
            Class::Path => &self.path,
            Class::Screen => &self.screen,
            Class::Exact => &self.exact,
            Class::Text => &self.text,
            Class::Points => &self.points,
        }
    }

    /// Puts other coefficients in a class's place.
    pub fn set(&mut self, class: Class, coefficients: Coefficients) {
        match class {
            Class::Path => self.path = coefficients,
            Class::Screen => self.screen = coefficients,
            Class::Exact => self.exact = coefficients,
            Class::Text => self.text = coefficients,
            Class::Points => self.points = coefficients,
        }
    }

    /// Nanoseconds of a job that has the backend to itself and finds there what it needs.
    #[must_use]
    pub fn ns(&self, load: &Workload) -> f64 {
        self.of(load.opcode.class()).ns(&load.size)
    }

    /// Time of a job that has the backend to itself and finds there what it needs.
    #[must_use]
    pub fn alone(&self, load: &Workload) -> Duration {
        Duration::from_nanos(self.ns(load) as u64)
    }

    /// Whether every number can be part of a time.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        Class::ALL.into_iter().all(|class| self.of(class).are_sane()) && self.upload.is_sane()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About what a search of the rows consists of.
    fn load(opcode: Opcode, items: u64, rows: u64, dim: u64, k: u64) -> Workload {
        let elements = rows.saturating_mul(dim);
        let (multiply_adds, candidates) = (items.saturating_mul(elements), items.saturating_mul(k * dim));
        Workload { opcode, size: Size { items, bytes: elements, multiply_adds, candidates } }
    }

    #[test]
    fn what_is_assumed_sends_large_jobs_to_a_gpu_and_small_ones_to_the_processor() {
        let [cpu, cuda, wgpu] = BackendKind::ALL.map(CostModel::assumed);
        for model in [cpu, cuda, wgpu] {
            assert!(model.is_sane());
        }
        for opcode in [Opcode::Search, Opcode::Score, Opcode::Nearest] {
            let (small, large) = (load(opcode, 1, 100, 5, 1), load(opcode, 1_000, 100_000, 5, 10));
            assert!(cpu.alone(&small) < cuda.alone(&small) && cuda.alone(&small) < wgpu.alone(&small));
            assert!(wgpu.alone(&large) < cpu.alone(&large), "{opcode:?}");
        }
        let texts =
            |bytes| Workload { opcode: Opcode::Encode, size: Size { items: bytes / 400, bytes, ..Size::default() } };
        assert!(cpu.alone(&texts(4_000)) < cuda.alone(&texts(4_000)));
        assert!(wgpu.alone(&texts(4 << 20)) < cpu.alone(&texts(4 << 20)));
    }

    #[test]
    fn sizes_beyond_everything_give_a_time() {
        let huge = load(Opcode::Search, u64::MAX, u64::from(u32::MAX), 1 << 15, 10);
        assert_eq!(CostModel::assumed(BackendKind::Cpu).alone(&huge), Duration::from_nanos(u64::MAX));
        assert_eq!(Coefficients::default().ns(&huge.size), 1.0);
        assert_eq!(Upload { fixed_ns: 5.0, per_byte_ns: 2.0 }.ns(0), 0.0);
        assert_eq!(Upload { fixed_ns: 5.0, per_byte_ns: 2.0 }.ns(10), 25.0);
    }

    #[test]
    fn numbers_that_are_no_times_are_told() {
        let of = Coefficients::from_array;
        assert!(of([1.0, 0.0, 0.0, 0.0, 0.0]).are_sane());
        for bad in [[0.0; 5], [-1.0, 2.0, 0.0, 0.0, 0.0], [f64::NAN; 5], [f64::INFINITY, 0.0, 0.0, 0.0, 0.0]] {
            assert!(!of(bad).are_sane(), "{bad:?}");
        }
    }
}
