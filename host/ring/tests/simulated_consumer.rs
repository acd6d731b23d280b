//! Producers, a pool of workers and reapers in threads with random pauses: every job's payload arrives whole, and every
//! ticket is answered exactly once, with the answer that belongs to it.
#![cfg(not(loom))]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use megaring_ring::{
    Body, Descriptor, JobRing, Memory, ReserveError, RingConfig, RingLayout, Status, WaitStrategy, fnv1a64,
};

#[path = "support/dice.rs"]
mod dice;

use dice::Dice;

const PRODUCERS: u64 = 4;
const JOBS_EACH: u64 = 10_000;

/// Fills a payload from a seed, its checksum in the first eight bytes.
fn fill(payload: &mut [u8], dice: &mut Dice) {
    for word in payload[8..].chunks_mut(8) {
        word.copy_from_slice(&dice.roll(u64::MAX).to_le_bytes()[..word.len()]);
    }
    let sum = fnv1a64(&payload[8..]);
    payload[..8].copy_from_slice(&sum.to_le_bytes());
}

fn produce(ring: &Arc<JobRing>, producer: u64, tally: &AtomicU64) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (producer + 1));
    let mut waiting = Vec::new();
    for job in 0..JOBS_EACH {
        let size = 8 + dice.roll(56) as usize;
        let mut reservation = loop {
            match ring.try_reserve(size, 16) {
                Ok(reservation) => break reservation,
                // An answer collected makes room; with none of our own to collect, that is up to the other producers.
                Err(ReserveError::RingFull | ReserveError::ArenaFull) => match waiting.is_empty() {
                    true => thread::yield_now(),
                    false => settle(waiting.swap_remove(0), tally),
                },
                Err(other) => panic!("{other}"),
            }
        };
        fill(reservation.payload_mut(), &mut dice);
        let sum = u64::from_le_bytes(reservation.payload_mut()[..8].try_into().expect("eight bytes"));
        dice.maybe_pause();
        let ticket = ring.submit(
            reservation,
            Descriptor { opcode: producer as u16, dim: job as u32, tenant: sum, ..Descriptor::default() },
        );
        waiting.push((ticket, producer as u16, job, sum));
        if waiting.len() as u64 > dice.roll(40) {
            settle(waiting.swap_remove(dice.roll(waiting.len() as u64) as usize), tally);
        }
    }
    waiting.into_iter().for_each(|one| settle(one, tally));
}

fn settle((ticket, opcode, job, sum): (megaring_ring::Ticket, u16, u64, u64), tally: &AtomicU64) {
    let id = ticket.id();
    let outcome = ticket.wait();
    assert_eq!(outcome.status(), Status::Ok);
    assert_eq!((outcome.completion.ticket, outcome.completion.opcode), (id, opcode));
    let mut answer = [0; 16];
    answer.copy_from_slice(outcome.result());
    assert_eq!(u64::from_le_bytes(answer[..8].try_into().expect("eight bytes")), sum, "the payload's checksum");
    assert_eq!(u64::from_le_bytes(answer[8..].try_into().expect("eight bytes")), job, "the job's number");
    tally.fetch_add(1, Ordering::Relaxed);
}

fn consume(ring: &Arc<JobRing>, seed: u64, stop: &AtomicBool) -> u64 {
    let mut dice = Dice(seed);
    let mut done = 0;
    loop {
        let deadline = Some(Instant::now() + Duration::from_millis(100));
        let ready = || ring.has_jobs() || stop.load(Ordering::Acquire);
        ring.jobs_signal().wait_until(WaitStrategy::default(), deadline, ready);
        let mut jobs = Vec::new();
        ring.try_poll(1 + dice.roll(30) as usize, &mut |job| jobs.push(job));
        if jobs.is_empty() && stop.load(Ordering::Acquire) {
            return done;
        }
        for job in jobs {
            let mut work = ring.open(&job).expect("a whole slot");
            let (stated, bytes) = work.payload().split_at(8);
            let sum = fnv1a64(bytes);
            assert_eq!(stated, sum.to_le_bytes());
            assert_eq!(work.descriptor().tenant, sum);
            let number = u64::from(work.descriptor().dim);
            dice.maybe_pause();
            work.result_mut()[..8].copy_from_slice(&sum.to_le_bytes());
            work.result_mut()[8..].copy_from_slice(&number.to_le_bytes());
            let body = work.result_body(16).expect("16 bytes were asked for");
            work.complete(Status::Ok, dice.roll(1 << 40), body);
            done += 1;
        }
    }
}

