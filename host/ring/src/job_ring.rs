//! The job ring: a submission queue, a completion queue twice as long, an arena, and the tickets in between.
//!
//! Promises
//! - A job is admitted by [`JobRing::try_reserve`] only when it holds a submission slot, a completion slot and a run of
//!   the arena; when one of them is lacking it says which, at once, and nothing is held. So a submitted job can
//!   overflow neither queue.
//! - [`JobRing::submit`] takes no lock, allocates nothing, never waits, and makes no system call while a consumer is
//!   awake.
//! - Every submitted ticket is answered exactly once: by its completion, or by [`JobRing::fail_outstanding`]. A
//!   completion for a ticket that is not waiting is counted as a fault and goes nowhere.
//! - A run is given back by its completion, never by a deadline or a dropped ticket. Where the consumer's completion
//!   did not come, the run is quarantined until it does, or until someone who knows that the consumer is dead says so
//!   ([`JobRing::release_quarantine`]).
//!
//! Limits: a reservation is refused while answers that nobody collected hold all credits, of which there are twice the
//! capacity. Answers are delivered by whoever calls [`JobRing::reap`]: a dedicated thread, the blocking waiters, or the
//! workers; without any of them tickets wait.

use std::{
    sync::{
        Arc,
        // Mere counters: the model checker need not see them.
        atomic::AtomicU64 as Counter,
    },
    task::Waker,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    arena::{Arena, REGION_ALIGN},
    completion::{Completion, Status},
    descriptor::Descriptor,
    layout::{DeviceLines, RingConfig, RingError, RingLayout},
    memory::Memory,
    protocol::{Protocol, Sound},
    queue::{BURST, CompletionQueue, Queue, SubmissionQueue, decode},
    signal::{Signal, WaitStrategy},
    sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    table::{Settled, Table},
    ticket::{Reservation, Ticket},
};

/// Why a job was not admitted. Nothing is held after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// No submission or completion slot is free now.
    #[error("the ring is full")]
    RingFull,
    /// No free run of the arena is long enough now.
    #[error("the arena is full")]
    ArenaFull,
    /// Payload and result would not fit the empty arena.
    #[error("payload and result need {needed} bytes, and the arena has {limit}")]
    TooLarge {
        /// Bytes of the payload, rounded up to 128, and of the result.
        needed: usize,
        /// Bytes there are for both.
        limit: usize,
    },
    /// The ring was closed.
    #[error("the ring is closed")]
    Closed,
}

/// Counts since the ring was made, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Jobs submitted.
    pub submitted: u64,
    /// Tickets answered, whatever the status.
    pub completed: u64,
    /// Slots that were damaged, completions that came without a ticket, twice, too early or too late, tails that cannot
    /// be.
    pub faults: u64,
    /// Reservations refused for want of a slot.
    pub ring_full: u64,
    /// Reservations refused for want of a run.
    pub arena_full: u64,
    /// Gauge: tickets not answered yet.
    pub outstanding: u64,
    /// Gauge: answered tickets whose consumer may still touch their run.
    pub quarantined: u64,
    /// Gauge: bytes of the arena that are leased.
    pub arena_leased: u64,
}

/// A job ring.
#[derive(Debug)]
pub struct JobRing<P: Protocol = Sound> {
    pub(crate) submissions: SubmissionQueue<P>,
    pub(crate) completions: CompletionQueue<P>,
    pub(crate) arena: Arena,
    pub(crate) table: Table,
    /// News for the consumer's workers.
    pub(crate) jobs: Signal<P>,
    /// News for threads that block on a ticket and reap by themselves.
    waiters: Signal<P>,
    /// News for the dedicated reaper.
    reaper: Signal<P>,
    /// News for threads that watch over a device while it works. Apart from `jobs`, since an announced submission wakes
    /// one waiter there, which has to be one that takes jobs or sees that they are taken.
    pub(crate) watchers: Signal<P>,
    /// The completions' tail of the last announcement on a device's behalf.
    pub(crate) announced: AtomicU64,
    /// Whether the completions' tail was last seen where no consumer can have put it.
    astray: AtomicBool,
    /// Threads that block on a ticket now.
    self_reaping: AtomicUsize,
    closed: AtomicBool,
    /// Once a closed ring was failed: the code that later submissions are answered with at once, + 1.
    failed: AtomicU32,
    pub(crate) counters: Counters,
    wait: WaitStrategy,
    pub(crate) lines: DeviceLines,
    layout: RingLayout,
    memory: Memory,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    submitted: Counter,
    completed: Counter,
    pub(crate) faults: Counter,
    ring_full: Counter,
    arena_full: Counter,
}

