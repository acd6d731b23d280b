//! A segment file read in place: each of its record batches is one contiguous part of the corpus.
//!
//! Two strictnesses: [`Layout`] and types are checked always; values (finite, no nulls where there may be none) when
//! asked, that is before a file becomes part of a corpus and when it is verified.

use std::any::Any;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch, StringArray, StringViewArray, UInt64Array};
use arrow_buffer::{Buffer, MutableBuffer, ScalarBuffer};
use arrow_ipc::Block;
use arrow_ipc::reader::FileDecoder;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use megaring_core::corpus::{MemoryIds, SegmentData, SegmentView};
use megaring_core::nibbles::NibblesView;
use megaring_core::screen::CodesView;
use megaring_core::{Element, RowType};

use crate::arrow_file::{Layout, block_range, check_block, decode};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::derived::DerivedPart;
use crate::fault::{Fault, guarded};
use crate::ids::NewIds;
use crate::mapping;
use crate::rows::{first_wrong, out_of_range};
use crate::text_ids;

/// A mapped segment file.
pub(crate) struct SegmentFile {
    pub(crate) parts: Vec<Part>,
    pub(crate) schema: SchemaRef,
}

/// All columns of a part.
#[derive(Clone)]
pub(crate) enum Table {
    /// Of a file in memory or mapped, from which they are decoded.
    Block {
        file: Buffer,
        layout: Arc<Layout>,
        block: Block,
        /// Columns that were decoded: they point into the file.
        decoded: Arc<Mutex<HashMap<String, ArrayRef>>>,
    },
    /// Rows in memory.
    Batch(RecordBatch),
}

impl Table {
    pub(crate) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Block { layout, .. } => &layout.schema,
            Self::Batch(batch) => batch.schema_ref(),
        }
    }

    /// A column as it is stored; `None` where there is none of this name.
    pub(crate) fn column(&self, name: &str) -> Result<Option<ArrayRef>, Fault> {
        match self {
            Self::Batch(batch) => Ok(batch.column_by_name(name).cloned()),
            Self::Block { file, layout, block, decoded } => {
                let mut decoded = decoded.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = decoded.get(name) {
                    return Ok(Some(known.clone()));
                }
                let Some((index, _)) = layout.schema.fields().find(name) else { return Ok(None) };
                let mut decoder = layout.decoder(false).with_projection(vec![index]);
                read_dictionaries(&mut decoder, layout, file)?;
                let batch = decode(&decoder, block, &slice(file, block)).map_err(|error| Fault::column(name, error))?;
                let column = batch.columns().first().cloned();
                decoded.extend(column.iter().map(|column| (name.to_owned(), column.clone())));
                Ok(column)
            }
        }
    }
}

/// The bytes of a block.
fn slice(file: &Buffer, block: &Block) -> Buffer {
    let range = block_range(block);
    file.slice_with_length(range.start, range.len())
}

/// Makes a decoder know the values that columns refer to.
pub(crate) fn read_dictionaries(decoder: &mut FileDecoder, layout: &Layout, file: &Buffer) -> Result<(), Fault> {
    layout.dictionaries.iter().try_for_each(|block| {
        let bytes = slice(file, block);
        check_block(block, &bytes)?;
        guarded(|| decoder.read_dictionary(block, &bytes)).map_err(Fault::file)
    })
}

impl SegmentFile {
    /// Maps a file and reads its structure, not its values.
    pub(crate) fn map(path: &Path, row_type: RowType, small: u64) -> Result<Self, Fault> {
        Self::read(Self::bytes(path, small)?, row_type)
    }

    /// Maps a file, whatever is in it. One of at most `small` bytes is read: the system counts mappings.
    pub(crate) fn bytes(path: &Path, small: u64) -> Result<Buffer, Fault> {
        let small = |metadata: std::fs::Metadata| metadata.len() <= small;
        if std::fs::metadata(path).is_ok_and(small) {
            let bytes = std::fs::read(path).map_err(|error| Fault::refused("cannot be read", &error))?;
            let mut aligned = MutableBuffer::new(bytes.len());
            aligned.extend_from_slice(&bytes);
            return Ok(aligned.into());
        }
        let bytes = mapping::map(path).map_err(|error| Fault::refused("cannot be mapped", &error))?;
        Ok(Buffer::from(bytes))
    }

