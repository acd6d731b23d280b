//! The real data, compiled in: 2,048 docstrings with their embeddings, and the encoder's 644 golden cases.
//!
//! Sources and licences: `README.md` of this crate. Each call parses anew (a few milliseconds); keep the result.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::reference::Memory;
use crate::{DataError, Matrix, npy};

const RECORDS_JSONL: &str = include_str!("../data/real-2048.jsonl");
const EMBEDDINGS_NPY: &[u8] = include_bytes!("../data/real-2048.f32.npy");
const GOLDEN_JSONL: &str = include_str!("../data/encode-golden.jsonl");

/// One record of the real sample.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SampleRecord {
    /// 1 to 2,048, rising.
    pub memory_id: u64,
    /// Where the docstring stands, such as `queue.Queue`.
    pub title: String,
    /// The docstring.
    pub content: String,
}

/// The real sample: record `i` belongs to row `i` of the embeddings.
#[derive(Debug, Clone)]
pub struct Sample {
    /// 2,048 records.
    pub records: Vec<SampleRecord>,
    /// 2,048 x 384, L2-normalised.
    pub embeddings: Matrix,
}

/// One case of the encoder's golden file: a memory and what the encoder must make of it.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenCase {
    /// Name of the case, such as `g17`.
    pub id: String,
    /// UTF-8 text, possibly empty.
    pub content: String,
    /// Input number.
    pub importance: f64,
    /// Input number.
    pub access_count: u32,
    /// Input number, days.
    pub age_days: f64,
    /// Input number.
    pub galactic_distance: f64,
    /// Garden name, in any case, possibly unknown or empty.
    pub garden: String,
    /// Expected keyword mask; bit 0 is the lexicon's first word.
    pub mask: u128,
    /// Expected x, y, z, w, v.
    pub coordinates: [f64; 5],
    /// Expected zone, 0 (core) to 4 (far edge).
    pub zone: u8,
}

impl GoldenCase {
    /// The encoder's input of this case.
    pub fn memory(&self) -> Memory<'_> {
        Memory {
            content: &self.content,
            importance: self.importance,
            access_count: self.access_count,
            age_days: self.age_days,
            galactic_distance: self.galactic_distance,
            garden: &self.garden,
        }
    }
}

/// The real sample.
///
/// # Errors
/// Only if the file compiled in is damaged.
pub fn sample() -> Result<Sample, DataError> {
    let records = records()?;
    let embeddings = npy::read(EMBEDDINGS_NPY)?;
    if records.len() != embeddings.rows {
        return Err(DataError::SampleMismatch { records: records.len(), rows: embeddings.rows });
    }
    Ok(Sample { records, embeddings })
}

/// The encoder's golden cases, in the file's order; the first 44 are traps.
///
/// # Errors
/// Only if the file compiled in is damaged.
pub fn golden() -> Result<Vec<GoldenCase>, DataError> {
    let lines: Vec<GoldenLine> = json_lines("encode-golden.jsonl", GOLDEN_JSONL)?;
    lines.into_iter().enumerate().map(|(index, line)| line.into_case(index + 1)).collect()
}

/// The sample's records without its embeddings.
pub(crate) fn records() -> Result<Vec<SampleRecord>, DataError> {
    json_lines("real-2048.jsonl", RECORDS_JSONL)
}

#[derive(Deserialize)]
struct GoldenLine {
    id: String,
    content: String,
    importance: f64,
    access_count: u32,
    age_days: f64,
    galactic_distance: f64,
    garden: String,
    mask: String,
    x: f64,
    y: f64,
    z: f64,
    w: f64,
    v: f64,
    zone: u8,
}

impl GoldenLine {
    fn into_case(self, line: usize) -> Result<GoldenCase, DataError> {
        let mask = u128::from_str_radix(&self.mask, 16).map_err(|error| DataError::JsonLine {
            file: "encode-golden.jsonl",
            line,
            reason: format!("mask: {error}"),
        })?;
        Ok(GoldenCase {
            id: self.id,
            content: self.content,
            importance: self.importance,
            access_count: self.access_count,
            age_days: self.age_days,
            galactic_distance: self.galactic_distance,
            garden: self.garden,
            mask,
            coordinates: [self.x, self.y, self.z, self.w, self.v],
            zone: self.zone,
        })
    }
}

fn json_lines<T: DeserializeOwned>(file: &'static str, text: &str) -> Result<Vec<T>, DataError> {
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| DataError::JsonLine {
            file,
            line: index + 1,
            reason: error.to_string(),
        })
    };

    text.lines().enumerate().map(parse).collect()
}
