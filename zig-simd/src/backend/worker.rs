//! A worker's loop: claim a chunk of the oldest job; with none left, take slots from the ring; with none there, wait.
//!
//! A thread that waits for an answer takes part: it takes slots like a worker, but does only the chunks of its own job
//! ([`help`]).

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use megaring_ring::{Body, JobRing, PolledJob, Status};

use super::Context;
use super::active::{ActiveJob, ActiveJobs};
use super::operation::{Planned, Scratch, Work};
use super::plan::plan;

/// Slots taken from the ring at once: enough to keep the others busy, few enough that they are shared fairly.
const BURST: usize = 4;

/// A slot's job, which workers share.
pub(crate) struct Taken {
    /// The slot, until it is completed.
    slot: Mutex<Option<megaring_ring::Work>>,
    ticket: u64,
    deadline_ns: u64,
    taken: Instant,
    /// The first thing that went wrong; `Status::Ok` as long as nothing did.
    status: AtomicU16,
    work: Box<dyn Work>,
}

/// Runs until the context says stop and no taken chunk is left.
pub(crate) fn run(ring: &Arc<JobRing>, jobs: &ActiveJobs<Taken>, context: &Context) {
    let mut scratch = Scratch::default();
    loop {
        if let Some(job) = jobs.oldest() {
            while let Some(chunk) = job.claim() {
                run_chunk(&job, chunk, context, &mut scratch);
            }
            continue;
        }
        if context.stopping() {
            return;
        }
        if take(ring, jobs, context, None) == 0 {
            context.waiting.fetch_add(1, Ordering::Relaxed);
            ring.jobs_signal()
                .wait_until(context.wait, None, || ring.has_jobs() || jobs.has_work() || context.stopping());
            context.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

thread_local! {
    /// What a thread that helps keeps between its jobs.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Does the chunks of job `ticket` that nobody has claimed. See [`megaring_core::Helper`].
pub(crate) fn help(ring: &Arc<JobRing>, jobs: &ActiveJobs<Taken>, context: &Context, ticket: u64) {
    if ring.is_untaken(ticket) && !context.stopping() {
        take(ring, jobs, context, Some(ticket));
    }
    if ring.has_jobs() {
        // Another thread takes slots now, and may have looked before this one was there; or its owner looked before our
        // submission, which it left the publishing to, had published both.
        ring.jobs_signal().notify_one();
    }
    let Some(job) = jobs.find(|taken| taken.is_of(ticket)) else { return };
    SCRATCH.with_borrow_mut(|scratch| {
        while let Some(chunk) = job.claim() {
            run_chunk(&job, chunk, context, scratch);
        }
    });
    jobs.remove(&job);
}

/// Moves slots from the ring to the active jobs, and wakes as many workers as have something to do. Jobs that cannot be
/// done are completed at once, with the reason. A worker goes on to do chunks of any job, a thread that helps only
/// those of its `own`.
fn take(ring: &Arc<JobRing>, jobs: &ActiveJobs<Taken>, context: &Context, own: Option<u64>) -> usize {
    let mut polled: [Option<PolledJob>; BURST] = [const { None }; BURST];
    let mut free = polled.iter_mut();
    let count = ring.try_poll(BURST, &mut |job| {
        if let Some(place) = free.next() {
            *place = Some(job);
        }
    });
    let (mut posted, mut has_own) = (0, own.is_none());
    for job in polled.into_iter().flatten() {
        let taken = Instant::now();
        let Ok(mut slot) = ring.open(&job) else {
            ring.complete(job.ticket, 0, Status::BadDescriptor, 0, Body::Empty);
            continue;
        };
        match prepare(&mut slot, context) {
            Ok((work, chunks)) => {
                let deadline_ns = slot.descriptor().deadline_ns;
                let status = AtomicU16::new(Status::Ok.code());
                let ticket = slot.ticket();
                let job = Taken { slot: Mutex::new(Some(slot)), ticket, deadline_ns, taken, status, work };
                jobs.push(Arc::new(ActiveJob::new(job, chunks)));
                posted += chunks as usize;
                has_own |= own == Some(ticket);
            }
            Err(status) => slot.complete(status, elapsed_ns(taken), Body::Empty),
        }
    }
    wake(ring, context, posted - usize::from(has_own && posted > 0));
    count
}

/// Sees to it that so many workers look for work, as far as there are: those that wait without having parked do so by
/// themselves.
fn wake(ring: &JobRing, context: &Context, wanted: usize) {
    let signal = ring.jobs_signal();
    // A worker that is not counted as parked sees what was posted before it does park; one that was counted as awake
    // and is at work by now looks for more when it is done.
    let parked = signal.parked();
    let awake = context.waiting.load(Ordering::Relaxed).saturating_sub(parked);
    (0..wanted.min(context.workers).saturating_sub(awake)).for_each(|_| signal.notify_one());
}

fn prepare(slot: &mut megaring_ring::Work, context: &Context) -> Result<Planned, Status> {
    if !slot.is_wanted() {
        return Err(Status::Cancelled);
    }
    if is_past(slot.descriptor().deadline_ns) {
        return Err(Status::DeadlineExceeded);
    }
    catch_unwind(AssertUnwindSafe(|| plan(slot, context))).unwrap_or(Err(Status::BackendFailed))
}

fn run_chunk(job: &ActiveJob<Taken>, chunk: u32, context: &Context, scratch: &mut Scratch) {
    let taken = &job.work;
    // It may have waited for long.
    taken.check_wanted();
    if taken.is_ok() {
        let done = catch_unwind(AssertUnwindSafe(|| taken.work.run(chunk as usize, context, scratch)));
        if !matches!(done, Ok(Ok(()))) {
            // Scratch may be half-written; the job's own parts are given up with it.
            *scratch = Scratch::default();
            taken.fail(Status::BackendFailed);
        }
    }
    if job.finish() {
        taken.complete(context);
    }
}

impl Taken {
    /// Completes the slot; called once, by whoever finished the last chunk.
    fn complete(&self, context: &Context) {
        if self.is_ok() && catch_unwind(AssertUnwindSafe(|| self.work.merge(context))).is_err() {
            self.fail(Status::BackendFailed);
        }
        let Some(slot) = self.lock().take() else { return };
        let whole = slot.result_body(slot.descriptor().result.len as usize).filter(|_| self.is_ok());
        slot.complete(self.status(), elapsed_ns(self.taken), whole.unwrap_or_default());
    }

    /// Whether it is the job that this ticket is for.
    pub(crate) fn is_of(&self, ticket: u64) -> bool {
        self.ticket == ticket
    }

    /// Fails the job where nobody waits for it any more.
    fn check_wanted(&self) {
        if is_past(self.deadline_ns) {
            self.fail(Status::DeadlineExceeded);
        } else if self.lock().as_ref().is_some_and(|slot| !slot.is_wanted()) {
            self.fail(Status::Cancelled);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<megaring_ring::Work>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Status {
        Status::from_code(self.status.load(Ordering::Acquire))
    }

    fn is_ok(&self) -> bool {
        self.status() == Status::Ok
    }

    fn fail(&self, status: Status) {
        let _ = self.status.compare_exchange(Status::Ok.code(), status.code(), Ordering::AcqRel, Ordering::Acquire);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use megaring_core::corpus::CorpusTable;
    use megaring_ring::{Descriptor, RingConfig, Ticket, WaitStrategy};

    use super::*;
    use crate::{KernelSet, KeywordAutomaton, SimdError};

    /// Notes that it was done.
    struct Noted(Arc<AtomicBool>);

    impl Work for Noted {
        fn run(&self, _: usize, _: &Context, _: &mut Scratch) -> Result<(), SimdError> {
            self.0.store(true, Ordering::Relaxed);
            Ok(())
        }
    }

    fn context() -> Context {
        Context {
            workers: 1,
            wait: WaitStrategy::Park,
            kernels: KernelSet::from_env().expect("an instruction set"),
            corpora: Arc::new(CorpusTable::default()),
            automaton: KeywordAutomaton::new([0; 256], 0, vec![0], 1, &[]).expect("a root alone"),
            waiting: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Takes a job of one chunk, lets `meanwhile` happen to it before the chunk is claimed, and says how it ended and
    /// whether it was done.
    fn one_chunk(deadline_ns: u64, meanwhile: impl FnOnce(Ticket) -> Option<Ticket>) -> (Option<Status>, bool) {
        let config = RingConfig { capacity: 4, arena_bytes: 1 << 12, block_bytes: 1 << 10, wait: WaitStrategy::Park };
        let ring = JobRing::new(config).expect("a ring");
        let ticket = ring.submit(ring.try_reserve(8, 8).expect("room"), Descriptor::default());
        let mut polled = None;
        ring.try_poll(1, &mut |job| polled = Some(job));
        let slot = ring.open(&polled.expect("it was submitted")).expect("a whole slot");
        let done = Arc::new(AtomicBool::new(false));
        let taken = Taken {
            ticket: slot.ticket(),
            slot: Mutex::new(Some(slot)),
            deadline_ns,
            taken: Instant::now(),
            status: AtomicU16::new(Status::Ok.code()),
            work: Box::new(Noted(done.clone())),
        };
        let ticket = meanwhile(ticket);
        let job = ActiveJob::new(taken, 1);
        let chunk = job.claim().expect("it has one");
        run_chunk(&job, chunk, &context(), &mut Scratch::default());
        ring.reap();
        assert_eq!(ring.outstanding(), 0);
        (ticket.map(|ticket| ticket.wait().status()), done.load(Ordering::Relaxed))
    }

    #[test]
    fn a_job_that_waited_too_long_for_a_worker_is_not_done() {
        assert_eq!(one_chunk(0, Some), (Some(Status::Ok), true));
        assert_eq!(one_chunk(1, Some), (Some(Status::DeadlineExceeded), false));
        let gone = |ticket| {
            drop(ticket);
            None
        };
        assert_eq!(one_chunk(0, gone), (None, false));
    }
}
