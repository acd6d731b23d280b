//! Rust source taken apart into its code and its comments, so that a rule about one is not set off by the other or by a
//! string.
//!
//! It knows as much of the language as that needs: comments (nested), strings (escaped, raw, byte, C), characters,
//! lifetimes.

/// Two texts as long as the source, line by line: what belongs to the other one, or to a string, is blank.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Everything that is compiled; strings keep their quotes alone.
    pub(crate) code: String,
    /// Everything that is not, with its slashes and stars.
    pub(crate) comments: String,
}

/// Takes `source` apart. Source that does not end what it began is read as if it did at its end.
pub(crate) fn parts(source: &str) -> Parts {
    let bytes = source.as_bytes();
    let (mut code, mut comments) = (blank(bytes), blank(bytes));
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_end(bytes, at),
            b'"' => {
                let end = string_end(bytes, at);
                (code[at], code[end - 1]) = (b'"', b'"');
                at = end;
                continue;
            }
            b'r' if raw_hashes(bytes, at).is_some() => {
                at = raw_end(bytes, at);
                continue;
            }
            b'\'' => {
                at = quote_end(bytes, at);
                continue;
            }
            byte => {
                code[at] = byte;
                at += 1;
                continue;
            }
        };
        comments[at..end].copy_from_slice(&bytes[at..end]);
        at = end;
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Parts { code: text(code), comments: text(comments) }
}

/// The places in `text` where `word` stands as a word of its own. (A `word` that ends in `!` or `(` needs no such end.)
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let goes_on =
        move |left: &str, right: &str| part_of_word(left.bytes().next_back()) && part_of_word(right.bytes().next());
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !goes_on(before, word) && !goes_on(word, after)
    })
}

/// The line of a place, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count()
}

fn blank(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }).collect()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Just behind the quote that ends the string beginning at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The number of `#` where a raw string's `r` stands at `at` (also the one of `br` and `cr`).
fn raw_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    let part_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let prefix = at.checked_sub(1).map(|before| bytes[before]);
    let start = if matches!(prefix, Some(b'b' | b'c')) { at - 1 } else { at };
    if start > 0 && part_of_word(&bytes[start - 1]) {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_end(bytes: &[u8], at: usize) -> usize {
    let hashes = raw_hashes(bytes, at).unwrap_or(0);
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = at + hashes + 2;
    let length = bytes[body..].windows(end.len()).position(|window| window == end);
    length.map_or(bytes.len(), |length| body + length + end.len())
}

/// Just behind a character, or behind the quote alone where a lifetime or a label begins.
fn quote_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 1) {
        Some(b'\\') => {
            let rest = bytes.get(at + 3..).unwrap_or_default();
            rest.iter().position(|&byte| byte == b'\'').map_or(bytes.len(), |length| at + 3 + length + 1)
        }
        Some(&first) => {
            let width = first.leading_ones().max(1) as usize;
            if bytes.get(at + 1 + width) == Some(&b'\'') { at + width + 2 } else { at + 1 }
        }
        None => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(source: &str) -> String {
        parts(source).code
    }

    #[test]
    fn comments_are_told_from_code() {
        let split = parts("a; // unsafe\n/* b /* c */ d */ e");
        assert_eq!(split.code, "a;          \n                  e");
        assert_eq!(split.comments, "   // unsafe\n/* b /* c */ d */  ");
    }

    #[test]
    fn strings_and_characters_are_blank() {
        assert_eq!(code(r#"f("unsafe \" // x", 1)"#), r#"f("              ", 1)"#);
        assert_eq!(code(r###"f(r#"a " // "#, br"b", 2)"###).replace(' ', ""), "f(,b,2)");
        assert_eq!(code(r"['a', '\'', '\\', '\u{1F600}', 'ß', '/', b'\n']").replace(' ', ""), "[,,,,,,b]");
        assert_eq!(code("'\"' // '").trim(), "");
        assert_eq!(code("\"a\nb\" + c"), "\" \n \" + c", "lines stay where they are");
    }

    #[test]
    fn lifetimes_and_raw_names_stay_code() {
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f< a>(x: & a str) {}");
        assert_eq!(code("r#type + for_r\"s\"").replace(' ', ""), "r#type+for_r\"\"");
    }

    #[test]
    fn unfinished_source_is_no_panic() {
        for source in ["\"a", "\"a\\", "r#\"a", "/* a", "'", "'\\", "'\\u", "'ß", "r", "br", "r#"] {
            assert_eq!(code(source).len(), source.len(), "{source}");
        }
    }

    #[test]
    fn words_have_ends() {
        let found = |text: &'static str, word: &'static str| words(text, word).collect::<Vec<_>>();
        assert_eq!(found("unsafe_code unsafe {} not_unsafe", "unsafe"), [12]);
        assert_eq!(found("x.unwrap() .unwrap_or(1)", ".unwrap()"), [1]);
        assert_eq!(found("todo!() mytodo!()", "todo!"), [0]);
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
