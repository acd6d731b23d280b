//! What becomes of tickets, runs and credits when a device answers wrongly, late, twice or not at all, step by step in
//! one thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use megaring_ring::{
    Descriptor, JobRing, ReserveError, RingConfig, Status, Ticket, WaitStrategy,
    memory::{Line, View},
    protocol::Sound,
    sync::Ordering,
};

use crate::{
    device::{BAD_DESCRIPTOR, Bug, Device, End},
    dice::Dice,
    harness::fill,
    ring_at,
};

const CONFIG: RingConfig =
    RingConfig { capacity: 4, arena_bytes: 16 * 128, block_bytes: 128, wait: WaitStrategy::Park };

struct Asked {
    ticket: Ticket,
    sum: u64,
}

/// Positions wrap after a few jobs.
fn ring() -> Arc<JobRing> {
    ring_at(CONFIG, u64::MAX - 2)
}

fn ask(ring: &Arc<JobRing>, seed: u64) -> Asked {
    let mut reservation = ring.try_reserve(40, 16).expect("there is room");
    let sum = fill(&mut reservation, &mut Dice(seed));
    Asked { ticket: ring.submit(reservation, Descriptor { dim: seed as u32, ..Descriptor::default() }), sum }
}

fn attach(ring: &Arc<JobRing>) -> Device {
    Device::attach::<Sound>(ring, 77, Bug::None)
}

/// The ticket's answer, which must be there by now.
fn status(ring: &JobRing, ticket: Ticket) -> Status {
    ring.reap();
    ticket.try_collect().expect("an answer").status()
}

/// Every credit and every block is back.
fn check_whole(ring: &Arc<JobRing>) {
    let stats = ring.stats();
    assert_eq!((stats.outstanding, stats.quarantined, stats.arena_leased), (0, 0, 0));
    assert_eq!(stats.completed, stats.submitted);
    let all: Vec<_> = (0..CONFIG.capacity).map(|_| ring.try_reserve(1, 0).expect("a credit is lost")).collect();
    drop(all);
    assert!(ring.is_settled(ring.submitted_through()));
}

/// A pusher is put to sleep between its slot and the tail: the device takes the slot all the same, once.
#[test]
fn a_slot_is_taken_and_answered_before_its_tail() {
    let ring = ring();
    let mut device = attach(&ring);
    for job in 0..8 {
        let asked = ask(&ring, job);
        let (tail, line): (_, View<Line>) =
            (ring.tail(), ring.memory().view(ring.layout().submissions.tail, 1).expect("a line"));
        line[0].word.store(tail.wrapping_sub(1), Ordering::Release);
        assert_eq!((device.take(4), device.early), (Some(1), job + 1));
        assert_eq!((ring.head(), ring.backlog(), device.take(4)), (tail, 0, Some(0)));
        assert!(!ring.is_settled(asked.ticket.id()));
        device.work(1);
        line[0].word.store(tail, Ordering::Release);
        assert_eq!(status(&ring, asked.ticket), Status::Ok);
    }
    assert_eq!(device.faults, 0);
    check_whole(&ring);
}

#[test]
fn a_device_answers_in_any_order() {
    let ring = ring();
    let mut device = attach(&ring);
    for lap in 1..20 {
        let asked = [1, 2, 3].map(|number| ask(&ring, lap * 10 + number));
        assert_eq!(device.take(2), Some(2));
        assert_eq!((ring.backlog(), device.take(9)), (1, Some(1)));
        assert_eq!(device.work(2), 2);
        assert!(ring.announce());
        device.work(9);
        for Asked { ticket, sum } in asked {
            ring.reap();
            assert_eq!(ticket.try_collect().expect("an answer").result()[..8], sum.to_le_bytes());
        }
        assert!(!ring.announce());
    }
    assert_eq!((device.faults, ring.stats().faults), (0, 0));
    check_whole(&ring);
}

#[test]
fn a_second_answer_is_a_fault() {
    let ring = ring();
    let mut device = attach(&ring);
    let asked = ask(&ring, 1);
    device.take(1);
    let taken = device.taken[0];
    device.work(1);
    device.publish(&[Device::answer(&taken)]);
    assert_eq!((status(&ring, asked.ticket), ring.stats().faults), (Status::Ok, 1));
    // Also when the owner has collected the first, and when others use its entry and its run by now.
    device.publish(&[Device::answer(&taken)]);
    let next = ask(&ring, 2);
    device.publish(&[Device::answer(&taken)]);
    assert_eq!((ring.reap(), ring.stats().faults), (0, 3));
    device.take(1);
    device.work(1);
    assert_eq!(status(&ring, next.ticket), Status::Ok);
    check_whole(&ring);
}

