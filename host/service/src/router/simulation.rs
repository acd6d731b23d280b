//! Backends that are formulas, on a clock that is a number: what the books and the chooser are worth, without any hardware.

use std::sync::Arc;
use std::time::Duration;

use megaring_core::job::Shape;
use megaring_core::{BackendKind, Lacking, Opcode};

use super::book::{Belief, Book, Entry};
use super::choice::{Ask, Choice, Chooser, Lanes, Why};
use super::corrections::{Cell, Corrections};
use crate::cost::{COEFFICIENTS, Coefficients, CostModel, Parts, Sample, fit};

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

    fn shape(&mut self) -> Shape {
        let items = self.size(1.0, 2_048.0);
        let (rows, dim) = (self.size(200.0, 500_000.0), [64, 384, 1_024][(self.unit() * 3.0) as usize]);
        let k = [1, 10, 90][(self.unit() * 3.0) as usize];
        match self.unit() {
            u if u < 0.6 => Shape { opcode: Opcode::Search, items, rows, dim, k },
            u if u < 0.7 => Shape { opcode: Opcode::Score, items: items.min(64), rows: rows.min(20_000), dim, k: 0 },
            u if u < 0.85 => Shape { opcode: Opcode::Nearest, items, rows, dim: 5, k },
            _ => Shape { opcode: Opcode::Encode, items, rows: items * self.size(20.0, 4_000.0), dim: 1, k: 0 },
        }
    }
}

impl Simulated {
    fn new(kind: BackendKind) -> Self {
        let mut truth = CostModel::assumed(kind);
        // Not what is assumed, or there would be nothing to find out.
        let stretch = if kind == BackendKind::Cpu { 0.4 } else { 2.5 };
        for (place, opcode) in Opcode::ALL.into_iter().enumerate() {
            let of = truth.of_mut(opcode);
            let values = of.to_array().map(|value| value * stretch * (1.0 + place as f64 / 10.0));
            *of = Coefficients::from_array(values);
        }
        Self { kind, truth, drift: 1.0, noise: 0.05, bend: 1.0, broken: false }
    }

    /// Nanoseconds of a job, without noise.
    fn ns(&self, shape: &Shape) -> f64 {
        let bend = if shape.rows.saturating_mul(shape.dim) > 2 << 20 { self.bend } else { 1.0 };
        self.truth.of(shape.opcode).ns(&Parts::of(shape)) * self.drift * bend
    }

    fn took(&self, shape: &Shape, draw: &mut Draw) -> f64 {
        self.ns(shape) * (1.0 + self.noise * (2.0 * draw.unit() - 1.0))
    }

    /// What a calibration makes of it: the median of five measurements of each size, and a line through them.
    fn calibrated(&self, draw: &mut Draw) -> Belief {
        let mut model = CostModel::assumed(self.kind);
        let mut errors = Vec::new();
        for opcode in Opcode::ALL {
            let measured: Vec<(Shape, f64)> = grid(opcode)
                .into_iter()
                .map(|shape| {
                    let mut times: Vec<f64> = (0..5).map(|_| self.took(&shape, draw)).collect();
                    times.sort_by(f64::total_cmp);
                    (shape, times[2])
                })
                .collect();
            let samples: Vec<Sample> =
                measured.iter().map(|(shape, ns)| Sample::new(Parts::of(shape), *ns, 0.0)).collect();
            *model.of_mut(opcode) = fit(&samples).map_or_else(|_| Coefficients::default(), |fit| fit.coefficients);
            let error =
                |(shape, ns): &(Shape, f64)| (Cell::of(shape), (ns / model.of(opcode).ns(&Parts::of(shape))).ln(), 1.0);
            errors.extend(measured.iter().map(error));
        }
        Belief { measured: Opcode::ALL.to_vec(), model, corrections: Corrections::seeded(&errors) }
    }
}

fn grid(opcode: Opcode) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for rows in [300, 3_000, 30_000, 300_000] {
        for (items, k, dim) in
            [(1, 10, 384), (16, 10, 384), (256, 10, 384), (1, 100, 384), (64, 100, 384), (256, 10, 32)]
        {
            let dim = if opcode == Opcode::Nearest { 5 } else { dim };
            shapes.push(match opcode {
                Opcode::Encode => Shape { opcode, items, rows: items * rows / 100, dim: 1, k: 0 },
                Opcode::Nop => Shape { opcode, items: 0, rows: 0, dim: 0, k: 0 },
                _ => Shape { opcode, items, rows, dim, k },
            });
        }
    }
    shapes
}

