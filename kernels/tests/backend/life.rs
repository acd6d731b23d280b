//! Starting, working, making room, stopping.

use std::sync::atomic::{AtomicBool, Ordering};

use megaring_core::{Backend, BackendKind, Opcode};
use megaring_cuda::CudaMode;
use megaring_cuda::abi::{CORPORA_MASK, Corpus, JOB_SLOTS, control};
use megaring_cuda::device::{Device, DeviceError};
use megaring_ring::{ReserveError, Status};

use crate::harness::{FIRST_RUNS, answer, automaton, await_that, count, parking, patient, scripted, start, submit};
use crate::mock::{CLOCK_BEHIND, Mock, Script};

#[test]
fn it_starts_and_stops_two_hundred_times() {
    let mock = Mock::new(&[]);
    for round in 0..200 {
        let mode = CudaMode::ALL[round % CudaMode::ALL.len()];
        let (backend, ring) = start(&mock, mode, patient()).expect("it starts");
        let tickets: Vec<_> = (0..round % 4).map(|_| submit(&ring)).collect();
        for ticket in tickets {
            assert_eq!(answer(ticket), Status::Ok, "{mode}, round {round}");
        }
        drop(backend);
        assert_eq!(mock.is_idle(), Ok(true), "{mode}, round {round}");
        assert_eq!(mock.allocations(), 0, "{mode}, round {round}: everything was freed");
    }
}

#[test]
fn it_says_what_it_is() {
    let (mock, backend, ring) = scripted(CudaMode::Persistent, patient(), &[]);
    let capabilities = backend.capabilities();
    assert_eq!(backend.kind(), BackendKind::Cuda);
    assert_eq!(
        (capabilities.device.as_str(), capabilities.instruction_set.as_str()),
        ("a device of threads", "threads")
    );
    assert_eq!((capabilities.lanes, capabilities.max_queries), (3, 128), "as many queries as its scratch memory holds");
    assert_eq!(capabilities.max_bytes, ring.max_job_bytes());
    assert!(capabilities.operations.iter().eq(Opcode::ALL), "{:?}", capabilities.operations);
    assert!(
        backend.prepare(None).is_ok_and(|residency| residency.guard.is_none()),
        "a job without a corpus waits for none"
    );
    let params = mock.launched();
    assert_eq!((params.workers, params.job_slots, params.shared_bytes), (3, JOB_SLOTS, 40 << 10));
    assert_eq!((params.corpora_mask, params.scratch_bytes % 256), (CORPORA_MASK, 0));
    assert_eq!((params.ring.arena_blocks, params.ring.arena_block_bytes), (256, 4096));
    assert_eq!((params.budget_ns, params.host_timeout_ns), (30_000_000_000, 30_000_000_000));
}

#[test]
fn tables_are_on_the_device_before_the_first_launch() {
    let (mock, _backend, _ring) = scripted(CudaMode::Persistent, patient(), &[]);
    let (params, automaton) = (mock.launched(), automaton());
    let view = params.automaton;
    assert_eq!(mock.read(view.next, automaton.next().len() * 2), bytemuck::cast_slice::<_, u8>(automaton.next()));
    assert_eq!(mock.read(view.class_of, 256), automaton.class_of());
    let accept = mock.read(view.accept, automaton.accept().len() * 16);
    let halves = accept.chunks_exact(16).map(|pair| u128::from_le_bytes(pair.try_into().expect("16 bytes")));
    assert!(halves.eq(automaton.accept().iter().copied()), "low half first");
    assert_eq!((view.states as usize, view.shift), (automaton.states(), automaton.shift()));
    assert_eq!(view.first_accepting, u32::from(automaton.first_accepting()));
    assert_eq!(view.warm_up as usize, automaton.warm_up());
    let entry = mock.read(params.corpora, size_of::<Corpus>());
    assert_ne!(entry[..4], [0; 4], "no entry is that of corpus 0");
}

#[test]
fn every_mode_answers_every_job_of_many_threads_once() {
    for mode in CudaMode::ALL {
        let (mock, backend, ring) = scripted(mode, patient(), &[]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert_eq!(answer(submit(&ring)), Status::Ok, "{mode}");
                    }
                });
            }
        });
        backend.shutdown();
        let stats = ring.stats();
        assert_eq!((stats.submitted, stats.completed, stats.faults, stats.outstanding), (400, 400, 0, 0), "{mode}");
        assert_eq!(count(&backend, "jobs"), 400, "{mode}: as the kernel counts");
        assert_eq!(mock.replays() > 0, mode == CudaMode::Graph, "{mode}");
        assert_eq!(backend.health(), Ok(()), "{mode}");
    }
}

#[test]
fn a_caller_that_only_awaits_is_woken() {
    for mode in CudaMode::ALL {
        let (backend, ring) = parking(&Mock::new(&[]), mode);
        // As the service's reaper does it; nobody blocks on a ticket and reaps.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ring.is_closed() {
                    ring.reap();
                    ring.reaper_wait(None);
                }
            });
            for _ in 0..20 {
                let mut ticket = Some(submit(&ring));
                await_that("an answer", || match ticket.take().expect("not yet answered").try_collect() {
                    Ok(outcome) => outcome.status() == Status::Ok,
                    Err(again) => {
                        ticket = Some(again);
                        false
                    }
                });
            }
            backend.shutdown();
        });
    }
}

