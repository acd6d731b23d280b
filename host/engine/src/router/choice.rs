//! The choice among lanes: the least time until the answer, by what the ledgers say.
//!
//! - Time until the answer = what is in flight on the lane + bringing what the device lacks + the job itself.
//! - At the boundary a job goes where the last one of its size went, unless another lane is clearly sooner: hysteresis.
//! - A corpus is uploaded once the time it would have saved adds up to its cost.
//! - A small share of the time is spent on trials: jobs are sent to a lane that is estimated to be a little slower, or
//!   that has become slower since it was measured. Otherwise nobody would notice that it has become faster.
//! - A lane whose breaker is open for an operation gets none of its jobs; after its time it is tried with one.
//!
//! There is no clock and no engine here, so all of it runs against a simulation too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use megaring_core::Lacking;

use super::corrections::Cell;
use super::ledger::{Estimate, Ledger};
use crate::cost::Workload;

/// Lanes that can be told apart; further ones get no jobs.
pub(crate) const MAX_LANES: usize = 8;
/// By how much another lane must be sooner than the one that jobs of this size go to.
const CLEARLY: f64 = 1.05;
/// The share of a cell's time that is spent on trials, in thousandths.
const TRIAL_SHARE: u32 = 15;
/// A lane is tried if it is, or was when it was measured, at most this many times as slow as the best.
const TRIAL_REACH: f64 = 2.0;
/// A trial counts as at least this share of the best lane's time, so that equally good lanes do not take turns.
const TRIAL_LEAST: f64 = 0.25;
/// What one trial may cost: a trial of a lane that was within reach when it was measured and has become far slower
/// since.
const MOST_ALLOWED: u32 = 20_000;

/// Lanes, one a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lanes(u8);

impl Lanes {
    pub(crate) fn with(self, lane: usize) -> Self {
        if lane < MAX_LANES { Self(self.0 | 1 << lane) } else { self }
    }

    pub(crate) fn without(self, lane: usize) -> Self {
        Self(self.0 & !(1 << lane))
    }

    fn has(self, lane: usize) -> bool {
        self.0 >> lane & 1 == 1
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_LANES).filter(move |lane| self.has(*lane))
    }
}

/// Why a lane was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The caller asked for it.
    Wish,
    /// No other lane can do it.
    Only,
    /// It answers soonest.
    Soonest,
    /// Others of its size go there, and no other lane is clearly sooner.
    Habit,
    /// It would answer soonest if it had the corpus, which has been asked for often enough to bring it.
    Upload,
    /// To see whether it is still slower than the best.
    Trial,
}

/// A lane for a job, and what is expected of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub(crate) lane: usize,
    pub(crate) reason: Reason,
    pub(crate) cell: Cell,
    /// The job itself.
    pub(crate) estimate: Estimate,
    /// Bringing what the lane lacks.
    pub(crate) upload_ns: f64,
}

/// What a job asks of the choice.
pub(crate) struct RouteRequest<'a> {
    pub(crate) load: Workload,
    /// The corpus that it reads, if any.
    pub(crate) corpus: Option<u32>,
    /// Lanes that may do it.
    pub(crate) able: Lanes,
    /// What of the corpus a lane lacks. Asked of lanes that may be the best, since it takes a lock.
    pub(crate) lacking: &'a dyn Fn(usize) -> Lacking,
    pub(crate) now_ns: u64,
    /// Time left until the deadline; infinite where there is none.
    pub(crate) left_ns: f64,
}

/// Chooses, and remembers what the next choice needs.
pub(crate) struct Chooser {
    /// By cell: where its jobs go, plus one.
    habits: Box<[AtomicU8]>,
    /// By cell and lane: what may be spent on trials, in thousandths of the best lane's time for one job.
    allowance: Box<[AtomicU32]>,
    /// Whether anything is spent on them.
    tries: bool,
}

/// One choice being made.
struct Comparison<'a> {
    ledgers: &'a [Arc<Ledger>],
    request: &'a RouteRequest<'a>,
    cell: Cell,
    estimates: [Estimate; MAX_LANES],
    /// Until the answer.
    totals: [f64; MAX_LANES],
    uploads: [f64; MAX_LANES],
    /// Lanes that were asked what they lack, and those of them that lack something.
    asked: Lanes,
    lacks: Lanes,
}

