//! What becomes of jobs and of the backend when the kernel, the device or this process stands still.

use std::time::Duration;

use megaring_core::Backend;
use megaring_cuda::device::{Device, DeviceError};
use megaring_cuda::{CudaMode, Timings};
use megaring_ring::{Status, Ticket};

use crate::harness::{answer, await_that, count, hasty, patient, scripted, submit};
use crate::mock::Script;

/// Waits for all; how many ended so.
fn ended(tickets: Vec<Ticket>, status: Status) -> usize {
    tickets.into_iter().map(answer).filter(|ended| *ended == status).count()
}

#[test]
fn a_kernel_that_stalls_costs_its_jobs_an_error_each_and_the_backend_its_service() {
    for mode in CudaMode::ALL {
        let (mock, backend, ring) = scripted(mode, hasty(), &[Script::Stall]);
        let tickets: Vec<_> = (0..8).map(|_| submit(&ring)).collect();
        mock.stall();
        assert_eq!(ended(tickets, Status::BackendFailed), 8, "{mode}");
        let reason = backend.health().expect_err("out of service");
        assert!(reason.contains("heartbeat"), "{mode}: {reason}");
        assert!(ring.is_closed() && backend.interrupt(|| ()).is_err(), "{mode}");
        assert_eq!(mock.is_idle(), Ok(false), "{mode}: it is there still");
        let stats = ring.stats();
        assert!(stats.quarantined > 0 && stats.arena_leased > 0, "{mode}: and may write to its jobs' runs: {stats:?}");

        // It comes back and answers what it had taken, too late for anyone.
        mock.release();
        await_that("the end of the quarantine", || ring.stats().arena_leased == 0);
        assert_eq!(mock.is_idle(), Ok(true), "{mode}: not before it was over");
        assert_eq!(ring.stats().completed, 8, "{mode}: nobody is answered twice");
        assert!(backend.health().is_err(), "{mode}: it stays out of service");
    }
}

#[test]
fn a_kernel_that_ends_by_itself_says_why() {
    let reasons = [(3, "budget"), (4, "tail"), (1, "nobody had asked"), (77, "77")];
    for (number, word) in reasons {
        let (mock, backend, ring) = scripted(CudaMode::Persistent, patient(), &[Script::End(0, number)]);
        let ticket = ring.try_reserve(8, 8).map(|reserved| ring.submit(reserved, Default::default()));
        if let Ok(ticket) = ticket {
            assert_eq!(answer(ticket), Status::BackendFailed, "{number}");
        }
        await_that("the failure", || backend.health().is_err());
        let reason = backend.health().expect_err("out of service");
        assert!(reason.contains(word), "{number}: {reason}");
        await_that("the end of the quarantine", || ring.stats().arena_leased == 0);
        assert_eq!(mock.is_idle(), Ok(true));
    }
}

#[test]
fn a_launched_kernel_that_ends_by_itself_fails_what_it_took() {
    for mode in [CudaMode::Launch, CudaMode::Graph] {
        let (_mock, backend, ring) = scripted(mode, patient(), &[Script::End(0, 3)]);
        assert_eq!(answer(submit(&ring)), Status::BackendFailed, "{mode}");
        assert!(backend.health().is_err_and(|reason| reason.contains("budget")), "{mode}");
    }
}

#[test]
fn a_kernel_that_vanishes_is_missed_at_once() {
    // The timings are patient: it is the driver that tells.
    for mode in CudaMode::ALL {
        let (_mock, backend, ring) = scripted(mode, patient(), &[Script::Vanish(1)]);
        let status = answer(submit(&ring));
        assert!(matches!(status, Status::Ok | Status::BackendFailed), "{mode}: {status}");
        await_that("the failure", || backend.health().is_err());
        assert!(backend.health().is_err_and(|reason| reason.contains("no report")), "{mode}");
    }
}

