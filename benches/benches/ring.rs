//! What the job ring itself costs: from a reservation to the collected answer, with a payload of one query (384
//! float32).
//!
//! `one thread` does both sides by itself, so nothing waits. In `two threads` another one consumes, and both wait by
//! the default strategy, as the CPU backend and its callers do; what is added is what handing over from processor to
//! processor costs. `burst` has 32 jobs in the ring at a time, and its time is that of all of them.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use megaring_ring::{Body, Descriptor, JobRing, RingConfig, Status, Ticket, WaitStrategy};

const PAYLOAD: usize = 384 * size_of::<f32>();
const BURST: usize = 32;

fn ring() -> Arc<JobRing> {
    let config =
        RingConfig { capacity: 256, arena_bytes: 16 << 20, block_bytes: 64 << 10, wait: WaitStrategy::default() };
    JobRing::new(config).expect("16 MiB can be had")
}

fn submit(ring: &Arc<JobRing>, payload: &[u8]) -> Ticket {
    let mut reservation = ring.try_reserve(payload.len(), 0).expect("there is room for a burst");
    reservation.payload_mut().copy_from_slice(payload);
    ring.submit(reservation, Descriptor { items: 1, dim: 384, k: 10, ..Descriptor::default() })
}

/// Takes what is there and answers it; looks at the payload's first byte.
fn consume(ring: &Arc<JobRing>) {
    ring.try_poll(BURST, &mut |job| {
        let work = ring.open(&job).expect("the slot is whole");
        black_box(work.payload()[0]);
        work.complete(Status::Ok, 1, Body::Empty);
    });
}

fn collect(ticket: Ticket) {
    assert!(ticket.wait().status().is_ok());
}

/// Runs `body` while another thread consumes.
fn consumed(ring: &Arc<JobRing>, body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let is_stopped = || stop.load(Ordering::Acquire);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_stopped() {
                consume(ring);
                ring.jobs_signal().wait_until(WaitStrategy::default(), None, || ring.has_jobs() || is_stopped());
            }
        });
        body();
        stop.store(true, Ordering::Release);
        ring.jobs_signal().notify_all();
    });
}

fn one_and_burst(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, ring: &Arc<JobRing>, consume: impl Fn()) {
    let payload: Vec<u8> = (0..PAYLOAD).map(|byte| (byte * 31 + 7) as u8).collect();
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{name}/single"), |bencher| {
        bencher.iter(|| {
            let ticket = submit(ring, black_box(&payload));
            consume();
            collect(ticket);
        });
    });
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(format!("{name}/burst"), |bencher| {
        bencher.iter(|| {
            let tickets: [Ticket; BURST] = std::array::from_fn(|_| submit(ring, black_box(&payload)));
            consume();
            tickets.into_iter().for_each(collect);
        });
    });
}

fn jobs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let ring = ring();
    one_and_burst(&mut group, "one thread", &ring, || consume(&ring));
    consumed(&ring, || one_and_burst(&mut group, "two threads", &ring, || ()));
    group.finish();
}

criterion_group!(benches, jobs);
criterion_main!(benches);
