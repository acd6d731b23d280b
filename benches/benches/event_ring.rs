//! What publishing one event costs its publisher, beside the `disruptor` crate in the same run; and what reading one
//! costs.
//!
//! Both carry the same 120 bytes in rings of 65,536 slots. `alone` has nobody reading, which only an overwriting ring
//! can do. In `with-reader` one thread copies every event out, spinning: the disruptor waits for it when it is a lap
//! behind, the event ring overwrites what it has not read, so on a machine whose reader is slower than its publisher
//! the disruptor's figure is the reader's. `burst` publishes 64 events at a time, and its time is that of the whole
//! burst.
//!
//! `read` is of events that are there, by one thread alone, beside the plain copies of as many.

use std::{
    hint::black_box,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use disruptor::{BusySpin, Producer};
use megaring_ring::event_ring::{Event, EventConsumer, EventRing, EventRingConfig, Read, ReadBurst, Start};

const SLOTS: usize = 65_536;
const BURST: usize = 64;

fn event() -> Event {
    Event::new(1, 2, 3, 0.5, &[7; 80]).expect("80 bytes fit")
}

fn ring() -> Arc<EventRing> {
    EventRing::new(EventRingConfig { capacity: SLOTS, ..Default::default() }).expect("8 MiB can be had")
}

/// Runs `body` while a thread copies out whatever the ring publishes.
fn read_beside(ring: &Arc<EventRing>, body: impl FnOnce()) {
    let mut consumer = ring.consumer(Start::Latest).expect("the only consumer");
    let reader = thread::spawn(move || {
        let mut events = [Event::default(); BURST];
        while consumer.read_burst(&mut events) != ReadBurst::Closed {
            black_box(&events);
        }
    });
    body();
    ring.close();
    reader.join().expect("the reader ends with the ring");
}

fn ours(group: &mut BenchmarkGroup<'_, WallTime>, beside: &str, run: impl Fn(&Arc<EventRing>, &mut dyn FnMut())) {
    let (event, burst) = (event(), [event(); BURST]);
    group.throughput(Throughput::Elements(1));
    let shared = ring();
    let producer = shared.producer().expect("no sole producer");
    run(&shared, &mut || {
        group.bench_function(format!("event-ring-shared/{beside}"), |b| b.iter(|| producer.publish(black_box(&event))));
    });
    let alone = ring();
    let mut producer = alone.sole_producer().expect("no other producer");
    run(&alone, &mut || {
        group.bench_function(format!("event-ring-sole/{beside}"), |b| b.iter(|| producer.publish(black_box(&event))));
        group.throughput(Throughput::Elements(BURST as u64));
        group.bench_function(format!("event-ring-sole-burst/{beside}"), |b| {
            b.iter(|| producer.publish_burst(black_box(&burst)));
        });
    });
}

fn disruptor(group: &mut BenchmarkGroup<'_, WallTime>) {
    let source = event();
    let read = |event: &Event, _: i64, _: bool| {
        black_box(*event);
    };
    group.throughput(Throughput::Elements(1));
    let mut many = disruptor::build_multi_producer(SLOTS, event, BusySpin).handle_events_with(read).build();
    group
        .bench_function("disruptor-multi/with-reader", |b| b.iter(|| many.publish(|slot| *slot = *black_box(&source))));
    drop(many);
    let mut single = disruptor::build_single_producer(SLOTS, event, BusySpin).handle_events_with(read).build();
    group.bench_function("disruptor-single/with-reader", |b| {
        b.iter(|| single.publish(|slot| *slot = *black_box(&source)))
    });
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("disruptor-single-burst/with-reader", |b| {
        b.iter(|| single.batch_publish(BURST, |slots| slots.for_each(|slot| *slot = *black_box(&source))));
    });
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    ours(&mut group, "alone", |_, body| body());
    ours(&mut group, "with-reader", |ring, body| read_beside(ring, body));
    disruptor(&mut group);
    group.finish();
}

fn read(criterion: &mut Criterion) {
    const EVENTS: usize = SLOTS / 2;
    /// What it takes to read that many, `take` at a time being called until all are read.
    fn time(rounds: u64, mut take: impl FnMut(&mut EventConsumer) -> usize) -> Duration {
        let (ring, events) = (ring(), vec![event(); EVENTS]);
        let mut producer = ring.sole_producer().expect("no other producer");
        let mut consumer = ring.consumer(Start::Latest).expect("the only consumer");
        let mut all = Duration::ZERO;
        for _ in 0..rounds {
            producer.publish_burst(&events);
            let begun = Instant::now();
            let mut left = EVENTS;
            while left > 0 {
                left -= take(&mut consumer);
            }
            all += begun.elapsed();
        }
        all
    }
    let mut group = criterion.benchmark_group("read");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("event-ring-one", |b| {
        b.iter_custom(|rounds| {
            time(rounds, |consumer| match consumer.try_read() {
                Read::Event(event) => {
                    black_box(&event);
                    1
                }
                other => panic!("{other:?}"),
            })
        });
    });
    let mut events = [Event::default(); BURST];
    group.bench_function("event-ring-burst", |b| {
        b.iter_custom(|rounds| {
            time(rounds, |consumer| match consumer.read_burst(&mut events) {
                ReadBurst::Events(count) => {
                    black_box(&events);
                    count
                }
                other => panic!("{other:?}"),
            })
        });
    });
    let (source, mut copies) = (vec![event(); EVENTS], [Event::default(); BURST]);
    group.bench_function("copy", |b| {
        b.iter(|| {
            for events in black_box(&source).chunks_exact(BURST) {
                copies.copy_from_slice(events);
                black_box(&copies);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, publish, read);
criterion_main!(benches);
