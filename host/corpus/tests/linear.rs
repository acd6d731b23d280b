//! Ten times the rows take ten times the memory, in all that is allocated on the way, whatever the format and the types
//! of the columns: what is converted once for each chunk would take a hundred times as much. No clock is asked.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    LargeListArray, LargeListViewArray, LargeStringArray, ListArray, ListViewArray, RecordBatch, RunArray, StringArray,
    StringViewArray, StructArray, TimestampMicrosecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::Field;
use megaring_corpus::import::{self, ImportOptions};
use megaring_corpus::{Access, OpenOptions, Store};
use parquet::arrow::ArrowWriter;
use rawzip::{CompressionMethod, ZipArchiveWriter};

/// Rows of the smaller file, which is less than a chunk; the larger has ten times as many, and is several.
const ROWS: usize = 10_000;
/// Vectors that are nearly all of a file.
const DIM: usize = 80;
/// A column of so many rows.
type Column<'a> = &'a dyn Fn(usize) -> ArrayRef;

/// Most times as much: what there is one of makes it less than ten, and more the room that is doubled where chunks are
/// gathered.
const MOST: [(&str, f64); 2] = [("reading", 12.0), ("importing", 20.0)];

/// Bytes allocated while a file is read, and while it becomes a corpus.
fn allocated(name: &str, bytes: &[u8]) -> [u64; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let open = || import::open(&path, None, &ImportOptions::default()).unwrap();
    let reading = allocation_counter::measure(|| open().for_each(|chunk| drop(chunk.unwrap())));
    // Nothing is small, so that both files are stored in the same way.
    let options = OpenOptions { small_bytes: 0, ..OpenOptions::default() };
    let store = Store::open_with(&folder.path().join("data"), Access::Exclusive, options).unwrap();
    store.create("a", open().row_type()).unwrap();
    let importing = allocation_counter::measure(|| drop(import::run(&store, "a", open(), &mut |_| {}).unwrap()));
    [reading, importing].map(|made| made.bytes_total)
}

fn grows_with_the_rows(name: &str, file: impl Fn(usize) -> Vec<u8>) {
    let [few, many] = [ROWS, 10 * ROWS].map(|rows| allocated(name, &file(rows)));
    for ((few, many), (doing, most)) in few.into_iter().zip(many).zip(MOST) {
        let times = many as f64 / few as f64;
        assert!(
            times <= most,
            "{doing} {name} allocates {few} bytes, and {many} for ten times the rows: {times:.1} times"
        );
    }
}

fn values(rows: usize) -> Vec<f32> {
    (0..rows * DIM).map(|at| (at % 1000) as f32).collect()
}

fn item(of: &ArrayRef) -> Arc<Field> {
    Arc::new(Field::new("item", of.data_type().clone(), true))
}

fn lists(rows: usize, dim: usize, values: ArrayRef) -> ListArray {
    ListArray::new(item(&values), OffsetBuffer::from_lengths(vec![dim; rows]), values, None)
}

fn large_lists(rows: usize, values: ArrayRef) -> LargeListArray {
    LargeListArray::new(item(&values), OffsetBuffer::from_lengths(vec![DIM; rows]), values, None)
}

