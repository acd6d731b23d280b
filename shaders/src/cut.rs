//! How a segment is cut into parts that fit a binding, and the bytes of a part.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::cast_slice;
use megaring_core::Metric;
use megaring_core::corpus::SegmentView;
use megaring_core::screen::{COLUMNS, GROUP_ROWS, QUAD, quads};

use crate::operation::nearest;

/// Groups of a part at most: a dispatch has a workgroup for each along one axis.
const MOST_GROUPS: usize = 65_535;

/// What of a corpus an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// The int8 codes, and the screen's columns under a metric.
    Screen(Metric),
    /// The rows in float32, and their norms.
    Rows,
    /// The 5-D coordinates in float32.
    Coordinates,
}

impl Need {
    /// Bytes that a group of 16 rows takes in the two buffers of a part. A part of coordinates has one buffer, bound twice.
    pub(crate) fn group_bytes(self, dim: usize) -> [usize; 2] {
        match self {
            Self::Screen(_) => [quads(dim) * GROUP_ROWS * QUAD, COLUMNS * GROUP_ROWS * size_of::<f32>()],
            Self::Rows => [GROUP_ROWS * dim * size_of::<f32>(), GROUP_ROWS * size_of::<f64>()],
            Self::Coordinates => [GROUP_ROWS * size_of::<[f32; 5]>(), 0],
        }
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
        let data = segment.data();
        let groups = rows.start / GROUP_ROWS..rows.end.div_ceil(GROUP_ROWS);
        let [first, second] = self.group_bytes(dim);
        let of_groups = |bytes: &'a [u8], each: usize| bytes.get(groups.start * each..groups.end * each);
        match self {
            Self::Screen(metric) => {
                let codes = of_groups(data.codes().packed, first)?;
                let columns = of_groups(cast_slice(segment.columns(metric)), second)?;
                Some([codes.into(), columns.into()])
            }
            Self::Rows => {
                let values = data.embeddings().get(rows.start * dim..rows.end * dim)?;
                let norms: Vec<f64> = data.norms2().get(rows.clone())?.iter().map(|norm2| norm2.sqrt()).collect();
                Some([cast_slice(values).into(), bytemuck::allocation::pod_collect_to_vec::<f64, u8>(&norms).into()])
            }
            Self::Coordinates => {
                let columns = data.coordinates()?;
                if columns.iter().any(|column| column.len() < rows.end) {
                    return None;
                }
                let columns = columns.map(|column| &column[rows.clone()]);
                Some([nearest::columns(&columns).into(), (&[]).into()])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_cover_all_rows_and_fit() {
        let needs = [Need::Screen(Metric::Dot), Need::Rows, Need::Coordinates];
        for need in needs {
            for (rows, dim, most) in [
                (0, 8, 1 << 20),
                (1, 1, 256),
                (17, 7, 256),
                (5_562, 384, 1 << 20),
                (3_000_000, 1, 1 << 27),
                (100, 4096, 1),
            ] {
                let cuts = need.cuts(rows, dim, most);
                let mut end = 0;
                for cut in &cuts {
                    assert_eq!((cut.start, cut.start % GROUP_ROWS), (end, 0));
                    assert!(!cut.is_empty());
                    let bytes = need.bytes(cut.len(), dim);
                    assert!(cut.len() <= GROUP_ROWS || bytes.iter().all(|bytes| *bytes <= most), "{need:?} {bytes:?}");
                    assert!(cut.len().div_ceil(GROUP_ROWS) <= MOST_GROUPS);
                    end = cut.end;
                }
                assert_eq!(end, rows);
            }
        }
    }
}
