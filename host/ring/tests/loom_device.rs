//! Loom models of a ring whose consumer is a device, which can neither wake a thread nor be woken: what its watcher
//! does in its stead, and what a dispatcher does that launches it per batch.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p megaring-ring --release --test loom_device
//! ```
//!
//! As in the other models, each *twin* is the same code with one step wrong, and must be rejected.
#![cfg(loom)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use loom::{model::Builder, thread};
use megaring_ring::{
    Body, Completion, Descriptor, JobRing, RingConfig, Status, SubmissionQueue, Ticket, WaitStrategy,
    protocol::{Protocol, Sound},
    sync::SharedCell,
};

/// Declares a protocol with steps that differ from the sound one.
macro_rules! twin {
    ($name:ident { $($step:ident: $kind:ty = $value:expr),+ }) => {
        #[derive(Debug)]
        struct $name;
        impl Protocol for $name {
            $(const $step: $kind = $value;)+
        }
    };
}

twin!(CheckBeforeAnnouncing { ANNOUNCE_BEFORE_CHECK: bool = false });
twin!(NoNotifyFence { NOTIFY_FENCE: bool = false });
twin!(FreeBeforeTail { WAIT_FOR_TAIL: bool = false });

const ASLEEP: &str = "deadlock";

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Insists that loom finds an execution of the model that fails, and fails for `reason`.
fn rejects(reason: &str, model: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(model)).expect_err("loom accepts the seeded bug");
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    assert!(message.is_some_and(|message| message.contains(reason)), "rejected for another reason: {message:?}");
}

fn tiny_ring<P: Protocol>() -> Arc<JobRing<P>> {
    let config = RingConfig { capacity: 2, arena_bytes: 512, block_bytes: 128, wait: WaitStrategy::Park };
    JobRing::<P>::with_protocol(config).expect("a ring")
}

fn ask<P: Protocol>(ring: &Arc<JobRing<P>>) -> Ticket<P> {
    ring.submit(ring.try_reserve(1, 0).expect("there is room"), Descriptor::default())
}

/// What a device does with the next `max` jobs, without a word to anyone; tells how many there were.
fn device<P: Protocol>(ring: &Arc<JobRing<P>>, max: usize) -> usize {
    let mut done = 0;
    ring.try_poll(max, &mut |job| {
        let completion = Completion { ticket: job.ticket, status: Status::Ok, body: Body::Empty, ..Default::default() };
        ring.complete_as_device(&[completion]);
        done += 1;
    });
    done
}

/// A watcher that is idle: a submission must wake it, or it parks for ever.
fn the_watcher_wakes<P: Protocol>() {
    explore(3, || {
        let ring = tiny_ring::<P>();
        let watcher = {
            let ring = ring.clone();
            thread::spawn(move || assert!(ring.await_outstanding(WaitStrategy::Park, None)))
        };
        let _ticket = ask(&ring);
        watcher.join().expect("no panic");
    });
}

/// As above, but it is the end of the ring that it must not sleep through.
fn the_watcher_ends<P: Protocol>() {
    explore(3, || {
        let ring = tiny_ring::<P>();
        let watcher = {
            let ring = ring.clone();
            thread::spawn(move || assert!(ring.await_outstanding(WaitStrategy::Park, None)))
        };
        ring.close();
        watcher.join().expect("no panic");
    });
}

/// An answer that a device has written reaches its blocked owner by the watcher's announcement alone.
fn an_announced_answer_arrives<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let ticket = ask(&ring);
        let watcher = {
            let ring = ring.clone();
            thread::spawn(move || {
                assert_eq!(device(&ring, 1), 1);
                ring.announce();
            })
        };
        assert_eq!(ticket.wait().status(), Status::Ok);
        watcher.join().expect("no panic");
    });
}

/// The same for a dedicated reaper, two answers and an announcement after each: the second may find the reaper at work
/// on the first.
fn an_announced_answer_is_reaped<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let _tickets = [ask(&ring), ask(&ring)];
        let reaper = {
            let ring = ring.clone();
            thread::spawn(move || {
                while ring.outstanding() > 0 {
                    ring.reaper_wait(None);
                    ring.reap();
                }
            })
        };
        for _ in 0..2 {
            assert_eq!(device(&ring, 1), 1);
            ring.announce();
        }
        reaper.join().expect("no panic");
    });
}

/// Device, watcher and owner at once: the watcher looks until nothing is outstanding.
fn a_watched_device_answers<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let ticket = ask(&ring);
        let watcher = {
            let ring = ring.clone();
            thread::spawn(move || {
                while ring.outstanding() > 0 {
                    ring.announce();
                    thread::yield_now();
                }
            })
        };
        let owner = thread::spawn(move || assert_eq!(ticket.wait().status(), Status::Ok));
        assert_eq!(device(&ring, 1), 1);
        owner.join().expect("no panic");
        watcher.join().expect("no panic");
        assert_eq!((ring.stats().faults, ring.outstanding()), (0, 0));
    });
}

