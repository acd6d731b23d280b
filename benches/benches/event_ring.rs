//! What publishing one event costs its publisher, beside the `disruptor` crate in the same run.
//!
//! Both carry the same 120 bytes in rings of 65,536 slots. `alone` has nobody reading, which only an overwriting ring
//! can do. In `with-reader` one thread copies every event out, spinning: the disruptor waits for it when it is a lap
//! behind, the event ring overwrites what it has not read, so on a machine whose reader is slower than its publisher
//! the disruptor's figure is the reader's. `burst` publishes 64 events at a time, and its time is that of the whole
//! burst.

use std::{
    hint::{black_box, spin_loop},
    sync::Arc,
    thread,
    time::Duration,
};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use disruptor::{BusySpin, Producer};
use megaring_ring::event_ring::{Event, EventRing, EventRingConfig, Read, Start};

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
        loop {
            match black_box(consumer.try_read()) {
                Read::Closed => break,
                Read::Empty => spin_loop(),
                Read::Event(_) | Read::Lost(_) => {}
            }
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

criterion_group!(benches, publish);
criterion_main!(benches);
