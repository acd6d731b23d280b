//! What a host does for a consumer that works on the ring by itself: a device that reads submission slots and writes
//! completion slots in the ring's memory, and can neither wake a thread nor be woken by one.
//!
//! The device's part, all of it by offsets of [`RingLayout`](crate::RingLayout):
//! - It loads the submissions' tail, fences (acquire, system scope) when that has moved, copies the slots up to it and
//!   reports the head once per burst, after the last copy. The next slot it may take before the tail tells of it, where
//!   both sequences and the [`slot_check`](crate::slot_check) are right; it fences then, before it reads what the slot
//!   names and before it reports the head. It trusts nothing that
//!   [`Descriptor::from_slot`](crate::Descriptor::from_slot) and [`Arena::resolve`](crate::Arena::resolve) would
//!   refuse, and answers such a slot with [`Status::BadDescriptor`](crate::Status), its ticket being the slot's
//!   position + 1.
//! - It answers every slot that it takes, once, in any order: result bytes, then the completion slot, then the
//!   completions' tail with release (system scope), once per burst. There is always room, since each job holds a
//!   completion slot. The head that covers a slot is stored before the tail of its completion: a successor goes on at
//!   the head, and must not take a job that is answered already. So an answer to a job above the head is not believed.
//! - After its completion a job's run belongs to someone else: no read, no write.
//! - A ring has one kind of consumer. Where a device writes completions, nobody calls [`JobRing::try_poll`],
//!   [`JobRing::complete`] and the like, which keep cursors of their own.
//!
//! A device that stops cleanly leaves nothing behind, and the next one goes on at the submissions' head and the
//! completions' tail. One that died is followed by [`JobRing::fail_outstanding`], then, when it surely touches the
//! memory no more, [`JobRing::release_quarantine`]. Jobs that it had not taken are then of dead generations: the next
//! device answers them as bad descriptors, which frees their credits. One that was only slow answers too late for the
//! owners, who were told of a failure, but each of its answers still gives a run back.
//!
//! A head or a tail that cannot be, from a device gone astray, admits nobody and answers nobody; the tickets wait for
//! [`JobRing::fail_outstanding`]. Another device cannot go on from such a line before it was put right, which the ring
//! does not do by itself.

use std::time::Instant;

use crate::{job_ring::JobRing, layout::DeviceLines, protocol::Protocol, signal::WaitStrategy, sync::Ordering};

impl<P: Protocol> JobRing<P> {
    /// The heartbeats, the control words and the report.
    pub fn lines(&self) -> &DeviceLines {
        &self.lines
    }

    /// The position up to which jobs are published: the submissions' tail.
    pub fn tail(&self) -> u64 {
        self.submissions.tail()
    }

    /// The position up to which the consumer has reported jobs taken: the submissions' head.
    pub fn head(&self) -> u64 {
        self.submissions.head()
    }

    /// Jobs that are published and not reported taken. More than [`JobRing::capacity`] only if the head is not one that
    /// a consumer in its right mind reports.
    pub fn backlog(&self) -> u64 {
        // In this order: none is behind the one before, but for the tail where a device has taken slots before it told
        // of them. Those were claimed.
        let (head, tail, claimed) = (self.head(), self.tail(), self.submissions.claimed());
        let taken_early = claimed.wrapping_sub(head) < claimed.wrapping_sub(tail);
        if taken_early { 0 } else { tail.wrapping_sub(head) }
    }

    /// Whether a job is published that no consumer has reported taken. What a thread that launches a device per batch
    /// waits for, on [`JobRing::jobs_signal`]; unlike [`JobRing::has_jobs`] it holds for consumers of any kind.
    pub fn has_untaken(&self) -> bool {
        self.backlog() != 0
    }

    /// For a device's watcher: wakes whoever is to reap, if completions have come since the last call; tells whether
    /// there are any to reap. The watcher may also reap by itself, and wakes the tickets' owners with that.
    pub fn announce(&self) -> bool {
        let tail = self.completions.tail();
        let news = self.completions.has_news();
        if news && self.announced.swap(tail, Ordering::Relaxed) != tail {
            self.completed();
        }
        news
    }

    /// For a device's watcher with nothing to watch: waits until a ticket is outstanding or the ring is closed (true),
    /// or the deadline has passed. A submission wakes one thread that is parked here, beside one that is on
    /// [`JobRing::jobs_signal`].
    pub fn await_outstanding(&self, wait: WaitStrategy, deadline: Option<Instant>) -> bool {
        self.watchers.wait_until(wait, deadline, || self.outstanding() > 0 || self.is_closed())
    }

    /// Sends completions as a device does: nobody is woken. A device of a loom model cannot write the ring's bytes,
    /// which it does not share.
    #[cfg(loom)]
    pub fn complete_as_device(&self, completions: &[crate::Completion]) {
        assert_eq!(self.completions.push_burst(completions), completions.len(), "each job holds a completion slot");
    }

    /// The newest ticket that may be in the queue. For [`JobRing::is_settled`].
    pub fn submitted_through(&self) -> u64 {
        self.submissions.claimed()
    }

    /// Whether no consumer may still touch what the jobs up to ticket `through` name: each has been answered by its
    /// completion, or its run was taken from a dead consumer ([`JobRing::release_quarantine`]). A ticket answered by
    /// [`JobRing::fail_outstanding`] alone is not settled.
    ///
    /// To reuse memory of a device that jobs name: see to it that no job submitted from now on names it, take
    /// [`JobRing::submitted_through`], and wait until that is settled.
    pub fn is_settled(&self, through: u64) -> bool {
        // A claimed position gets its table entry before it is published, so below the tail every ticket has had one.
        let published = self.submissions.tail().wrapping_sub(through) < 1 << 63;
        published && self.table.is_settled(through)
    }
}
