//! The definitions: scores, orders, rescoring and nearest points, against the naive reference.

use std::sync::Arc;

use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::exact::ScalarKernel;
use megaring_core::lists::{Candidate, Candidates};
use megaring_core::rescore::{Ask, rank};
use megaring_core::{Dtype, Metric, error, exact, nearest};
use megaring_datasets::{points, reference};
use proptest::prelude::*;

fn twin(metric: Metric) -> reference::Metric {
    match metric {
        Metric::Cosine => reference::Metric::Cosine,
        Metric::Dot => reference::Metric::Dot,
        Metric::L2 => reference::Metric::L2,
        Metric::Hamming => reference::Metric::Hamming,
        Metric::Jaccard => reference::Metric::Jaccard,
    }
}

fn corpus(rows: &[f32], dim: usize, segment_rows: usize) -> CorpusView {
    let segments = rows
        .chunks(segment_rows * dim)
        .map(|part| Arc::new(SegmentView::new(Arc::new(HeapSegment::new(part.to_vec(), dim, None)), part.len() / dim)))
        .collect();
    CorpusView::new("test".into(), 1, 1, dim, segments)
}

/// Values with many equal scores.
fn coarse(len: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec((-2_i8..=2).prop_map(|v| f32::from(v) * 0.5), len)
}

#[test]
fn shares_that_differ_differ_as_float64() {
    // Neighbours among the shares of so many bits are as close as shares can be.
    const MOST: u32 = 32_768;
    for either in [MOST, MOST - 1, MOST - 2] {
        let share = |both: u32, either: u32| exact::Overlap { both, either }.jaccard();
        for both in [1, 2, 16_384, either - 2] {
            assert!(share(both, either) < share(both, either - 1) && share(both, either - 1) < share(both + 1, either));
        }
    }
    assert_eq!(exact::Overlap::default().jaccard(), 1.0);
}

