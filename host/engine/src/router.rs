//! Step 4, the router: which backend does a job, and why.
//!
//! A caller's wish comes first: a backend that was asked for by name is used or refused, never replaced. Otherwise the
//! lane is taken that answers soonest, by the ledgers it keeps of each (`router/ledger.rs`, `router/choice.rs`): a cost
//! model that was measured on this machine or is assumed until it is, what is in flight, what a device lacks, and what
//! outcomes have taught since. A backend on an emulated device is not among them: it would be slower than the CPU
//! backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_board::{Board, BreakerRule};
use megaring_core::operation::{Class, Size};
use megaring_core::{BackendKind, Error, Lacking, Opcode, Operation};

use self::choice::{Choice, Chooser, Lanes, MAX_LANES, RouteRequest};
use self::corrections::{Cell, Corrections};
use self::ledger::{Estimates, Ledger, PendingJob};
use crate::cost::{CostModel, Sample, Workload};
use crate::lane::Lane;
use crate::terms::Terms;

mod choice;
mod corrections;
mod forecast;
mod ledger;
#[cfg(test)]
mod simulation;

pub use self::choice::Reason;
pub use self::forecast::{Forecast, Prospect, Question, Times};
pub use self::ledger::Basis;

/// How a router goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Whether it learns from outcomes, and spends a little time on seeing whether what it believes still holds.
    pub adapts: bool,
    /// When a backend that fails the jobs of an operation is left alone, and for how long.
    pub breaker: BreakerRule,
}

impl Default for Routing {
    fn default() -> Self {
        Self { adapts: true, breaker: BreakerRule::default() }
    }
}

/// No job counts as longer: the sum of all that are in flight must fit its type.
const LONGEST_NS: f64 = 1e15;

/// A choice, with its reason.
pub struct Route<'a> {
    /// Where the job goes.
    pub lane: &'a Lane,
    /// Its place in [`Router::lanes`].
    pub index: usize,
    /// Reason there.
    pub reason: Reason,
    /// What the job is expected to take there once it is its turn.
    pub expected: Duration,
    choice: Choice,
    ledger: &'a Arc<Ledger>,
    opcode: Opcode,
}

/// A job's entry in a lane's ledger: it counts as in flight as long as this lives.
pub(crate) struct LedgerEntry {
    ledger: Arc<Ledger>,
    entry: PendingJob,
    /// Answered, or failed.
    settled: bool,
}

/// Backends that run, and those that do not.
pub struct Router {
    lanes: Vec<Lane>,
    absent: Vec<(BackendKind, String)>,
    ledgers: Vec<Arc<Ledger>>,
    chooser: Chooser,
    board: Arc<Board>,
}

impl Router {
    /// A router over running lanes; `absent` says why the other kinds are not there. Lanes beyond the eighth
    /// get no jobs. What they cost is assumed until [`Self::adopt`]. Their breakers are the board's.
    #[must_use]
    pub fn new(lanes: Vec<Lane>, absent: Vec<(BackendKind, String)>, routing: Routing, board: Arc<Board>) -> Self {
        let Routing { adapts, breaker } = routing;
        let ledgers = lanes.iter().take(MAX_LANES).map(|lane| {
            let ledger = Ledger::new(lane.kind(), board.clone(), breaker, adapts);
            lane.capabilities().operations.iter().for_each(|opcode| ledger.serves(opcode));
            Arc::new(ledger)
        });
        let ledgers = ledgers.collect();
        Self { lanes, absent, ledgers, chooser: Chooser::new(adapts), board }
    }

