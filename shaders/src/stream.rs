//! A corpus that does not fit: its parts pass through one pair of buffers, a round of the job for each.
//!
//! A part is written while the device works on the one before. The queue keeps copies and work in order, so one pair of
//! buffers is enough; waiting for the round before last holds the driver's staging memory to two parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use megaring_core::corpus::CorpusView;
use megaring_ring::Status;
use wgpu::{Buffer, BufferUsages};

use crate::batch::Batch;
use crate::counters::Counters;
use crate::cut::Pair;
use crate::gpu::{Gpu, OutOfMemory};
use crate::operation::{Operation, Part};
use crate::workspace::Workspace;

/// Bytes of a part at most: a few milliseconds of a bus.
const MOST_PART_BYTES: usize = 32 << 20;
/// Of the budget, the part that one of the two buffers may take.
const BUDGET_SHARE: usize = 4;

/// Does all rounds of a job and begins to read its output. `meanwhile` is called before each round, and while waiting
/// for the device at least every other millisecond.
///
/// # Errors
/// The status to answer: what `meanwhile` says, or that there is no room even for a part, or that the device failed.
pub(crate) fn stream(
    gpu: &Gpu,
    (view, pair): (&CorpusView, Pair),
    (operation, workspace): (&mut (dyn Operation + '_), &mut Workspace),
    (budget, patience, counters): (usize, Duration, &Counters),
    meanwhile: &mut dyn FnMut() -> Result<(), Status>,
) -> Result<(), Status> {
    let most = (budget / BUDGET_SHARE).min(MOST_PART_BYTES).min(gpu.part_bytes);
    let buffers = Buffers::new(gpu, view, pair, most).map_err(no_room)?;
    counters.streamed.add(1);
    let mut rounds = Rounds { gpu, operation, workspace, patience, before: None, any: false };
    for (start, segment) in view.segments() {
        for rows in pair.cuts(segment.rows(), view.dim(), most) {
            meanwhile()?;
            let contents = pair.contents(segment, view.dim(), &rows).ok_or(Status::StaleCorpus)?;
            let [first, second] = &contents;
            gpu.queue.write_buffer(&buffers.first, 0, first);
            if !second.is_empty() {
                gpu.queue.write_buffer(&buffers.second, 0, second);
            }
            counters.uploaded_bytes.add((first.len() + second.len()) as u64);
            let part = Part { binding: buffers.binding.clone(), rows: start + rows.start..start + rows.end };
            rounds.next(&[part], meanwhile)?;
        }
    }
    if !rounds.any {
        rounds.next(&[], meanwhile)?;
    }
    rounds.finish()
}

fn no_room(full: OutOfMemory) -> Status {
    tracing::warn!(%full, "a corpus cannot be streamed");
    Status::BackendFailed
}

struct Buffers {
    first: Buffer,
    second: Buffer,
    binding: wgpu::BindGroup,
}

impl Buffers {
    /// Buffers that hold the largest part of a version.
    fn new(gpu: &Gpu, view: &CorpusView, pair: Pair, most: usize) -> Result<Self, OutOfMemory> {
        let cuts = view.segments().flat_map(|(_, segment)| pair.cuts(segment.rows(), view.dim(), most));
        let [first, second] = pair.bytes(cuts.map(|rows| rows.len()).max().unwrap_or(0), view.dim());
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let (first, second) = (gpu.buffer("stream", first, usage)?, gpu.buffer("stream", second, usage)?);
        let binding = gpu.bind_part(&first, &second);
        Ok(Self { first, second, binding })
    }
}

struct Rounds<'a> {
    gpu: &'a Gpu,
    operation: &'a mut (dyn Operation + 'a),
    workspace: &'a mut Workspace,
    patience: Duration,
    /// Whether the last round is done.
    before: Option<Arc<AtomicBool>>,
    /// There was a round.
    any: bool,
}

impl Rounds<'_> {
    fn next(&mut self, parts: &[Part], meanwhile: &mut dyn FnMut() -> Result<(), Status>) -> Result<(), Status> {
        let script = self.operation.round(parts, !self.any);
        let mut batch = Batch::new(self.gpu);
        if self.any {
            self.workspace.write_params(self.gpu, &script).map_err(no_room)?;
        } else {
            self.workspace.load(self.gpu, &*self.operation, &script).map_err(no_room)?;
            self.workspace.record_uploads(&mut batch, &script);
        }
        self.any = true;
        self.workspace.run(&mut batch, self.gpu, &script);
        batch.submit();
        match self.before.replace(self.gpu.all_done()) {
            Some(before) => self.wait(&before, meanwhile),
            None => Ok(()),
        }
    }

    fn wait(&self, done: &AtomicBool, meanwhile: &mut dyn FnMut() -> Result<(), Status>) -> Result<(), Status> {
        let begun = Instant::now();
        self.gpu.poll();
        while !done.load(Ordering::Acquire) {
            self.gpu.health().map_err(|_| Status::BackendFailed)?;
            meanwhile()?;
            if begun.elapsed() > self.patience {
                self.gpu.fail("the device does not finish its work");
            }
            self.gpu.wait();
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Status> {
        let mut batch = Batch::new(self.gpu);
        self.workspace.record_download(&mut batch);
        batch.submit();
        self.workspace.read_back();
        self.gpu.health().map_err(|_| Status::BackendFailed)
    }
}
