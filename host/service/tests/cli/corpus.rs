//! `megaring corpus …`: what it stores, what it refuses, and how it says so.

use std::io::{Seek, SeekFrom, Write};

use crate::common::Folder;
use megaring_datasets::{Embeddings, Matrix};

fn line(id: u64, embedding: &str) -> String {
    format!("{{\"memory_id\": {id}, \"title\": \"t{id}\", \"embedding\": {embedding}}}\n")
}

#[test]
fn a_corpus_from_its_making_to_its_end() {
    let folder = Folder::new();
    let created = folder.run(&["corpus", "create", "words", "--dim", "3", "--json"]).succeeded().records();
    assert_eq!(
        (created[0]["name"].as_str(), created[0]["dim"].as_u64(), created[0]["rows"].as_u64()),
        (Some("words"), Some(3), Some(0))
    );
    folder.run(&["corpus", "create", "words", "--dim", "3"]).failed(1, &["\"words\" exists already"]);
    folder.write("a.jsonl", [line(7, "[1, 0, 0]"), line(8, "[0, 1, 0]")].concat());
    let imported = folder.run(&["corpus", "import", "words", "a.jsonl", "--json"]).succeeded().records();
    assert_eq!((imported[0]["rows"].as_u64(), imported[0]["skipped"].as_u64()), (Some(2), Some(0)));
    folder.run(&["corpus", "import", "words", "a.jsonl"]).failed(1, &["\"words\" exists already", "corpus append"]);
    let appended = folder.run(&["corpus", "append", "words", "a.jsonl", "--json"]).succeeded().records();
    assert_eq!((appended[0]["total_rows"].as_u64(), appended[0]["segments"].as_u64()), (Some(4), Some(1)));
    assert!(folder.run(&["corpus", "compact", "words"]).succeeded().stdout.contains("4 rows rewritten, 1 segment now"));
    assert!(folder.run(&["corpus", "compact", "words"]).succeeded().stdout.contains("nothing to merge"));
    folder.run(&["corpus", "compact", "nothing"]).failed(1, &["nothing"]);
    let described = folder.run(&["corpus", "describe", "words", "--json"]).succeeded().records();
    assert_eq!(described[0]["columns"], serde_json::json!(["memory_id", "title", "embedding"]));
    assert_eq!(described[0]["fault"], serde_json::Value::Null);
    assert!(folder.run(&["corpus", "describe", "words"]).succeeded().stdout.contains("4 rows x 3"));
    assert!(folder.run(&["corpus", "list"]).succeeded().stdout.contains("healthy"));
    let verified = folder.run(&["corpus", "verify", "--json"]).succeeded().records();
    assert_eq!((verified[0]["healthy"].as_bool(), verified[0]["rows"].as_u64()), (Some(true), Some(4)));
    assert!(folder.run(&["corpus", "export", "words", "--out", "words.npy"]).succeeded().stdout.contains("4 rows"));
    folder.run(&["corpus", "export", "words", "--out", "words.npy"]).failed(1, &["words.npy", "exists already"]);
    folder.run(&["corpus", "export", "words", "--out", "words.txt"]).failed(1, &["words.txt", "parquet"]);
    folder.run(&["corpus", "snapshot", "words", "kept"]).succeeded();
    assert!(folder.run(&["corpus", "verify", "--data", "kept"]).succeeded().stdout.contains("sound, 4 rows"));
    folder.run(&["corpus", "restore", "kept", "words"]).failed(1, &["\"words\" exists already"]);
    folder.run(&["corpus", "restore", "kept", "nope"]).failed(1, &["\"nope\" in kept"]);
    let restored = folder.run(&["corpus", "restore", "kept", "words", "--as", "again", "--json"]).succeeded().records();
    assert_eq!((restored[0]["name"].as_str(), restored[0]["rows"].as_u64()), (Some("again"), Some(4)));
    folder.run(&["corpus", "drop", "again", "--yes"]).succeeded();
    folder.run(&["corpus", "drop", "words"]).failed(2, &["4 rows", "--yes"]);
    assert_eq!(folder.run(&["corpus", "list", "--json"]).records().len(), 1);
    let dropped = folder.run(&["corpus", "drop", "words", "--yes", "--json"]).succeeded().records();
    assert_eq!(dropped[0]["dropped"], "words");
    assert_eq!(folder.run(&["corpus", "list", "--json"]).succeeded().records().len(), 0);
}

#[test]
fn names_of_nothing_are_told() {
    let folder = Folder::new();
    folder.run(&["corpus", "create", "there", "--dim", "3"]).succeeded();
    folder.write("a.jsonl", line(1, "[1, 2, 3]"));
    for args in [
        &["corpus", "describe", "nope"][..],
        &["corpus", "verify", "nope"],
        &["corpus", "drop", "nope", "--yes"],
        &["corpus", "append", "nope", "a.jsonl"],
    ] {
        folder.run(args).failed(1, &["no corpus named \"nope\""]);
    }
    folder.run(&["corpus", "create", "No Name", "--dim", "3"]).failed(1, &["name"]);
    folder.run(&["corpus", "create", "zero", "--dim", "0"]).failed(1, &["dim"]);
    folder.run(&["corpus", "import", "x", "nowhere.npy"]).failed(1, &["nowhere.npy"]);
    folder.run(&["corpus", "import", "x", "a.jsonl", "--format", "papyrus"]).failed(2, &["papyrus"]);
}

