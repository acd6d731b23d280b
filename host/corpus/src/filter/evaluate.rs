//! Filters over the arrays of a segment, by Arrow's kernels.
//!
//! Whatever is compared becomes a range of the column's own type, both ends included: whole numbers lie within the
//! nearest whole numbers of theirs, others next to theirs in float64. So no comparison rounds, and -0 equals 0.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Datum, Float64Array, Int64Array, Scalar, StringArray, UInt64Array};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_cast::{CastOptions, cast, cast_with_options};
use arrow_ord::cmp;
use arrow_schema::{ArrowError, DataType};
use megaring_core::Error;

use super::{Comparison, FIELD, Filter, Value};
use crate::columns::unknown_zone;
use crate::fault::guarded;

/// Values from which on they are looked up, and no longer compared one by one.
const MANY_VALUES: usize = 8;
/// Values at most where they cannot be looked up.
const MOST_OTHERS: usize = 256;

/// The rows of a segment that pass. `column` has the array of a name; `None` where the segment has no such column.
pub(crate) fn rows_that_pass(
    filter: &Filter,
    rows: usize,
    column: &dyn Fn(&str) -> Result<Option<ArrayRef>, Error>,
) -> Result<BooleanBuffer, Error> {
    Ok(truth(filter, rows, column)?.yes)
}

/// What a condition says of each row: yes, no, or neither.
struct Truth {
    yes: BooleanBuffer,
    no: BooleanBuffer,
}

impl Truth {
    fn constant(yes: bool, rows: usize) -> Self {
        let buffer = |all| if all { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) };
        Self { yes: buffer(yes), no: buffer(!yes) }
    }

    fn unknown(rows: usize) -> Self {
        Self { yes: BooleanBuffer::new_unset(rows), no: BooleanBuffer::new_unset(rows) }
    }

    fn of(array: &BooleanArray) -> Self {
        match array.nulls() {
            None => Self { yes: array.values().clone(), no: !array.values() },
            Some(nulls) => Self { yes: array.values() & nulls.inner(), no: &!array.values() & nulls.inner() },
        }
    }

    /// Of all rows that have a value, one and the same.
    fn where_valid(yes: bool, array: &dyn Array) -> Self {
        let rows = array.len();
        let Some(nulls) = array.logical_nulls() else { return Self::constant(yes, rows) };
        let (valid, none) = (nulls.inner().clone(), BooleanBuffer::new_unset(rows));
        if yes { Self { yes: valid, no: none } } else { Self { yes: none, no: valid } }
    }

    fn and(self, other: &Self) -> Self {
        Self { yes: &self.yes & &other.yes, no: &self.no | &other.no }
    }

    fn or(self, other: &Self) -> Self {
        Self { yes: &self.yes | &other.yes, no: &self.no & &other.no }
    }

    fn not(self) -> Self {
        Self { yes: self.no, no: self.yes }
    }
}

fn truth(
    filter: &Filter,
    rows: usize,
    column: &dyn Fn(&str) -> Result<Option<ArrayRef>, Error>,
) -> Result<Truth, Error> {
    let each = |parts: &[Filter], start: bool, join: fn(Truth, &Truth) -> Truth| {
        parts
            .iter()
            .try_fold(Truth::constant(start, rows), |so_far, part| Ok(join(so_far, &truth(part, rows, column)?)))
    };
    let of_column = |name: &str, test: &dyn Fn(&ArrayRef) -> Result<Truth, String>| match column(name)? {
        None => Ok(Truth::unknown(rows)),
        Some(array) => test(&plain(array)).map_err(|reason| Error::field(FIELD, format!("{name}: {reason}"))),
    };
    match filter {
        Filter::All(parts) => each(parts, true, Truth::and),
        Filter::Any(parts) => each(parts, false, Truth::or),
        Filter::Not(inner) => Ok(truth(inner, rows, column)?.not()),
        Filter::IsNull { column: name } => Ok(match column(name)? {
            None => Truth::constant(true, rows),
            Some(array) => {
                let valid = array.logical_nulls().map_or(BooleanBuffer::new_set(rows), NullBuffer::into_inner);
                Truth { yes: !&valid, no: valid }
            }
        }),
        Filter::StartsWith { column: name, prefix } => of_column(name, &|array| starts_with(array, prefix)),
        Filter::In { values, .. } if values.is_empty() => Ok(Truth::constant(false, rows)),
        Filter::In { column: name, values } => of_column(name, &|array| is_in(array, values)),
        Filter::Compare { column: name, comparison, value } => {
            of_column(name, &|array| compare(array, *comparison, value))
        }
    }
}

