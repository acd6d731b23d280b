//! Merging: what is left of many segments, and that nobody is held up or loses a row meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};

use megaring_core::Error;
use megaring_corpus::{Access, OpenOptions, Rows, State, Store};

use crate::common::{append, assert_derived, assert_rows, open, rows, store};

/// Small, so that the log overflows often.
const SMALL: OpenOptions = OpenOptions { check_bytes: 64 << 20, small_bytes: 2048 };

#[test]
fn all_segments_become_one() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    (0..3).for_each(|i| append(&store, "a", 10 * i, 10, 4));
    let before = store.view("a").unwrap();
    let done = store.compact("a").unwrap();
    assert_eq!((done.merged, done.into, done.rows), (3, 1, 30));
    let described = store.describe("a").unwrap();
    assert_eq!((described.segments.len(), described.rows), (1, 30));
    assert!(described.generation > before.generation());
    assert_rows(&before, 30);
    assert_rows(&store.view("a").unwrap(), 30);
    assert_eq!(store.compact("a").unwrap().merged, 0, "nothing is left to merge");
    append(&store, "a", 30, 5, 4);
    let root = store.root().to_owned();
    drop(store);
    let files = std::fs::read_dir(root.join("a")).unwrap().count();
    assert_eq!(files, 1 + 2 * 2, "the merged ones are gone");
    let store = open(&root, Access::Exclusive).unwrap();
    assert_rows(&store.view("a").unwrap(), 35);
    assert!(store.verify("a").unwrap().is_clean());
}

#[test]
fn every_column_is_kept() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    for i in 0..3 {
        let full = Rows {
            coordinates: Some(std::array::from_fn(|axis| vec![axis as f64 + i as f64; 5])),
            galactic_distance: Some(vec![0.5; 5]),
            importance: Some(vec![i as f64; 5]),
            zone: Some(vec![i as u8; 5]),
            constellation_id: Some(vec![300; 5]),
            last_accessed_ns: Some(vec![u64::MAX - i as u64; 5]),
            is_protected: Some(vec![i == 1; 5]),
            ..rows(5 * i, 5, 4)
        };
        let mut appender = store.append("a").unwrap();
        appender.push(full).unwrap();
        appender.commit().unwrap();
    }
    let columns = store.describe("a").unwrap().columns;
    store.compact("a").unwrap();
    assert_eq!(store.describe("a").unwrap().columns, columns);
    let view = store.view("a").unwrap();
    assert_rows(&view, 15);
    let (_, segment) = view.segments().next().unwrap();
    let [x, .., v] = segment.data().coordinates().unwrap();
    assert_eq!((x[0], x[14], v[7]), (0.0, 2.0, 5.0));
}

#[test]
fn many_appends_leave_few_segments_by_themselves() {
    for options in [SMALL, OpenOptions { small_bytes: 0, ..SMALL }] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
        store.create("a", 8).unwrap();
        (0..300).for_each(|i| append(&store, "a", 3 * i, 3, 8));
        // Closing waits for the merge that is under way; the next open sees to the rest.
        drop(store);
        drop(Store::open_with(folder.path(), Access::Exclusive, options).unwrap());
        let store = Store::open_with(folder.path(), Access::ReadOnly, options).unwrap();
        let described = store.describe("a").unwrap();
        assert!(described.segments.len() <= 16, "{} segments of 300 appends", described.segments.len());
        assert_rows(&store.view("a").unwrap(), 900);
    }
}

/// Time and again, as long as rows come.
#[test]
fn the_log_becomes_a_segment_whenever_it_is_long() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_with(folder.path(), Access::Exclusive, SMALL).unwrap();
    store.create("a", 8).unwrap();
    let log = || {
        store.describe("a").unwrap().segments.last().map_or(0, |last| if last.checksum == 0 { last.rows } else { 0 })
    };
    let (mut count, mut times) = (0, 0);
    while times < 5 {
        let before = log();
        append(&store, "a", count, 1, 8);
        count += 1;
        times += usize::from(log() < before);
        assert!(count < 100_000, "{times} times in {count} appends");
    }
    assert_rows(&store.view("a").unwrap(), count);
}

#[test]
fn appends_searches_and_readers_go_on_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_with(folder.path(), Access::Exclusive, SMALL).unwrap();
    store.create("a", 8).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..400).for_each(|i| append(&store, "a", 2 * i, 2, 8));
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.compact("a").unwrap();
            }
        });
        scope.spawn(|| {
            let mut rows = 0;
            while !done.load(Ordering::Acquire) {
                let view = store.view("a").unwrap();
                assert!(view.rows() >= rows, "rows went away");
                rows = view.rows();
                assert_rows(&view, rows);
                assert!(store.table().resolve(view.handle(), view.generation()).is_some());
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let reader = Store::open_with(folder.path(), Access::ReadOnly, SMALL).unwrap();
                assert_eq!(reader.describe("a").unwrap().state, State::Healthy);
                let view = reader.view("a").unwrap();
                assert_rows(&view, view.rows());
                assert!(store.verify("a").unwrap().is_clean());
            }
        });
    });
    assert_rows(&store.view("a").unwrap(), 800);
    store.compact("a").unwrap();
    assert_derived(&store.view("a").unwrap());
    assert_eq!(store.describe("a").unwrap().segments.len(), 1);
}

#[test]
fn a_merge_that_fails_leaves_the_corpus_as_it_was() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    (0..3).for_each(|i| append(&store, "a", 10 * i, 10, 4));
    let folder = store.root().join("a");
    // A name that merging needs is taken by a folder.
    std::fs::create_dir(folder.join("seg-000004.arrow")).unwrap();
    assert!(matches!(store.compact("a"), Err(Error::Storage(_))));
    assert_rows(&store.view("a").unwrap(), 30);
    append(&store, "a", 30, 1, 4);
    assert_rows(&store.view("a").unwrap(), 31);
    assert_eq!(store.compact("a").unwrap().merged, 4);
    assert_rows(&store.view("a").unwrap(), 31);
}

/// Whoever still writes to a corpus that was dropped touches nothing of the one that has its name now.
#[test]
fn a_corpus_that_takes_the_name_of_a_dropped_one_is_let_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { small_bytes: 0, ..SMALL };
    let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
    for round in 0..10 {
        store.create("a", 8).unwrap();
        (0..4).for_each(|i| append(&store, "a", 2 * i, 2, 8));
        let [mut late, mut later] = [store.append("a").unwrap(), store.append("a").unwrap()];
        late.push(rows(0, 4000, 8)).unwrap();
        later.push(rows(0, 4000, 8)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| match store.compact("a") {
                Ok(_) | Err(Error::CorpusNotFound { .. } | Error::Storage(_) | Error::Cancelled) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            });
            scope.spawn(|| late.commit());
            store.drop_corpus("a").unwrap();
            store.create("a", 8).unwrap();
            (0..6).for_each(|i| append(&store, "a", 5 * i, 5, 8));
        });
        assert!(matches!(later.commit(), Err(Error::CorpusNotFound { .. })));
        assert_rows(&store.view("a").unwrap(), 30);
        assert!(store.verify("a").unwrap().is_clean(), "round {round}");
        store.drop_corpus("a").unwrap();
        assert!(!folder.path().join("a").exists(), "round {round}");
    }
}
