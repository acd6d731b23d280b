//! Step 5, submit: copies a piece's payload into the backend's arena and publishes its slot. How a job is cut, and how
//! its payload lies, the operation itself says ([`megaring_core::Operation`]).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_core::operation::{Limits, Payload, Piece, SlotFields};
use megaring_core::{Answered, Capabilities, Error, Operation};
use megaring_ring::{Descriptor, JobRing, ReserveError, Ticket, fnv1a64};

use crate::Terms;

/// Slots of one job that are under way together: while one is rescored, the backend has the next.
pub const DEPTH: usize = 3;
/// A piece's payload and result fill at most this part of the arena.
const ARENA_SHARE: usize = 8;

/// What a piece may hold on a backend.
#[must_use]
pub fn limits(capabilities: &Capabilities) -> Limits {
    Limits { max_items: capabilities.max_queries, max_bytes: capabilities.max_bytes / ARENA_SHARE }
}

/// Who is told of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// A consumer is woken.
    Now,
    /// Nobody: the submitting thread goes on to help.
    ByHelping,
}

/// Publishes one piece. `finds_rows`: see [`Payload`].
///
/// # Errors
/// [`ReserveError`] as the ring gives it: full, too large, closed.
pub fn submit(
    ring: &Arc<JobRing>,
    job: &dyn Operation,
    piece: &Piece,
    terms: &Terms,
    finds_rows: bool,
    announce: Announce,
) -> Result<Ticket, ReserveError> {
    let mut reservation = ring.try_reserve(piece.payload, piece.result)?;
    let slot = write(job, piece, Payload::new(reservation.payload_mut(), finds_rows));
    let tenant = fnv1a64(terms.tenant.as_bytes());
    let descriptor = Descriptor { tenant, deadline_ns: unix_deadline_ns(terms.deadline), ..slot };
    Ok(match announce {
        Announce::Now => reservation.submit(descriptor),
        Announce::ByHelping => reservation.submit_unannounced(descriptor),
    })
}

/// Writes a piece's payload, and fills its slot as far as the operation says it. `payload` is as long as the piece
/// says.
#[must_use]
pub fn write(job: &dyn Operation, piece: &Piece, mut payload: Payload<'_>) -> Descriptor {
    let mut fields = SlotFields::default();
    job.write(piece, &mut payload, &mut fields);
    let SlotFields { corpus, corpus_generation, dim, k, metric, dtype, flags, threshold } = fields;
    Descriptor {
        opcode: job.opcode() as u16,
        items: piece.items.len() as u32,
        corpus,
        corpus_generation,
        dim,
        k,
        metric,
        dtype,
        flags,
        threshold,
        ..Descriptor::default()
    }
}

/// The refusal a caller sees, of a piece that found no room. Only one of a single item can be too large ([`limits`]).
#[must_use]
pub fn refusal<O: Answered>(error: &ReserveError, piece: &Piece, retry_after: Duration) -> Error {
    match error {
        ReserveError::RingFull => Error::Exhausted { what: "the ring", retry_after },
        ReserveError::ArenaFull => Error::Exhausted { what: "the arena", retry_after },
        ReserveError::TooLarge { needed, limit } => Error::row(
            O::ITEMS,
            piece.items.start as u64,
            format!(
                "it takes {needed} bytes at once with what it comes with, and {limit} is the most (see --arena-bytes)"
            ),
        ),
        ReserveError::Closed => Error::Draining,
    }
}

/// A deadline on this process's clock as Unix nanoseconds; 0 is none.
fn unix_deadline_ns(deadline: Option<Instant>) -> u64 {
    let Some(deadline) = deadline else { return 0 };
    let left = deadline.saturating_duration_since(Instant::now());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + left).as_nanos()).unwrap_or(u64::MAX)
}
