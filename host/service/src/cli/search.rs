//! `megaring search`: top k in this process, without a server. Queries come from a file or are a row of the corpus
//! itself.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use megaring_core::corpus::CorpusView;
use megaring_core::exact::reported;
use megaring_core::rescore::{Hit, Ranked};
use megaring_core::search::{Queries, Search};
use megaring_core::{BackendKind, Error, Metric};
use megaring_corpus::import::{self, Columns, Format, ImportOptions};
use megaring_corpus::{Access, fetch};
use megaring_engine::{Engine, Made, Outcome, Terms};
use serde::Serialize;

use super::fetch::shown;
use super::import::{Renaming, renaming};
use super::selection::SearchSelection;
use super::{backend, finite, metric, some};
use crate::config::Settings;
use crate::console::{Align, Failure, Output, Table, counted, duration_text, grouped, message};

/// `megaring search`.
#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// Corpus
    corpus: String,
    /// Queries: a file of any format that `corpus import` reads; `-` is standard input
    #[arg(long, env = "MEGARING_SEARCH_QUERY_FILE", value_name = "FILE")]
    query_file: Option<PathBuf>,
    /// The query file's format [default: by its first bytes, then its name]
    #[arg(long, env = "MEGARING_SEARCH_FORMAT")]
    format: Option<Format>,
    /// The query file's column that has the vectors, as in embedding=vec
    #[arg(long, env = "MEGARING_SEARCH_COLUMN", value_name = "NAME=COLUMN", value_parser = renaming)]
    column: Option<Renaming>,
    /// The query is this row of the corpus
    #[arg(long, env = "MEGARING_SEARCH_ROW", value_name = "N", allow_negative_numbers = true)]
    row: Option<i64>,
    /// Hits wanted for each query
    #[arg(long, env = "MEGARING_SEARCH_K", value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = some())]
    k: u32,
    /// How a query and a row compare
    #[arg(long, env = "MEGARING_SEARCH_METRIC", default_value_t = Metric::Cosine, value_parser = metric())]
    metric: Metric,
    /// Hits score at least this (cosine, dot) or at most this (l2)
    #[arg(long, env = "MEGARING_SEARCH_THRESHOLD", value_name = "SCORE", allow_hyphen_values = true, value_parser = finite)]
    threshold: Option<f64>,
    /// The backend that must do it [default: cpu]
    #[arg(long, env = "MEGARING_SEARCH_BACKEND", value_parser = backend())]
    backend: Option<BackendKind>,
    /// Show titles
    #[arg(long, env = "MEGARING_SEARCH_TITLES", value_parser = BoolishValueParser::new())]
    titles: bool,
    /// Show these columns of the hits; * is all but the embedding
    #[arg(long, env = "MEGARING_SEARCH_COLUMNS", value_name = "NAME", value_delimiter = ',')]
    columns: Vec<String>,
    #[command(flatten)]
    selection: SearchSelection,
}

/// One query's answer, for programs.
#[derive(Serialize)]
struct QueryRecord<'a> {
    query: usize,
    hits: Vec<HitRecord<'a>>,
}

#[derive(Serialize)]
struct HitRecord<'a> {
    row: u32,
    memory_id: u64,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How an answer was made, for programs. The fields are those of `megaring.v1.Made`.
#[derive(Serialize)]
pub(crate) struct MadeRecord {
    made: MadeFields,
}

#[derive(Serialize)]
struct MadeFields {
    backend: &'static str,
    instruction_set: String,
    exact: bool,
    rows_rescored: u64,
    bytes_read: u64,
    queue_ns: u64,
    compute_ns: u64,
    rescore_ns: u64,
    gathered_queries: u32,
}

pub(crate) fn run(args: &SearchArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let store = settings.store(Access::ReadOnly)?;
    let whole = store.view(&args.corpus)?;
    let batches = queries(args, &whole)?;
    let view = args.selection.select(&store, &whole)?;
    fetch(&view, &[], &args.columns, usize::MAX)?;
    let engine = settings.engine(store, args.backend.as_slice())?;
    let mut first = 0;
    for queries in batches {
        let queries = queries?;
        let count = queries.len();
        let outcome = search(&engine, &view, args, queries)?;
        for (query, ranked) in outcome.answer.iter().enumerate() {
            tell(first + query, ranked, args, &view, output)?;
        }
        tell_made(count, &outcome.made, output)?;
        first += count;
    }
    Ok(())
}

type Batches = Box<dyn Iterator<Item = Result<Queries, Error>>>;

/// The queries, in batches as the file gives them.
fn queries(args: &SearchArgs, view: &CorpusView) -> Result<Batches, Failure> {
    match (&args.query_file, args.row) {
        (Some(_), Some(_)) => Err(Failure::Usage("--query-file and --row exclude each other".into())),
        (None, None) => Err(Failure::Usage("queries are missing: give --query-file FILE or --row N".into())),
        (Some(path), None) => {
            let mut columns = Columns::embeddings();
            args.column.iter().try_for_each(|(name, in_file)| columns.rename(name, in_file))?;
            let options = ImportOptions { dim: Some(view.dim()), columns, ..ImportOptions::default() };
            let file = import::open(path, args.format, &options)?;
            Ok(Box::new(file.map(|rows| rows.map(|rows| rows.embeddings.into()))))
        }
        (None, Some(row)) => Ok(Box::new(std::iter::once(Ok(row_of(view, row)?)))),
    }
}

