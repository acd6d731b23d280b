//! One job on its way through the steps: admitted, routed, prepared, submitted piece by piece, made exact.
//!
//! Where a backend fails a job that did not insist on it, the job begins anew on the next lane that serves it ([`Flight::divert`]): what was
//! answered so far is forgotten, so nothing is answered twice. Each lane gets one try, and the caller's time limit goes on meanwhile.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::lists::{CandidateLists, Candidates};
use megaring_core::job::{Job, Points, Terms};
use megaring_core::screen::packed_len;
use megaring_core::{BackendKind, Error, Residency};
use megaring_ring::{ReserveError, Ticket};

use super::Engine;
use super::batch::Seat;
use crate::admission::Permit;
use crate::gather::UnderWay;
use crate::lane::{Lane, Setback};
use crate::outcome::{Answer, Made, Outcome};
use crate::reaper::{await_ticket, wait_ticket};
use crate::rescore::Rescorer;
use crate::router::{Booking, Route};
use crate::submit::{DEPTH, Piece, pieces, refusal, submit};

/// How long a job waits before it asks a full ring again for the room its permit promised. Only blocks scattered among other jobs' make it wait.
const ROOM_RETRY: Duration = Duration::from_micros(200);

/// One job on its way through the steps.
pub(super) struct Flight {
    pub(super) engine: Arc<Engine>,
    pub(super) job: Arc<Job>,
    pub(super) terms: Terms,
    attempt: Attempt,
    /// Lanes that did not do it.
    tried: Vec<usize>,
    admitted: Instant,
    /// Held until the flight ends, whichever way. A batch has none: its members have.
    permit: Option<Permit>,
}

/// What one lane has done of a job. Dropped before its end, it abandons the slots under way, then what the backend keeps for them: it is
/// the backend that waits for such slots before it reuses memory ([`megaring_core::Backend::prepare`]).
struct Attempt {
    lane: usize,
    /// None while the flight waits for others.
    booking: Option<Booking>,
    ahead: VecDeque<Piece>,
    under_way: VecDeque<(Piece, Ticket)>,
    prepared: bool,
    /// Whether there was anything to do at all.
    submitted: bool,
    /// Held until every slot is answered.
    residency: Residency,
    answer: Answer,
    hits: usize,
    made: Made,
}

impl Attempt {
    fn new(job: &Job, route: &Route<'_>) -> Self {
        let (shape, capabilities) = (job.shape(), route.lane.capabilities());
        let backend = route.lane.kind();
        tracing::debug!(op = shape.opcode.name(), items = shape.items, %backend, expected = ?route.expected, why = route.why.text());
        let made = Made {
            backend,
            instruction_set: capabilities.instruction_set.clone(),
            exact: true,
            rows_rescored: 0,
            bytes_read: 0,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            rescore: Duration::ZERO,
            gathered: 0,
        };
        Self {
            lane: route.index,
            booking: Some(route.book()),
            ahead: pieces(job, capabilities).into(),
            under_way: VecDeque::with_capacity(DEPTH),
            prepared: false,
            submitted: false,
            residency: None,
            answer: Answer::empty(shape.opcode, shape.rows),
            hits: 0,
            made,
        }
    }

    fn into_outcome(self) -> Outcome {
        let Self { answer, made, booking, submitted, .. } = self;
        if let Some(mut booking) = booking.filter(|_| submitted) {
            booking.answered();
        }
        Outcome { answer, made }
    }

    /// Bytes of the arena that it holds at most.
    fn bytes(&self) -> usize {
        self.ahead.iter().map(Piece::bytes).max().unwrap_or(0) * DEPTH.min(self.ahead.len())
    }
}

impl Flight {
    /// Steps 3 and 4: a permit and a backend.
    pub(super) fn start(engine: Arc<Engine>, job: Job, terms: Terms) -> Result<Self, Error> {
        let admitted = Instant::now();
        let refused = |_: &Error| engine.metrics.refused();
        let mut permit = engine.admission.admit(&terms).inspect_err(refused)?;
        let route = engine.router.route(&job, &terms, &[])?;
        let attempt = Attempt::new(&job, &route);
        permit.hold(attempt.bytes()).inspect_err(refused)?;
        Ok(Self { engine, job: Arc::new(job), terms, attempt, tried: Vec::new(), admitted, permit: Some(permit) })
    }

