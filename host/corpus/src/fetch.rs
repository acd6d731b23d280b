//! Columns of named rows, as an Arrow record batch.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat;
use arrow_select::interleave::interleave;
use megaring_core::Error;
use megaring_core::corpus::CorpusView;
use serde_json::Value as Json;

use crate::columns::{EMBEDDING, unknown_zone};
use crate::fault::{Fault, guarded};
use crate::ids::{IdSet, TextSet};
use crate::piece::encode;
use crate::segment::{Part, part_of};
use crate::text_ids::TextIds;

/// The field of a request that names columns.
const FIELD: &str = "columns";
/// Stands for every column but the vectors.
const ALL: &str = "*";

/// Values of rows, column by column.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched(pub(crate) RecordBatch);

impl Fetched {
    /// Names of the columns.
    #[must_use]
    pub fn columns(&self) -> Vec<&str> {
        self.0.schema_ref().fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// As an Arrow IPC stream of one record batch.
    ///
    /// # Errors
    /// [`Error::Internal`] where Arrow refuses what it gave.
    pub fn to_stream(&self) -> Result<Vec<u8>, Error> {
        encode(&self.0).map_err(|error| Error::Internal(format!("columns that were read: {error}")))
    }

    /// The values of a row, in the order of the columns: numbers, truth values and lists of numbers as such, all else
    /// as text. `row` is below the number of rows.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `columns` for a type that cannot be shown.
    pub fn json(&self, row: usize) -> Result<Vec<Json>, Error> {
        self.0.columns().iter().zip(self.columns()).map(|(array, name)| value(array, name, row)).collect()
    }
}

fn value(array: &ArrayRef, name: &str, row: usize) -> Result<Json, Error> {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Ok(Json::Null);
    }
    let shown = || ArrayFormatter::try_new(array, &FormatOptions::default())?.value(row).try_to_string();
    let shown = guarded(shown).map_err(|error| match unknown_zone(array.data_type()) {
        Some(zone) => {
            let reason = format!("{name}: its time zone {zone:?} is not known, so it cannot be shown; leave it out");
            Error::field(FIELD, reason)
        }
        None => Error::field(FIELD, format!("{name}: {error}")),
    })?;
    let kind = array.data_type();
    let is_plain = kind.is_integer() || kind.is_floating() || *kind == DataType::Boolean || kind.is_list();
    // What is no number (NaN) has no other form in JSON either.
    let plain = is_plain.then(|| serde_json::from_str(&shown).ok()).flatten();
    Ok(plain.unwrap_or(Json::String(shown)))
}

/// Rows that are gathered between two looks at how large the whole is by then.
const RUN: usize = 256;

