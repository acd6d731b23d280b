//! Segments that are removed: the tree goes on, and has proofs of what is left.

use megaring_ledger::{Error, LedgerView, verify, verify_consistency, verify_inclusion};

use crate::common::{assert_record, events, leaves, naive_root, open, records};

#[test]
fn the_tree_goes_on_when_segments_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    ledger.append(&events(0, 150)).unwrap();
    let mut all = records(&ledger);
    let before = ledger.root();
    assert_eq!(ledger.retain(4).unwrap(), 96);
    assert_eq!(ledger.retain(4).unwrap(), 0);
    assert_eq!((ledger.first(), ledger.size(), ledger.root()), (96, 150, before));
    ledger.append(&events(150, 63)).unwrap();
    drop(ledger);

    let mut ledger = open(folder.path());
    let kept = records(&ledger);
    all.extend_from_slice(&kept[150 - 96..]);
    for (index, record) in (96..).zip(&kept) {
        assert_record(record, index);
    }
    let (leaves, size, root) = (leaves(&all), ledger.size(), ledger.root());
    assert_eq!((size, root), (213, naive_root(&leaves)));
    for index in 96..size {
        let proof = ledger.inclusion(index, size).unwrap();
        assert!(verify_inclusion(&leaves[index as usize], index, size, &proof, &root), "{index}");
    }
    // From trees that are on the border of a segment that is gone, or later than all that are.
    for old in (0..=96).step_by(16).chain(97..=size) {
        let proof = ledger.consistency(old, size).unwrap();
        assert!(verify_consistency(old, &naive_root(&leaves[..old as usize]), size, &root, &proof), "{old}");
        assert_eq!(ledger.root_at(old).unwrap(), naive_root(&leaves[..old as usize]), "{old}");
    }
    let removed = |error| matches!(error, Error::Removed { first: 96 });
    assert!(removed(ledger.inclusion(95, size).unwrap_err()) && removed(ledger.read(95..97).unwrap_err()));
    assert!(removed(ledger.consistency(95, size).unwrap_err()) && removed(ledger.root_at(95).unwrap_err()));
    let report = verify(folder.path()).unwrap();
    assert_eq!((report.first, report.size, report.root, &report.faults[..]), (96, size, Some(root), &[][..]));

    assert_eq!(ledger.retain(0).unwrap(), 208 - 96);
    let view = LedgerView::open(folder.path()).unwrap();
    assert_eq!((view.first(), view.size(), view.root()), (208, size, root));
}

/// A root that is gone with its segment leaves no tree to go on with.
#[test]
fn a_lost_root_of_a_removed_segment_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    ledger.append(&events(0, 100)).unwrap();
    ledger.retain(2).unwrap();
    drop(ledger);
    let path = folder.path().join("roots");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[128 + 48 + 20] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let refused = LedgerView::open(folder.path()).unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused:?}");
    let report = verify(folder.path()).unwrap();
    assert_eq!((report.root, report.faults.len()), (None, 1));
    assert!(report.faults[0].to_string().contains("the entry of segment 1"), "{}", report.faults[0]);
}
