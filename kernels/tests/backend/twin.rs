//! The same life with the device code itself, as its twin on the CPU runs it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_core::encode::Encode;
use megaring_core::texts::Texts;
use megaring_core::{Backend, Opcode, Operation};
use megaring_cuda::twin::Twin;
use megaring_cuda::{CudaBackend, CudaMode, Timings, start_on};
use megaring_ring::{Descriptor, JobRing, Outcome, Status, Ticket};

use crate::harness::{answer, automaton, count, options, patient, submit};
use crate::slot::slots;

fn twin() -> Option<Arc<Twin>> {
    Twin::load().inspect_err(|why| _ = writeln!(std::io::stdout(), "\nskipped: {why}")).ok()
}

fn start(twin: &Arc<Twin>, mode: CudaMode) -> (CudaBackend, Arc<JobRing>) {
    start_on(twin.clone(), &options(mode), &patient(), &automaton()).expect("the twin starts")
}

fn texts(contents: &[&str]) -> Encode {
    let mut texts = Texts::default();
    contents.iter().for_each(|text| texts.push(text));
    Encode { texts, ..Encode::default() }
}

/// Submits a job of one slot.
fn submit_job(ring: &Arc<JobRing>, job: &dyn Operation) -> Ticket {
    let [sent] = &slots(job)[..] else { panic!("one slot") };
    let mut reserved = ring.try_reserve(sent.payload.len(), sent.result).expect("room");
    reserved.payload_mut().copy_from_slice(&sent.payload);
    ring.submit(reserved, sent.descriptor)
}

fn masks(outcome: &Outcome) -> Vec<u128> {
    let pairs = outcome.result().chunks_exact(16);
    pairs.map(|pair| u128::from_le_bytes(pair.try_into().expect("16 bytes"))).collect()
}

/// A machine's clock may be set, and two clocks drift apart: a kernel that stays must not go by what was measured when
/// it was launched.
#[test]
fn a_kernel_that_stays_has_its_clock_corrected() {
    let Some(twin) = twin() else { return };
    let timings = Timings { beat: Duration::from_millis(5), ..patient() };
    let started = start_on(twin, &options(CudaMode::Persistent), &timings, &automaton());
    let (backend, ring) = started.expect("the twin starts");
    let offset = || &ring.lines().control[0].more[1];
    let measured = offset().load(Ordering::Acquire);
    offset().store(1, Ordering::Release);
    let begun = Instant::now();
    while offset().load(Ordering::Acquire) == 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody corrects the clock");
        std::thread::yield_now();
    }
    let corrected = offset().load(Ordering::Acquire);
    assert!(corrected.abs_diff(measured) < 10_000_000_000, "{corrected} is far from {measured}");
    // Far behind or ahead, the kernel would give these up, or never.
    let deadline = |seconds: i64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i64;
        let reserved = ring.try_reserve(16, 16).expect("room");
        let deadline_ns = (now + seconds * 1_000_000_000) as u64;
        let descriptor = Descriptor { opcode: Opcode::Encode as u16, items: 0, deadline_ns, ..Descriptor::default() };
        ring.submit(reserved, descriptor).wait().completion.status
    };
    assert_eq!(deadline(-60), Status::DeadlineExceeded);
    assert_ne!(deadline(3_600), Status::DeadlineExceeded);
    backend.shutdown();
}

#[test]
fn a_nop_that_comes_too_late_is_told_so() {
    let Some(twin) = twin() else { return };
    let (backend, ring) = start(&twin, CudaMode::Persistent);
    let nop = |deadline_ns: u64| {
        let reserved = ring.try_reserve(0, 0).expect("room");
        ring.submit(reserved, Descriptor { opcode: Opcode::Nop as u16, deadline_ns, ..Descriptor::default() })
            .wait()
            .completion
            .status
    };
    assert_eq!([nop(0), nop(1), nop(u64::MAX)], [Status::Ok, Status::DeadlineExceeded, Status::Ok]);
    backend.shutdown();
}

#[test]
fn it_starts_and_stops_in_every_mode() {
    let Some(twin) = twin() else { return };
    for round in 0..9 {
        let mode = CudaMode::ALL[round % CudaMode::ALL.len()];
        let (backend, ring) = start(&twin, mode);
        for _ in 0..5 {
            assert_eq!(answer(submit(&ring)), Status::Ok, "{mode}");
        }
        backend.shutdown();
        assert_eq!(backend.health(), Ok(()), "{mode}");
        assert_eq!((ring.stats().faults, count(&backend, "jobs")), (0, 5), "{mode}");
        drop((backend, ring));
        assert_eq!(twin.allocated(), 0, "{mode}");
    }
}

#[test]
fn encode_finds_what_the_tables_do() {
    let Some(twin) = twin() else { return };
    let texts = ["", "A Vision of the \u{212A}ernel", "growth, and algorithms", "nothing", "str\u{130}ng structure"];
    let automaton = automaton();
    let expected: Vec<u128> = texts.iter().map(|text| automaton.mask(text.as_bytes())).collect();
    assert!(expected.iter().any(|mask| *mask != 0));
    for mode in CudaMode::ALL {
        let (_backend, ring) = start(&twin, mode);
        let outcome = submit_job(&ring, &self::texts(&texts)).wait();
        assert_eq!((outcome.status(), masks(&outcome)), (Status::Ok, expected.clone()), "{mode}");
    }
}

#[test]
fn making_room_loses_no_job() {
    let Some(twin) = twin() else { return };
    for mode in CudaMode::ALL {
        let (backend, ring) = start(&twin, mode);
        for _ in 0..10 {
            let tickets = [(); 4].map(|()| submit_job(&ring, &texts(&["vision"; 7])));
            backend.interrupt(|| ()).expect("in service");
            for ticket in tickets {
                assert_eq!(answer(ticket), Status::Ok, "{mode}");
            }
        }
        backend.shutdown();
        assert_eq!((ring.stats().faults, count(&backend, "jobs")), (0, 40), "{mode}");
    }
}