/// A file of one batch.
fn arrow(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn vectors_of_every_type() {
    let floats = |rows: usize| Arc::new(Float32Array::from(values(rows))) as ArrayRef;
    let doubles = |rows| Arc::new(Float64Array::from_iter_values(values(rows).into_iter().map(f64::from))) as ArrayRef;
    let bytes = |rows| Arc::new(UInt8Array::from_iter_values(values(rows).into_iter().map(|v| v as u8))) as ArrayRef;
    let types: [(&str, Column<'_>); 9] = [
        ("lists", &|rows| Arc::new(lists(rows, DIM, floats(rows)))),
        ("lists of float64", &|rows| Arc::new(lists(rows, DIM, doubles(rows)))),
        ("lists of uint8", &|rows| Arc::new(lists(rows, DIM, bytes(rows)))),
        ("large lists", &|rows| Arc::new(large_lists(rows, floats(rows)))),
        ("views", &|rows| Arc::new(ListViewArray::from(lists(rows, DIM, floats(rows))))),
        ("large views", &|rows| Arc::new(LargeListViewArray::from(large_lists(rows, floats(rows))))),
        ("shared views", &|rows| {
            let one = Arc::new(Float32Array::from(vec![0.5; DIM])) as ArrayRef;
            Arc::new(ListViewArray::new(item(&one), vec![0; rows].into(), vec![DIM as i32; rows].into(), one, None))
        }),
        ("fixed-size lists", &|rows| fixed(rows, DIM, floats(rows))),
        ("fixed-size lists of float64", &|rows| fixed(rows, DIM, doubles(rows))),
    ];
    for (name, vectors) in types {
        grows_with_the_rows(&format!("{name}.arrow"), |rows| arrow(vec![("embedding", vectors(rows))]));
    }
}

fn fixed(rows: usize, dim: usize, values: ArrayRef) -> ArrayRef {
    assert_eq!(values.len(), rows * dim);
    Arc::new(FixedSizeListArray::new(item(&values), dim as i32, values, None))
}

#[test]
fn batches_in_streams_and_parquet() {
    let batch = |rows| {
        let floats = Arc::new(Float32Array::from(values(rows)));
        RecordBatch::try_from_iter([("embedding", Arc::new(lists(rows, DIM, floats)) as ArrayRef)]).unwrap()
    };
    grows_with_the_rows("a.arrows", |rows| {
        let batch = batch(rows);
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    });
    grows_with_the_rows("a.parquet", |rows| {
        let batch = batch(rows);
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    });
}

/// Here the column is nearly all of the file.
#[test]
fn columns_of_every_type() {
    let texts = |rows| (0..rows).map(|row| format!("{row:>300}")).collect::<Vec<_>>();
    let known = |rows| StringArray::from_iter_values((0..1_000).map(|row| format!("{row:>300}")).take(rows));
    let keys = |rows| UInt32Array::from_iter_values((0..rows as u32).map(|row| row % 1_000));
    let dictionary = |rows| Arc::new(DictionaryArray::<UInt32Type>::new(keys(rows), Arc::new(known(rows)))) as ArrayRef;
    let runs = |rows: usize| {
        let ends = (1..=1_000).map(|run| (run * rows / 1_000) as i32).collect::<Vec<_>>();
        Arc::new(RunArray::<Int32Type>::try_new(&ends.into(), &known(rows)).unwrap()) as ArrayRef
    };
    let strings = |rows| Arc::new(StringArray::from(texts(rows))) as ArrayRef;
    let structs = |rows| {
        let (texts, tags) = (strings(rows), Arc::new(lists(rows, 1, strings(rows))) as ArrayRef);
        Arc::new(StructArray::from(vec![(item(&texts), texts), (item(&tags), tags)])) as ArrayRef
    };
    let types: [(&str, &str, Column<'_>); 9] = [
        ("texts", "title", &strings),
        ("large texts", "title", &|rows| Arc::new(LargeStringArray::from(texts(rows)))),
        ("views of texts", "title", &|rows| Arc::new(StringViewArray::from_iter_values(texts(rows)))),
        ("dictionary", "title", &dictionary),
        ("runs", "title", &runs),
        ("further texts", "note", &strings),
        ("further dictionary", "note", &dictionary),
        ("further runs", "note", &runs),
        ("further structs", "note", &structs),
    ];
    for (name, column, of) in types {
        let vectors = |rows| Arc::new(lists(rows, 1, Arc::new(Float32Array::from(vec![0.5; rows])))) as ArrayRef;
        let file = |rows| arrow(vec![("embedding", vectors(rows)), (column, of(rows))]);
        grows_with_the_rows(&format!("{name}.arrow"), file);
    }
}

/// Numbers are few bytes a row, so that there are more rows.
#[test]
fn columns_of_numbers() {
    grows_with_the_rows("numbers.arrow", |rows| {
        let rows = 10 * rows;
        let numbers = Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row % 200))) as ArrayRef;
        let floats = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64))) as ArrayRef;
        let times = Arc::new(TimestampMicrosecondArray::from_iter_values(0..rows as i64)) as ArrayRef;
        let vectors = Arc::new(lists(rows, 1, Arc::new(Float32Array::from(vec![0.5; rows])))) as ArrayRef;
        let ids = Arc::new(UInt64Array::from_iter_values(0..rows as u64)) as ArrayRef;
        let truths = Arc::new(BooleanArray::from(vec![true; rows])) as ArrayRef;
        let axes = ["x", "y", "z", "w", "v", "galactic_distance"].map(|name| (name, floats.clone()));
        let whole = ["importance", "zone", "constellation_id"].map(|name| (name, numbers.clone()));
        let others =
            [("embedding", vectors), ("memory_id", ids), ("is_protected", truths), ("last_accessed_ns", times)];
        arrow(axes.into_iter().chain(whole).chain(others).collect())
    });
}

