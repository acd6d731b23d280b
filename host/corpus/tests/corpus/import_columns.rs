//! Which columns are read, under which names; and what is said of columns that cannot be.

use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, RunArray, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field};
use megaring_core::Error;
use megaring_corpus::import::{self, Columns, ImportOptions};

use crate::common::{assert_rows, assert_says, data, rows, scratch, store, violation};

const ROWS: usize = 12;
const DIM: usize = 4;

fn columns(renamed: &[(&str, &str)], ignored: &[&str]) -> Columns {
    let mut columns = Columns::default();
    renamed.iter().for_each(|(name, in_file)| columns.rename(name, in_file).unwrap());
    ignored.iter().for_each(|in_file| columns.ignore(in_file));
    columns
}

fn read(path: &Path, columns: Columns) -> Result<(Vec<megaring_corpus::Rows>, Vec<String>), Error> {
    let mut file = import::open(path, None, &ImportOptions { columns, ..ImportOptions::default() })?;
    let rows = file.by_ref().collect::<Result<_, _>>()?;
    Ok((rows, file.notes()))
}

/// The rows of the shared files, whose columns have other names and whose names have other columns.
const OTHER_NAMES: [(&str, &str); 3] = [("embedding", "vec"), ("memory_id", "key"), ("title", "heading")];

fn lines_of_other_names() -> String {
    let line = |row: usize| {
        let vector = rows(row, 1, DIM).embeddings.values;
        let taken = format!("\"vec\":{vector:?},\"key\":{},\"heading\":\"row {row}\"", 1000 + row);
        format!(
            "{{{taken},\"embedding\":\"?\",\"zone\":\"UTC\",\"importance\":\"high\",\"title\":{row},\"memory_id\":\"?\"}}\n"
        )
    };
    (0..ROWS).map(line).collect()
}

#[test]
fn columns_are_taken_under_the_names_that_are_given_and_others_left_out() {
    let (_scratch, lines) = scratch("rows.jsonl", lines_of_other_names());
    for path in [data("other_names.arrow"), data("other_names.parquet"), lines] {
        let ignored = ["zone", "importance", "is_protected", "last_accessed_ns", "x"];
        let columns = columns(&OTHER_NAMES, &ignored);
        let file = import::open(&path, None, &ImportOptions { columns, ..ImportOptions::default() }).unwrap();
        let (_folder, store) = store();
        store.create("a", DIM).unwrap();
        let report = import::run(&store, "a", file, &mut |_| {}).unwrap();
        assert_rows(&store.view("a").unwrap(), ROWS);
        // What has a name that another was given is left behind, and that is told.
        assert_says(&report.notes.concat(), &["embedding", "memory_id", "title", "not stored"]);
        let kept = store.describe("a").unwrap().columns;
        let is_text = path.extension().unwrap() == "jsonl";
        let further: &[&str] = if is_text { &[] } else { &["y", "z", "w", "v"] };
        assert_eq!(kept, [&["memory_id", "title", "embedding"], further].concat(), "{}", path.display());
    }
}

/// An Arrow file of a segment's form is served as it is only where all of it is wanted.
#[test]
fn a_column_that_is_ignored_is_not_kept() {
    let (_folder, store) = store();
    store.create("a", DIM).unwrap();
    let options = ImportOptions { columns: columns(&[], &["zone", "kind"]), ..ImportOptions::default() };
    let file = import::open(&data("extra.arrow"), None, &options).unwrap();
    import::run(&store, "a", file, &mut |_| {}).unwrap();
    let kept = store.describe("a").unwrap().columns;
    assert!(!kept.contains(&"zone".to_owned()) && !kept.contains(&"kind".to_owned()), "{kept:?}");
    assert_eq!(kept.len(), 14, "{kept:?}");
}

