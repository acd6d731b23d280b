//! What a version of a corpus consists of, in row order: segment files, and rows that are still in the log and are held
//! in memory.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use megaring_core::corpus::SegmentView;
use megaring_core::{Error, RowType};
use roaring::RoaringBitmap;

use crate::arrow_file::{Layout, block_range, decode};
use crate::derived::DerivedPart;
use crate::fault::{Fault, guarded};
use crate::ids::NewIds;
use crate::import::rows_of;
use crate::manifest::{Logged, Record, SegmentEntry};
use crate::rows::Rows;
use crate::segment::{MappedSegment, Part, SegmentFile, part_of, read_dictionaries};
use crate::text_ids;

/// Consecutive rows of a version. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Piece {
    /// A segment file.
    Stored(Arc<Stored>),
    /// Rows of the log.
    Kept(Arc<Kept>),
}

/// A segment file with the views of its record batches.
pub(crate) struct Stored {
    pub(crate) entry: SegmentEntry,
    pub(crate) views: Vec<Arc<SegmentView>>,
    /// The columns that rewriting it would give.
    pub(crate) form: SchemaRef,
}

/// Rows in memory, with ids.
pub(crate) struct Kept {
    batch: RecordBatch,
    view: Arc<SegmentView>,
    bytes: usize,
}

impl Piece {
    pub(crate) fn views(&self) -> &[Arc<SegmentView>] {
        match self {
            Self::Stored(stored) => &stored.views,
            Self::Kept(kept) => std::slice::from_ref(&kept.view),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.views().iter().map(|view| view.rows()).sum()
    }

    /// Its file.
    pub(crate) fn file(&self) -> Option<&str> {
        match self {
            Self::Stored(stored) => Some(&stored.entry.file),
            Self::Kept(_) => None,
        }
    }

    /// About what it takes as a file.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Stored(stored) => stored.entry.bytes,
            Self::Kept(kept) => kept.bytes as u64,
        }
    }

    /// The columns of its rows in a segment. Pieces of one form can be merged.
    pub(crate) fn form(&self) -> &SchemaRef {
        match self {
            Self::Stored(stored) => &stored.form,
            Self::Kept(kept) => kept.batch.schema_ref(),
        }
    }

    /// The record that stands for it in a log.
    pub(crate) fn logged(&self) -> Result<Logged, Error> {
        match self {
            Self::Stored(stored) => Ok(Logged { record: Record::Segment(stored.entry.clone()), body: Vec::new() }),
            Self::Kept(kept) => {
                let body = encode(&kept.batch).map_err(|error| Error::Internal(error.to_string()))?;
                Ok(Logged { record: Record::Rows(kept.batch.num_rows() as u64), body })
            }
        }
    }

    /// Gives all rows that are not `deleted`, with ids, in runs of at most `most` rows to `take`. `start` is the number
    /// of its first row.
    pub(crate) fn for_each_run(
        &self,
        folder: &Path,
        row_type: RowType,
        most: usize,
        (start, deleted): (u32, &RoaringBitmap),
        mut take: impl FnMut(Rows) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (batches, mut next_id) = match self {
            Self::Kept(kept) => (vec![kept.batch.clone()], None),
            Self::Stored(stored) => {
                let entry = &stored.entry;
                let batches = stored_batches(&folder.join(&entry.file), entry);
                (batches.map_err(|fault| unreadable(&entry.file, &fault))?, entry.first_id)
            }
        };
        let mut next_row = start;
        for batch in batches {
            for first in (0..batch.num_rows()).step_by(most.max(1)) {
                let run = batch.slice(first, most.max(1).min(batch.num_rows() - first));
                let (count, first_row) = (run.num_rows(), next_row);
                let stays = |at: &usize| !deleted.contains(first_row + *at as u32);
                next_row += count as u32;
                let left = count - deleted.range_cardinality(first_row..next_row) as usize;
                let kept = if left == count {
                    Ok(run)
                } else {
                    filter_record_batch(&run, &(0..count).map(|at| Some(stays(&at))).collect())
                };
                let kept = kept.map_err(|error| unreadable("rows", &Fault::file(error.to_string())))?;
                let first_id = next_id;
                next_id = next_id.map(|id| id + count as u64);
                if left == 0 {
                    continue;
                }
                let mut rows = rows_of(&kept, row_type).map_err(|fault| unreadable("rows", &fault))?;
                if let Some(first_id) = first_id {
                    rows.memory_ids = (0..count).filter(stays).map(|at| first_id + at as u64).collect();
                }
                take(rows)?;
            }
        }
        Ok(())
    }
}

impl Stored {
    /// `form` is that of the file's own schema.
    pub(crate) fn new(
        entry: SegmentEntry,
        views: Vec<Arc<SegmentView>>,
        file: &SegmentFile,
        row_type: RowType,
    ) -> Self {
        Self { entry, views, form: form_of(&file.schema, row_type) }
    }
}

