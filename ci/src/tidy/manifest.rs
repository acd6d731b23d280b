//! Rules about the workspace: every member is licensed and held to the shared lints.

use super::{Finding, Source};

/// Crates that may hold unsafe code spell their own lints, because what the workspace forbids cannot be allowed again.
const OWN_LINTS: [&str; 5] = ["host/ring", "zig-simd", "kernels", "shaders", "host/corpus"];

/// What such a table must keep: table, key, value.
const KEPT_LINTS: [(&str, &str, &str); 6] = [
    ("lints.rust", "unsafe_op_in_unsafe_fn", "\"deny\""),
    ("lints.rust", "missing_docs", "\"warn\""),
    ("lints.rust", "unreachable_pub", "\"warn\""),
    ("lints.clippy", "undocumented_unsafe_blocks", "\"deny\""),
    ("lints.clippy", "todo", "\"deny\""),
    ("lints.clippy", "unimplemented", "\"deny\""),
];

/// The texts that "MIT OR Apache-2.0" speaks of.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Everything wrong with the workspace's manifests.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(root) = sources.iter().find(|source| source.path == "Cargo.toml") else { return Vec::new() };
    let mut findings = Vec::new();
    for licence in LICENCES {
        if !sources.iter().any(|source| source.path == licence && !source.text.is_empty()) {
            findings.push(Finding::new(root, 1, format!("{licence} is missing beside it")));
        }
    }
    for member in members(&root.text) {
        let path = format!("{member}/Cargo.toml");
        match sources.iter().find(|source| source.path == path) {
            Some(manifest) => findings.extend(check_member(&member, manifest)),
            None => findings.push(Finding::new(root, 1, format!("the member `{member}` has no Cargo.toml"))),
        }
    }
    findings
}

fn check_member(member: &str, manifest: &Source) -> Vec<Finding> {
    let entries = entries(&manifest.text);
    let says = |(table, key, value): &(&str, &str, &str)| {
        entries.iter().any(|(t, k, v)| (t.as_str(), k.as_str(), v.as_str()) == (*table, *key, *value))
    };
    let mut findings = Vec::new();
    if !says(&("package", "license.workspace", "true")) {
        findings.push(Finding::new(manifest, 1, "`license.workspace = true` is missing"));
    }
    if says(&("lints", "workspace", "true")) {
        return findings;
    }
    if !OWN_LINTS.contains(&member) {
        findings.push(Finding::new(manifest, 1, "`[lints] workspace = true` is missing"));
        return findings;
    }
    let lost = KEPT_LINTS.iter().filter(|lint| !says(lint));
    findings.extend(lost.map(|(table, key, value)| {
        Finding::new(manifest, 1, format!("its own lints lack `{key} = {value}` in [{table}]"))
    }));
    findings
}

/// The folders in `members = [ … ]`.
fn members(root: &str) -> Vec<String> {
    let list = root.split_once("\nmembers = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Table, key and value of each line `key = value`; all that Cargo.toml's flat parts need.
fn entries(text: &str) -> Vec<(String, String, String)> {
    let (mut table, mut entries) = (String::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = name.trim().to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.split(" #").next().unwrap_or_default().trim();
            entries.push((table.clone(), key.trim().to_owned(), value.to_owned()));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "[workspace]\nresolver = \"3\"\nmembers = [\n  \"host/core\",\n  \"host/ring\",\n]\n";
    const CORE: &str = "[package]\nlicense.workspace = true\n\n[lints]\nworkspace = true # all\n";
    const RING: &str = "[package]\nlicense.workspace = true\n\n[lints.rust]\nunsafe_op_in_unsafe_fn = \"deny\"\n\
        missing_docs = \"warn\"\nunreachable_pub = \"warn\"\n\n[lints.clippy]\nundocumented_unsafe_blocks = \"deny\"\n\
        todo = \"deny\"\nunimplemented = \"deny\"\n";

    fn messages(root: &str, core: &str, ring: &str, licences: &[&str]) -> Vec<String> {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let mut sources =
            vec![file("Cargo.toml", root), file("host/core/Cargo.toml", core), file("host/ring/Cargo.toml", ring)];
        sources.extend(licences.iter().map(|licence| file(licence, "text")));
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_workspace_has_no_findings() {
        assert_eq!(messages(ROOT, CORE, RING, &LICENCES), [""; 0]);
    }

    #[test]
    fn missing_licences_are_found() {
        let found = messages(ROOT, CORE, RING, &["LICENSE-MIT"]);
        assert_eq!(found, ["Cargo.toml:1: LICENSE-APACHE is missing beside it"]);
        let found = messages(ROOT, &CORE.replace("license.workspace", "x"), RING, &LICENCES);
        assert!(found.len() == 1 && found[0].contains("license.workspace"), "{found:?}");
    }

    #[test]
    fn missing_lints_are_found() {
        let found = messages(ROOT, &CORE.replace("[lints]", "[x]"), RING, &LICENCES);
        assert!(found.len() == 1 && found[0].contains("[lints] workspace"), "{found:?}");
        let found = messages(ROOT, RING, RING, &LICENCES);
        assert!(found.len() == 1 && found[0].starts_with("host/core/"), "core may not spell its own: {found:?}");
        let found = messages(ROOT, CORE, &RING.replace("blocks = \"deny\"", "blocks = \"allow\""), &LICENCES);
        assert!(found.len() == 1 && found[0].contains("undocumented_unsafe_blocks"), "{found:?}");
    }

    #[test]
    fn a_member_that_is_not_there_is_found() {
        let found = messages(&ROOT.replace("host/ring", "host/rang"), CORE, RING, &LICENCES);
        assert!(found.len() == 1 && found[0].contains("`host/rang`"), "{found:?}");
    }
}
