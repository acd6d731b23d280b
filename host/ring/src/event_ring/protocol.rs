//! How a slot of an event ring is written and read: a sequence lock in each slot, without a data race in the memory
//! model.
//!
//! Public only so that the loom models can run this very code, on small slots and with seeded bugs; nothing here is for
//! callers.
//!
//! # States of a slot
//!
//! Position `p` belongs to slot `p mod capacity`. The slot's sequence word holds
//! - `p + 1`: the event of position `p` is in the slot, whole;
//! - `p`: the slot is busy, and will hold the event of position `p`.
//!
//! For capacities from 2 on the two cannot be confused: only a busy mark is congruent to the slot's index. A sequence
//! only ever grows (as a wrapping difference; a ring would have to stay 2^63 events behind itself to confuse two laps).
//! A ring is born with every slot holding the sequence of the lap before its first position, so that the rules below
//! need no case for "never written".
//!
//! # Writing, with many producers
//!
//! A producer takes position `p` with a `fetch_add` on the cursor, moves the sequence by compare-and-swap to the busy
//! mark `p`, stores the words, and moves the sequence to `p + 1`. Nobody waits for anybody. When producers lap each
//! other on one slot:
//! - *A slow producer finds a newer lap* (sequence above `p`): its event is dropped. Position `p` is out of the ring
//!   anyway, and a reader that wanted it sees the newer lap and counts it as lost.
//! - *A fast producer finds the slot busy with an older position `q`*: the holder is stalled in the middle of its
//!   words, and two writers would tear. The fast one moves the busy mark from `q` to `p` and drops its own event. When
//!   the holder is done, its release finds `p` and publishes *its* event there, as `p + 1`. So the words have one
//!   writer, every position that was claimed comes to an end without anybody's waiting, and each producer's events stay
//!   in their order. Position `q` is lost.
//!
//! Either way exactly one event disappears and exactly one position is counted as lost by each reader that was not past
//! it; where the holder was in the middle of a burst, it is two of each (see below).
//!
//! # Writing a burst
//!
//! Its positions are taken at once, and its first event is published last. A reader that waits for it waits on one
//! slot, which stays in the reader's cache until then, and finds the burst behind it: all of it where there is a sole
//! producer, and else all that was not dropped.
//!
//! Where a busy mark of many producers was moved, the holder's event is published behind those that follow it in its
//! burst. So it is dropped as well, unless it is the last: its words become [`NO_EVENT`], which readers count as lost.
//!
//! # Why no reader ever sees a torn event
//!
//! A reader takes an event only if it read `p + 1` before and after copying the words. The first read is followed by an
//! acquire fence and `p + 1` was stored with release, so the words are those of `p` or later ones. If one were later,
//! its store came after the release fence that follows a newer busy mark, and its load comes before the acquire fence
//! that precedes the second read of the sequence: the fences synchronise, the second read must see that busy mark or
//! something newer, and sequences do not repeat. The holder's words are ordered after the previous holder's because its
//! claim acquires what that one released.

use crate::{
    memory::InMemory,
    sync::{AtomicU64, Ordering, fence},
};

/// What the protocol does at each point where a seeded bug could sit. [`Sound`] is what rings run; a model's twin
/// changes one constant, and the model must fail.
pub trait Protocol {
    /// A writer marks the slot busy before it touches the words.
    const MARKS_BUSY: bool = true;
    /// A release fence stands between the busy mark and the words.
    const FENCES_CLAIM: bool = true;
    /// The ordering of the sequence's last store.
    const PUBLISH: Ordering = Ordering::Release;
    /// A producer gives way to a newer lap that it finds in its slot.
    const YIELDS_TO_NEWER: bool = true;
    /// A producer leaves a slot to the stalled producer that holds it.
    const RESPECTS_HOLDER: bool = true;
    /// A holder publishes at the position that its busy mark was moved to, instead of at its own.
    const PUBLISHES_WHERE_MARKED: bool = true;
    /// A holder whose busy mark was moved drops its event if others of its burst follow.
    const KEEPS_BURST_IN_ORDER: bool = true;
    /// An acquire fence follows the reader's first look at the sequence.
    const FENCES_FIRST_LOOK: bool = true;
    /// An acquire fence precedes the reader's second look.
    const FENCES_SECOND_LOOK: bool = true;
    /// The reader looks at the sequence a second time.
    const LOOKS_TWICE: bool = true;
    /// The first event of a burst is published last.
    const HOLDS_BURST_BACK: bool = true;
    /// A sequentially consistent fence stands between publishing and looking for waiting consumers.
    const FENCES_WAKE: bool = true;
    /// A consumer looks at the ring again after it has said that it waits.
    const LOOKS_BEFORE_SLEEP: bool = true;
}

