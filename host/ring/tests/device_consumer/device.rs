//! A consumer such as a GPU is one, in plain code over the ring's bytes: it knows the layout's offsets and the slots'
//! check, and nothing else of the host's code. It sees and writes slots in pieces of 16 bytes, in random order, takes
//! one before the tail tells of it where it can, does its jobs in random order, and can be told to get one step wrong.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering, fence},
    thread,
};

use megaring_ring::{JobRing, Memory, RingLayout, Slot, protocol::Protocol, slot_check};

use crate::dice::Dice;

/// A slot as a device reads it.
pub(crate) type Words = [u64; 16];

/// A seeded bug of the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// The completions' tail is stored before their slots.
    TailBeforeSlot,
    /// The completion is sent before the job is worked on.
    CompletionBeforeWork,
    /// The head is reported before the slots are copied.
    HeadBeforeCopy,
}

/// Codes of a completion's status and body, and of what a device ends with.
pub(crate) const OK: u64 = 0;
pub(crate) const BAD_DESCRIPTOR: u64 = 3;
const ABI_VERSION: u64 = 1;
const ARENA_BODY: u64 = 1;
pub(crate) const COMMAND_STOP: u64 = 1;
pub(crate) const STATE_RUNNING: u64 = 1;
pub(crate) const STATE_ENDED: u64 = 2;

/// Why a device ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    LimitReached = 0,
    Stopped = 1,
    BadTail = 4,
}

/// A job that the device has taken and not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) ticket: u64,
    /// What the slot said, if it and its regions were found right.
    job: Option<Job>,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    opcode: u64,
    payload: (u64, u64),
    result: (u64, u64),
    number: u64,
}

pub(crate) struct Device {
    memory: Memory,
    layout: RingLayout,
    block_bytes: u64,
    blocks: u64,
    dice: Dice,
    bug: Bug,
    /// Its own copies of what it alone writes.
    head: u64,
    tail: u64,
    beats: u64,
    pub(crate) taken: Vec<Taken>,
    /// Jobs that it took before the tail told of them.
    pub(crate) early: u64,
    /// Slots and payloads that it found wrong.
    pub(crate) faults: u64,
    pub(crate) done: u64,
}

impl Device {
    /// A device that goes on where the lines say.
    pub(crate) fn attach<P: Protocol>(ring: &JobRing<P>, seed: u64, bug: Bug) -> Self {
        let mut device = Self {
            memory: ring.memory().clone(),
            layout: *ring.layout(),
            block_bytes: ring.arena().block_bytes() as u64,
            blocks: (ring.arena().len() / ring.arena().block_bytes()) as u64,
            dice: Dice(seed | 1),
            bug,
            head: 0,
            tail: 0,
            beats: 0,
            taken: Vec::new(),
            early: 0,
            faults: 0,
            done: 0,
        };
        device.head = device.word(device.layout.submissions.head).load(Ordering::Relaxed);
        device.tail = device.word(device.layout.completions.tail).load(Ordering::Relaxed);
        device.word(device.layout.report).store(STATE_RUNNING, Ordering::Release);
        device
    }

    /// Takes and works until the control line says stop or the position `limit` is reached, then answers what it has
    /// taken, and reports.
    pub(crate) fn run(&mut self, limit: Option<u64>) -> End {
        let end = loop {
            self.beat();
            if self.word(self.layout.control).load(Ordering::Relaxed) == COMMAND_STOP {
                break End::Stopped;
            }
            if limit == Some(self.head) {
                break End::LimitReached;
            }
            let left = limit.map_or(u64::MAX, |limit| limit.wrapping_sub(self.head));
            let most = 1 + self.dice.roll(24);
            let Some(taken) = self.take(most.min(left)) else {
                break End::BadTail;
            };
            let some = self.dice.roll(12) as usize;
            if self.work(some) == 0 && taken == 0 {
                thread::yield_now();
            }
        };
        while self.work(8) > 0 {}
        self.word(self.layout.report + 8).store(end as u64, Ordering::Relaxed);
        self.word(self.layout.report + 16).store(self.head, Ordering::Relaxed);
        self.word(self.layout.report).store(STATE_ENDED, Ordering::Release);
        end
    }

    pub(crate) fn beat(&mut self) {
        self.beats += 1;
        self.word(self.layout.device_heartbeat).store(self.beats, Ordering::Relaxed);
    }

