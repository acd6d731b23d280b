//! Export: a corpus's rows as a file for other programs.
//!
//! | format | what is written |
//! |---|---|
//! | Arrow IPC file, Parquet (snappy) | every column that all rows have, ids among them |
//! | `.npy` | the vectors, `<f4` (bits `|u1`, their bytes), C order |
//! | `.fvecs` | the vectors, each behind its dimension |
//!
//! The file is there whole or not at all, and never takes the place of another.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Date64Type;
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, RecordBatch, new_null_array};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use megaring_core::{Element, Error, RowType};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::columns::EMBEDDING;
use crate::corpus::Corpus;
use crate::durable::{TemporaryFile, storage, sync_folder};
use crate::fault::guarded;
use crate::fetch::Fetched;
use crate::import::{Format, rows_of};
use crate::piece::Piece;
use crate::rows::Rows;
use crate::version::Version;

/// Rows that are converted at a time.
const RUN_ROWS: usize = 8192;

/// What is written to.
enum Sink {
    Table(Box<Table>),
    Npy(BufWriter<File>),
    Fvecs(BufWriter<File>),
}

/// A file of record batches.
pub(crate) enum Table {
    Arrow(FileWriter<BufWriter<File>>),
    Parquet(ArrowWriter<File>),
}

impl Table {
    /// `None` for a format of another kind.
    pub(crate) fn open(file: File, format: Format, schema: &SchemaRef) -> Option<io::Result<Box<Self>>> {
        match format {
            Format::ArrowFile => {
                let writer = FileWriter::try_new(BufWriter::new(file), schema);
                Some(writer.map(|writer| Box::new(Self::Arrow(writer))).map_err(io::Error::other))
            }
            Format::Parquet => {
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(parquet_properties()));
                Some(writer.map(|writer| Box::new(Self::Parquet(writer))).map_err(io::Error::other))
            }
            _ => None,
        }
    }

    pub(crate) fn put(&mut self, batch: &RecordBatch) -> io::Result<()> {
        match self {
            Self::Arrow(writer) => writer.write(batch).map_err(io::Error::other),
            Self::Parquet(writer) => {
                check_days(batch).map_err(io::Error::other)?;
                writer.write(batch).map_err(io::Error::other)
            }
        }
    }

    pub(crate) fn close(self: Box<Self>) -> io::Result<()> {
        match *self {
            Self::Arrow(mut writer) => writer.finish().map_err(io::Error::other),
            Self::Parquet(writer) => writer.close().map(|_| ()).map_err(io::Error::other),
        }
    }
}

/// Dates are dates, of which Parquet has one type alone, and the names within lists and maps are the specification's.
fn parquet_properties() -> WriterProperties {
    WriterProperties::builder().set_compression(Compression::SNAPPY).set_coerce_types(true).build()
}

/// Parquet's dates have no time of day, and an Arrow date of milliseconds may.
fn check_days(batch: &RecordBatch) -> Result<(), String> {
    const DAY: i64 = 86_400_000;
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let mut days = column.as_primitive_opt::<Date64Type>().into_iter().flatten().flatten();
        if days.any(|day| day % DAY != 0) {
            return Err(format!(
                "column {} has dates with a time of day, which Parquet does not keep; arrow does",
                field.name()
            ));
        }
    }
    Ok(())
}

/// Refuses a column of a type that Parquet does not have, before anything of it is written: a row without a value
/// tells.
fn check_parquet(schema: &Schema) -> Result<(), Error> {
    for field in schema.fields() {
        let nullable = Schema::new(vec![field.as_ref().clone().with_nullable(true)]).into();
        let row = || {
            let batch = RecordBatch::try_new(Arc::clone(&nullable), vec![new_null_array(field.data_type(), 1)])?;
            let mut writer = ArrowWriter::try_new(io::sink(), nullable.clone(), Some(parquet_properties()))?;
            writer.write(&batch)?;
            Ok(writer.close().map(drop)?)
        };
        if guarded(row).is_err() {
            let reason = format!("{} is not written as parquet; arrow keeps it", field.data_type());
            return Err(Error::field("format", format!("column {}: its type {reason}", field.name())));
        }
    }
    Ok(())
}

/// Writes the current version of a corpus; the number of its rows comes back.
pub(crate) fn export(corpus: &Corpus, path: &Path, format: Format) -> Result<usize, Error> {
    corpus.read_files(|version| export_version(corpus, version, path, format))
}

