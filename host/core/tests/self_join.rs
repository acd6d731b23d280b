//! What is kept of a join, by itself: whatever a row may still need, however pairs come, and no more than there is room
//! for.

use std::sync::Arc;

use megaring_core::Metric;
use megaring_core::corpus::{CorpusView, HeapSegment, Met, Noted, SegmentView, SelfJoin};
use proptest::prelude::*;

const ROWS: usize = 2100;

fn join(k: usize) -> SelfJoin {
    let segment = Arc::new(SegmentView::new(Arc::new(HeapSegment::new(vec![1.0; ROWS], 1, None)), ROWS));
    SelfJoin::new(Metric::Dot, k, &CorpusView::new("rows".into(), 1, 1, 1, vec![segment]))
}

fn met(join: &SelfJoin, row: usize) -> Option<Vec<Met>> {
    let turn = join.turn();
    let mut met: Vec<Met> = turn.met_by(row)?.copied().collect();
    met.sort_by_key(|met| met.row);
    Some(met)
}

fn note(pairs: &[(u32, Met)]) -> Noted {
    let mut noted = Noted::new(ROWS);
    pairs.iter().for_each(|(row, met)| noted.pair(*row, *met));
    noted
}

/// Rows of each end of the parts that are taken in at once.
fn pair() -> impl Strategy<Value = (u32, Met)> {
    let rows = prop::sample::select(vec![300, 1023, 1024, 2099]);
    (rows, 0_u32..100, -50_i8..50, 0_u8..20).prop_map(|(of, row, lower, width)| {
        let lower = f32::from(lower);
        (of, Met { row, lower, upper: lower + f32::from(width) })
    })
}

proptest! {
    /// What cannot be ruled out by the k largest lower bounds is there when a row's turn comes.
    #[test]
    fn what_may_matter_is_kept(
        parts in prop::collection::vec(prop::collection::vec(pair(), 0..200), 1..6),
        k in 1_usize..20,
    ) {
        let join = join(k);
        for (begin, pairs) in parts.iter().enumerate() {
            let (some, more) = pairs.split_at(pairs.len() / 3);
            join.advance(begin, begin + 1, &[note(some), note(more)]);
            for of in [300, 1023, 1024, 2099] {
                let all = parts[..=begin].iter().flatten().filter(|(row, _)| *row == of).map(|(_, met)| *met);
                let mut lowers: Vec<f32> = all.clone().map(|met| met.lower).collect();
                lowers.sort_by(|x, y| y.total_cmp(x));
                let least = lowers.get(k - 1).copied().unwrap_or(f32::MIN);
                let kept = met(&join, of as usize).expect("few are met");
                prop_assert!(all.filter(|met| met.upper >= least).all(|met| kept.contains(&met)));
                prop_assert!(join.turn().least()[of as usize] <= least, "no more is left out than may be");
            }
        }
        prop_assert!((0..parts.len()).all(|row| met(&join, row).is_none()), "they have met every row");
    }
}

fn equal(row: u32) -> Met {
    Met { row, lower: 0.0, upper: 1.0 }
}

/// A part that is done twice, as a job may be that was given up, tells of its pairs once.
#[test]
fn a_part_counts_once() {
    let join = join(2);
    let pairs = [(500, Met { row: 3, lower: 1.0, upper: 2.0 })];
    join.advance(0, 10, &[note(&pairs)]);
    join.advance(0, 10, &[note(&pairs)]);
    assert_eq!(join.turn().begin(), 10);
    assert_eq!(met(&join, 500), Some(vec![pairs[0].1]));
    assert_eq!(join.turn().least()[500], f32::MIN, "it has met one row, not two");
}

/// A row that bounds tell nothing about is compared with all; many of them end the join, and so does all else that
/// there is no room for.
#[test]
fn there_is_an_end_to_what_is_kept() {
    let alone = join(2);
    let pairs: Vec<(u32, Met)> = (0..3000).map(|row| (1500, equal(row))).collect();
    alone.advance(0, 10, &[note(&pairs)]);
    assert_eq!((alone.turn().begin(), met(&alone, 1500), met(&alone, 1501)), (10, None, Some(Vec::new())));
    let many = join(2);
    for part in 0..3 {
        let pairs: Vec<(u32, Met)> = (1000..2000).flat_map(|of| (0..110).map(move |row| (of, equal(row)))).collect();
        many.advance(part, part + 1, &[note(&pairs)]);
        assert_eq!(many.turn().begin() == usize::MAX, part == 2, "after {part}");
    }
    let told = join(2);
    let mut noted = note(&[(1500, equal(0))]);
    noted.end();
    told.advance(0, 10, &[noted]);
    assert_eq!(told.turn().begin(), usize::MAX);
    let loose = join(2);
    let mut noted = note(&[]);
    (0..65).for_each(|row| noted.loose(row));
    loose.advance(0, 100, &[noted]);
    assert_eq!(loose.turn().begin(), usize::MAX);
}
