//! Gathering: small requests of one kind that come at the same time are done as one batch, where the model says that waiting pays.
//!
//! Nobody waits on an idle engine. While a job of a kind is under way, further ones of the kind may gather (the rules are in `groups.rs`); their
//! batch leaves as soon as a backend is done with one under way, so the time they wait is mostly time they would have waited in the ring. One
//! thread, which sleeps while nobody gathers, keeps the time limit: an async runtime's timers count milliseconds.
//!
//! All state is behind one mutex, never held while anything is awaited, spawned or dropped that is not this module's own. What a member is,
//! and how a batch is done, is its owner's affair ([`Member`]).

use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::groups::{Departure, Entry, Groups};

pub(crate) use self::groups::Request;

mod groups;

/// Queries of the largest request that is gathered.
pub(crate) const FEW: usize = 16;

/// A request that waits for its batch.
pub(crate) trait Member: Send + Sized + 'static {
    /// What requests of one kind have in common.
    type Kind: Eq + Hash + Clone + Send;

    /// Whether nobody wants its answer any more.
    fn is_gone(&self) -> bool;

    /// Begins the batch, which has one member at least. Must not block. `under_way` is dropped as soon as the next batch may leave.
    fn depart(members: Vec<Self>, under_way: UnderWay<Self>);
}

/// Where requests gather.
pub(crate) struct Gatherer<M: Member> {
    shared: Arc<Shared<M>>,
}

/// What becomes of a request.
pub(crate) enum Way<M: Member> {
    /// It goes at once.
    Alone(UnderWay<M>),
    /// It waits in a batch.
    Gathered,
}

/// A job of a kind under way. Dropping it lets the next batch leave.
pub(crate) struct UnderWay<M: Member> {
    shared: Arc<Shared<M>>,
    kind: M::Kind,
    number: u64,
}

struct Shared<M: Member> {
    limit: Duration,
    state: Mutex<State<M>>,
    alarm: Condvar,
}

struct State<M: Member> {
    groups: Groups<M::Kind, M>,
    clock: Option<JoinHandle<()>>,
    /// When the clock looks next; `None` while it sleeps until it is woken.
    looks: Option<Instant>,
    /// Whether somebody has waited since it last looked.
    busy: bool,
    ending: bool,
}

impl<M: Member> Gatherer<M> {
    /// Batches wait for `limit` at most.
    pub(crate) fn new(limit: Duration) -> Self {
        let state = State { groups: Groups::new(limit), clock: None, looks: None, busy: false, ending: false };
        Self { shared: Arc::new(Shared { limit, state: Mutex::new(state), alarm: Condvar::new() }) }
    }

    /// A request comes. `predict` says how long the best backend takes for so many queries of its kind; `member` makes what waits.
    pub(crate) fn enter(
        &self,
        kind: M::Kind,
        request: Request,
        predict: impl Fn(usize) -> Duration,
        member: impl FnOnce() -> M,
    ) -> Way<M> {
        let mut state = self.shared.lock();
        match state.groups.enter(&kind, request, Instant::now(), predict, member) {
            Entry::Alone(number) => {
                drop(state);
                Way::Alone(UnderWay { shared: self.shared.clone(), kind, number })
            }
            Entry::Waits { due } => {
                self.shared.set_alarm(state, due);
                Way::Gathered
            }
            Entry::Filled(departure) => {
                drop(state);
                self.shared.depart(kind, departure);
                Way::Gathered
            }
        }
    }
}

impl<M: Member> Drop for Gatherer<M> {
    fn drop(&mut self) {
        let clock = {
            let mut state = self.shared.lock();
            state.ending = true;
            state.clock.take()
        };
        self.shared.alarm.notify_all();
        // The clock itself drops the last owner where a batch found its runtime gone.
        if let Some(clock) = clock.filter(|clock| clock.thread().id() != std::thread::current().id()) {
            // If it died all the same, there is nothing to save.
            let _ = clock.join();
        }
    }
}

impl<M: Member> UnderWay<M> {
    /// Says which lane the job went to, where that is not its first member's.
    pub(crate) fn on(&self, lane: usize) {
        self.shared.lock().groups.moved(&self.kind, self.number, lane);
    }
}

impl<M: Member> Drop for UnderWay<M> {
    fn drop(&mut self) {
        let departure = self.shared.lock().groups.answered(&self.kind, self.number, Instant::now());
        if let Some(departure) = departure {
            self.shared.depart(self.kind.clone(), departure);
        }
    }
}

impl<M: Member> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without the lock: members that are gone are dropped here, and with them perhaps the last owner of all this.
    fn depart(self: &Arc<Self>, kind: M::Kind, departure: Departure<M>) {
        let Departure { number, mut members } = departure;
        let under_way = UnderWay { shared: self.clone(), kind, number };
        members.retain(|member| !member.is_gone());
        if !members.is_empty() {
            M::depart(members, under_way);
        }
    }

    /// Sees to it that the clock looks at `due`.
    fn set_alarm(self: &Arc<Self>, mut state: MutexGuard<'_, State<M>>, due: Instant) {
        state.busy = true;
        if state.clock.is_none() {
            let shared = self.clone();
            // Where the system refuses a thread, the next request asks again; batches still leave when a job is answered.
            state.clock = std::thread::Builder::new().name("megaring-gather".into()).spawn(move || shared.tick()).ok();
        } else if state.looks.is_none_or(|looks| looks > due) {
            drop(state);
            self.alarm.notify_one();
        }
    }

    /// The clock: lets batches leave that have waited long enough. While requests gather it looks once a time limit, so that they need not
    /// wake it.
    fn tick(self: Arc<Self>) {
        let mut state = self.lock();
        while !state.ending {
            let now = Instant::now();
            let overdue = state.groups.overdue(now);
            if !overdue.is_empty() {
                drop(state);
                overdue.into_iter().for_each(|(kind, departure)| self.depart(kind, departure));
                state = self.lock();
                continue;
            }
            let busy = std::mem::take(&mut state.busy);
            state.looks = state.groups.next_due().or_else(|| busy.then(|| now + self.limit));
            state = match state.looks {
                Some(at) => {
                    let waited = self.alarm.wait_timeout(state, at.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.alarm.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[cfg(test)]
mod tests;
