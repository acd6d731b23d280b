//! The page: what to know first, the pictures, and the tables.

use std::collections::{BTreeMap, BTreeSet};

use megaring_engine::measure::stats::uncertainty;
use plotters::style::RGBColor;

use super::chart::INKS;
use super::headline::{sentences, usual};
use super::numbers::{NONE, amount, count, date, escape, factor, percent, shape, time};
use super::pictures::{Measure, ink, name, panels, roofline, things};
use super::series::{Lines, Subject, Win, groups, peaks, per_s, throughput, winners};
use crate::record::{Axis, Point, Record, Residence};

/// A run as one HTML page, which is also well-formed XML.
#[must_use]
pub fn html(record: &Record) -> String {
    let mut suites: Vec<&str> = Vec::new();
    for point in record.points.iter().filter(|point| point.suite != "search") {
        if !suites.contains(&&*point.suite) {
            suites.push(&point.suite);
        }
    }
    let body =
        [head(record), doubts(record), backends(record), searches(record), crossovers(record), use_of_peaks(record)];
    let others: String = suites.into_iter().map(|suite| other(record, suite)).collect();
    let all = section("All searches", "", &measurements(record, "search"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n<title>megaring bench: {}</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n{}{others}{all}</body>\n</html>\n",
        escape(&record.machine.processor),
        include_str!("style.css"),
        body.concat(),
    )
}

fn head(record: &Record) -> String {
    let machine = &record.machine;
    let mut html = String::from("<header>\n<p>megaring bench</p>\n");
    for (nth, sentence) in sentences(record).iter().enumerate() {
        let tag = if nth == 0 { "h1" } else { "p" };
        html += &format!("<{tag}>{}</{tag}>\n", escape(sentence));
    }
    let memory = machine.memory_bytes.map(|bytes| format!(", {}B of memory", amount(bytes as f64)));
    html += &format!(
        "<p class=\"machine\">{}, threads: {}{}; {}. {}, took {:.0} s. megaring {}.</p>\n<pre>{}</pre>\n</header>\n",
        escape(&machine.processor),
        count(machine.threads as u64),
        memory.unwrap_or_default(),
        escape(&machine.system),
        date(machine.started_unix_s),
        machine.took_s.clamp(0.0, 1e9),
        escape(&machine.version),
        escape(&machine.command),
    );
    html
}

/// What a reader has to know before believing a figure.
fn doubts(record: &Record) -> String {
    let doubted = record.points.iter().filter(|p| !p.times.doubts.is_empty()).count();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for doubt in record.points.iter().flat_map(|p| &p.times.doubts) {
        // Reasons that differ in their figures alone are of one kind.
        let words: Vec<&str> = doubt.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
        *reasons.entry(words.join("…")).or_default() += 1;
    }
    let mut items = Vec::new();
    if doubted > 0 {
        let why: Vec<String> = reasons.iter().map(|(reason, times)| format!("{} ({times}×)", escape(reason))).collect();
        items.push(format!(
            "<b>{doubted} of {} measurements are doubtful</b>, ringed in the pictures: {}.",
            record.points.len(),
            why.join(", ")
        ));
    }
    items.extend(record.notes.iter().map(|note| escape(note)));
    let list: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    if list.is_empty() { list } else { format!("<ul class=\"note\">\n{list}</ul>\n") }
}

fn section(title: &str, text: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>{}</h2>\n<p>{text}</p>\n{content}</section>\n", escape(title))
}

/// A table of cells that are HTML already; nothing without rows.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.map(|row| line("td", &mut row.iter().map(String::as_str))).collect();
    if rows.is_empty() {
        return rows;
    }
    let head = line("th", &mut heads.iter().copied());
    format!("<div class=\"scroll\"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n")
}

/// A backend's name with its colour.
fn backend(of: &str, residence: Residence) -> String {
    format!("<i style=\"background:{}\"></i>{}", colour(of), escape(&name(of, residence)))
}

fn colour(backend: &str) -> String {
    let RGBColor(r, g, b) = INKS[ink(backend)];
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| NONE.into())
}

fn some(value: u64) -> String {
    if value == 0 { NONE.into() } else { count(value) }
}

