//! A row as a line of text has it, and what all lines of a file must share.

use megaring_core::Violation;
use megaring_core::matrix::{MAX_DIM, Matrix};
use megaring_core::nearest::{MAX_COORDINATE, is_coordinate};

use super::ImportOptions;
use super::selection::{Columns, ID};
use crate::columns::{self, COORDINATES, EMBEDDING, MEMORY_ID, TITLE};
use crate::rows::Rows;
use crate::text_ids::judge;

/// What is known of a file of lines.
pub(super) struct Lines {
    /// Elements of a vector: those wanted, or those of the first good line.
    pub(super) dim: Option<usize>,
    pub(super) columns: Columns,
    /// Names of the optional fields that the first good line has.
    fields: Option<Vec<&'static str>>,
    /// Names of the fields that are not stored.
    pub(super) unknown: Option<Vec<String>>,
}

#[derive(Default)]
pub(super) struct Line {
    pub(super) memory_id: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) title: Option<String>,
    /// Wider than stored, so that a number too large for float32 can be named by its element.
    pub(super) embedding: Option<Vec<f64>>,
    pub(super) coordinates: [Option<f64>; 5],
    pub(super) galactic_distance: Option<f64>,
    pub(super) importance: Option<f64>,
    pub(super) zone: Option<u8>,
    pub(super) constellation_id: Option<u16>,
    pub(super) last_accessed_ns: Option<u64>,
    pub(super) is_protected: Option<bool>,
}

/// A column and why the line is bad.
pub(super) type Reason = (Option<&'static str>, String);

impl Lines {
    pub(super) fn new(options: &ImportOptions) -> Self {
        Self { dim: options.dim, columns: options.columns.clone(), fields: None, unknown: None }
    }

    /// Judges a line by itself and beside those before.
    pub(super) fn accept(&mut self, line: Line) -> Result<Line, Reason> {
        line.check(self.dim)?;
        if self.columns.id_column().is_some() {
            let id =
                line.id.as_deref().ok_or((Some(ID), "the field is missing or null, which has the id".to_owned()))?;
            judge(id).map_err(|reason| (Some(ID), reason))?;
        }
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

    /// What is wrong with a line of a file.
    pub(super) fn violation(&self, file: &str, line: u64, (column, description): Reason) -> Violation {
        let place = format!("{file} line {line}");
        let field = column.map_or(place.clone(), |column| format!("{place}: {}", self.columns.in_file(column)));
        Violation { field, row: None, description }
    }

    pub(super) fn notes(&self, file: &str) -> Vec<String> {
        let names = self.unknown.as_deref().unwrap_or_default().join(", ");
        let note = format!("{file}: fields without a meaning here are not stored: {names}");
        (!names.is_empty()).then_some(note).into_iter().collect()
    }
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

    pub(super) fn push_to(self, rows: &mut Rows) {
        if self.coordinates.iter().all(Option::is_some) {
            let columns = rows.coordinates.get_or_insert_default();
            columns.iter_mut().zip(self.coordinates).for_each(|(column, value)| column.extend(value));
        }
        rows.memory_ids.extend(self.memory_id);
        rows.ids.extend(self.id);
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

/// What a field wants whose type is called so, by Rust or by a parser.
pub(super) fn in_words(kind: &str) -> String {
    match kind {
        "u64" => format!("a whole number from 0 to {}", u64::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "f64" => "a number".to_owned(),
        "a sequence" => "an array of numbers".to_owned(),
        "bool" | "a boolean" => "true or false".to_owned(),
        "a string" => "a text".to_owned(),
        other => other.to_owned(),
    }
}
