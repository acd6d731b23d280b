//! Rows of bits: imported from the bytes of every format, merged, deleted from, opened again, exported.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt64Array};
use arrow_ipc::writer::FileWriter;
use megaring_core::corpus::CorpusView;
use megaring_core::matrix::Matrix;
use megaring_core::{Element, Error, RowType};
use megaring_corpus::import::{self, Format, ImportOptions, Report};
use megaring_corpus::{Access, Rows, Store};

use crate::common::{assert_says, store, violation};

const ROWS: usize = 9;

/// The bytes of a row.
fn bytes(row: usize, each: usize) -> Vec<u8> {
    (0..each).map(|at| (row * 37 + at * 101 + 3) as u8).collect()
}

fn bytes_of(view: &CorpusView, row: u32) -> Vec<u8> {
    view.embedding(row).iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn npy(each: usize) -> Vec<u8> {
    let shape = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({ROWS}, {each}), }}");
    let header = format!("{shape:117}\n");
    let values = (0..ROWS).flat_map(|row| bytes(row, each));
    [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &values.collect::<Vec<u8>>()].concat()
}

fn arrow(each: usize) -> Vec<u8> {
    let column = FixedSizeBinaryArray::try_from_iter((0..ROWS).map(|row| bytes(row, each))).unwrap();
    let ids = UInt64Array::from_iter_values((0..ROWS as u64).map(|row| 100 + row));
    let columns = [("memory_id", Arc::new(ids) as ArrayRef), ("embedding", Arc::new(column))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn json(each: usize) -> String {
    let line = |row: usize| format!("{{\"embedding\": {:?}}}\n", bytes(row, each));
    (0..ROWS).map(line).collect()
}

fn written(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn options() -> ImportOptions {
    ImportOptions { element: Element::Bit, ..ImportOptions::default() }
}

fn run(store: &Store, path: &Path, options: &ImportOptions) -> Result<Report, Error> {
    let file = import::open(path, None, options)?;
    if store.describe("a").is_err() {
        store.create("a", file.row_type())?;
    }
    import::run(store, "a", file, &mut |_| {})
}

#[test]
fn bytes_of_every_format_become_bits() {
    for each in [1, 3, 4, 12, 33] {
        let files = [
            ("a.npy", npy(each), false),
            ("a.arrow", arrow(each), each % 4 == 0),
            ("a.jsonl", json(each).into_bytes(), false),
        ];
        for (name, content, as_is) in files {
            let (folder, store) = store();
            let report = run(&store, &written(&folder, name, &content), &options()).unwrap();
            assert_eq!((report.appended.rows, report.as_is), (ROWS, as_is), "{name}, {each}: {:?}", report.notes);
            assert_eq!(report.notes.iter().find(|note| note.contains("float32")), None);
            let root = store.root().to_owned();
            drop(store);
            let store = crate::common::open(&root, Access::Exclusive).unwrap();
            let view = store.view("a").unwrap();
            assert_eq!(
                (view.row_type(), store.describe("a").unwrap().row_type.dim),
                (RowType::bits(8 * each), 8 * each)
            );
            for row in 0..ROWS {
                let mut want = bytes(row, each);
                want.resize(each.next_multiple_of(4), 0);
                assert_eq!(bytes_of(&view, row as u32), want, "{name}, {each}, row {row}");
            }
            assert!(store.verify("a").unwrap().is_clean());
        }
    }
}

#[test]
fn what_is_no_byte_is_refused_or_left_out() {
    let (folder, store) = store();
    let lines =
        "{\"embedding\": [1, 2]}\n{\"embedding\": [3, 256]}\n{\"embedding\": [255, 0]}\n{\"embedding\": [0.5, 1]}\n";
    let path = written(&folder, "a.jsonl", lines.as_bytes());
    let found = violation(run(&store, &path, &options()));
    assert_eq!(found.row, Some(1));
    assert_says(&found.to_string(), &["embedding", "256 is no byte of bits", "0 to 255"]);
    let report = run(&store, &path, &ImportOptions { skip_invalid: true, ..options() }).unwrap();
    assert_eq!((report.appended.rows, report.skipped), (2, 2));
    assert_eq!(bytes_of(&store.view("a").unwrap(), 1), [255, 0, 0, 0]);
    let column = written(&folder, "a.arrow", &arrow(4));
    assert_says(
        &violation(import::open(&column, None, &ImportOptions::default())).to_string(),
        &["embedding", "list", "`--bits`"],
    );
    let wrong = ImportOptions { dim: Some(24), ..options() };
    assert_says(&violation(run(&store, &path, &wrong)).to_string(), &["embedding"]);
    let matrix = written(&folder, "a.npy", &npy(2));
    assert_says(&violation(run(&store, &matrix, &wrong)).to_string(), &["2 bytes of bits, wanted is 3"]);
}

#[test]
fn rows_of_another_kind_are_refused() {
    let (_folder, store) = store();
    let found = violation(store.create("a", RowType::bits(12)));
    assert_eq!((found.field.as_str(), found.description.contains("multiple of 8")), ("dim", true));
    store.create("a", RowType::bits(64)).unwrap();
    store.create("b", 2).unwrap();
    let matrix = Matrix { rows: 1, dim: 2, values: vec![1.0, 2.0] };
    for (name, element) in [("a", Element::Float32), ("b", Element::Bit)] {
        let mut appender = store.append(name).unwrap();
        let found = violation(appender.push(Rows { embeddings: matrix.clone(), element, ..Rows::default() }));
        assert_eq!(found.field, "embedding");
        assert_says(&found.to_string(), &["bits", "float32"]);
    }
}

#[test]
fn bits_beyond_the_last_are_refused() {
    let (folder, store) = store();
    store.create("a", RowType::bits(40)).unwrap();
    let row = |last: u32| [0.0, f32::from_bits(last)];
    let push = |rows: &[[f32; 2]]| {
        let embeddings = Matrix { rows: rows.len(), dim: 2, values: rows.concat() };
        store.append("a").unwrap().push(Rows { embeddings, element: Element::Bit, ..Rows::default() })
    };
    push(&[row(0xff), row(0)]).unwrap();
    let found = violation(push(&[row(0xff), row(0x100)]));
    assert_eq!((found.field.as_str(), found.row), ("embedding", Some(1)));
    assert_says(&found.to_string(), &["beyond its 40"]);
    // A file of whole words has the form of a segment.
    let found = violation(store.adopt("a", &written(&folder, "a.arrow", &arrow(8))));
    assert_says(&found.to_string(), &["embedding", "beyond its 40"]);
}

#[test]
fn merged_deleted_and_exported_bits_stay_what_they_are() {
    for each in [5, 8] {
        let (folder, store) = store();
        let path = written(&folder, "a.arrow", &arrow(each));
        run(&store, &path, &options()).unwrap();
        // The second comes through the log, or not.
        for first in 0..3_u64 {
            let mut appender = store.append("a").unwrap();
            let (rows, dim) = (2, RowType::bits(8 * each).width());
            let values = (0..2 * dim as u32).map(|at| f32::from_bits(at + first as u32)).collect();
            let memory_ids = vec![first, 50 + first];
            let embeddings = Matrix { rows, dim, values };
            appender.push(Rows { memory_ids, embeddings, element: Element::Bit, ..Rows::default() }).unwrap();
            appender.commit().unwrap();
        }
        store.delete("a", &[104, 1]).unwrap();
        let before: Vec<(u64, Vec<u8>)> = all(&store.view("a").unwrap());
        store.compact("a").unwrap();
        let view = store.view("a").unwrap();
        assert_eq!((view.rows(), all(&view)), (ROWS + 4, before.clone()));
        for (name, format) in
            [("out.npy", Format::Npy), ("out.arrow", Format::ArrowFile), ("out.parquet", Format::Parquet)]
        {
            let out = folder.path().join(name);
            assert_eq!(store.export("a", &out, format).unwrap(), ROWS + 4);
            let (_other, other) = crate::common::store();
            // Into a corpus of as many bits, which is also what a file makes.
            let dim = (format == Format::Npy).then_some(8 * each);
            let report = run(&other, &out, &ImportOptions { dim, ..options() }).unwrap();
            assert_eq!(other.describe("a").unwrap().row_type, RowType::bits(8 * each), "{name}");
            assert_eq!(report.appended.rows, ROWS + 4);
            let again = all(&other.view("a").unwrap());
            let bits =
                |rows: &[(u64, Vec<u8>)]| rows.iter().map(|(_, bytes)| bytes[..each].to_vec()).collect::<Vec<_>>();
            assert_eq!(bits(&again), bits(&before), "{name}");
        }
        let refused = violation(store.export("a", &folder.path().join("out.fvecs"), Format::Fvecs));
        assert_says(&refused.to_string(), &["format", "fvecs", "bits", "npy"]);
    }
}

fn all(view: &CorpusView) -> Vec<(u64, Vec<u8>)> {
    let row = |row: usize| (view.label(row as u32).0, bytes_of(view, row as u32));
    view.visible_runs(0..view.rows()).flatten().map(row).collect()
}
