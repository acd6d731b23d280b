//! The command line: one file for each command under `cli/`, the settings in [`crate::config`].
//!
//! Answers go to stdout, as text or with `--json` as one JSON object a line; messages and progress go to stderr. The
//! exit status is 0, 1 where the work failed, 2 where the command line, the environment or the configuration file is
//! wrong. A reader that goes away (`megaring … | head`) ends the program quietly.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{BoolishValueParser, PossibleValuesParser, StyledStr, TypedValueParser};
use clap::{Arg, Args as _, CommandFactory, FromArgMatches, Parser, Subcommand};
use megaring_core::{BackendKind, Metric};
use tracing_subscriber::EnvFilter;

use crate::config::{Settings, file};
use crate::console::{Failure, Output};

mod bench;
mod board;
mod calibrate;
mod checksum;
mod corpus;
mod corpus_report;
mod encode;
mod explain;
mod fetch;
mod import;
mod join;
mod ledger;
mod nearest;
mod search;
mod selection;
mod serve;
mod tenant;

pub use import::{Imported, import_file};

/// Exact similarity search, 5-D encoding and checksums, the same answer on every backend
#[derive(Debug, Parser)]
#[command(name = "megaring", version, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Every option has the environment variable named beside it and a key in the configuration file: \
    `ring_slots = 256`, or `k = 20` below `[search]`. The first that is set counts: option, environment, file, default. \
    `megaring help settings` lists what servers and backends go by."
)]
struct Cli {
    /// Configuration file (TOML) [default: megaring.toml, where there is one]
    #[arg(long, global = true, env = "MEGARING_CONFIG", value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
    /// Answer with one JSON object a line
    #[arg(long, global = true, env = "MEGARING_JSON", value_parser = BoolishValueParser::new(), help_heading = "Settings")]
    json: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gRPC API until SIGINT or SIGTERM
    Serve,
    /// Show all of it on real and generated data, and check every answer
    ///
    /// Makes the corpora demo-real and demo-generated in the data folder (anew if they are there), starts a server on a
    /// free port, and compares each answer with a naive reference. Exit status 0 means that all were equal.
    Demo,
    /// Make, fill, look at, check and drop corpora
    #[command(subcommand, arg_required_else_help = true)]
    Corpus(corpus::CorpusCommand),
    /// The best rows of a corpus for each query
    Search(search::SearchArgs),
    /// For every row of a corpus its best rows, or all pairs better than a score
    Join(join::JoinArgs),
    /// Memories (JSON lines) to 5-D coordinates and zones
    Encode(encode::EncodeArgs),
    /// The nearest points in 5-D
    Nearest(nearest::NearestArgs),
    /// CRC-32C and xxHash64 of files
    Checksum(checksum::ChecksumArgs),
    /// Measure what each backend takes, so that every job goes where it is answered soonest
    Calibrate(calibrate::CalibrateArgs),
    /// How a running server is: its load, what it leaves alone because it fails, and its rate limiters
    Board(board::BoardArgs),
    /// What a server has kept of what became of calls, the Merkle root over it, and proofs
    #[command(subcommand, arg_required_else_help = true)]
    Ledger(ledger::LedgerCommand),
    /// Who may call a server
    #[command(subcommand, arg_required_else_help = true)]
    Tenant(tenant::TenantCommand),
    /// Which backend would do a job of a size, and why
    Explain(explain::ExplainArgs),
    /// Measure how fast each backend of this machine is, and from where on which one wins
    Bench(bench::BenchArgs),
    /// What this machine has, what is missing, and how to get it
    Doctor,
    /// All settings: how servers and backends work, where files are, what is logged
    Settings,
    /// Completions for a shell, on stdout
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Its name, where it makes no sense through a server.
    fn is_of_this_machine(&self) -> Option<&'static str> {
        match self {
            Self::Serve => Some("serve"),
            Self::Demo => Some("demo"),
            Self::Calibrate(_) => Some("calibrate"),
            Self::Bench(_) => Some("bench"),
            Self::Doctor => Some("doctor"),
            Self::Ledger(_) => Some("ledger"),
            Self::Tenant(_) => Some("tenant"),
            Self::Corpus(command) => command.is_of_this_machine(),
            Self::Board(_)
            | Self::Explain(_)
            | Self::Search(_)
            | Self::Join(_)
            | Self::Encode(_)
            | Self::Nearest(_)
            | Self::Checksum(_) => None,
            Self::Settings | Self::Completions { .. } => None,
        }
    }
}

/// The program: parses `args` (the first is the program's name), does the work, answers the exit status.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(failure) => return failure.report(),
    };
    start_log(&cli.settings.log);
    let mut output = Output::new(cli.json);
    let data = cli.settings.data.clone();
    let done = run(cli, &mut output).and_then(|()| output.flush()).map_err(|failure| failure.in_folder(&data));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Settings that the help of every command shows.
const SHOWN: [&str; 8] = ["config", "json", "data", "server", "token", "session", "tls_ca", "log"];

