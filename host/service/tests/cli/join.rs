//! `join` on the command line, against all scores of the naive reference.

use megaring_core::exact::reported;
use megaring_corpus::import::{self, ImportOptions};
use megaring_datasets::reference::{self, Metric};
use megaring_datasets::{Embeddings, Matrix};
use serde_json::Value;

use crate::common::{Folder, Ran};

fn rows(count: usize, seed: u64) -> Matrix {
    Embeddings { rows: count, dim: 12, clusters: 9, exact_duplicates: 0.1, seed, ..Embeddings::default() }.generate()
}

fn folder(a: &Matrix, b: &Matrix) -> Folder {
    let folder = Folder::new();
    folder.write_npy("a.npy", a).run(&["corpus", "import", "a", "a.npy"]).succeeded();
    folder.write_npy("b.npy", b).run(&["corpus", "import", "b", "b.npy"]).succeeded();
    folder
}

type Pair = (u32, u32, u32);

/// Row, neighbour and the bits of the score.
fn pairs(ran: &Ran) -> Vec<Pair> {
    let number = |record: &Value, field: &str| record[field].as_u64().unwrap() as u32;
    let score = |record: &Value| (record["score"].as_f64().unwrap() as f32).to_bits();
    ran.records().iter().map(|pair| (number(pair, "row"), number(pair, "neighbour"), score(pair))).collect()
}

/// All rows of `b` for each of `a`, best first.
fn all(metric: Metric, a: &Matrix, b: &Matrix, threshold: Option<f64>) -> Vec<Vec<(u32, f32)>> {
    let answers = reference::search(metric, &a.values, &b.values, a.dim, b.rows, threshold);
    answers.iter().map(|hits| hits.iter().map(|hit| (hit.row, reported(hit.score))).collect()).collect()
}

#[test]
fn every_row_gets_its_neighbours_but_not_itself() {
    let (a, b) = (rows(300, 1), rows(70, 2));
    let folder = folder(&a, &b);
    for (name, metric) in [("cosine", Metric::Cosine), ("dot", Metric::Dot), ("l2", Metric::L2)] {
        for (k, others) in [(1, vec![]), (7, vec![]), (7, vec!["b"]), (400, vec![]), (400, vec!["b"])] {
            let k_text = k.to_string();
            let mut line = vec!["join", "a"];
            line.extend(&others);
            line.extend(["--k", &k_text, "--metric", name, "--json"]);
            let found = pairs(&folder.run(&line).succeeded());
            let searched = if others.is_empty() { &a } else { &b };
            let want = all(metric, &a, searched, None).into_iter().enumerate().flat_map(|(row, hits)| {
                let own = others.is_empty().then_some(row as u32);
                let hits = hits.into_iter().filter(move |hit| Some(hit.0) != own).take(k);
                hits.map(move |(near, score)| (row as u32, near, score.to_bits())).collect::<Vec<_>>()
            });
            assert_eq!(found, want.collect::<Vec<_>>(), "{name} {k} {others:?}");
        }
    }
}

#[test]
fn people_see_a_pair_a_line() {
    let folder = folder(&rows(40, 1), &rows(3, 2));
    let told = folder.run(&["join", "b", "a", "--k", "2"]).succeeded().stdout;
    let pairs = pairs(&folder.run(&["join", "b", "a", "--k", "2", "--json"]).succeeded());
    let line = |(row, near, score): &Pair| format!("{row}  {near}  {:.6}\n", f32::from_bits(*score));
    assert_eq!(told, pairs.iter().map(line).collect::<String>());
}

