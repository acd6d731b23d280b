//! JSON lines: an object a line, fields named like a segment's columns. Empty lines are passed over.
//!
//! All lines have the optional fields that the first good line has. A field without a meaning here is not stored; the
//! first line's are named in a note.

use std::fmt;
use std::io::{BufRead, Read};

use megaring_core::matrix::{MAX_DIM, Matrix};
use megaring_core::nearest::{MAX_COORDINATE, is_coordinate};
use megaring_core::{Error, Violation};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::input::Input;
use super::selection::{Columns, way_out};
use super::{Bad, CHUNK_BYTES, Chunk, ImportOptions, Source, lost};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::fault::Fault;
use crate::rows::Rows;

/// Longest line.
const MAX_LINE: u64 = 64 << 20;

/// Lines being read.
pub(super) struct JsonLines {
    input: Input,
    dim: Option<usize>,
    columns: Columns,
    /// Names of the optional fields that the first good line has.
    fields: Option<Vec<&'static str>>,
    /// Names of those that are not stored.
    unknown: Option<Vec<String>>,
    line: u64,
    /// Whether a line has been seen that is not empty.
    begun: bool,
}

#[derive(Default)]
struct Line {
    memory_id: Option<u64>,
    title: Option<String>,
    /// Wider than stored, so that a number too large for float32 can be named by its element.
    embedding: Option<Vec<f64>>,
    coordinates: [Option<f64>; 5],
    galactic_distance: Option<f64>,
    importance: Option<f64>,
    zone: Option<u8>,
    constellation_id: Option<u16>,
    last_accessed_ns: Option<u64>,
    is_protected: Option<bool>,
}

/// A column and why the line is bad.
type Reason = (Option<&'static str>, String);

impl JsonLines {
    pub(super) fn open(input: Input, options: &ImportOptions) -> Self {
        let columns = options.columns.clone();
        Self { input, dim: options.dim, columns, fields: None, unknown: None, line: 0, begun: false }
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
                Err(reason) => bad.add(self.violation(reason)),
            }
        }
        let dim = self.dim.unwrap_or(0);
        rows.embeddings.dim = dim;
        Ok((taken > 0).then_some(Chunk { rows, bad }))
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
        line.check(self.dim)?;
        let fields = line.fields();
        match &self.fields {
            Some(first) => same_fields(first, &fields)?,
            None => {
                if let Some(name) = self.columns.renamed().find(|name| !line.has(name, &fields)) {
                    return Err((columns::known().find(|known| *known == name), "the field is missing or null".into()));
                }
                self.fields = Some(fields);
            }
        }
        self.dim = line.embedding.as_ref().map(Vec::len);
        Ok(line)
    }

    fn fields_of(&mut self, text: &str) -> Result<Line, Reason> {
        let (mut at, mut unknown) = (None, Vec::new());
        let mut parser = serde_json::Deserializer::from_str(text);
        let fields = Fields { columns: &self.columns, at: &mut at, unknown: &mut unknown };
        let parsed = fields.deserialize(&mut parser).and_then(|line| parser.end().map(|()| line));
        let line = parsed.map_err(|error| match at.filter(|_| error.is_data()) {
            // A value of another type, or a number out of its range.
            Some(EMBEDDING) => (Some(EMBEDDING), describe(&error)),
            Some(name) => (Some(name), format!("{}; {}", describe(&error), way_out(name, self.columns.in_file(name)))),
            None => (None, format!("bad JSON: {}", describe(&error))),
        })?;
        self.unknown.get_or_insert(unknown);
        Ok(line)
    }

    fn violation(&self, (column, description): Reason) -> Violation {
        let place = format!("{} line {}", self.input.name(), self.line);
        let field = column.map_or(place.clone(), |column| format!("{place}: {}", self.columns.in_file(column)));
        Violation { field, row: None, description }
    }
}

