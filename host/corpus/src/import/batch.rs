//! A record batch of another program as rows: columns with a meaning are converted, the others kept.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, GenericListArray, OffsetSizeTrait, RecordBatch};
use arrow_schema::{DataType, Schema};
use arrow_select::filter::filter_record_batch;
use megaring_core::error::first_non_finite;
use megaring_core::matrix::Matrix;

use super::numbers::{self, Column};
use super::{Bad, Chunk};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::fault::Fault;
use crate::rows::{Further, Rows};

/// The rows of a batch that has nothing but good ones.
pub(crate) fn rows_of(batch: &RecordBatch, dim: usize) -> Result<Rows, Fault> {
    let Chunk { rows, bad } = Batches::new(String::new(), Some(dim)).convert(batch)?;
    match bad.first {
        Some(first) => Err(Fault::file(first.to_string())),
        None => Ok(rows),
    }
}

/// Turns batches of one file into chunks.
pub(super) struct Batches {
    file: String,
    dim: Option<usize>,
    row: u64,
    converted: Option<&'static str>,
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

    fn any(&self) -> bool {
        self.reasons.iter().any(Option::is_some)
    }
}

impl Batches {
    /// For a file shown as `file`. `dim`: the dimension, where it is known already.
    pub(super) fn new(file: String, dim: Option<usize>) -> Self {
        Self { file, dim, row: 0, converted: None }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The dimension, once known.
    pub(super) fn dim(&self) -> Option<usize> {
        self.dim
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let note = |kind| format!("{}: embeddings were {kind} and are stored as float32", self.file);
        self.converted.map(note).into_iter().collect()
    }

    /// Converts the next batch of the file.
    pub(super) fn convert(&mut self, batch: &RecordBatch) -> Result<Chunk, Fault> {
        let mut marks = Marks { reasons: vec![None; batch.num_rows()] };
        let rows = self.columns(batch, &mut marks)?;
        let chunk = if marks.any() { self.without_bad(rows, &marks)? } else { Chunk { rows, bad: Bad::default() } };
        self.row += batch.num_rows() as u64;
        Ok(chunk)
    }

    fn columns(&mut self, batch: &RecordBatch, marks: &mut Marks) -> Result<Rows, Fault> {
        let schema = batch.schema();
        let column = |name: &str| {
            let array = batch.column_by_name(name);
            array.map(numbers::plain).transpose().map_err(|error| Fault::column(name, error.to_string()))
        };
        let embedding = column(EMBEDDING)?.ok_or_else(|| Fault::column(EMBEDDING, "the column is missing"))?;
        let embeddings = self.vectors(&embedding, marks)?;
        let mut rows = Rows { embeddings, ..Rows::default() };
        if let Some(ids) = column(MEMORY_ID)? {
            rows.memory_ids = marks.values(MEMORY_ID, numbers::integers(MEMORY_ID, &ids)?);
        }
        if let Some(titles) = column(TITLE)? {
            rows.titles = numbers::texts(TITLE, &titles)?;
        }
        let float = |name: &'static str, marks: &mut Marks| -> Result<Option<Vec<f64>>, Fault> {
            column(name)?.map(|array| Ok(marks.values(name, numbers::floats(name, &array)?))).transpose()
        };
        if columns::has_coordinates(&schema) {
            let mut coordinates: [Vec<f64>; 5] = Default::default();
            for (name, axis) in COORDINATES.into_iter().zip(&mut coordinates) {
                *axis = float(name, marks)?.unwrap_or_default();
            }
            rows.coordinates = Some(coordinates);
        }
        rows.galactic_distance = float(columns::GALACTIC_DISTANCE, marks)?;
        rows.importance = float(columns::IMPORTANCE, marks)?;
        rows.zone = integers(columns::ZONE, column(columns::ZONE)?, marks)?;
        rows.constellation_id = integers(columns::CONSTELLATION_ID, column(columns::CONSTELLATION_ID)?, marks)?;
        rows.last_accessed_ns = integers(columns::LAST_ACCESSED_NS, column(columns::LAST_ACCESSED_NS)?, marks)?;
        if let Some(array) = column(columns::IS_PROTECTED)? {
            rows.is_protected =
                Some(marks.values(columns::IS_PROTECTED, numbers::booleans(columns::IS_PROTECTED, &array)?));
        }
        rows.further = further(batch, &schema)?;
        Ok(rows)
    }

