//! Arrow IPC files and streams, compressed or not, block by block. A stream is read as the blocks it consists of.
//!
//! Read, not mapped: a file of somebody else may be cut short while it is read, which then is an error and not a
//! signal.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, ErrorKind, Read, Seek, SeekFrom};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, GenericListViewArray, OffsetSizeTrait, RecordBatch, downcast_run_array};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, MessageHeader, root_as_message};
use arrow_schema::{DataType, SchemaRef};
use megaring_core::Error;

use super::batch::Batches;
use super::input::Input;
use super::{Chunk, ImportOptions, Source, chunk_rows, lost};
use crate::arrow_file::{ANY_VERSION, Layout, TRAILER, check_block, decode, unknown_schema};
use crate::fault::{Fault, guarded};

/// An IPC file.
pub(super) struct ArrowFile {
    file: File,
    decoder: FileDecoder,
    blocks: VecDeque<Block>,
    pieces: Pieces,
    batches: Batches,
    bytes_read: u64,
    bytes_total: u64,
}

impl ArrowFile {
    pub(super) fn open(input: Input, options: &ImportOptions) -> Result<Self, Error> {
        let name = input.name().to_owned();
        let file = input.into_file()?;
        Self::read(file, &name, options).map_err(|fault| fault.into_invalid(&name))
    }

    fn read(mut file: File, name: &str, options: &ImportOptions) -> Result<Self, Fault> {
        let bytes_total = file.metadata().map_err(|error| lost(&error))?.len();
        let layout = read_layout(&mut file, bytes_total)?;
        let (places, batches) = Batches::open(name, &layout.schema, options)?;
        let mut decoder = layout.decoder(false).with_projection(places);
        for block in &layout.dictionaries {
            let bytes = read_block(&mut file, block)?;
            guarded(|| decoder.read_dictionary(block, &bytes)).map_err(Fault::file)?;
        }
        let blocks = layout.batches.into();
        Ok(Self { file, decoder, blocks, pieces: Pieces::default(), batches, bytes_read: 0, bytes_total })
    }
}

impl Source for ArrowFile {
    fn dim(&self) -> Option<usize> {
        self.batches.dim()
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

    fn bytes(&self) -> (u64, u64) {
        (self.bytes_read, self.bytes_total)
    }

    fn notes(&self) -> Vec<String> {
        self.batches.notes()
    }
}

/// An IPC stream.
pub(super) struct ArrowStream {
    frames: Frames<Input>,
    decoder: FileDecoder,
    pieces: Pieces,
    batches: Batches,
}

impl ArrowStream {
    pub(super) fn open(input: Input, options: &ImportOptions) -> Result<Self, Error> {
        let name = input.name().to_owned();
        Self::read(input, &name, options).map_err(|fault| fault.into_invalid(&name))
    }

    fn read(input: Input, name: &str, options: &ImportOptions) -> Result<Self, Fault> {
        let mut frames = Frames { input, place: 0 };
        let schema = frames.schema()?;
        let (places, batches) = Batches::open(name, &schema, options)?;
        let decoder = FileDecoder::new(schema, ANY_VERSION).with_projection(places);
        Ok(Self { frames, decoder, pieces: Pieces::default(), batches })
    }
}

impl Source for ArrowStream {
    fn dim(&self) -> Option<usize> {
        self.batches.dim()
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

    fn bytes(&self) -> (u64, u64) {
        self.frames.input.place()
    }

    fn notes(&self) -> Vec<String> {
        self.batches.notes()
    }
}

/// The only record batch of a stream that somebody sent, neither compressed nor with dictionaries: it takes the memory
/// of its bytes, and no more.
pub(crate) fn sent_batch(stream: &[u8]) -> Result<RecordBatch, Fault> {
    let mut frames = Frames { input: stream, place: 0 };
    let schema = frames.schema()?;
    let packed = |kind: &DataType| {
        let is_list_view = matches!(kind, DataType::ListView(_) | DataType::LargeListView(_));
        is_list_view || matches!(kind, DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _))
    };
    if let Some(field) = schema.flattened_fields().into_iter().find(|field| packed(field.data_type())) {
        let reason = format!("its type is {}; send plain values", field.data_type());
        return Err(Fault::column(field.name(), reason));
    }
    let decoder = FileDecoder::new(schema, ANY_VERSION);
    let mut batches = Vec::new();
    while let Some(Frame { block, bytes, .. }) = frames.next()? {
        if check_block(&block, &bytes)?.compressed {
            return Err(Fault::file("its batch is compressed; send it as it is"));
        }
        batches.push(decode(&decoder, &block, &bytes).map_err(Fault::file)?);
        if batches.len() > 1 {
            break;
        }
    }
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([batch]) => Ok(batch),
        Err(batches) if batches.is_empty() => Err(Fault::file("it has no record batch; send one")),
        Err(_) => Err(Fault::file("it has several record batches; send one")),
    }
}

/// A batch cut into pieces whose conversion is cheap to hold.
#[derive(Default)]
struct Pieces {
    batch: Option<RecordBatch>,
    /// Rows of a piece.
    count: usize,
    next: usize,
}

impl Pieces {
    fn of(batch: RecordBatch) -> Self {
        // Vectors are nearly all of most batches: their share tells how many rows make a chunk.
        let stored = batch.get_array_memory_size();
        let bytes = batch.columns().iter().map(shared_bytes).fold(stored, usize::saturating_add);
        let count = chunk_rows((bytes / batch.num_rows().max(1)).div_ceil(4));
        Self { batch: Some(batch), count, next: 0 }
    }
}

