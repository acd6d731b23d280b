//! How a segment's columns are cut into parts that fit a binding, and the bytes of a part.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::cast_slice;
use megaring_core::corpus::{Column, Columns, SegmentView};
use megaring_core::screen::GROUP_ROWS;

use crate::operation::nearest;

/// Groups of a part at most: a dispatch has a workgroup for each along one axis.
const MOST_GROUPS: usize = 65_535;

/// Columns as a part binds them: each in a buffer of its own, in the order of [`Column::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pair([Option<Column>; 2]);

impl Pair {
    /// `None` for more columns than a part has buffers.
    pub(crate) fn of(columns: Columns) -> Option<Self> {
        let mut columns = columns.iter();
        let pair = [columns.next(), columns.next()];
        columns.next().is_none().then_some(Self(pair))
    }

    /// The column in the first buffer.
    pub(crate) fn first(self) -> Option<Column> {
        self.0[0]
    }

    /// Bytes of a segment of so many rows in the two buffers.
    pub(crate) fn bytes(self, rows: usize, dim: usize) -> [usize; 2] {
        self.group_bytes(dim).map(|bytes| rows.div_ceil(GROUP_ROWS) * bytes)
    }

    /// Runs of rows that fit buffers of `most` bytes, each but the last a whole number of groups. No rows, no run.
    pub(crate) fn cuts(self, rows: usize, dim: usize, most: usize) -> Vec<Range<usize>> {
        let [first, second] = self.group_bytes(dim);
        let each = (most / first.max(second).max(1)).clamp(1, MOST_GROUPS) * GROUP_ROWS;
        (0..rows.div_ceil(each)).map(|cut| cut * each..rows.min((cut + 1) * each)).collect()
    }

    /// What the two buffers hold of a run of a segment's rows; `None` where the segment does not have it.
    pub(crate) fn contents<'a>(
        self,
        segment: &'a SegmentView,
        dim: usize,
        rows: &Range<usize>,
    ) -> Option<[Cow<'a, [u8]>; 2]> {
        let of = |column: Option<Column>| match column {
            Some(column) => contents(column, segment, dim, rows),
            None => Some(Cow::default()),
        };
        Some([of(self.0[0])?, of(self.0[1])?])
    }

    fn group_bytes(self, dim: usize) -> [usize; 2] {
        self.0.map(|column| column.map_or(0, |column| group_bytes(column, dim)))
    }
}

/// Bytes that a group of 16 rows takes on the device.
fn group_bytes(column: Column, dim: usize) -> usize {
    match column {
        // In float32.
        Column::Coordinates => GROUP_ROWS * size_of::<[f32; 5]>(),
        _ => column.bytes(GROUP_ROWS, dim),
    }
}

fn contents<'a>(column: Column, segment: &'a SegmentView, dim: usize, rows: &Range<usize>) -> Option<Cow<'a, [u8]>> {
    let data = segment.data();
    let of_groups = |bytes: &'a [u8]| {
        let groups = rows.start / GROUP_ROWS..rows.end.div_ceil(GROUP_ROWS);
        let each = group_bytes(column, dim);
        bytes.get(groups.start * each..groups.end * each).map(Cow::from)
    };
    match column {
        Column::Codes => of_groups(data.codes().packed),
        Column::Screen(metric) => of_groups(cast_slice(segment.columns(metric))),
        Column::Embeddings => {
            let values = data.embeddings().get(rows.start * dim..rows.end * dim)?;
            Some(cast_slice(values).into())
        }
        Column::Norms => Some(cast_slice(data.norms2().get(rows.clone())?).into()),
        Column::Coordinates => {
            let columns = data.coordinates()?;
            if columns.iter().any(|column| column.len() < rows.end) {
                return None;
            }
            Some(nearest::columns(&columns.map(|column| &column[rows.clone()])).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use megaring_core::Metric;

    use super::*;

    #[test]
    fn cuts_cover_all_rows_and_fit() {
        let sets: [&[Column]; 4] = [
            &[],
            &[Column::Codes, Column::Screen(Metric::Dot)],
            &[Column::Embeddings, Column::Norms],
            &[Column::Coordinates],
        ];
        for columns in sets {
            let pair = Pair::of(Columns::of(columns)).expect("two at most");
            for (rows, dim, most) in [
                (0, 8, 1 << 20),
                (1, 1, 256),
                (17, 7, 256),
                (5_562, 384, 1 << 20),
                (3_000_000, 1, 1 << 27),
                (100, 4096, 1),
            ] {
                let cuts = pair.cuts(rows, dim, most);
                let mut end = 0;
                for cut in &cuts {
                    assert_eq!((cut.start, cut.start % GROUP_ROWS), (end, 0));
                    assert!(!cut.is_empty());
                    let bytes = pair.bytes(cut.len(), dim);
                    assert!(cut.len() <= GROUP_ROWS || bytes.iter().all(|bytes| *bytes <= most), "{pair:?} {bytes:?}");
                    assert!(cut.len().div_ceil(GROUP_ROWS) <= MOST_GROUPS);
                    end = cut.end;
                }
                assert_eq!(end, rows);
            }
        }
    }

    #[test]
    fn a_part_has_two_buffers_and_no_more() {
        let all = Columns::of(&Column::ALL);
        assert_eq!(Pair::of(all), None);
        for column in Column::ALL {
            assert_eq!(Pair::of(Columns::of(&[column])), Some(Pair([Some(column), None])));
        }
        let pair = Pair::of(Columns::of(&[Column::Norms, Column::Embeddings]));
        assert_eq!(pair, Some(Pair([Some(Column::Embeddings), Some(Column::Norms)])));
        assert_eq!(Pair::of(Columns::NONE).map(|none| none.bytes(100, 8)), Some([0, 0]));
    }
}
