//! The formats that are small to write down: each is made here byte by byte, read, and refused where it is broken.

use std::path::Path;

use megaring_core::Error;
use megaring_corpus::import::{self, Columns, Format, ImportOptions};
use megaring_corpus::{Access, Rows, Store};

use crate::common::{assert_says, scratch, violation};

const VALUES: [f32; 4] = [1.0, 2.0, 3.0, 250.0];

fn read(path: &Path, columns: Columns, skip_invalid: bool) -> Result<(Vec<Rows>, Vec<String>), Error> {
    let options = ImportOptions { skip_invalid, columns, ..ImportOptions::default() };
    let mut file = import::open(path, None, &options)?;
    let rows = file.by_ref().collect::<Result<_, _>>()?;
    Ok((rows, file.notes()))
}

fn values(path: &Path) -> (usize, Vec<f32>) {
    let (rows, _) = read(path, Columns::default(), false).unwrap();
    let [rows] = rows.try_into().unwrap();
    (rows.embeddings.dim, rows.embeddings.values)
}

fn refusal(path: &Path) -> String {
    violation(read(path, Columns::default(), false)).to_string()
}

fn bytes<const N: usize>(values: &[f32], to: fn(f32) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| to(*value)).collect()
}

fn float32(values: &[f32]) -> Vec<u8> {
    bytes(values, f32::to_le_bytes)
}

fn uint8(values: &[f32]) -> Vec<u8> {
    bytes(values, |value| [value as u8])
}

fn int32(values: &[f32]) -> Vec<u8> {
    bytes(values, |value| (value as i32).to_le_bytes())
}

#[test]
fn vectors_behind_their_dimension_come_in() {
    for (name, encode) in [("a.fvecs", float32 as fn(&[f32]) -> Vec<u8>), ("a.bvecs", uint8), ("a.ivecs", int32)] {
        let row = |row: &[f32]| [&2_i32.to_le_bytes()[..], &encode(row)].concat();
        let whole = [row(&VALUES[..2]), row(&VALUES[2..])].concat();
        let (_scratch, path) = scratch(name, &whole);
        assert_eq!(values(&path), (2, VALUES.to_vec()), "{name}");
        let (_scratch, path) = scratch(name, &whole[..whole.len() - 1]);
        assert_says(&refusal(&path), &[name, "row 1", "ends within"]);
        let (_scratch, path) = scratch(name, [&whole[..], &row(&VALUES[..1])[..3]].concat());
        assert_says(&refusal(&path), &[name, "row 2"]);
    }
}

#[test]
fn matrices_behind_their_lengths_come_in() {
    let int8 = |values: &[f32]| bytes(values, |value| (value as i8).to_le_bytes());
    let small = [1.0, -2.0, 3.0, -128.0];
    let files =
        [("a.fbin", float32(&VALUES), VALUES), ("a.u8bin", uint8(&VALUES), VALUES), ("a.i8bin", int8(&small), small)];
    for (name, content, wanted) in files {
        let header = |rows: u32, dim: u32| [rows.to_le_bytes(), dim.to_le_bytes()].concat();
        let (_scratch, path) = scratch(name, [header(2, 2), content.clone()].concat());
        assert_eq!(values(&path), (2, wanted.to_vec()), "{name}");
        for (rows, dim, says) in
            [(3, 2, "truncated"), (1, 2, "does not fit"), (2, 0, "0 elements"), (1, 1 << 16, "65536 elements")]
        {
            let (_scratch, path) = scratch(name, [header(rows, dim), content.clone()].concat());
            assert_says(&refusal(&path), &[name, says]);
        }
        let (_scratch, path) = scratch(name, [0; 5]);
        assert_says(&refusal(&path), &[name, "truncated"]);
    }
}

/// A file of these tensors: name, type, shape, bytes.
fn tensors(of: &[(&str, &str, &str, &[u8])]) -> Vec<u8> {
    let (mut entries, mut content) = (vec!["\"__metadata__\":{\"format\":\"pt\"}".to_owned()], Vec::new());
    for (name, kind, shape, bytes) in of {
        let (start, end) = (content.len(), content.len() + bytes.len());
        entries.push(format!("\"{name}\":{{\"dtype\":\"{kind}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}"));
        content.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &content].concat()
}

