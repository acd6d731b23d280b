//! The consumer's side of a job ring, for workers of this process.
//!
//! Promises: a polled job is handed out once; [`Work`] gives safe access to its bytes for as long as it lives, and
//! completes it exactly once, on drop at the latest (as [`Status::BackendFailed`]), so that a worker that panics loses
//! no ticket. Completing never waits: the completion slot was reserved with the job. Limits: `Work` is for consumers in
//! this process; one on a device resolves the regions by [`Arena::resolve`]'s rules and is trusted to touch nothing
//! after its completion.

use std::{ptr::NonNull, sync::Arc};

use crate::{
    arena::Arena,
    completion::{Body, Completion, Status},
    descriptor::{Descriptor, Region},
    fault::SlotFault,
    job_ring::{JobRing, count, unix_ns},
    protocol::{Protocol, Sound},
    queue::{BURST, Burst, decode},
    signal::Signal,
};

/// A job as it came out of its slot.
#[derive(Clone, Copy, Debug)]
pub struct PolledJob {
    /// What its completion must name; told by the slot's position, so it holds for a damaged slot too.
    pub ticket: u64,
    /// The job, or why its slot cannot be trusted; answer the latter with [`Status::BadDescriptor`].
    pub descriptor: Result<Descriptor, SlotFault>,
}

/// A job that this process works on: its bytes, borrowed from the ring until it is completed.
#[derive(Debug)]
pub struct Work<P: Protocol = Sound> {
    ring: Arc<JobRing<P>>,
    entry: u32,
    ticket: u64,
    descriptor: Descriptor,
    payload: NonNull<[u8]>,
    result: NonNull<[u8]>,
    completed: bool,
}

// SAFETY: `payload` is only ever read and `result` only reached through `&mut self`; both are valid, and this value's
// alone to use, from `open` to `complete` on whatever thread that is. The other fields are `Send` and `Sync`.
unsafe impl<P: Protocol> Send for Work<P> {}
// SAFETY: as for `Send`; `&Work` gives shared reads of `payload` alone.
unsafe impl<P: Protocol> Sync for Work<P> {}

impl<P: Protocol> JobRing<P> {
    /// Hands out at most `max` jobs; tells how many. One thread polls at a time, another one gets 0 at once. The head
    /// is reported before the first job of a burst is handed out. If `take` panics, the jobs of the burst that it has
    /// not completed are answered as failed.
    pub fn try_poll(&self, max: usize, take: &mut dyn FnMut(PolledJob)) -> usize {
        let mut taken = 0;
        while taken < max {
            let Ok(burst) = self.submissions.poll(max - taken) else {
                count(&self.counters.faults);
                break;
            };
            if burst.is_empty() {
                break;
            }
            let mut rest = Undelivered { ring: self, burst, current: None };
            for (position, slot) in rest.burst.by_ref() {
                let ticket = position.wrapping_add(1);
                let descriptor = decode::<Descriptor>(position, &slot).inspect_err(|_| count(&self.counters.faults));
                rest.current = Some(ticket);
                take(PolledJob { ticket, descriptor });
                rest.current = None;
                taken += 1;
            }
        }
        taken
    }

    /// Whether there is something to poll. For consumers of this process, which poll here; [`JobRing::has_untaken`]
    /// holds for a device, too.
    pub fn has_jobs(&self) -> bool {
        !self.submissions.is_empty()
    }

    /// Whether no consumer has reported the slot of this ticket's job taken.
    pub fn is_untaken(&self, ticket: u64) -> bool {
        self.submissions.head().wrapping_sub(ticket) >= 1 << 63
    }

    /// What workers wait on, or a thread that launches a device; every announced submission wakes one waiter. All who
    /// wait here must react to [`JobRing::has_jobs`] (or [`JobRing::has_untaken`]).
    pub fn jobs_signal(&self) -> &Signal<P> {
        &self.jobs
    }

    /// The arena, to resolve descriptors.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Begins to work on a polled job: checks its regions against the arena and against what its ticket holds. An error
    /// is counted as a fault; answer it with [`JobRing::complete`] and [`Status::BadDescriptor`].
    pub fn open(self: &Arc<Self>, job: &PolledJob) -> Result<Work<P>, SlotFault> {
        self.try_open(job).inspect_err(|_| count(&self.counters.faults))
    }

    /// Completes a job that is not open, from any thread; false, and a fault, if its ticket is not waiting for that.
    pub fn complete(&self, ticket: u64, opcode: u16, status: Status, device_ns: u64, body: Body) -> bool {
        let completion = Completion { ticket, opcode, status, device_ns, timestamp_ns: unix_ns(), body };
        self.complete_burst(&[completion]) == 1
    }

