//! `megaring explain`: which backend would do a job of a size, what each would take, and why.

use std::sync::Arc;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser};
use megaring_core::corpus::CorpusView;
use megaring_core::matrix::MAX_DIM;
use megaring_core::operation::{Description, Shape};
use megaring_core::{BackendKind, Element, Error, Opcode, Violation};
use megaring_corpus::Access;
use megaring_engine::Engine;
use megaring_engine::calibration::Keeper;
use megaring_engine::router::{Basis, Forecast, Prospect, Question, Times};
use megaring_proto::v1 as pb;
use serde_json::{Value, json};

use super::{backend, some, whole};
use crate::config::Settings;
use crate::console::{Align, Failure, Output, Table, duration_text, message};
use crate::remote::{self, Remote};

/// `megaring explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// What the job does
    #[arg(long, env = "MEGARING_EXPLAIN_OP", value_name = "OPERATION", default_value = "search", value_parser = operation())]
    op: Opcode,
    /// Rows of the corpus, or points
    #[arg(long, env = "MEGARING_EXPLAIN_ROWS", value_name = "N", allow_negative_numbers = true, value_parser = some())]
    rows: Option<u32>,
    /// Elements of a row
    #[arg(long, env = "MEGARING_EXPLAIN_DIM", value_name = "N", allow_negative_numbers = true, value_parser = whole::<u32>(1..=MAX_DIM as u64))]
    dim: Option<u32>,
    /// A corpus in place of --rows and --dim
    #[arg(long, env = "MEGARING_EXPLAIN_CORPUS", value_name = "NAME", conflicts_with_all = ["rows", "dim", "bytes"])]
    corpus: Option<String>,
    /// Queries, or texts
    #[arg(long, env = "MEGARING_EXPLAIN_QUERIES", value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = whole::<u64>(1..=u64::MAX))]
    queries: u64,
    /// Answers of each query
    #[arg(long, env = "MEGARING_EXPLAIN_K", value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = some())]
    k: u32,
    /// Bytes of all texts together, for operations on texts
    #[arg(long, env = "MEGARING_EXPLAIN_BYTES", value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64>(1..=u64::MAX))]
    bytes: Option<u64>,
    /// The backend that must do it
    #[arg(long, env = "MEGARING_EXPLAIN_BACKEND", value_parser = backend())]
    backend: Option<BackendKind>,
    /// The devices do not have the corpus yet
    #[arg(long, env = "MEGARING_EXPLAIN_COLD", value_parser = BoolishValueParser::new())]
    cold: bool,
}

/// Operations whose size can be asked about.
fn operations() -> impl Iterator<Item = Opcode> {
    Opcode::ALL.into_iter().filter(|opcode| *opcode != Opcode::Nop)
}

fn operation() -> impl TypedValueParser<Value = Opcode> {
    PossibleValuesParser::new(operations().map(Opcode::name)).try_map(|name| name.parse::<Opcode>())
}

pub(crate) fn run(args: &ExplainArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    if let Some(remote) = settings.remote()? {
        return run_there(args, &remote, output);
    }
    let ExplainArgs { op, backend: wish, cold, .. } = *args;
    // Before a backend is started for nothing.
    let sizes = if args.corpus.is_none() { Some(describe(args, None)?) } else { None };
    let (engine, corpus) = open(args, settings)?;
    let description = match sizes {
        Some(description) => description,
        None => describe(args, corpus.clone())?,
    };
    let want = Keeper::new(engine.clone(), Some(settings.calibration_file())).restore().want();
    // Of bits, jobs are told of in words.
    let bits = corpus.as_ref().map(|view| view.row_type()).filter(|rows| rows.element == Element::Bit);
    let told = Description { dim: bits.map_or(description.dim, |rows| rows.dim as u64), ..description };
    let forecast = engine.router().explain(&Question { opcode: op, description, corpus, wish, cold });
    tell(args, &told, &forecast, want.as_deref(), output)
}

