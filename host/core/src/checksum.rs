//! Checksum: the CRC-32C and the xxHash64 of byte strings, as computed by the crates `crc32c` and `twox-hash`. CRC-32C
//! is Castagnoli's polynomial as iSCSI uses it (RFC 3720, section 12.1); xxHash64 is of seed 0 (the xxHash
//! specification, version 0.2).
//!
//! | payload | result |
//! |---|---|
//! | `items + 1` offsets u64, then the bytes ([`crate::texts`]) | for each item two u64: its CRC-32C, its xxHash64 |

use crate::error::Error;
use crate::operation::{
    Answered, Class, Description, Exact, Finished, Limits, Listed, Opcode, Operation, Payload, Piece, Reads, Shape,
    Size, SlotFields, misshapen,
};
use crate::texts::Texts;

/// Byte strings to compute checksums of.
#[derive(Debug, Clone, Default)]
pub struct Checksum {
    /// The strings; any bytes will do.
    pub contents: Texts,
}

/// xxHash64 of seed 0.
#[must_use]
pub fn xxhash64(content: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, content)
}

/// What is computed of one string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    /// CRC-32C.
    pub crc32c: u32,
    /// xxHash64 of seed 0.
    pub xxhash64: u64,
}

impl Checksums {
    /// Those of a string.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self { crc32c: crc32c::crc32c(content), xxhash64: xxhash64(content) }
    }

    /// As a result region has them.
    #[must_use]
    pub fn words(self) -> [u64; 2] {
        [self.crc32c.into(), self.xxhash64]
    }
}

impl Operation for Checksum {
    fn opcode(&self) -> Opcode {
        Self::OPCODE
    }

    fn size(&self) -> Size {
        self.contents.size()
    }

    fn reads(&self) -> Option<Reads<'_>> {
        None
    }

    fn pieces(&self, limits: &Limits) -> Vec<Piece> {
        self.contents.pieces(size_of::<[u64; 2]>(), limits)
    }

    fn write(&self, piece: &Piece, payload: &mut Payload<'_>, _: &mut SlotFields) {
        self.contents.write(piece, payload);
    }
}

impl Answered for Checksum {
    type Answer = Vec<Checksums>;
    const CLASS: Class = Class::Text;
    const ITEMS: &'static str = "contents";

    fn describe(shape: &Shape) -> Result<Description, Error> {
        Texts::describe(shape)
    }

    fn is_light(&self, _: &Piece, _: &[u8]) -> bool {
        true
    }

    fn finish(
        &self,
        piece: &Piece,
        result: &[u8],
        _: &Exact<'_>,
        answer: &mut Vec<Checksums>,
    ) -> Result<Finished, Error> {
        let words: &[[u64; 2]] = bytemuck::try_cast_slice(result).map_err(|_| misshapen())?;
        let words = words.get(..piece.items.len()).ok_or_else(misshapen)?;
        for [crc32c, xxhash64] in words {
            let crc32c = u32::try_from(*crc32c).map_err(|_| misshapen())?;
            answer.push(Checksums { crc32c, xxhash64: *xxhash64 });
        }
        let bytes_read = Texts::piece_bytes(piece);
        Ok(Finished { answers: words.len(), rows_rescored: 0, bytes_read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_of_the_job_that_it_describes() {
        let mut contents = Texts::default();
        ["abc", "", "de"].iter().for_each(|content| contents.push(content));
        let shape = Shape { items: 3, text_bytes: 5, ..Shape::default() };
        let described = Opcode::Checksum.describe(&shape).map(|description| description.size);
        assert_eq!(described.ok(), Some(Checksum { contents }.size()));
        assert!(Opcode::Checksum.describe(&Shape { rows: 1, ..shape }).is_err());
    }

    #[test]
    fn published_checksums_come_out() {
        // The check value of the catalogue of CRCs, and the vectors of RFC 3720, appendix B.4.
        let crc32c = |content: &[u8]| Checksums::of(content).crc32c;
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!((crc32c(&[0; 32]), crc32c(&[0xFF; 32])), (0x8A91_36AA, 0x62A8_AB43));
        assert_eq!(Checksums::of(b"").words(), [0, 0xEF46_DB37_51D8_E999]);
        assert_eq!(Checksums::of(b"a").xxhash64, 0xD24E_C4F1_A98C_6E5B);
    }
}
