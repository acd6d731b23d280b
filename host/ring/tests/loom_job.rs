//! Loom models of the job ring: every interleaving, within a bound on preemptions, of a few threads over rings of two
//! to four slots.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p megaring-ring --release --test loom_job
//! ```
//!
//! Each model is a function of the [`Protocol`]. With [`Sound`] it must pass; each *twin* runs the very same code with
//! one step of the protocol wrong, and loom must reject it: a model that cannot tell the bug from the right code proves
//! nothing.
#![cfg(loom)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use loom::{model::Builder, thread};
use megaring_ring::{
    Body, Completion, CompletionQueue, Descriptor, JobRing, RingConfig, Signal, Status, SubmissionQueue, WaitStrategy,
    protocol::{Protocol, Sound},
    queue::Message,
    sync::{AtomicU64, Ordering},
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

twin!(RelaxedClaim { CLAIM: Ordering = Ordering::Relaxed });
twin!(RelaxedTail { TAIL_STORE: Ordering = Ordering::Relaxed });
twin!(NoFence { TAIL_FENCE: bool = false });
twin!(TailBeforeSlot { SLOT_BEFORE_TAIL: bool = false });
twin!(RelaxedHead { HEAD_STORE: Ordering = Ordering::Relaxed });
twin!(HeadBeforeCopy { COPY_BEFORE_HEAD: bool = false });
twin!(TwoPublishers { LEAVE_WORD: bool = false });
twin!(CheckBeforeAnnouncing { ANNOUNCE_BEFORE_CHECK: bool = false });
twin!(NoNotifyFence { NOTIFY_FENCE: bool = false });
twin!(NoSecondLook { LOOK_AGAIN: bool = false });
twin!(NoWakeAfterReap { WAKE_AFTER_REAP: bool = false });

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

const RACE: &str = "Causality violation";
const ASLEEP: &str = "deadlock";

fn job(number: u32) -> Descriptor {
    Descriptor { dim: number, ..Descriptor::default() }
}

/// Polls until `wanted` messages have come; their order and content are the caller's to judge.
fn drain<M: Message, P: Protocol>(queue: &megaring_ring::queue::Queue<M, P>, wanted: usize) -> Vec<M> {
    let mut seen = Vec::new();
    while seen.len() < wanted {
        for (position, slot) in queue.poll(wanted).expect("the tail is never ahead of what was pushed") {
            assert_eq!(slot.sequence, position.wrapping_add(1));
            seen.push(M::from_slot(&slot).expect("a published slot is whole"));
        }
        thread::yield_now();
    }
    seen
}

/// Two producers, one consumer, a ring of two that starts just before the positions wrap: everything arrives once,
/// whole.
fn publish_and_consume<P: Protocol>() {
    explore(3, || {
        let queue = Arc::new(SubmissionQueue::<P>::new(2, u64::MAX).expect("a queue"));
        let producers = [1, 2].map(|number| {
            let queue = queue.clone();
            thread::spawn(move || queue.try_push(job(number)).expect("there are two slots"))
        });
        let mut seen: Vec<u32> = drain(&queue, 2).iter().map(|job| job.dim).collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        let mut positions = producers.map(|producer| producer.join().expect("no panic"));
        positions.sort_unstable();
        assert_eq!(positions, [0, u64::MAX]);
        assert!(queue.is_empty());
    });
}

/// One producer pushes two laps through a ring of two, against a consumer: a slot is never written while it is read, a
/// full ring refuses, and what is refused comes back.
fn lap_and_backpressure<P: Protocol>() {
    explore(3, || {
        let queue = Arc::new(SubmissionQueue::<P>::new(2, u64::MAX - 1).expect("a queue"));
        let producer = {
            let queue = queue.clone();
            thread::spawn(move || {
                for number in 0..4 {
                    let mut message = job(number);
                    while let Err(full) = queue.try_push(message) {
                        assert_eq!(full.0, message);
                        message = full.0;
                        thread::yield_now();
                    }
                }
            })
        };
        let seen: Vec<u32> = drain(&queue, 4).iter().map(|job| job.dim).collect();
        assert_eq!(seen, [0, 1, 2, 3]);
        producer.join().expect("no panic");
    });
}

/// Two producers meet a full ring of two while the consumer empties it: a position may be claimed by a producer whose
/// own reservation was freed by an earlier head than the position needs.
fn claims_out_of_order<P: Protocol>() {
    explore(3, || {
        let queue = Arc::new(CompletionQueue::<P>::new(2, 0).expect("a queue"));
        let answer = |ticket| Completion { ticket, ..Default::default() };
        queue.try_push(answer(10)).expect("empty");
        queue.try_push(answer(11)).expect("one free");
        let producers = [20, 21].map(|ticket| {
            let queue = queue.clone();
            thread::spawn(move || queue.try_push(answer(ticket)).map_or(None, |_| Some(ticket)))
        });
        let mut seen: Vec<u64> = Vec::new();
        for _ in 0..2 {
            seen.extend(queue.poll(1).expect("a sound tail").map(|(_, slot)| slot.source_id));
        }
        let pushed: Vec<u64> =
            producers.into_iter().filter_map(|producer| producer.join().expect("no panic")).collect();
        seen.extend(queue.poll(2).expect("a sound tail").map(|(_, slot)| slot.source_id));
        seen[2..].sort_unstable();
        assert_eq!(seen[..2], [10, 11]);
        assert_eq!(seen[2..], pushed);
        assert!(queue.is_empty());
    });
}

/// Two producers, one of which may find the other one publishing: when both have returned, both jobs are visible.
fn nothing_is_left_unpublished<P: Protocol>() {
    explore(3, || {
        let queue = Arc::new(SubmissionQueue::<P>::new(2, 0).expect("a queue"));
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.try_push(job(1)).expect("there are two slots"))
        };
        queue.try_push(job(2)).expect("there are two slots");
        other.join().expect("no panic");
        assert_eq!(queue.tail(), 2, "a job is in its slot but not published");
    });
}

