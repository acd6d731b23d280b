//! The float64 kernels of every available instruction set, bit for bit against the formulas written out.

use megaring_core::Metric;
use megaring_core::exact::Overlap;
use megaring_simd::{KernelSet, PointColumns, SimdError, SweepQuery, SweepRows};
use proptest::prelude::*;

use crate::common::{DIMS, Random};

/// The numeric contract's eight lanes, one element at a time.
fn contract(terms: impl Iterator<Item = f64>) -> f64 {
    let mut l = [0.0f64; 8];
    for (i, term) in terms.enumerate() {
        l[i % 8] += term;
    }
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

fn check_gather(query: &[f32], rows: &[f32], ids: &[u32]) {
    let dim = query.len();
    let row = |id: u32| &rows[id as usize * dim..][..dim];
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let q = wide(query);
    for set in KernelSet::copies() {
        let mut out = vec![f64::NAN; ids.len()];
        let check = |what, term: &dyn Fn(f64, f64) -> f64, out: &mut [f64]| {
            for (id, actual) in ids.iter().zip(out) {
                let expected = contract(q.iter().zip(wide(row(*id))).map(|(a, b)| term(*a, b)));
                assert_eq!(
                    actual.to_bits(),
                    expected.to_bits(),
                    "{} {what} dim {dim} row {id}: {actual} {expected}",
                    set.isa()
                );
            }
        };
        set.exact_dot(query, rows, ids, &mut out).expect("shapes fit");
        check("dot", &|a, b| a * b, &mut out);
        set.exact_l2(query, rows, ids, &mut out).expect("shapes fit");
        check("l2", &|a, b| (a - b) * (a - b), &mut out);
    }
}

#[test]
fn gathered_scores_equal_the_contract() {
    let mut random = Random(2);
    for dim in DIMS {
        let query = random.units(dim + 1);
        let rows: Vec<f32> = random.units(12 * dim + 1).iter().map(|v| v * 1e3 * v).collect();
        for count in [0, 1, 2, 3, 7, 8, 9, 19] {
            let ids: Vec<u32> = (0..count).map(|_| random.below(12) as u32).collect();
            check_gather(&query[1..], &rows[1..], &ids);
        }
    }
}

/// Any finite float32, all magnitudes and both zeros.
fn finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite())
}

proptest! {
    #[test]
    fn any_finite_values_give_the_contract_bits(
        query in prop::collection::vec(finite(), 0..40),
        pool in prop::collection::vec(finite(), 40 * 9),
    ) {
        let rows = &pool[..9 * query.len()];
        check_gather(&query, rows, &[0, 8, 1, 7, 2, 6, 3, 5, 4]);
    }

    #[test]
    fn words_have_in_common_what_their_bits_say(
        query in prop::collection::vec(any::<u32>(), 1..70),
        pool in prop::collection::vec(any::<u32>(), 70 * 9),
    ) {
        let words = |words: &[u32]| words.iter().map(|word| f32::from_bits(*word)).collect::<Vec<f32>>();
        let (asked, rows) = (words(&query), words(&pool[..9 * query.len()]));
        let ids = [0, 8, 1, 7, 2, 6, 3, 5, 4, 4];
        let bits = |words: &[u32], join: fn(u32, u32) -> u32| -> u32 {
            query.iter().zip(words).map(|(a, b)| (0..32).map(|at| join(*a, *b) >> at & 1).sum::<u32>()).sum()
        };
        for set in KernelSet::copies() {
            let mut out = [Overlap::default(); 10];
            set.overlap(&asked, &rows, &ids, &mut out).expect("shapes fit");
            for (id, found) in ids.iter().zip(out) {
                let row = &pool[*id as usize * query.len()..][..query.len()];
                let want = Overlap { both: bits(row, |a, b| a & b), either: bits(row, |a, b| a | b) };
                prop_assert_eq!(found, want, "{}", set.isa());
            }
        }
    }

    #[test]
    fn distances_equal_the_formula(
        points in prop::collection::vec(prop::array::uniform5(-3.0..3.0f64), 0..40),
        query in prop::array::uniform5(-3.0..3.0f64),
        weights in prop::array::uniform5(0.0..4.0f64),
    ) {
        let columns: [Vec<f64>; 5] = std::array::from_fn(|axis| points.iter().map(|point| point[axis]).collect());
        let columns = PointColumns::new(columns.each_ref().map(Vec::as_slice)).expect("equal");
        prop_assert_eq!(columns.len(), points.len());
        for set in KernelSet::copies() {
            let mut out = vec![f64::NAN; points.len()];
            set.distances5(columns, &query, &weights, &mut out).expect("shapes fit");
            for (point, actual) in points.iter().zip(&out) {
                let d: [f64; 5] = std::array::from_fn(|axis| weights[axis] * (point[axis] - query[axis]));
                let expected = (((d[0] * d[0] + d[1] * d[1]) + d[2] * d[2]) + d[3] * d[3]) + d[4] * d[4];
                prop_assert_eq!(actual.to_bits(), expected.to_bits(), "{}", set.isa());
            }
        }
    }
}

