//! Step 2, validation: a wire message becomes a [`Job`](megaring_core::job::Job), or an error that names the field as the wire has
//! it and the row.
//!
//! Nothing behind this module looks at wire messages, and nothing before it trusts one. Every length is compared before a byte is
//! read, with arithmetic that cannot overflow; every value is checked to be finite. An empty batch is legal and keeps the type and
//! dimension of an empty `Vectors` unread.

use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::encode::Features;
use megaring_core::job::{EncodeJob, Matrix, NearestJob, Points, ScoreJob, SearchJob, Texts};
use megaring_core::nearest::{DEFAULT_WEIGHTS, MAX_COORDINATE, MAX_WEIGHT, is_coordinate, is_weight};
use megaring_core::{BackendKind, Error, Metric};
use megaring_proto::v1 as pb;

mod explain;
mod rows;
mod terms;
mod vectors;

pub use explain::explain;
pub use rows::rows;
pub use terms::{MAX_TENANT_BYTES, TENANT, tenant, timeout};
pub use vectors::vectors;

/// A hit is a row, an id and a score: six bytes where all numbers are small.
pub(crate) const LEAST_HIT_BYTES: usize = 6;

/// The axes of a point, in order.
const AXES: [&str; 5] = ["x", "y", "z", "w", "v"];

/// A search of `corpus`. `limit` is the largest reply in bytes.
///
/// # Errors
/// [`Error::Invalid`] naming the field.
pub fn search(request: pb::SearchRequest, corpus: Arc<CorpusView>, limit: usize) -> Result<SearchJob, Error> {
    let metric = metric(request.metric)?;
    let k = hits(request.k)?;
    if let Some(threshold) = request.threshold.filter(|threshold| !threshold.is_finite()) {
        return Err(not_finite_field("threshold", threshold));
    }
    let queries = vectors("queries", request.queries, corpus.dim())?;
    if request.threshold.is_none() {
        reply_fits(limit, "queries", queries.rows, k.min(corpus.rows()), LEAST_HIT_BYTES)?;
    }
    Ok(SearchJob { corpus, queries, metric, k, threshold: request.threshold })
}

/// Scores of all pairs with rows of `corpus`. `limit` is the largest reply in bytes.
///
/// # Errors
/// [`Error::Invalid`] naming the field and the row.
pub fn score(request: pb::ScoreRequest, corpus: Arc<CorpusView>, limit: usize) -> Result<ScoreJob, Error> {
    let metric = metric(request.metric)?;
    let rows = request.rows.map(|rows| rows.numbers);
    if let Some(at) = rows.iter().flatten().position(|row| *row as usize >= corpus.rows()) {
        return Err(Error::row("rows.numbers", at as u64, format!("no such row; the corpus has {}", corpus.rows())));
    }
    let queries = vectors("queries", request.queries, corpus.dim())?;
    reply_fits(limit, "queries", queries.rows, rows.as_ref().map_or(corpus.rows(), Vec::len), size_of::<f32>())?;
    Ok(ScoreJob { corpus, queries, metric, rows })
}

/// Memories to encode. `limit` is the largest reply in bytes.
///
/// # Errors
/// [`Error::Invalid`] naming the memory and its field.
pub fn encode(request: pb::EncodeRequest, limit: usize) -> Result<EncodeJob, Error> {
    let count = request.memories.len();
    // Five coordinates and a zone, and the mask where it is asked for.
    reply_fits(limit, "memories", count, 1, if request.with_masks { 57 } else { 41 })?;
    let mut texts = Texts::default();
    texts.offsets.reserve(count + 1);
    texts.bytes.reserve(request.memories.iter().map(|memory| memory.content.len()).sum());
    let mut features = Vec::with_capacity(count);
    let mut gardens = Vec::with_capacity(count);
    for (index, memory) in request.memories.into_iter().enumerate() {
        features.push(numbers(index, &memory)?);
        texts.push(&memory.content);
        gardens.push(memory.garden);
    }
    Ok(EncodeJob { texts, features, gardens })
}

/// Nearest points, among those sent along or those of `corpus` (the one the request names). `limit` is the largest reply in bytes.
///
/// # Errors
/// [`Error::Invalid`] naming the field and the point; [`Error::Precondition`] for a corpus that has rows without coordinates.
pub fn nearest(
    request: pb::NearestRequest,
    corpus: Option<Arc<CorpusView>>,
    limit: usize,
) -> Result<NearestJob, Error> {
    let k = hits(request.k)?;
    let weights = weights(&request.weights)?;
    let queries = points("queries.coordinates", &request.queries.unwrap_or_default().coordinates)?;
    let points = match (request.among, corpus) {
        (Some(pb::nearest_request::Among::Points(sent)), _) => sent_points(&sent)?,
        (Some(pb::nearest_request::Among::Corpus(_)), Some(view)) => corpus_points(view)?,
        _ => return Err(Error::field("among", "name a corpus, or send points along")),
    };
    reply_fits(limit, "queries", queries.len(), k.min(points.len()), 9)?;
    Ok(NearestJob { points, queries, weights, k })
}

