//! Step 7, the reaper: sees completion slots and wakes the owners of their tickets.
//!
//! One thread per ring, parked while nothing completes. A caller that blocks on its own ticket reaps for itself and for
//! everybody else meanwhile, so the thread is only needed for callers that await.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use megaring_core::{BackendKind, Error, Helper};
use megaring_ring::{JobRing, Outcome, Status, Ticket};

use crate::lane::Setback;

/// How often an idle reaper looks up, should it ever miss being told to stop.
const LOOK_UP: Duration = Duration::from_millis(500);
/// How often it does on a closed ring, as that of a backend that has failed.
const CLOSED_LOOK_UP: Duration = Duration::from_millis(5);

/// A ring's reaping thread.
pub struct Reaper {
    stop: Arc<AtomicBool>,
    ring: Arc<JobRing>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn start(kind: BackendKind, ring: Arc<JobRing>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_seen, ring_seen) = (stop.clone(), ring.clone());
        let thread = std::thread::Builder::new().name(format!("megaring-reap-{kind}")).spawn(move || {
            while !stop_seen.load(Ordering::Acquire) {
                ring_seen.reap();
                if ring_seen.is_closed() {
                    // Nothing wakes a reaper then. What still comes is late, or is reaped by who closed the ring.
                    std::thread::park_timeout(CLOSED_LOOK_UP);
                } else {
                    ring_seen.reaper_wait(Some(Instant::now() + LOOK_UP));
                }
            }
            ring_seen.reap();
        })?;
        Ok(Self { stop, ring, thread: Some(thread) })
    }

    /// Closes the ring and ends the thread after a last look at it.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.ring.close();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread runs no foreign code; if it died all the same, there is nothing to save.
            let _ = thread.join();
        }
    }
}

/// Awaits a ticket until the deadline. A ticket given up is completed and recycled by its completion.
///
/// # Errors
/// [`Error::DeadlineExceeded`], or what the completion's status means.
pub async fn await_ticket(ticket: Ticket, deadline: Option<Instant>) -> Result<Outcome, Setback> {
    let outcome = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), ticket)
            .await
            .map_err(|_| Error::DeadlineExceeded { stage: "being worked on" })?,
        None => ticket.await,
    };
    check(outcome)
}

/// Blocks on a ticket, reaping and, where the backend has use for it, working meanwhile. Deadlines are kept by the
/// backend alone, between pieces of work.
///
/// # Errors
/// What the completion's status means.
pub fn wait_ticket(ticket: Ticket, helper: Option<&dyn Helper>) -> Result<Outcome, Setback> {
    check(match helper {
        Some(helper) => ticket.wait_helping(|ticket| helper.can_help(ticket), |ticket| helper.help(ticket)),
        None => ticket.wait(),
    })
}

fn check(outcome: Outcome) -> Result<Outcome, Setback> {
    let internal = |status| Error::Internal(format!("ticket {} ended with {status:?}", outcome.completion.ticket));
    match outcome.completion.status {
        Status::Ok => Ok(outcome),
        Status::DeadlineExceeded => Err(Setback::Final(Error::DeadlineExceeded { stage: "being worked on" })),
        Status::Cancelled => Err(Setback::Final(Error::Cancelled)),
        // The engine itself ends only when no job is left; so it is the backend that went.
        Status::ShuttingDown => Err(Setback::Backend(Error::Draining)),
        // A backend that does not know an operation which it claims to serve has failed the job like any other fault.
        status @ (Status::BackendFailed | Status::UnknownOpcode) => Err(Setback::Backend(internal(status))),
        status @ (Status::BadDescriptor | Status::StaleCorpus | Status::ResultTooSmall | Status::Unknown(_)) => {
            Err(Setback::Final(internal(status)))
        }
    }
}
