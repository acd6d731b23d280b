//! A corpus as backends see it: slices that stay where they are, behind trait objects that keep the mapping alive.
//!
//! A [`CorpusView`] is one immutable version. An append makes a new view with the next generation; jobs in flight go on
//! with the version they were admitted for, which lives as long as a job holds it. Row numbers run through all segments
//! in order. Rows that are deleted, or that a filter does not let pass, keep their numbers and are hidden: no operation
//! answers them ([`Visible`]).

mod columns;
mod heap;
mod self_join;
mod table;

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub use self::columns::{Column, Columns};
pub use self::heap::HeapSegment;
pub use self::self_join::{Met, Noted, SelfJoin, Turn, most_noted};
pub use self::table::CorpusTable;
use crate::error::Error;
use crate::metric::{Element, Metric, RowType};
use crate::nibbles::NibblesView;
use crate::screen::{self, CodesView};
use crate::visible::Visible;

/// The callers' ids of a segment's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryIds<'a> {
    /// As given, one for each row.
    Given(&'a [u64]),
    /// This one, and on from there.
    From(u64),
}

/// The columns of one segment that the compute path reads.
pub trait SegmentData: Any + Send + Sync {
    /// Row-major: `rows * dim` float32, all finite, or of bits the [words](RowType::width).
    fn embeddings(&self) -> &[f32];
    /// Canonical `dot(x, x)` of each row; of bits, none.
    fn norms2(&self) -> &[f64];
    /// The packed int8 codes and what bounds their error.
    fn codes(&self) -> CodesView<'_>;
    /// The codes once more, in halves.
    fn nibbles(&self) -> NibblesView<'_>;
    /// 5-D coordinates as five columns (x, y, z, w, v), where the corpus has them.
    fn coordinates(&self) -> Option<[&[f64]; 5]>;
    /// The callers' ids of the segment's rows.
    fn memory_ids(&self) -> MemoryIds<'_>;
    /// The caller's id of a row of this segment. `row` is below the row count.
    fn memory_id(&self, row: usize) -> u64 {
        match self.memory_ids() {
            MemoryIds::Given(ids) => ids[row],
            MemoryIds::From(first) => first + row as u64,
        }
    }
    /// The title of a row of this segment; empty where there is none.
    fn title(&self, row: usize) -> &str;
}

/// One segment of a view: its data, which rows of it are visible, and the screens' columns (made on first use, 16 bytes
/// a row, metric and screen).
pub struct SegmentView {
    data: Arc<dyn SegmentData>,
    rows: usize,
    /// `None`: all are.
    visible: Option<Visible>,
    columns: [OnceLock<Vec<f32>>; 4],
    high_columns: [OnceLock<Vec<f32>>; 3],
}

impl SegmentView {
    /// Wraps a segment of `rows` rows.
    #[must_use]
    pub fn new(data: Arc<dyn SegmentData>, rows: usize) -> Self {
        let (columns, high_columns) = Default::default();
        Self { data, rows, visible: None, columns, high_columns }
    }

    /// The same segment, of which these rows alone are visible.
    #[must_use]
    pub fn showing(&self, visible: Visible) -> Self {
        let visible = Some(visible).filter(|visible| visible.count() < self.rows);
        Self { visible, ..Self::new(self.data.clone(), self.rows) }
    }

    /// Number of rows, hidden ones too.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The visible rows; `None` where all are.
    #[must_use]
    pub fn visible(&self) -> Option<&Visible> {
        self.visible.as_ref()
    }

    /// Number of visible rows.
    #[must_use]
    pub fn visible_rows(&self) -> usize {
        self.visible.as_ref().map_or(self.rows, Visible::count)
    }

    /// The same with a count: who keeps a [`Weak`](std::sync::Weak) of it learns when no view has the segment any more.
    #[must_use]
    pub fn shared_data(&self) -> &Arc<dyn SegmentData> {
        &self.data
    }

