//! A corpus too large for device memory, tile after tile: how it is cut, and the thread's work that copies the tiles.
//!
//! A pass over the corpus is `n` tiles; tile `t` of a session is tile `t mod n` of its pass. The device has two
//! buffers, and the tiles of a pass use them by turns. The two sides count: `ready` is how many tiles the host has
//! copied, `consumed` how many the device is done with.
//!
//! - A tile is copied only into a buffer whose tile the device is done with ([`consumed_before`]). The copy is done
//!   before `ready` says so.
//! - Each job on the corpus consumes all tiles of one pass, in the ring's order, so the copier need not know of jobs:
//!   it keeps both buffers full, pass after pass, and what it has copied ahead serves the next job.
//! - The thread polls `consumed` while jobs may be under way and is parked otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::cast_slice;
use megaring_core::Metric;
use megaring_core::corpus::CorpusView;
use megaring_core::screen::{COLUMNS, GROUP_ROWS, groups, packed_len};
use megaring_ring::memory::{Line, View};

use crate::counters::Counters;
use crate::device::{Device, DeviceError, DevicePtr};
use crate::pool::rounded;

/// The most that a tile takes.
pub const MOST_TILE_BYTES: usize = 256 << 20;
/// Bytes of a group's columns.
const GROUP_COLUMNS: usize = COLUMNS * GROUP_ROWS * size_of::<f32>();

/// Whole groups of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Which segment of the version, empty ones counted.
    pub segment: usize,
    /// Its first group within the segment.
    pub first_group: usize,
    /// Groups of 16 rows.
    pub groups: usize,
    /// Its first row within the corpus.
    pub first_row: usize,
    /// Rows; the last group of a segment may not be full.
    pub rows: usize,
}

/// How a version is cut, and how a buffer is laid out: codes from its first byte on, then columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// In row order; an even number wherever some tile has two groups.
    pub tiles: Vec<Tile>,
    /// Groups of the largest tile.
    pub largest: usize,
    /// Where the columns begin in a buffer.
    pub columns_at: usize,
    /// Bytes of a buffer.
    pub buffer_bytes: usize,
}

impl Cut {
    /// Cuts a version into tiles of at most `most_groups`, those of a segment about equal.
    #[must_use]
    pub fn new(view: &CorpusView, most_groups: usize) -> Self {
        let mut tiles = Vec::new();
        for (number, (start, segment)) in view.segments().enumerate() {
            let all = groups(segment.rows());
            let count = all.div_ceil(most_groups.max(1));
            for piece in 0..count {
                let (begin, end) = (all * piece / count, all * (piece + 1) / count);
                tiles.push(tile(number, start, segment.rows(), begin, end));
            }
        }
        // With an even number the buffers alternate across passes too, so the next pass's first tile need not wait for
        // this one's last.
        if tiles.len() % 2 == 1
            && let Some(at) = (0..tiles.len()).max_by_key(|at| tiles[*at].groups)
            && tiles[at].groups > 1
        {
            let Tile { segment, first_group, groups, first_row, rows } = tiles[at];
            let (start, end) = (first_row - first_group * GROUP_ROWS, first_group * GROUP_ROWS + rows);
            let middle = first_group + groups / 2;
            tiles[at] = tile(segment, start, end, first_group, middle);
            tiles.insert(at + 1, tile(segment, start, end, middle, first_group + groups));
        }
        let largest = tiles.iter().map(|tile| tile.groups).max().unwrap_or(0);
        let columns_at = rounded(packed_len(largest * GROUP_ROWS, view.dim()));
        Self { tiles, largest, columns_at, buffer_bytes: columns_at + largest * GROUP_COLUMNS }
    }

    /// Groups of `dim` elements that fit a tile of `bytes`.
    #[must_use]
    pub fn groups_in(bytes: usize, dim: usize) -> usize {
        let spare = rounded(1) - 1;
        bytes.saturating_sub(spare) / (packed_len(GROUP_ROWS, dim) + GROUP_COLUMNS)
    }
}