#[test]
fn all_pairs_better_than_a_score_are_told_once() {
    // More duplicates of one row than are asked for first.
    let mut a = rows(400, 3);
    let copy = a.values[..a.dim].to_vec();
    (100..190).for_each(|row| a.values[row * 12..(row + 1) * 12].copy_from_slice(&copy));
    let folder = folder(&a, &a);
    for (name, metric, threshold) in
        [("cosine", Metric::Cosine, 1.0), ("cosine", Metric::Cosine, 0.9), ("l2", Metric::L2, 0.0)]
    {
        let text = threshold.to_string();
        let line = ["join", "a", "--metric", name, "--threshold", &text, "--json"];
        let mut found = pairs(&folder.run(&line).succeeded());
        let want = all(metric, &a, &a, Some(threshold)).into_iter().enumerate().flat_map(|(row, hits)| {
            let later = hits.into_iter().filter(move |hit| hit.0 as usize > row);
            later.map(move |(near, score)| (row as u32, near, score.to_bits()))
        });
        let mut want: Vec<Pair> = want.collect();
        assert!(want.len() > 90 * 91 / 2, "{}", want.len());
        found.sort_unstable();
        want.sort_unstable();
        assert_eq!(found, want, "{name} {threshold}");
        // Of two corpora, every pair.
        let both =
            pairs(&folder.run(&["join", "a", "b", "--metric", name, "--threshold", &text, "--json"]).succeeded());
        assert_eq!(both.len(), 2 * want.len() + 400);
    }
}

#[test]
fn groups_are_what_pairs_connect() {
    let mut a = rows(60, 4);
    // 3 is 7's duplicate and 7 is 50's; 11 and 12 are another pair.
    for (from, to) in [(3, 7), (3, 50), (11, 12)] {
        let row = a.values[from * 12..(from + 1) * 12].to_vec();
        a.values[to * 12..(to + 1) * 12].copy_from_slice(&row);
    }
    let folder = folder(&a, &a);
    let ran = folder.run(&["join", "a", "--threshold", "1", "--groups", "--json"]).succeeded();
    let groups: Vec<Vec<u64>> = ran
        .records()
        .iter()
        .map(|group| group["rows"].as_array().unwrap().iter().map(|row| row.as_u64().unwrap()).collect())
        .collect();
    assert!(groups.contains(&vec![3, 7, 50]) && groups.contains(&vec![11, 12]), "{groups:?}");
    assert!(groups.iter().all(|group| group.len() > 1 && group.is_sorted()));
    folder.run(&["join", "a", "--groups"]).failed(2, &["--threshold"]);
    folder.run(&["join", "a", "b", "--threshold", "1", "--groups"]).failed(2, &["one corpus"]);
}

#[test]
fn pairs_go_into_files() {
    let (a, b) = (rows(50, 5), rows(20, 6));
    let folder = folder(&a, &b);
    let told = pairs(&folder.run(&["join", "a", "--k", "3", "--json"]).succeeded());
    for file in ["graph.parquet", "graph.arrow", "graph.npy"] {
        let ran = folder.run(&["join", "a", "--k", "3", "--out", file, "--json"]).succeeded();
        assert_eq!(ran.records()[0]["pairs"].as_u64(), Some(150));
        folder.run(&["join", "a", "--k", "3", "--out", file]).failed(1, &[file, "exists already"]);
    }
    let npy = std::fs::read(folder.path("graph.npy")).unwrap();
    assert!(String::from_utf8_lossy(&npy[..128]).contains("'descr': '<u4', 'fortran_order': False, 'shape': (150, 2)"));
    let numbers: Vec<u32> = npy[128..].as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    assert_eq!(numbers, told.iter().flat_map(|pair| [pair.0, pair.1]).collect::<Vec<_>>());
    // They have no embeddings, so that an import says which columns there are.
    let refused = import::open(&folder.path("graph.parquet"), None, &ImportOptions::default()).err().unwrap();
    assert!(refused.to_string().contains("embedding"), "{refused}");
    folder.run(&["join", "a", "--out", "graph.txt"]).failed(1, &["graph.txt"]);
    folder.run(&["join", "a", "--out", "graph.fvecs"]).failed(1, &["fvecs"]);
    folder.run(&["join", "none"]).failed(1, &["none"]);
    let wide = Embeddings { rows: 5, dim: 13, ..Embeddings::default() }.generate();
    folder.write_npy("wide.npy", &wide).run(&["corpus", "import", "wide", "wide.npy"]).succeeded();
    folder.run(&["join", "a", "wide"]).failed(1, &["12 elements", "13"]);
}