/// The whole command with all its options: without any configuration file. Every command knows every setting; the help
/// of most shows a few of them, and that of `serve` and `settings` all.
#[must_use]
pub fn command() -> clap::Command {
    let hidden = |arg: Arg| {
        let is_shown = !arg.is_global_set() || SHOWN.contains(&arg.get_id().as_str());
        arg.hide(!is_shown)
    };
    let with_all = |command: clap::Command| command.after_help(all_settings());
    Cli::command().mut_args(hidden).mut_subcommand("serve", with_all).mut_subcommand("settings", with_all)
}

/// The settings that most commands do not show.
fn all_settings() -> StyledStr {
    let all = Settings::augment_args(clap::Command::new("settings").disable_help_flag(true));
    let others = |arg: Arg| {
        let is_shown = SHOWN.contains(&arg.get_id().as_str());
        arg.hide(is_shown).help_heading("Of servers and backends")
    };
    all.mut_args(others).help_template("{all-args}").render_help()
}

fn parse(args: &[OsString]) -> Result<Cli, Failure> {
    let command = command();
    // The file must be known before the line can be judged: it may hold what the line lacks.
    let asked = match command.clone().ignore_errors(true).try_get_matches_from(args) {
        Ok(matches) => matches.get_one::<PathBuf>("config").cloned(),
        Err(help) => return Err(Failure::CommandLine(Box::new(help))),
    };
    let command = file::load(command, asked).map_err(|error| Failure::Usage(error.to_string()))?;
    let matches = command.try_get_matches_from(args).map_err(|error| Failure::CommandLine(Box::new(error)))?;
    Cli::from_arg_matches(&matches).map_err(|error| Failure::CommandLine(Box::new(error)))
}

fn run(cli: Cli, output: &mut Output) -> Result<(), Failure> {
    let settings = &cli.settings;
    if let (Some(address), Some(name)) = (settings.server(), cli.command.is_of_this_machine()) {
        let reason = format!("`{name}` is done on this machine, and not by the server at {address}");
        let other = match cli.command {
            Command::Doctor => format!("; `megaring explain --server {address}` says what the server's backends are"),
            _ => String::new(),
        };
        return Err(Failure::Usage(format!(
            "{reason}; leave --server (MEGARING_SERVER, `server` in the file) out{other}"
        )));
    }
    match cli.command {
        Command::Serve => serve::run(settings, output),
        Command::Demo => crate::demo::run(settings, output),
        Command::Corpus(command) => corpus::run(command, settings, output),
        Command::Search(args) => search::run(&args, settings, output),
        Command::Join(args) => join::run(&args, settings, output),
        Command::Encode(args) => encode::run(&args, settings, output),
        Command::Nearest(args) => nearest::run(&args, settings, output),
        Command::Checksum(args) => checksum::run(&args, settings, output),
        Command::Calibrate(args) => calibrate::run(&args, settings, output),
        Command::Board(args) => board::run(&args, settings, output),
        Command::Ledger(command) => ledger::run(command, settings, output),
        Command::Tenant(command) => tenant::run(command, settings, output),
        Command::Explain(args) => explain::run(&args, settings, output),
        Command::Bench(args) => bench::run(&args, settings, output),
        Command::Doctor => crate::doctor::run(settings, output),
        Command::Settings => {
            let mut command = command();
            // Settings come to the commands by this.
            command.build();
            let help = command.find_subcommand_mut("settings").map(|settings| settings.render_help().to_string());
            output.verbatim(help.unwrap_or_default().trim_end())
        }
        Command::Completions { shell } => completions(shell, output),
    }
}

fn completions(shell: clap_complete::Shell, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "megaring", &mut script);
    output.verbatim(String::from_utf8_lossy(&script).trim_end())
}

fn start_log(filter: &str) {
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr);
    // A second logger in one process (tests of the library) keeps the first.
    let _ = builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init();
}

/// Parses a backend's name.
fn backend() -> impl TypedValueParser<Value = BackendKind> {
    PossibleValuesParser::new(BackendKind::ALL.map(BackendKind::name)).try_map(|name| name.parse::<BackendKind>())
}

/// What `--metric` says.
const METRIC_HELP: &str = "How rows compare [default: cosine; of bits: hamming]";

/// Parses a metric's name.
fn metric() -> impl TypedValueParser<Value = Metric> {
    PossibleValuesParser::new(Metric::ALL.map(Metric::name)).try_map(|name| name.parse::<Metric>())
}

/// Parses a whole number of a range.
fn whole<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("a whole number from {} to {} is needed", range.start(), range.end()))
    }
}

/// Parses a number of things, of which there must be one.
fn some() -> impl Fn(&str) -> Result<u32, String> + Clone {
    whole(1..=u64::from(u32::MAX))
}

fn finite(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim().parse().map_err(|_| format!("{text:?} is not a number"))?;
    if number.is_finite() { Ok(number) } else { Err(format!("{text:?} is not a finite number")) }
}

/// Five finite numbers.
fn five(text: &str) -> Result<[f64; 5], String> {
    let numbers: Vec<f64> = text.split(',').map(finite).collect::<Result<_, _>>()?;
    let count = numbers.len();
    numbers.try_into().map_err(|_| format!("five numbers are needed (x,y,z,w,v), {count} were given"))
}
