//! The rules, with a clock and a model that the tests set.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const LIMIT: Duration = Duration::from_micros(200);
const LANE: usize = 0;

/// A fixed cost of 30 µs and 10 µs for each query: a batch saves 30 µs a member.
fn with_fixed_cost(queries: usize) -> Duration {
    Duration::from_micros(30 + 10 * queries as u64)
}

/// Groups of one kind, or of two, whose members are numbered.
struct Rig {
    groups: Groups<&'static str, usize>,
    begun: Instant,
    now: Instant,
    members: usize,
    /// Where requests go that go alone.
    lane: usize,
}

/// What became of a request, for comparison.
#[derive(Debug, PartialEq)]
enum Became {
    Alone(u64),
    Waits,
    /// The number of its batch and the members.
    Filled(u64, Vec<usize>),
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        Self { groups: Groups::new(LIMIT), begun: now, now, members: 0, lane: LANE }
    }

    fn ask(&mut self, kind: &'static str, request: Request, predict: impl Fn(usize) -> Duration) -> Became {
        let (member, lane) = (self.members, self.lane);
        match self.groups.enter(&kind, request, self.now, || lane, predict, || member) {
            Decision::Alone(number) => {
                self.groups.routed(&kind, number, lane);
                Became::Alone(number)
            }
            Decision::Waits { .. } => {
                self.members += 1;
                Became::Waits
            }
            Decision::Filled(ReadyBatch { number, members }) => {
                self.members += 1;
                Became::Filled(number, members)
            }
        }
    }

    /// One query, on the usual terms.
    fn one(&mut self, kind: &'static str) -> Became {
        self.ask(kind, request(1), with_fixed_cost)
    }

    /// One query, whose lane is free.
    fn elsewhere(&mut self) -> Became {
        self.lane = LANE + 1;
        let became = self.one("a");
        self.lane = LANE;
        became
    }

    fn answered(&mut self, kind: &'static str, number: u64) -> Option<(u64, Vec<usize>)> {
        self.groups.answered(&kind, number, self.now).map(|left| (left.number, left.members))
    }

    /// Two in flight, so that the next can expect company.
    fn busy() -> Self {
        let mut rig = Self::new();
        assert_eq!([rig.one("a"), rig.one("a")], [Became::Alone(1), Became::Alone(2)]);
        rig
    }

    fn pass(&mut self, micros: u64) {
        self.now += Duration::from_micros(micros);
    }
}

fn request(queries: usize) -> Request {
    Request { queries, deadline: None }
}

#[test]
fn nobody_waits_where_nothing_of_the_kind_is_under_way() {
    let mut rig = Rig::new();
    for number in 1..100 {
        assert_eq!(rig.one("a"), Became::Alone(number));
        assert_eq!(rig.answered("a", number), None);
        rig.pass(number % 3);
    }
    let mut rig = Rig::busy();
    assert_eq!(rig.one("b"), Became::Alone(3), "of another kind");
    assert!(rig.groups.groups.len() == 2);
    for (kind, number) in [("a", 1), ("b", 3), ("a", 2)] {
        assert_eq!(rig.answered(kind, number), None);
    }
    assert!(rig.groups.groups.is_empty(), "what is idle is forgotten");
}

#[test]
fn a_batch_leaves_when_one_under_way_is_answered_and_in_order() {
    let mut rig = Rig::busy();
    assert_eq!([rig.one("a"), rig.one("a"), rig.one("a")], [Became::Waits, Became::Waits, Became::Waits]);
    assert_eq!(rig.answered("a", 2), Some((3, vec![0, 1, 2])));
    assert_eq!(rig.answered("a", 1), None, "nobody waits any more");
    assert_eq!(rig.one("a"), Became::Waits, "the batch is in flight now");
    assert_eq!(rig.answered("a", 3), Some((4, vec![3])));
    assert_eq!(rig.answered("a", 3), None, "told twice");
    assert_eq!(rig.answered("a", 4), None);
    assert!(rig.groups.groups.is_empty());
}

