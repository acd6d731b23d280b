//! What the host and the kernel both read, as `cuda/abi.cuh` has it: the ring's place, corpora, the kernel's parameter.
//! Both sides assert sizes and offsets, so neither can change alone. Addresses are the device's; 0 is null.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use megaring_ring::RingLayout;

use crate::device::DevicePtr;

/// Threads of every block.
pub const BLOCK_THREADS: u32 = 256;

/// Words of the control line, which the host writes.
pub mod control {
    /// [`super::COMMAND_RUN`] or [`super::COMMAND_STOP`].
    pub const COMMAND: usize = 0;
    /// The position at which the kernel ends; [`super::NO_LIMIT`]: it does not.
    pub const LIMIT: usize = 1;
    /// Unix time minus the device's clock in nanoseconds, modulo 2^64; 0: not known yet.
    pub const CLOCK_OFFSET: usize = 2;
}

/// Words of the device's heartbeat.
pub mod beat {
    /// Beats so far.
    pub const COUNT: usize = 0;
    /// The device's clock at the last one, in nanoseconds.
    pub const CLOCK: usize = 1;
}

/// Words of the report line, which the kernel writes.
pub mod report {
    /// One of the states: [`super::STATE_NEVER_RAN`], [`super::STATE_RUNNING`], [`super::STATE_ENDED`].
    pub const STATE: usize = 0;
    /// Why it ended: one of [`super::EndReason`].
    pub const REASON: usize = 1;
    /// Submissions taken so far, when it ended.
    pub const POSITION: usize = 2;
    /// The device's clock at the start, in nanoseconds.
    pub const CLOCK: usize = 3;
    /// Slots and regions that could not be trusted, since the start.
    pub const FAULTS: usize = 4;
    /// Jobs completed since the start.
    pub const JOBS: usize = 5;
}

/// Command: consume.
pub const COMMAND_RUN: u64 = 0;
/// Command: finish what was taken, then end.
pub const COMMAND_STOP: u64 = 1;
/// A limit that is never reached.
pub const NO_LIMIT: u64 = u64::MAX;

/// No kernel has run since the line was cleared.
pub const STATE_NEVER_RAN: u64 = 0;
/// The kernel runs.
pub const STATE_RUNNING: u64 = 1;
/// The kernel has ended; nothing of it touches the ring any more.
pub const STATE_ENDED: u64 = 2;

/// Why a kernel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The limit position was reached and everything before it is done.
    Limit,
    /// The host asked for it; everything taken is done.
    Stopped,
    /// The host's heartbeat was missing.
    HostLost,
    /// A wait on the device ran out of its budget, or a job stood still for as long.
    Budget,
    /// The submission tail is no value that the host can have stored.
    BadTail,
    /// A number that this build does not know.
    Unknown(u64),
}

impl From<u64> for EndReason {
    fn from(word: u64) -> Self {
        match word {
            0 => Self::Limit,
            1 => Self::Stopped,
            2 => Self::HostLost,
            3 => Self::Budget,
            4 => Self::BadTail,
            other => Self::Unknown(other),
        }
    }
}

/// Where the ring lies, as the device addresses it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RingView {
    /// Line; the host writes it.
    pub submission_tail: DevicePtr,
    /// Line; the device writes it.
    pub submission_head: DevicePtr,
    /// Line; the device writes it.
    pub completion_tail: DevicePtr,
    /// Line; the host writes it.
    pub completion_head: DevicePtr,
    /// Line; the host writes it.
    pub host_heartbeat: DevicePtr,
    /// Line; the device writes it.
    pub device_heartbeat: DevicePtr,
    /// Line of [`control`] words.
    pub control: DevicePtr,
    /// Line of [`report`] words.
    pub report: DevicePtr,
    /// The first submission slot.
    pub submissions: DevicePtr,
    /// The first completion slot.
    pub completions: DevicePtr,
    /// One word for each block of the arena: generation << 32 | blocks, for the first block of each leased run.
    pub runs: DevicePtr,
    /// The arena's first byte.
    pub arena: DevicePtr,
    /// Slots, a power of two.
    pub submission_capacity: u64,
    /// Slots, a power of two.
    pub completion_capacity: u64,
    /// Blocks of the arena.
    pub arena_blocks: u64,
    /// Bytes of one.
    pub arena_block_bytes: u64,
}

