//! The points of a record, sorted into pictures and lines.

use std::collections::{BTreeMap, BTreeSet};

use super::numbers::plottable;
use super::theme::Looks;
use crate::record::{Axis, Point, Record, Residence};

/// What the points of one picture have in common. The size that grows along its axis is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject<'a> {
    pub(super) case: &'a str,
    pub(super) dim: u64,
    pub(super) k: u64,
    pub(super) rows: u64,
    pub(super) items: u64,
}

/// One backend's points, by the size that grows.
pub(super) struct Line<'a> {
    pub(super) backend: &'a str,
    pub(super) residence: Residence,
    pub(super) points: Vec<Dot<'a>>,
}

/// A point that can be drawn: all of its numbers have a place on a logarithmic axis, and `p50 <= p95 <= p99`.
#[derive(Clone, Copy)]
pub(super) struct Dot<'a> {
    pub(super) x: f64,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) point: &'a Point,
}

impl<'a> Dot<'a> {
    fn of(point: &'a Point, axis: Axis) -> Option<Self> {
        let x = plottable(grows(point, axis) as f64)?;
        let p50 = plottable(point.times.p50_ns)?;
        let p95 = plottable(point.times.p95_ns).unwrap_or(p50).max(p50);
        let p99 = plottable(point.times.p99_ns).unwrap_or(p95).max(p95);
        Some(Self { x, p50, p95, p99, point })
    }
}

/// A picture's points.
pub(super) struct Group<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) lines: Vec<Line<'a>>,
}

impl Group<'_> {
    /// The places on the axis at which something was measured, in rising order.
    pub(super) fn places(&self) -> Vec<f64> {
        let all: BTreeSet<u64> = self.lines.iter().flat_map(|line| &line.points).map(|dot| dot.x as u64).collect();
        all.into_iter().map(|x| x as f64).collect()
    }

    /// Smallest and largest time that is drawn.
    pub(super) fn times(&self) -> impl Iterator<Item = f64> {
        self.lines.iter().flat_map(|line| &line.points).flat_map(|dot| [dot.p50, dot.p99])
    }

    /// Jobs' items a second.
    pub(super) fn rates(&self) -> impl Iterator<Item = f64> {
        self.lines.iter().flat_map(|line| &line.points).filter_map(|dot| throughput(dot.point))
    }
}

fn grows(point: &Point, axis: Axis) -> u64 {
    match axis {
        Axis::Items => point.sizes.items,
        Axis::Rows => point.sizes.rows,
    }
}

/// Items answered a second at the median, where that can be drawn.
pub(super) fn throughput(point: &Point) -> Option<f64> {
    plottable(point.times.p50_ns).and_then(|ns| plottable(point.sizes.items as f64 * 1e9 / ns))
}

/// The pictures of a suite along `axis`: one for each combination of the other sizes, in their order.
pub(super) fn groups<'a>(record: &'a Record, looks: &Looks<'_>, suite: &str, axis: Axis) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<Subject<'a>, Vec<Line<'a>>> = BTreeMap::new();
    for point in record.points.iter().filter(|point| point.suite == suite) {
        let Some(dot) = Dot::of(point, axis) else { continue };
        let s = point.sizes;
        let (rows, items) = match axis {
            Axis::Items => (s.rows, 0),
            Axis::Rows => (0, s.items),
        };
        let subject = Subject { case: &point.case, dim: s.dim, k: s.k, rows, items };
        let lines = groups.entry(subject).or_default();
        let same = |line: &&mut Line<'_>| line.backend == point.backend && line.residence == point.residence;
        match lines.iter_mut().find(same) {
            Some(line) => line.points.push(dot),
            None => lines.push(Line { backend: &point.backend, residence: point.residence, points: vec![dot] }),
        }
    }
    let sorted = |(subject, mut lines): (_, Vec<Line<'a>>)| {
        lines.sort_by_key(|line| (looks.order(line.backend), line.residence));
        for line in &mut lines {
            line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
            line.points.dedup_by(|later, first| later.x == first.x);
        }
        Group { subject, lines }
    };
    groups.into_iter().map(sorted).collect()
}

/// Groups along the rows at the smallest batch of each case, where more than one number of rows was measured.
pub(super) fn by_rows<'a>(record: &'a Record, looks: &Looks<'_>, suite: &str) -> Vec<Group<'a>> {
    let mut all = groups(record, looks, suite, Axis::Rows);
    // In the order of subjects the smallest batch comes first.
    all.dedup_by(|later, first| {
        let key = |g: &Group<'_>| (g.subject.case.to_owned(), g.subject.dim, g.subject.k);
        key(later) == key(first)
    });
    all.retain(|group| group.places().len() > 1);
    all
}

/// Suites of a record in the order in which they are told.
pub(super) fn suites(record: &Record) -> Vec<&str> {
    let mut suites: Vec<&str> = Vec::new();
    for point in &record.points {
        if !suites.contains(&point.suite.as_str()) {
            suites.push(&point.suite);
        }
    }
    let known = ["search", "encode", "ring", "grpc"];
    suites.sort_by_key(|suite| known.iter().position(|name| name == suite).unwrap_or(known.len()));
    suites
}

/// What the items of a suite are, for a sentence about `many` of them.
pub(super) fn things(suite: &str, many: bool) -> &'static str {
    match (suite, many) {
        ("search" | "grpc", true) => "queries",
        ("search" | "grpc", false) => "query",
        ("encode", true) => "memories",
        ("encode", false) => "memory",
        ("ring", true) => "jobs",
        ("ring", false) => "job",
        (_, true) => "items",
        (_, false) => "item",
    }
}

/// A corpus of usual size among those measured: the middle one.
pub(super) fn usual_rows<'a>(points: impl Iterator<Item = &'a Point>) -> Option<u64> {
    let rows: BTreeSet<u64> = points.map(|point| point.sizes.rows).collect();
    rows.iter().nth(rows.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::testing::search;
    use super::{Axis, Dot, usual_rows};

    #[test]
    fn a_point_is_drawn_with_percentiles_in_order_or_not_at_all() {
        let mut point = search("cpu", 10.0, [9.0, 11.0]);
        (point.times.p95_ns, point.times.p99_ns) = (f64::NAN, f64::INFINITY);
        let dot = Dot::of(&point, Axis::Items).unwrap();
        assert_eq!((dot.x, dot.p50, dot.p95, dot.p99), (1.0, 10.0, 10.0, 10.0));
        (point.times.p95_ns, point.times.p99_ns) = (30.0, 20.0);
        let dot = Dot::of(&point, Axis::Rows).unwrap();
        assert_eq!((dot.x, dot.p95, dot.p99), (100.0, 30.0, 30.0));
        point.sizes.items = 0;
        assert!(Dot::of(&point, Axis::Items).is_none());
        assert!(Dot::of(&search("cpu", 0.0, [0.0, 0.0]), Axis::Items).is_none());
    }

    #[test]
    fn the_usual_corpus_is_the_middle_one() {
        let of = |all: &[u64]| {
            let points: Vec<_> = all.iter().map(|rows| (*rows, search("cpu", 1.0, [1.0, 1.0]))).collect();
            let points: Vec<_> = points
                .into_iter()
                .map(|(rows, mut point)| {
                    point.sizes.rows = rows;
                    point
                })
                .collect();
            usual_rows(points.iter())
        };
        assert_eq!([of(&[]), of(&[7]), of(&[9, 1, 5]), of(&[4, 3, 2, 1])], [None, Some(7), Some(5), Some(2)]);
    }
}
