//! A corpus that does not fit: its parts pass through one pair of buffers, a round of the job for each.
//!
//! A part is written while the device works on the one before: the queue carries copies and work out in order, so a pair of buffers is enough,
//! and the driver's staging memory is held to two parts by waiting for the round before last.

use megaring_core::corpus::CorpusView;
use megaring_ring::Status;
use wgpu::{Buffer, BufferUsages, CommandEncoderDescriptor, PollType, SubmissionIndex};

use crate::counters::Counters;
use crate::cut::Need;
use crate::gpu::{Gpu, OutOfMemory, PATIENCE};
use crate::operation::{Operation, Part};
use crate::workspace::Workspace;

/// Bytes of a part at most: a few milliseconds of a bus.
const MOST_PART_BYTES: usize = 32 << 20;
/// Of the budget, the part that one of the two buffers may take.
const BUDGET_SHARE: usize = 4;

/// Does all rounds of a job but the reading of its output, which is under way when this returns.
///
/// # Errors
/// The status to answer: `wanted` said so, or there is no room even for a part.
pub(crate) fn stream(
    gpu: &Gpu,
    (view, need): (&CorpusView, Need),
    (operation, workspace): (&mut (dyn Operation + '_), &mut Workspace),
    (budget, counters): (usize, &Counters),
    wanted: impl Fn() -> Result<(), Status>,
) -> Result<SubmissionIndex, Status> {
    let most = (budget / BUDGET_SHARE).min(MOST_PART_BYTES).min(gpu.part_bytes);
    let no_room = |full: OutOfMemory| {
        tracing::warn!(%full, "a corpus cannot be streamed");
        Status::BackendFailed
    };
    let buffers = Buffers::new(gpu, view, need, most).map_err(no_room)?;
    counters.streamed.add(1);
    let mut rounds = Rounds { gpu, operation, workspace, submitted: Vec::new() };
    for (start, segment) in view.segments() {
        for rows in need.cuts(segment.rows(), view.dim(), most) {
            wanted()?;
            let contents = need.contents(segment, view.dim(), &rows).ok_or(Status::StaleCorpus)?;
            let [first, second] = &contents;
            gpu.queue.write_buffer(&buffers.first, 0, first);
            if !second.is_empty() {
                gpu.queue.write_buffer(&buffers.second, 0, second);
            }
            counters.uploaded_bytes.add((first.len() + second.len()) as u64);
            let part = Part { binding: buffers.binding.clone(), rows: start + rows.start..start + rows.end };
            rounds.next(&[part]).map_err(no_room)?;
        }
    }
    if rounds.submitted.is_empty() {
        rounds.next(&[]).map_err(no_room)?;
    }
    rounds.finish()
}

struct Buffers {
    first: Buffer,
    second: Buffer,
    binding: wgpu::BindGroup,
}

impl Buffers {
    /// Buffers that hold the largest part of a version.
    fn new(gpu: &Gpu, view: &CorpusView, need: Need, most: usize) -> Result<Self, OutOfMemory> {
        let cuts = view.segments().flat_map(|(_, segment)| need.cuts(segment.rows(), view.dim(), most));
        let [first, second] = need.bytes(cuts.map(|rows| rows.len()).max().unwrap_or(0), view.dim());
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
    submitted: Vec<SubmissionIndex>,
}

impl Rounds<'_> {
    fn next(&mut self, parts: &[Part]) -> Result<(), OutOfMemory> {
        let Self { gpu, operation, workspace, submitted } = self;
        let first = submitted.is_empty();
        let script = operation.round(parts, first);
        let mut encoder = gpu.device.create_command_encoder(&CommandEncoderDescriptor::default());
        if first {
            workspace.load(gpu, &**operation, &script)?;
            workspace.encode_up(&mut encoder, &script);
        } else {
            workspace.write_params(gpu, &script);
        }
        workspace.run(gpu, &mut encoder, &script);
        submitted.push(gpu.queue.submit([encoder.finish()]));
        if let Some(before) = submitted.len().checked_sub(2).and_then(|place| submitted.get(place)) {
            let wait = PollType::Wait { submission_index: Some(before.clone()), timeout: Some(PATIENCE) };
            if let Err(error) = gpu.device.poll(wait) {
                gpu.fail(&format!("the device does not finish its work: {error}"));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<SubmissionIndex, Status> {
        let mut encoder = self.gpu.device.create_command_encoder(&CommandEncoderDescriptor::default());
        self.workspace.copy_down(&mut encoder);
        let index = self.gpu.queue.submit([encoder.finish()]);
        self.workspace.read_back();
        self.gpu.health().map(|()| index).map_err(|_| Status::BackendFailed)
    }
}
