//! The map of winners: which backend is the quickest at which batch and number of rows, by how much, and from where on.

use std::collections::BTreeSet;

use super::canvas::{Align, Canvas, Place, Sheet, picture};
use super::numbers::{count, factor, plottable, shape, short, tick_count, time};
use super::theme::{GRID, Look, Looks, MUTED, ON_COLOUR, SURFACE, TEXT};
use crate::record::{Axis, Crossover, Point, Record, Residence};

/// What one map is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject<'a> {
    pub(super) case: &'a str,
    pub(super) dim: u64,
    pub(super) k: u64,
    pub(super) residence: Residence,
}

/// Who wins at one size.
pub(super) struct Win<'a> {
    pub(super) best: &'a Point,
    pub(super) second: &'a Point,
    /// The second's median in the best's.
    pub(super) factor: f64,
    /// The confidence intervals of both overlap: nobody knows who won.
    pub(super) tie: bool,
}

impl Win<'_> {
    /// Whether one of the two times is doubted.
    pub(super) fn doubted(&self) -> bool {
        [self.best, self.second].iter().any(|point| !point.times.doubts.is_empty())
    }
}

/// Who wins among measurements of one size; none where fewer than two backends have a time.
pub(super) fn winner<'a>(points: impl IntoIterator<Item = &'a Point>) -> Option<Win<'a>> {
    let mut timed: Vec<&Point> = points.into_iter().filter(|p| plottable(p.times.p50_ns).is_some()).collect();
    timed.sort_by(|a, b| a.times.p50_ns.total_cmp(&b.times.p50_ns));
    let best = *timed.first()?;
    let second = *timed.iter().find(|point| point.backend != best.backend)?;
    let factor = second.times.p50_ns / best.times.p50_ns;
    // An interval that is none, such as one that ends before it begins, does not make a tie.
    let tie = best.times.ci_ns[1] >= second.times.ci_ns[0] && second.times.ci_ns[1] >= best.times.ci_ns[0];
    Some(Win { best, second, factor, tie })
}

/// The maps that a record has: those of searches where at least two backends were measured at the same size.
pub(super) fn subjects(record: &Record) -> Vec<Subject<'_>> {
    let of = |p: &'_ Point| p.suite == "search" && p.sizes.rows > 0 && p.sizes.items > 0;
    let all: BTreeSet<Subject<'_>> = record.points.iter().filter(|p| of(p)).map(subject).collect();
    all.into_iter().filter(|subject| cells(record, subject).iter().any(|(_, win)| win.is_some())).collect()
}

fn subject(point: &Point) -> Subject<'_> {
    Subject { case: &point.case, dim: point.sizes.dim, k: point.sizes.k, residence: point.residence }
}

type Cell<'a> = ((u64, u64), Option<Win<'a>>);

/// All cells by rows and batch. A backend that has no cold times, because it uploads nothing, stands in a cold map with its resident ones.
fn cells<'a>(record: &'a Record, of: &Subject<'_>) -> Vec<Cell<'a>> {
    let fits = |p: &&Point| {
        p.suite == "search"
            && p.case == of.case
            && p.sizes.dim == of.dim
            && p.sizes.k == of.k
            && p.sizes.rows > 0
            && p.sizes.items > 0
    };
    let all: Vec<&Point> = record.points.iter().filter(fits).collect();
    let uploads: BTreeSet<&str> =
        all.iter().filter(|p| p.residence == Residence::Cold).map(|p| p.backend.as_str()).collect();
    let counts = |p: &&&Point| {
        p.residence == of.residence || (of.residence == Residence::Cold && !uploads.contains(p.backend.as_str()))
    };
    let counted: Vec<&Point> = all.iter().filter(counts).copied().collect();
    let places: BTreeSet<(u64, u64)> =
        counted.iter().filter(|p| p.residence == of.residence).map(|p| (p.sizes.rows, p.sizes.items)).collect();
    let cell = |place: (u64, u64)| {
        let here = counted.iter().copied().filter(|p| (p.sizes.rows, p.sizes.items) == place);
        (place, winner(here))
    };
    places.into_iter().map(cell).collect()
}

