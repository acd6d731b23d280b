//! Rules about Rust source: where unsafe code and panics may stand, what every file says first, what no test may do.

use super::code::{self, Parts};
use super::{Finding, Source};

/// Where unsafe code may stand: architecture, "Layout". A folder ends in `/`.
const UNSAFE_ALLOWED: [&str; 5] = ["host/ring/", "zig-simd/", "kernels/", "shaders/", "host/corpus/src/mapping.rs"];

/// Where nothing may panic on what a caller or a file says.
const NEVER_PANICS: [&str; 7] = [
    "host/board/src/",
    "host/core/src/",
    "host/corpus/src/",
    "host/engine/src/",
    "host/ledger/src/",
    "host/server/src/",
    "host/service/src/",
];

/// Ways to panic.
const PANICS: [&str; 5] = [".unwrap()", ".unwrap_err()", ".expect(", ".expect_err(", "panic!"];

/// Macros that stand for work not done.
const UNDONE: [&str; 2] = [concat!("to", "do!"), concat!("un", "implemented!")];

/// Everything wrong with one Rust file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Parts { code, .. } = code::parts(&source.text);
    let mut findings = Vec::new();
    let mut ban = |word: &str, why: &str| {
        for at in code::words(&code, word) {
            findings.push(Finding::new(source, code::line_of(&code, at), format!("`{word}` {why}")));
        }
    };
    if !UNSAFE_ALLOWED.iter().any(|allowed| source.path.starts_with(allowed)) {
        ban("unsafe", "may stand only in the crates that own foreign or shared memory");
    }
    // A module of tests is in no program.
    let is_tests = source.path.ends_with("/tests.rs");
    if !is_tests && NEVER_PANICS.iter().any(|folder| source.path.starts_with(folder)) {
        PANICS.iter().for_each(|panic| ban(panic, "may take the process down; answer with an error"));
    }
    UNDONE.iter().for_each(|undone| ban(undone, "is work not done"));
    ban("#[ignore", "hides a test; report at run time why it cannot run here");
    for allow in ["#[allow(", "#![allow("] {
        ban(allow, "stays when its reason is gone; use `expect` with a reason");
    }
    findings.extend(module_doc(source));
    findings
}

fn module_doc(source: &Source) -> Option<Finding> {
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    (source.is_in_src() && !first.starts_with("//!"))
        .then(|| Finding::new(source, 1, "the file does not begin with what it promises (`//! …`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let text = if path.contains("src/") { format!("//! A.\n{text}") } else { text.to_owned() };
        let source = Source { path: path.into(), text };
        check(&source).into_iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect()
    }

    #[test]
    fn unsafe_outside_its_places_is_found() {
        let text = "// unsafe here\n#![forbid(unsafe_code)]\nfn f() { unsafe { g(\"unsafe\") } }\n";
        for path in ["host/service/src/a.rs", "host/corpus/src/lib.rs", "host/core/tests/a.rs", "ci/src/a.rs"] {
            let found = messages(path, text);
            let line = if path.contains("src/") { "4: `unsafe`" } else { "3: `unsafe`" };
            assert!(found.len() == 1 && found[0].starts_with(line), "{path}: {found:?}");
        }
        for path in ["host/ring/src/a.rs", "zig-simd/src/a.rs", "kernels/src/a.rs", "host/corpus/src/mapping.rs"] {
            assert_eq!(messages(path, text), [""; 0], "{path}");
        }
    }

    #[test]
    fn panics_in_the_service_and_the_corpus_are_found() {
        for panic in [".unwrap()", ".unwrap_err()", ".expect(\"a\")", ".expect_err(\"a\")"] {
            let text = format!("fn f() {{ g(){panic}; }}\n");
            assert_eq!(messages("host/service/src/a/b.rs", &text).len(), 1, "{panic}");
            assert_eq!(messages("host/corpus/src/a.rs", &text).len(), 1, "{panic}");
            for tests in ["host/service/tests/a.rs", "host/engine/src/a/tests.rs"] {
                assert_eq!(messages(tests, &text), [""; 0], "{panic}");
            }
        }
        assert_eq!(messages("host/service/src/a.rs", "fn f() { panic!(\"a\") }\n").len(), 1);
        let fine =
            "fn f() { g().unwrap_or(1); h().unwrap_or_default(); } // .unwrap()\n#[expect(dead_code)]\nfn g() {}\n";
        assert_eq!(messages("host/service/src/a.rs", fine), [""; 0]);
    }

    #[test]
    fn hidden_tests_and_undone_work_are_found() {
        for bad in ["#[ignore]", "#[ignore = \"slow\"]", "#[allow(dead_code)]", "#![allow(missing_docs)]"] {
            assert_eq!(messages("host/core/tests/a.rs", &format!("{bad}\nfn f() {{}}\n")).len(), 1, "{bad}");
        }
        for undone in UNDONE {
            assert_eq!(messages("host/core/tests/a.rs", &format!("fn f() {{ {undone}() }}\n")).len(), 1, "{undone}");
        }
        let fine =
            "#[expect(dead_code, reason = \"seen by C\")]\nfn f() {} // #[ignore]\nconst A: &str = \"#[ignore]\";\n";
        assert_eq!(messages("host/core/tests/a.rs", fine), [""; 0]);
    }

    #[test]
    fn files_without_a_module_doc_are_found() {
        let of = |path: &str, text: &str| check(&Source { path: path.into(), text: text.into() }).len();
        assert_eq!(of("host/core/src/a.rs", "use std::fs;\n"), 1);
        assert_eq!(of("host/core/src/a.rs", ""), 1);
        assert_eq!(of("host/core/src/a.rs", "\n//! Promises.\nuse std::fs;\n"), 0);
        assert_eq!(of("host/core/tests/a.rs", "use std::fs;\n"), 0);
    }
}