    /// Whether another view's segment is of the same data, whatever of it is visible there.
    #[must_use]
    pub fn is_same_data(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
    }

    /// The segment's slices.
    #[must_use]
    pub fn data(&self) -> &dyn SegmentData {
        &*self.data
    }

    /// Columns of the int8 screen under a metric (see [`screen::columns`]), or of a screen by bits, which needs no more
    /// than [`screen::columns_of_bits`]. A hidden row has those of padding.
    #[must_use]
    pub fn columns(&self, metric: Metric) -> &[f32] {
        let columns = || match metric.element() {
            Element::Float32 => screen::columns(metric, self.data.codes(), self.data.norms2()),
            Element::Bit => screen::columns_of_bits(self.rows),
        };
        // Those of bits serve every metric.
        self.columns[(metric as usize).min(Metric::Hamming as usize) - 1].get_or_init(|| self.hide(columns()))
    }

    /// Columns of the bound by the codes' high halves under a metric of float32 (see [`NibblesView::columns`]). A
    /// hidden row has those of padding.
    #[must_use]
    pub fn high_columns(&self, metric: Metric) -> &[f32] {
        let columns = || self.data.nibbles().columns(metric, self.data.codes(), self.data.norms2());
        self.high_columns[metric as usize - 1].get_or_init(|| self.hide(columns()))
    }

    fn prepare(&self, others: &[Arc<Self>]) {
        for (at, metric) in Metric::OF_FLOATS.into_iter().chain([Metric::Hamming]).enumerate() {
            if others.iter().any(|other| other.columns[at].get().is_some()) {
                _ = self.columns(metric);
            }
            if others.iter().any(|other| other.high_columns.get(at).is_some_and(|made| made.get().is_some())) {
                _ = self.high_columns(metric);
            }
        }
    }

    fn hide(&self, mut columns: Vec<f32>) -> Vec<f32> {
        if let Some(visible) = &self.visible {
            screen::hide(&mut columns, visible);
        }
        columns
    }
}

/// One version of a corpus.
pub struct CorpusView {
    name: String,
    handle: u32,
    generation: u32,
    row_type: RowType,
    rows: usize,
    visible_rows: usize,
    segments: Vec<Arc<SegmentView>>,
    starts: Vec<usize>,
    /// The numbers that its rows have in the view that they are gathered from, rising; `None` where they are its own.
    numbers: Option<Vec<u32>>,
    id_column: Option<Arc<str>>,
    join: Option<SelfJoin>,
}

impl CorpusView {
    /// Puts segments together. `handle` names the corpus, `generation` this version of it; a plain number as the rows'
    /// type is that of their float32 values.
    #[must_use]
    pub fn new(
        name: String,
        handle: u32,
        generation: u32,
        row_type: impl Into<RowType>,
        segments: Vec<Arc<SegmentView>>,
    ) -> Self {
        let row_type = row_type.into();
        let mut rows = 0;
        let mut starts = Vec::with_capacity(segments.len());
        for segment in &segments {
            starts.push(rows);
            rows += segment.rows();
        }
        let visible_rows = segments.iter().map(|segment| segment.visible_rows()).sum();
        let (numbers, id_column, join) = (None, None, None);
        Self { name, handle, generation, row_type, rows, visible_rows, segments, starts, numbers, id_column, join }
    }

    /// The same, of a corpus that has its rows' ids as text in a column.
    #[must_use]
    pub fn with_id_column(self, column: Option<&str>) -> Self {
        Self { id_column: column.map(Arc::from), ..self }
    }

    /// The column that has the rows' ids as text; their hashes are the ids that are numbers. `None` where those are
    /// all there is.
    #[must_use]
    pub fn id_column(&self) -> Option<&str> {
        self.id_column.as_deref()
    }

