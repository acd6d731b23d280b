//! The line before the gate: who is let in next, who waits how long, and that whoever leaves takes nothing along. Time
//! is tokio's and stands still, but where everybody waits for it.

use std::sync::Arc;
use std::time::Duration;

use megaring_core::Error;
use megaring_engine::Terms;
use megaring_engine::admission::{Admission, Demand, Limits, Permit};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::Instant;

const WAIT: Duration = Duration::from_millis(100);
const LIMITS: Limits =
    Limits { jobs: 3, tenant_jobs: usize::MAX, bytes: 100, wait: WAIT, waiting_jobs: 4, waiting_bytes: 1_000 };

type Call = JoinHandle<Result<Permit, Error>>;

fn tenant(name: &str) -> Terms {
    Terms { tenant: name.into(), ..Terms::default() }
}

/// A call that has been polled once: it is let in, refused, or stands in line.
async fn call(gate: &Arc<Admission>, terms: Terms, bytes: usize, waiting_bytes: usize) -> Call {
    let gate = gate.clone();
    let call = tokio::spawn(async move { gate.admit(&terms, Demand { bytes, waiting_bytes }).await });
    yield_now().await;
    call
}

async fn permit(call: Call) -> Permit {
    call.await.expect("no panic").expect("it is let in")
}

async fn refusal(call: Call) -> Error {
    call.await.expect("no panic").map(|_| ()).expect_err("it is refused")
}

async fn abort(call: Call) {
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()));
}

