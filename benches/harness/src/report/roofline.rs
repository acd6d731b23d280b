//! How much of what a device can do was done: the share of its measured peaks, and the classic picture with its two roofs.

use std::collections::BTreeMap;

use super::canvas::{Align, Axis, Canvas, Place, Sheet, picture};
use super::numbers::{count, percent, plottable, prefixed, shape, tick_rate, time};
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
const HEIGHT: f64 = 316.0;
const TYPE: f64 = 12.5;
/// What is left free around the axes.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 44.0;

/// The picture of one backend; none where a roof was not measured or nothing stands under them.
pub(super) fn svg(record: &Record, looks: &Looks<'_>, backend: &str, title: &str) -> Option<String> {
    let (arithmetic, memory) = roofs(record, backend)?;
    let dots = dots(record, backend);
    if dots.is_empty() {
        return None;
    }
    // The ridge, where both roofs meet, is always in the picture.
    let ridge = plottable(arithmetic / memory)?;
    let x = Axis::around(dots.iter().map(|dot| dot.intensity).chain([ridge / 3.0, ridge * 3.0]), LEFT, WIDTH - RIGHT);
    let rates = dots.iter().flat_map(|dot| [dot.rate, dot.rate / 2.0]).chain([arithmetic, arithmetic * 2.0]);
    let y = Axis::around(rates, HEIGHT - BOTTOM, TOP);
    let sheet = Sheet { width: WIDTH, height: HEIGHT, title, alone: false };
    Some(picture(&sheet, |canvas| {
        grid(canvas, &x, &y);
        roof(canvas, &x, &y, arithmetic, memory);
        threads(canvas, &x, &y, &dots, looks.get(backend));
        for dot in &dots {
            mark(canvas, &x, &y, dot, looks.get(backend));
        }
    }))
}

fn grid(canvas: &mut Canvas<'_>, x: &Axis, y: &Axis) {
    let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
    for tick in y.ticks() {
        let at = y.at(tick);
        canvas.line(&[(left, at), (right, at)], GRID, 1.0);
        canvas.text((left - 8.0, at), &tick_rate(tick), TYPE, MUTED, Align::End);
    }
    for tick in x.ticks() {
        let at = x.at(tick);
        canvas.line(&[(at, top), (at, bottom)], GRID, 1.0);
        canvas.text((at, bottom + TYPE * 1.1), &super::numbers::tick_count(tick), TYPE, MUTED, Align::Middle);
    }
    canvas.line(&[(left, bottom), (right, bottom)], MUTED, 1.0);
    let middle = (left + right) / 2.0;
    canvas.text((middle, bottom + TYPE * 2.7), "multiply-adds per byte read", TYPE, TEXT, Align::Middle);
    canvas.text((4.0, top - TYPE * 1.45), "multiply-adds a second", TYPE, TEXT, Align::Start);
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

/// A thin line through the points of each corpus, with its rows where there is room.
fn threads(canvas: &mut Canvas<'_>, x: &Axis, y: &Axis, dots: &[Dot<'_>], look: Look) {
    let mut corpora: BTreeMap<(u64, u64, u64, &str), Vec<&Dot<'_>>> = BTreeMap::new();
    for dot in dots.iter().filter(|dot| dot.point.sizes.rows > 0) {
        let s = dot.point.sizes;
        corpora.entry((s.rows, s.dim, s.k, &dot.point.case)).or_default().push(dot);
    }
    let mut lines: Vec<(u64, Vec<Place>)> = Vec::new();
    for ((rows, ..), mut of_one) in corpora {
        of_one.sort_by_key(|dot| dot.point.sizes.items);
        lines.push((rows, of_one.iter().map(|dot| (x.at(dot.intensity), y.at(dot.rate))).collect()));
    }
    let mut taken: Vec<Place> = lines.iter().flat_map(|(_, line)| steps(line)).collect();
    for (rows, line) in &lines {
        canvas.line(line, look.ink, 0.75);
        let label = format!("{} rows", count(*rows));
        let half = 0.28 * TYPE * label.chars().count() as f64;
        // Beside the points from the first on, below their line: above it the roof has its words.
        let mut beside = line.iter().map(|at| (at.0 + 9.0 + half, at.1 + 9.0));
        let free = |middle: &Place| {
            let inside = middle.0 - half > LEFT && middle.0 + half < WIDTH - RIGHT && middle.1 < HEIGHT - BOTTOM - 8.0;
            inside && !taken.iter().any(|p| (p.0 - middle.0).abs() < half + 5.0 && (p.1 - middle.1).abs() < 11.0)
        };
        if let Some(middle) = beside.find(free) {
            canvas.text(middle, &label, TYPE - 1.0, MUTED, Align::Middle);
            taken.extend([(middle.0 - half, middle.1), middle, (middle.0 + half, middle.1)]);
        }
    }
}

/// Places on a line, so close to each other that no label fits between them.
fn steps(line: &[Place]) -> Vec<Place> {
    let between = |pair: &[Place]| {
        let (from, to) = (pair[0], pair[1]);
        (0..=12).map(move |nth| {
            let part = f64::from(nth) / 12.0;
            (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part)
        })
    };
    line.windows(2).flat_map(between).collect()
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

#[cfg(test)]
mod tests {
    use super::super::testing::search;
    use super::share;
    use crate::record::{Machine, Peak, Record};

    fn record(peaks: Vec<Peak>) -> Record {
        let machine = Machine {
            processor: String::new(),
            threads: 1,
            system: String::new(),
            memory_bytes: None,
            version: String::new(),
            command: String::new(),
            started_unix_s: 0,
            took_s: 0.0,
        };
        Record {
            schema: 1,
            machine,
            backends: Vec::new(),
            peaks,
            points: Vec::new(),
            crossovers: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn shares_are_those_of_the_backends_own_peaks() {
        let peak = |backend: &str, multiply_adds_per_s, bytes_per_s| Peak {
            backend: backend.into(),
            multiply_adds_per_s,
            bytes_per_s,
            how: String::new(),
        };
        let record = record(vec![peak("cuda", Some(1.0), Some(1.0)), peak("cpu", Some(76.8e9), None)]);
        // 38,400 in a microsecond are 38.4 G a second.
        let got = share(&record, &search("cpu", 1_000.0, [0.0, 0.0]));
        assert_eq!((got.multiply_adds_per_s, got.of_arithmetic, got.of_memory), (Some(38.4e9), Some(0.5), None));
        let unknown = share(&record, &search("wgpu", 1_000.0, [0.0, 0.0]));
        assert_eq!((unknown.of_arithmetic, unknown.of_memory), (None, None));
        let broken = share(&record, &search("cpu", 0.0, [0.0, 0.0]));
        assert_eq!((broken.multiply_adds_per_s, broken.bytes_per_s), (None, None));
    }
}
