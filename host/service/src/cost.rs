//! What a job costs: a model of each backend, linear in what a job consists of, fitted to measurements.
//!
//! The time of a job that has a backend to itself is
//!
//! ```text
//! fixed + items * per_item + bytes * per_byte + multiply_adds * per_multiply_add + candidates * per_candidate
//! ```
//!
//! with coefficients of its own for each operation, and what is not on the device yet is uploaded before it for `fixed + bytes * per_byte`. That
//! is rough: caches and occupancy bend the line. What the line misses is learnt on top of it (`router/corrections.rs`).

use std::time::Duration;

use megaring_core::job::Shape;
use megaring_core::{BackendKind, Opcode};
use serde::{Deserialize, Serialize};

pub use self::fit::{Fit, FitError, Sample, fit, fit_upload};

mod fit;

/// What a job consists of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// Queries or memories.
    pub items: f64,
    /// Bytes that are read at least once: codes, rows, coordinates or texts.
    pub bytes: f64,
    /// Multiply-adds of all pairs, as defined; none for encoding.
    pub multiply_adds: f64,
    /// Elements of rows that are scored once more in full precision; for scores, the numbers that are answered.
    pub candidates: f64,
}

/// The largest coefficient that is believed, in nanoseconds: with it a sum of terms stays a number.
const LARGEST: f64 = 1e15;
/// Number of coefficients: a fixed one, and one for each part.
pub const COEFFICIENTS: usize = 5;

impl Parts {
    /// Of a job.
    #[must_use]
    pub fn of(shape: &Shape) -> Self {
        let (items, rows, dim) = (shape.items as f64, shape.rows as f64, shape.dim as f64);
        let scores_all = shape.k.saturating_mul(2) >= shape.rows;
        let listed = if scores_all { rows } else { shape.k as f64 };
        match shape.opcode {
            Opcode::Nop => Self { items: 0.0, bytes: 0.0, multiply_adds: 0.0, candidates: 0.0 },
            // Nothing is screened then: every row is a candidate.
            Opcode::Search if scores_all => {
                Self { items, bytes: 0.0, multiply_adds: 0.0, candidates: items * listed * dim }
            }
            Opcode::Search => {
                let (bytes, candidates) = (rows * dim, items * listed * dim);
                Self { items, bytes, multiply_adds: items * rows * dim, candidates }
            }
            Opcode::Score => {
                let bytes = rows * dim * size_of::<f32>() as f64;
                Self { items, bytes, multiply_adds: items * rows * dim, candidates: items * rows }
            }
            // Here the rows are the bytes of all texts.
            Opcode::Encode => Self { items, bytes: rows, multiply_adds: 0.0, candidates: 0.0 },
            Opcode::Nearest => {
                let bytes = rows * dim * size_of::<f64>() as f64;
                Self { items, bytes, multiply_adds: items * rows * dim, candidates: items * listed * dim }
            }
        }
    }

    /// What the coefficients are multiplied with, in their order.
    #[must_use]
    pub fn terms(&self) -> [f64; COEFFICIENTS] {
        [1.0, self.items, self.bytes, self.multiply_adds, self.candidates]
    }
}

/// Nanoseconds of one operation on one backend. None is negative.
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
    /// In the order of [`Parts::terms`].
    #[must_use]
    pub fn from_array(values: [f64; COEFFICIENTS]) -> Self {
        let [fixed_ns, per_item_ns, per_byte_ns, per_multiply_add_ns, per_candidate_ns] = values;
        Self { fixed_ns, per_item_ns, per_byte_ns, per_multiply_add_ns, per_candidate_ns }
    }

    /// In the order of [`Parts::terms`].
    #[must_use]
    pub fn to_array(self) -> [f64; COEFFICIENTS] {
        [self.fixed_ns, self.per_item_ns, self.per_byte_ns, self.per_multiply_add_ns, self.per_candidate_ns]
    }

    /// Nanoseconds of a job; at least one, so that its logarithm is a number.
    #[must_use]
    pub fn ns(&self, parts: &Parts) -> f64 {
        let terms = parts.terms().into_iter().zip(self.to_array());
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
    /// Empty jobs.
    pub nop: Coefficients,
    /// Searches.
    pub search: Coefficients,
    /// Scores of all pairs.
    pub score: Coefficients,
    /// Encoding.
    pub masks: Coefficients,
    /// Nearest points.
    pub nearest: Coefficients,
    /// Bringing a corpus.
    pub upload: Upload,
}

