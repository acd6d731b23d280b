//! A disk that refuses in the middle of an append: an error that says so, and the corpus as it was.

use std::io::Write;
use std::process::{Command, Stdio};

use megaring_core::Error;
use megaring_corpus::Access;

use crate::child;
use crate::common::{append, assert_rows, open, rows};

const DIM: usize = 64;
/// More than the disk takes: 4 MiB of vectors.
const MANY: usize = 16 << 10;

/// As a child: appends more than the system lets it write, then something that fits.
#[test]
fn child_appends_too_much() {
    let Some(folder) = child::folder() else { return };
    let store = open(&folder, Access::Exclusive).unwrap();
    let before = std::fs::read_dir(folder.join("a")).unwrap().count();
    for _ in 0..2 {
        let mut appender = store.append("a").unwrap();
        let error = appender.push(rows(10, MANY, DIM)).and_then(|()| appender.commit()).unwrap_err();
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
        writeln!(std::io::stdout(), "refused: {error}").unwrap();
        assert_eq!(std::fs::read_dir(folder.join("a")).unwrap().count(), before, "something was left behind");
        assert_rows(&store.view("a").unwrap(), 10);
    }
    append(&store, "a", 10, 2, DIM);
    assert_rows(&store.view("a").unwrap(), 12);
    assert!(store.verify("a").unwrap().is_clean());
    writeln!(std::io::stdout(), "went on").unwrap();
}

/// Prepares a corpus in `folder`, lets a child append too much to it, and checks what it leaves.
fn refuse(before: &str, folder: &std::path::Path, says: &str) {
    let store = open(folder, Access::Exclusive).unwrap();
    store.create("a", DIM).unwrap();
    append(&store, "a", 0, 10, DIM);
    drop(store);
    let output =
        child::command(before, "full_disk::child_appends_too_much", folder).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches(says).count(), 2, "{text}");
    assert!(text.contains("went on"), "{text}");
    let store = open(folder, Access::Exclusive).unwrap();
    assert_rows(&store.view("a").unwrap(), 12);
}

/// The system's limit on a file's length refuses a write as a full disk does, for every user. Its signal is ignored, so
/// that the call fails instead.
#[test]
fn a_refused_write_leaves_the_corpus_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    refuse("trap '' XFSZ; ulimit -f 1024;", folder.path(), "File too large");
}

#[test]
fn a_full_disk_leaves_the_corpus_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(folder.path())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    }
    let result = std::panic::catch_unwind(|| refuse("", folder.path(), "No space left"));
    assert!(Command::new("umount").arg(folder.path()).status().unwrap().success());
    if let Err(failure) = result {
        std::panic::resume_unwind(failure);
    }
}
