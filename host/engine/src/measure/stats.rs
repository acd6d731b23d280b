//! What is told of samples.
//!
//! Percentiles go by nearest rank, so each is a sample; the median of an even number of samples lies halfway between
//! the middle two. Nothing is assumed of the distribution, and no sample is thrown away: times of programs have long
//! tails, and those who wait feel them.

use serde::{Deserialize, Serialize};

/// What is told of the samples of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Samples taken, outliers included.
    pub samples: usize,
    /// Median.
    pub p50_ns: f64,
    /// 95 of 100 samples took no longer.
    pub p95_ns: f64,
    /// 99 of 100 samples took no longer.
    pub p99_ns: f64,
    /// Smallest sample.
    pub min_ns: f64,
    /// Largest sample.
    pub max_ns: f64,
    /// The median's 95 % confidence interval.
    pub ci_ns: [f64; 2],
    /// Samples above the upper quartile by more than three times the quartiles' distance.
    pub outliers: usize,
    /// Why the figures are to be doubted, such as a throttled processor or an interval that stayed wide; none where
    /// they are not.
    pub doubts: Vec<String>,
}

/// How far the confidence interval is to be trusted.
const CONFIDENCE: f64 = 0.95;
/// Samples up to which the binomial is added up. 0.5 to this power is a normal number still.
const COUNTED: usize = 1_000;
/// Of a standard normal variable, 95 of 100 values lie nearer to 0.
const NORMAL: f64 = 1.96;
/// An outlier is above the upper quartile by more than this many times the quartiles' distance (Tukey's outer fence).
const FENCE: f64 = 3.0;

/// What is told of samples (nanoseconds, in any order); none without a sample. Nothing is doubted yet.
#[must_use]
pub fn times(samples: &[f64]) -> Option<Times> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let (low, high) = median_ranks(sorted.len());
    let (lower, upper) = (percentile(&sorted, 25), percentile(&sorted, 75));
    let fence = upper + FENCE * (upper - lower);
    Some(Times {
        samples: sorted.len(),
        p50_ns: middle(&sorted),
        p95_ns: percentile(&sorted, 95),
        p99_ns: percentile(&sorted, 99),
        min_ns: min,
        max_ns: max,
        ci_ns: [sorted[low - 1], sorted[high - 1]],
        outliers: sorted.len() - sorted.partition_point(|sample| *sample <= fence),
        doubts: Vec::new(),
    })
}

/// The median of samples in any order; none without a sample.
#[must_use]
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| middle(&sorted))
}

/// Half the width of the median's confidence interval, relative to the median: 0.03 reads "within 3 %".
#[must_use]
pub fn uncertainty(times: &Times) -> f64 {
    let half = (times.ci_ns[1] - times.ci_ns[0]) / 2.0;
    if half == 0.0 { 0.0 } else { half / times.p50_ns }
}

/// Whether one is quicker beyond doubt: its interval ends before the other's begins. Intervals that touch leave it
/// open.
pub fn quicker(one: &Times, other: &Times) -> bool {
    one.ci_ns[1] < other.ci_ns[0]
}

/// The ranks, counted from 1, of the samples between which the median lies with 95 % certainty.
///
/// Whatever the distribution, the number of samples below its median follows Binomial(n, 1/2), so the interval from the
/// sample of rank l to that of rank n + 1 - l misses with probability 2 P(B < l); l is the largest for which that is at
/// most 5 %. Above 1,000 samples the binomial is taken for normal. Both are Theorem 2.1 and equation (2.1) of J.-Y. Le
/// Boudec, "Performance Evaluation of Computer and Communication Systems" (2010). Fewer than 6 samples cannot be as
/// certain: of 5, smallest and largest enclose the median with 93.75 %.
///
/// The theorem wants samples that do not depend on each other, which those of a drifting machine do: see
/// [`super::sampler`].
fn median_ranks(samples: usize) -> (usize, usize) {
    let n = samples as f64;
    let low = if samples > COUNTED {
        (n / 2.0 - NORMAL / 2.0 * n.sqrt()).floor() as usize
    } else {
        // P(B = 0), then from each term the next.
        let (mut term, mut below, mut low) = (0.5_f64.powi(samples as i32), 0.0, 0);
        while 2.0 * (below + term) <= 1.0 - CONFIDENCE {
            below += term;
            low += 1;
            term *= (samples + 1 - low) as f64 / low as f64;
        }
        low
    };
    let low = low.max(1);
    (low, (samples + 1).saturating_sub(low))
}

/// The smallest sample that at least `percent` of 100 samples do not exceed. `sorted` is not empty.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

/// `sorted` is not empty.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

#[cfg(test)]
mod tests;
