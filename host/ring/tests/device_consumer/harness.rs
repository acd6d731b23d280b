//! Producers, a device, its watcher and a reaper in threads: every payload arrives whole, every ticket is answered once
//! with its own answer, or the harness says what went wrong. Who waits, waits parked, so that a lost wake-up is a
//! ticket without an answer.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake},
    thread,
    time::{Duration, Instant},
};

use megaring_ring::{
    Descriptor, JobRing, Outcome, Reservation, ReserveError, Status, Ticket, WaitStrategy, fnv1a64, protocol::Protocol,
};

use crate::{
    device::{Bug, COMMAND_STOP, Device},
    dice::Dice,
};

/// How the device gets to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It runs until it is stopped.
    Persistent,
    /// A thread launches it up to the tail that it sees, and parks when nothing is untaken.
    PerBatch,
    /// The same with a bug: it parks until the tail is another one than *after* the launch, and so misses what came
    /// during it.
    PerBatchUnchecked,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) producers: u64,
    pub(crate) jobs_each: u64,
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) bug: Bug,
    /// How long a ticket may take.
    pub(crate) patience: Duration,
}

/// What went wrong first, and who had noticed what by then.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) host_faults: u64,
    pub(crate) device_faults: u64,
}

struct Run<'a, P: Protocol> {
    ring: &'a Arc<JobRing<P>>,
    plan: Plan,
    stop: AtomicBool,
    /// What went wrong, and the host's faults before that.
    first: Mutex<Option<(String, u64)>>,
}

/// Jobs that the device answered, if all went well.
pub(crate) fn run<P: Protocol>(ring: &Arc<JobRing<P>>, plan: Plan) -> Result<u64, Failure> {
    let run = Run { ring, plan, stop: AtomicBool::new(false), first: Mutex::new(None) };
    let (done, device_faults) = thread::scope(|scope| {
        let device = scope.spawn(|| run.device());
        scope.spawn(|| run.watch());
        scope.spawn(|| run.reap());
        let producers: Vec<_> = (0..plan.producers)
            .map(|number| {
                let run = &run;
                scope.spawn(move || run.produce(number).unwrap_or_else(|what| run.fail(what)))
            })
            .collect();
        producers.into_iter().for_each(|producer| producer.join().expect("a producer tells what it does not like"));
        run.stop.store(true, Ordering::Release);
        ring.lines().control[0].word.store(COMMAND_STOP, Ordering::Release);
        ring.close();
        ring.jobs_signal().notify_all();
        device.join().expect("a device ends in peace")
    });
    let (what, host_faults) = match run.first.into_inner().expect("no panic") {
        Some((what, faults)) => (what, faults),
        None if device_faults + ring.stats().faults > 0 => ("unnoticed faults".into(), ring.stats().faults),
        None => return Ok(done),
    };
    Err(Failure { what, host_faults, device_faults })
}

