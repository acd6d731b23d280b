//! What the event ring forgets, the ledger keeps: a thread of its own copies events into it.
//!
//! Nobody who publishes waits for it: it looks at the ring every [`LOOKS`], so no publisher ever has to wake it, and
//! takes all that is there. Where the ring laps it all the same, the number of events that were lost is a record of the
//! ledger, too. Records are synced together, every [`SYNCS`] at the most.
//!
//! A ledger that cannot be written (a full disk, say) keeps nothing up: events are read on and counted as lost, and the
//! recorder tries again, until there is room. [`Recorder::state`] says so.
//!
//! Who cannot go on before an event is kept asks for it ([`Recorder::keep`]), and wakes the thread by that.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_budget::{Budgets, Moment};
use megaring_core::Error;
use megaring_ledger::{Entry, Kind, Ledger, LedgerView, Options, RECORD_DATA_BYTES};
use megaring_ring::event_ring::{Event, EventConsumer, EventRing, ReadBurst, Start};
use tokio::sync::watch;

/// How often it looks at the ring.
pub const LOOKS: Duration = Duration::from_millis(10);
/// How often records are synced, while there are any.
pub const SYNCS: Duration = Duration::from_millis(200);
/// How soon it tries again what the disk refused.
const TRIES: Duration = Duration::from_secs(1);
/// What is answered to all questions once the thread has ended.
const ENDED: u64 = u64::MAX;
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

/// Where what becomes of calls is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerConfig {
    /// The ledger's folder.
    pub folder: PathBuf,
    /// Segments that are kept, the newest; 0 is all.
    pub segments: u64,
}

impl LedgerConfig {
    /// Opens the ledger, and makes it where there is none.
    ///
    /// # Errors
    /// [`Error::Storage`] where it cannot be.
    pub fn open(&self) -> Result<Ledger, Error> {
        Ledger::open(&self.folder, Options::default()).map_err(|error| {
            let help = "`megaring ledger verify` names what is damaged; `--ledger off` serves without one";
            Error::Storage(format!("the ledger: {error}; {help}"))
        })
    }
}

fn refused(error: &megaring_ledger::Error) -> Error {
    Error::Storage(format!("the ledger: {error}"))
}