    /// Step 4 for a batch whose members have their permits.
    pub(super) fn start_batch(engine: Arc<Engine>, job: Job, terms: Terms) -> Result<Self, Error> {
        let admitted = Instant::now();
        let route = engine.router.route(&job, &terms, &[])?;
        let attempt = Attempt::new(&job, &route);
        Ok(Self { engine, job: Arc::new(job), terms, attempt, tried: Vec::new(), admitted, permit: None })
    }

    /// Waits for others, or for its turn: its lane does not expect it meanwhile.
    pub(super) fn step_aside(&mut self) {
        if let Some(mut booking) = self.attempt.booking.take() {
            booking.refused();
        }
    }

    /// Step 4 again, for a flight that stepped aside.
    pub(super) fn resume(&mut self) -> Result<(), Error> {
        let route = self.engine.router.route(&self.job, &self.terms, &[])?;
        self.begin(Attempt::new(&self.job, &route));
        Ok(())
    }

    fn begin(&mut self, attempt: Attempt) {
        if let Some(permit) = &mut self.permit {
            permit.exchange(attempt.bytes());
        }
        self.attempt = attempt;
    }

    /// Steps 5 to 8, awaited. Its place among those under way is given up as soon as no backend works on it.
    pub(super) async fn fly(mut self, mut under_way: Option<UnderWay<Seat>>) -> Result<Self, Error> {
        while !self.is_done() {
            match self.next_answer().await {
                Ok(Some((piece, outcome))) => {
                    if self.is_done() {
                        drop(under_way.take());
                    }
                    self = self.finish_elsewhere(piece, outcome).await?;
                }
                Ok(None) => {}
                Err(setback) => self.divert(setback)?,
            }
        }
        Ok(self)
    }

    pub(super) fn is_done(&self) -> bool {
        self.attempt.ahead.is_empty() && self.attempt.under_way.is_empty()
    }

    /// Steps 5 to 7, awaited: the oldest piece under way, once it is answered.
    pub(super) async fn next_answer(&mut self) -> Result<Option<(Piece, megaring_ring::Outcome)>, Setback> {
        self.prepare_elsewhere().await?;
        while let Err(full) = self.submit_ahead() {
            self.check_room(&full)?;
            tokio::time::sleep(ROOM_RETRY).await;
            self.check_deadline("waiting for room")?;
        }
        let Some((piece, ticket)) = self.attempt.under_way.pop_front() else { return Ok(None) };
        Ok(Some((piece, await_ticket(ticket, self.terms.deadline).await?)))
    }

    /// Steps 5 to 7 on this thread's time.
    pub(super) fn wait_answer(&mut self) -> Result<Option<(Piece, megaring_ring::Outcome)>, Setback> {
        self.prepare()?;
        while let Err(full) = self.submit_ahead() {
            self.check_room(&full)?;
            std::thread::park_timeout(ROOM_RETRY);
            self.check_deadline("waiting for room")?;
        }
        let Some((piece, ticket)) = self.attempt.under_way.pop_front() else { return Ok(None) };
        Ok(Some((piece, wait_ticket(ticket)?)))
    }

    /// After a setback: begins the job anew on the next lane that serves it. An error where the caller insisted on this one, or none is left.
    pub(super) fn divert(&mut self, setback: Setback) -> Result<(), Error> {
        let error = match setback {
            Setback::Final(error) => return Err(error),
            Setback::Backend(error) => error,
        };
        // A refusal is no failure.
        let is_fault = !matches!(error, Error::BackendUnavailable { .. } | Error::Exhausted { .. });
        if let Some(booking) = &mut self.attempt.booking {
            if is_fault { booking.failed() } else { booking.refused() }
        }
        let from = self.lane();
        let kind = from.kind();
        if self.terms.backend.is_some() {
            return Err(match (from.fault(), error) {
                (Some(reason), _) => Error::BackendUnavailable { kind, reason },
                // It goes on, with a device that it opened anew.
                (None, Error::Internal(what)) => Error::Internal(format!("backend {kind} failed: {what}")),
                (None, error) => error,
            });
        }
        self.check_deadline("waiting for another backend")?;
        self.tried.push(self.attempt.lane);
        let Ok(route) = self.engine.router.route(&self.job, &self.terms, &self.tried) else { return Err(error) };
        let to = route.lane.kind();
        match &error {
            // Told by the backend itself, or as usual as a corpus that does not fit a device.
            Error::BackendUnavailable { .. } | Error::Exhausted { .. } => {
                tracing::debug!(from = %kind, %to, %error, "a job moves");
            }
            error => tracing::warn!(from = %kind, %to, %error, "a backend failed a job; it is done again elsewhere"),
        }
        self.begin(Attempt::new(&self.job, &route));
        self.engine.metrics.failed_over();
        Ok(())
    }

