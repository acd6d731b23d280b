//! One job's way through the steps: admitted, routed, prepared, submitted piece by piece, made exact.
//!
//! Failover: where a backend fails a job that did not insist on it, the job begins anew on the next lane that serves it
//! ([`Execution::fail_over`]). What was answered so far is forgotten, so nothing is answered twice. Each lane gets one
//! try, and the caller's time limit goes on meanwhile.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use megaring_core::operation::{Exact, Finished, Piece, Size};
use megaring_core::{Answered, BackendKind, Error, Residency};
use megaring_ring::{ReserveError, Ticket};

use crate::admission::{Demand, Permit};
use crate::charge::{Charge, Reserved};
use crate::engine::Engine;
use crate::lane::{Lane, Setback};
use crate::outcome::{Made, Outcome};
use crate::reaper::{await_ticket, wait_ticket};
use crate::router::{LedgerEntry, Route};
use crate::submit::{Announce, DEPTH, limits, refusal, submit};
use crate::telemetry;
use crate::terms::Terms;

/// How long a job waits before it asks a full ring again for the room its permit promised. Only blocks scattered among
/// other jobs' make it wait.
const ROOM_RETRY: Duration = Duration::from_micros(200);

/// A piece with its completed slot, once it is answered; `None` where there is nothing to wait for.
type Answer = Result<Option<(Piece, megaring_ring::Outcome)>, Setback>;

/// What a job may take that is done on an async thread itself. Others may have to wait for it there.
const SMALL: Duration = Duration::from_micros(100);

/// Jobs that are done on async threads, of which one at least is always free for the others.
#[derive(Default)]
pub(crate) struct InlineJobs(AtomicUsize);

/// One of them.
pub(crate) struct InlineJob<'a>(&'a AtomicUsize);

impl InlineJobs {
    /// `None` where this is no async thread, or the last that is free.
    fn begin(&self) -> Option<InlineJob<'_>> {
        let threads = tokio::runtime::Handle::try_current().ok()?.metrics().num_workers();
        // Relaxed: a mere counter.
        let more = |jobs: usize| (jobs + 1 < threads).then_some(jobs + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| InlineJob(&self.0))
    }
}

impl Drop for InlineJob<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A job that holds its permit and waits for its turn.
pub(crate) struct Admitted<O: Answered> {
    pub(crate) engine: Arc<Engine>,
    pub(crate) job: Arc<O>,
    pub(crate) terms: Terms,
    pub(crate) size: Size,
    /// As the engine's smallest limits have it.
    pieces: Vec<Piece>,
    since: Instant,
    /// A batch has none: its members have.
    permit: Option<Permit>,
    /// What is set aside for it; likewise.
    reserved: Option<Reserved>,
}

/// A job that a lane was chosen for.
pub(crate) struct Execution<O: Answered> {
    engine: Arc<Engine>,
    job: Arc<O>,
    terms: Terms,
    size: Size,
    attempt: Attempt<O>,
    /// Lanes that did not do it.
    tried: Vec<usize>,
    since: Instant,
    /// Held until the end, whichever way.
    permit: Option<Permit>,
    /// Charged at the end, or free again.
    reserved: Option<Reserved>,
}

/// What one lane has done of a job. Dropped before its end, it abandons the slots under way, then what the backend
/// keeps for them: it is the backend that waits for such slots before it reuses memory
/// ([`megaring_core::Backend::prepare`]).
struct Attempt<O: Answered> {
    lane: usize,
    /// What it is expected to take once it is its turn.
    expected: Duration,
    entry: LedgerEntry,
    waiting: VecDeque<Piece>,
    in_flight: VecDeque<(Piece, Ticket)>,
    prepared: bool,
    /// Whether there was anything to do at all.
    submitted: bool,
    /// Held until every slot is answered.
    residency: Residency,
    answer: O::Answer,
    answers: usize,
    made: Made,
}

