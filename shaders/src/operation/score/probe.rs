//! Whether a device's float64 is IEEE 754's: pairs whose float32 score tells of the last bit of a float64 sum.
//!
//! Of ordinary pairs one in some hundred millions would. These lie where float32 rounds: at the midpoint of two
//! numbers, give or take the error of a fused addition, or of a truncated sum, square or difference.

use megaring_core::exact;

use super::wrong_metric;
use crate::self_test::Trial;

/// Three elements of the definition's first lane, and one of the second.
const DIM: usize = 17;
/// The least number of which float32's neighbours are two apart, so that odd numbers from here on are midpoints.
const FIRST: u32 = 1 << 24;
/// Half a unit in the last place of a float64 of that size.
const HALF: f64 = 1.0 / (1 << 29) as f64;

/// Vectors of which the first is to be scored with the first, the second with the second, and so on.
pub(super) struct Probe {
    pub(super) queries: Vec<f32>,
    pub(super) rows: Vec<f32>,
}

/// Scores the probe, as every query with every row.
///
/// # Errors
/// The scores are not the definition's, or what the device said.
pub(super) fn test(trial: &Trial<'_>) -> Result<(), String> {
    let Probe { queries, rows } = probe();
    let norms: Vec<f64> = rows.chunks_exact(DIM).map(exact::norm2).collect();
    let part = trial.part(bytemuck::cast_slice(&rows), bytemuck::cast_slice(&norms), 0..norms.len())?;
    let wrong = wrong_metric(trial, DIM, (&queries, &rows), &[part])?;
    wrong.map_or(Ok(()), |metric| Err(format!("{metric} scores are not rounded as float64s")))
}

pub(super) fn probe() -> Probe {
    let mut probe = Probe { queries: Vec::new(), rows: Vec::new() };
    // Sums: a midpoint, and half of its last place or a little more.
    for (midpoint, more) in [(1, 0.0), (1, 1e-3), (1, -1e-3), (3, 0.0), (3, 1e-3), (3, -1e-3)] {
        let rest = (HALF * (1.0 + more)) as f32;
        probe.add(&[(0, FIRST as f32, 1.0), (8, midpoint as f32, 1.0), (16, rest, 1.0)]);
        probe.add(&[(0, FIRST as f32, 1.0), (8, midpoint as f32, 1.0), (16, rest, -1.0)]);
        // The same where lanes are added.
        probe.add(&[(0, FIRST as f32, 1.0), (8, midpoint as f32, 1.0), (1, rest, 1.0)]);
    }
    // Differences: of 4097, whose square is a midpoint, and some of its last place.
    for part in [0.4, 0.6, -0.4, -0.6] {
        probe.add(&[(0, 4097.0, (part * f64::from(f32::EPSILON).powi(2) * 64.0) as f32)]);
    }
    // Squares: one a little below a midpoint that is rounded up, so that nothing may be cut off; and one a little above
    // a midpoint that is rounded down: rounded as a square, it stays that midpoint when almost half a last place is
    // added.
    let (x, y) = square_near(3, -0.8 * HALF..-0.2 * HALF);
    probe.add(&[(0, x, y)]);
    let (x, y) = square_near(1, 0.2 * HALF..0.8 * HALF);
    probe.add(&[(0, (0.9 * HALF).sqrt() as f32, 0.0), (8, x, y)]);
    probe
}

/// Two numbers whose squared difference is `distance` away from an odd number, which is `rest` modulo 4.
fn square_near(rest: u32, distance: std::ops::Range<f64>) -> (f32, f32) {
    let near = (FIRST..2 * FIRST).filter(|whole| whole % 4 == rest).find_map(|whole| {
        let root = f64::from(whole).sqrt();
        let x = root as f32;
        let y = (f64::from(x) - root) as f32;
        let difference = f64::from(x) - f64::from(y);
        distance.contains(&difference.mul_add(difference, -f64::from(whole))).then_some((x, y))
    });
    near.unwrap_or_default()
}

