//! Rows on their way into a corpus: checked as a whole before any of them is accepted.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Float64Array, RecordBatch,
    StringArray, UInt8Array, UInt16Array, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use megaring_core::error::first_non_finite;
use megaring_core::matrix::Matrix;
use megaring_core::nearest::{MAX_COORDINATE, is_coordinate};
use megaring_core::{Element, Error, RowType};

use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::fault::not_finite;
use crate::text_ids::FIELD;

/// Columns without a meaning here, carried along as they are. Empty by default; import fills it.
///
/// They stay in the batches they came in until they are stored: who joined them with each further one would copy all
/// that are there again and again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Further(Vec<RecordBatch>);

impl Further {
    pub(crate) fn new(batch: RecordBatch) -> Self {
        Self(if batch.num_columns() > 0 { vec![batch] } else { Vec::new() })
    }

    /// Names of the columns.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The columns after `change`, which keeps their schema.
    pub(crate) fn map(
        self,
        change: impl Fn(&RecordBatch) -> Result<RecordBatch, ArrowError>,
    ) -> Result<Self, ArrowError> {
        Ok(Self(self.whole()?.as_ref().map(change).transpose()?.into_iter().collect()))
    }

    /// All as one batch, where there are any.
    pub(crate) fn whole(mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self.0.as_slice() {
            [] | [_] => Ok(self.0.pop()),
            [first, ..] => concat_batches(first.schema_ref(), &self.0).map(Some),
        }
    }

    /// How many rows there are, where there are columns.
    fn rows(&self) -> Option<usize> {
        (!self.0.is_empty()).then(|| self.0.iter().map(RecordBatch::num_rows).sum())
    }

    /// Bytes of the rows in memory, but for what other rows share with them.
    fn bytes(&self) -> usize {
        let bytes = |column: &ArrayRef| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
        };
        self.0.iter().flat_map(RecordBatch::columns).map(bytes).sum()
    }

    fn fields(&self) -> Fields {
        self.0.first().map_or_else(Fields::empty, |batch| batch.schema_ref().fields().clone())
    }
}

/// Rows to append: columns of one length.
///
/// A corpus with an id column takes the ids of its rows as `ids` or, under that name, among the `further` columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// The caller's ids. Empty: row numbers of the corpus, given when the append is committed.
    pub memory_ids: Vec<u64>,
    /// The caller's ids as texts, of a corpus that has an id column. Empty: a further column has them, if any does.
    pub ids: Vec<String>,
    /// Titles. Empty: every title is empty.
    pub titles: Vec<String>,
    /// The vectors; all values finite, the dimension the corpus's. Of bits, [words](RowType::width).
    pub embeddings: Matrix,
    /// What they are made of.
    pub element: Element,
    /// 5-D coordinates as five columns (x, y, z, w, v), finite.
    pub coordinates: Option<[Vec<f64>; 5]>,
    /// Distance from the galactic centre, finite.
    pub galactic_distance: Option<Vec<f64>>,
    /// Importance, finite.
    pub importance: Option<Vec<f64>>,
    /// Zone number.
    pub zone: Option<Vec<u8>>,
    /// Constellation number.
    pub constellation_id: Option<Vec<u16>>,
    /// Last access, in nanoseconds since 1970.
    pub last_accessed_ns: Option<Vec<u64>>,
    /// Whether the memory is protected.
    pub is_protected: Option<Vec<bool>>,
    /// Columns without a meaning here.
    pub further: Further,
}

impl Rows {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.embeddings.rows
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the rows in memory.
    pub(crate) fn bytes(&self) -> usize {
        let optional = columns::OPTIONAL.len() * 8;
        self.embeddings.values.len() * 4 + self.title_bytes() + self.len() * (8 + optional) + self.further.bytes()
    }

    pub(crate) fn title_bytes(&self) -> usize {
        self.titles.iter().map(String::len).sum()
    }