fn backends(record: &Record) -> String {
    let row = |device: &crate::record::Device| {
        let usual = usual(record, device);
        let emulated = if device.emulated { ", emulated" } else { "" };
        vec![
            backend(&device.backend, Residence::Resident),
            escape(&device.device) + emulated,
            escape(&device.instruction_set),
            or_none(usual.map(|(first, _)| {
                let s = first.sizes;
                format!("{} over {}: <b>{}</b>", count(s.items), shape(s.rows, s.dim), time(first.times.p50_ns))
            })),
            or_none(usual.and_then(|(_, most)| {
                Some(format!("<b>{}/s</b> in batches of {}", amount(throughput(most)?), count(most.sizes.items)))
            })),
        ]
    };
    table(
        &["backend", "device", "instructions", "queries, corpus in place", "at most"],
        record.backends.iter().map(row),
    )
}

fn grid(pictures: &str) -> String {
    if pictures.is_empty() { String::new() } else { format!("<div class=\"grid\">\n{pictures}</div>\n") }
}

fn searches(record: &Record) -> String {
    let groups = groups(record, "search");
    let cold = "Cold means that the corpus is uploaded within the time.";
    let latency = grid(&panels("search", &groups, Measure::Latency));
    let rates = grid(&panels("search", &groups, Measure::Throughput));
    section(
        "How long a search takes",
        &format!("Down is better. One picture for each size of corpus. {cold}"),
        &latency,
    ) + &section("How many queries a second", "Up is better.", &rates)
        + &section(
            "Who wins where",
            "Each cell names the quickest backend and how many times as fast as the next it is. A tie is a cell whose confidence intervals \
             overlap. At an exclamation mark one of the two times is doubtful.",
            &maps(&groups),
        )
}

/// The maps of winners: batches downwards, corpora across; none where only one backend was measured.
fn maps(groups: &BTreeMap<Subject<'_>, Lines<'_>>) -> String {
    let kinds: BTreeSet<(&str, u64, u64)> = groups.keys().map(|s| (s.case, s.dim, s.k)).collect();
    let mut html = String::new();
    for ((case, dim, k), residence) in
        kinds.into_iter().flat_map(|kind| [Residence::Resident, Residence::Cold].map(|residence| (kind, residence)))
    {
        let of_kind = groups.iter().filter(|(s, _)| (s.case, s.dim, s.k) == (case, dim, k));
        let columns: Vec<_> = of_kind.map(|(s, lines)| (s.rows, winners(lines, residence))).collect();
        if columns.iter().all(|(_, wins)| wins.values().all(Option::is_none)) {
            continue;
        }
        let batches: BTreeSet<u64> = columns.iter().flat_map(|(_, wins)| wins.keys().copied()).collect();
        let how = if residence == Residence::Cold { "uploaded first" } else { "in place" };
        let title = format!("Map of winners, {case}, dim {}, k = {}: corpus {how}", count(dim), count(k));
        html += &format!(
            "<table class=\"map\" aria-label=\"{0}\"><caption>{0}</caption>\n<tr><th>batch ↓ rows →</th>",
            escape(&title)
        );
        columns.iter().for_each(|(rows, _)| html += &format!("<th>{}</th>", count(*rows)));
        html += "</tr>\n";
        for items in batches {
            let cells = columns
                .iter()
                .map(|(_, wins)| wins.get(&items).and_then(Option::as_ref).map_or("<td></td>".into(), cell));
            html += &format!("<tr><th>{}</th>{}</tr>\n", count(items), cells.collect::<String>());
        }
        html += "</table>\n";
    }
    grid(&html)
}

fn cell(win: &Win<'_>) -> String {
    let (best, second, s) = (win.best, win.second, win.best.sizes);
    let told = |point: &Point| format!("{} {}", escape(&point.backend), time(point.times.p50_ns));
    let (tie, doubt) = (if win.tie { " tie" } else { "" }, if win.doubted() { " !" } else { "" });
    format!(
        "<td class=\"win{tie}\" style=\"--ink:{}\" title=\"{} over {}: {}, {}\"><b>{}</b>{tie} {}{doubt}</td>",
        colour(&best.backend),
        count(s.items),
        shape(s.rows, s.dim),
        told(best),
        told(second),
        factor(win.factor()),
        escape(&best.backend),
    )
}

