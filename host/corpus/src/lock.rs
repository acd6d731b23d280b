//! One writer per data folder: an advisory lock on the file `.lock`, released by the system when its holder ends,
//! however it ends.
//!
//! The file holds the holder's process id, for the message of whoever comes second. Readers take no lock.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use megaring_core::Error;

use crate::durable::storage;

/// Name of the lock file; no corpus can have it, since names do not begin with a dot.
const NAME: &str = ".lock";

/// The lock, held until dropped.
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing would do, were it not for a process being started meanwhile, which holds a copy of the file until it
    /// runs.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock or says who has it; never waits.
    pub(crate) fn take(root: &Path) -> Result<Self, Error> {
        let path = root.join(NAME);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(storage("cannot open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(root, &mut file)),
            Err(TryLockError::Error(error)) => return Err(storage("cannot lock", &path)(error)),
        }
        write_pid(&mut file).map_err(storage("cannot write", &path))?;
        Ok(Self { file })
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn in_use(root: &Path, file: &mut File) -> Error {
    let mut pid = String::new();
    // The holder may be about to write it: an unreadable or empty file just names nobody.
    let _ = file.take(32).read_to_string(&mut pid);
    let holder = match pid.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    };
    Error::Storage(format!(
        "the data folder {} is in use by {holder}; append through that server, or end it first",
        root.display()
    ))
}