#[test]
fn a_kernel_that_never_begins_is_given_up() {
    for mode in CudaMode::ALL {
        let (_mock, backend, ring) = scripted(mode, hasty(), &[Script::Absent]);
        // A kernel that is to stay may have been given up by now, and the ring is closed.
        let ticket = ring.try_reserve(8, 8).map(|reserved| ring.submit(reserved, Default::default()));
        if let Ok(ticket) = ticket {
            assert_eq!(answer(ticket), Status::BackendFailed, "{mode}");
        }
        await_that("the failure", || backend.health().is_err());
        assert!(backend.health().is_err_and(|reason| reason.contains("sign of life")), "{mode}");
    }
}

#[test]
fn a_host_that_stood_still_launches_again_and_loses_nothing() {
    for mode in CudaMode::ALL {
        // A launch has one job for certain; at its limit a kernel would end for another reason.
        let scripts = [Script::End(1, 2), Script::End(1, 2), Script::End(0, 2)];
        let (_mock, backend, ring) = scripted(mode, patient(), &scripts);
        let tickets: Vec<_> = (0..10).map(|_| submit(&ring)).collect();
        assert_eq!(ended(tickets, Status::Ok), 10, "{mode}");
        assert_eq!(count(&backend, "host_lost"), 3, "{mode}");
        assert_eq!(backend.health(), Ok(()), "{mode}");
    }
}

#[test]
fn the_host_beats_while_nothing_else_happens() {
    let timings = Timings { host_silence: Duration::from_secs(600), ..patient() };
    let (_mock, backend, ring) = scripted(CudaMode::Persistent, timings, &[Script::LoseHost(3)]);
    await_that("a kernel that saw three beats", || count(&backend, "host_lost") == 1);
    assert_eq!(answer(submit(&ring)), Status::Ok);
}

#[test]
fn a_kernel_that_does_not_stop_is_left_its_memory() {
    let (mock, backend, ring) = scripted(CudaMode::Persistent, hasty(), &[Script::Stall]);
    let allocations = mock.allocations();
    mock.stall();
    // The stop finds it silent.
    backend.shutdown();
    assert!(backend.health().is_err());
    drop(backend);
    assert_eq!(mock.allocations(), allocations, "it may still use all of it");
    assert_eq!(mock.is_idle(), Ok(false));
    assert_eq!(ring.outstanding(), 0);
}

#[test]
fn room_is_not_made_where_the_kernel_does_not_stop() {
    let (mock, backend, ring) = scripted(CudaMode::Persistent, hasty(), &[Script::Stall]);
    mock.stall();
    let mut ran = false;
    let refused = backend.interrupt(|| ran = true).expect_err("the kernel does not stop");
    assert!(refused.to_string().contains("heartbeat"), "{refused}");
    assert!(!ran && ring.is_closed());
}

#[test]
fn a_device_that_breaks_takes_the_backend_out_of_service() {
    for mode in CudaMode::ALL {
        let (mock, backend, ring) = scripted(mode, patient(), &[]);
        mock.break_down(DeviceError::Sticky("an illegal address".into()));
        await_that("the failure", || backend.health().is_err());
        let reason = backend.health().expect_err("out of service");
        assert!(reason.contains("for good") && reason.contains("illegal address"), "{mode}: {reason}");
        assert!(ring.is_closed(), "{mode}");
    }
}

#[test]
fn a_launch_that_is_refused_is_a_failure() {
    let (_mock, backend, ring) = scripted(CudaMode::Persistent, patient(), &[Script::Work, Script::Refuse]);
    // The work itself is done; it is the launch after it that fails.
    backend.interrupt(|| ()).expect("the work is done");
    await_that("the failure", || backend.health().is_err());
    assert!(backend.health().is_err_and(|reason| reason.contains("the launch failed")));
    assert!(ring.is_closed());
    for mode in [CudaMode::Launch, CudaMode::Graph] {
        let (_mock, backend, ring) = scripted(mode, patient(), &[Script::Refuse]);
        assert_eq!(answer(submit(&ring)), Status::BackendFailed, "{mode}");
        assert!(backend.health().is_err(), "{mode}");
    }
}