#[test]
fn making_room_under_load_loses_no_job() {
    for mode in CudaMode::ALL {
        let (mock, backend, ring) = scripted(mode, patient(), &[]);
        let done = AtomicBool::new(false);
        let before = mock.allocations();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut answered = 0;
                        while !done.load(Ordering::Acquire) {
                            let several: Vec<_> = (0..3).map(|_| submit(&ring)).collect();
                            for ticket in several {
                                assert_eq!(answer(ticket), Status::Ok, "{mode}");
                                answered += 1;
                            }
                        }
                        answered
                    })
                })
                .collect();
            for _ in 0..40 {
                // The mock refuses memory while a kernel runs.
                let at = backend.interrupt(|| mock.alloc(4096)).expect("in service").expect("memory");
                // SAFETY: just allocated, and nobody knows of it.
                backend.interrupt(|| unsafe { mock.free(at) }).expect("in service");
            }
            done.store(true, Ordering::Release);
            let answered: u64 = workers.into_iter().map(|worker| worker.join().expect("no assertion failed")).sum();
            backend.shutdown();
            let stats = ring.stats();
            assert_eq!((stats.completed, stats.faults, stats.outstanding), (answered, 0, 0), "{mode}");
            assert_eq!(count(&backend, "jobs"), answered, "{mode}: none was done twice");
        });
        assert_eq!(mock.allocations(), before, "{mode}");
        let expected = if mode == CudaMode::Persistent { 80 } else { 0 };
        assert_eq!(count(&backend, "relaunches"), expected, "{mode}: only a kernel that stays is stopped");
    }
}

#[test]
fn jobs_submitted_while_room_is_made_need_no_other_to_wake_the_kernel() {
    for mode in CudaMode::ALL {
        let (backend, ring) = parking(&Mock::new(&[]), mode);
        for _ in 0..50 {
            let ticket = backend.interrupt(|| {
                let ticket = submit(&ring);
                // The thread that launches has been woken in vain, and has parked again.
                (0..100).for_each(|_| std::thread::yield_now());
                ticket
            });
            assert_eq!(answer(ticket.expect("in service")), Status::Ok, "{mode}");
        }
    }
}

#[test]
fn room_can_be_made_by_a_panic_too() {
    let (_mock, backend, ring) = scripted(CudaMode::Persistent, patient(), &[]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = backend.interrupt(|| panic!("in the midst of it"));
    }));
    assert!(panicked.is_err());
    assert_eq!(answer(submit(&ring)), Status::Ok, "the kernel is back at work");
}

#[test]
fn shutting_down_leaves_what_was_not_taken_to_the_host() {
    for mode in CudaMode::ALL {
        let (_mock, backend, ring) = scripted(mode, patient(), &[]);
        let reserved = ring.try_reserve(64, 64).expect("room");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| backend.shutdown());
            }
        });
        backend.shutdown();
        let ticket =
            ring.submit(reserved, megaring_ring::Descriptor { opcode: Opcode::Nop as u16, ..Default::default() });
        assert_eq!(ring.fail_outstanding(Status::ShuttingDown), 1, "{mode}");
        assert_eq!(answer(ticket), Status::ShuttingDown, "{mode}");
        assert!(matches!(ring.try_reserve(1, 1), Err(ReserveError::Closed)), "{mode}");
        assert!(backend.interrupt(|| ()).is_err(), "{mode}: nothing is launched any more");
        assert_eq!(backend.health(), Ok(()), "{mode}: it did not fail");
    }
}

#[test]
fn the_devices_clock_is_told_what_to_add() {
    let (mock, backend, ring) = scripted(CudaMode::Launch, patient(), &[]);
    let offset = ring.lines().control[0].more[control::CLOCK_OFFSET - 1].load(Ordering::Acquire);
    let apart = offset.abs_diff(CLOCK_BEHIND);
    assert!(apart < 500_000_000, "the clock is {CLOCK_BEHIND} ns behind, not {offset}");
    assert_eq!(count(&backend, "launches"), FIRST_RUNS as u64);
    drop(mock);
}

#[test]
fn a_device_that_cannot_start_says_why() {
    type Prepare = fn(&Mock);
    let cases: [(Prepare, &str); 5] = [
        (|mock| mock.limit_memory(1000), "device memory of"),
        (|mock| mock.break_down(DeviceError::Sticky("an uncorrectable error".into())), "an uncorrectable error"),
        (|mock| mock.script(&[Script::Refuse]), "the launch failed"),
        (|mock| mock.script(&[Script::Work, Script::End(0, 3)]), "budget"),
        (|mock| mock.script(&[Script::Vanish(0)]), "no report"),
    ];
    for (prepare, reason) in cases {
        for mode in CudaMode::ALL {
            let mock = Mock::new(&[]);
            prepare(&mock);
            let refused = start(&mock, mode, patient()).map(|_| ()).expect_err(reason);
            assert!(refused.reason.contains(reason), "{mode}: {refused}");
        }
    }
}

#[test]
fn a_machine_without_such_a_gpu_is_told_what_is_missing() {
    let nowhere = megaring_cuda::CudaOptions { device: 4096, ..Default::default() };
    let refused = megaring_cuda::start(&nowhere, &automaton()).map(|_| ()).expect_err("nobody has so many");
    assert!(refused.reason.len() > 20, "{refused}");
}
