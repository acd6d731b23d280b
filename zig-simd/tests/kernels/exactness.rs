//! Whatever the rows: both screens of every instruction set leave the rows of the answer, and ranking them gives the
//! naive reference's hits to the last bit; so does a sweep over narrow rows.

use std::sync::Arc;

use megaring_core::Metric;
use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::lists::{Candidate, Candidates};
use megaring_core::nibbles::Nibbles;
use megaring_core::rescore::{Ask, rank};
use megaring_core::screen::{QueryScreen, groups};
use megaring_datasets::reference;
use megaring_simd::{
    KernelSet, NARROW_DIM, NibbleRows, QueryParams, ScreenQueries, ScreenRows, SweepQuery, SweepRows, TopRows,
};
use proptest::prelude::*;

use crate::common::Random;

/// Rows that are hard to tell apart, or to bound.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Each by itself.
    Apart,
    /// Every row is the same.
    Same,
    /// The same but for last bits.
    LastBits,
    /// Around a few others, very close.
    NearDuplicates,
    /// Most elements are below what float32 has full precision for.
    Denormal,
    /// Some rows are zero.
    Zeros,
    /// Of every length that a screen bounds.
    Tame,
    /// From 1e-30 to 1e30.
    Wild,
    /// One element is thousands of times as large as the others.
    OneDominates,
}

const KINDS: [Kind; 9] = [
    Kind::Apart,
    Kind::Same,
    Kind::LastBits,
    Kind::NearDuplicates,
    Kind::Denormal,
    Kind::Zeros,
    Kind::Tame,
    Kind::Wild,
    Kind::OneDominates,
];

impl Random {
    fn rows(&mut self, kind: Kind, rows: usize, dim: usize) -> Vec<f32> {
        let origins: Vec<Vec<f32>> = (0..3).map(|_| self.units(dim)).collect();
        let one = |row: usize| {
            let origin = &origins[row % 3];
            let exponent = |random: &mut Self, most: i32| (random.next() % (2 * most as u64)) as i32 - most;
            match kind {
                Kind::Apart => self.units(dim),
                Kind::Same => origins[0].clone(),
                Kind::LastBits => {
                    let mut row = origins[0].clone();
                    let at = (self.next() % dim as u64) as usize;
                    row[at] = if self.next().is_multiple_of(2) { row[at].next_up() } else { row[at].next_down() };
                    row
                }
                Kind::NearDuplicates => origin.iter().map(|value| value + 1e-4 * self.unit()).collect(),
                Kind::Denormal => {
                    let mut row: Vec<f32> = (0..dim).map(|_| 1e-39 * self.unit()).collect();
                    row[dim / 2] = 1e-9 * self.unit();
                    row
                }
                Kind::Zeros if row.is_multiple_of(3) => vec![0.0; dim],
                Kind::Zeros => self.units(dim),
                Kind::Tame => {
                    let length = 2.0_f32.powi(exponent(self, 35));
                    (0..dim).map(|_| length * self.unit()).collect()
                }
                Kind::Wild => {
                    let length = 10.0_f32.powi(exponent(self, 30));
                    (0..dim).map(|_| length * self.unit()).collect()
                }
                Kind::OneDominates => {
                    let mut row: Vec<f32> = (0..dim).map(|_| 1e-4 * self.unit()).collect();
                    row[dim / 2] = 1.0 + 1e-3 * self.unit();
                    row
                }
            }
        };
        (0..rows).flat_map(one).collect()
    }
}

/// How rows are screened.
#[derive(Debug, Clone, Copy)]
enum By {
    Codes,
    Halves,
}

struct Case {
    view: CorpusView,
    segment: Arc<SegmentView>,
    dim: usize,
    ask: Ask,
    /// Candidates beyond which the screen gives up.
    limit: usize,
}

impl Case {
    fn hits(&self, query: &[f32], kernels: &KernelSet, by: By) -> Vec<(u32, f64)> {
        let listed = self.candidates(query, kernels, by);
        let candidates = listed.as_deref().map_or(Candidates::EveryRow, Candidates::Listed);
        let ranked = rank(&self.view, query, self.ask, &candidates, kernels);
        ranked.hits.iter().map(|hit| (hit.row, hit.score)).collect()
    }

