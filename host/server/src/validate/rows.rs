//! Rows to append, column by column: one entry per embedding, or the column is left out.

use megaring_core::{Error, RowType};
use megaring_corpus::Rows;
use megaring_proto::v1 as pb;

use super::{points, vectors};

/// Rows for a corpus of this type.
///
/// # Errors
/// [`Error::Invalid`] naming the column under `rows` and the row within this message.
pub fn rows(message: pb::Rows, row_type: RowType) -> Result<Rows, Error> {
    let embeddings = vectors("rows.embeddings", message.embeddings, row_type)?;
    let count = embeddings.rows;
    entries("memory_ids", message.memory_ids.len(), count)?;
    entries("ids", message.ids.len(), count)?;
    entries("titles", message.titles.len(), count)?;
    let mut rows = Rows {
        memory_ids: message.memory_ids,
        ids: message.ids,
        titles: message.titles,
        embeddings,
        element: row_type.element,
        coordinates: coordinates(&message.coordinates, count)?,
        galactic_distance: finite("galactic_distance", message.galactic_distance, count)?,
        importance: finite("importance", message.importance, count)?,
        zone: small("zone", &message.zone, count)?,
        constellation_id: small("constellation_id", &message.constellation_id, count)?,
        last_accessed_ns: column("last_accessed_ns", message.last_accessed_ns, count)?,
        is_protected: column("is_protected", message.is_protected, count)?,
        ..Rows::default()
    };
    rows.add_columns(&message.columns)?;
    Ok(rows)
}

fn entries(name: &str, found: usize, count: usize) -> Result<(), Error> {
    if found == 0 || found == count {
        return Ok(());
    }
    Err(Error::field(
        format!("rows.{name}"),
        format!("{found} entries for {count} embeddings; one each, or none, are legal"),
    ))
}

fn column<T>(name: &str, values: Vec<T>, count: usize) -> Result<Option<Vec<T>>, Error> {
    entries(name, values.len(), count)?;
    Ok((!values.is_empty()).then_some(values))
}

fn finite(name: &str, values: Vec<f64>, count: usize) -> Result<Option<Vec<f64>>, Error> {
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::row(
            format!("rows.{name}"),
            at as u64,
            format!("{}; the number must be finite", values[at]),
        ));
    }
    column(name, values, count)
}

/// A column of numbers that are narrower in a corpus.
fn small<T: TryFrom<u32>>(name: &str, values: &[u32], count: usize) -> Result<Option<Vec<T>>, Error> {
    let narrow = |(row, value): (usize, &u32)| {
        let max = u32::MAX >> (u32::BITS as usize - 8 * size_of::<T>());
        let wrong = || Error::row(format!("rows.{name}"), row as u64, format!("{value}; 0 to {max} are legal"));
        T::try_from(*value).map_err(|_| wrong())
    };
    let values: Vec<T> = values.iter().enumerate().map(narrow).collect::<Result<_, _>>()?;
    column(name, values, count)
}

fn coordinates(flat: &[f64], count: usize) -> Result<Option<[Vec<f64>; 5]>, Error> {
    let points = points("rows.coordinates", flat)?;
    entries("coordinates", points.len(), count)?;
    let axis = |axis: usize| points.iter().map(|point| point[axis]).collect();
    Ok((!points.is_empty()).then(|| std::array::from_fn(axis)))
}
