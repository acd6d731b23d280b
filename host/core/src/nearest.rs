//! 5-D nearest points: the distance by definition, and the final order.
//!
//! `distance = sqrt((((dx² + dy²) + dz²) + dw²) + dv²)` with `d = weight · (point - query)`, in float64, without
//! contraction. All of it is elementwise, so SIMD copies of the squared distance give the same bits whatever their
//! width. The order is by distance, then by smaller row number; since two squared distances can share a square root,
//! screening keeps [`widen`]'s margin.
//!
//! | payload | result |
//! |---|---|
//! | `items` queries of 5 float64, 5 weights float64, then, if [`FLAG_POINTS`], 5 columns of `dim` float64 | [`crate::lists`] |

use std::cmp::Ordering;
use std::sync::Arc;

use crate::corpus::{Column, Columns, CorpusView};
use crate::describe;
use crate::error::Error;
use crate::lists::{self, CandidateLists, Candidates, is_short, wants_every_row};
use crate::operation::{
    Answered, Class, Description, Exact, Finished, Limits, Listed, Opcode, Operation, Payload, Piece, Reads, Shape,
    Size, SlotFields, even_pieces, misshapen,
};

/// In a slot: the points travel in the payload (their number in `dim`), no corpus is meant.
pub const FLAG_POINTS: u16 = 2;
/// In a slot: some rows of the corpus are hidden. A backend that cannot leave them out says that every row is a
/// candidate.
pub const FLAG_HIDDEN: u16 = 8;
/// Axes of a point: x, y, z, w, v.
pub const AXES: usize = 5;

/// Where the points of a [`Nearest`] job are.
#[derive(Clone)]
pub enum Points {
    /// Sent along: five columns (x, y, z, w, v) of one length.
    Sent(Arc<[Vec<f64>; AXES]>),
    /// The coordinates of a corpus that has them.
    Corpus(Arc<CorpusView>),
}

impl Points {
    /// Number of points.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Sent(columns) => columns[0].len(),
            Self::Corpus(view) => view.rows(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The points that may be answered.
    fn visible(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::Sent(_) => Box::new(0..self.len() as u32),
            Self::Corpus(view) => Box::new(view.visible_runs(0..view.rows()).flatten().map(|row| row as u32)),
        }
    }

    /// Number of points that may be answered.
    fn visible_len(&self) -> usize {
        match self {
            Self::Sent(_) => self.len(),
            Self::Corpus(view) => view.visible_rows(),
        }
    }

    /// One point. `row` is below [`Self::len`].
    #[must_use]
    pub fn point(&self, row: u32) -> [f64; AXES] {
        match self {
            Self::Sent(columns) => columns.each_ref().map(|column| column[row as usize]),
            Self::Corpus(view) => {
                let (start, segment) = view.segment_of(row as usize);
                let columns = segment.data().coordinates();
                columns.map_or([f64::NAN; AXES], |columns| columns.map(|column| column[row as usize - start]))
            }
        }
    }
}

/// k nearest points for each query.
#[derive(Clone)]
pub struct Nearest {
    /// The points searched.
    pub points: Points,
    /// Query points.
    pub queries: Vec<[f64; AXES]>,
    /// Weight of each axis, finite and not negative.
    pub weights: [f64; AXES],
    /// Points wanted, at least 1.
    pub k: usize,
}

/// Room in a list for each point wanted: the distances are the definition's own, so only ties are added.
const CANDIDATES_PER_POINT: usize = 1;
/// Points of a piece that are ranked within some 100 µs.
const LIGHT_POINTS: usize = 1024;

impl Operation for Nearest {
    fn opcode(&self) -> Opcode {
        Self::OPCODE
    }

    fn size(&self) -> Size {
        size(self.queries.len() as u64, self.points.len() as u64, self.k as u64)
    }

