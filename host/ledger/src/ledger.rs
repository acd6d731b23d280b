//! The ledger as its one writer has it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::{fs, panic, thread};

use megaring_ring::event_ring::Event;
use rayon::prelude::*;

use crate::disk::{Disk, System};
use crate::error::{AppendError, Error};
use crate::lock::Lock;
use crate::merkle::Hash;
use crate::query::{Query, Records};
use crate::record::{RECORD_DATA_BYTES, Record};
use crate::roots::{Roots, RootsFile};
use crate::segment::SEGMENT_LEVELS;
use crate::tree::Hashed;
use crate::view::{self, LedgerView};
use crate::writer::Writer;

/// How a ledger is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Binary logarithm of the records of a full segment: 4 to 24. A ledger keeps what it was made with, whatever it is
    /// opened with.
    pub segment_levels: u32,
}

impl Default for Options {
    /// 65,536 records a segment, which are 8 MiB.
    fn default() -> Self {
        Self { segment_levels: 16 }
    }
}

/// A ledger that is appended to; see the [crate](crate).
///
/// What is appended can be read at once, here and by views, and lasts over the end of the process. Over a crash of the
/// machine lasts what was [synced](Self::sync): one sync serves all appends before it.
#[derive(Debug)]
pub struct Ledger {
    view: LedgerView,
    writer: Writer,
    _lock: Lock,
}

impl Ledger {
    /// Opens the ledger in a folder for writing, and makes it where there is none. Of the segments only the last is
    /// read.
    ///
    /// What a crash left behind the last whole record is cut off. A record that is not as it was written and has whole
    /// ones behind it was damaged by something else: it stays, with those behind it, and [`verify`](crate::verify)
    /// names it. Damage of the very last record cannot be told from a crash.
    ///
    /// # Errors
    /// [`Error::SegmentSize`]; [`Error::InUse`]; [`Error::Io`], and [`Error::Sync`] where what was found cannot be made
    /// to last; [`Error::Damaged`] where a full segment is cut short or missing, or a root is lost.
    pub fn open(folder: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Self::open_on(folder, options, Arc::new(System))
    }

