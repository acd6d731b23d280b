//! The files compiled in, the `.npy` reader, and the poisonous inputs, which must be as poisonous as they say.

use megaring_datasets::reference::{Metric, cosine, dot, search};
use megaring_datasets::{Matrix, golden, npy, poison, sample};
use proptest::prelude::*;

#[test]
fn the_sample_is_whole() {
    let sample = sample().unwrap();
    assert_eq!((sample.records.len(), sample.embeddings.rows, sample.embeddings.dim), (2048, 2048, 384));
    assert!(sample.records.iter().zip(1..).all(|(record, id)| record.memory_id == id && !record.content.is_empty()));
    assert_eq!(sample.records[1].title, "weakref.WeakKeyDictionary");
    assert!(sample.embeddings.iter_rows().all(|row| (dot(row, row).sqrt() - 1.0).abs() < 1e-6));
}

#[test]
fn the_golden_file_keeps_its_traps() {
    let cases = golden().unwrap();
    assert_eq!(cases.len(), 644);
    assert_eq!((cases[0].content.as_str(), cases[0].age_days), ("", 1e300));
    assert_eq!(cases[2].mask, 1 << 31);
    assert!(cases.iter().any(|case| case.access_count == u32::MAX));
    assert!(cases.iter().any(|case| case.content.contains('\0')));
}

#[test]
fn npy_reads_what_numpy_writes() {
    let mut version_2 = b"\x93NUMPY\x02\x00".to_vec();
    let header = "{\"descr\": \"<f4\", \"shape\":(2,1), \"fortran_order\": False}\n";
    version_2.extend((header.len() as u32).to_le_bytes());
    version_2.extend(header.as_bytes());
    version_2.extend([1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()));
    assert_eq!(npy::read(&version_2).unwrap(), Matrix::new(2, 1, vec![1.5, -2.0]));
    assert_eq!(npy::read(&npy::write(&Matrix::new(0, 7, vec![]))).unwrap(), Matrix::new(0, 7, vec![]));
}

#[test]
fn each_poisonous_npy_is_refused() {
    let files = poison::npy_files();
    assert!(files.len() >= 19);
    for (fault, file) in files {
        assert!(npy::read(&file).is_err(), "{fault} was accepted");
    }
    let message = |fault: &str| {
        let files = poison::npy_files();
        let file = &files.iter().find(|(name, _)| *name == fault).unwrap().1;
        npy::read(file).unwrap_err().to_string()
    };
    assert!(message("fortran order").contains("Fortran order"));
    assert!(message("float64").contains("<f8"));
    assert!(message("one row short").contains("96 bytes"));
}

#[test]
fn each_poisonous_json_line_breaks_on_line_two_alone() {
    for (fault, bytes) in poison::json_lines() {
        let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        assert_eq!(lines.len(), 4, "{fault}");
        let parse = |line: &[u8]| serde_json::from_slice::<megaring_datasets::SampleRecord>(line);
        assert!(parse(lines[0]).is_ok() && parse(lines[2]).is_ok() && lines[3].is_empty(), "{fault}");
        assert!(parse(lines[1]).is_err() || fault == "no object", "{fault}");
    }
}

#[test]
fn poisonous_matrices_are_what_they_say() {
    let base = poison::constant(3, 8, 0.5);
    assert!(base.values.iter().all(|&value| value == 0.5));
    let bad_rows = |matrix: &Matrix| -> Vec<usize> {
        let rows = matrix.iter_rows().enumerate();
        rows.filter(|(_, row)| row.iter().any(|value| !value.is_finite())).map(|(index, _)| index).collect()
    };
    assert_eq!(bad_rows(&poison::nan_in_row(&base, 1)), [1]);
    assert_eq!(bad_rows(&poison::infinity_in_row(&base, 2)), [2]);
    for value in poison::NON_FINITE {
        assert_eq!(bad_rows(&poison::with_value(&base, 0, 7, value)), [0]);
    }
    assert!(poison::zero_row(&base, 1).row(1).iter().all(|&value| value == 0.0));
    let huge = poison::huge(2, 8);
    assert!(bad_rows(&huge).is_empty() && huge.values.iter().any(|value| (value * value).is_infinite()));
    let tiny = poison::tiny(2, 8);
    assert!(tiny.values.iter().all(|value| value.is_subnormal() && value * value == 0.0));
    assert!(cosine(tiny.row(0), tiny.row(1)) != 0.0);
    let ties = search(Metric::Dot, base.row(0), &poison::duplicated(&base, 2).values, 8, 6, None).remove(0);
    assert!(ties.iter().zip(0..).all(|(hit, row)| hit.row == row));
}

#[test]
#[should_panic(expected = "rows * dim")]
fn a_matrix_of_the_wrong_length_is_a_mistake_in_the_call() {
    Matrix::new(2, 3, vec![0.0; 5]);
}

proptest! {
    #[test]
    fn npy_round_trips(rows in 0usize..20, dim in 1usize..20, seed in any::<u32>()) {
        let values = (0..rows * dim).map(|index| f32::from_bits(seed.wrapping_mul(index as u32 | 1) & 0x7f7f_ffff)).collect();
        let matrix = Matrix::new(rows, dim, values);
        let file = npy::write(&matrix);
        prop_assert_eq!((file.len() - rows * dim * 4) % 64, 0);
        prop_assert_eq!(npy::read(&file).unwrap(), matrix);
    }

    #[test]
    fn npy_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..128, byte in any::<u8>()) {
        prop_assert!(npy::read(&bytes).is_err());
        let mut file = npy::write(&poison::constant(2, 2, 1.0));
        file[at] = byte;
        drop(npy::read(&file));
    }
}
