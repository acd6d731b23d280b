//! Commands through a server (`--server`): the same answers, output and statuses as in process.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use megaring_datasets::Matrix;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Folder, Ran};
use crate::serve::Serving;

/// A folder with two data folders: one that commands open themselves, and one that a server has.
pub(crate) struct Both {
    pub(crate) folder: Folder,
    serving: Serving,
    pub(crate) address: String,
}

impl Both {
    pub(crate) fn start(args: &[&str]) -> Self {
        let folder = Folder::new();
        let serving = Serving::start(&folder, &[&["--data", "there", "--log", "off"], args].concat());
        let address = serving.address();
        Self { folder, serving, address }
    }

    fn here(&self, args: &[&str]) -> Ran {
        self.folder.run(&[args, &["--data", "here"]].concat())
    }

    /// The data folder is one that cannot be, so that nothing is done with it.
    fn there(&self, args: &[&str]) -> Ran {
        self.folder.run(&[args, &["--data", "no/such/folder", "--server", &self.address]].concat())
    }

    /// Does it both ways, as text and as JSON, or once where it changes something; what comes out is the same.
    #[track_caller]
    pub(crate) fn same(&self, args: &[&str]) -> Ran {
        let (here, there) = (self.here(args), self.there(args));
        assert_eq!(here.status, there.status, "{args:?}: {here:?} {there:?}");
        let (own, other) = (timeless(&here.stdout), timeless(&there.stdout));
        assert_eq!(own, other, "{args:?}: {} {}", here.stderr, there.stderr);
        there
    }

    #[track_caller]
    pub(crate) fn same_in_both_forms(&self, args: &[&str]) -> Ran {
        let text = self.same(args).succeeded();
        assert!(!text.stdout.is_empty(), "{args:?}");
        self.same(&[args, &["--json"]].concat()).succeeded()
    }

    pub(crate) fn stop(self) {
        self.serving.signal(Signal::TERM);
        let (status, last, stderr) = self.serving.end();
        assert_eq!((status, &last["drained"]), (Some(0), &json!(true)), "{stderr}");
    }
}

/// The output but for figures of time.
fn timeless(stdout: &str) -> Vec<String> {
    let line = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(mut record) if record.is_object() => {
            for time in ["seconds", "created_unix_ns"] {
                record.as_object_mut().unwrap().remove(time);
            }
            for time in ["queue_ns", "compute_ns", "rescore_ns"] {
                record["made"].as_object_mut().map(|made| made.remove(time));
            }
            record.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            record.to_string()
        }
        _ => line.to_owned(),
    };
    stdout.lines().map(line).collect()
}

const ROWS: usize = 60;

/// Rows with ids, titles, coordinates and further columns that have a meaning.
fn lines() -> String {
    let line = |row: usize| {
        let at = row as f64;
        let embedding = [at.sin(), at.cos(), (at * 0.7).sin(), (at * 0.3).cos()];
        let coordinates = [at.sin(), at.cos(), 0.5, 1.0, at / ROWS as f64];
        let [x, y, z, w, v] = coordinates;
        json!({
            "memory_id": 1000 + row, "title": format!("row {row}"), "embedding": embedding, "zone": row % 5,
            "importance": at / 100.0, "x": x, "y": y, "z": z, "w": w, "v": v,
        })
        .to_string()
            + "\n"
    };
    (0..ROWS).map(line).collect()
}

fn with_rows(args: &[&str]) -> Both {
    let both = Both::start(args);
    both.folder.write("rows.jsonl", lines());
    both.same(&["corpus", "import", "rows", "rows.jsonl", "--json"]).succeeded();
    both
}

