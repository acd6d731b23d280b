//! Measuring: every backend over the sizes of the plan, in alternation, through the engine as a caller's jobs go.
//!
//! - Jobs insist on their backend, so what the router believes meanwhile does not matter.
//! - A backend that fails is left out from then on, with its reason; the others are measured to the end.
//! - A size that takes a backend too long is left out for it; so is what is left when the time is over.
//! - On a server, callers come first: measuring waits while they have jobs under way, and measures anew what they have
//!   disturbed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use megaring_core::corpus::{CorpusView, SegmentData, SegmentView};
use megaring_core::nop::Nop;
use megaring_core::{Answered, Backend, BackendKind, BackendStatus, Error, Metric, Operation};

use super::plan::{Case, CorpusPlan, Plan, Texts};
use super::{Calibration, Costs, Failed, Fingerprint, Measurement, SCHEMA, cases, now_unix_s};
use crate::cost::Workload;
use crate::engine::Engine;
use crate::measure::disturbance::Watch;
use crate::measure::sampler::{self, Subject};
use crate::measure::stats;
use crate::terms::Terms;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Some ten seconds, twenty at most.
    Quick,
    /// Larger corpora too, and each size better: a few minutes.
    Full,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What is measured now.
    pub what: String,
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
    /// What is left, by what it has taken so far; none before the first step.
    pub left: Option<Duration>,
}

/// Corpora of calibrations are numbered from here up: stored ones begin at 1, and the self-test has 1 << 31.
static HANDLES: AtomicU32 = AtomicU32::new((1 << 31) + 1);
/// Sets of queries, so that no answer is in a cache.
const SETS: usize = 16;
/// How often a size is measured anew that callers' jobs have disturbed.
const ATTEMPTS: usize = 3;
/// How long callers' jobs are waited for before a size is measured all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether they are done.
const LOOK: Duration = Duration::from_millis(5);
/// Uploads of one corpus.
const UPLOADS: usize = 5;
/// Of a time that was taken once.
const ONCE_UNCERTAIN: f64 = 0.2;
/// The largest uncertainty that is told.
const MOST_UNCERTAIN: f64 = 1e3;

impl Effort {
    /// Nothing is begun after this long.
    fn limit(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(16),
            Self::Full => Duration::from_secs(400),
        }
    }

    /// A job that takes longer is too slow to be measured.
    fn longest(self) -> Duration {
        match self {
            Self::Quick => Duration::from_millis(100),
            Self::Full => Duration::from_secs(2),
        }
    }

    fn plan(self) -> sampler::Plan {
        let milliseconds = Duration::from_millis;
        match self {
            Self::Quick => sampler::Plan {
                warm_up: milliseconds(4),
                settle: milliseconds(2),
                turn: milliseconds(4),
                certainty: 0.05,
                limit: milliseconds(60),
                ..sampler::Plan::default()
            },
            Self::Full => sampler::Plan {
                warm_up: milliseconds(20),
                settle: milliseconds(5),
                limit: Duration::from_secs(1),
                ..sampler::Plan::default()
            },
        }
    }
}

/// Measures the backends of an engine. `progress` hears of each step before it is begun, and may end it all.
///
/// # Errors
/// [`Error::Cancelled`] where `progress` says so, [`Error::Draining`] where the engine takes no more jobs,
/// [`Error::Internal`] where the data cannot be made. A backend's failure is no error.
pub fn measure(
    engine: &Arc<Engine>,
    effort: Effort,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Calibration, Error> {
    let plan = Plan::new(effort == Effort::Quick);
    let mut session = Session::new(engine, effort, progress, plan.steps());
    session.step("the empty job", &[Nop])?;
    for texts in &plan.texts {
        session.texts(*texts)?;
    }
    for corpus in &plan.corpora {
        session.corpus(corpus)?;
    }
    session.end()
}

/// A calibration being made.
struct Session<'a> {
    engine: &'a Arc<Engine>,
    effort: Effort,
    progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
    steps: usize,
    done: usize,
    begun: Instant,
    watch: Watch,
    /// Those that have not failed.
    measured: Vec<BackendSamples>,
    failed: Vec<Failed>,
    left_out: usize,
    disturbed: usize,
}

