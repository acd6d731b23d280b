//! Rows cut to their first elements, as embeddings allow that were trained for it (Matryoshka representations):
//! versions made of others, which are searched like any.
//!
//! What is made of a segment is kept for later versions that have it, and for views that hide some of its rows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use megaring_core::corpus::{CorpusTable, CorpusView, HeapSegment, SegmentData, SegmentView};
use megaring_core::{Element, Error, RowType};

use crate::select::{Wanted, ensure, turn};

/// Bytes of all that is kept, but for the last that was asked for.
const KEPT_BYTES: usize = 1 << 30;
/// Bytes of all that is there, kept or still searched by somebody; one alone may have more.
const LIVE_BYTES: usize = 4 << 30;
/// When to ask again where there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Those of an element: value, code and halves of it.
const ELEMENT_BYTES: usize = 6;
/// Those of a row beside: norm, scales and residuals, and the columns of a screen.
const ROW_BYTES: usize = 48;

/// Prefixes that were asked for lately.
#[derive(Default)]
pub(crate) struct Prefixes {
    kept: Mutex<Vec<Kept>>,
    /// What was made of segments, and its bytes, as long as somebody has it.
    live: Mutex<Vec<(Weak<dyn SegmentData>, usize)>>,
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
    /// A version whose rows are the first `dim` elements of another's, under the same numbers. Made as long as it is
    /// wanted.
    pub(crate) fn of(
        &self,
        view: &Arc<CorpusView>,
        dim: usize,
        table: &CorpusTable,
        wanted: Wanted<'_>,
    ) -> Result<Arc<CorpusView>, Error> {
        let whole = view.row_type();
        let row_type = whole.prefix(dim)?;
        if row_type == whole {
            return Ok(view.clone());
        }
        if let Some(known) = self.find(view, dim) {
            return Ok(known);
        }
        let _turn = turn(&self.making, wanted)?;
        if let Some(known) = self.find(view, dim) {
            return Ok(known);
        }
        let known: Vec<Option<Arc<SegmentView>>> =
            view.segments().map(|(_, segment)| self.made_of(segment, dim)).collect();
        let new = view.segments().zip(&known).filter(|(_, known)| known.is_none());
        self.make_room(new.map(|((_, segment), _)| bytes_of(segment.rows(), row_type)).sum())?;
        let mut segments = Vec::with_capacity(known.len());
        for ((_, source), known) in view.segments().zip(known) {
            ensure(wanted)?;
            segments.push(match known {
                Some(known) => shown_as(&known, source),
                None => {
                    let made: Arc<dyn SegmentData> = Arc::new(cut(source.data(), whole, row_type));
                    let live = (Arc::downgrade(&made), bytes_of(source.rows(), row_type));
                    self.live.lock().unwrap_or_else(PoisonError::into_inner).push(live);
                    shown_as(&Arc::new(SegmentView::new(made, source.rows())), source)
                }
            });
        }
        let prefix = table.cut(view, row_type, segments);
        let sources = view.segments().map(|(_, segment)| Arc::downgrade(segment.shared_data())).collect();
        self.keep(Kept { of: Arc::downgrade(view), sources, prefix: prefix.clone() });
        Ok(prefix)
    }

    /// Lets go of what is kept where there is no room for so many bytes more; what others search stays.
    fn make_room(&self, bytes: usize) -> Result<(), Error> {
        let fits = || {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.retain(|(data, _)| data.strong_count() > 0);
            let there: usize = live.iter().map(|(_, bytes)| bytes).sum();
            there == 0 || there.saturating_add(bytes) <= LIVE_BYTES
        };
        while !fits() {
            let oldest = self.lock().drain(..1).next();
            if oldest.is_none() {
                return Err(Error::Exhausted { what: "the memory for prefixes", retry_after: RETRY_AFTER });
            }
        }
        Ok(())
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

    /// What was made of a segment's data for another version; if there is one, what shows the same rows.
    fn made_of(&self, segment: &SegmentView, dim: usize) -> Option<Arc<SegmentView>> {
        let kept = self.lock();
        let of_dim = kept.iter().filter(|kept| kept.prefix.row_type().dim == dim);
        let pairs = of_dim.flat_map(|kept| kept.sources.iter().zip(kept.prefix.segments()));
        let is_source =
            |known: &Weak<dyn SegmentData>| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(segment.shared_data()));
        let made = pairs.filter(|(known, _)| is_source(known)).map(|(_, (_, made))| made);
        made.max_by_key(|made| made.visible() == segment.visible()).cloned()
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
        bytes_of(self.prefix.rows(), self.prefix.row_type())
    }
}

fn bytes_of(rows: usize, row_type: RowType) -> usize {
    rows * (row_type.width() * ELEMENT_BYTES + ROW_BYTES)
}

/// What was made of a segment, showing the rows that the segment does: the very same, screens' columns and all, if it
/// does so already.
fn shown_as(made: &Arc<SegmentView>, source: &SegmentView) -> Arc<SegmentView> {
    if made.visible() == source.visible() {
        return made.clone();
    }
    match source.visible() {
        Some(visible) => Arc::new(made.showing(visible.clone())),
        None => Arc::new(SegmentView::new(made.shared_data().clone(), made.rows())),
    }
}

/// The first elements of a segment's rows.
fn cut(source: &dyn SegmentData, whole: RowType, row_type: RowType) -> HeapSegment {
    let width = row_type.width();
    let mut values = Vec::with_capacity(source.embeddings().len() / whole.width().max(1) * width);
    for row in source.embeddings().chunks_exact(whole.width().max(1)) {
        values.extend_from_slice(&row[..width]);
    }
    if row_type.element == Element::Bit {
        for row in values.chunks_exact_mut(width) {
            row[width - 1] = f32::from_bits(row[width - 1].to_bits() & row_type.last_bits());
        }
    }
    HeapSegment::of(values, row_type)
}
