//! A lane's ledger: what its backend's jobs are expected to take, which of them are in flight, and how the backend has
//! been doing.
//!
//! Times are nanoseconds on the board's clock, so that a test can be the clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use megaring_board::{Board, Breaker, BreakerRule};
use megaring_core::gate::breaker_slot;
use megaring_core::operation::Class;
use megaring_core::{BackendKind, Opcode};

use super::corrections::{Cell, Corrections, SampleKind};
use crate::cost::{CostModel, Workload};

/// Most corpora whose possible savings are counted; with one more, counting begins anew for all.
const SAVERS: usize = 1024;

/// Where a model's numbers are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Measured on this machine.
    Measured,
    /// Nothing was measured.
    Assumed,
}

/// What jobs are estimated by on one backend.
pub(crate) struct Estimates {
    /// The classes of operations that were measured.
    pub(crate) measured: Vec<Class>,
    pub(crate) model: CostModel,
    pub(crate) corrections: Corrections,
}

impl Estimates {
    pub(crate) fn assumed(kind: BackendKind) -> Self {
        Self { measured: Vec::new(), model: CostModel::assumed(kind), corrections: Corrections::seeded(&[]) }
    }

    pub(crate) fn basis(&self, opcode: Opcode) -> Basis {
        if self.measured.contains(&opcode.class()) { Basis::Measured } else { Basis::Assumed }
    }
}

/// A job's time with a backend to itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// By the line alone.
    pub(crate) line_ns: f64,
    /// With what was learnt since.
    pub(crate) ns: f64,
}

/// A job that a lane was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingJob {
    pub(crate) opcode: Opcode,
    pub(crate) cell: Cell,
    /// By the line alone.
    pub(crate) line_ns: f64,
    /// What it adds to the wait of later jobs: the job itself, and its upload until that is done.
    pub(crate) expected_ns: u64,
    pub(crate) upload_ns: u64,
    pub(crate) began_ns: u64,
    pub(crate) is_trial: bool,
}

/// One lane's ledger.
pub(crate) struct Ledger {
    estimates: RwLock<Arc<Estimates>>,
    /// The sum of what jobs in flight are expected to take.
    backlog_ns: AtomicU64,
    /// When the lane was given its first job since it was idle, and when the last one left it.
    busy_since_ns: AtomicU64,
    departed_ns: AtomicU64,
    kind: BackendKind,
    board: Arc<Board>,
    rule: BreakerRule,
    flow: Mutex<Flow>,
    /// For each corpus that is not on the device: what its uploads would have saved so far, in nanoseconds.
    savings: Mutex<HashMap<u32, f64>>,
    /// Whether it learns from outcomes.
    adapts: bool,
}

/// The jobs passing through a lane, kept to find out which job a span of time belongs to.
///
/// A job that has the lane to itself shows directly what it takes. Where jobs overlap, nobody knows which of them a
/// span belongs to, and lanes do some of their work for several at once. But a busy span that is longer than everything
/// answered in it and everything in flight would take one after the other shows that the lane is slower than estimated.
///
/// Among callers whose jobs overlap, the few jobs that do not are no fair sample either: their callers' threads waited
/// for a processor. So a job counts as alone only if the ones before it were alone too.
struct Flow {
    under_way: usize,
    /// Jobs that were alone since two last overlapped.
    calm: usize,
    /// Of the job that is alone, if one is: when it came.
    alone: Option<u64>,
    /// The busy span that is looked at: its beginning, the times expected of what was answered in it, and the cell of
    /// most of that.
    since_ns: u64,
    answered_ns: f64,
    largest: Option<(Cell, f64)>,
}

/// After this many jobs that were alone the next one counts.
const CALM: usize = 8;
/// A busy span is judged once what was answered in it is so many times what is in flight.
const SPAN_TO_BACKLOG: f64 = 4.0;
/// And at least so many times the largest job's time.
const SPAN_TO_LARGEST: f64 = 8.0;

