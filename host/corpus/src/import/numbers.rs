//! Columns of numbers as other programs write them, as the type a segment has: every conversion either keeps the number
//! or refuses the row.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, UInt64Array, downcast_run_array, make_array};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use arrow_select::take::take;

use super::selection::way_out;
use crate::columns::EMBEDDING;
use crate::fault::Fault;

/// A column with what is wrong in it, row by row; the value of a bad row is of no use.
pub(super) struct Column<T> {
    pub(super) values: Vec<T>,
    pub(super) bad: Vec<(usize, String)>,
}

impl<T: Copy + Default> Column<T> {
    fn gather<V>(values: impl Iterator<Item = Option<V>>, convert: impl Fn(V) -> Result<T, String>) -> Self {
        let mut column = Self { values: Vec::with_capacity(values.size_hint().0), bad: Vec::new() };
        for (row, value) in values.enumerate() {
            let converted = value.ok_or_else(|| "the value is null".to_owned()).and_then(&convert);
            column.values.push(converted.unwrap_or_else(|reason| {
                column.bad.push((row, reason));
                T::default()
            }));
        }
        column
    }
}

/// The refusal of a column of another type.
fn wrong_type(name: &str, in_file: &str, array: &ArrayRef, wanted: &str) -> Fault {
    let help = way_out(name, in_file);
    Fault::column(name, format!("its type is {}, wanted {wanted}; {help}", array.data_type()))
}

/// Integers of any width.
pub(super) fn integers<T: Copy + Default + TryFrom<i128>>(
    name: &str,
    in_file: &str,
    array: &ArrayRef,
) -> Result<Column<T>, Fault> {
    let values = whole(array).ok_or_else(|| wrong_type(name, in_file, array, "are integers"))?;
    Ok(Column::gather(values, unsigned))
}

/// Times in nanoseconds since 1970: integers, or timestamps of any unit.
pub(super) fn nanoseconds(name: &str, in_file: &str, array: &ArrayRef) -> Result<Column<u64>, Fault> {
    let DataType::Timestamp(unit, _) = array.data_type() else { return integers(name, in_file, array) };
    let nanoseconds = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    let ticks = array.to_data().into_builder().data_type(DataType::Int64).build();
    let ticks = make_array(ticks.map_err(|error| Fault::column(name, error.to_string()))?);
    Ok(Column::gather(wide::<Int64Type>(&ticks), |value| unsigned(value * nanoseconds)))
}

fn unsigned<T: TryFrom<i128>>(value: i128) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{value} is no unsigned integer of {} bits", size_of::<T>() * 8))
}

/// Floating-point numbers, finite; or integers that are such numbers.
pub(super) fn floats(name: &str, in_file: &str, array: &ArrayRef) -> Result<Column<f64>, Fault> {
    let convert = |value: f64| match value.is_finite() {
        true => Ok(value),
        false => Err(format!("{value} is not finite")),
    };
    let exact = |value: i128| match value as f64 {
        float if float as i128 == value => Ok(float),
        _ => Err(format!("{value} is no float64")),
    };
    Ok(match array.data_type() {
        DataType::Float16 => {
            Column::gather(array.as_primitive::<Float16Type>().iter().map(|v| v.map(f64::from)), convert)
        }
        DataType::Float32 => {
            Column::gather(array.as_primitive::<Float32Type>().iter().map(|v| v.map(f64::from)), convert)
        }
        DataType::Float64 => Column::gather(array.as_primitive::<Float64Type>().iter(), convert),
        _ => Column::gather(whole(array).ok_or_else(|| wrong_type(name, in_file, array, "is float64"))?, exact),
    })
}

/// Truth values.
pub(super) fn booleans(name: &str, in_file: &str, array: &ArrayRef) -> Result<Column<bool>, Fault> {
    match array.data_type() {
        DataType::Boolean => Ok(Column::gather(array.as_boolean().iter(), Ok)),
        _ => Err(wrong_type(name, in_file, array, "is bool")),
    }
}

/// Texts; null is the empty text.
pub(super) fn texts(name: &str, in_file: &str, array: &ArrayRef) -> Result<Vec<String>, Fault> {
    let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(owned).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(owned).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(owned).collect(),
        DataType::Null => vec![String::new(); array.len()],
        _ => return Err(wrong_type(name, in_file, array, "is text")),
    })
}

/// The values of a vector column's child as float32, and their type where it was another.
pub(super) fn elements(in_file: &str, array: &ArrayRef) -> Result<(Vec<f32>, Option<DataType>), Fault> {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef, value: fn(T::Native) -> f32) -> Vec<f32> {
        array.as_primitive::<T>().values().iter().map(|v| value(*v)).collect()
    }
    let values = match array.data_type() {
        DataType::Float32 => return Ok((array.as_primitive::<Float32Type>().values().to_vec(), None)),
        DataType::Float16 => of::<Float16Type>(array, half::f16::to_f32),
        DataType::Float64 => of::<Float64Type>(array, |v| v as f32),
        DataType::Int8 => of::<Int8Type>(array, f32::from),
        DataType::UInt8 => of::<UInt8Type>(array, f32::from),
        DataType::Int16 => of::<Int16Type>(array, f32::from),
        DataType::UInt16 => of::<UInt16Type>(array, f32::from),
        DataType::Int32 => of::<Int32Type>(array, |v| v as f32),
        DataType::UInt32 => of::<UInt32Type>(array, |v| v as f32),
        DataType::Int64 => of::<Int64Type>(array, |v| v as f32),
        DataType::UInt64 => of::<UInt64Type>(array, |v| v as f32),
        other => {
            let help = way_out(EMBEDDING, in_file);
            return Err(Fault::column(EMBEDDING, format!("its elements are {other}, wanted are numbers; {help}")));
        }
    };
    Ok((values, Some(array.data_type().clone())))
}

/// A column without dictionary or run-end encoding: a segment has one schema for all its batches, but batches have
/// dictionaries of their own.
pub(super) fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            plain(&take(dictionary.values(), dictionary.keys(), None)?)
        }
        DataType::RunEndEncoded(_, _) => downcast_run_array! {
            array => {
                let rows: Vec<u64> = (0..array.len() as u64).collect();
                let places = array.get_physical_indices(&rows)?.into_iter().map(|place| place as u64);
                plain(&take(array.values(), &UInt64Array::from_iter_values(places), None)?)
            },
            _ => Ok(Arc::clone(array)),
        },
        _ => Ok(Arc::clone(array)),
    }
}

/// The values of a column of integers.
fn whole<'a>(array: &'a ArrayRef) -> Option<Box<dyn Iterator<Item = Option<i128>> + 'a>> {
    Some(match array.data_type() {
        DataType::Int8 => Box::new(wide::<Int8Type>(array)),
        DataType::Int16 => Box::new(wide::<Int16Type>(array)),
        DataType::Int32 => Box::new(wide::<Int32Type>(array)),
        DataType::Int64 => Box::new(wide::<Int64Type>(array)),
        DataType::UInt8 => Box::new(wide::<UInt8Type>(array)),
        DataType::UInt16 => Box::new(wide::<UInt16Type>(array)),
        DataType::UInt32 => Box::new(wide::<UInt32Type>(array)),
        DataType::UInt64 => Box::new(wide::<UInt64Type>(array)),
        _ => return None,
    })
}

fn wide<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &ArrayRef) -> impl Iterator<Item = Option<i128>> {
    array.as_primitive::<T>().iter().map(|value| value.map(Into::into))
}
