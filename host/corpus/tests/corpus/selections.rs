//! What is selected and fetched of a corpus: how long it is kept, and what would be too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use megaring_core::Error;
use megaring_corpus::{Access, Comparison, Filter, OpenOptions, Selection, Store, Value, fetch, find};

use crate::common::{append, assert_says, store, violation};
use crate::filters::{Cell, ROWS, cells, corpus, passing};

#[test]
fn selections_are_kept_and_follow_the_corpus() {
    let (_folder, store) = corpus();
    let view = store.view("a").unwrap();
    let of = |text: &str, allow: Option<Vec<u64>>, deny: Vec<u64>| Selection {
        filter: Some(text.parse().unwrap()),
        allow: allow.map(|ids| ids.into_iter().collect()),
        deny: deny.into_iter().collect(),
    };
    let rows = |selection: &Selection, view: &_| {
        let chosen = store.select(view, selection).unwrap().view;
        chosen.visible_runs(0..chosen.rows()).flatten().collect::<Vec<usize>>()
    };
    let some = of("zone >= 0", Some(vec![3, 5, 7, 1_000_000]), vec![5]);
    assert_eq!(rows(&some, &view), [3, 7]);
    let again = [(); 2].map(|()| store.select(&view, &some).unwrap());
    assert!(Arc::ptr_eq(&again[0].view, &again[1].view));
    // Few rows that are asked for again are gathered.
    let gathered = again.map(|selected| selected.gathered.unwrap());
    assert!(Arc::ptr_eq(&gathered[0], &gathered[1]));
    assert_eq!((gathered[0].rows(), gathered[0].number(0), gathered[0].number(1)), (2, 3, 7));
    assert_eq!(gathered[0].embedding(1), view.embedding(7));
    assert!(Arc::ptr_eq(&store.select(&view, &Selection::default()).unwrap().view, &view));
    store.delete("a", &[3]).unwrap();
    assert_eq!(rows(&some, &store.view("a").unwrap()), [7]);
    assert_eq!(rows(&some, &view), [3, 7], "the version of before is as it was");
    // Many others push it out, and it is made anew.
    for number in 0..100 {
        rows(&of(&format!("memory_id = {number}"), None, Vec::new()), &view);
    }
    assert_eq!(rows(&some, &view), [3, 7]);
    assert_eq!(rows(&of("zone >= 0", Some(Vec::new()), Vec::new()), &view), [0; 0]);
}

#[test]
fn columns_of_any_type_are_fetched_by_number_and_by_id() {
    let (_folder, store) = corpus();
    store.delete("a", &[2]).unwrap();
    let view = store.view("a").unwrap();
    let (rows, missing) = find(&view, &[151, 2, 7, 99, 151], 4).unwrap();
    assert_says(&violation(find(&view, &[151, 2, 7, 99, 151], 3)).description, &["more than 3 rows"]);
    assert_eq!((rows.as_slice(), missing.as_slice()), (&[151, 7, 99, 151][..], &[2][..]));
    let columns: Vec<String> = ["*", "zone", "embedding"].map(str::to_owned).into();
    // Texts of one column are stored in different ways.
    assert_says(&violation(fetch(&view, &rows, &columns, 1 << 20)).description, &["tag", "Dictionary", "Utf8View"]);
    let columns: Vec<String> = ["memory_id", "price", "day", "embedding", "path"].map(str::to_owned).into();
    let fetched = fetch(&view, &rows, &columns, 1 << 20).unwrap();
    assert_eq!(fetched.columns(), ["memory_id", "price", "day", "embedding", "path"]);
    for (at, row) in rows.iter().enumerate() {
        let values = fetched.json(at).unwrap();
        assert_eq!(values[0], serde_json::json!(row));
        let is_there = *row < 101 && cells("price", *row as usize) != Cell::Null;
        assert_eq!(values[1].is_null(), !is_there, "row {row}: {values:?}");
        assert_eq!(values[3].as_array().map(Vec::len), Some(2));
    }
    assert_says(&violation(fetch(&view, &[0, 2], &columns, 1 << 20)).description, &["row 2", "deleted"]);
    assert_says(&violation(fetch(&view, &[300], &columns, 1 << 20)).description, &["row 300", "not there"]);
    assert_says(&violation(fetch(&view, &[], &["nothing".into()], 1 << 20)).description, &["\"nothing\""]);
    assert!(fetch(&view, &[], &["zone".into()], 1 << 20).is_ok());
}

