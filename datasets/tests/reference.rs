//! The reference against examples worked by hand, the golden file, and the properties that define each operation.

use megaring_datasets::reference::{
    DEFAULT_WEIGHTS, Hit, Memory, Metric, Neighbour, Profile, cosine, dot, encode, keyword_mask, l2, nearest, score,
    search,
};
use megaring_datasets::{Embeddings, golden, poison, queries, sample};
use proptest::prelude::*;

fn hit(row: u32, score: f64) -> Hit {
    Hit { row, score }
}

#[test]
fn scores_worked_by_hand() {
    assert_eq!(dot(&[1.0, 2.0, 3.0], &[4.0, -5.0, 6.0]), 12.0);
    assert_eq!(l2(&[1.0, 2.0, 3.0], &[4.0, -2.0, 3.0]), 25.0);
    assert_eq!(cosine(&[3.0, 4.0], &[4.0, 3.0]), 24.0 / 25.0);
    assert_eq!(cosine(&[3.0, 4.0], &[-6.0, -8.0]), -1.0);
    // sqrt(3) · sqrt(3) would round to less than 3; the root of 3 · 3 is 3.
    assert_eq!(cosine(&[1.0; 3], &[1.0; 3]), 1.0);
    assert_eq!(dot(&[], &[]), 0.0);
}

#[test]
fn lanes_are_strided_and_combined_in_the_fixed_order() {
    // With 1 in one lane and 2^-53 in two others, the order of the additions decides what is rounded away.
    let tiny = 2f32.powi(-53);
    let ones = [1.0; 8];
    // (l0 + l4) = 1 + 2^-53 rounds to 1; the same with l2 + l6 = 2^-53 + 2^-53 keeps 2^-52.
    assert_eq!(dot(&[1.0, 0.0, 0.0, 0.0, tiny, 0.0, 0.0, 0.0], &ones), 1.0);
    assert_eq!(dot(&[1.0, 0.0, tiny, 0.0, 0.0, 0.0, tiny, 0.0], &ones), 1.0 + 2f64.powi(-52));
    // l2 and l4 stand in different pairs: each is rounded away when it meets the 1.
    assert_eq!(dot(&[1.0, 0.0, tiny, 0.0, tiny, 0.0, 0.0, 0.0], &ones), 1.0);
    // l1 + l5 and l3 + l7 meet each other before they meet the even lanes.
    assert_eq!(dot(&[1.0, tiny, 0.0, tiny, 0.0, 0.0, 0.0, 0.0], &ones), 1.0 + 2f64.powi(-52));
    // Elements 0 and 8 share lane 0, so the 1 and the -1 cancel before 2^-53 in lane 4 arrives.
    let mut nine = [0.0; 9];
    (nine[0], nine[8], nine[4]) = (1.0, -1.0, tiny);
    assert_eq!(dot(&nine, &[1.0; 9]), f64::from(tiny));
}