/// A `.npy` file.
fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

fn little(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn arrays_of_every_format() {
    let shape = |rows| format!("({rows}, {DIM})");
    grows_with_the_rows("a.npy", |rows| npy("<f4", &shape(rows), &little(&values(rows))));
    grows_with_the_rows("swapped.npy", |rows| npy(">f4", &shape(rows), &little(&values(rows))));
    grows_with_the_rows("a.fbin", |rows| {
        [&(rows as u32).to_le_bytes()[..], &(DIM as u32).to_le_bytes(), &little(&values(rows))].concat()
    });
    grows_with_the_rows("a.fvecs", |rows| {
        let row = |row: &[f32]| [(DIM as i32).to_le_bytes().to_vec(), little(row)].concat();
        values(rows).chunks(DIM).flat_map(row).collect()
    });
    grows_with_the_rows("a.safetensors", |rows| {
        let bytes = little(&values(rows));
        let header =
            format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{rows},{DIM}],\"data_offsets\":[0,{}]}}}}", bytes.len());
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()
    });
    for method in [CompressionMethod::STORE, CompressionMethod::DEFLATE] {
        grows_with_the_rows("a.npz", |rows| {
            let texts: Vec<u8> = (0..rows).flat_map(|_| u32::from('t').to_le_bytes()).collect();
            let members = [
                ("embedding.npy", npy("<f4", &shape(rows), &little(&values(rows)))),
                ("title.npy", npy("<U1", &format!("({rows},)"), &texts)),
                ("flag.npy", npy("|b1", &format!("({rows},)"), &vec![1; rows])),
            ];
            archive(method, &members)
        });
    }
}

fn archive(method: CompressionMethod, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    for (name, mut content) in members.iter().map(|(name, content)| (name, &content[..])) {
        let (mut entry, config) = archive.new_file(name).compression_method(method).start().unwrap();
        let descriptor = if method == CompressionMethod::STORE {
            let mut writer = config.wrap(&mut entry);
            std::io::copy(&mut content, &mut writer).unwrap();
            writer.finish().unwrap().1
        } else {
            let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast());
            let mut writer = config.wrap(encoder);
            std::io::copy(&mut content, &mut writer).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        };
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    bytes
}

#[test]
fn lines_of_text() {
    let vector = "[0.25,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]";
    let title = "t".repeat(300);
    grows_with_the_rows("a.jsonl", |rows| {
        let line = |row| format!("{{\"memory_id\":{row},\"title\":\"{title}\",\"embedding\":{vector}}}\n");
        (0..rows).map(line).collect::<String>().into_bytes()
    });
    grows_with_the_rows("a.csv", |rows| {
        let line = |row| format!("{row},{title},\"{vector}\"\n");
        std::iter::once("memory_id,title,embedding\n".to_owned()).chain((0..rows).map(line)).collect::<String>().into()
    });
}
