//! The columns of a segment that have a meaning, their names and types.

use std::sync::Arc;

use arrow_array::timezone::Tz;
use arrow_schema::{DataType, Field, Schema};
use megaring_core::{Element, RowType};

pub(crate) const MEMORY_ID: &str = "memory_id";
pub(crate) const TITLE: &str = "title";
pub(crate) const EMBEDDING: &str = "embedding";
/// The 5-D coordinates, float64 each.
pub(crate) const COORDINATES: [&str; 5] = ["x", "y", "z", "w", "v"];
pub(crate) const GALACTIC_DISTANCE: &str = "galactic_distance";
pub(crate) const IMPORTANCE: &str = "importance";
pub(crate) const ZONE: &str = "zone";
pub(crate) const CONSTELLATION_ID: &str = "constellation_id";
pub(crate) const LAST_ACCESSED_NS: &str = "last_accessed_ns";
pub(crate) const IS_PROTECTED: &str = "is_protected";

/// Optional columns of plain numbers, with their types in a segment.
pub(crate) const OPTIONAL: [(&str, DataType); 11] = [
    ("x", DataType::Float64),
    ("y", DataType::Float64),
    ("z", DataType::Float64),
    ("w", DataType::Float64),
    ("v", DataType::Float64),
    (GALACTIC_DISTANCE, DataType::Float64),
    (IMPORTANCE, DataType::Float64),
    (ZONE, DataType::UInt8),
    (CONSTELLATION_ID, DataType::UInt16),
    (LAST_ACCESSED_NS, DataType::UInt64),
    (IS_PROTECTED, DataType::Boolean),
];

/// Whether a file has coordinates: fewer than all five columns of these short names mean something else.
pub(crate) fn has_coordinates(schema: &Schema) -> bool {
    COORDINATES.iter().all(|name| schema.field_with_name(name).is_ok())
}

/// Whether a column has a meaning here, in a file that has coordinates or not; any other is kept as it is.
pub(crate) fn is_known(name: &str, has_coordinates: bool) -> bool {
    let required = [MEMORY_ID, TITLE, EMBEDDING].contains(&name);
    required || OPTIONAL.iter().any(|(known, _)| *known == name) && (has_coordinates || !COORDINATES.contains(&name))
}

/// The names of all columns that have a meaning.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    [MEMORY_ID, TITLE, EMBEDDING].into_iter().chain(OPTIONAL.into_iter().map(|(name, _)| name))
}

/// The [`OPTIONAL`] columns that a file has and that have a meaning in it.
pub(crate) fn optional_of(schema: &Schema) -> impl Iterator<Item = (&'static str, DataType)> {
    let has_coordinates = has_coordinates(schema);
    let there = move |name: &str| is_known(name, has_coordinates) && schema.field_with_name(name).is_ok();
    OPTIONAL.into_iter().filter(move |(name, _)| there(name))
}

/// The type of the embedding column: bits are bytes of whole words.
pub(crate) fn embedding_type(row_type: RowType) -> DataType {
    // The width is at most MAX_DIM, far within i32.
    let width = row_type.width() as i32;
    match row_type.element {
        Element::Float32 => DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, false)), width),
        Element::Bit => DataType::FixedSizeBinary(width * size_of::<f32>() as i32),
    }
}

/// A time zone in a column's type, at any depth, that is not known here: its moments cannot be told as text.
pub(crate) fn unknown_zone(kind: &DataType) -> Option<Arc<str>> {
    let whole = Schema::new(vec![Field::new("", kind.clone(), true)]);
    whole.flattened_fields().into_iter().find_map(|field| match field.data_type() {
        DataType::Timestamp(_, Some(zone)) if zone.parse::<Tz>().is_err() => Some(zone.clone()),
        _ => None,
    })
}