    /// Reads the structure of a mapped file.
    pub(crate) fn read(bytes: Buffer, row_type: RowType) -> Result<Self, Fault> {
        let layout = Arc::new(Layout::of_file(&bytes)?);
        check_schema(&layout.schema, row_type)?;
        let mut parts = Vec::with_capacity(layout.batches.len());
        for block in &layout.batches {
            let block_bytes = slice(&bytes, block);
            let form = check_block(block, &block_bytes)?;
            if form.compressed {
                return Err(Fault::file("its buffers are compressed; write it uncompressed").form());
            }
            if !form.aligned {
                return Err(Fault::file("its buffers are misaligned; write it 64 byte aligned").form());
            }
            let (file, layout_of, decoded) = (bytes.clone(), layout.clone(), Arc::default());
            let table = Table::Block { file, layout: layout_of, block: *block, decoded };
            parts.push(Part::read(table, (&layout, block), &block_bytes, row_type)?);
        }
        parts.retain(|part: &Part| part.rows > 0);
        Ok(Self { parts, schema: layout.schema.clone() })
    }

    /// Rows of all parts.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Names of all columns.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Whether rows have ids in the file.
    pub(crate) fn has_ids(&self) -> bool {
        self.schema.field_with_name(MEMORY_ID).is_ok()
    }

    /// The rows' ids, where they are in the file; texts too where there is a column for them.
    pub(crate) fn new_ids(&self, id_column: Option<&str>) -> Result<NewIds, Fault> {
        NewIds::of_parts(&self.parts, id_column)
    }

    /// Numbers the rows of a file without ids.
    pub(crate) fn number(&mut self, first_id: u64) {
        let mut next = first_id;
        for part in &mut self.parts {
            if let Ids::From(first) = &mut part.ids {
                *first = next;
            }
            next += part.rows as u64;
        }
    }

    /// Finds the first number that is not finite.
    pub(crate) fn check_values(&self, row_type: RowType) -> Result<(), Fault> {
        let mut start = 0;
        for part in &self.parts {
            part.check_values(row_type).map_err(|fault| fault.shifted(start))?;
            start += part.rows;
        }
        Ok(())
    }

    /// Checks the rows' ids, which are texts in a column.
    pub(crate) fn check_ids(&self, column: &str) -> Result<(), Fault> {
        let mut start = 0;
        for part in &self.parts {
            text_ids::check(part, column).map_err(|fault| fault.shifted(start))?;
            start += part.rows;
        }
        Ok(())
    }
}

/// One record batch's columns, as slices of the mapping.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) rows: usize,
    pub(crate) embeddings: ScalarBuffer<f32>,
    ids: Ids,
    titles: Titles,
    /// Every float64 column with a meaning, by name; coordinates first.
    floats: Vec<(&'static str, ScalarBuffer<f64>)>,
    /// The same and all other columns.
    table: Table,
}

/// The callers' ids of rows.
#[derive(Clone)]
enum Ids {
    /// As given.
    Given(ScalarBuffer<u64>),
    /// Going on from this one.
    From(u64),
}

/// A title column in one of the forms that can be read in place.
#[derive(Clone)]
enum Titles {
    None,
    Short(StringArray),
    Long(LargeStringArray),
    View(StringViewArray),
}

impl Part {
    fn read(
        table: Table,
        (layout, block): (&Layout, &Block),
        bytes: &Buffer,
        row_type: RowType,
    ) -> Result<Self, Fault> {
        // One column at a time, so that a fault can name the column.
        let column = |name: &str| -> Result<Option<ArrayRef>, Fault> {
            let Some((index, _)) = layout.schema.fields().find(name) else { return Ok(None) };
            let decoded = |in_place| decode(&layout.decoder(in_place).with_projection(vec![index]), block, bytes);
            let batch = decoded(true).map_err(|error| match decoded(false) {
                Ok(_) => Fault::column(name, "its buffers are misaligned; write it 64 byte aligned").form(),
                Err(_) => Fault::column(name, error),
            })?;
            Ok(batch.columns().first().cloned())
        };
        Self::of_columns(table, column, row_type)
    }

    /// Rows in memory.
    pub(crate) fn of_batch(batch: &RecordBatch, row_type: RowType) -> Result<Self, Fault> {
        check_schema(batch.schema_ref(), row_type)?;
        Self::of_columns(Table::Batch(batch.clone()), |name| Ok(batch.column_by_name(name).cloned()), row_type)
    }

