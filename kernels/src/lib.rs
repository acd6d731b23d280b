//! The CUDA backend: one kernel that consumes a ring in pinned memory by itself.
//!
//! `cuda/` is the device's side. Here is the host's: [`start`] looks whether a GPU can be used ([`probe`]), lays out
//! memory ([`abi`]), loads the kernel through the driver and brings it to work; [`residency`] keeps corpora on the
//! device; [`liveness`] watches over the kernel and takes the backend out of service when it dies. A program that links
//! this needs no CUDA to start: the driver is looked for when it is asked for.
//!
//! Everything but the driver's calls is written against [`device::Device`], so that it runs without a GPU: on a device
//! of threads in tests, and on the kernel's own code compiled for the CPU (`twin`, a feature for tests).

pub mod abi;
pub mod backend;
mod clock;
pub mod counters;
pub mod device;
mod driver;
mod fatbin;
mod launch;
mod lines;
pub mod liveness;
mod numa;
mod operations;
mod pinned;
mod poller;
pub mod pool;
pub mod probe;
pub mod residency;
pub mod stream;
#[cfg(feature = "twin")]
pub mod twin;

pub use backend::{CudaBackend, CudaMode, CudaOptions, CudaScreen, start, start_on};
pub use liveness::Timings;
pub use probe::Unavailable;