/// A chooser over simulated backends, and a clock.
struct World {
    backends: Vec<Simulated>,
    books: Vec<Arc<Book>>,
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
        let books = backends.iter().map(|backend| {
            let book = Book::new(backend.kind, Duration::from_secs(1), true);
            book.believe(backend.calibrated(&mut draw));
            Arc::new(book)
        });
        let books: Vec<_> = books.collect();
        let none = vec![0; backends.len()];
        let chooser = Chooser::new(true);
        Self { backends, books, chooser, draw, now_ns: 0, done: none.clone(), failed: none, by_chance: false }
    }

    fn lanes(&self) -> Lanes {
        (0..self.backends.len()).fold(Lanes::default(), Lanes::with)
    }

    /// One job after the other; each takes what the backend's truth says.
    fn run(&mut self, jobs: usize, shape: impl Fn(&mut Draw) -> Shape) -> Bill {
        let mut bill = Bill::default();
        for _ in 0..jobs {
            let shape = shape(&mut self.draw);
            let ns = self.job(&shape);
            let well = self.backends.iter().filter(|backend| !backend.broken);
            let best = well.map(|backend| backend.ns(&shape)).fold(f64::INFINITY, f64::min);
            bill.took += ns;
            bill.best += best;
            bill.logs += (ns / best).ln();
            bill.jobs += 1;
        }
        bill
    }

    /// Until it is answered; what a failure cost is not counted, only that it happened.
    fn job(&mut self, shape: &Shape) -> f64 {
        let mut able = self.lanes();
        loop {
            let ask = Ask {
                shape: *shape,
                corpus: None,
                able,
                lacking: &|_| Lacking::default(),
                now_ns: self.now_ns,
                left_ns: f64::INFINITY,
            };
            // No lane at all is the worst of choices.
            let Some(choice) = self.chooser.choose(&self.books, &ask) else { return f64::INFINITY };
            let lane = if self.by_chance { (self.draw.unit() * self.books.len() as f64) as usize } else { choice.lane };
            let (book, backend) = (&self.books[lane], &self.backends[lane]);
            let entry = entry(&choice, self.now_ns);
            book.arrive(&entry);
            if backend.broken {
                self.now_ns += 1_000;
                book.cooling.failed(entry.began_ns, self.now_ns);
                book.leave(&entry);
                self.failed[lane] += 1;
                able = able.without(lane);
                continue;
            }
            let took = backend.took(shape, &mut self.draw);
            self.now_ns += took as u64;
            book.answered(&entry, self.now_ns);
            book.leave(&entry);
            self.done[lane] += 1;
            return backend.ns(shape);
        }
    }
}

fn entry(choice: &Choice, began_ns: u64) -> Entry {
    let (cell, line_ns, expected_ns) = (choice.cell, choice.quote.line_ns, choice.quote.ns as u64);
    Entry { cell, line_ns, expected_ns, upload_ns: 0, began_ns, is_trial: choice.why == Why::Trial }
}

