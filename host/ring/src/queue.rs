//! One bounded ring of slots: the submission queue and the completion queue are both one of these.
//!
//! Promises
//! - Lossless: a full queue hands the message back as [`RingFull`]; a slot is never overwritten before its consumer
//!   reported it done.
//! - Pushing never locks, allocates or waits for another pusher. Positions are claimed on a cursor that only the host
//!   sees; the shared tail is stored by one publisher at a time, in order, once for all that became ready together.
//!   Head and tail are only ever loaded and stored, never read-modify-written, so the other side may be a device behind
//!   PCIe.
//! - A pusher that is descheduled between its claim and its publication delays the visibility of later slots, never
//!   their pushers; it (or whoever is publishing when it comes back) publishes them all.
//! - Polling takes at most [`BURST`] slots at a time, copies them out and reports the head once, before anyone looks at
//!   the copies. One thread polls at a time; another one that tries gets nothing, at once.
//!
//! Positions are monotonic u64 that may wrap; all arithmetic on them wraps.

use std::{marker::PhantomData, mem::MaybeUninit};

use bytemuck::Zeroable;

use crate::{
    completion::Completion,
    descriptor::Descriptor,
    fault::SlotFault,
    memory::{Line, Memory, MemoryError, View},
    protocol::{Protocol, Sound},
    slot::{SLOT_BYTES, Slot},
    sync::{AtomicBool, AtomicU64, Ordering, SharedCell, fence},
};

/// Jobs, from the host to a backend.
pub type SubmissionQueue<P = Sound> = Queue<Descriptor, P>;

/// Answers, from a backend to the host.
pub type CompletionQueue<P = Sound> = Queue<Completion, P>;

/// Most slots that one poll copies out.
pub const BURST: usize = 16;

/// The queue had no free slot; here is the message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full")]
pub struct RingFull<T>(pub T);

/// What a slot can carry.
pub trait Message: Copy {
    /// The message as a slot with both copies of `sequence`.
    fn to_slot(&self, sequence: u64) -> Slot;
    /// The message in a slot, if the slot is whole.
    fn from_slot(slot: &Slot) -> Result<Self, SlotFault>;
}

/// A bounded queue of slots in shared memory.
#[derive(Debug)]
pub struct Queue<M, P: Protocol = Sound> {
    lines: Lines,
    slots: View<SharedCell<Slot>>,
    /// Slots reserved so far. `published <= claimed <= admitted <= published + capacity`, and the same of the head in
    /// place of `published`, all modulo 2^64. The head is ahead of `published` where a device has taken slots that are
    /// written and not published yet.
    admitted: Padded<AtomicU64>,
    /// Positions given to pushers so far.
    claimed: Padded<AtomicU64>,
    /// Pushers that have a ready slot and left word for the publisher; not 0 while one is at work.
    pending: Padded<AtomicU64>,
    /// The publisher's own copy of the tail.
    published: AtomicU64,
    /// For each slot, the sequence last made ready.
    ready: Box<[AtomicU64]>,
    /// For each slot, the sequence last written there, for [`Queue::take_as_device`].
    #[cfg(loom)]
    written: Box<[AtomicU64]>,
    /// Whether a thread is polling.
    polling: Padded<AtomicBool>,
    /// The poller's own copy of the head.
    consumed: AtomicU64,
    marker: PhantomData<fn(M, P)>,
}

/// Where a queue lies in a memory: byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// The line of the tail.
    pub tail: usize,
    /// The line of the head.
    pub head: usize,
    /// The first slot.
    pub slots: usize,
    /// Slots; a power of two.
    pub capacity: usize,
}

/// Slots copied out by one poll, with their positions.
pub struct Burst {
    first: u64,
    next: usize,
    len: usize,
    slots: [MaybeUninit<Slot>; BURST],
}

/// Keeps what different threads write off each other's cache lines.
#[repr(align(128))]
#[derive(Debug)]
struct Padded<T>(T);

#[derive(Debug)]
struct Lines {
    tail: View<Line>,
    head: View<Line>,
}

impl<M: Message, P: Protocol> Queue<M, P> {
    /// A queue of `capacity` slots (a power of two) in memory of its own, its first position being `start`.
    pub fn new(capacity: usize, start: u64) -> Result<Self, MemoryError> {
        let layout = QueueLayout { tail: 0, head: SLOT_BYTES, slots: 2 * SLOT_BYTES, capacity };
        Self::lay(&Memory::heap(layout.slots + capacity * SLOT_BYTES)?, layout, start)
    }

