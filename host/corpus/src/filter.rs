//! Filters: conditions on a corpus's own columns, as in SQL.
//!
//! A condition on a value that is null, or on a column that a row does not have, is neither true nor false, and a row
//! passes where the whole is true. Numbers are compared as what they are, whatever their types; a number that is none
//! (NaN) passes no comparison but <>. Texts are compared by their bytes. A text stands for a date, a time or a decimal
//! number where the column is of such, and is cut to its unit.
//!
//! ```
//! use megaring_corpus::Filter;
//!
//! let filter: Filter = "zone <= 1 and (importance > 0.5 or title like 'inbox/%')".parse()?;
//! assert_eq!(filter.to_string(), "(zone <= 1 and (importance > 0.5 or starts_with(title, 'inbox/')))");
//! # Ok::<(), megaring_core::Error>(())
//! ```

mod evaluate;
mod parse;

use std::fmt;

use megaring_core::Error;

pub(crate) use evaluate::rows_that_pass;

/// A condition on a row's columns.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// The value of a column beside another.
    Compare {
        /// The column.
        column: String,
        /// How they compare.
        comparison: Comparison,
        /// The other.
        value: Value,
    },
    /// The value of a column is one of these; with none, it is false.
    In {
        /// The column.
        column: String,
        /// The values.
        values: Vec<Value>,
    },
    /// A text begins with another.
    StartsWith {
        /// The column.
        column: String,
        /// What it begins with.
        prefix: String,
    },
    /// A row has no value in the column.
    IsNull {
        /// The column.
        column: String,
    },
    /// All hold; with none, it is true.
    All(Vec<Filter>),
    /// Some holds; with none, it is false.
    Any(Vec<Filter>),
    /// It is false.
    Not(Box<Filter>),
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// =
    Equal,
    /// <>
    NotEqual,
    /// <
    Less,
    /// <=
    LessOrEqual,
    /// >
    Greater,
    /// >=
    GreaterOrEqual,
}

/// A value that a column is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i128),
    /// Any number that is one; see [`f64::is_nan`].
    Float(f64),
    /// A text.
    Text(String),
    /// True or false.
    Boolean(bool),
}

/// The field of a request, or the flag, that a filter comes in.
pub(crate) const FIELD: &str = "filter";
/// The deepest nesting that is worked through.
const MAX_DEPTH: usize = 100;
/// The most comparisons, each of which goes through all rows, and the most values of lists.
const MAX_COMPARISONS: usize = 2_500;
const MAX_VALUES: usize = 1 << 16;

impl Filter {
    /// The columns that it looks at, each once, in the order in which they stand.
    #[must_use]
    pub fn columns(&self) -> Vec<&str> {
        let (mut columns, mut rest) = (Vec::new(), vec![self]);
        while let Some(filter) = rest.pop() {
            match filter {
                Self::Compare { column, .. }
                | Self::In { column, .. }
                | Self::StartsWith { column, .. }
                | Self::IsNull { column } => {
                    if !columns.contains(&column.as_str()) {
                        columns.push(column);
                    }
                }
                Self::All(parts) | Self::Any(parts) => rest.extend(parts.iter().rev()),
                Self::Not(inner) => rest.push(inner),
            }
        }
        columns
    }

    /// Refuses one that would exhaust a thread's stack, or take for ever.
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::field(FIELD, reason));
        let (mut rest, mut comparisons, mut values) = (vec![(self, 0)], 0, 0);
        while let Some((filter, depth)) = rest.pop() {
            if depth > MAX_DEPTH {
                return wrong(format!("it is nested deeper than {MAX_DEPTH} levels"));
            }
            match filter {
                Self::All(parts) | Self::Any(parts) => rest.extend(parts.iter().map(|part| (part, depth + 1))),
                Self::Not(inner) => rest.push((inner, depth + 1)),
                Self::In { values: more, .. } => {
                    comparisons += 1;
                    values += more.len();
                }
                Self::Compare { value: Value::Float(value), .. } if value.is_nan() => {
                    return wrong("it compares with what is no number (NaN)".into());
                }
                _ => comparisons += 1,
            }
            if comparisons > MAX_COMPARISONS || values > MAX_VALUES {
                return wrong(format!(
                    "it has more than {MAX_COMPARISONS} comparisons, or {MAX_VALUES} values in lists"
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Filter {
    /// As text that [`str::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], by: &str, none: &str| {
            if parts.is_empty() {
                return f.write_str(none);
            }
            for (at, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if at == 0 { "(" } else { by })?;
            }
            f.write_str(")")
        };
        match self {
            Self::Compare { column, comparison, value } => write!(f, "{} {comparison} {value}", Name(column)),
            Self::In { values, .. } if values.is_empty() => f.write_str("false"),
            Self::In { column, values } => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(f, "{} in ({})", Name(column), values.join(", "))
            }
            Self::StartsWith { column, prefix } => {
                write!(f, "starts_with({}, {})", Name(column), Value::Text(prefix.clone()))
            }
            Self::IsNull { column } => write!(f, "{} is null", Name(column)),
            Self::All(parts) => joined(f, parts, " and ", "true"),
            Self::Any(parts) => joined(f, parts, " or ", "false"),
            Self::Not(inner) => write!(f, "not ({inner})"),
        }
    }
}

/// A column's name, between quotes where it is not a plain word.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = parse::is_plain(self.0);
        if is_plain { f.write_str(self.0) } else { write!(f, "\"{}\"", self.0.replace('"', "\"\"")) }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "'{}'", value.replace('\'', "''")),
            Self::Boolean(value) => write!(f, "{value}"),
        }
    }
}
