//! A join of a corpus with itself: what the screens of earlier rows have told of those whose turn is yet to come.
//!
//! A pair of rows has one score, whichever of them is the query. Where rows are searched for one after the other, each
//! against the rows from itself on, a pair is multiplied once, and its bounds are kept for the later row where they may
//! matter to it: where its upper bound reaches the k-th largest lower bound that the row has met so far. When the
//! row's turn comes, its candidates are those and the ones among the rows from itself on.
//!
//! Bounds are of the [goodness](Metric::goodness) of the score, which is the same from both sides. A screen's own
//! number g differs from it under l2, by the query's squared norm ([`offset`](SelfJoin::offset)); the float32 rounding
//! of that shift is within [`SHIFT_SLACK`] of the squared norms, by which bounds are widened.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rayon::prelude::*;

use super::CorpusView;
use crate::metric::Metric;
use crate::screen::GROUP_ROWS;

/// Candidates of a row that are kept; a row with more of them, which bounds cannot tell apart, is compared with all.
const MOST_MET: usize = 2048;
/// Rows that no screen can compare with others (their norm is 0, or out of range), and that every later row is compared
/// with; with more of them, each row is searched for by itself.
const MOST_LOOSE: usize = 64;
/// Relative slack for one float32 rounding of a bound, and one of a squared norm.
const SHIFT_SLACK: f64 = 1.0 / (1 << 20) as f64;

/// What is kept of a join.
pub struct SelfJoin {
    metric: Metric,
    k: usize,
    /// The largest squared norm of a row.
    max_norm2: f64,
    turn: RwLock<Turn>,
}

/// How far a join is.
pub struct Turn {
    /// Rows before it have met every row.
    begin: usize,
    least: Vec<f32>,
    /// `None` is a row that must be compared with all.
    met: Vec<Option<Vec<Met>>>,
    loose: Vec<u32>,
}

/// A row that another has met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Met {
    /// Its number.
    pub row: u32,
    /// Least possible goodness of the pair.
    pub lower: f32,
    /// Greatest possible goodness of the pair.
    pub upper: f32,
}

impl SelfJoin {
    /// Of a corpus, for the `k` best of each row by this metric, itself among them.
    #[must_use]
    pub fn new(metric: Metric, k: usize, view: &CorpusView) -> Self {
        let kept = view.rows();
        let max_norm = view.segments().map(|(_, segment)| segment.data().codes().max_norm).fold(0.0, f64::max);
        let max_norm2 = max_norm * max_norm;
        let mut least = vec![f32::MIN; kept];
        least.resize(kept + GROUP_ROWS, f32::INFINITY);
        let turn = Turn { begin: 0, least, met: vec![Some(Vec::new()); kept], loose: Vec::new() };
        Self { metric, k, max_norm2, turn: RwLock::new(turn) }
    }

    /// Bytes that one comes to where bounds tell rows apart.
    #[must_use]
    pub fn bytes(k: usize, rows: usize) -> usize {
        let row = size_of::<f32>() + size_of::<Vec<Met>>() + k.saturating_mul(3 * size_of::<Met>());
        row.saturating_mul(rows)
    }

    /// How its rows compare.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Hits wanted of each row, itself among them.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// How far it is. Nothing changes as long as this is held.
    pub fn turn(&self) -> RwLockReadGuard<'_, Turn> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a screen's g is above the goodness of a score, for a query of this squared norm.
    #[must_use]
    pub fn offset(&self, norm2: f64) -> f64 {
        if self.metric == Metric::L2 { norm2 } else { 0.0 }
    }

    /// By how much bounds are widened.
    fn slack(&self) -> f64 {
        self.offset(self.max_norm2) * SHIFT_SLACK
    }

    /// What the upper bounds of a query's pairs are shifted by, to compare them with [`Turn::least`].
    #[must_use]
    pub fn shift(&self, norm2: f64) -> f32 {
        let shift = self.slack() - self.offset(norm2);
        if shift == 0.0 { 0.0 } else { (shift as f32).next_up() }
    }

    /// Bounds of g, for a query of this squared norm, as bounds of the goodness.
    #[must_use]
    pub fn met(&self, row: u32, lower: f32, upper: f32, norm2: f64) -> Met {
        if self.metric != Metric::L2 {
            return Met { row, lower, upper };
        }
        let (offset, slack) = (self.offset(norm2), self.slack());
        let lower = (f64::from(lower) - offset - slack) as f32;
        Met { row, lower: lower.next_down(), upper: ((f64::from(upper) - offset + slack) as f32).next_up() }
    }

