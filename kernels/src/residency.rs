//! Which columns of which corpus are in device memory, and which must stay there.
//!
//! [`Residency::prepare`] makes what a job reads resident before the job's slots are published, and returns a [`Guard`]
//! that keeps it there.
//!
//! Promises
//! - Segments are uploaded once, for all versions that share them, column by column as jobs read them; of a version
//!   that hides rows, the screen's columns alone are its own. Calls that need the same column at once wait for one
//!   upload. A job that reads none still finds its corpus's entry in the table.
//! - A call that finds all its columns there only takes a short lock, whatever is being uploaded, evicted or allocated.
//! - What a guard pins is neither evicted nor changed. After the guard's end that holds until all jobs submitted by
//!   then are settled, since a caller that goes away leaves its slots in the ring. An entry leaves the table before its
//!   memory is given to others.
//! - When room is needed, versions and segments that nobody holds any more go first; then the pool grows up to its
//!   budget; then what was used least recently goes.
//! - An upload that fails leaves nothing half-registered. Where the table cannot be written, nothing is prepared any
//!   more.
//! - A search screens by codes, or, where the backend was set up so and the rows fit, by the rows themselves.
//! - A search of a corpus that finds no room is streamed (`session.rs`). Other operations are refused: for good
//!   ([`Refusal::Unfit`]) or because others are using the memory now ([`Refusal::Exhausted`]).
//!
//! Blocking: `prepare` blocks for uploads, for growth (the kernel finishes what it has taken), and for the jobs of a
//! version that has to be laid out anew. It never waits for room that others have pinned: no two callers wait for one
//! another.

mod columns;
mod resident;
mod session;
mod state;
mod table;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use megaring_core::corpus::{Column, Columns, CorpusView, SegmentView};
use megaring_core::operation::Reads;
use megaring_core::{BackendKind, Error, Lacking, Metric};
use megaring_ring::Memory;

use self::columns::{Contents, is_wild, screen_alone};
use self::state::{Key, Kind, Room, State};
use self::table::{EntryTable, write_removal};
use crate::abi::STREAM_LINES_BYTES;
use crate::backend::CudaScreen;
use crate::counters::Counters;
use crate::device::{Device, DeviceError, DevicePtr};
use crate::pool::{Budget, Pool, Span};

/// What residency asks of the backend it belongs to.
pub trait Host: Send + Sync {
    /// The newest ticket that may be in the ring.
    fn submitted_through(&self) -> u64;

    /// Whether no consumer may still read what the jobs up to a ticket name. Cheap; never blocks.
    fn is_settled(&self, through: u64) -> bool;

    /// Lets some tens of microseconds pass before the ring is looked at again.
    ///
    /// # Errors
    /// The reason why waiting is in vain: the backend is out of service.
    fn pause(&self) -> Result<(), String>;

    /// [`Device::alloc`] of so many bytes while no kernel runs.
    ///
    /// # Errors
    /// As the device says, or that the backend is out of service.
    fn grow(&self, bytes: usize) -> Result<DevicePtr, DeviceError>;

    /// The device refused a store without which jobs under way cannot end: the backend is to go out of service.
    fn fail(&self, reason: &str);
}

/// Why a job cannot be done on this device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It never fits: another backend may do it.
    #[error("{0}")]
    Unfit(String),
    /// Others use the memory now; a later try may succeed.
    #[error("all device memory is in use by jobs under way")]
    Exhausted,
    /// The device or the backend failed.
    #[error(transparent)]
    Failed(#[from] DeviceError),
}

impl Refusal {
    /// As callers of the engine see it.
    #[must_use]
    pub fn into_error(self, retry_after: Duration) -> Error {
        match self {
            Self::Exhausted => Error::Exhausted { what: "the device's memory", retry_after },
            Self::Unfit(reason) => Error::BackendUnavailable { kind: BackendKind::Cuda, reason },
            Self::Failed(error) => Error::BackendUnavailable { kind: BackendKind::Cuda, reason: error.to_string() },
        }
    }
}