    /// In two sweeps of which the second goes on from the first, and a third that is absorbed.
    fn swept(&self, query: &[f32], kernels: &KernelSet) -> Vec<(u32, f64)> {
        let data = self.segment.data();
        let rows = SweepRows::narrow(data.embeddings(), data.norms2(), self.dim).expect("narrow rows");
        let none = if self.ask.metric == Metric::L2 { f64::INFINITY } else { f64::NEG_INFINITY };
        let mut found = SweepQuery::new(self.ask.metric, self.ask.k, none, query).expect("as many values");
        let mut others = found.clone();
        let (third, count) = (self.view.rows() / 3, self.view.rows());
        kernels.sweep(rows, 0..third, 0, &mut found).expect("rows that are there");
        kernels.sweep(rows, third..2 * third, 0, &mut found).expect("rows that are there");
        kernels.sweep(rows, 2 * third..count, 0, &mut others).expect("rows that are there");
        others.absorb(&found);
        others.ranked().map(|ranked| (ranked.row, ranked.score)).collect()
    }

    /// `None` where the screen cannot help.
    fn candidates(&self, query: &[f32], kernels: &KernelSet, by: By) -> Option<Vec<Candidate>> {
        let (codes, norms2, metric) = (self.segment.data().codes(), self.segment.data().norms2(), self.ask.metric);
        let mut queries = ScreenQueries::new(self.dim).expect("few dimensions");
        let quantised = queries.push_values(kernels, query).expect("as many values");
        let screen = QueryScreen::of(metric, &quantised, codes.max_norm).filter(|_| !codes.wild)?;
        let mut top = TopRows::new(self.ask.k, self.limit).expect("a small limit");
        top.push(QueryParams::new(&screen, f32::MIN));
        let columns = self.segment.columns(metric);
        let rows = ScreenRows::new(codes.packed, columns, self.dim).expect("lengths fit");
        let nibbles = Nibbles::new(codes, self.view.rows(), self.dim);
        let high_columns = nibbles.view().columns(metric, codes, norms2);
        let halves = NibbleRows::new(nibbles.view(), &high_columns, columns, self.dim).expect("lengths fit");
        let (mut begin, end) = (0, groups(self.view.rows()));
        while begin < end {
            begin = match by {
                By::Codes => kernels.screen_i8(rows, begin..end, 0, queries.all(), &mut top),
                By::Halves => kernels.screen_nibbles(halves, begin..end, 0, queries.all(), &mut top).map(|it| it.0),
            }
            .expect("shapes fit");
            if begin < end {
                top.make_room();
            }
        }
        top.tidy(0);
        let listed = top.get(0).iter().map(|found| Candidate { row: found.row, upper: found.upper }).collect();
        (!top.is_overflowed(0)).then_some(listed)
    }
}

/// k of a corpus of so many rows: few, around what the kernel keeps itself, many, all and more.
fn wanted(rows: usize) -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), 2..=16_usize, 17..=40_usize, 1..=rows, Just(rows), Just(rows + 3)]
}

fn shapes() -> impl Strategy<Value = (usize, usize, usize)> {
    let dims = prop_oneof![1..=3_usize, 4..=9_usize, 10..=140_usize, Just(384), 600..=700_usize];
    (dims, 1..=700_usize).prop_flat_map(|(dim, rows)| (Just(dim), Just(rows), wanted(rows)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_the_references_whatever_the_rows(
        (dim, rows, k) in shapes(),
        kind in prop::sample::select(&KINDS[..]),
        metric in prop::sample::select(&Metric::OF_FLOATS[..]),
        is_among_rows in any::<bool>(),
        room in 0..=1_usize,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let values = random.rows(kind, rows, dim);
        let query = match is_among_rows {
            true => values[(seed % rows as u64) as usize * dim..][..dim].to_vec(),
            false => random.rows(kind, 1, dim),
        };
        let named = match metric {
            Metric::Cosine => reference::Metric::Cosine,
            Metric::Dot => reference::Metric::Dot,
            Metric::L2 => reference::Metric::L2,
            Metric::Hamming => reference::Metric::Hamming,
            Metric::Jaccard => reference::Metric::Jaccard,
        };
        let want: Vec<(u32, f64)> =
            reference::search(named, &query, &values, dim, k, None)[0].iter().map(|hit| (hit.row, hit.score)).collect();
        let segment = Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, dim, None)), rows));
        let view = CorpusView::new("test".into(), 1, 1, dim, vec![segment.clone()]);
        let limit = [rows, k.min(rows) + 5][room];
        let case = Case { view, segment, dim, ask: Ask { metric, k, threshold: None }, limit };
        for kernels in KernelSet::copies() {
            for by in [By::Codes, By::Halves] {
                let found = case.hits(&query, kernels, by);
                prop_assert_eq!(&found, &want, "{} by {:?}", kernels.isa(), by);
            }
            if dim <= NARROW_DIM {
                prop_assert_eq!(&case.swept(&query, kernels), &want, "{}", kernels.isa());
            }
        }
    }
}