impl RingView {
    /// The view of a ring whose memory the device sees at `base`; `block_bytes` is of its configuration.
    #[must_use]
    pub fn of(layout: &RingLayout, base: DevicePtr, block_bytes: usize) -> Self {
        let at = |offset: usize| base.offset(offset);
        Self {
            submission_tail: at(layout.submissions.tail),
            submission_head: at(layout.submissions.head),
            completion_tail: at(layout.completions.tail),
            completion_head: at(layout.completions.head),
            host_heartbeat: at(layout.host_heartbeat),
            device_heartbeat: at(layout.device_heartbeat),
            control: at(layout.control),
            report: at(layout.report),
            submissions: at(layout.submissions.slots),
            completions: at(layout.completions.slots),
            runs: at(layout.runs),
            arena: at(layout.arena),
            submission_capacity: layout.submissions.capacity as u64,
            completion_capacity: layout.completions.capacity as u64,
            arena_blocks: ((layout.len - layout.arena) / block_bytes) as u64,
            arena_block_bytes: block_bytes as u64,
        }
    }
}

/// Rows of a corpus that lie together: one segment, or one tile of a streamed corpus. Missing parts are null.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Segment {
    /// `[group of 16 rows][quad][16 rows][4 elements]`, code + 128.
    pub codes: DevicePtr,
    /// By metric - 1, float32: `[group][mul x16, add x16, e1 x16, e2 x16]`.
    pub columns: [DevicePtr; 3],
    /// Row-major float32, as wide as the corpus's dimension.
    pub rows: DevicePtr,
    /// Canonical squared norms, float64.
    pub norms2: DevicePtr,
    /// Five columns of `row_count` float64 each.
    pub coordinates: DevicePtr,
    /// Number of the first row within the corpus.
    pub first_row: u32,
    /// Rows.
    pub row_count: u32,
}

/// Bytes of the lines through which a streamed corpus is handed over: `ready` (word 0: tiles copied, host writes), then
/// `consumed` (word 0: tiles done with, device writes). Both count from the start of the stream.
pub const STREAM_LINES_BYTES: usize = 256;

/// One version of a corpus: an entry of an open-addressing table on (handle, generation).
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Corpus {
    /// The corpus's handle; [`NO_HANDLE`]: never used; [`REMOVED_HANDLE`]: used once.
    pub handle: u32,
    /// Which version.
    pub generation: u32,
    /// Elements of a row.
    pub dim: u32,
    /// Rows in all.
    pub rows: u32,
    /// Entries at `segments`.
    pub segment_count: u32,
    /// `CORPUS_*`.
    pub flags: u32,
    /// Groups of 16 rows, all segments together.
    pub groups: u32,
    /// Streamed: groups of the largest tile; else 0.
    pub largest_tile: u32,
    /// Largest row norm.
    pub max_norm: f64,
    /// [`Segment`]s in row order; streamed: one for each tile, its codes and columns being those of its buffer.
    pub segments: DevicePtr,
    /// Streamed: the lines in pinned memory ([`STREAM_LINES_BYTES`]); else null.
    pub stream: DevicePtr,
    /// Streamed: told apart from the sessions before it, whose counts start anew; never 0.
    pub stream_session: u64,
    /// Zero.
    pub reserved: [u64; 8],
}

/// Handle of a table entry that was never used: a search for a corpus ends there.
pub const NO_HANDLE: u32 = 0xFFFF_FFFF;
/// Handle of an entry that was removed: a search goes on past it.
pub const REMOVED_HANDLE: u32 = 0xFFFF_FFFE;
/// Entries of the corpus table, less one; a power of two less one.
pub const CORPORA_MASK: u64 = 4095;
/// Most entries that a search for a corpus looks at.
pub const CORPORA_PROBES: u64 = 64;

/// Codes are there, and columns of every metric that is not null.
pub const CORPUS_SCREENED: u32 = 1;
/// Some norm is beyond what the screen bounds: every row is a candidate.
pub const CORPUS_WILD: u32 = 2;
/// Rows and norms are there.
pub const CORPUS_ROWS: u32 = 4;
/// Coordinates are there.
pub const CORPUS_COORDINATES: u32 = 8;
/// It is screened by its float32 rows rather than by codes.
pub const CORPUS_FLOAT32: u32 = 16;

