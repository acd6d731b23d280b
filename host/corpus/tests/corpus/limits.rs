//! Limits of the system that are met while segments are mapped: an error that says what is full, no loss, and all as
//! before once there is room.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use megaring_core::Error;
use megaring_corpus::{Access, State};

use crate::child;
use crate::common::{append, assert_rows, assert_says, open, rows};

const DIM: usize = 64;
/// 16 MiB of vectors, and a segment that is no smaller.
const MANY: usize = 64 << 10;

/// Takes what of the process's open files is left, but for some.
fn take_files(but_for: usize) -> Vec<std::fs::File> {
    let mut taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - but_for);
    taken
}

/// As a child with few open files: has none left when a segment is written, and when corpora are opened and verified.
#[test]
fn child_has_no_files_left() {
    let Some(folder) = child::folder() else { return };
    let says = ["open files", "ulimit -n"];
    let store = open(&folder, Access::Exclusive).unwrap();
    let before = std::fs::read_dir(folder.join("a")).unwrap().count();
    let mut refused = 0;
    // Each of the files that a commit opens is once the one too many.
    for left in 0.. {
        let mut appender = store.append("a").unwrap();
        appender.push(rows(10, 10, DIM)).unwrap();
        let taken = take_files(left);
        let Err(error) = appender.commit() else { break };
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
        assert_says(&error.to_string(), &says);
        let verified = store.verify("a");
        assert!(verified.is_ok() || left == 0 && matches!(verified, Err(Error::Storage(_))), "{verified:?}");
        drop(taken);
        refused += 1;
        assert_eq!(std::fs::read_dir(folder.join("a")).unwrap().count(), before, "something was left behind");
        assert_rows(&store.view("a").unwrap(), 10);
    }
    assert!(refused > 0);
    append(&store, "a", 20, 2, DIM);
    drop(store);
    // One file lists the folder, and there is none for what is in it.
    let taken = take_files(1);
    let store = open(&folder, Access::ReadOnly).unwrap();
    assert_is_no_loss(&store, &says);
    drop(taken);
    std::thread::sleep(Duration::from_secs(1));
    assert_rows(&store.view("a").unwrap(), 22);
    assert_eq!(store.describe("a").unwrap().state, State::Healthy);
    writeln!(std::io::stdout(), "went on").unwrap();
}

fn assert_is_no_loss(store: &megaring_corpus::Store, says: &[&str]) {
    let error = store.view("a").map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Storage(_)), "{error:?}");
    assert_says(&error.to_string(), says);
}

/// As a child with little address space: a segment of some megabytes cannot be mapped.
#[test]
fn child_has_no_address_space_left() {
    let Some(folder) = child::folder() else { return };
    let store = open(&folder, Access::ReadOnly).unwrap();
    assert_is_no_loss(&store, &["address space", "vm.max_map_count", "ulimit -v"]);
    writeln!(std::io::stdout(), "went on").unwrap();
}

fn run(before: &str, name: &str, folder: &Path) {
    let output = child::command(before, name, folder).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("went on"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_without_files_left_is_told_so_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Access::Exclusive).unwrap();
    store.create("a", DIM).unwrap();
    append(&store, "a", 0, 10, DIM);
    drop(store);
    run("ulimit -n 64;", "limits::child_has_no_files_left", folder.path());
    let store = open(folder.path(), Access::Exclusive).unwrap();
    assert_rows(&store.view("a").unwrap(), 22);
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_without_address_space_left_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Access::Exclusive).unwrap();
    store.create("a", DIM).unwrap();
    append(&store, "a", 0, 8 * MANY, DIM);
    drop(store);
    // The program itself, its threads and their stacks take a part.
    run(
        "RUST_BACKTRACE=0; export RUST_BACKTRACE; ulimit -v 102400;",
        "limits::child_has_no_address_space_left",
        folder.path(),
    );
    let store = open(folder.path(), Access::Exclusive).unwrap();
    assert_eq!(store.view("a").unwrap().rows(), 8 * MANY);
}