    /// Checks lengths and values against a corpus of `dim`.
    pub(crate) fn check(&self, row_type: RowType) -> Result<(), Error> {
        self.check_embeddings(row_type)?;
        let n = self.len();
        let lengths = [(MEMORY_ID, self.memory_ids.len()), (FIELD, self.ids.len()), (TITLE, self.titles.len())];
        for (name, len) in lengths {
            if len != 0 && len != n {
                return Err(length(name, len, n));
            }
        }
        for (name, column) in self.floats() {
            if column.len() != n {
                return Err(length(name, column.len(), n));
            }
            if let Some(row) = column.iter().position(|value| !value.is_finite()) {
                return Err(Error::row(name, row as u64, format!("{} is not finite", column[row])));
            }
            if let Some((row, reason)) = out_of_range(name, column) {
                return Err(Error::row(name, row as u64, reason));
            }
        }
        let plain = [
            (columns::ZONE, self.zone.as_ref().map(Vec::len)),
            (columns::CONSTELLATION_ID, self.constellation_id.as_ref().map(Vec::len)),
            (columns::LAST_ACCESSED_NS, self.last_accessed_ns.as_ref().map(Vec::len)),
            (columns::IS_PROTECTED, self.is_protected.as_ref().map(Vec::len)),
            ("further", self.further.rows()),
        ];
        match plain.into_iter().find(|(_, len)| len.is_some_and(|len| len != n)) {
            Some((name, len)) => Err(length(name, len.unwrap_or_default(), n)),
            None => Ok(()),
        }
    }

    fn check_embeddings(&self, row_type: RowType) -> Result<(), Error> {
        let Matrix { rows, dim: width, values } = &self.embeddings;
        if *rows == 0 && values.is_empty() {
            return Ok(());
        }
        if self.element != row_type.element {
            let reason = format!("the rows are of {}, the corpus's of {}", self.element, row_type.element);
            return Err(Error::field(EMBEDDING, reason));
        }
        let dim = row_type.width();
        if *width != dim {
            return Err(Error::field(EMBEDDING, format!("the dimension is {width}, the corpus's is {dim}")));
        }
        if rows.checked_mul(dim) != Some(values.len()) {
            return Err(Error::field(EMBEDDING, format!("{} values are not {rows} rows of {dim}", values.len())));
        }
        match first_wrong(values, row_type) {
            Some((row, reason)) => Err(Error::row(EMBEDDING, row as u64, reason)),
            None => Ok(()),
        }
    }

    fn floats(&self) -> impl Iterator<Item = (&'static str, &Vec<f64>)> {
        let coordinates = self.coordinates.iter().flat_map(|columns| COORDINATES.into_iter().zip(columns));
        let others = [
            (columns::GALACTIC_DISTANCE, self.galactic_distance.as_ref()),
            (columns::IMPORTANCE, self.importance.as_ref()),
        ];
        coordinates.chain(others.into_iter().filter_map(|(name, column)| column.map(|column| (name, column))))
    }

    /// The columns of a segment that holds such rows.
    pub(crate) fn schema(&self, row_type: RowType) -> SchemaRef {
        let id = (!self.memory_ids.is_empty()).then(|| Field::new(MEMORY_ID, DataType::UInt64, false));
        let mut fields = Vec::from_iter(id);
        fields.extend([
            Field::new(TITLE, DataType::Utf8, false),
            Field::new(EMBEDDING, columns::embedding_type(row_type), false),
        ]);
        let present = self.has_optional();
        let optional = columns::OPTIONAL.into_iter().zip(present).filter(|(_, present)| *present);
        fields.extend(optional.map(|((name, kind), _)| Field::new(name, kind, false)));
        let mut fields: Vec<Arc<Field>> = fields.into_iter().map(Arc::new).collect();
        fields.extend(self.further.fields().iter().cloned());
        Arc::new(Schema::new(fields))
    }

    /// Which of [`columns::OPTIONAL`] there are, in that order.
    fn has_optional(&self) -> [bool; 11] {
        let coordinates = self.coordinates.is_some();
        [
            coordinates,
            coordinates,
            coordinates,
            coordinates,
            coordinates,
            self.galactic_distance.is_some(),
            self.importance.is_some(),
            self.zone.is_some(),
            self.constellation_id.is_some(),
            self.last_accessed_ns.is_some(),
            self.is_protected.is_some(),
        ]
    }

    /// Adds rows of the same schema, whose titles are spelled out on both sides.
    pub(crate) fn extend(&mut self, mut other: Self) -> Result<(), ArrowError> {
        if self.is_empty() {
            *self = other;
            return Ok(());
        }
        self.further.0.append(&mut other.further.0);
        self.memory_ids.append(&mut other.memory_ids);
        self.titles.append(&mut other.titles);
        self.embeddings.rows += other.embeddings.rows;
        self.embeddings.values.append(&mut other.embeddings.values);
        if let (Some(mine), Some(new)) = (&mut self.coordinates, &mut other.coordinates) {
            mine.iter_mut().zip(new).for_each(|(mine, new)| mine.append(new));
        }
        append(&mut self.galactic_distance, other.galactic_distance);
        append(&mut self.importance, other.importance);
        append(&mut self.zone, other.zone);
        append(&mut self.constellation_id, other.constellation_id);
        append(&mut self.last_accessed_ns, other.last_accessed_ns);
        append(&mut self.is_protected, other.is_protected);
        Ok(())
    }

