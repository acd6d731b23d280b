//! The thread that does what a device cannot: wake a thread of this process.
//!
//! In persistent mode it sees completions come and wakes the thread that reaps them; in the other modes it also
//! launches the kernel when the ring has news, and waits for them as the settings say. With no job under way the thread
//! of persistent mode is parked, but not before [`BETWEEN_JOBS`] is over, unless all are to park at once: to wake it
//! costs a caller who asks one question after the other more than the job. While jobs are under way it spins a little,
//! then yields, and for long jobs looks now and then, which costs such a job up to [`LOOK`] of its latency.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use megaring_ring::WaitStrategy;

use crate::backend::CudaMode;
use crate::launch::Kernel;

const SPIN: Duration = Duration::from_micros(20);
const YIELD: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_micros(50);
/// An answer's way to a caller, and the next question's way back.
const BETWEEN_JOBS: Duration = Duration::from_micros(200);
/// How often a thread whose ring is closed looks up. Only reservations of before can still be submitted.
const LEFTOVERS: Duration = Duration::from_millis(5);

/// The running thread.
pub(crate) struct Poller {
    kernel: Arc<Kernel>,
    thread: JoinHandle<()>,
}

impl Poller {
    pub(crate) fn start(kernel: Arc<Kernel>, mode: CudaMode, wait: WaitStrategy) -> std::io::Result<Self> {
        let served = kernel.clone();
        let thread = std::thread::Builder::new().name("megaring-cuda-poll".into()).spawn(move || {
            match mode {
                CudaMode::Persistent => watch(&served, wait),
                CudaMode::Launch | CudaMode::Graph => dispatch(&served, wait),
            }
            served.ring().announce();
        })?;
        Ok(Self { kernel, thread })
    }

    /// Ends the thread. The kernel was told to stop before, and the ring is closed.
    pub(crate) fn stop(self) {
        self.kernel.ring().jobs_signal().notify_all();
        self.thread.thread().unpark();
        // The thread runs no foreign code but the driver's; if it died all the same, there is nothing to save.
        let _ = self.thread.join();
    }
}

/// Wakes reapers while tickets are outstanding.
fn watch(kernel: &Kernel, wait: WaitStrategy) {
    let wait = match wait {
        WaitStrategy::Park => WaitStrategy::Park,
        _ => WaitStrategy::HybridSpin(BETWEEN_JOBS),
    };
    let ring = kernel.ring();
    while !kernel.stopping() {
        if ring.is_closed() && ring.outstanding() == 0 {
            std::thread::park_timeout(LEFTOVERS);
            continue;
        }
        ring.await_outstanding(wait, None);
        let mut last_news = Instant::now();
        while ring.outstanding() > 0 && !kernel.stopping() {
            if ring.announce() {
                last_news = Instant::now();
            }
            pause(last_news.elapsed());
        }
    }
}

/// Launches the kernel for what is in the ring, again and again.
fn dispatch(kernel: &Kernel, wait: WaitStrategy) {
    let ring = kernel.ring();
    let mut announce = || _ = ring.announce();
    let mut going = true;
    while going && !kernel.stopping() {
        ring.jobs_signal().wait_until(wait, None, || kernel.has_work() || kernel.stopping());
        going = kernel.run_backlog(&mut announce);
        announce();
    }
    // A kernel that was lost: the host has answered its jobs, and the monitor sees to the rest.
}

fn pause(waited: Duration) {
    match waited {
        waited if waited < SPIN => std::hint::spin_loop(),
        waited if waited < YIELD => std::thread::yield_now(),
        _ => std::thread::park_timeout(LOOK),
    }
}
