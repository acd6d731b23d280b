//! Parquet files, with the compressions snappy, zstd, lz4, gzip and brotli.

use std::fs::File;

use arrow_schema::extension::EXTENSION_TYPE_NAME_KEY;
use arrow_schema::{FieldRef, Schema};
use megaring_core::Error;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, LogicalType};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::SchemaDescriptor;

use super::batch::Batches;
use super::input::Input;
use super::{Chunk, ImportOptions, Source, chunk_rows};
use crate::columns::EMBEDDING;
use crate::fault::{Fault, guarded};
use crate::text_ids::UUID;

/// Rows of a batch at most: vectors may be short, further columns long.
const MAX_ROWS: usize = 8192;

/// A Parquet file.
pub(super) struct Parquet {
    reader: ParquetRecordBatchReader,
    batches: Batches,
    rows: u64,
    rows_total: u64,
    bytes_total: u64,
}

impl Parquet {
    pub(super) fn open(input: Input, options: &ImportOptions) -> Result<Self, Error> {
        let name = input.name().to_owned();
        let file = input.into_file()?;
        Self::read(file, &name, options).map_err(|fault| fault.into_invalid(&name))
    }

    fn read(file: File, name: &str, options: &ImportOptions) -> Result<Self, Fault> {
        let bytes_total = file.metadata().map_err(|error| super::lost(&error))?.len();
        // A schema of Arrow's may stand beside Parquet's own, which will do where that one has types nobody else knows.
        let open = |plain: bool| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(plain);
            guarded(|| Ok(ParquetRecordBatchReaderBuilder::try_new_with_options(file.try_clone()?, options)?))
        };
        let builder = open(false).or_else(|reason| open(true).map_err(|_| damaged(&reason)))?;
        let rows_total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let schema = marked(builder.schema(), builder.parquet_schema(), options.columns.id_column());
        let (places, batches) = Batches::open(name, &schema, options)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), places);
        check_codecs(builder.metadata(), &mask)?;
        let length = vector_length(builder.metadata(), options.columns.in_file(EMBEDDING));
        let size = chunk_rows(length).min(MAX_ROWS);
        let reader = guarded(|| Ok(builder.with_projection(mask).with_batch_size(size).build()?));
        Ok(Self { reader: reader.map_err(|reason| damaged(&reason))?, batches, rows: 0, rows_total, bytes_total })
    }
}

impl Source for Parquet {
    fn dim(&self) -> Option<usize> {
        self.batches.dim()
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let read = guarded(|| self.reader.next().transpose()).map_err(|reason| damaged(&reason))?;
        let Some(batch) = read else { return Ok(None) };
        self.rows += batch.num_rows() as u64;
        self.batches.convert(&batch).map(Some)
    }

    /// The share of rows, as bytes: pages are read out of order.
    fn bytes(&self) -> (u64, u64) {
        let share = u128::from(self.rows) * u128::from(self.bytes_total) / u128::from(self.rows_total.max(1));
        (share as u64, self.bytes_total)
    }

    fn notes(&self) -> Vec<String> {
        self.batches.notes()
    }
}

/// A file that cannot be read, less what the reader's layers are called.
fn damaged(reason: &str) -> Fault {
    let mut reason = reason;
    for layer in ["Parquet argument error: ", "Parquet error: ", "Arrow: ", "External: "] {
        reason = reason.strip_prefix(layer).unwrap_or(reason);
    }
    Fault::file(format!("it is damaged, or not of Parquet as it is known here ({reason}); write or copy it anew"))
}

/// The schema with its id column marked as of UUIDs, where Parquet's own says so.
fn marked(schema: &Schema, own: &SchemaDescriptor, id_column: Option<&str>) -> Schema {
    let is_uuid = |at: usize| {
        let own = own.root_schema().get_fields().get(at).map(|kind| kind.get_basic_info());
        own.is_some_and(|kind| kind.logical_type_ref() == Some(&LogicalType::Uuid))
    };
    let field = |(at, field): (usize, &FieldRef)| {
        let mut field = field.as_ref().clone();
        if id_column == Some(field.name()) && is_uuid(at) {
            field.metadata_mut().insert(EXTENSION_TYPE_NAME_KEY, UUID);
        }
        field
    };
    Schema::new(schema.fields().iter().enumerate().map(field).collect::<Vec<_>>())
}

/// Refuses what is compressed in a way that cannot be read, before any of it is.
fn check_codecs(metadata: &ParquetMetaData, mask: &ProjectionMask) -> Result<(), Fault> {
    for group in metadata.row_groups() {
        for (_, column) in group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf)) {
            if column.compression() == Compression::LZO {
                let name = column.column_path().parts().first().map_or("", String::as_str);
                let reason = "it is compressed with LZO, which cannot be read; write the file with zstd or snappy";
                return Err(Fault::column(name, reason));
            }
        }
    }
    Ok(())
}

/// Values of the column `embedding` for each row, on average.
fn vector_length(metadata: &ParquetMetaData, embedding: &str) -> usize {
    let (mut values, mut rows) = (0, 0);
    for group in metadata.row_groups() {
        let is_embedding = |path: &[String]| path.first().is_some_and(|name| name == embedding);
        values += group
            .columns()
            .iter()
            .filter(|c| is_embedding(c.column_path().parts()))
            .map(|c| c.num_values())
            .sum::<i64>();
        rows += group.num_rows();
    }
    usize::try_from(values / rows.max(1)).unwrap_or(0)
}
