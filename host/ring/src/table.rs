//! The outstanding tickets: who waits for an answer, which run of the arena belongs to it, and whether the consumer may
//! still touch it.
//!
//! An entry has two halves, and is free again when both are over: the *owner's* (until the answer is collected or the
//! ticket dropped) and the *consumer's* (until its completion has come, or the consumer is known dead). An entry is
//! also the credit for one completion slot: there are as many entries as the completion ring has slots, and an entry is
//! not free before its completion slot is.
//!
//! Tickets are found by open addressing on the ticket's number, without a lock; tickets are consecutive, so a probe
//! goes further than its first look only past tickets that are whole laps old. Looking for a ticket that does not exist
//! scans the table; that is a fault anyway.

use std::task::Waker;

use crate::{
    arena::{Arena, Lease},
    completion::{Body, Completion, Status},
    sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock},
};

#[derive(Debug)]
pub(crate) struct Table {
    entries: Box<[Entry]>,
    /// Entry + 1, or 0; as many as entries, a power of two.
    index: Box<[AtomicU32]>,
    free: Mutex<Vec<u32>>,
    outstanding: AtomicUsize,
    quarantined: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Entry {
    ticket: AtomicU64,
    /// Where in the index.
    at: AtomicU32,
    /// RESERVED until the ticket exists; then how far an in-process consumer has got.
    stage: AtomicU32,
    answered: AtomicBool,
    abandoned: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    owner: Owner,
    consumer: Consumer,
    lease: Option<Lease>,
}

#[derive(Debug)]
enum Owner {
    Waiting(Option<Waker>),
    Answered(Completion),
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    /// May still read the slot, touch the run and send a completion.
    Holds,
    /// Has sent its completion.
    Finished,
    /// Was given up on, and its ticket answered from the host; may still touch the run.
    Quarantined,
}

/// What became of a completion.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The ticket is answered; wake its owner.
    Answered(Option<Waker>),
    /// The ticket is answered, with an error, for its completion was faulty; wake its owner.
    Faulty(Option<Waker>),
    /// There is no such ticket, or it was answered already.
    Fault,
}

const RESERVED: u32 = 0;
const SUBMITTED: u32 = 1;
const OPEN: u32 = 2;
const COMPLETED: u32 = 3;