/// Chains of operators that are nested as deep as they are long, read on the small stacks that tests have.
#[test]
fn no_text_exhausts_the_stack() {
    let chains = ["a+", "a=", "a || ", "a::int::", "a.", "a is null is null = ", "- ", "not ", "a between 1 and "];
    for link in chains {
        for end in ["a = 1", "1"] {
            let count = 4_000 / link.len();
            let text = format!("{}{end}", link.repeat(count));
            let read: Result<Filter, Error> = text[..text.len().min(4_096)].parse();
            if let Ok(filter) = read {
                let folder = store();
                folder.1.create("a", 2).unwrap();
                drop(passing(&folder.1, filter));
            }
        }
    }
    for postfix in ["::int", " is null", " is not null", "[1]", ".b"] {
        let text = format!("a{}", postfix.repeat(4_000 / postfix.len()));
        drop(text.parse::<Filter>());
    }
}

#[test]
fn filters_that_would_take_for_ever_are_refused() {
    let (_folder, store) = corpus();
    let one = |value| Filter::Compare { column: "zone".into(), comparison: Comparison::Equal, value };
    let many = Filter::Any((0..2_501).map(|value| one(Value::Integer(value))).collect());
    assert_says(&violation(passing(&store, many)).description, &["2500 comparisons"]);
    let values = (0..65_537).map(Value::Integer).collect();
    assert_says(&violation(passing(&store, Filter::In { column: "zone".into(), values })).description, &["65536"]);
    assert_says(&violation(passing(&store, one(Value::Float(f64::NAN)))).description, &["no number"]);
    // Long lists of numbers are looked up.
    let values = (0..60_000).map(|value| Value::Float(f64::from(value) / 2.0)).collect();
    let found = passing(&store, Filter::In { column: "importance".into(), values }).unwrap();
    let want = |row: &usize| matches!(cells("importance", *row), Cell::Float(value) if (0.0..30_000.0).contains(&value) && (2.0 * value).fract() == 0.0);
    assert_eq!(found, (0..ROWS).filter(want).collect::<Vec<_>>());
    let small = |text: &str| passing(&store, text.parse().unwrap()).unwrap().len();
    assert_eq!((small("price = 0.0000001"), small("price = 1e-7")), (0, 0));
    assert_eq!(small("price > 1e-7"), small("price > 0"));
    let limit =
        Filter::Compare { column: "price".into(), comparison: Comparison::Less, value: Value::Float(f64::INFINITY) };
    assert_eq!(passing(&store, limit).unwrap().len(), small("price is not null"));
}

#[test]
fn what_was_selected_of_a_corpus_goes_with_its_version() {
    let (_folder, store) = corpus();
    let view = store.view("a").unwrap();
    let selection = Selection { filter: Some("zone > 3".parse().unwrap()), ..Selection::default() };
    let old = Arc::downgrade(&store.select(&view, &selection).unwrap().view);
    drop(view);
    assert!(old.upgrade().is_some());
    store.delete("a", &[1]).unwrap();
    assert!(old.upgrade().is_none());
    let view = store.view("a").unwrap();
    let now = Arc::downgrade(&store.select(&view, &selection).unwrap().view);
    drop(view);
    store.drop_corpus("a").unwrap();
    assert!(now.upgrade().is_none());
}

/// A filter that compares several times.
fn slow() -> Selection {
    let filter = "zone >= 0 and zone <= 255 and memory_id >= 3 and memory_id < 20".parse().unwrap();
    Selection { filter: Some(filter), ..Selection::default() }
}

