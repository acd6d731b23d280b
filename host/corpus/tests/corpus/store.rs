//! The store's promises, one test each: names, locking, what is in place, what a fault does and does not do.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use megaring_core::Error;
use megaring_core::matrix::MAX_DIM;
use megaring_corpus::{Access, OpenOptions, Rows, State, Store};

use crate::common::{append, assert_derived, assert_rows, assert_says, open, rows, store, values, violation};

const SEGMENT: &str = "seg-000001.arrow";
const CACHE: &str = "seg-000001.derived";

/// Something done to a file behind the store's back.
type Damage<'a> = &'a dyn Fn(&Path);

fn reopen(store: Arc<Store>, access: Access) -> Arc<Store> {
    let root = store.root().to_owned();
    drop(store);
    open(&root, access).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    // A new file, not a write into the mapped one.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Length of the text that a log begins with.
fn first_text(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize
}

fn loss<T>(result: Result<T, Error>) -> (String, String, String) {
    match result {
        Err(Error::DataLoss { corpus, segment, reason }) => (corpus, segment, reason),
        Err(other) => panic!("not a loss, but {other:?}"),
        Ok(_) => panic!("the loss went unseen"),
    }
}

#[test]
fn rows_come_back_after_reopening() {
    let (_folder, store) = store();
    store.create("a", 5).unwrap();
    append(&store, "a", 0, 40, 5);
    append(&store, "a", 40, 3, 5);
    assert_rows(&store.view("a").unwrap(), 43);
    let store = reopen(store, Access::Exclusive);
    assert_rows(&store.view("a").unwrap(), 43);
    let description = store.describe("a").unwrap();
    assert_eq!((description.rows, description.row_type.dim, description.generation), (43, 5, 3));
    assert_eq!(description.columns, ["memory_id", "title", "embedding"]);
    assert_eq!(description.segments.len(), 2);
    assert_eq!(description.state, State::Healthy);
    let on_disk = fs::metadata(store.root().join("a").join(SEGMENT)).unwrap().len();
    assert_eq!(description.segments[0].bytes, on_disk);
    assert!(store.verify("a").unwrap().is_clean());
}

/// Where an address lies, by the system's own list of mappings.
#[cfg(target_os = "linux")]
fn mapped_file(address: usize) -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let within = |line: &&str| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| usize::from_str_radix(number, 16).unwrap());
        (from..to).contains(&address)
    };
    let line = maps.lines().find(within).unwrap();
    line.split_whitespace().nth(5).unwrap_or("").to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn embeddings_and_codes_lie_in_the_mappings_and_are_aligned() {
    let (_folder, store) = store();
    store.create("a", 7).unwrap();
    append(&store, "a", 0, 100, 7);
    for stores in 0..2 {
        let store = if stores == 0 { store.clone() } else { open(store.root(), Access::ReadOnly).unwrap() };
        let view = store.view("a").unwrap();
        let (_, segment) = view.segments().next().unwrap();
        let embeddings = segment.data().embeddings().as_ptr() as usize;
        assert!(mapped_file(embeddings).ends_with(SEGMENT), "{}", mapped_file(embeddings));
        assert_eq!(embeddings % 64, 0);
        let codes = segment.data().codes();
        let sections =
            [codes.packed.as_ptr() as usize, codes.scale.as_ptr() as usize, segment.data().norms2().as_ptr() as usize];
        for section in sections {
            assert!(mapped_file(section).ends_with(CACHE), "{}", mapped_file(section));
            assert_eq!(section % 64, 0);
        }
    }
}

#[test]
fn an_append_that_is_dropped_did_not_happen() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    let mut appender = store.append("a").unwrap();
    appender.push(rows(0, 10, 4)).unwrap();
    drop(appender);
    assert_eq!(store.describe("a").unwrap().rows, 0);
    let files: Vec<_> = fs::read_dir(store.root().join("a")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["manifest.log"]);
}

