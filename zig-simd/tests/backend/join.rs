//! Joins of a corpus with itself: each row's answer is that of a search by itself, however the rows are cut into parts.

use std::ops::Range;

use megaring_core::corpus::SelfJoin;
use megaring_core::visible::Visible;

use super::*;

/// Clusters, equal rows, rows of zeros, and rows of very different lengths.
fn uneven(count: usize, dim: usize) -> Matrix {
    let mut rows = clustered(count, dim);
    for (at, row) in rows.values.chunks_exact_mut(dim).enumerate() {
        match at % 50 {
            7 => row.fill(0.0),
            9 | 10 => row.iter_mut().for_each(|value| *value *= 3000.0),
            11 => row.iter_mut().for_each(|value| *value += 50.0),
            _ => {}
        }
    }
    let one = rows.values[20 * dim..21 * dim].to_vec();
    [21, 22, 23, 100, 101, 399, 698].iter().for_each(|row| rows.values[row * dim..][..dim].copy_from_slice(&one));
    rows
}

fn parts(count: usize, cuts: &[usize]) -> Vec<Range<usize>> {
    let ends = cuts.iter().copied().filter(|cut| *cut < count).chain([count]);
    ends.scan(0, |begin, end| Some(std::mem::replace(begin, end)..end)).collect()
}

fn search(rig: &Rig, view: &Arc<CorpusView>, rows: &[u32], ask: Ask) -> Vec<Vec<(u32, f64)>> {
    let Ask { metric, k, threshold } = ask;
    let job = Search { corpus: view.clone(), queries: Queries::Rows(rows.to_vec()), metric, k, threshold };
    let ranked = rig.answer(&job).0.into_iter();
    ranked.map(|ranked| ranked.hits.iter().map(|hit| (hit.row, hit.score)).collect()).collect()
}

/// Every row's hits among those that are visible.
fn hits_of(rows: &Matrix, metric: Metric, shows: impl Fn(u32) -> bool) -> Vec<Vec<(u32, f64)>> {
    let mut all = truth(rows, rows, ask(metric, rows.rows));
    all.iter_mut().for_each(|hits| hits.retain(|hit| shows(hit.0)));
    all
}

#[test]
fn every_row_finds_what_it_finds_alone() {
    let count = 700;
    let rows = uneven(count, 24);
    let is_hidden = |row: usize| row % 9 == 4 || (130..150).contains(&row) || row < 2;
    let shown: Vec<u32> = (0..count).filter(|row| !is_hidden(*row)).map(|row| row as u32).collect();
    for metric in Metric::OF_FLOATS {
        let all = [hits_of(&rows, metric, |_| true), hits_of(&rows, metric, |row| !is_hidden(row as usize))];
        for rig in Rig::all() {
            let whole = rig.corpus(&rows, &[37, 300, 1]);
            let some = rig.corpora.select(
                &whole,
                whole.segments().map(|(start, segment)| {
                    Visible::all(segment.rows()).without((0..segment.rows()).filter(|row| is_hidden(start + row)))
                }),
            );
            for (view, numbers, all) in [(&whole, (0..700).collect(), &all[0]), (&some, shown.clone(), &all[1])] {
                for (k, cuts) in [(1, &[64, 128, 500][..]), (11, &[16, 40, 41, 300]), (40, &[100]), (11, &[690])] {
                    let view = rig.corpora.join(view, SelfJoin::new(metric, k, view));
                    for part in parts(numbers.len(), cuts) {
                        let found = search(&rig, &view, &numbers[part.clone()], ask(metric, k));
                        for (row, found) in numbers[part.clone()].iter().zip(found) {
                            let want = &all[*row as usize];
                            assert_eq!(found, want[..k.min(want.len())], "{metric} k {k} row {row} of {cuts:?}");
                        }
                        let begin = view.self_join().expect("it was made one").turn().begin();
                        // Rows so much longer than others leave no bound of their distances.
                        let is_over = metric == Metric::L2 && begin == usize::MAX;
                        let want = numbers[part.end - 1] as usize + 1;
                        assert!(is_over || begin == want, "{begin} {want} {metric} k {k} of {cuts:?}");
                    }
                }
            }
        }
    }
}

