//! The rules: which requests share a batch, and when it leaves. No threads, no tasks, and no clock: callers pass the
//! time.
//!
//! A request that finds nothing of its kind in flight goes at once. One that does may wait in a batch, which leaves
//! when a job is answered and no more than [`AHEAD`] are still in flight, or when it is full, or has waited for the
//! time limit. The cost model decides whether a request waits ([`Group::pays`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Queries of a full batch: in a larger one a query costs a backend hardly less.
pub(super) const FULL: usize = 64;
/// Jobs that may still be in flight when a batch leaves: while the backend does one, the next is in the ring already.
/// Behind more of them it would only wait there, where nobody can join it.
const AHEAD: usize = 1;
/// What handing a request to a batch and its answer back takes: a task begun, and a thread woken twice.
pub(super) const HANDOVER: Duration = Duration::from_micros(10);
/// The lane of a job that is not routed yet.
const NOT_ROUTED: usize = usize::MAX;
/// Weight of the newest observation in a moving average.
const NEWEST: f64 = 0.25;

/// All kinds of requests of which one is in flight.
pub(super) struct Groups<K, M> {
    groups: HashMap<K, Group<M>>,
    limit: Duration,
    started: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Queries it holds.
    pub(crate) queries: usize,
    /// Its deadline.
    pub(crate) deadline: Option<Instant>,
}

/// What becomes of a request.
pub(super) enum Decision<M> {
    /// It goes at once, under this number.
    Alone(u64),
    /// It waits in a batch that leaves at `due` at the latest.
    Waits { due: Instant },
    /// It was the last that its batch needed.
    Filled(ReadyBatch<M>),
}

/// A batch that leaves now, under a number.
pub(super) struct ReadyBatch<M> {
    pub(super) number: u64,
    pub(super) members: Vec<M>,
}

/// Requests of one kind. Gone as soon as none is in flight.
struct Group<M> {
    in_flight: Vec<InFlightJob>,
    open: Option<OpenBatch<M>>,
    /// Queries that have ever arrived.
    arrived: u64,
    /// Queries that arrive while one job is in flight, on average: how many a batch would hold.
    typical: Option<f64>,
}

/// A job in flight.
struct InFlightJob {
    number: u64,
    lane: usize,
    queries: usize,
    left: Instant,
    /// When it should be answered; worked out when somebody asks.
    ends: Option<Instant>,
    /// [`Group::arrived`] when it left.
    arrived: u64,
}

struct OpenBatch<M> {
    members: Vec<M>,
    queries: usize,
    lane: usize,
    due: Instant,
}

impl<K: Eq + Hash + Clone, M> Groups<K, M> {
    /// None yet. A batch waits for `limit` at most.
    pub(super) fn new(limit: Duration) -> Self {
        Self { groups: HashMap::new(), limit, started: 0 }
    }

    /// A request comes. `lane` says which lane would do it, were it alone, and is asked only where others of the kind
    /// are in flight; `predict` says how long the best backend takes for so many queries of this kind; `member` makes
    /// what waits.
    pub(super) fn enter(
        &mut self,
        key: &K,
        request: Request,
        now: Instant,
        lane: impl FnOnce() -> usize,
        predict: impl Fn(usize) -> Duration,
        member: impl FnOnce() -> M,
    ) -> Decision<M> {
        let Some(group) = self.groups.get_mut(key) else {
            let mut group = Group::new();
            group.arrived = request.queries as u64;
            group.start(next(&mut self.started), NOT_ROUTED, request.queries, now);
            self.groups.insert(key.clone(), group);
            return Decision::Alone(self.started);
        };
        let lane = lane();
        let waits = group.pays(request, lane, now, self.limit, predict);
        group.arrived += request.queries as u64;
        if !waits {
            group.start(next(&mut self.started), lane, request.queries, now);
            return Decision::Alone(self.started);
        }
        let new = || OpenBatch { members: Vec::new(), queries: 0, lane, due: now + self.limit };
        let batch = group.open.get_or_insert_with(new);
        batch.members.push(member());
        batch.queries += request.queries;
        if batch.queries < FULL {
            return Decision::Waits { due: batch.due };
        }
        group.dispatch(&mut self.started, now).map_or(Decision::Waits { due: now }, Decision::Filled)
    }

