//! Step 8, the reply: an outcome becomes the response message. Row numbers get the caller's ids, and titles where asked for.
//!
//! A reply that would exceed the message limit is refused here at the latest, in words that help; most are refused before the work
//! is done (see [`crate::validate`]).

use megaring_core::corpus::CorpusView;
use megaring_core::exact::reported;
use megaring_core::nearest::Neighbour;
use megaring_core::encode::profile::Profile;
use megaring_core::rescore::Ranked;
use megaring_core::{BackendKind, BackendStatus, Error};
use megaring_corpus::{Appended, Description, State};
use megaring_proto::v1 as pb;
use prost::Message;

use crate::outcome::{Answer, Made, Outcome};
use crate::validate::too_large;

mod admin;

pub use admin::{calibrated, explain, step};

/// The response of a search of `corpus`.
///
/// # Errors
/// [`Error::Invalid`] for a reply over `limit` bytes.
pub fn search(outcome: Outcome, corpus: &CorpusView, titles: bool, limit: usize) -> Result<pb::SearchResponse, Error> {
    let Answer::Hits(ranked) = outcome.answer else { return Err(mismatch("search")) };
    let results = ranked.iter().map(|ranked| hits(ranked, corpus, titles)).collect();
    let generation = u64::from(corpus.generation());
    within(limit, "queries", pb::SearchResponse { results, made: Some(made(outcome.made)), generation })
}

/// The response of a score job over `corpus` with `queries` queries.
///
/// # Errors
/// [`Error::Invalid`] for a reply over `limit` bytes.
pub fn score(outcome: Outcome, corpus: &CorpusView, queries: usize, limit: usize) -> Result<pb::ScoreResponse, Error> {
    let Answer::Scores { rows, values } = outcome.answer else { return Err(mismatch("score")) };
    let data: Vec<u8> = values.iter().flat_map(|score| score.to_le_bytes()).collect();
    let scores = pb::Vectors {
        data: data.into(),
        dtype: pb::Dtype::Float32.into(),
        rows: queries as u32,
        dim: rows as u32,
        int8_scale: None,
    };
    let generation = u64::from(corpus.generation());
    within(limit, "queries", pb::ScoreResponse { scores: Some(scores), made: Some(made(outcome.made)), generation })
}

/// The response of an encode job under `profile`.
///
/// # Errors
/// [`Error::Invalid`] for a reply over `limit` bytes.
pub fn encode(outcome: Outcome, profile: &Profile, masks: bool, limit: usize) -> Result<pb::EncodeResponse, Error> {
    let Answer::Encoded(encoded) = outcome.answer else { return Err(mismatch("encoding")) };
    let mut response = pb::EncodeResponse {
        coordinates: encoded.iter().flat_map(|encoded| encoded.coordinates).collect(),
        zones: encoded.iter().map(|encoded| encoded.zone as u32).collect(),
        profile: profile.name().into(),
        made: Some(made(outcome.made)),
        ..pb::EncodeResponse::default()
    };
    if masks {
        let bytes: Vec<u8> = encoded.iter().flat_map(|encoded| encoded.mask.to_le_bytes()).collect();
        response.masks = bytes.into();
        response.words = profile.words().to_vec();
    }
    within(limit, "memories", response)
}

/// The response of a nearest job, over `corpus` or (where there is none) over points sent along.
///
/// # Errors
/// [`Error::Invalid`] for a reply over `limit` bytes.
pub fn nearest(
    outcome: Outcome,
    corpus: Option<&CorpusView>,
    titles: bool,
    limit: usize,
) -> Result<pb::NearestResponse, Error> {
    let Answer::Neighbours(found) = outcome.answer else { return Err(mismatch("nearest")) };
    let results = found.iter().map(|found| neighbours(found, corpus, titles)).collect();
    let generation = corpus.map_or(0, |corpus| u64::from(corpus.generation()));
    within(limit, "queries", pb::NearestResponse { results, made: Some(made(outcome.made)), generation })
}

