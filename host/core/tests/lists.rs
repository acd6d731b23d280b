//! Lists of answers: read as they were written, and refused where they cannot be.

use megaring_core::lists::{CandidateLists, Candidates, ListHeader, ListWriter, RANKED, RankedRow, is_ranked, len};

const CAPACITY: usize = 7;

fn result(items: usize) -> Vec<u64> {
    vec![0; len(items, CAPACITY) / 8]
}

/// The list of the second of two queries.
fn second(result: &mut [u64]) -> ListWriter<'_> {
    let (headers, cells) = bytemuck::cast_slice_mut::<_, u8>(result).split_at_mut(2 * size_of::<ListHeader>());
    let headers: &mut [ListHeader] = bytemuck::cast_slice_mut(headers);
    ListWriter { header: &mut headers[1], cells: &mut bytemuck::cast_slice_mut(cells)[CAPACITY..] }
}

fn ranked(row: u32) -> RankedRow {
    RankedRow { score: 0.5 + f64::from(row), row, reserved: 0 }
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    for rows in 0..=3 {
        let mut result = result(2);
        assert!(second(&mut result).put_ranked((0..rows).map(ranked), 19));
        let bytes = bytemuck::cast_slice(&result);
        let lists = CandidateLists::read(bytes, 2, 3).expect("every row is there");
        let want: Vec<RankedRow> = (0..rows).map(ranked).collect();
        assert_eq!(lists.of(0), Candidates::Listed(&[]));
        assert_eq!(lists.of(1), Candidates::Ranked { rows: &want, scored: 19 });
        assert!(!is_ranked(bytes, 2) && is_ranked(&bytes[size_of::<ListHeader>()..], 1));
    }
}

#[test]
fn an_answer_that_does_not_fit_changes_nothing() {
    let mut result = result(2);
    assert!(!second(&mut result).put_ranked((0..4).map(ranked), 19));
    assert!(result.iter().all(|word| *word == 0));
}

#[test]
fn a_result_that_cannot_be_is_refused() {
    let mut result = result(2);
    assert!(second(&mut result).put_ranked((0..3).map(ranked), 19));
    let is_refused = |result: &[u64], rows| CandidateLists::read(bytemuck::cast_slice(result), 2, rows).is_err();
    assert!(!is_refused(&result, 3) && is_refused(&result, 2), "row 2 of 2");
    for (count, flags) in [(4, RANKED), (u32::MAX, RANKED), (8, 0), (u32::MAX, 0)] {
        *second(&mut result).header = ListHeader { count, flags };
        assert!(is_refused(&result, 3), "{count} {flags}");
    }
}
