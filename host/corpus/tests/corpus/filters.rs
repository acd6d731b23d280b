//! Filters: random conditions on columns of every type beside a naive evaluation, row by row; their text; what is
//! refused; and what a selection shows of a corpus that changes.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeListArray, Float16Array,
    Float32Array, Float64Array, Int8Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    TimestampMillisecondArray, UInt8Array, UInt64Array,
};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field};
use half::f16;
use megaring_core::Error;
use megaring_corpus::import::{self, ImportOptions};
use megaring_corpus::{Comparison, Filter, Selection, Store, Value};

use crate::common::{assert_says, random, store, violation};

/// A value as the naive evaluation has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Whole(i128),
    Float(f64),
    Text(String),
    Truth(bool),
    /// Hundredths.
    Decimal(i128),
    /// Days or milliseconds since 1970.
    Days(i64),
    Milliseconds(i64),
}

const COLUMNS: [&str; 14] = [
    "memory_id",
    "title",
    "zone",
    "importance",
    "is_protected",
    "small",
    "big",
    "half",
    "single",
    "tag",
    "path",
    "day",
    "at",
    "price",
];

pub(crate) const ROWS: usize = 300;

pub(crate) fn cells(column: &str, row: usize) -> Cell {
    let mut seed = (row as u64 * 31 + column.len() as u64 * 7919 + column.as_bytes()[0] as u64) | 1;
    for _ in 0..4 {
        random(&mut seed);
    }
    let pick = (seed % 9) as i128;
    if seed.is_multiple_of(7) && !["memory_id", "title", "zone", "importance", "is_protected"].contains(&column) {
        return Cell::Null;
    }
    match column {
        "memory_id" => Cell::Whole(if row.is_multiple_of(50) { u64::MAX as i128 - row as i128 } else { row as i128 }),
        "zone" => Cell::Whole([0, 1, 2, 3, 4, 127, 128, 254, 255][pick as usize]),
        "small" => Cell::Whole([-128, -2, -1, 0, 1, 2, 3, 126, 127][pick as usize]),
        "big" => Cell::Whole(
            [i64::MIN as i128, -(1 << 53) - 1, -1, 0, 1, 1 << 53, (1 << 53) + 1, 7, i64::MAX as i128][pick as usize],
        ),
        "importance" => Cell::Float([-1.5, -0.0, 0.0, 0.5, 1.0, 1e300, -1e300, 0.1, 9007199254740993.0][pick as usize]),
        "single" => Cell::Float(
            [-1.5, -0.0, 0.0, 0.5, f64::NAN, f64::from(0.1_f32), f64::INFINITY, 2.0, f64::NEG_INFINITY][pick as usize],
        ),
        "half" => {
            Cell::Float([-1.5, -0.0, 0.0, 0.5, f64::NAN, f64::from(f16::from_f64(0.1)), 1.0, 2.0, 3.0][pick as usize])
        }
        "is_protected" => Cell::Truth(pick % 2 == 0),
        "day" => Cell::Days([-1, 0, 1, 19_723, 19_724, 20_000, 20_001, 30_000, 7][pick as usize]),
        "at" => Cell::Milliseconds(
            [-1, 0, 1, 1_700_000_000_000, 1_700_000_000_001, 5, 86_400_000, 86_399_999, 9][pick as usize],
        ),
        "price" => Cell::Decimal([-100, 0, 1, 999, 1000, 1001, 12_345, 5, 50][pick as usize]),
        _ => Cell::Text(
            ["", "a", "inbox/", "inbox/1", "inbox/\u{10ffff}", "inbox0", "é", "z", "it's"][pick as usize].to_owned(),
        ),
    }
}

