//! `megaring explain`: which backend would do a job of a size, what each would take, and why.

use std::sync::Arc;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser};
use megaring_core::corpus::CorpusView;
use megaring_core::job::{MAX_DIM, Shape};
use megaring_core::{BackendKind, Error, Opcode};
use megaring_corpus::Access;
use serde_json::{Value, json};

use super::failure::message;
use super::table::{Align, Table, duration_text};
use super::{Failure, Output, backend, private_engine};
use crate::calibration::Keeper;
use crate::config::Settings;
use crate::engine::Engine;
use crate::router::{Basis, Forecast, Prospect, Question, Times};

/// Operations by the names of their commands.
const OPERATIONS: [(&str, Opcode); 4] =
    [("search", Opcode::Search), ("score", Opcode::Score), ("nearest", Opcode::Nearest), ("encode", Opcode::Encode)];
/// Elements of a point.
const POINT: usize = 5;

/// `megaring explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// What the job does
    #[arg(long, env = "MEGARING_EXPLAIN_OP", value_name = "OPERATION", default_value = "search", value_parser = operation())]
    op: Opcode,
    /// Rows of the corpus, or points
    #[arg(long, env = "MEGARING_EXPLAIN_ROWS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rows: Option<u32>,
    /// Elements of a row
    #[arg(long, env = "MEGARING_EXPLAIN_DIM", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_DIM as i64))]
    dim: Option<u32>,
    /// A corpus in place of --rows and --dim
    #[arg(long, env = "MEGARING_EXPLAIN_CORPUS", value_name = "NAME")]
    corpus: Option<String>,
    /// Queries, or memories to encode
    #[arg(long, env = "MEGARING_EXPLAIN_QUERIES", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    queries: u64,
    /// Answers of each query
    #[arg(long, env = "MEGARING_EXPLAIN_K", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Bytes of all texts together, for encoding
    #[arg(long, env = "MEGARING_EXPLAIN_BYTES", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    bytes: Option<u64>,
    /// The backend that must do it
    #[arg(long, env = "MEGARING_EXPLAIN_BACKEND", value_parser = backend())]
    backend: Option<BackendKind>,
    /// The devices do not have the corpus yet
    #[arg(long, env = "MEGARING_EXPLAIN_COLD", value_parser = BoolishValueParser::new())]
    cold: bool,
}

fn operation() -> impl TypedValueParser<Value = Opcode> {
    PossibleValuesParser::new(OPERATIONS.map(|(name, _)| name)).try_map(|name| {
        let found = OPERATIONS.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, opcode)| opcode).ok_or("no such operation")
    })
}

pub(crate) fn run(args: &ExplainArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let (rows, dim) = sizes(args)?;
    let (engine, corpus) = open(args, settings)?;
    let (rows, dim) = match &corpus {
        Some(view) if args.op == Opcode::Nearest => (view.rows(), POINT),
        Some(view) => (view.rows(), view.dim()),
        None => (rows, dim),
    };
    let k = if matches!(args.op, Opcode::Search | Opcode::Nearest) { args.k as usize } else { 0 };
    let items = usize::try_from(args.queries).unwrap_or(usize::MAX);
    let shape = Shape { opcode: args.op, items, rows, dim, k };
    let want = Keeper::new(engine.clone(), Some(settings.calibration_file())).restore().want();
    let forecast = engine.router().answer(&Question { shape, wish: args.backend, corpus, cold: args.cold });
    if output.is_json() {
        return output.record(&record(args, &shape, &forecast, want.as_deref()));
    }
    if let Some(want) = &want {
        message(&format!("costs are assumed: {want} (`megaring calibrate` measures)"));
    }
    output.text(table(&forecast))?;
    let chosen = forecast.chosen.map_or("none", |place| forecast.prospects[place].kind.name());
    output.text(format!("\n{chosen}: {}", forecast.reason))
}

