//! Parquet files, with the compressions snappy, zstd, lz4 and gzip.

use std::path::Path;

use megaring_core::Error;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ParquetMetaData;

use super::batch::Batches;
use super::{Chunk, Source, chunk_rows, open_file, shown};
use crate::columns::EMBEDDING;
use crate::fault::{Fault, guarded};

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
    pub(super) fn open(path: &Path, dim: Option<usize>) -> Result<Self, Error> {
        let file = open_file(path)?;
        let name = shown(path);
        let bytes_total = file.metadata().map_err(|error| super::unreadable(path, &error))?.len();
        let invalid = |reason: String| Fault::file(reason).into_invalid(&name);
        let builder = guarded(|| Ok(ParquetRecordBatchReaderBuilder::try_new(file)?)).map_err(invalid)?;
        let rows_total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let size = chunk_rows(vector_length(builder.metadata())).min(MAX_ROWS);
        let reader = guarded(|| Ok(builder.with_batch_size(size).build()?)).map_err(invalid)?;
        Ok(Self { reader, batches: Batches::new(name, dim), rows: 0, rows_total, bytes_total })
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let Some(batch) = guarded(|| self.reader.next().transpose()).map_err(Fault::file)? else { return Ok(None) };
        self.rows += batch.num_rows() as u64;
        self.batches.convert(&batch).map(Some)
    }
}

impl Source for Parquet {
    fn dim(&self) -> Option<usize> {
        self.batches.dim()
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(self.batches.file()))
    }

    /// The share of rows, as bytes: pages are read out of order.
    fn bytes_read(&self) -> u64 {
        let share = u128::from(self.rows) * u128::from(self.bytes_total) / u128::from(self.rows_total.max(1));
        share as u64
    }

    fn notes(&self) -> Vec<String> {
        self.batches.notes()
    }
}

/// Values of the embedding column for each row, on average.
fn vector_length(metadata: &ParquetMetaData) -> usize {
    let (mut values, mut rows) = (0, 0);
    for group in metadata.row_groups() {
        let is_embedding = |path: &[String]| path.first().is_some_and(|name| name == EMBEDDING);
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
