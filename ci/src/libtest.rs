//! Reading what Rust's test programs print, one or several after another.

/// How many lines of what a failed test said are worth showing again.
const MOST_LINES: usize = 12;

/// The tests that failed, as each program lists them at its end; none where no program got there.
pub(crate) fn failed(output: &str) -> Vec<String> {
    // A program has two sections of that name: what the tests said, which begins with an empty line, and the list.
    let lists = output.split("\nfailures:\n").skip(1);
    let names = lists.flat_map(|list| list.lines().map_while(|line| line.strip_prefix("    ")));
    names.map(str::to_owned).collect()
}

/// The last lines of what a program said, each indented.
pub(crate) fn last_words(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(MOST_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// The first lines of what a failed test said, each indented; empty where it said nothing.
pub(crate) fn said(output: &str, test: &str) -> String {
    let Some((_, section)) = output.split_once(&format!("\n---- {test} stdout ----\n")) else {
        return String::new();
    };
    let lines = section.lines().take_while(|line| !line.starts_with("---- ") && *line != "failures:");
    lines.filter(|line| !line.is_empty()).take(MOST_LINES).map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a::one ... FAILED
test two ... ok

failures:

---- a::one stdout ----
    indented words of its own

left: 1
---- three stdout ----
other words

failures:
    a::one
    three

test result: FAILED. 1 passed; 2 failed; 0 ignored

running 1 test

failures:

failures:
    four

test result: FAILED. 0 passed; 1 failed; 0 ignored
";

    #[test]
    fn what_failed_is_read_from_the_lists() {
        assert_eq!(failed(OUTPUT), ["a::one", "three", "four"]);
        assert!(failed("running 3 tests\nfatal runtime error: stack overflow\n").is_empty());
        assert!(failed("\nfailures:\n\n---- a::one stdout ----\n").is_empty(), "it ended amidst its words");
    }

    #[test]
    fn a_test_s_words_are_its_own_section() {
        assert_eq!(said(OUTPUT, "a::one"), "        indented words of its own\n    left: 1\n");
        assert_eq!(said(OUTPUT, "three"), "    other words\n");
        assert_eq!(said(OUTPUT, "four"), "");
        let long = format!("\n---- x stdout ----\n{}", "a line\n".repeat(100));
        assert_eq!(said(&long, "x").lines().count(), MOST_LINES);
        assert_eq!(last_words("a\n\nb\n"), "    a\n    b\n");
        assert_eq!(last_words(&format!("{long}the end")).lines().count(), MOST_LINES);
        assert!(last_words(&format!("{long}the end")).ends_with("    the end\n"));
    }
}
