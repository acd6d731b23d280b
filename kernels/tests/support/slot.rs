//! Slots as an operation's own definition cuts and writes them.

use megaring_core::Operation;
use megaring_core::operation::{Limits, Payload, Piece, SlotFields};
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
        let (mut payload, mut fields) = (vec![0; piece.payload], SlotFields::default());
        job.write(&piece, &mut Payload::new(&mut payload), &mut fields);
        let SlotFields { corpus, corpus_generation, dim, k, metric, dtype, flags, threshold } = fields;
        let (opcode, items) = (job.opcode() as u16, piece.items.len() as u32);
        let descriptor = Descriptor {
            opcode,
            items,
            corpus,
            corpus_generation,
            dim,
            k,
            metric,
            dtype,
            flags,
            threshold,
            ..Descriptor::default()
        };
        Sent { descriptor, payload, result: piece.result }
    };
    job.pieces(&limits).into_iter().map(slot).collect()
}
