//! The life of the kernel: launched, at work, stopped, launched again, lost.
//!
//! One lock guards it. Its holder may launch the kernel, wait for its end, and, while none runs, let others allocate
//! memory. In persistent mode the kernel runs without anyone holding the lock; in the other modes the dispatcher's
//! thread holds it from a launch to its end.
//!
//! Stopping the kernel never loses a job: it finishes what it has taken, and the rest stays in the ring for the next
//! one. Only [`Kernel::take_down`] answers jobs that were not done, each once, and after it no kernel is launched any
//! more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use megaring_ring::{JobRing, Status};

use crate::abi::{
    COMMAND_RUN, COMMAND_STOP, EndReason, KernelParams, NO_LIMIT, STATE_ENDED, STATE_NEVER_RAN, control, report,
};
use crate::backend::CudaMode;
use crate::counters::Counters;
use crate::device::{Device, DeviceError, DevicePtr};
use crate::lines::{clear, load, store};
use crate::liveness::{Sight, Signs, Timings, Watch};
use crate::residency::Host;

/// A kernel with its ring and its device.
pub(crate) struct Kernel {
    device: Arc<dyn Device>,
    ring: Arc<JobRing>,
    params: KernelParams,
    mode: CudaMode,
    timings: Timings,
    counters: Arc<Counters>,
    life: Mutex<Life>,
    /// Who wants the lock ahead of the dispatcher's thread.
    wanted: AtomicUsize,
    stopping: AtomicBool,
    /// Why it is to go out of service, as others found who cannot have the lock.
    condemned: OnceLock<String>,
    /// Why it is out of service.
    failure: OnceLock<String>,
}

struct Life {
    stage: Stage,
    watch: Watch,
    /// Whether the device has recorded the launch, to be replayed.
    recorded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No kernel runs.
    Idle,
    /// A kernel runs.
    Running,
    /// It failed, and may still be there.
    Lost,
    /// None runs, and none ever will again.
    Over,
}

/// How long a wait for the kernel's end spins, then yields, before it looks only now and then.
const SPIN: Duration = Duration::from_micros(20);
const YIELD: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_micros(200);
/// What [`Host::pause`] lets pass.
const PAUSE: Duration = Duration::from_micros(50);

