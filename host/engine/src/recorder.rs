//! What the event ring forgets, the ledger keeps: a thread of its own copies events into it.
//!
//! Nobody who publishes waits for it: it looks at the ring every [`LOOKS`], so no publisher ever has to wake it, and
//! takes all that is there. Where the ring laps it all the same, the number of events that were lost is a record of the
//! ledger, too. Records are synced together, every [`SYNCS`] at the most.
//!
//! A ledger that cannot be written (a full disk, say) keeps nothing up: events are read on and counted as lost, and the
//! recorder tries again, until there is room. [`Recorder::state`] says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_core::Error;
use megaring_ledger::{Entry, Kind, Ledger, RECORD_DATA_BYTES};
use megaring_ring::event_ring::{Event, EventConsumer, EventRing, ReadBurst, Start};

/// How often it looks at the ring.
pub const LOOKS: Duration = Duration::from_millis(10);
/// How often records are synced, while there are any.
pub const SYNCS: Duration = Duration::from_millis(200);
/// How soon it tries again what the disk refused.
const TRIES: Duration = Duration::from_secs(1);
/// Events that are taken at once.
const BURST: usize = 1024;

/// How a recorder is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecorderState {
    /// Records of the ledger.
    pub size: u64,
    /// Leading ones of them that are known to last over a crash of the machine.
    pub durable: u64,
    /// Events that were lost since the start, before they were kept.
    pub lost: u64,
    /// Why nothing is kept now; `None` where all is well.
    pub fault: Option<String>,
}

/// Copies the events of a ring into a ledger, until it is dropped: then it takes what is left, and syncs.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    state: Mutex<RecorderState>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, RecorderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Begins with what is published from now on, and keeps so many segments of the ledger; 0 is all.
    ///
    /// # Errors
    /// [`Error::Internal`] where the ring has no place for another reader, or the system refuses a thread.
    pub fn start(ring: &Arc<EventRing>, ledger: Ledger, segments: u64) -> Result<Self, Error> {
        let consumer = ring.consumer(Start::Latest).map_err(|error| Error::Internal(error.to_string()))?;
        let shared = Arc::new(Shared::default());
        let mut work = Work { shared: shared.clone(), consumer, ledger, segments, pending: Vec::new(), retries: None };
        work.tell(None);
        let thread = std::thread::Builder::new().name("megaring-ledger".into()).spawn(move || work.run());
        let thread = thread.map_err(|error| Error::Internal(format!("the system refused a thread: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How it is doing.
    #[must_use]
    pub fn state(&self) -> RecorderState {
        self.shared.state().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // One that has panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Work {
    shared: Arc<Shared>,
    consumer: EventConsumer,
    ledger: Ledger,
    segments: u64,
    /// Taken from the ring and not yet kept: a burst, and what is to be said of losses.
    pending: Vec<Event>,
    /// When what was refused is tried again.
    retries: Option<Instant>,
}

impl Work {
    fn run(&mut self) {
        let mut synced = Instant::now();
        loop {
            // Before looking: what was published before the end is taken.
            let ends = self.shared.ends.load(Ordering::Acquire);
            let took = self.take();
            if self.retries.is_none_or(|at| ends || at <= Instant::now()) {
                let is_due = ends || synced.elapsed() >= SYNCS;
                let kept = self.keep().and_then(|()| if is_due { self.sync() } else { Ok(()) });
                if is_due {
                    synced = Instant::now();
                }
                self.retries = kept.is_err().then(|| Instant::now() + TRIES);
                self.tell(Some(kept));
            }
            match (took, ends) {
                (true, _) => {}
                (false, true) => return,
                (false, false) => std::thread::park_timeout(LOOKS),
            }
        }
    }

    /// Takes a burst from the ring; whether there may be more. While the ledger refuses, what it cannot hold is lost.
    fn take(&mut self) -> bool {
        let mut events = [Event::default(); BURST];
        match self.consumer.read_burst(&mut events) {
            ReadBurst::Events(count) if self.pending.len() < BURST => {
                self.pending.extend_from_slice(&events[..count]);
                true
            }
            ReadBurst::Events(count) => {
                self.lose(count as u64);
                true
            }
            ReadBurst::Lost(count) => {
                self.lose(count);
                true
            }
            ReadBurst::Empty | ReadBurst::Closed => false,
        }
    }

    /// Notes that events were lost, in one record with those lost just before.
    fn lose(&mut self, count: u64) {
        self.shared.state().lost += count;
        let before = self.pending.pop_if(|event| event.kind() == Kind::LOST.0);
        let count = count + before.map_or(0, |event| Entry::from(&event).count);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // A confidence of 1 always makes an event.
        self.pending.extend(Entry { count, ..Entry::default() }.event(Kind::LOST, 0, now_ns, 1.0));
    }

    fn keep(&mut self) -> Result<(), megaring_ledger::Error> {
        // An event of somebody else's ring may be larger than a record.
        self.pending.retain(|event| event.data().len() <= RECORD_DATA_BYTES);
        match self.ledger.append(&self.pending) {
            Ok(_) => self.pending.clear(),
            Err(error) => {
                self.pending.drain(..(error.appended.end - error.appended.start) as usize);
                return Err(error.source);
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), megaring_ledger::Error> {
        self.ledger.sync()?;
        if self.segments > 0 {
            self.ledger.retain(self.segments)?;
        }
        Ok(())
    }

    fn tell(&self, kept: Option<Result<(), megaring_ledger::Error>>) {
        let mut state = self.shared.state();
        (state.size, state.durable) = (self.ledger.size(), self.ledger.durable());
        let fault = kept.and_then(Result::err).map(|error| error.to_string());
        if let (Some(fault), None) = (&fault, &state.fault) {
            tracing::error!(fault, "the ledger keeps nothing for now; answers go on");
        }
        if let (None, Some(_)) = (&fault, &state.fault) {
            tracing::info!(lost = state.lost, "the ledger keeps what happens again");
        }
        state.fault = fault;
    }
}
