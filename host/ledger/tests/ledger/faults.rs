//! A disk that refuses at random: an error that says so, nothing that was whole is lost, and the ledger goes on.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use megaring_ledger::{Disk, Error, Ledger, verify};

use crate::common::{SMALL, assert_keeps, event, events, open, random};

/// What a [`Flaky`] disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    Nothing,
    /// About one call in so many, with an error of either kind; a write may have come through in part.
    OneIn(u64),
    /// Writes beyond so many bytes in all, as a full disk does.
    BytesBeyond(u64),
    /// Every sync of a segment, and what was to be synced is lost.
    Syncs,
}

#[derive(Debug)]
struct Flaky {
    refuses: Mutex<Refuses>,
    state: Mutex<u64>,
    written: AtomicU64,
    refused: AtomicU64,
}

impl Flaky {
    fn new(refuses: Refuses, seed: u64) -> Arc<Self> {
        let (refuses, state) = (Mutex::new(refuses), Mutex::new(seed));
        Arc::new(Self { refuses, state, written: AtomicU64::new(0), refused: AtomicU64::new(0) })
    }

    fn set(&self, refuses: Refuses) {
        *self.refuses.lock().unwrap() = refuses;
    }

    fn random(&self) -> u64 {
        random(&mut self.state.lock().unwrap())
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, kind: ErrorKind) -> io::Result<()> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(kind.into())
    }

    fn maybe(&self) -> io::Result<()> {
        match *self.refuses.lock().unwrap() {
            Refuses::OneIn(many) if self.random().is_multiple_of(many) => {
                self.refuse(if self.random().is_multiple_of(2) { ErrorKind::StorageFull } else { ErrorKind::Other })
            }
            _ => Ok(()),
        }
    }
}

impl Disk for Flaky {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.maybe()?;
        megaring_ledger::System.create(path)
    }

    fn write(&self, path: &Path, file: &File, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.maybe()?;
        let mut some = bytes.len();
        match *self.refuses.lock().unwrap() {
            // The rest is refused by the next call, or is not.
            Refuses::OneIn(_) if self.random().is_multiple_of(2) => some = 1 + self.random() as usize % some,
            Refuses::BytesBeyond(limit) => {
                some = some.min((limit.saturating_sub(self.written.load(Ordering::Relaxed))) as usize);
                if some == 0 {
                    self.refuse(ErrorKind::StorageFull)?;
                }
            }
            _ => {}
        }
        let written = megaring_ledger::System.write(path, file, at, &bytes[..some])?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn cut(&self, path: &Path, file: &File, len: u64) -> io::Result<()> {
        self.maybe()?;
        megaring_ledger::System.cut(path, file, len)
    }

    fn sync(&self, path: &Path, _file: &File) -> io::Result<()> {
        self.maybe()?;
        if *self.refuses.lock().unwrap() == Refuses::Syncs && path.extension().is_some_and(|name| name == "seg") {
            self.refuse(ErrorKind::Other)?;
        }
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        self.maybe()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.maybe()?;
        megaring_ledger::System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.maybe()?;
        megaring_ledger::System.remove(path)
    }
}

