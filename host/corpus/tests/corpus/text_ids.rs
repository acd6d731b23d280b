//! Ids that are texts: what is taken for one, what two texts of one hash are, and what a log says of it.

use std::fs;
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray,
    UInt64Array,
};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field, Schema};
use megaring_core::Error;
use megaring_core::checksum::xxhash64;
use megaring_corpus::import::{self, Format, ImportOptions, Report};
use megaring_corpus::{
    Access, CreateOptions, IdList, Mode, OpenOptions, Rows, Selection, Store, TextIds, fetch, find_each, find_texts,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::SchemaDescriptor;

use crate::common::{TWINS, append, assert_says, rows, scratch, store, violation};

const COLUMN: &str = "path";

fn with_paths(unique_ids: bool) -> (tempfile::TempDir, Arc<Store>) {
    let (folder, store) = store();
    store.create_with("a", 2, CreateOptions { unique_ids, id_column: Some(COLUMN.into()) }).unwrap();
    (folder, store)
}

fn named(ids: &[&str]) -> Rows {
    Rows { memory_ids: Vec::new(), ids: texts(ids), ..rows(0, ids.len(), 2) }
}

fn add(store: &Store, mode: Mode, ids: &[&str]) -> Result<(), Error> {
    let mut appender = store.append_as("a", mode).unwrap();
    appender.push(named(ids))?;
    appender.commit().map(|_| ())
}

fn ids(store: &Store) -> Vec<String> {
    let view = store.view("a").unwrap();
    let ids = TextIds::of(&view).unwrap();
    view.visible_runs(0..view.rows()).flatten().map(|row| ids.get(row as u32).unwrap().to_owned()).collect()
}

fn texts(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn texts_of_one_hash_are_not_taken_for_one_another() {
    let hash = xxhash64(TWINS[0].as_bytes());
    assert!(TWINS.iter().all(|twin| xxhash64(twin.as_bytes()) == hash));
    let [one, two, three, four] = TWINS;
    let (_folder, store) = with_paths(true);
    add(&store, Mode::Append, &[one, "other", two]).unwrap();
    let taken = violation(add(&store, Mode::Append, &["new", two]));
    assert_eq!((taken.field.as_str(), taken.row), ("ids", Some(1)));
    assert_says(&taken.description, &[two, "upsert"]);
    let twice = violation(add(&store, Mode::Append, &[three, four, three]));
    assert_eq!((twice.field.as_str(), twice.row), ("ids", Some(2)));
    assert_says(&twice.description, &[three, "row 0"]);
    // Of new rows with one id the last stays, and it replaces the one that was there alone.
    add(&store, Mode::Upsert, &[three, two, three]).unwrap();
    assert_eq!(ids(&store), [one, "other", two, three]);
    let view = store.view("a").unwrap();
    assert_eq!(view.label(0).0, hash);
    assert_eq!(find_texts(&view, &texts(&[two, four, one]), 9).unwrap(), (vec![4, 0], texts(&[four])));
    assert_eq!(find_each(&view, &[], &texts(&[three, one]), "query_ids").unwrap(), [5, 0]);
    let none = violation(find_each(&view, &[], &texts(&[three, four]), "query_ids"));
    assert_eq!((none.field.as_str(), none.row), ("query_ids.texts", Some(1)));
    assert_says(&none.description, &["no row", four]);
    // The number that stands for them is that of all.
    let several = violation(find_each(&view, &[hash], &[], "query_ids"));
    assert_eq!((several.field.as_str(), several.row), ("query_ids.ids", Some(0)));
    assert_says(&several.description, &["several", "0", "4"]);
    let chosen = |allow: Option<IdList>, deny: IdList| {
        let selected = store.select(&view, &Selection { filter: None, allow, deny }).unwrap().view;
        selected.visible_runs(0..selected.rows()).flatten().collect::<Vec<usize>>()
    };
    let list = |ids: &[&str]| texts(ids).into_iter().collect::<IdList>();
    assert_eq!(chosen(Some(list(&[two, four])), IdList::default()), [4]);
    assert_eq!(chosen(None, list(&[two, four])), [0, 1, 5]);
    assert_eq!(chosen(Some([hash].into_iter().collect()), IdList::default()), [0, 4, 5]);
    let deleted = store.delete_all("a", &[], &texts(&[four, one, "gone", one])).unwrap();
    assert_eq!((deleted.rows, deleted.missing_texts), (1, texts(&[four, "gone"])));
    assert_eq!(ids(&store), ["other", two, three]);
    store.compact("a").unwrap();
    assert_eq!(ids(&store), ["other", two, three]);
    assert!(store.verify("a").unwrap().is_clean());
}

#[test]
fn what_is_no_id_is_refused() {
    let (_folder, store) = with_paths(false);
    let refused = |rows: Rows| {
        let mut appender = store.append("a").unwrap();
        violation(appender.push(rows))
    };
    let says = |rows: Rows, field: &str, row: Option<u64>, parts: &[&str]| {
        let found = refused(rows);
        assert_eq!((found.field.as_str(), found.row), (field, row), "{found:?}");
        assert_says(&found.description, parts);
    };
    says(Rows { memory_ids: Vec::new(), ..rows(0, 3, 2) }, "ids", None, &["column path", "missing"]);
    says(Rows { memory_ids: vec![5, 6, 7], ..rows(0, 3, 2) }, "ids", None, &["column path", "missing"]);
    says(named(&["a", ""]), "ids", Some(1), &["empty", "path"]);
    let long = "x".repeat(4097);
    says(named(&["a", "b", &long]), "ids", Some(2), &["4097 bytes", "4096", "path"]);
    says(Rows { ids: texts(&["a", "b"]), ..rows(0, 3, 2) }, "ids", None, &["2 values for 3 rows"]);
    let both = Rows { memory_ids: vec![xxhash64(b"a"), 7], ..named(&["a", "b"]) };
    says(both, "memory_id", Some(1), &["7", "path"]);
    let with_column = |array: ArrayRef| {
        let mut rows = Rows { memory_ids: Vec::new(), ..rows(0, 2, 2) };
        let batch = RecordBatch::try_from_iter([(COLUMN, array)]).unwrap();
        rows.add_columns(&stream(&batch)).unwrap();
        rows
    };
    let null = Arc::new(StringArray::from(vec![Some("a"), None]));
    says(with_column(null), "ids", Some(1), &["null", "path"]);
    says(with_column(Arc::new(UInt64Array::from(vec![1, 2]))), "ids", None, &["column path", "UInt64", "text"]);
    let twice = Rows { ids: texts(&["a", "b"]), ..with_column(Arc::new(StringArray::from(vec!["a", "b"]))) };
    says(twice, "ids", None, &["twice", "path"]);
    // Nothing of it is there, and all that is text is taken, and stored in one form.
    assert_eq!(store.view("a").unwrap().rows(), 0);
    let forms: [ArrayRef; 3] = [
        Arc::new(StringArray::from(vec!["a", "b"])),
        Arc::new(LargeStringArray::from(vec!["c", "d"])),
        Arc::new(StringViewArray::from(vec!["e", "f, longer than twelve bytes"])),
    ];
    for form in forms {
        let mut appender = store.append("a").unwrap();
        appender.push(with_column(form)).unwrap();
        appender.commit().unwrap();
    }
    add(&store, Mode::Append, &["g", &"y".repeat(4096)]).unwrap();
    assert_eq!(ids(&store)[..7], ["a", "b", "c", "d", "e", "f, longer than twelve bytes", "g"]);
    store.compact("a").unwrap();
    assert_eq!(store.describe("a").unwrap().segments.len(), 1, "rows of one form are merged");
    let view = store.view("a").unwrap();
    let fetched = fetch(&view, &[3, 0], &["path".into(), "memory_id".into()], 1 << 20).unwrap();
    assert_eq!(fetched.json(0).unwrap(), [serde_json::json!("d"), serde_json::json!(xxhash64(b"d"))]);
    let filter = Some("path like 'f,%'".parse().unwrap());
    let selected = store.select(&view, &Selection { filter, ..Selection::default() }).unwrap().view;
    assert_eq!(selected.visible_runs(0..view.rows()).flatten().collect::<Vec<_>>(), [5]);

    // A corpus without an id column has no text ids.
    store.create("plain", 2).unwrap();
    append(&store, "plain", 0, 3, 2);
    let mut appender = store.append("plain").unwrap();
    let found = violation(appender.push(named(&["a"])));
    assert_eq!(found.field, "ids");
    assert_says(&found.description, &["no id column"]);
    let found = violation(store.delete_all("plain", &[1000], &texts(&["a"])));
    assert_eq!(found.field, "text_ids");
    assert_eq!(store.view("plain").unwrap().visible_rows(), 3, "nothing is deleted");
    let plain = store.view("plain").unwrap();
    assert_eq!(violation(find_texts(&plain, &texts(&["a"]), 9)).field, "ids.texts");
    assert_eq!(violation(find_each(&plain, &[], &texts(&["a"]), "query_ids")).field, "query_ids.texts");
    let deny = texts(&["a"]).into_iter().collect();
    let selection = Selection { deny, ..Selection::default() };
    assert_eq!(violation(store.select(&plain, &selection).map(|_| ())).field, "filter.deny.texts");
    assert_eq!(TextIds::of(&plain).unwrap().get(0), None);
}

fn stream(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn columns_of_another_meaning_are_no_id_columns() {
    let (_folder, store) = store();
    for column in ["", "*", "memory_id", "title", "embedding", "x", "zone"] {
        let options = CreateOptions { id_column: Some(column.into()), ..CreateOptions::default() };
        assert_eq!(violation(store.create_with("a", 2, options)).field, "id_column", "{column:?}");
    }
}

#[test]
fn a_log_says_which_column_it_is_and_programs_of_before_do_not_read_it() {
    for small_bytes in [0, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { small_bytes, ..OpenOptions::default() };
        let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
        let id_column = Some(COLUMN.to_owned());
        store.create_with("a", 2, CreateOptions { id_column: id_column.clone(), ..CreateOptions::default() }).unwrap();
        add(&store, Mode::Append, &["x/y", TWINS[1]]).unwrap();
        store.create("plain", 2).unwrap();
        append(&store, "plain", 0, 3, 2);
        store.take_from(&store, "a", "b").unwrap();
        drop(store);
        let log = |name: &str| fs::read(folder.path().join(name).join("manifest.log")).unwrap();
        let has = |log: &[u8], text: &str| log.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has(&log("a"), "{\"format\":4,") && has(&log("a"), "\"id_column\":\"path\""));
        assert!(has(&log("b"), "{\"format\":4,") && has(&log("b"), "\"id_column\":\"path\""));
        assert!(has(&log("plain"), "{\"format\":3,") && !has(&log("plain"), "id_column"));
        let store = Store::open_with(folder.path(), Access::ReadOnly, options).unwrap();
        assert_eq!(
            (store.describe("b").unwrap().id_column, store.describe("plain").unwrap().id_column),
            (id_column, None)
        );
        assert_eq!(ids(&store), ["x/y", TWINS[1]]);
        assert!(store.verify("a").unwrap().is_clean());
    }
}

#[test]
fn a_hash_that_does_not_fit_its_text_is_found() {
    // A whole corpus whose checksums are right, but of which a log says that another column has the ids.
    let (folder, store) = with_paths(false);
    add(&store, Mode::Append, &["a", "b"]).unwrap();
    let mut rows = named(&["q", "r"]);
    let other =
        RecordBatch::try_from_iter([("hash", Arc::new(StringArray::from(vec!["1", "2"])) as ArrayRef)]).unwrap();
    rows.add_columns(&stream(&other)).unwrap();
    store.create_with("c", 2, CreateOptions { id_column: Some("path".into()), ..CreateOptions::default() }).unwrap();
    let mut appender = store.append("c").unwrap();
    appender.push(rows).unwrap();
    appender.commit().unwrap();
    let log = folder.path().join("c/manifest.log");
    drop(store);
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, with_column(&bytes, "path", "hash")).unwrap();
    let store = crate::common::open(folder.path(), Access::ReadOnly).unwrap();
    let report = store.verify("c").unwrap();
    let fault = report.segments[0].fault.clone().unwrap();
    assert_says(&fault, &["memory_id", "row 0", "xxHash64", "hash"]);
    assert!(store.verify("a").unwrap().is_clean());
}

/// A log whose opening names another id column of as many letters.
fn with_column(log: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = u32::from_le_bytes(log[..4].try_into().unwrap()) as usize;
    let opening = std::str::from_utf8(&log[16..16 + text]).unwrap();
    let opening = opening.replace(&format!("\"id_column\":\"{from}\""), &format!("\"id_column\":\"{to}\""));
    assert_eq!(opening.len(), text);
    let mut head = log[..8].to_vec();
    head.extend(crc32fast::hash(opening.as_bytes()).to_le_bytes());
    head.extend(crc32fast::hash(&head).to_le_bytes());
    [&head, opening.as_bytes(), &log[16 + text..]].concat()
}

fn import(store: &Store, name: &str, content: impl AsRef<[u8]>, skip_invalid: bool) -> Result<Report, Error> {
    let (_scratch, path) = scratch(name, content);
    let mut options = ImportOptions { skip_invalid, dim: Some(2), ..ImportOptions::default() };
    options.columns.read_ids(COLUMN).unwrap();
    import::run(store, "a", import::open(&path, None, &options)?, &mut |_| {})
}

#[test]
fn files_of_lines_have_ids_as_text() {
    let (_folder, store) = with_paths(true);
    let jsonl =
        "{\"path\": \"in/1\", \"embedding\": [1, 2]}\n{\"embedding\": [3, 4], \"path\": \" in/2 \", \"zone\": 1}\n";
    import(&store, "a.jsonl", jsonl.replace(", \"zone\": 1", ""), false).unwrap();
    let csv = "path,embedding,title\n\"in, 3\",\"[1, 2]\",t\n00000000-0000-0000-0000-000000000004,\"[1, 2]\",\n";
    import(&store, "a.csv", csv, false).unwrap();
    assert_eq!(ids(&store), ["in/1", " in/2 ", "in, 3", "00000000-0000-0000-0000-000000000004"]);
    let fails = |name: &str, content: &str, parts: &[&str]| {
        let found = violation(import(&store, name, content, false));
        assert_says(&found.to_string(), parts);
    };
    fails("b.jsonl", "{\"path\": 7, \"embedding\": [1, 2]}\n", &["line 1: path", "integer", "text"]);
    fails(
        "b.jsonl",
        "{\"path\": \"a\", \"embedding\": [1, 2]}\n{\"embedding\": [1, 2]}\n",
        &["line 2: path", "missing"],
    );
    fails("b.jsonl", "{\"path\": \"\", \"embedding\": [1, 2]}\n", &["line 1: path", "empty"]);
    fails("b.csv", "id,embedding\nx,\"[1, 2]\"\n", &["path", "missing", "id, embedding"]);
    fails("b.csv", "path,embedding\nx,\"[1, 2]\"\n,\"[1, 2]\"\n", &["line 3: path", "missing"]);
    fails("b.csv", "path,path,embedding\nx,y,\"[1, 2]\"\n", &["path", "twice"]);
    let report = import(&store, "b.csv", "path,embedding\nx,\"[1, 2]\"\n,\"[1, 2]\"\n", true).unwrap();
    assert_eq!((report.appended.rows, report.skipped), (1, 1));
    let npy = violation(import(&store, "c.fvecs", [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false));
    assert_says(&npy.to_string(), &["fvecs", "no columns", "path"]);
    let mut columns = import::Columns::default();
    assert_eq!(violation(columns.read_ids("title")).field, "id_column");
}

/// Two rows of which the ids are UUIDs, by the mark of the column or by Parquet's own schema, or the bytes of a hash.
fn uuid_file(format: Format, is_marked: bool) -> Vec<u8> {
    let bytes = [0x11_22_33_44_55_66_77_88_99_aa_bb_cc_dd_ee_ff_00_u128, 7].map(u128::to_be_bytes);
    let ids = FixedSizeBinaryArray::try_from_iter(bytes.iter()).unwrap();
    let vectors = [Some(vec![Some(1.0), Some(2.0)]), Some(vec![Some(3.0), Some(4.0)])];
    let embedding = ListArray::from_iter_primitive::<Float32Type, _, _>(vectors);
    let mut field = Field::new(COLUMN, DataType::FixedSizeBinary(16), false);
    if is_marked && format == Format::ArrowFile {
        field.metadata_mut().insert("ARROW:extension:name", "arrow.uuid");
    }
    let schema = Arc::new(Schema::new(vec![field, Field::new("embedding", embedding.data_type().clone(), false)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(ids), Arc::new(embedding)]).unwrap();
    if format == Format::ArrowFile {
        let mut writer = FileWriter::try_new(Vec::new(), &schema).unwrap();
        writer.write(&batch).unwrap();
        return writer.into_inner().unwrap();
    }
    let mark = if is_marked { "(UUID)" } else { "" };
    let list = "required group embedding (LIST) { repeated group list { optional float item; } }";
    let own = format!("message m {{ required fixed_len_byte_array(16) path {mark}; {list} }}");
    let own = SchemaDescriptor::new(Arc::new(parse_message_type(&own).unwrap()));
    let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true).with_parquet_schema(own);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn uuids_are_ids_as_the_texts_they_are_known_by() {
    for (name, format) in [("a.arrow", Format::ArrowFile), ("a.parquet", Format::Parquet)] {
        let (_folder, store) = with_paths(true);
        import(&store, name, uuid_file(format, true), false).unwrap();
        let wanted = ["11223344-5566-7788-99aa-bbccddeeff00", "00000000-0000-0000-0000-000000000007"];
        assert_eq!(ids(&store), wanted, "{name}");
        assert_eq!(find_texts(&store.view("a").unwrap(), &texts(&wanted[1..]), 9).unwrap().0, [1]);
        assert!(store.verify("a").unwrap().is_clean());
        // Other bytes, and numbers, are told with what helps.
        let refused = violation(import(&store, name, uuid_file(format, false), false));
        assert_says(&refused.to_string(), &["path", "FixedSizeBinary(16)", "texts or UUIDs", "--column memory_id="]);
    }
}

#[test]
fn what_is_exported_comes_back_with_its_ids() {
    let (folder, store) = with_paths(false);
    add(&store, Mode::Append, &["a/1", TWINS[0], TWINS[2]]).unwrap();
    for (name, format) in [("out.arrow", Format::ArrowFile), ("out.parquet", Format::Parquet)] {
        let path = folder.path().join(name);
        store.export("a", &path, format).unwrap();
        let (_other, into) = with_paths(true);
        let bytes = fs::read(&path).unwrap();
        import(&into, name, &bytes, false).unwrap();
        assert_eq!(ids(&into), ["a/1", TWINS[0], TWINS[2]], "{name}");
        assert!(into.verify("a").unwrap().is_clean());
        // Whoever does not say which column it is leaves it to the corpus.
        let import = import::open(&path, None, &ImportOptions::default()).unwrap();
        let (_other, into) = with_paths(true);
        import::run(&into, "a", import, &mut |_| {}).unwrap();
        assert_eq!(ids(&into), ["a/1", TWINS[0], TWINS[2]], "{name}");
    }
}

/// An Arrow IPC file of two rows with these ids.
fn arrow_file(memory_ids: Option<[u64; 2]>, kind: DataType, ids: [Option<&str>; 2]) -> Vec<u8> {
    let embedding = arrow_array::FixedSizeListArray::from_iter_primitive::<arrow_array::types::Float32Type, _, _>(
        [Some([Some(1.0), Some(2.0)]), Some([Some(3.0), Some(4.0)])],
        2,
    );
    let ids = arrow_cast::cast(&StringArray::from(ids.to_vec()), &kind).unwrap();
    let nullable = ids.null_count() > 0;
    let mut fields = vec![
        Field::new("embedding", arrow_array::Array::data_type(&embedding).clone(), false),
        Field::new(COLUMN, kind, nullable),
    ];
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(embedding), ids];
    if let Some(numbers) = memory_ids {
        fields.push(Field::new("memory_id", DataType::UInt64, false));
        arrays.push(Arc::new(UInt64Array::from(numbers.to_vec())));
    }
    let schema = Arc::new(Schema::new(fields));
    let mut writer = FileWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&RecordBatch::try_new(schema, arrays).unwrap()).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn a_file_is_served_as_it_is_where_its_hashes_fit() {
    let hashes = [xxhash64(b"a"), xxhash64(b"b")];
    let report = |content: Vec<u8>, skip_invalid: bool| {
        let (folder, store) = with_paths(true);
        let report = import(&store, "f.arrow", content, skip_invalid);
        (folder, ids(&store), store.verify("a").unwrap().is_clean(), report)
    };
    let cases = [
        (Some(hashes), DataType::Utf8, true),
        (None, DataType::Utf8, false),
        (Some(hashes), DataType::LargeUtf8, false),
        (None, DataType::Utf8View, false),
    ];
    for (numbers, kind, as_is) in cases {
        let (_folder, found, clean, report) = report(arrow_file(numbers, kind.clone(), [Some("a"), Some("b")]), false);
        assert_eq!((found, clean, report.unwrap().as_is), (texts(&["a", "b"]), true, as_is), "{kind}");
    }
    let bad = arrow_file(Some([hashes[0], 7]), DataType::Utf8, [Some("a"), Some("b")]);
    let (_folder, found, _, refused) = report(bad, false);
    assert_says(&violation(refused).to_string(), &["memory_id", "row 1", "7"]);
    assert_eq!(found, texts(&[]));
    let null = || arrow_file(None, DataType::Utf8, [Some("a"), None]);
    let (_folder, found, _, refused) = report(null(), false);
    assert_says(&violation(refused).to_string(), &["path", "row 1", "null"]);
    assert_eq!(found, texts(&[]));
    let (_folder, found, _, skipped) = report(null(), true);
    assert_eq!((found, skipped.unwrap().skipped), (texts(&["a"]), 1));
}
