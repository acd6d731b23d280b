//! Step 8, the reply: what the [calls](crate::call) share when an outcome becomes the response message, and the
//! responses of the other services.

use megaring_core::{BackendKind, BackendStatus, Element};
use megaring_corpus::{Appended, Deleted, Description, State};
use megaring_engine::Made;
use megaring_proto::v1 as pb;

mod admin;
mod board;
mod ledger;

pub use admin::{calibrated, explain, step};
pub use board::{board, board_of_another};
pub use ledger::record;

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
        dim: description.row_type.dim as u32,
        dtype: dtype(description.row_type.element).into(),
        rows: description.rows as u64,
        generation: u64::from(description.generation),
        segments: description.segments.into_iter().map(segment).collect(),
        columns: description.columns,
        partial_columns: description.partial_columns,
        size_bytes: description.bytes,
        created_unix_ns: description.created_unix_ns,
        deleted_rows: description.deleted_rows as u64,
        unique_ids: description.unique_ids,
        id_column: description.id_column.unwrap_or_default(),
        fault: match description.state {
            State::Healthy => None,
            State::Faulty { segment, reason } => Some(pb::Fault { segment, reason }),
        },
    }
}

/// What rows are made of.
fn dtype(element: Element) -> pb::Dtype {
    match element {
        Element::Float32 => pb::Dtype::Float32,
        Element::Bit => pb::Dtype::Bit,
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
        replaced: appended.replaced as u64,
    }
}

/// Ids that no row had, which a reply names at most.
const MISSING: usize = 100;

/// A deletion as the wire acknowledges it.
#[must_use]
pub fn deleted(mut deleted: Deleted) -> pb::DeleteResponse {
    let missing = (deleted.missing.len() + deleted.missing_texts.len()) as u64;
    deleted.missing.truncate(MISSING);
    deleted.missing_texts.truncate(MISSING);
    pb::DeleteResponse {
        rows: deleted.rows as u64,
        missing,
        missing_ids: deleted.missing,
        missing_text_ids: deleted.missing_texts,
        total_rows: deleted.total_rows as u64,
        generation: u64::from(deleted.generation),
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

/// How an answer was made, as the wire has it.
#[must_use]
pub fn made(made: Made) -> pb::Made {
    pb::Made {
        backend: backend(made.backend).into(),
        instruction_set: made.instruction_set,
        exact: made.exact,
        rows_rescored: made.rows_rescored,
        bytes_read: made.bytes_read,
        queue_ns: nanoseconds(made.queue),
        compute_ns: nanoseconds(made.compute),
        rescore_ns: nanoseconds(made.rescore),
        gathered_queries: made.batched_with,
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
