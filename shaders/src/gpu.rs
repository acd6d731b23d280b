//! A device of an adapter, its pipelines, and the one place where its errors arrive.
//!
//! wgpu reports errors to a handler, most of them after the call that caused them, and goes on with objects that do
//! nothing. So a device here has a *fault*: its loss, or the first error that no scope caught. Whoever waits for work
//! looks at the fault before the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wgpu::{
    Adapter, BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingType, Buffer, BufferBinding, BufferBindingType, BufferDescriptor, BufferSize,
    BufferUsages, ComputePipeline, ComputePipelineDescriptor, Device, DeviceDescriptor, Error, ErrorFilter, Features,
    Limits, PipelineLayout, PipelineLayoutDescriptor, PollType, Queue, ShaderModuleDescriptor, ShaderSource,
    ShaderStages,
};

use crate::script::PARAMS_STRIDE;
use crate::stage::{Shape, Stage, Traits};
use crate::{Unavailable, adapter};

/// How a device is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GpuOptions {
    /// Make use of these where the adapter has them.
    pub(crate) traits: Traits,
    /// The shape that workgroups may have at most; `None` is what the adapter allows.
    pub(crate) shape: Option<Shape>,
    /// Map the buffers that shaders read and write, where memory is one.
    pub(crate) mappable: bool,
    /// Most bytes of a buffer that holds a part of a corpus; 0 is what the adapter binds.
    pub(crate) part_bytes: usize,
    /// How long the device may take over a buffer that is to be mapped, where that is less than [`MAPPING`].
    pub(crate) patience: Duration,
    /// Where the shaders come from: [`Stage::source`], but in tests.
    pub(crate) sources: fn(Stage, Traits, Shape) -> String,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            traits: Traits { subgroups: true, float64: true },
            shape: None,
            mappable: true,
            part_bytes: 0,
            patience: MAPPING,
            sources: Stage::source,
        }
    }
}

/// A device ready for work.
pub(crate) struct Gpu {
    /// No other device of this process has the same.
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) api: &'static str,
    /// The driver and its version.
    pub(crate) driver: String,
    pub(crate) software: bool,
    pub(crate) device: Device,
    pub(crate) queue: Queue,
    pub(crate) traits: Traits,
    /// Buffers that shaders use can be mapped, and mapping them is no detour.
    pub(crate) mappable: bool,
    /// Most bytes of one binding.
    pub(crate) binding_bytes: usize,
    /// Most bytes of a buffer that holds a part of a corpus.
    pub(crate) part_bytes: usize,
    patience: Duration,
    fault: Arc<Fault>,
    loss: OnceLock<Loss>,
    job_layout: BindGroupLayout,
    part_layout: BindGroupLayout,
    no_part: BindGroup,
    pipelines: Vec<Option<ComputePipeline>>,
}

/// Ways in which a device fails, to see what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The device is destroyed: what is submitted from now on comes to nothing.
    Destroyed,
    /// The driver resets it, and says so when it is asked next.
    Reset,
    /// It does not answer any more.
    Silent,
}

/// Between two polls of a thread that does not spin: little beside what is waited for.
const PAUSE: Duration = Duration::from_micros(50);

/// How long a device may take at most over a buffer that is to be mapped, with nothing else under way.
const MAPPING: Duration = Duration::from_secs(20);

/// The first thing that went wrong with a device.
#[derive(Default)]
struct Fault(OnceLock<String>);