#[test]
fn a_log_that_cannot_be_written_undoes_the_append() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 10, 4);
    let store = reopen(store, Access::Exclusive);
    let folder = store.root().join("a");
    let log = folder.join("manifest.log");
    let right = fs::read(&log).unwrap();
    // A folder cannot be opened for writing.
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    let mut appender = store.append("a").unwrap();
    appender.push(rows(10, 10, 4)).unwrap();
    assert!(matches!(appender.commit(), Err(Error::Storage(_))));
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["manifest.log", SEGMENT, CACHE]);
    assert_rows(&store.view("a").unwrap(), 10);
    fs::remove_dir(&log).unwrap();
    fs::write(&log, right).unwrap();
    append(&store, "a", 10, 10, 4);
    assert_rows(&reopen(store, Access::Exclusive).view("a").unwrap(), 20);
}

#[test]
fn optional_columns_are_stored_and_coordinates_read() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    let coordinates: [Vec<f64>; 5] = std::array::from_fn(|axis| vec![axis as f64, -1.5]);
    let full = Rows {
        coordinates: Some(coordinates.clone()),
        galactic_distance: Some(vec![0.5, 1.5]),
        importance: Some(vec![0.1, 0.2]),
        zone: Some(vec![1, 2]),
        constellation_id: Some(vec![300, 65535]),
        last_accessed_ns: Some(vec![u64::MAX, 0]),
        is_protected: Some(vec![true, false]),
        ..rows(0, 2, 4)
    };
    let mut appender = store.append("a").unwrap();
    appender.push(full.clone()).unwrap();
    let other = violation(appender.push(rows(2, 2, 4)));
    assert_eq!(other.field, "columns");
    appender.commit().unwrap();
    let store = reopen(store, Access::Exclusive);
    let view = store.view("a").unwrap();
    assert!(view.has_coordinates());
    let (_, segment) = view.segments().next().unwrap();
    assert_eq!(segment.data().coordinates().unwrap(), coordinates.each_ref().map(Vec::as_slice));
    assert_eq!(store.describe("a").unwrap().columns.len(), 14);
}

#[test]
fn bad_rows_are_refused_by_column_and_row_and_the_append_goes_on() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    let mut appender = store.append("a").unwrap();
    appender.push(rows(0, 5, 4)).unwrap();
    let mut refuse = |field: &str, row: Option<u64>, change: &dyn Fn(&mut Rows)| {
        let mut bad = rows(5, 3, 4);
        change(&mut bad);
        let found = violation(appender.push(bad));
        assert_eq!((found.field.as_str(), found.row), (field, row), "{found}");
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refuse("embedding", Some(2), &move |rows| rows.embeddings.values[9] = value);
    }
    refuse("embedding", None, &|rows| rows.embeddings.dim = 3);
    refuse("embedding", None, &|rows| rows.embeddings.values.truncate(11));
    refuse("memory_id", None, &|rows| rows.memory_ids.truncate(2));
    refuse("title", None, &|rows| rows.titles.push(String::new()));
    refuse("importance", Some(1), &|rows| rows.importance = Some(vec![0.0, f64::NAN, 0.0]));
    refuse("importance", None, &|rows| rows.importance = Some(vec![0.0]));
    refuse("w", Some(0), &|rows| {
        rows.coordinates = Some(std::array::from_fn(|axis| vec![if axis == 3 { f64::INFINITY } else { 0.0 }; 3]));
    });
    refuse("zone", None, &|rows| rows.zone = Some(vec![]));
    appender.push(rows(5, 2, 4)).unwrap();
    appender.commit().unwrap();
    assert_rows(&store.view("a").unwrap(), 7);
}

#[test]
fn names_and_dimensions_are_checked() {
    let (_folder, store) = store();
    let long = "a".repeat(65);
    let bad = ["", ".", "..", ".a", "-a", "_a", "A", "a/b", "a\\b", "a b", "../a", "ä", "a\0", &long];
    for name in bad {
        assert_eq!(violation(store.create(name, 4)).field, "name", "{name:?}");
        assert!(matches!(store.view(name), Err(Error::CorpusNotFound { .. })), "{name:?}");
    }
    for name in ["a", "0", "a.b_c-d", "lock", "manifest.json", &"a".repeat(64)] {
        store.create(name, 4).unwrap();
    }
    assert!(matches!(store.create("a", 4), Err(Error::CorpusExists { name }) if name == "a"));
    for dim in [0, MAX_DIM + 1] {
        assert_eq!(violation(store.create("b", dim)).field, "dim");
    }
    assert_eq!(store.create("b", MAX_DIM).unwrap().row_type.dim, MAX_DIM);
    assert_eq!(store.list().len(), 7);
}

