//! A device of threads: memory on the heap, and a kernel that answers jobs with nothing but a status. A [`Script`]
//! tells what goes wrong, and when.
//!
//! It enforces the rules of [`Device`]: no memory while a kernel runs, one kernel at a time, known addresses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_cuda::abi::{
    COMMAND_STOP, KernelParams, NO_LIMIT, STATE_BYTES, STATE_ENDED, STATE_RUNNING, control, report,
};
use megaring_cuda::device::{Device, DeviceError, DeviceInfo, DevicePtr};
use megaring_ring::{Body, Completion, Descriptor, Memory, Slot, Status};

/// What one launched kernel does. Kernels beyond the script work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Works as it should.
    Work,
    /// Beats and takes nothing until [`Mock::stall`]; then takes what is there, and neither answers, beats nor ends,
    /// until [`Mock::release`]; then answers what it took and ends.
    Stall,
    /// Answers so many jobs, then ends for this reason.
    End(u64, u64),
    /// Answers so many jobs, then is gone without a word.
    Vanish(u64),
    /// Never shows a sign of life, until [`Mock::release`].
    Absent,
    /// Cannot be launched; the device is broken from here on.
    Refuse,
    /// Works until the host's heartbeat has moved so often since its start, then ends as if it had been missing.
    LoseHost(u64),
}

/// The device.
pub(crate) struct Mock {
    info: DeviceInfo,
    /// First byte of each allocation.
    memory: Mutex<BTreeMap<u64, Memory>>,
    scripts: Mutex<VecDeque<Script>>,
    running: Mutex<Option<Running>>,
    recorded: Mutex<Option<KernelParams>>,
    /// Once set, every call fails with it.
    broken: Mutex<Option<DeviceError>>,
    /// Bytes that may be allocated still.
    left: AtomicU64,
    stalled: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
    /// The parameters of the last launch.
    launched: Mutex<Option<KernelParams>>,
    replays: AtomicU64,
}

struct Running {
    over: Arc<AtomicBool>,
    /// Its heart, which also beats whenever somebody asks after it, so that a kernel is not taken for dead where its
    /// thread waits for its turn.
    heart: Arc<Heart>,
    thread: JoinHandle<()>,
}

/// A kernel's heartbeat, for as long as it lives.
struct Heart {
    line: DevicePtr,
    beats: Mutex<Option<u64>>,
}

impl Heart {
    fn beat(&self) {
        if let Some(beats) = &mut *lock(&self.beats) {
            *beats += 1;
            word(self.line, 0).store(*beats, Ordering::Release);
        }
    }

    /// It does not beat any more.
    fn stop(&self) {
        *lock(&self.beats) = None;
    }
}

/// What the mock's clock is behind Unix time.
pub(crate) const CLOCK_BEHIND: u64 = 1_000_000_007;

impl Mock {
    pub(crate) fn new(scripts: &[Script]) -> Arc<Self> {
        let info = DeviceInfo {
            name: "a device of threads".into(),
            arch: "threads".into(),
            multiprocessors: 2,
            blocks: 4,
            memory_total: 64 << 20,
            memory_free: 64 << 20,
            shared_bytes: 40 << 10,
        };
        Arc::new(Self {
            info,
            memory: Mutex::default(),
            scripts: Mutex::new(scripts.iter().copied().collect()),
            running: Mutex::default(),
            recorded: Mutex::default(),
            broken: Mutex::default(),
            left: AtomicU64::new(u64::MAX),
            stalled: Arc::default(),
            released: Arc::default(),
            launched: Mutex::default(),
            replays: AtomicU64::new(0),
        })
    }

    /// The kernels launched from now on do this.
    pub(crate) fn script(&self, scripts: &[Script]) {
        *lock(&self.scripts) = scripts.iter().copied().collect();
    }

    /// Lets kernels stall that are to.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    /// Lets kernels go on that stall.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Every call fails from now on.
    pub(crate) fn break_down(&self, error: DeviceError) {
        *lock(&self.broken) = Some(error);
    }

    /// No more than so many bytes can be allocated from now on.
    pub(crate) fn limit_memory(&self, bytes: u64) {
        self.left.store(bytes, Ordering::Relaxed);
    }

    /// Allocations that were not freed.
    pub(crate) fn allocations(&self) -> usize {
        lock(&self.memory).len()
    }

    /// Launches through a graph.
    pub(crate) fn replays(&self) -> u64 {
        self.replays.load(Ordering::Relaxed)
    }

    /// The parameters of the last launch.
    pub(crate) fn launched(&self) -> KernelParams {
        lock(&self.launched).expect("a kernel was launched")
    }

    /// Copies device memory out; for memory that no kernel writes.
    pub(crate) fn read(&self, at: DevicePtr, bytes: usize) -> Vec<u8> {
        let first = self.within(at, bytes);
        // SAFETY: `within` found the span in an allocation, which lives as long as `self`; no kernel of this device
        // writes device memory.
        unsafe { std::slice::from_raw_parts(first, bytes) }.to_vec()
    }

