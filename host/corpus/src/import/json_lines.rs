//! JSON lines: an object a line, fields named like a segment's columns. Empty lines are passed over.
//!
//! All lines have the optional fields that the first good line has. A field without a meaning here is not stored; the
//! first line's are named in a note.

use std::fmt;
use std::io::{BufRead, Read};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::input::Input;
use super::line::{Line, Lines, Reason, in_words};
use super::selection::{Columns, ID, way_out};
use super::{Bad, CHUNK_BYTES, Chunk, ImportOptions, Source, lost};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::fault::Fault;
use crate::rows::Rows;

/// Longest line.
const MAX_LINE: u64 = 64 << 20;

/// Lines being read.
pub(super) struct JsonLines {
    input: Input,
    lines: Lines,
    line: u64,
    /// Whether a line has been seen that is not empty.
    begun: bool,
}

impl JsonLines {
    pub(super) fn open(input: Input, options: &ImportOptions) -> Self {
        Self { input, lines: Lines::new(options), line: 0, begun: false }
    }

    fn read_line(&mut self, text: &mut Vec<u8>) -> Result<bool, Fault> {
        text.clear();
        let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', text).map_err(|error| lost(&error))?;
        self.line += 1;
        if read as u64 == MAX_LINE && !text.ends_with(b"\n") {
            return Err(Fault::file(format!("line {} is longer than {MAX_LINE} bytes", self.line)));
        }
        Ok(read > 0)
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Line, Reason> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| (None, format!("invalid UTF-8 after byte {} of the line", error.valid_up_to())))?;
        // Some programs begin a file with a byte order mark.
        let text = if self.line == 1 { text.trim_start_matches('\u{feff}') } else { text };
        let line = self.fields_of(text)?;
        self.lines.accept(line)
    }

    fn fields_of(&mut self, text: &str) -> Result<Line, Reason> {
        let (mut at, mut unknown) = (None, Vec::new());
        let mut parser = serde_json::Deserializer::from_str(text);
        let fields = Fields { columns: &self.lines.columns, at: &mut at, unknown: &mut unknown };
        let parsed = fields.deserialize(&mut parser).and_then(|line| parser.end().map(|()| line));
        let line = parsed.map_err(|error| match at.filter(|_| error.is_data()) {
            // A value of another type, or a number out of its range.
            Some(EMBEDDING) => (Some(EMBEDDING), describe(&error)),
            Some(name) => {
                (Some(name), format!("{}; {}", describe(&error), way_out(name, self.lines.columns.in_file(name))))
            }
            None if error.is_data() => (None, describe(&error)),
            None => (None, format!("bad JSON: {}", describe(&error))),
        })?;
        self.lines.unknown.get_or_insert(unknown);
        Ok(line)
    }
}

impl Source for JsonLines {
    fn dim(&self) -> Option<usize> {
        self.lines.dim
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let (mut rows, mut bad, mut text, mut taken) = (Rows::default(), Bad::default(), Vec::new(), 0);
        while taken < CHUNK_BYTES && self.read_line(&mut text)? {
            if text.trim_ascii().is_empty() {
                continue;
            }
            if !std::mem::replace(&mut self.begun, true)
                && let Some(reason) = json_array(&text)
            {
                return Err(Fault::file(reason));
            }
            taken += text.len();
            match self.parse(&text) {
                Ok(line) => line.push_to(&mut rows),
                Err(reason) => bad.add(self.lines.violation(self.input.name(), self.line, reason)),
            }
        }
        rows.embeddings.dim = self.lines.dim.unwrap_or(0);
        Ok((taken > 0).then_some(Chunk { rows, bad }))
    }

    fn bytes(&self) -> (u64, u64) {
        self.input.place()
    }

    fn notes(&self) -> Vec<String> {
        self.lines.notes(self.input.name())
    }
}

/// Reads an object as a line. `at` is the field whose value is being read.
struct Fields<'a> {
    columns: &'a Columns,
    at: &'a mut Option<&'static str>,
    unknown: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Line;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Line, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"embedding\": [0.1, 0.2]}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let mut line = Line::default();
        while let Some(key) = map.next_key::<String>()? {
            let name = self.columns.name(&key);
            let known = self.columns.known(&key);
            *self.at = known;
            match known {
                Some(MEMORY_ID) => set(&mut line.memory_id, &mut map)?,
                Some(TITLE) => set(&mut line.title, &mut map)?,
                Some(ID) => set(&mut line.id, &mut map)?,
                Some(EMBEDDING) => set(&mut line.embedding, &mut map)?,
                Some(columns::GALACTIC_DISTANCE) => set(&mut line.galactic_distance, &mut map)?,
                Some(columns::IMPORTANCE) => set(&mut line.importance, &mut map)?,
                Some(columns::ZONE) => set(&mut line.zone, &mut map)?,
                Some(columns::CONSTELLATION_ID) => set(&mut line.constellation_id, &mut map)?,
                Some(columns::LAST_ACCESSED_NS) => set(&mut line.last_accessed_ns, &mut map)?,
                Some(columns::IS_PROTECTED) => set(&mut line.is_protected, &mut map)?,
                Some(axis) => {
                    let axis = COORDINATES.iter().position(|name| *name == axis);
                    let value = axis.and_then(|axis| line.coordinates.get_mut(axis));
                    value.map_or(Ok(()), |value| set(value, &mut map))?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                    if name.is_some() || self.columns.has_lost_its_name(&key) {
                        self.unknown.push(key);
                    }
                }
            }
            *self.at = None;
        }
        Ok(line)
    }
}

fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(field: &mut Option<T>, map: &mut A) -> Result<(), A::Error> {
    if field.is_some() {
        return Err(A::Error::custom("the field is there twice"));
    }
    *field = map.next_value()?;
    Ok(())
}

/// Why a file of one JSON array is no JSON lines, and what to do; `line` is its first.
#[must_use]
pub fn json_array(line: &[u8]) -> Option<&'static str> {
    let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line).trim_ascii().strip_prefix(b"[")?;
    let is_array = matches!(text.trim_ascii_start().first(), None | Some(b'{' | b'['));
    is_array.then_some("it is one JSON array; wanted is a value a line, which `jq -c '.[]' FILE` makes of it")
}

/// Why a value of another type or range is wrong: what it is, and what is wanted.
fn other_value(text: &str) -> Option<String> {
    let text = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "))?;
    let (found, wanted) = text.rsplit_once(", expected ")?;
    let found = match found {
        "sequence" => "an array",
        "map" => "an object",
        other => other,
    };
    let found = found.replace("floating point", "the number");
    Some(format!("it is {found}, wanted is {}", in_words(wanted)))
}

/// The parser's words without its line number, which is always 1 here.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let plain = text.split(" at line ").next().unwrap_or(&text);
    let plain = other_value(plain).unwrap_or_else(|| plain.to_owned());
    if error.column() == 0 { plain } else { format!("{plain} at column {}", error.column()) }
}
