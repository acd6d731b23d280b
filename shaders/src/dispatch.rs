//! The dispatcher: the thread that consumes the ring for the device.
//!
//! It takes up to [`BATCH`] slots, plans their operations, and gives them to the device in one submission: copies up,
//! work, copies down. The next submission is queued while the last one is at work. Waiting is polling: for a short
//! while in a spin, then with pauses too short for a new slot to wait long.
//!
//! A slot that cannot be done is answered with a status. When the device fails, or a submission takes longer than the
//! backend's patience, everything under way is answered as failed, and the device is opened again, once. The second
//! time the backend is out of service: whatever still comes is answered as failed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use megaring_ring::{Body, JobRing, PolledJob, Status, WaitStrategy, Work};

use crate::batch::Batch;
use crate::gpu::{Gpu, OutOfMemory};
use crate::operation::{Delivery, rounds};
use crate::plan::{Context, Planned, Resources, Source, plan};
use crate::residency::{Resident, parts_of};
use crate::script::{Script, Sizes};
use crate::shared::Shared;
use crate::stream;
use crate::workspace::Workspace;

/// Slots of one submission.
const BATCH: usize = 8;
/// Submissions under way: one at work, one queued.
const DEPTH: usize = 2;
/// Slots under way at most.
pub(crate) const SLOTS: usize = DEPTH * BATCH;
/// Workspaces kept of more than [`LARGE`] bytes.
const MOST_LARGE: usize = 4;
const LARGE: usize = 8 << 20;
/// How long a device is polled in a spin by default.
const SPIN: Duration = Duration::from_micros(200);

/// The dispatcher's state.
pub(crate) struct Dispatcher {
    pub(crate) ring: Arc<JobRing>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) wait: WaitStrategy,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) device: Device,
}

/// What goes with the device when it is lost.
pub(crate) struct Device {
    gpu: Arc<Gpu>,
    resources: Arc<Resources>,
    free: Vec<Workspace>,
    under_way: VecDeque<Submission>,
}

struct Submission {
    in_flight: Vec<InFlight>,
    /// When it became the oldest one under way, once that has been looked at.
    oldest_since: Option<Instant>,
}

/// A slot whose work is on the device.
struct InFlight {
    work: Work,
    deliver: Delivery,
    workspace: Box<Workspace>,
    taken: Instant,
    /// What it reads stays resident meanwhile.
    _held: Vec<Arc<Resident>>,
}

impl Device {
    /// A device without work, with a workspace for each slot that may be under way.
    ///
    /// # Errors
    /// The device has no memory for them, or has failed.
    pub(crate) fn new(gpu: Arc<Gpu>, resources: Resources) -> Result<Self, String> {
        let resources = Arc::new(resources);
        let free = (0..SLOTS).map(|_| Workspace::new(&gpu)).collect::<Result<Vec<_>, _>>();
        let free = free.map_err(|full| full.to_string())?;
        gpu.settle_mappings(|| free.iter().all(Workspace::is_over));
        gpu.health()?;
        Ok(Self { gpu, resources, free, under_way: VecDeque::new() })
    }

    /// Answers what is under way as failed.
    fn fail_all(&mut self) {
        for submission in self.under_way.drain(..) {
            for job in submission.in_flight {
                job.work.complete(Status::BackendFailed, elapsed_ns(job.taken), Body::Empty);
            }
        }
    }
}

