//! Versions that a store makes of others: of the rows that a selection wants, and of the first elements of all rows.

use std::sync::Arc;

use megaring_core::Error;
use megaring_core::corpus::CorpusView;

use super::Store;
use crate::select::{Selected, Selection, Wanted};

impl Store {
    /// A version of a corpus of this store whose rows are the first `dim` elements of those of `view`, a version or
    /// what a selection has made of it, under the same numbers. Labels and columns are `view`'s. Made on first use,
    /// which takes some 0.3 s for a million rows of 128 elements, and kept as long as there is room.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `prefix_dim` where it is 0 or more than rows have, or of bits no multiple of 8;
    /// [`Error::Exhausted`] where others that are still searched leave no room for it.
    pub fn prefix(&self, view: &Arc<CorpusView>, dim: usize) -> Result<Arc<CorpusView>, Error> {
        self.prefix_while(view, dim, &|| true)
    }

    /// [`Self::prefix`], as long as it is wanted.
    ///
    /// # Errors
    /// As [`Self::prefix`], and [`Error::Cancelled`] once it is not wanted any more: nothing is kept.
    pub fn prefix_while(
        &self,
        view: &Arc<CorpusView>,
        dim: usize,
        wanted: Wanted<'_>,
    ) -> Result<Arc<CorpusView>, Error> {
        let prefix = self.prefixes.of(view, dim, &self.table, wanted)?;
        if self.view(view.name()).is_err() {
            // It was made while the corpus was dropped.
            self.prefixes.forget(view.name());
        }
        Ok(prefix)
    }

    /// Whether [`Self::prefix`] has one at hand.
    #[must_use]
    pub fn has_prefix(&self, view: &Arc<CorpusView>, dim: usize) -> bool {
        self.prefixes.has(view, dim)
    }

    /// The rows of a version of a corpus of this store that a selection wants. Asked for again, it is the same view,
    /// unless there were many others or the corpus was changed meanwhile; and where rows are few, they are gathered,
    /// too.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `filter` where no row has a column that it names, or one is of a type
    /// that is not compared with what it says; [`Error::DataLoss`] where a segment cannot be read.
    pub fn select(&self, view: &Arc<CorpusView>, selection: &Selection) -> Result<Selected, Error> {
        self.select_while(view, selection, &|| true)
    }

    /// [`Self::select`], where nothing is left to be done for it.
    #[must_use]
    pub fn selected(&self, view: &Arc<CorpusView>, selection: &Selection) -> Option<Selected> {
        self.selections.known(view, selection)
    }

    /// [`Self::select`], as long as it is wanted.
    ///
    /// # Errors
    /// As [`Self::select`], and [`Error::Cancelled`] once it is not wanted any more: nothing is kept.
    pub fn select_while(
        &self,
        view: &Arc<CorpusView>,
        selection: &Selection,
        wanted: Wanted<'_>,
    ) -> Result<Selected, Error> {
        let selected = self.selections.select(view, selection, &self.table, wanted)?;
        if !self.view(view.name()).is_ok_and(|now| Arc::ptr_eq(&now, view)) {
            // It was made while the corpus was changed, which has let go of what there was by then.
            drop(self.selections.forget(view.name()));
        }
        Ok(selected)
    }
}