impl Probe {
    /// Adds a pair: elements, by their places, of the query and the row.
    fn add(&mut self, elements: &[(usize, f32, f32)]) {
        let (mut query, mut row) = ([0.0; DIM], [0.0; DIM]);
        for (place, of_query, of_row) in elements {
            (query[*place], row[*place]) = (*of_query, *of_row);
        }
        self.queries.extend(query);
        self.rows.extend(row);
    }
}

#[cfg(test)]
mod tests {
    use megaring_core::Metric;

    use super::*;
    use crate::testing::{automaton, gpus};

    /// How a device may add and multiply.
    struct Arithmetic {
        add: fn(f64, f64) -> f64,
        subtract: fn(f64, f64) -> f64,
        /// A square and a sum.
        square: fn(f64, f64) -> f64,
        /// A sum of lanes.
        lanes: fn(f64, f64) -> f64,
    }

    const SOUND: Arithmetic =
        Arithmetic { add: |a, b| a + b, subtract: |a, b| a - b, square: |d, sum| sum + d * d, lanes: |a, b| a + b };

    /// Rounded toward zero, given what rounding to nearest has left out.
    fn truncated(nearest: f64, left: f64) -> f64 {
        if left * nearest >= 0.0 {
            return nearest;
        }
        if nearest > 0.0 { nearest.next_down() } else { nearest.next_up() }
    }

    fn truncated_sum(a: f64, b: f64) -> f64 {
        let (large, small) = if a.abs() >= b.abs() { (a, b) } else { (b, a) };
        let sum = large + small;
        truncated(sum, small - (sum - large))
    }

    fn score(arithmetic: &Arithmetic, squares: bool, query: &[f32], row: &[f32]) -> f32 {
        let mut lanes = [0.0; 8];
        for (place, (a, b)) in query.iter().zip(row).enumerate() {
            let (a, b, lane) = (f64::from(*a), f64::from(*b), &mut lanes[place % 8]);
            let term = |lane: f64| (arithmetic.square)((arithmetic.subtract)(a, b), lane);
            *lane = if squares { term(*lane) } else { (arithmetic.add)(*lane, a * b) };
        }
        let [a, b, c, d, e, f, g, h] = lanes;
        let add = arithmetic.lanes;
        exact::reported(add(add(add(a, e), add(c, g)), add(add(b, f), add(d, h))))
    }

    #[test]
    fn the_probe_tells_of_every_way_to_be_inexact() {
        let Probe { queries, rows } = probe();
        let differs = |arithmetic: &Arithmetic, squares: bool| {
            let metric = if squares { Metric::L2 } else { Metric::Dot };
            let pairs = || queries.chunks_exact(DIM).zip(rows.chunks_exact(DIM));
            let of = |(query, row)| {
                (score(arithmetic, squares, query, row), exact::reported(exact::score(metric, query, row)))
            };
            pairs().map(of).any(|(found, want)| found != want)
        };
        assert!(!differs(&SOUND, false) && !differs(&SOUND, true));
        assert!(differs(&Arithmetic { square: |d, sum| d.mul_add(d, sum), ..SOUND }, true), "fused squares");
        assert!(differs(&Arithmetic { add: truncated_sum, ..SOUND }, false), "truncated sums");
        assert!(differs(&Arithmetic { lanes: truncated_sum, ..SOUND }, false), "truncated sums of lanes");
        assert!(differs(&Arithmetic { subtract: |a, b| truncated_sum(a, -b), ..SOUND }, true), "truncated differences");
        let square = |d: f64, sum: f64| sum + truncated(d * d, d.mul_add(d, -(d * d)));
        assert!(differs(&Arithmetic { square, ..SOUND }, true), "truncated squares");
        let upward = |a: f64, b: f64| if b == 0.0 { a } else { (a + b).next_up() };
        assert!(differs(&Arithmetic { add: upward, ..SOUND }, false), "sums rounded up");
    }

    #[test]
    fn adapters_pass() {
        let automaton = automaton();
        for gpu in gpus() {
            test(&Trial::new(gpu, &automaton)).expect("the scores are the definition's");
        }
    }
}
