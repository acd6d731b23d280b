//! NumPy's archives (`.npz`): zip files of `.npy` members, stored or deflated. One of them is the matrix of vectors;
//! those of one axis and as many values are columns beside it.
//!
//! All members are read side by side, chunk by chunk, each from its own place in the file, and handed on as record
//! batches.

use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow_array::{ArrayRef, BooleanArray, FixedSizeListArray, PrimitiveArray, RecordBatch, StringArray};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flate2::bufread::DeflateDecoder;
use megaring_core::Error;
use megaring_core::matrix::MAX_DIM;
use rawzip::{CompressionMethod, FileReader, RangeReader, ZipArchive, ZipFileHeaderRecord};

use super::batch::Batches;
use super::input::Input;
use super::kinds::Kind;
use super::npy::Header;
use super::selection::way_out;
use super::{Chunk, ImportOptions, Source, chunk_rows, lost};
use crate::columns::{self, COORDINATES, EMBEDDING};
use crate::fault::Fault;

/// What a zip file with members begins with.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
/// How the names of arrays end in an archive.
const SUFFIX: &str = ".npy";
/// Most bytes of a row, in all members.
const MAX_ROW: usize = 64 << 20;

/// Most arrays of an archive: each is read through a buffer of its own.
const MAX_MEMBERS: usize = 1024;

/// An archive being read.
pub(super) struct Npz {
    /// Those that are read, the vectors among them.
    members: Vec<Member>,
    schema: SchemaRef,
    batches: Batches,
    notes: Vec<String>,
    row_bytes: usize,
    rows: usize,
    rows_total: usize,
    bytes_total: u64,
}

/// An array of the archive, read up to its next value.
struct Member {
    name: String,
    shape: Vec<usize>,
    header: Header,
    values: Values,
    reader: Box<dyn Read + Send>,
}

/// An array by its name, without the suffix; or why it cannot be read.
type Found = (String, Result<Member, Fault>);

/// How the bytes of values become a column.
struct Values {
    /// Bytes of one.
    size: usize,
    /// Bytes that are in the other order, each so many; 1 where none are.
    unit: usize,
    convert: Convert,
}

enum Convert {
    Whole(fn(Buffer) -> ArrayRef),
    /// Unicode, four bytes a character.
    Text,
    /// Bytes that are to be UTF-8.
    Bytes,
}

impl Npz {
    pub(super) fn open(input: Input, options: &ImportOptions) -> Result<Self, Error> {
        let name = input.name().to_owned();
        let file = input.into_file()?;
        Self::read(file, &name, options).map_err(|fault| fault.into_invalid(&name))
    }

    fn read(file: File, file_name: &str, options: &ImportOptions) -> Result<Self, Fault> {
        let columns = &options.columns;
        let bytes_total = file.metadata().map_err(|error| lost(&error))?.len();
        let mut found = members(file)?;
        let here: Vec<_> = found.iter().filter_map(|(name, _)| columns.name(name)).collect();
        let has_coordinates = COORDINATES.iter().all(|axis| here.contains(axis));
        let axes = |member: &Result<Member, Fault>| member.as_ref().map_or(0, |member| member.shape.len());
        let vectors = columns.matrix(found.iter().map(|(name, member)| (name.as_str(), axes(member))))?;
        let at = found.iter().position(|(name, _)| name == vectors).unwrap_or(0);
        let (name, member) = found.remove(at);
        let (rows_total, member) = member.and_then(Member::matrix).map_err(|fault| of_member(&name, fault))?;
        let mut members = vec![Member { name: columns.in_file(EMBEDDING).to_owned(), ..member }];
        let mut notes = Vec::new();
        for (name, member) in found {
            match (member.and_then(|member| member.column(rows_total)), columns.name(&name)) {
                (Ok(member), _) => members.push(member),
                (Err(fault), Some(here)) if columns::is_known(here, has_coordinates) => {
                    let help = way_out(here, &name);
                    return Err(Fault::column(&name, format!("{}; {help}", fault.reason)));
                }
                (Err(fault), Some(_)) => {
                    notes.push(format!("{file_name}: {name} is not stored: {}", fault.reason));
                }
                (Err(_), None) => {}
            }
        }
        let schema = Schema::new(members.iter().map(Member::field).collect::<Result<Vec<_>, _>>()?);
        let (places, batches) = Batches::open(file_name, &schema, options)?;
        let schema = schema.project(&places).map_err(|error| Fault::file(error.to_string()))?.into();
        let mut members: Vec<_> = members.into_iter().map(Some).collect();
        let members: Vec<_> = places.iter().filter_map(|place| members.get_mut(*place)?.take()).collect();
        let row_bytes = members.iter().map(Member::row_bytes).fold(0, usize::saturating_add);
        if row_bytes > MAX_ROW {
            return Err(Fault::file(format!("each row claims {row_bytes} bytes; {MAX_ROW} are possible")));
        }
        Ok(Self { members, schema, batches, notes, row_bytes, rows: 0, rows_total, bytes_total })
    }
}

