//! Jobs that are only described: what they would consist of and read, and which numbers they take.

use std::sync::Arc;

use megaring_core::corpus::{Column, Columns, CorpusView, HeapSegment, SegmentView};
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::operation::{Description, Shape, Size};
use megaring_core::score::Score;
use megaring_core::search::Search;
use megaring_core::{Error, Metric, Opcode, Operation};

fn describe(opcode: Opcode, shape: Shape) -> Description {
    opcode.describe(&shape).expect("a good shape")
}

fn sized(items: u64, rows: u64, dim: u64, k: u64) -> Shape {
    Shape { items, rows, dim, k, ..Shape::default() }
}

/// A corpus of ones, with coordinates or without.
fn corpus(rows: usize, dim: usize, coordinates: bool) -> Arc<CorpusView> {
    let coordinates = coordinates.then(|| [0; 5].map(|_| vec![0.5; rows]));
    let segment = SegmentView::new(Arc::new(HeapSegment::new(vec![1.0; rows * dim], dim, coordinates)), rows);
    Arc::new(CorpusView::new("c".into(), 1, 1, dim, vec![Arc::new(segment)]))
}

#[test]
fn a_size_is_what_a_job_reads_and_does() {
    let size = |opcode, shape| {
        let Size { items, bytes, multiply_adds, candidates } = describe(opcode, shape).size;
        [items, bytes, multiply_adds, candidates]
    };
    assert_eq!(size(Opcode::Search, sized(3, 100, 8, 10)), [3, 800, 2_400, 240]);
    assert_eq!(size(Opcode::Search, sized(3, 100, 8, 49)), [3, 800, 2_400, 1_176]);
    assert_eq!(size(Opcode::Search, sized(3, 100, 8, 50)), [3, 0, 0, 2_400], "all rows are scored");
    assert_eq!(size(Opcode::Score, sized(3, 100, 8, 0)), [3, 3_200, 2_400, 300]);
    assert_eq!(size(Opcode::Nearest, sized(3, 100, 5, 2)), [3, 4_000, 1_500, 30]);
    assert_eq!(size(Opcode::Nearest, sized(3, 100, 0, 50)), [3, 4_000, 1_500, 1_500]);
    let texts = Shape { items: 3, text_bytes: 100, ..Shape::default() };
    assert_eq!(size(Opcode::Encode, texts), [3, 100, 0, 0]);
    let huge = sized(u64::MAX, u64::from(u32::MAX), 1 << 15, 10);
    assert_eq!(describe(Opcode::Search, huge).size.multiply_adds, u64::MAX, "no product wraps");
}

#[test]
fn columns_are_those_that_a_job_reads() {
    let columns = |opcode, shape| describe(opcode, shape).columns;
    let screen = Columns::of(&[Column::Codes, Column::Screen(Metric::Cosine)]);
    assert_eq!(columns(Opcode::Search, sized(1, 100, 8, 49)), screen);
    assert_eq!(columns(Opcode::Search, sized(1, 100, 8, 50)), Columns::NONE, "no row is screened");
    assert_eq!(columns(Opcode::Score, sized(1, 100, 8, 0)), Columns::of(&[Column::Embeddings, Column::Norms]));
    assert_eq!(columns(Opcode::Nearest, sized(1, 100, 0, 49)), Columns::of(&[Column::Coordinates]));
    assert_eq!(columns(Opcode::Nearest, sized(1, 100, 0, 50)), Columns::NONE);
}

#[test]
fn a_description_is_of_the_job_that_it_describes() {
    let view = corpus(100, 8, true);
    let queries = || Matrix { rows: 3, dim: 8, values: vec![1.0; 24] };
    let shape = |k| Shape { items: 3, k, corpus: Some(view.clone()), ..Shape::default() };
    let same = |described: Description, job: &dyn Operation| {
        let reads = job.reads().expect("it reads a corpus");
        assert_eq!((described.size, described.columns), (job.size(), reads.columns), "{}", job.opcode());
        assert!(Arc::ptr_eq(reads.corpus, &view));
    };
    for k in [1, 49, 50, 1_000] {
        let metric = Metric::Cosine;
        let search = Search { corpus: view.clone(), queries: queries().into(), metric, k: k as usize, threshold: None };
        same(describe(Opcode::Search, shape(k)), &search);
        let points = Points::Corpus(view.clone());
        let nearest = Nearest { points, queries: vec![[0.0; 5]; 3], weights: [1.0; 5], k: k as usize };
        same(describe(Opcode::Nearest, shape(k)), &nearest);
    }
    let score = Score { corpus: view.clone(), queries: queries(), metric: Metric::Dot, rows: None };
    same(describe(Opcode::Score, shape(0)), &score);
}

#[test]
fn a_number_that_is_missing_or_out_of_place_is_named() {
    let view = corpus(10, 4, false);
    let of = |view: &Arc<CorpusView>, shape| Shape { corpus: Some(view.clone()), ..shape };
    let text = |shape: Shape| Shape { text_bytes: 9, ..shape };
    for (opcode, shape, field) in [
        (Opcode::Nop, sized(1, 0, 0, 0), "operation"),
        (Opcode::Search, sized(0, 9, 3, 1), "items"),
        (Opcode::Search, sized(1, 9, 3, 0), "k"),
        (Opcode::Search, sized(1, 0, 3, 1), "rows"),
        (Opcode::Search, sized(1, 1 << 32, 3, 1), "rows"),
        (Opcode::Search, sized(1, 9, 0, 1), "dim"),
        (Opcode::Search, sized(1, 9, 32_769, 1), "dim"),
        (Opcode::Search, text(sized(1, 9, 3, 1)), "text_bytes"),
        (Opcode::Score, of(&view, sized(1, 9, 0, 0)), "rows"),
        (Opcode::Score, of(&view, sized(1, 0, 4, 0)), "dim"),
        (Opcode::Nearest, sized(1, 9, 6, 1), "dim"),
        (Opcode::Nearest, text(sized(1, 9, 0, 1)), "text_bytes"),
        (Opcode::Encode, sized(1, 0, 0, 0), "text_bytes"),
        (Opcode::Encode, text(sized(0, 0, 0, 0)), "items"),
        (Opcode::Encode, text(sized(1, 9, 0, 0)), "rows"),
        (Opcode::Encode, text(sized(1, 0, 9, 0)), "dim"),
        (Opcode::Encode, of(&view, text(sized(1, 0, 0, 0))), "corpus"),
    ] {
        match opcode.describe(&shape) {
            Err(Error::Invalid(violation)) => assert_eq!(violation.field, field, "{opcode}: {violation}"),
            other => panic!("{opcode}, {field}: {:?}", other.map(|described| described.size)),
        }
    }
    let refused = Opcode::Nearest.describe(&of(&view, sized(1, 0, 0, 1)));
    assert!(matches!(refused, Err(Error::Precondition { name, .. }) if name == "c"), "it has no coordinates");
}
