//! Samples and what is told of them.

use std::time::Duration;

use serde_json::{Value, json};

/// Durations of one kind, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Nanoseconds: smallest, median, 90 and 99 of 100, largest, mean; percentiles by nearest rank, so each is a
    /// sample.
    pub(crate) fn summary(&self) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return json!({ "count": 0 }) };
        let mean = sorted.iter().sum::<u64>() as f64 / sorted.len() as f64;
        json!({
            "count": sorted.len(),
            "min_ns": min,
            "p50_ns": percentile(&sorted, 50),
            "p90_ns": percentile(&sorted, 90),
            "p99_ns": percentile(&sorted, 99),
            "max_ns": max,
            "mean_ns": mean,
        })
    }
}

/// The smallest value that at least `percent` of 100 values do not exceed. `sorted` is not empty.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([1, 50, 90, 99, 100].map(|percent| percentile(&hundred, percent)), [1, 50, 90, 99, 100]);
        assert_eq!([1, 50, 99].map(|percent| percentile(&[7], percent)), [7; 3]);
        assert_eq!([50, 51, 99].map(|percent| percentile(&[1, 9], percent)), [1, 9, 9]);
    }

    #[test]
    fn a_summary_needs_no_order_and_no_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.summary(), json!({ "count": 0 }));
        for nanos in [30, 10, 20] {
            samples.push(Duration::from_nanos(nanos));
        }
        let summary = samples.summary();
        assert_eq!((&summary["min_ns"], &summary["p50_ns"], &summary["max_ns"]), (&json!(10), &json!(20), &json!(30)));
        assert_eq!(summary["mean_ns"], json!(20.0));
    }
}
