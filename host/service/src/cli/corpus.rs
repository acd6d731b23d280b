//! `megaring corpus …`, of the data folder or of a server. Reading commands open the folder for reading, so they work
//! beside a running server; those that write need it for themselves.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use clap::builder::BoolishValueParser;
use megaring_core::{Error, RowType};
use megaring_corpus::import::Format;
use megaring_corpus::{Access, CreateOptions, Description, Store};
use serde_json::json;

use super::corpus_report::{CorpusRecord, VerifyRecord, describe_text, list_table, verify_text};
use super::fetch::{self, FetchArgs};
use super::import::{self, AppendArgs, ImportArgs};
use super::selection::read_ids;
use crate::config::Settings;
use crate::console::{Failure, Output, Progress, counted, grouped, message};
use crate::corpora::Ids;
use crate::remote::Deletion;

/// What can be done to corpora.
#[derive(Debug, Subcommand)]
pub(crate) enum CorpusCommand {
    /// Make an empty corpus
    Create {
        /// Name: 1 to 64 of a to z, 0 to 9, "-", "_" and ".", beginning with a letter or a digit
        name: String,
        /// Elements of an embedding
        #[arg(long, env = "MEGARING_CORPUS_CREATE_DIM", value_name = "N", required = true)]
        dim: usize,
        /// They are bits
        #[arg(long, env = "MEGARING_CORPUS_CREATE_BITS", value_parser = BoolishValueParser::new())]
        bits: bool,
        /// No two rows may have one id
        #[arg(long, env = "MEGARING_CORPUS_CREATE_UNIQUE_IDS", value_parser = BoolishValueParser::new())]
        unique_ids: bool,
        /// Column that has each row's id as text, such as a UUID or a path [default: ids are numbers]
        #[arg(long, env = "MEGARING_CORPUS_CREATE_ID_COLUMN", value_name = "NAME")]
        id_column: Option<String>,
    },
    /// Make a corpus of a file's rows
    Import(ImportArgs),
    /// Add a file's rows to a corpus
    Append(AppendArgs),
    /// Delete the rows that have some ids, or of which a condition is true
    Delete {
        /// Corpus
        name: String,
        /// Ids: numbers, or texts where the corpus has an id column
        ids: Vec<String>,
        /// A file of ids, one a line; `-` is standard input
        #[arg(long, env = "MEGARING_CORPUS_DELETE_IDS_FILE", value_name = "FILE")]
        ids_file: Option<PathBuf>,
        /// Rows of which this is true, as in "zone = 4 and importance < 0.1"; "true" is all of them
        #[arg(long, env = "MEGARING_CORPUS_DELETE_FILTER", value_name = "CONDITION", conflicts_with_all = ["ids", "ids_file"])]
        filter: Option<String>,
    },
    /// Show columns of some rows
    Fetch(FetchArgs),
    /// All corpora
    List,
    /// What a corpus holds
    Describe {
        /// Corpus
        name: String,
    },
    /// Write its rows into a file: Arrow IPC or Parquet with the columns of all rows, .npy or .fvecs with the vectors
    Export {
        /// Corpus
        name: String,
        /// File to be made
        #[arg(long, env = "MEGARING_CORPUS_EXPORT_OUT", value_name = "FILE", required = true)]
        out: PathBuf,
        /// The file's format [default: by its name]
        #[arg(long, env = "MEGARING_CORPUS_EXPORT_FORMAT")]
        format: Option<Format>,
    },
    /// Copy its present version into another data folder, by links where that is possible; a server may go on with it
    Snapshot {
        /// Corpus
        name: String,
        /// Data folder of the copy, made if it is not there; `corpus verify --data FOLDER` checks it
        folder: PathBuf,
    },
    /// Make a corpus of one in a snapshot
    Restore {
        /// Data folder of the snapshot
        folder: PathBuf,
        /// Corpus in it
        name: String,
        /// Name of the corpus made [default: the same]
        #[arg(id = "as", long = "as", env = "MEGARING_CORPUS_RESTORE_AS", value_name = "NAME")]
        new_name: Option<String>,
    },
    /// Merge its segments, which otherwise happens in the background where they are small
    Compact {
        /// Corpus
        name: String,
    },
    /// Check everything stored: checksums, values, caches
    Verify {
        /// Corpora; all where none is named
        names: Vec<String>,
    },
    /// Remove a corpus and its files
    Drop {
        /// Corpus
        name: String,
        /// Really
        #[arg(long, env = "MEGARING_CORPUS_DROP_YES", value_parser = BoolishValueParser::new())]
        yes: bool,
    },
}

