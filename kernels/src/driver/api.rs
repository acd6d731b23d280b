//! The driver's functions, looked up once and for all in its library.
//!
//! Types and constants are cudarc's. The functions are not: cudarc's panic where a symbol is missing, and return a Rust
//! enum, which lacks the codes of newer drivers. Here a missing symbol is an error, and a code is a number. Nor is
//! finding the library: cudarc takes `libcuda.so`, too, which in a toolkit is a stub.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUgraph,
    CUgraphExec, CUmodule, CUresult, CUstream, CUstreamCaptureMode,
};

/// What a function answers; 0 is success.
pub(crate) type Code = u32;

macro_rules! functions {
    ($($name:ident = $symbol:ident ($($argument:ty),*);)*) => {
        /// The functions that are used, by their names without prefix and version.
        pub(crate) struct Api {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> Code,)*
            pub(crate) error_name: Describe,
            pub(crate) error_string: Describe,
        }

        // The arguments are those of cudarc's bindings, which are made from the driver's header.
        $(const _: unsafe fn($($argument),*) -> CUresult = sys::$symbol;)*

        impl Api {
            /// All of them, or the name of one that the driver has not.
            pub(crate) fn load(library: &Library) -> Result<Self, String> {
                // SAFETY: each symbol is looked up as the type that CUDA documents for this version of its name. It
                // returns an enum of 32 bits, here a plain number.
                Ok(unsafe {
                    Self {
                        $($name: library.function(stringify!($symbol))?,)*
                        error_name: library.function("cuGetErrorName")?,
                        error_string: library.function("cuGetErrorString")?,
                    }
                })
            }
        }
    };
}

/// How a code is described. It takes any number, also one that no enum has.
type Describe = unsafe extern "C" fn(Code, *mut *const c_char) -> Code;

functions! {
    init = cuInit (c_uint);
    device_count = cuDeviceGetCount (*mut c_int);
    device_get = cuDeviceGet (*mut CUdevice, c_int);
    device_name = cuDeviceGetName (*mut c_char, c_int, CUdevice);
    device_attribute = cuDeviceGetAttribute (*mut c_int, CUdevice_attribute, CUdevice);
    device_pci = cuDeviceGetPCIBusId (*mut c_char, c_int, CUdevice);
    device_memory = cuDeviceTotalMem_v2 (*mut usize, CUdevice);
    context_retain = cuDevicePrimaryCtxRetain (*mut CUcontext, CUdevice);
    context_release = cuDevicePrimaryCtxRelease_v2 (CUdevice);
    context_set_current = cuCtxSetCurrent (CUcontext);
    memory_info = cuMemGetInfo_v2 (*mut usize, *mut usize);
    memory_alloc = cuMemAlloc_v2 (*mut CUdeviceptr, usize);
    memory_free = cuMemFree_v2 (CUdeviceptr);
    memory_set = cuMemsetD8Async (CUdeviceptr, c_uchar, usize, CUstream);
    memory_upload = cuMemcpyHtoDAsync_v2 (CUdeviceptr, *const c_void, usize, CUstream);
    host_alloc = cuMemHostAlloc (*mut *mut c_void, usize, c_uint);
    host_free = cuMemFreeHost (*mut c_void);
    host_address = cuMemHostGetDevicePointer_v2 (*mut CUdeviceptr, *mut c_void, c_uint);
    stream_create = cuStreamCreate (*mut CUstream, c_uint);
    stream_destroy = cuStreamDestroy_v2 (CUstream);
    stream_query = cuStreamQuery (CUstream);
    stream_synchronise = cuStreamSynchronize (CUstream);
    stream_begin_capture = cuStreamBeginCapture_v2 (CUstream, CUstreamCaptureMode);
    stream_end_capture = cuStreamEndCapture (CUstream, *mut CUgraph);
    event_create = cuEventCreate (*mut CUevent, c_uint);
    event_destroy = cuEventDestroy_v2 (CUevent);
    event_record = cuEventRecord (CUevent, CUstream);
    event_synchronise = cuEventSynchronize (CUevent);
    module_load = cuModuleLoadData (*mut CUmodule, *const c_void);
    module_unload = cuModuleUnload (CUmodule);
    module_function = cuModuleGetFunction (*mut CUfunction, CUmodule, *const c_char);
    function_load = cuFuncLoad (CUfunction);
    function_attribute = cuFuncGetAttribute (*mut c_int, CUfunction_attribute, CUfunction);
    function_set_attribute = cuFuncSetAttribute (CUfunction, CUfunction_attribute, c_int);
    occupancy = cuOccupancyMaxActiveBlocksPerMultiprocessor (*mut c_int, CUfunction, c_int, usize);
    launch_cooperative = cuLaunchCooperativeKernel (
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void
    );
    graph_instantiate = cuGraphInstantiateWithFlags (*mut CUgraphExec, CUgraph, c_ulonglong);
    graph_destroy = cuGraphDestroy (CUgraph);
    graph_upload = cuGraphUpload (CUgraphExec, CUstream);
    graph_launch = cuGraphLaunch (CUgraphExec, CUstream);
    graph_exec_destroy = cuGraphExecDestroy (CUgraphExec);
}

