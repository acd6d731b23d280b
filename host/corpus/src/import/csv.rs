//! CSV: a line of names and then a row a record; the vector is a text such as `[0.1, 0.2]`.
//!
//! Brackets of any kind may stand around the numbers, and commas, semicolons or blanks between them. An empty cell is a
//! value that is not there. What holds for [the fields of JSON lines](super::json_lines) holds for these columns.

use std::str::FromStr;

use csv::{ErrorKind, Reader, StringRecord};
use megaring_core::Error;

use super::input::Input;
use super::line::{Line, Lines, Reason, in_words};
use super::selection::{ID, way_out};
use super::{Bad, CHUNK_BYTES, Chunk, ImportOptions, Source, lost};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::fault::{Fault, not_finite};
use crate::rows::Rows;

/// Records being read.
pub(super) struct Csv {
    reader: Reader<Input>,
    lines: Lines,
    /// What each cell of a record is, where it is read.
    cells: Vec<Option<&'static str>>,
}

impl Csv {
    pub(super) fn open(input: Input, options: &ImportOptions) -> Result<Self, Error> {
        let name = input.name().to_owned();
        Self::read(input, options).map_err(|fault| fault.into_invalid(&name))
    }

    fn read(input: Input, options: &ImportOptions) -> Result<Self, Fault> {
        let mut reader = Reader::from_reader(input);
        let header = reader.headers().map_err(|error| broken(&error))?.clone();
        let mut lines = Lines::new(options);
        let names = || header.iter().enumerate().map(|(at, name)| (at, without_mark(at, name)));
        let known = |name: &str| lines.columns.known(name);
        let cells: Vec<_> = names().map(|(_, name)| known(name)).collect();
        if let Some(twice) = cells.iter().enumerate().find_map(|(at, name)| name.filter(|_| cells[..at].contains(name)))
        {
            return Err(Fault::column(lines.columns.in_file(twice), "the file has this column twice"));
        }
        let id = options.columns.id_column().map(|_| ID);
        for name in [EMBEDDING].into_iter().chain(options.columns.renamed()).chain(id) {
            if !cells.contains(&Some(name)) {
                let in_file = options.columns.in_file(name);
                return Err(options.columns.missing(in_file, names().map(|(_, name)| name)));
            }
        }
        let is_lost = |name: &str| match known(name) {
            Some(_) => false,
            None => lines.columns.name(name).is_some() || lines.columns.has_lost_its_name(name),
        };
        lines.unknown = Some(names().filter(|(_, name)| is_lost(name)).map(|(_, name)| name.to_owned()).collect());
        Ok(Self { reader, lines, cells })
    }

    fn parse(&self, record: &StringRecord) -> Result<Line, Reason> {
        let mut line = Line::default();
        for (cell, name) in record.iter().zip(&self.cells) {
            let Some(name) = *name else { continue };
            // A title or an id is as it stands.
            let cell = if [TITLE, ID].contains(&name) { cell } else { cell.trim() };
            if cell.is_empty() {
                continue;
            }
            let set = match name {
                MEMORY_ID => set(&mut line.memory_id, cell),
                TITLE => set(&mut line.title, cell),
                ID => set(&mut line.id, cell),
                EMBEDDING => vector(cell).map(|vector| line.embedding = Some(vector)),
                columns::GALACTIC_DISTANCE => number(&mut line.galactic_distance, cell),
                columns::IMPORTANCE => number(&mut line.importance, cell),
                columns::ZONE => set(&mut line.zone, cell),
                columns::CONSTELLATION_ID => set(&mut line.constellation_id, cell),
                columns::LAST_ACCESSED_NS => set(&mut line.last_accessed_ns, cell),
                columns::IS_PROTECTED => set(&mut line.is_protected, &cell.to_ascii_lowercase()),
                axis => {
                    let axis = COORDINATES.iter().position(|name| *name == axis);
                    axis.map_or(Ok(()), |axis| number(&mut line.coordinates[axis], cell))
                }
            };
            set.map_err(|reason| match name {
                EMBEDDING => (Some(name), reason),
                _ => (Some(name), format!("{reason}; {}", way_out(name, self.lines.columns.in_file(name)))),
            })?;
        }
        Ok(line)
    }
}

impl Source for Csv {
    fn dim(&self) -> Option<usize> {
        self.lines.dim
    }

    fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let (mut rows, mut bad, mut record, mut taken) = (Rows::default(), Bad::default(), StringRecord::new(), 0);
        while taken < CHUNK_BYTES {
            let line = self.reader.position().line();
            let parsed = match self.reader.read_record(&mut record) {
                Ok(true) => self.parse(&record),
                Ok(false) => break,
                Err(error) => Err((None, recoverable(&error)?)),
            };
            // Something for a bad record too: so many of them as make a chunk are one.
            taken += record.as_slice().len().max(1);
            match parsed.and_then(|line| self.lines.accept(line)) {
                Ok(line) => line.push_to(&mut rows),
                Err(reason) => {
                    let line = record.position().map_or(line, csv::Position::line);
                    bad.add(self.lines.violation(self.reader.get_ref().name(), line, reason));
                }
            }
        }
        rows.embeddings.dim = self.lines.dim.unwrap_or(0);
        Ok((taken > 0).then_some(Chunk { rows, bad }))
    }

    fn bytes(&self) -> (u64, u64) {
        self.reader.get_ref().place()
    }

    fn notes(&self) -> Vec<String> {
        self.lines.notes(self.reader.get_ref().name())
    }
}

/// Some programs begin a file with a byte order mark.
fn without_mark(at: usize, name: &str) -> &str {
    if at == 0 { name.trim_start_matches('\u{feff}') } else { name }
}

fn broken(error: &csv::Error) -> Fault {
    match error.kind() {
        ErrorKind::Io(error) => lost(error),
        _ => Fault::file(format!("its first line is no line of names: {error}")),
    }
}

/// Why a record is bad, where those behind it can still be read.
fn recoverable(error: &csv::Error) -> Result<String, Fault> {
    match error.kind() {
        ErrorKind::Io(error) => Err(lost(error)),
        ErrorKind::UnequalLengths { expected_len, len, .. } => Ok(format!("{len} cells, wanted are {expected_len}")),
        ErrorKind::Utf8 { err, .. } => Ok(format!("invalid UTF-8 in cell {}", err.field())),
        _ => Ok(error.to_string()),
    }
}

fn set<T: FromStr>(field: &mut Option<T>, cell: &str) -> Result<(), String> {
    let value =
        cell.parse().map_err(|_| format!("it is {cell:?}, wanted is {}", in_words(std::any::type_name::<T>())))?;
    *field = Some(value);
    Ok(())
}

fn number(field: &mut Option<f64>, cell: &str) -> Result<(), String> {
    set(field, cell)?;
    match field.filter(|value| !value.is_finite()) {
        Some(value) => Err(format!("{value} is not finite")),
        None => Ok(()),
    }
}

fn vector(cell: &str) -> Result<Vec<f64>, String> {
    let inner = cell.trim_start_matches(['[', '{', '(']).trim_end_matches([']', '}', ')']);
    let numbers = inner.split([',', ';', ' ', '\t', '\n', '\r']).filter(|number| !number.is_empty());
    let number = |(element, text): (usize, &str)| match text.parse::<f64>() {
        Ok(value) if (value as f32).is_finite() => Ok(value),
        Ok(value) if value.is_finite() => Err(format!("element {element} is too large for float32")),
        Ok(value) => Err(not_finite(element, value)),
        Err(_) => Err(format!("element {element} is {text:?}, which is no number")),
    };
    numbers.enumerate().map(number).collect()
}
