//! Metrics and element types, with the numbers they have in a slot.

use serde::{Deserialize, Serialize};

use crate::exact;

/// How a query and a row are compared. [`crate::exact::score`] is the definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Metric {
    /// Cosine of the angle; larger is better; 1 for equal vectors, 0 where a norm is 0.
    #[default]
    Cosine = 1,
    /// Inner product; larger is better.
    Dot = 2,
    /// Squared Euclidean distance; smaller is better.
    L2 = 3,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::Dot, Self::L2];

    /// The metric with this number, if there is one.
    #[must_use]
    pub fn from_u8(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| *metric as u8 == code)
    }

    /// The name used on the command line and in replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::L2 => "l2",
        }
    }

    /// Turns a score into a number of which the larger one is always the better. Exact: it only flips the sign.
    #[must_use]
    pub fn goodness(self, score: f64) -> f64 {
        match self {
            Self::Cosine | Self::Dot => score,
            Self::L2 => -score,
        }
    }

    /// Whether a score passes: at least `threshold` for cosine and dot, at most `threshold` for l2. A caller's
    /// threshold is compared with the score as reported ([`Self::exact_threshold`]).
    #[must_use]
    pub fn passes(self, score: f64, threshold: f64) -> bool {
        self.goodness(score) >= self.goodness(threshold)
    }

    /// The threshold for exact scores that lets pass those whose [reported](exact::reported) score passes `threshold`.
    #[must_use]
    pub fn exact_threshold(self, threshold: f64) -> f64 {
        self.goodness(least_reported(self.goodness(threshold)))
    }
}

/// The least number that is reported as `threshold` or more. Rounding is symmetric, so that this serves l2 too.
fn least_reported(threshold: f64) -> f64 {
    if threshold <= f64::from(f32::MIN) {
        return f64::NEG_INFINITY;
    }
    if threshold > f64::from(f32::MAX) {
        return f64::INFINITY;
    }
    let nearest = threshold as f32;
    let least = if f64::from(nearest) < threshold { nearest.next_up() } else { nearest };
    // What lies half way is reported as the even one of its neighbours.
    let half_way = f64::midpoint(f64::from(least.next_down()), f64::from(least));
    if exact::reported(half_way) == least { half_way } else { half_way.next_up() }
}

impl std::str::FromStr for Metric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| format!("unknown metric {name:?}: cosine, dot and l2 are known"))
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Element type of vectors as they travel. Inside, everything is float32; float16 and bfloat16 widen without loss, and
/// an int8 element stands for `scale * code`, rounded once to float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// IEEE 754 binary32, little-endian.
    Float32 = 1,
    /// IEEE 754 binary16, little-endian.
    Float16 = 2,
    /// The upper half of a binary32, little-endian.
    Bfloat16 = 3,
    /// Two's complement bytes with one float32 scale for the whole field.
    Int8 = 4,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Decodes little-endian elements to float32. `scale` matters to int8 alone. A trailing partial element is ignored:
    /// the caller has checked the length.
    #[must_use]
    pub fn decode(self, bytes: &[u8], scale: f32) -> Vec<f32> {
        match self {
            Self::Float32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::Float16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Self::Bfloat16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            Self::Int8 => bytes.iter().map(|b| scale * f32::from(b.cast_signed())).collect(),
        }
    }
}
