//! `kill -9` in the middle of appends and merges, over and over: what was acknowledged is there, and everything
//! verifies.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use megaring_corpus::{Access, OpenOptions, Rows, Store};

use crate::child;
use crate::common::{append, assert_rows, random, rows};

const KILLS: usize = 60;
const DIM: usize = 96;
/// Rows of one append: enough that writing them takes a while.
const ROWS: usize = 50;
/// An append is a segment, and is merged soon; or it goes into the log, of which some make a segment.
const FILES: OpenOptions = OpenOptions { check_bytes: 64 << 20, small_bytes: 0 };
const LOGGED: OpenOptions = OpenOptions { check_bytes: 64 << 20, small_bytes: 24 << 10 };

#[test]
fn child_appends_files() {
    append_until_killed(FILES);
}

#[test]
fn child_appends_to_the_log() {
    append_until_killed(LOGGED);
}

/// As a child: appends until killed, and says on stdout how many rows are safe.
fn append_until_killed(options: OpenOptions) {
    let Some(folder) = child::folder() else { return };
    let store = Store::open_with(&folder, Access::Exclusive, options).unwrap();
    let mut rows = store.view("a").unwrap().rows();
    loop {
        append(&store, "a", rows, ROWS, DIM);
        rows += ROWS;
        println!("rows {rows}");
    }
}

/// Lets a child acknowledge `acks` appends and some microseconds pass, kills it, and returns the rows it had
/// acknowledged.
fn run_and_kill(test: &str, folder: &std::path::Path, acks: u64, more: Duration) -> usize {
    let mut child = child::command("", test, folder).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The harness prints before the test does, and without a line's end.
    let acknowledged = |line: String| line.split_once("rows ").and_then(|(_, rows)| rows.parse().ok());
    let mut safe = 0;
    for _ in 0..acks {
        safe = lines.by_ref().find_map(|line| acknowledged(line.unwrap())).unwrap();
    }
    // The moment of the kill is all that depends on this; no check does.
    let until = Instant::now() + more;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Acknowledgements that were under way count as well.
    lines.map_while(Result::ok).filter_map(acknowledged).last().unwrap_or(safe)
}

/// As a child: replaces and deletes rows until killed, and says on stdout how many changes are safe.
fn change_until_killed(options: OpenOptions) {
    let Some(folder) = child::folder() else { return };
    let store = Store::open_with(&folder, Access::Exclusive, options).unwrap();
    // The title of a row is the change that brought it.
    let view = store.view("a").unwrap();
    let last =
        view.visible_runs(0..view.rows()).flatten().map(|row| view.label(row as u32).1.parse::<usize>().unwrap());
    for change in last.max().map_or(0, |last| last + 1).. {
        apply(&store, change);
        println!("rows {}", change + 1);
    }
}

/// Change number so and so: rows of one of five windows of ids are replaced, and every third time those of another
/// deleted before, which the next change brings again.
fn apply(store: &Store, change: usize) {
    if change.is_multiple_of(3) {
        store.delete("a", &ids(change + 1)).unwrap();
    }
    let mut appender = store.upsert("a").unwrap();
    appender
        .push(Rows { memory_ids: ids(change), titles: vec![change.to_string(); ROWS], ..rows(0, ROWS, DIM) })
        .unwrap();
    appender.commit().unwrap();
}

fn ids(change: usize) -> Vec<u64> {
    let first = (change % 5 * ROWS) as u64;
    (first..first + ROWS as u64).collect()
}

#[test]
fn child_changes_files() {
    change_until_killed(FILES);
}

#[test]
fn child_changes_by_the_log() {
    change_until_killed(LOGGED);
}

#[test]
fn a_killed_change_is_there_whole_or_not_at_all() {
    for (test, options) in [("crash::child_changes_files", FILES), ("crash::child_changes_by_the_log", LOGGED)] {
        let folder = tempfile::tempdir().unwrap();
        let open = |access| Store::open_with(folder.path(), access, options).unwrap();
        open(Access::Exclusive).create("a", DIM).unwrap();
        let mut state = 0x2545_f491_4f6c_dd1d;
        for kill in 0..KILLS / 2 {
            let (acks, more) = (random(&mut state) % 4, Duration::from_micros(random(&mut state) % 6000));
            let safe = run_and_kill(test, folder.path(), acks, more);
            let store = open(Access::Exclusive);
            let view = store.view("a").unwrap();
            let mut windows = vec![Vec::new(); 5];
            for row in view.visible_runs(0..view.rows()).flatten() {
                let (id, change) = view.label(row as u32);
                windows[id as usize / ROWS].push((id, change.parse::<usize>().unwrap()));
            }
            let last = windows.iter().flatten().map(|(_, change)| *change).max();
            assert!(last.map_or(0, |last| last + 1) >= safe, "kill {kill}: {last:?} of {safe} acknowledged");
            for (number, window) in windows.iter().enumerate().filter(|(_, window)| !window.is_empty()) {
                let change = window[0].1;
                let whole: Vec<(u64, usize)> = ids(change).into_iter().map(|id| (id, change)).collect();
                assert_eq!((change % 5, window), (number, &whole), "kill {kill}: half a change");
            }
            // A window is gone only between a deletion and the change that brings it again.
            let is_missing = |number: &usize| windows[*number].is_empty();
            let missing: Vec<usize> = (0..5).filter(is_missing).collect();
            let next = last.map_or(0, |last| (last + 1) % 5);
            let is_due = |number: &usize| last.is_none_or(|last| last < 5) || [next, (next + 1) % 5].contains(number);
            assert!(missing.iter().all(is_due), "kill {kill}: {missing:?} after {last:?}");
            assert!(store.verify("a").unwrap().is_clean(), "kill {kill}");
        }
    }
}

#[test]
fn a_killed_append_of_a_file_leaves_the_corpus_whole() {
    let leftovers = kill_often("crash::child_appends_files", FILES);
    assert!(leftovers > 0, "no kill hit an append or a merge under way: this test tested nothing");
}

#[test]
fn a_killed_append_to_the_log_leaves_the_corpus_whole() {
    kill_often("crash::child_appends_to_the_log", LOGGED);
}

/// Kills a child over and over; how often it left files behind.
fn kill_often(test: &str, options: OpenOptions) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let open = |access| Store::open_with(folder.path(), access, options).unwrap();
    let store = open(Access::Exclusive);
    store.create("a", DIM).unwrap();
    drop(store);
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut leftovers = 0;
    for kill in 0..KILLS {
        let (acks, more) = (random(&mut state) % 3, Duration::from_micros(random(&mut state) % 8000));
        let safe = run_and_kill(test, folder.path(), acks, more);
        let files = std::fs::read_dir(folder.path().join("a")).unwrap().count();
        let store = open(Access::Exclusive);
        let view = store.view("a").unwrap();
        assert!(view.rows() >= safe, "kill {kill}: {} rows of {safe} acknowledged", view.rows());
        assert_eq!(view.rows() % ROWS, 0, "kill {kill}: half an append");
        let report = store.verify("a").unwrap();
        assert!(report.is_clean(), "kill {kill}: {report:?}");
        // Closed, it merges no more.
        drop(store);
        let report = open(Access::ReadOnly).verify("a").unwrap();
        let kept = std::fs::read_dir(folder.path().join("a")).unwrap().count();
        let segments = report.segments.iter().filter(|segment| segment.file != "manifest.log").count();
        assert_eq!(kept, 1 + 2 * segments, "kill {kill}: leftovers stay");
        leftovers += usize::from(files != kept);
        if kill == KILLS - 1 {
            assert_rows(&view, view.rows());
        }
    }
    leftovers
}
