//! Step 5, submit: cuts a job into pieces that fit a slot, copies each piece's payload into the backend's arena, and publishes it.
//!
//! A batch larger than a backend takes at once becomes several slots; it is never refused for that. How payloads lie in the arena is
//! [`megaring_core::lists`].

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_core::lists::{self, FLAG_ALL_ROWS, FLAG_POINTS};
use megaring_core::job::{EncodeJob, Job, NearestJob, Points, ScoreJob, SearchJob, Terms};
use megaring_core::{Capabilities, Error};
use megaring_ring::{Descriptor, JobRing, ReserveError, Ticket, fnv1a64};

/// Slots of one job that are under way together: while one is rescored, the backend has the next.
pub const DEPTH: usize = 3;
/// A piece's payload and result fill at most this part of the arena.
const ARENA_SHARE: usize = 8;
/// Texts of one piece, in bytes: enough that a slot's cost does not show, little enough that all workers are busy in a stream.
const PIECE_TEXT_BYTES: usize = 2 << 20;
/// Memories of one piece.
const PIECE_TEXTS: usize = 16_384;
/// Hits that one piece may answer: 64 MiB of them.
const PIECE_HITS: usize = 4 << 20;
/// Room for candidates beyond the k wanted: what a screen typically leaves open, and ties.
const SPARE_CANDIDATES: usize = 256;

/// Items of a job that share a slot, and the bytes they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Items, counted within the job.
    pub items: Range<usize>,
    /// Bytes of payload.
    pub payload: usize,
    /// Bytes of result.
    pub result: usize,
}

impl Piece {
    /// Bytes of payload and result together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload + self.result
    }
}

/// Cuts a job into pieces. An empty batch has none; a nop has one.
#[must_use]
pub fn pieces(job: &Job, capabilities: &Capabilities) -> Vec<Piece> {
    let budget = capabilities.max_bytes / ARENA_SHARE;
    let most = capabilities.max_queries;
    match job {
        Job::Nop => vec![Piece { items: 0..0, payload: 0, result: 0 }],
        Job::Search(job) => {
            let result = lists::len(1, candidates_of(job.k, job.corpus.rows(), 4));
            let most = most.min(PIECE_HITS / job.k.min(job.corpus.rows()).max(1)).max(1);
            even_pieces(job.queries.rows, job.queries.dim * size_of::<f32>(), result, 0, most, budget)
        }
        Job::Score(job) => {
            let named = job.rows.as_ref().map_or(0, |rows| rows.len() * size_of::<u32>());
            let result = score_width(job) * size_of::<f32>();
            even_pieces(job.queries.rows, job.queries.dim * size_of::<f32>(), result, named, most, budget)
        }
        Job::Encode(job) => text_pieces(job),
        Job::Nearest(job) => {
            let sent = match &job.points {
                Points::Sent(columns) => columns[0].len() * size_of::<[f64; 5]>(),
                Points::Corpus(_) => 0,
            };
            let result = lists::len(1, candidates_of(job.k, job.points.len(), 1));
            let fixed = sent + size_of::<[f64; 5]>();
            even_pieces(job.queries.len(), size_of::<[f64; 5]>(), result, fixed, most, budget)
        }
    }
}

/// Publishes one piece.
///
/// # Errors
/// [`ReserveError`] as the ring gives it: full, too large, closed.
pub fn submit(ring: &Arc<JobRing>, job: &Job, piece: &Piece, terms: &Terms) -> Result<Ticket, ReserveError> {
    let mut reservation = ring.try_reserve(piece.payload, piece.result)?;
    let mut descriptor = Descriptor {
        opcode: job.opcode() as u16,
        tenant: fnv1a64(terms.tenant.as_bytes()),
        items: piece.items.len() as u32,
        threshold: f64::NEG_INFINITY,
        deadline_ns: unix_deadline_ns(terms.deadline),
        ..Descriptor::default()
    };
    let payload = Payload { bytes: reservation.payload_mut(), at: 0 };
    match job {
        Job::Nop => {}
        Job::Search(job) => write_search(job, piece, payload, &mut descriptor),
        Job::Score(job) => write_score(job, piece, payload, &mut descriptor),
        Job::Encode(job) => write_masks(job, piece, payload),
        Job::Nearest(job) => write_nearest(job, piece, payload, &mut descriptor),
    }
    Ok(ring.submit(reservation, descriptor))
}

/// The refusal a caller sees.
#[must_use]
pub fn refusal(error: &ReserveError, retry_after: Duration) -> Error {
    match error {
        ReserveError::RingFull => Error::Exhausted { what: "the ring", retry_after },
        ReserveError::ArenaFull => Error::Exhausted { what: "the arena", retry_after },
        ReserveError::TooLarge { limit } => Error::field(
            "request",
            format!(
                "one item needs more than the {limit} bytes that a backend takes at once; ask for fewer rows or a smaller k"
            ),
        ),
        ReserveError::Closed => Error::Draining,
    }
}

