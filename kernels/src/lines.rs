//! Words of the ring's lines, as the host reads and writes them. Every store releases and every load acquires: whoever
//! reads a word sees what was written before it, on either side of the bus.

use std::sync::atomic::{AtomicU64, Ordering};

use megaring_ring::memory::{Line, View};

/// One word of a line; line words are numbered from 0 to 15.
fn word(line: &View<Line>, number: usize) -> &AtomicU64 {
    match number.checked_sub(1) {
        None => &line[0].word,
        Some(rest) => &line[0].more[rest],
    }
}

pub(crate) fn load(line: &View<Line>, number: usize) -> u64 {
    word(line, number).load(Ordering::Acquire)
}

pub(crate) fn store(line: &View<Line>, number: usize, value: u64) {
    word(line, number).store(value, Ordering::Release);
}

pub(crate) fn clear(line: &View<Line>) {
    line[0].clear();
}
