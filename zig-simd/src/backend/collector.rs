//! The fused top k of a screen: keeps what can still be among the k best, and says from which upper bound on a row can.
//!
//! With L the k-th largest lower bound seen, a row whose upper bound is below L is not in the answer: k rows are surely
//! better. The collector raises its threshold to L whenever it is tidied and forgets everything below, and never a row
//! that it may need.

use megaring_core::lists::{self, ListWriter};

use crate::Candidate as Bounded;

/// Candidates of one query, or of one query within one chunk of rows.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    k: usize,
    limit: usize,
    threshold: f32,
    overflowed: bool,
    kept: Vec<Bounded>,
}

impl Collector {
    /// Collects for the k best (k at least 1). More than `limit` survivors overflow it: every row must then be scored
    /// anyway. No row whose upper bound is below `threshold` is of interest; it is at least `-f32::MAX`.
    pub(crate) fn new(k: usize, limit: usize, threshold: f32) -> Self {
        Self { k, limit, threshold, overflowed: false, kept: Vec::new() }
    }

    /// Upper bounds below this one are of no interest. Infinite once overflowed.
    pub(crate) fn threshold(&self) -> f32 {
        if self.overflowed { f32::INFINITY } else { self.threshold }
    }

    /// Takes what a screen let pass.
    pub(crate) fn extend(&mut self, found: impl Iterator<Item = Bounded>) {
        if !self.overflowed {
            self.kept.extend(found);
        }
    }

    /// Takes over a threshold found elsewhere.
    pub(crate) fn raise(&mut self, threshold: f32) {
        self.threshold = self.threshold.max(threshold);
    }

    /// Whether tidying is worth its cost.
    pub(crate) fn is_untidy(&self) -> bool {
        self.kept.len() >= 2 * self.k + 64
    }

    /// Raises the threshold by what is known now and forgets what is below it. `relax` makes a threshold of the k-th
    /// lower bound, less the slack that bounds leave out.
    pub(crate) fn tidy(&mut self, relax: impl Fn(f32) -> f32) {
        if self.kept.len() > self.k {
            let (_, kth, _) = self.kept.select_nth_unstable_by(self.k - 1, |x, y| y.lower.total_cmp(&x.lower));
            self.threshold = self.threshold.max(relax(kth.lower));
        }
        let threshold = self.threshold;
        self.kept.retain(|candidate| candidate.upper >= threshold);
        if self.kept.len() > self.limit {
            self.overflow();
        }
    }

    /// Gives up on telling rows apart.
    pub(crate) fn overflow(&mut self) {
        self.overflowed = true;
        self.kept = Vec::new();
    }

    /// Joins what another chunk of rows left.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.raise(other.threshold);
        if other.overflowed {
            self.overflow();
        }
        self.extend(other.kept.iter().copied());
    }

    /// Tidies a last time and writes the list.
    pub(crate) fn write(&mut self, relax: impl Fn(f32) -> f32, mut list: ListWriter<'_>) {
        self.tidy(relax);
        if self.overflowed {
            return list.every_row();
        }
        let cells: Vec<lists::Candidate> =
            self.kept.iter().map(|bounded| lists::Candidate { row: bounded.row, upper: bounded.upper }).collect();
        list.put(&cells);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use megaring_core::lists::{Candidate, ListHeader};

    fn bounded(row: u32, lower: f32, upper: f32) -> Bounded {
        Bounded { row, lower, upper }
    }

    fn rows(collector: &mut Collector) -> Vec<u32> {
        let mut header = ListHeader { count: 0, flags: 0 };
        let mut cells = vec![Candidate { row: 0, upper: 0.0 }; 8];
        collector.write(|kth| kth, ListWriter { header: &mut header, cells: &mut cells });
        let mut rows: Vec<u32> = cells[..header.count as usize].iter().map(|cell| cell.row).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn rows_that_k_others_surely_beat_are_forgotten() {
        let mut collector = Collector::new(2, 100, f32::MIN);
        collector.extend(
            [bounded(0, 0.5, 0.7), bounded(1, 0.6, 0.8), bounded(2, 0.1, 0.49), bounded(3, 0.4, 0.5)].into_iter(),
        );
        assert_eq!(rows(&mut collector), [0, 1, 3], "0.5 is the second largest lower bound; row 3 reaches it");
        assert_eq!(collector.threshold(), 0.5);
    }

    #[test]
    fn ties_all_stay() {
        let mut collector = Collector::new(1, 100, f32::MIN);
        collector.extend((0..5).map(|row| bounded(row, 1.0, 1.0)));
        assert_eq!(rows(&mut collector), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn too_many_survivors_mean_every_row() {
        let mut collector = Collector::new(1, 3, f32::MIN);
        collector.extend((0..5).map(|row| bounded(row, 1.0, 1.0)));
        let mut header = ListHeader { count: 9, flags: 0 };
        collector.write(|kth| kth, ListWriter { header: &mut header, cells: &mut [] });
        assert_eq!(header, ListHeader { count: 0, flags: megaring_core::lists::EVERY_ROW });
        assert_eq!(collector.threshold(), f32::INFINITY);
    }

    #[test]
    fn chunks_join_to_what_one_pass_would_have_kept() {
        let all: Vec<Bounded> =
            (0..50).map(|i| bounded(i, (i as f32 * 37.0) % 11.0, (i as f32 * 37.0) % 11.0 + 0.5)).collect();
        let mut whole = Collector::new(3, 100, f32::MIN);
        whole.extend(all.iter().copied());
        let mut joined = Collector::new(3, 100, f32::MIN);
        for part in all.chunks(7) {
            let mut chunk = Collector::new(3, 100, f32::MIN);
            chunk.extend(part.iter().copied());
            chunk.tidy(|kth| kth);
            joined.absorb(&chunk);
        }
        assert_eq!(rows(&mut joined), rows(&mut whole));
    }
}
