//! Many threads send mixed jobs in bursts through a tiny ring, and check every answer against what the payload says it
//! must be.
//!
//! Every payload differs: texts carry words drawn at random, of which the answer's masks are a fingerprint of 123 bits;
//! searches, scores and nearest points are drawn from a pool of jobs with known, different answers. Some jobs are
//! faulty and must be refused, some are abandoned. A ticket that is not answered within a minute, an answer to another
//! job, a lost or a doubled completion: each is a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use megaring_cuda::CudaMode;
use megaring_ring::{JobRing, RingConfig, RingStats, WaitStrategy};
use serde_json::json;

use self::jobs::Pool;
use self::producer::{Producer, Tally};
use crate::machine::{Machine, Wanted, Way};
use crate::{Done, Report};

mod jobs;
mod producer;

/// What is sent.
pub(crate) struct Plan {
    /// Jobs in all.
    pub(crate) slots: u64,
    /// Threads that send.
    pub(crate) threads: usize,
    pub(crate) seed: u64,
}

/// So small that it wraps all the time and is full most of it.
const RING: RingConfig =
    RingConfig { capacity: 64, arena_bytes: 4 << 20, block_bytes: 4 << 10, wait: WaitStrategy::HybridSpin(PATIENCE) };
/// How long a thread watches for its answer before it parks.
const PATIENCE: Duration = Duration::from_micros(50);
/// Between two lines about how far it is.
const TOLD: Duration = Duration::from_secs(5);

pub(crate) fn run(machine: Machine, mode: CudaMode, plan: &Plan) -> Done {
    let wanted = Wanted { ring: RING, ..Wanted::usual(Way::Cuda(mode)) };
    let (backend, ring) = machine.start(&wanted, &Arc::default())?;
    let pool = Pool::new(machine.sized(512, 32))?;
    // The pool's corpora stay where the device finds them.
    let residencies = pool.prepare(&*backend)?;
    let begun = Instant::now();
    let tallies = send(plan, &ring, &pool);
    let took = begun.elapsed();
    drop(residencies);
    let health = backend.health();
    let before_stop = ring.stats();
    backend.shutdown();
    let (mut all, mut failures) = (Tally::default(), Vec::new());
    for tally in tallies {
        match tally {
            Ok(tally) => all.add(&tally),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        failures.extend(leftovers(&before_stop, plan.slots));
    }
    failures.extend(health.err());
    for failure in &failures {
        eprintln!("FAILED: {failure}");
    }
    let ok = failures.is_empty();
    let fields = json!({
        "mode": mode.name(), "slots": plan.slots, "threads": plan.threads, "seed": plan.seed, "failures": failures,
        "checked": all.checked, "refused": all.refused, "abandoned": all.abandoned, "ring_full": before_stop.ring_full,
        "arena_full": before_stop.arena_full, "seconds": took.as_secs_f64(),
        "slots_per_second": plan.slots as f64 / took.as_secs_f64(),
    });
    Ok(Report::new(fields, ok))
}

/// Runs the producers; says now and then how far they are.
fn send(plan: &Plan, ring: &Arc<JobRing>, pool: &Pool) -> Vec<Result<Tally, String>> {
    let sent = AtomicU64::new(0);
    let threads = plan.threads.max(1) as u64;
    let over = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let producers: Vec<_> = (0..threads)
            .map(|thread| {
                let slots = plan.slots * (thread + 1) / threads - plan.slots * thread / threads;
                let mut producer = Producer::new(ring, pool, &sent, plan.seed, thread);
                scope.spawn(move || producer.run(slots))
            })
            .collect();
        let (done, waiting) = over;
        let sent = &sent;
        scope.spawn(move || {
            while waiting.recv_timeout(TOLD) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{} of {} slots", sent.load(Ordering::Relaxed), plan.slots);
            }
        });
        let tallies =
            producers.into_iter().map(|producer| producer.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        let tallies = tallies.collect();
        drop(done);
        tallies
    })
}

/// What must be so when everything was answered, and is not.
fn leftovers(stats: &RingStats, slots: u64) -> Option<String> {
    let RingStats { submitted, completed, faults, outstanding, quarantined, arena_leased, .. } = *stats;
    let clean = submitted == slots && completed == slots && faults + outstanding + quarantined + arena_leased == 0;
    (!clean).then(|| format!("after {slots} slots the ring is not as it should be: {stats:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_not_clean_is_seen() {
        let clean = RingStats { submitted: 9, completed: 9, ring_full: 5, ..RingStats::default() };
        assert_eq!(leftovers(&clean, 9), None);
        for dirty in [
            RingStats { completed: 8, ..clean },
            RingStats { completed: 10, ..clean },
            RingStats { submitted: 8, ..clean },
            RingStats { faults: 1, ..clean },
            RingStats { outstanding: 1, ..clean },
            RingStats { quarantined: 1, ..clean },
            RingStats { arena_leased: 64, ..clean },
        ] {
            assert!(leftovers(&dirty, 9).is_some(), "{dirty:?}");
        }
    }
}
