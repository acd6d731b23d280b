//! A record batch of another program as rows: columns with a meaning are converted, the others kept.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, GenericListArray, GenericListViewArray,
    OffsetSizeTrait, RecordBatch, UInt8Array, UInt64Array,
};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take;
use megaring_core::error::first_non_finite;
use megaring_core::matrix::{MAX_DIM, Matrix};
use megaring_core::nearest::{MAX_COORDINATE, is_coordinate};
use megaring_core::{Element, RowType};

use super::numbers::{self, Column};
use super::selection::{Columns, ID, way_out};
use super::{Bad, Chunk, ImportOptions};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::fault::{Fault, not_finite};
use crate::rows::{Further, Rows};
use crate::segment::Part;
use crate::text_ids::{judge, spelled};

/// The rows of a batch that has nothing but good ones.
pub(crate) fn rows_of(batch: &RecordBatch, row_type: RowType) -> Result<Rows, Fault> {
    let words = match row_type.element {
        Element::Float32 => return rows_of_floats(batch, row_type.dim),
        Element::Bit => Part::of_batch(batch, row_type)?.embeddings.to_vec(),
    };
    // Everything else is as beside numbers: those that stand in for the words are of no use.
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(vec![0.0; batch.num_rows()]));
    let none = FixedSizeListArray::try_new(item, 1, values, None).map_err(|error| Fault::file(error.to_string()))?;
    let replaced = |(field, column): (&Arc<Field>, &ArrayRef)| match field.name() == EMBEDDING {
        true => {
            (Arc::new(field.as_ref().clone().with_data_type(none.data_type().clone())), Arc::new(none.clone()) as _)
        }
        false => (field.clone(), column.clone()),
    };
    let (fields, columns): (Vec<Arc<Field>>, Vec<ArrayRef>) =
        batch.schema_ref().fields().iter().zip(batch.columns()).map(replaced).unzip();
    let stood_in = RecordBatch::try_new(Schema::new(fields).into(), columns);
    let rows = rows_of_floats(&stood_in.map_err(|error| Fault::file(error.to_string()))?, 1)?;
    let embeddings = Matrix { rows: batch.num_rows(), dim: row_type.width(), values: words };
    Ok(Rows { embeddings, element: Element::Bit, ..rows })
}

fn rows_of_floats(batch: &RecordBatch, dim: usize) -> Result<Rows, Fault> {
    let options = ImportOptions { dim: Some(dim), ..ImportOptions::default() };
    let (places, mut batches) = Batches::open("", batch.schema_ref(), &options)?;
    let batch = batch.project(&places).map_err(|error| Fault::file(error.to_string()))?;
    let Chunk { rows, bad } = batches.convert(&batch)?;
    match bad.first {
        Some(first) => Err(Fault::file(first.to_string())),
        None => Ok(rows),
    }
}

/// Turns batches of one file into chunks.
pub(super) struct Batches {
    file: String,
    /// Of the batches, but with the names that columns have here.
    schema: SchemaRef,
    columns: Columns,
    dim: Option<usize>,
    element: Element,
    row: u64,
    notes: Vec<String>,
}

/// Rows of one batch that cannot be taken: the reason of each.
struct Marks {
    reasons: Vec<Option<(&'static str, String)>>,
}

impl Marks {
    fn add(&mut self, row: usize, column: &'static str, reason: String) {
        if let Some(mark) = self.reasons.get_mut(row) {
            mark.get_or_insert((column, reason));
        }
    }

    fn values<T>(&mut self, name: &'static str, column: Column<T>) -> Vec<T> {
        for (row, reason) in column.bad {
            self.add(row, name, reason);
        }
        column.values
    }

    fn is_good(&self, row: usize) -> bool {
        self.reasons.get(row).is_some_and(Option::is_none)
    }