#[test]
fn tensors_come_in() {
    let floats = float32(&VALUES);
    // bfloat16 is the upper half of float32.
    let halves: Vec<u8> = VALUES.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect();
    let doubles = bytes(&VALUES, |value| f64::from(value).to_le_bytes());
    for (kind, content) in
        [("F32", &floats), ("BF16", &halves), ("F64", &doubles), ("U8", &uint8(&VALUES)), ("I32", &int32(&VALUES))]
    {
        let file = tensors(&[
            ("bias", "F32", "[1]", &[0; 4]),
            ("vectors", kind, "[2,2]", content),
            ("rest", "F32", "[1]", &[0; 4]),
        ]);
        let (_scratch, path) = scratch("a.safetensors", file);
        assert_eq!(values(&path), (2, VALUES.to_vec()), "{kind}");
    }
    let two = tensors(&[("a", "F32", "[2,2]", &floats), ("b", "F32", "[1,4]", &floats)]);
    let (_scratch, path) = scratch("two.safetensors", &two);
    assert_says(&refusal(&path), &["two.safetensors", "a, b", "--column embedding=NAME"]);
    let mut columns = Columns::default();
    columns.rename("embedding", "b").unwrap();
    assert_eq!(read(&path, columns, false).unwrap().0[0].embeddings.dim, 4);
    let named = tensors(&[("a", "F32", "[2,2]", &floats), ("embedding", "F32", "[1,4]", &floats)]);
    let (_scratch, path) = scratch("named.safetensors", &named);
    assert_eq!(values(&path).0, 4);
}

#[test]
fn tensors_that_cannot_be_are_named() {
    let floats = float32(&VALUES);
    let says = |content: &[u8], says: &[&str]| {
        let (_scratch, path) = scratch("a.safetensors", content);
        assert_says(&refusal(&path), &[&["a.safetensors"], says].concat());
    };
    says(&tensors(&[("embedding", "F32", "[4]", &floats)]), &["embedding", "[4]", "two axes"]);
    says(&tensors(&[("a", "F8_E4M3", "[4,4]", &floats)]), &["a", "F8_E4M3"]);
    says(&tensors(&[("a", "F32", "[3,2]", &floats)]), &["(3, 2)", "0 to 16"]);
    let whole = tensors(&[("a", "F32", "[2,2]", &floats)]);
    says(&whole[..whole.len() - 1], &["truncated"]);
    says(&(1_u64 << 60).to_le_bytes(), &["no SafeTensors"]);
    says(b"\x04\0\0\0\0\0\0\0abcd", &["no SafeTensors", "JSON"]);
    says(b"\x10", &["truncated"]);
}

const CSV: &str = "memory_id,title,embedding,mood,x,y,z,w,v,is_protected,zone\n\
    7,\"a \"\"b\"\", c\",\"[0.5, -1]\",good,1,2,3,4,5,True,4\n\
    8,,{2 3},bad,1,2,3,4,5,false,0\n";

