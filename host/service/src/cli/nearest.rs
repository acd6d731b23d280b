//! `megaring nearest`: the nearest points in 5-D, among a corpus's coordinates or the points of a file, in this process
//! or by a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use megaring_core::nearest::{
    DEFAULT_WEIGHTS, MAX_COORDINATE, MAX_WEIGHT, Nearest, Neighbour, Points, is_coordinate, is_weight,
};
use megaring_core::{BackendKind, Error};
use megaring_corpus::{Access, TextIds};
use megaring_engine::{Engine, Terms};
use serde::{Deserialize, Serialize};

use megaring_proto::v1 as pb;
use megaring_proto::v1::nearest_request::Among as Sent;

use super::search::{RowId, tell_made};
use super::selection::NearestSelection;
use super::{backend, five, some};
use crate::config::Settings;
use crate::console::{Align, Failure, JsonLines, Output, Table, counted};
use crate::remote::{self, Remote};

/// `megaring nearest`.
#[derive(Debug, clap::Args)]
pub(crate) struct NearestArgs {
    /// Corpus that has coordinates
    corpus: Option<String>,
    /// Points instead of a corpus: JSON lines of [x,y,z,w,v] or of objects with x, y, z, w and v, as `encode --json`
    /// writes them; `-` is standard input
    #[arg(long, env = "MEGARING_NEAREST_POINTS", value_name = "FILE")]
    points: Option<PathBuf>,
    /// Query point; may be given several times
    #[arg(long, env = "MEGARING_NEAREST_QUERY", value_name = "X,Y,Z,W,V", required = true, allow_hyphen_values = true, value_parser = five)]
    query: Vec<[f64; 5]>,
    /// Points wanted for each query
    #[arg(long, env = "MEGARING_NEAREST_K", value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = some())]
    k: u32,
    /// Weights of the axes, none negative [default: 1,1,0.8,1.5,2]
    #[arg(long, env = "MEGARING_NEAREST_WEIGHTS", value_name = "X,Y,Z,W,V", value_parser = weights)]
    weights: Option<[f64; 5]>,
    /// The backend that must do it [default: cpu]
    #[arg(long, env = "MEGARING_NEAREST_BACKEND", value_parser = backend())]
    backend: Option<BackendKind>,
    /// Show titles (of a corpus)
    #[arg(long, env = "MEGARING_NEAREST_TITLES", value_parser = BoolishValueParser::new())]
    titles: bool,
    #[command(flatten)]
    selection: NearestSelection,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PointLine {
    Array([f64; 5]),
    Object {
        x: f64,
        y: f64,
        z: f64,
        w: f64,
        v: f64,
    },
    /// What `encode --json` says of each batch.
    Made {
        #[serde(rename = "made")]
        _made: serde::de::IgnoredAny,
    },
}

/// One query's answer, for programs.
#[derive(Serialize)]
struct QueryRecord<'a> {
    query: usize,
    neighbours: Vec<NeighbourRecord<'a>>,
}

#[derive(Serialize)]
struct NeighbourRecord<'a> {
    row: u32,
    #[serde(flatten)]
    id: Option<RowId<'a>>,
    distance: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

/// A neighbour with what people know its row by, where it is a corpus's.
struct Labelled<'a> {
    row: u32,
    label: Option<(RowId<'a>, &'a str)>,
    distance: f64,
}

pub(crate) fn run(args: &NearestArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    args.selection.reads_input_once(("--points", args.points.as_ref()))?;
    match settings.remote()? {
        None => here(args, settings, output),
        Some(remote) => there(args, &remote, output),
    }
}

fn there(args: &NearestArgs, remote: &Remote, output: &mut Output) -> Result<(), Failure> {
    let (among, filter) = match among(args)? {
        Among::Corpus(name) => (Sent::Corpus(name.to_owned()), args.selection.message(|| remote.describe(name))?),
        Among::File(path) => {
            let columns = read(path)?;
            let points = (0..columns[0].len()).flat_map(|row| columns.each_ref().map(|column| column[row]));
            (Sent::Points(pb::Points { coordinates: points.collect() }), None)
        }
    };
    let request = pb::NearestRequest {
        queries: Some(pb::Points { coordinates: args.query.iter().flatten().copied().collect() }),
        among: Some(among),
        k: args.k,
        weights: args.weights.map(Vec::from).unwrap_or_default(),
        with_titles: args.titles,
        backend: remote::backend(args.backend),
        filter,
        columns: Vec::new(),
    };
    let answer = remote.nearest(&request)?;
    for (query, found) in answer.results.iter().enumerate() {
        // Points that were sent along have no ids.
        let texts = found.text_ids.iter().map(|text| Some(text.as_str())).chain(std::iter::repeat(None));
        let ids = found.memory_ids.iter().zip(texts).map(|(number, text)| Some(RowId::of(*number, text)));
        let ids = ids.chain(std::iter::repeat(None));
        let titles = found.titles.iter().map(String::as_str).chain(std::iter::repeat(""));
        let neighbours = found.rows.iter().zip(&found.distances).zip(ids.zip(titles));
        let labelled = neighbours.map(|((row, distance), (id, title))| {
            let label = id.map(|id| (id, title));
            Labelled { row: *row, label, distance: *distance }
        });
        tell(query, &labelled.collect::<Vec<_>>(), args.titles, output)?;
    }
    tell_made(answer.results.len(), &remote.made(answer.made)?, output)
}

