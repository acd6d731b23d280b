//! A device through the CUDA driver.
//!
//! Every result of the driver is checked. An error that leaves the context broken is remembered, and every later call
//! returns it without asking the driver again: only a new process helps then. Streams do not synchronise with the
//! default stream, which is never used. All that a launch needs is loaded, created and allocated before the first one,
//! since loading and allocating wait for kernels to end.

mod api;
mod context;

use std::ffi::{CStr, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{
    CUevent, CUevent_flags, CUfunction, CUfunction_attribute, CUgraph, CUgraphExec, CUmodule, CUstreamCaptureMode,
};
use megaring_ring::Memory;
use megaring_ring::memory::Backing;

pub(crate) use self::context::Context;
pub(crate) use self::context::gather;
use crate::abi::{BLOCK_THREADS, KernelParams, STATE_BYTES};
use crate::device::{Device, DeviceError, DeviceInfo, DevicePtr};
use crate::numa;
use crate::pinned::Pinned;
use crate::probe::DeviceFacts;

/// The kernel's name in the image.
const KERNEL: &CStr = c"megaring_kernel";
/// Dynamic shared memory of a block: what is asked for, and the least that will do.
const SHARED: usize = 96 << 10;
const LEAST_SHARED: usize = 40 << 10;
/// Bytes of each of the two buffers that uploads go through: one is filled while the other is copied.
const STAGING: usize = 8 << 20;

/// A GPU with the kernel loaded.
pub(crate) struct Gpu {
    info: DeviceInfo,
    kernel: CUfunction,
    module: CUmodule,
    staging: Mutex<Staging>,
    graph: Mutex<Option<CUgraphExec>>,
    context: Arc<Context>,
}

// SAFETY: the driver's handles may be used from any thread (each call makes the context current first); the mutable
// ones are behind locks.
unsafe impl Send for Gpu {}
// SAFETY: as for `Send`.
unsafe impl Sync for Gpu {}

struct Staging {
    buffers: [Pinned; 2],
    copied: [CUevent; 2],
    /// The buffer that was used last.
    next: usize,
}

impl Gpu {
    /// Loads the kernel from `image` and measures how much of it is resident at once. `facts` are the device's, and
    /// were found good.
    pub(crate) fn open(context: Context, facts: &DeviceFacts, image: &[u8]) -> Result<Self, DeviceError> {
        let context = Arc::new(context);
        let api = context.enter()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is a whole fat binary, aligned as the driver wants it, and only read.
        let code = unsafe { (api.module_load)(&raw mut module, image.as_ptr().cast()) };
        if code == api::code::NO_BINARY {
            let (major, minor) = facts.capability;
            let text = format!("this build has no code for compute capability {major}.{minor} ({})", facts.name);
            return Err(DeviceError::Other(text));
        }
        context.check("cuModuleLoadData", code)?;
        let mut kernel = std::ptr::null_mut();
        // SAFETY: the module was just loaded; the name ends in a zero.
        context.check("the kernel megaring_kernel", unsafe {
            (api.module_function)(&raw mut kernel, module, KERNEL.as_ptr())
        })?;
        // Whatever CUDA_MODULE_LOADING says: loaded lazily, a function may wait for the very kernel that waits for it.
        // SAFETY: the function is of the module just loaded.
        context.check("cuFuncLoad", unsafe { (api.function_load)(kernel) })?;
        let staging = Mutex::new(Staging::new(&context)?);
        let shared = shared_bytes(&context, kernel, facts)?;
        let blocks = resident_blocks(&context, kernel, shared)? * facts.multiprocessors;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both pointers are to live integers.
        context.check("cuMemGetInfo", unsafe { (api.memory_info)(&raw mut free, &raw mut total) })?;
        let (major, minor) = facts.capability;
        let info = DeviceInfo {
            name: facts.name.clone(),
            arch: format!("sm_{major}{minor}"),
            multiprocessors: facts.multiprocessors,
            blocks,
            memory_total: total,
            memory_free: free,
            shared_bytes: shared as u32,
        };
        Ok(Self { info, kernel, module, staging, graph: Mutex::new(None), context })
    }

    /// Clears the state and puts the kernel on its stream, or into the graph that the stream is captured into.
    fn enqueue(&self, params: &KernelParams) -> Result<(), DeviceError> {
        let api = self.context.enter()?;
        let stream = self.context.kernel_stream();
        let bytes = STATE_BYTES;
        // SAFETY: the state is an allocation of that many bytes, and the kernel that used it, if any, has ended.
        self.context.check("cuMemsetD8Async", unsafe { (api.memory_set)(params.state.0, 0, bytes, stream) })?;
        let mut argument: *mut c_void = std::ptr::from_ref(params).cast_mut().cast();
        let blocks = self.info.blocks;
        let shared = self.info.shared_bytes;
        // SAFETY: the kernel takes one parameter, which is a `KernelParams` and is copied during the call; the grid is
        // one that is resident at once.
        let code = unsafe {
            (api.launch_cooperative)(self.kernel, blocks, 1, 1, BLOCK_THREADS, 1, 1, shared, stream, &raw mut argument)
        };
        self.context.check("cuLaunchCooperativeKernel", code)
    }

    fn instantiate(&self, graph: CUgraph) -> Result<CUgraphExec, DeviceError> {
        let api = self.context.enter()?;
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph was just captured.
        self.context.check("cuGraphInstantiate", unsafe { (api.graph_instantiate)(&raw mut exec, graph, 0) })?;
        let stream = self.context.kernel_stream();
        // SAFETY: both are live. What the first launch would bring to the device is brought now.
        let uploaded = self.context.check("cuGraphUpload", unsafe { (api.graph_upload)(exec, stream) });
        uploaded.and_then(|()| self.synchronise()).map(|()| exec)
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        // The buffers are of no meaning between two uploads.
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn graph(&self) -> MutexGuard<'_, Option<CUgraphExec>> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Gpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<DevicePtr, DeviceError> {
        let api = self.context.enter()?;
        let mut at = 0;
        // SAFETY: the pointer is to a live integer.
        self.context.check_memory("device memory", bytes, unsafe { (api.memory_alloc)(&raw mut at, bytes) })?;
        let stream = self.context.copy_stream();
        // SAFETY: just allocated, with that many bytes.
        let cleared = self.context.check("cuMemsetD8Async", unsafe { (api.memory_set)(at, 0, bytes, stream) });
        // SAFETY: the stream lives as long as the context.
        cleared.and_then(|()| self.context.check("clearing memory", unsafe { (api.stream_synchronise)(stream) }))?;
        Ok(DevicePtr(at))
    }

    unsafe fn free(&self, at: DevicePtr) {
        let freed = self.context.enter().and_then(|api| {
            // SAFETY: the caller answers for the address, and for nobody using it.
            self.context.check("cuMemFree", unsafe { (api.memory_free)(at.0) })
        });
        if let Err(error) = freed {
            tracing::warn!(%error, "device memory was not given back");
        }
    }

    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<(), DeviceError> {
        let api = self.context.enter()?;
        let stream = self.context.copy_stream();
        for (number, piece) in from.chunks(STAGING).enumerate() {
            // For each piece anew: a long upload must not keep a stream's next tile waiting, for which a kernel waits.
            let mut staging = self.staging();
            staging.next = 1 - staging.next;
            let (buffer, copied) = (&staging.buffers[staging.next], staging.copied[staging.next]);
            // SAFETY: the event is live. One that was never recorded is over.
            self.context.check("cuEventSynchronize", unsafe { (api.event_synchronise)(copied) })?;
            let staged = buffer.base().as_ptr();
            // SAFETY: a piece is no longer than a buffer; the buffer's last copy is over, and its lock is held.
            unsafe { staged.copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
            let at = to.offset(number * STAGING).0;
            // SAFETY: the caller answers for the span of device memory; the staged bytes stay until the event below.
            let code = unsafe { (api.memory_upload)(at, staged.cast(), piece.len(), stream) };
            self.context.check("cuMemcpyHtoDAsync", code)?;
            // SAFETY: event and stream are live.
            self.context.check("cuEventRecord", unsafe { (api.event_record)(copied, stream) })?;
        }
        // SAFETY: the stream is live.
        self.context.check("an upload", unsafe { (api.stream_synchronise)(stream) })
    }

    fn pinned(&self, bytes: usize) -> Result<Memory, DeviceError> {
        let address = self.context.pci_address();
        let pinned = numa::near(address.as_deref(), || Pinned::new(self.context.clone(), bytes))?;
        Memory::new(pinned).map_err(|error| DeviceError::Other(error.to_string()))
    }

    fn device_address(&self, memory: &Memory) -> DevicePtr {
        // `Pinned::new` has checked that the two are one.
        DevicePtr(memory.base().addr().get() as u64)
    }

    fn launch(&self, params: &KernelParams) -> Result<(), DeviceError> {
        self.enqueue(params)
    }

    fn prepare_graph(&self, params: &KernelParams) -> Result<(), DeviceError> {
        let api = self.context.enter()?;
        let stream = self.context.kernel_stream();
        // Other threads may go on calling the driver meanwhile.
        // SAFETY: the stream is live, and nothing is on it.
        self.context.check("cuStreamBeginCapture", unsafe {
            (api.stream_begin_capture)(stream, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        })?;
        let enqueued = self.enqueue(params);
        let mut graph = std::ptr::null_mut();
        // Also after a failure: a stream that is captured takes no launch.
        // SAFETY: the stream is being captured by this thread.
        let ended =
            self.context.check("cuStreamEndCapture", unsafe { (api.stream_end_capture)(stream, &raw mut graph) });
        enqueued.and(ended)?;
        let exec = self.instantiate(graph);
        // SAFETY: captured above, and of no use once there is an executable one.
        self.context.check("cuGraphDestroy", unsafe { (api.graph_destroy)(graph) })?;
        if let Some(before) = self.graph().replace(exec?) {
            // SAFETY: instantiated here, replaced now, and no launch of it is under way.
            self.context.check("cuGraphExecDestroy", unsafe { (api.graph_exec_destroy)(before) })?;
        }
        Ok(())
    }

    fn replay(&self) -> Result<(), DeviceError> {
        let api = self.context.enter()?;
        let exec = (*self.graph()).ok_or_else(|| DeviceError::Other("no launch was recorded".into()))?;
        // SAFETY: both are live.
        self.context.check("cuGraphLaunch", unsafe { (api.graph_launch)(exec, self.context.kernel_stream()) })
    }

    fn is_idle(&self) -> Result<bool, DeviceError> {
        self.context.is_idle()
    }

    fn synchronise(&self) -> Result<(), DeviceError> {
        let api = self.context.enter()?;
        // SAFETY: the stream is live.
        self.context.check("the kernel", unsafe { (api.stream_synchronise)(self.context.kernel_stream()) })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if !self.context.is_quiet() {
            // A kernel that was lost keeps what it runs from.
            return;
        }
        let Ok(api) = self.context.enter() else { return };
        let graph = self.graph().take();
        let events = self.staging().copied;
        // SAFETY: all were created here, are destroyed here alone, and nothing that uses them is under way. Their codes
        // are of no use any more.
        unsafe {
            graph.map(|graph| (api.graph_exec_destroy)(graph));
            events.into_iter().for_each(|event| _ = (api.event_destroy)(event));
            (api.module_unload)(self.module);
        }
    }
}

impl Staging {
    fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let api = context.enter()?;
        let event = || {
            let mut event = std::ptr::null_mut();
            // SAFETY: the pointer is to a live pointer.
            let code = unsafe { (api.event_create)(&raw mut event, CUevent_flags::CU_EVENT_DISABLE_TIMING as u32) };
            context.check("cuEventCreate", code).map(|()| event)
        };
        let buffer = || Pinned::new(context.clone(), STAGING);
        Ok(Self { buffers: [buffer()?, buffer()?], copied: [event()?, event()?], next: 0 })
    }
}

/// Dynamic shared memory for a block, and leave for the kernel to have it.
fn shared_bytes(context: &Context, kernel: CUfunction, facts: &DeviceFacts) -> Result<usize, DeviceError> {
    let api = context.enter()?;
    let mut own = 0;
    // SAFETY: the pointer is to a live integer; the function is loaded.
    let code = unsafe {
        (api.function_attribute)(&raw mut own, CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, kernel)
    };
    context.check("cuFuncGetAttribute", code)?;
    let shared = facts.shared_bytes.saturating_sub(own as usize).min(SHARED);
    if shared < LEAST_SHARED {
        let text = format!("{} has {} bytes of shared memory for a block, too few", facts.name, facts.shared_bytes);
        return Err(DeviceError::Other(text));
    }
    // SAFETY: the function is loaded.
    let code = unsafe {
        (api.function_set_attribute)(
            kernel,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            shared as i32,
        )
    };
    context.check("cuFuncSetAttribute", code).map(|()| shared)
}

/// Blocks that one multiprocessor holds at once: by its registers the kernel has room for one.
fn resident_blocks(context: &Context, kernel: CUfunction, shared: usize) -> Result<u32, DeviceError> {
    let api = context.enter()?;
    let mut blocks = 0;
    // SAFETY: the pointer is to a live integer; the function is loaded.
    let code = unsafe { (api.occupancy)(&raw mut blocks, kernel, BLOCK_THREADS as i32, shared) };
    context.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
    match blocks {
        1.. => Ok(blocks as u32),
        _ => Err(DeviceError::Other("not one block of the kernel fits a multiprocessor".into())),
    }
}
