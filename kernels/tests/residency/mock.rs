//! A device whose memory is bytes in a map, and a backend that stands for ring and kernel.
//!
//! Readers say which spans they read, for as long as a kernel would; an upload into such a span is a violation, which
//! the test then finds, whether or not a byte happened to differ.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ScopedJoinHandle;

use megaring_core::corpus::{CorpusView, HeapSegment, SegmentView};
use megaring_core::matrix::Matrix;
use megaring_core::metric::Metric;
use megaring_core::nearest::{Nearest, Points};
use megaring_core::operation::{Operation, Reads};
use megaring_core::score::Score;
use megaring_core::search::Search;
use megaring_cuda::abi::{CORPORA_MASK, Corpus, KernelParams};
use megaring_cuda::counters::Counters;
use megaring_cuda::device::{Device, DeviceError, DeviceInfo, DevicePtr};
use megaring_cuda::pool::Budget;
use megaring_cuda::residency::{Guard, Host, Refusal, Residency};
use megaring_ring::Memory;
use megaring_ring::memory::{Line, View};

pub(crate) struct MockDevice {
    info: DeviceInfo,
    bytes: Mutex<BTreeMap<u64, Vec<u8>>>,
    reads: Mutex<Vec<Range<u64>>>,
    violations: AtomicUsize,
    next: AtomicU64,
    /// Bytes that may be allocated.
    limit: AtomicUsize,
    /// Uploads of at least so many bytes wait; `waiting` do now.
    gate: Mutex<(usize, usize)>,
    gate_changed: Condvar,
    /// The upload with this number (from 1) fails; 0: none.
    failing: AtomicUsize,
    uploads: AtomicUsize,
    /// The page-locked memory that was given out last: the stream's lines.
    pinned: Mutex<Option<Memory>>,
}

impl MockDevice {
    fn new() -> Arc<Self> {
        let info = DeviceInfo {
            name: "mock".into(),
            arch: "none".into(),
            multiprocessors: 1,
            blocks: 2,
            memory_total: 1 << 30,
            memory_free: 1 << 30,
            shared_bytes: 0,
        };
        Arc::new(Self {
            info,
            bytes: Mutex::default(),
            reads: Mutex::default(),
            violations: AtomicUsize::new(0),
            next: AtomicU64::new(1 << 20),
            limit: AtomicUsize::new(usize::MAX),
            gate: Mutex::new((usize::MAX, 0)),
            gate_changed: Condvar::new(),
            failing: AtomicUsize::new(0),
            uploads: AtomicUsize::new(0),
            pinned: Mutex::default(),
        })
    }

    /// What the device's memory holds.
    pub(crate) fn read(&self, at: DevicePtr, len: usize) -> Vec<u8> {
        let bytes = self.bytes.lock().unwrap();
        let (base, block) = bytes.range(..=at.0).next_back().expect("an address of no allocation");
        let begin = (at.0 - base) as usize;
        block[begin..begin + len].to_vec()
    }

    /// Says that a kernel reads a span from now until the answer is dropped.
    pub(crate) fn reading(self: &Arc<Self>, at: DevicePtr, len: usize) -> Reading {
        let span = at.0..at.0 + len as u64;
        self.reads.lock().unwrap().push(span.clone());
        Reading { device: self.clone(), span }
    }

    pub(crate) fn violations(&self) -> usize {
        self.violations.load(Ordering::SeqCst)
    }

    /// Uploads of at least `bytes` wait from now on.
    pub(crate) fn hold_uploads(&self, bytes: usize) {
        self.gate.lock().unwrap().0 = bytes;
    }

    pub(crate) fn release_uploads(&self) {
        self.gate.lock().unwrap().0 = usize::MAX;
        self.gate_changed.notify_all();
    }

    /// Blocks until `count` uploads wait.
    pub(crate) fn await_held(&self, count: usize) {
        let gate = self.gate.lock().unwrap();
        drop(self.gate_changed.wait_while(gate, |gate| gate.1 < count).unwrap());
    }

    /// Lets the `number`th upload from now fail.
    pub(crate) fn fail_upload(&self, number: usize) {
        self.failing.store(self.uploads.load(Ordering::SeqCst) + number, Ordering::SeqCst);
    }

    /// Lets no more than `bytes` be allocated from now on.
    pub(crate) fn limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::SeqCst);
    }
}

pub(crate) struct Reading {
    device: Arc<MockDevice>,
    span: Range<u64>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut reads = self.device.reads.lock().unwrap();
        let at = reads.iter().position(|span| *span == self.span).unwrap();
        reads.swap_remove(at);
    }
}