/// 40,000 jobs over a ring of 64 slots whose positions wrap past the end of the u64 on the way.
#[test]
fn every_job_is_answered_once() {
    let config = RingConfig {
        capacity: 64,
        arena_bytes: 96 * 128,
        block_bytes: 128,
        wait: WaitStrategy::HybridSpin(Duration::from_micros(20)),
    };
    let memory = Memory::heap(RingLayout::of(&config).expect("a layout").len).expect("memory");
    let ring = JobRing::with_memory(config, memory, u64::MAX - 14_000).expect("a ring");
    let (tally, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let worked: u64 = thread::scope(|scope| {
        let workers = [11, 13, 17].map(|seed| {
            let (ring, stop) = (&ring, &stop);
            scope.spawn(move || consume(ring, seed, stop))
        });
        let producers = [0, 1, 2, 3].map(|producer| {
            let (ring, tally) = (&ring, &tally);
            scope.spawn(move || produce(ring, producer, tally))
        });
        let produced = producers.map(|producer| producer.join());
        stop.store(true, Ordering::Release);
        ring.jobs_signal().notify_all();
        produced.into_iter().for_each(|end| end.expect("a producer saw only right answers"));
        workers.map(|worker| worker.join().expect("a worker saw only right jobs")).into_iter().sum()
    });
    let stats = ring.stats();
    assert_eq!((worked, tally.into_inner()), (PRODUCERS * JOBS_EACH, PRODUCERS * JOBS_EACH));
    assert_eq!((stats.submitted, stats.completed), (PRODUCERS * JOBS_EACH, PRODUCERS * JOBS_EACH));
    assert_eq!((stats.faults, stats.outstanding, stats.arena_leased, stats.quarantined), (0, 0, 0, 0));
}

/// Async owners beside a blocking one: the dedicated reaper delivers what the blocking waiter leaves when it goes.
#[test]
fn a_dedicated_reaper_and_blocking_waiters_share_the_completions() {
    let ring =
        JobRing::new(RingConfig { capacity: 16, arena_bytes: 1 << 16, block_bytes: 1 << 10, wait: WaitStrategy::Park })
            .expect("a ring");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                ring.reaper_wait(Some(Instant::now() + Duration::from_millis(20)));
                ring.reap();
            }
        });
        let worker = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let deadline = Some(Instant::now() + Duration::from_millis(20));
                ring.jobs_signal().wait_until(WaitStrategy::Park, deadline, || ring.has_jobs());
                ring.try_poll(4, &mut |job| {
                    ring.complete(job.ticket, 1, Status::Ok, 0, Body::Empty);
                });
            }
        });
        for _ in 0..500 {
            let [first, second, third] = [(); 3].map(|()| {
                let reservation = ring.try_reserve(8, 0).expect("there is room for three");
                ring.submit(reservation, Descriptor::default())
            });
            let blocking = scope.spawn(move || second.wait().status());
            assert_eq!(block_on(first).status(), Status::Ok);
            assert_eq!(block_on(third).status(), Status::Ok);
            assert_eq!(blocking.join().expect("no panic"), Status::Ok);
        }
        stop.store(true, Ordering::Release);
        worker.join().expect("no panic");
    });
    assert_eq!(ring.stats().faults, 0);
}

/// A thread that helps for long: what others wait for is delivered meanwhile, by the dedicated reaper that their
/// completions wake. And it helps once, whatever has become of its own job by then.
#[test]
fn answers_do_not_wait_for_a_thread_that_helps() {
    let config = RingConfig { capacity: 16, arena_bytes: 1 << 16, block_bytes: 1 << 10, wait: WaitStrategy::Park };
    let ring = JobRing::new(config).expect("a ring");
    let reserve = || ring.try_reserve(8, 0).expect("there is room");
    let answer = || {
        ring.try_poll(4, &mut |job| {
            ring.complete(job.ticket, 1, Status::Ok, 0, Body::Empty);
        })
    };
    thread::scope(|scope| {
        // Gone where the test fails, so that nobody waits for it then.
        let (began, begun) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        // Looks up by itself only when the test has failed, and then ends.
        let reaper = scope.spawn(|| {
            let since = Instant::now();
            while !ring.is_closed() && since.elapsed() < Duration::from_secs(30) {
                ring.reaper_wait(Some(Instant::now() + Duration::from_secs(30)));
                ring.reap();
            }
        });
        let own = reserve().submit_unannounced(Descriptor::default());
        assert_eq!(answer(), 1, "answered before its owner looks");
        let helper = scope.spawn(move || {
            let help = |_| {
                began.send(()).expect("the test waits for it");
                ends.recv().expect("the test lets it go");
            };
            own.wait_helping(|_| false, help).status()
        });
        begun.recv().expect("it helps");
        let other = reserve().submit(Descriptor::default());
        assert_eq!(answer(), 1);
        let asked = Instant::now();
        assert_eq!(block_on(other).status(), Status::Ok);
        assert!(asked.elapsed() < Duration::from_secs(20), "nobody was woken");
        end.send(()).expect("it still helps");
        assert_eq!(helper.join().expect("no panic"), Status::Ok);
        ring.close();
        reaper.join().expect("no panic");
    });
    assert_eq!(ring.stats().faults, 0);
}

/// The smallest executor: polls, and parks the thread until woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => thread::park(),
        }
    }
}