    /// Takes at most `most` jobs, as one burst; `None` if the tail is not one that the host can have stored.
    pub(crate) fn take(&mut self, most: u64) -> Option<usize> {
        let queue = self.layout.submissions;
        let (tail, capacity) = (self.word(queue.tail).load(Ordering::Relaxed), queue.capacity as u64);
        let waiting = match tail.wrapping_sub(self.head) {
            waiting if waiting <= capacity => waiting,
            // It may be behind slots that were taken early.
            _ if self.head.wrapping_sub(tail) <= capacity => 0,
            _ => return None,
        };
        let count = waiting.min(most) as usize;
        let (next, slots) = if count > 0 {
            fence(Ordering::Acquire);
            let next = self.head.wrapping_add(count as u64);
            if self.bug == Bug::HeadBeforeCopy {
                self.word(queue.head).store(next, Ordering::Release);
                thread::yield_now();
            }
            (next, self.copy(count))
        } else {
            let slots = self.copy(1);
            let next = self.head.wrapping_add(1);
            if most == 0 || !Self::is_whole(&slots[0], next) {
                return Some(0);
            }
            // Pairs with the release of the first sequence, for what the slot names.
            fence(Ordering::Acquire);
            self.early += 1;
            (next, slots)
        };
        let count = slots.len();
        self.word(queue.head).store(next, Ordering::Release);
        for (at, slot) in slots.iter().enumerate() {
            let ticket = self.head.wrapping_add(at as u64 + 1);
            let job = self.check(slot, ticket);
            self.faults += u64::from(job.is_none());
            self.taken.push(Taken { ticket, job });
        }
        self.head = next;
        Some(count)
    }

    /// Works on `count` of the jobs it has, whichever, and answers them as one burst; tells how many those were.
    pub(crate) fn work(&mut self, count: usize) -> usize {
        let count = count.min(self.taken.len());
        let mut burst: Vec<Taken> = Vec::new();
        for _ in 0..count {
            let which = self.dice.roll(self.taken.len() as u64) as usize;
            burst.push(self.taken.swap_remove(which));
        }
        self.work_on(&burst);
        count
    }

    /// Works on these jobs and answers them as one burst.
    pub(crate) fn work_on(&mut self, burst: &[Taken]) {
        let early = self.bug == Bug::CompletionBeforeWork;
        if !early {
            burst.iter().for_each(|taken| self.perform(taken));
        }
        let slots: Vec<Words> = burst.iter().map(Self::answer).collect();
        self.publish(&slots);
        if early {
            thread::yield_now();
            burst.iter().for_each(|taken| self.perform(taken));
        }
        self.done += burst.len() as u64;
    }

    /// What a completion of `taken` says; its sequences are filled in when it is published.
    pub(crate) fn answer(taken: &Taken) -> Words {
        let mut words = [0; 16];
        words[2] = taken.ticket;
        match taken.job {
            Some(job) => {
                words[1] = job.opcode | ARENA_BODY << 16;
                words[4] = OK;
                [words[5], words[6], words[7]] = [16, job.result.0, 16];
            }
            None => words[4] = BAD_DESCRIPTOR,
        }
        words
    }

    /// Writes completions: all slots, then the tail.
    pub(crate) fn publish(&mut self, slots: &[Words]) {
        let next = self.tail.wrapping_add(slots.len() as u64);
        if self.bug == Bug::TailBeforeSlot {
            self.store_tail(next);
            thread::yield_now();
        }
        self.write(slots);
        self.tail = next;
        self.store_tail(next);
    }

    /// Writes completions where the next ones belong, piece by piece in random order, and does not publish them.
    pub(crate) fn write(&mut self, slots: &[Words]) {
        let mut pieces: Vec<(usize, usize)> =
            (0..slots.len()).flat_map(|slot| (0..8).map(move |piece| (slot, piece))).collect();
        shuffle(&mut pieces, &mut self.dice);
        for (slot, piece) in pieces {
            let position = self.tail.wrapping_add(slot as u64);
            let mut words = slots[slot];
            // What a slot says of itself can be given wrong on purpose; 0 stands for what is right.
            let right = position.wrapping_add(1);
            [words[0], words[15]] = [words[0], words[15]].map(|given| if given == 0 { right } else { given });
            let at = Self::slot(self.layout.completions.slots, self.layout.completions.capacity, position) + piece * 16;
            self.word(at).store(words[2 * piece], Ordering::Relaxed);
            self.word(at + 8).store(words[2 * piece + 1], Ordering::Relaxed);
        }
    }

    /// The tail of the completions that it last published.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Stores any tail of the completions.
    pub(crate) fn store_tail(&self, tail: u64) {
        self.word(self.layout.completions.tail).store(tail, Ordering::Release);
    }

