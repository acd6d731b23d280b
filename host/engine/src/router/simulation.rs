//! Backends that are formulas, on a clock that is a number: what the ledgers and the chooser are worth, without any
//! hardware.

use std::sync::Arc;
use std::time::Duration;

use megaring_board::{Board, BreakerRule};
use megaring_core::operation::{Class, Shape, Size};
use megaring_core::{BackendKind, Lacking, Opcode};

use super::choice::{Choice, Chooser, Lanes, Reason, RouteRequest};
use super::corrections::{Cell, Corrections};
use super::ledger::{Estimates, Ledger, PendingJob};
use crate::cost::{COEFFICIENTS, Coefficients, CostModel, Sample, Workload, fit, terms};

/// A backend with known costs.
struct Simulated {
    kind: BackendKind,
    truth: CostModel,
    /// What its times are multiplied with.
    drift: f64,
    /// Times vary by this share of themselves, either way.
    noise: f64,
    /// What corpora beyond some size cost, as caches make it: a factor.
    bend: f64,
    broken: bool,
}

/// What a job of an operation consists of; of an encoding, `rows` are the bytes of its texts.
fn load(opcode: Opcode, items: usize, rows: usize, dim: usize, k: usize) -> Workload {
    let [items, rows, dim, k] = [items, rows, dim, k].map(|number| number as u64);
    let shape = match opcode {
        Opcode::Nop => return Workload { opcode, size: Size::default() },
        Opcode::Encode => Shape { items, text_bytes: rows, ..Shape::default() },
        _ => Shape { items, rows, dim, k, ..Shape::default() },
    };
    let size = opcode.describe(&shape).map(|description| description.size).unwrap_or_default();
    Workload { opcode, size }
}

/// Numbers that look drawn (splitmix64).
struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between the two, each power of two as likely.
    fn size(&mut self, least: f64, most: f64) -> usize {
        (least * (most / least).powf(self.unit())) as usize
    }

    fn load(&mut self) -> Workload {
        let items = self.size(1.0, 2_048.0);
        let (rows, dim) = (self.size(200.0, 500_000.0), [64, 384, 1_024][(self.unit() * 3.0) as usize]);
        let k = [1, 10, 90][(self.unit() * 3.0) as usize];
        match self.unit() {
            u if u < 0.6 => load(Opcode::Search, items, rows, dim, k),
            u if u < 0.7 => load(Opcode::Score, items.min(64), rows.min(20_000), dim, 0),
            u if u < 0.85 => load(Opcode::Nearest, items, rows, 5, k),
            _ => load(Opcode::Encode, items, items * self.size(20.0, 4_000.0), 1, 0),
        }
    }
}

impl Simulated {
    fn new(kind: BackendKind) -> Self {
        let mut truth = CostModel::assumed(kind);
        // Not what is assumed, or there would be nothing to find out.
        let stretch = if kind == BackendKind::Cpu { 0.4 } else { 2.5 };
        for (place, class) in Class::ALL.into_iter().enumerate() {
            let values = truth.of(class).to_array().map(|value| value * stretch * (1.0 + place as f64 / 10.0));
            truth.set(class, Coefficients::from_array(values));
        }
        Self { kind, truth, drift: 1.0, noise: 0.05, bend: 1.0, broken: false }
    }

    /// Nanoseconds of a job, without noise.
    fn ns(&self, load: &Workload) -> f64 {
        let bend = if load.size.bytes > 2 << 20 { self.bend } else { 1.0 };
        self.truth.ns(load) * self.drift * bend
    }

    fn took(&self, load: &Workload, draw: &mut Draw) -> f64 {
        self.ns(load) * (1.0 + self.noise * (2.0 * draw.unit() - 1.0))
    }

