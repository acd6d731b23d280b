//! The charts of a record: latency and throughput against the batch, and the roofline.

use std::collections::BTreeMap;

use plotters::prelude::SeriesLabelPosition::{LowerRight, UpperLeft};

use super::chart::{Axis, Chart, Dot, Series};
use super::numbers::{amount, count, percent, plottable, shape, tick, time};
use super::series::{Lines, Subject, groups, peaks, per_s, throughput};
use crate::record::{Point, Record, Residence};

/// What is drawn upwards against the batch.
#[derive(Clone, Copy)]
pub(super) enum Measure {
    /// The median, with a band up to the 95th percentile.
    Latency,
    /// Items a second at the median.
    Throughput,
}

/// Pixels of a picture on the page.
const SIZE: (u32, u32) = (500, 350);
const AMOUNT: fn(f64) -> String = |value| tick(&amount(value));

/// Which of [`super::chart::INKS`] a backend has all over the report.
pub(super) fn ink(backend: &str) -> usize {
    ["cpu", "cuda", "wgpu"].iter().position(|name| *name == backend).unwrap_or(3)
}

/// A backend's name, and whether its corpus is uploaded first.
pub(super) fn name(backend: &str, residence: Residence) -> String {
    let cold = if residence == Residence::Cold { " cold" } else { "" };
    format!("{backend}{cold}")
}

/// What the items of a suite are.
pub(super) fn things(suite: &str) -> &'static str {
    match suite {
        "search" | "grpc" => "queries",
        "encode" => "memories",
        "ring" => "jobs",
        _ => "items",
    }
}

/// One picture of each group, all with the same upward axis.
pub(super) fn panels(suite: &str, groups: &BTreeMap<Subject<'_>, Lines<'_>>, measure: Measure) -> String {
    let points = groups.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
    let range: Vec<f64> = points.filter_map(|p| value(measure, p)).flat_map(|(y, top)| [y, top]).collect();
    groups.iter().map(|(subject, lines)| against_batch(suite, subject, lines, measure, &range, SIZE)).collect()
}

/// Latency of searches against the batch, all backends in one picture that stands for the run; none where no search was
/// measured. It shows the corpus in the middle of those with as many lines as any and at least half as many points as
/// the fullest: small corpora, of which there is time for every batch, say little.
#[must_use]
pub fn svg_latency(record: &Record) -> Option<String> {
    let groups = groups(record, "search");
    let points = |lines: &Lines<'_>| lines.values().map(BTreeMap::len).sum::<usize>();
    let lines = groups.values().map(BTreeMap::len).max()?;
    let most = groups.values().map(points).max()?;
    let fitting: Vec<_> = groups.iter().filter(|(_, of)| of.len() == lines && 2 * points(of) >= most).collect();
    let (subject, lines) = fitting.get(fitting.len().saturating_sub(1) / 2)?;
    Some(against_batch("search", subject, lines, Measure::Latency, &[], (860, 520)))
}

/// What is drawn of a point, and how far the band above it reaches.
fn value(measure: Measure, point: &Point) -> Option<(f64, f64)> {
    let p50 = point.times.p50_ns;
    match measure {
        Measure::Latency => Some((p50, plottable(point.times.p95_ns).unwrap_or(p50).max(p50))),
        Measure::Throughput => throughput(point).map(|rate| (rate, rate)),
    }
}

fn against_batch(
    suite: &str,
    subject: &Subject<'_>,
    lines: &Lines<'_>,
    measure: Measure,
    range: &[f64],
    (width, height): (u32, u32),
) -> String {
    let dot = |point: &&Point| {
        let (y, top) = value(measure, point)?;
        let (x, doubted) = (point.sizes.items as f64, !point.times.doubts.is_empty());
        Some(Dot { x, y, top, doubted, tip: tip(suite, point) })
    };
    let line = |((backend, residence), points): (&(&str, Residence), &BTreeMap<u64, &Point>)| Series {
        name: name(backend, *residence),
        ink: Some(ink(backend)),
        dashed: *residence == Residence::Cold,
        dots: points.values().filter_map(dot).collect(),
    };
    let series: Vec<Series> = lines.iter().map(line).collect();
    let (batch, rate) = (format!("batch ({})", things(suite)), format!("{} a second", things(suite)));
    let (what, upwards): (_, Axis<'_>) = match measure {
        Measure::Latency => ("Time of a batch", ("median, band up to p95", |ns| tick(&time(ns)))),
        Measure::Throughput => ("Throughput", (&rate, AMOUNT)),
    };
    let title = format!("{what}, {suite}: {}", subject.told());
    let across: Axis<'_> = (&batch, |items| count(items as u64));
    Chart { title: &title, across, upwards, legend: UpperLeft, series: &series, range }.svg(width, height)
}

fn tip(suite: &str, point: &Point) -> String {
    let (sizes, times) = (point.sizes, &point.times);
    let mut tip = format!("{}, batch of {}", name(&point.backend, point.residence), count(sizes.items));
    if sizes.rows > 0 {
        tip += &format!(" over {}", shape(sizes.rows, sizes.dim));
    }
    tip += &format!(": p50 {}, p95 {}, p99 {}", time(times.p50_ns), time(times.p95_ns), time(times.p99_ns));
    if let Some(rate) = throughput(point) {
        tip += &format!("; {}{} a second", amount(rate), things(suite));
    }
    times.doubts.iter().for_each(|doubt| tip += &format!("; doubtful: {doubt}"));
    tip
}

/// The classic picture with two roofs: the multiply-adds a second of each search against those for each byte it reads.
/// None where a peak of the backend was not measured, or nothing stands under them.
pub(super) fn roofline(record: &Record, backend: &str) -> Option<String> {
    let (Some(arithmetic), Some(memory)) = peaks(record, backend) else { return None };
    let dot = |point: &&Point| {
        let x = plottable(plottable(point.multiply_adds)? / plottable(point.bytes)?)?;
        let y = per_s(point, point.multiply_adds)?;
        Some(Dot {
            x,
            y,
            top: y,
            doubted: false,
            tip: format!("{}; {} of the peak", tip("search", point), percent(y / arithmetic)),
        })
    };
    let groups = groups(record, "search");
    let of_corpus = |(nth, (subject, lines)): (usize, (&Subject<'_>, &Lines<'_>))| {
        let points = lines.get(&(backend, Residence::Resident))?;
        let dots: Vec<Dot> = points.values().filter_map(dot).collect();
        Some(Series { name: subject.told(), ink: Some(nth), dashed: false, dots })
    };
    let mut series: Vec<Series> = groups.iter().enumerate().filter_map(of_corpus).collect();
    let at = || series.iter().flat_map(|series| &series.dots).map(|dot| dot.x);
    let ridge = plottable(arithmetic / memory)?;
    let low = at().fold(ridge / 3.0, f64::min);
    let high = at().fold(ridge * 3.0, f64::max);
    at().next()?;
    let roof = [low, ridge, high].map(|x| (x, (x * memory).min(arithmetic)));
    series.push(Series {
        name: format!("peaks: {}/s, {}B/s", amount(arithmetic), amount(memory)),
        ink: None,
        dashed: false,
        dots: roof.map(|(x, y)| Dot { x, y, top: y, doubted: false, tip: String::new() }).into(),
    });
    let title = format!("Roofline of {backend}");
    let across = ("multiply-adds for each byte read", AMOUNT);
    let upwards = ("multiply-adds a second", AMOUNT);
    let chart = Chart { title: &title, across, upwards, legend: LowerRight, series: &series, range: &[] };
    Some(chart.svg(SIZE.0, SIZE.1))
}
