//! A run: measures one case after another, within the time, and keeps what is to be told of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::{Answered, BackendKind, Error};
use megaring_engine::measure::disturbance::Watch;
use megaring_engine::measure::sampler::{self, Measured, Plan, Subject};
use megaring_engine::{Engine, Outcome, Terms};
use megaring_harness::record::{Device, Machine, Peak, Point, Record, Residence, SCHEMA, Sizes};

use super::budget::Budget;
use super::machine::{self, Rig};
use crate::console::{Progress, duration_text, grouped};

/// What is measured, of each backend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) suite: &'static str,
    pub(super) name: &'static str,
    pub(super) residence: Residence,
    pub(super) sizes: Sizes,
    /// Of one job.
    pub(super) multiply_adds: f64,
    /// That one job reads at least.
    pub(super) bytes: f64,
}

/// A backend in a case.
pub(super) type Entrant<'a> = (BackendKind, Subject<'a, Error>);

/// By dimensions and rows, the smallest batch of which something holds.
type Corpora = BTreeMap<(u64, u64), u64>;

/// Steps of the progress bar.
const STEPS: u64 = 1_000;
/// Cases that a backend may fail in before it is left out.
const FAILURES: usize = 3;
/// Fewest samples, and a call before them to warm up.
const LEAST: usize = 6;

/// See the module's text.
pub(super) struct Session {
    rig: Rig,
    kinds: Vec<BackendKind>,
    begun: Instant,
    /// When the budget's time began.
    counted: Instant,
    budget: Budget,
    /// The suite has had no case yet: its first is measured in any case.
    fresh: bool,
    watch: Watch,
    progress: Progress,
    machine: Machine,
    /// What ran at the start: one that fails on the way was measured all the same.
    devices: Vec<Device>,
    peaks: Vec<Peak>,
    points: Vec<Point>,
    notes: Vec<String>,
    failures: HashMap<BackendKind, usize>,
    /// What would have taken too long, of a backend and case.
    left_out: BTreeMap<(&'static str, &'static str), Corpora>,
    /// Cases for which there was no time.
    missed: usize,
}

impl Session {
    pub(super) fn new(rig: Rig, budget: Budget) -> Self {
        let kinds = rig.kinds();
        let (devices, notes) = (rig.devices(), rig.notes());
        Self {
            rig,
            kinds,
            begun: Instant::now(),
            counted: Instant::now(),
            budget,
            fresh: true,
            watch: Watch::start(),
            progress: Progress::start("bench".into(), STEPS),
            machine: machine::machine(),
            devices,
            peaks: Vec::new(),
            points: Vec::new(),
            notes,
            failures: HashMap::new(),
            left_out: BTreeMap::new(),
            missed: 0,
        }
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.rig.engine
    }

