//! Texts as they lie in a payload, shared out by bytes: a chunk has the texts that start in its cut of them.

use std::ops::Range;

use megaring_ring::Status;

use crate::backend::memory::JobSlice;
use crate::backend::plan::{Inputs, cut};

/// Bytes of text worth a chunk of their own: about 100 µs.
const CHUNK_BYTES: usize = 96 << 10;

/// A job's texts.
pub(super) struct Texts {
    offsets: JobSlice<u64>,
    bytes: JobSlice<u8>,
    /// How many chunks they are shared out in.
    pub(super) chunks: usize,
}

/// The texts of one chunk.
pub(super) struct TextsOf<'a> {
    /// Their numbers in the job.
    pub(super) range: Range<usize>,
    /// Where each begins in the bytes, and the end of the last.
    pub(super) offsets: &'a [u64],
    /// Bytes of all the job's texts.
    pub(super) bytes: &'a [u8],
}

impl Texts {
    /// Those of a slot, whose offsets have to rise from 0 to the texts' length.
    pub(super) fn of(inputs: &Inputs) -> Result<Self, Status> {
        let items = inputs.items();
        let offsets: JobSlice<u64> = inputs.input(0, items + 1)?;
        let before = (items + 1) * size_of::<u64>();
        let len = inputs.payload.len() - before;
        let bytes = inputs.input(before, len)?;
        // SAFETY: the job is not completed yet and nobody writes to its payload.
        let starts = unsafe { offsets.shared() };
        let rising = starts.first() == Some(&0) && starts.last() == Some(&(len as u64)) && starts.is_sorted();
        let chunks = (len / CHUNK_BYTES).clamp(1, 8 * inputs.workers);
        if rising { Ok(Self { offsets, bytes, chunks }) } else { Err(Status::BadDescriptor) }
    }

    /// The texts that start in the chunk's cut of the bytes. Every text is in exactly one chunk.
    pub(super) fn chunk(&self, chunk: usize) -> TextsOf<'_> {
        // SAFETY: the job is not completed while chunks run, and nobody writes to its payload.
        let (offsets, bytes) = unsafe { (self.offsets.shared(), self.bytes.shared()) };
        let cut = cut(bytes.len(), self.chunks, chunk);
        let starts = &offsets[..offsets.len() - 1];
        let first = starts.partition_point(|start| (*start as usize) < cut.start);
        // Empty texts at the very end start at no byte; they are the last chunk's.
        let is_last = chunk + 1 == self.chunks;
        let end = if is_last { starts.len() } else { starts.partition_point(|start| (*start as usize) < cut.end) };
        TextsOf { range: first..end, offsets: &offsets[first..=end], bytes }
    }
}
