//! Every format, and every way a file can be wrong: what is said names file, column and row.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    ArrayRef, DictionaryArray, Float32Array, LargeListArray, LargeListViewArray, ListArray, ListViewArray, RecordBatch,
    RunArray, StringArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field};

use crate::common::{append, assert_derived, assert_rows, assert_says, data, rows, scratch, store, values, violation};
use megaring_core::{Error, Violation};
use megaring_corpus::import::{self, Format, ImportOptions, Progress, Report};
use megaring_corpus::{Access, Adopted, Store};

const ROWS: usize = 12;
const DIM: usize = 4;

fn run(store: &Store, path: &Path, skip_invalid: bool) -> Result<Report, Error> {
    let options =
        ImportOptions { skip_invalid, dim: Some(store.describe("a")?.row_type.dim), ..ImportOptions::default() };
    import::run(store, "a", import::open(path, None, &options)?, &mut |_| {})
}

fn fails(path: &Path) -> Violation {
    let (_folder, store) = store();
    store.create("a", DIM).unwrap();
    append(&store, "a", 0, 2, DIM);
    let found = violation(run(&store, path, false));
    assert_rows(&store.view("a").unwrap(), 2);
    let left = fs::read_dir(store.root().join("a")).unwrap().count();
    assert_eq!(left, 3, "nothing of a failed import is kept");
    found
}

fn imports(path: &Path) -> (tempfile::TempDir, std::sync::Arc<Store>, Report) {
    let (folder, store) = store();
    store.create("a", DIM).unwrap();
    let report = run(&store, path, false).unwrap();
    assert_eq!((report.appended.rows, report.skipped), (ROWS, 0));
    (folder, store, report)
}

#[test]
fn arrow_and_parquet_files_of_pyarrow_come_in() {
    let files = [
        ("plain.arrow", true),
        ("large_utf8.arrow", true),
        ("utf8_view.arrow", false),
        ("zstd.arrow", false),
        ("lz4.arrow", false),
        ("batches.arrow", false),
        ("lists.arrow", false),
        ("large_lists.arrow", false),
        ("signed_ids.arrow", false),
        ("dictionary_title.arrow", false),
        ("snappy.parquet", false),
        ("gzip.parquet", false),
        ("lz4.parquet", false),
        ("none.parquet", false),
    ];
    for (name, as_is) in files {
        let (_folder, store, report) = imports(&data(name));
        assert_eq!(report.as_is, as_is, "{name}");
        assert_rows(&store.view("a").unwrap(), ROWS);
        if as_is {
            let served = fs::read(store.root().join("a/seg-000001.arrow")).unwrap();
            assert_eq!(served, fs::read(data(name)).unwrap(), "{name} is kept as it is");
        }
        let root = store.root().to_owned();
        drop(store);
        let store = crate::common::open(&root, Access::Exclusive).unwrap();
        assert_rows(&store.view("a").unwrap(), ROWS);
        assert!(store.verify("a").unwrap().is_clean(), "{name}");
    }
}

fn arrow_file<const N: usize>(columns: [(&str, ArrayRef); N]) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// One batch of several chunks, as most programs write: each chunk converts its own lists, of either kind.
#[test]
fn lists_of_a_large_batch_come_in_chunk_by_chunk() {
    let (rows, dim, bad) = (6_000, 512, 5_000);
    let value = |row: usize, element: usize| (row * dim + element) as f32;
    let mut elements: Vec<f32> = (0..rows).flat_map(|row| (0..dim).map(move |element| value(row, element))).collect();
    elements[bad * dim + 7] = f32::NAN;
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let lengths = || std::iter::repeat_n(dim, rows);
    let child: ArrayRef = Arc::new(Float32Array::from(elements));
    let lists = ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths()), child.clone(), None);
    let large = LargeListArray::new(item, OffsetBuffer::from_lengths(lengths()), child, None);
    let (views, large_views) = (ListViewArray::from(lists.clone()), LargeListViewArray::from(large.clone()));
    for lists in [Arc::new(lists) as ArrayRef, Arc::new(large), Arc::new(views), Arc::new(large_views)] {
        let (_scratch, path) = scratch("lists.arrow", arrow_file([("embedding", lists)]));
        let (_folder, store) = store();
        store.create("a", dim).unwrap();
        assert_eq!(violation(run(&store, &path, false)).row, Some(bad as u64));
        let report = run(&store, &path, true).unwrap();
        assert_eq!((report.appended.rows, report.skipped), (rows - 1, 1));
        let kept = (0..rows).filter(|row| *row != bad);
        let want: Vec<f32> = kept.flat_map(|row| (0..dim).map(move |element| value(row, element))).collect();
        assert!(values(&store.view("a").unwrap()) == want, "every value of every row");
    }
}