/// A corpus of those columns, in segments of which the last lacks some.
pub(crate) fn corpus() -> (tempfile::TempDir, Arc<Store>) {
    let (folder, store) = store();
    store.create("a", 2).unwrap();
    for (part, range) in [(0, 0..100), (1, 100..101), (2, 101..ROWS)] {
        let rows: Vec<usize> = range.collect();
        let names = COLUMNS.iter().filter(|name| part != 2 || !["price", "path"].contains(name));
        let arrays = names.map(|name| (*name, array(name, &rows)));
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Float32Array::from_iter_values((0..2 * rows.len()).map(|value| value as f32));
        let vectors: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, Arc::new(values), None));
        let batch = RecordBatch::try_from_iter(arrays.chain([("embedding", vectors)])).unwrap();
        let path = folder.path().join(format!("{part}.arrow"));
        let mut writer = FileWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema_ref()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let file = import::open(&path, None, &ImportOptions::default()).unwrap();
        import::run(&store, "a", file, &mut |_| {}).unwrap();
    }
    (folder, store)
}

fn array(name: &str, rows: &[usize]) -> ArrayRef {
    let all: Vec<Cell> = rows.iter().map(|row| cells(name, *row)).collect();
    let whole = || all.iter().map(|cell| if let Cell::Whole(value) = cell { Some(*value) } else { None });
    let float = || all.iter().map(|cell| if let Cell::Float(value) = cell { Some(*value) } else { None });
    let text = || all.iter().map(|cell| if let Cell::Text(value) = cell { Some(value.clone()) } else { None });
    match name {
        "memory_id" => Arc::new(whole().map(|v| v.map(|v| v as u64)).collect::<UInt64Array>()),
        "zone" => Arc::new(whole().map(|v| v.map(|v| v as u8)).collect::<UInt8Array>()),
        "small" => Arc::new(whole().map(|v| v.map(|v| v as i8)).collect::<Int8Array>()),
        "big" => Arc::new(whole().map(|v| v.map(|v| v as i64)).collect::<Int64Array>()),
        "importance" => Arc::new(float().collect::<Float64Array>()),
        "single" => Arc::new(float().map(|v| v.map(|v| v as f32)).collect::<Float32Array>()),
        "half" => Arc::new(float().map(|v| v.map(f16::from_f64)).collect::<Float16Array>()),
        "is_protected" => Arc::new(all.iter().map(|cell| Some(*cell == Cell::Truth(true))).collect::<BooleanArray>()),
        "day" => Arc::new(
            all.iter()
                .map(|cell| if let Cell::Days(value) = cell { Some(*value as i32) } else { None })
                .collect::<Date32Array>(),
        ),
        "at" => Arc::new(
            all.iter()
                .map(|cell| if let Cell::Milliseconds(value) = cell { Some(*value) } else { None })
                .collect::<TimestampMillisecondArray>(),
        ),
        "price" => {
            let values = all.iter().map(|cell| if let Cell::Decimal(value) = cell { Some(*value) } else { None });
            Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(9, 2).unwrap())
        }
        "title" => Arc::new(text().collect::<StringArray>()),
        "path" => Arc::new(text().collect::<LargeStringArray>()),
        _ if rows.len() == 1 => Arc::new(text().collect::<StringViewArray>()),
        _ => {
            let texts: Vec<Option<String>> = text().collect();
            Arc::new(texts.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>())
        }
    }
}

