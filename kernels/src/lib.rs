//! The CUDA backend.

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
mod pinned;
mod poller;
pub mod pool;
pub mod probe;
pub mod residency;
pub mod stream;
#[cfg(feature = "twin")]
pub mod twin;

pub use backend::{CudaBackend, CudaMode, CudaOptions, CudaScreen, start, start_on, start_with};
pub use liveness::Timings;
pub use probe::Unavailable;