impl<O: Answered> Admitted<O> {
    /// Step 3: what it is predicted to come to is set aside, and a permit, for which it may wait in line.
    pub(crate) async fn new(engine: Arc<Engine>, job: O, terms: Terms) -> Result<Self, Error> {
        let mut asks = Self::asks(engine, job, terms)?;
        let waiting_bytes = asks.pieces.iter().map(|piece| piece.payload).sum();
        let demand = Demand { bytes: arena_bytes(&asks.pieces), waiting_bytes };
        let permit = asks.engine.admission().admit(&asks.terms, demand).await;
        asks.permit = Some(permit.inspect_err(|_| asks.turned_away())?);
        Ok(asks)
    }

    /// [`Self::new`] at once or never.
    pub(crate) fn try_new(engine: Arc<Engine>, job: O, terms: Terms) -> Result<Self, Error> {
        let mut asks = Self::asks(engine, job, terms)?;
        let permit = asks.engine.admission().try_admit(&asks.terms, arena_bytes(&asks.pieces));
        asks.permit = Some(permit.inspect_err(|_| asks.turned_away())?);
        Ok(asks)
    }

    /// A job that has no permit yet.
    fn asks(engine: Arc<Engine>, job: O, terms: Terms) -> Result<Self, Error> {
        let since = Instant::now();
        let (pieces, size) = (job.pieces(&engine.limits), job.size());
        let reserve = |charge: &Charge| {
            let estimate = || engine.router().estimate(O::OPCODE, &size, terms.backend);
            charge.reserve(if charge.has_price() { Duration::ZERO } else { estimate() })
        };
        let reserved = terms.charge.as_ref().map(reserve).transpose().inspect_err(|refusal| {
            engine.telemetry().over_budget(&terms, O::OPCODE, &size, refusal);
        })?;
        Ok(Self { engine, job: Arc::new(job), terms, size, pieces, since, permit: None, reserved })
    }

    fn turned_away(&self) {
        self.engine.metrics().refused();
        self.engine.telemetry().turned_away(&self.terms, O::OPCODE, &self.size);
    }

    /// A batch, whose members have their permits.
    pub(crate) fn batch(engine: Arc<Engine>, job: O, terms: Terms) -> Self {
        let (pieces, size) = (job.pieces(&engine.limits), job.size());
        let since = Instant::now();
        Self { engine, job: Arc::new(job), terms, size, pieces, since, permit: None, reserved: None }
    }

    /// Step 4: a backend.
    pub(crate) fn route(self) -> Result<Execution<O>, Error> {
        let Self { engine, job, terms, size, pieces, since, mut permit, reserved } = self;
        let route = engine.router().route(&*job, &size, &terms, &[])?;
        let attempt = Attempt::new(&engine, &*job, &size, &route, Some(pieces), permit.as_mut());
        Ok(Execution { engine, job, terms, size, attempt, tried: Vec::new(), since, permit, reserved })
    }

    /// Takes a batch's answer for its own, where it is not more than the caller can take.
    pub(crate) fn answered(self, mut outcome: Outcome<O::Answer>, answers: usize) -> Result<Outcome<O::Answer>, Error> {
        check_answers::<O>(&self.terms, answers)?;
        self.engine.metrics().batched();
        let Self { engine, size, terms, since, reserved, .. } = self;
        report::<O>(&engine, &size, &terms, since, (Duration::ZERO, &mut outcome.made), reserved);
        Ok(outcome)
    }
}

impl<O: Answered> Attempt<O> {
    fn new(
        engine: &Engine,
        job: &O,
        size: &Size,
        route: &Route<'_>,
        pieces: Option<Vec<Piece>>,
        permit: Option<&mut Permit>,
    ) -> Self {
        let (capabilities, backend) = (route.lane.capabilities(), route.lane.kind());
        let expected = route.expected;
        tracing::debug!(op = O::OPCODE.name(), items = size.items, %backend, ?expected, why = route.reason.text());
        let limits = limits(capabilities);
        let pieces = pieces.filter(|_| limits == engine.limits).unwrap_or_else(|| job.pieces(&limits));
        if let Some(permit) = permit {
            permit.exchange(arena_bytes(&pieces));
        }
        let made = Made {
            backend,
            instruction_set: capabilities.instruction_set.clone(),
            exact: true,
            rows_rescored: 0,
            bytes_read: 0,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            rescore: Duration::ZERO,
            batched_with: 0,
        };
        Self {
            lane: route.index,
            expected,
            entry: route.enter(),
            waiting: pieces.into(),
            in_flight: VecDeque::with_capacity(DEPTH),
            prepared: false,
            submitted: false,
            residency: Residency::default(),
            answer: O::Answer::default(),
            answers: 0,
            made,
        }
    }
}

