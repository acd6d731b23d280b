//! Breakers: what opens one, for how long, who may try, and what closes it.
#![cfg(not(loom))]

use std::time::Duration;

use megaring_board::{Board, BreakerRule, BreakerState};

const SECOND: u64 = 1_000_000_000;

fn after(failures: u64) -> BreakerRule {
    BreakerRule { failures, window: Duration::from_secs(10), first: Duration::from_secs(1) }
}

#[test]
fn faults_open_it_for_longer_each_time_and_one_job_tries() {
    let (board, rule) = (Board::in_memory().unwrap(), after(1));
    let breaker = board.breaker(5);
    assert_eq!(breaker.state(0), BreakerState::Absent);
    breaker.install();
    assert_eq!(breaker.state(0), BreakerState::Closed);
    assert!(breaker.may_try(&rule, 0) && breaker.may_try(&rule, 0) && !breaker.is_open(0));
    breaker.failed(&rule, 0, 0);
    assert_eq!(breaker.state(SECOND - 1), BreakerState::Open);
    assert!(breaker.is_open(SECOND - 1) && !breaker.may_try(&rule, SECOND - 1));
    assert_eq!(
        (breaker.state(SECOND), breaker.opens_for(SECOND / 4)),
        (BreakerState::HalfOpen, Duration::from_millis(750))
    );
    assert!(!breaker.is_open(SECOND) && breaker.may_try(&rule, SECOND), "one tries");
    assert_eq!(breaker.state(SECOND + 1), BreakerState::HalfOpen);
    assert!(breaker.is_open(SECOND + 1) && !breaker.may_try(&rule, SECOND + 1), "and no other");
    breaker.failed(&rule, SECOND, SECOND);
    assert!(breaker.is_open(3 * SECOND - 1) && !breaker.is_open(3 * SECOND), "two seconds now");
    for time in 2..40 {
        breaker.failed(&rule, time * SECOND, time * SECOND);
    }
    assert!(breaker.is_open(98 * SECOND) && !breaker.is_open(99 * SECOND), "a minute at most");
    breaker.answered(40 * SECOND);
    assert!(!breaker.is_open(0) && breaker.may_try(&rule, 0) && breaker.may_try(&rule, 0));
    assert_eq!(breaker.state(0), BreakerState::Closed);
}

#[test]
fn it_takes_as_many_faults_as_the_rule_says_and_none_too_far_apart() {
    let (board, rule) = (Board::in_memory().unwrap(), after(3));
    let breaker = board.breaker(0);
    breaker.install();
    for time in [1, 2, 13, 14] {
        breaker.failed(&rule, time * SECOND, time * SECOND);
        assert!(!breaker.is_open(time * SECOND), "{time}");
    }
    breaker.failed(&rule, 24 * SECOND, 24 * SECOND);
    assert!(breaker.is_open(25 * SECOND - 1) && !breaker.is_open(25 * SECOND));
    breaker.failed(&rule, 60 * SECOND, 60 * SECOND);
    assert!(breaker.is_open(62 * SECOND - 1), "while it is open, nothing is too far apart");
    breaker.answered(60 * SECOND);
    breaker.failed(&rule, 61 * SECOND, 61 * SECOND);
    assert!(!breaker.is_open(61 * SECOND), "a success forgets the faults before it");
}

#[test]
fn one_fault_counts_once_whatever_it_hit() {
    let (board, rule) = (Board::in_memory().unwrap(), after(2));
    let breaker = board.breaker(63);
    for began in 0..8 {
        breaker.failed(&rule, began, 100 + began);
    }
    assert_eq!((breaker.failures(), breaker.is_open(100)), (1, false));
}

#[test]
fn an_answer_from_before_the_fault_does_not_end_it() {
    let (board, rule) = (Board::in_memory().unwrap(), after(1));
    let breaker = board.breaker(1);
    breaker.failed(&rule, 0, 100);
    breaker.answered(99);
    assert!(breaker.is_open(200));
    breaker.answered(100);
    assert!(!breaker.is_open(200));
}
