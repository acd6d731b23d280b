//! Fitting a model to measurements: least squares of the relative error, with no negative coefficient and little weight
//! for outliers.
//!
//! A time is measured to a share of itself, not to a number of nanoseconds, so each equation is divided by its time.
//! Coefficients below zero have no meaning; with five of them, every subset is solved and the best one without a
//! negative number is taken, which is the exact answer of non-negative least squares (Lawson and Hanson, "Solving Least
//! Squares Problems", chapter 23: the optimum is the unconstrained solution over its own support). Outliers are held
//! down by Huber's weights over a few rounds.

use megaring_core::operation::Size;

use super::{COEFFICIENTS, Coefficients, Upload, terms};

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// What the job consisted of.
    pub size: Size,
    /// How long it took, in nanoseconds; above zero.
    pub ns: f64,
    /// How much it counts: 1 for a time that is known well, less for one that is not.
    pub weight: f64,
}

impl Sample {
    /// A time whose median has a confidence interval of so many times itself either way. It counts half where that is a
    /// tenth.
    #[must_use]
    pub fn new(size: Size, ns: f64, uncertainty: f64) -> Self {
        let doubt = uncertainty / HALF_DOUBTED;
        // An interval that cannot be told says that there are few samples, not that they are bad.
        let weight = if doubt.is_finite() { (1.0 + doubt * doubt).recip() } else { LEAST_WEIGHT };
        Self { size, ns, weight: weight.max(LEAST_WEIGHT) }
    }
}

/// A model of measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The model.
    pub coefficients: Coefficients,
    /// Median over the samples of the error's size, relative to the time.
    pub typical_error: f64,
    /// The largest.
    pub largest_error: f64,
}

/// Why no model could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Nothing was measured.
    #[error("nothing was measured")]
    Empty,
    /// A time or size is not a number above zero.
    #[error("sample {0} is not a time above zero with finite sizes")]
    BadSample(usize),
}

/// The uncertainty at which a sample counts half.
const HALF_DOUBTED: f64 = 0.1;
/// What the most doubtful sample counts: where there is no other, it has to do.
const LEAST_WEIGHT: f64 = 1e-3;
/// Rounds of weighting.
const ROUNDS: usize = 8;
/// Huber's constant: residuals up to this many standard deviations count in full.
const HUBER: f64 = 1.345;
/// From a median absolute deviation to a standard deviation, for a normal distribution.
const MAD_TO_SIGMA: f64 = 1.4826;
/// The least spread that is believed: no clock is better.
const LEAST_SIGMA: f64 = 1e-6;

/// Fits the coefficients of one class of operations. A term that is zero in every sample gets none.
///
/// # Errors
/// See [`FitError`].
pub fn fit(samples: &[Sample]) -> Result<Fit, FitError> {
    if samples.is_empty() {
        return Err(FitError::Empty);
    }
    let rows: Vec<[f64; COEFFICIENTS]> = samples.iter().map(|sample| terms(&sample.size)).collect();
    let bad = |(_, sample): &(usize, &Sample)| {
        !(sample.ns.is_finite() && sample.ns > 0.0) || terms(&sample.size).iter().any(|term| !term.is_finite())
    };
    if let Some((index, _)) = samples.iter().enumerate().find(bad) {
        return Err(FitError::BadSample(index));
    }
    let relative: Vec<[f64; COEFFICIENTS]> =
        rows.iter().zip(samples).map(|(row, sample)| row.map(|term| term / sample.ns)).collect();
    let mut weights: Vec<f64> = samples.iter().map(|sample| sample.weight).collect();
    let mut solution = non_negative(&relative, &weights);
    for _ in 0..ROUNDS {
        let residuals: Vec<f64> = relative.iter().map(|row| dot(row, &solution) - 1.0).collect();
        let sigma = (median(residuals.iter().map(|r| r.abs()).collect()) * MAD_TO_SIGMA).max(LEAST_SIGMA);
        for ((weight, residual), sample) in weights.iter_mut().zip(&residuals).zip(samples) {
            *weight = sample.weight * (HUBER * sigma / residual.abs()).min(1.0);
        }
        solution = non_negative(&relative, &weights);
    }
    let errors: Vec<f64> = relative.iter().map(|row| (dot(row, &solution) - 1.0).abs()).collect();
    let largest_error = errors.iter().copied().fold(0.0, f64::max);
    let coefficients = Coefficients::from_array(solution);
    Ok(Fit { coefficients, typical_error: median(errors), largest_error })
}

