//! Which requests share a batch, and when it leaves: the rules alone, without threads or tasks, and told the time.
//!
//! A request that finds nothing of its kind under way goes at once. One that does may wait in a batch, which leaves when a job is answered and
//! no more than [`AHEAD`] are still under way, or when it is full, or has waited for the time limit. Whether a request waits, the model
//! decides ([`Group::pays`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Queries with which a batch is full: from there on a query costs a backend hardly less in a larger one.
pub(super) const FULL: usize = 64;
/// Jobs that may still be under way when a batch leaves: while the backend does one, the next is in the ring already. Behind more of them it
/// would only wait there, where nobody can join it.
const AHEAD: usize = 1;
/// What handing a request to a batch and its answer back takes: a task begun, and a thread woken twice.
pub(super) const HANDOVER: Duration = Duration::from_micros(10);
/// Part of the newest observation in a moving average.
const NEWEST: f64 = 0.25;

/// All kinds of requests of which one is under way.
pub(super) struct Groups<K, M> {
    groups: HashMap<K, Group<M>>,
    limit: Duration,
    departures: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Queries it holds.
    pub(crate) queries: usize,
    /// The lane that would do it, were it alone.
    pub(crate) lane: usize,
    /// When its answer stops being of use.
    pub(crate) deadline: Option<Instant>,
}

/// What becomes of a request.
pub(super) enum Entry<M> {
    /// It goes at once, under this number.
    Alone(u64),
    /// It waits in a batch that leaves at `due` at the latest.
    Waits { due: Instant },
    /// It was the last that its batch needed.
    Filled(Departure<M>),
}

/// A batch that leaves now, under a number.
pub(super) struct Departure<M> {
    pub(super) number: u64,
    pub(super) members: Vec<M>,
}

/// Requests of one kind. Gone as soon as none is under way.
struct Group<M> {
    under_way: Vec<Leg>,
    gathering: Option<Batch<M>>,
    /// Queries that have ever arrived.
    arrived: u64,
    /// Queries that arrive while one job is under way, on average: how many a batch would hold.
    typical: Option<f64>,
}

/// A job under way.
struct Leg {
    number: u64,
    lane: usize,
    queries: usize,
    left: Instant,
    /// When it should be answered; worked out when somebody asks.
    ends: Option<Instant>,
    /// [`Group::arrived`] when it left.
    arrived: u64,
}

struct Batch<M> {
    members: Vec<M>,
    queries: usize,
    lane: usize,
    due: Instant,
}

impl<K: Eq + Hash + Clone, M> Groups<K, M> {
    /// None yet. A batch waits for `limit` at most.
    pub(super) fn new(limit: Duration) -> Self {
        Self { groups: HashMap::new(), limit, departures: 0 }
    }

    /// A request comes. `predict` says how long the best backend takes for so many queries of this kind; `member` makes what waits.
    pub(super) fn enter(
        &mut self,
        key: &K,
        request: Request,
        now: Instant,
        predict: impl Fn(usize) -> Duration,
        member: impl FnOnce() -> M,
    ) -> Entry<M> {
        let Some(group) = self.groups.get_mut(key) else {
            let mut group = Group::new();
            group.arrived = request.queries as u64;
            group.leave(next(&mut self.departures), request.lane, request.queries, now);
            self.groups.insert(key.clone(), group);
            return Entry::Alone(self.departures);
        };
        let waits = group.pays(request, now, self.limit, predict);
        group.arrived += request.queries as u64;
        if !waits {
            group.leave(next(&mut self.departures), request.lane, request.queries, now);
            return Entry::Alone(self.departures);
        }
        let new = || Batch { members: Vec::new(), queries: 0, lane: request.lane, due: now + self.limit };
        let batch = group.gathering.get_or_insert_with(new);
        batch.members.push(member());
        batch.queries += request.queries;
        if batch.queries < FULL {
            return Entry::Waits { due: batch.due };
        }
        group.depart(&mut self.departures, now).map_or(Entry::Waits { due: now }, Entry::Filled)
    }

