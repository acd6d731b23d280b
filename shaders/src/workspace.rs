//! The buffers of one job on the device, made in advance and used again: parameters and input, scratch, output.
//!
//! A workspace is free, or its job is under way: [`Workspace::load`], then [`Workspace::record`] into a command
//! encoder, then, after the submission, [`Workspace::read_back`]. Once [`Workspace::is_over`], [`Workspace::output`]
//! gives the job's bytes and frees the workspace. Its buffers grow in steps with the jobs they meet, so it soon
//! allocates no more.
//!
//! Where the device's memory is the host's, the shaders' own buffers are mapped; elsewhere each has a twin to copy
//! through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wgpu::{BindGroup, Buffer, BufferUsages, CommandEncoder, ComputePass, ComputePassDescriptor, MapMode};

use crate::batch::Batch;
use crate::gpu::{Gpu, OutOfMemory};
use crate::operation::Operation;
use crate::script::{Dispatch, PARAMS_STRIDE, Script, Sizes, Step};

/// Parameters that a workspace has room for at first.
const FIRST_PARAMS: usize = 16 * PARAMS_STRIDE;
/// What the other buffers have at first.
const FIRST_SIZES: Sizes = Sizes { input: 256 << 10, scratch: 256 << 10, output: 256 << 10 };

/// See the module's text.
pub(crate) struct Workspace {
    params: Upload,
    input: Upload,
    scratch: Buffer,
    output: Download,
    binding: BindGroup,
    /// What is loaded, on the host's side: mapped memory may only be written to.
    bytes: Vec<u8>,
    loaded: Sizes,
    /// Mappings that have not been answered yet.
    waiting: Arc<Waiting>,
}

/// What a submission's callbacks tell.
#[derive(Default)]
struct Waiting {
    left: AtomicU32,
    failed: AtomicU32,
}

/// A buffer that the host fills.
struct Upload {
    target: Buffer,
    /// `None` where the target itself is mapped.
    staging: Option<Buffer>,
}

/// A buffer that the host reads.
struct Download {
    source: Buffer,
    /// `None` where the source itself is mapped.
    staging: Option<Buffer>,
}

impl Workspace {
    /// An empty one.
    ///
    /// # Errors
    /// The device has no memory left.
    pub(crate) fn new(gpu: &Gpu) -> Result<Self, OutOfMemory> {
        Self::with_room(gpu, FIRST_PARAMS, FIRST_SIZES)
    }

    fn with_room(gpu: &Gpu, params: usize, sizes: Sizes) -> Result<Self, OutOfMemory> {
        let params = Upload::new(gpu, "params", params, BufferUsages::UNIFORM)?;
        let input = Upload::new(gpu, "input", sizes.input, BufferUsages::STORAGE)?;
        let scratch = gpu.buffer("scratch", sizes.scratch, BufferUsages::STORAGE | BufferUsages::COPY_DST)?;
        let output = Download::new(gpu, sizes.output)?;
        let binding = gpu.bind_job(&params.target, &input.target, &scratch, &output.source);
        let (bytes, loaded, waiting) = (Vec::new(), Sizes::default(), Arc::default());
        let workspace = Self { params, input, scratch, output, binding, bytes, loaded, waiting };
        // Mapped from now on, but while a job is under way.
        workspace.map_uploads();
        Ok(workspace)
    }

    /// Writes a job's input and a round's parameters to where the device reads them. The workspace is free, and its
    /// uploads are mapped ([`Self::is_over`]).
    ///
    /// # Errors
    /// The device has no memory for what the job needs.
    pub(crate) fn load(&mut self, gpu: &Gpu, operation: &dyn Operation, script: &Script) -> Result<(), OutOfMemory> {
        let sizes = operation.sizes();
        self.grow(gpu, script.params.len(), sizes)?;
        self.loaded = sizes;
        self.bytes.clear();
        self.bytes.resize(sizes.input, 0);
        operation.fill(&mut self.bytes);
        self.params.write(gpu, &script.params);
        self.input.write(gpu, &self.bytes);
        Ok(())
    }

