//! Reading a ledger: the tree's roots and proofs, and the records.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Flaw};
use crate::merkle::{Hash, leaf_hashes};
use crate::query::{Query, Records};
use crate::record::Record;
use crate::roots::{self, Roots};
use crate::segment::{self, Segment};
use crate::tree::{self, Hashed, Levels, Nodes};

/// Full segments of which nodes are kept in memory, those last used: 128 KiB each, of 65,536 records.
const WARM_SEGMENTS: usize = 32;

/// A ledger as read, from any process, also while a writer is at work. It sees whole records alone, of the moment when
/// it was opened or last [refreshed](Self::refresh).
///
/// In memory are the roots of all full segments and the nodes over them (64 bytes a segment), and of the last segment
/// and of the full ones used last the nodes over each 32 records. What is below is read and hashed anew, and compared
/// with what is above: no proof comes from records that are not those that were written.
#[derive(Debug)]
pub struct LedgerView {
    folder: PathBuf,
    height: u32,
    /// The first segment that has not been removed.
    first: u64,
    /// Over the roots of all full segments, the tail included where it is full.
    upper: Levels,
    /// The last segment that has records; segment 0 where there is none.
    tail: Segment,
    /// The last used comes last.
    warm: Mutex<VecDeque<Arc<Segment>>>,
}

