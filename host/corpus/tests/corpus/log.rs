//! Few rows go into a corpus's log: what a commit leaves on disk, what a crash may leave, and what is a loss.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field};
use megaring_core::Error;
use megaring_corpus::import::{self, ImportOptions};
use megaring_corpus::{Access, Rows, Store};

use crate::common::{append, assert_rows, open, rows, values};

const LOG: &str = "manifest.log";

/// A store with the corpus `a`, of which the log has three appends of two rows.
fn three_appends() -> (tempfile::TempDir, Arc<Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Exclusive).unwrap();
    store.create("a", 4).unwrap();
    (0..3).for_each(|i| append(&store, "a", 2 * i, 2, 4));
    (folder, store)
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Puts bytes in the place of a file's, as another file.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn small_appends_make_no_files() {
    let (_folder, store) = three_appends();
    let root = store.root().to_owned();
    assert_eq!(files(&root.join("a")), [LOG]);
    let described = store.describe("a").unwrap();
    assert_eq!((described.rows, described.generation), (6, 4));
    assert_eq!(described.columns, ["memory_id", "title", "embedding"]);
    let [log] = &described.segments[..] else { panic!("{described:?}") };
    assert_eq!(
        (log.file.as_str(), log.rows, log.bytes),
        (LOG, 6, fs::metadata(root.join("a").join(LOG)).unwrap().len())
    );
    assert_rows(&store.view("a").unwrap(), 6);
    let reader = Store::open(&root, Access::ReadOnly).unwrap();
    assert_rows(&reader.view("a").unwrap(), 6);
    drop(store);
    let store = Store::open(&root, Access::Exclusive).unwrap();
    append(&store, "a", 6, 1, 4);
    assert_rows(&store.view("a").unwrap(), 7);
    assert!(store.verify("a").unwrap().is_clean());
    assert_eq!(store.view("a").unwrap().generation(), 5);
}