impl Dispatcher {
    /// Works until it is told to stop and nothing is under way. Slots still in the ring are left for the host to fail.
    pub(crate) fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => return,
                // Where wgpu does not say a thing otherwise, or a fault of ours: nobody is left without an answer.
                Err(_) => {
                    self.device.fail_all();
                    self.shared.take_out("its dispatcher failed");
                }
            }
        }
    }

    /// Does the next thing that is to be done; false once there is nothing left and the backend is told to stop.
    fn turn(&mut self) -> bool {
        let stopping = self.stop.load(Ordering::Acquire);
        if self.shared.is_out() {
            self.refuse_all();
            return false;
        }
        if let Err(reason) = self.device.gpu.health() {
            self.device.fail_all();
            if !stopping {
                self.recover(&reason);
            }
            return !stopping;
        }
        if !stopping && self.device.under_way.len() < DEPTH && self.submit() || self.finish_oldest() {
            return true;
        }
        if !self.device.under_way.is_empty() {
            self.poll();
        } else if stopping {
            return false;
        } else {
            self.await_jobs();
        }
        true
    }

    fn await_jobs(&self) {
        let gpu = &self.device.gpu;
        let ready = || self.ring.has_jobs() || self.stop.load(Ordering::Acquire) || gpu.health().is_err();
        self.ring.jobs_signal().wait_until(self.wait, None, ready);
    }

    /// Takes what is there and gives it to the device; false if that was nothing.
    fn submit(&mut self) -> bool {
        let mut polled: [Option<PolledJob>; BATCH] = [const { None }; BATCH];
        let mut places = polled.iter_mut();
        let taken = self.ring.try_poll(BATCH, &mut |job| {
            if let Some(place) = places.next() {
                *place = Some(job);
            }
        });
        if taken == 0 {
            return false;
        }
        let gpu = self.device.gpu.clone();
        let (mut in_flight, mut scripts, mut streams) =
            (Vec::with_capacity(taken), Vec::with_capacity(taken), Vec::new());
        for job in polled.into_iter().flatten() {
            match self.prepare(&gpu, &job) {
                Some(Prepared::Resident(job, script)) => {
                    in_flight.push(job);
                    scripts.push(script);
                }
                Some(Prepared::ToStream(work, begun)) => streams.push((work, begun)),
                None => {}
            }
        }
        if !in_flight.is_empty() {
            self.send(&gpu, in_flight, &scripts);
        }
        for (work, begun) in streams {
            self.stream(&gpu, work, begun);
        }
        true
    }

    /// Gives jobs to the device, with their scripts.
    fn send(&mut self, gpu: &Gpu, in_flight: Vec<InFlight>, scripts: &[Script]) {
        let sent = gpu.validated(|| {
            let mut batch = Batch::new(gpu);
            for (job, script) in in_flight.iter().zip(scripts) {
                job.workspace.record(&mut batch, gpu, script);
            }
            batch.submit();
            in_flight.iter().for_each(|job| job.workspace.read_back());
        });
        match sent {
            Ok(()) => self.push(in_flight),
            // A fault of ours. The device did nothing of it and is as good as before; the workspaces may not be.
            Err(reason) => {
                tracing::error!(reason, "wgpu refused a submission");
                for job in in_flight {
                    job.work.complete(Status::BackendFailed, elapsed_ns(job.taken), Body::Empty);
                }
            }
        }
    }

    fn push(&mut self, in_flight: Vec<InFlight>) {
        self.shared.counters.submissions.add(1);
        self.device.under_way.push_back(Submission { in_flight, oldest_since: None });
    }

    /// From a slot to work that can be given to the device. A slot that cannot, or needs no device, is answered.
    fn prepare(&mut self, gpu: &Gpu, job: &PolledJob) -> Option<Prepared> {
        let taken = Instant::now();
        let Ok(mut work) = self.ring.open(job) else {
            self.ring.complete(job.ticket, 0, Status::BadDescriptor, 0, Body::Empty);
            return None;
        };
        let prepared = is_wanted(&work).and_then(|()| {
            let prepared = catch_unwind(AssertUnwindSafe(|| self.try_prepare(gpu, &work)));
            prepared.unwrap_or(Err(Status::BackendFailed))
        });
        match prepared {
            Ok(Preparation::Resident { deliver, workspace, script, held }) => {
                let job = InFlight { work, deliver, workspace, taken, _held: held };
                return Some(Prepared::Resident(job, script));
            }
            Ok(Preparation::ToStream) => return Some(Prepared::ToStream(work, taken)),
            Ok(Preparation::Known(deliver)) => {
                deliver(&[], work.result_mut());
                complete(work, taken);
            }
            Err(status) => work.complete(status, elapsed_ns(taken), Body::Empty),
        }
        None
    }

    fn try_prepare(&mut self, gpu: &Gpu, work: &Work) -> Result<Preparation, Status> {
        let context = Context { corpora: &self.shared.corpora, gpu, resources: &self.device.resources };
        let Planned { mut operation, source } = plan(work, &context)?;
        let (parts, held) = match source {
            Source::Nothing => return Ok(Preparation::Known(operation.delivery())),
            Source::Parts(parts) => (parts, Vec::new()),
            Source::Corpus(view, pair) => match self.shared.residency.find(gpu, &view, pair) {
                Some(held) => (parts_of(&view, &held), held),
                None => return Ok(Preparation::ToStream),
            },
        };
        let mut workspace = self.workspace(gpu, check_sizes(gpu, operation.sizes())?).map_err(no_room)?;
        let mut script = Script::default();
        for (number, parts) in rounds(&parts).into_iter().enumerate() {
            script.append(operation.round(parts, number == 0));
        }
        workspace.load(gpu, &*operation, &script).map_err(no_room)?;
        Ok(Preparation::Resident { deliver: operation.delivery(), workspace, script, held })
    }

    /// A free workspace: the smallest that has the room, or else the largest, which will grow.
    fn workspace(&mut self, gpu: &Gpu, sizes: Sizes) -> Result<Box<Workspace>, OutOfMemory> {
        let free = &mut self.device.free;
        let mut places: Vec<usize> = (0..free.len()).collect();
        places.sort_by_key(|place| free[*place].room().total());
        let fitting = places.iter().copied().find(|place| free[*place].room().holds(sizes));
        match fitting.or(places.last().copied()) {
            Some(place) => Ok(Box::new(free.swap_remove(place))),
            None => {
                let workspace = Box::new(Workspace::new(gpu)?);
                gpu.settle_mappings(|| workspace.is_over());
                Ok(workspace)
            }
        }
    }

    /// A job whose corpus is not resident: all its rounds. Blocks until the last one is submitted.
    fn stream(&mut self, gpu: &Gpu, work: Work, taken: Instant) {
        let streamed = catch_unwind(AssertUnwindSafe(|| self.try_stream(gpu, &work)));
        match streamed.unwrap_or(Err(Status::BackendFailed)) {
            Ok((deliver, workspace)) => {
                self.push(vec![InFlight { work, deliver, workspace, taken, _held: Vec::new() }]);
            }
            Err(status) => work.complete(status, elapsed_ns(taken), Body::Empty),
        }
    }

    /// Where it fails half-way, the workspace goes with it.
    fn try_stream(&mut self, gpu: &Gpu, work: &Work) -> Result<(Delivery, Box<Workspace>), Status> {
        // The device's part of the state, which this holds, is not what answers the jobs before it.
        let (shared, resources) = (self.shared.clone(), self.device.resources.clone());
        let context = Context { corpora: &shared.corpora, gpu, resources: &resources };
        let Planned { mut operation, source: Source::Corpus(view, pair) } = plan(work, &context)? else {
            return Err(Status::BackendFailed);
        };
        let mut workspace = self.workspace(gpu, check_sizes(gpu, operation.sizes())?).map_err(no_room)?;
        let mut meanwhile = || {
            while self.finish_oldest() {}
            if self.stop.load(Ordering::Acquire) { Err(Status::ShuttingDown) } else { is_wanted(work) }
        };
        let terms = (shared.residency.budget(), shared.patience(), &*shared.counters);
        let job = (&mut *operation, &mut *workspace);
        let streamed = gpu.validated(|| stream::stream(gpu, (&view, pair), job, terms, &mut meanwhile));
        streamed.map_err(|reason| {
            tracing::error!(reason, "wgpu refused a submission");
            Status::BackendFailed
        })??;
        Ok((operation.delivery(), workspace))
    }

    /// Answers the oldest submission if it is over; false if it is not.
    fn finish_oldest(&mut self) -> bool {
        let over = |submission: &mut Submission| submission.in_flight.iter().all(|job| job.workspace.is_over());
        let Some(submission) = self.device.under_way.pop_front_if(over) else { return false };
        for job in submission.in_flight {
            self.finish(job);
        }
        true
    }

    fn finish(&mut self, job: InFlight) {
        let InFlight { mut work, deliver, mut workspace, taken, .. } = job;
        let delivered =
            catch_unwind(AssertUnwindSafe(|| workspace.output(|output| deliver(output, work.result_mut()))));
        match delivered {
            Ok(Ok(())) => {
                self.shared.counters.jobs.add(1);
                complete(work, taken);
                self.keep(workspace);
            }
            Ok(Err(reason)) => {
                self.device.gpu.fail(&reason);
                work.complete(Status::BackendFailed, elapsed_ns(taken), Body::Empty);
            }
            Err(_) => work.complete(Status::BackendFailed, elapsed_ns(taken), Body::Empty),
        }
    }

    fn keep(&mut self, workspace: Box<Workspace>) {
        let free = &mut self.device.free;
        let is_large = |workspace: &Workspace| workspace.room().total() > LARGE;
        let large = free.iter().filter(|workspace| is_large(workspace)).count();
        if free.len() < SLOTS && !(is_large(&workspace) && large >= MOST_LARGE) {
            free.push(*workspace);
        }
    }

    /// Gives the oldest submission a moment.
    fn poll(&mut self) {
        let Device { gpu, under_way, .. } = &mut self.device;
        let Some(Submission { oldest_since, .. }) = under_way.front_mut() else { return };
        let waited = oldest_since.get_or_insert_with(Instant::now).elapsed();
        let spins = match self.wait {
            // A program on the CPU works on the very cores that a spin would take from it.
            _ if gpu.software => Duration::ZERO,
            WaitStrategy::BusySpin | WaitStrategy::Yield => Duration::MAX,
            WaitStrategy::HybridSpin(spin) => spin.max(SPIN),
            WaitStrategy::Park => Duration::ZERO,
        };
        if waited < spins {
            std::hint::spin_loop();
            gpu.poll();
        } else {
            gpu.wait();
        }
        if waited > self.shared.patience() {
            gpu.fail("the device does not finish its work");
        }
    }

    /// After a fault of the device: opens it anew, once.
    fn recover(&mut self, reason: &str) {
        let rebuilt = self.shared.rebuild(reason).and_then(|(gpu, resources)| {
            Device::new(gpu, resources).map_err(|then| format!("{reason}; and then: {then}"))
        });
        match rebuilt {
            Ok(device) => {
                tracing::warn!(reason, "the GPU was opened anew");
                self.device = device;
            }
            Err(reason) => {
                tracing::error!(reason, "the wgpu backend is out of service");
                self.shared.take_out(&reason);
            }
        }
    }

    /// Out of service: answers what still comes, as failed, until told to stop.
    fn refuse_all(&self) {
        while !self.stop.load(Ordering::Acquire) {
            self.ring.try_poll(BATCH, &mut |job| {
                self.ring.complete(job.ticket, 0, Status::BackendFailed, 0, Body::Empty);
            });
            self.await_jobs();
        }
    }
}

