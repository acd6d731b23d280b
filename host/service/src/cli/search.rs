//! `megaring search`: top k, in this process or by a server. Queries come from a file or are a row of the corpus
//! itself.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use megaring_core::corpus::CorpusView;
use megaring_core::exact::reported;
use megaring_core::search::{Queries, Search};
use megaring_core::{BackendKind, Error, Metric, RowType};
use megaring_corpus::import::{self, Columns, Format, ImportOptions};
use megaring_corpus::{Access, Fetched, TextIds, fetch, find_each};
use megaring_engine::{Engine, Made, Terms};
use megaring_proto::v1 as pb;
use serde::Serialize;

use super::fetch::shown;
use super::import::{Renaming, renaming};
use super::selection::SearchSelection;
use super::{METRIC_HELP, backend, finite, metric, some};
use crate::config::Settings;
use crate::console::{Align, Failure, Output, Table, counted, duration_text, grouped, message};
use crate::corpora::Ids;
use crate::remote::{self, Remote};

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
    /// The query is the row of the corpus that has this id: a number, or a text where the corpus has an id column
    #[arg(long, env = "MEGARING_SEARCH_ID", value_name = "ID")]
    id: Option<String>,
    /// Hits wanted for each query
    #[arg(long, env = "MEGARING_SEARCH_K", value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = some())]
    k: u32,
    #[arg(long, env = "MEGARING_SEARCH_METRIC", help = METRIC_HELP, value_parser = metric())]
    metric: Option<Metric>,
    /// Only so many of a row's first elements count, as embeddings allow that were trained for it; queries of a file
    /// have just these
    #[arg(long, env = "MEGARING_SEARCH_PREFIX_DIM", value_name = "N", allow_negative_numbers = true, value_parser = some())]
    prefix_dim: Option<u32>,
    /// Hits score at least this, or at most this where the metric is a distance (l2, hamming)
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

impl SearchArgs {
    /// What queries are to a corpus whose rows are so, and whether they compare.
    fn of_queries(&self, rows: RowType) -> Result<RowType, Error> {
        rows.metric(self.metric)?;
        self.prefix_dim.map_or(Ok(rows), |dim| rows.prefix(dim as usize))
    }
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
    #[serde(flatten)]
    id: RowId<'a>,
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

/// What a row is known by, for programs.
#[derive(Clone, Copy, Serialize)]
pub(crate) enum RowId<'a> {
    #[serde(rename = "memory_id")]
    Number(u64),
    /// Where the corpus has an id column: its hash says no more.
    #[serde(rename = "id")]
    Text(&'a str),
}

impl<'a> RowId<'a> {
    pub(crate) fn of(number: u64, text: Option<&'a str>) -> Self {
        text.map_or(Self::Number(number), Self::Text)
    }
}

impl fmt::Display for RowId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A hit with what people know its row by.
struct Labelled<'a> {
    row: u32,
    id: RowId<'a>,
    score: f32,
    title: &'a str,
}

/// The hits of one query, best first, and columns of rows, theirs from the `first` on.
struct Found<'a> {
    hits: Vec<Labelled<'a>>,
    fetched: &'a Fetched,
    first: usize,
}

/// Who searches.
enum Searcher {
    Here { engine: Arc<Engine>, whole: Arc<CorpusView>, view: Arc<CorpusView>, searched: Arc<CorpusView> },
    There { remote: Box<Remote>, row_type: RowType, request: Box<pb::SearchRequest> },
}

pub(crate) fn run(args: &SearchArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    args.selection.reads_input_once(("--query-file", args.query_file.as_ref()))?;
    let (searcher, batches) = match settings.remote()? {
        None => here(args, settings)?,
        Some(remote) => there(args, remote)?,
    };
    let mut first = 0;
    for queries in batches {
        let queries = queries?;
        let (count, mut query) = (queries.len(), first);
        let made = searcher.search(args, queries, &mut |found| {
            query += 1;
            tell(query - 1, &found, args, output)
        })?;
        tell_made(count, &made, output)?;
        first += count;
    }
    Ok(())
}

fn here(args: &SearchArgs, settings: &Settings) -> Result<(Searcher, Batches), Failure> {
    let store = settings.store(Access::ReadOnly)?;
    let whole = store.view(&args.corpus)?;
    let row_type = args.of_queries(whole.row_type())?;
    let row_of = |row| row_of(&args.corpus, whole.rows(), |row| whole.shows(row), row);
    let batches = queries(args, (row_type, whole.id_column()), row_of)?;
    let view = args.selection.select(&store, &whole)?;
    fetch(&view, &[], &args.columns, usize::MAX)?;
    let searched = match args.prefix_dim {
        Some(dim) => store.prefix(&view, dim as usize)?,
        None => view.clone(),
    };
    let engine = settings.engine(store, args.backend.as_slice())?;
    Ok((Searcher::Here { engine, whole, view, searched }, batches))
}