    /// What a calibration makes of it: the median of five measurements of each size, and a line through them.
    fn calibrated(&self, draw: &mut Draw) -> Estimates {
        let mut model = CostModel::assumed(self.kind);
        let mut errors = Vec::new();
        for opcode in one_of_each_class() {
            let measured: Vec<(Workload, f64)> = grid(opcode)
                .into_iter()
                .map(|load| {
                    let mut times: Vec<f64> = (0..5).map(|_| self.took(&load, draw)).collect();
                    times.sort_by(f64::total_cmp);
                    (load, times[2])
                })
                .collect();
            let samples: Vec<Sample> = measured.iter().map(|(load, ns)| Sample::new(load.size, *ns, 0.0)).collect();
            model.set(opcode.class(), fit(&samples).map_or_else(|_| Coefficients::default(), |fit| fit.coefficients));
            let error = |(load, ns): &(Workload, f64)| (Cell::of(load), (ns / model.ns(load)).ln(), 1.0);
            errors.extend(measured.iter().map(error));
        }
        Estimates { measured: Class::ALL.to_vec(), model, corrections: Corrections::seeded(&errors) }
    }
}

/// The first operation of each class: the others cost the same.
fn one_of_each_class() -> impl Iterator<Item = Opcode> {
    Class::ALL.into_iter().filter_map(|class| Opcode::ALL.into_iter().find(|opcode| opcode.class() == class))
}

fn grid(opcode: Opcode) -> Vec<Workload> {
    let mut loads = Vec::new();
    for rows in [300, 3_000, 30_000, 300_000] {
        for (items, k, dim) in
            [(1, 10, 384), (16, 10, 384), (256, 10, 384), (1, 100, 384), (64, 100, 384), (256, 10, 32)]
        {
            loads.push(match opcode.class() {
                Class::Path => load(opcode, 0, 0, 0, 0),
                Class::Text => load(opcode, items, items * rows / 100, 1, 0),
                Class::Points => load(opcode, items, rows, 5, k),
                Class::Screen | Class::Exact => load(opcode, items, rows, dim, k),
            });
        }
    }
    loads
}

/// A chooser over simulated backends, and a clock.
struct World {
    backends: Vec<Simulated>,
    ledgers: Vec<Arc<Ledger>>,
    chooser: Chooser,
    draw: Draw,
    now_ns: u64,
    /// Jobs done by each, and failed.
    done: Vec<usize>,
    failed: Vec<usize>,
    /// Chooses a lane by chance instead.
    by_chance: bool,
}

/// Of some jobs: what they took, and what they would have with each on the lane that is best for it.
#[derive(Default)]
struct Bill {
    took: f64,
    best: f64,
    /// The sum of the logarithms of both's ratio.
    logs: f64,
    jobs: usize,
}

impl Bill {
    /// By how much the choices were worse than the best ones: of all time, and of a job's time in the geometric mean.
    fn regret(&self) -> (f64, f64) {
        (self.took / self.best - 1.0, (self.logs / self.jobs as f64).exp() - 1.0)
    }
}

impl World {
    /// With a calibration each.
    fn new(backends: Vec<Simulated>) -> Self {
        let mut draw = Draw(7);
        let board = Board::in_memory().unwrap_or_else(|error| unreachable!("a page of memory: {error}"));
        let ledgers = backends.iter().map(|backend| {
            let ledger = Ledger::new(backend.kind, board.clone(), RULE, true);
            ledger.adopt(backend.calibrated(&mut draw));
            Arc::new(ledger)
        });
        let ledgers: Vec<_> = ledgers.collect();
        let none = vec![0; backends.len()];
        let chooser = Chooser::new(true);
        Self { backends, ledgers, chooser, draw, now_ns: 0, done: none.clone(), failed: none, by_chance: false }
    }

    fn lanes(&self) -> Lanes {
        (0..self.backends.len()).fold(Lanes::default(), Lanes::with)
    }

    /// One job after the other; each takes what the backend's truth says.
    fn run(&mut self, jobs: usize, load: impl Fn(&mut Draw) -> Workload) -> Bill {
        let mut bill = Bill::default();
        for _ in 0..jobs {
            let load = load(&mut self.draw);
            let ns = self.job(&load);
            let well = self.backends.iter().filter(|backend| !backend.broken);
            let best = well.map(|backend| backend.ns(&load)).fold(f64::INFINITY, f64::min);
            bill.took += ns;
            bill.best += best;
            bill.logs += (ns / best).ln();
            bill.jobs += 1;
        }
        bill
    }