const CELL: (f64, f64) = (84.0, 42.0);
const LEFT: f64 = 64.0;
const TOP: f64 = 38.0;
const TYPE: f64 = 12.5;

struct Map<'a> {
    rows: Vec<u64>,
    items: Vec<u64>,
    cells: Vec<Cell<'a>>,
    looks: &'a Looks<'a>,
}

/// The map of `of` as SVG.
pub(super) fn svg(record: &Record, looks: &Looks<'_>, of: &Subject<'_>, title: &str) -> String {
    let cells = cells(record, of);
    let rows: BTreeSet<u64> = cells.iter().map(|((rows, _), _)| *rows).collect();
    let items: BTreeSet<u64> = cells.iter().map(|((_, items), _)| *items).collect();
    let map = Map { rows: rows.into_iter().collect(), items: items.into_iter().collect(), cells, looks };
    let width = LEFT + CELL.0 * map.rows.len() as f64 + 36.0;
    let height = TOP + CELL.1 * map.items.len() as f64 + 44.0;
    picture(&Sheet { width, height, title, alone: false }, |canvas| {
        map.axes(canvas);
        for (place, win) in &map.cells {
            map.cell(canvas, *place, win.as_ref());
        }
        let fits = |c: &&Crossover| {
            c.case == of.case
                && c.axis == Axis::Items
                && c.residence == of.residence
                && c.at.dim == of.dim
                && c.at.k == of.k
        };
        map.frontiers(canvas, record.crossovers.iter().filter(fits));
    })
}

