//! Compressed messages that no client's library would make: a few bytes that become a great many zeros.

/// What a zstd block becomes at most.
const BLOCK: usize = 128 << 10;
/// What one step of a deflate stream becomes at most.
const STEP: usize = 258;

/// So many zeros and some more, as zstd.
pub(crate) fn zstd(zeros: usize) -> Vec<u8> {
    let blocks = zeros.div_ceil(BLOCK);
    // The frame's magic number, nothing said of its length, a window of 2 MiB; then blocks of one byte repeated.
    let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for block in 1..=blocks {
        let header = (BLOCK << 3 | 1 << 1 | usize::from(block == blocks)) as u32;
        packed.extend_from_slice(&header.to_le_bytes()[..3]);
        packed.push(0);
    }
    packed
}

/// So many zeros and some more, as gzip without its end.
pub(crate) fn gzip(zeros: usize) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // The last block, with the fixed codes; a zero; then, again and again, "the last byte 258 times": the codes 285 and
    // 0, the first bit of a code first.
    let mut bits = Bits { packed: &mut packed, pending: 0, count: 0 };
    bits.push(0b011, 3);
    bits.push(0b0000_1100, 8);
    (0..zeros.div_ceil(STEP)).for_each(|_| bits.push(0b1010_0011, 13));
    packed
}

struct Bits<'a> {
    packed: &'a mut Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits<'_> {
    /// Adds so many bits, the lowest first.
    fn push(&mut self, bits: u32, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.packed.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }
}

/// A compressed message with the five bytes before it that gRPC wants.
pub(crate) fn framed(packed: &[u8]) -> Vec<u8> {
    let length = u32::try_from(packed.len()).expect("a short message").to_be_bytes();
    [&[1][..], &length, packed].concat()
}
