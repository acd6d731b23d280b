//! Who shares a batch, and when it leaves.

use super::*;

#[tokio::test]
async fn what_comes_while_others_are_under_way_goes_as_one() {
    let rig = rig(LONG);
    let alone = rig.busy().await;
    let bytes = rig.engine.admission().bytes_in_flight();
    let sizes = [1, 3, 16, 2, 1];
    let calls = sizes.map(|queries| (queries, rig.call(rig.search(10 + queries, queries), wish(BackendKind::Cuda))));
    rig.admits(7).await;
    assert_eq!((rig.submitted(), rig.fake.kept()), (2, 2), "they wait");
    assert_eq!(rig.engine.admission().bytes_in_flight(), bytes + bytes / 2 * 23, "each stands for its own bytes");
    rig.let_go();
    for (queries, call) in calls {
        let outcome = answer(call).await;
        assert!(hits(&outcome) == rig.truth(rig.search(10 + queries, queries)), "the answer differs");
        assert_eq!((outcome.made.batched_with, outcome.made.backend), (23 - queries as u32, BackendKind::Cuda));
        assert_eq!(outcome.made.rows_rescored, (queries * ROWS) as u64, "its own");
        assert!(outcome.made.exact && outcome.made.instruction_set == "fake");
    }
    for call in alone {
        assert_eq!(answer(call).await.made.batched_with, 0);
    }
    assert_eq!(rig.submitted(), 3);
    let sums = rig.engine.metrics().snapshot();
    assert_eq!((sums.jobs_answered, sums.items_answered, sums.jobs_batched), (7 + 5, 25 + 23, 5), "the truth's too");
    rig.settles().await;
}

#[tokio::test]
async fn nobody_waits_for_nobody() {
    let rig = rig(LONG);
    for number in 0..20 {
        let outcome = rig.engine.run_batched(rig.search(number, 1), wish(BackendKind::Cuda)).await;
        assert_eq!(outcome.expect("a good job").made.batched_with, 0);
    }
    // Two callers have nobody to gather with.
    rig.fake.set(fake::Mode::Keep);
    let calls = [rig.one(0), rig.one(1)];
    rig.keeps(2).await;
    rig.let_go();
    for call in calls {
        assert_eq!(answer(call).await.made.batched_with, 0);
    }
    assert_eq!(rig.submitted(), 22);
    rig.settles().await;
}

#[tokio::test]
async fn kinds_do_not_mix() {
    let rig = rig(LONG);
    let mut calls = Vec::from(rig.busy().await);
    let base = || rig.search(7, 1);
    let others = [
        Search { k: K + 1, ..base() },
        Search { metric: Metric::L2, ..base() },
        Search { threshold: Some(0.0), ..base() },
        Search { threshold: Some(-0.0), ..base() },
        Search { k: 2_000, ..base() },
        Search { queries: rig.search(7, 17).queries, ..base() },
    ];
    append(rig.engine.store(), &rig.rows);
    let newer = rig.search(7, 1);
    let others: Vec<Search> = others.into_iter().chain([newer]).collect();
    for (place, job) in others.iter().enumerate() {
        calls.push(rig.call(job.clone(), wish(BackendKind::Cuda)));
        // At once: it is kept beside the two.
        rig.keeps(3 + place).await;
    }
    // Whoever insists on another backend, or on none, has another kind.
    for terms in [wish(BackendKind::Cpu), Terms::default()] {
        assert_eq!(answer(rig.call(base(), terms)).await.made.backend, BackendKind::Cpu);
    }
    let kept = rig.fake.kept();
    rig.let_go();
    for (call, job) in calls.into_iter().skip(2).zip(others) {
        let outcome = answer(call).await;
        assert_eq!(outcome.made.batched_with, 0);
        assert!(hits(&outcome) == rig.truth(job), "the answer differs");
    }
    assert_eq!(rig.submitted(), kept as u64);
}

#[tokio::test]
async fn a_full_batch_does_not_wait() {
    let rig = rig(LONG);
    let alone = rig.busy().await;
    let job = |number| rig.search(number, 16);
    let mut calls: Vec<Call> = (0..3).map(|number| rig.call(job(number), wish(BackendKind::Cuda))).collect();
    rig.admits(5).await;
    assert_eq!(rig.submitted(), 2);
    calls.push(rig.call(job(3), wish(BackendKind::Cuda)));
    rig.keeps(3).await;
    rig.let_go();
    for call in calls {
        assert_eq!(answer(call).await.made.batched_with, 48);
    }
    for call in alone {
        answer(call).await;
    }
    rig.settles().await;
}

/// Nothing is answered meanwhile.
#[tokio::test]
async fn nobody_waits_longer_than_the_limit() {
    let rig = rig(Duration::from_millis(2));
    let alone = rig.busy().await;
    let calls: Vec<Call> = (2..5).map(|number| rig.one(number)).collect();
    // As one batch, or as several where this machine is slow.
    eventually("all are under way", || rig.fake.kept() >= 3).await;
    rig.admits(5).await;
    rig.let_go();
    for call in calls.into_iter().chain(alone) {
        answer(call).await;
    }
    rig.settles().await;
}

#[tokio::test]
async fn a_limit_of_zero_turns_it_off() {
    let rig = rig(Duration::ZERO);
    rig.fake.set(fake::Mode::Keep);
    let calls: Vec<Call> = (0..8).map(|number| rig.one(number)).collect();
    rig.keeps(8).await;
    rig.let_go();
    for call in calls {
        assert_eq!(answer(call).await.made.batched_with, 0);
    }
    rig.settles().await;
}

#[test]
fn a_blocking_caller_goes_alone() {
    let rig = rig(LONG);
    rig.fake.set(fake::Mode::Keep);
    std::thread::scope(|scope| {
        let call = |number| {
            let job = rig.search(number, 1);
            rig.engine.run_blocking(job, wish(BackendKind::Cuda)).expect("a good job").made.batched_with
        };
        let calls: Vec<_> = (0..5).map(|number| scope.spawn(move || call(number))).collect();
        let begun = Instant::now();
        while rig.fake.kept() < 5 {
            assert!(begun.elapsed() < Duration::from_secs(60), "they wait");
            std::thread::yield_now();
        }
        rig.let_go();
        assert!(calls.into_iter().all(|call| call.join().expect("no panic") == 0));
    });
}