impl Gpu {
    /// Opens the adapter and compiles every stage that it can run.
    ///
    /// # Errors
    /// What the driver refuses, such as a shader.
    pub(crate) fn open(adapter: &Adapter, options: GpuOptions) -> Result<Self, Unavailable> {
        let info = adapter.get_info();
        let refused = |what: &str, error: &dyn std::fmt::Display| {
            Unavailable::new(format_args!("the adapter {} refuses {what}: {error}", info.name))
        };
        let has = adapter.features();
        let Traits { subgroups, float64 } = options.traits;
        let wanted = [
            (Features::SUBGROUP, subgroups),
            (Features::SHADER_F64, float64),
            (Features::MAPPABLE_PRIMARY_BUFFERS, options.mappable && adapter::shares_memory(&info)),
        ];
        let wanted = wanted.into_iter().filter(|(feature, on)| *on && has.contains(*feature));
        let features = wanted.fold(Features::empty(), |all, (feature, _)| all | feature);
        let descriptor = DeviceDescriptor {
            label: Some("megaring"),
            required_features: features,
            required_limits: limits(&adapter.limits()),
            ..DeviceDescriptor::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| refused("a device", &error))?;
        let fault = Arc::new(Fault::default());
        watch(&device, &fault);
        let traits = Traits {
            subgroups: features.contains(Features::SUBGROUP),
            float64: features.contains(Features::SHADER_F64),
        };
        let (job_layout, part_layout) = (job_layout(&device), part_layout(&device));
        let layout = device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&job_layout), Some(&part_layout)],
            immediate_size: 0,
        });
        let shape = options.shape.unwrap_or_else(|| Shape::of(&device.limits()));
        let mut pipelines = Vec::with_capacity(Stage::ALL.len());
        for stage in Stage::ALL {
            let pipeline = stage
                .runs_with(traits)
                .then(|| compile(&device, &layout, *stage, (options.sources)(*stage, traits, shape)))
                .transpose();
            pipelines.push(pipeline.map_err(|error| refused(&format!("the shader {stage:?}"), &error))?);
        }
        let no_part = no_part(&device, &part_layout);
        let most = binding_bytes(&device.limits());
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let gpu = Self {
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            api: adapter::api(&info),
            driver: adapter::driver(&info),
            software: adapter::is_software(&info),
            name: info.name,
            device,
            queue,
            traits,
            mappable: features.contains(Features::MAPPABLE_PRIMARY_BUFFERS),
            binding_bytes: most,
            part_bytes: if options.part_bytes == 0 { most } else { options.part_bytes.min(most) },
            patience: options.patience.min(MAPPING),
            fault,
            loss: OnceLock::new(),
            job_layout,
            part_layout,
            no_part,
            pipelines,
        };
        gpu.health().map_err(Unavailable::new)?;
        Ok(gpu)
    }

    /// What shaders are compiled for, such as `vulkan+subgroups+float64`.
    pub(crate) fn instruction_set(&self) -> String {
        let Traits { subgroups, float64 } = self.traits;
        let with = [(subgroups, "+subgroups"), (float64, "+float64")];
        with.into_iter().filter(|(on, _)| *on).fold(self.api.to_owned(), |name, (_, more)| name + more)
    }

    /// Whether nothing has gone wrong.
    ///
    /// # Errors
    /// What has, first.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.fault.0.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Notes that something went wrong that the driver did not report.
    pub(crate) fn fail(&self, reason: &str) {
        self.fault.note(reason.to_owned());
    }

    /// The stage's pipeline; `None` where the adapter cannot run it.
    pub(crate) fn pipeline(&self, stage: Stage) -> Option<&ComputePipeline> {
        self.pipelines.get(stage.index())?.as_ref()
    }

    /// Does something of which wgpu may find that it cannot be: then that alone has failed, and not the device.
    ///
    /// # Errors
    /// What wgpu found.
    pub(crate) fn validated<T>(&self, work: impl FnOnce() -> T) -> Result<T, String> {
        let scope = self.device.push_error_scope(ErrorFilter::Validation);
        let done = work();
        match pollster::block_on(scope.pop()) {
            None => Ok(done),
            Some(error) => {
                // What comes of a device that is gone is told so, too; the loss itself when it is asked.
                self.poll();
                self.health().and(Err(error.to_string()))
            }
        }
    }

    /// A buffer, zeroed.
    ///
    /// # Errors
    /// The device has no memory for it.
    pub(crate) fn buffer(&self, label: &str, bytes: usize, usage: BufferUsages) -> Result<Buffer, OutOfMemory> {
        let size = (bytes.max(16) as u64).next_multiple_of(16);
        let descriptor = BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let invalid = self.device.push_error_scope(ErrorFilter::Validation);
        let full = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&descriptor);
        let (full, invalid) = (pollster::block_on(full.pop()), pollster::block_on(invalid.pop()));
        match full.or(invalid) {
            None => Ok(buffer),
            Some(error) => Err(OutOfMemory { bytes, reason: error.to_string() }),
        }
    }

    /// Binds a workspace's buffers as group 0.
    pub(crate) fn bind_job(&self, params: &Buffer, input: &Buffer, scratch: &Buffer, output: &Buffer) -> BindGroup {
        let one = BufferBinding { buffer: params, offset: 0, size: BufferSize::new(PARAMS_STRIDE as u64) };
        let entries = [
            BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(one) },
            BindGroupEntry { binding: 1, resource: input.as_entire_binding() },
            BindGroupEntry { binding: 2, resource: scratch.as_entire_binding() },
            BindGroupEntry { binding: 3, resource: output.as_entire_binding() },
        ];
        let layout = &self.job_layout;
        self.device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries })
    }

    /// Binds a part's buffers as group 1.
    pub(crate) fn bind_part(&self, rows: &Buffer, columns: &Buffer) -> BindGroup {
        let entries = [
            BindGroupEntry { binding: 0, resource: rows.as_entire_binding() },
            BindGroupEntry { binding: 1, resource: columns.as_entire_binding() },
        ];
        let layout = &self.part_layout;
        self.device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries })
    }

    /// What is bound as group 1 where a stage reads none.
    pub(crate) fn no_part(&self) -> &BindGroup {
        &self.no_part
    }

    /// Asks the device what it has done, and calls back whoever waits for that. What goes wrong is noted as a fault.
    pub(crate) fn poll(&self) {
        let polled = catch_unwind(AssertUnwindSafe(|| match self.loss.get() {
            Some(Loss::Reset) => panic!("the driver says that the device is lost"),
            Some(Loss::Silent) => Ok(()),
            Some(Loss::Destroyed) | None => self.device.poll(PollType::Poll).map(drop),
        }));
        match polled {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(&error.to_string()),
            // wgpu panics where the driver reports a reset or that memory is out. Nothing is left half done.
            Err(_) => self.fail("the driver gave the device up in a poll"),
        }
    }

    /// Gives the device a moment, and asks it then. Not by wgpu's own waiting ([`PollType::Wait`]): that panics where
    /// its time is over and another thread sees the awaited submission end before it does.
    pub(crate) fn wait(&self) {
        std::thread::park_timeout(PAUSE);
        self.poll();
    }

    /// Whether the device has done all that is submitted by now: told by a poll, or by another submission.
    pub(crate) fn all_done(&self) -> Arc<AtomicBool> {
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        self.queue.on_submitted_work_done(move || told.store(true, Ordering::Release));
        done
    }

    /// Polls until `done` says so; false if that takes longer than `patience` or the device fails.
    pub(crate) fn settle(&self, patience: Duration, done: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        // What waits for no submission is told by the first look.
        self.poll();
        while !done() && self.health().is_ok() && begun.elapsed() < patience {
            self.wait();
        }
        done()
    }

    /// Polls until what is to be mapped is. A device that has not done so within its patience has failed.
    pub(crate) fn settle_mappings(&self, done: impl Fn() -> bool) {
        if !self.settle(self.patience, done) {
            self.fail("the device does not map its memory");
        }
    }

    /// Makes the device fail, as far as a program can.
    pub(crate) fn lose(&self, how: Loss) {
        match how {
            Loss::Destroyed => self.device.destroy(),
            Loss::Reset | Loss::Silent => _ = self.loss.set(how),
        }
    }
}

