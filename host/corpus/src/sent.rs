//! Columns as they travel: Arrow IPC streams of one record batch.

use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::ArrowError;
use megaring_core::Error;

use crate::columns::{has_coordinates, is_known};
use crate::fault::{Fault, guarded};
use crate::fetch::Fetched;
use crate::import::sent_batch;
use crate::piece::encode;
use crate::rows::{Further, Rows};

/// What a stream is called in messages.
const FIELD: &str = "columns";

impl Rows {
    /// Adds the columns of a stream that somebody sent, which has a row for each of these. An empty one has none.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `columns` for what is no such stream, is compressed or has dictionaries, and for a
    /// column that these rows have otherwise, or that comes twice.
    pub fn add_columns(&mut self, stream: &[u8]) -> Result<(), Error> {
        if stream.is_empty() {
            return Ok(());
        }
        let batch = sent_batch(stream).map_err(|fault| fault.into_invalid(FIELD))?;
        let (found, count) = (batch.num_rows(), self.len());
        if found != count {
            return Err(Error::field(FIELD, format!("{found} rows for {count} embeddings; one each is legal")));
        }
        let schema = batch.schema();
        let coordinates = self.coordinates.is_some() || has_coordinates(&schema);
        for (at, field) in schema.fields().iter().enumerate() {
            let name = field.name();
            let refused = |reason: &str| Err(Fault::column(name, reason).into_invalid(FIELD));
            if is_known(name, coordinates) {
                return refused("it has a field of its own");
            }
            if schema.fields()[..at].iter().any(|before| before.name() == name) {
                return refused("it comes twice");
            }
        }
        self.further = Further::new(batch);
        Ok(())
    }
}

impl Further {
    /// The columns of some of the rows as a stream; empty where there are no columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `columns` where Arrow cannot write one.
    pub fn to_stream(&self, rows: Range<usize>) -> Result<Vec<u8>, Error> {
        let stream = || match self.clone().whole()? {
            Some(batch) => encode(&batch.slice(rows.start, rows.len())),
            None => Ok(Vec::new()),
        };
        guarded(stream).map_err(|reason| Error::field(FIELD, reason))
    }
}

impl Fetched {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.num_rows()
    }

    /// Reads what [`Self::to_stream`] has made; an empty stream has no columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `columns` for what is no such stream.
    pub fn of_stream(stream: &[u8]) -> Result<Self, Error> {
        if stream.is_empty() {
            return Ok(Self(RecordBatch::new_empty(arrow_schema::Schema::empty().into())));
        }
        let read = || {
            let mut batches = StreamReader::try_new(stream, None)?;
            batches.next().ok_or_else(|| ArrowError::IpcError("it has no record batch".into()))?
        };
        guarded(read).map(Self).map_err(|reason| Error::field(FIELD, reason))
    }
}
