//! What is told of samples, beside tables, other ways to reckon it, and how often intervals are right.

use proptest::prelude::*;

use super::*;
use crate::measure::random::Random;

fn told(samples: &[f64]) -> Times {
    times(samples).expect("there are samples")
}

#[test]
fn percentiles_are_samples_by_nearest_rank_and_the_median_is_the_middle() {
    let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
    let times = told(&hundred);
    assert_eq!((times.p50_ns, times.p95_ns, times.p99_ns), (50.5, 95.0, 99.0));
    assert_eq!((times.samples, times.min_ns, times.max_ns, times.outliers), (100, 1.0, 100.0, 0));
    let one = told(&[7.0]);
    assert_eq!((one.p50_ns, one.p95_ns, one.p99_ns, one.ci_ns), (7.0, 7.0, 7.0, [7.0, 7.0]));
    let two = told(&[9.0, 1.0]);
    assert_eq!((two.p50_ns, two.p95_ns, two.ci_ns), (5.0, 9.0, [1.0, 9.0]));
    assert_eq!((times_of_none(), median(&[])), (None, None));
}

fn times_of_none() -> Option<Times> {
    times(&[])
}

#[test]
fn ranks_are_those_of_the_tables() {
    // Le Boudec, table A.1, where its interval is symmetric, and Hahn and Meeker, "Statistical Intervals", table A.15.
    for (samples, ranks) in [
        (1, (1, 1)),
        (5, (1, 5)),
        (6, (1, 6)),
        (8, (1, 8)),
        (9, (2, 8)),
        (10, (2, 9)),
        (20, (6, 15)),
        (30, (10, 21)),
        (50, (18, 33)),
        (70, (27, 44)),
        (100, (40, 61)),
    ] {
        assert_eq!(median_ranks(samples), ranks, "{samples} samples");
    }
    // Where one way ends and the other begins, they agree.
    let (counted, approximate) = (median_ranks(COUNTED), median_ranks(COUNTED + 1));
    assert!(counted.0.abs_diff(approximate.0) <= 1 && counted.1.abs_diff(approximate.1) <= 2);
    assert_eq!(median_ranks(10_000), (4_902, 5_099));
}

#[test]
fn the_interval_holds_the_median_as_often_as_it_says() {
    let mut random = Random::new(5);
    for samples in [6, 11, 40, 200, 1_500] {
        let held = (0..2_000).filter(|_| {
            // The exponential distribution of median 1: skewed, with a tail.
            let drawn: Vec<f64> = (0..samples).map(|_| -(random.unit().ln()) / 2.0_f64.ln()).collect();
            let times = told(&drawn);
            times.ci_ns[0] <= 1.0 && 1.0 <= times.ci_ns[1]
        });
        let share = held.count() as f64 / 2_000.0;
        assert!((0.935..0.995).contains(&share), "{samples} samples: {share}");
    }
}

#[test]
fn outliers_are_beyond_the_outer_fence_alone() {
    // Quartiles 10 and 12: the fence is at 18.
    let mut samples = vec![10.0; 10];
    samples.extend([12.0; 9]);
    samples.extend([18.0]);
    assert_eq!(told(&samples).outliers, 0);
    samples[0] = 18.1;
    samples[19] = 500.0;
    assert_eq!(told(&samples).outliers, 2);
}

#[test]
fn quicker_means_beyond_both_intervals() {
    let with = |low: f64, high: f64| Times { ci_ns: [low, high], ..told(&[(low + high) / 2.0]) };
    assert!(quicker(&with(1.0, 2.0), &with(2.1, 3.0)));
    assert!(!quicker(&with(1.0, 2.0), &with(2.0, 3.0)), "they touch");
    assert!(!quicker(&with(2.1, 3.0), &with(1.0, 2.0)));
    assert!(!quicker(&with(1.0, 2.0), &with(1.0, 2.0)));
}

#[test]
fn uncertainty_is_relative_to_the_median() {
    let times = Times { ci_ns: [90.0, 110.0], ..told(&[100.0]) };
    assert!((uncertainty(&times) - 0.1).abs() < 1e-12);
    assert_eq!(uncertainty(&told(&[0.0, 0.0])), 0.0);
    assert_eq!(uncertainty(&Times { ci_ns: [0.0, 2.0], ..told(&[0.0]) }), f64::INFINITY);
}

proptest! {
    #[test]
    fn what_is_told_is_ordered_and_knows_no_order(mut samples in proptest::collection::vec(0.0_f64..1e12, 1..400), by in 0_usize..400) {
        let times = told(&samples);
        prop_assert!(times.min_ns <= times.ci_ns[0] && times.ci_ns[0] <= times.p50_ns && times.p50_ns <= times.ci_ns[1]);
        prop_assert!(times.p50_ns <= times.p95_ns && times.p95_ns <= times.p99_ns && times.p99_ns <= times.max_ns);
        prop_assert!(times.ci_ns[1] <= times.max_ns && times.outliers * 4 <= times.samples);
        prop_assert_eq!(times.samples, samples.len());
        for (percent, value) in [(95, times.p95_ns), (99, times.p99_ns)] {
            let within = samples.iter().filter(|sample| **sample <= value).count();
            let below = samples.iter().filter(|sample| **sample < value).count();
            prop_assert!(within * 100 >= percent * samples.len() && below * 100 < percent * samples.len());
        }
        let middle = by % samples.len();
        samples.rotate_left(middle);
        prop_assert_eq!(told(&samples), times);
    }

    #[test]
    fn ranks_cover_and_are_the_tightest_that_do(samples in 6_usize..=COUNTED) {
        let (low, high) = median_ranks(samples);
        prop_assert_eq!(low + high, samples + 1);
        // By logarithms of factorials, another way than the one tested.
        let below = |ranks: usize| -> f64 {
            let ln_factorial = |n: usize| (2..=n).map(|i| (i as f64).ln()).sum::<f64>();
            let all = ln_factorial(samples);
            let term = |b| (all - ln_factorial(b) - ln_factorial(samples - b) - samples as f64 * 2.0_f64.ln()).exp();
            (0..ranks).map(term).sum()
        };
        prop_assert!(2.0 * below(low) <= 0.05 + 1e-9);
        prop_assert!(2.0 * below(low + 1) > 0.05 - 1e-9);
    }

    #[test]
    fn more_samples_of_the_same_kind_narrow_the_interval(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let drawn: Vec<f64> = (0..4_000).map(|_| 100.0 + 50.0 * random.unit()).collect();
        prop_assert!(uncertainty(&told(&drawn)) < uncertainty(&told(&drawn[..40])));
    }
}
