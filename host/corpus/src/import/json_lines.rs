//! JSON lines: an object a line, fields named like a segment's columns. Empty lines are passed over.
//!
//! All lines have the optional fields that the first good line has. A field without a meaning here is not stored; the
//! first line's are named in a note.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use megaring_core::matrix::{MAX_DIM, Matrix};
use megaring_core::{Error, Violation};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Bad, CHUNK_BYTES, Chunk, Source, open_file, shown};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID};
use crate::fault::Fault;
use crate::rows::Rows;

/// Longest line.
const MAX_LINE: u64 = 64 << 20;

/// Lines being read.
pub(super) struct JsonLines {
    name: String,
    file: BufReader<File>,
    dim: Option<usize>,
    /// Names of the optional fields that the first good line has.
    fields: Option<Vec<&'static str>>,
    unknown: Option<Vec<String>>,
    line: u64,
    place: u64,
}

#[derive(Deserialize)]
struct Line {
    memory_id: Option<u64>,
    title: Option<String>,
    /// Wider than stored, so that a number too large for float32 can be named by its element.
    embedding: Vec<f64>,
    x: Option<f64>,
    y: Option<f64>,
    z: Option<f64>,
    w: Option<f64>,
    v: Option<f64>,
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
    pub(super) fn open(path: &Path, dim: Option<usize>) -> Result<Self, Error> {
        let file = BufReader::with_capacity(1 << 20, open_file(path)?);
        Ok(Self { name: shown(path), file, dim, fields: None, unknown: None, line: 0, place: 0 })
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let (mut rows, mut bad, mut text, mut taken) = (Rows::default(), Bad::default(), Vec::new(), 0);
        while taken < CHUNK_BYTES && self.read_line(&mut text)? {
            if text.trim_ascii().is_empty() {
                continue;
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
        let read = self.file.by_ref().take(MAX_LINE).read_until(b'\n', text);
        let read = read.map_err(|error| Fault::file(format!("cannot be read: {error}")))?;
        self.place += read as u64;
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
        let line: Line =
            serde_json::from_str(text).map_err(|error| (None, format!("bad JSON: {}", describe(&error))))?;
        line.check(self.dim)?;
        let fields = line.fields();
        match &self.fields {
            Some(first) => same_fields(first, &fields)?,
            None => self.fields = Some(fields),
        }
        self.dim.get_or_insert(line.embedding.len());
        if self.unknown.is_none() {
            self.unknown = Some(unknown_fields(text));
        }
        Ok(line)
    }

    fn violation(&self, (column, description): Reason) -> Violation {
        let place = format!("{} line {}", self.name, self.line);
        let field = column.map_or(place.clone(), |column| format!("{place}: {column}"));
        Violation { field, row: None, description }
    }
}

impl Source for JsonLines {
    fn dim(&self) -> Option<usize> {
        self.dim
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.next().map_err(|fault| fault.into_invalid(&self.name))
    }

    fn bytes_read(&self) -> u64 {
        self.place
    }

    fn notes(&self) -> Vec<String> {
        let names = self.unknown.as_deref().unwrap_or_default().join(", ");
        let note = format!("{}: fields without a meaning here are not stored: {names}", self.name);
        (!names.is_empty()).then_some(note).into_iter().collect()
    }
}

impl Line {
    fn coordinates(&self) -> [Option<f64>; 5] {
        [self.x, self.y, self.z, self.w, self.v]
    }

    fn check(&self, dim: Option<usize>) -> Result<(), Reason> {
        let n = self.embedding.len();
        match dim {
            Some(dim) if n != dim => return Err((Some(EMBEDDING), format!("{n} values, wanted are {dim}"))),
            None if !(1..=MAX_DIM).contains(&n) => {
                return Err((Some(EMBEDDING), format!("{n} values; 1 to {MAX_DIM} are possible")));
            }
            _ => {}
        }
        // JSON has no infinities, but numbers beyond float32.
        if let Some(element) = self.embedding.iter().position(|value| !(*value as f32).is_finite()) {
            return Err((Some(EMBEDDING), format!("element {element} is too large for float32")));
        }
        let there = self.coordinates().iter().flatten().count();
        match COORDINATES.into_iter().zip(self.coordinates()).find(|(_, value)| value.is_none()) {
            Some((name, _)) if there > 0 => {
                Err((Some(name), "coordinates are x, y, z, w and v, or none of them".into()))
            }
            _ => Ok(()),
        }
    }

    /// Optional fields that the line has. A title may be missing from any line.
    fn fields(&self) -> Vec<&'static str> {
        let there = [
            (MEMORY_ID, self.memory_id.is_some()),
            (COORDINATES[0], self.x.is_some()),
            (columns::GALACTIC_DISTANCE, self.galactic_distance.is_some()),
            (columns::IMPORTANCE, self.importance.is_some()),
            (columns::ZONE, self.zone.is_some()),
            (columns::CONSTELLATION_ID, self.constellation_id.is_some()),
            (columns::LAST_ACCESSED_NS, self.last_accessed_ns.is_some()),
            (columns::IS_PROTECTED, self.is_protected.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    fn push_to(self, rows: &mut Rows) {
        let coordinates = self.coordinates();
        if coordinates.iter().all(Option::is_some) {
            let columns = rows.coordinates.get_or_insert_default();
            columns.iter_mut().zip(coordinates).for_each(|(column, value)| column.extend(value));
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
        values.extend(self.embedding.into_iter().map(|value| value as f32));
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

fn unknown_fields(text: &str) -> Vec<String> {
    let fields: BTreeMap<String, IgnoredAny> = serde_json::from_str(text).unwrap_or_default();
    fields.into_keys().filter(|name| !columns::is_known(name, true)).collect()
}

/// The parser's words without its line number, which is always 1 here.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let plain = text.split(" at line ").next().unwrap_or(&text).to_owned();
    if error.column() == 0 { plain } else { format!("{plain} at column {}", error.column()) }
}