/// A corpus as the wire describes it.
#[must_use]
pub fn corpus(description: Description) -> pb::Corpus {
    let segment = |segment: megaring_corpus::SegmentDescription| pb::Segment {
        file: segment.file,
        rows: segment.rows as u64,
        size_bytes: segment.bytes,
        checksum: segment.checksum,
    };
    pb::Corpus {
        name: description.name,
        dim: description.dim as u32,
        rows: description.rows as u64,
        generation: u64::from(description.generation),
        segments: description.segments.into_iter().map(segment).collect(),
        columns: description.columns,
        size_bytes: description.bytes,
        created_unix_ns: description.created_unix_ns,
        fault: match description.state {
            State::Healthy => None,
            State::Faulty { segment, reason } => Some(pb::Fault { segment, reason }),
        },
    }
}

/// An append as the wire acknowledges it.
#[must_use]
pub fn appended(appended: &Appended) -> pb::AppendResponse {
    pb::AppendResponse {
        rows: appended.rows as u64,
        total_rows: appended.total_rows as u64,
        generation: u64::from(appended.generation),
        segments: appended.segments as u32,
    }
}

/// A backend's state as the wire has it.
#[must_use]
pub fn backend_state(kind: BackendKind, status: BackendStatus) -> pb::BackendState {
    use pb::backend_state::State;
    let state = match status {
        BackendStatus::Unavailable { reason } => State::UnavailableReason(reason),
        BackendStatus::Available(able) => State::Capabilities(pb::Capabilities {
            device: able.device,
            instruction_set: able.instruction_set,
            lanes: able.lanes as u32,
            operations: able.operations.iter().map(|operation| operation.name().into()).collect(),
            max_queries: able.max_queries as u64,
            max_bytes: able.max_bytes as u64,
            emulated: able.emulated,
        }),
    };
    pb::BackendState { backend: backend(kind).into(), state: Some(state) }
}

fn hits(ranked: &Ranked, corpus: &CorpusView, titles: bool) -> pb::Hits {
    let label = |hit: &megaring_core::rescore::Hit| corpus.label(hit.row);
    pb::Hits {
        rows: ranked.hits.iter().map(|hit| hit.row).collect(),
        memory_ids: ranked.hits.iter().map(|hit| label(hit).0).collect(),
        scores: ranked.hits.iter().map(|hit| reported(hit.score)).collect(),
        titles: if titles { ranked.hits.iter().map(|hit| label(hit).1.into()).collect() } else { Vec::new() },
    }
}

fn neighbours(found: &[Neighbour], corpus: Option<&CorpusView>, titles: bool) -> pb::Neighbours {
    let labels = || corpus.into_iter().flat_map(|corpus| found.iter().map(|at| corpus.label(at.row)));
    pb::Neighbours {
        rows: found.iter().map(|at| at.row).collect(),
        memory_ids: labels().map(|(id, _)| id).collect(),
        distances: found.iter().map(|at| at.distance).collect(),
        titles: if titles { labels().map(|(_, title)| title.into()).collect() } else { Vec::new() },
    }
}

fn made(made: Made) -> pb::Made {
    pb::Made {
        backend: backend(made.backend).into(),
        instruction_set: made.instruction_set,
        exact: made.exact,
        rows_rescored: made.rows_rescored,
        bytes_read: made.bytes_read,
        queue_ns: nanoseconds(made.queue),
        compute_ns: nanoseconds(made.compute),
        rescore_ns: nanoseconds(made.rescore),
        gathered_queries: made.gathered,
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn backend(kind: BackendKind) -> pb::Backend {
    match kind {
        BackendKind::Cpu => pb::Backend::Cpu,
        BackendKind::Cuda => pb::Backend::Cuda,
        BackendKind::Wgpu => pb::Backend::Wgpu,
    }
}

fn within<M: Message>(limit: usize, field: &str, message: M) -> Result<M, Error> {
    match message.encoded_len() {
        bytes if bytes <= limit => Ok(message),
        bytes => Err(too_large(field, bytes, limit)),
    }
}

fn mismatch(operation: &str) -> Error {
    Error::Internal(format!("a {operation} job was answered with something else"))
}
