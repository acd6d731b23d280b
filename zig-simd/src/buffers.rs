//! Bytes aligned to a cache line, so that a 64-byte load never straddles two.

/// A fixed number of bytes that begin at a multiple of 64.
#[derive(Debug, Clone)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl AlignedBytes {
    /// `length` bytes, each `value`.
    pub fn filled(length: usize, value: u8) -> AlignedBytes {
        AlignedBytes { lines: vec![Line([value; 64]); length.div_ceil(64)], length }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the lines are contiguous initialised bytes without padding (64 bytes, aligned to 64), and `length` is at most 64 times
        // their number; the borrow of `self` keeps them alive and unwritten.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; the borrow of `self` is exclusive, and every byte pattern is a legal `Line`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
