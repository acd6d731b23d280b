//! Points in five dimensions, distributed as the encoder's output is, with ties.

use crate::draw::Draw;

/// `n` points (x, y, z, w, v), the same for the same seed.
///
/// x and y are ratios of small counts, w and v step with small counts, so single coordinates repeat often; about one
/// point in twenty repeats an earlier point exactly, so distances tie. Ranges: x, y, z in [-1, 1], w in [0.5, 2.5], v
/// in [0, 1].
pub fn points(n: usize, seed: u64) -> Vec<[f64; 5]> {
    let mut draw = Draw::new(seed, "points", 0);
    let mut points: Vec<[f64; 5]> = Vec::with_capacity(n);
    for index in 0..n {
        let repeated = index > 0 && draw.chance(0.05);
        let point = if repeated { points[draw.below(index)] } else { fresh(&mut draw) };
        points.push(point);
    }
    points
}

fn fresh(draw: &mut Draw) -> [f64; 5] {
    let x = ratio(draw.below(7), draw.below(4));
    let y = ratio(draw.below(5), draw.below(3));
    let age_days = draw.log_normal(120.0, 1.4);
    let z = if draw.chance(0.03) { 1.0 } else { 1.0 - 2.0 / (1.0 + libm::exp(-age_days / 180.0)) };
    let accesses = draw.below(8) as f64;
    let importance = (draw.between(0.3, 1.0) * 20.0).round() / 20.0;
    let w = (importance.max(0.5) + (accesses / 10.0).min(0.5) + 0.1 * draw.below(3) as f64).min(2.5);
    let v = 1.0 - draw.unit() + (accesses / 20.0).min(0.3) + 0.2 * (importance - 0.5).max(0.0);
    [x, y, z.clamp(-1.0, 1.0), w, v.clamp(0.0, 1.0)]
}

fn ratio(low: usize, high: usize) -> f64 {
    if low + high == 0 { 0.0 } else { (high as f64 - low as f64) / (high + low) as f64 }
}