fn here(args: &NearestArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let (engine, points) = open(args, settings)?;
    let job = Nearest {
        points: points.clone(),
        queries: args.query.clone(),
        weights: args.weights.unwrap_or(DEFAULT_WEIGHTS),
        k: args.k as usize,
    };
    let terms = Terms { backend: args.backend, ..Terms::default() };
    let outcome = engine.run_blocking(job, terms)?;
    let all = &outcome.answer;
    let ids = match &points {
        Points::Corpus(view) => TextIds::of(view)?,
        Points::Sent(_) => TextIds::default(),
    };
    for (query, neighbours) in all.iter().enumerate() {
        let labelled = neighbours.iter().map(|Neighbour { row, distance, .. }| {
            let label = match &points {
                Points::Corpus(view) => {
                    let (number, title) = view.label(*row);
                    Some((RowId::of(number, ids.get(*row)), title))
                }
                Points::Sent(_) => None,
            };
            Labelled { row: *row, label, distance: *distance }
        });
        tell(query, &labelled.collect::<Vec<_>>(), args.titles, output)?;
    }
    tell_made(all.len(), &outcome.made, output)
}

/// Where is looked.
enum Among<'a> {
    Corpus(&'a str),
    File(&'a Path),
}

fn among(args: &NearestArgs) -> Result<Among<'_>, Failure> {
    match (&args.corpus, &args.points) {
        (Some(_), Some(_)) => Err(Failure::Usage("CORPUS and --points exclude each other".into())),
        (None, None) => Err(Failure::Usage("points are missing: name a corpus, or give --points FILE".into())),
        (Some(name), None) => Ok(Among::Corpus(name)),
        (None, Some(path)) => Ok(Among::File(path)),
    }
}

fn open(args: &NearestArgs, settings: &Settings) -> Result<(Arc<Engine>, Points), Failure> {
    match among(args)? {
        Among::Corpus(name) => {
            let store = settings.store(Access::ReadOnly)?;
            let view = store.view(name)?;
            view.require_coordinates()?;
            let view = args.selection.select(&store, &view)?;
            Ok((settings.engine(store, args.backend.as_slice())?, Points::Corpus(view)))
        }
        Among::File(path) => {
            Ok((settings.private_engine(args.backend.as_slice())?, Points::Sent(Arc::new(read(path)?))))
        }
    }
}

fn read(path: &Path) -> Result<[Vec<f64>; 5], Error> {
    let mut columns: [Vec<f64>; 5] = Default::default();
    for line in JsonLines::<PointLine>::open(path)? {
        let point = match line? {
            PointLine::Array(point) => point,
            PointLine::Object { x, y, z, w, v } => [x, y, z, w, v],
            PointLine::Made { .. } => continue,
        };
        if let Some(value) = point.into_iter().find(|value| !is_coordinate(*value)) {
            let row = columns[0].len() as u64;
            return Err(Error::row("points", row, format!("{value} is not within ±{MAX_COORDINATE:e}")));
        }
        columns.iter_mut().zip(point).for_each(|(column, value)| column.push(value));
    }
    Ok(columns)
}

fn tell(query: usize, neighbours: &[Labelled<'_>], titles: bool, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        let neighbours = neighbours.iter().map(|Labelled { row, label, distance }| {
            let title = label.map(|(_, title)| title).filter(|_| titles);
            let id = label.map(|(id, _)| id);
            NeighbourRecord { row: *row, id, distance: *distance, title }
        });
        return output.record(&QueryRecord { query, neighbours: neighbours.collect() });
    }
    let numbers = ["RANK", "ROW", "DISTANCE"].map(|name| (name, Align::Right));
    let text = |neighbour: &Labelled<'_>| match neighbour.label {
        Some((RowId::Text(id), _)) => Some(id.to_owned()),
        _ => None,
    };
    let id = neighbours.iter().find_map(text).map(|_| ("ID", Align::Left));
    let title = (if titles { "TITLE" } else { "" }, Align::Left);
    let mut table = Table::new(numbers.into_iter().chain(id).chain([title]));
    for (rank, neighbour) in neighbours.iter().enumerate() {
        let title = neighbour.label.filter(|_| titles).map(|(_, title)| title.to_owned()).unwrap_or_default();
        let distance = format!("{:.6}", neighbour.distance);
        let numbers = [(rank + 1).to_string(), neighbour.row.to_string(), distance];
        table.row(numbers.into_iter().chain(text(neighbour)).chain([title]));
    }
    let heading = format!("query {query}: {}", counted(neighbours.len() as u64, "point", "points"));
    output.text(if query == 0 { heading } else { format!("\n{heading}") })?;
    output.text(table)
}

fn weights(text: &str) -> Result<[f64; 5], String> {
    let weights = five(text)?;
    let legal = weights.iter().all(|weight| is_weight(*weight));
    if legal { Ok(weights) } else { Err(format!("no weight may be negative or above {MAX_WEIGHT:e}")) }
}