fn there(args: &SearchArgs, remote: Box<Remote>) -> Result<(Searcher, Batches), Failure> {
    let corpus = remote.describe(&args.corpus)?;
    // The server knows which of them are deleted.
    let rows = corpus.rows + corpus.deleted_rows;
    let row_type = args.of_queries(corpus.row_type)?;
    let row_of = |row| row_of(&args.corpus, rows, |row| (row as usize) < rows, row);
    let batches = queries(args, (row_type, corpus.id_column.as_deref()), row_of)?;
    let request = pb::SearchRequest {
        corpus: args.corpus.clone(),
        metric: remote::metric(args.metric),
        k: args.k,
        threshold: args.threshold,
        with_titles: args.titles,
        backend: remote::backend(args.backend),
        filter: args.selection.message(|| Ok(corpus.clone()))?,
        columns: args.columns.clone(),
        prefix_dim: args.prefix_dim,
        ..pb::SearchRequest::default()
    };
    Ok((Searcher::There { remote, row_type, request: Box::new(request) }, batches))
}

/// Queries of a batch.
enum Asked {
    These(Queries),
    /// The rows that have these ids.
    Named(Ids),
}

impl Asked {
    fn len(&self) -> usize {
        match self {
            Self::These(queries) => queries.len(),
            Self::Named(ids) => ids.len(),
        }
    }
}

type Batches = Box<dyn Iterator<Item = Result<Asked, Error>>>;

/// The queries, in batches as the file gives them.
fn queries(
    args: &SearchArgs,
    (row_type, id_column): (RowType, Option<&str>),
    row_of: impl FnOnce(i64) -> Result<Queries, Failure>,
) -> Result<Batches, Failure> {
    match (&args.query_file, args.row, &args.id) {
        (None, None, None) => {
            Err(Failure::Usage("queries are missing: give --query-file FILE, --row N or --id ID".into()))
        }
        (Some(path), None, None) => {
            let mut columns = Columns::embeddings();
            args.column.iter().try_for_each(|(name, in_file)| columns.rename(name, in_file))?;
            let RowType { element, dim } = row_type;
            let options = ImportOptions { dim: Some(dim), element, columns, ..ImportOptions::default() };
            let file = import::open(path, args.format, &options)?;
            Ok(Box::new(file.map(|rows| rows.map(|rows| Asked::These(rows.embeddings.into())))))
        }
        (None, Some(row), None) => Ok(Box::new(std::iter::once(Ok(Asked::These(row_of(row)?))))),
        (None, None, Some(id)) => {
            let ids = Ids::of_arguments(std::slice::from_ref(id), id_column)?;
            Ok(Box::new(std::iter::once(Ok(Asked::Named(ids)))))
        }
        _ => Err(Failure::Usage("--query-file, --row and --id exclude each other".into())),
    }
}

/// A row of a corpus of so many, of which it `shows` some, as the query.
fn row_of(corpus: &str, rows: usize, shows: impl Fn(u32) -> bool, row: i64) -> Result<Queries, Failure> {
    match u32::try_from(row) {
        Ok(row) if shows(row) => Ok(Queries::Rows(vec![row])),
        Ok(row) if (row as usize) < rows => Err(Failure::Work(format!("row {row} of corpus {corpus:?} is deleted"))),
        _ => {
            let there = match rows {
                0 => "it is empty".to_owned(),
                1 => "its only row is 0".to_owned(),
                rows => format!("its rows are 0 to {}", rows - 1),
            };
            Err(Failure::Work(format!("corpus {corpus:?} has no row {row}; {there}")))
        }
    }
}

