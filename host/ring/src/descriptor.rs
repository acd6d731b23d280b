//! A job as it travels in a submission slot.

use crate::{
    fault::SlotFault,
    slot::{JOB_DATA_BYTES, SLOT_BYTES, Slot},
};

/// Version of the slot ABI; a consumer refuses a job of any other.
pub const ABI_VERSION: u32 = 1;

/// Bytes of an arena, counted from the arena's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Region {
    /// One past the last byte, if that is a u64 at all.
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// Whether `inner` lies within this region.
    pub fn contains(&self, inner: &Region) -> bool {
        match (self.end(), inner.end()) {
            (Some(end), Some(inner_end)) => inner.offset >= self.offset && inner_end <= end,
            _ => false,
        }
    }
}

/// A job: what to do, with which bytes, by when. The ring reads `payload`, `result` and `arena_generation` alone; the
/// rest is between the service and its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Descriptor {
    /// What to do.
    pub opcode: u16,
    /// FNV-1a 64 of the tenant's name.
    pub tenant: u64,
    /// Unix nanoseconds at publishing; set by the ring at submission.
    pub timestamp_ns: u64,
    /// Score threshold; -inf for none.
    pub threshold: f64,
    /// Handle of the corpus.
    pub corpus: u32,
    /// Generation of the corpus handle.
    pub corpus_generation: u32,
    /// The job's input; set by the ring at submission.
    pub payload: Region,
    /// Where a long answer goes; set by the ring at submission.
    pub result: Region,
    /// Generation of the leased run; set by the ring at submission.
    pub arena_generation: u32,
    /// Queries, rows or memories in the payload.
    pub items: u32,
    /// Rows wanted per query.
    pub k: u32,
    /// The metric, by the service's code.
    pub metric: u8,
    /// The element type of the payload, by the service's code.
    pub dtype: u8,
    /// Bits between the service and its backends.
    pub flags: u16,
    /// Unix nanoseconds after which the work is not wanted any more; 0 for none.
    pub deadline_ns: u64,
    /// Elements in one item.
    pub dim: u32,
}

/// Where in a job's data its [`slot_check`] lies.
const CHECK_AT: usize = 68;
/// What the sum begins with, so that a slot of zeroes, where no job was ever written, has a wrong check.
const CHECK_START: u64 = 1 << 63;

/// What tells a device that the sixteen words it has read of a job's slot are one job's, though nothing orders its
/// reads: the upper half of the sum of all words, each times an odd number of its own (the mixing of SplitMix64:
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), the check itself being 0. Words of
/// two jobs have it by chance alone, once in 2^32. A device that finds it wrong waits for the tail, which orders.
pub fn slot_check(slot: &Slot) -> u32 {
    let mut slot = *slot;
    slot.put(CHECK_AT, [0; 4]);
    let words: [u64; SLOT_BYTES / 8] = bytemuck::cast(slot);
    let products = words.into_iter().zip(CHECK_KEYS).map(|(word, key)| word.wrapping_mul(key));
    (products.fold(CHECK_START, u64::wrapping_add) >> 32) as u32
}

/// What each word of a slot counts in its check.
const CHECK_KEYS: [u64; SLOT_BYTES / 8] = {
    let mut keys = [0; SLOT_BYTES / 8];
    let mut at = 0;
    while at < keys.len() {
        let mut key = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        keys[at] = (key ^ key >> 31) | 1;
        at += 1;
    }
    keys
};

impl Descriptor {
    /// The job as a slot with both copies of `sequence`, and its check.
    pub fn to_slot(&self, sequence: u64) -> Slot {
        let mut slot = Slot {
            sequence,
            event_type: u64::from(self.opcode) | u64::from(ABI_VERSION) << 32,
            source_id: self.tenant,
            timestamp_ns: self.timestamp_ns,
            confidence_bits: self.threshold.to_bits(),
            data_len: JOB_DATA_BYTES as u64,
            data: [0; _],
        };
        slot.put(0, self.corpus.to_le_bytes());
        slot.put(4, self.corpus_generation.to_le_bytes());
        slot.put(8, self.payload.offset.to_le_bytes());
        slot.put(16, self.payload.len.to_le_bytes());
        slot.put(24, self.arena_generation.to_le_bytes());
        slot.put(28, self.items.to_le_bytes());
        slot.put(32, self.k.to_le_bytes());
        slot.put(36, [self.metric, self.dtype]);
        slot.put(38, self.flags.to_le_bytes());
        slot.put(40, self.deadline_ns.to_le_bytes());
        slot.put(48, self.result.offset.to_le_bytes());
        slot.put(56, self.result.len.to_le_bytes());
        slot.put(64, self.dim.to_le_bytes());
        slot.set_second_sequence(sequence);
        slot.put(CHECK_AT, slot_check(&slot).to_le_bytes());
        slot
    }