#[test]
fn an_unknown_corpus_is_named() {
    let (_folder, store) = store();
    let is_unknown = |error: Error| matches!(error, Error::CorpusNotFound { name } if name == "b");
    assert!(is_unknown(store.view("b").err().unwrap()));
    assert!(is_unknown(store.append("b").err().unwrap()));
    assert!(is_unknown(store.describe("b").unwrap_err()));
    assert!(is_unknown(store.verify("b").unwrap_err()));
    assert!(is_unknown(store.drop_corpus("b").unwrap_err()));
}

#[test]
fn a_missing_data_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    let found = violation(open(&missing, Access::ReadOnly));
    assert_eq!(found.field, "data");
    assert_says(&found.description, &["none"]);
    assert_eq!(violation(open(&missing.join("deeper"), Access::Exclusive)).field, "data");
    drop(open(&missing, Access::Exclusive).unwrap());
    assert!(missing.is_dir());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(violation(open(&file, Access::Exclusive)).field, "data");
}

#[test]
fn one_writer_and_any_readers() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 3, 4);
    let second = open(store.root(), Access::Exclusive).err().unwrap().to_string();
    assert_says(&second, &["in use", &std::process::id().to_string()]);
    let reader = open(store.root(), Access::ReadOnly).unwrap();
    assert_rows(&reader.view("a").unwrap(), 3);
    append(&store, "a", 3, 1, 4);
    assert_eq!(reader.view("a").unwrap().rows(), 3);
    assert!(matches!(reader.append("a"), Err(Error::Precondition { .. })));
    assert!(matches!(reader.create("b", 4), Err(Error::Precondition { .. })));
    assert!(matches!(reader.drop_corpus("a"), Err(Error::Precondition { .. })));
    assert_rows(&reopen(store, Access::Exclusive).view("a").unwrap(), 4);
}

#[test]
fn versions_in_use_outlive_appends_and_drops() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 3, 4);
    let old = store.view("a").unwrap();
    append(&store, "a", 3, 3, 4);
    let new = store.view("a").unwrap();
    for view in [&old, &new] {
        let found = store.table().resolve(view.handle(), view.generation()).unwrap();
        assert!(Arc::ptr_eq(&found, view));
    }
    let mut late = store.append("a").unwrap();
    late.push(rows(6, 1, 4)).unwrap();
    store.drop_corpus("a").unwrap();
    assert_rows(&old, 3);
    assert_rows(&new, 6);
    assert!(matches!(late.commit(), Err(Error::CorpusNotFound { .. })));
    assert!(matches!(store.view("a"), Err(Error::CorpusNotFound { .. })));
    assert!(!store.root().join("a").exists());
    store.create("a", 9).unwrap();
    assert_ne!(store.view("a").unwrap().handle(), new.handle());
}

#[test]
fn leftovers_of_a_crash_are_swept() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 3, 4);
    let root = store.root().to_owned();
    let leftovers = [".tmp-1-1", "a/.tmp-1-2", "a/seg-000002.arrow", "a/seg-000002.derived"];
    for path in leftovers {
        fs::write(root.join(path), "x").unwrap();
    }
    fs::create_dir(root.join(".tmp-1-3")).unwrap();
    fs::write(root.join("a/notes.txt"), "mine").unwrap();
    let store = reopen(store, Access::ReadOnly);
    assert!(leftovers.iter().all(|path| root.join(path).exists()), "a reader must not touch the folder");
    let store = reopen(store, Access::Exclusive);
    assert!(leftovers.iter().chain(&[".tmp-1-3"]).all(|path| !root.join(path).exists()));
    assert!(root.join("a/notes.txt").exists());
    assert_rows(&store.view("a").unwrap(), 3);
}