/// How many are in flight, with how many bytes, and how many stand in line.
fn state(gate: &Admission) -> (usize, usize, usize) {
    (gate.in_flight(), gate.bytes_in_flight(), gate.waiting())
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let gate = Admission::new(Limits { jobs: 1, ..LIMITS });
    let mut inside = gate.try_admit(&tenant(""), 1).expect("room");
    let mut calls = Vec::new();
    for number in 2..6 {
        calls.push(call(&gate, tenant(""), number, 0).await);
    }
    assert_eq!(state(&gate), (1, 1, 4));
    for (number, call) in (2..6).zip(calls) {
        drop(inside);
        assert_eq!(state(&gate), (1, number, 5 - number), "the next is let in at once");
        assert!(gate.try_admit(&tenant(""), 1).is_err(), "nobody comes between");
        inside = permit(call).await;
    }
    drop(inside);
    assert_eq!(state(&gate), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn small_ones_do_not_pass_a_large_one() {
    let gate = Admission::new(LIMITS);
    let inside = gate.try_admit(&tenant(""), 60).expect("room");
    let beside = gate.try_admit(&tenant(""), 35).expect("room");
    let large = call(&gate, tenant(""), 80, 0).await;
    let small = call(&gate, tenant(""), 10, 0).await;
    assert_eq!(state(&gate), (2, 95, 2));
    drop(beside);
    assert_eq!(state(&gate), (1, 60, 2), "the small one would fit");
    assert!(matches!(gate.try_admit(&tenant(""), 10), Err(Error::Exhausted { what: "the arena", .. })));
    drop(inside);
    let (large, small) = (permit(large).await, permit(small).await);
    assert_eq!(state(&gate), (2, 90, 0));
    drop(small);
    // When the large one gives up, it holds up nobody any more.
    let larger = call(&gate, tenant(""), 90, 0).await;
    let small = call(&gate, tenant(""), 10, 0).await;
    assert_eq!(gate.waiting(), 2);
    abort(larger).await;
    drop(permit(small).await);
    drop(large);
    assert_eq!(state(&gate), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_needs_less_after_all_makes_room() {
    let gate = Admission::new(LIMITS);
    let mut inside = gate.try_admit(&tenant(""), 60).expect("room");
    let waits = call(&gate, tenant(""), 50, 0).await;
    inside.exchange(50);
    drop(permit(waits).await);
    assert_eq!(state(&gate), (1, 50, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_its_tenant_holds_up_no_other() {
    let gate = Admission::new(Limits { tenant_jobs: 1, ..LIMITS });
    let inside = gate.try_admit(&tenant("a"), 1).expect("room");
    let second = call(&gate, tenant("a"), 2, 0).await;
    assert_eq!(gate.waiting(), 1);
    // As many of a tenant wait as may be in flight.
    let refused = refusal(call(&gate, tenant("a"), 4, 0).await).await;
    assert!(matches!(refused, Error::Exhausted { what: "the tenant's share", .. }), "{refused}");
    let other = permit(call(&gate, tenant("b"), 8, 0).await).await;
    let third = permit(call(&gate, tenant("c"), 16, 0).await).await;
    assert_eq!(state(&gate), (3, 25, 1));
    // Its tenant has room again, and is the first in line.
    let last = call(&gate, tenant("d"), 32, 0).await;
    drop(inside);
    let second = permit(second).await;
    assert_eq!(state(&gate), (3, 26, 1));
    drop((other, third));
    drop((permit(last).await, second));
    assert_eq!(state(&gate), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded_in_calls_and_in_bytes() {
    let gate = Admission::new(Limits { jobs: 1, ..LIMITS });
    let inside = gate.try_admit(&tenant(""), 1).expect("room");
    let full = |error: Error| assert!(matches!(error, Error::Exhausted { what: "the service", .. }), "{error}");
    let before = Instant::now();
    full(refusal(call(&gate, tenant(""), 1, 1_001).await).await);
    let mut calls = vec![call(&gate, tenant(""), 1, 999).await];
    full(refusal(call(&gate, tenant(""), 1, 2).await).await);
    for _ in 0..3 {
        calls.push(call(&gate, tenant(""), 1, 0).await);
    }
    full(refusal(call(&gate, tenant(""), 1, 0).await).await);
    assert_eq!(before.elapsed(), Duration::ZERO, "whom the line has no place for is refused at once");
    // Bytes and places are given back by those who leave, and by those who are let in.
    abort(calls.remove(0)).await;
    calls.push(call(&gate, tenant(""), 1, 1_000).await);
    assert_eq!(state(&gate), (1, 1, 4));
    drop(inside);
    for call in calls {
        drop(permit(call).await);
    }
    assert_eq!(state(&gate), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn it_waits_as_long_as_it_may_and_no_longer_than_its_deadline() {
    let gate = Admission::new(Limits { jobs: 1, ..LIMITS });
    let inside = gate.try_admit(&tenant(""), 1).expect("room");
    let begun = Instant::now();
    let soon = begun + WAIT / 2;
    let hurried = call(&gate, Terms { deadline: Some(soon.into_std()), ..tenant("") }, 1, 0).await;
    let patient = call(&gate, tenant(""), 1, 0).await;
    assert!(matches!(refusal(hurried).await, Error::DeadlineExceeded { .. }));
    // The clock of these tests counts milliseconds.
    let after = |expected: Duration| (expected..=expected + Duration::from_millis(1)).contains(&begun.elapsed());
    assert!(after(WAIT / 2), "{:?}", begun.elapsed());
    assert_eq!(gate.waiting(), 1);
    let late = call(&gate, Terms { deadline: Some((begun + 9 * WAIT).into_std()), ..tenant("") }, 1, 0).await;
    let refused = refusal(patient).await;
    assert!(matches!(refused, Error::Exhausted { what: "the service", .. }), "{refused}");
    assert!(after(WAIT), "{:?}", begun.elapsed());
    // A late deadline does not let it wait longer.
    assert!(matches!(refusal(late).await, Error::Exhausted { .. }));
    assert!(after(WAIT / 2 + WAIT), "{:?}", begun.elapsed());
    drop(inside);
    assert_eq!(state(&gate), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_for_one_that_has_just_gone_goes_on_to_the_next() {
    let gate = Admission::new(Limits { jobs: 1, ..LIMITS });
    let inside = gate.try_admit(&tenant(""), 1).expect("room");
    let first = call(&gate, tenant(""), 2, 0).await;
    let second = call(&gate, tenant(""), 4, 0).await;
    // The first is let in, and goes away before it knows.
    drop(inside);
    assert_eq!(state(&gate), (1, 2, 1));
    abort(first).await;
    assert_eq!(state(&gate), (1, 4, 0));
    drop(permit(second).await);
    assert_eq!(state(&gate), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn draining_sends_the_line_away() {
    let gate = Admission::new(Limits { jobs: 1, ..LIMITS });
    let inside = gate.try_admit(&tenant(""), 1).expect("room");
    let calls = [call(&gate, tenant(""), 1, 500).await, call(&gate, tenant(""), 1, 500).await];
    gate.close();
    for call in calls {
        assert!(matches!(refusal(call).await, Error::Draining));
    }
    assert!(matches!(refusal(call(&gate, tenant(""), 1, 0).await).await, Error::Draining));
    assert_eq!(state(&gate), (1, 1, 0));
    drop(inside);
    gate.emptied().await;
}

/// Callers of three tenants on four threads, a third of which go away at any moment: nothing is lost, and no limit is
/// passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_hold_among_threads_and_nothing_is_lost() {
    let limits = Limits { wait: Duration::from_secs(3_600), tenant_jobs: 2, waiting_jobs: 1_000, ..LIMITS };
    let gate = Admission::new(limits);
    for round in 0..50 {
        let calls = (0..60).map(|number: usize| {
            let gate = gate.clone();
            let call = tokio::spawn(async move {
                let demand = Demand { bytes: 7 * number % 60, waiting_bytes: number };
                let permit = gate.admit(&tenant(["a", "b", "c"][number % 3]), demand).await;
                let permit = permit.map_err(|error| assert!(matches!(error, Error::Exhausted { .. }), "{error}"));
                assert!(gate.in_flight() <= 3 && gate.bytes_in_flight() <= 100);
                (0..number % 5).for_each(|_| std::hint::spin_loop());
                yield_now().await;
                permit.is_ok()
            });
            (number, call)
        });
        let mut admitted = 0;
        for (number, call) in calls.collect::<Vec<_>>() {
            if (number + round) % 3 == 0 {
                call.abort();
            }
            admitted += usize::from(call.await.is_ok_and(|is_admitted| is_admitted));
        }
        assert!(admitted > 0);
        assert_eq!(state(&gate), (0, 0, 0), "round {round}");
    }
}