/// Keeps what a job reads on the device. To be held until its last slot has been submitted, at least.
#[must_use = "what is not pinned may be evicted"]
pub struct Guard {
    inner: Arc<Inner>,
    key: Key,
}

impl Guard {
    /// Whether the corpus is there as a whole, rather than streamed: a search may then name rows of it as its queries.
    #[must_use]
    pub fn finds_rows(&self) -> bool {
        let state = self.inner.lock();
        // A version stays of its kind as long as there is a guard.
        state.versions.get(&self.key).is_some_and(|version| version.kind == Kind::Resident)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.inner.unpin(self.key);
    }
}

/// Device memory for corpora. Dropping it ends its thread; device memory is the backend's to free
/// ([`Residency::chunks`]).
pub struct Residency {
    inner: Arc<Inner>,
    screen: CudaScreen,
}

pub(crate) struct Inner {
    device: Arc<dyn Device>,
    host: Arc<dyn Host>,
    counters: Arc<Counters>,
    /// Of the streamed corpus; page-locked.
    lines: Memory,
    state: Mutex<State>,
    changed: Condvar,
}

type Locked<'a> = MutexGuard<'a, State>;

/// What a look at the state says is to be done.
enum Step {
    Ready,
    Load(Vec<(Arc<SegmentView>, Column)>, Vec<Span>),
    Publish(resident::Publication),
    Begin(session::Opening),
    Need(Room),
}

