//! A join of a corpus with itself: what the screens of earlier rows have told of those whose turn is yet to come.
//!
//! A pair of rows has one score, whichever of them is the query. Where rows are searched for one after the other, each
//! against the rows from itself on, a pair is multiplied once, and its bounds are kept for the later row where they may
//! matter to it: where its upper bound reaches the k-th largest lower bound that the row has met so far. When the
//! row's turn comes, its candidates are those and the ones among the rows from itself on.
//!
//! Bounds are of the [goodness](Metric::goodness) of the score, which is the same from both sides. A screen's own
//! number g differs from it under l2, by the query's squared norm ([`offset`](SelfJoin::offset)); the float32 rounding
//! of that shift, and of its sum with a bound, is within [`SHIFT_SLACK`] of the squared norms, by which bounds are
//! widened: a bound and a shift are within 6 times the largest squared norm M, so that half a unit in the last place of
//! their sum is at most 12·2⁻²⁴ M.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rayon::prelude::*;

use super::CorpusView;
use crate::metric::Metric;
use crate::screen::GROUP_ROWS;

/// Rows that a row has met and that are kept, beyond which it is compared with all: bounds cannot tell them apart.
const MOST_MET: usize = 2048;
/// The same on average, beyond which the join ends. Both are so many for each hit that is wanted, at least.
const MET_PER_ROW: usize = 128;
const MET_PER_HIT: usize = 4;
/// Rows whose notes are taken in by one thread.
const PART_ROWS: usize = 256;
/// A part whose searches note more than one pair for so many that may be kept, and so many in all, ends the join.
const NOTED_SHARE: usize = 2;
const NOTED: usize = 1 << 20;
/// Rows that no screen can compare with others (their norm is 0, or out of range), and that every later row is compared
/// with; with more of them, each row is searched for by itself.
const MOST_LOOSE: usize = 64;
/// Slack for the float32 rounding of a bound and its shift, of the largest squared norm.
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
    /// Rows before it have met every row. Beyond all of them where the join has ended.
    begin: usize,
    /// The k-th largest lower bound that each row has met, or had when it was last looked for. Infinite is a row that
    /// must be compared with all, or that has met every row.
    least: Vec<f32>,
    /// What each row has met, in no order, and with what has ceased to matter.
    met: Vec<Vec<Met>>,
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
        let turn = Turn { begin: 0, least, met: vec![Vec::new(); kept], loose: Vec::new() };
        Self { metric, k, max_norm2, turn: RwLock::new(turn) }
    }

    /// Bytes that one may come to, with what is noted of a part; lists that grow may have some more for a moment.
    #[must_use]
    pub fn bytes(k: usize, rows: usize) -> usize {
        let row = size_of::<f32>() + size_of::<Vec<Met>>() + size_of::<Met>().saturating_mul(met_per_row(k));
        row.saturating_mul(rows).saturating_add(size_of::<(u32, Met)>().saturating_mul(most_noted(k, rows)))
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

    /// Goes on from `begin` to `end`: rows before it have met every row, and noted what that tells of others. Does
    /// nothing where it has gone on from there already.
    pub fn advance(&self, begin: usize, end: usize, noted: &[Noted]) {
        let mut turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        if turn.begin != begin {
            return;
        }
        // No search begins there, should this not come to its end.
        turn.begin = usize::MAX;
        let Turn { least, met, loose, .. } = &mut *turn;
        let (k, most) = (self.k, met_per_row(self.k).saturating_mul(met.len()));
        let take = |(part, mut rows): (usize, Rows<'_>)| {
            let first = rows.first;
            noted.iter().for_each(|noted| rows.take(&noted.parts[part]));
            rows.begin();
            (begin.max(first)..end.min(first + PART_ROWS)).for_each(|row| rows.lose(row));
            rows.capacity()
        };
        let shrink = |(_, mut rows): (usize, Rows<'_>)| {
            rows.shrink();
            rows.capacity()
        };
        let is_full = Rows::parts(k, met, least).map(take).sum::<usize>() > most
            && Rows::parts(k, met, least).map(shrink).sum::<usize>() > most;
        loose.extend(noted.iter().flat_map(|noted| &noted.loose));
        let is_over = is_full || loose.len() > MOST_LOOSE || noted.iter().any(|noted| noted.is_over);
        if is_over {
            turn.met = Vec::new();
        } else {
            turn.begin = end;
        }
    }
}

fn met_per_row(k: usize) -> usize {
    k.saturating_mul(MET_PER_HIT).max(MET_PER_ROW)
}

/// Pairs that the searches of one part of a join may note, of a corpus with so many rows.
#[must_use]
pub fn most_noted(k: usize, rows: usize) -> usize {
    (met_per_row(k) / NOTED_SHARE).saturating_mul(rows).max(NOTED)
}

/// What searches note of a join.
pub struct Noted {
    parts: Vec<Part>,
    loose: Vec<u32>,
    is_over: bool,
}

