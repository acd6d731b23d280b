//! The points of a record, sorted for pictures and maps, and what is computed of them.

use std::collections::BTreeMap;

use super::numbers::{count, plottable, shape};
use crate::record::{Peak, Point, Record, Residence};

/// What the points of one picture have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject<'a> {
    pub(super) case: &'a str,
    pub(super) dim: u64,
    pub(super) k: u64,
    pub(super) rows: u64,
}

impl Subject<'_> {
    /// Such as `5,562 × 384, k = 10`; the case where there is no corpus.
    pub(super) fn told(&self) -> String {
        if self.rows == 0 {
            self.case.to_owned()
        } else {
            format!("{}, k = {}", shape(self.rows, self.dim), count(self.k))
        }
    }
}

/// The points of one picture: of each backend and residence, by the size of the batch.
pub(super) type Lines<'a> = BTreeMap<(&'a str, Residence), BTreeMap<u64, &'a Point>>;

/// A suite's points that can be drawn.
pub(super) fn groups<'a>(record: &'a Record, suite: &str) -> BTreeMap<Subject<'a>, Lines<'a>> {
    let mut groups: BTreeMap<Subject<'a>, Lines<'a>> = BTreeMap::new();
    for point in drawable(record, suite) {
        let (s, case) = (point.sizes, &*point.case);
        let subject = Subject { case, dim: s.dim, k: s.k, rows: s.rows };
        let lines = groups.entry(subject).or_default();
        lines.entry((&point.backend, point.residence)).or_default().insert(s.items, point);
    }
    groups
}

/// A suite's points whose batch and median have a place on a logarithmic axis.
pub(super) fn drawable<'a>(record: &'a Record, suite: &str) -> impl Iterator<Item = &'a Point> {
    record.points.iter().filter(move |p| p.suite == suite && throughput(p).is_some() && p.sizes.items > 0)
}

/// Items answered a second at the median.
pub(super) fn throughput(point: &Point) -> Option<f64> {
    plottable(point.times.p50_ns).and_then(|ns| plottable(point.sizes.items as f64 * 1e9 / ns))
}

/// Who wins at one size.
pub(super) struct Win<'a> {
    pub(super) best: &'a Point,
    /// The quickest of another backend.
    pub(super) second: &'a Point,
    /// The confidence intervals of both overlap: nobody knows who won.
    pub(super) tie: bool,
}

impl Win<'_> {
    /// The second's median in the best's.
    pub(super) fn factor(&self) -> f64 {
        self.second.times.p50_ns / self.best.times.p50_ns
    }

    /// Whether one of the two times is doubted.
    pub(super) fn doubted(&self) -> bool {
        [self.best, self.second].iter().any(|point| !point.times.doubts.is_empty())
    }
}

/// Who wins at each batch of one picture; none where only one backend was measured. A backend that has no cold times,
/// because it uploads nothing, stands among the cold ones with its resident times.
pub(super) fn winners<'a>(lines: &Lines<'a>, residence: Residence) -> BTreeMap<u64, Option<Win<'a>>> {
    let uploads_nothing = |backend: &str| !lines.contains_key(&(backend, Residence::Cold));
    let of =
        |(backend, r): (&str, Residence)| r == residence || (residence == Residence::Cold && uploads_nothing(backend));
    let asked = lines.iter().filter(|((_, r), _)| *r == residence);
    let batches = asked.flat_map(|(_, points)| points.keys().copied());
    let at = |items: u64| {
        lines.iter().filter(|(line, _)| of(**line)).filter_map(move |(_, points)| points.get(&items).copied())
    };
    batches.map(|items| (items, winner(at(items)))).collect()
}

fn winner<'a>(points: impl Iterator<Item = &'a Point>) -> Option<Win<'a>> {
    let mut points: Vec<&Point> = points.collect();
    points.sort_by(|a, b| a.times.p50_ns.total_cmp(&b.times.p50_ns));
    let best = *points.first()?;
    let second = *points.iter().find(|point| point.backend != best.backend)?;
    // An interval that is none, such as one that ends before it begins, does not make a tie.
    let tie = best.times.ci_ns[1] >= second.times.ci_ns[0] && second.times.ci_ns[1] >= best.times.ci_ns[0];
    Some(Win { best, second, tie })
}

/// What the backend can do at most: multiply-adds and bytes a second, where they were measured.
pub(super) fn peaks(record: &Record, backend: &str) -> (Option<f64>, Option<f64>) {
    let peak = record.peaks.iter().find(|peak| peak.backend == backend);
    let of = |peak_of: fn(&Peak) -> Option<f64>| peak.and_then(peak_of).and_then(plottable);
    (of(|peak| peak.multiply_adds_per_s), of(|peak| peak.bytes_per_s))
}

/// How much `amount`, multiply-adds or bytes of one job, comes to in a second; none where the job has none or no time.
pub(super) fn per_s(point: &Point, amount: f64) -> Option<f64> {
    plottable(plottable(amount)? * 1e9 / plottable(point.times.p50_ns)?)
}
