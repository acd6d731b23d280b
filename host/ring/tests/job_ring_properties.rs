//! The job ring against a model, under random orders of everything that its host and its consumer may do, from
//! positions that wrap.
#![cfg(not(loom))]

use std::{collections::HashMap, sync::Arc};

use megaring_ring::{
    Body, Completion, Descriptor, JobRing, Memory, Outcome, PolledJob, Region, Reservation, ReserveError, RingConfig,
    RingLayout, SlotFault, Status, Ticket, WaitStrategy, Work,
    memory::{Line, View},
    sync::Ordering,
};
use proptest::prelude::*;

const CONFIG: RingConfig =
    RingConfig { capacity: 4, arena_bytes: 24 * 128, block_bytes: 128, wait: WaitStrategy::Park };

fn ring_at(start: u64) -> Arc<JobRing> {
    let memory = Memory::heap(RingLayout::of(&CONFIG).expect("a layout").len).expect("memory");
    JobRing::with_memory(CONFIG, memory, start).expect("a ring")
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(usize, usize),
    DropReservation(prop::sample::Index),
    Submit(prop::sample::Index),
    Poll(usize),
    Open(prop::sample::Index),
    Complete(prop::sample::Index),
    Finish(prop::sample::Index),
    DropWork(prop::sample::Index),
    CompleteAgain(prop::sample::Index),
    CompleteUnknown(u64),
    Reap,
    DropTicket(prop::sample::Index),
    Collect(prop::sample::Index),
    DropOutcome(prop::sample::Index),
    Fail,
    ReleaseQuarantine,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0usize..600, 0usize..300).prop_map(|(payload, result)| Step::Reserve(payload, result)),
        1 => index().prop_map(Step::DropReservation),
        8 => index().prop_map(Step::Submit),
        8 => (1usize..4).prop_map(Step::Poll),
        4 => index().prop_map(Step::Open),
        4 => index().prop_map(Step::Complete),
        4 => index().prop_map(Step::Finish),
        1 => index().prop_map(Step::DropWork),
        1 => index().prop_map(Step::CompleteAgain),
        1 => any::<u64>().prop_map(Step::CompleteUnknown),
        6 => Just(Step::Reap),
        2 => index().prop_map(Step::DropTicket),
        6 => index().prop_map(Step::Collect),
        4 => index().prop_map(Step::DropOutcome),
        1 => Just(Step::Fail),
        1 => Just(Step::ReleaseQuarantine),
    ]
}

/// Everything that someone outside the ring holds, and how often each ticket was answered.
struct Model {
    ring: Arc<JobRing>,
    lines: [View<Line>; 4],
    reservations: Vec<Reservation>,
    tickets: Vec<Ticket>,
    polled: Vec<PolledJob>,
    open: Vec<Work>,
    completed: Vec<u64>,
    outcomes: Vec<Outcome>,
    /// Answers collected, by ticket.
    answers: HashMap<u64, usize>,
    submitted: usize,
    dropped: usize,
    refused: u64,
}