    /// A fresh queue laid over `memory`; `start` is its first position. The slots are zeroed: what an earlier queue
    /// left in them, a device could take for a job before it is told of any.
    pub fn lay(memory: &Memory, layout: QueueLayout, start: u64) -> Result<Self, MemoryError> {
        assert!(layout.capacity.is_power_of_two(), "a ring's capacity is a power of two");
        let lines = Lines { tail: memory.view(layout.tail, 1)?, head: memory.view(layout.head, 1)? };
        let slots: View<SharedCell<Slot>> = memory.view(layout.slots, layout.capacity)?;
        for cell in slots.iter() {
            // SAFETY: nobody pushes to or polls a queue that is not made yet, and a device is told of the memory later.
            unsafe { cell.write(Slot::zeroed()) };
        }
        lines.head[0].word.store(start, Ordering::Relaxed);
        lines.tail[0].word.store(start, Ordering::Release);
        Ok(Self {
            lines,
            slots,
            admitted: Padded(AtomicU64::new(start)),
            claimed: Padded(AtomicU64::new(start)),
            pending: Padded(AtomicU64::new(0)),
            published: AtomicU64::new(start),
            // `start` is the sequence of the position before the first, which is never pushed: no slot looks ready.
            ready: (0..layout.capacity).map(|_| AtomicU64::new(start)).collect(),
            #[cfg(loom)]
            written: (0..layout.capacity).map(|_| AtomicU64::new(start)).collect(),
            polling: Padded(AtomicBool::new(false)),
            consumed: AtomicU64::new(start),
            marker: PhantomData,
        })
    }

    /// Slots.
    pub fn capacity(&self) -> usize {
        self.ready.len()
    }

    /// Pushes a message and tells its position, or hands the message back.
    pub fn try_push(&self, message: M) -> Result<u64, RingFull<M>> {
        if !self.try_reserve() {
            return Err(RingFull(message));
        }
        Ok(self.push_reserved(|_| message))
    }

    /// Takes the right to one push; false if none is free. The right is used up by [`Queue::push_reserved`] or given
    /// back by [`Queue::release`].
    pub(crate) fn try_reserve(&self) -> bool {
        // Head and tail first: `admitted` is never behind them, and read last it is at least what it was when they were
        // stored.
        let mut ends = self.ends();
        let mut admitted = self.admitted.0.load(Ordering::Acquire);
        loop {
            // What the consumer has not reported taken is in use, and so is what is not published: its pusher has yet
            // to mark it ready.
            let used = admitted.wrapping_sub(ends.0).max(admitted.wrapping_sub(ends.1));
            if used >= self.capacity() as u64 {
                // Full, if the ends are still there. A thread that was descheduled between the reads may hold a head of
                // laps ago; to a pusher of completions, who has a place by right, "full" would mean a lost answer.
                // `admitted` was acquired, so the second read knows the ends that its last writer knew.
                let now = self.ends();
                if now == ends || !P::LOOK_AGAIN {
                    return false;
                }
                ends = now;
                admitted = self.admitted.0.load(Ordering::Acquire);
                continue;
            }
            let next = admitted.wrapping_add(1);
            match self.admitted.0.compare_exchange_weak(admitted, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => admitted = now,
            }
        }
    }

    /// The head and the tail, as far as places wait for it.
    fn ends(&self) -> (u64, u64) {
        let head = self.head();
        (head, if P::WAIT_FOR_TAIL { self.tail() } else { head })
    }