    /// A job under way is answered, or given up. The batch that leaves in its place, if one waits and few are under way.
    pub(super) fn answered(&mut self, key: &K, number: u64, now: Instant) -> Option<Departure<M>> {
        let group = self.groups.get_mut(key)?;
        group.arrive(number);
        let is_next = group.under_way.len() <= AHEAD;
        let departure = if is_next { group.depart(&mut self.departures, now) } else { None };
        if group.under_way.is_empty() {
            self.groups.remove(key);
        }
        departure
    }

    /// A batch turned out to go to another lane than its first member would have.
    pub(super) fn moved(&mut self, key: &K, number: u64, lane: usize) {
        let legs = self.groups.get_mut(key).into_iter().flat_map(|group| &mut group.under_way);
        legs.filter(|leg| leg.number == number).for_each(|leg| leg.lane = lane);
    }

    /// The batches that have waited for the time limit.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(K, Departure<M>)> {
        let Self { groups, departures, .. } = self;
        let is_due = |group: &Group<M>| group.gathering.as_ref().is_some_and(|batch| batch.due <= now);
        let due = groups.iter_mut().filter(|(_, group)| is_due(group));
        due.filter_map(|(key, group)| Some((key.clone(), group.depart(departures, now)?))).collect()
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// When the next batch will have.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.groups.values().filter_map(|group| Some(group.gathering.as_ref()?.due)).min()
    }
}

impl<M> Group<M> {
    fn new() -> Self {
        Self { under_way: Vec::with_capacity(1), gathering: None, arrived: 0, typical: None }
    }

    /// Whether to wait pays: what the model says is saved by one larger job in the place of two, against the time that waiting costs. That is
    /// the time until the batch leaves, less the time that the request would have to wait in its lane's ring as well, behind what is under
    /// way there.
    fn pays(&mut self, request: Request, now: Instant, limit: Duration, predict: impl Fn(usize) -> Duration) -> bool {
        let (others, due) = match &self.gathering {
            Some(batch) => (batch.queries, batch.due),
            None => (self.expected_others(request.queries), now + limit),
        };
        if others == 0 {
            return false;
        }
        let longest = due.saturating_duration_since(now);
        // The last to be answered, and the one before it, which is when the batch leaves.
        let (mut last, mut wait, mut queue) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let only = self.under_way.len() <= AHEAD;
        for leg in &mut self.under_way {
            let ends = *leg.ends.get_or_insert_with(|| leg.left + predict(leg.queries));
            // Nobody knows about one that is late already.
            let rest = if ends > now { ends - now } else { longest };
            (last, wait) = if rest > last { (rest, last) } else { (last, wait.max(rest)) };
            if leg.lane == request.lane {
                queue = queue.max(rest);
            }
        }
        let wait = if only { last } else { wait }.min(longest);
        let together = predict(others + request.queries);
        let saved = (predict(others) + predict(request.queries)).saturating_sub(together);
        let in_time = request.deadline.is_none_or(|deadline| deadline > now + wait + together);
        in_time && saved > wait.saturating_sub(queue) + HANDOVER
    }

    /// Queries of others that a batch begun now would hold. Before one job was answered: as many as have arrived in the time of the oldest.
    fn expected_others(&self, own: usize) -> usize {
        let so_far =
            || self.under_way.first().map_or(0.0, |oldest| (self.arrived - oldest.arrived) as f64 + own as f64);
        // A negative number becomes 0.
        (self.typical.unwrap_or_else(so_far) - own as f64).round() as usize
    }

    fn leave(&mut self, number: u64, lane: usize, queries: usize, now: Instant) {
        self.under_way.push(Leg { number, lane, queries, left: now, ends: None, arrived: self.arrived });
    }

    fn arrive(&mut self, number: u64) {
        let Some(place) = self.under_way.iter().position(|leg| leg.number == number) else { return };
        let leg = self.under_way.remove(place);
        let seen = (self.arrived - leg.arrived) as f64;
        self.typical = Some(self.typical.map_or(seen, |typical| typical + NEWEST * (seen - typical)));
    }

    fn depart(&mut self, departures: &mut u64, now: Instant) -> Option<Departure<M>> {
        let Batch { members, queries, lane, .. } = self.gathering.take()?;
        let number = next(departures);
        self.leave(number, lane, queries, now);
        Some(Departure { number, members })
    }
}

fn next(number: &mut u64) -> u64 {
    *number += 1;
    *number
}

#[cfg(test)]
mod tests;