impl Default for Flow {
    fn default() -> Self {
        Self { under_way: 0, calm: CALM, alone: None, since_ns: 0, answered_ns: 0.0, largest: None }
    }
}

impl Ledger {
    /// One whose breakers are those of `kind` on the board.
    pub(crate) fn new(kind: BackendKind, board: Arc<Board>, rule: BreakerRule, adapts: bool) -> Self {
        Self {
            estimates: RwLock::new(Arc::new(Estimates::assumed(kind))),
            backlog_ns: AtomicU64::new(0),
            busy_since_ns: AtomicU64::new(0),
            departed_ns: AtomicU64::new(0),
            kind,
            board,
            rule,
            flow: Mutex::default(),
            savings: Mutex::default(),
            adapts,
        }
    }

    /// Now, on the board's clock.
    pub(crate) fn now_ns(&self) -> u64 {
        self.board.now_ns()
    }

    /// There is this operation here.
    pub(crate) fn serves(&self, opcode: Opcode) {
        self.breaker(opcode).install();
    }

    /// Whether jobs of an operation are to go elsewhere.
    pub(crate) fn is_open(&self, opcode: Opcode, now_ns: u64) -> bool {
        self.breaker(opcode).is_open(now_ns)
    }

    /// Whether a job of an operation may go here, if only to try.
    pub(crate) fn may_try(&self, opcode: Opcode, now_ns: u64) -> bool {
        self.breaker(opcode).may_try(&self.rule, now_ns)
    }

    /// The lane did not do a job, by its own fault.
    pub(crate) fn failed(&self, job: &PendingJob, now_ns: u64) {
        self.breaker(job.opcode).failed(&self.rule, job.began_ns, now_ns);
    }

