//! Columns of moments in time zones: filtered by and shown, whatever the zone's name.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StructArray, TimestampMicrosecondArray};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field};
use megaring_corpus::import::{self, ImportOptions};
use megaring_corpus::{Store, fetch};

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
