//! `corpus import` and `corpus append`: rows of a file into a corpus, all of them or none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::builder::BoolishValueParser;
use megaring_core::{Element, Error, RowType};
use megaring_corpus::import::{self, Columns, Format, Import, ImportOptions, Report};
use megaring_corpus::{Access, CreateOptions, Mode, Store};
use serde::Serialize;

use crate::config::Settings;
use crate::console::{Failure, Output, Progress, counted, duration_text, grouped, message};
use crate::corpora::Corpora;

/// `corpus import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Corpus; made with the file's dimension if it is not there, refused if it has rows already
    name: String,
    /// Arrow IPC, Parquet, .npy, .safetensors, .fvecs, .fbin, JSON lines, CSV or their kin, also in gzip or from a
    /// pipe; `-` is standard input
    file: PathBuf,
    /// Skip and count rows that cannot be, instead of stopping at the first
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_SKIP_INVALID", value_parser = BoolishValueParser::new())]
    skip_invalid: bool,
    /// The file's format [default: by its first bytes, then its name]
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_FORMAT")]
    format: Option<Format>,
    /// Read the file's COLUMN as NAME, as in embedding=vec; may be given several times
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_COLUMN", value_name = "NAME=COLUMN", value_delimiter = ',', value_parser = renaming)]
    column: Vec<Renaming>,
    /// Leave this column of the file out; may be given several times
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_IGNORE_COLUMN", value_name = "COLUMN", value_delimiter = ',')]
    ignore_column: Vec<String>,
    /// The vectors are bits: the file's are their bytes, as numpy.packbits makes them
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_BITS", value_parser = BoolishValueParser::new())]
    bits: bool,
    /// The corpus that is made has each row's id as text in this column of the file, such as a UUID or a path
    #[arg(long, env = "MEGARING_CORPUS_IMPORT_ID_COLUMN", value_name = "NAME")]
    id_column: Option<String>,
}

/// `corpus append`.
#[derive(Debug, clap::Args)]
pub(crate) struct AppendArgs {
    /// Corpus
    name: String,
    /// Arrow IPC, Parquet, .npy, .safetensors, .fvecs, .fbin, JSON lines, CSV or their kin, also in gzip or from a
    /// pipe; `-` is standard input
    file: PathBuf,
    /// Skip and count rows that cannot be, instead of stopping at the first
    #[arg(long, env = "MEGARING_CORPUS_APPEND_SKIP_INVALID", value_parser = BoolishValueParser::new())]
    skip_invalid: bool,
    /// The file's format [default: by its first bytes, then its name]
    #[arg(long, env = "MEGARING_CORPUS_APPEND_FORMAT")]
    format: Option<Format>,
    /// Read the file's COLUMN as NAME, as in embedding=vec; may be given several times
    #[arg(long, env = "MEGARING_CORPUS_APPEND_COLUMN", value_name = "NAME=COLUMN", value_delimiter = ',', value_parser = renaming)]
    column: Vec<Renaming>,
    /// Leave this column of the file out; may be given several times
    #[arg(long, env = "MEGARING_CORPUS_APPEND_IGNORE_COLUMN", value_name = "COLUMN", value_delimiter = ',')]
    ignore_column: Vec<String>,
    /// Rows take the place of those that have their ids
    #[arg(long, env = "MEGARING_CORPUS_APPEND_UPSERT", value_parser = BoolishValueParser::new())]
    upsert: bool,
}

/// A column's name in a corpus, and in a file.
pub(crate) type Renaming = (String, String);

/// Parses `NAME=COLUMN`.
pub(crate) fn renaming(text: &str) -> Result<Renaming, String> {
    let (name, in_file) = text.split_once('=').ok_or("it is NAME=COLUMN, such as embedding=vec")?;
    // Whether there is such a name is judged by who knows them all.
    Columns::default().rename(name, in_file).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), in_file.to_owned()))
}

/// What an import did.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    /// The corpus.
    pub corpus: String,
    /// Elements of an embedding.
    pub dim: usize,
    /// The same, with what they are.
    #[serde(skip)]
    pub row_type: RowType,
    /// Rows added.
    pub rows: usize,
    /// Rows of before whose place they took.
    pub replaced: usize,
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
    let mut corpora = settings.corpora(Access::Exclusive)?;
    let (name, known) = (&args.name, corpora.find(&args.name)?);
    if known.as_ref().is_some_and(|corpus| corpus.rows > 0) {
        return Err(Failure::Work(format!(
            "a corpus named {name:?} exists already; `corpus append {name} FILE` adds rows to it"
        )));
    }
    if args.bits && known.as_ref().is_some_and(|corpus| corpus.row_type.element != Element::Bit) {
        return Err(Failure::Work(format!("a corpus named {name:?} exists already, for float32 values")));
    }
    if let Some(column) = known.filter(|corpus| args.id_column.is_some() && corpus.id_column != args.id_column) {
        let ids =
            column.id_column.map_or_else(|| "ids that are numbers".to_owned(), |column| format!("ids in {column}"));
        return Err(Failure::Work(format!("a corpus named {name:?} exists already, with {ids}")));
    }
    let mut options = options(args.skip_invalid, &args.column, &args.ignore_column)?;
    options.element = if args.bits { Element::Bit } else { Element::Float32 };
    let id_column = args.id_column.as_deref();
    let imported = add_file(&mut corpora, name, (&args.file, args.format), options, id_column, Mode::Append)?;
    tell(&imported, output)
}

