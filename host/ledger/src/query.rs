//! Records in order, all or those that were asked for.

use std::ops::Range;

use crate::error::{Error, Flaw};
use crate::record::{Kind, Record};
use crate::view::LedgerView;

/// Records that are read at a time: 128 KiB.
const AT_A_TIME: u64 = 1024;

/// Which records are wanted: those for which everything that is set holds. By default, all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// FNV-1a 64 of a tenant's name.
    pub tenant: Option<u64>,
    /// Unix nanoseconds; no record before it.
    pub since_ns: Option<u64>,
    /// Unix nanoseconds; no record from it on.
    pub until_ns: Option<u64>,
    /// The operation of the job.
    pub opcode: Option<u16>,
    /// The kind of event.
    pub kind: Option<Kind>,
    /// The first so many.
    pub limit: Option<usize>,
}

impl Query {
    fn matches(&self, record: &Record) -> bool {
        self.tenant.is_none_or(|tenant| record.tenant() == tenant)
            && self.kind.is_none_or(|kind| record.kind() == kind)
            && self.since_ns.is_none_or(|since| record.timestamp_ns() >= since)
            && self.until_ns.is_none_or(|until| record.timestamp_ns() < until)
            && self.opcode.is_none_or(|opcode| record.entry().opcode == opcode)
    }
}

/// Records in order; see [`LedgerView::read`] and [`LedgerView::query`].
///
/// A record that is not as it was written is an [`Error::Damaged`], and those behind it go on; of what was damaged
/// nobody can tell whether a query asked for it. Any other error is the last item.
#[derive(Debug)]
pub struct Records<'a> {
    view: &'a LedgerView,
    query: Query,
    left: usize,
    /// What has not been read from the file.
    range: Range<u64>,
    buffer: std::vec::IntoIter<Record>,
    /// Index of the buffer's next.
    next: u64,
}

impl<'a> Records<'a> {
    pub(crate) fn new(view: &'a LedgerView, range: Range<u64>, query: Query) -> Self {
        let left = query.limit.unwrap_or(usize::MAX);
        Self { view, query, left, next: range.start, range, buffer: Vec::new().into_iter() }
    }

    /// Fills the buffer from the segment that the next record is in.
    fn fill(&mut self) -> Result<(), Error> {
        let Range { start, end } = self.range;
        let segment = self.view.segment_records();
        let border = (start / segment + 1).saturating_mul(segment);
        let count = end.min(border).min(start + AT_A_TIME) - start;
        let records = self.view.read_some(start, count as usize)?;
        if (records.len() as u64) < count {
            let flaw = Flaw::Records { found: (start + records.len() as u64) % segment, expected: segment };
            return Err(Error::damaged(&self.view.path_of(start), None, flaw));
        }
        (self.next, self.range.start, self.buffer) = (start, start + count, records.into_iter());
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let Some(record) = self.buffer.next() else {
                if self.range.is_empty() {
                    return None;
                }
                if let Err(error) = self.fill() {
                    self.left = 0;
                    return Some(Err(error));
                }
                continue;
            };
            let index = self.next;
            self.next += 1;
            if let Err(flaw) = record.check(index) {
                return Some(Err(Error::damaged(&self.view.path_of(index), Some(index), flaw)));
            }
            if self.query.matches(&record) {
                self.left -= 1;
                return Some(Ok(record));
            }
        }
        None
    }
}
