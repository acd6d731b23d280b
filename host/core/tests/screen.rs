//! The int8 screen's promise, against exact arithmetic: no score lies outside the bounds that codes, columns and query
//! give.

use megaring_core::screen::{self, COLUMNS, GROUP_ROWS, QUAD, QueryScreen};
use megaring_core::{Metric, exact};
use proptest::prelude::*;

/// What a kernel computes for one row, in the same float32 steps.
fn bounds(metric: Metric, query: &[f32], rows: &[f32], dim: usize) -> Option<Vec<(f64, f64)>> {
    let norms2 = screen::norms2(rows, dim);
    let codes = screen::pack(rows, dim, &norms2);
    if codes.wild {
        return None;
    }
    let columns = screen::columns(metric, codes.view(), &norms2);
    let mut query_codes = vec![0_i8; dim];
    let q = QueryScreen::new(metric, query, codes.max_norm, &mut query_codes)?;
    let quads = screen::quads(dim);
    let bound = |row: usize| {
        let (group, lane) = (row / GROUP_ROWS, row % GROUP_ROWS);
        let sum: i32 = (0..dim)
            .map(|i| {
                let at = ((group * quads + i / QUAD) * GROUP_ROWS + lane) * QUAD + i % QUAD;
                (i32::from(codes.packed[at]) - i32::from(screen::CODE_BIAS)) * i32::from(query_codes[i])
            })
            .sum();
        let cell = |column: usize| columns[(group * COLUMNS + column) * GROUP_ROWS + lane];
        let g = (sum as f32 * q.scale) * cell(0) + cell(1);
        let error = q.a * cell(2) + q.b * cell(3);
        (f64::from(g - error) - q.slack, f64::from(g + error) + q.slack)
    };
    Some((0..norms2.len()).map(bound).collect())
}

/// The goodness that bounds speak of: the score, or for l2 the squared norm of the query less the distance.
fn goodness(metric: Metric, query: &[f32], row: &[f32]) -> f64 {
    let score = exact::score(metric, query, row);
    if metric == Metric::L2 { exact::dot(query, query) - score } else { score }
}

fn vectors(dim: usize, rows: usize) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        8 => -1.0_f32..1.0,
        1 => Just(0.0),
        1 => (-30_i32..30).prop_map(|e| 2.0_f32.powi(e)),
        1 => (-30_i32..30).prop_map(|e| -2.0_f32.powi(e) * 1.7),
    ];
    proptest::collection::vec(value, dim * rows)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_score_leaves_its_bounds(
        (dim, query, rows) in (1_usize..70).prop_flat_map(|dim| (Just(dim), vectors(dim, 1), vectors(dim, 21))),
    ) {
        for metric in Metric::ALL {
            let Some(bounds) = bounds(metric, &query, &rows, dim) else { continue };
            for (row, (lower, upper)) in rows.chunks_exact(dim).zip(bounds) {
                let truth = goodness(metric, &query, row);
                prop_assert!((lower..=upper).contains(&truth), "{metric}: {truth} outside {lower}..={upper}");
            }
        }
    }
}

#[test]
fn bounds_are_tight_enough_to_tell_unit_vectors_apart() {
    let matrix = megaring_datasets::Embeddings { rows: 512, ..Default::default() }.generate();
    let bounds = bounds(Metric::Cosine, matrix.row(3), &matrix.values, 384).expect("unit vectors are tame");
    let widest = bounds.iter().map(|(lower, upper)| upper - lower).fold(0.0, f64::max);
    assert!(widest < 0.05, "the widest bound is {widest}");
}

#[test]
fn a_vector_on_the_grid_of_its_codes_loses_nothing() {
    let row: Vec<f32> = (0..64).map(|i| (i * 4 - 127) as f32).collect();
    let norms2 = screen::norms2(&row, 64);
    let codes = screen::pack(&row, 64, &norms2);
    assert_eq!(codes.scale, [1.0]);
    assert!(codes.residual[0] <= f32::MIN_POSITIVE, "only the rounding up of 0 is left");
}

#[test]
fn missing_rows_never_pass_and_missing_elements_weigh_nothing() {
    let rows = vec![0.5_f32; 3 * 5];
    let norms2 = screen::norms2(&rows, 5);
    let codes = screen::pack(&rows, 5, &norms2);
    assert_eq!(codes.packed.len(), screen::packed_len(3, 5));
    for metric in Metric::ALL {
        let columns = screen::columns(metric, codes.view(), &norms2);
        assert!(columns[GROUP_ROWS + 3..2 * GROUP_ROWS].iter().all(|add| *add == f32::NEG_INFINITY));
    }
    let used: usize = codes.packed.iter().filter(|code| **code != screen::CODE_BIAS).count();
    assert_eq!(used, 15);
}

#[test]
fn norms_beyond_the_range_make_a_segment_wild_and_a_query_unscreened() {
    for value in [1e20_f32, 1e-30] {
        let row = [value; 8];
        let norms2 = screen::norms2(&row, 8);
        assert!(screen::pack(&row, 8, &norms2).wild, "{value}");
        assert!(QueryScreen::new(Metric::Dot, &row, 1.0, &mut [0; 8]).is_none(), "{value}");
    }
    let zero = [0.0_f32; 8];
    assert!(!screen::pack(&zero, 8, &screen::norms2(&zero, 8)).wild, "a zero row is exact");
    assert!(QueryScreen::new(Metric::Cosine, &zero, 1.0, &mut [0; 8]).is_none());
}
