//! The event ring in one thread: events, places, counts, laps against a model, and what an async consumer's waker is
//! told.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use megaring_ring::event_ring::{
    ConsumerStats, Event, EventConsumer, EventError, EventRing, EventRingConfig, EventRingError, MAX_CONSUMERS, Read,
    ReadBurst, Start,
};
use proptest::prelude::*;

fn ring(capacity: usize, start: u64) -> Arc<EventRing> {
    EventRing::new(EventRingConfig { capacity, start, file: None }).unwrap()
}

fn event(name: u64) -> Event {
    Event::new(name, !name, name << 1, 0.25, &name.to_le_bytes()).unwrap()
}

#[test]
fn an_event_keeps_what_it_was_given() {
    let data: Vec<u8> = (1..=80).collect();
    for len in [0, 1, 7, 8, 79, 80] {
        let event = Event::new(u64::MAX, 3, 5, 1.0, &data[..len]).unwrap();
        assert_eq!((event.kind(), event.source(), event.timestamp_ns()), (u64::MAX, 3, 5));
        assert_eq!((event.confidence(), event.data()), (1.0, &data[..len]));
    }
    assert_eq!(Event::new(0, 0, 0, -0.0, &[]).unwrap(), Event::new(0, 0, 0, 0.0, &[]).unwrap());
}

#[test]
fn what_is_no_event_is_refused() {
    assert_eq!(Event::new(0, 0, 0, 0.5, &[0; 81]), Err(EventError::DataTooLong(81)));
    for confidence in [-f64::MIN_POSITIVE, 1.0 + f64::EPSILON, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(Event::new(0, 0, 0, confidence, &[]), Err(EventError::Confidence(confidence)));
    }
    assert!(matches!(Event::new(0, 0, 0, f64::NAN, &[]), Err(EventError::Confidence(_))));
}

#[test]
fn only_powers_of_two_from_2_on_are_capacities() {
    for capacity in [0, 1, 3, 6, 65_535, usize::MAX, 1 << 63] {
        let refused = EventRing::new(EventRingConfig { capacity, ..Default::default() });
        assert!(matches!(refused, Err(EventRingError::Capacity(found)) if found == capacity));
    }
    assert_eq!(ring(2, 0).capacity(), 2);
    assert_eq!(EventRing::new(EventRingConfig::default()).unwrap().capacity(), 65_536);
}

#[test]
fn the_33rd_consumer_is_refused_until_one_leaves() {
    let ring = ring(4, 0);
    let mut consumers: Vec<_> = (0..MAX_CONSUMERS).map(|_| ring.consumer(Start::Latest).unwrap()).collect();
    assert!(matches!(ring.consumer(Start::Latest), Err(EventRingError::TooManyConsumers)));
    drop(consumers.remove(17));
    assert_eq!(ring.stats().consumers.len(), MAX_CONSUMERS - 1);
    let replaced = ring.consumer(Start::Latest).unwrap();
    assert!(matches!(ring.consumer(Start::Latest), Err(EventRingError::TooManyConsumers)));
    assert_eq!(ring.stats().consumers[17], ConsumerStats { place: 17, received: 0, lost: 0, behind: 0 });
    drop((consumers, replaced));
    assert_eq!(ring.stats().consumers, []);
}

#[test]
fn a_place_begins_with_fresh_counts() {
    let ring = ring(4, 0);
    let mut first = ring.consumer(Start::Oldest).unwrap();
    ring.producer().unwrap().publish_burst(&[event(1), event(2), event(3), event(4), event(5)]);
    assert_eq!((first.try_read(), first.try_read()), (Read::Lost(1), Read::Event(event(2))));
    assert_eq!(ring.stats().consumers, [ConsumerStats { place: 0, received: 1, lost: 1, behind: 3 }]);
    drop(first);
    let _second = ring.consumer(Start::Oldest).unwrap();
    assert_eq!(ring.stats().consumers, [ConsumerStats { place: 0, received: 0, lost: 0, behind: 4 }]);
}

#[test]
fn a_sole_producer_is_alone() {
    let ring = ring(4, 0);
    let mut sole = ring.sole_producer().unwrap();
    assert!(matches!(ring.producer(), Err(EventRingError::ProducerConflict)));
    assert!(matches!(ring.sole_producer(), Err(EventRingError::ProducerConflict)));
    sole.publish(&event(1));
    drop(sole);
    let many = ring.producer().unwrap();
    let clone = many.clone();
    many.publish(&event(2));
    drop(many);
    assert!(matches!(ring.sole_producer(), Err(EventRingError::ProducerConflict)));
    clone.publish(&event(3));
    drop(clone);
    ring.sole_producer().unwrap().publish(&event(4));
    let mut consumer = ring.consumer(Start::Oldest).unwrap();
    assert_eq!(drain(&mut consumer), [1, 2, 3, 4].map(event));
    assert_eq!((ring.stats().published, ring.stats().overrun), (4, 0));
}

