//! Measuring: subjects in alternation until their medians are certain enough, what is told of the samples, and what
//! disturbed them.
//!
//! Nothing here knows the engine: whoever measures brings closures. Calibration measures with it, and so do the
//! benches.

pub mod disturbance;
pub(crate) mod random;
pub mod sampler;
pub mod stats;
