//! Rows of bits on the command line, and rows cut to their first elements.

use megaring_datasets::Matrix;
use megaring_datasets::reference::{self, Metric};
use serde_json::{Value, json};

use crate::common::{Folder, Ran};

const ROWS: usize = 50;
const BYTES: usize = 9;

fn bytes(row: usize) -> Vec<u8> {
    (0..BYTES).map(|at| ((row % 41) * 67 + at * at * 13) as u8).collect()
}

fn words(rows: impl Iterator<Item = usize>) -> Matrix {
    let word = |four: &[u8]| f32::from_bits(four.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    let values: Vec<f32> = rows.flat_map(|row| bytes(row).chunks(4).map(word).collect::<Vec<f32>>()).collect();
    let width = BYTES.div_ceil(4);
    Matrix::new(values.len() / width, width, values)
}

/// A matrix of bytes, as `numpy.packbits` makes it.
fn npy(rows: impl ExactSizeIterator<Item = usize>) -> Vec<u8> {
    let shape = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, {BYTES}), }}", rows.len());
    let header = format!("{shape:117}\n");
    [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &rows.flat_map(bytes).collect::<Vec<u8>>()].concat()
}

/// Rows and scores of each query.
fn hits(ran: &Ran) -> Vec<Vec<(u32, f32)>> {
    let hit = |hit: &Value| (hit["row"].as_u64().unwrap() as u32, hit["score"].as_f64().unwrap() as f32);
    let records = ran.records();
    records.iter().filter_map(|record| record["hits"].as_array()).map(|hits| hits.iter().map(hit).collect()).collect()
}

fn expected(metric: Metric, queries: &Matrix, rows: &Matrix, k: usize) -> Vec<Vec<(u32, f32)>> {
    let found = reference::search(metric, &queries.values, &rows.values, rows.dim, k, None);
    found.iter().map(|hits| hits.iter().map(|hit| (hit.row, hit.reported())).collect()).collect()
}

fn imported() -> Folder {
    let folder = Folder::new();
    folder.write("rows.npy", npy(0..ROWS)).write("queries.npy", npy(3..9));
    let told = folder.run(&["corpus", "import", "a", "rows.npy", "--bits"]).succeeded();
    assert!(told.stdout.contains("50 x 72 bits in all"), "{}", told.stdout);
    assert!(!told.stderr.contains("float32"), "{}", told.stderr);
    folder
}

#[test]
fn bits_are_imported_searched_joined_and_described() {
    let folder = imported();
    let (rows, queries) = (words(0..ROWS), words(3..9));
    let of_file = ["search", "a", "--query-file", "queries.npy", "--k", "6", "--json"];
    assert_eq!(hits(&folder.run(&of_file).succeeded()), expected(Metric::Hamming, &queries, &rows, 6));
    let jaccard = folder.run(&[&of_file[..], &["--metric", "jaccard"]].concat()).succeeded();
    assert_eq!(hits(&jaccard), expected(Metric::Jaccard, &queries, &rows, 6));
    let by_row = folder.run(&["search", "a", "--row", "4", "--k", "50", "--json"]).succeeded();
    assert_eq!(hits(&by_row), expected(Metric::Hamming, &words(4..5), &rows, 50));
    // Rows 41 and on are the first ones again.
    let pairs = folder.run(&["join", "a", "--metric", "jaccard", "--threshold", "1", "--json"]).succeeded().records();
    let twice: Vec<Value> = pairs.iter().map(|pair| json!([pair["row"], pair["neighbour"]])).collect();
    assert_eq!(twice, (0..9).map(|row| json!([row, row + 41])).collect::<Vec<_>>());
    let described = folder.run(&["corpus", "describe", "a", "--json"]).succeeded().records();
    assert_eq!((&described[0]["dim"], &described[0]["dtype"]), (&json!(72), &json!("bit")));
    assert!(folder.run(&["corpus", "list"]).succeeded().stdout.contains("72 bits"));
    folder.run(&["corpus", "create", "b", "--dim", "72", "--bits"]).succeeded();
    folder.run(&["corpus", "append", "b", "rows.npy"]).succeeded();
    assert_eq!(hits(&folder.run(&["search", "b", "--row", "4", "--k", "50", "--json"]).succeeded()), hits(&by_row));
    folder.run(&["corpus", "export", "a", "--out", "again.npy"]).succeeded();
    assert!(
        std::fs::read(folder.path("again.npy")).unwrap().ends_with(&(0..ROWS).flat_map(bytes).collect::<Vec<u8>>())
    );
}

#[test]
fn what_does_not_fit_bits_is_told() {
    let folder = imported();
    folder.write("floats.jsonl", "{\"embedding\": [0.5, 1, 1, 1, 1, 1, 1, 1, 1]}\n");
    folder.run(&["search", "a", "--row", "1", "--metric", "cosine"]).failed(1, &["metric", "bits", "hamming, jaccard"]);
    folder.run(&["corpus", "append", "a", "floats.jsonl"]).failed(1, &["0.5 is no byte of bits"]);
    folder.run(&["corpus", "create", "b", "--dim", "12", "--bits"]).failed(1, &["multiple of 8"]);
    folder.run(&["corpus", "import", "c", "floats.jsonl"]).succeeded();
    folder
        .run(&["search", "c", "--row", "0", "--metric", "hamming"])
        .failed(1, &["metric", "float32", "cosine, dot, l2"]);
    folder.run(&["join", "a", "c", "--k", "1"]).failed(1, &["72 bits", "9 elements"]);
}

#[test]
fn rows_may_be_cut_to_their_first_elements() {
    let folder = Folder::new();
    let rows = megaring_datasets::Embeddings { rows: 80, dim: 12, clusters: 5, ..Default::default() }.generate();
    let cut = |dim: usize| {
        let values = rows.values.chunks_exact(12).flat_map(|row| &row[..dim]).copied().collect();
        Matrix::new(80, dim, values)
    };
    folder.write_npy("rows.npy", &rows).run(&["corpus", "import", "a", "rows.npy"]).succeeded();
    for dim in [1, 5, 12] {
        let (few, text) = (cut(dim), dim.to_string());
        folder.write_npy("queries.npy", &few.head(7));
        let search = ["search", "a", "--query-file", "queries.npy", "--prefix-dim", &text, "--json"];
        assert_eq!(hits(&folder.run(&search).succeeded()), expected(Metric::Cosine, &few.head(7), &few, 10));
        let search = ["search", "a", "--row", "5", "--prefix-dim", &text, "--metric", "l2", "--json"];
        let query = Matrix::new(1, dim, few.row(5).to_vec());
        assert_eq!(hits(&folder.run(&search).succeeded()), expected(Metric::L2, &query, &few, 10));
    }
    let few = cut(5);
    let found = folder.run(&["join", "a", "--k", "1", "--prefix-dim", "5", "--json"]).succeeded().records();
    let all = expected(Metric::Cosine, &few, &few, 2);
    let nearest = all.iter().enumerate().map(|(row, hits)| hits.iter().find(|hit| hit.0 != row as u32).unwrap().0);
    let pairs = found.iter().filter(|pair| pair["row"].is_u64()).map(|pair| pair["neighbour"].as_u64().unwrap() as u32);
    assert_eq!(pairs.collect::<Vec<_>>(), nearest.collect::<Vec<_>>());
    for wrong in ["13", "0", "-1"] {
        folder
            .run(&["search", "a", "--row", "1", "--prefix-dim", wrong])
            .failed(if wrong == "13" { 1 } else { 2 }, &["prefix"]);
    }
}