impl Chooser {
    pub(crate) fn new(tries: bool) -> Self {
        let habits = (0..Cell::COUNT).map(|_| AtomicU8::new(0)).collect();
        let allowance = (0..Cell::COUNT * MAX_LANES).map(|_| AtomicU32::new(0)).collect();
        Self { habits, allowance, tries }
    }

    /// The lane for a job; none where none is able.
    pub(crate) fn choose(&self, ledgers: &[Arc<Ledger>], request: &RouteRequest<'_>) -> Option<Choice> {
        let rested = request.able.iter().filter(|lane| !ledgers[*lane].is_open(request.load.opcode, request.now_ns));
        let mut able = rested.fold(Lanes::default(), Lanes::with);
        // A lane that has failed is better than none.
        let in_need = able == Lanes::default();
        if in_need {
            able = request.able;
        }
        loop {
            let mut comparison = Comparison::new(ledgers, request, able);
            let (lane, reason) = self.pick(&mut comparison, able)?;
            let others = able.without(lane);
            if in_need || ledgers[lane].may_try(request.load.opcode, request.now_ns) || others == Lanes::default() {
                return Some(Choice {
                    lane,
                    reason,
                    cell: comparison.cell,
                    estimate: comparison.estimates[lane],
                    upload_ns: comparison.uploads[lane],
                });
            }
            // Another job tries it already.
            able = others;
        }
    }

    /// The first able lane, for a caller who insists on its kind.
    pub(crate) fn first(&self, ledgers: &[Arc<Ledger>], request: &RouteRequest<'_>) -> Option<Choice> {
        let lane = request.able.iter().next()?;
        let comparison = Comparison::new(ledgers, request, Lanes::default().with(lane));
        let upload_ns = ledgers[lane].upload_ns((request.lacking)(lane).bytes);
        Some(Choice {
            lane,
            reason: Reason::Wish,
            cell: comparison.cell,
            estimate: comparison.estimates[lane],
            upload_ns,
        })
    }

    /// What [`Self::choose`] would answer if nothing were tried, without noting anything.
    pub(crate) fn preview(&self, ledgers: &[Arc<Ledger>], request: &RouteRequest<'_>) -> Option<(usize, Reason)> {
        let rested = request.able.iter().filter(|lane| !ledgers[*lane].is_open(request.load.opcode, request.now_ns));
        let rested = rested.fold(Lanes::default(), Lanes::with);
        let able = if rested == Lanes::default() { request.able } else { rested };
        let mut comparison = Comparison::new(ledgers, request, able);
        for lane in able.iter() {
            comparison.totals[lane] += ledgers[lane].upload_ns((request.lacking)(lane).bytes);
        }
        let best = comparison.least(able)?;
        let habit = usize::from(self.habits[comparison.cell.index()].load(Ordering::Relaxed)).checked_sub(1);
        let stays = |lane: &usize| {
            *lane != best && able.has(*lane) && comparison.totals[*lane] <= comparison.totals[best] * CLEARLY
        };
        Some(match habit.filter(stays) {
            _ if able.without(best) == Lanes::default() => (best, Reason::Only),
            Some(last) => (last, Reason::Habit),
            None => (best, Reason::Soonest),
        })
    }

    fn pick(&self, comparison: &mut Comparison<'_>, able: Lanes) -> Option<(usize, Reason)> {
        let (best, uploads) = comparison.soonest(able)?;
        if able.without(best) == Lanes::default() {
            return Some((best, Reason::Only));
        }
        let habit = &self.habits[comparison.cell.index()];
        if uploads {
            habit.store(best as u8 + 1, Ordering::Relaxed);
            return Some((best, Reason::Upload));
        }
        let last = usize::from(habit.load(Ordering::Relaxed)).checked_sub(1);
        let stays = |last: &usize| {
            *last != best
                && able.has(*last)
                && comparison.totals[*last] <= comparison.totals[best] * CLEARLY
                && !comparison.lacks(*last)
        };
        let (usual, reason) = match last.filter(stays) {
            Some(last) => (last, Reason::Habit),
            None => (best, Reason::Soonest),
        };
        if let Some(trial) = self.trial(comparison, able.without(usual), best) {
            return Some((trial, Reason::Trial));
        }
        if reason == Reason::Soonest {
            habit.store(best as u8 + 1, Ordering::Relaxed);
        }
        Some((usual, reason))
    }