    /// Several lanes of a kind share it.
    fn breaker(&self, opcode: Opcode) -> Breaker<'_> {
        self.board.breaker(breaker_slot(self.kind, opcode))
    }

    /// Replaces the estimates, and forgets what was learnt.
    pub(crate) fn adopt(&self, estimates: Estimates) {
        *self.estimates.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(estimates);
    }

    pub(crate) fn estimates(&self) -> RwLockReadGuard<'_, Arc<Estimates>> {
        self.estimates.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn estimate(&self, load: &Workload, cell: Cell) -> Estimate {
        let estimates = self.estimates();
        let line_ns = estimates.model.ns(load);
        Estimate { line_ns, ns: line_ns * estimates.corrections.factor(cell) }
    }

    pub(crate) fn upload_ns(&self, bytes: u64) -> f64 {
        self.estimates().model.upload.ns(bytes)
    }

    /// What jobs in flight will still take, in nanoseconds.
    pub(crate) fn wait_ns(&self, now_ns: u64) -> f64 {
        let backlog = self.backlog_ns.load(Ordering::Relaxed);
        if backlog == 0 {
            return 0.0;
        }
        let since = self.busy_since_ns.load(Ordering::Relaxed).max(self.departed_ns.load(Ordering::Relaxed));
        backlog.saturating_sub(now_ns.saturating_sub(since)) as f64
    }

    /// A job is given to the lane.
    pub(crate) fn add(&self, job: &PendingJob) {
        if self.backlog_ns.fetch_add(job.expected_ns + job.upload_ns, Ordering::Relaxed) == 0 {
            self.busy_since_ns.store(job.began_ns, Ordering::Relaxed);
        }
        let mut flow = self.flow();
        flow.under_way += 1;
        if flow.under_way == 1 {
            let (alone, since_ns) = (Some(job.began_ns), job.began_ns);
            *flow = Flow { under_way: 1, calm: flow.calm, alone, since_ns, answered_ns: 0.0, largest: None };
        } else {
            (flow.alone, flow.calm) = (None, 0);
        }
    }

    /// What was brought for a job is there: its own time begins.
    pub(crate) fn brought(&self, job: &mut PendingJob, now_ns: u64) {
        self.backlog_ns.fetch_sub(job.upload_ns, Ordering::Relaxed);
        job.upload_ns = 0;
        let mut flow = self.flow();
        if flow.alone == Some(job.began_ns) {
            flow.alone = Some(now_ns);
        }
        job.began_ns = now_ns;
        // Whoever else was in flight may have been waiting for the same.
        (flow.since_ns, flow.answered_ns, flow.largest) = (now_ns, 0.0, None);
    }

    /// It has left the lane, for whatever reason.
    pub(crate) fn remove(&self, job: &PendingJob) {
        self.backlog_ns.fetch_sub(job.expected_ns + job.upload_ns, Ordering::Relaxed);
        let mut flow = self.flow();
        flow.under_way = flow.under_way.saturating_sub(1);
        flow.alone = None;
    }

    /// A job is answered: what it took, or the span that it ends, is compared with what is believed by now. (By what
    /// was believed when it came, all jobs in flight would correct the same error once more.)
    pub(crate) fn answered(&self, job: &PendingJob, now_ns: u64) {
        self.departed_ns.fetch_max(now_ns, Ordering::Relaxed);
        self.breaker(job.opcode).answered(job.began_ns);
        if !self.adapts {
            return;
        }
        let estimates = self.estimates();
        let expected_ns = job.line_ns * estimates.corrections.factor(job.cell);
        let mut flow = self.flow();
        if flow.alone == Some(job.began_ns) {
            let counts = job.is_trial || flow.calm >= CALM;
            flow.calm = (flow.calm + 1).min(CALM);
            drop(flow);
            if !counts {
                return;
            }
            let took = now_ns.saturating_sub(job.began_ns) as f64;
            estimates.corrections.learn(
                job.cell,
                took / expected_ns,
                if job.is_trial { SampleKind::Trial } else { SampleKind::Job },
            );
            return;
        }
        flow.answered_ns += expected_ns;
        if flow.largest.is_none_or(|(_, largest)| largest < expected_ns) {
            flow.largest = Some((job.cell, expected_ns));
        }
        let backlog_ns = self.backlog_ns.load(Ordering::Relaxed) as f64;
        let Some((cell, largest_ns)) = flow.largest else { return };
        if flow.answered_ns < SPAN_TO_BACKLOG * backlog_ns || flow.answered_ns < SPAN_TO_LARGEST * largest_ns {
            return;
        }
        let span_ns = now_ns.saturating_sub(flow.since_ns) as f64;
        let ratio = span_ns / (flow.answered_ns + backlog_ns);
        (flow.since_ns, flow.answered_ns, flow.largest) = (now_ns, 0.0, None);
        drop(flow);
        if ratio > 1.0 {
            estimates.corrections.learn(cell, ratio, SampleKind::Span);
        }
    }

    /// A job is given up after a time. If it had the lane to itself, it would have taken at least that.
    pub(crate) fn given_up(&self, job: &PendingJob, now_ns: u64) {
        let took = now_ns.saturating_sub(job.began_ns) as f64;
        let estimates = self.estimates();
        let expected_ns = job.line_ns * estimates.corrections.factor(job.cell);
        let alone = |flow: &Flow| flow.alone == Some(job.began_ns) && flow.calm >= CALM;
        if self.adapts && job.upload_ns == 0 && took > expected_ns && alone(&self.flow()) {
            estimates.corrections.learn(job.cell, took / expected_ns, SampleKind::Job);
        }
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an upload of a corpus pays by now: this job would have been answered sooner by `saved_ns` with it, and
    /// earlier ones too. Like buying skis once the rent paid is their price: never more than twice what knowing the
    /// future would have cost.
    pub(crate) fn save_up(&self, corpus: u32, saved_ns: f64, upload_ns: f64) -> bool {
        let mut savings = self.savings.lock().unwrap_or_else(PoisonError::into_inner);
        if savings.len() >= SAVERS && !savings.contains_key(&corpus) {
            savings.clear();
        }
        let saved = savings.entry(corpus).or_default();
        *saved += saved_ns;
        let pays = *saved >= upload_ns;
        if pays {
            savings.remove(&corpus);
        }
        pays
    }
}