impl Kept {
    /// `batch` has the columns of a segment, ids among them.
    pub(crate) fn new(batch: RecordBatch, row_type: RowType) -> Result<Self, Fault> {
        let part = Part::of_batch(&batch, row_type)?;
        let derived = DerivedPart::compute(&part.embeddings, row_type);
        let (rows, bytes) = (part.rows, batch.get_array_memory_size());
        let view = Arc::new(SegmentView::new(MappedSegment::new(part, derived), rows));
        Ok(Self { batch, view, bytes })
    }

    /// Of a record's body.
    pub(crate) fn decode(body: &[u8], row_type: RowType) -> Result<Self, Fault> {
        let read = || {
            let mut reader = StreamReader::try_new(body, None)?;
            let batch = reader.next().ok_or_else(|| ArrowError::IpcError("it has no rows".into()))?;
            batch.and_then(|batch| concat_batches(&batch.schema(), [&batch]))
        };
        Self::new(guarded(read).map_err(Fault::file)?, row_type)
    }

    /// Checks every value.
    pub(crate) fn check_values(&self, row_type: RowType) -> Result<(), Fault> {
        Part::of_batch(&self.batch, row_type)?.check_values(row_type)
    }

    /// Checks the rows' ids, which are texts in a column.
    pub(crate) fn check_ids(&self, row_type: RowType, column: &str) -> Result<(), Fault> {
        text_ids::check(&Part::of_batch(&self.batch, row_type)?, column)
    }

    /// The rows' ids, texts too where there is a column for them.
    pub(crate) fn new_ids(&self, id_column: Option<&str>) -> Result<NewIds, Fault> {
        NewIds::of_parts(part_of(&self.view), id_column)
    }

    fn joined(&self, next: &Self, row_type: RowType) -> Option<Self> {
        let batch = concat_batches(self.batch.schema_ref(), [&self.batch, &next.batch]).ok()?;
        Self::new(batch, row_type).ok()
    }
}

/// The records of a log that has these pieces, of which some rows are deleted.
pub(crate) fn records(pieces: &[Piece], deleted: &RoaringBitmap) -> Result<Vec<Logged>, Error> {
    let mut records = pieces.iter().map(Piece::logged).collect::<Result<Vec<_>, _>>()?;
    if !deleted.is_empty() {
        records.push(Logged::deleting(deleted, None).map_err(|error| Error::Internal(error.to_string()))?);
    }
    Ok(records)
}

/// Bytes of rows up to which they are joined: whoever appends waits for it.
const MOST_JOINED: usize = 512 << 10;

/// Adds a piece. Rows in memory are joined as the digits of a binary number are carried, so that there are few pieces
/// of them, and none is copied often.
pub(crate) fn push(pieces: &mut Vec<Piece>, piece: Piece, row_type: RowType) {
    let Piece::Kept(mut last) = piece else { return pieces.push(piece) };
    while let Some(Piece::Kept(before)) = pieces.last() {
        let joins = before.batch.num_rows() <= last.batch.num_rows()
            && before.bytes + last.bytes <= MOST_JOINED
            && before.batch.schema() == last.batch.schema();
        let Some(joined) = joins.then(|| before.joined(&last, row_type)).flatten() else { break };
        last = Arc::new(joined);
        pieces.pop();
    }
    pieces.push(Piece::Kept(last));
}

/// A batch as an Arrow IPC stream.
pub(crate) fn encode(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()?;
    writer.into_inner()
}

fn form_of(schema: &SchemaRef, row_type: RowType) -> SchemaRef {
    let rows = rows_of(&RecordBatch::new_empty(schema.clone()), row_type);
    rows.map_or_else(|_| schema.clone(), |rows| Rows { memory_ids: vec![0], ..rows }.schema(row_type))
}

/// All of a segment file, which must be what was written: what is made of it has a checksum of its own.
fn stored_batches(path: &Path, entry: &SegmentEntry) -> Result<Vec<RecordBatch>, Fault> {
    let bytes = SegmentFile::bytes(path, 0)?;
    if bytes.len() as u64 != entry.bytes || crc32fast::hash(&bytes) != entry.crc32 {
        return Err(Fault::file("its checksum does not match; `corpus verify` says more"));
    }
    let layout = Layout::of_file(&bytes)?;
    let mut decoder = layout.decoder(false);
    read_dictionaries(&mut decoder, &layout, &bytes)?;
    let block_bytes = |block| {
        let range = block_range(block);
        bytes.slice_with_length(range.start, range.len())
    };
    layout.batches.iter().map(|block| decode(&decoder, block, &block_bytes(block)).map_err(Fault::file)).collect()
}

fn unreadable(file: &str, fault: &Fault) -> Error {
    Error::Storage(format!("{file} cannot be read again: {fault}"))
}
