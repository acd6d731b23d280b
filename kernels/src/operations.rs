//! The operations that the kernel does. This compiles only if `cuda/operations.inc`, the device's list, says the same.

use megaring_core::Opcode;
use megaring_core::operation::Serves;

/// Whether the kernel does an operation.
pub(crate) const fn serves(opcode: Opcode) -> Serves<()> {
    match opcode {
        Opcode::Nop | Opcode::Search | Opcode::Score | Opcode::Encode | Opcode::Nearest | Opcode::Checksum => {
            Serves::By(())
        }
    }
}

const LIST: &str = include_str!("../cuda/operations.inc");

const _: () = assert!(agrees(LIST.as_bytes()), "cuda/operations.inc has other operations than are served");

/// Whether a list has what is served, with number and name, in rising order, and nothing else.
const fn agrees(mut list: &[u8]) -> bool {
    let mut at = 0;
    while at < Opcode::COUNT {
        let opcode = Opcode::ALL[at];
        if matches!(serves(opcode), Serves::By(())) {
            match entry(list, opcode) {
                Some(rest) => list = rest,
                None => return false,
            }
        }
        at += 1;
    }
    next(list).is_none()
}

/// What follows the next entry, if it is this operation's.
const fn entry(list: &[u8], opcode: Opcode) -> Option<&[u8]> {
    let Some(mut rest) = next(list) else { return None };
    let mut number = 0;
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        number = number * 10 + (*digit - b'0') as u32;
        rest = after;
    }
    let Some(rest) = strip(rest, b", ") else { return None };
    let Some(rest) = strip(rest, opcode.name().as_bytes()) else { return None };
    if number == opcode as u32 { strip(rest, b")\n") } else { None }
}

/// What follows the parenthesis of the next entry. Entries stand at the beginning of a line.
const fn next(mut list: &[u8]) -> Option<&[u8]> {
    let mut begins = true;
    while let [byte, rest @ ..] = list {
        if begins && let Some(entry) = strip(list, b"MEGARING_OPERATION(") {
            return Some(entry);
        }
        begins = *byte == b'\n';
        list = rest;
    }
    None
}

const fn strip<'a>(mut text: &'a [u8], mut prefix: &[u8]) -> Option<&'a [u8]> {
    while let [wanted, after @ ..] = prefix {
        match text {
            [byte, rest @ ..] if *byte == *wanted => (text, prefix) = (rest, after),
            _ => return None,
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_list_does_not_agree() {
        let with = |from: &str, to: &str| {
            let other = LIST.replacen(from, to, 1);
            assert_ne!(other, LIST, "{from:?} is not there");
            agrees(other.as_bytes())
        };
        assert!(agrees(LIST.as_bytes()) && with("// The", "//"));
        let last = "MEGARING_OPERATION(5, nearest)\n";
        for (from, to) in [
            ("(4, encode)", "(6, encode)"),
            ("(4, encode)", "(4, encoder)"),
            ("(4, encode)", "(4, code)"),
            (last, ""),
            (last, "MEGARING_OPERATION(5, nearest)\nMEGARING_OPERATION(6, polish)\n"),
            (last, "MEGARING_OPERATION(5, nearest)\nMEGARING_OPERATION(5, nearest)\n"),
            ("MEGARING_OPERATION(4, ", "// MEGARING_OPERATION(4, "),
        ] {
            assert!(!with(from, to), "{from:?} as {to:?}");
        }
    }
}