#[test]
fn an_answer_to_nobody_is_a_fault() {
    let ring = ring();
    let mut device = attach(&ring);
    let asked = ask(&ring, 1);
    device.take(1);
    let taken = device.taken[0];
    for far in [1, 2, 8, 1 << 40, u64::MAX / 2, u64::MAX] {
        let mut answer = Device::answer(&taken);
        answer[2] = taken.ticket.wrapping_add(far);
        device.publish(&[answer]);
        assert_eq!(ring.reap(), 0);
    }
    assert_eq!((ring.stats().faults, ring.outstanding()), (6, 1));
    device.work(1);
    assert_eq!(status(&ring, asked.ticket), Status::Ok);
    check_whole(&ring);
}

/// A ticket that the device names before it has taken its slot: the answer cannot be true, and the slot will be read
/// yet.
#[test]
fn an_answer_to_a_job_that_was_not_taken_is_not_believed() {
    let ring = ring();
    let mut device = attach(&ring);
    let [first, second] = [1, 2].map(|number| ask(&ring, number));
    device.take(1);
    let mut early = Device::answer(&device.taken[0]);
    early[2] = second.ticket.id();
    device.publish(&[early]);
    let id = second.ticket.id();
    assert_eq!(status(&ring, second.ticket), Status::BackendFailed);
    assert_eq!((ring.stats().faults, ring.stats().quarantined), (1, 1));
    assert!(!ring.is_settled(id), "it may be taken still, and its run written to");
    device.take(1);
    device.work(2);
    assert_eq!(status(&ring, first.ticket), Status::Ok);
    assert_eq!(ring.stats().faults, 2, "the true answer comes too late for its owner");
    check_whole(&ring);
}

#[test]
fn a_torn_answer_quarantines_its_run() {
    let ring = ring();
    let mut device = attach(&ring);
    let asked = ask(&ring, 1);
    device.take(1);
    let taken = device.taken[0];
    let mut torn = Device::answer(&taken);
    torn[15] = 999;
    device.publish(&[torn]);
    assert_eq!(status(&ring, asked.ticket), Status::BackendFailed);
    assert_eq!((ring.stats().faults, ring.stats().quarantined), (1, 1));
    assert!(ring.stats().arena_leased > 0 && !ring.is_settled(taken.ticket));
    // Another torn one is no better; a whole one would tell that the device is done with the run.
    device.publish(&[torn]);
    assert_eq!((ring.reap(), ring.stats().faults, ring.stats().quarantined), (0, 2, 1));
    assert_eq!(ring.release_quarantine(), 1);
    check_whole(&ring);
}

/// A region outside the result's is no answer; but the device is done with the job.
#[test]
fn a_stray_region_is_not_read() {
    let ring = ring();
    let mut device = attach(&ring);
    for (number, (offset, len)) in [(0, 17), (128, 16), (u64::MAX, 2), (1, 16), (0, u64::MAX)].into_iter().enumerate() {
        let asked = ask(&ring, number as u64 + 1);
        device.take(1);
        let taken = device.taken.pop().expect("one was taken");
        let mut stray = Device::answer(&taken);
        stray[6] = stray[6].wrapping_add(offset);
        stray[7] = len;
        device.publish(&[stray]);
        ring.reap();
        let outcome = asked.ticket.try_collect().expect("an answer");
        assert_eq!((outcome.status(), outcome.result().len()), (Status::BackendFailed, 0));
        drop(outcome);
        assert_eq!(ring.stats().faults, number as u64 + 1);
    }
    check_whole(&ring);
}