/// A waiter that parks and a notifier: if the wake-up is lost, the waiter sleeps for ever, which loom reports as a
/// deadlock.
fn no_lost_wake_up<P: Protocol>(waiters: usize) {
    explore(3, move || {
        let state = Arc::new((Signal::<P>::new(), AtomicU64::new(0)));
        let waiting: Vec<_> = (0..waiters)
            .map(|_| {
                let state = state.clone();
                thread::spawn(move || {
                    let ready = || state.1.load(Ordering::Relaxed) == 1;
                    assert!(state.0.wait_until(WaitStrategy::Park, None, ready));
                })
            })
            .collect();
        state.1.store(1, Ordering::Relaxed);
        if waiters == 1 {
            state.0.notify_one();
        } else {
            state.0.notify_all();
        }
        waiting.into_iter().for_each(|waiter| waiter.join().expect("no panic"));
    });
}

fn tiny_ring<P: Protocol>() -> Arc<JobRing<P>> {
    JobRing::<P>::with_protocol(RingConfig {
        capacity: 2,
        arena_bytes: 512,
        block_bytes: 128,
        wait: WaitStrategy::Park,
    })
    .expect("a ring")
}

/// Waits for jobs and answers `wanted` of them through the arena.
fn work<P: Protocol>(ring: &Arc<JobRing<P>>, wanted: usize) {
    let mut done = 0;
    while done < wanted {
        ring.jobs_signal().wait_until(WaitStrategy::Park, None, || ring.has_jobs());
        let mut jobs = Vec::new();
        ring.try_poll(wanted, &mut |job| jobs.push(job));
        for job in jobs {
            let mut work = ring.open(&job).expect("a whole slot");
            let input = work.payload()[0];
            work.result_mut()[0] = input + 100;
            let body = work.result_body(1).expect("one byte was asked for");
            work.complete(Status::Ok, 0, body);
            done += 1;
        }
        thread::yield_now();
    }
}

fn ask<P: Protocol>(ring: &Arc<JobRing<P>>, input: u8) -> megaring_ring::Ticket<P> {
    let mut reservation = ring.try_reserve(1, 1).expect("there is room");
    reservation.payload_mut()[0] = input;
    ring.submit(reservation, Descriptor::default())
}