    fn sound(&self) -> Result<(), DeviceError> {
        lock(&self.broken).clone().map_or(Ok(()), Err)
    }

    fn within(&self, at: DevicePtr, bytes: usize) -> *mut u8 {
        let memory = lock(&self.memory);
        let (base, block) = memory.range(..=at.0).next_back().expect("an address within an allocation");
        let offset = (at.0 - base) as usize;
        assert!(offset + bytes <= block.len(), "{bytes} bytes at {offset} of an allocation of {}", block.len());
        block.base().as_ptr().wrapping_add(offset)
    }

    fn assert_idle(&self) {
        let running = lock(&self.running).as_ref().is_some_and(|running| !running.over.load(Ordering::Acquire));
        assert!(!running, "a kernel runs");
    }

    fn begin(&self, params: &KernelParams) -> Result<(), DeviceError> {
        self.sound()?;
        self.assert_idle();
        self.within(params.state, STATE_BYTES);
        let script = lock(&self.scripts).pop_front().unwrap_or(Script::Work);
        if script == Script::Refuse {
            self.break_down(DeviceError::Sticky("the launch failed".into()));
            return self.sound();
        }
        *lock(&self.launched) = Some(*params);
        let beats = Mutex::new((script != Script::Absent).then_some(0));
        let heart = Arc::new(Heart { line: params.ring.device_heartbeat, beats });
        let (params, over) = (*params, Arc::new(AtomicBool::new(false)));
        let (stalled, released) = (self.stalled.clone(), self.released.clone());
        let (beating, done) = (heart.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            FakeKernel::new(&params, &beating, &stalled, &released).run(script);
            beating.stop();
            done.store(true, Ordering::Release);
        });
        if let Some(Running { thread, .. }) = lock(&self.running).replace(Running { over, heart, thread }) {
            thread.join().expect("the kernel before did not panic");
        }
        Ok(())
    }
}

impl Device for Mock {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<DevicePtr, DeviceError> {
        self.sound()?;
        self.assert_idle();
        let left = self.left.load(Ordering::Relaxed);
        let out_of_memory = DeviceError::OutOfMemory { bytes, what: "device memory" };
        self.left.store(left.checked_sub(bytes as u64).ok_or(out_of_memory)?, Ordering::Relaxed);
        let memory = Memory::heap(bytes).expect("memory");
        let at = memory.base().expose_provenance().get() as u64;
        lock(&self.memory).insert(at, memory);
        Ok(DevicePtr(at))
    }

