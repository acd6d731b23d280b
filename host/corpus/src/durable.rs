//! Files that are there whole or not at all: written beside under a temporary name, synced, renamed, and the folder
//! synced.
//!
//! A temporary file that is not persisted is removed when dropped; one that a crash left is removed by [`sweep`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use megaring_core::Error;

use crate::fault::told;

/// What the names of temporary files and folders begin with. No corpus and no segment has such a name.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A storage error that says what was being done to which file.
pub(crate) fn storage(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let text = format!("{what} {}", path.display());
    move |error| Error::Storage(format!("{text}: {}", told(&error)))
}

/// A path in `folder` that nothing else has.
pub(crate) fn temporary_path(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{TEMPORARY}{}-{number}", std::process::id()))
}

/// Makes names in a folder (made, renamed, removed) last over a crash.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file that is not yet what it is to become.
pub(crate) struct TemporaryFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl TemporaryFile {
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let path = temporary_path(folder);
        let file = File::options().write(true).read(true).create_new(true).open(&path)?;
        Ok(Self { path, file, kept: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle to write through.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Makes the bytes last over a crash.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Syncs the bytes and gives the file its name, replacing what had it. The name itself lasts after [`sync_folder`].
    pub(crate) fn rename(self, to: &Path) -> io::Result<()> {
        self.sync()?;
        self.put(to)
    }

    /// [`Self::rename`] of a file that is synced already.
    pub(crate) fn put(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure here; the sweep at the next open tries again.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes entries of a folder for which `leftover` says so. Failures are left for the next time.
pub(crate) fn sweep(folder: &Path, leftover: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(&leftover) {
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let _ = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
    }
}

/// Bytes that a file is written and synced by. A disk that syncs a small file may write what it has of large ones
/// first: nobody is to wait for more than this.
const PACE: usize = 4 << 20;

/// A file that is synced while it is written.
pub(crate) struct Paced {
    file: File,
    unsynced: usize,
}

impl Paced {
    pub(crate) fn new(file: File) -> Self {
        Self { file, unsynced: 0 }
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unsynced >= PACE {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        let written = self.file.write(&bytes[..bytes.len().min(PACE)])?;
        self.unsynced += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Counts and sums (CRC-32, IEEE) what passes through.
pub(crate) struct Summing<W> {
    inner: W,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Summing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, crc: crc32fast::Hasher::new(), bytes: 0 }
    }

    /// Bytes and checksum so far.
    pub(crate) fn sum(&self) -> (u64, u32) {
        (self.bytes, self.crc.clone().finalize())
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
