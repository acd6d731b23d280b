//! What a run measured, as tables for people or lines for programs.

use std::time::Duration;

use megaring_engine::measure::stats;
use megaring_harness::record::{Axis, Crossover, Peak, Point, Record, Residence, Sizes};
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
        output.text(format!("{suite}\n{}\n", points(record, suite)))?;
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

fn points(record: &Record, suite: &str) -> Table {
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
        ("OF ROOF", Align::Right),
    ]);
    for point in record.points.iter().filter(|point| point.suite == suite) {
        let Point { case, backend, residence, sizes, times, .. } = point;
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
            of_roof(&record.peaks, backend, [point.multiply_adds, point.bytes], times.p50_ns)
                .map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
        ]);
    }
    table
}

/// The share of what the backend can do at most, by its multiply-adds or by the bytes that it reads, whichever is more:
/// its place under the roofline. Beyond 1 where memory was not read, as of a corpus in the caches, or less of it, as
/// where few queries read halves of codes. `None` where no peak was measured.
fn of_roof(peaks: &[Peak], backend: &str, [multiply_adds, bytes]: [f64; 2], nanos: f64) -> Option<f64> {
    let peak = peaks.iter().find(|peak| peak.backend == backend)?;
    let roofs = [(multiply_adds, peak.multiply_adds_per_s), (bytes, peak.bytes_per_s)];
    let shares = roofs.into_iter().filter_map(|(amount, peak)| Some(amount / peak? * 1e9 / nanos.max(1e-3)));
    shares.filter(|share| *share > 0.0).reduce(f64::max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_stands_under_the_roof_that_is_nearer() {
        let peak = |backend: &str, multiply_adds_per_s, bytes_per_s| Peak {
            backend: backend.into(),
            multiply_adds_per_s,
            bytes_per_s,
            how: String::new(),
        };
        let peaks = [peak("cpu", Some(1e12), Some(1e10)), peak("cuda", Some(1e12), None), peak("wgpu", None, None)];
        let share = |backend: &str, multiply_adds, bytes| of_roof(&peaks, backend, [multiply_adds, bytes], 1e6);
        assert_eq!(share("cpu", 5e8, 1e6), Some(0.5));
        assert_eq!(share("cpu", 1e8, 7e6), Some(0.7));
        assert_eq!(share("cuda", 1e8, 7e6), Some(0.1));
        assert_eq!(share("wgpu", 1e8, 7e6), None);
        assert_eq!(share("cpu", 0.0, 0.0), None, "an empty job is under no roof");
        assert_eq!(share("other", 1e8, 7e6), None);
    }
}