    /// The job in a slot, if the slot is whole and speaks this ABI.
    pub fn from_slot(slot: &Slot) -> Result<Self, SlotFault> {
        check_whole(slot)?;
        if slot.data_len != JOB_DATA_BYTES as u64 {
            return Err(SlotFault::DataLength { len: slot.data_len });
        }
        let found = (slot.event_type >> 32) as u32;
        if found != ABI_VERSION {
            return Err(SlotFault::Abi { expected: ABI_VERSION, found });
        }
        let [metric, dtype] = slot.get(36);
        Ok(Self {
            opcode: slot.event_type as u16,
            tenant: slot.source_id,
            timestamp_ns: slot.timestamp_ns,
            threshold: f64::from_bits(slot.confidence_bits),
            corpus: u32::from_le_bytes(slot.get(0)),
            corpus_generation: u32::from_le_bytes(slot.get(4)),
            payload: Region { offset: u64::from_le_bytes(slot.get(8)), len: u64::from_le_bytes(slot.get(16)) },
            arena_generation: u32::from_le_bytes(slot.get(24)),
            items: u32::from_le_bytes(slot.get(28)),
            k: u32::from_le_bytes(slot.get(32)),
            metric,
            dtype,
            flags: u16::from_le_bytes(slot.get(38)),
            deadline_ns: u64::from_le_bytes(slot.get(40)),
            result: Region { offset: u64::from_le_bytes(slot.get(48)), len: u64::from_le_bytes(slot.get(56)) },
            dim: u32::from_le_bytes(slot.get(64)),
        })
    }
}

/// What holds for a job and a completion alike: both sequences agree and the data fits before the second one.
pub(crate) fn check_whole(slot: &Slot) -> Result<(), SlotFault> {
    let (first, second) = (slot.sequence, slot.second_sequence());
    if first != second {
        return Err(SlotFault::Torn { first, second });
    }
    if slot.data_len > JOB_DATA_BYTES as u64 {
        return Err(SlotFault::DataLength { len: slot.data_len });
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod unit_tests {
    use super::*;

    fn of_words(words: [u64; SLOT_BYTES / 8]) -> Slot {
        bytemuck::cast(words)
    }

    #[test]
    fn the_check_is_the_device_s() {
        // As `kernels/cuda/plan.cuh` asserts of the same words there.
        let words = std::array::from_fn(|at| (at as u64 + 1) << 32 | (at as u64 + 1));
        assert_eq!(slot_check(&of_words(words)), 0xcd4b_2c4b);
    }

    #[test]
    fn a_slot_of_zeroes_is_no_job() {
        // Nor at the position whose sequence is 0.
        let slot = of_words([0; 16]);
        assert_ne!(slot_check(&slot).to_le_bytes(), slot.get(CHECK_AT));
        let first = Descriptor::default().to_slot(0);
        assert_eq!(slot_check(&first).to_le_bytes(), first.get(CHECK_AT));
    }

    #[test]
    fn words_of_two_jobs_are_no_job() {
        let job = |number: u64| {
            let region = |at: u64| Region { offset: at * 4_096, len: 1_536 };
            let (payload, result) = (region(2 * number), region(2 * number + 1));
            let descriptor =
                Descriptor { opcode: 2, items: 1, k: 10, dim: 384, timestamp_ns: number, ..Default::default() };
            let slot =
                Descriptor { payload, result, arena_generation: number as u32, ..descriptor }.to_slot(number + 1);
            bytemuck::cast::<Slot, [u64; SLOT_BYTES / 8]>(slot)
        };
        let (old, new) = (job(7), job(7 + 256));
        let is_whole = |slot: &Slot| slot_check(slot).to_le_bytes() == slot.get(CHECK_AT);
        assert!(is_whole(&of_words(old)) && is_whole(&of_words(new)));
        let differing: Vec<usize> = (0..16).filter(|&at| old[at] != new[at]).collect();
        assert!(differing.len() >= 6, "{differing:?}");
        // Every mixture, by what is still the old one's.
        for mixture in 1..(1_u32 << differing.len()) - 1 {
            let mut mixed = new;
            for (bit, &at) in differing.iter().enumerate() {
                if mixture >> bit & 1 == 1 {
                    mixed[at] = old[at];
                }
            }
            assert!(!is_whole(&of_words(mixed)), "{mixture:b} of {differing:?}");
        }
    }
}
