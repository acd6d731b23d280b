//! Step 4, the router: which backend does a job, and why.
//!
//! A caller's wish comes first: a backend that was asked for by name is used or refused, never replaced. Otherwise the lane is taken that
//! answers soonest, by the books it keeps of each (`router/book.rs`, `router/choice.rs`): a cost model that was measured on this machine or is
//! assumed until it is, what is under way, what a device lacks, and what outcomes have taught since. A backend on an emulated device is not
//! among them: it would be slower than the CPU backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::job::{Job, Points, Shape, Terms};
use megaring_core::{BackendKind, Error, Lacking, Opcode};

use self::book::{Belief, Book, Entry};
use self::choice::{Ask, Choice, Chooser, Lanes, MAX_LANES};
use self::corrections::{Cell, Corrections};
use crate::cost::{CostModel, Parts, Sample};
use crate::lane::Lane;

mod book;
mod choice;
mod cooling;
mod corrections;
mod prospect;
mod question;
#[cfg(test)]
mod simulation;

pub use self::book::Basis;
pub use self::choice::Why;
pub use self::prospect::{Forecast, Prospect, Times};
pub use self::question::Question;

/// How a router goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Whether it learns from outcomes, and spends a little time on seeing whether what it believes still holds.
    pub adapts: bool,
    /// How long a backend that failed a job is left alone; twice as long each time it fails again, a minute at most.
    pub cooling: Duration,
}

impl Default for Routing {
    fn default() -> Self {
        Self { adapts: true, cooling: Duration::from_secs(1) }
    }
}

/// No job counts as longer: the sum of all that are under way must fit its type.
const LONGEST_NS: f64 = 1e15;

/// A choice, with its reason.
pub struct Route<'a> {
    /// Where the job goes.
    pub lane: &'a Lane,
    /// Its place in [`Router::lanes`].
    pub index: usize,
    /// Why there.
    pub why: Why,
    /// What the job is expected to take there once it is its turn.
    pub expected: Duration,
    choice: Choice,
    book: &'a Arc<Book>,
    clock: Instant,
}

/// A job's entry in a lane's book: it counts as under way as long as this lives.
pub(crate) struct Booking {
    book: Arc<Book>,
    entry: Entry,
    clock: Instant,
    /// Answered, or failed.
    settled: bool,
}

/// Backends that run, and those that do not.
pub struct Router {
    lanes: Vec<Lane>,
    absent: Vec<(BackendKind, String)>,
    books: Vec<Arc<Book>>,
    chooser: Chooser,
    clock: Instant,
}

impl Router {
    /// A router over running lanes; `absent` says of the other kinds why they are not there. Lanes beyond the eighth get no jobs. What they
    /// cost is assumed until [`Self::adopt`].
    #[must_use]
    pub fn new(lanes: Vec<Lane>, absent: Vec<(BackendKind, String)>, routing: Routing) -> Self {
        let Routing { adapts, cooling } = routing;
        let books = lanes.iter().take(MAX_LANES).map(|lane| Arc::new(Book::new(lane.kind(), cooling, adapts)));
        let books = books.collect();
        Self { lanes, absent, books, chooser: Chooser::new(adapts), clock: Instant::now() }
    }

