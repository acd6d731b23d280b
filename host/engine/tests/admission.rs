//! Admission by itself: what fits, what does not, and that permits come back.

use std::time::{Duration, Instant};

use megaring_core::Error;
use megaring_engine::Terms;
use megaring_engine::admission::{Admission, Limits};
use proptest::prelude::*;

/// Without a line; `line.rs` is about that.
const LIMITS: Limits =
    Limits { jobs: 3, tenant_jobs: 2, bytes: 100, wait: Duration::ZERO, waiting_jobs: 0, waiting_bytes: 0 };

fn tenant(name: &str) -> Terms {
    Terms { tenant: name.into(), ..Terms::default() }
}

#[test]
fn each_limit_is_named_and_lifted_by_dropping_a_permit() {
    let gate = Admission::new(LIMITS);
    let first = gate.try_admit(&tenant("a"), 10).expect("room");
    let _second = gate.try_admit(&tenant("a"), 10).expect("room");
    let full = |terms: &Terms, bytes: usize| match gate.try_admit(terms, bytes) {
        Err(Error::Exhausted { what, retry_after }) => {
            assert!((Duration::from_millis(1)..=Duration::from_secs(1)).contains(&retry_after));
            what
        }
        Err(other) => panic!("{other}"),
        Ok(_) => "nothing",
    };
    assert_eq!(full(&tenant("a"), 1), "the tenant's share");
    assert_eq!(full(&tenant("b"), 81), "the arena");
    let third = gate.try_admit(&tenant("b"), 80).expect("exactly full");
    assert_eq!(full(&tenant("c"), 0), "the service");
    drop(first);
    drop(third);
    assert_eq!((gate.in_flight(), gate.bytes_in_flight()), (1, 10));
    assert!(gate.try_admit(&tenant("a"), 1).is_ok());
}

#[test]
fn a_job_larger_than_the_arena_may_run_alone() {
    let gate = Admission::new(LIMITS);
    let large = gate.try_admit(&tenant("a"), 1_000).expect("it is split later; alone it can");
    assert!(gate.try_admit(&tenant("b"), 1).is_err());
    drop(large);
    assert_eq!(gate.bytes_in_flight(), 0);
}

#[test]
fn a_job_that_moves_takes_its_bytes_along() {
    let gate = Admission::new(LIMITS);
    let mut moves = gate.try_admit(&tenant("a"), 40).expect("room");
    let stays = gate.try_admit(&tenant("b"), 50).expect("room");
    moves.exchange(10);
    assert_eq!((gate.in_flight(), gate.bytes_in_flight()), (2, 60));
    moves.exchange(70);
    assert_eq!(gate.bytes_in_flight(), 120, "it is in already, so it is not refused");
    assert!(gate.try_admit(&tenant("c"), 1).is_err());
    drop(moves);
    assert_eq!(gate.bytes_in_flight(), 50);
    drop(stays);
    assert_eq!((gate.in_flight(), gate.bytes_in_flight()), (0, 0));
}

#[test]
fn a_closed_gate_and_a_passed_deadline_admit_nothing() {
    let gate = Admission::new(LIMITS);
    let late = Terms { deadline: Some(Instant::now()), ..Terms::default() };
    assert!(matches!(gate.try_admit(&late, 1), Err(Error::DeadlineExceeded { .. })));
    gate.close();
    assert!(matches!(gate.try_admit(&tenant("a"), 1), Err(Error::Draining)));
    assert!(gate.is_closed());
}

proptest! {
    #[test]
    fn limits_hold_under_any_sequence(steps in proptest::collection::vec((0_usize..4, 0_usize..60, any::<bool>()), 1..60)) {
        let gate = Admission::new(LIMITS);
        let mut held = Vec::new();
        for (who, bytes, drops) in steps {
            if drops && !held.is_empty() {
                held.remove(who % held.len());
            } else if let Ok(permit) = gate.try_admit(&tenant(&who.to_string()), bytes) {
                held.push((permit, who, bytes));
            }
            let sum: usize = held.iter().map(|(_, _, bytes)| bytes).sum();
            prop_assert!(held.len() <= 3 && sum <= 100);
            prop_assert!((0..4).all(|t| held.iter().filter(|(_, who, _)| *who == t).count() <= 2));
            prop_assert_eq!((gate.in_flight(), gate.bytes_in_flight()), (held.len(), sum));
        }
        held.clear();
        prop_assert_eq!((gate.in_flight(), gate.bytes_in_flight()), (0, 0));
    }
}
