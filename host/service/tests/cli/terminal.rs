//! Texts of others on a terminal: they stay within their line, and none of them reaches it as a control character. For
//! programs they are as they are.

use crate::common::{Folder, Ran};

/// A line end, an escape sequence, and one that begins with a single character.
const TITLE: &str = "two\nlines\u{1b}[31m\u{9b}31m";
const SHOWN: &str = r"two\nlines\u{1b}[31m\u{9b}31m";

/// Nothing controls the terminal, but for the ends of so many lines.
#[track_caller]
fn is_harmless(text: &str, lines: usize) {
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert_eq!(text.lines().count(), lines, "{text:?}");
}

#[track_caller]
fn is_shown(ran: &Ran, lines: usize) {
    is_harmless(&ran.stdout, lines);
    assert!(ran.stdout.contains(SHOWN), "{:?}", ran.stdout);
}

#[test]
fn titles() {
    let folder = Folder::new();
    let point = r#""x": 0, "y": 0, "z": 0, "w": 0, "v": 0"#;
    let title = serde_json::to_string(TITLE).unwrap();
    folder.write("a.jsonl", format!("{{\"title\": {title}, \"embedding\": [1.0, 2.0], {point}}}\n"));
    folder.run(&["corpus", "import", "a", "a.jsonl"]).succeeded();
    let searches: [&[&str]; 2] =
        [&["search", "a", "--row", "0", "--titles"], &["nearest", "a", "--query", "0,0,0,0,0", "--titles"]];
    for search in searches {
        is_shown(&folder.run(search).succeeded(), 3);
        let records = folder.run(&[search, &["--json"]].concat()).succeeded().records();
        let text = records[0].to_string();
        assert!(text.contains(&title), "{text}");
    }
}

/// Names that only Unix lets files have.
#[cfg(unix)]
#[test]
fn names_of_files() {
    let folder = Folder::new();
    folder.write(TITLE, "some bytes");
    is_shown(&folder.run(&["checksum", TITLE]).succeeded(), 1);
    let other = format!("{TITLE}, missing");
    let refused: [&[&str]; 4] = [
        &["checksum", &other],
        &["corpus", "import", "a", &other],
        &["encode", &other],
        &["search", "a", "--row", "0", "--data", &other],
    ];
    for args in refused {
        let ran = folder.run(args);
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(r"\u{1b}[31m"), "{:?}", ran.stderr);
        is_harmless(&ran.stderr, ran.stderr.lines().count());
    }
}