    /// Picks the lane for a job, by its size and its caller's terms. Lanes that have failed get no jobs, and those in `tried` not this one.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] with the reason, when the wish cannot be met or nothing serves the operation.
    pub fn route(&self, job: &Job, terms: &Terms, tried: &[usize]) -> Result<Route<'_>, Error> {
        let lacking = |lane: usize| self.lanes[lane].backend().lacking(job);
        self.choose(&job.shape(), corpus_of(job), terms, tried, &lacking)
    }

    /// What a job of this shape takes by the model on the best of the backends, idle and with what it reads; zero where nothing serves it.
    /// Without what was learnt of jobs of about this size: whoever asks compares sizes, and what is learnt of each has an error of its own.
    #[must_use]
    pub fn estimate(&self, shape: &Shape, wish: Option<BackendKind>) -> Duration {
        let (parts, cell) = (Parts::of(shape), Cell::of(shape));
        let able = (0..self.books.len()).filter(|lane| self.is_able(*lane, shape, wish));
        let least = able.map(|lane| self.books[lane].quote(shape, &parts, cell).line_ns).min_by(f64::total_cmp);
        Duration::from_nanos(least.unwrap_or(0.0) as u64)
    }

    /// Goes by measurements from now on, of the lanes of a kind: its model, and the samples that it was fitted to, by shape.
    pub fn adopt(&self, kind: BackendKind, model: CostModel, samples: &[(Shape, Sample)]) {
        let error = |(shape, sample): &(Shape, Sample)| {
            let predicted = model.of(shape.opcode).ns(&Parts::of(shape));
            (Cell::of(shape), (sample.ns / predicted).ln(), sample.weight)
        };
        let errors: Vec<_> = samples.iter().map(error).filter(|(_, error, _)| error.is_finite()).collect();
        let is_measured = |opcode: &Opcode| samples.iter().any(|(shape, _)| shape.opcode == *opcode);
        for (lane, book) in self.lanes.iter().zip(&self.books).filter(|(lane, _)| lane.kind() == kind) {
            tracing::debug!(backend = %lane.kind(), samples = errors.len(), "measured costs are adopted");
            let measured = Opcode::ALL.into_iter().filter(is_measured).collect();
            book.believe(Belief { measured, model, corrections: Corrections::seeded(&errors) });
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
        shape: &Shape,
        corpus: Option<u32>,
        terms: &Terms,
        tried: &[usize],
        lacking: &dyn Fn(usize) -> Lacking,
    ) -> Result<Route<'_>, Error> {
        let wish = terms.backend;
        let able = (0..self.books.len()).filter(|lane| !tried.contains(lane) && self.is_able(*lane, shape, wish));
        let able = able.fold(Lanes::default(), Lanes::with);
        let left = terms.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left_ns = left.map_or(f64::INFINITY, |left| left.as_nanos() as f64);
        let ask = Ask { shape: *shape, corpus, able, lacking, now_ns: self.now_ns(), left_ns };
        let choice = match wish {
            // The first of its kind.
            Some(_) => self.chooser.first(&self.books, &ask),
            None => self.chooser.choose(&self.books, &ask),
        };
        let choice = choice.ok_or_else(|| {
            let kind = wish.unwrap_or(BackendKind::Cpu);
            Error::BackendUnavailable { kind, reason: self.absence(kind, shape) }
        })?;
        let expected = Duration::from_nanos(choice.quote.ns as u64);
        let (lane, book) = (&self.lanes[choice.lane], &self.books[choice.lane]);
        Ok(Route { lane, index: choice.lane, why: choice.why, expected, choice, book, clock: self.clock })
    }

    fn is_able(&self, lane: usize, shape: &Shape, wish: Option<BackendKind>) -> bool {
        let lane = &self.lanes[lane];
        let able = lane.capabilities();
        let wanted = wish.map_or(!able.emulated, |kind| lane.kind() == kind);
        wanted && able.operations.contains(&shape.opcode) && lane.is_well()
    }

    fn now_ns(&self) -> u64 {
        since(self.clock)
    }

    fn absence(&self, kind: BackendKind, shape: &Shape) -> String {
        let known = self.absent.iter().find(|(absent, _)| *absent == kind).map(|(_, reason)| reason.clone());
        let failed = || self.lanes.iter().filter(|lane| lane.kind() == kind).find_map(Lane::fault);
        known.or_else(failed).unwrap_or_else(|| format!("it does not serve {}", shape.opcode.name()))
    }
}

impl Route<'_> {
    /// The job is given to the lane.
    pub(crate) fn book(&self) -> Booking {
        let Choice { why, cell, quote, upload_ns, .. } = self.choice;
        let bounded = |ns: f64| ns.min(LONGEST_NS) as u64;
        let entry = Entry {
            cell,
            line_ns: quote.line_ns,
            expected_ns: bounded(quote.ns),
            upload_ns: bounded(upload_ns),
            began_ns: since(self.clock),
            is_trial: why == Why::Trial,
        };
        self.book.arrive(&entry);
        Booking { book: self.book.clone(), entry, clock: self.clock, settled: false }
    }
}

impl Booking {
    /// What the device lacked has been brought: the job's own time begins.
    pub(crate) fn prepared(&mut self) {
        self.book.brought(&mut self.entry, since(self.clock));
    }

    /// The lane has answered: what it took is compared with what was expected.
    pub(crate) fn answered(&mut self) {
        self.settled = true;
        self.book.answered(&self.entry, since(self.clock));
    }

    /// The lane did not do it, by its own fault.
    pub(crate) fn failed(&mut self) {
        self.settled = true;
        self.book.cooling.failed(self.entry.began_ns, since(self.clock));
    }

    /// The lane refused it: nothing was done.
    pub(crate) fn refused(&mut self) {
        self.settled = true;
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if !self.settled {
            // Its caller went away, or its time was over.
            self.book.given_up(&self.entry, since(self.clock));
        }
        self.book.leave(&self.entry);
    }
}

fn since(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What a device would have to be brought for a job whose corpus it does not have. The processor reads corpora where they are.
fn is_cold(kind: BackendKind, shape: &Shape) -> Lacking {
    let (rows, dim) = (shape.rows as u64, shape.dim as u64);
    let bytes = match (kind, shape.opcode) {
        (BackendKind::Cpu, _) | (_, Opcode::Nop | Opcode::Encode) => 0,
        // Codes, and four numbers a row.
        (_, Opcode::Search) => rows.saturating_mul(dim.saturating_add(16)),
        // Rows and norms.
        (_, Opcode::Score) => rows.saturating_mul(dim.saturating_mul(4).saturating_add(8)),
        (_, Opcode::Nearest) => rows.saturating_mul(40),
    };
    Lacking { bytes, stays: true }
}

/// The corpus that a job reads, by its number in slots.
fn corpus_of(job: &Job) -> Option<u32> {
    match job {
        Job::Nop | Job::Encode(_) => None,
        Job::Search(job) => Some(job.corpus.handle()),
        Job::Score(job) => Some(job.corpus.handle()),
        Job::Nearest(job) => match &job.points {
            Points::Sent(_) => None,
            Points::Corpus(view) => Some(view.handle()),
        },
    }
}
