//! Subjects measured in alternation.
//!
//! A machine's speed drifts: clocks rise and fall, neighbours come and go. Whoever measures one subject after the other
//! compares the machine of then with the machine of now. Here each round gives every subject a turn, in an order drawn
//! anew each time, so that a drift falls on all alike and nobody always follows the same one.
//!
//! A turn is more than a call: what slept while others had theirs (threads, clocks, caches) wakes in calls that count
//! for nothing, and then calls are measured for a while. A call that takes longer than the waking is measured at once.
//!
//! # When it ends
//! A subject has enough once it had `least` turns and its median's interval is within `certainty`. It then accompanies
//! those that have not, in their rounds, for as long as that costs no more time than the one of them that has cost
//! most; so quick peers go on through the whole run and a dear one does not double it. A subject ends in any case with
//! `most` samples, or with `least` turns and its time used up; where its interval is too wide then, its times carry the
//! doubt. One that fails keeps its samples and its error, and the others go on.
//!
//! # Limits
//! Calls in one turn are more like each other than like those of another turn, and checking again and again until an
//! interval is narrow makes it a little too narrow: it says how far to trust the median of this run, not of the next
//! day. Sessions that differ by more than their intervals show a machine that is not quiet: [`super::disturbance`]
//! looks for that.

use std::time::{Duration, Instant};

use super::random::Random;
use super::stats;
use super::stats::Times;

/// How long and how well to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Each subject runs for this long, and at least once, before anything is measured.
    pub warm_up: Duration,
    /// Start of a turn that counts for nothing, unless a call takes longer than this.
    pub settle: Duration,
    /// A turn measures for this long, and at least one call.
    pub turn: Duration,
    /// Fewest turns of a subject, so fewest samples too. Below 6 no interval has its 95 %.
    pub least: usize,
    /// Most samples of a subject.
    pub most: usize,
    /// Wanted: half the width of the median's interval, relative to the median.
    pub certainty: f64,
    /// Time that a subject's turns may take, with settling and what it prepares; the warm-up not counted. Its first
    /// `least` turns it gets in any case.
    pub limit: Duration,
    /// What the orders of the rounds are drawn from.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            warm_up: Duration::from_millis(100),
            settle: Duration::from_millis(20),
            turn: Duration::from_millis(20),
            least: 6,
            most: 20_000,
            certainty: 0.03,
            limit: Duration::from_secs(2),
            seed: 1,
        }
    }
}

/// One call of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// How many calls this subject has had before, those of its warm-up too: which of several inputs to take.
    pub number: u64,
    /// How many times to do it; 1 unless the subject is [`Subject::repeated`].
    pub repeats: u32,
}

/// Something to measure. It answers what the clock is to count, so it may prepare and tidy up outside of that.
pub struct Subject<'a, E> {
    call: Box<dyn FnMut(Call) -> Result<Duration, E> + 'a>,
    repeated: bool,
}

impl<'a, E> Subject<'a, E> {
    /// A subject that does its work once a call.
    pub fn new(call: impl FnMut(Call) -> Result<Duration, E> + 'a) -> Self {
        Self { call: Box::new(call), repeated: false }
    }

    /// A subject that does its work as often as a call says and answers the time of all of it: for work so short that
    /// reading the clock, some 25 ns, would show. Each sample is then the mean of a call, so its percentiles are those
    /// of means.
    pub fn repeated(call: impl FnMut(Call) -> Result<Duration, E> + 'a) -> Self {
        Self { call: Box::new(call), repeated: true }
    }
}

/// What came of a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured<E> {
    /// Nanoseconds, in the order they were taken.
    pub samples: Vec<f64>,
    /// What is reported of them, with what is to be doubted; none without a sample.
    pub times: Option<Times>,
    /// Turns it had.
    pub turns: usize,
    /// How many times each sample did the work; it is their mean.
    pub repeats: u32,
    /// What ended it, where it failed.
    pub error: Option<E>,
}

/// The time since the first reading, for [`alternate`].
pub fn clock() -> impl Fn() -> Duration {
    let start = Instant::now();
    move || start.elapsed()
}

/// Measures the subjects in alternation, and answers for each in its place. `progress` hears of the share that is done,
/// 0 to 1, after each turn. `clock` tells the time since whenever; [`clock()`] is the usual one.
pub fn alternate<E>(
    plan: &Plan,
    subjects: Vec<Subject<'_, E>>,
    clock: &dyn Fn() -> Duration,
    progress: &mut dyn FnMut(f64),
) -> Vec<Measured<E>> {
    let mut measurements: Vec<Measurement<'_, E>> =
        subjects.into_iter().map(|subject| Measurement::new(*plan, subject)).collect();
    let mut order: Vec<usize> = (0..measurements.len()).collect();
    let mut random = Random::new(plan.seed);
    random.shuffle(&mut order);
    for &at in &order {
        measurements[at].warm_up(clock);
    }
    let mut reported = 0.0_f64;
    // The time of the one in need that has cost most: what a companion may cost.
    while let Some(costliest) = measurements.iter().filter(|one| one.needs()).map(|one| one.used).max() {
        random.shuffle(&mut order);
        for &at in &order {
            if measurements[at].needs() || (!measurements[at].spent() && measurements[at].used <= costliest) {
                measurements[at].turn(clock);
                let share = measurements.iter().map(Measurement::done).sum::<f64>() / measurements.len() as f64;
                reported = reported.max(share);
                progress(reported);
            }
        }
    }
    progress(1.0);
    measurements.into_iter().map(Measurement::finish).collect()
}

