//! One thread of the torture.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use megaring_bench::any::Answer;
use megaring_core::operation::{Piece, Served, Serves};
use megaring_core::{Capabilities, Opcode};
use megaring_engine::Terms;
use megaring_engine::submit::{Announce, limits, submit};
use megaring_ring::{Descriptor, JobRing, Outcome, ReserveError, Status, Ticket};

use super::jobs::{Draw, Pool};

/// What a producer has seen.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answers that were as they must be.
    pub(super) checked: u64,
    /// Of them, refusals.
    pub(super) refused: u64,
    /// Tickets dropped before the answer.
    pub(super) abandoned: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.checked += other.checked;
        self.refused += other.refused;
        self.abandoned += other.abandoned;
    }
}

/// What an answer must be.
enum Expected {
    Nothing,
    Masks(Vec<u128>),
    Known(usize),
    Refusal(Status),
}

/// Sends jobs and checks answers.
pub(super) struct Producer<'a> {
    ring: &'a Arc<JobRing>,
    pool: &'a Pool,
    sent: &'a AtomicU64,
    draw: Draw,
    waiting: VecDeque<(Ticket, Expected)>,
    capabilities: Capabilities,
    tally: Tally,
}

/// Most jobs sent before the first answer is looked at.
const BURST: usize = 24;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// One job in this many is faulty; likewise, abandoned.
const RARE: usize = 64;

impl<'a> Producer<'a> {
    pub(super) fn new(ring: &'a Arc<JobRing>, pool: &'a Pool, sent: &'a AtomicU64, seed: u64, thread: u64) -> Self {
        let capabilities = Capabilities {
            device: String::new(),
            instruction_set: String::new(),
            driver: String::new(),
            lanes: 1,
            operations: Served::by(|_| Serves::By(())),
            max_queries: 1,
            max_item_bytes: usize::MAX,
            max_bytes: ring.max_job_bytes(),
            emulated: false,
        };
        let (draw, waiting, tally) = (Draw::new(seed, thread), VecDeque::new(), Tally::default());
        Self { ring, pool, sent, draw, waiting, capabilities, tally }
    }

    /// Sends `slots` jobs and waits for all answers; the first wrong one ends it.
    pub(super) fn run(&mut self, slots: u64) -> Result<Tally, String> {
        let mut left = slots;
        while left > 0 {
            let burst = left.min(1 + self.draw.below(BURST) as u64);
            for _ in 0..burst {
                self.send()?;
            }
            left -= burst;
            self.sent.fetch_add(burst, Ordering::Relaxed);
            let keep = self.draw.below(BURST);
            while self.waiting.len() > keep {
                self.settle()?;
            }
        }
        while !self.waiting.is_empty() {
            self.settle()?;
        }
        self.await_abandoned()?;
        Ok(std::mem::take(&mut self.tally))
    }

    fn send(&mut self) -> Result<(), String> {
        let (ticket, expected) = match self.draw.below(16) {
            0 | 1 => self.nop()?,
            2..=8 => self.texts()?,
            9 if self.draw.below(4) == 0 => self.faulty()?,
            _ => self.known()?,
        };
        if self.draw.below(RARE) == 0 {
            self.tally.abandoned += 1;
            drop(ticket);
        } else {
            self.waiting.push_back((ticket, expected));
        }
        Ok(())
    }

    fn nop(&mut self) -> Result<(Ticket, Expected), String> {
        let len = self.draw.below(700);
        let reservation = self.with_room(|producer| producer.ring.try_reserve(len, 0))?;
        let ticket = self.ring.submit(reservation, Descriptor { opcode: Opcode::Nop as u16, ..Descriptor::default() });
        Ok((ticket, Expected::Nothing))
    }

    fn texts(&mut self) -> Result<(Ticket, Expected), String> {
        let count = 1 + self.draw.below(5);
        let (mut offsets, mut bytes, mut masks) = (vec![0_u64], Vec::new(), Vec::new());
        for _ in 0..count {
            masks.push(self.pool.text(&mut self.draw, &mut bytes));
            offsets.push(bytes.len() as u64);
        }
        let head: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let len = head.len() + bytes.len();
        let mut reservation = self.with_room(|producer| producer.ring.try_reserve(len, count * 16))?;
        let payload = reservation.payload_mut();
        payload[..head.len()].copy_from_slice(&head);
        payload[head.len()..len].copy_from_slice(&bytes);
        let descriptor = Descriptor { opcode: Opcode::Encode as u16, items: count as u32, ..Descriptor::default() };
        Ok((self.ring.submit(reservation, descriptor), Expected::Masks(masks)))
    }

    fn known(&mut self) -> Result<(Ticket, Expected), String> {
        let index = self.draw.below(self.pool.len());
        let pool = self.pool;
        let job = &pool.known(index).job;
        let job = job.operation();
        let piece = job.pieces(&limits(&self.capabilities)).pop().ok_or("a job has no pieces")?;
        let ticket =
            self.with_room(|producer| submit(producer.ring, job, &piece, &Terms::default(), false, Announce::Now))?;
        Ok((ticket, Expected::Known(index)))
    }

