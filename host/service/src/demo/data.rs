//! What the demo works on: the real sample and generated data, written as JSON lines and imported as anybody's file
//! would be.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use megaring_core::Error;
use megaring_corpus::import::ImportOptions;
use megaring_corpus::{Mode, Store};
use megaring_datasets::{Embeddings, Matrix, Memories, Sample};
use serde::Serialize;

use super::say;
use crate::cli::import_file;
use crate::console::Failure;

/// The corpus of the real sample.
const REAL: &str = "demo-real";
/// The generated corpus.
const GENERATED: &str = "demo-generated";
/// Folder of the files to import, within the data folder. No corpus can have this name.
const FILES: &str = ".demo";
/// Memories to encode.
const MEMORIES: usize = 110_000;
/// Seed of the memories.
const SEED: u64 = 1;

/// A corpus as it was imported.
pub(super) struct Corpus {
    pub(super) name: &'static str,
    pub(super) ids: Vec<u64>,
    pub(super) titles: Vec<String>,
    pub(super) rows: Matrix,
}

/// All inputs.
pub(super) struct Inputs {
    pub(super) real: Corpus,
    pub(super) generated: Corpus,
    pub(super) memories: Memories,
}

#[derive(Serialize)]
struct Line<'a> {
    memory_id: u64,
    title: &'a str,
    embedding: &'a [f32],
}

impl Inputs {
    /// Makes them and imports the corpora.
    pub(super) fn make(store: &Arc<Store>) -> Result<Self, Failure> {
        say("making the data: 2,048 real embeddings, 5,562 generated ones, 110,000 memories");
        let damaged = |error: megaring_datasets::DataError| Error::Internal(error.to_string());
        let real = real(megaring_datasets::sample().map_err(damaged)?);
        let generated = generated(Embeddings::default().generate());
        let memories = megaring_datasets::memories(MEMORIES, SEED).map_err(damaged)?;
        import(store, &real)?;
        import(store, &generated)?;
        Ok(Self { real, generated, memories })
    }
}

fn real(sample: Sample) -> Corpus {
    let (ids, titles) = sample.records.into_iter().map(|record| (record.memory_id, record.title)).unzip();
    Corpus { name: REAL, ids, titles, rows: sample.embeddings }
}

/// Ids that no row number equals, so that one cannot pass for the other.
fn generated(rows: Matrix) -> Corpus {
    let ids = (0..rows.rows as u64).map(|row| 1_000_000 + 7 * row).collect();
    let titles = (0..rows.rows).map(|row| format!("generated {row}")).collect();
    Corpus { name: GENERATED, ids, titles, rows }
}

fn import(store: &Arc<Store>, corpus: &Corpus) -> Result<(), Failure> {
    let folder = store.root().join(FILES);
    let path = folder.join(corpus.name).with_extension("jsonl");
    let refused = |error: io::Error| Error::Storage(format!("{} cannot be written: {error}", path.display()));
    fs::create_dir_all(&folder).map_err(refused)?;
    write(corpus, &path).map_err(refused)?;
    match store.drop_corpus(corpus.name) {
        Ok(()) | Err(Error::CorpusNotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    import_file(store, corpus.name, &path, None, ImportOptions::default(), Mode::Append).map(drop)
}

fn write(corpus: &Corpus, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for ((memory_id, title), embedding) in corpus.ids.iter().zip(&corpus.titles).zip(corpus.rows.iter_rows()) {
        serde_json::to_writer(&mut file, &Line { memory_id: *memory_id, title, embedding })?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