    /// [`JobRing::complete`] for several jobs, with one store of the tail for each [`BURST`] of them; tells how many
    /// were right. The completions are taken as they stand, timestamp included.
    pub fn complete_burst(&self, completions: &[Completion]) -> usize {
        let mut accepted = 0;
        for chunk in completions.chunks(BURST) {
            let mut right = [Completion::default(); BURST];
            let mut len = 0;
            for completion in chunk {
                if self.table.close(completion.ticket, false) {
                    right[len] = *completion;
                    len += 1;
                } else {
                    count(&self.counters.faults);
                }
            }
            self.push_completions(&right[..len]);
            accepted += len;
        }
        accepted
    }

    fn try_open(self: &Arc<Self>, job: &PolledJob) -> Result<Work<P>, SlotFault> {
        let descriptor = job.descriptor?;
        let resolved = self.arena.resolve(&descriptor)?;
        // The run is live and of the right generation; that it is this ticket's, too, makes the borrow below exclusive
        // even if a device has scribbled over the slot.
        let own = |payload: &Region, result: &Region| *payload == descriptor.payload && *result == descriptor.result;
        let entry = self
            .table
            .open(job.ticket, |lease| own(&lease.payload, &lease.result))
            .ok_or(SlotFault::Ticket { ticket: job.ticket })?;
        self.arena.note_read(&descriptor.payload);
        Ok(Work {
            ring: self.clone(),
            entry,
            ticket: job.ticket,
            descriptor,
            payload: resolved.payload,
            result: resolved.result,
            completed: false,
        })
    }

    fn push_completions(&self, completions: &[Completion]) {
        if completions.is_empty() {
            return;
        }
        let pushed = self.completions.push_burst(completions);
        // Each ticket has its slot, so there is room, unless the head in shared memory was damaged. The tickets then
        // stay outstanding until `fail_outstanding`, which is what a ring with corrupt memory comes to.
        (pushed..completions.len()).for_each(|_| count(&self.counters.faults));
        self.completed();
    }
}

impl<P: Protocol> Work<P> {
    /// The ticket's id.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// What to do.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The job's input, aligned to 128 bytes.
    pub fn payload(&self) -> &[u8] {
        // SAFETY: `open` found the region within the run that this ticket leases, and made this the only `Work` of the
        // ticket. The host wrote the bytes before the submission that was acquired to get here and does not touch them
        // again before the completion, which `complete` sends when this borrow is over. The arena is kept alive by
        // `ring`; its bytes are initialised.
        unsafe { self.payload.as_ref() }
    }

    /// Where the answer goes, aligned to 128 bytes.
    pub fn result_mut(&mut self) -> &mut [u8] {
        self.ring.arena.note_write(&self.descriptor.payload);
        // SAFETY: as for `payload`; the two regions do not overlap (`Arena::resolve`), and `&mut self` makes the borrow
        // exclusive.
        unsafe { self.result.as_mut() }
    }

    /// False once nobody waits for the answer: the work may be cut short, completed as [`Status::Cancelled`].
    pub fn is_wanted(&self) -> bool {
        !self.ring.table.is_abandoned(self.entry)
    }

    /// The body for an answer that uses the first `len` bytes of the result region; `None` if it is shorter.
    pub fn result_body(&self, len: usize) -> Option<Body> {
        let Region { offset, len: limit } = self.descriptor.result;
        (len as u64 <= limit).then_some(Body::Arena(Region { offset, len: len as u64 }))
    }

    /// Completes the job.
    pub fn complete(mut self, status: Status, device_ns: u64, body: Body) {
        self.send(status, device_ns, body);
    }

    fn send(&mut self, status: Status, device_ns: u64, body: Body) {
        self.completed = true;
        let opcode = self.descriptor.opcode;
        if self.ring.table.close(self.ticket, true) {
            let completion =
                Completion { ticket: self.ticket, opcode, status, device_ns, timestamp_ns: unix_ns(), body };
            self.ring.push_completions(&[completion]);
        } else {
            count(&self.ring.counters.faults);
        }
    }
}

impl<P: Protocol> Drop for Work<P> {
    fn drop(&mut self) {
        if !self.completed {
            self.send(Status::BackendFailed, 0, Body::Empty);
        }
    }
}

/// The rest of a burst. Dropped in a panic, it answers what nobody has taken.
struct Undelivered<'a, P: Protocol> {
    ring: &'a JobRing<P>,
    burst: Burst,
    current: Option<u64>,
}

impl<P: Protocol> Drop for Undelivered<'_, P> {
    fn drop(&mut self) {
        let rest = self.burst.by_ref().map(|(position, _)| position.wrapping_add(1));
        for ticket in self.current.take().into_iter().chain(rest) {
            // The one in hand may have been opened, and so completed by its `Work`, before the panic.
            if self.ring.table.close(ticket, false) {
                let status = Status::BackendFailed;
                let completion = Completion { ticket, status, timestamp_ns: unix_ns(), ..Completion::default() };
                self.ring.push_completions(&[completion]);
            }
        }
    }
}
