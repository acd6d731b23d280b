//! The top k of a screen: rows that may be among the k best of each of several queries.
//!
//! With L the k-th largest lower bound seen, a row whose upper bound is below L is not in the answer: k rows are surely
//! better. That makes L the query's threshold. Up to [`ONLINE_K`] the kernel itself holds the best lower bounds and
//! raises the threshold with every row; beyond, the threshold rises whenever there is no more room.

use crate::error::SimdError;
use crate::screen::{Candidate, QueryParams};

/// The largest k for which the kernel raises thresholds itself.
pub const ONLINE_K: usize = 32;
/// Lower bounds in a register.
const REGISTER: usize = 16;
/// Room for rows beyond those wanted.
const SPARE: usize = 512;
/// Places that are kept for the next queries; 12 MiB.
const KEPT: usize = 1 << 20;

/// Candidates of several queries, in one allocation; reused from batch to batch without allocating again.
#[derive(Debug, Clone, Default)]
pub struct TopRows {
    k: usize,
    limit: usize,
    /// Places a query.
    pub(crate) capacity: usize,
    /// Candidates of a query at which a screen stops.
    pub(crate) stop: usize,
    pub(crate) params: Vec<QueryParams>,
    pub(crate) best: Vec<f32>,
    pub(crate) counts: Vec<u32>,
    pub(crate) places: Vec<Candidate>,
}

impl TopRows {
    /// No queries yet, of which the `k` best rows are wanted each. A query with more than `limit` rows that may be
    /// among them overflows: it keeps none, and every row must be scored.
    ///
    /// # Errors
    /// A `k` of 0, or a limit beyond what an u32 counts.
    pub fn new(k: usize, limit: usize) -> Result<Self, SimdError> {
        let mut rows = Self::default();
        rows.reset(k, limit)?;
        Ok(rows)
    }

    /// Forgets the queries, keeps the memory up to a point. See [`Self::new`].
    ///
    /// # Errors
    /// As [`Self::new`]; nothing is changed then.
    pub fn reset(&mut self, k: usize, limit: usize) -> Result<(), SimdError> {
        if k == 0 {
            return Err(SimdError::TooSmall { what: "k", found: 0, limit: 1 });
        }
        let most = u32::MAX as usize / 2;
        if limit > most {
            return Err(SimdError::TooLarge { what: "the limit", found: limit, limit: most });
        }
        (self.k, self.limit) = (k, limit);
        self.capacity = limit + limit / 4 + SPARE;
        self.stop = self.next_stop(0);
        self.params.clear();
        self.best.clear();
        self.counts.clear();
        if self.places.len() > KEPT {
            self.places = Vec::new();
        }
        Ok(())
    }

    /// Where thresholds rise only when there is no room, there is none after 2k rows more and some.
    fn next_stop(&self, longest: usize) -> usize {
        if self.registers() > 0 {
            self.capacity
        } else {
            self.capacity.min(self.k.saturating_mul(2).saturating_add(longest + 64))
        }
    }

    /// Registers of lower bounds that the kernel keeps for each query.
    pub(crate) fn registers(&self) -> usize {
        if self.k <= ONLINE_K { self.k.div_ceil(REGISTER) } else { 0 }
    }

    /// The number of best rows wanted.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Adds a query.
    pub fn push(&mut self, params: QueryParams) {
        self.params.push(params);
        self.counts.push(0);
        self.best.resize(self.params.len() * self.registers() * REGISTER, f32::NEG_INFINITY);
        let places = self.params.len() * self.capacity;
        if self.places.len() < places {
            self.places.resize(places, Candidate::default());
        }
    }

    /// Adds a query of which some rows are met already.
    pub fn push_met(&mut self, params: QueryParams, met: &[Candidate]) {
        let query = self.queries();
        self.push(params);
        if met.len() > self.limit {
            return self.overflow(query);
        }
        self.places[query * self.capacity..][..met.len()].copy_from_slice(met);
        self.counts[query] = met.len() as u32;
        let mut lowers: Vec<f32> = met.iter().map(|candidate| candidate.lower).collect();
        lowers.sort_unstable_by(|x, y| y.total_cmp(x));
        if let Some(kth) = lowers.get(self.k - 1) {
            let params = &mut self.params[query];
            params.threshold = params.threshold.max(params.relaxed(*kth));
        }
        let best = query * self.registers() * REGISTER;
        self.best[best..].iter_mut().zip(lowers).for_each(|(best, lower)| *best = lower);
        self.stop = self.stop.max(self.next_stop(met.len()));
    }

    /// The number of queries.
    pub fn queries(&self) -> usize {
        self.params.len()
    }

    /// What the screen reads of each query, thresholds as they have risen.
    pub fn params(&self) -> &[QueryParams] {
        &self.params
    }

    /// The candidates of query `query`, rising by row until it was tidied.
    ///
    /// # Panics
    /// Where there is no such query.
    pub fn get(&self, query: usize) -> &[Candidate] {
        &self.places[query * self.capacity..][..self.counts[query] as usize]
    }

    /// Whether query `query` has given up on telling rows apart.
    ///
    /// # Panics
    /// Where there is no such query.
    pub fn is_overflowed(&self, query: usize) -> bool {
        self.params[query].threshold == f32::INFINITY
    }

    /// Gives up on telling rows apart: no row passes any more.
    ///
    /// # Panics
    /// Where there is no such query.
    pub fn overflow(&mut self, query: usize) {
        self.params[query].threshold = f32::INFINITY;
        self.counts[query] = 0;
    }