impl Residency {
    /// Takes the first chunk of memory and empties the table at `corpora`, which has [`crate::abi::CORPORA_MASK`]` + 1`
    /// entries. No kernel runs yet. `budget` bounds the memory of corpora.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(
        device: Arc<dyn Device>,
        host: Arc<dyn Host>,
        counters: Arc<Counters>,
        corpora: DevicePtr,
        budget: impl Into<Budget>,
    ) -> Result<Self, DeviceError> {
        let table = EntryTable::new(corpora, &*device)?;
        let lines = device.pinned(STREAM_LINES_BYTES)?;
        let mut pool = Pool::new(budget.into());
        if let Some(bytes) = pool.growth(0) {
            pool.add(device.alloc(bytes)?, bytes);
        }
        let state = Mutex::new(State::new(pool, table));
        let inner = Inner { device, host, counters, lines, state, changed: Condvar::new() };
        inner.gauge(&inner.lock());
        Ok(Self { inner: Arc::new(inner), screen: CudaScreen::Int8 })
    }

    /// The same with another screen than by codes.
    #[must_use]
    pub fn screening(mut self, screen: CudaScreen) -> Self {
        self.screen = screen;
        self
    }

    /// Brings what a job reads of a corpus to the device.
    ///
    /// # Errors
    /// [`Refusal`]; the job then has nothing pinned.
    pub fn prepare(&self, reads: Reads<'_>) -> Result<Guard, Refusal> {
        let view = reads.corpus;
        if u32::try_from(view.rows()).is_err() {
            return Err(Refusal::Unfit(format!("corpus {:?} has more rows than a device counts", view.name())));
        }
        match screen_alone(reads.columns) {
            // Every row is a candidate then, whatever the codes say: the entry alone tells it.
            Some(_) if is_wild(view) => self.inner.bring(view, Contents::NONE)?,
            Some(metric) => self.bring_screen(view, metric)?,
            None => self.inner.bring(view, Contents::of(reads.columns))?,
        }
        Ok(Guard { inner: self.inner.clone(), key: key_of(view) })
    }

    /// What [`Self::prepare`] would have to bring now.
    #[must_use]
    pub fn lacking(&self, reads: Reads<'_>) -> Lacking {
        let view = reads.corpus;
        let state = self.inner.lock();
        let contents = match screen_alone(reads.columns) {
            Some(_) if is_wild(view) => Contents::NONE,
            _ => self.contents(reads.columns, |contents| view.is_whole() && state.pool.holds(&contents.sizes_in(view))),
        };
        let bytes = |segment: &SegmentView, column: Column| column.bytes(segment.rows(), view.dim()) as u64;
        let unready = state.unready(view, contents.columns);
        // What never fits is streamed, or refused: nothing of it stays.
        if !unready.is_empty() && !state.pool.holds(&contents.sizes_in(view)) {
            let all = view.segments().map(|(_, segment)| contents.columns.bytes(segment.rows(), view.dim()) as u64);
            return Lacking { bytes: all.sum(), stays: false };
        }
        Lacking { bytes: unready.iter().map(|(segment, column)| bytes(segment, *column)).sum(), stays: true }
    }

    /// What [`Self::lacking`] would say of a corpus of one segment of which nothing is there.
    #[must_use]
    pub fn upload_bytes(&self, columns: Columns, rows: usize, dim: usize) -> u64 {
        let fits = |contents: Contents| self.inner.lock().pool.holds(&contents.sizes(std::iter::once(rows), dim));
        self.contents(columns, fits).columns.bytes(rows, dim) as u64
    }

    /// What is brought for these columns: rows in the place of codes, if the backend was set up so and they can fit.
    fn contents(&self, columns: Columns, fits: impl Fn(Contents) -> bool) -> Contents {
        let by_rows = self.screen == CudaScreen::Float32 && screen_alone(columns).is_some() && fits(Contents::BY_ROWS);
        if by_rows { Contents::BY_ROWS } else { Contents::of(columns) }
    }

    /// Rows that find no room are no reason to refuse a search: codes take a quarter of it, or none. The codes' columns
    /// alone say which rows are hidden.
    fn bring_screen(&self, view: &Arc<CorpusView>, metric: Metric) -> Result<(), Refusal> {
        if self.screen == CudaScreen::Float32 && view.is_whole() {
            match self.inner.bring(view, Contents::BY_ROWS) {
                Err(Refusal::Unfit(_) | Refusal::Exhausted) => {}
                brought => return brought,
            }
        }
        self.inner.bring_screen(view, metric)
    }

    /// Ends the thread that streams, and refuses everything from now on. Not before the kernel's end: it may need the
    /// thread.
    pub fn close(&self) {
        self.inner.close();
    }

    /// The memory that is to be freed once no kernel runs any more, after [`Residency::close`].
    #[must_use]
    pub fn chunks(&self) -> Vec<DevicePtr> {
        self.inner.lock().pool.chunks().collect()
    }
}