/// What a server says.
fn run_there(args: &ExplainArgs, remote: &Remote, output: &mut Output) -> Result<(), Failure> {
    if args.cold && args.corpus.is_some() {
        let wants = "leave out --cold: of a server's corpus, what its devices lack now counts";
        return Err(Failure::Usage(wants.into()));
    }
    // What is asked about is said in the record, too. Wrong numbers are refused before a server is asked.
    let sizes = if args.corpus.is_none() { Some(describe(args, None)?) } else { None };
    let name = format!("OPERATION_{}", args.op.name().to_ascii_uppercase());
    let forecast = remote.explain(pb::ExplainRequest {
        operation: pb::Operation::from_str_name(&name).unwrap_or_default().into(),
        rows: args.rows.map_or(0, u64::from),
        dim: args.dim.unwrap_or(0),
        corpus: args.corpus.clone().unwrap_or_default(),
        items: args.queries,
        k: args.k,
        text_bytes: args.bytes.unwrap_or(0),
        cold: args.cold,
        backend: remote::backend(args.backend),
    })?;
    let description = match sizes {
        Some(description) => description,
        None => {
            let corpus = remote.describe(args.corpus.as_deref().unwrap_or_default())?;
            // Points have a dimension of their own.
            let dim = if args.op == Opcode::Nearest { 0 } else { corpus.row_type.dim as u64 };
            let (rows, k, items) = ((corpus.rows + corpus.deleted_rows) as u64, u64::from(args.k), args.queries);
            // Of no rows nothing could be described.
            let shape = Shape { items, rows: rows.max(1), dim, k, text_bytes: 0, corpus: None };
            Description { rows, ..args.op.describe(&shape)? }
        }
    };
    let is_assumed =
        |prospect: &Prospect| prospect.times.as_ref().is_ok_and(|times| matches!(times.basis, Basis::Assumed));
    let want = forecast.prospects.iter().any(is_assumed).then_some("the server has not measured all of its backends");
    tell(args, &description, &forecast, want, output)
}

fn tell(
    args: &ExplainArgs,
    description: &Description,
    forecast: &Forecast,
    want: Option<&str>,
    output: &mut Output,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.record(&record(args, description, forecast, want));
    }
    if let Some(want) = want {
        message(&format!("costs are assumed: {want} (`megaring calibrate` measures)"));
    }
    output.text(table(forecast))?;
    let chosen = forecast.chosen.map_or("none", |place| forecast.prospects[place].kind.name());
    output.text(format!("\n{chosen}: {}", forecast.reason))
}

/// The operation's own rules for its numbers, with the options' names for them.
fn describe(args: &ExplainArgs, corpus: Option<Arc<CorpusView>>) -> Result<Description, Failure> {
    let ExplainArgs { op, rows, dim, queries, k, bytes, .. } = args;
    let shape = Shape {
        items: *queries,
        rows: rows.map_or(0, u64::from),
        dim: dim.map_or(0, u64::from),
        k: u64::from(*k),
        text_bytes: bytes.unwrap_or(0),
        corpus,
    };
    op.describe(&shape).map_err(|error| match error {
        Error::Invalid(Violation { field, description, .. }) => {
            let option = match &*field {
                "items" => "queries",
                "text_bytes" => "bytes",
                other => other,
            };
            Failure::Usage(format!("--{option}: {description}"))
        }
        other => other.into(),
    })
}

/// Every backend that the settings allow, and the corpus where one is named.
fn open(args: &ExplainArgs, settings: &Settings) -> Result<(Arc<Engine>, Option<Arc<CorpusView>>), Failure> {
    let Some(name) = &args.corpus else { return Ok((settings.private_engine(&BackendKind::ALL)?, None)) };
    let store = settings.store(Access::ReadOnly)?;
    let view = store.view(name)?;
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
fn record(args: &ExplainArgs, of: &Description, forecast: &Forecast, want: Option<&str>) -> Value {
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
    json!({
        "operation": args.op.name(), "rows": of.rows, "dim": of.dim, "queries": args.queries, "k": of.k,
        "text_bytes": args.bytes,
        "cold": args.cold, "assumed_because": want, "prospects": prospects,
        "chosen": forecast.chosen.map(|place| forecast.prospects[place].kind.name()), "reason": forecast.reason,
    })
}
