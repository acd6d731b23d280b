//! Ids that are texts, of a corpus that has them in a column. The number that stands for a text (`memory_id`) is its
//! xxHash64: rows are found by it, and then their texts are compared, since two texts may have one hash.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Schema};
use megaring_core::Error;
use megaring_core::checksum::xxhash64;
use megaring_core::corpus::{CorpusView, MemoryIds};

use crate::columns::{self, MEMORY_ID};
use crate::fault::{Fault, guarded};
use crate::fetch::damaged;
use crate::rows::{Further, Rows};
use crate::segment::{Part, part_of};

/// The field of rows that has such ids.
pub(crate) const FIELD: &str = "ids";
/// What helps where ids are something else.
pub(crate) const WAY_OUT: &str = "ids are texts or UUIDs, and whole numbers those of a corpus without an id column, \
    as its memory_id (`--column memory_id=COLUMN`)";
/// Longest id, in bytes: the longest path that Linux takes. Every reply has room for some.
const MAX_BYTES: usize = 4096;

/// Checks the name of an id column.
pub(crate) fn check_column(name: &str) -> Result<(), Error> {
    let reason = match name {
        "" => "it is empty",
        "*" => "it stands for all columns",
        name if columns::is_known(name, true) => "this column has another meaning",
        _ => return Ok(()),
    };
    Err(Error::field("id_column", format!("{name:?} cannot have the ids: {reason}")))
}

/// Why a text cannot be an id.
pub(crate) fn judge(text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err("the id is empty".into()),
        bytes if bytes > MAX_BYTES => Err(format!("the id has {bytes} bytes, and {MAX_BYTES} is the most")),
        _ => Ok(()),
    }
}

/// What marks a column of 16 bytes as one of UUIDs.
pub(crate) const UUID: &str = "arrow.uuid";

/// A column of UUIDs as the texts they are known by, in small letters with hyphens; any other as it is.
pub(crate) fn spelled(field: &Field, array: &ArrayRef) -> ArrayRef {
    if *array.data_type() != DataType::FixedSizeBinary(16) || field.extension_type_name() != Some(UUID) {
        return array.clone();
    }
    let spell = |bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    };
    let texts = array.as_fixed_size_binary().iter().map(|uuid| uuid.map(spell));
    Arc::new(texts.collect::<StringArray>())
}

/// The text ids of a version's rows; none where the corpus has no column for them.
#[derive(Clone, Default)]
pub struct TextIds {
    /// With the number of the first row of each.
    segments: Vec<(usize, StringArray)>,
}

impl TextIds {
    /// Those of a version of a store's corpus. Cheap but for the first time.
    ///
    /// # Errors
    /// [`Error::DataLoss`] where a segment cannot be read.
    pub fn of(view: &CorpusView) -> Result<Self, Error> {
        let Some(column) = view.id_column() else { return Ok(Self::default()) };
        let texts = view.segments().filter_map(|(start, segment)| {
            let texts = texts_of(part_of(segment)?, column).map_err(|fault| damaged(view, start, &fault));
            Some(texts.map(|texts| (start, texts)))
        });
        Ok(Self { segments: texts.collect::<Result<_, _>>()? })
    }

    /// [`Self::of`], for ids that somebody gave in the field `field`.
    pub(crate) fn asked_for(view: &CorpusView, field: &str) -> Result<Self, Error> {
        if view.id_column().is_none() {
            let reason = format!("corpus {:?} has no id column: its ids are numbers", view.name());
            return Err(Error::field(field, reason));
        }
        Self::of(view)
    }

    /// Those of parts that follow each other; none without a column.
    pub(crate) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a Part>, column: Option<&str>) -> Result<Self, Fault> {
        let Some(column) = column else { return Ok(Self::default()) };
        let (mut segments, mut start) = (Vec::new(), 0);
        for part in parts {
            segments.push((start, texts_of(part, column)?));
            start += part.rows;
        }
        Ok(Self { segments })
    }

    /// The id of a row; `None` where the corpus has no column for it, or has no such row.
    #[must_use]
    pub fn get(&self, row: u32) -> Option<&str> {
        let next = self.segments.partition_point(|(start, _)| *start <= row as usize);
        let (start, texts) = self.segments.get(next.checked_sub(1)?)?;
        let at = row as usize - start;
        (at < texts.len() && texts.is_valid(at)).then(|| texts.value(at))
    }
}

fn texts_of(part: &Part, column: &str) -> Result<StringArray, Fault> {
    check_field(part.fields().iter().find(|field| field.name() == column).map(AsRef::as_ref), column)?;
    let texts = part.column(column)?.ok_or_else(|| missing(column))?;
    Ok(texts.as_string::<i32>().clone())
}

