//! `megaring board`: how a running server is, by its state board, which this process maps or the server tells of.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use megaring_board::{BoardError, BoardView, FIELDS};
use megaring_proto::v1 as pb;
use megaring_server::reply;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::console::{Align, Failure, Output, Table, duration_text};

/// `megaring board`.
#[derive(Debug, clap::Args)]
pub(crate) struct BoardArgs {
    /// The board's file [default: .board in the data folder]
    #[arg(long, env = "MEGARING_BOARD_FILE", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Show it again every second, until the program is ended
    #[arg(long, env = "MEGARING_BOARD_WATCH", value_parser = BoolishValueParser::new())]
    watch: bool,
}

/// Between two looks at a board that is watched.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &BoardArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    if let Some(remote) = settings.remote()? {
        if args.file.is_some() {
            return Err(Failure::Usage("--file is of this machine, and --server asks another; leave one out".into()));
        }
        let interval = args.watch.then_some(INTERVAL);
        return remote.board(interval, &mut |board| tell(&board, output));
    }
    let file = args.file.clone().unwrap_or_else(|| settings.board_file());
    let view = BoardView::open(&file).map_err(|error| match error {
        BoardError::File { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let help = "a server makes it; --data, --board or --file says where, and --server asks over the network";
            Failure::Work(format!("there is no board at {}: {help}", path.display()))
        }
        error => Failure::work(error),
    })?;
    loop {
        tell(&reply::board_of_another(&view), output)?;
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn tell(board: &pb::BoardResponse, output: &mut Output) -> Result<(), Failure> {
    output.answer(&record(board), || text(board))?;
    output.flush()
}

/// The health's numbers, in the order of [`FIELDS`].
fn values(health: &pb::Health) -> [f64; FIELDS.len()] {
    [
        health.utilisation,
        health.jobs_per_second,
        health.p99_seconds,
        health.error_rate,
        health.memory_pressure,
        health.backlog,
        health.budget_pressure,
    ]
}

fn record(board: &pb::BoardResponse) -> Value {
    let health = board.health.as_ref().map(|health| {
        let fields = FIELDS.iter().zip(values(health));
        Value::Object(fields.map(|(field, value)| (field.name.to_owned(), value.into())).collect())
    });
    let breakers = board.breakers.iter().map(|breaker| {
        json!({
            "backend": backend(breaker),
            "operation": breaker.operation,
            "state": state(breaker),
            "failures": breaker.failures,
            "opens_for_seconds": seconds(breaker.opens_for_ns),
        })
    });
    let limiters = board.rate_limiters.iter();
    let limiters =
        limiters.map(|limiter| json!({ "name": limiter.name, "due_in_seconds": seconds(limiter.due_in_ns) }));
    json!({
        "pid": board.pid,
        "started_unix_ns": board.started_unix_ns,
        "alive": board.alive,
        "silent_seconds": board.silent_ns.map(seconds),
        "health": health,
        "breakers": breakers.collect::<Vec<_>>(),
        "rate_limiters": limiters.collect::<Vec<_>>(),
    })
}

fn text(board: &pb::BoardResponse) -> String {
    let pid = board.pid;
    let mut text = match board.silent_ns {
        _ if board.alive => format!("process {pid} is alive\n"),
        Some(silent) => format!("process {pid} has not been heard of for {}\n", duration(silent)),
        None => format!("process {pid} has ended; this is what it left behind\n"),
    };
    if let Some(health) = &board.health {
        let mut table = Table::new([("health", Align::Left), ("", Align::Right)]);
        for (field, value) in FIELDS.iter().zip(values(health)) {
            table.row([field.name.to_owned(), format!("{value:.6}")]);
        }
        text += &format!("\n{table}\n");
    }
    let mut table = Table::new([
        ("backend", Align::Left),
        ("operation", Align::Left),
        ("breaker", Align::Left),
        ("failures", Align::Right),
    ]);
    for breaker in &board.breakers {
        let open = match breaker.opens_for_ns {
            0 => state(breaker).to_owned(),
            left => format!("{}, {} more", state(breaker), duration(left)),
        };
        table.row([backend(breaker).to_owned(), breaker.operation.clone(), open, breaker.failures.to_string()]);
    }
    text += &format!("\n{table}");
    for limiter in board.rate_limiters.iter().filter(|limiter| limiter.due_in_ns > 0) {
        text += &format!("\n{} calls are {} ahead of their rate", limiter.name, duration(limiter.due_in_ns));
    }
    text
}

fn backend(breaker: &pb::Breaker) -> &'static str {
    match breaker.backend() {
        pb::Backend::Cpu => "cpu",
        pb::Backend::Cuda => "cuda",
        pb::Backend::Wgpu => "wgpu",
        pb::Backend::Unspecified => "unknown",
    }
}

fn state(breaker: &pb::Breaker) -> &'static str {
    match breaker.state() {
        pb::BreakerState::Closed => "closed",
        pb::BreakerState::Open => "open",
        pb::BreakerState::HalfOpen => "half open",
        pb::BreakerState::Unspecified => "unknown",
    }
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

fn duration(ns: u64) -> String {
    duration_text(Duration::from_nanos(ns))
}
