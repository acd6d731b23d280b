//! `benches/peers` without its peers: its own tests, megaring's side of it, and all of it on tiny data beside the
//! aho-corasick crate.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const PEER: &str = env!("CARGO_BIN_EXE_megaring-peer");

/// Runs the script, where there is a Python to run it.
fn peers(arguments: &[&str]) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let usable = |python: &&str| {
        let check = "import os, sys; sys.exit(os.name != 'posix' or sys.version_info < (3, 8))";
        Command::new(python).args(["-c", check]).output().is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(|python| usable(python)) else {
        // Past the capture of tests that pass: it is to be counted.
        _ = writeln!(std::io::stdout(), "\nskipped: benches/peers needs Linux or macOS and Python 3.8 or newer");
        return None;
    };
    Some(Command::new(python).arg(script).args(arguments).output().expect("Python starts"))
}

fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned()).concat()
}

/// What megaring-peer answers to these lines, given a folder of its own.
fn answers(folder: &Path, lines: &[Value]) -> Vec<Value> {
    let mut child = Command::new(PEER)
        .arg("--folder")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("megaring-peer starts");
    let mut input = child.stdin.take().expect("it is piped");
    for line in lines {
        writeln!(input, "{line}").expect("it reads");
    }
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let told = String::from_utf8(output.stdout).expect("it writes text");
    told.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn the_script_passes_its_own_tests() {
    let Some(output) = peers(&["--self-test"]) else { return };
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn with_no_peer_but_the_crate_there_is_something_to_tell() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    let arguments = ["--program", PEER, "--folder", &place, "--tiny", "--left-out", "numpy=no wheel"];
    let Some(output) = peers(&arguments) else { return };
    assert!(output.status.success(), "{}", told(&output));
    let lines = std::fs::read_to_string(folder.path().join("peers.jsonl")).expect("it was written");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert!(lines.len() == 2 && lines[0]["left_out"] == "no wheel", "{lines:?}");
    let measured = &lines[1];
    assert!(measured["peer"] == "aho-corasick" && measured["same_ids"] == true, "{measured}");
    let number = |key: &str| measured[key].as_f64().expect("a number");
    let ratio = number("peer_us") / number("ours_us");
    assert!((number("ratio") - ratio).abs() < 0.01 * ratio, "{measured}");
    assert!(!folder.path().join("running").exists(), "the data is removed");
}

#[test]
fn rows_and_queries_are_made_stored_and_searched() {
    let folder = tempfile::tempdir().expect("a folder");
    let (rows, queries) = (folder.path().join("rows.npy"), folder.path().join("queries.npy"));
    for (kind, rows_wanted) in [("generated", 300), ("real", 2_100), ("real", 100)] {
        let told = answers(
            folder.path(),
            &[
                json!({"do": "make", "kind": kind, "rows": rows_wanted, "dim": 384, "queries": 40, "seed": 1, "folder": folder.path()}),
                json!({"do": "load", "rows": rows, "queries": queries}),
                json!({"do": "search", "firsts": [0, 20], "count": 20, "k": 3, "metric": "cosine", "ids": true}),
                json!({"do": "scores", "pairs": [[0, 0], [39, rows_wanted - 1]]}),
            ],
        );
        assert!(told[1]["rows"] == rows_wanted && told[2]["us"].as_array().is_some_and(|us| us.len() == 2), "{told:?}");
        let rows = megaring_datasets::npy::read(&std::fs::read(&rows).expect("it was written")).expect("it is .npy");
        let queries =
            megaring_datasets::npy::read(&std::fs::read(&queries).expect("so were they")).expect("it is .npy");
        for matrix in [&rows, &queries] {
            let mut norms = matrix.iter_rows().map(|row| row.iter().map(|value| value * value).sum::<f32>());
            assert!(norms.all(|norm| (norm - 1.0).abs() < 1e-5), "{kind}: of length 1");
        }
        let best = |query: usize| {
            let scores =
                rows.iter_rows().map(|row| row.iter().zip(queries.row(query)).map(|(a, b)| a * b).sum::<f32>());
            scores.fold(f32::MIN, f32::max)
        };
        for query in 0..40 {
            let row = told[2]["ids"][query / 20][query % 20][0].as_u64().expect("a row") as usize;
            let score: f32 = rows.row(row).iter().zip(queries.row(query)).map(|(a, b)| a * b).sum();
            assert!(best(query) - score < 1e-5, "{kind}, query {query}: row {row} with {score}");
        }
        assert!(told[3]["scores"].as_array().is_some_and(|scores| scores.len() == 2), "{told:?}");
    }
}

#[test]
fn both_ways_to_find_words_are_of_one_mind() {
    let folder = tempfile::tempdir().expect("a folder");
    let masks = |by: &str| json!({"do": "masks", "by": by, "sets": [0, 1], "out": folder.path().join(by)});
    let memories = json!({"do": "memories", "sets": 2, "count": 700, "folder": folder.path()});
    let told = answers(folder.path(), &[memories, masks("megaring"), masks("aho-corasick")]);
    assert!(told[0]["words"] == 123 && told[2]["us"].as_array().is_some_and(|us| us.len() == 2), "{told:?}");
    let read = |by: &str| std::fs::read(folder.path().join(by)).expect("it was written");
    let (ours, theirs) = (read("megaring"), read("aho-corasick"));
    assert!(ours == theirs && ours.len() == 700 * 16 && ours.iter().any(|byte| *byte != 0));
}

#[test]
fn what_cannot_be_done_is_told_and_the_next_line_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("no such file");
    let search = |count: usize| json!({"do": "search", "firsts": [0], "count": count, "k": 3, "metric": "cosine"});
    let make = json!({"do": "make", "kind": "generated", "rows": 50, "dim": 384, "queries": 5, "seed": 1, "folder": folder.path()});
    let load = |rows: &Path| json!({"do": "load", "rows": rows, "queries": folder.path().join("queries.npy")});
    let told = answers(
        folder.path(),
        &[
            json!({"do": "sing"}),
            search(1),
            load(&missing),
            make,
            load(&folder.path().join("rows.npy")),
            search(6),
            json!({"do": "scores", "pairs": [[0, 50]]}),
            json!({"do": "masks", "by": "megaring", "sets": [0]}),
            search(5),
        ],
    );
    let wrong: Vec<usize> = (0..told.len()).filter(|&at| told[at]["error"].is_string()).collect();
    assert_eq!(wrong, [0, 1, 2, 5, 6, 7], "{told:?}");
}
