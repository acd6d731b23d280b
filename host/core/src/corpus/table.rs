//! The versions that slots name, and versions that are made of others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock, Weak};

use super::{CorpusView, HeapSegment, SegmentView, SelfJoin};
use crate::metric::RowType;
use crate::visible::Visible;

/// Finds the version a slot names. Holds no version alive: a job's owner does.
#[derive(Default)]
pub struct CorpusTable {
    views: RwLock<HashMap<(u32, u32), Weak<CorpusView>>>,
    /// Views so far that were made of others.
    derived: AtomicU32,
}

/// Handles from here on are those of views that were made of others; corpora have the handles below.
const FIRST_DERIVED: u32 = 1 << 31;

impl CorpusTable {
    /// Makes a version known, and forgets those nobody holds any more.
    pub fn register(&self, view: &Arc<CorpusView>) {
        let mut views = self.views.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        views.retain(|_, view| view.strong_count() > 0);
        views.insert((view.handle, view.generation), Arc::downgrade(view));
    }

    /// A version of which only these rows of each segment are visible, of those that are, and makes it known under a
    /// handle of its own. Where there is a segment more than there are of `visible`, no row of it is.
    #[must_use]
    pub fn select(&self, view: &CorpusView, visible: impl IntoIterator<Item = Visible>) -> Arc<CorpusView> {
        let chosen = visible.into_iter().map(Some).chain(std::iter::repeat(None));
        let show = |(segment, chosen): (&Arc<SegmentView>, Option<Visible>)| {
            let chosen = chosen.unwrap_or_else(|| Visible::none(segment.rows()));
            Arc::new(segment.showing(match segment.visible() {
                Some(visible) => chosen.and(visible),
                None => chosen,
            }))
        };
        self.derive(view, view.row_type, view.segments.iter().zip(chosen).map(show).collect(), (None, None))
    }

    /// The visible rows of a version alone, gathered on the heap: where they are few, they are searched in a fraction
    /// of the time. A search of it answers the numbers that rows have in `view`, its queries are sent, and labels are
    /// to be looked for in `view`. Makes it known under a handle of its own.
    #[must_use]
    pub fn gather(&self, view: &CorpusView) -> Arc<CorpusView> {
        let numbers: Vec<u32> = view.visible_runs(0..view.rows).flatten().map(|row| row as u32).collect();
        let values: Vec<f32> = numbers.iter().flat_map(|row| view.embedding(*row)).copied().collect();
        let segment = SegmentView::new(Arc::new(HeapSegment::of(values, view.row_type)), numbers.len());
        self.derive(view, view.row_type, vec![Arc::new(segment)], (Some(numbers), None))
    }

    /// A version of rows of another type under the numbers of `view`'s: `segments` have as many rows as its, and the
    /// same of them visible. Makes it known under a handle of its own.
    #[must_use]
    pub fn cut(&self, view: &CorpusView, row_type: RowType, segments: Vec<Arc<SegmentView>>) -> Arc<CorpusView> {
        self.derive(view, row_type, segments, (view.numbers.clone(), None))
    }

    /// A version with the same rows, whose searches for its own rows are a join. Makes it known under a handle of its
    /// own.
    #[must_use]
    pub fn join(&self, view: &CorpusView, join: SelfJoin) -> Arc<CorpusView> {
        self.derive(view, view.row_type, view.segments.clone(), (view.numbers.clone(), Some(join)))
    }

    fn derive(
        &self,
        view: &CorpusView,
        row_type: RowType,
        segments: Vec<Arc<SegmentView>>,
        (numbers, join): (Option<Vec<u32>>, Option<SelfJoin>),
    ) -> Arc<CorpusView> {
        let handle = loop {
            // They come round after 2^31 of them, of which some may still be there.
            let handle = self.derived.fetch_add(1, Ordering::Relaxed) | FIRST_DERIVED;
            if self.resolve(handle, view.generation).is_none() {
                break handle;
            }
        };
        let derived = CorpusView::new(view.name.clone(), handle, view.generation, row_type, segments);
        let view = Arc::new(CorpusView { numbers, join, id_column: view.id_column.clone(), ..derived });
        self.register(&view);
        view
    }

    /// The version a slot names, if somebody still holds it.
    #[must_use]
    pub fn resolve(&self, handle: u32, generation: u32) -> Option<Arc<CorpusView>> {
        let views = self.views.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        views.get(&(handle, generation)).and_then(Weak::upgrade)
    }
}
