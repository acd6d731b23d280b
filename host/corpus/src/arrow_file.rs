//! The Arrow IPC file format down to its blocks, with every offset checked before the decoder sees it (the decoder
//! asserts some).
//!
//! Buffers decoded from a mapped file point into the mapping; nothing is copied unless a batch is compressed or
//! misaligned, and both can be refused.

use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, Footer, MetadataVersion, root_as_footer, root_as_message};
use arrow_schema::{ArrowError, SchemaRef};

use crate::fault::{Fault, guarded};

/// What an Arrow IPC file begins and ends with.
pub(crate) const MAGIC: &[u8; 6] = b"ARROW1";
/// Bytes at the end of a file: the footer's length and the magic.
pub(crate) const TRAILER: usize = 10;
/// What makes a decoder take messages of every version of the metadata, each as what it says it is: some writers leave
/// another version in the footer than in the messages.
pub(crate) const ANY_VERSION: MetadataVersion = MetadataVersion::V1;
/// Buffers start at multiples of this in a file that keeps the format's rules.
const ALIGNMENT: usize = 8;

/// The footer of a file: its schema and where its batches are.
pub(crate) struct Layout {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<Block>,
    pub(crate) dictionaries: Vec<Block>,
}

impl Layout {
    /// Where the footer of a file of `len` bytes lies, given its last [`TRAILER`] bytes.
    pub(crate) fn footer_range(len: u64, trailer: [u8; TRAILER]) -> Result<Range<u64>, Fault> {
        let footer = read_footer_length(trailer).map_err(|_| truncated())?;
        let end = len.checked_sub(TRAILER as u64).ok_or_else(truncated)?;
        let start = end.checked_sub(footer as u64).filter(|start| *start >= 8).ok_or_else(truncated)?;
        Ok(start..end)
    }

    /// Reads a footer that begins at byte `start` of its file.
    pub(crate) fn read(footer: &[u8], start: u64) -> Result<Self, Fault> {
        let corrupt = |error: String| Fault::file(format!("the footer is corrupt: {error}"));
        let footer = root_as_footer(footer).map_err(|error| corrupt(error.to_string()))?;
        let schema = footer.schema().ok_or_else(|| corrupt("it has no schema".into()))?;
        let schema = guarded(|| try_fb_to_schema(schema)).map_err(unknown_schema)?;
        let blocks = blocks(&footer);
        if !blocks.iter().flatten().all(|block| lies_before(block, start)) {
            return Err(corrupt("a batch lies outside the file".into()));
        }
        let [batches, dictionaries] = blocks;
        Ok(Self { schema: schema.into(), batches, dictionaries })
    }

    /// Reads the layout of a whole file in memory.
    pub(crate) fn of_file(file: &Buffer) -> Result<Self, Fault> {
        if !file.starts_with(MAGIC) {
            return Err(Fault::file("it is no Arrow IPC file: it does not begin with ARROW1"));
        }
        let trailer = file.last_chunk::<TRAILER>().ok_or_else(truncated)?;
        let range = Self::footer_range(file.len() as u64, *trailer)?;
        Self::read(&file[range.start as usize..range.end as usize], range.start)
    }

    /// A decoder for the file's blocks. `in_place`: misaligned buffers are errors, not copies.
    pub(crate) fn decoder(&self, in_place: bool) -> FileDecoder {
        FileDecoder::new(self.schema.clone(), ANY_VERSION).with_require_alignment(in_place)
    }
}

fn blocks(footer: &Footer<'_>) -> [Vec<Block>; 2] {
    [footer.recordBatches(), footer.dictionaries()].map(|blocks| blocks.iter().flatten().copied().collect())
}

fn lies_before(block: &Block, end: u64) -> bool {
    let parts = [block.offset(), i64::from(block.metaDataLength()), block.bodyLength()];
    let [Ok(offset), Ok(metadata), Ok(body)] = parts.map(u64::try_from) else { return false };
    // 16: the smallest framed message; the decoder indexes that much.
    metadata >= 16 && offset.checked_add(metadata).and_then(|sum| sum.checked_add(body)).is_some_and(|sum| sum <= end)
}

