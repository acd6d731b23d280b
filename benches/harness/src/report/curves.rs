//! Curves on logarithmic axes: latency and throughput against the batch or the rows, all backends in one picture.

use super::canvas::{Align, Axis, Canvas, Place, Sheet, picture};
use super::numbers::{self, count, short, time};
use super::series::{Dot, Group, Line, things, throughput};
use super::theme::{DOUBT, GRID, Look, Looks, MUTED, TEXT, suffix};
use crate::record::{self, Residence};

/// What is drawn upwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// The median, with a band up to the 95th and 99th percentile.
    Latency,
    /// Items a second at the median.
    Throughput,
}

/// A picture of one group.
pub(super) struct Plot<'a> {
    pub(super) group: &'a Group<'a>,
    pub(super) looks: &'a Looks<'a>,
    pub(super) suite: &'a str,
    pub(super) axis: record::Axis,
    pub(super) measure: Measure,
    /// Values that the upward axis has to hold, so that pictures beside each other have the same one.
    pub(super) range: &'a [f64],
}

/// A frame's place within its picture, and sizes of type.
pub(super) struct Layout {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) type_size: f64,
    pub(super) point: f64,
    pub(super) line: f64,
}

/// Sizes of a picture on the page, in pixels before a narrow screen shrinks it.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 306.0;

impl Plot<'_> {
    /// The picture for the page.
    pub(super) fn svg(&self, title: &str) -> String {
        let layout = Layout {
            left: 58.0,
            right: WIDTH - 88.0,
            top: 32.0,
            bottom: HEIGHT - 44.0,
            type_size: 12.5,
            point: 3.5,
            line: 2.0,
        };
        picture(&Sheet { width: WIDTH, height: HEIGHT, title, alone: false }, |canvas| self.draw(canvas, &layout))
    }

    /// Draws axes and lines within `layout`.
    pub(super) fn draw(&self, canvas: &mut Canvas<'_>, layout: &Layout) {
        let places = self.group.places();
        let x = Axis::around(places.iter().copied(), layout.left, layout.right);
        let y = Axis::around(self.range.iter().copied(), layout.bottom, layout.top);
        self.grid(canvas, layout, &x, &y, &places);
        for line in &self.group.lines {
            self.band(canvas, line, &x, &y);
        }
        // The CPU, which comes first, is drawn last: the line that others are held against lies on top.
        for line in self.group.lines.iter().rev() {
            self.curve(canvas, layout, line, &x, &y);
        }
        self.labels(canvas, layout, &x, &y);
    }

    fn grid(&self, canvas: &mut Canvas<'_>, layout: &Layout, x: &Axis, y: &Axis, places: &[f64]) {
        let size = layout.type_size;
        for tick in y.ticks() {
            let at = y.at(tick);
            canvas.line(&[(layout.left, at), (layout.right, at)], GRID, 1.0);
            let label = match self.measure {
                Measure::Latency => numbers::tick_time(tick),
                Measure::Throughput => numbers::tick_rate(tick),
            };
            canvas.text((layout.left - 8.0, at), &label, size, MUTED, Align::End);
        }
        for place in x.labelled(places, size * 3.2) {
            let at = x.at(place);
            canvas.line(&[(at, layout.top), (at, layout.bottom)], GRID, 1.0);
            let label = numbers::tick_count(place);
            canvas.text((at, layout.bottom + size * 1.1), &label, size, MUTED, Align::Middle);
        }
        canvas.line(&[(layout.left, layout.bottom), (layout.right, layout.bottom)], MUTED, 1.0);
        let (across, upwards) = self.axis_names();
        let middle = (layout.left + layout.right) / 2.0;
        canvas.text((middle, layout.bottom + size * 2.7), &across, size, TEXT, Align::Middle);
        canvas.text((4.0_f64.max(layout.left - 54.0), layout.top - size * 1.45), &upwards, size, TEXT, Align::Start);
    }

    fn axis_names(&self) -> (String, String) {
        let items = things(self.suite, true);
        let across = match self.axis {
            record::Axis::Items => format!("batch ({items})"),
            record::Axis::Rows => "rows of the corpus".to_owned(),
        };
        let upwards = match self.measure {
            Measure::Latency => "time of a batch: median, band to p95 and p99".to_owned(),
            Measure::Throughput => format!("{items} a second"),
        };
        (across, upwards)
    }

    fn value(&self, dot: &Dot<'_>) -> Option<f64> {
        match self.measure {
            Measure::Latency => Some(dot.p50),
            Measure::Throughput => throughput(dot.point),
        }
    }

    fn band(&self, canvas: &mut Canvas<'_>, line: &Line<'_>, x: &Axis, y: &Axis) {
        if self.measure == Measure::Throughput || line.points.len() < 2 {
            return;
        }
        let ink = self.looks.get(line.backend).ink;
        // A cold line's band is fainter: it is often as wide as the axis is high there.
        let opacity = if line.residence == Residence::Cold { 0.08 } else { 0.16 };
        // Both are laid over each other: darker up to p95, lighter up to p99.
        for upper in [|dot: &Dot<'_>| dot.p95, |dot: &Dot<'_>| dot.p99] {
            let above = line.points.iter().map(|dot| (x.at(dot.x), y.at(upper(dot))));
            let below = line.points.iter().rev().map(|dot| (x.at(dot.x), y.at(dot.p50)));
            canvas.polygon(&above.chain(below).collect::<Vec<Place>>(), ink, opacity);
        }
    }

    fn curve(&self, canvas: &mut Canvas<'_>, layout: &Layout, line: &Line<'_>, x: &Axis, y: &Axis) {
        let look = self.looks.get(line.backend);
        let cold = line.residence == Residence::Cold;
        let dots = line.points.iter().filter_map(|dot| Some((dot, (x.at(dot.x), y.at(self.value(dot)?)))));
        let dots: Vec<(&Dot<'_>, Place)> = dots.collect();
        let places: Vec<Place> = dots.iter().map(|(_, place)| *place).collect();
        if places.len() > 1 && cold {
            canvas.dashes(&places, look.ink, layout.line * 0.8);
        } else if places.len() > 1 {
            canvas.line(&places, look.ink, layout.line);
        }
        for (dot, place) in dots {
            canvas.marker(place, layout.point, look, cold);
            if !dot.point.times.doubts.is_empty() {
                canvas.ring(place, layout.point + 3.5, DOUBT, 1.5);
            }
            canvas.tip(place, layout.point + 5.0, &self.tip(line, dot));
        }
    }

    fn tip(&self, line: &Line<'_>, dot: &Dot<'_>) -> String {
        let sizes = dot.point.sizes;
        let times = &dot.point.times;
        let mut tip = format!("{}{}, batch of {}", line.backend, suffix(line.residence), count(sizes.items));
        if sizes.rows > 0 {
            tip += &format!(" over {}", numbers::shape(sizes.rows, sizes.dim));
        }
        tip += &format!(": p50 {}, p95 {}, p99 {}", time(times.p50_ns), time(times.p95_ns), time(times.p99_ns));
        if let Some(rate) = throughput(dot.point) {
            tip += &format!("; {}", numbers::rate(rate, things(self.suite, true)));
        }
        for doubt in &times.doubts {
            tip += &format!("; doubtful: {doubt}");
        }
        tip
    }

    /// Names at the ends of the lines, moved apart where lines end close to each other.
    fn labels(&self, canvas: &mut Canvas<'_>, layout: &Layout, x: &Axis, y: &Axis) {
        let end = |line: &Line<'_>| {
            let last = line.points.iter().rev().find_map(|dot| Some((x.at(dot.x), y.at(self.value(dot)?))))?;
            let name = format!("{}{}", short(line.backend, 11), suffix(line.residence));
            Some((last, name, self.looks.get(line.backend)))
        };
        let mut ends: Vec<(Place, String, Look)> = self.group.lines.iter().filter_map(end).collect();
        ends.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
        let wanted: Vec<f64> = ends.iter().map(|(place, ..)| place.1).collect();
        let heights = spread(&wanted, layout.type_size * 1.15, layout.top, layout.bottom);
        for (((_, at), name, look), height) in ends.into_iter().zip(heights) {
            let from = layout.right + 2.0;
            if (height - at).abs() > 3.0 {
                canvas.line(&[(from - 5.0, at), (from + 4.0, height)], look.ink, 0.75);
            }
            canvas.bold((from + 6.0, height), &name, layout.type_size, look.ink, Align::Start);
        }
    }
}

