//! A backend that does as the test says. What it answers, it answers by "every row is a candidate": the engine then
//! scores all rows itself, so its answers are exact without a kernel.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use megaring_core::corpus::Columns;
use megaring_core::lists::{EVERY_ROW, ListHeader};
use megaring_core::operation::{Reads, Served, Serves};
use megaring_core::{Backend, BackendKind, Capabilities, Error, Helper, Opcode, Residency};
use megaring_engine::Running;
use megaring_ring::{Body, JobRing, RingConfig, Status, WaitStrategy, Work};

/// What a fake takes of one item: half its arena.
pub(crate) const MOST_ITEM_BYTES: usize = 16 << 20;

/// What becomes of the slots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As many are answered, all later ones fail.
    Answer(usize),
    /// They are taken, and kept.
    Keep,
    /// They fail as soon as their deadline has passed.
    FailLate,
}

/// The test's hand on a fake.
pub(crate) struct Handle {
    pub(crate) ring: Arc<JobRing>,
    mode: Mutex<Mode>,
    fault: Mutex<Option<String>>,
    refusal: Mutex<Option<Error>>,
    /// Whether [`Backend::prepare`] may return.
    open: Mutex<bool>,
    opened: Condvar,
    /// Whether it takes help, and whether [`Helper::help`] may return.
    pub(crate) takes_help: AtomicBool,
    pub(crate) help_may_end: Mutex<bool>,
    pub(crate) help_ends: Condvar,
    /// Threads that have begun to help.
    pub(crate) helping: AtomicUsize,
    /// Slots kept.
    kept: Mutex<Vec<Work>>,
    /// Calls of `prepare` that have begun.
    pub(crate) preparing: AtomicUsize,
    /// Residencies that live.
    pub(crate) resident: Arc<AtomicUsize>,
    /// Slots of callers still there that came while no residency lived.
    pub(crate) unprepared: AtomicUsize,
    /// Slots of more items than this fail instead of being answered.
    pub(crate) most_items: AtomicUsize,
    /// Status of those that fail.
    pub(crate) fails_with: AtomicU16,
    answered: AtomicUsize,
    stop: AtomicBool,
}

pub(crate) struct Fake {
    kind: BackendKind,
    capabilities: Capabilities,
    handle: Arc<Handle>,
    consumer: Mutex<Option<JoinHandle<()>>>,
}

/// A running fake.
pub(crate) fn fake(kind: BackendKind) -> (Arc<Handle>, Running) {
    fake_on(kind, false)
}

/// A running fake, on a device that is a program or not.
pub(crate) fn fake_on(kind: BackendKind, emulated: bool) -> (Arc<Handle>, Running) {
    let config = RingConfig { capacity: 64, arena_bytes: 32 << 20, block_bytes: 64 << 10, wait: WaitStrategy::Park };
    let ring = JobRing::new(config).expect("a ring");
    let handle = Arc::new(Handle {
        ring: ring.clone(),
        mode: Mutex::new(Mode::Answer(usize::MAX)),
        fault: Mutex::default(),
        refusal: Mutex::default(),
        open: Mutex::new(true),
        opened: Condvar::new(),
        takes_help: AtomicBool::new(false),
        help_may_end: Mutex::new(false),
        help_ends: Condvar::new(),
        helping: AtomicUsize::new(0),
        kept: Mutex::default(),
        preparing: AtomicUsize::new(0),
        resident: Arc::default(),
        unprepared: AtomicUsize::new(0),
        most_items: AtomicUsize::new(usize::MAX),
        fails_with: AtomicU16::new(Status::BackendFailed.code()),
        answered: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    });
    let capabilities = Capabilities {
        device: "a fake".into(),
        instruction_set: "fake".into(),
        driver: "1.0".into(),
        lanes: 1,
        operations: Served::by(|opcode| match opcode {
            Opcode::Nop | Opcode::Search | Opcode::Nearest => Serves::By(()),
            _ => Serves::Not("a fake has no kernels"),
        }),
        max_queries: 100,
        max_item_bytes: MOST_ITEM_BYTES,
        max_bytes: ring.arena().len(),
        emulated,
    };
    let seen = handle.clone();
    let consumer = Mutex::new(Some(std::thread::spawn(move || seen.consume())));
    (handle.clone(), (Box::new(Fake { kind, capabilities, handle, consumer }), ring))
}

impl Handle {
    pub(crate) fn set(&self, mode: Mode) {
        *lock(&self.mode) = mode;
        self.answered.store(0, Ordering::Relaxed);
    }

    /// From now on it says that it has failed.
    pub(crate) fn fall_ill(&self, reason: &str) {
        *lock(&self.fault) = Some(reason.into());
    }

    /// Ends as a device does whose context broke: unwell, nothing admitted, everything under way failed.
    pub(crate) fn die(&self, reason: &str) {
        self.fall_ill(reason);
        self.ring.close();
        self.ring.fail_outstanding(Status::BackendFailed);
    }

