//! How the health is written and read: a sequence lock over words, without a data race in the memory model.
//!
//! Public only so that the loom models can run this very code with seeded bugs; nothing here is for callers.
//!
//! The sequence is odd while the words are being written. A reader takes them only if the sequence was even and the
//! same before and after. Why none is torn: the words' stores follow a release fence after the odd sequence, and the
//! words' loads precede an acquire fence before the second look at it. A reader that saw any later word therefore sees
//! the odd sequence, or a later one, at its second look. And the first look acquires what the even sequence released,
//! so the words are not older than it.

use megaring_ring::sync::{AtomicU64, Ordering, fence, spin_loop, yield_now};

/// What the protocol does at each point where a seeded bug could sit. [`Sound`] is what boards run; a model's twin
/// changes one constant.
pub trait Protocol {
    /// Between the odd sequence and the words.
    const BEGIN: Option<Ordering> = Some(Ordering::Release);
    /// Of the even sequence.
    const END: Ordering = Ordering::Release;
    /// Of the first look at the sequence.
    const FIRST_LOOK: Ordering = Ordering::Acquire;
    /// Between the words and the second look.
    const SECOND_LOOK: Option<Ordering> = Some(Ordering::Acquire);
}

/// The protocol as it should be.
#[derive(Debug)]
pub enum Sound {}

impl Protocol for Sound {}

/// Writes `values`. There must be one writer at a time.
pub fn write<P: Protocol, const N: usize>(sequence: &AtomicU64, words: &[AtomicU64], values: [u64; N]) {
    let before = sequence.load(Ordering::Relaxed);
    sequence.store(before | 1, Ordering::Relaxed);
    if let Some(ordering) = P::BEGIN {
        fence(ordering);
    }
    for (word, value) in words.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
    sequence.store((before | 1).wrapping_add(1), P::END);
}

/// Reads all of it, if no writer came between.
pub fn try_read<P: Protocol, const N: usize>(sequence: &AtomicU64, words: &[AtomicU64]) -> Option<[u64; N]> {
    let before = sequence.load(P::FIRST_LOOK);
    let mut values = [0; N];
    for (value, word) in values.iter_mut().zip(words) {
        *value = word.load(Ordering::Relaxed);
    }
    if let Some(ordering) = P::SECOND_LOOK {
        fence(ordering);
    }
    (before & 1 == 0 && sequence.load(Ordering::Relaxed) == before).then_some(values)
}

/// [`try_read`] until it is whole. `None` where that never comes: a writer that died in the middle of its words leaves
/// the sequence odd. A living one writes seven words in the time of a few looks, and gets the processor back meanwhile.
pub fn read<const N: usize>(sequence: &AtomicU64, words: &[AtomicU64]) -> Option<[u64; N]> {
    const SPINS: usize = 100;
    const YIELDS: usize = 10_000;
    for look in 0..SPINS + YIELDS {
        if let Some(values) = try_read::<Sound, N>(sequence, words) {
            return Some(values);
        }
        if look < SPINS { spin_loop() } else { yield_now() }
    }
    None
}
