//! A filter as text: the conditions of SQL's WHERE that compare columns with values.

use std::str::FromStr;

use megaring_core::Error;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, InTarget, UnaryOperator,
    Value as Literal,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::{Comparison, FIELD, Filter, Value};

/// Longest text of a filter, in bytes. Many values are better sent as a list.
const MAX_TEXT: usize = 4 << 10;
/// Bytes of stack for it: sixteen kilobytes for each of its bytes. What is not used is not there either.
const STACK: usize = 64 << 20;

impl FromStr for Filter {
    type Err = Error;

    /// # Errors
    /// [`Error::Invalid`] naming `filter`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::field(FIELD, reason);
        if text.len() > MAX_TEXT {
            return Err(wrong(format!("{} bytes are more than the {MAX_TEXT} that a filter's text has", text.len())));
        }
        // Chains of operators are nested as deep as they are long, and shown and freed by recursion.
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("megaring-filter".into()).stack_size(STACK);
            let read = reader.spawn_scoped(scope, || read(text));
            let failed = |error: String| Error::Internal(format!("a filter could not be read: {error}"));
            let read = read.map_err(|error| failed(error.to_string()))?.join();
            read.map_err(|_| failed("its parser panicked".into()))?.map_err(wrong)
        })
    }
}

fn read(text: &str) -> Result<Filter, String> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).map_err(told)?;
    let parsed = parser.parse_expr().map_err(told)?;
    match parser.next_token().token {
        Token::EOF => condition(&parsed),
        rest => Err(format!("it should end before {:?}", rest.to_string())),
    }
}

/// What the parser has to say, in plain words.
fn told(error: ParserError) -> String {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return "its parts are nested too deep to be read; leave out parentheses that change nothing".into();
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
    };
    // It is one line.
    let text = text.replace(" at Line: 1, Column: ", " at character ");
    match text.strip_prefix("Expected: ").and_then(|text| text.split_once(", found: ")) {
        Some((wanted, found)) if found.starts_with(')') => {
            format!("{wanted} is missing before {found}; a list has a value or more")
        }
        Some((wanted, found)) => format!("wanted is {wanted}, where it has {found}"),
        None => format!("it is not understood: {text}"),
    }
}

/// Whether a column's name is a word that means nothing else in a filter's text.
pub(super) fn is_plain(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_name = name.bytes().all(is_word) && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    let compared = format!("{name} = 1");
    let read = || Parser::new(&GenericDialect {}).try_with_sql(&compared).and_then(|mut parser| parser.parse_expr());
    is_name
        && matches!(read(), Ok(Expr::BinaryOp { left, op: BinaryOperator::Eq, .. })
            if matches!(&*left, Expr::Identifier(word) if word.value == name))
}

fn condition(parsed: &Expr) -> Result<Filter, String> {
    Ok(match parsed {
        Expr::Nested(inner) => condition(inner)?,
        Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
            let parts = chain(parsed, op).into_iter().map(condition).collect::<Result<_, _>>()?;
            if *op == BinaryOperator::And { Filter::All(parts) } else { Filter::Any(parts) }
        }
        Expr::BinaryOp { left, op, right } => comparison(left, op, right)?,
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => not(condition(expr)?),
        Expr::In { expr, target: InTarget::List(list), negated, global: false } => {
            let values = list.iter().map(value).collect::<Result<_, _>>()?;
            negate(*negated, Filter::In { column: column(expr)?, values })
        }
        Expr::Between { expr, negated, low, high } => {
            let name = column(expr)?;
            let bound = |comparison, bound| Ok::<_, String>(compare(name.clone(), comparison, value(bound)?));
            let within = [bound(Comparison::GreaterOrEqual, low)?, bound(Comparison::LessOrEqual, high)?];
            negate(*negated, Filter::All(within.into()))
        }
        Expr::IsNull(inner) => Filter::IsNull { column: column(inner)? },
        Expr::IsNotNull(inner) => not(Filter::IsNull { column: column(inner)? }),
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            negate(*negated, Filter::StartsWith { column: column(expr)?, prefix: prefix(pattern)? })
        }
        Expr::Function(function) => starts_with(function)?,
        Expr::Value(literal) => match &literal.value {
            Literal::Boolean(true) => Filter::All(Vec::new()),
            Literal::Boolean(false) => Filter::Any(Vec::new()),
            other => return Err(format!("{other} is a value, not a condition")),
        },
        // A column of truth values.
        Expr::Identifier(_) => compare(column(parsed)?, Comparison::Equal, Value::Boolean(true)),
        other => return Err(not_understood(other)),
    })
}