    /// Gives back a right to push.
    pub(crate) fn release(&self) {
        self.admitted.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Pushes on a reserved right. `make` is told the position before anyone can see the slot.
    pub(crate) fn push_reserved(&self, make: impl FnOnce(u64) -> M) -> u64 {
        // Reserving acquired the head and the tail that freed *a* slot, but the position may be one that another
        // pusher's reservation freed, later. That pusher claimed before us, so its claim, which this one acquires,
        // passes on the consumer's last read of our slot, and its last pusher's ready mark.
        let position = self.claimed.0.fetch_add(1, P::CLAIM);
        let message = make(position);
        if P::SLOT_BEFORE_TAIL {
            self.write(position, &message);
        }
        self.ready[self.index(position)].store(position.wrapping_add(1), Ordering::Release);
        self.publish();
        if !P::SLOT_BEFORE_TAIL {
            P::in_between();
            self.write(position, &message);
        }
        position
    }

    /// Pushes the messages of `burst` as far as there is room, with one store of the tail if no other pusher
    /// interferes; tells how many.
    pub(crate) fn push_burst(&self, burst: &[M]) -> usize {
        let count = burst.iter().take_while(|_| self.try_reserve()).count();
        if count == 0 {
            return 0;
        }
        // As in `push_reserved`.
        let first = self.claimed.0.fetch_add(count as u64, P::CLAIM);
        for (at, message) in burst[..count].iter().enumerate() {
            let position = first.wrapping_add(at as u64);
            self.write(position, message);
            self.ready[self.index(position)].store(position.wrapping_add(1), Ordering::Release);
        }
        self.publish();
        count
    }

    /// Whether there is nothing to poll. One relaxed load of the tail.
    pub fn is_empty(&self) -> bool {
        self.lines.tail[0].word.load(Ordering::Relaxed) == self.consumed.load(Ordering::Relaxed)
    }

    /// Whether there is something to poll, and the tail is one that a pusher can have stored.
    pub(crate) fn has_news(&self) -> bool {
        // In this order: the tail is never behind what was consumed earlier. A stale `consumed` only makes the distance
        // longer, and whoever consumes meanwhile looks again.
        let consumed = self.consumed.load(Ordering::Relaxed);
        let waiting = self.lines.tail[0].word.load(Ordering::Relaxed).wrapping_sub(consumed);
        (1..=self.capacity() as u64).contains(&waiting)
    }

    /// The position up to which the consumer has reported slots done.
    pub fn head(&self) -> u64 {
        self.lines.head[0].word.load(Ordering::Acquire)
    }

    /// The position up to which slots are published.
    pub fn tail(&self) -> u64 {
        self.lines.tail[0].word.load(Ordering::Acquire)
    }

    /// The position after the last one that a pusher has claimed: what is below may be published at any moment, if it
    /// is not yet.
    pub(crate) fn claimed(&self) -> u64 {
        self.claimed.0.load(Ordering::Acquire)
    }

    /// Reports the slots taken that are written from the head on, as a device may, published or not. A device of a loom
    /// model cannot read the queue's bytes, which it does not share.
    #[cfg(loom)]
    pub fn take_as_device(&self) {
        let mut head = self.head();
        while self.written[self.index(head)].load(Ordering::Acquire) == head.wrapping_add(1) {
            head = head.wrapping_add(1);
        }
        self.lines.head[0].word.store(head, Ordering::Release);
    }

    /// Copies out at most `max` slots (and at most [`BURST`]). Empty if there is nothing, or if another thread is
    /// polling. `Err` if the tail is not one that any pusher can have stored: the memory is corrupt.
    pub fn poll(&self, max: usize) -> Result<Burst, SlotFault> {
        let mut burst = Burst { first: 0, next: 0, len: 0, slots: [MaybeUninit::uninit(); BURST] };
        if self.is_empty()
            || self.polling.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return Ok(burst);
        }
        let filled = self.fill(&mut burst, max);
        self.polling.0.store(false, Ordering::Release);
        filled.map(|()| burst)
    }

    /// Advances the tail over all slots that are ready, unless another pusher is at it and will.
    fn publish(&self) {
        if self.pending.0.fetch_add(1, Ordering::AcqRel) != 0 && P::LEAVE_WORD {
            return;
        }
        let mut answered = 1;
        loop {
            self.advance();
            // A pusher that came meanwhile left word here; its ready mark may or may not have been seen. Only from 0
            // can the next one start.
            let left = self.pending.0.fetch_sub(answered, Ordering::AcqRel).wrapping_sub(answered);
            if left == 0 || !P::LEAVE_WORD {
                return;
            }
            answered = left;
        }
    }

    fn advance(&self) {
        let from = self.published.load(Ordering::Relaxed);
        let mut tail = from;
        while self.ready[self.index(tail)].load(Ordering::Acquire) == tail.wrapping_add(1) {
            tail = tail.wrapping_add(1);
        }
        if tail != from {
            self.published.store(tail, Ordering::Relaxed);
            self.lines.tail[0].word.store(tail, P::TAIL_STORE);
        }
    }

