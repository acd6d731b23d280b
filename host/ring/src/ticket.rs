//! The host's side of one job: a reservation, then a ticket, then an outcome.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use crate::{
    arena::Lease,
    completion::{Body, Completion, Status},
    descriptor::{Descriptor, Region},
    job_ring::{JobRing, unix_ns},
    protocol::{Protocol, Sound},
};

/// A job that is admitted but not submitted: it holds a submission slot, a completion slot and a run of the arena.
/// Dropping it gives all back.
#[derive(Debug)]
pub struct Reservation<P: Protocol = Sound> {
    ring: Arc<JobRing<P>>,
    entry: u32,
    generation: u32,
    payload: Region,
    result: Region,
    submitted: bool,
}

/// The right to one answer. A future, or to be waited for; dropping it abandons the answer, and the job's memory is
/// recycled when the completion comes.
///
/// The future is ready once some thread has reaped the completion ([`JobRing::reap`]); polling it does not reap.
#[derive(Debug)]
#[must_use = "dropping a ticket abandons its answer"]
pub struct Ticket<P: Protocol = Sound> {
    ring: Arc<JobRing<P>>,
    entry: u32,
    id: u64,
    collected: bool,
}

/// An answer, and the memory it lies in, which is recycled on drop.
#[derive(Debug)]
pub struct Outcome<P: Protocol = Sound> {
    /// How it went.
    pub completion: Completion,
    ring: Arc<JobRing<P>>,
    lease: Option<Lease>,
}

impl<P: Protocol> Reservation<P> {
    pub(crate) fn new(ring: Arc<JobRing<P>>, entry: u32, lease: Lease) -> Self {
        let (generation, payload, result) = (lease.generation, lease.payload, lease.result);
        ring.table.arm(entry, lease);
        Self { ring, entry, generation, payload, result, submitted: false }
    }

    /// The job's input, to be filled in; aligned to 128 bytes. What is in it before is arbitrary: what earlier jobs
    /// left.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.ring.arena.note_write(&self.payload);
        // SAFETY: the bytes are initialised (fresh memory is zero), within the arena, and belong to the lease in this
        // reservation's table entry. Leases never overlap; no consumer knows of the run before `submit`, which takes
        // `self`, and no slot of this generation names it yet. So the borrow of `self` is the only access.
        unsafe { self.ring.arena.bytes(&self.payload).as_mut() }
    }

    /// Bytes for the payload.
    pub fn payload_len(&self) -> usize {
        self.payload.len as usize
    }

    /// Bytes for the answer.
    pub fn result_len(&self) -> usize {
        self.result.len as usize
    }

    /// Publishes the job on the ring that made the reservation: [`JobRing::submit`].
    pub fn submit(self, descriptor: Descriptor) -> Ticket<P> {
        self.publish(descriptor, true)
    }

    /// [`Self::submit`] that wakes no consumer, for a thread that goes on to [`Ticket::wait_helping`].
    pub fn submit_unannounced(self, descriptor: Descriptor) -> Ticket<P> {
        self.publish(descriptor, false)
    }

    fn publish(mut self, descriptor: Descriptor, announce: bool) -> Ticket<P> {
        self.submitted = true;
        let (ring, entry) = (self.ring.clone(), self.entry);
        let filled = Descriptor {
            payload: self.payload,
            result: self.result,
            arena_generation: self.generation,
            timestamp_ns: unix_ns(),
            ..descriptor
        };
        let position = ring.submissions.push_reserved(|position| {
            ring.table.enlist(entry, position.wrapping_add(1));
            filled
        });
        ring.submitted(entry, announce);
        Ticket { ring, entry, id: position.wrapping_add(1), collected: false }
    }
}

impl<P: Protocol> Drop for Reservation<P> {
    fn drop(&mut self) {
        if self.submitted {
            return;
        }
        if let Some(lease) = self.ring.table.disarm(self.entry) {
            self.ring.arena.release(lease);
        }
        self.ring.submissions.release();
    }
}

impl<P: Protocol> Ticket<P> {
    /// The ticket's id: the sequence of its submission slot, which the completion repeats.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Blocks until the answer is there, by the ring's wait strategy. This thread reaps meanwhile, for all tickets.
    pub fn wait(mut self) -> Outcome<P> {
        loop {
            self.ring.wait_answer(self.entry, None, &|| false);
            if let Some(outcome) = self.collect(None) {
                return outcome;
            }
        }
    }

    /// [`Ticket::wait`] of a thread that takes part in the work: it calls `help` with the ticket's id once at least,
    /// before it waits, and again when `can_help` says so while it does. At the first call nobody may know of the job
    /// yet, nor of others whose owners left their publication to this one, where it was submitted
    /// [unannounced](Reservation::submit_unannounced). Completions of others do not wait for a call to return.
    pub fn wait_helping(mut self, can_help: impl Fn(u64) -> bool, help: impl Fn(u64)) -> Outcome<P> {
        loop {
            help(self.id);
            self.ring.wait_answer(self.entry, None, &|| can_help(self.id));
            if let Some(outcome) = self.collect(None) {
                return outcome;
            }
        }
    }

    /// [`Ticket::wait`] until a deadline; hands the ticket back if that passes first.
    pub fn wait_until(mut self, deadline: Instant) -> Result<Outcome<P>, Self> {
        self.ring.wait_answer(self.entry, Some(deadline), &|| false);
        self.collect(None).ok_or(self)
    }

    /// The answer, if it has been reaped.
    pub fn try_collect(mut self) -> Result<Outcome<P>, Self> {
        self.collect(None).ok_or(self)
    }

    fn collect(&mut self, waker: Option<&std::task::Waker>) -> Option<Outcome<P>> {
        let (completion, lease) = self.ring.table.collect(self.entry, waker)?;
        self.collected = true;
        Some(Outcome { completion, ring: self.ring.clone(), lease })
    }
}

impl<P: Protocol> Future for Ticket<P> {
    type Output = Outcome<P>;

    /// # Panics
    /// If it is polled again after it was ready, as futures may.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<P>> {
        assert!(!self.collected, "a ticket was polled after its answer");
        match self.collect(Some(context.waker())) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl<P: Protocol> Drop for Ticket<P> {
    fn drop(&mut self) {
        if !self.collected {
            self.ring.table.abandon(&self.ring.arena, self.entry);
        }
    }
}

impl<P: Protocol> Outcome<P> {
    /// How it went: `completion.status`.
    pub fn status(&self) -> Status {
        self.completion.status
    }

    /// The part of the result region that the answer uses; empty if the answer is in the completion itself, or if there
    /// is none.
    pub fn result(&self) -> &[u8] {
        match (&self.lease, &self.completion.body) {
            (Some(lease), Body::Arena(used)) => {
                self.ring.arena.note_read(&lease.payload);
                // SAFETY: the table has checked that `used` lies within the lease's result region, so within the arena,
                // whose bytes are initialised. The consumer has finished: its writes happened before the completion
                // that was acquired to get here, and an in-process consumer gave up its borrow before it could
                // complete. The lease is ours until `drop`, so nobody else writes.
                unsafe { self.ring.arena.bytes(used).as_ref() }
            }
            _ => &[],
        }
    }
}

impl<P: Protocol> Drop for Outcome<P> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.ring.arena.release(lease);
        }
    }
}