impl<O: Answered> Execution<O> {
    /// Steps 5 to 8, awaited. `on_last` is called as soon as no backend works on it.
    pub(crate) async fn run(mut self, mut on_last: impl FnMut() + Send) -> Result<Outcome<O::Answer>, Error> {
        while !self.is_done() {
            let answer = match self.answer_inline() {
                Some(answer) => answer,
                None => self.next_answer().await,
            };
            match answer {
                Ok(Some((piece, completed))) => {
                    if self.is_done() {
                        on_last();
                    }
                    self = self.finish_elsewhere(piece, completed).await?;
                }
                Ok(None) => {}
                Err(setback) => self.fail_over(setback)?,
            }
        }
        Ok(self.into_outcome())
    }

    /// Steps 5 to 8 on this thread's time.
    pub(crate) fn run_blocking(mut self) -> Result<Outcome<O::Answer>, Error> {
        while !self.is_done() {
            match self.wait_answer() {
                Ok(Some((piece, completed))) => self.finish(&piece, &completed)?,
                Ok(None) => {}
                Err(setback) => self.fail_over(setback)?,
            }
        }
        Ok(self.into_outcome())
    }

    pub(crate) fn lane_index(&self) -> usize {
        self.attempt.lane
    }

    fn is_done(&self) -> bool {
        self.attempt.waiting.is_empty() && self.attempt.in_flight.is_empty()
    }

    /// Steps 5 to 7 of a small job of one piece, done here and now where this thread can help with it: waking others,
    /// and being woken by them, would take longer. `None` where it has to be awaited.
    fn answer_inline(&mut self) -> Option<Answer> {
        let Attempt { expected, waiting, in_flight, .. } = &self.attempt;
        if *expected > SMALL || waiting.len() != 1 || !in_flight.is_empty() {
            return None;
        }
        let engine = self.engine.clone();
        let helper = engine.lane(self.attempt.lane).backend().helper()?;
        let _inline = engine.inline_jobs.begin()?;
        if let Err(setback) = self.prepare() {
            return Some(Err(setback));
        }
        self.submit_ahead(Announce::ByHelping).ok()?;
        let (piece, ticket) = self.attempt.in_flight.pop_front()?;
        Some(wait_ticket(ticket, Some(helper)).map(|completed| Some((piece, completed))))
    }

    /// Steps 5 to 7, awaited: the oldest piece in flight, once it is answered.
    async fn next_answer(&mut self) -> Answer {
        self.prepare_elsewhere().await?;
        while let Err(full) = self.submit_ahead(Announce::Now) {
            self.check_room(&full)?;
            tokio::time::sleep(ROOM_RETRY).await;
            self.check_deadline("waiting for room")?;
        }
        let Some((piece, ticket)) = self.attempt.in_flight.pop_front() else { return Ok(None) };
        Ok(Some((piece, await_ticket(ticket, self.terms.deadline).await?)))
    }

    /// Steps 5 to 7 on this thread's time.
    fn wait_answer(&mut self) -> Answer {
        self.prepare()?;
        // With one slot, nothing can come between its submission and the help.
        let is_one = self.attempt.in_flight.is_empty() && self.attempt.waiting.len() == 1;
        let helps = is_one && self.lane().backend().helper().is_some();
        let announce = if helps { Announce::ByHelping } else { Announce::Now };
        while let Err(full) = self.submit_ahead(announce) {
            self.check_room(&full)?;
            std::thread::park_timeout(ROOM_RETRY);
            self.check_deadline("waiting for room")?;
        }
        let Some((piece, ticket)) = self.attempt.in_flight.pop_front() else { return Ok(None) };
        Ok(Some((piece, wait_ticket(ticket, self.lane().backend().helper())?)))
    }

