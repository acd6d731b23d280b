//! What the tests of this crate share.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use megaring_ledger::{Disk, Entry, Hash, Kind, Ledger, Options, Record, verify};
use megaring_ring::event_ring::Event;
use sha2::{Digest, Sha256};

/// Segments of 16 records, the smallest, which are soon full.
pub(crate) const SMALL: Options = Options { segment_levels: 4 };

/// The system's calls, but for those that wait for the disk: no test here can tell, and they would wait a lot.
#[derive(Debug)]
pub(crate) struct Hasty;

impl Disk for Hasty {
    fn sync(&self, _path: &Path, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn open(folder: &Path) -> Ledger {
    Ledger::open_on(folder, SMALL, Arc::new(Hasty)).unwrap()
}

/// Event number so and so: all of it follows from the number, and has no pattern.
pub(crate) fn event(number: u64) -> Event {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ (number + 1).wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = || random(&mut state);
    let entry = Entry {
        opcode: (next() % 5) as u16,
        tool: next() as u16,
        role: next() as u8,
        reason: (next() % 8) as u8,
        status: (next() % 17) as u8,
        backend: next() as u8,
        items: next(),
        bytes: next(),
        measured_ns: next(),
        predicted_ns: next(),
        reserved: next(),
        settled: next(),
        reservation: next(),
        count: next(),
    };
    let (kind, tenant, confidence) = (Kind(1 + next() % 8), next() % 4, (next() >> 11) as f64 / (1_u64 << 53) as f64);
    entry.event(kind, tenant, 1_700_000_000_000_000_000 + number * 1000, confidence).unwrap()
}

/// Events numbered from `start`.
pub(crate) fn events(start: u64, count: u64) -> Vec<Event> {
    (start..start + count).map(event).collect()
}

/// A folder with a ledger of so many events, synced.
pub(crate) fn filled(count: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    ledger.append(&events(0, count)).unwrap();
    ledger.sync().unwrap();
    folder
}

/// All records that are there.
pub(crate) fn records(ledger: &Ledger) -> Vec<Record> {
    ledger.read(ledger.first()..ledger.size()).unwrap().map(Result::unwrap).collect()
}

/// Checks that a ledger keeps [`events`] 0 to its size, in order, under the root that these have, and nothing is wrong
/// on disk.
pub(crate) fn assert_keeps(ledger: &Ledger, folder: &Path) {
    let records = records(ledger);
    assert_eq!(records.len() as u64, ledger.size());
    for (index, record) in (0..).zip(&records) {
        assert_record(record, index);
    }
    let root = naive_root(&leaves(&records));
    assert_eq!(ledger.root(), root);
    let report = verify(folder).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!((report.first, report.size, report.root), (0, ledger.size(), Some(root)));
}

/// Checks that a record keeps [`event`] `index`.
pub(crate) fn assert_record(record: &Record, index: u64) {
    let event = event(index);
    assert_eq!((record.index(), record.check(index)), (index, Ok(())));
    assert_eq!((record.kind(), record.tenant()), (Kind(event.kind()), event.source()), "record {index}");
    assert_eq!((record.timestamp_ns(), record.confidence()), (event.timestamp_ns(), event.confidence()));
    assert_eq!((record.data(), record.entry()), (event.data(), Entry::from(&event)), "record {index}");
}

/// The hashes of the records' leaves.
pub(crate) fn leaves(records: &[Record]) -> Vec<Hash> {
    records.iter().map(|record| Sha256::new_with_prefix([0]).chain_update(record.bytes()).finalize().into()).collect()
}

/// The Merkle tree hash as RFC 6962, section 2.1, defines it, over the hashes of leaves.
pub(crate) fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let message = Sha256::new_with_prefix([1]).chain_update(naive_root(left)).chain_update(naive_root(right));
            message.finalize().into()
        }
    }
}

/// Numbers without a pattern tests could fall in step with (Marsaglia's xorshift).
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
