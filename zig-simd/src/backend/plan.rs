//! From a slot to work: every number in a descriptor is checked here, before anything is read or written by it.

use std::ptr::NonNull;
use std::sync::Arc;

use megaring_core::corpus::{CorpusTable, CorpusView};
use megaring_core::operation::Serves;
use megaring_core::{Metric, Opcode};
use megaring_ring::{Descriptor, Status};

use super::Context;
use super::memory::JobSlice;
use super::operation::{Planned, serves};

/// Checks a slot and prepares its work.
pub(crate) fn plan(slot: &mut megaring_ring::Work, context: &Context) -> Result<Planned, Status> {
    let descriptor = *slot.descriptor();
    let payload = NonNull::from(slot.payload());
    let result = NonNull::from(slot.result_mut());
    let inputs = Inputs { descriptor, payload, result, workers: context.workers };
    let opcode = Opcode::from_u16(descriptor.opcode).ok_or(Status::UnknownOpcode)?;
    match serves(opcode) {
        Serves::By(plan) => plan(&inputs, context),
        Serves::Not(_) => Err(Status::UnknownOpcode),
    }
}

/// A descriptor with its regions in hand. The regions are the job's as long as its slot is not completed.
pub(crate) struct Inputs {
    pub(crate) descriptor: Descriptor,
    pub(crate) payload: NonNull<[u8]>,
    pub(crate) result: NonNull<[u8]>,
    pub(crate) workers: usize,
}

impl Inputs {
    pub(crate) fn items(&self) -> usize {
        self.descriptor.items as usize
    }

    /// The metric that the slot names: one that compares rows like the corpus's.
    pub(crate) fn metric_of(&self, view: &CorpusView) -> Result<Metric, Status> {
        let named = Metric::from_u8(self.descriptor.metric);
        named.filter(|metric| metric.element() == view.row_type().element).ok_or(Status::BadDescriptor)
    }

    /// The corpus version the slot names.
    pub(crate) fn corpus(&self, corpora: &CorpusTable) -> Result<Arc<CorpusView>, Status> {
        let view =
            corpora.resolve(self.descriptor.corpus, self.descriptor.corpus_generation).ok_or(Status::StaleCorpus)?;
        let fits = self.descriptor.dim as usize == view.dim();
        fits.then_some(view).ok_or(Status::BadDescriptor)
    }

    /// Part of the payload.
    pub(crate) fn input<T: bytemuck::Pod>(&self, offset: usize, len: usize) -> Result<JobSlice<T>, Status> {
        JobSlice::within(self.payload, offset, len).ok_or(Status::BadDescriptor)
    }

    /// Part of the result.
    pub(crate) fn output<T: bytemuck::Pod>(&self, offset: usize, len: usize) -> Result<JobSlice<T>, Status> {
        JobSlice::within(self.result, offset, len).ok_or(Status::ResultTooSmall)
    }
}

/// Cuts `len` things into `parts` ranges that differ by at most one in length; the `part`-th of them.
pub(crate) fn cut(len: usize, parts: usize, part: usize) -> std::ops::Range<usize> {
    let at = |part: usize| (len as u128 * part as u128 / parts.max(1) as u128) as usize;
    at(part)..at(part + 1)
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn cuts_cover_everything_once() {
        for (len, parts) in [(0, 1), (1, 3), (10, 3), (348, 2), (usize::MAX / 2, 7)] {
            let mut end = 0;
            for part in 0..parts {
                let range = cut(len, parts, part);
                assert_eq!(range.start, end);
                end = range.end;
            }
            assert_eq!(end, len);
        }
    }
}