#[test]
fn corpora_are_made_filled_looked_at_and_dropped() {
    let both = Both::start(&[]);
    assert!(both.same(&["corpus", "create", "once", "--dim", "4", "--unique-ids"]).succeeded().stdout.contains("made"));
    both.same(&["corpus", "create", "once", "--dim", "4"]).failed(1, &["\"once\" exists already", &both.address]);
    both.same(&["corpus", "create", "No Name", "--dim", "4", "--json"]).failed(1, &["name"]);
    both.folder.write("rows.jsonl", lines());
    both.same(&["corpus", "import", "rows", "rows.jsonl", "--json"]).succeeded();
    both.same(&["corpus", "import", "rows", "rows.jsonl"]).failed(1, &["\"rows\" exists already", "corpus append"]);
    both.same(&["corpus", "append", "once", "rows.jsonl"]).succeeded();
    both.same(&["corpus", "append", "once", "rows.jsonl"]).failed(1, &["memory_ids", "1000"]);
    let ran = both.same(&["corpus", "append", "once", "rows.jsonl", "--upsert", "--json"]).succeeded();
    assert_eq!((&ran.records()[0]["replaced"], &ran.records()[0]["total_rows"]), (&json!(ROWS), &json!(ROWS)));
    both.same_in_both_forms(&["corpus", "list"]);
    both.same_in_both_forms(&["corpus", "describe", "rows"]);
    both.same(&["corpus", "append", "nope", "rows.jsonl"]).failed(1, &["no corpus named \"nope\"", "corpus list"]);
    both.same(&["corpus", "describe", "nope"]).failed(1, &["no corpus named \"nope\""]);

    assert!(both.same(&["corpus", "delete", "rows", "1003", "7"]).succeeded().stdout.contains("1 id found nothing"));
    both.folder.write("ids", "1005\n\n8\n1006\n");
    let deleted = both.same(&["corpus", "delete", "rows", "--ids-file", "ids", "--json"]).succeeded();
    assert_eq!((&deleted.records()[0]["rows"], &deleted.records()[0]["missing_ids"]), (&json!(2), &json!([8])));
    both.same(&["corpus", "delete", "rows"]).failed(2, &["--ids-file"]);

    let fetched = both.same_in_both_forms(&["corpus", "fetch", "rows", "--row", "4,0", "--id", "1010,3,1001"]);
    assert!(fetched.stderr.contains("1 id found nothing: 3"), "{}", fetched.stderr);
    assert_eq!(fetched.records().iter().map(|row| row["row"].clone()).collect::<Vec<_>>(), [10, 1, 4, 0]);
    both.same_in_both_forms(&["corpus", "fetch", "rows", "--id", "1001", "--columns", "title,embedding"]);
    both.same_in_both_forms(&["corpus", "fetch", "rows", "--row", "2"]);
    both.same(&["corpus", "fetch", "rows", "--row", "3"]).failed(1, &["deleted"]);
    both.same(&["corpus", "fetch", "rows", "--row", "4", "--columns", "nope"]).failed(1, &["no row has a column"]);

    both.same(&["corpus", "drop", "once"]).failed(2, &["60 rows", "--yes"]);
    both.same(&["corpus", "drop", "once", "--yes", "--json"]).succeeded();
    both.same(&["corpus", "drop", "once", "--yes"]).failed(1, &["\"once\""]);
    assert_eq!(both.same(&["corpus", "list", "--json"]).records().len(), 1);
    both.stop();
}