/// The device stalls, the host answers for it, and then it comes back: its answers are too late for the owners, but
/// give the runs back.
#[test]
fn a_stalled_device_that_comes_back_gives_the_runs_back() {
    let ring = ring();
    let mut device = attach(&ring);
    let [taken, untaken] = [1, 2].map(|number| ask(&ring, number));
    device.take(1);
    assert_eq!(ring.fail_outstanding(Status::BackendFailed), 2);
    assert_eq!(ring.fail_outstanding(Status::BackendFailed), 0);
    let (first, second) = (taken.ticket.id(), untaken.ticket.id());
    assert_eq!(status(&ring, taken.ticket), Status::BackendFailed);
    assert_eq!((ring.stats().quarantined, ring.is_settled(first)), (2, false));
    let again = Device::answer(&device.taken[0]);
    device.work(1);
    device.publish(&[again]);
    assert_eq!(ring.reap(), 0);
    assert_eq!((ring.stats().faults, ring.stats().quarantined), (2, 1), "late, and late twice");
    assert!(ring.is_settled(first) && !ring.is_settled(second));
    device.take(1);
    device.work(1);
    ring.reap();
    assert_eq!((status(&ring, untaken.ticket), ring.stats().quarantined), (Status::BackendFailed, 0));
    let next = ask(&ring, 3);
    device.take(1);
    device.work(1);
    assert_eq!((status(&ring, next.ticket), device.faults), (Status::Ok, 0));
    check_whole(&ring);
}

/// The same device, declared dead while it was not: what it answers then answers nobody.
#[test]
fn answers_after_the_release_go_nowhere() {
    let ring = ring();
    let mut device = attach(&ring);
    let asked = ask(&ring, 1);
    device.take(1);
    ring.fail_outstanding(Status::BackendFailed);
    assert_eq!(ring.release_quarantine(), 1);
    let taken = device.taken[0];
    device.publish(&[Device::answer(&taken), Device::answer(&taken)]);
    assert_eq!((ring.reap(), ring.stats().faults), (0, 2));
    assert_eq!(status(&ring, asked.ticket), Status::BackendFailed);
    check_whole(&ring);
}

/// Killed between its slots and its tail. The next one goes on at the lines, refuses what the dead one left behind, and
/// serves the rest.
#[test]
fn a_successor_of_a_killed_device_refuses_what_it_left() {
    let ring = ring();
    let mut dead = attach(&ring);
    let asked: Vec<Asked> = (1..5).map(|number| ask(&ring, number)).collect();
    dead.take(2);
    let answers: Vec<_> = dead.taken.iter().map(Device::answer).collect();
    dead.write(&answers);
    drop(dead);
    assert_eq!(ring.fail_outstanding(Status::BackendFailed), 4);
    assert_eq!((ring.release_quarantine(), ring.stats().quarantined), (4, 2), "two wait in the queue");
    let mut successor = attach(&ring);
    assert_eq!((ring.backlog(), successor.take(9), successor.faults), (2, Some(2), 2));
    assert!(successor.taken.iter().all(|taken| Device::answer(taken)[4] == BAD_DESCRIPTOR));
    // New jobs lie in the very blocks of the dead ones.
    let next = [5, 6].map(|number| ask(&ring, number));
    successor.take(9);
    assert_eq!((successor.faults, successor.work(9)), (2, 4));
    for Asked { ticket, sum } in next {
        ring.reap();
        assert_eq!(ticket.try_collect().expect("an answer").result()[..8], sum.to_le_bytes());
    }
    assert!(asked.into_iter().all(|asked| status(&ring, asked.ticket) == Status::BackendFailed));
    check_whole(&ring);
}

/// Stopped and started again with jobs in the queue: nothing is lost and nothing done twice.
#[test]
fn a_successor_of_a_stopped_device_goes_on() {
    let ring = ring();
    let asked: Vec<Asked> = (1..5).map(|number| ask(&ring, number)).collect();
    for limit in [0, 1, 2] {
        let mut device = attach(&ring);
        let limit = asked[0].ticket.id().wrapping_add(limit);
        assert_eq!((device.run(Some(limit)), ring.head()), (End::LimitReached, limit));
        assert_eq!(device.done, 1);
    }
    assert_eq!(attach(&ring).run(Some(ring.tail())), End::LimitReached);
    assert!(asked.into_iter().all(|asked| status(&ring, asked.ticket) == Status::Ok));
    assert_eq!(ring.stats().faults, 0);
    check_whole(&ring);
}