    /// Adds the copies up, the steps, and the copy down: a job of one round.
    pub(crate) fn record(&self, batch: &mut Batch<'_>, gpu: &Gpu, script: &Script) {
        self.record_uploads(batch, script);
        self.run(batch, gpu, script);
        self.record_download(batch);
    }

    /// Adds the copies up alone.
    pub(crate) fn record_uploads(&self, batch: &mut Batch<'_>, script: &Script) {
        self.params.copy(batch.encoder(), script.params.len());
        self.input.copy(batch.encoder(), self.loaded.input);
    }

    /// Adds the steps alone.
    pub(crate) fn run(&self, batch: &mut Batch<'_>, gpu: &Gpu, script: &Script) {
        let mut steps = script.steps.iter().peekable();
        while let Some(step) = steps.next() {
            match step {
                Step::ClearOutput(range) => {
                    let len = (range.end - range.start).next_multiple_of(4) as u64;
                    batch.encoder().clear_buffer(&self.output.source, range.start as u64, Some(len));
                }
                Step::Dispatch(dispatch) => {
                    let room = batch.make_room(dispatch.work);
                    let mut more = 0;
                    let mut pass = batch.encoder().begin_compute_pass(&ComputePassDescriptor::default());
                    self.dispatch(gpu, &mut pass, dispatch);
                    let fits =
                        |step: &&Step, more: u64| matches!(step, Step::Dispatch(next) if more + next.work <= room);
                    while let Some(Step::Dispatch(next)) = steps.next_if(|step| fits(step, more)) {
                        more += next.work;
                        self.dispatch(gpu, &mut pass, next);
                    }
                    drop(pass);
                    batch.make_room(more);
                }
            }
        }
    }

    fn dispatch(&self, gpu: &Gpu, pass: &mut ComputePass<'_>, dispatch: &Dispatch) {
        let Dispatch { stage, part, params, workgroups: [x, y, z], .. } = dispatch;
        let Some(pipeline) = gpu.pipeline(*stage) else {
            return gpu.fail(&format!("the stage {stage:?} is not there"));
        };
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &self.binding, &[params * PARAMS_STRIDE as u32]);
        pass.set_bind_group(1, part.as_ref().unwrap_or(gpu.no_part()), &[]);
        pass.dispatch_workgroups(*x, *y, *z);
    }

    /// Adds the copy of the output to where the host reads it.
    pub(crate) fn record_download(&self, batch: &mut Batch<'_>) {
        if let Some(staging) = &self.output.staging {
            let bytes = self.loaded.output.next_multiple_of(4) as u64;
            batch.encoder().copy_buffer_to_buffer(&self.output.source, 0, staging, 0, bytes);
        }
    }

    /// Writes another round's parameters, once the rounds before it have been submitted.
    ///
    /// # Errors
    /// The device has no memory for them.
    pub(crate) fn write_params(&mut self, gpu: &Gpu, script: &Script) -> Result<(), OutOfMemory> {
        if script.params.len() as u64 > self.params.target.size() {
            // The rounds before this one keep the old ones until they are done.
            self.params = Upload::new(gpu, "params", script.params.len().next_power_of_two(), BufferUsages::UNIFORM)?;
            let Self { params, input, scratch, output, .. } = &*self;
            self.binding = gpu.bind_job(&params.target, &input.target, scratch, &output.source);
        }
        gpu.queue.write_buffer(&self.params.target, 0, &script.params);
        Ok(())
    }

    /// To be called when the submission has been made: maps what the host reads, and what it will fill next.
    pub(crate) fn read_back(&self) {
        self.waiting.left.fetch_add(1, Ordering::Relaxed);
        let bytes = self.loaded.output.next_multiple_of(8).max(8) as u64;
        self.output.host().map_async(MapMode::Read, 0..bytes, self.waiting.callback());
        self.map_uploads();
    }

    /// Bytes of its buffers, twins not counted.
    pub(crate) fn room(&self) -> Sizes {
        let bytes = |buffer: &Buffer| buffer.size() as usize;
        Sizes { input: bytes(&self.input.target), scratch: bytes(&self.scratch), output: bytes(&self.output.source) }
    }

    /// Whether all mappings have been answered. The device must be polled for that.
    pub(crate) fn is_over(&self) -> bool {
        self.waiting.left.load(Ordering::Acquire) == 0
    }

    /// The output of a job that is over; the workspace is free when `read` returns.
    ///
    /// # Errors
    /// The device did not do the work.
    pub(crate) fn output<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
        if self.waiting.failed.load(Ordering::Acquire) != 0 {
            return Err("the device did not give its answer back".into());
        }
        let host = self.output.host();
        let bytes = self.loaded.output.next_multiple_of(8).max(8) as u64;
        let answer = match host.get_mapped_range(0..bytes) {
            Ok(view) => read(&view[..self.loaded.output]),
            Err(error) => return Err(error.to_string()),
        };
        host.unmap();
        Ok(answer)
    }

    fn map_uploads(&self) {
        for upload in [&self.params, &self.input] {
            self.waiting.left.fetch_add(1, Ordering::Relaxed);
            upload.host().map_async(MapMode::Write, .., self.waiting.callback());
        }
    }

    /// Sees to room for a job. Buffers that grow are made anew, all of them, since they are bound together.
    fn grow(&mut self, gpu: &Gpu, params: usize, sizes: Sizes) -> Result<(), OutOfMemory> {
        let room = |needed: usize, has: &Buffer| match has.size() as usize {
            has if needed <= has => has,
            _ => needed.next_power_of_two().min(gpu.binding_bytes.max(needed)),
        };
        let params = room(params, &self.params.target);
        let grown = Sizes {
            input: room(sizes.input, &self.input.target),
            scratch: room(sizes.scratch, &self.scratch),
            output: room(sizes.output, &self.output.source),
        };
        if grown != self.room() || params != self.params.target.size() as usize {
            *self = Self::with_room(gpu, params, grown)?;
            gpu.settle_mappings(|| self.is_over());
        }
        Ok(())
    }
}

