//! What of a segment lies in device memory, and which of it an operation reads.

use bytemuck::cast_slice;
use megaring_core::Metric;
use megaring_core::corpus::{CorpusView, SegmentView};
use megaring_core::job::{Job, Points};
use megaring_core::screen::{COLUMNS, GROUP_ROWS, groups, packed_len};

use crate::abi::{CORPUS_COORDINATES, CORPUS_FLOAT32, CORPUS_ROWS, CORPUS_SCREENED, Segment};
use crate::device::{Device, DeviceError, DevicePtr};

/// One allocation of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Codes,
    Columns(Metric),
    Rows,
    Norms,
    Coordinates,
}

impl Part {
    pub(crate) const COUNT: usize = 7;
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Codes,
        Self::Columns(Metric::Cosine),
        Self::Columns(Metric::Dot),
        Self::Columns(Metric::L2),
        Self::Rows,
        Self::Norms,
        Self::Coordinates,
    ];

    /// Its place in [`Part::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Codes => 0,
            Self::Columns(metric) => metric as usize,
            Self::Rows => 4,
            Self::Norms => 5,
            Self::Coordinates => 6,
        }
    }

    /// Bytes for a segment of `rows` rows of `dim` elements.
    pub(crate) fn bytes(self, rows: usize, dim: usize) -> usize {
        match self {
            Self::Codes => packed_len(rows, dim),
            Self::Columns(_) => groups(rows) * COLUMNS * GROUP_ROWS * size_of::<f32>(),
            Self::Rows => rows * dim * size_of::<f32>(),
            Self::Norms => rows * size_of::<f64>(),
            Self::Coordinates => rows * size_of::<[f64; 5]>(),
        }
    }

    /// Copies the part of a segment to `to`, where there is room for [`Part::bytes`].
    pub(crate) fn upload(
        self,
        device: &dyn Device,
        to: DevicePtr,
        segment: &SegmentView,
        dim: usize,
    ) -> Result<(), DeviceError> {
        let data = segment.data();
        let expected = self.bytes(segment.rows(), dim);
        let whole = |bytes: &[u8]| match bytes.len() {
            len if len == expected => device.upload(to, bytes),
            len => Err(DeviceError::Other(format!("a segment has {len} bytes of {self:?} where {expected} belong"))),
        };
        match self {
            Self::Codes => whole(data.codes().packed),
            Self::Columns(metric) => whole(cast_slice(segment.columns(metric))),
            Self::Rows => whole(cast_slice(data.embeddings())),
            Self::Norms => whole(cast_slice(data.norms2())),
            Self::Coordinates => {
                let missing = || DeviceError::Other("a segment has no coordinates".into());
                let columns = data.coordinates().ok_or_else(missing)?;
                let column = expected / 5;
                for (number, values) in columns.into_iter().enumerate() {
                    let bytes: &[u8] = cast_slice(values);
                    if bytes.len() != column {
                        return Err(DeviceError::Other("a segment's coordinates are not one for each row".into()));
                    }
                    device.upload(to.offset(number * column), bytes)?;
                }
                Ok(())
            }
        }
    }

    /// Notes in a list's entry where the part lies.
    pub(crate) fn place(self, at: DevicePtr, segment: &mut Segment) {
        match self {
            Self::Codes => segment.codes = at,
            Self::Columns(metric) => segment.columns[metric as usize - 1] = at,
            Self::Rows => segment.rows = at,
            Self::Norms => segment.norms2 = at,
            Self::Coordinates => segment.coordinates = at,
        }
    }
}

/// A set of parts, and whether the version is to be screened by its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs(u8);

impl Needs {
    /// What a screen by the rows themselves needs: rows, norms, and an entry that says so.
    pub(crate) fn screen_by_rows() -> Self {
        Self(Self::of(&[Part::Rows, Part::Norms]).0 | Self::BY_ROWS)
    }

    /// Beyond the parts' bits.
    const BY_ROWS: u8 = 1 << Part::COUNT;

    pub(crate) fn of(parts: &[Part]) -> Self {
        Self(parts.iter().fold(0, |bits, part| bits | 1 << part.index()))
    }

    pub(crate) fn contains(self, all: Self) -> bool {
        self.0 & all.0 == all.0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn parts(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |part| self.0 & 1 << part.index() != 0)
    }

    /// `CORPUS_*` of a table entry whose list has these parts. Codes come with columns of some metric, rows with norms.
    pub(crate) fn flags(self) -> u32 {
        let flag = |part: Part, flag: u32| if self.contains(Self::of(&[part])) { flag } else { 0 };
        let by_rows = if self.0 & Self::BY_ROWS != 0 { CORPUS_FLOAT32 } else { 0 };
        let parts = flag(Part::Codes, CORPUS_SCREENED) | flag(Part::Rows, CORPUS_ROWS);
        parts | flag(Part::Coordinates, CORPUS_COORDINATES) | by_rows
    }

    /// Sizes of the parts of all segments, and of their list.
    pub(crate) fn sizes(self, view: &CorpusView) -> Vec<usize> {
        let segments = || view.segments().filter(|(_, segment)| segment.rows() > 0);
        let parts = segments().flat_map(|(_, segment)| self.parts().map(|part| part.bytes(segment.rows(), view.dim())));
        let list = if self == Self::default() { 0 } else { segments().count() * size_of::<Segment>() };
        parts.chain([list]).collect()
    }
}

/// What a job reads of a corpus.
pub(crate) enum Demand<'a> {
    /// No corpus at all.
    Nothing,
    /// These parts of each segment, all at once.
    Parts(&'a std::sync::Arc<CorpusView>, Needs),
    /// Codes and columns of a metric, at once or one tile after the other.
    Screen(&'a std::sync::Arc<CorpusView>, Metric),
}

impl<'a> Demand<'a> {
    pub(crate) fn of(job: &'a Job) -> Self {
        match job {
            Job::Nop | Job::Encode(_) => Self::Nothing,
            // Every row is a candidate then, whatever the codes say: the entry alone tells it.
            Job::Search(job) if is_wild(&job.corpus) => Self::Parts(&job.corpus, Needs::default()),
            Job::Search(job) => Self::Screen(&job.corpus, job.metric),
            Job::Score(job) => Self::Parts(&job.corpus, Needs::of(&[Part::Rows, Part::Norms])),
            Job::Nearest(job) => match &job.points {
                Points::Sent(_) => Self::Nothing,
                Points::Corpus(view) => Self::Parts(view, Needs::of(&[Part::Coordinates])),
            },
        }
    }
}

/// Whether some segment cannot be screened.
pub(crate) fn is_wild(view: &CorpusView) -> bool {
    view.segments().any(|(_, segment)| segment.data().codes().wild)
}
