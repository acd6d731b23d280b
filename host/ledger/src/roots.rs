//! The roots file: a [`Header`], then for each full segment the root over it, in order. It outlasts the segments, so
//! that the tree goes on when they have been removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::disk::{Disk, write_all};
use crate::error::{Error, Flaw};
use crate::merkle::Hash;
use crate::segment::{HEADER_BYTES, Header};

/// Name of the file in a ledger's folder.
pub(crate) const FILE: &str = "roots";

/// The root over one segment.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    segment: u64,
    root: Hash,
    /// CRC-32C of everything before.
    check: u32,
    zero: u32,
}

const ENTRY_BYTES: usize = size_of::<Entry>();

impl Entry {
    fn new(segment: u64, root: Hash) -> Self {
        let mut entry = Self { segment, root, check: 0, zero: 0 };
        entry.check = crc32c::crc32c(&bytemuck::bytes_of(&entry)[..ENTRY_BYTES - 8]);
        entry
    }

    /// The root that it holds, where it is as it was written for `segment`.
    fn read(bytes: &[u8], segment: u64) -> Option<Hash> {
        let root = bytemuck::pod_read_unaligned::<Self>(bytes).root;
        (bytemuck::bytes_of(&Self::new(segment, root)) == bytes).then_some(root)
    }
}

/// A roots file as read.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) header: Result<Header, Flaw>,
    /// By segment; `None` where an entry is not as it was written. The last may be one that a crash cut short.
    pub(crate) entries: Vec<Option<Hash>>,
}

impl Roots {
    /// Reads the file of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let header = Header::read_roots(&bytes);
        let entries = bytes.get(HEADER_BYTES as usize..).unwrap_or_default().chunks(ENTRY_BYTES);
        let read =
            |(bytes, segment): (&[u8], u64)| (bytes.len() == ENTRY_BYTES).then(|| Entry::read(bytes, segment))?;
        Ok(Self { header, entries: entries.zip(0..).map(read).collect() })
    }

    /// The entries up to the last that is as it was written. Those behind it a crash may have cut short, and they are
    /// written again.
    pub(crate) fn whole(&self) -> &[Option<Hash>] {
        let len = self.entries.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        &self.entries[..len]
    }
}

/// The roots file that is appended to.
#[derive(Debug)]
pub(crate) struct RootsFile {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    height: u32,
    file: File,
    /// Whole entries.
    entries: usize,
    /// Whether something else may lie behind them.
    is_ragged: bool,
    /// Whether a sync has failed, after which nothing but writing the file anew makes it last.
    is_suspect: bool,
}

impl RootsFile {
    /// Puts a file of these roots into a folder, in place of any that is there.
    pub(crate) fn create(folder: &Path, disk: &Arc<dyn Disk>, height: u32, roots: &[Hash]) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let bytes = [bytemuck::bytes_of(&Header::of_roots(height)), &entries(0, roots)].concat();
        let file = replace(&**disk, &path, &bytes).map_err(Error::io("write", &path))?;
        disk.sync_folder(folder).map_err(Error::io("sync", folder))?;
        let (disk, entries) = (Arc::clone(disk), roots.len());
        Ok(Self { path, disk, height, file, entries, is_ragged: false, is_suspect: false })
    }

    /// Opens the file of a folder, of which so many `entries` are whole.
    pub(crate) fn open(folder: &Path, disk: &Arc<dyn Disk>, height: u32, entries: usize) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let file = File::options().read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
        Ok(Self { path, disk: Arc::clone(disk), height, file, entries, is_ragged: true, is_suspect: false })
    }

    /// Adds those of all full segments' `roots` that it has not, and makes them last over a crash.
    pub(crate) fn settle(&mut self, roots: &[Hash]) -> Result<(), Error> {
        if self.is_suspect {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            *self = Self::create(folder, &self.disk, self.height, roots)?;
        }
        let end = HEADER_BYTES + (self.entries * ENTRY_BYTES) as u64;
        if self.is_ragged {
            self.disk.cut(&self.path, &self.file, end).map_err(Error::io("cut", &self.path))?;
            self.is_ragged = false;
        }
        if roots.len() <= self.entries {
            return Ok(());
        }
        let bytes = entries(self.entries, &roots[self.entries..]);
        if let Err((_, error)) = write_all(&*self.disk, &self.path, &self.file, end, &bytes) {
            self.is_ragged = true;
            return Err(Error::io("append to", &self.path)(error));
        }
        self.disk.sync(&self.path, &self.file).map_err(|error| {
            self.is_suspect = true;
            Error::io("sync", &self.path)(error)
        })?;
        self.entries = roots.len();
        Ok(())
    }
}

fn entries(first: usize, roots: &[Hash]) -> Vec<u8> {
    let entries: Vec<Entry> =
        roots.iter().zip(first as u64..).map(|(root, segment)| Entry::new(segment, *root)).collect();
    bytemuck::cast_slice(&entries).to_vec()
}

/// Writes a file beside `path` and puts it there when it is synced: it is there whole, or what was there stays. The
/// name itself lasts after a sync of the folder.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<File> {
    let beside = path.with_file_name(".tmp");
    let file = disk.create(&beside)?;
    let written = write_all(disk, &beside, &file, 0, bytes).map_err(|(_, error)| error);
    match written.and_then(|()| disk.sync(&beside, &file)).and_then(|()| disk.rename(&beside, path)) {
        Ok(()) => Ok(file),
        Err(error) => {
            // What cannot be removed, or a crash leaves, is written over the next time.
            let _ = disk.remove(&beside);
            Err(error)
        }
    }
}
