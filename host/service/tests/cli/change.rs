//! Rows that are deleted, replaced, filtered and fetched on the command line.

use serde_json::json;

use crate::common::Folder;

/// A corpus of eight rows on a line, of two zones, whose ids are 10 to 17.
fn folder() -> Folder {
    let folder = Folder::new();
    let row = |row: u64| {
        let (id, zone) = (10 + row, row % 2);
        format!("{{\"memory_id\": {id}, \"title\": \"in/{row}\", \"zone\": {zone}, \"embedding\": [{row}, 1]}}\n")
    };
    folder.write("rows.jsonl", (0..8).map(row).collect::<String>());
    folder.run(&["corpus", "create", "rows", "--dim", "2", "--unique-ids"]).succeeded();
    folder.run(&["corpus", "append", "rows", "rows.jsonl"]).succeeded();
    folder
}

/// The ids that a search for [1, 0] by dot finds.
fn found(folder: &Folder, more: &[&str]) -> Vec<u64> {
    folder.write("query.jsonl", "{\"embedding\": [1, 0]}\n");
    let args = ["search", "rows", "--query-file", "query.jsonl", "--metric", "dot", "--k", "3", "--json"];
    let records = folder.run(&[&args[..], more].concat()).succeeded().records();
    let hits = records[0]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["memory_id"].as_u64().unwrap()).collect()
}

#[test]
fn rows_are_deleted_and_replaced() {
    let folder = folder();
    assert_eq!(found(&folder, &[]), [17, 16, 15]);
    assert!(folder.run(&["corpus", "delete", "rows", "17"]).succeeded().stdout.contains("1 row deleted, 7 left"));
    folder.write("ids.txt", "15\n\n 99 \n");
    let deleted = folder.run(&["corpus", "delete", "rows", "--ids-file", "ids.txt", "--json"]).succeeded().records();
    let is = |field: &str| deleted[0][field].clone();
    assert_eq!((is("rows"), is("missing_ids"), is("total_rows")), (json!(1), json!([99]), json!(6)));
    assert_eq!(found(&folder, &[]), [16, 14, 13]);
    folder.write("new.jsonl", "{\"memory_id\": 13, \"title\": \"new\", \"zone\": 1, \"embedding\": [100, 1]}\n");
    folder.run(&["corpus", "append", "rows", "new.jsonl"]).failed(1, &["memory_id (row 0)", "13", "upsert"]);
    let replaced = folder.run(&["corpus", "append", "rows", "new.jsonl", "--upsert"]).succeeded();
    assert!(replaced.stdout.contains("1 row added in the place of 1, 6 x 2 in all"), "{}", replaced.stdout);
    assert_eq!(found(&folder, &[]), [13, 16, 14]);
    let described = folder.run(&["corpus", "describe", "rows"]).succeeded().stdout;
    assert!(described.contains("6 rows x 2, 3 deleted, each id once"), "{described}");
    folder.run(&["search", "rows", "--row", "3"]).failed(1, &["row 3", "deleted"]);
    folder.run(&["corpus", "compact", "rows"]).succeeded();
    assert_eq!(found(&folder, &[]), [13, 16, 14]);
    let listed = folder.run(&["corpus", "export", "rows", "--out", "rows.npy"]).succeeded().stdout;
    assert!(listed.contains("6 rows"), "{listed}");
    folder.run(&["corpus", "delete", "rows"]).failed(2, &["ids are missing"]);
    folder.write("ids.txt", "15\nfifteen\n");
    folder.run(&["corpus", "delete", "rows", "--ids-file", "ids.txt"]).failed(1, &["ids.txt", "row 1", "fifteen"]);
    folder.run(&["corpus", "delete", "other", "1"]).failed(1, &["other"]);
}

#[test]
fn rows_are_deleted_by_a_condition() {
    let folder = folder();
    let delete = |filter: &str| folder.run(&["corpus", "delete", "rows", "--filter", filter]);
    let deleted = delete("zone = 1 and memory_id < 15").succeeded().stdout;
    assert!(deleted.contains("2 rows deleted, 6 left"), "{deleted}");
    assert!(delete("zone = 7").succeeded().stdout.contains("0 rows deleted, 6 left"));
    assert_eq!(found(&folder, &["--filter", "zone = 1"]), [17, 15]);
    delete("").failed(1, &["filter"]);
    delete("zones = 1").failed(1, &["zones"]);
    folder.run(&["corpus", "delete", "rows", "10", "--filter", "zone = 1"]).failed(2, &["--filter"]);
    assert!(delete("true").succeeded().stdout.contains("6 rows deleted, 0 left"));
}

#[test]
fn searches_are_limited_to_some_rows_and_show_their_columns() {
    let folder = folder();
    assert_eq!(found(&folder, &["--filter", "zone = 0"]), [16, 14, 12]);
    assert_eq!(found(&folder, &["--filter", "zone = 0 and title like 'in/4%'"]), [14]);
    folder.write("some.txt", "11\n12\n13\n");
    assert_eq!(found(&folder, &["--allow", "some.txt"]), [13, 12, 11]);
    assert_eq!(found(&folder, &["--deny", "some.txt", "--filter", "zone = 1"]), [17, 15]);
    folder.run(&["search", "rows", "--row", "0", "--filter", "zone ="]).failed(1, &["filter"]);
    folder.run(&["search", "rows", "--row", "0", "--filter", "zones = 1"]).failed(1, &["zones", "zone"]);
    folder.run(&["search", "rows", "--row", "0", "--columns", "colour"]).failed(1, &["colour"]);
    let table = folder.run(&["search", "rows", "--row", "2", "--k", "1", "--columns", "*"]).succeeded().stdout;
    let headings = table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(headings, ["RANK", "ROW", "MEMORY", "SCORE", "memory_id", "title", "zone"]);
    let records = folder.run(&["search", "rows", "--row", "2", "--k", "1", "--columns", "zone,title", "--json"]);
    assert_eq!(records.succeeded().records()[0]["hits"][0]["columns"], json!({ "zone": 0, "title": "in/2" }));
}

#[test]
fn rows_are_fetched_by_id_and_by_number() {
    let folder = folder();
    let fetched = folder.run(&["corpus", "fetch", "rows", "--id", "13,99", "--row", "0", "--json"]);
    assert!(fetched.stderr.contains("1 id found nothing: 99"), "{}", fetched.stderr);
    let row = |row: u64| json!({ "row": row, "memory_id": 10 + row, "title": format!("in/{row}"), "zone": row % 2 });
    assert_eq!(fetched.succeeded().records(), [row(3), row(0)]);
    let vectors = ["corpus", "fetch", "rows", "--row", "2", "--columns", "embedding", "--json"];
    assert_eq!(folder.run(&vectors).succeeded().records(), [json!({ "row": 2, "embedding": [2.0, 1.0] })]);
    let table = folder.run(&["corpus", "fetch", "rows", "--row", "2"]).succeeded().stdout;
    assert!(table.contains("memory_id") && table.contains("in/2"), "{table}");
    folder.run(&["corpus", "fetch", "rows"]).failed(2, &["--id", "--row"]);
    folder.run(&["corpus", "fetch", "rows", "--row", "8"]).failed(1, &["row 8", "not there"]);
}
