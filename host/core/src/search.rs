//! Search: the top k rows of a corpus for each query, by the exact score. Backends screen; [`crate::rescore`] makes the
//! answer exact.
//!
//! | payload | result |
//! |---|---|
//! | `items` queries of `dim` float32 (words of bits under a metric of those), or with [`FLAG_QUERY_ROWS`] the uint32 numbers of as many rows | [`crate::lists`] |

use std::sync::Arc;

use rayon::prelude::*;

use crate::corpus::{Column, Columns, CorpusView};
use crate::error::Error;
use crate::lists::{CandidateLists, is_ranked, is_short, wants_every_row};
use crate::matrix::Matrix;
use crate::metric::{Dtype, Element, Metric};
use crate::operation::{
    Answered, Class, Description, Exact, Finished, Limits, Listed, Opcode, Operation, Payload, Piece, Reads, Shape,
    Size, SlotFields, even_pieces,
};
use crate::rescore::{Ask, Ranked, rank};
use crate::{describe, lists, screen};

/// In a slot: the queries are rows of the corpus searched, and the payload has their numbers.
pub const FLAG_QUERY_ROWS: u16 = 4;

/// What a [`Search`] asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Queries {
    /// Vectors of the corpus's type.
    Sent(Matrix),
    /// Rows of the corpus searched, by number, in any order, each below its row count. Each finds itself too, unless it
    /// is hidden.
    Rows(Vec<u32>),
}

impl Queries {
    /// Number of queries.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Sent(queries) => queries.rows,
            Self::Rows(rows) => rows.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of each, where they search `corpus`.
    #[must_use]
    pub fn dim(&self, corpus: &CorpusView) -> usize {
        match self {
            Self::Sent(queries) => queries.dim,
            Self::Rows(_) => corpus.dim(),
        }
    }

    /// One query, of those that search `corpus`. `query` is below [`Self::len`].
    #[must_use]
    pub fn of<'a>(&'a self, query: usize, corpus: &'a CorpusView) -> &'a [f32] {
        match self {
            Self::Sent(queries) => queries.row(query),
            Self::Rows(rows) => corpus.embedding(rows[query]),
        }
    }
}

impl From<Matrix> for Queries {
    fn from(queries: Matrix) -> Self {
        Self::Sent(queries)
    }
}

/// Top k rows for each query.
#[derive(Clone)]
pub struct Search {
    /// The version searched.
    pub corpus: Arc<CorpusView>,
    /// The queries.
    pub queries: Queries,
    /// How rows compare.
    pub metric: Metric,
    /// Hits wanted, at least 1; more than the rows answers all rows.
    pub k: usize,
    /// What a hit's reported score must be at least, or at most where the metric is a distance.
    pub threshold: Option<f64>,
}

/// Hits that one piece may answer: 64 MiB of them.
const PIECE_HITS: usize = 4 << 20;
/// Room in a list for each hit wanted: what a screen typically leaves open.
const CANDIDATES_PER_HIT: usize = 4;
/// Queries of a piece from which on rescoring is worth sharing out; about 5 µs each.
const PARALLEL_QUERIES: usize = 16;
/// Visible rows are all scored where, counted once for each query, they are at most one in so many of all rows.
const SCORED_SHARE: usize = 64;
/// Hits of a piece that are rescored within some 100 µs.
const LIGHT_HITS: usize = 256;
/// Hits of a piece that are copied within some 100 µs.
const LIGHT_RANKED_HITS: usize = 1 << 16;

impl Operation for Search {
    fn opcode(&self) -> Opcode {
        Self::OPCODE
    }

    fn size(&self) -> Size {
        self.size_of_batch(self.queries.len())
    }

    fn reads(&self) -> Option<Reads<'_>> {
        Some(Reads { corpus: &self.corpus, columns: columns(self.metric, self.scores_all()) })
    }

    fn pieces(&self, limits: &Limits) -> Vec<Piece> {
        let visible = self.corpus.visible_rows();
        let most = limits.max_items.min(PIECE_HITS / self.k.min(visible).max(1)).max(1);
        let capacity = if self.scores_all() { 0 } else { lists::capacity_for(self.k, visible, CANDIDATES_PER_HIT) };
        let result = lists::len(1, capacity);
        // Room for the queries themselves, which not every backend finds by their rows.
        let payload = self.queries.dim(&self.corpus) * size_of::<f32>();
        even_pieces(self.queries.len(), payload, result, 0, &Limits { max_items: most, ..*limits })
    }

    fn write(&self, piece: &Piece, payload: &mut Payload<'_>, slot: &mut SlotFields) {
        match &self.queries {
            Queries::Sent(queries) => payload.put(queries.range(&piece.items)),
            // A device takes a row's values from its columns, which those of a hidden row are not. A join asks for no
            // such row.
            Queries::Rows(rows)
                if payload.finds_rows && (self.corpus.is_whole() || self.corpus.self_join().is_some()) =>
            {
                payload.put(&rows[piece.items.clone()]);
                slot.flags = FLAG_QUERY_ROWS;
            }
            Queries::Rows(rows) => {
                rows[piece.items.clone()].iter().for_each(|&row| payload.put(self.corpus.embedding(row)))
            }
        }
        slot.name_corpus(&self.corpus);
        slot.dim = self.queries.dim(&self.corpus) as u32;
        slot.k = if self.scores_all() { u32::MAX } else { u32::try_from(self.k).unwrap_or(u32::MAX) };
        slot.metric = self.metric as u8;
        slot.dtype = Dtype::of(self.metric.element()) as u8;
        if let Some(threshold) = self.exact_threshold() {
            slot.threshold = threshold;
        } else if self.metric.is_distance() {
            slot.threshold = f64::INFINITY;
        }
    }
}

