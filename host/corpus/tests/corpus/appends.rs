//! Appends: what they number, what they refuse, and what others may do meanwhile.

use crate::common::{append, rows, store, violation};
use megaring_core::Error;
use megaring_corpus::{Access, OpenOptions, Rows, Store};

#[test]
fn rows_without_ids_are_numbered_as_they_are_committed() {
    // Kept in the log, and in a file.
    for small_bytes in [1 << 20, 0] {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { small_bytes, ..OpenOptions::default() };
        let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
        store.create("a", 4).unwrap();
        let nameless = || Rows { memory_ids: vec![], ..rows(0, 3, 4) };
        let mut begun: Vec<_> = (0..3).map(|_| store.append("a").unwrap()).collect();
        begun.iter_mut().for_each(|appender| appender.push(nameless()).unwrap());
        append(&store, "a", 0, 1, 4);
        let last = begun.pop().unwrap();
        begun.into_iter().for_each(|appender| assert_eq!(appender.commit().unwrap().rows, 3));
        assert_eq!(last.commit().unwrap().total_rows, 10);
        let ids = |store: &Store| {
            let view = store.view("a").unwrap();
            (0..view.rows()).map(|row| view.label(row as u32).0).collect::<Vec<_>>()
        };
        let want: Vec<u64> = [1000].into_iter().chain(1..10).collect();
        assert_eq!(ids(&store), want);
        let columns = store.describe("a").unwrap().columns;
        assert_eq!(columns, ["memory_id", "title", "embedding"]);
        drop(store);
        let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
        assert_eq!(ids(&store), want);
        assert!(store.verify("a").unwrap().is_clean());
        store.compact("a").unwrap();
        assert_eq!(ids(&store), want);
    }
}

#[test]
fn all_rows_of_an_append_have_ids_or_none() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    let mut appender = store.append("a").unwrap();
    appender.push(rows(0, 3, 4)).unwrap();
    let wrong = violation(appender.push(Rows { memory_ids: vec![], ..rows(3, 3, 4) }));
    assert!(wrong.field == "columns" && wrong.description.contains("memory_id"), "{wrong}");
}

#[test]
fn an_append_to_a_corpus_that_is_dropped_meanwhile_says_so() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    let mut idle = store.append("a").unwrap();
    let mut begun = store.append("a").unwrap();
    begun.push(rows(0, 3, 4)).unwrap();
    store.drop_corpus("a").unwrap();
    for result in [idle.push(rows(0, 3, 4)), begun.commit().map(|_| ())] {
        assert!(matches!(&result, Err(Error::CorpusNotFound { name }) if name == "a"), "{result:?}");
    }
}

#[test]
fn coordinates_whose_distances_would_overflow_are_refused() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    let mut appender = store.append("a").unwrap();
    let mut coordinates: [Vec<f64>; 5] = std::array::from_fn(|_| vec![0.5; 3]);
    coordinates[3][1] = -1e101;
    let wrong = violation(appender.push(Rows { coordinates: Some(coordinates), ..rows(0, 3, 4) }));
    assert_eq!((wrong.field.as_str(), wrong.row), ("w", Some(1)));
}

#[test]
fn rows_without_ids_are_numbered_on() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    for _ in 0..2 {
        let mut appender = store.append("a").unwrap();
        for _ in 0..2 {
            appender.push(Rows { memory_ids: vec![], titles: vec![], ..rows(0, 3, 4) }).unwrap();
        }
        appender.commit().unwrap();
    }
    let view = store.view("a").unwrap();
    let labels: Vec<_> = (0..12).map(|row| view.label(row)).collect();
    assert_eq!(labels, (0..12).map(|row| (row, "")).collect::<Vec<_>>());
}

#[test]
fn appends_of_one_corpus_commit_one_after_another() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || (0..8).for_each(|i| append(store, "a", thread * 8 + i, 1, 4)));
        }
    });
    let view = store.view("a").unwrap();
    let mut ids: Vec<u64> = (0..32).map(|row| view.label(row).0).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1000..1032).collect::<Vec<_>>());
    assert!(view.generation() >= 33, "merging makes versions, too");
    assert!(store.verify("a").unwrap().is_clean());
}

#[test]
fn an_append_of_nothing_changes_nothing() {
    let (_folder, store) = store();
    store.create("a", 4).unwrap();
    let mut appender = store.append("a").unwrap();
    appender.push(Rows::default()).unwrap();
    let appended = appender.commit().unwrap();
    assert_eq!((appended.rows, appended.total_rows, appended.generation, appended.segments), (0, 0, 1, 0));
}
