//! Ids that are texts, on the command line: the same in process and through a server.

use serde_json::json;

use crate::remote::Both;

/// Paths, UUIDs and texts that look like something else. They may have commas and spaces.
const IDS: [&str; 6] =
    ["inbox/a, b.txt", "inbox/c.txt", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "7", " spaced ", "ünïcode/ß"];

/// A corpus of rows on a line, of which `path` has the ids.
fn with_rows() -> Both {
    let both = Both::start(&[]);
    let line = |(row, id): (usize, &&str)| {
        let x = row as f64;
        json!({ "path": id, "title": format!("row {row}"), "embedding": [x, 1.0], "zone": row % 2,
            "x": x, "y": 0.0, "z": 0.0, "w": 0.0, "v": 0.0 })
        .to_string()
            + "\n"
    };
    both.folder.write("rows.jsonl", IDS.iter().enumerate().map(line).collect::<String>());
    both.same(&["corpus", "import", "rows", "rows.jsonl", "--id-column", "path", "--json"]).succeeded();
    both
}

#[test]
fn a_corpus_is_made_with_an_id_column_and_filled() {
    let both = with_rows();
    let described = both.same_in_both_forms(&["corpus", "describe", "rows"]);
    assert_eq!(described.records()[0]["id_column"], "path");
    assert!(both.same(&["corpus", "describe", "rows"]).stdout.contains("6 rows x 2, ids in path, version"));
    both.same(&["corpus", "create", "made", "--dim", "2", "--id-column", "path", "--unique-ids"]).succeeded();
    both.same(&["corpus", "create", "not", "--dim", "2", "--id-column", "zone"]).failed(1, &["id_column", "zone"]);
    both.same(&["corpus", "create", "plain", "--dim", "2", "--json"]).succeeded();
    let plain = both.same(&["corpus", "describe", "plain", "--json"]).succeeded().records();
    assert!(plain[0].get("id_column").is_none());
    both.same(&["corpus", "import", "plain", "rows.jsonl", "--id-column", "path"]).failed(1, &["plain", "numbers"]);
    both.same(&["corpus", "import", "made", "rows.jsonl", "--id-column", "file"]).failed(1, &["ids in path"]);
    both.same(&["corpus", "import", "other", "rows.jsonl", "--id-column", "title"]).failed(1, &["id_column", "title"]);
    both.same(&["corpus", "import", "other", "rows.jsonl", "--id-column", "file"]).failed(1, &["line 1: file"]);
    // What comes later needs no flag.
    both.same(&["corpus", "import", "made", "rows.jsonl"]).succeeded();
    both.same(&["corpus", "append", "made", "rows.jsonl"]).failed(1, &["ids", IDS[0], "upsert"]);
    both.folder.write("more.csv", "path,embedding\n\"inbox/a, b.txt\",\"[7, 7]\"\nnew,\"[1, 2]\"\nnew,\"[3, 4]\"\n");
    let upserted = both.same(&["corpus", "append", "made", "more.csv", "--upsert", "--json"]).succeeded().records();
    let is = |field: &str| upserted[0][field].clone();
    assert_eq!((is("rows"), is("replaced"), is("total_rows")), (json!(2), json!(1), json!(7)));
    both.folder.write("bad.csv", "path,embedding\nx,\"[7, 7]\"\n,\"[1, 2]\"\n");
    both.same(&["corpus", "append", "made", "bad.csv"]).failed(1, &["bad.csv line 3: path", "missing"]);
    both.same(&["corpus", "append", "made", "bad.csv", "--skip-invalid"]).succeeded();
    both.folder.write("none.csv", "embedding\n\"[7, 7]\"\n");
    both.same(&["corpus", "append", "made", "none.csv"]).failed(1, &["none.csv: path", "missing"]);
    both.same(&["corpus", "list", "--json"]).succeeded();
    both.stop();
}

