//! From a slot to work for the device: every number in a descriptor is checked here, or by its operation, before it is
//! used.

use std::sync::Arc;

use megaring_core::corpus::{Column, Columns, CorpusTable, CorpusView};
use megaring_core::encode::keyword::Automaton;
use megaring_core::operation::Serves;
use megaring_core::{Metric, Opcode};
use megaring_ring::{Descriptor, Status, Work};

use crate::cut::Pair;
use crate::gpu::{Gpu, OutOfMemory};
use crate::operation::encode::DeviceAutomaton;
use crate::operation::nearest::Extents;
use crate::operation::{Operation, Part, serves};

/// Checks a slot and makes its work.
///
/// # Errors
/// The status to answer.
pub(crate) fn plan<'a>(work: &'a Work, context: &Context<'_>) -> Result<Planned<'a>, Status> {
    let inputs = Inputs { descriptor: *work.descriptor(), payload: work.payload() };
    let opcode = Opcode::from_u16(inputs.descriptor.opcode).ok_or(Status::UnknownOpcode)?;
    match serves(opcode) {
        Serves::By(handler) => (handler.plan)(&inputs, context),
        Serves::Not(_) => Err(Status::UnknownOpcode),
    }
}

/// A slot's work. What the operation borrows is the slot's payload.
pub(crate) struct Planned<'a> {
    pub(crate) operation: Box<dyn Operation + 'a>,
    pub(crate) source: Source,
}

impl<'a> Planned<'a> {
    pub(crate) fn new(operation: impl Operation + 'a, source: Source) -> Self {
        Self { operation: Box::new(operation), source }
    }
}

/// What an operation reads beside its input.
pub(crate) enum Source {
    /// These parts, in one round.
    Parts(Vec<Part>),
    /// Columns of a corpus, resident or streamed.
    Corpus(Arc<CorpusView>, Pair),
    /// Nothing, and no device either: the answer is known without.
    Nothing,
}

impl Source {
    /// Two columns at most of a corpus.
    pub(crate) fn corpus(view: Arc<CorpusView>, columns: &[Column]) -> Result<Self, Status> {
        Ok(Self::Corpus(view, Pair::of(Columns::of(columns)).ok_or(Status::BackendFailed)?))
    }
}

/// What slots are planned with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) corpora: &'a CorpusTable,
    pub(crate) gpu: &'a Gpu,
    pub(crate) resources: &'a Resources,
}

/// What operations keep beside corpora, as long as a device lives.
pub(crate) struct Resources {
    pub(crate) automaton: DeviceAutomaton,
    pub(crate) extents: Extents,
}

impl Resources {
    /// Uploads what belongs on the device.
    ///
    /// # Errors
    /// The device has no room.
    pub(crate) fn new(gpu: &Gpu, automaton: &Automaton) -> Result<Self, OutOfMemory> {
        Ok(Self { automaton: DeviceAutomaton::new(gpu, automaton)?, extents: Extents::default() })
    }
}

/// A slot's descriptor and payload.
pub(crate) struct Inputs<'a> {
    pub(crate) descriptor: Descriptor,
    pub(crate) payload: &'a [u8],
}

impl Inputs<'_> {
    pub(crate) fn items(&self) -> usize {
        self.descriptor.items as usize
    }

    /// Answers wanted of each query, at least one.
    pub(crate) fn k(&self) -> Result<usize, Status> {
        if self.descriptor.k == 0 { Err(Status::BadDescriptor) } else { Ok(self.descriptor.k as usize) }
    }

    /// The metric that the slot names: one that compares rows like the corpus's.
    pub(crate) fn metric_of(&self, view: &CorpusView) -> Result<Metric, Status> {
        let named = Metric::from_u8(self.descriptor.metric);
        named.filter(|metric| metric.element() == view.row_type().element).ok_or(Status::BadDescriptor)
    }

    /// The corpus version that the slot names.
    pub(crate) fn corpus(&self, corpora: &CorpusTable) -> Result<Arc<CorpusView>, Status> {
        corpora.resolve(self.descriptor.corpus, self.descriptor.corpus_generation).ok_or(Status::StaleCorpus)
    }

    /// The same, of vectors as long as the slot's.
    pub(crate) fn corpus_of_dim(&self, corpora: &CorpusTable) -> Result<Arc<CorpusView>, Status> {
        let view = self.corpus(corpora)?;
        if self.descriptor.dim as usize == view.dim() { Ok(view) } else { Err(Status::BadDescriptor) }
    }

    /// Bytes of the result.
    pub(crate) fn result_len(&self) -> usize {
        self.descriptor.result.len as usize
    }

    /// Whether the result takes so many bytes for each item.
    pub(crate) fn check_room(&self, each: usize) -> Result<(), Status> {
        let needed = self.items().checked_mul(each).ok_or(Status::BadDescriptor)?;
        if needed as u64 <= self.descriptor.result.len { Ok(()) } else { Err(Status::ResultTooSmall) }
    }
}

/// So many values from the start of a payload, each of `width` elements, and what follows them.
pub(crate) fn split<T: bytemuck::AnyBitPattern>(
    payload: &[u8],
    count: usize,
    width: usize,
) -> Result<(&[T], &[u8]), Status> {
    let bytes = count.checked_mul(width).and_then(|count| count.checked_mul(size_of::<T>()));
    let (head, rest) = bytes.and_then(|bytes| payload.split_at_checked(bytes)).ok_or(Status::BadDescriptor)?;
    Ok((bytemuck::try_cast_slice(head).map_err(|_| Status::BadDescriptor)?, rest))
}