impl Source for JsonLines {
    fn dim(&self) -> Option<usize> {
        self.dim
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(self.input.name()))
    }

    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    fn bytes_total(&self) -> u64 {
        self.input.bytes_total()
    }

    fn notes(&self) -> Vec<String> {
        let names = self.unknown.as_deref().unwrap_or_default().join(", ");
        let note = format!("{}: fields without a meaning here are not stored: {names}", self.input.name());
        (!names.is_empty()).then_some(note).into_iter().collect()
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
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let mut line = Line::default();
        while let Some(key) = map.next_key::<String>()? {
            let name = self.columns.name(&key);
            let known = name.and_then(|name| columns::known().find(|known| *known == name));
            *self.at = known;
            match known {
                Some(MEMORY_ID) => set(&mut line.memory_id, &mut map)?,
                Some(TITLE) => set(&mut line.title, &mut map)?,
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

impl Line {
    fn check(&self, dim: Option<usize>) -> Result<(), Reason> {
        let Some(embedding) = &self.embedding else {
            return Err((Some(EMBEDDING), "the field is missing or null".into()));
        };
        let n = embedding.len();
        match dim {
            Some(dim) if n != dim => return Err((Some(EMBEDDING), format!("{n} values, wanted are {dim}"))),
            None if !(1..=MAX_DIM).contains(&n) => {
                return Err((Some(EMBEDDING), format!("{n} values; 1 to {MAX_DIM} are possible")));
            }
            _ => {}
        }
        // JSON has no infinities, but numbers beyond float32.
        if let Some(element) = embedding.iter().position(|value| !(*value as f32).is_finite()) {
            return Err((Some(EMBEDDING), format!("element {element} is too large for float32")));
        }
        let there = self.coordinates.iter().flatten().count();
        for (name, value) in COORDINATES.into_iter().zip(self.coordinates).filter(|_| there > 0) {
            match value {
                None => return Err((Some(name), "coordinates are x, y, z, w and v, or none of them".into())),
                Some(value) if !is_coordinate(value) => {
                    return Err((Some(name), format!("{value:e} is not within ±{MAX_COORDINATE:e}")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Optional fields that the line has. A title may be missing from any line.
    fn fields(&self) -> Vec<&'static str> {
        let there = [
            (MEMORY_ID, self.memory_id.is_some()),
            (COORDINATES[0], self.coordinates[0].is_some()),
            (columns::GALACTIC_DISTANCE, self.galactic_distance.is_some()),
            (columns::IMPORTANCE, self.importance.is_some()),
            (columns::ZONE, self.zone.is_some()),
            (columns::CONSTELLATION_ID, self.constellation_id.is_some()),
            (columns::LAST_ACCESSED_NS, self.last_accessed_ns.is_some()),
            (columns::IS_PROTECTED, self.is_protected.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    /// Whether a field is there that was asked for by name; a title may be missing from any line.
    fn has(&self, name: &str, fields: &[&str]) -> bool {
        let axis = COORDINATES.iter().position(|axis| *axis == name);
        let is_there = axis.map_or(fields.contains(&name), |axis| self.coordinates[axis].is_some());
        is_there || [TITLE, EMBEDDING].contains(&name)
    }

    fn push_to(self, rows: &mut Rows) {
        if self.coordinates.iter().all(Option::is_some) {
            let columns = rows.coordinates.get_or_insert_default();
            columns.iter_mut().zip(self.coordinates).for_each(|(column, value)| column.extend(value));
        }
        rows.memory_ids.extend(self.memory_id);
        rows.titles.push(self.title.unwrap_or_default());
        push(&mut rows.galactic_distance, self.galactic_distance);
        push(&mut rows.importance, self.importance);
        push(&mut rows.zone, self.zone);
        push(&mut rows.constellation_id, self.constellation_id);
        push(&mut rows.last_accessed_ns, self.last_accessed_ns);
        push(&mut rows.is_protected, self.is_protected);
        let Matrix { rows: count, values, .. } = &mut rows.embeddings;
        *count += 1;
        values.extend(self.embedding.into_iter().flatten().map(|value| value as f32));
    }
}

fn push<T>(column: &mut Option<Vec<T>>, value: Option<T>) {
    if let Some(value) = value {
        column.get_or_insert_default().push(value);
    }
}

fn same_fields(first: &[&'static str], now: &[&'static str]) -> Result<(), Reason> {
    if let Some(name) = first.iter().find(|name| !now.contains(name)) {
        return Err((Some(name), "the field is missing or null; lines before have it".into()));
    }
    match now.iter().find(|name| !first.contains(name)) {
        Some(name) => Err((Some(name), "lines before do not have this field".into())),
        None => Ok(()),
    }
}

/// Why a file of one JSON array is no JSON lines, and what to do; `line` is its first.
#[must_use]
pub fn json_array(line: &[u8]) -> Option<&'static str> {
    let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line).trim_ascii().strip_prefix(b"[")?;
    let is_array = matches!(text.trim_ascii_start().first(), None | Some(b'{' | b'['));
    is_array.then_some("it is one JSON array; wanted is a value a line, which `jq -c '.[]' FILE` makes of it")
}

/// The parser's words without its line number, which is always 1 here.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let plain = text.split(" at line ").next().unwrap_or(&text).to_owned();
    if error.column() == 0 { plain } else { format!("{plain} at column {}", error.column()) }
}
