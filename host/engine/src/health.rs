//! How the engine is: what its counters say of the last second, for the board.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use megaring_board::{Health, Publisher};
use megaring_core::Error;

use crate::engine::Engine;
use crate::machine;
use crate::metrics::{Counts, Snapshot};

/// How often health and heartbeat are told.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// How far back it looks.
const SPAN: Duration = Duration::from_secs(1);

/// Tells the board how an engine is. Call [`Self::tell`] every [`INTERVAL`].
pub struct Monitor {
    publisher: Publisher,
    /// The oldest is from before the span that is looked at.
    moments: VecDeque<Moment>,
    processors: f64,
}

/// What was seen at a time.
struct Moment {
    at: Instant,
    sums: Snapshot,
    durations: Counts,
    in_flight: usize,
}

impl Monitor {
    /// The only one of an engine's board.
    ///
    /// # Errors
    /// [`Error::UnderWay`] while there is another.
    pub fn new(engine: &Engine) -> Result<Self, Error> {
        let publisher = engine.board().publisher().ok_or(Error::UnderWay { what: "telling the board" })?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Ok(Self { publisher, moments: VecDeque::from([Moment::of(engine)]), processors })
    }

    /// Tells how the engine has been in the last second.
    pub fn tell(&mut self, engine: &Engine) {
        let now = Moment::of(engine);
        while self.moments.get(1).is_some_and(|moment| now.at.duration_since(moment.at) >= SPAN) {
            self.moments.pop_front();
        }
        let (line, places) = engine.admission().line();
        let mut health = Health { memory_pressure: memory_pressure(), ..Health::default() };
        health.backlog = line as f64 / places.max(1) as f64;
        health.budget_pressure = engine.budgets().pressure(megaring_budget::Moment::now());
        if let Some(then) = self.moments.front() {
            then.compare(&now, &mut health);
        }
        self.moments.push_back(now);
        let in_flight = self.moments.iter().map(|moment| moment.in_flight).sum::<usize>() as f64;
        health.utilisation = (in_flight / self.moments.len() as f64 / self.processors).min(1.0);
        self.publisher.publish(health);
    }
}

impl Moment {
    fn of(engine: &Engine) -> Self {
        let (sums, durations) = (engine.metrics().snapshot(), engine.metrics().durations());
        Self { at: Instant::now(), sums, durations, in_flight: engine.admission().in_flight() }
    }

    /// What has come of jobs between this moment and a later one.
    fn compare(&self, later: &Self, health: &mut Health) {
        let seconds = later.at.duration_since(self.at).as_secs_f64().max(1e-3);
        let answered = later.sums.jobs_answered - self.sums.jobs_answered;
        let failures = |sums: &Snapshot| sums.jobs_failed + sums.jobs_refused;
        let failed = failures(&later.sums) - failures(&self.sums);
        health.jobs_per_second = answered as f64 / seconds;
        health.p99_seconds = later.durations.quantile_since(&self.durations, 0.99).unwrap_or_default().as_secs_f64();
        health.error_rate = failed as f64 / (answered + failed).max(1) as f64;
    }
}

/// The share of its memory that this machine has no more, or of what this process is allowed, whichever is larger; 0
/// where the system does not tell.
fn memory_pressure() -> f64 {
    let used = |total: u64, available: u64| 1.0 - available.min(total) as f64 / total.max(1) as f64;
    let machine = machine::memory().map_or(0.0, |memory| used(memory.total, memory.available));
    let allowed = machine::allowed_memory().map_or(0.0, |memory| used(memory.total, memory.available));
    machine.max(allowed)
}
