//! Devices that fail, and machines that have none.

use std::time::{Duration, Instant};

use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::{Backend, Error, Operation};
use megaring_ring::Status;
use megaring_wgpu::{Loss, WgpuOptions};

use crate::rig::{Rig, encode, nop, options, search, slot};

/// Sends jobs until one is answered well again; the statuses of those before.
fn until_ok(rig: &Rig) -> Vec<Status> {
    let mut failed = Vec::new();
    // More than enough: each answer shows that the dispatcher went on by a step.
    while failed.len() < 1000 {
        match rig.send(&encode(&["love"])).completion.status {
            Status::Ok => return failed,
            status => failed.push(status),
        }
    }
    panic!("the backend does not come back: {failed:?}");
}

/// So short that a test can wait until a silent device is given up; long beside anything that a test asks of a device.
fn impatient() -> WgpuOptions {
    WgpuOptions { patience: Duration::from_secs(3), ..options() }
}

#[test]
fn a_device_that_fails_is_opened_anew_once_and_then_the_backend_is_out() {
    for how in [Loss::Destroyed, Loss::Reset, Loss::Silent] {
        let Some(rig) = Rig::start_with(&impatient()) else { return };
        let view = rig.corpus(400, 16);
        let held = rig.backend.prepare(search(&view, 1, 3).reads()).expect("there is room");
        assert_eq!(rig.send(&slot(&search(&view, 4, 3))).completion.status, Status::Ok);

        rig.backend.lose_device(how);
        let failed = until_ok(&rig);
        assert!(failed.iter().all(|status| *status == Status::BackendFailed), "{how:?}: {failed:?}");
        assert_eq!(rig.count("rebuilds"), 1, "{how:?}");
        assert!(rig.backend.health().is_ok());
        // What was resident went with the device; it is brought again.
        drop(held);
        let uploads = rig.count("uploads");
        let held = rig.backend.prepare(search(&view, 1, 3).reads()).expect("there is room");
        assert_eq!(rig.count("uploads"), uploads + 1);
        assert_eq!(rig.send(&slot(&search(&view, 4, 3))).completion.status, Status::Ok);

        rig.backend.lose_device(how);
        assert_eq!(until_out(&rig), Status::BackendFailed, "{how:?}");
        let reason = rig.backend.health().expect_err("a device that is lost twice is given up");
        assert!(reason.contains("again"), "{reason}");
        assert_eq!(rig.send(&nop()).completion.status, Status::BackendFailed, "slots are still answered");
        let refused = rig.backend.prepare(search(&view, 1, 3).reads()).map(|_| ()).expect_err("the backend is out");
        assert!(matches!(refused, Error::BackendUnavailable { .. }), "{refused}");
        drop(held);
    }
}

/// Sends jobs until the backend is out of service; the last one's status. A loss may be noticed by the next job or the
/// one after.
fn until_out(rig: &Rig) -> Status {
    let mut status = Status::Ok;
    for _ in 0..1000 {
        status = rig.send(&encode(&["love"])).completion.status;
        if rig.backend.health().is_err() {
            break;
        }
    }
    status
}

#[test]
fn a_device_lost_in_the_middle_of_a_batch_loses_no_ticket() {
    for how in [Loss::Destroyed, Loss::Reset, Loss::Silent] {
        let Some(rig) = Rig::start_with(&impatient()) else { return };
        let view = rig.corpus(2_000, 128);
        let held = rig.backend.prepare(search(&view, 1, 3).reads()).expect("there is room");
        let tickets: Vec<_> = (0..40).map(|_| rig.submit(&slot(&search(&view, 16, 10)))).collect();
        rig.backend.lose_device(how);
        let statuses: Vec<Status> = tickets.into_iter().map(|ticket| ticket.wait().completion.status).collect();
        assert!(statuses.iter().all(|s| matches!(s, Status::Ok | Status::BackendFailed)), "{how:?}: {statuses:?}");
        assert_eq!(rig.ring.outstanding(), 0);
        until_ok(&rig);
        drop(held);
    }
}

#[test]
fn a_device_lost_while_a_corpus_is_streamed_is_given_up_at_once() {
    for how in [Loss::Destroyed, Loss::Reset, Loss::Silent] {
        let Some(rig) = Rig::start_with(&WgpuOptions { part_bytes: 64 << 10, ..impatient() }) else { return };
        let view = rig.corpus(20_000, 64);
        rig.backend.lose_device(how);
        let begun = Instant::now();
        assert_eq!(rig.send(&slot(&search(&view, 16, 10))).completion.status, Status::BackendFailed, "{how:?}");
        assert!(begun.elapsed() < Duration::from_secs(40), "one part's patience, not that of all twenty");
        until_ok(&rig);
    }
}

#[test]
fn a_device_lost_while_nothing_is_to_be_done_is_opened_anew_for_who_prepares() {
    let Some(rig) = Rig::start() else { return };
    let view = rig.corpus(400, 16);
    rig.backend.lose_device(Loss::Destroyed);
    let tries = (0..1000).find(|_| {
        std::thread::yield_now();
        rig.backend.prepare(search(&view, 1, 3).reads()).is_ok() || {
            std::thread::park_timeout(Duration::from_millis(10));
            false
        }
    });
    assert!(tries.is_some(), "no slot had to come first");
    assert_eq!(rig.send(&slot(&search(&view, 4, 3))).completion.status, Status::Ok);
}

#[test]
fn a_backend_whose_device_does_not_answer_is_shut_down() {
    let Some(rig) = Rig::start_with(&impatient()) else { return };
    let view = rig.corpus(2_000, 128);
    let tickets: Vec<_> = (0..10).map(|_| rig.submit(&slot(&search(&view, 16, 10)))).collect();
    rig.backend.lose_device(Loss::Silent);
    rig.backend.shutdown();
    rig.ring.close();
    rig.ring.fail_outstanding(Status::ShuttingDown);
    for ticket in tickets {
        assert!(matches!(ticket.wait().completion.status, Status::Ok | Status::BackendFailed | Status::ShuttingDown));
    }
    assert!(rig.backend.health().is_err());
}

#[test]
fn an_adapter_that_is_not_there_is_a_reason() {
    let options = WgpuOptions { adapter: Some("no adapter has such a name".into()), ..options() };
    let automaton = Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"));
    let refused = megaring_wgpu::start(&options, Default::default(), &automaton).map(|_| ()).expect_err("no adapter");
    assert!(refused.reason.contains("adapter"), "{refused}");
}