fn row_of(view: &CorpusView, row: i64) -> Result<Queries, Failure> {
    match u32::try_from(row) {
        Ok(row) if view.shows(row) => Ok(Queries::Rows(vec![row])),
        Ok(row) if (row as usize) < view.rows() => {
            Err(Failure::Work(format!("row {row} of corpus {:?} is deleted", view.name())))
        }
        _ => {
            let there = match view.rows() {
                0 => "it is empty".to_owned(),
                1 => "its only row is 0".to_owned(),
                rows => format!("its rows are 0 to {}", rows - 1),
            };
            Err(Failure::Work(format!("corpus {:?} has no row {row}; {there}", view.name())))
        }
    }
}

fn search(
    engine: &Arc<Engine>,
    view: &Arc<CorpusView>,
    args: &SearchArgs,
    queries: Queries,
) -> Result<Outcome<Vec<Ranked>>, Failure> {
    let job =
        Search { corpus: view.clone(), queries, metric: args.metric, k: args.k as usize, threshold: args.threshold };
    let terms = Terms { backend: args.backend, ..Terms::default() };
    Ok(engine.run_blocking(job, terms)?)
}

fn tell(
    query: usize,
    ranked: &Ranked,
    args: &SearchArgs,
    view: &CorpusView,
    output: &mut Output,
) -> Result<(), Failure> {
    if !output.is_json() {
        let heading = format!("query {query}: {}", counted(ranked.hits.len() as u64, "hit", "hits"));
        output.text(if query == 0 { heading } else { format!("\n{heading}") })?;
        return output.text(hits_table(&ranked.hits, args, view)?);
    }
    let rows: Vec<u32> = ranked.hits.iter().map(|hit| hit.row).collect();
    let fetched = fetch(view, &rows, &args.columns, usize::MAX)?;
    let names = fetched.columns();
    let hits = ranked.hits.iter().enumerate().map(|(at, hit)| {
        let (memory_id, title) = view.label(hit.row);
        let named = |values: Vec<_>| names.iter().map(|name| (*name).to_owned()).zip(values).collect();
        let columns = if names.is_empty() { None } else { Some(named(fetched.json(at)?)) };
        let title = args.titles.then_some(title);
        Ok(HitRecord { row: hit.row, memory_id, score: reported(hit.score), title, columns })
    });
    output.record(&QueryRecord { query, hits: hits.collect::<Result<_, Error>>()? })
}

fn hits_table(hits: &[Hit], args: &SearchArgs, view: &CorpusView) -> Result<Table, Error> {
    let rows: Vec<u32> = hits.iter().map(|hit| hit.row).collect();
    let fetched = fetch(view, &rows, &args.columns, usize::MAX)?;
    let numbers = ["RANK", "ROW", "MEMORY", "SCORE"].map(|name| (name, Align::Right));
    let texts = args.titles.then_some("TITLE").into_iter().chain(fetched.columns());
    let mut table = Table::new(numbers.into_iter().chain(texts.map(|name| (name, Align::Left))));
    for (rank, hit) in hits.iter().enumerate() {
        let (memory_id, title) = view.label(hit.row);
        let score = format!("{:.6}", reported(hit.score));
        let numbers = [(rank + 1).to_string(), hit.row.to_string(), memory_id.to_string(), score];
        let title = args.titles.then(|| title.to_owned());
        table.row(numbers.into_iter().chain(title).chain(fetched.json(rank)?.into_iter().map(shown)));
    }
    Ok(table)
}

/// How the answer of a batch was made: a last record for programs, a message for people.
pub(crate) fn tell_made(items: usize, made: &Made, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.record(&MadeRecord::of(made));
    }
    output.flush()?;
    let took = duration_text(made.queue + made.compute + made.rescore);
    let exact = if made.exact { "exact" } else { "not exact" };
    let (items, rescored) = (grouped(items as u64), grouped(made.rows_rescored));
    message(&format!(
        "{items} answered by {} ({}), {exact}, {rescored} rescored, {took}",
        made.backend, made.instruction_set
    ));
    Ok(())
}

impl MadeRecord {
    fn of(made: &Made) -> Self {
        let nanoseconds = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let made = MadeFields {
            backend: made.backend.name(),
            instruction_set: made.instruction_set.clone(),
            exact: made.exact,
            rows_rescored: made.rows_rescored,
            bytes_read: made.bytes_read,
            queue_ns: nanoseconds(made.queue),
            compute_ns: nanoseconds(made.compute),
            rescore_ns: nanoseconds(made.rescore),
            gathered_queries: made.batched_with,
        };
        Self { made }
    }
}
