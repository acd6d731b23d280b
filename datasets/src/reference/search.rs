//! Top-k search: score every row, sort, cut.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::score::{Metric, Rows, checked_dim};

/// One row of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Row number in the searched matrix, from 0.
    pub row: u32,
    /// The float64 score, by which hits are ordered.
    pub score: f64,
}

impl Hit {
    /// The score as an answer reports it: rounded to float32, at most its largest number.
    pub fn reported(self) -> f32 {
        (self.score as f32).clamp(f32::MIN, f32::MAX)
    }
}

/// The best `k` rows for each query: better float64 score first (smaller for distances, else larger), equal scores by
/// smaller row. `threshold` keeps reported scores at least (of distances: at most) that large. `k` above the row count
/// means all rows.
///
/// `queries` and `rows` are row-major with `dim` values each. One list per query comes back, in order.
///
/// # Panics
/// If `dim` is 0, a length is not a multiple of it, or there are more rows than u32 can number.
pub fn search(
    metric: Metric,
    queries: &[f32],
    rows: &[f32],
    dim: usize,
    k: usize,
    threshold: Option<f64>,
) -> Vec<Vec<Hit>> {
    let rows = Rows::new(metric, rows, dim);
    let best = |query: &[f32]| {
        let scores = rows.scores(query);
        assert!(u32::try_from(scores.len()).is_ok(), "more rows than u32 can number");
        let hits = scores.into_iter().enumerate().map(|(row, score)| Hit { row: row as u32, score });
        let mut hits: Vec<Hit> = hits.filter(|hit| passes(metric, f64::from(hit.reported()), threshold)).collect();
        hits.sort_unstable_by(|a, b| order(metric, a, b));
        hits.truncate(k);
        hits
    };
    queries.par_chunks_exact(checked_dim(queries, dim)).map(best).collect()
}

fn passes(metric: Metric, score: f64, threshold: Option<f64>) -> bool {
    match (threshold, metric) {
        (None, _) => true,
        (Some(most), metric) if metric.is_distance() => score <= most,
        (Some(least), _) => score >= least,
    }
}

fn order(metric: Metric, a: &Hit, b: &Hit) -> Ordering {
    // Adding +0 makes -0 equal to +0 under `total_cmp`, which, unlike `partial_cmp`, also stays a total order on NaN.
    let (x, y) = (a.score + 0.0, b.score + 0.0);
    let by_score = if metric.is_distance() { x.total_cmp(&y) } else { y.total_cmp(&x) };
    by_score.then(a.row.cmp(&b.row))
}