impl CostModel {
    /// What to go by where nothing was measured: the order of magnitude of a laptop's processor, and of a GPU behind a bus. With it, a GPU gets
    /// jobs from some ten million multiply-adds on.
    #[must_use]
    pub fn assumed(kind: BackendKind) -> Self {
        let of = |values| Coefficients::from_array(values);
        match kind {
            BackendKind::Cpu => Self {
                nop: of([4e3, 0.0, 0.0, 0.0, 0.0]),
                search: of([1e4, 2e3, 0.01, 0.008, 0.5]),
                score: of([1e4, 1e3, 0.05, 0.05, 1.0]),
                masks: of([1e4, 50.0, 0.5, 0.0, 0.0]),
                nearest: of([1e4, 2e3, 0.05, 0.1, 10.0]),
                upload: Upload::default(),
            },
            BackendKind::Cuda | BackendKind::Wgpu => {
                // A kernel that polls answers sooner than a submission through a graphics driver.
                let fixed = if kind == BackendKind::Cuda { 2e4 } else { 1.5e5 };
                Self {
                    nop: of([fixed, 0.0, 0.0, 0.0, 0.0]),
                    search: of([fixed, 1e3, 0.002, 0.0002, 0.5]),
                    score: of([fixed, 1e3, 0.002, 0.01, 0.5]),
                    masks: of([fixed, 20.0, 0.1, 0.0, 0.0]),
                    nearest: of([fixed, 1e3, 0.002, 0.005, 10.0]),
                    upload: Upload { fixed_ns: 1e5, per_byte_ns: 0.15 },
                }
            }
        }
    }

    /// An operation's coefficients.
    #[must_use]
    pub fn of(&self, opcode: Opcode) -> &Coefficients {
        match opcode {
            Opcode::Nop => &self.nop,
            Opcode::Search => &self.search,
            Opcode::Score => &self.score,
            Opcode::Encode => &self.masks,
            Opcode::Nearest => &self.nearest,
        }
    }

    /// An operation's coefficients, to be set.
    pub fn of_mut(&mut self, opcode: Opcode) -> &mut Coefficients {
        match opcode {
            Opcode::Nop => &mut self.nop,
            Opcode::Search => &mut self.search,
            Opcode::Score => &mut self.score,
            Opcode::Encode => &mut self.masks,
            Opcode::Nearest => &mut self.nearest,
        }
    }

    /// Time of a job that has the backend to itself and finds there what it needs.
    #[must_use]
    pub fn alone(&self, shape: &Shape) -> Duration {
        Duration::from_nanos(self.of(shape.opcode).ns(&Parts::of(shape)) as u64)
    }

    /// Whether every number can be part of a time.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        Opcode::ALL.into_iter().all(|opcode| self.of(opcode).are_sane()) && self.upload.is_sane()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(opcode: Opcode, items: usize, rows: usize, dim: usize, k: usize) -> Shape {
        Shape { opcode, items, rows, dim, k }
    }

    #[test]
    fn parts_are_what_a_job_reads_and_does() {
        let parts = |shape| Parts::of(&shape).terms();
        assert_eq!(parts(shape(Opcode::Search, 3, 100, 8, 10)), [1.0, 3.0, 800.0, 2_400.0, 240.0]);
        assert_eq!(parts(shape(Opcode::Search, 3, 100, 8, 50)), [1.0, 3.0, 0.0, 0.0, 2_400.0], "all rows are scored");
        assert_eq!(parts(shape(Opcode::Score, 3, 100, 8, 0)), [1.0, 3.0, 3_200.0, 2_400.0, 300.0]);
        assert_eq!(parts(shape(Opcode::Encode, 3, 100, 1, 0)), [1.0, 3.0, 100.0, 0.0, 0.0]);
        assert_eq!(parts(shape(Opcode::Nearest, 3, 100, 5, 2)), [1.0, 3.0, 4_000.0, 1_500.0, 30.0]);
        assert_eq!(parts(shape(Opcode::Nop, 0, 0, 0, 0)), [1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn what_is_assumed_sends_large_jobs_to_a_gpu_and_small_ones_to_the_processor() {
        let [cpu, cuda, wgpu] = BackendKind::ALL.map(CostModel::assumed);
        for model in [cpu, cuda, wgpu] {
            assert!(model.is_sane());
        }
        for opcode in [Opcode::Search, Opcode::Score, Opcode::Nearest] {
            let (small, large) = (shape(opcode, 1, 100, 5, 1), shape(opcode, 1_000, 100_000, 5, 10));
            assert!(cpu.alone(&small) < cuda.alone(&small) && cuda.alone(&small) < wgpu.alone(&small));
            assert!(wgpu.alone(&large) < cpu.alone(&large), "{opcode:?}");
        }
        let texts = |bytes| shape(Opcode::Encode, bytes / 400, bytes, 1, 0);
        assert!(cpu.alone(&texts(4_000)) < cuda.alone(&texts(4_000)));
        assert!(wgpu.alone(&texts(4 << 20)) < cpu.alone(&texts(4 << 20)));
    }

    #[test]
    fn sizes_beyond_everything_give_a_time() {
        let huge = shape(Opcode::Search, usize::MAX, u32::MAX as usize, 1 << 15, 10);
        assert_eq!(CostModel::assumed(BackendKind::Cpu).alone(&huge), Duration::from_nanos(u64::MAX));
        assert_eq!(Coefficients::default().ns(&Parts::of(&huge)), 1.0);
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
