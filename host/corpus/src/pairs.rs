//! Pairs of rows as a file for other programs: who is near whom.
//!
//! Arrow IPC and Parquet have the columns `row` and `neighbour` (uint32), their ids `memory_id` and `neighbour_id`
//! (uint64) and `score` (float32); where the corpus has an id column, `id` (text) stands in the place of `memory_id`,
//! and where the one searched has one, `neighbour_id` is text. `.npy` holds `<u4` of shape (pairs, 2), the row and its
//! neighbour.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use megaring_core::Error;

use crate::durable::storage;
use crate::export::{NewFile, Table, npy_header};
use crate::import::Format;

/// Pairs, column by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairs {
    /// The row.
    pub rows: Vec<u32>,
    /// Its id.
    pub memory_ids: Vec<u64>,
    /// The row near it.
    pub neighbours: Vec<u32>,
    /// That one's id.
    pub neighbour_ids: Vec<u64>,
    /// Their score.
    pub scores: Vec<f32>,
    /// The texts that the row's ids are, where its corpus has an id column.
    pub text_ids: Vec<String>,
    /// The same of the rows near them.
    pub neighbour_text_ids: Vec<String>,
}

/// A file of pairs in the making. It is there whole after [`Self::finish`], and not at all before.
pub struct PairFile {
    file: NewFile,
    schema: SchemaRef,
    /// Which of the ids are texts: the rows', and their neighbours'.
    texts: [bool; 2],
    sink: Sink,
    path: std::path::PathBuf,
}

enum Sink {
    Table(Box<Table>),
    Npy { out: BufWriter<File>, pairs: usize },
}

const NPY: &str = "<u4";

impl PairFile {
    /// Begins a file that is not there yet. `texts` says which ids are texts: the rows', and their neighbours'.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `path` where there is such a file, or `format` where pairs are not written so;
    /// [`Error::Storage`].
    pub fn create(path: &Path, format: Format, texts: [bool; 2]) -> Result<Self, Error> {
        let kind = |is_text| if is_text { DataType::Utf8 } else { DataType::UInt64 };
        let column = |name: &str, kind| Field::new(name, kind, false);
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            column("row", DataType::UInt32),
            column(if texts[0] { "id" } else { "memory_id" }, kind(texts[0])),
            column("neighbour", DataType::UInt32),
            column("neighbour_id", kind(texts[1])),
            column("score", DataType::Float32),
        ]));
        let file = NewFile::create(path)?;
        let handle = file.handle()?;
        let sink = match format {
            Format::Npy => {
                let mut out = BufWriter::new(handle);
                out.write_all(&npy_header(NPY, 0, 2)).map(|()| Sink::Npy { out, pairs: 0 })
            }
            other => match Table::open(handle, other, &schema) {
                Some(table) => table.map(Sink::Table),
                None => {
                    let reason = format!("pairs are written as arrow, parquet or npy, not as {other}");
                    return Err(Error::field("format", reason));
                }
            },
        };
        let sink = sink.map_err(storage("cannot write", path))?;
        Ok(Self { file, schema, texts, sink, path: path.to_owned() })
    }

    /// Adds pairs.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn push(&mut self, pairs: Pairs) -> Result<(), Error> {
        let (schema, texts) = (self.schema.clone(), self.texts);
        let ids = |is_text, numbers, texts: Vec<String>| -> ArrayRef {
            if is_text { Arc::new(StringArray::from(texts)) } else { Arc::new(UInt64Array::from(numbers)) }
        };
        let batch = |pairs: Pairs| {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(UInt32Array::from(pairs.rows)),
                ids(texts[0], pairs.memory_ids, pairs.text_ids),
                Arc::new(UInt32Array::from(pairs.neighbours)),
                ids(texts[1], pairs.neighbour_ids, pairs.neighbour_text_ids),
                Arc::new(Float32Array::from(pairs.scores)),
            ];
            RecordBatch::try_new(schema, columns).map_err(io::Error::other)
        };
        let written = match &mut self.sink {
            Sink::Table(table) => batch(pairs).and_then(|batch| table.put(&batch)),
            Sink::Npy { out, pairs: count } => {
                *count += pairs.rows.len();
                let mut both = pairs.rows.iter().zip(&pairs.neighbours).flat_map(|(row, near)| [*row, *near]);
                both.try_for_each(|number| out.write_all(&number.to_le_bytes()))
            }
        };
        written.map_err(storage("cannot write", &self.path))
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// As [`Self::create`] and [`Self::push`].
    pub fn finish(self) -> Result<(), Error> {
        let closed = match self.sink {
            Sink::Table(table) => table.close(),
            Sink::Npy { mut out, pairs } => {
                out.rewind().and_then(|()| out.write_all(&npy_header(NPY, pairs, 2))).and_then(|()| out.flush())
            }
        };
        closed.map_err(storage("cannot write", &self.path))?;
        self.file.publish()
    }
}
