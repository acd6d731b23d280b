//! The float32 row kernels of every available instruction set against float64, within the error bound that rows.rs promises.

use crate::common::{DIMS, Random};
use half::{bf16, f16};
use megaring_simd::{KernelSet, Rows, SimdError};

/// The stored rows of one case and the values they stand for.
struct Case {
    f32s: Vec<f32>,
    f16s: Vec<u16>,
    bf16s: Vec<u16>,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, rows: usize, dim: usize) -> Case {
        let f32s = random.units(rows * dim);
        Case {
            f16s: f32s.iter().map(|value| f16::from_f32(*value).to_bits()).collect(),
            bf16s: f32s.iter().map(|value| bf16::from_f32(*value).to_bits()).collect(),
            codes: (0..rows * dim).map(|_| random.next() as i8).collect(),
            scales: (0..rows).map(|_| random.unit() * 0.1).collect(),
            f32s,
        }
    }

    /// Each stored form of rows `skip..` and its exact values.
    fn forms(&self, skip: usize, dim: usize) -> [(Rows<'_>, Vec<f64>, f64); 4] {
        let at = skip * dim;
        let scaled =
            self.codes.iter().enumerate().map(|(i, code)| f64::from(*code) * f64::from(self.scales[i / dim.max(1)]));
        [
            (Rows::F32(&self.f32s[at..]), self.f32s[at..].iter().map(|v| f64::from(*v)).collect(), 0.0),
            (Rows::F16(&self.f16s[at..]), self.f16s[at..].iter().map(|v| f16::from_bits(*v).to_f64()).collect(), 0.0),
            (
                Rows::Bf16(&self.bf16s[at..]),
                self.bf16s[at..].iter().map(|v| bf16::from_bits(*v).to_f64()).collect(),
                0.0,
            ),
            (Rows::I8 { codes: &self.codes[at..], scales: &self.scales[skip..] }, scaled.skip(at).collect(), 2.0),
        ]
    }
}

fn gamma(operations: f64) -> f64 {
    let unit = 2f64.powi(-24);
    operations * unit / (1.0 - operations * unit)
}

#[test]
fn every_form_and_operation_is_within_its_bound() {
    let mut random = Random(1);
    for dim in DIMS {
        for rows in [0, 1, 3, 4, 5, 9] {
            // One leading row and one leading query value are dropped, so that nothing is aligned beyond its type.
            let case = Case::new(&mut random, rows + 1, dim);
            let query = random.units(dim + 1);
            for (stored, values, scale_roundings) in case.forms(1, dim) {
                for set in KernelSet::available() {
                    check(set, &query[1..], stored, &values, rows, scale_roundings);
                }
            }
        }
    }
}

fn check(set: &KernelSet, query: &[f32], stored: Rows<'_>, values: &[f64], rows: usize, scale_roundings: f64) {
    let dim = query.len();
    let n = dim as f64;
    let (mut dot, mut l2, mut norm2) = (vec![f32::NAN; rows], vec![f32::NAN; rows], vec![f32::NAN; rows]);
    set.dot(query, stored, &mut dot).expect("shapes fit");
    set.l2(query, stored, &mut l2).expect("shapes fit");
    set.norm2(stored, dim, &mut norm2).expect("shapes fit");
    for row in 0..rows {
        let pairs = || query.iter().map(|q| f64::from(*q)).zip(values[row * dim..].iter().copied());
        let context = format!("{} dim {dim} row {row} {stored:?}", set.isa());
        let within = |what: &str, actual: f32, exact: f64, magnitude: f64, operations: f64| {
            let error = (f64::from(actual) - exact).abs();
            // The reference's own float64 rounding, and float32 underflow, are far below the slack.
            let bound = gamma(operations) * magnitude + 1e-12 * magnitude + 1e-37;
            assert!(
                error <= bound,
                "{what} {actual} is {error:e} off {exact}, bound {bound:e}: {}",
                &context[..60.min(context.len())]
            );
        };
        let sum = |term: fn(f64, f64) -> f64| pairs().map(|(q, v)| term(q, v)).sum::<f64>();
        within("dot", dot[row], sum(|q, v| q * v), sum(|q, v| (q * v).abs()), n + scale_roundings);
        within("norm2", norm2[row], sum(|_, v| v * v), sum(|_, v| v * v), n + scale_roundings);
        // An int8 value is rounded before the difference: that error is relative to the value, not to the difference.
        let value_error = if scale_roundings > 0.0 { sum(|q, v| (q.abs() + v.abs()).powi(2)) } else { 0.0 };
        let l2_exact = sum(|q, v| (q - v) * (q - v));
        within("l2", l2[row], l2_exact, l2_exact + value_error, n + 2.0 + scale_roundings);
    }
}

#[test]
fn special_values_keep_their_meaning() {
    for set in KernelSet::available() {
        let mut out = [0.0; 1];
        set.dot(&[1.0, 2.0], Rows::F16(&[0x0001, 0x8400]), &mut out).expect("shapes fit");
        assert_eq!(out[0], 2f32.powi(-24) - 2.0 * 2f32.powi(-14), "{}: float16 subnormal", set.isa());
        set.dot(&[1.0, 1.0], Rows::F16(&[0x7c00, 0]), &mut out).expect("shapes fit");
        assert_eq!(out[0], f32::INFINITY, "{}", set.isa());
        set.dot(&[1.0, 1.0], Rows::Bf16(&[0x7fc0, 0]), &mut out).expect("shapes fit");
        assert!(out[0].is_nan(), "{}", set.isa());
        set.norm2(Rows::I8 { codes: &[-128, 127], scales: &[0.5] }, 2, &mut out).expect("shapes fit");
        assert_eq!(out[0], 0.25 * (128.0 * 128.0 + 127.0 * 127.0), "{}", set.isa());
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let set = KernelSet::from_env().expect("an instruction set");
    let mut out = [0.0; 2];
    let length = |what, expected, found| Err(SimdError::Length { what, expected, found });
    assert_eq!(set.dot(&[1.0; 3], Rows::F32(&[0.0; 5]), &mut out), length("the rows", 6, 5));
    assert_eq!(set.l2(&[1.0; 3], Rows::F16(&[0; 7]), &mut out), length("the rows", 6, 7));
    assert_eq!(set.norm2(Rows::Bf16(&[0; 4]), 3, &mut out), length("the rows", 6, 4));
    let missing_scale = Rows::I8 { codes: &[0; 6], scales: &[1.0] };
    assert_eq!(set.dot(&[1.0; 3], missing_scale, &mut out), length("the scales", 2, 1));
    assert!(matches!(set.norm2(Rows::F32(&[]), usize::MAX, &mut out), Err(SimdError::TooLarge { .. })));
}
