//! Arrow IPC files and streams, compressed or not, block by block. A stream is read as the blocks it consists of.
//!
//! Read, not mapped: a file of somebody else may be cut short while it is read, which then is an error and not a
//! signal.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, MessageHeader, root_as_message};
use megaring_core::Error;

use super::batch::Batches;
use super::{Chunk, Source, chunk_rows, open_file, shown};
use crate::arrow_file::{Layout, TRAILER, check_block, decode};
use crate::fault::{Fault, guarded};

/// An IPC file.
pub(super) struct ArrowFile {
    file: File,
    decoder: FileDecoder,
    blocks: VecDeque<Block>,
    pieces: Pieces,
    batches: Batches,
    bytes_read: u64,
}

impl ArrowFile {
    pub(super) fn open(path: &Path, dim: Option<usize>) -> Result<Self, Error> {
        let mut file = open_file(path)?;
        let name = shown(path);
        let layout = read_layout(&mut file).map_err(|fault| fault.into_invalid(&name))?;
        let mut decoder = layout.decoder(false);
        for block in &layout.dictionaries {
            let bytes = read_block(&mut file, block).map_err(|fault| fault.into_invalid(&name))?;
            guarded(|| decoder.read_dictionary(block, &bytes))
                .map_err(|reason| Fault::file(reason).into_invalid(&name))?;
        }
        let (blocks, batches) = (layout.batches.into(), Batches::new(name, dim));
        Ok(Self { file, decoder, blocks, pieces: Pieces::default(), batches, bytes_read: 0 })
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        loop {
            if let Some(piece) = self.pieces.next() {
                return self.batches.convert(&piece).map(Some);
            }
            let Some(block) = self.blocks.pop_front() else { return Ok(None) };
            let bytes = read_block(&mut self.file, &block)?;
            self.bytes_read += bytes.len() as u64;
            self.pieces = Pieces::of(decode(&self.decoder, &block, &bytes).map_err(Fault::file)?);
        }
    }
}

impl Source for ArrowFile {
    fn dim(&self) -> Option<usize> {
        self.batches.dim()
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(self.batches.file()))
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn notes(&self) -> Vec<String> {
        self.batches.notes()
    }
}

/// An IPC stream.
pub(super) struct ArrowStream {
    frames: Frames,
    decoder: FileDecoder,
    pieces: Pieces,
    batches: Batches,
}

impl ArrowStream {
    pub(super) fn open(path: &Path, dim: Option<usize>) -> Result<Self, Error> {
        let file = open_file(path)?;
        let name = shown(path);
        let len = file.metadata().map_err(|error| super::unreadable(path, &error))?.len();
        let mut frames = Frames { file: BufReader::new(file), place: 0, len };
        let decoder = frames.schema().map_err(|fault| fault.into_invalid(&name))?;
        Ok(Self { frames, decoder, pieces: Pieces::default(), batches: Batches::new(name, dim) })
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        loop {
            if let Some(piece) = self.pieces.next() {
                return self.batches.convert(&piece).map(Some);
            }
            let Some(Frame { block, bytes, kind }) = self.frames.next()? else { return Ok(None) };
            check_block(&block, &bytes)?;
            if kind == MessageHeader::DictionaryBatch {
                guarded(|| self.decoder.read_dictionary(&block, &bytes)).map_err(Fault::file)?;
            } else {
                self.pieces = Pieces::of(decode(&self.decoder, &block, &bytes).map_err(Fault::file)?);
            }
        }
    }
}

impl Source for ArrowStream {
    fn dim(&self) -> Option<usize> {
        self.batches.dim()
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(self.batches.file()))
    }

    fn bytes_read(&self) -> u64 {
        self.frames.place
    }

    fn notes(&self) -> Vec<String> {
        self.batches.notes()
    }
}

/// A batch cut into pieces whose conversion is cheap to hold.
#[derive(Default)]
pub(super) struct Pieces {
    batch: Option<RecordBatch>,
    next: usize,
}

impl Pieces {
    pub(super) fn of(batch: RecordBatch) -> Self {
        Self { batch: Some(batch), next: 0 }
    }
}

impl Iterator for Pieces {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let batch = self.batch.as_ref()?;
        let rows = batch.num_rows();
        if self.next >= rows {
            return None;
        }
        // Vectors are nearly all of most batches: their share tells how many rows make a chunk.
        let size = batch.get_array_memory_size() / rows;
        let count = chunk_rows(size.div_ceil(4)).min(rows - self.next);
        let piece = batch.slice(self.next, count);
        self.next += count;
        Some(piece)
    }
}

