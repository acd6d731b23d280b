//! The event ring under threads: tiny rings so that everybody laps everybody, and events that betray any tear.

use megaring_ring::event_ring::{
    Event, EventConsumer, EventProducer, EventRing, EventRingConfig, Read, ReadBurst, Start,
};
use std::{array, sync::Arc, thread};

const EVENTS: u64 = 100_000;

/// The event `number` of `producer`: all its 15 words follow from the two, each by a mixing of its own.
fn event(producer: u64, number: u64) -> Event {
    let word = |index: u64| mix(producer << 32 | number, index);
    let words: [u64; 8] = array::from_fn(|index| word(index as u64));
    let mut data = [0; 80];
    data[..8].copy_from_slice(&producer.to_le_bytes());
    data[8..16].copy_from_slice(&number.to_le_bytes());
    for (bytes, word) in data[16..].chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let confidence = (word(8) % 1000) as f64 / 1000.0;
    Event::new(word(9), word(10), word(11), confidence, &data).unwrap()
}

/// SplitMix64's finalizer (Steele, Lea and Flood, 2014).
fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a consumer insists on while it reads.
#[derive(Default)]
struct Witness {
    received: u64,
    lost: u64,
    newest: [Option<u64>; 4],
}

impl Witness {
    /// False at the end.
    fn take(&mut self, read: Read) -> bool {
        match read {
            Read::Event(seen) => self.check(&seen),
            Read::Lost(count) => {
                assert_ne!(count, 0);
                self.lost += count;
            }
            Read::Empty => thread::yield_now(),
            Read::Closed => return false,
        }
        true
    }

    /// False at the end.
    fn take_burst(&mut self, read: ReadBurst, events: &[Event]) -> bool {
        match read {
            ReadBurst::Events(count) => {
                assert_ne!(count, 0);
                events[..count].iter().for_each(|seen| self.check(seen));
                true
            }
            ReadBurst::Lost(count) => self.take(Read::Lost(count)),
            ReadBurst::Empty => self.take(Read::Empty),
            ReadBurst::Closed => self.take(Read::Closed),
        }
    }

    fn check(&mut self, seen: &Event) {
        let word = |at: usize| u64::from_le_bytes(seen.data()[at..at + 8].try_into().unwrap());
        let (producer, number) = (word(0), word(8));
        assert_eq!(*seen, event(producer, number), "torn");
        let newest = &mut self.newest[producer as usize];
        assert!(newest.is_none_or(|newest| newest < number), "twice or out of order");
        *newest = Some(number);
        self.received += 1;
    }

    fn finish(self, consumer: &EventConsumer, published: u64) {
        assert_eq!((self.received, self.lost), (consumer.received(), consumer.lost()));
        assert_eq!(self.received + self.lost, published);
        assert!(self.received > 0);
    }
}

/// Runs consumers of each kind beside `produce`, which publishes so many events; how many of the last lap are lost.
fn torture(ring: &Arc<EventRing>, published: u64, produce: impl FnOnce() + Send) -> u64 {
    let looking = |mut consumer: EventConsumer| {
        let mut witness = Witness::default();
        while witness.take(consumer.try_read()) {}
        witness.finish(&consumer, published);
    };
    let awaiting = |mut consumer: EventConsumer| {
        let mut witness = Witness::default();
        while witness.take(pollster::block_on(consumer.next())) {}
        witness.finish(&consumer, published);
    };
    let by_bursts = |mut consumer: EventConsumer| {
        let (mut witness, mut events) = (Witness::default(), [Event::default(); 5]);
        loop {
            let read = consumer.read_burst(&mut events);
            if !witness.take_burst(read, &events) {
                break;
            }
        }
        witness.finish(&consumer, published);
    };
    let consumers: [_; 4] = array::from_fn(|_| ring.consumer(Start::Oldest).unwrap());
    thread::scope(|scope| {
        for (index, consumer) in consumers.into_iter().enumerate() {
            scope.spawn(move || match index {
                0 => looking(consumer),
                1 | 2 => by_bursts(consumer),
                _ => awaiting(consumer),
            });
        }
        scope.spawn(|| {
            produce();
            ring.close();
        });
    });
    let stats = ring.stats();
    assert_eq!(stats.published, published);
    // Whatever happened, the ring holds its last lap.
    let mut late = ring.consumer(Start::Oldest).unwrap();
    let mut witness = Witness::default();
    while witness.take(late.try_read()) {}
    assert_eq!(witness.received + witness.lost, ring.capacity() as u64);
    witness.lost
}

/// The torture with three producers, each of which publishes its events by `publish`.
fn three_producers(ring: &Arc<EventRing>, publish: fn(&EventProducer, u64)) -> u64 {
    torture(ring, 3 * EVENTS, || {
        thread::scope(|scope| {
            for name in 0..3 {
                let producer = ring.producer().unwrap();
                scope.spawn(move || publish(&producer, name));
            }
        });
    })
}

fn ring(capacity: usize) -> Arc<EventRing> {
    let start = u64::MAX - EVENTS / 2;
    EventRing::new(EventRingConfig { capacity, start, file: None }).unwrap()
}

#[test]
fn many_producers_lap_each_other_and_every_reader() {
    for capacity in [2, 8, 1024] {
        let lost = three_producers(&ring(capacity), |producer, name| {
            (0..EVENTS).for_each(|number| producer.publish(&event(name, number)));
        });
        assert_eq!(lost, 0, "the last lap is whole");
    }
}

/// An event of a burst that would come too late is dropped, also in the last lap.
#[test]
fn bursts_of_many_producers_keep_their_order() {
    for capacity in [2, 8, 64] {
        let ring = ring(capacity);
        let lost = three_producers(&ring, |producer, name| {
            for number in (0..EVENTS).step_by(4) {
                let burst: [_; 4] = array::from_fn(|index| event(name, number + index as u64));
                producer.publish_burst(&burst);
            }
        });
        assert!(lost <= ring.stats().overrun);
    }
}

#[test]
fn a_sole_producer_laps_every_reader() {
    for capacity in [2, 64] {
        let ring = ring(capacity);
        let mut producer = ring.sole_producer().unwrap();
        let lost = torture(&ring, EVENTS, move || {
            for number in (0..EVENTS).step_by(8) {
                let burst: [_; 8] = array::from_fn(|index| event(3, number + index as u64));
                producer.publish_burst(&burst);
            }
        });
        assert_eq!(lost, 0, "the last lap is whole");
    }
}

#[test]
fn a_reader_of_a_ring_that_holds_all_events_loses_nothing() {
    // No smaller: a reader that is not scheduled for a few milliseconds would be lapped.
    let ring = ring((EVENTS as usize).next_power_of_two());
    let mut consumer = ring.consumer(Start::Oldest).unwrap();
    let producer = ring.producer().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || (0..EVENTS).for_each(|number| producer.publish(&event(0, number))));
        let mut witness = Witness::default();
        for _ in 0..EVENTS {
            assert!(witness.take(pollster::block_on(consumer.next())));
        }
        assert_eq!((witness.received, witness.lost), (EVENTS, 0));
    });
}
