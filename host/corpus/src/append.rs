//! An append in the making: rows are checked, gathered and, where they are many, written through to a segment file. Few
//! rows go into the corpus's log.
//!
//! Dropping an [`Appender`] leaves the corpus as it was. Any number may be open on one corpus; they commit one after
//! another.

use std::sync::Arc;

use megaring_core::{Error, RowType};

use crate::columns::MEMORY_ID;
use crate::corpus::{Corpus, check_row_count};
use crate::rows::Rows;
use crate::segment_writer::SegmentWriter;

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Rows added, and still there.
    pub rows: usize,
    /// Rows of before whose place they took.
    pub replaced: usize,
    /// Rows the corpus has now.
    pub total_rows: usize,
    /// The corpus's version now.
    pub generation: u32,
    /// Files with rows that the corpus has now.
    pub segments: usize,
}

/// What becomes of rows that have the id of a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They stay beside it, unless the corpus has each id once: then the new row is refused.
    Append,
    /// They are deleted. Of new rows with one id the last stays.
    Upsert,
}

/// Rows on their way into a corpus.
pub struct Appender {
    corpus: Arc<Corpus>,
    mode: Mode,
    row_type: RowType,
    id_column: Option<String>,
    /// Rows the corpus had when the append began.
    start: usize,
    accepted: usize,
    writer: SegmentWriter,
    failed: Option<Error>,
}

impl Appender {
    pub(crate) fn new(corpus: Arc<Corpus>, mode: Mode) -> Result<Self, Error> {
        let view = corpus.version()?.view.clone();
        let (row_type, start, id_column) = (view.row_type(), view.rows(), view.id_column().map(str::to_owned));
        let writer = SegmentWriter::new(corpus.folder(), row_type);
        Ok(Self { corpus, mode, row_type, id_column, start, accepted: 0, writer, failed: None })
    }

    /// What the corpus's rows are.
    #[must_use]
    pub fn row_type(&self) -> RowType {
        self.row_type
    }

    /// Rows accepted so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.accepted
    }

    /// Takes rows. All rows of one append have the same columns; so all have ids, or none. Where the corpus has an id
    /// column, all have it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column and the row (within `rows`): nothing of `rows` is taken, and the append may
    /// go on. [`Error::Storage`] when the disk refuses: the append cannot be committed any more.
    pub fn push(&mut self, rows: Rows) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        rows.check(self.row_type)?;
        let rows = rows.identified(self.id_column.as_deref())?;
        if rows.is_empty() {
            return Ok(());
        }
        if self.mode == Mode::Upsert && rows.memory_ids.is_empty() {
            return Err(Error::field(MEMORY_ID, "rows that take the place of others need ids"));
        }
        check_row_count(self.start, self.accepted + rows.len())?;
        if i32::try_from(rows.title_bytes()).is_err() {
            return Err(Error::field("titles", "more than 2 GiB at once; send fewer rows"));
        }
        self.writer.check_columns(&rows)?;
        // A folder that is gone belongs to a corpus that was dropped, which says more than a missing file does.
        self.corpus.version()?;
        let count = rows.len();
        let result = self.writer.push(rows).map_err(|error| self.corpus.version().err().unwrap_or(error));
        match &result {
            Ok(()) => self.accepted += count,
            Err(error) => self.failed = Some(error.clone()),
        }
        result
    }

    /// Makes the rows part of the corpus, lasting over a crash from the moment this returns. Rows without ids get those
    /// of their place in the corpus now.
    ///
    /// # Errors
    /// [`Error::Storage`] when the disk refuses, [`Error::CorpusNotFound`] when the corpus was dropped meanwhile,
    /// [`Error::Invalid`] naming `memory_id` or `ids` and the row, counted from the first that was pushed, where the
    /// corpus has each id once and an append brings one that is there: nothing is kept.
    pub fn commit(mut self) -> Result<Appended, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let appended = match self.writer.take_small(self.corpus.small_bytes()) {
            Some(rows) => self.corpus.commit_rows(rows, self.mode),
            None => match self.writer.finish() {
                Ok(Some(written)) => self.corpus.commit_file(written, self.mode),
                Ok(None) => self.corpus.commit_rows(Rows::default(), self.mode),
                Err(error) => Err(self.corpus.version().err().unwrap_or(error)),
            },
        };
        if appended.is_ok() {
            self.corpus.clone().merge_soon();
        }
        appended
    }
}
