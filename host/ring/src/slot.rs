//! The slot: 128 little-endian bytes that mean the same to the submission ring, the completion ring and the event ring.
//!
//! The layout is an ABI: the CUDA kernel, other processes that map an event ring, and this host read the same bytes. It
//! is fixed by the compile-time assertions at the end of this file. A [`Slot`] itself is plain data and promises
//! nothing about concurrency; that is the business of the ring it lies in.

use bytemuck::{Pod, Zeroable};

/// Bytes of a slot, and its alignment: two cache lines, because adjacent-line prefetch couples them in pairs.
pub const SLOT_BYTES: usize = 128;

/// Bytes of [`Slot::data`], all usable by an event.
pub const EVENT_DATA_BYTES: usize = 80;

/// Bytes of [`Slot::data`] usable by a job or a completion; the last eight repeat the sequence.
pub const JOB_DATA_BYTES: usize = 72;

/// One slot of any of the three rings.
#[repr(C, align(128))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Slot {
    /// Position + 1, written last. Never 0 in a written slot but for the one position that precedes a wrap of the u64
    /// itself.
    pub sequence: u64,
    /// Event: its kind. Job: opcode | ABI version << 32. Completion: opcode.
    pub event_type: u64,
    /// Event: FNV-1a 64 of the source's name. Job: the same of the tenant's name. Completion: the ticket's id.
    pub source_id: u64,
    /// Unix time in nanoseconds, when the slot was published.
    pub timestamp_ns: u64,
    /// Event: confidence, 0..1. Job: score threshold. Both as float64 bits. Completion: status | nanoseconds on the
    /// device << 16.
    pub confidence_bits: u64,
    /// Bytes used in `data`: at most 80 for an event, 72 for a job or a completion.
    pub data_len: u64,
    /// The payload; bytes past `data_len` carry no meaning, but for the second sequence of a job or a completion.
    pub data: [u8; EVENT_DATA_BYTES],
}

impl Slot {
    /// The copy of the sequence that closes the second cache line of a job or a completion.
    pub fn second_sequence(&self) -> u64 {
        u64::from_le_bytes(self.get(JOB_DATA_BYTES))
    }

    /// Sets the copy of the sequence that closes the second cache line of a job or a completion.
    pub fn set_second_sequence(&mut self, sequence: u64) {
        self.put(JOB_DATA_BYTES, sequence.to_le_bytes());
    }

    /// Reads `N` bytes of `data` from `at`.
    pub(crate) fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.data[at..at + N]);
        bytes
    }

    /// Writes `N` bytes into `data` from `at`.
    pub(crate) fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.data[at..at + N].copy_from_slice(&bytes);
    }
}

/// FNV-1a, 64 bits: how a name (of a source, of a tenant) becomes a slot's `source_id`.
///
/// Offset basis and prime from Fowler, Noll and Vo, `draft-eastlake-fnv`.
pub const fn fnv1a64(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(not(target_endian = "little"))]
compile_error!("the slot ABI is little-endian, and slots are shared with devices and processes as they lie in memory");

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Slot>() == SLOT_BYTES && align_of::<Slot>() == SLOT_BYTES);
    assert!(offset_of!(Slot, sequence) == 0);
    assert!(offset_of!(Slot, event_type) == 8);
    assert!(offset_of!(Slot, source_id) == 16);
    assert!(offset_of!(Slot, timestamp_ns) == 24);
    assert!(offset_of!(Slot, confidence_bits) == 32);
    assert!(offset_of!(Slot, data_len) == 40);
    assert!(offset_of!(Slot, data) == 48);
    assert!(offset_of!(Slot, data) + JOB_DATA_BYTES == 120 && JOB_DATA_BYTES + 8 == EVENT_DATA_BYTES);
};
