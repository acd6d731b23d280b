//! Further columns as somebody sends them: kept to the value, and whatever else comes is refused by name.

use std::sync::Arc;

use arrow_array::types::{Float32Type, Int32Type};
use arrow_array::{
    ArrayRef, DictionaryArray, FixedSizeListArray, Float64Array, Int64Array, ListArray, ListViewArray, NullArray,
    RecordBatch, RunArray, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::Field;
use megaring_core::matrix::Matrix;
use megaring_corpus::import::{self, ImportOptions};
use megaring_corpus::{Fetched, Rows, fetch};
use proptest::prelude::*;

use crate::common::{assert_says, scratch, store, violation};

fn rows() -> Rows {
    let embeddings = Matrix { rows: 4, dim: 2, values: vec![0.5; 8] };
    Rows { embeddings, memory_ids: vec![5, 6, 7, 8], ..Rows::default() }
}

fn texts(values: [Option<&str>; 4]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn written(batches: &[RecordBatch], options: IpcWriteOptions) -> Vec<u8> {
    let schema = batches[0].schema();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn stream(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    written(&[batch(columns)], IpcWriteOptions::default())
}

fn good() -> Vec<u8> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]));
    stream(vec![("kind", texts([Some("a"), None, Some("c"), Some("")])), ("number", numbers)])
}

#[test]
fn columns_are_stored_to_the_value_and_given_out_row_by_row() {
    let (_folder, store) = store();
    store.create("a", 2).unwrap();
    let mut appender = store.append("a").unwrap();
    let mut rows = rows();
    rows.add_columns(&[]).unwrap();
    assert!(rows.further.names().is_empty() && rows.further.to_stream(0..4).unwrap().is_empty());
    rows.add_columns(&good()).unwrap();
    assert_eq!(rows.further.names(), ["kind", "number"]);
    let part = Fetched::of_stream(&rows.further.to_stream(1..3).unwrap()).unwrap();
    assert_eq!((part.rows(), part.json(0).unwrap()), (2, vec![().into(), ().into()]));
    assert_eq!(part.json(1).unwrap(), ["c".into(), serde_json::Value::from(3)]);
    appender.push(rows).unwrap();
    appender.commit().unwrap();
    let view = store.view("a").unwrap();
    let columns = ["kind", "number"].map(str::to_owned);
    let fetched = fetch(&view, &[0, 1, 2, 3], &columns, 1 << 20).unwrap();
    assert_eq!(fetched, Fetched::of_stream(&fetched.to_stream().unwrap()).unwrap());
    let first: Vec<_> = (0..4).map(|row| fetched.json(row).unwrap()[1].clone()).collect();
    assert_eq!(first, [1.into(), ().into(), 3.into(), serde_json::Value::from(4)]);
    assert_eq!(Fetched::of_stream(&[]).unwrap().rows(), 0);
}

