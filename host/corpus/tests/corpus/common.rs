//! What the tests of this crate share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::matrix::Matrix;
use megaring_core::nibbles::Nibbles;
use megaring_core::{Element, Error, Violation};
use megaring_corpus::{Access, OpenOptions, Rows, Store};

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A folder for one test, and the store in it.
pub(crate) fn store() -> (tempfile::TempDir, Arc<Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Access::Exclusive).unwrap();
    (folder, store)
}

/// Opens a store to which nothing is small: every append is a segment file, which is mapped.
pub(crate) fn open(root: &Path, access: Access) -> Result<Arc<Store>, Error> {
    Store::open_with(root, access, OpenOptions { small_bytes: 0, ..OpenOptions::default() })
}

/// A file of these bytes, in a folder of its own.
pub(crate) fn scratch(name: &str, bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// Rows numbered from `start`: values, ids and titles follow from the number.
pub(crate) fn rows(start: usize, count: usize, dim: usize) -> Rows {
    let values = (start * dim..(start + count) * dim).map(|at| at as f32 * 0.25 - 3.0).collect();
    Rows {
        memory_ids: (start..start + count).map(|row| 1000 + row as u64).collect(),
        titles: (start..start + count).map(|row| format!("row {row}")).collect(),
        embeddings: Matrix { rows: count, dim, values },
        ..Rows::default()
    }
}

/// Appends [`rows`] in one go.
pub(crate) fn append(store: &Store, name: &str, start: usize, count: usize, dim: usize) {
    let mut appender = store.append(name).unwrap();
    appender.push(rows(start, count, dim)).unwrap();
    appender.commit().unwrap();
}

/// All embeddings of a view.
pub(crate) fn values(view: &CorpusView) -> Vec<f32> {
    view.segments().flat_map(|(_, segment)| segment.data().embeddings().to_vec()).collect()
}

/// Checks that a view holds [`rows`] 0 to `count`, derived columns included.
pub(crate) fn assert_rows(view: &CorpusView, count: usize) {
    let wanted = rows(0, count, view.dim());
    assert_eq!(view.rows(), count);
    assert_eq!(values(view), wanted.embeddings.values);
    for row in 0..count {
        let label = (wanted.memory_ids[row], wanted.titles[row].as_str());
        assert_eq!(view.label(row as u32), label, "row {row}");
    }
    assert_derived(view);
}

/// Checks norms and codes against those computed anew.
pub(crate) fn assert_derived(view: &CorpusView) {
    for (_, segment) in view.segments() {
        let data = segment.data();
        if view.row_type().element == Element::Bit {
            assert!(data.norms2().is_empty() && data.codes().packed.is_empty());
            continue;
        }
        let norms2 = megaring_core::screen::norms2(data.embeddings(), view.dim());
        assert_eq!(data.norms2(), norms2);
        let made = megaring_core::screen::pack(data.embeddings(), view.dim(), &norms2);
        let (codes, wanted) = (data.codes(), made.view());
        assert_eq!(codes.packed, wanted.packed);
        assert_eq!((codes.scale, codes.residual), (wanted.scale, wanted.residual));
        assert_eq!((codes.wild, codes.max_norm.to_bits()), (wanted.wild, wanted.max_norm.to_bits()));
        let wanted = Nibbles::new(made.view(), norms2.len(), view.dim());
        let halves = data.nibbles();
        assert_eq!((halves.high, halves.low, halves.residual), (&*wanted.high, &*wanted.low, &*wanted.residual));
    }
}

/// What an [`Error::Invalid`] complains of.
pub(crate) fn violation<T>(result: Result<T, Error>) -> Violation {
    match result {
        Err(Error::Invalid(violation)) => violation,
        Err(other) => panic!("not an invalid input, but {other:?}"),
        Ok(_) => panic!("taken, though it is wrong"),
    }
}

/// Whether a text holds all of the parts.
pub(crate) fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// Numbers without a pattern tests could fall in step with (Marsaglia's xorshift).
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Texts that have one xxHash64: of two stripes of 32 bytes, the first differs, and the second makes up for it.
pub(crate) const TWINS: [&str; 4] = [
    "/inbox/2/from-ann/2026-11-30/mai00000001/from-ann/2026-11-30/mai",
    "/ehnm-ge/from-ann/2026-11-30/maiQ XRVoYJ/from-ann/2026-11-30/mai",
    "/_zq8zu0/from-ann/2026-11-30/maiY4JnUN/+/from-ann/2026-11-30/mai",
    "/-e/09m2/from-ann/2026-11-30/maiRc..5Y~;/from-ann/2026-11-30/mai",
];
