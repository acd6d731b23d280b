//! From a slot to an operation: every number in a descriptor is checked here or in the operation's own constructor, before anything is read by it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use megaring_core::lists::{FLAG_ALL_ROWS, FLAG_POINTS, ListHeader};
use megaring_core::corpus::{CorpusTable, CorpusView, SegmentView};
use megaring_core::encode::keyword::Automaton;
use megaring_core::{Metric, Opcode};
use megaring_ring::{Status, Work};

use crate::cut::Need;
use crate::gpu::{Gpu, OutOfMemory};
use crate::operation::masks::{self, AutomatonShape, Masks};
use crate::operation::nearest::{self, Nearest};
use crate::operation::score::{Score, ScoreJob};
use crate::operation::search::{Search, SearchAsk, SearchCorpus};
use crate::operation::{Operation, Part};
use crate::trial::bind;

/// The largest magnitude of a segment's coordinates on each axis; `None` where a screen cannot bound them.
type Extent = Option<[f64; 5]>;

/// Extents, looked for once; by the segments' addresses, which are theirs as long as they live.
#[derive(Default)]
struct Extents(Mutex<HashMap<usize, (Weak<SegmentView>, Extent)>>);

/// A slot's work. What the operation borrows is the slot's payload.
pub(crate) struct Planned<'a> {
    pub(crate) operation: Box<dyn Operation + 'a>,
    pub(crate) reads: Reads,
}

/// What an operation reads beside its input.
pub(crate) enum Reads {
    /// These parts, in one round.
    Parts(Vec<Part>),
    /// A corpus, resident or streamed.
    Corpus(Arc<CorpusView>, Need),
    /// Nothing, and no device either: the answer is known without.
    Nothing,
}

/// What jobs need of a device beside corpora.
pub(crate) struct Ground {
    automaton: Part,
    shape: AutomatonShape,
    extents: Extents,
}

impl Ground {
    /// Uploads it.
    ///
    /// # Errors
    /// The device has no room.
    pub(crate) fn new(gpu: &Gpu, automaton: &Automaton) -> Result<Self, OutOfMemory> {
        let (rows, columns) = masks::tables(automaton);
        let automaton_part = Part { binding: bind(gpu, &rows, &columns)?, rows: 0..0 };
        Ok(Self { automaton: automaton_part, shape: AutomatonShape::of(automaton), extents: Extents::default() })
    }
}

impl Extents {
    /// That of a version that has coordinates.
    fn of(&self, view: &CorpusView) -> Extent {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (segment, _)| segment.strong_count() > 0);
        let each = view.segments().map(|(_, segment)| {
            let look = || (Arc::downgrade(segment), segment.data().coordinates().and_then(|c| nearest::extent(&c)));
            known.entry(Arc::as_ptr(segment).addr()).or_insert_with(look).1
        });
        let extents: Option<Vec<[f64; 5]>> = each.collect();
        let join = |all: [f64; 5], one: [f64; 5]| std::array::from_fn(|axis| all[axis].max(one[axis]));
        Some(extents?.into_iter().fold([0.0; 5], join))
    }
}

/// What a slot asks for; `None` where that is nothing at all.
///
/// # Errors
/// The status to answer.
pub(crate) fn plan<'a>(
    work: &'a Work,
    corpora: &CorpusTable,
    gpu: &Gpu,
    ground: &Ground,
) -> Result<Option<Planned<'a>>, Status> {
    let opcode = Opcode::from_u16(work.descriptor().opcode).ok_or(Status::UnknownOpcode)?;
    let planned = match opcode {
        Opcode::Nop => return Ok(None),
        Opcode::Encode => plan_masks(work, ground)?,
        Opcode::Search => plan_search(work, corpora)?,
        Opcode::Nearest => plan_nearest(work, corpora, gpu, ground)?,
        Opcode::Score => plan_score(work, corpora, gpu)?,
    };
    Ok(Some(planned))
}

fn plan_search<'a>(work: &'a Work, corpora: &CorpusTable) -> Result<Planned<'a>, Status> {
    let descriptor = work.descriptor();
    let view = corpus(work, corpora)?;
    let metric = Metric::from_u8(descriptor.metric).ok_or(Status::BadDescriptor)?;
    let (items, k) = (descriptor.items as usize, descriptor.k as usize);
    let values = items.checked_mul(view.dim()).ok_or(Status::BadDescriptor)?;
    let (queries, _) = split::<f32>(work.payload(), values)?;
    if k == 0 {
        return Err(Status::BadDescriptor);
    }
    check_room(work, items, size_of::<ListHeader>())?;
    let ask = SearchAsk { metric, items, dim: view.dim(), k, threshold: descriptor.threshold };
    let codes = || view.segments().map(|(_, segment)| segment.data().codes());
    let corpus = SearchCorpus {
        rows: view.rows(),
        max_norm: codes().map(|codes| codes.max_norm).fold(0.0, f64::max),
        wild: codes().any(|codes| codes.wild),
    };
    let search = Search::new(queries, ask, corpus, descriptor.result.len as usize);
    let reads = if search.is_in_vain() { Reads::Nothing } else { Reads::Corpus(view, Need::Screen(metric)) };
    Ok(Planned { operation: Box::new(search), reads })
}