#[test]
fn the_latest_start_skips_the_past_and_the_oldest_has_all_that_is_left() {
    let ring = ring(4, u64::MAX - 2);
    let producer = ring.producer().unwrap();
    producer.publish_burst(&[event(1), event(2)]);
    let mut early = ring.consumer(Start::Oldest).unwrap();
    producer.publish_burst(&[event(3), event(4), event(5)]);
    let (mut latest, mut oldest) = (ring.consumer(Start::Latest).unwrap(), ring.consumer(Start::Oldest).unwrap());
    assert_eq!(latest.try_read(), Read::Empty);
    assert_eq!(drain(&mut oldest), [2, 3, 4, 5].map(event));
    assert_eq!(early.try_read(), Read::Lost(1));
    assert_eq!(drain(&mut early), [2, 3, 4, 5].map(event));
    producer.publish(&event(6));
    assert_eq!(latest.try_read(), Read::Event(event(6)));
}

#[test]
fn a_closed_ring_is_read_to_its_end() {
    let ring = ring(4, u64::MAX);
    let mut consumer = ring.consumer(Start::Oldest).unwrap();
    ring.producer().unwrap().publish_burst(&[event(1), event(2)]);
    ring.close();
    assert_eq!(drain(&mut consumer), [1, 2].map(event));
    assert_eq!(consumer.try_read(), Read::Closed);
    assert_eq!(pollster::block_on(consumer.next()), Read::Closed);
}

#[test]
fn a_burst_is_read_as_far_as_there_is_room() {
    let ring = ring(4, u64::MAX - 1);
    let mut consumer = ring.consumer(Start::Oldest).unwrap();
    let mut events = [Event::default(); 2];
    assert_eq!(consumer.read_burst(&mut events), ReadBurst::Empty);
    let producer = ring.producer().unwrap();
    producer.publish_burst(&[1, 2, 3].map(event));
    assert_eq!(consumer.read_burst(&mut []), ReadBurst::Events(0));
    assert_eq!((consumer.read_burst(&mut events), events), (ReadBurst::Events(2), [1, 2].map(event)));
    assert_eq!(ring.stats().consumers, [ConsumerStats { place: 0, received: 2, lost: 0, behind: 1 }]);
    assert_eq!((consumer.read_burst(&mut events), events[0]), (ReadBurst::Events(1), event(3)));
    producer.publish_burst(&[4, 5, 6, 7, 8, 9].map(event));
    assert_eq!(consumer.read_burst(&mut events), ReadBurst::Lost(2));
    ring.close();
    assert_eq!((consumer.read_burst(&mut events), events), (ReadBurst::Events(2), [6, 7].map(event)));
    assert_eq!(drain(&mut consumer), [8, 9].map(event));
    assert_eq!(consumer.read_burst(&mut events), ReadBurst::Closed);
    assert_eq!((consumer.received(), consumer.lost()), (7, 2));
}

#[test]
fn an_empty_burst_publishes_nothing() {
    let ring = ring(2, 0);
    ring.producer().unwrap().publish_burst(&[]);
    ring.sole_producer().unwrap().publish_burst(&[]);
    assert_eq!(ring.stats().published, 0);
}