impl Source for Npz {
    fn dim(&self) -> Option<usize> {
        self.batches.dim()
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let rows = chunk_rows(self.row_bytes.div_ceil(4)).min(self.rows_total - self.rows);
        if rows == 0 {
            self.members.iter_mut().try_for_each(Member::finish)?;
            return Ok(None);
        }
        let start = self.rows;
        let arrays = self.members.iter_mut().map(|member| member.take(rows).map_err(|fault| fault.shifted(start)));
        let batch = RecordBatch::try_new(self.schema.clone(), arrays.collect::<Result<_, _>>()?);
        self.rows += rows;
        self.batches.convert(&batch.map_err(|error| Fault::file(error.to_string()))?).map(Some)
    }

    /// The share of rows, as bytes: members lie one behind another.
    fn bytes(&self) -> (u64, u64) {
        let share = self.rows as u128 * u128::from(self.bytes_total) / self.rows_total.max(1) as u128;
        (share as u64, self.bytes_total)
    }

    fn notes(&self) -> Vec<String> {
        [self.notes.clone(), self.batches.notes()].concat()
    }
}

/// The arrays of an archive.
fn members(file: File) -> Result<Vec<Found>, Fault> {
    let broken = |error: rawzip::Error| Fault::file(format!("it is no .npz file, or truncated: {error}"));
    let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
    let copy = Arc::new(FileReader::from(file.try_clone().map_err(|error| lost(&error))?));
    let archive = ZipArchive::from_file(file, &mut buffer).map_err(broken)?;
    let mut members: Vec<Found> = Vec::new();
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(broken)? {
        let path = entry.file_path();
        let Some(name) = std::str::from_utf8(path.as_ref()).ok().and_then(|path| path.strip_suffix(SUFFIX)) else {
            continue;
        };
        if members.iter().any(|(known, _)| known == name) {
            return Err(Fault::column(name, "the file has this array twice"));
        }
        if members.len() == MAX_MEMBERS {
            return Err(Fault::file(format!("it holds more than {MAX_MEMBERS} arrays")));
        }
        members.push((name.to_owned(), Member::open(name, &entry, &archive, &copy)));
    }
    if members.is_empty() {
        return Err(Fault::file(format!("it is a zip file that holds no arrays, whose names would end in {SUFFIX}")));
    }
    Ok(members)
}

/// A fault of one member.
fn of_member(name: &str, fault: Fault) -> Fault {
    Fault { column: Some(name.to_owned()), ..fault }
}

impl Member {
    fn open(
        name: &str,
        entry: &ZipFileHeaderRecord<'_>,
        archive: &ZipArchive<FileReader>,
        file: &Arc<FileReader>,
    ) -> Result<Self, Fault> {
        if entry.flags().is_encrypted() {
            return Err(Fault::file("it is encrypted"));
        }
        let broken = |error| Fault::file(format!("it is corrupt or truncated: {error}"));
        let found = archive.get_entry(entry.wayfinder()).map_err(broken)?;
        let (start, end) = found.compressed_data_range();
        let stored = BufReader::with_capacity(64 << 10, RangeReader::new(Arc::clone(file), start..end));
        let mut reader: Box<dyn Read + Send> = match entry.compression_method() {
            CompressionMethod::STORE => Box::new(found.verifying_reader(stored)),
            CompressionMethod::DEFLATE => Box::new(found.verifying_reader(DeflateDecoder::new(stored))),
            other => {
                let reason = format!("it is compressed by method {other}; none and deflate are known");
                return Err(Fault::file(reason));
            }
        };
        let header = Header::read(&mut reader)?;
        let (values, shape) = (Values::of(header.dtype()?)?, header.shape()?);
        Ok(Self { name: name.to_owned(), header, shape, values, reader })
    }

    /// The member as the matrix of vectors, and its rows.
    fn matrix(self) -> Result<(usize, Self), Fault> {
        let (rows, _) = self.header.matrix()?;
        Ok((rows, self))
    }

    /// The member as a column of so many rows.
    fn column(self, rows: usize) -> Result<Self, Fault> {
        match self.shape.as_slice() {
            [length] if *length == rows => Ok(self),
            [length] => Err(Fault::file(format!("it has {length} values for {rows} rows"))),
            axes => Err(Fault::file(format!("it has {} axes, a column has one", axes.len()))),
        }
    }

    /// Elements of a row's list, where a row has one.
    fn width(&self) -> Option<usize> {
        self.shape.get(1).copied()
    }

    fn row_bytes(&self) -> usize {
        self.width().unwrap_or(1).saturating_mul(self.values.size)
    }

