//! `megaring nearest`: the nearest points in 5-D, among a corpus's coordinates or the points of a file, in this
//! process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use megaring_core::nearest::{
    DEFAULT_WEIGHTS, MAX_COORDINATE, MAX_WEIGHT, Nearest, Neighbour, Points, is_coordinate, is_weight,
};
use megaring_core::{BackendKind, Error};
use megaring_corpus::Access;
use megaring_engine::{Engine, Terms};
use serde::{Deserialize, Serialize};

use super::search::tell_made;
use super::selection::NearestSelection;
use super::{backend, five, some};
use crate::config::Settings;
use crate::console::{Align, Failure, JsonLines, Output, Table, counted};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_id: Option<u64>,
    distance: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

pub(crate) fn run(args: &NearestArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
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
    for (query, neighbours) in all.iter().enumerate() {
        tell(query, neighbours, args.titles, &points, output)?;
    }
    tell_made(all.len(), &outcome.made, output)
}

fn open(args: &NearestArgs, settings: &Settings) -> Result<(Arc<Engine>, Points), Failure> {
    match (&args.corpus, &args.points) {
        (Some(_), Some(_)) => Err(Failure::Usage("CORPUS and --points exclude each other".into())),
        (None, None) => Err(Failure::Usage("points are missing: name a corpus, or give --points FILE".into())),
        (Some(name), None) => {
            let store = settings.store(Access::ReadOnly)?;
            let view = store.view(name)?;
            view.require_coordinates()?;
            let view = args.selection.select(&store, &view)?;
            Ok((settings.engine(store, args.backend.as_slice())?, Points::Corpus(view)))
        }
        (None, Some(path)) => {
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

fn tell(
    query: usize,
    neighbours: &[Neighbour],
    titles: bool,
    points: &Points,
    output: &mut Output,
) -> Result<(), Failure> {
    let label = |row: u32| match points {
        Points::Corpus(view) => Some(view.label(row)),
        Points::Sent(_) => None,
    };
    if output.is_json() {
        let neighbours = neighbours.iter().map(|neighbour| {
            let label = label(neighbour.row);
            let title = label.map(|(_, title)| title).filter(|_| titles);
            let memory_id = label.map(|(id, _)| id);
            NeighbourRecord { row: neighbour.row, memory_id, distance: neighbour.distance, title }
        });
        return output.record(&QueryRecord { query, neighbours: neighbours.collect() });
    }
    let headings = [
        ("RANK", Align::Right),
        ("ROW", Align::Right),
        ("DISTANCE", Align::Right),
        (if titles { "TITLE" } else { "" }, Align::Left),
    ];
    let mut table = Table::new(headings);
    for (rank, neighbour) in neighbours.iter().enumerate() {
        let title = label(neighbour.row).filter(|_| titles).map(|(_, title)| title.to_owned()).unwrap_or_default();
        let distance = format!("{:.6}", neighbour.distance);
        table.row([(rank + 1).to_string(), neighbour.row.to_string(), distance, title]);
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
