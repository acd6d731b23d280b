//! Rows cut to their first elements: what is made of them, and what of it is used again.

use std::sync::Arc;

use megaring_core::RowType;
use megaring_core::corpus::CorpusView;
use megaring_corpus::Selection;

use crate::common::{append, assert_says, store, violation};

const DIM: usize = 6;

fn begins_as(prefix: &CorpusView, whole: &CorpusView, dim: usize) {
    assert_eq!((prefix.row_type(), prefix.rows()), (dim.into(), whole.rows()));
    for row in 0..whole.rows() as u32 {
        assert_eq!(prefix.embedding(row), &whole.embedding(row)[..dim]);
        assert_eq!(prefix.shows(row), whole.shows(row));
    }
}

#[test]
fn a_prefix_is_made_once_and_its_segments_serve_later_versions() {
    let (_folder, store) = store();
    store.create("a", DIM).unwrap();
    append(&store, "a", 0, 30, DIM);
    let first = store.view("a").unwrap();
    let prefix = store.prefix(&first, 2).unwrap();
    begins_as(&prefix, &first, 2);
    assert!(Arc::ptr_eq(&prefix, &store.prefix(&first, 2).unwrap()));
    assert!(Arc::ptr_eq(&first, &store.prefix(&first, DIM).unwrap()), "a whole row is no prefix");
    assert_ne!(store.prefix(&first, 3).unwrap().dim(), prefix.dim());
    append(&store, "a", 30, 5, DIM);
    store.delete("a", &[store.view("a").unwrap().label(3).0]).unwrap();
    let second = store.view("a").unwrap();
    let later = store.prefix(&second, 2).unwrap();
    begins_as(&later, &second, 2);
    assert!(!later.shows(3) && prefix.shows(3), "each version shows its own rows");
    let data = |view: &CorpusView| view.segments().next().unwrap().1.shared_data().clone();
    assert!(Arc::ptr_eq(&data(&prefix), &data(&later)), "what was made of a segment is used again");
    let filter = Some("memory_id < 10".parse().unwrap());
    let some = store.select(&second, &Selection { filter, ..Selection::default() }).unwrap().view;
    let of_some = store.prefix(&some, 2).unwrap();
    begins_as(&of_some, &some, 2);
    assert!(Arc::ptr_eq(&data(&prefix), &data(&of_some)));
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let (_folder, store) = store();
    store.create("a", DIM).unwrap();
    store.create("b", RowType::bits(64)).unwrap();
    for (name, dim, says) in
        [("a", 0, "within 1"), ("a", DIM + 1, "within 1"), ("b", 12, "multiple of 8"), ("b", 65, "within 1")]
    {
        let found = violation(store.prefix(&store.view(name).unwrap(), dim));
        assert_eq!(found.field, "prefix_dim");
        assert_says(&found.to_string(), &[says]);
    }
    assert_eq!(store.prefix(&store.view("b").unwrap(), 16).unwrap().row_type(), RowType::bits(16));
}
