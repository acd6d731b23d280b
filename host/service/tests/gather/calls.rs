//! Each member of a batch is a call of its own: its time limit, its end, what it can take, its error.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use megaring_ring::event_ring::{Read, Start};

use super::*;

/// Long enough that a batch leaves when the test says so, short enough that whoever has [`SOON`] has the time to wait
/// for it.
const LIMIT: Duration = Duration::from_millis(200);
/// Long enough to get a batch under way.
const SOON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn one_members_time_limit_is_its_own() {
    let rig = rig(LIMIT);
    let [first, second] = rig.busy().await;
    let soon = Terms { deadline: Some(Instant::now() + SOON), ..wish(BackendKind::Cuda) };
    let hurried = rig.call(rig.search(2, 1), soon);
    let others = [rig.one(3), rig.one(4)];
    rig.admits(5).await;
    first.abort();
    rig.keeps(3).await;
    let error = hurried.await.expect("no panic").expect_err("nobody answers it in time");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    rig.admits(3).await;
    rig.let_go();
    for (number, call) in (3..).zip(others) {
        let outcome = answer(call).await;
        assert_eq!(outcome.made.batched_with, 2, "the one that gave up is done all the same");
        assert!(hits(&outcome) == rig.truth(rig.search(number, 1)), "the answer differs");
    }
    answer(second).await;
    rig.settles().await;
}

#[tokio::test]
async fn members_that_go_away_disturb_nobody() {
    // The first, one in the middle, the last; while the batch waits, and while it is under way.
    for (gone, late) in [(2, false), (3, false), (5, false), (2, true), (3, true), (5, true)] {
        let rig = rig(LONG);
        let alone = rig.busy().await;
        let mut calls: Vec<(usize, Call)> = (2..6).map(|number| (number, rig.one(number))).collect();
        rig.admits(6).await;
        if late {
            rig.fake.release();
            rig.keeps(1).await;
            rig.admits(4).await;
        }
        let (_, call) = calls.remove(gone - 2);
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(rig.engine.admission().in_flight(), if late { 3 } else { 5 }, "its place is free at once");
        rig.let_go();
        for (number, call) in calls {
            let outcome = answer(call).await;
            assert_eq!(outcome.made.batched_with, if late { 3 } else { 2 }, "{gone} {late}");
            assert!(hits(&outcome) == rig.truth(rig.search(number, 1)), "the answer differs");
        }
        for call in alone {
            answer(call).await;
        }
        rig.settles().await;
    }
}

#[tokio::test]
async fn a_batch_that_nobody_wants_is_given_up() {
    let rig = rig(LONG);
    let alone = rig.busy().await;
    let abort = |calls: Vec<Call>| calls.into_iter().for_each(|call| call.abort());
    abort((2..5).map(|number| rig.one(number)).collect());
    rig.admits(2).await;
    // Those do not hold up others.
    let later: Vec<Call> = (5..8).map(|number| rig.one(number)).collect();
    rig.admits(5).await;
    rig.fake.release();
    rig.keeps(1).await;
    assert_eq!(rig.submitted(), 3);
    for call in alone {
        answer(call).await;
    }
    // The batch under way: its residency goes, its slot is the backend's until it answers.
    abort(later);
    eventually("it is given up", || rig.fake.resident.load(Ordering::SeqCst) == 0).await;
    assert_eq!((rig.engine.outstanding(), rig.engine.admission().in_flight()), (1, 0));
    rig.let_go();
    rig.settles().await;
}

#[tokio::test]
async fn whoever_is_under_way_and_goes_away_lets_the_batch_leave() {
    let rig = rig(LONG);
    let [first, second] = rig.busy().await;
    let calls = [rig.one(2), rig.one(3)];
    rig.admits(4).await;
    first.abort();
    rig.keeps(3).await;
    rig.let_go();
    for call in calls {
        assert_eq!(answer(call).await.made.batched_with, 1);
    }
    answer(second).await;
    rig.settles().await;
}

#[tokio::test]
async fn each_can_take_as_many_hits_as_it_says() {
    let rig = rig(LONG);
    let alone = rig.busy().await;
    let least = Terms { max_answers: Some(K - 1), ..wish(BackendKind::Cuda) };
    let enough = Terms { max_answers: Some(K), ..wish(BackendKind::Cuda) };
    let calls = [rig.call(rig.search(2, 1), least), rig.call(rig.search(3, 1), enough)];
    rig.admits(4).await;
    rig.let_go();
    let [refused, answered] = calls;
    let error = refused.await.expect("no panic").expect_err("one hit too many");
    assert!(matches!(&error, Error::Invalid(violation) if violation.field == "queries"), "{error}");
    assert_eq!(answer(answered).await.made.batched_with, 1);
    for call in alone {
        answer(call).await;
    }
    rig.settles().await;
}