/// What a file's columns refer to, at any depth, is sent as the values themselves.
#[test]
fn columns_of_a_file_are_sent_as_plain_values() {
    let words =
        || -> ArrayRef { Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("a"), None, Some("b"), Some("a")])) };
    let runs: ArrayRef = Arc::new(["x", "x", "y", "x"].into_iter().collect::<RunArray<Int32Type>>());
    let list = |item: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("item", item.data_type().clone(), true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([1, 0, 2, 1]), item, None))
    };
    let view = |item: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("item", item.data_type().clone(), true));
        // Out of order, and one value twice.
        Arc::new(ListViewArray::new(field, vec![2, 0, 0, 1].into(), vec![2, 0, 2, 1].into(), item, None))
    };
    let named = |name: &str, of: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new(name, of.data_type().clone(), true));
        Arc::new(StructArray::from(vec![(field, of)]))
    };
    let columns = vec![
        ("words", words()),
        ("lists", list(words())),
        ("views", view(Arc::new(Int64Array::from(vec![1, 2, 3, 4])))),
        ("viewed_words", view(words())),
        ("structs", named("word", words())),
        ("runs", named("run", runs)),
        ("deep", list(named("views", view(words())))),
    ];
    let vectors: Vec<_> = (0..4).map(|row| Some([Some(row as f32), Some(1.0)])).collect();
    let embedding: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 2));
    let names: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let file = batch(columns.into_iter().chain([("embedding", embedding)]).collect());
    let mut writer = FileWriter::try_new(Vec::new(), &file.schema()).unwrap();
    writer.write(&file).unwrap();
    let (_scratch, path) = scratch("f.arrow", writer.into_inner().unwrap());
    let open = || import::open(&path, None, &ImportOptions::default()).unwrap();
    let (_folder, store) = store();
    ["here", "sent"].iter().for_each(|name| _ = store.create(name, 2).unwrap());
    import::run(&store, "here", open(), &mut |_| {}).unwrap();
    let mut appender = store.append("sent").unwrap();
    for read in open() {
        let read = read.unwrap();
        let embeddings = Matrix { rows: 3, dim: 2, values: read.embeddings.values[2..].to_vec() };
        let mut rows = Rows { embeddings, ..Rows::default() };
        rows.add_columns(&read.further.to_stream(1..4).unwrap()).unwrap();
        appender.push(rows).unwrap();
    }
    appender.commit().unwrap();
    let shown = |name: &str, rows: &[u32]| {
        let fetched = fetch(&store.view(name).unwrap(), rows, &names, 1 << 20).unwrap();
        (0..rows.len()).map(|row| fetched.json(row).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(shown("sent", &[0, 1, 2]), shown("here", &[1, 2, 3]));
}

#[test]
fn what_cannot_be_a_column_is_named() {
    let four = || texts([Some("a"); 4]);
    let axis: ArrayRef = Arc::new(Float64Array::from(vec![0.5; 4]));
    let axes = ["x", "y", "z", "w", "v"].map(|name| (name, axis.clone()));
    let dictionary: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter(["a", "b", "a", "b"]));
    let one = batch(vec![("kind", four())]);
    let twice = {
        let fields = [one.schema().field(0).clone(), one.schema().field(0).clone()];
        let schema = Arc::new(arrow_schema::Schema::new(fields.to_vec()));
        RecordBatch::try_new(schema, vec![four(), four()]).unwrap()
    };
    let packed = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
    let nothing: ArrayRef = Arc::new(NullArray::new(1 << 40));
    for (sent, column, says) in [
        (b"no stream".to_vec(), "columns", "truncated"),
        (good()[..good().len() / 2].to_vec(), "columns", "truncated"),
        (stream(vec![("title", four())]), "columns: title", "a field of its own"),
        (stream(vec![("zone", four())]), "columns: zone", "a field of its own"),
        (stream(axes.to_vec()), "columns: x", "a field of its own"),
        (written(&[twice], IpcWriteOptions::default()), "columns: kind", "twice"),
        (stream(vec![("kind", dictionary)]), "columns: kind", "plain values"),
        (written(&[one.clone(), one.clone()], IpcWriteOptions::default()), "columns", "several"),
        (written(std::slice::from_ref(&one), packed), "columns", "compressed"),
        (written(&[one.slice(0, 3)], IpcWriteOptions::default()), "columns", "3 rows for 4 embeddings"),
        (stream(vec![("nothing", nothing)]), "columns", "1099511627776 rows"),
    ] {
        let found = violation(rows().add_columns(&sent));
        assert_eq!(found.field, column, "{found:?}");
        assert_says(&found.description, &[says]);
    }
    // Fewer than five of these names mean something else, unless the rows have coordinates.
    let mut plain = rows();
    plain.add_columns(&stream(axes[..2].to_vec())).unwrap();
    let mut placed = Rows { coordinates: Some(std::array::from_fn(|_| vec![0.0; 4])), ..rows() };
    assert_eq!(violation(placed.add_columns(&stream(axes[..2].to_vec()))).field, "columns: x");
}

proptest! {
    /// Whatever byte is wrong, the answer is an error or columns of as many rows.
    #[test]
    fn no_bytes_are_too_wrong(at in 0..good().len(), value: u8) {
        let mut sent = good();
        sent[at] = value;
        let mut rows = rows();
        if rows.add_columns(&sent).is_ok() {
            drop(rows.further.to_stream(0..4));
        }
    }
}