    fn vectors(&mut self, array: &ArrayRef, marks: &mut Marks) -> Result<Matrix, Fault> {
        let (child, bounds) = lists(array)?;
        let (values, converted) = numbers::elements(EMBEDDING, &child)?;
        self.converted = self.converted.or(converted);
        let dim = match (self.dim, array.data_type()) {
            (Some(dim), _) => dim,
            (None, DataType::FixedSizeList(_, width)) => usize::try_from(*width).unwrap_or(0),
            (None, _) => first_length(array.as_ref(), &bounds),
        };
        if dim == 0 && !array.is_empty() {
            return Err(Fault::column(EMBEDDING, "no row has a vector"));
        }
        self.dim = if array.is_empty() { self.dim } else { Some(dim) };
        let mut matrix = Matrix { rows: array.len(), dim, values: Vec::with_capacity(array.len() * dim) };
        for (row, (start, end)) in bounds.into_iter().enumerate() {
            match vector(array.as_ref(), row, &values, start..end, &child, dim) {
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
                bad.add(Fault::value(column, row, reason).shifted(self.row as usize).into_violation(&self.file));
            }
        }
        let keep: Vec<bool> = marks.reasons.iter().map(Option::is_none).collect();
        let rows = rows.keep(&keep).map_err(|error| Fault::file(error.to_string()))?;
        Ok(Chunk { rows, bad })
    }
}

fn integers<T: Copy + Default + TryFrom<i128>>(
    name: &'static str,
    array: Option<ArrayRef>,
    marks: &mut Marks,
) -> Result<Option<Vec<T>>, Fault> {
    array.map(|array| Ok(marks.values(name, numbers::integers(name, &array)?))).transpose()
}

/// Columns without a meaning here, dictionaries resolved.
fn further(batch: &RecordBatch, schema: &Schema) -> Result<Further, Fault> {
    let coordinates = columns::has_coordinates(schema);
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        if !columns::is_known(field.name(), coordinates) {
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
fn lists(array: &ArrayRef) -> Result<(ArrayRef, Vec<(usize, usize)>), Fault> {
    let n = array.len();
    Ok(match array.data_type() {
        DataType::FixedSizeList(_, width) => {
            let width = usize::try_from(*width).unwrap_or(0);
            let lists = array.as_fixed_size_list();
            (lists.values().clone(), (0..n).map(|row| (row * width, (row + 1) * width)).collect())
        }
        DataType::List(_) => listed(array.as_list::<i32>()),
        DataType::LargeList(_) => listed(array.as_list::<i64>()),
        other => return Err(Fault::column(EMBEDDING, format!("its type is {other}, wanted is a list of float32"))),
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

fn first_length(array: &dyn Array, bounds: &[(usize, usize)]) -> usize {
    let row = (0..array.len()).find(|row| array.is_valid(*row));
    row.and_then(|row| bounds.get(row)).map_or(0, |(start, end)| end - start)
}

fn vector<'a>(
    array: &dyn Array,
    row: usize,
    values: &'a [f32],
    range: std::ops::Range<usize>,
    child: &ArrayRef,
    dim: usize,
) -> Result<&'a [f32], String> {
    if array.is_null(row) {
        return Err("the vector is null".into());
    }
    if range.len() != dim {
        return Err(format!("the vector has {} values, wanted are {dim}", range.len()));
    }
    if child.null_count() > 0
        && let Some(element) = range.clone().position(|at| child.is_null(at))
    {
        return Err(format!("element {element} is null"));
    }
    let vector = values.get(range).ok_or_else(|| "the vector lies outside the column".to_owned())?;
    match first_non_finite(vector, dim) {
        Some((_, element, value)) => Err(format!("element {element} is {value}; every value must be finite")),
        None => Ok(vector),
    }
}

/// Rows and further columns of which some are left out.
impl Rows {
    fn keep(self, keep: &[bool]) -> Result<Self, arrow_schema::ArrowError> {
        let Matrix { dim, values, .. } = self.embeddings;
        let mut kept = Vec::new();
        for (row, _) in values.chunks_exact(dim.max(1)).zip(keep).filter(|(_, keep)| **keep) {
            kept.extend_from_slice(row);
        }
        let rows = keep.iter().filter(|keep| **keep).count();
        let further = self.further.map(|batch| filter_record_batch(batch, &BooleanArray::from(keep.to_vec())))?;
        Ok(Self {
            memory_ids: retain(self.memory_ids, keep),
            titles: retain(self.titles, keep),
            embeddings: Matrix { rows, dim, values: kept },
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