/// Why a schema cannot be read: it is corrupt, or has types that Arrow has not.
pub(crate) fn unknown_schema(reason: String) -> Fault {
    Fault::file(format!("its schema cannot be read: {reason}"))
}

fn truncated() -> Fault {
    Fault::file("it does not end as an Arrow IPC file: it is truncated or was never finished")
}

/// Bytes of a block in its file.
pub(crate) fn block_range(block: &Block) -> Range<usize> {
    let start = block.offset() as usize;
    start..start + block.metaDataLength() as usize + block.bodyLength() as usize
}

/// What a block's metadata says of its buffers, once they are known to lie within the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockForm {
    pub(crate) compressed: bool,
    pub(crate) aligned: bool,
}

/// Checks that a block's buffers lie within it. `bytes` is the whole block, metadata first.
pub(crate) fn check_block(block: &Block, bytes: &[u8]) -> Result<BlockForm, Fault> {
    let corrupt = |what: &str| Fault::file(format!("a batch is corrupt: {what}"));
    let skip = if bytes.starts_with(&[0xff; 4]) { 8 } else { 4 };
    let metadata = bytes.get(skip..block.metaDataLength() as usize).ok_or_else(|| corrupt("it is cut short"))?;
    let message = root_as_message(metadata).map_err(|error| corrupt(&error.to_string()))?;
    let batch = match (message.header_as_record_batch(), message.header_as_dictionary_batch()) {
        (Some(batch), _) => batch,
        (None, Some(dictionary)) => dictionary.data().ok_or_else(|| corrupt("its dictionary is empty"))?,
        (None, None) => return Err(corrupt("it is neither a batch nor a dictionary")),
    };
    let body = block.bodyLength() as u64;
    let mut form = BlockForm { compressed: batch.compression().is_some(), aligned: true };
    for buffer in batch.buffers().iter().flatten() {
        let (Ok(offset), Ok(length)) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length())) else {
            return Err(corrupt("a buffer has a negative place"));
        };
        if offset.checked_add(length).is_none_or(|end| end > body) {
            return Err(corrupt("a buffer lies outside it"));
        }
        let place = block.offset() as u64 + block.metaDataLength() as u64 + offset;
        check_inflation(form.compressed, &bytes[block.metaDataLength() as usize..], offset, length)?;
        form.aligned &= length == 0 || place.is_multiple_of(ALIGNMENT as u64);
    }
    let negative = |node: &&arrow_ipc::FieldNode| node.length() < 0 || node.null_count() < 0;
    match batch.nodes().iter().flatten().find(negative) {
        Some(_) => Err(corrupt("a column has a negative length")),
        None => Ok(form),
    }
}

/// Refuses a compressed buffer that claims to grow beyond what its compression can do: the decoder would reserve as
/// much.
fn check_inflation(compressed: bool, body: &[u8], offset: u64, length: u64) -> Result<(), Fault> {
    /// A zstd block of 128 KiB takes four bytes at least.
    const MOST: u64 = (128 << 10) / 4;
    if !compressed || length == 0 {
        return Ok(());
    }
    let claim = body.get(offset as usize..).and_then(|buffer| buffer.first_chunk::<8>());
    // -1 stands for a buffer that is not compressed after all.
    match claim.map(|claim| i64::from_le_bytes(*claim)) {
        Some(claim) if claim == -1 || u64::try_from(claim).is_ok_and(|claim| claim / MOST <= length) => Ok(()),
        _ => Err(Fault::file("a batch is corrupt: a compressed buffer claims an impossible length")),
    }
}

/// Decodes a checked block.
pub(crate) fn decode(decoder: &FileDecoder, block: &Block, bytes: &Buffer) -> Result<RecordBatch, String> {
    let missing = || ArrowError::IpcError("a batch is missing".to_owned());
    guarded(|| decoder.read_record_batch(block, bytes)?.ok_or_else(missing))
}
