//! What the host offers to a consumer that is a device: the lines, the run words, waiting on its behalf, and telling
//! when it is done with what jobs name.
#![cfg(not(loom))]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use megaring_ring::{
    Body, Descriptor, JobRing, Memory, RingConfig, RingLayout, Status, Ticket, WaitStrategy,
    memory::{LINE_WORDS, View},
    sync::{AtomicU64, Ordering},
};

const CONFIG: RingConfig =
    RingConfig { capacity: 4, arena_bytes: 16 * 256, block_bytes: 256, wait: WaitStrategy::Park };

fn ring_at(start: u64) -> Arc<JobRing> {
    let memory = Memory::heap(RingLayout::of(&CONFIG).expect("a layout").len).expect("memory");
    JobRing::with_memory(CONFIG, memory, start).expect("a ring")
}

fn submit(ring: &Arc<JobRing>) -> Ticket {
    ring.submit(ring.try_reserve(300, 10).expect("there is room"), Descriptor::default())
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(20))
}

/// All sixteen words of each line lie where the layout says, and a new ring in old memory clears them.
#[test]
fn the_lines_have_sixteen_words_in_shared_memory() {
    let layout = RingLayout::of(&CONFIG).expect("a layout");
    let memory = Memory::heap(layout.len).expect("memory");
    let ring = JobRing::with_memory(CONFIG, memory.clone(), 0).expect("a ring");
    let lines = ring.lines();
    let all = [
        (&lines.host_heartbeat, layout.host_heartbeat),
        (&lines.device_heartbeat, layout.device_heartbeat),
        (&lines.control, layout.control),
        (&lines.report, layout.report),
    ];
    for (line, at) in all {
        assert_eq!(line.len(), 1);
        line[0].word.store(at as u64, Ordering::Relaxed);
        line[0].more.iter().enumerate().for_each(|(more, word)| word.store((at + 1 + more) as u64, Ordering::Relaxed));
    }
    for (_, at) in all {
        let words: View<AtomicU64> = memory.view(at, LINE_WORDS).expect("a line");
        let read: Vec<u64> = words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!(read, (at as u64..at as u64 + 16).collect::<Vec<_>>());
    }
    drop(ring);
    let ring = JobRing::with_memory(CONFIG, memory, 0).expect("a ring");
    let report = &ring.lines().report[0];
    assert!([&report.word, &report.more[0], &report.more[14]].iter().all(|word| word.load(Ordering::Relaxed) == 0));
}