#[test]
fn csv_comes_in() {
    for text in [CSV.to_owned(), CSV.replace('\n', "\r\n"), format!("\u{feff}{}", CSV.trim_end())] {
        let (_scratch, path) = scratch("a.csv", text);
        let (read, notes) = read(&path, Columns::default(), false).unwrap();
        let [rows] = read.try_into().unwrap();
        assert_eq!((rows.embeddings.dim, &rows.embeddings.values[..]), (2, &[0.5, -1.0, 2.0, 3.0][..]));
        assert_eq!(
            (&rows.memory_ids[..], &rows.titles[..]),
            (&[7, 8][..], &["a \"b\", c".to_owned(), String::new()][..])
        );
        assert_eq!((rows.is_protected.unwrap(), rows.zone.unwrap()), (vec![true, false], vec![4, 0]));
        assert_eq!(rows.coordinates.unwrap().map(|axis| axis[1]), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_says(&notes.concat(), &["a.csv", "mood"]);
    }
}

#[test]
fn bad_records_of_csv_are_named_by_line_and_skipped_on_demand() {
    let cases: [(&[u8], &[&str]); 9] = [
        (b"9,t,\"[nan,1]\",1", &["line 3: embedding", "element 0 is NaN"]),
        (b"9,t,\"[1e39,1]\",1", &["line 3: embedding", "element 0", "too large"]),
        (b"9,t,\"[1,b]\",1", &["line 3: embedding", "element 1", "\"b\""]),
        (b"9,t,\"[1]\",1", &["line 3: embedding", "1 values, wanted are 2"]),
        (b"9,t,,1", &["line 3: embedding", "missing"]),
        (b"-9,t,\"[1,2]\",1", &["line 3: memory_id", "\"-9\"", "--ignore-column memory_id"]),
        (b"9,t,\"[1,2]\",256", &["line 3: zone", "\"256\"", "--ignore-column zone"]),
        (b"9,t,\"[1,2]\"", &["line 3", "3 cells, wanted are 4"]),
        (b"9,\xff,\"[1,2]\",1", &["line 3", "UTF-8"]),
    ];
    for (record, says) in cases {
        let before = b"memory_id,title,embedding,zone\n7,\"two words\",\"[1,2]\",3\n";
        let (_scratch, path) = scratch("a.csv", [before, record, b"\n8,t,\"[3,4]\",3\n"].concat());
        assert_says(&refusal(&path), says);
        let (rows, _) = read(&path, Columns::default(), true).unwrap();
        assert_eq!(rows[0].memory_ids, [7, 8], "{says:?}");
    }
}

#[test]
fn columns_of_csv_are_taken_by_name() {
    let text = "vec,key,embedding,zone\n1 2,5,?,UTC\n3 4,6,?,UTC\n";
    let (_scratch, path) = scratch("a.csv", text);
    let mut columns = Columns::default();
    columns.rename("embedding", "vec").unwrap();
    columns.rename("memory_id", "key").unwrap();
    assert_says(&violation(read(&path, columns.clone(), false)).to_string(), &["line 2: zone", "UTC"]);
    columns.ignore("zone");
    let (rows, notes) = read(&path, columns, false).unwrap();
    assert_eq!((&rows[0].memory_ids[..], &rows[0].embeddings.values[..]), (&[5, 6][..], &[1.0, 2.0, 3.0, 4.0][..]));
    assert_says(&notes.concat(), &["embedding"]);
    let (_scratch, path) = scratch("b.csv", "a,b\n1,2\n");
    assert_says(&refusal(&path), &["b.csv: embedding", "a, b", "--column embedding=NAME"]);
    let (_scratch, path) = scratch("c.csv", "");
    assert_says(&refusal(&path), &["c.csv", "it is empty"]);
    let (_scratch, path) = scratch("d.csv", "embedding,title,embedding\n1,t,2\n");
    assert_says(&refusal(&path), &["d.csv: embedding", "twice"]);
    // A title is as it stands, other cells are trimmed.
    let (_scratch, path) = scratch("e.csv", "memory_id,title,embedding\n 7 , t , [1] \n");
    let (read, _) = read(&path, Columns::default(), false).unwrap();
    assert_eq!((read[0].memory_ids[0], read[0].titles[0].as_str()), (7, " t "));
}

#[test]
fn every_format_is_known_by_its_name() {
    for format in Format::ALL {
        assert_eq!(format.name().parse(), Ok(format));
        let (_scratch, path) = scratch(&format!("a.{}", format.name()), "");
        // What is empty is no file of most formats; that is told of the right one.
        match import::open(&path, None, &ImportOptions { dim: Some(2), ..ImportOptions::default() }) {
            Ok(file) => assert_eq!(file.format(), format),
            Err(Error::Invalid(found)) => assert_ne!(found.field, "format", "{format}: {found}"),
            Err(other) => panic!("{format}: {other:?}"),
        }
    }
}

/// Lines that are cut into chunks are all there, in order, in a corpus.
#[test]
fn many_records_of_csv_come_in() {
    let count = 50_000;
    let records = (0..count).map(|row| {
        format!(
            "{row},\"[{row}, {}, 0.125, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]\",{}\n",
            row + 1,
            "t".repeat(150)
        )
    });
    let text: String = std::iter::once("memory_id,embedding,title\n".to_owned()).chain(records).collect();
    let (_scratch, path) = scratch("many.csv", text);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Exclusive).unwrap();
    store.create("many", 16).unwrap();
    let file = import::open(&path, None, &ImportOptions::default()).unwrap();
    let mut chunks = 0;
    import::run(&store, "many", file, &mut |_| chunks += 1).unwrap();
    assert!(chunks > 2, "{chunks} chunks");
    let view = store.view("many").unwrap();
    assert_eq!(view.rows(), count);
    for row in [0, 1, 31_000, count - 1] {
        assert_eq!(view.label(row as u32).0, row as u64);
    }
}
