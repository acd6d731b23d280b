//! Deletion of the rows that a selection wants.
//!
//! They are found while others commit. What came meanwhile is looked at with commits held up, where it is little; else
//! in a further round without.

use std::sync::Arc;

use megaring_core::Error;
use megaring_core::corpus::{CorpusView, SegmentView};
use megaring_core::visible::Visible;
use roaring::RoaringBitmap;

use super::Corpus;
use crate::change::{Change, Deleted};
use crate::select::{Selection, Wanted, check_columns, passing_rows};

/// Rows that are looked at while commits wait.
const FEW_ROWS: usize = 1 << 16;
/// Rounds without, at most: merging may replace segments as fast as they are looked at.
const ROUNDS: usize = 32;

/// Segments with the rows that pass.
#[derive(Default)]
struct Looked(Vec<(Arc<SegmentView>, Visible)>);

impl Looked {
    fn passing(&self, segment: &SegmentView) -> Option<&Visible> {
        self.0.iter().find(|(known, _)| known.is_same_data(segment)).map(|(_, passing)| passing)
    }

    /// Rows of segments that were not looked at.
    fn lacks(&self, view: &CorpusView) -> usize {
        view.segments().filter(|(_, segment)| self.passing(segment).is_none()).map(|(_, segment)| segment.rows()).sum()
    }

    /// Looks at those segments.
    fn look(&mut self, view: &CorpusView, selection: &Selection, wanted: Wanted<'_>) -> Result<(), Error> {
        let new = view.segments().map(|(_, segment)| segment).filter(|segment| self.passing(segment).is_none());
        let new: Vec<Arc<SegmentView>> = new.cloned().collect();
        let (name, handle) = (view.name().to_owned(), view.handle());
        let part = CorpusView::new(name, handle, view.generation(), view.row_type(), new.clone())
            .with_id_column(view.id_column());
        self.0.extend(new.into_iter().zip(passing_rows(&part, selection, wanted)?));
        Ok(())
    }

    /// The visible rows of a view, of whose segments none lacks, that pass.
    fn rows(&self, view: &CorpusView) -> RoaringBitmap {
        let mut rows = RoaringBitmap::new();
        for (start, segment) in view.segments() {
            let Some(passing) = self.passing(segment).cloned() else { continue };
            let passing = segment.visible().map_or(passing.clone(), |visible| passing.and(visible));
            for run in passing.runs_of_rows(0..segment.rows()) {
                rows.insert_range((start + run.start) as u32..(start + run.end) as u32);
            }
        }
        rows
    }
}

impl Corpus {
    /// Deletes the rows that a selection wants.
    pub(crate) fn delete_selected(&self, selection: &Selection, wanted: Wanted<'_>) -> Result<Deleted, Error> {
        let mut looked = Looked::default();
        let mut view = self.version()?.view.clone();
        check_columns(&view, selection)?;
        let mut round = 0;
        loop {
            looked.look(&view, selection, wanted)?;
            let mut turn = self.turn();
            let version = self.version()?;
            round += 1;
            if looked.lacks(&version.view) > FEW_ROWS && round < ROUNDS {
                view = version.view.clone();
                continue;
            }
            looked.look(&version.view, selection, wanted)?;
            let rows = looked.rows(&version.view);
            let count = rows.len() as usize;
            let now = match count {
                0 => version,
                _ => self.change(&mut turn, &version, Change { deleted: rows, added: None })?,
            };
            let (total_rows, generation) = (now.view.visible_rows(), now.view.generation());
            let (missing, missing_texts) = (Vec::new(), Vec::new());
            return Ok(Deleted { rows: count, missing, missing_texts, total_rows, generation });
        }
    }
}
