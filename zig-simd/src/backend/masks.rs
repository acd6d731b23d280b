//! Keyword masks: texts are shared out by bytes, each run of them goes through the automaton in one call.

use megaring_core::keyword::Automaton;
use megaring_ring::Status;

use super::memory::JobSlice;
use super::plan::{Inputs, cut};
use crate::KernelSet;

/// Bytes of text worth a chunk of their own: about 100 µs.
const CHUNK_BYTES: usize = 96 << 10;

/// A masks job in work.
pub(crate) struct MasksWork {
    offsets: JobSlice<u64>,
    bytes: JobSlice<u8>,
    out: JobSlice<[u64; 2]>,
    chunks: usize,
}

impl MasksWork {
    /// Checks the slot: offsets rise from 0 to the text's length.
    pub(crate) fn plan(inputs: &Inputs<'_>) -> Result<(Self, u32), Status> {
        let items = inputs.items();
        let offsets: JobSlice<u64> = inputs.payload(0, items + 1)?;
        let before = (items + 1) * size_of::<u64>();
        let len = inputs.regions.payload.len() - before;
        let bytes = inputs.payload(before, len)?;
        // SAFETY: the job is not completed yet and nobody writes to its payload.
        let starts = unsafe { offsets.shared() };
        let rising = starts.first() == Some(&0) && starts.last() == Some(&(len as u64)) && starts.is_sorted();
        if !rising {
            return Err(Status::BadDescriptor);
        }
        let out = inputs.result(0, items)?;
        let chunks = (len / CHUNK_BYTES).clamp(1, 8 * inputs.workers);
        Ok((Self { offsets, bytes, out, chunks }, chunks as u32))
    }

    /// Does one chunk: the texts that start in its cut of the bytes.
    pub(crate) fn run(&self, chunk: usize, automaton: &Automaton, kernels: &KernelSet) {
        // SAFETY: the job is not completed while chunks run, and nobody writes to its payload.
        let (offsets, bytes) = unsafe { (self.offsets.shared(), self.bytes.shared()) };
        let cut = cut(bytes.len(), self.chunks, chunk);
        let starts = &offsets[..self.out.len()];
        let first = starts.partition_point(|start| (*start as usize) < cut.start);
        let mut end = starts.partition_point(|start| (*start as usize) < cut.end);
        if chunk + 1 == self.chunks {
            end = starts.len(); // empty texts at the very end start at no byte
        }
        // SAFETY: every text starts in exactly one cut, so the ranges are disjoint; the job is not completed before they are written.
        let out = unsafe { self.out.range_mut(first..end) };
        if kernels.keyword_masks(automaton, bytes, &offsets[first..=end.max(first)], out).is_err() {
            // Lengths that do not fit are a fault of ours; the plain automaton needs none.
            for (mask, text) in out.iter_mut().zip(offsets[first..=end].windows(2)) {
                let found = automaton.mask(&bytes[text[0] as usize..text[1] as usize]);
                *mask = [found as u64, (found >> 64) as u64];
            }
        }
    }
}
