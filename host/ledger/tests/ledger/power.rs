//! A machine that loses its power: of each file there is what was synced, and any part of what was written after.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use megaring_ledger::{Disk, Ledger, System, verify};

use crate::common::{SMALL, assert_record, events, open, random};

/// A disk that knows what lasts. Files are known by name, for a name is synced before what it names is relied upon.
#[derive(Debug, Default)]
struct Volatile {
    lasting: Mutex<Lasting>,
}

#[derive(Debug, Default, Clone)]
struct Lasting {
    /// Bytes of files that were synced.
    synced: BTreeMap<PathBuf, Vec<u8>>,
    /// What the folder had when it was last synced.
    names: BTreeMap<PathBuf, Vec<u8>>,
}

impl Volatile {
    fn lasting(&self) -> Lasting {
        self.lasting.lock().unwrap().clone()
    }
}

impl Disk for Volatile {
    fn sync(&self, path: &Path, _file: &File) -> io::Result<()> {
        let mut lasting = self.lasting.lock().unwrap();
        let bytes = fs::read(path)?;
        if let Some(named) = lasting.names.get_mut(path) {
            named.clone_from(&bytes);
        }
        lasting.synced.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut lasting = self.lasting.lock().unwrap();
        let paths = fs::read_dir(folder)?.map(|entry| entry.unwrap().path());
        lasting.names =
            paths.map(|path| (path.clone(), lasting.synced.get(&path).cloned().unwrap_or_default())).collect();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)?;
        let mut lasting = self.lasting.lock().unwrap();
        if let Some(bytes) = lasting.synced.remove(from) {
            lasting.synced.insert(to.to_owned(), bytes);
        }
        Ok(())
    }

    /// A segment goes only when the root over it lasts.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let segment: usize = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let lasting = self.lasting();
        let roots = &lasting.names[&path.with_file_name("roots")];
        assert!(roots.len() >= 128 + 48 * (segment + 1), "segment {segment} goes before its root lasts");
        System.remove(path)
    }
}

/// What there may be after the power was lost: the lasting bytes, and some of those written after.
fn lose_power(folder: &Path, lasting: &Lasting, state: &mut u64) -> tempfile::TempDir {
    let after = tempfile::tempdir().unwrap();
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.extend(lasting.names.keys().cloned());
    paths.sort();
    paths.dedup();
    for path in paths {
        let written = fs::read(&path).ok();
        let bytes = match (lasting.names.get(&path), written) {
            // A removal may last, or not.
            (Some(synced), None) if random(state).is_multiple_of(2) => synced.clone(),
            (Some(synced), Some(written)) => {
                let more = written.len().saturating_sub(synced.len());
                let end = synced.len() + (random(state) % (more as u64 + 1)) as usize;
                [synced, written.get(synced.len()..end).unwrap_or_default()].concat()
            }
            (None, Some(written)) if random(state).is_multiple_of(2) => {
                written[..(random(state) % (written.len() as u64 + 1)) as usize].to_vec()
            }
            _ => continue,
        };
        fs::write(after.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    after
}

#[test]
fn what_was_synced_lasts_over_a_loss_of_power() {
    for seed in 1..25 {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Volatile::default());
        let mut ledger = Ledger::open_on(folder.path(), SMALL, disk.clone()).unwrap();
        let mut state = seed;
        let mut safe = 0;
        for _ in 0..random(&mut state) % 30 {
            ledger.append(&events(ledger.size(), random(&mut state) % 30)).unwrap();
            match random(&mut state) % 4 {
                0 => safe = ledger.sync().unwrap(),
                1 => drop(ledger.retain(3).unwrap()),
                _ => {}
            }
            let after = lose_power(folder.path(), &disk.lasting(), &mut state);
            let mut reopened = open(after.path());
            assert!(reopened.size() >= safe.max(ledger.durable()), "seed {seed}: {} of {safe}", reopened.size());
            if reopened.size() >= ledger.first() {
                assert_eq!(reopened.root(), ledger.root_at(reopened.size()).unwrap(), "seed {seed}");
            }
            for (record, index) in reopened.read(reopened.first()..reopened.size()).unwrap().zip(reopened.first()..) {
                assert_record(&record.unwrap(), index);
            }
            reopened.append(&events(reopened.size(), 20)).unwrap();
            assert_eq!(verify(after.path()).unwrap().faults, [], "seed {seed}");
        }
    }
}