    fn field(&self) -> Result<Field, Fault> {
        let element = self.values.convert(&self.name, 0, Buffer::from(MutableBuffer::new(0)))?;
        let kind = match self.width() {
            None => element.data_type().clone(),
            Some(dim) => {
                let width = i32::try_from(dim).map_err(|_| {
                    Fault::column(&self.name, format!("its vectors have {dim} elements; 1 to {MAX_DIM} are possible"))
                })?;
                DataType::FixedSizeList(Arc::new(element_field(&element)), width)
            }
        };
        Ok(Field::new(&self.name, kind, true))
    }

    /// The next rows.
    fn take(&mut self, rows: usize) -> Result<ArrayRef, Fault> {
        let mut bytes = MutableBuffer::from_len_zeroed(rows * self.row_bytes());
        self.reader.read_exact(&mut bytes).map_err(|error| self.broken(&error))?;
        if self.values.unit > 1 {
            bytes.chunks_exact_mut(self.values.unit).for_each(<[u8]>::reverse);
        }
        let values = self.values.convert(&self.name, rows * self.width().unwrap_or(1), bytes.into())?;
        let Some(dim) = self.width() else { return Ok(values) };
        let lists = FixedSizeListArray::try_new(Arc::new(element_field(&values)), dim as i32, values, None);
        Ok(Arc::new(lists.map_err(|error| Fault::column(&self.name, error.to_string()))?))
    }

    /// Reads to the end, where the checksum is compared.
    fn finish(&mut self) -> Result<(), Fault> {
        match self.reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Fault::column(&self.name, "it does not end with its last row")),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn broken(&self, error: &std::io::Error) -> Fault {
        Fault::column(&self.name, format!("it is corrupt or truncated: {error}"))
    }
}

fn element_field(element: &ArrayRef) -> Field {
    Field::new("item", element.data_type().clone(), false)
}

impl Values {
    fn of(dtype: &str) -> Result<Self, Fault> {
        if let Some((kind, is_swapped)) = Kind::of_npy(dtype) {
            let unit = if is_swapped { kind.size } else { 1 };
            return Ok(Self { size: kind.size, unit, convert: Convert::Whole(kind.column) });
        }
        let unit = |size: usize| if dtype.starts_with('>') { size } else { 1 };
        let whole = |size, column| Self { size, unit: unit(size), convert: Convert::Whole(column) };
        let known = match dtype.trim_start_matches(['<', '>', '|']) {
            "b1" => Some(whole(1, booleans)),
            "M8[s]" => Some(whole(8, times::<TimestampSecondType>)),
            "M8[ms]" => Some(whole(8, times::<TimestampMillisecondType>)),
            "M8[us]" => Some(whole(8, times::<TimestampMicrosecondType>)),
            "M8[ns]" => Some(whole(8, times::<TimestampNanosecondType>)),
            text => {
                let length = |kind| text.strip_prefix(kind).and_then(|length| length.parse::<usize>().ok());
                let bytes = length('S').map(|size| Self { size, unit: 1, convert: Convert::Bytes });
                let texts = length('U').map(|n| (n.saturating_mul(4), unit(4)));
                bytes.or(texts.map(|(size, unit)| Self { size, unit, convert: Convert::Text }))
            }
        };
        match (known, dtype) {
            (Some(values), _) => Ok(values),
            (_, "|O") => Err(Fault::file("its values are pickled Python objects; save it with another dtype")),
            _ => Err(Fault::file(format!("its dtype is {dtype:?}; numbers, truth values, times and texts are known"))),
        }
    }

    /// The column of `count` values; a row named in a fault is one of them.
    fn convert(&self, name: &str, count: usize, bytes: Buffer) -> Result<ArrayRef, Fault> {
        // Values may be of no bytes at all: the empty text.
        let texts = |decode: fn(&[u8]) -> Option<String>| {
            let text = |row: usize| {
                let text = decode(&bytes[row * self.size..(row + 1) * self.size]);
                text.ok_or_else(|| Fault::value(name, row, "it is no Unicode text"))
            };
            let texts = (0..count).map(text).collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StringArray::from(texts)) as ArrayRef)
        };
        match self.convert {
            Convert::Whole(column) => Ok(column(bytes)),
            Convert::Text => texts(|bytes| {
                let characters = bytes.as_chunks().0.iter().map(|bytes| char::from_u32(u32::from_le_bytes(*bytes)));
                let text: String = characters.collect::<Option<_>>()?;
                Some(text.trim_end_matches('\0').to_owned())
            }),
            Convert::Bytes => texts(|bytes| Some(std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').to_owned())),
        }
    }
}

fn booleans(bytes: Buffer) -> ArrayRef {
    Arc::new(BooleanArray::from(bytes.iter().map(|byte| *byte != 0).collect::<Vec<_>>()))
}

/// NumPy has a time that is none.
fn times<T: ArrowPrimitiveType<Native = i64>>(bytes: Buffer) -> ArrayRef {
    let times = PrimitiveArray::<T>::new(bytes.into(), None);
    Arc::new(times.unary_opt::<_, T>(|time| (time != i64::MIN).then_some(time)))
}