    /// A slot that must be refused.
    fn faulty(&mut self) -> Result<(Ticket, Expected), String> {
        let nop = Descriptor { opcode: Opcode::Nop as u16, ..Descriptor::default() };
        let corpus = &self.pool.corpus;
        let search = Descriptor {
            opcode: Opcode::Search as u16,
            corpus: corpus.handle(),
            corpus_generation: corpus.generation() + 9,
            dim: corpus.dim() as u32,
            items: 1,
            k: 1,
            metric: 1,
            dtype: 1,
            ..Descriptor::default()
        };
        // One empty text: its two offsets are the payload.
        let text = Descriptor { opcode: Opcode::Encode as u16, items: 1, ..Descriptor::default() };
        let (descriptor, len, status) = match self.draw.below(3) {
            0 => (Descriptor { opcode: 77, ..nop }, 0, Status::UnknownOpcode),
            1 => (Descriptor { deadline_ns: 1, ..text }, 16, Status::DeadlineExceeded),
            _ => (search, corpus.dim() * 4, Status::StaleCorpus),
        };
        let mut reservation = self.with_room(|producer| producer.ring.try_reserve(len, len))?;
        reservation.payload_mut().fill(0);
        Ok((self.ring.submit(reservation, descriptor), Expected::Refusal(status)))
    }

    /// Tries until there is room, which the oldest answer makes.
    fn with_room<T>(&mut self, mut attempt: impl FnMut(&Self) -> Result<T, ReserveError>) -> Result<T, String> {
        let begun = Instant::now();
        loop {
            match attempt(self) {
                Ok(done) => return Ok(done),
                Err(ReserveError::RingFull | ReserveError::ArenaFull) if !self.waiting.is_empty() => self.settle()?,
                Err(ReserveError::RingFull | ReserveError::ArenaFull) if begun.elapsed() < PATIENCE => {
                    // Others hold the room, or nobody does who would look: their abandoned jobs.
                    self.ring.reap();
                    std::thread::yield_now();
                }
                Err(error) => return Err(format!("no room within {PATIENCE:?}: {error}")),
            }
        }
    }

    /// Waits for the oldest answer and checks it.
    fn settle(&mut self) -> Result<(), String> {
        let Some((ticket, expected)) = self.waiting.pop_front() else { return Ok(()) };
        let id = ticket.id();
        let outcome = ticket
            .wait_until(Instant::now() + PATIENCE)
            .map_err(|_| format!("ticket {id} was not answered within {PATIENCE:?}"))?;
        if outcome.completion.ticket != id {
            return Err(format!("ticket {id} was given the answer to {}", outcome.completion.ticket));
        }
        check(&outcome, &expected, self.pool).map_err(|difference| format!("ticket {id}: {difference}"))?;
        self.tally.checked += 1;
        self.tally.refused += u64::from(matches!(expected, Expected::Refusal(_)));
        Ok(())
    }

    /// Abandoned jobs are answered too, by and by.
    fn await_abandoned(&self) -> Result<(), String> {
        let begun = Instant::now();
        while self.ring.outstanding() > 0 {
            self.ring.reap();
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} tickets were left without an answer", self.ring.outstanding()));
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// What is wrong with an answer.
fn check(outcome: &Outcome, expected: &Expected, pool: &Pool) -> Result<(), String> {
    let status = outcome.status();
    let wanted = if let Expected::Refusal(status) = expected { *status } else { Status::Ok };
    if status != wanted {
        return Err(format!("it ended with {status}, not {wanted}"));
    }
    match expected {
        Expected::Refusal(_) => Ok(()),
        Expected::Nothing if outcome.result().is_empty() => Ok(()),
        Expected::Nothing => Err("an empty job has an answer".into()),
        Expected::Masks(masks) => {
            let (found, rest) = outcome.result().as_chunks::<16>();
            let found: Vec<u128> = found.iter().map(|mask| u128::from_le_bytes(*mask)).collect();
            let equal = found == *masks && rest.is_empty();
            if equal { Ok(()) } else { Err(format!("the masks {found:x?} are not {masks:x?}")) }
        }
        Expected::Known(index) => {
            let known = pool.known(*index);
            let result = outcome.result();
            let piece = Piece { items: 0..1, payload: 0, result: result.len() };
            let answer = known.job.finish(&piece, result, &pool.exact()).map_err(|error| error.to_string())?;
            if same(&answer, &known.answer) { Ok(()) } else { Err(format!("{answer:?} is not {:?}", known.answer)) }
        }
    }
}

/// Whether two answers are, but for how many rows were looked at.
fn same(got: &Answer, known: &Answer) -> bool {
    match (got, known) {
        (Answer::Search(a), Answer::Search(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.hits == b.hits),
        _ => got == known,
    }
}
