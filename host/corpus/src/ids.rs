//! Rows by the ids that their callers gave them.

use megaring_core::Error;
use megaring_core::corpus::{CorpusView, MemoryIds};
use rayon::prelude::*;
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::columns::MEMORY_ID;

/// Ids that are looked for.
pub(crate) struct IdSet {
    sorted: Vec<u64>,
    /// A bit for each hash that occurs: most rows need no further look.
    hashes: Vec<u64>,
    shift: u32,
}

/// Bits for each id, at least.
const BITS_PER_ID: usize = 16;
/// Rows of one parallel task.
const RUN: usize = 1 << 16;

impl IdSet {
    pub(crate) fn new(ids: &[u64]) -> Self {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let bits = (sorted.len() * BITS_PER_ID).next_power_of_two().max(64);
        let mut set = Self { sorted, hashes: vec![0; bits / 64], shift: 64 - bits.trailing_zeros() };
        for at in 0..set.sorted.len() {
            let hash = set.hash(set.sorted[at]);
            set.hashes[hash / 64] |= 1 << (hash % 64);
        }
        set
    }

    /// Fibonacci hashing: the upper bits of a product with 2^64 over the golden ratio.
    fn hash(&self, id: u64) -> usize {
        (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        let hash = self.hash(id);
        self.hashes[hash / 64] & 1 << (hash % 64) != 0 && self.sorted.binary_search(&id).is_ok()
    }

    /// The ids, each once, in rising order.
    pub(crate) fn ids(&self) -> &[u64] {
        &self.sorted
    }

    /// The visible rows of a view that have one of the ids.
    pub(crate) fn rows_of(&self, view: &CorpusView) -> RoaringBitmap {
        find(
            view,
            |id| self.contains(id),
            |first, last| {
                let begin = self.sorted.partition_point(|id| *id < first);
                self.sorted[begin..].iter().take_while(|id| **id < last).copied().collect()
            },
        )
    }
}

/// Ids up to which a set is worth being laid out for looking them up.
const MOST_SORTED: u64 = 1 << 20;

/// The visible rows of a view that have an id of a set, however large.
pub(crate) fn rows_with(view: &CorpusView, ids: &RoaringTreemap) -> RoaringBitmap {
    if ids.len() <= MOST_SORTED {
        return IdSet::new(&ids.iter().collect::<Vec<u64>>()).rows_of(view);
    }
    find(view, |id| ids.contains(id), |first, last| (first..last).filter(|id| ids.contains(*id)).collect())
}

/// The visible rows whose id is among those wanted. `within` has the wanted ids from one on to below another.
fn find(
    view: &CorpusView,
    is_wanted: impl Fn(u64) -> bool + Sync,
    within: impl Fn(u64, u64) -> Vec<u64>,
) -> RoaringBitmap {
    let mut rows = RoaringBitmap::new();
    for (start, segment) in view.segments() {
        let shows = |row: &usize| segment.visible().is_none_or(|visible| visible.contains(*row));
        let found: Vec<usize> = match segment.data().memory_ids() {
            MemoryIds::From(first) => {
                let wanted = within(first, first.saturating_add(segment.rows() as u64));
                wanted.into_iter().map(|id| (id - first) as usize).filter(shows).collect()
            }
            MemoryIds::Given(ids) => {
                let of_run = |(run, ids): (usize, &[u64])| {
                    let found = ids.iter().enumerate().filter(|(_, id)| is_wanted(**id));
                    found.map(move |(at, _)| run * RUN + at).filter(shows).collect::<Vec<usize>>()
                };
                ids.par_chunks(RUN).enumerate().flat_map_iter(of_run).collect()
            }
        };
        rows.extend(found.into_iter().map(|row| (start + row) as u32));
    }
    rows
}

/// Places in `ids` whose id comes again later.
pub(crate) fn repeated(ids: &[u64]) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.par_sort_unstable_by_key(|at| (ids[*at], *at));
    let pairs = order.windows(2).filter(|pair| ids[pair[0]] == ids[pair[1]]);
    pairs.map(|pair| (pair[0], pair[1])).collect()
}

/// Refuses rows of which one has the id of another row, be it of the corpus or among them.
pub(crate) fn check_unique(view: &CorpusView, ids: &[u64]) -> Result<(), Error> {
    if let Some((first, again)) = repeated(ids).into_iter().min_by_key(|(_, again)| *again) {
        let reason = format!("{} is the id of row {first} too, and the corpus has each id once", ids[again]);
        return Err(Error::row(MEMORY_ID, again as u64, reason));
    }
    let found = IdSet::new(ids).rows_of(view);
    let taken: Vec<u64> = found.iter().map(|row| view.label(row).0).collect();
    let taken = IdSet::new(&taken);
    match ids.iter().position(|id| taken.contains(*id)) {
        Some(row) => {
            let reason = format!("{} is in the corpus already; an upsert replaces its row", ids[row]);
            Err(Error::row(MEMORY_ID, row as u64, reason))
        }
        None => Ok(()),
    }
}

/// The least id that no row, hidden ones included, has and none above it.
pub(crate) fn next_unused(view: &CorpusView) -> Option<u64> {
    let last = view.segments().filter_map(|(_, segment)| match segment.data().memory_ids() {
        MemoryIds::From(first) => Some(first.saturating_add(segment.rows() as u64 - 1)),
        MemoryIds::Given(ids) => ids.par_iter().copied().max(),
    });
    match last.max() {
        Some(last) => last.checked_add(1),
        None => Some(0),
    }
}
