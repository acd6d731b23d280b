//! `cargo xtask bench gates`: measures the operations that everything else rests on, and fails where one of them takes
//! longer than its gate.
//!
//! All rows are measured in alternation, so a machine that slows down does so for all of them. What is judged is the
//! median. To be over the budget is remarked upon and no failure; to be over the gate is one, and so is a row that
//! could not be measured. Both are judged on a noisy machine, too, which is then told of.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use megaring_bench::Failure;
use megaring_engine::measure::disturbance::Watch;
use megaring_engine::measure::sampler::{Plan, alternate, clock};
use megaring_harness::record::Times;
use serde::Serialize;

use self::limits::{Limit, Verdict, judge};
use self::rows::Stage;

mod entrance;
mod limits;
mod rows;
mod wire;

#[derive(Parser)]
#[command(about = "Measures what everything else rests on, and fails beyond the gates", long_about = None)]
struct Arguments {
    /// Also write the figures to this file, as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a run found.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    processor: String,
    threads: usize,
    /// Why all figures are to be doubted; none where the machine was quiet.
    doubts: Vec<String>,
    rows: Vec<Judged>,
}

/// A row with what came of it.
#[derive(Serialize)]
struct Judged {
    row: &'static str,
    #[serde(flatten)]
    limit: Option<Limit>,
    verdict: Verdict,
    times: Option<Times>,
    /// Why it could not be measured.
    error: Option<String>,
}

fn main() -> ExitCode {
    run(&Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("megaring-gates: {error}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(path) = &arguments.json {
        // Before anything is measured, so that nothing is measured in vain. What is there stays until there is
        // something better.
        File::options().append(true).create(true).open(path).map_err(|error| unwritable(path, &error))?;
    }
    let report = measure(&Stage::set()?);
    print!("{}", table(&report));
    for row in &report.rows {
        remarks(row);
    }
    for doubt in &report.doubts {
        println!("The machine was not quiet: {doubt}.");
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).map_err(|error| unwritable(path, &error))?;
    }
    Ok(limits::exit(report.rows.iter().map(|row| row.verdict)))
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}

fn measure(stage: &Stage) -> Report {
    let plan = Plan { least: 10, limit: Duration::from_secs(2), ..Plan::default() };
    let (told, subjects): (Vec<_>, Vec<_>) =
        stage.rows().into_iter().map(|row| ((row.name, row.limit), row.subject)).unzip();
    let mut watch = Watch::start();
    let shown = io::stderr().is_terminal();
    let measured = alternate(&plan, subjects, &clock(), &mut |share| {
        if shown {
            eprint!("\rmeasuring: {:3.0} %", 100.0 * share);
        }
    });
    if shown {
        eprintln!();
    }
    let rows = told.into_iter().zip(measured).map(|((row, limit), measured)| {
        // A row that failed midway has no figure to be judged by.
        let times = measured.times.filter(|_| measured.error.is_none());
        let verdict = judge(limit, times.as_ref().map(|times| times.p50_ns));
        Judged { row, limit, verdict, times, error: measured.error.map(|error| error.to_string()) }
    });
    Report {
        version: env!("CARGO_PKG_VERSION"),
        processor: megaring_engine::machine::processor_name(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        rows: rows.collect(),
        doubts: watch.doubts(),
    }
}

fn table(report: &Report) -> String {
    let line = |row: &str, cells: [String; 6]| {
        let [median, interval, p99, budget, gate, verdict] = cells;
        let line = format!("{row:<50} {median:>9} {interval:>19} {p99:>9} {budget:>9} {gate:>9}  {verdict}");
        format!("{}\n", line.trim_end())
    };
    let heads = ["median", "95 % interval", "p99", "budget", "gate", ""].map(str::to_owned);
    let mut table = line("", heads);
    for judged in &report.rows {
        let limit = |of: fn(&Limit) -> f64| judged.limit.as_ref().map_or_else(String::new, |limit| time(of(limit)));
        let times = |of: &dyn Fn(&Times) -> String| judged.times.as_ref().map_or_else(|| "-".to_owned(), of);
        let cells = [
            times(&|times| time(times.p50_ns)),
            times(&|times| format!("{} .. {}", time(times.ci_ns[0]), time(times.ci_ns[1]))),
            times(&|times| time(times.p99_ns)),
            limit(|limit| limit.budget_ns),
            limit(|limit| limit.gate_ns),
            judged.verdict.words().to_owned(),
        ];
        table += &line(judged.row, cells);
    }
    table
}

/// A time with three digits.
fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns => (ns / 1e6, "ms"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

fn remarks(judged: &Judged) {
    let row = judged.row.trim();
    if let Some(error) = &judged.error {
        println!("{row}: {error}.");
    }
    let (Some(limit), Some(times)) = (&judged.limit, &judged.times) else { return };
    match judged.verdict {
        Verdict::OverBudget => {
            println!("{row}: {} is over its budget of {}.", time(times.p50_ns), time(limit.budget_ns));
        }
        Verdict::OverGate => {
            println!("{row}: {} is over its gate of {}: the run has failed.", time(times.p50_ns), time(limit.gate_ns));
        }
        Verdict::Unlimited | Verdict::WithinBudget => {}
    }
    for doubt in &times.doubts {
        println!("{row}: {doubt}.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (ns, expected) in [
            (1.456, "1.46 ns"),
            (31.44, "31.4 ns"),
            (300.0, "300 ns"),
            (3_400.0, "3.40 µs"),
            (20_000.0, "20.0 µs"),
            (999_400.0, "999 µs"),
            (1_000_000.0, "1.00 ms"),
        ] {
            assert_eq!(time(ns), expected);
        }
    }
}
