//! Encode: the words that each text has. Each run of texts takes one call of a kernel.

use megaring_ring::Status;

use super::texts::Texts;
use super::{Planned, Scratch, Work};
use crate::backend::Context;
use crate::backend::memory::JobSlice;
use crate::backend::plan::Inputs;
use crate::{Mask, SimdError};

/// An encode job in work.
struct Encode {
    texts: Texts,
    out: JobSlice<Mask>,
}

/// Checks the slot.
pub(super) fn plan(inputs: &Inputs, _: &Context) -> Result<Planned, Status> {
    let (texts, out) = (Texts::of(inputs)?, inputs.output(0, inputs.items())?);
    let chunks = texts.chunks as u32;
    Ok((Box::new(Encode { texts, out }), chunks))
}

impl Work for Encode {
    fn run(&self, chunk: usize, context: &Context, _: &mut Scratch) -> Result<(), SimdError> {
        let texts = self.texts.chunk(chunk);
        // SAFETY: every text is in exactly one chunk, so ranges are disjoint; the job is completed only after they are
        // written.
        let out = unsafe { self.out.range_mut(texts.range) };
        context.kernels.encode(&context.automaton, texts.bytes, texts.offsets, out)
    }
}
