//! A segment file read in place: each of its record batches is one contiguous part of the corpus.
//!
//! Two strictnesses: [`Layout`] and types are checked always; values (finite, no nulls where there may be none) when
//! asked, that is before a file becomes part of a corpus and when it is verified.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, LargeStringArray, StringArray, StringViewArray};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_ipc::Block;
use arrow_schema::{DataType, Schema};
use megaring_core::corpus::SegmentData;
use megaring_core::error::first_non_finite;
use megaring_core::nibbles::NibblesView;
use megaring_core::screen::CodesView;

use crate::arrow_file::{Layout, block_range, check_block, decode};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::derived::DerivedPart;
use crate::fault::Fault;
use crate::mapping;
use crate::rows::out_of_range;

/// A mapped segment file.
pub(crate) struct SegmentFile {
    pub(crate) parts: Vec<Part>,
    pub(crate) columns: Vec<String>,
}

impl SegmentFile {
    /// Maps a file and reads its structure, not its values.
    pub(crate) fn map(path: &Path, dim: usize) -> Result<Self, Fault> {
        Self::read(Self::bytes(path)?, dim)
    }

    /// Maps a file, whatever is in it.
    pub(crate) fn bytes(path: &Path) -> Result<Buffer, Fault> {
        let bytes = mapping::map(path).map_err(|error| Fault::file(format!("cannot be mapped: {error}")))?;
        Ok(Buffer::from(bytes))
    }

    /// Reads the structure of a mapped file.
    pub(crate) fn read(bytes: Buffer, dim: usize) -> Result<Self, Fault> {
        let layout = Layout::of_file(&bytes)?;
        check_schema(&layout.schema, dim)?;
        let mut parts = Vec::with_capacity(layout.batches.len());
        for block in &layout.batches {
            let range = block_range(block);
            let block_bytes = bytes.slice_with_length(range.start, range.len());
            let form = check_block(block, &block_bytes)?;
            if form.compressed {
                return Err(Fault::file("its buffers are compressed; write it uncompressed").form());
            }
            if !form.aligned {
                return Err(Fault::file("its buffers are misaligned; write it 64 byte aligned").form());
            }
            parts.push(Part::read(&layout, block, &block_bytes, dim)?);
        }
        parts.retain(|part| part.rows > 0);
        let columns = layout.schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Self { parts, columns })
    }

    /// Rows of all parts.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Finds the first number that is not finite.
    pub(crate) fn check_values(&self, dim: usize) -> Result<(), Fault> {
        let mut start = 0;
        for part in &self.parts {
            part.check_values(dim).map_err(|fault| fault.shifted(start))?;
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
    memory_ids: ScalarBuffer<u64>,
    titles: Titles,
    /// Every float64 column with a meaning, by name; coordinates first.
    floats: Vec<(&'static str, ScalarBuffer<f64>)>,
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
    fn read(layout: &Layout, block: &Block, bytes: &Buffer, dim: usize) -> Result<Self, Fault> {
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
        let required = |name: &str| column(name)?.ok_or_else(|| Fault::column(name, "the column is missing"));
        let embedding = required(EMBEDDING)?;
        let rows = embedding.len();
        let embeddings = read_embeddings(&embedding, dim)?;
        let memory_ids = without_nulls(MEMORY_ID, &required(MEMORY_ID)?)?.as_primitive::<UInt64Type>().values().clone();
        let titles = column(TITLE)?.map_or(Titles::None, |titles| read_titles(&titles));
        let mut floats = Vec::new();
        for (name, kind) in columns::optional_of(&layout.schema) {
            let column = required(name)?;
            without_nulls(name, &column)?;
            if kind == DataType::Float64 {
                floats.push((name, column.as_primitive::<Float64Type>().values().clone()));
            }
        }
        Ok(Self { rows, embeddings, memory_ids, titles, floats })
    }

    fn check_values(&self, dim: usize) -> Result<(), Fault> {
        if let Some((row, element, value)) = first_non_finite(&self.embeddings, dim) {
            return Err(Fault::value(
                EMBEDDING,
                row,
                format!("element {element} is {value}; every value must be finite"),
            ));
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
fn check_schema(schema: &Schema, dim: usize) -> Result<(), Fault> {
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(Fault::column(twice.1, "the file has this column twice"));
    }
    let wrong = |name: &str, wanted: &str| match schema.field_with_name(name) {
        Ok(field) => Fault::column(name, format!("its type is {}, wanted is {wanted}", field.data_type())).form(),
        Err(_) => Fault::column(name, "the column is missing").form(),
    };
    let kind = |name: &str| schema.field_with_name(name).ok().map(|field| field.data_type().clone());
    match kind(EMBEDDING) {
        Some(DataType::FixedSizeList(item, width)) if *item.data_type() == DataType::Float32 => {
            if usize::try_from(width) != Ok(dim) {
                return Err(Fault::column(EMBEDDING, format!("the dimension is {width}, the corpus's is {dim}")));
            }
        }
        _ => return Err(wrong(EMBEDDING, &format!("a list of {dim} float32, of fixed size"))),
    }
    if kind(MEMORY_ID) != Some(DataType::UInt64) {
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

fn read_embeddings(column: &ArrayRef, dim: usize) -> Result<ScalarBuffer<f32>, Fault> {
    let lists = without_nulls(EMBEDDING, column)?.as_fixed_size_list();
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

    fn memory_id(&self, row: usize) -> u64 {
        self.part.memory_ids[row]
    }

    fn title(&self, row: usize) -> &str {
        self.part.title(row)
    }
}
