//! A version of a corpus in memory: its pieces, which of their rows are deleted, and the view that searches read.

use std::sync::Arc;

use megaring_core::corpus::{CorpusView, SegmentView};
use megaring_core::visible::Visible;
use roaring::RoaringBitmap;

use crate::append::Appended;
use crate::ids::next_unused;
use crate::manifest::Opening;
use crate::piece::Piece;

/// A version in memory.
pub(crate) struct Version {
    pub(crate) opening: Opening,
    pub(crate) pieces: Vec<Piece>,
    /// Numbers of the deleted rows.
    pub(crate) deleted: RoaringBitmap,
    pub(crate) view: Arc<CorpusView>,
    /// Bytes of the log's whole frames.
    pub(crate) log_len: u64,
}

/// What a version consists of.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) opening: Opening,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) deleted: RoaringBitmap,
}

impl Version {
    /// `before` is a version of the same corpus, most of whose segments this one has; `None` at first.
    pub(crate) fn new(content: Content, handle: u32, generation: u32, log_len: u64, before: Option<&Self>) -> Self {
        let Content { opening, pieces, deleted } = content;
        let mut start = 0;
        let shown = pieces.iter().flat_map(Piece::views).map(|segment| {
            let begin = start;
            start += segment.rows() as u32;
            show(segment, begin, &deleted, before)
        });
        let segments = shown.collect();
        let view = CorpusView::new(opening.name.clone(), handle, generation, opening.row_type(), segments)
            .with_id_column(opening.id_column.as_deref());
        Self { opening, pieces, deleted, view: Arc::new(view), log_len }
    }

    /// Said to who added `rows` in the place of `replaced`.
    pub(crate) fn appended(&self, rows: usize, replaced: usize) -> Appended {
        let (total_rows, generation) = (self.view.visible_rows(), self.view.generation());
        let stored = self.pieces.iter().filter(|piece| piece.file().is_some()).count();
        // The log is one more where rows are in it.
        let segments = stored + usize::from(stored < self.pieces.len());
        Appended { rows, replaced, total_rows, generation, segments }
    }

    /// The number of each piece's first row, and at last that of all rows.
    pub(crate) fn starts(&self) -> Vec<u32> {
        let mut starts = vec![0];
        starts.extend(self.pieces.iter().scan(0, |end, piece| {
            *end += piece.rows() as u32;
            Some(*end)
        }));
        starts
    }

    /// The deleted rows of each piece.
    pub(crate) fn deleted_rows(&self) -> Vec<usize> {
        let pieces = self.starts();
        pieces.windows(2).map(|ends| self.deleted.range_cardinality(ends[0]..ends[1]) as usize).collect()
    }

    /// The id of the next row that comes without one: the number of rows there ever were, or, where no two rows have
    /// one id, the one after the largest there ever was. `None` where that was the last.
    pub(crate) fn next_id(&self) -> Option<u64> {
        if self.opening.unique_ids {
            return next_unused(&self.view).map(|next| next.max(self.opening.next_id));
        }
        (self.view.rows() as u64).checked_add(self.opening.gone)
    }
}

/// A segment, the deleted rows hidden. What a version before made of it is used again: the screens' columns are there.
fn show(segment: &Arc<SegmentView>, begin: u32, deleted: &RoaringBitmap, before: Option<&Version>) -> Arc<SegmentView> {
    let rows = segment.rows();
    let range = begin..begin + rows as u32;
    let hidden = deleted.range_cardinality(range.clone()) as usize;
    if hidden == 0 {
        return segment.clone();
    }
    let mut known = before.into_iter().flat_map(|version| version.view.segments());
    let known = known.find(|(_, own)| own.is_same_data(segment)).map(|(_, own)| own);
    if let Some(own) = known.filter(|own| own.visible_rows() + hidden == rows) {
        return own.clone();
    }
    let local = |row: u32| (row - begin) as usize;
    Arc::new(segment.showing(Visible::all(rows).without(deleted.range(range).map(local))))
}