impl Waiting {
    fn callback(self: &Arc<Self>) -> impl FnOnce(Result<(), wgpu::BufferAsyncError>) + Send + 'static {
        let waiting = self.clone();
        move |result| {
            if result.is_err() {
                waiting.failed.store(1, Ordering::Release);
            }
            waiting.left.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Upload {
    fn new(gpu: &Gpu, label: &str, bytes: usize, usage: BufferUsages) -> Result<Self, OutOfMemory> {
        let usage = usage | BufferUsages::COPY_DST;
        if gpu.mappable {
            let target = gpu.buffer(label, bytes, usage | BufferUsages::MAP_WRITE)?;
            return Ok(Self { target, staging: None });
        }
        let target = gpu.buffer(label, bytes, usage)?;
        let staging = gpu.buffer(label, bytes, BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC)?;
        Ok(Self { target, staging: Some(staging) })
    }

    /// The buffer that the host writes to.
    fn host(&self) -> &Buffer {
        self.staging.as_ref().unwrap_or(&self.target)
    }

    fn write(&self, gpu: &Gpu, bytes: &[u8]) {
        let host = self.host();
        if !bytes.is_empty() {
            let padded = (bytes.len() as u64).next_multiple_of(8);
            match host.get_mapped_range_mut(0..padded) {
                Ok(mut view) => view.slice(..bytes.len()).copy_from_slice(bytes),
                Err(error) => gpu.fail(&error.to_string()),
            }
        }
        host.unmap();
    }

    fn copy(&self, encoder: &mut CommandEncoder, bytes: usize) {
        if let Some(staging) = &self.staging
            && bytes > 0
        {
            let padded = bytes.next_multiple_of(4) as u64;
            encoder.copy_buffer_to_buffer(staging, 0, &self.target, 0, padded);
        }
    }
}

impl Download {
    fn new(gpu: &Gpu, bytes: usize) -> Result<Self, OutOfMemory> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        if gpu.mappable {
            return Ok(Self { source: gpu.buffer("output", bytes, usage | BufferUsages::MAP_READ)?, staging: None });
        }
        let source = gpu.buffer("output", bytes, usage | BufferUsages::COPY_SRC)?;
        let staging = gpu.buffer("output", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        Ok(Self { source, staging: Some(staging) })
    }

    fn host(&self) -> &Buffer {
        self.staging.as_ref().unwrap_or(&self.source)
    }
}
