//! Encode: the words that each text has. Texts are shared out by bytes; each run of them takes one call of the
//! automaton.

use megaring_ring::Status;

use super::Context;
use super::memory::JobSlice;
use super::plan::{Inputs, Planned, Work, cut};
use super::search::Scratch;
use crate::{Mask, SimdError};

/// Bytes of text worth a chunk of their own: about 100 µs.
const CHUNK_BYTES: usize = 96 << 10;

/// An encode job in work.
struct Encode {
    offsets: JobSlice<u64>,
    bytes: JobSlice<u8>,
    out: JobSlice<Mask>,
    chunks: usize,
}

/// Checks the slot: offsets rise from 0 to the text's length.
pub(super) fn plan(inputs: &Inputs, _: &Context) -> Result<Planned, Status> {
    let items = inputs.items();
    let offsets: JobSlice<u64> = inputs.input(0, items + 1)?;
    let before = (items + 1) * size_of::<u64>();
    let len = inputs.payload.len() - before;
    let bytes = inputs.input(before, len)?;
    // SAFETY: the job is not completed yet and nobody writes to its payload.
    let starts = unsafe { offsets.shared() };
    let rising = starts.first() == Some(&0) && starts.last() == Some(&(len as u64)) && starts.is_sorted();
    if !rising {
        return Err(Status::BadDescriptor);
    }
    let out = inputs.output(0, items)?;
    let chunks = (len / CHUNK_BYTES).clamp(1, 8 * inputs.workers);
    Ok((Box::new(Encode { offsets, bytes, out, chunks }), chunks as u32))
}

impl Work for Encode {
    /// The texts that start in the chunk's cut of the bytes.
    fn run(&self, chunk: usize, context: &Context, _: &mut Scratch) -> Result<(), SimdError> {
        // SAFETY: the job is not completed while chunks run, and nobody writes to its payload.
        let (offsets, bytes) = unsafe { (self.offsets.shared(), self.bytes.shared()) };
        let cut = cut(bytes.len(), self.chunks, chunk);
        let starts = &offsets[..self.out.len()];
        let first = starts.partition_point(|start| (*start as usize) < cut.start);
        // Empty texts at the very end start at no byte; they are the last chunk's.
        let is_last = chunk + 1 == self.chunks;
        let end = if is_last { starts.len() } else { starts.partition_point(|start| (*start as usize) < cut.end) };
        // SAFETY: every text starts in exactly one cut, so ranges are disjoint; the job is completed only after they
        // are written.
        let out = unsafe { self.out.range_mut(first..end) };
        context.kernels.encode(&context.automaton, bytes, &offsets[first..=end], out)
    }
}