/// What rows share is theirs once they are read, so a batch is cut by what it stands for and not by what it takes.
#[test]
fn values_that_rows_share_do_not_make_a_chunk_of_all() {
    let (rows, dim) = (20_000, 512);
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let vector: ArrayRef = Arc::new(Float32Array::from(vec![0.5; dim]));
    let views = ListViewArray::new(item, vec![0; rows].into(), vec![dim as i32; rows].into(), vector, None);
    let texts = StringArray::from(vec!["t".repeat(1 << 16)]);
    let keys = DictionaryArray::<Int8Type>::new(vec![0; 600].into(), Arc::new(texts.clone()));
    let runs = RunArray::<Int32Type>::try_new(&vec![600].into(), &texts).unwrap();
    let short = |rows: usize| {
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let values = Arc::new(Float32Array::from(vec![0.5; rows]));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(vec![1; rows]), values, None)) as ArrayRef
    };
    let views = arrow_file([("embedding", Arc::new(views) as ArrayRef)]);
    let keys = arrow_file([("embedding", short(600)), ("title", Arc::new(keys))]);
    let runs = arrow_file([("embedding", short(600)), ("title", Arc::new(runs))]);
    for (bytes, rows) in [(views, rows), (keys, 600), (runs, 600)] {
        assert!(bytes.len() < 300_000, "{} bytes", bytes.len());
        let (_scratch, path) = scratch("shared.arrow", bytes);
        let file = import::open(&path, None, &ImportOptions::default()).unwrap();
        let chunks: Vec<usize> = file.map(|chunk| chunk.unwrap().len()).collect();
        assert!(chunks.len() >= 4 && chunks.iter().sum::<usize>() == rows, "{chunks:?}");
    }
}

#[test]
fn optional_and_further_columns_come_along() {
    for name in ["extra.arrow", "extra_zstd.arrow", "extra.parquet", "stream.arrows"] {
        let (_folder, store, _) = imports(&data(name));
        let view = store.view("a").unwrap();
        assert_rows(&view, ROWS);
        assert!(view.has_coordinates(), "{name}");
        let (_, segment) = view.segments().next().unwrap();
        let axes = segment.data().coordinates().unwrap();
        for (axis, column) in axes.into_iter().enumerate() {
            assert_eq!(column, (0..ROWS).map(|row| row as f64 / 8.0 + axis as f64).collect::<Vec<_>>());
        }
        let columns = store.describe("a").unwrap().columns;
        assert_eq!(columns.len(), 16, "{name}: {columns:?}");
        assert!(columns.iter().any(|column| column == "tags") && columns.iter().any(|column| column == "kind"));
        // What was kept can be imported again, so it was kept as what it is.
        let (_second, again, report) = imports(&store.root().join("a/seg-000001.arrow"));
        assert!(report.as_is);
        assert_eq!(again.describe("a").unwrap().columns, columns);
    }
}