/// The backend a request forces, if any.
///
/// # Errors
/// [`Error::Invalid`] for a number that is no backend.
pub fn backend(number: i32) -> Result<Option<BackendKind>, Error> {
    match pb::Backend::try_from(number) {
        Ok(pb::Backend::Unspecified) => Ok(None),
        Ok(pb::Backend::Cpu) => Ok(Some(BackendKind::Cpu)),
        Ok(pb::Backend::Cuda) => Ok(Some(BackendKind::Cuda)),
        Ok(pb::Backend::Wgpu) => Ok(Some(BackendKind::Wgpu)),
        Err(_) => Err(Error::field("backend", format!("{number} is no backend"))),
    }
}

fn metric(number: i32) -> Result<Metric, Error> {
    match pb::Metric::try_from(number) {
        Ok(pb::Metric::Unspecified | pb::Metric::Cosine) => Ok(Metric::Cosine),
        Ok(pb::Metric::Dot) => Ok(Metric::Dot),
        Ok(pb::Metric::L2) => Ok(Metric::L2),
        Err(_) => Err(Error::field("metric", format!("{number} is no metric"))),
    }
}

fn hits(k: u32) -> Result<usize, Error> {
    match k {
        0 => Err(Error::field("k", "0 answers are asked for; ask for at least 1")),
        k => Ok(k as usize),
    }
}

/// Refuses work whose answer could not be sent. `each` is the least that one of `items * answers` takes, in bytes.
fn reply_fits(limit: usize, field: &str, items: usize, answers: usize, each: usize) -> Result<(), Error> {
    match items.saturating_mul(answers).saturating_mul(each) {
        bytes if bytes <= limit => Ok(()),
        bytes => Err(too_large(field, bytes, limit)),
    }
}

/// The refusal of a reply over the message limit. `field` holds the items to send fewer of.
pub(crate) fn too_large(field: &str, bytes: usize, limit: usize) -> Error {
    let text =
        format!("the reply would be {bytes} bytes or more, and a message is at most {limit}; send fewer at a time");
    Error::field(field, text)
}

fn weights(weights: &[f64]) -> Result<[f64; 5], Error> {
    if weights.is_empty() {
        return Ok(DEFAULT_WEIGHTS);
    }
    let fault =
        |at: usize| Error::row("weights", at as u64, format!("{:e}; from 0 to {MAX_WEIGHT:e} is legal", weights[at]));
    match <[f64; 5]>::try_from(weights) {
        Err(_) => Err(Error::field("weights", format!("{} numbers; five or none are legal", weights.len()))),
        Ok(five) => five.iter().position(|weight| !is_weight(*weight)).map_or(Ok(five), |at| Err(fault(at))),
    }
}

/// Points out of flat numbers, five each.
fn points(field: &str, flat: &[f64]) -> Result<Vec<[f64; 5]>, Error> {
    let (points, rest) = flat.as_chunks::<5>();
    if !rest.is_empty() {
        return Err(Error::field(field, format!("{} numbers; a point has five", flat.len())));
    }
    if let Some(at) = flat.iter().position(|value| !is_coordinate(*value)) {
        let description =
            format!("{} is {:e}; every number must be finite, and within ±{MAX_COORDINATE:e}", AXES[at % 5], flat[at]);
        return Err(Error::row(field, (at / 5) as u64, description));
    }
    Ok(points.to_vec())
}

fn sent_points(sent: &pb::Points) -> Result<Points, Error> {
    let points = points("points.coordinates", &sent.coordinates)?;
    let column = |axis: usize| points.iter().map(|point| point[axis]).collect();
    Ok(Points::Sent(Arc::new(std::array::from_fn(column))))
}

fn corpus_points(view: Arc<CorpusView>) -> Result<Points, Error> {
    if view.rows() == 0 {
        // A corpus without rows has no columns either.
        return Ok(Points::Sent(Arc::default()));
    }
    require_coordinates(&view)?;
    Ok(Points::Corpus(view))
}

fn require_coordinates(view: &CorpusView) -> Result<(), Error> {
    // A corpus without rows has no columns either.
    if view.rows() == 0 || view.has_coordinates() {
        return Ok(());
    }
    let reason = "has rows without coordinates; only one whose rows all have them can be searched in 5-D";
    Err(Error::Precondition { name: view.name().into(), reason: reason.into() })
}

fn numbers(index: usize, memory: &pb::Memory) -> Result<Features, Error> {
    let finite = |field: &str, value: f64| {
        if value.is_finite() { Ok(value) } else { Err(not_finite_field(&format!("memories[{index}].{field}"), value)) }
    };
    Ok(Features {
        importance: finite("importance", memory.importance)?,
        access_count: memory.access_count,
        age_days: finite("age_days", memory.age_days)?,
        galactic_distance: finite("galactic_distance", memory.galactic_distance)?,
    })
}

fn not_finite_field(field: &str, value: f64) -> Error {
    Error::field(field, format!("{value}; the number must be finite"))
}

/// An empty answer still has a dimension.
pub(crate) fn no_vectors(dim: usize) -> Matrix {
    Matrix { rows: 0, dim, values: Vec::new() }
}
