//! Scores against the definition, bit for bit, on the test adapter with float64 and without.

mod arithmetic;

use std::ops::Range;

use megaring_core::exact::{reported, score};

use super::*;
use crate::gpu::Gpu;
use crate::testing::{gpus, part, run};

/// Numbers that are the same in every run.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Of the kind that embeddings have.
    fn common(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// From all of float32's finite values, those at its ends more often than others.
    fn wild(&mut self) -> f32 {
        let sign = if self.below(2) == 0 { 1.0 } else { -1.0 };
        sign * match self.below(8) {
            0 => 0.0,
            1 => f32::from_bits(self.below(0x0080_0000) as u32),
            2 => 1e38 * (1.0 + self.common()),
            3 => f32::MAX,
            4 => f32::from_bits(1),
            5 => self.common(),
            _ => f32::from_bits(self.below(0x7F80_0000) as u32),
        }
    }

    /// Integers and halves: sums that cancel, and many that are the same.
    fn coarse(&mut self) -> f32 {
        (self.below(9) as f32 - 4.0) / 2.0
    }
}

/// A corpus and what is asked of it.
struct Case {
    queries: Vec<f32>,
    rows: Vec<f32>,
    dim: usize,
    named: Option<Vec<u32>>,
    /// Where parts end, but for the last.
    cuts: Vec<usize>,
    /// Each part in a round of its own.
    streamed: bool,
    /// Most bytes of a binding.
    binding: usize,
}

impl Case {
    fn new(dim: usize, items: usize, rows: usize, draw: impl FnMut() -> f32) -> Self {
        let mut values = std::iter::repeat_with(draw);
        let queries = values.by_ref().take(items * dim).collect();
        let rows = values.take(rows * dim).collect();
        Self { queries, rows, dim, named: None, cuts: vec![], streamed: false, binding: 128 << 20 }
    }

    fn count(&self) -> usize {
        self.rows.len() / self.dim
    }

    fn job(&self, metric: Metric) -> ScoreJob<'_> {
        ScoreJob { queries: &self.queries, dim: self.dim, metric, named: self.named.as_deref(), rows: self.count() }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.dim..][..self.dim]
    }

    fn expected(&self, metric: Metric) -> Vec<f32> {
        let all: Vec<u32> = (0..self.count() as u32).collect();
        let wanted = self.named.as_ref().unwrap_or(&all);
        let pairs = self.queries.chunks_exact(self.dim).flat_map(|query| wanted.iter().map(move |row| (query, *row)));
        pairs.map(|(query, row)| reported(score(metric, query, self.row(row as usize)))).collect()
    }

    fn parts(&self, gpu: &Gpu) -> Vec<Part> {
        let ends = self.cuts.iter().copied().chain([self.count()]);
        let mut begin = 0;
        let mut ranges: Vec<Range<usize>> = ends.map(|end| std::mem::replace(&mut begin, end)..end).collect();
        ranges.retain(|range| !range.is_empty());
        let upload = |range: Range<usize>| {
            let rows = &self.rows[range.start * self.dim..range.end * self.dim];
            let norms2: Vec<f64> = range.clone().map(|row| exact::norm2(self.row(row))).collect();
            part(gpu, bytemuck::cast_slice(rows), bytemuck::cast_slice(&norms2), range)
        };
        ranges.into_iter().map(upload).collect()
    }

    fn answer(&self, gpu: &Gpu, metric: Metric) -> Vec<f32> {
        let len = self.expected(metric).len() * 4;
        let mut operation = Score::new(self.job(metric), len, self.binding, gpu.traits).expect("the job is sound");
        let parts = self.parts(gpu);
        let rounds = if self.streamed { parts.into_iter().map(|part| vec![part]).collect() } else { vec![parts] };
        let bytes = run(gpu, &mut operation, &rounds, len);
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Holds the answers to the definition, for every metric.
    fn check(&self, gpu: &Gpu) {
        for metric in Metric::OF_FLOATS {
            let (found, expected) = (self.answer(gpu, metric), self.expected(metric));
            let wrong = found.iter().zip(&expected).position(|(found, expected)| found.to_bits() != expected.to_bits());
            let what = wrong.map(|at| (at, found[at], expected[at]));
            assert_eq!(what, None, "{metric:?}, {:?}, dim {}, {} rows", gpu.traits, self.dim, self.count());
        }
    }
}

#[test]
fn scores_are_the_definitions() {
    let mut draws = Draws(1);
    for gpu in gpus() {
        for dim in [1, 7, 8, 9, 128, 384, 768, 1536, 4096] {
            for (items, rows) in [(1, 33), (3, 1), (4, 16), (6, 65), (19, 20)] {
                Case::new(dim, items, rows, || draws.common()).check(gpu);
            }
        }
        for rows in [0, 1, 15, 16, 17, 31, 32, 255, 300, 20_000] {
            Case::new(5, 5, rows, || draws.common()).check(gpu);
            Case::new(3, 1, rows, || draws.common()).check(gpu);
        }
        Case::new(9, 0, 20, || 1.0).check(gpu);
    }
}

