//! Rules about any text: length, width, machine paths, words that do not belong here, unfinished work, links.

use std::path::Path;

use super::{Finding, Source, code};

/// Longer files hide the design; the style says about 500.
const MOST_LINES: usize = 550;

/// Columns of a line: what rustfmt holds code to, held for comments too.
const MOST_COLUMNS: usize = 120;

/// Languages in which we write by hand.
const LANGUAGES: [&str; 13] = ["rs", "zig", "cu", "cuh", "c", "h", "cc", "cpp", "hpp", "wgsl", "proto", "py", "sh"];

/// Where only one machine has something. Each is put together here, so that this list does not set itself off.
const MACHINE_PATHS: [&str; 8] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("C:\\Us", "ers\\"),
    concat!("/tmp/", "target"),
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
    concat!("../sh", "ared"),
];

/// How a tool reached its registry is that tool's configuration, never ours.
const FORBIDDEN: [&str; 7] = [
    concat!("files.python", "hosted"),
    concat!("pypi.org", "/simple"),
    concat!("crates.io", "/api"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("registry.npm", "js"),
    concat!("deb.debian", ".org"),
];

/// Marks of work that was left for later.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Everything wrong with the text of one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(length(source));
    findings.extend(width(source));
    findings.extend(substrings(source));
    findings.extend(unfinished(source));
    if source.extension() == "md" {
        findings.extend(links(source));
    }
    findings
}

fn length(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    (LANGUAGES.contains(&source.extension()) && lines > MOST_LINES).then(|| {
        Finding::new(
            source,
            lines,
            format!("{lines} lines, {MOST_LINES} at most; split the file where its parts differ"),
        )
    })
}

/// Comments that are wider than code may be. What cannot be broken (a table, an address, one long word) may be as wide
/// as it is.
fn width(source: &Source) -> Vec<Finding> {
    if !["rs", "zig", "cu", "cuh", "cpp", "hpp", "wgsl"].contains(&source.extension()) {
        return Vec::new();
    }
    let is_wide = |line: &str| {
        let text = line.trim_start();
        let comment = text.strip_prefix("//").map(|text| text.trim_start_matches(['/', '!']).trim_start());
        let breaks = |text: &str| !text.starts_with('|') && !text.contains("://") && text.contains(' ');
        line.chars().count() > MOST_COLUMNS && comment.is_some_and(breaks)
    };
    let wide = source.text.lines().enumerate().filter(|(_, line)| is_wide(line));
    wide.map(|(at, _)| Finding::new(source, at + 1, format!("a comment beyond {MOST_COLUMNS} columns"))).collect()
}

fn substrings(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let mut found = |what: String| findings.push(Finding::new(source, index + 1, what));
        if let Some(path) = MACHINE_PATHS.iter().find(|path| begins_a_path(line, path)) {
            found(format!("`{path}` is a path of one machine; use one from the checkout or from the environment"));
        }
        if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(*word)) {
            found(format!("`{word}` names a registry's host; name the package alone"));
        }
    }
    findings
}

/// Whether `path` stands in `line` and is not the inner part of a longer one, as in `web/root/`.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || matches!(before, '_' | '-' | '.' | '}' | '>'))
    })
}

/// In Rust only comments are read (the macros of that name have a rule of their own), elsewhere every line.
fn unfinished(source: &Source) -> Vec<Finding> {
    if !LANGUAGES.contains(&source.extension()) {
        return Vec::new();
    }
    let text = if source.is_rust() { code::parts(&source.text).comments } else { source.text.clone() };
    UNFINISHED
        .iter()
        .flat_map(|mark| code::words(&text, mark).map(move |at| (mark, at)))
        .map(|(mark, at)| {
            Finding::new(source, code::line_of(&text, at), format!("`{mark}`: finish it, or leave it out"))
        })
        .collect()
}

/// Links in documents to files of the checkout must lead to a file; links to the web and to a heading are not followed.
fn links(source: &Source) -> Vec<Finding> {
    let Ok(workspace) = crate::workspace::Workspace::locate() else { return Vec::new() };
    let folder = workspace.root().join(Path::new(&source.path).parent().unwrap_or(Path::new("")));
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split(['#', ' ']).next().unwrap_or_default();
            let is_elsewhere = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !is_elsewhere && !folder.join(file).exists() {
                findings.push(Finding::new(source, index + 1, format!("the link to `{file}` leads nowhere")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<(usize, String)> {
        let source = Source { path: path.into(), text: text.into() };
        check(&source).into_iter().map(|finding| (finding.line, finding.message)).collect()
    }

    #[test]
    fn long_files_of_our_languages_are_found() {
        let text = |lines: usize| "//\n".repeat(lines);
        for path in ["a.zig", "a.cu", "a.cuh", "a.cpp", "a.hpp"] {
            assert_eq!(messages(path, &text(MOST_LINES)), []);
            let found = messages(path, &text(MOST_LINES + 1));
            assert!(found.len() == 1 && found[0].1.starts_with("551 lines"), "{path}: {found:?}");
        }
        assert_eq!(messages("Cargo.lock", &text(MOST_LINES + 1)), []);
    }

    #[test]
    fn wide_comments_are_found() {
        let wide = "word ".repeat(25);
        let text = format!("//! {wide}\nfn f() {{}} // {wide}\n    /// {wide}\n// | {wide}\n// a https://{wide}\n");
        let found: Vec<usize> = messages("host/core/src/a.rs", &text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, [1, 3]);
        assert_eq!(messages("README.md", &text), []);
    }

    #[test]
    fn machine_paths_are_found() {
        for path in MACHINE_PATHS {
            for line in [format!("let a = \"{path}x\";"), format!("cd {path}x"), format!("{path}x")] {
                let found = messages("a.py", &format!("fine\n{line}\n"));
                assert!(found.len() == 1 && found[0].0 == 2 && found[0].1.contains(path), "{line}: {found:?}");
            }
        }
        assert_eq!(messages("a.py", concat!("web/ro", "ot/index and ${X}/ho", "me/x\n")), []);
    }

    #[test]
    fn registry_hosts_are_found() {
        for word in FORBIDDEN {
            let found = messages("Cargo.lock", &format!("source = \"https://{word}/x\"\n"));
            assert!(found.len() == 1 && found[0].1.contains(word), "{word}: {found:?}");
        }
        let usual = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert_eq!(messages("Cargo.lock", usual), []);
    }

    #[test]
    fn unfinished_work_is_found() {
        for mark in UNFINISHED {
            assert_eq!(messages("a.rs", &format!("let a = 1;\n// {mark}: more\n")).len(), 1, "{mark}");
            assert_eq!(messages("a.wgsl", &format!("// {mark}\n")).len(), 1, "{mark}");
            assert_eq!(messages("a.rs", &format!("let a = \"{mark}\"; // {mark}S\n")), [], "{mark}");
        }
    }

    #[test]
    fn dead_links_are_found() {
        let text = "[a](Cargo.toml) [b](ci/src/tidy.rs#x) [c](https://example.org) [d](#top)\n[e](no/such.md)\n";
        let found = messages("README.md", text);
        assert!(found.len() == 1 && found[0].0 == 2 && found[0].1.contains("`no/such.md`"), "{found:?}");
        assert_eq!(messages("ci/NOTES.md", "[a](src/main.rs) [b](../Cargo.toml)\n"), []);
    }
}
