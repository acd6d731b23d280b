//! A corpus as backends see it: slices that stay where they are, behind trait objects that keep the mapping alive.
//!
//! A [`CorpusView`] is one immutable version. An append makes a new view with the next generation; jobs in flight go on
//! with the version they were admitted for, which lives as long as a job holds it. Row numbers run through all segments
//! in order. Rows that are deleted, or that a filter does not let pass, keep their numbers and are hidden: no operation
//! answers them ([`Visible`]).

use std::any::Any;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, RwLock, Weak};

use crate::error::Error;
use crate::metric::{Element, Metric, RowType};
use crate::nibbles::{Nibbles, NibblesView};
use crate::screen::{self, CodesView};
use crate::visible::Visible;

/// What of a segment an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// The rows, float32, or words of bits.
    Embeddings,
    /// `dot(x, x)` of each row, float64.
    Norms,
    /// The packed int8 codes.
    Codes,
    /// The screen's columns under a metric ([`SegmentView::columns`]). Those of Hamming serve every metric of bits.
    Screen(Metric),
    /// The 5-D coordinates, float64.
    Coordinates,
}

impl Column {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// Every column, in the order of [`Self::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Codes,
        Self::Screen(Metric::Cosine),
        Self::Screen(Metric::Dot),
        Self::Screen(Metric::L2),
        Self::Embeddings,
        Self::Norms,
        Self::Coordinates,
        Self::Screen(Metric::Hamming),
    ];

    /// Whether it says which rows are visible, so that views of one segment may differ in it.
    #[must_use]
    pub const fn hides(self) -> bool {
        matches!(self, Self::Screen(_))
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Codes => 0,
            Self::Screen(Metric::Hamming | Metric::Jaccard) => 7,
            Self::Screen(metric) => metric as usize,
            Self::Embeddings => 4,
            Self::Norms => 5,
            Self::Coordinates => 6,
        }
    }

    /// Bytes for a segment of `rows` rows of so many [values](RowType::width).
    #[must_use]
    pub fn bytes(self, rows: usize, dim: usize) -> usize {
        match self {
            Self::Codes => screen::packed_len(rows, dim),
            Self::Screen(_) => screen::groups(rows) * screen::COLUMNS * screen::GROUP_ROWS * size_of::<f32>(),
            Self::Embeddings => rows * dim * size_of::<f32>(),
            Self::Norms => rows * size_of::<f64>(),
            Self::Coordinates => rows * size_of::<[f64; 5]>(),
        }
    }
}

/// A set of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Columns(u8);

impl Columns {
    /// No column.
    pub const NONE: Self = Self(0);

    /// These columns.
    #[must_use]
    pub const fn of(columns: &[Column]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < columns.len() {
            bits |= 1 << columns[at].index();
            at += 1;
        }
        Self(bits)
    }

    /// Whether all of `others` are among them.
    #[must_use]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that `other` lacks.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One after the other, in the order of [`Column::index`].
    pub fn iter(self) -> impl Iterator<Item = Column> {
        Column::ALL.into_iter().filter(move |column| self.0 & 1 << column.index() != 0)
    }

    /// The metric that a screen among them is for.
    #[must_use]
    pub fn screen(self) -> Option<Metric> {
        Metric::OF_FLOATS.into_iter().find(|metric| self.contains(Self::of(&[Column::Screen(*metric)])))
    }

    /// Bytes of all of them, for a segment of `rows` rows with `dim` elements.
    #[must_use]
    pub fn bytes(self, rows: usize, dim: usize) -> usize {
        self.iter().map(|column| column.bytes(rows, dim)).sum()
    }
}

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

    /// The same with a count: who keeps a [`Weak`] of it learns when no view has the segment any more.
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
        let (place, of_bits) = match metric {
            Metric::Cosine | Metric::Dot | Metric::L2 => (metric as usize - 1, false),
            Metric::Hamming | Metric::Jaccard => (3, true),
        };
        let columns = || match of_bits {
            true => screen::columns_of_bits(self.rows),
            false => screen::columns(metric, self.data.codes(), self.data.norms2()),
        };
        self.columns[place].get_or_init(|| self.hide(columns()))
    }

    /// Columns of the bound by the codes' high halves under a metric of float32 (see [`NibblesView::columns`]). A
    /// hidden row has those of padding.
    #[must_use]
    pub fn high_columns(&self, metric: Metric) -> &[f32] {
        let columns = || self.data.nibbles().columns(metric, self.data.codes(), self.data.norms2());
        self.high_columns[metric as usize - 1].get_or_init(|| self.hide(columns()))
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
        Self { name, handle, generation, row_type, rows, visible_rows, segments, starts, numbers: None }
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
        self.derive(view, view.row_type, view.segments.iter().zip(chosen).map(show).collect(), None)
    }

    /// The visible rows of a version alone, gathered on the heap: where they are few, they are searched in a fraction
    /// of the time. A search of it answers the numbers that rows have in `view`, its queries are sent, and labels are
    /// to be looked for in `view`. Makes it known under a handle of its own.
    #[must_use]
    pub fn gather(&self, view: &CorpusView) -> Arc<CorpusView> {
        let numbers: Vec<u32> = view.visible_runs(0..view.rows).flatten().map(|row| row as u32).collect();
        let values: Vec<f32> = numbers.iter().flat_map(|row| view.embedding(*row)).copied().collect();
        let segment = SegmentView::new(Arc::new(HeapSegment::of(values, view.row_type)), numbers.len());
        self.derive(view, view.row_type, vec![Arc::new(segment)], Some(numbers))
    }

    /// A version of rows of another type under the numbers of `view`'s, the same of them visible. `data` makes a
    /// segment's of that of `view`'s. Makes it known under a handle of its own.
    #[must_use]
    pub fn cut(
        &self,
        view: &CorpusView,
        row_type: RowType,
        mut data: impl FnMut(&Arc<dyn SegmentData>) -> Arc<dyn SegmentData>,
    ) -> Arc<CorpusView> {
        let cut = |segment: &Arc<SegmentView>| {
            let whole = SegmentView::new(data(segment.shared_data()), segment.rows());
            Arc::new(match segment.visible() {
                Some(visible) => whole.showing(visible.clone()),
                None => whole,
            })
        };
        let segments = view.segments.iter().map(cut).collect();
        self.derive(view, row_type, segments, view.numbers.clone())
    }

    fn derive(
        &self,
        view: &CorpusView,
        row_type: RowType,
        segments: Vec<Arc<SegmentView>>,
        numbers: Option<Vec<u32>>,
    ) -> Arc<CorpusView> {
        let handle = loop {
            // They come round after 2^31 of them, of which some may still be there.
            let handle = self.derived.fetch_add(1, Ordering::Relaxed) | FIRST_DERIVED;
            if self.resolve(handle, view.generation).is_none() {
                break handle;
            }
        };
        let derived = CorpusView::new(view.name.clone(), handle, view.generation, row_type, segments);
        let view = Arc::new(CorpusView { numbers, ..derived });
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