fn three() -> World {
    World::new(BackendKind::ALL.map(Simulated::new).into())
}

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
        for opcode in Opcode::ALL {
            for shape in grid(opcode) {
                let (found, truth) = (model.of(opcode).ns(&Parts::of(&shape)), backend.ns(&shape));
                assert!((found / truth - 1.0).abs() < 0.05, "{kind} {shape:?}: {found} for {truth}");
            }
            let (found, truth) = (model.of(opcode).to_array(), backend.truth.of(opcode).to_array());
            for place in 0..COEFFICIENTS {
                // What makes up most of the time somewhere on the grid can be told; the rest does not matter there.
                let share = |shape: &Shape| Parts::of(shape).terms()[place] * truth[place] / backend.ns(shape);
                if grid(opcode).iter().any(|shape| share(shape) > 0.5) {
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
    let bill = world.run(10_000, Draw::shape);
    keeps_the_promise(&bill);
    assert!(world.done.iter().all(|done| *done > 20), "all have their uses: {:?}", world.done);
}

#[test]
fn choices_by_chance_are_not() {
    let mut world = three();
    world.by_chance = true;
    let (of_all, of_each) = world.run(10_000, Draw::shape).regret();
    assert!(of_all > 10.0 * PROMISE && of_each > 10.0 * PROMISE, "{of_all} {of_each}");
}

#[test]
fn what_bends_the_line_is_learnt() {
    let mut world = three();
    world.backends[CPU].bend = 2.0;
    world.run(3_000, Draw::shape);
    keeps_the_promise(&world.run(7_000, Draw::shape));
}

#[test]
fn a_drift_is_followed_within_a_hundred_jobs() {
    for (lane, drift) in [(CPU, 3.0), (CPU, 1.0 / 3.0), (CUDA, 3.0), (CUDA, 1.0 / 3.0)] {
        let mut world = three();
        world.run(2_000, Draw::shape);
        world.backends[lane].drift = drift;
        world.run(100, Draw::shape);
        let (of_all, of_each) = world.run(1_000, Draw::shape).regret();
        assert!(of_all <= PROMISE && of_each <= PROMISE, "{lane} by {drift}: {of_all:.3}, {of_each:.3}");
    }
}

/// One size alone, where the best lane is another after the drift, also where only the one that is not asked gets faster.
#[test]
fn a_drift_of_one_size_is_followed_too() {
    let shape = |_: &mut Draw| Shape { opcode: Opcode::Search, items: 16, rows: 5_562, dim: 384, k: 10 };
    for (lane, drift) in [(CUDA, 3.0), (CPU, 3.0), (CUDA, 0.4), (CPU, 0.4)] {
        let mut world = three();
        // As good as the other, but for a little.
        let ratio = world.backends[CUDA].ns(&shape(&mut Draw(1))) / world.backends[CPU].ns(&shape(&mut Draw(1)));
        world.backends[CPU].drift = ratio * if (lane == CUDA) == (drift > 1.0) { 1.3 } else { 1.0 / 1.3 };
        world.run(500, shape);
        world.backends[lane].drift *= drift;
        world.run(100, shape);
        let (of_all, _) = world.run(1_000, shape).regret();
        assert!(of_all <= PROMISE, "{lane} by {drift}: {of_all:.3}; {:?}", world.done);
    }
}

/// Believed to be far too slow, as by those who insisted on it while it was, and better than ever since.
#[test]
fn however_slow_a_lane_was_it_is_asked_again() {
    let shape = Shape { opcode: Opcode::Search, items: 32, rows: 20_000, dim: 384, k: 10 };
    let mut world = three();
    let (model, measured) = (world.backends[CUDA].truth, Opcode::ALL.to_vec());
    let corrections = Corrections::seeded(&[(Cell::of(&shape), 60f64.ln(), 1.0)]);
    world.books[CUDA].believe(Belief { measured, model, corrections });
    world.run(30_000, |_| shape);
    keeps_the_promise(&world.run(1_000, |_| shape));
}

#[test]
fn a_backend_that_fails_is_left_and_comes_back_when_it_heals() {
    let mut world = three();
    let large = |_: &mut Draw| Shape { opcode: Opcode::Search, items: 512, rows: 100_000, dim: 384, k: 10 };
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
    let shape = Shape { opcode: Opcode::Search, items: 512, rows: 100_000, dim: 384, k: 10 };
    let chosen = || {
        let ask = Ask {
            shape,
            corpus: None,
            able: world.lanes(),
            lacking: &|_| Lacking::default(),
            now_ns: world.now_ns,
            left_ns: f64::INFINITY,
        };
        world.chooser.choose(&world.books, &ask)
    };
    let mut given = [0.0; 3];
    for _ in 0..300 {
        let Some(choice) = chosen() else { break };
        world.books[choice.lane].arrive(&entry(&choice, 0));
        given[choice.lane] += choice.quote.ns;
    }
    let most = given.iter().copied().fold(0.0, f64::max);
    assert!(given.iter().all(|ns| *ns > most * 0.8), "all are busy for about as long: {given:?}");
}

#[test]
fn a_corpus_is_uploaded_when_it_has_been_asked_for_often_enough() {
    let world = three();
    let shape = Shape { opcode: Opcode::Search, items: 64, rows: 100_000, dim: 384, k: 10 };
    let bytes = 400_000_000;
    let choice_within = |left_ns: f64, corpus: u32, stays: bool, resident: bool| {
        let lacking = |lane: usize| match (lane, resident) {
            (CPU, _) | (_, true) => Lacking::default(),
            _ => Lacking { bytes, stays },
        };
        let ask = Ask { shape, corpus: Some(corpus), able: world.lanes(), lacking: &lacking, now_ns: 0, left_ns };
        world.chooser.choose(&world.books, &ask).map(|choice| (choice.lane, choice.why))
    };
    let choice = |corpus, stays, resident| choice_within(f64::INFINITY, corpus, stays, resident);
    let saved = world.backends[CPU].ns(&shape) - world.backends[CUDA].ns(&shape);
    let upload = world.books[CUDA].upload_ns(bytes);
    let needed = (upload / saved).ceil() as usize;
    assert!(needed > 2, "{upload} {saved}");
    let uploads = |_: &usize| choice(1, true, false) == Some((CUDA, Why::Upload));
    let first = (1..10 * needed).find(uploads).unwrap_or(usize::MAX);
    assert!(first.abs_diff(needed) <= 1 + needed / 5, "after {first} jobs, where {needed} save its cost");
    let lane = |choice: Option<(usize, Why)>| choice.map(|(lane, _)| lane);
    assert_eq!(lane(choice(1, true, true)), Some(CUDA), "and then it is used");
    let hurried = (0..10 * needed).all(|_| lane(choice_within(upload, 3, true, false)) == Some(CPU));
    assert!(hurried, "who has no time for the upload does not pay for it");
    let streamed = (0..10 * needed).all(|_| lane(choice(2, false, false)) == Some(CPU));
    assert!(streamed, "what is streamed is never paid for ahead");
}

#[test]
fn where_two_are_as_good_jobs_do_not_swing() {
    let mut world = World::new(vec![Simulated::new(BackendKind::Cpu), Simulated::new(BackendKind::Cpu)]);
    let shape = Shape { opcode: Opcode::Search, items: 16, rows: 5_562, dim: 384, k: 10 };
    let (mut swings, mut last) = (0, None);
    for _ in 0..1_000 {
        let before = world.done.clone();
        world.job(&shape);
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
    world.run(50, Draw::shape);
    assert_eq!(world.done[8..], [0, 0]);
}
