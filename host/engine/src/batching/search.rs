//! Several callers' searches as one job: which may share one, how they wait for it, and how its answer is split.
//!
//! Each caller keeps its own permit and its time limit, and waits for its share of a batch's answer. It is routed only
//! if it turns out to go alone. The batch is a job of its own on a task of its own, so no caller can cancel it; it is
//! given up where every caller has gone. A caller whose batch is lost all the same (a panic, a runtime that ends) does
//! its job itself, alone.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::matrix::Matrix;
use megaring_core::rescore::Ranked;
use megaring_core::search::{self, Search};
use megaring_core::{BackendKind, Error, Metric, Opcode};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::groups::Request;
use super::{BatchMember, Batcher, Entered, FEW, InFlight};
use crate::engine::Engine;
use crate::execution::Admitted;
use crate::outcome::Outcome;
use crate::terms::Terms;

/// Most hits a query may ask for to be batched: the answers of a full batch then stay below a mebibyte.
const FEW_HITS: usize = 1024;

type Answer = Outcome<Vec<Ranked>>;

/// What a caller gets from its batch.
enum Share {
    /// The batch has no other member: the caller does its job itself.
    Alone(InFlight<Member>),
    /// Its part of the answer.
    Answer(Result<Answer, Error>),
}

/// A caller's search in a batch.
pub(crate) struct Member {
    engine: Arc<Engine>,
    /// Where the batch may run.
    runtime: Handle,
    job: Arc<Search>,
    terms: Terms,
    share: oneshot::Sender<Share>,
}

/// Searches that differ in nothing but their queries, so that one job answers them all.
#[derive(Clone)]
pub(crate) struct Kind {
    corpus: Arc<CorpusView>,
    metric: Metric,
    k: usize,
    /// In bits: equal or not, without exceptions.
    threshold: Option<u64>,
    backend: Option<BackendKind>,
}

impl Kind {
    /// `None` where a search cannot be batched.
    fn of(search: &Search, terms: &Terms) -> Option<Self> {
        let Search { corpus, queries, metric, k, threshold } = search;
        let few = (1..=FEW).contains(&queries.len()) && (*k).min(corpus.rows()) <= FEW_HITS;
        // Those of another dimension are the backend's to refuse.
        (few && queries.dim(corpus) == corpus.dim()).then(|| Self {
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

impl Batcher<Member> {
    /// Does a search, alone or with others.
    pub(crate) async fn run(&self, admitted: Admitted<Search>) -> Result<Answer, Error> {
        // A batch needs somewhere to run.
        let (Some(kind), Ok(runtime)) = (Kind::of(&admitted.job, &admitted.terms), Handle::try_current()) else {
            return admitted.route()?.run(|| {}).await;
        };
        let Admitted { engine, job, terms, size, .. } = &admitted;
        let (router, wish) = (engine.router(), terms.backend);
        let lane = || router.likely_lane(Opcode::Search, size, wish);
        let predict = |queries| router.estimate(Opcode::Search, &job.size_of_batch(queries), wish);
        let request = Request { queries: job.queries.len(), deadline: terms.deadline };
        let mut waiting = None;
        let member = || {
            let (share, awaited) = oneshot::channel();
            waiting = Some(awaited);
            Member { engine: engine.clone(), runtime, job: job.clone(), terms: terms.clone(), share }
        };
        match (self.enter(kind, request, lane, predict, member), waiting) {
            (Entered::Alone(in_flight), _) => alone(admitted, Some(in_flight)).await,
            (Entered::Batched, Some(share)) => wait(admitted, share).await,
            (Entered::Batched, None) => alone(admitted, None).await,
        }
    }
}

async fn alone(admitted: Admitted<Search>, mut in_flight: Option<InFlight<Member>>) -> Result<Answer, Error> {
    let execution = admitted.route()?;
    if let Some(in_flight) = &in_flight {
        in_flight.on(execution.lane_index());
    }
    // As soon as no backend works on it any more, the next batch may go.
    execution.run(move || drop(in_flight.take())).await
}

/// Waits for its share of a batch, until its own deadline.
async fn wait(admitted: Admitted<Search>, share: oneshot::Receiver<Share>) -> Result<Answer, Error> {
    let share = match admitted.terms.deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), share)
            .await
            .map_err(|_| Error::DeadlineExceeded { stage: "being worked on" })?,
        None => share.await,
    };
    match share {
        Ok(Share::Answer(answer)) => {
            let answer = answer?;
            let hits = search::hits(&answer.answer);
            admitted.answered(answer, hits)
        }
        Ok(Share::Alone(in_flight)) => alone(admitted, Some(in_flight)).await,
        Err(_) => alone(admitted, None).await,
    }
}

impl BatchMember for Member {
    type Kind = Kind;