#[test]
fn wrong_shapes_and_rows_are_errors() {
    let set = KernelSet::from_env().expect("an instruction set");
    let mut out = [0.0; 2];
    let rows = [1.0; 6];
    assert_eq!(
        set.exact_dot(&[1.0; 3], &rows, &[0, 2], &mut out),
        Err(SimdError::Index { what: "row", index: 2, count: 2 })
    );
    assert_eq!(
        set.exact_l2(&[1.0; 4], &rows, &[0, 0], &mut out),
        Err(SimdError::Length { what: "the rows", expected: 8, found: 6 })
    );
    assert_eq!(
        set.exact_dot(&[1.0; 3], &rows, &[0], &mut out),
        Err(SimdError::Length { what: "the scores", expected: 1, found: 2 })
    );
    assert_eq!(set.exact_dot(&[], &rows, &[7, u32::MAX], &mut out), Ok(()));
    assert_eq!(out, [0.0, 0.0]);
    assert!(PointColumns::new([&[1.0], &[1.0], &[1.0], &[], &[1.0]]).is_err());
    assert!(SweepRows::narrow(&rows, &[1.0; 2], 4).is_err() && SweepRows::narrow(&[], &[], 0).is_err());
    assert!(SweepRows::narrow(&rows, &[1.0; 2], 2).is_err() && SweepQuery::new(Metric::Dot, 0, 0.0, &[1.0]).is_err());
    let narrow = SweepRows::narrow(&rows, &[1.0; 3], 2).expect("three rows");
    let mut query = SweepQuery::new(Metric::Dot, 1, 0.0, &[1.0; 2]).expect("two elements");
    let beyond = Err(SimdError::Index { what: "row", index: 4, count: 3 });
    assert_eq!(set.sweep(narrow, 1..4, 0, &mut query), beyond);
    assert!(set.sweep(narrow, 0..3, u32::MAX - 2, &mut query).is_err());
    let mut query = SweepQuery::new(Metric::Dot, 1, 0.0, &[1.0; 3]).expect("three elements");
    assert!(set.sweep(narrow, 0..3, 0, &mut query).is_err());
    assert!(SweepRows::bits(&rows, 4).is_err() && SweepRows::bits(&rows, 0).is_err());
    let bits = SweepRows::bits(&rows, 2).expect("three rows");
    let mut query = SweepQuery::new(Metric::Hamming, 1, f64::INFINITY, &[1.0; 2]).expect("two words");
    assert!(set.sweep(narrow, 0..3, 0, &mut query).is_err(), "rows of another kind");
    assert!(set.sweep(bits, 0..4, 0, &mut query).is_err());
    set.sweep(bits, 0..3, 5, &mut query).expect("shapes fit");
    assert_eq!(query.ranked().map(|found| (found.row, found.score)).collect::<Vec<_>>(), [(5, 0.0)]);
    let columns = PointColumns::new([&[1.0]; 5]).expect("equal lengths");
    assert!(set.distances5(columns, &[0.0; 5], &[1.0; 5], &mut out).is_err());
}