impl<P: Protocol> Run<'_, P> {
    fn fail(&self, what: String) {
        let mut first = self.first.lock().expect("no panic");
        if first.is_none() {
            *first = Some((what, self.ring.stats().faults));
            self.ring.fail_outstanding(Status::ShuttingDown);
        }
    }

    fn is_failed(&self) -> bool {
        self.first.lock().expect("no panic").is_some()
    }

    /// Tells how many jobs were done, and the faults that the device found.
    fn device(&self) -> (u64, u64) {
        let Plan { mode, seed, bug, .. } = self.plan;
        if mode == Mode::Persistent {
            let mut device = Device::attach(self.ring, seed, bug);
            device.run(None);
            return (device.done, device.faults);
        }
        let (mut done, mut faults, mut seen) = (0, 0, self.ring.tail());
        loop {
            let news = || match mode {
                Mode::PerBatchUnchecked => self.ring.tail() != seen,
                _ => self.ring.has_untaken(),
            };
            let ready = || news() || self.stop.load(Ordering::Acquire);
            self.ring.jobs_signal().wait_until(WaitStrategy::Park, None, ready);
            if self.stop.load(Ordering::Acquire) {
                return (done, faults);
            }
            let mut device = Device::attach(self.ring, seed ^ done, bug);
            device.run(Some(self.ring.tail()));
            seen = self.ring.tail();
            (done, faults) = (done + device.done, faults + device.faults);
        }
    }

    /// What stands in for a device's notifications, and keeps the host's heartbeat going.
    fn watch(&self) {
        let heart = &self.ring.lines().host_heartbeat[0].word;
        while self.ring.await_outstanding(WaitStrategy::Park, None) && !self.ring.is_closed() {
            heart.fetch_add(1, Ordering::Relaxed);
            if !self.ring.announce() {
                thread::yield_now();
            }
        }
    }

    fn reap(&self) {
        while !self.ring.is_closed() {
            self.ring.reap();
            self.ring.reaper_wait(None);
        }
    }

    fn produce(&self, number: u64) -> Result<(), String> {
        let mut dice = Dice(self.plan.seed ^ 0x9E37_79B9_7F4A_7C15 ^ (number + 1));
        let mut waiting: Vec<Asked<P>> = Vec::new();
        for job in 0..self.plan.jobs_each {
            if self.is_failed() {
                return Ok(());
            }
            let size = 8 + dice.roll(56) as usize;
            let mut reservation = loop {
                match self.ring.try_reserve(size, 16) {
                    Ok(reservation) => break reservation,
                    Err(ReserveError::RingFull | ReserveError::ArenaFull) if self.is_failed() => return Ok(()),
                    Err(ReserveError::RingFull | ReserveError::ArenaFull) => match waiting.pop() {
                        Some(asked) => self.settle(asked, number)?,
                        None => thread::yield_now(),
                    },
                    Err(other) => return Err(other.to_string()),
                }
            };
            let sum = fill(&mut reservation, &mut dice);
            dice.maybe_pause();
            let descriptor = Descriptor { opcode: number as u16, dim: job as u32, ..Descriptor::default() };
            waiting.push(Asked { ticket: self.ring.submit(reservation, descriptor), sum, job });
            if waiting.len() as u64 > dice.roll(40) {
                let which = dice.roll(waiting.len() as u64) as usize;
                self.settle(waiting.swap_remove(which), number)?;
            }
        }
        waiting.into_iter().try_for_each(|asked| self.settle(asked, number))
    }

    /// Waits for an answer and checks it. Half of the producers block and reap by themselves, the others await what the
    /// reaper delivers.
    fn settle(&self, asked: Asked<P>, number: u64) -> Result<(), String> {
        let Asked { ticket, sum, job } = asked;
        let (id, deadline) = (ticket.id(), Instant::now() + self.plan.patience);
        let outcome = match number % 2 {
            0 => ticket.wait_until(deadline).ok(),
            _ => await_until(ticket, deadline),
        };
        let outcome = outcome.ok_or_else(|| format!("ticket {id} got no answer"))?;
        if outcome.status() != Status::Ok {
            return Err(format!("ticket {id} was answered with: {}", outcome.status()));
        }
        let wanted: Vec<u8> = [sum, job].iter().flat_map(|word| word.to_le_bytes()).collect();
        let own = (outcome.completion.ticket, u64::from(outcome.completion.opcode)) == (id, number);
        if own && outcome.result() == wanted { Ok(()) } else { Err(format!("ticket {id} got a wrong answer")) }
    }
}

struct Asked<P: Protocol> {
    ticket: Ticket<P>,
    sum: u64,
    job: u64,
}

/// Fills a payload, its checksum in the first eight bytes, and tells that.
pub(crate) fn fill<P: Protocol>(reservation: &mut Reservation<P>, dice: &mut Dice) -> u64 {
    let payload = reservation.payload_mut();
    for word in payload[8..].chunks_mut(8) {
        word.copy_from_slice(&dice.roll(u64::MAX).to_le_bytes()[..word.len()]);
    }
    let sum = fnv1a64(&payload[8..]);
    payload[..8].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// The smallest executor with a clock: polls, and parks the thread until woken or late.
fn await_until<P: Protocol>(mut ticket: Ticket<P>, deadline: Instant) -> Option<Outcome<P>> {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(outcome) = Pin::new(&mut ticket).poll(&mut context) {
            return Some(outcome);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        thread::park_timeout(left);
    }
}
