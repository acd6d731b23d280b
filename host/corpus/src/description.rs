//! What is told of a corpus.

use std::collections::HashSet;

use megaring_core::RowType;

use crate::columns::MEMORY_ID;
use crate::manifest::{self, Logged, Manifest, Opening, SegmentEntry};
use crate::piece::Piece;
use crate::version::Version;

/// What is known of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What its rows are; of 0 elements where the manifest cannot be read.
    pub row_type: RowType,
    /// Rows that can be found.
    pub rows: usize,
    /// Rows that are deleted and still have numbers, until their segments are merged.
    pub deleted_rows: usize,
    /// Whether no two rows have one id.
    pub unique_ids: bool,
    /// The column that has the rows' ids as text, if any does.
    pub id_column: Option<String>,
    /// Version, rising with every change.
    pub generation: u32,
    /// Files with rows: segments in row order, then the log, where rows are in it.
    pub segments: Vec<SegmentDescription>,
    /// Names of the columns that every segment has.
    pub columns: Vec<String>,
    /// Names of those that some have, and others not. Their rows have null there, and an export leaves them out.
    pub partial_columns: Vec<String>,
    /// Bytes of all these files, without caches.
    pub bytes: u64,
    /// When it was created, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// Whether it can be used.
    pub state: State,
}

/// A file with rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentDescription {
    /// Name of the file in the corpus's folder.
    pub file: String,
    /// Rows in it, deleted ones too.
    pub rows: usize,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 (IEEE) of all its bytes; 0 for the log, which has one for each of its records.
    pub checksum: u32,
}

/// Whether a corpus can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can.
    Healthy,
    /// Stored bytes are not what was written; every use is [`DataLoss`](megaring_core::Error::DataLoss).
    Faulty {
        /// The file.
        segment: String,
        /// What does not match.
        reason: String,
    },
}

impl Description {
    /// Of a corpus of which no more is known.
    pub(crate) fn of_nothing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            row_type: 0.into(),
            rows: 0,
            deleted_rows: 0,
            unique_ids: false,
            id_column: None,
            generation: 0,
            segments: Vec::new(),
            columns: Vec::new(),
            partial_columns: Vec::new(),
            bytes: 0,
            created_unix_ns: 0,
            state: State::Healthy,
        }
    }

    /// Leaves out of the partial columns what is told of already. Rows have ids, be they in the file or not.
    fn tell_partial_once(&mut self) {
        let mut told: HashSet<String> = self.columns.iter().cloned().chain([MEMORY_ID.to_owned()]).collect();
        self.partial_columns.retain(|column| told.insert(column.clone()));
    }
}

/// Of a version.
pub(crate) fn describe(version: &Version) -> Description {
    let Version { opening, pieces, view, log_len, .. } = version;
    let stored = pieces.iter().filter_map(|piece| match piece {
        Piece::Stored(stored) => Some(&stored.entry),
        Piece::Kept(_) => None,
    });
    let kept: Vec<&Piece> = pieces.iter().filter(|piece| matches!(piece, Piece::Kept(_))).collect();
    let rows = kept.iter().map(|piece| piece.rows()).sum();
    let mut described = describe_files(opening, view.generation(), stored, (rows, *log_len));
    described.rows = view.visible_rows();
    described.deleted_rows = view.rows() - view.visible_rows();
    let has = |piece: &&Piece, column: &String| piece.form().field_with_name(column).is_ok();
    if described.columns.is_empty() {
        let first = kept.first().map(|piece| piece.form().fields().iter().map(|field| field.name().clone()));
        described.columns = first.into_iter().flatten().collect();
    }
    let columns = std::mem::take(&mut described.columns);
    let (columns, partial) = columns.into_iter().partition(|column| kept.iter().all(|piece| has(piece, column)));
    described.columns = columns;
    let kept = kept.iter().flat_map(|piece| piece.form().fields()).map(|field| field.name().clone());
    described.partial_columns = partial.into_iter().chain(described.partial_columns).chain(kept).collect();
    described.tell_partial_once();
    described
}

/// As much as the log says.
pub(crate) fn describe_unread(manifest: &Manifest) -> Description {
    let stored = manifest.records.iter().filter_map(Logged::segment);
    let kept = manifest.records.iter().map(|logged| logged.kept_rows() as usize).sum();
    describe_files(&manifest.opening, manifest.generation().unwrap_or(u32::MAX), stored, (kept, manifest.len))
}

fn describe_files<'a>(
    opening: &Opening,
    generation: u32,
    entries: impl Iterator<Item = &'a SegmentEntry>,
    (log_rows, log_len): (usize, u64),
) -> Description {
    let entries: Vec<&SegmentEntry> = entries.collect();
    let segment = |entry: &&SegmentEntry| SegmentDescription {
        file: entry.file.clone(),
        rows: entry.rows as usize,
        bytes: entry.bytes,
        checksum: entry.crc32,
    };
    let mut segments: Vec<_> = entries.iter().map(segment).collect();
    if log_rows > 0 {
        segments.push(SegmentDescription { file: manifest::FILE.into(), rows: log_rows, bytes: log_len, checksum: 0 });
    }
    let partial_columns = entries.iter().flat_map(|entry| entry.columns.iter().cloned()).collect();
    let mut described = Description {
        name: opening.name.clone(),
        row_type: opening.row_type(),
        rows: segments.iter().map(|segment| segment.rows).sum(),
        deleted_rows: 0,
        unique_ids: opening.unique_ids,
        id_column: opening.id_column.clone(),
        generation,
        bytes: segments.iter().map(|segment| segment.bytes).sum(),
        segments,
        columns: shared_columns(&entries),
        partial_columns,
        created_unix_ns: opening.created_unix_ns,
        state: State::Healthy,
    };
    described.tell_partial_once();
    described
}

/// Columns that every segment has, in the order of the first. Rows have ids, be they in the file or not.
fn shared_columns(entries: &[&SegmentEntry]) -> Vec<String> {
    let Some((first, others)) = entries.split_first() else { return Vec::new() };
    let implied = first.first_id.map(|_| MEMORY_ID.to_owned());
    let has = |entry: &SegmentEntry, column: &String| {
        entry.columns.contains(column) || (column == MEMORY_ID && entry.first_id.is_some())
    };
    let columns = implied.into_iter().chain(first.columns.iter().cloned());
    columns.filter(|column| others.iter().all(|entry| has(entry, column))).collect()
}
