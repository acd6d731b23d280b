//! Errors on the wire: one exhaustive match turns an [`Error`] into a gRPC status with google.rpc details.
//!
//! Every status carries an `ErrorInfo` (domain `megaring`, a reason in capitals) and, by kind, the detail that helps a
//! program: the field path, the resource, the delay before a retry, the precondition. A fault of megaring carries an id
//! instead of its text; the log has the text under the same id. Texts that a caller chose are cut to
//! [`MAX_TEXT_BYTES`], so that a status always fits the headers it travels in.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use megaring_core::gate::{Denial, Reason};
use megaring_core::{Error, Violation};
use megaring_proto::RpcStatus;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "megaring";
/// Resource type of a corpus in a `ResourceInfo`.
pub const CORPUS: &str = "megaring.v1.Corpus";
/// Resource type of a segment, named `corpus/file`, in a `ResourceInfo`.
pub const SEGMENT: &str = "megaring.v1.Segment";
/// The trailer that gRPC's own retries heed. They do not look into the details.
pub const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Longest text of a status, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 512;

/// The status of an error. Logs faults of megaring.
#[must_use]
pub fn status(error: &Error) -> Status {
    let text = short(&error.to_string());
    let (code, reason, mut details) = match error {
        Error::Invalid(violation) => {
            let details = ErrorDetails::with_bad_request_violation(path(violation), short(&violation.description));
            (Code::InvalidArgument, "INVALID_FIELD", details)
        }
        Error::CorpusNotFound { name } => (Code::NotFound, "CORPUS_NOT_FOUND", resource(CORPUS, name, &text)),
        Error::CorpusExists { name } => (Code::AlreadyExists, "CORPUS_EXISTS", resource(CORPUS, name, &text)),
        Error::Exhausted { retry_after, .. } => {
            (Code::ResourceExhausted, "FULL", ErrorDetails::with_retry_info(Some(*retry_after)))
        }
        Error::Denied(denial) => denied(denial),
        Error::DeadlineExceeded { .. } => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", ErrorDetails::new()),
        Error::Cancelled => (Code::Cancelled, "CANCELLED", ErrorDetails::new()),
        Error::Draining => (Code::Unavailable, "DRAINING", ErrorDetails::new()),
        Error::UnderWay { what } => {
            let details = ErrorDetails::with_precondition_failure_violation("NOT_UNDER_WAY", *what, text.clone());
            (Code::FailedPrecondition, "UNDER_WAY", details)
        }
        Error::BackendUnavailable { kind, reason } => {
            let details =
                ErrorDetails::with_precondition_failure_violation("BACKEND_AVAILABLE", kind.name(), short(reason));
            (Code::FailedPrecondition, "BACKEND_UNAVAILABLE", details)
        }
        Error::Precondition { name, .. } => {
            let details = ErrorDetails::with_precondition_failure_violation("CORPUS_STATE", short(name), text.clone());
            (Code::FailedPrecondition, "CORPUS_STATE", details)
        }
        Error::Unknown(_) => (Code::NotFound, "UNKNOWN", ErrorDetails::new()),
        Error::WrongState(_) => (Code::FailedPrecondition, "WRONG_STATE", ErrorDetails::new()),
        Error::LedgerDamaged(_) => (Code::DataLoss, "LEDGER_DAMAGED", ErrorDetails::new()),
        Error::DataLoss { corpus, segment, .. } => {
            (Code::DataLoss, "SEGMENT_DAMAGED", resource(SEGMENT, &format!("{corpus}/{segment}"), &text))
        }
        Error::Storage(_) => (Code::ResourceExhausted, "STORAGE_REFUSED", ErrorDetails::new()),
        Error::Internal(fault) => return internal(fault),
    };
    details.set_error_info(reason, DOMAIN, HashMap::<String, String>::new());
    let mut status = Status::with_error_details(code, text, details);
    if let Some(pushback) = pushback_ms(error) {
        status.metadata_mut().insert(PUSHBACK, pushback.into());
    }
    status
}

/// The status of each reason. Waiting helps against some of them.
fn denied(denial: &Denial) -> (Code, &'static str, ErrorDetails) {
    let waiting =
        || denial.retry_after.map_or_else(ErrorDetails::new, |after| ErrorDetails::with_retry_info(Some(after)));
    match denial.reason {
        Reason::Size => (Code::OutOfRange, "DENIED_SIZE", ErrorDetails::new()),
        Reason::Breaker => (Code::Unavailable, "DENIED_BREAKER", waiting()),
        Reason::Rate => (Code::ResourceExhausted, "DENIED_RATE", waiting()),
        Reason::Role => (Code::PermissionDenied, "DENIED_ROLE", ErrorDetails::new()),
        Reason::Maturity => (Code::FailedPrecondition, "DENIED_MATURITY", ErrorDetails::new()),
        Reason::Governor => (Code::ResourceExhausted, "DENIED_GOVERNOR", waiting()),
        Reason::Budget => (Code::ResourceExhausted, "DENIED_BUDGET", waiting()),
        Reason::Token => (Code::Unauthenticated, "DENIED_TOKEN", ErrorDetails::new()),
        Reason::Recipient => (Code::PermissionDenied, "DENIED_RECIPIENT", ErrorDetails::new()),
        Reason::Ledger => (Code::Unavailable, "DENIED_LEDGER", waiting()),
    }
}

