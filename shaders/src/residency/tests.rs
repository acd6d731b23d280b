//! What stays on the device and what makes way, on the adapter of this machine.

use megaring_core::Metric;
use megaring_core::corpus::{Column, Columns, HeapSegment};
use megaring_core::visible::Visible;

use super::*;
use crate::gpu::{GpuOptions, Loss};
use crate::testing::{gpu, own_gpu, test_adapter};

const DIM: usize = 8;
const ROWS: usize = 160;

/// A version of `segments` segments of [`ROWS`] rows each.
fn version(segments: usize) -> CorpusView {
    let segment = |number: usize| {
        let values = (0..ROWS * DIM).map(|i| (i * 7 + number) as f32 % 11.0 - 5.0).collect();
        Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, DIM, None)), ROWS))
    };
    CorpusView::new("test".into(), 1, 1, DIM, (0..segments).map(segment).collect())
}

fn pair(columns: &[Column]) -> Pair {
    Pair::of(Columns::of(columns)).expect("two at most")
}

fn screen(metric: Metric) -> Pair {
    pair(&[Column::Codes, Column::Screen(metric)])
}

fn bytes(pair: Pair) -> usize {
    pair.bytes(ROWS, DIM).iter().sum()
}

fn count(residency: &Residency, name: &str) -> u64 {
    residency.counters.list().into_iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| value)
}

fn with_room(bytes: usize) -> Residency {
    Residency::new(bytes, Arc::default())
}

#[test]
fn a_segment_is_uploaded_once_and_its_codes_once_for_all_metrics() {
    let Some(gpu) = gpu() else { return };
    let (residency, view) = (with_room(1 << 20), version(2));
    assert!(residency.find(gpu, &view, screen(Metric::Dot)).is_none());
    let held = residency.bring(gpu, &view, screen(Metric::Dot)).expect("room");
    assert_eq!(parts_of(&view, &held).iter().map(|part| part.rows.clone()).collect::<Vec<_>>(), [0..ROWS, ROWS..320]);
    assert!(residency.find(gpu, &view, screen(Metric::Dot)).is_some());
    residency.bring(gpu, &view, screen(Metric::Dot)).expect("they are there");
    assert_eq!(
        (count(&residency, "uploads"), count(&residency, "uploaded_bytes")),
        (2, 2 * bytes(screen(Metric::Dot)) as u64)
    );
    residency.bring(gpu, &view, screen(Metric::L2)).expect("room");
    let columns = 2 * screen(Metric::L2).bytes(ROWS, DIM)[1] as u64;
    assert_eq!(count(&residency, "uploaded_bytes"), 2 * bytes(screen(Metric::Dot)) as u64 + columns);
    assert_eq!(resident_bytes(&residency.lock()) as u64, count(&residency, "uploaded_bytes"));
}

#[test]
fn views_that_hide_rows_bring_their_screens_columns_alone() {
    let Some(gpu) = gpu() else { return };
    let (residency, view) = (with_room(1 << 20), version(2));
    let whole: u64 = 2 * bytes(screen(Metric::Dot)) as u64;
    let columns = 2 * screen(Metric::Dot).bytes(ROWS, DIM)[1] as u64;
    residency.bring(gpu, &view, screen(Metric::Dot)).expect("room");
    let hiding = |row: usize| {
        let showing = |(_, segment): (usize, &Arc<SegmentView>)| {
            Arc::new(segment.showing(Visible::all(ROWS).without(std::iter::once(row))))
        };
        CorpusView::new("test".into(), 1, 2 + row as u32, DIM, view.segments().map(showing).collect())
    };
    let (one, other) = (hiding(3), hiding(4));
    let lacks = |view: &CorpusView| residency.lacking(gpu, view, screen(Metric::Dot)).bytes;
    assert_eq!((lacks(&view), lacks(&one)), (0, columns));
    for (number, view) in [(1, &one), (2, &other), (2, &one)] {
        residency.bring(gpu, view, screen(Metric::Dot)).expect("room");
        assert_eq!(count(&residency, "uploaded_bytes"), whole + number * columns);
        assert_eq!(resident_bytes(&residency.lock()) as u64, whole + number * columns);
    }
    // What all of them have outlives the view that brought it.
    drop((view, one));
    residency.forget_dropped();
    assert_eq!(resident_bytes(&residency.lock()) as u64, whole);
}

#[test]
fn a_version_that_grows_brings_its_new_segment_alone() {
    let Some(gpu) = gpu() else { return };
    let (residency, view) = (with_room(1 << 20), version(3));
    let segments: Vec<_> = view.segments().map(|(_, segment)| segment.clone()).collect();
    let before = CorpusView::new("test".into(), 1, 0, DIM, segments[..2].to_vec());
    residency.bring(gpu, &before, pair(&[Column::Embeddings, Column::Norms])).expect("room");
    residency.bring(gpu, &view, pair(&[Column::Embeddings, Column::Norms])).expect("room");
    assert_eq!(count(&residency, "uploads"), 3);
}