#[test]
fn values_of_every_size_are_scored_to_the_last_bit() {
    let mut draws = Draws(2);
    for gpu in gpus() {
        for dim in [1, 2, 7, 9, 40, 300] {
            for items in [1, 7] {
                Case::new(dim, items, 200, || draws.wild()).check(gpu);
                Case::new(dim, items, 200, || draws.coarse()).check(gpu);
                // All of them subnormal, and all at the other end.
                Case::new(dim, items, 200, || f32::from_bits(draws.below(0x0080_0000) as u32)).check(gpu);
                Case::new(dim, items, 200, || -draws.common().signum() * f32::MAX).check(gpu);
            }
        }
    }
}

#[test]
fn a_norm_of_zero_gives_a_cosine_of_zero() {
    let mut draws = Draws(3);
    for gpu in gpus() {
        let mut case = Case::new(12, 6, 50, || draws.common());
        case.queries[12..36].fill(0.0);
        case.rows[60..120].fill(-0.0);
        // Products below float64's range do not exist, so this norm is not zero.
        case.rows[120..132].fill(0.0);
        case.rows[121] = f32::from_bits(1);
        case.check(gpu);
    }
}

#[test]
fn sums_that_cancel_keep_what_is_left() {
    let mut draws = Draws(4);
    for gpu in gpus() {
        let mut case = Case::new(64, 5, 64, || draws.common());
        // Each lane takes away what it had, but for the last bits.
        for row in case.rows.chunks_exact_mut(64) {
            for at in 32..64 {
                row[at] = -row[at - 32];
            }
            row[40] = row[40].next_up();
        }
        for query in case.queries.chunks_exact_mut(64) {
            query.copy_within(0..32, 32);
            query[0] *= 1e20;
            query[32] *= 1e20;
        }
        case.check(gpu);
    }
}

#[test]
fn lanes_are_combined_in_the_definitions_order() {
    for gpu in gpus() {
        for items in [1, 6] {
            // Two lanes take each other away, and with them whatever they have met before.
            let mut case = Case::new(8, items, 64, || 1.0);
            for (pair, row) in case.rows.chunks_exact_mut(8).enumerate() {
                row.iter_mut().enumerate().for_each(|(lane, value)| *value = (1 << lane) as f32);
                (row[pair / 8], row[pair % 8]) = (1e20, -1e20);
            }
            case.check(gpu);
        }
    }
}

#[test]
fn parts_rounds_and_blocks_make_no_difference() {
    let mut draws = Draws(5);
    for gpu in gpus() {
        for (cuts, streamed, binding) in [
            (vec![48, 64, 176], false, 128 << 20),
            (vec![48, 64, 176], true, 128 << 20),
            // Room for the sums of a tile or less, of all entries with some queries, and of all queries with some
            // entries.
            (vec![112], false, 8),
            (vec![112], true, 240),
            (vec![], false, 8 * 240 * 5),
            (vec![112], false, 8 * 11 * 40),
        ] {
            let mut case = Case::new(20, 11, 240, || draws.common());
            (case.cuts, case.streamed, case.binding) = (cuts, streamed, binding);
            case.check(gpu);
            case.named = Some((0..170).map(|_| draws.below(240) as u32).collect());
            case.check(gpu);
        }
    }
}

#[test]
fn named_rows_are_answered_in_the_order_they_are_named() {
    let mut draws = Draws(6);
    for gpu in gpus() {
        let mut case = Case::new(17, 3, 100, || draws.common());
        case.cuts = vec![32, 80];
        for named in [vec![], vec![99], vec![31, 32, 31, 32, 31], vec![5; 70], (0..100).rev().collect(), vec![85, 99]] {
            case.named = Some(named);
            case.check(gpu);
            let one = Case {
                queries: case.queries[..17].to_vec(),
                rows: case.rows.clone(),
                named: case.named.clone(),
                ..case
            };
            one.check(gpu);
            case = Case { queries: case.queries, ..one };
        }
    }
}

#[test]
fn faulty_jobs_are_refused() {
    let traits = Traits { subgroups: false, float64: false };
    let new = |job, result| Score::new(job, result, 1 << 20, traits).err();
    let sound = ScoreJob { queries: &[0.0; 6], dim: 3, metric: Metric::Dot, named: None, rows: 4 };
    assert_eq!(new(sound, 32), None);
    assert_eq!(new(sound, 31), Some(Status::ResultTooSmall));
    assert_eq!(new(ScoreJob { dim: 4, ..sound }, 32), Some(Status::BadDescriptor));
    assert_eq!(new(ScoreJob { dim: 0, ..sound }, 32), Some(Status::BadDescriptor));
    assert_eq!(new(ScoreJob { named: Some(&[3, 0, 3]), ..sound }, 24), None);
    assert_eq!(new(ScoreJob { named: Some(&[3, 4]), ..sound }, 32), Some(Status::BadDescriptor));
    assert_eq!(new(ScoreJob { named: Some(&[0]), rows: 0, ..sound }, 32), Some(Status::BadDescriptor));
}