    /// [`Self::open`] on something else than the system's own calls.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(folder: impl AsRef<Path>, options: Options, disk: Arc<dyn Disk>) -> Result<Self, Error> {
        let (folder, levels) = (folder.as_ref(), options.segment_levels);
        if !SEGMENT_LEVELS.contains(&levels) {
            return Err(Error::SegmentSize(levels));
        }
        fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
        let lock = Lock::take(folder)?;
        let roots = match Roots::read(folder) {
            Err(error) if error.is_not_found() => None,
            roots => Some(roots?),
        };
        let height = view::height(folder, roots.as_ref())?.unwrap_or(levels);
        let known = roots.as_ref().map_or(&[][..], Roots::whole);
        let view = LedgerView::load(folder, height, known)?;
        let file = match roots {
            Some(_) => RootsFile::open(folder, &disk, height, known.len())?,
            None => RootsFile::create(folder, &disk, height, &[])?,
        };
        let writer = Writer::open(&view, disk, file)?;
        Ok(Self { view, writer, _lock: lock })
    }

    /// Appends a record of each event; their indices. Hashing is shared out over all processors where there are many,
    /// and goes on while records are written.
    ///
    /// A full segment is synced before the next is begun, so that a long append waits for the disk now and then.
    ///
    /// # Errors
    /// [`AppendError`] says how many were appended, and why no more: [`Error::DataTooLong`], in which case none was,
    /// [`Error::Io`] or [`Error::Sync`]. What came through of the first record that was not is cut off by the next
    /// append, which goes on behind the last that was.
    pub fn append(&mut self, events: &[Event]) -> Result<Range<u64>, AppendError> {
        let start = self.size();
        if let Some(position) = events.iter().position(|event| event.data().len() > RECORD_DATA_BYTES) {
            let len = events[position].data().len();
            return Err(AppendError { appended: start..start, source: Error::DataTooLong { position, len } });
        }
        let mut rest = events;
        let mut index = start;
        let height = self.view.height();
        let mut next = Batch::take(&mut rest, &mut index, height);
        while let Some(batch) = next.take() {
            let written;
            (written, next) = self.write_and_take(&batch, &mut rest, &mut index);
            match written {
                Ok(()) => self.view.extend(batch.hashed),
                Err((whole, source)) => {
                    let at = batch.index & (self.view.segment_records() - 1);
                    if whole > 0 {
                        self.view.extend(Hashed::of(height, &batch.records[..whole], at));
                    }
                    return Err(AppendError { appended: start..self.size(), source });
                }
            }
        }
        Ok(start..self.size())
    }

    /// Makes all records last over a crash of the machine; returns at once where they do. How many they are.
    ///
    /// # Errors
    /// [`Error::Sync`] says which are not known to. They are not lost yet, and the next sync writes their segment anew,
    /// for the system may have dropped what it could not write. [`Error::Damaged`] where it has.
    pub fn sync(&mut self) -> Result<u64, Error> {
        self.writer.sync(&self.view)?;
        Ok(self.size())
    }

    /// Leading records that are known to last over a crash of the machine.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.writer.durable()
    }

    /// Removes the oldest segments but for the last `segments` (at least one stays); how many records are gone by this.
    /// Their segments' roots stay: the tree's root is what it was, and there are proofs for what is left.
    ///
    /// # Errors
    /// [`Error::Io`]. Segments that could not be removed are taken up by the next call.
    pub fn retain(&mut self, segments: u64) -> Result<u64, Error> {
        let before = self.view.first();
        let (from, last) = (before >> self.view.height(), self.view.tail().number);
        let to = (last + 1).saturating_sub(segments.max(1));
        if to > from {
            self.writer.remove(&self.view, from, to)?;
            self.view.remove_before(to);
        }
        Ok(self.view.first() - before)
    }

    /// What is there, as readers see it.
    #[must_use]
    pub fn view(&self) -> &LedgerView {
        &self.view
    }

    /// Records, and leaves of the tree: those that have been removed count.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.view.size()
    }

    /// Index of the first record that has not been removed.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.view.first()
    }

    /// [`LedgerView::root`].
    #[must_use]
    pub fn root(&self) -> Hash {
        self.view.root()
    }

    /// [`LedgerView::root_at`].
    ///
    /// # Errors
    /// As there.
    pub fn root_at(&self, size: u64) -> Result<Hash, Error> {
        self.view.root_at(size)
    }

    /// [`LedgerView::inclusion`].
    ///
    /// # Errors
    /// As there.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
        self.view.inclusion(index, size)
    }

    /// [`LedgerView::consistency`].
    ///
    /// # Errors
    /// As there.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
        self.view.consistency(old, new)
    }

    /// [`LedgerView::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, range: Range<u64>) -> Result<Records<'_>, Error> {
        self.view.read(range)
    }

    /// [`LedgerView::query`].
    #[must_use]
    pub fn query(&self, query: Query) -> Records<'_> {
        self.view.query(query)
    }

    /// Writes a batch, and makes the next ready meanwhile, if there is one.
    fn write_and_take(
        &mut self,
        batch: &Batch,
        rest: &mut &[Event],
        index: &mut u64,
    ) -> (Result<(), (usize, Error)>, Option<Batch>) {
        let (view, writer) = (&self.view, &mut self.writer);
        if rest.is_empty() {
            return (writer.write(view, &batch.records), None);
        }
        // A thread of its own, since it mostly waits for the disk, and rayon's are to hash.
        thread::scope(|scope| {
            let writing = scope.spawn(|| writer.write(view, &batch.records));
            let next = Batch::take(rest, index, view.height());
            (writing.join().unwrap_or_else(|panic| panic::resume_unwind(panic)), next)
        })
    }
}

/// Records of one segment, ready to be written.
struct Batch {
    /// Of the first.
    index: u64,
    records: Vec<Record>,
    hashed: Hashed,
}

/// The most records of a batch: 2 MiB, which is little beside what is in flight to a disk, and much beside the start of
/// a thread.
const BATCH: usize = 1 << 14;

/// Records that are made sooner than other threads are woken.
const FEW: usize = 1024;

impl Batch {
    /// Takes the events for which the segment of `index` has room, but no more than [`BATCH`].
    fn take(events: &mut &[Event], index: &mut u64, height: u32) -> Option<Self> {
        let at = *index & ((1 << height) - 1);
        let room = ((1 << height) - at) as usize;
        let (taken, rest) = events.split_at(events.len().min(room).min(BATCH));
        if taken.is_empty() {
            return None;
        }
        let first = *index;
        let seal = |(at, event)| Record::seal(first + at as u64, event);
        let records: Vec<Record> = if taken.len() < FEW {
            taken.iter().enumerate().map(seal).collect()
        } else {
            taken.par_iter().enumerate().with_min_len(FEW / 2).map(seal).collect()
        };
        let hashed = Hashed::of(height, &records, at);
        (*events, *index) = (rest, first + taken.len() as u64);
        Some(Self { index: first, records, hashed })
    }
}
