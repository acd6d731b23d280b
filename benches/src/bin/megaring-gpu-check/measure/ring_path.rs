//! Through the ring and the backend alone, on one thread.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_bench::Failure;
use megaring_bench::any::Job;
use megaring_core::encode::Encode;
use megaring_core::encode::profile::Profile;
use megaring_core::nop::Nop;
use megaring_core::operation::{Exact, Piece};
use megaring_core::{Backend, Opcode};
use megaring_engine::Terms;
use megaring_engine::submit::{Announce, limits, submit};
use megaring_ring::{Descriptor, JobRing, Outcome, Reservation, Ticket};
use megaring_simd::KernelSet;
use serde_json::{Value, json};

use super::cases::{Case, Data};
use crate::machine::{prepared, profile};
use crate::stats::Samples;

/// Jobs before the clock counts.
const WARM_UP: usize = 5;
/// Jobs in the ring at a time, for rates.
const WINDOW: usize = 32;

pub(super) fn measure(
    case: Case,
    repeat: usize,
    backend: &dyn Backend,
    ring: &Arc<JobRing>,
    data: &mut Data,
) -> Result<Value, Failure> {
    let first = data.job(case)?;
    // Held meanwhile: what the jobs need stays on the device.
    let _residency = prepared(backend, &first)?;
    let bench = Bench { backend, ring, profile: profile()?, kernels: KernelSet::from_env()? };
    match case {
        Case::NopRate | Case::QueryRate => bench.rate(case, repeat, data),
        _ => bench.latencies(case, repeat, data),
    }
}

struct Bench<'a> {
    backend: &'a dyn Backend,
    ring: &'a Arc<JobRing>,
    profile: Profile,
    kernels: &'static KernelSet,
}

/// Times of one job.
struct Laps {
    seen: Duration,
    exact: Duration,
    device: Duration,
}

impl Bench<'_> {
    fn latencies(&self, case: Case, repeat: usize, data: &mut Data) -> Result<Value, Failure> {
        let (mut seen, mut exact, mut device) = (Samples::default(), Samples::default(), Samples::default());
        for count in 0..WARM_UP + repeat {
            let job = data.job(case)?;
            let laps = match &job {
                Job::Nop(Nop) => self.nop()?,
                Job::Encode(texts) => self.encode(&job, texts)?,
                _ => self.job(&job)?,
            };
            if count >= WARM_UP {
                seen.push(laps.seen);
                exact.push(laps.exact);
                device.push(laps.device);
            }
        }
        Ok(json!({ "seen": seen.summary(), "exact": exact.summary(), "device": device.summary() }))
    }

    /// The room is there before; what is timed is publishing and everything behind it.
    fn nop(&self) -> Result<Laps, Failure> {
        let reservation = self.ring.try_reserve(0, 0)?;
        let begun = Instant::now();
        let ticket = self.ring.submit(reservation, Descriptor { opcode: Opcode::Nop as u16, ..Descriptor::default() });
        let outcome = self.await_answer(ticket)?;
        let seen = begun.elapsed();
        Ok(Laps { seen, exact: seen, device: device_time(&outcome) })
    }

    fn job(&self, job: &Job) -> Result<Laps, Failure> {
        let pieces = job.operation().pieces(&limits(self.backend.capabilities()));
        let begun = Instant::now();
        let tickets = pieces
            .iter()
            .map(|piece| submit(self.ring, job.operation(), piece, &Terms::default(), false, Announce::Now));
        let tickets = tickets.collect::<Result<Vec<Ticket>, _>>()?;
        self.finish(job, &pieces, tickets, begun)
    }

    /// The texts are in the ring's memory before the clock runs.
    fn encode(&self, job: &Job, texts: &Encode) -> Result<Laps, Failure> {
        let pieces = job.operation().pieces(&limits(self.backend.capabilities()));
        let filled = pieces.iter().map(|piece| self.filled(texts, piece)).collect::<Result<Vec<_>, _>>()?;
        let begun = Instant::now();
        let publish = |(reservation, piece): (Reservation, &Piece)| {
            let items = piece.items.len() as u32;
            self.ring.submit(reservation, Descriptor { opcode: Opcode::Encode as u16, items, ..Descriptor::default() })
        };
        let tickets = filled.into_iter().zip(&pieces).map(publish).collect();
        self.finish(job, &pieces, tickets, begun)
    }

    fn filled(&self, texts: &Encode, piece: &Piece) -> Result<Reservation, Failure> {
        let mut reservation = self.ring.try_reserve(piece.payload, piece.result)?;
        let Range { start, end } = piece.items.clone();
        let offsets = &texts.texts.offsets[start..=end];
        let (first, last) = (offsets[0], offsets[end - start]);
        let (head, text) = reservation.payload_mut().split_at_mut(size_of_val(offsets));
        for (place, offset) in head.as_chunks_mut().0.iter_mut().zip(offsets) {
            *place = (offset - first).to_le_bytes();
        }
        text.copy_from_slice(&texts.texts.bytes[first as usize..last as usize]);
        Ok(reservation)
    }

    fn finish(&self, job: &Job, pieces: &[Piece], tickets: Vec<Ticket>, begun: Instant) -> Result<Laps, Failure> {
        let outcomes = tickets.into_iter().map(|ticket| self.await_answer(ticket)).collect::<Result<Vec<_>, _>>()?;
        let seen = begun.elapsed();
        let by = Exact { kernel: self.kernels, profile: &self.profile };
        for (piece, outcome) in pieces.iter().zip(&outcomes) {
            std::hint::black_box(job.finish(piece, outcome.result(), &by)?);
        }
        Ok(Laps { seen, exact: begun.elapsed(), device: outcomes.iter().map(device_time).sum() })
    }

    /// `repeat` jobs of one piece, the oldest answered before the next is sent once the window is full.
    fn rate(&self, case: Case, repeat: usize, data: &mut Data) -> Result<Value, Failure> {
        // Made before the clock runs, since making a job takes about as long as doing it.
        let jobs = (0..repeat.min(512)).map(|_| data.job(case)).collect::<Result<Vec<_>, _>>()?;
        let limits = limits(self.backend.capabilities());
        let pieces: Vec<Vec<Piece>> = jobs.iter().map(|job| job.operation().pieces(&limits)).collect();
        let mut under_way = VecDeque::with_capacity(WINDOW);
        let begun = Instant::now();
        for index in 0..repeat {
            if under_way.len() == WINDOW
                && let Some(ticket) = under_way.pop_front()
            {
                self.await_answer(ticket)?;
            }
            let index = index % jobs.len();
            let piece = pieces[index].first().ok_or("a job has no pieces")?;
            under_way.push_back(submit(
                self.ring,
                jobs[index].operation(),
                piece,
                &Terms::default(),
                false,
                Announce::Now,
            )?);
        }
        for ticket in under_way {
            self.await_answer(ticket)?;
        }
        let took = begun.elapsed();
        Ok(
            json!({ "jobs": repeat, "took_ns": took.as_nanos() as u64, "per_second": repeat as f64 / took.as_secs_f64() }),
        )
    }

    /// By the ring's wait strategy, which spins.
    fn await_answer(&self, ticket: Ticket) -> Result<Outcome, Failure> {
        let outcome = ticket.wait();
        if outcome.status().is_ok() {
            Ok(outcome)
        } else {
            Err(format!("a job ended with {}", outcome.status()).into())
        }
    }
}

fn device_time(outcome: &Outcome) -> Duration {
    Duration::from_nanos(outcome.completion.device_ns)
}
