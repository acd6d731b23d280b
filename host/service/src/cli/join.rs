//! `megaring join`: for every row of a corpus its best rows of another, or of itself; or all pairs better than a score,
//! and the groups that they make.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use megaring_core::corpus::CorpusView;
use megaring_core::{BackendKind, Metric};
use megaring_corpus::import::Format;
use megaring_corpus::{Access, PairFile, Pairs};
use megaring_engine::Terms;
use megaring_engine::long_search::{Asked, Found, LongSearch, Of, add_pairs};
use serde::Serialize;
use serde_json::json;

use super::{backend, finite, metric};
use crate::config::Settings;
use crate::console::{Failure, Output, Progress, counted, grouped};

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
    /// Pairs score at least this (cosine, dot) or at most this (l2); without --k, a pair of one corpus is told once
    #[arg(long, env = "MEGARING_JOIN_THRESHOLD", value_name = "SCORE", allow_hyphen_values = true, value_parser = finite)]
    threshold: Option<f64>,
    /// How two rows compare
    #[arg(long, env = "MEGARING_JOIN_METRIC", default_value_t = Metric::Cosine, value_parser = metric())]
    metric: Metric,
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
struct PairRecord {
    row: u32,
    memory_id: u64,
    neighbour: u32,
    neighbour_id: u64,
    score: f32,
}

/// A group, for programs.
#[derive(Serialize)]
struct GroupRecord {
    rows: Vec<u32>,
    memory_ids: Vec<u64>,
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
    let store = settings.store(Access::ReadOnly)?;
    let queries = store.view(&args.corpus)?;
    let searched = other.map_or_else(|| Ok(queries.clone()), |other| store.view(other))?;
    let mut sink = match &args.out {
        Some(path) => Sink::File(PairFile::create(path, Format::of_name(path)?)?),
        None if args.groups => Sink::Groups(Groups::new(queries.rows())),
        None => Sink::Output(output),
    };
    let engine = settings.engine(store, args.backend.as_slice())?;
    let k = args.k.or(args.threshold.is_none().then_some(10)).map(|k| k as usize);
    let of = Of::Rows { corpus: queries.clone(), rows: 0..queries.rows() as u32 };
    let asked = Asked { searched: searched.clone(), of, metric: args.metric, k, threshold: args.threshold };
    let mut join = LongSearch::new(asked, &engine)?;
    let mut progress = Progress::start(format!("join {}", args.corpus), queries.rows() as u64);
    let (mut rows, mut count, mut pairs) = (0, 0, Pairs::default());
    loop {
        while let Some(Found { query: row, hits, is_last }) = join.found() {
            rows += u64::from(is_last);
            count += hits.len() as u64;
            add_pairs(&mut pairs, &queries, row, &searched, &hits);
            if pairs.rows.len() >= BATCH {
                sink.push(std::mem::take(&mut pairs))?;
            }
        }
        if args.out.is_none() {
            sink.push(std::mem::take(&mut pairs))?;
        }
        progress.at(rows, &counted(count, "pair", "pairs"));
        let Some(search) = join.search() else { break };
        join.answer(engine.run_blocking(search, Terms { backend: args.backend, ..Terms::default() })?.answer);
    }
    sink.push(pairs)?;
    progress.finish(&counted(count, "pair", "pairs"));
    match sink {
        Sink::File(file) => {
            file.finish()?;
            let path = args.out.as_ref().map(|path| path.display().to_string());
            let text = || format!("{}: {} pairs in {}", args.corpus, grouped(count), path.clone().unwrap_or_default());
            output.answer(&json!({ "pairs": count, "file": path }), text)
        }
        Sink::Groups(groups) => tell_groups(groups, &queries, output),
        Sink::Output(_) => Ok(()),
    }
}

impl Sink<'_> {
    fn push(&mut self, pairs: Pairs) -> Result<(), Failure> {
        match self {
            Self::File(file) => Ok(file.push(pairs)?),
            Self::Groups(groups) => {
                pairs.rows.iter().zip(&pairs.neighbours).for_each(|(row, near)| groups.connect(*row, *near));
                Ok(())
            }
            Self::Output(output) => tell_pairs(&pairs, output),
        }
    }
}

fn tell_pairs(pairs: &Pairs, output: &mut Output) -> Result<(), Failure> {
    (0..pairs.rows.len()).try_for_each(|at| {
        let pair = PairRecord {
            row: pairs.rows[at],
            memory_id: pairs.memory_ids[at],
            neighbour: pairs.neighbours[at],
            neighbour_id: pairs.neighbour_ids[at],
            score: pairs.scores[at],
        };
        output.answer(&pair, || format!("{}\t{}\t{:.6}", pair.row, pair.neighbour, pair.score))
    })
}

fn tell_groups(mut groups: Groups, view: &CorpusView, output: &mut Output) -> Result<(), Failure> {
    groups.list().into_iter().try_for_each(|rows| {
        let text = rows.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let memory_ids = rows.iter().map(|row| view.label(*row).0).collect();
        output.answer(&GroupRecord { rows, memory_ids }, || text)
    })
}

/// Rows that are connected, by union and find.
struct Groups {
    /// Of each row one that stands for it, at last the smallest of its group.
    parents: Vec<u32>,
}

impl Groups {
    fn new(rows: usize) -> Self {
        Self { parents: (0..rows as u32).collect() }
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
