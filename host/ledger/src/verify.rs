//! The full check of a ledger, from disk: nothing that is already open is trusted.

use std::path::{Path, PathBuf};

use crate::error::{Error, Flaw};
use crate::merkle::Hash;
use crate::record::{RECORD_BYTES, Record};
use crate::roots::{self, Roots};
use crate::segment::{self, Segment, offset};
use crate::tree::{Levels, Subtree, root_of_all};
use crate::view;

/// What a full check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Index of the first record that has not been removed.
    pub first: u64,
    /// Records, of those that have been removed, too.
    pub size: u64,
    /// The root over all records, the last segment's as they are; `None` where that of a full segment is lost.
    pub root: Option<Hash>,
    /// What is wrong, by segment and index; faults of the roots file come first.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Whether everything is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {flaw}", file.display(), index.map(|index| format!(", record {index}")).unwrap_or_default())]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The number of the segment that it is about.
    pub segment: Option<u64>,
    /// Index of the record, where one is to blame.
    pub index: Option<u64>,
    /// What is wrong.
    pub flaw: Flaw,
}

/// Reads a whole ledger, and checks every record, every header, and every root that was kept against the records that
/// it stands over. Roots of segments that have been removed are checked by their sums alone.
///
/// It takes no lock: beside a writer, what is being appended at the moment may show as torn.
///
/// # Errors
/// [`Error::Io`] where something cannot be read at all. What is damaged is in the report.
pub fn verify(folder: impl AsRef<Path>) -> Result<Report, Error> {
    let folder = folder.as_ref();
    let roots = Roots::read(folder)?;
    let numbers = segment::list(folder)?;
    let mut check = Check { folder, faults: Vec::new(), upper: Some(Levels::default()) };
    if let Err(flaw) = &roots.header {
        check.blame_roots(None, flaw.clone());
    }
    let Some(height) = view::height(folder, Some(&roots))? else {
        return Ok(Report { first: 0, size: 0, root: None, faults: check.faults });
    };
    let first = numbers.first().copied().unwrap_or(0);
    let end = numbers.last().map_or(0, |last| last + 1).max(roots.entries.len() as u64);
    for (segment, entry) in (0..end).zip(roots.entries.iter()) {
        if entry.is_none() {
            check.blame_roots(Some(segment), Flaw::Entry { segment });
        }
    }
    let mut tail = Subtree::over(height, &[]);
    for number in 0..end {
        let is_last = number + 1 == end;
        let kept = roots.entries.get(number as usize).copied();
        if kept.is_none() && !is_last {
            check.blame_roots(Some(number), Flaw::NoEntry { segment: number });
        }
        let kept = kept.flatten();
        let tree = if number < first { None } else { check.segment(number, height, kept, is_last)? };
        match kept.or(tree.as_ref().and_then(Subtree::root)) {
            Some(root) => check.upper.iter_mut().for_each(|upper| upper.push(root)),
            None if !is_last => check.upper = None,
            None => {}
        }
        tail = tree.unwrap_or(tail);
    }
    let size = if end == 0 { 0 } else { ((end - 1) << height) + tail.len() };
    let root = check.upper.map(|upper| root_of_all(&upper, &tail));
    Ok(Report { first: first << height, size, root, faults: check.faults })
}

struct Check<'a> {
    folder: &'a Path,
    faults: Vec<Fault>,
    /// Over the roots of full segments; `None` once one is lost.
    upper: Option<Levels>,
}

impl Check<'_> {
    /// Checks one segment's file. `kept` is the root over it, where the roots file has it.
    fn segment(
        &mut self,
        number: u64,
        height: u32,
        kept: Option<Hash>,
        is_last: bool,
    ) -> Result<Option<Subtree>, Error> {
        let segment = Segment::empty(self.folder, number, height);
        let read = segment.header().and_then(|header| Ok((header, segment.bytes()?, segment.read(0, 1 << height)?)));
        let (header, bytes, records) = match read {
            Err(error) if error.is_not_found() => {
                self.blame(&segment, None, Flaw::Missing);
                return Ok(None);
            }
            read => read?,
        };
        if let Some(flaw) = flaw_of(&header.map(|header| header.height), height) {
            self.blame(&segment, None, flaw);
        }
        let before = self.faults.len();
        self.records(&segment, &records);
        let (found, expected) = (records.len() as u64, 1 << height);
        let torn = bytes.saturating_sub(offset(found));
        if found < expected && torn > 0 && bytes > offset(0) {
            self.blame(&segment, Some(segment.index(found)), Flaw::Torn { bytes: torn });
        } else if torn > 0 && found == expected {
            let found = (bytes - offset(0)).div_ceil(RECORD_BYTES as u64);
            self.blame(&segment, None, Flaw::Records { found, expected });
        }
        if found < expected && (!is_last || kept.is_some()) {
            self.blame(&segment, None, Flaw::Records { found, expected });
        }
        let tree = Subtree::over(height, &records);
        // Where a record is at fault, the root must be another, and says nothing new.
        if kept.is_some() && tree.root() != kept && self.faults.len() == before {
            self.blame(&segment, None, Flaw::Root);
        }
        Ok(Some(tree))
    }

    fn records(&mut self, segment: &Segment, records: &[Record]) {
        for (index, record) in (segment.index(0)..).zip(records) {
            if let Err(flaw) = record.check(index) {
                self.blame(segment, Some(index), flaw);
            }
        }
    }

    fn blame(&mut self, segment: &Segment, index: Option<u64>, flaw: Flaw) {
        self.faults.push(Fault { file: segment.path().to_owned(), segment: Some(segment.number), index, flaw });
    }

    fn blame_roots(&mut self, segment: Option<u64>, flaw: Flaw) {
        self.faults.push(Fault { file: self.folder.join(roots::FILE), segment, index: None, flaw });
    }
}

/// What is wrong with a segment's header, in a ledger whose segments are of `height`.
fn flaw_of(header: &Result<u32, Flaw>, height: u32) -> Option<Flaw> {
    match header {
        Ok(found) => (*found != height).then_some(Flaw::Foreign),
        Err(flaw) => Some(flaw.clone()),
    }
}