    /// A job in flight is answered, or given up. The batch that leaves in its place, if one waits and few are in
    /// flight.
    pub(super) fn answered(&mut self, key: &K, number: u64, now: Instant) -> Option<ReadyBatch<M>> {
        let group = self.groups.get_mut(key)?;
        group.complete(number);
        let is_next = group.in_flight.len() <= AHEAD;
        let ready = if is_next { group.dispatch(&mut self.started, now) } else { None };
        if group.in_flight.is_empty() {
            self.groups.remove(key);
        }
        ready
    }

    /// A job in flight is routed.
    pub(super) fn routed(&mut self, key: &K, number: u64, lane: usize) {
        let jobs = self.groups.get_mut(key).into_iter().flat_map(|group| &mut group.in_flight);
        jobs.filter(|job| job.number == number).for_each(|job| job.lane = lane);
    }

    /// The batches that have waited for the time limit.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(K, ReadyBatch<M>)> {
        let Self { groups, started, .. } = self;
        let is_due = |group: &Group<M>| group.open.as_ref().is_some_and(|batch| batch.due <= now);
        let due = groups.iter_mut().filter(|(_, group)| is_due(group));
        due.filter_map(|(key, group)| Some((key.clone(), group.dispatch(started, now)?))).collect()
    }

    /// Whether nothing is in flight.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// When the next batch will have.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.groups.values().filter_map(|group| Some(group.open.as_ref()?.due)).min()
    }
}

impl<M> Group<M> {
    fn new() -> Self {
        Self { in_flight: Vec::with_capacity(1), open: None, arrived: 0, typical: None }
    }

    /// Whether waiting pays: whether one larger job in the place of two saves more, by the model, than waiting costs.
    /// Waiting costs the time until the batch leaves, less what the request would wait in its lane's ring anyway.
    fn pays(
        &mut self,
        request: Request,
        lane: usize,
        now: Instant,
        limit: Duration,
        predict: impl Fn(usize) -> Duration,
    ) -> bool {
        let (others, due) = match &self.open {
            Some(batch) => (batch.queries, batch.due),
            None => (self.expected_others(request.queries), now + limit),
        };
        if others == 0 {
            return false;
        }
        let longest = due.saturating_duration_since(now);
        // The last to be answered, and the one before it, which is when the batch leaves.
        let (mut last, mut wait, mut queue) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let only = self.in_flight.len() <= AHEAD;
        for job in &mut self.in_flight {
            let ends = *job.ends.get_or_insert_with(|| job.left + predict(job.queries));
            // A job that is late already may take any time.
            let rest = if ends > now { ends - now } else { longest };
            (last, wait) = if rest > last { (rest, last) } else { (last, wait.max(rest)) };
            if job.lane == lane {
                queue = queue.max(rest);
            }
        }
        let wait = if only { last } else { wait }.min(longest);
        let together = predict(others + request.queries);
        let saved = (predict(others) + predict(request.queries)).saturating_sub(together);
        let in_time = request.deadline.is_none_or(|deadline| deadline > now + wait + together);
        in_time && saved > wait.saturating_sub(queue) + HANDOVER
    }

    /// Queries of others that a batch begun now would hold. Until a job was answered, the estimate is what has arrived
    /// since the oldest one left.
    fn expected_others(&self, own: usize) -> usize {
        let so_far =
            || self.in_flight.first().map_or(0.0, |oldest| (self.arrived - oldest.arrived) as f64 + own as f64);
        // A negative number becomes 0.
        (self.typical.unwrap_or_else(so_far) - own as f64).round() as usize
    }

    fn start(&mut self, number: u64, lane: usize, queries: usize, now: Instant) {
        self.in_flight.push(InFlightJob { number, lane, queries, left: now, ends: None, arrived: self.arrived });
    }

    fn complete(&mut self, number: u64) {
        let Some(place) = self.in_flight.iter().position(|job| job.number == number) else { return };
        let job = self.in_flight.remove(place);
        let seen = (self.arrived - job.arrived) as f64;
        self.typical = Some(self.typical.map_or(seen, |typical| typical + NEWEST * (seen - typical)));
    }

    fn dispatch(&mut self, started: &mut u64, now: Instant) -> Option<ReadyBatch<M>> {
        let OpenBatch { members, queries, lane, .. } = self.open.take()?;
        let number = next(started);
        self.start(number, lane, queries, now);
        Some(ReadyBatch { number, members })
    }
}

fn next(number: &mut u64) -> u64 {
    *number += 1;
    *number
}

#[cfg(test)]
mod tests;