/// What makes an append large may be a column without a meaning here.
#[test]
fn rows_with_long_further_columns_are_a_segment() {
    let (_folder, store) = three_appends();
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let columns: [(&str, ArrayRef); 2] = [
        ("embedding", Arc::new(FixedSizeListArray::new(item, 4, Arc::new(Float32Array::from(vec![0.5; 4])), None))),
        ("text", Arc::new(StringArray::from(vec!["x".repeat(1 << 20)]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = store.root().join("long.arrows");
    let mut writer = StreamWriter::try_new(fs::File::create(&path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let file = import::open(&path, None, &ImportOptions::default()).unwrap();
    import::run(&store, "a", file, &mut |_| {}).unwrap();
    assert_eq!(store.describe("a").unwrap().segments[0].file, "seg-000001.arrow");
}

#[test]
fn searches_meet_few_pieces_of_many_small_appends() {
    let (_folder, store) = three_appends();
    (3..200).for_each(|i| append(&store, "a", 2 * i, 2, 4));
    let view = store.view("a").unwrap();
    assert_rows(&view, 400);
    assert!(view.segments().count() <= 8, "{} pieces of 200 appends", view.segments().count());
}

#[test]
fn a_commit_that_a_crash_cut_short_did_not_happen() {
    let (_folder, store) = three_appends();
    let log = store.root().join("a").join(LOG);
    let three = fs::read(&log).unwrap();
    // Longer than the one that is to take its place.
    append(&store, "a", 6, 30, 4);
    let root = store.root().to_owned();
    drop(store);
    let four = fs::read(&log).unwrap();
    let cuts = (three.len()..four.len()).step_by(7).map(|len| four[..len].to_vec());
    // Some systems make a file longer before they write into it, a sector at a time.
    let unwritten = [1, 16, 5000].map(|more| [&three[..], &vec![0; more]].concat());
    let sectors = (three.len().next_multiple_of(512)..four.len() - 8).step_by(512);
    assert!(sectors.len() > 1, "the last record is in several sectors");
    let partly = sectors.map(|from| [&four[..from], &vec![0; four.len() - from]].concat());
    for left in cuts.chain(unwritten).chain(partly) {
        replace(&log, &left);
        let reader = Store::open(&root, Access::ReadOnly).unwrap();
        assert_rows(&reader.view("a").unwrap(), 6);
        assert_eq!(fs::read(&log).unwrap(), left, "a reader must not touch the log");
        let store = Store::open(&root, Access::Exclusive).unwrap();
        append(&store, "a", 6, 1, 4);
        drop(store);
        assert_rows(&Store::open(&root, Access::Exclusive).unwrap().view("a").unwrap(), 7);
    }
}

#[test]
fn every_other_change_of_the_log_is_a_loss() {
    let (_folder, store) = three_appends();
    let root = store.root().to_owned();
    drop(store);
    let log = root.join("a").join(LOG);
    let right = fs::read(&log).unwrap();
    for at in 0..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 0x40;
        replace(&log, &wrong);
        let store = Store::open(&root, Access::Exclusive).unwrap();
        let loss = store.view("a").err();
        assert!(matches!(&loss, Some(Error::DataLoss { segment, .. }) if segment == LOG), "byte {at}: {loss:?}");
        assert!(store.verify("a").unwrap().loss().is_some());
        assert!(matches!(store.append("a"), Err(Error::DataLoss { .. })));
        assert_eq!(fs::read(&log).unwrap(), wrong, "nothing is removed");
    }
}

#[test]
fn rows_of_other_columns_stay_apart_and_in_order() {
    let (_folder, store) = three_appends();
    for i in 3..9 {
        let zone = (i % 2 == 0).then(|| vec![7; 2]);
        let mut appender = store.append("a").unwrap();
        appender.push(Rows { zone, ..rows(2 * i, 2, 4) }).unwrap();
        appender.commit().unwrap();
    }
    for _ in 0..2 {
        let view = store.view("a").unwrap();
        assert_rows(&view, 18);
        assert!(!store.describe("a").unwrap().columns.contains(&"zone".to_owned()));
        store.compact("a").unwrap();
    }
    assert!(store.verify("a").unwrap().is_clean());
}

/// What a version of this program that knew no log has left.
#[test]
fn a_manifest_of_the_earlier_form_is_read_and_becomes_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Access::Exclusive).unwrap();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 5, 4);
    append(&store, "a", 5, 3, 4);
    let described = store.describe("a").unwrap();
    drop(store);
    let corpus = folder.path().join("a");
    let segment = |at: usize| {
        let segment = &described.segments[at];
        let (file, rows, bytes, crc32) = (&segment.file, segment.rows, segment.bytes, segment.checksum);
        let columns = r#"["memory_id","title","embedding"]"#;
        format!(r#"{{"file":"{file}","rows":{rows},"bytes":{bytes},"crc32":{crc32},"columns":{columns}}}"#)
    };
    let manifest = |crc32: u32| {
        let head = r#"{"format":1,"name":"a","dim":4,"generation":3,"created_unix_ns":77"#;
        format!(r#"{head},"segments":[{},{}],"crc32":{crc32}}}"#, segment(0), segment(1))
    };
    let text = manifest(crc32fast::hash(manifest(0).as_bytes()));
    fs::remove_file(corpus.join(LOG)).unwrap();
    fs::write(corpus.join("manifest.json"), &text).unwrap();
    let reader = open(folder.path(), Access::ReadOnly).unwrap();
    assert_rows(&reader.view("a").unwrap(), 8);
    assert!(!corpus.join(LOG).exists(), "a reader must not touch the folder");
    for _ in 0..2 {
        let store = open(folder.path(), Access::Exclusive).unwrap();
        assert_rows(&store.view("a").unwrap(), 8);
        let described = store.describe("a").unwrap();
        assert_eq!((described.generation, described.created_unix_ns), (3, 77));
        assert!(corpus.join(LOG).exists() && !corpus.join("manifest.json").exists());
    }
    // A damaged one stays, and is a loss.
    fs::remove_file(corpus.join(LOG)).unwrap();
    fs::write(corpus.join("manifest.json"), text.replace("77", "78")).unwrap();
    let store = open(folder.path(), Access::Exclusive).unwrap();
    assert!(matches!(store.view("a"), Err(Error::DataLoss { reason, .. }) if reason.contains("checksum")));
    assert!(corpus.join("manifest.json").exists() && corpus.join("seg-000002.arrow").exists());
}

#[test]
fn large_appends_between_small_ones_keep_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let options = megaring_corpus::OpenOptions { small_bytes: 4096, ..Default::default() };
    let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
    store.create("a", 16).unwrap();
    let mut count = 0;
    for many in [2, 300, 1, 3, 400, 5] {
        append(&store, "a", count, many, 16);
        count += many;
        assert_rows(&store.view("a").unwrap(), count);
    }
    drop(store);
    let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
    assert_rows(&store.view("a").unwrap(), count);
    assert_eq!(values(&store.view("a").unwrap()), rows(0, count, 16).embeddings.values);
}

/// A bitmap of rows may be full of zeros, at its end too.
#[test]
fn a_deletion_is_never_taken_for_one_that_a_crash_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Exclusive).unwrap();
    store.create("a", 1).unwrap();
    append(&store, "a", 0, 40_000, 1);
    let path = folder.path().join("a").join(LOG);
    let before = fs::read(&path).unwrap();
    store.delete("a", &(1000..6000).collect::<Vec<u64>>()).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let shown = |access| Store::open(folder.path(), access).unwrap().view("a").map(|view| view.visible_rows());
    assert_eq!(shown(Access::ReadOnly).unwrap(), 35_000);
    for at in [before.len() + 70, (before.len() + whole.len()) / 2, whole.len() - 2] {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        replace(&path, &changed);
        assert!(matches!(shown(Access::ReadOnly), Err(Error::DataLoss { .. })), "a bit of byte {at}");
    }
    // What a crash leaves, a sector at a time: zeros up to the end, or the end itself.
    for written in (before.len()..whole.len()).filter(|written| written.is_multiple_of(512)) {
        let mut torn = whole[..written].to_vec();
        for len in [written, whole.len()] {
            torn.resize(len, 0);
            replace(&path, &torn);
            assert_eq!(shown(Access::ReadOnly).unwrap(), 40_000, "{written} of {} bytes", whole.len());
        }
    }
}
