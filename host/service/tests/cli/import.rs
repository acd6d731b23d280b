//! `corpus import`, `corpus append` and query files: what they read from, which columns they take, and what they say.

use megaring_datasets::{Matrix, npy};
use serde_json::Value;

use crate::common::{Folder, Ran};

fn matrix() -> Matrix {
    Matrix::new(3, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
}

const LINES: &str = "{\"embedding\": [1, 2]}\n{\"embedding\": [3, 4]}\n{\"embedding\": [5, 6]}\n";

fn fvecs() -> Vec<u8> {
    let row = |row: &[f32]| [&2_u32.to_le_bytes()[..], &row[0].to_le_bytes(), &row[1].to_le_bytes()].concat();
    matrix().values.chunks(2).flat_map(row).collect()
}

/// The best row of each query.
fn best(ran: &Ran) -> Vec<u64> {
    let hits = ran.records().into_iter().filter_map(|record| record["hits"][0]["row"].as_u64());
    hits.collect()
}

#[test]
fn standard_input_is_read_where_a_file_is() {
    let folder = Folder::new();
    let inputs = [
        ("lines", &[][..], LINES.as_bytes().to_vec()),
        ("array", &[], npy::write(&matrix())),
        ("vectors", &["--format", "fvecs"], fvecs()),
    ];
    for (name, format, input) in &inputs {
        let import = [&["corpus", "import", name, "-", "--json"], *format].concat();
        let ran = folder.run_with_input(&import, input).succeeded();
        assert_eq!((ran.records()[0]["rows"].as_u64(), ran.records()[0]["dim"].as_u64()), (Some(3), Some(2)), "{name}");
        let append = [&["corpus", "append", name, "-", "--json"], *format].concat();
        let ran = folder.run_with_input(&append, input).succeeded();
        assert_eq!(ran.records()[0]["total_rows"], 6, "{name}");
        let search = [&["search", name, "--query-file", "-", "--metric", "l2", "--k", "1", "--json"], *format].concat();
        assert_eq!(best(&folder.run_with_input(&search, input).succeeded()), [0, 1, 2], "{name}");
    }
    folder
        .run_with_input(&["corpus", "import", "x", "-"], &fvecs())
        .failed(1, &["standard input does not tell its format", "fvecs"]);
    folder.run_with_input(&["corpus", "import", "x", "-"], b"{}").failed(1, &["standard input line 1: embedding"]);
    let nearest = ["nearest", "--points", "-", "--query", "0,0,0,0,0", "--json"];
    let ran = folder.run_with_input(&nearest, b"[9,9,9,9,9]\n[1,1,1,1,1]\n").succeeded();
    assert_eq!(ran.records()[0]["neighbours"][0]["row"], 1);
}

#[test]
fn columns_of_other_names_are_taken_by_option_by_variable_and_by_the_file() {
    let folder = Folder::new();
    let line =
        |key: u32| format!("{{\"vec\": [{key}, 1], \"key\": {key}, \"zone\": \"UTC\", \"importance\": \"high\"}}\n");
    folder.write("rows.jsonl", [line(7), line(8)].concat());
    folder.run(&["corpus", "import", "a", "rows.jsonl"]).failed(1, &["line 1: zone", "UTC", "--ignore-column zone"]);
    let taking = ["--column", "embedding=vec", "--column", "memory_id=key"];
    let leaving = ["--ignore-column", "zone", "--ignore-column", "importance"];
    let import = [&["corpus", "import", "a", "rows.jsonl"][..], &taking, &leaving].concat();
    folder.run(&import).succeeded();
    let append = folder
        .command(&["corpus", "append", "a", "rows.jsonl"])
        .env("MEGARING_CORPUS_APPEND_COLUMN", "embedding=vec,memory_id=key")
        .env("MEGARING_CORPUS_APPEND_IGNORE_COLUMN", "zone,importance")
        .output();
    Ran::of(append.unwrap()).succeeded();
    folder.write(
        "megaring.toml",
        "[corpus.append]\ncolumn = \"embedding=vec,memory_id=key\"\nignore_column = \"zone,importance\"",
    );
    folder.run(&["corpus", "append", "a", "rows.jsonl"]).succeeded();
    // Queries need the vectors alone.
    let search = ["search", "a", "--query-file", "rows.jsonl", "--column", "embedding=vec", "--metric", "l2", "--json"];
    let ran = folder.run(&search).succeeded();
    let ids = |record: &Value| (0..3).map(|hit| record["hits"][hit]["memory_id"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((ids(&ran.records()[0]), ids(&ran.records()[1])), (vec![7; 3], vec![8; 3]));
    folder.run(&["corpus", "import", "b", "rows.jsonl", "--column", "vec"]).failed(2, &["NAME=COLUMN"]);
    folder
        .run(&["corpus", "import", "b", "rows.jsonl", "--column", "vec=embedding"])
        .failed(2, &["\"vec\" is no column"]);
    let twice = ["corpus", "import", "b", "rows.jsonl", "--column", "embedding=a", "--column", "embedding=b"];
    folder.run(&twice).failed(1, &["embedding=a is given already"]);
    folder.run(&["search", "a", "--query-file", "rows.jsonl", "--column", "title=t"]).failed(1, &["only embedding"]);
}

#[test]
fn a_file_without_usable_rows_is_named_and_leaves_no_corpus() {
    let folder = Folder::new();
    folder.write("none.jsonl", "").write("bad.jsonl", "{\"embedding\": []}\n".repeat(3));
    folder.write("array.json", "[{\"embedding\": [1, 2]}]");
    let import = |file, more: &[&str]| folder.run(&[&["corpus", "import", "x", file], more].concat());
    import("none.jsonl", &[]).failed(1, &["none.jsonl", "no rows"]);
    import("bad.jsonl", &["--skip-invalid"]).failed(1, &["bad.jsonl", "all 3 rows are bad", "line 1"]);
    import("array.json", &[]).failed(1, &["array.json", "JSON array", "jq"]);
    folder.run(&["encode", "array.json"]).failed(1, &["array.json", "JSON array", "jq"]);
    assert!(folder.run(&["corpus", "list", "--json"]).succeeded().records().is_empty());
    folder.run(&["corpus", "create", "x", "--dim", "2"]).succeeded();
    let ran = folder.run(&["corpus", "append", "x", "bad.jsonl", "--skip-invalid", "--json"]).succeeded();
    assert_eq!((ran.records()[0]["rows"].as_u64(), ran.records()[0]["skipped"].as_u64()), (Some(0), Some(3)));
}

#[test]
fn every_command_has_the_same_words_for_a_file_that_is_not_there() {
    let folder = Folder::new();
    folder.run(&["corpus", "create", "a", "--dim", "2"]).succeeded();
    for (args, status) in [
        (&["corpus", "import", "b", "nowhere"][..], 1),
        (&["corpus", "append", "a", "nowhere"], 1),
        (&["search", "a", "--query-file", "nowhere"], 1),
        (&["encode", "nowhere"], 1),
        (&["nearest", "--points", "nowhere", "--query", "0,0,0,0,0"], 1),
        (&["checksum", "nowhere"], 1),
        (&["encode", "-", "--profile", "nowhere"], 1),
        (&["corpus", "list", "--config", "nowhere"], 2),
    ] {
        folder.run(args).failed(status, &["nowhere does not exist"]);
    }
    folder.run(&["corpus", "list", "--data", "nowhere"]).failed(1, &["nowhere does not exist"]);
}

/// What keeps a folder from being looked at is told; it is not taken for one that is not there.
#[cfg(unix)]
#[test]
fn a_data_folder_that_cannot_be_reached_is_not_said_to_be_missing() {
    let folder = Folder::new();
    std::os::unix::fs::symlink("loop", folder.path("loop")).unwrap();
    folder.write("a-file", "");
    for (data, why) in [("loop", "symbolic links"), ("a-file/data", "Not a directory")] {
        let ran = folder.run(&["search", "a", "--row", "0", "--data", data]).failed(1, &[data, why]);
        assert!(!ran.stderr.contains("does not exist"), "{}", ran.stderr);
        let doctor = folder.run(&["doctor", "--json", "--data", data]);
        let found = doctor.records().into_iter().find(|record| record["check"] == "data folder").unwrap();
        assert_eq!(found["state"], "problem", "{found}");
        assert!(found.to_string().contains(why), "{found}");
    }
}