impl Answered for Search {
    type Answer = Vec<Ranked>;
    const CLASS: Class = Class::Screen;
    const ITEMS: &'static str = "queries";

    fn describe(shape: &Shape) -> Result<Description, Error> {
        let (items, k) = (describe::items(shape)?, describe::hits(shape)?);
        let (rows, dim) = describe::corpus_size(shape)?;
        // Under any metric of a kind of rows the columns are of one size.
        let metric = Metric::default_of(shape.corpus.as_ref().map_or(Element::Float32, |view| view.row_type().element));
        let all = wants_every_row(k, rows);
        let columns = columns(metric, all);
        Ok(Description { size: size(metric, items, [rows, rows], dim, k, all), columns, rows, dim, k })
    }

    fn is_light(&self, piece: &Piece, result: &[u8]) -> bool {
        let (items, hits) = (piece.items.len(), piece.items.len().saturating_mul(self.k));
        (hits <= LIGHT_HITS && is_short(result, items, self.corpus.visible_rows()))
            || (hits <= LIGHT_RANKED_HITS && is_ranked(result, items))
    }

    fn finish(
        &self,
        piece: &Piece,
        result: &[u8],
        by: &Exact<'_>,
        answer: &mut Vec<Ranked>,
    ) -> Result<Finished, Error> {
        let lists = CandidateLists::read(result, piece.items.len(), self.corpus.rows())?;
        let ask = Ask { metric: self.metric, k: self.k, threshold: self.exact_threshold() };
        let one = |query: usize| {
            let values = self.queries.of(piece.items.start + query, &self.corpus);
            let mut ranked = rank(&self.corpus, values, ask, &lists.of(query), by.kernel);
            ranked.hits.iter_mut().for_each(|hit| hit.row = self.corpus.number(hit.row));
            ranked
        };
        let before = answer.len();
        if piece.items.len() < PARALLEL_QUERIES || is_ranked(result, piece.items.len()) {
            answer.extend((0..piece.items.len()).map(one));
        } else {
            answer.par_extend((0..piece.items.len()).into_par_iter().with_min_len(PARALLEL_QUERIES / 2).map(one));
        }
        let added = &answer[before..];
        let rows_rescored: u64 = added.iter().map(|ranked| ranked.rescored).sum();
        let (rows, dim) = (self.corpus.rows(), self.corpus.dim());
        let rescored_bytes = rows_rescored * (dim * size_of::<f32>()) as u64;
        let read = match self.metric.element() {
            Element::Float32 => screen::packed_len(rows, dim),
            Element::Bit => rows * dim * size_of::<f32>(),
        };
        let bytes_read = rescored_bytes + read as u64;
        Ok(Finished { answers: hits(added), rows_rescored, bytes_read })
    }
}

impl Search {
    fn exact_threshold(&self) -> Option<f64> {
        self.threshold.map(|threshold| self.metric.exact_threshold(threshold))
    }

    /// What a batch of so many of its queries would consist of.
    #[must_use]
    pub fn size_of_batch(&self, queries: usize) -> Size {
        let (rows, visible) = (self.corpus.rows() as u64, self.corpus.visible_rows() as u64);
        let (queries, dim, k) = (queries as u64, self.corpus.dim() as u64, self.k as u64);
        size(self.metric, queries, [rows, visible], dim, k, self.scores_all())
    }

    /// Whether every visible row is scored, and nothing screened: most of them are wanted, or there are so few that it
    /// takes less than to look for their groups.
    fn scores_all(&self) -> bool {
        let (rows, visible) = (self.corpus.rows(), self.corpus.visible_rows());
        wants_every_row(self.k as u64, visible as u64)
            || (visible < rows && visible.saturating_mul(self.queries.len()) <= rows / SCORED_SHARE)
    }
}

/// Hits in an answer.
#[must_use]
pub fn hits(ranked: &[Ranked]) -> usize {
    ranked.iter().map(|ranked| ranked.hits.len()).sum()
}

fn size(metric: Metric, items: u64, [rows, visible]: [u64; 2], dim: u64, k: u64, all: bool) -> Size {
    // A byte of bits takes about what a code takes.
    let value = if metric.element() == Element::Bit { size_of::<f32>() as u64 } else { 1 };
    let elements = rows.saturating_mul(dim).saturating_mul(value);
    if all {
        // Nothing is screened: every visible row is a candidate.
        return Size { items, candidates: items.saturating_mul(visible.saturating_mul(dim)), ..Size::default() };
    }
    let candidates = items.saturating_mul(k).saturating_mul(dim);
    Size { items, bytes: elements, multiply_adds: items.saturating_mul(elements), candidates }
}

fn columns(metric: Metric, all: bool) -> Columns {
    if all {
        return Columns::NONE;
    }
    match metric.element() {
        Element::Float32 => Columns::of(&[Column::Codes, Column::Screen(metric)]),
        Element::Bit => Columns::of(&[Column::Embeddings, Column::Screen(Metric::Hamming)]),
    }
}
