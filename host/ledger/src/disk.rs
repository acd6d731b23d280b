//! What a ledger's writer asks of the file system, in one place, so that a test can refuse it.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// The calls by which a ledger changes its folder. Each method does what the system does unless it is replaced; paths
/// are there to tell files apart.
pub trait Disk: Debug + Send + Sync {
    /// Makes an empty file, in place of any that has the name.
    ///
    /// # Errors
    /// What the system says; so with all of them.
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).open(path)
    }

    /// Writes bytes from `at` on; how many, as [`Write::write`] says it.
    fn write(&self, _path: &Path, mut file: &File, at: u64, bytes: &[u8]) -> io::Result<usize> {
        file.seek(SeekFrom::Start(at))?;
        file.write(bytes)
    }

    /// Cuts a file off behind `len` bytes.
    fn cut(&self, _path: &Path, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// Makes a file's bytes last over a crash.
    fn sync(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes the names in a folder last over a crash.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    /// Gives a file a name, in place of any that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The system's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Disk for System {}

/// Writes all of `bytes` from `at` on; on failure, how many were written before.
pub(crate) fn write_all(
    disk: &dyn Disk,
    path: &Path,
    file: &File,
    at: u64,
    bytes: &[u8],
) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match disk.write(path, file, at + written as u64, &bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

/// Reads from `at` until `bytes` is full or the file ends; how many.
pub(crate) fn read_at(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match read_some_at(file, at + read as u64, &mut bytes[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(unix)]
fn read_some_at(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, at)
}

#[cfg(windows)]
fn read_some_at(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, at)
}
