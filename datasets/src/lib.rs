//! What the rest of megaring is measured against: a real sample, seeded generators, golden files, and a naive float64
//! reference of every operation.
//!
//! Promises:
//! - Nothing here depends on another megaring crate, so a mistake there cannot hide behind the same mistake here.
//! - Generators give the same bits for the same seed on every platform and with any number of threads: they use integer
//!   arithmetic, IEEE-exact float operations (`+ - * / sqrt`) and pure-Rust `libm`, never the platform's math library.
//! - The sample and the golden cases are compiled into the binary; nothing is read from disk.
//! - What can fail on data returns [`DataError`]. Panics are kept for mistakes in the call and documented there.
//!
//! Limits: the reference favours plainness over speed. It is parallel over queries, yet far slower than a kernel.

pub mod embeddings;
pub mod error;
pub mod matrix;
pub mod memories;
pub mod npy;
pub mod points;
pub mod poison;
pub mod queries;
pub mod reference;
pub mod sample;

mod draw;

/// The example of `README.md`, run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use embeddings::Embeddings;
pub use error::DataError;
pub use matrix::Matrix;
pub use memories::{Memories, memories};
pub use points::points;
pub use queries::queries;
pub use sample::{GoldenCase, Sample, SampleRecord, golden, sample};