#[test]
fn searches_of_every_kind_are_the_same() {
    let both = with_rows(&[]);
    let queries = Matrix::new(3, 4, (0..12).map(|at| (at as f32).sin()).collect());
    both.folder
        .write_npy("queries.npy", &queries)
        .write("allowed", "1001\n1004\n1009\n1033\n")
        .write("denied", "1004\n");
    let of_file = ["search", "rows", "--query-file", "queries.npy"];
    for more in [
        &[][..],
        &["--metric", "l2", "--k", "3", "--titles"],
        &["--columns", "zone,title", "--filter", "zone <= 1 and importance > 0.1"],
        &["--columns", "*", "--allow", "allowed", "--deny", "denied", "--titles"],
        &["--threshold", "0.9", "--k", "100"],
        &["--threshold", "2"],
    ] {
        both.same_in_both_forms(&[&of_file, more].concat());
    }
    both.same_in_both_forms(&["search", "rows", "--row", "7", "--metric", "dot"]);
    both.same_in_both_forms(&["search", "rows", "--row", "7", "--prefix-dim", "3"]);
    let few = Matrix::new(2, 2, queries.values[..4].to_vec());
    both.folder.write_npy("few.npy", &few);
    both.same_in_both_forms(&["search", "rows", "--query-file", "few.npy", "--prefix-dim", "2", "--titles"]);
    both.folder.write("bits.jsonl", "{\"embedding\": [1, 2, 3]}\n{\"embedding\": [255, 0, 7]}\n");
    both.same(&["corpus", "import", "bits", "bits.jsonl", "--bits", "--json"]).succeeded();
    both.same_in_both_forms(&["corpus", "describe", "bits"]);
    both.same_in_both_forms(&["search", "bits", "--query-file", "bits.jsonl"]);
    both.same_in_both_forms(&["join", "bits", "--k", "1", "--metric", "jaccard"]);
    for (args, texts) in [
        (&["search", "rows", "--row", "60"][..], &["no row 60; its rows are 0 to 59"][..]),
        (&["search", "rows", "--row", "-1"], &["no row -1"]),
        (&["search", "nope", "--row", "0"], &["no corpus named \"nope\""]),
        (&["search", "rows", "--row", "0", "--filter", "zone <<= 1"], &["filter"]),
        (&["search", "rows", "--row", "0", "--filter", "nope = 1"], &["filter", "nope"]),
        (&["search", "rows", "--row", "0", "--columns", "nope"], &["columns", "nope"]),
        (&["search", "rows", "--row", "0", "--metric", "hamming"], &["metric", "cosine, dot, l2"]),
        (&["search", "rows", "--row", "0", "--prefix-dim", "5"], &["prefix_dim", "within 1 and the corpus's 4"]),
        (&["search", "rows", "--row", "0", "--backend", "cuda"], &["backend cuda is not available"]),
        (&["search", "rows", "--query-file", "nowhere.npy"], &["nowhere.npy does not exist"]),
    ] {
        both.same(args).failed(1, texts);
    }
    both.same(&["search", "rows"]).failed(2, &["queries are missing"]);
    both.same(&["corpus", "delete", "rows", "--filter", "memory_id = 1002"]).succeeded();
    both.same(&["corpus", "delete", "rows", "--filter", "memory_id ="]).failed(1, &["filter"]);
    both.same(&["search", "rows", "--row", "2"]).failed(1, &["deleted"]);
    both.same_in_both_forms(&["search", "rows", "--row", "3"]);
    both.stop();
}

#[test]
fn queries_that_no_message_holds_are_sent_in_pieces() {
    let both = with_rows(&["--message-limit", "16KiB"]);
    let queries = Matrix::new(1500, 4, (0..6000).map(|at| (at as f32).sin()).collect());
    both.folder.write_npy("queries.npy", &queries);
    // 24 KB of queries; their hits, and titles, are more.
    let args = ["search", "rows", "--query-file", "queries.npy", "--k", "7", "--columns", "title", "--json"];
    let (here, there) = (both.here(&args).succeeded(), both.there(&args).succeeded());
    let hits = |ran: &Ran| {
        let found = ran.records().into_iter().filter(|record| record["query"].is_u64());
        found.collect::<Vec<_>>()
    };
    assert_eq!(hits(&there).len(), 1500);
    assert_eq!(hits(&here), hits(&there));
    // What not even one message holds is said.
    let one = ["search", "rows", "--row", "0", "--columns", "title,x,y,z,w,v,embedding", "--k", "60", "--json"];
    let wide = both.there(&[&one[..], &["--titles"]].concat());
    assert!(wide.status == Some(0) || wide.stderr.contains("a message is at most 16384"), "{wide:?}");
    both.stop();
}