#[test]
fn rows_are_named_by_it() {
    let both = with_rows();
    let fetched = both.same_in_both_forms(&["corpus", "fetch", "rows", "--id", IDS[0], "--id", "nope", "--id", "7"]);
    assert!(fetched.stderr.contains("1 id found nothing: nope"), "{}", fetched.stderr);
    let rows = fetched.records();
    assert_eq!((&rows[0]["row"], &rows[1]["row"], &rows[0]["path"]), (&json!(0), &json!(3), &json!(IDS[0])));

    for (row, id) in IDS.iter().enumerate() {
        let found = both.same_in_both_forms(&["search", "rows", "--id", id, "--metric", "l2", "--k", "2"]).records();
        let hits = &found[0]["hits"];
        assert_eq!((&hits[0]["id"], &hits[0]["row"]), (&json!(id), &json!(row)));
        assert!(hits[0].get("memory_id").is_none());
    }
    let table = both.same(&["search", "rows", "--id", "7", "--k", "1", "--titles"]).succeeded().stdout;
    let headings = table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(headings, ["RANK", "ROW", "ID", "SCORE", "TITLE"]);
    both.same(&["search", "rows", "--id", "nope"]).failed(1, &["query_ids", "no row has the id", "nope"]);
    both.same(&["search", "rows", "--id", "7", "--row", "1"]).failed(2, &["exclude each other"]);
    both.same(&["search", "rows"]).failed(2, &["--query-file", "--row", "--id"]);

    both.folder.write("some", format!("{}\r\n\n{}\nnope\n{}\n", IDS[0], IDS[2], IDS[4]));
    let found = |more: &[&str]| {
        let args = ["search", "rows", "--row", "5", "--metric", "dot", "--json"];
        let records = both.same(&[&args[..], more].concat()).succeeded().records();
        let hits = records[0]["hits"].as_array().unwrap().clone();
        hits.iter().map(|hit| hit["row"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(found(&["--allow", "some"]), [4, 2, 0]);
    assert_eq!(found(&["--deny", "some"]), [5, 3, 1]);
    assert_eq!(found(&["--filter", "path like 'inbox/%'"]), [1, 0]);

    let near = ["nearest", "rows", "--query", "3,0,0,0,0", "--k", "1", "--deny", "some"];
    let near = both.same_in_both_forms(&near).records();
    assert_eq!(near[0]["neighbours"], json!([{ "row": 3, "id": "7", "distance": 0.0 }]));
    assert!(both.same(&["nearest", "rows", "--query", "3,0,0,0,0"]).succeeded().stdout.contains("ID"));

    let deleted = both.same(&["corpus", "delete", "rows", IDS[1], "no", "--json"]).succeeded().records();
    assert_eq!((&deleted[0]["rows"], &deleted[0]["missing_ids"]), (&json!(1), &json!(["no"])));
    let deleted = both.same(&["corpus", "delete", "rows", "--ids-file", "some", "--json"]).succeeded().records();
    assert_eq!((&deleted[0]["rows"], &deleted[0]["missing_ids"]), (&json!(3), &json!(["nope"])));
    both.folder.write("numbers.csv", "memory_id,embedding\n4,\"[7, 7]\"\n");
    both.same(&["corpus", "import", "plain", "numbers.csv", "--json"]).succeeded();
    both.same(&["corpus", "delete", "plain", "four"]).failed(2, &["\"four\"", "a whole number"]);
    let found = both.same_in_both_forms(&["search", "plain", "--id", "4"]).records();
    assert_eq!(found[0]["hits"][0]["memory_id"], 4);
    both.stop();
}

#[test]
fn joins_and_exports_have_it() {
    let both = with_rows();
    both.folder.write("numbers.csv", "memory_id,embedding\n40,\"[0, 1]\"\n50,\"[5, 1]\"\n");
    both.same(&["corpus", "import", "plain", "numbers.csv", "--json"]).succeeded();
    let join = ["join", "rows", "--metric", "l2", "--k", "1"];
    let pairs = both.same_in_both_forms(&join).records();
    assert_eq!(pairs[0], json!({ "row": 0, "id": IDS[0], "neighbour": 1, "neighbour_id": IDS[1], "score": 1.0 }));
    let pairs = both.same(&["join", "plain", "rows", "--metric", "l2", "--k", "1", "--json"]).succeeded().records();
    assert_eq!(pairs[1], json!({ "row": 1, "memory_id": 50, "neighbour": 5, "neighbour_id": IDS[5], "score": 0.0 }));
    let pairs = both.same(&["join", "rows", "plain", "--metric", "l2", "--k", "1", "--json"]).succeeded().records();
    assert_eq!(pairs[5], json!({ "row": 5, "id": IDS[5], "neighbour": 1, "neighbour_id": 50, "score": 0.0 }));
    let groups = both.same(&["join", "rows", "--metric", "l2", "--threshold", "1", "--groups", "--json"]);
    assert_eq!(groups.succeeded().records(), [json!({ "rows": [0, 1, 2, 3, 4, 5], "ids": IDS })]);
    // People see ids alone.
    let pairs = both.same(&join).succeeded().stdout;
    assert_eq!(pairs.lines().next(), Some(&*format!("{}  {}  1.000000", IDS[0], IDS[1])));
    let groups = both.same(&["join", "rows", "--metric", "l2", "--threshold", "1", "--groups"]).succeeded().stdout;
    assert_eq!(groups, format!("{}\n", IDS.join(" ")));

    // In process and by a server, under names of their own: a file is not written over.
    let server = &both.address.clone();
    let places = [["--data", "here", "", ""], ["--data", "no/such/folder", "--server", server]];
    for (at, place) in places.iter().enumerate() {
        let place: Vec<&str> = place.iter().copied().filter(|word| !word.is_empty()).collect();
        let run = |args: &[&str]| both.folder.run(&[args, &place].concat()).succeeded();
        let pairs = format!("pairs-{at}.arrow");
        run(&[&join[..], &["--out", &pairs]].concat());
        let file = std::fs::read(both.folder.path(&pairs)).unwrap();
        assert!(IDS.iter().all(|id| file.windows(id.len()).any(|part| part == id.as_bytes())));
        // An export can be imported again, as it is.
        let (out, copy) = (format!("rows-{at}.parquet"), format!("copy-{at}"));
        run(&["corpus", "export", "rows", "--out", &out]);
        run(&["corpus", "import", &copy, &out, "--id-column", "path"]);
        let found = run(&["search", &copy, "--id", IDS[4], "--k", "1", "--json"]).records();
        assert_eq!(found[0]["hits"][0]["id"], IDS[4]);
    }
    both.stop();
}