    fn fill(&self, burst: &mut Burst, max: usize) -> Result<(), SlotFault> {
        let head = self.consumed.load(Ordering::Relaxed);
        let tail = self.lines.tail[0].word.load(Ordering::Relaxed);
        let waiting = tail.wrapping_sub(head);
        if waiting > self.capacity() as u64 {
            return Err(SlotFault::Sequence { expected: head, found: tail });
        }
        if P::TAIL_FENCE {
            fence(Ordering::Acquire);
        }
        burst.first = head;
        let len = BURST.min(max).min(waiting as usize);
        let next = head.wrapping_add(len as u64);
        if !P::COPY_BEFORE_HEAD {
            self.lines.head[0].word.store(next, P::HEAD_STORE);
        }
        for at in 0..len {
            let cell = &self.slots[self.index(head.wrapping_add(at as u64))];
            // SAFETY: the position is below the tail, whose store the fence above acquired, so the pusher's write
            // happened before. No pusher writes the slot again before the head passes it, which only this thread,
            // holding `polling`, can bring about, below.
            burst.slots[at].write(unsafe { cell.read() });
        }
        burst.len = len;
        self.consumed.store(next, Ordering::Relaxed);
        self.lines.head[0].word.store(next, P::HEAD_STORE);
        Ok(())
    }

    /// Only for a position that the caller has claimed and not yet made ready.
    fn write(&self, position: u64, message: &M) {
        // The standard library's atomics also under loom: loom watches the cell as a whole.
        use std::sync::atomic::{AtomicU64, Ordering};
        let slot = message.to_slot(position.wrapping_add(1));
        let words: [u64; SLOT_BYTES / 8] = bytemuck::cast(slot);
        self.slots[self.index(position)].with_mut(|cell| {
            // SAFETY: `cell` is valid and aligned for a `Slot`. The claim makes this thread the only pusher of the
            // position, and the position is less than a capacity ahead of a head and a tail that this thread or an
            // earlier claimer acquired, so the consumer's reads of the slot's last lap, and its pusher's writes, are
            // over and happened before. A consumer does not read again before the tail passes the position, which waits
            // for the ready mark that follows this call, unless it is a device: that may look at the slot at any time,
            // by atomic loads of words, as these stores are.
            unsafe {
                let to = cell.cast::<u64>();
                for (at, word) in words.iter().enumerate().skip(1) {
                    AtomicU64::from_ptr(to.add(at)).store(*word, Ordering::Relaxed);
                }
                // The first sequence goes last: who finds it, and the check that a job has, finds the job and what it
                // names, before the tail tells of it.
                AtomicU64::from_ptr(to).store(slot.sequence, Ordering::Release);
            }
        });
        #[cfg(loom)]
        self.written[self.index(position)].store(slot.sequence, Ordering::Release);
    }

    fn index(&self, position: u64) -> usize {
        position as usize & (self.ready.len() - 1)
    }
}

impl Burst {
    /// How many slots are left.
    pub fn len(&self) -> usize {
        self.len - self.next
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Iterator for Burst {
    /// A position and the slot that was found there.
    type Item = (u64, Slot);

    fn next(&mut self) -> Option<(u64, Slot)> {
        if self.is_empty() {
            return None;
        }
        let at = self.next;
        self.next += 1;
        // SAFETY: `Queue::fill` wrote the first `len` slots, and `at < len`. A `Slot` is `Copy`, so reading it twice
        // would be harmless too.
        Some((self.first.wrapping_add(at as u64), unsafe { self.slots[at].assume_init() }))
    }
}

impl std::fmt::Debug for Burst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Burst").field("first", &self.first).field("next", &self.next).field("len", &self.len).finish()
    }
}

/// The message that `slot`, found at `position`, carries.
pub(crate) fn decode<M: Message>(position: u64, slot: &Slot) -> Result<M, SlotFault> {
    let message = M::from_slot(slot)?;
    let expected = position.wrapping_add(1);
    if slot.sequence != expected {
        return Err(SlotFault::Sequence { expected, found: slot.sequence });
    }
    Ok(message)
}

impl Message for Descriptor {
    fn to_slot(&self, sequence: u64) -> Slot {
        self.to_slot(sequence)
    }

    fn from_slot(slot: &Slot) -> Result<Self, SlotFault> {
        Self::from_slot(slot)
    }
}

impl Message for Completion {
    fn to_slot(&self, sequence: u64) -> Slot {
        self.to_slot(sequence)
    }

    fn from_slot(slot: &Slot) -> Result<Self, SlotFault> {
        Self::from_slot(slot)
    }
}