#[test]
fn further_columns_are_kept_to_the_value() {
    let (_folder, store, _) = imports(&data("extra_zstd.arrow"));
    let mut kept = import::open(&store.root().join("a/seg-000001.arrow"), None, &ImportOptions::default()).unwrap();
    let mut given = import::open(&data("extra.arrow"), None, &ImportOptions::default()).unwrap();
    let (kept, given) = (kept.next().unwrap().unwrap(), given.next().unwrap().unwrap());
    assert_eq!(kept.further.names(), ["tags", "kind"]);
    assert_eq!(kept, given);
}

#[test]
fn numpy_files_come_in() {
    for (name, note) in [("f4.npy", ""), ("v3.npy", ""), ("f2.npy", "float16"), ("f8.npy", "float64")] {
        let (_folder, store, report) = imports(&data(name));
        let view = store.view("a").unwrap();
        assert_eq!(values(&view), rows(0, ROWS, DIM).embeddings.values, "{name}");
        assert_eq!(view.label(5), (5, ""));
        assert_derived(&view);
        assert_says(&report.notes.concat(), &[note]);
    }
}

#[test]
fn fvecs_files_come_in_behind_what_is_there() {
    let (_folder, store, _) = imports(&data("vectors.fvecs"));
    run(&store, &data("vectors.fvecs"), false).unwrap();
    let view = store.view("a").unwrap();
    assert_eq!(values(&view), [rows(0, ROWS, DIM).embeddings.values, rows(0, ROWS, DIM).embeddings.values].concat());
    assert_eq!(view.label(13), (13, ""), "row numbers go on");
}

fn lines() -> String {
    let line = |row: usize| {
        let vector = rows(row, 1, DIM).embeddings.values;
        format!("{{\"memory_id\":{},\"title\":\"row {row}\",\"embedding\":{vector:?}}}\n", 1000 + row)
    };
    (0..ROWS).map(line).collect()
}

#[test]
fn json_lines_come_in() {
    let text = lines();
    for text in [text.clone(), text.trim_end().to_owned(), format!("\u{feff}{}", text.replace('\n', "\r\n\r\n"))] {
        let (_scratch, path) = scratch("rows.jsonl", text);
        let (_folder, store, report) = imports(&path);
        assert_rows(&store.view("a").unwrap(), ROWS);
        assert_eq!(report.notes, Vec::<String>::new());
    }
}

#[test]
fn json_lines_with_every_field() {
    let line = r#"{"embedding":[1,2,3,4],"x":1,"y":2,"z":3,"w":4,"v":5,"galactic_distance":0.5,"importance":0.25,"zone":255,
        "constellation_id":65535,"last_accessed_ns":18446744073709551615,"is_protected":true,"mood":"good","tags":[{}]}"#;
    let line = line.replace('\n', " ");
    let (_scratch, path) = scratch("rows.ndjson", format!("{line}\n{line}\n"));
    let mut found = import::open(&path, None, &ImportOptions::default()).unwrap();
    assert_eq!((found.row_type(), found.format()), (4.into(), Format::JsonLines));
    let rows = found.next().unwrap().unwrap();
    assert_eq!(rows.coordinates.unwrap().map(|column| column[1]), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!((rows.zone.unwrap(), rows.constellation_id.unwrap()), (vec![255; 2], vec![65535; 2]));
    assert_eq!((rows.last_accessed_ns.unwrap(), rows.is_protected.unwrap()), (vec![u64::MAX; 2], vec![true; 2]));
    assert_eq!((rows.importance.unwrap(), rows.galactic_distance.unwrap()), (vec![0.25; 2], vec![0.5; 2]));
    assert!(found.next().is_none());
    assert_says(&found.notes().concat(), &["mood", "tags"]);
}

