//! Segments that were never stored.

use std::sync::OnceLock;

use super::{MemoryIds, SegmentData};
use crate::metric::{Element, RowType};
use crate::nibbles::{Nibbles, NibblesView};
use crate::screen::{self, CodesView};

/// A segment on the heap: for tests, benches and queries against vectors that were never stored.
pub struct HeapSegment {
    embeddings: Vec<f32>,
    norms2: Vec<f64>,
    codes: screen::RowCodes,
    /// Made on first use.
    nibbles: OnceLock<Nibbles>,
    coordinates: Option<[Vec<f64>; 5]>,
    dim: usize,
}

impl HeapSegment {
    /// Derives norms and codes from row-major values of width `dim`.
    #[must_use]
    pub fn new(embeddings: Vec<f32>, dim: usize, coordinates: Option<[Vec<f64>; 5]>) -> Self {
        let norms2 = screen::norms2(&embeddings, dim);
        let codes = screen::pack(&embeddings, dim, &norms2);
        Self { embeddings, norms2, codes, nibbles: OnceLock::new(), coordinates, dim }
    }

    /// Of rows of a type. Of bits nothing is derived.
    #[must_use]
    pub fn of(embeddings: Vec<f32>, row_type: RowType) -> Self {
        match row_type.element {
            Element::Float32 => Self::new(embeddings, row_type.dim, None),
            Element::Bit => {
                let mut segment = Self::new(Vec::new(), row_type.width(), None);
                segment.embeddings = embeddings;
                segment
            }
        }
    }
}

impl SegmentData for HeapSegment {
    fn embeddings(&self) -> &[f32] {
        &self.embeddings
    }

    fn norms2(&self) -> &[f64] {
        &self.norms2
    }

    fn codes(&self) -> CodesView<'_> {
        self.codes.view()
    }

    fn nibbles(&self) -> NibblesView<'_> {
        match self.nibbles.get() {
            Some(nibbles) => nibbles.view(),
            None => {
                // Not within the cell: threads that share this work out may be asked for the same meanwhile.
                let made = Nibbles::new(self.codes.view(), self.norms2.len(), self.dim);
                self.nibbles.get_or_init(|| made).view()
            }
        }
    }

    fn coordinates(&self) -> Option<[&[f64]; 5]> {
        self.coordinates.as_ref().map(|columns| columns.each_ref().map(Vec::as_slice))
    }

    /// Rows were never named: the row number stands in.
    fn memory_ids(&self) -> MemoryIds<'_> {
        MemoryIds::From(0)
    }

    fn title(&self, _row: usize) -> &str {
        ""
    }
}
