//! A simulated machine whose clock moves only in calls: who is measured when, how often, and what comes of it.

use std::cell::{Cell, RefCell};

use super::*;

/// A machine whose time passes only in calls, and that may change its speed.
#[derive(Default)]
struct Machine {
    now: Cell<Duration>,
    /// From this time on everything takes this many times as long.
    slower: Cell<Option<(Duration, f64)>>,
}

impl Machine {
    fn work(&self, nanos: f64) -> Duration {
        let factor = self.slower.get().filter(|(from, _)| self.now.get() >= *from).map_or(1.0, |(_, factor)| factor);
        let took = Duration::from_nanos((nanos * factor) as u64);
        self.now.set(self.now.get() + took);
        took
    }

    fn measure<E>(&self, plan: &Plan, subjects: Vec<Subject<'_, E>>) -> Vec<Measured<E>> {
        alternate(plan, subjects, &|| self.now.get(), &mut |_| {})
    }
}

const MICRO: f64 = 1e3;
const MILLI: f64 = 1e6;

fn plan() -> Plan {
    Plan {
        warm_up: Duration::from_millis(1),
        settle: Duration::from_micros(100),
        turn: Duration::from_millis(1),
        limit: Duration::from_millis(500),
        ..Plan::default()
    }
}

/// Work of this length, within a tenth more.
fn steady<'a>(machine: &'a Machine, nanos: f64) -> Subject<'a, String> {
    let mut random = Random::new(nanos as u64);
    Subject::new(move |_| Ok(machine.work(nanos * (1.0 + random.unit() / 10.0))))
}

/// Work of which nobody knows how long it takes.
fn restless<'a>(machine: &'a Machine, nanos: f64) -> Subject<'a, String> {
    let mut random = Random::new(3);
    Subject::new(move |_| Ok(machine.work(nanos * random.unit().powi(4))))
}

fn times(measured: &Measured<String>) -> &Times {
    measured.times.as_ref().expect("there are samples")
}

#[test]
fn a_drift_of_the_machine_falls_on_all_alike() {
    let machine = Machine::default();
    // Long before the end, and not at the start.
    machine.slower.set(Some((Duration::from_millis(300), 3.0)));
    let plan = Plan { certainty: 0.0, ..plan() };
    let done = machine.measure(&plan, vec![steady(&machine, 100.0 * MICRO), steady(&machine, 200.0 * MICRO)]);
    let ratio = times(&done[1]).p50_ns / times(&done[0]).p50_ns;
    assert!((1.8..2.2).contains(&ratio), "{ratio}");
    for measured in &done {
        assert!(
            times(measured).doubts.iter().any(|doubt| doubt.contains("more than the first")),
            "{:?}",
            times(measured)
        );
    }
}

#[test]
fn nobody_is_always_first_and_the_order_is_the_same_in_every_run() {
    let order = || {
        let (machine, turns) = (Machine::default(), RefCell::new(Vec::new()));
        let named = |name| {
            let (machine, turns) = (&machine, &turns);
            Subject::<String>::new(move |_| {
                turns.borrow_mut().push(name);
                Ok(machine.work(5.0 * MILLI))
            })
        };
        machine.measure(&Plan { least: 30, ..plan() }, vec![named(0), named(1), named(2)]);
        turns.into_inner()
    };
    let turns = order();
    assert_eq!(turns.len(), 3 + 30 * 3, "one call a turn, as each is long, and the warm-up");
    for name in 0..3 {
        let firsts = turns.chunks(3).filter(|round| round[0] == name).count();
        assert!((4..=18).contains(&firsts), "{name} is first in {firsts} of 31 rounds");
        assert!(turns.chunks(3).all(|round| round.contains(&name)), "each has a turn in each round");
    }
    assert_eq!(order(), turns);
}

