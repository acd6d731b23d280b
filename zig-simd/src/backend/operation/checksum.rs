//! Checksum: the definition itself ([`Checksums::of`]), whatever instruction set the Zig kernels are for.

use megaring_core::checksum::Checksums;
use megaring_ring::Status;

use super::texts::Texts;
use super::{Planned, Scratch, Work};
use crate::SimdError;
use crate::backend::Context;
use crate::backend::memory::JobSlice;
use crate::backend::plan::Inputs;

/// A checksum job in work.
struct Checksum {
    contents: Texts,
    out: JobSlice<[u64; 2]>,
}

/// Checks the slot.
pub(super) fn plan(inputs: &Inputs, _: &Context) -> Result<Planned, Status> {
    let (contents, out) = (Texts::of(inputs)?, inputs.output(0, inputs.items())?);
    let chunks = contents.chunks as u32;
    Ok((Box::new(Checksum { contents, out }), chunks))
}

impl Work for Checksum {
    fn run(&self, chunk: usize, _: &Context, _: &mut Scratch) -> Result<(), SimdError> {
        let contents = self.contents.chunk(chunk);
        // SAFETY: every string is in exactly one chunk, so ranges are disjoint; the job is completed only after they
        // are written.
        let out = unsafe { self.out.range_mut(contents.range) };
        for (out, ends) in out.iter_mut().zip(contents.offsets.array_windows()) {
            let [start, end] = ends.map(|at: u64| at as usize);
            *out = Checksums::of(&contents.bytes[start..end]).words();
        }
        Ok(())
    }
}