    /// The other way round: bounds of the goodness as bounds of g.
    #[must_use]
    pub fn bounds(&self, met: &Met, norm2: f64) -> (f32, f32) {
        if self.metric != Metric::L2 {
            return (met.lower, met.upper);
        }
        let (offset, slack) = (self.offset(norm2), self.slack());
        let lower = (f64::from(met.lower) + offset - slack) as f32;
        (lower.next_down(), ((f64::from(met.upper) + offset + slack) as f32).next_up())
    }

    /// Goes on to `end`: rows before it have met every row, and noted what that tells of others.
    pub fn advance(&self, end: usize, noted: Noted) {
        let mut turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        let Turn { begin, least, met, loose } = &mut *turn;
        let rows = met.len();
        let parts = met.par_chunks_mut(PART_ROWS).zip(least[..rows].par_chunks_mut(PART_ROWS)).enumerate();
        parts.zip(noted.parts).for_each(|((part, (met, least)), (pairs, first))| {
            let place = |row: u32| row as usize - part * PART_ROWS;
            for (row, new) in pairs {
                add(&mut met[place(row)], &mut least[place(row)], new, self.k);
            }
            for (row, all) in first {
                let (met, least) = (&mut met[place(row)], &mut least[place(row)]);
                match all {
                    Some(all) => all.into_iter().for_each(|new| add(met, least, new, self.k)),
                    None => lose(met, least),
                }
            }
        });
        for row in *begin..end {
            lose(&mut met[row], &mut least[row]);
        }
        loose.extend(noted.loose);
        // No search begins beyond.
        *begin = if loose.len() > MOST_LOOSE { usize::MAX } else { end };
    }
}

/// Rows whose notes are taken in by one thread.
const PART_ROWS: usize = 4096;

/// What rows before `end` tell of others; pairs in no order, and all that rows have met so far, or `None` for one that
/// must be compared with all.
type Part = (Vec<(u32, Met)>, Vec<(u32, Option<Vec<Met>>)>);

/// What searches note of a join.
#[derive(Default)]
pub struct Noted {
    parts: Vec<Part>,
    loose: Vec<u32>,
}

impl Noted {
    /// Nothing yet, of a corpus with so many rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { parts: (0..rows.div_ceil(PART_ROWS)).map(|_| Part::default()).collect(), loose: Vec::new() }
    }

    /// A pair may matter to a row.
    pub fn pair(&mut self, row: u32, met: Met) {
        self.parts[row as usize / PART_ROWS].0.push((row, met));
    }

    /// All that a row has met so far; `None`: it must be compared with all.
    pub fn first(&mut self, row: u32, met: Option<Vec<Met>>) {
        self.parts[row as usize / PART_ROWS].1.push((row, met));
    }

    /// No screen can compare a row with others.
    pub fn loose(&mut self, row: u32) {
        self.loose.push(row);
    }

    /// Adds what another one has noted of the same corpus.
    pub fn append(&mut self, other: Self) {
        for ((pairs, first), (more, more_first)) in self.parts.iter_mut().zip(other.parts) {
            pairs.extend(more);
            first.extend(more_first);
        }
        self.loose.extend(other.loose);
    }
}

/// Puts what a row has met among the others, the largest lower bound first, and forgets what surely is not among the
/// `k` best.
fn add(met: &mut Option<Vec<Met>>, least: &mut f32, new: Met, k: usize) {
    let Some(all) = met else { return };
    if new.upper < *least {
        return;
    }
    if all.len() == all.capacity() {
        all.retain(|met| met.upper >= *least);
        if all.len() >= MOST_MET.max(2 * k) {
            return lose(met, least);
        }
    }
    all.insert(all.partition_point(|met| met.lower >= new.lower), new);
    if let Some(kth) = all.get(k - 1) {
        *least = least.max(kth.lower);
        while all.last().is_some_and(|last| last.upper < *least) {
            all.pop();
        }
    }
}

fn lose(met: &mut Option<Vec<Met>>, least: &mut f32) {
    (*met, *least) = (None, f32::INFINITY);
}

impl Turn {
    /// The first row that has not met every row.
    #[must_use]
    pub fn begin(&self) -> usize {
        self.begin
    }

    /// The goodness from which on a pair matters to each row, and to as many more as fill a group up, to which none
    /// does.
    #[must_use]
    pub fn least(&self) -> &[f32] {
        &self.least
    }

    /// What a row has met, the largest lower bound first. `None`: it must be compared with all.
    #[must_use]
    pub fn met_by(&self, row: usize) -> Option<&[Met]> {
        self.met.get(row)?.as_deref()
    }

    /// Rows that every row is to be compared with.
    #[must_use]
    pub fn loose(&self) -> &[u32] {
        &self.loose
    }
}