/// Yes, no, or neither.
fn naive(filter: &Filter, row: usize) -> Option<bool> {
    let cell = |column: &str| match (column, row) {
        ("price" | "path", 101..) => Cell::Null,
        _ => cells(column, row),
    };
    match filter {
        Filter::All(parts) => {
            let all: Vec<_> = parts.iter().map(|part| naive(part, row)).collect();
            if all.contains(&Some(false)) {
                Some(false)
            } else {
                all.into_iter().collect::<Option<Vec<_>>>().map(|_| true)
            }
        }
        Filter::Any(parts) => {
            let all: Vec<_> = parts.iter().map(|part| naive(part, row)).collect();
            if all.contains(&Some(true)) {
                Some(true)
            } else {
                all.into_iter().collect::<Option<Vec<_>>>().map(|_| false)
            }
        }
        Filter::Not(inner) => naive(inner, row).map(|yes| !yes),
        Filter::IsNull { column } => Some(cell(column) == Cell::Null),
        Filter::StartsWith { column, prefix } => match cell(column) {
            Cell::Text(text) => Some(text.as_bytes().starts_with(prefix.as_bytes())),
            _ => None,
        },
        Filter::In { column, values } => {
            let one =
                |value| naive(&Filter::Compare { column: column.clone(), comparison: Comparison::Equal, value }, row);
            match cell(column) {
                Cell::Null if !values.is_empty() => None,
                _ => Some(values.iter().cloned().any(|value| one(value) == Some(true))),
            }
        }
        Filter::Compare { column, comparison, value } => {
            let order = match (cell(column), value) {
                (Cell::Null, _) => return None,
                (Cell::Whole(a), Value::Integer(b)) => Some(a.cmp(b)),
                (Cell::Whole(a), Value::Float(b)) => exactly(a, *b),
                (Cell::Float(a), Value::Float(b)) => a.partial_cmp(b),
                (Cell::Float(a), Value::Integer(b)) => exactly(*b, a).map(std::cmp::Ordering::reverse),
                (Cell::Text(a), Value::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
                (Cell::Truth(a), Value::Boolean(b)) => Some(a.cmp(b)),
                (Cell::Days(a), Value::Integer(b)) => Some(i128::from(a).cmp(b)),
                (Cell::Milliseconds(a), Value::Integer(b)) => Some(i128::from(a).cmp(b)),
                (Cell::Days(a), Value::Text(b)) => Some(a.cmp(&(if b == "2024-01-01" { 19_723 } else { 1 }))),
                (Cell::Milliseconds(a), Value::Text(_)) => Some(a.cmp(&86_400_000)),
                (Cell::Decimal(a), Value::Integer(b)) => Some(a.cmp(&(b * 100))),
                (Cell::Decimal(a), Value::Float(b)) => Some((a * 10).cmp(&((b * 1000.0).round() as i128))),
                (cell, value) => panic!("{cell:?} beside {value:?}"),
            };
            let Some(order) = order else { return Some(*comparison == Comparison::NotEqual) };
            Some(match comparison {
                Comparison::Equal => order.is_eq(),
                Comparison::NotEqual => order.is_ne(),
                Comparison::Less => order.is_lt(),
                Comparison::LessOrEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                Comparison::GreaterOrEqual => order.is_ge(),
            })
        }
    }
}

/// A whole number beside another number, without rounding. Those here have few digits after the point.
fn exactly(whole: i128, other: f64) -> Option<std::cmp::Ordering> {
    if other.is_nan() {
        return None;
    }
    if other.abs() > 1e30 {
        return Some(if other > 0.0 { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
    }
    let (floor, rest) = (other.floor() as i128, other - other.floor());
    Some(whole.cmp(&floor).then(if rest > 0.0 { std::cmp::Ordering::Less } else { std::cmp::Ordering::Equal }))
}

fn value(column: &str, seed: &mut u64) -> Value {
    let pick = (random(seed) % 12) as usize;
    let number = || match pick {
        0..=5 => Value::Integer([0, 1, -1, 127, 255, 1 << 53][pick]),
        6 => Value::Integer(i64::MAX as i128 + 1),
        7 => Value::Integer(-(1 << 53) - 1),
        8 => Value::Float(0.5),
        9 => Value::Float(-0.0),
        10 => Value::Float(9007199254740993.0),
        _ => Value::Float(-1e300),
    };
    match column {
        "is_protected" => Value::Boolean(pick.is_multiple_of(2)),
        "title" | "tag" | "path" => {
            let texts = ["", "a", "inbox/", "inbox/1", "inbox0", "é", "zz", "it's", "\"", "inbox/\u{10ffff}", "0", "%"];
            Value::Text(texts[pick].to_owned())
        }
        "day" if pick < 6 => Value::Text(["2024-01-01", "1970-01-02"][pick % 2].to_owned()),
        "at" if pick < 6 => {
            Value::Text(["1970-01-02", "1970-01-02T00:00:00Z", "1970-01-02 00:00:00"][pick % 3].to_owned())
        }
        "day" | "at" => Value::Integer([0, -1, 20_000, 86_399_999, 7, 1_000][pick % 6]),
        "price" => {
            [Value::Float(9.995), Value::Integer(10), Value::Float(9.99), Value::Float(-1.0), Value::Float(0.001)]
                [pick % 5]
                .clone()
        }
        _ => number(),
    }
}

fn filter(seed: &mut u64, depth: usize) -> Filter {
    let column = COLUMNS[random(seed) as usize % COLUMNS.len()].to_owned();
    let parts = |seed: &mut u64| (0..random(seed) % 4).map(|_| filter(seed, depth - 1)).collect();
    match random(seed) % if depth == 0 { 8 } else { 12 } {
        0..=3 => {
            let all = [
                Comparison::Equal,
                Comparison::NotEqual,
                Comparison::Less,
                Comparison::LessOrEqual,
                Comparison::Greater,
                Comparison::GreaterOrEqual,
            ];
            let comparison = all[random(seed) as usize % 6];
            Filter::Compare { value: value(&column, seed), comparison, column }
        }
        4 => Filter::IsNull { column },
        5 => {
            let column = ["title", "tag", "path"][random(seed) as usize % 3].to_owned();
            let prefix =
                ["", "inbox/", "i", "é", "\u{10ffff}", "inbox/\u{10ffff}"][random(seed) as usize % 6].to_owned();
            Filter::StartsWith { column, prefix }
        }
        6..=7 => {
            let count = random(seed) % 14;
            Filter::In { values: (0..count).map(|_| value(&column, seed)).collect(), column }
        }
        8..=9 => Filter::All(parts(seed)),
        10 => Filter::Any(parts(seed)),
        _ => Filter::Not(Box::new(filter(seed, depth - 1))),
    }
}

pub(crate) fn passing(store: &Store, filter: Filter) -> Result<Vec<usize>, Error> {
    let view = store.view("a")?;
    let selection = Selection { filter: Some(filter), ..Selection::default() };
    let chosen = store.select(&view, &selection)?.view;
    Ok(chosen.visible_runs(0..chosen.rows()).flatten().collect())
}

#[test]
fn random_conditions_pass_the_rows_of_which_they_are_true() {
    let (_folder, store) = corpus();
    let (mut seed, mut some) = (7, 0);
    for number in 0..1_500 {
        let filter = filter(&mut seed, 3);
        let want: Vec<usize> = (0..ROWS).filter(|row| naive(&filter, *row) == Some(true)).collect();
        some += usize::from(!want.is_empty() && want.len() < ROWS);
        assert_eq!(passing(&store, filter.clone()).unwrap(), want, "{number}: {filter}");
        // Its text says the same; a float may come back as a whole number, and a chain of one as its part.
        let read: Filter = filter.to_string().parse().unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(passing(&store, read).unwrap(), want, "{number}, as text: {filter}");
    }
    assert!(some > 500, "only {some} conditions tell rows apart");
}

#[test]
fn text_is_read_as_sql_reads_it() {
    let same = [
        ("zone<=1 AND importance>.5", "(zone <= 1 and importance > 0.5)"),
        ("1 >= zone", "zone <= 1"),
        ("zone between 1 and 3", "(zone >= 1 and zone <= 3)"),
        ("zone not between 1 and 3", "not ((zone >= 1 and zone <= 3))"),
        ("a = 1 or b = 2 and c = 3", "(a = 1 or (b = 2 and c = 3))"),
        ("not a = 1", "not (a = 1)"),
        ("tag in ('x', 'it''s')", "tag in ('x', 'it''s')"),
        ("tag not in ('x')", "not (tag in ('x'))"),
        ("tag is not null", "not (tag is null)"),
        ("title like 'in/%'", "starts_with(title, 'in/')"),
        ("title not like 'in/%'", "not (starts_with(title, 'in/'))"),
        ("STARTS_WITH(title, '50%')", "starts_with(title, '50%')"),
        ("is_protected", "is_protected = true"),
        ("is_protected = false and true", "(is_protected = false and true)"),
        ("\"a b\" = -1", "\"a b\" = -1"),
        ("\"1a\" = 1", "\"1a\" = 1"),
        ("at >= timestamp '2026-01-01'", "at >= '2026-01-01'"),
        ("big = 18446744073709551615", "big = 18446744073709551615"),
        ("x != 1e3", "x <> 1000.0"),
        ("((a = 1))", "a = 1"),
    ];
    for (text, want) in same {
        let filter: Filter = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.to_string(), want, "{text}");
        assert_eq!(want.parse::<Filter>().unwrap().to_string(), want);
    }
    let long = vec!["a=1"; 500].join(" or ");
    assert!(matches!(long.parse(), Ok(Filter::Any(parts)) if parts.len() == 500));
}

#[test]
fn what_is_no_condition_is_refused_in_plain_words() {
    let wrong: [(&str, &[&str]); 15] = [
        ("", &["EOF"]),
        ("zone", &[]),
        ("zone <=", &["EOF"]),
        ("zone <= 1 zone", &["it should end before", "zone"]),
        ("zone <= other", &["other", "single quotes"]),
        ("title = \"x\"", &["x", "single quotes"]),
        ("1 = 1", &["no column's name"]),
        ("zone + 1 = 2", &["zone + 1", "no column's name"]),
        ("zone = 1 + 1", &["1 + 1", "no value"]),
        ("zone = null", &["is null"]),
        ("title like '%x'", &["beginning"]),
        ("title like 'a_b%'", &["beginning"]),
        ("lower(title) = 'x'", &["no column's name"]),
        ("exists (select 1)", &["not understood"]),
        ("ends_with(title, 'x')", &["starts_with"]),
    ];
    for (text, parts) in wrong.into_iter().filter(|(text, _)| *text != "zone") {
        let found = violation(text.parse::<Filter>());
        assert_eq!(found.field, "filter", "{text}");
        assert_says(&found.description, parts);
    }
    assert_says(&violation("a = 1 or ".repeat(3_000).parse::<Filter>()).description, &["bytes", "4096"]);
    let deep = format!("{}a = 1{}", "(".repeat(400), ")".repeat(400));
    assert_says(&violation(deep.parse::<Filter>()).description, &["nested too deep", "parentheses"]);
    let plain = |text: &str, says: &str| {
        let found = violation(text.parse::<Filter>()).description;
        assert_eq!(found, says, "{text}");
    };
    plain("zone in ()", "an expression is missing before ) at character 10; a list has a value or more");
    plain("zone <= ", "wanted is an expression, where it has EOF");
    plain("zone = 'x", "it is not understood: Unterminated string literal at character 8");
}

#[test]
fn what_does_not_fit_the_columns_is_refused_by_name() {
    let (_folder, store) = corpus();
    let wrong: [(&str, &[&str]); 9] = [
        ("zon <= 1", &["\"zon\"", "there are", "zone", "price"]),
        ("zone = 'x'", &["zone", "UInt8", "'x'"]),
        ("title > 1", &["title", "Utf8", "1"]),
        ("tag like 'a%' and embedding = 1", &["embedding"]),
        ("is_protected > 0", &["is_protected", "Boolean"]),
        ("day > 'tomorrow'", &["day", "tomorrow", "Date32"]),
        ("starts_with(zone, 'x')", &["zone", "only a text"]),
        ("zone in (1, 2, 3, 4, 5, 6, 7, 8, 9, 'x')", &["zone", "'x'"]),
        ("price = 'cheap'", &["price"]),
    ];
    for (text, parts) in wrong {
        let found = violation(passing(&store, text.parse().unwrap()));
        assert_eq!(found.field, "filter", "{text}");
        assert_says(&found.description, parts);
    }
    let deep = (0..200).fold(Filter::Any(Vec::new()), |inner, _| Filter::Not(Box::new(inner)));
    assert_says(&violation(passing(&store, deep)).description, &["deep"]);
    // There is nothing that could not fit.
    store.create("empty", 2).unwrap();
    let view = store.view("empty").unwrap();
    let filter = Some("nothing = 1".parse().unwrap());
    assert_eq!(store.select(&view, &Selection { filter, ..Selection::default() }).unwrap().view.rows(), 0);
}