/// Rows and elements by the options; whatever they are where a corpus is named.
fn sizes(args: &ExplainArgs) -> Result<(usize, usize), Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.into()));
    let ExplainArgs { op, rows, dim, corpus, bytes, .. } = args;
    let (rows, dim) = (rows.map(|rows| rows as usize), dim.map(|dim| dim as usize));
    if *op == Opcode::Encode {
        return match bytes {
            _ if rows.is_some() || dim.is_some() => usage("--rows and --dim do not go with --op encode: give --bytes"),
            _ if corpus.is_some() => usage("--corpus does not go with --op encode, which reads texts: give --bytes"),
            Some(bytes) => Ok((usize::try_from(*bytes).unwrap_or(usize::MAX), 1)),
            None => usage("--bytes is missing: how long the texts are all together"),
        };
    }
    match (rows, dim) {
        _ if bytes.is_some() => usage("--bytes goes with --op encode alone"),
        (None, None) if corpus.is_some() => Ok((0, 0)),
        _ if corpus.is_some() => usage("--corpus stands in place of --rows and --dim: give one or the other"),
        (None, _) => usage("--rows is missing: give --rows and --dim, or --corpus NAME"),
        (Some(rows), None | Some(POINT)) if *op == Opcode::Nearest => Ok((rows, POINT)),
        _ if *op == Opcode::Nearest => usage("--dim does not go with --op nearest: points have five dimensions"),
        (Some(_), None) => usage("--dim is missing: give --rows and --dim, or --corpus NAME"),
        (Some(rows), Some(dim)) => Ok((rows, dim)),
    }
}

/// Every backend that the settings allow, and the corpus where one is named.
fn open(args: &ExplainArgs, settings: &Settings) -> Result<(Arc<Engine>, Option<Arc<CorpusView>>), Failure> {
    let Some(name) = &args.corpus else { return Ok((private_engine(settings, &BackendKind::ALL)?, None)) };
    let store = settings.store(Access::ReadOnly)?;
    let view = store.view(name)?;
    if args.op == Opcode::Nearest && !view.has_coordinates() {
        let reason = "has no coordinates; import rows with x, y, z, w and v".to_owned();
        return Err(Error::Precondition { name: name.clone(), reason }.into());
    }
    Ok((settings.engine(store, &BackendKind::ALL)?, Some(view)))
}

fn table(forecast: &Forecast) -> Table {
    let right = |name| (name, Align::Right);
    let left = |name| (name, Align::Left);
    let mut table = Table::new([
        left("BACKEND"),
        right("PREDICTED"),
        right("WAITING"),
        right("UPLOAD"),
        right("TOTAL"),
        left("BASIS"),
        left("REMARK"),
    ]);
    for prospect in &forecast.prospects {
        let name = prospect.kind.name().to_owned();
        let remark = prospect.reserve.clone().unwrap_or_default();
        match &prospect.times {
            Ok(times) => {
                let [alone, wait, upload, total] =
                    [times.alone, times.wait, times.upload, times.total()].map(time_text);
                table.row([name, alone, wait, upload, total, basis(times).to_owned(), remark]);
            }
            Err(reason) => {
                let none = || "-".to_owned();
                table.row([name, none(), none(), none(), none(), none(), reason.clone()]);
            }
        }
    }
    table
}

fn time_text(time: Duration) -> String {
    if time.is_zero() { "-".into() } else { duration_text(time) }
}

fn basis(times: &Times) -> &'static str {
    match times.basis {
        Basis::Measured => "measured",
        Basis::Assumed => "assumed",
    }
}

/// All of it, for programs. Times are nanoseconds.
fn record(args: &ExplainArgs, shape: &Shape, forecast: &Forecast, want: Option<&str>) -> Value {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let prospect = |prospect: &Prospect| {
        let Prospect { kind, device, times, reserve } = prospect;
        let (times, reason) = match times {
            Ok(times) => (Some(times), None),
            Err(reason) => (None, Some(reason)),
        };
        let times = times.map(|times| {
            json!({
                "basis": basis(times), "model_ns": ns(times.model), "alone_ns": ns(times.alone),
                "wait_ns": ns(times.wait), "upload_ns": ns(times.upload), "total_ns": ns(times.total()),
            })
        });
        json!({
            "backend": kind.name(), "device": device, "times": times, "not_asked_reason": reason, "reserve": reserve,
        })
    };
    let prospects: Vec<Value> = forecast.prospects.iter().map(prospect).collect();
    let operation = OPERATIONS.iter().find(|(_, opcode)| *opcode == shape.opcode).map(|(name, _)| *name);
    json!({
        "operation": operation, "rows": shape.rows, "dim": shape.dim, "queries": shape.items, "k": shape.k,
        "cold": args.cold, "assumed_because": want, "prospects": prospects,
        "chosen": forecast.chosen.map(|place| forecast.prospects[place].kind.name()), "reason": forecast.reason,
    })
}