#[test]
fn what_was_used_least_recently_makes_way_and_what_is_held_does_not() {
    let Some(gpu) = gpu() else { return };
    let residency = with_room(2 * bytes(screen(Metric::Dot)));
    let [first, second, third] = [version(1), version(1), version(1)];
    residency.bring(gpu, &first, screen(Metric::Dot)).expect("room");
    residency.bring(gpu, &second, screen(Metric::Dot)).expect("room");
    residency.find(gpu, &first, screen(Metric::Dot)).expect("it is there");
    let held = residency.bring(gpu, &third, screen(Metric::Dot)).expect("room is made");
    assert!(residency.find(gpu, &second, screen(Metric::Dot)).is_none(), "it was used least recently");
    let also = residency.find(gpu, &first, screen(Metric::Dot)).expect("it was used since");
    assert_eq!(residency.bring(gpu, &second, screen(Metric::Dot)).err(), Some(Absent::NoRoom), "all the room is held");
    drop(also);
    residency.bring(gpu, &second, screen(Metric::Dot)).expect("room is made again");
    assert!(residency.find(gpu, &first, screen(Metric::Dot)).is_none());
    assert!(residency.find(gpu, &third, screen(Metric::Dot)).is_some(), "it is held");
    drop(held);
    assert_eq!(count(&residency, "evictions"), 2);
    assert!(resident_bytes(&residency.lock()) <= residency.budget());
}

#[test]
fn segments_that_no_corpus_has_any_more_go_first() {
    let Some(gpu) = gpu() else { return };
    let residency = with_room(2 * bytes(screen(Metric::Dot)));
    let (kept, dropped) = (version(1), version(1));
    residency.bring(gpu, &kept, screen(Metric::Dot)).expect("room");
    residency.bring(gpu, &dropped, screen(Metric::Dot)).expect("room");
    drop(dropped);
    residency.bring(gpu, &version(1), screen(Metric::Dot)).expect("room is made");
    assert!(residency.find(gpu, &kept, screen(Metric::Dot)).is_some());
    assert_eq!(count(&residency, "evictions"), 0, "nothing of use was evicted");
}

#[test]
fn what_a_dropped_corpus_leaves_is_freed_when_another_is_asked_for() {
    let Some(gpu) = gpu() else { return };
    let (residency, kept, dropped) = (with_room(1 << 20), version(1), version(2));
    for view in [&kept, &dropped] {
        residency.bring(gpu, view, screen(Metric::Dot)).expect("room");
    }
    drop(dropped);
    residency.bring(gpu, &kept, screen(Metric::Dot)).expect("it is there");
    assert_eq!(resident_bytes(&residency.lock()), bytes(screen(Metric::Dot)));
    assert_eq!(count(&residency, "evictions"), 0, "nothing of use was evicted");
}

#[test]
fn a_version_beyond_the_budget_has_no_room_and_evicts_nothing() {
    let Some(gpu) = gpu() else { return };
    let residency = with_room(2 * bytes(screen(Metric::Dot)));
    let small = version(1);
    residency.bring(gpu, &small, screen(Metric::Dot)).expect("room");
    assert_eq!(residency.bring(gpu, &version(3), screen(Metric::Dot)).err(), Some(Absent::NoRoom));
    assert!(residency.find(gpu, &small, screen(Metric::Dot)).is_some());
}

#[test]
fn what_would_have_to_be_brought_is_told() {
    let Some(gpu) = gpu() else { return };
    let (residency, view) = (with_room(2 * bytes(screen(Metric::Dot))), version(2));
    let lacking = |bytes: usize, stays| Lacking { bytes: bytes as u64, stays };
    assert_eq!(residency.lacking(gpu, &view, screen(Metric::Dot)), lacking(2 * bytes(screen(Metric::Dot)), true));
    let first =
        CorpusView::new("test".into(), 1, 0, DIM, view.segments().take(1).map(|(_, one)| one.clone()).collect());
    residency.bring(gpu, &first, screen(Metric::Dot)).expect("room");
    assert_eq!(
        residency.lacking(gpu, &view, screen(Metric::Dot)),
        lacking(bytes(screen(Metric::Dot)), true),
        "one of two"
    );
    residency.bring(gpu, &view, screen(Metric::Dot)).expect("room");
    assert_eq!(residency.lacking(gpu, &view, screen(Metric::Dot)).bytes, 0);
    assert_eq!(
        residency.lacking(gpu, &version(3), screen(Metric::Dot)),
        lacking(3 * bytes(screen(Metric::Dot)), false),
        "it is streamed each time"
    );
}

#[test]
fn what_a_segment_lacks_is_said() {
    let Some(gpu) = gpu() else { return };
    let lacking = with_room(1 << 20).bring(gpu, &version(1), pair(&[Column::Coordinates])).err();
    assert!(matches!(lacking, Some(Absent::Failed(_))), "{lacking:?}");
}

#[test]
fn what_lies_on_another_device_is_not_found() {
    let Some(adapter) = test_adapter() else { return };
    let [one, other] = [(), ()].map(|()| Gpu::open(&adapter, GpuOptions::default()).expect("the adapter opens"));
    let (residency, view) = (with_room(1 << 20), version(1));
    residency.bring(&one, &view, screen(Metric::Dot)).expect("room");
    assert!(residency.find(&other, &view, screen(Metric::Dot)).is_none());
    residency.bring(&other, &view, screen(Metric::Dot)).expect("room");
    assert_eq!(count(&residency, "uploads"), 2);
}

#[test]
fn a_device_that_is_gone_brings_nothing() {
    let Some(gpu) = own_gpu() else { return };
    gpu.lose(Loss::Destroyed);
    assert!(with_room(1 << 20).bring(&gpu, &version(1), screen(Metric::Dot)).is_err());
}
