//! What a file is read from (compressed or not, a pipe, no rows at all) and what decides its dimension.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use megaring_core::Error;
use megaring_corpus::import::{self, Format, Import, ImportOptions};

use crate::common::{assert_rows, assert_says, data, rows, scratch, store, values, violation};

const ROWS: usize = 12;
const DIM: usize = 4;

fn open(path: &Path, skip_invalid: bool) -> Result<Import, Error> {
    import::open(path, None, &ImportOptions { skip_invalid, ..ImportOptions::default() })
}

/// The rows of a file, in a corpus of the file's own dimension.
fn imported(path: &Path, skip_invalid: bool) -> (import::Report, Vec<f32>) {
    let file = open(path, skip_invalid).unwrap();
    let (_folder, store) = store();
    store.create("a", file.row_type()).unwrap();
    let report = import::run(&store, "a", file, &mut |_| {}).unwrap();
    (report, values(&store.view("a").unwrap()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn jsonl(rows: std::ops::Range<usize>) -> String {
    let line = |row: usize| format!("{{\"embedding\":{:?}}}\n", self::rows(row, 1, DIM).embeddings.values);
    rows.map(line).collect()
}

fn fvecs(vectors: &[Vec<f32>]) -> Vec<u8> {
    let one = |vector: &Vec<f32>| {
        let values = vector.iter().flat_map(|value| value.to_le_bytes());
        (vector.len() as u32).to_le_bytes().into_iter().chain(values).collect::<Vec<_>>()
    };
    vectors.iter().flat_map(one).collect()
}

#[test]
fn the_first_good_row_decides_the_dimension() {
    let good: Vec<Vec<f32>> = (2..ROWS).map(|row| rows(row, 1, DIM).embeddings.values).collect();
    let vectors = [vec![vec![f32::NAN], vec![1.0, f32::INFINITY]], good].concat();
    let (_a, in_vectors) = scratch("first.fvecs", fvecs(&vectors));
    let bad = "{\"embedding\":[1e99]}\n{\"embedding\":[]}\n";
    let (_b, in_lines) = scratch("first.jsonl", [bad, &jsonl(2..ROWS)].concat());
    let wanted = rows(2, ROWS - 2, DIM).embeddings.values;
    for (path, first) in [
        (data("bad_first.arrow"), ["embedding (row 0)", "element 0 is NaN"]),
        (in_vectors, ["embedding (row 0)", "element 0 is NaN"]),
        (in_lines, ["line 1: embedding", "element 0"]),
    ] {
        assert_says(&violation(open(&path, false)).to_string(), &first);
        let (report, found) = imported(&path, true);
        assert_eq!((report.appended.rows, report.skipped), (ROWS - 2, 2), "{}", path.display());
        assert_says(&report.first_skipped.unwrap().to_string(), &first);
        assert_eq!(found, wanted, "{}", path.display());
    }
}

/// More bad rows than one chunk holds, so that chunks without a good row come before the dimension is known.
#[test]
fn the_first_good_row_may_be_far() {
    let bad = 300;
    let vectors = [vec![vec![f32::NAN]; bad], vec![vec![1.0, 2.0]]].concat();
    let (_a, path) = scratch("far.fvecs", fvecs(&vectors));
    let (report, found) = imported(&path, true);
    assert_eq!((report.skipped, found), (bad as u64, vec![1.0, 2.0]));
    assert_says(&violation(open(&path, false)).to_string(), &["row 0"]);
}

#[test]
fn a_file_without_rows_has_the_dimension_it_says_or_is_refused() {
    for name in ["no_rows.arrow", "no_rows.parquet"] {
        let (report, _) = imported(&data(name), false);
        assert_eq!((report.appended.rows, report.appended.segments), (0, 0), "{name}");
        assert_eq!(open(&data(name), false).unwrap().row_type(), DIM.into(), "{name}");
        let other = ImportOptions { dim: Some(DIM + 1), ..ImportOptions::default() };
        assert_says(&violation(import::open(&data(name), None, &other)).to_string(), &[name, "embedding", "4", "5"]);
    }
    let (_a, empty_lines) = scratch("none.jsonl", "\n\n");
    let (_b, empty_vectors) = scratch("none.fvecs", "");
    for path in [data("no_rows_no_dim.parquet"), empty_lines, empty_vectors] {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_says(&violation(open(&path, false)).to_string(), &[&name, "no rows"]);
    }
}

#[test]
fn a_file_of_bad_rows_says_how_many_and_why() {
    let (_a, lines) = scratch("bad.jsonl", "{\"embedding\": []}\n".repeat(3));
    let says = ["bad.jsonl", "all 3 rows are bad", "line 1: embedding", "0 values"];
    assert_says(&violation(open(&lines, true)).to_string(), &says);
    let (_b, vectors) = scratch("bad.fvecs", fvecs(&[vec![f32::NAN; 3]]));
    assert_says(&violation(open(&vectors, true)).to_string(), &["bad.fvecs", "only row is bad", "element 0 is NaN"]);
}

#[test]
fn one_json_array_is_told_from_json_lines() {
    for text in
        ["[{\"embedding\":[1,2]},{\"embedding\":[3,4]}]", "\u{feff} [\n {\"embedding\":[1,2]}\n]\n", "[[1,2],[3,4]]"]
    {
        let (_scratch, path) = scratch("rows.json", text);
        for skip_invalid in [false, true] {
            assert_says(&violation(open(&path, skip_invalid)).to_string(), &["rows.json", "JSON array", "jq -c '.[]'"]);
        }
    }
}

#[test]
fn old_and_small_types_come_in() {
    let all = rows(0, ROWS, DIM).embeddings.values;
    for name in ["v4.arrow", "v4.arrows", "python2.npy", "big_endian.npy", "brotli.parquet"] {
        assert_eq!(imported(&data(name), false).1, all, "{name}");
    }
    let quarters: Vec<f32> = all.iter().map(|value| value * 4.0).collect();
    let (report, found) = imported(&data("int8.arrow"), false);
    assert_eq!(found, quarters);
    assert_says(&report.notes.concat(), &["Int8"]);
}

#[test]
fn integers_of_numpy_come_in_whatever_their_width() {
    fn file(descr: &str, values: Vec<u8>) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 2), }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
    }
    let (small, signed) = ([1u8, 2, 3, 250], [-1i8, 2, -3, 120]);
    let files = [
        ("|u1", small.to_vec()),
        ("<u2", small.iter().flat_map(|v| u16::from(*v).to_le_bytes()).collect()),
        ("<u4", small.iter().flat_map(|v| u32::from(*v).to_le_bytes()).collect()),
        ("<u8", small.iter().flat_map(|v| u64::from(*v).to_le_bytes()).collect()),
        ("|i1", signed.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("<i2", signed.iter().flat_map(|v| i16::from(*v).to_le_bytes()).collect()),
        ("<i4", signed.iter().flat_map(|v| i32::from(*v).to_le_bytes()).collect()),
        ("<i8", signed.iter().flat_map(|v| i64::from(*v).to_le_bytes()).collect()),
        (">i2", signed.iter().flat_map(|v| i16::from(*v).to_be_bytes()).collect()),
        (">u8", small.iter().flat_map(|v| u64::from(*v).to_be_bytes()).collect()),
    ];
    for (descr, values) in files {
        let (_scratch, path) = scratch("rows.npy", file(descr, values));
        let wanted = if descr.contains('u') { small.map(f32::from) } else { signed.map(f32::from) };
        assert_eq!(imported(&path, false).1, wanted, "{descr}");
    }
}

#[test]
fn parquet_in_lzo_is_refused_by_name() {
    let mut bytes = fs::read(data("snappy.parquet")).unwrap();
    // In a column's metadata the codec stands behind the column's path, doubled: snappy is 1, LZO 3.
    let path = b"\x19\x18\x09memory_id\x15\x02";
    let at = bytes.windows(path.len()).position(|bytes| bytes == path).unwrap() + path.len() - 1;
    bytes[at] = 6;
    let (_scratch, path) = scratch("lzo.parquet", bytes);
    assert_says(&violation(open(&path, false)).to_string(), &["lzo.parquet", "LZO", "zstd"]);
}

#[test]
fn what_gzip_has_compressed_comes_in() {
    let all = rows(0, ROWS, DIM).embeddings.values;
    assert_eq!(imported(&data("f4.npy.gz"), false).1, all);
    let (_lines, lines) = scratch("rows.jsonl", jsonl(0..ROWS));
    let files = ["nameless.npz", "vectors.fvecs", "stream.arrows", "plain.arrow", "snappy.parquet"];
    for path in files.map(data).into_iter().chain([lines]) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned() + ".gz";
        let bytes = fs::read(&path).unwrap();
        // A file of two members, as `cat a.gz b.gz` makes it, is read as one.
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        let (_scratch, path) = scratch(&name, [gzip(half), gzip(rest)].concat());
        let (report, found) = imported(&path, false);
        assert_eq!((found, report.as_is), (all.clone(), false), "{name}");
    }
}