/// Groups `begin..end` of a segment of `rows` rows that begins at row `start` of the corpus.
fn tile(segment: usize, start: usize, rows: usize, begin: usize, end: usize) -> Tile {
    let first = begin * GROUP_ROWS;
    Tile {
        segment,
        first_group: begin,
        groups: end - begin,
        first_row: start + first,
        rows: (end * GROUP_ROWS).min(rows) - first,
    }
}

/// The buffer of tile `t` of a session whose passes have `n` tiles.
#[must_use]
pub fn buffer_of(t: u64, n: u64) -> usize {
    (t % n % 2) as usize
}

/// How many tiles the device must be done with before tile `t` may be copied: all but the one before it, which is in
/// the other buffer. Where a pass has an odd number of tiles, its last one and the next pass's first share a buffer.
#[must_use]
pub fn consumed_before(t: u64, n: u64) -> u64 {
    let shares = n % 2 == 1 && t.is_multiple_of(n);
    if shares { t } else { t.saturating_sub(1) }
}

/// What the copying thread works with.
pub(crate) struct Feed {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) counters: Arc<Counters>,
    /// `ready` and `consumed`, both 0 when the session begins.
    pub(crate) lines: View<Line>,
    pub(crate) cut: Cut,
    pub(crate) buffers: [DevicePtr; 2],
    pub(crate) metric: Metric,
    /// Set when nothing consumes any more.
    pub(crate) stop: AtomicBool,
}

impl Feed {
    /// Copies tiles until it is told to stop. `rest` is called when both buffers are full: it lets time pass, or parks
    /// the thread for as long as no job is under way. It may take the version out, so that an idle session does not
    /// keep it in memory; it says false where waiting is in vain.
    pub(crate) fn run(
        &self,
        view: Arc<CorpusView>,
        mut rest: impl FnMut(&mut Option<Arc<CorpusView>>) -> bool,
    ) -> Result<(), DeviceError> {
        let n = self.cut.tiles.len() as u64;
        let mut view = Some(view);
        let mut t = 0;
        while n > 0 && !self.stop.load(Ordering::Acquire) {
            // Acquire: the device's reads of the buffer's former tile come before this count, the copy comes after.
            let consumed = self.lines[1].word.load(Ordering::Acquire);
            if let Some(view) = view.as_ref().filter(|_| consumed >= consumed_before(t, n)) {
                self.copy(view, self.cut.tiles[(t % n) as usize], self.buffers[buffer_of(t, n)])?;
                t += 1;
                // Release: who sees this count sees the tile, and the upload was done when it returned.
                self.lines[0].word.store(t, Ordering::Release);
            } else if !rest(&mut view) {
                break;
            }
        }
        Ok(())
    }

    fn copy(&self, view: &CorpusView, tile: Tile, buffer: DevicePtr) -> Result<(), DeviceError> {
        let Some((_, segment)) = view.segments().nth(tile.segment) else { return Ok(()) };
        let group = packed_len(GROUP_ROWS, view.dim());
        let (begin, end) = (tile.first_group, tile.first_group + tile.groups);
        let columns: &[u8] = cast_slice(segment.columns(self.metric));
        let torn = || DeviceError::Other("a segment's codes are shorter than its rows".into());
        let codes = segment.data().codes().packed.get(begin * group..end * group).ok_or_else(torn)?;
        let columns = columns.get(begin * GROUP_COLUMNS..end * GROUP_COLUMNS).ok_or_else(torn)?;
        self.device.upload(buffer, codes)?;
        self.device.upload(buffer.offset(self.cut.columns_at), columns)?;
        self.counters.tiles.add(1);
        self.counters.uploaded_bytes.add((codes.len() + columns.len()) as u64);
        Ok(())
    }
}
