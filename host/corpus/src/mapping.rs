//! Maps a file into memory, read-only. The only unsafe code of this crate.
//!
//! An empty file maps to no bytes. The mapping lives as long as any part of the returned [`Bytes`].

#![expect(unsafe_code, reason = "mapping a file is unsafe: the system cannot promise that nobody changes it")]

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

/// The whole of a file, mapped.
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: a mapping is sound to read as bytes while its file is neither changed nor truncated. This crate maps only
    // files of the data folder that are complete: each is written under another name, synced and then renamed to its
    // own (`durable`), and no code of this crate opens a file of such a name for writing afterwards. It may unlink or
    // replace one, which leaves the mapped inode as it is. Data folders are ours; another program that writes into a
    // file of one breaks the crate's documented condition (a truncation then ends the process by SIGBUS, it does not
    // hand out freed memory). The mapping is private to this process, is never written through, and its bytes are plain
    // values: no bit pattern of u8 is invalid.
    let mapped = unsafe { Mmap::map(&file) }?;
    Ok(Bytes::from_owner(mapped))
}