fn export_version(corpus: &Corpus, version: &Version, path: &Path, format: Format) -> Result<usize, Error> {
    let file = NewFile::create(path)?;
    let schema = in_file(&shared_schema(version), version.view.row_type());
    let refused = || storage("cannot write", path);
    let (rows, row_type) = (version.view.visible_rows(), version.view.row_type());
    let mut sink = Sink::open(&file, format, (rows, row_type), &schema)?;
    for (piece, start) in version.pieces.iter().zip(version.starts()) {
        let put = |rows| sink.put(rows, row_type, &schema).map_err(refused());
        piece.for_each_run(corpus.folder(), row_type, RUN_ROWS, (start, &version.deleted), put)?;
    }
    sink.close().map_err(refused())?;
    file.publish()?;
    Ok(rows)
}

/// An export of rows that come from elsewhere, in the making. It is there whole after [`Self::finish`], and not at all
/// before.
pub struct ExportFile {
    file: NewFile,
    format: Format,
    rows: usize,
    row_type: RowType,
    sink: Option<(Sink, SchemaRef)>,
}

impl ExportFile {
    /// Begins a file that is not there yet, for so many rows of a type.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `path` where there is such a file, or `format` where rows are not written so;
    /// [`Error::Storage`].
    pub fn create(path: &Path, format: Format, rows: usize, row_type: RowType) -> Result<Self, Error> {
        let file = NewFile::create(path)?;
        // Judges the format; what the columns are shows with the first rows.
        Sink::open(&file, format, (rows, row_type), &in_file(&schema_of_none(row_type), row_type))?;
        Ok(Self { file, format, rows, row_type, sink: None })
    }

