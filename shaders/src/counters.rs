//! What the backend counts, for metrics: names that stay, values since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count.
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Submissions to the device's queue that carried jobs.
    pub(crate) submissions: Counter,
    /// Jobs done on the device.
    pub(crate) jobs: Counter,
    /// Segments of corpora copied to the device to stay there.
    pub(crate) uploads: Counter,
    /// Bytes copied to the device for corpora, to stay or streamed.
    pub(crate) uploaded_bytes: Counter,
    /// Segments whose memory was given to others.
    pub(crate) evictions: Counter,
    /// Jobs whose corpus was streamed.
    pub(crate) streamed: Counter,
    /// Times that the device was lost and opened anew.
    pub(crate) rebuilds: Counter,
}

impl Counters {
    /// Name and value of each.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("submissions", &self.submissions),
            ("jobs", &self.jobs),
            ("uploads", &self.uploads),
            ("uploaded_bytes", &self.uploaded_bytes),
            ("evictions", &self.evictions),
            ("streamed", &self.streamed),
            ("rebuilds", &self.rebuilds),
        ];
        all.into_iter().map(|(name, counter)| (name, counter.get())).collect()
    }
}