impl Model {
    fn new(start: u64) -> Self {
        let ring = ring_at(start);
        let layout = ring.layout();
        let (jobs, answers) = (layout.submissions, layout.completions);
        let lines = [jobs.head, jobs.tail, answers.head, answers.tail]
            .map(|at| ring.memory().view(at, 1).expect("a line of the ring's"));
        Self {
            ring,
            lines,
            reservations: Vec::new(),
            tickets: Vec::new(),
            polled: Vec::new(),
            open: Vec::new(),
            completed: Vec::new(),
            outcomes: Vec::new(),
            answers: HashMap::new(),
            submitted: 0,
            dropped: 0,
            refused: 0,
        }
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Reserve(payload, result) => self.reserve(payload, result)?,
            Step::DropReservation(which) => drop(pick(&mut self.reservations, which)),
            Step::Submit(which) => self.submit(which),
            Step::Poll(max) => {
                let polled = &mut self.polled;
                self.ring.try_poll(max, &mut |job| polled.push(job));
            }
            Step::Open(which) => {
                if let Some(job) = pick(&mut self.polled, which) {
                    match self.ring.open(&job) {
                        Ok(work) => self.open.push(work),
                        Err(_) => self.complete(job.ticket, Status::BadDescriptor),
                    }
                }
            }
            Step::Complete(which) => {
                if let Some(job) = pick(&mut self.polled, which) {
                    self.complete(job.ticket, Status::Ok);
                }
            }
            Step::Finish(which) => {
                if let Some(mut work) = pick(&mut self.open, which) {
                    let fill = work.payload().first().copied().unwrap_or(0);
                    work.result_mut().fill(fill);
                    let body = work.result_body(work.descriptor().result.len as usize).expect("the whole region");
                    self.completed.push(work.ticket());
                    work.complete(Status::Ok, 1, body);
                }
            }
            Step::DropWork(which) => drop(pick(&mut self.open, which)),
            Step::CompleteAgain(which) => {
                if !self.completed.is_empty() {
                    let ticket = self.completed[which.index(self.completed.len())];
                    prop_assert!(!self.ring.complete(ticket, 0, Status::Ok, 0, Body::Empty), "completed twice");
                }
            }
            Step::CompleteUnknown(far) => {
                let ticket = self.lines[1][0].word.load(Ordering::Relaxed).wrapping_add(1 + far % (1 << 40));
                prop_assert!(!self.ring.complete(ticket, 0, Status::Ok, 0, Body::Empty), "completed out of thin air");
            }
            Step::Reap => drop(self.ring.reap()),
            Step::DropTicket(which) => {
                if let Some(ticket) = pick(&mut self.tickets, which) {
                    self.dropped += 1;
                    drop(ticket);
                }
            }
            Step::Collect(which) => {
                if let Some(ticket) = pick(&mut self.tickets, which) {
                    self.collect(ticket)?;
                }
            }
            Step::DropOutcome(which) => drop(pick(&mut self.outcomes, which)),
            Step::Fail => drop(self.ring.fail_outstanding(Status::BackendFailed)),
            Step::ReleaseQuarantine => drop(self.ring.release_quarantine()),
        }
        self.check()
    }

    fn reserve(&mut self, payload: usize, result: usize) -> Result<(), TestCaseError> {
        match self.ring.try_reserve(payload, result) {
            Ok(mut reservation) => {
                prop_assert_eq!((reservation.payload_mut().len(), reservation.result_len()), (payload, result));
                // Every payload is of one byte, told by who holds it: an overlap would show.
                reservation.payload_mut().fill(0xA0 | (self.submitted as u8 & 0xF));
                self.reservations.push(reservation);
            }
            Err(ReserveError::RingFull) => self.refused += 1,
            Err(ReserveError::ArenaFull) => (),
            Err(other) => prop_assert!(false, "{}", other),
        }
        Ok(())
    }

    fn submit(&mut self, which: prop::sample::Index) {
        if let Some(mut reservation) = pick(&mut self.reservations, which) {
            let fill = reservation.payload_mut().first().copied().unwrap_or(0);
            self.submitted += 1;
            let descriptor = Descriptor { tenant: u64::from(fill), ..Descriptor::default() };
            self.tickets.push(self.ring.submit(reservation, descriptor));
        }
    }

    fn complete(&mut self, ticket: u64, status: Status) {
        if self.ring.complete(ticket, 0, status, 0, Body::Empty) {
            self.completed.push(ticket);
        }
    }

    fn collect(&mut self, ticket: Ticket) -> Result<(), TestCaseError> {
        match ticket.try_collect() {
            Ok(outcome) => {
                *self.answers.entry(outcome.completion.ticket).or_default() += 1;
                self.outcomes.push(outcome);
            }
            Err(ticket) => self.tickets.push(ticket),
        }
        Ok(())
    }

    /// What holds between any two steps.
    fn check(&self) -> Result<(), TestCaseError> {
        let [job_head, job_tail, answer_head, answer_tail] =
            self.lines.each_ref().map(|line| line[0].word.load(Ordering::Relaxed));
        prop_assert!(job_tail.wrapping_sub(job_head) <= CONFIG.capacity as u64, "submissions overflow");
        prop_assert!(answer_tail.wrapping_sub(answer_head) <= 2 * CONFIG.capacity as u64, "completions overflow");
        for work in &self.open {
            let fill = work.descriptor().tenant as u8;
            prop_assert!(work.payload().iter().all(|byte| *byte == fill), "a payload was overwritten");
        }
        for outcome in &self.outcomes {
            prop_assert!(outcome.result().windows(2).all(|pair| pair[0] == pair[1]), "a result was overwritten");
        }
        prop_assert!(self.answers.values().all(|count| *count == 1), "a ticket was answered twice");
        prop_assert_eq!(self.ring.stats().ring_full, self.refused);
        Ok(())
    }

    /// Lets everything run out: then every ticket is answered and the ring is as new.
    fn settle(mut self) -> Result<(), TestCaseError> {
        self.reservations.clear();
        self.open.clear();
        let polled = &mut self.polled;
        while self.ring.try_poll(16, &mut |job| polled.push(job)) > 0 {}
        for job in std::mem::take(&mut self.polled) {
            self.complete(job.ticket, Status::Ok);
        }
        self.ring.reap();
        prop_assert_eq!(self.ring.outstanding(), 0);
        for ticket in std::mem::take(&mut self.tickets) {
            self.collect(ticket)?;
        }
        prop_assert!(self.tickets.is_empty(), "a ticket was never answered");
        prop_assert_eq!(self.answers.len() + self.dropped, self.submitted);
        self.ring.release_quarantine();
        self.outcomes.clear();
        let stats = self.ring.stats();
        prop_assert_eq!((stats.submitted, stats.completed), (self.submitted as u64, self.submitted as u64));
        prop_assert_eq!((stats.outstanding, stats.quarantined, stats.arena_leased), (0, 0, 0));
        let all: Vec<_> = (0..CONFIG.capacity).map(|_| self.ring.try_reserve(1, 1)).collect();
        prop_assert!(all.iter().all(Result::is_ok), "a credit was lost");
        prop_assert_eq!(self.ring.try_reserve(1, 1).err(), Some(ReserveError::RingFull));
        Ok(())
    }
}