/// Of [`PART_ROWS`] rows: pairs in no order, and rows that must be compared with all.
#[derive(Clone, Default)]
struct Part {
    pairs: Vec<(u32, Met)>,
    lost: Vec<u32>,
}

impl Noted {
    /// Nothing yet, of a corpus with so many rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { parts: vec![Part::default(); rows.div_ceil(PART_ROWS)], loose: Vec::new(), is_over: false }
    }

    /// A pair may matter to a row.
    pub fn pair(&mut self, row: u32, met: Met) {
        self.part(row).pairs.push((row, met));
    }

    /// A row must be compared with all.
    pub fn lost(&mut self, row: u32) {
        self.part(row).lost.push(row);
    }

    /// No screen can compare a row with others.
    pub fn loose(&mut self, row: u32) {
        self.loose.push(row);
    }

    /// There is too much to note: the rows after this part are to be searched for by themselves.
    pub fn end(&mut self) {
        self.parts.iter_mut().for_each(|part| *part = Part::default());
        self.is_over = true;
    }

    fn part(&mut self, row: u32) -> &mut Part {
        &mut self.parts[row as usize / PART_ROWS]
    }
}

/// Some of the rows, from `first` on.
struct Rows<'a> {
    k: usize,
    first: usize,
    met: &'a mut [Vec<Met>],
    least: &'a mut [f32],
}

impl<'a> Rows<'a> {
    /// All rows, by parts.
    fn parts(k: usize, met: &'a mut [Vec<Met>], least: &'a mut [f32]) -> impl ParallelIterator<Item = (usize, Self)> {
        let parts = met.par_chunks_mut(PART_ROWS).zip(least.par_chunks_mut(PART_ROWS)).enumerate();
        parts.map(move |(part, (met, least))| (part, Self { k, first: part * PART_ROWS, met, least }))
    }

    /// Takes in what a search has noted of them.
    fn take(&mut self, part: &Part) {
        part.pairs.iter().for_each(|(row, met)| self.add(*row as usize, *met));
        part.lost.iter().for_each(|row| self.lose(*row as usize));
    }

    /// As soon as a row has met k others, not every pair matters to it.
    fn begin(&mut self) {
        for place in 0..self.met.len() {
            if self.least[place] == f32::MIN {
                self.settle(place);
            }
        }
    }

    fn add(&mut self, row: usize, new: Met) {
        let place = row - self.first;
        if !matters(new.upper, self.least[place]) {
            return;
        }
        if self.met[place].len() == self.met[place].capacity() {
            self.settle(place);
            let met = &mut self.met[place];
            if met.len() >= MOST_MET.max(self.k.saturating_mul(MET_PER_HIT)) {
                return self.lose(row);
            }
            // Room for as much again, so that it is not settled anew for each of a few.
            if met.len() >= met.capacity() / 2 {
                met.reserve_exact(met.len().max(self.k));
            }
        }
        self.met[place].push(new);
    }

    /// Finds the k-th largest lower bound, and forgets what surely is not among the k best.
    fn settle(&mut self, place: usize) {
        let (met, least) = (&mut self.met[place], &mut self.least[place]);
        if met.len() >= self.k {
            let (_, kth, _) = met.select_nth_unstable_by(self.k - 1, |x, y| y.lower.total_cmp(&x.lower));
            *least = least.max(kth.lower);
            met.retain(|met| matters(met.upper, *least));
        }
    }

    /// Gives room back that is not needed.
    fn shrink(&mut self) {
        for place in 0..self.met.len() {
            self.settle(place);
            self.met[place].shrink_to_fit();
        }
    }

    /// Places for what rows have met.
    fn capacity(&self) -> usize {
        self.met.iter().map(Vec::capacity).sum()
    }

    fn lose(&mut self, row: usize) {
        (self.met[row - self.first], self.least[row - self.first]) = (Vec::new(), f32::INFINITY);
    }
}

/// Whether a pair with this upper bound matters to a row, given the least that does.
fn matters(upper: f32, least: f32) -> bool {
    upper >= least && least < f32::INFINITY
}

impl Turn {
    /// The first row that has not met every row.
    #[must_use]
    pub fn begin(&self) -> usize {
        self.begin
    }

    /// The goodness from which on a pair matters to each row, and to as many more as fill a group up, to which none
    /// does. Infinite for a row that must be compared with all.
    #[must_use]
    pub fn least(&self) -> &[f32] {
        &self.least
    }

    /// What a row has met that may matter to it, in no order. `None`: it must be compared with all.
    #[must_use]
    pub fn met_by(&self, row: usize) -> Option<impl Iterator<Item = &Met>> {
        let least = *self.least.get(row).filter(|least| **least < f32::INFINITY)?;
        Some(self.met.get(row)?.iter().filter(move |met| matters(met.upper, least)))
    }

    /// Rows that every row is to be compared with.
    #[must_use]
    pub fn loose(&self) -> &[u32] {
        &self.loose
    }
}
