//! Rules about WGSL, for which there is no formatter to run: one stage a file, and text that looks as if there were.
//!
//! Whether a shader is valid is said by the build of the crate that has it.

use super::{Finding, Source};

/// Longest line of code, as rustfmt has it.
const MOST_CODE: usize = 120;
/// Longest line of comment.
const MOST_COMMENT: usize = 150;

/// Everything wrong with one WGSL file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut entry_points = 0;
    for (index, line) in source.text.lines().enumerate() {
        let mut found = |what: &str| findings.push(Finding::new(source, index + 1, what));
        let (code, comment) = line.split_once("//").map_or((line, None), |(code, comment)| (code, Some(comment)));
        entry_points += code.matches("@compute").count();
        let most = if code.trim().is_empty() { MOST_COMMENT } else { MOST_CODE };
        if line.chars().count() > most {
            found(&format!("the line is longer than {most}"));
        }
        if line.contains('\t') || line.ends_with([' ', '\r']) {
            found("tabs and blanks at the end of a line are not for WGSL");
        }
        if !(line.len() - line.trim_start_matches(' ').len()).is_multiple_of(4) {
            found("indent by four blanks");
        }
        if comment.is_some_and(|comment| !comment.is_empty() && !comment.starts_with(' ')) {
            found("a comment begins with a blank");
        }
    }
    if entry_points > 1 {
        let message = format!("{entry_points} entry points; a stage has one, and a file of its own");
        findings.push(Finding::new(source, 1, message));
    }
    if !source.text.starts_with("// ") {
        findings.push(Finding::new(source, 1, "the file does not begin with what it does (`// …`)"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGE: &str =
        "// Does nothing.\n//\n//     upper_of(row: u32)\n\n@compute @workgroup_size(64)\nfn main() {\n    // So.\n}\n";

    fn messages(path: &str, text: &str) -> Vec<String> {
        let source = Source { path: path.into(), text: text.into() };
        check(&source).into_iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect()
    }

    #[test]
    fn a_sound_stage_has_no_findings() {
        assert_eq!(messages("shaders/wgsl/a.wgsl", STAGE), [""; 0]);
        assert_eq!(messages("shaders/wgsl/shared/a.wgsl", "// A struct.\n\nstruct A {\n    a: u32,\n}\n"), [""; 0]);
    }

    #[test]
    fn two_stages_in_a_file_are_found() {
        let found = messages("shaders/wgsl/a.wgsl", &format!("{STAGE}\n@compute @workgroup_size(1)\nfn more() {{}}\n"));
        assert!(found.len() == 1 && found[0].contains("2 entry points"), "{found:?}");
        assert_eq!(messages("shaders/wgsl/a.wgsl", &format!("{STAGE}// @compute\n")), [""; 0]);
    }

    #[test]
    fn what_a_formatter_would_mend_is_found() {
        for (bad, expected) in [
            (STAGE.replacen("// Does", "//Does", 1), "1: a comment"),
            (STAGE.replacen("    // So", "   // So", 1), "7: indent"),
            (STAGE.replacen("    // So", "\t// So", 1), "7: tabs"),
            (STAGE.replacen("main() {", "main() { ", 1), "6: tabs"),
            (STAGE.replacen("So.", &"so ".repeat(60), 1), "7: the line is longer than 150"),
            (
                STAGE.replacen("main() {", &format!("main({}) {{", "a: u32, ".repeat(20)), 1),
                "6: the line is longer than 120",
            ),
            (STAGE.replacen("// Does nothing.\n", "", 1), "1: the file"),
        ] {
            let found = messages("shaders/wgsl/a.wgsl", &bad);
            assert!(found.iter().any(|message| message.starts_with(expected)), "{expected}: {found:?}");
        }
    }
}