#[test]
fn a_full_batch_leaves_at_once() {
    let mut rig = Rig::busy();
    for _ in 0..FULL / 16 - 1 {
        assert_eq!(rig.ask("a", request(16), with_fixed_cost), Became::Waits);
    }
    assert_eq!(rig.ask("a", request(15), with_fixed_cost), Became::Waits);
    assert_eq!(rig.one("a"), Became::Filled(3, (0..=FULL / 16).collect()));
    assert_eq!(rig.groups.next_due(), None);
    assert_eq!(rig.one("a"), Became::Waits, "the next batch");
}

#[test]
fn a_batch_leaves_when_its_first_member_has_waited_for_the_limit() {
    let mut rig = Rig::busy();
    assert_eq!(rig.groups.next_due(), None);
    rig.pass(3);
    assert_eq!(rig.one("a"), Became::Waits);
    let due = rig.now + LIMIT;
    rig.pass(150);
    assert_eq!(rig.one("a"), Became::Waits);
    assert_eq!(rig.groups.next_due(), Some(due));
    rig.pass(49);
    assert!(rig.groups.overdue(rig.now).is_empty());
    rig.pass(1);
    let overdue = rig.groups.overdue(rig.now);
    assert_eq!(overdue.len(), 1);
    assert_eq!((overdue[0].0, &overdue[0].1.members), ("a", &vec![0, 1]));
    assert!(rig.groups.overdue(rig.now).is_empty() && rig.groups.next_due().is_none());
}

#[test]
fn where_nothing_is_saved_nobody_waits() {
    let linear = |queries: usize| Duration::from_micros(50 * queries as u64);
    let little = |queries: usize| HANDOVER + linear(queries);
    let enough = |queries: usize| HANDOVER + Duration::from_nanos(1) + linear(queries);
    let dear = |queries: usize| linear(queries * queries);
    assert_eq!(Rig::busy().ask("a", request(1), linear), Became::Alone(3));
    assert_eq!(Rig::busy().ask("a", request(1), little), Became::Alone(3));
    assert_eq!(Rig::busy().ask("a", request(1), enough), Became::Waits);
    assert_eq!(Rig::busy().ask("a", request(1), dear), Became::Alone(3));
    // Nor does a request join where that would be dearer, whoever waits already.
    let mut rig = Rig::busy();
    assert_eq!(rig.one("a"), Became::Waits);
    assert_eq!(rig.ask("a", request(1), linear), Became::Alone(3));
    assert_eq!(rig.one("a"), Became::Waits);
    assert_eq!(rig.answered("a", 3), None, "two are ahead of it in any case");
    assert_eq!(rig.answered("a", 1), Some((4, vec![0, 1])));
}

/// In the lane of those in flight a request would wait as well; in one that is free it would not.
#[test]
fn waiting_costs_what_the_ring_would_not() {
    // Those in flight end 40 µs after they began, and 30 µs less 10 µs can be lost at most.
    for (later, waits) in [(0, false), (19, false), (20, false), (21, true), (39, true)] {
        let mut rig = Rig::busy();
        rig.pass(later);
        assert_eq!(rig.elsewhere() == Became::Waits, waits, "after {later} µs");
        let mut rig = Rig::busy();
        rig.pass(later);
        assert_eq!(rig.one("a"), Became::Waits, "after {later} µs");
    }
    // Of one that is late nobody knows how long it takes: perhaps the whole limit.
    let mut rig = Rig::busy();
    rig.pass(41);
    assert_eq!(rig.elsewhere(), Became::Alone(3));
    // A batch that is about to leave is soon enough.
    let mut rig = Rig::busy();
    assert_eq!(rig.one("a"), Became::Waits);
    rig.pass(185);
    assert_eq!(rig.elsewhere(), Became::Waits);
    // A batch is where it was sent to, not where its first member would have been.
    let mut rig = Rig::busy();
    assert_eq!(rig.one("a"), Became::Waits);
    assert_eq!((rig.answered("a", 1), rig.answered("a", 2)), (Some((3, vec![0])), None));
    rig.groups.routed(&"a", 3, LANE + 1);
    assert_eq!(rig.one("a"), Became::Alone(4));
    rig.groups.routed(&"a", 3, LANE);
    assert_eq!(rig.one("a"), Became::Waits);
}

