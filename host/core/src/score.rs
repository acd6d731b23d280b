//! Score: the exact scores of all pairs of queries and rows, as a matrix. Nothing is screened; a backend computes the
//! definition itself.
//!
//! | payload | result |
//! |---|---|
//! | `items` queries of `dim` float32, or of whole words of bits, then, unless [`FLAG_ALL_ROWS`], `k` row numbers u32 | `items` x rows float32, row-major |

use std::sync::Arc;

use crate::corpus::{Column, Columns, CorpusView};
use crate::describe;
use crate::error::Error;
use crate::matrix::Matrix;
use crate::metric::{Dtype, Element, Metric};
use crate::operation::{
    Answered, Class, Description, Exact, Finished, Limits, Listed, Opcode, Operation, Payload, Piece, Reads, Shape,
    Size, SlotFields, even_pieces, misshapen,
};

/// In a slot: every row of the corpus is meant; no row numbers follow the queries.
pub const FLAG_ALL_ROWS: u16 = 1;

/// Bytes of scores that are copied within some 100 µs.
const LIGHT_BYTES: usize = 256 << 10;

/// Scores of all pairs.
#[derive(Clone)]
pub struct Score {
    /// The version scored.
    pub corpus: Arc<CorpusView>,
    /// The queries.
    pub queries: Matrix,
    /// How rows compare.
    pub metric: Metric,
    /// Rows wanted, each below the row count; `None` is all of them in order, hidden ones too.
    pub rows: Option<Vec<u32>>,
}

impl Score {
    /// Scores of each query.
    #[must_use]
    pub fn width(&self) -> usize {
        self.rows.as_ref().map_or(self.corpus.rows(), Vec::len)
    }
}

impl Operation for Score {
    fn opcode(&self) -> Opcode {
        Self::OPCODE
    }

    fn size(&self) -> Size {
        size(self.queries.rows as u64, self.width() as u64, self.corpus.dim() as u64)
    }

    fn reads(&self) -> Option<Reads<'_>> {
        Some(Reads { corpus: &self.corpus, columns: columns(self.metric.element()) })
    }

    fn pieces(&self, limits: &Limits) -> Vec<Piece> {
        let named = self.rows.as_ref().map_or(0, |rows| rows.len() * size_of::<u32>());
        let (payload, result) = (self.queries.dim * size_of::<f32>(), self.width() * size_of::<f32>());
        even_pieces(self.queries.rows, payload, result, named, limits)
    }

    fn write(&self, piece: &Piece, payload: &mut Payload<'_>, slot: &mut SlotFields) {
        payload.put(self.queries.range(&piece.items));
        match &self.rows {
            Some(rows) => {
                payload.put(rows);
                slot.k = rows.len() as u32;
            }
            None => slot.flags = FLAG_ALL_ROWS,
        }
        slot.name_corpus(&self.corpus);
        slot.dim = self.queries.dim as u32;
        slot.metric = self.metric as u8;
        slot.dtype = Dtype::of(self.metric.element()) as u8;
    }
}

impl Answered for Score {
    /// `queries` x [`Score::width`], row-major.
    type Answer = Vec<f32>;
    const CLASS: Class = Class::Exact;
    const ITEMS: &'static str = "queries";

    fn describe(shape: &Shape) -> Result<Description, Error> {
        let items = describe::items(shape)?;
        let (rows, dim) = describe::corpus_size(shape)?;
        let element = shape.corpus.as_ref().map_or(Element::Float32, |view| view.row_type().element);
        Ok(Description { size: size(items, rows, dim), columns: columns(element), rows, dim, k: 0 })
    }

    fn is_light(&self, _: &Piece, result: &[u8]) -> bool {
        result.len() <= LIGHT_BYTES
    }

    fn finish(&self, piece: &Piece, result: &[u8], _: &Exact<'_>, answer: &mut Vec<f32>) -> Result<Finished, Error> {
        let bytes = piece.items.len() * self.width() * size_of::<f32>();
        let (scores, _) = result.get(..bytes).ok_or_else(misshapen)?.as_chunks();
        answer.extend(scores.iter().map(|score| f32::from_ne_bytes(*score)));
        let rows_rescored = scores.len() as u64;
        let bytes_read = rows_rescored * (self.corpus.dim() * size_of::<f32>()) as u64;
        Ok(Finished { answers: scores.len(), rows_rescored, bytes_read })
    }
}

fn columns(element: Element) -> Columns {
    match element {
        Element::Float32 => Columns::of(&[Column::Embeddings, Column::Norms]),
        Element::Bit => Columns::of(&[Column::Embeddings]),
    }
}

fn size(items: u64, rows: u64, dim: u64) -> Size {
    let elements = rows.saturating_mul(dim);
    let (bytes, multiply_adds) = (elements.saturating_mul(size_of::<f32>() as u64), items.saturating_mul(elements));
    Size { items, bytes, multiply_adds, candidates: items.saturating_mul(rows) }
}