/// Parts that are missing, or come again, or have other rows than those up to their last.
#[test]
fn parts_in_no_order_are_searches_like_any_other() {
    let rows = uneven(700, 24);
    let all = hits_of(&rows, Metric::L2, |_| true);
    for rig in Rig::all() {
        let view = rig.corpus(&rows, &[300]);
        let view = rig.corpora.join(&view, SelfJoin::new(Metric::L2, 5, &view));
        let begin = || view.self_join().expect("it was made one").turn().begin();
        let cases: [(Vec<u32>, usize); 6] = [
            ((0..90).collect(), 90),
            ((90..300).step_by(2).collect(), 90),
            ((0..90).collect(), 90),
            ((90..200).rev().collect(), 90),
            ((90..200).collect(), 200),
            ((400..700).collect(), 200),
        ];
        for (numbers, want) in cases {
            for (row, found) in numbers.iter().zip(search(&rig, &view, &numbers, ask(Metric::L2, 5))) {
                assert_eq!(found, all[*row as usize][..5], "row {row}");
            }
            assert_eq!(begin(), want);
        }
        let other = search(&rig, &view, &(200..300).collect::<Vec<u32>>(), ask(Metric::L2, 6));
        assert!(other.iter().zip(200..).all(|(found, row)| *found == all[row][..6]));
        assert_eq!(begin(), 200, "another k is another join");
        let near = Ask { threshold: Some(0.5), ..ask(Metric::L2, 5) };
        let near = search(&rig, &view, &(200..300).collect::<Vec<u32>>(), near);
        let passes = |hit: &&(u32, f64)| hit.1 as f32 <= 0.5;
        let want = |row: usize| all[row][..5].iter().filter(passes).copied().collect::<Vec<_>>();
        assert!(near.iter().zip(200..).all(|(found, row)| *found == want(row)));
        assert_eq!(begin(), 200, "with a threshold, not all is known of a row");
    }
}

/// With more rows of zeros than a join can carry along, it ends, and the answers stay.
#[test]
fn many_rows_that_no_screen_compares_end_a_join() {
    let mut rows = clustered(400, 24);
    rows.values[24 * 50..24 * 130].fill(0.0);
    let all = hits_of(&rows, Metric::Cosine, |_| true);
    for rig in Rig::all() {
        let view = rig.corpus(&rows, &[]);
        let view = rig.corpora.join(&view, SelfJoin::new(Metric::Cosine, 9, &view));
        for part in parts(400, &[40, 100, 150, 300]) {
            let numbers: Vec<u32> = part.map(|row| row as u32).collect();
            for (row, found) in numbers.iter().zip(search(&rig, &view, &numbers, ask(Metric::Cosine, 9))) {
                assert_eq!(found, all[*row as usize][..9], "row {row}");
            }
        }
        assert_eq!(view.self_join().expect("it was made one").turn().begin(), usize::MAX);
    }
}

/// One part after the other, each row as it is searched for alone; how far the join is after each.
fn joined(rows: &Matrix, metric: Metric, k: usize, cuts: &[usize]) -> Vec<Vec<usize>> {
    let all = hits_of(rows, metric, |_| true);
    let one = |rig: &Rig| {
        let view = rig.corpus(rows, &[]);
        let view = rig.corpora.join(&view, SelfJoin::new(metric, k, &view));
        let parts = parts(rows.rows, cuts).into_iter().map(|part| {
            let numbers: Vec<u32> = part.map(|row| row as u32).collect();
            for (row, found) in numbers.iter().zip(search(rig, &view, &numbers, ask(metric, k))) {
                assert_eq!(found, all[*row as usize][..k], "row {row}");
            }
            view.self_join().expect("it was made one").turn().begin()
        });
        parts.collect()
    };
    Rig::all().map(|rig| one(&rig)).collect()
}

/// The first rows are searched for by themselves, in however many parts they come.
#[test]
fn the_first_rows_may_be_several_parts() {
    let mut rows = clustered(4000, 24);
    for row in [1, 2, 18] {
        rows.values.copy_within(30 * 24..31 * 24, row * 24);
    }
    for begins in joined(&rows, Metric::L2, 7, &[20, 38, 50, 400, 1500]) {
        assert_eq!(begins, [20, 38, 50, 400, 1500, 4000]);
    }
}

/// So is a late row about which bounds say nothing.
#[test]
fn a_row_that_may_be_near_to_any_other_is_compared_with_all() {
    let mut rows = clustered(4000, 24);
    rows.values[3990 * 24..3991 * 24].iter_mut().for_each(|value| *value *= 1e-7);
    for begins in joined(&rows, Metric::L2, 3, &[50, 300, 3900]) {
        assert_eq!(begins, [50, 300, 3900, 4000]);
    }
}

/// Rows that bounds cannot tell apart would all be noted of each other: the join ends before they fill memory.
#[test]
fn too_much_to_note_ends_a_join() {
    let mut rows = clustered(2600, 24);
    let one = rows.values[..24].to_vec();
    for (at, row) in rows.values.chunks_exact_mut(24).enumerate().skip(40) {
        row.iter_mut().zip(&one).enumerate().for_each(|(column, (value, one))| {
            *value = one + ((at * 31 + column * 7) % 11) as f32 * 1e-6;
        });
    }
    for begins in joined(&rows, Metric::Dot, 1, &[40, 1000, 1200]) {
        assert_eq!(begins, [40, usize::MAX, usize::MAX, usize::MAX]);
    }
    // Each row is nearer to those after it than any before: all are noted, if few kept.
    for (at, row) in rows.values.chunks_exact_mut(24).enumerate() {
        row.fill(0.0);
        row[at % 2] = 100.0 + at as f32;
    }
    for begins in joined(&rows, Metric::L2, 1, &[40, 1000, 1200]) {
        assert_eq!(begins, [40, usize::MAX, usize::MAX, usize::MAX]);
    }
}
