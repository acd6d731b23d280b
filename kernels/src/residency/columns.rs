//! Columns of a corpus in device memory, and what a version's entry in the table says of them.

use bytemuck::cast_slice;
use megaring_core::Metric;
use megaring_core::corpus::{Column, Columns, CorpusView, SegmentView};

use crate::abi::{CORPUS_COORDINATES, CORPUS_FLOAT32, CORPUS_ROWS, CORPUS_SCREENED, Segment};
use crate::device::{Device, DeviceError, DevicePtr};

/// Copies a segment's column to `to`, where there is room for [`Column::bytes`].
pub(crate) fn upload(
    column: Column,
    device: &dyn Device,
    to: DevicePtr,
    segment: &SegmentView,
    dim: usize,
) -> Result<(), DeviceError> {
    let data = segment.data();
    let expected = column.bytes(segment.rows(), dim);
    let whole = |bytes: &[u8]| match bytes.len() {
        len if len == expected => device.upload(to, bytes),
        len => Err(DeviceError::Other(format!("a segment has {len} bytes of {column:?} where {expected} belong"))),
    };
    match column {
        Column::Codes => whole(data.codes().packed),
        Column::Screen(metric) => whole(cast_slice(segment.columns(metric))),
        Column::Embeddings => whole(cast_slice(data.embeddings())),
        Column::Norms => whole(cast_slice(data.norms2())),
        Column::Coordinates => {
            let missing = || DeviceError::Other("a segment has no coordinates".into());
            let axes = data.coordinates().ok_or_else(missing)?;
            let axis_bytes = expected / axes.len();
            for (axis, values) in axes.into_iter().enumerate() {
                let bytes: &[u8] = cast_slice(values);
                if bytes.len() != axis_bytes {
                    return Err(DeviceError::Other("a segment's coordinates are not one for each row".into()));
                }
                device.upload(to.offset(axis * axis_bytes), bytes)?;
            }
            Ok(())
        }
    }
}

/// Notes in a list's entry where a column lies.
pub(crate) fn place(column: Column, at: DevicePtr, segment: &mut Segment) {
    match column {
        Column::Codes => segment.codes = at,
        // Rows of bits have no other.
        Column::Screen(Metric::Hamming | Metric::Jaccard) => segment.columns[0] = at,
        Column::Screen(metric) => segment.columns[metric as usize - 1] = at,
        Column::Embeddings => segment.rows = at,
        Column::Norms => segment.norms2 = at,
        Column::Coordinates => segment.coordinates = at,
    }
}

/// The metric of a screen, if these columns are for that alone. Such a job can take its corpus tile by tile, or screen
/// by the rows themselves.
pub(crate) fn screen_alone(columns: Columns) -> Option<Metric> {
    columns.screen().filter(|metric| Contents::of_screen(*metric).columns.contains(columns))
}

/// Whether some segment cannot be screened.
pub(crate) fn is_wild(view: &CorpusView) -> bool {
    view.segments().any(|(_, segment)| segment.data().codes().wild)
}

/// What a version's entry in the table has, or is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Columns of every segment.
    pub(crate) columns: Columns,
    /// Searches screen by the rows themselves rather than by codes.
    by_rows: bool,
}

impl Contents {
    /// The entry alone: it names a version of which nothing is read.
    pub(crate) const NONE: Self = Self { columns: Columns::NONE, by_rows: false };
    /// What a screen by the rows themselves needs.
    pub(crate) const BY_ROWS: Self = Self { columns: Columns::of(&[Column::Embeddings, Column::Norms]), by_rows: true };

    /// These columns.
    pub(crate) fn of(columns: Columns) -> Self {
        Self { columns, by_rows: false }
    }

    /// What a screen by codes needs.
    pub(crate) fn of_screen(metric: Metric) -> Self {
        Self::of(Columns::of(&[Column::Codes, Column::Screen(metric)]))
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.columns.contains(other.columns) && (self.by_rows || !other.by_rows)
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self { columns: self.columns.union(other.columns), by_rows: self.by_rows || other.by_rows }
    }

    /// `CORPUS_*` of the entry. Codes come with columns of some metric, rows with norms.
    pub(crate) fn flags(self) -> u32 {
        let flag = |column: Column, flag: u32| if self.columns.contains(Columns::of(&[column])) { flag } else { 0 };
        let columns = flag(Column::Codes, CORPUS_SCREENED) | flag(Column::Embeddings, CORPUS_ROWS);
        let by_rows = if self.by_rows { CORPUS_FLOAT32 } else { 0 };
        columns | flag(Column::Coordinates, CORPUS_COORDINATES) | by_rows
    }

    /// Bytes of each column of each segment, of which `segments` has the rows, and of their list.
    pub(crate) fn sizes(self, segments: impl Iterator<Item = usize>, dim: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut list = 0;
        for rows in segments.filter(|rows| *rows > 0) {
            sizes.extend(self.columns.iter().map(|column| column.bytes(rows, dim)));
            list += size_of::<Segment>();
        }
        sizes.push(if self.columns.is_empty() { 0 } else { list });
        sizes
    }

    /// [`Self::sizes`] for a version.
    pub(crate) fn sizes_in(self, view: &CorpusView) -> Vec<usize> {
        self.sizes(view.segments().map(|(_, segment)| segment.rows()), view.dim())
    }
}
