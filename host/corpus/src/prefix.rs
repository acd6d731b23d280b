//! Rows cut to their first elements, as embeddings allow that were trained for it (Matryoshka representations):
//! versions made of others, which are searched like any.
//!
//! What is made of a segment is kept for later versions that have it, and for views that hide some of its rows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use megaring_core::corpus::{CorpusTable, CorpusView, HeapSegment, SegmentData};
use megaring_core::{Element, Error, RowType};

/// Bytes of all that is kept, but for the last that was asked for.
const KEPT_BYTES: usize = 1 << 30;
/// Those of an element: value, code and halves of it.
const ELEMENT_BYTES: usize = 6;
/// Those of a row beside: norm, scales and residuals, and the columns of a screen.
const ROW_BYTES: usize = 48;

/// Prefixes that were asked for lately.
#[derive(Default)]
pub(crate) struct Prefixes {
    kept: Mutex<Vec<Kept>>,
    /// One is made at a time: who wants the same finds it then.
    making: Mutex<()>,
}

struct Kept {
    /// The version that it is of.
    of: Weak<CorpusView>,
    /// The data of its segments.
    sources: Vec<Weak<dyn SegmentData>>,
    prefix: Arc<CorpusView>,
}

impl Prefixes {
    /// A version whose rows are the first `dim` elements of another's, under the same numbers.
    pub(crate) fn of(&self, view: &Arc<CorpusView>, dim: usize, table: &CorpusTable) -> Result<Arc<CorpusView>, Error> {
        let whole = view.row_type();
        let row_type = whole.prefix(dim)?;
        if row_type == whole {
            return Ok(view.clone());
        }
        if let Some(known) = self.find(view, dim) {
            return Ok(known);
        }
        let _turn = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.find(view, dim) {
            return Ok(known);
        }
        let prefix = table.cut(view, row_type, |source| {
            self.data_of(source, dim).unwrap_or_else(|| Arc::new(cut(source, whole, row_type)))
        });
        let sources = view.segments().map(|(_, segment)| Arc::downgrade(segment.shared_data())).collect();
        self.keep(Kept { of: Arc::downgrade(view), sources, prefix: prefix.clone() });
        Ok(prefix)
    }

    /// Whether one is kept, or what is asked for is none.
    pub(crate) fn has(&self, view: &Arc<CorpusView>, dim: usize) -> bool {
        dim == view.row_type().dim || self.lock().iter().any(|kept| kept.is_of(view, dim))
    }

    fn find(&self, view: &Arc<CorpusView>, dim: usize) -> Option<Arc<CorpusView>> {
        let mut kept = self.lock();
        let at = kept.iter().position(|kept| kept.is_of(view, dim))?;
        let found = kept.remove(at);
        let prefix = found.prefix.clone();
        // The last is what was asked for last.
        kept.push(found);
        Some(prefix)
    }

    /// What was made of a segment's data for another version.
    fn data_of(&self, source: &Arc<dyn SegmentData>, dim: usize) -> Option<Arc<dyn SegmentData>> {
        let kept = self.lock();
        let of_dim = kept.iter().filter(|kept| kept.prefix.row_type().dim == dim);
        let mut pairs = of_dim.flat_map(|kept| kept.sources.iter().zip(kept.prefix.segments()));
        let found = pairs.find(|(known, _)| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(source)));
        found.map(|(_, (_, segment))| segment.shared_data().clone())
    }

    fn keep(&self, new: Kept) {
        let mut kept = self.lock();
        kept.push(new);
        // Of versions that are gone, nothing is left to be found; their data is in the new ones, where it goes on.
        let (mut left, gone): (Vec<Kept>, Vec<Kept>) = kept.drain(..).partition(|kept| kept.of.strong_count() > 0);
        let mut bytes: usize = left.iter().map(Kept::bytes).sum();
        let mut oldest = 0;
        while oldest + 1 < left.len() && bytes > KEPT_BYTES {
            bytes -= left[oldest].bytes();
            oldest += 1;
        }
        let too_many: Vec<Kept> = left.drain(..oldest).collect();
        *kept = left;
        drop(kept);
        // Not under the lock: a version may hold much.
        drop((gone, too_many));
    }

    /// Lets go of what was made of a corpus.
    pub(crate) fn forget(&self, corpus: &str) {
        let gone: Vec<Kept> = self.lock().extract_if(.., |kept| kept.prefix.name() == corpus).collect();
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_of(&self, view: &Arc<CorpusView>, dim: usize) -> bool {
        self.prefix.row_type().dim == dim && std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(view))
    }

    fn bytes(&self) -> usize {
        self.prefix.rows() * (self.prefix.dim() * ELEMENT_BYTES + ROW_BYTES)
    }
}

/// The first elements of a segment's rows.
fn cut(source: &Arc<dyn SegmentData>, whole: RowType, row_type: RowType) -> HeapSegment {
    let width = row_type.width();
    let mut values = Vec::with_capacity(source.embeddings().len() / whole.width().max(1) * width);
    for row in source.embeddings().chunks_exact(whole.width().max(1)) {
        values.extend_from_slice(&row[..width]);
    }
    if row_type.element == Element::Bit {
        // The last word's bits that are left.
        let there = u32::MAX >> (u32::BITS as usize * width - row_type.dim);
        for row in values.chunks_exact_mut(width) {
            row[width - 1] = f32::from_bits(row[width - 1].to_bits() & there);
        }
    }
    HeapSegment::of(values, row_type)
}