#[test]
fn a_column_of_another_type_is_told_with_the_way_out() {
    let (_scratch, lines) = scratch("rows.jsonl", lines_of_other_names());
    for path in [data("other_names.arrow"), data("other_names.parquet"), lines] {
        let is_text = path.extension().unwrap() == "jsonl";
        let says = |renamed: &[(&str, &str)], ignored: &[&str], says: &[&str]| {
            let found = violation(read(&path, columns(renamed, ignored))).to_string();
            assert_says(&found, says);
        };
        if !is_text {
            says(
                &[],
                &["memory_id", "title", "zone", "importance", "is_protected", "last_accessed_ns", "x"],
                &["embedding", "Utf8", "--column embedding=NAME"],
            );
            says(
                &OTHER_NAMES,
                &["importance", "is_protected", "last_accessed_ns", "x"],
                &["zone", "Utf8", "--ignore-column zone"],
            );
            says(
                &OTHER_NAMES,
                &["zone", "importance", "is_protected", "last_accessed_ns"],
                &["x", "Utf8", "--ignore-column x"],
            );
            says(
                &[("embedding", "vec"), ("memory_id", "heading")],
                &[],
                &["heading", "Utf8", "--ignore-column heading"],
            );
        } else {
            says(&OTHER_NAMES, &["importance"], &["line 1: zone", "\"UTC\"", "--ignore-column zone"]);
            says(
                &[("embedding", "vec"), ("memory_id", "heading")],
                &["title", "zone", "importance"],
                &["line 1: heading", "\"row 0\""],
            );
        }
    }
    let (_scratch, lines) = scratch("rows.jsonl", "{\"embedding\":[1]}\n");
    for name in ["memory_id", "zone", "v"] {
        assert_says(&violation(read(&lines, columns(&[(name, "key")], &[]))).to_string(), &["line 1: key", "missing"]);
    }
    assert_says(
        &violation(read(&data("no_embedding.arrow"), Columns::default())).to_string(),
        &["there are memory_id, title", "--column embedding=NAME"],
    );
    assert_says(
        &violation(read(&data("plain.arrow"), columns(&[("title", "heading")], &[]))).to_string(),
        &["plain.arrow: heading", "missing", "embedding"],
    );
}

#[test]
fn of_a_file_of_queries_nothing_but_the_vectors_is_looked_at() {
    let (_scratch, lines) = scratch("rows.jsonl", lines_of_other_names());
    let wanted = rows(0, ROWS, DIM).embeddings;
    for path in [data("other_names.arrow"), data("other_names.parquet"), lines] {
        let mut columns = Columns::embeddings();
        columns.rename("embedding", "vec").unwrap();
        let (read, notes) = read(&path, columns).unwrap();
        assert_eq!((read.len(), &read[0].embeddings), (1, &wanted), "{}", path.display());
        assert!(read[0].memory_ids.is_empty() && read[0].further.names().is_empty(), "{}", path.display());
        assert!(read[0].zone.is_none() && read[0].titles.concat().is_empty());
        assert_eq!(notes, Vec::<String>::new());
    }
    // Nor is one refused for the fields that its lines do not share.
    let (_scratch, lines) =
        scratch("q.jsonl", "{\"embedding\":[1],\"zone\":1}\n{\"embedding\":[2],\"zone\":\"?\",\"x\":3}\n");
    assert_eq!(read(&lines, Columns::embeddings()).unwrap().0[0].embeddings.values, [1.0, 2.0]);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut columns = Columns::default();
    columns.rename("embedding", "vec").unwrap();
    assert_says(&violation(columns.rename("embeding", "v")).to_string(), &["embeding", "memory_id, title, embedding"]);
    assert_says(&violation(columns.rename("embedding", "v")).to_string(), &["embedding=vec", "already"]);
    assert_says(&violation(columns.rename("title", "vec")).to_string(), &["embedding=vec", "already"]);
    assert_says(&violation(Columns::embeddings().rename("title", "t")).to_string(), &["only embedding"]);
    for name in ["f4.npy", "vectors.fvecs"] {
        assert_says(&violation(read(&data(name), columns.clone())).to_string(), &[name, "no columns"]);
    }
}

fn arrow(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Two rows of one element.
fn two_vectors() -> (&'static str, ArrayRef) {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let values = Arc::new(Float32Array::from(vec![1.0; 2]));
    ("embedding", Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([1, 1]), values, None)))
}