    /// Until it is answered; what a failure cost is not counted, only that it happened.
    fn job(&mut self, load: &Workload) -> f64 {
        let mut able = self.lanes();
        loop {
            let request = RouteRequest {
                load: *load,
                corpus: None,
                able,
                lacking: &|_| Lacking::default(),
                now_ns: self.now_ns,
                left_ns: f64::INFINITY,
            };
            // No lane at all is the worst of choices.
            let Some(choice) = self.chooser.choose(&self.ledgers, &request) else { return f64::INFINITY };
            let lane =
                if self.by_chance { (self.draw.unit() * self.ledgers.len() as f64) as usize } else { choice.lane };
            let (ledger, backend) = (&self.ledgers[lane], &self.backends[lane]);
            let entry = entry(load.opcode, &choice, self.now_ns);
            ledger.add(&entry);
            if backend.broken {
                self.now_ns += 1_000;
                ledger.failed(&entry, self.now_ns);
                ledger.remove(&entry);
                self.failed[lane] += 1;
                able = able.without(lane);
                continue;
            }
            let took = backend.took(load, &mut self.draw);
            self.now_ns += took as u64;
            ledger.answered(&entry, self.now_ns);
            ledger.remove(&entry);
            self.done[lane] += 1;
            return backend.ns(load);
        }
    }
}

fn entry(opcode: Opcode, choice: &Choice, began_ns: u64) -> PendingJob {
    let (cell, line_ns, expected_ns) = (choice.cell, choice.estimate.line_ns, choice.estimate.ns as u64);
    PendingJob { opcode, cell, line_ns, expected_ns, upload_ns: 0, began_ns, is_trial: choice.reason == Reason::Trial }
}

fn three() -> World {
    World::new(BackendKind::ALL.map(Simulated::new).into())
}

/// One fault opens a breaker for a second.
const RULE: BreakerRule = BreakerRule { failures: 1, window: Duration::from_secs(10), first: Duration::from_secs(1) };

const CPU: usize = 0;
const CUDA: usize = 1;

/// What the router promises: choices that take at most this much longer than the best ones.
const PROMISE: f64 = 0.05;

#[track_caller]
fn keeps_the_promise(bill: &Bill) {
    let (of_all, of_each) = bill.regret();
    assert!(of_all <= PROMISE && of_each <= PROMISE, "{of_all:.3} of all time, {of_each:.3} of each job");
}

#[test]
fn a_calibration_finds_the_costs() {
    for kind in BackendKind::ALL {
        let backend = Simulated { noise: 0.02, ..Simulated::new(kind) };
        let model = backend.calibrated(&mut Draw(3)).model;
        for opcode in one_of_each_class() {
            for load in grid(opcode) {
                let (found, truth) = (model.ns(&load), backend.ns(&load));
                assert!((found / truth - 1.0).abs() < 0.05, "{kind} {load:?}: {found} for {truth}");
            }
            let (found, truth) = (model.of(opcode.class()).to_array(), backend.truth.of(opcode.class()).to_array());
            for place in 0..COEFFICIENTS {
                // What makes up most of the time somewhere on the grid can be told; the rest does not matter there.
                let share = |load: &Workload| terms(&load.size)[place] * truth[place] / backend.ns(load);
                if grid(opcode).iter().any(|load| share(load) > 0.5) {
                    let (found, truth) = (found[place], truth[place]);
                    assert!((found / truth - 1.0).abs() < 0.05, "{kind} {opcode:?} {place}: {found} for {truth}");
                }
            }
        }
    }
}

