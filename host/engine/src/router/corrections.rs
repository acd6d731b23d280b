//! Corrections of a backend's cost model, learnt from outcomes: a factor for jobs of about one size, and one that all
//! sizes share.
//!
//! - A cell holds jobs of one operation whose batch and whose corpus are each of one power of two. Its factor bends the
//!   line where caches and occupancy do.
//! - The shared factor follows a drift that hits every size, such as a processor that is throttled. It learns from a
//!   job only where the one before was of another cell: one size's error alone says nothing of the others.
//! - A factor moves by a share of the error, towards the median of what was seen rather than the mean: threads that
//!   wait for a processor make a few jobs look many times as long, and are no reason to send the others elsewhere.
//! - Relaxed atomics: of two threads that learn at once one may be overwritten, which does not matter to an average.

use std::sync::atomic::{AtomicU32, Ordering};

use megaring_core::Opcode;
use megaring_core::operation::Size;

use crate::cost::Workload;

/// Powers of two of the batch that are told apart: 1 to 65,536 and more.
const BATCHES: usize = 17;
/// Powers of two of the bytes read that are told apart.
const SIZES: usize = 40;
/// Cells of one operation.
const CELLS: usize = BATCHES * SIZES;
/// How much of an error a factor takes over at once, in logarithms, and the largest error that counts. A job that was
/// further off says more about a thread that waited for a processor than about the backend.
const STEP: Step = Step { share: 1.0 / 12.0, most: 0.7 };
/// The same for the outcome of a trial, since there are few of them.
const TRIAL_STEP: Step = Step { share: 1.0 / 3.0, most: 1.1 };
/// The same for a busy span of several jobs.
const SPAN_STEP: Step = Step { share: 1.0 / 2.0, most: 1.1 };
/// Logarithms of factors stay within this: a thousand times either way.
const LARGEST_LOG: f64 = 6.9;
/// A cell that was not measured takes over what its neighbours say, as if one more measurement, this far away, had
/// found no error.
const PRIOR_DISTANCE: f64 = 2.0;

/// Jobs of about one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    opcode: Opcode,
    batch: u8,
    size: u8,
}

impl Cell {
    /// The cell of a job.
    pub(crate) fn of(load: &Workload) -> Self {
        let log = |number: u64| number.max(1).ilog2() as usize;
        let Size { items, bytes, candidates, .. } = load.size;
        let batch = log(items).min(BATCHES - 1) as u8;
        // A search that wants every row reads no codes.
        let size = log(bytes.max(candidates / items.max(1))).min(SIZES - 1) as u8;
        Self { opcode: load.opcode, batch, size }
    }

    /// A number of its own, below [`Cell::COUNT`].
    pub(crate) fn index(self) -> usize {
        self.opcode.index() * CELLS + usize::from(self.batch) * SIZES + usize::from(self.size)
    }

    /// How many there are.
    pub(crate) const COUNT: usize = Opcode::ALL.len() * CELLS;

    /// Steps of a power of two between two cells of one operation.
    fn distance2(self, other: Self) -> f64 {
        let batch = f64::from(self.batch) - f64::from(other.batch);
        let size = f64::from(self.size) - f64::from(other.size);
        batch * batch + size * size
    }

    fn all() -> impl Iterator<Item = Self> {
        Opcode::ALL.into_iter().flat_map(|opcode| {
            let cell = move |index: usize| Self { opcode, batch: (index / SIZES) as u8, size: (index % SIZES) as u8 };
            (0..CELLS).map(cell)
        })
    }
}

/// How far a factor goes for an outcome.
#[derive(Debug, Clone, Copy)]
struct Step {
    share: f64,
    most: f64,
}

impl Step {
    /// In logarithms.
    fn of(self, ratio: f64) -> f64 {
        self.share * ratio.ln().clamp(-self.most, self.most)
    }
}