    /// After a setback: begins the job anew on the next lane that serves it. An error where the caller insisted on this
    /// one, or none is left.
    fn fail_over(&mut self, setback: Setback) -> Result<(), Error> {
        let error = match setback {
            Setback::Final(error) => return Err(error),
            Setback::Backend(error) => error,
        };
        // A refusal is no failure, and a job that does not fit is not the lane's.
        let is_refusal =
            matches!(error, Error::BackendUnavailable { .. } | Error::Exhausted { .. } | Error::Invalid(_));
        if is_refusal {
            self.attempt.entry.refused()
        } else {
            self.attempt.entry.failed()
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
        let engine = self.engine.clone();
        let Ok(route) = engine.router().route(&*self.job, &self.size, &self.terms, &self.tried) else {
            return Err(error);
        };
        let to = route.lane.kind();
        if is_refusal {
            // Logged by the backend itself, or as usual as a corpus that does not fit a device.
            tracing::debug!(from = %kind, %to, %error, "a job moves to another backend");
        } else {
            tracing::warn!(from = %kind, %to, %error, "a backend failed a job; it is done again elsewhere");
        }
        self.attempt = Attempt::new(&engine, &*self.job, &self.size, &route, None, self.permit.as_mut());
        engine.metrics().failed_over();
        Ok(())
    }

    fn lane(&self) -> &Lane {
        self.engine.lane(self.attempt.lane)
    }

    /// Lets the backend bring what the slots will need, on this thread's time.
    fn prepare(&mut self) -> Result<(), Setback> {
        if !self.attempt.prepared {
            let brought = self.lane().backend().prepare(self.job.reads());
            self.prepared(brought)?;
        }
        Ok(())
    }

    /// [`Self::prepare`] off the async threads where it may block. The CPU needs nothing brought.
    async fn prepare_elsewhere(&mut self) -> Result<(), Setback> {
        if self.attempt.prepared || self.job.reads().is_none() || self.lane().kind() == BackendKind::Cpu {
            return self.prepare();
        }
        let (engine, job, lane) = (self.engine.clone(), self.job.clone(), self.attempt.lane);
        // Where the call is cancelled meanwhile, what was brought is let go as soon as it is there.
        let preparing = tokio::task::spawn_blocking(move || engine.lane(lane).backend().prepare(job.reads()));
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
        if self.attempt.residency.guard.is_some() {
            self.attempt.entry.prepared();
        }
        Ok(self.check_deadline("being prepared")?)
    }

    /// Step 5, up to [`DEPTH`] pieces ahead. Fails only where nothing is in flight that would make room.
    fn submit_ahead(&mut self, announce: Announce) -> Result<(), ReserveError> {
        let lane = self.engine.lane(self.attempt.lane);
        let (ring, limit) = (lane.ring(), lane.capabilities().max_item_bytes);
        let Attempt { waiting, in_flight, submitted, residency, .. } = &mut self.attempt;
        while in_flight.len() < DEPTH {
            let Some(piece) = waiting.front() else { break };
            let needed = piece.bytes();
            if needed > limit {
                return Err(ReserveError::TooLarge { needed, limit });
            }
            match submit(ring, &*self.job, piece, &self.terms, residency.finds_rows, announce) {
                Ok(ticket) => {
                    *submitted = true;
                    in_flight.extend(waiting.pop_front().map(|piece| (piece, ticket)));
                }
                Err(_) if !in_flight.is_empty() => break,
                Err(full) => return Err(full),
            }
        }
        Ok(())
    }

    /// Whether waiting can help a piece that found no room: not on a lane that has failed, whose arena may never be
    /// given back.
    fn check_room(&self, full: &ReserveError) -> Result<(), Setback> {
        let kind = self.lane().kind();
        let failed = self.lane().fault().map(|reason| Error::BackendUnavailable { kind, reason });
        match (full, failed, self.attempt.waiting.front()) {
            (_, Some(failed), _) => Err(Setback::Backend(failed)),
            (ReserveError::RingFull | ReserveError::ArenaFull, ..) | (.., None) => Ok(()),
            // Another lane's arena may be larger.
            (full, None, Some(piece)) => {
                let retry_after = self.engine.admission().retry_after();
                Err(Setback::Backend(refusal::<O>(full, piece, retry_after)))
            }
        }
    }

    fn check_deadline(&self, stage: &'static str) -> Result<(), Error> {
        let passed = self.terms.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if passed { Err(Error::DeadlineExceeded { stage }) } else { Ok(()) }
    }

    /// Step 8 for one piece.
    fn finish(&mut self, piece: &Piece, completed: &megaring_ring::Outcome) -> Result<(), Error> {
        let begun = Instant::now();
        let by = Exact { kernel: self.engine.kernel(), profile: self.engine.profile() };
        let Attempt { answer, answers: found, made, .. } = &mut self.attempt;
        let Finished { answers, rows_rescored, bytes_read } =
            self.job.finish(piece, completed.result(), &by, answer)?;
        *found += answers;
        check_answers::<O>(&self.terms, *found)?;
        made.rows_rescored += rows_rescored;
        made.bytes_read += bytes_read;
        made.compute += Duration::from_nanos(completed.completion.device_ns);
        made.rescore += begun.elapsed();
        Ok(())
    }

    /// Step 8 off the async threads where it takes long.
    async fn finish_elsewhere(mut self, piece: Piece, completed: megaring_ring::Outcome) -> Result<Self, Error> {
        if self.job.is_light(&piece, completed.result()) {
            self.finish(&piece, &completed)?;
            return Ok(self);
        }
        let (done, finished) = tokio::sync::oneshot::channel();
        rayon::spawn(move || {
            // Rayon ends the process where a spawned task panics; the execution is lost here, and with it only this
            // job.
            let finish = AssertUnwindSafe(|| self.finish(&piece, &completed).map(|()| self));
            let result = catch_unwind(finish).unwrap_or_else(|_| Err(Error::Internal("rescoring panicked".into())));
            // Before the caller goes on: its next job may need the room.
            drop(completed);
            // A receiver that is gone belongs to a cancelled call; dropping the execution gives everything back.
            let _ = done.send(result);
        });
        finished.await.map_err(|_| Error::Internal("rescoring was given up".into()))?
    }

    fn into_outcome(self) -> Outcome<O::Answer> {
        let Self { engine, terms, size, attempt, since, permit, reserved, .. } = self;
        let Attempt { answer, mut made, mut entry, submitted, expected, .. } = attempt;
        if submitted {
            entry.answered();
        }
        // A batch is reported by each of its members.
        if permit.is_some() {
            report::<O>(&engine, &size, &terms, since, (expected, &mut made), reserved);
        }
        Outcome { answer, made }
    }
}

/// Bytes of the arena that a job holds at most.
fn arena_bytes(pieces: &[Piece]) -> usize {
    pieces.iter().map(Piece::bytes).max().unwrap_or(0) * DEPTH.min(pieces.len())
}

/// Counts answers against what the caller can take.
fn check_answers<O: Answered>(terms: &Terms, found: usize) -> Result<(), Error> {
    match terms.max_answers {
        Some(most) if found > most => {
            let text =
                format!("the reply would hold more than the {most} hits that fit a message; send fewer at a time");
            Err(Error::field(O::ITEMS, text))
        }
        _ => Ok(()),
    }
}

/// Charges an answered job, tells metrics and telemetry of it, and the answer how long the job waited.
fn report<O: Answered>(
    engine: &Engine,
    size: &Size,
    terms: &Terms,
    since: Instant,
    (predicted, made): (Duration, &mut Made),
    reserved: Option<Reserved>,
) {
    let took = since.elapsed();
    made.queue = took.saturating_sub(made.compute).saturating_sub(made.rescore);
    engine.metrics().answered(size.items, took);
    let settled = reserved.map(|reserved| reserved.settle(made.share(size.items))).unwrap_or_default();
    let answered = telemetry::Answered { opcode: O::OPCODE, size, backend: made.backend, predicted, took, settled };
    engine.telemetry().answered(terms, &answered);
}
