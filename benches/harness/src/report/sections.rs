//! The sections of the page, from the backends at a glance to the last measurement.

use std::collections::BTreeSet;

use super::canvas::{Sheet, picture};
use super::curves::{Measure, Plot};
use super::numbers::{count, escape, percent, plottable, rate, shape, time};
use super::series::{Group, by_rows, groups, suites, things, throughput, usual_rows};
use super::theme::{Looks, suffix};
use super::{map, roofline, tables};
use crate::record::{Axis, Device, Point, Record, Residence};

fn section(title: &str, text: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    let text = if text.is_empty() { String::new() } else { format!("<p>{text}</p>\n") };
    format!("<section>\n<h2>{}</h2>\n{text}{content}</section>\n", escape(title))
}

fn figure(caption: &str, svg: &str) -> String {
    format!("<figure>\n<figcaption>{}</figcaption>\n{svg}</figure>\n", escape(caption))
}

fn grid(figures: &str) -> String {
    if figures.is_empty() { String::new() } else { format!("<div class=\"grid\">\n{figures}</div>\n") }
}

/// A card for each backend with the figures that one asks for first.
pub(super) fn backends(record: &Record, looks: &Looks<'_>) -> String {
    // Of corpora that all backends searched, so that cards can be held beside each other; where there are none, each of its own.
    let all =
        record.backends.iter().map(|device| resident(record, device).map(|p| p.sizes.rows).collect::<BTreeSet<u64>>());
    let shared = all.filter(|rows| !rows.is_empty()).reduce(|a, b| &a & &b).unwrap_or_default();
    let cards: String = record.backends.iter().map(|device| card(record, looks, device, &shared)).collect();
    if cards.is_empty() { cards } else { format!("<div class=\"cards\">\n{cards}</div>\n") }
}

/// Searches of corpora in place.
fn resident<'a>(record: &'a Record, device: &'a Device) -> impl Iterator<Item = &'a Point> {
    record.points.iter().filter(|p| {
        p.backend == device.backend
            && p.suite == "search"
            && p.residence == Residence::Resident
            && plottable(p.times.p50_ns).is_some()
    })
}

fn card(record: &Record, looks: &Looks<'_>, device: &Device, shared: &BTreeSet<u64>) -> String {
    let look = looks.get(&device.backend);
    let badge = if device.emulated { " <span class=\"badge\">emulated</span>" } else { "" };
    let mut html = format!(
        "<article class=\"card\" style=\"--accent:{}\">\n<h3>{}{}{badge}</h3>\n<p>{}{}</p>\n<dl>\n",
        look.ink.css(),
        swatch(looks, &device.backend, None),
        escape(&device.backend),
        escape(&device.device),
        if device.instruction_set.is_empty() {
            String::new()
        } else {
            format!(" · {}", escape(&device.instruction_set))
        },
    );
    let mut mine: Vec<&Point> = resident(record, device).collect();
    if !shared.is_empty() {
        mine.retain(|p| shared.contains(&p.sizes.rows));
    }
    let (usual, largest) = (usual_rows(mine.iter().copied()), mine.iter().map(|p| p.sizes.rows).max());
    for rows in usual.into_iter().chain(largest.filter(|rows| Some(*rows) != usual)) {
        html += &facts(mine.iter().copied().filter(|p| p.sizes.rows == rows));
    }
    html + "</dl>\n</article>\n"
}

/// How long one query takes, and the most queries a second, over one corpus.
fn facts<'a>(points: impl Iterator<Item = &'a Point> + Clone) -> String {
    let mut html = String::new();
    if let Some(point) = points.clone().find(|p| p.sizes.items == 1) {
        html += &fact(&format!("1 query, {}", shape(point.sizes.rows, point.sizes.dim)), &time(point.times.p50_ns));
    }
    let rates = points.filter_map(|p| Some((throughput(p)?, p)));
    if let Some((per_s, point)) = rates.max_by(|a, b| a.0.total_cmp(&b.0)) {
        let batch = if point.sizes.items == 1 {
            "one by one".into()
        } else {
            format!("batches of {}", count(point.sizes.items))
        };
        html += &fact(&batch, &rate(per_s, "queries"));
    }
    html
}

fn fact(what: &str, value: &str) -> String {
    format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(what), escape(value))
}