/// The values themselves, where an array has them once and refers to them.
fn plain(array: ArrayRef) -> ArrayRef {
    let values = match array.data_type() {
        DataType::Dictionary(_, values) => (**values).clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        _ => return array,
    };
    // A type that cannot be spelled out is told by who compares it.
    cast(&array, &values).unwrap_or(array)
}

fn compare(array: &ArrayRef, comparison: Comparison, value: &Value) -> Result<Truth, String> {
    let kind = array.data_type();
    let is_number = matches!(value, Value::Integer(_) | Value::Float(_));
    let is_text = matches!(value, Value::Text(_));
    match kind {
        DataType::Null => Ok(Truth::unknown(array.len())),
        kind if kind.is_integer() && is_number => whole_numbers(array, comparison, value),
        kind if kind.is_floating() && is_number => floats(array, comparison, value),
        kind if kind.is_decimal() && (is_number || is_text) => decimals(array, comparison, value),
        kind if kind.is_string() && is_text => by_kernel(array, comparison, &scalar(kind, value)?),
        kind if kind.is_temporal() && (is_text || matches!(value, Value::Integer(_))) => {
            by_kernel(array, comparison, &scalar(kind, value)?)
        }
        DataType::Boolean if matches!(value, Value::Boolean(_)) => by_kernel(array, comparison, &scalar(kind, value)?),
        kind => Err(format!("its type is {kind}, which {value} is not compared with")),
    }
}

fn by_kernel(array: &ArrayRef, comparison: Comparison, value: &Scalar<ArrayRef>) -> Result<Truth, String> {
    let kernel: fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError> = match comparison {
        Comparison::Equal => cmp::eq,
        Comparison::NotEqual => cmp::neq,
        Comparison::Less => cmp::lt,
        Comparison::LessOrEqual => cmp::lt_eq,
        Comparison::Greater => cmp::gt,
        Comparison::GreaterOrEqual => cmp::gt_eq,
    };
    guarded(|| kernel(array, value)).map(|passes| Truth::of(&passes))
}