/// One backend under measurement.
struct BackendSamples {
    kind: BackendKind,
    samples: Vec<Measurement>,
    uploads: Vec<[f64; 2]>,
}

impl<'a> Session<'a> {
    fn new(
        engine: &'a Arc<Engine>,
        effort: Effort,
        progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
        steps: usize,
    ) -> Self {
        let running = engine.backends().into_iter();
        let running = running.filter(|(_, status)| matches!(status, BackendStatus::Available(_)));
        let mut kinds: Vec<BackendKind> = running.map(|(kind, _)| kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let measured =
            kinds.into_iter().map(|kind| BackendSamples { kind, samples: Vec::new(), uploads: Vec::new() }).collect();
        let (begun, watch) = (Instant::now(), Watch::start());
        let (failed, left_out, disturbed, done) = (Vec::new(), 0, 0, 0);
        Self { engine, effort, progress, steps, done, begun, watch, measured, failed, left_out, disturbed }
    }

    fn corpus(&mut self, plan: &CorpusPlan) -> Result<(), Error> {
        let CorpusPlan { rows, dim, ref cases } = *plan;
        if self.is_over() {
            self.skip(cases.len());
            return Ok(());
        }
        self.tell(&format!("{rows} x {dim}: the data"))?;
        let data = cases::segment(rows, dim);
        let view = self.view(&data, rows, dim);
        for case in cases {
            let name = format!("{rows} x {dim}: {}", case.name());
            match *case {
                Case::Upload => self.upload(&name, &data, rows, dim)?,
                Case::Search { queries, k } => {
                    self.step(&name, &sets(|set| cases::search(&view, &*data, queries, k, set)))?;
                }
                Case::Score { queries } => {
                    self.step(&name, &sets(|set| cases::score(&view, &*data, queries, set)))?;
                }
                Case::Nearest { queries, k } => {
                    self.step(&name, &sets(|set| cases::nearest(&view, queries, k, set)))?;
                }
            }
        }
        Ok(())
    }

    fn view(&self, data: &Arc<dyn SegmentData>, rows: usize, dim: usize) -> Arc<CorpusView> {
        let segment = Arc::new(SegmentView::new(data.clone(), rows));
        // The columns are made on first use, and are not part of what is measured.
        let _ = (segment.columns(Metric::Cosine), segment.high_columns(Metric::Cosine));
        let handle = HANDLES.fetch_add(1, Ordering::Relaxed);
        let view = Arc::new(CorpusView::new("calibration".into(), handle, 1, dim, vec![segment]));
        self.engine.store().table().register(&view);
        view
    }

    fn texts(&mut self, texts: Texts) -> Result<(), Error> {
        let Texts { memories: count, length } = texts;
        let job = cases::memories(self.engine.profile(), count, length);
        self.step(&format!("{count} texts of {} bytes", job.texts.bytes.len() / count), &[job])
    }

    /// Measures one size on every backend, by jobs that differ in their queries alone.
    fn step<O: Answered + Clone>(&mut self, name: &str, jobs: &[O]) -> Result<(), Error> {
        if self.is_over() {
            self.skip(1);
            return Ok(());
        }
        self.tell(name)?;
        self.done += 1;
        let kinds: Vec<BackendKind> = self.measured.iter().map(|samples_of| samples_of.kind).collect();
        let kinds: Vec<BackendKind> =
            kinds.into_iter().filter(|kind| self.is_worth_measuring(*kind, &jobs[0])).collect();
        for attempt in 1..=ATTEMPTS {
            self.wait_for_callers();
            let before = self.engine.metrics().snapshot().jobs_answered;
            let (engine, mut own) = (self.engine, vec![0u64; kinds.len()]);
            let subjects = kinds.iter().zip(&mut own).map(|(kind, own)| {
                Subject::new(move |call: sampler::Call| {
                    let job = jobs[call.number as usize % jobs.len()].clone();
                    *own += 1;
                    let begun = Instant::now();
                    engine.run_blocking(job, forced(*kind)).map(|_| begun.elapsed())
                })
            });
            let found = sampler::alternate(&self.effort.plan(), subjects.collect(), &sampler::clock(), &mut |_| {});
            self.watch.look();
            self.refuse_if_draining()?;
            let others =
                self.engine.metrics().snapshot().jobs_answered.saturating_sub(before + own.iter().sum::<u64>());
            if others > 0 && attempt < ATTEMPTS && !self.is_over() {
                continue;
            }
            self.disturbed += usize::from(others > 0);
            let load = Workload::of(&jobs[0]);
            for (kind, found) in kinds.iter().zip(found) {
                match (found.error, found.times) {
                    (Some(error), _) => self.fail(*kind, &error),
                    (None, Some(times)) => {
                        // JSON has no infinity, which few samples give.
                        let uncertainty = stats::uncertainty(&times).min(MOST_UNCERTAIN);
                        let measurement = Measurement::new(&load, (times.p50_ns, uncertainty));
                        self.note(*kind, |samples_of| samples_of.samples.push(measurement));
                    }
                    (None, None) => {}
                }
            }
            return Ok(());
        }
        Ok(())
    }

    /// One job ahead, which brings what it needs: whether the backend does it, and soon enough.
    fn is_worth_measuring<O: Answered + Clone>(&mut self, kind: BackendKind, job: &O) -> bool {
        let begun = Instant::now();
        match self.engine.run_blocking(job.clone(), forced(kind)) {
            Err(error) => {
                self.fail(kind, &error);
                false
            }
            // The first may have been slow because it brought something.
            Ok(_) if begun.elapsed() > self.effort.longest() => {
                let begun = Instant::now();
                let again = self.engine.run_blocking(job.clone(), forced(kind));
                let (well, took) = (again.is_ok(), begun.elapsed());
                let quick = well && took <= self.effort.longest();
                if well && !quick {
                    // Better known roughly than assumed.
                    let times = (took.as_nanos() as f64, ONCE_UNCERTAIN);
                    self.note(kind, |samples_of| samples_of.samples.push(Measurement::new(&Workload::of(job), times)));
                }
                quick
            }
            Ok(_) => true,
        }
    }

    /// Measures how long it takes to bring a corpus to each device that has to be brought one.
    fn upload(&mut self, name: &str, data: &Arc<dyn SegmentData>, rows: usize, dim: usize) -> Result<(), Error> {
        self.tell(name)?;
        self.done += 1;
        let engine = self.engine.clone();
        for lane in engine.router().lanes() {
            let (kind, backend) = (lane.kind(), lane.backend());
            let mut times = Vec::with_capacity(UPLOADS);
            let mut bytes = 0;
            for _ in 0..UPLOADS {
                let job = cases::search(&self.view(data, rows, dim), &**data, 1, 10, 0);
                let Some(reads) = job.reads() else { break };
                let lacking = backend.lacking(reads);
                if lacking.bytes == 0
                    || !lacking.stays
                    || !self.measured.iter().any(|samples_of| samples_of.kind == kind)
                {
                    break;
                }
                bytes = lacking.bytes;
                let begun = Instant::now();
                match bring(backend, &job) {
                    Ok(()) => times.push(begun.elapsed().as_nanos() as f64),
                    Err(error) => {
                        self.fail(kind, &error);
                        break;
                    }
                }
            }
            if let Some(ns) = stats::median(&times) {
                self.note(kind, |samples_of| samples_of.uploads.push([bytes as f64, ns]));
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: BackendKind, change: impl FnOnce(&mut BackendSamples)) {
        if let Some(under) = self.measured.iter_mut().find(|samples_of| samples_of.kind == kind) {
            change(under);
        }
    }

    /// The backend is left out from now on. That it does not serve an operation is no failure.
    fn fail(&mut self, kind: BackendKind, error: &Error) {
        let runs = |(running, status): &(BackendKind, BackendStatus)| {
            *running == kind && matches!(status, BackendStatus::Available(_))
        };
        let well = self.engine.backends().iter().any(runs);
        if well && matches!(error, Error::BackendUnavailable { .. } | Error::Exhausted { .. }) {
            self.left_out += 1;
            return;
        }
        if self.engine.admission().is_closed() {
            // No fault of its own.
            return;
        }
        tracing::warn!(backend = %kind, %error, "a backend failed while it was measured");
        self.measured.retain(|samples_of| samples_of.kind != kind);
        self.failed.push(Failed { backend: kind.name().into(), reason: error.to_string() });
    }

    fn wait_for_callers(&self) {
        let begun = Instant::now();
        let admission = self.engine.admission();
        while admission.in_flight() > 0 && begun.elapsed() < PATIENCE && !admission.is_closed() {
            std::thread::park_timeout(LOOK);
        }
    }

    fn refuse_if_draining(&self) -> Result<(), Error> {
        if self.engine.admission().is_closed() { Err(Error::Draining) } else { Ok(()) }
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() > self.effort.limit()
    }

    fn skip(&mut self, steps: usize) {
        self.done += steps;
        self.left_out += steps;
    }

    fn tell(&mut self, what: &str) -> Result<(), Error> {
        self.refuse_if_draining()?;
        let left = (self.done > 0).then(|| {
            let each = self.begun.elapsed().as_secs_f64() / self.done as f64;
            let whole = Duration::from_secs_f64(each * self.steps.saturating_sub(self.done) as f64);
            whole.min(self.effort.limit().saturating_sub(self.begun.elapsed()))
        });
        let progress = Progress { what: what.to_owned(), done: self.done, steps: self.steps, left };
        match (self.progress)(&progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    fn end(mut self) -> Result<Calibration, Error> {
        let disturbance = self.watch.whole();
        let mut doubts = disturbance.doubts();
        if self.disturbed > 0 {
            doubts.push(format!("other jobs ran while {} of the sizes were measured", self.disturbed));
        }
        if self.is_over() && self.left_out > 0 {
            doubts
                .push(format!("{} sizes were left out, since the time was over or they take too long", self.left_out));
        }
        let mut backends = Vec::new();
        for BackendSamples { kind, samples, uploads } in std::mem::take(&mut self.measured) {
            if samples.is_empty() {
                continue;
            }
            match Costs::fitted(kind, samples, uploads) {
                Ok(costs) => backends.push(costs),
                Err(error) => self.failed.push(Failed { backend: kind.name().into(), reason: error.to_string() }),
            }
        }
        Ok(Calibration {
            schema: SCHEMA,
            fingerprint: Fingerprint::of(self.engine),
            made_unix_s: now_unix_s(),
            took_s: self.begun.elapsed().as_secs_f64(),
            quick: self.effort == Effort::Quick,
            backends,
            failed: self.failed,
            noise: disturbance.into(),
            doubts,
        })
    }
}

impl Case {
    fn name(self) -> String {
        match self {
            Self::Search { queries, k } => format!("search, {queries} queries, top {k}"),
            Self::Score { queries } => format!("scores, {queries} queries"),
            Self::Nearest { queries, k } => format!("nearest points, {queries} queries, {k} each"),
            Self::Upload => "upload".into(),
        }
    }
}

/// As many jobs as there are sets of queries.
fn sets<O>(job: impl Fn(usize) -> O) -> Vec<O> {
    (0..SETS).map(job).collect()
}

/// Brings what a job reads and lets go of it.
fn bring(backend: &dyn Backend, job: &dyn Operation) -> Result<(), Error> {
    backend.prepare(job.reads()).map(drop)
}

fn forced(kind: BackendKind) -> Terms {
    Terms { backend: Some(kind), ..Terms::default() }
}