#[test]
fn a_damaged_segment_is_a_loss_and_the_others_go_on() {
    let damage: [(&str, Damage); 5] = [
        ("checksum", &|path| flip(path, fs::read(path).unwrap().len() / 2)),
        ("bytes", &|path| fs::write(path, &fs::read(path).unwrap()[..200]).unwrap()),
        ("bytes", &|path| fs::write(path, "").unwrap()),
        ("cannot be read", &|path| fs::remove_file(path).unwrap()),
        ("checksum", &|path| flip(path, 0)),
    ];
    for (says, damage) in damage {
        let (_folder, store) = store();
        for name in ["bad", "good"] {
            store.create(name, 4).unwrap();
            append(&store, name, 0, 20, 4);
        }
        let root = store.root().to_owned();
        drop(store);
        damage(&root.join("bad").join(SEGMENT));
        let store = open(&root, Access::Exclusive).unwrap();
        let (corpus, segment, reason) = loss(store.view("bad"));
        assert_eq!((corpus.as_str(), segment.as_str()), ("bad", SEGMENT));
        assert_says(&reason, &[says]);
        loss(store.append("bad"));
        assert!(matches!(store.describe("bad").unwrap().state, State::Faulty { segment, .. } if segment == SEGMENT));
        assert_eq!(store.list().len(), 2);
        assert!(store.verify("bad").unwrap().loss().is_some());
        assert_rows(&store.view("good").unwrap(), 20);
        append(&store, "good", 20, 1, 4);
        store.drop_corpus("bad").unwrap();
    }
}

#[test]
fn a_damaged_manifest_is_a_loss_and_removes_nothing() {
    let replace = |path: &Path, from: &str, to: &str| {
        let bytes = fs::read(path).unwrap();
        let at = bytes.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        let changed = [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat();
        fs::remove_file(path).unwrap();
        fs::write(path, changed).unwrap();
    };
    let damage: [(&str, Damage); 6] = [
        ("missing", &|path| fs::remove_file(path).unwrap()),
        ("cut short", &|path| fs::write(path, "{").unwrap()),
        ("checksum", &|path| replace(path, "\"rows\":20", "\"rows\":19")),
        ("checksum", &|path| replace(path, "seg-000001.arrow", "../../etc/passwd")),
        // The length of the last record: no longer a record that was cut short.
        ("head", &|path| flip(path, 16 + first_text(path))),
        ("checksum", &|path| flip(path, 16)),
    ];
    for (says, damage) in damage {
        let (_folder, store) = store();
        store.create("a", 4).unwrap();
        append(&store, "a", 0, 20, 4);
        let root = store.root().to_owned();
        drop(store);
        damage(&root.join("a/manifest.log"));
        let store = open(&root, Access::Exclusive).unwrap();
        let (_, file, reason) = loss(store.view("a"));
        assert_eq!(file, "manifest.log");
        assert_says(&reason, &[says]);
        assert!(root.join("a").join(SEGMENT).exists());
        assert_says(&store.verify("a").unwrap().loss().unwrap().to_string(), &["manifest.log"]);
        assert!(matches!(store.create("a", 4), Err(Error::CorpusExists { .. })));
    }
}

#[test]
fn verify_finds_what_opening_does_not_look_for() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 100, 4);
    let root = store.root().to_owned();
    drop(store);
    let segment = root.join("a").join(SEGMENT);
    let right = fs::read(&segment).unwrap();
    flip(&segment, right.len() / 2);
    let store = Store::open_with(&root, Access::Exclusive, OpenOptions { check_bytes: 0, small_bytes: 0 }).unwrap();
    assert_eq!(store.view("a").unwrap().rows(), 100, "nothing has looked yet");
    let report = store.verify("a").unwrap();
    assert!(!report.is_clean());
    assert_says(report.segments[0].fault.as_deref().unwrap(), &["checksum"]);
    loss(store.view("a"));
    fs::remove_file(&segment).unwrap();
    fs::write(&segment, right).unwrap();
    assert!(store.verify("a").unwrap().is_clean());
    assert_rows(&store.view("a").unwrap(), 100);
}

