//! Who lives: the host sends the kernel a heartbeat, and judges it by its own, its report and what the driver says.
//!
//! [`Watch`] is the judgement, without a clock or a device of its own. `Monitor` is the thread that sends the host's
//! heartbeat and, while a kernel runs that nobody waits for, judges it. Time in which this process itself stood still
//! counts against nobody: a look that comes late adds no more silence than a few that come in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::abi::{EndReason, STATE_ENDED};
use crate::device::DeviceError;
use crate::launch::Kernel;

/// How long everything may take.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between two heartbeats of the host.
    pub beat: Duration,
    /// How long the kernel's heartbeat may be missing.
    pub silence: Duration,
    /// How long the host's heartbeat may be missing before the kernel ends. Some beats at least.
    pub host_silence: Duration,
    /// From a launch to the kernel's first sign of life.
    pub start: Duration,
    /// From a command to stop to the kernel's end, however much alive it is: it finishes the jobs it has taken.
    pub stop: Duration,
    /// Longest wait of one block for another, and longest time in which nothing of the oldest job is claimed or
    /// finished. Longer than any job takes: a kernel that stops waits for the last one.
    pub budget: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(100),
            silence: Duration::from_secs(2),
            host_silence: Duration::from_secs(2),
            start: Duration::from_secs(20),
            stop: Duration::from_secs(90),
            budget: Duration::from_secs(60),
        }
    }
}

impl Timings {
    /// For a kernel that a processor plays, which may stand still while the processor is busy with other things.
    #[must_use]
    pub fn patient() -> Self {
        let long = Duration::from_secs(300);
        Self { silence: long, host_silence: long, start: long, stop: long, budget: long, ..Self::default() }
    }
}

/// What the kernel shows of itself at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// Word of the device's heartbeat.
    pub beat: u64,
    /// State in the report.
    pub state: u64,
    /// End reason in the report; of no meaning before the end.
    pub reason: u64,
}

/// What a look at the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It runs, or may yet begin to.
    Alive,
    /// It has ended, all of it, and said why.
    Ended(EndReason),
    /// It does nothing, or the driver says that it failed. It may still be there.
    Lost(String),
}

/// Looks that come later than this many beats after the one before count as if they had come then.
const LATE: u32 = 3;

/// Judges one kernel from its launch to its end.
#[derive(Clone, Debug)]
pub struct Watch {
    timings: Timings,
    beat: Option<u64>,
    silent: Duration,
    looked: Instant,
}

impl Watch {
    /// For a kernel that is being launched `now`.
    #[must_use]
    pub fn new(timings: Timings, now: Instant) -> Self {
        Self { timings, beat: None, silent: Duration::ZERO, looked: now }
    }

    /// `idle` is what the driver answered *before* the signs were read: a kernel that is over by then has said so.
    pub fn look(&mut self, idle: Result<bool, DeviceError>, signs: Signs, now: Instant) -> Sight {
        self.silent += now.saturating_duration_since(self.looked).min(self.timings.beat * LATE);
        self.looked = now;
        match idle {
            Err(error) => return Sight::Lost(error.to_string()),
            Ok(true) if signs.state == STATE_ENDED => return Sight::Ended(EndReason::from(signs.reason)),
            Ok(true) => return Sight::Lost("the kernel is gone and left no report".into()),
            // Even if it has reported its end: its blocks are about to end, or hang without a heartbeat.
            Ok(false) => {}
        }
        // A new kernel counts from 1 whatever was in the line before; 0 is a line that was cleared.
        if signs.beat != self.beat.unwrap_or(0) {
            self.beat = Some(signs.beat);
            self.silent = Duration::ZERO;
        }
        match self.beat {
            None if self.silent > self.timings.start => {
                Sight::Lost(format!("the kernel showed no sign of life within {:?} of its launch", self.timings.start))
            }
            Some(_) if self.silent > self.timings.silence => {
                Sight::Lost(format!("the kernel's heartbeat has been missing for {:?}", self.timings.silence))
            }
            None | Some(_) => Sight::Alive,
        }
    }
}

/// The thread that sends the host's heartbeat and watches over the kernel.
pub(crate) struct Monitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Monitor {
    pub(crate) fn start(kernel: Arc<Kernel>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::Builder::new().name("megaring-cuda-watch".into()).spawn(move || {
            let beat = kernel.timings().beat;
            while !stopping.load(Ordering::Acquire) {
                kernel.beat();
                kernel.check();
                kernel.correct_clock();
                std::thread::park_timeout(beat);
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread. The kernel is over by now, or given up.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // The thread runs no foreign code but the driver's; if it died all the same, there is nothing to save.
        let _ = self.thread.join();
    }
}