#[cfg(test)]
mod tests {
    use megaring_core::operation::Size;

    use super::*;

    fn of(kind: BackendKind, adapts: bool) -> Ledger {
        let board = Board::in_memory().unwrap_or_else(|error| unreachable!("a page of memory: {error}"));
        Ledger::new(kind, board, BreakerRule::default(), adapts)
    }

    fn ledger() -> Ledger {
        of(BackendKind::Cuda, true)
    }

    fn cell() -> Cell {
        Cell::of(&Workload {
            opcode: Opcode::Search,
            size: Size { items: 1, bytes: 1, multiply_adds: 1, candidates: 1 },
        })
    }

    fn entry(expected_ns: u64, began_ns: u64) -> PendingJob {
        let line_ns = 1_000.0;
        let opcode = Opcode::Search;
        PendingJob { opcode, cell: cell(), line_ns, expected_ns, upload_ns: 0, began_ns, is_trial: false }
    }

    #[test]
    fn what_is_under_way_has_to_be_waited_for() {
        let ledger = ledger();
        assert_eq!(ledger.wait_ns(5), 0.0);
        let (first, second) = (entry(100, 10), entry(50, 20));
        ledger.add(&first);
        ledger.add(&second);
        assert_eq!(ledger.wait_ns(20), 140.0, "the first has been at work since 10");
        assert_eq!(ledger.wait_ns(1_000), 0.0, "it should be over by now");
        ledger.answered(&first, 60);
        ledger.remove(&first);
        assert_eq!(ledger.wait_ns(70), 40.0, "the second has been at work since 60");
        ledger.remove(&second);
        assert_eq!(ledger.wait_ns(70), 0.0);
    }

    fn factor(ledger: &Ledger) -> f64 {
        ledger.estimates().corrections.factor(cell())
    }

    /// Jobs that a lane does one after the other in `each_ns`, with `most` in flight together; answers the factor that
    /// is believed at the end.
    fn run(most: usize, jobs: u64, each_ns: u64) -> f64 {
        let ledger = ledger();
        let mut under_way = std::collections::VecDeque::new();
        let mut now = 0;
        let mut range = (f64::INFINITY, 0.0f64);
        for number in 0..jobs {
            while under_way.len() < most {
                let expected = 1_000.0 * factor(&ledger);
                // No two begin at one time.
                let job = entry(expected as u64, now + under_way.len() as u64);
                ledger.add(&job);
                under_way.push_back(job);
            }
            now += each_ns + number % 7 * each_ns / 60;
            if let Some(job) = under_way.pop_front() {
                ledger.answered(&job, now);
                ledger.remove(&job);
            }
            range = (range.0.min(factor(&ledger)), range.1.max(factor(&ledger)));
        }
        assert!(range.0 > 0.8 && range.1 < 1.3 * each_ns.max(1_000) as f64 / 1e3, "{range:?} with {most} in flight");
        factor(&ledger)
    }

    #[test]
    fn however_many_are_under_way_what_is_believed_stays_steady() {
        for most in [1, 2, 8, 32, 85, 256] {
            let steady = run(most, 20_000, 1_000);
            assert!((0.95..1.1).contains(&steady), "{steady} with {most} in flight");
        }
    }

    #[test]
    fn a_lane_that_became_slower_is_found_out_also_where_it_is_never_idle() {
        for most in [1, 2, 8, 85] {
            let slower = run(most, 20_000, 3_000);
            assert!((2.2..3.4).contains(&slower), "{slower} with {most} in flight");
        }
    }