impl Drop for Gpu {
    /// wgpu waits without a limit for what is under way before it gives a device back. One that failed is never given
    /// back.
    fn drop(&mut self) {
        if self.health().is_err() {
            std::mem::forget((self.device.clone(), self.queue.clone()));
        }
    }
}

/// The device has no room for a buffer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device has no room for a buffer of {bytes} bytes: {reason}")]
pub(crate) struct OutOfMemory {
    bytes: usize,
    reason: String,
}

impl Fault {
    fn note(&self, reason: String) {
        if self.0.set(reason).is_ok() {
            tracing::warn!(reason = %self.0.get().map_or("", String::as_str), "the GPU failed");
        }
    }
}

/// Where the device's errors and its loss arrive from now on.
fn watch(device: &Device, fault: &Arc<Fault>) {
    let (lost, wrong) = (fault.clone(), fault.clone());
    device.set_device_lost_callback(move |why, message| lost.note(format!("the device was lost ({why:?}): {message}")));
    device.on_uncaptured_error(Arc::new(move |error: Error| wrong.note(error.to_string())));
}

/// What is asked of the adapter: all that it has of what matters here, WebGPU's defaults of the rest.
fn limits(has: &Limits) -> Limits {
    Limits {
        max_storage_buffer_binding_size: has.max_storage_buffer_binding_size,
        max_buffer_size: has.max_buffer_size,
        max_compute_workgroup_storage_size: has.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: has.max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x: has.max_compute_workgroup_size_x,
        ..Limits::default()
    }
    .or_worse_values_from(has)
}

/// Most bytes of one binding, a multiple of what offsets are aligned to. At most 2 GiB, whatever the adapter says: a
/// shader on Metal is told a binding's size in 32 bits, and half of that keeps every byte's place within an i32.
fn binding_bytes(limits: &Limits) -> usize {
    const MOST: u64 = 2 << 30;
    limits.max_storage_buffer_binding_size.min(MOST) as usize / 256 * 256
}