/// A call is repeated until it takes this long: a thousand readings of the clock.
const LONG: Duration = Duration::from_micros(20);
/// Most repeats: of work that takes no time at all.
const MOST_REPEATS: u32 = 1 << 20;
/// Most calls that a turn begins with and does not count: of work that takes no time at all.
const MOST_SETTLING: usize = 100_000;

/// A subject and how far it is.
struct Measurement<'a, E> {
    plan: Plan,
    subject: Subject<'a, E>,
    calls: u64,
    repeats: u32,
    /// How long the last call took as a whole.
    last: Duration,
    used: Duration,
    turns: usize,
    samples: Vec<f64>,
    /// Of the samples so far; looked at only between turns.
    uncertainty: f64,
    error: Option<E>,
}

impl<'a, E> Measurement<'a, E> {
    fn new(plan: Plan, subject: Subject<'a, E>) -> Self {
        Self {
            plan,
            subject,
            calls: 0,
            repeats: 1,
            last: Duration::ZERO,
            used: Duration::ZERO,
            turns: 0,
            samples: Vec::new(),
            uncertainty: f64::INFINITY,
            error: None,
        }
    }

    /// One call; none where it failed.
    fn call(&mut self, clock: &dyn Fn() -> Duration) -> Option<Duration> {
        let begun = clock();
        let answer = (self.subject.call)(Call { number: self.calls, repeats: self.repeats });
        self.last = clock().saturating_sub(begun);
        self.calls += 1;
        answer.map_err(|error| self.error = Some(error)).ok()
    }

    fn warm_up(&mut self, clock: &dyn Fn() -> Duration) {
        let begun = clock();
        for _ in 0..MOST_SETTLING {
            let Some(took) = self.call(clock) else { return };
            let short = self.subject.repeated && took < LONG && self.repeats < MOST_REPEATS;
            if short {
                self.repeats *= 2;
            } else if clock().saturating_sub(begun) >= self.plan.warm_up {
                return;
            }
        }
    }

    fn turn(&mut self, clock: &dyn Fn() -> Duration) {
        let (begun, before) = (clock(), self.used);
        let mut settling = 0;
        while self.last <= self.plan.settle && settling < MOST_SETTLING && clock() - begun < self.plan.settle {
            settling += 1;
            if self.call(clock).is_none() {
                return;
            }
        }
        let measuring = clock();
        while let Some(took) = self.call(clock) {
            self.samples.push(took.as_nanos() as f64 / f64::from(self.repeats));
            self.used = before + clock().saturating_sub(begun);
            let over = self.used >= self.plan.limit || self.samples.len() >= self.plan.most;
            if over || clock().saturating_sub(measuring) >= self.plan.turn {
                break;
            }
        }
        self.turns += 1;
        self.uncertainty = stats::times(&self.samples).map_or(f64::INFINITY, |times| stats::uncertainty(&times));
    }

    /// Whether it gets no more turns, come what may.
    fn spent(&self) -> bool {
        let over = self.used >= self.plan.limit || self.samples.len() >= self.plan.most;
        self.error.is_some() || (over && self.turns >= self.plan.least)
    }

    /// Whether it has to have another turn.
    fn needs(&self) -> bool {
        !self.spent() && (self.turns < self.plan.least || self.uncertainty > self.plan.certainty)
    }

    /// The share that is done, as it looks: an interval narrows with the root of the number of samples.
    fn done(&self) -> f64 {
        if !self.needs() {
            return 1.0;
        }
        let turns = self.turns as f64 / self.plan.least.max(1) as f64;
        let narrowed = (self.plan.certainty / self.uncertainty).powi(2);
        let used = self.used.as_secs_f64() / self.plan.limit.as_secs_f64();
        turns.min(narrowed.max(used)).clamp(0.0, 1.0)
    }

    fn finish(self) -> Measured<E> {
        let times = stats::times(&self.samples).map(|mut times| {
            times.doubts.extend(self.wide());
            times.doubts.extend(drift(&self.samples));
            times
        });
        Measured { samples: self.samples, times, turns: self.turns, repeats: self.repeats, error: self.error }
    }

    /// The doubt where the interval stayed too wide.
    fn wide(&self) -> Option<String> {
        (self.uncertainty > self.plan.certainty).then(|| {
            let (samples, per_cent) = (self.samples.len(), 100.0 * self.uncertainty);
            format!("after {samples} samples the median is known within {per_cent:.0} % only")
        })
    }
}

/// Halves of a run whose medians differ by more than this share show a machine that changed.
const DRIFT: f64 = 0.10;

/// The doubt where the second half of the samples is beyond doubt slower or quicker than the first.
fn drift(samples: &[f64]) -> Option<String> {
    let (first, second) = samples.split_at(samples.len() / 2);
    let (first, second) = (stats::times(first)?, stats::times(second)?);
    let apart = stats::quicker(&first, &second) || stats::quicker(&second, &first);
    let change = second.p50_ns / first.p50_ns - 1.0;
    // Fewer than six are no interval.
    (first.samples >= 6 && apart && change.abs() > DRIFT).then(|| {
        let word = if change > 0.0 { "more" } else { "less" };
        format!("the second half of the samples took {:.0} % {word} than the first", 100.0 * change.abs())
    })
}

#[cfg(test)]
mod tests;
