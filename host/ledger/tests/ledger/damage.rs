//! Damage: whatever bit is changed, it is found, and what it belongs to is named.

use std::fs;
use std::path::Path;

use megaring_ledger::{Error, Fault, Flaw, Ledger, LedgerView, verify};

use crate::common::{SMALL, events, filled, open, random};

const SIZE: u64 = 16 * 5 + 9;

/// The places that a changed byte of a file is blamed on: segment, and record.
fn place(name: &str, byte: usize) -> (Option<u64>, Option<u64>) {
    let Some(segment) = name.strip_suffix(".seg") else {
        return (byte.checked_sub(128).map(|byte| byte as u64 / 48), None);
    };
    let segment: u64 = segment.parse().unwrap();
    (Some(segment), byte.checked_sub(128).map(|byte| segment * 16 + byte as u64 / 128))
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
    names.sort();
    names
}

#[test]
fn every_changed_bit_is_found_and_its_record_named() {
    let folder = filled(SIZE);
    let root = open(folder.path()).root();
    let names = names(folder.path());
    assert_eq!(names.len(), 7);
    let mut state = 0x2545_f491_4f6c_dd1d;
    let (mut headers, mut roots) = (0, 0);
    for _ in 0..1000 {
        // Headers and roots are few bytes, and get their share.
        let name = &names[(random(&mut state) % names.len() as u64) as usize];
        let path = folder.path().join(name);
        let bytes = fs::read(&path).unwrap();
        let within = if random(&mut state).is_multiple_of(8) { 128 } else { bytes.len() };
        let at = (random(&mut state) % within as u64) as usize;
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (random(&mut state) % 8);
        fs::write(&path, changed).unwrap();
        let faults = verify(folder.path()).unwrap().faults;
        let [Fault { file, segment, index, .. }] = &faults[..] else {
            panic!("byte {at} of {name}: {faults:?}");
        };
        assert_eq!((file, (*segment, *index)), (&path, place(name, at)), "byte {at}");
        headers += usize::from(at < 128);
        roots += usize::from(name == "roots" && at >= 128);
        fs::write(&path, bytes).unwrap();
    }
    assert!(headers > 100 && roots > 50, "{headers} {roots}");
    assert_eq!(verify(folder.path()).unwrap().root, Some(root));
}

/// Changed by someone who makes the check right again: what was kept of the segment tells.
#[test]
fn a_forged_record_has_another_root() {
    let folder = filled(SIZE);
    let path = folder.path().join("0000000000000002.seg");
    let mut bytes = fs::read(&path).unwrap();
    let record = &mut bytes[128 + 3 * 128..][..128];
    record[60] ^= 1;
    let check = crc32c::crc32c(&record[..120]);
    record[120..124].copy_from_slice(&check.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let faults = verify(folder.path()).unwrap().faults;
    assert_eq!(faults, [Fault { file: path, segment: Some(2), index: None, flaw: Flaw::Root }]);
    let view = LedgerView::open(folder.path()).unwrap();
    assert!(matches!(view.inclusion(32, SIZE).unwrap_err(), Error::Damaged { flaw: Flaw::Root, .. }));
}

/// No proof is made from damaged records, those in memory included; what else there is can be read and proved.
#[test]
fn no_proof_comes_from_damage() {
    let folder = filled(SIZE);
    let ledger = open(folder.path());
    let sound = LedgerView::open(folder.path()).unwrap();
    let proof = sound.inclusion(20, SIZE).unwrap();
    let path = folder.path().join("0000000000000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[128 + 2 * 128 + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for view in [&sound, &LedgerView::open(folder.path()).unwrap()] {
        let error = view.inclusion(20, SIZE).unwrap_err();
        assert!(matches!(error, Error::Damaged { index: Some(18), flaw: Flaw::Check, .. }), "{error}");
        assert_eq!(view.root(), ledger.root());
        assert!(view.inclusion(40, SIZE).is_ok());
        let (good, bad): (Vec<_>, Vec<_>) = view.read(0..SIZE).unwrap().partition(Result::is_ok);
        assert_eq!((good.len() as u64, bad.len()), (SIZE - 1, 1));
        assert!(bad[0].as_ref().unwrap_err().to_string().contains("record 18"));
    }
    bytes[128 + 2 * 128 + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(sound.inclusion(20, SIZE).unwrap(), proof);
}

/// A record that is not whole with whole ones behind it is no torn end: nothing is cut.
#[test]
fn damage_in_the_last_segment_is_kept_and_named() {
    let folder = filled(9);
    let path = folder.path().join("0000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[128 + 4 * 128 + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut ledger = open(folder.path());
    assert_eq!(ledger.size(), 9);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    ledger.append(&events(9, 30)).unwrap();
    ledger.sync().unwrap();
    drop(ledger);
    let report = verify(folder.path()).unwrap();
    assert_eq!(report.faults, [Fault { file: path, segment: Some(0), index: Some(4), flaw: Flaw::Check }]);
    assert_eq!(report.root, Some(open(folder.path()).root()));
}

/// A full segment is never cut, whatever its end is like.
#[test]
fn a_full_segment_that_is_cut_short_is_refused() {
    let folder = filled(40);
    let path = folder.path().join("0000000000000001.seg");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let faults = verify(folder.path()).unwrap().faults;
    assert!(faults.iter().any(|fault| fault.flaw == Flaw::Records { found: 15, expected: 16 }), "{faults:?}");
    let view = LedgerView::open(folder.path()).unwrap();
    let error = view.inclusion(17, 40).unwrap_err();
    assert!(matches!(error, Error::Damaged { flaw: Flaw::Records { found: 15, expected: 16 }, .. }), "{error}");
    // Now it is the last.
    fs::remove_file(folder.path().join("0000000000000002.seg")).unwrap();
    let mut changed = bytes.clone();
    changed[128 + 15 * 128 + 50] ^= 1;
    fs::write(&path, &changed).unwrap();
    assert_eq!(open(folder.path()).size(), 32);
    assert_eq!(fs::read(&path).unwrap(), changed);
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = Ledger::open(folder.path(), SMALL).unwrap_err();
    assert!(matches!(error, Error::Damaged { flaw: Flaw::Records { found: 15, expected: 16 }, .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap().len(), bytes.len() - 1);
    fs::remove_file(&path).unwrap();
    let error = Ledger::open(folder.path(), SMALL).unwrap_err();
    assert!(matches!(error, Error::Damaged { flaw: Flaw::Missing, .. }), "{error}");
    let faults = verify(folder.path()).unwrap().faults;
    assert_eq!(faults, [Fault { file: path, segment: Some(1), index: None, flaw: Flaw::Missing }]);
}

/// Without its roots file's header a ledger is opened by its segments', and by a later program's not at all.
#[test]
fn headers_tell_of_damage_from_versions() {
    let folder = filled(40);
    let root = open(folder.path()).root();
    let path = folder.path().join("roots");
    let bytes = fs::read(&path).unwrap();
    let mut changed = bytes.clone();
    changed[12] ^= 1;
    fs::write(&path, &changed).unwrap();
    assert_eq!(LedgerView::open(folder.path()).unwrap().root(), root);
    let mut later = bytes;
    later[8] = 2;
    let check = crc32c::crc32c(&later[..124]);
    later[124..128].copy_from_slice(&check.to_le_bytes());
    fs::write(&path, &later).unwrap();
    let error = LedgerView::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged { flaw: Flaw::Version { found: 2 }, .. }), "{error}");
}