/// Each word of a slot whose event was dropped after another producer had moved its busy mark.
pub const NO_EVENT: u64 = u64::MAX;

/// The protocol as it is meant.
#[derive(Debug, Clone, Copy)]
pub struct Sound;

impl Protocol for Sound {}

/// One slot as its readers and writers share it: the sequence and `W` words, 15 in a real slot.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct SharedSlot<const W: usize> {
    sequence: AtomicU64,
    words: [AtomicU64; W],
}

/// The slots of a ring and its cursor, the next position to be claimed.
#[derive(Debug, Clone, Copy)]
pub struct Track<'a, const W: usize> {
    /// The next position that a producer will claim.
    pub cursor: &'a AtomicU64,
    /// A power of two of slots, at least 2.
    pub slots: &'a [SharedSlot<W>],
}

/// What a reader found at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glance {
    /// The event at that position.
    Whole,
    /// Not published yet.
    Pending,
    /// Overwritten by a newer lap.
    Lapped,
}

/// Writes `count` events of consecutive positions by their place among them: the first one last, so that who sees it
/// finds the others, and readers leave the slots alone while they are written.
#[inline]
pub fn write_burst<P: Protocol>(count: usize, mut write: impl FnMut(usize)) {
    let held_back = usize::from(P::HOLDS_BURST_BACK && count > 0);
    (held_back..count).for_each(&mut write);
    (0..held_back).for_each(write);
}

/// The sequence of slot `index` in a ring whose first position is `start`: that of the lap before.
pub fn first_sequence(start: u64, capacity: usize, index: usize) -> u64 {
    let ahead = (index as u64).wrapping_sub(start) & (capacity as u64 - 1);
    start.wrapping_add(ahead).wrapping_sub(capacity as u64).wrapping_add(1)
}

// SAFETY: a slot is atomic words alone, so every bit pattern is one, there is no drop, and all mutation is atomic.
unsafe impl<const W: usize> InMemory for SharedSlot<W> {
    fn zero() -> Self {
        Self::new(0)
    }
}

/// Whether `a` comes after `b` on the circle of positions.
#[inline]
fn is_after(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) > 0
}