#[test]
fn bad_json_lines_are_named_by_line_and_skipped_on_demand() {
    let bad: [(&[u8], &[&str]); 12] = [
        (b"{\"memory_id\":1,\"title\":\"\xff\",\"embedding\":[1,2,3,4]}", &["line 4", "invalid UTF-8"]),
        (b"{\"memory_id\":1,", &["line 4", "bad JSON"]),
        (b"[1,2,3,4]", &["line 4", "it is an array", "an object such as"]),
        (b"{\"memory_id\":1}", &["line 4", "embedding"]),
        (b"{\"memory_id\":1,\"embedding\":[1,2,3]}", &["line 4", "embedding", "3 values, wanted are 4"]),
        (b"{\"memory_id\":1,\"embedding\":[1,2,NaN,3]}", &["line 4", "bad JSON"]),
        (b"{\"memory_id\":1,\"embedding\":[1,2,null,3]}", &["line 4: embedding", "null"]),
        (b"{\"memory_id\":1,\"embedding\":[1,2,1e39,3]}", &["line 4", "embedding", "element 2"]),
        (b"{\"memory_id\":-1,\"embedding\":[1,2,3,4]}", &["line 4: memory_id", "-1"]),
        (b"{\"embedding\":[1,2,3,4]}", &["line 4", "memory_id", "missing"]),
        (b"{\"memory_id\":1,\"embedding\":[1,2,3,4],\"zone\":1}", &["line 4", "zone"]),
        (b"{\"memory_id\":1,\"embedding\":[1,2,3,4],\"x\":1}", &["line 4", "coordinates"]),
    ];
    for (line, says) in bad {
        let text = lines();
        let at = text.match_indices('\n').nth(2).unwrap().0 + 1;
        let bytes = [&text.as_bytes()[..at], line, b"\n", &text.as_bytes()[at..]].concat();
        let (_scratch, path) = scratch("rows.jsonl", bytes);
        assert_says(&fails(&path).to_string(), says);
        let (_folder, store) = store();
        store.create("a", DIM).unwrap();
        let report = run(&store, &path, true).unwrap();
        assert_eq!((report.appended.rows, report.skipped), (ROWS, 1));
        assert_says(&report.first_skipped.unwrap().to_string(), says);
        assert_rows(&store.view("a").unwrap(), ROWS);
    }
}

#[test]
fn bad_rows_are_named_and_skipped_on_demand() {
    let files: [(&str, &[&str]); 6] = [
        ("nan_importance.arrow", &["nan_importance.arrow: importance (row 7)", "NaN"]),
        ("nan.arrow", &["nan.arrow: embedding (row 7)", "element 2 is NaN"]),
        ("nan_batches.arrow", &["nan_batches.arrow: embedding (row 7)", "element 2 is NaN"]),
        ("nan.npy", &["nan.npy: embedding (row 7)", "element 2 is NaN"]),
        ("null_embedding.arrow", &["null_embedding.arrow: embedding (row 7)", "null"]),
        ("null_element.arrow", &["null_element.arrow: embedding (row 7)", "element 2 is null"]),
    ];
    for (name, says) in files {
        let found = fails(&data(name));
        assert_eq!(found.row, Some(7), "{found}");
        assert_says(&found.to_string(), says);
        let (_folder, store) = store();
        store.create("a", DIM).unwrap();
        let report = run(&store, &data(name), true).unwrap();
        assert_eq!((report.appended.rows, report.skipped), (ROWS - 1, 1), "{name}");
        assert_eq!(report.first_skipped.unwrap().row, Some(7));
        let all = rows(0, ROWS, DIM).embeddings.values;
        assert_eq!(values(&store.view("a").unwrap()), [&all[..7 * DIM], &all[8 * DIM..]].concat(), "{name}");
    }
}

#[test]
fn files_of_another_form_are_refused_with_the_reason() {
    let files: [(&str, &[&str]); 4] = [
        ("fortran.npy", &["fortran.npy", "Fortran"]),
        ("one_axis.npy", &["one_axis.npy", "(48,)", "two axes"]),
        ("no_embedding.arrow", &["no_embedding.arrow: embedding", "missing"]),
        ("wrong_title.arrow", &["wrong_title.arrow: title", "Int64"]),
    ];
    for (name, says) in files {
        assert_says(&fails(&data(name)).to_string(), says);
    }
}