/// A backend's line and point as they are drawn; only the point without a residence.
fn swatch(looks: &Looks<'_>, backend: &str, residence: Option<Residence>) -> String {
    let width = if residence.is_some() { 36.0 } else { 16.0 };
    let title = format!("{backend}{}", residence.map_or("", suffix));
    let look = looks.get(backend);
    picture(&Sheet { width, height: 16.0, title: &title, alone: false }, |canvas| {
        let ends = [(1.0, 8.0), (width - 1.0, 8.0)];
        match residence {
            Some(Residence::Resident) => canvas.line(&ends, look.ink, 2.0),
            Some(Residence::Cold) => canvas.dashes(&ends, look.ink, 1.6),
            None => {}
        }
        canvas.marker((width / 2.0, 8.0), 4.0, look, residence == Some(Residence::Cold));
    })
}

fn legend(looks: &Looks<'_>, groups: &[Group<'_>]) -> String {
    let mut lines: Vec<(&str, Residence)> =
        groups.iter().flat_map(|g| &g.lines).map(|line| (line.backend, line.residence)).collect();
    lines.sort_by_key(|(name, residence)| (looks.order(name), *residence));
    lines.dedup();
    let word = |residence| match residence {
        Residence::Resident => "",
        Residence::Cold => " cold: the corpus is uploaded within the time",
    };
    let entry = |(name, residence): &(&str, Residence)| {
        format!("<li>{}{}{}</li>\n", swatch(looks, name, Some(*residence)), escape(name), word(*residence))
    };
    let entries: String = lines.iter().map(entry).collect();
    let doubted =
        groups.iter().flat_map(|g| &g.lines).flat_map(|l| &l.points).any(|d| !d.point.times.doubts.is_empty());
    let ring = if doubted { "<li><span class=\"ring\"></span>doubtful</li>\n" } else { "" };
    format!("<ul class=\"legend\">\n{entries}{ring}</ul>\n")
}

/// One figure for each group, all with the same upward axis.
fn panels(looks: &Looks<'_>, suite: &str, axis: Axis, measure: Measure, groups: &[Group<'_>]) -> String {
    let range: Vec<f64> = match measure {
        Measure::Latency => groups.iter().flat_map(Group::times).collect(),
        Measure::Throughput => groups.iter().flat_map(Group::rates).collect(),
    };
    let panel = |group: &Group<'_>| {
        let caption = caption(group, suite, axis);
        let what = match measure {
            Measure::Latency => "Time of a batch",
            Measure::Throughput => "Throughput",
        };
        let plot = Plot { group, looks, suite, axis, measure, range: &range };
        figure(&caption, &plot.svg(&format!("{what}, {suite}: {caption}")))
    };
    groups.iter().map(panel).collect()
}

fn caption(group: &Group<'_>, suite: &str, axis: Axis) -> String {
    let s = &group.subject;
    let case = if s.case == suite { String::new() } else { format!("{}, ", s.case) };
    let at = match axis {
        Axis::Items if s.rows > 0 => format!("{}{}", case, shape(s.rows, s.dim)),
        Axis::Items => s.case.to_owned(),
        Axis::Rows => format!("{case}batch of {}, dim {}", count(s.items), count(s.dim)),
    };
    if s.k > 0 { format!("{at}, k = {}", count(s.k)) } else { at }
}

/// Searches: latency and throughput against the batch, latency against the rows.
pub(super) fn searches(record: &Record, looks: &Looks<'_>) -> String {
    let along = groups(record, looks, "search", Axis::Items);
    if along.is_empty() {
        return String::new();
    }
    let latency = legend(looks, &along) + &grid(&panels(looks, "search", Axis::Items, Measure::Latency, &along));
    let rates = grid(&panels(looks, "search", Axis::Items, Measure::Throughput, &along));
    let rows = by_rows(record, looks, "search");
    let rows = grid(&panels(looks, "search", Axis::Rows, Measure::Latency, &rows));
    section(
        "How long a search takes",
        "Down is better. One picture for each size of corpus, all with the same axes.",
        &latency,
    ) + &section("How many queries a second", "Up is better.", &rates)
        + &section("How the corpus’ size counts", "The smallest batch: what one user waits for.", &rows)
}

/// The maps of winners.
pub(super) fn winners(record: &Record, looks: &Looks<'_>) -> String {
    let maps = map::subjects(record).into_iter().map(|subject| {
        let how = match subject.residence {
            Residence::Resident => "corpus in place",
            Residence::Cold => "corpus uploaded first",
        };
        let caption = format!("{}, dim {}, k = {}: {how}", subject.case, count(subject.dim), count(subject.k));
        figure(&caption, &map::svg(record, looks, &subject, &format!("Map of winners, {caption}")))
    });
    let text = "Each cell names the quickest backend and how many times as fast as the next it is. A tie is a cell whose confidence \
                intervals overlap; the name is that of the smaller median. At an exclamation mark one of the two times is doubtful; where a \
                cell is grey, only one backend was measured. Above the thick line a backend always wins over the CPU; its \
                mark is at the line’s end.";
    section("Who wins where", text, &grid(&maps.collect::<String>()))
}

