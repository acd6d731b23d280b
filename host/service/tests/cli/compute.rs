//! `search`, `encode` and `nearest` on the command line, against the naive reference.

use megaring_datasets::reference::{self, DEFAULT_WEIGHTS, Metric};
use megaring_datasets::{Embeddings, Matrix, golden, points, queries, sample};
use serde_json::Value;

use crate::common::{Folder, Ran};

fn imported(rows: &Matrix) -> Folder {
    let folder = Folder::new();
    folder.write_npy("rows.npy", rows).run(&["corpus", "import", "rows", "rows.npy"]).succeeded();
    folder
}

/// Rows and float32 score bits of each query.
fn hits(ran: &Ran) -> Vec<Vec<(u32, u32)>> {
    let hit = |hit: &Value| (hit["row"].as_u64().unwrap() as u32, (hit["score"].as_f64().unwrap() as f32).to_bits());
    let records = ran.records();
    let queries = records.iter().filter_map(|record| record["hits"].as_array());
    queries.map(|hits| hits.iter().map(hit).collect()).collect()
}

fn expected(metric: Metric, queries: &Matrix, rows: &Matrix, k: usize, threshold: Option<f64>) -> Vec<Vec<(u32, u32)>> {
    let answers = reference::search(metric, &queries.values, &rows.values, rows.dim, k, threshold);
    answers.iter().map(|hits| hits.iter().map(|hit| (hit.row, hit.reported().to_bits())).collect()).collect()
}

#[test]
fn search_equals_the_reference() {
    let rows =
        Embeddings { rows: 700, dim: 48, clusters: 30, exact_duplicates: 0.05, ..Embeddings::default() }.generate();
    let asked = queries(&rows, 33, 5);
    let folder = imported(&rows);
    folder.write_npy("queries.npy", &asked);
    for (name, metric) in [("cosine", Metric::Cosine), ("dot", Metric::Dot), ("l2", Metric::L2)] {
        for k in [1, 10, 5000] {
            let k_text = k.to_string();
            let ran = folder.run(&[
                "search",
                "rows",
                "--query-file",
                "queries.npy",
                "--metric",
                name,
                "--k",
                &k_text,
                "--json",
            ]);
            assert_eq!(hits(&ran.succeeded()), expected(metric, &asked, &rows, k, None), "{name}, {k}");
        }
    }
    let ran =
        folder.run(&["search", "rows", "--query-file", "queries.npy", "--threshold", "0.5", "--json"]).succeeded();
    assert_eq!(hits(&ran), expected(Metric::Cosine, &asked, &rows, 10, Some(0.5)));
    let ran = folder.run(&[
        "search",
        "rows",
        "--query-file",
        "queries.npy",
        "--metric",
        "dot",
        "--threshold",
        "-0.01",
        "--k",
        "400",
        "--json",
    ]);
    assert_eq!(hits(&ran.succeeded()), expected(Metric::Dot, &asked, &rows, 400, Some(-0.01)));
}

#[test]
fn queries_are_counted_through_all_batches_of_a_file() {
    let rows = Embeddings { rows: 30, dim: 1024, clusters: 3, ..Embeddings::default() }.generate();
    let folder = imported(&rows);
    // Well beyond what is read at a time (8 MiB).
    let asked = Matrix::new(3000, 1024, rows.values.repeat(100));
    folder.write_npy("queries.npy", &asked);
    let ran = folder.run(&["search", "rows", "--query-file", "queries.npy", "--k", "3", "--json"]).succeeded();
    let numbers: Vec<u64> = ran.records().iter().filter_map(|record| record["query"].as_u64()).collect();
    assert!(numbers.into_iter().eq(0..3000));
    let once = expected(Metric::Cosine, &rows, &rows, 3, None);
    assert!(hits(&ran).iter().eq(once.iter().cycle().take(3000)));
}

#[test]
fn a_row_of_the_real_sample_finds_its_kin_by_title() {
    let sample = sample().unwrap();
    let folder = Folder::new();
    let lines = sample.records.iter().zip(sample.embeddings.iter_rows()).map(|(record, embedding)| {
        serde_json::json!({ "memory_id": record.memory_id, "title": record.title, "embedding": embedding }).to_string()
            + "\n"
    });
    folder.write("real.jsonl", lines.collect::<String>()).run(&["corpus", "import", "real", "real.jsonl"]).succeeded();
    let row = sample.records.iter().position(|record| record.title == "shutil.copy").unwrap();
    let ran = folder.run(&["search", "real", "--row", &row.to_string(), "--titles", "--json"]).succeeded();
    let query = Matrix::new(1, 384, sample.embeddings.row(row).to_vec());
    assert_eq!(hits(&ran), expected(Metric::Cosine, &query, &sample.embeddings, 10, None));
    for hit in ran.records()[0]["hits"].as_array().unwrap() {
        let record = &sample.records[hit["row"].as_u64().unwrap() as usize];
        assert_eq!(
            (hit["title"].as_str(), hit["memory_id"].as_u64()),
            (Some(record.title.as_str()), Some(record.memory_id))
        );
    }
    let text = folder.run(&["search", "real", "--row", &row.to_string(), "--titles"]).succeeded();
    assert!(text.stdout.contains("shutil.copymode"), "{}", text.stdout);
    assert!(text.stderr.contains("exact"), "{}", text.stderr);
}