/// Fits the cost of an upload to pairs of bytes and nanoseconds.
///
/// # Errors
/// See [`FitError`].
pub fn fit_upload(samples: &[(f64, f64)]) -> Result<Upload, FitError> {
    let samples: Vec<Sample> = samples
        .iter()
        .map(|(bytes, ns)| {
            let size = Size { bytes: *bytes as u64, ..Size::default() };
            Sample { size, ns: *ns, weight: 1.0 }
        })
        .collect();
    let Coefficients { fixed_ns, per_byte_ns, .. } = fit(&samples)?.coefficients;
    Ok(Upload { fixed_ns, per_byte_ns })
}

/// The x without negative elements that minimises the sum over rows of w (row . x - 1)^2.
fn non_negative(rows: &[[f64; COEFFICIENTS]], weights: &[f64]) -> [f64; COEFFICIENTS] {
    // Columns of one size, so that a pivot can be judged: multiply-adds are counted in billions, fixed costs as ones.
    let mut scale = [0.0f64; COEFFICIENTS];
    for row in rows {
        for (scale, term) in scale.iter_mut().zip(row) {
            *scale = scale.max(term.abs());
        }
    }
    let mut gram = [[0.0; COEFFICIENTS]; COEFFICIENTS];
    let mut right = [0.0; COEFFICIENTS];
    for (row, weight) in rows.iter().zip(weights) {
        let scaled: [f64; COEFFICIENTS] = std::array::from_fn(|i| if scale[i] > 0.0 { row[i] / scale[i] } else { 0.0 });
        for i in 0..COEFFICIENTS {
            right[i] += weight * scaled[i];
            for j in 0..COEFFICIENTS {
                gram[i][j] += weight * scaled[i] * scaled[j];
            }
        }
    }
    let mut best = ([0.0; COEFFICIENTS], f64::INFINITY);
    for subset in 1..1u32 << COEFFICIENTS {
        let columns: Vec<usize> = (0..COEFFICIENTS).filter(|column| subset >> column & 1 == 1).collect();
        let Some(part) = solve(&gram, &right, &columns) else { continue };
        if part.iter().any(|value| *value < 0.0) {
            continue;
        }
        // Up to a constant, the sum of squares at its minimum over the subset: -(right . x).
        let loss = -columns.iter().zip(&part).map(|(column, value)| right[*column] * value).sum::<f64>();
        if loss < best.1 {
            let mut whole = [0.0; COEFFICIENTS];
            columns.iter().zip(&part).for_each(|(column, value)| whole[*column] = value / scale[*column]);
            best = (whole, loss);
        }
    }
    best.0
}

/// Solves the normal equations of some columns by Gaussian elimination with pivoting; none where the columns depend on
/// each other.
fn solve(
    gram: &[[f64; COEFFICIENTS]; COEFFICIENTS],
    right: &[f64; COEFFICIENTS],
    columns: &[usize],
) -> Option<Vec<f64>> {
    let n = columns.len();
    let mut system: Vec<Vec<f64>> = columns
        .iter()
        .map(|row| columns.iter().map(|column| gram[*row][*column]).chain([right[*row]]).collect())
        .collect();
    for step in 0..n {
        let pivot = (step..n).max_by(|a, b| system[*a][step].abs().total_cmp(&system[*b][step].abs()))?;
        // Columns are of size one: what is left of this one then is rounding.
        if system[pivot][step].abs() < 1e-12 {
            return None;
        }
        system.swap(step, pivot);
        let (above, below) = system.split_at_mut(step + 1);
        let pivot = &above[step];
        for row in below {
            let factor = row[step] / pivot[step];
            row.iter_mut().zip(pivot).skip(step).for_each(|(value, by)| *value -= factor * by);
        }
    }
    let mut solution = vec![0.0; n];
    for step in (0..n).rev() {
        let known: f64 = (step + 1..n).map(|column| system[step][column] * solution[column]).sum();
        solution[step] = (system[step][n] - known) / system[step][step];
    }
    Some(solution)
}

fn dot(row: &[f64; COEFFICIENTS], x: &[f64; COEFFICIENTS]) -> f64 {
    row.iter().zip(x).map(|(a, b)| a * b).sum()
}

