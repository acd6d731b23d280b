//! An append in the making: rows are checked, gathered into record batches and written through to a temporary file.
//!
//! Memory is bounded by one batch (64 MiB of rows, or one larger push). Dropping an [`Appender`] leaves the corpus as
//! it was. Any number may be open on one corpus; they commit one after another.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{ArrowError, SchemaRef};
use megaring_core::Error;

use crate::corpus::{Corpus, check_row_count};
use crate::durable::{Summing, TemporaryFile, storage};
use crate::rows::Rows;

/// Bytes of rows that make a record batch: large enough that a scan stays in one slice for long, small enough to hold.
const BATCH_BYTES: usize = 64 << 20;
/// Alignment of buffers in the file: a cache line, which is also what a kernel's widest load wants.
const ALIGNMENT: usize = 64;

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Rows added.
    pub rows: usize,
    /// Rows the corpus has now.
    pub total_rows: usize,
    /// The corpus's version now.
    pub generation: u32,
    /// Segment files the corpus has now.
    pub segments: usize,
}

/// Rows on their way into one new segment.
pub struct Appender {
    corpus: Arc<Corpus>,
    dim: usize,
    /// Rows the corpus had when the append began: where numbering goes on.
    start: usize,
    accepted: usize,
    gathered: Rows,
    out: Option<Out>,
    failed: Option<Error>,
    /// Whether some rows came without ids and got row numbers.
    numbered: bool,
}

type Writer = FileWriter<Summing<BufWriter<File>>>;

/// The temporary file, from the first rows on.
struct Out {
    schema: SchemaRef,
    file: TemporaryFile,
    writer: Writer,
}

impl Appender {
    pub(crate) fn new(corpus: Arc<Corpus>) -> Result<Self, Error> {
        let view = corpus.version()?.view.clone();
        let (dim, start) = (view.dim(), view.rows());
        Ok(Self {
            corpus,
            dim,
            start,
            accepted: 0,
            gathered: Rows::default(),
            out: None,
            failed: None,
            numbered: false,
        })
    }

    /// Elements of an embedding of the corpus.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows accepted so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.accepted
    }

    /// Takes rows. All rows of one append have the same columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column and the row (within `rows`): nothing of `rows` is taken, and the append may
    /// go on. [`Error::Storage`] when the disk refuses: the append cannot be committed any more.
    pub fn push(&mut self, mut rows: Rows) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        rows.check(self.dim)?;
        if rows.is_empty() {
            return Ok(());
        }
        check_row_count(self.start, self.accepted + rows.len())?;
        if i32::try_from(rows.title_bytes()).is_err() {
            return Err(Error::field("titles", "more than 2 GiB at once; send fewer rows"));
        }
        self.check_columns(&rows)?;
        let count = rows.len();
        self.number(&mut rows);
        let result = self.take(rows);
        match &result {
            Ok(()) => self.accepted += count,
            Err(error) => self.failed = Some(error.clone()),
        }
        result
    }

    /// Makes the rows part of the corpus, lasting over a crash from the moment this returns.
    ///
    /// # Errors
    /// [`Error::Storage`] when the disk refuses, [`Error::CorpusNotFound`] when the corpus was dropped meanwhile,
    /// [`Error::Precondition`] when it grew while rows without ids were taken, whose numbers are others' now: nothing
    /// is kept.
    pub fn commit(mut self) -> Result<Appended, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.flush()?;
        let Some(Out { file, mut writer, .. }) = self.out else {
            let version = self.corpus.version()?;
            let (total_rows, generation) = (version.view.rows(), version.manifest.generation);
            return Ok(Appended { rows: 0, total_rows, generation, segments: version.manifest.segments.len() });
        };
        writer.finish().map_err(|error| cannot_write(&file, error))?;
        // Finishing has flushed: a refusal of the last bytes has been told.
        let (bytes, crc32) = writer.get_ref().sum();
        let numbered_from = self.numbered.then_some(self.start);
        self.corpus.publish(file, bytes, crc32, numbered_from)
    }

    /// Spells out ids and titles, so that batches can be put together.
    fn number(&mut self, rows: &mut Rows) {
        let first = (self.start + self.accepted) as u64;
        if rows.memory_ids.is_empty() {
            self.numbered = true;
            rows.memory_ids = (first..).take(rows.len()).collect();
        }
        if rows.titles.is_empty() {
            rows.titles.resize(rows.len(), String::new());
        }
    }

    fn check_columns(&self, rows: &Rows) -> Result<(), Error> {
        let Some(out) = &self.out else { return Ok(()) };
        let schema = rows.schema(self.dim);
        if schema == out.schema {
            return Ok(());
        }
        let names =
            |schema: &SchemaRef| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(", ");
        let (first, now) = (names(&out.schema), names(&schema));
        Err(Error::field("columns", format!("all rows of one append have the same: first {first}, now {now}")))
    }

    fn take(&mut self, rows: Rows) -> Result<(), Error> {
        if self.out.is_none() {
            self.out = Some(self.start_file(rows.schema(self.dim))?);
        }
        if !self.gathered.is_empty() && self.gathered.bytes() + rows.bytes() > BATCH_BYTES {
            self.flush()?;
        }
        self.gathered.extend(rows).map_err(|error| Error::Internal(error.to_string()))
    }

    fn start_file(&self, schema: SchemaRef) -> Result<Out, Error> {
        // A folder that is gone belongs to a corpus that was dropped, which says more than a missing file does.
        self.corpus.version()?;
        let folder = self.corpus.folder();
        let failed = |error: ArrowError| storage("cannot write in", folder)(std::io::Error::other(error));
        let file = TemporaryFile::create(folder).map_err(storage("cannot write in", folder))?;
        let handle = file.handle().map_err(storage("cannot write in", folder))?;
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).map_err(failed)?;
        let out = Summing::new(BufWriter::new(handle));
        let writer = FileWriter::try_new_with_options(out, &schema, options).map_err(failed)?;
        Ok(Out { schema, file, writer })
    }

    fn flush(&mut self) -> Result<(), Error> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let rows = std::mem::take(&mut self.gathered);
        if rows.is_empty() {
            return Ok(());
        }
        let batch = rows.into_batch(&out.schema, self.dim).map_err(|error| Error::Internal(error.to_string()))?;
        let written = out.writer.write(&batch);
        written.map_err(|error| self.corpus.version().err().unwrap_or_else(|| cannot_write(&out.file, error)))
    }
}

fn cannot_write(file: &TemporaryFile, error: ArrowError) -> Error {
    Error::Storage(format!("cannot write {}: {error}", file.path().display()))
}
