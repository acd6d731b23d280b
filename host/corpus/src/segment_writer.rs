//! Rows into a new segment file: gathered into record batches and written through to a temporary file.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{ArrowError, SchemaRef};
use megaring_core::{Error, RowType};

use crate::durable::{Paced, Summing, TemporaryFile, storage};
use crate::rows::Rows;

/// Bytes of rows that make a record batch: large enough that a scan stays in one slice for long, small enough to hold.
const BATCH_BYTES: usize = 64 << 20;
/// Alignment of buffers in the file: a cache line, which is also what a kernel's widest load wants.
const ALIGNMENT: usize = 64;

/// A segment in the making. Memory is bounded by one batch (64 MiB of rows, or one larger push).
pub(crate) struct SegmentWriter {
    folder: PathBuf,
    row_type: RowType,
    /// From the first rows on.
    schema: Option<SchemaRef>,
    gathered: Rows,
    out: Option<Out>,
}

/// The temporary file, from the first batch on.
struct Out {
    file: TemporaryFile,
    writer: FileWriter<Summing<BufWriter<Paced>>>,
}

/// A segment file that is whole, but has no name yet.
pub(crate) struct Written {
    pub(crate) file: TemporaryFile,
    pub(crate) bytes: u64,
    pub(crate) crc32: u32,
}

impl SegmentWriter {
    pub(crate) fn new(folder: &Path, row_type: RowType) -> Self {
        Self { folder: folder.to_owned(), row_type, schema: None, gathered: Rows::default(), out: None }
    }

    /// Refuses rows of other columns than those before.
    pub(crate) fn check_columns(&self, rows: &Rows) -> Result<(), Error> {
        let schema = rows.schema(self.row_type);
        let Some(first) = self.schema.as_ref().filter(|first| **first != schema) else { return Ok(()) };
        let names =
            |schema: &SchemaRef| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(", ");
        let (first, now) = (names(first), names(&schema));
        Err(Error::field("columns", format!("all rows of one append have the same: first {first}, now {now}")))
    }

    /// Takes rows that passed [`Self::check_columns`].
    pub(crate) fn push(&mut self, rows: Rows) -> Result<(), Error> {
        let rows = rows.with_titles();
        self.schema.get_or_insert_with(|| rows.schema(self.row_type));
        if !self.gathered.is_empty() && self.gathered.bytes() + rows.bytes() > BATCH_BYTES {
            self.flush()?;
        }
        self.gathered.extend(rows).map_err(|error| Error::Internal(error.to_string()))
    }

    /// All rows, where no more than `bytes` of them were pushed.
    pub(crate) fn take_small(&mut self, bytes: usize) -> Option<Rows> {
        let small = self.out.is_none() && self.gathered.bytes() <= bytes;
        small.then(|| std::mem::take(&mut self.gathered))
    }

    /// `None` where there were no rows.
    pub(crate) fn finish(mut self) -> Result<Option<Written>, Error> {
        self.flush()?;
        let Some(Out { file, mut writer }) = self.out else { return Ok(None) };
        writer.finish().map_err(|error| cannot_write(&file, error))?;
        // Finishing has flushed: a refusal of the last bytes has been told.
        let (bytes, crc32) = writer.get_ref().sum();
        Ok(Some(Written { file, bytes, crc32 }))
    }

    fn flush(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.gathered);
        let Some(schema) = self.schema.as_ref().filter(|_| !rows.is_empty()) else { return Ok(()) };
        let batch = rows.into_batch(schema, self.row_type).map_err(|error| Error::Internal(error.to_string()))?;
        let out = match &mut self.out {
            Some(out) => out,
            empty => empty.insert(Out::create(&self.folder, schema)?),
        };
        out.writer.write(&batch).map_err(|error| cannot_write(&out.file, error))
    }
}

impl Out {
    fn create(folder: &Path, schema: &SchemaRef) -> Result<Self, Error> {
        let failed = |error: ArrowError| storage("cannot write in", folder)(std::io::Error::other(error));
        let file = TemporaryFile::create(folder).map_err(storage("cannot write in", folder))?;
        let handle = file.handle().map_err(storage("cannot write in", folder))?;
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).map_err(failed)?;
        let out = Summing::new(BufWriter::new(Paced::new(handle)));
        let writer = FileWriter::try_new_with_options(out, schema, options).map_err(failed)?;
        Ok(Self { file, writer })
    }
}

fn cannot_write(file: &TemporaryFile, error: ArrowError) -> Error {
    Error::Storage(format!("cannot write {}: {error}", file.path().display()))
}
