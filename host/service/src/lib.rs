//! The program: command line, configuration, doctor, demo and bench, around the engine ([`megaring_engine`]) and the
//! server ([`megaring_server`]). [`Setup`] starts the backends of this build.

mod backends;
pub mod bench;
pub mod cli;
pub mod config;
pub mod console;
pub mod demo;
pub mod doctor;

pub use backends::{CudaConfig, Setup, WgpuConfig};
