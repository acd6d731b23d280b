//! `checksum` on the command line, against the naive reference.

use megaring_datasets::reference;

use crate::common::Folder;

#[test]
fn files_have_the_references_checksums() {
    let folder = Folder::new();
    // The second is more than is checked together with others.
    let contents = [b"123456789".to_vec(), (0..9_000_000_u32).map(|at| (at >> 3) as u8).collect(), Vec::new()];
    let names = ["digits", "long", "empty"];
    for (name, content) in names.into_iter().zip(&contents) {
        folder.write(name, content);
    }
    let records = folder.run(&["checksum", "--json", "digits", "long", "empty"]).succeeded().records();
    let of_files: Vec<_> = records.iter().filter(|record| record["file"].is_string()).collect();
    assert_eq!(of_files.len(), 3);
    for ((record, name), content) in of_files.iter().zip(names).zip(&contents) {
        assert_eq!((&record["file"], record["bytes"].as_u64()), (&name.into(), Some(content.len() as u64)));
        assert_eq!(record["crc32c"], format!("{:08x}", reference::crc32c(content)), "{name}");
        assert_eq!(record["xxhash64"], format!("{:016x}", reference::xxhash64(content)), "{name}");
    }
    let text = folder.run_with_input(&["checksum", "-"], b"123456789").succeeded().stdout;
    assert!(text.starts_with("e3069283  8cb841db40e6ae83  -\n"), "{text}");
}

#[test]
fn files_that_have_no_checksums_are_named_and_the_others_are_answered() {
    let folder = Folder::new();
    folder.write("digits", "123456789");
    folder.write("large", vec![7; 2 << 20]);
    folder.write("megaring.toml", "arena_bytes = 1048576");
    let files = ["--config", "megaring.toml", "checksum", "nowhere", "digits", "large", "digits"];
    let run =
        folder.run(&files).failed(1, &["nowhere does not exist", "large: it takes 2097184 bytes", "2 of 4 files"]);
    assert_eq!(run.stdout.matches("e3069283  8cb841db40e6ae83  digits\n").count(), 2, "{run:?}");
}
