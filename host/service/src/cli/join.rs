//! `megaring join`: for every row of a corpus its best rows of another, or of itself; or all pairs better than a score,
//! and the groups that they make.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use megaring_core::corpus::CorpusView;
use megaring_core::{BackendKind, Metric};
use megaring_corpus::import::Format;
use megaring_corpus::{Access, PairFile, Pairs, TextIds};
use megaring_engine::long_search::{Asked, Found, LongSearch, Of, add_pairs};
use megaring_engine::{Engine, Terms};
use megaring_proto::v1 as pb;
use serde::Serialize;
use serde_json::json;
use tonic::Streaming;

use super::search::RowId;
use super::{METRIC_HELP, backend, finite, metric, some};
use crate::config::Settings;
use crate::console::{Failure, Output, Progress, counted, grouped};
use crate::remote::{self, Remote};

/// `megaring join`.
#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// Corpus whose rows are the queries
    corpus: String,
    /// Corpus that is searched [default: the same; no row is its own neighbour then]
    other: Option<String>,
    /// Neighbours wanted of each row [default: 10, or all where --threshold is given]
    #[arg(long, env = "MEGARING_JOIN_K", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    k: Option<u32>,
    /// Pairs score at least this, or at most this for distances; without --k, a pair of one corpus is told once
    #[arg(long, env = "MEGARING_JOIN_THRESHOLD", value_name = "SCORE", allow_hyphen_values = true, value_parser = finite)]
    threshold: Option<f64>,
    /// How two rows compare
    #[arg(long, env = "MEGARING_JOIN_METRIC", help = METRIC_HELP, value_parser = metric())]
    metric: Option<Metric>,
    /// Only so many of a row's first elements count, as embeddings allow that were trained for it
    #[arg(long, env = "MEGARING_JOIN_PREFIX_DIM", value_name = "N", allow_negative_numbers = true, value_parser = some())]
    prefix_dim: Option<u32>,
    /// The groups of rows that pairs of one corpus connect, in the place of the pairs; needs --threshold
    #[arg(long, env = "MEGARING_JOIN_GROUPS", value_parser = BoolishValueParser::new())]
    groups: bool,
    /// File for the pairs, in the place of stdout: .parquet, .arrow or .npy
    #[arg(long, env = "MEGARING_JOIN_OUT", value_name = "FILE")]
    out: Option<PathBuf>,
    /// The backend that must do it [default: cpu]
    #[arg(long, env = "MEGARING_JOIN_BACKEND", value_parser = backend())]
    backend: Option<BackendKind>,
}

/// Pairs that go into a file at a time.
const BATCH: usize = 1 << 16;

/// A pair, for programs.
#[derive(Serialize)]
struct PairRecord<'a> {
    row: u32,
    #[serde(flatten)]
    id: RowId<'a>,
    neighbour: u32,
    neighbour_id: NeighbourId<'a>,
    score: f32,
}

/// A number, or where the corpus searched has an id column, a text.
#[derive(Serialize)]
#[serde(untagged)]
enum NeighbourId<'a> {
    Number(u64),
    Text(&'a str),
}

/// A group, for programs.
#[derive(Serialize)]
struct GroupRecord {
    rows: Vec<u32>,
    #[serde(flatten)]
    ids: GroupIds,
}

#[derive(Serialize)]
enum GroupIds {
    #[serde(rename = "memory_ids")]
    Numbers(Vec<u64>),
    #[serde(rename = "ids")]
    Texts(Vec<String>),
}

/// Where pairs go.
enum Sink<'a> {
    File(PairFile),
    Groups(Groups),
    Output(&'a mut Output),
}

pub(crate) fn run(args: &JoinArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let other = args.other.as_ref().filter(|other| **other != args.corpus);
    if args.groups && (args.threshold.is_none() || other.is_some()) {
        return Err(Failure::Usage("--groups needs --threshold, and is of one corpus".into()));
    }
    if args.groups && args.out.is_some() {
        return Err(Failure::Usage("--groups and --out exclude each other".into()));
    }
    let (mut joining, rows) = match settings.remote()? {
        None => Joining::here(args, other, settings)?,
        Some(remote) => Joining::there(args, other, remote)?,
    };
    let mut sink = match &args.out {
        Some(path) => Sink::File(PairFile::create(path, Format::of_name(path)?, joining.has_texts())?),
        None if args.groups => Sink::Groups(Groups::default()),
        None => Sink::Output(output),
    };
    let mut progress = Progress::start(format!("join {}", args.corpus), rows);
    let (mut count, mut pairs) = (0, Pairs::default());
    while let Some(next_row) = joining.step(args.backend, &mut pairs)? {
        // Few pairs at a time make a file of many small batches.
        if args.out.is_none() || pairs.rows.len() >= BATCH {
            count += pairs.rows.len() as u64;
            sink.push(std::mem::take(&mut pairs))?;
        }
        progress.at(next_row.into(), &counted(count, "pair", "pairs"));
    }
    count += pairs.rows.len() as u64;
    sink.push(pairs)?;
    progress.finish(&counted(count, "pair", "pairs"));
    match sink {
        Sink::File(file) => {
            file.finish()?;
            let path = args.out.as_ref().map(|path| path.display().to_string());
            let text = || format!("{}: {} pairs in {}", args.corpus, grouped(count), path.clone().unwrap_or_default());
            output.answer(&json!({ "pairs": count, "file": path }), text)
        }
        Sink::Groups(groups) => tell_groups(groups, output),
        Sink::Output(_) => Ok(()),
    }
}