#[test]
fn a_selection_that_nobody_wants_any_more_is_given_up() {
    let (_folder, store) = corpus();
    let view = store.view("a").unwrap();
    let asked = AtomicUsize::new(0);
    let all = |wanted: &AtomicUsize, most| wanted.fetch_add(1, Ordering::Relaxed) < most;
    store.select_while(&view, &slow(), &|| all(&asked, usize::MAX)).unwrap();
    let times = asked.load(Ordering::Relaxed);
    let parts = view.segments().count();
    assert_eq!(times, 4 * parts, "each comparison of each part asks");
    store.delete("a", &[151]).unwrap();
    let view = store.view("a").unwrap();
    for most in 0..times {
        let asked = AtomicUsize::new(0);
        let given_up = store.select_while(&view, &slow(), &|| all(&asked, most));
        assert!(matches!(given_up, Err(Error::Cancelled)), "after {most}");
        assert!(store.selected(&view, &slow()).is_none(), "half of it is kept");
    }
    let selected = store.select(&view, &slow()).unwrap().view;
    assert_eq!(selected.visible_runs(0..selected.rows()).flatten().collect::<Vec<_>>(), (3..20).collect::<Vec<_>>());
}

/// Neither one that goes away while it waits, nor one for whom others wait.
#[test]
fn who_wants_the_same_selection_is_not_held_up_by_one_that_is_given_up() {
    let (_folder, store) = corpus();
    let view = store.view("a").unwrap();
    let (begun, waiting) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let maker = scope.spawn(|| {
            store.select_while(&view, &slow(), &|| {
                begun.store(true, Ordering::Release);
                while !waiting.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                false
            })
        });
        while !begun.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert!(matches!(store.select_while(&view, &slow(), &|| false), Err(Error::Cancelled)), "it waits on");
        assert!(!maker.is_finished());
        let found = store.select_while(&view, &slow(), &|| {
            waiting.store(true, Ordering::Release);
            true
        });
        assert_eq!(found.unwrap().view.visible_rows(), 17);
        assert!(matches!(maker.join().unwrap(), Err(Error::Cancelled)));
    });
}

/// Rows that are committed, and segments that are merged, while rows to be deleted are looked for.
#[test]
fn a_deletion_by_filter_holds_up_nobody_and_misses_nothing() {
    for small_bytes in [0, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { small_bytes, ..OpenOptions::default() };
        let store = Store::open_with(folder.path(), Access::Exclusive, options).unwrap();
        store.create("a", 4).unwrap();
        (0..4).for_each(|part| append(&store, "a", 10 * part, 10, 4));
        let selection = |text: &str| Selection { filter: Some(text.parse().unwrap()), ..Selection::default() };
        let asked = AtomicUsize::new(0);
        let even = selection("title like '%' and memory_id >= 1005 and memory_id < 1065");
        let meanwhile = || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => append(&store, "a", 40, 30, 4),
            1 => _ = store.delete("a", &[1006, 1050, 1069]).unwrap(),
            2 => _ = store.compact("a").unwrap(),
            _ => {}
        };
        // On a thread of its own: with appends held up it would wait for ever.
        let wanted = || std::thread::scope(|scope| scope.spawn(meanwhile).join().is_ok());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let deleted = pool.install(|| store.delete_selected("a", &even, &wanted));
        let deleted = deleted.unwrap();
        assert_eq!((deleted.rows, deleted.total_rows), (60 - 2, 9));
        let view = store.view("a").unwrap();
        let left = view.visible_runs(0..view.rows()).flatten().map(|row| view.label(row as u32).0);
        assert_eq!(left.collect::<Vec<u64>>(), (1000..1005).chain(1065..1069).collect::<Vec<u64>>());
        // Given up, it leaves the corpus as it was.
        let given_up = store.delete_selected("a", &selection("memory_id < 1003"), &|| false);
        assert!(matches!(given_up, Err(Error::Cancelled)));
        assert!(Arc::ptr_eq(&view, &store.view("a").unwrap()));
        let none = store.delete_selected("a", &selection("memory_id = 7"), &|| true).unwrap();
        assert_eq!((none.rows, none.generation), (0, view.generation()));
        let wrong = |selection: &Selection| violation(store.delete_selected("a", selection, &|| true));
        let nothing = wrong(&Selection::default());
        assert_eq!(nothing.field, "filter");
        assert_says(&nothing.description, &["all rows", "\"true\""]);
        assert_says(&wrong(&selection("colour = 1")).description, &["colour"]);
        assert_eq!(store.view("a").unwrap().visible_rows(), 9);
        assert_eq!(store.delete_selected("a", &selection("true"), &|| true).unwrap().rows, 9);
        assert!(store.verify("a").unwrap().is_clean());
    }
}
