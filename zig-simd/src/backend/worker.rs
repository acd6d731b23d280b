//! A worker's loop: claim a chunk of the oldest job; with none left, take slots from the ring; with none there, wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use megaring_ring::{Body, JobRing, PolledJob, Region, Status};

use super::Context;
use super::board::{Active, Board};
use super::plan::{Work, plan};
use super::search::Scratch;

/// Slots taken from the ring at once: enough to keep the others busy, few enough that they are shared fairly.
const BURST: usize = 4;

/// A job on the board.
pub(crate) struct Taken {
    ticket: u64,
    opcode: u16,
    deadline_ns: u64,
    result: Region,
    taken: Instant,
    /// The first thing that went wrong; `Status::Ok` as long as nothing did.
    status: AtomicU16,
    work: Work,
}

/// Runs until the context says stop and no taken chunk is left.
pub(crate) fn run(ring: &JobRing, board: &Board<Taken>, context: &Context) {
    let mut scratch = Scratch::default();
    loop {
        if let Some(job) = board.oldest() {
            while let Some(chunk) = job.claim() {
                run_chunk(ring, &job, chunk, context, &mut scratch);
            }
            continue;
        }
        if context.stopping() {
            return;
        }
        if take(ring, board, context) == 0 {
            ring.jobs_signal().wait_until(context.wait, None, || {
                ring.has_jobs() || board.has_work() || context.stopping()
            });
        }
    }
}

/// Moves slots from the ring to the board. Jobs that cannot be done are completed at once, with the reason.
fn take(ring: &JobRing, board: &Board<Taken>, context: &Context) -> usize {
    let mut polled: Vec<PolledJob> = Vec::with_capacity(BURST);
    let count = ring.try_poll(BURST, &mut |job| polled.push(job));
    for PolledJob { ticket, descriptor } in polled {
        let taken = Instant::now();
        let (opcode, result, deadline_ns) =
            descriptor.as_ref().map_or((0, Region::default(), 0), |d| (d.opcode, d.result, d.deadline_ns));
        let planned = descriptor.map_err(|_| Status::BadDescriptor).and_then(|descriptor| {
            if is_past(descriptor.deadline_ns) {
                return Err(Status::DeadlineExceeded);
            }
            plan(&descriptor, ring.arena(), context)
        });
        match planned {
            Ok((work, chunks)) => {
                let status = AtomicU16::new(Status::Ok.into());
                let job = Taken { ticket, opcode, deadline_ns, result, taken, status, work };
                board.post(Arc::new(Active::new(job, chunks)));
                if chunks > 1 {
                    ring.jobs_signal().notify_all();
                }
            }
            Err(status) => ring.complete(ticket, opcode, status, elapsed_ns(taken), Body::Empty),
        }
    }
    count
}

fn run_chunk(ring: &JobRing, job: &Active<Taken>, chunk: u32, context: &Context, scratch: &mut Scratch) {
    let taken = &job.work;
    if job.chunks() > 1 && is_past(taken.deadline_ns) {
        taken.fail(Status::DeadlineExceeded);
    }
    if taken.is_ok() {
        let chunk = chunk as usize;
        let done = catch_unwind(AssertUnwindSafe(|| taken.run(chunk, context, scratch)));
        if done.is_err() {
            // Scratch may be half-written; the job's own parts are given up with it.
            *scratch = Scratch::default();
            taken.fail(Status::BackendFailed);
        }
    }
    if job.finish() {
        complete(ring, taken);
    }
}

fn complete(ring: &JobRing, taken: &Taken) {
    if taken.is_ok() && catch_unwind(AssertUnwindSafe(|| taken.merge())).is_err() {
        taken.fail(Status::BackendFailed);
    }
    let body = if taken.is_ok() { Body::Arena(taken.result) } else { Body::Empty };
    ring.complete(taken.ticket, taken.opcode, taken.status(), elapsed_ns(taken.taken), body);
}

impl Taken {
    fn run(&self, chunk: usize, context: &Context, scratch: &mut Scratch) {
        let kernels = context.kernels;
        match &self.work {
            Work::Nop => {}
            Work::Search(work) => work.run(chunk, kernels, scratch),
            Work::Score(work) => work.run(chunk, kernels),
            Work::Masks(work) => work.run(chunk, &context.automaton, kernels),
            Work::Nearest(work) => work.run(chunk, kernels),
        }
    }

    fn merge(&self) {
        match &self.work {
            Work::Search(work) => work.merge(),
            Work::Nearest(work) => work.merge(),
            Work::Nop | Work::Score(_) | Work::Masks(_) => {}
        }
    }

    fn status(&self) -> Status {
        Status::from(self.status.load(Ordering::Acquire))
    }

    fn is_ok(&self) -> bool {
        self.status() == Status::Ok
    }

    fn fail(&self, status: Status) {
        let _ = self.status.compare_exchange(Status::Ok.into(), status.into(), Ordering::AcqRel, Ordering::Acquire);
    }
}

fn elapsed_ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a deadline in Unix nanoseconds has passed; 0 is none.
fn is_past(deadline_ns: u64) -> bool {
    deadline_ns != 0
        && SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now.as_nanos() >= u128::from(deadline_ns))
}
