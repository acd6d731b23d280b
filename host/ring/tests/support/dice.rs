//! What shakes the order of a test's threads.

use std::{hint, thread};

/// Marsaglia's xorshift64: enough to shake an order.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// Now and then holds up its thread, which shakes the threads' order: mostly for a moment, and seldom to let others
    /// run, since that costs a slice of time wherever others want one.
    pub(crate) fn maybe_pause(&mut self) {
        match self.roll(1024) {
            0 => thread::yield_now(),
            rolled @ 1..64 => (0..rolled * 4).for_each(|_| hint::spin_loop()),
            _ => (),
        }
    }
}