    /// Picks the lane for a job, by its size and its caller's terms. Lanes that have failed get no jobs, and those in
    /// `tried` not this one.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] with the reason, when the wish cannot be met or nothing serves the operation.
    pub fn route(&self, job: &dyn Operation, size: &Size, terms: &Terms, tried: &[usize]) -> Result<Route<'_>, Error> {
        let lacking = |lane: usize| self.lacking(lane, job);
        let load = Workload { opcode: job.opcode(), size: *size };
        let corpus = job.reads().map(|reads| reads.corpus.handle());
        self.choose(&load, corpus, terms, tried, &lacking)
    }

    /// Where [`Self::route`] would most likely send a job of this size, without noting anything; the first lane where
    /// none can do it. As if every device had what the job reads: asking takes a lock of each, and this is called while
    /// the batcher holds its own.
    #[must_use]
    pub fn likely_lane(&self, opcode: Opcode, size: &Size, wish: Option<BackendKind>) -> usize {
        let load = Workload { opcode, size: *size };
        let able = self.able(&load, wish, &[]);
        let lacking = &|_| Lacking::default();
        let (now_ns, left_ns) = (self.now_ns(), f64::INFINITY);
        let request = RouteRequest { load, corpus: None, able, lacking, now_ns, left_ns };
        self.chooser.preview(&self.ledgers, &request).map_or(0, |(lane, _)| lane)
    }

    /// What a job of this size takes by the model on the best of the backends, idle and with what it reads; zero where
    /// nothing serves it. Without what was learnt of jobs of about this size: whoever asks compares sizes, and what is
    /// learnt of each has an error of its own.
    #[must_use]
    pub fn estimate(&self, opcode: Opcode, size: &Size, wish: Option<BackendKind>) -> Duration {
        let load = Workload { opcode, size: *size };
        let able = (0..self.ledgers.len()).filter(|lane| self.is_able(*lane, &load, wish));
        let least = able.map(|lane| self.ledgers[lane].estimates().model.ns(&load)).min_by(f64::total_cmp);
        Duration::from_nanos(least.unwrap_or(0.0) as u64)
    }

    /// Goes by measurements from now on, of the lanes of a kind: its model, and the samples that it was fitted to, by
    /// load.
    pub fn adopt(&self, kind: BackendKind, model: CostModel, samples: &[(Workload, Sample)]) {
        let error = |(load, sample): &(Workload, Sample)| {
            let predicted = model.ns(load);
            (Cell::of(load), (sample.ns / predicted).ln(), sample.weight)
        };
        let errors: Vec<_> = samples.iter().map(error).filter(|(_, error, _)| error.is_finite()).collect();
        let is_measured = |class: &Class| samples.iter().any(|(load, _)| load.opcode.class() == *class);
        for (lane, ledger) in self.lanes.iter().zip(&self.ledgers).filter(|(lane, _)| lane.kind() == kind) {
            tracing::debug!(backend = %lane.kind(), samples = errors.len(), "measured costs are adopted");
            let measured = Class::ALL.into_iter().filter(is_measured).collect();
            ledger.adopt(Estimates { measured, model, corrections: Corrections::seeded(&errors) });
        }
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

    fn choose(
        &self,
        load: &Workload,
        corpus: Option<u32>,
        terms: &Terms,
        tried: &[usize],
        lacking: &dyn Fn(usize) -> Lacking,
    ) -> Result<Route<'_>, Error> {
        let wish = terms.backend;
        let able = self.able(load, wish, tried);
        let left = terms.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left_ns = left.map_or(f64::INFINITY, |left| left.as_nanos() as f64);
        let request = RouteRequest { load: *load, corpus, able, lacking, now_ns: self.now_ns(), left_ns };
        let choice = match wish {
            // The first of its kind.
            Some(_) => self.chooser.first(&self.ledgers, &request),
            None => self.chooser.choose(&self.ledgers, &request),
        };
        let choice = choice.ok_or_else(|| {
            let kind = wish.unwrap_or(BackendKind::Cpu);
            Error::BackendUnavailable { kind, reason: self.absence(kind, load) }
        })?;
        let expected = Duration::from_nanos(choice.estimate.ns as u64);
        let (lane, ledger) = (&self.lanes[choice.lane], &self.ledgers[choice.lane]);
        Ok(Route { lane, index: choice.lane, reason: choice.reason, expected, choice, ledger, opcode: load.opcode })
    }

    fn able(&self, load: &Workload, wish: Option<BackendKind>, tried: &[usize]) -> Lanes {
        let able = (0..self.ledgers.len()).filter(|lane| !tried.contains(lane) && self.is_able(*lane, load, wish));
        able.fold(Lanes::default(), Lanes::with)
    }

    fn lacking(&self, lane: usize, job: &dyn Operation) -> Lacking {
        job.reads().map_or_else(Lacking::default, |reads| self.lanes[lane].backend().lacking(reads))
    }

    fn is_able(&self, lane: usize, load: &Workload, wish: Option<BackendKind>) -> bool {
        let lane = &self.lanes[lane];
        let able = lane.capabilities();
        let wanted = wish.map_or(!able.emulated, |kind| lane.kind() == kind);
        wanted && able.operations.contains(load.opcode) && lane.is_well()
    }

    fn now_ns(&self) -> u64 {
        self.board.now_ns()
    }

    fn absence(&self, kind: BackendKind, load: &Workload) -> String {
        let known = self.absent.iter().find(|(absent, _)| *absent == kind).map(|(_, reason)| reason.clone());
        let failed = || self.lanes.iter().filter(|lane| lane.kind() == kind).find_map(Lane::fault);
        let lanes = || self.lanes.iter().filter(|lane| lane.kind() == kind);
        let unserved = || lanes().find_map(|lane| lane.capabilities().operations.refusal(load.opcode));
        known.or_else(failed).or_else(unserved).unwrap_or_else(|| "no such backend runs".into())
    }
}

impl Route<'_> {
    /// The job is given to the lane.
    pub(crate) fn enter(&self) -> LedgerEntry {
        let Choice { reason, cell, estimate, upload_ns, .. } = self.choice;
        let bounded = |ns: f64| ns.min(LONGEST_NS) as u64;
        let entry = PendingJob {
            opcode: self.opcode,
            cell,
            line_ns: estimate.line_ns,
            expected_ns: bounded(estimate.ns),
            upload_ns: bounded(upload_ns),
            began_ns: self.ledger.now_ns(),
            is_trial: reason == Reason::Trial,
        };
        self.ledger.add(&entry);
        LedgerEntry { ledger: self.ledger.clone(), entry, settled: false }
    }
}

impl LedgerEntry {
    /// What the device lacked has been brought: the job's own time begins.
    pub(crate) fn prepared(&mut self) {
        self.ledger.brought(&mut self.entry, self.ledger.now_ns());
    }

    /// The lane has answered: what it took is compared with what was expected.
    pub(crate) fn answered(&mut self) {
        self.settled = true;
        self.ledger.answered(&self.entry, self.ledger.now_ns());
    }

    /// The lane did not do it, by its own fault.
    pub(crate) fn failed(&mut self) {
        self.settled = true;
        self.ledger.failed(&self.entry, self.ledger.now_ns());
    }

    /// The lane refused it: nothing was done.
    pub(crate) fn refused(&mut self) {
        self.settled = true;
    }
}

impl Drop for LedgerEntry {
    fn drop(&mut self) {
        if !self.settled {
            // Its caller went away, or its time was over.
            self.ledger.given_up(&self.entry, self.ledger.now_ns());
        }
        self.ledger.remove(&self.entry);
    }
}