    /// Raises thresholds by what is known now and forgets what is below them, so that a screen that stopped can go on.
    /// Queries with much room left are not looked at: their turn comes when they need it.
    pub fn make_room(&mut self) {
        let full = (self.stop / 2) as u32;
        for query in 0..self.queries() {
            if self.counts[query] > full {
                self.tidy(query);
            }
        }
        let longest = self.counts.iter().max().copied().unwrap_or(0);
        self.stop = self.next_stop(longest as usize);
    }

    /// Raises the threshold of query `query` by what is known now, forgets what is below it, and returns how many
    /// candidates are left.
    ///
    /// # Panics
    /// Where there is no such query.
    pub fn tidy(&mut self, query: usize) -> usize {
        let mut left = self.retain(query);
        if left > self.k {
            let params = &mut self.params[query];
            let kept = &mut self.places[query * self.capacity..][..left];
            let (_, kth, _) = kept.select_nth_unstable_by(self.k - 1, |x, y| y.lower.total_cmp(&x.lower));
            let risen = params.relaxed(kth.lower);
            if risen > params.threshold {
                params.threshold = risen;
                left = self.retain(query);
            }
        }
        if left > self.limit {
            self.overflow(query);
            return 0;
        }
        left
    }

    fn retain(&mut self, query: usize) -> usize {
        let threshold = self.params[query].threshold;
        let kept = &mut self.places[query * self.capacity..][..self.counts[query] as usize];
        let mut left = 0;
        for at in 0..kept.len() {
            let candidate = kept[at];
            kept[left] = candidate;
            left += usize::from(candidate.upper >= threshold);
        }
        self.counts[query] = left as u32;
        left
    }

    /// Joins what the same queries found among other rows.
    ///
    /// # Panics
    /// Where `other` has fewer queries.
    pub fn absorb(&mut self, other: &Self) {
        for query in 0..self.queries() {
            if other.is_overflowed(query) {
                self.overflow(query);
            }
            let threshold = &mut self.params[query].threshold;
            *threshold = threshold.max(other.params[query].threshold);
            for candidate in other.get(query) {
                if self.counts[query] as usize == self.capacity {
                    self.tidy(query);
                }
                let count = self.counts[query] as usize;
                self.places[query * self.capacity + count] = *candidate;
                self.counts[query] += u32::from(candidate.upper >= self.params[query].threshold);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(threshold: f32, slack: f32) -> QueryParams {
        QueryParams { scale: 1.0, a: 0.0, b: 0.0, threshold, slack }
    }

    fn bounded(row: u32, lower: f32, upper: f32) -> Candidate {
        Candidate { row, lower, upper }
    }

    /// One query's rows, as a screen would leave them.
    fn top(k: usize, limit: usize, found: &[Candidate]) -> TopRows {
        let mut top = TopRows::new(k, limit).expect("a small limit");
        top.push(params(f32::MIN, 0.0));
        top.places[..found.len()].copy_from_slice(found);
        top.counts[0] = found.len() as u32;
        top
    }

    fn rows(top: &mut TopRows) -> Vec<u32> {
        top.tidy(0);
        let mut rows: Vec<u32> = top.get(0).iter().map(|candidate| candidate.row).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn rows_that_k_others_surely_beat_are_forgotten() {
        let found = [bounded(0, 0.5, 0.7), bounded(1, 0.6, 0.8), bounded(2, 0.1, 0.49), bounded(3, 0.4, 0.5)];
        let mut top = top(2, 100, &found);
        assert_eq!(rows(&mut top), [0, 1, 3], "0.5 is the second largest lower bound; row 3 reaches it");
        assert_eq!(top.params()[0].threshold, 0.5);
    }

    #[test]
    fn the_slack_keeps_rows_that_bounds_alone_would_forget() {
        let found = [bounded(0, 0.5, 0.7), bounded(1, 0.1, 0.45), bounded(2, 0.1, 0.39)];
        let mut top = top(1, 100, &found);
        top.params[0].slack = 0.1;
        assert_eq!(rows(&mut top), [0, 1]);
        assert!(top.params()[0].threshold <= 0.4 && top.params()[0].threshold > 0.3999);
    }

    #[test]
    fn ties_all_stay() {
        let found: Vec<Candidate> = (0..5).map(|row| bounded(row, 1.0, 1.0)).collect();
        assert_eq!(rows(&mut top(1, 100, &found)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn too_many_survivors_overflow() {
        let found: Vec<Candidate> = (0..5).map(|row| bounded(row, 1.0, 1.0)).collect();
        let mut top = top(1, 4, &found);
        assert!(!top.is_overflowed(0));
        assert_eq!(top.tidy(0), 0);
        assert!(top.is_overflowed(0) && top.get(0).is_empty());
        top.absorb(&self::top(1, 4, &found[..1]));
        assert!(top.is_overflowed(0) && top.get(0).is_empty(), "it stays so");
    }

    #[test]
    fn chunks_join_to_what_one_pass_would_have_kept() {
        for (k, chunk) in [(3, 7), (40, 7), (3, 1), (40, 300)] {
            let value = |i: u32| (i as f32 * 37.0) % 11.0;
            let all: Vec<Candidate> = (0..1200).map(|i| bounded(i, value(i), value(i) + 0.5)).collect();
            let mut joined = top(k, 600, &[]);
            for part in all.chunks(chunk) {
                let mut part = top(k, 600, part);
                part.tidy(0);
                joined.absorb(&part);
            }
            assert_eq!(rows(&mut joined), rows(&mut top(k, 600, &all[..1200])), "k {k}, chunks of {chunk}");
        }
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        assert!(matches!(TopRows::new(0, 10), Err(SimdError::TooSmall { .. })));
        assert!(matches!(TopRows::new(1, u32::MAX as usize), Err(SimdError::TooLarge { .. })));
    }
}
