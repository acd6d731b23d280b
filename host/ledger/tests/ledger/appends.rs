//! Appending and opening again, around the borders of segments and at torn ends.

use std::fs;
use std::io::Write;

use megaring_ledger::{Error, Ledger, LedgerView, Options, verify};

use crate::common::{SMALL, assert_keeps, events, filled, leaves, naive_root, open, records};

/// Every size up to some segments, in one append, in appends of one, and with an opening between any two.
#[test]
fn a_ledger_goes_on_where_it_ended() {
    let again = tempfile::tempdir().unwrap();
    let single = tempfile::tempdir().unwrap();
    let mut ledger = open(single.path());
    for size in 0..70 {
        let mut reopened = open(again.path());
        assert_keeps(&reopened, again.path());
        assert_eq!((reopened.size(), reopened.durable()), (size, size));
        assert_eq!(reopened.append(&events(size, 1)).unwrap(), size..size + 1);
        assert_eq!(ledger.append(&events(size, 1)).unwrap(), size..size + 1);
        assert_eq!(reopened.root(), ledger.root());
        let at_once = filled(size + 1);
        assert_eq!(open(at_once.path()).root(), ledger.root());
    }
    assert_keeps(&ledger, single.path());
}

/// More than a batch, of segments as large as a service has them.
#[test]
fn a_long_append_is_one() {
    const SIZE: u64 = 150_000;
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(folder.path(), Options::default()).unwrap();
    let all = events(0, SIZE);
    assert_eq!(ledger.append(&all[..1]).unwrap(), 0..1);
    assert_eq!(ledger.append(&all[1..]).unwrap(), 1..SIZE);
    assert_eq!(ledger.sync().unwrap(), SIZE);
    assert_eq!(ledger.durable(), SIZE);
    assert_keeps(&ledger, folder.path());
    let view = LedgerView::open(folder.path()).unwrap();
    assert_eq!((view.size(), view.root()), (SIZE, ledger.root()));
    for index in [0, 65_535, 65_536, 149_999] {
        assert_eq!(view.inclusion(index, SIZE).unwrap(), ledger.inclusion(index, SIZE).unwrap());
    }
}

/// The end of the file cut off at every byte of the last records: whole records stay, and what is appended goes on
/// behind them.
#[test]
fn a_torn_end_is_cut_at_the_last_whole_record() {
    for size in [3, 16, 19] {
        let full = filled(size);
        let first = if size > 16 { 16 } else { 0 };
        let name = if first == 16 { "0000000000000001.seg" } else { "0000000000000000.seg" };
        let file = fs::read(full.path().join(name)).unwrap();
        // Every byte of the last two records, and some of the header.
        for len in (0..129).step_by(16).chain((file.len() - 256).max(129)..file.len()) {
            let folder = tempfile::tempdir().unwrap();
            let others = fs::read_dir(full.path()).unwrap().map(|entry| entry.unwrap().file_name());
            for other in others.filter(|other| other != name) {
                fs::copy(full.path().join(&other), folder.path().join(&other)).unwrap();
            }
            fs::write(folder.path().join(name), &file[..len]).unwrap();
            let whole = first + (len as u64).saturating_sub(128) / 128;
            let view = LedgerView::open(folder.path()).unwrap();
            assert_eq!(view.size(), whole, "{len} of {size}");
            let mut ledger = open(folder.path());
            assert_keeps(&ledger, folder.path());
            assert_eq!(ledger.size(), whole, "{len} of {size}");
            ledger.append(&events(whole, 20)).unwrap();
            assert_keeps(&ledger, folder.path());
        }
    }
}

/// What some systems leave: the file is long enough, but its last sectors were never written.
#[test]
fn an_end_that_was_not_written_is_cut() {
    let folder = filled(5);
    let path = folder.path().join("0000000000000000.seg");
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(&[0; 300]).unwrap();
    let report = verify(folder.path()).unwrap();
    let places: Vec<_> = report.faults.iter().map(|fault| (fault.segment, fault.index)).collect();
    assert_eq!(places, [(Some(0), Some(5)), (Some(0), Some(6)), (Some(0), Some(7))]);
    let ledger = open(folder.path());
    assert_eq!(ledger.size(), 5);
    assert_keeps(&ledger, folder.path());
}

#[test]
fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = Ledger::open(folder.path(), SMALL).unwrap_err();
    assert!(matches!(&error, Error::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    open(folder.path());
}

#[test]
fn a_ledger_keeps_the_size_of_its_segments() {
    let folder = filled(40);
    let mut ledger = Ledger::open(folder.path(), Options::default()).unwrap();
    ledger.append(&events(40, 40)).unwrap();
    assert!(folder.path().join("0000000000000004.seg").exists());
    assert_keeps(&ledger, folder.path());
}

#[test]
fn roots_that_are_missing_are_computed_again() {
    let folder = filled(70);
    let root = open(folder.path()).root();
    let path = folder.path().join("roots");
    let roots = fs::read(&path).unwrap();
    assert_eq!(roots.len(), 128 + 4 * 48);
    for len in 128..=roots.len() {
        fs::write(&path, &roots[..len]).unwrap();
        assert_eq!(LedgerView::open(folder.path()).unwrap().root(), root, "{len}");
        let ledger = open(folder.path());
        assert_eq!(naive_root(&leaves(&records(&ledger))), ledger.root());
        assert_eq!(fs::read(&path).unwrap(), roots, "{len}");
    }
    fs::remove_file(&path).unwrap();
    let ledger = Ledger::open(folder.path(), Options::default()).unwrap();
    assert_eq!((ledger.root(), fs::read(&path).unwrap()), (root, roots));
}
