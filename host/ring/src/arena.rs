//! Where payloads and long answers live: fixed-size blocks of one span of memory, leased in contiguous runs.
//!
//! Promises: two live leases never share a block; a run keeps its generation from lease to release and gets another
//! with the next lease, so a descriptor of an earlier lease is recognised (until 2^32 leases of the same run later).
//! Taking and giving back a run holds a short lock; resolving a descriptor takes none. Limits: no compaction, so a long
//! run may not be found although as many single blocks are free; the lowest fitting run is taken, which keeps the
//! touched part of a large arena small.
//!
//! What each run is now stands in shared memory ([`RingLayout::runs`](crate::RingLayout::runs)): one little-endian u64
//! a block, generation << 32 | blocks for the first block of a leased run, generation << 32 for any other. Host code
//! stores them, everyone else only loads. [`Arena::resolve`] is the definition of what a consumer checks before it
//! touches a byte; a device does the same in its own code.

use std::ptr::NonNull;

use crate::{
    descriptor::{Descriptor, Region},
    fault::SlotFault,
    memory::{Memory, MemoryError, View},
    slot::SLOT_BYTES,
    sync::{AtomicU64, Mutex, Ordering, lock},
};

/// Alignment of a payload and of a result region: no two of them share a cache line, and vectors of 64 bytes load
/// aligned.
pub const REGION_ALIGN: usize = SLOT_BYTES;

/// Blocks of memory, leased in runs.
#[derive(Debug)]
pub struct Arena {
    memory: Memory,
    /// Where the arena begins in its memory.
    base: usize,
    block_bytes: usize,
    /// For the first block of a leased run: generation << 32 | blocks. For any other: the generation it last had << 32.
    runs: View<AtomicU64>,
    free: Mutex<FreeMap>,
    /// What loom watches in place of the bytes, which are plain memory to it.
    #[cfg(loom)]
    watched: Box<[crate::sync::SharedCell<()>]>,
}

/// The bytes of a job, found to be its own.
///
/// The pointers are valid for reads (`payload`) and writes (`result`) until the ticket is answered; the two do not
/// overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The job's input.
    pub payload: NonNull<[u8]>,
    /// Where its answer goes.
    pub result: NonNull<[u8]>,
}

/// The right to a run. Not `Clone`: who has it is the run's owner.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    first: u32,
    blocks: u32,
    pub(crate) generation: u32,
    pub(crate) payload: Region,
    pub(crate) result: Region,
}

/// One bit for each block, set while it is free.
#[derive(Debug)]
struct FreeMap {
    words: Vec<u64>,
    blocks: usize,
}

impl Arena {
    /// An arena of `blocks` blocks of `block_bytes` (a multiple of 128) from `base` of `memory` on, its run words from
    /// `runs` on. Where the memory held an arena before, generations go on, so what an earlier ring's slots name stays
    /// dead.
    pub(crate) fn lay(
        memory: &Memory,
        runs: usize,
        base: usize,
        block_bytes: usize,
        blocks: usize,
    ) -> Result<Self, MemoryError> {
        let needed = base.saturating_add(block_bytes.saturating_mul(blocks));
        if needed > memory.len() {
            return Err(MemoryError::TooSmall { len: memory.len(), needed });
        }
        let runs: View<AtomicU64> = memory.view(runs, blocks)?;
        for run in runs.iter() {
            run.store(run.load(Ordering::Relaxed) >> 32 << 32, Ordering::Relaxed);
        }
        Ok(Self {
            memory: memory.clone(),
            base,
            block_bytes,
            runs,
            free: Mutex::new(FreeMap::new(blocks)),
            #[cfg(loom)]
            watched: (0..blocks).map(|_| crate::sync::SharedCell::new(())).collect(),
        })
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.runs.len() * self.block_bytes
    }

    /// Always false: a ring has one block at least.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes in a block, the unit of leases.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Bytes in blocks that nobody has leased.
    pub fn free_bytes(&self) -> usize {
        lock(&self.free).count() * self.block_bytes
    }

    /// Finds the bytes of a job. In order:
    /// 1. the payload's offset is a multiple of [`Arena::block_bytes`] and names a block of the arena;
    /// 2. that block's run word (one load, after the fence that follows a moved tail) has the descriptor's generation
    ///    and a block count other than 0;
    /// 3. payload and result both lie within the run, the result behind the payload and aligned to [`REGION_ALIGN`].
    ///
    /// A device that checks this touches no byte of another job, provided that it also touches nothing after its
    /// completion, and that nobody calls [`JobRing::release_quarantine`](crate::JobRing::release_quarantine) while it
    /// lives.
    pub fn resolve(&self, descriptor: &Descriptor) -> Result<Resolved, SlotFault> {
        let Descriptor { payload, result, arena_generation, .. } = descriptor;
        let outside = |region: &Region| SlotFault::Region { offset: region.offset, len: region.len };
        let block_bytes = self.block_bytes as u64;
        let first = usize::try_from(payload.offset / block_bytes).map_err(|_| outside(payload))?;
        let run = match self.runs.get(first) {
            Some(run) if payload.offset.is_multiple_of(block_bytes) => run.load(Ordering::Acquire),
            _ => return Err(outside(payload)),
        };
        let (generation, blocks) = ((run >> 32) as u32, run as u32);
        if generation != *arena_generation || blocks == 0 {
            return Err(SlotFault::Generation { expected: *arena_generation, found: generation });
        }
        let whole = Region { offset: payload.offset, len: u64::from(blocks) * block_bytes };
        if !whole.contains(payload) {
            return Err(outside(payload));
        }
        let aligned = result.offset.is_multiple_of(REGION_ALIGN as u64);
        if !aligned || !whole.contains(result) || result.offset < payload.offset + payload.len {
            return Err(outside(result));
        }
        Ok(Resolved { payload: self.bytes(payload), result: self.bytes(result) })
    }