impl<const W: usize> SharedSlot<W> {
    /// A slot in which `sequence` was the last.
    pub fn new(sequence: u64) -> Self {
        Self { sequence: AtomicU64::new(sequence), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Makes `sequence` the last, before the slot is shared.
    pub fn reset(&self, sequence: u64) {
        self.sequence.store(sequence, Ordering::Relaxed);
    }

    #[inline]
    fn fill(&self, words: &[u64; W]) {
        for (shared, word) in self.words.iter().zip(words) {
            shared.store(*word, Ordering::Relaxed);
        }
    }

    /// Marks the slot busy for `position`. False: it is another's, and the event of `position` is dropped.
    #[inline]
    fn claim<P: Protocol>(&self, position: u64, mask: u64) -> bool {
        let mut seen = self.sequence.load(Ordering::Relaxed);
        loop {
            if P::YIELDS_TO_NEWER && is_after(seen, position) {
                return false;
            }
            // Acquire: our words come after those of the holder that released the slot. Release: who sees the mark also
            // sees the cursor beyond `position`, so a lapped reader always has somewhere to go.
            match self.sequence.compare_exchange_weak(seen, position, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return !(P::RESPECTS_HOLDER && (seen ^ position) & mask == 0),
                Err(newer) => seen = newer,
            }
        }
    }

    /// Publishes the words at `position`, or wherever later producers have moved the busy mark to meanwhile; there no
    /// event if others `follow` it. False: it was dropped.
    #[inline]
    fn release<P: Protocol>(&self, position: u64, follow: bool) -> bool {
        if !P::PUBLISHES_WHERE_MARKED {
            self.sequence.store(position.wrapping_add(1), P::PUBLISH);
            return true;
        }
        let drops = P::KEEPS_BURST_IN_ORDER && follow;
        let mut marked = position;
        // Acquire: the position that we take next comes after that of whoever moved the mark.
        while let Err(moved) =
            self.sequence.compare_exchange(marked, marked.wrapping_add(1), P::PUBLISH, Ordering::Acquire)
        {
            marked = moved;
            if drops {
                self.fill(&[NO_EVENT; W]);
            }
        }
        marked == position || !drops
    }
}

impl<'a, const W: usize> Track<'a, W> {
    #[inline]
    fn mask(&self) -> u64 {
        self.slots.len() as u64 - 1
    }

    #[inline]
    fn slot(&self, position: u64) -> &'a SharedSlot<W> {
        &self.slots[(position & self.mask()) as usize]
    }

    /// Takes the next `count` positions for one of many producers and says the first.
    #[inline]
    pub fn take(&self, count: u64) -> u64 {
        self.cursor.fetch_add(count, Ordering::Relaxed)
    }

    /// Writes the event of a position that was taken; whether others of its burst `follow`. False: the event was
    /// dropped because producers lapped each other.
    #[inline]
    pub fn write<P: Protocol>(&self, position: u64, words: &[u64; W], follow: bool) -> bool {
        let slot = self.slot(position);
        if P::MARKS_BUSY && !slot.claim::<P>(position, self.mask()) {
            return false;
        }
        if P::FENCES_CLAIM {
            fence(Ordering::Release);
        }
        slot.fill(words);
        if P::MARKS_BUSY {
            return slot.release::<P>(position, follow);
        }
        slot.sequence.store(position.wrapping_add(1), P::PUBLISH);
        true
    }

    /// Takes the positions up to `end`, for the only producer of the ring.
    #[inline]
    pub fn take_alone(&self, end: u64) {
        self.cursor.store(end, Ordering::Relaxed);
    }

    /// Writes the event of a position that was taken, for the only producer of the ring: no read-modify-write is
    /// needed.
    #[inline]
    pub fn write_alone<P: Protocol>(&self, position: u64, words: &[u64; W]) {
        let slot = self.slot(position);
        if P::MARKS_BUSY {
            // Release, as in `claim`: who sees the mark sees the cursor.
            slot.sequence.store(position, Ordering::Release);
        }
        if P::FENCES_CLAIM {
            fence(Ordering::Release);
        }
        slot.fill(words);
        slot.sequence.store(position.wrapping_add(1), P::PUBLISH);
    }

    /// Looks for the event of `position`. Only loads, all of them relaxed: the memory may be mapped for reading alone.
    /// What `words` holds means nothing unless the event was whole.
    #[inline(always)]
    pub fn read<P: Protocol>(&self, position: u64, words: &mut [u64; W]) -> Glance {
        let slot = self.slot(position);
        let whole = position.wrapping_add(1);
        let first = slot.sequence.load(Ordering::Relaxed);
        if first != whole {
            return if is_after(first, whole) { Glance::Lapped } else { Glance::Pending };
        }
        if P::FENCES_FIRST_LOOK {
            fence(Ordering::Acquire);
        }
        for (word, shared) in words.iter_mut().zip(&slot.words) {
            *word = shared.load(Ordering::Relaxed);
        }
        if P::FENCES_SECOND_LOOK {
            fence(Ordering::Acquire);
        }
        if P::LOOKS_TWICE && slot.sequence.load(Ordering::Relaxed) != whole {
            return Glance::Lapped;
        }
        Glance::Whole
    }

    /// Where a reader goes on that was lapped at `position`: the oldest position that no claimed one overwrites, never
    /// before `position + 1`.
    pub fn resume(&self, position: u64) -> u64 {
        // Pairs with the release of the busy mark that the reader saw.
        fence(Ordering::Acquire);
        let oldest = self.cursor.load(Ordering::Relaxed).wrapping_sub(self.slots.len() as u64);
        if is_after(oldest, position) { oldest } else { position.wrapping_add(1) }
    }
}