/// Refuses an id column of another form than a store gives it.
pub(crate) fn check_field(field: Option<&Field>, column: &str) -> Result<(), Fault> {
    match field.map(Field::data_type) {
        None => Err(missing(column)),
        Some(DataType::Utf8) => Ok(()),
        Some(other) => Err(Fault::column(column, format!("its type is {other}, wanted is {}", DataType::Utf8)).form()),
    }
}

fn missing(column: &str) -> Fault {
    Fault::column(column, "the column is missing, which has the rows' ids").form()
}

/// Checks that rows have ids, and the numbers that stand for them.
pub(crate) fn check(part: &Part, column: &str) -> Result<(), Fault> {
    let texts = texts_of(part, column)?;
    let MemoryIds::Given(numbers) = part.ids() else {
        return Err(Fault::column(MEMORY_ID, "the column is missing, which has the hashes of the ids").form());
    };
    for (row, (text, number)) in texts.iter().zip(numbers).enumerate() {
        let text = text.ok_or_else(|| Fault::value(column, row, "the value is null"))?;
        judge(text).map_err(|reason| Fault::value(column, row, reason))?;
        if *number != xxhash64(text.as_bytes()) {
            return Err(Fault::value(MEMORY_ID, row, format!("{number} is not the xxHash64 of its {column}")));
        }
    }
    Ok(())
}

impl Rows {
    /// The same rows, checked before, as a corpus with this id column stores them: the texts in that column, which is
    /// the last, and the numbers that stand for them as their `memory_ids`.
    pub(crate) fn identified(mut self, column: Option<&str>) -> Result<Self, Error> {
        let wrong = |reason: String| Error::field(FIELD, reason);
        let Some(column) = column else {
            return if self.ids.is_empty() {
                Ok(self)
            } else {
                Err(wrong("the corpus has no id column: its ids are numbers, in memory_id".into()))
            };
        };
        if self.is_empty() {
            return Ok(self);
        }
        let further = std::mem::take(&mut self.further).whole().map_err(|error| Error::Internal(error.to_string()))?;
        let sent = further.as_ref().and_then(|batch| {
            let (at, field) = batch.schema_ref().fields().find(column)?;
            Some(spelled(field, batch.column(at)))
        });
        let texts = match (std::mem::take(&mut self.ids), sent) {
            (ids, None) if ids.is_empty() => {
                return Err(wrong(format!("column {column} is missing, which has the rows' ids")));
            }
            (ids, None) => text_array(&ids)?,
            (ids, Some(array)) if ids.is_empty() => as_texts(&array, column)?,
            (_, Some(_)) => return Err(wrong(format!("they are there twice, in column {column} too"))),
        };
        let mut numbers = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let wrong = |reason: String| Error::row(FIELD, row as u64, format!("{reason} (column {column})"));
            let text = text.ok_or_else(|| wrong("the id is null".into()))?;
            judge(text).map_err(wrong)?;
            numbers.push(xxhash64(text.as_bytes()));
        }
        // Rows that come from such a corpus have both.
        if let Some(row) = self.memory_ids.iter().zip(&numbers).position(|(given, number)| given != number) {
            let reason =
                format!("{} is given, and rows of this corpus have their ids in {column}", self.memory_ids[row]);
            return Err(Error::row(MEMORY_ID, row as u64, reason));
        }
        self.memory_ids = numbers;
        let others = further.iter().flat_map(|batch| batch.schema_ref().fields().iter().zip(batch.columns()));
        let (mut fields, mut arrays): (Vec<_>, Vec<ArrayRef>) = others
            .filter(|(field, _)| field.name() != column)
            .map(|(field, array)| (field.clone(), array.clone()))
            .unzip();
        fields.push(Field::new(column, DataType::Utf8, false).into());
        arrays.push(Arc::new(texts));
        let batch = RecordBatch::try_new(Schema::new(fields).into(), arrays);
        self.further = Further::new(batch.map_err(|error| wrong(error.to_string()))?);
        Ok(self)
    }
}

fn text_array(ids: &[String]) -> Result<StringArray, Error> {
    if i32::try_from(ids.iter().map(String::len).sum::<usize>()).is_err() {
        return Err(Error::field(FIELD, "more than 2 GiB at once; send fewer rows"));
    }
    Ok(StringArray::from_iter_values(ids))
}

fn as_texts(array: &ArrayRef, column: &str) -> Result<StringArray, Error> {
    let wrong = |reason: String| Error::field(FIELD, format!("column {column}: {reason}"));
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = guarded(|| cast(array, &DataType::Utf8)).map_err(wrong)?;
            Ok(texts.as_string::<i32>().clone())
        }
        other => Err(wrong(format!("its type is {other}, wanted is text; {WAY_OUT}"))),
    }
}