    fn any(&self) -> bool {
        self.reasons.iter().any(Option::is_some)
    }
}

impl Batches {
    /// For a file shown as `file`, of this schema. Answers also the places of the columns that its batches are to have.
    pub(super) fn open(file: &str, schema: &Schema, options: &ImportOptions) -> Result<(Vec<usize>, Self), Fault> {
        let columns = options.columns.clone();
        let (places, read) = columns.project(schema)?;
        let lost = schema.fields().iter().filter(|field| columns.has_lost_its_name(field.name()));
        let note = |name: &String| format!("{file}: the column {name} is not stored; another was given its name");
        let notes = lost.map(|field| note(field.name())).collect();
        let (dim, element) = (options.dim, options.element);
        let mut batches = Self { file: file.to_owned(), schema: read, columns, dim, element, row: 0, notes };
        batches.dim = batches.declared_dim().map_err(|fault| batches.named(fault))?.or(dim);
        Ok((places, batches))
    }

    /// The dimension where the type of the vectors has it, which must then be the one wanted.
    fn declared_dim(&self) -> Result<Option<usize>, Fault> {
        let field = self.schema.field_with_name(EMBEDDING).map_err(|error| Fault::file(error.to_string()))?;
        let (DataType::FixedSizeList(_, width) | DataType::FixedSizeBinary(width)) = field.data_type() else {
            return Ok(None);
        };
        let dim = usize::try_from(*width).ok().filter(|dim| (1..=MAX_DIM).contains(dim));
        match (dim, self.dim) {
            (None, _) => {
                Err(Fault::column(EMBEDDING, format!("its vectors have {width} values; 1 to {MAX_DIM} are possible")))
            }
            (Some(dim), Some(wanted)) if dim != wanted => {
                Err(Fault::column(EMBEDDING, format!("the dimension is {dim}, wanted is {wanted}")))
            }
            (dim, _) => Ok(dim),
        }
    }

    /// A fault with the name that the column has in the file.
    fn named(&self, fault: Fault) -> Fault {
        Fault { column: fault.column.map(|name| self.columns.in_file(&name).to_owned()), ..fault }
    }