fn not_understood(parsed: &Expr) -> String {
    let known =
        "comparisons of a column with a value, in, between, is null, like 'beginning%', starts_with, and, or, not";
    format!("{:?} is not understood; there are {known}", parsed.to_string())
}

/// The parts that one operator joins, in order. Without recursion: a long chain is nested as deep as it is long.
fn chain<'a>(mut parsed: &'a Expr, wanted: &BinaryOperator) -> Vec<&'a Expr> {
    let mut parts = Vec::new();
    while let Expr::BinaryOp { left, op, right } = parsed
        && op == wanted
    {
        parts.push(&**right);
        parsed = left;
    }
    parts.push(parsed);
    parts.reverse();
    parts
}

fn comparison(left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Filter, String> {
    let comparison = match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        other => return Err(format!("the operator {other} is not understood; =, <>, <, <=, > and >= are")),
    };
    match (column(left), column(right)) {
        (Ok(column), Err(_)) => Ok(compare(column, comparison, value(right)?)),
        (Err(_), Ok(column)) => Ok(compare(column, turned(comparison), value(left)?)),
        (Ok(_), Ok(other)) => {
            Err(format!("{other:?} is a column, as is what it is compared with; a text stands between single quotes"))
        }
        (Err(reason), Err(_)) => Err(reason),
    }
}

/// The comparison seen from the other side.
fn turned(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        same => same,
    }
}

fn compare(column: String, comparison: Comparison, value: Value) -> Filter {
    Filter::Compare { column, comparison, value }
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}

fn negate(negated: bool, filter: Filter) -> Filter {
    if negated { not(filter) } else { filter }
}

fn column(parsed: &Expr) -> Result<String, String> {
    match parsed {
        Expr::Identifier(word) => Ok(word.value.clone()),
        Expr::Nested(inner) => column(inner),
        other => Err(format!("{:?} is no column's name", other.to_string())),
    }
}

fn value(parsed: &Expr) -> Result<Value, String> {
    match parsed {
        Expr::Nested(inner) => value(inner),
        Expr::Value(literal) => match &literal.value {
            Literal::Number(digits, _) => number(digits),
            Literal::SingleQuotedString(text) => Ok(Value::Text(text.clone())),
            Literal::Boolean(value) => Ok(Value::Boolean(*value)),
            Literal::Null => Err("nothing equals null; write `is null` or `is not null`".into()),
            other => Err(format!("{other} is no value; numbers, 'texts', true and false are")),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match value(expr)? {
            Value::Integer(number) => Ok(Value::Integer(-number)),
            Value::Float(number) => Ok(Value::Float(-number)),
            other => Err(format!("{other} has no sign")),
        },
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => value(expr),
        // DATE '2026-01-01' and the like: the column says what it is.
        Expr::TypedString(typed) => match &typed.value.value {
            Literal::SingleQuotedString(text) => Ok(Value::Text(text.clone())),
            other => Err(format!("{other} is no text")),
        },
        Expr::Identifier(word) => Err(format!("{word} is a column's name; a text stands between single quotes")),
        other => Err(format!("{:?} is no value; numbers, 'texts', true and false are", other.to_string())),
    }
}

fn number(digits: &str) -> Result<Value, String> {
    if let Ok(number) = digits.parse() {
        return Ok(Value::Integer(number));
    }
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::Float(number)),
        _ => Err(format!("{digits} is out of range")),
    }
}

/// What a pattern's texts begin with, where it says no more than that.
fn prefix(pattern: &Expr) -> Result<String, String> {
    let Value::Text(pattern) = value(pattern)? else { return Err("a pattern is a text".into()) };
    match pattern.strip_suffix('%') {
        Some(prefix) if !prefix.contains(['%', '_', '\\']) => Ok(prefix.to_owned()),
        _ => Err(format!(
            "the pattern '{pattern}' asks for more than a beginning: 'beginning%' and starts_with(column, 'text') are known"
        )),
    }
}

fn starts_with(function: &Function) -> Result<Filter, String> {
    let FunctionArguments::List(list) = &function.args else { return Err(format!("{function} is not understood")) };
    let arguments: Vec<&Expr> = list
        .args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Some(argument),
            _ => None,
        })
        .collect();
    let is_known = function.name.to_string().eq_ignore_ascii_case("starts_with") && list.args.len() == 2;
    match (is_known, &arguments[..]) {
        (true, [name, prefix]) => match value(prefix)? {
            Value::Text(prefix) => Ok(Filter::StartsWith { column: column(name)?, prefix }),
            other => Err(format!("{other} is no text to begin with")),
        },
        _ => Err(format!("{:?} is not understood; starts_with(column, 'text') is", function.to_string())),
    }
}