    #[test]
    fn those_that_happen_to_be_alone_among_others_do_not_count() {
        let ledger = ledger();
        for round in 0..200 {
            let (one, other) = (entry(1_000, round * 100_000), entry(1_000, round * 100_000 + 10));
            ledger.add(&one);
            ledger.add(&other);
            for job in [one, other] {
                ledger.answered(&job, round * 100_000 + 1_900);
                ledger.remove(&job);
            }
            // Its thread waited for a processor, as those of the others did, or they would have come.
            let alone = entry(1_000, round * 100_000 + 5_000);
            ledger.add(&alone);
            ledger.answered(&alone, round * 100_000 + 55_000);
            ledger.remove(&alone);
        }
        assert!(factor(&ledger) < 1.1, "{}", factor(&ledger));
        // Until nobody overlaps any more.
        for round in 1_000..1_100 {
            let alone = entry(1_000, round * 100_000);
            ledger.add(&alone);
            ledger.answered(&alone, round * 100_000 + 2_000);
            ledger.remove(&alone);
        }
        assert!((1.8..2.1).contains(&factor(&ledger)), "{}", factor(&ledger));
    }

    #[test]
    fn a_large_job_among_small_ones_is_not_taken_for_a_small_one() {
        let ledger = ledger();
        for round in 0..200 {
            let start = round * 1_000_000;
            let large = entry(500_000, start);
            ledger.add(&large);
            // Small ones overtake it; the last just before it is answered.
            for small in 1..10 {
                let job = PendingJob { line_ns: 100.0, ..entry(100, start + small * 50_000) };
                ledger.add(&job);
                ledger.answered(&job, start + small * 50_000 + 100);
                ledger.remove(&job);
            }
            ledger.answered(&PendingJob { line_ns: 500_000.0, ..large }, start + 450_200);
            ledger.remove(&large);
        }
        assert!((0.9..1.1).contains(&factor(&ledger)), "{}", factor(&ledger));
    }

    #[test]
    fn one_that_is_given_up_took_at_least_its_time() {
        let ledger = ledger();
        let job = entry(1_000, 0);
        for (after, learnt) in [(500, false), (1_000_000, true)] {
            ledger.add(&job);
            ledger.given_up(&job, after);
            ledger.remove(&job);
            assert_eq!(factor(&ledger) > 1.0, learnt);
        }
        let before = factor(&ledger);
        let other = entry(1_000, 7);
        ledger.add(&job);
        ledger.add(&other);
        ledger.given_up(&other, 1_000_000);
        assert_eq!(factor(&ledger), before, "it may have waited for the other");
    }

    #[test]
    fn what_is_brought_has_to_be_waited_for_and_is_no_part_of_the_job() {
        let ledger = ledger();
        let mut job = PendingJob { upload_ns: 1_000_000, ..entry(1_000, 5) };
        ledger.add(&job);
        assert_eq!(ledger.wait_ns(5), 1_001_000.0);
        ledger.brought(&mut job, 900_000);
        assert!(ledger.wait_ns(900_000) <= 1_000.0);
        ledger.answered(&job, 901_000);
        ledger.remove(&job);
        assert!((factor(&ledger) - 1.0).abs() < 1e-6);
        assert_eq!(ledger.wait_ns(901_000), 0.0);
    }

    #[test]
    fn an_upload_pays_once_enough_would_have_been_saved() {
        let ledger = ledger();
        assert!(!ledger.save_up(1, 40.0, 100.0) && !ledger.save_up(1, 40.0, 100.0));
        assert!(!ledger.save_up(2, 40.0, 100.0), "each corpus for itself");
        assert!(ledger.save_up(1, 40.0, 100.0));
        assert!(!ledger.save_up(1, 40.0, 100.0), "evicted since: it begins anew");
        (3..2 * SAVERS as u32).for_each(|corpus| assert!(!ledger.save_up(corpus, 0.0, 1.0)));
        assert!(ledger.savings.lock().is_ok_and(|savings| savings.len() <= SAVERS));
    }

    #[test]
    fn one_that_does_not_adapt_learns_nothing() {
        let ledger = of(BackendKind::Cpu, false);
        ledger.answered(&entry(1, 0), 1_000);
        assert_eq!(factor(&ledger), 1.0);
    }
}