impl Kernel {
    pub(crate) fn new(
        device: Arc<dyn Device>,
        ring: Arc<JobRing>,
        params: KernelParams,
        mode: CudaMode,
        timings: Timings,
        counters: Arc<Counters>,
    ) -> Self {
        let life = Life { stage: Stage::Idle, watch: Watch::new(timings, Instant::now()), recorded: false };
        Self {
            device,
            ring,
            params,
            mode,
            timings,
            counters,
            life: Mutex::new(life),
            wanted: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            condemned: OnceLock::new(),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn ring(&self) -> &Arc<JobRing> {
        &self.ring
    }

    pub(crate) fn timings(&self) -> &Timings {
        &self.timings
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// `Err` with the reason once it is out of service.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.failure.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Everything that happens once, before the first job: loads all code, calibrates the clock, records the graph, and
    /// in persistent mode launches the kernel that stays.
    pub(crate) fn begin(&self) -> Result<(), DeviceError> {
        let mut life = self.lock();
        crate::clock::calibrate(self.ring.lines(), || {
            self.run_to(&mut life, self.ring.head(), &mut || {}).map(|_| ())
        })?;
        match self.mode {
            CudaMode::Persistent => self.launch(&mut life, NO_LIMIT),
            CudaMode::Launch => Ok(()),
            CudaMode::Graph => {
                let recorded = self.device.prepare_graph(&self.params);
                life.recorded = recorded.is_ok();
                recorded.inspect_err(|error| self.take_down(&mut life, &error.to_string(), true))
            }
        }
    }

    /// Runs `work` while no kernel runs, so that it may allocate and free. Jobs submitted meanwhile wait in the ring.
    /// Blocks until the jobs that the kernel has taken are done: none of them may need the caller or its locks.
    pub(crate) fn interrupt<T>(&self, work: impl FnOnce() -> T) -> Result<T, DeviceError> {
        let _turn = Turn::ask(self);
        let mut life = self.lock();
        let running = life.stage == Stage::Running;
        self.rest(&mut life)?;
        if running {
            self.counters.relaunches.add(1);
        }
        let resume = Resume { kernel: self, life, running };
        let made = work();
        drop(resume);
        Ok(made)
    }

    /// One launch of the dispatcher's thread: everything in the ring now. False when there will be no more.
    pub(crate) fn run_backlog(&self, while_running: &mut dyn FnMut()) -> bool {
        let mut life = self.lock();
        if life.stage != Stage::Idle || self.stopping() {
            return life.stage == Stage::Idle && !self.stopping();
        }
        self.run_to(&mut life, self.ring.tail(), while_running).is_ok()
    }

    /// Whether the dispatcher's thread has something to launch for.
    pub(crate) fn has_work(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) == 0 && self.ring.has_untaken()
    }

    /// The monitor's look at a kernel that nobody waits for.
    pub(crate) fn check(&self) {
        let mut life = match self.life.try_lock() {
            Ok(life) => life,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        match life.stage {
            Stage::Running => match self.look(&mut life) {
                Sight::Alive => {}
                Sight::Ended(EndReason::HostLost) => self.relaunch_lost(&mut life),
                Sight::Ended(reason) => self.take_down(&mut life, &ended(reason), true),
                Sight::Lost(reason) => self.take_down(&mut life, &reason, false),
            },
            Stage::Idle => {
                let sound = self.device.is_idle().map_err(|error| error.to_string());
                let condemned = self.condemned.get().map_or(Ok(()), |reason| Err(reason.clone()));
                if let Err(reason) = sound.and(condemned) {
                    self.take_down(&mut life, &reason, true);
                }
            }
            Stage::Lost => self.bury(&mut life),
            Stage::Over => {}
        }
    }

    /// Puts the backend out of service soon, because a job under way cannot end. From any thread and under any lock.
    pub(crate) fn condemn(&self, reason: &str) {
        self.condemned.get_or_init(|| reason.to_owned());
    }

    /// Keeps the kernel's idea of the time right.
    pub(crate) fn correct_clock(&self) {
        if self.mode == CudaMode::Persistent {
            crate::clock::correct(self.ring.lines());
        }
    }

    /// One heartbeat of the host.
    pub(crate) fn beat(&self) {
        let line = &self.ring.lines().host_heartbeat;
        store(line, 0, load(line, 0).wrapping_add(1));
    }

    /// Stops the kernel for good and waits for its end; true if it has surely ended. A dispatcher's thread ends with
    /// its current launch.
    pub(crate) fn shut_down(&self) -> bool {
        self.stopping.store(true, Ordering::Release);
        let _turn = Turn::ask(self);
        // Ahead of the lock: a kernel of the dispatcher's thread, which holds it, ends sooner for this.
        self.command_stop();
        let mut life = self.lock();
        match life.stage {
            // A failure on the way has been noted by `rest`.
            Stage::Idle | Stage::Running => _ = self.rest(&mut life),
            Stage::Lost => self.bury(&mut life),
            Stage::Over => {}
        }
        if life.stage == Stage::Idle {
            life.stage = Stage::Over;
        }
        // Nobody is left who would take a job. This also wakes the threads that wait for one.
        self.ring.close();
        life.stage == Stage::Over
    }

    /// Whether no kernel runs or ever will again.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().stage == Stage::Over
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        // What the lock guards is put right before every step that may panic.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Launches and waits for the end. On `Err` the backend has failed.
    fn run_to(&self, life: &mut Life, limit: u64, meanwhile: &mut dyn FnMut()) -> Result<EndReason, DeviceError> {
        let begun = Instant::now();
        self.launch(life, limit)?;
        let reason = self.await_end(life, None, meanwhile)?;
        crate::clock::correct_by_launch(self.ring.lines(), begun.elapsed());
        match reason {
            // The process stood still for a while: the next launch goes on where this one ended.
            EndReason::HostLost => self.counters.host_lost.add(1),
            EndReason::Limit | EndReason::Stopped => {}
            EndReason::Budget | EndReason::BadTail | EndReason::Unknown(_) => {
                let reason = ended(reason);
                self.take_down(life, &reason, true);
                return Err(DeviceError::Other(reason));
            }
        }
        Ok(reason)
    }

    /// On `Err` the backend has failed.
    fn launch(&self, life: &mut Life, limit: u64) -> Result<(), DeviceError> {
        let lines = self.ring.lines();
        clear(&lines.report);
        clear(&lines.device_heartbeat);
        store(&lines.report, report::STATE, STATE_NEVER_RAN);
        store(&lines.control, control::LIMIT, limit);
        store(&lines.control, control::COMMAND, if self.stopping() { COMMAND_STOP } else { COMMAND_RUN });
        self.counters.launches.add(1);
        life.watch = Watch::new(self.timings, Instant::now());
        // Before the launch: if it panics or fails, a kernel may have begun.
        life.stage = Stage::Running;
        let launched = if life.recorded { self.device.replay() } else { self.device.launch(&self.params) };
        launched.inspect_err(|error| self.take_down(life, &error.to_string(), false))
    }

    /// Stops the kernel, if one runs. On `Err` the backend has failed, or had before.
    fn rest(&self, life: &mut Life) -> Result<(), DeviceError> {
        match life.stage {
            Stage::Idle => Ok(()),
            Stage::Lost | Stage::Over => {
                let stopped = || "the backend was stopped".to_owned();
                Err(DeviceError::Other(self.failure.get().cloned().unwrap_or_else(stopped)))
            }
            Stage::Running => {
                self.command_stop();
                match self.await_end(life, Some(self.timings.stop), &mut || {})? {
                    EndReason::Stopped | EndReason::HostLost => Ok(()),
                    reason @ (EndReason::Limit | EndReason::Budget | EndReason::BadTail | EndReason::Unknown(_)) => {
                        let reason = ended(reason);
                        self.take_down(life, &reason, true);
                        Err(DeviceError::Other(reason))
                    }
                }
            }
        }
    }

    fn command_stop(&self) {
        store(&self.ring.lines().control, control::COMMAND, COMMAND_STOP);
    }

    /// Waits until the kernel has ended and the driver agrees. On `Err` the backend has failed. Without a limit it may
    /// take as long as its heart beats: its own waits have budgets.
    fn await_end(
        &self,
        life: &mut Life,
        limit: Option<Duration>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<EndReason, DeviceError> {
        let begun = Instant::now();
        let mut looked = begun;
        loop {
            meanwhile();
            let ended = load(&self.ring.lines().report, report::STATE) == STATE_ENDED;
            let now = Instant::now();
            // The driver is asked when there is reason to, and now and then.
            if ended || now - looked >= LOOK {
                looked = now;
                match self.look(life) {
                    Sight::Alive => {}
                    Sight::Ended(reason) => {
                        self.account(life);
                        return Ok(reason);
                    }
                    Sight::Lost(reason) => return Err(self.lose(life, reason)),
                }
            }
            let waited = now - begun;
            if let Some(limit) = limit.filter(|limit| waited > *limit) {
                return Err(self.lose(life, format!("the kernel did not end within {limit:?} of being told to")));
            }
            match waited {
                waited if waited < SPIN => std::hint::spin_loop(),
                waited if waited < YIELD => std::thread::yield_now(),
                _ => std::thread::park_timeout(LOOK),
            }
        }
    }

    fn lose(&self, life: &mut Life, reason: String) -> DeviceError {
        self.take_down(life, &reason, false);
        DeviceError::Other(reason)
    }

    fn look(&self, life: &mut Life) -> Sight {
        if let Some(reason) = self.condemned.get() {
            return Sight::Lost(reason.clone());
        }
        let lines = self.ring.lines();
        let idle = self.device.is_idle();
        let signs = Signs {
            beat: load(&lines.device_heartbeat, 0),
            state: load(&lines.report, report::STATE),
            reason: load(&lines.report, report::REASON),
        };
        life.watch.look(idle, signs, Instant::now())
    }

    /// The kernel ended because this process stood still; it goes on.
    fn relaunch_lost(&self, life: &mut Life) {
        tracing::warn!("the process stood still for so long that the kernel ended; it is launched again");
        self.counters.host_lost.add(1);
        self.account(life);
        // A failure is noted by `launch`.
        let _ = self.launch(life, NO_LIMIT);
    }

    /// Adds up what a kernel that has ended did.
    fn account(&self, life: &mut Life) {
        life.stage = Stage::Idle;
        let line = &self.ring.lines().report;
        self.counters.faults.add(load(line, report::FAULTS));
        self.counters.jobs.add(load(line, report::JOBS));
    }

    /// Out of service: closes the ring and answers every ticket that waits, once. `over`: the kernel has surely ended,
    /// so the runs of its jobs are given back; otherwise they stay out of use until it has.
    fn take_down(&self, life: &mut Life, reason: &str, over: bool) {
        if self.failure.set(reason.to_owned()).is_ok() {
            tracing::error!(reason, "the CUDA backend is out of service");
        }
        self.ring.close();
        self.ring.fail_outstanding(Status::BackendFailed);
        life.stage = Stage::Lost;
        match over {
            true => self.bury(life),
            // In case it still listens.
            false => self.command_stop(),
        }
    }

    /// Looks whether a lost kernel is gone by now. Only then may anyone else use the memory that its jobs name.
    fn bury(&self, life: &mut Life) {
        self.ring.announce();
        if self.device.is_idle() == Ok(true) {
            life.stage = Stage::Over;
            self.ring.release_quarantine();
        }
    }
}

/// A place ahead of the dispatcher's thread in the queue for the lock.
struct Turn<'a>(&'a Kernel);

impl<'a> Turn<'a> {
    fn ask(kernel: &'a Kernel) -> Self {
        kernel.wanted.fetch_add(1, Ordering::SeqCst);
        Self(kernel)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::SeqCst);
        self.0.ring.jobs_signal().notify_all();
    }
}

/// Puts the persistent kernel back to work, whichever way the interruption ends.
struct Resume<'a> {
    kernel: &'a Kernel,
    life: MutexGuard<'a, Life>,
    running: bool,
}

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        if self.running && self.life.stage == Stage::Idle {
            // A failure is noted by `launch`; the next caller hears of it.
            let _ = self.kernel.launch(&mut self.life, NO_LIMIT);
        }
    }
}

fn ended(reason: EndReason) -> String {
    let why = match reason {
        EndReason::Budget => "a wait on the device ran out of its budget",
        EndReason::BadTail => "the ring's tail was not one that the host can have stored",
        EndReason::Limit | EndReason::Stopped => "nobody had asked it to",
        EndReason::HostLost => "the host's heartbeat was missing",
        EndReason::Unknown(number) => return format!("the kernel ended for a reason unknown here ({number})"),
    };
    format!("the kernel ended by itself: {why}")
}

impl Host for Kernel {
    fn submitted_through(&self) -> u64 {
        self.ring.submitted_through()
    }

    fn is_settled(&self, through: u64) -> bool {
        self.ring.is_settled(through)
    }

    fn pause(&self) -> Result<(), String> {
        self.health()?;
        std::thread::park_timeout(PAUSE);
        Ok(())
    }

    fn grow(&self, bytes: usize) -> Result<DevicePtr, DeviceError> {
        self.interrupt(|| self.device.alloc(bytes))?
    }

    fn fail(&self, reason: &str) {
        self.condemn(reason);
    }
}
