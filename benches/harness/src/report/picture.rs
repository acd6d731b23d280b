//! The one picture that stands for a run: latency against the batch, as a file that reads on light and dark pages.

use std::error::Error;
use std::fmt;

use super::canvas::{Align, Canvas, Sheet, picture};
use super::curves::{Layout, Measure, Plot};
use super::numbers::{count, shape, short};
use super::series::{Group, groups};
use super::theme::{Looks, MUTED, TEXT};
use crate::record::{Axis, Record, Residence};

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPicture {
    /// What was measured instead: rows, dimensions and k.
    pub measured: Vec<(u64, u64, u64)>,
}

impl fmt::Display for NoPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.measured.is_empty() {
            return write!(f, "no search was measured, so there is nothing to draw");
        }
        let list: Vec<String> =
            self.measured.iter().map(|(rows, dim, k)| format!("{rows} rows x {dim}, k {k}")).collect();
        write!(f, "no search of these sizes was measured; there are: {}", list.join("; "))
    }
}

impl Error for NoPicture {}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;

/// Latency of searches against the batch, all backends in one picture, for one corpus and `k`. Without `sizes` (rows, dimensions, `k`) it
/// shows the corpus in the middle of those with as many lines as any and at least half as many points as the fullest: small corpora, of
/// which there is time for every batch, say little.
///
/// The file has a background of its own and dark colours for readers whose system is dark.
///
/// # Errors
/// If no search of the sizes was measured; the error lists those that were.
pub fn svg_latency(record: &Record, sizes: Option<(u64, u64, u64)>) -> Result<String, NoPicture> {
    let looks = Looks::of(record);
    let groups = groups(record, &looks, "search", Axis::Items);
    let of = |group: &Group<'_>| (group.subject.rows, group.subject.dim, group.subject.k);
    let points = |group: &Group<'_>| group.lines.iter().map(|line| line.points.len()).sum::<usize>();
    let mut fitting: Vec<&Group<'_>> =
        groups.iter().filter(|group| sizes.is_none_or(|sizes| sizes == of(group))).collect();
    let lines = fitting.iter().map(|group| group.lines.len()).max();
    fitting.retain(|group| Some(group.lines.len()) == lines);
    let most = fitting.iter().map(|group| points(group)).max().unwrap_or(0);
    fitting.retain(|group| 2 * points(group) >= most);
    // Of one case, dimension and k, which come in this order.
    let alike = |a: &Group<'_>, b: &Group<'_>| {
        (a.subject.case, a.subject.dim, a.subject.k) == (b.subject.case, b.subject.dim, b.subject.k)
    };
    let like_first = fitting.iter().take_while(|group| alike(group, fitting[0])).count();
    let best = fitting.get(like_first.saturating_sub(1) / 2).copied();
    let Some(group) = best else {
        return Err(NoPicture { measured: groups.iter().map(of).collect() });
    };
    let range: Vec<f64> = group.times().collect();
    let plot =
        Plot { group, looks: &looks, suite: "search", axis: Axis::Items, measure: Measure::Latency, range: &range };
    let (rows, dim, k) = of(group);
    let title = format!("Time of a batch of searches over {}, k = {}", shape(rows, dim), count(k));
    let sheet = Sheet { width: WIDTH, height: HEIGHT, title: &title, alone: true };
    Ok(picture(&sheet, |canvas| {
        heading(canvas, record, &title);
        let layout = Layout {
            left: 74.0,
            right: WIDTH - 112.0,
            top: 96.0,
            bottom: HEIGHT - 80.0,
            type_size: 14.5,
            point: 4.5,
            line: 2.5,
        };
        plot.draw(canvas, &layout);
        footing(canvas, record, group);
    }))
}

fn heading(canvas: &mut Canvas<'_>, record: &Record, title: &str) {
    canvas.bold((20.0, 26.0), title, 18.0, TEXT, Align::Start);
    let device = |device: &crate::record::Device| {
        let emulated = if device.emulated { ", emulated" } else { "" };
        format!("{}: {}{emulated}", device.backend, device.device)
    };
    let devices: Vec<String> = record.backends.iter().map(device).collect();
    let line = if devices.is_empty() { record.machine.processor.clone() } else { devices.join("  ·  ") };
    canvas.text((20.0, 50.0), &short(&line, 118), 13.0, MUTED, Align::Start);
}

/// How to read the lines, and what made them.
fn footing(canvas: &mut Canvas<'_>, record: &Record, group: &Group<'_>) {
    let mut notes = Vec::new();
    if group.lines.iter().any(|line| line.residence == Residence::Cold) {
        notes.push("dashed: the corpus is uploaded within the time".to_owned());
    }
    if group.lines.iter().flat_map(|line| &line.points).any(|dot| !dot.point.times.doubts.is_empty()) {
        notes.push("ringed: doubtful".to_owned());
    }
    notes.push(format!("megaring {}", record.machine.version));
    canvas.text((20.0, HEIGHT - 16.0), &short(&notes.join("  ·  "), 120), 12.5, MUTED, Align::Start);
}
