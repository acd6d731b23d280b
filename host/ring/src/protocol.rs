//! The steps of the ring protocol whose order matters, as a type, so that the model checker can be shown the same code
//! with one step wrong.
//!
//! [`Sound`] is what everything uses by default. Each constant of [`Protocol`] is one step; a test that overrides it
//! runs the very code of the ring with that one bug, and must see loom reject it.

use crate::sync::Ordering;

/// The orderings and step orders of publishing, consuming and waking.
pub trait Protocol: std::fmt::Debug + Send + Sync + 'static {
    /// The claim of a position. Acquire and release: it hands on which slots earlier claimers know to be free.
    const CLAIM: Ordering = Ordering::AcqRel;
    /// The store of a tail. Release: it makes the slots before it, and the arena bytes they speak of, visible to who
    /// acquires the tail.
    const TAIL_STORE: Ordering = Ordering::Release;
    /// Whether a consumer fences after it saw the tail move; pairs with [`Protocol::TAIL_STORE`].
    const TAIL_FENCE: bool = true;
    /// Whether a slot is written before it counts as ready for publishing.
    const SLOT_BEFORE_TAIL: bool = true;
    /// The store of a head. Release: it orders the consumer's reads of a slot before the next lap's write.
    const HEAD_STORE: Ordering = Ordering::Release;
    /// Whether a consumer copies the slots before it reports the head that gives them back.
    const COPY_BEFORE_HEAD: bool = true;
    /// Whether a publisher that finds another one at work leaves word, so that the other looks again before it goes.
    const LEAVE_WORD: bool = true;
    /// Whether a pusher that finds a queue full makes sure that the head it goes by is still the head.
    const LOOK_AGAIN: bool = true;
    /// Whether a place is used again only once the tail has passed it too, not the head alone: a device may report
    /// slots taken that are not published yet.
    const WAIT_FOR_TAIL: bool = true;
    /// Whether a waiter announces that it will park before it checks for the last time.
    const ANNOUNCE_BEFORE_CHECK: bool = true;
    /// Whether the notifier fences between its publication and its look for parked waiters; pairs with the waiter's
    /// fence.
    const NOTIFY_FENCE: bool = true;
    /// Whether a thread that reaped the answer of another one's ticket wakes the waiters.
    const WAKE_AFTER_REAP: bool = true;

    /// What a twin does between two steps in the wrong order, so that threads of a test see the gap. The right order
    /// never calls it.
    fn in_between() {}
}

/// The protocol as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Sound;

impl Protocol for Sound {}