/// The values of some columns in some rows, in the order asked for, repeats allowed; at most about `most` bytes. `*`
/// stands for every column but `embedding`. A row that does not have a column has null there.
///
/// # Errors
/// [`Error::Invalid`] naming `columns` where no row of the corpus has one, rows have it in different types, or there is
/// more of them than `most`, or `rows` where there is no such row or it is hidden; [`Error::DataLoss`] where a segment
/// cannot be read.
pub fn fetch(view: &CorpusView, rows: &[u32], columns: &[String], most: usize) -> Result<Fetched, Error> {
    if let Some(at) = rows.iter().position(|row| !view.shows(*row)) {
        let what = if (rows[at] as usize) < view.rows() { "is deleted" } else { "is not there" };
        return Err(Error::row("rows", at as u64, format!("row {} {what}", rows[at])));
    }
    let parts: Vec<(usize, &Part)> =
        view.segments().filter_map(|(start, segment)| Some((start, part_of(segment)?))).collect();
    let names = spelled_out(&parts, columns);
    let place = |row: &u32| {
        let part = parts.partition_point(|(start, _)| *start <= *row as usize) - 1;
        (part, *row as usize - parts[part].0)
    };
    let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
    // Most columns of most corpora are in every segment; those of which no row is asked are not read.
    let mut read: Vec<usize> = places.iter().map(|(part, _)| *part).collect();
    read.sort_unstable();
    read.dedup();
    let index = |part: usize| read.partition_point(|read| *read < part);
    let places: Vec<(usize, usize)> = places.into_iter().map(|(part, row)| (index(part), row)).collect();
    let mut bytes = 0;
    let mut fields = Vec::with_capacity(names.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(names.len());
    for name in names {
        let field = field_of(view, &parts, &name)?;
        let kind = field.data_type().clone();
        let column = |part: &usize| {
            let (start, part) = parts[*part];
            let stored = part.column(&name).map_err(|fault| damaged(view, start, &fault))?;
            Ok(stored.unwrap_or_else(|| new_null_array(&kind, part.rows)))
        };
        let stored = read.iter().map(column).collect::<Result<Vec<ArrayRef>, Error>>()?;
        let stored: Vec<&dyn Array> = stored.iter().map(AsRef::as_ref).collect();
        let wrong = |reason: String| Error::field(FIELD, format!("{name}: {reason}"));
        let mut gathered = vec![new_null_array(&kind, 0)];
        for run in places.chunks(RUN) {
            let run = guarded(|| interleave(&stored, run)).map_err(wrong)?;
            bytes += run.to_data().get_slice_memory_size().unwrap_or(0);
            if bytes > most {
                let reason = format!(
                    "the reply would be {bytes} bytes or more, and a message is at most {most}; send fewer at a time"
                );
                return Err(Error::field(FIELD, reason));
            }
            gathered.push(run);
        }
        let gathered: Vec<&dyn Array> = gathered.iter().map(AsRef::as_ref).collect();
        arrays.push(guarded(|| concat(&gathered)).map_err(wrong)?);
        fields.push(field);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options);
    batch.map(Fetched).map_err(|error| Error::Internal(format!("columns that were read: {error}")))
}

/// The rows that have one of these ids, in the order of the ids, and the ids that no row has. Where several rows have
/// one id, all of them come, in their order.
///
/// # Errors
/// [`Error::Invalid`] naming `ids` where there are more than `most` rows.
pub fn find(view: &CorpusView, ids: &[u64], most: usize) -> Result<(Vec<u32>, Vec<u64>), Error> {
    in_order(ids, &by_number(view, ids), most)
}

/// [`find`] by text ids.
///
/// # Errors
/// [`Error::Invalid`] naming `ids` where there are more than `most` rows, or `ids.texts` where the corpus has no id
/// column; [`Error::DataLoss`] where a segment cannot be read.
pub fn find_texts(view: &CorpusView, texts: &[String], most: usize) -> Result<(Vec<u32>, Vec<String>), Error> {
    if texts.is_empty() {
        return Ok(Default::default());
    }
    let known = TextIds::asked_for(view, "ids.texts")?;
    in_order(texts, &by_text(view, texts, &known), most)
}

/// The row of each of these ids, numbers first, which must be one.
///
/// # Errors
/// [`Error::Invalid`] naming `field`, `ids` or `texts` in it, and the id of which there is no row, or several; also
/// where the corpus has no id column. [`Error::DataLoss`] where a segment cannot be read.
pub fn find_each(view: &CorpusView, ids: &[u64], texts: &[String], field: &str) -> Result<Vec<u32>, Error> {
    let mut rows = each(ids, &by_number(view, ids), &format!("{field}.ids"))?;
    if !texts.is_empty() {
        let field = format!("{field}.texts");
        let known = TextIds::asked_for(view, &field)?;
        rows.extend(each(texts, &by_text(view, texts, &known), &field)?);
    }
    Ok(rows)
}

fn by_number(view: &CorpusView, ids: &[u64]) -> HashMap<u64, Vec<u32>> {
    let mut rows: HashMap<u64, Vec<u32>> = HashMap::new();
    for row in IdSet::new(ids).rows_of(view) {
        rows.entry(view.label(row).0).or_default().push(row);
    }
    rows
}

fn by_text(view: &CorpusView, texts: &[String], known: &TextIds) -> HashMap<String, Vec<u32>> {
    let mut rows: HashMap<String, Vec<u32>> = HashMap::new();
    for row in TextSet::new(texts.iter().map(String::as_str)).rows_of(view, known) {
        rows.entry(known.get(row).unwrap_or_default().to_owned()).or_default().push(row);
    }
    rows
}

/// The rows of all ids, and the ids without any.
fn in_order<I: Clone + Eq + Hash>(
    ids: &[I],
    by_id: &HashMap<I, Vec<u32>>,
    most: usize,
) -> Result<(Vec<u32>, Vec<I>), Error> {
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    for id in ids {
        match by_id.get(id) {
            Some(found) if rows.len() + found.len() > most => {
                return Err(Error::field("ids", format!("they are the ids of more than {most} rows; ask for fewer")));
            }
            Some(found) => rows.extend(found),
            None => missing.push(id.clone()),
        }
    }
    Ok((rows, missing))
}

fn each<I: Debug + Eq + Hash>(ids: &[I], by_id: &HashMap<I, Vec<u32>>, field: &str) -> Result<Vec<u32>, Error> {
    let one = |(at, id): (usize, &I)| {
        let reason = match by_id.get(id).map(Vec::as_slice) {
            Some([row]) => return Ok(*row),
            Some([first, second, ..]) => {
                format!("{id:?} is the id of several rows, of {first} and {second}; name one by its number")
            }
            _ => format!("no row has the id {id:?}"),
        };
        Err(Error::row(field, at as u64, reason))
    };
    ids.iter().enumerate().map(one).collect()
}

/// The names asked for, each once.
fn spelled_out(parts: &[(usize, &Part)], columns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for column in columns {
        let all = parts.iter().flat_map(|(_, part)| part.fields()).map(|field| field.name().clone());
        let all = all.filter(|name| column == ALL && name != EMBEDDING);
        let one = Some(column.clone()).filter(|column| column != ALL);
        for name in one.into_iter().chain(all) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// What a column is, wherever there is one. It may be null unless it is nowhere.
fn field_of(view: &CorpusView, parts: &[(usize, &Part)], name: &str) -> Result<Field, Error> {
    let mut kinds = parts.iter().flat_map(|(_, part)| part.fields()).filter(|field| field.name() == name);
    let Some(first) = kinds.next() else {
        if view.rows() == 0 {
            return Ok(Field::new(name, DataType::Null, true));
        }
        return Err(Error::field(FIELD, format!("no row has a column {name:?}")));
    };
    match kinds.find(|other| other.data_type() != first.data_type()) {
        Some(other) => {
            let reason = format!("{name} is {} in some rows and {} in others", first.data_type(), other.data_type());
            Err(Error::field(FIELD, reason))
        }
        None => {
            let never = |part: &Part| part.fields().iter().any(|field| field.name() == name && !field.is_nullable());
            let nullable = !parts.iter().all(|(_, part)| never(part));
            Ok(first.as_ref().clone().with_nullable(nullable))
        }
    }
}

/// A segment whose columns cannot be read any more.
pub(crate) fn damaged(view: &CorpusView, start: usize, fault: &Fault) -> Error {
    let segment = format!("the segment of row {start}");
    Error::DataLoss { corpus: view.name().to_owned(), segment, reason: fault.to_string() }
}