/// What became of a slot that is to be given to the device.
enum Prepared {
    Resident(InFlight, Script),
    ToStream(Work, Instant),
}

/// The same without the slot.
enum Preparation {
    Resident {
        deliver: Delivery,
        workspace: Box<Workspace>,
        script: Script,
        held: Vec<Arc<Resident>>,
    },
    ToStream,
    /// The device is not needed: this makes the answer of nothing.
    Known(Delivery),
}

/// The sizes, if the adapter can bind such buffers.
fn check_sizes(gpu: &Gpu, sizes: Sizes) -> Result<Sizes, Status> {
    if sizes.largest() <= gpu.binding_bytes {
        return Ok(sizes);
    }
    tracing::debug!(?sizes, "a job needs larger buffers than the adapter binds");
    Err(Status::BackendFailed)
}

fn no_room(full: OutOfMemory) -> Status {
    tracing::warn!(%full, "a job finds no room on the device");
    Status::BackendFailed
}

/// Completes a slot whose result region holds the answer.
fn complete(work: Work, taken: Instant) {
    let whole = work.result_body(work.descriptor().result.len as usize).unwrap_or_default();
    work.complete(Status::Ok, elapsed_ns(taken), whole);
}

fn is_wanted(work: &Work) -> Result<(), Status> {
    if !work.is_wanted() {
        return Err(Status::Cancelled);
    }
    if is_past(work.descriptor().deadline_ns) {
        return Err(Status::DeadlineExceeded);
    }
    Ok(())
}

fn elapsed_ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a deadline in Unix nanoseconds has passed; 0 is none.
fn is_past(deadline_ns: u64) -> bool {
    deadline_ns != 0
        && SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now.as_nanos() >= u128::from(deadline_ns))
}