proptest! {
    #[test]
    fn scores_are_the_references_bits(a in proptest::collection::vec(-1e3_f32..1e3, 0..40), scale in -1e3_f32..1e3) {
        let b: Vec<f32> = a.iter().rev().map(|v| v * scale).collect();
        for metric in Metric::OF_FLOATS {
            prop_assert_eq!(exact::score(metric, &a, &b).to_bits(), twin(metric).score(&a, &b).to_bits());
        }
    }

    #[test]
    fn bits_count_as_the_reference_counts_them(
        a in proptest::collection::vec(proptest::num::u32::ANY, 0..40),
        flips in proptest::collection::vec(proptest::num::u32::ANY, 40),
        alike in proptest::bool::ANY,
    ) {
        let words = |words: &[u32]| words.iter().map(|word| f32::from_bits(*word)).collect::<Vec<f32>>();
        let b: Vec<u32> = a.iter().zip(flips).map(|(word, flip)| if alike { *word } else { word & flip }).collect();
        let (a, b) = (words(&a), words(&b));
        for metric in Metric::OF_BITS {
            let score = exact::score(metric, &a, &b);
            prop_assert_eq!(score.to_bits(), twin(metric).score(&a, &b).to_bits());
            let (itself, best) = (exact::score(metric, &a, &a), if metric == Metric::Hamming { 0.0 } else { 1.0 });
            prop_assert_eq!(itself, best);
            prop_assert!(metric.goodness(score) <= metric.goodness(best));
        }
    }

    #[test]
    fn every_row_and_honest_candidates_rank_alike(
        rows in coarse(6 * 23),
        query in coarse(6),
        k in 1_usize..30,
        segment_rows in 1_usize..30,
        threshold in proptest::option::of(-3.0_f64..3.0),
    ) {
        let view = corpus(&rows, 6, segment_rows);
        for metric in Metric::OF_FLOATS {
            let exact_threshold = threshold.map(|threshold| metric.exact_threshold(threshold));
            let ask = Ask { metric, k, threshold: exact_threshold };
            let want: Vec<(u32, f64)> = reference::search(twin(metric), &query, &rows, 6, k, threshold)[0]
                .iter().map(|hit| (hit.row, hit.score)).collect();
            let offset = if metric == Metric::L2 { exact::dot(&query, &query) } else { 0.0 };
            let listed: Vec<Candidate> = rows.chunks_exact(6).enumerate()
                .map(|(row, values)| {
                    let goodness = metric.goodness(exact::score(metric, &query, values)) + offset;
                    Candidate { row: row as u32, upper: (goodness as f32).next_up() + (row % 3) as f32 * 0.1 }
                })
                .collect();
            for candidates in [Candidates::EveryRow, Candidates::Listed(&listed)] {
                let ranked = rank(&view, &query, ask, &candidates, &ScalarKernel);
                let got: Vec<(u32, f64)> = ranked.hits.iter().map(|hit| (hit.row, hit.score)).collect();
                prop_assert_eq!(&got, &want, "{}", metric);
            }
        }
    }

    #[test]
    fn a_score_passes_as_it_is_reported(
        score in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO,
        place in -3_i32..=3,
        apart in proptest::option::of(proptest::num::f64::NORMAL),
    ) {
        // Close to the score as reported, to float32's steps around it, or anywhere.
        let mut near = exact::reported(score);
        (0..place).for_each(|_| near = near.next_up());
        (place..0).for_each(|_| near = near.next_down());
        let near = f64::from(near);
        for threshold in [Some(near), Some(near.next_up()), Some(near.next_down()), apart].into_iter().flatten() {
            for metric in Metric::OF_FLOATS {
                let reported = f64::from(exact::reported(score));
                let want = if metric == Metric::L2 { reported <= threshold } else { reported >= threshold };
                prop_assert_eq!(metric.passes(score, metric.exact_threshold(threshold)), want, "{} {}", metric, threshold);
            }
        }
        // The score itself, and the last ones that are rounded like it.
        for metric in Metric::OF_FLOATS {
            let exact_threshold = metric.exact_threshold(f64::from(exact::reported(score)));
            prop_assert!(metric.passes(score, exact_threshold));
            if exact_threshold.is_finite() {
                let beyond = if metric == Metric::L2 { exact_threshold.next_up() } else { exact_threshold.next_down() };
                prop_assert!(exact::reported(beyond) != exact::reported(exact_threshold));
            }
        }
    }

    #[test]
    fn a_cosine_is_in_range_and_one_for_equal_vectors(
        bits in proptest::collection::vec(any::<u32>(), 1..40),
        alike in any::<bool>(),
    ) {
        // All finite values, denormal and largest ones among them.
        let finite = |bits: u32| Some(f32::from_bits(bits)).filter(|value| value.is_finite()).unwrap_or(f32::MAX);
        let a: Vec<f32> = bits.iter().map(|bits| finite(if alike { bits & 0x807F_FFFF } else { *bits })).collect();
        let b: Vec<f32> = a.iter().rev().copied().collect();
        let itself = exact::score(Metric::Cosine, &a, &a);
        prop_assert_eq!(itself, if a.iter().all(|value| *value == 0.0) { 0.0 } else { 1.0 });
        prop_assert!(exact::score(Metric::Cosine, &a, &b).abs() <= 1.0);
    }

    #[test]
    fn narrow_types_widen_without_loss(bits in any::<u16>(), code in any::<i8>(), scale in -10.0_f32..10.0) {
        let bytes = bits.to_le_bytes();
        let half = Dtype::Float16.decode(&bytes, 1, 0.0)[0];
        prop_assert!(half.is_nan() || half::f16::from_f32(half).to_bits() == bits);
        let brain = Dtype::Bfloat16.decode(&bytes, 1, 0.0)[0];
        prop_assert!(brain.is_nan() || brain.to_bits() == u32::from(bits) << 16);
        prop_assert_eq!(Dtype::Int8.decode(&code.to_le_bytes(), 1, scale)[0], scale * f32::from(code));
    }
}

