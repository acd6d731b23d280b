//! Reading: consumers in the ring's process, and views of a mapped ring from any process.

use std::{hint::spin_loop, path::Path, sync::Arc};

use super::{
    EventRing, EventRingError,
    event::{EVENT_WORDS, Event},
    protocol::{Glance, Sound, Track},
    storage::Storage,
};
use crate::sync::{AtomicU64, Ordering, fence};

/// How many consumers one ring serves at a time.
pub const MAX_CONSUMERS: usize = 32;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the next event to be published.
    Latest,
    /// With the oldest event still in the ring.
    Oldest,
}

/// What a look at the ring gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The next event.
    Event(Event),
    /// So many events were overwritten before they were read; the next look goes on with the oldest that is still
    /// there.
    Lost(u64),
    /// Nothing new.
    Empty,
    /// The ring is closed and everything in it has been read.
    Closed,
}

/// What a look for several events gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBurst {
    /// So many events, at the front of the buffer; 0 only where the buffer has no room.
    Events(usize),
    /// As [`Read::Lost`].
    Lost(u64),
    /// Nothing new.
    Empty,
    /// As [`Read::Closed`].
    Closed,
}

/// A reader with a cursor of its own, one of up to [`MAX_CONSUMERS`]; dropping it frees its place.
///
/// It sees the events in the order of their positions, each one whole and once. `received() + lost()` is the number of
/// positions it has passed.
#[derive(Debug)]
pub struct EventConsumer {
    ring: Arc<EventRing>,
    place: usize,
    reader: Reader,
}

impl EventConsumer {
    pub(super) fn register(ring: &Arc<EventRing>, start: Start) -> Result<Self, EventRingError> {
        let place = ring.places.take().ok_or(EventRingError::TooManyConsumers)?;
        let consumer = Self { ring: Arc::clone(ring), place, reader: Reader::new(&ring.storage, start) };
        consumer.report();
        Ok(consumer)
    }

    /// Looks for the next event; never waits and makes no system call.
    #[inline(always)]
    pub fn try_read(&mut self) -> Read {
        let read = self.reader.read(&self.ring.storage);
        if !matches!(read, Read::Empty | Read::Closed) {
            self.report();
        }
        read
    }

    /// Copies the events that are there to the front of `events`, as many as have room; never waits and makes no system
    /// call. What is behind those in `events` means nothing.
    ///
    /// Cheaper than as many [`try_read`](Self::try_read): each event is copied once, and the counters are shown once.
    #[inline]
    pub fn read_burst(&mut self, events: &mut [Event]) -> ReadBurst {
        let read = self.reader.read_burst(&self.ring.storage, events);
        if !matches!(read, ReadBurst::Empty | ReadBurst::Closed) {
            self.report();
        }
        read
    }

    /// The next event, loss or [`Read::Closed`], never [`Read::Empty`]; awaits without spinning where there is none
    /// yet.
    ///
    /// Dropping the future loses nothing. It needs no particular executor.
    pub async fn next(&mut self) -> Read {
        match self.try_read() {
            Read::Empty => {
                let ring = Arc::clone(&self.ring);
                ring.gate.wait::<Sound, _>(|| Some(self.try_read()).filter(|read| *read != Read::Empty)).await
            }
            read => read,
        }
    }

    /// The position of the event that the next look is for.
    pub fn position(&self) -> u64 {
        self.reader.position
    }

    /// Events received so far.
    pub fn received(&self) -> u64 {
        self.reader.received
    }

    /// Events lost so far.
    pub fn lost(&self) -> u64 {
        self.reader.lost
    }

    /// Shows the counters to [`EventRing::stats`].
    #[inline]
    fn report(&self) {
        let progress = &self.ring.places.progress[self.place];
        progress.position.store(self.reader.position, Ordering::Relaxed);
        progress.received.store(self.reader.received, Ordering::Relaxed);
        progress.lost.store(self.reader.lost, Ordering::Relaxed);
    }
}

impl Drop for EventConsumer {
    fn drop(&mut self) {
        self.ring.places.give_back(self.place);
    }
}

/// A mapped ring as any process may read it, with a cursor of its own.
///
/// The writer neither knows nor counts it, so there may be any number and none can await: look when it suits. The
/// mapping allows no stores. A file that is damaged while it is read can make events look lost, never tear memory; one
/// that is *truncated* kills the process that reads it (SIGBUS), as with every mapping. A ring that is created anew
/// under the same name is another file: open again to follow it.
#[derive(Debug)]
pub struct EventView {
    storage: Storage,
    reader: Reader,
}