fn compile(device: &Device, layout: &PipelineLayout, stage: Stage, source: String) -> Result<ComputePipeline, Error> {
    let scope = device.push_error_scope(ErrorFilter::Validation);
    let inner = device.push_error_scope(ErrorFilter::Internal);
    let label = format!("{stage:?}");
    let source = ShaderSource::Wgsl(source.into());
    let module = device.create_shader_module(ShaderModuleDescriptor { label: Some(&label), source });
    let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
        label: Some(&label),
        layout: Some(layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let (inner, outer) = (pollster::block_on(inner.pop()), pollster::block_on(scope.pop()));
    inner.or(outer).map_or(Ok(pipeline), Err)
}

fn job_layout(device: &Device) -> BindGroupLayout {
    let params = BindingType::Buffer {
        ty: BufferBindingType::Uniform,
        has_dynamic_offset: true,
        min_binding_size: BufferSize::new(PARAMS_STRIDE as u64),
    };
    let entries = [entry(0, params), entry(1, storage(true)), entry(2, storage(false)), entry(3, storage(false))];
    device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: Some("job"), entries: &entries })
}

fn part_layout(device: &Device) -> BindGroupLayout {
    let entries = [entry(0, storage(true)), entry(1, storage(true))];
    device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: Some("part"), entries: &entries })
}

fn no_part(device: &Device, layout: &BindGroupLayout) -> BindGroup {
    let descriptor =
        BufferDescriptor { label: Some("no part"), size: 16, usage: BufferUsages::STORAGE, mapped_at_creation: false };
    let buffer = device.create_buffer(&descriptor);
    let entries = [0, 1].map(|binding| BindGroupEntry { binding, resource: buffer.as_entire_binding() });
    device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries })
}

fn entry(binding: u32, ty: BindingType) -> BindGroupLayoutEntry {
    BindGroupLayoutEntry { binding, visibility: ShaderStages::COMPUTE, ty, count: None }
}

fn storage(read_only: bool) -> BindingType {
    BindingType::Buffer {
        ty: BufferBindingType::Storage { read_only },
        has_dynamic_offset: false,
        min_binding_size: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gpu, own_gpu, test_adapter};

    #[test]
    fn what_wgpu_refuses_is_no_fault_of_the_device() {
        let Some(gpu) = gpu() else { return };
        let [from, to] = ["from", "to"].map(|label| gpu.buffer(label, 16, BufferUsages::COPY_SRC).expect("room"));
        let refused = gpu.validated(|| {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, 16);
            gpu.queue.submit([encoder.finish()]);
        });
        assert!(refused.is_err(), "nothing may be copied to such a buffer");
        assert_eq!(gpu.health(), Ok(()));
        assert_eq!(gpu.validated(|| 7), Ok(7));
    }

    #[test]
    fn a_device_that_is_gone_has_a_fault() {
        for how in [Loss::Destroyed, Loss::Reset] {
            let Some(gpu) = own_gpu() else { return };
            gpu.lose(how);
            gpu.queue.submit([]);
            gpu.poll();
            assert!(gpu.health().is_err(), "{how:?}");
        }
    }

    #[test]
    fn a_device_that_does_not_answer_is_waited_for_as_long_as_told() {
        let Some(gpu) = own_gpu() else { return };
        gpu.lose(Loss::Silent);
        let begun = Instant::now();
        assert!(!gpu.settle(Duration::from_millis(20), || false));
        assert!(gpu.health().is_ok(), "that was no failure");
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_device_that_does_not_map_its_memory_has_a_fault() {
        let Some(adapter) = test_adapter() else { return };
        let options = GpuOptions { patience: Duration::from_millis(20), ..GpuOptions::default() };
        let gpu = Gpu::open(&adapter, options).expect("the adapter opens");
        gpu.settle_mappings(|| true);
        assert_eq!(gpu.health(), Ok(()));
        gpu.settle_mappings(|| false);
        assert!(gpu.health().is_err());
    }

    #[test]
    fn a_binding_has_a_size_that_every_driver_can_tell() {
        let of = |bytes| binding_bytes(&Limits { max_storage_buffer_binding_size: bytes, ..Limits::default() });
        assert_eq!([128 << 20, (128 << 20) + 255, 2 << 30].map(of), [128 << 20, 128 << 20, 2 << 30]);
        assert_eq!([(2 << 30) + 256, 6 << 30, u64::MAX].map(of), [2 << 30; 3]);
    }
}