fn pick<T>(from: &mut Vec<T>, which: prop::sample::Index) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(which.index(from.len())))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_ticket_is_answered_once(back in 0u64..40, steps in prop::collection::vec(step(), 1..300)) {
        let mut model = Model::new(0u64.wrapping_sub(back));
        for step in steps {
            model.apply(step)?;
        }
        model.settle()?;
    }

    /// A torn, overwritten or foreign submission slot is counted, and answered by what `open` makes of it.
    #[test]
    fn a_damaged_submission_is_answered_with_an_error(start in any::<u64>(), at in 0usize..128, bits in 1u8..) {
        let ring = ring_at(start);
        let mut reservation = ring.try_reserve(100, 100).expect("an empty ring");
        reservation.payload_mut().fill(7);
        let ticket = ring.submit(reservation, Descriptor { dim: 3, ..Descriptor::default() });
        damage(&ring, ring.layout().submissions.slots, start, CONFIG.capacity, at, bits);
        let mut polled = Vec::new();
        prop_assert_eq!(ring.try_poll(1, &mut |job| polled.push(job)), 1);
        let job = polled[0];
        prop_assert_eq!(job.ticket, ticket.id());
        // Bits that only the service gives a meaning may differ; regions and both sequences may not.
        let vital = matches!(at, 0..8 | 12..16 | 40..48 | 56..76 | 96..112 | 120..128);
        match ring.open(&job) {
            Ok(work) => {
                prop_assert!(!vital, "damage at byte {} went unseen", at);
                prop_assert!(work.payload().iter().all(|byte| *byte == 7));
                work.complete(Status::Ok, 0, Body::Empty);
            }
            Err(_) => {
                prop_assert!(vital);
                prop_assert!(ring.stats().faults >= 1);
                prop_assert!(ring.complete(job.ticket, 0, Status::BadDescriptor, 0, Body::Empty));
            }
        }
        let status = ticket.wait().status();
        prop_assert_eq!(status, if vital { Status::BadDescriptor } else { Status::Ok });
        prop_assert_eq!(ring.stats().arena_leased, 0);
    }

    /// The second sequence of a completion is wrong: the owner gets an error, the run stays out of use until the
    /// consumer is known dead.
    #[test]
    fn a_torn_completion_is_answered_with_an_error(start in any::<u64>(), at in 120usize..128, bits in 1u8..) {
        let ring = ring_at(start);
        let ticket = ring.submit(ring.try_reserve(64, 64).expect("an empty ring"), Descriptor::default());
        ring.try_poll(1, &mut |job| {
            let work = ring.open(&job).expect("a whole slot");
            let body = work.result_body(64).expect("64 bytes");
            work.complete(Status::Ok, 0, body);
        });
        damage(&ring, ring.layout().completions.slots, start, 2 * CONFIG.capacity, at, bits);
        let outcome = ticket.wait();
        prop_assert_eq!(outcome.status(), Status::BackendFailed);
        prop_assert!(outcome.result().is_empty());
        drop(outcome);
        let stats = ring.stats();
        prop_assert_eq!((stats.faults, stats.quarantined), (1, 1));
        prop_assert!(stats.arena_leased > 0);
        prop_assert_eq!(ring.release_quarantine(), 1);
        prop_assert_eq!((ring.stats().arena_leased, ring.stats().quarantined), (0, 0));
    }

    #[test]
    fn a_slot_carries_what_it_was_given(job in descriptor(), answer in completion(), sequence in any::<u64>()) {
        prop_assert_eq!(Descriptor::from_slot(&job.to_slot(sequence)), Ok(job));
        prop_assert_eq!(Completion::from_slot(&answer.to_slot(sequence)), Ok(answer));
    }
}

