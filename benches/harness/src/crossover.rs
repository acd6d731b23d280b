//! From where on one backend always wins over another.
//!
//! A backend wins at a size where its median is smaller beyond doubt: its confidence interval ends before the other's
//! begins. Intervals that overlap or touch are no win; who buys a device for it wants more than a draw. The crossover
//! is the smallest measured size from which on it wins at *every* larger measured size, so a win between losses counts
//! for nothing, and one that does not win at the largest size never does, as far as was measured. That is the offload
//! threshold of GPU-BLOB (Wilkinson and others, "Performance Analysis of the GPU-offload threshold", 2024), but for the
//! intervals.
//!
//! Sizes at which only one of the two was measured say nothing and are passed over; [`Crossover::up_to`] is the largest
//! at which both were.

use std::collections::BTreeMap;

use megaring_engine::measure::stats::quicker;

use crate::record::{Axis, Crossover, Point, Residence, Sizes, Times};

/// What goes along one line: a case, where its corpus lay, a backend, and the sizes that stay.
type Line = (String, Residence, String, Sizes);

/// The crossovers along an axis of every backend in the points over `against`, in the order of case, residence, backend
/// and sizes. Along [`Axis::Rows`] only batches of 1 count, and no points without a corpus.
///
/// Where `against` has nothing cold (the processor uploads nothing), cold times stand beside its resident ones. Of
/// points that say the same thing twice, the last counts.
#[must_use]
pub fn crossovers(points: &[Point], against: &str, axis: Axis) -> Vec<Crossover> {
    let along = |point: &&Point| match axis {
        Axis::Items => true,
        Axis::Rows => point.sizes.items == 1 && point.sizes.rows > 0,
    };
    let mut lines: BTreeMap<Line, BTreeMap<u64, &Times>> = BTreeMap::new();
    for point in points.iter().filter(along) {
        let (at, value) = split(point.sizes, axis);
        let line = (point.case.clone(), point.residence, point.backend.clone(), at);
        lines.entry(line).or_default().insert(value, &point.times);
    }
    let challengers = lines.iter().filter(|((_, _, backend, _), _)| backend != against);
    let crossovers = challengers.filter_map(|((case, residence, backend, at), own)| {
        let of = |residence| lines.get(&(case.clone(), residence, against.to_owned(), *at));
        let other = of(*residence).or_else(|| of(Residence::Resident))?;
        let both: Vec<(u64, bool)> =
            own.iter().filter_map(|(value, times)| Some((*value, quicker(times, other.get(value)?)))).collect();
        let (up_to, _) = *both.last()?;
        Some(Crossover {
            case: case.clone(),
            residence: *residence,
            backend: backend.clone(),
            against: against.to_owned(),
            axis,
            at: *at,
            from: first_of_last_wins(&both),
            up_to,
        })
    });
    crossovers.collect()
}

/// The sizes that stay, and the value of the one that grows.
fn split(sizes: Sizes, axis: Axis) -> (Sizes, u64) {
    match axis {
        Axis::Items => (Sizes { items: 0, ..sizes }, sizes.items),
        Axis::Rows => (Sizes { rows: 0, ..sizes }, sizes.rows),
    }
}

/// Where the wins begin that go on to the end, if it ends with one. `both` rises.
fn first_of_last_wins(both: &[(u64, bool)]) -> Option<u64> {
    both.iter().rev().take_while(|(_, wins)| *wins).last().map(|(value, _)| *value)
}

#[cfg(test)]
mod tests;
