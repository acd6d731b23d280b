//! Tidy checks: what rustfmt and clippy do not see, over every file that git tracks or would track.
//!
//! - Nothing is written and nothing is run but `git ls-files`; where that fails (a source archive), the folders are
//!   walked.
//! - A rule is a function from files to findings, and has a test with a seeded violation.
//! - There is no way to silence a rule in a file: the lists of what is allowed where stand beside the rules.

mod code;
mod manifest;
mod rust;
mod text;
mod wgsl;

use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::command::ask;
use crate::workspace::Workspace;

/// One text file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// From the root, with `/` between the parts.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
}

impl Source {
    /// The part of the file name after its last dot, or nothing.
    fn extension(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(stem, extension)| if stem.is_empty() { "" } else { extension })
    }

    fn is_rust(&self) -> bool {
        self.extension() == "rs"
    }

    /// Whether it lies in a folder `src`, at any depth.
    fn is_in_src(&self) -> bool {
        self.path.starts_with("src/") || self.path.contains("/src/")
    }
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, as in [`Source::path`].
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
    /// What is wrong and what to do instead.
    pub(crate) message: String,
}

impl Finding {
    fn new(source: &Source, line: usize, message: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, message: message.into() }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Prints what is wrong; exit status 1 where there is something.
pub(crate) fn run(workspace: &Workspace) -> ExitCode {
    let findings = check(workspace);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything wrong in the checkout, by file and line.
pub(crate) fn check(workspace: &Workspace) -> Vec<Finding> {
    findings(&sources(workspace))
}

fn findings(sources: &[Source]) -> Vec<Finding> {
    let mut findings = manifest::check(sources);
    for source in sources {
        findings.extend(text::check(source));
        if source.is_rust() {
            findings.extend(rust::check(source));
        }
        if source.extension() == "wgsl" {
            findings.extend(wgsl::check(source));
        }
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

/// The files that are text a person or a tool wrote; data and pictures are left out by their endings or their bytes.
fn sources(workspace: &Workspace) -> Vec<Source> {
    const DATA: [&str; 8] = ["npy", "jsonl", "arrow", "parquet", "fvecs", "bin", "png", "svg"];
    let mut paths = tracked(workspace).unwrap_or_else(|| walked(workspace.root()));
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = fs::read(workspace.root().join(&path)).ok().map(String::from_utf8)?.ok()?;
            Some(Source { path, text })
        })
        .filter(|source| !DATA.contains(&source.extension()))
        .collect()
}

/// What git tracks, and what it would track if it were added.
fn tracked(workspace: &Workspace) -> Option<Vec<String>> {
    let mut git = workspace.command("git");
    let listing = ask(git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    Some(listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn walked(root: &Path) -> Vec<String> {
    const LEFT_OUT: [&str; 5] = ["target", ".git", ".zig-cache", "zig-out", "__pycache__"];
    let (mut folders, mut files) = (vec![PathBuf::new()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_file() => files.push(path.to_string_lossy().replace('\\', "/")),
                Ok(kind) if kind.is_dir() && !LEFT_OUT.iter().any(|name| entry.file_name() == *name) => {
                    folders.push(path)
                }
                _ => {}
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str) -> Source {
        Source { path: path.into(), text: String::new() }
    }

    #[test]
    fn endings_and_folders_are_told_apart() {
        assert_eq!(source("a/b.rs").extension(), "rs");
        assert_eq!(source("a.d/b").extension(), "");
        assert_eq!(source(".gitignore").extension(), "");
        assert!(source("host/ring/src/a/b.rs").is_in_src());
        assert!(!source("host/ring/tests/src.rs").is_in_src());
    }

    #[test]
    fn git_and_the_walk_find_the_same_rust_files() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        let rust = |paths: Vec<String>| {
            let mut paths: Vec<String> = paths.into_iter().filter(|path| path.starts_with("ci/src/")).collect();
            paths.sort();
            paths
        };
        let walked = rust(walked(workspace.root()));
        assert!(walked.contains(&"ci/src/tidy/code.rs".to_owned()), "{walked:?}");
        if let Some(mut tracked) = tracked(&workspace) {
            tracked.retain(|path| workspace.root().join(path).exists());
            assert_eq!(rust(tracked), walked);
        }
    }

    #[test]
    fn findings_come_by_file_and_line() {
        let bad = |path: &str| Source { path: path.into(), text: "//! A.\n\n#[ignore]\nfn a() {}\n#[ignore]\n".into() };
        let places: Vec<(String, usize)> = findings(&[bad("b/src/z.rs"), bad("a/src/z.rs")])
            .into_iter()
            .filter(|finding| finding.message.contains("ignore"))
            .map(|finding| (finding.path, finding.line))
            .collect();
        let expected = [("a/src/z.rs", 3), ("a/src/z.rs", 5), ("b/src/z.rs", 3), ("b/src/z.rs", 5)];
        assert_eq!(places, expected.map(|(path, line)| (path.to_owned(), line)));
    }
}
