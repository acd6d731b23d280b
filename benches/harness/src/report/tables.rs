//! Tables of the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::numbers::{NONE, bare, count, escape, percent, prefixed, shape, tick_count, time};
use super::roofline::share;
use super::series::{things, throughput};
use super::theme::{Ink, Looks, suffix};
use crate::record::{Axis, Crossover, Point, Record, Residence, Sizes, Times};

/// A table's head and rows; cells are HTML already.
struct Table {
    html: String,
}

impl Table {
    /// `texts` columns of words on the left, the others of numbers.
    fn new(caption: &str, texts: usize, heads: &[&str]) -> Self {
        // Tables of many columns may be wider than the text.
        let wide = if heads.len() > 10 { " wide" } else { "" };
        let mut html = format!(
            "<div class=\"scroll{wide}\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table class=\"t{texts}\">\
             <caption>{0}</caption><thead><tr>",
            escape(caption)
        );
        for head in heads {
            let _ = write!(html, "<th scope=\"col\">{}</th>", escape(head));
        }
        html += "</tr></thead><tbody>\n";
        Self { html }
    }

    fn row(&mut self, class: &str, cells: &[String]) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let _ = write!(self.html, "<tr{class}>");
        for cell in cells {
            let _ = write!(self.html, "<td>{cell}</td>");
        }
        self.html += "</tr>\n";
    }

    fn end(mut self) -> String {
        self.html += "</tbody></table></div>\n";
        self.html
    }
}

/// A backend's name in its colour.
pub(super) fn backend(looks: &Looks<'_>, name: &str, residence: Residence) -> String {
    let ink = looks.get(name).ink.css();
    format!("<b style=\"color:{ink}\">{}</b>{}", escape(name), suffix(residence))
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| NONE.into())
}

/// The crossovers along `axis`: a line for each size, a column for each backend. Where a backend's measurements end before those of another
/// on its line, its own end stands with it.
pub(super) fn crossovers(record: &Record, looks: &Looks<'_>, axis: Axis) -> String {
    let all: Vec<&Crossover> = record.crossovers.iter().filter(|c| c.axis == axis).collect();
    if all.is_empty() {
        return String::new();
    }
    let mut columns: Vec<(&str, Residence)> = all.iter().map(|c| (c.backend.as_str(), c.residence)).collect();
    columns.sort_by_key(|(name, residence)| (looks.order(name), *residence));
    columns.dedup();
    let mut lines: BTreeMap<(&str, u64, u64, u64, u64), Vec<&Crossover>> = BTreeMap::new();
    for c in all {
        lines.entry((c.case.as_str(), c.at.dim, c.at.k, c.at.rows, c.at.items)).or_default().push(c);
    }
    let (caption, fixed) = match axis {
        Axis::Items => ("Smallest batch from which on the backend always wins over the CPU", "rows × dim"),
        Axis::Rows => ("Smallest corpus (rows) from which on the backend always wins over the CPU", "batch"),
    };
    let heads: Vec<String> = columns.iter().map(|(name, r)| format!("{name}{}", suffix(*r))).collect();
    let mut all_heads = vec!["case", fixed, "k"];
    all_heads.extend(heads.iter().map(String::as_str));
    all_heads.push("measured up to");
    let mut table = Table::new(caption, 1, &all_heads);
    for ((case, dim, k, rows, items), crossovers) in lines {
        let at = match axis {
            Axis::Items => corpus(Sizes { rows, dim, k, items }),
            Axis::Rows => format!("{} at dim {}", count(items), count(dim)),
        };
        let up_to = crossovers.iter().map(|c| c.up_to).max().unwrap_or(0);
        let mut cells = vec![escape(case), at, count(k)];
        cells.extend(columns.iter().map(|(name, residence)| {
            let here = crossovers.iter().find(|c| c.backend == *name && c.residence == *residence);
            or_none(here.map(|c| begins(c, up_to)))
        }));
        cells.push(count(up_to));
        table.row("", &cells);
    }
    table.end()
}

/// Where a backend begins to win on a line that was measured `up_to` there.
fn begins(crossover: &Crossover, up_to: u64) -> String {
    let from = crossover.from.map_or("never".into(), |from| format!("<b>{}</b>", count(from)));
    if crossover.up_to == up_to { from } else { format!("{from} <small>(up to {})</small>", count(crossover.up_to)) }
}

/// What the devices can do at most, and how that is known.
pub(super) fn peaks(record: &Record, looks: &Looks<'_>) -> String {
    let heads = ["backend", "measured by", "multiply-adds/s", "bytes/s"];
    let mut table = Table::new("Peaks measured in this run", 2, &heads);
    for device in &record.backends {
        let peak = record.peaks.iter().find(|peak| peak.backend == device.backend);
        let told = |value: Option<f64>, unit: &str| value.map_or("not measured".into(), |v| prefixed(v, unit));
        table.row(
            "",
            &[
                backend(looks, &device.backend, Residence::Resident),
                peak.map_or(NONE.into(), |peak| escape(&peak.how)),
                told(peak.and_then(|p| p.multiply_adds_per_s), "/s"),
                told(peak.and_then(|p| p.bytes_per_s), "B/s"),
            ],
        );
    }
    table.end()
}