#[tokio::test]
async fn an_error_reaches_each_member_once() {
    let rig = rig(LONG);
    let alone = rig.busy().await;
    let calls: Vec<Call> = (2..6).map(|number| rig.one(number)).collect();
    rig.admits(6).await;
    rig.fake.set(fake::Mode::Answer(0));
    rig.fake.release();
    for call in calls {
        let error = call.await.expect("no panic").expect_err("they insist on it");
        assert!(matches!(&error, Error::Internal(what) if what.contains("backend cuda failed")), "{error}");
    }
    for call in alone {
        answer(call).await;
    }
    assert_eq!((rig.submitted(), rig.engine.metrics().snapshot().jobs_batched), (3, 0));
    rig.settles().await;
}

#[tokio::test]
async fn a_backend_that_fails_costs_them_time_and_not_the_answer() {
    let rig = rig(LONG);
    rig.engine.router().adopt(BackendKind::Cpu, taking(BackendKind::Cpu, 1e9), &[]);
    let call = |number| rig.call(rig.search(number, 1), Terms::default());
    rig.fake.set(fake::Mode::Keep);
    let alone = [call(0), call(1)];
    rig.keeps(2).await;
    let calls: Vec<Call> = (2..6).map(call).collect();
    rig.admits(6).await;
    rig.fake.set(fake::Mode::Answer(0));
    rig.fake.release();
    for (number, call) in (2..).zip(calls) {
        let outcome = answer(call).await;
        assert_eq!((outcome.made.backend, outcome.made.batched_with), (BackendKind::Cpu, 3));
        assert!(hits(&outcome) == rig.truth(rig.search(number, 1)), "the answer differs");
    }
    for call in alone {
        assert_eq!(answer(call).await.made.backend, BackendKind::Cuda);
    }
    let sums = rig.engine.metrics().snapshot();
    assert_eq!((sums.failovers, sums.jobs_batched, sums.jobs_answered), (1, 4, 6 + 4), "the truth's too");
    assert_eq!(rig.submitted(), 3);
    rig.settles().await;
}

#[tokio::test]
async fn draining_answers_those_who_wait() {
    let rig = rig(LONG);
    let alone = rig.busy().await;
    let calls: Vec<Call> = (2..6).map(|number| rig.one(number)).collect();
    rig.admits(6).await;
    let engine = rig.engine.clone();
    let draining = tokio::spawn(async move { engine.drain().await });
    eventually("it drains", || rig.engine.admission().is_closed()).await;
    rig.let_go();
    for call in calls.into_iter().chain(alone) {
        answer(call).await;
    }
    draining.await.expect("no panic");
    rig.settles().await;
}

#[tokio::test]
async fn each_is_reported_under_its_tenant() {
    let rig = rig(LONG);
    let mut events = rig.engine.telemetry().ring().consumer(Start::Latest).expect("a place");
    let alone = rig.busy().await;
    let terms = |tenant: &str| Terms { tenant: tenant.into(), ..wish(BackendKind::Cuda) };
    let calls = ["a", "b", "c"].map(|tenant| rig.call(rig.search(2, 2), terms(tenant)));
    rig.admits(5).await;
    rig.let_go();
    for call in calls.into_iter().chain(alone) {
        answer(call).await;
    }
    let mut sources = Vec::new();
    while let Read::Event(event) = events.try_read() {
        let queries = u64::from_le_bytes(event.data()[8..16].try_into().expect("8 bytes"));
        sources.push((event.source(), queries));
    }
    sources.sort_unstable();
    let source = |tenant: &str| megaring_ring::slot::fnv1a64(tenant.as_bytes());
    let mut expected = vec![(source(""), 1), (source(""), 1)];
    expected.extend(["a", "b", "c"].map(|tenant| (source(tenant), 2)));
    expected.sort_unstable();
    assert_eq!(sources, expected);
    rig.settles().await;
}

