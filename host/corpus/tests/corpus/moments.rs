//! Columns of moments, dates and spans: filtered by and shown, whatever the zone's name, and exported.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Date64Type;
use arrow_array::{
    Array, ArrayRef, Date64Array, FixedSizeListArray, Float32Array, IntervalMonthDayNanoArray, RecordBatch,
    StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::IntervalMonthDayNano;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field};
use megaring_corpus::import::{self, Format, ImportOptions};
use megaring_corpus::{Store, fetch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::LogicalType;

use crate::common::{assert_says, scratch, store, violation};
use crate::filters::passing;

/// Midnight of 2 January and of 2 July 2026, in UTC, with nothing between them.
const MOMENTS: [Option<i64>; 3] = [Some(1_767_312_000_000_000), None, Some(1_782_950_400_000_000)];

/// A corpus "a" of three rows that have these moments in a column of each zone, and in a struct.
fn corpus(zones: &[&str]) -> (tempfile::TempDir, Arc<Store>) {
    let column =
        |zone: &&str| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(MOMENTS.to_vec()).with_timezone(*zone)) };
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(vec![1.0; 6]));
    let vectors: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, values, None));
    let inner = column(&zones[0]);
    let field = Arc::new(Field::new("at", inner.data_type().clone(), true));
    let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, inner)]));
    let columns = zones.iter().map(|zone| (*zone, column(zone)));
    let batch = RecordBatch::try_from_iter(columns.chain([("nested", nested), ("embedding", vectors)])).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(&batch).unwrap();
    let (_scratch, path) = scratch("moments.arrow", writer.into_inner().unwrap());
    let (folder, store) = store();
    store.create("a", 2).unwrap();
    let file = import::open(&path, None, &ImportOptions::default()).unwrap();
    import::run(&store, "a", file, &mut |_| {}).unwrap();
    (folder, store)
}

fn shown(store: &Store, column: &str) -> Vec<serde_json::Value> {
    let fetched = fetch(&store.view("a").unwrap(), &[0, 1, 2], &[column.to_owned()], usize::MAX).unwrap();
    (0..3).flat_map(|row| fetched.json(row).unwrap()).collect()
}

#[test]
fn moments_are_shown_and_compared_in_the_zone_of_their_column() {
    let (_folder, store) = corpus(&["UTC", "Europe/Berlin", "-05:30"]);
    let wanted = [
        ("UTC", ["2026-01-02T00:00:00Z", "2026-07-02T00:00:00Z"]),
        ("Europe/Berlin", ["2026-01-02T01:00:00+01:00", "2026-07-02T02:00:00+02:00"]),
        ("-05:30", ["2026-01-01T18:30:00-05:30", "2026-07-01T18:30:00-05:30"]),
    ];
    for (zone, [winter, summer]) in wanted {
        assert_eq!(shown(&store, zone), [winter.into(), serde_json::Value::Null, summer.into()]);
        let pass = |condition: &str| passing(&store, format!("\"{zone}\" {condition}").parse().unwrap()).unwrap();
        assert_eq!(pass("= '2026-01-02T00:00:00Z'"), [0], "{zone}");
        assert_eq!(pass("= '2026-07-02T01:00:00+01:00'"), [2], "{zone}");
        assert_eq!(pass("= 1767312000000000"), [0], "{zone}");
        assert_eq!(pass(&format!("in ('{winter}', '{summer}')")), [0, 2], "{zone}");
        // Without an offset, the column's own zone is meant.
        let (local, _) = summer.split_at(19);
        assert_eq!(pass(&format!(">= '{local}'")), [2], "{zone}");
        assert_eq!(pass(&format!("> '{local}'")), [0; 0], "{zone}");
        assert_eq!(pass("is null"), [1], "{zone}");
    }
    assert_says(shown(&store, "nested")[0].as_str().unwrap(), &["2026-01-02T00:00:00Z"]);
}

/// A corpus "a" of rows with one further column.
fn with_column(name: &str, column: ArrayRef) -> (tempfile::TempDir, Arc<Store>) {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(vec![1.0; 2 * column.len()]));
    let vectors: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, values, None));
    let batch = RecordBatch::try_from_iter([(name, column), ("embedding", vectors)]).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(&batch).unwrap();
    let (_scratch, path) = scratch("column.arrow", writer.into_inner().unwrap());
    let (folder, store) = store();
    store.create("a", 2).unwrap();
    import::run(&store, "a", import::open(&path, None, &ImportOptions::default()).unwrap(), &mut |_| {}).unwrap();
    (folder, store)
}

#[test]
fn dates_are_exported_as_dates_and_come_back() {
    let days = Date64Array::from(vec![Some(1_767_312_000_000), None, Some(-86_400_000)]);
    let (folder, store) = with_column("day", Arc::new(days.clone()));
    let path = folder.path().join("out.parquet");
    store.export("a", &path, Format::Parquet).unwrap();
    let file = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap()).unwrap();
    let day = file.parquet_schema().columns().iter().find(|column| column.name() == "day").unwrap().clone();
    assert_eq!(day.logical_type_ref(), Some(&LogicalType::Date));
    let read = file.build().unwrap().next().unwrap().unwrap();
    assert_eq!(read.column_by_name("day").unwrap().as_primitive::<Date64Type>(), &days);
    // What would be lost is told.
    let (folder, store) = with_column("day", Arc::new(Date64Array::from(vec![86_400_001])));
    let path = folder.path().join("out.parquet");
    assert_says(&store.export("a", &path, Format::Parquet).unwrap_err().to_string(), &["column day", "time of day"]);
    assert!(!path.exists());
    store.export("a", &folder.path().join("out.arrow"), Format::ArrowFile).unwrap();
}

#[test]
fn a_column_that_parquet_does_not_have_is_named_with_the_format_that_keeps_it() {
    let spans = || -> ArrayRef { Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)])) };
    let field = Arc::new(Field::new("span", spans().data_type().clone(), true));
    for column in [spans(), Arc::new(StructArray::from(vec![(field, spans())]))] {
        let (folder, store) = with_column("spans", column);
        let path = folder.path().join("out.parquet");
        let refused = violation(store.export("a", &path, Format::Parquet));
        assert_eq!(refused.field, "format");
        assert_says(&refused.description, &["column spans", "MonthDayNano", "arrow keeps it"]);
        assert!(!path.exists());
        store.export("a", &folder.path().join("out.arrow"), Format::ArrowFile).unwrap();
    }
}

#[test]
fn a_zone_that_is_not_known_is_told_with_its_column() {
    let (_folder, store) = corpus(&["Mars/Olympus", "UTC"]);
    let pass = |condition: &str| passing(&store, format!("\"Mars/Olympus\" {condition}").parse().unwrap());
    let refused = violation(pass("> '2026-01-02T00:00:00Z'"));
    assert_says(&refused.description, &["Mars/Olympus: its time zone \"Mars/Olympus\" is not known", "whole number"]);
    assert_eq!(pass("> 1767312000000000").unwrap(), [2]);
    for column in ["Mars/Olympus", "nested", "*"] {
        let fetched = fetch(&store.view("a").unwrap(), &[0], &[column.to_owned()], usize::MAX).unwrap();
        let refused = violation(fetched.json(0));
        assert_eq!(refused.field, "columns");
        assert_says(&refused.description, &["its time zone \"Mars/Olympus\" is not known", "leave it out"]);
    }
    assert_eq!(shown(&store, "UTC")[0], "2026-01-02T00:00:00Z");
}