/// The table entry at which the search for a version of a corpus begins.
#[must_use]
pub fn corpus_home(handle: u32, generation: u32) -> u64 {
    let mixed = u64::from(handle)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(u64::from(generation).wrapping_mul(0xC2B2_AE3D_27D4_EB4F));
    (mixed >> 32) & CORPORA_MASK
}

/// The keyword automaton's tables (`megaring_core::encode::keyword`) in device memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AutomatonView {
    /// 16-bit states: `[state << shift | class]`.
    pub next: DevicePtr,
    /// 256 bytes.
    pub class_of: DevicePtr,
    /// Two words for each state from `first_accepting` on, low half first.
    pub accept: DevicePtr,
    /// States.
    pub states: u32,
    /// Logarithm of the row length of `next`.
    pub shift: u32,
    /// The first state with words.
    pub first_accepting: u32,
    /// Bytes after which the state does not depend on where reading began.
    pub warm_up: u32,
}

/// The kernel's only parameter; constant over a backend's life, so that a graph of the launch can be replayed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct KernelParams {
    /// The ring.
    pub ring: RingView,
    /// `CORPORA_MASK + 1` entries of [`Corpus`].
    pub corpora: DevicePtr,
    /// [`CORPORA_MASK`].
    pub corpora_mask: u64,
    /// Tables of the keyword automaton.
    pub automaton: AutomatonView,
    /// `job_slots` records of [`JOB_RECORD_BYTES`].
    pub jobs: DevicePtr,
    /// [`STATE_BYTES`] bytes; zero when a launch begins.
    pub state: DevicePtr,
    /// `job_slots` areas.
    pub scratch: DevicePtr,
    /// Bytes of one area.
    pub scratch_bytes: u64,
    /// Jobs under way at once on the device; a power of two.
    pub job_slots: u32,
    /// Blocks but for the dispatcher.
    pub workers: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// Longest wait of one block for another, and longest time in which the oldest job does not move.
    pub budget_ns: u64,
    /// How long the host's heartbeat may be missing; 0: it is not watched.
    pub host_timeout_ns: u64,
}

/// Bytes of a record of a job on the device.
pub const JOB_RECORD_BYTES: usize = 1024;
/// Jobs under way at once on the device.
pub const JOB_SLOTS: u32 = 8;

/// Bytes of the device's own state.
pub const STATE_BYTES: usize = 512;

const _: () = {
    assert!(size_of::<RingView>() == 128);
    assert!(offset_of!(RingView, report) == 56 && offset_of!(RingView, submissions) == 64);
    assert!(offset_of!(RingView, runs) == 80 && offset_of!(RingView, arena) == 88);
    assert!(offset_of!(RingView, submission_capacity) == 96 && offset_of!(RingView, arena_block_bytes) == 120);

    assert!(size_of::<Segment>() == 64);
    assert!(offset_of!(Segment, columns) == 8 && offset_of!(Segment, rows) == 32);
    assert!(offset_of!(Segment, coordinates) == 48 && offset_of!(Segment, row_count) == 60);

    assert!(size_of::<Corpus>() == 128 && align_of::<Corpus>() == 128);
    assert!(offset_of!(Corpus, largest_tile) == 28 && offset_of!(Corpus, max_norm) == 32);
    assert!(offset_of!(Corpus, segments) == 40 && offset_of!(Corpus, stream_session) == 56);

    assert!(size_of::<AutomatonView>() == 40 && offset_of!(AutomatonView, warm_up) == 36);

    assert!(size_of::<KernelParams>() == 248);
    assert!(offset_of!(KernelParams, corpora) == 128 && offset_of!(KernelParams, automaton) == 144);
    assert!(offset_of!(KernelParams, jobs) == 184 && offset_of!(KernelParams, scratch_bytes) == 208);
    assert!(offset_of!(KernelParams, job_slots) == 216 && offset_of!(KernelParams, budget_ns) == 232);
    assert!((CORPORA_MASK + 1).is_power_of_two() && JOB_SLOTS.is_power_of_two());
};