    /// The dimension, once known.
    pub(super) fn dim(&self) -> Option<usize> {
        self.dim
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// Converts the next batch of the file.
    pub(super) fn convert(&mut self, batch: &RecordBatch) -> Result<Chunk, Fault> {
        let mut marks = Marks { reasons: vec![None; batch.num_rows()] };
        let rows = self.rows(batch, &mut marks).map_err(|fault| self.named(fault))?;
        let chunk = if marks.any() { self.without_bad(rows, &marks)? } else { Chunk { rows, bad: Bad::default() } };
        self.row += batch.num_rows() as u64;
        Ok(chunk)
    }

    fn rows(&mut self, batch: &RecordBatch, marks: &mut Marks) -> Result<Rows, Fault> {
        let mut rows = Rows::default();
        if let Some((in_file, ids)) = self.column(batch, MEMORY_ID)? {
            rows.memory_ids = marks.values(MEMORY_ID, numbers::integers(MEMORY_ID, in_file, &ids)?);
        }
        rows.ids = self.ids(batch, marks)?;
        if let Some((in_file, titles)) = self.column(batch, TITLE)? {
            rows.titles = numbers::texts(TITLE, in_file, &titles)?;
        }
        if columns::has_coordinates(&self.schema) {
            let mut coordinates: [Vec<f64>; 5] = Default::default();
            for (name, axis) in COORDINATES.into_iter().zip(&mut coordinates) {
                *axis = self.floats(batch, name, marks)?.unwrap_or_default();
                mark_far(name, axis, marks);
            }
            rows.coordinates = Some(coordinates);
        }
        rows.galactic_distance = self.floats(batch, columns::GALACTIC_DISTANCE, marks)?;
        rows.importance = self.floats(batch, columns::IMPORTANCE, marks)?;
        rows.zone = self.integers(batch, columns::ZONE, marks)?;
        rows.constellation_id = self.integers(batch, columns::CONSTELLATION_ID, marks)?;
        if let Some((in_file, array)) = self.column(batch, columns::LAST_ACCESSED_NS)? {
            let column = numbers::nanoseconds(columns::LAST_ACCESSED_NS, in_file, &array)?;
            rows.last_accessed_ns = Some(marks.values(columns::LAST_ACCESSED_NS, column));
        }
        if let Some((in_file, array)) = self.column(batch, columns::IS_PROTECTED)? {
            let column = numbers::booleans(columns::IS_PROTECTED, in_file, &array)?;
            rows.is_protected = Some(marks.values(columns::IS_PROTECTED, column));
        }
        rows.further = further(batch, &self.schema, self.columns.id_column())?;
        // Last, since the first row that is good in everything else may decide the dimension.
        let missing = || Fault::column(EMBEDDING, "the column is missing");
        let embedding = self.column(batch, EMBEDDING)?.map(|(_, array)| array).ok_or_else(missing)?;
        rows.embeddings = self.vectors(&embedding, marks)?;
        Ok(rows)
    }

    /// A column by the name it has here, without dictionary or run-end encoding, and its name in the file.
    fn column(&self, batch: &RecordBatch, name: &'static str) -> Result<Option<(&str, ArrayRef)>, Fault> {
        let Ok(at) = self.schema.index_of(name) else { return Ok(None) };
        let array = numbers::plain(batch.column(at)).map_err(|error| Fault::column(name, error.to_string()))?;
        Ok(Some((self.columns.in_file(name), array)))
    }

    /// The rows' text ids, where they are to have some.
    fn ids(&self, batch: &RecordBatch, marks: &mut Marks) -> Result<Vec<String>, Fault> {
        let Some(column) = self.columns.id_column() else { return Ok(Vec::new()) };
        let at = self.schema.index_of(column).map_err(|error| Fault::column(ID, error.to_string()))?;
        let array = numbers::plain(batch.column(at)).map_err(|error| Fault::column(ID, error.to_string()))?;
        let ids = numbers::texts(ID, column, &spelled(self.schema.field(at), &array))?;
        for (row, id) in ids.iter().enumerate() {
            let judged = if array.is_null(row) { Err("the value is null".into()) } else { judge(id) };
            if let Err(reason) = judged {
                marks.add(row, ID, reason);
            }
        }
        Ok(ids)
    }

    fn floats(&self, batch: &RecordBatch, name: &'static str, marks: &mut Marks) -> Result<Option<Vec<f64>>, Fault> {
        let Some((in_file, array)) = self.column(batch, name)? else { return Ok(None) };
        Ok(Some(marks.values(name, numbers::floats(name, in_file, &array)?)))
    }

    fn integers<T: Copy + Default + TryFrom<i128>>(
        &self,
        batch: &RecordBatch,
        name: &'static str,
        marks: &mut Marks,
    ) -> Result<Option<Vec<T>>, Fault> {
        let Some((in_file, array)) = self.column(batch, name)? else { return Ok(None) };
        Ok(Some(marks.values(name, numbers::integers(name, in_file, &array)?)))
    }

    fn vectors(&mut self, array: &ArrayRef, marks: &mut Marks) -> Result<Matrix, Fault> {
        let (child, bounds) = lists(array, self.columns.in_file(EMBEDDING), self.element)?;
        let (values, converted) = numbers::elements(self.columns.in_file(EMBEDDING), &child)?;
        if let Some(kind) = converted {
            let note = format!("{}: embeddings were {kind} and are stored as float32", self.file);
            self.notes.retain(|known| *known != note);
            self.notes.push(note);
        }
        let read = |row: usize, dim: Option<usize>| {
            let (start, end) = bounds.get(row).copied().unwrap_or_default();
            vector(array.as_ref(), row, &values, start..end, &child, dim)
        };
        let mut good = (0..array.len()).filter(|row| marks.is_good(*row));
        self.dim = self.dim.or_else(|| good.find_map(|row| read(row, None).ok()).map(<[f32]>::len));
        let dim = self.dim.unwrap_or(0);
        let mut matrix = Matrix { rows: array.len(), dim, values: Vec::with_capacity(array.len() * dim) };
        for row in 0..array.len() {
            match read(row, self.dim) {
                Ok(vector) => matrix.values.extend_from_slice(vector),
                Err(reason) => {
                    marks.add(row, EMBEDDING, reason);
                    matrix.values.resize(matrix.values.len() + dim, 0.0);
                }
            }
        }
        Ok(matrix)
    }

    fn without_bad(&self, rows: Rows, marks: &Marks) -> Result<Chunk, Fault> {
        let mut bad = Bad::default();
        for (row, mark) in marks.reasons.iter().enumerate() {
            if let Some((column, reason)) = mark {
                let fault = self.named(Fault::value(column, row, reason)).shifted(self.row as usize);
                bad.add(fault.into_violation(&self.file));
            }
        }
        let keep: Vec<bool> = marks.reasons.iter().map(Option::is_none).collect();
        let rows = rows.keep(&keep).map_err(|error| Fault::file(error.to_string()))?;
        Ok(Chunk { rows, bad })
    }
}

/// Marks coordinates whose distances might leave float64.
fn mark_far(name: &'static str, axis: &[f64], marks: &mut Marks) {
    for (row, value) in axis.iter().enumerate().filter(|(_, value)| !is_coordinate(**value)) {
        marks.add(row, name, format!("{value:e} is not within ±{MAX_COORDINATE:e}"));
    }
}

/// Columns without a meaning here, dictionaries and runs resolved, but for the one that has the ids.
fn further(batch: &RecordBatch, schema: &Schema, id_column: Option<&str>) -> Result<Further, Fault> {
    let coordinates = columns::has_coordinates(schema);
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        if !columns::is_known(field.name(), coordinates) && id_column != Some(field.name()) {
            let array = numbers::plain(array).map_err(|error| Fault::column(field.name(), error.to_string()))?;
            fields.push(field.as_ref().clone().with_data_type(array.data_type().clone()));
            arrays.push(array);
        }
    }
    if arrays.is_empty() {
        return Ok(Further::default());
    }
    let batch = RecordBatch::try_new(Schema::new(fields).into(), arrays);
    batch.map(Further::new).map_err(|error| Fault::file(error.to_string()))
}

/// The values of a list column and where each row's begin and end.
fn lists(array: &ArrayRef, in_file: &str, element: Element) -> Result<(ArrayRef, Vec<(usize, usize)>), Fault> {
    let n = array.len();
    Ok(match array.data_type() {
        DataType::FixedSizeList(_, width) => {
            let width = usize::try_from(*width).unwrap_or(0);
            let lists = array.as_fixed_size_list();
            (lists.values().clone(), (0..n).map(|row| (row * width, (row + 1) * width)).collect())
        }
        DataType::FixedSizeBinary(width) if element == Element::Bit => {
            let width = usize::try_from(*width).unwrap_or(0);
            let bytes = array.as_fixed_size_binary().values().clone();
            let bytes = UInt8Array::new(ScalarBuffer::new(bytes, 0, n * width), None);
            (Arc::new(bytes), (0..n).map(|row| (row * width, (row + 1) * width)).collect())
        }
        DataType::List(_) => listed(array.as_list::<i32>()),
        DataType::LargeList(_) => listed(array.as_list::<i64>()),
        DataType::ListView(_) => viewed(array.as_list_view::<i32>())?,
        DataType::LargeListView(_) => viewed(array.as_list_view::<i64>())?,
        other => {
            let bits =
                matches!(other, DataType::FixedSizeBinary(_)).then_some("bytes of bits are read with `--bits`; ");
            let help = format!("{}{}", bits.unwrap_or_default(), way_out(EMBEDDING, in_file));
            return Err(Fault::column(EMBEDDING, format!("its type is {other}, wanted is a list of float32; {help}")));
        }
    })
}

/// Of the values those that these rows have: a piece of a batch shares all values with the other pieces, and who
/// converted them all for each would take quadratic time.
fn listed<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> (ArrayRef, Vec<(usize, usize)>) {
    let offsets = lists.value_offsets();
    let first = offsets[0].as_usize();
    let values = lists.values().slice(first, offsets[offsets.len() - 1].as_usize() - first);
    (values, offsets.windows(2).map(|pair| (pair[0].as_usize() - first, pair[1].as_usize() - first)).collect())
}

/// Views may lie anywhere among the values, so those of these rows are gathered.
fn viewed<O: OffsetSizeTrait>(lists: &GenericListViewArray<O>) -> Result<(ArrayRef, Vec<(usize, usize)>), Fault> {
    let (mut places, mut bounds) = (Vec::new(), Vec::with_capacity(lists.len()));
    for (offset, size) in lists.value_offsets().iter().zip(lists.value_sizes()) {
        bounds.push((places.len(), places.len() + size.as_usize()));
        places.extend(offset.as_usize() as u64..(*offset + *size).as_usize() as u64);
    }
    let values = take(lists.values(), &UInt64Array::from(places), None);
    Ok((values.map_err(|error| Fault::column(EMBEDDING, error.to_string()))?, bounds))
}

/// The vector of a row, if it is good; of this dimension where one is known.
fn vector<'a>(
    array: &dyn Array,
    row: usize,
    values: &'a [f32],
    range: std::ops::Range<usize>,
    child: &ArrayRef,
    dim: Option<usize>,
) -> Result<&'a [f32], String> {
    if array.is_null(row) {
        return Err("the vector is null".into());
    }
    let n = range.len();
    if child.null_count() > 0
        && let Some(element) = range.clone().position(|at| child.is_null(at))
    {
        return Err(format!("element {element} is null"));
    }
    let vector = values.get(range).ok_or_else(|| "the vector lies outside the column".to_owned())?;
    if let Some((_, element, value)) = first_non_finite(vector, n) {
        return Err(not_finite(element, value));
    }
    match dim {
        Some(dim) if n != dim => Err(format!("the vector has {n} values, wanted are {dim}")),
        None if !(1..=MAX_DIM).contains(&n) => Err(format!("the vector has {n} values; 1 to {MAX_DIM} are possible")),
        _ => Ok(vector),
    }
}

