//! The driver's context on one device, and what can be found out before there is one.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use cudarc::driver::sys::{CUcontext, CUdevice, CUdevice_attribute, CUstream, CUstream_flags};

use super::api::{Api, Code, Library, code};
use crate::device::DeviceError;
use crate::probe::{DeviceFacts, Facts, OLDEST_DRIVER};

/// The device's primary context, kept for as long as anything of it is.
pub(crate) struct Context {
    api: Api,
    device: CUdevice,
    context: CUcontext,
    kernel_stream: CUstream,
    copy_stream: CUstream,
    /// What broke it for good.
    broken: OnceLock<String>,
}

// SAFETY: the driver's handles may be used from any thread, several at a time; each call makes the context current for
// its thread first.
unsafe impl Send for Context {}
// SAFETY: as for `Send`.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the context and creates its streams: one for the kernel, one for copies.
    pub(crate) fn new(api: Api, device: CUdevice) -> Result<Self, DeviceError> {
        let none = std::ptr::null_mut();
        let broken = OnceLock::new();
        let mut it = Self {
            api,
            device,
            context: none,
            kernel_stream: std::ptr::null_mut(),
            copy_stream: std::ptr::null_mut(),
            broken,
        };
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is to a live pointer; the driver was initialised and knows the device.
        let code = unsafe { (it.api.context_retain)(&raw mut context, device) };
        it.check("cuDevicePrimaryCtxRetain", code)?;
        it.context = context;
        it.kernel_stream = it.stream()?;
        it.copy_stream = it.stream()?;
        Ok(it)
    }

    /// Makes the context this thread's, and gives the functions to use it with.
    pub(crate) fn enter(&self) -> Result<&Api, DeviceError> {
        self.sound()?;
        // SAFETY: the context is retained until `drop`.
        self.check("cuCtxSetCurrent", unsafe { (self.api.context_set_current)(self.context) })?;
        Ok(&self.api)
    }

    pub(crate) fn kernel_stream(&self) -> CUstream {
        self.kernel_stream
    }

    pub(crate) fn copy_stream(&self) -> CUstream {
        self.copy_stream
    }

    /// The device's address on the PCI bus, such as `0000:65:00.0`.
    pub(crate) fn pci_address(&self) -> Option<String> {
        let mut text: [c_char; 32] = [0; 32];
        // SAFETY: the driver writes at most that many bytes, the last of them zero.
        let code = unsafe { (self.api.device_pci)(text.as_mut_ptr(), text.len() as i32, self.device) };
        // SAFETY: the array was zero, and the driver has put a string into it that ends in a zero.
        (code == 0).then(|| unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// What an answer means. A sticky error is remembered.
    pub(crate) fn check(&self, what: &str, code: Code) -> Result<(), DeviceError> {
        if code == 0 {
            return Ok(());
        }
        let text = self.api.describe(what, code);
        if code::is_sticky(code) {
            return Err(DeviceError::Sticky(self.broken.get_or_init(|| text).clone()));
        }
        Err(DeviceError::Other(text))
    }

    /// [`Context::check`] for who asked for memory.
    pub(crate) fn check_memory(&self, what: &'static str, bytes: usize, code: Code) -> Result<(), DeviceError> {
        match code {
            code::OUT_OF_MEMORY => Err(DeviceError::OutOfMemory { bytes, what }),
            _ => self.check(what, code),
        }
    }

    /// Whether nothing is on the kernel's stream.
    pub(crate) fn is_idle(&self) -> Result<bool, DeviceError> {
        let api = self.enter()?;
        // SAFETY: the stream lives as long as the context.
        match unsafe { (api.stream_query)(self.kernel_stream) } {
            code::NOT_READY => Ok(false),
            code => self.check("the kernel", code).map(|()| true),
        }
    }

    /// Whether memory may be freed without waiting for a kernel for ever.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_idle() == Ok(true)
    }

    fn sound(&self) -> Result<(), DeviceError> {
        self.broken.get().map_or(Ok(()), |text| Err(DeviceError::Sticky(text.clone())))
    }

    fn stream(&self) -> Result<CUstream, DeviceError> {
        let api = self.enter()?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: the pointer is to a live pointer, and the context is current.
        let code = unsafe { (api.stream_create)(&raw mut stream, CUstream_flags::CU_STREAM_NON_BLOCKING as u32) };
        self.check("cuStreamCreate", code).map(|()| stream)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // With a kernel on it the context stays: releasing it would wait. A broken one goes with the process.
        if self.context.is_null() || !self.is_quiet() {
            return;
        }
        let streams = [self.kernel_stream, self.copy_stream].into_iter().filter(|stream| !stream.is_null());
        // SAFETY: all were created in `new` and are given back here alone; nothing is on the streams. The codes are of
        // no use any more.
        unsafe {
            streams.for_each(|stream| _ = (self.api.stream_destroy)(stream));
            (self.api.context_release)(self.device);
        }
    }
}