pub(crate) fn append(args: &AppendArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let mut corpora = settings.corpora(Access::Exclusive)?;
    corpora.describe(&args.name)?;
    let options = options(args.skip_invalid, &args.column, &args.ignore_column)?;
    let mode = if args.upsert { Mode::Upsert } else { Mode::Append };
    let imported = add_file(&mut corpora, &args.name, (&args.file, args.format), options, None, mode)?;
    tell(&imported, output)
}

fn options(skip_invalid: bool, renamed: &[Renaming], ignored: &[String]) -> Result<ImportOptions, Error> {
    let mut columns = Columns::default();
    ignored.iter().for_each(|in_file| columns.ignore(in_file));
    renamed.iter().try_for_each(|(name, in_file)| columns.rename(name, in_file))?;
    Ok(ImportOptions { skip_invalid, columns, ..ImportOptions::default() })
}

/// Adds a file's rows to a corpus, which is made if it is not there and removed again if the import fails. Progress
/// goes to stderr. The dimension wanted is that of the corpus, where there is one, whatever `options` say.
///
/// # Errors
/// What the file holds or the storage refuses; the corpus is then as it was.
pub fn import_file(
    store: &Arc<Store>,
    name: &str,
    path: &Path,
    format: Option<Format>,
    options: ImportOptions,
    mode: Mode,
) -> Result<Imported, Failure> {
    add_file(&mut Corpora::Here(store.clone()), name, (path, format), options, None, mode)
}

/// `id_column` is of the corpus that is made.
fn add_file(
    corpora: &mut Corpora,
    name: &str,
    (path, format): (&Path, Option<Format>),
    mut options: ImportOptions,
    id_column: Option<&str>,
    mode: Mode,
) -> Result<Imported, Failure> {
    let begun = Instant::now();
    let known = corpora.find(name)?;
    let id_column = known.as_ref().map_or(id_column.map(str::to_owned), |corpus| corpus.id_column.clone());
    if let Some(column) = &id_column {
        options.columns.read_ids(column)?;
    }
    let asked = options.element;
    let row_type = known.as_ref().map(|corpus| corpus.row_type);
    let (dim, element) = row_type.map_or((None, asked), |known| (Some(known.dim), known.element));
    let file = import::open(path, format, &ImportOptions { dim, element, ..options })?;
    if known.is_none() {
        corpora.create(name, file.row_type(), CreateOptions { id_column, ..CreateOptions::default() })?;
    }
    let imported = add_rows(corpora, name, file, mode, begun);
    // Somebody else may have added rows meanwhile.
    let is_empty = |corpora: &Corpora| corpora.describe(name).is_ok_and(|corpus| corpus.rows == 0);
    if imported.is_err() && known.is_none() && is_empty(corpora) {
        // The first error is the one to tell; an empty corpus that stays behind does no harm.
        let _ = corpora.drop_corpus(name);
    }
    imported
}

fn add_rows(corpora: &mut Corpora, name: &str, file: Import, mode: Mode, begun: Instant) -> Result<Imported, Failure> {
    let row_type = file.row_type();
    let mut progress = Progress::start(format!("import {name}"), file.progress().bytes_total);
    let report = corpora.add(name, file, mode, &mut |at| {
        progress.at(at.bytes_read, &counted(at.rows, "row", "rows"));
    })?;
    let Report { appended, format, skipped, first_skipped, notes, .. } = report;
    progress.finish(&format!("{} in {}", counted(appended.rows as u64, "row", "rows"), duration_text(begun.elapsed())));
    Ok(Imported {
        corpus: name.to_owned(),
        dim: row_type.dim,
        row_type,
        rows: appended.rows,
        replaced: appended.replaced,
        skipped,
        first_skipped: first_skipped.map(|first| first.to_string()),
        total_rows: appended.total_rows,
        generation: appended.generation,
        segments: appended.segments,
        format: format.to_string(),
        notes,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn tell(imported: &Imported, output: &mut Output) -> Result<(), Failure> {
    imported.notes.iter().for_each(|note| message(note));
    if let Some(first) = &imported.first_skipped {
        message(&format!("{} skipped; the first: {first}", counted(imported.skipped, "row", "rows")));
    }
    output.answer(imported, || {
        let Imported { corpus, rows, total_rows, row_type, .. } = imported;
        let (rows, total) = (counted(*rows as u64, "row", "rows"), grouped(*total_rows as u64));
        let replaced = match imported.replaced {
            0 => String::new(),
            replaced => format!(" in the place of {}", grouped(replaced as u64)),
        };
        format!("{corpus}: {rows} added{replaced}, {total} x {row_type} in all")
    })
}