    fn of_columns(
        table: Table,
        column: impl Fn(&str) -> Result<Option<ArrayRef>, Fault>,
        row_type: RowType,
    ) -> Result<Self, Fault> {
        let required = |name: &str| column(name)?.ok_or_else(|| Fault::column(name, "the column is missing"));
        let embedding = required(EMBEDDING)?;
        let rows = embedding.len();
        let embeddings = read_embeddings(&embedding, row_type)?;
        let ids = match column(MEMORY_ID)? {
            Some(ids) => Ids::Given(without_nulls(MEMORY_ID, &ids)?.as_primitive::<UInt64Type>().values().clone()),
            None => Ids::From(0),
        };
        let titles = column(TITLE)?.map_or(Titles::None, |titles| read_titles(&titles));
        let mut floats = Vec::new();
        for (name, kind) in columns::optional_of(table.schema()) {
            let column = required(name)?;
            without_nulls(name, &column)?;
            if kind == DataType::Float64 {
                floats.push((name, column.as_primitive::<Float64Type>().values().clone()));
            }
        }
        Ok(Self { rows, embeddings, ids, titles, floats, table })
    }

    /// A column as it is stored, ids also where they are not; `None` where there is none of this name.
    pub(crate) fn column(&self, name: &str) -> Result<Option<ArrayRef>, Fault> {
        match self.ids {
            Ids::From(first) if name == MEMORY_ID => {
                let ids = first..first + self.rows as u64;
                Ok(Some(Arc::new(UInt64Array::from_iter_values(ids))))
            }
            _ => self.table.column(name),
        }
    }

    /// The columns' names and types, ids first where they are not stored.
    pub(crate) fn fields(&self) -> Vec<FieldRef> {
        let implied = matches!(self.ids, Ids::From(_)).then(|| Field::new(MEMORY_ID, DataType::UInt64, false).into());
        implied.into_iter().chain(self.table.schema().fields().iter().cloned()).collect()
    }

    pub(crate) fn check_values(&self, row_type: RowType) -> Result<(), Fault> {
        if let Some((row, reason)) = first_wrong(&self.embeddings, row_type) {
            return Err(Fault::value(EMBEDDING, row, reason));
        }
        for (name, column) in &self.floats {
            if let Some(row) = column.iter().position(|value| !value.is_finite()) {
                return Err(Fault::value(name, row, format!("{} is not finite", column[row])));
            }
            if let Some((row, reason)) = out_of_range(name, column) {
                return Err(Fault::value(name, row, reason));
            }
        }
        Ok(())
    }

    fn coordinates(&self) -> Option<[&[f64]; 5]> {
        let (axes, _) = self.floats.split_first_chunk::<5>()?;
        let columns = axes.each_ref().map(|(_, column)| &column[..]);
        axes.iter().map(|(name, _)| name).eq(&COORDINATES).then_some(columns)
    }

    pub(crate) fn ids(&self) -> MemoryIds<'_> {
        match &self.ids {
            Ids::Given(ids) => MemoryIds::Given(ids),
            Ids::From(first) => MemoryIds::From(*first),
        }
    }

    fn title(&self, row: usize) -> &str {
        match &self.titles {
            Titles::Short(titles) if titles.is_valid(row) => titles.value(row),
            Titles::Long(titles) if titles.is_valid(row) => titles.value(row),
            Titles::View(titles) if titles.is_valid(row) => titles.value(row),
            _ => "",
        }
    }
}

/// Types that can be read in place; any other is a matter of form.
fn check_schema(schema: &Schema, row_type: RowType) -> Result<(), Fault> {
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(Fault::column(twice.1, "the file has this column twice"));
    }
    let wrong = |name: &str, wanted: &str| match schema.field_with_name(name) {
        Ok(field) => Fault::column(name, format!("its type is {}, wanted is {wanted}", field.data_type())).form(),
        Err(_) => Fault::column(name, "the column is missing").form(),
    };
    let kind = |name: &str| schema.field_with_name(name).ok().map(|field| field.data_type().clone());
    let dim = row_type.dim;
    match (row_type.element, kind(EMBEDDING)) {
        (Element::Float32, Some(DataType::FixedSizeList(item, width))) if *item.data_type() == DataType::Float32 => {
            if usize::try_from(width) != Ok(dim) {
                return Err(Fault::column(EMBEDDING, format!("the dimension is {width}, the corpus's is {dim}")));
            }
        }
        (Element::Float32, _) => return Err(wrong(EMBEDDING, &format!("a list of {dim} float32, of fixed size"))),
        (Element::Bit, kind) if kind == Some(columns::embedding_type(row_type)) => {}
        (Element::Bit, _) => return Err(wrong(EMBEDDING, &format!("{}", columns::embedding_type(row_type)))),
    }
    if kind(MEMORY_ID).is_some_and(|kind| kind != DataType::UInt64) {
        return Err(wrong(MEMORY_ID, "uint64"));
    }
    match kind(TITLE) {
        None | Some(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {}
        Some(_) => return Err(wrong(TITLE, "text")),
    }
    match columns::optional_of(schema).find(|(name, wanted)| kind(name).as_ref() != Some(wanted)) {
        Some((name, wanted)) => Err(wrong(name, &wanted.to_string())),
        None => Ok(()),
    }
}