/// Appends events until there are `size`, however often it takes.
fn append_until(ledger: &mut Ledger, size: u64, state: &mut u64) {
    while ledger.size() < size {
        let start = ledger.size();
        let batch = events(start, (random(state) % 50).min(size - start));
        let appended = match ledger.append(&batch) {
            Ok(appended) => {
                assert_eq!(appended.end, start + batch.len() as u64);
                appended
            }
            Err(error) => {
                assert!(matches!(error.source, Error::Io { .. } | Error::Sync { .. }), "{error:?}");
                error.appended
            }
        };
        assert_eq!(appended, start..ledger.size());
        if random(state).is_multiple_of(3) {
            let before = ledger.durable();
            match ledger.sync() {
                Ok(size) => assert_eq!((size, ledger.durable()), (ledger.size(), size)),
                Err(Error::Sync { durable, .. }) => assert_eq!((durable, ledger.durable()), (before, before)),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

#[test]
fn a_ledger_goes_on_whatever_is_refused() {
    let mut refused = 0;
    for seed in 1..30 {
        let folder = tempfile::tempdir().unwrap();
        let disk = Flaky::new(Refuses::Nothing, seed);
        let mut ledger = Ledger::open_on(folder.path(), SMALL, disk.clone()).unwrap();
        disk.set(Refuses::OneIn(2 + seed % 9));
        let mut state = seed;
        append_until(&mut ledger, 200, &mut state);
        refused += disk.refused();
        disk.set(Refuses::Nothing);
        append_until(&mut ledger, 220, &mut state);
        ledger.sync().unwrap();
        assert_keeps(&ledger, folder.path());
        drop(ledger);
        assert_keeps(&open(folder.path()), folder.path());
    }
    assert!(refused > 500, "{refused}");
}

/// The process ends while the disk refuses.
#[test]
fn a_ledger_opens_after_whatever_was_refused() {
    for seed in 1..30 {
        let folder = tempfile::tempdir().unwrap();
        let mut state = seed;
        for round in 1..8 {
            let disk = Flaky::new(Refuses::Nothing, seed * 8 + round);
            let mut ledger = Ledger::open_on(folder.path(), SMALL, disk.clone()).unwrap();
            assert_keeps(&ledger, folder.path());
            disk.set(Refuses::OneIn(4));
            append_until(&mut ledger, round * 30, &mut state);
            // What is behind the last whole record stays there.
            while ledger.append(&events(ledger.size(), 3)).is_ok() {}
        }
    }
}

#[test]
fn an_opening_that_is_refused_changes_nothing() {
    let mut refused = 0;
    for seed in 1..100 {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = open(folder.path());
        ledger.append(&events(0, 16 + seed % 20)).unwrap();
        drop(ledger);
        match Ledger::open_on(folder.path(), SMALL, Flaky::new(Refuses::OneIn(3), seed)) {
            Ok(ledger) => assert_keeps(&ledger, folder.path()),
            Err(_) => refused += 1,
        }
        let ledger = open(folder.path());
        assert_eq!(ledger.size(), 16 + seed % 20);
        assert_keeps(&ledger, folder.path());
    }
    assert!(refused > 10, "{refused}");
}

/// At every byte at which a disk can be full: the error says so, and there is room again later.
#[test]
fn a_full_disk_takes_what_is_whole() {
    for limit in (0..128 * 22).step_by(37) {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()));
        let disk = Flaky::new(Refuses::BytesBeyond(limit), 1);
        let mut ledger = Ledger::open_on(folder.path(), SMALL, disk.clone()).unwrap();
        let error = ledger.append(&events(0, 40)).unwrap_err();
        assert_eq!(error.appended, 0..ledger.size());
        let Error::Io { path, source, .. } = &error.source else { panic!("{error:?}") };
        assert_eq!((path.parent().unwrap(), source.kind()), (folder.path(), ErrorKind::StorageFull));
        // Two headers, and the root of the first segment behind it.
        let bytes = limit.saturating_sub(128);
        let whole = if bytes < 16 * 128 { bytes / 128 } else { 16 + bytes.saturating_sub(17 * 128 + 48) / 128 };
        assert_eq!(ledger.size(), whole, "{limit}");
        assert_eq!(ledger.append(&events(whole, 1)).unwrap_err().appended, whole..whole);
        disk.set(Refuses::Nothing);
        ledger.append(&events(whole, 40)).unwrap();
        assert_keeps(&ledger, folder.path());
    }
}

/// A second sync does not say that all is well because there is nothing left to write: the segment is written anew.
#[test]
fn a_failed_sync_is_made_good_by_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Flaky::new(Refuses::Nothing, 1);
    let mut ledger = Ledger::open_on(folder.path(), SMALL, disk.clone()).unwrap();
    ledger.append(&events(0, 5)).unwrap();
    assert_eq!((ledger.sync().unwrap(), ledger.durable()), (5, 5));
    ledger.append(&events(5, 4)).unwrap();
    disk.set(Refuses::Syncs);
    let error = ledger.sync().unwrap_err();
    assert!(matches!(error, Error::Sync { durable: 5, .. }), "{error:?}");
    assert_eq!((ledger.size(), ledger.durable()), (9, 5));

    let path = folder.path().join("0000000000000000.seg");
    let old = File::open(&path).unwrap();
    assert_eq!((ledger.sync().unwrap(), ledger.durable()), (9, 9));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(old.metadata().unwrap().nlink(), 0, "the file is the one whose sync failed");
    }
    disk.set(Refuses::Nothing);
    ledger.append(&events(9, 20)).unwrap();
    assert_keeps(&ledger, folder.path());
}

/// What the system dropped when a sync failed is not taken for what was written.
#[test]
fn what_a_failed_sync_dropped_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Flaky::new(Refuses::Nothing, 1);
    let mut ledger = Ledger::open_on(folder.path(), SMALL, disk.clone()).unwrap();
    ledger.append(&events(0, 5)).unwrap();
    disk.set(Refuses::Syncs);
    ledger.sync().unwrap_err();
    let path = folder.path().join("0000000000000000.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[128 + 3 * 128..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    disk.set(Refuses::Nothing);
    for _ in 0..2 {
        let error = ledger.sync().unwrap_err();
        assert!(matches!(error, Error::Damaged { index: Some(3), .. }), "{error:?}");
        assert_eq!(ledger.durable(), 0);
    }
    drop(ledger);
    assert_eq!(verify(folder.path()).unwrap().faults.len(), 2);
    let mut ledger = open(folder.path());
    assert_eq!(ledger.append(&[event(3)]).unwrap(), 3..4);
    assert_keeps(&ledger, folder.path());
}