#[test]
fn another_dimension_is_refused() {
    let (_folder, store) = store();
    store.create("a", DIM + 1).unwrap();
    let (_scratch, path) = scratch("rows.jsonl", lines());
    for path in [
        &data("plain.arrow"),
        &data("lists.arrow"),
        &data("none.parquet"),
        &data("f4.npy"),
        &data("vectors.fvecs"),
        &path,
    ] {
        let found = violation(run(&store, path, false)).to_string();
        assert_says(&found, &["embedding", "4", "5"]);
    }
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    for name in ["plain.arrow", "zstd.arrow", "stream.arrows", "snappy.parquet", "f4.npy", "vectors.fvecs"] {
        let whole = fs::read(data(name)).unwrap();
        for cut in (0..whole.len()).step_by(whole.len() / 23) {
            let (_scratch, path) = scratch(name, &whole[..cut]);
            let (_folder, store) = store();
            store.create("a", DIM).unwrap();
            match run(&store, &path, false) {
                Err(Error::Invalid(found)) => assert_says(&found.to_string(), &[name]),
                Err(other) => panic!("{name} cut to {cut}: {other:?}"),
                // Streams and vectors may end between two messages or vectors.
                Ok(report) => {
                    assert!(report.appended.rows < ROWS, "{name} cut to {cut}");
                    assert!(
                        name == "stream.arrows" || (name == "vectors.fvecs" && cut % 20 == 0),
                        "{name} cut to {cut}"
                    );
                }
            }
        }
    }
}

#[test]
fn corrupt_files_never_end_the_process() {
    for name in ["plain.arrow", "zstd.arrow", "lz4.arrow", "extra.arrow", "stream.arrows", "snappy.parquet", "f4.npy"] {
        let whole = fs::read(data(name)).unwrap();
        let (_folder, store) = store();
        store.create("a", DIM).unwrap();
        for at in (0..whole.len()).step_by(37) {
            let mut bytes = whole.clone();
            bytes[at] ^= if at % 2 == 0 { 0xff } else { 0x01 };
            let (_scratch, path) = scratch(name, bytes);
            // A flipped title or value is no fault; anything else must be told as one.
            if let Err(error) = run(&store, &path, false) {
                assert!(matches!(error, Error::Invalid(_)), "{name}, byte {at}: {error:?}");
            }
        }
        assert!(store.verify("a").unwrap().is_clean(), "{name}");
    }
}

#[test]
fn compressed_and_misaligned_files_are_not_served_as_they_are() {
    let (_folder, store) = store();
    store.create("a", DIM).unwrap();
    for (name, says) in [("zstd.arrow", "compressed"), ("lists.arrow", "type"), ("batches.arrow", "batches")] {
        match store.adopt("a", &data(name)).unwrap() {
            Adopted::NeedsRewrite(reason) => assert_says(&reason, &[says]),
            Adopted::Done(_) => panic!("{name} was taken as it is"),
        }
    }
    assert_eq!(store.view("a").unwrap().rows(), 0);
    assert_eq!(fs::read_dir(store.root().join("a")).unwrap().count(), 1);
}

/// A file whose batches begin at places that are no multiple of 8.
fn misaligned(file: &[u8]) -> Vec<u8> {
    let end = file.len() - 10;
    let footer = u32::from_le_bytes(file[end..end + 4].try_into().unwrap()) as usize;
    let start = end - footer;
    let place = arrow_ipc::root_as_footer(&file[start..end]).unwrap().recordBatches().unwrap().get(0).offset();
    let mut footer = file[start..].to_vec();
    let at = footer.windows(8).position(|bytes| bytes == place.to_le_bytes()).unwrap();
    footer[at..at + 8].copy_from_slice(&(place + 4).to_le_bytes());
    [&file[..8], &[0; 4], &file[8..start], &footer].concat()
}