impl Map<'_> {
    fn column(&self, rows: u64) -> Option<f64> {
        self.rows.iter().position(|r| *r == rows).map(|i| LEFT + CELL.0 * i as f64)
    }

    /// The lower edge of a batch's cells: batches grow upwards.
    fn floor(&self, items: u64) -> Option<f64> {
        self.items.iter().position(|i| *i == items).map(|i| TOP + CELL.1 * (self.items.len() - i) as f64)
    }

    fn axes(&self, canvas: &mut Canvas<'_>) {
        let bottom = TOP + CELL.1 * self.items.len() as f64;
        canvas.text((4.0, TYPE), "batch (queries)", TYPE, TEXT, Align::Start);
        for items in &self.items {
            let y = self.floor(*items).unwrap_or(bottom) - CELL.1 / 2.0;
            canvas.text((LEFT - 8.0, y), &tick_count(*items as f64), TYPE, MUTED, Align::End);
        }
        for rows in &self.rows {
            let x = self.column(*rows).unwrap_or(LEFT) + CELL.0 / 2.0;
            canvas.text((x, bottom + TYPE * 1.2), &tick_count(*rows as f64), TYPE, MUTED, Align::Middle);
        }
        let middle = LEFT + CELL.0 * self.rows.len() as f64 / 2.0;
        canvas.text((middle, bottom + TYPE * 2.7), "rows of the corpus", TYPE, TEXT, Align::Middle);
    }

    fn cell(&self, canvas: &mut Canvas<'_>, (rows, items): (u64, u64), win: Option<&Win<'_>>) {
        let (Some(left), Some(floor)) = (self.column(rows), self.floor(items)) else { return };
        let (from, to) = ((left + 1.0, floor - CELL.1 + 1.0), (left + CELL.0 - 1.0, floor - 1.0));
        let centre: Place = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
        let Some(win) = win else {
            canvas.rectangle(from, to, GRID, 0.5);
            return;
        };
        let look = self.looks.get(&win.best.backend);
        canvas.rectangle(from, to, look.ink, 1.0);
        let name = short(&win.best.backend, 11);
        let (ink, told) = if win.tie {
            canvas.rectangle((from.0 + 2.0, from.1 + 2.0), (to.0 - 2.0, to.1 - 2.0), SURFACE, 1.0);
            (TEXT, "tie".to_owned())
        } else {
            (ON_COLOUR, factor(win.factor))
        };
        let sign = if win.tie { format!("{name}?") } else { name };
        let sign = if win.doubted() { format!("{sign} !") } else { sign };
        canvas.bold((centre.0, centre.1 - 8.5), &told, TYPE + 1.0, ink, Align::Middle);
        canvas.text((centre.0, centre.1 + 6.5), &sign, TYPE - 1.0, ink, Align::Middle);
        canvas.tip(centre, CELL.1 / 2.0, &tip(win));
    }

    /// For each backend the line beyond which it always wins: across each column under its first winning batch.
    fn frontiers<'c>(&self, canvas: &mut Canvas<'_>, crossovers: impl Iterator<Item = &'c Crossover>) {
        let mut all: Vec<&Crossover> = crossovers.filter(|c| self.column(c.at.rows).is_some()).collect();
        all.sort_by_key(|c| (self.looks.order(&c.backend), c.at.rows));
        let mut ends: Vec<(Place, Look)> = Vec::new();
        for (nth, of_one) in all.chunk_by(|a, b| a.backend == b.backend).enumerate() {
            if of_one.iter().all(|c| c.from.is_none()) {
                continue;
            }
            // Lines fall to the right; the next lies to the upper right of the one before, so that both are seen where they go together.
            let aside = 4.0 * nth as f64;
            let mut places: Vec<Place> = Vec::new();
            for crossover in of_one {
                let Some(left) = self.column(crossover.at.rows) else { continue };
                // Where it never wins, the line leaves the map at the top.
                let height = crossover.from.and_then(|from| self.floor(from)).unwrap_or(TOP);
                places.extend([(left + aside, height - aside), (left + CELL.0 + aside, height - aside)]);
            }
            if let Some(end) = places.last_mut() {
                // So do the marks at the ends.
                end.0 += 7.0 + 11.0 * nth as f64;
            }
            ends.extend(places.last().map(|end| (*end, self.looks.get(&of_one[0].backend))));
            canvas.line(&places, SURFACE, 6.0);
            if nth == 0 {
                canvas.line(&places, TEXT, 3.0);
            } else {
                canvas.dashes(&places, TEXT, 3.0);
            }
        }
        for (end, look) in ends {
            canvas.marker(end, 5.5, look, false);
        }
    }
}

fn tip(win: &Win<'_>) -> String {
    let Win { best, second, .. } = win;
    let sizes = best.sizes;
    let verdict = if win.tie { "their confidence intervals overlap".into() } else { factor(win.factor) };
    format!(
        "{} over {}: {} {}, {} {}, {verdict}",
        count(sizes.items),
        shape(sizes.rows, sizes.dim),
        best.backend,
        time(best.times.p50_ns),
        second.backend,
        time(second.times.p50_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::search;
    use super::winner;

    #[test]
    fn the_smallest_median_wins_unless_the_intervals_overlap() {
        let (cpu, cuda) = (search("cpu", 120.0, [110.0, 130.0]), search("cuda", 40.0, [39.0, 41.0]));
        let win = winner([&cpu, &cuda]).unwrap();
        assert_eq!((win.best.backend.as_str(), win.factor, win.tie), ("cuda", 3.0, false));
        let close = search("wgpu", 42.0, [40.5, 44.0]);
        let win = winner([&cpu, &cuda, &close]).unwrap();
        assert_eq!((win.best.backend.as_str(), win.second.backend.as_str(), win.tie), ("cuda", "wgpu", true));
    }

    #[test]
    fn nobody_wins_alone_or_without_a_time() {
        let (cpu, broken) = (search("cpu", 120.0, [110.0, 130.0]), search("cuda", f64::NAN, [0.0, 0.0]));
        assert!(winner([&cpu]).is_none());
        assert!(winner([&cpu, &cpu]).is_none());
        assert!(winner([&cpu, &broken]).is_none());
        assert!(winner([]).is_none());
    }
}
