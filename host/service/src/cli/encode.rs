//! `megaring encode`: memories as JSON lines to coordinates, in this process or by a server.
//!
//! A memory is an object with `content` and, where known, `importance`, `access_count`, `age_days`, `galactic_distance`
//! and `garden`; other fields are passed over, but for `memory_id`, which the answer repeats. Memories are read and
//! answered in batches, so a file of any size takes little memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::builder::BoolishValueParser;
use megaring_core::encode::{Encode, Encoded, Features};
use megaring_core::{BackendKind, Error, Violation};
use megaring_engine::{Engine, Made, Terms};
use megaring_proto::v1 as pb;
use serde::{Deserialize, Serialize};

use super::backend;
use super::search::tell_made;
use crate::config::Settings;
use crate::console::{Failure, JsonLines, Output, Progress, counted, duration_text};
use crate::remote::{self, Remote};

/// Memories that are encoded together.
const BATCH: usize = 16_384;
/// Bytes of text that are encoded together.
const BATCH_BYTES: usize = 8 << 20;

/// `megaring encode`.
#[derive(Debug, clap::Args)]
pub(crate) struct EncodeArgs {
    /// JSON lines with `content` and, where known, `importance`, `access_count`, `age_days`, `galactic_distance`,
    /// `garden`; `-` is standard input
    file: PathBuf,
    /// Show the words found
    #[arg(long, env = "MEGARING_ENCODE_WORDS", value_parser = BoolishValueParser::new())]
    words: bool,
    /// The backend that must do it [default: cpu]
    #[arg(long, env = "MEGARING_ENCODE_BACKEND", value_parser = backend())]
    backend: Option<BackendKind>,
}

#[derive(Deserialize)]
struct Line {
    content: String,
    #[serde(default)]
    importance: f64,
    #[serde(default)]
    access_count: u32,
    #[serde(default)]
    age_days: f64,
    #[serde(default)]
    galactic_distance: f64,
    #[serde(default)]
    garden: String,
    memory_id: Option<u64>,
}

/// An encoded memory, for programs. `zone` is the number that corpora store.
#[derive(Serialize)]
struct EncodedRecord<'a> {
    row: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_id: Option<u64>,
    x: f64,
    y: f64,
    z: f64,
    w: f64,
    v: f64,
    zone: u8,
    zone_name: &'static str,
    mask: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<&'a str>>,
}

#[derive(Default)]
struct Batch {
    job: Encode,
    ids: Vec<Option<u64>>,
}

pub(crate) fn run(args: &EncodeArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut lines = JsonLines::<Line>::open(&args.file)?;
    let encoder = match settings.remote()? {
        None => Encoder::Here(settings.private_engine(args.backend.as_slice())?),
        Some(remote) => Encoder::There(remote),
    };
    let mut progress = Progress::beside_output("encode".into(), lines.bytes_total());
    let mut first = 0;
    loop {
        let batch = read(&mut lines)?;
        if batch.ids.is_empty() {
            break;
        }
        let count = batch.ids.len();
        encode(&encoder, batch, first, args, output)?;
        first += count;
        progress.at(lines.bytes_read(), &counted(first as u64, "memory", "memories"));
    }
    output.flush()?;
    progress.finish(&format!("{} in {}", counted(first as u64, "memory", "memories"), duration_text(begun.elapsed())));
    Ok(())
}

fn read(lines: &mut JsonLines<Line>) -> Result<Batch, Failure> {
    let mut batch = Batch::default();
    while batch.ids.len() < BATCH && batch.job.texts.bytes.len() < BATCH_BYTES {
        let Some(line) = lines.next() else { break };
        let line = line?;
        let Line { importance, access_count, age_days, galactic_distance, .. } = line;
        batch.job.texts.push(&line.content);
        batch.job.features.push(Features { importance, access_count, age_days, galactic_distance });
        batch.job.gardens.push(line.garden);
        batch.ids.push(line.memory_id);
    }
    Ok(batch)
}

/// Who encodes.
enum Encoder {
    Here(Arc<Engine>),
    There(Box<Remote>),
}

impl Encoder {
    /// The memories, and the words that the bits of their masks stand for.
    fn encode(
        &self,
        job: Encode,
        first: usize,
        backend: Option<BackendKind>,
    ) -> Result<(Vec<Encoded>, Vec<String>, Made), Failure> {
        match self {
            Self::Here(engine) => {
                let terms = Terms { backend, ..Terms::default() };
                let outcome = engine.run_blocking(job, terms).map_err(|error| in_file(error, first))?;
                Ok((outcome.answer, engine.profile().words().to_vec(), outcome.made))
            }
            Self::There(remote) => {
                let backend = remote::backend(backend);
                remote.encode(&pb::EncodeRequest { memories: memories(&job), with_masks: true, backend })
            }
        }
    }
}

fn memories(job: &Encode) -> Vec<pb::Memory> {
    let memory = |(at, (features, garden)): (usize, (&Features, &String))| pb::Memory {
        content: String::from_utf8_lossy(job.texts.get(at)).into_owned(),
        importance: features.importance,
        access_count: features.access_count,
        age_days: features.age_days,
        galactic_distance: features.galactic_distance,
        garden: garden.clone(),
    };
    job.features.iter().zip(&job.gardens).enumerate().map(memory).collect()
}

fn encode(
    encoder: &Encoder,
    batch: Batch,
    first: usize,
    args: &EncodeArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let (encoded, words, made) = encoder.encode(batch.job, first, args.backend)?;
    for (index, (encoded, memory_id)) in encoded.iter().zip(&batch.ids).enumerate() {
        let words = args.words.then(|| words_of(&words, encoded));
        if output.is_json() {
            output.record(&EncodedRecord::of(first + index, *memory_id, encoded, words))?;
        } else {
            output.text(text_of(first + index, *memory_id, encoded, words))?;
        }
    }
    tell_made(encoded.len(), &made, output)
}

/// An error about a memory of the batch, as one about a memory of the file.
fn in_file(error: Error, first: usize) -> Error {
    match error {
        Error::Invalid(Violation { field, row: Some(row), description }) => {
            Error::row(field, first as u64 + row, description)
        }
        error => error,
    }
}

fn words_of<'a>(words: &'a [String], encoded: &Encoded) -> Vec<&'a str> {
    words.iter().enumerate().filter(|(bit, _)| encoded.mask >> bit & 1 == 1).map(|(_, word)| word.as_str()).collect()
}

impl<'a> EncodedRecord<'a> {
    fn of(row: usize, memory_id: Option<u64>, encoded: &Encoded, words: Option<Vec<&'a str>>) -> Self {
        let [x, y, z, w, v] = encoded.coordinates;
        let (zone, zone_name) = (encoded.zone as u8, encoded.zone.name());
        Self { row, memory_id, x, y, z, w, v, zone, zone_name, mask: format!("{:032x}", encoded.mask), words }
    }
}

fn text_of(row: usize, memory_id: Option<u64>, encoded: &Encoded, words: Option<Vec<&str>>) -> String {
    let [x, y, z, w, v] = encoded.coordinates;
    let name = memory_id.map_or_else(|| format!("row {row}"), |id| format!("memory {id}"));
    let words = words.map(|words| format!("  {}", words.join(" "))).unwrap_or_default();
    format!("{name:>14}  x {x:+.4}  y {y:+.4}  z {z:+.4}  w {w:.4}  v {v:.4}  {:<9}{words}", encoded.zone.name())
}