#[test]
fn searches_that_cannot_be() {
    let rows = Embeddings { rows: 20, dim: 8, clusters: 2, ..Embeddings::default() }.generate();
    let folder = imported(&rows);
    folder.write_npy("wide.npy", &Matrix::new(1, 9, vec![0.0; 9]));
    folder.write_npy("nan.npy", &Matrix::new(2, 8, [vec![1.0; 15], vec![f32::NAN]].concat()));
    folder.run(&["search", "rows"]).failed(2, &["--query-file", "--row"]);
    folder.run(&["search", "rows", "--row", "1", "--query-file", "rows.npy"]).failed(2, &["exclude"]);
    for wrong in ["0", "-1", "4294967296", "ten"] {
        let k = ["--k", wrong];
        folder.run(&[&["search", "rows", "--row", "1"], &k[..]].concat()).failed(2, &["--k", "from 1 to 4294967295"]);
        folder.run(&[&["nearest", "rows", "--query", "0,0,0,0,0"], &k[..]].concat()).failed(2, &["--k", "from 1 to"]);
        folder.run(&[&["explain", "--rows", "1", "--dim", "1"], &k[..]].concat()).failed(2, &["--k", "from 1 to"]);
    }
    folder.run(&["explain", "--rows", "1", "--dim", "0"]).failed(2, &["--dim", "from 1 to 32768"]);
    folder.run(&["search", "rows", "--row", "1", "--metric", "manhattan"]).failed(2, &["manhattan"]);
    folder.run(&["search", "rows", "--row", "1", "--threshold", "nan"]).failed(2, &["finite"]);
    folder.run(&["search", "rows", "--row", "20"]).failed(1, &["no row 20", "rows are 0 to 19"]);
    folder.run(&["search", "rows", "--row", "-1"]).failed(1, &["no row -1", "rows are 0 to 19"]);
    folder.run(&["corpus", "create", "empty", "--dim", "2"]).succeeded();
    folder.run(&["search", "empty", "--row", "0"]).failed(1, &["no row 0", "it is empty"]);
    let told = ["no corpus named \"nope\"", "data folder megaring-data", "`megaring corpus list`"];
    folder.run(&["search", "nope", "--row", "0"]).failed(1, &told);
    folder.run(&["corpus", "describe", "nope"]).failed(1, &told);
    folder.run(&["search", "rows", "--query-file", "wide.npy"]).failed(1, &["9", "8"]);
    folder.run(&["search", "rows", "--query-file", "nan.npy"]).failed(1, &["nan.npy", "row 1"]);
    folder.run(&["search", "rows", "--row", "0", "--backend", "cuda"]).failed(1, &["cuda", "switched off"]);
    folder.run(&["search", "rows", "--row", "0", "--backend", "wgpu"]).failed(1, &["wgpu", "switched off"]);
    folder.run(&["search", "rows", "--row", "0", "--backend", "abacus"]).failed(2, &["abacus"]);
}

#[test]
fn encode_equals_the_golden_file() {
    let cases = golden().unwrap();
    let lines = cases.iter().enumerate().map(|(index, case)| {
        let line = serde_json::json!({
            "memory_id": 1000 + index, "content": case.content, "importance": case.importance, "access_count": case.access_count,
            "age_days": case.age_days, "galactic_distance": case.galactic_distance, "garden": case.garden, "something": [1],
        });
        format!("{line}\n\n")
    });
    let folder = Folder::new();
    let ran =
        folder.run_with_input(&["encode", "-", "--json", "--words"], lines.collect::<String>().as_bytes()).succeeded();
    let records: Vec<Value> = ran.records().into_iter().filter(|record| record["made"].is_null()).collect();
    assert_eq!(records.len(), cases.len());
    for (index, (record, case)) in records.iter().zip(&cases).enumerate() {
        assert_eq!(
            (record["row"].as_u64(), record["memory_id"].as_u64()),
            (Some(index as u64), Some(1000 + index as u64))
        );
        assert_eq!(u128::from_str_radix(record["mask"].as_str().unwrap(), 16).unwrap(), case.mask, "{}", case.id);
        assert_eq!(record["zone"].as_u64(), Some(u64::from(case.zone)), "{}", case.id);
        assert_eq!(record["words"].as_array().unwrap().len(), case.mask.count_ones() as usize, "{}", case.id);
        for (axis, expected) in ["x", "y", "z", "w", "v"].into_iter().zip(case.coordinates) {
            let got = record[axis].as_f64().unwrap();
            assert!((got - expected).abs() <= 1e-12, "{} {axis}: {got} {expected}", case.id);
        }
    }
}