#[test]
fn rescoring_stops_when_no_bound_can_win_any_more() {
    let rows: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let view = corpus(&rows, 1, 400);
    let listed: Vec<Candidate> = (0..1000).map(|row| Candidate { row, upper: row as f32 + 0.5 }).collect();
    let ask = Ask { metric: Metric::Dot, k: 3, threshold: None };
    let ranked = rank(&view, &[1.0], ask, &Candidates::Listed(&listed), &ScalarKernel);
    assert_eq!(ranked.hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [999, 998, 997]);
    assert_eq!(ranked.rescored, 16, "one block is enough");
}

#[test]
fn nearest_points_follow_the_reference_with_ties() {
    let cloud = points(3_000, 1);
    for (query, k) in points(20, 2).into_iter().zip([1, 2, 5, 100, 3_000, 5_000].into_iter().cycle()) {
        let weights = nearest::DEFAULT_WEIGHTS;
        let got = nearest::rank(0..3_000, |row| cloud[row as usize], query, weights, k);
        let want = reference::nearest(&cloud, &query, &weights, k);
        let pairs = |row: u32, distance: f64| (row, distance.to_bits());
        assert_eq!(
            got.iter().map(|n| pairs(n.row, n.distance)).collect::<Vec<_>>(),
            want.iter().map(|n| pairs(n.row, n.distance)).collect::<Vec<_>>()
        );
    }
    assert_eq!(nearest::DEFAULT_WEIGHTS, reference::DEFAULT_WEIGHTS);
}

#[test]
fn distances_that_share_a_square_root_survive_the_margin() {
    // Squared distances whose roots round to the same number tie, so the smaller row must win and both must be kept.
    let mut tied = 0;
    for step in 0..1000 {
        let squared = 1.0 + f64::from(step) * 0.007;
        let above = (1..64).map(|units| f64::from_bits(squared.to_bits() + units));
        if let Some(twin) = above.take_while(|twin| twin.sqrt() == squared.sqrt()).last() {
            tied += 1;
            assert!(nearest::widen(squared) >= twin, "{squared} ties with {twin}");
        }
    }
    assert!(tied > 100, "square roots of neighbours coincide often");
}

#[test]
fn a_value_that_is_not_finite_is_found_wherever_it_hides() {
    for (len, at) in [(1, 0), (5000, 4999), (1024, 1023), (1025, 1024), (3000, 17)] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; len];
            values[at] = bad;
            let (row, column, value) = error::first_non_finite(&values, 7).expect("it is there");
            assert_eq!((row, column, value.to_bits()), (at / 7, at % 7, bad.to_bits()));
        }
    }
    assert!(error::first_non_finite(&[f32::MAX, f32::MIN, 1e-45, -0.0], 2).is_none());
}

#[test]
fn a_score_beyond_float32_is_reported_as_its_largest_number() {
    for (score, want) in [(1e300, f32::MAX), (-1e300, f32::MIN), (0.5, 0.5), (-0.0, 0.0), (1e-60, 0.0)] {
        assert_eq!(exact::reported(score), want);
    }
}

#[test]
fn the_largest_coordinates_and_weights_keep_distances_finite() {
    let far = [nearest::MAX_COORDINATE; 5];
    let distance = nearest::squared(far, far.map(|x| -x), [nearest::MAX_WEIGHT; 5]);
    assert!(distance.is_finite() && nearest::widen(distance).is_finite());
    for value in [f64::NAN, f64::INFINITY, -f64::INFINITY, nearest::MAX_COORDINATE.next_up()] {
        assert!(!nearest::is_coordinate(value) && !nearest::is_weight(value), "{value}");
    }
    assert!(
        !nearest::is_weight(-1e-300) && nearest::is_weight(0.0) && nearest::is_coordinate(-nearest::MAX_COORDINATE)
    );
}