/// The run words tell a device what `Arena::resolve` tells the host, and a ring that follows another one in the same
/// memory goes on with the generations.
#[test]
fn the_runs_are_told_in_shared_memory() {
    let layout = RingLayout::of(&CONFIG).expect("a layout");
    let memory = Memory::heap(layout.len).expect("memory");
    let runs: View<AtomicU64> = memory.view(layout.runs, 16).expect("sixteen blocks");
    let words = || runs.iter().map(|run| run.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let ring = JobRing::with_memory(CONFIG, memory.clone(), 0).expect("a ring");
    assert_eq!(words(), [0; 16]);
    let first = ring.try_reserve(300, 10).expect("there is room");
    let second = ring.try_reserve(1, 0).expect("there is room");
    assert_eq!(words()[..3], [1 << 32 | 2, 0, 1 << 32 | 1]);
    drop(first);
    assert_eq!(words()[..3], [1 << 32, 0, 1 << 32 | 1]);
    let again = ring.try_reserve(200, 0).expect("there is room");
    assert_eq!(words()[..3], [2 << 32 | 1, 0, 1 << 32 | 1]);
    drop((again, second, ring));
    // Whatever the words said, nothing is leased in a new ring.
    runs[1].store(7 << 32 | 9, Ordering::Relaxed);
    let ring = JobRing::with_memory(CONFIG, memory.clone(), 9).expect("a ring");
    assert_eq!(words()[..3], [2 << 32, 7 << 32, 1 << 32]);
    let _lease = ring.try_reserve(1, 0).expect("there is room");
    assert_eq!(words()[0], 3 << 32 | 1);
}

/// A result that does not begin on a line of its own is refused: two jobs' results would share what a device writes at
/// once.
#[test]
fn a_result_off_its_line_is_refused() {
    let ring = ring_at(0);
    let _ticket = submit(&ring);
    ring.try_poll(1, &mut |job| {
        let right = job.descriptor.expect("a whole slot");
        assert!(ring.arena().resolve(&right).is_ok());
        for step in [1, 8, 64] {
            let mut off = right;
            off.result.offset += step;
            assert!(ring.arena().resolve(&off).is_err(), "{step} bytes off");
        }
        ring.complete(job.ticket, 0, Status::Ok, 0, Body::Empty);
    });
}

/// Positions are told from the lines, past the end of the u64 too.
#[test]
fn the_backlog_is_told_from_the_lines() {
    let ring = ring_at(u64::MAX - 1);
    assert_eq!((ring.head(), ring.tail(), ring.backlog(), ring.has_untaken()), (u64::MAX - 1, u64::MAX - 1, 0, false));
    let _tickets = [submit(&ring), submit(&ring), submit(&ring)];
    assert_eq!((ring.head(), ring.tail(), ring.backlog(), ring.has_untaken()), (u64::MAX - 1, 1, 3, true));
    let head: View<megaring_ring::memory::Line> =
        ring.memory().view(ring.layout().submissions.head, 1).expect("a line");
    head[0].word.store(0, Ordering::Release);
    assert_eq!((ring.head(), ring.backlog()), (0, 1));
    assert!(ring.has_jobs(), "which only a consumer of this process moves");
    head[0].word.store(1, Ordering::Release);
    assert!(!ring.has_untaken());
    // A device that has taken a slot before the tail tells of it, and one that takes what nobody has pushed.
    let tail: View<megaring_ring::memory::Line> =
        ring.memory().view(ring.layout().submissions.tail, 1).expect("a line");
    tail[0].word.store(0, Ordering::Release);
    assert_eq!((ring.backlog(), ring.has_untaken()), (0, false));
    head[0].word.store(2, Ordering::Release);
    assert!(ring.backlog() > ring.capacity() as u64);
}

#[test]
fn a_watcher_parks_until_a_ticket_is_outstanding() {
    let ring = ring_at(0);
    assert!(!ring.await_outstanding(WaitStrategy::Park, Some(Instant::now())));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| ring.await_outstanding(WaitStrategy::Park, soon()));
        let worker = scope.spawn(|| ring.jobs_signal().wait_until(WaitStrategy::Park, soon(), || ring.has_untaken()));
        let ticket = submit(&ring);
        assert!(watcher.join().expect("no panic"), "one submission wakes a watcher");
        assert!(worker.join().expect("no panic"), "and a worker");
        ring.try_poll(1, &mut |job| drop(ring.open(&job)));
        assert_eq!(ticket.wait().status(), Status::BackendFailed);
        assert!(!ring.await_outstanding(WaitStrategy::Park, Some(Instant::now())));
        let watcher = scope.spawn(|| ring.await_outstanding(WaitStrategy::Park, soon()));
        ring.close();
        assert!(watcher.join().expect("no panic"), "closing wakes it for good");
    });
}

#[test]
fn jobs_are_settled_by_their_completions_alone() {
    let ring = ring_at(u64::MAX - 2);
    assert_eq!(ring.submitted_through(), u64::MAX - 2);
    assert!(ring.is_settled(ring.submitted_through()), "nothing was ever submitted");
    let tickets: Vec<Ticket> = (0..4).map(|_| submit(&ring)).collect();
    let ids: Vec<u64> = tickets.iter().map(Ticket::id).collect();
    assert_eq!(ids, [u64::MAX - 1, u64::MAX, 0, 1]);
    assert_eq!(ring.submitted_through(), 1);
    assert!(ring.is_settled(u64::MAX - 2), "nobody is to be waited for");
    assert!(!ring.is_settled(2), "a ticket that is still to come");
    let mut polled = Vec::new();
    ring.try_poll(4, &mut |job| polled.push(job.ticket));
    let complete = |ticket: u64| {
        assert!(ring.complete(ticket, 0, Status::Ok, 0, Body::Empty));
        ring.reap();
    };
    complete(polled[1]);
    assert!(!ring.is_settled(u64::MAX - 1) && !ring.is_settled(u64::MAX));
    complete(polled[0]);
    assert!(ring.is_settled(u64::MAX) && !ring.is_settled(0), "an answer that waits for its owner is settled");
    // The host answers for the consumer, which may work on nevertheless.
    ring.fail_outstanding(Status::BackendFailed);
    assert!(ring.is_settled(u64::MAX) && !ring.is_settled(0) && !ring.is_settled(1));
    assert_eq!(ring.release_quarantine(), 2);
    assert!(ring.is_settled(1));
    drop(tickets);
    assert_eq!(ring.stats().arena_leased, 0);
}

/// Taken or not: what is released from a dead consumer is settled, since the run words say that it is stale.
#[test]
fn a_job_that_nobody_took_is_settled_once_released() {
    let ring = ring_at(0);
    let ticket = submit(&ring);
    ring.fail_outstanding(Status::BackendFailed);
    assert!(!ring.is_settled(ticket.id()));
    ring.release_quarantine();
    assert!(ring.is_settled(ticket.id()) && ring.has_untaken());
}