#[test]
fn points_memories_and_checksums_are_the_same() {
    let both = with_rows(&[]);
    for more in [&[][..], &["--titles", "--k", "4"], &["--filter", "zone = 2", "--weights", "1,1,1,1,0"]] {
        let args = ["nearest", "rows", "--query", "0.5,0.5,0.5,1,0.5", "--query=-1,0,0,0,0"];
        both.same_in_both_forms(&[&args, more].concat());
    }
    both.folder.write("points", "[9,9,9,9,9]\n[1,1,1,1,1]\n[2,0,0,0,1]\n");
    both.same_in_both_forms(&["nearest", "--points", "points", "--query", "0,0,0,0,0", "--titles"]);
    both.same(&["nearest", "--query", "0,0,0,0,0"]).failed(2, &["points are missing"]);
    both.folder.write_npy("plain.npy", &Matrix::new(2, 2, vec![1.0, 2.0, 3.0, 4.0]));
    both.same(&["corpus", "import", "plain", "plain.npy", "--json"]).succeeded();
    both.same(&["nearest", "plain", "--query", "0,0,0,0,0"]).failed(1, &["\"plain\"", "coordinates"]);

    let memory = |at: usize| {
        let words = ["trust", "architecture", "love", "the whole", "detail"][at % 5];
        json!({ "content": format!("we {words} this {at}"), "importance": at as f64 / 7.0, "memory_id": at, "garden": "joy" })
    };
    // More than go into one request.
    both.folder.write("memories.jsonl", (0..17_000).map(|at| format!("{}\n", memory(at))).collect::<String>());
    both.same_in_both_forms(&["encode", "memories.jsonl", "--words"]);
    both.folder.write("bad.jsonl", "{\"content\": 1}\n");
    both.same(&["encode", "bad.jsonl"]).failed(1, &["bad.jsonl"]);

    both.folder.write("a", "123456789").write("b", "").write("c", vec![7; 100_000]);
    both.same_in_both_forms(&["checksum", "a", "b", "c"]);
    both.same(&["checksum", "a", "nowhere", "b"]).failed(1, &["nowhere does not exist", "1 of 3"]);
    both.stop();
}

#[test]
fn files_that_no_message_holds_are_told_and_the_others_done() {
    let both = Both::start(&["--message-limit", "64KiB"]);
    both.folder.write("a", "123456789").write("large", vec![7; 100_000]).write("b", vec![1; 50_000]);
    let ran = both.there(&["checksum", "a", "large", "b", "--json"]).failed(1, &["large: ", "1 of 3 files"]);
    let files: Vec<Value> = ran.records().iter().filter(|record| record["file"].is_string()).cloned().collect();
    let here = both.here(&["checksum", "a", "b", "--json"]).succeeded();
    assert_eq!(files, here.records()[..2]);
    both.stop();
}

#[test]
fn joins_are_the_same_also_into_files() {
    let both = with_rows(&[]);
    both.same(&["corpus", "create", "none", "--dim", "4"]).succeeded();
    let other = Matrix::new(9, 4, (0..36).map(|at| (at as f32).cos()).collect());
    both.folder.write_npy("other.npy", &other);
    both.same(&["corpus", "import", "other", "other.npy", "--json"]).succeeded();
    both.same(&["corpus", "delete", "rows", "1002"]).succeeded();
    for more in [
        &[][..],
        &["other", "--k", "2", "--metric", "l2"],
        &["--threshold", "0.8"],
        &["--threshold", "0.8", "--groups"],
    ] {
        both.same_in_both_forms(&[&["join", "rows"], more].concat());
    }
    assert_eq!(both.same(&["join", "none", "--json"]).succeeded().stdout, "");
    for (here, there) in [("a.parquet", "b.parquet"), ("a.arrow", "b.arrow"), ("a.npy", "b.npy")] {
        let ran = both.here(&["join", "rows", "--k", "5", "--out", here, "--json"]).succeeded();
        let from = both.there(&["join", "rows", "--k", "5", "--out", there, "--json"]).succeeded();
        assert_eq!(ran.records()[0]["pairs"], from.records()[0]["pairs"]);
        let bytes = |name: &str| std::fs::read(both.folder.path(name)).unwrap();
        assert_eq!(bytes(here), bytes(there), "{there}");
        both.there(&["join", "rows", "--out", there]).failed(1, &[there, "exists already"]);
    }
    both.same(&["join", "rows", "nope"]).failed(1, &["\"nope\""]);
    both.same(&["join", "rows", "--groups"]).failed(2, &["--threshold"]);
    both.stop();
}