    /// The most bytes of payload and result that one lease can hold together (each rounded up to [`REGION_ALIGN`]).
    pub(crate) fn limit(&self) -> usize {
        self.len()
    }

    /// Leases a run for a payload and a result; `None` if no free run is long enough now. The sizes must fit
    /// [`Arena::limit`].
    pub(crate) fn lease(&self, payload_bytes: usize, result_bytes: usize) -> Option<Lease> {
        let result_at = payload_bytes.next_multiple_of(REGION_ALIGN);
        let blocks = (result_at + result_bytes).div_ceil(self.block_bytes).max(1);
        let first = lock(&self.free).take(blocks)?;
        let generation = ((self.runs[first].load(Ordering::Relaxed) >> 32) as u32).wrapping_add(1);
        self.runs[first].store(u64::from(generation) << 32 | blocks as u64, Ordering::Release);
        let offset = (first * self.block_bytes) as u64;
        Some(Lease {
            first: first as u32,
            blocks: blocks as u32,
            generation,
            payload: Region { offset, len: payload_bytes as u64 },
            result: Region { offset: offset + result_at as u64, len: result_bytes as u64 },
        })
    }

    /// Gives a run back; descriptors that name it are stale from here on.
    pub(crate) fn release(&self, lease: Lease) {
        self.runs[lease.first as usize].store(u64::from(lease.generation) << 32, Ordering::Release);
        lock(&self.free).give(lease.first as usize, lease.blocks as usize);
    }

    /// The address of a region that lies within the arena.
    pub(crate) fn bytes(&self, region: &Region) -> NonNull<[u8]> {
        debug_assert!(region.end().is_some_and(|end| end <= self.len() as u64));
        // SAFETY: the region comes from a lease, or was checked against one, so it ends within the arena, which `lay`
        // checked to lie within the memory: one allocation, kept alive by `self.memory`.
        let first = unsafe { self.memory.base().byte_add(self.base + region.offset as usize) };
        NonNull::slice_from_raw_parts(first, region.len as usize)
    }

    /// Tells loom that this thread writes the run at `region`'s payload.
    pub(crate) fn note_write(&self, payload: &Region) {
        #[cfg(loom)]
        self.watched[payload.offset as usize / self.block_bytes].with_mut(|_| ());
        #[cfg(not(loom))]
        let _ = payload;
    }

    /// Tells loom that this thread reads the run at `region`'s payload.
    pub(crate) fn note_read(&self, payload: &Region) {
        #[cfg(loom)]
        self.watched[payload.offset as usize / self.block_bytes].with(|_| ());
        #[cfg(not(loom))]
        let _ = payload;
    }
}

impl FreeMap {
    fn new(blocks: usize) -> Self {
        let mut map = Self { words: vec![0; blocks.div_ceil(64)], blocks };
        map.give(0, blocks);
        map
    }

    fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The lowest run of `wanted` free blocks, marked as taken.
    fn take(&mut self, wanted: usize) -> Option<usize> {
        let mut first = self.next(0, self.blocks, true);
        while first + wanted <= self.blocks {
            let end = self.next(first, first + wanted, false);
            if end == first + wanted {
                self.set(first, wanted, false);
                return Some(first);
            }
            first = self.next(end, self.blocks, true);
        }
        None
    }

    fn give(&mut self, first: usize, blocks: usize) {
        debug_assert!(self.next(first, first + blocks, true) == first + blocks, "a block is given back once");
        self.set(first, blocks, true);
    }

    /// The first block at or after `from` that is free (or taken), `end` if there is none before.
    fn next(&self, from: usize, end: usize, free: bool) -> usize {
        let mut at = from;
        while at < end {
            let word = if free { self.words[at / 64] } else { !self.words[at / 64] };
            let rest = word >> (at % 64);
            if rest != 0 {
                return end.min(at + rest.trailing_zeros() as usize);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }

    fn set(&mut self, first: usize, blocks: usize, free: bool) {
        let (mut at, end) = (first, first + blocks);
        while at < end {
            let count = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << (at % 64);
            match free {
                true => self.words[at / 64] |= mask,
                false => self.words[at / 64] &= !mask,
            }
            at += count;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
