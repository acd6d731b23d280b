//! Was the machine quiet while it was measured?
//!
//! Two witnesses. A fixed piece of integer work is timed before, between and after: it keeps to one core's registers,
//! so where it is slower than it was at best in the run, the clock was lowered or the core shared. And on Linux the
//! system counts what everybody used: other processes, other virtual machines (steal), and what a container's quota
//! withheld. Elsewhere the first witness stands alone.
//!
//! # Limits
//! A machine that was slow from before the start to after the end looks quiet to the first witness. Load is counted in
//! ticks of 10 ms, so spans below 0.2 s of it say nothing and are not judged.

use std::time::{Duration, Instant};

use linux::Usage;

mod linux;

/// Slower than at best by more than this share: throttled or shared.
const SLOWER: f64 = 0.10;
/// Share of all processors' time that others may use.
const OTHERS: f64 = 0.05;
/// Share of all processors' time that the host may give to other machines.
const STOLEN: f64 = 0.01;
/// Share of the time in which a quota may withhold processors.
const WITHHELD: f64 = 0.01;

/// Watches over a run.
#[derive(Debug)]
pub struct Watch {
    clock: Instant,
    looks: Vec<Look>,
    /// The look at which the present lap began.
    lap: usize,
}

/// What was seen at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    /// Since the start of the run.
    at: Duration,
    /// How long the fixed work took.
    work: Duration,
    /// What everybody has used, where the system tells.
    usage: Option<Usage>,
}

/// How much a span was disturbed; all 0 where it was not, or where nobody tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Disturbance {
    /// By what share the fixed work was slower at worst in the span than at best in the run.
    pub slower: f64,
    /// Share of all processors' time that other processes used.
    pub others: f64,
    /// Share of all processors' time that the host gave to other machines.
    pub stolen: f64,
    /// Share of the time in which a quota withheld processors.
    pub withheld: f64,
}

impl Watch {
    /// Begins, with a first look. A look takes some ten milliseconds of one processor.
    #[must_use]
    pub fn start() -> Self {
        let mut watch = Self { clock: Instant::now(), looks: Vec::new(), lap: 0 };
        // Clocks of processors that had nothing to do rise within milliseconds.
        fixed_work();
        watch.look();
        watch
    }

    /// Takes a look: between two measurements, never while one is under way.
    pub fn look(&mut self) {
        let work = fixed_work();
        self.looks.push(Look { at: self.clock.elapsed(), work, usage: Usage::now() });
    }

    /// Ends a lap, such as one case of many, with a look: how much it was disturbed since the start or the lap before.
    pub fn lap(&mut self) -> Disturbance {
        self.look();
        let disturbance = judge(&self.looks, self.lap);
        self.lap = self.looks.len() - 1;
        disturbance
    }

    /// How much everything since the start was disturbed, with a last look.
    pub fn whole(&mut self) -> Disturbance {
        self.look();
        judge(&self.looks, 0)
    }

    /// The same as sentences; none where the machine was quiet.
    pub fn doubts(&mut self) -> Vec<String> {
        self.whole().doubts()
    }
}

impl Disturbance {
    /// What is wrong, each a sentence; none where nothing is.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let per_cent = |share: f64| format!("{:.0} %", 100.0 * share);
        let found = [
            (self.slower, SLOWER, "fixed work took {} longer than at best: the processor was throttled or shared"),
            (self.others, OTHERS, "other processes used {} of all processors"),
            (self.stolen, STOLEN, "the host gave {} of this machine's processors to others"),
            (self.withheld, WITHHELD, "the container's quota withheld processors for {} of the time"),
        ];
        let beyond = found.into_iter().filter(|(share, most, _)| share > most);
        beyond.map(|(share, _, sentence)| sentence.replace("{}", &per_cent(share))).collect()
    }
}

/// Judges the looks from `first` on, beside the best of all.
fn judge(looks: &[Look], first: usize) -> Disturbance {
    let span = &looks[first.min(looks.len())..];
    let best = looks.iter().map(|look| look.work).min().unwrap_or_default();
    let worst = span.iter().map(|look| look.work).max().unwrap_or_default();
    let slower = if best.is_zero() { 0.0 } else { (worst.as_secs_f64() / best.as_secs_f64() - 1.0).max(0.0) };
    let ends = span.first().zip(span.last());
    let usage = ends.and_then(|(begin, end)| end.usage?.since(&begin.usage?, end.at.saturating_sub(begin.at)));
    Disturbance { slower, ..usage.unwrap_or_default() }
}

/// Repetitions of the fixed work in a look. The quickest counts: one interruption is no throttled processor.
const TRIES: usize = 10;
/// Steps of the fixed work: some 1 ms, each waiting for the one before.
const STEPS: u64 = 300_000;

/// How long the fixed work takes.
fn fixed_work() -> Duration {
    let once = |seed| {
        let begun = Instant::now();
        std::hint::black_box(steps(std::hint::black_box(seed)));
        begun.elapsed()
    };
    (0..TRIES as u64).map(once).min().unwrap_or_default()
}

/// Multiplications and shifts that each need the one before, so that neither wide registers nor caches matter.
fn steps(seed: u64) -> u64 {
    (0..STEPS).fold(seed | 1, |value, _| {
        let mixed = (value ^ (value >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed | 1
    })
}

#[cfg(test)]
mod tests;