    /// What `prepare` answers instead of bringing anything.
    pub(crate) fn refuse(&self, error: Option<Error>) {
        *lock(&self.refusal) = error;
    }

    /// Lets `prepare` return, or not.
    pub(crate) fn set_open(&self, open: bool) {
        *lock(&self.open) = open;
        self.opened.notify_all();
    }

    pub(crate) fn kept(&self) -> usize {
        lock(&self.kept).len()
    }

    /// Answers what was kept.
    pub(crate) fn release(&self) {
        let kept = std::mem::take(&mut *lock(&self.kept));
        kept.into_iter().for_each(answer);
    }

    fn consume(&self) {
        let news = || self.ring.has_jobs() || self.stop.load(Ordering::Acquire);
        while !self.stop.load(Ordering::Acquire) {
            self.ring.jobs_signal().wait_until(WaitStrategy::Park, None, news);
            self.ring.try_poll(1, &mut |job| {
                match self.ring.open(&job) {
                    Ok(work) => self.treat(work),
                    // The test has answered it already: since it was polled, the fake has died.
                    Err(_) => drop(self.ring.complete(job.ticket, 0, Status::BadDescriptor, 0, Body::Empty)),
                }
            });
        }
    }

    fn treat(&self, work: Work) {
        // In this order: a call that goes away lets go of its slots before it lets go of the residency.
        if self.resident.load(Ordering::SeqCst) == 0 && work.is_wanted() {
            self.unprepared.fetch_add(1, Ordering::Relaxed);
        }
        let mode = match *lock(&self.mode) {
            Mode::Answer(_) if work.descriptor().items as usize > self.most_items.load(Ordering::Relaxed) => {
                Mode::Answer(0)
            }
            mode => mode,
        };
        match mode {
            Mode::Answer(well) if self.answered.fetch_add(1, Ordering::Relaxed) < well => answer(work),
            Mode::Answer(_) => {
                work.complete(Status::from_code(self.fails_with.load(Ordering::Relaxed)), 0, Body::Empty);
            }
            Mode::Keep => lock(&self.kept).push(work),
            Mode::FailLate => {
                let deadline = u128::from(work.descriptor().deadline_ns);
                while SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() <= deadline {
                    std::thread::yield_now();
                }
                work.complete(Status::BackendFailed, 0, Body::Empty);
            }
        }
    }
}

fn answer(mut work: Work) {
    let items = work.descriptor().items as usize;
    let result = work.result_mut();
    let len = result.len();
    let headers: &mut [ListHeader] = bytemuck::cast_slice_mut(&mut result[..items * size_of::<ListHeader>()]);
    headers.fill(ListHeader { count: 0, flags: EVERY_ROW });
    let body = work.result_body(len).expect("the whole region");
    work.complete(Status::Ok, 1, body);
}

impl Backend for Fake {
    fn kind(&self) -> BackendKind {
        self.kind
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, _: Option<Reads<'_>>) -> Result<Residency, Error> {
        let handle = &self.handle;
        handle.preparing.fetch_add(1, Ordering::SeqCst);
        let open = handle.opened.wait_while(lock(&handle.open), |open| !*open);
        drop(open.expect("no test panics with the lock"));
        match lock(&handle.refusal).clone() {
            Some(error) => Err(error),
            None => Ok(Residency { guard: Some(Box::new(Resident::new(&handle.resident))), finds_rows: false }),
        }
    }

    fn helper(&self) -> Option<&dyn Helper> {
        self.handle.takes_help.load(Ordering::SeqCst).then_some(self)
    }

    fn upload_bytes(&self, columns: Columns, rows: u64, dim: u64) -> u64 {
        columns.bytes(rows as usize, dim as usize) as u64
    }

    fn health(&self) -> Result<(), String> {
        lock(&self.handle.fault).clone().map_or(Ok(()), Err)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("answered", self.handle.answered.load(Ordering::Relaxed) as u64)]
    }

    fn shutdown(&self) {
        self.handle.stop.store(true, Ordering::Release);
        self.handle.ring.jobs_signal().notify_all();
        if let Some(consumer) = lock(&self.consumer).take() {
            consumer.join().expect("the fake does not panic");
        }
        lock(&self.handle.kept).clear();
    }
}

impl Helper for Fake {
    /// Does nothing but to wait, for half a minute at most, and to tell the consumer of the slot.
    fn help(&self, _: u64) {
        let handle = &self.handle;
        handle.helping.fetch_add(1, Ordering::SeqCst);
        let limit = Duration::from_secs(30);
        let ends = handle.help_ends.wait_timeout_while(lock(&handle.help_may_end), limit, |ends| !*ends);
        drop(ends.expect("no test panics with the lock"));
        handle.ring.jobs_signal().notify_all();
    }

    fn can_help(&self, _: u64) -> bool {
        false
    }
}

/// Counts itself.
struct Resident(Arc<AtomicUsize>);

impl Resident {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with the lock")
}