/// Rows and further columns of which some are left out.
impl Rows {
    pub(super) fn keep(self, keep: &[bool]) -> Result<Self, arrow_schema::ArrowError> {
        let Matrix { dim, values, .. } = self.embeddings;
        let mut kept = Vec::new();
        for (row, _) in values.chunks_exact(dim.max(1)).zip(keep).filter(|(_, keep)| **keep) {
            kept.extend_from_slice(row);
        }
        let rows = keep.iter().filter(|keep| **keep).count();
        let further = self.further.map(|batch| filter_record_batch(batch, &BooleanArray::from(keep.to_vec())))?;
        Ok(Self {
            memory_ids: retain(self.memory_ids, keep),
            ids: retain(self.ids, keep),
            titles: retain(self.titles, keep),
            embeddings: Matrix { rows, dim, values: kept },
            element: self.element,
            coordinates: self.coordinates.map(|columns| columns.map(|column| retain(column, keep))),
            galactic_distance: self.galactic_distance.map(|column| retain(column, keep)),
            importance: self.importance.map(|column| retain(column, keep)),
            zone: self.zone.map(|column| retain(column, keep)),
            constellation_id: self.constellation_id.map(|column| retain(column, keep)),
            last_accessed_ns: self.last_accessed_ns.map(|column| retain(column, keep)),
            is_protected: self.is_protected.map(|column| retain(column, keep)),
            further,
        })
    }
}

fn retain<T>(column: Vec<T>, keep: &[bool]) -> Vec<T> {
    column.into_iter().zip(keep).filter(|(_, keep)| **keep).map(|(value, _)| value).collect()
}