    fn is_gone(&self) -> bool {
        self.share.is_closed()
    }

    fn dispatch(mut members: Vec<Self>, in_flight: InFlight<Self>) {
        if members.len() > 1 {
            let runtime = members[0].runtime.clone();
            // A runtime that is ending drops the batch, and with it every member: its callers then go alone.
            runtime.spawn(run_batch(members, in_flight));
        } else if let Some(only) = members.pop() {
            // Where it goes away just now, so does its place among those in flight.
            let _ = only.share.send(Share::Alone(in_flight));
        }
    }
}

/// Does a batch, and gives each member its share.
async fn run_batch(mut members: Vec<Member>, in_flight: InFlight<Member>) {
    let Some(first) = members.first() else { return };
    let Some(job) = joined(&members) else { return };
    let batch = Admitted::batch(first.engine.clone(), job, common_terms(&members));
    let result = tokio::select! {
        biased;
        result = alone(batch, Some(in_flight)) => result,
        () = all_gone(&mut members) => return,
    };
    split(members, result);
}

/// Ends when nobody waits for the batch any more.
async fn all_gone(members: &mut [Member]) {
    for member in members {
        member.share.closed().await;
    }
}

/// One job of all the members' queries, in their order; none of nobody's.
fn joined(members: &[Member]) -> Option<Search> {
    let Search { corpus, metric, k, threshold, .. } = &*members.first()?.job;
    let rows = members.iter().map(|member| member.job.queries.len()).sum();
    let mut values = Vec::with_capacity(rows * corpus.dim());
    for Search { queries, .. } in members.iter().map(|member| &*member.job) {
        (0..queries.len()).for_each(|query| values.extend_from_slice(queries.of(query, corpus)));
    }
    let queries = Matrix { rows, dim: corpus.dim(), values }.into();
    Some(Search { corpus: corpus.clone(), queries, metric: *metric, k: *k, threshold: *threshold })
}

/// Terms that suit all: the tenant where it is one, the latest of the deadlines where all have one. How many hits each
/// can take is checked when it gets them.
fn common_terms(members: &[Member]) -> Terms {
    let first = members.first().map(|member| member.terms.clone()).unwrap_or_default();
    let one_tenant = members.iter().all(|member| member.terms.tenant == first.tenant);
    let deadline = members.iter().map(|member| member.terms.deadline).collect::<Option<Vec<_>>>();
    Terms {
        tenant: if one_tenant { first.tenant } else { String::new() },
        deadline: deadline.and_then(|all| all.into_iter().max()),
        backend: first.backend,
        max_answers: None,
        passed: first.passed,
        // Each is charged its share.
        charge: None,
    }
}

/// Gives each member its part of the answer, or all of them the error.
fn split(members: Vec<Member>, result: Result<Answer, Error>) {
    let all: usize = members.iter().map(|member| member.job.queries.len()).sum();
    let mut result = result.map(|outcome| (outcome.answer.into_iter(), outcome.made));
    for Member { engine, job, share, .. } in members {
        let own = job.queries.len();
        let answer = result.as_mut().map_err(|error| error.clone()).map(|(ranked, made)| {
            let answer: Vec<Ranked> = ranked.by_ref().take(own).collect();
            let mut made = made.clone();
            made.rows_rescored = answer.iter().map(|ranked| ranked.rescored).sum();
            made.batched_with = (all - own) as u32;
            Outcome { answer, made }
        });
        // Before the caller is told: it may be about to end the engine.
        drop((engine, job));
        // Whoever has gone does not want it.
        let _ = share.send(Share::Answer(answer));
    }
}