#[test]
fn cosine_of_a_zero_vector_is_zero_and_extremes_stay_finite() {
    assert_eq!(cosine(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
    assert_eq!(cosine(&[0.0, -0.0], &[0.0, 0.0]), 0.0);
    for matrix in [poison::huge(3, 40), poison::tiny(3, 40)] {
        for row in matrix.iter_rows() {
            assert_eq!(cosine(row, row), 1.0);
            assert!(l2(row, matrix.row(1)).is_finite());
        }
    }
    let cancelling = poison::cancelling(1, 64);
    assert_eq!(dot(cancelling.row(0), &[1.0; 64]), 32.0);
}

#[test]
fn search_orders_by_score_and_then_by_row() {
    let rows = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 0.0];
    let query = [1.0, 0.0];
    let all = |metric| search(metric, &query, &rows, 2, 9, None).remove(0);
    assert_eq!(all(Metric::Cosine), [hit(0, 1.0), hit(2, 1.0), hit(3, 1.0), hit(1, 0.0)]);
    assert_eq!(all(Metric::Dot), [hit(3, 2.0), hit(0, 1.0), hit(2, 1.0), hit(1, 0.0)]);
    assert_eq!(all(Metric::L2), [hit(0, 0.0), hit(2, 0.0), hit(3, 1.0), hit(1, 2.0)]);
}

#[test]
fn search_cuts_at_k_and_at_the_threshold() {
    let rows = [3.0, 1.0, 2.0, 1.0];
    let search = |metric, k, threshold| search(metric, &[1.0], &rows, 1, k, threshold).remove(0);
    assert_eq!(search(Metric::Dot, 2, None), [hit(0, 3.0), hit(2, 2.0)]);
    assert_eq!(search(Metric::Dot, 9, Some(2.0)), [hit(0, 3.0), hit(2, 2.0)]);
    assert_eq!(search(Metric::L2, 9, Some(1.0)), [hit(1, 0.0), hit(3, 0.0), hit(2, 1.0)]);
    assert_eq!(search(Metric::L2, 9, Some(0.5)), [hit(1, 0.0), hit(3, 0.0)]);
    assert_eq!(search(Metric::Cosine, 0, None), []);
    assert_eq!(search(Metric::Dot, 9, Some(f64::NEG_INFINITY)).len(), 4);
}

#[test]
fn search_tells_scores_apart_that_float32_cannot() {
    // 1 + 2^-40 rounds to 1 in float32, so only the float64 order puts row 1 first.
    let rows = [1.0, 0.0, 1.0, 2f32.powi(-40)];
    let hits = search(Metric::Dot, &[1.0, 1.0], &rows, 2, 2, None).remove(0);
    assert_eq!([hits[0].row, hits[1].row], [1, 0]);
    assert_eq!(hits[0].reported(), hits[1].reported());
}

#[test]
fn empty_inputs_have_empty_answers() {
    assert!(search(Metric::Dot, &[], &[1.0, 2.0], 2, 3, None).is_empty());
    assert_eq!(search(Metric::Cosine, &[1.0, 2.0], &[], 2, 3, None), [vec![]]);
    assert!(score(Metric::L2, &[], &[], 2).is_empty());
    assert!(nearest(&[], &[0.0; 5], &DEFAULT_WEIGHTS, 3).is_empty());
}

#[test]
fn non_finite_input_does_not_panic() {
    let rows = poison::nan_in_row(&Embeddings { rows: 50, dim: 9, ..Default::default() }.generate(), 7);
    for metric in Metric::OF_FLOATS {
        assert_eq!(search(metric, &rows.values, &rows.values, 9, 50, None).len(), 50);
    }
}

#[test]
fn duplicated_rows_come_in_row_order() {
    let base = Embeddings { rows: 40, dim: 24, exact_duplicates: 0.0, ..Default::default() }.generate();
    let rows = poison::duplicated(&base, 3);
    for metric in Metric::OF_FLOATS {
        for hits in search(metric, &base.values, &rows.values, 24, 120, None) {
            for group in hits.chunks(3) {
                assert_eq!([group[1].row, group[2].row], [group[0].row + 40, group[0].row + 80], "{metric:?}");
            }
        }
    }
}

#[test]
fn the_score_matrix_holds_the_reported_scores_of_the_search() {
    let rows = Embeddings { rows: 60, dim: 33, normalized: false, ..Default::default() }.generate();
    let queries = queries(&rows, 7, 5);
    for metric in Metric::OF_FLOATS {
        let matrix = score(metric, &queries.values, &rows.values, 33);
        assert_eq!(matrix.len(), 7 * 60);
        for (query, hits) in search(metric, &queries.values, &rows.values, 33, 60, None).iter().enumerate() {
            for hit in hits {
                assert_eq!(matrix[query * 60 + hit.row as usize].to_bits(), hit.reported().to_bits());
            }
        }
    }
}

#[test]
fn each_real_row_finds_itself_first() {
    let embeddings = sample().unwrap().embeddings;
    let some = embeddings.head(64);
    for metric in [Metric::Cosine, Metric::L2] {
        let found = search(metric, &some.values, &embeddings.values, 384, 1, None);
        let rows: Vec<u32> = found.iter().map(|hits| hits[0].row).collect();
        assert_eq!(rows, (0..64).collect::<Vec<u32>>());
    }
}

#[test]
fn golden_file_bit_for_bit_on_masks_and_zones() {
    let profile = Profile::whitemagic().unwrap();
    let cases = golden().unwrap();
    assert_eq!(cases.len(), 644);
    for case in cases {
        let encoded = encode(&case.memory(), &profile);
        assert_eq!(encoded.mask, case.mask, "mask of {}", case.id);
        assert_eq!(encoded.zone, case.zone, "zone of {}", case.id);
        for (axis, (got, want)) in encoded.coordinates.iter().zip(case.coordinates).enumerate() {
            assert!((got - want).abs() <= 1e-12, "axis {axis} of {}: {got} where {want} was expected", case.id);
        }
    }
}

#[test]
fn masks_worked_by_hand() {
    let words = ["key", "row", "vision", "tree"];
    assert_eq!(keyword_mask("", &words), 0);
    assert_eq!(keyword_mask("a GROWTH of grows", &words), 0b0010);
    assert_eq!(keyword_mask("\u{212a}ey", &words), 0b0001);
    // U+0130 lower-cases to i and a combining dot, which parts the letters of "vision".
    assert_eq!(keyword_mask("vİsion", &words), 0);
    assert_eq!(keyword_mask("tree vision row key", &words), 0b1111);
}

#[test]
fn encoding_worked_by_hand() {
    let profile = Profile::whitemagic().unwrap();
    let content = format!("love the algorithm, hope for the tree, feel the atom {}", "x".repeat(200));
    let memory = Memory {
        content: &content,
        importance: 0.75,
        access_count: 2,
        age_days: 0.0,
        galactic_distance: 0.5,
        garden: "WATER",
    };
    let encoded = encode(&memory, &profile);
    // love, hope, feel against algorithm, tree; atom alone on the other axis. Water adds 0.05, 0.05, -0.1 and
    // multiplies by 0.95 and 1.1.
    assert_eq!(encoded.mask.count_ones(), 6);
    let want = [0.2 + 0.05, -1.0 + 0.05, 0.9, (0.75 + 0.2 + 0.1) * 0.95, (0.5 + 0.1 + 0.05) * 1.1];
    for (got, want) in encoded.coordinates.iter().zip(want) {
        assert!((got - want).abs() < 1e-15, "{got} where {want} was expected");
    }
    assert_eq!(encoded.zone, 1);
}

#[test]
fn a_profile_must_be_whole() {
    let toml = megaring_datasets::reference::LEXICON_TOML;
    let profile = Profile::parse(toml).unwrap();
    assert_eq!((profile.words.len(), profile.name.as_str()), (123, "whitemagic-v1"));
    assert_eq!(
        (profile.logic.len(), profile.emotion.len(), profile.micro.len(), profile.macro_.len()),
        (42, 39, 22, 20)
    );
    assert!(Profile::parse("name = ").is_err());
    assert!(Profile::parse(&toml.replace("earth = [", "soil = [")).is_err());
    assert!(Profile::parse(&toml.replace("north = \"water\"", "north = \"ether\"")).is_err());
    assert!(Profile::parse(&toml.replace("\"feel\"", "\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\"")).is_err());
}

#[test]
fn nearest_worked_by_hand() {
    let near = |row, distance| Neighbour { row, distance };
    let points = [[0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0, 0.0], [3.0, 4.0, 0.0, 0.0, 0.0], [0.0; 5]];
    let found = nearest(&points, &[0.0; 5], &DEFAULT_WEIGHTS, 4);
    assert_eq!(found, [near(3, 0.0), near(0, 2.0), near(1, 2.0), near(2, 5.0)]);
    assert_eq!(nearest(&points, &[0.0; 5], &[1.0; 5], 2), [near(3, 0.0), near(0, 1.0)]);
}

fn vectors(dim: usize) -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let vector = prop::collection::vec(-100.0f32..100.0, dim);
    (vector.clone(), vector)
}

