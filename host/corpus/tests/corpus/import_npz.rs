//! Archives of NumPy arrays: those that numpy wrote, and such as nobody should write.

use std::io::Write;
use std::path::Path;

use megaring_core::Error;
use megaring_corpus::Rows;
use megaring_corpus::import::{self, Columns, Format, ImportOptions};
use rawzip::{CompressionMethod, ZipArchiveWriter};

use crate::common::{assert_rows, assert_says, data, rows, scratch, store, violation};

const ROWS: usize = 12;
const DIM: usize = 4;

fn read(path: &Path, columns: Columns) -> Result<(Vec<Rows>, Vec<String>), Error> {
    let mut file = import::open(path, None, &ImportOptions { columns, ..ImportOptions::default() })?;
    assert_eq!(file.format(), Format::Npz);
    let rows = file.by_ref().collect::<Result<_, _>>()?;
    Ok((rows, file.notes()))
}

fn refusal(path: &Path) -> String {
    violation(read(path, Columns::default())).to_string()
}

/// A `.npy` file.
fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

/// Four rows of one element.
fn vectors() -> Vec<u8> {
    npy("|u1", "(4, 1)", &[1, 2, 3, 4])
}

/// An archive of these files, stored.
fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    for (name, content) in members {
        let (mut entry, config) = archive.new_file(name).compression_method(CompressionMethod::STORE).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(content).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    bytes
}

#[test]
fn archives_of_numpy_come_in_with_their_columns() {
    for name in ["columns.npz", "deflated.npz"] {
        let (_folder, store) = store();
        store.create("a", DIM).unwrap();
        let file = import::open(&data(name), None, &ImportOptions::default()).unwrap();
        let report = import::run(&store, "a", file, &mut |_| {}).unwrap();
        assert_rows(&store.view("a").unwrap(), ROWS);
        assert!(store.verify("a").unwrap().is_clean(), "{name}");
        let notes = report.notes.concat();
        assert_says(
            &notes,
            &["mean is not stored: it has 4 values for 12 rows", "version is not stored: it has 0 axes"],
        );
        assert_says(&notes, &["objects is not stored: its values are pickled", "x is not stored"]);
        let (read, _) = read(&data(name), Columns::default()).unwrap();
        let [rows] = read.try_into().unwrap();
        assert_eq!(rows.further.names(), ["kind", "when"], "{name}");
        assert_eq!(rows.importance.unwrap()[3], 3.0 / 16.0);
        assert_eq!(rows.is_protected.unwrap()[..3], [true, false, true]);
    }
}

#[test]
fn the_only_matrix_has_the_vectors_or_the_one_that_is_named() {
    let wanted = rows(0, ROWS, DIM).embeddings;
    assert_eq!(read(&data("nameless.npz"), Columns::default()).unwrap().0[0].embeddings, wanted);
    let (of_queries, notes) = read(&data("columns.npz"), Columns::embeddings()).unwrap();
    assert_eq!((&of_queries[0].embeddings, notes), (&wanted, Vec::new()));
    assert!(of_queries[0].memory_ids.is_empty() && of_queries[0].further.names().is_empty());

    let other = npy("<f4", "(2, 2)", &[0; 16]);
    let keys = npy("<u2", "(4,)", &[5, 0, 6, 0, 7, 0, 8, 0]);
    let (_scratch, path) = scratch(
        "two.npz",
        zip(&[("a.npy", vectors()), ("b.npy", other.clone()), ("key.npy", keys), ("c.txt", vec![])]),
    );
    assert_says(&refusal(&path), &["two.npz: embedding", "there are a, b, key;", "--column embedding=NAME"]);
    let mut columns = Columns::default();
    columns.rename("embedding", "a").unwrap();
    columns.rename("memory_id", "key").unwrap();
    let (of_a, notes) = read(&path, columns).unwrap();
    assert_eq!(
        (&of_a[0].memory_ids[..], &of_a[0].embeddings.values[..]),
        (&[5, 6, 7, 8][..], &[1.0, 2.0, 3.0, 4.0][..])
    );
    assert_says(&notes.concat(), &["b is not stored: it has 2 axes"]);
    let (_scratch, path) = scratch("named.npz", zip(&[("b.npy", other), ("embedding.npy", vectors())]));
    assert_eq!(read(&path, Columns::default()).unwrap().0[0].embeddings.rows, 4);
}