#[test]
fn choices_among_mixed_jobs_are_nearly_the_best() {
    let mut world = three();
    let bill = world.run(10_000, Draw::load);
    keeps_the_promise(&bill);
    assert!(world.done.iter().all(|done| *done > 20), "all have their uses: {:?}", world.done);
}

#[test]
fn choices_by_chance_are_not() {
    let mut world = three();
    world.by_chance = true;
    let (of_all, of_each) = world.run(10_000, Draw::load).regret();
    assert!(of_all > 10.0 * PROMISE && of_each > 10.0 * PROMISE, "{of_all} {of_each}");
}

#[test]
fn what_bends_the_line_is_learnt() {
    let mut world = three();
    world.backends[CPU].bend = 2.0;
    world.run(3_000, Draw::load);
    keeps_the_promise(&world.run(7_000, Draw::load));
}

#[test]
fn a_drift_is_followed_within_a_hundred_jobs() {
    for (lane, drift) in [(CPU, 3.0), (CPU, 1.0 / 3.0), (CUDA, 3.0), (CUDA, 1.0 / 3.0)] {
        let mut world = three();
        world.run(2_000, Draw::load);
        world.backends[lane].drift = drift;
        world.run(100, Draw::load);
        let (of_all, of_each) = world.run(1_000, Draw::load).regret();
        assert!(of_all <= PROMISE && of_each <= PROMISE, "{lane} by {drift}: {of_all:.3}, {of_each:.3}");
    }
}

/// One size alone, where the best lane is another after the drift, also where only the one that is not asked gets
/// faster.
#[test]
fn a_drift_of_one_size_is_followed_too() {
    let load = |_: &mut Draw| load(Opcode::Search, 16, 5_562, 384, 10);
    for (lane, drift) in [(CUDA, 3.0), (CPU, 3.0), (CUDA, 0.4), (CPU, 0.4)] {
        let mut world = three();
        // As good as the other, but for a little.
        let ratio = world.backends[CUDA].ns(&load(&mut Draw(1))) / world.backends[CPU].ns(&load(&mut Draw(1)));
        world.backends[CPU].drift = ratio * if (lane == CUDA) == (drift > 1.0) { 1.3 } else { 1.0 / 1.3 };
        world.run(500, load);
        world.backends[lane].drift *= drift;
        world.run(100, load);
        let (of_all, _) = world.run(1_000, load).regret();
        assert!(of_all <= PROMISE, "{lane} by {drift}: {of_all:.3}; {:?}", world.done);
    }
}

/// Believed to be far too slow, as by those who insisted on it while it was, and better than ever since.
#[test]
fn however_slow_a_lane_was_it_is_asked_again() {
    let load = load(Opcode::Search, 32, 20_000, 384, 10);
    let mut world = three();
    let (model, measured) = (world.backends[CUDA].truth, Class::ALL.to_vec());
    let corrections = Corrections::seeded(&[(Cell::of(&load), 60f64.ln(), 1.0)]);
    world.ledgers[CUDA].adopt(Estimates { measured, model, corrections });
    world.run(30_000, |_| load);
    keeps_the_promise(&world.run(1_000, |_| load));
}

#[test]
fn a_backend_that_fails_is_left_and_comes_back_when_it_heals() {
    let mut world = three();
    let large = |_: &mut Draw| load(Opcode::Search, 512, 100_000, 384, 10);
    world.run(100, large);
    assert!(world.done[CUDA] > 90, "{:?}", world.done);
    world.backends[CUDA].broken = true;
    let failures_in = |world: &mut World, jobs| {
        let before = world.failed[CUDA];
        world.run(jobs, large);
        world.failed[CUDA] - before
    };
    assert!(failures_in(&mut world, 2_000) <= 12, "it is tried seldom");
    assert!(failures_in(&mut world, 200) <= 1);
    world.backends[CUDA].broken = false;
    let done = world.done[CUDA];
    // A minute at most until it is tried; the others take about 6 ms for such a job.
    world.run(15_000, large);
    assert!(world.done[CUDA] - done > 1_000, "it is used again: {:?}", world.done);
    keeps_the_promise(&world.run(1_000, large));
}