impl Searcher {
    /// The hits of all queries, one after the other to `tell`.
    fn search(
        &self,
        args: &SearchArgs,
        asked: Asked,
        tell: &mut dyn FnMut(Found<'_>) -> Result<(), Failure>,
    ) -> Result<Made, Failure> {
        match (self, asked) {
            (Self::Here { engine, whole, view, searched }, asked) => {
                let queries = match asked {
                    Asked::These(queries) => queries,
                    Asked::Named(ids) => Queries::Rows(find_each(whole, &ids.numbers, &ids.texts, "query_ids")?),
                };
                let metric = view.row_type().metric(args.metric)?;
                let threshold = args.threshold;
                let job = Search { corpus: searched.clone(), queries, metric, k: args.k as usize, threshold };
                let outcome = engine.run_blocking(job, Terms { backend: args.backend, ..Terms::default() })?;
                let ids = TextIds::of(view)?;
                for ranked in &outcome.answer {
                    let rows: Vec<u32> = ranked.hits.iter().map(|hit| hit.row).collect();
                    let fetched = fetch(view, &rows, &args.columns, usize::MAX)?;
                    let hits = ranked.hits.iter().map(|hit| {
                        let (number, title) = view.label(hit.row);
                        let id = RowId::of(number, ids.get(hit.row));
                        Labelled { row: hit.row, id, score: reported(hit.score), title }
                    });
                    tell(Found { hits: hits.collect(), fetched: &fetched, first: 0 })?;
                }
                Ok(outcome.made)
            }
            (Self::There { remote, row_type, request }, asked) => {
                let mut request = request.clone();
                match asked {
                    Asked::These(Queries::Sent(queries)) => {
                        request.queries = Some(remote::queries(&queries, *row_type));
                    }
                    Asked::These(Queries::Rows(numbers)) => request.query_rows = Some(pb::RowNumbers { numbers }),
                    Asked::Named(ids) => request.query_ids = Some(ids.message()),
                }
                let mut all: Option<Made> = None;
                for answer in remote.search(&request)? {
                    let made = remote.made(answer.made)?;
                    let (fetched, mut first) = (remote.columns_of(&answer.columns, &answer.results)?, 0);
                    for hits in &answer.results {
                        tell(Found { hits: labelled(hits), fetched: &fetched, first })?;
                        first += hits.rows.len();
                    }
                    all = Some(made.after(all));
                }
                all.ok_or_else(|| remote.incomplete())
            }
        }
    }
}

/// Hits as a server has sent them; it leaves titles out where none are asked for.
fn labelled(hits: &pb::Hits) -> Vec<Labelled<'_>> {
    let titles = hits.titles.iter().map(String::as_str).chain(std::iter::repeat(""));
    let texts = hits.text_ids.iter().map(|text| Some(text.as_str())).chain(std::iter::repeat(None));
    let ids = hits.memory_ids.iter().zip(texts).map(|(number, text)| RowId::of(*number, text));
    let hits = hits.rows.iter().zip(&hits.scores).zip(ids.zip(titles));
    hits.map(|((row, score), (id, title))| Labelled { row: *row, id, score: *score, title }).collect()
}

fn tell(query: usize, found: &Found<'_>, args: &SearchArgs, output: &mut Output) -> Result<(), Failure> {
    let Found { hits, fetched, first } = found;
    if !output.is_json() {
        let heading = format!("query {query}: {}", counted(hits.len() as u64, "hit", "hits"));
        output.text(if query == 0 { heading } else { format!("\n{heading}") })?;
        return output.text(hits_table(found, args)?);
    }
    let names = fetched.columns();
    let hits = hits.iter().enumerate().map(|(at, hit)| {
        let named = |values: Vec<_>| names.iter().map(|name| (*name).to_owned()).zip(values).collect();
        let columns = if names.is_empty() { None } else { Some(named(fetched.json(first + at)?)) };
        let title = args.titles.then_some(hit.title);
        Ok(HitRecord { row: hit.row, id: hit.id, score: hit.score, title, columns })
    });
    output.record(&QueryRecord { query, hits: hits.collect::<Result<_, Error>>()? })
}

fn hits_table(found: &Found<'_>, args: &SearchArgs) -> Result<Table, Error> {
    let Found { hits, fetched, first } = found;
    let has_texts = hits.iter().any(|hit| matches!(hit.id, RowId::Text(_)));
    let id = if has_texts { ("ID", Align::Left) } else { ("MEMORY", Align::Right) };
    let numbers = [("RANK", Align::Right), ("ROW", Align::Right), id, ("SCORE", Align::Right)];
    let texts = args.titles.then_some("TITLE").into_iter().chain(fetched.columns());
    let mut table = Table::new(numbers.into_iter().chain(texts.map(|name| (name, Align::Left))));
    for (rank, hit) in hits.iter().enumerate() {
        let score = format!("{:.6}", hit.score);
        let numbers = [(rank + 1).to_string(), hit.row.to_string(), hit.id.to_string(), score];
        let title = args.titles.then(|| hit.title.to_owned());
        table.row(numbers.into_iter().chain(title).chain(fetched.json(first + rank)?.into_iter().map(shown)));
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
