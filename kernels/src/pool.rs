//! Device memory for corpora: a few large chunks, divided here. No device is touched: the caller asks [`Pool::growth`]
//! for a chunk's size, allocates it, and brings it with [`Pool::add`].
//!
//! - Spans are multiples of 256 bytes and never overlap; a span can be given back once, since [`Pool::give`] takes it.
//! - All chunks together never exceed the budget. A chunk is never given up: the kernel would have to stop for that.
//! - A span lies within one chunk, so a large one may be refused although as many bytes are free. [`Pool::holds`] tells
//!   whether an empty pool would have had room.
//! - Best fit within a chunk, oldest chunk first, neighbours joined at once. Corpora come as few large parts, so there
//!   are tens of gaps, not thousands.

use std::collections::BTreeMap;

use crate::device::DevicePtr;

/// Alignment of spans, and the unit of their lengths.
pub const SPAN_ALIGN: usize = 256;
/// The least that a chunk has, where the budget allows.
pub const LEAST_CHUNK: usize = 256 << 20;

/// What a pool may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The most that all chunks may have together, in bytes.
    pub bytes: usize,
    /// The least that a chunk has, where `bytes` allows: so much is taken at the start.
    pub least_chunk: usize,
}

impl Budget {
    /// A budget with chunks from [`LEAST_CHUNK`] on.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self { bytes, least_chunk: LEAST_CHUNK }
    }
}

/// Memory that was taken from a [`Pool`]. Dropping it loses it until the pool is gone.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "memory that is not given back is lost"]
pub struct Span {
    at: DevicePtr,
    bytes: usize,
    chunk: usize,
}

impl Span {
    /// The first byte; null for a span of no bytes.
    #[must_use]
    pub fn at(&self) -> DevicePtr {
        self.at
    }

    /// Length, a multiple of [`SPAN_ALIGN`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl From<usize> for Budget {
    fn from(bytes: usize) -> Self {
        Self::of(bytes)
    }
}

/// The chunks and what is free of them.
#[derive(Clone, Debug)]
pub struct Pool {
    budget: usize,
    least_chunk: usize,
    chunks: Vec<Chunk>,
    used: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    base: DevicePtr,
    bytes: usize,
    /// Offset and length of each gap; no two touch.
    gaps: BTreeMap<usize, usize>,
}

/// Bytes that a span of `bytes` takes.
#[must_use]
pub fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of(SPAN_ALIGN)
}

impl Pool {
    /// A pool without chunks that may grow to its budget.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        let Budget { bytes, least_chunk } = budget;
        Self { budget: bytes / SPAN_ALIGN * SPAN_ALIGN, least_chunk: rounded(least_chunk), chunks: Vec::new(), used: 0 }
    }

    /// The most that all chunks may have together.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// Bytes of all spans.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// The first byte of each chunk.
    pub fn chunks(&self) -> impl Iterator<Item = DevicePtr> {
        self.chunks.iter().map(|chunk| chunk.base)
    }

    /// Spans of these sizes, in their order: all, or none is taken and the answer is how many bytes found no room.
    ///
    /// # Errors
    /// Bytes of the spans that did not fit into any gap.
    pub fn take_all(&mut self, sizes: &[usize]) -> Result<Vec<Span>, usize> {
        // Large ones first: they have the fewest gaps to choose from.
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(sizes[*index]));
        let mut taken: Vec<(usize, Span)> = Vec::with_capacity(sizes.len());
        let mut lacking = 0;
        for index in order {
            match self.take(sizes[index]) {
                Some(span) => taken.push((index, span)),
                None => lacking += rounded(sizes[index]),
            }
        }
        if lacking > 0 {
            taken.into_iter().for_each(|(_, span)| self.give(span));
            return Err(lacking);
        }
        taken.sort_by_key(|(index, _)| *index);
        Ok(taken.into_iter().map(|(_, span)| span).collect())
    }

    /// A span from the smallest gap that holds it, of the oldest chunk that has one. So a chunk that is added takes
    /// only what found no room before, and a growth by what was lacking suffices.
    fn take(&mut self, bytes: usize) -> Option<Span> {
        let bytes = rounded(bytes);
        if bytes == 0 {
            return Some(Span { at: DevicePtr::NULL, bytes, chunk: 0 });
        }
        let gaps = self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            chunk.gaps.iter().filter(|(_, len)| **len >= bytes).map(move |(offset, len)| (number, *len, *offset))
        });
        let (number, len, offset) = gaps.min()?;
        let chunk = &mut self.chunks[number];
        chunk.gaps.remove(&offset);
        if len > bytes {
            chunk.gaps.insert(offset + bytes, len - bytes);
        }
        self.used += bytes;
        Some(Span { at: chunk.base.offset(offset), bytes, chunk: number })
    }

    /// Takes a span back.
    pub fn give(&mut self, span: Span) {
        if span.bytes == 0 {
            return;
        }
        self.used -= span.bytes;
        let chunk = &mut self.chunks[span.chunk];
        let mut offset = (span.at.0 - chunk.base.0) as usize;
        let mut len = span.bytes;
        if let Some(next) = chunk.gaps.remove(&(offset + len)) {
            len += next;
        }
        if let Some((&before, &gap)) = chunk.gaps.range(..offset).next_back()
            && before + gap == offset
        {
            offset = before;
            len += gap;
        }
        chunk.gaps.insert(offset, len);
    }

    /// Size of the chunk to add so that `lacking` more bytes fit: as much as there is already, but at least the least
    /// chunk and what is lacking, within the budget. `None` if the budget does not allow it.
    #[must_use]
    pub fn growth(&self, lacking: usize) -> Option<usize> {
        let left = self.budget - self.bytes();
        let wanted = self.bytes().max(self.least_chunk).max(rounded(lacking)).min(left);
        (wanted > 0 && lacking <= left).then_some(wanted)
    }

    /// Brings a chunk. `bytes` is a multiple of [`SPAN_ALIGN`] and within [`Pool::growth`]; `base` is aligned as well.
    pub fn add(&mut self, base: DevicePtr, bytes: usize) {
        debug_assert!(bytes.is_multiple_of(SPAN_ALIGN) && base.0.is_multiple_of(SPAN_ALIGN as u64));
        debug_assert!(self.bytes() + bytes <= self.budget, "the chunk exceeds the budget");
        self.chunks.push(Chunk { base, bytes, gaps: BTreeMap::from([(0, bytes)]) });
    }

    /// There is no more memory to be had: what there is becomes the budget.
    pub fn stop_growing(&mut self) {
        self.budget = self.bytes();
    }

    /// Whether spans of these sizes would fit if nothing else were there.
    #[must_use]
    pub fn holds(&self, sizes: &[usize]) -> bool {
        let mut empty = self.clone();
        for chunk in &mut empty.chunks {
            chunk.gaps = BTreeMap::from([(0, chunk.bytes)]);
        }
        empty.used = 0;
        match empty.take_all(sizes) {
            Ok(_) => true,
            Err(lacking) => empty.growth(lacking).is_some(),
        }
    }
}
