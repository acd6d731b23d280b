//! `corpus import` and `corpus append`: rows of a file into a corpus, all of them or none.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::builder::BoolishValueParser;
use megaring_core::Error;
use megaring_corpus::import::{self, Format, Import, ImportOptions};
use megaring_corpus::{Access, Adopted, Appended, Store};
use serde::Serialize;

use crate::config::Settings;
use crate::console::{Failure, Output, Progress, counted, duration_text, grouped, message};

/// `corpus import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Corpus; made with the file's dimension if it is not there, refused if it has rows already
    name: String,
    /// Arrow IPC, Parquet, .npy, .fvecs or JSON lines
    file: PathBuf,
    /// Skip and count rows that cannot be, instead of stopping at the first
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_SKIP_INVALID", value_parser = BoolishValueParser::new())]
    skip_invalid: bool,
    /// The file's format [default: by its first bytes, then its name]
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_FORMAT")]
    format: Option<Format>,
}

/// `corpus append`.
#[derive(Debug, clap::Args)]
pub(crate) struct AppendArgs {
    /// Corpus
    name: String,
    /// Arrow IPC, Parquet, .npy, .fvecs or JSON lines
    file: PathBuf,
    /// Skip and count rows that cannot be, instead of stopping at the first
    #[arg(long, env = "MEGARING_CORPUS_APPEND_SKIP_INVALID", value_parser = BoolishValueParser::new())]
    skip_invalid: bool,
    /// The file's format [default: by its first bytes, then its name]
    #[arg(long, env = "MEGARING_CORPUS_APPEND_FORMAT")]
    format: Option<Format>,
}

/// What an import did.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    /// The corpus.
    pub corpus: String,
    /// Elements of an embedding.
    pub dim: usize,
    /// Rows added.
    pub rows: usize,
    /// Rows left out because they cannot be.
    pub skipped: u64,
    /// What was wrong with the first of them.
    pub first_skipped: Option<String>,
    /// Rows the corpus has now.
    pub total_rows: usize,
    /// The corpus's version now.
    pub generation: u32,
    /// Segment files the corpus has now.
    pub segments: usize,
    /// The file's format.
    pub format: String,
    /// What the reader had to say.
    pub notes: Vec<String>,
    /// Time it took.
    pub seconds: f64,
}

pub(crate) fn import(args: &ImportArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let store = settings.store(Access::Exclusive)?;
    if store.describe(&args.name).is_ok_and(|corpus| corpus.rows > 0) {
        let name = &args.name;
        return Err(Failure::Work(format!(
            "a corpus named {name:?} exists already; `corpus append {name} FILE` adds rows to it"
        )));
    }
    let imported = import_file(&store, &args.name, &args.file, args.format, args.skip_invalid)?;
    tell(&imported, output)
}

pub(crate) fn append(args: &AppendArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let store = settings.store(Access::Exclusive)?;
    store.describe(&args.name)?;
    let imported = import_file(&store, &args.name, &args.file, args.format, args.skip_invalid)?;
    tell(&imported, output)
}

/// Adds a file's rows to a corpus, which is made if it is not there and removed again if the import fails. Progress
/// goes to stderr.
///
/// # Errors
/// What the file holds or the storage refuses; the corpus is then as it was.
pub fn import_file(
    store: &Store,
    name: &str,
    path: &Path,
    format: Option<Format>,
    skip_invalid: bool,
) -> Result<Imported, Error> {
    let begun = Instant::now();
    let known = match store.describe(name) {
        Ok(corpus) => Some(corpus.dim),
        Err(Error::CorpusNotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let file = import::open(path, format, &ImportOptions { skip_invalid, dim: known })?;
    if known.is_none() {
        store.create(name, file.dim())?;
    }
    let imported = add_rows(store, name, path, file, skip_invalid, begun);
    if imported.is_err() && known.is_none() {
        // The first error is the one to tell; an empty corpus that stays behind does no harm.
        let _ = store.drop_corpus(name);
    }
    imported
}

fn add_rows(
    store: &Store,
    name: &str,
    path: &Path,
    mut file: Import,
    skip_invalid: bool,
    begun: Instant,
) -> Result<Imported, Error> {
    let (dim, format) = (file.dim(), file.format());
    let mut notes = Vec::new();
    if format == Format::ArrowFile && !skip_invalid {
        match store.adopt(name, path)? {
            Adopted::Done(appended) => {
                notes.push("the file is copied and served as it is, without being rewritten".to_owned());
                return Ok(imported(name, dim, format, &appended, notes, begun.elapsed()));
            }
            Adopted::NeedsRewrite(reason) => notes.push(format!("the file is rewritten: {reason}")),
        }
    }
    let mut appender = store.append(name)?;
    let mut progress = Progress::start(format!("import {name}"), file.progress().bytes_total);
    while let Some(rows) = file.next() {
        appender.push(rows?)?;
        let at = file.progress();
        progress.at(at.bytes_read, &counted(at.rows, "row", "rows"));
    }
    let appended = appender.commit()?;
    progress.finish(&format!("{} in {}", counted(appended.rows as u64, "row", "rows"), duration_text(begun.elapsed())));
    notes.extend(file.notes().iter().cloned());
    let mut imported = imported(name, dim, format, &appended, notes, begun.elapsed());
    imported.skipped = file.progress().skipped;
    imported.first_skipped = file.first_skipped().map(ToString::to_string);
    Ok(imported)
}

fn imported(
    name: &str,
    dim: usize,
    format: Format,
    appended: &Appended,
    notes: Vec<String>,
    took: Duration,
) -> Imported {
    Imported {
        corpus: name.to_owned(),
        dim,
        rows: appended.rows,
        skipped: 0,
        first_skipped: None,
        total_rows: appended.total_rows,
        generation: appended.generation,
        segments: appended.segments,
        format: format.to_string(),
        notes,
        seconds: took.as_secs_f64(),
    }
}

fn tell(imported: &Imported, output: &mut Output) -> Result<(), Failure> {
    imported.notes.iter().for_each(|note| message(note));
    if let Some(first) = &imported.first_skipped {
        message(&format!("{} skipped; the first: {first}", counted(imported.skipped, "row", "rows")));
    }
    output.answer(imported, || {
        let Imported { corpus, rows, total_rows, dim, .. } = imported;
        let (rows, total) = (counted(*rows as u64, "row", "rows"), grouped(*total_rows as u64));
        format!("{corpus}: {rows} added, {total} x {dim} in all")
    })
}