impl CorpusCommand {
    /// Its name, where it makes no sense through a server.
    pub(crate) fn is_of_this_machine(&self) -> Option<&'static str> {
        match self {
            Self::Snapshot { .. } => Some("corpus snapshot"),
            Self::Restore { .. } => Some("corpus restore"),
            Self::Compact { .. } => Some("corpus compact"),
            Self::Verify { .. } => Some("corpus verify"),
            Self::Create { .. } | Self::Import(_) | Self::Append(_) | Self::Delete { .. } | Self::Fetch(_) => None,
            Self::List | Self::Describe { .. } | Self::Export { .. } | Self::Drop { .. } => None,
        }
    }
}

pub(crate) fn run(command: CorpusCommand, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    match command {
        CorpusCommand::Create { name, dim, bits, unique_ids, id_column } => {
            let row_type = if bits { RowType::bits(dim) } else { dim.into() };
            let options = CreateOptions { unique_ids, id_column };
            let corpus = settings.corpora(Access::Exclusive)?.create(&name, row_type, options)?;
            let what = if bits { "bits" } else { "elements" };
            output.answer(&CorpusRecord::of(&corpus), || format!("{name}: made, for embeddings of {dim} {what}"))
        }
        CorpusCommand::Import(args) => import::import(&args, settings, output),
        CorpusCommand::Append(args) => import::append(&args, settings, output),
        CorpusCommand::Delete { name, ids, ids_file, filter } => {
            let deletion = match filter {
                Some(filter) => settings.corpora(Access::Exclusive)?.delete_selected(&name, filter)?,
                None => delete(&name, &ids, ids_file.as_deref(), settings)?,
            };
            tell_deletion(&name, &deletion, output)
        }
        CorpusCommand::Fetch(args) => fetch::run(&args, settings, output),
        CorpusCommand::List => list(&settings.corpora(Access::ReadOnly)?.list()?, output),
        CorpusCommand::Describe { name } => {
            let corpus = settings.corpora(Access::ReadOnly)?.describe(&name)?;
            output.answer(&CorpusRecord::of(&corpus), || describe_text(&corpus))
        }
        CorpusCommand::Export { name, out, format } => {
            let format = format.map_or_else(|| Format::of_name(&out), Ok)?;
            let corpora = settings.corpora(Access::ReadOnly)?;
            let rows = corpora.export(&name, &out, format)?;
            let left_out = corpora.describe(&name)?.partial_columns;
            if matches!(format, Format::ArrowFile | Format::Parquet) && !left_out.is_empty() {
                message(&format!("{name}: left out {}, which only some rows have", left_out.join(", ")));
            }
            let record =
                json!({ "corpus": name, "rows": rows, "format": format.name(), "file": out.display().to_string() });
            output.answer(&record, || format!("{name}: {} in {}", counted(rows as u64, "row", "rows"), out.display()))
        }
        CorpusCommand::Snapshot { name, folder } => {
            let source = settings.store(Access::ReadOnly)?;
            take(&*Store::open(&folder, Access::Exclusive)?, &source, &name, &name, output)
        }
        CorpusCommand::Restore { folder, name, new_name } => {
            let source = Store::open(&folder, Access::ReadOnly)?;
            let new_name = new_name.as_deref().unwrap_or(&name);
            source.describe(&name).map_err(|error| match error {
                Error::CorpusNotFound { .. } => Failure::Work(format!("{error} in {}", folder.display())),
                other => other.into(),
            })?;
            take(&*settings.store(Access::Exclusive)?, &source, &name, new_name, output)
        }
        CorpusCommand::Compact { name } => compact(&name, &*settings.store(Access::Exclusive)?, output),
        CorpusCommand::Verify { names } => verify(&*settings.store(Access::ReadOnly)?, names, output),
        CorpusCommand::Drop { name, yes } => drop_corpus(&name, yes, settings, output),
    }
}