#[test]
fn one_that_fails_keeps_what_it_has_and_the_others_go_on() {
    let machine = Machine::default();
    let failing = |from| {
        let machine = &machine;
        Subject::new(move |call: Call| match call.number {
            number if number < from => Ok(machine.work(MILLI)),
            number => Err(format!("call {number} failed")),
        })
    };
    let done = machine.measure(&plan(), vec![failing(0), steady(&machine, MILLI), failing(3)]);
    assert_eq!((done[0].error.as_deref(), &done[0].times), (Some("call 0 failed"), &None));
    assert_eq!(done[2].error.as_deref(), Some("call 3 failed"));
    assert_eq!((done[2].samples.len(), times(&done[2]).p50_ns), (2, MILLI));
    assert!(done[1].error.is_none() && done[1].turns >= plan().least);
}

#[test]
fn one_that_is_certain_at_once_gets_the_least_turns_and_no_doubt() {
    let machine = Machine::default();
    let done = machine.measure(&plan(), vec![Subject::<String>::new(|_| Ok(machine.work(50.0 * MICRO)))]);
    assert_eq!((done[0].turns, times(&done[0]).p50_ns), (6, 50.0 * MICRO));
    assert_eq!(times(&done[0]).doubts, Vec::<String>::new());
    // Twenty in each turn.
    assert_eq!(done[0].samples.len(), 120);
}

#[test]
fn a_slow_one_gets_its_least_turns_and_a_doubt_where_they_say_little() {
    let machine = Machine::default();
    let slow = |spread: f64| {
        let (machine, mut random) = (&machine, Random::new(4));
        Subject::<String>::new(move |_| Ok(machine.work(3_000.0 * MILLI * (1.0 + spread * random.unit()))))
    };
    let done = machine.measure(&plan(), vec![slow(0.0), slow(1.0)]);
    for measured in &done {
        assert_eq!((measured.turns, measured.samples.len()), (6, 6), "one call is beyond the limit");
    }
    assert!(times(&done[0]).doubts.is_empty());
    let [doubt] = &times(&done[1]).doubts[..] else { panic!("{:?}", times(&done[1]).doubts) };
    assert!(doubt.starts_with("after 6 samples the median is known within "), "{doubt}");
}

#[test]
fn what_a_turn_begins_with_counts_for_nothing() {
    let machine = Machine::default();
    // It falls asleep while the other has its turn, and takes ten times as long in the three calls after that.
    let (slept, awake) = (Cell::new(0), Cell::new(0_u32));
    let sleepy = Subject::<String>::new(|_| {
        awake.set(if slept.replace(0) > 0 { 0 } else { awake.get() + 1 });
        Ok(machine.work(if awake.get() < 3 { 100.0 * MICRO } else { 10.0 * MICRO }))
    });
    let other = Subject::new(|_| {
        slept.set(1);
        Ok(machine.work(5.0 * MILLI))
    });
    let plan = Plan { settle: Duration::from_micros(300), ..plan() };
    let done = machine.measure(&plan, vec![sleepy, other]);
    assert_eq!((times(&done[0]).max_ns, done[0].turns), (10.0 * MICRO, 6));
}

#[test]
fn short_work_is_repeated_until_the_clock_can_tell() {
    let machine = Machine::default();
    let short = Subject::<String>::repeated(|call| Ok(machine.work(7.0 * f64::from(call.repeats))));
    let long = Subject::repeated(|call| Ok(machine.work(30.0 * MICRO * f64::from(call.repeats))));
    let nothing = Subject::repeated(|_| Ok(Duration::ZERO));
    let done = machine.measure(&plan(), vec![short, long, nothing]);
    assert_eq!((done[0].repeats, times(&done[0]).p50_ns), (4_096, 7.0));
    assert_eq!((done[1].repeats, times(&done[1]).p50_ns), (1, 30.0 * MICRO));
    assert!(done[2].repeats == MOST_REPEATS && done[2].samples.len() <= plan().most + plan().least);
    let single = machine.measure(
        &plan(),
        vec![Subject::<String>::new(|call| {
            assert_eq!(call.repeats, 1);
            Ok(machine.work(7.0))
        })],
    );
    assert_eq!(single[0].repeats, 1);
}

