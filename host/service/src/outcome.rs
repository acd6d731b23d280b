//! What comes out of a job: the answer, and how it was made.

use std::time::Duration;

use megaring_core::encode::Encoded;
use megaring_core::nearest::Neighbour;
use megaring_core::rescore::Ranked;
use megaring_core::{BackendKind, Opcode};

/// A finished job.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The answer, in the order of the job's items.
    pub answer: Answer,
    /// How it was made.
    pub made: Made,
}

/// Answers, by operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Of a nop.
    Nothing,
    /// One ranking per query.
    Hits(Vec<Ranked>),
    /// Scores of all pairs, row-major, one query after the other.
    Scores {
        /// Rows scored for each query.
        rows: usize,
        /// `queries * rows` scores.
        values: Vec<f32>,
    },
    /// One point per memory.
    Encoded(Vec<Encoded>),
    /// The nearest points of each query.
    Neighbours(Vec<Vec<Neighbour>>),
}

impl Answer {
    /// The answer of an empty batch.
    #[must_use]
    pub fn empty(opcode: Opcode, rows: usize) -> Self {
        match opcode {
            Opcode::Nop => Self::Nothing,
            Opcode::Search => Self::Hits(Vec::new()),
            Opcode::Score => Self::Scores { rows, values: Vec::new() },
            Opcode::Encode => Self::Encoded(Vec::new()),
            Opcode::Nearest => Self::Neighbours(Vec::new()),
        }
    }

    /// Joins the answer of the next items of the same job.
    pub fn extend(&mut self, next: Self) {
        match (self, next) {
            (Self::Hits(all), Self::Hits(next)) => all.extend(next),
            (Self::Scores { values, .. }, Self::Scores { values: next, .. }) => values.extend(next),
            (Self::Encoded(all), Self::Encoded(next)) => all.extend(next),
            (Self::Neighbours(all), Self::Neighbours(next)) => all.extend(next),
            (this, next) => *this = next,
        }
    }
}

/// How an answer was made: the part of every reply that says why it can be trusted and where the time went.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The backend that did the work.
    pub backend: BackendKind,
    /// Its instruction set or architecture.
    pub instruction_set: String,
    /// Whether ids, order and scores are those of the definition. Always true: whatever a screen left open was rescored.
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
    /// Making candidates exact, or masks coordinates, summed over slots.
    pub rescore: Duration,
    /// Queries of other calls that were done in the same batch. Where there are any, the bytes read and the times of compute and rescoring are
    /// the whole batch's.
    pub gathered: u32,
}