/// Flips bits of the slot at `position`, as a broken device might.
fn damage(ring: &Arc<JobRing>, slots: usize, position: u64, capacity: usize, at: usize, bits: u8) {
    let offset = slots + (position as usize & (capacity - 1)) * 128 + at;
    assert!(offset < ring.layout().arena);
    // SAFETY: the byte lies within the ring's memory, and no other thread of the test uses the ring.
    unsafe {
        let byte = ring.memory().base().byte_add(offset);
        byte.write(byte.read() ^ bits);
    }
}

fn region() -> impl Strategy<Value = Region> {
    any::<(u64, u64)>().prop_map(|(offset, len)| Region { offset, len })
}

prop_compose! {
    fn descriptor()(
        (opcode, tenant, timestamp_ns, corpus, corpus_generation) in any::<(u16, u64, u64, u32, u32)>(),
        threshold in prop_oneof![-2.0..2.0, Just(f64::NEG_INFINITY)],
        (payload, result) in (region(), region()),
        (arena_generation, items, k, metric, dtype) in any::<(u32, u32, u32, u8, u8)>(),
        (flags, deadline_ns, dim) in any::<(u16, u64, u32)>(),
    ) -> Descriptor {
        Descriptor {
            opcode, tenant, timestamp_ns, threshold, corpus, corpus_generation, payload, result, arena_generation, items, k, metric, dtype,
            flags, deadline_ns, dim,
        }
    }
}

prop_compose! {
    fn completion()(
        (ticket, opcode, status, timestamp_ns) in any::<(u64, u16, u16, u64)>(),
        device_ns in 0u64..1 << 48,
        is_empty in any::<bool>(),
        region in region(),
    ) -> Completion {
        let body = if is_empty { Body::Empty } else { Body::Arena(region) };
        Completion { ticket, opcode, status: Status::from_code(status), device_ns, timestamp_ns, body }
    }
}