    fn reads(&self) -> Option<Reads<'_>> {
        match &self.points {
            Points::Sent(_) => None,
            // A device has every row ranked by the host where some are hidden.
            Points::Corpus(corpus) if !corpus.is_whole() => Some(Reads { corpus, columns: Columns::NONE }),
            Points::Corpus(corpus) => Some(Reads { corpus, columns: columns(self.k as u64, corpus.rows() as u64) }),
        }
    }

    fn pieces(&self, limits: &Limits) -> Vec<Piece> {
        let sent = match &self.points {
            Points::Sent(columns) => columns[0].len() * size_of::<[f64; AXES]>(),
            Points::Corpus(_) => 0,
        };
        let result = lists::len(1, lists::capacity_for(self.k, self.points.len(), CANDIDATES_PER_POINT));
        let fixed = sent + size_of::<[f64; AXES]>();
        even_pieces(self.queries.len(), size_of::<[f64; AXES]>(), result, fixed, limits)
    }

    fn write(&self, piece: &Piece, payload: &mut Payload<'_>, slot: &mut SlotFields) {
        payload.put(&self.queries[piece.items.clone()]);
        payload.put(&[self.weights]);
        slot.k = u32::try_from(self.k).unwrap_or(u32::MAX);
        match &self.points {
            Points::Sent(columns) => {
                columns.iter().for_each(|column| payload.put(column));
                slot.flags = FLAG_POINTS;
                slot.dim = columns[0].len() as u32;
            }
            Points::Corpus(view) => {
                slot.name_corpus(view);
                slot.flags = if view.is_whole() { 0 } else { FLAG_HIDDEN };
            }
        }
    }
}

impl Answered for Nearest {
    type Answer = Vec<Vec<Neighbour>>;
    const CLASS: Class = Class::Points;
    const ITEMS: &'static str = "queries";

    fn describe(shape: &Shape) -> Result<Description, Error> {
        let (items, k) = (describe::items(shape)?, describe::hits(shape)?);
        let (rows, dim) = (describe::points(shape, AXES as u64)?, AXES as u64);
        Ok(Description { size: size(items, rows, k), columns: columns(k, rows), rows, dim, k })
    }

    fn is_light(&self, piece: &Piece, result: &[u8]) -> bool {
        let points = piece.items.len().saturating_mul(self.k);
        points <= LIGHT_POINTS && is_short(result, piece.items.len(), self.points.len())
    }

    fn finish(
        &self,
        piece: &Piece,
        result: &[u8],
        _: &Exact<'_>,
        answer: &mut Self::Answer,
    ) -> Result<Finished, Error> {
        let (items, points) = (&piece.items, self.points.len());
        let lists = CandidateLists::read(result, items.len(), points)?;
        let point = |row: u32| self.points.point(row);
        let mut rows_rescored = 0;
        let before = answer.len();
        for (number, query) in self.queries[items.clone()].iter().enumerate() {
            answer.push(match lists.of(number) {
                Candidates::Listed(listed) => {
                    rows_rescored += listed.len() as u64;
                    rank(listed.iter().map(|candidate| candidate.row), point, *query, self.weights, self.k)
                }
                Candidates::EveryRow => {
                    rows_rescored += self.points.visible_len() as u64;
                    rank(self.points.visible(), point, *query, self.weights, self.k)
                }
                Candidates::Ranked { .. } => return Err(misshapen()),
            });
        }
        let bytes_read = (points * items.len() * size_of::<[f64; AXES]>()) as u64;
        Ok(Finished { answers: answer[before..].iter().map(Vec::len).sum(), rows_rescored, bytes_read })
    }
}

fn size(items: u64, points: u64, k: u64) -> Size {
    let axes = AXES as u64;
    let elements = points.saturating_mul(axes);
    let listed = if wants_every_row(k, points) { points } else { k };
    Size {
        items,
        bytes: elements.saturating_mul(size_of::<f64>() as u64),
        multiply_adds: items.saturating_mul(elements),
        candidates: items.saturating_mul(listed).saturating_mul(axes),
    }
}

fn columns(k: u64, points: u64) -> Columns {
    if wants_every_row(k, points) { Columns::NONE } else { Columns::of(&[Column::Coordinates]) }
}

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
