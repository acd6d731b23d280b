//! Texts as jobs carry them, and how a batch of them is cut and laid out: `items + 1` offsets u64, then the bytes.

use crate::corpus::Columns;
use crate::describe;
use crate::error::Error;
use crate::operation::{Description, Limits, Payload, Piece, Shape, Size};

/// Texts of one piece, in bytes: enough that a slot's cost does not show, little enough that all workers are busy in a
/// stream.
const PIECE_BYTES: usize = 2 << 20;
/// Texts of one piece.
const PIECE_TEXTS: usize = 16_384;

/// Texts back to back.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// Start of each text, and the end of the last: one more than there are texts.
    pub offsets: Vec<u64>,
    /// Bytes of all texts: UTF-8, or any where an operation takes any.
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

    /// The bytes of one text.
    #[must_use]
    pub fn get(&self, text: usize) -> &[u8] {
        &self.bytes[self.offsets[text] as usize..self.offsets[text + 1] as usize]
    }

    /// Adds a text.
    pub fn push(&mut self, text: impl AsRef<[u8]>) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.bytes.extend_from_slice(text.as_ref());
        self.offsets.push(self.bytes.len() as u64);
    }

    /// The size of a job on them.
    #[must_use]
    pub fn size(&self) -> Size {
        size(self.len() as u64, self.bytes.len() as u64)
    }

    /// The size of a job on texts that is only described.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the number that is missing or does not belong there.
    pub fn describe(shape: &Shape) -> Result<Description, Error> {
        let size = size(describe::items(shape)?, describe::text_bytes(shape)?);
        Ok(Description { size, columns: Columns::NONE, rows: 0, dim: 0, k: 0 })
    }

    /// Cuts them into pieces with `each` bytes of result a text, of at most `limits`; a longer text has a piece of its
    /// own.
    #[must_use]
    pub fn pieces(&self, each: usize, limits: &Limits) -> Vec<Piece> {
        let most = PIECE_TEXTS.min(limits.max_items.max(1));
        let mut pieces = Vec::new();
        let mut begin = 0;
        while begin < self.len() {
            let start = self.offsets[begin];
            let fits = |len: usize, end: u64| {
                let bytes = (end - start) as usize;
                bytes <= PIECE_BYTES && header_len(len) + bytes + len * each <= limits.max_bytes
            };
            let ends = &self.offsets[begin + 1..(begin + 1 + most).min(self.offsets.len())];
            let len = (1..).zip(ends).take_while(|(len, end)| fits(*len, **end)).count().max(1);
            let bytes = (self.offsets[begin + len] - start) as usize;
            pieces.push(Piece { items: begin..begin + len, payload: header_len(len) + bytes, result: len * each });
            begin += len;
        }
        pieces
    }

    /// Writes a piece's payload.
    pub fn write(&self, piece: &Piece, payload: &mut Payload<'_>) {
        let offsets = &self.offsets[piece.items.start..=piece.items.end];
        let (start, end) = (offsets[0], offsets[piece.items.len()]);
        let local: Vec<u64> = offsets.iter().map(|offset| offset - start).collect();
        payload.put(&local);
        payload.put(&self.bytes[start as usize..end as usize]);
    }

    /// Bytes of text in a piece.
    #[must_use]
    pub fn piece_bytes(piece: &Piece) -> u64 {
        (piece.payload - header_len(piece.items.len())) as u64
    }
}

fn size(items: u64, bytes: u64) -> Size {
    Size { items, bytes, ..Size::default() }
}

fn header_len(texts: usize) -> usize {
    (texts + 1) * size_of::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_texts_once_and_keep_the_limits() {
        let mut texts = Texts::default();
        (0..500_usize).for_each(|text| texts.push(vec![b'a'; text * 7 % 90]));
        texts.push(vec![b'a'; 5_000]);
        texts.push("");
        for limits in [Limits { max_items: 64, max_bytes: 1 << 20 }, Limits { max_items: 1 << 20, max_bytes: 1 << 10 }]
        {
            let mut end = 0;
            for piece in texts.pieces(16, &limits) {
                assert_eq!(piece.items.start, end);
                let len = piece.items.len();
                assert!(len == 1 || len <= limits.max_items && piece.bytes() <= limits.max_bytes, "{piece:?}");
                let next = piece.items.end < texts.len() && len < limits.max_items;
                let more = if next { texts.byte_len(piece.items.end) + size_of::<u64>() + 16 } else { usize::MAX / 2 };
                assert!(piece.bytes() + more > limits.max_bytes, "{piece:?} could have one more");
                let bytes = texts.offsets[piece.items.end] - texts.offsets[piece.items.start];
                assert_eq!((Texts::piece_bytes(&piece), piece.result), (bytes, len * 16));
                end = piece.items.end;
            }
            assert_eq!(end, texts.len());
        }
        assert!(Texts::default().pieces(16, &Limits { max_items: 1, max_bytes: 1 }).is_empty());
    }
}
