//! The int8 screen's promise, against exact arithmetic: no score lies outside the bounds that codes, columns and query
//! give.

use megaring_core::nibbles::{Nibbles, half_row, high_group};
use megaring_core::screen::{self, COLUMNS, GROUP_ROWS, QUAD, QueryScreen};
use megaring_core::{Metric, exact};
use proptest::prelude::*;

/// What of the codes a bound is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Codes,
    HighHalves,
}

/// What a kernel computes for one row, in the same float32 steps.
fn bounds(metric: Metric, query: &[f32], rows: &[f32], dim: usize, by: By) -> Option<Vec<(f64, f64)>> {
    let norms2 = screen::norms2(rows, dim);
    let codes = screen::pack(rows, dim, &norms2);
    if codes.wild {
        return None;
    }
    let nibbles = Nibbles::new(codes.view(), norms2.len(), dim);
    let columns = match by {
        By::Codes => screen::columns(metric, codes.view(), &norms2),
        By::HighHalves => nibbles.view().columns(metric, codes.view(), &norms2),
    };
    let mut query_codes = vec![0_i8; dim];
    let q = QueryScreen::new(metric, query, codes.max_norm, &mut query_codes)?;
    let quads = screen::quads(dim);
    let bound = |row: usize| {
        let (group, lane) = (row / GROUP_ROWS, row % GROUP_ROWS);
        let sum: i32 = (0..dim)
            .map(|i| {
                let at = ((group * quads + i / QUAD) * GROUP_ROWS + lane) * QUAD + i % QUAD;
                let code = match by {
                    By::Codes => i32::from(codes.packed[at]) - i32::from(screen::CODE_BIAS),
                    By::HighHalves => 16 * i32::from(high_half(&nibbles, dim, row, i)) - 120,
                };
                code * i32::from(query_codes[i])
            })
            .sum();
        let cell = |column: usize| columns[(group * COLUMNS + column) * GROUP_ROWS + lane];
        let g = (sum as f32 * q.scale) * cell(0) + cell(1);
        let error = q.a * cell(2) + q.b * cell(3);
        (f64::from(g - error) - q.slack, f64::from(g + error) + q.slack)
    };
    Some((0..norms2.len()).map(bound).collect())
}

fn high_half(nibbles: &Nibbles, dim: usize, row: usize, i: usize) -> u8 {
    let (group, lane, quad) = (row / GROUP_ROWS, row % GROUP_ROWS, i / QUAD);
    let byte = nibbles.high[group * high_group(dim) + (quad / 2 * GROUP_ROWS + lane) * QUAD + i % QUAD];
    if quad % 2 == 0 { byte & 15 } else { byte >> 4 }
}

fn low_half(nibbles: &Nibbles, dim: usize, row: usize, i: usize) -> u8 {
    let half = half_row(dim);
    let byte = nibbles.low[row * half + i % half];
    if i < half { byte & 15 } else { byte >> 4 }
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
        for (metric, by) in Metric::OF_FLOATS.into_iter().flat_map(|metric| [(metric, By::Codes), (metric, By::HighHalves)]) {
            let Some(bounds) = bounds(metric, &query, &rows, dim, by) else { continue };
            for (row, (lower, upper)) in rows.chunks_exact(dim).zip(bounds) {
                let truth = goodness(metric, &query, row);
                prop_assert!((lower..=upper).contains(&truth), "{metric} by {by:?}: {truth} outside {lower}..={upper}");
            }
        }
    }

    #[test]
    fn halves_make_up_the_codes((dim, rows) in (1_usize..40).prop_flat_map(|dim| (Just(dim), vectors(dim, 19)))) {
        let norms2 = screen::norms2(&rows, dim);
        let codes = screen::pack(&rows, dim, &norms2);
        let nibbles = Nibbles::new(codes.view(), 19, dim);
        for (row, i) in (0..19).flat_map(|row| (0..dim).map(move |i| (row, i))) {
            let at = ((row / GROUP_ROWS * screen::quads(dim) + i / QUAD) * GROUP_ROWS + row % GROUP_ROWS) * QUAD + i % QUAD;
            prop_assert_eq!(high_half(&nibbles, dim, row, i) << 4 | low_half(&nibbles, dim, row, i), codes.packed[at]);
        }
    }
}

/// Where every element lies as far from the middle of its half as can be, the bound by high halves is met, not left.
#[test]
fn the_bound_by_high_halves_holds_where_it_is_tight() {
    for (dim, low) in [(4, 0), (384, 0), (384, 15), (4096, 0), (32_768, 0)] {
        // Codes are 16·h + l - 128; the first element makes the scale 1.
        let mut row: Vec<f32> = (0..dim).map(|i| (16 * (i % 14 + 1) + low) as f32 - 128.0).collect();
        row[0] = 127.0;
        let query = vec![if low == 0 { -1.0 } else { 1.0 }; dim];
        for metric in Metric::OF_FLOATS {
            let bounds = bounds(metric, &query, &row, dim, By::HighHalves).expect("tame");
            let (truth, (lower, upper)) = (goodness(metric, &query, &row), bounds[0]);
            assert!((lower..=upper).contains(&truth), "{metric} {dim}: {truth} outside {lower}..={upper}");
            if dim >= 384 && metric == Metric::Dot {
                assert!(upper - truth < 0.02 * (upper - lower), "{dim}: {truth} in {lower}..={upper}");
            }
        }
    }
}

#[test]
fn bounds_are_tight_enough_to_tell_unit_vectors_apart() {
    let matrix = megaring_datasets::Embeddings { rows: 512, ..Default::default() }.generate();
    let bounds = bounds(Metric::Cosine, matrix.row(3), &matrix.values, 384, By::Codes).expect("unit vectors are tame");
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
    for metric in Metric::OF_FLOATS {
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