/// Who joins.
enum Joining {
    Here {
        engine: Arc<Engine>,
        queries: Arc<CorpusView>,
        searched: Arc<CorpusView>,
        search: LongSearch,
        texts: [TextIds; 2],
    },
    There {
        remote: Box<Remote>,
        messages: Streaming<pb::JoinResponse>,
        has_texts: [bool; 2],
    },
}

impl Joining {
    /// In this process; also how many rows there are to be gone through.
    fn here(args: &JoinArgs, other: Option<&String>, settings: &Settings) -> Result<(Self, u64), Failure> {
        let store = settings.store(Access::ReadOnly)?;
        let queries = store.view(&args.corpus)?;
        let searched = other.map_or_else(|| Ok(queries.clone()), |other| store.view(other))?;
        let cut = |view: &Arc<CorpusView>| match args.prefix_dim {
            Some(dim) => store.prefix(view, dim as usize),
            None => Ok(view.clone()),
        };
        // Of one version the prefix is one, too.
        let (compared, other) = (cut(&queries)?, cut(&searched)?);
        let engine = settings.engine(store, args.backend.as_slice())?;
        let of = Of::Rows { corpus: compared, rows: 0..queries.rows() as u32 };
        let metric = searched.row_type().metric(args.metric)?;
        let (k, threshold) = (args.neighbours().map(|k| k as usize), args.threshold);
        let search = LongSearch::new(Asked { searched: other, of, metric, k, threshold }, &engine)?;
        let rows = queries.rows() as u64;
        let texts = [TextIds::of(&queries)?, TextIds::of(&searched)?];
        Ok((Self::Here { engine, queries, searched, search, texts }, rows))
    }

    /// By a server.
    fn there(args: &JoinArgs, other: Option<&String>, remote: Box<Remote>) -> Result<(Self, u64), Failure> {
        let corpus = remote.describe(&args.corpus)?;
        let request = pb::JoinRequest {
            corpus: args.corpus.clone(),
            other: other.cloned().unwrap_or_default(),
            metric: remote::metric(args.metric),
            k: args.neighbours(),
            threshold: args.threshold,
            backend: remote::backend(args.backend),
            prefix_dim: args.prefix_dim,
            ..pb::JoinRequest::default()
        };
        let has_text = corpus.id_column.is_some();
        let other_has_text = match other {
            Some(other) => remote.describe(other)?.id_column.is_some(),
            None => has_text,
        };
        let (messages, has_texts) = (remote.join(&request)?, [has_text, other_has_text]);
        Ok((Self::There { remote, messages, has_texts }, (corpus.rows + corpus.deleted_rows) as u64))
    }

    /// Whether ids are texts: the rows', and their neighbours'.
    fn has_texts(&self) -> [bool; 2] {
        match self {
            Self::Here { queries, searched, .. } => [queries, searched].map(|view| view.id_column().is_some()),
            Self::There { has_texts, .. } => *has_texts,
        }
    }

    /// Adds the next pairs, and answers the row that comes next; `None` where there are no more.
    fn step(&mut self, backend: Option<BackendKind>, pairs: &mut Pairs) -> Result<Option<u32>, Failure> {
        match self {
            Self::Here { engine, queries, searched, search, texts } => loop {
                if let Some(Found { query: row, hits, is_last }) = search.found() {
                    add_pairs(pairs, queries, row, searched, &hits, texts);
                    return Ok(Some(row + u32::from(is_last)));
                }
                let Some(next) = search.search() else { return Ok(None) };
                search.answer(engine.run_blocking(next, Terms { backend, ..Terms::default() })?.answer);
            },
            Self::There { remote, messages, has_texts } => {
                let Some(mut message) = remote.next(messages)? else { return Ok(None) };
                pairs.rows.append(&mut message.rows);
                pairs.memory_ids.append(&mut message.memory_ids);
                pairs.neighbours.append(&mut message.neighbours);
                pairs.neighbour_ids.append(&mut message.neighbour_ids);
                pairs.scores.append(&mut message.scores);
                pairs.text_ids.append(&mut message.text_ids);
                pairs.neighbour_text_ids.append(&mut message.neighbour_text_ids);
                let count = pairs.rows.len();
                let lengths = [pairs.memory_ids.len(), pairs.neighbours.len(), pairs.neighbour_ids.len()];
                let texts = [pairs.text_ids.len(), pairs.neighbour_text_ids.len()];
                let wanted = has_texts.map(|has| if has { count } else { 0 });
                if lengths.iter().chain([&pairs.scores.len()]).any(|len| *len != count) || texts != wanted {
                    return Err(remote.incomplete());
                }
                Ok(Some(message.next_row))
            }
        }
    }
}