impl LedgerView {
    /// Opens the ledger in a folder for reading. Of the segments, only the last is read.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] where a full segment is cut short or missing, or a root is lost.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let roots = Roots::read(folder)?;
        let height = height(folder, Some(&roots))?.ok_or_else(|| unreadable(folder))?;
        Self::load(folder, height, roots.whole())
    }

    /// Takes in what has been appended since; how many records there are now.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn refresh(&mut self) -> Result<u64, Error> {
        // The writer puts another file in its place when a sync has failed.
        self.tail.reopen();
        loop {
            match self.read_tail(None) {
                Ok(()) => {}
                Err(error) if error.is_not_found() => break,
                Err(error) => return Err(error),
            }
            if !self.tail.tree.is_full() || !segment::path(&self.folder, self.tail.number + 1).exists() {
                break;
            }
            self.begin_segment();
        }
        let numbers = segment::list(&self.folder)?;
        if numbers.last().is_some_and(|last| *last > self.tail.number) {
            // Segments that were next have been removed already.
            *self = Self::open(&self.folder)?;
        }
        self.first = numbers.first().map_or(self.first, |first| self.first.max(*first));
        Ok(self.size())
    }

    /// Records, and leaves of the tree: those that have been removed count.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tail.index(self.tail.tree.len())
    }

    /// Index of the first record that has not been removed.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first << self.height
    }

    /// Records of a full segment.
    #[must_use]
    pub fn segment_records(&self) -> u64 {
        1 << self.height
    }

    /// The root over all records.
    #[must_use]
    pub fn root(&self) -> Hash {
        tree::root_of_all(&self.upper, &self.tail.tree)
    }

    /// The root over the first `size` records, as it was when there were no more.
    ///
    /// # Errors
    /// [`Error::Beyond`]; [`Error::Removed`] where that root is not on the border of segments, and within one that has
    /// been removed; [`Error::Io`] and [`Error::Damaged`] of the segment.
    pub fn root_at(&self, size: u64) -> Result<Hash, Error> {
        self.check_size(size)?;
        tree::root(&mut Lookup::new(self), size)
    }

    /// The proof that record `index` is in the tree over the first `size` records (RFC 6962, section 2.1.1): the
    /// siblings from the leaf up, as [`verify_inclusion`](crate::verify_inclusion) takes them.
    ///
    /// # Errors
    /// As [`Self::root_at`].
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
        self.check_size(size)?;
        if index >= size {
            return Err(Error::Beyond { wanted: index, size });
        }
        self.check_kept(index)?;
        tree::inclusion(&mut Lookup::new(self), index, size)
    }

    /// The proof that the tree over the first `old` records is what that over the first `new` began with (RFC 6962,
    /// section 2.1.2), as [`verify_consistency`](crate::verify_consistency) takes it. It is empty where `old` is 0 or
    /// `new`.
    ///
    /// # Errors
    /// As [`Self::root_at`].
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
        self.check_size(new)?;
        if old > new {
            return Err(Error::Beyond { wanted: old, size: new });
        }
        tree::consistency(&mut Lookup::new(self), old, new)
    }

    /// The records of these indices, in order.
    ///
    /// # Errors
    /// [`Error::Beyond`], [`Error::Removed`]. What cannot be read, or is not as it was written, is an item.
    pub fn read(&self, range: Range<u64>) -> Result<Records<'_>, Error> {
        self.check_size(range.end.max(range.start))?;
        if !range.is_empty() {
            self.check_kept(range.start)?;
        }
        Ok(Records::new(self, range, Query::default()))
    }

    /// The records that have not been removed and that `query` asks for, in order.
    #[must_use]
    pub fn query(&self, query: Query) -> Records<'_> {
        Records::new(self, self.first()..self.size(), query)
    }

    /// Reads a folder of which these roots are `known`. A root that is not is computed from the segment.
    pub(crate) fn load(folder: &Path, height: u32, known: &[Option<Hash>]) -> Result<Self, Error> {
        let numbers = segment::list(folder)?;
        let (first, last) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
        let full = known.len() as u64;
        if full > last + 1 || (full > 0 && numbers.is_empty()) {
            return Err(Error::damaged(&segment::path(folder, full - 1), None, Flaw::Missing));
        }
        let mut upper = Levels::default();
        let mut known = known.iter().copied();
        for number in 0..last {
            let root = match known.next().flatten() {
                Some(root) => Some(root),
                None if number >= first => Segment::full(folder, number, height, None)?.tree.root(),
                None => None,
            };
            let lost = || Error::damaged(&folder.join(roots::FILE), None, Flaw::NoEntry { segment: number });
            upper.push(root.ok_or_else(lost)?);
        }
        let tail = Segment::empty(folder, last, height);
        let mut view = Self { folder: folder.to_owned(), height, first, upper, tail, warm: Mutex::default() };
        if !numbers.is_empty() {
            view.read_tail(known.next().flatten())?;
        }
        Ok(view)
    }

    /// The roots of all full segments.
    pub(crate) fn roots(&self) -> &[Hash] {
        self.upper.lowest()
    }

    /// The last segment that has records.
    pub(crate) fn tail(&self) -> &Segment {
        &self.tail
    }

    /// The ledger's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Binary logarithm of a full segment's records.
    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    /// Takes in records that were hashed for the end of the ledger.
    pub(crate) fn extend(&mut self, hashed: Hashed) {
        if self.tail.tree.is_full() {
            self.begin_segment();
        }
        self.tail.tree.extend(hashed);
        self.upper_if_full(None);
    }

    /// Segments before this one have been removed.
    pub(crate) fn remove_before(&mut self, segment: u64) {
        self.first = segment;
        self.warm().retain(|warm| warm.number >= segment);
    }

    /// Records of one segment from `index` on, at most `count`. Fewer are there only where the file is cut short.
    pub(crate) fn read_some(&self, index: u64, count: usize) -> Result<Vec<Record>, Error> {
        let (number, at) = (index >> self.height, index & (self.segment_records() - 1));
        if number == self.tail.number {
            return self.tail.read(at, count);
        }
        self.read_cold(number, at, count)
    }

    /// The path of the segment that holds `index`.
    pub(crate) fn path_of(&self, index: u64) -> PathBuf {
        segment::path(&self.folder, index >> self.height)
    }

    /// Reads without the nodes, which a full segment has to be hashed for.
    fn read_cold(&self, number: u64, at: u64, count: usize) -> Result<Vec<Record>, Error> {
        match self.held(number) {
            Some(segment) => segment.read(at, count),
            None => Segment::empty(&self.folder, number, self.height).read(at, count),
        }
    }

    /// Takes in whole records of the tail's file behind those that are known. `root` is what the roots file says of it.
    fn read_tail(&mut self, root: Option<Hash>) -> Result<(), Error> {
        if self.tail.tree.is_full() {
            return Ok(());
        }
        let at = self.tail.tree.len();
        let records = self.tail.read(at, (self.segment_records() - at) as usize)?;
        let whole = match root {
            // It was full once: nothing of it is what a crash left.
            Some(_) => records.len(),
            None => segment::whole(&records, self.tail.index(at)),
        };
        self.tail.tree.extend(Hashed::of(self.height, &records[..whole], at));
        if root.is_some() && !self.tail.tree.is_full() {
            let flaw = Flaw::Records { found: self.tail.tree.len(), expected: self.segment_records() };
            return Err(Error::damaged(self.tail.path(), None, flaw));
        }
        self.upper_if_full(root);
        Ok(())
    }

    /// Takes the root of a tail that has just become full into the nodes above: the one that is known, if any.
    fn upper_if_full(&mut self, root: Option<Hash>) {
        if let Some(root) = root.or(self.tail.tree.root()).filter(|_| self.tail.tree.is_full()) {
            self.upper.push(root);
        }
    }

    /// Makes the segment behind a full tail the tail.
    fn begin_segment(&mut self) {
        let next = Segment::empty(&self.folder, self.tail.number + 1, self.height);
        let full = std::mem::replace(&mut self.tail, next);
        self.keep_warm(Arc::new(full));
    }

    /// A full segment of which nodes are in memory; it is now the one used last.
    fn held(&self, number: u64) -> Option<Arc<Segment>> {
        let mut warm = self.warm();
        let at = warm.iter().rposition(|segment| segment.number == number)?;
        if at + 1 < warm.len() {
            let segment = warm.remove(at)?;
            warm.push_back(segment);
        }
        warm.back().map(Arc::clone)
    }

    fn keep_warm(&self, segment: Arc<Segment>) {
        let mut warm = self.warm();
        warm.retain(|other| other.number != segment.number);
        if warm.len() == WARM_SEGMENTS {
            warm.pop_front();
        }
        warm.push_back(segment);
    }

    fn warm(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Segment>>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands `look` a segment with its nodes, which are those that its root was made of.
    fn look<T>(&self, number: u64, look: impl FnOnce(&Segment) -> Result<T, Error>) -> Result<T, Error> {
        let root = self.upper.node(0, number);
        let is_sound = |segment: &Segment| root.is_none() || segment.tree.root() == root;
        if number == self.tail.number && is_sound(&self.tail) {
            return look(&self.tail);
        }
        if let Some(segment) = self.held(number).filter(|segment| is_sound(segment)) {
            return look(&segment);
        }
        let segment = Arc::new(Segment::full(&self.folder, number, self.height, root)?);
        self.keep_warm(Arc::clone(&segment));
        look(&segment)
    }

    fn check_size(&self, size: u64) -> Result<(), Error> {
        if size <= self.size() { Ok(()) } else { Err(Error::Beyond { wanted: size, size: self.size() }) }
    }

    fn check_kept(&self, index: u64) -> Result<(), Error> {
        if index >= self.first() { Ok(()) } else { Err(Error::Removed { first: self.first() }) }
    }
}

