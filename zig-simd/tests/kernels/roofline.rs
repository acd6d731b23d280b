//! The kernels behind the peaks compute what they say, so nobody can have optimised them away.

use crate::common::Random;
use megaring_simd::roofline::{Codes, MAX_ITERATIONS, MULTIPLY_ADDS, Piece, QueryCodes, Sums, peaks};
use megaring_simd::{KernelSet, SimdError};

fn naive(codes: &Codes, queries: &QueryCodes, iterations: usize) -> (Sums, usize) {
    let (mut sums, mut multiply_adds) = ([[0; 64]; 4], 0);
    for (query, sums) in queries.chunks(4).zip(&mut sums) {
        for (row, sum) in codes.chunks(4).zip(sums) {
            for (code, query) in row.iter().zip(query) {
                *sum += iterations as i32 * (i32::from(*code) - 128) * i32::from(*query);
                multiply_adds += 1;
            }
        }
    }
    (sums, multiply_adds)
}

#[test]
fn multiply_adds_equal_the_formula() {
    let mut random = Random(3);
    for iterations in [0, 1, 2, 1_001, MAX_ITERATIONS] {
        let mut codes: Codes = std::array::from_fn(|_| random.next() as u8);
        codes[..4].fill(0);
        codes[4..8].fill(255);
        let queries: QueryCodes = std::array::from_fn(|_| random.code());
        let (expected, multiply_adds) = naive(&codes, &queries, iterations);
        assert_eq!(multiply_adds, MULTIPLY_ADDS);
        for set in KernelSet::copies() {
            let mut out = [[i32::MIN; 64]; 4];
            set.multiply_adds(&codes, &queries, iterations, &mut out).expect("in range");
            assert_eq!(out, expected, "{} {iterations}", set.isa());
        }
    }
}

#[test]
fn a_pass_reads_every_word_of_every_piece() {
    let mut random = Random(4);
    let pieces: Vec<Piece> = (0..100).map(|_| std::array::from_fn(|_| random.next())).collect();
    for count in [0, 1, 7, 8, 9, 63, 100] {
        let expected: Piece =
            std::array::from_fn(|word| pieces[..count].iter().fold(0, |sum, piece| sum ^ piece[word]));
        for set in KernelSet::copies() {
            assert_eq!(set.read_pieces(&pieces[..count]), expected, "{} {count}", set.isa());
        }
    }
}

#[test]
fn what_could_overflow_is_an_error() {
    let set = KernelSet::from_env().expect("an instruction set");
    let mut out = [[0; 64]; 4];
    let (codes, mut queries) = ([1; 256], [1; 16]);
    let too_many = set.multiply_adds(&codes, &queries, MAX_ITERATIONS + 1, &mut out);
    assert!(matches!(too_many, Err(SimdError::TooLarge { limit: MAX_ITERATIONS, .. })));
    queries[9] = -128;
    assert_eq!(set.multiply_adds(&codes, &queries, 1, &mut out), Err(SimdError::QueryCode { position: 9 }));
}

#[test]
fn peaks_are_measured_with_any_number_of_threads() {
    let set = KernelSet::from_env().expect("an instruction set");
    for threads in [0, 1, 3] {
        let peaks = peaks(set, threads);
        assert!(peaks.multiply_adds_per_s > 0.0 && peaks.multiply_adds_per_s.is_finite(), "{peaks:?}");
        assert!(peaks.bytes_per_s > 0.0 && peaks.bytes_per_s.is_finite(), "{peaks:?}");
        assert!(peaks.buffer_bytes > 0, "{peaks:?}");
    }
}