fn list(corpora: &[Description], output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return corpora.iter().try_for_each(|corpus| output.record(&CorpusRecord::of(corpus)));
    }
    match corpora {
        [] => output.text("no corpora; `megaring corpus import NAME FILE` makes one"),
        corpora => output.text(list_table(corpora)),
    }
}

fn delete(name: &str, ids: &[String], file: Option<&Path>, settings: &Settings) -> Result<Deletion, Failure> {
    if file.is_none() && ids.is_empty() {
        let wants = "ids are missing: name some, or give --ids-file FILE or --filter CONDITION";
        return Err(Failure::Usage(wants.into()));
    }
    let corpora = settings.corpora(Access::Exclusive)?;
    let corpus = corpora.describe(name)?;
    let id_column = corpus.id_column.as_deref();
    let mut ids = Ids::of_arguments(ids, id_column)?;
    if let Some(file) = file {
        ids.extend(read_ids(file, id_column)?);
    }
    corpora.delete(name, &ids)
}

fn tell_deletion(name: &str, deleted: &Deletion, output: &mut Output) -> Result<(), Failure> {
    let record = json!({
        "corpus": name, "rows": deleted.rows, "missing_ids": deleted.missing_ids.json(),
        "total_rows": deleted.total_rows, "generation": deleted.generation,
    });
    if deleted.missing > deleted.missing_ids.len() as u64 && output.is_json() {
        let (all, told) = (grouped(deleted.missing), deleted.missing_ids.len());
        message(&format!("{all} ids found nothing; the server names the smallest {told}"));
    }
    output.answer(&record, || {
        let (rows, left) = (counted(deleted.rows, "row", "rows"), grouped(deleted.total_rows));
        let missing = match deleted.missing {
            0 => String::new(),
            count => format!("; {} found nothing", counted(count, "id", "ids")),
        };
        format!("{name}: {rows} deleted, {left} left{missing}")
    })
}

fn take(store: &Store, source: &Store, name: &str, new_name: &str, output: &mut Output) -> Result<(), Failure> {
    let corpus = store.take_from(source, name, new_name)?;
    let rows = counted(corpus.rows as u64, "row", "rows");
    output.answer(&CorpusRecord::of(&corpus), || format!("{new_name}: {rows} in {}", store.root().display()))
}

fn compact(name: &str, store: &Store, output: &mut Output) -> Result<(), Failure> {
    let done = store.compact(name)?;
    let segments = store.describe(name)?.segments.len();
    let record = json!({ "corpus": name, "merged": done.merged, "rows": done.rows, "segments": segments });
    output.answer(&record, || match done.merged {
        0 => format!("{name}: nothing to merge"),
        _ => {
            let (rows, now) =
                (counted(done.rows as u64, "row", "rows"), counted(segments as u64, "segment", "segments"));
            format!("{name}: {rows} rewritten, {now} now")
        }
    })
}

fn verify(store: &Store, names: Vec<String>, output: &mut Output) -> Result<(), Failure> {
    let names = if names.is_empty() { store.list().into_iter().map(|corpus| corpus.name).collect() } else { names };
    let corpora: Vec<Description> = names.iter().map(|name| store.describe(name)).collect::<Result<_, _>>()?;
    let mut progress = Progress::start("verify".into(), corpora.iter().map(|corpus| corpus.bytes).sum());
    let (mut bytes, mut losses) = (0, 0);
    for corpus in &corpora {
        progress.at(bytes, &corpus.name);
        let report = store.verify(&corpus.name)?;
        bytes += corpus.bytes;
        losses += usize::from(report.loss().is_some());
        output.answer(&VerifyRecord::of(&report), || verify_text(&report))?;
    }
    progress.finish(&format!("corpora checked: {}, with losses: {losses}", corpora.len()));
    if losses == 0 { Ok(()) } else { Err(Failure::Told) }
}

fn drop_corpus(name: &str, yes: bool, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let corpora = settings.corpora(Access::Exclusive)?;
    let rows = corpora.describe(name)?.rows;
    if !yes {
        let rows = counted(rows as u64, "row", "rows");
        return Err(Failure::Usage(format!("this would remove {name} with its {rows} for good; say --yes to do it")));
    }
    corpora.drop_corpus(name)?;
    output.answer(&json!({ "dropped": name, "rows": rows }), || format!("{name}: dropped"))
}