/// Binary logarithm of a full segment's records, as the files have it: the roots file, or where its header is damaged
/// or it is missing, the first segment that tells. `None` where there is nothing to tell.
pub(crate) fn height(folder: &Path, roots: Option<&Roots>) -> Result<Option<u32>, Error> {
    match roots.map(|roots| &roots.header) {
        Some(Ok(header)) => return Ok(Some(header.height)),
        Some(Err(Flaw::Header)) | None => {}
        Some(Err(flaw)) => return Err(Error::damaged(&folder.join(roots::FILE), None, flaw.clone())),
    }
    for number in segment::list(folder)? {
        if let Ok(Ok(header)) = Segment::empty(folder, number, 0).header() {
            return Ok(Some(header.height));
        }
    }
    Ok(None)
}

fn unreadable(folder: &Path) -> Error {
    Error::damaged(&folder.join(roots::FILE), None, Flaw::Header)
}

/// The nodes of a view's tree, and for the time of one question those of the blocks that it had to read.
struct Lookup<'a> {
    view: &'a LedgerView,
    /// With the index of each block's first record.
    blocks: Vec<(u64, Levels)>,
}

impl<'a> Lookup<'a> {
    fn new(view: &'a LedgerView) -> Self {
        Self { view, blocks: Vec::new() }
    }

    /// A node within a block of the segment.
    fn in_block(&mut self, segment: &Segment, level: u32, index: u64) -> Result<Option<Hash>, Error> {
        let block_level = segment.tree.block_level();
        let block = index >> (block_level - level);
        let first = segment.index(block << block_level);
        let within = index & ((1 << (block_level - level)) - 1);
        if let Some((_, levels)) = self.blocks.iter().find(|(known, _)| *known == first) {
            return Ok(levels.node(level, within));
        }
        let levels = block_levels(segment, block)?;
        let node = levels.node(level, within);
        self.blocks.push((first, levels));
        Ok(node)
    }
}

impl Nodes for Lookup<'_> {
    fn node(&mut self, level: u32, index: u64) -> Result<Hash, Error> {
        let view = self.view;
        let beyond = || Error::Beyond { wanted: (index + 1) << level, size: view.size() };
        let Some(below) = view.height.checked_sub(level).filter(|below| *below > 0) else {
            return view.upper.node(level - view.height, index).ok_or_else(beyond);
        };
        let (number, index) = (index >> below, index & ((1 << below) - 1));
        view.check_kept(number << view.height)?;
        view.look(number, |segment| {
            let node = if level >= segment.tree.block_level() {
                segment.tree.node(level, index)
            } else {
                self.in_block(segment, level, index)?
            };
            node.ok_or_else(beyond)
        })
    }
}

/// All nodes of a block: of the open one from its leaves, of another from its records, which must be those that the
/// node over them was made of.
fn block_levels(segment: &Segment, block: u64) -> Result<Levels, Error> {
    if let Some(leaves) = segment.tree.open_block(block) {
        return Ok(Levels::over(leaves.to_vec()));
    }
    let level = segment.tree.block_level();
    let records = segment.read(block << level, 1 << level)?;
    let levels = Levels::over(leaf_hashes(&records));
    if levels.node(level, 0) == segment.tree.node(level, block) {
        Ok(levels)
    } else {
        Err(segment.damage(&records, block << level))
    }
}
