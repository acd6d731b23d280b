//! Backends on the mock, jobs for them, and waiting for what must come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megaring_core::encode::keyword::Automaton;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::{Backend, Opcode};
use megaring_cuda::{CudaBackend, CudaMode, CudaOptions, Timings, Unavailable, start_on};
use megaring_ring::{Descriptor, JobRing, RingConfig, Status, Ticket, WaitStrategy};

use crate::mock::{Mock, Script};

/// Kernels that are launched before the first job.
pub(crate) const FIRST_RUNS: usize = 3;

/// How long what must come may take on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn automaton() -> Automaton {
    Automaton::new(&Profile::parse(DEFAULT).expect("the default profile"))
}

pub(crate) fn options(mode: CudaMode) -> CudaOptions {
    let ring = RingConfig { capacity: 16, arena_bytes: 1 << 20, block_bytes: 4096, wait: WaitStrategy::default() };
    CudaOptions { mode, memory_bytes: 8 << 20, ring, ..CudaOptions::default() }
}

/// Beats often, and waits as long as the machine may need.
pub(crate) fn patient() -> Timings {
    let long = Duration::from_secs(30);
    let beat = Duration::from_millis(2);
    Timings { beat, silence: long, host_silence: long, start: long, stop: long, budget: long }
}

/// Beats often, and takes short silence for death.
pub(crate) fn hasty() -> Timings {
    let short = Duration::from_millis(60);
    Timings { silence: short, start: short, ..patient() }
}

pub(crate) fn start(
    mock: &Arc<Mock>,
    mode: CudaMode,
    timings: Timings,
) -> Result<(CudaBackend, Arc<JobRing>), Unavailable> {
    start_on(mock.clone(), &options(mode), &timings, &automaton())
}

/// A backend whose idle threads park at once, so that nothing is seen by chance.
pub(crate) fn parking(mock: &Arc<Mock>, mode: CudaMode) -> (CudaBackend, Arc<JobRing>) {
    let mut options = options(mode);
    options.ring.wait = WaitStrategy::Park;
    start_on(mock.clone(), &options, &patient(), &automaton()).expect("a device of threads is always there")
}

/// A backend whose first kernels after the start follow a script.
pub(crate) fn scripted(mode: CudaMode, timings: Timings, scripts: &[Script]) -> (Arc<Mock>, CudaBackend, Arc<JobRing>) {
    let before = vec![Script::Work; FIRST_RUNS];
    let mock = Mock::new(&[&before, scripts].concat());
    let (backend, ring) = start(&mock, mode, timings).expect("a device of threads is always there");
    (mock, backend, ring)
}

/// Submits a job that asks for nothing, as soon as there is room.
pub(crate) fn submit(ring: &Arc<JobRing>) -> Ticket {
    loop {
        match ring.try_reserve(64, 64) {
            Ok(reservation) => {
                return ring.submit(reservation, Descriptor { opcode: Opcode::Nop as u16, ..Descriptor::default() });
            }
            Err(megaring_ring::ReserveError::RingFull | megaring_ring::ReserveError::ArenaFull) => {
                ring.reap();
                std::thread::yield_now();
            }
            Err(refused) => panic!("{refused}"),
        }
    }
}

/// Blocks until the job is answered; how it went.
pub(crate) fn answer(ticket: Ticket) -> Status {
    ticket.wait_until(Instant::now() + LIMIT).expect("an answer").status()
}

/// Blocks until `seen` is true.
pub(crate) fn await_that(what: &str, mut seen: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !seen() {
        assert!(Instant::now() < limit, "{what} did not come");
        std::thread::yield_now();
    }
}

/// A counter of the backend, by name.
pub(crate) fn count(backend: &CudaBackend, name: &str) -> u64 {
    let counters = backend.counters();
    counters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).expect("a counter of that name")
}
