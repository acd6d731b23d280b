//! The nearest points in five dimensions.

/// Weights of x, y, z, w, v where a caller gives none.
pub const DEFAULT_WEIGHTS: [f64; 5] = [1.0, 1.0, 0.8, 1.5, 2.0];

/// One point of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Number of the point, from 0.
    pub row: u32,
    /// Its weighted distance from the query.
    pub distance: f64,
}

/// The `k` points nearest to `query`: smaller distance first, equal distances by smaller row; `k` above the number of
/// points means all. With `d_i = weight_i · (point_i - query_i)` the distance is
/// `sqrt((((d_x² + d_y²) + d_z²) + d_w²) + d_v²)`.
///
/// # Panics
/// If there are more points than u32 can number.
pub fn nearest(points: &[[f64; 5]], query: &[f64; 5], weights: &[f64; 5], k: usize) -> Vec<Neighbour> {
    assert!(u32::try_from(points.len()).is_ok(), "more points than u32 can number");
    let measured = points.iter().enumerate();
    let mut neighbours: Vec<Neighbour> =
        measured.map(|(row, point)| Neighbour { row: row as u32, distance: distance(point, query, weights) }).collect();
    neighbours.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row)));
    neighbours.truncate(k);
    neighbours
}

fn distance(point: &[f64; 5], query: &[f64; 5], weights: &[f64; 5]) -> f64 {
    let d: [f64; 5] = std::array::from_fn(|axis| weights[axis] * (point[axis] - query[axis]));
    ((((d[0] * d[0] + d[1] * d[1]) + d[2] * d[2]) + d[3] * d[3]) + d[4] * d[4]).sqrt()
}
