//! Seeded numbers and shapes that the kernel tests share.

/// Dimensions around the register widths, and the common sizes of embeddings.
pub(crate) const DIMS: [usize; 15] = [0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 128, 384, 768, 1536, 4096];

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn units(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit()).collect()
    }

    /// -127..=127, the extremes often.
    pub(crate) fn code(&mut self) -> i8 {
        match self.below(8) {
            0 => 127,
            1 => -127,
            _ => (self.below(255) as i32 - 127) as i8,
        }
    }

    pub(crate) fn codes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.code()).collect()
    }
}
