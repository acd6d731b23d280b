//! Texts of others on a terminal: titles, file names, what a server or a driver says.

use std::borrow::Cow;
use std::path::Path;

/// A text as one line that does nothing to a terminal: control characters, line ends among them, are shown as Rust
/// writes them (`\n`, `\u{1b}`).
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// [`printable`] of each line: for texts that are made of several.
pub(super) fn printable_lines(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(printable).collect::<Vec<_>>().join("\n"))
}

/// A file's name, [`printable`].
pub(crate) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}