    /// One of the lanes that the job does not go to anyway, if one is worth asking now.
    fn trial(&self, comparison: &mut Comparison<'_>, others: Lanes, best: usize) -> Option<usize> {
        if !self.tries {
            return None;
        }
        let best_ns = comparison.estimates[best].ns;
        // Each saves for itself: a lane that is cheap to try would otherwise leave nothing for one that is not.
        for lane in others.iter() {
            let allowance = &self.allowance[comparison.cell.index() * MAX_LANES + lane];
            // Two choices at once may both spend it, or one may be forgotten: it need not be exact.
            let allowed = allowance.load(Ordering::Relaxed).saturating_add(TRIAL_SHARE).min(MOST_ALLOWED);
            allowance.store(allowed, Ordering::Relaxed);
            let Estimate { line_ns, ns } = comparison.estimates[lane];
            let costs = ((comparison.totals[lane] - comparison.totals[best]) / best_ns).max(TRIAL_LEAST) * 1e3;
            // However far off it is believed to be: what can be saved up pays for it.
            let costs = costs.min(f64::from(MOST_ALLOWED));
            let is_in_reach =
                line_ns.min(ns) <= best_ns * TRIAL_REACH && comparison.totals[lane] < comparison.request.left_ns;
            if is_in_reach && costs <= f64::from(allowed) && !comparison.lacks(lane) {
                allowance.store(allowed - costs as u32, Ordering::Relaxed);
                return Some(lane);
            }
        }
        None
    }
}

impl<'a> Comparison<'a> {
    fn new(ledgers: &'a [Arc<Ledger>], request: &'a RouteRequest<'a>, able: Lanes) -> Self {
        let cell = Cell::of(&request.load);
        let mut estimates = [Estimate { line_ns: f64::INFINITY, ns: f64::INFINITY }; MAX_LANES];
        let mut totals = [f64::INFINITY; MAX_LANES];
        for lane in able.iter().filter(|lane| *lane < ledgers.len()) {
            estimates[lane] = ledgers[lane].estimate(&request.load, cell);
            totals[lane] = estimates[lane].ns + ledgers[lane].wait_ns(request.now_ns);
        }
        let (uploads, asked, lacks) = ([0.0; MAX_LANES], Lanes::default(), Lanes::default());
        Self { ledgers, request, cell, estimates, totals, uploads, asked, lacks }
    }

    /// The lane that answers soonest, and whether that is worth an upload which this job alone is not.
    fn soonest(&mut self, able: Lanes) -> Option<(usize, bool)> {
        // The lane that would be the soonest with the corpus, and when.
        let mut with_corpus = None;
        let best = loop {
            let best = self.least(able)?;
            if self.asked.has(best) {
                break best;
            }
            self.asked = self.asked.with(best);
            let lacking = (self.request.lacking)(best);
            if lacking.bytes == 0 {
                break best;
            }
            self.lacks = self.lacks.with(best);
            let upload = self.ledgers[best].upload_ns(lacking.bytes);
            self.uploads[best] = upload;
            let is_in_time = self.totals[best] + upload < self.request.left_ns;
            if with_corpus.is_none() && lacking.stays && is_in_time {
                with_corpus = Some((best, self.totals[best]));
            }
            self.totals[best] += upload;
        };
        if let (Some((lane, total)), Some(corpus)) = (with_corpus, self.request.corpus)
            && lane != best
            && self.ledgers[lane].save_up(corpus, self.totals[best] - total, self.uploads[lane])
        {
            return Some((lane, true));
        }
        Some((best, false))
    }

    fn least(&self, able: Lanes) -> Option<usize> {
        able.iter().filter(|lane| *lane < self.ledgers.len()).min_by(|a, b| self.totals[*a].total_cmp(&self.totals[*b]))
    }

    fn lacks(&mut self, lane: usize) -> bool {
        if !self.asked.has(lane) {
            self.asked = self.asked.with(lane);
            if (self.request.lacking)(lane).bytes > 0 {
                self.lacks = self.lacks.with(lane);
            }
        }
        self.lacks.has(lane)
    }
}