/// Copies the events of a ring into a ledger, until it is ended: then it takes what is left, and syncs.
pub struct Recorder {
    shared: Arc<Shared>,
    folder: PathBuf,
    /// For questions.
    view: Mutex<Option<LedgerView>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    ends: AtomicBool,
    /// How often it was asked to keep what had been published.
    asked: AtomicU64,
    /// The last of these questions that was answered.
    kept: watch::Sender<u64>,
    state: Mutex<RecorderState>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, RecorderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Begins with what is published from now on, and keeps so many segments of the ledger, and those of today where
    /// there are budgets; 0 is all. What the ledger has of today's amounts is told to `budgets`.
    ///
    /// # Errors
    /// [`Error::Storage`] where the ledger cannot be read; [`Error::Internal`] where the ring has no place for another
    /// reader, or the system refuses a thread.
    pub fn start(ring: &Arc<EventRing>, ledger: Ledger, segments: u64, budgets: &Arc<Budgets>) -> Result<Self, Error> {
        let folder = ledger.view().folder().to_owned();
        let damaged = budgets.restore(ledger.view(), Moment::now()).map_err(|error| refused(&error))?;
        if damaged > 0 {
            tracing::error!(damaged, "records of the ledger are damaged; what they say of budgets is not known");
        }
        let consumer = ring.consumer(Start::Latest).map_err(|error| Error::Internal(error.to_string()))?;
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            kept: watch::Sender::new(0),
            state: Mutex::default(),
        });
        let (pending, budgets) = (Vec::new(), budgets.clone());
        let mut work = Work { shared: shared.clone(), consumer, ledger, segments, budgets, pending, retries: None };
        work.tell(None);
        let thread = std::thread::Builder::new().name("megaring-ledger".into()).spawn(move || work.run());
        let thread = thread.map_err(|error| Error::Internal(format!("the system refused a thread: {error}")))?;
        Ok(Self { shared, folder, view: Mutex::new(None), thread: Mutex::new(Some(thread)) })
    }

    /// How it is doing.
    #[must_use]
    pub fn state(&self) -> RecorderState {
        self.shared.state().clone()
    }

    /// A view of the ledger, which is read here as by anybody else.
    ///
    /// # Errors
    /// As [`LedgerView::open`].
    pub fn view(&self) -> Result<LedgerView, megaring_ledger::Error> {
        LedgerView::open(&self.folder)
    }

    /// Asks the ledger as it is now, in turn with others: what a question has read is there for the next one.
    ///
    /// # Errors
    /// As [`LedgerView::open`].
    pub fn look<T>(&self, ask: impl FnOnce(&LedgerView) -> T) -> Result<T, megaring_ledger::Error> {
        let mut kept = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view = match kept.take() {
            Some(view) => view,
            None => self.view()?,
        };
        view.refresh()?;
        let answer = ask(&view);
        *kept = Some(view);
        Ok(answer)
    }

    /// Waits until what was published before is in the ledger, where it lasts over the end of this process.
    ///
    /// # Errors
    /// Why nothing is kept, in words; whether it is later, nobody knows then.
    pub async fn keep(&self) -> Result<(), String> {
        let mut kept = self.shared.kept.subscribe();
        let lost = self.shared.state().lost;
        let number = self.shared.asked.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(thread) = self.thread().as_ref() {
            thread.thread().unpark();
        }
        let answered = kept.wait_for(|kept| *kept >= number).await.map(|kept| *kept);
        if answered.unwrap_or(ENDED) == ENDED {
            return Err("the ledger has ended".into());
        }
        match self.state() {
            RecorderState { fault: Some(fault), .. } => Err(fault),
            state if state.lost != lost => Err("events were lost meanwhile".into()),
            _ => Ok(()),
        }
    }

    /// Takes what is left, and syncs; nothing is kept from then on.
    pub fn end(&self) {
        self.shared.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread().take() {
            thread.thread().unpark();
            // One that has panicked has nothing more to say.
            let _ = thread.join();
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's own.
struct Work {
    shared: Arc<Shared>,
    consumer: EventConsumer,
    ledger: Ledger,
    segments: u64,
    budgets: Arc<Budgets>,
    /// Taken from the ring and not yet kept: a burst, and what is to be said of losses.
    pending: Vec<Event>,
    /// When what was refused is tried again.
    retries: Option<Instant>,
}

impl Work {
    fn run(&mut self) {
        let mut synced = Instant::now();
        loop {
            // Before looking: what was published before the end is taken, and what was before a question.
            let ends = self.shared.ends.load(Ordering::Acquire);
            let asked = self.shared.asked.load(Ordering::Acquire);
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
            if !took {
                self.shared.kept.send_if_modified(|kept| std::mem::replace(kept, asked) != asked);
            }
            match (took, ends) {
                (true, _) => {}
                (false, true) => {
                    // Nobody is to wait for what never comes.
                    self.shared.kept.send_replace(ENDED);
                    return;
                }
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
        let each = self.ledger.view().segment_records();
        while self.segments > 0 {
            let there = self.ledger.size().div_ceil(each) - self.ledger.first() / each;
            if there <= self.segments || self.is_needed(self.ledger.first() + each - 1) {
                break;
            }
            self.ledger.retain(there - 1)?;
        }
        Ok(())
    }

    /// Whether a record tells of amounts that still count.
    fn is_needed(&self, index: u64) -> bool {
        let record = self.ledger.read(index..index + 1).ok().and_then(|mut records| records.next()?.ok());
        !self.budgets.is_empty()
            && record.is_some_and(|record| record.timestamp_ns() >= Moment::now().counts_since_ns())
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