    /// The corpus's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number that stands for the corpus in a slot.
    #[must_use]
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Version, rising with every change.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// [Values](RowType::width) of a row: its elements, unless they are bits.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.row_type.width()
    }

    /// What a row is.
    #[must_use]
    pub fn row_type(&self) -> RowType {
        self.row_type
    }

    /// Rows in all segments, hidden ones too: a row's number is below it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are visible.
    #[must_use]
    pub fn visible_rows(&self) -> usize {
        self.visible_rows
    }

    /// The number by which a row is answered. `row` is below [`Self::rows`].
    #[must_use]
    pub fn number(&self, row: u32) -> u32 {
        self.numbers.as_ref().map_or(row, |numbers| numbers[row as usize])
    }

    /// The join that searches for its own rows are part of.
    #[must_use]
    pub fn self_join(&self) -> Option<&SelfJoin> {
        self.join.as_ref()
    }

    /// Whether no row is hidden.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.visible_rows == self.rows
    }

    /// Whether there is such a row, and it is visible.
    #[must_use]
    pub fn shows(&self, row: u32) -> bool {
        if row as usize >= self.rows {
            return false;
        }
        let (start, segment) = self.segment_of(row as usize);
        segment.visible().is_none_or(|visible| visible.contains(row as usize - start))
    }

    /// Runs of visible rows, in order, within `range`. None crosses segments.
    pub fn visible_runs(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        self.segments().flat_map(move |(start, segment)| {
            let within = |row: usize| row.clamp(start, start + segment.rows()) - start;
            let range = within(range.start)..within(range.end);
            let whole = Some(range.clone()).filter(|range| segment.visible().is_none() && !range.is_empty());
            let parts = segment.visible().map(|visible| visible.runs_of_rows(range));
            let runs = whole.into_iter().chain(parts.into_iter().flatten());
            runs.map(move |run| start + run.start..start + run.end)
        })
    }

    /// Segments with the number of their first row.
    pub fn segments(&self) -> impl Iterator<Item = (usize, &Arc<SegmentView>)> {
        self.starts.iter().copied().zip(&self.segments)
    }

    /// The segment that holds a row, with the number of its first row. `row` is below [`Self::rows`].
    #[must_use]
    pub fn segment_of(&self, row: usize) -> (usize, &SegmentView) {
        let index = self.starts.partition_point(|start| *start <= row) - 1;
        (self.starts[index], &self.segments[index])
    }

    /// Makes the columns that searches have had made of another version, so that the next one does not wait for them.
    pub fn prepare_as(&self, other: &Self) {
        for segment in &self.segments {
            segment.prepare(&other.segments);
        }
    }

    /// A row's values. `row` is below [`Self::rows`].
    #[must_use]
    pub fn embedding(&self, row: u32) -> &[f32] {
        let (start, segment) = self.segment_of(row as usize);
        let begin = (row as usize - start) * self.dim();
        &segment.data().embeddings()[begin..begin + self.dim()]
    }

    /// The caller's id and the title of a row. `row` is below [`Self::rows`].
    #[must_use]
    pub fn label(&self, row: u32) -> (u64, &str) {
        let (start, segment) = self.segment_of(row as usize);
        let local = row as usize - start;
        (segment.data().memory_id(local), segment.data().title(local))
    }

    /// Whether every segment has 5-D coordinates (and there is at least one).
    #[must_use]
    pub fn has_coordinates(&self) -> bool {
        !self.segments.is_empty() && self.segments.iter().all(|segment| segment.data().coordinates().is_some())
    }

    /// Refuses a corpus that cannot be searched in 5-D.
    ///
    /// # Errors
    /// [`Error::Precondition`] where a row has no coordinates. A corpus without rows has no columns either, and passes.
    pub fn require_coordinates(&self) -> Result<(), Error> {
        if self.rows == 0 || self.has_coordinates() {
            return Ok(());
        }
        let reason = "has rows without coordinates; only one whose rows all have them can be searched in 5-D";
        Err(Error::Precondition { name: self.name.clone(), reason: reason.into() })
    }
}