/// The lengths of a matrix may be the first bytes of anything.
#[test]
fn lengths_that_look_like_magic_are_lengths() {
    let magic: [&[u8; 4]; 6] = [b"\x1f\x8b\x08\0", b"PK\x03\x04", b"PAR1", b"ARRO", b"\x93NUM", &[0xff; 4]];
    for start in magic {
        let rows = u64::from(u32::from_le_bytes(*start));
        for (name, size) in [("a.u8bin", 1), ("a.i8bin", 1), ("a.fbin", 4), ("named", 4)] {
            let (_scratch, path) = scratch(name, [&start[..], &1u32.to_le_bytes()].concat());
            // Of as many bytes, which are zeros and take no room.
            fs::File::options().write(true).open(&path).unwrap().set_len(8 + size * rows).unwrap();
            let format = (name == "named").then_some(Format::Fbin);
            let file = import::open(&path, format, &ImportOptions::default()).unwrap();
            let wanted = format.map_or(&name[2..], Format::name);
            assert_eq!((file.format().name(), file.row_type()), (wanted, 1.into()), "{start:?} {name}");
        }
    }
    // What gzip has compressed has other lengths, also where it is named so.
    let matrix = [&[2, 0, 0, 0, 1, 0, 0, 0][..], &1.5f32.to_le_bytes(), &2.5f32.to_le_bytes()].concat();
    for name in ["a.fbin", "a.fbin.gz"] {
        let (_scratch, path) = scratch(name, gzip(&matrix));
        assert_eq!(imported(&path, false).1, [1.5, 2.5]);
    }
    let (_scratch, path) = scratch("a.fvecs", fvecs(&[vec![1.0]]).iter().map(|_| 0xff).collect::<Vec<u8>>());
    assert_says(&violation(open(&path, false)).to_string(), &["a.fvecs", "the dimension is -1"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_that_is_named_a_matrix_begins_with_lengths() {
    let matrix = [&[0x1f, 0x8b, 8, 0, 1, 0, 0, 0][..], &[7; 559_903]].concat();
    for (bytes, rows) in [(matrix, 559_903), (gzip(&[&[3, 0, 0, 0, 1, 0, 0, 0][..], &[7; 3]].concat()), 3)] {
        let folder = tempfile::tempdir().unwrap();
        let (path, writer) = pipe(folder.path(), bytes);
        let file = import::open(&path, Some(Format::U8bin), &ImportOptions::default()).unwrap();
        let count: usize = file.map(|rows| rows.unwrap().len()).sum();
        writer.join().unwrap();
        assert_eq!(count, rows);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told_in_plain_words() {
    let line = |rest: &str| format!("{{\"embedding\":[1,2],{rest}}}\n").into_bytes();
    let parquet = fs::read(data("snappy.parquet")).unwrap();
    let utf16: Vec<u8> = "\u{feff}embedding\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files: [(&str, Vec<u8>, &[&str]); 16] = [
        (
            "a.jsonl",
            line("\"memory_id\":1.0"),
            &["it is the number `1.0`", "a whole number from 0 to 18446744073709551615"],
        ),
        (
            "a.jsonl",
            line("\"zone\":256"),
            &["it is integer `256`", "a whole number from 0 to 255", "--ignore-column zone"],
        ),
        ("a.jsonl", line("\"is_protected\":1"), &["it is integer `1`", "true or false"]),
        ("a.jsonl", b"{\"embedding\":\"[1, 2]\"}".to_vec(), &["it is string \"[1, 2]\"", "an array of numbers"]),
        ("a.jsonl", b"5\n".to_vec(), &["line 1: it is integer `5`", "an object such as {\"embedding\": [0.1, 0.2]}"]),
        (
            "a.jsonl.gz",
            [gzip(&line("\"zone\":1")), b"more".to_vec()].concat(),
            &["bytes stand behind the end", "gzip -dc"],
        ),
        (
            "a.npy.gz",
            [gzip(&fs::read(data("f4.npy")).unwrap()), vec![0; 512]].concat(),
            &["bytes stand behind the end"],
        ),
        ("a.parquet", parquet[..parquet.len() - 9].to_vec(), &["it is damaged", "copy it anew"]),
        ("a.csv", Vec::new(), &["it is empty"]),
        (
            "a.csv",
            b"embedding,zone\n[1],256\n".to_vec(),
            &["line 2: zone", "it is \"256\", wanted is a whole number from 0 to 255", "--ignore-column zone"],
        ),
        ("a.npy", Vec::new(), &["it is empty"]),
        ("a.parquet", Vec::new(), &["it is empty"]),
        ("a.arrows", Vec::new(), &["it is empty"]),
        ("a.fbin", Vec::new(), &["it is empty"]),
        ("a.csv", utf16.clone(), &["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("a.jsonl", utf16, &["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
    ];
    for (name, content, says) in files {
        let (_scratch, path) = scratch(name, content);
        let read = open(&path, false).and_then(|file| file.collect::<Result<Vec<_>, _>>());
        let found = violation(read).to_string();
        assert_says(&found, &[&[name], says].concat());
        for foreign in ["expected", "u64", "u8", "sequence", "truncated", "Parquet error", "there are ;"] {
            assert!(!found.contains(foreign), "{found}");
        }
    }
}

#[test]
fn gzip_that_is_cut_short_or_corrupt_is_refused() {
    for name in ["f4.npy", "vectors.fvecs", "stream.arrows", "plain.arrow", "snappy.parquet"] {
        let whole = gzip(&fs::read(data(name)).unwrap());
        for cut in (4..whole.len()).step_by(whole.len() / 13) {
            let (_scratch, path) = scratch(&format!("{name}.gz"), &whole[..cut]);
            let options = ImportOptions { dim: Some(DIM), ..ImportOptions::default() };
            let read = import::open(&path, None, &options).and_then(|file| file.collect::<Result<Vec<_>, _>>());
            assert_says(&violation(read).to_string(), &[name]);
        }
        let mut corrupt = whole.clone();
        corrupt[whole.len() - 6] ^= 1;
        let (_scratch, path) = scratch(&format!("{name}.gz"), corrupt);
        let read = open(&path, false).and_then(|file| file.collect::<Result<Vec<_>, _>>());
        assert_says(&violation(read).to_string(), &[name, "corrupt"]);
    }
}

/// A named pipe with a writer that sends the bytes in small pieces, as a slow program does.
#[cfg(unix)]
fn pipe(folder: &Path, bytes: Vec<u8>) -> (PathBuf, std::thread::JoinHandle<()>) {
    let path = folder.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let to = path.clone();
    let writer = std::thread::spawn(move || {
        let mut pipe = fs::File::options().write(true).open(to).unwrap();
        for piece in bytes.chunks(7) {
            // The reader may have seen enough.
            if pipe.write_all(piece).is_err() {
                break;
            }
        }
    });
    (path, writer)
}

#[cfg(unix)]
#[test]
fn every_format_comes_through_a_pipe() {
    let all = rows(0, ROWS, DIM).embeddings.values;
    let read = |name: &str| fs::read(data(name)).unwrap();
    let cases = [
        (read("f4.npy"), None),
        (read("f4.npy.gz"), None),
        (read("nameless.npz"), None),
        (read("vectors.fvecs"), Some(Format::Fvecs)),
        (read("stream.arrows"), None),
        (read("plain.arrow"), None),
        (read("snappy.parquet"), None),
        (jsonl(0..ROWS).into_bytes(), None),
    ];
    for (bytes, format) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (path, writer) = pipe(folder.path(), bytes);
        let file = import::open(&path, format, &ImportOptions::default()).unwrap();
        let (_folder, store) = store();
        store.create("a", DIM).unwrap();
        let kind = file.format();
        let report = import::run(&store, "a", file, &mut |_| {}).unwrap();
        writer.join().unwrap();
        assert_eq!((report.appended.rows, values(&store.view("a").unwrap())), (ROWS, all.clone()), "{kind}");
        if kind == Format::ArrowFile {
            assert_rows(&store.view("a").unwrap(), ROWS);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_that_ends_too_soon_or_too_late_is_refused() {
    let read = |name: &str, format: Option<Format>, change: fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(data(name)).unwrap();
        change(&mut bytes);
        let folder = tempfile::tempdir().unwrap();
        let (path, writer) = pipe(folder.path(), bytes);
        let options = ImportOptions { dim: Some(DIM), ..ImportOptions::default() };
        let read = import::open(&path, format, &options).and_then(|file| file.collect::<Result<Vec<_>, _>>());
        writer.join().unwrap();
        violation(read).to_string()
    };
    let shorter = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 9);
    assert_says(&read("f4.npy", None, shorter), &["pipe", "truncated"]);
    assert_says(&read("f4.npy", None, |bytes| bytes.push(0)), &["pipe", "does not end with its 12 rows"]);
    assert_says(&read("vectors.fvecs", Some(Format::Fvecs), shorter), &["pipe", "row 11", "ends within"]);
    assert_says(&read("vectors.fvecs", None, |_| {}), &["format", "pipe", "fvecs"]);
    assert_says(&read("stream.arrows", None, shorter), &["pipe", "truncated"]);
    assert_says(&read("plain.arrow", None, shorter), &["pipe", "truncated"]);
}

#[test]
fn a_file_that_may_not_be_read_or_is_not_there_is_told_so() {
    assert_eq!(violation(open(Path::new("nowhere.npy"), false)).description, "nowhere.npy does not exist");
    let refused = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    assert_says(&import::unreadable(Path::new("a.npy"), &refused), &["a.npy", "permission denied"]);
}
