//! Copies of a corpus: in another data folder, and as files of other programs.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use arrow_ipc::reader::FileReader;
use arrow_select::concat::concat_batches;
use megaring_core::Error;
use megaring_corpus::import::{self, Format, ImportOptions};
use megaring_corpus::{Access, OpenOptions, PairFile, Pairs, Rows, Store};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::common::{append, assert_rows, open, rows, store, violation};

const SMALL: OpenOptions = OpenOptions { check_bytes: 64 << 20, small_bytes: 2048 };

/// A corpus of two segments and some rows in the log.
fn mixed() -> (tempfile::TempDir, std::sync::Arc<Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_with(folder.path(), Access::Exclusive, SMALL).unwrap();
    store.create("a", 8).unwrap();
    let mut count = 0;
    for many in [200, 300, 3, 4] {
        append(&store, "a", count, many, 8);
        count += many;
    }
    (folder, store)
}

#[test]
fn a_copy_holds_what_the_corpus_held_and_nothing_since() {
    let (_folder, store) = mixed();
    let elsewhere = tempfile::tempdir().unwrap();
    let snapshot = Store::open_with(elsewhere.path(), Access::Exclusive, SMALL).unwrap();
    let taken = snapshot.take_from(&store, "a", "b").unwrap();
    assert_eq!((taken.name.as_str(), taken.rows, taken.row_type.dim), ("b", 507, 8));
    append(&store, "a", 507, 5, 8);
    store.compact("a").unwrap();
    append(&snapshot, "b", 507, 1, 8);
    store.drop_corpus("a").unwrap();
    drop(snapshot);
    let snapshot = Store::open_with(elsewhere.path(), Access::Exclusive, SMALL).unwrap();
    assert_rows(&snapshot.view("b").unwrap(), 508);
    assert!(snapshot.verify("b").unwrap().is_clean());
    // And back, under the first name.
    store.take_from(&snapshot, "b", "a").unwrap();
    snapshot.drop_corpus("b").unwrap();
    assert_rows(&store.view("a").unwrap(), 508);
    assert!(store.verify("a").unwrap().is_clean());
}

#[test]
fn a_copy_that_cannot_be_leaves_nothing() {
    let (_folder, store) = mixed();
    let (other_folder, other) = self::store();
    other.create("b", 8).unwrap();
    assert!(matches!(other.take_from(&store, "a", "b"), Err(Error::CorpusExists { name }) if name == "b"));
    assert!(matches!(other.take_from(&store, "none", "c"), Err(Error::CorpusNotFound { name }) if name == "none"));
    assert_eq!(violation(other.take_from(&store, "a", "../c")).field, "name");
    let reader = open(other_folder.path(), Access::ReadOnly).unwrap();
    assert!(matches!(reader.take_from(&store, "a", "c"), Err(Error::Precondition { .. })));
    let segment = store.describe("a").unwrap().segments[0].file.clone();
    fs::remove_file(store.root().join("a").join(segment)).unwrap();
    assert!(matches!(other.take_from(&store, "a", "c"), Err(Error::Storage(_))));
    let mut names: Vec<_> =
        fs::read_dir(other_folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".lock", "b"]);
}

#[test]
fn copies_of_a_corpus_that_grows_and_is_merged_are_whole() {
    let (folder, store) = mixed();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..150 {
                append(&store, "a", 507 + 2 * i, 2, 8);
                if i % 10 == 0 {
                    store.compact("a").unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut copies = 0;
        while !done.load(Ordering::Acquire) || copies == 0 {
            let elsewhere = tempfile::tempdir().unwrap();
            let snapshot = Store::open_with(elsewhere.path(), Access::Exclusive, SMALL).unwrap();
            // As another process has it.
            let reader = Store::open_with(folder.path(), Access::ReadOnly, SMALL).unwrap();
            for (source, name) in [(&*store, "here"), (&*reader, "there")] {
                let rows = snapshot.take_from(source, "a", name).unwrap().rows;
                assert_rows(&snapshot.view(name).unwrap(), rows);
                assert!(snapshot.verify(name).unwrap().is_clean());
            }
            copies += 1;
        }
    });
}

#[test]
fn what_is_exported_comes_in_again() {
    let (_folder, store) = mixed();
    let out = tempfile::tempdir().unwrap();
    for (file, format) in [
        ("a.arrow", Format::ArrowFile),
        ("a.parquet", Format::Parquet),
        ("a.npy", Format::Npy),
        ("a.fvecs", Format::Fvecs),
    ] {
        let path = out.path().join(file);
        assert_eq!(store.export("a", &path, format).unwrap(), 507);
        store.create("b", 8).unwrap();
        let file = import::open(&path, None, &ImportOptions::default()).unwrap();
        assert_eq!(file.format(), format);
        import::run(&store, "b", file, &mut |_| {}).unwrap();
        let view = store.view("b").unwrap();
        if matches!(format, Format::ArrowFile | Format::Parquet) {
            assert_rows(&view, 507);
        } else {
            let values: Vec<f32> = (0..507).flat_map(|row| view.embedding(row).to_vec()).collect();
            assert_eq!(values, rows(0, 507, 8).embeddings.values);
        }
        store.drop_corpus("b").unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(violation(store.export("a", &path, format)).field, "path");
        assert_eq!(fs::read(&path).unwrap(), before, "the file that is there stays");
    }
    assert_eq!(violation(store.export("a", &out.path().join("a.jsonl"), Format::JsonLines)).field, "format");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 4, "nothing is left behind");
}