    /// The backends that are still in the running.
    pub(super) fn kinds(&self) -> Vec<BackendKind> {
        self.kinds.clone()
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Before any suite, and not within the time of their cases.
    pub(super) fn measure_peaks(&mut self) {
        self.peaks = machine::peaks(&self.rig);
        self.counted = Instant::now();
    }

    /// A suite begins. Its first case is measured however little time there is, so that every run shows something.
    pub(super) fn begin(&mut self) {
        self.fresh = true;
    }

    /// Whether the time is used up.
    pub(super) fn lacks_time(&self) -> bool {
        !self.fresh && self.budget.share(self.counted.elapsed()).is_none()
    }

    /// A case for which there is no time.
    pub(super) fn miss(&mut self) {
        self.missed += 1;
        self.budget.done();
    }

    /// A case that is left out for a reason that is noted.
    pub(super) fn skip(&mut self) {
        self.budget.done();
    }

    /// Measures a case; backends that are not in the running, or would take too long, are left out.
    pub(super) fn measure(&mut self, case: &Case, entrants: Vec<Entrant<'_>>) {
        if self.lacks_time() {
            return self.miss();
        }
        let (kinds, subjects): (Vec<_>, Vec<_>) = entrants
            .into_iter()
            .filter(|(kind, _)| self.kinds.contains(kind) && !self.is_too_slow(*kind, case))
            .unzip();
        self.fresh = false;
        if !subjects.is_empty() {
            let plan = plan(self.budget.share(self.counted.elapsed()).unwrap_or_default(), subjects.len());
            let (budget, progress, label) = (&self.budget, &mut self.progress, label(case));
            let mut tell = |share| progress.at((budget.progress(share) * STEPS as f64) as u64, &label);
            let before = kinds.iter().map(|kind| self.rig.streamed(*kind)).collect::<Vec<_>>();
            let all = sampler::alternate(&plan, subjects, &sampler::clock(), &mut tell);
            let disturbances = self.watch.lap().doubts();
            for ((kind, measured), before) in kinds.into_iter().zip(all).zip(before) {
                let streamed = self.rig.streamed(kind) > before;
                let streamed = streamed.then(|| "the corpus did not fit the device and was streamed through".into());
                self.keep(case, kind, measured, disturbances.iter().cloned().chain(streamed));
            }
        }
        self.budget.done();
    }

    fn is_too_slow(&mut self, kind: BackendKind, case: &Case) -> bool {
        let now = self.counted.elapsed();
        let which = (case.name, kind, case.residence);
        let slow = self.budget.too_slow(which, case.sizes, LEAST as u32 + 1, now).is_some();
        if slow {
            let Sizes { rows, dim, items, .. } = case.sizes;
            let smallest =
                self.left_out.entry((kind.name(), case.name)).or_default().entry((dim, rows)).or_insert(items);
            *smallest = items.min(*smallest);
        }
        slow
    }

    fn keep(
        &mut self,
        case: &Case,
        kind: BackendKind,
        measured: Measured<Error>,
        doubts: impl Iterator<Item = String>,
    ) {
        if let Some(mut times) = measured.times {
            let suite = (case.name, kind, case.residence);
            self.budget.learn(suite, case.sizes, times.p50_ns);
            times.doubts.extend(doubts);
            if measured.repeats > 1 {
                let note =
                    format!("{}: each sample is the mean of {} in a row", case.name, grouped(measured.repeats.into()));
                self.note(note);
            }
            let Case { suite, name, residence, sizes, multiply_adds, bytes } = *case;
            let (suite, case, backend) = (suite.to_owned(), name.to_owned(), kind.name().to_owned());
            self.points.push(Point { suite, case, backend, residence, sizes, times, multiply_adds, bytes });
        }
        if let Some(error) = measured.error {
            self.note(format!("{kind}: {} failed: {error}", label(case)));
            let failures = self.failures.entry(kind).or_default();
            *failures += 1;
            let many = (*failures >= FAILURES).then(|| format!("it failed in {FAILURES} cases"));
            if let Some(reason) = self.rig.fault(kind).or(many) {
                self.kinds.retain(|left| *left != kind);
                self.note(format!("{kind} was left out from then on: {reason}"));
            }
        }
    }

    /// The record, but for the crossovers.
    pub(super) fn finish(mut self) -> Record {
        let limit = duration_text(self.budget.limit());
        for ((kind, name), corpora) in std::mem::take(&mut self.left_out) {
            let from = |((dim, rows), items): ((u64, u64), u64)| match rows {
                0 => format!("batches from {}", grouped(items)),
                _ => format!("batches from {} over {} x {dim}", grouped(items), grouped(rows)),
            };
            let list = corpora.into_iter().map(from).collect::<Vec<_>>().join(", ");
            self.note(format!(
                "{kind}: {name}: left out, since they would take too long for the time limit of {limit}: {list}"
            ));
        }
        if self.missed > 0 {
            self.note(format!(
                "the time limit of {limit} was used up before {} {}, which {} left out: give more with --time-limit",
                grouped(self.missed as u64),
                if self.missed == 1 { "case" } else { "cases" },
                if self.missed == 1 { "was" } else { "were" },
            ));
        }
        let doubts = self.watch.doubts();
        self.notes.extend(doubts.into_iter().map(|doubt| format!("the machine was not quiet: {doubt}")));
        let took = self.begun.elapsed();
        self.progress.finish(&format!("{} points in {}", grouped(self.points.len() as u64), duration_text(took)));
        Record {
            schema: SCHEMA,
            machine: Machine { took_s: took.as_secs_f64(), ..self.machine },
            backends: self.devices,
            peaks: self.peaks,
            points: self.points,
            crossovers: Vec::new(),
            notes: self.notes,
        }
    }
}

/// How well to measure in about so much time for all subjects together.
fn plan(share: Duration, subjects: usize) -> Plan {
    let each = share / u32::try_from(subjects.max(1)).unwrap_or(u32::MAX);
    // With six turns that settle as long as they measure, and a warm-up as long as both.
    let turn = (each / 16).clamp(Duration::from_millis(1), Duration::from_millis(20));
    Plan { warm_up: 2 * turn, settle: turn, turn, least: LEAST, limit: each.mul_f64(0.8), ..Plan::default() }
}

/// A job done by one backend, and how long that took.
pub(super) fn timed<O: Answered>(engine: &Arc<Engine>, kind: BackendKind, job: O) -> Result<Duration, Error> {
    let terms = Terms { backend: Some(kind), ..Terms::default() };
    let begun = Instant::now();
    let Outcome { made, .. } = engine.run_blocking(job, terms)?;
    let took = begun.elapsed();
    if made.backend == kind {
        Ok(took)
    } else {
        Err(Error::Internal(format!("{} did a job that {kind} was to do", made.backend)))
    }
}

/// A case as people call it.
fn label(case: &Case) -> String {
    let Sizes { rows, dim, k, items } = case.sizes;
    let mut label = case.name.to_owned();
    if rows > 0 {
        label += &format!(" over {} x {dim}, top {k}", grouped(rows));
    }
    if case.residence == Residence::Cold {
        label += ", cold";
    }
    if items > 0 {
        label += &format!(", batch {}", grouped(items));
    }
    label
}