#[test]
fn rows_are_counted_through_all_batches() {
    let folder = Folder::new();
    // More than are encoded together.
    let count = 40_000;
    let lines = (0..count)
        .map(|id| format!("{{\"content\": \"{}\", \"memory_id\": {id}}}\n", if id % 3 == 0 { "a row" } else { "" }));
    folder.write("many.jsonl", lines.collect::<String>());
    let records = folder.run(&["encode", "many.jsonl", "--json"]).succeeded().records();
    let memories: Vec<&Value> = records.iter().filter(|record| record["made"].is_null()).collect();
    assert_eq!(memories.len(), count);
    for (row, record) in memories.into_iter().enumerate() {
        assert_eq!((record["row"].as_u64(), record["memory_id"].as_u64()), (Some(row as u64), Some(row as u64)));
        assert_eq!(record["x"].as_f64(), Some(if row % 3 == 0 { -1.0 } else { 0.0 }), "row {row}");
    }
}

#[test]
fn a_memory_that_cannot_be_is_named_by_its_line() {
    let folder = Folder::new();
    let run = |input: &[u8], expected: &[&str]| {
        folder.run_with_input(&["encode", "-"], input).failed(1, &[&["standard input, line"], expected].concat());
    };
    run(b"{\"content\": \"a\"}\n{\"content\": \"b\", \"importance\": 1e999}\n", &["line 2", "out of range"]);
    run(b"{\"content\": \"a\"}\n\n{\"content\": 5}\n", &["line 3"]);
    run(b"{\"content\": \"\xff\xfe\"}\n", &["line 1"]);
    run(b"{\"content\": \"a\", \"importance\": NaN}\n", &["line 1"]);
    run(b"{\"importance\": 1}\n", &["line 1", "content"]);
    folder.run(&["encode", "nowhere.jsonl"]).failed(1, &["nowhere.jsonl"]);
    assert_eq!(folder.run_with_input(&["encode", "-", "--json"], b"").succeeded().records().len(), 0);
}

#[test]
fn another_profile_can_be_brought() {
    let folder = Folder::new();
    let toml = "name = \"tiny\"\n[poles]\nlogic = [\"gear\"]\nemotion = [\"song\"]\nmicro = []\nmacro = []\n[gardens]\n[elements]\nearth = [0.0, 0.0, 0.0, 1.0, 1.0]\n";
    folder
        .write("tiny.toml", toml)
        .write("a.jsonl", "{\"content\": \"A SONG of gears, a song\"}\n{\"content\": \"songs\"}\n");
    let records =
        folder.run(&["encode", "a.jsonl", "--profile", "tiny.toml", "--words", "--json"]).succeeded().records();
    assert_eq!((records[0]["x"].as_f64(), records[1]["x"].as_f64()), (Some(0.0), Some(1.0)));
    assert_eq!(records[0]["words"], serde_json::json!(["gear", "song"]));
    folder.write("bad.toml", toml.replace("gear", "Gear"));
    folder.run(&["encode", "a.jsonl", "--profile", "bad.toml"]).failed(1, &["bad.toml", "Gear"]);
}

