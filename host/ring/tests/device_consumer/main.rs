//! A ring whose consumer is a device that knows nothing but the ring's bytes: under load, with its faults, and with
//! seeded bugs on either side that the same harness must catch.
#![cfg(not(loom))]

mod chaos;
mod device;
#[path = "../support/dice.rs"]
mod dice;
mod faults;
mod harness;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use megaring_ring::{JobRing, Memory, RingConfig, RingLayout, WaitStrategy, protocol::Protocol};

use self::{
    device::{Bug, End, STATE_ENDED},
    harness::{Failure, Mode, Plan, run},
};

const PLAN: Plan = Plan {
    producers: 4,
    jobs_each: 50_000,
    seed: 0x5DEE_CE66,
    mode: Mode::Persistent,
    bug: Bug::None,
    patience: Duration::from_secs(120),
};

fn config(capacity: usize, wait: WaitStrategy) -> RingConfig {
    RingConfig { capacity, arena_bytes: 96 * 128, block_bytes: 128, wait }
}

fn ring_at(config: RingConfig, start: u64) -> Arc<JobRing> {
    let memory = Memory::heap(RingLayout::of(&config).expect("a layout").len).expect("memory");
    JobRing::with_memory(config, memory, start).expect("a ring")
}

/// What must hold when everything was answered in peace.
fn check_idle(ring: &Arc<JobRing>, jobs: u64) {
    let stats = ring.stats();
    assert_eq!((stats.submitted, stats.completed), (jobs, jobs));
    assert_eq!((stats.faults, stats.outstanding, stats.quarantined, stats.arena_leased), (0, 0, 0, 0));
    assert!(!ring.has_untaken() && ring.is_settled(ring.submitted_through()));
    let lines = ring.lines();
    assert!(lines.device_heartbeat[0].word.load(Ordering::Relaxed) > 0, "the device's heart has beaten");
    assert!(lines.host_heartbeat[0].word.load(Ordering::Relaxed) > 0, "and its watcher's");
    let report = &lines.report[0];
    assert_eq!(report.word.load(Ordering::Acquire), STATE_ENDED);
    assert_eq!(report.more[1].load(Ordering::Relaxed), ring.head());
}

/// 40,000 jobs over a ring of 64 slots whose positions wrap past the end of the u64 on the way.
#[test]
fn a_persistent_device_answers_every_job_once() {
    let ring = ring_at(config(64, WaitStrategy::HybridSpin(Duration::from_micros(20))), u64::MAX - 14_000);
    let plan = Plan { jobs_each: 10_000, ..PLAN };
    assert_eq!(run(&ring, plan).map_err(|failure| failure.what), Ok(40_000));
    check_idle(&ring, 40_000);
    assert_eq!(ring.lines().report[0].more[0].load(Ordering::Relaxed), End::Stopped as u64);
}

/// Every launch is a device of its own, which goes on where the last one ended. Nobody spins, so each wake-up counts.
#[test]
fn a_device_launched_per_batch_answers_every_job_once() {
    let ring = ring_at(config(16, WaitStrategy::Park), u64::MAX - 1_500);
    let plan = Plan { jobs_each: 1_000, mode: Mode::PerBatch, ..PLAN };
    assert_eq!(run(&ring, plan).map_err(|failure| failure.what), Ok(4_000));
    check_idle(&ring, 4_000);
    assert_eq!(ring.lines().report[0].more[0].load(Ordering::Relaxed), End::LimitReached as u64);
}

/// A ring of two slots: nearly every submission waits for the device's head, nearly every completion is one lap behind
/// another. Few jobs, since each is a turn of threads that wait for each other.
#[test]
fn a_ring_that_is_always_full_loses_nothing() {
    let ring = ring_at(config(2, WaitStrategy::Park), u64::MAX - 1);
    let plan = Plan { jobs_each: 500, ..PLAN };
    assert_eq!(run(&ring, plan).map_err(|failure| failure.what), Ok(2_000));
    check_idle(&ring, 2_000);
    assert!(ring.stats().ring_full > 0);
}

/// Runs the harness as above with a bug in it, and wants to be told.
fn caught<P: Protocol>(capacity: usize, plan: Plan) -> Failure {
    let ring = JobRing::<P>::with_protocol(config(capacity, WaitStrategy::Park)).expect("a ring");
    let plan = Plan { patience: Duration::from_secs(3), ..plan };
    run(&ring, plan).expect_err("the harness is content with a seeded bug")
}

#[test]
fn a_submission_published_before_its_slot_is_caught() {
    #[derive(Debug)]
    struct TailBeforeSlot;
    impl Protocol for TailBeforeSlot {
        const SLOT_BEFORE_TAIL: bool = false;

        fn in_between() {
            std::thread::yield_now();
        }
    }
    let failure = caught::<TailBeforeSlot>(16, PLAN);
    assert!(failure.device_faults > 0, "{failure:?}");
}

#[test]
fn a_completion_published_before_its_slot_is_caught() {
    let failure = caught::<megaring_ring::protocol::Sound>(16, Plan { bug: Bug::TailBeforeSlot, ..PLAN });
    assert!(failure.host_faults > 0, "{failure:?}");
}

#[test]
fn a_job_completed_before_its_result_is_written_is_caught() {
    let failure = caught::<megaring_ring::protocol::Sound>(16, Plan { bug: Bug::CompletionBeforeWork, ..PLAN });
    assert!(failure.what.contains("wrong answer") || failure.device_faults > 0, "{failure:?}");
}

#[test]
fn a_head_reported_before_the_slots_are_copied_is_caught() {
    let failure = caught::<megaring_ring::protocol::Sound>(2, Plan { bug: Bug::HeadBeforeCopy, ..PLAN });
    assert!(failure.device_faults > 0, "{failure:?}");
}

#[test]
fn a_wake_up_lost_at_the_relaunch_is_caught() {
    let failure = caught::<megaring_ring::protocol::Sound>(16, Plan { mode: Mode::PerBatchUnchecked, ..PLAN });
    assert!(failure.what.contains("no answer"), "{failure:?}");
    assert_eq!((failure.host_faults, failure.device_faults), (0, 0));
}