#[test]
fn columns_of_other_types_come_in_where_they_say_the_same() {
    let ids = RunArray::<Int32Type>::try_new(&vec![2].into(), &UInt64Array::from(vec![7])).unwrap();
    let titles = RunArray::<Int32Type>::try_new(&vec![1, 2].into(), &StringArray::from(vec!["a", "b"])).unwrap();
    let whole = Arc::new(Int64Array::from(vec![-3, 1 << 60])) as ArrayRef;
    let times = |unit: &str| match unit {
        "s" => Arc::new(TimestampSecondArray::from(vec![0, 2])) as ArrayRef,
        "ms" => Arc::new(TimestampMillisecondArray::from(vec![0, 2_000])),
        "us" => Arc::new(TimestampMicrosecondArray::from(vec![0, 2_000_000]).with_timezone("UTC")),
        _ => Arc::new(TimestampNanosecondArray::from(vec![0, 2_000_000_000])),
    };
    for unit in ["s", "ms", "us", "ns"] {
        let columns = vec![
            two_vectors(),
            ("memory_id", Arc::new(ids.clone()) as ArrayRef),
            ("title", Arc::new(titles.clone())),
            ("importance", whole.clone()),
            ("last_accessed_ns", times(unit)),
        ];
        let (_scratch, path) = scratch("other.arrow", arrow(columns));
        let rows = read(&path, Columns::default()).unwrap().0.remove(0);
        assert_eq!((rows.memory_ids, rows.titles), (vec![7, 7], vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(rows.importance.unwrap(), [-3.0, (1_u64 << 60) as f64]);
        assert_eq!(rows.last_accessed_ns.unwrap(), [0, 2_000_000_000], "{unit}");
    }
    let says = |name, column: ArrayRef, says: &[&str]| {
        let (_scratch, path) = scratch("other.arrow", arrow(vec![two_vectors(), (name, column)]));
        assert_says(&violation(read(&path, Columns::default())).to_string(), says);
    };
    let wide = Arc::new(Int64Array::from(vec![0, (1 << 53) + 1]));
    says("importance", wide, &["importance (row 1)", "9007199254740993 is no float64"]);
    let early = Arc::new(TimestampSecondArray::from(vec![0, -1]));
    says("last_accessed_ns", early, &["last_accessed_ns (row 1)", "-1000000000 is no unsigned integer"]);
    let late = Arc::new(TimestampSecondArray::from(vec![0, i64::MAX]));
    says("last_accessed_ns", late, &["last_accessed_ns (row 1)", "9223372036854775807000000000"]);
    let none = Arc::new(TimestampSecondArray::from(vec![None, Some(1)]));
    says("last_accessed_ns", none, &["last_accessed_ns (row 0)", "null"]);
    says("zone", Arc::new(TimestampSecondArray::from(vec![0, 1])), &["zone", "Timestamp", "wanted are integers"]);
}

/// A zone is any number of eight bits, here as over gRPC; what cannot be stored is a bad row, not a bad file.
#[test]
fn values_beyond_a_column_are_bad_rows_of_the_file() {
    let far = "{\"embedding\":[1],\"x\":0,\"y\":0,\"z\":0,\"w\":0,\"v\":1e300}\n";
    let near = "{\"embedding\":[1],\"x\":0,\"y\":0,\"z\":0,\"w\":0,\"v\":1}\n";
    let (_a, far) = scratch("far.jsonl", [near, far].concat());
    assert_says(&violation(read(&far, Columns::default())).to_string(), &["far.jsonl line 2: v", "1e300"]);
    let axis: ArrayRef = Arc::new(Float64Array::from(vec![0.0, 1e300]));
    let columns = ["x", "y", "z", "w", "v"].map(|name| (name, axis.clone()));
    let (_c, path) = scratch("far.arrow", arrow(columns.into_iter().chain([two_vectors()]).collect()));
    assert_says(&violation(read(&path, Columns::default())).to_string(), &["far.arrow: x (row 1)", "1e300"]);
    let options = ImportOptions { skip_invalid: true, ..ImportOptions::default() };
    let mut file = import::open(&path, None, &options).unwrap();
    assert_eq!((file.next().unwrap().unwrap().len(), file.progress().skipped), (1, 1));
    let (_b, zone) = scratch("zone.jsonl", "{\"embedding\":[1],\"zone\":255}\n{\"embedding\":[1],\"zone\":256}\n");
    assert_says(&violation(read(&zone, Columns::default())).to_string(), &["zone.jsonl line 2: zone", "256"]);
}