impl Iterator for Pieces {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let batch = self.batch.as_ref()?;
        let count = self.count.min(batch.num_rows() - self.next);
        let piece = batch.slice(self.next, count);
        self.next += count;
        (count > 0).then_some(piece)
    }
}

/// Bytes of the values of a column whose rows may share what is stored, as if none did.
fn shared_bytes(array: &ArrayRef) -> usize {
    let repeated = |values: &ArrayRef| values.get_array_memory_size().div_ceil(values.len().max(1)) * array.len();
    match array.data_type() {
        DataType::Dictionary(_, _) => repeated(array.as_any_dictionary().values()),
        DataType::RunEndEncoded(_, _) => downcast_run_array! { array => repeated(array.values()), _ => 0 },
        DataType::ListView(_) => viewed_bytes(array.as_list_view::<i32>()),
        DataType::LargeListView(_) => viewed_bytes(array.as_list_view::<i64>()),
        _ => 0,
    }
}

fn viewed_bytes<O: OffsetSizeTrait>(lists: &GenericListViewArray<O>) -> usize {
    let elements = lists.value_sizes().iter().map(|size| size.as_usize()).fold(0, usize::saturating_add);
    elements.saturating_mul(4)
}

fn read_layout(file: &mut File, len: u64) -> Result<Layout, Fault> {
    let mut trailer = [0; TRAILER];
    let end = len.checked_sub(TRAILER as u64).ok_or_else(|| Fault::file("it is too short for an Arrow IPC file"))?;
    file.seek(SeekFrom::Start(end)).map_err(|error| lost(&error))?;
    file.read_exact(&mut trailer).map_err(|error| lost(&error))?;
    let range = Layout::footer_range(len, trailer)?;
    file.seek(SeekFrom::Start(range.start)).map_err(|error| lost(&error))?;
    let mut footer = vec![0; (range.end - range.start) as usize];
    file.read_exact(&mut footer).map_err(|error| lost(&error))?;
    Layout::read(&footer, range.start)
}

/// Reads and checks a block that the layout has found to lie in the file.
fn read_block(file: &mut File, block: &Block) -> Result<Buffer, Fault> {
    let len = block.metaDataLength() as usize + block.bodyLength() as usize;
    file.seek(SeekFrom::Start(block.offset() as u64)).map_err(|error| lost(&error))?;
    let mut bytes = MutableBuffer::from_len_zeroed(len);
    file.read_exact(&mut bytes).map_err(|error| lost(&error))?;
    check_block(block, &bytes)?;
    Ok(bytes.into())
}

/// The messages of a stream.
struct Frames<R> {
    input: R,
    place: u64,
}

struct Frame {
    block: Block,
    bytes: Buffer,
    kind: MessageHeader,
}

impl<R: BufRead> Frames<R> {
    /// The first message, which is the schema.
    fn schema(&mut self) -> Result<SchemaRef, Fault> {
        let none = || Fault::file("it is no Arrow IPC stream: it does not begin with a schema");
        let Frame { block, bytes, .. } = self.next()?.ok_or_else(none)?;
        let message = root_as_message(&bytes[prefix(&bytes)..block.metaDataLength() as usize]).map_err(|_| none())?;
        let schema = message.header_as_schema().ok_or_else(none)?;
        guarded(|| try_fb_to_schema(schema)).map(Into::into).map_err(unknown_schema)
    }

    fn next(&mut self) -> Result<Option<Frame>, Fault> {
        let offset = self.place;
        if self.input.fill_buf().map_err(|error| lost(&error))?.is_empty() {
            return Ok(None);
        }
        let mut bytes = MutableBuffer::new(0);
        self.read(&mut bytes, 4)?;
        if *bytes == [0xff; 4] {
            self.read(&mut bytes, 4)?;
        }
        let head = bytes.len();
        let length = bytes.last_chunk::<4>().map_or(0, |length| i32::from_le_bytes(*length));
        let Ok(length) = usize::try_from(length) else { return Err(Fault::file("a message has a negative length")) };
        if length == 0 {
            // Behind the end there is still what gzip says of the whole.
            return self.input.fill_buf().map(|_| None).map_err(|error| lost(&error));
        }
        self.read(&mut bytes, length)?;
        let message =
            root_as_message(&bytes[head..]).map_err(|error| Fault::file(format!("a message is corrupt: {error}")))?;
        let (body, kind) = (message.bodyLength(), message.header_type());
        let length = usize::try_from(body).map_err(|_| Fault::file("a message has a body of negative length"))?;
        let metadata = i32::try_from(bytes.len()).map_err(|_| Fault::file("a message's metadata is too long"))?;
        self.read(&mut bytes, length)?;
        Ok(Some(Frame { block: Block::new(offset as i64, metadata, body), bytes: bytes.into(), kind }))
    }

    /// Reads `more` bytes behind those there are. Room is made as they come: a length may be corrupt, and of a pipe
    /// nobody knows what is to come.
    fn read(&mut self, bytes: &mut MutableBuffer, more: usize) -> Result<(), Fault> {
        let mut left = more;
        while left > 0 {
            let (start, count) = (bytes.len(), left.min(bytes.len().max(1 << 20)));
            bytes.resize(start + count, 0);
            self.input.read_exact(&mut bytes[start..]).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Fault::file("it is truncated within a message"),
                _ => lost(&error),
            })?;
            left -= count;
        }
        self.place += more as u64;
        Ok(())
    }
}

fn prefix(bytes: &[u8]) -> usize {
    if bytes.starts_with(&[0xff; 4]) { 8 } else { 4 }
}