fn crossovers(record: &Record) -> String {
    let rows = record.crossovers.iter().map(|c| {
        let (at, unit) = match c.axis {
            Axis::Items if c.at.rows == 0 => (NONE.into(), "batch"),
            Axis::Items => (format!("{}, k = {}", shape(c.at.rows, c.at.dim), count(c.at.k)), "batch"),
            Axis::Rows => {
                (format!("batch {}, dim {}, k = {}", count(c.at.items), count(c.at.dim), count(c.at.k)), "rows")
            }
        };
        let from = c.from.map_or("never".into(), |from| format!("<b>{unit} {}</b>", count(from)));
        let up_to = format!("{unit} {}", count(c.up_to));
        vec![escape(&c.case), backend(&c.backend, c.residence), at, from, up_to]
    });
    let text = "From there on the backend wins over the CPU at every larger size that was measured, and not only at some of them. The CPU \
                uploads nothing: what another takes cold stands beside its usual times.";
    section(
        "Where a backend begins to win",
        text,
        &table(&["case", "backend", "at", "always wins from", "measured up to"], rows),
    )
}

/// What the devices can do at most, and how near they come to it.
fn use_of_peaks(record: &Record) -> String {
    let best = |device: &str, share: &dyn Fn(&Point) -> Option<f64>| {
        record.points.iter().filter(|p| p.backend == device).filter_map(share).reduce(f64::max)
    };
    let rows = record.backends.iter().map(|device| {
        let of = |peak: Option<f64>, unit: &str, amount_of: fn(&Point) -> f64| match peak {
            Some(peak) => {
                let most = best(&device.backend, &|point| Some(per_s(point, amount_of(point))? / peak));
                (format!("{}{unit}", amount(peak)), or_none(most.map(percent)))
            }
            None => ("not measured".into(), NONE.into()),
        };
        let (arithmetic, memory) = peaks(record, &device.backend);
        let (arithmetic, memory) = (of(arithmetic, "/s", |p| p.multiply_adds), of(memory, "B/s", |p| p.bytes));
        let how = record.peaks.iter().find(|peak| peak.backend == device.backend).map(|peak| escape(&peak.how));
        let name = backend(&device.backend, Residence::Resident);
        vec![name, arithmetic.0, arithmetic.1, memory.0, memory.1, or_none(how)]
    });
    let heads = ["backend", "multiply-adds at most", "used at best", "memory at most", "used at best", "measured by"];
    let pictures: String = record.backends.iter().filter_map(|device| roofline(record, &device.backend)).collect();
    let text = "A job cannot be quicker than its multiply-adds at the peak, nor than its bytes at the peak of the memory. More than all of \
                the memory’s means that a cache holds the corpus.";
    section("How much of the machine is used", text, &(table(&heads, rows) + &grid(&pictures)))
}

/// A suite that is no search: pictures of what was measured with several batches, and the figures.
fn other(record: &Record, suite: &str) -> String {
    let mut groups = groups(record, suite);
    groups.retain(|_, lines| lines.values().any(|points| points.len() > 1));
    let pictures = panels(suite, &groups, Measure::Latency) + &panels(suite, &groups, Measure::Throughput);
    let (title, text) = match suite {
        "encode" => ("Encoding memories", "Text to coordinates and zones."),
        "ring" => ("The ring alone", "What handing a job over costs before anything is done."),
        "grpc" => ("Over gRPC", "As a client sees it: with the network stack, validation and admission."),
        other => (other, ""),
    };
    section(title, text, &(grid(&pictures) + &measurements(record, suite)))
}

fn measurements(record: &Record, suite: &str) -> String {
    let batch = things(suite);
    let heads = [
        "case",
        "backend",
        "rows × dim",
        "k",
        batch,
        "p50",
        "within",
        "p95",
        "p99",
        &format!("{batch}/s"),
        "of peak",
        "samples",
        "outliers",
        "doubts",
    ];
    let rows = record.points.iter().filter(|point| point.suite == suite).map(|point| {
        let (s, t) = (point.sizes, &point.times);
        let share =
            peaks(record, &point.backend).0.and_then(|peak| Some(percent(per_s(point, point.multiply_adds)? / peak)));
        vec![
            escape(&point.case),
            backend(&point.backend, point.residence),
            if s.rows == 0 { NONE.into() } else { shape(s.rows, s.dim) },
            some(s.k),
            some(s.items),
            format!("<b>{}</b>", time(t.p50_ns)),
            percent(uncertainty(t)),
            time(t.p95_ns),
            time(t.p99_ns),
            or_none(throughput(point).map(amount)),
            or_none(share),
            count(t.samples as u64),
            count(t.outliers as u64),
            escape(&t.doubts.join("; ")),
        ]
    });
    table(&heads, rows)
}