impl Drop for Residency {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn lock(&self) -> Locked<'_> {
        // What the lock guards is consistent between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpin(&self, key: Key) {
        let mut state = self.lock();
        state.unpin(key, || self.host.submitted_through());
        drop(state);
        self.changed.notify_all();
    }

    fn gauge(&self, state: &State) {
        self.counters.pool_bytes.set(state.pool.bytes() as u64);
        self.counters.resident_bytes.set(state.pool.used() as u64);
    }

    /// Does step after step until the state is as wanted.
    fn work(
        self: &Arc<Self>,
        mut next: impl FnMut(&Self, &mut State) -> Result<Step, Refusal>,
        view: &Arc<CorpusView>,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.broken {
                return Err(Refusal::Failed(error.clone()));
            }
            state = match next(self, &mut state)? {
                Step::Ready => return Ok(()),
                Step::Load(missing, spans) => self.load(state, view, missing, spans)?,
                Step::Publish(publication) => self.publish(state, view, publication)?,
                Step::Begin(opening) => self.begin(state, view, opening)?,
                Step::Need(room) => self.make_room(state, room)?,
            };
            self.gauge(&state);
        }
    }

    /// The next step towards removing a version, so that it can be laid out anew.
    fn switch(&self, state: &mut State, key: Key) -> Step {
        let Some(version) = state.versions.get_mut(&key) else { return Step::Need(Room::Wait) };
        version.closing = true;
        Step::Need(if version.pins > 0 || version.retiring {
            Room::Wait
        } else if self.host.is_settled(version.mark) {
            Room::Retire(key)
        } else {
            Room::Pause
        })
    }

    fn make_room<'a>(&'a self, state: Locked<'a>, room: Room) -> Result<Locked<'a>, Refusal> {
        match room {
            Room::Taken(_) => Ok(state),
            Room::None => Err(Refusal::Exhausted),
            Room::Wait => Ok(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)),
            Room::Pause => {
                drop(state);
                self.host.pause().map_err(|reason| Refusal::Failed(DeviceError::Other(reason)))?;
                Ok(self.lock())
            }
            Room::Retire(key) => self.retire(state, key),
            Room::Grow { bytes, least } => self.grow(state, bytes, least),
        }
    }

    fn grow<'a>(&'a self, mut state: Locked<'a>, bytes: usize, least: usize) -> Result<Locked<'a>, Refusal> {
        state.growing = true;
        drop(state);
        let least = crate::pool::rounded(least);
        let grown = match self.host.grow(bytes) {
            Err(DeviceError::OutOfMemory { .. }) if least < bytes => self.host.grow(least).map(|at| (at, least)),
            grown => grown.map(|at| (at, bytes)),
        };
        let mut state = self.lock();
        state.growing = false;
        self.changed.notify_all();
        match grown {
            Ok((at, bytes)) => {
                state.pool.add(at, bytes);
                self.counters.growths.add(1);
                Ok(state)
            }
            Err(error @ DeviceError::OutOfMemory { .. }) => {
                tracing::warn!(%error, "the device has less memory than corpora were promised; that has to do");
                state.pool.stop_growing();
                Ok(state)
            }
            Err(error) => Err(Refusal::Failed(error)),
        }
    }

    /// Removes the entry of a version that nobody uses, then forgets it.
    fn retire<'a>(&'a self, mut state: Locked<'a>, key: Key) -> Result<Locked<'a>, Refusal> {
        let Some(version) = state.versions.get_mut(&key) else { return Ok(state) };
        version.retiring = true;
        let thread = version.session.as_mut().and_then(|session| session.stop());
        let is_eviction = version.kind == Kind::Resident && version.entry.is_some();
        let place = version.entry.as_ref().map(|(place, _)| *place);
        let at = place.map(|place| state.table.address(place));
        drop(state);
        self.changed.notify_all();
        let removed = at.map_or(Ok(()), |at| write_removal(&*self.device, at));
        // A thread that panicked has ended as well.
        thread.map(std::thread::JoinHandle::join);
        let mut state = self.lock();
        self.changed.notify_all();
        if let Err(error) = removed {
            self.break_down(&mut state, &error);
            return Err(Refusal::Failed(error));
        }
        if is_eviction {
            self.counters.evictions.add(1);
        }
        state.forget(key);
        Ok(state)
    }

    /// The table cannot be trusted any more: what it says would be read by jobs to come.
    fn break_down(&self, state: &mut State, error: &DeviceError) {
        tracing::error!(%error, "the device's table of corpora cannot be written");
        state.broken.get_or_insert_with(|| error.clone());
        self.host.fail(&error.to_string());
    }

    fn close(&self) {
        let mut state = self.lock();
        state.broken.get_or_insert_with(|| DeviceError::Other("the backend was stopped".into()));
        let sessions = state.versions.values_mut().filter_map(|version| version.session.as_mut());
        let threads: Vec<_> = sessions.filter_map(|session| session.stop()).collect();
        drop(state);
        self.changed.notify_all();
        for thread in threads {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

/// What stands for a version in a slot and in the table.
fn key_of(view: &CorpusView) -> Key {
    (view.handle(), view.generation())
}