proptest! {
    #[test]
    fn metrics_are_symmetric_and_in_range((a, b) in (0usize..70).prop_flat_map(vectors)) {
        for metric in Metric::OF_FLOATS {
            prop_assert_eq!(metric.score(&a, &b).to_bits(), metric.score(&b, &a).to_bits());
        }
        prop_assert!(cosine(&a, &b).abs() <= 1.0);
        prop_assert_eq!(cosine(&a, &a), if a.iter().all(|value| *value == 0.0) { 0.0 } else { 1.0 });
        prop_assert!(l2(&a, &b) >= 0.0);
        prop_assert_eq!(l2(&a, &a), 0.0);
    }

    #[test]
    fn metrics_agree_with_plain_sums((a, b) in (1usize..70).prop_flat_map(vectors)) {
        let pairs = || a.iter().zip(&b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let plain_dot: f64 = pairs().map(|(x, y)| x * y).sum();
        let plain_l2: f64 = pairs().map(|(x, y)| (x - y).powi(2)).sum();
        prop_assert!((dot(&a, &b) - plain_dot).abs() <= 1e-8);
        prop_assert!((l2(&a, &b) - plain_l2).abs() <= 1e-8);
        prop_assert!((l2(&a, &b) - (dot(&a, &a) + dot(&b, &b) - 2.0 * dot(&a, &b))).abs() <= 1e-6);
    }

    #[test]
    fn zeros_appended_change_no_bit((a, b) in (0usize..40).prop_flat_map(vectors), more in 0usize..20) {
        let longer = |values: &[f32]| [values, &vec![0.0; more]].concat();
        for metric in Metric::OF_FLOATS {
            prop_assert_eq!(metric.score(&a, &b).to_bits(), metric.score(&longer(&a), &longer(&b)).to_bits());
        }
    }

    #[test]
    fn a_scale_by_a_power_of_two_changes_no_cosine((a, b) in (1usize..40).prop_flat_map(vectors)) {
        let doubled: Vec<f32> = a.iter().map(|value| value * 2.0).collect();
        prop_assert_eq!(cosine(&a, &b).to_bits(), cosine(&doubled, &b).to_bits());
    }

    #[test]
    fn a_search_is_a_prefix_of_the_longer_one_and_strictly_ordered(seed in any::<u64>(), k in 0usize..50) {
        // Values on a coarse grid, so that many scores tie.
        let coarse = |matrix: megaring_datasets::Matrix| -> Vec<f32> { matrix.values.iter().map(|v| (v * 3.0).round()).collect() };
        let rows = coarse(Embeddings { rows: 40, dim: 3, seed, ..Default::default() }.generate());
        for metric in Metric::OF_FLOATS {
            let all = search(metric, &rows[..9], &rows, 3, 40, None);
            let some = search(metric, &rows[..9], &rows, 3, k, None);
            for (all, some) in all.iter().zip(&some) {
                prop_assert_eq!(&all[..k.min(40)], &some[..]);
                for pair in all.windows(2) {
                    let better = if metric == Metric::L2 { pair[0].score < pair[1].score } else { pair[0].score > pair[1].score };
                    prop_assert!(better || pair[0].score == pair[1].score && pair[0].row < pair[1].row);
                }
            }
        }
    }

    #[test]
    fn nearest_keeps_the_triangle_inequality(seed in any::<u64>()) {
        let points = megaring_datasets::points(3, seed);
        let between = |a: usize, b: usize| nearest(&points[a..=a], &points[b], &DEFAULT_WEIGHTS, 1)[0].distance;
        prop_assert!(between(0, 2) <= between(0, 1) + between(1, 2) + 1e-12);
        prop_assert_eq!(between(0, 1).to_bits(), between(1, 0).to_bits());
    }

    #[test]
    fn upper_case_and_surroundings_keep_every_keyword(word in 0usize..123, before in "[ -~]{0,9}", after in "\\PC{0,9}") {
        let profile = Profile::whitemagic().unwrap();
        let content = format!("{before}{}{after}", profile.words[word].to_uppercase());
        prop_assert!(keyword_mask(&content, &profile.words) >> word & 1 == 1);
    }
}