/// Twice the capacity is the credit: the device may answer all of it before the host looks, and no more is admitted.
#[test]
fn a_full_completion_ring_holds_the_producers_back() {
    let ring = ring();
    let mut device = attach(&ring);
    for lap in 0..5 {
        let mut asked = Vec::new();
        for half in 0..2 {
            asked.extend((0..CONFIG.capacity).map(|number| ask(&ring, (lap * 100 + half * 10 + number + 1) as u64)));
            assert_eq!(ring.try_reserve(1, 0).err(), Some(ReserveError::RingFull), "every slot is taken");
            device.take(16);
        }
        assert_eq!(ring.try_reserve(1, 0).err(), Some(ReserveError::RingFull), "no credit, though every slot is free");
        assert_eq!(device.work(16), 8);
        assert_eq!(ring.try_reserve(1, 0).err(), Some(ReserveError::RingFull), "answered, but not reaped");
        assert_eq!(ring.reap(), 8);
        assert!(asked.into_iter().all(|asked| status(&ring, asked.ticket) == Status::Ok));
    }
    assert_eq!((device.faults, ring.stats().faults), (0, 0));
    check_whole(&ring);
}

/// A tail that nobody can have stored: one fault however often it is looked at, nobody is woken or kept awake for it,
/// and the tickets wait for someone to fail them.
#[test]
fn a_garbage_tail_is_one_fault_and_keeps_nobody_awake() {
    let ring = ring();
    let mut device = attach(&ring);
    let asked = ask(&ring, 1);
    device.take(1);
    for far in [9, 1 << 40, u64::MAX, u64::MAX / 2] {
        device.store_tail(device.tail().wrapping_add(far));
        assert_eq!((ring.reap(), ring.reap(), ring.announce()), (0, 0, false));
        assert!(!ring.reaper_wait(Some(Instant::now())));
    }
    assert_eq!((ring.stats().faults, ring.outstanding()), (1, 1));
    let ticket = asked.ticket.wait_until(Instant::now() + Duration::from_millis(1)).expect_err("there is no answer");
    assert_eq!(ring.fail_outstanding(Status::BackendFailed), 1);
    assert_eq!(status(&ring, ticket), Status::BackendFailed);
    assert_eq!(ring.release_quarantine(), 1);
    // The next one begins with the tail put right. It is seen again when that goes wrong again.
    device.store_tail(device.tail());
    let next = ask(&ring, 2);
    device.taken.clear();
    device.take(1);
    device.work(1);
    assert_eq!(status(&ring, next.ticket), Status::Ok);
    device.store_tail(device.tail().wrapping_add(9));
    assert_eq!((ring.reap(), ring.stats().faults), (0, 2));
    device.store_tail(device.tail());
    check_whole(&ring);
}

/// A head that is ahead of the tail, or too far behind: nobody is admitted over slots that may not be free.
#[test]
fn a_garbage_head_admits_nobody() {
    let ring = ring();
    let head: View<Line> = ring.memory().view(ring.layout().submissions.head, 1).expect("a line");
    let right = ring.head();
    for far in [1, 1 << 40, u64::MAX - 3, u64::MAX / 2] {
        head[0].word.store(right.wrapping_add(far), Ordering::Release);
        assert_eq!(ring.try_reserve(1, 0).err(), Some(ReserveError::RingFull), "{far}");
        assert!(ring.backlog() >= CONFIG.capacity as u64);
    }
    head[0].word.store(right, Ordering::Release);
    check_whole(&ring);
}

/// A host that calls a device dead while it works hands its blocks to others, whose answers the device then overwrites;
/// one that waits does not.
#[test]
fn a_block_reused_before_its_completion_is_caught() {
    for premature in [false, true] {
        let ring = ring();
        let mut device = attach(&ring);
        let _first = ask(&ring, 1);
        device.take(1);
        let slow = device.taken.pop().expect("one was taken");
        ring.fail_outstanding(Status::BackendFailed);
        if premature {
            ring.release_quarantine();
        }
        let Asked { ticket, sum } = ask(&ring, 2);
        device.take(1);
        device.work(1);
        ring.reap();
        let outcome = ticket.try_collect().expect("an answer");
        let answer: [u8; 16] = outcome.result().try_into().expect("sixteen bytes");
        assert_eq!(answer[..8], sum.to_le_bytes());
        device.work_on(&[slow]);
        let intact = outcome.result() == answer;
        assert_eq!(intact, !premature, "the slow job's result went into its own run: {intact}");
    }
}
