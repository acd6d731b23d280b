//! What of which segment lies in the device's memory.
//!
//! Promises
//! - A pair of columns of a segment is uploaded once for all versions of its corpus, and the codes once for all
//!   metrics, and for all views that hide rows of it.
//! - What somebody holds (an [`Arc`] of a [`Resident`]) is not evicted. When room is needed, segments that no corpus
//!   has any more go first, then what was used least recently.
//! - What is resident stays within the budget, but for memory that the device still reads after its eviction. Not
//!   counted are the pieces on their way up (`filler.rs`: two at most, none where the device's memory is the host's),
//!   the jobs' workspaces, and the buffers through which a corpus is streamed.
//! - What a dropped corpus leaves behind is freed when a corpus is asked for next.
//! - A lookup takes a short lock, whatever is being uploaded meanwhile. One thread uploads at a time.
//!
//! A corpus that finds no room is not refused: the dispatcher streams it (`stream.rs`).

mod filler;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use megaring_core::Lacking;
use megaring_core::corpus::{CorpusView, SegmentData, SegmentView};
use wgpu::{BindGroup, Buffer, BufferUsages};

use self::filler::Filler;
use crate::counters::Counters;
use crate::cut::Pair;
use crate::gpu::{Gpu, OutOfMemory};
use crate::operation::Part;

/// Why a corpus is not resident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The budget or the device has no room for it now.
    NoRoom,
    /// It lacks what the operation reads, or the device failed.
    Failed(String),
}

/// A pair of columns of one segment.
pub(crate) struct Resident {
    /// The device it lies on: one that was lost may leave entries behind that were on their way.
    device: u64,
    segment: Weak<SegmentView>,
    /// The segment's data, which views that hide rows have in common.
    data: Weak<dyn SegmentData>,
    parts: Vec<Held>,
    /// Bytes in the two buffers of all parts.
    bytes: [usize; 2],
    used: AtomicU64,
}

struct Held {
    binding: BindGroup,
    first: Buffer,
    /// Within the segment.
    rows: Range<usize>,
}

/// Segments by their addresses, which are theirs as long as they live.
type Key = (usize, Pair);

/// See the module's text.
pub(crate) struct Residency {
    budget: usize,
    counters: Arc<Counters>,
    uploading: Mutex<()>,
    entries: Mutex<HashMap<Key, Arc<Resident>>>,
    clock: AtomicU64,
}

impl Residency {
    /// Keeps at most `budget` bytes on the device.
    pub(crate) fn new(budget: usize, counters: Arc<Counters>) -> Self {
        let (uploading, entries, clock) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        Self { budget, counters, uploading, entries, clock }
    }

    /// The bytes that may be kept.
    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// A version's segments, if all of them are there; to be held as long as they are to stay.
    pub(crate) fn find(&self, gpu: &Gpu, view: &CorpusView, pair: Pair) -> Option<Vec<Arc<Resident>>> {
        let entries = self.lock();
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let found = |(_, segment): (usize, &Arc<SegmentView>)| {
            let entry = entries.get(&key(segment, pair)).filter(|entry| entry.is_of(gpu, segment))?;
            entry.used.store(now, Ordering::Relaxed);
            Some(entry.clone())
        };
        view.segments().map(found).collect()
    }

    /// [`Self::find`], after bringing what is missing.
    ///
    /// # Errors
    /// See [`Absent`]. What was brought until then stays as long as there is room.
    pub(crate) fn bring(&self, gpu: &Gpu, view: &CorpusView, pair: Pair) -> Result<Vec<Arc<Resident>>, Absent> {
        self.forget_dropped();
        if let Some(found) = self.find(gpu, view, pair) {
            return Ok(found);
        }
        let _one_at_a_time = self.uploading.lock().unwrap_or_else(PoisonError::into_inner);
        let whole: usize = view.segments().flat_map(|(_, segment)| pair.bytes(segment.rows(), view.dim())).sum();
        if whole > self.budget {
            return Err(Absent::NoRoom);
        }
        let largest = view.segments().flat_map(|(_, segment)| pair.bytes(segment.rows(), view.dim())).max();
        let mut filler = Filler::new(gpu, largest.unwrap_or(0));
        let bring_one = |(_, segment)| match self.find_one(gpu, segment, pair) {
            Some(entry) => Ok(entry),
            None => self.upload(&mut filler, segment, view.dim(), pair),
        };
        let held = view.segments().map(bring_one).collect();
        filler.finish();
        held
    }