#[test]
fn a_bad_row_of_an_npy_file_is_named_or_skipped() {
    let folder = Folder::new();
    let mut rows = Embeddings { rows: 100, dim: 8, clusters: 4, ..Embeddings::default() }.generate();
    rows.values[41 * 8 + 3] = f32::NAN;
    folder.write_npy("bad.npy", &rows).run(&["corpus", "import", "npy", "bad.npy"]).failed(1, &["bad.npy", "row 41"]);
    assert!(
        folder.run(&["corpus", "list", "--json"]).succeeded().records().is_empty(),
        "a failed import leaves no corpus"
    );
    let ran = folder.run(&["corpus", "import", "npy", "bad.npy", "--skip-invalid", "--json"]).succeeded();
    assert_eq!((ran.records()[0]["rows"].as_u64(), ran.records()[0]["skipped"].as_u64()), (Some(99), Some(1)));
    assert!(ran.stderr.contains("41"), "{}", ran.stderr);
}

#[test]
fn a_bad_row_far_into_the_file_leaves_no_corpus_either() {
    let folder = Folder::new();
    // Well beyond what is read before the corpus is made (8 MiB).
    let mut rows = Matrix::new(3000, 1024, vec![0.5; 3000 * 1024]);
    rows.values[2900 * 1024] = f32::INFINITY;
    folder.write_npy("bad.npy", &rows).run(&["corpus", "import", "far", "bad.npy"]).failed(1, &["row 2900"]);
    assert!(folder.run(&["corpus", "list", "--json"]).succeeded().records().is_empty());
}

#[test]
fn a_bad_line_is_named_or_skipped_and_nothing_is_half_done() {
    let folder = Folder::new();
    let lines = [
        line(1, "[1, 2]"),
        line(2, "[1, 2, 3]"),
        line(3, "[3, 4]"),
        "{\"memory_id\": 4, \"embedding\": [1e999, 1]}\n".into(),
    ];
    folder.write("bad.jsonl", lines.concat());
    folder.run(&["corpus", "create", "kept", "--dim", "2"]).succeeded();
    folder.run(&["corpus", "append", "kept", "bad.jsonl"]).failed(1, &["bad.jsonl", "line 2"]);
    assert_eq!(folder.run(&["corpus", "describe", "kept", "--json"]).records()[0]["rows"], 0);
    let ran = folder.run(&["corpus", "append", "kept", "bad.jsonl", "--skip-invalid", "--json"]).succeeded();
    assert_eq!((ran.records()[0]["rows"].as_u64(), ran.records()[0]["skipped"].as_u64()), (Some(2), Some(2)));
    let second = folder
        .command(&["corpus", "append", "kept", "bad.jsonl"])
        .env("MEGARING_CORPUS_APPEND_SKIP_INVALID", "1")
        .status();
    assert!(second.unwrap().success());
}

#[test]
fn a_data_folder_that_cannot_be_is_one_sentence() {
    let folder = Folder::new();
    folder.write("a-file", "text").write("a.jsonl", line(1, "[1, 2]"));
    for data in ["no/such/parent", "a-file"] {
        for args in
            [&["corpus", "list"][..], &["serve"], &["corpus", "import", "x", "a.jsonl"], &["search", "x", "--row", "0"]]
        {
            let ran = folder.run(&[args, &["--data", data]].concat()).failed(1, &[data]);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert_eq!(ran.stdout, "");
        }
    }
    folder.run(&["corpus", "list"]).failed(1, &["megaring-data"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_data_folder_where_nobody_may_write_is_one_sentence() {
    let folder = Folder::new();
    let ran = folder.run(&["serve", "--data", "/proc/megaring"]).failed(1, &["/proc/megaring"]);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn damage_is_found_and_the_other_corpora_go_on() {
    let folder = Folder::new();
    folder.write_npy("a.npy", &Embeddings { rows: 50, dim: 8, clusters: 4, ..Embeddings::default() }.generate());
    folder.run(&["corpus", "import", "sound", "a.npy"]).succeeded();
    folder.run(&["corpus", "import", "hurt", "a.npy"]).succeeded();
    // Few rows are in the log.
    let segment = folder.path("megaring-data/hurt/manifest.log");
    let mut file = std::fs::File::options().write(true).open(&segment).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[0xa5; 3]).unwrap();
    let ran = folder.run(&["corpus", "verify", "--json"]);
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let healthy: Vec<_> = ran.records().iter().map(|record| record["healthy"].as_bool().unwrap()).collect();
    assert_eq!(healthy, [false, true]);
    assert!(folder.run(&["corpus", "verify", "hurt"]).stdout.contains("manifest.log"));
    folder.run(&["search", "hurt", "--row", "0"]).failed(1, &["hurt", "manifest.log"]);
    folder.run(&["search", "sound", "--row", "0"]).succeeded();
    let doctor = folder.run(&["doctor", "--json"]);
    assert_eq!(doctor.status, Some(1), "{doctor:?}");
    assert!(doctor.records().iter().any(|record| record["check"] == "corpora" && record["state"] == "problem"));
}

#[test]
fn an_import_is_what_the_file_was() {
    let folder = Folder::new();
    let rows = Matrix::new(3, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    folder.write_npy("rows.npy", &rows).run(&["corpus", "import", "three", "rows.npy"]).succeeded();
    let records = folder.run(&["search", "three", "--row", "1", "--metric", "l2", "--json"]).succeeded().records();
    let scores: Vec<_> = records[0]["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| (hit["row"].as_u64().unwrap(), hit["score"].as_f64().unwrap()))
        .collect();
    assert_eq!(scores, [(1, 0.0), (0, 8.0), (2, 8.0)]);
}
