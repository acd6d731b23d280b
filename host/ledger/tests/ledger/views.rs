//! Views beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use megaring_ledger::{LedgerView, verify_consistency};

use crate::common::{assert_record, events, filled, leaves, naive_root, open};

#[test]
fn a_view_follows_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    let mut view = LedgerView::open(folder.path()).unwrap();
    assert_eq!(view.size(), 0);
    for step in [1, 14, 1, 1, 15, 40, 0, 16, 3] {
        ledger.append(&events(ledger.size(), step)).unwrap();
        assert_eq!(view.refresh().unwrap(), ledger.size());
        assert_eq!(view.root(), ledger.root());
        let fresh = LedgerView::open(folder.path()).unwrap();
        assert_eq!((fresh.size(), fresh.root()), (ledger.size(), ledger.root()));
    }
    // It comes too late for segments that were next.
    ledger.append(&events(ledger.size(), 64)).unwrap();
    ledger.retain(2).unwrap();
    assert_eq!(view.refresh().unwrap(), ledger.size());
    assert_eq!((view.root(), view.first()), (ledger.root(), ledger.first()));
}

/// Whatever a view sees, it sees whole, and each tree begins with the one before.
#[test]
fn a_view_sees_whole_records_while_they_are_written() {
    let folder = filled(1);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ledger = open(folder.path());
            for _ in 0..300 {
                ledger.append(&events(ledger.size(), 1 + ledger.size() % 23)).unwrap();
            }
            is_done.store(true, Ordering::Release);
        });
        let mut view = LedgerView::open(folder.path()).unwrap();
        let (mut size, mut root, mut last) = (view.size(), view.root(), false);
        while !last {
            last = is_done.load(Ordering::Acquire);
            view.refresh().unwrap();
            let proof = view.consistency(size, view.size()).unwrap();
            assert!(verify_consistency(size, &root, view.size(), &view.root(), &proof));
            for (record, index) in view.read(size..view.size()).unwrap().zip(size..) {
                assert_record(&record.unwrap(), index);
            }
            (size, root) = (view.size(), view.root());
        }
        let records: Vec<_> = view.read(0..size).unwrap().map(Result::unwrap).collect();
        assert_eq!(root, naive_root(&leaves(&records)));
        assert_eq!(size, 2499);
    });
}