    /// Copies slots from the head on, piece by piece in random order.
    fn copy(&mut self, count: usize) -> Vec<Words> {
        let queue = self.layout.submissions;
        let mut slots = vec![[0; 16]; count];
        let mut pieces: Vec<(usize, usize)> =
            (0..count).flat_map(|slot| (0..8).map(move |piece| (slot, piece))).collect();
        shuffle(&mut pieces, &mut self.dice);
        for (slot, piece) in pieces {
            let at = Self::slot(queue.slots, queue.capacity, self.head.wrapping_add(slot as u64)) + piece * 16;
            slots[slot][2 * piece] = self.word(at).load(Ordering::Relaxed);
            slots[slot][2 * piece + 1] = self.word(at + 8).load(Ordering::Relaxed);
            self.dice.maybe_pause();
        }
        slots
    }

    /// Whether the words are one job's, though nothing orders their loads.
    fn is_whole(words: &Words, sequence: u64) -> bool {
        let slot: Slot = bytemuck::cast(*words);
        words[0] == sequence && words[15] == sequence && words[14] >> 32 == u64::from(slot_check(&slot))
    }

    /// The job in a slot, if slot and regions are right.
    fn check(&self, slot: &Words, ticket: u64) -> Option<Job> {
        let whole = slot[0] == ticket && slot[15] == ticket && slot[5] == 72 && slot[1] >> 32 == ABI_VERSION;
        let job = Job {
            opcode: slot[1] & 0xFFFF,
            payload: (slot[7], slot[8]),
            result: (slot[12], slot[13]),
            number: slot[14] & 0xFFFF_FFFF,
        };
        let ((payload, payload_len), (result, result_len)) = (job.payload, job.result);
        let (block, generation) = (payload / self.block_bytes, slot[9] & 0xFFFF_FFFF);
        if !whole || !payload.is_multiple_of(self.block_bytes) || block >= self.blocks {
            return None;
        }
        let run = self.word(self.layout.runs + 8 * block as usize).load(Ordering::Relaxed);
        let end = payload + (run & 0xFFFF_FFFF) * self.block_bytes;
        let holds = |from: u64, len: u64| from <= end && len <= end - from;
        let right = run >> 32 == generation
            && payload_len >= 8
            && run & 0xFFFF_FFFF != 0
            && holds(payload, payload_len)
            && result >= payload + payload_len
            && holds(result, result_len)
            && result.is_multiple_of(128)
            && result_len >= 16;
        right.then_some(job)
    }

    /// The work: the payload's checksum and the job's number go into the result.
    fn perform(&mut self, taken: &Taken) {
        let Some(job) = taken.job else {
            return;
        };
        let payload: Vec<u8> =
            (0..job.payload.1).map(|at| self.byte(job.payload.0 + at).load(Ordering::Relaxed)).collect();
        self.dice.maybe_pause();
        let (stated, bytes) = payload.split_at(8);
        let sum = megaring_ring::fnv1a64(bytes);
        self.faults += u64::from(stated != sum.to_le_bytes());
        let result: Vec<u8> = [sum, job.number].iter().flat_map(|word| word.to_le_bytes()).collect();
        for (at, byte) in (0..).zip(result) {
            self.byte(job.result.0 + at).store(byte, Ordering::Relaxed);
        }
    }

    fn slot(slots: usize, capacity: usize, position: u64) -> usize {
        slots + (position as usize & (capacity - 1)) * 128
    }

    fn byte(&self, offset: u64) -> &AtomicU8 {
        let at = self.layout.arena + offset as usize;
        assert!(at < self.memory.len());
        // SAFETY: the byte lies within the memory, which `self` keeps alive, and a byte is always aligned. The ring's
        // protocol keeps the host off a job's bytes while the device has it. Where a seeded bug breaks that, the race
        // is what the test wants to see, and all that is made of the bytes is a comparison.
        unsafe { AtomicU8::from_ptr(self.memory.base().as_ptr().add(at)) }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.memory.len());
        // SAFETY: the word lies within the memory, which `self` keeps alive and which is aligned to 128 bytes. Lines
        // and run words are atomics to the host too; its plain accesses to slots are ordered by the tails and heads,
        // but for seeded bugs, as for `byte`.
        unsafe { AtomicU64::from_ptr(self.memory.base().as_ptr().add(offset).cast()) }
    }
}

/// Brings items into any order.
fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    for at in (1..items.len()).rev() {
        items.swap(at, dice.roll(at as u64 + 1) as usize);
    }
}
