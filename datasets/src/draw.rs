//! Portable random draws: the same bits on every platform, whatever the thread that asks.
//!
//! Each row of each generator has a ChaCha8 stream of its own, keyed by (seed, purpose) and numbered by the row, so
//! rows can be made in any order. Only integer arithmetic and IEEE-exact float operations follow; the one
//! transcendental function (`exp`) is pure-Rust `libm`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of draws.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream numbered `stream` of the generator `purpose` (at most 24 bytes) under `seed`.
    ///
    /// The key is spelled out here, because `seed_from_u64` may change between versions of `rand_core`.
    pub(crate) fn new(seed: u64, purpose: &str, stream: u64) -> Draw {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        for (slot, byte) in key[8..].iter_mut().zip(purpose.bytes()) {
            *slot = byte;
        }
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Draw(rng)
    }

    /// Uniform in [0, 1), 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `low..high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..bound` (multiply and shift: the bias is below `bound / 2^64`); 0 where `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// One of `choices`, which must not be empty.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Nearly standard normal: twelve uniforms, summed and centred (variance 12 · 1/12), so within ±6.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Log-normal with this median: `median · exp(sigma · normal)`.
    pub(crate) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * libm::exp(sigma * self.normal())
    }

    /// Fills `out` with nearly standard normal values: four 16-bit uniforms each, summed, centred and scaled.
    pub(crate) fn fill_normal(&mut self, out: &mut [f32]) {
        /// Mean of the sum of four uniforms over 0..=65535.
        const CENTRE: f32 = 2.0 * 65535.0;
        /// Their standard deviation, sqrt(4 · (65536² - 1) / 12).
        const DEVIATION: f32 = 37_837.227;
        let mut bytes = [0u8; 512];
        for chunk in out.chunks_mut(64) {
            let used = &mut bytes[..chunk.len() * 8];
            self.0.fill_bytes(used);
            for (value, draw) in chunk.iter_mut().zip(used.as_chunks::<8>().0) {
                let [a, b, c, d, e, f, g, h] = draw.map(u32::from);
                let sum = a + c + e + g + ((b + d + f + h) << 8);
                *value = (sum as f32 - CENTRE) / DEVIATION;
            }
        }
    }
}

/// FNV-1a, 64 bits: the checksum in which golden values are written down.
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0
    }
}