    fn lane(&self) -> &Lane {
        self.engine.lane(self.attempt.lane)
    }

    pub(super) fn lane_index(&self) -> usize {
        self.attempt.lane
    }

    /// Takes a batch's answer for its own, where it is not more than the caller can take.
    pub(super) fn take_share(&mut self, share: Outcome) -> Result<(), Error> {
        self.check_hits(&share.answer)?;
        let Attempt { answer, made, ahead, .. } = &mut self.attempt;
        (*answer, *made) = (share.answer, share.made);
        ahead.clear();
        self.engine.metrics.gathered();
        Ok(())
    }

    /// Lets the backend bring what the slots will need, on this thread's time.
    fn prepare(&mut self) -> Result<(), Setback> {
        if !self.attempt.prepared {
            let brought = self.lane().backend().prepare(&self.job);
            self.prepared(brought)?;
        }
        Ok(())
    }

    /// [`Self::prepare`] off the async threads where it may block. The CPU needs nothing brought.
    async fn prepare_elsewhere(&mut self) -> Result<(), Setback> {
        if self.attempt.prepared || !names_corpus(&self.job) || self.lane().kind() == BackendKind::Cpu {
            return self.prepare();
        }
        let (engine, job, lane) = (self.engine.clone(), self.job.clone(), self.attempt.lane);
        // Where the call is cancelled meanwhile, what was brought is let go as soon as it is there.
        let preparing = tokio::task::spawn_blocking(move || engine.lane(lane).backend().prepare(&job));
        let brought = match self.terms.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), preparing)
                .await
                .map_err(|_| Error::DeadlineExceeded { stage: "being prepared" })?,
            None => preparing.await,
        };
        self.prepared(brought.map_err(|_| Error::Internal("preparing panicked".into()))?)
    }

    fn prepared(&mut self, brought: Result<Residency, Error>) -> Result<(), Setback> {
        self.attempt.residency = brought.map_err(|error| match error {
            error @ (Error::BackendUnavailable { .. } | Error::Exhausted { .. }) => Setback::Backend(error),
            error => Setback::Final(error),
        })?;
        self.attempt.prepared = true;
        if self.attempt.residency.is_some() {
            self.attempt.booking.as_mut().map(Booking::prepared);
        }
        Ok(self.check_deadline("being prepared")?)
    }

    /// Step 5, up to [`DEPTH`] pieces ahead. Fails only where nothing is under way that would make room.
    fn submit_ahead(&mut self) -> Result<(), ReserveError> {
        let ring = self.engine.lane(self.attempt.lane).ring();
        let Attempt { ahead, under_way, submitted, .. } = &mut self.attempt;
        while under_way.len() < DEPTH {
            let Some(piece) = ahead.front() else { break };
            match submit(ring, &self.job, piece, &self.terms) {
                Ok(ticket) => {
                    *submitted = true;
                    under_way.extend(ahead.pop_front().map(|piece| (piece, ticket)));
                }
                Err(_) if !under_way.is_empty() => break,
                Err(full) => return Err(full),
            }
        }
        Ok(())
    }

    /// Whether waiting can help a piece that found no room: not on a lane that has failed, whose arena may never be given back.
    fn check_room(&self, full: &ReserveError) -> Result<(), Setback> {
        let kind = self.lane().kind();
        let failed = self.lane().fault().map(|reason| Error::BackendUnavailable { kind, reason });
        match (full, failed) {
            (ReserveError::RingFull | ReserveError::ArenaFull, None) => Ok(()),
            (_, Some(failed)) => Err(Setback::Backend(failed)),
            // Another lane's arena may be larger.
            (full, None) => Err(Setback::Backend(refusal(full, self.engine.admission.retry_after()))),
        }
    }

    fn check_deadline(&self, stage: &'static str) -> Result<(), Error> {
        let passed = self.terms.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if passed { Err(Error::DeadlineExceeded { stage }) } else { Ok(()) }
    }

    /// Step 8 for one piece.
    pub(super) fn finish(&mut self, piece: &Piece, outcome: &megaring_ring::Outcome) -> Result<(), Error> {
        let begun = Instant::now();
        let rescorer = Rescorer { kernel: self.engine.kernels, profile: &self.engine.profile };
        let (answer, rescored) = rescorer.finish(&self.job, &piece.items, outcome.result())?;
        self.check_hits(&answer)?;
        let Attempt { answer: all, made, .. } = &mut self.attempt;
        if matches!(all, Answer::Nothing) {
            *all = answer
        } else {
            all.extend(answer)
        }
        made.rows_rescored += rescored;
        made.bytes_read += bytes_read(&self.job, piece, rescored);
        made.compute += Duration::from_nanos(outcome.completion.device_ns);
        made.rescore += begun.elapsed();
        Ok(())
    }

    /// Counts hits against what the caller can take.
    fn check_hits(&mut self, found: &Answer) -> Result<(), Error> {
        let Answer::Hits(ranked) = found else { return Ok(()) };
        self.attempt.hits += ranked.iter().map(|ranked| ranked.hits.len()).sum::<usize>();
        match self.terms.max_hits {
            Some(most) if self.attempt.hits > most => {
                let text =
                    format!("the reply would hold more than the {most} hits that fit a message; send fewer at a time");
                Err(Error::field("queries", text))
            }
            _ => Ok(()),
        }
    }

    /// Step 8 off the async threads where it takes long.
    pub(super) async fn finish_elsewhere(
        mut self,
        piece: Piece,
        outcome: megaring_ring::Outcome,
    ) -> Result<Self, Error> {
        if is_light(&self.job, piece.items.len(), outcome.result()) {
            self.finish(&piece, &outcome)?;
            return Ok(self);
        }
        let (done, finished) = tokio::sync::oneshot::channel();
        rayon::spawn(move || {
            // Rayon ends the process where a spawned task panics; the flight is lost here, and with it only this job.
            let finish = AssertUnwindSafe(|| self.finish(&piece, &outcome).map(|()| self));
            let result = catch_unwind(finish).unwrap_or_else(|_| Err(Error::Internal("rescoring panicked".into())));
            // Before the caller goes on: its next job may need the room.
            drop(outcome);
            // A receiver that is gone belongs to a cancelled call; dropping the flight gives everything back.
            let _ = done.send(result);
        });
        finished.await.map_err(|_| Error::Internal("rescoring was given up".into()))?
    }

    /// The answer of a batch; its members' flights land.
    pub(super) fn into_outcome(self) -> Outcome {
        self.attempt.into_outcome()
    }

    pub(super) fn land(self) -> Outcome {
        let took = self.admitted.elapsed();
        let mut outcome = self.attempt.into_outcome();
        let made = &mut outcome.made;
        made.queue = took.saturating_sub(made.compute).saturating_sub(made.rescore);
        self.engine.metrics.answered(&self.job.shape(), took);
        self.engine.telemetry.answered(&self.job.shape(), &self.terms.tenant, took);
        outcome
    }
}

