//! Validated work: what `validate` makes of a request, and what the steps after it pass along.

use std::sync::Arc;
use std::time::Instant;

use crate::backend::BackendKind;
use crate::corpus::CorpusView;
use crate::encode::Features;
use crate::op::{Metric, Opcode};

/// Largest dimension of an embedding: keeps every integer sum of the int8 screen within 32 bits.
pub const MAX_DIM: usize = 32_768;

/// Row-major float32 vectors, all finite.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix {
    /// Number of vectors.
    pub rows: usize,
    /// Elements of each.
    pub dim: usize,
    /// `rows * dim` values.
    pub values: Vec<f32>,
}

impl Matrix {
    /// One vector.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }
}

/// Top k rows for each query.
#[derive(Clone)]
pub struct SearchJob {
    /// The version searched.
    pub corpus: Arc<CorpusView>,
    /// The queries; their dimension is the corpus's.
    pub queries: Matrix,
    /// How rows compare.
    pub metric: Metric,
    /// Hits wanted, at least 1; more than the rows answers all rows.
    pub k: usize,
    /// Scores a hit must pass (see [`Metric::passes`]).
    pub threshold: Option<f64>,
}

/// Scores of all pairs.
#[derive(Clone)]
pub struct ScoreJob {
    /// The version scored.
    pub corpus: Arc<CorpusView>,
    /// The queries.
    pub queries: Matrix,
    /// How rows compare.
    pub metric: Metric,
    /// Rows wanted, each below the row count; `None` is all of them in order.
    pub rows: Option<Vec<u32>>,
}

/// Texts back to back.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// Start of each text, and the end of the last: one more than there are texts.
    pub offsets: Vec<u64>,
    /// UTF-8 of all texts.
    pub bytes: Vec<u8>,
}

impl Texts {
    /// Number of texts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of one text in bytes.
    #[must_use]
    pub fn byte_len(&self, text: usize) -> usize {
        (self.offsets[text + 1] - self.offsets[text]) as usize
    }

    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.offsets.push(self.bytes.len() as u64);
    }
}

/// Memories to encode. All parts are of one length.
#[derive(Debug, Clone, Default)]
pub struct EncodeJob {
    /// Contents.
    pub texts: Texts,
    /// Numbers of each memory.
    pub features: Vec<Features>,
    /// Garden of each memory, possibly empty.
    pub gardens: Vec<String>,
}

/// Where the points of a [`NearestJob`] are.
#[derive(Clone)]
pub enum Points {
    /// Sent along: five columns (x, y, z, w, v) of one length.
    Sent(Arc<[Vec<f64>; 5]>),
    /// The coordinates of a corpus that has them.
    Corpus(Arc<CorpusView>),
}

impl Points {
    /// Number of points.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Sent(columns) => columns[0].len(),
            Self::Corpus(view) => view.rows(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One point. `row` is below [`Self::len`].
    #[must_use]
    pub fn point(&self, row: u32) -> [f64; 5] {
        match self {
            Self::Sent(columns) => columns.each_ref().map(|column| column[row as usize]),
            Self::Corpus(view) => {
                let (start, segment) = view.segment_of(row as usize);
                let columns = segment.data().coordinates();
                columns.map_or([f64::NAN; 5], |columns| columns.map(|column| column[row as usize - start]))
            }
        }
    }
}

/// k nearest points for each query.
#[derive(Clone)]
pub struct NearestJob {
    /// The points searched.
    pub points: Points,
    /// Query points.
    pub queries: Vec<[f64; 5]>,
    /// Weight of each axis, finite and not negative.
    pub weights: [f64; 5],
    /// Points wanted, at least 1.
    pub k: usize,
}

/// Validated work.
#[derive(Clone)]
pub enum Job {
    /// Nothing: measures the path.
    Nop,
    /// See [`SearchJob`].
    Search(SearchJob),
    /// See [`ScoreJob`].
    Score(ScoreJob),
    /// See [`EncodeJob`].
    Encode(EncodeJob),
    /// See [`NearestJob`].
    Nearest(NearestJob),
}

impl Job {
    /// The opcode of its slots.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Nop => Opcode::Nop,
            Self::Search(_) => Opcode::Search,
            Self::Score(_) => Opcode::Score,
            Self::Encode(_) => Opcode::Masks,
            Self::Nearest(_) => Opcode::Nearest,
        }
    }

    /// Queries or memories in the batch.
    #[must_use]
    pub fn items(&self) -> usize {
        match self {
            Self::Nop => 0,
            Self::Search(job) => job.queries.rows,
            Self::Score(job) => job.queries.rows,
            Self::Encode(job) => job.texts.len(),
            Self::Nearest(job) => job.queries.len(),
        }
    }

    /// What the router needs to know.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let (rows, dim, k) = match self {
            Self::Nop => (0, 0, 0),
            Self::Search(job) => (job.corpus.rows(), job.corpus.dim(), job.k),
            Self::Score(job) => (job.rows.as_ref().map_or(job.corpus.rows(), Vec::len), job.corpus.dim(), 0),
            Self::Encode(job) => (job.texts.bytes.len(), 1, 0),
            Self::Nearest(job) => (job.points.len(), 5, job.k),
        };
        Shape { opcode: self.opcode(), items: self.items(), rows, dim, k }
    }
}

/// Size of a job, by which it is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What is done.
    pub opcode: Opcode,
    /// Queries or memories.
    pub items: usize,
    /// Rows or points searched; for encoding, bytes of text.
    pub rows: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Answers wanted of each query.
    pub k: usize,
}

/// Who asks, and on what terms.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The tenant's name; empty where callers are not told apart.
    pub tenant: String,
    /// When the answer stops being of use.
    pub deadline: Option<Instant>,
    /// The backend the caller insists on.
    pub backend: Option<BackendKind>,
    /// Hits the caller can take in all; a search that finds more fails as soon as it does. `None` is no limit.
    pub max_hits: Option<usize>,
}