#[test]
fn a_wrong_cache_is_made_anew() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 100, 4);
    let cache = store.root().join("a").join(CACHE);
    let right = fs::read(&cache).unwrap();
    store.create("b", 4).unwrap();
    append(&store, "b", 100, 100, 4);
    let of_another = fs::read(store.root().join("b").join(CACHE)).unwrap();
    let damage: [&dyn Fn(); 7] = [
        &|| fs::remove_file(&cache).unwrap(),
        &|| {
            fs::remove_file(&cache).unwrap();
            fs::write(&cache, &of_another).unwrap();
        },
        &|| fs::write(&cache, "").unwrap(),
        &|| fs::write(&cache, &right[..right.len() / 2]).unwrap(),
        &|| flip(&cache, 8),
        &|| flip(&cache, 16),
        &|| flip(&cache, right.len() - 1),
    ];
    let mut store = store;
    for damage in damage {
        let root = store.root().to_owned();
        drop(store);
        damage();
        store = open(&root, Access::Exclusive).unwrap();
        assert_derived(&store.view("a").unwrap());
        assert!(fs::read(&cache).unwrap() == right, "it is as it was");
    }
    // A fault that opening does not look for, since the checksum is not compared.
    let root = store.root().to_owned();
    drop(store);
    flip(&cache, 200);
    let store = Store::open_with(&root, Access::Exclusive, OpenOptions { check_bytes: 0, small_bytes: 0 }).unwrap();
    let report = store.verify("a").unwrap();
    assert!(report.loss().is_none() && !report.is_clean());
    assert_derived(&store.view("a").unwrap());
    assert!(store.verify("a").unwrap().is_clean());
}

/// A cache whose checksum is right and whose codes are not, as a fault of the program that wrote it would leave.
#[test]
fn verify_computes_the_cache_itself() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 100, 4);
    let root = store.root().to_owned();
    drop(store);
    let cache = root.join("a").join(CACHE);
    let right = fs::read(&cache).unwrap();
    // Norms, codes, both halves, and what the first of them lose.
    for at in [200, 1024, 2400, 2820, 3100] {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        wrong[20..24].fill(0);
        let sum = crc32fast::hash(&wrong);
        wrong[20..24].copy_from_slice(&sum.to_le_bytes());
        fs::remove_file(&cache).unwrap();
        fs::write(&cache, wrong).unwrap();
        let store = open(&root, Access::Exclusive).unwrap();
        let report = store.verify("a").unwrap();
        assert_says(report.segments[0].cache_fault.as_deref().unwrap(), &["norms or codes"]);
        assert_eq!(fs::read(&cache).unwrap(), right, "it was made anew");
        assert_derived(&store.view("a").unwrap());
    }
}

#[test]
fn a_reader_without_a_cache_keeps_it_on_the_heap() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 100, 4);
    let cache = store.root().join("a").join(CACHE);
    fs::remove_file(&cache).unwrap();
    let store = reopen(store, Access::ReadOnly);
    assert_rows(&store.view("a").unwrap(), 100);
    assert!(!cache.exists());
}

#[test]
fn large_appends_make_several_batches_of_one_segment() {
    let (_folder, store) = store();
    let dim = 2048;
    store.create("a", dim).unwrap();
    let mut appender = store.append("a").unwrap();
    for piece in 0..10 {
        appender.push(rows(piece * 1000, 1000, dim)).unwrap();
    }
    appender.commit().unwrap();
    let store = reopen(store, Access::Exclusive);
    let view = store.view("a").unwrap();
    assert_eq!(view.segments().map(|(start, _)| start).collect::<Vec<_>>(), [0, 8000]);
    assert_eq!(store.describe("a").unwrap().segments.len(), 1);
    assert_eq!(values(&view), rows(0, 10_000, dim).embeddings.values);
    assert_derived(&view);
}

#[test]
fn no_byte_of_a_folder_can_end_the_process() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    append(&store, "a", 0, 20, 4);
    let root = store.root().to_owned();
    drop(store);
    for file in [SEGMENT, CACHE, "manifest.log"] {
        let path = root.join("a").join(file);
        let right = fs::read(&path).unwrap();
        for at in (0..right.len()).step_by(7) {
            flip(&path, at);
            // Without checksums, so that what the bytes say is believed as far as it can be.
            let store =
                Store::open_with(&root, Access::ReadOnly, OpenOptions { check_bytes: 0, small_bytes: 0 }).unwrap();
            match store.view("a") {
                Ok(view) => assert_eq!((view.rows(), values(&view).len()), (20, 80), "{file}, byte {at}"),
                Err(error) => assert!(matches!(error, Error::DataLoss { .. }), "{file}, byte {at}: {error:?}"),
            }
            assert!(!store.verify("a").unwrap().is_clean() || file == "manifest.log", "{file}, byte {at}");
            drop(store);
            fs::remove_file(&path).unwrap();
            fs::write(&path, &right).unwrap();
        }
    }
}
