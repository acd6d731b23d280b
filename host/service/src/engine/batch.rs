//! Several callers' searches as one job: who may share one, how they ride along, and how the answer is split.
//!
//! Each caller keeps its own flight, with its permit and its time limit, and waits for its share of a batch's answer. The batch itself is a
//! flight of its own on a task of its own, so it is nobody's to cancel; it is given up where every caller has gone. A caller whose batch is
//! lost all the same (a panic, a runtime that ends) goes on with its own flight, alone.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::job::{Job, Matrix, SearchJob, Shape, Terms};
use megaring_core::{BackendKind, Error, Metric};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Engine;
use super::flight::Flight;
use crate::gather::{FEW, Member, Request, UnderWay, Way};
use crate::outcome::{Answer, Outcome};

/// Most hits a query may ask for to be gathered: the answers of a full batch then stay below a mebibyte.
const FEW_HITS: usize = 1024;

/// How a flight goes on.
pub(super) enum Place {
    /// By itself; others of its kind can gather meanwhile, where it is of a kind.
    Own(Option<UnderWay<Seat>>),
    /// With a batch that will give it its share.
    Shared(oneshot::Receiver<Share>),
}

/// What a caller gets from its batch.
pub(super) enum Share {
    /// The batch has no other member: the caller does its job itself.
    Alone(UnderWay<Seat>),
    /// Its part of the answer.
    Answer(Result<Outcome, Error>),
}

/// A caller's place in a batch.
pub(super) struct Seat {
    engine: Arc<Engine>,
    /// Where the batch may run.
    runtime: Handle,
    job: Arc<Job>,
    terms: Terms,
    share: oneshot::Sender<Share>,
}

/// Searches that differ in nothing but their queries, so that one job answers them all.
#[derive(Clone)]
pub(super) struct Kind {
    corpus: Arc<CorpusView>,
    metric: Metric,
    k: usize,
    /// In bits: equal or not, without exceptions.
    threshold: Option<u64>,
    backend: Option<BackendKind>,
}

impl Kind {
    /// `None` where a job is not one to be gathered.
    fn of(job: &Job, terms: &Terms) -> Option<Self> {
        let Job::Search(job) = job else { return None };
        let SearchJob { corpus, queries, metric, k, threshold } = job;
        let few = (1..=FEW).contains(&queries.rows) && (*k).min(corpus.rows()) <= FEW_HITS;
        few.then(|| Self {
            corpus: corpus.clone(),
            metric: *metric,
            k: *k,
            threshold: threshold.map(f64::to_bits),
            backend: terms.backend,
        })
    }

    fn terms(&self) -> (Metric, usize, Option<u64>, Option<BackendKind>) {
        (self.metric, self.k, self.threshold, self.backend)
    }
}

impl PartialEq for Kind {
    /// The very same version: one of another engine may have the same numbers.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.corpus, &other.corpus) && self.terms() == other.terms()
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (Arc::as_ptr(&self.corpus), self.k, self.threshold).hash(state);
    }
}

impl Flight {
    /// Goes at once, or waits for others of its kind.
    pub(super) fn board(&mut self) -> Place {
        let gatherer = self.engine.gatherer.as_ref();
        let kind = || Kind::of(&self.job, &self.terms);
        let Some((gatherer, kind)) = gatherer.and_then(|gatherer| Some((gatherer, kind()?))) else {
            return Place::Own(None);
        };
        // A batch needs somewhere to run.
        let Ok(runtime) = Handle::try_current() else { return Place::Own(None) };
        let (shape, wish) = (self.job.shape(), self.terms.backend);
        let predict = |items| self.engine.router.estimate(&Shape { items, ..shape }, wish);
        let request = Request { queries: shape.items, lane: self.lane_index(), deadline: self.terms.deadline };
        let mut waiting = None;
        let seat = || {
            let (share, awaited) = oneshot::channel();
            waiting = Some(awaited);
            Seat { engine: self.engine.clone(), runtime, job: self.job.clone(), terms: self.terms.clone(), share }
        };
        match (gatherer.enter(kind, request, predict, seat), waiting) {
            (Way::Alone(under_way), _) => Place::Own(Some(under_way)),
            (Way::Gathered, Some(share)) => {
                self.step_aside();
                Place::Shared(share)
            }
            (Way::Gathered, None) => Place::Own(None),
        }
    }