    unsafe fn free(&self, at: DevicePtr) {
        self.assert_idle();
        lock(&self.memory).remove(&at.0).expect("freed once, and what was allocated");
    }

    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<(), DeviceError> {
        self.sound()?;
        let first = self.within(to, from.len());
        // SAFETY: `within` found the span in an allocation; the caller promises that nobody reads it meanwhile, and
        // `from` is not device memory.
        unsafe { first.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    fn pinned(&self, bytes: usize) -> Result<Memory, DeviceError> {
        self.sound()?;
        self.assert_idle();
        Memory::heap(bytes).map_err(|error| DeviceError::Other(error.to_string()))
    }

    fn device_address(&self, memory: &Memory) -> DevicePtr {
        DevicePtr(memory.base().expose_provenance().get() as u64)
    }

    fn launch(&self, params: &KernelParams) -> Result<(), DeviceError> {
        self.begin(params)
    }

    fn prepare_graph(&self, params: &KernelParams) -> Result<(), DeviceError> {
        self.sound()?;
        *lock(&self.recorded) = Some(*params);
        Ok(())
    }

    fn replay(&self) -> Result<(), DeviceError> {
        let params = (*lock(&self.recorded)).ok_or_else(|| DeviceError::Other("nothing was recorded".into()))?;
        self.replays.fetch_add(1, Ordering::Relaxed);
        self.begin(&params)
    }

    fn is_idle(&self) -> Result<bool, DeviceError> {
        self.sound()?;
        let running = lock(&self.running);
        let Some(running) = &*running else { return Ok(true) };
        running.heart.beat();
        Ok(running.over.load(Ordering::Acquire))
    }

    fn synchronise(&self) -> Result<(), DeviceError> {
        while !self.is_idle()? {
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.release();
        if let Some(Running { thread, .. }) = lock(&self.running).take() {
            // A panic of the kernel has been seen where it mattered; here it would hide another one.
            let _ = thread.join();
        }
    }
}

/// The kernel's side of the ring, word by word as the device sees it.
struct FakeKernel<'a> {
    params: &'a KernelParams,
    heart: &'a Heart,
    stalled: &'a AtomicBool,
    released: &'a AtomicBool,
    head: u64,
    completed: u64,
}

impl<'a> FakeKernel<'a> {
    fn new(params: &'a KernelParams, heart: &'a Heart, stalled: &'a AtomicBool, released: &'a AtomicBool) -> Self {
        let ring = &params.ring;
        let head = word(ring.submission_head, 0).load(Ordering::Acquire);
        let completed = word(ring.completion_tail, 0).load(Ordering::Acquire);
        Self { params, heart, stalled, released, head, completed }
    }

    fn run(&mut self, script: Script) {
        let ring = &self.params.ring;
        if script == Script::Absent {
            return self.hang();
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        word(ring.report, report::CLOCK).store(unix - CLOCK_BEHIND, Ordering::Relaxed);
        word(ring.report, report::STATE).store(STATE_RUNNING, Ordering::Release);
        let limit = word(ring.control, control::LIMIT).load(Ordering::Acquire);
        let (begun, first_beat) = (self.head, self.host_beat());
        let mut host = (first_beat, Instant::now());
        let reason = loop {
            self.heart.beat();
            let taken = self.head.wrapping_sub(begun);
            match script {
                Script::Stall if !self.stalled.load(Ordering::Acquire) => {
                    std::thread::yield_now();
                    continue;
                }
                Script::Stall => {
                    self.heart.stop();
                    let held = std::iter::from_fn(|| self.take()).collect::<Vec<_>>();
                    self.hang();
                    held.into_iter().for_each(|slot| self.answer(&slot));
                    break 1;
                }
                Script::End(after, reason) if taken >= after => break reason,
                Script::Vanish(after) if taken >= after => return,
                Script::LoseHost(beats) if self.host_beat().wrapping_sub(first_beat) >= beats => break 2,
                _ => {}
            }
            if word(ring.control, control::COMMAND).load(Ordering::Acquire) == COMMAND_STOP {
                break 1;
            }
            if self.host_beat() != host.0 {
                host = (self.host_beat(), Instant::now());
            } else if host.1.elapsed() > Duration::from_nanos(self.params.host_timeout_ns) {
                break 2;
            }
            if self.head == limit && limit != NO_LIMIT {
                break 0;
            }
            match self.take() {
                Some(slot) => self.answer(&slot),
                None => std::thread::yield_now(),
            }
        };
        word(ring.report, report::REASON).store(reason, Ordering::Relaxed);
        word(ring.report, report::POSITION).store(self.head, Ordering::Relaxed);
        word(ring.report, report::JOBS).store(self.head.wrapping_sub(begun), Ordering::Relaxed);
        word(ring.report, report::STATE).store(STATE_ENDED, Ordering::Release);
    }

    fn hang(&self) {
        while !self.released.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_micros(100));
        }
    }

    fn host_beat(&self) -> u64 {
        word(self.params.ring.host_heartbeat, 0).load(Ordering::Acquire)
    }

    /// The next slot, if there is one.
    fn take(&mut self) -> Option<Slot> {
        let ring = &self.params.ring;
        if word(ring.submission_tail, 0).load(Ordering::Acquire) == self.head {
            return None;
        }
        let at = slot_at(ring.submissions, self.head, ring.submission_capacity);
        // SAFETY: the tail, which was acquired, is past the slot, and the host writes it only after the head, below.
        let slot = unsafe { at.read() };
        assert_eq!(slot.sequence, self.head + 1, "slots come in order");
        self.head += 1;
        word(ring.submission_head, 0).store(self.head, Ordering::Release);
        Some(slot)
    }

    fn answer(&mut self, slot: &Slot) {
        let ring = &self.params.ring;
        let opcode = Descriptor::from_slot(slot).expect("a whole slot").opcode;
        let completion = Completion {
            ticket: slot.sequence,
            opcode,
            status: Status::Ok,
            device_ns: 1,
            timestamp_ns: 1,
            body: Body::Empty,
        };
        let at = slot_at(ring.completions, self.completed, ring.completion_capacity);
        self.completed += 1;
        // SAFETY: a job holds a completion slot, so the host is done with this one, and reads it only after the tail,
        // below.
        unsafe { at.write(completion.to_slot(self.completed)) };
        word(ring.completion_tail, 0).store(self.completed, Ordering::Release);
    }
}

fn word<'a>(line: DevicePtr, number: usize) -> &'a AtomicU64 {
    let at = std::ptr::with_exposed_provenance_mut::<u64>(line.offset(8 * number).0 as usize);
    // SAFETY: a word of a line of a ring, in memory that outlives the kernel; both sides use atomics alone.
    unsafe { AtomicU64::from_ptr(at) }
}

fn slot_at(slots: DevicePtr, position: u64, capacity: u64) -> *mut Slot {
    let at = slots.offset((position & (capacity - 1)) as usize * size_of::<Slot>());
    std::ptr::with_exposed_provenance_mut(at.0 as usize)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
