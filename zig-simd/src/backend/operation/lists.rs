//! Where candidate lists go: a header and a run of cells for each query, written by whichever worker finishes that
//! query.

use megaring_core::lists::{self, Candidate, ListHeader, ListWriter};
use megaring_ring::Status;

use crate::backend::memory::JobSlice;
use crate::backend::plan::Inputs;

/// The result region of a search or nearest job.
#[derive(Clone, Copy)]
pub(crate) struct Lists {
    headers: JobSlice<ListHeader>,
    cells: JobSlice<Candidate>,
    capacity: usize,
}

impl Lists {
    /// Lays the lists over the job's result region.
    pub(crate) fn new(inputs: &Inputs) -> Result<Self, Status> {
        let items = inputs.items();
        let capacity = lists::capacity(items, inputs.result.len());
        let headers = inputs.output(0, items)?;
        let cells = inputs.output(items * size_of::<ListHeader>(), items * capacity)?;
        Ok(Self { headers, cells, capacity })
    }

    /// Candidates that fit for one query.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The list of one query.
    ///
    /// # Safety
    /// The job is not completed while the writer lives, and no other writer of the same query exists meanwhile.
    pub(crate) unsafe fn writer<'a>(&self, query: usize) -> Option<ListWriter<'a>> {
        // SAFETY: lists of different queries do not overlap; the caller promises that this query's list is written by
        // one worker only, before the job's completion.
        let (headers, cells) = unsafe {
            (
                self.headers.range_mut(query..query + 1),
                self.cells.range_mut(query * self.capacity..(query + 1) * self.capacity),
            )
        };
        headers.first_mut().map(|header| ListWriter { header, cells })
    }
}