    /// The rows with every title spelled out.
    pub(crate) fn with_titles(mut self) -> Self {
        if self.titles.is_empty() {
            self.titles.resize(self.len(), String::new());
        }
        self
    }

    /// The rows as a record batch of their own schema. Titles are spelled out.
    pub(crate) fn into_batch_of(self, row_type: RowType) -> Result<RecordBatch, ArrowError> {
        let schema = self.schema(row_type);
        self.into_batch(&schema, row_type)
    }

    /// The rows as a record batch of `schema`, which is [`Self::schema`]'s. Embeddings are moved, not copied.
    pub(crate) fn into_batch(self, schema: &SchemaRef, row_type: RowType) -> Result<RecordBatch, ArrowError> {
        let values = Float32Array::from(self.embeddings.values);
        let embedding: ArrayRef = match columns::embedding_type(row_type) {
            DataType::FixedSizeList(item, dim) => {
                Arc::new(FixedSizeListArray::try_new(item, dim, Arc::new(values), None)?)
            }
            _ => {
                let bytes = (row_type.width() * size_of::<f32>()) as i32;
                Arc::new(FixedSizeBinaryArray::try_new(bytes, values.into_parts().1.into_inner(), None)?)
            }
        };
        let mut arrays: Vec<ArrayRef> = Vec::new();
        if !self.memory_ids.is_empty() {
            arrays.push(Arc::new(UInt64Array::from(self.memory_ids)));
        }
        arrays.extend([Arc::new(StringArray::from(self.titles)) as ArrayRef, embedding]);
        let coordinates = self.coordinates.into_iter().flatten();
        let floats = coordinates.chain(self.galactic_distance).chain(self.importance);
        arrays.extend(floats.map(|column| Arc::new(Float64Array::from(column)) as ArrayRef));
        arrays.extend(self.zone.map(|column| Arc::new(UInt8Array::from(column)) as ArrayRef));
        arrays.extend(self.constellation_id.map(|column| Arc::new(UInt16Array::from(column)) as ArrayRef));
        arrays.extend(self.last_accessed_ns.map(|column| Arc::new(UInt64Array::from(column)) as ArrayRef));
        arrays.extend(self.is_protected.map(|column| Arc::new(BooleanArray::from(column)) as ArrayRef));
        arrays.extend(self.further.whole()?.into_iter().flat_map(|batch| batch.columns().to_vec()));
        RecordBatch::try_new(schema.clone(), arrays)
    }
}

fn append<T>(mine: &mut Option<Vec<T>>, new: Option<Vec<T>>) {
    if let (Some(mine), Some(mut new)) = (mine, new) {
        mine.append(&mut new);
    }
}

fn length(name: &str, len: usize, rows: usize) -> Error {
    Error::field(name, format!("{len} values for {rows} rows"))
}

/// The first row of an embedding that cannot be stored, and why: a number is not finite, or there are bits where a
/// row's last word is filled up with zeros.
pub(crate) fn first_wrong(values: &[f32], row_type: RowType) -> Option<(usize, String)> {
    if row_type.element == Element::Float32 {
        let (row, element, value) = first_non_finite(values, row_type.dim)?;
        return Some((row, not_finite(element, value)));
    }
    let beyond = |row: &[f32]| row.last().is_some_and(|word| word.to_bits() & !row_type.last_bits() != 0);
    let row = values.chunks_exact(row_type.width()).position(beyond)?;
    Some((row, format!("there are bits beyond its {}, where zeros fill the last word up", row_type.dim)))
}

/// The first number of a float64 column that is finite and still cannot be: a coordinate whose distances might leave
/// float64.
pub(crate) fn out_of_range(name: &str, column: &[f64]) -> Option<(usize, String)> {
    if !COORDINATES.contains(&name) {
        return None;
    }
    let row = column.iter().position(|value| !is_coordinate(*value))?;
    Some((row, format!("{} is not within ±{MAX_COORDINATE:e}", column[row])))
}
