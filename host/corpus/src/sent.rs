//! Columns as they travel: Arrow IPC streams of one record batch.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType, FieldRef, Fields, Schema};
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
            Some(batch) => encode(&plain(&batch.slice(rows.start, rows.len()))?),
            None => Ok(Vec::new()),
        };
        guarded(stream).map_err(|reason| Error::field(FIELD, reason))
    }
}

/// The same values without dictionaries, runs and views of lists, at any depth: nobody knows what those would take.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let fields: Fields = batch.schema_ref().fields().iter().map(plain_field).collect();
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = |(array, field): (&ArrayRef, &FieldRef)| cast_with_options(array, field.data_type(), &strict);
    let columns = batch.columns().iter().zip(&fields).map(column).collect::<Result<_, _>>()?;
    RecordBatch::try_new(Schema::new(fields).into(), columns)
}

fn plain_field(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())))
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(plain_field(item), *len),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
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