/// The files that the corpora's own tests read.
fn data() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus/tests/data");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| !["md", "py"].iter().any(|end| path.extension() == Some(end.as_ref()))).collect();
    files.sort();
    files
}

#[test]
fn files_of_every_format_come_in_with_all_their_columns() {
    let both = Both::start(&[]);
    let mut imported = 0;
    for path in data() {
        let (file, name) = (path.to_str().unwrap(), format!("c{imported}"));
        let import = ["corpus", "import", &name, file, "--json"];
        let (here, there) = (both.here(&import), both.there(&import));
        assert_eq!(here.status, there.status, "{file}: {here:?} {there:?}");
        if here.status != Some(0) {
            assert_eq!(here.stderr, there.stderr, "{file}");
            continue;
        }
        imported += 1;
        let (own, other) = (&here.records()[0], &there.records()[0]);
        for field in ["corpus", "dim", "rows", "replaced", "skipped", "total_rows", "format"] {
            assert_eq!(own[field], other[field], "{file}: {field}");
        }
        // All columns, once more in process: exports say what there is, whatever the form in which it is kept.
        let exported = |ran: &dyn Fn(&[&str]) -> Ran, out: &str| {
            ran(&["corpus", "export", &name, "--out", out]).succeeded();
            both.folder.run(&["corpus", "import", &name, out, "--data", out.split('.').next().unwrap()]).succeeded();
            let data = out.split('.').next().unwrap();
            let rows = own["rows"].as_u64().unwrap().min(40);
            let rows = (0..rows).map(|row| row.to_string()).collect::<Vec<_>>().join(",");
            let fetch =
                ["corpus", "fetch", &name, "--row", &rows, "--columns", "*,embedding", "--json", "--data", data];
            let ran = both.folder.run(&fetch).succeeded();
            std::fs::remove_file(both.folder.path(out)).unwrap();
            ran.stdout
        };
        if own["rows"] != json!(0) {
            let here = exported(&|args| both.here(args), "own.parquet");
            assert_eq!(here, exported(&|args| both.there(args), "other.parquet"), "{file}");
        }
    }
    assert!(imported > 20, "{imported}");
    both.stop();
}