/// How much of the peaks each measurement of a job with multiply-adds reached.
pub(super) fn shares(record: &Record, looks: &Looks<'_>) -> String {
    let heads = ["backend", "case", "rows × dim", "k", "batch", "multiply-adds/s", "of peak", "bytes/s", "of peak"];
    let mut table = Table::new("Share of the peaks at the median", 2, &heads);
    let mut any = false;
    for point in record.points.iter().filter(|point| point.multiply_adds > 0.0) {
        any = true;
        let share = share(record, point);
        let ink = looks.get(&point.backend).ink;
        let of_peak = |share: Option<f64>| share.map_or("not measured".into(), |share| meter(ink, share));
        table.row(
            doubtful(point),
            &[
                backend(looks, &point.backend, point.residence),
                escape(&point.case),
                shape(point.sizes.rows, point.sizes.dim),
                count(point.sizes.k),
                count(point.sizes.items),
                or_none(share.multiply_adds_per_s.map(|v| prefixed(v, "/s"))),
                of_peak(share.of_arithmetic),
                or_none(share.bytes_per_s.map(|v| prefixed(v, "B/s"))),
                of_peak(share.of_memory),
            ],
        );
    }
    if any { table.end() } else { String::new() }
}

/// A percentage with a bar behind it.
fn meter(ink: Ink, share: f64) -> String {
    let width = (share * 100.0).clamp(0.0, 100.0);
    let width = if width.is_finite() { width } else { 0.0 };
    let ink = ink.css();
    format!("<span class=\"meter\" style=\"--share:{width:.1}%;--accent:{ink}\">{}</span>", percent(share))
}

/// Every measurement, as it was taken.
pub(super) fn measurements(record: &Record, looks: &Looks<'_>) -> String {
    let heads = [
        "case",
        "backend",
        "rows × dim",
        "k",
        "batch",
        "p50",
        "interval",
        "p95",
        "p99",
        "min",
        "max",
        "items/s",
        "samples",
        "outliers",
        "doubts",
    ];
    let mut table =
        Table::new("Times of all measurements, with the 95 % interval of the median and outliers", 2, &heads);
    for point in &record.points {
        table.row(doubtful(point), &measurement(looks, point));
    }
    table.end()
}

fn doubtful(point: &Point) -> &'static str {
    if point.times.doubts.is_empty() { "" } else { "doubtful" }
}

fn corpus(sizes: Sizes) -> String {
    if sizes.rows == 0 && sizes.dim == 0 { NONE.into() } else { shape(sizes.rows, sizes.dim) }
}

fn measurement(looks: &Looks<'_>, point: &Point) -> Vec<String> {
    let (s, t) = (point.sizes, &point.times);
    let optional = |value: u64| if value == 0 { NONE.into() } else { count(value) };
    let outliers = match t.outliers {
        0 => "0".to_owned(),
        some => format!("<b>{}</b>", count(some as u64)),
    };
    vec![
        if point.suite == point.case {
            escape(&point.case)
        } else {
            escape(&format!("{}: {}", point.suite, point.case))
        },
        backend(looks, &point.backend, point.residence),
        corpus(s),
        optional(s.k),
        optional(s.items),
        format!("<b>{}</b>", time(t.p50_ns)),
        interval(t),
        time(t.p95_ns),
        time(t.p99_ns),
        time(t.min_ns),
        time(t.max_ns),
        or_none(throughput(point).map(bare)),
        count(t.samples as u64),
        outliers,
        t.doubts.iter().map(|doubt| escape(doubt)).collect::<Vec<_>>().join("; "),
    ]
}

/// How far the median's confidence interval reaches from it, to the farther side.
fn interval(times: &Times) -> String {
    let reach = (times.p50_ns - times.ci_ns[0]).max(times.ci_ns[1] - times.p50_ns);
    match percent(reach / times.p50_ns) {
        unknown if unknown == NONE => unknown,
        share => format!("±{share}"),
    }
}

/// The measurements of one suite, in short.
pub(super) fn suite(record: &Record, looks: &Looks<'_>, suite: &str) -> String {
    let batch = things(suite, true);
    let per_s = format!("{batch}/s");
    let heads = ["case", "backend", batch, "p50", "p95", "p99", &per_s];
    let mut table = Table::new(&format!("Measurements of {suite}"), 2, &heads);
    for point in record.points.iter().filter(|point| point.suite == suite) {
        table.row(
            doubtful(point),
            &[
                escape(&point.case),
                backend(looks, &point.backend, point.residence),
                tick_count(point.sizes.items as f64),
                format!("<b>{}</b>", time(point.times.p50_ns)),
                time(point.times.p95_ns),
                time(point.times.p99_ns),
                or_none(throughput(point).map(bare)),
            ],
        );
    }
    table.end()
}