impl Table {
    /// `len` is a power of two.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            entries: (0..len).map(|_| Entry::new()).collect(),
            index: (0..len).map(|_| AtomicU32::new(0)).collect(),
            free: Mutex::new((0..len as u32).rev().collect()),
            outstanding: AtomicUsize::new(0),
            quarantined: AtomicUsize::new(0),
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Acquire)
    }

    pub(crate) fn quarantined(&self) -> usize {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Takes a free entry.
    pub(crate) fn take(&self) -> Option<u32> {
        lock(&self.free).pop()
    }

    /// Gives back an entry that has no ticket.
    pub(crate) fn give(&self, entry: u32) {
        lock(&self.free).push(entry);
    }

    /// Prepares a taken entry for its ticket.
    pub(crate) fn arm(&self, entry: u32, lease: Lease) {
        let entry = &self.entries[entry as usize];
        let mut state = lock(&entry.state);
        entry.stage.store(RESERVED, Ordering::Relaxed);
        entry.answered.store(false, Ordering::Relaxed);
        entry.abandoned.store(false, Ordering::Relaxed);
        *state = State { owner: Owner::Waiting(None), consumer: Consumer::Holds, lease: Some(lease) };
    }

    /// Undoes [`Table::arm`] for a reservation that was not used.
    pub(crate) fn disarm(&self, entry: u32) -> Option<Lease> {
        let lease = lock(&self.entries[entry as usize].state).lease.take();
        self.give(entry);
        lease
    }

    /// Gives an armed entry its ticket. Lock-free: there are as many places in the index as entries, so one is free.
    pub(crate) fn enlist(&self, entry: u32, ticket: u64) {
        let slot = &self.entries[entry as usize];
        slot.ticket.store(ticket, Ordering::Relaxed);
        slot.stage.store(SUBMITTED, Ordering::Release);
        self.outstanding.fetch_add(1, Ordering::AcqRel);
        let mut at = ticket as usize & self.mask();
        loop {
            // The place is noted first: who finds the entry through the index may have to clear it.
            slot.at.store(at as u32, Ordering::Relaxed);
            let place = &self.index[at];
            if place.load(Ordering::Relaxed) == 0
                && place.compare_exchange(0, entry + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return;
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Whether the ticket's owner has gone.
    pub(crate) fn is_abandoned(&self, entry: u32) -> bool {
        self.entries[entry as usize].abandoned.load(Ordering::Relaxed)
    }

    /// Whether the ticket is answered.
    pub(crate) fn is_answered(&self, entry: u32) -> bool {
        self.entries[entry as usize].answered.load(Ordering::Acquire)
    }

    /// An in-process consumer begins to work on a ticket: its entry, if `check` likes the lease and nobody else has
    /// begun.
    pub(crate) fn open(&self, ticket: u64, check: impl FnOnce(&Lease) -> bool) -> Option<u32> {
        let (entry, state) = self.find(ticket)?;
        let slot = &self.entries[entry as usize];
        let right = state.consumer == Consumer::Holds && state.lease.as_ref().is_some_and(check);
        let opened = right && slot.stage.load(Ordering::Relaxed) == SUBMITTED;
        if opened {
            slot.stage.store(OPEN, Ordering::Relaxed);
        }
        opened.then_some(entry)
    }

    /// An in-process consumer ends its work on a ticket: true once for each ticket, and only for who has it open (or,
    /// with `opened` false, while nobody has).
    pub(crate) fn close(&self, ticket: u64, opened: bool) -> bool {
        let Some((entry, _state)) = self.find(ticket) else {
            return false;
        };
        let stage = &self.entries[entry as usize].stage;
        let right = stage.load(Ordering::Relaxed) == if opened { OPEN } else { SUBMITTED };
        if right {
            stage.store(COMPLETED, Ordering::Relaxed);
        }
        right
    }

    /// A completion has come for `completion.ticket`. `doubtful`: its slot was damaged, or it names a job that no
    /// consumer has taken, so even the ticket's number is not to be relied on; whoever waits for it gets an error, and
    /// the run stays out of use.
    pub(crate) fn settle(&self, arena: &Arena, mut completion: Completion, doubtful: bool) -> Settled {
        let Some((entry, mut state)) = self.find(completion.ticket) else {
            return Settled::Fault;
        };
        let slot = &self.entries[entry as usize];
        // Whoever has the job open has a borrow of its run; only its own completion, which closes the job first, may
        // end that.
        let open = slot.stage.load(Ordering::Relaxed) == OPEN;
        if state.consumer == Consumer::Quarantined {
            // Too late for the owner, who has an answer. But it ends the consumer's half as it would have in time.
            if !doubtful && !open {
                if let Some(lease) = state.lease.take() {
                    arena.release(lease);
                }
                self.finish(entry, slot, &mut state);
            }
            return Settled::Fault;
        }
        let result = state.lease.as_ref().map(|lease| lease.result);
        let stray =
            matches!(completion.body, Body::Arena(used) if !result.is_some_and(|result| result.contains(&used)));
        let faulty = stray || doubtful || open;
        if faulty {
            completion.status = Status::BackendFailed;
            completion.body = Body::Empty;
        }
        let wake = if doubtful || open {
            self.quarantine(slot, &mut state, completion)
        } else {
            let wake = self.answer(slot, &mut state, completion);
            self.finish(entry, slot, &mut state);
            if matches!(state.owner, Owner::Gone) {
                self.retire(arena, entry, &mut state);
            }
            wake
        };
        if faulty { Settled::Faulty(wake) } else { Settled::Answered(wake) }
    }

    /// Answers a ticket from the host, if it waits still. The outer `None` if it does not.
    pub(crate) fn fail(&self, entry: u32, status: Status, timestamp_ns: u64) -> Option<Option<Waker>> {
        let slot = &self.entries[entry as usize];
        let mut state = lock(&slot.state);
        // An entry that is being reserved or was freed meanwhile is not in the index.
        if !self.is_listed(entry) || slot.stage.load(Ordering::Acquire) == RESERVED || state.consumer != Consumer::Holds
        {
            return None;
        }
        let ticket = slot.ticket.load(Ordering::Relaxed);
        Some(self.quarantine(slot, &mut state, Completion { ticket, status, timestamp_ns, ..Completion::default() }))
    }

    /// The entries that have a ticket now.
    pub(crate) fn listed(&self) -> impl Iterator<Item = u32> {
        self.index.iter().filter_map(|place| place.load(Ordering::Acquire).checked_sub(1))
    }

    /// The consumer is dead: gives the quarantined runs back. A ticket whose slot no consumer has taken yet (it is at
    /// or past `head`) keeps its entry, the credit for the completion that the next consumer will send for it. Returns
    /// how many runs were given back.
    pub(crate) fn release_quarantine(&self, arena: &Arena, head: u64) -> usize {
        let mut released = 0;
        for entry in self.listed() {
            let slot = &self.entries[entry as usize];
            let mut state = lock(&slot.state);
            if state.consumer != Consumer::Quarantined || slot.stage.load(Ordering::Relaxed) == OPEN {
                continue;
            }
            if let Some(lease) = state.lease.take() {
                arena.release(lease);
                released += 1;
            }
            if head.wrapping_sub(slot.ticket.load(Ordering::Relaxed)) < u64::MAX / 2 {
                self.finish(entry, slot, &mut state);
            }
        }
        released
    }

    /// Whether nobody may touch the run of a ticket up to `through` any more, but for its owner: the consumer's half is
    /// over, or the run was taken from a dead consumer. For tickets that had their entry before the call.
    pub(crate) fn is_settled(&self, through: u64) -> bool {
        let touchable = |entry: u32| {
            let slot = &self.entries[entry as usize];
            let is_meant = || through.wrapping_sub(slot.ticket.load(Ordering::Relaxed)) < 1 << 63;
            // Without the lock the entry may get another ticket between two looks, but only when its old one is
            // settled.
            is_meant() && {
                let state = lock(&slot.state);
                self.is_listed(entry) && is_meant() && state.lease.is_some()
            }
        };
        !self.listed().any(touchable)
    }

    /// Takes the answer, or leaves `waker` to be woken by it.
    pub(crate) fn collect(&self, entry: u32, waker: Option<&Waker>) -> Option<(Completion, Option<Lease>)> {
        let slot = &self.entries[entry as usize];
        let mut state = lock(&slot.state);
        match &mut state.owner {
            Owner::Waiting(left) => {
                if let Some(waker) = waker
                    && !left.as_ref().is_some_and(|left| left.will_wake(waker))
                {
                    *left = Some(waker.clone());
                }
                None
            }
            Owner::Gone => None,
            Owner::Answered(completion) => {
                let completion = *completion;
                state.owner = Owner::Gone;
                if state.consumer != Consumer::Finished {
                    return Some((completion, None));
                }
                let lease = state.lease.take();
                drop(state);
                self.give(entry);
                Some((completion, lease))
            }
        }
    }

    /// The owner drops its ticket.
    pub(crate) fn abandon(&self, arena: &Arena, entry: u32) {
        let slot = &self.entries[entry as usize];
        let mut state = lock(&slot.state);
        slot.abandoned.store(true, Ordering::Relaxed);
        // The waker is dropped outside the lock: its drop is foreign code.
        let _owner = std::mem::replace(&mut state.owner, Owner::Gone);
        if state.consumer == Consumer::Finished {
            self.retire(arena, entry, &mut state);
        }
        drop(state);
    }

    /// The entry of a live ticket, locked.
    fn find(&self, ticket: u64) -> Option<(u32, MutexGuard<'_, State>)> {
        let home = ticket as usize & self.mask();
        let candidates = (0..self.index.len())
            .filter_map(|step| self.index[(home + step) & self.mask()].load(Ordering::Acquire).checked_sub(1))
            .filter(|entry| self.entries[*entry as usize].ticket.load(Ordering::Relaxed) == ticket);
        for entry in candidates {
            let slot = &self.entries[entry as usize];
            let state = lock(&slot.state);
            // Between the look and the lock the entry may have been freed and taken for another ticket.
            if self.is_listed(entry)
                && slot.stage.load(Ordering::Acquire) != RESERVED
                && slot.ticket.load(Ordering::Relaxed) == ticket
            {
                return Some((entry, state));
            }
        }
        None
    }

    /// Whether the entry is in the index, where it last was.
    fn is_listed(&self, entry: u32) -> bool {
        let at = self.entries[entry as usize].at.load(Ordering::Relaxed);
        self.index[at as usize].load(Ordering::Acquire) == entry + 1
    }

    /// Answers the owner; the caller says what becomes of the consumer's half.
    fn answer(&self, slot: &Entry, state: &mut State, completion: Completion) -> Option<Waker> {
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
        slot.answered.store(true, Ordering::Release);
        match &mut state.owner {
            Owner::Waiting(waker) => {
                let waker = waker.take();
                state.owner = Owner::Answered(completion);
                waker
            }
            Owner::Answered(_) | Owner::Gone => None,
        }
    }

    fn quarantine(&self, slot: &Entry, state: &mut State, completion: Completion) -> Option<Waker> {
        state.consumer = Consumer::Quarantined;
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        self.answer(slot, state, completion)
    }

    /// Ends the consumer's half: no completion is expected any more. A quarantined entry without an owner is free with
    /// that.
    fn finish(&self, entry: u32, slot: &Entry, state: &mut State) {
        self.index[slot.at.load(Ordering::Relaxed) as usize].store(0, Ordering::Release);
        if state.consumer == Consumer::Quarantined {
            self.quarantined.fetch_sub(1, Ordering::Relaxed);
            if matches!(state.owner, Owner::Gone) {
                self.give(entry);
            }
        }
        state.consumer = Consumer::Finished;
    }

    /// Frees an entry whose two halves are over, and its run.
    fn retire(&self, arena: &Arena, entry: u32, state: &mut State) {
        if let Some(lease) = state.lease.take() {
            arena.release(lease);
        }
        self.give(entry);
    }

    fn mask(&self) -> usize {
        self.index.len() - 1
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            ticket: AtomicU64::new(0),
            at: AtomicU32::new(0),
            stage: AtomicU32::new(RESERVED),
            answered: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            state: Mutex::new(State { owner: Owner::Gone, consumer: Consumer::Finished, lease: None }),
        }
    }
}