#[test]
fn whoever_has_no_time_does_not_wait() {
    // Until one in flight ends it takes 40 µs, and a batch of two 50 µs.
    for (left, waits) in [(0, false), (90, false), (91, true), (1_000, true)] {
        let mut rig = Rig::busy();
        let deadline = Some(rig.now + Duration::from_micros(left));
        let became = rig.ask("a", Request { deadline, ..request(1) }, with_fixed_cost);
        assert_eq!(became == Became::Waits, waits, "{left} µs left");
    }
}

/// Queries of a job on average, with callers that ask again as soon as they are answered, on a backend that does one
/// job after the other.
fn mean_size(callers: usize) -> f64 {
    let mut rig = Rig::new();
    let mut jobs: VecDeque<(u64, usize)> = VecDeque::new();
    let mut asking = callers;
    let mut done = 0;
    for _ in 0..200 {
        for _ in 0..asking {
            match rig.one("a") {
                Became::Alone(number) => jobs.push_back((number, 1)),
                Became::Waits => {}
                Became::Filled(..) => unreachable!("so few do not fill a batch"),
            }
        }
        let Some((number, size)) = jobs.pop_front() else { unreachable!("they wait for nothing") };
        rig.now += with_fixed_cost(size);
        jobs.extend(rig.answered("a", number).map(|(number, members)| (number, members.len())));
        (done, asking) = (done + size, size);
    }
    done as f64 / 200.0
}

#[test]
fn a_caller_waits_only_where_it_can_expect_company() {
    for callers in [1, 2] {
        assert_eq!(mean_size(callers), 1.0, "while one is worked on, nobody can come but the other");
    }
    for callers in [6, 8, 16, 60] {
        let mean = mean_size(callers);
        assert!(mean > callers as f64 / 4.0, "{callers} callers make jobs of {mean} queries");
    }
}

proptest! {
    /// Whatever happens, every member leaves once, nobody waits where nothing is in flight or longer than the limit,
    /// and no batch is larger than full with the last request.
    #[test]
    fn every_member_leaves_once(events in prop::collection::vec((0..10u8, 1..17usize, 0..60u64), 1..400)) {
        let mut rig = Rig::new();
        let mut in_flight = Vec::new();
        let mut left = Vec::new();
        for (event, queries, pause) in events {
            rig.pass(pause);
            for (_, ready) in rig.groups.overdue(rig.now) {
                in_flight.push(ready.number);
                left.extend(ready.members);
            }
            if event < 6 {
                match rig.ask("a", request(queries), with_fixed_cost) {
                    Became::Alone(number) => in_flight.push(number),
                    Became::Waits => {}
                    Became::Filled(number, members) => {
                        prop_assert!((4..=FULL).contains(&members.len()));
                        in_flight.push(number);
                        left.extend(members);
                    }
                }
            } else if !in_flight.is_empty() {
                let number = in_flight.remove(queries % in_flight.len());
                if let Some((number, members)) = rig.answered("a", number) {
                    in_flight.push(number);
                    left.extend(members);
                }
            }
            prop_assert!(rig.groups.next_due().is_none_or(|due| due > rig.now && due <= rig.now + LIMIT));
            prop_assert!(!in_flight.is_empty() || rig.groups.groups.is_empty());
        }
        while let Some(number) = in_flight.pop() {
            if let Some((number, members)) = rig.answered("a", number) {
                in_flight.push(number);
                left.extend(members);
            }
        }
        prop_assert_eq!(left, (0..rig.members).collect::<Vec<_>>());
        prop_assert!(rig.groups.groups.is_empty());
        prop_assert!(rig.now >= rig.begun);
    }
}