#[test]
fn exports_are_the_same_files() {
    let both = with_rows(&["--message-limit", "16KiB"]);
    both.same(&["corpus", "delete", "rows", "1002", "1059"]).succeeded();
    both.same(&["corpus", "append", "rows", "rows.jsonl", "--json"]).succeeded();
    for end in ["npy", "fvecs", "parquet", "arrow"] {
        let [own, other] = ["own", "other"].map(|name| format!("{name}.{end}"));
        let here = both.here(&["corpus", "export", "rows", "--out", &own, "--json"]).succeeded();
        let there = both.there(&["corpus", "export", "rows", "--out", &other, "--json"]).succeeded();
        assert_eq!(here.records()[0]["rows"], there.records()[0]["rows"]);
        both.there(&["corpus", "export", "rows", "--out", &other]).failed(1, &[&other, "exists already"]);
        if ["npy", "fvecs"].contains(&end) {
            let bytes = |name: &str| std::fs::read(both.folder.path(name)).unwrap();
            assert_eq!(bytes(&own), bytes(&other), "{end}");
            continue;
        }
        let content = |file: &str, name: &str| {
            both.here(&["corpus", "import", name, file]).succeeded();
            let rows: Vec<String> = (0..118).map(|row| row.to_string()).collect();
            let fetch = ["corpus", "fetch", name, "--row", &rows.join(","), "--columns", "*,embedding", "--json"];
            both.here(&fetch).succeeded().stdout
        };
        let (a, b) = (content(&own, &format!("own-{end}")), content(&other, &format!("other-{end}")));
        assert!(a.lines().count() == 118 && a == b, "{end}");
    }
    // What not all rows have is told of, and left out.
    both.folder.write("one.jsonl", "{\"embedding\": [1, 2]}\n");
    both.folder.write("two.jsonl", "{\"embedding\": [3, 4], \"importance\": 0.5}\n");
    both.same(&["corpus", "import", "mixed", "one.jsonl", "--json"]).succeeded();
    both.same(&["corpus", "append", "mixed", "two.jsonl", "--json"]).succeeded();
    let told = both.same(&["corpus", "describe", "mixed"]).succeeded().stdout;
    assert!(told.contains("of some rows only: importance\n"), "{told}");
    let own = both.here(&["corpus", "export", "mixed", "--out", "own-mixed.arrow"]);
    let other = both.there(&["corpus", "export", "mixed", "--out", "other-mixed.arrow"]);
    for ran in [own, other] {
        assert!(ran.succeeded().stderr.contains("left out importance, which only some rows have"));
    }
    both.same(&["corpus", "export", "rows", "--out", "rows.txt"]).failed(1, &["rows.txt", "parquet"]);
    both.same(&["corpus", "export", "nope", "--out", "nope.npy"]).failed(1, &["\"nope\""]);
    assert!(!both.folder.path("nope.npy").exists());
    both.stop();
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let both = Both::start(&[]);
    // Far more than is on its way at a time.
    let mut rows = Matrix::new(6000, 1024, vec![0.5; 6000 * 1024]);
    rows.values[5900 * 1024] = f32::INFINITY;
    both.folder.write_npy("bad.npy", &rows);
    both.same(&["corpus", "import", "far", "bad.npy"]).failed(1, &["bad.npy", "row 5900"]);
    assert!(both.there(&["corpus", "list", "--json"]).succeeded().records().is_empty());
    both.same(&["corpus", "create", "kept", "--dim", "1024"]).succeeded();
    both.same(&["corpus", "append", "kept", "bad.npy"]).failed(1, &["row 5900"]);
    assert_eq!(both.there(&["corpus", "describe", "kept", "--json"]).records()[0]["rows"], 0);
    let ran = both.same(&["corpus", "append", "kept", "bad.npy", "--skip-invalid", "--json"]).succeeded();
    assert_eq!((&ran.records()[0]["rows"], &ran.records()[0]["skipped"]), (&json!(5999), &json!(1)));
    // What the server refuses in the middle is its refusal, and ends the reading.
    both.folder.write("zone.jsonl", "{\"embedding\": [1, 2]}\n".repeat(10));
    both.same(&["corpus", "append", "kept", "zone.jsonl"]).failed(1, &["1024"]);
    both.stop();
}