fn plan_score<'a>(work: &'a Work, corpora: &CorpusTable, gpu: &Gpu) -> Result<Planned<'a>, Status> {
    let descriptor = work.descriptor();
    let view = corpus(work, corpora)?;
    let metric = Metric::from_u8(descriptor.metric).ok_or(Status::BadDescriptor)?;
    let values = (descriptor.items as usize).checked_mul(view.dim()).ok_or(Status::BadDescriptor)?;
    let (queries, rest) = split::<f32>(work.payload(), values)?;
    let named = match descriptor.flags & FLAG_ALL_ROWS {
        0 => Some(split::<u32>(rest, descriptor.k as usize)?.0),
        _ => None,
    };
    let job = ScoreJob { queries, dim: view.dim(), metric, named, rows: view.rows() };
    let score = Score::new(job, descriptor.result.len as usize, gpu.binding_bytes, gpu.traits)?;
    let reads = if score.is_empty() { Reads::Nothing } else { Reads::Corpus(view, Need::Rows) };
    Ok(Planned { operation: Box::new(score), reads })
}

fn plan_nearest<'a>(work: &'a Work, corpora: &CorpusTable, gpu: &Gpu, ground: &Ground) -> Result<Planned<'a>, Status> {
    let descriptor = work.descriptor();
    let (items, k) = (descriptor.items as usize, descriptor.k as usize);
    let (queries, rest) = split::<[f64; 5]>(work.payload(), items)?;
    let (weights, rest) = split::<[f64; 5]>(rest, 1)?;
    if k == 0 {
        return Err(Status::BadDescriptor);
    }
    check_room(work, items, size_of::<ListHeader>())?;
    let result = descriptor.result.len as usize;
    if descriptor.flags & FLAG_POINTS != 0 {
        let count = descriptor.dim as usize;
        let (values, _) = split::<f64>(rest, count.checked_mul(5).ok_or(Status::BadDescriptor)?)?;
        let columns: [&[f64]; 5] = std::array::from_fn(|axis| &values[axis * count..(axis + 1) * count]);
        let nearest = Nearest::new(queries, weights[0], k, count, nearest::extent(&columns), result);
        let reads = if nearest.is_in_vain() { Reads::Nothing } else { Reads::Parts(sent(gpu, &columns)?) };
        return Ok(Planned { operation: Box::new(nearest), reads });
    }
    let view = corpora.resolve(descriptor.corpus, descriptor.corpus_generation).ok_or(Status::StaleCorpus)?;
    if !view.has_coordinates() {
        return Err(Status::BadDescriptor);
    }
    let nearest = Nearest::new(queries, weights[0], k, view.rows(), ground.extents.of(&view), result);
    let reads = if nearest.is_in_vain() { Reads::Nothing } else { Reads::Corpus(view, Need::Coordinates) };
    Ok(Planned { operation: Box::new(nearest), reads })
}

/// Points that came along, as parts.
fn sent(gpu: &Gpu, columns: &[&[f64]; 5]) -> Result<Vec<Part>, Status> {
    let cuts = Need::Coordinates.cuts(columns[0].len(), 5, gpu.part_bytes);
    let part = |rows: std::ops::Range<usize>| {
        let bytes = nearest::columns(&columns.map(|column| &column[rows.clone()]));
        Ok(Part { binding: bind(gpu, &bytes, &[])?, rows })
    };
    let parts: Result<_, OutOfMemory> = cuts.into_iter().map(part).collect();
    parts.map_err(|full| {
        tracing::warn!(%full, "a job finds no room on the device");
        Status::BackendFailed
    })
}

/// The corpus version that a slot names.
fn corpus(work: &Work, corpora: &CorpusTable) -> Result<Arc<CorpusView>, Status> {
    let descriptor = work.descriptor();
    let view = corpora.resolve(descriptor.corpus, descriptor.corpus_generation).ok_or(Status::StaleCorpus)?;
    if descriptor.dim as usize == view.dim() { Ok(view) } else { Err(Status::BadDescriptor) }
}

fn plan_masks<'a>(work: &'a Work, ground: &Ground) -> Result<Planned<'a>, Status> {
    let items = work.descriptor().items as usize;
    let (offsets, text) = split(work.payload(), items.checked_add(1).ok_or(Status::BadDescriptor)?)?;
    check_room(work, items, size_of::<u128>())?;
    let operation = Box::new(Masks::new(offsets, text, ground.shape)?);
    Ok(Planned { operation, reads: Reads::Parts(vec![ground.automaton.clone()]) })
}

/// So many values from the start of a payload, and what follows them.
fn split<T: bytemuck::AnyBitPattern>(payload: &[u8], count: usize) -> Result<(&[T], &[u8]), Status> {
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Status::BadDescriptor)?;
    let (head, rest) = payload.split_at_checked(bytes).ok_or(Status::BadDescriptor)?;
    let values = bytemuck::try_cast_slice(head).map_err(|_| Status::BadDescriptor)?;
    Ok((values, rest))
}

/// Whether the result region takes so many answers of so many bytes.
fn check_room(work: &Work, count: usize, each: usize) -> Result<(), Status> {
    let needed = count.checked_mul(each).ok_or(Status::BadDescriptor)?;
    if needed as u64 <= work.descriptor().result.len { Ok(()) } else { Err(Status::ResultTooSmall) }
}
