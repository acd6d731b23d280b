//! Metrics and element types, with the numbers they have in a slot.

use serde::{Deserialize, Serialize};

use crate::error::Error;
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
    /// Of rows of bits: in how many they differ; smaller is better.
    Hamming = 4,
    /// Of rows of bits: the share of those that either has which both have; larger is better; 1 where neither has any.
    Jaccard = 5,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 5] = [Self::Cosine, Self::Dot, Self::L2, Self::Hamming, Self::Jaccard];
    /// Those of float32 values.
    pub const OF_FLOATS: [Self; 3] = [Self::Cosine, Self::Dot, Self::L2];
    /// Those of bits.
    pub const OF_BITS: [Self; 2] = [Self::Hamming, Self::Jaccard];

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
            Self::Hamming => "hamming",
            Self::Jaccard => "jaccard",
        }
    }

    /// What rows that it compares are made of.
    #[must_use]
    pub const fn element(self) -> Element {
        match self {
            Self::Cosine | Self::Dot | Self::L2 => Element::Float32,
            Self::Hamming | Self::Jaccard => Element::Bit,
        }
    }

    /// The metric of rows of these unless another is named.
    #[must_use]
    pub const fn default_of(element: Element) -> Self {
        match element {
            Element::Float32 => Self::Cosine,
            Element::Bit => Self::Hamming,
        }
    }

    /// Whether a smaller score is better.
    #[must_use]
    pub const fn is_distance(self) -> bool {
        matches!(self, Self::L2 | Self::Hamming)
    }

    /// Turns a score into a number of which the larger one is always the better. Exact: it only flips the sign.
    #[must_use]
    pub fn goodness(self, score: f64) -> f64 {
        if self.is_distance() { -score } else { score }
    }

    /// Whether a score passes: at least `threshold`, or at most `threshold` for distances. A caller's threshold is
    /// compared with the score as reported ([`Self::exact_threshold`]).
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

/// The least number that is reported as `threshold` or more. Rounding is symmetric, so that this serves distances too.
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
            .ok_or_else(|| format!("unknown metric {name:?}: {} are known", Self::ALL.map(Self::name).join(", ")))
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the rows of a corpus are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// float32 values.
    #[default]
    Float32,
    /// Bits.
    Bit,
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Bit => "bits",
        })
    }
}

/// What a row of a corpus is: elements of a type, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowType {
    /// What they are.
    pub element: Element,
    /// How many: of bits, a multiple of 8.
    pub dim: usize,
}

impl RowType {
    /// Rows of so many bits.
    #[must_use]
    pub const fn bits(dim: usize) -> Self {
        Self { element: Element::Bit, dim }
    }

    /// Values of four bytes that a row takes wherever it lies: float32 values, or words of 32 bits, the last of which
    /// is filled up with zeros. Words have the type float32 there, and are moved as such, which changes no bit.
    #[must_use]
    pub const fn width(self) -> usize {
        match self.element {
            Element::Float32 => self.dim,
            Element::Bit => self.dim.div_ceil(u32::BITS as usize),
        }
    }

    /// Those bits of a row's last value that are there, of rows of at least one element; the others are zeros.
    #[must_use]
    pub const fn last_bits(self) -> u32 {
        match self.element {
            Element::Float32 => u32::MAX,
            Element::Bit => u32::MAX >> (u32::BITS as usize * self.width() - self.dim),
        }
    }

    /// Such rows cut to their first `dim` elements.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `prefix_dim` where it is 0 or more than there are, or of bits no multiple of 8.
    pub fn prefix(self, dim: usize) -> Result<Self, Error> {
        let wrong = |text: String| Err(Error::field("prefix_dim", text));
        if !(1..=self.dim).contains(&dim) {
            return wrong(format!("{dim} is not within 1 and the corpus's {}", self.dim));
        }
        if self.element == Element::Bit && !dim.is_multiple_of(8) {
            return wrong(format!("{dim} bits are no whole bytes; a multiple of 8 is legal"));
        }
        Ok(Self { dim, ..self })
    }

    /// The metric by which such rows are compared: the one asked for, or else their own.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `metric` where it compares rows of another kind.
    pub fn metric(self, asked: Option<Metric>) -> Result<Metric, Error> {
        let metric = asked.unwrap_or(Metric::default_of(self.element));
        if metric.element() == self.element {
            return Ok(metric);
        }
        let known: &[Metric] = match self.element {
            Element::Float32 => &Metric::OF_FLOATS,
            Element::Bit => &Metric::OF_BITS,
        };
        let known = known.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(", ");
        let text = format!("{metric} does not compare rows of {}; there are {known}", self.element);
        Err(Error::field("metric", text))
    }
}

impl std::fmt::Display for RowType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.element {
            Element::Float32 => write!(f, "{}", self.dim),
            Element::Bit => write!(f, "{} bits", self.dim),
        }
    }
}

impl From<usize> for RowType {
    /// Rows of so many float32 values.
    fn from(dim: usize) -> Self {
        Self { element: Element::Float32, dim }
    }
}

/// Element type of vectors as they travel. Inside, everything but bits is float32; float16 and bfloat16 widen without
/// loss, and an int8 element stands for `scale * code`, rounded once to float32.
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
    /// Eight to a byte. In what order does not matter, so that it is the same for all.
    Bit = 5,
}

impl Dtype {
    /// The type in which a corpus has its elements.
    #[must_use]
    pub const fn of(element: Element) -> Self {
        match element {
            Element::Float32 => Self::Float32,
            Element::Bit => Self::Bit,
        }
    }

    /// Bytes of a row of so many elements.
    #[must_use]
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::Float32 => dim.saturating_mul(4),
            Self::Float16 | Self::Bfloat16 => dim.saturating_mul(2),
            Self::Int8 => dim,
            Self::Bit => dim.div_ceil(8),
        }
    }

    /// What a row of so many of these is in a corpus.
    #[must_use]
    pub fn row_type(self, dim: usize) -> RowType {
        match self {
            Self::Bit => RowType::bits(dim),
            Self::Float32 | Self::Float16 | Self::Bfloat16 | Self::Int8 => dim.into(),
        }
    }

    /// Decodes rows of `dim` little-endian elements to the [values](RowType::width) that they are in a corpus. `scale`
    /// matters to int8 alone. A trailing partial element is ignored: the caller has checked the length.
    #[must_use]
    pub fn decode(self, bytes: &[u8], dim: usize, scale: f32) -> Vec<f32> {
        match self {
            Self::Float32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::Float16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Self::Bfloat16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            Self::Int8 => bytes.iter().map(|b| scale * f32::from(b.cast_signed())).collect(),
            Self::Bit => {
                let rows = bytes.chunks_exact(self.row_bytes(dim).max(1));
                let words = |row: &[u8]| row.chunks(size_of::<u32>()).map(word_of).collect::<Vec<f32>>();
                rows.flat_map(words).collect()
            }
        }
    }
}

/// Up to four bytes of bits as a word, filled up with zeros.
#[must_use]
pub fn word_of(bytes: &[u8]) -> f32 {
    let mut word = [0; size_of::<f32>()];
    word[..bytes.len()].copy_from_slice(bytes);
    f32::from_le_bytes(word)
}
