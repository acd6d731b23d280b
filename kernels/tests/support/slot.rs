//! Slots as an operation's own definition cuts and writes them.

use megaring_core::Operation;
use megaring_core::operation::{Limits, Payload, Piece};
use megaring_engine::submit::write;
use megaring_ring::Descriptor;

/// What one slot asks for. Its regions are the ring's to say.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) descriptor: Descriptor,
    pub(crate) payload: Vec<u8>,
    /// Bytes of result.
    pub(crate) result: usize,
}

/// A job's slots, cut by nothing but its own limits.
pub(crate) fn slots(job: &dyn Operation) -> Vec<Sent> {
    let limits = Limits { max_items: usize::MAX, max_bytes: usize::MAX };
    let slot = |piece: Piece| {
        let mut payload = vec![0; piece.payload];
        let descriptor = write(job, &piece, Payload::new(&mut payload, true));
        Sent { descriptor, payload, result: piece.result }
    };
    job.pieces(&limits).into_iter().map(slot).collect()
}
