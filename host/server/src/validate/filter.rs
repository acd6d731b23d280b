//! Filters: a wire message becomes a selection of rows.

use megaring_core::Error;
use megaring_corpus::{Comparison, Filter, IdList, RoaringTreemap, Selection, Value};
use megaring_proto::v1 as pb;
use megaring_proto::v1::condition::Condition as Kind;
use megaring_proto::v1::filter::Where;
use megaring_proto::v1::value::Value as Sent;

/// The field of every request that has a filter.
const FIELD: &str = "filter";

/// Which rows a filter lets pass; all of them where there is none.
///
/// # Errors
/// [`Error::Invalid`] naming the part of `filter`.
pub fn selection(filter: Option<pb::Filter>) -> Result<Selection, Error> {
    let Some(pb::Filter { r#where, allow, deny }) = filter else { return Ok(Selection::default()) };
    let filter = match r#where {
        None => None,
        Some(Where::Text(text)) => Some(text.parse()?),
        Some(Where::Condition(condition)) => Some(parsed(condition)?),
    };
    let allow = allow.map(|ids| id_list("filter.allow", ids)).transpose()?;
    let deny = deny.map_or_else(|| Ok(IdList::default()), |ids| id_list("filter.deny", ids))?;
    Ok(Selection { filter, allow, deny })
}

fn id_list(field: &str, sent: pb::Ids) -> Result<IdList, Error> {
    let mut numbers = treemap(field, &sent.roaring)?;
    numbers.extend(sent.ids);
    Ok(IdList { numbers, texts: sent.texts.into_iter().collect() })
}

/// Ids in the order in which they are listed, of which a bitmap has at most `most`: numbers, and texts.
pub(crate) fn id_lists(field: &str, sent: pb::Ids, most: usize) -> Result<(Vec<u64>, Vec<String>), Error> {
    let set = treemap(field, &sent.roaring)?;
    if set.len() > most as u64 {
        return Err(Error::field(format!("{field}.roaring"), format!("{} ids; ask for at most {most}", set.len())));
    }
    let mut numbers = sent.ids;
    numbers.extend(set);
    Ok((numbers, sent.texts))
}

/// A set of ids, sent as `roaring` in a field.
fn treemap(field: &str, roaring: &[u8]) -> Result<RoaringTreemap, Error> {
    if roaring.is_empty() {
        return Ok(RoaringTreemap::new());
    }
    let wrong = |reason: String| {
        Error::field(format!("{field}.roaring"), format!("not a Roaring bitmap of 64-bit numbers: {reason}"))
    };
    let mut rest = roaring;
    let ids = RoaringTreemap::deserialize_from(&mut rest).map_err(|error| wrong(error.to_string()))?;
    if rest.is_empty() { Ok(ids) } else { Err(wrong(format!("{} bytes are left over", rest.len()))) }
}

fn parsed(condition: pb::Condition) -> Result<Filter, Error> {
    let all = |parts: pb::Conditions| parts.conditions.into_iter().map(parsed).collect::<Result<Vec<_>, _>>();
    let wrong = |reason: &str| Error::field(FIELD, reason);
    let Some(kind) = condition.condition else { return Err(wrong("a condition is empty")) };
    Ok(match kind {
        Kind::Compare(pb::Comparison { column, comparator, value: sent }) => {
            Filter::Compare { comparison: comparison(comparator, &column)?, value: value(&column, sent)?, column }
        }
        Kind::OneOf(pb::Membership { column, values }) => {
            let values = values.into_iter().map(|sent| value(&column, Some(sent))).collect::<Result<_, _>>()?;
            Filter::In { column, values }
        }
        Kind::Between(pb::Between { column, low, high }) => {
            let end = |comparison, sent| {
                Ok::<_, Error>(Filter::Compare { comparison, value: value(&column, sent)?, column: column.clone() })
            };
            Filter::All(vec![end(Comparison::GreaterOrEqual, low)?, end(Comparison::LessOrEqual, high)?])
        }
        Kind::StartsWith(pb::Prefix { column, prefix }) => Filter::StartsWith { column, prefix },
        Kind::IsNull(column) => Filter::IsNull { column },
        Kind::All(parts) => Filter::All(all(parts)?),
        Kind::Any(parts) => Filter::Any(all(parts)?),
        Kind::Not(inner) => Filter::Not(Box::new(parsed(*inner)?)),
    })
}

fn comparison(number: i32, column: &str) -> Result<Comparison, Error> {
    match pb::Comparator::try_from(number) {
        Ok(pb::Comparator::Equal) => Ok(Comparison::Equal),
        Ok(pb::Comparator::NotEqual) => Ok(Comparison::NotEqual),
        Ok(pb::Comparator::Less) => Ok(Comparison::Less),
        Ok(pb::Comparator::LessOrEqual) => Ok(Comparison::LessOrEqual),
        Ok(pb::Comparator::Greater) => Ok(Comparison::Greater),
        Ok(pb::Comparator::GreaterOrEqual) => Ok(Comparison::GreaterOrEqual),
        Ok(pb::Comparator::Unspecified) | Err(_) => {
            Err(Error::field(FIELD, format!("{column}: {number} is no comparator")))
        }
    }
}

fn value(column: &str, sent: Option<pb::Value>) -> Result<Value, Error> {
    match sent.and_then(|sent| sent.value) {
        Some(Sent::Integer(value)) => Ok(Value::Integer(value.into())),
        Some(Sent::Unsigned(value)) => Ok(Value::Integer(value.into())),
        Some(Sent::Number(value)) => Ok(Value::Float(value)),
        Some(Sent::Text(value)) => Ok(Value::Text(value)),
        Some(Sent::Boolean(value)) => Ok(Value::Boolean(value)),
        None => Err(Error::field(FIELD, format!("{column}: it is compared with no value"))),
    }
}