#[test]
fn a_misaligned_file_is_rewritten() {
    let (_scratch, path) = scratch("rows.arrow", misaligned(&fs::read(data("plain.arrow")).unwrap()));
    let (_folder, store, report) = imports(&path);
    assert!(!report.as_is);
    let view = store.view("a").unwrap();
    assert_rows(&view, ROWS);
    match store.adopt("a", &path).unwrap() {
        Adopted::NeedsRewrite(reason) => assert_says(&reason, &["misaligned"]),
        Adopted::Done(_) => panic!("it was taken as it is"),
    }
}

#[test]
fn files_that_are_not_there_or_nameless_are_named() {
    assert_says(&fails(Path::new("none.npy")).to_string(), &["path", "none.npy"]);
    let folder = tempfile::tempdir().unwrap();
    assert_says(&fails(folder.path()).to_string(), &["path", "folder"]);
    let (_scratch, path) = scratch("rows.bin", "hello");
    assert_says(&fails(&path).to_string(), &["format", "jsonl"]);
    let (_scratch, path) = scratch("rows.npy", "hello");
    assert_says(&fails(&path).to_string(), &["rows.npy", "no .npy file"]);
    let (_scratch, path) = scratch("rows.fvecs", [0, 0, 0, 0]);
    assert_says(&fails(&path).to_string(), &["rows.fvecs", "row 0", "dimension is 0"]);
}

/// Whatever its name says.
#[test]
fn hdf5_is_refused_with_what_makes_a_matrix_of_it() {
    for name in ["sift.hdf5", "sift.h5", "sift.npy", "sift"] {
        let (_scratch, path) = scratch(name, b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0");
        let script = format!("numpy.save('train.npy', h5py.File('{}')['train'][:])", path.display());
        assert_says(&fails(&path).to_string(), &["HDF5", "python3 -c", &script]);
    }
}

#[test]
fn files_without_rows_are_empty() {
    let empty = |name, bytes: &[u8]| scratch(name, bytes);
    let shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }\n";
    let header = [b"\x93NUMPY\x01\x00", &(shape.len() as u16).to_le_bytes()[..], shape.as_bytes()].concat();
    for (_scratch, path) in [empty("rows.jsonl", b"\n\n"), empty("rows.npy", &header), empty("rows.fvecs", b"")] {
        let (_folder, store) = store();
        store.create("a", DIM).unwrap();
        let report = run(&store, &path, false).unwrap();
        assert_eq!((report.appended.rows, report.appended.generation), (0, 1));
    }
}

#[test]
fn progress_rises_to_the_end() {
    let dim = 512;
    let bytes: Vec<u8> = (0..20_000)
        .flat_map(|row: u32| [&(dim as u32).to_le_bytes()[..], &[0; 4 * 511], &(row as f32).to_le_bytes()].concat())
        .collect();
    let (_scratch, path) = scratch("many.fvecs", &bytes);
    let (_folder, store) = store();
    store.create("a", dim).unwrap();
    let mut seen: Vec<Progress> = Vec::new();
    let file = import::open(&path, None, &ImportOptions::default()).unwrap();
    import::run(&store, "a", file, &mut |progress| seen.push(progress)).unwrap();
    assert!(seen.len() > 3, "{} reports", seen.len());
    assert!(seen.windows(2).all(|pair| pair[0].bytes_read <= pair[1].bytes_read && pair[0].rows <= pair[1].rows));
    let last = seen.last().unwrap();
    assert_eq!((last.bytes_read, last.bytes_total, last.rows), (bytes.len() as u64, bytes.len() as u64, 20_000));
    let view = store.view("a").unwrap();
    assert_eq!(view.rows(), 20_000);
    assert_eq!(view.segments().map(|(_, segment)| segment.data().embeddings()[511]).next(), Some(0.0));
}