    /// Waits for its share of a batch, until its own deadline.
    pub(super) async fn ride(mut self, share: oneshot::Receiver<Share>) -> Result<Outcome, Error> {
        let share = match self.terms.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), share)
                .await
                .map_err(|_| Error::DeadlineExceeded { stage: "being worked on" })?,
            None => share.await,
        };
        match share {
            Ok(Share::Answer(answer)) => {
                self.take_share(answer?)?;
                Ok(self.land())
            }
            Ok(Share::Alone(under_way)) => {
                self.resume()?;
                Ok(self.fly(Some(under_way)).await?.land())
            }
            Err(_) => {
                self.resume()?;
                Ok(self.fly(None).await?.land())
            }
        }
    }
}

impl Member for Seat {
    type Kind = Kind;

    fn is_gone(&self) -> bool {
        self.share.is_closed()
    }

    fn depart(mut members: Vec<Self>, under_way: UnderWay<Self>) {
        if members.len() > 1 {
            let runtime = members[0].runtime.clone();
            // A runtime that is ending drops the batch, and with it every seat: its callers then go alone.
            runtime.spawn(carry(members, under_way));
        } else if let Some(only) = members.pop() {
            // Where it goes away just now, so does its place among those under way.
            let _ = only.share.send(Share::Alone(under_way));
        }
    }
}

/// Does a batch, and gives each member its share.
async fn carry(mut seats: Vec<Seat>, under_way: UnderWay<Seat>) {
    let Some(first) = seats.first() else { return };
    let (engine, terms) = (first.engine.clone(), common_terms(&seats));
    let job = joined(&seats);
    let done = async {
        let flight = Flight::start_batch(engine, job, terms)?;
        under_way.on(flight.lane_index());
        Ok(flight.fly(Some(under_way)).await?.into_outcome())
    };
    let result = tokio::select! {
        biased;
        result = done => result,
        () = all_gone(&mut seats) => return,
    };
    split(seats, result);
}

/// Ends when nobody waits for the batch any more.
async fn all_gone(seats: &mut [Seat]) {
    for seat in seats {
        seat.share.closed().await;
    }
}

/// One job of all the members' queries, in their order.
fn joined(seats: &[Seat]) -> Job {
    let mut searches = seats.iter().filter_map(|seat| match &*seat.job {
        Job::Search(job) => Some(job),
        _ => None,
    });
    let Some(first) = searches.next() else { return Job::Nop };
    let rows = seats.iter().map(|seat| seat.job.items()).sum();
    let mut values = Vec::with_capacity(rows * first.queries.dim);
    values.extend_from_slice(&first.queries.values);
    searches.for_each(|search| values.extend_from_slice(&search.queries.values));
    let queries = Matrix { rows, dim: first.queries.dim, values };
    Job::Search(SearchJob {
        corpus: first.corpus.clone(),
        queries,
        metric: first.metric,
        k: first.k,
        threshold: first.threshold,
    })
}

/// Terms that suit all: the tenant where it is one, the latest of the deadlines where all have one. How many hits each can take is seen to
/// when it gets them.
fn common_terms(seats: &[Seat]) -> Terms {
    let first = seats.first().map(|seat| seat.terms.clone()).unwrap_or_default();
    let one_tenant = seats.iter().all(|seat| seat.terms.tenant == first.tenant);
    let deadline = seats.iter().map(|seat| seat.terms.deadline).collect::<Option<Vec<_>>>();
    Terms {
        tenant: if one_tenant { first.tenant } else { String::new() },
        deadline: deadline.and_then(|all| all.into_iter().max()),
        backend: first.backend,
        max_hits: None,
    }
}

/// Gives each member its part of the answer, or all of them the error.
fn split(seats: Vec<Seat>, result: Result<Outcome, Error>) {
    let mut result = result.and_then(|outcome| match outcome.answer {
        Answer::Hits(ranked) => Ok((ranked.into_iter(), outcome.made)),
        _ => Err(Error::Internal("a batch of searches was answered with something else".into())),
    });
    let all: usize = seats.iter().map(|seat| seat.job.items()).sum();
    for Seat { engine, job, share, .. } in seats {
        let own = job.items();
        let answer = result.as_mut().map_err(|error| error.clone()).map(|(ranked, made)| {
            let hits: Vec<_> = ranked.by_ref().take(own).collect();
            let mut made = made.clone();
            made.rows_rescored = hits.iter().map(|ranked| ranked.rescored).sum();
            made.gathered = (all - own) as u32;
            Outcome { answer: Answer::Hits(hits), made }
        });
        // Before the caller is told: it may be about to end the engine.
        drop((engine, job));
        // Whoever has gone does not want it.
        let _ = share.send(Share::Answer(answer));
    }
}
