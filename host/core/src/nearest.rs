//! 5-D nearest points: the distance by definition, and the final order.
//!
//! `distance = sqrt((((dx² + dy²) + dz²) + dw²) + dv²)` with `d = weight · (point - query)`, in float64, without contraction. All of
//! it is elementwise, so SIMD copies of the squared distance give the same bits whatever their width. The order is by distance, then
//! by smaller row number; since two squared distances can share a square root, screening keeps [`widen`]'s margin.

use std::cmp::Ordering;

/// Largest magnitude of a coordinate. With it and [`MAX_WEIGHT`] no squared distance leaves float64.
pub const MAX_COORDINATE: f64 = 1e100;
/// Largest weight of an axis.
pub const MAX_WEIGHT: f64 = 1e50;

/// Whether a number can be a coordinate.
#[must_use]
pub fn is_coordinate(value: f64) -> bool {
    value.abs() <= MAX_COORDINATE
}

/// Whether a number can be a weight.
#[must_use]
pub fn is_weight(value: f64) -> bool {
    (0.0..=MAX_WEIGHT).contains(&value)
}

/// Default weights of x, y, z, w, v.
pub const DEFAULT_WEIGHTS: [f64; 5] = [1.0, 1.0, 0.8, 1.5, 2.0];

/// A point in the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Row number among the points.
    pub row: u32,
    /// Weighted Euclidean distance.
    pub distance: f64,
}

/// Squared distance of one point, by definition.
#[must_use]
pub fn squared(point: [f64; 5], query: [f64; 5], weights: [f64; 5]) -> f64 {
    let d: [f64; 5] = std::array::from_fn(|i| weights[i] * (point[i] - query[i]));
    (((d[0] * d[0] + d[1] * d[1]) + d[2] * d[2]) + d[3] * d[3]) + d[4] * d[4]
}

/// The largest squared distance whose square root may round to that of `squared`, or less.
#[must_use]
pub fn widen(squared: f64) -> f64 {
    (squared * (1.0 + 1e-15)).next_up()
}

/// The total order: the nearer one is `Less`.
#[must_use]
pub fn compare(x: &Neighbour, y: &Neighbour) -> Ordering {
    x.distance.total_cmp(&y.distance).then(x.row.cmp(&y.row))
}

/// The k nearest among `rows`, in order. `point` gives a row's coordinates.
#[must_use]
pub fn rank(
    rows: impl Iterator<Item = u32>,
    point: impl Fn(u32) -> [f64; 5],
    query: [f64; 5],
    weights: [f64; 5],
    k: usize,
) -> Vec<Neighbour> {
    let mut found: Vec<Neighbour> =
        rows.map(|row| Neighbour { row, distance: squared(point(row), query, weights).sqrt() }).collect();
    if k == 0 {
        return Vec::new();
    }
    if found.len() > k {
        found.select_nth_unstable_by(k - 1, compare);
        found.truncate(k);
    }
    found.sort_unstable_by(compare);
    found
}
