//! A device as the backend needs it: memory, uploads, and one kernel. `driver.rs` is one through the CUDA driver,
//! `twin.rs` one in this process for tests.
//!
//! Rules that hold for every implementation
//! - While a kernel runs, memory is neither allocated nor freed, on the device or pinned: the driver would wait for the
//!   kernel. To get memory, stop the kernel first.
//! - Uploads may go on while a kernel runs; a call returns when the bytes are there.
//! - One kernel at a time. A launch returns at once; [`Device::is_idle`] and [`Device::synchronise`] tell how it went.
//! - After [`DeviceError::Sticky`] every call fails the same way until the process ends.

use bytemuck::{Pod, Zeroable};
use megaring_ring::Memory;

use crate::abi::KernelParams;

/// An address in the device's memory; 0 is null.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// No address.
    pub const NULL: Self = Self(0);

    /// Whether this is no address.
    #[must_use]
    pub fn is_null(self) -> bool {
        self == Self::NULL
    }

    /// The address `bytes` further on. The caller knows that it lies in the same allocation.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What a device is and has. Fixed once it is opened.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// As a person knows it.
    pub name: String,
    /// Architecture that the kernel runs on, such as `sm_90`.
    pub arch: String,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Blocks of the kernel that are resident together, the dispatcher included.
    pub blocks: u32,
    /// Bytes of device memory.
    pub memory_total: usize,
    /// Bytes of it that were free when the device was opened.
    pub memory_free: usize,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

/// Why a device did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No such span of memory is free.
    #[error("{what} of {bytes} bytes cannot be had")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Device memory, or page-locked memory.
        what: &'static str,
    },
    /// The device's context is broken: nothing works until the process ends.
    #[error("the device has failed for good: {0}")]
    Sticky(String),
    /// This call failed; others may not.
    #[error("{0}")]
    Other(String),
}

impl DeviceError {
    /// Whether nothing works any more.
    #[must_use]
    pub fn is_sticky(&self) -> bool {
        matches!(self, Self::Sticky(_))
    }
}

/// A device that can run the kernel. See the module for the rules.
pub trait Device: Send + Sync {
    /// What it is and has.
    fn info(&self) -> &DeviceInfo;

    /// Zeroed device memory, aligned to 256 bytes. Never while a kernel runs.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], or what the driver says.
    fn alloc(&self, bytes: usize) -> Result<DevicePtr, DeviceError>;

    /// Gives memory back. Never while a kernel runs.
    ///
    /// # Safety
    /// `at` is what [`Device::alloc`] gave, was not freed, and nothing uses it any more.
    unsafe fn free(&self, at: DevicePtr);

    /// Copies bytes to device memory, on a stream of its own; done when it returns. May be called while a kernel runs,
    /// from any thread. The span lies within an allocation of this device, and no kernel reads or writes it meanwhile:
    /// both are the caller's promise.
    ///
    /// # Errors
    /// What the driver says.
    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<(), DeviceError>;

    /// Zeroed page-locked memory that the device can address; not write-combined, so the host reads it at full speed.
    /// Never while a kernel runs, and never dropped then.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], or what the driver says.
    fn pinned(&self, bytes: usize) -> Result<Memory, DeviceError>;

    /// Where the device sees the first byte of memory that [`Device::pinned`] gave.
    fn device_address(&self, memory: &Memory) -> DevicePtr;

    /// Clears the kernel's state ([`crate::abi::STATE_BYTES`]) and launches it: cooperatively, `info().blocks` blocks
    /// of 256 threads. Returns at once. No kernel runs yet.
    ///
    /// # Errors
    /// What the driver says.
    fn launch(&self, params: &KernelParams) -> Result<(), DeviceError>;

    /// Records what [`Device::launch`] would do with these parameters, for [`Device::replay`]. Once, with no kernel
    /// running.
    ///
    /// # Errors
    /// What the driver says.
    fn prepare_graph(&self, params: &KernelParams) -> Result<(), DeviceError>;

    /// [`Device::launch`] as recorded by [`Device::prepare_graph`].
    ///
    /// # Errors
    /// If nothing was recorded, or what the driver says.
    fn replay(&self) -> Result<(), DeviceError>;

    /// Whether no kernel runs. Never blocks.
    ///
    /// # Errors
    /// How the last kernel failed.
    fn is_idle(&self) -> Result<bool, DeviceError>;

    /// Blocks until no kernel runs.
    ///
    /// # Errors
    /// How the last kernel failed.
    fn synchronise(&self) -> Result<(), DeviceError>;
}
