//! Measuring: subjects in alternation until their medians are certain enough, what is told of the samples, where one backend begins to
//! win, and the report that shows it.
//!
//! Nothing here knows megaring's engine: whoever measures brings closures, and gets records that can be written as JSON or drawn.

pub mod crossover;
pub mod disturbance;
mod random;
pub mod record;
pub mod report;
pub mod sampler;
pub mod stats;