impl JobRing {
    /// A ring in memory of this process, from position 0.
    pub fn new(config: RingConfig) -> Result<Arc<Self>, RingError> {
        Self::with_protocol(config)
    }

    /// A ring in `memory`, which must have [`RingLayout::len`] bytes of the config's layout and nobody else using them;
    /// `start` is the first position of both queues, so that a ring can go on where an earlier one stopped.
    pub fn with_memory(config: RingConfig, memory: Memory, start: u64) -> Result<Arc<Self>, RingError> {
        Self::lay(config, memory, start)
    }
}

impl<P: Protocol> JobRing<P> {
    /// [`JobRing::new`] for a given protocol.
    pub fn with_protocol(config: RingConfig) -> Result<Arc<Self>, RingError> {
        let layout = RingLayout::of(&config)?;
        Self::lay(config, Memory::heap(layout.len)?, 0)
    }

    fn lay(config: RingConfig, memory: Memory, start: u64) -> Result<Arc<Self>, RingError> {
        let layout = RingLayout::of(&config)?;
        let blocks = config.arena_bytes.div_ceil(config.block_bytes);
        Ok(Arc::new(Self {
            submissions: Queue::lay(&memory, layout.submissions, start)?,
            completions: Queue::lay(&memory, layout.completions, start)?,
            arena: Arena::lay(&memory, layout.runs, layout.arena, config.block_bytes, blocks)?,
            table: Table::new(layout.completions.capacity),
            jobs: Signal::new(),
            waiters: Signal::new(),
            reaper: Signal::new(),
            watchers: Signal::new(),
            announced: AtomicU64::new(start),
            astray: AtomicBool::new(false),
            self_reaping: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            failed: AtomicU32::new(0),
            counters: Counters::default(),
            wait: config.wait,
            lines: DeviceLines::lay(&memory, &layout)?,
            layout,
            memory,
        }))
    }