impl JoinArgs {
    /// How many are wanted of each row; all that pass where it is left out.
    fn neighbours(&self) -> Option<u32> {
        self.k.or(self.threshold.is_none().then_some(10))
    }
}

impl Sink<'_> {
    fn push(&mut self, pairs: Pairs) -> Result<(), Failure> {
        match self {
            Self::File(file) => Ok(file.push(pairs)?),
            Self::Groups(groups) => {
                for at in 0..pairs.rows.len() {
                    let (row, near) = (pairs.rows[at], pairs.neighbours[at]);
                    groups.know(row, pairs.memory_ids[at], pairs.text_ids.get(at));
                    groups.know(near, pairs.neighbour_ids[at], pairs.neighbour_text_ids.get(at));
                    groups.connect(row, near);
                }
                Ok(())
            }
            Self::Output(output) => tell_pairs(&pairs, output),
        }
    }
}

fn tell_pairs(pairs: &Pairs, output: &mut Output) -> Result<(), Failure> {
    (0..pairs.rows.len()).try_for_each(|at| {
        let neighbour = RowId::of(pairs.neighbour_ids[at], pairs.neighbour_text_ids.get(at).map(String::as_str));
        let pair = PairRecord {
            row: pairs.rows[at],
            id: RowId::of(pairs.memory_ids[at], pairs.text_ids.get(at).map(String::as_str)),
            neighbour: pairs.neighbours[at],
            neighbour_id: match neighbour {
                RowId::Text(text) => NeighbourId::Text(text),
                RowId::Number(number) => NeighbourId::Number(number),
            },
            score: pairs.scores[at],
        };
        output.answer(&pair, || format!("{}  {neighbour}  {:.6}", pair.id, pair.score))
    })
}

fn tell_groups(mut groups: Groups, output: &mut Output) -> Result<(), Failure> {
    groups.list().into_iter().try_for_each(|rows| {
        let ids = if groups.text_ids.is_empty() {
            GroupIds::Numbers(rows.iter().map(|row| groups.memory_ids[*row as usize]).collect())
        } else {
            GroupIds::Texts(rows.iter().filter_map(|row| groups.text_ids.remove(row)).collect())
        };
        let text = match &ids {
            GroupIds::Numbers(ids) => ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
            GroupIds::Texts(ids) => ids.join(" "),
        };
        output.answer(&GroupRecord { rows, ids }, || text)
    })
}

/// Rows that are connected, by union and find.
#[derive(Default)]
struct Groups {
    /// Of each row one that stands for it, at last the smallest of its group.
    parents: Vec<u32>,
    /// The ids of the rows that were told of; 0 for others.
    memory_ids: Vec<u64>,
    /// The same where they are texts.
    text_ids: HashMap<u32, String>,
}

impl Groups {
    /// Takes a row that is not connected yet, unless it is known.
    fn know(&mut self, row: u32, memory_id: u64, text_id: Option<&String>) {
        let known = self.parents.len() as u32;
        self.parents.extend(known..=row);
        self.memory_ids.resize(self.parents.len(), 0);
        self.memory_ids[row as usize] = memory_id;
        if let Some(text) = text_id {
            self.text_ids.entry(row).or_insert_with(|| text.clone());
        }
    }

    fn find(&mut self, mut row: u32) -> u32 {
        while self.parents[row as usize] != row {
            let parent = self.parents[row as usize];
            self.parents[row as usize] = self.parents[parent as usize];
            row = parent;
        }
        row
    }

    fn connect(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }

    /// Groups of two rows or more, by their first row, rows rising.
    fn list(&mut self) -> Vec<Vec<u32>> {
        let mut members: Vec<(u32, u32)> = (0..self.parents.len() as u32).map(|row| (self.find(row), row)).collect();
        members.sort_unstable();
        let groups = members.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
        groups.map(|group| group.iter().map(|(_, row)| *row).collect()).collect()
    }
}