/// Looks at the machine as far as that goes. With the functions and the device, where they were found.
pub(crate) fn gather(wanted: usize, left_out: Option<String>) -> (Facts, Option<(Api, CUdevice)>) {
    let mut facts = Facts {
        os: std::env::consts::OS,
        left_out,
        launch_blocking: std::env::var("CUDA_LAUNCH_BLOCKING").ok(),
        library: false,
        broken: None,
        driver: None,
        devices: None,
        wanted,
        device: None,
    };
    let Some(library) = Library::find() else { return (facts, None) };
    facts.library = true;
    let found = look(&library, &mut facts);
    match found {
        Ok(found) => (facts, found),
        Err(reason) => {
            facts.broken = Some(reason);
            (facts, None)
        }
    }
}

fn look(library: &Library, facts: &mut Facts) -> Result<Option<(Api, CUdevice)>, String> {
    let version = library.version()?;
    facts.driver = Some(version);
    if version < OLDEST_DRIVER {
        // It may lack functions, and will not be used.
        return Ok(None);
    }
    let api = Api::load(library)?;
    let check = |what: &str, code: Code| if code == 0 { Ok(()) } else { Err(api.describe(what, code)) };
    // SAFETY: takes no pointer, and may be called again and again.
    match unsafe { (api.init)(0) } {
        code::NO_DEVICE => {
            facts.devices = Some(0);
            return Ok(None);
        }
        code::STUB => return Err("it is a toolkit's stub, to link programs against, and no driver".into()),
        code => check("cuInit", code)?,
    }
    let mut count = 0;
    // SAFETY: the pointer is to a live integer.
    check("cuDeviceGetCount", unsafe { (api.device_count)(&raw mut count) })?;
    facts.devices = Some(count as usize);
    if facts.wanted >= count as usize {
        return Ok(None);
    }
    let mut device = 0;
    // SAFETY: the pointer is to a live integer.
    check("cuDeviceGet", unsafe { (api.device_get)(&raw mut device, facts.wanted as i32) })?;
    facts.device = Some(device_facts(&api, device)?);
    Ok(Some((api, device)))
}

fn device_facts(api: &Api, device: CUdevice) -> Result<DeviceFacts, String> {
    let check = |what: &str, code: Code| if code == 0 { Ok(()) } else { Err(api.describe(what, code)) };
    let attribute = |wanted: CUdevice_attribute| {
        let mut value = 0;
        // SAFETY: the pointer is to a live integer; the device is the driver's.
        check("cuDeviceGetAttribute", unsafe { (api.device_attribute)(&raw mut value, wanted, device) }).map(|()| value)
    };
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: the driver writes at most that many bytes, the last of them zero.
    check("cuDeviceGetName", unsafe { (api.device_name)(name.as_mut_ptr(), name.len() as i32, device) })?;
    // SAFETY: the array was zero, and the driver has put a string into it that ends in a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let mut memory = 0;
    // SAFETY: the pointer is to a live integer.
    check("cuDeviceTotalMem", unsafe { (api.device_memory)(&raw mut memory, device) })?;
    Ok(DeviceFacts {
        name,
        capability: (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        memory: memory as u64,
        multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(0) as u32,
        shared_bytes: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?.max(0)
            as usize,
        cooperative: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        maps_host: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)? != 0,
        watched: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT)? != 0,
    })
}
