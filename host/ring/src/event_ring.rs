//! The event ring: telemetry that never holds its publisher up.
//!
//! Promises:
//! - Publishing never waits and never fails: a full ring overwrites its oldest event. No lock, no allocation, and no
//!   system call while no consumer awaits.
//! - Up to [`MAX_CONSUMERS`] consumers read at their own pace, each with a cursor of its own. None sees an event torn
//!   or twice, and one that was lapped is told exactly how many it lost: received + lost = published.
//! - Events of one producer stay in their order.
//! - A ring in a file can be read from any process, through an [`EventView`].
//!
//! Limits:
//! - A reader that does not keep up loses events, and one that resumes at the oldest event of a fast ring is likely to
//!   lose it too.
//! - Readers go in the order of positions: an event that a stalled producer has begun to publish holds back those
//!   behind it until it is finished or the ring has gone round.
//! - Where a producer stalls inside a publishing for a whole lap, an event is dropped in place of waiting for it
//!   ([`EventRingStats::overrun`]; [`protocol`] says which).
//! - Only the process that created a ring publishes to it, and only there can a consumer await.
//!
//! ```
//! use megaring_ring::event_ring::{Event, EventRing, EventRingConfig, Read, Start};
//!
//! let ring = EventRing::new(EventRingConfig { capacity: 8, ..Default::default() })?;
//! let mut consumer = ring.consumer(Start::Latest)?;
//! let event = Event::new(7, 0xfeed, 1_700_000_000_000_000_000, 0.5, b"twelve bytes")?;
//! ring.producer()?.publish(&event);
//! assert_eq!(consumer.try_read(), Read::Event(event));
//! assert_eq!(consumer.try_read(), Read::Empty);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod event;
mod places;
mod producer;
#[doc(hidden)]
pub mod protocol;
mod reader;
mod storage;
#[doc(hidden)]
pub mod wake;

pub use event::{Event, EventError};
pub use producer::{EventProducer, SoleProducer};
pub use reader::{EventConsumer, EventView, MAX_CONSUMERS, Read, ReadBurst, Start};

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use places::Places;
use storage::Storage;
use wake::Gate;

use crate::{
    memory::MemoryError,
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// What an event ring is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRingConfig {
    /// Slots, of 128 bytes: a power of two from 2 on.
    pub capacity: usize,
    /// The first event's position: 0, or where an earlier ring left off whose numbering goes on.
    pub start: u64,
    /// A file to map the ring from, for other processes to read. It replaces whatever has that name, and is left behind
    /// at the end.
    pub file: Option<PathBuf>,
}

impl Default for EventRingConfig {
    fn default() -> Self {
        Self { capacity: 65_536, start: 0, file: None }
    }
}

/// Why an event ring could not be made, opened or joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventRingError {
    /// The capacity cannot be.
    #[error(
        "an event ring has a power of two of slots, from 2 on, and no more than memory can hold: {0} is not such a number"
    )]
    Capacity(usize),
    /// All places are taken.
    #[error("the event ring already has {MAX_CONSUMERS} consumers, which is all it serves")]
    TooManyConsumers,
    /// A sole producer was asked for beside others, or another beside a sole one.
    #[error("the event ring has a sole producer, or has producers beside which there can be no sole one")]
    ProducerConflict,
    /// The file does not begin like a ring.
    #[error("the file is not an event ring: it does not begin with MEGAEVTR")]
    NotAnEventRing,
    /// The ring is of another version.
    #[error("the event ring has version {found}, this program reads version {}", storage::VERSION)]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// The ring's slots have another size.
    #[error("the event ring has slots of {found} bytes, this program reads slots of {}", crate::slot::SLOT_BYTES)]
    SlotSize {
        /// The size in the file.
        found: u32,
    },
    /// The file's length does not agree with its header.
    #[error("the event ring's file has {found} bytes, its header asks for {needed}")]
    Truncated {
        /// Bytes that the file has.
        found: u64,
        /// Bytes that its header asks for; the header's own, if even that is cut.
        needed: u64,
    },
    /// The file could not be written, opened or renamed.
    #[error("event ring file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl EventRingError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// Counters of a ring, for metrics; each is right by itself, not all at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRingStats {
    /// Events published since the ring began, those in `overrun` included.
    pub published: u64,
    /// Events dropped because a producer had stalled inside a publishing for a whole lap of the ring.
    pub overrun: u64,
    /// The consumers of this moment.
    pub consumers: Vec<ConsumerStats>,
}