#[test]
fn a_lane_that_is_busy_shares_its_work() {
    let world = three();
    let load = load(Opcode::Search, 512, 100_000, 384, 10);
    let chosen = || {
        let request = RouteRequest {
            load,
            corpus: None,
            able: world.lanes(),
            lacking: &|_| Lacking::default(),
            now_ns: world.now_ns,
            left_ns: f64::INFINITY,
        };
        world.chooser.choose(&world.ledgers, &request)
    };
    let mut given = [0.0; 3];
    for _ in 0..300 {
        let Some(choice) = chosen() else { break };
        world.ledgers[choice.lane].add(&entry(Opcode::Search, &choice, 0));
        given[choice.lane] += choice.estimate.ns;
    }
    let most = given.iter().copied().fold(0.0, f64::max);
    assert!(given.iter().all(|ns| *ns > most * 0.8), "all are busy for about as long: {given:?}");
}

#[test]
fn a_corpus_is_uploaded_when_it_has_been_asked_for_often_enough() {
    let world = three();
    let load = load(Opcode::Search, 64, 100_000, 384, 10);
    let bytes = 400_000_000;
    let choice_within = |left_ns: f64, corpus: u32, stays: bool, resident: bool| {
        let lacking = |lane: usize| match (lane, resident) {
            (CPU, _) | (_, true) => Lacking::default(),
            _ => Lacking { bytes, stays },
        };
        let request =
            RouteRequest { load, corpus: Some(corpus), able: world.lanes(), lacking: &lacking, now_ns: 0, left_ns };
        world.chooser.choose(&world.ledgers, &request).map(|choice| (choice.lane, choice.reason))
    };
    let choice = |corpus, stays, resident| choice_within(f64::INFINITY, corpus, stays, resident);
    let saved = world.backends[CPU].ns(&load) - world.backends[CUDA].ns(&load);
    let upload = world.ledgers[CUDA].upload_ns(bytes);
    let needed = (upload / saved).ceil() as usize;
    assert!(needed > 2, "{upload} {saved}");
    let uploads = |_: &usize| choice(1, true, false) == Some((CUDA, Reason::Upload));
    let first = (1..10 * needed).find(uploads).unwrap_or(usize::MAX);
    assert!(first.abs_diff(needed) <= 1 + needed / 5, "after {first} jobs, where {needed} save its cost");
    let lane = |choice: Option<(usize, Reason)>| choice.map(|(lane, _)| lane);
    assert_eq!(lane(choice(1, true, true)), Some(CUDA), "and then it is used");
    let hurried = (0..10 * needed).all(|_| lane(choice_within(upload, 3, true, false)) == Some(CPU));
    assert!(hurried, "who has no time for the upload does not pay for it");
    let streamed = (0..10 * needed).all(|_| lane(choice(2, false, false)) == Some(CPU));
    assert!(streamed, "what is streamed is never paid for ahead");
}

#[test]
fn where_two_are_as_good_jobs_do_not_swing() {
    let mut world = World::new(vec![Simulated::new(BackendKind::Cpu), Simulated::new(BackendKind::Cpu)]);
    let load = load(Opcode::Search, 16, 5_562, 384, 10);
    let (mut swings, mut last) = (0, None);
    for _ in 0..1_000 {
        let before = world.done.clone();
        world.job(&load);
        let lane = (0..2).find(|lane| world.done[*lane] > before[*lane]);
        swings += usize::from(last.is_some() && last != lane);
        last = lane;
    }
    // Beside the trials: 1.5 % of the time at a quarter of a job's each, there and back.
    assert!(swings <= 200, "{swings}");
}

#[test]
fn lanes_beyond_what_can_be_told_apart_are_passed_over() {
    let backends: Vec<Simulated> = (0..10).map(|_| Simulated::new(BackendKind::Cpu)).collect();
    let mut world = World::new(backends);
    world.run(50, Draw::load);
    assert_eq!(world.done[8..], [0, 0]);
}
