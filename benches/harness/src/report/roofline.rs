//! How much of what a device can do was done: the share of its measured peaks, and the classic picture with its two roofs.

use super::canvas::{Align, Axis, Canvas, Place, Sheet, picture};
use super::numbers::{count, percent, plottable, prefixed, shape, time};
use super::theme::{GRID, Look, Looks, MUTED, TEXT};
use crate::record::{Peak, Point, Record, Residence};

/// The multiply-adds and bytes a second of one point, beside the peaks of its backend.
pub(super) struct Share {
    /// Multiply-adds a second; none where the job has none or no time.
    pub(super) multiply_adds_per_s: Option<f64>,
    /// Bytes a second that had to be read at least.
    pub(super) bytes_per_s: Option<f64>,
    /// Share of the peak of multiply-adds, where it was measured.
    pub(super) of_arithmetic: Option<f64>,
    /// Share of the peak of bytes, where it was measured.
    pub(super) of_memory: Option<f64>,
}

/// The shares of `point`.
pub(super) fn share(record: &Record, point: &Point) -> Share {
    let per_s = |amount: f64| {
        let (amount, ns) = (plottable(amount)?, plottable(point.times.p50_ns)?);
        plottable(amount * 1e9 / ns)
    };
    let (multiply_adds_per_s, bytes_per_s) = (per_s(point.multiply_adds), per_s(point.bytes));
    let peak = peak(record, &point.backend);
    let of = |rate: Option<f64>, peak: Option<f64>| Some(rate? / peak.and_then(plottable)?);
    Share {
        of_arithmetic: of(multiply_adds_per_s, peak.and_then(|p| p.multiply_adds_per_s)),
        of_memory: of(bytes_per_s, peak.and_then(|p| p.bytes_per_s)),
        multiply_adds_per_s,
        bytes_per_s,
    }
}

fn peak<'a>(record: &'a Record, backend: &str) -> Option<&'a Peak> {
    record.peaks.iter().find(|peak| peak.backend == backend)
}

/// Both peaks of `backend`, where both were measured.
pub(super) fn roofs(record: &Record, backend: &str) -> Option<(f64, f64)> {
    let peak = peak(record, backend)?;
    Some((plottable(peak.multiply_adds_per_s?)?, plottable(peak.bytes_per_s?)?))
}

/// A point's place in the picture.
struct Dot<'a> {
    intensity: f64,
    rate: f64,
    point: &'a Point,
    share: Share,
}

fn dots<'a>(record: &'a Record, backend: &str) -> Vec<Dot<'a>> {
    let of = |point: &'a Point| {
        let intensity = plottable(plottable(point.multiply_adds)? / plottable(point.bytes)?)?;
        let share = share(record, point);
        Some(Dot { intensity, rate: share.multiply_adds_per_s?, point, share })
    };
    let fits = |p: &&Point| p.backend == backend && p.residence == Residence::Resident;
    record.points.iter().filter(fits).filter_map(of).collect()
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 310.0;
const TYPE: f64 = 12.5;

/// The picture of one backend; none where a roof was not measured or nothing stands under them.
pub(super) fn svg(record: &Record, looks: &Looks<'_>, backend: &str, title: &str) -> Option<String> {
    let (arithmetic, memory) = roofs(record, backend)?;
    let dots = dots(record, backend);
    if dots.is_empty() {
        return None;
    }
    // The ridge, where both roofs meet, is always in the picture.
    let ridge = plottable(arithmetic / memory)?;
    let x = Axis::around(dots.iter().map(|dot| dot.intensity).chain([ridge / 3.0, ridge * 3.0]), 58.0, WIDTH - 16.0);
    let rates = dots.iter().map(|dot| dot.rate).chain([arithmetic, arithmetic * 2.0]);
    let y = Axis::around(rates, HEIGHT - 44.0, 26.0);
    let sheet = Sheet { width: WIDTH, height: HEIGHT, title, alone: false };
    Some(picture(&sheet, |canvas| {
        grid(canvas, &x, &y);
        roof(canvas, &x, &y, arithmetic, memory);
        for dot in &dots {
            mark(canvas, &x, &y, dot, looks.get(backend));
        }
    }))
}

fn grid(canvas: &mut Canvas<'_>, x: &Axis, y: &Axis) {
    let (left, right, top, bottom) = (58.0, WIDTH - 16.0, 26.0, HEIGHT - 44.0);
    for tick in y.ticks() {
        let at = y.at(tick);
        canvas.line(&[(left, at), (right, at)], GRID, 1.0);
        let label = prefixed(tick, "").replace(".00", "").replace(".0", "");
        canvas.text((left - 8.0, at), label.trim_end(), TYPE, MUTED, Align::End);
    }
    for tick in x.ticks() {
        let at = x.at(tick);
        canvas.line(&[(at, top), (at, bottom)], GRID, 1.0);
        canvas.text((at, bottom + TYPE * 1.1), &super::numbers::tick_count(tick), TYPE, MUTED, Align::Middle);
    }
    canvas.line(&[(left, bottom), (right, bottom)], MUTED, 1.0);
    let middle = (left + right) / 2.0;
    canvas.text((middle, bottom + TYPE * 2.7), "multiply-adds per byte read", TYPE, TEXT, Align::Middle);
    canvas.text((4.0, top - TYPE), "multiply-adds a second", TYPE, TEXT, Align::Start);
}

fn roof(canvas: &mut Canvas<'_>, x: &Axis, y: &Axis, arithmetic: f64, memory: f64) {
    let (low, high) = x.ends();
    let ridge = arithmetic / memory;
    // The slope begins where the lower edge of the picture is, or its left one.
    let start = low.max(y.ends().0 / memory).min(ridge);
    let place = |intensity: f64| -> Place { (x.at(intensity), y.at((intensity * memory).min(arithmetic))) };
    canvas.line(&[place(start), place(ridge), place(high)], TEXT, 2.0);
    let above = y.at(arithmetic) - TYPE * 0.85;
    let told = format!("peak {}", prefixed(arithmetic, "/s"));
    canvas.text((x.at(high) - 2.0, above), &told, TYPE, TEXT, Align::End);
    let told = prefixed(memory, "B/s");
    let foot = place(start);
    let half = ((foot.0 + x.at(ridge)) / 2.0, (foot.1 + y.at(arithmetic)) / 2.0);
    canvas.text((half.0 - 8.0, half.1 - TYPE * 0.6), &told, TYPE, TEXT, Align::End);
}

fn mark(canvas: &mut Canvas<'_>, x: &Axis, y: &Axis, dot: &Dot<'_>, look: Look) {
    let place = (x.at(dot.intensity), y.at(dot.rate));
    canvas.marker(place, 3.5, look, false);
    let sizes = dot.point.sizes;
    let tip = format!(
        "{}: {} over {} in {}; {} of the multiply-adds, {} of the bytes",
        dot.point.case,
        count(sizes.items),
        shape(sizes.rows, sizes.dim),
        time(dot.point.times.p50_ns),
        dot.share.of_arithmetic.map_or("–".into(), percent),
        dot.share.of_memory.map_or("–".into(), percent),
    );
    canvas.tip(place, 9.0, &tip);
}
