//! Devices that fail, and machines that have none.

use megaring_core::{Backend, Error};
use megaring_ring::Status;
use megaring_wgpu::WgpuOptions;

use crate::rig::{Rig, job, masks, nop, options, search};

/// Sends jobs until one is answered well again; the statuses of those before.
fn until_ok(rig: &Rig) -> Vec<Status> {
    let mut failed = Vec::new();
    // More than enough: each answer shows that the dispatcher went on by a step.
    while failed.len() < 1000 {
        match rig.send(&masks(&["love"])).completion.status {
            Status::Ok => return failed,
            status => failed.push(status),
        }
    }
    panic!("the backend does not come back: {failed:?}");
}

#[test]
fn a_lost_device_is_opened_anew_once_and_then_the_backend_is_out() {
    let Some(rig) = Rig::start() else { return };
    let view = rig.corpus(400, 16);
    let held = rig.backend.prepare(&job(&view)).expect("there is room");
    assert_eq!(rig.send(&search(&view, 4, 3)).completion.status, Status::Ok);

    rig.backend.lose_device();
    let failed = until_ok(&rig);
    assert!(failed.iter().all(|status| *status == Status::BackendFailed), "{failed:?}");
    assert_eq!(rig.count("rebuilds"), 1);
    assert!(rig.backend.health().is_ok());
    // What was resident went with the device; it is brought again.
    drop(held);
    let uploads = rig.count("uploads");
    let held = rig.backend.prepare(&job(&view)).expect("there is room");
    assert_eq!(rig.count("uploads"), uploads + 1);
    assert_eq!(rig.send(&search(&view, 4, 3)).completion.status, Status::Ok);

    rig.backend.lose_device();
    let mut status = Status::Ok;
    // The loss may be noticed by the next job or the one after.
    for _ in 0..1000 {
        status = rig.send(&masks(&["love"])).completion.status;
        if rig.backend.health().is_err() {
            break;
        }
    }
    assert_eq!(status, Status::BackendFailed);
    let reason = rig.backend.health().expect_err("a device that is lost twice is given up");
    assert!(reason.contains("again"), "{reason}");
    assert_eq!(rig.send(&nop()).completion.status, Status::BackendFailed, "slots are still answered");
    let refused = rig.backend.prepare(&job(&view)).map(|_| ()).expect_err("the backend is out");
    assert!(matches!(refused, Error::BackendUnavailable { .. }), "{refused}");
    drop(held);
}

#[test]
fn a_device_lost_in_the_middle_of_a_batch_loses_no_ticket() {
    let Some(rig) = Rig::start() else { return };
    let view = rig.corpus(2_000, 128);
    let held = rig.backend.prepare(&job(&view)).expect("there is room");
    let tickets: Vec<_> = (0..40).map(|_| rig.submit(&search(&view, 16, 10))).collect();
    rig.backend.lose_device();
    let statuses: Vec<Status> = tickets.into_iter().map(|ticket| ticket.wait().completion.status).collect();
    assert!(statuses.iter().all(|status| matches!(status, Status::Ok | Status::BackendFailed)), "{statuses:?}");
    assert_eq!(rig.ring.outstanding(), 0);
    until_ok(&rig);
    drop(held);
}

#[test]
fn an_adapter_that_is_not_there_is_a_reason() {
    let options = WgpuOptions { adapter: Some("no adapter has such a name".into()), ..options() };
    let automaton = megaring_core::keyword::Automaton::new(
        &megaring_core::profile::Profile::parse(megaring_core::profile::DEFAULT).expect("the default profile"),
    );
    let refused = megaring_wgpu::start(&options, Default::default(), &automaton).map(|_| ()).expect_err("no adapter");
    assert!(refused.reason.contains("adapter"), "{refused}");
}