impl Device for MockDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<DevicePtr, DeviceError> {
        let refused = self.limit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(bytes));
        refused.map_err(|_| DeviceError::OutOfMemory { bytes, what: "device memory" })?;
        // Allocations never touch, so that running over an end is noticed.
        let at = self.next.fetch_add(bytes.next_multiple_of(4096) as u64 + 4096, Ordering::SeqCst);
        self.bytes.lock().unwrap().insert(at, vec![0; bytes]);
        Ok(DevicePtr(at))
    }

    unsafe fn free(&self, at: DevicePtr) {
        self.bytes.lock().unwrap().remove(&at.0);
    }

    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<(), DeviceError> {
        let number = self.uploads.fetch_add(1, Ordering::SeqCst) + 1;
        let mut gate = self.gate.lock().unwrap();
        if from.len() >= gate.0 {
            gate.1 += 1;
            self.gate_changed.notify_all();
            gate = self.gate_changed.wait_while(gate, |gate| from.len() >= gate.0).unwrap();
            gate.1 -= 1;
        }
        drop(gate);
        if number == self.failing.load(Ordering::SeqCst) {
            return Err(DeviceError::Other("the bus is on fire".into()));
        }
        let span = to.0..to.0 + from.len() as u64;
        let meets = |read: &Range<u64>| read.start < span.end && span.start < read.end;
        if self.reads.lock().unwrap().iter().any(meets) {
            self.violations.fetch_add(1, Ordering::SeqCst);
        }
        let mut bytes = self.bytes.lock().unwrap();
        let (base, block) = bytes.range_mut(..=to.0).next_back().expect("an address of no allocation");
        let begin = (to.0 - base) as usize;
        block[begin..begin + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn pinned(&self, bytes: usize) -> Result<Memory, DeviceError> {
        let memory = Memory::heap(bytes).map_err(|error| DeviceError::Other(error.to_string()))?;
        *self.pinned.lock().unwrap() = Some(memory.clone());
        Ok(memory)
    }

    fn device_address(&self, memory: &Memory) -> DevicePtr {
        DevicePtr(memory.base().addr().get() as u64)
    }

    fn launch(&self, _: &KernelParams) -> Result<(), DeviceError> {
        Ok(())
    }

    fn prepare_graph(&self, _: &KernelParams) -> Result<(), DeviceError> {
        Ok(())
    }

    fn replay(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn is_idle(&self) -> Result<bool, DeviceError> {
        Ok(true)
    }

    fn synchronise(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// A job that reads a corpus.
pub(crate) type Job = Arc<dyn Operation>;

pub(crate) fn reads(job: &Job) -> Reads<'_> {
    job.reads().expect("a corpus")
}

/// Ring and kernel, as far as residency asks for them.
pub(crate) struct MockHost {
    device: Arc<MockDevice>,
    submitted: AtomicU64,
    open: Mutex<BTreeSet<u64>>,
    pauses: AtomicUsize,
    /// A seeded bug: says that everything is settled at once.
    pub(crate) lies: AtomicBool,
    pub(crate) failed: Mutex<Option<String>>,
    pub(crate) grown: Mutex<Vec<usize>>,
    /// A kernel that needs the copier must not be stopped now.
    pub(crate) must_run: AtomicBool,
}

impl MockHost {
    /// A job enters the ring; its ticket.
    pub(crate) fn submit(&self) -> u64 {
        let mut open = self.open.lock().unwrap();
        let ticket = self.submitted.fetch_add(1, Ordering::SeqCst) + 1;
        open.insert(ticket);
        ticket
    }

    pub(crate) fn settle(&self, ticket: u64) {
        self.open.lock().unwrap().remove(&ticket);
    }

    /// Blocks until somebody has paused so many times more, or `call` has ended, which then did not wait.
    pub(crate) fn await_pauses<T>(&self, more: usize, call: &ScopedJoinHandle<'_, T>) {
        let wanted = self.pauses.load(Ordering::SeqCst) + more;
        while self.pauses.load(Ordering::SeqCst) < wanted && !call.is_finished() {
            std::thread::yield_now();
        }
    }
}

impl Host for MockHost {
    fn submitted_through(&self) -> u64 {
        self.submitted.load(Ordering::SeqCst)
    }

    fn is_settled(&self, through: u64) -> bool {
        self.lies.load(Ordering::SeqCst) || !self.open.lock().unwrap().iter().any(|ticket| *ticket <= through)
    }

    fn pause(&self) -> Result<(), String> {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        self.failed.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn grow(&self, bytes: usize) -> Result<DevicePtr, DeviceError> {
        if self.must_run.load(Ordering::SeqCst) {
            self.device.violations.fetch_add(1, Ordering::SeqCst);
        }
        let at = self.device.alloc(bytes)?;
        self.grown.lock().unwrap().push(bytes);
        Ok(at)
    }

    fn fail(&self, reason: &str) {
        *self.failed.lock().unwrap() = Some(reason.into());
    }
}

/// Everything a test needs.
pub(crate) struct World {
    pub(crate) device: Arc<MockDevice>,
    pub(crate) host: Arc<MockHost>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) corpora: DevicePtr,
    pub(crate) residency: Residency,
}

impl World {
    pub(crate) fn new(budget: usize) -> Self {
        Self::growing(budget, budget)
    }

    /// A world whose pool begins with `chunk` bytes.
    pub(crate) fn growing(bytes: usize, least_chunk: usize) -> Self {
        let device = MockDevice::new();
        let corpora = device.alloc((CORPORA_MASK as usize + 1) * size_of::<Corpus>()).unwrap();
        let host = Arc::new(MockHost {
            device: device.clone(),
            submitted: AtomicU64::new(0),
            open: Mutex::default(),
            pauses: AtomicUsize::new(0),
            lies: AtomicBool::new(false),
            failed: Mutex::default(),
            grown: Mutex::default(),
            must_run: AtomicBool::new(false),
        });
        let counters = Arc::new(Counters::default());
        let budget = Budget { bytes, least_chunk };
        let residency = Residency::new(device.clone(), host.clone(), counters.clone(), corpora, budget).unwrap();
        Self { device, host, counters, corpora, residency }
    }

    /// Brings what a job reads.
    pub(crate) fn prepare(&self, job: &Job) -> Result<Guard, Refusal> {
        self.residency.prepare(reads(job))
    }

    /// `ready` and `consumed`.
    pub(crate) fn lines(&self) -> View<Line> {
        self.device.pinned.lock().unwrap().as_ref().unwrap().view(0, 2).unwrap()
    }

    /// Checks that nothing was written that a reader was reading.
    pub(crate) fn finish(self) {
        assert_eq!(self.device.violations(), 0, "something was written while it was read");
        assert_eq!(*self.host.failed.lock().unwrap(), None);
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub(crate) const DIM: usize = 8;

/// A segment of random rows with coordinates.
pub(crate) fn segment(seed: u64, rows: usize) -> Arc<SegmentView> {
    segment_scaled(seed, rows, 1.0)
}

/// [`segment`] whose rows are so much longer.
pub(crate) fn segment_scaled(seed: u64, rows: usize, scale: f32) -> Arc<SegmentView> {
    let mut random = Random(seed);
    let values = (0..rows * DIM).map(|_| scale * (random.unit() as f32 - 0.5)).collect();
    let columns = std::array::from_fn(|_| (0..rows).map(|_| random.unit()).collect());
    Arc::new(SegmentView::new(Arc::new(HeapSegment::new(values, DIM, Some(columns))), rows))
}

pub(crate) fn view(handle: u32, generation: u32, segments: &[Arc<SegmentView>]) -> Arc<CorpusView> {
    Arc::new(CorpusView::new(format!("corpus {handle}"), handle, generation, DIM, segments.to_vec()))
}

/// A corpus of one segment.
pub(crate) fn corpus(handle: u32, rows: usize) -> Arc<CorpusView> {
    view(handle, 1, &[segment(u64::from(handle), rows)])
}

fn query() -> Matrix {
    Matrix { rows: 1, dim: DIM, values: vec![1.0; DIM] }
}

pub(crate) fn search(corpus: &Arc<CorpusView>, metric: Metric) -> Job {
    search_for(corpus, metric, 1)
}

/// [`search`] for so many rows.
pub(crate) fn search_for(corpus: &Arc<CorpusView>, metric: Metric, k: usize) -> Job {
    Arc::new(Search { corpus: corpus.clone(), queries: query().into(), metric, k, threshold: None })
}

pub(crate) fn score(corpus: &Arc<CorpusView>) -> Job {
    Arc::new(Score { corpus: corpus.clone(), queries: query(), metric: Metric::Dot, rows: None })
}

pub(crate) fn nearest(corpus: &Arc<CorpusView>) -> Job {
    Arc::new(Nearest { points: Points::Corpus(corpus.clone()), queries: vec![[0.0; 5]], weights: [1.0; 5], k: 1 })
}
