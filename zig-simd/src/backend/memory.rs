//! Slices of the arena that several workers use at once: who may touch what, said once.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use bytemuck::Pod;

/// A run of arena memory that belongs to one job until the job is completed.
///
/// The ring's protocol gives it to the backend: the host neither reads, writes nor recycles it between publishing the
/// slot and seeing its completion. Within the backend there may be many [`Self::shared`] views; [`Self::range_mut`]
/// views are disjoint.
#[derive(Clone, Copy)]
pub(crate) struct JobSlice<T> {
    start: NonNull<T>,
    len: usize,
    element: PhantomData<T>,
}

// SAFETY: a JobSlice is a pointer to memory that outlives the job and is shared out by chunk. Sending or sharing the
// pointer touches nothing, and every access goes through the unsafe functions below, whose callers promise
// disjointness. T: Pod has no thread affinity.
unsafe impl<T: Pod + Send> Send for JobSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Pod + Sync> Sync for JobSlice<T> {}

impl<T: Pod> JobSlice<T> {
    /// Takes part of a region: `len` elements from byte `offset`. `None` if that is outside the region or misaligned.
    pub(crate) fn within(region: NonNull<[u8]>, offset: usize, len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?;
        if offset.checked_add(bytes)? > region.len() {
            return None;
        }
        // SAFETY: offset is at most the region's length, so the result is within or one past the same allocation.
        let start = unsafe { region.cast::<u8>().add(offset) }.cast::<T>();
        start.is_aligned().then_some(Self { start, len, element: PhantomData })
    }

    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All elements, to read.
    ///
    /// # Safety
    /// The job is not completed while the slice lives, and nobody writes to the region.
    pub(crate) unsafe fn shared<'a>(self) -> &'a [T] {
        // SAFETY: start is aligned and len elements are within the region (checked by `within`); T is Pod, so any bytes
        // are valid; the caller promises that the memory stays the job's and is not written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Part of the elements, to write. `range` is clipped to the slice.
    ///
    /// # Safety
    /// The job is not completed while the slice lives, and no other view of an overlapping range exists meanwhile.
    pub(crate) unsafe fn range_mut<'a>(self, range: Range<usize>) -> &'a mut [T] {
        let end = range.end.min(self.len);
        let begin = range.start.min(end);
        // SAFETY: begin..end is within the slice; alignment and validity as in `shared`; the caller promises that
        // nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(begin), end - begin) }
    }
}
