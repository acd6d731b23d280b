//! Segment files: their names, the header that each file of a ledger begins with, and reading records.
//!
//! A segment `0000000000000003.seg` is a [`Header`] and then its records. All but the last have exactly
//! `1 << height` of them, so that each is a perfect subtree of the Merkle tree.

use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::disk::read_at;
use crate::error::{Error, Flaw};
use crate::merkle::Hash;
use crate::record::{RECORD_BYTES, Record};
use crate::tree::Subtree;

/// Version of the files' form.
pub(crate) const VERSION: u32 = 1;

/// Binary logarithms of the numbers of records that a segment can hold. The largest file has 2 GiB, and is read as a
/// whole when it is opened.
pub(crate) const SEGMENT_LEVELS: RangeInclusive<u32> = 4..=24;

/// Bytes before a segment's first record.
pub(crate) const HEADER_BYTES: u64 = size_of::<Header>() as u64;

/// What a file begins with. Little-endian, as everything in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Header {
    magic: [u8; 8],
    version: u32,
    /// Binary logarithm of a full segment's records.
    pub(crate) height: u32,
    /// The segment's number; 0 in the roots file.
    number: u64,
    zero: [u8; 100],
    /// CRC-32C of everything before.
    check: u32,
}

const _: () = assert!(size_of::<Header>() == RECORD_BYTES);

/// What tells a segment from the roots file.
const SEGMENT: [u8; 8] = *b"MEGALSEG";
const ROOTS: [u8; 8] = *b"MEGALROT";

impl Header {
    pub(crate) fn of_segment(number: u64, height: u32) -> Self {
        Self { magic: SEGMENT, version: VERSION, height, number, zero: [0; 100], check: 0 }.sealed()
    }

    pub(crate) fn of_roots(height: u32) -> Self {
        Self { magic: ROOTS, version: VERSION, height, number: 0, zero: [0; 100], check: 0 }.sealed()
    }

    /// Reads the header that segment `number` has.
    pub(crate) fn read_segment(bytes: &[u8], number: u64) -> Result<Self, Flaw> {
        let header = Self::read(bytes)?;
        if header == Self::of_segment(number, header.height) { Ok(header) } else { Err(Flaw::Foreign) }
    }

    /// Reads the header that the roots file has.
    pub(crate) fn read_roots(bytes: &[u8]) -> Result<Self, Flaw> {
        let header = Self::read(bytes)?;
        if header == Self::of_roots(header.height) { Ok(header) } else { Err(Flaw::Foreign) }
    }

    fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        let Some(bytes) = bytes.get(..size_of::<Self>()) else { return Err(Flaw::Header) };
        let header: Self = bytemuck::pod_read_unaligned(bytes);
        if header != header.sealed() {
            return Err(Flaw::Header);
        }
        if header.version != VERSION {
            return Err(Flaw::Version { found: header.version });
        }
        if SEGMENT_LEVELS.contains(&header.height) { Ok(header) } else { Err(Flaw::Header) }
    }

    fn sealed(mut self) -> Self {
        let end = size_of::<Self>() - size_of::<u32>();
        self.check = crc32c::crc32c(&bytemuck::bytes_of(&self)[..end]);
        self
    }
}

/// The path of a segment's file.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.seg"))
}

/// The numbers of the segments in a folder, in order. What has another name is none.
pub(crate) fn list(folder: &Path) -> Result<Vec<u64>, Error> {
    let number = |name: &str| {
        let digits = name.strip_suffix(".seg")?;
        let is_number = digits.len() >= 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { digits.parse::<u64>().ok() } else { None }
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let name = entry.map_err(Error::io("list", folder))?.file_name();
        numbers.extend(name.to_str().and_then(number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where a segment's record number `at` begins in its file.
pub(crate) fn offset(at: u64) -> u64 {
    HEADER_BYTES + at * RECORD_BYTES as u64
}

/// The number of leading records up to the last that is whole, of which the first has `index`. What is behind it is
/// what a crash left; what is not whole before it has been damaged, since records are written in order.
pub(crate) fn whole(records: &[Record], index: u64) -> usize {
    let is_whole = |at: &usize| records[*at].check(index + *at as u64).is_ok();
    (0..records.len()).rev().find(is_whole).map_or(0, |last| last + 1)
}

/// One segment that is read from, and what is kept of its subtree.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    path: PathBuf,
    /// Opened when it is first read.
    file: Mutex<Option<Arc<File>>>,
    pub(crate) tree: Subtree,
}

impl Segment {
    /// A segment of which nothing has been written yet.
    pub(crate) fn empty(folder: &Path, number: u64, height: u32) -> Self {
        Self { number, path: path(folder, number), file: Mutex::default(), tree: Subtree::over(height, &[]) }
    }

    /// Reads a full segment. Where its `root` is known, the records must be those that it stands over; where it is not,
    /// they are taken as they are.
    pub(crate) fn full(folder: &Path, number: u64, height: u32, root: Option<Hash>) -> Result<Self, Error> {
        let mut segment = Self::empty(folder, number, height);
        let records = segment.read(0, 1 << height)?;
        segment.tree = Subtree::over(height, &records);
        if !segment.tree.is_full() {
            let flaw = Flaw::Records { found: segment.tree.len(), expected: 1 << height };
            return Err(Error::damaged(&segment.path, None, flaw));
        }
        if root.is_some() && root != segment.tree.root() {
            return Err(segment.damage(&records, 0));
        }
        Ok(segment)
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets the file, in whose place another has been put.
    pub(crate) fn reopen(&self) {
        *self.slot() = None;
    }

    /// Index of its record number `at` in the ledger.
    pub(crate) fn index(&self, at: u64) -> u64 {
        (self.number << self.tree.height()) + at
    }

    /// Reads `count` records from number `at` on, or as many as there are whole numbers of bytes for.
    pub(crate) fn read(&self, at: u64, count: usize) -> Result<Vec<Record>, Error> {
        let mut records = vec![Record::zeroed(); count];
        let file = self.file()?;
        let read = read_at(&file, offset(at), bytemuck::cast_slice_mut(&mut records));
        records.truncate(read.map_err(Error::io("read", &self.path))? / RECORD_BYTES);
        Ok(records)
    }

    /// Bytes of its file.
    pub(crate) fn bytes(&self) -> Result<u64, Error> {
        Ok(self.file()?.metadata().map_err(Error::io("look at", &self.path))?.len())
    }

    /// What its file begins with.
    pub(crate) fn header(&self) -> Result<Result<Header, Flaw>, Error> {
        let mut bytes = [0; HEADER_BYTES as usize];
        let file = self.file()?;
        let read = read_at(&file, 0, &mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(Header::read_segment(&bytes[..read], self.number))
    }

    /// The error that records read from number `at` on are not those that were written.
    pub(crate) fn damage(&self, records: &[Record], at: u64) -> Error {
        let (index, flaw) = match self.flaw_in(records, at) {
            Some((index, flaw)) => (Some(index), flaw),
            None => (None, Flaw::Root),
        };
        Error::damaged(&self.path, index, flaw)
    }

    fn flaw_in(&self, records: &[Record], at: u64) -> Option<(u64, Flaw)> {
        (self.index(at)..).zip(records).find_map(|(index, record)| Some((index, record.check(index).err()?)))
    }

    fn file(&self) -> Result<Arc<File>, Error> {
        let mut slot = self.slot();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(&self.path).map_err(Error::io("open", &self.path))?);
        Ok(Arc::clone(slot.insert(file)))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