#[test]
fn members_that_cannot_be_are_named() {
    let says = |members: &[(&str, Vec<u8>)], says: &[&str]| {
        let (_scratch, path) = scratch("a.npz", zip(members));
        assert_says(&refusal(&path), &[&["a.npz"], says].concat());
    };
    let with = |name: &'static str, content: Vec<u8>| [("embedding.npy", vectors()), (name, content)];
    let text = |bytes: &[u8]| npy("<U1", "(4,)", bytes);
    says(
        &with("memory_id.npy", npy("<i8", "(3,)", &[0; 24])),
        &["memory_id", "3 values for 4 rows", "--ignore-column"],
    );
    says(&with("memory_id.npy", npy("|i1", "(4,)", &[1, 2, 255, 4])), &["memory_id (row 2)", "-1"]);
    says(&with("title.npy", npy("|O", "(4,)", b"pickle")), &["title", "pickled", "--ignore-column title"]);
    says(&with("title.npy", text(&[0xff; 16])), &["title (row 0)", "no Unicode text"]);
    says(&with("zone.npy", npy("<c8", "(4,)", &[0; 32])), &["zone", "\"<c8\"", "--ignore-column zone"]);
    says(&with("zone.npy", text(&[0; 16])), &["zone", "Utf8", "--ignore-column zone"]);
    says(&with("embedding.npy", vectors()), &["embedding", "twice"]);
    says(&[("embedding.npy", npy("<f4", "(4,)", &[0; 16]))], &["embedding", "(4,)", "two axes"]);
    says(&[("embedding.npy", npy("|O", "(4, 1)", b"pickle"))], &["embedding", "pickled"]);
    says(&[("embedding.npy", npy("<U1", "(4, 1)", &[0; 16]))], &["embedding", "Utf8"]);
    says(&[("embedding.npy", npy("<f4", "(1, 2)", &[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]))], &["embedding (row 0)", "NaN"]);
    says(&[("embedding.npy", vectors()[1..].to_vec())], &["embedding", "no .npy file"]);
    says(&[("data.txt", vec![1])], &["no arrays", ".npy"]);
    let fortran = String::from_utf8_lossy(&npy("|u1", "(2, 2)", b"abcd")[10..]).replace("False", "True ");
    let fortran = [&npy("|u1", "(2, 2)", b"abcd")[..10], fortran.as_bytes()].concat();
    says(&[("embedding.npy", fortran)], &["embedding", "Fortran order", "ascontiguousarray"]);
}

/// What a header claims is believed as far as there are bytes.
#[test]
fn claims_that_cannot_be_take_no_memory() {
    let says = |members: &[(&str, Vec<u8>)], says: &[&str]| {
        let (_scratch, path) = scratch("a.npz", zip(members));
        assert_says(&refusal(&path), says);
    };
    says(&[("a.npy", npy("<f4", "(1000000000000000000, 32768)", &[0; 64]))], &["embedding", "truncated"]);
    says(&[("a.npy", npy("<f4", "(1, 4000000000)", &[0; 64]))], &["embedding", "4000000000 elements"]);
    says(&[("a.npy", npy("<f4", "(1, 2000000000)", &[0; 64]))], &["embedding", "2000000000 values", "32768"]);
    says(&[("a.npy", npy("<f4", "(3, 4)", &[0; 52]))], &["embedding", "does not end with its last row"]);
    let wide = npy("<U4000000000", "(4,)", &[0; 16]);
    says(&[("a.npy", vectors()), ("wide.npy", wide)], &["16000000001 bytes", "67108864"]);
    let empty = npy("<U0", "(4,)", &[]);
    let (_scratch, path) = scratch("a.npz", zip(&[("a.npy", vectors()), ("title.npy", empty)]));
    assert_eq!(read(&path, Columns::default()).unwrap().0[0].titles, [""; 4]);
    let names: Vec<String> = (0..1025).map(|number| format!("{number}.npy")).collect();
    let many: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), vectors())).collect();
    says(&many, &["more than 1024 arrays"]);
}

#[test]
fn archives_that_are_cut_short_or_corrupt_are_refused() {
    for name in ["columns.npz", "deflated.npz"] {
        let whole = std::fs::read(data(name)).unwrap();
        for cut in (4..whole.len()).step_by(whole.len() / 23) {
            let (_scratch, path) = scratch(name, &whole[..cut]);
            assert_says(&refusal(&path), &[name, "no .npz file, or truncated"]);
        }
        let (intact, _) = read(&data(name), Columns::default()).unwrap();
        for at in (4..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= if at % 2 == 0 { 0xff } else { 0x01 };
            let (_scratch, path) = scratch(name, bytes);
            // Every value is under a checksum; a name or a date is not.
            match read(&path, Columns::default()) {
                Ok((found, _)) => assert_eq!(found[0].embeddings, intact[0].embeddings, "{name}, byte {at}"),
                Err(Error::Invalid(found)) => assert_says(&found.to_string(), &[name]),
                Err(other) => panic!("{name}, byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn members_of_another_compression_or_under_a_password_are_refused() {
    let whole = zip(&[("embedding.npy", vectors())]);
    let directory = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    for (at, value, says) in [(10, 93, "method 93 (ZSTD)"), (8, 1, "encrypted")] {
        let mut bytes = whole.clone();
        bytes[directory + at] |= value;
        let (_scratch, path) = scratch("a.npz", bytes);
        assert_says(&refusal(&path), &["a.npz: embedding", says]);
    }
}
