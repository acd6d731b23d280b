//! Where everything lies in a ring's memory, and what a ring may be made of.

use crate::{
    arena::REGION_ALIGN,
    memory::{Line, Memory, MemoryError, View},
    queue::QueueLayout,
    signal::WaitStrategy,
    slot::SLOT_BYTES,
};

/// What a ring is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Submission slots, a power of two up to 2^24. There are twice as many completion slots.
    pub capacity: usize,
    /// Bytes for payloads and long answers; rounded up to whole blocks.
    pub arena_bytes: usize,
    /// Unit of leases, a multiple of 128.
    pub block_bytes: usize,
    /// How blocking waiters and the dedicated reaper wait.
    pub wait: WaitStrategy,
}

/// Byte offsets of everything in a ring's memory, for a consumer that is not this process's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// The submission queue.
    pub submissions: QueueLayout,
    /// The completion queue.
    pub completions: QueueLayout,
    /// The line of the host's heartbeat.
    pub host_heartbeat: usize,
    /// The line of the device's heartbeat.
    pub device_heartbeat: usize,
    /// The line of the control words.
    pub control: usize,
    /// The line of the device's report.
    pub report: usize,
    /// The arena's run words: one u64 a block, on lines of their own. See [`Arena`](crate::Arena) for what they say.
    pub runs: usize,
    /// The arena's first byte.
    pub arena: usize,
    /// Bytes in all.
    pub len: usize,
}

/// The lines by which the host and a device that consumes the ring by itself tell each other that they live, what is to
/// be done and what was.
///
/// The ring gives the words no meaning; it clears them once, when it is made. Each view is of one line.
#[derive(Debug)]
pub struct DeviceLines {
    /// Written by the host.
    pub host_heartbeat: View<Line>,
    /// Written by the device.
    pub device_heartbeat: View<Line>,
    /// Written by the host.
    pub control: View<Line>,
    /// Written by the device.
    pub report: View<Line>,
}

/// Why a ring could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The capacity is zero, not a power of two, or too large.
    #[error("a ring's capacity is a power of two from 1 to {MAX_CAPACITY}, not {0}")]
    Capacity(usize),
    /// The block size is zero or no multiple of 128.
    #[error("an arena's block is a multiple of {REGION_ALIGN} bytes, not {0}")]
    Block(usize),
    /// The arena would have no block, or more than 2^31.
    #[error("an arena of {0} bytes has no sensible number of blocks")]
    Arena(usize),
    /// The memory could not be had, or is too small.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Largest capacity: entries are numbered in 32 bits, and beyond this a backlog is minutes long.
const MAX_CAPACITY: usize = 1 << 24;

impl RingLayout {
    /// The layout of a ring of this configuration: eight lines (the tails and heads, both heartbeats, control, report),
    /// the slots, the run words, and the arena on a page of its own.
    pub fn of(config: &RingConfig) -> Result<Self, RingError> {
        let RingConfig { capacity, arena_bytes, block_bytes, .. } = *config;
        if !capacity.is_power_of_two() || capacity > MAX_CAPACITY {
            return Err(RingError::Capacity(capacity));
        }
        if block_bytes == 0 || !block_bytes.is_multiple_of(REGION_ALIGN) {
            return Err(RingError::Block(block_bytes));
        }
        let blocks = arena_bytes.div_ceil(block_bytes);
        let line = |number: usize| number * SLOT_BYTES;
        let submissions = QueueLayout { tail: line(0), head: line(1), slots: line(8), capacity };
        let completions =
            QueueLayout { tail: line(2), head: line(3), slots: line(8 + capacity), capacity: 2 * capacity };
        if !(1..=1 << 31).contains(&blocks) {
            return Err(RingError::Arena(arena_bytes));
        }
        let runs = line(8 + 3 * capacity);
        let arena = (runs + blocks * size_of::<u64>()).next_multiple_of(4096);
        let len = blocks.checked_mul(block_bytes).and_then(|bytes| bytes.checked_add(arena));
        Ok(Self {
            submissions,
            completions,
            host_heartbeat: line(4),
            device_heartbeat: line(5),
            control: line(6),
            report: line(7),
            runs,
            arena,
            len: len.ok_or(RingError::Arena(arena_bytes))?,
        })
    }
}

impl DeviceLines {
    /// The lines of a ring that is being made, cleared.
    pub(crate) fn lay(memory: &Memory, layout: &RingLayout) -> Result<Self, MemoryError> {
        let line = |at| {
            let line: View<Line> = memory.view(at, 1)?;
            line[0].clear();
            Ok::<_, MemoryError>(line)
        };
        Ok(Self {
            host_heartbeat: line(layout.host_heartbeat)?,
            device_heartbeat: line(layout.device_heartbeat)?,
            control: line(layout.control)?,
            report: line(layout.report)?,
        })
    }
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { capacity: 1024, arena_bytes: 256 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() }
    }
}