/// A value in a column's type.
fn scalar(kind: &DataType, value: &Value) -> Result<Scalar<ArrayRef>, String> {
    let one: ArrayRef = match value {
        Value::Boolean(value) => Arc::new(BooleanArray::from(vec![*value])),
        Value::Text(value) => Arc::new(StringArray::from(vec![value.as_str()])),
        Value::Integer(value) => match i64::try_from(*value) {
            Ok(value) => Arc::new(Int64Array::from(vec![value])),
            Err(_) => Arc::new(UInt64Array::from(vec![u64::try_from(*value).map_err(|_| out_of_range(value))?])),
        },
        Value::Float(value) => Arc::new(Float64Array::from(vec![*value])),
    };
    let wrong = |error: String| match unknown_zone(kind) {
        Some(zone) => {
            format!("its time zone {zone:?} is not known; compare it with a whole number, its units since 1970")
        }
        None => format!("{value} cannot be read as {kind}: {error}"),
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    // Dates and times are counted in whole units of 32 or 64 bits.
    let halfway = match (kind, value) {
        (DataType::Date32 | DataType::Time32(_), Value::Integer(_)) => Some(DataType::Int32),
        _ => None,
    };
    let one = match halfway {
        Some(halfway) => guarded(|| cast_with_options(&one, &halfway, &strict)).map_err(wrong)?,
        None => one,
    };
    guarded(|| cast_with_options(&one, kind, &strict)).map(Scalar::new).map_err(wrong)
}

fn out_of_range(value: impl std::fmt::Display) -> String {
    format!("{value} is out of range")
}

/// Within both ends. `None` leaves a side open.
fn within(array: &ArrayRef, low: Option<&Value>, high: Option<&Value>) -> Result<Truth, String> {
    let kind = array.data_type();
    let mut passes = Truth::where_valid(true, array);
    for (end, comparison) in [(low, Comparison::GreaterOrEqual), (high, Comparison::LessOrEqual)] {
        if let Some(end) = end {
            passes = passes.and(&by_kernel(array, comparison, &scalar(kind, end)?)?);
        }
    }
    Ok(passes)
}

fn whole_numbers(array: &ArrayRef, comparison: Comparison, value: &Value) -> Result<Truth, String> {
    let (below, above) = match value {
        Value::Integer(value) => (*value, *value),
        // As casts saturate, what is far beyond every type stays so.
        Value::Float(value) if !value.is_nan() => (value.floor() as i128, value.ceil() as i128),
        _ => return Ok(Truth::where_valid(comparison == Comparison::NotEqual, array)),
    };
    let (least, most) = limits(array.data_type());
    let (low, high) = match comparison {
        Comparison::Equal | Comparison::NotEqual => (above, below),
        Comparison::Less => (i128::MIN, above.saturating_sub(1)),
        Comparison::LessOrEqual => (i128::MIN, below),
        Comparison::Greater => (below.saturating_add(1), i128::MAX),
        Comparison::GreaterOrEqual => (above, i128::MAX),
    };
    let passes = if low > high || low > most || high < least {
        Truth::where_valid(false, array)
    } else {
        let end = |end: i128, open: bool| (!open).then_some(Value::Integer(end));
        within(array, end(low, low <= least).as_ref(), end(high, high >= most).as_ref())?
    };
    Ok(if comparison == Comparison::NotEqual { passes.not() } else { passes })
}

/// The least and the largest number of a type.
fn limits(kind: &DataType) -> (i128, i128) {
    match kind {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

fn floats(array: &ArrayRef, comparison: Comparison, value: &Value) -> Result<Truth, String> {
    let wide = guarded(|| cast(array, &DataType::Float64))?;
    // The float64 numbers next to it on either side, or itself twice.
    let (below, above) = match value {
        Value::Float(value) => (*value, *value),
        Value::Integer(value) => around(*value),
        _ => return Err("it is no number".into()),
    };
    if below.is_nan() {
        return Ok(Truth::where_valid(comparison == Comparison::NotEqual, array));
    }
    // Arrow's order has -0 below 0, and what is no number at either end.
    let (lowest, highest) = (f64::NEG_INFINITY, f64::INFINITY);
    let down = |value: f64| if value == 0.0 { -0.0 } else { value };
    let up = |value: f64| if value == 0.0 { 0.0 } else { value };
    let (low, high) = match comparison {
        Comparison::Equal | Comparison::NotEqual => (down(above), up(below)),
        Comparison::Less => (lowest, if above == lowest { f64::NAN } else { down(above).next_down() }),
        Comparison::LessOrEqual => (lowest, up(below)),
        Comparison::Greater => (if below == highest { f64::NAN } else { up(below).next_up() }, highest),
        Comparison::GreaterOrEqual => (down(above), highest),
    };
    let passes = if low.is_nan() || high.is_nan() || low > high {
        Truth::where_valid(false, array)
    } else {
        within(&wide, Some(&Value::Float(low)), Some(&Value::Float(high)))?
    };
    Ok(if comparison == Comparison::NotEqual { passes.not() } else { passes })
}

/// The largest float64 that is not above a whole number, and the smallest that is not below.
fn around(value: i128) -> (f64, f64) {
    let near = value as f64;
    // 2^127 as i128 saturates, and is above every value.
    let exact = if near >= i128::MAX as f64 { i128::MAX } else { near as i128 };
    match exact.cmp(&value) {
        std::cmp::Ordering::Equal => (near, near),
        std::cmp::Ordering::Less => (near, near.next_up()),
        std::cmp::Ordering::Greater => (near.next_down(), near),
    }
}

/// Both sides with the digits of the longer after the point.
fn decimals(array: &ArrayRef, comparison: Comparison, value: &Value) -> Result<Truth, String> {
    let text = match value {
        Value::Text(text) => text.clone(),
        Value::Float(number) if !number.is_finite() => {
            let passes = match comparison {
                Comparison::NotEqual => true,
                Comparison::Equal => false,
                Comparison::Less | Comparison::LessOrEqual => *number > 0.0,
                Comparison::Greater | Comparison::GreaterOrEqual => *number < 0.0,
            };
            return Ok(Truth::where_valid(passes, array));
        }
        // Without an exponent, which the text of the value may have.
        Value::Float(number) => number.to_string(),
        Value::Integer(_) | Value::Boolean(_) => value.to_string(),
    };
    let scale = match array.data_type() {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale,
        _ => 0,
    };
    let digits = text.split_once('.').map_or(0, |(_, digits)| digits.len());
    let digits = i8::try_from(digits).ok().filter(|digits| *digits <= 38).ok_or_else(|| out_of_range(&text))?;
    let common = DataType::Decimal256(76, scale.max(digits));
    // What finds no room in the wider form is told, and not taken for null.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let wide = guarded(|| cast_with_options(array, &common, &strict))?;
    by_kernel(&wide, comparison, &scalar(&common, &Value::Text(text))?)
}

fn starts_with(array: &ArrayRef, prefix: &str) -> Result<Truth, String> {
    let kind = array.data_type();
    if !kind.is_string() {
        return Err(format!("its type is {kind}; only a text begins with another"));
    }
    let text = |text: &str| scalar(kind, &Value::Text(text.to_owned()));
    let from = by_kernel(array, Comparison::GreaterOrEqual, &text(prefix)?)?;
    match after(prefix) {
        Some(end) => Ok(from.and(&by_kernel(array, Comparison::Less, &text(&end)?)?)),
        None => Ok(from),
    }
}

/// The first text after all that begin with `prefix`; `None` where there is none.
fn after(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters, and stand between two that are.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn is_in(array: &ArrayRef, values: &[Value]) -> Result<Truth, String> {
    let kind = array.data_type();
    if values.len() > MANY_VALUES {
        match kind {
            kind if kind.is_integer() => return whole_in(array, values),
            kind if kind.is_string() => return text_in(array, values),
            kind if kind.is_floating() => return float_in(array, values),
            _ if values.len() > MOST_OTHERS => {
                return Err(format!("its type is {kind}, of which a list has at most {MOST_OTHERS} values"));
            }
            _ => {}
        }
    }
    let none = Ok(Truth::where_valid(false, array));
    values.iter().fold(none, |so_far, value| Ok(so_far?.or(&compare(array, Comparison::Equal, value)?)))
}

fn whole_in(array: &ArrayRef, values: &[Value]) -> Result<Truth, String> {
    let mut wanted = HashSet::with_capacity(values.len());
    for value in values {
        match value {
            Value::Integer(value) => _ = wanted.insert(*value),
            Value::Float(value) if value.fract() == 0.0 => _ = wanted.insert(*value as i128),
            Value::Float(_) => {}
            other => return Err(format!("its type is {}, which {other} is not compared with", array.data_type())),
        }
    }
    let yes = if *array.data_type() == DataType::UInt64 {
        let values = array.as_primitive::<UInt64Type>().values();
        BooleanBuffer::collect_bool(array.len(), |row| wanted.contains(&values[row].into()))
    } else {
        let wide = guarded(|| cast(array, &DataType::Int64))?;
        let values = wide.as_primitive::<Int64Type>().values();
        BooleanBuffer::collect_bool(array.len(), |row| wanted.contains(&values[row].into()))
    };
    Ok(Truth::of(&BooleanArray::new(yes, array.logical_nulls())))
}

fn float_in(array: &ArrayRef, values: &[Value]) -> Result<Truth, String> {
    // Both zeros are one number.
    let bits = |value: f64| if value == 0.0 { 0 } else { value.to_bits() };
    let mut wanted = HashSet::with_capacity(values.len());
    for value in values {
        match value {
            Value::Float(value) if !value.is_nan() => _ = wanted.insert(bits(*value)),
            Value::Float(_) => {}
            Value::Integer(value) => {
                let (below, above) = around(*value);
                if below == above {
                    wanted.insert(bits(below));
                }
            }
            other => return Err(format!("its type is {}, which {other} is not compared with", array.data_type())),
        }
    }
    let wide = guarded(|| cast(array, &DataType::Float64))?;
    let values = wide.as_primitive::<Float64Type>().values();
    let yes = BooleanBuffer::collect_bool(array.len(), |row| wanted.contains(&bits(values[row])));
    Ok(Truth::of(&BooleanArray::new(yes, array.logical_nulls())))
}

fn text_in(array: &ArrayRef, values: &[Value]) -> Result<Truth, String> {
    let mut wanted = HashSet::with_capacity(values.len());
    for value in values {
        match value {
            Value::Text(text) => _ = wanted.insert(text.as_str()),
            other => return Err(format!("its type is {}, which {other} is not compared with", array.data_type())),
        }
    }
    let views = guarded(|| cast(array, &DataType::Utf8View))?;
    let texts = views.as_string_view();
    let yes = BooleanBuffer::collect_bool(array.len(), |row| texts.is_valid(row) && wanted.contains(texts.value(row)));
    Ok(Truth::of(&BooleanArray::new(yes, array.logical_nulls())))
}
