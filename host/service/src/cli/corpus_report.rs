//! Descriptions and checks of corpora, as records for programs and as text for people.

use std::fmt::Write as _;

use megaring_core::Element;
use megaring_corpus::{Description, State, VerifyReport};
use serde::Serialize;

use crate::console::{Align, Table, bytes_text, counted, grouped};

/// A corpus. The fields are those of `megaring.v1.Corpus`.
#[derive(Serialize)]
pub(crate) struct CorpusRecord<'a> {
    name: &'a str,
    dim: usize,
    dtype: &'static str,
    rows: usize,
    deleted_rows: usize,
    unique_ids: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_column: Option<&'a str>,
    generation: u32,
    segments: Vec<SegmentRecord<'a>>,
    columns: &'a [String],
    partial_columns: &'a [String],
    size_bytes: u64,
    created_unix_ns: u64,
    fault: Option<FaultRecord<'a>>,
}

#[derive(Serialize)]
struct SegmentRecord<'a> {
    file: &'a str,
    rows: usize,
    size_bytes: u64,
    checksum: u32,
}

#[derive(Serialize)]
struct FaultRecord<'a> {
    segment: &'a str,
    reason: &'a str,
}

impl<'a> CorpusRecord<'a> {
    pub(crate) fn of(corpus: &'a Description) -> Self {
        let segments = corpus.segments.iter().map(|segment| SegmentRecord {
            file: &segment.file,
            rows: segment.rows,
            size_bytes: segment.bytes,
            checksum: segment.checksum,
        });
        let fault = match &corpus.state {
            State::Healthy => None,
            State::Faulty { segment, reason } => Some(FaultRecord { segment, reason }),
        };
        Self {
            name: &corpus.name,
            dim: corpus.row_type.dim,
            dtype: dtype(corpus.row_type.element),
            rows: corpus.rows,
            deleted_rows: corpus.deleted_rows,
            unique_ids: corpus.unique_ids,
            id_column: corpus.id_column.as_deref(),
            generation: corpus.generation,
            segments: segments.collect(),
            columns: &corpus.columns,
            partial_columns: &corpus.partial_columns,
            size_bytes: corpus.bytes,
            created_unix_ns: corpus.created_unix_ns,
            fault,
        }
    }
}

/// The name of an element type, as numpy and the like have it.
fn dtype(element: Element) -> &'static str {
    match element {
        Element::Float32 => "float32",
        Element::Bit => "bit",
    }
}

/// What a check found.
#[derive(Serialize)]
pub(crate) struct VerifyRecord<'a> {
    corpus: &'a str,
    generation: u32,
    rows: usize,
    healthy: bool,
    manifest_fault: Option<&'a str>,
    segments: Vec<VerifiedSegment<'a>>,
}

#[derive(Serialize)]
struct VerifiedSegment<'a> {
    file: &'a str,
    rows: usize,
    size_bytes: u64,
    checksum: u32,
    fault: Option<&'a str>,
    cache_fault: Option<&'a str>,
}

impl<'a> VerifyRecord<'a> {
    pub(crate) fn of(report: &'a VerifyReport) -> Self {
        let segments = report.segments.iter().map(|segment| VerifiedSegment {
            file: &segment.file,
            rows: segment.rows,
            size_bytes: segment.bytes,
            checksum: segment.checksum,
            fault: segment.fault.as_deref(),
            cache_fault: segment.cache_fault.as_deref(),
        });
        Self {
            corpus: &report.corpus,
            generation: report.generation,
            rows: report.rows,
            healthy: report.loss().is_none(),
            manifest_fault: report.manifest_fault.as_deref(),
            segments: segments.collect(),
        }
    }
}

pub(crate) fn list_table(corpora: &[Description]) -> Table {
    let headings = [
        ("NAME", Align::Left),
        ("ROWS", Align::Right),
        ("DIM", Align::Right),
        ("SEGMENTS", Align::Right),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
    ];
    let mut table = Table::new(headings);
    for corpus in corpora {
        table.row([
            corpus.name.clone(),
            grouped(corpus.rows as u64),
            corpus.row_type.to_string(),
            corpus.segments.len().to_string(),
            bytes_text(corpus.bytes),
            state_text(&corpus.state),
        ]);
    }
    table
}

pub(crate) fn describe_text(corpus: &Description) -> String {
    let headings = [("FILE", Align::Left), ("ROWS", Align::Right), ("SIZE", Align::Right), ("CRC-32", Align::Right)];
    let mut segments = Table::new(headings);
    for segment in &corpus.segments {
        // The log has a checksum in each of its records.
        let checksum = if segment.checksum == 0 { "-".into() } else { format!("{:08x}", segment.checksum) };
        segments.row([segment.file.clone(), grouped(segment.rows as u64), bytes_text(segment.bytes), checksum]);
    }
    let deleted = match corpus.deleted_rows {
        0 => String::new(),
        rows => format!(", {} deleted", grouped(rows as u64)),
    };
    let ids = match &corpus.id_column {
        Some(column) => format!(", ids in {column}"),
        None => String::new(),
    };
    let partial = match corpus.partial_columns.as_slice() {
        [] => String::new(),
        columns => format!("\nof some rows only: {}", columns.join(", ")),
    };
    let once = if corpus.unique_ids { ", each id once" } else { "" };
    format!(
        "{}: {} x {}{deleted}{ids}{once}, version {}, {}, {}\ncolumns: {}{partial}\n{segments}",
        corpus.name,
        counted(corpus.rows as u64, "row", "rows"),
        corpus.row_type,
        corpus.generation,
        bytes_text(corpus.bytes),
        state_text(&corpus.state),
        corpus.columns.join(", "),
    )
}

pub(crate) fn verify_text(report: &VerifyReport) -> String {
    let segments = counted(report.segments.len() as u64, "segment", "segments");
    let mut text = match report.loss() {
        None => format!("{}: sound, {} in {segments}", report.corpus, counted(report.rows as u64, "row", "rows")),
        Some(loss) => format!("{}: DAMAGED: {loss}", report.corpus),
    };
    for segment in &report.segments {
        let fault = segment.fault.as_ref().map(|fault| format!("damaged: {fault}"));
        let cache =
            segment.cache_fault.as_ref().map(|fault| format!("its cache: {fault}; it is made anew, nothing is lost"));
        for finding in fault.into_iter().chain(cache) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {}: {finding}", segment.file);
        }
    }
    text
}

fn state_text(state: &State) -> String {
    match state {
        State::Healthy => "healthy".into(),
        State::Faulty { segment, reason } => format!("FAULTY: {segment}: {reason}"),
    }
}