/// Heights as close to the `wanted`, which rise, as they can be when each keeps `gap` from the next and all lie between the ends.
fn spread(wanted: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    // Blocks of labels that touch, each with its middle and number of labels: the middle is where the labels on average want to be.
    let mut blocks: Vec<(f64, f64)> = Vec::new();
    for height in wanted {
        let mut block = (*height, 1.0);
        while let Some(above) = blocks.last().copied() {
            if block.0 - above.0 >= gap * f64::midpoint(above.1, block.1) {
                break;
            }
            blocks.pop();
            let labels = above.1 + block.1;
            block = ((above.0 * above.1 + block.0 * block.1) / labels, labels);
        }
        blocks.push(block);
    }
    let place = |(middle, labels): (f64, f64)| {
        let half = gap * (labels - 1.0) / 2.0;
        // The upper end goes first where there is no room for all.
        let middle = middle.min(bottom - half).max(top + half);
        (0..labels as usize).map(move |nth| middle - half + gap * nth as f64)
    };
    blocks.into_iter().flat_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn labels_keep_their_distance_and_their_order() {
        let heights = spread(&[10.0, 11.0, 12.0, 99.0], 14.0, 0.0, 100.0);
        assert_eq!(heights, [0.0, 14.0, 28.0, 99.0]);
        let heights = spread(&[50.0, 51.0, 90.0], 14.0, 0.0, 100.0);
        assert_eq!(heights, [43.5, 57.5, 90.0]);
        let heights = spread(&[97.0, 98.0, 99.0], 14.0, 0.0, 100.0);
        assert_eq!(heights, [72.0, 86.0, 100.0]);
        assert!(spread(&[], 14.0, 0.0, 100.0).is_empty());
    }
}