    /// Adds rows, with their embeddings and always the same columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for columns that are no corpus's; [`Error::Storage`].
    pub fn push(&mut self, fetched: &Fetched) -> Result<(), Error> {
        let rows = rows_of(&fetched.0, self.row_type).map_err(|fault| fault.into_invalid("columns"))?;
        let (mut sink, schema) = match self.sink.take() {
            Some(begun) => begun,
            None => self.begin(in_file(&rows.schema(self.row_type), self.row_type))?,
        };
        sink.put(rows, self.row_type, &schema).map_err(storage("cannot write", &self.file.path))?;
        self.sink = Some((sink, schema));
        Ok(())
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// As [`Self::create`] and [`Self::push`].
    pub fn finish(mut self) -> Result<(), Error> {
        let (sink, _) = match self.sink.take() {
            Some(begun) => begun,
            None => self.begin(in_file(&schema_of_none(self.row_type), self.row_type))?,
        };
        sink.close().map_err(storage("cannot write", &self.file.path))?;
        self.file.publish()
    }

    fn begin(&self, schema: SchemaRef) -> Result<(Sink, SchemaRef), Error> {
        let mut file = self.file.handle()?;
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.map_err(storage("cannot write", &self.file.path))?;
        Ok((Sink::open(&self.file, self.format, (self.rows, self.row_type), &schema)?, schema))
    }
}

/// A file that is there whole or not at all, and takes no other's place.
pub(crate) struct NewFile {
    path: PathBuf,
    folder: PathBuf,
    temporary: TemporaryFile,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            return Err(exists(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = TemporaryFile::create(folder).map_err(storage("cannot write in", folder))?;
        Ok(Self { path: path.to_owned(), folder: folder.to_owned(), temporary })
    }

    pub(crate) fn handle(&self) -> Result<File, Error> {
        self.temporary.handle().map_err(storage("cannot write", &self.path))
    }

    pub(crate) fn publish(self) -> Result<(), Error> {
        self.temporary.sync().map_err(storage("cannot write", &self.path))?;
        let Self { path, folder, temporary } = self;
        // A link, unlike a rename, does not replace what came there meanwhile.
        match std::fs::hard_link(temporary.path(), &path) {
            Err(_) if path.exists() => return Err(exists(&path)),
            // There are file systems without links.
            Err(_) => temporary.rename(&path).map_err(storage("cannot write", &path))?,
            Ok(()) => {}
        }
        sync_folder(&folder).map_err(storage("cannot write", &path))
    }
}

fn exists(path: &Path) -> Error {
    Error::field("path", format!("{} exists already", path.display()))
}

/// The columns that all rows have, with one type.
fn shared_schema(version: &Version) -> SchemaRef {
    let mut forms = version.pieces.iter().map(Piece::form);
    let Some(first) = forms.next() else { return schema_of_none(version.view.row_type()) };
    let others: Vec<&SchemaRef> = forms.collect();
    let has = |form: &&SchemaRef, field: &Field| form.field_with_name(field.name()).is_ok_and(|own| own == field);
    let shared = |field: &&std::sync::Arc<Field>| others.iter().all(|form| has(form, field));
    let fields: Vec<_> = first.fields().iter().filter(shared).cloned().collect();
    Schema::new(fields).into()
}

/// The columns of a corpus without rows.
fn schema_of_none(row_type: RowType) -> SchemaRef {
    Rows { memory_ids: vec![0], ..Rows::default() }.schema(row_type)
}

/// The rows' columns that `schema` has.
fn columns(rows: Rows, row_type: RowType, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let batch = rows.with_titles().into_batch_of(row_type)?;
    let column = |field: &Arc<Field>| {
        let column = batch.column(batch.schema_ref().index_of(field.name())?);
        let DataType::FixedSizeBinary(bytes) = *field.data_type() else { return Ok(column.clone()) };
        if field.name() != EMBEDDING {
            return Ok(column.clone());
        }
        // Without what fills up the last word.
        let rows = column.as_fixed_size_binary();
        let cut: Vec<u8> = (0..rows.len()).flat_map(|row| &rows.value(row)[..bytes as usize]).copied().collect();
        Ok(Arc::new(FixedSizeBinaryArray::try_new(bytes, cut.into(), None)?) as ArrayRef)
    };
    let columns: Result<Vec<ArrayRef>, ArrowError> = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(schema.clone(), columns?)
}

/// The columns of a file that has those of a schema: bits are as many bytes as they need.
fn in_file(schema: &SchemaRef, row_type: RowType) -> SchemaRef {
    let field = |field: &Arc<Field>| match row_type.element {
        Element::Bit if field.name() == EMBEDDING => {
            let kind = DataType::FixedSizeBinary((row_type.dim / 8) as i32);
            Arc::new(field.as_ref().clone().with_data_type(kind))
        }
        _ => field.clone(),
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()).into()
}

impl Sink {
    /// An error for a format that is not written.
    fn open(
        file: &NewFile,
        format: Format,
        (rows, row_type): (usize, RowType),
        schema: &SchemaRef,
    ) -> Result<Self, Error> {
        if format == Format::Parquet {
            check_parquet(schema)?;
        }
        let handle = file.handle()?;
        let is_bits = row_type.element == Element::Bit;
        let opened = match format {
            Format::Npy => {
                let mut out = BufWriter::new(handle);
                let (kind, columns) = if is_bits { ("|u1", row_type.dim / 8) } else { ("<f4", row_type.dim) };
                out.write_all(&npy_header(kind, rows, columns)).map(|()| Self::Npy(out))
            }
            Format::Fvecs if !is_bits => Ok(Self::Fvecs(BufWriter::new(handle))),
            other => match Table::open(handle, other, schema) {
                Some(table) => table.map(Self::Table),
                None => {
                    let reason = format!(
                        "{other} is not written of {}; arrow, parquet, npy{} are",
                        row_type.element,
                        if is_bits { "" } else { " and fvecs" }
                    );
                    return Err(Error::field("format", reason));
                }
            },
        };
        opened.map_err(storage("cannot write", &file.path))
    }

    fn put(&mut self, rows: Rows, row_type: RowType, schema: &SchemaRef) -> io::Result<()> {
        let width = row_type.width().max(1);
        match self {
            Self::Table(table) => table.put(&columns(rows, row_type, schema).map_err(io::Error::other)?),
            Self::Npy(out) => match row_type.element {
                Element::Float32 => put_values(out, &rows.embeddings.values),
                Element::Bit => rows.embeddings.values.chunks_exact(width).try_for_each(|row| {
                    let bytes: &[u8] = bytemuck::cast_slice(row);
                    out.write_all(&bytes[..row_type.dim / 8])
                }),
            },
            Self::Fvecs(out) => rows.embeddings.values.chunks_exact(width).try_for_each(|row| {
                out.write_all(&(width as u32).to_le_bytes())?;
                put_values(out, row)
            }),
        }
    }

    fn close(self) -> io::Result<()> {
        match self {
            Self::Table(table) => table.close(),
            Self::Npy(mut out) | Self::Fvecs(mut out) => out.flush(),
        }
    }
}

fn put_values(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

/// The header of version 1.0, of the same length whatever the number of rows: values begin at byte 128.
pub(crate) fn npy_header(descr: &str, rows: usize, dim: usize) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let (prefix, whole) = (10, 128);
    text.extend(std::iter::repeat_n(' ', whole - prefix - text.len() - 1));
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}
