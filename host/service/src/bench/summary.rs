//! What a run measured, as tables for people or lines for programs.

use std::time::Duration;

use megaring_engine::measure::stats;
use megaring_harness::record::{Axis, Crossover, Point, Record, Residence, Sizes};
use serde_json::json;

use crate::console::{Align, Failure, Output, Table, duration_text, grouped};

/// Prints all of it.
pub(super) fn print(record: &Record, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        record.points.iter().try_for_each(|point| output.record(point))?;
        let Record { schema, machine, backends, peaks, crossovers, notes, .. } = record;
        let rest = json!({
            "schema": schema, "machine": machine, "backends": backends, "peaks": peaks, "crossovers": crossovers, "notes": notes,
        });
        return output.record(&rest);
    }
    let mut suites: Vec<&str> = record.points.iter().map(|point| &*point.suite).collect();
    suites.dedup();
    for suite in suites {
        output.text(format!("{suite}\n{}\n", points(record.points.iter().filter(|point| point.suite == suite))))?;
    }
    if !record.crossovers.is_empty() {
        output.text(format!("{}\n", crossovers(&record.crossovers)))?;
    }
    let doubted = record.points.iter().filter(|point| !point.times.doubts.is_empty()).count();
    if let Some(doubt) = record.points.iter().find_map(|point| point.times.doubts.first()) {
        let (doubted, all) = (grouped(doubted as u64), grouped(record.points.len() as u64));
        output.text(format!("! {doubted} of {all} are to be doubted, the first since {doubt}"))?;
    }
    record.notes.iter().try_for_each(|note| output.text(format!("- {note}")))
}

fn points<'a>(points: impl Iterator<Item = &'a Point>) -> Table {
    let mut table = Table::new([
        ("CASE", Align::Left),
        ("ROWS", Align::Right),
        ("DIM", Align::Right),
        ("TOP", Align::Right),
        ("BATCH", Align::Right),
        ("BACKEND", Align::Left),
        ("CORPUS", Align::Left),
        ("MEDIAN", Align::Right),
        ("", Align::Left),
        ("WITHIN", Align::Right),
        ("P95", Align::Right),
        ("P99", Align::Right),
        ("EACH SECOND", Align::Right),
    ]);
    for Point { case, backend, residence, sizes, times, .. } in points {
        table.row([
            case.clone(),
            number(sizes.rows),
            number(sizes.dim),
            number(sizes.k),
            number(sizes.items),
            backend.clone(),
            if sizes.rows == 0 { String::new() } else { place(*residence).into() },
            time(times.p50_ns),
            if times.doubts.is_empty() { String::new() } else { "!".into() },
            format!("{:.1} %", 100.0 * stats::uncertainty(times)),
            time(times.p95_ns),
            time(times.p99_ns),
            grouped((sizes.items as f64 * 1e9 / times.p50_ns.max(1e-3)).round() as u64),
        ]);
    }
    table
}

fn crossovers(crossovers: &[Crossover]) -> Table {
    let mut table = Table::new([
        ("CASE", Align::Left),
        ("AT", Align::Left),
        ("CORPUS", Align::Left),
        ("BACKEND", Align::Left),
        ("ALWAYS WINS FROM", Align::Left),
        ("MEASURED UP TO", Align::Right),
    ]);
    for Crossover { case, residence, backend, against, axis, at, from, up_to } in crossovers {
        let unit = match axis {
            Axis::Items => "batch",
            Axis::Rows => "rows",
        };
        table.row([
            case.clone(),
            fixed(at, *axis),
            if at.dim == 0 { String::new() } else { place(*residence).into() },
            format!("{backend} over {against}"),
            from.map_or_else(|| "never".to_owned(), |from| format!("{unit} {}", grouped(from))),
            grouped(*up_to),
        ]);
    }
    table
}

/// The sizes that stay.
fn fixed(at: &Sizes, axis: Axis) -> String {
    match axis {
        Axis::Items if at.rows == 0 => String::new(),
        Axis::Items => format!("{} x {}, top {}", grouped(at.rows), at.dim, at.k),
        Axis::Rows => format!("batch {}, dim {}, top {}", at.items, at.dim, at.k),
    }
}

fn place(residence: Residence) -> &'static str {
    match residence {
        Residence::Resident => "resident",
        Residence::Cold => "cold",
    }
}

fn number(number: u64) -> String {
    if number == 0 { String::new() } else { grouped(number) }
}

fn time(nanos: f64) -> String {
    if nanos < 1e3 { format!("{nanos:.0} ns") } else { duration_text(Duration::from_nanos(nanos as u64)) }
}
