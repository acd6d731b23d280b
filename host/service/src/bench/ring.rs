//! What the way costs, without any work at its end: an empty job through the engine, a slot through a ring, an event.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::nop::Nop;
use megaring_core::{BackendKind, Error, Opcode};
use megaring_engine::measure::sampler::{Call, Subject};
use megaring_harness::record::{Residence, Sizes};
use megaring_ring::event_ring::{Event, EventRing, EventRingConfig};
use megaring_ring::{Body, Descriptor, JobRing, PolledJob, RingConfig, Status};

use super::session::{Case, Session, timed};
use crate::console::Failure;

/// Cases of this suite.
pub(super) const CASES: usize = 3;

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    let engine = &session.engine().clone();
    let empty = |kind| (kind, Subject::new(move |_| timed(engine, kind, Nop)));
    session.measure(&case("empty job"), session.kinds().into_iter().map(empty).collect());

    let ring = JobRing::new(RingConfig::default()).map_err(Failure::work)?;
    let subject = Subject::repeated(|call: Call| round_trips(&ring, call.repeats));
    session.measure(&case("slot there and back, one thread"), vec![(BackendKind::Cpu, subject)]);

    let ring = EventRing::new(EventRingConfig::default()).map_err(Failure::work)?;
    let producer = ring.producer().map_err(Failure::work)?;
    let event = Event::new(1, 2, 3, 0.5, &[7; 80]).map_err(Failure::work)?;
    let subject = Subject::repeated(|call: Call| {
        let begun = Instant::now();
        for _ in 0..call.repeats {
            producer.publish(black_box(&event));
        }
        Ok(begun.elapsed())
    });
    session.measure(&case("event publish"), vec![(BackendKind::Cpu, subject)]);
    Ok(())
}

fn case(name: &'static str) -> Case {
    let sizes = Sizes { rows: 0, dim: 0, k: 0, items: 1 };
    Case { suite: "ring", name, residence: Residence::Resident, sizes, multiply_adds: 0.0, bytes: 0.0 }
}

/// Slots through a ring whose both ends this thread has: reserved, submitted, polled, completed, reaped and collected.
fn round_trips(ring: &Arc<JobRing>, count: u32) -> Result<Duration, Error> {
    let refused = |reason: &dyn std::fmt::Display| Error::Internal(format!("the ring refused a slot: {reason}"));
    let begun = Instant::now();
    for _ in 0..count {
        let reservation = ring.try_reserve(0, 0).map_err(|error| refused(&error))?;
        let ticket = ring.submit(reservation, Descriptor { opcode: Opcode::Nop as u16, ..Descriptor::default() });
        ring.try_poll(1, &mut |job: PolledJob| {
            ring.complete(job.ticket, Opcode::Nop as u16, Status::Ok, 0, Body::default());
        });
        ring.reap();
        let outcome = ticket.try_collect().map_err(|_| refused(&"it was not completed"))?;
        if !outcome.status().is_ok() {
            return Err(refused(&outcome.status()));
        }
    }
    Ok(begun.elapsed())
}