/// Submission, work and the answer back to the blocked owner; the arena's bytes are handed over without a race.
fn answer_comes_back<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let worker = {
            let ring = ring.clone();
            thread::spawn(move || work(&ring, 1))
        };
        let outcome = ask(&ring, 5).wait();
        assert_eq!(outcome.result(), [105]);
        worker.join().expect("no panic");
        drop(outcome);
        assert_eq!((ring.stats().faults, ring.stats().arena_leased, ring.outstanding()), (0, 0, 0));
    });
}

/// Two owners block, each on its own ticket; whoever reaps the other's answer must wake it.
fn each_waiter_gets_its_own<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let (first, second) = (ask(&ring, 1), ask(&ring, 2));
        let other = thread::spawn(move || assert_eq!(second.wait().result(), [102]));
        work(&ring, 2);
        assert_eq!(first.wait().result(), [101]);
        other.join().expect("no panic");
        assert_eq!(ring.stats().faults, 0);
    });
}

/// Two owners take what they have pushed without telling the worker, which is parked. One may find that the other is
/// just taking slots, and has looked too early, or that it has published the other's slot after its owner had looked.
/// It has to tell the worker then.
fn helpers_leave_nothing<P: Protocol>(tells: bool) {
    explore(2, move || {
        let queue = Arc::new(SubmissionQueue::<P>::new(2, 0).expect("a queue"));
        let (jobs, taken) = (Arc::new(Signal::<P>::new()), Arc::new(AtomicU64::new(0)));
        let take = {
            let (queue, jobs, taken) = (queue.clone(), jobs.clone(), taken.clone());
            move || {
                let count = queue.poll(2).expect("a sound tail").len() as u64;
                if count > 0 && taken.fetch_add(count, Ordering::AcqRel) + count == 2 {
                    jobs.notify_all();
                }
                count
            }
        };
        let owner = {
            let (queue, jobs, take) = (queue.clone(), jobs.clone(), take.clone());
            move |number| {
                let position = queue.try_push(job(number)).expect("there are two slots");
                if queue.head() <= position {
                    take();
                }
                if !queue.is_empty() && tells {
                    jobs.notify_one();
                }
            }
        };
        let second = thread::spawn({
            let owner = owner.clone();
            move || owner(2)
        });
        let first = thread::spawn(move || owner(1));
        while taken.load(Ordering::Acquire) < 2 {
            let is_done = || taken.load(Ordering::Acquire) == 2;
            jobs.wait_until(WaitStrategy::Park, None, || !queue.is_empty() || is_done());
            take();
            thread::yield_now();
        }
        first.join().expect("no panic");
        second.join().expect("no panic");
    });
}

/// A ticket dropped while its job is answered: the run comes back once, whoever is first.
fn dropped_while_answered<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let ticket = ask(&ring, 1);
        let dropper = thread::spawn(move || drop(ticket));
        work(&ring, 1);
        ring.reap();
        dropper.join().expect("no panic");
        assert_eq!((ring.stats().faults, ring.stats().arena_leased, ring.outstanding()), (0, 0, 0));
        let all: Vec<_> = (0..2).map(|_| ring.try_reserve(1, 1).expect("every credit is back")).collect();
        drop(all);
    });
}

/// The host fails a ticket while its consumer completes it: one answer, from the one or the other.
fn failed_while_answered<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let ticket = ask(&ring, 1);
        let failing = {
            let ring = ring.clone();
            thread::spawn(move || ring.fail_outstanding(Status::BackendFailed))
        };
        ring.try_poll(1, &mut |job| {
            ring.complete(job.ticket, 0, Status::Ok, 0, Body::Empty);
        });
        ring.reap();
        let failed = failing.join().expect("no panic");
        ring.reap();
        let status = ticket.wait().status();
        assert_eq!(status, if failed == 1 { Status::BackendFailed } else { Status::Ok });
        assert_eq!(ring.stats().faults, failed as u64);
        ring.release_quarantine();
        assert_eq!((ring.stats().arena_leased, ring.stats().quarantined, ring.stats().completed), (0, 0, 1));
    });
}