/// Rows a score job has for each query.
#[must_use]
pub fn score_width(job: &ScoreJob) -> usize {
    job.rows.as_ref().map_or(job.corpus.rows(), Vec::len)
}

fn candidates_of(k: usize, rows: usize, factor: usize) -> usize {
    // Where most rows are wanted no list is written at all: every row is a candidate.
    if k.saturating_mul(2) >= rows { 0 } else { rows.min(k * factor + SPARE_CANDIDATES) }
}

fn even_pieces(items: usize, payload: usize, result: usize, fixed: usize, most: usize, budget: usize) -> Vec<Piece> {
    let room = budget.saturating_sub(fixed) / (payload + result).max(1);
    let each = room.clamp(1, most);
    let count = items.div_ceil(each);
    (0..count)
        .map(|piece| {
            let items = items * piece / count..items * (piece + 1) / count;
            let len = items.len();
            Piece { items, payload: fixed + len * payload, result: len * result }
        })
        .collect()
}

fn text_pieces(job: &EncodeJob) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    while begin < job.texts.len() {
        let start = job.texts.offsets[begin];
        let fits = |end: &u64| (*end - start) as usize <= PIECE_TEXT_BYTES;
        let ends = &job.texts.offsets[begin + 1..(begin + 1 + PIECE_TEXTS).min(job.texts.offsets.len())];
        let len = ends.iter().take_while(|end| fits(end)).count().max(1);
        let bytes = (job.texts.offsets[begin + len] - start) as usize;
        let payload = (len + 1) * size_of::<u64>() + bytes;
        pieces.push(Piece { items: begin..begin + len, payload, result: len * size_of::<[u64; 2]>() });
        begin += len;
    }
    pieces
}

fn write_search(job: &SearchJob, piece: &Piece, mut payload: Payload<'_>, descriptor: &mut Descriptor) {
    payload.put(queries_of(&job.queries.values, job.queries.dim, piece));
    descriptor.corpus = job.corpus.handle();
    descriptor.corpus_generation = job.corpus.generation();
    descriptor.dim = job.queries.dim as u32;
    descriptor.k = u32::try_from(job.k).unwrap_or(u32::MAX);
    descriptor.metric = job.metric as u8;
    descriptor.dtype = megaring_core::Dtype::Float32 as u8;
    if let Some(threshold) = job.threshold {
        descriptor.threshold = threshold;
    } else if job.metric == megaring_core::Metric::L2 {
        descriptor.threshold = f64::INFINITY;
    }
}

fn write_score(job: &ScoreJob, piece: &Piece, mut payload: Payload<'_>, descriptor: &mut Descriptor) {
    payload.put(queries_of(&job.queries.values, job.queries.dim, piece));
    match &job.rows {
        Some(rows) => {
            payload.put(rows);
            descriptor.k = rows.len() as u32;
        }
        None => descriptor.flags = FLAG_ALL_ROWS,
    }
    descriptor.corpus = job.corpus.handle();
    descriptor.corpus_generation = job.corpus.generation();
    descriptor.dim = job.queries.dim as u32;
    descriptor.metric = job.metric as u8;
    descriptor.dtype = megaring_core::Dtype::Float32 as u8;
}

fn write_masks(job: &EncodeJob, piece: &Piece, mut payload: Payload<'_>) {
    let offsets = &job.texts.offsets[piece.items.start..=piece.items.end];
    let start = offsets[0];
    let local: Vec<u64> = offsets.iter().map(|offset| offset - start).collect();
    payload.put(&local);
    payload.put(&job.texts.bytes[start as usize..offsets[piece.items.len()] as usize]);
}

fn write_nearest(job: &NearestJob, piece: &Piece, mut payload: Payload<'_>, descriptor: &mut Descriptor) {
    payload.put(&job.queries[piece.items.clone()]);
    payload.put(&[job.weights]);
    descriptor.k = u32::try_from(job.k).unwrap_or(u32::MAX);
    match &job.points {
        Points::Sent(columns) => {
            for column in columns.iter() {
                payload.put(column);
            }
            descriptor.flags = FLAG_POINTS;
            descriptor.dim = columns[0].len() as u32;
        }
        Points::Corpus(view) => {
            descriptor.corpus = view.handle();
            descriptor.corpus_generation = view.generation();
        }
    }
}

fn queries_of<'a>(values: &'a [f32], dim: usize, piece: &Piece) -> &'a [f32] {
    &values[piece.items.start * dim..piece.items.end * dim]
}

/// Fills a payload from its start.
struct Payload<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Payload<'_> {
    fn put<T: bytemuck::NoUninit>(&mut self, values: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

/// A deadline on this process's clock as Unix nanoseconds; 0 is none.
fn unix_deadline_ns(deadline: Option<Instant>) -> u64 {
    let Some(deadline) = deadline else { return 0 };
    let left = deadline.saturating_duration_since(Instant::now());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + left).as_nanos()).unwrap_or(u64::MAX)
}
