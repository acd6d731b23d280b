//! Dynamic batching: small requests of one kind that come at the same time are done as one batch, where the cost model
//! says that waiting pays.
//!
//! Nobody waits on an idle engine. While a job of a kind is in flight, further ones of the kind may wait for one
//! another (`groups.rs` has the rules). Their batch is dispatched as soon as a backend is done with one in flight, so
//! they mostly wait for as long as they would have waited in the ring. One thread, which sleeps while nobody waits,
//! keeps the time limit: an async runtime's timers count milliseconds.
//!
//! All state is behind one mutex, which is never held while anything is awaited or spawned, nor while anything of a
//! member's is dropped. What a member is, and how a batch is done, [`BatchMember`] says; `search.rs` has the one there
//! is.

use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::groups::{Decision, Groups, ReadyBatch, Request};

pub(crate) use self::search::Member;

mod groups;
mod search;

/// Queries of the largest request that is batched.
pub(crate) const FEW: usize = 16;

/// A request that waits for its batch.
pub(crate) trait BatchMember: Send + Sized + 'static {
    /// What requests of one kind have in common.
    type Kind: Eq + Hash + Clone + Send;

    /// Whether nobody wants its answer any more.
    fn is_gone(&self) -> bool;

    /// Begins the batch, which has one member at least. Must not block. `in_flight` is dropped as soon as the next
    /// batch may leave.
    fn dispatch(members: Vec<Self>, in_flight: InFlight<Self>);
}

/// Where requests wait for one another.
pub(crate) struct Batcher<M: BatchMember> {
    shared: Arc<Shared<M>>,
}

/// What becomes of a request.
pub(crate) enum Entered<M: BatchMember> {
    /// It goes at once.
    Alone(InFlight<M>),
    /// It waits in a batch.
    Batched,
}

/// A job of a kind in flight. Dropping it lets the next batch leave.
pub(crate) struct InFlight<M: BatchMember> {
    shared: Arc<Shared<M>>,
    kind: M::Kind,
    number: u64,
}

struct Shared<M: BatchMember> {
    limit: Duration,
    state: Mutex<State<M>>,
    alarm: Condvar,
}

struct State<M: BatchMember> {
    groups: Groups<M::Kind, M>,
    clock: Option<JoinHandle<()>>,
    /// When the clock looks next; `None` while it sleeps until it is woken.
    looks: Option<Instant>,
    /// Whether somebody has waited since it last looked.
    busy: bool,
    ending: bool,
}

impl<M: BatchMember> Batcher<M> {
    /// Batches wait for `limit` at most.
    pub(crate) fn new(limit: Duration) -> Self {
        let state = State { groups: Groups::new(limit), clock: None, looks: None, busy: false, ending: false };
        Self { shared: Arc::new(Shared { limit, state: Mutex::new(state), alarm: Condvar::new() }) }
    }

    /// A request comes; see [`Groups::enter`].
    pub(crate) fn enter(
        &self,
        kind: M::Kind,
        request: Request,
        lane: impl FnOnce() -> usize,
        predict: impl Fn(usize) -> Duration,
        member: impl FnOnce() -> M,
    ) -> Entered<M> {
        let mut state = self.shared.lock();
        match state.groups.enter(&kind, request, Instant::now(), lane, predict, member) {
            Decision::Alone(number) => {
                drop(state);
                Entered::Alone(InFlight { shared: self.shared.clone(), kind, number })
            }
            Decision::Waits { due } => {
                self.shared.set_alarm(state, due);
                Entered::Batched
            }
            Decision::Filled(ready) => {
                drop(state);
                self.shared.dispatch(kind, ready);
                Entered::Batched
            }
        }
    }
}

impl<M: BatchMember> Drop for Batcher<M> {
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

impl<M: BatchMember> InFlight<M> {
    /// Says which lane the job went to.
    pub(crate) fn on(&self, lane: usize) {
        self.shared.lock().groups.routed(&self.kind, self.number, lane);
    }
}

impl<M: BatchMember> Drop for InFlight<M> {
    fn drop(&mut self) {
        let ready = self.shared.lock().groups.answered(&self.kind, self.number, Instant::now());
        if let Some(ready) = ready {
            self.shared.dispatch(self.kind.clone(), ready);
        }
    }
}

impl<M: BatchMember> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without the lock: members that are gone are dropped here, and with them perhaps the last owner of all this.
    fn dispatch(self: &Arc<Self>, kind: M::Kind, ready: ReadyBatch<M>) {
        let ReadyBatch { number, mut members } = ready;
        let in_flight = InFlight { shared: self.clone(), kind, number };
        members.retain(|member| !member.is_gone());
        if !members.is_empty() {
            M::dispatch(members, in_flight);
        }
    }

    /// Sees to it that the clock looks at `due`.
    fn set_alarm(self: &Arc<Self>, mut state: MutexGuard<'_, State<M>>, due: Instant) {
        state.busy = true;
        if state.clock.is_none() {
            let shared = self.clone();
            // Where the system refuses a thread, the next request asks again; batches still leave when a job is
            // answered.
            state.clock = std::thread::Builder::new().name("megaring-batch".into()).spawn(move || shared.tick()).ok();
        } else if state.looks.is_none_or(|looks| looks > due) {
            drop(state);
            self.alarm.notify_one();
        }
    }

    /// The clock: dispatches batches that have waited long enough. While requests wait it looks once a time limit, so
    /// that they need not wake it.
    fn tick(self: Arc<Self>) {
        let mut state = self.lock();
        while !state.ending {
            let now = Instant::now();
            let overdue = state.groups.overdue(now);
            if !overdue.is_empty() {
                drop(state);
                overdue.into_iter().for_each(|(kind, ready)| self.dispatch(kind, ready));
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