/// The middle value; 0 where there is none.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: [f64; COEFFICIENTS] = [1e4, 300.0, 0.02, 0.01, 0.4];

    /// Deterministic noise: a share of the time, at most `size` either way.
    fn noise(index: usize, size: f64) -> f64 {
        let unit = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
        1.0 + size * (unit as f64 / (1u64 << 53) as f64 * 2.0 - 1.0)
    }

    fn grid() -> Vec<Size> {
        let mut sizes = Vec::new();
        for rows in [100, 1_000, 10_000, 100_000] {
            for (items, k) in [(1, 10), (8, 10), (64, 10), (512, 10), (1, 40), (64, 40)] {
                let (bytes, candidates) = (rows * 384, items * k * 384);
                sizes.push(Size { items, bytes, multiply_adds: items * bytes, candidates });
            }
        }
        sizes
    }

    fn measured(size: f64) -> Vec<Sample> {
        let sample = |(index, one): (usize, Size)| {
            let ns = Coefficients::from_array(TRUTH).ns(&one) * noise(index, size);
            Sample { size: one, ns, weight: 1.0 }
        };
        grid().into_iter().enumerate().map(sample).collect()
    }

    #[track_caller]
    fn check(found: Coefficients, within: f64) {
        for (found, truth) in found.to_array().into_iter().zip(TRUTH) {
            assert!((found / truth - 1.0).abs() <= within, "{found} is not {truth}");
        }
    }

    #[test]
    fn exact_measurements_give_the_model_back() -> Result<(), FitError> {
        let fit = fit(&measured(0.0))?;
        check(fit.coefficients, 1e-6);
        assert!(fit.largest_error < 1e-6 && fit.typical_error < 1e-6);
        Ok(())
    }

    #[test]
    fn outliers_do_not_move_it() -> Result<(), FitError> {
        let mut samples = measured(0.01);
        samples[3].ns *= 20.0;
        samples[17].ns *= 5.0;
        let fit = fit(&samples)?;
        check(fit.coefficients, 0.05);
        assert!(fit.largest_error > 0.5 && fit.typical_error < 0.02);
        Ok(())
    }

    #[test]
    fn times_that_are_not_known_well_count_little() -> Result<(), FitError> {
        let mut samples = measured(0.0);
        for (index, sample) in samples.iter_mut().enumerate() {
            // Most of them, so that the rest is no majority against outliers.
            let doubtful = noise(index, 1.0) > 0.8;
            let ns = if doubtful { sample.ns * 4.0 } else { sample.ns };
            *sample = Sample::new(sample.size, ns, if doubtful { 2.0 } else { 0.01 });
        }
        check(fit(&samples)?.coefficients, 0.05);
        assert!(Sample::new(samples[0].size, 1.0, 0.1).weight == 0.5);
        for unknown in [f64::INFINITY, f64::NAN] {
            assert!(Sample::new(samples[0].size, 1.0, unknown).weight > 0.0);
        }
        Ok(())
    }

    #[test]
    fn no_coefficient_is_negative() -> Result<(), FitError> {
        // Falls with the number of items, which no cost does.
        let samples: Vec<Sample> = (1..10)
            .map(|items| {
                let size = Size { items, ..Size::default() };
                Sample { size, ns: 100.0 - 5.0 * items as f64, weight: 1.0 }
            })
            .collect();
        let found = fit(&samples)?.coefficients;
        assert_eq!(found.per_item_ns, 0.0);
        assert!((55.0..100.0).contains(&found.fixed_ns), "{found:?}");
        Ok(())
    }

    #[test]
    fn one_sample_and_columns_that_say_the_same_are_enough() -> Result<(), FitError> {
        let samples = &measured(0.0)[..1];
        let found = fit(samples)?;
        assert!((found.coefficients.ns(&samples[0].size) / samples[0].ns - 1.0).abs() < 1e-9);
        let upload = fit_upload(&[(1e6, 1.5e5), (2e6, 2.5e5), (8e6, 8.5e5)])?;
        assert!((upload.fixed_ns - 5e4).abs() < 1.0 && (upload.per_byte_ns - 0.1).abs() < 1e-6, "{upload:?}");
        Ok(())
    }

    #[test]
    fn what_is_no_measurement_is_told() {
        assert_eq!(fit(&[]), Err(FitError::Empty));
        let mut samples = measured(0.0);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            samples[2].ns = bad;
            assert_eq!(fit(&samples), Err(FitError::BadSample(2)), "{bad}");
        }
    }
}
