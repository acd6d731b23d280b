//! Writing: any number of producers, or one alone that saves the read-modify-writes.

use std::sync::Arc;

use super::{
    EventRing, EventRingError,
    event::Event,
    protocol::{Sound, write_burst},
};
use crate::sync::Ordering;

/// The count of producers while there is a sole one.
const SOLE: u32 = u32::MAX;

/// One of many producers of a ring; clone it or share it as it suits.
///
/// Publishing never waits, allocates nothing, and makes no system call while no consumer awaits. Three
/// read-modify-writes.
#[derive(Debug)]
pub struct EventProducer {
    ring: Arc<EventRing>,
}

/// The only producer of a ring, as long as it lives: publishing is plain stores and one fence.
#[derive(Debug)]
pub struct SoleProducer {
    ring: Arc<EventRing>,
    next: u64,
}

impl EventProducer {
    pub(super) fn register(ring: &Arc<EventRing>) -> Result<Self, EventRingError> {
        let one_more = |count: u32| (count < SOLE - 1).then(|| count + 1);
        // Acquire: our stores come after those of a sole producer that has gone.
        let taken = ring.producers.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more);
        taken.map_err(|_| EventRingError::ProducerConflict)?;
        Ok(Self { ring: Arc::clone(ring) })
    }

    /// Publishes one event, overwriting the oldest.
    ///
    /// It is dropped, and counted in [`EventRingStats::overrun`](super::EventRingStats::overrun), only where another
    /// producer has stalled inside a publishing for a whole lap of the ring.
    #[inline]
    pub fn publish(&self, event: &Event) {
        let track = self.ring.storage.track();
        if !track.write::<Sound>(track.take(1), event.words(), false) {
            self.ring.count_overrun();
        }
        self.ring.gate.announce::<Sound>();
    }

    /// Publishes several events at consecutive positions, waking consumers once, at the end. Who sees the first of them
    /// finds the others that were neither overwritten nor dropped. Events beyond the ring's capacity overwrite the
    /// burst's own first ones.
    ///
    /// Where another producer has stalled inside a publishing for a whole lap of the ring, an event is dropped as in
    /// [`publish`](Self::publish); where this one has stalled inside a burst so long, so is the burst's event that it
    /// was at, which would come behind later ones.
    #[inline]
    pub fn publish_burst(&self, events: &[Event]) {
        let track = self.ring.storage.track();
        let mut position = track.take(events.len() as u64);
        let end = position.wrapping_add(events.len() as u64);
        for lap in events.chunks(track.slots.len()) {
            write_burst::<Sound>(lap.len(), |index| {
                let position = position.wrapping_add(index as u64);
                if !track.write::<Sound>(position, lap[index].words(), position.wrapping_add(1) != end) {
                    self.ring.count_overrun();
                }
            });
            position = position.wrapping_add(lap.len() as u64);
        }
        self.ring.gate.announce::<Sound>();
    }
}

impl Clone for EventProducer {
    fn clone(&self) -> Self {
        // We are counted, so the count is neither 0 nor that of a sole producer; four thousand million clones do not
        // fit in memory.
        self.ring.producers.fetch_add(1, Ordering::Relaxed);
        Self { ring: Arc::clone(&self.ring) }
    }
}

impl Drop for EventProducer {
    fn drop(&mut self) {
        self.ring.producers.fetch_sub(1, Ordering::Release);
    }
}

impl SoleProducer {
    pub(super) fn register(ring: &Arc<EventRing>) -> Result<Self, EventRingError> {
        // Acquire: our stores come after those of all producers that have gone.
        let taken = ring.producers.compare_exchange(0, SOLE, Ordering::Acquire, Ordering::Relaxed);
        taken.map_err(|_| EventRingError::ProducerConflict)?;
        let next = ring.storage.track().cursor.load(Ordering::Relaxed);
        Ok(Self { ring: Arc::clone(ring), next })
    }

    /// Publishes one event, overwriting the oldest.
    #[inline]
    pub fn publish(&mut self, event: &Event) {
        let (track, position) = (self.ring.storage.track(), self.next);
        self.next = position.wrapping_add(1);
        track.take_alone(self.next);
        track.write_alone::<Sound>(position, event.words());
        self.ring.gate.announce::<Sound>();
    }

    /// Publishes several events at consecutive positions, waking consumers once, at the end. Who sees the first of them
    /// finds the others, unless they have been overwritten. Events beyond the ring's capacity overwrite the burst's own
    /// first ones.
    #[inline]
    pub fn publish_burst(&mut self, events: &[Event]) {
        let track = self.ring.storage.track();
        for lap in events.chunks(track.slots.len()) {
            let first = self.next;
            self.next = first.wrapping_add(lap.len() as u64);
            track.take_alone(self.next);
            write_burst::<Sound>(lap.len(), |index| {
                track.write_alone::<Sound>(first.wrapping_add(index as u64), lap[index].words());
            });
        }
        self.ring.gate.announce::<Sound>();
    }
}

impl Drop for SoleProducer {
    fn drop(&mut self) {
        self.ring.producers.store(0, Ordering::Release);
    }
}
