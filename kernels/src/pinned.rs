//! Page-locked memory that the device addresses, too.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::{CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE};
use megaring_ring::memory::Backing;

use crate::device::DeviceError;
use crate::driver::Context;

/// Memory of the host, mapped into the device's address space at the same address. Not write-combined: the host reads
/// it.
pub(crate) struct Pinned {
    base: NonNull<u8>,
    len: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory; the pointer is handed out, and used here only to free it. `Context` is `Send` and `Sync`.
unsafe impl Send for Pinned {}
// SAFETY: as for `Send`.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Zeroed. The caller sees to it that no kernel runs.
    pub(crate) fn new(context: Arc<Context>, len: usize) -> Result<Self, DeviceError> {
        let api = context.enter()?;
        let mut base: *mut c_void = std::ptr::null_mut();
        // SAFETY: the pointer is to a live pointer, and a context is current.
        let code =
            unsafe { (api.host_alloc)(&raw mut base, len, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP) };
        context.check_memory("page-locked memory", len, code)?;
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| DeviceError::Other("the driver gave page-locked memory without an address".into()))?;
        // From here on, dropping it gives it back.
        let pinned = Self { base, len, context };
        // SAFETY: the driver gave `len` bytes, and nobody else knows of them yet.
        unsafe { base.as_ptr().write_bytes(0, len) };
        pinned.check_address().map(|()| pinned)
    }

    /// The device must see it where the host does, which holds on every 64-bit system: addresses are used for both.
    fn check_address(&self) -> Result<(), DeviceError> {
        let api = self.context.enter()?;
        let mut address = 0;
        // SAFETY: the memory was allocated as mapped; the pointer is to a live integer.
        let code = unsafe { (api.host_address)(&raw mut address, self.base.as_ptr().cast(), 0) };
        self.context.check("cuMemHostGetDevicePointer", code)?;
        if address == self.base.addr().get() as u64 {
            return Ok(());
        }
        Err(DeviceError::Other("the device sees page-locked memory at another address than the host".into()))
    }
}

// SAFETY: the driver's allocation stays where it is until `drop`, is aligned to a page (4,096 bytes or more), and is
// read and written through pointers alone.
unsafe impl Backing for Pinned {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Freeing would wait for a kernel that runs, and one that was lost never ends; the memory is then the kernel's.
        if self.context.is_quiet()
            && let Ok(api) = self.context.enter()
        {
            // SAFETY: allocated by `new`, freed here alone; no kernel runs that could use it.
            let code = unsafe { (api.host_free)(self.base.as_ptr().cast()) };
            if let Err(error) = self.context.check("cuMemFreeHost", code) {
                tracing::warn!(%error, "page-locked memory was not given back");
            }
        }
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("base", &self.base).field("len", &self.len).finish()
    }
}