fn read_embeddings(column: &ArrayRef, row_type: RowType) -> Result<ScalarBuffer<f32>, Fault> {
    let column = without_nulls(EMBEDDING, column)?;
    let dim = row_type.width();
    if row_type.element == Element::Bit {
        return words(column, dim);
    }
    let lists = column.as_fixed_size_list();
    let values = lists.values();
    if let Some(at) = first_null(values.as_ref()) {
        return Err(Fault::value(EMBEDDING, at / dim.max(1), format!("element {} is null", at % dim.max(1))));
    }
    let values = values.as_primitive::<Float32Type>().values();
    if values.len() < lists.len() * dim {
        return Err(Fault::column(EMBEDDING, "there are fewer values than rows need"));
    }
    Ok(values.slice(0, lists.len() * dim))
}

/// Rows of bits as words, in place.
fn words(column: &ArrayRef, width: usize) -> Result<ScalarBuffer<f32>, Fault> {
    let rows = column.as_fixed_size_binary();
    let len = rows.len() * width;
    let bytes = rows.values();
    if bytes.len() < len * size_of::<f32>() {
        return Err(Fault::column(EMBEDDING, "there are fewer bytes than rows need"));
    }
    if bytes.as_ptr().align_offset(align_of::<f32>()) != 0 {
        return Err(Fault::column(EMBEDDING, "its buffers are misaligned; write it 64 byte aligned").form());
    }
    Ok(ScalarBuffer::new(bytes.clone(), 0, len))
}

fn read_titles(column: &ArrayRef) -> Titles {
    match column.data_type() {
        DataType::Utf8 => Titles::Short(column.as_string::<i32>().clone()),
        DataType::LargeUtf8 => Titles::Long(column.as_string::<i64>().clone()),
        DataType::Utf8View => Titles::View(column.as_string_view().clone()),
        // The schema's check lets no other type pass.
        _ => Titles::None,
    }
}

fn without_nulls<'a>(name: &str, column: &'a ArrayRef) -> Result<&'a ArrayRef, Fault> {
    match first_null(column.as_ref()) {
        Some(row) => Err(Fault::value(name, row, "the value is null")),
        None => Ok(column),
    }
}

/// The first null of an array.
pub(crate) fn first_null(array: &dyn Array) -> Option<usize> {
    if array.null_count() == 0 {
        return None;
    }
    (0..array.len()).find(|row| array.is_null(*row))
}

/// A part with its derived columns: what the compute path reads.
pub(crate) struct MappedSegment {
    part: Part,
    derived: DerivedPart,
}

impl MappedSegment {
    /// `derived` is of `part`.
    pub(crate) fn new(part: Part, derived: DerivedPart) -> Arc<Self> {
        Arc::new(Self { part, derived })
    }
}

/// The part that a segment of a store's view is.
pub(crate) fn part_of(segment: &SegmentView) -> Option<&Part> {
    let data: &dyn Any = segment.data();
    data.downcast_ref::<MappedSegment>().map(|segment| &segment.part)
}

impl SegmentData for MappedSegment {
    fn embeddings(&self) -> &[f32] {
        &self.part.embeddings
    }

    fn norms2(&self) -> &[f64] {
        &self.derived.norms2
    }

    fn codes(&self) -> CodesView<'_> {
        self.derived.codes()
    }

    fn nibbles(&self) -> NibblesView<'_> {
        self.derived.nibbles()
    }

    fn coordinates(&self) -> Option<[&[f64]; 5]> {
        self.part.coordinates()
    }

    fn memory_ids(&self) -> MemoryIds<'_> {
        self.part.ids()
    }

    fn title(&self, row: usize) -> &str {
        self.part.title(row)
    }
}