/// Whether a job's slots name a corpus, which a device may have to be given first.
fn names_corpus(job: &Job) -> bool {
    match job {
        Job::Search(_) | Job::Score(_) => true,
        Job::Nearest(job) => matches!(job.points, Points::Corpus(_)),
        Job::Nop | Job::Encode(_) => false,
    }
}

/// Whether finishing a piece takes so little that it may hold up an async thread: some 100 µs.
fn is_light(job: &Job, items: usize, result: &[u8]) -> bool {
    let scores_all = || {
        CandidateLists::read(result, items).is_none_or(|lists| (0..items).any(|i| lists.of(i) == Candidates::EveryRow))
    };
    match job {
        Job::Nop => true,
        Job::Search(job) => items.saturating_mul(job.k) <= 256 && (job.corpus.rows() <= 1024 || !scores_all()),
        Job::Score(_) => result.len() <= 256 << 10,
        Job::Encode(_) => items <= 256,
        Job::Nearest(job) => items.saturating_mul(job.k) <= 1024 && (job.points.len() <= 1024 || !scores_all()),
    }
}

/// Bytes of rows, codes, coordinates or texts that a piece reads by its plan.
fn bytes_read(job: &Job, piece: &Piece, rescored: u64) -> u64 {
    let exact = |dim: usize| rescored * (dim * size_of::<f32>()) as u64;
    match job {
        Job::Nop => 0,
        Job::Search(job) => exact(job.corpus.dim()) + packed_len(job.corpus.rows(), job.corpus.dim()) as u64,
        Job::Score(job) => exact(job.corpus.dim()),
        Job::Encode(_) => (piece.payload - (piece.items.len() + 1) * size_of::<u64>()) as u64,
        Job::Nearest(job) => (job.points.len() * piece.items.len() * size_of::<[f64; 5]>()) as u64,
    }
}