/// A consumer that does nothing: the ring fills up, refuses, and loses nothing when the consumer comes back.
#[test]
fn a_stalled_consumer_only_makes_the_ring_full() {
    let ring = ring_at(u64::MAX - 2);
    let mut tickets: Vec<Ticket> = Vec::new();
    let refused = loop {
        match ring.try_reserve(8, 8) {
            Ok(reservation) => tickets.push(ring.submit(reservation, Descriptor::default())),
            Err(refused) => break refused,
        }
    };
    assert_eq!((tickets.len(), refused), (CONFIG.capacity, ReserveError::RingFull));
    // Taken but not completed: twice the capacity is the credit.
    let mut polled = Vec::new();
    ring.try_poll(usize::MAX, &mut |job| polled.push(job));
    while let Ok(reservation) = ring.try_reserve(8, 8) {
        tickets.push(ring.submit(reservation, Descriptor::default()));
    }
    assert_eq!(tickets.len(), 2 * CONFIG.capacity);
    ring.try_poll(usize::MAX, &mut |job| polled.push(job));
    assert_eq!(ring.try_reserve(8, 8).err(), Some(ReserveError::RingFull), "no credit, though every slot is free");
    let ids: Vec<u64> = tickets.iter().map(Ticket::id).collect();
    assert_eq!(polled.iter().map(|job| job.ticket).collect::<Vec<_>>(), ids);
    for job in &polled {
        assert!(ring.complete(job.ticket, 0, Status::Ok, 0, Body::Empty));
    }
    assert!(tickets.into_iter().all(|ticket| ticket.wait().status().is_ok()));
    assert_eq!(ring.stats().faults, 0);
}

#[test]
fn what_can_never_fit_is_told_apart_from_what_does_not_fit_now() {
    let ring = ring_at(0);
    let limit = ring.max_job_bytes();
    let too_large = |needed| Some(ReserveError::TooLarge { needed, limit });
    assert_eq!(ring.try_reserve(limit + 1, 0).err(), too_large(limit + 128));
    assert_eq!(ring.try_reserve(1, limit - 127).err(), too_large(limit + 1));
    assert_eq!(ring.try_reserve(usize::MAX, usize::MAX).err(), too_large(usize::MAX));
    let all = ring.try_reserve(limit, 0).expect("the whole arena");
    assert_eq!(ring.try_reserve(1, 0).err(), Some(ReserveError::ArenaFull));
    drop(all);
    let last = ring.try_reserve(1, limit - 128).expect("the whole arena again");
    ring.close();
    assert_eq!(ring.try_reserve(1, 0).err(), Some(ReserveError::Closed));
    drop(last);
    assert_eq!(ring.stats().arena_leased, 0);
}

/// A job left in the queue by a dead consumer reaches the next one as stale, and frees the last of its ticket.
#[test]
fn the_next_consumer_answers_a_dead_ones_jobs_as_stale() {
    let ring = ring_at(0);
    let ticket = ring.submit(ring.try_reserve(8, 8).expect("an empty ring"), Descriptor::default());
    assert_eq!(ring.fail_outstanding(Status::BackendFailed), 1);
    assert_eq!(ticket.wait().status(), Status::BackendFailed);
    assert_eq!((ring.release_quarantine(), ring.stats().quarantined), (1, 1));
    ring.try_poll(1, &mut |job| {
        assert!(matches!(ring.open(&job), Err(SlotFault::Generation { .. })));
        assert!(ring.complete(job.ticket, 0, Status::BadDescriptor, 0, Body::Empty));
    });
    ring.reap();
    assert_eq!((ring.stats().quarantined, ring.stats().completed), (0, 1));
}

/// A worker that panics between polling and completing loses no ticket, whether it had opened its job or not.
#[test]
fn a_panicking_worker_loses_no_ticket() {
    for open in [false, true] {
        let ring = ring_at(0);
        let tickets: Vec<Ticket> = (0..3)
            .map(|_| ring.submit(ring.try_reserve(8, 8).expect("there is room"), Descriptor::default()))
            .collect();
        let worker = {
            let ring = ring.clone();
            std::thread::spawn(move || {
                ring.try_poll(3, &mut |job| {
                    let _work = open.then(|| ring.open(&job));
                    panic!("seeded");
                });
            })
        };
        assert!(worker.join().is_err());
        assert!(tickets.into_iter().all(|ticket| ticket.wait().status() == Status::BackendFailed));
        assert_eq!((ring.stats().faults, ring.stats().arena_leased), (0, 0));
    }
}

/// A tail that no pusher can have stored is a fault, not a read.
#[test]
fn an_impossible_tail_is_a_fault() {
    let ring = ring_at(0);
    let tail: View<Line> = ring.memory().view(ring.layout().submissions.tail, 1).expect("the tail's line");
    tail[0].word.store(5, Ordering::Relaxed);
    assert_eq!(ring.try_poll(8, &mut |_| panic!("nothing was pushed")), 0);
    assert_eq!(ring.stats().faults, 1);
}