/// What an outcome is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleKind {
    /// A job that had the backend to itself.
    Job,
    /// The same, and it was sent there to learn.
    Trial,
    /// Several jobs, one after the other.
    Span,
}

/// The factors of one backend. Each cell holds the logarithm of its factor.
pub(crate) struct Corrections {
    cells: Box<[AtomicU32]>,
    shared: [Shared; Opcode::ALL.len()],
}

#[derive(Default)]
struct Shared {
    log: AtomicU32,
    /// The cell that it learnt from last.
    from: AtomicU32,
}

impl Corrections {
    /// Factors that begin with what a calibration's measurements missed the line by: `errors` are the logarithms of
    /// measured over predicted, and what each counts, 1 at most.
    pub(crate) fn seeded(errors: &[(Cell, f64, f64)]) -> Self {
        let seed = |cell: Cell| {
            let (mut sum, mut weight) = (0.0, (PRIOR_DISTANCE * PRIOR_DISTANCE).recip());
            for (measured, error, counts) in errors.iter().filter(|(measured, ..)| measured.opcode == cell.opcode) {
                // A measurement in the cell itself counts most.
                let near = (cell.distance2(*measured) + 0.1).recip();
                let near = near * near * counts;
                (sum, weight) = (sum + near * error, weight + near);
            }
            AtomicU32::new(((sum / weight).clamp(-LARGEST_LOG, LARGEST_LOG) as f32).to_bits())
        };
        Self { cells: Cell::all().map(seed).collect(), shared: Default::default() }
    }

    /// What the line's time is to be multiplied with.
    pub(crate) fn factor(&self, cell: Cell) -> f64 {
        f64::from(load(&self.cells[cell.index()]) + load(&self.shared[cell.opcode.index()].log)).exp()
    }

    /// Learns that a job took `ratio` times what [`Self::factor`] and the line had said.
    pub(crate) fn learn(&self, cell: Cell, ratio: f64, from: SampleKind) {
        if !ratio.is_finite() || ratio < 0.0 {
            return;
        }
        let step = match from {
            SampleKind::Job => STEP,
            SampleKind::Trial => TRIAL_STEP,
            SampleKind::Span => SPAN_STEP,
        };
        add(&self.cells[cell.index()], step.of(ratio));
        let shared = &self.shared[cell.opcode.index()];
        // Off by one, so that the first cell is not taken for the one before the first job.
        let from = cell.index() as u32 + 1;
        if shared.from.swap(from, Ordering::Relaxed) != from {
            add(&shared.log, STEP.of(ratio));
        }
    }
}

fn load(log: &AtomicU32) -> f32 {
    f32::from_bits(log.load(Ordering::Relaxed))
}