    /// What [`Self::bring`] would have to bring now.
    pub(crate) fn lacking(&self, gpu: &Gpu, view: &CorpusView, pair: Pair) -> Lacking {
        let bytes = |segment: &SegmentView| -> usize { pair.bytes(segment.rows(), view.dim()).iter().sum() };
        let whole: usize = view.segments().map(|(_, segment)| bytes(segment)).sum();
        if whole > self.budget {
            return Lacking { bytes: whole as u64, stays: false };
        }
        let entries = self.lock();
        let lacks = |(_, segment): (usize, &Arc<SegmentView>)| {
            if entries.get(&key(segment, pair)).is_some_and(|entry| entry.is_of(gpu, segment)) {
                return 0;
            }
            let [first, second] = pair.bytes(segment.rows(), view.dim());
            let shares = sharer(&entries, gpu, segment, pair, [first, second]).is_some();
            (if shares { second } else { first + second }) as u64
        };
        Lacking { bytes: view.segments().map(lacks).sum(), stays: true }
    }

    /// Forgets all: the device is gone.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn find_one(&self, gpu: &Gpu, segment: &Arc<SegmentView>, pair: Pair) -> Option<Arc<Resident>> {
        let entry = self.lock().get(&key(segment, pair)).filter(|entry| entry.is_of(gpu, segment)).cloned()?;
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(entry)
    }

    fn upload(
        &self,
        filler: &mut Filler<'_>,
        segment: &Arc<SegmentView>,
        dim: usize,
        pair: Pair,
    ) -> Result<Arc<Resident>, Absent> {
        let gpu = filler.gpu;
        let bytes = pair.bytes(segment.rows(), dim);
        let sharer = sharer(&self.lock(), gpu, segment, pair, bytes);
        let new = if sharer.is_some() { bytes[1] } else { bytes[0] + bytes[1] };
        self.make_room(new)?;
        let parts = match Self::copy(filler, segment, dim, pair, sharer.as_deref()) {
            Err(Trouble::Full(_)) => {
                // The device has less than the budget says: what nobody holds makes way, and then once more.
                self.evict_until(|_| false);
                Self::copy(filler, segment, dim, pair, sharer.as_deref())
            }
            done => done,
        };
        let parts = parts.map_err(|trouble| match trouble {
            Trouble::Full(full) => {
                tracing::debug!(%full, "a corpus is streamed");
                Absent::NoRoom
            }
            Trouble::Missing => Absent::Failed("a segment lacks what the operation reads".into()),
        })?;
        gpu.health().map_err(Absent::Failed)?;
        self.counters.uploads.add(1);
        self.counters.uploaded_bytes.add(new as u64);
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        let (view, data) = (Arc::downgrade(segment), Arc::downgrade(segment.shared_data()));
        let entry = Arc::new(Resident { device: gpu.number, segment: view, data, parts, bytes, used });
        self.lock().insert(key(segment, pair), entry.clone());
        Ok(entry)
    }

    fn copy(
        filler: &mut Filler<'_>,
        segment: &SegmentView,
        dim: usize,
        pair: Pair,
        sharer: Option<&Resident>,
    ) -> Result<Vec<Held>, Trouble> {
        let gpu = filler.gpu;
        let mut buffer = |bytes: &[u8]| filler.buffer(bytes, BufferUsages::STORAGE);
        let cuts = pair.cuts(segment.rows(), dim, gpu.part_bytes);
        let mut parts = Vec::with_capacity(cuts.len());
        for (number, rows) in cuts.into_iter().enumerate() {
            let [first, second] = pair.contents(segment, dim, &rows).ok_or(Trouble::Missing)?;
            let first = match sharer.and_then(|entry| entry.parts.get(number)) {
                Some(held) => held.first.clone(),
                None => buffer(&first).map_err(Trouble::Full)?,
            };
            let second = if second.is_empty() { first.clone() } else { buffer(&second).map_err(Trouble::Full)? };
            parts.push(Held { binding: gpu.bind_part(&first, &second), first, rows });
        }
        Ok(parts)
    }

    fn make_room(&self, bytes: usize) -> Result<(), Absent> {
        let room = self.budget.saturating_sub(bytes);
        self.evict_until(|resident| resident <= room);
        if resident_bytes(&self.lock()) <= room { Ok(()) } else { Err(Absent::NoRoom) }
    }

    /// Evicts what nobody holds, the longest unused first, until `enough` says so of the bytes that are left.
    fn evict_until(&self, enough: impl Fn(usize) -> bool) {
        self.forget_dropped();
        let mut entries = self.lock();
        while !enough(resident_bytes(&entries)) {
            let idle = entries.iter().filter(|(_, entry)| Arc::strong_count(entry) == 1);
            let oldest = idle.min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed)).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return };
            entries.remove(&oldest);
            self.counters.evictions.add(1);
        }
    }

    /// Frees what no corpus has any more; not under the lock, since a driver may take its time over that.
    fn forget_dropped(&self) {
        let dropped: Vec<_> = self.lock().extract_if(|_, entry| entry.segment.strong_count() == 0).collect();
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Resident>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resident {
    fn is_of(&self, gpu: &Gpu, segment: &Arc<SegmentView>) -> bool {
        self.device == gpu.number
            && std::ptr::eq(self.segment.as_ptr(), Arc::as_ptr(segment))
            && self.segment.strong_count() > 0
    }

    /// Its parts, in a corpus in which the segment begins at row `start`.
    pub(crate) fn parts(&self, start: usize) -> impl Iterator<Item = Part> {
        let at = move |rows: &Range<usize>| start + rows.start..start + rows.end;
        self.parts.iter().map(move |held| Part { binding: held.binding.clone(), rows: at(&held.rows) })
    }
}

/// The parts of a version whose segments these are.
pub(crate) fn parts_of(view: &CorpusView, entries: &[Arc<Resident>]) -> Vec<Part> {
    view.segments().zip(entries).flat_map(|((start, _), entry)| entry.parts(start)).collect()
}

enum Trouble {
    Full(OutOfMemory),
    Missing,
}

fn key(segment: &Arc<SegmentView>, pair: Pair) -> Key {
    (Arc::as_ptr(segment).addr(), pair)
}

/// An entry whose first buffers hold the same: the segment's codes, whatever metric it is for, and whatever rows of it
/// a view hides.
fn sharer(
    entries: &HashMap<Key, Arc<Resident>>,
    gpu: &Gpu,
    segment: &Arc<SegmentView>,
    pair: Pair,
    bytes: [usize; 2],
) -> Option<Arc<Resident>> {
    let of_same_first = entries.iter().filter(|((_, other), _)| other.first() == pair.first());
    // What is of one size is cut alike.
    let mut found = of_same_first.map(|(_, entry)| entry).filter(|entry| entry.bytes == bytes);
    // A weak pointer keeps its address from other use.
    let address = Arc::as_ptr(segment.shared_data()).addr();
    found.find(|entry| entry.device == gpu.number && entry.data.as_ptr().addr() == address).cloned()
}

/// Bytes of all entries, first buffers that several share counted once.
fn resident_bytes(entries: &HashMap<Key, Arc<Resident>>) -> usize {
    let mut counted = HashSet::new();
    let mut bytes = 0;
    for ((_, pair), entry) in entries {
        bytes += entry.bytes[1];
        if counted.insert((entry.data.as_ptr().addr(), pair.first(), entry.bytes)) {
            bytes += entry.bytes[0];
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