/// A reservation submitted to a closed ring that is being failed is answered, whichever is first.
fn submitted_while_failing<P: Protocol>() {
    explore(2, || {
        let ring = tiny_ring::<P>();
        let reservation = ring.try_reserve(1, 0).expect("there is room");
        ring.close();
        let failing = {
            let ring = ring.clone();
            thread::spawn(move || ring.fail_outstanding(Status::ShuttingDown))
        };
        let ticket = ring.submit(reservation, Descriptor::default());
        failing.join().expect("no panic");
        let answered = ticket.try_collect().map(|outcome| outcome.status());
        assert_eq!(answered.map_err(|_| "left without an answer"), Ok(Status::ShuttingDown));
    });
}

#[test]
fn publishing() {
    publish_and_consume::<Sound>();
    nothing_is_left_unpublished::<Sound>();
}

#[test]
fn publishing_twins() {
    rejects(RACE, publish_and_consume::<RelaxedTail>);
    rejects(RACE, publish_and_consume::<NoFence>);
    rejects(RACE, publish_and_consume::<TailBeforeSlot>);
    rejects("not published", nothing_is_left_unpublished::<TwoPublishers>);
}

#[test]
fn laps() {
    lap_and_backpressure::<Sound>();
    claims_out_of_order::<Sound>();
}

#[test]
fn laps_twins() {
    rejects(RACE, lap_and_backpressure::<RelaxedHead>);
    rejects(RACE, lap_and_backpressure::<HeadBeforeCopy>);
    rejects(RACE, claims_out_of_order::<RelaxedHead>);
    rejects(RACE, claims_out_of_order::<RelaxedClaim>);
}

#[test]
fn signals() {
    no_lost_wake_up::<Sound>(1);
    no_lost_wake_up::<Sound>(2);
}

#[test]
fn signals_twins() {
    rejects(ASLEEP, || no_lost_wake_up::<CheckBeforeAnnouncing>(1));
    rejects(ASLEEP, || no_lost_wake_up::<NoNotifyFence>(1));
}

#[test]
fn completion() {
    answer_comes_back::<Sound>();
}

#[test]
fn completion_twins() {
    rejects(RACE, answer_comes_back::<RelaxedTail>);
    rejects(RACE, answer_comes_back::<NoFence>);
    rejects(ASLEEP, answer_comes_back::<CheckBeforeAnnouncing>);
}

#[test]
fn waiters() {
    each_waiter_gets_its_own::<Sound>();
}

#[test]
fn waiters_twins() {
    rejects(ASLEEP, each_waiter_gets_its_own::<NoWakeAfterReap>);
}

#[test]
fn helping() {
    helpers_leave_nothing::<Sound>(true);
}

#[test]
fn helping_twins() {
    rejects(ASLEEP, || helpers_leave_nothing::<Sound>(false));
}

#[test]
fn dropping() {
    dropped_while_answered::<Sound>();
}

#[test]
fn failing() {
    failed_while_answered::<Sound>();
    submitted_while_failing::<Sound>();
}

#[test]
fn failing_twins() {
    rejects("left without an answer", submitted_while_failing::<NoNotifyFence>);
}

/// Two slots, of which the main thread never uses more than one at a time: there is always a place for the other
/// thread's message.
fn a_place_by_right_is_found<P: Protocol>() {
    explore(3, || {
        let queue = Arc::new(CompletionQueue::<P>::new(2, 0).expect("a queue"));
        let other = queue.clone();
        let pusher = thread::spawn(move || assert!(other.try_push(Completion::default()).is_ok(), "not full"));
        let mut seen = 0;
        for _ in 0..2 {
            assert!(queue.try_push(Completion::default()).is_ok(), "not full");
            let before = seen;
            while seen == before {
                seen += queue.poll(2).expect("a sound tail").len();
                thread::yield_now();
            }
        }
        pusher.join().expect("no panic");
    });
}

#[test]
fn places() {
    a_place_by_right_is_found::<Sound>();
}

#[test]
fn places_twins() {
    rejects("not full", a_place_by_right_is_found::<NoSecondLook>);
}