#[test]
fn nearest_equals_the_reference() {
    let points = points(500, 3);
    let folder = Folder::new();
    let as_array = points.iter().map(|point| serde_json::json!(point).to_string() + "\n").collect::<String>();
    let as_object = points.iter().enumerate().map(|(row, [x, y, z, w, v])| {
        serde_json::json!({ "memory_id": row + 5, "embedding": [1.0], "x": x, "y": y, "z": z, "w": w, "v": v })
            .to_string()
            + "\n"
    });
    folder.write("arrays.jsonl", as_array).write("objects.jsonl", as_object.collect::<String>());
    folder.run(&["corpus", "import", "points", "objects.jsonl"]).succeeded();
    let asked = [[-0.25, 0.5, 0.1, 1.0, 0.75], points[17]];
    let texts = asked.map(|query| query.map(|value| value.to_string()).join(","));
    let weights = [0.5, 0.0, 2.0, 1.0, 1.0];
    for (weights, option) in [(DEFAULT_WEIGHTS, None), (weights, Some("--weights=0.5,0,2,1,1"))] {
        for source in [&["points"][..], &["--points", "arrays.jsonl"], &["--points", "objects.jsonl"]] {
            let asking = ["--query", &texts[0], "--query", &texts[1], "--k", "20", "--json"];
            let args: Vec<&str> = ["nearest"].iter().chain(source).chain(&asking).copied().chain(option).collect();
            let records = folder.run(&args).succeeded().records();
            for (record, query) in records.iter().zip(&asked) {
                let expected = reference::nearest(&points, query, &weights, 20);
                let got = record["neighbours"].as_array().unwrap().iter();
                let got: Vec<_> =
                    got.map(|n| (n["row"].as_u64().unwrap() as u32, n["distance"].as_f64().unwrap())).collect();
                assert_eq!(got, expected.iter().map(|n| (n.row, n.distance)).collect::<Vec<_>>(), "{source:?}");
            }
        }
    }
}

#[test]
fn encoded_memories_are_points() {
    let folder = Folder::new();
    folder.write("memories.jsonl", "{\"content\": \"love and joy\"}\n{\"content\": \"a hash table\"}\n");
    let encoded = folder.run(&["encode", "memories.jsonl", "--json"]).succeeded();
    folder.write("points.jsonl", &encoded.stdout);
    let records =
        folder.run(&["nearest", "--points", "points.jsonl", "--query", "-1,0,1,0.5,1", "--json"]).succeeded().records();
    let rows: Vec<_> =
        records[0]["neighbours"].as_array().unwrap().iter().map(|n| n["row"].as_u64().unwrap()).collect();
    assert_eq!(rows, [1, 0]);
}

#[test]
fn nearest_that_cannot_be() {
    let folder = imported(&Matrix::new(1, 2, vec![1.0, 2.0]));
    folder.write("short.jsonl", "[1,2,3,4,5]\n[1,2,3,4]\n");
    folder.run(&["nearest", "rows", "--query", "0,0,0,0,0"]).failed(1, &["rows", "without coordinates"]);
    folder.run(&["nearest", "--query", "0,0,0,0,0"]).failed(2, &["--points"]);
    folder.run(&["nearest", "rows"]).failed(2, &["--query"]);
    folder.run(&["nearest", "rows", "--query", "0,0,0"]).failed(2, &["five"]);
    folder.run(&["nearest", "rows", "--query", "0,0,0,inf,0"]).failed(2, &["finite"]);
    folder.run(&["nearest", "rows", "--query", "0,0,0,0,0", "--weights=1,1,1,1,-1"]).failed(2, &["negative"]);
    folder.run(&["nearest", "--points", "short.jsonl", "--query", "0,0,0,0,0"]).failed(1, &["short.jsonl, line 2"]);
}

#[test]
fn a_memory_that_is_too_large_is_counted_through_all_batches() {
    let folder = Folder::new();
    let mut lines = "{\"content\": \"a\"}\n".repeat(20_000);
    lines += &format!("{{\"content\": \"{}\"}}\n", "a".repeat(2 << 20));
    folder.write("many.jsonl", lines).write("megaring.toml", "arena_bytes = 1048576");
    folder.run(&["encode", "many.jsonl"]).failed(1, &["20000", "it takes 2097"]);
}

/// Whatever came second would find nothing, and be taken for an empty file.
#[test]
fn standard_input_is_given_once() {
    let folder = Folder::new();
    let search = ["search", "m", "--query-file", "-"];
    let nearest = ["nearest", "m", "--query", "0,0,0,0,0"];
    let lines: [(&[&str], &[&str], &str); 6] = [
        (&search, &["--allow", "-"], "--query-file and --allow"),
        (&search, &["--deny", "-", "--server", "localhost:1"], "--query-file and --deny"),
        (&["search", "m", "--row", "0"], &["--allow", "-", "--deny", "-"], "--allow and --deny"),
        (&nearest, &["--allow", "-", "--deny", "-"], "--allow and --deny"),
        (&nearest, &["--points", "-", "--deny", "-"], "--points and --deny"),
        (&["checksum", "-"], &["-"], "as FILES"),
    ];
    for (line, more, names) in lines {
        let ran = folder.run_with_input(&[line, more].concat(), b"1\n");
        ran.failed(2, &["standard input (-) can be read once", names, "give files"]);
    }
}