/// What a driver calls its library.
const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// The driver's library; never unloaded, so what is looked up in it stays.
pub(crate) struct Library(&'static libloading::Library);

impl Library {
    /// The library, if there is one.
    pub(crate) fn find() -> Option<Self> {
        static LOADED: OnceLock<Option<libloading::Library>> = OnceLock::new();
        // SAFETY: loading a driver runs its initialisers, which are made to be run in any process.
        LOADED.get_or_init(|| unsafe { libloading::Library::new(LIBRARY) }.ok()).as_ref().map(Self)
    }

    /// What the driver knows of CUDA: 13000 is 13.0. May be asked before everything else, and of every driver.
    pub(crate) fn version(&self) -> Result<i32, String> {
        // SAFETY: the type is the documented one.
        let version: unsafe extern "C" fn(*mut c_int) -> Code = unsafe { self.function("cuDriverGetVersion")? };
        let mut found = 0;
        // SAFETY: the pointer is to a live integer.
        match unsafe { version(&raw mut found) } {
            0 => Ok(found),
            code => Err(format!("cuDriverGetVersion answered {code}")),
        }
    }

    /// # Safety
    /// `F` is a function pointer of the symbol's type.
    unsafe fn function<F: Copy>(&self, symbol: &str) -> Result<F, String> {
        // SAFETY: the caller answers for the type, and the library is never unloaded.
        let found = unsafe { self.0.get::<F>(symbol.as_bytes()) };
        found.map(|function| *function).map_err(|_| format!("it has no {symbol}"))
    }
}

/// Codes that are told apart.
pub(crate) mod code {
    use cudarc::driver::sys::CUresult;

    use super::Code;

    /// Not enough memory.
    pub(crate) const OUT_OF_MEMORY: Code = CUresult::CUDA_ERROR_OUT_OF_MEMORY as Code;
    /// The library is a toolkit's, to link against, and no driver.
    pub(crate) const STUB: Code = CUresult::CUDA_ERROR_STUB_LIBRARY as Code;
    /// No GPU.
    pub(crate) const NO_DEVICE: Code = CUresult::CUDA_ERROR_NO_DEVICE as Code;
    /// The image holds no code for this architecture.
    pub(crate) const NO_BINARY: Code = CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU as Code;
    /// The work is not done yet.
    pub(crate) const NOT_READY: Code = CUresult::CUDA_ERROR_NOT_READY as Code;

    /// Whether nothing works in this process after this: the context is gone, or what it holds cannot be trusted.
    pub(crate) fn is_sticky(code: Code) -> bool {
        const STICKY: [CUresult; 18] = [
            CUresult::CUDA_ERROR_DEINITIALIZED,
            CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
            CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE,
            CUresult::CUDA_ERROR_CONTAINED,
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
            CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED,
            CUresult::CUDA_ERROR_ASSERT,
            CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
            CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
            CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
            CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
            CUresult::CUDA_ERROR_INVALID_PC,
            CUresult::CUDA_ERROR_LAUNCH_FAILED,
            CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK,
            CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED,
            CUresult::CUDA_ERROR_EXTERNAL_DEVICE,
            CUresult::CUDA_ERROR_UNKNOWN,
        ];
        STICKY.iter().any(|sticky| *sticky as Code == code)
    }
}

impl Api {
    /// A code in words.
    pub(crate) fn describe(&self, what: &str, code: Code) -> String {
        let words = |function: unsafe extern "C" fn(Code, *mut *const c_char) -> Code| {
            let mut text = std::ptr::null();
            // SAFETY: the pointer is to a live pointer; any code may be asked for.
            let known = unsafe { function(code, &raw mut text) } == 0 && !text.is_null();
            // SAFETY: the driver answered a string that ends in a zero and is never freed.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        match (words(self.error_name), words(self.error_string)) {
            (Some(name), Some(text)) => format!("{what}: {text} ({name})"),
            _ => format!("{what}: CUDA error {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::code::is_sticky;

    #[test]
    fn a_code_is_sticky_if_the_context_is_lost() {
        assert!([700, 719, 214, 999].into_iter().all(is_sticky));
        assert!(![0, 1, 2, 201, 209, 600, 720, 801, 900].into_iter().any(is_sticky));
    }
}
