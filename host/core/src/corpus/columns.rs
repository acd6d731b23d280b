//! What of a segment a job reads, and what each column takes.

use crate::metric::Metric;
use crate::screen;

/// What of a segment an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// The rows, float32, or words of bits.
    Embeddings,
    /// `dot(x, x)` of each row, float64.
    Norms,
    /// The packed int8 codes.
    Codes,
    /// The screen's columns under a metric ([`SegmentView::columns`](super::SegmentView::columns)). Those of Hamming
    /// serve every metric of bits.
    Screen(Metric),
    /// The 5-D coordinates, float64.
    Coordinates,
}

impl Column {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// Every column, in the order of [`Self::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Codes,
        Self::Screen(Metric::Cosine),
        Self::Screen(Metric::Dot),
        Self::Screen(Metric::L2),
        Self::Embeddings,
        Self::Norms,
        Self::Coordinates,
        Self::Screen(Metric::Hamming),
    ];

    /// Whether it says which rows are visible, so that views of one segment may differ in it.
    #[must_use]
    pub const fn hides(self) -> bool {
        matches!(self, Self::Screen(_))
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Codes => 0,
            Self::Screen(Metric::Hamming | Metric::Jaccard) => 7,
            Self::Screen(metric) => metric as usize,
            Self::Embeddings => 4,
            Self::Norms => 5,
            Self::Coordinates => 6,
        }
    }

    /// Bytes for a segment of `rows` rows of so many [values](crate::metric::RowType::width).
    #[must_use]
    pub fn bytes(self, rows: usize, dim: usize) -> usize {
        match self {
            Self::Codes => screen::packed_len(rows, dim),
            Self::Screen(_) => screen::groups(rows) * screen::COLUMNS * screen::GROUP_ROWS * size_of::<f32>(),
            Self::Embeddings => rows * dim * size_of::<f32>(),
            Self::Norms => rows * size_of::<f64>(),
            Self::Coordinates => rows * size_of::<[f64; 5]>(),
        }
    }
}

/// A set of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Columns(u8);

impl Columns {
    /// No column.
    pub const NONE: Self = Self(0);

    /// These columns.
    #[must_use]
    pub const fn of(columns: &[Column]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < columns.len() {
            bits |= 1 << columns[at].index();
            at += 1;
        }
        Self(bits)
    }

    /// Whether all of `others` are among them.
    #[must_use]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that `other` lacks.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One after the other, in the order of [`Column::index`].
    pub fn iter(self) -> impl Iterator<Item = Column> {
        Column::ALL.into_iter().filter(move |column| self.0 & 1 << column.index() != 0)
    }

    /// The metric that a screen among them is for.
    #[must_use]
    pub fn screen(self) -> Option<Metric> {
        Metric::OF_FLOATS.into_iter().find(|metric| self.contains(Self::of(&[Column::Screen(*metric)])))
    }

    /// Bytes of all of them, for a segment of `rows` rows with `dim` elements.
    #[must_use]
    pub fn bytes(self, rows: usize, dim: usize) -> usize {
        self.iter().map(|column| column.bytes(rows, dim)).sum()
    }
}