#[test]
fn an_export_has_the_columns_that_all_rows_have() {
    let (_folder, store) = store();
    store.create("a", 8).unwrap();
    let zoned = |start, more: Rows| {
        let mut appender = store.append("a").unwrap();
        appender
            .push(Rows { zone: Some(vec![3; 2]), ..Rows { importance: more.importance, ..rows(start, 2, 8) } })
            .unwrap();
        appender.commit().unwrap();
    };
    zoned(0, Rows::default());
    zoned(2, Rows { importance: Some(vec![0.5; 2]), ..Rows::default() });
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("a.parquet");
    store.export("a", &path, Format::Parquet).unwrap();
    let found: Vec<Rows> = import::open(&path, None, &ImportOptions::default()).unwrap().map(Result::unwrap).collect();
    assert_eq!(found[0].zone, Some(vec![3; 4]));
    assert_eq!(found[0].importance, None);
    assert_eq!(found[0].memory_ids, [1000, 1001, 1002, 1003]);
    // Of a corpus without rows, a file without rows.
    store.create("b", 8).unwrap();
    assert_eq!(store.export("b", &out.path().join("b.npy"), Format::Npy).unwrap(), 0);
    assert_eq!(import::open(&out.path().join("b.npy"), None, &ImportOptions::default()).unwrap().row_type(), 8.into());
}

#[test]
fn pairs_are_written_as_they_are() {
    let out = tempfile::tempdir().unwrap();
    let pairs = |from: u32| Pairs {
        rows: vec![from, from + 1],
        memory_ids: vec![u64::MAX, 7],
        neighbours: vec![3, 4],
        neighbour_ids: vec![8, 9],
        scores: vec![0.5, -1.0],
        ..Pairs::default()
    };
    let read = |path: &Path, format: Format| -> Vec<RecordBatch> {
        let file = fs::File::open(path).unwrap();
        match format {
            Format::Parquet => {
                let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
                reader.map(Result::unwrap).collect()
            }
            _ => FileReader::try_new(file, None).unwrap().map(Result::unwrap).collect(),
        }
    };
    for (name, format) in [("pairs.arrow", Format::ArrowFile), ("pairs.parquet", Format::Parquet)] {
        let path = out.path().join(name);
        let mut file = PairFile::create(&path, format, [false; 2]).unwrap();
        file.push(pairs(0)).unwrap();
        file.push(pairs(2)).unwrap();
        assert!(!path.exists(), "it is not whole yet");
        file.finish().unwrap();
        let batches = read(&path, format);
        let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["row", "memory_id", "neighbour", "neighbour_id", "score"]);
        assert_eq!(batch.column(0).as_primitive::<UInt32Type>().values(), &[0, 1, 2, 3]);
        assert_eq!(batch.column(1).as_primitive::<UInt64Type>().values(), &[u64::MAX, 7, u64::MAX, 7]);
        assert_eq!(batch.column(2).as_primitive::<UInt32Type>().values(), &[3, 4, 3, 4]);
        assert_eq!(batch.column(3).as_primitive::<UInt64Type>().values(), &[8, 9, 8, 9]);
        assert_eq!(batch.column(4).as_primitive::<Float32Type>().values(), &[0.5, -1.0, 0.5, -1.0]);
        assert_eq!(violation(PairFile::create(&path, format, [false; 2])).field, "path");
    }
    // Where ids are texts, they stand in the place of the numbers.
    let path = out.path().join("texts.arrow");
    let mut file = PairFile::create(&path, Format::ArrowFile, [true, false]).unwrap();
    file.push(Pairs { text_ids: vec!["a".into(), "b".into()], ..pairs(0) }).unwrap();
    file.finish().unwrap();
    let batch = &read(&path, Format::ArrowFile)[0];
    assert_eq!(batch.schema().field(1).name(), "id");
    assert_eq!(batch.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(batch.column(3).as_primitive::<UInt64Type>().values(), &[8, 9]);
    std::fs::remove_file(path).unwrap();
    let dropped = out.path().join("dropped.arrow");
    drop(PairFile::create(&dropped, Format::ArrowFile, [false; 2]).unwrap());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2, "nothing is left behind");
}