/// A device has taken the slots of a ring of two before they were published, and a third push may find one of their
/// places: not before its pusher has marked it ready, or that mark would hide the third's, and the tail stand still.
fn a_place_taken_early_waits_for_its_pusher<P: Protocol>() {
    explore(2, || {
        let queue = Arc::new(SubmissionQueue::<P>::new(2, 0).expect("memory"));
        let pushers = [(); 2].map(|()| {
            let queue = queue.clone();
            thread::spawn(move || queue.try_push(Descriptor::default()).is_ok())
        });
        // Whatever of them is written.
        queue.take_as_device();
        let third = queue.try_push(Descriptor::default()).is_ok();
        let pushed = pushers.map(|pusher| pusher.join().expect("no panic"));
        let pushed = pushed.into_iter().chain([third]).filter(|pushed| *pushed).count();
        assert_eq!(queue.tail(), pushed as u64, "all are published");
    });
}

/// How the dispatcher of [`launched_per_batch`] decides that there is something to launch for.
#[derive(Clone, Copy, PartialEq)]
enum Check {
    /// Something is published that the device has not taken.
    Untaken,
    /// The seeded bug: the tail is another one than after the last launch, whoever came during it.
    MovedSinceLaunch,
}

/// A device that is launched up to the tail seen, takes that much and ends; its dispatcher parks in between. Two jobs,
/// the second of which may come before, during or after the first launch: both must be taken, or the dispatcher sleeps
/// for ever.
fn launched_per_batch<P: Protocol>(check: Check) {
    explore(3, move || {
        let ring = tiny_ring::<P>();
        let dispatcher = {
            let ring = ring.clone();
            thread::spawn(move || {
                let (mut taken, mut seen) = (0, 0);
                while taken < 2 {
                    let ready = || match check {
                        Check::Untaken => ring.has_untaken(),
                        Check::MovedSinceLaunch => ring.tail() != seen,
                    };
                    ring.jobs_signal().wait_until(WaitStrategy::Park, None, ready);
                    let limit = ring.tail();
                    taken += device(&ring, limit.wrapping_sub(ring.head()) as usize);
                    seen = ring.tail();
                }
            })
        };
        let _tickets = [ask(&ring), ask(&ring)];
        dispatcher.join().expect("no panic");
        assert_eq!((ring.head(), ring.backlog()), (2, 0));
    });
}

/// What a job names is read by the device until its completion and written by the host once that job is settled: loom
/// watches the two.
fn memory_is_reused_when_settled<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let named = Arc::new(SharedCell::new(0));
        let _ticket = ask(&ring);
        let consumer = {
            let (ring, named) = (ring.clone(), named.clone());
            thread::spawn(move || {
                // SAFETY: the job that names the cell is not completed yet; that nobody writes before is what the model
                // is about.
                unsafe { named.read() };
                assert_eq!(device(&ring, 1), 1);
                ring.reap();
            })
        };
        let through = ring.submitted_through();
        while !ring.is_settled(through) {
            thread::yield_now();
        }
        // SAFETY: as above: the only reader has completed.
        unsafe { named.write(1) };
        consumer.join().expect("no panic");
    });
}

/// A job between its claimed position and its entry in the table is not taken for settled.
fn a_job_on_its_way_is_not_settled<P: Protocol>() {
    explore(3, || {
        let ring = tiny_ring::<P>();
        let submitting = {
            let ring = ring.clone();
            thread::spawn(move || ask(&ring))
        };
        let through = ring.submitted_through();
        assert_eq!(ring.is_settled(through), through == 0, "nobody has answered anything");
        let _ticket = submitting.join().expect("no panic");
    });
}

#[test]
fn launching() {
    launched_per_batch::<Sound>(Check::Untaken);
}

#[test]
fn launching_twins() {
    rejects(ASLEEP, || launched_per_batch::<Sound>(Check::MovedSinceLaunch));
    rejects(ASLEEP, || launched_per_batch::<CheckBeforeAnnouncing>(Check::Untaken));
    rejects(ASLEEP, || launched_per_batch::<NoNotifyFence>(Check::Untaken));
}

#[test]
fn taking_early() {
    a_place_taken_early_waits_for_its_pusher::<Sound>();
}

#[test]
fn taking_early_twins() {
    rejects("all are published", a_place_taken_early_waits_for_its_pusher::<FreeBeforeTail>);
}

#[test]
fn settling() {
    memory_is_reused_when_settled::<Sound>();
    a_job_on_its_way_is_not_settled::<Sound>();
}

#[test]
fn watching() {
    the_watcher_wakes::<Sound>();
    the_watcher_ends::<Sound>();
}

#[test]
fn watching_twins() {
    rejects(ASLEEP, the_watcher_wakes::<CheckBeforeAnnouncing>);
    rejects(ASLEEP, the_watcher_wakes::<NoNotifyFence>);
    rejects(ASLEEP, the_watcher_ends::<CheckBeforeAnnouncing>);
    rejects(ASLEEP, the_watcher_ends::<NoNotifyFence>);
}

#[test]
fn announcing() {
    an_announced_answer_arrives::<Sound>();
    an_announced_answer_is_reaped::<Sound>();
    a_watched_device_answers::<Sound>();
}

#[test]
fn announcing_twins() {
    rejects(ASLEEP, an_announced_answer_arrives::<NoNotifyFence>);
    rejects(ASLEEP, an_announced_answer_is_reaped::<CheckBeforeAnnouncing>);
    rejects(ASLEEP, an_announced_answer_is_reaped::<NoNotifyFence>);
}
