//! `megaring bench`: arguments of [`crate::bench`].

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;

use crate::bench::{self, Options, Suite};
use crate::config::{Settings, duration};
use crate::console::{Failure, Output};

/// Time that a run may take.
const USUAL: Duration = Duration::from_secs(300);
/// The same of a quick one.
const QUICK: Duration = Duration::from_secs(60);

/// `megaring bench`.
///
/// The program's `--json` asks for JSON lines; a file behind it is a place of its own here, and takes the record
/// instead.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "megaring bench <SUITE> [--json [FILE]] [--html FILE] [--svg FILE] [--quick] [--time-limit TIME]"
)]
#[command(
    after_help = "Backends run where the settings allow them; one that is a program on the processor must be named: \
    `--wgpu-adapter llvmpipe`. A machine that does other work meanwhile gives doubtful figures, and they are marked so. What the \
    processor can do at most is measured and shown beside its figures; what a GPU can is not, so its share of that is not told."
)]
pub(crate) struct BenchArgs {
    /// What to measure
    suite: Suite,
    /// Behind --json: write everything as one JSON object to this file, and tables to stdout
    #[arg(value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write a report with pictures to this file
    #[arg(long, env = "MEGARING_BENCH_HTML", value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write one picture to this file, as SVG: how long a batch of searches takes, of every backend
    #[arg(long, env = "MEGARING_BENCH_SVG", value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Fewer sizes
    #[arg(long, env = "MEGARING_BENCH_QUICK", value_parser = BoolishValueParser::new())]
    quick: bool,
    /// About how long it may take; what there is no time for is left out, and said to be [default: 5m, with --quick 1m]
    #[arg(long, env = "MEGARING_BENCH_TIME_LIMIT", value_name = "TIME", value_parser = some_time)]
    time_limit: Option<Duration>,
}

pub(crate) fn run(args: &BenchArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let BenchArgs { suite, quick, .. } = *args;
    let (json, html, svg) = (args.record.clone(), args.html.clone(), args.svg.clone());
    if let Some(path) = json.as_ref().filter(|_| !output.is_json()) {
        let path = path.display();
        return Err(Failure::Usage(format!(
            "{path:?} is one word too many: a file is named behind --json, --html or --svg"
        )));
    }
    let time_limit = args.time_limit.unwrap_or(if quick { QUICK } else { USUAL });
    let to_file = json.is_some();
    let options = Options { suite, quick, time_limit, json, html, svg };
    // What programs read is in the file then, and stdout is for people.
    let mut text = Output::new(false);
    bench::run(&options, settings, if to_file { &mut text } else { output })?;
    text.flush()
}

fn some_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("no time is none to measure in".into()) } else { Ok(time) }
}