/// A status that ends a stream of messages, with how far it came: in its text, and as `name` in the metadata of its
/// `ErrorInfo`.
#[must_use]
pub fn came_to(status: Status, name: &'static str, next: u32) -> Status {
    let mut details = status.get_error_details();
    let Some(mut info) = details.error_info().cloned() else { return status };
    info.metadata.insert(name.into(), next.to_string());
    details.set_error_info(info.reason, info.domain, info.metadata);
    let text = format!("{}; {name} is {next}", status.message());
    Status::with_error_details_and_metadata(status.code(), text, details, status.metadata().clone())
}

/// When gRPC's own retries are to try again, in milliseconds; below 0 is never. `None` leaves it to them.
fn pushback_ms(error: &Error) -> Option<i64> {
    // Not before the time, and so rounded up.
    let rounded = |delay: Duration| i64::try_from(delay.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX);
    match error {
        Error::Exhausted { retry_after, .. } => Some(rounded(*retry_after)),
        Error::Denied(denial) => Some(denial.retry_after.map_or(-1, rounded)),
        Error::Storage(_) => Some(-1),
        _ => None,
    }
}

/// A status as a message, for errors that travel inside a stream's reply.
#[must_use]
pub fn rpc_status(status: &Status) -> RpcStatus {
    let bare = || RpcStatus { code: status.code() as i32, message: status.message().into(), details: Vec::new() };
    match RpcStatus::decode(status.details()) {
        Ok(full) if !status.details().is_empty() => full,
        _ => bare(),
    }
}

/// Does a call's work. An error becomes its status; a panic becomes INTERNAL, and the process goes on.
///
/// # Errors
/// The status of the work's error.
pub async fn answered<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Status> {
    // Nothing that a panic could leave half-changed is looked at again: what the work owned is dropped.
    let caught = AssertUnwindSafe(work).catch_unwind().await;
    let result = caught.unwrap_or_else(|panic| Err(Error::Internal(format!("panic: {}", panic_text(&*panic)))));
    result.map_err(|error| status(&error))
}

/// A status of tonic's own about a message that it could not decompress: not a fault of the server, as tonic has it,
/// but the sender's. Every other status is given back as it is.
#[must_use]
pub fn of_compressed(status: Status) -> Status {
    // Those of megaring have details.
    let Some(reason) = status.message().strip_prefix("Error decompressing: ").filter(|_| status.details().is_empty())
    else {
        return status;
    };
    match status.code() {
        Code::ResourceExhausted => Status::out_of_range(format!("the message is too large decompressed: {reason}")),
        Code::Internal => Status::invalid_argument(format!("the message cannot be decompressed: {reason}")),
        _ => status,
    }
}

fn internal(fault: &str) -> Status {
    let id = fault_id();
    tracing::error!(id, fault, "internal fault");
    let mut details = ErrorDetails::with_request_info(id.clone(), "");
    details.set_error_info("INTERNAL_FAULT", DOMAIN, HashMap::from([("id".to_owned(), id.clone())]));
    Status::with_error_details(
        Code::Internal,
        format!("a fault of megaring; its log has the reason under id {id}"),
        details,
    )
}

/// Unique within a process, and across restarts as far as the clock goes on.
fn fault_id() -> String {
    static FAULTS: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:012x}-{:04x}", since.as_micros(), FAULTS.fetch_add(1, Ordering::Relaxed))
}

/// The violated field as a path, the row in brackets where the path does not name it already.
fn path(violation: &Violation) -> String {
    match violation.row {
        Some(row) => format!("{}[{row}]", violation.field),
        None => violation.field.clone(),
    }
}

fn resource(kind: &str, name: &str, description: &str) -> ErrorDetails {
    ErrorDetails::with_resource_info(kind, short(name), "", description)
}

/// The beginning and the end of a text, which is where a message says what it is about and what would be right.
fn short(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    let half = (MAX_TEXT_BYTES - '…'.len_utf8()) / 2;
    let (head, tail) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{}…{}", &text[..head], &text[tail..])
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