/// The crossovers as tables.
pub(super) fn crossovers(record: &Record, looks: &Looks<'_>) -> String {
    let tables = tables::crossovers(record, looks, Axis::Items) + &tables::crossovers(record, looks, Axis::Rows);
    let mut text =
        "“Always” is meant: from there on at every larger size that was measured, and not only at some of them."
            .to_owned();
    if record.crossovers.iter().any(|c| c.residence == Residence::Cold) {
        text += " The CPU uploads nothing, so what another takes cold stands beside its usual times.";
    }
    section("Where a backend begins to win", &text, &tables)
}

/// Shares of the measured peaks.
pub(super) fn peaks(record: &Record, looks: &Looks<'_>) -> String {
    let shares = tables::shares(record, looks);
    if shares.is_empty() {
        return String::new();
    }
    let mut pictures = String::new();
    let mut missing = Vec::new();
    for device in &record.backends {
        let caption = format!("{}: {}", device.backend, device.device);
        match roofline::svg(record, looks, &device.backend, &format!("Roofline of {caption}")) {
            Some(svg) => pictures += &figure(&caption, &svg),
            None if roofline::roofs(record, &device.backend).is_none() => missing.push(escape(&device.backend)),
            None => {}
        }
    }
    let mut text = String::from(
        "A job cannot be quicker than its multiply-adds at the peak, nor than its bytes at the peak of the memory. More than 100&#160;% of \
         the bytes means that a cache holds the corpus.",
    );
    if !missing.is_empty() {
        text += &format!(
            " What {} could do at most was not measured, so what share of it was used is not known, and there is no picture.",
            missing.join(" and ")
        );
    }
    let best = record.points.iter().filter_map(|p| {
        let share = roofline::share(record, p);
        Some((share.of_arithmetic?, p))
    });
    if let Some((share, point)) = best.max_by(|a, b| a.0.total_cmp(&b.0)) {
        text += &format!(
            " The most of the peak multiply-adds is {} ({}, batch of {} over {}).",
            percent(share),
            escape(&point.backend),
            count(point.sizes.items),
            shape(point.sizes.rows, point.sizes.dim)
        );
    }
    let details = format!("<details>\n<summary>Shares of all measurements</summary>\n{shares}</details>\n");
    section("How much of the machine is used", &text, &(tables::peaks(record, looks) + &grid(&pictures) + &details))
}

/// What is no search: pictures where several batches were measured, and tables.
pub(super) fn others(record: &Record, looks: &Looks<'_>) -> String {
    let others = suites(record).into_iter().filter(|suite| *suite != "search");
    others
        .map(|suite| {
            let mut along = groups(record, looks, suite, Axis::Items);
            along.retain(|group| group.places().len() > 1);
            let mut content = String::new();
            if !along.is_empty() {
                content += &legend(looks, &along);
                let times = panels(looks, suite, Axis::Items, Measure::Latency, &along);
                content += &grid(&(times + &panels(looks, suite, Axis::Items, Measure::Throughput, &along)));
            }
            content += &tables::suite(record, looks, suite);
            let (title, text) = of_suite(suite);
            section(&title, &text, &content)
        })
        .collect()
}

fn of_suite(suite: &str) -> (String, String) {
    match suite {
        "encode" => ("Encoding memories".into(), "Text to coordinates and zones.".into()),
        "ring" => ("The ring alone".into(), "What handing a job over costs before anything is done.".into()),
        "grpc" => ("Over gRPC".into(), "As a client sees it: with the network stack, validation and admission.".into()),
        other => (format!("Suite {other}"), format!("Measured per batch of {}.", things(other, true))),
    }
}

/// All measurements.
pub(super) fn all(record: &Record, looks: &Looks<'_>) -> String {
    if record.points.is_empty() {
        return String::new();
    }
    let samples = record.points.iter().fold(0_u64, |sum, p| sum.saturating_add(p.times.samples as u64));
    let text = format!("{} samples in all. Doubtful lines are marked.", count(samples));
    section("All measurements", &text, &tables::measurements(record, looks))
}