fn drain(consumer: &mut EventConsumer) -> Vec<Event> {
    let mut events = Vec::new();
    while let Read::Event(event) = consumer.try_read() {
        events.push(event);
    }
    events
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(usize),
    Read(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (0_usize..40).prop_map(Step::Publish);
    let read = (0_usize..3, 0_usize..30).prop_map(|(consumer, looks)| Step::Read(consumer, looks));
    prop::collection::vec(prop_oneof![publish, read], 0..60)
}

/// First positions on either side of the wrap of the u64, of the wrap of its sign, and anywhere.
fn starts() -> impl Strategy<Value = u64> {
    let around = |center: u64| (0_u64..80).prop_map(move |offset| center.wrapping_add(offset).wrapping_sub(40));
    prop_oneof![around(0), around(1 << 63), any::<u64>()]
}

/// What a consumer at `position` must see of a ring where `log` was published, positions counted from the first.
fn expected(log: &[u64], capacity: usize, position: usize) -> Read {
    match log.len() - position {
        0 => Read::Empty,
        behind if behind > capacity => Read::Lost((behind - capacity) as u64),
        _ => Read::Event(event(log[position])),
    }
}

proptest! {
    #[test]
    fn every_look_gives_what_the_model_gives(steps in steps(), start in starts(), size in 1_u32..6, sole: bool) {
        let capacity = 1_usize << size;
        let ring = ring(capacity, start);
        let (mut alone, mut many) = (None, None);
        if sole { alone = Some(ring.sole_producer().unwrap()) } else { many = Some(ring.producer().unwrap()) }
        let mut consumers: Vec<_> = (0..3).map(|_| (ring.consumer(Start::Oldest).unwrap(), 0_usize)).collect();
        let mut log = Vec::new();
        for step in steps {
            match step {
                Step::Publish(count) => {
                    let names: Vec<_> = (log.len()..log.len() + count).map(|name| name as u64).collect();
                    let events: Vec<_> = names.iter().copied().map(event).collect();
                    log.extend(names);
                    alone.iter_mut().for_each(|producer| producer.publish_burst(&events));
                    many.iter().for_each(|producer| producer.publish_burst(&events));
                }
                Step::Read(consumer, looks) => {
                    let (consumer, position) = &mut consumers[consumer];
                    for _ in 0..looks {
                        let read = consumer.try_read();
                        prop_assert_eq!(read, expected(&log, capacity, *position));
                        *position += match read {
                            Read::Event(_) => 1,
                            Read::Lost(count) => count as usize,
                            Read::Empty | Read::Closed => 0,
                        };
                        prop_assert_eq!(consumer.position(), start.wrapping_add(*position as u64));
                    }
                }
            }
        }
        prop_assert_eq!(ring.stats().published, log.len() as u64);
        prop_assert_eq!(ring.stats().overrun, 0);
        for (consumer, _) in &mut consumers {
            while consumer.try_read() != Read::Empty {}
            prop_assert_eq!(consumer.received() + consumer.lost(), log.len() as u64);
        }
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Alarm {
    fn rings(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn an_awaiting_consumer_is_woken_once_and_by_its_event() {
    let ring = ring(8, 0);
    let producer = ring.producer().unwrap();
    let (mut one, mut other) = (ring.consumer(Start::Latest).unwrap(), ring.consumer(Start::Latest).unwrap());
    let alarms = [Arc::new(Alarm::default()), Arc::new(Alarm::default())];
    let wakers = [0, 1].map(|index| Waker::from(Arc::clone(&alarms[index])));
    let mut contexts = [0, 1].map(|index| Context::from_waker(&wakers[index]));
    let (mut one, mut other) = (pin!(one.next()), pin!(other.next()));
    assert!(one.as_mut().poll(&mut contexts[0]).is_pending());
    assert!(other.as_mut().poll(&mut contexts[1]).is_pending());
    assert_eq!([alarms[0].rings(), alarms[1].rings()], [0, 0]);
    producer.publish(&event(1));
    producer.publish(&event(2));
    assert_eq!([alarms[0].rings(), alarms[1].rings()], [1, 1]);
    assert_eq!(one.as_mut().poll(&mut contexts[0]), Poll::Ready(Read::Event(event(1))));
    assert_eq!(other.as_mut().poll(&mut contexts[1]), Poll::Ready(Read::Event(event(1))));
}

#[test]
fn closing_wakes_and_a_dropped_wait_loses_nothing() {
    let ring = ring(2, 0);
    let mut consumer = ring.consumer(Start::Latest).unwrap();
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let mut context = Context::from_waker(&waker);
    assert!(pin!(consumer.next()).poll(&mut context).is_pending());
    ring.producer().unwrap().publish_burst(&[event(1), event(2), event(3)]);
    assert_eq!(pollster::block_on(consumer.next()), Read::Lost(1));
    assert_eq!(pollster::block_on(consumer.next()), Read::Event(event(2)));
    assert_eq!(pollster::block_on(consumer.next()), Read::Event(event(3)));
    {
        let mut end = pin!(consumer.next());
        assert!(end.as_mut().poll(&mut context).is_pending());
        let before = alarm.rings();
        ring.close();
        assert_eq!(alarm.rings(), before + 1);
        assert_eq!(end.as_mut().poll(&mut context), Poll::Ready(Read::Closed));
    }
}
