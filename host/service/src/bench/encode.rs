//! Memories to coordinates.

use megaring_core::encode::{Encode, Features};
use megaring_core::texts::Texts;
use megaring_datasets::{Memories, memories};
use megaring_engine::measure::sampler::Subject;
use megaring_harness::record::{Residence, Sizes};

use super::session::{Case, Session, timed};
use crate::console::Failure;

/// Memories in a batch.
pub(super) const BATCHES: [usize; 5] = [1, 16, 256, 4_096, 110_000];
/// Memories that are made: as many as the largest batch has and some more, so that no two calls take the same.
const MADE: usize = 130_000;
/// Memories between the starts of two calls, a prime.
const STRIDE: usize = 1_543;

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    let made = if session.lacks_time() { None } else { Some(memories(MADE, 5).map_err(Failure::work)?) };
    for items in BATCHES {
        let Some(made) = &made else {
            session.miss();
            continue;
        };
        let sizes = Sizes { rows: 0, dim: 0, k: 0, items: items as u64 };
        let bytes = made.text().len() as f64 * items as f64 / made.len() as f64;
        let case =
            Case { suite: "encode", name: "encode", residence: Residence::Resident, sizes, multiply_adds: 0.0, bytes };
        let engine = session.engine().clone();
        let entrant = |kind| {
            let engine = &engine;
            let subject = Subject::new(move |call: megaring_engine::measure::sampler::Call| {
                let first = (call.number as usize).wrapping_mul(STRIDE) % (made.len() - items + 1);
                timed(engine, kind, job(made, first, items))
            });
            (kind, subject)
        };
        session.measure(&case, session.kinds().into_iter().map(entrant).collect());
    }
    Ok(())
}

fn job(made: &Memories, first: usize, items: usize) -> Encode {
    let mut job = Encode { texts: Texts::default(), features: Vec::with_capacity(items), gardens: Vec::new() };
    for memory in (first..first + items).map(|index| made.get(index)) {
        job.texts.push(memory.content);
        job.gardens.push(memory.garden.to_owned());
        job.features.push(Features {
            importance: memory.importance,
            access_count: memory.access_count,
            age_days: memory.age_days,
            galactic_distance: memory.galactic_distance,
        });
    }
    job
}
