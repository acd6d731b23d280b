//! What the backend counts, for metrics: names that stay, values since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count or gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets the gauge.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Kernels launched, whatever for.
    pub launches: Counter,
    /// Times that a working kernel was stopped and launched again, so that memory could be had.
    pub relaunches: Counter,
    /// Times that the kernel had ended because this process stood still.
    pub host_lost: Counter,
    /// Slots and regions that the kernel did not trust. Of kernels that have ended.
    pub faults: Counter,
    /// Jobs that the kernel completed. Of kernels that have ended.
    pub jobs: Counter,
    /// Segments of corpora copied to the device.
    pub uploads: Counter,
    /// Bytes copied to the device for corpora.
    pub uploaded_bytes: Counter,
    /// Corpora whose memory was given to others.
    pub evictions: Counter,
    /// Chunks of device memory that were added after the start.
    pub growths: Counter,
    /// Tiles of streamed corpora copied to the device.
    pub tiles: Counter,
    /// Gauge: device memory held for corpora.
    pub pool_bytes: Counter,
    /// Gauge: bytes of it that corpora fill.
    pub resident_bytes: Counter,
}

impl Counters {
    /// Name and value of each.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("launches", &self.launches),
            ("relaunches", &self.relaunches),
            ("host_lost", &self.host_lost),
            ("faults", &self.faults),
            ("jobs", &self.jobs),
            ("uploads", &self.uploads),
            ("uploaded_bytes", &self.uploaded_bytes),
            ("evictions", &self.evictions),
            ("growths", &self.growths),
            ("tiles", &self.tiles),
            ("pool_bytes", &self.pool_bytes),
            ("resident_bytes", &self.resident_bytes),
        ];
        all.into_iter().map(|(name, counter)| (name, counter.get())).collect()
    }
}
