//! `explain`: what a job would be done by, and what is wrong with a question.

use megaring_datasets::Matrix;
use serde_json::{Value, json};

use crate::common::Folder;

fn record(folder: &Folder, args: &[&str]) -> Value {
    let ran = folder.run(&[&["explain", "--json"], args].concat()).succeeded();
    let records = ran.records();
    assert_eq!(records.len(), 1, "{records:?}");
    records[0].clone()
}

#[test]
fn a_job_of_each_operation_is_explained() {
    let folder = Folder::new();
    for (args, operation, shape) in [
        (&["--rows", "5562", "--dim", "384"][..], "search", [5562, 384, 1, 10]),
        (&["--rows", "9", "--dim", "3", "--queries", "4", "--k", "2", "--cold"], "search", [9, 3, 4, 2]),
        (&["--op", "score", "--rows", "9", "--dim", "3"], "score", [9, 3, 1, 0]),
        (&["--op", "nearest", "--rows", "9"], "nearest", [9, 5, 1, 10]),
        (&["--op", "encode", "--bytes", "4000", "--queries", "12"], "encode", [0, 0, 12, 0]),
    ] {
        let found = record(&folder, args);
        assert_eq!((&found["operation"], &found["chosen"]), (&json!(operation), &json!("cpu")));
        assert_eq!(["rows", "dim", "queries", "k"].map(|name| found[name].as_u64().unwrap()), shape, "{args:?}");
        assert_eq!(found["text_bytes"], if operation == "encode" { json!(4000) } else { Value::Null });
        let prospects = found["prospects"].as_array().unwrap();
        let kinds: Vec<&Value> = prospects.iter().map(|prospect| &prospect["backend"]).collect();
        assert_eq!(kinds, ["cpu", "cuda", "wgpu"]);
        let times = &prospects[0]["times"];
        let [alone, wait, upload, total] =
            ["alone_ns", "wait_ns", "upload_ns", "total_ns"].map(|name| times[name].as_u64().unwrap());
        assert!(alone > 0 && (wait, upload, total) == (0, 0, alone), "{times}");
        assert_eq!(times["basis"], "assumed");
        assert!(found["assumed_because"].as_str().unwrap().contains("nothing was measured"));
        for absent in &prospects[1..] {
            assert!(absent["times"].is_null() && absent["not_asked_reason"].as_str().unwrap().contains("off"));
        }
    }
    let forced = record(&folder, &["--rows", "1", "--dim", "1", "--backend", "cuda"]);
    assert!(forced["chosen"].is_null() && forced["reason"].as_str().unwrap().contains("switched off"), "{forced}");
    assert!(!folder.path("megaring-data").exists(), "it changes nothing");
}

#[test]
fn people_get_a_table_and_a_reason() {
    let folder = Folder::new();
    let ran = folder.run(&["explain", "--rows", "5562", "--dim", "384", "--queries", "1"]).succeeded();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let heading: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heading, ["BACKEND", "PREDICTED", "WAITING", "UPLOAD", "TOTAL", "BASIS", "REMARK"]);
    assert!(lines[1].starts_with("cpu") && lines[1].contains("assumed"), "{}", ran.stdout);
    assert!(lines[2].starts_with("cuda") && lines[2].contains("switched off"), "{}", ran.stdout);
    assert!(lines.last().unwrap().starts_with("cpu: no other backend"), "{}", ran.stdout);
    assert!(ran.stderr.contains("nothing was measured yet") && ran.stderr.contains("megaring calibrate"));
}

#[test]
fn a_corpus_stands_for_its_size() {
    let folder = Folder::new();
    folder.write_npy("rows.npy", &Matrix::new(30, 2, vec![1.0; 60]));
    folder.run(&["corpus", "import", "thirty", "rows.npy"]).succeeded();
    for cold in [&[][..], &["--cold"]] {
        let found = record(&folder, &[&["--corpus", "thirty"], cold].concat());
        assert_eq!((&found["rows"], &found["dim"], &found["chosen"]), (&json!(30), &json!(2), &json!("cpu")));
    }
    folder.run(&["explain", "--corpus", "gone"]).failed(1, &["no corpus named \"gone\""]);
    folder.run(&["explain", "--corpus", "thirty", "--op", "nearest"]).failed(1, &["without coordinates"]);
}

#[test]
fn a_wrong_question_names_its_option() {
    let folder = Folder::new();
    let sized = ["--rows", "9", "--dim", "3"];
    for (args, option) in [
        (&["--rows", "0", "--dim", "3"][..], "--rows"),
        (&["--rows", "4294967296", "--dim", "3"], "--rows"),
        (&["--rows", "-1", "--dim", "3"], "-1"),
        (&["--rows", "many", "--dim", "3"], "--rows"),
        (&["--rows", "9", "--dim", "0"], "--dim"),
        (&["--rows", "9", "--dim", "32769"], "--dim"),
        (&["--rows", "9"], "--dim"),
        (&["--dim", "9"], "--rows"),
        (&[], "--rows"),
        (&["--corpus", "c", "--rows", "9"], "--corpus"),
        (&["--op", "nearest", "--rows", "9", "--dim", "6"], "--dim"),
        (&["--op", "encode"], "--bytes"),
        (&["--op", "encode", "--bytes", "0"], "--bytes"),
        (&["--op", "encode", "--bytes", "9", "--rows", "9"], "--rows"),
        (&["--op", "encode", "--bytes", "9", "--corpus", "c"], "--corpus"),
        (&["--op", "dance"], "--op"),
    ] {
        folder.run(&[&["explain"], args].concat()).failed(2, &[option]);
    }
    for (args, option) in [
        (["--queries", "0"], "--queries"),
        (["--k", "0"], "--k"),
        (["--bytes", "9"], "--bytes"),
        (["--backend", "tpu"], "--backend"),
    ] {
        folder.run(&[&["explain"], &sized[..], &args[..]].concat()).failed(2, &[option]);
    }
}