impl EventView {
    /// Maps the ring in the file at `path` for reading.
    ///
    /// # Errors
    /// [`EventRingError::NotAnEventRing`], [`EventRingError::Version`], [`EventRingError::SlotSize`],
    /// [`EventRingError::Capacity`], [`EventRingError::Truncated`] for what is no whole ring of this version;
    /// [`EventRingError::File`] and [`EventRingError::Memory`] where the file cannot be opened or mapped.
    pub fn open(path: &Path, start: Start) -> Result<Self, EventRingError> {
        let storage = Storage::open(path)?;
        let reader = Reader::new(&storage, start);
        Ok(Self { storage, reader })
    }

    /// Looks for the next event; never waits. [`Read::Closed`] means that the ring was closed or dropped by its
    /// process; one that was killed leaves the ring open, and only [`Read::Empty`] then.
    pub fn try_read(&mut self) -> Read {
        self.reader.read(&self.storage)
    }

    /// Copies the events that are there to the front of `events`, as many as have room; never waits. What is behind
    /// those in `events` means nothing.
    pub fn read_burst(&mut self, events: &mut [Event]) -> ReadBurst {
        self.reader.read_burst(&self.storage, events)
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.storage.track().slots.len()
    }

    /// The position of the event that the next look is for.
    pub fn position(&self) -> u64 {
        self.reader.position
    }

    /// Events received so far.
    pub fn received(&self) -> u64 {
        self.reader.received
    }

    /// Events lost so far; those that something else had overwritten with nonsense are counted here too.
    pub fn lost(&self) -> u64 {
        self.reader.lost
    }
}

/// A cursor and its counts.
#[derive(Debug)]
struct Reader {
    position: u64,
    received: u64,
    lost: u64,
}

impl Reader {
    fn new(storage: &Storage, start: Start) -> Self {
        let track = storage.track();
        let cursor = track.cursor.load(Ordering::Relaxed);
        let held = cursor.wrapping_sub(storage.start()).min(track.slots.len() as u64);
        let position = match start {
            Start::Latest => cursor,
            Start::Oldest => cursor.wrapping_sub(held),
        };
        Self { position, received: 0, lost: 0 }
    }

    #[inline(always)]
    fn read(&mut self, storage: &Storage) -> Read {
        let mut event = Event::default();
        match self.read_burst(storage, std::slice::from_mut(&mut event)) {
            ReadBurst::Events(_) => Read::Event(event),
            ReadBurst::Lost(count) => Read::Lost(count),
            ReadBurst::Empty => Read::Empty,
            ReadBurst::Closed => Read::Closed,
        }
    }

    #[inline(always)]
    fn read_burst(&mut self, storage: &Storage, events: &mut [Event]) -> ReadBurst {
        let track = storage.track();
        let mut count = 0;
        for event in events {
            let glance = track.read::<Sound>(self.position, event.words_mut());
            let next = self.position.wrapping_add(1);
            if glance == Glance::Whole && event.is_whole() {
                (self.position, count) = (next, count + 1);
                continue;
            }
            if glance != Glance::Pending {
                // Words of two events, or of none.
                *event = Event::default();
            }
            // What is said of it is for the next look, which finds it again.
            if count > 0 {
                break;
            }
            return match glance {
                Glance::Whole => self.lose(next),
                Glance::Lapped => self.lose(track.resume(self.position)),
                Glance::Pending => self.look_for_the_end(&track, storage.closed()),
            };
        }
        self.received += count as u64;
        ReadBurst::Events(count)
    }

    #[cold]
    fn lose(&mut self, next: u64) -> ReadBurst {
        let count = next.wrapping_sub(self.position);
        self.position = next;
        // Wrapping: a damaged file may claim any cursor.
        self.lost = self.lost.wrapping_add(count);
        ReadBurst::Lost(count)
    }

    fn look_for_the_end(&self, track: &Track<'_, EVENT_WORDS>, closed: &AtomicU64) -> ReadBurst {
        if closed.load(Ordering::Relaxed) == 0 {
            // Who looks again at once leaves the slot to its writer for a moment.
            spin_loop();
            return ReadBurst::Empty;
        }
        // Pairs with the release in `EventRing::close`: every event published before it has been claimed on the cursor
        // we see.
        fence(Ordering::Acquire);
        if track.cursor.load(Ordering::Relaxed) == self.position { ReadBurst::Closed } else { ReadBurst::Empty }
    }
}