#[test]
fn an_import_that_is_killed_leaves_no_rows() {
    let both = Both::start(&[]);
    both.folder.run(&["corpus", "create", "kept", "--dim", "2", "--server", &both.address]).succeeded();
    let args = ["corpus", "append", "kept", "-", "--format", "jsonl", "--server", &both.address];
    let mut child = both.folder.command(&args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than is read before rows are sent; then it waits for more.
    let block = "{\"embedding\": [1, 2]}\n".repeat(10_000);
    (0..120).for_each(|_| input.write_all(block.as_bytes()).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(input);
    // The server drains first, so that nothing is still on its way.
    let folder = both.folder;
    both.serving.signal(Signal::TERM);
    assert_eq!(both.serving.end().0, Some(0));
    let described = folder.run(&["corpus", "describe", "kept", "--json", "--data", "there"]).succeeded();
    assert_eq!(described.records()[0]["rows"], 0);
}

#[test]
fn a_server_that_is_not_there_or_is_no_server_is_told() {
    let both = with_rows(&[]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for args in [
        &["corpus", "list"][..],
        &["corpus", "import", "x", "rows.jsonl"],
        &["search", "rows", "--row", "0"],
        &["join", "rows"],
        &["encode", "rows.jsonl"],
        &["checksum", "rows.jsonl"],
    ] {
        let ran = both.folder.run(&[args, &["--server", &free]].concat());
        let ran = ran.failed(1, &[&format!("no server answers at {free}")]);
        assert_eq!((ran.stderr.lines().count(), ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    }
    // Something that closes every connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut bytes = [0; 1];
            let _ = socket.unwrap().read(&mut bytes);
        }
    });
    both.folder.run(&["corpus", "list", "--server", &address]).failed(1, &[&address]);
    both.stop();
}

#[test]
fn a_server_says_what_it_would_do_with_a_job() {
    let both = with_rows(&[]);
    let cases: [&[&str]; 6] = [
        &["--rows", "5562", "--dim", "384"],
        &["--rows", "9", "--dim", "3", "--queries", "4", "--k", "2", "--cold"],
        &["--op", "nearest", "--rows", "9"],
        &["--op", "encode", "--bytes", "4000", "--queries", "12"],
        &["--corpus", "rows"],
        &["--rows", "1", "--dim", "1", "--backend", "cuda"],
    ];
    for args in cases {
        let ask = |here: bool, more: &[&str]| {
            let args = [&["explain"], args, more].concat();
            if here { both.here(&args) } else { both.there(&args) }
        };
        // How long is another matter, as jobs teach it.
        let [own, other] = [true, false].map(|here| {
            let mut record = ask(here, &["--json"]).succeeded().records().remove(0);
            record["assumed_because"].take();
            for prospect in record["prospects"].as_array_mut().unwrap() {
                if let Some(times) = prospect["times"].as_object_mut() {
                    times.values_mut().filter(|value| value.is_number()).for_each(|value| *value = 0.into());
                }
            }
            record
        });
        assert_eq!(own, other, "{args:?}");
        let text = ask(false, &[]).succeeded();
        assert!(text.stdout.starts_with("BACKEND") && text.stdout.contains("\ncpu"), "{}", text.stdout);
    }
    both.there(&["explain", "--corpus", "gone"]).failed(1, &["gone"]);
    both.there(&["explain", "--corpus", "rows", "--cold"]).failed(2, &["--cold"]);
    both.there(&["explain", "--rows", "9"]).failed(2, &["--dim"]);
    both.there(&["explain", "--corpus", "rows", "--op", "encode"]).failed(1, &["corpus"]);
    both.there(&["doctor"]).failed(2, &["megaring explain --server"]);
    both.stop();
}

#[test]
fn the_address_comes_from_everywhere_and_some_commands_refuse_it() {
    let both = with_rows(&[]);
    let (folder, address) = (&both.folder, both.address.as_str());
    let listed = |ran: Ran| assert_eq!(ran.succeeded().records()[0]["name"], "rows");
    listed(folder.run(&["corpus", "list", "--json", "--server", &format!("http://{address}/")]));
    let with = |value: &str, args: &[&str]| {
        let output = folder.command(args).env("MEGARING_SERVER", value).output();
        Ran::of(output.unwrap())
    };
    listed(with(address, &["corpus", "list", "--json"]));
    with("", &["corpus", "list", "--json"]).failed(1, &["megaring-data does not exist"]);
    folder.write("megaring.toml", format!("server = \"{address}\""));
    listed(folder.run(&["corpus", "list", "--json"]));
    folder.write("megaring.toml", "");
    for args in [
        &["serve"][..],
        &["demo"],
        &["calibrate"],
        &["bench", "ring"],
        &["doctor"],
        &["corpus", "compact", "rows"],
        &["corpus", "snapshot", "rows", "copy"],
        &["corpus", "restore", "copy", "rows"],
        &["corpus", "verify"],
    ] {
        let ran = folder.run(&[args, &["--server", address]].concat()).failed(2, &[args[0], address, "--server"]);
        assert_eq!((ran.stderr.lines().count(), ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    }
    for wrong in ["localhost", "ftp://localhost:7272", ":7272"] {
        folder.run(&["corpus", "list", "--server", wrong]).failed(2, &["--server", "such as localhost:7272"]);
    }
    both.stop();
}