/// Counters of one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerStats {
    /// Its place, below [`MAX_CONSUMERS`]; a place that was freed goes to a later consumer.
    pub place: usize,
    /// Events received.
    pub received: u64,
    /// Events lost to overwriting.
    pub lost: u64,
    /// Positions between it and the newest event.
    pub behind: u64,
}

/// An overwriting ring of events; see the [module](self).
#[derive(Debug)]
pub struct EventRing {
    storage: Storage,
    gate: Gate,
    places: Places,
    producers: AtomicU32,
    overrun: AtomicU64,
}

impl EventRing {
    /// A ring with nothing in it.
    ///
    /// # Errors
    /// [`EventRingError::Capacity`]; with a file [`EventRingError::File`], a full disk included;
    /// [`EventRingError::Memory`].
    pub fn new(config: EventRingConfig) -> Result<Arc<Self>, EventRingError> {
        let EventRingConfig { capacity, start, file } = config;
        let storage = match file {
            Some(path) => Storage::create(&path, capacity, start)?,
            None => Storage::heap(capacity, start)?,
        };
        let (producers, overrun) = (AtomicU32::new(0), AtomicU64::new(0));
        Ok(Arc::new(Self { storage, gate: Gate::new(), places: Places::new(), producers, overrun }))
    }

    /// One of many producers.
    ///
    /// # Errors
    /// [`EventRingError::ProducerConflict`] while there is a sole one.
    pub fn producer(self: &Arc<Self>) -> Result<EventProducer, EventRingError> {
        EventProducer::register(self)
    }

    /// The only producer, which publishes faster for being alone.
    ///
    /// # Errors
    /// [`EventRingError::ProducerConflict`] while there is any other.
    pub fn sole_producer(self: &Arc<Self>) -> Result<SoleProducer, EventRingError> {
        SoleProducer::register(self)
    }

    /// A consumer that begins at `start`.
    ///
    /// # Errors
    /// [`EventRingError::TooManyConsumers`] while [`MAX_CONSUMERS`] are alive.
    pub fn consumer(self: &Arc<Self>, start: Start) -> Result<EventConsumer, EventRingError> {
        EventConsumer::register(self, start)
    }

    /// Says that no more events will come: consumers get [`Read::Closed`] when they have read the rest, and those that
    /// await wake up.
    ///
    /// Producers are not stopped; what is published after this may or may not be read.
    pub fn close(&self) {
        self.storage.closed().store(1, Ordering::Release);
        self.gate.announce::<protocol::Sound>();
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.storage.track().slots.len()
    }

    /// The counters of this moment.
    pub fn stats(&self) -> EventRingStats {
        let cursor = self.storage.track().cursor.load(Ordering::Relaxed);
        let show = |place: usize| {
            let progress = &self.places.progress[place];
            // A consumer may have run past the cursor that we read before.
            let behind = cursor.wrapping_sub(progress.position.load(Ordering::Relaxed)) as i64;
            ConsumerStats {
                place,
                received: progress.received.load(Ordering::Relaxed),
                lost: progress.lost.load(Ordering::Relaxed),
                behind: behind.max(0) as u64,
            }
        };
        EventRingStats {
            published: cursor.wrapping_sub(self.storage.start()),
            overrun: self.overrun.load(Ordering::Relaxed),
            consumers: self.places.taken().map(show).collect(),
        }
    }

    #[cold]
    fn count_overrun(&self) {
        self.overrun.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for EventRing {
    fn drop(&mut self) {
        // Nobody of this process is left to read it, but views of a file are.
        self.storage.closed().store(1, Ordering::Release);
    }
}