fn add(log: &AtomicU32, step: f64) {
    let sum = (f64::from(load(log)) + step).clamp(-LARGEST_LOG, LARGEST_LOG);
    log.store((sum as f32).to_bits(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell_of(opcode: Opcode, items: u64, bytes: u64) -> Cell {
        Cell::of(&Workload { opcode, size: Size { items, bytes, ..Size::default() } })
    }

    fn cell(items: u64, bytes: u64) -> Cell {
        cell_of(Opcode::Search, items, bytes)
    }

    #[test]
    fn searches_that_want_every_row_are_told_apart_by_their_corpus_too() {
        let of = |items, bytes, candidates| {
            let size = Size { items, bytes, candidates, ..Size::default() };
            Cell::of(&Workload { opcode: Opcode::Search, size })
        };
        assert_eq!(of(4, 0, 4 * 1_024), of(4, 1_024, 40));
        assert_ne!(of(4, 0, 4 * 1_024), of(4, 0, 4 * 2_048));
    }

    /// Jobs of a cell that take `truth` times the line, until it is known.
    fn teach(corrections: &Corrections, cell: Cell, truth: f64, jobs: usize) {
        for _ in 0..jobs {
            corrections.learn(cell, truth / corrections.factor(cell), SampleKind::Job);
        }
    }

    #[test]
    fn every_size_has_a_cell_of_its_own() {
        let mut seen = vec![false; Cell::COUNT];
        for cell in Cell::all() {
            assert!(!std::mem::replace(&mut seen[cell.index()], true));
        }
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(cell(0, 0), cell(1, 1));
        assert_eq!(cell(u64::MAX, u64::MAX).index() % CELLS, CELLS - 1);
        assert_ne!(cell(1, 1_024), cell(1, 2_048));
        assert_eq!(cell(5, 1_024), cell(7, 2_047));
    }

    #[test]
    fn one_size_is_learnt_without_the_others() {
        let corrections = Corrections::seeded(&[]);
        teach(&corrections, cell(1, 1_000), 2.0, 100);
        assert!((corrections.factor(cell(1, 1_000)) - 2.0).abs() < 0.05);
        assert!((corrections.factor(cell(64, 1_000)) - 1.0).abs() < 0.1, "{}", corrections.factor(cell(64, 1_000)));
        let other = cell_of(Opcode::Score, 1, 1_000);
        assert_eq!(corrections.factor(other), 1.0);
    }

    #[test]
    fn a_drift_of_all_is_learnt_for_all() {
        for truth in [3.0, 1.0 / 3.0] {
            let corrections = Corrections::seeded(&[]);
            for round in 0..100 {
                let cell = cell(1 << (round % 8), 1_000);
                teach(&corrections, cell, truth, 1);
            }
            let unseen = corrections.factor(cell(512, 1 << 20));
            assert!((unseen / truth).ln().abs() < 0.5, "{unseen} for {truth}");
        }
    }

    #[test]
    fn a_few_jobs_that_took_far_too_long_are_no_drift() {
        let corrections = Corrections::seeded(&[]);
        for job in 0..2_000 {
            let took = if job % 10 == 0 { 50.0 } else { 1.0 };
            corrections.learn(cell(1, 1), took / corrections.factor(cell(1, 1)), SampleKind::Job);
        }
        let factor = corrections.factor(cell(1, 1));
        assert!((1.0..1.2).contains(&factor), "{factor}");
    }

    #[test]
    fn an_outlier_moves_it_little_and_what_is_no_ratio_not_at_all() {
        let corrections = Corrections::seeded(&[]);
        corrections.learn(cell(1, 1), 1e9, SampleKind::Job);
        let moved = corrections.factor(cell(1, 1));
        assert!(moved > 1.1 && moved < 1.3, "{moved}");
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            corrections.learn(cell(1, 1), bad, SampleKind::Trial);
        }
        assert_eq!(corrections.factor(cell(1, 1)), moved);
    }

    #[test]
    fn factors_stay_within_bounds() {
        let corrections = Corrections::seeded(&[]);
        for _ in 0..10_000 {
            corrections.learn(cell(1, 1), 0.0, SampleKind::Trial);
        }
        assert!(corrections.factor(cell(1, 1)) > 1e-7);
    }

    #[test]
    fn what_was_measured_is_where_it_begins_and_fades_with_distance() {
        let corrections = Corrections::seeded(&[
            (cell(1, 1 << 10), 2f64.ln(), 1.0),
            (cell(1, 1 << 10), 9.0, 1e-3),
            (cell(1 << 10, 1 << 10), 0.5f64.ln(), 1.0),
        ]);
        assert!((corrections.factor(cell(1, 1 << 10)) - 2.0).abs() < 0.1);
        assert!((corrections.factor(cell(1 << 10, 1 << 10)) - 0.5).abs() < 0.05);
        let (near, far) = (corrections.factor(cell(2, 1 << 10)), corrections.factor(cell(1, 1 << 30)));
        assert!(near > 1.3 && near < 2.0, "{near}");
        assert!((far - 1.0).abs() < 0.05, "{far}");
    }
}
