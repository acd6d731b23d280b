//! What comes out of a job: the answer, and how it was made.

use std::time::Duration;

use megaring_core::BackendKind;

/// A finished job.
#[derive(Debug, Clone)]
pub struct Outcome<A> {
    /// The answer, in the order of the job's items.
    pub answer: A,
    /// How it was made.
    pub made: Made,
}

/// How an answer was made: the part of every reply that says why it can be trusted and where the time went.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The backend that did the work.
    pub backend: BackendKind,
    /// Its instruction set or architecture.
    pub instruction_set: String,
    /// Whether ids, order and scores are those of the definition. Always true: whatever a screen left open was
    /// rescored.
    pub exact: bool,
    /// Rows whose exact score was computed.
    pub rows_rescored: u64,
    /// Bytes of rows, codes or texts that were read, as planned: a corpus's codes count once a slot,
    /// though a slot of many queries passes over them several times, in the cache.
    pub bytes_read: u64,
    /// From admission to the last answer, less compute and rescoring: waiting in queues and being passed along.
    pub queue: Duration,
    /// On the backend, from a slot being taken to its completion, summed over slots.
    pub compute: Duration,
    /// Making candidates exact where the backend has not, or masks coordinates, summed over slots.
    pub rescore: Duration,
    /// Queries of other calls that were done in the same batch. Where there are any, the bytes read and the times of
    /// compute and rescoring are the whole batch's.
    pub batched_with: u32,
}

impl Made {
    /// What so many items of it took of compute and rescoring, where others were done in the same batch.
    #[must_use]
    pub(crate) fn share(&self, items: u64) -> Duration {
        let whole = (self.compute + self.rescore).as_nanos();
        let all = u128::from(items) + u128::from(self.batched_with);
        let share = whole * u128::from(items) / all.max(1);
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// How two jobs were made, one after the other, as if they were one.
    #[must_use]
    pub fn after(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        Self {
            exact: before.exact && self.exact,
            rows_rescored: before.rows_rescored + self.rows_rescored,
            bytes_read: before.bytes_read + self.bytes_read,
            queue: before.queue + self.queue,
            compute: before.compute + self.compute,
            rescore: before.rescore + self.rescore,
            batched_with: before.batched_with.saturating_add(self.batched_with),
            ..self
        }
    }
}