/// The slot says when nobody wants it any more: not before the last.
#[tokio::test]
async fn a_batch_has_the_latest_of_its_time_limits() {
    let rig = rig(LIMIT);
    let [first, second] = rig.busy().await;
    rig.fake.set(fake::Mode::FailLate);
    let until = |time| Terms { deadline: Some(Instant::now() + time), ..wish(BackendKind::Cuda) };
    // Were it the first's, or none, the second would be told of a failure before its time is over.
    let terms = [SOON, 2 * SOON].map(until);
    let calls = terms.clone().map(|terms| rig.call(rig.search(2, 1), terms));
    rig.admits(4).await;
    first.abort();
    for (call, terms) in calls.into_iter().zip(terms) {
        let error = call.await.expect("no panic").expect_err("the fake does not answer in time");
        assert!(terms.deadline.is_some_and(|deadline| deadline <= Instant::now()), "{error}");
    }
    eventually("the slot is answered", || rig.engine.outstanding() == 2).await;
    assert_eq!(rig.submitted(), 3);
    rig.let_go();
    answer(second).await;
    rig.settles().await;
}

/// Preparing a batch may take long, too.
#[tokio::test]
async fn members_wait_for_a_device_no_longer_than_they_can() {
    let rig = rig(LIMIT);
    let [first, second] = rig.busy().await;
    rig.fake.set_open(false);
    let soon = Terms { deadline: Some(Instant::now() + SOON), ..wish(BackendKind::Cuda) };
    let calls = [rig.call(rig.search(2, 1), soon), rig.one(3), rig.one(4)];
    rig.admits(5).await;
    first.abort();
    eventually("the batch prepares", || rig.fake.preparing.load(Ordering::SeqCst) == 3).await;
    let [hurried, calls @ ..] = calls;
    assert!(matches!(hurried.await.expect("no panic"), Err(Error::DeadlineExceeded { .. })));
    rig.fake.set_open(true);
    rig.keeps(3).await;
    rig.let_go();
    for call in calls.into_iter().chain([second]) {
        answer(call).await;
    }
    rig.settles().await;
}

#[tokio::test]
async fn whoever_insists_on_a_backend_that_is_gone_is_told() {
    for event in 0..3 {
        let rig = rig(LONG);
        let [first, second] = rig.busy().await;
        let calls: Vec<Call> = (2..5).map(|number| rig.one(number)).collect();
        rig.admits(5).await;
        match event {
            0 => rig.fake.refuse(Some(Error::BackendUnavailable { kind: BackendKind::Cuda, reason: "gone".into() })),
            1 => rig.fake.fall_ill("gone"),
            // With those under way.
            _ => rig.fake.die("gone"),
        }
        first.abort();
        for call in calls {
            match call.await.expect("no panic") {
                Err(Error::BackendUnavailable { kind: BackendKind::Cuda, reason }) => assert!(reason.contains("gone")),
                other => panic!("{event}: {other:?}"),
            }
        }
        rig.let_go();
        assert_eq!(second.await.expect("no panic").is_ok(), event < 2);
        eventually("all places are free", || rig.engine.admission().in_flight() == 0).await;
        assert_eq!(rig.engine.admission().bytes_in_flight(), 0);
    }
}

/// A batch runs where its first member is. Where that ends, the others are answered all the same.
#[tokio::test]
async fn whoever_loses_its_batch_goes_alone() {
    let rig = rig(LONG);
    let alone = rig.busy().await;
    let ending = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = ending.handle().clone();
    let calls: Vec<Call> = (2..5)
        .map(|number| {
            let (engine, job, handle) = (rig.engine.clone(), rig.search(number, 1), handle.clone());
            tokio::spawn(async move {
                let mut call = pin!(engine.run_batched(job, wish(BackendKind::Cuda)));
                // Begun as if on the runtime that ends.
                let begun = poll_fn(|context| {
                    let _on = handle.enter();
                    Poll::Ready(call.as_mut().poll(context))
                });
                match begun.await {
                    Poll::Ready(result) => result,
                    Poll::Pending => call.await,
                }
            })
        })
        .collect();
    rig.admits(5).await;
    ending.shutdown_background();
    rig.let_go();
    for (number, call) in (2..).zip(calls) {
        let outcome = answer(call).await;
        assert_eq!(outcome.made.batched_with, 0);
        assert!(hits(&outcome) == rig.truth(rig.search(number, 1)), "the answer differs");
    }
    for call in alone {
        answer(call).await;
    }
    assert_eq!(rig.submitted(), 5);
    rig.settles().await;
}