#[test]
fn a_quick_companion_goes_on_and_a_dear_one_does_not() {
    let machine = Machine::default();
    let plan = Plan { turn: Duration::ZERO, settle: Duration::ZERO, most: 400, ..plan() };
    let calls = Cell::new(0_usize);
    let quick = Subject::<String>::new(|_| Ok(machine.work(50.0 * MICRO)));
    let dear = Subject::<String>::new(|_| {
        calls.set(calls.get() + 1);
        Ok(machine.work(20.0 * MILLI))
    });
    let done = machine.measure(&plan, vec![quick, dear, restless(&machine, MILLI)]);
    assert_eq!(done[2].turns, 400, "it never knows");
    assert!(done[0].turns >= 399, "the quick one went along for {} rounds", done[0].turns);
    let used = done[2].samples.iter().sum::<f64>() / (20.0 * MILLI);
    assert!((done[1].turns as f64) <= used.max(6.0) + 1.0, "{} turns beside {used}", done[1].turns);
}

#[test]
fn time_and_samples_are_bounded() {
    let machine = Machine::default();
    let done = machine.measure(&Plan { certainty: 0.0, ..plan() }, vec![restless(&machine, 500.0 * MICRO)]);
    assert!(machine.now.get() < plan().limit + Duration::from_millis(10), "{:?}", machine.now.get());
    assert!(done[0].samples.len() < plan().most && done[0].turns > plan().least);
    let few = Plan { certainty: 0.0, most: 50, ..plan() };
    let done = machine.measure(&few, vec![restless(&machine, 200.0 * MICRO)]);
    assert!((50..=50 + 6).contains(&done[0].samples.len()), "{}", done[0].samples.len());
    // A turn that is longer than the limit ends with it, and those that follow take one sample each.
    let machine = Machine::default();
    let long = Plan { turn: Duration::from_secs(5), limit: Duration::from_millis(100), ..plan() };
    let done = machine.measure(&long, vec![steady(&machine, MILLI)]);
    assert!(machine.now.get() < Duration::from_millis(125), "{:?}", machine.now.get());
    assert_eq!(done[0].turns, plan().least);
}

#[test]
fn what_is_prepared_counts_for_the_limit_and_not_for_the_sample() {
    let machine = Machine::default();
    let mut random = Random::new(8);
    let prepared = Subject::<String>::new(|_| {
        machine.work(2.0 * MILLI);
        Ok(machine.work(10.0 * MICRO * random.unit()))
    });
    let done = machine.measure(&Plan { certainty: 0.0, ..plan() }, vec![prepared]);
    assert!(times(&done[0]).max_ns <= 10.0 * MICRO);
    assert!((240..=251).contains(&done[0].samples.len()), "{}", done[0].samples.len());
}

#[test]
fn a_clock_that_stands_ends_too() {
    let plan = Plan { most: 100, ..plan() };
    let done = alternate(&plan, vec![Subject::<String>::new(|_| Ok(Duration::ZERO))], &|| Duration::ZERO, &mut |_| {});
    assert!(done[0].samples.len() >= 100 && times(&done[0]).p50_ns == 0.0);
}

#[test]
fn progress_grows_to_one() {
    let (machine, mut told) = (Machine::default(), Vec::new());
    let subjects = vec![restless(&machine, 10.0 * MICRO), steady(&machine, MILLI)];
    alternate(&plan(), subjects, &|| machine.now.get(), &mut |share| told.push(share));
    assert!(told.len() > 10 && told.is_sorted() && told[0] < 0.5, "{told:?}");
    assert_eq!(told.last(), Some(&1.0));
    alternate::<String>(&plan(), Vec::new(), &clock(), &mut |share| assert_eq!(share, 1.0));
}

#[test]
fn each_call_has_a_number_of_its_own() {
    let (machine, mut numbers) = (Machine::default(), Vec::new());
    machine.measure(
        &plan(),
        vec![Subject::<String>::new(|call| {
            numbers.push(call.number);
            Ok(machine.work(100.0 * MICRO))
        })],
    );
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
}
