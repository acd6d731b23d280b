//! Merging: what is left of many segments, and that nobody is held up or loses a row meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{ArrayRef, DictionaryArray, FixedSizeListArray, Float32Array, RecordBatch, UInt64Array};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field};
use megaring_core::Error;
use megaring_corpus::import::Format;
use megaring_corpus::{Access, Adopted, OpenOptions, Rows, State, Store};

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
                for store in [&store, &reader] {
                    let report = store.verify("a").unwrap();
                    assert!(report.loss().is_none(), "{report:?}");
                }
                let out = tempfile::tempdir().unwrap();
                assert!(reader.export("a", &out.path().join("a.npy"), Format::Npy).unwrap() >= view.rows());
            }
        });
    });
    assert_rows(&store.view("a").unwrap(), 800);
    store.compact("a").unwrap();
    assert_derived(&store.view("a").unwrap());
    assert_eq!(store.describe("a").unwrap().segments.len(), 1);
}

/// What is written anew has a checksum of its own, which must not cover up what was there.
#[test]
fn a_damaged_segment_is_not_merged() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    (0..3).for_each(|i| append(&store, "a", 10 * i, 10, 4));
    let path = store.root().join("a/seg-000002.arrow");
    let right = std::fs::read(&path).unwrap();
    let mut wrong = right.clone();
    let value = wrong.len() / 2;
    wrong[value] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, wrong).unwrap();
    let refused = store.compact("a").unwrap_err().to_string();
    assert!(refused.contains("seg-000002.arrow") && refused.contains("checksum"), "{refused}");
    let out = tempfile::tempdir().unwrap();
    assert!(store.export("a", &out.path().join("a.npy"), Format::Npy).is_err());
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, right).unwrap();
    assert_eq!(store.compact("a").unwrap().merged, 3);
    assert_rows(&store.view("a").unwrap(), 30);
}

#[test]
fn dictionaries_are_resolved() {
    let (_folder, store) = store();
    store.create("a", 2).unwrap();
    let out = tempfile::tempdir().unwrap();
    let file = |words: &[&str], ids: Vec<u64>| {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Arc::new(Float32Array::from(vec![0.5; 2 * words.len()]));
        let words: DictionaryArray<Int8Type> = words.iter().copied().collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("memory_id", Arc::new(UInt64Array::from(ids))),
            ("embedding", Arc::new(FixedSizeListArray::new(item, 2, values, None))),
            ("word", Arc::new(words)),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, false))).unwrap();
        let path = out.path().join(format!("{}.arrow", batch.num_rows()));
        let mut writer = FileWriter::try_new(std::fs::File::create(&path).unwrap(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        path
    };
    for path in [file(&["x", "y", "x"], vec![1, 2, 3]), file(&["y", "z"], vec![4, 5])] {
        assert!(matches!(store.adopt("a", &path).unwrap(), Adopted::Done(_)));
    }
    store.compact("a").unwrap();
    let path = out.path().join("all.arrow");
    assert_eq!(store.export("a", &path, Format::ArrowFile).unwrap(), 5);
    let batches: Vec<RecordBatch> =
        FileReader::try_new(std::fs::File::open(&path).unwrap(), None).unwrap().map(Result::unwrap).collect();
    let words: Vec<&str> = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("word").unwrap().as_string::<i32>().iter().map(Option::unwrap))
        .collect();
    assert_eq!(words, ["x", "y", "x", "y", "z"]);
}

/// Whoever still appends may write: nobody else does.
#[test]
fn an_append_under_way_keeps_the_folder() {
    let (_folder, store) = store();
    let root = store.root().to_owned();
    store.create("a", 4).unwrap();
    let mut late = store.append("a").unwrap();
    late.push(rows(0, 3, 4)).unwrap();
    drop(store);
    assert!(open(&root, Access::Exclusive).err().unwrap().to_string().contains("in use"));
    late.commit().unwrap();
    assert_rows(&open(&root, Access::Exclusive).unwrap().view("a").unwrap(), 3);
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