    /// Admits a job of `payload_bytes`, whose answer takes up to `result_bytes` in the arena (0 if it fits a completion
    /// slot).
    ///
    /// Takes a short lock twice: once for the credit, once for the run. Dropping the reservation gives everything back.
    pub fn try_reserve(
        self: &Arc<Self>,
        payload_bytes: usize,
        result_bytes: usize,
    ) -> Result<Reservation<P>, ReserveError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ReserveError::Closed);
        }
        let limit = self.arena.limit();
        let payload_end = payload_bytes.checked_next_multiple_of(REGION_ALIGN).unwrap_or(usize::MAX);
        let needed = payload_end.saturating_add(result_bytes);
        if needed > limit {
            return Err(ReserveError::TooLarge { needed, limit });
        }
        let Some(entry) = self.table.take() else {
            return Err(self.refuse_full());
        };
        if !self.submissions.try_reserve() {
            self.table.give(entry);
            return Err(self.refuse_full());
        }
        let Some(lease) = self.arena.lease(payload_bytes, result_bytes) else {
            self.submissions.release();
            self.table.give(entry);
            count(&self.counters.arena_full);
            return Err(ReserveError::ArenaFull);
        };
        Ok(Reservation::new(self.clone(), entry, lease))
    }

    /// Publishes the job. Its regions, arena generation and timestamp are filled in here.
    pub fn submit(self: &Arc<Self>, reservation: Reservation<P>, descriptor: Descriptor) -> Ticket<P> {
        reservation.submit(descriptor)
    }

    /// Delivers the completions that are there and wakes the tickets' owners; tells how many were delivered. Any thread
    /// may call it; a thread that finds another one polling gets 0 at once. Where the tail is not one that a consumer
    /// can have stored, that is a fault and nothing is delivered: the tickets wait for [`JobRing::fail_outstanding`].
    pub fn reap(&self) -> usize {
        if self.completions.is_empty() {
            return 0;
        }
        let mut delivered = 0;
        let mut seen = 0;
        // A limit, since with fast workers the queue might never be seen empty.
        while seen < self.completions.capacity() {
            let Ok(burst) = self.completions.poll(BURST) else {
                // Once for each time that it goes wrong, however often anyone looks.
                if !self.astray.swap(true, Ordering::Relaxed) {
                    count(&self.counters.faults);
                }
                break;
            };
            if burst.is_empty() {
                break;
            }
            self.astray.store(false, Ordering::Relaxed);
            seen += burst.len();
            delivered += self.deliver(burst);
        }
        if delivered > 0 && P::WAKE_AFTER_REAP {
            self.waiters.notify_all();
        }
        delivered
    }

    /// Parks a dedicated reaper until there is something to reap (true) or the deadline has passed. While threads block
    /// in [`Ticket::wait`] they reap, and completions do not wake the dedicated reaper. On a closed ring it returns at
    /// once (true), so that the reaper can end.
    pub fn reaper_wait(&self, deadline: Option<Instant>) -> bool {
        self.reaper.wait_until(self.wait, deadline, || {
            let wanted = self.completions.has_news() && self.self_reaping.load(Ordering::Relaxed) == 0;
            wanted || self.is_closed()
        })
    }

    /// Tickets submitted and not answered.
    pub fn outstanding(&self) -> usize {
        self.table.outstanding()
    }

    /// Admits nothing from now on. What is reserved may still be submitted, and what is submitted is answered.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.reaper.notify_all();
        self.watchers.notify_all();
    }

    /// Whether [`JobRing::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Answers every outstanding ticket with `status`, because the consumer died or is not waited for; tells how many.
    /// Their runs are quarantined. On a closed ring this is final: a reservation submitted later is answered with the
    /// same status at once.
    pub fn fail_outstanding(&self, status: Status) -> usize {
        if self.is_closed() {
            self.failed.store(u32::from(status.code()) + 1, Ordering::Relaxed);
        }
        // Pairs with the fence in `submitted`: either that submission sees the mark above, or the scan below sees its
        // ticket.
        fence(Ordering::SeqCst);
        let now = unix_ns();
        let failed = self.table.listed().filter(|entry| self.fail(*entry, status, now)).count();
        self.waiters.notify_all();
        failed
    }

    /// Gives the quarantined runs back; tells how many. Only for who knows that no consumer of before the failure
    /// touches the arena any more. A job that no consumer had taken stays in the queue; its run's generation is over,
    /// so the next consumer answers it as faulty, which frees the last of it.
    pub fn release_quarantine(&self) -> usize {
        self.reap();
        self.table.release_quarantine(&self.arena, self.submissions.head())
    }

    /// Counts and gauges.
    pub fn stats(&self) -> RingStats {
        let read = |counter: &Counter| counter.load(std::sync::atomic::Ordering::Relaxed);
        RingStats {
            submitted: read(&self.counters.submitted),
            completed: read(&self.counters.completed),
            faults: read(&self.counters.faults),
            ring_full: read(&self.counters.ring_full),
            arena_full: read(&self.counters.arena_full),
            outstanding: self.table.outstanding() as u64,
            quarantined: self.table.quarantined() as u64,
            arena_leased: (self.arena.len() - self.arena.free_bytes()) as u64,
        }
    }

    /// Submission slots.
    pub fn capacity(&self) -> usize {
        self.submissions.capacity()
    }

    /// The most bytes that one job's payload and result can have together, each rounded up to 128.
    pub fn max_job_bytes(&self) -> usize {
        self.arena.limit()
    }

    /// Where everything lies in [`JobRing::memory`].
    pub fn layout(&self) -> &RingLayout {
        &self.layout
    }

    /// The ring's bytes.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Blocks until `entry` is answered or `is_over` says so (true), or the deadline has passed; reaps meanwhile.
    pub(crate) fn wait_answer(&self, entry: u32, deadline: Option<Instant>, is_over: &dyn Fn() -> bool) -> bool {
        if self.table.is_answered(entry) {
            return true;
        }
        let _reaping = SelfReaping::begin(self);
        self.waiters.wait_until(self.wait, deadline, || {
            self.table.is_answered(entry) || {
                self.reap();
                self.table.is_answered(entry) || is_over()
            }
        })
    }

    /// Wakes the consumer for a job that is in the queue, if it is to be told of it, or answers the job where the ring
    /// has failed for good.
    pub(crate) fn submitted(&self, entry: u32, announce: bool) {
        count(&self.counters.submitted);
        // Pairs with the fences of a parking worker and a parking watcher, and with the one in `fail_outstanding`.
        Signal::<P>::order();
        if announce {
            self.jobs.wake_one();
            self.watchers.wake_one();
        }
        if let Some(code) = self.failed.load(Ordering::Relaxed).checked_sub(1) {
            self.fail(entry, Status::from_code(code as u16), unix_ns());
            self.waiters.notify_all();
        }
    }

    /// Wakes whoever is to reap a completion that is in the queue.
    pub(crate) fn completed(&self) {
        // Pairs with the fences of a parking reaper or waiter and of `SelfReaping`.
        Signal::<P>::order();
        if self.self_reaping.load(Ordering::Relaxed) > 0 {
            self.waiters.wake_all();
        } else {
            self.reaper.wake_one();
        }
    }

    fn deliver(&self, burst: crate::queue::Burst) -> usize {
        let mut wakers: [Option<Waker>; BURST] = [const { None }; BURST];
        let mut delivered = 0;
        // A consumer reports a job taken before it answers it, so what is read here, after the completions, covers all
        // that they may name.
        let head = self.submissions.head();
        let untaken = |ticket: u64| head.wrapping_sub(ticket) >= 1 << 63;
        for (waker, (position, slot)) in wakers.iter_mut().zip(burst) {
            let settled = match decode::<Completion>(position, &slot) {
                Ok(completion) => self.table.settle(&self.arena, completion, untaken(completion.ticket)),
                // The number is all there is to go by. If it names a waiting ticket, that one gets an error rather than
                // nothing.
                Err(_) => {
                    let doubtful = Completion { ticket: slot.source_id, timestamp_ns: unix_ns(), ..Default::default() };
                    self.table.settle(&self.arena, doubtful, true)
                }
            };
            match settled {
                Settled::Answered(owner) => *waker = owner,
                Settled::Faulty(owner) => {
                    count(&self.counters.faults);
                    *waker = owner;
                }
                Settled::Fault => {
                    count(&self.counters.faults);
                    continue;
                }
            }
            count(&self.counters.completed);
            delivered += 1;
        }
        // Only now, since a waker is foreign code: if one panics, the answers are there already.
        wakers.into_iter().flatten().for_each(Waker::wake);
        delivered
    }

    fn fail(&self, entry: u32, status: Status, now: u64) -> bool {
        let Some(waker) = self.table.fail(entry, status, now) else {
            return false;
        };
        count(&self.counters.completed);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    fn refuse_full(&self) -> ReserveError {
        count(&self.counters.ring_full);
        ReserveError::RingFull
    }
}

/// While it lives, this thread reaps, and completions wake it instead of the dedicated reaper.
struct SelfReaping<'a, P: Protocol>(&'a JobRing<P>);

impl<'a, P: Protocol> SelfReaping<'a, P> {
    fn begin(ring: &'a JobRing<P>) -> Self {
        ring.self_reaping.fetch_add(1, Ordering::Relaxed);
        Self(ring)
    }
}

impl<P: Protocol> Drop for SelfReaping<'_, P> {
    fn drop(&mut self) {
        self.0.self_reaping.fetch_sub(1, Ordering::Relaxed);
        // A completion that came while we were counted did not wake the reaper: pairs with the fence in `completed`.
        fence(Ordering::SeqCst);
        if self.0.completions.has_news() {
            self.0.completed();
        }
    }
}

pub(crate) fn count(counter: &Counter) {
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Now, in Unix nanoseconds; 0 if the clock stands before 1970.
pub(crate) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