fn read_layout(file: &mut File) -> Result<Layout, Fault> {
    let len = file.metadata().map_err(lost)?.len();
    let mut trailer = [0; TRAILER];
    let end = len.checked_sub(TRAILER as u64).ok_or_else(|| Fault::file("it is too short for an Arrow IPC file"))?;
    file.seek(SeekFrom::Start(end)).map_err(lost)?;
    file.read_exact(&mut trailer).map_err(lost)?;
    let range = Layout::footer_range(len, trailer)?;
    file.seek(SeekFrom::Start(range.start)).map_err(lost)?;
    let mut footer = vec![0; (range.end - range.start) as usize];
    file.read_exact(&mut footer).map_err(lost)?;
    Layout::read(&footer, range.start)
}

/// Reads and checks a block that the layout has found to lie in the file.
fn read_block(file: &mut File, block: &Block) -> Result<Buffer, Fault> {
    let len = block.metaDataLength() as usize + block.bodyLength() as usize;
    file.seek(SeekFrom::Start(block.offset() as u64)).map_err(lost)?;
    let mut bytes = MutableBuffer::from_len_zeroed(len);
    file.read_exact(&mut bytes).map_err(lost)?;
    check_block(block, &bytes)?;
    Ok(bytes.into())
}

fn lost(error: std::io::Error) -> Fault {
    Fault::file(format!("cannot be read: {error}"))
}

/// The messages of a stream.
struct Frames {
    file: BufReader<File>,
    place: u64,
    len: u64,
}

struct Frame {
    block: Block,
    bytes: Buffer,
    kind: MessageHeader,
}

impl Frames {
    /// The first message, which is the schema.
    fn schema(&mut self) -> Result<FileDecoder, Fault> {
        let none = || Fault::file("it is no Arrow IPC stream: it does not begin with a schema");
        let Frame { block, bytes, .. } = self.next()?.ok_or_else(none)?;
        let message = root_as_message(&bytes[prefix(&bytes)..block.metaDataLength() as usize]).map_err(|_| none())?;
        let schema = message.header_as_schema().ok_or_else(none)?;
        let schema = guarded(|| try_fb_to_schema(schema)).map_err(Fault::file)?;
        Ok(FileDecoder::new(schema.into(), message.version()))
    }

    fn next(&mut self) -> Result<Option<Frame>, Fault> {
        let offset = self.place;
        if self.len - offset < 4 {
            return Ok(None);
        }
        let mut head = vec![0; 4];
        self.fill(&mut head)?;
        if head == [0xff; 4] {
            head.resize(8, 0);
            self.fill(&mut head[4..])?;
        }
        let length = head.last_chunk::<4>().map_or(0, |length| i32::from_le_bytes(*length));
        let Ok(length) = usize::try_from(length) else { return Err(Fault::file("a message has a negative length")) };
        if length == 0 {
            return Ok(None);
        }
        let metadata = head.len() + length;
        let mut bytes = self.room(metadata, length as u64)?;
        bytes[..head.len()].copy_from_slice(&head);
        self.fill(&mut bytes[head.len()..])?;
        let message = root_as_message(&bytes[head.len()..])
            .map_err(|error| Fault::file(format!("a message is corrupt: {error}")))?;
        let (body, kind) = (message.bodyLength(), message.header_type());
        let body = u64::try_from(body).map_err(|_| Fault::file("a message has a body of negative length"))?;
        let mut whole = self.room(metadata + body as usize, body)?;
        whole[..metadata].copy_from_slice(&bytes);
        self.fill(&mut whole[metadata..])?;
        let metadata = i32::try_from(metadata).map_err(|_| Fault::file("a message's metadata is too long"))?;
        Ok(Some(Frame { block: Block::new(offset as i64, metadata, body as i64), bytes: whole.into(), kind }))
    }

    /// Room for a message of which `more` bytes are still in the file.
    fn room(&self, len: usize, more: u64) -> Result<MutableBuffer, Fault> {
        if more > self.len - self.place {
            return Err(Fault::file("it is truncated: a message reaches beyond its end"));
        }
        Ok(MutableBuffer::from_len_zeroed(len))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.file.read_exact(bytes).map_err(|_| Fault::file("it is truncated within a message"))?;
        self.place += bytes.len() as u64;
        Ok(())
    }
}

fn prefix(bytes: &[u8]) -> usize {
    if bytes.starts_with(&[0xff; 4]) { 8 } else { 4 }
}
